//! Several logs in one hub: each by itself, whatever happens to another.

use crate::client::*;
use futures_util::FutureExt as _;
use longwire::hub::{
    AppendError, Authorize, Authorizing, Data, Denied, Grant, Hub, HubConfig, LogConfig, LogHandle, Logs,
    Open,
};
use longwire_core::log::{Key, Since, Topic};
use longwire_core::session::GapReason;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

/// A log that is full of everything at once.
fn small() -> LogConfig {
    LogConfig {
        tail_events: 8,
        history_events: 4,
        history_bytes: 20_000,
        max_topics: 3,
        max_keys: 5,
        ..LogConfig::default()
    }
}

/// A hub with one thread for all: `a` is small, `b` as large as the default log.
fn two() -> (Arc<Hub>, LogHandle, LogHandle) {
    let hub = hub(|config| {
        config.logs = [("a".to_owned(), small()), ("b".to_owned(), LogConfig::default())].into();
        // Nothing but what is asked for moves a counter.
        config.heartbeat = Duration::from_secs(3600);
    });
    let (a, b) = (hub.log_named("a").unwrap().clone(), hub.log_named("b").unwrap().clone());
    (hub, a, b)
}

/// Publishes to a log; true when it had to wait.
fn publish_to(
    log: &LogHandle,
    topic: &str,
    key: Option<&str>,
    data: &str,
) -> (bool, Result<u64, AppendError>) {
    let key = key.map(|key| Key::parse(key).unwrap());
    let data = Data::json(data.as_bytes()).unwrap();
    let mut publish = pin!(log.publish(Topic::parse(topic).unwrap(), key, data));
    let at_once = publish.as_mut().now_or_never();
    let waited = at_once.is_none();
    let published = at_once.unwrap_or_else(|| block_on(publish));
    (waited, published.map(|cursor| cursor.seq))
}

#[test]
fn a_log_has_its_name_its_epoch_its_bounds_and_its_positions() {
    let (hub, a, b) = two();
    let names: Vec<_> = hub.logs().map(LogHandle::name).collect();
    assert_eq!(names, ["a", "b", "default"]);
    assert!(hub.log_named("c").is_none() && hub.log_named("").is_none());
    let default = hub.log_named("default").unwrap();
    assert_eq!(default.log().epoch(), hub.log().epoch());
    assert!(a.log().epoch() != b.log().epoch() && a.log().epoch() != hub.log().epoch());
    assert_eq!((a.log().config(), b.log().config()), (&small(), &LogConfig::default()));
    for log in [&a, &b] {
        assert_eq!(publish_to(log, "t", None, "1"), (false, Ok(1)));
    }
    assert_eq!(publish_to(&b, "t", None, "2"), (false, Ok(2)));
    assert_eq!(hub.logs().map(|log| log.log().head()).collect::<Vec<_>>(), [1, 2, 0]);
    assert_eq!(publish(&hub, "t", "1"), 1);
    assert_eq!(default.stats().head, 1);
}

#[test]
fn only_what_can_be_one_is_the_name_of_a_log() {
    for name in ["", "default", "A", "a/b", ".", "a b", &"x".repeat(65)] {
        let logs = [(name.to_owned(), LogConfig::default())].into();
        let started = Hub::start(HubConfig { logs, ..HubConfig::default() }, Arc::new(Open));
        assert_eq!(started.unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
    }
}

#[test]
fn connections_see_what_is_on_their_own_log() {
    let (hub, a, b) = two();
    let mut clients = [&a, &b, hub.log_named("default").unwrap()].map(|log| {
        let mut client = Client::on(log, Form::Json, |_| {});
        client.subscribed(&["**"]);
        client
    });
    for (n, client) in (1..).zip(&mut clients) {
        client.publish(n, "t");
        let both = client.take(2);
        assert!(both.contains(&Seen::Ack(n)) && both.contains(&event(1, "t", &n.to_string())), "{both:?}");
    }
    // Nothing else came, and what comes next is the next of the own log.
    for client in &mut clients {
        client.publish(9, "t");
        let both = client.take(2);
        assert!(both.contains(&Seen::Ack(9)) && both.contains(&event(2, "t", "9")), "{both:?}");
    }
    for log in hub.logs() {
        let counters = log.counters();
        // Counted once it is written.
        wait_until(|| counters.delivered.load(Relaxed) >= 2);
        let counted =
            [&counters.published, &counters.websockets, &counters.subscriptions, &counters.delivered];
        // Counted when it was written: the reader may be faster.
        wait_until(|| counted.map(|counter| counter.load(Relaxed)) == [2, 1, 1, 2]);
    }
}

#[test]
fn a_cursor_of_another_log_is_reset() {
    let (_hub, a, b) = two();
    for n in 1..=5 {
        assert_eq!(publish_to(&b, "t", None, "1"), (false, Ok(n)));
    }
    assert_eq!(publish_to(&a, "t", None, "2"), (false, Ok(1)));
    let mut client = Client::on(&a, Form::Json, |_| {});
    client.sub(1, Since::Cursor(b.log().cursor(1)), &["t"]);
    assert_eq!(client.must(), Seen::Gap(1, 1, GapReason::Reset));
    assert!(matches!(client.must(), Seen::Event { at: At::Past(1), .. }));
    assert_eq!(client.must(), Seen::CaughtUp(1, Some(1)));
}

/// The readers of `b` on the same thread get everything while `a` is flooded until nothing of it fits anywhere: its
/// tail, histories and tables overflow, its publishers wait, its readers lose events.
#[test]
fn a_flooded_log_hurts_no_other() {
    let (_hub, a, b) = two();
    let mut quiet: Vec<Client> = (0..10).map(|_| Client::on(&b, Form::Json, |_| {})).collect();
    quiet.iter_mut().for_each(|client| client.subscribed(&["q/*"]));
    for n in 1..=500 {
        assert_eq!(publish_to(&b, "q/past", None, "0"), (false, Ok(n)));
    }
    for client in &mut quiet {
        client.take(500);
    }
    let state = || (b.stats(), format!("{:?}", b.counters()));
    wait_until(|| b.counters().delivered.load(Relaxed) == 5000);
    let before = state();

    // Readers that read nothing, so that each is behind before long; and one that loses events, and is told.
    let idle: Vec<Client> = (0..20).map(|_| Client::on(&a, Form::Json, |_| {})).collect();
    let idle: Vec<Client> = idle
        .into_iter()
        .map(|mut client| {
            client.subscribed(&["**"]);
            client
        })
        .collect();
    let (over, waited) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let floods: Vec<_> = (0..3).map(|_| flood(a.clone(), Arc::clone(&over), Arc::clone(&waited))).collect();
    let drained = drain(&a, Arc::clone(&over));
    let counters = a.counters();
    wait_until(|| {
        let stats = a.stats();
        let lost =
            stats.evicted > 1000 && counters.gaps.load(Relaxed) > 0 && counters.blocked.load(Relaxed) > 0;
        let full = stats.tail_events == 8 && stats.topics == 3 && counters.refused.load(Relaxed) > 100;
        lost && full && waited.load(Relaxed) > 100
    });
    assert_eq!(state(), before, "what happens on one log moves another");

    // And in the middle of it the other log goes on as if nothing were.
    for n in 501..=1500 {
        assert_eq!(publish_to(&b, "q/now", None, &n.to_string()), (false, Ok(n)), "its publisher waits");
        for client in &mut quiet {
            assert_eq!(client.must(), event(n, "q/now", &n.to_string()));
        }
    }
    let (stats, gaps) = (b.stats(), b.counters().gaps.load(Relaxed));
    assert_eq!((stats.evicted, stats.tail_events, gaps), (0, 1500, 0));
    let mut late = Client::on(&b, Form::Json, |_| {});
    late.sub(1, Since::Cursor(b.log().cursor(0)), &["**"]);
    for n in 1..=1500 {
        assert_eq!(live(&late.must()).map(|(seq, _)| seq), Some(n));
    }

    over.store(true, SeqCst);
    floods.into_iter().for_each(|flood| flood.join().unwrap());
    drop(idle);
    // For a reader that waits for something to read.
    publish_to(&a, "x", None, "1").1.unwrap();
    drained.join().unwrap();
}

/// Publishes as fast as it may, also what is refused, and counts how often it had to wait.
fn flood(log: LogHandle, over: Arc<AtomicBool>, waited: Arc<AtomicUsize>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let body = format!("\"{}\"", "x".repeat(5_000));
        while !over.load(SeqCst) {
            for (topic, key) in
                [("x", None), ("y", None), ("y", Some("k")), ("z", None), ("one too many", None)]
            {
                let (waits, published) = publish_to(&log, topic, key, &body);
                waited.fetch_add(usize::from(waits), Relaxed);
                assert_eq!(published.err(), topic.starts_with("one").then_some(AppendError::Topics));
            }
        }
    })
}

/// A reader that reads, in its own time.
fn drain(log: &LogHandle, over: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let mut client = Client::on(log, Form::Json, |_| {});
    client.sub(0, Since::Now, &["**"]);
    std::thread::spawn(move || {
        while !over.load(SeqCst) {
            client.must();
        }
    })
}

#[test]
fn a_hub_that_closes_ends_all_of_its_logs() {
    let (hub, a, b) = two();
    let default = hub.log_named("default").unwrap().clone();
    let logs = [&a, &b, &default];
    let mut clients: Vec<Client> =
        logs.iter().flat_map(|log| (0..3).map(|_| Client::on(log, Form::Json, |_| {}))).collect();
    let mut reader = b.reader(filter(&["**"]), 0);
    let closing = {
        let hub = Arc::clone(&hub);
        std::thread::spawn(move || hub.close(Duration::ZERO, Duration::from_secs(5)))
    };
    for client in &mut clients {
        assert_eq!(client.end(), (vec![Seen::Bye("draining".into())], End::Closed(1001)));
    }
    drop(clients);
    ends("the hub", move || closing.join().unwrap());
    let page = block_on(reader.next(longwire::hub::PageSize { events: 1, bytes: 1 }));
    assert!(page.records.is_empty());
    for log in logs {
        assert_eq!(log.counters().websockets.load(Relaxed), 0);
        // Nobody delivers any more, and nobody waits for that.
        (1..100).for_each(|n| assert_eq!(publish_to(log, "t", None, "1"), (false, Ok(n))));
    }
}

/// Grants for the logs that the credential names.
struct Named;

impl Authorize for Named {
    fn authorize<'a>(&'a self, credential: Option<&'a str>) -> Authorizing<'a> {
        let logs: Logs = credential.unwrap_or_default().split(',').collect();
        Box::pin(std::future::ready(match credential {
            Some(_) => Ok(Grant { logs, ..Grant::open() }),
            None => Err(Denied("none")),
        }))
    }
}

#[test]
fn a_new_grant_has_to_be_for_the_log_of_the_connection() {
    let logs = [("a".to_owned(), LogConfig::default())].into();
    let hub = Hub::start(HubConfig { shards: 1, logs, ..HubConfig::default() }, Arc::new(Named)).unwrap();
    for (log, good, bad) in [("a", "default,a", "default"), ("default", "default", "a")] {
        let mut client = Client::on(hub.log_named(log).unwrap(), Form::Json, |_| {});
        client.auth(good);
        assert!(matches!(client.must(), Seen::Hello { .. }));
        client.auth(bad);
        assert_eq!(client.must(), Seen::Bye("unauthorized".into()), "{log}");
        assert_eq!(client.end(), (vec![], End::Closed(3000)), "{log}");
    }
}
