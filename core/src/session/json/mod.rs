//! The text form (RFC 8259): WebSocket text messages, SSE, the bodies of HTTP.
//!
//! Reading is strict: UTF-8, the grammar to the letter, no half surrogates, no field twice, nested at most
//! [`MAX_DEPTH`](super::MAX_DEPTH) levels deep. It takes one pass, does not recurse, and copies nothing.

mod answer;
mod scanner;

pub use answer::{PollAnswer, Published, decode_poll, decode_published, decode_refusal};
pub(super) use scanner::{Scanner, Token};

use super::{
    Bytes, ClientMessage, Data, DecodeError, Field, Full, Kind, Limits, Malformed, Reason, Refusal,
    ServerMessage, Sink, Text, Topics, WriteError,
    bytes::{self, base64},
    envelope::{self, Input, Output, short},
    text::{self, Piece},
    topics,
};
use crate::digits::decimal;

/// Decodes what a client sent.
///
/// # Errors
/// What is wrong, and how a server [answers](DecodeError::answer) it.
pub fn decode_client(message: &[u8]) -> Result<ClientMessage<'_>, DecodeError> {
    envelope::decode_client(&mut Scanner::message(message))
}

/// Decodes what a server sent, over WebSocket or in the `data:` of SSE, or one of the `events` of a poll.
///
/// # Errors
/// What is wrong.
pub fn decode_server(message: &[u8]) -> Result<ServerMessage<'_>, DecodeError> {
    envelope::decode_server(&mut Scanner::message(message))
}

/// Encodes what a client sends, in one line unless a [`Data::Json`] has line breaks.
///
/// # Errors
/// [`WriteError::Full`], or a [`Data::Cbor`] that has no form in JSON (section 4.1).
pub fn encode_client<S: Sink + ?Sized>(message: &ClientMessage<'_>, sink: &mut S) -> Result<(), WriteError> {
    envelope::encode_client(message, &mut Writer(sink))
}

/// Encodes what a server sends, in one line unless a [`Data::Json`] has line breaks: see [`compact`].
///
/// # Errors
/// [`WriteError::Full`], or a [`Data::Cbor`] that has no form in JSON (section 4.1).
pub fn encode_server<S: Sink + ?Sized>(message: &ServerMessage<'_>, sink: &mut S) -> Result<(), WriteError> {
    envelope::encode_server(message, &mut Writer(sink))
}

/// Writes the body of an HTTP response that refuses (section 9).
///
/// # Errors
/// [`Full`] of the sink.
pub fn encode_refusal<S: Sink + ?Sized>(refusal: &Refusal<'_>, sink: &mut S) -> Result<(), Full> {
    sink.put(b"{\"code\":")?;
    write_string(refusal.code, sink)?;
    sink.put(b",\"message\":")?;
    write_string(refusal.message, sink)?;
    sink.put(b",\"permanent\":")?;
    sink.put(boolean(refusal.permanent))?;
    if let Some(after) = refusal.retry_after {
        sink.put(b",\"retry_after\":")?;
        write_uint(crate::time::millis(after), sink)?;
    }
    sink.put(b"}")
}

/// Checks that these bytes are exactly one JSON value that may be published, with whitespace around it or not.
///
/// # Errors
/// What is wrong first.
pub fn validate(json: &[u8]) -> Result<(), Malformed> {
    let mut scanner = Scanner::new(json);
    while scanner.next()?.is_some() {}
    Ok(())
}

/// Checks a JSON value and writes it without whitespace between its tokens, so that it has no line breaks and fits
/// in one `data:` line of SSE. Numbers and strings stay as they are.
///
/// # Errors
/// What is wrong with the value (then nothing was written), or [`WriteError::Full`].
///
/// ```
/// use longwire_core::session::json;
///
/// let mut out = heapless::Vec::<u8, 32>::new();
/// json::compact(b"{\r\n  \"a b\": [1, 2.50]\n}\n", &mut out).unwrap();
/// assert_eq!(out, br#"{"a b":[1,2.50]}"#);
/// ```
pub fn compact<S: Sink + ?Sized>(json: &[u8], sink: &mut S) -> Result<(), WriteError> {
    validate(json)?;
    let mut rest = json.trim_ascii();
    let mut in_string = false;
    // A run of bytes that stay; the loop looks for whatever may end it.
    let mut run = rest;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => in_string = !in_string,
            b'\\' => rest = rest.get(1..).unwrap_or_default(),
            b' ' | b'\t' | b'\n' | b'\r' if !in_string => {
                let len = run.len().saturating_sub(after.len()).saturating_sub(1);
                sink.put(run.get(..len).unwrap_or_default())?;
                rest = after.trim_ascii_start();
                run = rest;
            }
            _ => {}
        }
    }
    Ok(sink.put(run)?)
}

/// Writes a string in quotes, with the escapes that RFC 8259 section 7 asks for and no others.
///
/// # Errors
/// [`Full`] of the sink.
pub fn write_string<'b, S: Sink + ?Sized>(text: impl Into<Text<'b>>, sink: &mut S) -> Result<(), Full> {
    let text = text.into();
    sink.put(b"\"")?;
    if let text::Form::Escaped(raw) = text.0 {
        sink.put(raw.as_bytes())?; // it was checked where it came in
    } else {
        for piece in text.pieces() {
            match piece {
                Piece::Run(run) => escape(run, sink)?,
                Piece::Char(c) => escape(c.encode_utf8(&mut [0; 4]), sink)?,
            }
        }
    }
    sink.put(b"\"")
}

fn escape<S: Sink + ?Sized>(text: &str, sink: &mut S) -> Result<(), Full> {
    let mut rest = text.as_bytes();
    loop {
        let plain = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len());
        let Some((run, after)) = rest.split_at_checked(plain) else { return Ok(()) };
        sink.put(run)?;
        let Some((byte, after)) = after.split_first() else { return Ok(()) };
        match byte {
            b'"' => sink.put(b"\\\"")?,
            b'\\' => sink.put(b"\\\\")?,
            0x08 => sink.put(b"\\b")?,
            0x0c => sink.put(b"\\f")?,
            b'\n' => sink.put(b"\\n")?,
            b'\r' => sink.put(b"\\r")?,
            b'\t' => sink.put(b"\\t")?,
            control => {
                let digit = |nibble: u8| nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
                sink.put(&[b'\\', b'u', b'0', b'0', digit(control >> 4), digit(control & 0xf)])?;
            }
        }
        rest = after;
    }
}

/// Writes a number of the whole range.
pub(super) fn write_uint<S: Sink + ?Sized>(mut value: u64, sink: &mut S) -> Result<(), Full> {
    let mut digits = [0; 20]; // those of u64::MAX
    let mut len = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        len += 1;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    sink.put(digits.get(digits.len() - len..).unwrap_or_default())
}

pub(super) const fn boolean(value: bool) -> &'static [u8] {
    if value { b"true" } else { b"false" }
}

impl<'b> Scanner<'b> {
    /// The next token, of which `read` makes a value; anything else is not what the field may be.
    fn expect<T>(&mut self, field: Field, read: impl FnOnce(Token<'b>) -> Option<T>) -> Result<T, Malformed> {
        match self.next()?.and_then(read) {
            Some(value) => Ok(value),
            None => self.fail(Reason::Invalid(field)),
        }
    }
}

/// An integer without sign, fraction or exponent, up to 2^64 - 1.
fn uint(token: Token<'_>) -> Option<u64> {
    match token {
        Token::Number(digits, true) => decimal(digits.as_bytes()),
        _ => None,
    }
}

impl<'b> Input<'b> for Scanner<'b> {
    fn begin(&mut self) -> Result<(), Malformed> {
        match self.next()? {
            Some(Token::BeginObject) => Ok(()),
            _ => self.fail(Reason::NotAMap),
        }
    }

    fn field(&mut self) -> Result<Option<Option<Field>>, Malformed> {
        match self.next()? {
            Some(Token::Name(name)) => {
                Ok(Some(short(name, &mut heapless::String::new()).and_then(Field::from_name)))
            }
            // The end of the message: nothing may follow.
            _ => self.next().map(|_| None),
        }
    }

    fn kind(&mut self) -> Result<Option<Kind>, Malformed> {
        let kind = Input::text(self, Field::Type)?;
        Ok(short(kind, &mut heapless::String::new()).and_then(Kind::from_name))
    }

    fn skip(&mut self) -> Result<(), Malformed> {
        self.raw_value().map(drop)
    }

    fn text(&mut self, field: Field) -> Result<Text<'b>, Malformed> {
        self.expect(field, |token| if let Token::String(text) = token { Some(text) } else { None })
    }

    fn uint(&mut self, field: Field) -> Result<u64, Malformed> {
        self.expect(field, uint)
    }

    fn uint_or_null(&mut self, field: Field) -> Result<Option<u64>, Malformed> {
        self.expect(field, |token| if let Token::Null = token { Some(None) } else { uint(token).map(Some) })
    }

    fn boolean(&mut self, field: Field) -> Result<bool, Malformed> {
        self.expect(field, |token| if let Token::Boolean(value) = token { Some(value) } else { None })
    }

    fn data(&mut self) -> Result<Data<'b>, Malformed> {
        self.raw_value().map(Data::Json)
    }

    fn bytes(&mut self, field: Field) -> Result<Bytes<'b>, Malformed> {
        let text = Input::text(self, field)?;
        match base64::check(text) {
            Ok(()) => Ok(Bytes(bytes::Form::Base64(text))),
            Err(_) => self.fail(Reason::Invalid(field)),
        }
    }

    fn topics(&mut self, field: Field) -> Result<Topics<'b>, Malformed> {
        self.expect(field, |token| matches!(token, Token::BeginArray).then_some(()))?;
        let begin = self.at();
        loop {
            match self.next()? {
                Some(Token::String(_)) => {}
                Some(Token::EndArray) => return Ok(Topics(topics::Form::Json(self.since(begin)))),
                _ => return self.fail(Reason::Invalid(field)),
            }
        }
    }

    fn limits(&mut self, field: Field) -> Result<Limits, Malformed> {
        self.expect(field, |token| matches!(token, Token::BeginObject).then_some(()))?;
        let (mut max_message, mut max_topics, mut max_inflight) = (None, None, None);
        while let Some(Token::Name(name)) = self.next()? {
            let limit = match short(name, &mut heapless::String::new()) {
                Some("max_message") => &mut max_message,
                Some("max_topics") => &mut max_topics,
                Some("max_inflight") => &mut max_inflight,
                _ => {
                    self.raw_value()?;
                    continue;
                }
            };
            if limit.replace(self.expect(field, uint)?).is_some() {
                return self.fail(Reason::Invalid(field));
            }
        }
        match (max_message, max_topics, max_inflight) {
            (Some(max_message), Some(max_topics), Some(max_inflight)) => {
                Ok(Limits { max_message, max_topics, max_inflight })
            }
            _ => self.fail(Reason::Invalid(field)),
        }
    }

    fn at(&self) -> usize {
        Scanner::at(self)
    }
}

/// Writes a message as JSON.
struct Writer<'s, S: ?Sized>(&'s mut S);

impl<S: Sink + ?Sized> Writer<'_, S> {
    fn name(&mut self, field: Field) -> Result<(), Full> {
        self.0.put(field.texts().json.as_bytes())
    }
}

impl<S: Sink + ?Sized> Output for Writer<'_, S> {
    fn begin(&mut self, kind: Kind) -> Result<(), WriteError> {
        self.0.put(b"{\"type\":\"")?;
        self.0.put(kind.name().as_bytes())?;
        Ok(self.0.put(b"\"")?)
    }

    fn text(&mut self, field: Field, text: Text<'_>) -> Result<(), WriteError> {
        self.name(field)?;
        Ok(write_string(text, self.0)?)
    }

    fn uint(&mut self, field: Field, value: u64) -> Result<(), WriteError> {
        self.name(field)?;
        Ok(write_uint(value, self.0)?)
    }

    fn null(&mut self, field: Field) -> Result<(), WriteError> {
        self.name(field)?;
        Ok(self.0.put(b"null")?)
    }

    fn boolean(&mut self, field: Field, value: bool) -> Result<(), WriteError> {
        self.name(field)?;
        Ok(self.0.put(boolean(value))?)
    }

    fn json(&mut self, field: Field, json: &[u8]) -> Result<(), WriteError> {
        self.name(field)?;
        Ok(self.0.put(json)?)
    }

    fn cbor(&mut self, field: Field, cbor: &[u8]) -> Result<(), WriteError> {
        self.name(field)?;
        #[cfg(feature = "transcode")]
        return super::transcode::cbor_to_json(cbor, self.0);
        #[cfg(not(feature = "transcode"))]
        return Err(Malformed::new(Reason::OtherForm, cbor.len()).into());
    }

    fn bytes(&mut self, field: Field, bytes: Bytes<'_>) -> Result<(), WriteError> {
        self.name(field)?;
        if let bytes::Form::Base64(text) = bytes.0 {
            return Ok(write_string(text, self.0)?); // it was checked where it came in
        }
        self.0.put(b"\"")?;
        base64::encode(bytes.iter(), base64::STANDARD, true, self.0)?;
        Ok(self.0.put(b"\"")?)
    }

    fn topics(&mut self, field: Field, topics: Topics<'_>) -> Result<(), WriteError> {
        self.name(field)?;
        let mut separator: &[u8] = b"[";
        for topic in topics {
            self.0.put(separator)?;
            write_string(topic, self.0)?;
            separator = b",";
        }
        if separator == b"[" {
            self.0.put(b"[")?;
        }
        Ok(self.0.put(b"]")?)
    }

    fn limits(&mut self, field: Field, limits: Limits) -> Result<(), WriteError> {
        self.name(field)?;
        self.0.put(b"{\"max_message\":")?;
        write_uint(limits.max_message, self.0)?;
        self.0.put(b",\"max_topics\":")?;
        write_uint(limits.max_topics, self.0)?;
        self.0.put(b",\"max_inflight\":")?;
        write_uint(limits.max_inflight, self.0)?;
        Ok(self.0.put(b"}")?)
    }

    fn end(&mut self) -> Result<(), WriteError> {
        Ok(self.0.put(b"}")?)
    }
}
