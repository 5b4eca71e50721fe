//! How much work a peer can cause. All that can be seen from outside is tested in `core/tests/ws_*.rs`.

use super::super::deflate::{Agreed, Corrupt, Deflate, Inflate, Inflated, Window};
use super::super::{Config, Connection, Delivery, Event, Kind, Server, Step};
use super::{MIN_RX, MIN_TX};
use crate::buf::{Io, RxBuf, RxCursor, TxBuf, TxCursor};
use crate::time::Instant;
use crate::work;
use std::{vec, vec::Vec};

/// Bytes that were moved, unmasked or checked while `wire` came byte by byte into a buffer of `rx` bytes, and the
/// bytes that were handed out.
fn drip(config: &'static Config, rx: usize, wire: &[u8]) -> (usize, usize) {
    let now = Instant::from_millis(0);
    let mut connection = Connection::new(Server, config, now);
    let (mut rx, mut rx_at) = (vec![0; rx], RxCursor::default());
    let (mut tx, mut tx_at) = ([0; MIN_TX], TxCursor::default());
    let mut io = Io::new(RxBuf::new(&mut rx, &mut rx_at), TxBuf::new(&mut tx, &mut tx_at));
    let mut heard = 0;
    work::take();
    for byte in wire {
        assert_eq!(io.rx.fill(&[*byte]), 1);
        loop {
            match connection.poll(now, &mut io) {
                Ok(Step::Event(_)) => heard += io.rx.kept().len(),
                Ok(Step::NeedFlush) => io.tx.consume(usize::MAX),
                Ok(Step::NeedInput) => break,
                other => panic!("{other:?}"),
            }
        }
    }
    (work::take(), heard)
}

/// A text of `pieces` fragments of `piece`, all masks zero, with Pings in between.
fn fragments(pieces: usize, piece: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for n in 0..pieces {
        let fin = if n + 1 == pieces { 0x80 } else { 0 };
        wire.extend([fin | u8::from(n == 0), 0x80 | u8::try_from(piece.len()).unwrap(), 0, 0, 0, 0]);
        wire.extend(piece);
        if n % 100 == 99 && fin == 0 {
            wire.extend([0x89, 0x81, 0, 0, 0, 0, b'?']);
        }
    }
    wire
}

#[test]
fn a_text_byte_by_byte_costs_linear_work_whatever_its_fragments() {
    static WHOLE: Config = Config::new();
    static CHUNKS: Config = Config { delivery: Delivery::Chunks, ..Config::new() };
    for (pieces, piece) in [(60_000, &b"x"[..]), (1000, &[b'x'; 100]), (20_000, "€".as_bytes())] {
        let wire = fragments(pieces, piece);
        let len = pieces * piece.len();
        // Each byte is unmasked once, closed up once, and checked again at most three times.
        for (config, rx) in [(&WHOLE, len + MIN_RX), (&WHOLE, 2 * len + 4096), (&CHUNKS, MIN_RX)] {
            let (work, heard) = drip(config, rx, &wire);
            assert!(heard >= len);
            assert!(work <= 6 * wire.len(), "{work} for {} bytes", wire.len());
        }
    }
}

const AGREED: Agreed = {
    let window = Window { bits: 15, takeover: false };
    Agreed { server: window, client: window }
};

/// Makes so many characters of each byte, as far as there is room, and counts its work.
struct Times {
    times: usize,
    /// What is left of the last byte.
    held: usize,
    calls: usize,
}

impl Inflate for Times {
    fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<Inflated, Corrupt> {
        let mut done = Inflated::default();
        self.calls += 1;
        while done.written < output.len() {
            if self.held == 0 {
                if done.read == input.len() {
                    break;
                }
                self.held = self.times;
                done.read += 1;
            } else {
                output[done.written] = b'x';
                self.held -= 1;
                done.written += 1;
            }
        }
        work::count(done.read + done.written);
        Ok(done)
    }

    fn end_message(&mut self, _: Window) {}
}

/// Work, bytes heard, and calls of the codec, while `wire` came in reads of `read` bytes into a buffer of `rx` bytes
/// that never grows.
fn inflate(config: &Config, rx: usize, wire: &[u8], read: usize, times: usize) -> (usize, usize, usize) {
    let now = Instant::from_millis(0);
    let mut codec = Times { times, held: 0, calls: 0 };
    let mut connection = Connection::new(Server, config, now).with_deflate(AGREED);
    let (mut rx, mut rx_at) = (vec![0; rx], RxCursor::default());
    let (mut tx, mut tx_at) = ([0; MIN_TX], TxCursor::default());
    let mut io =
        Io::new(RxBuf::new(&mut rx, &mut rx_at), TxBuf::new(&mut tx, &mut tx_at)).with_inflate(&mut codec);
    let (mut heard, mut rest) = (0, wire);
    work::take();
    loop {
        match connection.poll(now, &mut io) {
            Ok(Step::Event(found)) => {
                heard += match found.event(io.rx.reborrow()) {
                    Event::Binary(data) => data.len(),
                    Event::Text(text) => text.as_bytes().len(),
                    Event::Chunk(chunk) => chunk.payload.len(),
                    _ => 0,
                }
            }
            Ok(Step::NeedFlush) => io.tx.consume(usize::MAX),
            Ok(Step::NeedInput) if rest.is_empty() => break,
            Ok(Step::NeedInput) => {
                let n = io.rx.fill(&rest[..read.min(rest.len())]);
                rest = &rest[n..];
            }
            other => panic!("{other:?}"),
        }
    }
    (work::take(), heard, codec.calls)
}

/// A compressed message of one frame with an announced length of 64 bits, all zero in its mask.
fn compressed(payload: &[u8]) -> Vec<u8> {
    let len = u64::try_from(payload.len()).unwrap().to_be_bytes();
    [&[0xc1, 0xff], &len[..], &[0; 4], payload].concat()
}

#[test]
fn a_compressed_message_costs_linear_work_whatever_the_reads() {
    let limit = |delivery| Config { delivery, max_message: 1_000_000, ..Config::new() };
    for (len, times) in [(70_000, 1), (70_000, 3), (70_000, 12), (300_000, 1)] {
        let wire = compressed(&vec![b'x'; len]);
        let out = times * (len + 4);
        for (delivery, rx, read) in [
            (Delivery::Whole, 2_000_000 + MIN_RX, 1),
            (Delivery::Whole, 2_000_000 + MIN_RX, 4096),
            (Delivery::Whole, 2_000_000 + MIN_RX, usize::MAX),
            (Delivery::Chunks, MIN_RX, 1),
            (Delivery::Chunks, MIN_RX, usize::MAX),
            (Delivery::Chunks, 65_536, 1),
            (Delivery::Chunks, 65_536, usize::MAX),
        ] {
            let (work, heard, calls) = inflate(&limit(delivery), rx, &wire, read, times);
            assert_eq!(heard, out);
            // Each byte that came is moved to the buffer's end, unmasked and consumed; each that comes of it is
            // written and checked.
            assert!(work <= 4 * wire.len() + 3 * out, "{work}: {delivery:?} {rx} {read} x{times}");
            assert!(calls <= wire.len() + out / 30 + 2, "{calls}: {delivery:?} {rx} {read} x{times}");
        }
    }
}

#[test]
fn many_tiny_messages_in_one_read_cost_linear_work() {
    // Compressed and plain, texts and binaries, with Pings in between: 20,000 messages in 64 KiB reads.
    let mut wire = Vec::new();
    for n in 0..20_000 {
        wire.extend([0xc1, 0x82, 0, 0, 0, 0, b'x', b'y']);
        if n % 3 == 0 {
            wire.extend([0x82, 0x81, 0, 0, 0, 0, b'z']);
        }
        if n % 7 == 0 {
            wire.extend([0x89, 0x80, 0, 0, 0, 0]);
        }
        if n % 5 == 0 {
            wire.extend([0x42, 0x81, 0, 0, 0, 0, b'x', 0x80, 0x81, 0, 0, 0, 0, b'y']);
        }
    }
    for (delivery, rx) in
        [(Delivery::Whole, 1 << 17), (Delivery::Chunks, 1 << 17), (Delivery::Chunks, MIN_RX)]
    {
        let config = Config { delivery, ..Config::new() };
        let (work, heard, calls) = inflate(&config, rx, &wire, usize::MAX, 1);
        assert_eq!(heard, 24_000 * 6 + 6667);
        assert!(work <= 5 * wire.len(), "{work} for {} bytes", wire.len());
        // The payload, the tail, and what is left of one of them at the end of a read.
        assert!(calls <= 3 * 24_000, "{calls}");
    }
}

#[test]
fn a_compressed_message_is_moved_at_most_once_on_its_way_out() {
    // A message that is compressed into the room for it is moved up to its header, and never copied.
    struct Half;
    impl Deflate for Half {
        fn deflate_message(&mut self, _: Window, input: &[u8], output: &mut [u8]) -> Option<usize> {
            output.get_mut(..input.len() / 2)?.fill(1);
            Some(input.len() / 2)
        }
    }
    let config = Config::new();
    let mut connection = Connection::new(Server, &config, Instant::from_millis(0)).with_deflate(AGREED);
    let (mut tx, mut tx_at) = (vec![0; 300_000], TxCursor::default());
    let mut tx = TxBuf::new(&mut tx, &mut tx_at);
    work::take();
    for _ in 0..100 {
        connection.send_deflated(&mut tx, Kind::Binary, &[0; 2000], &mut Half).unwrap();
    }
    assert!(work::take() <= 100 * 1000);
}
