//! Control frames among everything else: RFC 6455 sections 5.4 and 5.5.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong has to stop"
)]

mod common;

use common::{AnyClient, End, Endpoint, Flush, Heard, Wire, every_split, limits, transcript};
use longwire_core::ws::{CloseCode, Config, Event, MIN_TX, Server, Step};

/// A text of five fragments, one of them empty, with `between` put in behind the first `at`.
fn fragments<R: End>(at: usize, between: impl Fn(Wire) -> Wire) -> Wire {
    let pieces: [(u8, &[u8]); 5] =
        [(0x01, b"one \xe2"), (0x00, b"\x82"), (0x00, b""), (0x00, b"\xac"), (0x80, b" two")];
    pieces.iter().enumerate().fold(Wire::to::<R>(), |wire, (i, (b0, piece))| {
        if i == at { between(wire).frame(*b0, piece) } else { wire.frame(*b0, piece) }
    })
}

fn between_every_pair<R: End>() {
    let text = || Heard::Text("one € two".into());
    for at in 1..5 {
        for payload in [&b""[..], b"p", &[0xff; 125]] {
            let heard = |wire: Wire| transcript(Endpoint::<R>::new(Config::new()), &[wire.bytes()]);
            let got = heard(fragments::<R>(at, |wire| wire.ping(payload)));
            assert_eq!(got.heard, [Heard::Ping(payload.into()), text()]);
            assert_eq!((got.sent[0].b0, &got.sent[0].payload[..]), (0x8a, payload));

            let got = heard(fragments::<R>(at, |wire| wire.pong(payload)));
            assert_eq!(got.heard, [Heard::Pong(payload.into()), text()]);
            assert_eq!(got.sent, []);
        }
        let wire = fragments::<R>(at, |wire| wire.close(1001, b"away"));
        let got = transcript(Endpoint::<R>::new(Config::new()), &[wire.bytes()]);
        assert_eq!(got.heard, [Heard::Close(Some(CloseCode::GOING_AWAY), "away".into())]);
        assert_eq!((got.sent.len(), &got.sent[0].payload[..]), (1, &1001u16.to_be_bytes()[..]));
    }
}

#[test]
fn ping_pong_and_close_between_every_pair_of_fragments() {
    between_every_pair::<Server>();
    between_every_pair::<AnyClient>();
}

fn every_split_of_every_control_frame<R: End>() {
    let check = |wire: Wire, heard: Heard| {
        every_split(wire.bytes(), |pieces| {
            let got = transcript(Endpoint::<R>::with(Config::new(), 131, MIN_TX), pieces);
            assert_eq!(got.heard, std::slice::from_ref(&heard));
        });
    };
    for len in 0..=125u8 {
        let payload: Vec<u8> = (0..len).collect();
        check(Wire::to::<R>().ping(&payload), Heard::Ping(payload.clone()));
        check(Wire::to::<R>().pong(&payload), Heard::Pong(payload));
    }
    check(Wire::to::<R>().frame(0x88, b""), Heard::Close(None, String::new()));
    for len in 0..=123 {
        let reason = "r".repeat(len);
        check(
            Wire::to::<R>().close(3000, reason.as_bytes()),
            Heard::Close(Some(CloseCode::UNAUTHORIZED), reason),
        );
    }
}

#[test]
fn every_split_of_control_frames_of_every_length() {
    every_split_of_every_control_frame::<Server>();
    every_split_of_every_control_frame::<AnyClient>();
}

#[test]
fn a_turn_that_only_reads_leaves_the_pong_in_tx() {
    let mut server = Endpoint::<Server>::new(Config::new());
    server.append(Wire::to::<Server>().ping(b"Hello").bytes());
    assert!(matches!(server.poll(), Ok(Step::Event(_))));
    // It is there together with the event, not one call later.
    server.lend(|_, io| assert_eq!(io.tx.pending(), b"\x8a\x05Hello"));
}

#[test]
fn an_unsolicited_pong_leaves_a_pending_reply_alone() {
    let mut server = Endpoint::<Server>::new(Config::new());
    server.append(Wire::to::<Server>().ping(b"asked").bytes());
    assert!(matches!(server.poll(), Ok(Step::Event(_))));
    server.lend(|connection, io| connection.send_pong(&mut io.tx, b"unasked").unwrap());
    let sent: Vec<_> = server.frames().into_iter().map(|frame| (frame.b0, frame.payload)).collect();
    assert_eq!(sent, [(0x8a, b"asked".to_vec()), (0x8a, b"unasked".to_vec())]);
    // And the other way round: theirs answers nothing, and ours is still owed.
    let wire = Wire::to::<Server>().pong(b"theirs").ping(b"again");
    server.receive(wire.bytes());
    assert_eq!(server.frames()[2].payload, b"again");
    assert_eq!(server.frames().len(), 3);
}

#[test]
fn every_ping_of_one_read_is_answered_in_order() {
    let wire = (0..30).fold(Wire::to::<Server>(), |wire, n| wire.ping(&[n]));
    let mut server = Endpoint::<Server>::new(Config::new());
    server.receive(wire.bytes());
    let answers: Vec<_> = server.frames().iter().map(|frame| frame.payload[0]).collect();
    assert_eq!(answers, (0..30).collect::<Vec<u8>>());
}

#[test]
fn after_need_flush_there_may_be_input_that_was_not_looked_at() {
    // Two pings and a text arrive in one read; the buffer has room for one answer.
    let mut server = Endpoint::<Server>::with(Config::new(), 1024, MIN_TX);
    server.flush = Flush::ByHand;
    server.receive(Wire::to::<Server>().ping(&[1; 125]).ping(&[2; 125]).text("last").bytes());
    assert_eq!(server.heard, [Heard::Ping(vec![1; 125])]);
    // A part of it is written: still no room. Nothing is lost and nothing is answered twice.
    server.write(60);
    assert!(!server.turn());
    server.write(usize::MAX);
    // Nothing new is read, and yet there is more. The text needs no answer, so it waits for no room.
    assert!(server.turn());
    assert_eq!(server.heard[1..], [Heard::Ping(vec![2; 125]), Heard::Text("last".into())]);
    assert_eq!(server.frames().len(), 2);
}

#[test]
fn a_pong_leaves_the_room_of_a_close_and_needs_no_more() {
    // The first answer leaves 20 bytes: 12 for the second, 8 for a Close (of a client; a server's is smaller).
    for (len, waits) in [(MIN_TX - 22, false), (MIN_TX - 21, true)] {
        let mut server = Endpoint::<Server>::with(Config::new(), 1024, MIN_TX);
        server.flush = Flush::ByHand;
        server.receive(Wire::to::<Server>().ping(&vec![1; len]).ping(&[2; 10]).bytes());
        assert_eq!((server.flushes, server.heard.len()), (usize::from(waits), 2 - usize::from(waits)));
    }
    // A Pong needs no answer, and yet it waits until a Close has room.
    for (len, waits) in [(MIN_TX - 10, false), (MIN_TX - 9, true)] {
        let mut server = Endpoint::<Server>::with(Config::new(), 1024, MIN_TX);
        server.flush = Flush::ByHand;
        server.lend(|_, io| assert!(io.tx.put(&[&vec![0; len + 2]])));
        server.receive(Wire::to::<Server>().pong(b"").bytes());
        assert_eq!((server.flushes, server.heard.len()), (usize::from(waits), usize::from(!waits)));
    }
}

#[test]
fn an_event_can_be_looked_at_again_until_the_next_poll() {
    let mut server = Endpoint::<Server>::new(limits(100, 9));
    server.append(Wire::to::<Server>().text("twice").ping(b"p").bytes());
    let now = server.now;
    server.lend(|connection, io| {
        let Ok(Step::Event(found)) = connection.poll(now, io) else { panic!("no event") };
        for _ in 0..2 {
            let Event::Text(text) = found.event(io.rx.reborrow()) else { panic!("no text") };
            assert_eq!((text, text.as_str()), (text, "twice"));
        }
        // More may arrive meanwhile; it is moved together with what was found.
        io.rx.compact();
        io.rx.fill(b"\x81");
        assert!(matches!(found.event(io.rx.reborrow()), Event::Text(text) if text == "twice"));
    });
    server.turn();
    assert_eq!(server.heard, [Heard::Ping(b"p".into())]);
}
