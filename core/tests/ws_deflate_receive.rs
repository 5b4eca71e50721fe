//! What an endpoint makes of compressed messages (RFC 7692 sections 6.2 and 7.2.2).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong has to stop"
)]

mod common;

use common::{
    AGREED, AnyClient, Dice, End, Endpoint, Heard, Lent, TAKEOVER, Wire, both_hear, deflate, limits, stored,
    text, transcript,
};
use longwire_core::ws::deflate::{Agreed, Window};
use longwire_core::ws::{CloseCause, CloseCode, Config, Delivery, MIN_RX, ProtocolError, Server};

/// "Hello" (RFC 7692 section 7.2.3.1), and once more with the first one's window (7.2.3.2).
const HELLO: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
const AGAIN: [u8; 5] = [0xf2, 0x00, 0x11, 0x00, 0x00];

const DELIVERIES: [Delivery; 2] = [Delivery::Whole, Delivery::Chunks];

/// Whether a message was begun, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum In {
    Nothing,
    Plain,
    Compressed,
}

/// What RFC 6455 section 5.2 and RFC 7692 section 6 say of a frame's first byte.
fn verdict(b0: u8, negotiated: bool, within: In) -> Option<ProtocolError> {
    let (fin, rsv1, opcode) = (b0 & 0x80 != 0, b0 & 0x40 != 0, b0 & 0x0f);
    match opcode {
        _ if b0 & 0x30 != 0 => Some(ProtocolError::ReservedBits),
        3..8 | 11.. => Some(ProtocolError::ReservedOpcode),
        8.. if !fin => Some(ProtocolError::ControlFragmented),
        0 | 8.. if rsv1 => Some(ProtocolError::ReservedBits),
        1 | 2 if rsv1 && !negotiated => Some(ProtocolError::ReservedBits),
        0 if within == In::Nothing => Some(ProtocolError::UnexpectedContinuation),
        1 | 2 if within != In::Nothing => Some(ProtocolError::ExpectedContinuation),
        _ => None,
    }
}

fn matrix<R: End>() {
    for (b0, within) in (0..=255).flat_map(|b0| [In::Nothing, In::Plain, In::Compressed].map(|i| (b0, i))) {
        for (negotiated, delivery) in [false, true].into_iter().flat_map(|n| DELIVERIES.map(|d| (n, d))) {
            let wire = match within {
                In::Nothing => Wire::to::<R>(),
                In::Plain => Wire::to::<R>().frame(0x01, b"He"),
                In::Compressed if !negotiated => continue,
                In::Compressed => Wire::to::<R>().frame(0x41, &HELLO[..3]),
            };
            let compressed = within == In::Compressed || b0 & 0x40 != 0;
            let wire = match (b0 & 0x0f, compressed) {
                (8.., _) => wire.frame(b0, &1000u16.to_be_bytes()),
                (0, true) => wire.frame(b0, &HELLO[3..]),
                (_, true) => wire.frame(b0, &HELLO),
                (_, false) => wire.frame(b0, b"llo"),
            };
            let mut endpoint = Endpoint::<R>::new(Config { delivery, ..Config::new() });
            if negotiated {
                endpoint = endpoint.deflate(AGREED);
            }
            endpoint.receive(wire.bytes());
            let case = format!("{b0:02x} {within:?} {negotiated} {delivery:?}");
            match verdict(b0, negotiated, within) {
                Some(error) => {
                    assert_eq!(endpoint.heard, [Heard::Failed(error)], "{case}");
                    assert_eq!(endpoint.closed, Some(CloseCause::Failed(CloseCode::PROTOCOL)), "{case}");
                    assert_eq!(endpoint.frames().last().unwrap().payload[..2], 1002u16.to_be_bytes());
                }
                None if b0 & 0x0f >= 8 => assert_eq!(endpoint.heard.len(), 1, "{case}"),
                None if b0 & 0x80 == 0 => assert_eq!(endpoint.heard, [], "{case}"),
                None => {
                    let whole = if compressed || within == In::Plain { "Hello" } else { "llo" };
                    let binary = b0 & 0x0f == 2;
                    let want = if binary { Heard::Binary(whole.into()) } else { text(whole) };
                    assert_eq!(endpoint.heard, [want], "{case}");
                }
            }
        }
    }
}

/// aiohttp took RSV1 for granted. Every first byte of a frame x negotiated or not x what message it is in.
#[test]
fn ghsa_mq44_7p77_q5h7_aiohttp_rsv1_where_it_was_negotiated_and_nowhere_else() {
    matrix::<Server>();
    matrix::<AnyClient>();
}

#[test]
fn control_frames_between_compressed_fragments() {
    for a in 0..=HELLO.len() {
        for b in a..=HELLO.len() {
            let wire = |wire: Wire| {
                let wire = wire.frame(0x41, &HELLO[..a]).ping(b"one").frame(0x00, &HELLO[a..b]);
                wire.pong(b"two").ping(&[b'x'; 125]).frame(0x80, &HELLO[b..])
            };
            let want = [
                Heard::Ping(b"one".into()),
                Heard::Pong(b"two".into()),
                Heard::Ping(vec![b'x'; 125]),
                text("Hello"),
            ];
            for delivery in DELIVERIES {
                let endpoint = || {
                    Endpoint::<Server>::with(Config { delivery, ..Config::new() }, MIN_RX, 4096)
                        .deflate(AGREED)
                };
                let wire = wire(Wire::to::<Server>());
                assert_eq!(transcript(endpoint(), &[wire.bytes()]).heard, want, "{a} {b}");
                let bytes: Vec<_> = wire.bytes().chunks(1).collect();
                assert_eq!(transcript(endpoint(), &bytes).heard, want, "{a} {b}");
            }
        }
    }
    let wire = |wire: Wire| wire.frame(0x41, &HELLO[..3]).ping(b"?").frame(0x80, &HELLO[3..]);
    both_hear(AGREED, wire, &[Heard::Ping(b"?".into()), text("Hello")]);
    // A Close ends it, and what was begun is gone.
    let wire = |wire: Wire| wire.frame(0x41, &HELLO[..3]).close(1000, b"").frame(0x80, &HELLO[3..]);
    both_hear(AGREED, wire, &[Heard::Close(Some(CloseCode::NORMAL), String::new())]);
}

#[test]
fn compressed_and_plain_messages_in_turn() {
    let wire = |wire: Wire| {
        wire.text("a")
            .frame(0xc1, &HELLO)
            .binary(b"b")
            .frame(0x01, b"c")
            .frame(0x80, b"d")
            .frame(0xc1, &HELLO)
    };
    let want = [text("a"), text("Hello"), Heard::Binary(b"b".into()), text("cd"), text("Hello")];
    both_hear(AGREED, wire, &want);
    // What is not compressed is no part of the window.
    let wire = |wire: Wire| wire.frame(0xc1, &HELLO).text("plain").ping(b"").frame(0xc2, &AGAIN);
    let want = [text("Hello"), text("plain"), Heard::Ping(vec![]), Heard::Binary(b"Hello".into())];
    both_hear(TAKEOVER, wire, &want);
}

#[test]
fn rfc7692_7_2_3_6_empty_messages() {
    for agreed in [AGREED, TAKEOVER] {
        // One byte; an empty block and that byte, final or not; several of them.
        for empty in
            [&[0x00][..], &[0x02, 0x00], &[0x03, 0x00, 0x00], &[0x00, 0x00, 0x00, 0xff, 0xff, 0x02, 0x00]]
        {
            let wire = |wire: Wire| wire.frame(0xc1, empty).frame(0xc2, empty).frame(0xc1, &HELLO);
            both_hear(agreed, wire, &[text(""), Heard::Binary(vec![]), text("Hello")]);
            let wire =
                |wire: Wire| wire.frame(0x41, b"").frame(0x00, empty).frame(0x80, b"").frame(0xc1, &HELLO);
            both_hear(agreed, wire, &[text(""), text("Hello")]);
        }
        // A compressor that was flushed with nothing new gives nothing. The window stays in step.
        let wire = |wire: Wire| wire.frame(0xc1, b"").frame(0x42, b"").frame(0x80, b"").frame(0xc1, &HELLO);
        both_hear(agreed, wire, &[text(""), Heard::Binary(vec![]), text("Hello")]);
    }
    let wire = |wire: Wire| wire.frame(0xc1, &HELLO).frame(0xc1, b"").frame(0xc1, &AGAIN);
    both_hear(TAKEOVER, wire, &[text("Hello"), text(""), text("Hello")]);
}

/// Compressed messages whose payload has several forms: one block, stored blocks, a flush in the middle, a stream
/// that ends and another one.
fn forms(message: &[u8]) -> Vec<Vec<u8>> {
    let (one, two) = message.split_at(message.len() / 3);
    // `deflate` leaves the tail out; a flush is what has it.
    let flushed = [deflate(one), vec![0, 0, 0xff, 0xff], deflate(two)].concat();
    // A final stored block, then a new stream.
    let len = (one.len() as u16).to_le_bytes();
    let ended = [&[1, len[0], len[1], !len[0], !len[1]], one, &deflate(two)].concat();
    vec![deflate(message), stored(message), flushed, ended]
}

#[test]
fn every_split_of_texts_whose_characters_are_cut_anywhere() {
    // Five times the smallest buffer, in characters of one to four bytes, out of phase with everything.
    for message in ["aé€𝄞", "𝄞𝄞a", "€", "éa€"].map(|part| part.repeat(700 / part.len())) {
        for form in forms(message.as_bytes()) {
            let wire = Wire::to::<Server>().frame(0xc1, &form);
            for (delivery, rx) in [
                (Delivery::Whole, 2 * message.len() + MIN_RX),
                (Delivery::Whole, 1),
                (Delivery::Chunks, MIN_RX),
                (Delivery::Chunks, MIN_RX + 1),
                (Delivery::Chunks, MIN_RX + 2),
                (Delivery::Chunks, MIN_RX + 3),
                (Delivery::Chunks, 300),
            ] {
                // Every split of a long one takes long, and finds no more than some of them.
                let step = wire.bytes().len() / 60 + 1;
                let cuts = (1..wire.bytes().len()).step_by(step).map(|at| {
                    let (a, b) = wire.bytes().split_at(at);
                    vec![a, b]
                });
                let sizes = [1, 2, 3, 50].map(|n| wire.bytes().chunks(n).collect());
                for pieces in cuts.chain(sizes) {
                    let config = Config { delivery, ..Config::new() };
                    let endpoint = Endpoint::<Server>::with(config, rx, 4096).deflate(AGREED);
                    let got = transcript(endpoint, &pieces);
                    assert!(got.heard == [text(&message)], "{delivery:?} {rx} {:?}", got.heard);
                }
            }
        }
    }
}

#[test]
fn rfc6455_8_1_text_that_is_not_utf8_once_it_is_inflated() {
    let long = |end: &[u8]| ["x".repeat(500).as_bytes(), end].concat();
    for bad in [
        &b"\x80"[..],
        b"a\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"\xf0\x9d\x84",
        b"\xe2\x82x",
        &long(b"\xff"),
        &long(b"\xe2\x82"),
        &long(b"\xf0\x9d\x84"),
    ] {
        for form in forms(bad) {
            for (delivery, size) in DELIVERIES.into_iter().flat_map(|d| [1, 2, 7, 1000].map(|n| (d, n))) {
                let wire = Wire::to::<Server>().frame(0xc1, &form);
                let config = Config { delivery, ..Config::new() };
                let endpoint = Endpoint::<Server>::with(config, 200, 4096).deflate(AGREED);
                let got = transcript(endpoint, &wire.bytes().chunks(size).collect::<Vec<_>>());
                assert_eq!(got.heard, [Heard::Failed(ProtocolError::NotUtf8)], "{bad:x?}");
                assert_eq!(got.closed, CloseCause::Failed(CloseCode::INVALID_PAYLOAD));
                // The same bytes are no fault of a binary message.
                let wire = Wire::to::<Server>().frame(0xc2, &form);
                let mut endpoint =
                    Endpoint::<Server>::new(Config { delivery, ..Config::new() }).deflate(AGREED);
                assert_eq!(endpoint.receive(wire.bytes()).heard, [Heard::Binary(bad.into())]);
            }
        }
    }
}

/// Bytes that no compressor makes smaller.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    (0..len).map(|_| dice.upto(255) as u8).collect()
}

/// A wire with messages up to `most` bytes, compressed well, badly and not at all, with control frames between the
/// messages and within them, and what is to be heard.
fn traffic<R: End>(most: usize, seed: u64) -> (Wire, Vec<Heard>) {
    let (mut wire, mut heard, mut dice) = (Wire::to::<R>(), Vec::new(), Dice(seed));
    for n in 0..12u64 {
        let len = if dice.upto(1) == 0 { most } else { dice.upto(most) };
        let message = match dice.upto(2) {
            0 => noise(len, seed + n),
            1 => vec![b'x'; len],
            _ => b"all work and no play ".iter().copied().cycle().take(len).collect(),
        };
        let payload = match dice.upto(4) {
            0 | 1 => deflate(&message),
            2 => stored(&message),
            _ => message.clone(),
        };
        let rsv1 = if payload == message { 0 } else { 0x40 };
        let ping = vec![b'p'; dice.upto(125)];
        if dice.upto(1) == 0 {
            let (a, b) = payload.split_at(dice.upto(payload.len()));
            wire = wire.frame(0x02 | rsv1, a).ping(&ping).frame(0x80, b);
            heard.push(Heard::Ping(ping));
        } else {
            wire = wire.frame(0x82 | rsv1, &payload);
        }
        heard.push(Heard::Binary(message));
    }
    (wire, heard)
}

fn fixed_buffers_are_enough<R: End>() {
    for most in [0, 1, 2, 10, 100, 125, 126, 300, 1000, 5000] {
        for seed in 0..12 {
            let (wire, want) = traffic::<R>(most, seed * 1000);
            let mut dice = Dice(seed);
            for read in [usize::MAX, 1, 2, 13, 100, most + 100, 0] {
                let mut endpoint =
                    Endpoint::<R>::with(limits(most as u64, 100), 2 * most + MIN_RX, 4096).deflate(AGREED);
                let mut rest = wire.bytes();
                while !rest.is_empty() {
                    let n = if read == 0 { 1 + dice.upto(most) } else { read }.min(rest.len());
                    let (piece, behind) = rest.split_at(n);
                    endpoint.receive(piece);
                    rest = behind;
                }
                assert!(endpoint.heard == want, "{most} {read} {:?}", endpoint.heard.last());
                assert_eq!(endpoint.asked, [], "{most} {read}");
            }
        }
    }
}

/// What [`with_deflate`](longwire_core::ws::Connection::with_deflate) promises to a device without a heap.
#[test]
fn a_buffer_of_twice_the_largest_message_and_min_rx_never_has_to_grow() {
    fixed_buffers_are_enough::<Server>();
    fixed_buffers_are_enough::<AnyClient>();
    // A few bytes each that become a great deal: as many as ever fit are there at once.
    for most in [200, 300, 1000, 5000] {
        let message = vec![b'x'; most];
        let payload = deflate(&message);
        let wire = (0..1000).fold(Wire::to::<Server>(), |wire, _| wire.frame(0xc2, &payload));
        let mut server =
            Endpoint::<Server>::with(limits(most as u64, 1), 2 * most + MIN_RX, 4096).deflate(AGREED);
        server.receive(wire.bytes());
        assert_eq!((server.heard.len(), &server.asked[..]), (1000, &[][..]));
        assert!(server.heard.iter().all(|heard| *heard == Heard::Binary(message.clone())));
    }
}

#[test]
fn a_buffer_that_grows_ends_at_twice_the_largest_message() {
    for (most, rx) in [100, 1000, 20_000].into_iter().flat_map(|most| [0, 1, 100, most].map(|rx| (most, rx)))
    {
        for (payload, fits) in [
            (stored(&noise(most, 1)), true),
            (deflate(&vec![b'x'; most]), true),
            (stored(&noise(most + 1, 1)), false),
            (deflate(&vec![b'x'; 1000 * most]), false),
        ] {
            for read in [usize::MAX, 1, 100] {
                let wire = Wire::to::<Server>().frame(0xc2, &payload).frame(0xc2, &payload);
                let mut server = Endpoint::<Server>::with(limits(most as u64, 9), rx, 4096).deflate(AGREED);
                wire.bytes().chunks(read.min(wire.bytes().len())).for_each(|piece| _ = server.receive(piece));
                assert!(server.capacity() <= 2 * (most + MIN_RX), "{most} {rx}: {}", server.capacity());
                assert!(server.asked.len() <= 20, "{:?}", server.asked);
                assert_eq!(server.heard.len(), if fits { 2 } else { 1 });
                assert_eq!(server.closed.is_none(), fits);
            }
        }
    }
}

#[test]
fn a_message_ends_once_with_the_window_of_its_sender() {
    let [server, client] = [(15, true), (11, false)].map(|(bits, takeover)| Window { bits, takeover });
    fn ends<R: End>(agreed: Agreed, delivery: Delivery) -> Vec<Window> {
        let wire = Wire::to::<R>()
            .frame(0xc1, &HELLO)
            .text("plain")
            .ping(b"")
            .frame(0x42, &HELLO[..2])
            .frame(0x80, &HELLO[2..])
            .frame(0xc1, b"")
            .frame(0x41, &HELLO);
        let mut endpoint =
            Endpoint::<R>::with(Config { delivery, ..Config::new() }, 200, 4096).deflate(agreed);
        wire.bytes().chunks(1).for_each(|byte| _ = endpoint.receive(byte));
        endpoint.codec.ends
    }
    for delivery in DELIVERIES {
        // The fourth has not ended.
        assert_eq!(ends::<Server>(Agreed { server, client }, delivery), [client; 3]);
        assert_eq!(ends::<AnyClient>(Agreed { server, client }, delivery), [server; 3]);
    }
}

#[test]
fn a_message_that_waits_for_a_flush_ends_once() {
    let config = Config { reply_room: 1000, ..Config::new() };
    let mut server = Endpoint::<Server>::with(config, 400, 400).deflate(AGREED);
    server.flush = common::Flush::WhenAsked;
    assert_eq!(server.lend(|connection, io| connection.send_binary(&mut io.tx, &[0; 100])), Ok(()));
    server.receive(Wire::to::<Server>().frame(0xc1, &HELLO).bytes());
    assert_eq!((server.flushes, server.heard.len(), server.codec.ends.len()), (1, 1, 1));
}

#[test]
fn without_a_codec_a_compressed_message_fails_and_nothing_else_does() {
    for delivery in DELIVERIES {
        let config = Config { delivery, ..Config::new() };
        let mut server = Endpoint::<Server>::new(config).deflate(AGREED).lent(Lent::Nothing);
        server.receive(Wire::to::<Server>().text("plain").ping(b"").bytes());
        assert_eq!(server.heard, [text("plain"), Heard::Ping(vec![])]);
        server.receive(Wire::to::<Server>().frame(0xc1, &HELLO).bytes());
        assert_eq!(server.heard.last(), Some(&Heard::Failed(ProtocolError::NoInflate)));
        assert_eq!(server.closed, Some(CloseCause::Failed(CloseCode::INTERNAL)));
    }
}

#[test]
fn a_connection_without_the_extension_uses_the_whole_buffer_again() {
    let mut server = Endpoint::<Server>::with(limits(1000, 1), 1000 + MIN_RX, 4096);
    server.lend(|_, io| io.rx.reserve_for_expansion());
    assert_eq!(server.lend(|_, io| io.rx.spare_mut().len()), 567);
    server.turn();
    assert_eq!(server.lend(|_, io| io.rx.spare_mut().len()), 1000 + MIN_RX);
    let mut server = server.deflate(AGREED);
    server.turn();
    assert_eq!(server.lend(|_, io| io.rx.spare_mut().len()), 567);
    // Also once it was idle again.
    server.receive(Wire::to::<Server>().frame(0xc1, &HELLO).text("a").bytes());
    assert_eq!(server.lend(|_, io| (io.rx.held(), io.rx.spare_mut().len())), (0, 567));
}

#[test]
fn a_compressed_message_that_is_gathered_asks_for_what_may_still_come_and_no_more() {
    let asked = |wire: Wire| {
        let mut server = Endpoint::<Server>::with(limits(1000, 9), 1100, 512).deflate(AGREED);
        server.receive(wire.bytes());
        server.asked
    };
    // Its last frame says how much is left; before that, the limit of what is compressed does.
    let wire = Wire::to::<Server>;
    assert_eq!(asked(wire().header(0xc2, 1150, 0).raw(&[0; 1100])), [1150 + MIN_RX]);
    assert_eq!(asked(wire().frame(0x42, &[0; 1100])), [1000 + 1000 / 8 + 64 + 8 + MIN_RX]);
}
