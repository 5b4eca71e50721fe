//! Where encoded bytes go.

use crate::buf::TxBuf;
use core::fmt;

/// Takes encoded bytes, piece by piece: a [`TxBuf`], a lent slice ([`SliceSink`]), a `heapless::Vec`, a
/// [`Length`] that only counts, or any closure, which is how a growing buffer is written to:
///
/// ```
/// # #[cfg(feature = "json")] {
/// use longwire_core::session::{ServerMessage, json};
///
/// let mut wire = Vec::new();
/// let mut sink = |piece: &[u8]| {
///     wire.extend_from_slice(piece);
///     Ok(())
/// };
/// json::encode_server(&ServerMessage::Renew { within: core::time::Duration::from_secs(30) }, &mut sink).unwrap();
/// assert_eq!(wire, br#"{"type":"renew","within":30000}"#);
/// # }
/// ```
///
/// An encoder stops at the first refusal; what it wrote until then stays written. Whoever needs all or nothing
/// measures with a [`Length`] first.
pub trait Sink {
    /// Appends all of `bytes`, or none.
    ///
    /// # Errors
    /// [`Full`] when there is no room for them.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Full>;
}

/// The sink has no room for what was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no room for what was to be written")
    }
}

impl core::error::Error for Full {}

impl Sink for TxBuf<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        if TxBuf::put(self, &[bytes]) { Ok(()) } else { Err(Full) }
    }
}

impl<const N: usize> Sink for heapless::Vec<u8, N> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.extend_from_slice(bytes).map_err(|_| Full)
    }
}

impl<F: FnMut(&[u8]) -> Result<(), Full>> Sink for F {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self(bytes)
    }
}

/// Writes into a lent slice, from its beginning.
#[derive(Debug)]
pub struct SliceSink<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl<'a> SliceSink<'a> {
    /// Lends the slice; its length is the capacity.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, len: 0 }
    }

    /// What was written so far.
    pub fn written(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// What was written, for as long as the slice is lent.
    pub fn into_written(self) -> &'a mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }
}

impl Sink for SliceSink<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let (_, spare) = self.bytes.split_at_mut_checked(self.len).ok_or(Full)?;
        let (room, _) = spare.split_at_mut_checked(bytes.len()).ok_or(Full)?;
        for (to, from) in room.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.len += bytes.len();
        Ok(())
    }
}

/// Counts what would be written, for a header that has to say it first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Length(pub u64);

impl Sink for Length {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.0 = self.0.checked_add(bytes.len() as u64).ok_or(Full)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::TxCursor;

    #[test]
    fn every_sink_takes_a_piece_whole_or_not_at_all() {
        fn fill(sink: &mut dyn Sink) -> [bool; 4] {
            [&b"ab"[..], b"cde", b"c", b""].map(|piece| sink.put(piece).is_ok())
        }
        let expected = [true, false, true, true];
        let (mut bytes, mut cursor) = ([0; 4], TxCursor::default());
        let mut tx = TxBuf::new(&mut bytes, &mut cursor);
        assert_eq!(fill(&mut tx), expected);
        assert_eq!(tx.pending(), b"abc");
        let mut bytes = [0; 4];
        let mut slice = SliceSink::new(&mut bytes);
        assert_eq!(fill(&mut slice), expected);
        assert_eq!(slice.written(), b"abc");
        assert_eq!(slice.into_written(), b"abc");
        let mut vec = heapless::Vec::<u8, 4>::new();
        assert_eq!(fill(&mut vec), expected);
        assert_eq!(vec, b"abc");
        let mut length = Length::default();
        assert_eq!(fill(&mut length), [true; 4]);
        assert_eq!(length, Length(6));
        assert_eq!(Length(u64::MAX).put(b"a"), Err(Full));
    }
}
