//! Heads of requests and responses (RFC 9112): found while they arrive, parsed once when they are whole.
//!
//! [`HeadReader`] looks at each byte of a growing head once, for its end; a head that comes byte by byte costs
//! linear work. When the head is whole it is parsed and judged, once; after that the views of it
//! ([`Request`], [`Response`]) only walk over lines that are known to be well formed.
//!
//! The judgement is strict where two readers of the same bytes could disagree about where a message ends or
//! whom it is for (request smuggling): [`HeadError`] lists the rules.

use super::grammar::{self, ascii, is_field_byte, is_host, is_other_version, is_ows, is_tchar};
use super::view::{Request, Response, Version, first_line, lines, target_parts};
use crate::buf::RxBuf;
use crate::digits::decimal;

/// What a head may cost. A limit is the largest length or number that is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Limits {
    /// Bytes of the whole head, with the empty line that ends it. Default 8,192. A receive buffer of this
    /// size is always large enough.
    pub max_head: usize,
    /// Number of header fields. Default 64.
    pub max_headers: usize,
    /// Bytes of a header field's name. Default 256.
    pub max_name: usize,
    /// Bytes of a header field's value, without the space around it. Default 4,096.
    pub max_value: usize,
    /// Bytes of a request target. Default 4,096.
    pub max_target: usize,
}

impl Limits {
    /// The defaults, as a constant.
    pub const DEFAULT: Self =
        Self { max_head: 8192, max_headers: 64, max_name: 256, max_value: 4096, max_target: 4096 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How a reader of heads goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Step<H> {
    /// The head is not whole: read more into the buffer.
    NeedInput,
    /// The head is not whole and the buffer is full: lend one of at least this many bytes, or give up (a server
    /// with status 431). Never more than [`Limits::max_head`], or 2.
    NeedSpace(usize),
    /// The head is whole and well formed.
    Head(H),
}

/// Reads heads, one after the other, from a lent buffer. Holds 16 bytes.
///
/// Call [`poll_request`](Self::poll_request) or [`poll_response`](Self::poll_response) whenever bytes have
/// arrived. A whole head is [kept](RxBuf::kept) in the buffer, in place, so that it can be
/// [viewed](RequestHead::view) while what came behind it (a body, the next request, the first frames of a
/// WebSocket) stays unread. Give the room back with [`RequestHead::release`]; the next poll does it otherwise.
/// Nothing else may be kept in the buffer meanwhile.
///
/// A poll that returned an error returns it again: nothing was consumed.
///
/// ```
/// use longwire_core::buf::{RxBuf, RxCursor};
/// use longwire_core::http::head::{HeadReader, Limits, Step};
///
/// let (mut bytes, mut cursor) = ([0; 128], RxCursor::default());
/// let mut rx = RxBuf::new(&mut bytes, &mut cursor);
/// let mut reader = HeadReader::default();
///
/// rx.fill(b"GET /v1/stream?topic=a HTTP/1.1\r\nHos");
/// assert_eq!(reader.poll_request(&mut rx, &Limits::DEFAULT), Ok(Step::NeedInput));
/// rx.fill(b"t: example.org\r\n\r\nwhat follows");
/// let Ok(Step::Head(head)) = reader.poll_request(&mut rx, &Limits::DEFAULT) else { panic!() };
///
/// let request = head.view(rx.reborrow());
/// assert_eq!((request.method(), request.path(), request.query()), ("GET", "/v1/stream", Some("topic=a")));
/// assert_eq!(request.header("host"), Some(&b"example.org"[..]));
/// head.release(&mut rx);
/// assert_eq!((rx.kept(), rx.unread()), (&b""[..], &b"what follows"[..]));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadReader {
    /// Unread bytes that were looked at already.
    searched: u32,
    /// Where the line begins that is being searched.
    line: u32,
    /// Lines that have ended.
    lines: u32,
    /// Empty lines before a request, or interim responses before the final one.
    skipped: u8,
}

const _: () = assert!(size_of::<HeadReader>() <= 16);

/// Interim responses (status 1xx) that are passed over before the final one.
const MAX_INTERIM: u8 = 8;

impl HeadReader {
    /// Looks for the end of a request's head, and parses it when it is whole.
    ///
    /// One empty line before it is passed over (RFC 9112 section 2.2). Bytes behind the head stay unread.
    ///
    /// # Errors
    /// [`HeadError`] says which rule or limit was broken, and [`HeadError::status`] how to answer.
    pub fn poll_request(
        &mut self,
        rx: &mut RxBuf<'_>,
        limits: &Limits,
    ) -> Result<Step<RequestHead>, HeadError> {
        rx.release(rx.kept().len());
        if self.searched == 0 && self.skipped == 0 {
            match rx.unread() {
                b"\r" => return Ok(self.needs(rx, limits)),
                [b'\r', b'\n', ..] => {
                    rx.skip(2);
                    self.skipped = 1;
                }
                _ => {}
            }
        }
        let found = match self.search(rx.unread(), limits) {
            // What is too long here is the line with the target.
            Err(HeadError::TooLong) if self.lines == 0 => return Err(HeadError::TargetTooLong),
            found => found?,
        };
        let Some(len) = found else { return Ok(self.needs(rx, limits)) };
        judge_request(rx.unread().get(..len).unwrap_or_default(), limits)?;
        *self = Self::default();
        rx.keep(len);
        Ok(Step::Head(RequestHead { len }))
    }

    /// Looks for the end of a response's head, and parses it when it is whole.
    ///
    /// Interim responses (status 1xx, but not 101) are passed over, as RFC 9110 section 15.2 demands, at most
    /// eight of them. Bytes behind the head stay unread.
    ///
    /// # Errors
    /// [`HeadError`] says which rule or limit was broken. What the server says can no longer be understood
    /// then, and the connection has to be closed.
    pub fn poll_response(
        &mut self,
        rx: &mut RxBuf<'_>,
        limits: &Limits,
    ) -> Result<Step<ResponseHead>, HeadError> {
        rx.release(rx.kept().len());
        loop {
            let Some(len) = self.search(rx.unread(), limits)? else { return Ok(self.needs(rx, limits)) };
            let status = judge_response(rx.unread().get(..len).unwrap_or_default(), limits)?;
            if !(100..200).contains(&status) || status == 101 {
                *self = Self::default();
                rx.keep(len);
                return Ok(Step::Head(ResponseHead { len }));
            }
            if self.skipped >= MAX_INTERIM {
                return Err(HeadError::TooManyInterim);
            }
            *self = Self { skipped: self.skipped.saturating_add(1), ..Self::default() };
            rx.skip(len);
        }
    }

    /// Where the head ends: behind the first empty line. Goes on where the last search stopped, and looks at no
    /// byte beyond the limit, so that the answer does not depend on how the bytes were cut.
    fn search(&mut self, unread: &[u8], limits: &Limits) -> Result<Option<usize>, HeadError> {
        let allowed = unread.get(..limits.max_head).unwrap_or(unread);
        loop {
            let rest = allowed.get(self.searched as usize..).unwrap_or_default();
            let Some(at) = rest.iter().position(|b| *b == b'\n') else {
                count_work(rest.len());
                break;
            };
            count_work(at + 1);
            let end = self.searched as usize + at;
            let line = allowed.get(self.line as usize..end).unwrap_or_default();
            // RFC 9112 section 2.2 lets a recipient take a bare LF for the end of a line. Two that differ in
            // that see different messages, so it is refused.
            let Some((b'\r', line)) = line.split_last() else { return Err(HeadError::BareLf) };
            if line.is_empty() {
                return Ok(Some(end + 1));
            }
            // The first line is no header field.
            if self.lines as usize > limits.max_headers {
                return Err(HeadError::TooManyHeaders);
            }
            self.lines += 1;
            self.searched = offset(end + 1);
            self.line = self.searched;
        }
        if unread.len() >= limits.max_head {
            return Err(HeadError::TooLong);
        }
        self.searched = offset(unread.len());
        Ok(None)
    }

    fn needs<H>(&self, rx: &RxBuf<'_>, limits: &Limits) -> Step<H> {
        if rx.is_full() {
            Step::NeedSpace(rx.capacity().saturating_mul(2).max(64).min(limits.max_head.max(2)))
        } else {
            Step::NeedInput
        }
    }
}

/// A whole, well-formed head of a request, [kept](RxBuf::kept) in the buffer that it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[must_use = "the head holds room in the buffer until it is released"]
pub struct RequestHead {
    len: usize,
}

impl RequestHead {
    /// Bytes of the head, with the empty line that ends it.
    #[expect(clippy::len_without_is_empty, reason = "a head is never empty")]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Shows the head, for as long as the buffer is lent.
    pub fn view<'b>(&self, rx: RxBuf<'b>) -> Request<'b> {
        Request::of(rx.into_parts().0.get(..self.len).unwrap_or_default())
    }

    /// Gives the head's room in the buffer back.
    pub fn release(self, rx: &mut RxBuf<'_>) {
        rx.release(self.len);
    }
}

/// A whole, well-formed head of a response, [kept](RxBuf::kept) in the buffer that it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[must_use = "the head holds room in the buffer until it is released"]
pub struct ResponseHead {
    len: usize,
}

impl ResponseHead {
    /// Bytes of the head, with the empty line that ends it.
    #[expect(clippy::len_without_is_empty, reason = "a head is never empty")]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Shows the head, for as long as the buffer is lent.
    pub fn view<'b>(&self, rx: RxBuf<'b>) -> Response<'b> {
        Response::of(rx.into_parts().0.get(..self.len).unwrap_or_default())
    }

    /// Gives the head's room in the buffer back.
    pub fn release(self, rx: &mut RxBuf<'_>) {
        rx.release(self.len);
    }
}

/// Why a head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum HeadError {
    /// The head is longer than [`Limits::max_head`].
    TooLong,
    /// More header fields than [`Limits::max_headers`].
    TooManyHeaders,
    /// A field's name is longer than [`Limits::max_name`].
    NameTooLong,
    /// A field's value is longer than [`Limits::max_value`].
    ValueTooLong,
    /// The request target is longer than [`Limits::max_target`], or its line alone than [`Limits::max_head`].
    TargetTooLong,
    /// More than eight interim responses.
    TooManyInterim,
    /// A line that ends in LF without CR.
    BareLf,
    /// CR without LF.
    BareCr,
    /// NUL or another control byte.
    ControlByte,
    /// Not `method SP target SP version`.
    RequestLine,
    /// Not `version SP status SP reason`, or a status outside 100 to 599.
    StatusLine,
    /// The target has none of the forms of RFC 9112 section 3.2, or holds a fragment or a character of no URI.
    Target,
    /// A version of HTTP other than 1.0 and 1.1.
    Version,
    /// A line that begins with space (`obs-fold`, RFC 9112 section 5.2).
    ObsFold,
    /// Space between a field's name and the colon (RFC 9112 section 5.1).
    SpaceBeforeColon,
    /// A field's name is empty, not a token, or not followed by a colon.
    Name,
    /// A request of HTTP/1.1 without `Host`.
    HostMissing,
    /// More than one `Host`.
    HostRepeated,
    /// `Host` of a request with a character that no host has.
    Host,
    /// `Content-Length` that is not digits, or 2^64 and more.
    ContentLength,
    /// More than one `Content-Length`, be they equal or not.
    ContentLengthRepeated,
    /// A transfer coding other than `chunked`, or several.
    TransferEncoding,
    /// More than one `Transfer-Encoding`.
    TransferEncodingRepeated,
    /// `Transfer-Encoding` in a message of HTTP/1.0 (RFC 9112 section 6.1).
    TransferEncodingInHttp10,
    /// Both `Transfer-Encoding` and `Content-Length` (RFC 9112 section 6.3).
    TransferEncodingWithLength,
}

impl HeadError {
    /// The status that a server answers with.
    pub const fn status(self) -> u16 {
        match self {
            Self::TooLong | Self::TooManyHeaders | Self::NameTooLong | Self::ValueTooLong => 431,
            Self::TargetTooLong => 414,
            Self::Version => 505,
            Self::TransferEncoding => 501,
            _ => 400,
        }
    }

    /// The rule or limit, in one line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "head longer than max_head",
            Self::TooManyHeaders => "more headers than max_headers",
            Self::NameTooLong => "header name longer than max_name",
            Self::ValueTooLong => "header value longer than max_value",
            Self::TargetTooLong => "request target longer than max_target",
            Self::TooManyInterim => "too many interim responses",
            Self::BareLf => "LF without CR",
            Self::BareCr => "CR without LF",
            Self::ControlByte => "control byte in a head",
            Self::RequestLine => "malformed request line",
            Self::StatusLine => "malformed status line",
            Self::Target => "malformed request target",
            Self::Version => "version is neither HTTP/1.0 nor HTTP/1.1",
            Self::ObsFold => "folded header line",
            Self::SpaceBeforeColon => "space before the colon of a header",
            Self::Name => "malformed header name",
            Self::HostMissing => "no Host header",
            Self::HostRepeated => "more than one Host header",
            Self::Host => "malformed Host header",
            Self::ContentLength => "malformed Content-Length",
            Self::ContentLengthRepeated => "more than one Content-Length",
            Self::TransferEncoding => "transfer coding other than chunked",
            Self::TransferEncodingRepeated => "more than one Transfer-Encoding",
            Self::TransferEncodingInHttp10 => "Transfer-Encoding in HTTP/1.0",
            Self::TransferEncodingWithLength => "both Transfer-Encoding and Content-Length",
        }
    }
}

impl core::fmt::Display for HeadError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for HeadError {}

fn judge_request(head: &[u8], limits: &Limits) -> Result<(), HeadError> {
    count_work(head.len());
    let (line, section) = first_line(head);
    let Some((method, target, version)) = grammar::request_line(line) else {
        let last = line.rsplit(|b| *b == b' ').next().unwrap_or_default();
        return Err(bad_line(line, last, HeadError::RequestLine));
    };
    if target.len() > limits.max_target {
        return Err(HeadError::TargetTooLong);
    }
    if !is_target(ascii(method), ascii(target)) {
        return Err(HeadError::Target);
    }
    let seen = Seen::in_section(section, limits)?;
    // RFC 9112 section 3.2 judges the `Host` of requests; in a response the field has no meaning.
    if seen.bad_host {
        return Err(HeadError::Host);
    }
    match seen.hosts {
        0 if version == Version::Http11 => return Err(HeadError::HostMissing),
        0 | 1 => {}
        _ => return Err(HeadError::HostRepeated),
    }
    seen.framing(version)
}

/// Judges a response's head and says its status.
fn judge_response(head: &[u8], limits: &Limits) -> Result<u16, HeadError> {
    count_work(head.len());
    let (line, section) = first_line(head);
    let Some((version, status, _)) = grammar::status_line(line) else {
        let first = line.split(|b| *b == b' ').next().unwrap_or_default();
        return Err(bad_line(line, first, HeadError::StatusLine));
    };
    let status = decimal(status).and_then(|n| u16::try_from(n).ok()).unwrap_or_default();
    if !(100..600).contains(&status) {
        return Err(HeadError::StatusLine);
    }
    Seen::in_section(section, limits)?.framing(version)?;
    Ok(status)
}

/// What is wrong with a first line.
fn bad_line(line: &[u8], version: &[u8], otherwise: HeadError) -> HeadError {
    match line.iter().find(|b| !is_field_byte(**b)) {
        Some(b'\r') => HeadError::BareCr,
        Some(_) => HeadError::ControlByte,
        None if is_other_version(version) => HeadError::Version,
        None => otherwise,
    }
}

/// The four forms of RFC 9112 section 3.2. No form has a fragment.
fn is_target(method: &str, target: &str) -> bool {
    let form = match target_parts(method, target) {
        (Some(authority), _) => !authority.is_empty() && is_host(authority.as_bytes()),
        (None, "*") => method == "OPTIONS",
        (None, path) => path.starts_with('/'),
    };
    form && target.bytes().all(grammar::is_target_char)
}

/// The header fields on which it depends where a message ends and whom it is for.
#[derive(Default)]
struct Seen {
    hosts: usize,
    bad_host: bool,
    lengths: usize,
    codings: usize,
}

impl Seen {
    fn in_section(section: &[u8], limits: &Limits) -> Result<Self, HeadError> {
        let mut seen = Self::default();
        for line in lines(section) {
            let (name, value) = judge_field(line, limits)?;
            if name.eq_ignore_ascii_case(b"host") {
                seen.hosts += 1;
                seen.bad_host |= !is_host(value);
            } else if name.eq_ignore_ascii_case(b"content-length") {
                seen.lengths += 1;
                if decimal(value).is_none() {
                    return Err(HeadError::ContentLength);
                }
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                seen.codings += 1;
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError::TransferEncoding);
                }
            }
        }
        Ok(seen)
    }

    fn framing(&self, version: Version) -> Result<(), HeadError> {
        match (self.codings, self.lengths) {
            (2.., _) => Err(HeadError::TransferEncodingRepeated),
            (_, 2..) => Err(HeadError::ContentLengthRepeated),
            (1, 1) => Err(HeadError::TransferEncodingWithLength),
            (1, _) if version == Version::Http10 => Err(HeadError::TransferEncodingInHttp10),
            _ => Ok(()),
        }
    }
}

fn judge_field<'b>(line: &'b [u8], limits: &Limits) -> Result<(&'b [u8], &'b [u8]), HeadError> {
    let Some((name, value)) = grammar::field_line(line) else {
        let mut after = line.iter().skip_while(|b| is_tchar(**b));
        return Err(match (line.first(), after.next()) {
            (Some(first), _) if is_ows(*first) => HeadError::ObsFold,
            (_, Some(b'\r')) => HeadError::BareCr,
            (_, Some(b)) if is_ows(*b) => HeadError::SpaceBeforeColon,
            (_, Some(b)) if !is_field_byte(*b) => HeadError::ControlByte,
            _ => HeadError::Name,
        });
    };
    match value.iter().find(|b| !is_field_byte(**b)) {
        Some(b'\r') => Err(HeadError::BareCr),
        Some(_) => Err(HeadError::ControlByte),
        None if name.len() > limits.max_name => Err(HeadError::NameTooLong),
        None if value.len() > limits.max_value => Err(HeadError::ValueTooLong),
        None => Ok((name, value)),
    }
}

/// An offset within a receive buffer, which uses at most `u32::MAX` bytes.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Counts bytes that are looked at, for the tests that show that the work is linear.
fn count_work(_bytes: usize) {
    #[cfg(test)]
    tests::EXAMINED.with(|sum| sum.set(sum.get() + _bytes));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::RxCursor;
    use core::cell::Cell;
    use std::{thread_local, vec};

    thread_local! {
        pub(super) static EXAMINED: Cell<usize> = const { Cell::new(0) };
    }

    /// Feeds `wire` byte by byte until the reader says something other than "more", and returns that, the
    /// bytes fed and the bytes examined.
    fn drip(
        wire: impl Iterator<Item = u8>,
        limits: &Limits,
    ) -> (Result<Step<RequestHead>, HeadError>, usize, usize) {
        let (mut bytes, mut cursor) = (vec![0; limits.max_head.min(1 << 21) + 8], RxCursor::default());
        let mut rx = RxBuf::new(&mut bytes, &mut cursor);
        let mut reader = HeadReader::default();
        EXAMINED.with(|sum| sum.set(0));
        let mut fed = 0;
        for b in wire {
            rx.fill(&[b]);
            fed += 1;
            let step = reader.poll_request(&mut rx, limits);
            if step != Ok(Step::NeedInput) {
                return (step, fed, EXAMINED.with(Cell::get));
            }
        }
        (Ok(Step::NeedInput), fed, EXAMINED.with(Cell::get))
    }

    #[test]
    fn cve_2023_43669_a_long_header_byte_by_byte_costs_linear_work() {
        // One header of 1 MiB, with limits that let it pass: searched once, parsed once.
        let wide = Limits { max_head: 2 << 20, max_value: 2 << 20, ..Limits::DEFAULT };
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".iter().copied();
        let wire = head.clone().chain(core::iter::repeat_n(b'x', 1 << 20)).chain(*b"\r\n\r\n");
        let (step, fed, examined) = drip(wire.clone(), &wide);
        assert!(matches!(step, Ok(Step::Head(head)) if head.len() == fed), "{step:?}");
        assert_eq!(examined, 2 * fed);
        // The default cuts it at the limit.
        let (step, fed, examined) = drip(wire, &Limits::DEFAULT);
        assert_eq!((step, fed), (Err(HeadError::TooLong), 8192));
        assert!(examined <= fed);
        // The same in a single line, and in many.
        let wire = core::iter::repeat_n(b'x', 1 << 20);
        assert_eq!(drip(wire, &Limits::DEFAULT).0, Err(HeadError::TargetTooLong));
        let wire = head.chain(b"\r\nX: ".repeat(1 << 18));
        let (step, fed, examined) = drip(wire, &wide);
        assert_eq!(step, Err(HeadError::TooManyHeaders));
        assert!(examined <= fed && fed < 65 * 5 + 64);
    }
}
