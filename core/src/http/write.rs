//! Writes heads, whole or not at all, and refuses whatever would become something else on the wire.
//!
//! A CR, LF or NUL in a field would let whoever chose the text write header fields of his own (response
//! splitting): that is an error here and never reaches the buffer.

use super::grammar::{is_field_byte, is_ows, is_target_char, is_token};
use crate::buf::TxBuf;

/// A header field: name and value.
pub type Field<'a> = (&'a str, &'a str);

/// Why a head was not written. Nothing of it is in the buffer then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum WriteError {
    /// The buffer has not enough room. Write it to the socket and try again, or lend a larger one.
    Full,
    /// The method is not a token.
    Method,
    /// The target is empty, or holds a space, a control byte, `#`, a quote, an angle bracket, or a character outside ASCII.
    Target,
    /// The status is not one of 100 to 599.
    Status,
    /// A field's name is not a token.
    Name,
    /// A field's value holds a control byte other than the tab, or begins or ends with space.
    Value,
    /// A field that the writer sets itself, such as `Content-Length`, was given as well.
    Reserved,
    /// A subprotocol that is not a token, was given twice, or was not offered.
    Subprotocol,
    /// An extension that is malformed or was not offered.
    Extension,
}

impl WriteError {
    /// The rule, in one line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "send buffer is full",
            Self::Method => "malformed method",
            Self::Target => "malformed request target",
            Self::Status => "status is not one of 100 to 599",
            Self::Name => "malformed header name",
            Self::Value => "malformed header value",
            Self::Reserved => "header is set by the writer itself",
            Self::Subprotocol => "subprotocol malformed, repeated, or not offered",
            Self::Extension => "extension malformed or not offered",
        }
    }
}

impl core::fmt::Display for WriteError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for WriteError {}

/// Writes the head of a request of HTTP/1.1. `Host`, and what says how long a body is, are up to the caller.
///
/// ```
/// use longwire_core::buf::{TxBuf, TxCursor};
/// use longwire_core::http::write::{self, WriteError};
///
/// let (mut bytes, mut cursor) = ([0; 64], TxCursor::default());
/// let mut tx = TxBuf::new(&mut bytes, &mut cursor);
/// write::request(&mut tx, "GET", "/state", &[("Host", "example.org")])?;
/// assert_eq!(tx.pending(), b"GET /state HTTP/1.1\r\nHost: example.org\r\n\r\n");
/// assert_eq!(write::request(&mut tx, "GET", "/", &[("X", "a\r\nY: b")]), Err(WriteError::Value));
/// # Ok::<(), WriteError>(())
/// ```
///
/// # Errors
/// [`WriteError`]; nothing was written then.
pub fn request(
    tx: &mut TxBuf<'_>,
    method: &str,
    target: &str,
    fields: &[Field<'_>],
) -> Result<(), WriteError> {
    encode(tx, |out| {
        out.request_line(method, target)?;
        out.fields(fields)?;
        out.end();
        Ok(())
    })
}

/// Writes the head of a response of HTTP/1.1, with the usual [`reason`].
///
/// # Errors
/// [`WriteError`]; nothing was written then.
pub fn response(tx: &mut TxBuf<'_>, status: u16, fields: &[Field<'_>]) -> Result<(), WriteError> {
    encode(tx, |out| {
        out.status_line(status)?;
        out.fields(fields)?;
        out.end();
        Ok(())
    })
}

/// Writes a whole response that ends the connection: `fields`, `Content-Length`, `Connection: close`, and
/// `text` as the body (`text/plain`, when no field says otherwise).
///
/// With status 426 the connection options also name `upgrade`, as `Upgrade` among the fields demands (RFC
/// 9110 section 7.8).
///
/// # Errors
/// [`WriteError`]; nothing was written then.
pub fn refusal(tx: &mut TxBuf<'_>, status: u16, fields: &[Field<'_>], text: &str) -> Result<(), WriteError> {
    const OWN: &[&str] = &["connection", "content-length", "transfer-encoding"];
    refuse_reserved(fields, OWN)?;
    let typed = fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    encode(tx, |out| {
        out.status_line(status)?;
        out.fields(fields)?;
        if !typed {
            out.field("Content-Type", "text/plain; charset=utf-8")?;
        }
        out.push(b"Content-Length: ");
        out.decimal(text.len() as u64);
        out.push(b"\r\n");
        out.field("Connection", if status == 426 { "upgrade, close" } else { "close" })?;
        out.end();
        out.push(text.as_bytes());
        Ok(())
    })
}

/// Writes one chunk of a chunked body (RFC 9112 section 7.1), or nothing when the parts are empty: a chunk of
/// no bytes would end the body.
///
/// # Errors
/// [`WriteError::Full`].
pub fn chunk(tx: &mut TxBuf<'_>, parts: &[&[u8]]) -> Result<(), WriteError> {
    let len = parts.iter().fold(0u64, |sum, part| sum.saturating_add(part.len() as u64));
    if len == 0 {
        return Ok(());
    }
    encode(tx, |out| {
        out.hex(len);
        out.push(b"\r\n");
        for part in parts {
            out.push(part);
        }
        out.push(b"\r\n");
        Ok(())
    })
}

/// What ends a chunked body: the last chunk, without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The usual reason phrase of a status (RFC 9110 section 15, RFC 6585), empty for those that are not in use
/// here.
pub const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

/// Whether a field that the caller gives is one that the writer sets itself.
pub(super) fn refuse_reserved(fields: &[Field<'_>], own: &[&str]) -> Result<(), WriteError> {
    let clash = |name: &str| own.iter().any(|own| own.eq_ignore_ascii_case(name));
    if fields.iter().any(|(name, _)| clash(name)) { Err(WriteError::Reserved) } else { Ok(()) }
}

/// Runs `emit` twice: once to check and to count, and, when there is room for all of it, once to write.
pub(super) fn encode(
    tx: &mut TxBuf<'_>,
    emit: impl Fn(&mut Out<'_>) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    let mut count = Out { space: &mut [], len: 0 };
    emit(&mut count)?;
    let space = tx.append(count.len).ok_or(WriteError::Full)?;
    emit(&mut Out { space, len: 0 })
}

/// Where a head is put together: counts what is pushed, and writes as much of it as there is space for.
pub(super) struct Out<'t> {
    space: &'t mut [u8],
    len: usize,
}

impl Out<'_> {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if let Some(space) = self.space.get_mut(self.len..) {
            for (to, from) in space.iter_mut().zip(bytes) {
                *to = *from;
            }
        }
        self.len = self.len.saturating_add(bytes.len());
    }

    pub(super) fn request_line(&mut self, method: &str, target: &str) -> Result<(), WriteError> {
        if !is_token(method.as_bytes()) {
            return Err(WriteError::Method);
        }
        if target.is_empty() || !target.bytes().all(is_target_char) {
            return Err(WriteError::Target);
        }
        for part in [method, " ", target, " HTTP/1.1\r\n"] {
            self.push(part.as_bytes());
        }
        Ok(())
    }

    pub(super) fn status_line(&mut self, status: u16) -> Result<(), WriteError> {
        if !(100..600).contains(&status) {
            return Err(WriteError::Status);
        }
        self.push(b"HTTP/1.1 ");
        self.decimal(status.into());
        // The space belongs there even when no reason follows (RFC 9112 section 4).
        self.push(b" ");
        self.push(reason(status).as_bytes());
        self.push(b"\r\n");
        Ok(())
    }

    pub(super) fn field(&mut self, name: &str, value: &str) -> Result<(), WriteError> {
        self.field_of_bytes(name, value.as_bytes())
    }

    pub(super) fn field_of_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), WriteError> {
        if !is_token(name.as_bytes()) {
            return Err(WriteError::Name);
        }
        let padded = bytes.first().is_some_and(|b| is_ows(*b)) || bytes.last().is_some_and(|b| is_ows(*b));
        if padded || !bytes.iter().all(|b| is_field_byte(*b)) {
            return Err(WriteError::Value);
        }
        for part in [name.as_bytes(), b": ", bytes, b"\r\n"] {
            self.push(part);
        }
        Ok(())
    }

    pub(super) fn fields(&mut self, fields: &[Field<'_>]) -> Result<(), WriteError> {
        fields.iter().try_for_each(|(name, value)| self.field(name, value))
    }

    /// The empty line that ends a head.
    pub(super) fn end(&mut self) {
        self.push(b"\r\n");
    }

    pub(super) fn decimal(&mut self, n: u64) {
        self.number(n, 10);
    }

    pub(super) fn hex(&mut self, n: u64) {
        self.number(n, 16);
    }

    fn number(&mut self, n: u64, base: u64) {
        // u64::MAX has 20 decimal digits.
        let (mut digits, mut rest, mut zeros) = ([b'0'; 20], n, 20);
        for digit in digits.iter_mut().rev() {
            let value = u8::try_from(rest % base).unwrap_or_default();
            *digit = if value < 10 { b'0' + value } else { b'a' + (value - 10) };
            rest /= base;
            zeros -= 1;
            if rest == 0 {
                break;
            }
        }
        self.push(digits.get(zeros..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::TxCursor;
    use std::format;
    use std::string::String;

    fn written(write: impl Fn(&mut TxBuf<'_>) -> Result<(), WriteError>) -> Result<String, WriteError> {
        let (mut bytes, mut cursor) = ([0; 512], TxCursor::default());
        let mut tx = TxBuf::new(&mut bytes, &mut cursor);
        let result = write(&mut tx);
        assert!(result.is_ok() || tx.pending().is_empty(), "an error left something behind");
        result.map(|()| String::from_utf8(tx.pending().to_vec()).unwrap())
    }

    #[test]
    fn heads_and_refusals() {
        let head = written(|tx| response(tx, 200, &[("Content-Type", "text/event-stream"), ("X", "")]));
        assert_eq!(head.unwrap(), "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX: \r\n\r\n");
        assert_eq!(written(|tx| response(tx, 599, &[])).unwrap(), "HTTP/1.1 599 \r\n\r\n");
        let refused = written(|tx| refusal(tx, 431, &[], "more headers than max_headers"));
        assert_eq!(
            refused.unwrap(),
            "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: 29\r\nConnection: close\r\n\r\nmore headers than max_headers"
        );
        let refused = written(|tx| refusal(tx, 426, &[("content-type", "application/json")], "{}"));
        assert_eq!(
            refused.unwrap(),
            "HTTP/1.1 426 Upgrade Required\r\ncontent-type: application/json\r\nContent-Length: 2\r\n\
             Connection: upgrade, close\r\n\r\n{}"
        );
        for status in [0, 99, 600, 1000] {
            assert_eq!(written(|tx| response(tx, status, &[])), Err(WriteError::Status));
        }
    }

    #[test]
    fn cve_2026_1527_undici_nothing_can_be_injected() {
        for bad in ["\r", "\n", "\r\n", "\0", "\x7f", "\x1b"] {
            for text in [format!("{bad}a"), format!("a{bad}b"), format!("a{bad}")] {
                let text = text.as_str();
                assert_eq!(written(|tx| request(tx, text, "/", &[])), Err(WriteError::Method));
                assert_eq!(written(|tx| request(tx, "GET", text, &[])), Err(WriteError::Target));
                assert_eq!(written(|tx| request(tx, "GET", "/", &[(text, "b")])), Err(WriteError::Name));
                assert_eq!(written(|tx| request(tx, "GET", "/", &[("a", text)])), Err(WriteError::Value));
                assert_eq!(written(|tx| response(tx, 200, &[(text, "b")])), Err(WriteError::Name));
                assert_eq!(written(|tx| response(tx, 200, &[("a", text)])), Err(WriteError::Value));
                assert_eq!(written(|tx| refusal(tx, 400, &[("a", text)], "")), Err(WriteError::Value));
            }
        }
        for name in ["", " ", "a ", "a:", "a b", "(", "\u{e9}"] {
            assert_eq!(written(|tx| response(tx, 200, &[(name, "b")])), Err(WriteError::Name));
        }
        for value in [" a", "a ", "\ta", "a\t", " "] {
            assert_eq!(written(|tx| response(tx, 200, &[("a", value)])), Err(WriteError::Value));
        }
        for target in ["", "/a b", "/a#b", "/a\"b", "/<a>", "/\u{e9}"] {
            assert_eq!(written(|tx| request(tx, "GET", target, &[])), Err(WriteError::Target));
        }
        for name in ["Content-Length", "transfer-encoding", "CONNECTION"] {
            assert_eq!(written(|tx| refusal(tx, 400, &[(name, "1")], "")), Err(WriteError::Reserved));
        }
    }

    #[test]
    fn all_or_nothing_at_every_size() {
        let whole = written(|tx| response(tx, 200, &[("a", "b")])).unwrap();
        for size in 0..=whole.len() {
            let (mut bytes, mut cursor) = (std::vec![0; size], TxCursor::default());
            let mut tx = TxBuf::new(&mut bytes, &mut cursor);
            let result = response(&mut tx, 200, &[("a", "b")]);
            let fits = size == whole.len();
            assert_eq!(result, if fits { Ok(()) } else { Err(WriteError::Full) });
            assert_eq!(tx.pending(), if fits { whole.as_bytes() } else { b"" });
        }
    }

    #[test]
    fn numbers_and_chunks() {
        let number = |n, base| {
            let mut space = [0; 20];
            let mut out = Out { space: &mut space, len: 0 };
            out.number(n, base);
            let len = out.len;
            String::from_utf8(space[..len].to_vec()).unwrap()
        };
        for n in [0, 9, 10, 15, 16, 255, 4096, u64::MAX] {
            assert_eq!((number(n, 10), number(n, 16)), (format!("{n}"), format!("{n:x}")));
        }
        assert_eq!(
            written(|tx| chunk(tx, &[b"0123456789", b"abcdef"])).unwrap(),
            "10\r\n0123456789abcdef\r\n"
        );
        assert_eq!(written(|tx| chunk(tx, &[b"", b""])).unwrap(), "");
    }
}
