//! Opaque values as they lie in a message, and base64 (RFC 4648), three bytes at a time.
//!
//! The library `base64` is used where lengths are fixed. Here they are not, and the text may be cut by escapes, so
//! the alphabet stands here: no panic can be reached, and nothing is copied.

use super::{Full, Sink, SliceSink};
use core::fmt;

/// The field `bytes` as it lies in the message: as it is, as base64 text (JSON), or in chunks (CBOR).
///
/// Base64 was checked when the message was decoded: the alphabet of RFC 4648 section 4, padded, no bits left over.
/// Two values are equal when their bytes are.
#[derive(Clone, Copy)]
pub struct Bytes<'b>(pub(super) Form<'b>);

/// The forms that bytes arrive in.
#[derive(Clone, Copy)]
pub(super) enum Form<'b> {
    /// As they are.
    Plain(&'b [u8]),
    /// As a checked base64 text.
    #[cfg(feature = "json")]
    Base64(super::Text<'b>),
    /// The definite chunks of an indefinite CBOR byte string (RFC 8949 section 3.2.3), without the "break".
    #[cfg(feature = "cbor")]
    Chunks(&'b [u8]),
}

impl<'b> Bytes<'b> {
    /// The bytes, when they lie in the message as they are.
    pub const fn as_plain(self) -> Option<&'b [u8]> {
        match self.0 {
            Form::Plain(bytes) => Some(bytes),
            #[cfg(any(feature = "json", feature = "cbor"))]
            _ => None,
        }
    }

    /// The bytes, one after the other.
    pub fn iter(self) -> impl Iterator<Item = u8> + Clone + 'b {
        self.pieces().flat_map(|piece| {
            let (run, group, len) = match piece {
                Piece::Run(run) => (run, [0; 3], 0),
                Piece::Group(group, len) => (&[][..], group, len),
            };
            run.iter().copied().chain(group.into_iter().take(len))
        })
    }

    /// How many bytes there are: one pass unless they are [plain](Self::as_plain).
    pub fn len(self) -> usize {
        self.pieces().fold(0, |sum, piece| match piece {
            Piece::Run(run) => sum + run.len(),
            Piece::Group(_, len) => sum + len,
        })
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.iter().next().is_none()
    }

    /// Writes the bytes to the beginning of `to`, and returns that part of it.
    ///
    /// # Errors
    /// [`Full`] when they are more than `to` has room for; its contents are then undefined.
    pub fn decode_into(self, to: &mut [u8]) -> Result<&mut [u8], Full> {
        let mut sink = SliceSink::new(to);
        self.write_to(&mut sink)?;
        Ok(sink.into_written())
    }

    /// Writes the bytes as they are.
    ///
    /// # Errors
    /// [`Full`] of the sink.
    pub fn write_to<S: Sink + ?Sized>(self, sink: &mut S) -> Result<(), Full> {
        self.pieces().try_for_each(|piece| match piece {
            Piece::Run(run) => sink.put(run),
            Piece::Group(group, len) => sink.put(group.get(..len).unwrap_or_default()),
        })
    }

    fn pieces(self) -> Pieces<'b> {
        match self.0 {
            Form::Plain(bytes) => Pieces::Plain(bytes),
            #[cfg(feature = "json")]
            Form::Base64(text) => Pieces::Base64(base64::Groups::new(text)),
            #[cfg(feature = "cbor")]
            Form::Chunks(chunks) => Pieces::Chunks(chunks),
        }
    }
}

impl<'b> From<&'b [u8]> for Bytes<'b> {
    fn from(bytes: &'b [u8]) -> Self {
        Self(Form::Plain(bytes))
    }
}

impl PartialEq for Bytes<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self.as_plain(), other.as_plain()) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => self.iter().eq(other.iter()),
        }
    }
}

impl Eq for Bytes<'_> {}

impl PartialEq<[u8]> for Bytes<'_> {
    fn eq(&self, other: &[u8]) -> bool {
        *self == Bytes::from(other)
    }
}

impl fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A part of the bytes: a stretch of the message, or what one group of base64 stands for.
enum Piece<'b> {
    Run(&'b [u8]),
    #[cfg_attr(not(feature = "json"), expect(dead_code, reason = "only JSON has base64"))]
    Group([u8; 3], usize),
}

#[derive(Clone)]
enum Pieces<'b> {
    Plain(&'b [u8]),
    #[cfg(feature = "json")]
    Base64(base64::Groups<'b>),
    #[cfg(feature = "cbor")]
    Chunks(&'b [u8]),
}

impl<'b> Iterator for Pieces<'b> {
    type Item = Piece<'b>;

    fn next(&mut self) -> Option<Piece<'b>> {
        match self {
            Self::Plain([]) => None,
            Self::Plain(bytes) => Some(Piece::Run(core::mem::take(bytes))),
            #[cfg(feature = "json")]
            Self::Base64(groups) => groups.next()?.ok().map(|(group, len)| Piece::Group(group, len)),
            #[cfg(feature = "cbor")]
            Self::Chunks(rest) => super::cbor::next_chunk(rest).map(Piece::Run),
        }
    }
}

/// Base64 between bytes and JSON text.
#[cfg(feature = "json")]
pub(super) mod base64 {
    use crate::session::{
        Full, Sink, Text,
        text::{Piece, Pieces},
    };

    /// RFC 4648 section 4, for `bytes`.
    pub(in crate::session) const STANDARD: &[u8; 64] =
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    /// RFC 4648 section 5, for byte strings inside of data.
    #[cfg(feature = "transcode")]
    pub(in crate::session) const URL: &[u8; 64] =
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    /// The text is not base64 of RFC 4648 section 4, padded, with the bits left over zero (section 3.5).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in crate::session) struct NotBase64;

    /// Walks a base64 text, four characters to one to three bytes.
    #[derive(Clone)]
    pub(in crate::session) struct Groups<'b> {
        run: &'b [u8],
        pieces: Pieces<'b>,
        padded: bool,
    }

    impl<'b> Groups<'b> {
        pub(in crate::session) fn new(text: Text<'b>) -> Self {
            Self { run: &[], pieces: text.pieces(), padded: false }
        }

        fn next_char(&mut self) -> Option<u8> {
            loop {
                if let Some((c, rest)) = self.run.split_first() {
                    self.run = rest;
                    return Some(*c);
                }
                match self.pieces.next()? {
                    Piece::Run(run) => self.run = run.as_bytes(),
                    // No character beyond ASCII is in the alphabet, nor is NUL.
                    Piece::Char(c) => {
                        return Some(if c.is_ascii() { u8::try_from(c).unwrap_or(0) } else { 0 });
                    }
                }
            }
        }

        /// The next four characters; `None` at the end.
        fn next_four(&mut self) -> Option<Result<[u8; 4], NotBase64>> {
            if let Some((four, rest)) = self.run.split_first_chunk() {
                self.run = rest;
                return Some(Ok(*four));
            }
            let first = self.next_char()?;
            let mut others = || self.next_char().ok_or(NotBase64);
            let mut four = || Ok([first, others()?, others()?, others()?]);
            Some(four())
        }
    }

    impl Iterator for Groups<'_> {
        type Item = Result<([u8; 3], usize), NotBase64>;

        fn next(&mut self) -> Option<Self::Item> {
            let group = self.next_four()?.and_then(|four| {
                let (group, len) = decode(four).ok_or(NotBase64)?;
                if self.padded {
                    return Err(NotBase64); // padding stands at the end only
                }
                self.padded = len < 3;
                Ok((group, len))
            });
            Some(group)
        }
    }

    /// Whether the whole text is base64.
    pub(in crate::session) fn check(text: Text<'_>) -> Result<(), NotBase64> {
        Groups::new(text).try_for_each(|group| group.map(drop))
    }

    fn decode([a, b, c, d]: [u8; 4]) -> Option<([u8; 3], usize)> {
        let (len, c, d) = match (c, d) {
            (b'=', b'=') => (1, b'A', b'A'),
            (_, b'=') => (2, c, b'A'),
            _ => (3, c, d),
        };
        let bits = sextet(a)? << 18 | sextet(b)? << 12 | sextet(c)? << 6 | sextet(d)?;
        let [_, x, y, z] = bits.to_be_bytes();
        let left_over = match len {
            1 => y != 0,
            2 => z != 0,
            _ => false,
        };
        (!left_over).then_some(([x, y, z], len))
    }

    fn sextet(c: u8) -> Option<u32> {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        Some(u32::from(value))
    }

    /// Writes bytes as base64, padded or not.
    pub(in crate::session) fn encode<S: Sink + ?Sized>(
        mut bytes: impl Iterator<Item = u8>,
        alphabet: &[u8; 64],
        padded: bool,
        sink: &mut S,
    ) -> Result<(), Full> {
        while let Some(x) = bytes.next() {
            let (y, z) = (bytes.next(), bytes.next());
            let bits = u32::from_be_bytes([0, x, y.unwrap_or(0), z.unwrap_or(0)]);
            let letter = |shift: u32| alphabet.get((bits >> shift & 0x3f) as usize).copied().unwrap_or(b'=');
            let mut four = [letter(18), letter(12), letter(6), letter(0)];
            let len = match (y, z) {
                (None, _) => {
                    [four[2], four[3]] = [b'='; 2];
                    2
                }
                (_, None) => {
                    four[3] = b'=';
                    3
                }
                _ => 4,
            };
            sink.put(if padded { &four } else { four.get(..len).unwrap_or(&four) })?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[cfg(feature = "json")]
mod tests {
    use super::{
        base64::{NotBase64, STANDARD, check, encode},
        *,
    };
    use crate::session::{Text, text};
    use ::base64::prelude::*;
    use std::vec::Vec;

    fn base64(text: &str) -> Bytes<'_> {
        Bytes(Form::Base64(text.into()))
    }

    fn encoded(bytes: &[u8], padded: bool) -> heapless::Vec<u8, 1024> {
        let mut sink = heapless::Vec::new();
        assert_eq!(encode(bytes.iter().copied(), STANDARD, padded, &mut sink), Ok(()));
        sink
    }

    #[test]
    fn rfc_4648_section_10() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encoded(bytes.as_bytes(), true), text.as_bytes());
            assert_eq!(encoded(bytes.as_bytes(), false), text.trim_end_matches('=').as_bytes());
            assert_eq!(check(text.into()), Ok(()));
            assert_eq!(base64(text), *bytes.as_bytes());
            assert_eq!(base64(text).len(), bytes.len());
            assert_eq!(base64(text).is_empty(), bytes.is_empty());
            let mut room = [0; 6];
            assert_eq!(base64(text).decode_into(&mut room).unwrap(), bytes.as_bytes());
        }
        assert_eq!(base64("Zm9v").decode_into(&mut [0; 2]), Err(Full));
    }

    #[test]
    fn what_is_not_padded_base64_is_refused() {
        for text in [
            "Z", "Zg", "Zg=", "Zm8", "=", "====", "Z===", "Zg==Zg==", "Zm8=Zm9v", "Zm9v=", "Zm9v====",
            "Zh==", "Zm9=", "Zm9 ", "Zm9\n", "Zm9vZ", "Zg=A", "-_-_", "é===", "Zgé=", "\0\0\0\0",
        ] {
            assert_eq!(check(text.into()), Err(NotBase64), "{text:?}");
        }
    }

    #[test]
    fn escapes_may_cut_base64_anywhere() {
        let plain = "+/+/Zm9vYg==";
        for mask in 0u32..1 << plain.len() {
            let raw: std::string::String = plain
                .chars()
                .enumerate()
                .map(|(at, c)| match (mask >> at & 1, c) {
                    (0, _) => std::format!("{c}"),
                    (_, '/') => std::string::String::from(r"\/"),
                    _ => std::format!("\\u{:04x}", u32::from(c)),
                })
                .collect();
            let text = Text(text::Form::Escaped(&raw));
            assert_eq!(check(text), Ok(()));
            assert_eq!(Bytes(Form::Base64(text)), base64(plain));
        }
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_the_library(bytes: [u8; 24], len in 0usize..=24) {
            let mut room = [0; 32];
            let written = BASE64_STANDARD.encode_slice(&bytes[..len], &mut room).unwrap();
            let text = std::str::from_utf8(&room[..written]).unwrap();
            proptest::prop_assert_eq!(&encoded(&bytes[..len], true)[..], text.as_bytes());
            proptest::prop_assert_eq!(base64(text).iter().collect::<Vec<_>>(), &bytes[..len]);
        }

        #[test]
        fn accepts_what_the_library_accepts(text in "[A-D=+/]{0,9}") {
            let library = BASE64_STANDARD.decode_slice(&text, &mut [0; 16]);
            proptest::prop_assert_eq!(check((&*text).into()).is_ok(), library.is_ok());
        }
    }
}
