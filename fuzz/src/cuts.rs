//! How an input is cut, and how a buffer grows. The first bytes of an input say, so that a fuzzer can vary that.

use crate::common::Dice;
use longwire_core::buf::{RxBuf, RxCursor};

/// A larger buffer with what is held copied over.
pub(crate) fn grow(bytes: &mut Vec<u8>, cursor: &mut RxCursor, wanted: usize) {
    RxBuf::new(bytes, cursor).compact();
    bytes.resize(wanted, 0xa5);
}

/// `wire` in pieces of 1 to `longest` bytes; whole if that is 0.
pub(crate) fn pieces(mut wire: &[u8], longest: u8, seed: u8) -> Vec<&[u8]> {
    if longest == 0 {
        return vec![wire];
    }
    let mut dice = Dice(seed.into());
    let mut pieces = Vec::new();
    while !wire.is_empty() {
        let n = 1 + dice.upto(usize::from(longest) - 1);
        let (piece, rest) = wire.split_at(n.min(wire.len()));
        pieces.push(piece);
        wire = rest;
    }
    pieces
}
