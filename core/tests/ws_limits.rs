//! What a peer can make an endpoint spend: messages, fragments, buffers, work.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong has to stop"
)]

mod common;

use common::{AnyClient, Dice, End, Endpoint, Flush, Heard, Wire, limits};
use longwire_core::buf::{Io, RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::ws::{
    CloseCause, CloseCode, Config, Connection, Delivery, Event, MIN_RX, MIN_TX, ProtocolError, Server, Step,
};

fn last<R: End>(config: Config, wire: &Wire) -> (Option<Heard>, Endpoint<R>) {
    let mut endpoint = Endpoint::<R>::with(config, 0, 512);
    endpoint.receive(wire.bytes());
    (endpoint.heard.last().cloned(), endpoint)
}

const TOO_BIG: Heard = Heard::Failed(ProtocolError::MessageTooBig);

#[test]
fn max_message_holds_for_a_frame_and_over_fragments() {
    let wire = Wire::to::<Server>;
    for delivery in [Delivery::Whole, Delivery::Chunks] {
        let config = || Config { delivery, ..limits(1000, 100) };
        let just = [
            wire().binary(&[1; 1000]),
            wire().frame(0x02, &[1; 999]).frame(0x80, &[1]),
            wire().frame(0x02, &[1; 1000]).frame(0x00, b"").frame(0x80, b""),
        ];
        for wire in just {
            assert_eq!(last::<Server>(config(), &wire).0, Some(Heard::Binary(vec![1; 1000])));
        }
        // One above: the header is enough, nothing of the payload is waited for.
        let over = [
            wire().header(0x82, 1001, 0),
            wire().frame(0x02, &[1; 999]).header(0x80, 2, 0),
            wire().frame(0x02, &[1; 1000]).header(0x00, 1, 0),
        ];
        for wire in over {
            let (heard, endpoint) = last::<Server>(config(), &wire);
            assert_eq!(heard, Some(TOO_BIG));
            assert_eq!(endpoint.closed, Some(CloseCause::Failed(CloseCode::TOO_BIG)));
        }
        // The limit is for one message: the next begins at zero.
        let two = wire().frame(0x02, &[1; 600]).frame(0x80, &[1; 400]).binary(&[2; 1000]);
        assert_eq!(last::<Server>(config(), &two).0, Some(Heard::Binary(vec![2; 1000])));
    }
    assert_eq!(last::<Server>(limits(0, 1), &wire().text("")).0, Some(Heard::Text(String::new())));
    assert_eq!(last::<Server>(limits(0, 1), &wire().header(0x81, 1, 0)).0, Some(TOO_BIG));
}

#[test]
fn max_fragments_holds() {
    let fragments = |n: usize| {
        let wire = Wire::to::<Server>().frame(0x02, b"");
        (2..n).fold(wire, |wire, _| wire.frame(0x00, b"").ping(b"")).frame(0x80, b"x")
    };
    assert_eq!(last::<Server>(limits(10, 50), &fragments(50)).0, Some(Heard::Binary(b"x".into())));
    let (heard, endpoint) = last::<Server>(limits(10, 50), &fragments(51));
    assert_eq!(heard, Some(Heard::Failed(ProtocolError::TooManyFragments)));
    assert_eq!(endpoint.closed, Some(CloseCause::Failed(CloseCode::POLICY)));
    // The limit is for one message.
    let two = fragments(50).raw(fragments(50).bytes());
    assert_eq!(last::<Server>(limits(10, 50), &two).0, Some(Heard::Binary(b"x".into())));
}

fn announced<R: End>(config: &Config, len: u64, want: Option<ProtocolError>) {
    let mut endpoint = Endpoint::<R>::with(config.clone(), 64, 512);
    endpoint.receive(Wire::to::<R>().header(0x82, len, 0).raw(&[0; 40]).bytes());
    assert_eq!(endpoint.heard, want.map(Heard::Failed).into_iter().collect::<Vec<_>>(), "{len:#x}");
    assert_eq!(endpoint.asked, [], "{len:#x}: nothing is reserved");
}

#[test]
fn announced_lengths_reserve_nothing() {
    use ProtocolError as E;
    for len in [1 << 31, 1 << 32, (1 << 32) + 5, (1 << 63) - 1, 1 << 63, u64::MAX] {
        let error = if len >> 63 == 0 { E::MessageTooBig } else { E::LengthTooLarge };
        announced::<Server>(&Config::new(), len, Some(error));
        announced::<AnyClient>(&Config::new(), len, Some(error));
        // With all limits off, a piece is handed out as it comes, and a whole message must fit a buffer.
        let open = Config { delivery: Delivery::Chunks, ..limits(u64::MAX, u32::MAX) };
        let error = (len >> 63 != 0).then_some(E::LengthTooLarge);
        announced::<Server>(&open, len, error);
        announced::<AnyClient>(&open, len, error);
        let whole = Config { delivery: Delivery::Whole, ..open };
        let error = error.or((len >> 32 != 0).then_some(E::MessageTooBig));
        announced::<Server>(&whole, len, error);
        announced::<AnyClient>(&whole, len, error);
    }
}

#[test]
fn space_is_asked_for_as_bytes_arrive() {
    // A megabyte is announced, and comes in pieces of 1000 bytes.
    let wire = Wire::to::<Server>().binary(&vec![7; 1 << 20]);
    let mut endpoint = Endpoint::<Server>::with(Config::new(), 0, 512);
    let mut received = 0;
    for piece in wire.bytes().chunks(1000) {
        received += piece.len();
        endpoint.receive(piece);
        assert!(endpoint.capacity() <= 2 * received + MIN_RX, "{} for {received}", endpoint.capacity());
    }
    assert_eq!(endpoint.heard, [Heard::Binary(vec![7; 1 << 20])]);
    assert!(endpoint.capacity() <= (1 << 20) + MIN_RX);
}

/// What is asked for while a wire comes byte by byte into a buffer of `rx` bytes.
fn asked(config: Config, rx: usize, wire: &Wire) -> Vec<usize> {
    let mut endpoint = Endpoint::<Server>::with(config, rx, 512);
    wire.bytes().iter().for_each(|byte| _ = endpoint.receive(&[*byte]));
    endpoint.asked
}

#[test]
fn space_is_asked_for_to_the_byte() {
    let wire = Wire::to::<Server>;
    // Outside of messages: for a control frame, whatever is held.
    assert_eq!(asked(Config::new(), 0, &wire().ping(b"")), [MIN_RX]);
    assert_eq!(asked(Config::new(), 1, &wire().text("")), [MIN_RX]);
    // A last frame says how much is left: 30 of 40 bytes are held; of 90 only as many again are foreseen.
    assert_eq!(asked(Config::new(), 30, &wire().binary(&[1; 40])), [40 + MIN_RX]);
    assert_eq!(asked(Config::new(), 30, &wire().binary(&[1; 90])), [60 + MIN_RX]);
    // Another one does not: the limit bounds what may come.
    assert_eq!(asked(limits(45, 9), 30, &wire().frame(0x02, &[1; 40])), [45 + MIN_RX]);
    assert_eq!(asked(limits(99, 9), 30, &wire().frame(0x02, &[1; 40])), [60 + MIN_RX]);
    // A control frame among the fragments has its place beside the message, not in addition to it.
    let full = wire().frame(0x02, &[1; 1000]).ping(&[1; 125]).frame(0x80, b"");
    assert_eq!(asked(limits(1000, 9), 1010, &full), [1000 + MIN_RX]);
}

/// A message of `len` bytes in fragments of one, into a buffer that grows as it is asked to.
fn one_byte_fragments(len: usize) -> Endpoint<Server> {
    let mut endpoint = Endpoint::<Server>::with(limits(len as u64, u32::MAX), 0, 512);
    for n in 0..len {
        let b0 = if n == 0 { 0x02 } else { 0x00 } | if n + 1 == len { 0x80 } else { 0 };
        endpoint.receive(Wire::to::<Server>().frame(b0, b"x").bytes());
    }
    assert_eq!(endpoint.heard, [Heard::Binary(vec![b'x'; len])]);
    endpoint
}

#[test]
fn fragments_grow_the_buffer_by_doubling_and_to_the_limit_only() {
    let endpoint = one_byte_fragments(100_000);
    // Each growth copies what is held. Were they as many as the fragments, the work would be their square.
    assert!(endpoint.asked.len() <= 12, "{:?}", endpoint.asked);
    assert!(endpoint.capacity() <= 100_000 + MIN_RX);
}

fn chunks() -> Config {
    Config { delivery: Delivery::Chunks, heartbeat: None, ..limits(u64::MAX, u32::MAX) }
}

fn hundred_mebibytes<R: End>() {
    let len = 100usize << 20;
    let mut connection = Connection::new(R::end(), Box::new(chunks()), common::millis(0));
    let (mut rx, mut rx_at) = ([0; 256], RxCursor::default());
    let (mut tx, mut tx_at) = ([0; MIN_TX], TxCursor::default());
    let mut io = Io::new(RxBuf::new(&mut rx, &mut rx_at), TxBuf::new(&mut tx, &mut tx_at));
    let header = Wire::to::<R>().header(0x82, len as u64, 0);
    io.rx.fill(header.bytes());
    let (mut fed, mut heard, mut ended) = (0, 0, false);
    while !ended {
        match connection.poll(common::millis(0), &mut io) {
            Ok(Step::Event(found)) => {
                let Event::Chunk(chunk) = found.event(io.rx.reborrow()) else { panic!("not a piece") };
                assert_eq!(chunk.first, heard == 0);
                heard += chunk.payload.len();
                ended = chunk.last;
            }
            Ok(Step::NeedInput) => {
                // The bytes do not matter, so whatever lies in the buffer is received.
                let n = io.rx.spare_mut().len().min(len - fed);
                assert!(n > 0);
                io.rx.commit(n);
                fed += n;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((fed, heard), (len, len));
}

#[test]
fn a_hundred_mebibytes_pass_through_256_bytes() {
    hundred_mebibytes::<Server>();
    hundred_mebibytes::<AnyClient>();
}

/// The hardest input for a small buffer: the largest control frames around characters that are cut.
fn hard<R: End>() -> Wire {
    let wire = Wire::to::<R>().frame(0x01, &"€".repeat(100).as_bytes()[..299]);
    let wire = wire.ping(&[1; 125]).frame(0x00, &[0x82, 0xac][1..]).frame(0x00, b"\xf0\x9f\x92");
    (0..3).fold(wire, |wire, n| wire.ping(&[n; 125])).frame(0x80, b"\x96")
}

#[test]
fn the_smallest_buffers_are_as_documented() {
    // The largest control frame of a client and a character that is cut; its answer and a Close with its code.
    assert_eq!((MIN_RX, MIN_TX), (131 + 3, 131 + 8));
}

#[test]
fn min_rx_is_enough_and_one_byte_less_is_not() {
    let run = |size| {
        let mut endpoint = Endpoint::<Server>::with(chunks(), size, 512);
        endpoint.receive(hard::<Server>().bytes());
        assert_eq!(endpoint.heard.len(), 5);
        endpoint.asked.len()
    };
    assert_eq!(run(MIN_RX), 0);
    assert_eq!(run(MIN_RX - 1), 1);

    // Under Whole it stands beside the largest message.
    let wire = Wire::to::<Server>().frame(0x02, &[1; 1000]).ping(&[1; 125]).frame(0x80, b"");
    let mut endpoint = Endpoint::<Server>::with(limits(1000, 9), 1000 + MIN_RX, 512);
    endpoint.receive(wire.bytes());
    assert_eq!((endpoint.heard.len(), endpoint.asked.len()), (2, 0));
}

fn with_min_tx<R: End>(flush: Flush) -> Endpoint<R> {
    let mut endpoint = Endpoint::<R>::with(chunks(), 1024, MIN_TX);
    endpoint.flush = flush;
    let wire = hard::<R>().ping(b"").ping(b"").ping(&[9; 125]).pong(b"").close(1000, &[b'r'; 123]);
    endpoint.receive(wire.bytes());
    assert_eq!(endpoint.heard.len(), 10);
    let frames = endpoint.frames();
    assert_eq!(frames.len(), 8);
    assert!(frames[..7].iter().all(|frame| frame.b0 == 0x8a));
    assert_eq!((frames[7].b0, &frames[7].payload[..]), (0x88, &b"\x03\xe8"[..]));
    endpoint
}

#[test]
fn min_tx_answers_everything_with_flushes_in_between() {
    for flush in [Flush::Always, Flush::WhenAsked] {
        assert!(with_min_tx::<Server>(flush).flushes >= 4);
        assert!(with_min_tx::<AnyClient>(flush).flushes >= 4);
    }
}

#[test]
fn one_byte_less_than_min_tx_is_refused_and_not_waited_for() {
    let mut client = Endpoint::<AnyClient>::with(Config::new(), 512, MIN_TX - 1);
    client.receive(Wire::to::<AnyClient>().ping(&[1; 125]).bytes());
    assert_eq!(client.heard, [Heard::Failed(ProtocolError::SendBufferTooSmall)]);
    assert_eq!(client.frames()[0].payload[..2], 1011u16.to_be_bytes());
}

#[test]
fn a_flood_of_pings_that_reads_nothing_stalls_itself() {
    let mut server = Endpoint::<Server>::with(Config::new(), 1024, 1024);
    server.flush = Flush::ByHand;
    let flood = (0..200).fold(Wire::to::<Server>(), |wire, _| wire.ping(&[0; 125]));
    let mut rest = flood.bytes();
    while !rest.is_empty() {
        let n = server.append(rest);
        rest = &rest[n..];
        if !server.turn() {
            break;
        }
    }
    // Stalled: as many answers as have room, the rest of the buffer unread, and no event without its answer.
    assert_eq!(server.heard.len(), server.pending() / 127);
    assert_eq!((server.heard.len(), server.capacity()), (8, 1024));
    assert!(!server.turn() && server.heard.len() == 8);
    // A little is read, and a little goes on.
    server.write(127);
    assert!(!server.turn() && server.heard.len() == 9);
    // All of it arrives in the end, and in order.
    server.flush = Flush::WhenAsked;
    server.receive(rest);
    assert_eq!((server.heard.len(), server.frames().len()), (200, 200));
}

#[test]
fn a_flood_of_empty_fragments_costs_no_memory_and_one_poll_a_buffer() {
    let mut server = Endpoint::<Server>::with(limits(1 << 20, u32::MAX), 4096, 512);
    server.receive(Wire::to::<Server>().frame(0x02, b"").bytes());
    let flood = (0..1000).fold(Wire::to::<Server>(), |wire, _| wire.frame(0x00, b""));
    for _ in 0..100 {
        for piece in flood.bytes().chunks(4000) {
            assert_eq!(server.append(piece), piece.len());
            assert!(matches!(server.poll(), Ok(Step::NeedInput)));
        }
    }
    assert!(server.lend(|_, io| io.rx.held()) < 14);
    assert_eq!((server.asked.len(), server.heard.len()), (0, 0));
}

#[test]
fn a_buffer_of_any_size_and_a_wire_of_any_bytes_end_in_a_step() {
    let mut dice = Dice(7);
    for _ in 0..3000 {
        let (rx, tx) = (dice.upto(40), dice.upto(300));
        let mut endpoint = Endpoint::<Server>::with(limits(500, 9), rx, tx);
        // Mostly good first bytes, so that it gets somewhere.
        let wire: Vec<u8> = (0..60)
            .map(|_| [0x81, 0x01, 0x00, 0x80, 0x89, 0x88, 0x82, 0x83, 0xff, 0x7e, b'a'][dice.upto(10)])
            .collect();
        for piece in wire.chunks(1 + dice.upto(20)) {
            endpoint.receive(piece);
        }
        assert!(endpoint.capacity() <= 500 + MIN_RX);
    }
}
