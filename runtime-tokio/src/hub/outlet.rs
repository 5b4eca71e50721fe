//! What a reader is about to be written, piece by piece, and what remains when its socket takes only a part.

use bytes::{Buf, Bytes, BytesMut};

/// Pieces (frames, SSE events) side by side, each with what it changes once its first byte has left.
#[derive(Debug)]
pub(super) struct Image<E> {
    bytes: BytesMut,
    pieces: Vec<(usize, E)>,
}

impl<E> Default for Image<E> {
    fn default() -> Self {
        Self { bytes: BytesMut::new(), pieces: Vec::new() }
    }
}

impl<E: Copy> Image<E> {
    /// Adds a piece, written by `write`.
    pub(super) fn push(&mut self, effect: E, write: impl FnOnce(&mut BytesMut)) {
        write(&mut self.bytes);
        self.pieces.push((self.bytes.len(), effect));
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
    pub(super) fn written(&self, written: usize, mut begun: impl FnMut(E)) -> Bytes {
        let mut start = 0;
        let mut rest = written..written;
        for (end, effect) in &self.pieces {
            if start < written {
                begun(*effect);
                rest.end = *end;
            }
            start = *end;
        }
        Bytes::copy_from_slice(self.bytes.get(rest).unwrap_or_default())
    }
}

/// What a connection has to write before anything else: at most the rest of one piece, beside its control messages.
#[derive(Debug, Default)]
pub(super) struct Rest(Bytes);

impl Rest {
    pub(super) fn set(&mut self, rest: Bytes) {
        self.0 = rest;
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn consume(&mut self, n: usize) {
        self.0.advance(n.min(self.0.len()));
        if self.0.is_empty() {
            // Lets go of the memory, too.
            self.0 = Bytes::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;

    #[test]
    fn a_piece_that_began_is_finished_and_the_others_are_forgotten() {
        for written in 0..=9 {
            let mut image = Image::default();
            for (effect, piece) in [(1, &b"one"[..]), (2, b"two"), (3, b"six")] {
                image.push(effect, |out| out.put_slice(piece));
            }
            let mut begun = Vec::new();
            let rest = image.written(written, |effect| begun.push(effect));
            assert_eq!(begun, (1..=written.div_ceil(3)).collect::<Vec<_>>());
            assert_eq!(rest, &b"onetwosix"[written..written.div_ceil(3) * 3]);
        }
    }
}
