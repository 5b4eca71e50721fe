//! Text is UTF-8: RFC 6455 sections 5.6 and 8.1.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong has to stop"
)]

mod common;

use common::{AnyClient, End, Endpoint, Heard, Wire, every_split, transcript};
use longwire_core::ws::{CloseCause, CloseCode, Config, Delivery, ProtocolError, Server};

/// What Unicode's table 3-7 allows at its edges, and what it does not.
const VALID: [&[u8]; 9] = [
    b"",
    "κόσμε".as_bytes(),
    "Hello-µ@ßöäüàá-UTF-8!!".as_bytes(),
    b"\x00\x7f\xc2\x80\xdf\xbf",
    b"\xe0\xa0\x80\xef\xbf\xbf",
    b"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf",
    b"\xed\x9f\xbf\xee\x80\x80",
    b"\xef\xbb\xbf",
    b"a\xf0\x9d\x84\x9eb",
];
const INVALID: [&[u8]; 18] = [
    b"\x80",
    b"\xbf",
    b"a\xc0\xaf",
    b"\xc1\xbf",
    b"\xe0\x80\xaf",
    b"\xe0\x9f\xbf",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf0\x80\x80\xaf",
    b"\xf0\x8f\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfe",
    b"\xff",
    b"\xc3\x28",
    b"\xe2\x82\x28",
    b"\xf0\x9d\x84\xc3",
];
const CUT: [&[u8]; 5] = [b"\xc3", b"a\xe2\x82", b"\xe2", b"\xf0\x9d\x84", b"\xf4"];

/// `text` in one frame, and in two and three with every cut.
fn wires<R: End>(text: &[u8]) -> Vec<Wire> {
    let mut wires = vec![Wire::to::<R>().frame(0x81, text)];
    for a in 0..=text.len() {
        for b in a..=text.len() {
            let wire = Wire::to::<R>().frame(0x01, &text[..a]).frame(0x00, &text[a..b]);
            wires.push(wire.frame(0x80, &text[b..]));
        }
    }
    wires
}

fn judged<R: End>(text: &[u8], want: &Heard) {
    for (i, wire) in wires::<R>(text).iter().enumerate() {
        for delivery in [Delivery::Whole, Delivery::Chunks] {
            let config = Config { delivery, ..Config::new() };
            let check = |pieces: &[&[u8]]| {
                let got = transcript(Endpoint::<R>::with(config.clone(), 200, 200), pieces);
                assert_eq!(got.heard, std::slice::from_ref(want), "{text:x?} as {wire:x?}");
            };
            if i < 3 {
                every_split(wire.bytes(), check);
            } else {
                check(&wire.bytes().chunks(1).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn rfc6455_8_1_valid_text_over_fragments_and_splits() {
    for text in VALID {
        let want = Heard::Text(String::from_utf8(text.into()).unwrap());
        judged::<Server>(text, &want);
        judged::<AnyClient>(text, &want);
    }
}

#[test]
fn rfc6455_8_1_invalid_text_over_fragments_and_splits() {
    for text in INVALID.iter().chain(&CUT) {
        judged::<Server>(text, &Heard::Failed(ProtocolError::NotUtf8));
        judged::<AnyClient>(text, &Heard::Failed(ProtocolError::NotUtf8));
    }
}

#[test]
fn binary_may_be_any_bytes() {
    for text in INVALID.iter().chain(&CUT) {
        let wire = Wire::to::<Server>().frame(0x02, b"").frame(0x80, text);
        let got = transcript(Endpoint::<Server>::new(Config::new()), &[wire.bytes()]);
        assert_eq!(got.heard, [Heard::Binary(text.to_vec())]);
    }
}

#[test]
fn a_bad_byte_fails_at_once_and_not_at_the_end_of_the_message() {
    // A megabyte is announced, and more fragments than that; the third byte is wrong.
    for delivery in [Delivery::Whole, Delivery::Chunks] {
        let mut server = Endpoint::<Server>::new(Config { delivery, ..Config::new() });
        let payload = [b'a' ^ 0x37, b'b' ^ 0xfa];
        server.receive(Wire::to::<Server>().header(0x01, 1 << 20, 0).raw(&payload).bytes());
        assert_eq!(server.heard, []);
        server.receive(&[0xff ^ 0x21]);
        assert_eq!(server.heard, [Heard::Failed(ProtocolError::NotUtf8)]);
        assert_eq!(server.closed, Some(CloseCause::Failed(CloseCode::INVALID_PAYLOAD)));
    }
    // A byte that can never follow fails before its character is complete.
    let mut server = Endpoint::<Server>::new(Config::new());
    server.receive(Wire::to::<Server>().frame(0x01, b"\xf4").bytes());
    assert_eq!(server.closed, None);
    server.receive(Wire::to::<Server>().frame(0x00, b"\x90").bytes());
    assert_eq!(server.heard, [Heard::Failed(ProtocolError::NotUtf8)]);
}

#[test]
fn only_text_is_checked_and_each_text_by_itself() {
    let wire = Wire::to::<Server>().text("é").frame(0x02, b"\xc3").frame(0x80, b"\x28").text("é");
    let got = transcript(Endpoint::<Server>::new(Config::new()), &[wire.bytes()]);
    assert_eq!(
        got.heard,
        [Heard::Text("é".into()), Heard::Binary(b"\xc3\x28".into()), Heard::Text("é".into())]
    );
}

#[test]
fn a_long_text_is_checked_over_the_edges_of_what_is_unmasked_at_once() {
    // Characters of three bytes lie across any edge at two of three offsets, wherever the edges are.
    let whole = "世".repeat(24 * 1024);
    for delivery in [Delivery::Whole, Delivery::Chunks] {
        for ahead in ["", "a", "ab"] {
            let text = format!("{ahead}{whole}");
            let hears = |payload: &[u8], want: Heard| {
                let config = Config { delivery, ..Config::new() };
                let wire = Wire::to::<Server>().frame(0x81, payload);
                let got = transcript(Endpoint::<Server>::with(config, 80 * 1024, 200), &[wire.bytes()]);
                assert!(got.heard == [want], "{delivery:?}, {ahead}");
            };
            hears(text.as_bytes(), Heard::Text(text.clone()));
            // One bad byte, near where edges may be, and a cut at the end.
            for at in [4096, 16 * 1024, 32 * 1024, 64 * 1024].into_iter().flat_map(|at| at - 3..at + 3) {
                let mut bad = text.clone().into_bytes();
                bad[at] = 0xff;
                hears(&bad, Heard::Failed(ProtocolError::NotUtf8));
            }
            hears(&text.as_bytes()[..text.len() - 1], Heard::Failed(ProtocolError::NotUtf8));
        }
    }
}
