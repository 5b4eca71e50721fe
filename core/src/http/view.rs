//! Views of a head that was found to be well formed: nothing is stored, the lines are walked when asked.

use super::grammar::{ascii, cut, elements, split_once, trim_ows};
use crate::digits::decimal;

/// The versions of HTTP that this module speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Version {
    /// HTTP/1.0: one exchange a connection unless both ask for more, no chunked coding, no upgrade.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// The header fields of a head, in their order. Copying it copies a pointer.
///
/// Each look-up walks the lines, of which [`Limits`](super::head::Limits) bounds number and length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'b> {
    lines: &'b [u8],
}

impl<'b> Headers<'b> {
    /// Names and values, in order of arrival. Values come without the space around them, and may hold bytes
    /// that are not ASCII (`obs-text`), but no control byte except the tab.
    pub fn iter(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> + Clone + use<'b> {
        self.fields().map(|(name, value)| (ascii(name), trim_ows(value)))
    }

    /// Names and what follows their colon. The lines were judged when the head was whole, by the grammar of
    /// RFC 9112 section 5; so here the first colon ends the name.
    fn fields(&self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> + Clone + use<'b> {
        lines(self.lines).filter_map(|line| split_once(line, b':'))
    }

    /// The values of all fields of this name, whatever its case.
    pub fn get_all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'b [u8]> + Clone + use<'b, 'n> {
        self.fields()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| trim_ows(value))
    }

    /// The value of the first field of this name.
    pub fn get(&self, name: &str) -> Option<&'b [u8]> {
        self.get_all(name).next()
    }

    /// The value of the first field of this name, as text. `None` also when it is not UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&'b str> {
        self.get(name).and_then(|value| core::str::from_utf8(value).ok())
    }

    /// The value of the only field of this name; `Err` when there are several. For fields that two readers must
    /// not see differently, such as `Origin` or `Authorization`.
    pub fn get_only(&self, name: &str) -> Result<Option<&'b [u8]>, Repeated> {
        let mut values = self.get_all(name);
        let first = values.next();
        if values.next().is_some() { Err(Repeated) } else { Ok(first) }
    }

    /// The elements of all fields of this name, which are comma-separated lists, in order. Quoted strings are
    /// not looked for.
    pub fn list<'n>(&self, name: &'n str) -> impl Iterator<Item = &'b [u8]> + Clone + use<'b, 'n> {
        self.get_all(name).flat_map(elements)
    }

    /// Whether such a list has this token, whatever its case: `has_token("Connection", "upgrade")`.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        // Not by `list`: flattening takes a device a quarter of a kilobyte of code.
        let is_token = |element: &[u8]| element.eq_ignore_ascii_case(token.as_bytes());
        self.get_all(name).any(|list| elements(list).any(is_token))
    }

    /// `Content-Length`, of which a well-formed head has at most one.
    pub fn content_length(&self) -> Option<u64> {
        self.get("content-length").and_then(decimal)
    }

    /// Whether the body is chunked: no other transfer coding is accepted in a head.
    pub fn is_chunked(&self) -> bool {
        self.get("transfer-encoding").is_some()
    }

    /// Whether the connection goes on after this message and its answer (RFC 9112 section 9.3).
    fn keeps_alive(&self, version: Version) -> bool {
        match version {
            _ if self.has_token("connection", "close") => false,
            Version::Http11 => true,
            Version::Http10 => self.has_token("connection", "keep-alive"),
        }
    }
}

/// More fields of a name than the one that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Repeated;

impl core::fmt::Display for Repeated {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("a header that may occur once occurs more than once")
    }
}

impl core::error::Error for Repeated {}

/// A request's head, as [`RequestHead::view`](super::head::RequestHead::view) shows it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'b> {
    method: &'b str,
    target: &'b str,
    version: Version,
    headers: Headers<'b>,
}

impl<'b> Request<'b> {
    /// Of the bytes of a head that was found to be well formed.
    pub(super) fn of(head: &'b [u8]) -> Self {
        let (line, lines) = first_line(head);
        let mut parts = line.split(|b| *b == b' ').map(ascii);
        let (method, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let version = if line.ends_with(b".0") { Version::Http10 } else { Version::Http11 };
        Self { method, target, version, headers: Headers { lines } }
    }

    /// The method, whose case matters: `GET`.
    pub fn method(&self) -> &'b str {
        self.method
    }

    /// The request target as it was sent: visible ASCII without `#`, in one of the four forms of RFC 9112
    /// section 3.2.
    pub fn target(&self) -> &'b str {
        self.target
    }

    /// The version of HTTP.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The header fields.
    pub fn headers(&self) -> Headers<'b> {
        self.headers
    }

    /// The value of the first field of this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.headers.get(name)
    }

    /// The target's path, still percent-encoded (see [`query`](super::query)): `/v1/stream`. Empty for
    /// `CONNECT`.
    pub fn path(&self) -> &'b str {
        let (path, _) = self.path_and_query();
        path
    }

    /// What follows the first `?` of the target, still percent-encoded.
    pub fn query(&self) -> Option<&'b str> {
        let (_, query) = self.path_and_query();
        query
    }

    /// Whom the request is for: the authority in the target when it has one (RFC 9112 section 3.2.2: then
    /// `Host` is ignored), `Host` otherwise. Empty when a request of HTTP/1.0 names nobody.
    pub fn authority(&self) -> &'b str {
        match self.target_parts() {
            (Some(authority), _) => authority,
            (None, _) => self.headers.get("host").map(ascii).unwrap_or_default(),
        }
    }

    /// Whether the client will send another request on this connection (RFC 9112 section 9.3).
    pub fn keeps_alive(&self) -> bool {
        self.headers.keeps_alive(self.version)
    }

    fn path_and_query(&self) -> (&'b str, Option<&'b str>) {
        let (_, rest) = self.target_parts();
        match cut(rest, b'?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        }
    }

    /// The authority, when the target has one, and what follows it.
    fn target_parts(&self) -> (Option<&'b str>, &'b str) {
        target_parts(self.method, self.target)
    }
}

/// Takes a request target apart: the authority, when there is one, and what follows it.
pub(super) fn target_parts<'b>(method: &str, target: &'b str) -> (Option<&'b str>, &'b str) {
    if method == "CONNECT" {
        return (Some(target), "");
    }
    if target.starts_with('/') {
        return (None, target);
    }
    match cut(target, b':').and_then(|(scheme, rest)| Some((scheme, rest.strip_prefix("//")?))) {
        Some((scheme, rest)) if is_scheme(scheme) => {
            let end = rest.bytes().position(|b| matches!(b, b'/' | b'?'));
            match end.and_then(|end| rest.split_at_checked(end)) {
                Some((authority, path)) => (Some(authority), path),
                None => (Some(rest), "/"),
            }
        }
        _ => (None, target),
    }
}

/// RFC 3986 section 3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// A response's head, as [`ResponseHead::view`](super::head::ResponseHead::view) shows it.
#[derive(Clone, Copy, Debug)]
pub struct Response<'b> {
    version: Version,
    status: u16,
    reason: &'b [u8],
    headers: Headers<'b>,
}

impl<'b> Response<'b> {
    /// Of the bytes of a head that was found to be well formed.
    pub(super) fn of(head: &'b [u8]) -> Self {
        let (line, lines) = first_line(head);
        let (version, rest) = split_once(line, b' ').unwrap_or_default();
        let (digits, reason) = split_once(rest, b' ').unwrap_or((rest, &[]));
        let version = if version.ends_with(b".0") { Version::Http10 } else { Version::Http11 };
        let status = decimal(digits).and_then(|status| u16::try_from(status).ok()).unwrap_or_default();
        Self { version, status, reason, headers: Headers { lines } }
    }

    /// The status code, from 100 to 599.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase, which says nothing that may be relied on.
    pub fn reason(&self) -> &'b [u8] {
        self.reason
    }

    /// The version of HTTP.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The header fields.
    pub fn headers(&self) -> Headers<'b> {
        self.headers
    }

    /// The value of the first field of this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.headers.get(name)
    }

    /// `Retry-After` in seconds (RFC 9110 section 10.2.3). `None` also for its other form, a date: nobody
    /// here has a calendar.
    pub fn retry_after(&self) -> Option<u64> {
        self.headers.get("retry-after").and_then(decimal)
    }

    /// Whether the server will take another request on this connection (RFC 9112 section 9.3).
    pub fn keeps_alive(&self) -> bool {
        self.headers.keeps_alive(self.version)
    }
}

/// The first line of a head without its end, and the lines behind it.
pub(super) fn first_line(head: &[u8]) -> (&[u8], &[u8]) {
    let (line, rest) = split_once(head, b'\n').unwrap_or((head, &[]));
    (line.strip_suffix(b"\r").unwrap_or(line), rest)
}

/// The lines up to the empty one, without their ends.
pub(super) fn lines(section: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    section
        .split(|b| *b == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .take_while(|line| !line.is_empty())
}
