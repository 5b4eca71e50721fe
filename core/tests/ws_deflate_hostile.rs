//! Compressed messages that mean harm, and codecs that do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong has to stop"
)]

mod common;

use common::{AGREED, AnyClient, End, Endpoint, Flush, Heard, Lent, TAKEOVER, Wire, deflate, limits, stored};
use longwire_core::ws::deflate::{Corrupt, Inflate, Inflated, Window};
use longwire_core::ws::{CloseCause, CloseCode, Config, Delivery, MIN_RX, ProtocolError, Server};
use std::cell::Cell;
use std::rc::Rc;

const DELIVERIES: [Delivery; 2] = [Delivery::Whole, Delivery::Chunks];

fn failed(error: ProtocolError) -> Option<CloseCause> {
    Some(CloseCause::Failed(error.code()))
}

/// An endpoint that received a wire, in pieces of `read` bytes.
fn received<R: End>(config: Config, rx: usize, wire: &Wire, read: usize) -> Endpoint<R> {
    let mut endpoint = Endpoint::<R>::with(config, rx, 4096).deflate(AGREED);
    wire.bytes().chunks(read).for_each(|piece| _ = endpoint.receive(piece));
    endpoint
}

fn limit_and_one_more<R: End>(limit: usize) {
    for (len, fits) in [(limit, true), (limit + 1, false), (1000 * limit, false)] {
        let data = vec![b'x'; len];
        for payload in [deflate(&data), stored(&data)] {
            if payload.len() > limit + limit / 8 + 64 {
                continue;
            }
            let (one, two) = payload.split_at(payload.len() / 2);
            for wire in [
                Wire::to::<R>().frame(0xc2, &payload),
                Wire::to::<R>().frame(0x42, one).ping(b"").frame(0x80, two),
            ] {
                for (delivery, read) in DELIVERIES.into_iter().flat_map(|d| [1, 100, 1 << 20].map(|n| (d, n)))
                {
                    let config = Config { delivery, ..limits(limit as u64, 4) };
                    let mut end = received::<R>(config, 256, &wire, read);
                    end.heard.retain(|heard| *heard != Heard::Ping(vec![]));
                    if fits {
                        assert_eq!((&end.heard[..], end.closed), (&[Heard::Binary(data.clone())][..], None));
                    } else {
                        assert_eq!(end.heard, [Heard::Failed(ProtocolError::MessageTooBig)]);
                        assert_eq!(end.closed, Some(CloseCause::Failed(CloseCode::TOO_BIG)));
                    }
                    assert!(end.codec.total.written <= limit + 1, "{}", end.codec.total.written);
                    assert!(end.capacity() <= 2 * (limit + MIN_RX), "{}", end.capacity());
                }
            }
        }
    }
}

/// Each of them inflated first, and looked at the size afterwards or never; a thousandfold of it.
#[test]
fn cve_2026_1526_undici_cve_2026_39804_bandit_cve_2018_1000518_websockets_inflate_bombs() {
    for limit in [1, 300, 5000, 60_000] {
        limit_and_one_more::<Server>(limit);
        limit_and_one_more::<AnyClient>(limit);
    }
}

/// nats-server's limits began with authentication, autobahn-python's with whole messages; here they are in force
/// from the first frame on, and a message of many frames has one.
#[test]
fn cve_2026_27571_nats_ghsa_hxp9_w8x3_p566_autobahn_python_one_limit_over_all_fragments() {
    let piece = stored(&[b'x'; 100]);
    // Without the 0x00 at its end, each piece is a stored block of its own.
    let piece = &piece[..piece.len() - 1];
    let wire = (0..49).fold(Wire::to::<Server>().frame(0x42, piece), |wire, _| wire.frame(0x00, piece));
    for delivery in DELIVERIES {
        let config = |most| Config { delivery, ..limits(most, 1000) };
        let whole = wire.clone().frame(0x80, &[0]);
        let server = received::<Server>(config(5000), 400, &whole, 77);
        assert_eq!(server.heard, [Heard::Binary(vec![b'x'; 5000])]);
        let server = received::<Server>(config(4999), 400, &whole, 77);
        assert_eq!(server.heard, [Heard::Failed(ProtocolError::MessageTooBig)]);
        assert_eq!(server.codec.total.written, 5000);
    }
}

/// aiohttp began again from the start of its input for each member of a stream. Twenty thousand streams of a byte
/// each: the work is by the bytes, and so are the calls of the codec.
#[test]
fn cve_2026_128131_aiohttp_concatenated_streams_cost_linear_work() {
    // A final stored block with one byte.
    let member = [1, 1, 0, 0xfe, 0xff, b'x'];
    let count = 20_000;
    let payload = [member.repeat(count), vec![0]].concat();
    for (delivery, rx, read) in [
        (Delivery::Whole, 400_000, 1 << 20),
        (Delivery::Whole, 100, 4096),
        (Delivery::Chunks, MIN_RX, 4096),
        (Delivery::Chunks, 4096, 4096),
        (Delivery::Chunks, MIN_RX, 1),
    ] {
        let wire = Wire::to::<Server>().frame(0xc2, &payload);
        let config = Config { delivery, ..limits(200_000, 1) };
        let server = received::<Server>(config, rx, &wire, read);
        assert!(server.heard == [Heard::Binary(vec![b'x'; count])], "{:?}", server.heard.last());
        // Each byte goes in once, with the tail.
        assert_eq!(server.codec.total, Inflated { read: payload.len() + 4, written: count });
        let most = if read == 1 { payload.len() } else { payload.len() / 20 };
        assert!(server.codec.calls <= most + 4, "{} {most}", server.codec.calls);
    }
}

/// Empty blocks cost work, and the limit of what comes out never sees them.
#[test]
fn blocks_that_yield_nothing_are_bounded_too() {
    for (limit, empty) in [(1001u64, &[0, 0, 0, 0xff, 0xff][..]), (1001, &[0x02, 0x08, 0x20, 0x80, 0x00])] {
        for fragments in [1usize, 11] {
            // What README and docs say: an eighth more than the limit, 64, and 8 for each further fragment.
            let most = limit as usize + 125 + 64;
            let bytes: Vec<u8> = empty.iter().copied().cycle().take(100_000).collect();
            let wire = |last: usize| {
                let first =
                    Wire::to::<Server>().frame(if fragments == 1 { 0xc2 } else { 0x42 }, &bytes[..most]);
                let wire = (2..fragments).fold(first, |wire, _| wire.frame(0x00, &[]));
                if fragments == 1 { wire } else { wire.frame(0x80, &bytes[most..][..last]) }
            };
            let spare = 8 * (fragments - 1);
            for delivery in DELIVERIES {
                let config = || Config { delivery, ..limits(limit, 100) };
                let server = received::<Server>(config(), 400, &wire(spare), 50);
                assert_eq!(server.closed, None, "{fragments}");
                if fragments > 1 {
                    let server = received::<Server>(config(), 400, &wire(spare + 1), 50);
                    assert_eq!(server.heard, [Heard::Failed(ProtocolError::MessageTooBig)]);
                    assert!(server.codec.total.read <= most);
                }
            }
        }
    }
}

#[test]
fn an_announced_length_above_the_limit_is_refused_with_its_header() {
    for limit in [0u64, 1, 7, 8, 1000, 1 << 20, u64::from(u32::MAX) * 2] {
        let most = limit + limit / 8 + 64;
        for delivery in DELIVERIES {
            if delivery == Delivery::Whole && limit > 1 << 31 {
                continue;
            }
            for (len, fits) in
                [(most, true), (most + 1, false), (1 << 32, most >= 1 << 32), (u64::MAX >> 1, false)]
            {
                let wire = Wire::to::<Server>().header(0xc2, len, 0);
                let config = Config { delivery, ..limits(limit, 1) };
                let server = received::<Server>(config, 200, &wire, 100);
                assert_eq!(server.closed.is_none(), fits, "{limit} {len}");
                assert_eq!(server.codec.calls, 0);
                assert_eq!(server.capacity(), 200);
            }
        }
    }
}

#[test]
fn a_message_that_is_handed_out_whole_is_inflated_when_all_of_it_is_there() {
    let data = vec![b'x'; 100_000];
    let bomb = deflate(&data);
    let (first, last) = bomb.split_at(bomb.len() / 2);
    let wire = Wire::to::<Server>().frame(0x42, first).ping(b"?").frame(0x80, last);
    let mut server = Endpoint::<Server>::with(Config::new(), 64, 4096).deflate(AGREED);
    for byte in wire.bytes().split_last().unwrap().1 {
        server.receive(&[*byte]);
        // What came, and no more; and no decompressor is in use.
        assert_eq!((server.codec.calls, server.capacity() < 2 * bomb.len() + MIN_RX), (0, true));
    }
    assert_eq!(server.heard, [Heard::Ping(b"?".into())]);
    server.receive(wire.bytes().split_last().map(|(last, _)| std::slice::from_ref(last)).unwrap());
    assert_eq!(server.heard.last(), Some(&Heard::Binary(data)));
}

#[test]
fn a_message_whose_answer_has_no_room_stays_compressed_until_it_has() {
    let data = vec![b'x'; 100_000];
    let config = Config { reply_room: 300, ..Config::new() };
    let mut server = Endpoint::<Server>::with(config, 4096, 600).deflate(AGREED);
    server.flush = Flush::ByHand;
    server.receive(Wire::to::<Server>().ping(&[b'?'; 125]).ping(&[b'?'; 125]).bytes());
    server.append(Wire::to::<Server>().frame(0xc2, &deflate(&data)).bytes());
    assert!(!server.turn(), "it waits for the Pongs to leave");
    assert!(!server.turn(), "and goes on waiting");
    assert_eq!((server.codec.calls, server.capacity()), (0, 4096));
    server.write(usize::MAX);
    assert!(server.turn());
    assert_eq!(server.heard.last(), Some(&Heard::Binary(data)));
}

#[test]
fn a_whole_compressed_message_ends_at_a_third_of_the_largest_buffer() {
    let config = limits(u64::MAX, 1);
    for (len, fits) in [(0x6000_0000u64, true), (0x6100_0000, false)] {
        let wire = Wire::to::<Server>().header(0xc2, len, 0);
        assert_eq!(received::<Server>(config.clone(), 200, &wire, 100).closed.is_none(), fits);
    }
    let wire = Wire::to::<Server>().header(0x82, 0x7fff_ffff, 0);
    assert_eq!(
        received::<Server>(config, 200, &wire, 100).closed,
        Some(CloseCause::Failed(CloseCode::TOO_BIG))
    );
}

#[test]
fn what_is_not_deflate_fails_with_1007() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    for payload in [
        &[0x06][..], // a block of the type that there is not
        &[0x07, 0, 0, 0],
        &[0x00, 0x05, 0x00, 0x00, 0x00, 1, 2, 3, 4, 5], // a length that its complement does not fit
        &[0xff; 20],
        &[0x62, 0x00, 0x11, 0x00, 0x00], // refers to what is before the message
        &[&hello[..], &[0xff; 20]].concat(),
        &[0x04, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], // codes that are none
    ] {
        for (delivery, read) in DELIVERIES.into_iter().flat_map(|d| [1, 3, 1000].map(|n| (d, n))) {
            let wire = Wire::to::<Server>().frame(0xc2, payload).frame(0xc2, &hello);
            let config = Config { delivery, ..Config::new() };
            let server = received::<Server>(config, 200, &wire, read);
            assert_eq!(server.heard, [Heard::Failed(ProtocolError::Corrupt)], "{payload:x?}");
            assert_eq!(server.closed, Some(CloseCause::Failed(CloseCode::INVALID_PAYLOAD)));
            assert_eq!(server.codec.ends, []);
        }
    }
    // A window that is not taken over is gone.
    let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
    let wire = Wire::to::<Server>().frame(0xc2, &hello).frame(0xc2, &again);
    for (agreed, closed) in [(AGREED, failed(ProtocolError::Corrupt)), (TAKEOVER, None)] {
        let mut server = Endpoint::<Server>::new(Config::new()).deflate(agreed);
        assert_eq!(server.receive(wire.bytes()).closed, closed);
    }
}

/// A codec that does what it is told, and counts.
struct Odd<F>(F, Rc<Cell<usize>>);

impl<F: FnMut(usize, usize, usize) -> Result<(usize, usize), Corrupt>> Inflate for Odd<F> {
    fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<Inflated, Corrupt> {
        self.1.set(self.1.get() + 1);
        let (read, written) = (self.0)(self.1.get(), input.len(), output.len())?;
        Ok(Inflated { read, written })
    }

    fn end_message(&mut self, _: Window) {}
}

#[test]
fn codecs_that_break_their_contract_fail_the_connection_and_spin_nowhere() {
    type Does = fn(usize, usize, usize) -> Result<(usize, usize), Corrupt>;
    let cases: [(&str, Does); 9] = [
        ("nothing", |_, _, _| Ok((0, 0))),
        ("reads nothing, writes less than it could", |_, _, room| Ok((0, room - 1))),
        ("reads a part, writes nothing", |_, input, _| Ok((input / 2, 0))),
        ("reads more than there is", |_, input, _| Ok((input + 1, 0))),
        ("reads no end of it", |_, _, room| Ok((usize::MAX, room))),
        ("writes more than it could", |_, input, room| Ok((input, room + 1))),
        ("writes no end of it", |_, input, _| Ok((input, usize::MAX))),
        ("says that it is corrupt", |_, _, _| Err(Corrupt)),
        (
            "goes wrong later",
            |call, input, room| if call < 3 { Ok((input.min(1), room)) } else { Ok((0, 0)) },
        ),
    ];
    for (what, does) in cases {
        for (delivery, read) in DELIVERIES.into_iter().flat_map(|d| [1, 10, 1000].map(|n| (d, n))) {
            let calls = Rc::new(Cell::new(0));
            let config = Config { delivery, ..Config::new() };
            let mut server = Endpoint::<Server>::with(config, 400, 4096).deflate(AGREED);
            server = server.lent(Lent::Other(Box::new(Odd(does, calls.clone()))));
            let wire = Wire::to::<Server>().frame(0xc2, &[7; 100]).text("what comes next");
            wire.bytes().chunks(read).for_each(|piece| _ = server.receive(piece));
            assert_eq!(server.heard, [Heard::Failed(ProtocolError::Corrupt)], "{what}");
            assert!(calls.get() <= 120, "{what}: {} calls", calls.get());
        }
    }
}

/// Output without end, from no input: each call brings the limit nearer.
#[test]
fn a_codec_that_never_stops_writing_ends_at_the_limit() {
    for (delivery, most) in DELIVERIES.into_iter().flat_map(|d| [0, 100, 10_000].map(|most| (d, most))) {
        let calls = Rc::new(Cell::new(0));
        let config = Config { delivery, ..limits(most, 1) };
        let mut server = Endpoint::<Server>::with(config, 400, 4096).deflate(AGREED);
        server = server.lent(Lent::Other(Box::new(Odd(|_, _, room| Ok((0, room)), calls.clone()))));
        server.receive(Wire::to::<Server>().frame(0xc2, &[7; 60]).bytes());
        assert_eq!(server.heard, [Heard::Failed(ProtocolError::MessageTooBig)]);
        assert!(calls.get() <= 2 + most as usize / 50, "{most}: {} calls", calls.get());
    }
}

/// A message that breaks a rule half-way: nothing of it is heard as whole, nothing behind it is heard at all.
#[test]
fn a_message_refused_half_way_is_the_last() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let begin = || Wire::to::<Server>().frame(0x41, &hello[..4]);
    for (wire, error) in [
        (begin().frame(0xc1, &hello), ProtocolError::ExpectedContinuation),
        (begin().frame(0xc0, &hello[4..]), ProtocolError::ReservedBits),
        (begin().frame(0x80, &[&hello[4..], &[1, 0, 0, 0]].concat()), ProtocolError::Corrupt),
        (begin().header(0x80, 1 << 40, 0), ProtocolError::MessageTooBig),
        (begin().frame(0x89, &[0; 126]), ProtocolError::ControlTooLong),
    ] {
        for read in [1, 1000] {
            for delivery in DELIVERIES {
                let config = Config { delivery, ..Config::new() };
                let server = received::<Server>(config, 400, &wire.clone().frame(0xc1, &hello), read);
                assert_eq!(server.heard, [Heard::Failed(error)]);
                assert_eq!((server.closed, &server.codec.ends[..]), (failed(error), &[][..]));
            }
        }
    }
}
