//! The binary form (RFC 8949): WebSocket binary messages, and what a device speaks.
//!
//! Reading checks that items are well-formed, that texts are UTF-8, that no field comes twice, and that nothing is
//! nested deeper than [`MAX_DEPTH`](super::MAX_DEPTH) levels, of which a tag is one. Lengths may be definite or not, and heads longer
//! than they need to be. It takes one pass, does not recurse, copies nothing, and believes no length that the
//! bytes do not bear out.

mod scanner;

pub(super) use scanner::{Scanner, Token, next_chunk, next_text};

use super::{
    Bytes, ClientMessage, Data, DecodeError, Field, Full, Kind, Limits, Malformed, Reason, ServerMessage,
    Sink, Text, Topics, WriteError,
    envelope::{self, Input, Output},
    topics,
};

/// Decodes what a client sent.
///
/// # Errors
/// What is wrong, and how a server [answers](DecodeError::answer) it.
pub fn decode_client(message: &[u8]) -> Result<ClientMessage<'_>, DecodeError> {
    envelope::decode_client(&mut Scanner::message(message))
}

/// Decodes what a server sent.
///
/// # Errors
/// What is wrong.
pub fn decode_server(message: &[u8]) -> Result<ServerMessage<'_>, DecodeError> {
    envelope::decode_server(&mut Scanner::message(message))
}

/// Encodes what a client sends.
///
/// # Errors
/// [`WriteError::Full`], or a [`Data::Json`] that is none.
pub fn encode_client<S: Sink + ?Sized>(message: &ClientMessage<'_>, sink: &mut S) -> Result<(), WriteError> {
    envelope::encode_client(message, &mut Writer(sink))
}

/// Encodes what a server sends.
///
/// # Errors
/// [`WriteError::Full`], or a [`Data::Json`] that is none.
pub fn encode_server<S: Sink + ?Sized>(message: &ServerMessage<'_>, sink: &mut S) -> Result<(), WriteError> {
    envelope::encode_server(message, &mut Writer(sink))
}

/// Checks that these bytes are exactly one well-formed data item, with texts of UTF-8, nested at most
/// [`MAX_DEPTH`](super::MAX_DEPTH) levels deep. Not every such item has a form in JSON: a server that publishes it
/// to readers of both forms asks `transcode::cbor_to_json` as well.
///
/// # Errors
/// What is wrong first.
///
/// ```
/// use longwire_core::session::{Reason, cbor};
///
/// assert_eq!(cbor::validate(&[0x82, 0x01, 0x02]), Ok(()));
/// assert_eq!(cbor::validate(&[0x82, 0x01]).unwrap_err().reason, Reason::Truncated);
/// ```
pub fn validate(cbor: &[u8]) -> Result<(), Malformed> {
    let mut scanner = Scanner::new(cbor);
    while scanner.next()?.is_some() {}
    Ok(())
}

/// Major types (RFC 8949 section 3.1), as they stand in the first byte.
pub(super) mod major {
    pub(in crate::session) const UINT: u8 = 0;
    #[cfg(feature = "transcode")]
    pub(in crate::session) const NINT: u8 = 1 << 5;
    pub(in crate::session) const BYTES: u8 = 2 << 5;
    pub(in crate::session) const TEXT: u8 = 3 << 5;
    pub(in crate::session) const ARRAY: u8 = 4 << 5;
    pub(in crate::session) const MAP: u8 = 5 << 5;
}

/// Single bytes.
pub(super) mod byte {
    #[cfg(feature = "transcode")]
    pub(in crate::session) const BEGIN_ARRAY: &[u8] = &[0x9f];
    pub(in crate::session) const BEGIN_MAP: &[u8] = &[0xbf];
    pub(in crate::session) const BREAK: &[u8] = &[0xff];
    pub(in crate::session) const FALSE: &[u8] = &[0xf4];
    pub(in crate::session) const TRUE: &[u8] = &[0xf5];
    pub(in crate::session) const NULL: &[u8] = &[0xf6];
}

/// Writes the head of an item, as short as it can be.
pub(super) fn write_head<S: Sink + ?Sized>(major: u8, argument: u64, sink: &mut S) -> Result<(), Full> {
    let [a, b, c, d, e, f, g, h] = argument.to_be_bytes();
    match argument {
        0..=23 => sink.put(&[major | h]),
        24..=0xff => sink.put(&[major | 24, h]),
        0x100..=0xffff => sink.put(&[major | 25, g, h]),
        0x1_0000..=0xffff_ffff => sink.put(&[major | 26, e, f, g, h]),
        _ => sink.put(&[major | 27, a, b, c, d, e, f, g, h]),
    }
}

pub(super) fn write_text<S: Sink + ?Sized>(text: Text<'_>, sink: &mut S) -> Result<(), Full> {
    write_head(major::TEXT, text.len() as u64, sink)?;
    text.put(sink)
}

pub(super) const fn boolean(value: bool) -> &'static [u8] {
    if value { byte::TRUE } else { byte::FALSE }
}

impl<'b> Scanner<'b> {
    /// The next token, of which `read` makes a value; anything else is not what the field may be.
    fn expect<T>(&mut self, field: Field, read: impl FnOnce(Token<'b>) -> Option<T>) -> Result<T, Malformed> {
        match self.next()?.and_then(read) {
            Some(value) => Ok(value),
            None => self.fail(Reason::Invalid(field)),
        }
    }

    /// The next key of a map: a number, or `Some(None)` for any other item, which was passed over.
    fn key_number(&mut self) -> Result<Option<Option<u64>>, Malformed> {
        match self.next()? {
            Some(Token::Uint(number)) => Ok(Some(Some(number))),
            Some(Token::End) => Ok(None),
            Some(token) => self.finish_value(token).map(|()| Some(None)),
            None => self.fail(Reason::Truncated),
        }
    }
}

fn uint(token: Token<'_>) -> Option<u64> {
    if let Token::Uint(value) = token { Some(value) } else { None }
}

impl<'b> Input<'b> for Scanner<'b> {
    fn begin(&mut self) -> Result<(), Malformed> {
        match self.next()? {
            Some(Token::BeginMap) => Ok(()),
            _ => self.fail(Reason::NotAMap),
        }
    }

    fn field(&mut self) -> Result<Option<Option<Field>>, Malformed> {
        match self.key_number()? {
            Some(number) => Ok(Some(number.and_then(Field::from_number))),
            // The end of the message: nothing may follow.
            None => self.next().map(|_| None),
        }
    }

    fn kind(&mut self) -> Result<Option<Kind>, Malformed> {
        self.expect(Field::Type, uint).map(Kind::from_number)
    }

    fn skip(&mut self) -> Result<(), Malformed> {
        self.raw_value().map(drop)
    }

    fn text(&mut self, field: Field) -> Result<Text<'b>, Malformed> {
        self.expect(field, |token| if let Token::Text(text) = token { Some(text) } else { None })
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
        self.raw_value().map(Data::Cbor)
    }

    fn bytes(&mut self, field: Field) -> Result<Bytes<'b>, Malformed> {
        self.expect(field, |token| if let Token::Bytes(bytes) = token { Some(bytes) } else { None })
    }

    fn topics(&mut self, field: Field) -> Result<Topics<'b>, Malformed> {
        self.expect(field, |token| matches!(token, Token::BeginArray).then_some(()))?;
        let begin = self.offset();
        loop {
            match self.next()? {
                Some(Token::Text(_)) => {}
                Some(Token::End) => return Ok(Topics(topics::Form::Cbor(self.since(begin)))),
                _ => return self.fail(Reason::Invalid(field)),
            }
        }
    }

    fn limits(&mut self, field: Field) -> Result<Limits, Malformed> {
        self.expect(field, |token| matches!(token, Token::BeginMap).then_some(()))?;
        let (mut max_message, mut max_topics, mut max_inflight) = (None, None, None);
        while let Some(key) = self.key_number()? {
            let limit = match key {
                Some(0) => &mut max_message,
                Some(1) => &mut max_topics,
                Some(2) => &mut max_inflight,
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

/// Writes a message as CBOR: a map of indefinite length, so that nobody has to count first.
struct Writer<'s, S: ?Sized>(&'s mut S);

impl<S: Sink + ?Sized> Writer<'_, S> {
    fn key(&mut self, field: Field) -> Result<(), Full> {
        write_head(major::UINT, field.number().into(), self.0)
    }
}

impl<S: Sink + ?Sized> Output for Writer<'_, S> {
    fn begin(&mut self, kind: Kind) -> Result<(), WriteError> {
        self.0.put(byte::BEGIN_MAP)?;
        self.uint(Field::Type, kind.number().into())
    }

    fn text(&mut self, field: Field, text: Text<'_>) -> Result<(), WriteError> {
        self.key(field)?;
        Ok(write_text(text, self.0)?)
    }

    fn uint(&mut self, field: Field, value: u64) -> Result<(), WriteError> {
        self.key(field)?;
        Ok(write_head(major::UINT, value, self.0)?)
    }

    fn null(&mut self, field: Field) -> Result<(), WriteError> {
        self.key(field)?;
        Ok(self.0.put(byte::NULL)?)
    }

    fn boolean(&mut self, field: Field, value: bool) -> Result<(), WriteError> {
        self.key(field)?;
        Ok(self.0.put(boolean(value))?)
    }

    fn json(&mut self, field: Field, json: &[u8]) -> Result<(), WriteError> {
        self.key(field)?;
        #[cfg(feature = "transcode")]
        return super::transcode::json_to_cbor(json, self.0);
        #[cfg(not(feature = "transcode"))]
        return Err(Malformed::new(Reason::OtherForm, json.len()).into());
    }

    fn cbor(&mut self, field: Field, cbor: &[u8]) -> Result<(), WriteError> {
        self.key(field)?;
        Ok(self.0.put(cbor)?)
    }

    fn bytes(&mut self, field: Field, bytes: Bytes<'_>) -> Result<(), WriteError> {
        self.key(field)?;
        write_head(major::BYTES, bytes.len() as u64, self.0)?;
        Ok(bytes.write_to(self.0)?)
    }

    fn topics(&mut self, field: Field, topics: Topics<'_>) -> Result<(), WriteError> {
        self.key(field)?;
        write_head(major::ARRAY, topics.len() as u64, self.0)?;
        Ok(topics.iter().try_for_each(|topic| write_text(topic, self.0))?)
    }

    fn limits(&mut self, field: Field, limits: Limits) -> Result<(), WriteError> {
        self.key(field)?;
        write_head(major::MAP, 3, self.0)?;
        for (key, value) in [(0, limits.max_message), (1, limits.max_topics), (2, limits.max_inflight)] {
            write_head(major::UINT, key, self.0)?;
            write_head(major::UINT, value, self.0)?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), WriteError> {
        Ok(self.0.put(byte::BREAK)?)
    }
}
