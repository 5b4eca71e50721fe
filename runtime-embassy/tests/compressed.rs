//! Compressed messages: a client with an inflater against a server made of the same core.
#![expect(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;
#[path = "common/zlib.rs"]
mod zlib;

use std::convert::Infallible;

use common::{Memory, Numbers, Pace, clock, poll_times};
use longwire_core::buf::{Io, RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::http::upgrade::{self, Offer, ResponseError};
use longwire_core::session::{ClientMessage, Data, cbor};
use longwire_core::time::Instant;
use longwire_core::ws::deflate::{self, Agreed, BadAnswer, Window};
use longwire_core::ws::{self, CloseCode, Connection, Event, Kind, ProtocolError, Server, Step};
use longwire_embassy::{Config, Decompressor, Error, HandshakeError, Inflater, WebSocket};
use zlib::Zlib;

static CONFIG: Config = Config::new();
static SERVER: ws::Config = ws::Config::new();
const OFFER: Offer<'static> = Offer::new("10.0.2.2:8080", "/v1/stream");

/// A server that answers an offer with `answer` in `Sec-WebSocket-Extensions`, and then sends what `frames` writes.
struct Peer<A, F> {
    answer: A,
    frames: F,
}

/// What came of a connection.
struct Outcome {
    /// What the client offered.
    offered: Option<String>,
    events: Vec<String>,
    error: Error<Infallible>,
    /// What the client sent after its request.
    sent: Vec<u8>,
}

impl Outcome {
    /// With which code the client closed.
    fn close_code(&self) -> Option<CloseCode> {
        let mut server = Connection::new(Server, &SERVER, Instant::default());
        let (mut rx, mut rx_at) = (vec![0; 8192], RxCursor::default());
        let (mut tx, mut tx_at) = (vec![0; 8192], TxCursor::default());
        let mut io = Io::new(RxBuf::new(&mut rx, &mut rx_at), TxBuf::new(&mut tx, &mut tx_at));
        assert_eq!(io.rx.fill(&self.sent), self.sent.len());
        while let Step::Event(found) = server.poll(Instant::default(), &mut io).unwrap() {
            if let Event::Close(reason) = found.event(io.rx.reborrow()) {
                return reason.code;
            }
        }
        None
    }
}

/// Answers the request in `wire`: says what it offered, and what follows the answer.
fn answer(wire: &[u8], extensions: impl FnOnce(Option<&str>) -> Option<String>) -> (Option<String>, Vec<u8>) {
    let (offered, reply) = common::answer(wire, |request, tx| {
        upgrade::accept(request).unwrap().write_response(tx, None, None, &[]).unwrap();
        request.header("sec-websocket-extensions").map(|offer| String::from_utf8(offer.to_vec()).unwrap())
    });
    let mut reply = String::from_utf8(reply).unwrap();
    // What the core would refuse to write is put in by hand.
    if let Some(extensions) = extensions(offered.as_deref()) {
        let line = format!("\r\nSec-WebSocket-Extensions: {extensions}\r\n\r\n");
        reply = reply.replace("\r\n\r\n", &line);
    }
    (offered, reply.into_bytes())
}

impl<A, F> Peer<A, F>
where
    A: FnOnce(Option<&str>) -> Option<String>,
    F: FnOnce(&mut Connection<Server>, &mut TxBuf<'_>, &mut Zlib),
{
    /// Connects to it, and receives until the connection is over.
    fn meet(
        self,
        pace: Pace,
        rx_len: usize,
        agreed: Option<Agreed>,
        decompressor: Option<Decompressor<'_>>,
    ) -> Result<Outcome, HandshakeError<Infallible>> {
        let link = Memory::new(pace);
        let wire = link.wire.clone();
        let (mut rx, mut tx) = (vec![0; rx_len], [0; 512]);
        let (rx, tx) = (&mut rx[..], &mut tx[..]);
        let (offered, mut socket) = {
            let connect = async {
                match decompressor {
                    Some(lent) => {
                        WebSocket::connect_compressed(link, &OFFER, &CONFIG, Numbers(1), rx, tx, lent).await
                    }
                    None => WebSocket::connect(link, &OFFER, &CONFIG, Numbers(1), rx, tx).await,
                }
            };
            let mut connect = std::pin::pin!(connect);
            assert!(poll_times(connect.as_mut(), 2000).is_none());
            let request = core::mem::take(&mut wire.borrow_mut().from_client);
            let (offered, reply) = answer(&request, self.answer);
            wire.borrow_mut().to_client.extend(reply);
            // Frames come right behind the answer.
            let mut server = Connection::new(Server, &SERVER, Instant::default());
            if let Some(agreed) = agreed {
                server = server.with_deflate(agreed);
            }
            let (mut bytes, mut at) = (vec![0; 1 << 17], TxCursor::default());
            let mut tx = TxBuf::new(&mut bytes, &mut at);
            (self.frames)(&mut server, &mut tx, &mut Zlib::default());
            wire.borrow_mut().to_client.extend(tx.pending());
            wire.borrow_mut().ended = true;
            (offered, poll_times(connect, 9000).unwrap()?.0)
        };
        let mut events = Vec::new();
        let error = loop {
            match poll_times(socket.recv(), 200_000).unwrap() {
                Ok(Event::Binary(data)) => events.push(format!("binary {}", String::from_utf8_lossy(data))),
                Ok(Event::Text(text)) => events.push(format!("text {}", text.as_str())),
                Ok(event) => events.push(format!("{event:?}")),
                Err(error) => break error,
            }
        };
        let sent = wire.borrow().from_client.clone();
        Ok(Outcome { offered, events, error, sent })
    }
}

/// A server that takes what is offered as it is.
fn accepting(offered: Option<&str>) -> Option<String> {
    let offers = longwire_core::http::extension::parse(offered?.as_bytes());
    let own = deflate::Config { send: Window { bits: 15, takeover: true }, ..deflate::Config::new() };
    Some(own.accept(offers.flatten()).unwrap().1.as_str().into())
}

fn agreed(window: Window) -> Agreed {
    Agreed { server: window, client: Window { bits: 15, takeover: false } }
}

const READING: &str = r#"{"topic":"room/7/celsius","value":21.5,"topic":"room/8/celsius","value":21.5}"#;

/// Sends a message, and sees that it goes out compressed.
fn compressed(server: &mut Connection<Server>, tx: &mut TxBuf<'_>, kind: Kind, data: &[u8], zlib: &mut Zlib) {
    let before = tx.pending().len();
    server.send_deflated(tx, kind, data, zlib).unwrap();
    let first = tx.pending().get(before).unwrap();
    assert_eq!(first & 0xf0, 0xc0, "FIN and RSV1");
}

/// Text, binary and CBOR; in frames and whole; with control frames between and inside; plain ones among them.
fn conversation(server: &mut Connection<Server>, tx: &mut TxBuf<'_>, zlib: &mut Zlib) {
    let mut envelope = heapless::Vec::<u8, 256>::new();
    cbor::encode_client(
        &ClientMessage::Pub { n: Some(1), topic: "room".into(), key: None, data: Data::Cbor(&[0; 200]) },
        &mut envelope,
    )
    .unwrap();
    compressed(server, tx, Kind::Text, READING.as_bytes(), zlib);
    server.send_ping(tx, b"one").unwrap();
    compressed(server, tx, Kind::Binary, &envelope, zlib);
    server.send_text(tx, "plain").unwrap();
    compressed(server, tx, Kind::Text, "é".repeat(200).as_bytes(), zlib);
    let window = server.send_window().unwrap();
    let fragmented = zlib.deflate(window, READING.repeat(4).as_bytes());
    server.start_deflated(Kind::Text).unwrap();
    for piece in fragmented.chunks(11) {
        assert_eq!(server.write(tx, piece).unwrap(), piece.len());
        server.send_ping(tx, b"").unwrap();
    }
    server.finish(tx).unwrap();
    compressed(server, tx, Kind::Binary, &envelope, zlib);
    server.close(Instant::default(), tx, CloseCode::NORMAL, "").unwrap();
}

/// The longest message of [`conversation`].
const LONGEST: usize = 4 * READING.len();

#[test]
fn messages_of_each_kind_at_every_read_size() {
    let _clock = clock();
    for takeover in [false, true] {
        let window = Window { bits: 9, takeover };
        let mut inflater = match takeover {
            true => Inflater::<512>::with_takeover(),
            false => Inflater::<512>::new(),
        };
        let mut whole = None;
        for bytes in (1..70).chain([usize::MAX]) {
            let peer = Peer { answer: accepting, frames: conversation };
            let lent = Decompressor::from(&mut inflater);
            let done = peer.meet(Pace::Bytes(bytes), 2 * LONGEST, Some(agreed(window)), Some(lent)).unwrap();
            assert!(matches!(done.error, Error::Closed(ws::CloseCause::Clean)), "{:?}", done.error);
            let expected = match takeover {
                true => {
                    "permessage-deflate; client_no_context_takeover; server_max_window_bits=9; client_max_window_bits"
                }
                false => {
                    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                          server_max_window_bits=9; client_max_window_bits"
                }
            };
            assert_eq!(done.offered.as_deref(), Some(expected));
            let events = done.events.iter().filter(|event| !event.starts_with("Ping([])"));
            let events: Vec<_> = events.cloned().collect();
            assert_eq!(events.len(), 8, "{events:?}");
            assert_eq!(events[0], format!("text {READING}"));
            assert_eq!(events[3], "text plain");
            assert_eq!(events[5], format!("text {}", READING.repeat(4)));
            assert!(events[2] == events[6] && events[2].contains("room"));
            assert_eq!(*whole.get_or_insert(events.clone()), events, "{bytes} bytes at once");
        }
    }
}

/// A server that declines, or does not know compression.
#[test]
fn without_compression_nothing_changes() {
    let _clock = clock();
    let plain = |server: &mut Connection<Server>, tx: &mut TxBuf<'_>, _: &mut Zlib| {
        server.send_text(tx, READING).unwrap();
        server.close(Instant::default(), tx, CloseCode::NORMAL, "").unwrap();
    };
    let mut inflater = Inflater::<256>::new();
    for lent in [Some(Decompressor::from(&mut inflater)), None] {
        let lends = lent.is_some();
        let peer = Peer { answer: |_: Option<&str>| None, frames: plain };
        let done = peer.meet(Pace::Bytes(7), 300, None, lent).unwrap();
        assert_eq!(done.offered.is_some(), lends);
        assert_eq!(done.events[0], format!("text {READING}"));
        // A compressed message that was not agreed on.
        let peer = Peer {
            answer: |_: Option<&str>| None,
            frames: |_: &mut Connection<Server>, tx: &mut TxBuf<'_>, _: &mut Zlib| {
                assert!(tx.put(&[b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"]));
            },
        };
        let done = peer.meet(Pace::Bytes(7), 300, None, None).unwrap();
        assert!(matches!(done.error, Error::Protocol(ProtocolError::ReservedBits)), "{:?}", done.error);
    }
}

#[test]
fn a_server_that_goes_beyond_the_offer_fails_the_handshake() {
    let _clock = clock();
    let fails = |answer: &'static str, takeover| {
        let mut small = Inflater::<512>::new();
        let mut keeps = Inflater::<512>::with_takeover();
        let lent = if takeover { Decompressor::from(&mut keeps) } else { Decompressor::from(&mut small) };
        let silent = |_: &mut Connection<Server>, _: &mut TxBuf<'_>, _: &mut Zlib| {};
        let peer = Peer { answer: |_: Option<&str>| Some(answer.into()), frames: silent };
        peer.meet(Pace::Bytes(9), 512, None, Some(lent)).err()
    };
    let deflate = Some(HandshakeError::Deflate(BadAnswer));
    // Ignores `server_max_window_bits`, or grants more.
    assert_eq!(fails("permessage-deflate; server_no_context_takeover", false), deflate);
    let more = "permessage-deflate; server_no_context_takeover; server_max_window_bits=10";
    assert_eq!(fails(more, false), deflate);
    // Ignores `server_no_context_takeover`; which is fine if the inflater takes over.
    assert_eq!(fails("permessage-deflate; server_max_window_bits=9", false), deflate);
    assert_eq!(fails("permessage-deflate; server_max_window_bits=9", true), None);
    // Unknown, repeated, malformed.
    assert_eq!(fails("permessage-deflate; server_max_window_bits=9; fast", true), deflate);
    assert_eq!(fails("permessage-deflate; server_max_window_bits=09", true), deflate);
    let twice = "permessage-deflate; server_max_window_bits=9, permessage-deflate; server_max_window_bits=9";
    assert_eq!(fails(twice, true), deflate);
    let other = HandshakeError::Response(ResponseError::Extensions);
    assert_eq!(fails("permessage-snappy", true), Some(other));
    // Less than was asked for; what the client may do is of no interest to one that does not compress.
    let less =
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=8; client_max_window_bits=8";
    assert_eq!(fails(less, true), None);
}

#[test]
fn a_server_that_does_not_keep_to_the_window_is_closed_with_1007() {
    let _clock = clock();
    // 600 bytes that do not repeat, twice: zlib refers 600 bytes back.
    let mut numbers = Numbers(7);
    let noise: Vec<u8> = std::iter::repeat_with(|| numbers.next().to_le_bytes()[0]).take(600).collect();
    let far = move |server: &mut Connection<Server>, tx: &mut TxBuf<'_>, zlib: &mut Zlib| {
        let wire = zlib.deflate(Window { bits: 15, takeover: false }, &noise.repeat(2));
        server.start_deflated(Kind::Binary).unwrap();
        assert_eq!(server.write(tx, &wire).unwrap(), wire.len());
        server.finish(tx).unwrap();
    };
    let window = Window { bits: 9, takeover: false };
    let mut inflater = Inflater::<512>::new();
    let lent = Some(Decompressor::from(&mut inflater));
    let peer = Peer { answer: accepting, frames: far.clone() };
    let done = peer.meet(Pace::Bytes(64), 4096, Some(agreed(window)), lent).unwrap();
    assert_eq!(done.error, Error::Protocol(ProtocolError::Corrupt));
    assert_eq!((done.events.len(), done.close_code()), (0, Some(CloseCode::INVALID_PAYLOAD)));
    // The same bytes within a window that is large enough.
    let window = Window { bits: 10, takeover: false };
    let mut inflater = Inflater::<1024>::new();
    let lent = Some(Decompressor::from(&mut inflater));
    let peer = Peer { answer: accepting, frames: far };
    let done = peer.meet(Pace::Bytes(64), 4096, Some(agreed(window)), lent).unwrap();
    assert_eq!(done.events.len(), 1);
}

#[test]
fn a_bomb_is_closed_with_1009_when_the_receive_buffer_is_full() {
    let _clock = clock();
    let window = Window { bits: 9, takeover: false };
    let bomb = |len: usize| {
        move |server: &mut Connection<Server>, tx: &mut TxBuf<'_>, zlib: &mut Zlib| {
            compressed(server, tx, Kind::Binary, &vec![b'0'; len], zlib);
        }
    };
    let mut inflater = Inflater::<512>::new();
    for bytes in [1, 7, usize::MAX] {
        let peer = Peer { answer: accepting, frames: bomb(100_000) };
        let lent = Some(Decompressor::from(&mut inflater));
        let done = peer.meet(Pace::Bytes(bytes), 512, Some(agreed(window)), lent).unwrap();
        assert_eq!(done.error, Error::MessageTooBig);
        assert_eq!((done.events.len(), done.close_code()), (0, Some(CloseCode::TOO_BIG)));
        // The inflater that was left in the middle of it serves the next connection.
        let peer = Peer { answer: accepting, frames: bomb(300) };
        let lent = Some(Decompressor::from(&mut inflater));
        let done = peer.meet(Pace::Bytes(bytes), 512, Some(agreed(window)), lent).unwrap();
        assert_eq!(done.events, [format!("binary {}", "0".repeat(300))]);
    }
}

#[test]
fn any_dropped_future_equals_the_whole() {
    let _clock = clock();
    let window = Window { bits: 10, takeover: true };
    let (mut bytes, mut at) = (vec![0; 8192], TxCursor::default());
    let mut frames = TxBuf::new(&mut bytes, &mut at);
    let mut server = Connection::new(Server, &SERVER, Instant::default()).with_deflate(agreed(window));
    conversation(&mut server, &mut frames, &mut Zlib::default());
    let mut inflater = Inflater::<1024>::with_takeover();
    let mut whole = None;
    for seed in 0..60 {
        let link = Memory::new(Pace::Random(Numbers(seed), 1 + usize::try_from(seed * 5).unwrap()));
        link.wire.borrow_mut().to_client.extend(frames.pending());
        link.wire.borrow_mut().ended = true;
        let (mut rx, mut tx) = (vec![0; 2 * LONGEST], [0; 512]);
        let socket = WebSocket::new(link, &CONFIG, Numbers(1), &mut rx, &mut tx);
        let mut socket = socket.with_deflate(agreed(window), &mut inflater);
        let (mut numbers, mut seen) = (Numbers(!seed), Vec::new());
        loop {
            match poll_times(socket.recv(), 1 + numbers.below(4)) {
                None => {}
                Some(Ok(event)) => seen.push(format!("{event:?}")),
                Some(Err(error)) => {
                    assert_eq!(error, Error::Closed(ws::CloseCause::Clean));
                    break;
                }
            }
        }
        assert_eq!(*whole.get_or_insert(seen.clone()), seen, "seed {seed}");
    }
}
