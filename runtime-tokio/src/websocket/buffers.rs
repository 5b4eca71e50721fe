//! The bytes behind the lent buffers: taken when there is something to hold, given back when there is not.

use super::pool::{self, TURN};
use bytes::Bytes;
use longwire_core::buf::{RxBuf, RxCursor, TxBuf, TxCursor};
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

/// Bytes left over from one turn that are copied into the thread's buffer for the next. More stay where they are, and
/// what follows is read behind them: so a message that comes byte by byte costs linear work.
const MAX_MOVED: usize = 4 << 10;

/// What came in and is not worked off.
///
/// While it is read it lies in a buffer of the thread's. What is left when there is nothing more to read (a message
/// that has not come to its end) moves into memory of its own, of at most twice its size. A message that does not fit
/// into the thread's buffer gets one of the process's, as long as there are any, and grows with what arrives otherwise.
#[derive(Debug, Default)]
pub(crate) struct Rx {
    bytes: Vec<u8>,
    cursor: RxCursor,
    /// It is one of the process's.
    borrowed: bool,
}

impl Rx {
    /// Lends it, with the bytes that it has.
    #[inline]
    pub(crate) fn lend(&mut self) -> RxBuf<'_> {
        RxBuf::new(&mut self.bytes, &mut self.cursor)
    }

    /// Whether nothing is held.
    pub(super) fn is_idle(&self) -> bool {
        self.cursor.is_idle()
    }

    /// Makes it at least `len` bytes long, and keeps what is held.
    pub(crate) fn grow(&mut self, len: usize) {
        if len <= self.bytes.len() {
            return;
        }
        if len <= TURN {
            return self.change(pool::take(), false);
        }
        match pool::borrow(len) {
            Some(buffer) => self.change(buffer, true),
            None => self.change(vec![0; len], false),
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
            self.give_back(Vec::new(), false);
        }
    }

    /// Gives back what is not needed while nothing more is to be had.
    pub(super) fn park(&mut self) {
        if self.is_idle() {
            return self.release();
        }
        let held = self.lend().held();
        if self.bytes.len() == TURN && held <= TURN / 2 {
            let len = if held > MAX_MOVED { held.saturating_mul(2) } else { held };
            self.change(vec![0; len], false);
        }
    }

    /// What is kept, without a copy: a large message takes its memory with it, which is used again once it is dropped.
    /// `None`: it is not large, or not alone in its buffer.
    pub(super) fn take_kept(&mut self) -> Option<Bytes> {
        let rx = self.lend();
        if !rx.unread().is_empty() || rx.kept().len() < rx.capacity() / 2 || rx.capacity() <= TURN {
            return None;
        }
        // At the front, where the header was.
        let len = self.lend().compact().len();
        let bytes = mem::take(&mut self.bytes);
        self.cursor = RxCursor::default();
        if mem::take(&mut self.borrowed) {
            pool::keep(&bytes);
        }
        Some(Bytes::from_owner(Taken { bytes, len }))
    }

    /// Moves what is held into another buffer, in which it has room.
    fn change(&mut self, mut buffer: Vec<u8>, borrowed: bool) {
        let held = self.lend().compact().len();
        if let (Some(to), Some(from)) = (buffer.get_mut(..held), self.bytes.get(..held)) {
            to.copy_from_slice(from);
        }
        self.give_back(buffer, borrowed);
    }

    fn give_back(&mut self, buffer: Vec<u8>, borrowed: bool) {
        let before = mem::replace(&mut self.bytes, buffer);
        if mem::replace(&mut self.borrowed, borrowed) {
            pool::give_back(before);
        } else {
            pool::give(before);
        }
    }

    /// Reads once, at most `max_read` bytes beyond what a large message needs, and says how many came: 0 at the end of
    /// the stream.
    ///
    /// Cancel-safe: what was read is in the buffer.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncRead + Unpin),
        max_read: usize,
    ) -> Poll<io::Result<usize>> {
        if self.bytes.len() < TURN && self.lend().held() <= MAX_MOVED {
            self.change(pool::take(), false);
        }
        let large = self.bytes.len() > TURN;
        let mut rx = self.lend();
        let spare = rx.spare_mut();
        // What a large message still needs is read at once.
        let len = if large { spare.len() } else { spare.len().min(max_read.max(1)) };
        let mut space = ReadBuf::new(spare.get_mut(..len).unwrap_or_default());
        match Pin::new(stream).poll_read(cx, &mut space) {
            Poll::Ready(Ok(())) => {
                let n = space.filled().len();
                rx.commit(n);
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.park();
                Poll::Pending
            }
        }
    }

    /// A little of what a thread's buffer can hold is moved into memory of its own, because its user may keep it
    /// waiting.
    pub(super) fn settle(&mut self) {
        if self.bytes.len() == TURN && self.lend().held() <= TURN / 4 {
            self.park();
        }
    }
}

/// The memory of a message that was taken out of its buffer.
struct Taken {
    bytes: Vec<u8>,
    len: usize,
}

impl AsRef<[u8]> for Taken {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        pool::give(mem::take(&mut self.bytes));
    }
}

impl Drop for Rx {
    fn drop(&mut self) {
        self.give_back(Vec::new(), false);
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
    #[inline]
    pub(super) fn lend(&mut self) -> TxBuf<'_> {
        TxBuf::new(&mut self.bytes, &mut self.cursor)
    }

    /// Whether nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.cursor.is_idle()
    }

    /// What waits.
    pub(super) fn pending(&self) -> &[u8] {
        self.cursor.pending(&self.bytes)
    }

    /// Makes room for `more` bytes behind what waits, as far as `max` bytes in all allow.
    pub(super) fn reserve(&mut self, more: usize, max: usize) {
        let wanted = self.lend().pending().len().saturating_add(more).min(max);
        if wanted <= self.bytes.len() {
            return;
        }
        if self.bytes.is_empty() && wanted <= TURN && TURN <= max {
            self.bytes = pool::take();
            return;
        }
        // Doubling keeps the copies linear; the next power of two is never above twice what is wanted.
        let len = wanted.checked_next_power_of_two().unwrap_or(wanted).max(256).min(max.max(wanted));
        self.bytes.resize(len, 0);
    }

    /// Appends bytes that are on their way already: for them there is always room.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len(), usize::MAX);
        let put = self.lend().put(&[bytes]);
        debug_assert!(put, "room was made");
    }

    /// Gives back what is not needed while nothing can be written.
    pub(super) fn park(&mut self) {
        if self.is_idle() {
            self.clear();
        } else if self.bytes.len() == TURN && self.lend().pending().len() <= TURN / 4 {
            let waits = self.lend().pending().to_vec();
            self.clear();
            self.bytes = vec![0; waits.len()];
            let put = self.lend().put(&[&waits]);
            debug_assert!(put, "it is as large");
        }
    }

    /// Drops what waits, because nobody will take it, and gives the memory back.
    pub(super) fn clear(&mut self) {
        self.cursor = TxCursor::default();
        pool::give(mem::take(&mut self.bytes));
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        self.clear();
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
        tx.park();
        assert_eq!(tx.lend().pending().len(), 10);
        tx.lend().consume(10);
        tx.park();
        assert_eq!(tx.lend().capacity(), 0);
    }

    #[test]
    fn tx_keeps_no_more_than_what_waits() {
        let mut tx = Tx::default();
        tx.reserve(10, 1 << 20);
        assert_eq!(tx.lend().capacity(), TURN);
        assert!(tx.lend().put(&[b"0123456789"]));
        tx.lend().consume(3);
        tx.park();
        assert_eq!((tx.lend().capacity(), tx.lend().pending()), (7, &b"3456789"[..]));
        tx.extend(b"abc");
        assert_eq!(tx.lend().pending(), b"3456789abc");
    }

    #[test]
    fn rx_gives_back_only_what_holds_nothing() {
        let mut rx = Rx::default();
        rx.extend(b"abc");
        rx.release();
        assert_eq!(rx.lend().unread(), b"abc");
        rx.grow(TURN + 5000);
        rx.extend(b"def");
        assert_eq!(rx.lend().unread(), b"abcdef");
        rx.lend().skip(6);
        rx.release();
        assert_eq!(rx.lend().capacity(), 0);
    }

    #[test]
    fn what_is_left_of_a_turn_is_at_most_twice_its_size() {
        for len in [1, 100, MAX_MOVED, MAX_MOVED + 1, TURN / 2, TURN / 2 + 1] {
            let mut rx = Rx::default();
            rx.grow(TURN);
            rx.extend(&vec![7; len]);
            rx.lend().skip(1);
            rx.park();
            let held = len - 1;
            assert!(rx.lend().capacity() <= 2 * held.max(MAX_MOVED), "{len}");
            assert!(rx.lend().unread().iter().all(|b| *b == 7) && rx.lend().unread().len() == held);
        }
    }
}
