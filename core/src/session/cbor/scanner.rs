//! Reading CBOR (RFC 8949), one token at a time.
//!
//! The head of an item is all there is to parse, and it takes a match over five cases; a library's decoder would
//! have to be asked about nesting, indefinite lengths and keys at every step, and keeps panics that are out of reach.

use crate::session::{
    Bytes, MAX_DEPTH, Malformed, Reason, Text, bytes::Form as BytesForm, text::Form as TextForm,
};
use core::str;

/// What a CBOR item is made of.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(feature = "transcode"),
    expect(dead_code, reason = "only the transcoder looks at every number")
)]
pub(in crate::session) enum Token<'b> {
    Uint(u64),
    /// The number -1 - n.
    Nint(u64),
    Bytes(Bytes<'b>),
    Text(Text<'b>),
    BeginArray,
    /// Keys and values follow in turn.
    BeginMap,
    /// The end of the innermost array or map, whether it was counted or a "break".
    End,
    /// The next item is its content.
    Tag,
    Boolean(bool),
    Null,
    Undefined,
    /// Any other simple value.
    Simple,
    /// A float of the width that is named, as its bits: nobody pays for arithmetic who only passes it on.
    Half(u64),
    Single(u64),
    Double(u64),
}

/// An open array, map or tag.
#[derive(Clone, Copy)]
struct Level {
    kind: Kind,
    /// Items that are still to come; [`INDEFINITE`] until a "break".
    left: usize,
    /// The next item is a key, or the content of a tagged key.
    key: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Array,
    Map,
    Tag,
}

/// More items than any input can hold.
const INDEFINITE: usize = usize::MAX;

/// Pulls tokens out of one CBOR item. Linear, without recursion: a fixed number of open levels.
#[derive(Clone)]
pub(in crate::session) struct Scanner<'b> {
    input: &'b [u8],
    rest: &'b [u8],
    /// Offset of the last token.
    token: usize,
    levels: [Level; MAX_DEPTH + 1],
    depth: usize,
    max_depth: usize,
    /// The last token was a key, or the beginning of one.
    key: bool,
    /// The outermost item has begun.
    begun: bool,
}

// It lives on the stack while a message is read.
const _: () = assert!(size_of::<Scanner<'_>>() <= 592);

impl<'b> Scanner<'b> {
    /// Reads one item, nested at most [`MAX_DEPTH`] levels deep.
    pub(in crate::session) fn new(input: &'b [u8]) -> Self {
        let levels = [Level { kind: Kind::Array, left: 0, key: false }; MAX_DEPTH + 1];
        let (token, depth, max_depth) = (0, 0, MAX_DEPTH);
        Self { input, rest: input, token, levels, depth, max_depth, key: false, begun: false }
    }

    /// Reads one message: values within it may be nested [`MAX_DEPTH`] levels deep.
    pub(super) fn message(input: &'b [u8]) -> Self {
        Self { max_depth: MAX_DEPTH + 1, ..Self::new(input) }
    }

    /// The next token; `None` behind the last, when the input is at its end, too.
    pub(in crate::session) fn next(&mut self) -> Result<Option<Token<'b>>, Malformed> {
        self.token = self.offset();
        while let Some(Level { kind, left: 0, .. }) = self.top().copied() {
            self.depth = self.depth.saturating_sub(1);
            if kind != Kind::Tag {
                self.key = false;
                return Ok(Some(Token::End));
            }
        }
        if self.begun && self.depth == 0 {
            return if self.rest.is_empty() { Ok(None) } else { self.fail(Reason::Trailing) };
        }
        match self.item() {
            Ok(token) => Ok(Some(token)),
            Err(reason) => self.fail(reason),
        }
    }

    /// Whether the last token was a key of a map, or the beginning of one.
    #[cfg(feature = "transcode")]
    pub(in crate::session) fn is_key(&self) -> bool {
        self.key
    }

    /// Passes over one whole item, and returns its bytes.
    pub(super) fn raw_value(&mut self) -> Result<&'b [u8], Malformed> {
        let begin = self.offset();
        match self.next()? {
            Some(token) => self.finish_value(token)?,
            None => return self.fail(Reason::Truncated),
        }
        Ok(self.input.get(begin..self.offset()).unwrap_or_default())
    }

    /// Passes over what is left of the item that began with `token`.
    pub(super) fn finish_value(&mut self, mut token: Token<'b>) -> Result<(), Malformed> {
        let mut open = 0u32;
        loop {
            match token {
                Token::BeginArray | Token::BeginMap => open += 1,
                Token::End => open = open.saturating_sub(1),
                _ => {}
            }
            if open == 0 && !matches!(token, Token::Tag) {
                return Ok(());
            }
            token = match self.next()? {
                Some(token) => token,
                None => return self.fail(Reason::Truncated),
            };
        }
    }

    /// The bytes from an offset up to the last token.
    pub(super) fn since(&self, begin: usize) -> &'b [u8] {
        self.input.get(begin..self.token).unwrap_or_default()
    }

    /// Offset of the last token, or of what was found to be wrong.
    pub(in crate::session) fn at(&self) -> usize {
        self.token
    }

    /// Offset behind the last token.
    pub(super) fn offset(&self) -> usize {
        self.input.len().saturating_sub(self.rest.len())
    }

    pub(super) fn fail<T>(&mut self, reason: Reason) -> Result<T, Malformed> {
        Err(Malformed::new(reason, self.token))
    }

    fn top(&mut self) -> Option<&mut Level> {
        self.levels.get_mut(self.depth.checked_sub(1)?)
    }

    fn push(&mut self, level: Level) -> Result<(), Reason> {
        if self.depth >= self.max_depth {
            return Err(Reason::TooDeep);
        }
        *self.levels.get_mut(self.depth).ok_or(Reason::TooDeep)? = level;
        self.depth += 1;
        Ok(())
    }

    /// Counts the item that begins here, and notes whether it is a key.
    fn count(&mut self) {
        self.begun = true;
        self.key = match self.top() {
            None => false,
            Some(level) => {
                let key = level.key;
                if level.left != INDEFINITE {
                    level.left = level.left.saturating_sub(1);
                }
                if level.kind == Kind::Map {
                    level.key = !key;
                }
                key
            }
        };
    }

    fn item(&mut self) -> Result<Token<'b>, Reason> {
        let head = Head::read(self.rest)?;
        if head.is_break() {
            return self.end(head.rest);
        }
        self.count();
        let token = match head.major {
            0 => Token::Uint(head.argument.ok_or(Reason::Head)?),
            1 => Token::Nint(head.argument.ok_or(Reason::Head)?),
            2 => {
                let (bytes, rest) = byte_string(head)?;
                self.rest = rest;
                return Ok(Token::Bytes(bytes));
            }
            3 => {
                let (text, rest) = text_string(head)?;
                self.rest = rest;
                return Ok(Token::Text(text));
            }
            4 => {
                self.push(Level { kind: Kind::Array, left: head.items(1)?, key: false })?;
                Token::BeginArray
            }
            5 => {
                self.push(Level { kind: Kind::Map, left: head.items(2)?, key: true })?;
                Token::BeginMap
            }
            6 => {
                let key = self.key;
                head.argument.ok_or(Reason::Head)?;
                self.push(Level { kind: Kind::Tag, left: 1, key })?;
                Token::Tag
            }
            _ => head.simple()?,
        };
        self.rest = head.rest;
        Ok(token)
    }

    /// A "break", which ends an array, or a map behind a value.
    fn end(&mut self, rest: &'b [u8]) -> Result<Token<'b>, Reason> {
        match self.top() {
            Some(Level { kind: Kind::Array, left: INDEFINITE, .. })
            | Some(Level { kind: Kind::Map, left: INDEFINITE, key: true }) => {
                self.depth = self.depth.saturating_sub(1);
                self.rest = rest;
                self.key = false;
                Ok(Token::End)
            }
            _ => Err(Reason::Break),
        }
    }
}

/// The head of an item (RFC 8949 section 3), and what follows it.
#[derive(Clone, Copy)]
struct Head<'b> {
    major: u8,
    /// The "additional information".
    info: u8,
    /// `None`: of indefinite length, or a "break".
    argument: Option<u64>,
    rest: &'b [u8],
}

impl<'b> Head<'b> {
    fn read(bytes: &'b [u8]) -> Result<Self, Reason> {
        let (initial, rest) = bytes.split_first().ok_or(Reason::Truncated)?;
        let (major, info) = (initial >> 5, initial & 0x1f);
        let (argument, rest) = match info {
            0..=23 => (Some(u64::from(info)), rest),
            24 => {
                let (argument, rest) = take(rest)?;
                (Some(u64::from(u8::from_be_bytes(argument))), rest)
            }
            25 => {
                let (argument, rest) = take(rest)?;
                (Some(u64::from(u16::from_be_bytes(argument))), rest)
            }
            26 => {
                let (argument, rest) = take(rest)?;
                (Some(u64::from(u32::from_be_bytes(argument))), rest)
            }
            27 => {
                let (argument, rest) = take(rest)?;
                (Some(u64::from_be_bytes(argument)), rest)
            }
            31 => (None, rest),
            _ => return Err(Reason::Head),
        };
        Ok(Self { major, info, argument, rest })
    }

    const fn is_break(&self) -> bool {
        self.major == 7 && self.argument.is_none()
    }

    /// As many bytes as the argument says.
    fn content(self, length: u64) -> Result<(&'b [u8], &'b [u8]), Reason> {
        let length = usize::try_from(length).map_err(|_| Reason::Truncated)?;
        self.rest.split_at_checked(length).ok_or(Reason::Truncated)
    }

    /// How many items follow. Each has at least one byte, so a count beyond what is left is refused before anybody
    /// believes it.
    fn items(self, each: u64) -> Result<usize, Reason> {
        let Some(count) = self.argument else { return Ok(INDEFINITE) };
        let items = count.checked_mul(each).and_then(|items| usize::try_from(items).ok());
        items.filter(|items| *items <= self.rest.len()).ok_or(Reason::Truncated)
    }

    /// Simple values and floats (section 3.3).
    fn simple(self) -> Result<Token<'b>, Reason> {
        let value = self.argument.ok_or(Reason::Break)?;
        Ok(match (self.info, value) {
            (20, _) => Token::Boolean(false),
            (21, _) => Token::Boolean(true),
            (22, _) => Token::Null,
            (23, _) => Token::Undefined,
            // Two bytes for what fits in one are not well-formed.
            (24, ..32) => return Err(Reason::Head),
            (25, bits) => Token::Half(bits),
            (26, bits) => Token::Single(bits),
            (27, bits) => Token::Double(bits),
            _ => Token::Simple,
        })
    }
}

fn take<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), Reason> {
    bytes.split_first_chunk::<N>().map(|(chunk, rest)| (*chunk, rest)).ok_or(Reason::Truncated)
}

fn byte_string(head: Head<'_>) -> Result<(Bytes<'_>, &[u8]), Reason> {
    match head.argument {
        Some(length) => {
            let (bytes, rest) = head.content(length)?;
            Ok((Bytes(BytesForm::Plain(bytes)), rest))
        }
        None => {
            let (chunks, rest) = chunks(head, |_| true)?;
            Ok((Bytes(BytesForm::Chunks(chunks)), rest))
        }
    }
}

fn text_string(head: Head<'_>) -> Result<(Text<'_>, &[u8]), Reason> {
    match head.argument {
        Some(length) => {
            let (text, rest) = head.content(length)?;
            let text = str::from_utf8(text).map_err(|_| Reason::Utf8)?;
            Ok((Text(TextForm::Plain(text)), rest))
        }
        None => {
            // Each chunk is a text by itself (section 3.2.3): no character lies in two.
            let (chunks, rest) = chunks(head, |chunk| str::from_utf8(chunk).is_ok())?;
            Ok((Text(TextForm::Chunks(chunks)), rest))
        }
    }
}

/// Checks the chunks of a string of indefinite length, and returns them and what follows the "break".
fn chunks<'b>(head: Head<'b>, valid: fn(&[u8]) -> bool) -> Result<(&'b [u8], &'b [u8]), Reason> {
    let mut rest = head.rest;
    loop {
        let chunk = Head::read(rest)?;
        if chunk.is_break() {
            let length = head.rest.len().saturating_sub(rest.len());
            return Ok((head.rest.get(..length).unwrap_or_default(), chunk.rest));
        }
        if chunk.major != head.major {
            return Err(Reason::Chunk);
        }
        let (content, after) = chunk.content(chunk.argument.ok_or(Reason::Chunk)?)?;
        if !valid(content) {
            return Err(Reason::Utf8);
        }
        rest = after;
    }
}

/// The content of the next of checked chunks.
pub(in crate::session) fn next_chunk<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let head = Head::read(rest).ok()?;
    let (content, after) = head.content(head.argument?).ok()?;
    *rest = after;
    Some(content)
}

/// The next of checked texts, one behind the other.
pub(in crate::session) fn next_text<'b>(rest: &mut &'b [u8]) -> Option<Text<'b>> {
    let (text, after) = text_string(Head::read(rest).ok()?).ok()?;
    *rest = after;
    Some(text)
}
