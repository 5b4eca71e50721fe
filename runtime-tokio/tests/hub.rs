//! The hub over real sockets: live delivery, resume, gaps, slow readers, order.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, and that is what it is for"
)]

use longwire::hub::{Adoption, Data, Filter, Grant, Hub, HubConfig, LogConfig, Open, Protocol, Socket};
use longwire_core::buf::{RxBuf, RxCursor};
use longwire_core::log::{Key, Pattern, Since, Topic};
use longwire_core::session::{Event, Gap, GapReason, Position, ServerMessage, json};
use longwire_core::sse::{Decoder, Step};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What a reader saw, as short as a test wants to compare it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Hello,
    At(String, u64, String),
    Past(String, u64, String),
    CaughtUp(u64),
    Gap(u64, u64, GapReason),
    Tick(u64),
    Bye(String),
}

/// A reader over SSE: the simplest client that there is.
struct Reader {
    socket: TcpStream,
    decoder: Decoder,
    buffer: Vec<u8>,
    cursor: RxCursor,
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn filter(patterns: &[&str]) -> Filter {
    patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect()
}

impl Reader {
    fn new(hub: &Hub, patterns: &[&str], since: Since) -> Self {
        let (client, server) = pair();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        hub.adopt(Adoption {
            subscription: Some((filter(patterns), since)),
            ..Adoption::new(Socket::Tcp(server), Protocol::Sse, Grant::open())
        });
        let decoder = Decoder::new(1 << 20);
        Self { socket: client, decoder, buffer: vec![0; (1 << 20) + 1024], cursor: RxCursor::default() }
    }

    fn next(&mut self) -> Option<Seen> {
        loop {
            let mut rx = RxBuf::new(&mut self.buffer, &mut self.cursor);
            match self.decoder.poll(&mut rx).unwrap() {
                Step::Event => {
                    let event = self.decoder.event(rx);
                    match json::decode_server(event.data).unwrap() {
                        // Readers that are slow have tests of their own.
                        ServerMessage::Pressure(_) => {}
                        message => return Some(seen(&message)),
                    }
                }
                Step::NeedInput => {
                    let n = self.socket.read(rx.spare_mut()).unwrap();
                    if n == 0 {
                        return None;
                    }
                    rx.commit(n);
                }
                Step::NeedSpace => panic!("an event above a megabyte"),
            }
        }
    }

    fn take(&mut self, n: usize) -> Vec<Seen> {
        (0..n).map(|_| self.next().unwrap()).collect()
    }

    /// Reads until the subscription has begun.
    fn ready(mut self) -> Self {
        while !matches!(self.next(), Some(Seen::CaughtUp(_))) {}
        self
    }
}

fn seen(message: &ServerMessage<'_>) -> Seen {
    match message {
        ServerMessage::Hello { .. } => Seen::Hello,
        ServerMessage::Event(Event { topic, position, data, .. }) => {
            let longwire_core::session::Data::Json(data) = data else { panic!("not JSON") };
            let (topic, data) = (topic.chars().collect(), String::from_utf8_lossy(data).into_owned());
            match position {
                Position::At(cursor) => Seen::At(topic, cursor.seq, data),
                Position::Past(cursor) => Seen::Past(topic, cursor.seq, data),
            }
        }
        ServerMessage::CaughtUp { at, .. } => Seen::CaughtUp(at.seq),
        ServerMessage::Gap(Gap { from, to, reason, .. }) => Seen::Gap(from.seq, to.seq, *reason),
        ServerMessage::Tick { at } => Seen::Tick(at.seq),
        ServerMessage::Bye { refusal, .. } => Seen::Bye(refusal.code.chars().collect()),
        other => panic!("{other:?}"),
    }
}

fn at(topic: &str, seq: u64, data: &str) -> Seen {
    Seen::At(topic.into(), seq, data.into())
}

fn past(topic: &str, seq: u64, data: &str) -> Seen {
    Seen::Past(topic.into(), seq, data.into())
}

fn hub(change: impl FnOnce(&mut HubConfig)) -> Arc<Hub> {
    let mut config = HubConfig { shards: 2, ..HubConfig::default() };
    change(&mut config);
    Hub::start(config, Arc::new(Open)).unwrap()
}

fn publish(hub: &Hub, topic: &str, data: &str) -> u64 {
    publish_key(hub, topic, None, data)
}

fn publish_key(hub: &Hub, topic: &str, key: Option<&str>, data: &str) -> u64 {
    let topic = Topic::parse(topic).unwrap();
    let key = key.map(|key| Key::parse(key).unwrap());
    let data = Data::json(data.as_bytes()).unwrap();
    let published = hub.publish(topic, key, data);
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(published).unwrap().seq
}

#[test]
fn a_live_reader_gets_what_matches_in_order() {
    let hub = hub(|_| {});
    let mut all = Reader::new(&hub, &["**"], Since::Now).ready();
    let mut one = Reader::new(&hub, &["a/*", "a/b", "a/**"], Since::Now).ready();
    publish(&hub, "a/b", "1");
    publish(&hub, "c", "2");
    publish(&hub, "a/b/c", "3");
    assert_eq!(all.take(3), [at("a/b", 1, "1"), at("c", 2, "2"), at("a/b/c", 3, "3")]);
    // Overlapping patterns deliver once.
    assert_eq!(one.take(2), [at("a/b", 1, "1"), at("a/b/c", 3, "3")]);
}

#[test]
fn a_reader_resumes_where_it_stopped() {
    let hub = hub(|_| {});
    for n in 1..=10 {
        publish(&hub, "a", &n.to_string());
    }
    let mut reader = Reader::new(&hub, &["a"], Since::Cursor(hub.log().cursor(7)));
    assert_eq!(
        reader.take(5),
        [Seen::Hello, at("a", 8, "8"), at("a", 9, "9"), at("a", 10, "10"), Seen::CaughtUp(10)]
    );
    publish(&hub, "a", "11");
    assert_eq!(reader.next(), Some(at("a", 11, "11")));
}

#[test]
fn the_state_is_the_latest_of_each_topic_and_key_and_is_not_resumable() {
    let hub = hub(|_| {});
    publish_key(&hub, "a", Some("x"), "1");
    publish_key(&hub, "a", Some("y"), "2");
    publish_key(&hub, "a", Some("x"), "3");
    publish(&hub, "b", "4");
    publish(&hub, "a", "5");
    let mut reader = Reader::new(&hub, &["a"], Since::Latest);
    assert_eq!(
        reader.take(5),
        [Seen::Hello, past("a", 2, "2"), past("a", 3, "3"), past("a", 5, "5"), Seen::CaughtUp(5)]
    );
}

#[test]
fn a_reader_that_stayed_away_too_long_is_told_the_gap_exactly() {
    let hub = hub(|c| c.log = LogConfig { tail_events: 4, history_events: 3, ..LogConfig::default() });
    for n in 1..=9 {
        publish(&hub, "noisy", &n.to_string());
    }
    publish(&hub, "quiet", "10");
    for n in 11..=20 {
        publish(&hub, "noisy", &n.to_string());
    }
    // Of the noisy topic 17 (in the tail) and what follows is held; the quiet one lost nothing by it.
    let mut reader = Reader::new(&hub, &["noisy", "quiet"], Since::Cursor(hub.log().cursor(5)));
    assert_eq!(reader.take(3), [Seen::Hello, Seen::Gap(5, 16, GapReason::Evicted), at("quiet", 10, "10")]);
    assert_eq!(reader.take(2), [at("noisy", 17, "17"), at("noisy", 18, "18")]);
    // 6 to 9 and 11 to 16 of the noisy topic.
    assert_eq!(hub.counters().skipped_evicted.load(Ordering::Relaxed), 10);
    let mut quiet = Reader::new(&hub, &["quiet"], Since::Cursor(hub.log().cursor(5)));
    assert_eq!(quiet.take(3), [Seen::Hello, at("quiet", 10, "10"), Seen::CaughtUp(20)]);
}

#[test]
fn a_quiet_log_drops_what_is_too_old_by_itself() {
    let soon = Duration::from_millis(1);
    let hub = hub(|c| {
        c.log = LogConfig { tail_age: soon, history_age: soon, latest_age: soon, ..LogConfig::default() }
    });
    publish(&hub, "a", "1");
    publish(&hub, "b", "2");
    let end = Instant::now() + Duration::from_secs(60);
    let stats = loop {
        let stats = hub.log().stats();
        if stats.history_events == 0 || Instant::now() > end {
            break stats;
        }
        std::thread::yield_now();
    };
    // The newest stays in the tail, and its topic with it.
    assert_eq!((stats.history_events, stats.keys, stats.tail_events, stats.topics), (0, 0, 1, 1));
}

#[test]
fn a_cursor_of_another_log_or_ahead_of_it_is_reset() {
    let hub = hub(|_| {});
    publish(&hub, "a", "1");
    publish(&hub, "a", "2");
    let mut ahead = hub.log().cursor(3);
    for _ in 0..2 {
        let mut reader = Reader::new(&hub, &["a"], Since::Cursor(ahead));
        let gap = Seen::Gap(ahead.seq, 2, GapReason::Reset);
        assert_eq!(reader.take(4), [Seen::Hello, gap, past("a", 2, "2"), Seen::CaughtUp(2)]);
        ahead = longwire_core::log::Cursor { epoch: !ahead.epoch, seq: 1 };
    }
}

#[test]
fn a_reader_that_does_not_read_goes_on_from_its_position_and_loses_only_what_the_log_lost() {
    let hub = hub(|c| c.log = LogConfig { tail_events: 64, history_events: 500, ..LogConfig::default() });
    let mut slow = Reader::new(&hub, &["a"], Since::Now).ready();
    let mut fast = Reader::new(&hub, &["a"], Since::Now).ready();
    let body = format!("\"{}\"", "x".repeat(20_000));
    let total = 2_000;
    for n in 1..=total {
        assert_eq!(publish(&hub, "a", &body), n);
        assert!(fast.next() == Some(at("a", n, &body)), "the fast reader is held up at {n}");
    }
    // 40 MB were published; the kernel holds a part of the first, the log the last 500.
    let (mut last, mut gaps, mut got) = (0, 0, 0);
    while last < total {
        match slow.next().unwrap() {
            Seen::At(_, seq, _) => {
                assert_eq!(seq, last + 1);
                (last, got) = (seq, got + 1);
            }
            Seen::Gap(from, to, GapReason::Slow) => {
                assert_eq!(from, last, "a gap begins where the reader is");
                (last, gaps) = (to, gaps + to - from);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got + gaps, total);
    assert!(gaps > 0 && got >= 500, "{got} events, {gaps} told as missing");
}

#[test]
fn four_publishers_and_every_reader_sees_one_order() {
    let hub = hub(|_| {});
    let mut readers: Vec<Reader> = (0..8).map(|_| Reader::new(&hub, &["p/*"], Since::Now).ready()).collect();
    let publishers: Vec<_> = (0..4)
        .map(|p| {
            let hub = Arc::clone(&hub);
            std::thread::spawn(move || {
                for n in 0..500 {
                    publish(&hub, &format!("p/{p}"), &n.to_string());
                }
            })
        })
        .collect();
    let first = readers[0].take(2000);
    for (seq, seen) in (1..).zip(&first) {
        assert!(matches!(seen, Seen::At(_, at, _) if *at == seq), "{seen:?} is not at {seq}");
    }
    for reader in &mut readers[1..] {
        assert_eq!(reader.take(2000), first);
    }
    publishers.into_iter().for_each(|p| p.join().unwrap());
}

#[test]
fn quiet_readers_get_ticks_that_move_their_cursor() {
    let hub = hub(|c| c.heartbeat = Duration::from_millis(50));
    let mut reader = Reader::new(&hub, &["a"], Since::Now).ready();
    publish(&hub, "b", "1");
    publish(&hub, "b", "2");
    while reader.next() != Some(Seen::Tick(2)) {}
}

#[test]
fn a_hub_that_closes_says_bye_and_ends() {
    let hub = hub(|_| {});
    let mut readers: Vec<Reader> = (0..20).map(|_| Reader::new(&hub, &["a"], Since::Now).ready()).collect();
    let closing = {
        let hub = Arc::clone(&hub);
        std::thread::spawn(move || hub.close(Duration::from_secs(1), Duration::from_secs(5)))
    };
    for reader in &mut readers {
        assert_eq!(reader.next(), Some(Seen::Bye("draining".into())));
        assert_eq!(reader.next(), None);
    }
    drop(readers);
    closing.join().unwrap();
    assert_eq!(hub.counters().sse.load(Ordering::Relaxed), 0);
}

#[test]
fn a_grant_that_ends_ends_the_stream() {
    let hub = hub(|config| config.reconnect_window = Duration::ZERO);
    let (client, server) = pair();
    let expires = tokio::time::Instant::now() + Duration::from_millis(50);
    hub.adopt(Adoption {
        head: b"HEAD".to_vec(),
        subscription: Some((filter(&["a"]), Since::Now)),
        ..Adoption::new(Socket::Tcp(server), Protocol::Sse, Grant { expires: Some(expires), ..Grant::open() })
    });
    let mut text = String::new();
    (&client).read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HEADretry: 2000\n\nevent: hello\n"), "{text}");
    assert!(text.contains(r#"{"type":"bye","code":"unauthorized""#), "{text}");
}
