//! Section 5.1: readers that are too slow, over sockets that are really full.

use crate::client::*;
use longwire::hub::{Hub, HubConfig, LogConfig, PageSize};
use longwire_core::log::{Policy, Since};
use longwire_core::session::{ClientMessage, GapReason};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Waker};
use std::time::Duration;

const TRANSPORTS: [Form; 3] = [Form::Json, Form::Cbor, Form::Sse];
/// Events that a reader may be behind in these tests.
const LIMIT: u64 = 40;

/// The key of the last event.
const LAST: u64 = 1000;

/// Room for everything that these tests publish: nothing is evicted.
fn hub(change: impl FnOnce(&mut HubConfig)) -> Arc<Hub> {
    let log = LogConfig {
        tail_bytes: 256 << 20,
        history_bytes: 256 << 20,
        latest_bytes: 256 << 20,
        ..tail(1 << 14)
    };
    crate::client::hub(|config| {
        config.log = log;
        config.max_lag_events = LIMIT;
        config.max_lag_bytes = 256 << 20;
        config.heartbeat = Duration::from_secs(600);
        change(config);
    })
}

/// A reader of `a/**`, and what it saw so far.
struct Slow {
    client: Client,
    seen: Vec<Seen>,
}

impl Slow {
    fn open(hub: &Hub, form: Form, policy: Policy) -> Self {
        Self::of(hub, form, policy, "a/**")
    }

    fn of(hub: &Hub, form: Form, policy: Policy, pattern: &str) -> Self {
        let mut client = Client::with(hub, form, |adoption| {
            adoption.policy = policy;
            adoption.subscription = Some((filter(&[pattern]), Since::Now));
        });
        client.shows_all = true;
        assert!(matches!(client.must(), Seen::CaughtUp(..)));
        Self { client, seen: Vec::new() }
    }

    /// Reads until it has the event at that position.
    fn read_to(&mut self, seq: u64) {
        while self.last() < seq {
            let seen = self.client.must();
            self.seen.push(seen);
        }
    }

    fn last(&self) -> u64 {
        self.positions().last().copied().unwrap_or(0)
    }

    fn positions(&self) -> Vec<u64> {
        self.seen.iter().filter_map(live).map(|(seq, _)| seq).collect()
    }

    /// From, to, reason, and how many matched there.
    fn gaps(&self) -> Vec<(u64, u64, GapReason, u64)> {
        let gap = |seen: &Seen| match seen {
            Seen::Lost(from, to, reason, skipped) => {
                Some((*from, *to, *reason, skipped.expect("not counted")))
            }
            _ => None,
        };
        self.seen.iter().filter_map(gap).collect()
    }
}

/// What was published: which positions match, and the key of each.
#[derive(Default)]
struct Published {
    matching: BTreeMap<u64, String>,
    body: String,
}

impl Published {
    /// Bodies of that many bytes.
    fn new(len: usize) -> Self {
        Self { body: format!("\"{}\"", "x".repeat(len)), ..Self::default() }
    }

    fn one(&mut self, hub: &Hub, key: u64) -> u64 {
        let key = key.to_string();
        let seq = publish_key(hub, "a/x", Some(&key), &self.body);
        self.matching.insert(seq, key);
        seq
    }

    /// Until the reader's socket is full; each event has one of so many keys.
    fn until_full(&mut self, hub: &Hub, keys: u64) -> u64 {
        let counters = hub.counters();
        let before = counters.blocked.load(Relaxed);
        loop {
            let delivered = counters.delivered.load(Relaxed);
            let seq = self.one(hub, hub.log().head() % keys);
            wait_until(|| {
                counters.delivered.load(Relaxed) > delivered || counters.blocked.load(Relaxed) > before
            });
            if counters.blocked.load(Relaxed) > before {
                wait_until(|| counters.lagging.load(Relaxed) == 1);
                return seq;
            }
        }
    }

    fn more(&mut self, hub: &Hub, events: u64, keys: u64) -> u64 {
        (0..events).map(|n| self.one(hub, n % keys)).last().unwrap()
    }

    fn between(&self, after: u64, to: u64) -> u64 {
        self.matching.range(after + 1..=to).count() as u64
    }
}

/// Each gap says exactly how many matched in it; what is in none came, in order and once.
fn check(published: &Published, reader: &Slow) {
    let positions = reader.positions();
    assert!(positions.is_sorted_by(|a, b| a < b));
    let gaps = reader.gaps();
    for (from, to, _, skipped) in &gaps {
        assert_eq!(*skipped, published.between(*from, *to), "in {from}..={to}");
    }
    for seq in published.matching.keys() {
        let gap = gaps.iter().any(|(from, to, ..)| from < seq && seq <= to);
        assert!(gap || positions.contains(seq), "{seq} is missing in silence");
    }
}

/// Published for the readers = delivered + skipped, once nobody is behind.
fn conserved(hub: &Hub, published: &Published) {
    let c = hub.counters();
    wait_until(|| c.lagging.load(Relaxed) == 0);
    let skipped = [&c.skipped_slow, &c.skipped_conflated, &c.skipped_evicted].map(|c| c.load(Relaxed));
    let delivered = c.delivered.load(Relaxed);
    assert_eq!(
        delivered + skipped.iter().sum::<u64>(),
        published.matching.len() as u64,
        "{delivered} {skipped:?}"
    );
}

#[test]
fn pressure_is_told_before_a_loss_and_behind_its_gap() {
    for form in TRANSPORTS {
        let (hub, mut published) = (hub(|_| {}), Published::new(50_000));
        let mut reader = Slow::open(&hub, form, Policy::DropOldest);
        published.until_full(&hub, 1);
        // More than half of the limit, and less than all of it.
        let last = published.more(&hub, LIMIT - 5, 1);
        reader.read_to(last);
        let Some(Seen::Pressure(lag, LIMIT, 0)) = reader.seen.iter().find(|seen| live(seen).is_none()) else {
            panic!("no pressure: {:?}", reader.gaps());
        };
        assert!((LIMIT / 2..=LIMIT).contains(lag), "{lag}");
        check(&published, &reader);
        conserved(&hub, &published);
        assert!(reader.gaps().is_empty());

        // Beyond the limit, with others in between that do not match.
        reader.seen.clear();
        published.matching.clear();
        let delivered = hub.counters().delivered.load(Relaxed);
        published.until_full(&hub, 1);
        // Also when the kernel takes a part of it.
        for _ in 0..300 {
            published.one(&hub, 0);
            publish(&hub, "b", "1");
        }
        let last = published.one(&hub, 0);
        reader.read_to(last);
        // The kernel may have taken some more in between: then there are several.
        let mut skipped = 0;
        for (at, seen) in reader.seen.iter().enumerate() {
            let Seen::Lost(from, _, reason, Some(events)) = seen else { continue };
            skipped += events;
            assert_eq!(*reason, GapReason::Slow);
            // It jumps to half of the bound.
            assert_eq!(reader.seen.get(at + 1), Some(&Seen::Pressure(LIMIT / 2, LIMIT, skipped)));
            assert!(at == 0 || live(&reader.seen[at - 1]).is_some_and(|(seq, _)| seq <= *from));
        }
        assert!(skipped > 0);
        let came: Vec<_> = reader.positions();
        wait_until(|| hub.counters().lagging.load(Relaxed) == 0);
        assert_eq!(came.len() as u64 + skipped, published.matching.len() as u64);
        assert_eq!(hub.counters().delivered.load(Relaxed) - delivered, came.len() as u64);
        assert_eq!(hub.counters().skipped_slow.load(Relaxed), skipped);
        assert!(hub.counters().pressures.load(Relaxed) >= 2);
    }
}

#[test]
fn who_conflates_gets_the_latest_of_each_topic_and_key() {
    for form in TRANSPORTS {
        let (hub, mut published) = (hub(|_| {}), Published::new(50_000));
        let mut reader = Slow::open(&hub, form, Policy::Conflate);
        published.until_full(&hub, 7);
        let last = published.more(&hub, 2 * LIMIT, 7);
        reader.read_to(last);
        check(&published, &reader);
        conserved(&hub, &published);
        let [(from, to, GapReason::Conflated, skipped)] = reader.gaps()[..] else {
            panic!("{:?}", reader.gaps())
        };
        assert_eq!((to, skipped), (last, published.between(from, last)));
        let came: Vec<u64> = reader.positions().into_iter().filter(|seq| *seq > from).collect();
        let latest: Vec<u64> = (last - 6..=last).collect();
        assert_eq!(came, latest, "after {from}");
        let at = reader.seen.iter().position(|seen| matches!(seen, Seen::Lost(..))).unwrap();
        assert!(matches!(reader.seen[at + 1], Seen::Pressure(0, LIMIT, 0)), "{:?}", reader.seen[at + 1]);
    }
}

#[test]
fn a_conflation_goes_on_where_the_socket_was_full() {
    for form in TRANSPORTS {
        let (hub, mut published) = (hub(|_| {}), Published::new(50_000));
        let mut reader = Slow::open(&hub, form, Policy::Conflate);
        published.until_full(&hub, 1000);
        // More of the latest than the kernel holds; then some are overtaken while they are on their way, with and without
        // another gap.
        let conflating = published.more(&hub, 400, 300);
        while reader.gaps().is_empty() {
            let seen = reader.client.must();
            reader.seen.push(seen);
        }
        published.more(&hub, LIMIT / 2, 300);
        let first = reader.gaps()[0].1;
        reader.read_to(first.min(conflating) - 200);
        let last = published.more(&hub, 3 * LIMIT, 300);
        reader.read_to(last);
        check(&published, &reader);
        conserved(&hub, &published);
        // Of each key at least the latest came.
        let latest: BTreeMap<&String, u64> =
            published.matching.iter().map(|(seq, key)| (key, *seq)).collect();
        assert!(latest.values().all(|seq| reader.positions().contains(seq)));
        assert!(reader.gaps().windows(2).all(|two| two[0].1 <= two[1].0), "{:?}", reader.gaps());
        assert!(hub.counters().skipped_conflated.load(Relaxed) > 0);
    }
}

/// However the reading and the publishing mix: what did not come lies in a gap, which says how many, and the sums agree.
#[test]
fn whatever_is_read_or_not_the_account_is_whole() {
    let mut rng = seeded("slow");
    for (round, policy) in [Policy::DropOldest, Policy::Conflate].into_iter().cycle().take(6).enumerate() {
        let form = TRANSPORTS[round % TRANSPORTS.len()];
        let hub = hub(|config| {
            config.max_lag_bytes = rng.random_range(1 << 20..4 << 20);
            config.max_lag_events = rng.random_range(2..200);
        });
        let mut reader = Slow::open(&hub, form, policy);
        let mut publishing = StdRng::seed_from_u64(rng.random());
        let publisher = {
            let hub = Arc::clone(&hub);
            std::thread::spawn(move || {
                let mut published = Published::default();
                for _ in 0..600 {
                    published.body = format!("\"{}\"", "x".repeat(publishing.random_range(0..40_000)));
                    published.one(&hub, publishing.random_range(0..50));
                    if publishing.random_bool(0.1) {
                        publish(&hub, "b", "1");
                    }
                }
                // Whatever the policy, the newest is never skipped.
                published.one(&hub, LAST);
                published
            })
        };
        let last =
            |seen: &Seen| matches!(seen, Seen::Event { key: Some(key), .. } if *key == LAST.to_string());
        while !reader.seen.last().is_some_and(last) {
            for _ in 0..rng.random_range(0..200) {
                let seen = reader.client.must();
                reader.seen.push(seen);
                if reader.seen.last().is_some_and(last) {
                    break;
                }
            }
            std::thread::sleep(Duration::from_millis(rng.random_range(0..50)));
        }
        let published = publisher.join().unwrap();
        println!("{policy} {form:?}: {} came, {} gaps", reader.positions().len(), reader.gaps().len());
        check(&published, &reader);
        conserved(&hub, &published);
    }
}

#[test]
fn who_asks_for_it_is_disconnected_and_may_resume() {
    for form in TRANSPORTS {
        // The server gives its last words a second: whoever reads at once gets them, except on a machine that stands still.
        let told = (0..10).any(|_| {
            let (hub, mut published) = (hub(|_| {}), Published::new(50_000));
            let mut reader = Slow::open(&hub, form, Policy::Disconnect);
            published.until_full(&hub, 1);
            published.more(&hub, LIMIT + 20, 1);
            let (seen, end) = reader.client.end();
            let bye = seen.last() == Some(&Seen::Bye("too_slow".into()));
            assert!(bye || end == End::Cut, "{end:?}");
            assert!(!bye || form == Form::Sse || end == End::Closed(1013), "{end:?}");
            wait_until(|| hub.counters().websockets.load(Relaxed) + hub.counters().sse.load(Relaxed) == 0);
            assert_eq!(hub.counters().too_slow.load(Relaxed), 1);
            assert_eq!(hub.counters().timeouts.load(Relaxed), 0);
            assert!(!seen.iter().any(|seen| matches!(seen, Seen::Lost(..))));
            reader.seen.extend(seen);
            // It goes on from its cursor, and what was asked for is no lag.
            let since = reader.last();
            let rest = hub.log().head() - since;
            assert!(rest > LIMIT / 2, "{rest}");
            let mut again = Client::with(&hub, form, |adoption| {
                adoption.policy = Policy::DropOldest;
                adoption.subscription = Some((filter(&["a/**"]), Since::Cursor(hub.log().cursor(since))));
            });
            let got = again.take(usize::try_from(rest).unwrap());
            assert!(got.iter().filter_map(live).map(|(seq, _)| seq).eq(since + 1..=hub.log().head()));
            bye
        });
        assert!(told, "{form:?}");
    }
}

#[test]
fn who_never_reads_is_disconnected_all_the_same() {
    for form in TRANSPORTS {
        let (hub, mut published) = (hub(|_| {}), Published::new(50_000));
        let _reader = Slow::open(&hub, form, Policy::Disconnect);
        published.until_full(&hub, 1);
        published.more(&hub, 2 * LIMIT, 1);
        let counters = hub.counters();
        wait_until(|| counters.websockets.load(Relaxed) + counters.sse.load(Relaxed) == 0);
        assert_eq!((counters.too_slow.load(Relaxed), counters.timeouts.load(Relaxed)), (1, 0));
        assert_eq!(counters.lagging.load(Relaxed), 0);
        wait_until(|| hub.log_named("default").unwrap().pinned_bytes() == 0);
    }
}

/// Without anything published: the oldest event that it does not take grows older.
#[test]
fn age_is_a_bound_too() {
    let (hub, mut published) = (hub(|c| c.max_lag_age = Duration::from_millis(1)), Published::new(50_000));
    let _reader = Slow::open(&hub, Form::Json, Policy::Disconnect);
    while hub.counters().websockets.load(Relaxed) > 0 && published.matching.len() < 10_000 {
        published.one(&hub, 0);
    }
    wait_until(|| hub.counters().websockets.load(Relaxed) == 0);
    assert_eq!((hub.counters().too_slow.load(Relaxed), hub.counters().timeouts.load(Relaxed)), (1, 0));
}

#[test]
fn what_is_half_sent_has_a_budget() {
    const MAX: usize = 520_000;
    let hub = hub(|c| c.max_pinned_bytes = MAX);
    let pinned_bytes = || hub.log_named("default").unwrap().pinned_bytes();
    let body = format!("\"{}\"", "x".repeat(50_000));
    let topics: Vec<String> = (0..8).map(|n| format!("a/{n}")).collect();
    // Each reads what no other does, so that none shares what it has half of.
    let readers: Vec<_> =
        topics.iter().map(|topic| Slow::of(&hub, Form::Json, Policy::DropOldest, topic)).collect();
    for _ in 0..1000 {
        for topic in &topics {
            publish(&hub, topic, &body);
        }
        assert!(hub.log_named("default").unwrap().pinned_bytes() <= MAX);
        if hub.counters().websockets.load(Relaxed) <= 3 {
            break;
        }
    }
    // An eighth of what is left: three of them, and then there is room for smaller ones only.
    wait_until(|| hub.counters().websockets.load(Relaxed) == 3);
    assert_eq!(hub.counters().too_slow.load(Relaxed), 5);
    let small = Slow::of(&hub, Form::Json, Policy::DropOldest, "b");
    let body = format!("\"{}\"", "x".repeat(10_000));
    let pinned = pinned_bytes();
    while pinned_bytes() == pinned {
        publish(&hub, "b", &body);
    }
    assert_eq!(hub.counters().websockets.load(Relaxed), 4);
    drop(small);
    assert_eq!(hub.counters().timeouts.load(Relaxed), 0);
    drop(readers);
    wait_until(|| hub.counters().websockets.load(Relaxed) == 0);
    wait_until(|| hub.log_named("default").unwrap().pinned_bytes() == 0);
}

#[test]
fn a_sub_says_the_policy_within_what_the_operator_allows() {
    let hub = hub(|c| c.policies = vec![Policy::DropOldest, Policy::Disconnect]);
    for form in FORMS {
        let mut client = Client::open(&hub, form);
        let mut sub = |id, policy, topic: &str| {
            client.send(&ClientMessage::Sub {
                id: Some(id),
                since: None,
                policy,
                topics: (&[topic][..]).into(),
            });
            client.must()
        };
        assert_eq!(sub(1, Some(Policy::Conflate), "a/**"), error("forbidden", 1));
        assert_eq!(sub(2, Some(Policy::DropNewest), "a/**"), error("bad_message", 2));
        // What was refused was refused whole.
        assert!(hub.counters().subscriptions.load(Relaxed) == 0);
        assert!(matches!(sub(3, Some(Policy::Disconnect), "a/**"), Seen::CaughtUp(_, Some(3))));
        // It stays until another is said.
        assert!(matches!(sub(4, None, "b"), Seen::CaughtUp(_, Some(4))));
        let mut published = Published::new(50_000);
        published.until_full(&hub, 1);
        published.more(&hub, 2 * LIMIT, 1);
        wait_until(|| hub.counters().websockets.load(Relaxed) == 0);
        assert!(hub.counters().too_slow.load(Relaxed) > 0);
    }
}

/// A reader of whom hardly anything is known to match, among thousands of topics.
#[test]
fn a_read_that_finds_nothing_lets_others_have_their_turns() {
    let hub = hub(|_| {});
    for topic in 0..6000 {
        publish(&hub, &format!("t{topic}/x"), "0");
    }
    let patterns: Vec<String> = (0..64).map(|n| format!("*/q{n}")).collect();
    let filter = filter(&patterns.iter().map(String::as_str).collect::<Vec<_>>());
    let mut reader = hub.reader(filter, 0);
    let mut turns = 1;
    {
        let mut read = std::pin::pin!(reader.read(PageSize { events: 64, bytes: 1 << 16 }));
        let mut cx = Context::from_waker(Waker::noop());
        while read.as_mut().poll(&mut cx).is_pending() {
            turns += 1;
        }
    }
    assert_eq!(reader.position(), 6000);
    assert!(turns > 5, "{turns} turns");
}
