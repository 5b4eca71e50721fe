//! The client against a gateway that misbehaves on demand.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong may stop"
)]

mod client_mock;

use client_mock::{EPOCH, Faults, Gateway};
use longwire::client::{
    Cursor, Data, Endpoint, Error, EventStream, EventStreamOptions, Gap, GapReason, Item, Position,
    Publisher, PublisherConfig, Since, State, Subscriber, Subscription, Transport, publish,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const FIXED: [Transport; 4] = [Transport::WebSocket, Transport::Sse, Transport::LongPoll, Transport::Poll];

fn at(seq: u64) -> Cursor {
    Cursor { epoch: EPOCH, seq }
}

fn subscribe(gateway: &Gateway, since: Since, transport: Transport) -> Subscriber {
    // Attempts and polls follow each other quickly here.
    let subscription = Subscription::new(["**"]).since(since).transport(transport);
    let mut subscription = subscription.poll_interval(Duration::from_millis(100));
    subscription.backoff.base = Duration::from_millis(1);
    subscription.backoff.cap = Duration::from_millis(5);
    Subscriber::new(Endpoint::new(&gateway.url).unwrap(), subscription).unwrap()
}

fn publisher(gateway: &Gateway) -> Publisher {
    Publisher::new(Endpoint::new(&gateway.url).unwrap(), PublisherConfig::default())
}

/// The next item that is not about the connection.
async fn next(subscriber: &mut Subscriber) -> Item {
    loop {
        match subscriber.next().await.unwrap().unwrap() {
            Item::State(_) => {}
            item => return item,
        }
    }
}

async fn next_event(subscriber: &mut Subscriber) -> (Position, String) {
    loop {
        if let Item::Event(event) = next(subscriber).await {
            let Data::Json(json) = event.data else { panic!() };
            return (event.position, String::from_utf8(json.to_vec()).unwrap());
        }
    }
}

async fn next_state(subscriber: &mut Subscriber) -> State {
    loop {
        if let Item::State(state) = subscriber.next().await.unwrap().unwrap() {
            return state;
        }
    }
}

#[tokio::test]
async fn every_transport_tells_the_state_then_what_follows_with_the_same_cursors() {
    for transport in FIXED {
        let gateway = Gateway::start().await;
        gateway.publish("a", None, "1");
        gateway.publish("a", Some("k"), "2");
        gateway.publish("a", None, "3");
        let mut subscriber = subscribe(&gateway, Since::Latest, transport);
        let Item::Event(first) = next(&mut subscriber).await else { panic!() };
        assert_eq!(
            (first.topic.as_str(), first.key.as_deref(), first.position),
            ("a", Some("k"), Position::Past(at(2)))
        );
        assert_eq!(next_event(&mut subscriber).await, (Position::Past(at(3)), "3".to_owned()));
        assert_eq!(subscriber.cursor(), None);
        assert_eq!(next(&mut subscriber).await, Item::CaughtUp(at(3)));
        assert_eq!(subscriber.cursor(), Some(at(3)));
        gateway.publish("b", None, r#"{"x":[1,2]}"#);
        assert_eq!(next_event(&mut subscriber).await, (Position::At(at(4)), r#"{"x":[1,2]}"#.to_owned()));
        subscriber.close().await;
    }
}

#[tokio::test]
async fn every_transport_begins_now_or_at_a_cursor_and_tells_gaps() {
    for transport in FIXED {
        let gateway = Gateway::start().await;
        for n in 0..6 {
            gateway.publish("a", None, &n.to_string());
        }
        gateway.set(Faults { floor: 3, ..Faults::default() });
        let mut from_cursor = subscribe(&gateway, Since::Cursor(at(1)), transport);
        let gap = Gap { from: at(1), to: at(3), reason: GapReason::Evicted, skipped: None };
        assert_eq!(next(&mut from_cursor).await, Item::Gap(gap));
        for seq in 4..=6 {
            assert_eq!(next_event(&mut from_cursor).await.0, Position::At(at(seq)));
        }
        assert_eq!(next(&mut from_cursor).await, Item::CaughtUp(at(6)));

        let mut from_now = subscribe(&gateway, Since::Now, transport);
        assert_eq!(next(&mut from_now).await, Item::CaughtUp(at(6)));
        gateway.publish("a", None, "6");
        assert_eq!(next_event(&mut from_now).await.0, Position::At(at(7)));

        let other = Cursor { epoch: 1, seq: 5 };
        let mut from_other = subscribe(&gateway, Since::Cursor(other), transport);
        let gap = Gap { from: other, to: at(7), reason: GapReason::Reset, skipped: None };
        assert_eq!(next(&mut from_other).await, Item::Gap(gap));
        assert_eq!(next_event(&mut from_other).await.0, Position::Past(at(7)));
        assert_eq!(next(&mut from_other).await, Item::CaughtUp(at(7)));
    }
}

#[tokio::test]
async fn plain_polls_are_as_far_apart_as_was_asked_for_and_nobody_is_taken_for_silent_meanwhile() {
    const HOUR: Duration = Duration::from_secs(3600);
    let gateway = Gateway::start().await;
    let subscription = Subscription::new(["**"]).since(Since::Now).transport(Transport::Poll);
    let endpoint = Endpoint::new(&gateway.url).unwrap();
    let mut subscriber = Subscriber::new(endpoint, subscription.poll_interval(HOUR)).unwrap();
    assert_eq!(next(&mut subscriber).await, Item::CaughtUp(at(0)));
    gateway.publish("a", None, "1");
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    // A loss of the connection would be told.
    let Item::Event(event) = subscriber.next().await.unwrap().unwrap() else { panic!() };
    assert_eq!(event.position, Position::At(at(1)));
    // Virtual time, but for what passed since the first poll.
    let minute = Duration::from_secs(60);
    assert!((HOUR - minute..HOUR + minute).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(gateway.requests().len(), 2);
}

#[tokio::test]
async fn twenty_switches_lose_and_repeat_nothing() {
    const EVENTS: u64 = 2000;
    let gateway = Gateway::start().await;
    let mut subscriber = subscribe(&gateway, Since::Now, Transport::Auto);
    assert!(matches!(next(&mut subscriber).await, Item::CaughtUp(_)));
    let publishing = gateway.clone();
    let publishing = tokio::spawn(async move {
        for n in 0..EVENTS {
            publishing.publish("a", None, &n.to_string());
            tokio::task::yield_now().await;
        }
    });
    let mut rng = StdRng::seed_from_u64(7);
    for n in 0..EVENTS {
        if n % (EVENTS / 20) == 0 {
            subscriber.switch(FIXED[rng.random_range(0..4)]);
        }
        assert_eq!(next_event(&mut subscriber).await, (Position::At(at(n + 1)), n.to_string()));
    }
    publishing.await.unwrap();
    assert!(gateway.requests().len() >= 20);
}

#[tokio::test]
async fn connections_that_end_again_and_again_lose_and_repeat_nothing() {
    for transport in FIXED {
        let gateway = Gateway::start().await;
        for n in 0..50 {
            gateway.publish("a", None, &n.to_string());
        }
        gateway.set(Faults { end_after: Some(7), ..Faults::default() });
        let mut subscriber = subscribe(&gateway, Since::Cursor(at(0)), transport);
        for n in 0..50 {
            assert_eq!(next_event(&mut subscriber).await, (Position::At(at(n + 1)), n.to_string()));
        }
    }
}

#[tokio::test]
async fn auto_falls_down_the_ladder_rung_by_rung() {
    let page = (403, "<html>blocked by the proxy</html>");
    let refuse = |kinds: &[&'static str]| Faults {
        refuse: kinds.iter().map(|kind| (*kind, page.0, page.1)).collect(),
        ..Faults::default()
    };
    for (faults, reached) in [
        (refuse(&[]), Transport::WebSocket),
        (refuse(&["ws"]), Transport::Sse),
        (refuse(&["ws", "sse"]), Transport::LongPoll),
    ] {
        let gateway = Gateway::start().await;
        gateway.publish("a", None, "1");
        gateway.set(faults);
        let mut subscriber = subscribe(&gateway, Since::Latest, Transport::Auto);
        let mut states = Vec::new();
        loop {
            let state = next_state(&mut subscriber).await;
            let done = matches!(state, State::Connected(_));
            states.push(state);
            if done {
                break;
            }
        }
        assert_eq!(states.last(), Some(&State::Connected(reached)), "{states:?}");
        assert!(!states.iter().any(|s| matches!(s, State::Waiting { .. })), "{states:?}");
        assert_eq!(next_event(&mut subscriber).await.1, "1");
    }
    // When nothing works it ends, and says why.
    let gateway = Gateway::start().await;
    gateway.set(refuse(&["ws", "sse", "poll"]));
    let mut subscriber = subscribe(&gateway, Since::Latest, Transport::Auto);
    let error = loop {
        match subscriber.next().await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, Error::Refused(refusal) if refusal.status == Some(403)), "{error}");
    assert!(subscriber.next().await.is_none());
}

#[tokio::test]
async fn a_permanent_refusal_stops_it_whatever_the_transport() {
    let body = r#"{"code":"forbidden","message":"not these topics","permanent":true}"#;
    for transport in FIXED.into_iter().chain([Transport::Auto]) {
        let gateway = Gateway::start().await;
        gateway.set(Faults {
            refuse: vec![("ws", 403, body), ("sse", 403, body), ("poll", 403, body)],
            ..Faults::default()
        });
        let mut subscriber = subscribe(&gateway, Since::Now, transport);
        assert_eq!(
            next_state(&mut subscriber).await,
            State::Connecting(match transport {
                Transport::Auto => Transport::WebSocket,
                fixed => fixed,
            })
        );
        let Some(Err(Error::Refused(refusal))) = subscriber.next().await else { panic!() };
        assert_eq!((refusal.code.as_str(), refusal.message.as_str()), ("forbidden", "not these topics"));
        assert!(subscriber.next().await.is_none());
        assert_eq!(gateway.requests().len(), 1);
    }
}

#[tokio::test]
async fn close_codes_that_say_no_stop_it_and_others_do_not() {
    for (code, stops) in [(1008, true), (3000, true), (1011, false), (1001, false)] {
        let gateway = Gateway::start().await;
        gateway.set(Faults { close: Some(code), ..Faults::default() });
        let mut subscriber = subscribe(&gateway, Since::Now, Transport::WebSocket);
        assert_eq!(next_state(&mut subscriber).await, State::Connecting(Transport::WebSocket));
        match subscriber.next().await.unwrap() {
            Err(Error::Closed(got, reason)) => {
                assert_eq!((got, reason.as_str(), stops), (code, "because", true))
            }
            Ok(Item::State(State::Waiting { why, .. })) => {
                assert!(!stops && why.contains(&code.to_string()), "{code}: {why}");
            }
            other => panic!("{code}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_bye_says_when_to_come_back() {
    let bye = r#"{"type":"bye","code":"draining","permanent":false,"message":"soon back","retry_after":60000,"window":1000}"#;
    for transport in [Transport::WebSocket, Transport::Sse] {
        let gateway = Gateway::start().await;
        gateway.set(Faults { bye: Some(bye), ..Faults::default() });
        let mut subscriber = subscribe(&gateway, Since::Now, transport);
        let (wait, why) = loop {
            if let State::Waiting { wait, why } = next_state(&mut subscriber).await {
                break (wait, why);
            }
        };
        assert!((60_000..=61_000).contains(&wait.as_millis()), "{wait:?}");
        assert_eq!(why, "refused with draining: soon back");
        // It waits, but it can be called off at once.
        subscriber.close().await;
    }
}

#[tokio::test]
async fn a_connection_that_ends_without_a_word_is_followed_by_the_window_of_hello() {
    for transport in [Transport::WebSocket, Transport::Sse] {
        let gateway = Gateway::start().await;
        gateway.set(Faults { window: Some(60_000), tick: Some(1), ..Faults::default() });
        let mut subscriber = subscribe(&gateway, Since::Now, transport);
        loop {
            if let State::Waiting { wait, .. } = next_state(&mut subscriber).await {
                // It did not live for as long as the window, so it counts as one of its attempts.
                assert!((30_000..=60_500).contains(&wait.as_millis()), "{transport}: {wait:?}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_tick_moves_the_cursor_on() {
    for transport in [Transport::WebSocket, Transport::Sse] {
        let gateway = Gateway::start().await;
        gateway.set(Faults { tick: Some(77), ..Faults::default() });
        let mut subscriber = subscribe(&gateway, Since::Cursor(at(5)), transport);
        for _ in 0..2 {
            while next_state(&mut subscriber).await != State::Connected(transport) {}
        }
        let requests = gateway.requests();
        assert!(requests[0].contains(&format!("since={}&", at(5))), "{}", requests[0]);
        assert!(requests[1].contains(&format!("since={}&", at(77))), "{}", requests[1]);
    }
}

#[tokio::test]
async fn a_gateway_that_falls_silent_is_left_after_two_heartbeats() {
    for transport in [Transport::WebSocket, Transport::Sse] {
        let gateway = Gateway::start().await;
        gateway.publish("a", None, "1");
        gateway.set(Faults { mute: Some(500), ..Faults::default() });
        let mut subscriber = subscribe(&gateway, Since::Latest, transport);
        loop {
            if let State::Waiting { why, .. } = next_state(&mut subscriber).await {
                assert_eq!(why, "nothing was heard for 1.0 s");
                break;
            }
        }
        gateway.set(Faults::default());
        assert_eq!(next_event(&mut subscriber).await.1, "1");
    }
}

#[tokio::test]
async fn the_round_trip_time_is_known_on_a_websocket() {
    let gateway = Gateway::start().await;
    let mut subscriber = subscribe(&gateway, Since::Latest, Transport::WebSocket);
    assert_eq!(subscriber.rtt(), None);
    while subscriber.rtt().is_none() {
        gateway.publish("a", None, "1");
        assert!(matches!(next(&mut subscriber).await, Item::Event(_) | Item::CaughtUp(_)));
    }
    assert!(subscriber.rtt().unwrap() < Duration::from_secs(60));
    // The next connection has not been measured yet, and another transport is not.
    subscriber.switch(Transport::Sse);
    while next_state(&mut subscriber).await != State::Connected(Transport::Sse) {}
    assert_eq!(subscriber.rtt(), None);
    let publisher = publisher(&gateway);
    assert_eq!(publisher.rtt(), None);
    while publisher.rtt().is_none() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_waited_for() {
    let nobody = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let mut subscriber = Subscriber::new(Endpoint::new(&nobody).unwrap(), Subscription::new(["a"])).unwrap();
    assert_eq!(next_state(&mut subscriber).await, State::Connecting(Transport::WebSocket));
    // Not a matter of the transport: no other one is tried.
    assert!(matches!(next_state(&mut subscriber).await, State::Waiting { .. }));
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_refused_before_anybody_is_asked() {
    let endpoint = || Endpoint::new("http://127.0.0.1:9").unwrap();
    let subscriber = |topics: &[&str]| Subscriber::new(endpoint(), Subscription::new(topics.iter().copied()));
    assert!(matches!(subscriber(&[]), Err(Error::NoPattern)));
    assert!(matches!(subscriber(&["a", "b*"]), Err(Error::Name(name, _)) if name == "b*"));
    let json = Data::Json("1".into());
    assert!(matches!(publish(&endpoint(), "a/*", None, &json).await, Err(Error::Name(..))));
    assert!(matches!(publish(&endpoint(), "a", Some("\n"), &json).await, Err(Error::Name(..))));
    let bad = Data::Json("{".into());
    assert!(matches!(publish(&endpoint(), "a", None, &bad).await, Err(Error::Data(_))));
}

#[tokio::test]
async fn the_credential_goes_in_a_header_and_the_topic_is_encoded() {
    let gateway = Gateway::start().await;
    let endpoint = Endpoint::new(&gateway.url).unwrap().token("secret").unwrap();
    let data = Data::json(r#"{"a": 1}"#).unwrap();
    let position = publish(&endpoint, "fleet/ä b", Some("k&1"), &data).await.unwrap();
    assert_eq!(position, at(1));
    for transport in FIXED {
        let subscription = Subscription::new(["fleet/ä b"]).since(Since::Cursor(at(0))).transport(transport);
        let mut subscriber = Subscriber::new(endpoint.clone(), subscription).unwrap();
        assert_eq!(next_event(&mut subscriber).await.1, r#"{"a": 1}"#);
    }
    let requests = gateway.requests();
    assert_eq!(requests.len(), 5);
    for request in &requests {
        assert!(request.to_ascii_lowercase().contains("authorization: bearer secret\r\n"), "{request}");
    }
    assert!(
        requests[0].starts_with("post POST /v1/topics/fleet/%C3%A4%20b?key=k%261 HTTP/1.1"),
        "{}",
        requests[0]
    );
    assert!(requests[0].to_ascii_lowercase().contains("content-type: application/json\r\n"));
    assert!(requests[1].contains("&topic=fleet/%C3%A4%20b "), "{}", requests[1]);
}

#[tokio::test]
async fn a_dropped_next_loses_nothing() {
    use std::task::Poll;
    for transport in FIXED {
        let gateway = Gateway::start().await;
        for n in 0..200 {
            gateway.publish("a", None, &n.to_string());
        }
        gateway.set(Faults { end_after: Some(30), ..Faults::default() });
        let mut subscriber = subscribe(&gateway, Since::Cursor(at(0)), transport);
        let mut seen = 0;
        while seen < 200 {
            // One poll, then the future is dropped.
            let item = {
                let mut next = std::pin::pin!(subscriber.next());
                std::future::poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await
            };
            match item {
                Poll::Pending => tokio::task::yield_now().await,
                Poll::Ready(item) => {
                    if let Item::Event(event) = item.unwrap().unwrap() {
                        seen += 1;
                        assert_eq!(event.position, Position::At(at(seen)));
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn auto_tries_a_better_transport_again_after_five_minutes() {
    let gateway = Gateway::start().await;
    // Nobody is to be missed in the meantime.
    let heartbeat = Some(1 << 40);
    gateway.set(Faults { refuse: vec![("ws", 502, "bad gateway")], heartbeat, ..Faults::default() });
    let mut subscriber = subscribe(&gateway, Since::Now, Transport::Auto);
    let connected = State::Connected;
    while next_state(&mut subscriber).await != connected(Transport::Sse) {}
    assert!(matches!(next(&mut subscriber).await, Item::CaughtUp(_)));
    gateway.set(Faults::default());
    gateway.publish("a", None, "1");
    assert_eq!(next_event(&mut subscriber).await.1, "1");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(301)).await;
    tokio::time::resume();
    assert_eq!(next_state(&mut subscriber).await, State::Connecting(Transport::WebSocket));
    assert_eq!(next_state(&mut subscriber).await, connected(Transport::WebSocket));
    gateway.publish("a", None, "2");
    assert_eq!(next_event(&mut subscriber).await, (Position::At(at(2)), "2".to_owned()));
}

#[test]
fn a_subscriber_may_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<Subscriber>();
    is_send::<Publisher>();
}

#[tokio::test]
async fn an_event_stream_of_any_server_has_the_bounds_that_it_was_opened_with() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
        let events = format!("{ANSWER}data: small\n\ndata: {}\n\n", "x".repeat(1001));
        stream.write_all(events.as_bytes()).await.unwrap();
        // The second one never hears an answer.
        (listener.accept().await.unwrap(), String::from_utf8(request).unwrap())
    });
    let options = EventStreamOptions::default().header("Last-Event-ID", "7").max_event(1000);
    let mut events = EventStream::connect(&url, &options).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().data, b"small");
    assert!(matches!(events.next().await, Err(Error::Protocol(_))));

    let short = Duration::from_millis(50);
    let error = EventStream::connect(&url, &options.open_timeout(short)).await.unwrap_err();
    assert!(matches!(error, Error::Silence(limit) if limit == short), "{error}");
    let (_held, request) = serving.await.unwrap();
    assert!(request.to_ascii_lowercase().contains("\r\nlast-event-id: 7\r\n"), "{request}");
}
