//! The bytes behind the lent buffers: taken when there is something to hold, given back when there is not.

use longwire_core::buf::{RxBuf, RxCursor, TxBuf, TxCursor};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// The first size of a buffer.
const FIRST: usize = 2048;

/// What came in and is not worked off.
#[derive(Debug, Default)]
pub(crate) struct Rx {
    bytes: Vec<u8>,
    cursor: RxCursor,
}

impl Rx {
    /// Lends it, with the bytes that it has.
    pub(crate) fn lend(&mut self) -> RxBuf<'_> {
        RxBuf::new(&mut self.bytes, &mut self.cursor)
    }

    /// Whether nothing is held.
    pub(super) fn is_idle(&self) -> bool {
        self.cursor.is_idle()
    }

    /// Makes it at least `len` bytes long; what is held stays where it is.
    pub(crate) fn grow(&mut self, len: usize) {
        if len > self.bytes.len() {
            self.bytes.resize(len, 0);
        }
    }

    /// Appends bytes that were read elsewhere.
    pub(crate) fn extend(&mut self, mut bytes: &[u8]) {
        let held = self.lend().held();
        self.grow(held.saturating_add(bytes.len()));
        // What is held may have to move to make all of the room usable; filling twice does it.
        while !bytes.is_empty() {
            let n = self.lend().fill(bytes);
            bytes = bytes.get(n..).unwrap_or_default();
        }
    }

    /// Gives the memory back if nothing is held.
    pub(crate) fn release(&mut self) {
        if self.is_idle() {
            *self = Self::default();
        }
    }

    /// Reads once, and says how much that was: 0 at the end of the stream.
    ///
    /// Cancel-safe: what was read is in the buffer.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncRead + Unpin),
        max_read: usize,
    ) -> Poll<io::Result<usize>> {
        if self.bytes.is_empty() {
            self.grow(FIRST.min(max_read).max(1));
        }
        let len = self.bytes.len();
        let mut rx = RxBuf::new(&mut self.bytes, &mut self.cursor);
        let mut space = ReadBuf::new(rx.spare_mut());
        ready!(Pin::new(stream).poll_read(cx, &mut space))?;
        let (n, full) = (space.filled().len(), space.remaining() == 0);
        rx.commit(n);
        if full && len < max_read {
            self.grow(len.saturating_mul(2).min(max_read));
        }
        Poll::Ready(Ok(n))
    }
}

/// What waits to be written to the socket.
#[derive(Debug, Default)]
pub(super) struct Tx {
    bytes: Vec<u8>,
    cursor: TxCursor,
}

impl Tx {
    /// Lends it, with the room that it has.
    pub(super) fn lend(&mut self) -> TxBuf<'_> {
        TxBuf::new(&mut self.bytes, &mut self.cursor)
    }

    /// Whether nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.cursor.is_idle()
    }

    /// Makes room for `more` bytes behind what waits, as far as `max` bytes in all allow.
    pub(super) fn reserve(&mut self, more: usize, max: usize) {
        let wanted = self.lend().pending().len().saturating_add(more).min(max);
        if wanted > self.bytes.len() {
            // Doubling keeps the copies linear; the next power of two is never above twice what is wanted.
            let len = wanted.checked_next_power_of_two().unwrap_or(wanted).max(256).min(max.max(wanted));
            self.bytes.resize(len, 0);
        }
    }

    /// Gives the memory back if nothing waits and it is more than `keep` bytes.
    pub(super) fn release(&mut self, keep: usize) {
        if self.is_idle() && self.bytes.len() > keep {
            *self = Self::default();
        }
    }

    /// Drops what waits, because nobody will take it.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tx_grows_as_far_as_allowed_and_keeps_what_waits() {
        let mut tx = Tx::default();
        tx.reserve(10, 1000);
        assert!(tx.lend().put(&[b"0123456789"]));
        tx.reserve(400, 1000);
        assert!(tx.lend().room() >= 400);
        tx.reserve(5000, 1000);
        assert_eq!((tx.lend().capacity(), tx.lend().pending()), (1000, &b"0123456789"[..]));
        tx.release(0);
        assert_eq!(tx.lend().pending().len(), 10);
        tx.lend().consume(10);
        tx.release(1000);
        assert_eq!(tx.lend().capacity(), 1000);
        tx.release(999);
        assert_eq!(tx.lend().capacity(), 0);
    }

    #[test]
    fn rx_gives_back_only_what_holds_nothing() {
        let mut rx = Rx::default();
        rx.extend(b"abc");
        rx.release();
        assert_eq!(rx.lend().unread(), b"abc");
        rx.grow(5000);
        rx.extend(b"def");
        assert_eq!(rx.lend().unread(), b"abcdef");
        rx.lend().skip(6);
        rx.release();
        assert_eq!(rx.lend().capacity(), 0);
    }
}
