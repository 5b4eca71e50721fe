//! What a reader is about to be written, piece by piece, and what remains when its socket takes only a part.

use super::shard::REPLY_SIZE;
use bytes::{Buf, Bytes, BytesMut};
use longwire_core::buf::{TxBuf, TxCursor};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that half-sent pieces take, over all connections of a log.
#[derive(Debug, Default)]
pub(super) struct Pins {
    used: AtomicUsize,
    max: usize,
}

impl Pins {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), max })
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Keeps a copy for as long as somebody has a part of it; `None` when there is no room: a piece may take an
    /// eighth of what is left, so that readers of large events leave room for those of small ones.
    fn keep(self: &Arc<Self>, piece: &[u8]) -> Option<Bytes> {
        let held = self.hold(piece.len())?;
        Some(Bytes::from_owner(Pin { bytes: piece.into(), _held: held }))
    }

    /// Counts bytes that a connection keeps in a way of its own, by the same rule.
    pub(super) fn hold(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let allowed = self.max.saturating_sub(used) / 8;
            (bytes <= allowed).then_some(used + bytes)
        });
        taken.ok().map(|_| Held { bytes, pins: Arc::clone(self) })
    }
}

/// A piece that somebody has written a part of.
struct Pin {
    bytes: Box<[u8]>,
    _held: Held,
}

/// Bytes that count until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    bytes: usize,
    pins: Arc<Pins>,
}

impl AsRef<[u8]> for Pin {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.pins.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Pieces (frames, SSE events) side by side, each with what it changes once its first byte has left.
#[derive(Debug)]
pub(super) struct Image<E> {
    bytes: BytesMut,
    pieces: Vec<Piece<E>>,
}

#[derive(Debug)]
struct Piece<E> {
    end: usize,
    effect: E,
    /// A copy, for all readers whose sockets took only a part of it.
    pinned: Option<Bytes>,
}

/// There is no room to keep what a socket did not take of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

impl<E> Default for Image<E> {
    fn default() -> Self {
        Self { bytes: BytesMut::new(), pieces: Vec::new() }
    }
}

impl<E: Copy> Image<E> {
    /// Adds a piece, written by `write`.
    pub(super) fn push(&mut self, effect: E, write: impl FnOnce(&mut BytesMut)) {
        write(&mut self.bytes);
        self.pieces.push(Piece { end: self.bytes.len(), effect, pinned: None });
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn pieces(&self) -> u64 {
        self.pieces.len() as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.pieces.clear();
    }

    /// The socket took `written` bytes. `begun` is called with the effect of each piece of which a byte has left, in
    /// order; what remains of the last of them is returned and has to go out first, whatever happens. Pieces that were
    /// not begun are made again from the reader's position, which they have not moved.
    ///
    /// # Errors
    /// [`NoRoom`] to keep that rest: the connection cannot go on.
    pub(super) fn written(
        &mut self,
        written: usize,
        pins: &Arc<Pins>,
        mut begun: impl FnMut(E),
    ) -> Result<Bytes, NoRoom> {
        let mut start = 0;
        for piece in &mut self.pieces {
            if start >= written {
                break;
            }
            begun(piece.effect);
            if written < piece.end {
                if piece.pinned.is_none() {
                    piece.pinned = pins.keep(self.bytes.get(start..piece.end).unwrap_or_default());
                }
                return Ok(piece.pinned.as_ref().ok_or(NoRoom)?.slice(written - start..));
            }
            start = piece.end;
        }
        Ok(Bytes::new())
    }
}

/// What a connection has to write before anything else: at most the rest of one piece, beside its control messages.
/// Apart, for most have nothing.
#[derive(Debug, Default)]
pub(super) struct Rest(Option<Box<Bytes>>);

impl Rest {
    pub(super) fn set(&mut self, rest: Bytes) {
        self.0 = (!rest.is_empty()).then(|| Box::new(rest));
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |rest| rest)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn consume(&mut self, n: usize) {
        if let Some(rest) = &mut self.0 {
            rest.advance(n.min(rest.len()));
        }
        self.0.take_if(|rest| rest.is_empty());
    }
}

/// Control messages that a connection has to write: a buffer of its own while there are some.
#[derive(Default)]
pub(super) struct Words(Option<Box<(Vec<u8>, TxCursor)>>);

impl Words {
    /// With room for more.
    pub(super) fn tx(&mut self) -> TxBuf<'_> {
        let (buf, at) =
            &mut **self.0.get_or_insert_with(|| Box::new((vec![0; REPLY_SIZE], TxCursor::default())));
        TxBuf::new(buf, at)
    }

    /// What waits, if anything does.
    pub(super) fn pending(&mut self) -> Option<TxBuf<'_>> {
        self.0.as_deref_mut().filter(|(_, at)| !at.is_idle()).map(|(buf, at)| TxBuf::new(buf, at))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.0.as_deref().is_none_or(|(_, at)| at.is_idle())
    }

    /// Nothing waits: the memory goes.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;

    fn image() -> Image<usize> {
        let mut image = Image::default();
        for (effect, piece) in [(1, &b"one"[..]), (2, b"two"), (3, b"six")] {
            image.push(effect, |out| out.put_slice(piece));
        }
        image
    }

    #[test]
    fn a_piece_that_began_is_finished_and_the_others_are_forgotten() {
        let pins = Pins::new(24);
        for written in 0..=9 {
            let mut begun = Vec::new();
            let rest = image().written(written, &pins, |effect| begun.push(effect)).unwrap();
            assert_eq!(begun, (1..=written.div_ceil(3)).collect::<Vec<_>>());
            assert_eq!(rest, &b"onetwosix"[written..written.div_ceil(3) * 3]);
            assert_eq!(pins.used(), if rest.is_empty() { 0 } else { 3 });
        }
        assert_eq!(pins.used(), 0);
    }

    #[test]
    fn a_piece_is_kept_once_for_all_and_only_while_there_is_room() {
        // Each may take an eighth of what is left.
        let (pins, mut image) = (Pins::new(26), image());
        let first = image.written(4, &pins, |_| {}).unwrap();
        let second = image.written(5, &pins, |_| {}).unwrap();
        assert_eq!((&first[..], &second[..], pins.used()), (&b"wo"[..], &b"o"[..], 3));
        let mut begun = Vec::new();
        assert_eq!(image.written(7, &pins, |effect| begun.push(effect)), Err(NoRoom));
        assert_eq!(begun, [1, 2, 3]);
        image.clear();
        drop(first);
        assert_eq!(pins.used(), 3);
        drop(second);
        assert_eq!(pins.used(), 0);
    }
}
