//! The client's subscriber against the gateway: both forms, the policies of slow readers, and other logs.

use crate::support::{Served, within};
use bytes::Bytes;
use longwire::client::{
    Data, Endpoint, Event, Form, GapReason, Item, Outcome, Policy, Position, Publisher, PublisherConfig,
    State, Subscriber, Subscription, Transport, publish,
};
use longwire::gateway::GatewayConfig;
use longwire::hub::{HubConfig, LogConfig, Open};
use longwire_core::session::transcode;
use std::time::Duration;

const STREAMS: [Transport; 4] = [Transport::WebSocket, Transport::Sse, Transport::LongPoll, Transport::Poll];

async fn served(change: impl FnOnce(&mut HubConfig)) -> Served {
    let window = Duration::from_millis(1);
    let mut hub = HubConfig { reconnect_window: window, retry: window, ..HubConfig::default() };
    change(&mut hub);
    Served::with(GatewayConfig::default(), hub, Open).await
}

fn subscription(pattern: &str, transport: Transport) -> Subscription {
    let mut subscription = Subscription::new([pattern]).transport(transport);
    subscription.backoff.base = Duration::from_millis(1);
    subscription
}

fn subscriber(url: &str, subscription: Subscription) -> Subscriber {
    Subscriber::new(Endpoint::new(url).unwrap(), subscription).unwrap()
}

async fn caught_up(subscriber: &mut Subscriber) {
    while !matches!(within(subscriber.next()).await.unwrap().unwrap(), Item::CaughtUp(_)) {}
}

async fn event(subscriber: &mut Subscriber) -> Event {
    loop {
        if let Item::Event(event) = within(subscriber.next()).await.unwrap().unwrap() {
            return event;
        }
    }
}

/// The same value in JSON.
fn in_json(data: Data) -> Data {
    let Data::Cbor(cbor) = data else { return data };
    let mut json = Vec::new();
    let mut sink = |piece: &[u8]| {
        json.extend_from_slice(piece);
        Ok(())
    };
    transcode::cbor_to_json(&cbor, &mut sink).unwrap();
    Data::Json(json.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_in_either_form_is_read_in_either_form() {
    let opaque = |content_type: Option<&str>, bytes: &'static [u8]| Data::Bytes {
        content_type: content_type.map(str::to_owned),
        bytes: Bytes::from_static(bytes),
    };
    let values = [
        Data::json(r#"{"a":[1,-2,18446744073709551615,0.25,1e+300,true,null,"é\n"],"b":{}}"#).unwrap(),
        Data::json("-9223372036854775808").unwrap(),
        Data::cbor(&b"\xa2\x61a\x18\x2a\x61b\xf9\x38\x00"[..]).unwrap(), // {"a": 42, "b": 0.5}
        Data::cbor(&b"\x9f\x01\x7f\x61x\x61y\xff\xff"[..]).unwrap(),     // [1, "xy"], of indefinite lengths
        Data::text("text"),
        opaque(None, b"\x00\xff"),
        opaque(Some("image/png"), b""),
    ];
    let served = served(|_| {}).await;
    let mut readers = Vec::new();
    for transport in STREAMS {
        readers.push(subscriber(&served.url(), subscription("**", transport)));
    }
    let cbor = subscription("**", Transport::WebSocket).cbor();
    readers.insert(0, subscriber(&served.url(), cbor));
    for reader in &mut readers {
        caught_up(reader).await;
    }
    let mut taken = 0;
    for (form, transport) in [
        (Form::Json, Transport::WebSocket),
        (Form::Cbor, Transport::WebSocket),
        (Form::Json, Transport::Poll),
    ] {
        let mut config = PublisherConfig::default();
        (config.form, config.transport) = (form, transport);
        let publisher = Publisher::new(Endpoint::new(&served.url()).unwrap(), config);
        for (value, key) in values.iter().zip([None, Some(""), Some("k"), Some("é")].into_iter().cycle()) {
            let receipt = publisher.publish("a/é", key, value.clone()).await.unwrap();
            assert_eq!(within(receipt).await, Outcome::Taken);
            taken += 1;
        }
        publisher.close().await.unwrap();
    }
    let mut all: Vec<Vec<Event>> = Vec::new();
    for (index, reader) in readers.iter_mut().enumerate() {
        let mut events = Vec::new();
        while events.len() < taken {
            let mut event = event(reader).await;
            let is_cbor = matches!(event.data, Data::Cbor(_));
            assert_eq!(is_cbor, index == 0 && !matches!(event.data, Data::Bytes { .. }), "{event:?}");
            event.data = in_json(event.data);
            events.push(event);
        }
        all.push(events);
    }
    for events in &all[1..] {
        assert_eq!(*events, all[0]);
    }
    // Whatever they came in, they are the same three times.
    let values_of = |events: &[Event]| events.iter().map(|event| event.data.clone()).collect::<Vec<_>>();
    let mut rounds = all[0].chunks(values.len()).map(values_of);
    let first = rounds.next().unwrap();
    assert!(rounds.all(|round| round == first), "{:?}", all[0]);
}

/// What a slow reader got: how many events, how many it was told were skipped, and why.
#[derive(Debug, Default)]
struct Seen {
    values: Vec<u64>,
    skipped: u64,
    reasons: Vec<GapReason>,
    pressures: Vec<longwire::client::Pressure>,
    waits: Vec<String>,
    connected: usize,
}

const EVENTS: u64 = 500;

/// Reads nothing while far more is published than all buffers hold, and then all of it.
async fn slow(policy: Policy, transport: Transport) -> Seen {
    let served = served(|hub| {
        hub.log = LogConfig { tail_bytes: 64 << 20, history_bytes: 64 << 20, ..LogConfig::default() };
        hub.max_lag_events = 40;
    })
    .await;
    let mut subscriber = subscriber(&served.url(), subscription("a", transport).policy(policy));
    caught_up(&mut subscriber).await;
    let padding = "x".repeat(50_000);
    for n in 1..=EVENTS {
        served.publish("a", None, &format!("[{n},\"{padding}\"]")).await;
    }
    let mut seen = Seen { connected: 1, ..Seen::default() };
    while seen.values.last() != Some(&EVENTS) {
        match within(subscriber.next()).await.unwrap().unwrap() {
            Item::Event(event) => {
                assert!(matches!(event.position, Position::At(_)), "{:?}", event.position);
                let Data::Json(json) = event.data else { panic!() };
                let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
                seen.values.push(value[0].as_u64().unwrap());
            }
            Item::Gap(gap) => {
                seen.skipped += gap.skipped.unwrap_or_else(|| panic!("{gap:?}"));
                seen.reasons.push(gap.reason);
            }
            Item::Pressure(pressure) => seen.pressures.push(pressure),
            Item::State(State::Waiting { why, .. }) => seen.waits.push(why),
            Item::State(State::Connected(_)) => seen.connected += 1,
            _ => {}
        }
    }
    assert!(seen.values.is_sorted_by(|one, next| one < next), "{seen:?}");
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_oldest_tells_how_many_are_missing() {
    for transport in [Transport::WebSocket, Transport::Sse] {
        let seen = slow(Policy::DropOldest, transport).await;
        assert!(seen.connected == 1 && seen.skipped > 0, "{transport}: {seen:?}");
        assert_eq!(seen.values.len() as u64 + seen.skipped, EVENTS, "{transport}: {seen:?}");
        assert!(seen.reasons.iter().all(|reason| *reason == GapReason::Slow), "{seen:?}");
        assert_eq!(seen.pressures.last().map(|last| (last.limit, last.skipped)), Some((40, seen.skipped)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conflate_goes_on_with_the_latest() {
    for transport in [Transport::WebSocket, Transport::Sse] {
        let seen = slow(Policy::Conflate, transport).await;
        assert!(seen.connected == 1 && seen.skipped > 0, "{transport}: {seen:?}");
        assert!(seen.reasons.iter().all(|reason| *reason == GapReason::Conflated), "{seen:?}");
        // There is one topic, so that each gap is followed by one event of those that it counts.
        let kept = seen.reasons.len() as u64;
        assert_eq!(seen.values.len() as u64 + seen.skipped, EVENTS + kept, "{transport}: {seen:?}");
        assert!(!seen.pressures.is_empty(), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnect_leads_to_another_connection_that_goes_on_from_the_cursor() {
    for transport in [Transport::WebSocket, Transport::Sse] {
        let seen = slow(Policy::Disconnect, transport).await;
        assert!(seen.connected == 2 && seen.waits[0].contains("too_slow"), "{transport}: {seen:?}");
        // The history has all of it.
        assert_eq!(seen.values, (1..=EVENTS).collect::<Vec<_>>(), "{transport}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_the_operator_forbids_is_the_end_and_says_so() {
    let served = served(|hub| hub.policies = vec![Policy::Conflate]).await;
    for transport in [Transport::Auto, Transport::WebSocket, Transport::Sse, Transport::LongPoll] {
        let mut subscriber =
            subscriber(&served.url(), subscription("a", transport).policy(Policy::Disconnect));
        let error = loop {
            if let Err(error) = within(subscriber.next()).await.unwrap() {
                break error.to_string();
            }
        };
        assert!(error.contains("forbidden"), "{transport}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_names_a_log_for_whoever_reads_and_whoever_publishes() {
    let served = served(|hub| hub.logs = [("telemetry".to_owned(), LogConfig::default())].into()).await;
    let telemetry = format!("{}/v1/logs/telemetry", served.url());
    let mut readers = Vec::new();
    for transport in STREAMS {
        for url in [&served.url(), &telemetry] {
            let mut reader = subscriber(url, subscription("**", transport));
            caught_up(&mut reader).await;
            readers.push((reader, if *url == telemetry { "telemetry" } else { "default" }));
        }
    }
    let endpoint = Endpoint::new(&telemetry).unwrap();
    for (n, transport) in [Transport::WebSocket, Transport::Poll].into_iter().enumerate() {
        let mut config = PublisherConfig::default();
        config.transport = transport;
        let publisher = Publisher::new(endpoint.clone(), config);
        let data = Data::json(n.to_string()).unwrap();
        assert_eq!(within(publisher.publish("telemetry", None, data).await.unwrap()).await, Outcome::Taken);
        publisher.close().await.unwrap();
    }
    let at = publish(&endpoint, "telemetry", None, &Data::text("alone")).await.unwrap();
    served.publish("default", None, "0").await;
    for (reader, log) in &mut readers {
        assert_eq!(event(reader).await.topic, *log);
        if *log == "telemetry" {
            assert_eq!(event(reader).await.data, Data::json("1").unwrap());
            assert_eq!(event(reader).await.position, Position::At(at));
        }
    }
    // One that is not there is refused for good.
    let nowhere = format!("{}/v1/logs/nowhere", served.url());
    let mut reader = subscriber(&nowhere, subscription("**", Transport::WebSocket));
    let error = loop {
        if let Err(error) = within(reader.next()).await.unwrap() {
            break error.to_string();
        }
    };
    assert!(error.contains("not_found"), "{error}");
}
