//! Under a storm: nothing is lost, nothing comes twice, nobody waits for ever.

use crate::client::*;
use longwire::hub::{Hub, PageSize, Reader, Socket};
use longwire_core::log::{Since, Topic};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const TOPICS: [&str; 5] = ["a", "b", "a/x", "c/y/z", "d"];
const PATTERNS: [&str; 9] = ["a", "b", "a/*", "a/**", "**", "c/**", "*/*/z", "d", "*"];
const PAGE: PageSize = PageSize { events: 7, bytes: 1 << 20 };

type Published = BTreeMap<u64, &'static str>;

/// Publishes to random topics from several threads at once, each until it has published `each` or `over` is set, and
/// returns which position has which topic.
fn storm(
    hub: &Arc<Hub>,
    rng: &mut StdRng,
    publishers: usize,
    each: usize,
    over: &Arc<AtomicBool>,
) -> JoinHandle<Published> {
    let start = Arc::new(Barrier::new(publishers));
    let publisher = |_| {
        let (hub, start, over) = (Arc::clone(hub), Arc::clone(&start), Arc::clone(over));
        let mut rng = StdRng::seed_from_u64(rng.random());
        thread::spawn(move || {
            let mut published = Vec::new();
            start.wait();
            while published.len() < each && !over.load(Relaxed) {
                let topic = pick(&mut rng, &TOPICS);
                published.push((publish(&hub, topic, "1"), topic));
                // In gusts, so that there is a time to catch up in.
                if rng.random_bool(0.02) {
                    thread::sleep(Duration::from_micros(rng.random_range(0..2000)));
                }
            }
            published
        })
    };
    let threads: Vec<_> = (0..publishers).map(publisher).collect();
    thread::spawn(move || threads.into_iter().flat_map(|publisher| publisher.join().unwrap()).collect())
}

/// Watches that match everything and that nobody looks after: a shard passes by them, and so gives its connections
/// a turn in the middle of a window.
fn crowd(hub: &Hub) -> Vec<Reader> {
    let mut readers: Vec<Reader> = (0..300).map(|_| hub.reader(filter(&["**"]), hub.log().head())).collect();
    block_on(async {
        for reader in &mut readers {
            tokio::select! {
                biased;
                _ = reader.next(PAGE) => panic!("nothing was published"),
                () = std::future::ready(()) => {}
            }
        }
    });
    readers
}

/// One connection subscribes and unsubscribes at random. For each pattern the hub says from which position to which
/// it held: the events in between have to come, each once, in order, and no others.
fn at_random(
    hub: &Arc<Hub>,
    mut client: Client<impl std::io::Read + std::io::Write>,
    rng: &mut StdRng,
    rounds: usize,
) {
    let over = Arc::default();
    let publishing = storm(hub, rng, 3, 20_000, &over);
    let mut asked: BTreeMap<u32, (bool, &str)> = BTreeMap::new();
    let mut holds: BTreeMap<&str, u64> = BTreeMap::new();
    // Pattern, after, until.
    let mut held: Vec<(&str, u64, u64)> = Vec::new();
    let (mut got, mut past) = (Vec::new(), Vec::new());
    let mut id = 0;
    for round in 0..=rounds {
        // Some questions at once, then their answers; at last everything goes.
        let last = round == rounds;
        let patterns: Vec<&str> = match last {
            true => PATTERNS.to_vec(),
            false => (0..rng.random_range(1..4)).map(|_| pick(rng, &PATTERNS)).collect(),
        };
        for pattern in patterns {
            id += 1;
            let adds = !last && (id == 1 || rng.random_bool(0.6));
            asked.insert(id, (adds, pattern));
            match adds {
                // The first may not be older: its events would be live.
                true if id > 1 && rng.random_bool(0.3) => {
                    let from = rng.random_range(0..=hub.log().head());
                    client.sub(id, Since::Cursor(hub.log().cursor(from)), &[pattern]);
                }
                true if id > 1 && rng.random_bool(0.1) => client.sub(id, Since::Latest, &[pattern]),
                true => client.sub(id, Since::Now, &[pattern]),
                false => client.unsub(id, &[pattern]),
            }
        }
        while !asked.is_empty() {
            match client.must() {
                Seen::Event { at: At::Live(seq), topic, .. } => got.push((seq, topic)),
                Seen::Event { at: At::Past(seq), topic, .. } => past.push((seq, topic)),
                Seen::CaughtUp(at, Some(id)) => {
                    let (adds, pattern) = asked.remove(&id).unwrap();
                    if adds {
                        holds.entry(pattern).or_insert(at);
                    } else if let Some(from) = holds.remove(pattern) {
                        held.push((pattern, from, at));
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    over.store(true, Relaxed);
    let published = publishing.join().unwrap();
    assert!(holds.is_empty());
    println!("{} live events, {} past, {} subscriptions", got.len(), past.len(), held.len());
    assert!(past.iter().all(|(seq, topic)| published.get(seq) == Some(&topic.as_str())));
    check(&published, &held, got);
}

/// Whether what was live is what the subscriptions held for, in order, each once.
fn check(published: &Published, held: &[(&str, u64, u64)], got: Vec<(u64, String)>) {
    let matches = |pattern: &str, topic: &str| {
        longwire_core::log::Pattern::parse(pattern).unwrap().matches(Topic::parse(topic).unwrap())
    };
    let want: BTreeSet<(u64, String)> = published
        .iter()
        .filter(|(seq, topic)| {
            held.iter().any(|(pattern, from, to)| from < *seq && *seq <= to && matches(pattern, topic))
        })
        .map(|(seq, topic)| (*seq, (*topic).into()))
        .collect();
    assert!(got.is_sorted_by(|a, b| a.0 < b.0), "out of order or twice");
    let got = BTreeSet::from_iter(got);
    assert_eq!(
        want.difference(&got).next(),
        None,
        "of {} events in {} subscriptions",
        want.len(),
        held.len()
    );
    assert_eq!(got.difference(&want).next(), None, "nobody subscribed to that");
}

#[test]
fn a_reader_that_subscribes_at_random_gets_exactly_what_it_subscribed_to() {
    let mut rng = seeded("subscribes at random");
    for form in FORMS {
        let hub = hub(|c| c.log = tail(1 << 14));
        let crowd = crowd(&hub);
        let client = Client::open(&hub, form);
        at_random(&hub, client, &mut rng, 80);
        drop(crowd);
    }
}

#[test]
fn the_same_when_the_tail_is_short_and_reads_go_to_the_history() {
    let mut rng = seeded("short tail");
    for events in [1, 2, 8] {
        let hub = hub(|c| c.log = tail(events));
        let crowd = crowd(&hub);
        let client = Client::open(&hub, Form::Json);
        at_random(&hub, client, &mut rng, 60);
        drop(crowd);
    }
}

#[test]
fn the_same_over_a_stream_that_is_not_ours() {
    let mut rng = seeded("foreign stream");
    let hub = hub(|c| c.log = tail(64));
    let crowd = crowd(&hub);
    // Room for the questions of one round, and for a few events.
    let (stream, server) = tokio::io::duplex(512);
    hub.adopt(adoption(Socket::Stream(Box::new(server)), Form::Json));
    let mut client = Client::over(Blocking::new(stream), &hub, Form::Json);
    assert_eq!(client.must(), Seen::Hello { lease: false });
    at_random(&hub, client, &mut rng, 60);
    drop(crowd);
}

#[test]
fn publishers_faster_than_the_shards_are_held_up_and_never_stopped() {
    let mut rng = seeded("fast publishers");
    for (events, shards) in [(1, 1), (2, 2), (8, 1), (8, 4), (64, 2)] {
        let hub = hub(|c| (c.shards, c.log) = (shards, tail(events)));
        let mut readers: Vec<_> = (0..6).map(|_| Client::open(&hub, Form::Json)).collect();
        readers.iter_mut().for_each(|reader| reader.subscribed(&["**"]));
        let publishing = storm(&hub, &mut rng, 4, 1000, &Arc::default());
        for reader in &mut readers {
            for seq in 1..=4000 {
                let seen = reader.must();
                assert_eq!(live(&seen).map(|(at, _)| at), Some(seq), "{seen:?}");
            }
        }
        assert_eq!(ends("publishing", move || publishing.join().unwrap().len()), 4000);
    }
}

#[test]
fn connections_that_publish_what_they_read_never_stop() {
    for (events, shards, connections) in [(1, 1, 1), (8, 1, 1), (8, 1, 6), (8, 2, 6), (1024, 2, 4)] {
        let hub = hub(|c| (c.shards, c.log) = (shards, tail(events)));
        let mut clients: Vec<_> = (0..connections).map(|_| Client::open(&hub, Form::Cbor)).collect();
        clients.iter_mut().for_each(|client| client.subscribed(&["t"]));
        let each = 3000 / connections;
        let total = each * connections;
        let threads: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                let mut writer = client.other_half();
                let writing = thread::spawn(move || {
                    let wire: Vec<Vec<u8>> = (1..=each).map(|n| writer.publication(n, "t")).collect();
                    wire.chunks(200).for_each(|some| writer.write(&some.concat()));
                });
                thread::spawn(move || {
                    let (mut acked, mut seq) = (0, 0);
                    while acked < each || seq < total {
                        match client.must() {
                            Seen::Ack(n) => {
                                assert!(n > acked);
                                acked = n;
                            }
                            seen => {
                                seq += 1;
                                assert_eq!(live(&seen), Some((seq, "t")), "{seen:?}");
                            }
                        }
                    }
                    writing.join().unwrap();
                })
            })
            .collect();
        ends("publishing to oneself", move || threads.into_iter().for_each(|t| t.join().unwrap()));
        assert_eq!(hub.log().head(), total);
    }
}

/// A reader outside of the shards, whose waiting is cut short at random.
#[test]
fn a_reader_that_is_woken_misses_nothing_whenever_it_is_dropped() {
    let mut rng = seeded("woken reader");
    for (events, shards) in [(4, 1), (1 << 14, 2)] {
        let hub = hub(|c| (c.shards, c.log) = (shards, tail(events)));
        let each = 3000;
        let total = 4 * each as u64;
        let mut readers = Vec::new();
        for _ in 0..3 {
            let (hub, mut rng) = (Arc::clone(&hub), StdRng::seed_from_u64(rng.random()));
            readers.push(thread::spawn(move || {
                let mut got: Vec<u64> = Vec::new();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                let mut reader = hub.reader(filter(&["a", "a/*"]), 0);
                while got.last() != Some(&total) {
                    if rng.random_bool(0.05) {
                        // Another one goes on from there.
                        reader = hub.reader(filter(&["a", "a/*"]), reader.position());
                    }
                    let wait = Duration::from_micros(rng.random_range(0..500));
                    // Behind the storm nobody cuts it short: who was not woken stays here.
                    let patient = hub.log().head() == total;
                    let wait = if patient { PATIENCE } else { wait };
                    let at_once = !patient && rng.random_bool(0.5);
                    let page = runtime.block_on(async {
                        tokio::select! {
                            biased;
                            page = reader.next(PAGE) => Some(page),
                            () = tokio::task::yield_now(), if at_once => None,
                            () = tokio::time::sleep(wait) => None,
                        }
                    });
                    let Some(page) = page else {
                        assert!(!patient, "it was not woken at {}", reader.position());
                        continue;
                    };
                    assert_eq!(page.gap, None);
                    got.extend(page.records.iter().map(|record| record.event().seq));
                }
                got
            }));
        }
        let published = storm(&hub, &mut rng, 4, each - 1, &Arc::default());
        let mut published = published.join().unwrap();
        // The last events match, so that every reader has something to wait for.
        for _ in 0..4 {
            published.insert(publish(&hub, "a", "0"), "a");
        }
        let want: Vec<u64> =
            published.iter().filter(|(_, topic)| ["a", "a/x"].contains(topic)).map(|(seq, _)| *seq).collect();
        for reader in readers {
            let got = ends("a reader", move || reader.join().unwrap());
            assert_eq!(got.iter().find(|seq| !want.contains(seq)), None);
            assert_eq!(want.iter().find(|seq| !got.contains(seq)), None);
            assert!(got.is_sorted_by(|a, b| a < b));
        }
        assert_eq!(hub.counters().waiting.load(Relaxed), 0);
    }
}

/// Waits for each event as it comes, with nothing else to wake it: a wake-up that is lost stops it for good.
#[test]
fn a_reader_that_waits_is_woken_by_every_event() {
    for events in [1, 2, 1 << 14] {
        let hub = hub(|c| (c.shards, c.log) = (2, tail(events)));
        let (told, rounds) = std::sync::mpsc::sync_channel(0);
        let mut reader = hub.reader(filter(&["a"]), 0);
        let reading = thread::spawn(move || {
            for seq in 1.. {
                let page = block_on(reader.next(PageSize { events: 1, bytes: 1 }));
                assert!(
                    page.records.iter().map(|record| record.event().data.len()).eq([1]),
                    "{seq}: {page:?}"
                );
                if told.send(()).is_err() {
                    break;
                }
            }
        });
        for _ in 0..500 {
            publish(&hub, "a", "1");
            publish(&hub, "b", "1");
            rounds.recv_timeout(PATIENCE).unwrap();
        }
        drop(rounds);
        publish(&hub, "a", "1");
        reading.join().unwrap();
    }
}

/// Each reader leaves word with a shard when its event comes: that may be before, while, or after the shard reads it.
#[test]
fn a_reader_misses_nothing_while_it_begins_to_wait() {
    let hub = hub(|c| c.shards = 2);
    let begun = Arc::new(AtomicU64::new(0));
    let reading = {
        let (hub, begun) = (Arc::clone(&hub), Arc::clone(&begun));
        thread::spawn(move || {
            for seq in 0..3000 {
                let mut reader = hub.reader(filter(&["a"]), seq);
                let page = block_on(async {
                    let mut next = std::pin::pin!(reader.next(PAGE));
                    tokio::select! {
                        biased;
                        _ = &mut next => panic!("nothing was published"),
                        () = std::future::ready(()) => begun.store(seq + 1, Relaxed),
                    }
                    next.await
                });
                assert_eq!(page.next, seq + 1);
            }
        })
    };
    for seq in 1..=3000 {
        wait_until(|| begun.load(Relaxed) == seq || reading.is_finished());
        publish(&hub, "a", "1");
    }
    ends("the reader", move || reading.join().unwrap());
}
