//! Compressed messages that go out (RFC 7692 sections 6.1 and 7.2.1).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong has to stop"
)]

mod common;

use common::{AGREED, AnyClient, End, Endpoint, Heard, Keys, Sent, deflate, limits, millis, transcript};
use longwire_core::buf::{TxBuf, TxCursor};
use longwire_core::ws::deflate::{Agreed, Deflate, Window};
use longwire_core::ws::{CloseCode, Config, Connection, Kind, MIN_TX, SendError, Server};

/// A compressor that says that it made so many bytes, and fills them with sevens.
struct Says(Option<usize>);

impl Deflate for Says {
    fn deflate_message(&mut self, _: Window, _: &[u8], output: &mut [u8]) -> Option<usize> {
        let len = self.0.unwrap_or(usize::MAX).min(output.len());
        output[..len].fill(7);
        self.0
    }
}

/// One that must not be asked.
struct Unasked;

impl Deflate for Unasked {
    fn deflate_message(&mut self, _: Window, _: &[u8], _: &mut [u8]) -> Option<usize> {
        panic!("nothing is to be compressed")
    }
}

/// What goes out of a buffer with exactly the room that the message wants as it is.
fn sends<R: End>(data: &[u8], codec: &mut dyn Deflate) -> Vec<Sent> {
    let header = if data.len() < 126 { 2 } else { 4 } + if R::IS_CLIENT { 4 } else { 0 };
    let (mut bytes, mut cursor) = (vec![0; MIN_TX + header + data.len()], TxCursor::default());
    let mut tx = TxBuf::new(&mut bytes, &mut cursor);
    let mut connection = Connection::new(R::end(), Box::new(Config::new()), millis(0)).with_deflate(AGREED);
    assert_eq!(connection.send_deflated(&mut tx, Kind::Binary, data, codec), Ok(()));
    let (frames, rest) = common::frames(tx.pending());
    assert_eq!(rest, b"");
    frames
}

fn whatever_it_shrinks_to<R: End>() {
    let mask = R::IS_CLIENT.then(|| Keys::nth(1));
    let data: Vec<u8> = (0..200).collect();
    for len in [0, 1, 125, 126, 198, 199] {
        let want = Sent { b0: 0xc2, mask, payload: vec![7; len] };
        assert_eq!(sends::<R>(&data, &mut Says(Some(len))), [want], "{len}");
    }
    // Not shorter, or not at all: as it is, and nothing is left of the attempt. One that claims more than it was lent
    // is not believed.
    for says in [Some(200), Some(201), Some(usize::MAX), None] {
        let want = Sent { b0: 0x82, mask, payload: data.clone() };
        assert_eq!(sends::<R>(&data, &mut Says(says)), [want], "{says:?}");
    }
    for short in [&b""[..], b"x"] {
        let want = Sent { b0: 0x82, mask, payload: short.into() };
        assert_eq!(sends::<R>(short, &mut Says(Some(1))), [want]);
    }
}

#[test]
fn a_message_goes_out_compressed_if_that_is_shorter_and_as_it_is_otherwise() {
    whatever_it_shrinks_to::<Server>();
    whatever_it_shrinks_to::<AnyClient>();
}

#[test]
fn a_refused_message_is_not_compressed() {
    let mut server = Endpoint::<Server>::with(Config::new(), 64, MIN_TX + 100).deflate(AGREED);
    server.lend(|connection, io| {
        let tx = &mut io.tx;
        let mut send = |connection: &mut Connection<_, _>, len| {
            connection.send_deflated(tx, Kind::Text, &vec![b'x'; len], &mut Unasked)
        };
        assert_eq!(send(connection, 99), Err(SendError::Full));
        connection.start(Kind::Text).unwrap();
        assert_eq!(send(connection, 9), Err(SendError::InMessage));
        assert_eq!(connection.start_deflated(Kind::Text), Err(SendError::InMessage));
        assert!(matches!(connection.begin_shared_deflated(Kind::Text, 9), Err(SendError::InMessage)));
        connection.close(millis(0), &mut io.tx, CloseCode::NORMAL, "").unwrap();
        let late = connection.send_deflated(&mut io.tx, Kind::Text, b"late", &mut Unasked);
        assert_eq!(late, Err(SendError::Closing));
        assert_eq!(connection.start_deflated(Kind::Text), Err(SendError::Closing));
        assert_eq!(io.tx.pending().len(), 4, "the Close alone");
    });
}

/// A message that was compressed before, in pieces of `piece` bytes with as many frames, and what the other end hears.
fn streamed<R: End, P: End>(piece: usize) {
    let text = "A text that is long enough to be worth it. ".repeat(20);
    let compressed = deflate(text.as_bytes());
    let mut endpoint = Endpoint::<R>::new(Config::new()).deflate(AGREED);
    endpoint.lend(|connection, io| {
        connection.start_deflated(Kind::Text).unwrap();
        for piece in compressed.chunks(piece) {
            assert_eq!(connection.write(&mut io.tx, piece), Ok(piece.len()));
        }
        connection.finish(&mut io.tx).unwrap();
        // The next message is not compressed.
        connection.send_text(&mut io.tx, "plain").unwrap();
    });
    let b0: Vec<u8> = endpoint.frames().iter().map(|frame| frame.b0).collect();
    let pieces = compressed.len().div_ceil(piece);
    // RFC 7692 6.1: RSV1 on the first fragment alone.
    assert_eq!((b0[0], b0.len()), (0x41, pieces + 2));
    assert!(b0[1..pieces].iter().all(|b0| *b0 == 0x00));
    assert_eq!(b0[pieces..], [0x80, 0x81]);
    endpoint.write(usize::MAX);
    let heard = transcript(Endpoint::<P>::new(limits(1000, 1000)).deflate(AGREED), &[&endpoint.sent]).heard;
    assert_eq!(heard, [Heard::Text(text), Heard::Text("plain".into())]);
}

#[test]
fn rfc7692_6_1_a_streamed_message_has_rsv1_on_its_first_frame_only() {
    for piece in [1, 7, 1000] {
        streamed::<Server, AnyClient>(piece);
        streamed::<AnyClient, Server>(piece);
    }
    // Without a piece it is an empty message, and there was nothing to compress.
    let mut server = Endpoint::<Server>::new(Config::new()).deflate(AGREED);
    server.lend(|connection, io| {
        connection.start_deflated(Kind::Text).unwrap();
        connection.finish(&mut io.tx).unwrap();
    });
    assert_eq!(server.frames(), [Sent { b0: 0x81, mask: None, payload: vec![] }]);
    server.write(usize::MAX);
    let heard = transcript(Endpoint::<AnyClient>::new(Config::new()).deflate(AGREED), &[&server.sent]).heard;
    assert_eq!(heard, [Heard::Text(String::new())]);
}

#[test]
fn a_shared_message_that_is_compressed_has_rsv1_in_its_header() {
    let mut server = Endpoint::<Server>::new(Config::new()).deflate(AGREED);
    for (kind, len, want) in [
        (Kind::Text, 5, &b"\xc1\x05"[..]),
        (Kind::Binary, 126, b"\xc2\x7e\0\x7e"),
        (Kind::Binary, 0x1_0000, b"\xc2\x7f\0\0\0\0\0\x01\0\0"),
    ] {
        let header = server.lend(|connection, _| connection.begin_shared_deflated(kind, len)).unwrap();
        assert_eq!(header.as_ref(), want);
    }
    let mut plain = Endpoint::<Server>::new(Config::new());
    let refused = plain.lend(|connection, _| connection.begin_shared_deflated(Kind::Text, 5).map(|_| ()));
    assert_eq!(refused, Err(SendError::NotAgreed));
}

#[test]
fn each_end_compresses_for_its_own_window() {
    let (server, client) = (Window { bits: 9, takeover: true }, Window { bits: 10, takeover: false });
    let agreed = Agreed { server, client };
    let ends = (Endpoint::<Server>::new(Config::new()), Endpoint::<AnyClient>::new(Config::new()));
    assert_eq!((ends.0.connection.deflate(), ends.0.connection.send_window()), (None, None));
    let ends = (ends.0.deflate(agreed), ends.1.deflate(agreed));
    assert_eq!((ends.0.connection.deflate(), ends.0.connection.send_window()), (Some(agreed), Some(server)));
    assert_eq!((ends.1.connection.deflate(), ends.1.connection.send_window()), (Some(agreed), Some(client)));
}
