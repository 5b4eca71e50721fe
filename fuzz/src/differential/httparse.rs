//! Heads of requests and responses, against httparse.

use super::{Known, words};
use httparse::{EMPTY_HEADER, Header, Status};
use longwire_core::buf::{RxBuf, RxCursor};
use longwire_core::http::head::{HeadError, HeadReader, Limits, Step};
use longwire_core::http::view::{Headers, Version};
use std::ops::Range;

pub(super) const KNOWN: &[&Known] =
    &[&EMPTY_LINES, &BARE_LF, &JUDGED_WHEN_WHOLE, &TARGET, &HOST, &FRAMING, &STATUS, &REASON, &INTERIM];

const EMPTY_LINES: Known = Known {
    input: "empty lines before a head: several, or before a response",
    longwire: "refuses them (one before a request is ignored)",
    peer: "ignores them",
    standard: "RFC 9112 2.2: a server SHOULD ignore at least one before a request; of more, and of clients, it says nothing",
};

const BARE_LF: Known = Known {
    input: "a line that ends in LF without CR",
    longwire: "refuses it",
    peer: "takes it",
    standard: "RFC 9112 2.2: a recipient MAY recognise it",
};

const JUDGED_WHEN_WHOLE: Known = Known {
    input: "a malformed head that is not whole",
    longwire: "judges it when it is whole, or too long; and refuses it then",
    peer: "refuses it at the byte that is wrong",
    standard: "RFC 9112 says nothing of when",
};

const TARGET: Known = Known {
    input: "a request target in none of the four forms, or with what stands in no URI",
    longwire: "refuses it",
    peer: "takes any visible characters",
    standard: "RFC 9112 3.2, RFC 3986 appendix A",
};

const HOST: Known = Known {
    input: "no Host in a request of HTTP/1.1, several, or one that is no host",
    longwire: "refuses it with 400",
    peer: "leaves the meaning of fields to its caller",
    standard: "RFC 9112 3.2: a server MUST respond with 400",
};

const FRAMING: Known = Known {
    input: "Content-Length or Transfer-Encoding that is malformed, repeated, or in conflict",
    longwire: "refuses it",
    peer: "leaves the meaning of fields to its caller",
    standard: "RFC 9112 6.1 and 6.3; that equal lengths are refused, too, is our choice",
};

const STATUS: Known = Known {
    input: "a status from 000 to 099, or from 600",
    longwire: "refuses it",
    peer: "takes three digits",
    standard: "RFC 9110 15: outside 100 to 599 is invalid",
};

const REASON: Known = Known {
    input: "a reason phrase with bytes that are not ASCII",
    longwire: "shows them",
    peer: "shows an empty reason",
    standard: "RFC 9112 4: reason phrases may have obs-text, and say nothing that may be relied on",
};

const INTERIM: Known = Known {
    input: "more than eight interim responses",
    longwire: "refuses the ninth",
    peer: "leaves them to its caller, which passes over any number here",
    standard: "RFC 9110 15.2: one or more; a bound is our choice",
};

/// What a fuzzer should find soon.
const WORDS: &[&[u8]] = &[
    b"GET ",
    b"OPTIONS ",
    b"CONNECT ",
    b"GET / HTTP/1.1\r\n",
    b"Host: a\r\n",
    b"\r\n",
    b"\r",
    b"\n",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 ",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 ",
    b"Content-Length: ",
    b"Transfer-Encoding: ",
    b"chunked\r\n",
    b"http://",
    b"Host: ",
    b": ",
    b"\t",
    b"\0",
    b"\x7f",
    b"Upgrade: websocket\r\n",
    b"a: b\r\n",
    b" ",
    b"#",
    b"*",
    b"[::1]:80",
    b"18446744073709551616",
    b"\xc3\xa9",
    b"\xe9",
];

const MAX_HEADERS: usize = 8;
/// As longwire's reader.
const MAX_INTERIM: usize = 8;
const LONGEST: usize = 4096;

/// What is made of a wire.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    NotWhole,
    Refused,
    Head { line: Line, fields: Vec<(String, Vec<u8>)>, behind: Vec<u8> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Request { method: String, target: String, minor: u8 },
    Response { minor: u8, status: u16, reason: Vec<u8> },
}

pub(super) fn compare(data: &[u8]) -> Vec<&'static Known> {
    let Some((&flags, text)) = data.split_first() else { return Vec::new() };
    let mut wire = words(text, WORDS);
    wire.truncate(LONGEST);
    let responses = flags & 1 != 0;
    let mut met = Vec::new();
    loop {
        let (mut ours, error) = longwire(responses, &wire);
        let (theirs, heads) = peer(responses, &wire);
        if as_theirs(&mut ours) && ours == theirs {
            met.push(&REASON);
        }
        if ours == theirs {
            return met;
        }
        let case = Case { responses, wire: &wire, theirs: &theirs, heads: &heads };
        let found = error.and_then(|error| case.refused(error)).or_else(|| case.refused_later(&ours));
        let Some((known, repaired)) = found else {
            panic!("longwire {ours:?} {error:?}, peer {theirs:?}, {}", wire.escape_ascii())
        };
        met.push(known);
        assert!(met.len() < 2 * LONGEST, "an explanation that explains nothing");
        match repaired {
            Some(repaired) => wire = repaired,
            None => return met,
        }
    }
}

/// Takes out of a head what the peer does not show, and says whether there was such.
fn as_theirs(verdict: &mut Verdict) -> bool {
    match verdict {
        Verdict::Head { line: Line::Response { reason, .. }, .. } if !reason.is_ascii() => {
            reason.clear();
            true
        }
        _ => false,
    }
}

/// Where a head lies, and what the peer says of it.
struct Head<'b> {
    start: usize,
    end: usize,
    minor: u8,
    method: &'b str,
    target: &'b str,
    status: Option<u16>,
    fields: Vec<Header<'b>>,
}

impl<'b> Head<'b> {
    /// As longwire passes over it.
    fn is_interim(&self) -> bool {
        self.status.is_some_and(|status| (100..200).contains(&status) && status != 101)
    }

    fn all(&self, name: &str) -> Vec<Header<'b>> {
        self.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).copied().collect()
    }
}

/// A difference, to be explained.
struct Case<'a> {
    responses: bool,
    wire: &'a [u8],
    theirs: &'a Verdict,
    /// The interim responses, and the head behind them.
    heads: &'a [Head<'a>],
}

/// A cause, and the wire without it; or nothing, when there is nothing to compare behind it.
type Found = Option<(&'static Known, Option<Vec<u8>>)>;

impl Case<'_> {
    /// longwire has refused what the peer has not.
    fn refused(&self, error: HeadError) -> Found {
        use HeadError as E;
        if *self.theirs == Verdict::Refused {
            return None;
        }
        match error {
            E::RequestLine | E::StatusLine | E::BareLf if !self.empty_lines().is_empty() => {
                let lines = self.empty_lines();
                Some((&EMPTY_LINES, Some(self.with(lines.start, lines.len(), b""))))
            }
            E::BareLf => Some((&BARE_LF, Some(self.with_crlf()))),
            E::Target | E::RequestLine => self.target(),
            E::HostMissing | E::HostRepeated | E::Host => self.host(),
            E::StatusLine => self.status(),
            E::TooManyInterim => (self.heads.len() > MAX_INTERIM).then_some((&INTERIM, None)),
            E::ContentLength
            | E::ContentLengthRepeated
            | E::TransferEncoding
            | E::TransferEncodingRepeated
            | E::TransferEncodingInHttp10
            | E::TransferEncodingWithLength => self.framing(),
            _ => None,
        }
    }

    /// The peer has refused what longwire still waits for: it has to refuse it when it is whole.
    fn refused_later(&self, ours: &Verdict) -> Found {
        if (ours, self.theirs) != (&Verdict::NotWhole, &Verdict::Refused) {
            return None;
        }
        let end: &[u8] = if self.wire.ends_with(b"\r") { b"\n\r\n" } else { b"\r\n\r\n" };
        let whole = [self.wire, end].concat();
        use HeadError as E;
        // What is said of all fields together comes behind what the peer looks at, and would prove nothing.
        let (_, error) = longwire(self.responses, &whole);
        let by_line = matches!(
            error?,
            E::RequestLine
                | E::StatusLine
                | E::Version
                | E::Target
                | E::BareLf
                | E::BareCr
                | E::ControlByte
                | E::ObsFold
                | E::SpaceBeforeColon
                | E::Name
                | E::TooManyHeaders
                | E::ContentLength
                | E::TransferEncoding
        );
        by_line.then_some((&JUDGED_WHEN_WHOLE, None))
    }

    /// Where there are empty lines before a head; not the one that a request may have.
    fn empty_lines(&self) -> Range<usize> {
        for start in
            [0].into_iter().chain(self.heads.iter().filter(|head| head.is_interim()).map(|head| head.end))
        {
            let mut end = start;
            while let Some(line) =
                [&b"\r\n"[..], b"\n"].iter().find(|line| self.wire[end..].starts_with(line))
            {
                end += line.len();
            }
            if end > start && (self.responses || &self.wire[start..end] != b"\r\n") {
                return start..end;
            }
        }
        0..0
    }

    fn with_crlf(&self) -> Vec<u8> {
        let mut wire = Vec::new();
        for byte in self.wire {
            if *byte == b'\n' && wire.last() != Some(&b'\r') {
                wire.push(b'\r');
            }
            wire.push(*byte);
        }
        wire
    }

    fn target(&self) -> Found {
        let head = self.heads.first()?;
        if is_target(head.method, head.target) {
            return None;
        }
        let at = self.offset(head.target.as_bytes());
        let valid: &[u8] = if head.method == "CONNECT" { b"a:1" } else { b"/" };
        Some((&TARGET, Some(self.with(at, head.target.len(), valid))))
    }

    fn status(&self) -> Found {
        let head = self.heads.iter().find(|head| head.status.is_some_and(|n| !(100..600).contains(&n)))?;
        Some((&STATUS, Some(self.with(head.start + b"HTTP/1.1 ".len(), 3, b"200"))))
    }

    fn host(&self) -> Found {
        let head = self.heads.first()?;
        let wire = match head.all("host")[..] {
            [] if head.minor == 1 => self.with(self.section(head)?, 0, b"Host: a\r\n"),
            [host] if !host.value.iter().all(|b| is_host_byte(*b)) => {
                self.with(self.offset(host.value), host.value.len(), b"a")
            }
            // The second one becomes something else.
            [_, host, ..] => self.with(self.offset(host.name.as_bytes()), 1, b"x"),
            _ => return None,
        };
        Some((&HOST, Some(wire)))
    }

    fn framing(&self) -> Found {
        for head in self.heads {
            let (lengths, codings) = (head.all("content-length"), head.all("transfer-encoding"));
            let is_length = |value: &[u8]| {
                str::from_utf8(value).is_ok_and(|text| !text.starts_with('+') && text.parse::<u64>().is_ok())
            };
            let malformed = lengths.iter().any(|field| !is_length(field.value))
                || codings.iter().any(|field| !field.value.eq_ignore_ascii_case(b"chunked"));
            let in_conflict = lengths.len() + codings.len() > 1 || !codings.is_empty() && head.minor == 0;
            if malformed || in_conflict {
                let field = codings.first().or(lengths.first())?;
                return Some((&FRAMING, Some(self.with(self.offset(field.name.as_bytes()), 1, b"x"))));
            }
        }
        None
    }

    /// Where a part of the wire begins.
    fn offset(&self, part: &[u8]) -> usize {
        part.as_ptr().addr() - self.wire.as_ptr().addr()
    }

    /// Where the fields of a head begin.
    fn section(&self, head: &Head<'_>) -> Option<usize> {
        let line = self.wire[head.start..].iter().position(|byte| *byte == b'\n')?;
        Some(head.start + line + 1)
    }

    /// The wire with something else in the place of `len` bytes.
    fn with(&self, at: usize, len: usize, other: &[u8]) -> Vec<u8> {
        [&self.wire[..at], other, &self.wire[at + len..]].concat()
    }
}

/// RFC 3986 section 3.2.2 and 3.2.3, by its characters.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}

/// RFC 9112 section 3.2, and what RFC 3986 has no place for.
fn is_target(method: &str, target: &str) -> bool {
    let is_authority = |text: &str| !text.is_empty() && text.bytes().all(is_host_byte);
    if !target.bytes().all(|b| b.is_ascii_graphic() && !b"#\"<>".contains(&b)) {
        return false;
    }
    if method == "CONNECT" {
        return is_authority(target);
    }
    if target.starts_with('/') || target == "*" && method == "OPTIONS" {
        return true;
    }
    let Some((scheme, rest)) = target.split_once("://") else { return false };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        && is_authority(authority)
}

fn longwire(responses: bool, wire: &[u8]) -> (Verdict, Option<HeadError>) {
    let (mut bytes, mut cursor) = (vec![0; wire.len() + 1], RxCursor::default());
    let mut rx = RxBuf::new(&mut bytes, &mut cursor);
    rx.fill(wire);
    let large = 4 * LONGEST;
    let limits = Limits {
        max_head: large,
        max_headers: MAX_HEADERS,
        max_name: large,
        max_value: large,
        max_target: large,
    };
    let mut reader = HeadReader::default();
    let line = if responses {
        reader.poll_response(&mut rx, &limits).map(|step| {
            map(step, |head| {
                let view = head.view(rx.reborrow());
                let (status, reason) = (view.status(), view.reason().into());
                (Line::Response { minor: minor(view.version()), status, reason }, fields(view.headers()))
            })
        })
    } else {
        reader.poll_request(&mut rx, &limits).map(|step| {
            map(step, |head| {
                let view = head.view(rx.reborrow());
                let (method, target) = (view.method().into(), view.target().into());
                (Line::Request { method, target, minor: minor(view.version()) }, fields(view.headers()))
            })
        })
    };
    match line {
        Ok(Some((line, fields))) => (Verdict::Head { line, fields, behind: rx.unread().into() }, None),
        Ok(None) => (Verdict::NotWhole, None),
        Err(error) => (Verdict::Refused, Some(error)),
    }
}

fn map<H, T>(step: Step<H>, read: impl FnOnce(H) -> T) -> Option<T> {
    match step {
        Step::Head(head) => Some(read(head)),
        Step::NeedInput => None,
        Step::NeedSpace(_) => panic!("there is a byte of space"),
    }
}

fn minor(version: Version) -> u8 {
    match version {
        Version::Http10 => 0,
        Version::Http11 => 1,
    }
}

fn fields(headers: Headers<'_>) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// The peer's verdict, and its heads: interim responses are passed over, as longwire does.
fn peer(responses: bool, wire: &[u8]) -> (Verdict, Vec<Head<'_>>) {
    let (mut heads, mut at) = (Vec::new(), 0);
    loop {
        let (result, head) = if responses { response(&wire[at..]) } else { request(&wire[at..]) };
        let len = match result {
            Ok(Status::Complete(len)) => len,
            Ok(Status::Partial) => return (Verdict::NotWhole, heads),
            Err(_) => return (Verdict::Refused, heads),
        };
        let Some((mut head, line)) = head else { panic!("a head without a line") };
        let empty = wire[at..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        (head.start, head.end) = (at + empty, at + len);
        at += len;
        let interim = head.is_interim();
        let fields = head.fields.iter().map(|field| (field.name.into(), field.value.into())).collect();
        heads.push(head);
        if !interim {
            return (Verdict::Head { line, fields, behind: wire[at..].into() }, heads);
        }
    }
}

type Parsed<'b> = (httparse::Result<usize>, Option<(Head<'b>, Line)>);

fn request(wire: &[u8]) -> Parsed<'_> {
    let mut fields = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut fields);
    let result = request.parse(wire);
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return (result, None);
    };
    let line = Line::Request { method: method.into(), target: target.into(), minor };
    let fields = request.headers.to_vec();
    (result, Some((Head { start: 0, end: 0, minor, method, target, status: None, fields }, line)))
}

fn response(wire: &[u8]) -> Parsed<'_> {
    let mut fields = [EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut fields);
    let result = response.parse(wire);
    let (Some(minor), Some(status), Some(reason)) = (response.version, response.code, response.reason) else {
        return (result, None);
    };
    let line = Line::Response { minor, status, reason: reason.as_bytes().into() };
    let fields = response.headers.to_vec();
    (
        result,
        Some((Head { start: 0, end: 0, minor, method: "", target: "", status: Some(status), fields }, line)),
    )
}
