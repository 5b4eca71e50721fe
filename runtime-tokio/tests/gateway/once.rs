//! Section 5.2: what is sent again is stored once, wherever the connection was cut.

use crate::support::{Client, Served, within};
use crate::wire::frame;
use futures_util::future::join_all;
use longwire::gateway::GatewayConfig;
use longwire::hub::{HubConfig, Open};
use longwire_core::session::publisher::{InFlight, Incarnation, PublicationId};
use longwire_core::session::{ClientMessage, Data, ServerMessage, cbor, json};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Publications of each device.
const COUNT: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Cbor,
}

const FORMS: [Form; 2] = [Form::Json, Form::Cbor];

/// Where a connection ends: after so many bytes in that direction, counted from the first behind the handshake and
/// `hello`.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Up(usize),
    Down(usize),
}

/// A publisher as section 5.2 describes it: its publications are the numbers 1 to `COUNT`, to a topic of its own.
struct Device {
    incarnation: Incarnation,
    form: Form,
    flight: InFlight<1>,
    acknowledged: Vec<u64>,
}

impl Device {
    fn new(incarnation: u64, form: Form) -> Self {
        Self {
            incarnation: Incarnation(incarnation),
            form,
            flight: InFlight::new(),
            acknowledged: Vec::new(),
        }
    }

    fn topic(&self) -> String {
        format!("once/{}", self.incarnation)
    }

    /// A connection that was greeted, and the `publisher_n` of its `hello`.
    async fn connect(&mut self, served: &Served) -> (Client, Option<u64>) {
        let mut client = served.connect().await;
        let form = if self.form == Form::Json { "json" } else { "cbor" };
        let target = format!("/v1/stream?publisher={}", self.incarnation);
        client
            .send(&served.handshake(&target, &format!("Sec-WebSocket-Protocol: longwire.v1.{form}\r\n")))
            .await;
        assert_eq!(client.head().await.status, 101);
        self.flight.reconnected();
        let hello = loop {
            if let Some(message) = take_message(&mut client.unread) {
                break message;
            }
            assert!(client.read().await);
        };
        match decode(self.form, &hello) {
            ServerMessage::Hello { publisher_n, .. } => (client, publisher_n),
            other => panic!("{other:?}"),
        }
    }

    /// What it has to send, as it goes over the wire.
    fn wire(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while let Some(n) = self.flight.next(COUNT, 1024) {
            self.flight.sent(n);
            wire.extend(publication(self.form, n, &self.topic()));
        }
        wire
    }

    /// Works off the whole messages among what came.
    fn hear(&mut self, bytes: &mut Vec<u8>) {
        while let Some(message) = take_message(bytes) {
            match decode(self.form, &message) {
                ServerMessage::Ack { n, .. } => {
                    self.flight.acknowledge(n, |n| self.acknowledged.push(n));
                }
                ServerMessage::Tick { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Sends what is not acknowledged, until it is.
    async fn recover(&mut self, served: &Served) -> Option<u64> {
        let (mut client, publisher_n) = self.connect(served).await;
        let wire = self.wire();
        client.send(&wire).await;
        while self.flight.settled() < COUNT {
            assert!(client.read().await, "cut off by the server");
            self.hear(&mut client.unread);
        }
        assert_eq!(self.acknowledged, [1, 2, 3]);
        publisher_n
    }
}

/// A `pub` in a frame.
fn publication(form: Form, n: u64, topic: &str) -> Vec<u8> {
    let (mut payload, text) = (Vec::new(), n.to_string());
    let small = [u8::try_from(n).unwrap()];
    let mut sink = |piece: &[u8]| {
        payload.extend_from_slice(piece);
        Ok(())
    };
    let message = |data| ClientMessage::Pub { n: Some(n), topic: topic.into(), key: None, data };
    match form {
        Form::Json => json::encode_client(&message(Data::Json(text.as_bytes())), &mut sink).unwrap(),
        Form::Cbor => cbor::encode_client(&message(Data::Cbor(&small)), &mut sink).unwrap(),
    }
    frame(if form == Form::Json { 0x81 } else { 0x82 }, &payload)
}

fn decode(form: Form, message: &[u8]) -> ServerMessage<'_> {
    match form {
        Form::Json => json::decode_server(message).unwrap(),
        Form::Cbor => cbor::decode_server(message).unwrap(),
    }
}

/// The next message, if it is whole.
pub(crate) fn take_message(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let [first, second, ..] = bytes[..] else { return None };
    let (head, len) = match second {
        126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        len => (2, usize::from(len)),
    };
    assert!(matches!(first, 0x81 | 0x82) && second < 127, "{bytes:?}");
    if bytes.len() < head + len {
        return None;
    }
    let rest = bytes.split_off(head + len);
    let mut message = std::mem::replace(bytes, rest);
    Some(message.split_off(head))
}

/// Ends a connection: in good order, or so that what is under way is lost.
fn cut(client: Client, hard: bool) {
    if hard {
        socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// Waits until the gateway has worked off the connections that are gone, so that nothing more can be stored.
async fn gone(served: &Served) {
    within(async {
        while served.gateway.hub().counters().websockets.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// What the log has, by topic.
async fn stored(served: &Served) -> BTreeMap<String, Vec<u64>> {
    let (mut stored, mut since) = (BTreeMap::<_, Vec<_>>::new(), served.cursor(0));
    loop {
        let page = served.get(&format!("/v1/stream?topic=**&since={since}"), "").await;
        if page.status == 204 {
            return stored;
        }
        assert!(page.json()["gap"].is_null(), "{page:?}");
        for (topic, _, data) in page.events() {
            stored.entry(topic).or_default().push(data.as_u64().unwrap());
        }
        since = page.next();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_at_any_byte_stores_nothing_twice_and_loses_nothing() {
    let served = Served::open().await;
    let mut next = 0;
    for form in FORMS {
        let up = (1..=COUNT).map(|n| publication(form, n, &Device::new(0, form).topic()).len()).sum();
        let ack = if form == Form::Json { r#"..{"type":"ack","n":3,"level":"ring"}"#.len() } else { 2 + 13 };
        for point in (0..=up).map(Cut::Up).chain((0..=ack).map(Cut::Down)) {
            for hard in [false, true] {
                let mut device = Device::new(next, form);
                next += 1;
                let (mut client, publisher_n) = device.connect(&served).await;
                assert_eq!(publisher_n, None);
                let wire = device.wire();
                match point {
                    Cut::Up(bytes) => client.send(&wire[..bytes]).await,
                    Cut::Down(bytes) => {
                        client.send(&wire).await;
                        while client.unread.len() < bytes {
                            assert!(client.read().await);
                        }
                        client.unread.truncate(bytes);
                        device.hear(&mut client.unread);
                    }
                }
                cut(client, hard);
                let heard = device.acknowledged.last().copied();
                let publisher_n = device.recover(&served).await;
                assert!(
                    heard <= publisher_n && publisher_n <= Some(COUNT),
                    "{heard:?} {publisher_n:?} {point:?}"
                );
            }
        }
    }
    gone(&served).await;
    let stored = stored(&served).await;
    assert_eq!(stored.len() as u64, next);
    for (topic, numbers) in stored {
        // In order as well: whoever was first, each connection sends in order from the first that is missing.
        assert_eq!(numbers, [1, 2, 3], "{topic}");
    }
    let counters = served.gateway.hub().counters();
    assert!(counters.repeated.load(Ordering::Relaxed) > 0, "nothing was ever sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_is_cut_at_any_byte_stores_nothing_twice_and_loses_nothing() {
    let served = Served::open().await;
    let request = |number: u64| {
        // Every other key is the number of an incarnation.
        let key = match number % 2 {
            0 => PublicationId { incarnation: Incarnation(number), n: 1 }.to_string(),
            _ => format!("\"a key, {number}\""),
        };
        let headers = format!("Content-Type: application/json\r\nIdempotency-Key: {key}\r\n");
        served.request("POST", &format!("/v1/topics/once/{number:06}"), &headers, b"1")
    };
    let first = served.ask(&request(1_000)).await;
    assert_eq!((first.status, first.field("longwire-repeated")), (200, None));
    let down = 150;
    let mut next: u64 = 0;
    for point in (0..=request(0).len()).map(Cut::Up).chain((0..=down).map(Cut::Down)) {
        for hard in [false, true] {
            let wire = request(next);
            let mut client = served.connect().await;
            let mut heard = false;
            match point {
                Cut::Up(bytes) => client.send(&wire[..bytes.min(wire.len())]).await,
                Cut::Down(bytes) => {
                    client.send(&wire).await;
                    while client.unread.len() < bytes
                        && client.unread.iter().filter(|b| **b == b'}').count() == 0
                    {
                        assert!(client.read().await);
                    }
                    heard = bytes > 0;
                }
            }
            cut(client, hard);
            let again = served.ask(&wire).await;
            assert_eq!(again.status, 200, "{again:?}");
            let repeated = again.field("longwire-repeated").is_some();
            assert!(repeated || !heard, "the answer to the first was on its way");
            let at = again.json()["at"].as_str().map(str::to_owned);
            // Of what came under a number, where it is is not remembered.
            assert_eq!(at.is_none(), repeated && next.is_multiple_of(2), "{again:?}");
            if let Some(at) = at {
                let event = served.get(&format!("/v1/stream?topic=once/{next:06}"), "").await;
                assert_eq!(event.events()[0].1, at);
            }
            next += 1;
        }
    }
    let stored = stored(&served).await;
    assert_eq!(stored.len() as u64, next + 1);
    assert!(stored.values().all(|numbers| *numbers == [1]), "{stored:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_may_move_from_one_transport_to_the_other() {
    let served = Served::open().await;
    let mut device = Device::new(7, Form::Json);
    let post = async |n: u64| {
        let headers =
            format!("Content-Type: application/json\r\nIdempotency-Key: {}-{n}\r\n", Incarnation(7));
        let target = format!("/v1/topics/once/{}", Incarnation(7));
        served.ask(&served.request("POST", &target, &headers, n.to_string().as_bytes())).await
    };
    let answer = post(2).await;
    assert_eq!((answer.json(), answer.field("longwire-repeated")), (json!({"at": served.cursor(1)}), None));
    assert_eq!(device.recover(&served).await, Some(2));
    let answer = post(3).await;
    assert_eq!((answer.json(), answer.field("longwire-repeated")), (json!({}), Some("true")));
    assert_eq!(post(0).await.code(), "out_of_window");
    assert_eq!(post(5000).await.status, 200);
    assert_eq!((post(3).await.status, post(3).await.code()), (409, "out_of_window".to_owned()));
    assert_eq!(stored(&served).await, BTreeMap::from([(device.topic(), vec![2, 1, 3, 5000])]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_reboots_and_a_gateway_that_does_begin_anew() {
    let served = Served::open().await;
    let mut device = Device::new(1, Form::Cbor);
    assert_eq!(device.recover(&served).await, None);
    assert_eq!(Device::new(1, Form::Json).connect(&served).await.1, Some(3));
    // It has forgotten its numbers, and therefore who it was.
    assert_eq!(Device::new(2, Form::Cbor).recover(&served).await, None);
    assert_eq!(served.gateway.hub().log().head(), 2 * COUNT);
    // With the log goes what it knew of its publishers.
    let restarted = Served::open().await;
    assert_eq!(Device::new(1, Form::Cbor).connect(&restarted).await.1, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_incarnation_numbers_count_for_the_connection() {
    let served = Served::open().await;
    for _ in 0..2 {
        let mut client = served.connect().await;
        client.send(&served.handshake("/v1/stream", "")).await;
        client.until("\"limits\"").await;
        client.send(&publication(Form::Json, 1, "a")).await;
        client.until(r#"{"type":"ack","n":1,"#).await;
    }
    assert_eq!(served.gateway.hub().log().head(), 2);
    let answer = served.get("/v1/stream?publisher=1", crate::support::UPGRADE).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_requests_with_one_key_that_come_at_once_one_is_stored_and_all_are_told_where() {
    let served = Served::open().await;
    let headers = "Content-Type: application/json\r\nIdempotency-Key: \"k\"\r\n";
    let request = served.request("POST", "/v1/topics/a", headers, b"1");
    let answers = join_all((0..16).map(|_| served.ask(&request))).await;
    let first = answers.iter().filter(|answer| answer.field("longwire-repeated").is_none()).count();
    assert_eq!(first, 1);
    assert!(answers.iter().all(|answer| answer.json() == json!({"at": served.cursor(1)})));
    assert_eq!(served.gateway.hub().log().head(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_none_is_refused_and_publishes_nothing() {
    let served = Served::open().await;
    let long = "k".repeat(129);
    let huge = "k".repeat(7000);
    for lines in [
        "Idempotency-Key: \r\n",
        "Idempotency-Key: a b\r\n",
        "Idempotency-Key: a\r\nIdempotency-Key: a\r\n",
        &format!("Idempotency-Key: {long}\r\n"),
        &format!("Idempotency-Key: {huge}\r\n"),
    ] {
        let headers = format!("Content-Type: application/json\r\n{lines}");
        let answer = served.ask(&served.request("POST", "/v1/topics/a", &headers, b"1")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{lines}");
    }
    assert_eq!(served.gateway.hub().log().head(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_incarnations_is_forgotten_and_the_table_stays_as_large_as_it_may_be() {
    let hub = HubConfig { max_publishers: 8, ..HubConfig::default() };
    let served = Served::with(GatewayConfig::default(), hub, Open).await;
    for incarnation in 0..200 {
        assert_eq!(
            Device::new(incarnation, FORMS[usize::from(incarnation % 2 == 0)]).recover(&served).await,
            None
        );
    }
    // Connecting alone leaves nothing behind.
    for incarnation in 1000..1100 {
        assert_eq!(Device::new(incarnation, Form::Json).connect(&served).await.1, None);
    }
    assert_eq!(Device::new(199, Form::Json).connect(&served).await.1, Some(COUNT));
    let metrics = served.get("/metrics", "").await.body;
    assert!(metrics.contains("longwire_publishers{log=\"default\"} 8\n"), "{metrics}");
    assert!(metrics.contains("longwire_publishers_forgotten_total{log=\"default\"} 192\n"), "{metrics}");
}
