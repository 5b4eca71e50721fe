//! permessage-deflate on a connection (RFC 7692 sections 6 and 7.2).

mod common;

use common::{AnyClient, End, Endpoint, Heard, Wire, deflate, every_split, transcript};
use longwire_core::ws::deflate::{Agreed, Window};
use longwire_core::ws::{
    CloseCause, CloseCode, Config, Delivery, Kind, MIN_RX, ProtocolError, SendError, Server,
};

const PLAIN: Window = Window { bits: 15, takeover: false };
const AGREED: Agreed = Agreed { server: PLAIN, client: PLAIN };
const TAKEOVER: Agreed =
    Agreed { server: Window { bits: 15, takeover: true }, client: Window { bits: 15, takeover: true } };

fn text(text: &str) -> Heard {
    Heard::Text(text.into())
}

/// What an end makes of a wire, at every split, in pieces and whole, with large and small buffers.
fn hears<R: End>(agreed: Agreed, wire: &Wire, want: &[Heard]) {
    for delivery in [Delivery::Whole, Delivery::Chunks] {
        for rx in [MIN_RX, 400, 4096] {
            every_split(wire.bytes(), |pieces| {
                let config = Config { delivery, ..Config::new() };
                let endpoint = Endpoint::<R>::with(config, rx, 4096).deflate(agreed);
                let got = transcript(endpoint, pieces);
                assert_eq!(got.heard, want, "{delivery:?}, {rx}, {pieces:x?}");
            });
        }
    }
}

fn both_hear(agreed: Agreed, wire: impl Fn(Wire) -> Wire, want: &[Heard]) {
    hears::<Server>(agreed, &wire(Wire::to::<Server>()), want);
    hears::<AnyClient>(agreed, &wire(Wire::to::<AnyClient>()), want);
}

#[test]
fn rfc7692_7_2_3_1_a_message_compressed_using_one_block() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    both_hear(AGREED, |wire| wire.frame(0xc1, &hello), &[text("Hello")]);
    // In two fragments: RSV1 on the first.
    both_hear(AGREED, |wire| wire.frame(0x41, &hello[..3]).frame(0x80, &hello[3..]), &[text("Hello")]);
}

#[test]
fn rfc7692_7_2_3_2_sharing_the_window() {
    let first = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let second = [0xf2, 0x00, 0x11, 0x00, 0x00];
    both_hear(TAKEOVER, |w| w.frame(0xc1, &first).frame(0xc1, &second), &[text("Hello"), text("Hello")]);
    let corrupt = [text("Hello"), Heard::Failed(ProtocolError::Corrupt)];
    both_hear(AGREED, |w| w.frame(0xc1, &first).frame(0xc1, &second), &corrupt);
}

#[test]
fn rfc7692_7_2_3_3_a_block_without_compression() {
    let hello = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
    both_hear(AGREED, |wire| wire.frame(0xc1, &hello), &[text("Hello")]);
}

#[test]
fn rfc7692_7_2_3_4_a_block_with_bfinal() {
    let hello = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    both_hear(AGREED, |wire| wire.frame(0xc1, &hello), &[text("Hello")]);
    both_hear(TAKEOVER, |w| w.frame(0xc1, &hello).frame(0xc1, &hello), &[text("Hello"), text("Hello")]);
}

#[test]
fn rfc7692_7_2_3_5_two_blocks() {
    let hello = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
    both_hear(AGREED, |wire| wire.frame(0xc1, &hello), &[text("Hello")]);
}

#[test]
fn what_is_sent_is_heard() {
    let message = "It is what it is, and it is longer than what it becomes. ".repeat(40);
    for agreed in [AGREED, TAKEOVER] {
        let mut client = Endpoint::<AnyClient>::new(Config::new()).deflate(agreed);
        let mut sizes = Vec::new();
        for _ in 0..3 {
            let before = client.sent.len();
            assert_eq!(client.send_deflated(Kind::Text, message.as_bytes()), Ok(()));
            client.write(usize::MAX);
            sizes.push(client.sent.len() - before);
        }
        assert!(sizes[0] < 150, "{sizes:?}");
        assert_eq!(sizes[1] < sizes[0], agreed == TAKEOVER, "{sizes:?}");
        let mut server = Endpoint::<Server>::new(Config::new()).deflate(agreed);
        server.receive(&client.sent);
        assert!(server.heard == [text(&message), text(&message), text(&message)]);
    }
}

#[test]
fn the_limit_holds_for_what_comes_out() {
    let limit = 5000usize;
    for (len, fits) in [(limit, true), (limit + 1, false), (1000 * limit, false)] {
        let bomb = deflate(&vec![b'x'; len]);
        for delivery in [Delivery::Whole, Delivery::Chunks] {
            let config = Config { delivery, max_message: limit as u64, ..Config::new() };
            let mut server = Endpoint::<Server>::with(config, 256, 4096).deflate(AGREED);
            server.receive(Wire::to::<Server>().frame(0xc2, &bomb).bytes());
            if fits {
                assert_eq!(server.heard, [Heard::Binary(vec![b'x'; len])]);
            } else {
                assert_eq!(server.heard.last(), Some(&Heard::Failed(ProtocolError::MessageTooBig)));
                assert_eq!(server.closed, Some(CloseCause::Failed(CloseCode::TOO_BIG)));
            }
            assert!(server.codec.total.written <= limit + 1);
        }
    }
}

#[test]
fn without_an_agreement_nothing_is_sent_compressed() {
    let mut server = Endpoint::<Server>::new(Config::new());
    assert_eq!(server.send_deflated(Kind::Binary, &[0; 1000]), Ok(()));
    server.write(usize::MAX);
    assert_eq!(server.sent[..4], [0x82, 126, 3, 232]);
    assert_eq!(server.connection.start_deflated(Kind::Text), Err(SendError::NotAgreed));
}
