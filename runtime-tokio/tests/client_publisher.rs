//! The publisher, and credentials, against a gateway that misbehaves on demand.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong may stop"
)]

mod client_mock;

use client_mock::{Faults, Gateway};
use futures_util::FutureExt as _;
use longwire::client::{
    Data, Dropped, Endpoint, Error, Item, Outcome, Policy, PublishError, Publisher, PublisherConfig, Receipt,
    State, Subscriber, Subscription, Transport,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn config() -> PublisherConfig {
    let mut config = PublisherConfig::default();
    // Attempts follow each other quickly here.
    config.backoff.base = Duration::from_millis(1);
    config.backoff.cap = Duration::from_millis(5);
    config
}

fn publisher(gateway: &Gateway, config: PublisherConfig) -> Publisher {
    Publisher::new(Endpoint::new(&gateway.url).unwrap(), config)
}

fn number(n: usize) -> Data {
    Data::json(n.to_string()).unwrap()
}

async fn publish_all(publisher: &Publisher, count: usize) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for n in 0..count {
        receipts.push(publisher.publish("a", None, number(n)).await.unwrap());
    }
    receipts
}

async fn all_taken(receipts: Vec<Receipt>) {
    for receipt in receipts {
        assert_eq!(receipt.await, Outcome::Taken);
    }
}

fn all(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

/// Somebody who is not there.
async fn nobody() -> Endpoint {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    Endpoint::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap()
}

#[tokio::test]
async fn what_is_published_arrives_in_order_over_one_websocket() {
    let gateway = Gateway::start().await;
    let publisher = publisher(&gateway, config());
    let receipts = publish_all(&publisher, 300).await;
    assert_eq!(receipts.iter().map(Receipt::n).collect::<Vec<_>>(), (1..=300).collect::<Vec<_>>());
    publisher.flush().await.unwrap();
    assert_eq!((publisher.waiting(), publisher.counts().taken, publisher.counts().resent), ((0, 0), 300, 0));
    all_taken(receipts).await;
    let requests = gateway.requests();
    assert_eq!(requests.len(), 1);
    let incarnation = publisher.incarnation();
    assert!(
        requests[0].starts_with(&format!("ws GET /v1/stream?publisher={incarnation} ")),
        "{}",
        requests[0]
    );
    publisher.close().await.unwrap();
    assert_eq!(gateway.values(), all(300));
}

#[tokio::test]
async fn a_connection_that_is_cut_again_and_again_loses_and_repeats_nothing() {
    let gateway = Gateway::start().await;
    gateway.set(Faults { cut_pubs: Some(7), ..Faults::default() });
    let mut config = config();
    // So that three that are cut in a row are no reason to post.
    config.transport = Transport::WebSocket;
    let publisher = publisher(&gateway, config);
    let receipts = publish_all(&publisher, 100).await;
    publisher.flush().await.unwrap();
    all_taken(receipts).await;
    assert_eq!(gateway.values(), all(100));
    assert!(publisher.counts().resent >= 10, "{:?}", publisher.counts());
}

#[tokio::test]
async fn where_upgrade_is_refused_each_is_posted_under_its_number() {
    let gateway = Gateway::start().await;
    gateway.set(Faults { refuse: vec![("ws", 403, "<html>")], ..Faults::default() });
    let publisher = publisher(&gateway, config());
    let receipts = publish_all(&publisher, 20).await;
    publisher.flush().await.unwrap();
    all_taken(receipts).await;
    assert_eq!(publisher.state(), State::Connected(Transport::Poll));
    assert_eq!(gateway.values(), all(20));
    let key = format!("idempotency-key: {}-20\r\n", publisher.incarnation());
    assert!(gateway.requests().last().unwrap().to_ascii_lowercase().contains(&key));
    // Another one begins where this one has come to.
    let mut config = config();
    config.memory = publisher.memory();
    let next = self::publisher(&gateway, config);
    let before = gateway.requests().iter().filter(|request| request.starts_with("ws")).count();
    assert_eq!(next.publish("a", None, number(20)).await.unwrap().await, Outcome::Taken);
    assert_eq!(gateway.requests().iter().filter(|request| request.starts_with("ws")).count(), before);
}

#[tokio::test]
async fn what_is_posted_and_not_answered_is_posted_again_and_stored_once() {
    let gateway = Gateway::start().await;
    gateway.set(Faults { lose_answers: true, ..Faults::default() });
    let mut config = config();
    config.transport = Transport::Poll;
    let publisher = publisher(&gateway, config);
    let receipts = publish_all(&publisher, 10).await;
    publisher.flush().await.unwrap();
    all_taken(receipts).await;
    assert_eq!((gateway.values(), publisher.counts().resent), (all(10), 10));
}

#[tokio::test]
async fn what_is_above_a_quota_comes_later_and_what_is_refused_for_good_does_not() {
    let gateway = Gateway::start().await;
    gateway.set(Faults { quota: true, ..Faults::default() });
    let publisher = publisher(&gateway, config());
    let refused = publisher.publish("refused", None, number(99)).await.unwrap();
    let receipts = publish_all(&publisher, 10).await;
    publisher.flush().await.unwrap();
    all_taken(receipts).await;
    let Outcome::Refused(refusal) = refused.await else { panic!() };
    assert_eq!((refusal.n, refusal.code.as_str()), (Some(1), "forbidden"));
    let mut values = gateway.values();
    values.sort_unstable();
    assert_eq!(values, all(10));
    assert_eq!((publisher.counts().taken, publisher.counts().refused), (10, 1));
}

#[tokio::test]
async fn an_outbox_that_is_full_gives_way_as_its_policy_says_or_waits() {
    for (policy, first, last) in [
        (Policy::DropOldest, Outcome::Dropped(Dropped::Oldest), true),
        (Policy::Conflate, Outcome::Dropped(Dropped::Conflated), true),
        (Policy::DropNewest, Outcome::Dropped(Dropped::Closed), false),
    ] {
        let mut config = config();
        (config.outbox_events, config.policy) = (2, policy);
        let publisher = Publisher::new(nobody().await, config);
        let oldest = publisher.try_publish("a", Some("x"), number(1)).unwrap();
        publisher.try_publish("a", Some("y"), number(2)).unwrap();
        match publisher.try_publish("a", Some("x"), number(3)) {
            Ok(_) => assert!(last),
            Err(error) => assert!(!last && matches!(error, PublishError::Full)),
        }
        assert_eq!(publisher.waiting().0, 2);
        // There is no room, and nothing gives way.
        let room = publisher.publish("a", None, number(4)).now_or_never();
        assert!(room.is_none());
        drop(publisher);
        assert_eq!(oldest.await, first, "{policy}");
    }
}

#[tokio::test]
async fn what_waits_while_the_gateway_is_away_arrives_when_it_is_there() {
    let gateway = Gateway::start().await;
    let away = r#"{"code":"unavailable","message":"not now","permanent":false}"#;
    gateway.set(Faults { refuse: vec![("ws", 503, away)], ..Faults::default() });
    let publisher = publisher(&gateway, config());
    let receipts = publish_all(&publisher, 10).await;
    while gateway.requests().len() < 5 {
        tokio::task::yield_now().await;
    }
    assert_eq!(publisher.waiting().0, 10);
    gateway.set(Faults::default());
    all_taken(receipts).await;
    assert_eq!(gateway.values(), all(10));
}

#[tokio::test]
async fn a_refusal_for_good_ends_it_and_says_why() {
    let gateway = Gateway::start().await;
    let body = r#"{"code":"forbidden","message":"nobody","permanent":true}"#;
    gateway.set(Faults { refuse: vec![("ws", 403, body)], ..Faults::default() });
    let publisher = publisher(&gateway, config());
    let receipt = publisher.try_publish("a", None, number(1)).unwrap();
    assert_eq!(receipt.await, Outcome::Dropped(Dropped::Closed));
    assert!(matches!(publisher.flush().await, Err(Error::Refused(refusal)) if refusal.code == "forbidden"));
    assert!(matches!(publisher.flush().await, Err(Error::Ended)));
    assert!(matches!(publisher.try_publish("a", None, number(1)), Err(PublishError::Ended)));
    assert!(matches!(publisher.publish("a", None, number(1)).await, Err(PublishError::Ended)));
    assert!(matches!(publisher.state(), State::Stopped { .. }));
}

#[tokio::test]
async fn what_cannot_be_published_is_refused_before_it_waits() {
    let mut config = config();
    config.outbox_bytes = 1000;
    let publisher = Publisher::new(nobody().await, config);
    for (topic, data) in
        [("a/*", number(1)), ("a", Data::Json("{".into())), ("a", Data::Cbor("\u{ff}".into()))]
    {
        assert!(matches!(publisher.try_publish(topic, None, data), Err(PublishError::Invalid(_))), "{topic}");
    }
    let large = Data::text(&"x".repeat(1000));
    let error = publisher.try_publish("a", None, large).unwrap_err();
    assert!(matches!(error, PublishError::Invalid(Error::TooBig(1000))));
    assert_eq!(publisher.waiting(), (0, 0));
}

/// Gives `t1`, `t2`, ...
fn tokens()
-> (Arc<AtomicUsize>, impl Fn() -> std::future::Ready<Result<String, String>> + Send + Sync + 'static) {
    let count = Arc::new(AtomicUsize::new(0));
    let counting = count.clone();
    (count, move || std::future::ready(Ok(format!("t{}", counting.fetch_add(1, Ordering::SeqCst) + 1))))
}

#[tokio::test]
async fn a_credential_that_is_refused_is_renewed_once() {
    for transport in [Transport::WebSocket, Transport::Sse, Transport::LongPoll, Transport::Poll] {
        let gateway = Gateway::start().await;
        gateway.publish("a", None, "1");
        gateway.set(Faults { token: Some("t2"), ..Faults::default() });
        let (asked, source) = tokens();
        let endpoint = Endpoint::new(&gateway.url).unwrap().with_token_source(source);
        let mut subscription = Subscription::new(["a"]).transport(transport);
        subscription.backoff.base = Duration::from_millis(1);
        let mut subscriber = Subscriber::new(endpoint.clone(), subscription.clone()).unwrap();
        while !matches!(subscriber.next().await.unwrap().unwrap(), Item::Event(_)) {}
        assert_eq!((asked.load(Ordering::SeqCst), gateway.requests().len()), (2, 2));
        subscriber.close().await;
        // One that is refused again is the end.
        gateway.set(Faults { token: Some("none of them"), ..Faults::default() });
        let mut subscriber = Subscriber::new(endpoint, subscription).unwrap();
        let error = loop {
            if let Err(error) = subscriber.next().await.unwrap() {
                break error;
            }
        };
        assert!(matches!(&error, Error::Refused(refusal) if refusal.code == "unauthorized"), "{error}");
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }
}

#[tokio::test]
async fn renewal_is_answered_in_band() {
    let gateway = Gateway::start().await;
    gateway.set(Faults { renew: true, ..Faults::default() });
    let (_, source) = tokens();
    let endpoint = Endpoint::new(&gateway.url).unwrap().with_token_source(source);
    let publisher = Publisher::new(endpoint.clone(), config());
    let mut subscriber = Subscriber::new(endpoint, Subscription::new(["a"])).unwrap();
    let renewed = async {
        while gateway.tokens().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = renewed => {}
        () = async { while subscriber.next().await.is_some() {} } => panic!("it ended"),
    }
    for (n, said) in gateway.tokens().into_iter().enumerate() {
        assert_eq!(said, format!(r#"{{"type":"auth","token":"t{}"}}"#, n + 2));
    }
    assert_eq!(publisher.waiting(), (0, 0));
}
