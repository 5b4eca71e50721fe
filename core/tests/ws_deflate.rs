//! permessage-deflate on a connection (RFC 7692 sections 6 and 7.2).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong has to stop"
)]

mod common;

use common::{
    AGREED, AnyClient, Dice, End, Endpoint, Flush, Heard, Keys, PLAIN, TAKEOVER, Wire, both_hear, deflate,
    millis, text,
};
use longwire_core::ws::deflate::{Agreed, Deflate, Window};
use longwire_core::ws::{
    CloseCause, CloseCode, Config, Delivery, Kind, MIN_RX, MIN_TX, ProtocolError, SendError, Server,
};
use proptest::collection::vec;
use proptest::prelude::*;

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

/// Sends messages compressed, and says which frames went out: whether compressed, and how long.
fn sent(endpoint: &mut Endpoint<impl End>) -> Vec<(bool, usize)> {
    endpoint.frames().iter().map(|frame| (frame.b0 & 0x40 != 0, frame.payload.len())).collect()
}

#[test]
fn what_does_not_shrink_goes_out_plain_and_the_windows_stay_in_step() {
    let mut dice = Dice(7);
    let noise: Vec<u8> = (0..500).map(|_| dice.upto(255) as u8).collect();
    let words = b"all work and no play makes Jack a dull boy; all work and no play".repeat(3);
    for agreed in [AGREED, TAKEOVER] {
        let mut client = Endpoint::<AnyClient>::new(Config::new()).deflate(agreed);
        let mut server = Endpoint::<Server>::new(Config::new()).deflate(agreed);
        let messages = [&words[..], &noise, &words, b"", &words, b"x", &words, &noise, &noise, &words];
        for message in messages {
            assert_eq!(client.send_deflated(Kind::Binary, message), Ok(()));
            client.write(usize::MAX);
        }
        let compressed: Vec<bool> = sent(&mut client).iter().map(|(rsv1, _)| *rsv1).collect();
        let words_only: Vec<bool> = messages.map(|message| message == words).into();
        // With takeover the codec forgets what went out plain, so noise repeated is noise again.
        assert_eq!(compressed, words_only);
        server.receive(&client.sent);
        assert!(server.heard == messages.map(|message| Heard::Binary(message.into())));
    }
}

fn whole_or_not_at_all<R: End>() {
    let shrinks = b"what is sent is heard, and what is heard was sent. ".repeat(8);
    let grows: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    for (message, takeover) in [(&shrinks, false), (&shrinks, true), (&grows, true)] {
        let agreed = if takeover { TAKEOVER } else { AGREED };
        let header = if R::IS_CLIENT { 8 } else { 4 };
        for tx in 0..message.len() + header + MIN_TX + 10 {
            let mut end = Endpoint::<R>::with(Config::new(), 4096, tx).deflate(agreed);
            end.flush = Flush::ByHand;
            let fits = tx >= message.len() + header + MIN_TX;
            let done = end.send_deflated(Kind::Binary, message);
            assert_eq!(done, if fits { Ok(()) } else { Err(SendError::Full) }, "{tx}");
            assert_eq!(end.pending() > 0, fits);
            // Behind something that is pending, and with something behind it.
            let (mut sum, mut messages) = (end.pending(), usize::from(fits));
            while end.send_deflated(Kind::Binary, message).is_ok() {
                assert!(end.pending() > sum);
                (sum, messages) = (end.pending(), messages + 1);
                let room = tx - sum;
                let ping = end.lend(|connection, io| connection.send_ping(&mut io.tx, b"?"));
                assert_eq!(ping.is_ok(), room >= MIN_TX + 3 + if R::IS_CLIENT { 4 } else { 0 });
                sum = end.pending();
            }
            assert_eq!(end.pending(), sum, "a refused message left something behind");
            let frames = end.frames();
            assert_eq!(frames.iter().filter(|frame| frame.b0 & 0x0f == 2).count(), messages);
            for (n, frame) in frames.iter().enumerate() {
                // The mask is asked for once a frame: none of them was left out.
                assert_eq!(frame.mask, R::IS_CLIENT.then(|| Keys::nth(n as u32 + 1)));
                assert_eq!(frame.b0 & 0x40 != 0, frame.b0 & 0x0f == 2 && message == &shrinks);
            }
        }
    }
}

#[test]
fn at_every_size_of_the_send_buffer_a_message_goes_out_whole_or_not_at_all() {
    whole_or_not_at_all::<Server>();
    whole_or_not_at_all::<AnyClient>();
}

/// Wants fewer bits than the test's codec has windows for.
#[test]
fn a_window_that_the_codec_does_not_have_is_no_window() {
    let small = Window { bits: 9, takeover: true };
    let agreed = Agreed { server: PLAIN, client: small };
    let mut client = Endpoint::<AnyClient>::new(Config::new()).deflate(agreed);
    assert_eq!(client.connection.send_window(), Some(small));
    assert_eq!(client.send_deflated(Kind::Text, &[b'x'; 100]), Ok(()));
    assert_eq!(sent(&mut client), [(false, 100)]);
    let mut server = Endpoint::<Server>::new(Config::new()).deflate(agreed);
    assert_eq!(server.connection.send_window(), Some(PLAIN));
    assert_eq!(server.send_deflated(Kind::Text, &[b'x'; 100]), Ok(()));
    assert!(sent(&mut server)[0].0);
}

/// A codec that says of its output what it likes.
struct Says(Option<usize>);

impl Deflate for Says {
    fn deflate_message(&mut self, _: Window, _: &[u8], output: &mut [u8]) -> Option<usize> {
        output.fill(0xee);
        self.0
    }
}

#[test]
fn a_codec_that_claims_what_it_cannot_have_written_is_not_believed() {
    for says in [None, Some(100), Some(101), Some(usize::MAX)] {
        let mut client = Endpoint::<AnyClient>::new(Config::new()).deflate(AGREED);
        let sent = client.lend(|connection, io| {
            connection.send_deflated(&mut io.tx, Kind::Binary, &[7; 100], &mut Says(says))
        });
        assert_eq!(sent, Ok(()));
        let frames = client.frames();
        assert_eq!(
            (frames.len(), frames[0].b0, &frames[0].payload[..]),
            (1, 0x82, &[7; 100][..]),
            "{says:?}"
        );
    }
    // One byte less than the message is compressed.
    let mut client = Endpoint::<AnyClient>::new(Config::new()).deflate(AGREED);
    let sent = client.lend(|connection, io| {
        connection.send_deflated(&mut io.tx, Kind::Binary, &[7; 100], &mut Says(Some(99)))
    });
    assert_eq!(sent, Ok(()));
    let frames = client.frames();
    assert_eq!((frames.len(), frames[0].b0, &frames[0].payload[..]), (1, 0xc2, &[0xee; 99][..]));
}

#[test]
fn a_compressed_message_in_pieces() {
    let message = "in pieces, and compressed: ".repeat(50);
    let payload = deflate(message.as_bytes());
    for (tx, cut) in [(MIN_TX + 20, 1), (MIN_TX + 9, 10), (4096, 1000)] {
        let mut client = Endpoint::<AnyClient>::with(Config::new(), 4096, tx).deflate(AGREED);
        assert_eq!(client.connection.start_deflated(Kind::Text), Ok(()));
        for piece in payload.chunks(cut) {
            let mut piece = piece;
            while !piece.is_empty() {
                let n = client.lend(|connection, io| connection.write(&mut io.tx, piece)).unwrap();
                piece = &piece[n..];
                client.write(usize::MAX);
            }
        }
        assert_eq!(client.send_deflated(Kind::Text, &[0; 9]), Err(SendError::InMessage));
        assert_eq!(client.connection.start_deflated(Kind::Text), Err(SendError::InMessage));
        assert_eq!(client.lend(|connection, io| connection.finish(&mut io.tx)), Ok(()));
        client.write(usize::MAX);
        let frames = client.frames();
        assert_eq!((frames[0].b0, frames.last().unwrap().b0), (0x41, 0x80));
        assert!(frames[1..].iter().all(|frame| frame.b0 & 0x7f == 0));
        let mut server = Endpoint::<Server>::new(Config::new()).deflate(AGREED);
        assert!(server.receive(&client.sent).heard == [text(&message)]);
    }
}

/// No piece is no compressed data, and RFC 7692 section 7.2.3.6 has a byte for the empty message.
#[test]
fn a_compressed_message_of_no_pieces_is_an_empty_one() {
    let mut server = Endpoint::<Server>::new(Config::new()).deflate(TAKEOVER);
    assert_eq!(server.connection.start_deflated(Kind::Binary), Ok(()));
    assert_eq!(server.lend(|connection, io| connection.write(&mut io.tx, b"")), Ok(0));
    assert_eq!(server.lend(|connection, io| connection.finish(&mut io.tx)), Ok(()));
    assert_eq!(server.send_deflated(Kind::Binary, b""), Ok(()));
    server.write(usize::MAX);
    assert_eq!(server.sent, [0x82, 0, 0x82, 0]);
}

#[test]
fn shared_payloads_beside_a_compressor_of_the_connection() {
    let message = "the same for everybody, compressed once. ".repeat(4);
    let shared = deflate(message.as_bytes());
    for agreed in [AGREED, TAKEOVER] {
        let mut server = Endpoint::<Server>::new(Config::new()).deflate(agreed);
        let mut client = Endpoint::<AnyClient>::new(Config::new()).deflate(agreed);
        let mut want = Vec::new();
        for n in 0..6 {
            assert_eq!(server.send_deflated(Kind::Text, message.as_bytes()), Ok(()));
            server.write(usize::MAX);
            let header = server.connection.begin_shared_deflated(Kind::Text, shared.len() as u64).unwrap();
            assert_eq!(header.as_ref()[0], 0xc1);
            server.sent.extend([header.as_ref(), &shared].concat());
            // The peer's window has moved on, without this end's compressor.
            server.codec.forget();
            let header = server.connection.begin_shared(Kind::Text, message.len() as u64).unwrap();
            server.sent.extend([header.as_ref(), message.as_bytes()].concat());
            want.extend(vec![text(&message); 3]);
            // What is plain moves no window.
            if n % 2 == 0 {
                assert_eq!(server.send_deflated(Kind::Text, message.as_bytes()), Ok(()));
                server.write(usize::MAX);
                want.push(text(&message));
            }
        }
        assert!(client.receive(&server.sent).heard == want);
    }
    let mut server = Endpoint::<Server>::new(Config::new());
    assert_eq!(server.connection.begin_shared_deflated(Kind::Text, 9).err(), Some(SendError::NotAgreed));
    let mut server = Endpoint::<Server>::new(Config::new()).deflate(AGREED);
    assert_eq!(server.connection.start(Kind::Text), Ok(()));
    assert_eq!(server.connection.begin_shared_deflated(Kind::Text, 9).err(), Some(SendError::InMessage));
    assert_eq!(server.connection.start_deflated(Kind::Text).err(), Some(SendError::InMessage));
    server.at(2000).lend(|connection, io| {
        connection.close(millis(2000), &mut io.tx, CloseCode::NORMAL, "").unwrap();
    });
    assert_eq!(server.connection.begin_shared_deflated(Kind::Text, 9).err(), Some(SendError::Closing));
    assert_eq!(server.connection.start_deflated(Kind::Text), Err(SendError::Closing));
    assert_eq!(server.send_deflated(Kind::Text, &[0; 9]), Err(SendError::Closing));
}

/// A message of some kind of data: repeated, random, or a mixture.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let repeated = (vec(any::<u8>(), 1..30), 0..3000usize)
        .prop_map(|(unit, len)| unit.into_iter().cycle().take(len).collect::<Vec<u8>>());
    let letters = vec(prop_oneof![Just(b'a'), Just(b'b')], 0..2000);
    prop_oneof![repeated, letters, vec(any::<u8>(), 0..600), vec(any::<u8>(), 0..10)]
}

/// How a message goes out.
#[derive(Clone, Copy, Debug)]
enum How {
    Compressed,
    Plain,
    /// In pieces of at most so many bytes, compressed before.
    Pieces(usize),
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![4 => Just(How::Compressed), 1 => Just(How::Plain), 1 => (1..500usize).prop_map(How::Pieces)]
}

fn round_trip<A: End, B: End>(
    messages: &[(Vec<u8>, How)],
    (takeover, delivery): (bool, Delivery),
    (rx, read): (usize, usize),
) {
    let agreed = if takeover { TAKEOVER } else { AGREED };
    let mut one = Endpoint::<A>::with(Config::new(), 4096, 4096).deflate(agreed);
    let config = Config { delivery, max_message: 3000, ..Config::new() };
    let mut other = Endpoint::<B>::with(config, rx, 4096).deflate(agreed);
    for (message, how) in messages {
        match *how {
            How::Compressed => one.send_deflated(Kind::Binary, message).unwrap(),
            How::Plain => {
                one.lend(|connection, io| connection.send_binary(&mut io.tx, message)).unwrap();
            }
            How::Pieces(most) => {
                one.codec.forget();
                one.connection.start_deflated(Kind::Binary).unwrap();
                for piece in deflate(message).chunks(most) {
                    let n = one.lend(|connection, io| connection.write(&mut io.tx, piece)).unwrap();
                    assert_eq!(n, piece.len());
                    one.write(usize::MAX);
                }
                one.lend(|connection, io| connection.finish(&mut io.tx)).unwrap();
            }
        }
        one.write(usize::MAX);
    }
    one.sent.chunks(read).for_each(|piece| _ = other.receive(piece));
    let want: Vec<_> = messages.iter().map(|(message, _)| Heard::Binary(message.clone())).collect();
    assert!(other.heard == want, "{:?}", other.heard.last());
    assert!(other.codec.ends.iter().all(|window| window.takeover == takeover));
    if rx == 2 * 3000 + MIN_RX || delivery == Delivery::Chunks {
        assert_eq!(other.asked, []);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn whatever_is_sent_is_heard(
        messages in vec((message(), how()), 1..12),
        (takeover, up, chunks) in any::<(bool, bool, bool)>(),
        rx in prop_oneof![Just(MIN_RX), Just(2 * 3000 + MIN_RX), MIN_RX..2000usize],
        read in prop_oneof![Just(usize::MAX), 1..10usize, 1..2000usize],
    ) {
        let delivery = if chunks { Delivery::Chunks } else { Delivery::Whole };
        if up {
            round_trip::<AnyClient, Server>(&messages, (takeover, delivery), (rx, read));
        } else {
            round_trip::<Server, AnyClient>(&messages, (takeover, delivery), (rx, read));
        }
    }
}
