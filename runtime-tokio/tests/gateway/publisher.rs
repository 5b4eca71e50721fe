//! The client's publisher against the gateway (`PROTOCOL.md` sections 5.2 and 5.3): once, over connections that are cut, and
//! whatever is refused.

use crate::support::{Served, within};
use longwire::client::{
    Data, Dropped, Endpoint, Form, Outcome, Policy, Publisher, PublisherConfig, Receipt, Transport,
};
use longwire::gateway::GatewayConfig;
use longwire::hub::{HubConfig, LogConfig, Open};
use longwire_core::log::{QuotaConfig, Rate};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

async fn served(change: impl FnOnce(&mut HubConfig)) -> Served {
    let mut hub = HubConfig { reconnect_window: Duration::from_millis(1), ..HubConfig::default() };
    change(&mut hub);
    Served::with(GatewayConfig::default(), hub, Open).await
}

pub(crate) fn config(transport: Transport) -> PublisherConfig {
    let mut config = PublisherConfig::default();
    config.transport = transport;
    // Attempts follow each other quickly here.
    config.backoff.base = Duration::from_millis(1);
    config.backoff.cap = Duration::from_millis(5);
    config
}

fn publisher(url: &str, config: PublisherConfig) -> Publisher {
    Publisher::new(Endpoint::new(url).unwrap(), config)
}

fn number(n: u64) -> Data {
    Data::json(n.to_string()).unwrap()
}

fn upto(count: u64) -> Vec<u64> {
    (1..=count).collect()
}

/// Lets so many connections through, each for a number of bytes that is drawn, and cuts it then: in both directions, and
/// whatever is under way. Those that come later live.
async fn scissors(gateway: SocketAddr, seed: u64, cuts: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let left = Arc::new(AtomicUsize::new(cuts));
    let leaving = left.clone();
    tokio::spawn(async move {
        let mut rng = StdRng::seed_from_u64(seed);
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let far = TcpStream::connect(gateway).await.unwrap();
            let budget = [rng.random_range(1..4000), rng.random_range(1..4000)];
            tokio::spawn(relay(near, far, budget, leaving.clone()));
        }
    });
    (address, left)
}

async fn relay(mut near: TcpStream, mut far: TcpStream, mut budget: [usize; 2], left: Arc<AtomicUsize>) {
    let (mut up, mut down) = (vec![0; 512], vec![0; 512]);
    loop {
        let (direction, n) = tokio::select! {
            n = near.read(&mut up) => (0, n.unwrap_or(0)),
            n = far.read(&mut down) => (1, n.unwrap_or(0)),
        };
        let cut = budget[direction] < n && left.load(Relaxed) > 0;
        let pass = if cut { budget[direction] } else { n };
        budget[direction] = budget[direction].saturating_sub(n);
        let written = match direction {
            0 => far.write_all(&up[..pass]).await,
            _ => near.write_all(&down[..pass]).await,
        };
        if cut {
            left.fetch_sub(1, Relaxed);
        }
        if cut || n == 0 || written.is_err() {
            return;
        }
    }
}

/// Cuts the way of a publisher 50 times. It ends when the last cut was made and everything is settled.
async fn once_over_cuts(transport: Transport, form: Form, seed: u64) {
    let served = served(|hub| hub.log.history_events = 100_000).await;
    let (proxy, left) = scissors(served.address, seed, 50).await;
    let mut config = config(transport);
    config.form = form;
    let publisher = publisher(&format!("http://{proxy}"), config);
    let mut receipts = Vec::new();
    tokio::time::timeout(Duration::from_secs(120), async {
        while left.load(Relaxed) > 0 {
            receipts.push(publisher.publish("a", None, number(receipts.len() as u64 + 1)).await.unwrap());
        }
        publisher.flush().await.unwrap();
    })
    .await
    .unwrap_or_else(|_| panic!("seed {seed}: {} cuts left, {:?}", left.load(Relaxed), publisher.state()));
    let count = receipts.len() as u64;
    all_taken(receipts).await;
    assert_eq!(served.numbers("a", "").await, upto(count), "seed {seed}");
    assert!(publisher.counts().taken == count && publisher.counts().resent > 0, "{:?}", publisher.counts());
}

async fn all_taken(receipts: Vec<Receipt>) {
    for receipt in receipts {
        assert_eq!(within(receipt).await, Outcome::Taken);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_is_cut_fifty_times_publishes_once_and_in_order() {
    for (form, seed) in [(Form::Json, 1), (Form::Cbor, 2), (Form::Json, 3)] {
        once_over_cuts(Transport::WebSocket, form, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_that_are_cut_fifty_times_publish_once_and_in_order() {
    for seed in [1, 2] {
        once_over_cuts(Transport::Poll, Form::Json, seed).await;
    }
}

/// From one to the other and back, as it happens.
#[tokio::test(flavor = "multi_thread")]
async fn whichever_way_works_publishes_once_and_in_order() {
    once_over_cuts(Transport::Auto, Form::Json, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_a_quota_comes_later_and_once() {
    for transport in [Transport::WebSocket, Transport::Poll] {
        let quota = QuotaConfig { messages: Rate::new(200, 20), bytes: None };
        let served = served(|hub| hub.quota = quota).await;
        let mut config = config(transport);
        config.max_inflight = 1000;
        let publisher = publisher(&served.url(), config);
        let mut receipts = Vec::new();
        for n in 1..=100 {
            receipts.push(publisher.publish("a", None, number(n)).await.unwrap());
        }
        all_taken(receipts).await;
        let mut stored = served.numbers("a", "").await;
        stored.sort_unstable();
        assert_eq!(stored, upto(100), "{transport}");
        if transport == Transport::WebSocket {
            assert!(served.gateway.hub().counters().over_rate.load(Relaxed) > 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_for_which_there_is_no_room_keeps_nobody_waiting() {
    for transport in [Transport::WebSocket, Transport::Poll] {
        let log = LogConfig { max_topics: 1, ..LogConfig::default() };
        let served = served(|hub| hub.log = log).await;
        let publisher = publisher(&served.url(), config(transport));
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        for n in 1..=20 {
            taken.push(publisher.publish("a", None, number(n)).await.unwrap());
            refused.push(publisher.publish("b", None, number(n)).await.unwrap());
        }
        all_taken(taken).await;
        for receipt in refused {
            let Outcome::Refused(refusal) = within(receipt).await else { panic!() };
            assert_eq!((&*refusal.code, refusal.permanent), ("topics_full", false), "{transport}");
        }
        assert_eq!(served.numbers("a", "").await, upto(20), "{transport}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_before_the_window_is_refused_and_the_others_are_not() {
    for transport in [Transport::WebSocket, Transport::Poll] {
        let served = served(|_| {}).await;
        let publisher = publisher(&served.url(), config(transport));
        // Somebody has used its name.
        let headers = format!(
            "Idempotency-Key: {}-1026\r\nContent-Type: application/json\r\n",
            publisher.incarnation()
        );
        let far = served.ask(&served.request("POST", "/v1/topics/far", &headers, b"0")).await;
        assert_eq!(far.status, 200);
        for n in 1..=4 {
            let receipt = publisher.publish("a", None, number(n)).await.unwrap();
            match within(receipt).await {
                Outcome::Taken => assert!(n > 2, "{transport}: {n}"),
                Outcome::Refused(refusal) => assert_eq!((&*refusal.code, n <= 2), ("out_of_window", true)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(served.numbers("a", "").await, [3, 4], "{transport}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_larger_than_the_gateway_takes_is_refused_alone() {
    for (transport, form) in [
        (Transport::WebSocket, Form::Json),
        (Transport::WebSocket, Form::Cbor),
        (Transport::Poll, Form::Json),
    ] {
        let served = served(|hub| hub.max_message = 2000).await;
        let mut config = config(transport);
        config.form = form;
        let publisher = publisher(&served.url(), config);
        let mut receipts = vec![publisher.publish("a", None, number(1)).await.unwrap()];
        let large = publisher.publish("a", None, Data::text(&"x".repeat(3000))).await.unwrap();
        receipts.push(publisher.publish("a", None, number(2)).await.unwrap());
        all_taken(receipts).await;
        let Outcome::Refused(refusal) = within(large).await else { panic!() };
        assert_eq!((&*refusal.code, refusal.permanent), ("message_too_big", true), "{transport}");
        assert_eq!((served.numbers("a", "").await, publisher.counts().resent), (upto(2), 0), "{transport}");
    }
}

/// A gateway that is there later: so long the outbox gives way as its policy says, and then it is emptied.
#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_that_was_full_publishes_what_its_policy_kept() {
    for (policy, kept, fates) in [
        (Policy::DropOldest, [4, 5], [Some(Dropped::Oldest); 3]),
        (Policy::DropNewest, [1, 2], [None; 3]),
        (Policy::Conflate, [2, 5], [Some(Dropped::Conflated); 3]),
    ] {
        let served = served(|_| {}).await;
        // Nobody answers before everything was published.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut config = config(Transport::WebSocket);
        (config.outbox_events, config.policy) = (2, policy);
        let publisher = publisher(&url, config);
        let keys = [Some("x"), Some("y"), Some("x"), Some("x"), Some("x")];
        let mut dropped = Vec::new();
        for (n, key) in (1..).zip(keys) {
            // What the policy refuses was never taken.
            if let Ok(receipt) = publisher.try_publish("a", key, number(n))
                && !kept.contains(&n)
            {
                dropped.push(receipt);
            }
        }
        let gateway = served.address;
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let far = TcpStream::connect(gateway).await.unwrap();
                tokio::spawn(relay(near, far, [usize::MAX; 2], Arc::default()));
            }
        });
        within(publisher.flush()).await.unwrap();
        assert_eq!(served.numbers("a", "").await, kept, "{policy}");
        let mut told = [None; 3];
        for (told, receipt) in told.iter_mut().zip(dropped) {
            let Outcome::Dropped(why) = within(receipt).await else { panic!() };
            *told = Some(why);
        }
        assert_eq!(told, fates, "{policy}");
        assert_eq!(publisher.counts().taken, 2);
    }
}
