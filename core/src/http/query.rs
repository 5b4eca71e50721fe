//! Percent-encoding in paths (RFC 3986 section 2.1) and in queries (`application/x-www-form-urlencoded`,
//! WHATWG URL section 5.1), decoded without allocation.
//!
//! Deviation from WHATWG: a malformed escape, or one that is not UTF-8, is an error and not a replacement
//! character. Two readers that repair the same text differently see different topics.

use core::fmt;

use super::grammar::{cut, pieces};
use crate::digits::decimal;

/// The name and value pairs of a query, in order. A piece without `=` is a name with an empty value; empty
/// pieces are passed over.
///
/// ```
/// use longwire_core::http::query::pairs;
///
/// let mut topic = heapless::String::<16>::new();
/// let (_, value) = pairs("since=now&topic=a%2Fb+c").find(|(name, _)| name.is("topic")).unwrap();
/// value.decode_into(&mut topic)?;
/// assert_eq!(topic, "a/b c");
/// # Ok::<(), longwire_core::http::query::DecodeError>(())
/// ```
pub fn pairs(query: &str) -> impl Iterator<Item = (Encoded<'_>, Encoded<'_>)> + Clone {
    pieces(query, b'&').filter(|piece| !piece.is_empty()).map(|piece| {
        let (name, value) = cut(piece, b'=').unwrap_or((piece, ""));
        (Encoded { raw: name, plus: true }, Encoded { raw: value, plus: true })
    })
}

/// The value of the first pair of this name.
pub fn value<'q>(query: &'q str, name: &str) -> Option<Encoded<'q>> {
    pairs(query).find(|(n, _)| n.is(name)).map(|(_, value)| value)
}

/// The segments of an absolute path: `/v1/topics/a%2Fb` has three. An escaped slash does not separate.
pub fn segments(path: &str) -> impl Iterator<Item = Encoded<'_>> + Clone {
    pieces(path.strip_prefix('/').unwrap_or(path), b'/').map(|raw| Encoded { raw, plus: false })
}

/// Text that may hold escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded<'a> {
    raw: &'a str,
    /// Whether `+` is a space.
    plus: bool,
}

impl<'a> Encoded<'a> {
    /// The text as it was sent.
    pub const fn raw(self) -> &'a str {
        self.raw
    }

    /// The characters that are meant. After an error there are no more.
    pub fn chars(self) -> Chars<'a> {
        Chars { rest: self.raw.as_bytes(), plus: self.plus }
    }

    /// Whether `text` is meant, which does not hold of malformed text.
    pub fn is(self, text: &str) -> bool {
        self.chars().eq(text.chars().map(Ok))
    }

    /// Appends the characters that are meant to `to`.
    ///
    /// # Errors
    /// [`DecodeError`]; then `to` is as it was.
    pub fn decode_into<const N: usize>(self, to: &mut heapless::String<N>) -> Result<(), DecodeError> {
        // First a look, so that nothing has to be taken back.
        let mut len = to.len();
        for c in self.chars() {
            len = len.saturating_add(c?.len_utf8());
        }
        if len > N {
            return Err(DecodeError::TooLong);
        }
        for c in self.chars().flatten() {
            to.push(c).map_err(|_| DecodeError::TooLong)?;
        }
        Ok(())
    }

    /// A decimal number: digits and nothing else, below 2^64. `None` otherwise.
    pub fn number(self) -> Option<u64> {
        decimal(self.raw.as_bytes())
    }
}

/// The characters of [`Encoded`] text.
#[derive(Clone, Debug)]
pub struct Chars<'a> {
    rest: &'a [u8],
    plus: bool,
}

impl Iterator for Chars<'_> {
    type Item = Result<char, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = self.byte()?;
        let decoded = first.and_then(|first| self.character(first));
        if decoded.is_err() {
            self.rest = &[];
        }
        Some(decoded)
    }
}

impl Chars<'_> {
    /// The next byte that is meant.
    fn byte(&mut self) -> Option<Result<u8, DecodeError>> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(match first {
            b'+' if self.plus => Ok(b' '),
            b'%' => self.escaped().ok_or(DecodeError::Escape),
            other => Ok(*other),
        })
    }

    fn escaped(&mut self) -> Option<u8> {
        let (digits, rest) = self.rest.split_first_chunk::<2>()?;
        let [high, low] = digits.map(|digit| (digit as char).to_digit(16));
        self.rest = rest;
        u8::try_from(high? << 4 | low?).ok()
    }

    /// The character that begins with this byte.
    fn character(&mut self, first: u8) -> Result<char, DecodeError> {
        let mut bytes = [first, 0, 0, 0];
        let len = match first {
            0..0x80 => return Ok(first as char),
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => return Err(DecodeError::Utf8),
        };
        for byte in bytes.iter_mut().take(len).skip(1) {
            *byte = self.byte().ok_or(DecodeError::Utf8)??;
        }
        let text =
            core::str::from_utf8(bytes.get(..len).unwrap_or_default()).map_err(|_| DecodeError::Utf8)?;
        text.chars().next().ok_or(DecodeError::Utf8)
    }
}

/// Why text cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum DecodeError {
    /// `%` without two hexadecimal digits.
    Escape,
    /// The bytes that are meant are not UTF-8.
    Utf8,
    /// The text is longer than the room that was given.
    TooLong,
}

impl DecodeError {
    /// The rule, in one line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Escape => "malformed percent-encoding",
            Self::Utf8 => "percent-encoded bytes are not UTF-8",
            Self::TooLong => "decoded text is too long",
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for DecodeError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    fn decoded(text: Encoded<'_>) -> Result<String, DecodeError> {
        text.chars().collect()
    }

    #[test]
    fn whatwg_url_5_1_pairs() {
        for (query, want) in [
            ("", &[][..]),
            ("&&", &[]),
            ("a=1&b=x%20y+z", &[("a", "1"), ("b", "x y z")]),
            ("a&b=&=c&=", &[("a", ""), ("b", ""), ("", "c"), ("", "")]),
            ("a=b=c", &[("a", "b=c")]),
            ("%61%3D=%26%2b", &[("a=", "&+")]),
            ("t=fleet/**&t=%F0%9F%9A%82%c3%a9", &[("t", "fleet/**"), ("t", "\u{1f682}\u{e9}")]),
            ("a=1;b=2", &[("a", "1;b=2")]),
            ("a=%00", &[("a", "\0")]),
        ] {
            let found: Vec<_> =
                pairs(query).map(|(n, v)| (decoded(n).unwrap(), decoded(v).unwrap())).collect();
            let want: Vec<_> = want.iter().map(|(n, v)| (String::from(*n), String::from(*v))).collect();
            assert_eq!(found, want, "{query}");
        }
        assert_eq!(value("a=x&n=20&n=30", "n").and_then(Encoded::number), Some(20));
        assert_eq!(value("a=x", "n"), None);
    }

    #[test]
    fn path_segments() {
        let found: Vec<_> = segments("/v1/topics/a%2Fb/c+d").map(|s| decoded(s).unwrap()).collect();
        assert_eq!(found, ["v1", "topics", "a/b", "c+d"]);
        assert_eq!(segments("/").map(Encoded::raw).collect::<Vec<_>>(), [""]);
    }

    #[test]
    fn malformed_text_is_an_error() {
        for (text, error) in [
            ("%", DecodeError::Escape),
            ("a%2", DecodeError::Escape),
            ("%2g", DecodeError::Escape),
            ("%+1", DecodeError::Escape),
            ("%ff", DecodeError::Utf8),
            ("%80", DecodeError::Utf8),
            ("%c3", DecodeError::Utf8),
            ("%c3a", DecodeError::Utf8),
            ("%c0%af", DecodeError::Utf8),
            ("%ed%a0%80", DecodeError::Utf8),
            ("%f4%90%80%80", DecodeError::Utf8),
            ("%e2%82%", DecodeError::Escape),
        ] {
            let text = Encoded { raw: text, plus: true };
            assert_eq!(decoded(text), Err(error), "{text:?}");
            assert!(!text.is("") && text.chars().filter(|c| c.is_err()).count() == 1);
            let mut to = heapless::String::<8>::try_from("x").unwrap();
            assert_eq!((text.decode_into(&mut to), to.as_str()), (Err(error), "x"));
        }
    }

    #[test]
    fn the_room_is_the_limit() {
        let text = Encoded { raw: "%c3%a9abc", plus: false };
        let mut exact = heapless::String::<5>::new();
        assert_eq!((text.decode_into(&mut exact), exact.as_str()), (Ok(()), "\u{e9}abc"));
        let mut short = heapless::String::<4>::new();
        assert_eq!((text.decode_into(&mut short), short.as_str()), (Err(DecodeError::TooLong), ""));
    }

    proptest! {
        #[test]
        fn any_text_survives_being_encoded(text in ".{0,40}", plain in any::<u64>()) {
            // Some bytes are escaped and some are not, as `plain` decides.
            let mut raw = String::new();
            for (n, c) in text.chars().enumerate() {
                if c.is_ascii_alphanumeric() && plain >> (n % 64) & 1 == 1 {
                    raw.push(c);
                } else {
                    let mut utf8 = [0; 4];
                    for b in c.encode_utf8(&mut utf8).bytes() {
                        raw += &format!("%{b:02X}");
                    }
                }
            }
            let encoded = Encoded { raw: &raw, plus: true };
            prop_assert_eq!(decoded(encoded), Ok(text.clone()));
            prop_assert!(encoded.is(&text));
        }

        #[test]
        fn anything_is_decoded_or_refused(raw in "[%+&=0-9a-fA-F\u{0}-\u{7ff}]{0,40}") {
            for (name, value) in pairs(&raw) {
                // Like the standard library's own decoder, given the same bytes.
                for text in [name, value] {
                    let mut bytes = Vec::new();
                    let mut source = text.raw.bytes();
                    let mut whole = true;
                    while let Some(b) = source.next() {
                        bytes.push(match b {
                            b'+' => b' ',
                            b'%' => {
                                let digits: Vec<_> = source.by_ref().take(2).collect();
                                let hex = digits.len() == 2 && digits.iter().all(u8::is_ascii_hexdigit);
                                whole &= hex;
                                let digits = std::str::from_utf8(&digits).unwrap_or_default();
                                u8::from_str_radix(digits, 16).unwrap_or_default()
                            }
                            b => b,
                        });
                    }
                    let want = String::from_utf8(bytes).ok().filter(|_| whole);
                    prop_assert_eq!(decoded(text).ok(), want);
                }
            }
        }
    }
}
