//! The client against a server made of the same core, over a stream in memory.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helper fails the test")]

mod common;

use std::convert::Infallible;

use common::{Memory, Numbers, Pace, clock, poll_times};
use embassy_time::Duration;
use longwire_core::buf::{Io, RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::http::head::HeadError;
use longwire_core::http::upgrade::{self, Offer, ResponseError};
use longwire_core::time::Instant;
use longwire_core::ws::{self, CloseCause, CloseCode, Connection, Event, Kind, SendError, Server, Step};
use longwire_embassy::{Config, Error, HandshakeError, Link, WebSocket};
use proptest::prelude::*;

static CONFIG: Config = Config::new();
static SERVER: ws::Config = ws::Config::new();

/// What was received, in words.
type Transcript = Vec<String>;

fn describe(event: Event<'_>) -> String {
    match event {
        Event::Binary(data) => format!("binary {data:?}"),
        event => format!("{event:?}"),
    }
}

/// What a server sends: everything that may stand between and inside of messages, then a Close.
fn server_wire() -> Vec<u8> {
    let mut server = Connection::new(Server, &SERVER, Instant::default());
    let (mut bytes, mut at) = (vec![0; 4096], TxCursor::default());
    let mut tx = TxBuf::new(&mut bytes, &mut at);
    server.send_text(&mut tx, "Hello").unwrap();
    server.send_ping(&mut tx, b"one").unwrap();
    server.start(Kind::Binary).unwrap();
    for piece in [&b"frag"[..], b"ment", b"ed"] {
        assert_eq!(server.write(&mut tx, piece).unwrap(), piece.len());
        server.send_ping(&mut tx, piece).unwrap();
    }
    server.finish(&mut tx).unwrap();
    server.send_binary(&mut tx, b"").unwrap();
    server.send_pong(&mut tx, &[7; 125]).unwrap();
    server.send_binary(&mut tx, &[b'x'; 300]).unwrap();
    server.close(Instant::default(), &mut tx, CloseCode::NORMAL, "done").unwrap();
    tx.pending().to_vec()
}

/// What a server receives of `wire`.
fn received_by_server(wire: &[u8]) -> Transcript {
    let mut server = Connection::new(Server, &SERVER, Instant::default());
    let (mut rx, mut rx_at) = (vec![0; 8192], RxCursor::default());
    let (mut tx, mut tx_at) = (vec![0; 8192], TxCursor::default());
    let mut io = Io::new(RxBuf::new(&mut rx, &mut rx_at), TxBuf::new(&mut tx, &mut tx_at));
    assert_eq!(io.rx.fill(wire), wire.len());
    let mut seen = Transcript::new();
    while let Step::Event(found) = server.poll(Instant::default(), &mut io).unwrap() {
        seen.push(describe(found.event(io.rx.reborrow())));
    }
    seen
}

/// Receives everything and answers each message with itself; each future is dropped after as many polls as
/// `patience` says. Gives what the client saw, and what it sent.
fn echo(pace: Pace, mut patience: impl FnMut() -> usize) -> (Transcript, Vec<u8>) {
    let link = Memory::new(pace);
    let wire = link.wire.clone();
    wire.borrow_mut().to_client.extend(server_wire());
    wire.borrow_mut().ended = true;
    let (mut rx, mut tx) = ([0; 300 + ws::MIN_RX], [0; 320 + ws::MIN_TX]);
    let mut socket = WebSocket::new(link, &CONFIG, Numbers(1), &mut rx, &mut tx);
    let mut seen = Transcript::new();
    for _ in 0..100_000 {
        let answer = match poll_times(socket.recv(), patience()) {
            None => continue,
            Some(Ok(event)) => {
                seen.push(describe(event));
                match event {
                    Event::Text(text) => text.as_bytes().to_vec(),
                    Event::Binary(data) => data.to_vec(),
                    _ => continue,
                }
            }
            Some(Err(Error::Closed(CloseCause::Clean))) => return (seen, wire.take().from_client),
            Some(Err(error)) => panic!("{error}"),
        };
        while socket.try_send_binary(&answer) == Err(SendError::Full) {
            poll_times(socket.flush(), patience()).unwrap_or(Ok(())).unwrap();
        }
    }
    panic!("no end: {seen:?}")
}

#[test]
fn any_split_and_any_dropped_future_equal_the_whole() {
    let _clock = clock();
    let (seen, sent) = echo(Pace::Bytes(usize::MAX), || usize::MAX);
    assert_eq!(seen.len(), 10, "{seen:?}");
    let at_server = received_by_server(&sent);
    // Four Pongs, four messages, and the Close.
    assert_eq!(at_server.len(), 9, "{at_server:?}");
    for bytes in [1, 2, 3, 7, 125, usize::MAX] {
        // A patience of 1 drops every future at its first wait.
        for patience in [1, 2, 3, 5, usize::MAX] {
            let (again, sent) = echo(Pace::Bytes(bytes), || patience);
            assert_eq!(again, seen, "{bytes} bytes at once, dropped after {patience} polls");
            assert_eq!(received_by_server(&sent), at_server);
        }
    }
}

proptest! {
    #[test]
    fn random_schedules_equal_the_whole(seed: u64, most in 1usize..400, patience in 1usize..6) {
        let _clock = clock();
        let (seen, sent) = echo(Pace::Bytes(usize::MAX), || usize::MAX);
        let mut numbers = Numbers(seed);
        let pace = Pace::Random(Numbers(!seed), most);
        let (again, sent_again) = echo(pace, || 1 + numbers.below(patience));
        prop_assert_eq!(again, seen);
        prop_assert_eq!(received_by_server(&sent_again), received_by_server(&sent));
    }
}

#[test]
fn fill_is_the_only_wait_that_needs_to_be_dropped() {
    let _clock = clock();
    let (whole, _) = echo(Pace::Bytes(usize::MAX), || usize::MAX);
    let link = Torn(Memory::new(Pace::Bytes(1)));
    let wire = link.0.wire.clone();
    wire.borrow_mut().to_client.extend(server_wire());
    wire.borrow_mut().ended = true;
    let (mut rx, mut tx) = ([0; 300 + ws::MIN_RX], [0; 320 + ws::MIN_TX]);
    let mut socket = WebSocket::new(link, &CONFIG, Numbers(1), &mut rx, &mut tx);
    let mut seen = Transcript::new();
    loop {
        match socket.try_recv() {
            Ok(Some(event)) => seen.push(describe(event)),
            Ok(None) => {
                poll_times(socket.flush(), usize::MAX).unwrap().unwrap();
                poll_times(socket.fill(), 1).unwrap_or(Ok(())).unwrap();
            }
            Err(error) => {
                assert_eq!(error, Error::Closed(CloseCause::Clean));
                break;
            }
        }
    }
    assert_eq!(seen, whole);
    assert_eq!(received_by_server(&wire.take().from_client).len(), 5, "four Pongs and the Close");
}

#[test]
fn more_pings_than_the_send_buffer_has_answers_for() {
    let _clock = clock();
    let link = Memory::new(Pace::Bytes(usize::MAX));
    let wire = link.wire.clone();
    let mut server = Connection::new(Server, &SERVER, Instant::default());
    let (mut bytes, mut at) = (vec![0; 1024], TxCursor::default());
    let mut pings = TxBuf::new(&mut bytes, &mut at);
    for n in 0..5 {
        server.send_ping(&mut pings, &[n; 125]).unwrap();
    }
    wire.borrow_mut().to_client.extend(pings.pending());
    let (mut rx, mut tx) = ([0; 1024], [0; ws::MIN_TX]);
    let mut socket = WebSocket::new(link, &CONFIG, Numbers(1), &mut rx, &mut tx);
    loop {
        while socket.try_recv().unwrap().is_some() {}
        poll_times(socket.flush(), 9).unwrap().unwrap();
        // The peer waits for its answers: a wait for more of its bytes would last for ever.
        if poll_times(socket.fill(), 9).is_none() {
            break;
        }
    }
    assert_eq!(received_by_server(&wire.borrow().from_client).len(), 5);
}

/// A link that loses count when a write is dropped.
struct Torn(Memory);

impl Link for Torn {
    type Error = Infallible;

    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
        self.0.read(bytes).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        let n = self.0.write(bytes).await?;
        // What was taken is known to the caller only a turn later.
        embassy_futures::yield_now().await;
        Ok(n)
    }
}

#[test]
fn a_write_dropped_half_way_ends_a_connection_that_cannot_know_how_far_it_got() {
    let _clock = clock();
    let (mut rx, mut tx) = ([0; 256], [0; 256]);
    let link = Torn(Memory::new(Pace::Bytes(4)));
    let mut socket = WebSocket::new(link, &CONFIG, Numbers(1), &mut rx, &mut tx);
    socket.try_send_binary(b"reading").unwrap();
    assert!(poll_times(socket.recv(), 2).is_none());
    assert_eq!(poll_times(socket.recv(), 1), Some(Err(Error::Torn)));
}

#[test]
fn a_silent_peer_is_asked_and_then_given_up() {
    let (_guard, clock) = clock();
    let link = Memory::new(Pace::Bytes(usize::MAX));
    let wire = link.wire.clone();
    let (mut rx, mut tx) = ([0; 256], [0; 256]);
    let mut socket = WebSocket::new(link, &CONFIG, Numbers(1), &mut rx, &mut tx);
    assert_eq!(poll_times(socket.recv(), 9), None);
    clock.advance(Duration::from_secs(29));
    assert_eq!(poll_times(socket.recv(), 9), None);
    assert!(wire.borrow().from_client.is_empty());
    clock.advance(Duration::from_secs(1));
    assert_eq!(poll_times(socket.recv(), 9), None);
    // Its payload says when it went out, for the round-trip time.
    assert_eq!(received_by_server(&wire.borrow().from_client), ["Ping([128, 0, 117, 48])"]);
    // A sign of life, then silence again.
    wire.borrow_mut().to_client.extend(b"\x8a\x00");
    assert_eq!(poll_times(socket.recv(), 9), Some(Ok(Event::Pong(b""))));
    clock.advance(Duration::from_secs(30));
    assert_eq!(poll_times(socket.recv(), 9), None);
    clock.advance(Duration::from_secs(10));
    assert_eq!(poll_times(socket.recv(), 9), Some(Err(Error::Closed(CloseCause::Timeout))));
}

#[test]
fn a_peer_that_takes_nothing_is_given_up() {
    let (_guard, clock) = clock();
    let link = Memory::new(Pace::Bytes(usize::MAX));
    link.wire.borrow_mut().stuck = true;
    let (mut rx, mut tx) = ([0; 256], [0; 256]);
    let mut socket = WebSocket::new(link, &CONFIG, Numbers(1), &mut rx, &mut tx);
    let mut send = std::pin::pin!(socket.send_binary(b"reading"));
    assert_eq!(poll_times(send.as_mut(), 9), None);
    clock.advance(CONFIG.write_timeout);
    assert_eq!(poll_times(send, 9), Some(Err(Error::WriteTimeout)));
}

/// A link that takes everything, as TLS does until it is flushed, and gets rid of nothing.
struct Stuffed(Memory);

impl Link for Stuffed {
    type Error = Infallible;

    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
        self.0.read(bytes).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        Ok(bytes.len())
    }

    async fn flush(&mut self) -> Result<(), Self::Error> {
        std::future::pending().await
    }
}

#[test]
fn a_link_whose_flush_has_no_end_is_given_up() {
    let (_guard, clock) = clock();
    let (mut rx, mut tx) = ([0; 256], [0; 256]);
    let link = Stuffed(Memory::new(Pace::Bytes(usize::MAX)));
    let mut socket = WebSocket::new(link, &CONFIG, Numbers(1), &mut rx, &mut tx);
    let mut send = std::pin::pin!(socket.send_binary(b"reading"));
    assert_eq!(poll_times(send.as_mut(), 9), None);
    clock.advance(CONFIG.write_timeout);
    assert_eq!(poll_times(send, 9), Some(Err(Error::WriteTimeout)));
}

#[test]
fn a_message_above_the_receive_buffer_is_refused_with_1009() {
    let _clock = clock();
    let link = Memory::new(Pace::Bytes(64));
    let wire = link.wire.clone();
    wire.borrow_mut().to_client.extend(b"\x82\x7e\x01\x01");
    wire.borrow_mut().to_client.extend([0; 257]);
    let (mut rx, mut tx) = ([0; 256], [0; 256]);
    let mut socket = WebSocket::new(link, &CONFIG, Numbers(1), &mut rx, &mut tx);
    assert_eq!(poll_times(socket.recv(), 99), Some(Err(Error::MessageTooBig)));
    let seen = received_by_server(&wire.borrow().from_client);
    assert_eq!(seen.len(), 1);
    assert!(seen[0].contains("CloseCode(1009)"), "{seen:?}");
}

#[test]
fn a_message_above_the_send_buffer_is_an_error_and_nothing_is_sent() {
    let _clock = clock();
    let link = Memory::new(Pace::Bytes(64));
    let wire = link.wire.clone();
    let (mut rx, mut tx) = ([0; 256], [0; 256]);
    let mut socket = WebSocket::new(link, &CONFIG, Numbers(1), &mut rx, &mut tx);
    let sent = poll_times(socket.send_binary(&[0; 256]), 99);
    assert_eq!(sent, Some(Err(Error::Send(SendError::Full))));
    assert!(wire.borrow().from_client.is_empty() && socket.is_flushed());
}

#[test]
fn close_waits_for_the_peer() {
    let _clock = clock();
    let link = Memory::new(Pace::Bytes(1));
    let wire = link.wire.clone();
    let (mut rx, mut tx) = ([0; 256], [0; 256]);
    let mut socket = WebSocket::new(link, &CONFIG, Numbers(1), &mut rx, &mut tx);
    for _ in 0..200 {
        assert_eq!(poll_times(socket.close(CloseCode::GOING_AWAY, "sleep"), 1), None);
    }
    let seen = received_by_server(&wire.borrow().from_client);
    assert_eq!(seen.len(), 1, "one Close, however often the future was dropped: {seen:?}");
    // A message on its way, then the answer, then the end.
    wire.borrow_mut().to_client.extend(b"\x82\x01x\x88\x02\x03\xe9");
    wire.borrow_mut().ended = true;
    assert_eq!(poll_times(socket.close(CloseCode::GOING_AWAY, "sleep"), 99), Some(Ok(CloseCause::Clean)));
}

/// The answer to the request that `wire` holds, as a server of the core gives it.
fn answer(wire: &[u8], subprotocol: Option<&str>) -> Vec<u8> {
    answer_with(wire, subprotocol, None)
}

fn answer_with(wire: &[u8], subprotocol: Option<&str>, extensions: Option<&str>) -> Vec<u8> {
    let ((), answer) = common::answer(wire, |request, tx| {
        assert_eq!((request.target(), request.authority()), ("/v1/stream", "10.0.2.2:8080"));
        upgrade::accept(request).unwrap().write_response(tx, subprotocol, extensions, &[]).unwrap();
    });
    answer
}

const OFFER: Offer<'static> =
    Offer { subprotocols: &["longwire.v1.cbor", "b"], ..Offer::new("10.0.2.2:8080", "/v1/stream") };

/// Shakes hands with a server that answers as `reply` says, then receives one event.
fn shake_hands(
    pace: Pace,
    rx_len: usize,
    reply: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Result<(Option<&'static str>, String), HandshakeError<Infallible>> {
    let link = Memory::new(pace);
    let wire = link.wire.clone();
    let (mut rx, mut tx) = (vec![0; rx_len], [0; 512]);
    let (mut socket, subprotocol) = {
        let connect = WebSocket::connect(link, &OFFER, &CONFIG, Numbers(1), &mut rx, &mut tx);
        let mut connect = std::pin::pin!(connect);
        assert_eq!(poll_times(connect.as_mut(), 2000).map(|done| done.err()), None);
        let reply = reply(&wire.borrow().from_client);
        wire.borrow_mut().to_client.extend(reply);
        wire.borrow_mut().ended = true;
        poll_times(connect, 2000).unwrap()?
    };
    let event = poll_times(socket.recv(), 99).unwrap().map(describe);
    Ok((subprotocol, event.unwrap_or_else(|error| error.to_string())))
}

#[test]
fn rfc6455_4_1_opening_handshake_at_every_split_with_frames_right_behind_it() {
    let _clock = clock();
    for bytes in [1, 2, 5, 64, usize::MAX] {
        let reply = |request: &[u8]| {
            let mut reply = answer(request, Some("longwire.v1.cbor"));
            reply.extend(b"\x82\x05hello");
            reply
        };
        let done = shake_hands(Pace::Bytes(bytes), 256 + ws::MIN_RX, reply).unwrap();
        assert_eq!(done, (Some("longwire.v1.cbor"), format!("binary {:?}", b"hello")));
    }
}

/// The buffer cannot grow, so what comes with the answer must not fill it.
#[test]
fn compressed_messages_right_behind_the_answer_fit_into_twice_the_largest_message() {
    let _clock = clock();
    let config = Config { ws: ws::Config { max_message: 300, ..ws::Config::new() }, ..Config::new() };
    // 300 times "x", and a hundred such messages: what the server has to say at once fills any buffer.
    let message = [0xc2, 8, 0xaa, 0xa8, 0x18, 0x05, 0xc4, 0x02, 0x00, 0x00];
    for bytes in [1, 100, usize::MAX] {
        let link = Memory::new(Pace::Bytes(bytes));
        let wire = link.wire.clone();
        let (mut rx, mut tx) = (vec![0; 2 * 300 + ws::MIN_RX], [0; 512]);
        let mut inflater = longwire_embassy::Inflater::<512>::new();
        let mut socket = {
            let connect = WebSocket::connect_compressed(
                link,
                &OFFER,
                &config,
                Numbers(1),
                &mut rx,
                &mut tx,
                &mut inflater,
            );
            let mut connect = std::pin::pin!(connect);
            assert!(poll_times(connect.as_mut(), 2000).is_none());
            let agreed = "permessage-deflate; server_no_context_takeover; server_max_window_bits=9";
            let reply = answer_with(&wire.borrow().from_client, None, Some(agreed));
            wire.borrow_mut().to_client.extend(reply);
            (0..100).for_each(|_| wire.borrow_mut().to_client.extend(&message));
            poll_times(connect, 2000).unwrap().unwrap().0
        };
        for _ in 0..100 {
            assert_eq!(poll_times(socket.recv(), 2000), Some(Ok(Event::Binary(&[b'x'; 300]))));
        }
    }
}

#[test]
fn refused_and_broken_handshakes() {
    let _clock = clock();
    let fails = |reply: &'static str| shake_hands(Pace::Bytes(9), 256, |_| reply.into()).unwrap_err();
    let full = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(fails(full), HandshakeError::Refused { status: 503, retry_after: Some(7), said: None });
    let ok = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    assert_eq!(fails(ok), HandshakeError::Response(ResponseError::Accept));
    assert_eq!(fails("HTTP/1.1 101 Swi"), HandshakeError::Ended);
    assert_eq!(fails("SSH-2.0-OpenSSH_9.2\r\n\r\n"), HandshakeError::Head(HeadError::StatusLine));
    let long = |_: &[u8]| [&b"HTTP/1.1 200 OK\r\nA: "[..], &[b'a'; 300]].concat();
    let long = shake_hands(Pace::Bytes(9), 256, long).unwrap_err();
    assert_eq!(long, HandshakeError::Head(HeadError::TooLong));
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let (_guard, clock) = clock();
    let link = Memory::new(Pace::Bytes(64));
    let (mut rx, mut tx) = ([0; 256], [0; 512]);
    let mut connect = std::pin::pin!(WebSocket::connect(link, &OFFER, &CONFIG, Numbers(1), &mut rx, &mut tx));
    assert!(poll_times(connect.as_mut(), 99).is_none());
    clock.advance(CONFIG.handshake_timeout);
    assert_eq!(poll_times(connect, 1).unwrap().err(), Some(HandshakeError::Timeout));
}

#[test]
fn a_timeout_may_lie_beyond_the_end_of_the_clock() {
    let (_guard, clock) = clock();
    clock.advance(Duration::from_secs(1));
    let config = Config { handshake_timeout: Duration::MAX, write_timeout: Duration::MAX, ..Config::new() };
    let link = Memory::new(Pace::Bytes(64));
    let wire = link.wire.clone();
    let (mut rx, mut tx) = ([0; 256], [0; 512]);
    let mut connect = std::pin::pin!(WebSocket::connect(link, &OFFER, &config, Numbers(1), &mut rx, &mut tx));
    assert!(poll_times(connect.as_mut(), 99).is_none());
    clock.advance(Duration::from_secs(60 * 60));
    assert!(poll_times(connect.as_mut(), 1).is_none());
    let response = answer(&wire.borrow().from_client, None);
    wire.borrow_mut().to_client.extend(response);
    assert!(poll_times(connect, 99).unwrap().is_ok());
}
