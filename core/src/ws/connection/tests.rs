//! How much work a peer can cause. All that can be seen from outside is tested in `core/tests/ws_*.rs`.

use super::super::{Config, Connection, Delivery, Server, Step};
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
