//! One cursor over four transports: a reader that keeps changing sees every event once and in order, and is told what
//! it missed. (`core/PROTOCOL.md` sections 1 and 2.)

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex};

use longwire_tests::PATIENCE;
use longwire_tests::gateway::Gateway;
use longwire_tests::reader::{Item, Reader, Transport};
use longwire_tests::rng::Rng;
use longwire_tests::ws::Socket;
use serde_json::{Value, json};

const PUBLISHERS: usize = 4;
const EVENTS_EACH: usize = 2_500;
const EVENTS: usize = PUBLISHERS * EVENTS_EACH;
const CHANGES: usize = 20;
/// How far the publishers run ahead of the reader: enough that several events are always under way, and well within
/// what the log keeps. So the publishing lasts as long as the changing does.
const AHEAD: usize = 400;

/// Counts what was published and what was read, and holds publishers back.
#[derive(Default)]
struct Gate {
    /// Published, read.
    counts: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Gate {
    fn publish(&self) {
        let counts = self.counts.lock().expect("no panic while locked");
        let (mut counts, timeout) = self
            .changed
            .wait_timeout_while(counts, PATIENCE, |(published, read)| *published >= *read + AHEAD)
            .expect("no panic while locked");
        assert!(!timeout.timed_out(), "the reader stands still at {counts:?}");
        counts.0 += 1;
    }

    fn read(&self) {
        self.counts.lock().expect("no panic while locked").1 += 1;
        self.changed.notify_all();
    }
}

#[test]
fn a_reader_that_changes_transport_twenty_times_sees_every_event_once_and_in_order() {
    let mut rng = Rng::from_env();
    let gateway = Gateway::start();
    let start = gateway.publish("load/start", &Value::Null);
    let gate = Gate::default();

    let (seen, witnessed) = std::thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let (gateway, gate) = (&gateway, &gate);
            scope.spawn(move || {
                publish(gateway, &format!("load/{publisher}"), EVENTS_EACH, || gate.publish())
            });
        }
        // A second reader that stays on one connection says what the order is.
        let witness = scope.spawn(|| {
            let mut witness = Reader::new(gateway.address, "load/*", &start);
            read_events(&mut witness, Transport::WebSocket, EVENTS, || ())
        });

        let mut reader = Reader::new(gateway.address, "load/*", &start);
        let mut seen = Vec::new();
        let mut transport = Transport::WebSocket;
        for stop in stops(&mut rng) {
            let count = stop - seen.len();
            seen.extend(read_events(&mut reader, transport, count, || gate.read()));
            let others = Transport::ALL.map(|other| (other != transport).then_some(other));
            let others: Vec<_> = others.into_iter().flatten().collect();
            transport = others[rng.below(others.len() as u64) as usize];
        }
        (seen, witness.join().expect("the witness"))
    });

    assert_eq!(seen.len(), EVENTS);
    let different = seen.iter().zip(&witnessed).position(|(a, b)| a != b);
    assert_eq!(different, None, "{:?}", different.map(|i| (&seen[i], &witnessed[i])));
    let positions: Vec<_> = seen.iter().map(|event| seq(&event.1)).collect();
    assert!(positions.is_sorted_by(|a, b| a < b), "positions increase strictly");
    for publisher in 0..PUBLISHERS {
        let topic = format!("load/{publisher}");
        let numbers = seen.iter().filter(|event| event.0 == topic).map(|event| event.2.as_u64());
        assert!(
            numbers.eq((0..EVENTS_EACH as u64).map(Some)),
            "what {topic} published, once each and in its order"
        );
    }
}

/// Where the reader changes: twenty places at random, and the end.
fn stops(rng: &mut Rng) -> BTreeSet<usize> {
    let mut stops = BTreeSet::from([EVENTS]);
    while stops.len() <= CHANGES {
        stops.insert(1 + rng.below(EVENTS as u64 - 1) as usize);
    }
    stops
}

#[test]
fn a_reader_that_stays_away_longer_than_the_history_gets_a_gap_with_the_right_bounds() {
    const HISTORY: usize = 50;
    const PUBLISHED: usize = 200;
    let gateway = Gateway::start_with(&["--history-events", "50", "--tail-events", "50"]);
    let start = gateway.publish("away/start", &Value::Null);
    // Read while it is published, so that the positions of what is lost later are known.
    let all = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reader = Reader::new(gateway.address, "away/*", &start);
            read_events(&mut reader, Transport::WebSocket, PUBLISHED, || ())
        });
        for number in 0..PUBLISHED {
            gateway.publish("away/events", &json!(number));
        }
        reader.join().expect("the reader")
    });

    for transport in Transport::ALL {
        let mut items = Vec::new();
        Reader::new(gateway.address, "away/*", &start).read(transport, |item| {
            let last = matches!(&item, Item::Event { at, .. } if *at == all[PUBLISHED - 1].1);
            items.push(item);
            if last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let Some(Item::Gap { from, to, reason }) = items.first() else {
            panic!("{transport:?}: {:?} instead of a gap", items.first());
        };
        assert_eq!((from, reason.as_str()), (&start, "evicted"), "{transport:?}");
        let kept = items[1..].iter().map(event).collect::<Vec<_>>();
        assert!(kept.len() >= HISTORY, "{transport:?}: the history holds {HISTORY}, {} came", kept.len());
        let (lost, held) = all.split_at(PUBLISHED - kept.len());
        assert_eq!(kept, held, "{transport:?}: whatever comes after the gap is complete");
        let to = seq(to);
        assert!(
            lost.iter().all(|event| seq(&event.1) <= to),
            "{transport:?}: the gap covers all that is missing"
        );
        assert!(held.iter().all(|event| to < seq(&event.1)), "{transport:?}: and nothing that is not");
        assert!(!lost.is_empty());
    }
}

#[test]
fn a_cursor_of_another_epoch_or_ahead_of_the_log_gets_a_reset_and_then_the_state() {
    let gateway = Gateway::start();
    for (topic, number) in [("state/a", 1), ("state/b", 2), ("state/a", 3)] {
        gateway.publish(topic, &json!(number));
    }
    let head = gateway.publish("other", &Value::Null);
    let (epoch, seq) = head.split_once('-').expect("a cursor");
    let ahead = format!("{epoch}-{}", seq.parse::<u64>().expect("digits") + 1000);
    let digit = if epoch.starts_with('0') { "1" } else { "0" };
    let elsewhere = format!("{digit}{}-{seq}", &epoch[1..]);

    for cursor in [ahead, elsewhere] {
        for transport in Transport::ALL {
            let mut items = Vec::new();
            Reader::new(gateway.address, "state/*", &cursor).read(transport, |item| {
                items.push(item);
                if items.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            let gap = Item::Gap { from: cursor.clone(), to: head.clone(), reason: "reset".to_owned() };
            assert_eq!(items[0], gap, "{transport:?}");
            let mut state: Vec<_> =
                items[1..].iter().map(event).map(|(topic, _, data)| (topic, data)).collect();
            state.sort_by(|a, b| a.0.cmp(&b.0));
            assert_eq!(
                state,
                [("state/a".to_owned(), json!(3)), ("state/b".to_owned(), json!(2))],
                "{transport:?}"
            );
        }
    }
}

/// Topic, position, value.
type Event = (String, String, Value);

fn event(item: &Item) -> Event {
    match item {
        Item::Event { topic, at, data } => (topic.clone(), at.clone(), data.clone()),
        gap @ Item::Gap { .. } => panic!("{gap:?}"),
    }
}

/// Reads so many events over one connection; a gap fails the test.
fn read_events(reader: &mut Reader, transport: Transport, count: usize, mut one: impl FnMut()) -> Vec<Event> {
    let mut events = Vec::with_capacity(count);
    reader.read(transport, |item| {
        events.push(event(&item));
        one();
        if events.len() == count { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    events
}

/// Publishes the numbers below `count` over one WebSocket, until all are acknowledged.
fn publish(gateway: &Gateway, topic: &str, count: usize, before_each: impl Fn()) {
    let mut socket = Socket::open(gateway.address, "/v1/stream", &[]).expect("101");
    let hello = socket.envelope_of(&["hello"]);
    let in_flight = hello["limits"]["max_inflight"].as_u64().expect("section 10").min(32);
    let mut taken = 0;
    for n in 1..=count as u64 {
        before_each();
        socket.send_json(&json!({"type": "pub", "n": n, "topic": topic, "data": n - 1}));
        while n - taken >= in_flight || (n == count as u64 && taken < n) {
            let ack = socket.envelope_of(&["ack", "nack", "error", "bye"]);
            assert_eq!(ack["type"], "ack", "{ack}");
            taken = ack["n"].as_u64().expect("n");
        }
    }
}

/// The position in a cursor. (A reader treats it as opaque; a test of the server need not.)
fn seq(cursor: &str) -> u64 {
    cursor.split_once('-').and_then(|(_, seq)| seq.parse().ok()).expect("section 2")
}
