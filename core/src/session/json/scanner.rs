//! Reading JSON (RFC 8259), strictly, one token at a time.

use crate::session::{
    MAX_DEPTH, Malformed, Reason, Text,
    text::{Form, skip_escape},
};
use core::str;

/// What JSON text is made of. The comma, the colon and whitespace are checked and passed over.
#[derive(Clone, Copy, Debug)]
pub(in crate::session) enum Token<'b> {
    BeginObject,
    EndObject,
    BeginArray,
    EndArray,
    /// The name of an object's member; the next token is its value, or the first of it.
    Name(Text<'b>),
    String(Text<'b>),
    /// A number, and whether it has neither fraction nor exponent.
    Number(&'b str, bool),
    Boolean(bool),
    Null,
}

/// Pulls tokens out of one JSON value. Linear, without recursion: one bit for each level.
#[derive(Clone)]
pub(in crate::session) struct Scanner<'b> {
    input: &'b [u8],
    rest: &'b [u8],
    /// Offset of the last token.
    token: usize,
    depth: usize,
    pub(super) max_depth: usize,
    /// The kinds of the open levels, the innermost in the lowest bit: 1 is an object.
    objects: u64,
    expect: Expect,
}

// It lives on the stack while a message is read.
const _: () = assert!(size_of::<Scanner<'_>>() <= 72);

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    ElementOrEnd,
    Name,
    NameOrEnd,
    CommaOrEnd,
    Nothing,
}

impl<'b> Scanner<'b> {
    /// Reads one value, nested at most [`MAX_DEPTH`] levels deep.
    pub(in crate::session) fn new(input: &'b [u8]) -> Self {
        Self {
            input,
            rest: input,
            token: 0,
            depth: 0,
            max_depth: MAX_DEPTH,
            objects: 0,
            expect: Expect::Value,
        }
    }

    /// Reads one message: values within it may be nested [`MAX_DEPTH`] levels deep.
    pub(super) fn message(input: &'b [u8]) -> Self {
        Self { max_depth: MAX_DEPTH + 1, ..Self::new(input) }
    }

    /// The next token; `None` behind the last, when the input is at its end, too.
    pub(in crate::session) fn next(&mut self) -> Result<Option<Token<'b>>, Malformed> {
        use Expect::{CommaOrEnd, ElementOrEnd, Name, NameOrEnd, Nothing, Value};
        loop {
            self.skip_whitespace();
            self.token = self.offset();
            let Some((byte, rest)) = self.rest.split_first() else {
                return if self.expect == Nothing { Ok(None) } else { self.fail(Reason::Truncated) };
            };
            match (self.expect, byte) {
                (Nothing, _) => return self.fail(Reason::Trailing),
                (CommaOrEnd, b',') => {
                    self.rest = rest;
                    self.expect = if self.in_object() { Name } else { Value };
                }
                (CommaOrEnd | NameOrEnd, b'}') if self.in_object() => {
                    self.rest = rest;
                    self.pop();
                    return Ok(Some(Token::EndObject));
                }
                (CommaOrEnd | ElementOrEnd, b']') if !self.in_object() => {
                    self.rest = rest;
                    self.pop();
                    return Ok(Some(Token::EndArray));
                }
                (Name | NameOrEnd, b'"') => return self.name(rest).map(Some),
                (Value | ElementOrEnd, byte) => return self.value(*byte, rest).map(Some),
                _ => return self.fail(Reason::Grammar),
            }
        }
    }

    /// Passes over one whole value, and returns its text.
    pub(super) fn raw_value(&mut self) -> Result<&'b [u8], Malformed> {
        let mut begin = None;
        let mut open = 0u32;
        loop {
            let Some(token) = self.next()? else { return self.fail(Reason::Truncated) };
            let begin = *begin.get_or_insert(self.token);
            match token {
                Token::BeginObject | Token::BeginArray => open += 1,
                Token::EndObject | Token::EndArray => open = open.saturating_sub(1),
                _ => {}
            }
            if open == 0 {
                return Ok(self.since(begin));
            }
        }
    }

    /// The bytes from an offset up to the end of the last token.
    pub(super) fn since(&self, begin: usize) -> &'b [u8] {
        self.input.get(begin..self.offset()).unwrap_or_default()
    }

    /// Offset of the last token, or of what was found to be wrong.
    pub(super) fn at(&self) -> usize {
        self.token
    }

    pub(super) fn fail<T>(&mut self, reason: Reason) -> Result<T, Malformed> {
        Err(Malformed::new(reason, self.token))
    }

    fn offset(&self) -> usize {
        self.input.len().saturating_sub(self.rest.len())
    }

    fn in_object(&self) -> bool {
        self.depth > 0 && self.objects & 1 == 1
    }

    fn push(&mut self, object: bool) -> Result<(), Malformed> {
        if self.depth >= self.max_depth {
            return self.fail(Reason::TooDeep);
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u64::from(object);
        self.expect = if object { Expect::NameOrEnd } else { Expect::ElementOrEnd };
        Ok(())
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.objects >>= 1;
        self.end_value();
    }

    fn end_value(&mut self) {
        self.expect = if self.depth == 0 { Expect::Nothing } else { Expect::CommaOrEnd };
    }

    fn skip_whitespace(&mut self) {
        while let Some((b' ' | b'\t' | b'\n' | b'\r', rest)) = self.rest.split_first() {
            self.rest = rest;
        }
    }

    fn name(&mut self, rest: &'b [u8]) -> Result<Token<'b>, Malformed> {
        let name = self.string(rest)?;
        let token = self.token;
        self.skip_whitespace();
        match self.rest.split_first() {
            Some((b':', rest)) => self.rest = rest,
            Some(_) => {
                self.token = self.offset();
                return self.fail(Reason::Grammar);
            }
            None => return self.fail(Reason::Truncated),
        }
        self.token = token;
        self.expect = Expect::Value;
        Ok(Token::Name(name))
    }

    fn value(&mut self, first: u8, rest: &'b [u8]) -> Result<Token<'b>, Malformed> {
        let token = match first {
            b'{' => {
                self.push(true)?;
                self.rest = rest;
                return Ok(Token::BeginObject);
            }
            b'[' => {
                self.push(false)?;
                self.rest = rest;
                return Ok(Token::BeginArray);
            }
            b'"' => Token::String(self.string(rest)?),
            b'-' | b'0'..=b'9' => self.number()?,
            b't' => self.literal(b"true", Token::Boolean(true))?,
            b'f' => self.literal(b"false", Token::Boolean(false))?,
            b'n' => self.literal(b"null", Token::Null)?,
            _ => return self.fail(Reason::Grammar),
        };
        self.end_value();
        Ok(token)
    }

    fn literal(&mut self, word: &[u8], token: Token<'b>) -> Result<Token<'b>, Malformed> {
        match self.rest.strip_prefix(word) {
            Some(rest) => {
                self.rest = rest;
                Ok(token)
            }
            None if word.starts_with(self.rest) => self.fail(Reason::Truncated),
            None => self.fail(Reason::Grammar),
        }
    }

    /// The string of which `text` is what follows the opening quote (section 7).
    fn string(&mut self, text: &'b [u8]) -> Result<Text<'b>, Malformed> {
        let mut rest = text;
        let mut plain = true;
        loop {
            let special = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f));
            let Some((byte, after)) = special.and_then(|at| rest.get(at..)).and_then(<[u8]>::split_first)
            else {
                return self.fail(Reason::Truncated);
            };
            match byte {
                b'"' => {
                    rest = after;
                    break;
                }
                b'\\' => {
                    plain = false;
                    let Some(after) = skip_escape(after) else { return self.fail_at(after, Reason::Escape) };
                    rest = after;
                }
                _ => return self.fail_at(after, Reason::ControlCharacter),
            }
        }
        let quoted = text.len().saturating_sub(rest.len()); // with the closing quote
        let raw = text.get(..quoted.saturating_sub(1)).unwrap_or_default();
        let Ok(raw) = str::from_utf8(raw) else { return self.fail(Reason::Utf8) };
        self.rest = rest;
        Ok(Text(if plain { Form::Plain(raw) } else { Form::Escaped(raw) }))
    }

    /// Fails at the byte before `after`.
    fn fail_at<T>(&mut self, after: &[u8], reason: Reason) -> Result<T, Malformed> {
        self.token = self.input.len().saturating_sub(after.len()).saturating_sub(1);
        self.fail(reason)
    }

    /// A number (section 6): `-`? (0 | 1-9 0-9*) (`.` 0-9+)? (`e` sign? 0-9+)?
    fn number(&mut self) -> Result<Token<'b>, Malformed> {
        let text = self.rest;
        let mut rest = text.strip_prefix(b"-").unwrap_or(text);
        rest = match rest.split_first() {
            Some((b'0', rest)) => rest,
            _ => self.digits(rest)?,
        };
        let mut integer = true;
        if let Some(fraction) = rest.strip_prefix(b".") {
            integer = false;
            rest = self.digits(fraction)?;
        }
        if let Some((b'e' | b'E', exponent)) = rest.split_first() {
            integer = false;
            let digits = match exponent.split_first() {
                Some((b'+' | b'-', digits)) => digits,
                _ => exponent,
            };
            rest = self.digits(digits)?;
        }
        // No digit may follow a leading zero.
        if rest.first().is_some_and(u8::is_ascii_digit) {
            return self.fail(Reason::Number);
        }
        let len = text.len().saturating_sub(rest.len());
        let Some(Ok(number)) = text.get(..len).map(str::from_utf8) else { return self.fail(Reason::Number) };
        self.rest = rest;
        Ok(Token::Number(number, integer))
    }

    /// Passes over at least one digit.
    fn digits<'r>(&mut self, text: &'r [u8]) -> Result<&'r [u8], Malformed> {
        let len = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
        match text.split_at_checked(len) {
            Some((digits, rest)) if !digits.is_empty() => Ok(rest),
            _ if text.is_empty() => self.fail(Reason::Truncated),
            _ => self.fail(Reason::Number),
        }
    }
}
