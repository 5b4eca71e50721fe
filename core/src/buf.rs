//! The buffers that a caller lends.
//!
//! A protocol machine owns no payload byte. For each call it is lent an [`RxBuf`], which holds what came in and
//! is not yet done with, and a [`TxBuf`], which holds what has to go out. Between two calls only the cursors
//! ([`RxCursor`], [`TxCursor`]: 20 and 8 bytes) and the bytes themselves have to survive, and an idle connection
//! holds no bytes at all: then any buffer will do for the next call, for instance one that a whole thread shares.
//!
//! ```text
//!          kept           skipped     unread        spare
//!     |-----------------|...........|-------------|-----------------|
//!   start            kept_end     read           end           capacity
//! ```
//!
//! A reader of the socket appends at `end` ([`RxBuf::spare_mut`], [`RxBuf::commit`]). A machine looks at what is
//! [unread](RxBuf::unread), and either [skips](RxBuf::skip) it (a frame's header, a mask) or
//! [keeps](RxBuf::keep) it (a piece of a message). What is kept closes up: the pieces of a fragmented message end
//! up side by side without a second buffer, and a message in one piece is never moved.

use crate::work;
use crate::ws::deflate::Inflate;
use core::fmt;
use core::ops::Range;

/// Where things lie in a receive buffer. The default is an empty buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxCursor {
    start: u32,
    kept_end: u32,
    read: u32,
    end: u32,
    /// Half of the free room stays free, for what is unread to expand into.
    expands: bool,
}

impl RxCursor {
    /// An empty buffer's, as a constant for static memory.
    pub const fn new() -> Self {
        Self { start: 0, kept_end: 0, read: 0, end: 0, expands: false }
    }

    /// Whether nothing is held, so that the next call may be lent any other buffer.
    pub const fn is_idle(&self) -> bool {
        self.start == self.kept_end && self.read == self.end
    }
}

/// Where things lie in a send buffer. The default is an empty buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxCursor {
    start: u32,
    end: u32,
}

impl TxCursor {
    /// An empty buffer's, as a constant for static memory.
    pub const fn new() -> Self {
        Self { start: 0, end: 0 }
    }

    /// Whether nothing waits to be written.
    pub const fn is_idle(&self) -> bool {
        self.start == self.end
    }

    /// What waits in these bytes, which are those that a [`TxBuf`] was lent.
    pub fn pending<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// What is lent for one call.
#[non_exhaustive]
pub struct Io<'a> {
    /// What came in.
    pub rx: RxBuf<'a>,
    /// What goes out.
    pub tx: TxBuf<'a>,
    /// What turns compressed messages back, where permessage-deflate was agreed on.
    pub inflate: Option<&'a mut dyn Inflate>,
}

impl<'a> Io<'a> {
    /// Lends both buffers.
    pub fn new(rx: RxBuf<'a>, tx: TxBuf<'a>) -> Self {
        Self { rx, tx, inflate: None }
    }

    /// Lends a decompressor, too.
    #[must_use]
    pub fn with_inflate(self, inflate: &'a mut dyn Inflate) -> Self {
        Self { inflate: Some(inflate), ..self }
    }
}

impl fmt::Debug for Io<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io").field("rx", &self.rx).field("tx", &self.tx).finish_non_exhaustive()
    }
}

/// A lent receive buffer.
///
/// At most `u32::MAX` bytes of it are used. A cursor that does not fit the bytes (they were exchanged for a
/// shorter slice while something was held) is reset: bytes are lost then, but nothing is read out of place.
#[derive(Debug)]
pub struct RxBuf<'a> {
    bytes: &'a mut [u8],
    at: &'a mut RxCursor,
}

impl<'a> RxBuf<'a> {
    /// Lends `bytes`, in which `cursor` says what is held.
    ///
    /// ```
    /// use longwire_core::buf::{RxBuf, RxCursor};
    ///
    /// let (mut bytes, mut cursor) = ([0; 16], RxCursor::default());
    /// let mut rx = RxBuf::new(&mut bytes, &mut cursor);
    /// rx.spare_mut()[..5].copy_from_slice(b"hello"); // a read from the socket
    /// rx.commit(5);
    /// rx.skip(1);
    /// rx.keep(2);
    /// assert_eq!((rx.kept(), rx.unread()), (&b"el"[..], &b"lo"[..]));
    /// ```
    #[inline]
    pub fn new(bytes: &'a mut [u8], cursor: &'a mut RxCursor) -> Self {
        let c = *cursor;
        let fits =
            c.start <= c.kept_end && c.kept_end <= c.read && c.read <= c.end && c.end as usize <= bytes.len();
        if !fits {
            *cursor = RxCursor::default();
        }
        let usable = bytes.len().min(u32::MAX as usize);
        // The range is in bounds by the line above; `split_at_mut_checked` says so without a panic path.
        let bytes = match bytes.split_at_mut_checked(usable) {
            Some((bytes, _)) => bytes,
            None => &mut [],
        };
        Self { bytes, at: cursor }
    }

    /// The same buffer for a shorter time, so that it can be passed on by value and used again.
    pub fn reborrow(&mut self) -> RxBuf<'_> {
        RxBuf { bytes: self.bytes, at: self.at }
    }

    /// Bytes that the buffer can hold in all.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes that must survive until the next call: kept and unread.
    pub fn held(&self) -> usize {
        self.kept_len() + self.unread_len()
    }

    /// Whether no byte more fits, whatever is moved.
    pub fn is_full(&self) -> bool {
        self.held() >= self.capacity()
    }

    /// The free end of the buffer, for the next read from the socket. Empty only when the buffer
    /// [is full](Self::is_full): a read into an empty slice would look like the end of the stream.
    ///
    /// On a connection with permessage-deflate it is half of what is free: the rest is for what is read to expand
    /// into.
    ///
    /// Moves what is held to the front when there is no free end left, or when that costs no more than it wins;
    /// so the work stays linear in the bytes received.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        let held = self.held();
        let spare = self.capacity().saturating_sub(self.at.end as usize);
        let wasted = self.capacity().saturating_sub(spare).saturating_sub(held);
        let moved = if self.at.start == 0 { self.unread_len() } else { held };
        if wasted > 0 && (spare == 0 || moved <= wasted) {
            self.compact();
        }
        let free = self.bytes.get_mut(self.at.end as usize..).unwrap_or_default();
        let len = if self.at.expands { free.len().div_ceil(2) } else { free.len() };
        free.get_mut(..len).unwrap_or_default()
    }

    /// Says that the first `n` bytes of [`spare_mut`](Self::spare_mut) were filled. More than there is room for
    /// counts as all of it.
    pub fn commit(&mut self, n: usize) {
        let end = self.at.end as usize;
        let n = n.min(self.capacity().saturating_sub(end));
        self.at.end = offset(end + n);
    }

    /// Appends as much of `bytes` as fits, and says how much that was: for callers that hold the bytes already.
    pub fn fill(&mut self, bytes: &[u8]) -> usize {
        let spare = self.spare_mut();
        let n = bytes.len().min(spare.len());
        copy_parts(spare, &[bytes]);
        self.commit(n);
        n
    }

    /// Moves what is held to the front, kept first, and returns it: what a caller has to store when it lends
    /// another buffer next time (with this cursor).
    pub fn compact(&mut self) -> &[u8] {
        let kept = self.kept_len();
        let unread = self.unread_len();
        slide(self.bytes, self.at.start as usize..self.at.kept_end as usize, 0);
        slide(self.bytes, self.at.read as usize..self.at.end as usize, kept);
        let (kept, end) = (offset(kept), offset(kept + unread));
        *self.at = RxCursor { start: 0, kept_end: kept, read: kept, end, ..*self.at };
        self.bytes.get(..end as usize).unwrap_or_default()
    }

    /// What came in and nobody looked at yet.
    #[inline]
    pub fn unread(&self) -> &[u8] {
        self.bytes.get(self.unread_range()).unwrap_or_default()
    }

    /// As [`unread`](Self::unread), to be changed in place (unmasked).
    pub fn unread_mut(&mut self) -> &mut [u8] {
        let range = self.unread_range();
        self.bytes.get_mut(range).unwrap_or_default()
    }

    /// Drops the first `n` unread bytes.
    #[inline]
    pub fn skip(&mut self, n: usize) {
        let n = n.min(self.unread_len());
        self.at.read = offset(self.at.read as usize + n);
        self.tidy();
    }

    /// Adds the first `n` unread bytes to what is kept, closing the gap that skipped bytes left. Returns them where
    /// they lie now, to be changed in place (unmasked).
    #[inline]
    pub fn keep(&mut self, n: usize) -> &mut [u8] {
        let n = n.min(self.unread_len());
        let from = self.unread_range().start;
        if self.at.start == self.at.kept_end {
            // Nothing is kept, so nothing has to be closed up: the first piece stays where it arrived.
            self.at.start = offset(from);
            self.at.kept_end = offset(from);
        }
        let to = self.at.kept_end as usize;
        if to != from {
            slide(self.bytes, from..from + n, to);
        }
        self.at.kept_end = offset(to + n);
        self.at.read = offset(from + n);
        self.bytes.get_mut(to..to + n).unwrap_or_default()
    }

    /// Of a buffer that keeps nothing: skips `header` unread bytes, keeps the `n` behind them, and returns those; nothing is
    /// done, and nothing returned, if there are not as many.
    #[inline]
    pub(crate) fn keep_behind(&mut self, header: usize, n: usize) -> &mut [u8] {
        let start = self.at.read as usize + header;
        let end = start + n;
        if end > self.at.end as usize {
            return &mut [];
        }
        (self.at.start, self.at.kept_end, self.at.read) = (offset(start), offset(end), offset(end));
        self.bytes.get_mut(start..end).unwrap_or_default()
    }

    /// What a machine keeps: the message so far, without headers and without control frames in between.
    #[inline]
    pub fn kept(&self) -> &[u8] {
        self.bytes.get(self.kept_range()).unwrap_or_default()
    }

    /// As [`kept`](Self::kept), to be changed in place (lines joined).
    pub fn kept_mut(&mut self) -> &mut [u8] {
        let range = self.kept_range();
        self.bytes.get_mut(range).unwrap_or_default()
    }

    /// Drops all that is kept.
    #[inline]
    pub(crate) fn release_all(&mut self) {
        self.at.start = self.at.kept_end;
        self.tidy();
    }

    /// Drops the first `n` kept bytes.
    pub fn release(&mut self, n: usize) {
        let n = n.min(self.kept_len());
        self.at.start = offset(self.at.start as usize + n);
        self.tidy();
    }

    /// From now on [`spare_mut`](Self::spare_mut) leaves half of what is free, for what is read to expand into.
    ///
    /// A [`Connection`](crate::ws::Connection) with permessage-deflate does so in its first poll. Before it, this is
    /// for whoever reads the head of an opening handshake that may agree on that, since frames can come in the same
    /// read: a buffer that they fill and that cannot grow has no room to inflate them.
    pub fn reserve_for_expansion(&mut self) {
        self.set_expands(true);
    }

    /// Whether half of what is free stays free for [`expand`](Self::expand).
    pub(crate) fn set_expands(&mut self, expands: bool) {
        self.at.expands = expands;
    }

    /// Lends what is unread, and the room between it and what is kept, for what expands on its way from the one
    /// to the other. What is unread moves to the end of the buffer for that: once for each byte that is read.
    pub(crate) fn expand(&mut self) -> (&[u8], &mut [u8]) {
        let (kept, unread) = (self.kept_len(), self.unread_len());
        slide(self.bytes, self.kept_range(), 0);
        let read = self.capacity().saturating_sub(unread);
        slide(self.bytes, self.unread_range(), read);
        let (kept, read, end) = (offset(kept), offset(read), offset(self.capacity()));
        *self.at = RxCursor { start: 0, kept_end: kept, read, end, ..*self.at };
        match self.bytes.split_at_mut_checked(read as usize) {
            Some((front, unread)) => (unread, front.get_mut(kept as usize..).unwrap_or_default()),
            None => (&[], &mut []),
        }
    }

    /// What is kept becomes unread again, in front of what is; says how much that was.
    pub(crate) fn unkeep(&mut self) -> usize {
        let kept = self.kept_len();
        let read = (self.at.read as usize).saturating_sub(kept);
        slide(self.bytes, self.kept_range(), read);
        *self.at = RxCursor { start: 0, kept_end: 0, read: offset(read), ..*self.at };
        kept
    }

    /// Says that the first `read` unread bytes became `written` bytes behind what is kept.
    pub(crate) fn expanded(&mut self, read: usize, written: usize) {
        let read = (self.at.read as usize).saturating_add(read.min(self.unread_len()));
        let kept_end = (self.at.kept_end as usize).saturating_add(written).min(read);
        self.at.read = offset(read);
        self.at.kept_end = offset(kept_end);
    }

    /// What is kept and what is unread, for as long as the buffer is lent.
    #[inline]
    pub fn into_parts(self) -> (&'a [u8], &'a [u8]) {
        let (kept, unread) = (self.kept_range(), self.unread_range());
        let bytes: &'a [u8] = self.bytes;
        (bytes.get(kept).unwrap_or_default(), bytes.get(unread).unwrap_or_default())
    }

    /// Bytes of [`kept`](Self::kept).
    pub(crate) const fn kept_len(&self) -> usize {
        self.at.kept_end.saturating_sub(self.at.start) as usize
    }

    /// Bytes of [`unread`](Self::unread).
    pub(crate) const fn unread_len(&self) -> usize {
        self.at.end.saturating_sub(self.at.read) as usize
    }

    fn kept_range(&self) -> Range<usize> {
        self.at.start as usize..self.at.kept_end as usize
    }

    fn unread_range(&self) -> Range<usize> {
        self.at.read as usize..self.at.end as usize
    }

    /// An idle buffer starts again at the front, where the most room is.
    fn tidy(&mut self) {
        if self.at.is_idle() {
            *self.at = RxCursor { expands: self.at.expands, ..RxCursor::new() };
        }
    }
}

/// A lent send buffer: bytes are appended by a machine and taken from the front by whoever writes the socket.
#[derive(Debug)]
pub struct TxBuf<'a> {
    bytes: &'a mut [u8],
    at: &'a mut TxCursor,
}

impl<'a> TxBuf<'a> {
    /// Lends `bytes`, in which `cursor` says what is pending. At most `u32::MAX` bytes are used; a cursor that
    /// does not fit is reset, as for [`RxBuf`].
    ///
    /// ```
    /// use longwire_core::buf::{TxBuf, TxCursor};
    ///
    /// let (mut bytes, mut cursor) = ([0; 8], TxCursor::default());
    /// let mut tx = TxBuf::new(&mut bytes, &mut cursor);
    /// assert!(tx.put(&[b"GET", b" /"]));
    /// assert!(!tx.put(&[b"too long"])); // all or nothing
    /// tx.consume(4); // the socket took four bytes
    /// assert_eq!(tx.pending(), b"/");
    /// ```
    #[inline]
    pub fn new(bytes: &'a mut [u8], cursor: &'a mut TxCursor) -> Self {
        if cursor.start > cursor.end || cursor.end as usize > bytes.len() {
            *cursor = TxCursor::default();
        }
        let usable = bytes.len().min(u32::MAX as usize);
        let bytes = match bytes.split_at_mut_checked(usable) {
            Some((bytes, _)) => bytes,
            None => &mut [],
        };
        Self { bytes, at: cursor }
    }

    /// The same buffer for a shorter time.
    pub fn reborrow(&mut self) -> TxBuf<'_> {
        TxBuf { bytes: self.bytes, at: self.at }
    }

    /// Bytes that the buffer can hold in all.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// What has to be written to the socket, in order.
    #[inline]
    pub fn pending(&self) -> &[u8] {
        self.bytes.get(self.at.start as usize..self.at.end as usize).unwrap_or_default()
    }

    const fn pending_len(&self) -> usize {
        self.at.end.saturating_sub(self.at.start) as usize
    }

    /// Says that the socket took the first `n` pending bytes.
    pub fn consume(&mut self, n: usize) {
        let n = n.min(self.pending_len());
        self.at.start = offset(self.at.start as usize + n);
        if self.at.is_idle() {
            *self.at = TxCursor::default();
        }
    }

    /// Bytes that can still be appended.
    #[inline]
    pub fn room(&self) -> usize {
        self.capacity().saturating_sub(self.pending_len())
    }

    /// Appends all parts, or none: false when there is not [room](Self::room) for them together.
    #[must_use]
    pub fn put(&mut self, parts: &[&[u8]]) -> bool {
        let len = parts.iter().fold(0usize, |sum, part| sum.saturating_add(part.len()));
        let Some(space) = self.append(len) else { return false };
        copy_parts(space, parts);
        true
    }

    /// Takes back the last `n` bytes that were appended.
    pub(crate) fn retract(&mut self, n: usize) {
        self.at.end = offset((self.at.end as usize).saturating_sub(n)).max(self.at.start);
    }

    /// Appends `len` bytes and returns them to be filled in; `None` when there is no [room](Self::room).
    #[must_use]
    #[inline]
    pub fn append(&mut self, len: usize) -> Option<&mut [u8]> {
        if len > self.room() {
            return None;
        }
        if len > self.capacity().saturating_sub(self.at.end as usize) {
            slide(self.bytes, self.at.start as usize..self.at.end as usize, 0);
            *self.at = TxCursor { start: 0, end: self.at.end.saturating_sub(self.at.start) };
        }
        let from = self.at.end as usize;
        self.at.end = offset(from + len);
        self.bytes.get_mut(from..from + len)
    }
}

/// Moves the bytes of `from` to `to`. Out of range it does nothing: the checks are what lets the optimiser leave
/// out the panic of `copy_within`.
pub(crate) fn slide(bytes: &mut [u8], from: Range<usize>, to: usize) {
    let Some(len) = from.end.checked_sub(from.start) else { return };
    let Some(room) = bytes.len().checked_sub(len) else { return };
    if from.end <= bytes.len() && to <= room && from.start != to {
        work::count(len);
        bytes.copy_within(from, to);
    }
}

/// Copies the parts one behind the other, as far as there is space.
pub(crate) fn copy_parts(mut space: &mut [u8], parts: &[&[u8]]) {
    for part in parts {
        let n = part.len().min(space.len());
        // Both splits are in bounds; the checked ones say so without a panic path.
        let (Some((to, rest)), Some((from, _))) = (space.split_at_mut_checked(n), part.split_at_checked(n))
        else {
            return;
        };
        to.copy_from_slice(from);
        space = rest;
    }
}

/// An offset within a buffer, of which at most `u32::MAX` bytes are used.
#[expect(clippy::cast_possible_truncation, reason = "clamped to u32::MAX in the same expression")]
const fn offset(at: usize) -> u32 {
    if at > u32::MAX as usize { u32::MAX } else { at as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn pieces_close_up_and_the_first_is_not_moved() {
        let (mut bytes, mut cursor) = ([0; 12], RxCursor::default());
        let mut rx = RxBuf::new(&mut bytes, &mut cursor);
        assert_eq!(rx.fill(b"hhabhhcdhhef!"), 12);
        rx.skip(2);
        rx.keep(2);
        assert_eq!(rx.kept().as_ptr(), rx.bytes[2..].as_ptr());
        rx.skip(2);
        rx.keep(2);
        rx.skip(2);
        rx.keep(1);
        assert_eq!((rx.kept(), rx.unread()), (&b"abcde"[..], &b"f"[..]));
        // Full to the last byte, yet the gaps make room.
        assert_eq!(rx.spare_mut().len(), 6);
        assert_eq!((rx.kept(), rx.unread()), (&b"abcde"[..], &b"f"[..]));
        rx.release(2);
        assert_eq!((rx.kept(), rx.held()), (&b"cde"[..], 4));
        assert_eq!(rx.compact(), b"cdef");
        assert_eq!(rx.into_parts(), (&b"cde"[..], &b"f"[..]));
    }

    #[test]
    fn spare_is_empty_only_when_full() {
        let (mut bytes, mut cursor) = ([0; 8], RxCursor::default());
        let mut rx = RxBuf::new(&mut bytes, &mut cursor);
        rx.fill(b"abcdefgh");
        assert!(rx.is_full() && rx.spare_mut().is_empty());
        rx.skip(1);
        assert_eq!(rx.spare_mut().len(), 1);
        rx.fill(b"i");
        rx.keep(4);
        rx.skip(1);
        assert_eq!(rx.spare_mut().len(), 1);
        assert_eq!((rx.kept(), rx.unread()), (&b"bcde"[..], &b"ghi"[..]));
        rx.release(4);
        rx.skip(3);
        assert_eq!(*rx.at, RxCursor::default());
    }

    #[test]
    fn misuse_loses_bytes_but_never_reads_out_of_place() {
        let mut cursor = RxCursor { start: 1, kept_end: 2, read: 3, end: 9, expands: false };
        let rx = RxBuf::new(&mut [0; 8], &mut cursor).held();
        assert_eq!((rx, cursor), (0, RxCursor::default()));
        let mut tx = TxCursor { start: 3, end: 9 };
        assert_eq!(TxBuf::new(&mut [0; 8], &mut tx).pending(), b"");
        let (mut bytes, mut cursor) = ([0; 4], RxCursor::default());
        let mut rx = RxBuf::new(&mut bytes, &mut cursor);
        rx.commit(99);
        rx.skip(99);
        rx.keep(99);
        rx.release(99);
        assert_eq!(rx.held(), 0);
    }

    #[test]
    fn a_byte_at_a_time_costs_linear_moves() {
        // A one-byte fragment behind a six-byte header, 4,000 times, into a buffer just large enough. Moves are
        // counted by watching where the unread bytes lie.
        let (mut bytes, mut cursor) = (std::vec![0; 4096], RxCursor::default());
        let mut compactions = 0;
        for n in 0..4000 {
            for b in [1, 2, 3, 4, 5, 6, b'x'] {
                let mut rx = RxBuf::new(&mut bytes, &mut cursor);
                let before = rx.at.end;
                let spare = rx.spare_mut();
                spare[0] = b;
                rx.commit(1);
                compactions += usize::from(rx.at.end != before + 1);
            }
            let mut rx = RxBuf::new(&mut bytes, &mut cursor);
            rx.skip(6);
            rx.keep(1);
            assert_eq!(rx.kept().len(), n + 1);
        }
        assert!(RxBuf::new(&mut bytes, &mut cursor).kept().iter().all(|b| *b == b'x'));
        // Each moves at most the seven unread bytes; what is kept stays where it is.
        assert!(compactions <= 4000, "{compactions}");
    }

    #[test]
    fn tx_is_a_queue_of_bytes() {
        let (mut bytes, mut cursor) = ([0; 8], TxCursor::default());
        let mut tx = TxBuf::new(&mut bytes, &mut cursor);
        let (mut sent, mut next) = (Vec::new(), 0u8);
        for step in 0..200usize {
            let len = step * 7 % 6;
            let fits = len <= tx.room();
            let part: Vec<u8> = (next..).take(len).collect();
            assert_eq!(tx.put(&[&part[..len / 2], &part[len / 2..]]), fits);
            if fits {
                next = next.wrapping_add(u8::try_from(len).unwrap());
            }
            if next > 200 {
                break;
            }
            let n = (step * 5 % 4).min(tx.pending().len());
            sent.extend_from_slice(&tx.pending()[..n]);
            tx.consume(n);
        }
        sent.extend_from_slice(tx.pending());
        assert_eq!(sent, (0..next).collect::<Vec<u8>>());
    }
}
