//! However a wire is cut, and whatever the buffers: an endpoint hears and answers the same.

mod common;

use common::{AnyClient, End, Endpoint, Flush, Heard, Wire, every_split, limits, transcript};
use longwire_core::ws::{Config, Delivery, MIN_RX, MIN_TX, ProtocolError, Server};

const MAX: u64 = 300;

/// Wires that implementations have stumbled over.
fn awkward<R: End>() -> Vec<Wire> {
    let wire = Wire::to::<R>;
    let long = [0xe2, 0x82, 0xac].repeat(42);
    vec![
        wire().text("Hello").binary(b"").ping(b"").text("").close(1000, b"bye"),
        // Control frames of all lengths between fragments, and the largest ones around a cut character.
        wire()
            .frame(0x01, "κ".as_bytes())
            .ping(b"1")
            .frame(0x00, b"\xcf")
            .ping(&[7; 125])
            .pong(&[8; 125])
            .frame(0x00, b"")
            .frame(0x80, b"\x8c")
            .text("after"),
        wire().frame(0x01, &long[..125]).ping(&[1; 125]).frame(0x80, &long[125..]),
        wire().binary(&[3; 300]).frame(0x02, &[4; 150]).frame(0x00, &[5; 149]).frame(0x80, b"6"),
        // Many small things.
        (0..40u8).fold(wire(), |wire, i| {
            wire.frame(if i % 4 == 0 { 0x02 } else { 0x00 } | (i % 4 / 3) << 7, &[i])
        }),
        (0..40u8).fold(wire(), |wire, i| wire.ping(&[i])),
        // What fails.
        wire().text("fine").frame(0x81, b"ab\xff"),
        wire().frame(0x01, b"\xf0\x9f").ping(b"between").frame(0x80, b"\x92"),
        wire().frame(0x01, b"\xf0\x9f").frame(0x01, b"\x92\x96"),
        wire().frame(0x02, &[0; 200]).frame(0x80, &[0; 101]),
        wire().frame(0x02, &[0; 9]).header(0x80, u64::MAX >> 1, 0).raw(&[0; 9]),
        wire().ping(&[0; 100]).close(1005, b""),
        wire().close(1000, b"\xff"),
        wire().raw(b"\x88\x81\0\0\0\0\x03"),
        // What ends, with something behind it.
        wire().frame(0x01, b"never finished").close(4000, "schön".as_bytes()).text("late").ping(b"late"),
        wire().frame(0x88, b"").raw(&[0xff; 200]),
        // A stream that stops anywhere.
        wire().text("whole").frame(0x02, b"part").raw(b"\x80"),
    ]
}

fn agrees_at_every_split<R: End>() {
    use Delivery::{Chunks, Whole};
    use Flush::{Always, WhenAsked};
    let setups = [
        (Whole, 4096, 4096, WhenAsked),
        (Whole, 0, 512, Always),
        (Whole, MAX as usize + MIN_RX, MIN_TX, WhenAsked),
        (Chunks, 4096, MIN_TX + 1, Always),
        (Chunks, MIN_RX, 4096, WhenAsked),
        (Chunks, MIN_RX, MIN_TX, Always),
        (Chunks, MIN_RX + 1, MIN_TX, WhenAsked),
    ];
    for wire in awkward::<R>() {
        let whole = transcript(Endpoint::<R>::with(limits(MAX, 50), 8192, 8192), &[wire.bytes()]);
        for (delivery, rx, tx, flush) in setups {
            let config = Config { delivery, ..limits(MAX, 50) };
            every_split(wire.bytes(), |pieces| {
                let mut endpoint = Endpoint::<R>::with(config.clone(), rx, tx);
                endpoint.flush = flush;
                let got = transcript(endpoint, pieces);
                let cuts = pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>();
                assert_eq!(got, whole, "{wire:x?} cut {cuts:?}, {delivery:?}, {rx}, {tx}, {flush:?}");
            });
        }
    }
}

#[test]
fn a_server_hears_the_same_at_every_split() {
    agrees_at_every_split::<Server>();
}

#[test]
fn a_client_hears_the_same_at_every_split() {
    agrees_at_every_split::<AnyClient>();
}

#[test]
fn the_awkward_wires_are_what_they_are_meant_to_be() {
    // A reference that heard nothing would agree with anything.
    let errors: Vec<_> = awkward::<Server>()
        .iter()
        .map(|wire| transcript(Endpoint::<Server>::with(limits(MAX, 50), 8192, 8192), &[wire.bytes()]))
        .filter_map(|got| match got.heard.last() {
            Some(Heard::Failed(error)) => Some(*error),
            _ => None,
        })
        .collect();
    use ProtocolError as E;
    let want = [
        E::NotUtf8,
        E::NotUtf8,
        E::ExpectedContinuation,
        E::MessageTooBig,
        E::MessageTooBig,
        E::BadCloseCode,
        E::NotUtf8,
        E::CloseTooShort,
    ];
    assert_eq!(errors, want);
    let events = awkward::<Server>()
        .iter()
        .map(|wire| transcript(Endpoint::<Server>::new(limits(MAX, 50)), &[wire.bytes()]).heard.len())
        .collect::<Vec<_>>();
    assert_eq!(events, [5, 5, 2, 2, 10, 40, 2, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1]);
}
