//! The position up to which a reader has everything (`PROTOCOL.md` section 2).

use crate::digits::{push_decimal, push_hex};
use core::{fmt, str::FromStr};

/// Bytes of the longest cursor as text: 16 of the epoch, the hyphen, 20 of the largest `u64`.
pub const MAX_CURSOR: usize = 37;

/// A [`Cursor`] as text, in place.
pub type CursorText = heapless::String<MAX_CURSOR>;

/// A position in a log: everything up to and including it was received.
///
/// There is deliberately no `Ord`: positions of two epochs do not lie on one line. [`position_in`](Self::position_in)
/// gives a number that can be compared, once the epoch is known to be the right one.
///
/// ```
/// use longwire_core::log::Cursor;
///
/// let cursor = Cursor { epoch: 0x2a, seq: 7 };
/// assert_eq!(cursor.to_text(), "000000000000002a-7");
/// assert_eq!("000000000000002a-7".parse(), Ok(cursor));
/// assert_eq!(cursor.position_in(0x2a), Some(7));
/// assert_eq!(cursor.position_in(0x2b), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Cursor {
    /// Names one unbroken history of a log; random, and another one once the log lost its past.
    pub epoch: u64,
    /// The position in that history. It increases strictly over all topics of the log; holes are allowed.
    pub seq: u64,
}

const _: () = assert!(size_of::<Cursor>() <= 16);

impl Cursor {
    /// Reads a cursor from exactly the text that [`to_text`](Self::to_text) writes.
    ///
    /// # Errors
    /// The first rule of `PROTOCOL.md` section 2 that the text breaks. Every cursor has one text only, so uppercase
    /// digits, leading zeros of `seq`, signs and spaces are refused.
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        let (epoch, rest) = text.split_at_checked(16).ok_or(CursorError::Epoch)?;
        let epoch = epoch.bytes().try_fold(0u64, |epoch, digit| {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return Err(CursorError::Epoch),
            };
            Ok(epoch << 4 | u64::from(value))
        })?;
        let seq = rest.strip_prefix('-').ok_or(CursorError::Hyphen)?;
        if seq.is_empty() || (seq.starts_with('0') && seq != "0") {
            return Err(CursorError::Seq);
        }
        let seq = seq.bytes().try_fold(0u64, |seq, digit| {
            let value = digit.is_ascii_digit().then(|| u64::from(digit - b'0')).ok_or(CursorError::Seq)?;
            seq.checked_mul(10).and_then(|seq| seq.checked_add(value)).ok_or(CursorError::Seq)
        })?;
        Ok(Self { epoch, seq })
    }

    /// The cursor as text, at most [`MAX_CURSOR`] bytes: an SSE `id`, a `since`, an `at`.
    pub fn to_text(self) -> CursorText {
        let mut text = CursorText::new();
        // The longest cursor is exactly as long as the text.
        push_hex(&mut text, self.epoch);
        let _ = text.push('-');
        push_decimal(&mut text, self.seq);
        text
    }

    /// The position within the log's history `epoch`; `None` when this cursor is of another one, and therefore
    /// says nothing about it.
    pub const fn position_in(self, epoch: u64) -> Option<u64> {
        if self.epoch == epoch { Some(self.seq) } else { None }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.epoch, self.seq)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        Self::parse(text)
    }
}

/// Where a reader wants to begin (`PROTOCOL.md` section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Since {
    /// With what is published from now on.
    Now,
    /// With the latest event of each matching topic and key, then what is published from now on.
    Latest,
    /// With everything after this position that the log still holds.
    Cursor(Cursor),
}

impl Since {
    /// Reads `now`, `latest`, or a cursor.
    ///
    /// # Errors
    /// As [`Cursor::parse`], for any text that is neither of the two words.
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        match text {
            "now" => Ok(Self::Now),
            "latest" => Ok(Self::Latest),
            _ => Cursor::parse(text).map(Self::Cursor),
        }
    }

    /// The same as text.
    pub fn to_text(self) -> CursorText {
        let mut text = CursorText::new();
        match self {
            Self::Now => _ = text.push_str("now"),
            Self::Latest => _ = text.push_str("latest"),
            Self::Cursor(cursor) => text = cursor.to_text(),
        }
        text
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now => f.write_str("now"),
            Self::Latest => f.write_str("latest"),
            Self::Cursor(cursor) => cursor.fmt(f),
        }
    }
}

impl FromStr for Since {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        Self::parse(text)
    }
}

/// Why a text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum CursorError {
    /// It does not begin with 16 lowercase hexadecimal digits.
    Epoch,
    /// After the epoch comes something other than `-`.
    Hyphen,
    /// After the hyphen comes something other than decimal digits without leading zeros, up to 2^64 - 1.
    Seq,
}

impl fmt::Display for CursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Epoch => "a cursor begins with 16 lowercase hexadecimal digits",
            Self::Hyphen => "a cursor has a hyphen after its 16 digits",
            Self::Seq => "a cursor ends in a decimal number without leading zeros, at most 2^64 - 1",
        })
    }
}

impl core::error::Error for CursorError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn every_cursor_has_one_text() {
        for (epoch, seq, text) in [
            (0, 0, "0000000000000000-0"),
            (0x9f86_d081_884c_7d65, 1042, "9f86d081884c7d65-1042"),
            (1, 9, "0000000000000001-9"),
            (1, 10, "0000000000000001-10"),
            (u64::MAX, 10_000_000_000_000_000_000, "ffffffffffffffff-10000000000000000000"),
            (u64::MAX, 9_999_999_999_999_999_999, "ffffffffffffffff-9999999999999999999"),
            (u64::MAX, u64::MAX, "ffffffffffffffff-18446744073709551615"),
        ] {
            let cursor = Cursor { epoch, seq };
            assert_eq!(cursor.to_text(), text);
            assert_eq!(cursor.to_string(), text);
            assert_eq!(Cursor::parse(text), Ok(cursor));
            assert_eq!(text.parse(), Ok(cursor));
            assert_eq!(Since::parse(text), Ok(Since::Cursor(cursor)));
            assert_eq!(Since::Cursor(cursor).to_string(), text);
        }
        assert_eq!("ffffffffffffffff-18446744073709551615".len(), MAX_CURSOR);
    }

    #[test]
    fn a_position_counts_in_its_own_epoch_only() {
        let cursor = Cursor { epoch: 7, seq: 1042 };
        assert_eq!(cursor.position_in(7), Some(1042));
        assert_eq!((cursor.position_in(6), cursor.position_in(8)), (None, None));
    }

    #[test]
    fn any_other_text_is_refused_by_the_rule_that_it_breaks() {
        use CursorError::{Epoch, Hyphen, Seq};
        for (text, rule) in [
            ("", Epoch),
            ("0", Epoch),
            ("000000000000000-0", Epoch),    // 15 digits
            ("00000000000000000-0", Hyphen), // 17 digits
            ("000000000000000G-0", Epoch),
            ("000000000000000g-0", Epoch),
            ("000000000000000`-0", Epoch),
            ("000000000000000:-0", Epoch),
            ("000000000000000/-0", Epoch),
            ("9F86D081884C7D65-1042", Epoch),
            ("+000000000000000-0", Epoch),
            (" 000000000000000-0", Epoch),
            ("00000000000000\u{e9}-0", Epoch),  // 16 bytes, no digit
            ("000000000000000\u{e9}-0", Epoch), // a character across the cut
            ("0000000000000000", Hyphen),
            ("0000000000000000_0", Hyphen),
            ("0000000000000000\u{2010}0", Hyphen),
            ("0000000000000000-", Seq),
            ("0000000000000000-00", Seq),
            ("0000000000000000-01", Seq),
            ("0000000000000000--1", Seq),
            ("0000000000000000-+1", Seq),
            ("0000000000000000-1 ", Seq),
            ("0000000000000000-1\n", Seq),
            ("0000000000000000-1\0", Seq),
            ("0000000000000000-0x1", Seq),
            ("0000000000000000-\u{0661}", Seq), // a digit, but not of ASCII
            ("0000000000000000-18446744073709551616", Seq), // 2^64
            ("0000000000000000-99999999999999999999999", Seq),
            ("now ", Epoch),
            ("Latest", Epoch),
        ] {
            assert_eq!(Cursor::parse(text), Err(rule), "{text:?}");
            assert_eq!(text.parse::<Since>(), Err(rule), "{text:?}");
        }
    }

    #[test]
    fn since_knows_two_words() {
        for since in [Since::Now, Since::Latest] {
            assert_eq!(Since::parse(&since.to_string()), Ok(since));
        }
        assert_eq!(Cursor::parse("now"), Err(CursorError::Epoch));
    }

    proptest::proptest! {
        #[test]
        fn text_and_cursor_are_one_to_one(epoch: u64, seq: u64, shift in 0u32..64) {
            let cursor = Cursor { epoch, seq: seq >> shift };
            proptest::prop_assert_eq!(Cursor::parse(&cursor.to_text()), Ok(cursor));
        }

        #[test]
        fn what_parses_is_written_the_same(text in "[0-9a-fA-F]{15,17}-?[-+0-9 ]{0,21}") {
            if let Ok(cursor) = Cursor::parse(&text) {
                proptest::prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}
