//! Below the messages: how the wire is cut, silence, floods, and the end of a connection.

use crate::client::*;
use longwire::hub::{Data, Hub, Protocol, Socket};
use longwire_core::log::{QuotaConfig, Since, Topic};
use longwire_core::session::ClientMessage;
use longwire_core::ws::OpCode;
use longwire_core::ws::deflate::{self, Agreed};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A conversation with one of everything, and what has to come of it whatever the cuts.
fn conversation(client: &Client<impl Read + Write>) -> Vec<u8> {
    let message = |text: &str| frame(OpCode::Text, text.as_bytes());
    let mut fragments = message(r#"{"type":"pub","n":2,"topic":"b","data":{"x":["#);
    fragments[0] = 0x01;
    let mut last = message(r#"1,"é"]}}"#);
    last[0] = 0x80;
    [
        message(r#"{"type":"sub","id":1,"topics":["a"]}"#),
        message(r#"{"type":"pub","n":1,"topic":"b","data":1}"#),
        fragments,
        frame(OpCode::Pong, b"!"),
        last,
        client.message(&ClientMessage::Unsub { id: Some(2), topics: (&["a"][..]).into() }),
        message("[]"),
        message(r#"{"type":"pub","n":3,"topic":"a//","data":1}"#),
        frame(OpCode::Close, b"\x03\xe8"),
    ]
    .concat()
}

/// Answers may come in another order than the questions: those of subscriptions stand in line with events.
fn check(client: &mut Client<impl Read + Write>, hub: &Hub, head: &mut u64) {
    let (seen, end) = client.end();
    let acks: Vec<u64> =
        seen.iter().filter_map(|s| if let Seen::Ack(n) = s { Some(*n) } else { None }).collect();
    assert!(acks.is_sorted() && acks.last() == Some(&2), "{seen:?}");
    assert!(seen.contains(&Seen::Error("bad_message".into(), None)), "{seen:?}");
    assert!(seen.contains(&Seen::Nack(Some(3), "bad_topic".into())), "{seen:?}");
    *head += 2;
    assert_eq!((end, hub.log().head()), (End::Closed(1000), *head));
}

#[test]
fn the_wire_may_be_cut_anywhere() {
    let hub = hub(|_| {});
    let mut head = 0;
    let (stream, _) = tcp();
    let wire = conversation(&Client::over(stream, &hub, Form::Json));
    for at in 0..=wire.len() {
        // What is read behind the request's head comes before all that the socket has.
        let mut client = Client::with(&hub, Form::Json, |a| a.early = wire[..at].to_vec());
        client.write(&wire[at..]);
        check(&mut client, &hub, &mut head);
    }
}

#[test]
fn the_wire_may_come_byte_by_byte() {
    let hub = hub(|_| {});
    let mut head = 0;
    for size in [1, 2, 7, 100] {
        // The hub can read and write no more than this at once.
        let (stream, server) = tokio::io::duplex(size);
        hub.adopt(adoption(Socket::Stream(Box::new(server)), Form::Json));
        let mut client = Client::over(Blocking::new(stream), &hub, Form::Json);
        assert_eq!(client.must(), Seen::Hello { lease: false });
        // In pieces, with a look at the answers in between: neither side can hold more than the pipe.
        client.sub(1, Since::Now, &["c"]);
        assert!(matches!(client.must(), Seen::CaughtUp(_, Some(1))));
        client.publish(1, "c");
        let mut both = client.take(2);
        both.sort_by_key(|seen| live(seen).is_some());
        assert_eq!(both[0], Seen::Ack(1));
        assert!(live(&both[1]).is_some());
        head += 1;
        client.write(&frame(OpCode::Close, b"\x03\xe8"));
        assert_eq!(client.end(), (vec![], End::Closed(1000)));
        assert_eq!(hub.log().head(), head);
    }
}

#[test]
fn a_client_that_is_silent_is_given_up_and_one_that_answers_is_not() {
    let hub = hub(|c| {
        c.heartbeat = Duration::from_millis(200);
        c.heartbeat_timeout = Duration::from_millis(200);
    });
    for form in FORMS {
        let mut living = Client::open(&hub, form);
        let mut silent = Client::open(&hub, form);
        living.subscribed(&["a"]);
        silent.lives = false;
        let silence = std::thread::spawn(move || {
            let (seen, end) = silent.end();
            assert!(seen.iter().all(|seen| matches!(seen, Seen::Tick(_))) && !seen.is_empty(), "{seen:?}");
            (silent.pings, end)
        });
        // It answers Pings while it waits for ticks, and so lives for longer than the other.
        assert!(living.take(4).iter().all(|seen| matches!(seen, Seen::Tick(_))));
        assert!(living.pings > 0);
        assert_eq!(silence.join().unwrap(), (1, End::Closed(1001)));
        living.publish(1, "a");
        while live(&living.must()).is_none() {}
    }
    assert_eq!(hub.counters().timeouts.load(Relaxed), 2);
}

#[test]
fn answers_to_pings_do_not_put_off_the_tick() {
    let hub = hub(|c| c.heartbeat = Duration::from_millis(200));
    let mut client = Client::open(&hub, Form::Json);
    client.subscribed(&["a"]);
    publish(&hub, "b", "1");
    let mut pinger = client.other_half();
    // More often than any heartbeat, for as long as there is a connection.
    let pinging = std::thread::spawn(move || {
        while pinger.stream.write_all(&frame(OpCode::Ping, b"?")).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    assert_eq!(client.must(), Seen::Tick(1));
    assert!(client.pongs > 1);
    client.stream.shutdown(Shutdown::Both).unwrap();
    pinging.join().unwrap();
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let hub = hub(|c| {
        c.heartbeat = Duration::from_millis(200);
        c.heartbeat_timeout = Duration::from_millis(200);
    });
    let mut client = Client::open(&hub, Form::Json);
    client.subscribed(&["a"]);
    let body = format!("\"{}\"", "x".repeat(100_000));
    // More than the kernel holds.
    for _ in 0..200 {
        publish(&hub, "a", &body);
    }
    wait_until(|| hub.counters().websockets.load(Relaxed) == 0);
    assert_eq!(hub.counters().timeouts.load(Relaxed), 1);
}

/// Keeps the shard of the connection that it goes with, once that has ended.
struct Holds(std::sync::mpsc::Receiver<()>);

impl Drop for Holds {
    fn drop(&mut self) {
        let _ = self.0.recv();
    }
}

#[test]
fn a_publisher_that_is_not_read_while_a_shard_is_behind_lives_on() {
    let hub = hub(|c| {
        (c.shards, c.log) = (2, tail(64));
        (c.heartbeat, c.heartbeat_timeout) = (Duration::from_millis(100), Duration::from_millis(100));
    });
    let mut client = Client::open(&hub, Form::Json);
    // The next one goes to the other shard.
    let (release, held) = std::sync::mpsc::channel();
    drop(Client::with(&hub, Form::Json, |a| a.permit = Box::new(Holds(held))));
    wait_until(|| hub.counters().websockets.load(Relaxed) == 1);
    // More than that shard may be behind: what is too much waits in the socket.
    for n in 1..=64 {
        client.publish(n, "a");
    }
    let mut seen = client.take(6);
    assert!(hub.log().head() < 64, "nobody is held up");
    release.send(()).unwrap();
    while seen.last() != Some(&Seen::Ack(64)) {
        seen.push(client.must());
    }
    assert!(seen.iter().all(|seen| matches!(seen, Seen::Ack(_) | Seen::Tick(_))), "{seen:?}");
    assert_eq!(hub.counters().timeouts.load(Relaxed), 0);
}

#[test]
fn a_reader_that_takes_a_large_event_slowly_lives_as_long_as_it_takes_some() {
    let hub = hub(|c| {
        (c.heartbeat, c.heartbeat_timeout) = (Duration::from_millis(100), Duration::from_millis(100));
    });
    let (near, far) = tokio::io::duplex(4096);
    hub.adopt(adoption(Socket::Stream(Box::new(near)), Form::Json));
    let mut client = Client::over(Blocking::new(far), &hub, Form::Json);
    client.subscribed(&["a"]);
    publish(&hub, "a", &format!("\"{}\"", "x".repeat(100_000)));
    // Far longer than it may be silent, and at no moment as long without taking something.
    let mut got = 0;
    while got < 100_000 {
        std::thread::sleep(Duration::from_millis(20));
        let n = client.stream.read(&mut [0; 2000]).unwrap();
        assert_ne!(n, 0, "it was given up after {got} bytes");
        got += n;
    }
    assert_eq!((hub.counters().websockets.load(Relaxed), hub.counters().timeouts.load(Relaxed)), (1, 0));
}

#[test]
fn round_trips_are_counted_once_for_each_ping() {
    let hub = hub(|c| c.heartbeat = Duration::from_millis(100));
    let mut client = Client::open(&hub, Form::Json);
    client.subscribed(&["a"]);
    // Nobody asked for these.
    (0..100).for_each(|_| client.write(&frame(OpCode::Pong, b"?")));
    while client.pings < 3 {
        client.must();
    }
    wait_until(|| hub.counters().websocket_rtt.buckets().iter().sum::<u64>() >= 3);
    (0..100).for_each(|_| client.write(&frame(OpCode::Pong, b"?")));
    client.publish(1, "a");
    while client.must() != Seen::Ack(1) {}
    let counted = hub.counters().websocket_rtt.buckets().iter().sum::<u64>();
    assert!((3..=client.pings as u64).contains(&counted), "{counted} of {}", client.pings);
}

#[test]
fn rules_of_the_websocket_are_kept() {
    let hub = hub(|_| {});
    for (wire, code) in [
        (&b"\x81\x02{}"[..], 1002),                                  // not masked
        (b"\xc1\x80\0\0\0\0", 1002),                                 // a reserved bit
        (b"\x81\x81\0\0\0\0\xff", 1007),                             // not UTF-8
        (b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", 1009), // 2^63 - 1 bytes
        (b"\x88\x82\0\0\0\0\x03\xe8", 1000),
        (b"\x88\x80\0\0\0\0", 1005),
    ] {
        let mut client = Client::open(&hub, Form::Json);
        client.write(wire);
        assert_eq!(client.end(), (vec![], End::Closed(code)), "{wire:?}");
    }
    // The end of the stream without a Close: what was sent before it counts.
    let mut client = Client::open(&hub, Form::Json);
    client.publish(1, "a");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.end(), (vec![Seen::Ack(1)], End::Cut));
    assert_eq!(hub.log().head(), 1);
    wait_until(|| hub.counters().websockets.load(Relaxed) == 0);
    assert_eq!(hub.counters().protocol_errors.load(Relaxed), 4);
}

#[test]
fn what_an_sse_client_sends_is_thrown_away() {
    let hub = hub(|_| {});
    let (mut client, server) = tcp();
    let mut adoption = adoption(Socket::Tcp(server), Form::Json);
    adoption.protocol = Protocol::Sse;
    adoption.subscription = Some((filter(&["a"]), Since::Now));
    hub.adopt(adoption);
    client.write_all(&vec![b'x'; 10 << 20]).unwrap();
    publish(&hub, "a", "\"it lives\"");
    let mut got = String::new();
    while !got.contains("it lives") {
        let mut piece = [0; 1024];
        let n = client.read(&mut piece).unwrap();
        assert_ne!(n, 0);
        got.push_str(std::str::from_utf8(&piece[..n]).unwrap());
    }
    assert!(hub.counters().received_bytes.load(Relaxed) <= 10 << 20);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0; 1024]).unwrap(), 0);
    wait_until(|| hub.counters().sse.load(Relaxed) == 0);
}

#[test]
fn a_peer_that_sends_and_never_reads_stalls_itself() {
    let hub = hub(|c| c.heartbeat = Duration::from_secs(600));
    let mut client = Client::open(&hub, Form::Json);
    let pings = frame(OpCode::Ping, &[b'p'; 125]).repeat(500);
    client.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut taken = 0usize;
    while let Ok(n) = client.stream.write(&pings) {
        taken += n;
        assert!(taken < 1 << 30, "a gigabyte of unanswered pings was taken");
    }
    // It reads again, and everything is there: every Pong, whole, and an answer to what follows.
    let mut reader = client.other_half();
    let mut pongs = 0;
    let mut got = Vec::new();
    let total = taken / (6 + 125);
    while pongs < total {
        let mut piece = [0; 1 << 16];
        let n = reader.stream.read(&mut piece).unwrap();
        assert_ne!(n, 0);
        got.extend_from_slice(&piece[..n]);
        pongs = got.len() / 127;
    }
    assert!(got.chunks_exact(127).all(|pong| pong[..2] == [0x8a, 125] && pong[2..] == [b'p'; 125]));
}

/// 64 KiB of a publication that will be refused, compressed to about a hundred bytes.
fn bomb() -> Vec<u8> {
    let body = format!(r#"{{"type":"pub","topic":"","data":"{}"}}"#, "x".repeat(64 << 10));
    let mut small = Vec::with_capacity(1024);
    let mut compress = flate2::Compress::new(flate2::Compression::best(), false);
    compress.compress_vec(body.as_bytes(), &mut small, flate2::FlushCompress::Sync).unwrap();
    // RFC 7692 section 7.2.1.
    small.truncate(small.len() - 4);
    let mut bomb = frame(OpCode::Text, &small);
    bomb[0] |= 0x40;
    bomb
}

#[test]
fn a_flood_that_inflates_leaves_the_others_their_turns() {
    let hub = hub(|c| c.heartbeat = Duration::from_secs(600));
    let config = deflate::Config::new();
    let deflate = Some(Agreed { server: config.send, client: config.receive });
    let mut other = Client::open(&hub, Form::Json);
    let mut flooder = Client::with(&hub, Form::Json, |a| a.deflate = deflate);
    let mut writer = flooder.other_half();
    let writing = std::thread::spawn(move || while writer.stream.write_all(&bomb().repeat(1000)).is_ok() {});
    let reading =
        std::thread::spawn(move || while flooder.stream.read(&mut [0; 1 << 16]).is_ok_and(|n| n > 0) {});
    let refused = || hub.counters().refused.load(Relaxed);
    wait_until(|| refused() > 100);
    let mut meanwhile: Vec<u64> = (1..=31)
        .map(|n| {
            let before = refused();
            other.publish(n, "a");
            assert_eq!(other.next(), Some(Seen::Ack(n)));
            refused() - before
        })
        .collect();
    hub.close(Duration::ZERO, Duration::ZERO);
    writing.join().unwrap();
    reading.join().unwrap();
    meanwhile.sort_unstable();
    // One a turn, and one turn for each of the other's. It was 800 while only what is read was counted, and 60 while the
    // flooder's turns came one upon the other.
    assert!(meanwhile[15] < 20, "bombs between a publication and its acknowledgement: {meanwhile:?}");
}

#[test]
fn a_search_that_finds_nothing_leaves_the_others_their_turns() {
    // More topics than are looked at for a page, and patterns that none of them matches: more than a hundred pages.
    const TOPICS: usize = 9000;
    const SEARCHES: u32 = 2;
    let patterns: Vec<String> = (0..60).map(|n| format!("*/*/{n}")).collect();
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    let hub = hub(|c| (c.heartbeat, c.log.history_events) = (Duration::from_secs(600), 10));
    block_on(async {
        for n in 0..2 * TOPICS {
            let topic = format!("t/{}/x", n % TOPICS);
            hub.publish(Topic::parse(&topic).unwrap(), None, Data::json(b"1").unwrap()).await.unwrap();
        }
    });
    let mut other = Client::open(&hub, Form::Json);
    let mut searcher = Client::open(&hub, Form::Json);
    let begin = Since::Cursor(hub.log().cursor(0));
    for id in 1..=SEARCHES {
        searcher.sub(id, begin, &patterns);
    }
    let over = Arc::new(AtomicBool::new(false));
    let searching = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            while !matches!(searcher.must(), Seen::CaughtUp(_, Some(SEARCHES))) {}
            over.store(true, Relaxed);
        }
    });
    let mut acknowledged = 0;
    while !over.load(Relaxed) {
        acknowledged += 1;
        other.publish(acknowledged, "a");
        while other.must() != Seen::Ack(acknowledged) {}
    }
    searching.join().unwrap();
    // About one for each page, less where this thread waits for a core. While a turn had up to sixteen pages, it was one
    // for all of these.
    assert!(acknowledged > 20, "{acknowledged} publications during {SEARCHES} searches");
}

#[test]
fn a_hub_closes_whatever_its_connections_do() {
    let hub = hub(|c| (c.shards, c.log) = (2, tail(64)));
    let body = format!("\"{}\"", "x".repeat(100_000));
    let mut polite: Vec<_> = (0..4).map(|_| Client::open(&hub, Form::Json)).collect();
    polite.iter_mut().for_each(|client| client.subscribed(&["quiet"]));
    // Never read.
    let mut deaf: Vec<_> = (0..4).map(|_| Client::open(&hub, Form::Json)).collect();
    deaf.iter_mut().for_each(|client| client.subscribed(&["a"]));
    for _ in 0..100 {
        publish(&hub, "a", &body);
    }
    // Never stops to send, Close or not.
    let mut loud = Client::open(&hub, Form::Json);
    let wire = loud.publication(1, "q").repeat(1000);
    let mut sink = loud.other_half();
    let noise = std::thread::spawn(move || while loud.stream.write_all(&wire).is_ok() {});
    let listening =
        std::thread::spawn(move || while sink.stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {});
    // Nor do publishers within the program, and readers wait.
    let over = Arc::new(AtomicBool::new(false));
    let publisher = {
        let (hub, over) = (Arc::clone(&hub), Arc::clone(&over));
        std::thread::spawn(move || {
            while !over.load(Relaxed) {
                publish(&hub, "a", "1");
            }
            // Far more than the tail: nobody holds it up any more.
            (0..1000).for_each(|_| assert!(publish(&hub, "a", "1") > 0));
        })
    };
    let waiting = {
        let mut reader = hub.reader(filter(&["never"]), 0);
        std::thread::spawn(move || {
            let size = longwire::hub::PageSize { events: 1, bytes: 1 };
            block_on(async { reader.next(size).await.records.len() })
        })
    };
    wait_until(|| hub.counters().waiting.load(Relaxed) == 1);
    let closing = Arc::clone(&hub);
    ends("the hub", move || closing.close(Duration::from_secs(1), Duration::from_secs(5)));
    for client in &mut polite {
        let (seen, end) = client.end();
        assert_eq!((seen.last(), end), (Some(&Seen::Bye("draining".into())), End::Closed(1001)));
    }
    assert_eq!(hub.counters().websockets.load(Relaxed), 0);
    // A reader outside of the shards is told by an empty page.
    assert_eq!(ends("the reader", move || waiting.join().unwrap()), 0);
    ends("the listener", move || listening.join().unwrap());
    ends("the noise", move || noise.join().unwrap());
    over.store(true, Relaxed);
    ends("the publisher", move || publisher.join().unwrap());
    // What comes too late is turned away: the socket is closed, the permit is given back.
    let (mut late, server) = tcp();
    let permit = Arc::new(());
    let mut adoption = adoption(Socket::Tcp(server), Form::Json);
    adoption.permit = Box::new(Arc::clone(&permit));
    hub.adopt(adoption);
    assert_eq!(late.read(&mut [0; 16]).unwrap(), 0);
    assert_eq!(Arc::strong_count(&permit), 1);
}

#[test]
fn a_hub_that_is_dropped_takes_its_connections_along() {
    let hub = hub(|_| {});
    let mut client = Client::open(&hub, Form::Json);
    // Even by one of its own connections.
    let (stream, server) = tcp();
    let mut last = adoption(Socket::Tcp(server), Form::Json);
    last.permit = Box::new(Arc::clone(&hub));
    hub.adopt(last);
    drop(hub);
    drop(stream);
    assert_eq!(client.end(), (vec![Seen::Bye("draining".into())], End::Closed(1001)));
}

/// What was sent of a message is held, so its end is not waited for without end. Time is counted from the last message that
/// came to its end: who goes on sending is not slow.
#[test]
fn a_message_that_does_not_come_to_its_end_ends_the_connection() {
    let hub = hub(|c| {
        c.message_timeout = Duration::from_secs(1);
        (c.quota, c.topic_quota) = (QuotaConfig::default(), QuotaConfig::default());
    });
    let mut client = Client::open(&hub, Form::Json);
    // Without a number there is no answer, which would have to be read.
    let wire = frame(OpCode::Text, br#"{"type":"pub","topic":"a","data":1}"#);
    let (begin, end) = wire.split_at(wire.len() / 2);
    let began = Instant::now();
    let mut sent = 0;
    // Every read ends in the middle of a message, for longer than one message may take.
    while began.elapsed() < Duration::from_secs(2) {
        client.write(begin);
        client.write(end);
        client.write(begin);
        client.write(end);
        sent += 2;
    }
    client.write(begin);
    let (seen, end) = client.end();
    assert_eq!(seen.last(), Some(&Seen::Bye("request_timeout".into())), "{seen:?}");
    assert_eq!((end, hub.counters().timeouts.load(Relaxed)), (End::Closed(1013), 1));
    assert_eq!(hub.log().head(), sent);
}
