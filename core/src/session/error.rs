//! What can be wrong with bytes from outside, and what refuses to be written.

use super::{Code, Field, Full, Kind, Refusal, ServerMessage};
use core::fmt;

/// Bytes that are not what they should be: why, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Malformed {
    /// What is wrong.
    pub reason: Reason,
    /// Offset in bytes from the beginning of the message or value: of the token that is wrong, or close behind it.
    pub at: usize,
}

impl Malformed {
    #[cfg(any(feature = "json", feature = "cbor"))]
    pub(super) const fn new(reason: Reason, at: usize) -> Self {
        Self { reason, at }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {})", self.reason.as_str(), self.at)
    }
}

impl core::error::Error for Malformed {}

/// What is wrong with a value or a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Reason {
    /// The bytes end within a value.
    Truncated,
    /// More bytes follow the value.
    Trailing,
    /// A character that cannot stand here (RFC 8259 section 2).
    Grammar,
    /// A text that is not UTF-8 (RFC 8259 section 8.1; RFC 8949 section 3.1).
    Utf8,
    /// A control character within a string, unescaped (RFC 8259 section 7).
    ControlCharacter,
    /// An unknown or cut escape, or half of a surrogate pair (RFC 8259 sections 7 and 8.2).
    Escape,
    /// A number against RFC 8259 section 6.
    Number,
    /// Nested deeper than [`MAX_DEPTH`](super::MAX_DEPTH) levels.
    TooDeep,
    /// The head of an item that RFC 8949 appendix C calls not well-formed.
    Head,
    /// A "break" outside of an item of indefinite length, or between a key and its value.
    Break,
    /// A chunk that is no definite string of the same type (RFC 8949 section 3.2.3).
    Chunk,
    /// A key of a map that is neither text nor integer, and has no form in JSON (section 4.1).
    MapKey,
    /// A value in the other form, in a build without the feature `transcode`.
    OtherForm,
    /// The message is no map.
    NotAMap,
    /// The first field is not `type`.
    TypeFirst,
    /// A `type` that this version does not know, or one that only the other side sends.
    UnknownType,
    /// A required field is missing.
    Missing(Field),
    /// A field has another type or range than section 4 says.
    Invalid(Field),
    /// A field comes twice.
    Twice(Field),
    /// A cursor or `since` against section 2.
    Cursor(Field),
    /// An event has both `at` and `past`, or a value both as `data` and as `bytes`: this is the second.
    Exclusive(Field),
}

impl Reason {
    /// The reason in words, for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "the value is cut off",
            Self::Trailing => "something follows the value",
            Self::Grammar => "a character that cannot stand here",
            Self::Utf8 => "a text that is not UTF-8",
            Self::ControlCharacter => "an unescaped control character in a string",
            Self::Escape => "an escape that is unknown, cut off, or half of a surrogate pair",
            Self::Number => "a malformed number",
            Self::TooDeep => "nested deeper than 32 levels",
            Self::Head => "the head of an item is not well-formed",
            Self::Break => "a break that ends nothing",
            Self::Chunk => "a chunk of another type than its string",
            Self::MapKey => "a map key that is neither text nor integer",
            Self::OtherForm => "a value in a form that is not built in",
            Self::NotAMap => "a message is a map",
            Self::TypeFirst => "the first field is not `type`",
            Self::UnknownType => "an unknown `type`",
            Self::Missing(field) => field.texts().missing,
            Self::Invalid(field) => field.texts().invalid,
            Self::Twice(field) => field.texts().twice,
            Self::Cursor(field) => field.texts().cursor,
            Self::Exclusive(field) => field.texts().exclusive,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A message that cannot be taken, with what has to be known to answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct DecodeError {
    /// What is wrong, and where.
    pub malformed: Malformed,
    /// The refusal of `PROTOCOL.md` section 9 that this is: [`BadData`](Code::BadData) within `data` or `bytes`,
    /// [`BadCursor`](Code::BadCursor) for `since`, [`UnknownType`](Code::UnknownType), otherwise
    /// [`BadMessage`](Code::BadMessage).
    pub code: Code,
    /// The `type`, if it got that far.
    pub kind: Option<Kind>,
    /// The field `id`, if it was read.
    pub id: Option<u32>,
    /// The field `n`, if it was read.
    pub n: Option<u64>,
}

impl DecodeError {
    /// What a server answers: `nack` for a value that cannot be published, otherwise `error` (section 9).
    pub fn answer(&self) -> ServerMessage<'static> {
        let refusal = Refusal::new(self.code, self.malformed.reason.as_str());
        match self.code {
            Code::BadData => ServerMessage::Nack { n: self.n, refusal },
            _ => ServerMessage::Error { refusal, id: self.id },
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.malformed)
    }
}

impl core::error::Error for DecodeError {}

/// Why something could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum WriteError {
    /// The sink has no room; what was written until then stays written.
    Full,
    /// The value that was to be written in another form cannot be.
    Malformed(Malformed),
}

impl From<Full> for WriteError {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

impl From<Malformed> for WriteError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => Full.fmt(f),
            Self::Malformed(malformed) => malformed.fmt(f),
        }
    }
}

impl core::error::Error for WriteError {}
