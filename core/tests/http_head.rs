//! Heads: what is read, what is refused, and that neither depends on how the bytes were cut.

#![expect(clippy::panic, clippy::indexing_slicing, reason = "a test may panic, also in its helpers")]

use longwire_core::buf::{RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::http::head::{HeadError, HeadReader, Limits, RequestHead, Step};
use longwire_core::http::view::{Headers, Repeated, Request, Version};
use longwire_core::http::write;
use proptest::prelude::*;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Request,
    Response,
}

/// Polls once, and shows a head that was found.
fn poll(
    kind: Kind,
    reader: &mut HeadReader,
    rx: &mut RxBuf<'_>,
    limits: &Limits,
) -> Result<Step<String>, HeadError> {
    let step = match kind {
        Kind::Request => match reader.poll_request(rx, limits)? {
            Step::Head(head) => {
                let r = head.view(rx.reborrow());
                let shown =
                    format!("{} {} {:?} {:?}", r.method(), r.target(), r.version(), fields(r.headers()));
                head.release(rx);
                Step::Head(shown)
            }
            Step::NeedInput => Step::NeedInput,
            Step::NeedSpace(n) => Step::NeedSpace(n),
        },
        // Not released: the next poll has to do it.
        Kind::Response => match reader.poll_response(rx, limits)? {
            Step::Head(head) => {
                let r = head.view(rx.reborrow());
                let reason = String::from_utf8_lossy(r.reason()).into_owned();
                Step::Head(format!("{:?} {} {reason:?} {:?}", r.version(), r.status(), fields(r.headers())))
            }
            Step::NeedInput => Step::NeedInput,
            Step::NeedSpace(n) => Step::NeedSpace(n),
        },
    };
    Ok(step)
}

fn fields(headers: Headers<'_>) -> Vec<(&str, String)> {
    headers.iter().map(|(n, v)| (n, String::from_utf8_lossy(v).into_owned())).collect()
}

/// Everything that a reader says about a wire that comes in these pieces, with a buffer of this size: each
/// head, then the error or what is left unread.
fn transcript<'w>(
    kind: Kind,
    pieces: impl IntoIterator<Item = &'w [u8]>,
    capacity: usize,
    limits: &Limits,
) -> Vec<String> {
    let (mut bytes, mut cursor) = (vec![0; capacity], RxCursor::default());
    let mut rx = RxBuf::new(&mut bytes, &mut cursor);
    let (mut reader, mut said) = (HeadReader::default(), Vec::new());
    for mut piece in pieces {
        while !piece.is_empty() {
            piece = &piece[rx.fill(piece)..];
            loop {
                match poll(kind, &mut reader, &mut rx, limits) {
                    Ok(Step::Head(head)) => said.push(head),
                    Ok(Step::NeedInput) => break,
                    Ok(Step::NeedSpace(n)) => {
                        assert!(rx.is_full() && n > capacity && n <= limits.max_head.max(2));
                        said.push("needs space".into());
                        return said;
                    }
                    Err(error) => {
                        assert_eq!(poll(kind, &mut reader, &mut rx, limits), Err(error), "the error stays");
                        said.push(format!("{error:?}"));
                        return said;
                    }
                }
            }
        }
    }
    said.push(format!("unread {:?}", String::from_utf8_lossy(rx.unread())));
    said
}

fn judge(kind: Kind, wire: &[u8], limits: &Limits) -> Vec<String> {
    transcript(kind, [wire], 16384, limits)
}

/// What the whole wire says, every split in two says, and so do its single bytes, in buffers of several
/// sizes. Returns what that is.
fn every_split(kind: Kind, wire: &[u8], limits: &Limits) -> Vec<String> {
    let whole = judge(kind, wire, limits);
    let smallest = largest_head(wire).min(limits.max_head);
    for capacity in [smallest, smallest + 1, smallest + 7, 8192] {
        for at in 0..=wire.len() {
            let (a, b) = wire.split_at(at);
            assert_eq!(
                transcript(kind, [a, b], capacity, limits),
                whole,
                "cut at {at}, {capacity} bytes of buffer"
            );
        }
        assert_eq!(transcript(kind, wire.chunks(1), capacity, limits), whole, "{capacity} bytes of buffer");
    }
    whole
}

/// Room that is enough for each head in a wire, and for what is left behind the last one.
fn largest_head(wire: &[u8]) -> usize {
    let (mut largest, mut start) = (2, 0);
    for at in 0..wire.len() {
        if wire[..=at].ends_with(b"\r\n\r\n") {
            (largest, start) = (largest.max(at + 1 - start), at + 1);
        }
    }
    largest.max(wire.len() - start + 1)
}

/// Reads the one request in a wire.
fn read_request<'b>(bytes: &'b mut [u8], cursor: &'b mut RxCursor, wire: &[u8]) -> (RequestHead, RxBuf<'b>) {
    let mut rx = RxBuf::new(bytes, cursor);
    assert_eq!(rx.fill(wire), wire.len());
    let step = HeadReader::default()
        .poll_request(&mut rx, &Limits { max_value: 1 << 17, max_head: 1 << 20, ..Limits::DEFAULT });
    let Ok(Step::Head(head)) = step else { panic!("{step:?}") };
    (head, rx)
}

#[test]
fn requests_are_read() {
    let wire = b"\r\nGET /v1/stream?topic=fleet/**&since=now HTTP/1.1\r\nHost: example.org:8080\r\naccept:text/event-stream\r\n\
        X-Empty:\r\nX-Space: \t a b \t\r\nX-Text: caf\xc3\xa9\r\n\r\nOPTIONS * HTTP/1.0\r\n\r\nGET /";
    assert_eq!(
        every_split(Kind::Request, wire, &Limits::default()),
        [
            "GET /v1/stream?topic=fleet/**&since=now Http11 [(\"Host\", \"example.org:8080\"), (\"accept\", \
             \"text/event-stream\"), (\"X-Empty\", \"\"), (\"X-Space\", \"a b\"), (\"X-Text\", \"caf\u{e9}\")]",
            "OPTIONS * Http10 []",
            "unread \"GET /\"",
        ]
    );
}

#[test]
fn responses_are_read_and_interim_ones_passed_over() {
    let wire = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 \r\nA: b\r\n\r\n\
        HTTP/1.0 404\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x02hi";
    let limits = Limits::default();
    assert_eq!(
        every_split(Kind::Response, wire, &limits),
        [
            "Http11 200 \"\" [(\"A\", \"b\")]",
            "Http10 404 \"\" []",
            "Http11 101 \"Switching Protocols\" []",
            "unread \"\u{fffd}\\u{2}hi\"",
        ]
    );
    let interim = b"HTTP/1.1 100 \r\n\r\n".repeat(9);
    assert_eq!(every_split(Kind::Response, &interim[..8 * 17], &limits), ["unread \"\""]);
    assert_eq!(every_split(Kind::Response, &interim, &limits), ["TooManyInterim"]);
}

/// A request of HTTP/1.1 with these lines behind `Host`.
fn with(lines: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n").into_bytes()
}

#[test]
fn what_smuggles_is_refused() {
    use HeadError as E;
    let table: &[(&str, E)] = &[
        // Lines that end otherwise (RFC 9112 section 2.2).
        ("A: b\nC: d", E::BareLf),
        ("A: b\n", E::BareLf),
        ("A: b\rC: d", E::BareCr),
        ("A: b\r\r\nC: d", E::BareCr),
        ("A\r: b", E::BareCr),
        ("\rA: b", E::BareCr),
        // Field names and the colon (section 5).
        ("A : b", E::SpaceBeforeColon),
        ("A\t: b", E::SpaceBeforeColon),
        ("Transfer-Encoding : chunked", E::SpaceBeforeColon),
        ("A b: c", E::SpaceBeforeColon),
        (": b", E::Name),
        ("A", E::Name),
        ("A(b): c", E::Name),
        ("\"A\": c", E::Name),
        ("A\u{e9}: c", E::Name),
        ("A\0: c", E::ControlByte),
        // Folding (section 5.2).
        ("A: b\r\n c", E::ObsFold),
        ("A: b\r\n\tc: d", E::ObsFold),
        (" A: b", E::ObsFold),
        ("A: b\r\n \r\nC: d", E::ObsFold),
        // Control bytes in values (RFC 9110 section 5.5).
        ("A: b\0c", E::ControlByte),
        ("A: \x0b", E::ControlByte),
        ("A: \x7f", E::ControlByte),
        ("A: \x1b[2J", E::ControlByte),
        // Content-Length (RFC 9112 section 6.3).
        ("Content-Length: 5\r\nContent-Length: 5", E::ContentLengthRepeated),
        ("Content-Length: 5\r\ncontent-length: 6", E::ContentLengthRepeated),
        ("Content-Length: 5, 5", E::ContentLength),
        ("Content-Length: 5,6", E::ContentLength),
        ("Content-Length: +5", E::ContentLength),
        ("Content-Length: -5", E::ContentLength),
        ("Content-Length: 5 5", E::ContentLength),
        ("Content-Length: 0x5", E::ContentLength),
        ("Content-Length: 5.0", E::ContentLength),
        ("Content-Length: 5;", E::ContentLength),
        ("Content-Length: \u{665}", E::ContentLength),
        ("Content-Length:", E::ContentLength),
        ("Content-Length: 18446744073709551616", E::ContentLength),
        ("Content-Length: 9999999999999999999999", E::ContentLength),
        // Transfer-Encoding (section 6.1).
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", E::TransferEncodingWithLength),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked", E::TransferEncodingWithLength),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", E::TransferEncodingRepeated),
        ("Transfer-Encoding: chunked, chunked", E::TransferEncoding),
        ("Transfer-Encoding: gzip, chunked", E::TransferEncoding),
        ("Transfer-Encoding: chunked, identity", E::TransferEncoding),
        ("Transfer-Encoding: identity", E::TransferEncoding),
        ("Transfer-Encoding: xchunked", E::TransferEncoding),
        ("Transfer-Encoding: \"chunked\"", E::TransferEncoding),
        ("Transfer-Encoding: chunked;a=b", E::TransferEncoding),
        ("Transfer-Encoding: chunked,", E::TransferEncoding),
        ("Transfer-Encoding:", E::TransferEncoding),
        ("Transfer-Encoding: \x0bchunked", E::ControlByte),
        // Host (section 3.2).
        ("Host: a", E::HostRepeated),
        ("host: b", E::HostRepeated),
    ];
    for (lines, error) in table {
        let want = [format!("{error:?}")];
        assert_eq!(every_split(Kind::Request, &with(lines), &Limits::DEFAULT), want, "{lines:?}");
        if !matches!(error, E::HostRepeated) {
            let wire = format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n");
            assert_eq!(judge(Kind::Response, wire.as_bytes(), &Limits::DEFAULT), want, "{lines:?}");
        }
    }
    for lines in [
        "Content-Length: 18446744073709551615",
        "Content-Length: \t5 ",
        "Content-Length: 007",
        "Transfer-Encoding: Chunked",
    ] {
        let said = judge(Kind::Request, &with(lines), &Limits::DEFAULT);
        assert!(said[0].starts_with("POST /"), "{lines:?}: {said:?}");
    }
}

#[test]
fn first_lines_that_are_refused() {
    use HeadError as E;
    let requests: &[(&str, E)] = &[
        ("\r\n\r\nGET / HTTP/1.1", E::RequestLine),
        ("\nGET / HTTP/1.1", E::BareLf),
        ("\rGET / HTTP/1.1", E::BareCr),
        (" GET / HTTP/1.1", E::RequestLine),
        ("GET  / HTTP/1.1", E::RequestLine),
        ("GET /  HTTP/1.1", E::RequestLine),
        ("GET / HTTP/1.1 ", E::RequestLine),
        ("GET\t/\tHTTP/1.1", E::RequestLine),
        ("GET /a b HTTP/1.1", E::RequestLine),
        ("GET /", E::RequestLine),
        ("GET", E::RequestLine),
        ("G(T / HTTP/1.1", E::RequestLine),
        ("GET /\u{e9} HTTP/1.1", E::RequestLine),
        ("GET / http/1.1", E::RequestLine),
        ("GET / HTTP/1.10", E::RequestLine),
        ("GET / HTTP/11", E::RequestLine),
        ("GET / HTTP/01.1", E::RequestLine),
        ("GET / HTTP/1,1", E::RequestLine),
        ("GET /\0 HTTP/1.1", E::ControlByte),
        ("GET /\r HTTP/1.1", E::BareCr),
        ("GET / HTTP/2.0", E::Version),
        ("GET / HTTP/0.9", E::Version),
        ("GET / HTTP/1.2", E::Version),
        ("PRI * HTTP/2.0", E::Version),
        ("GET a HTTP/1.1", E::Target),
        ("GET * HTTP/1.1", E::Target),
        ("GET ?a HTTP/1.1", E::Target),
        ("GET /a#b HTTP/1.1", E::Target),
        ("GET /a?b=\"c\" HTTP/1.1", E::Target),
        ("GET /a?b=<c> HTTP/1.1", E::Target),
        ("GET http:///a HTTP/1.1", E::Target),
        ("GET http://user@host/ HTTP/1.1", E::Target),
        ("GET \"x\"://host/ HTTP/1.1", E::Target),
        ("GET ://host/ HTTP/1.1", E::Target),
        ("CONNECT /a HTTP/1.1", E::Target),
    ];
    for (line, error) in requests {
        let wire = format!("{line}\r\nHost: a\r\n\r\n");
        assert_eq!(
            every_split(Kind::Request, wire.as_bytes(), &Limits::DEFAULT),
            [format!("{error:?}")],
            "{line:?}"
        );
    }
    let responses: &[(&str, E)] = &[
        ("\r\nHTTP/1.1 200 OK", E::StatusLine),
        ("HTTP/1.1  200 OK", E::StatusLine),
        ("HTTP/1.1 20 OK", E::StatusLine),
        ("HTTP/1.1 2000 OK", E::StatusLine),
        ("HTTP/1.1 099 OK", E::StatusLine),
        ("HTTP/1.1 600 OK", E::StatusLine),
        ("HTTP/1.1 +20 OK", E::StatusLine),
        ("HTTP/1.1", E::StatusLine),
        ("HTTP/1.1 ", E::StatusLine),
        ("ICY 200 OK", E::StatusLine),
        ("HTTP/2.0 200 OK", E::Version),
        ("HTTP/1.1 200 O\0K", E::ControlByte),
        ("HTTP/1.1 200 O\rK", E::BareCr),
    ];
    for (line, error) in responses {
        let wire = format!("{line}\r\nA: b\r\n\r\n");
        assert_eq!(
            every_split(Kind::Response, wire.as_bytes(), &Limits::DEFAULT),
            [format!("{error:?}")],
            "{line:?}"
        );
    }
}

#[test]
fn rfc9112_3_2_the_host_of_a_response_has_no_meaning() {
    let judge = |fields: &str| {
        let wire = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        judge(Kind::Response, wire.as_bytes(), &Limits::DEFAULT).swap_remove(0)
    };
    assert_eq!(judge("Host: a/b\r\n"), "Http11 200 \"OK\" [(\"Host\", \"a/b\")]");
    assert_eq!(judge("Host: \r\nHost: ?\r\n"), "Http11 200 \"OK\" [(\"Host\", \"\"), (\"Host\", \"?\")]");
}

#[test]
fn host_and_http_1_0() {
    let say = |wire: &str| judge(Kind::Request, wire.as_bytes(), &Limits::DEFAULT).swap_remove(0);
    assert_eq!(say("GET / HTTP/1.1\r\n\r\n"), "HostMissing");
    assert_eq!(say("GET / HTTP/1.0\r\n\r\n"), "GET / Http10 []");
    assert_eq!(say("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"), "HostRepeated");
    for host in ["a/b", "user@a", "a b", "a#b", "a?b", "a\\b", "\u{e9}", "a\"b"] {
        assert_eq!(say(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), "Host", "{host}");
    }
    assert_eq!(say("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), "TransferEncodingInHttp10");
    let said =
        judge(Kind::Response, b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &Limits::DEFAULT);
    assert_eq!(said, ["TransferEncodingInHttp10"]);
}

#[test]
fn each_limit_at_the_limit_and_one_above() {
    let limits = Limits { max_head: 200, max_headers: 4, max_name: 10, max_value: 20, max_target: 30 };
    let head = |target: usize, name: usize, value: usize, more: usize| {
        let (target, name, value) = ("/".repeat(target), "n".repeat(name), "v".repeat(value));
        let more = "A: b\r\n".repeat(more);
        format!("GET {target} HTTP/1.1\r\nHost: a\r\n{name}: \t{value} \r\n{more}\r\n").into_bytes()
    };
    let say = |wire: &[u8], limits: &Limits| {
        let said = every_split(Kind::Request, wire, limits).swap_remove(0);
        if said.starts_with("GET") { "read".into() } else { said }
    };
    for (at, above, error) in [
        (head(30, 1, 1, 0), head(31, 1, 1, 0), "TargetTooLong"),
        (head(1, 10, 1, 0), head(1, 11, 1, 0), "NameTooLong"),
        (head(1, 1, 20, 0), head(1, 1, 21, 0), "ValueTooLong"),
        (head(1, 1, 1, 2), head(1, 1, 1, 3), "TooManyHeaders"),
    ] {
        assert_eq!((say(&at, &limits), say(&above, &limits)), ("read".into(), error.to_string()));
    }
    // The whole head, to the byte. The empty line before a request is not counted.
    let limits = Limits { max_value: 4096, ..limits };
    let size = head(1, 1, 0, 0).len();
    for (len, want) in [(199, "read"), (200, "read"), (201, "TooLong"), (300, "TooLong")] {
        let wire = head(1, 1, len - size, 0);
        assert_eq!((wire.len(), say(&wire, &limits)), (len, want.to_string()));
        assert_eq!(say(&[b"\r\n", &wire[..]].concat(), &limits), want);
    }
    // A first line without an end is a target that is too long.
    assert_eq!(say(&head(300, 1, 1, 0), &limits), "TargetTooLong");
}

#[test]
fn cve_2024_37890_ws_too_many_headers_are_answered_with_431() {
    let lines = "A: b\r\n".repeat(2000);
    for (kind, first) in
        [(Kind::Request, "GET / HTTP/1.1\r\nHost: a"), (Kind::Response, "HTTP/1.1 200 OK\r\nHost: a")]
    {
        let wire = format!("{first}\r\n{lines}\r\n");
        assert_eq!(judge(kind, wire.as_bytes(), &Limits::DEFAULT), ["TooManyHeaders"]);
        let wire = format!("{first}\r\n{}\r\n", &lines[..63 * 6]);
        assert_eq!(judge(kind, wire.as_bytes(), &Limits::DEFAULT).len(), 2);
    }
    assert_eq!(HeadError::TooManyHeaders.status(), 431);
}

#[test]
fn cve_2021_32640_ws_spaces_and_commas_in_every_header_are_walked_once() {
    for unit in [" ", ",", ", ", ",\t", "a ,", "\",", ";="] {
        let value = unit.repeat(65536 / unit.len());
        let wire =
            with(&format!("Connection: x{value}x\r\nUpgrade:{value}\r\nSec-WebSocket-Extensions: {value}"));
        let (mut bytes, mut cursor) = (vec![0; wire.len()], RxCursor::default());
        let (head, mut rx) = read_request(&mut bytes, &mut cursor, &wire);
        let request = head.view(rx.reborrow());
        assert!(!request.headers().has_token("connection", "upgrade"));
        assert!(request.headers().list("connection").count() <= value.len());
        // The default limit refuses it first.
        assert_eq!(judge(Kind::Request, &wire, &Limits::DEFAULT), ["TooLong"]);
    }
}

#[test]
fn every_error_has_a_status_of_its_kind() {
    use HeadError as E;
    for (error, status) in [
        (E::TooLong, 431),
        (E::TooManyHeaders, 431),
        (E::NameTooLong, 431),
        (E::ValueTooLong, 431),
        (E::TargetTooLong, 414),
        (E::Version, 505),
        (E::TransferEncoding, 501),
        (E::BareLf, 400),
        (E::HostMissing, 400),
        (E::TransferEncodingWithLength, 400),
    ] {
        assert_eq!(error.status(), status, "{error}");
    }
}

#[test]
fn a_buffer_smaller_than_the_limit_asks_for_space() {
    let wire = with(&format!("A: {}", "b".repeat(100)));
    assert_eq!(transcript(Kind::Request, [&wire[..]], 64, &Limits::DEFAULT), ["needs space"]);
    // With more room it goes on where it was, and no byte is lost.
    let (mut small, mut large, mut cursor) = ([0; 64], [0; 256], RxCursor::default());
    let mut reader = HeadReader::default();
    let mut rx = RxBuf::new(&mut small, &mut cursor);
    let fed = rx.fill(&wire);
    assert_eq!(reader.poll_request(&mut rx, &Limits::DEFAULT), Ok(Step::NeedSpace(128)));
    let held = rx.compact();
    large[..held.len()].copy_from_slice(held);
    let mut rx = RxBuf::new(&mut large, &mut cursor);
    rx.fill(&wire[fed..]);
    let step = reader.poll_request(&mut rx, &Limits::DEFAULT);
    assert!(matches!(step, Ok(Step::Head(head)) if head.len() == wire.len()));
    // A buffer as large as the limit never asks.
    let limits = Limits { max_head: 64, ..Limits::DEFAULT };
    assert_eq!(transcript(Kind::Request, wire.chunks(1), 64, &limits), ["TooLong"]);
}

#[test]
fn the_view_finds_what_is_asked_for() {
    let wire = b"GET http://other.example:81/a/b?c=d?e HTTP/1.1\r\nHost: example.org\r\nConnection: keep-alive, Upgrade\r\n\
        connection: x\r\nOrigin: a\r\norigin: b\r\nX: \xff\r\n\r\n";
    let (mut bytes, mut cursor) = ([0; 512], RxCursor::default());
    let (head, rx) = read_request(&mut bytes, &mut cursor, wire);
    let r = head.view(rx);
    assert_eq!((r.version(), r.path(), r.query()), (Version::Http11, "/a/b", Some("c=d?e")));
    assert_eq!(r.authority(), "other.example:81");
    assert_eq!(r.header("HOST"), Some(&b"example.org"[..]));
    let h = r.headers();
    assert!(h.has_token("Connection", "upgrade") && h.has_token("CONNECTION", "X"));
    assert!(!h.has_token("connection", "keep") && !h.has_token("connect", "x"));
    assert_eq!(h.get_all("origin").collect::<Vec<_>>(), [b"a", b"b"]);
    assert_eq!((h.get_only("origin"), h.get_only("host")), (Err(Repeated), Ok(Some(&b"example.org"[..]))));
    assert_eq!(
        (h.get_only("none"), h.get_str("x"), h.get_str("host")),
        (Ok(None), None, Some("example.org"))
    );
}

#[test]
fn the_four_forms_of_a_target_rfc_9112_section_3_2() {
    for (line, authority, path, query) in [
        ("GET /", "h", "/", None),
        ("GET /?", "h", "/", Some("")),
        ("GET //a/b", "h", "//a/b", None),
        ("GET /a://b/c", "h", "/a://b/c", None),
        ("GET http://x", "x", "/", None),
        ("GET http://x?y", "x", "", Some("y")),
        ("OPTIONS *", "h", "*", None),
        ("CONNECT x:443", "x:443", "", None),
    ] {
        let wire = format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n");
        let (mut bytes, mut cursor) = ([0; 512], RxCursor::default());
        let (head, rx) = read_request(&mut bytes, &mut cursor, wire.as_bytes());
        let r = head.view(rx);
        assert_eq!((r.authority(), r.path(), r.query()), (authority, path, query), "{line}");
    }
}

#[test]
fn persistence_rfc_9112_section_9_3() {
    for (wire, alive) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", false),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false),
    ] {
        let (mut bytes, mut cursor) = ([0; 512], RxCursor::default());
        let (head, rx) = read_request(&mut bytes, &mut cursor, wire.as_bytes());
        assert_eq!(head.view(rx).keeps_alive(), alive, "{wire}");
    }
}

/// The shape that both runtimes need: an endpoint that owns its storage, and a `recv` that returns a borrow
/// of it from within the loop that refills it.
#[test]
fn recv_may_return_a_borrow_of_its_own_storage() {
    struct Endpoint<'w> {
        bytes: [u8; 128],
        cursor: RxCursor,
        reader: HeadReader,
        socket: std::slice::Chunks<'w, u8>,
    }
    impl Endpoint<'_> {
        async fn recv(&mut self) -> Result<Request<'_>, HeadError> {
            loop {
                let mut rx = RxBuf::new(&mut self.bytes, &mut self.cursor);
                match self.reader.poll_request(&mut rx, &Limits::DEFAULT)? {
                    Step::Head(head) => return Ok(head.view(RxBuf::new(&mut self.bytes, &mut self.cursor))),
                    _ => {
                        let piece = std::future::ready(self.socket.next().unwrap()).await;
                        rx.fill(piece);
                    }
                }
            }
        }
    }
    let wire = b"GET /1 HTTP/1.0\r\n\r\nGET /2 HTTP/1.0\r\n\r\n";
    let (bytes, cursor, reader) = ([0; 128], RxCursor::default(), HeadReader::default());
    let mut endpoint = Endpoint { bytes, cursor, reader, socket: wire.chunks(5) };
    for path in ["/1", "/2"] {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let recv = std::pin::pin!(endpoint.recv());
        let std::task::Poll::Ready(Ok(request)) = recv.poll(&mut context) else { panic!() };
        assert_eq!(request.path(), path);
    }
}

fn name() -> impl Strategy<Value = String> {
    "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}".prop_filter("judged specially", |name| {
        !["host", "content-length", "transfer-encoding"].iter().any(|own| own.eq_ignore_ascii_case(name))
    })
}

fn value() -> impl Strategy<Value = String> {
    "([!-~\u{80}-\u{ff}]([ \t!-~\u{80}-\u{ff}]{0,20}[!-~\u{80}-\u{ff}])?)?"
}

/// Pieces of heads, put together at random, with a byte changed.
fn almost_heads() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just(b"GET / HTTP/1.1\r\n".to_vec()),
        Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Just(b"Host: a\r\n".to_vec()),
        Just(b"Content-Length: 5\r\n".to_vec()),
        Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        prop::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b':'), Just(b' '), any::<u8>()],
            0..6
        ),
    ];
    let wire = prop::collection::vec(part, 0..10).prop_map(|parts| parts.concat());
    (wire, any::<Option<(prop::sample::Index, u8)>>()).prop_map(|(mut wire, change)| {
        if let (Some((at, byte)), false) = (change, wire.is_empty()) {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        wire
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        method in "[A-Z]{1,8}".prop_filter("its target differs", |m| m != "CONNECT"),
        target in "/[!$-;=?-~]{0,40}",
        fields in prop::collection::vec((name(), value()), 0..20),
        chunk in 1usize..40,
    ) {
        let (mut bytes, mut cursor) = ([0; 2048], TxCursor::default());
        let mut tx = TxBuf::new(&mut bytes, &mut cursor);
        let mut borrowed = vec![("Host", "a")];
        borrowed.extend(fields.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        write::request(&mut tx, &method, &target, &borrowed).unwrap();

        let (mut bytes, mut cursor) = ([0; 2048], RxCursor::default());
        let mut rx = RxBuf::new(&mut bytes, &mut cursor);
        let (mut reader, mut found) = (HeadReader::default(), None);
        for piece in tx.pending().chunks(chunk) {
            prop_assert!(found.is_none());
            rx.fill(piece);
            if let Step::Head(head) = reader.poll_request(&mut rx, &Limits::DEFAULT).unwrap() {
                found = Some(head);
            }
        }
        let request = found.unwrap().view(rx);
        prop_assert_eq!((request.method(), request.target()), (&*method, &*target));
        let written: Vec<_> = borrowed.iter().map(|(n, v)| (*n, v.as_bytes())).collect();
        prop_assert_eq!(request.headers().iter().collect::<Vec<_>>(), written);
    }

    #[test]
    fn any_bytes_are_judged_the_same_however_they_are_cut(
        wire in almost_heads(),
        chunk in 1usize..20,
        max_head in 0usize..150,
        capacity in 1usize..200,
    ) {
        let limits = Limits { max_head, max_headers: 3, max_name: 10, max_value: 20, max_target: 20 };
        for kind in [Kind::Request, Kind::Response] {
            let whole = transcript(kind, [&wire[..]], 4096, &limits);
            prop_assert_eq!(&transcript(kind, wire.chunks(chunk), 4096, &limits), &whole);
            let small = transcript(kind, wire.chunks(chunk), capacity, &limits);
            if small.last().is_none_or(|last| last != "needs space") {
                prop_assert_eq!(&small, &whole);
            }
        }
    }
}
