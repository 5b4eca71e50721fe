//! Texts as they lie in a message, read where they are.

use super::Full;
use crate::log::{Key, MAX_KEY, MAX_TOPIC, NameError, Pattern, Topic};
use core::{fmt, str};

/// A text field as it lies in the message: plain, or in a form that has to be put together while it is read (with
/// JSON escapes, or as a CBOR text in chunks).
///
/// It was checked when the message was decoded: every escape is whole, surrogates are in pairs, every chunk is
/// UTF-8. Two texts are equal when their characters are, whatever the form.
///
/// ```
/// # #[cfg(feature = "json")] {
/// use longwire_core::session::{ClientMessage, json};
///
/// let wire = br#"{"type":"auth","token":"Stra\u00dfe"}"#; // as Python's json.dumps writes it
/// let ClientMessage::Auth { token } = json::decode_client(wire).unwrap() else { unreachable!() };
/// assert_eq!(token.as_plain(), None);
/// assert_eq!(token, "Straße");
/// let mut scratch = heapless::String::<16>::new();
/// assert_eq!(token.to_str(&mut scratch), Ok("Straße"));
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct Text<'b>(pub(super) Form<'b>);

/// The forms that a text arrives in.
#[derive(Clone, Copy)]
pub(super) enum Form<'b> {
    /// As it reads.
    Plain(&'b str),
    /// With at least one JSON escape (RFC 8259 section 7), all of them whole.
    #[cfg(feature = "json")]
    Escaped(&'b str),
    /// The definite chunks of an indefinite CBOR text (RFC 8949 section 3.2.3), without the "break".
    #[cfg(feature = "cbor")]
    Chunks(&'b [u8]),
}

impl<'b> Text<'b> {
    /// The text, when it lies in the message as it reads: without escapes, in one piece.
    pub const fn as_plain(self) -> Option<&'b str> {
        match self.0 {
            Form::Plain(text) => Some(text),
            #[cfg(any(feature = "json", feature = "cbor"))]
            _ => None,
        }
    }

    /// The text; put together in `scratch` when it is not [plain](Self::as_plain).
    ///
    /// # Errors
    /// [`Full`] when it has to be put together and has more than `N` bytes. A plain text of any length is returned.
    pub fn to_str<'s, const N: usize>(self, scratch: &'s mut heapless::String<N>) -> Result<&'s str, Full>
    where
        'b: 's,
    {
        if let Some(plain) = self.as_plain() {
            return Ok(plain);
        }
        scratch.clear();
        self.write_to(scratch).map_err(|_| Full)?;
        Ok(scratch.as_str())
    }

    /// Appends the text to any text buffer.
    ///
    /// # Errors
    /// Those of the buffer.
    pub fn write_to(self, to: &mut impl fmt::Write) -> fmt::Result {
        self.pieces().try_for_each(|piece| match piece {
            Piece::Run(run) => to.write_str(run),
            Piece::Char(c) => to.write_char(c),
        })
    }

    /// The characters, one after the other.
    pub fn chars(self) -> impl Iterator<Item = char> + Clone + 'b {
        self.pieces().flat_map(|piece| match piece {
            Piece::Run(run) => run.chars().chain(None),
            Piece::Char(c) => "".chars().chain(Some(c)),
        })
    }

    /// Bytes of the text in UTF-8, read as it is: one pass unless it is [plain](Self::as_plain).
    pub fn len(self) -> usize {
        self.pieces().fold(0, |sum, piece| match piece {
            Piece::Run(run) => sum + run.len(),
            Piece::Char(c) => sum + c.len_utf8(),
        })
    }

    /// Whether there is no character.
    pub fn is_empty(self) -> bool {
        self.chars().next().is_none()
    }

    /// The text as a topic.
    ///
    /// # Errors
    /// The rule of `PROTOCOL.md` section 3 that it breaks.
    pub fn topic<'s>(self, scratch: &'s mut heapless::String<MAX_TOPIC>) -> Result<Topic<'s>, NameError>
    where
        'b: 's,
    {
        Topic::parse(self.to_str(scratch).map_err(|Full| NameError::TooLong)?)
    }

    /// The text as a pattern.
    ///
    /// # Errors
    /// As for [`topic`](Self::topic).
    pub fn pattern<'s>(self, scratch: &'s mut heapless::String<MAX_TOPIC>) -> Result<Pattern<'s>, NameError>
    where
        'b: 's,
    {
        Pattern::parse(self.to_str(scratch).map_err(|Full| NameError::TooLong)?)
    }

    /// The text as a key.
    ///
    /// # Errors
    /// As for [`topic`](Self::topic).
    pub fn key<'s>(self, scratch: &'s mut heapless::String<MAX_KEY>) -> Result<Key<'s>, NameError>
    where
        'b: 's,
    {
        Key::parse(self.to_str(scratch).map_err(|Full| NameError::KeyTooLong)?)
    }

    /// The text in pieces that are as long as the form allows.
    pub(super) fn pieces(self) -> Pieces<'b> {
        Pieces(self.0)
    }

    /// Writes the text as it reads.
    #[cfg(feature = "cbor")]
    pub(super) fn put<S: super::Sink + ?Sized>(self, sink: &mut S) -> Result<(), Full> {
        self.pieces().try_for_each(|piece| match piece {
            Piece::Run(run) => sink.put(run.as_bytes()),
            Piece::Char(c) => sink.put(c.encode_utf8(&mut [0; 4]).as_bytes()),
        })
    }
}

impl<'b> From<&'b str> for Text<'b> {
    fn from(text: &'b str) -> Self {
        Self(Form::Plain(text))
    }
}

impl<'b> From<Topic<'b>> for Text<'b> {
    fn from(topic: Topic<'b>) -> Self {
        topic.as_str().into()
    }
}

impl<'b> From<Key<'b>> for Text<'b> {
    fn from(key: Key<'b>) -> Self {
        key.as_str().into()
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self.as_plain(), other.as_plain()) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => self.chars().eq(other.chars()),
        }
    }
}

impl Eq for Text<'_> {}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        let mut rest = other.as_bytes();
        let begins = self.pieces().all(|piece| {
            let mut scratch = [0; 4];
            let piece = match piece {
                Piece::Run(run) => run,
                Piece::Char(c) => c.encode_utf8(&mut scratch),
            };
            rest.strip_prefix(piece.as_bytes()).map(|behind| rest = behind).is_some()
        });
        begins && rest.is_empty()
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_to(f)
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        self.chars().try_for_each(|c| c.escape_debug().try_for_each(|c| fmt::Write::write_char(f, c)))?;
        f.write_str("\"")
    }
}

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'b> {
    /// A stretch that reads as it lies there.
    Run(&'b str),
    /// What one escape stands for.
    #[cfg_attr(not(feature = "json"), expect(dead_code, reason = "only JSON has escapes"))]
    Char(char),
}

/// Walks a text from piece to piece.
#[derive(Clone)]
pub(super) struct Pieces<'b>(Form<'b>);

impl<'b> Iterator for Pieces<'b> {
    type Item = Piece<'b>;

    fn next(&mut self) -> Option<Piece<'b>> {
        match &mut self.0 {
            Form::Plain("") => None,
            Form::Plain(text) => Some(Piece::Run(core::mem::take(text))),
            #[cfg(feature = "json")]
            Form::Escaped(rest) => next_unescaped(rest),
            #[cfg(feature = "cbor")]
            Form::Chunks(rest) => {
                super::cbor::next_chunk(rest).and_then(|chunk| str::from_utf8(chunk).ok()).map(Piece::Run)
            }
        }
    }
}

/// The next run or escape of a text whose escapes were checked. One that is not whole would end the text here.
#[cfg(feature = "json")]
fn next_unescaped<'b>(rest: &mut &'b str) -> Option<Piece<'b>> {
    let plain = rest.bytes().position(|b| b == b'\\').unwrap_or(rest.len());
    if plain > 0 {
        let (run, after) = rest.split_at_checked(plain)?;
        *rest = after;
        return Some(Piece::Run(run));
    }
    let mut chars = rest.strip_prefix('\\')?.chars();
    let c = match chars.next()? {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => {
            let unit = hex4(&mut chars)?;
            let Some(high) = unit.checked_sub(0xd800).filter(|high| *high < 0x400) else {
                *rest = chars.as_str();
                return char::from_u32(unit).map(Piece::Char);
            };
            let mut low = chars.as_str().strip_prefix("\\u")?.chars();
            let unit = hex4(&mut low)?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
            chars = low;
            char::from_u32(0x1_0000 + (high << 10 | unit))?
        }
        itself @ ('"' | '\\' | '/') => itself,
        _ => return None,
    };
    *rest = chars.as_str();
    Some(Piece::Char(c))
}

/// Four hexadecimal digits of either case.
#[cfg(feature = "json")]
fn hex4(chars: &mut str::Chars<'_>) -> Option<u32> {
    (0..4).try_fold(0, |unit, _| Some(unit << 4 | chars.next()?.to_digit(16)?))
}

/// Checks the escape of which `rest` is what follows the backslash, and returns what follows the escape. Lone
/// surrogates are refused: they stand for no character, so no other form could carry them (RFC 8259 section 8.2).
#[cfg(feature = "json")]
pub(super) fn skip_escape(rest: &[u8]) -> Option<&[u8]> {
    let (kind, rest) = rest.split_first()?;
    match kind {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(rest),
        b'u' => {
            let (unit, rest) = code_unit(rest)?;
            match unit {
                0xd800..=0xdbff => {
                    let (low, rest) = code_unit(rest.strip_prefix(b"\\u")?)?;
                    (0xdc00..=0xdfff).contains(&low).then_some(rest)
                }
                0xdc00..=0xdfff => None,
                _ => Some(rest),
            }
        }
        _ => None,
    }
}

#[cfg(feature = "json")]
fn code_unit(rest: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = rest.split_first_chunk::<4>()?;
    let unit = digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))?;
    Some((unit, rest))
}

#[cfg(test)]
#[cfg(feature = "json")]
mod tests {
    use super::*;
    use std::string::ToString;

    fn escaped(raw: &str) -> Text<'_> {
        let mut rest = raw.as_bytes();
        while let Some(at) = rest.iter().position(|b| *b == b'\\') {
            rest = rest.get(at + 1..).and_then(skip_escape).unwrap_or_else(|| panic!("{raw}"));
        }
        Text(Form::Escaped(raw))
    }

    #[test]
    fn rfc_8259_section_7_every_escape_means_its_character() {
        for (raw, means) in [
            (r#"\""#, "\""),
            (r"\\", "\\"),
            (r"\/", "/"),
            (r"\b\f\n\r\t", "\u{8}\u{c}\n\r\t"),
            (r"\u0000\u001f\u007F\u0080", "\0\u{1f}\u{7f}\u{80}"),
            (r"a\u00e9b\u20ACc", "aéb€c"),
            (r"\uD834\uDD1E\ud83c\udf21", "\u{1d11e}\u{1f321}"),
            (r"\ud800\udc00\udbff\udfff", "\u{10000}\u{10ffff}"),
            (r"\ud7ff\ue000\uffff", "\u{d7ff}\u{e000}\u{ffff}"),
            (r"fleet\/7\/\u0063pu", "fleet/7/cpu"),
            (r"\\u0041\\n", "\\u0041\\n"),
            ("ü\\tü", "ü\tü"),
        ] {
            let text = escaped(raw);
            assert_eq!(text.to_string(), means);
            assert_eq!(text, means);
            assert_ne!(text, &std::format!("{means} ")[..]);
            assert_eq!(text.len(), means.len());
            assert!(!text.is_empty());
            assert_eq!(std::format!("{text:?}"), std::format!("{means:?}"));
            assert_eq!(text.to_str(&mut heapless::String::<32>::new()), Ok(means));
        }
        assert!(Text::from("").is_empty());
    }

    #[test]
    fn rfc_8259_section_8_2_lone_surrogates_and_broken_escapes_are_refused() {
        for raw in [
            "",
            "a",
            "x41",
            "u",
            "u0",
            "u00",
            "u000",
            "u00g0",
            "u+041",
            "u 041",
            "ud800",
            "udc00",
            r"ud800\n",
            r"ud800\u0041",
            r"ud800\ud800",
            r"udc00\ud800",
            "ud800udc00",
            r"uD83D\u",
            "'",
            "0",
            "\n",
            "U0041",
            "v",
            "é",
        ] {
            assert_eq!(skip_escape(raw.as_bytes()), None, "{raw:?}");
        }
    }

    #[test]
    fn a_text_too_long_for_its_scratch_is_refused_only_when_it_has_to_be_copied() {
        let mut scratch = heapless::String::<4>::new();
        assert_eq!(Text::from("plain and long").to_str(&mut scratch), Ok("plain and long"));
        assert_eq!(escaped(r"abc\u00e9").to_str(&mut scratch), Err(Full));
        assert_eq!(escaped(r"abc\/").to_str(&mut scratch), Ok("abc/"));
        let mut scratch = heapless::String::new();
        assert_eq!(escaped(r"a\/b").topic(&mut scratch).map(|topic| topic.as_str()), Ok("a/b"));
        assert_eq!(escaped(r"a\u0000").topic(&mut scratch), Err(NameError::ControlCharacter));
        let long = r"\u0061".repeat(256);
        assert_eq!(escaped(&long).topic(&mut scratch), Err(NameError::TooLong));
        assert_eq!(escaped(&long).pattern(&mut scratch), Err(NameError::TooLong));
        assert_eq!(escaped(&long).key(&mut heapless::String::new()), Err(NameError::KeyTooLong));
    }
}
