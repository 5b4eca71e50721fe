//! The client's credentials (`PROTOCOL.md` section 8.4): grants that end every few seconds, over each transport, and sources of
//! credentials that fail.

use crate::publisher::config;
use crate::support::{Served, within};
use longwire::client::{
    Data, Endpoint, Error, Item, Outcome, Publisher, State, Subscriber, Subscription, Transport,
};
use longwire::gateway::GatewayConfig;
use longwire::hub::{Authorize, Authorizing, Denied, Grant, HubConfig};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Takes `SUBJECT:N` for so long each time that it is presented, and nothing else.
struct Leases(Duration);

impl Authorize for Leases {
    fn authorize<'a>(&'a self, credential: Option<&'a str>) -> Authorizing<'a> {
        let subject = credential.and_then(|text| text.split_once(':')).map(|(subject, _)| subject);
        let grant = subject.map(|subject| Grant {
            subject: subject.into(),
            expires: Some(Instant::now() + self.0),
            ..Grant::open()
        });
        Box::pin(async { grant.ok_or(Denied("it is not known, or has ended")) })
    }
}

const HEADERS: &str = "Authorization: Bearer somebody:1\r\n";

async fn served(lease: Duration) -> Served {
    let window = Duration::from_millis(1);
    let hub = HubConfig { reconnect_window: window, retry: window, ..HubConfig::default() };
    Served::with(GatewayConfig::default(), hub, Leases(lease)).await
}

/// Somebody who is asked for credentials, and counts how often.
#[derive(Clone)]
struct Source {
    asked: Arc<AtomicUsize>,
    answer: fn(usize) -> Result<String, &'static str>,
}

impl Source {
    fn new(answer: fn(usize) -> Result<String, &'static str>) -> Self {
        Self { asked: Arc::default(), answer }
    }

    fn good() -> Self {
        Self::new(|n| Ok(format!("ada:{n}")))
    }

    fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }

    fn endpoint(&self, served: &Served) -> Endpoint {
        self.endpoint_at(&served.url())
    }

    fn endpoint_at(&self, url: &str) -> Endpoint {
        let source = self.clone();
        Endpoint::new(url).unwrap().with_token_source(move || {
            std::future::ready((source.answer)(source.asked.fetch_add(1, Relaxed) + 1))
        })
    }
}

/// What a subscriber saw.
#[derive(Debug, Default)]
struct Seen {
    values: Vec<u64>,
    gaps: usize,
    connected: usize,
    waits: Vec<String>,
    error: Option<Error>,
}

/// Publishes numbers until the source was asked so often, and reads all of them.
async fn read_through(served: &Served, source: &Source, transport: Transport, asks: usize) -> Seen {
    let mut subscription = Subscription::new(["a"]).transport(transport);
    subscription.backoff.base = Duration::from_millis(1);
    let mut subscriber = Subscriber::new(source.endpoint(served), subscription).unwrap();
    let last = Mutex::new(None);
    let publishing = async {
        let mut n = 0;
        while source.asked() < asks {
            n += 1;
            served.publish("a", None, &n.to_string()).await;
            // So that there are no more of them than the log remembers.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        served.publish("a", None, &(n + 1).to_string()).await;
        *last.lock().unwrap() = Some(n + 1);
        std::future::pending::<()>().await;
    };
    let reading = async {
        let mut seen = Seen::default();
        while let Some(item) = subscriber.next().await {
            match item {
                Ok(Item::Event(event)) => {
                    let Data::Json(json) = event.data else { panic!() };
                    seen.values.push(str::from_utf8(&json).unwrap().parse().unwrap());
                }
                Ok(Item::Gap(_)) => seen.gaps += 1,
                Ok(Item::State(State::Connected(_))) => seen.connected += 1,
                Ok(Item::State(State::Waiting { why, .. })) => seen.waits.push(why),
                Ok(_) => {}
                Err(error) => seen.error = Some(error),
            }
            if seen.values.last().is_some_and(|value| *last.lock().unwrap() == Some(*value)) {
                break;
            }
        }
        seen
    };
    within(async {
        tokio::select! {
            () = publishing => unreachable!(),
            seen = reading => seen,
        }
    })
    .await
}

fn assert_whole(seen: &Seen) {
    assert!(seen.error.is_none() && seen.gaps == 0, "{seen:?}");
    // The state at the beginning is one event; from there on each comes once.
    let first = *seen.values.first().unwrap();
    let all: Vec<u64> = (first..first + seen.values.len() as u64).collect();
    assert_eq!(seen.values, all, "{seen:?}");
}

/// Long enough for a loaded machine to renew within a third of it.
const LEASE: Duration = Duration::from_secs(3);

async fn renews_without_a_reconnect(transport: Transport) {
    let (served, source) = (served(LEASE).await, Source::good());
    let seen = read_through(&served, &source, transport, 4).await;
    assert_whole(&seen);
    assert_eq!((seen.connected, seen.waits.len()), (1, 0), "{transport}: {seen:?}");
    let counters = served.gateway.hub().counters();
    assert!(counters.renewals.load(Relaxed) >= 2, "{transport}");
    assert_eq!((counters.expired.load(Relaxed), counters.denied.load(Relaxed)), (0, 0), "{transport}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_goes_on_over_several_leases() {
    renews_without_a_reconnect(Transport::WebSocket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_goes_on_over_several_leases() {
    renews_without_a_reconnect(Transport::Sse).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_costs_a_connection_and_no_event() {
    for transport in [Transport::WebSocket, Transport::Sse] {
        let source = Source::new(|n| if n % 2 == 0 { Err("not now") } else { Ok(format!("ada:{n}")) });
        let served = served(Duration::from_secs(1)).await;
        let seen = read_through(&served, &source, transport, 5).await;
        assert_whole(&seen);
        assert!(seen.connected >= 2, "{transport}: {seen:?}");
        assert!(seen.waits.iter().any(|why| why.contains("unauthorized")), "{transport}: {seen:?}");
    }
}

/// Lets every connection through but the second one, which nobody answers; tells when that has come.
async fn deaf_to_the_second(served: &Served) -> (String, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (gateway, came) = (served.address, Arc::new(Notify::new()));
    let coming = came.clone();
    tokio::spawn(async move {
        let mut kept = None;
        for n in 1.. {
            let (mut near, _) = listener.accept().await.unwrap();
            if n == 2 {
                kept = Some(near);
                coming.notify_one();
                continue;
            }
            let mut far = TcpStream::connect(gateway).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await });
        }
        drop(kept);
    });
    (url, came)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_read_while_its_renewal_hangs() {
    let (served, source) = (served(LEASE).await, Source::good());
    let (url, hangs) = deaf_to_the_second(&served).await;
    let mut subscription = Subscription::new(["a"]).transport(Transport::Sse);
    subscription.backoff.base = Duration::from_millis(1);
    let mut subscriber = Subscriber::new(source.endpoint_at(&url), subscription).unwrap();
    let publishing = async {
        hangs.notified().await;
        served.publish("a", None, "1").await;
        std::future::pending::<()>().await;
    };
    let reading = async {
        let mut connected = 0;
        loop {
            match subscriber.next().await.unwrap().unwrap() {
                Item::State(State::Connected(_)) => connected += 1,
                Item::Event(_) => return connected,
                _ => {}
            }
        }
    };
    let connected = within(async {
        tokio::select! {
            () = publishing => unreachable!(),
            connected = reading => connected,
        }
    });
    assert_eq!(connected.await, 1);
    // Then the grant ends, and the next credential opens another stream.
    served.publish("a", None, "2").await;
    while !matches!(within(subscriber.next()).await.unwrap().unwrap(), Item::State(State::Connected(_))) {}
    assert_eq!(source.asked(), 3);
}

/// A poll is told by a refusal only; the next one goes on from the cursor.
#[tokio::test(flavor = "multi_thread")]
async fn a_poll_whose_grant_is_taken_back_goes_on_with_the_next_credential() {
    let (served, source) = (served(Duration::from_secs(3600)).await, Source::good());
    let mut subscription = Subscription::new(["a"]).transport(Transport::LongPoll);
    subscription.backoff.base = Duration::from_millis(1);
    let mut subscriber = Subscriber::new(source.endpoint(&served), subscription).unwrap();
    let mut values = Vec::new();
    within(async {
        while !matches!(subscriber.next().await.unwrap().unwrap(), Item::CaughtUp(_)) {}
        for n in 1..=4 {
            // Whether it waits at this moment or not.
            served.gateway.hub().revoke("ada");
            served.publish("a", None, &n.to_string()).await;
            while values.len() < n {
                if let Item::Event(event) = subscriber.next().await.unwrap().unwrap() {
                    values.push(event.data);
                }
            }
        }
    })
    .await;
    let all: Vec<_> = (1..=4).map(|n: u32| Data::json(n.to_string()).unwrap()).collect();
    assert_eq!(values, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_has_ended_already_costs_a_connection_and_a_second_one_in_a_row_is_the_end() {
    for transport in [Transport::WebSocket, Transport::Sse] {
        let served = served(Duration::from_secs(1)).await;
        let once = Source::new(|n| Ok(if n == 2 { "ended".to_owned() } else { format!("ada:{n}") }));
        let seen = read_through(&served, &once, transport, 4).await;
        assert_whole(&seen);
        assert!(seen.connected >= 2 && seen.waits[0].contains("unauthorized"), "{transport}: {seen:?}");

        let for_ever = Source::new(|n| Ok(if n == 1 { "ada:1" } else { "ended" }.to_owned()));
        let seen = read_through(&served, &for_ever, transport, usize::MAX).await;
        let error = seen.error.as_ref().expect("an error").to_string();
        assert!(error.contains("unauthorized: it is not known, or has ended"), "{error}");
        // At the renewal, and for one more attempt.
        assert_eq!((for_ever.asked(), seen.connected), (3, 1), "{transport}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credential_of_another_subject_takes_the_stream_over_or_comes_with_the_next_one() {
    for transport in [Transport::WebSocket, Transport::Sse] {
        let served = served(Duration::from_secs(1)).await;
        let source = Source::new(|n| Ok(format!("{}:{n}", if n == 2 { "bob" } else { "ada" })));
        let seen = read_through(&served, &source, transport, 4).await;
        assert_whole(&seen);
        let cut = usize::from(transport == Transport::Sse);
        assert!(seen.waits.len() >= cut, "{transport}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_goes_on_over_several_leases() {
    let (served, source) = (served(LEASE).await, Source::good());
    let publisher = Publisher::new(source.endpoint(&served), config(Transport::WebSocket));
    let count = within(async {
        let mut n = 0;
        while source.asked() < 4 {
            n += 1;
            let data = Data::json(n.to_string()).unwrap();
            assert_eq!(publisher.publish("a", None, data).await.unwrap().await, Outcome::Taken);
            // So that there are no more of them than the log remembers.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        n
    })
    .await;
    assert_eq!(served.numbers("a", HEADERS).await, (1..=count).collect::<Vec<_>>());
    assert_eq!(publisher.counts().resent, 0);
    assert_eq!(served.gateway.hub().counters().expired.load(Relaxed), 0);
    publisher.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_is_refused_asks_for_another_credential_and_goes_on() {
    for transport in [Transport::WebSocket, Transport::Poll] {
        let served = served(Duration::from_secs(3600)).await;
        let source = Source::new(|n| Ok(if n == 1 { "ended".to_owned() } else { format!("ada:{n}") }));
        let publisher = Publisher::new(source.endpoint(&served), config(transport));
        let receipt = publisher.try_publish("a", None, Data::json("1").unwrap()).unwrap();
        assert_eq!(within(receipt).await, Outcome::Taken, "{transport}");
        assert_eq!((source.asked(), served.numbers("a", HEADERS).await), (2, vec![1]), "{transport}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_is_refused_a_second_time_in_a_row_and_says_so() {
    for transport in [Transport::WebSocket, Transport::Poll] {
        let served = served(Duration::from_secs(3600)).await;
        let source = Source::new(|_| Ok("ended".to_owned()));
        let publisher = Publisher::new(source.endpoint(&served), config(transport));
        // On a busy machine it is over by then.
        let _ = publisher.try_publish("a", None, Data::json("1").unwrap());
        let error = within(publisher.flush()).await.unwrap_err().to_string();
        assert!(error.contains("unauthorized: it is not known, or has ended"), "{transport}: {error}");
        assert_eq!(source.asked(), 2, "{transport}");
        assert!(matches!(publisher.state(), State::Stopped { .. }));
    }
}
