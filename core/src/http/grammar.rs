//! The characters and small productions that HTTP and WebSocket headers share (RFC 9110 section 5.6), and the
//! three kinds of lines in a head (RFC 9112 sections 3, 4 and 5), as `nom` parsers.

use nom::branch::alt;
use nom::bytes::complete::tag;
use nom::combinator::{all_consuming, value, verify};
use nom::sequence::{preceded, terminated};
use nom::{IResult, Parser};

use super::view::Version;

/// `tchar`, RFC 9110 section 5.6.2.
pub(super) const fn is_tchar(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(
            b,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// A non-empty `token`.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| is_tchar(*b))
}

/// What a field value or a reason phrase may hold: `HTAB`, `SP`, `VCHAR` and `obs-text` (RFC 9110 section 5.5).
pub(super) const fn is_field_byte(b: u8) -> bool {
    b == b'\t' || (b >= b' ' && b != 0x7f)
}

/// Optional whitespace, RFC 9110 section 5.6.3.
pub(super) const fn is_ows(b: u8) -> bool {
    b == b' ' || b == b'\t'
}

/// Without the optional whitespace around it.
pub(super) fn trim_ows(mut bytes: &[u8]) -> &[u8] {
    while let Some((first, rest)) = bytes.split_first()
        && is_ows(*first)
    {
        bytes = rest;
    }
    while let Some((last, rest)) = bytes.split_last()
        && is_ows(*last)
    {
        bytes = rest;
    }
    bytes
}

/// The elements of a comma-separated list. Empty elements are left out, as RFC 9110 section 5.6.1.2 demands.
pub(super) fn elements(list: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    list.split(|b| *b == b',').map(trim_ows).filter(|element| !element.is_empty())
}

/// The part before the first `at`, and the part behind it.
pub(super) fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let (before, rest) = bytes.split_at_checked(bytes.iter().position(|b| *b == at)?)?;
    Some((before, rest.split_first()?.1))
}

/// As [`split_once`], of text, at a character of ASCII. `str`'s own searchers keep panics that the optimiser
/// cannot prove away.
pub(super) fn cut(text: &str, at: u8) -> Option<(&str, &str)> {
    let (before, rest) = text.split_at_checked(text.bytes().position(|b| b == at)?)?;
    Some((before, rest.get(1..)?))
}

/// What lies between the separators, of which there is one less.
pub(super) fn pieces(text: &str, separator: u8) -> impl Iterator<Item = &str> + Clone {
    let mut rest = Some(text);
    core::iter::from_fn(move || {
        let text = rest?;
        let (piece, after) = match cut(text, separator) {
            Some((piece, after)) => (piece, Some(after)),
            None => (text, None),
        };
        rest = after;
        Some(piece)
    })
}

/// Bytes that a parser found to be ASCII, as text.
pub(super) fn ascii(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or_default()
}

/// `uri-host [ ":" port ]`, by its characters (RFC 9110 section 7.2). Empty is allowed; user information is
/// not.
pub(super) fn is_host(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"!$%&'*+-._~()[],;=:".iter().any(|other| other == b))
}

/// The longest run of such bytes, perhaps none. `nom`'s own parser of that name keeps a panic that the
/// optimiser cannot always prove away.
pub(super) fn run(is: impl Fn(u8) -> bool) -> impl Fn(&[u8]) -> IResult<&[u8], &[u8]> {
    move |input| {
        let end = input.iter().position(|b| !is(*b)).unwrap_or(input.len());
        let (run, rest) = input.split_at_checked(end).unwrap_or_default();
        Ok((rest, run))
    }
}

/// As [`run`], of at least one byte.
pub(super) fn run1<'i>(
    is: impl Fn(u8) -> bool,
) -> impl Parser<&'i [u8], Output = &'i [u8], Error = Fault<'i>> {
    verify(run(is), |run: &[u8]| !run.is_empty())
}

/// What `nom` says when a production does not match.
pub(super) type Fault<'i> = nom::error::Error<&'i [u8]>;

fn version(input: &[u8]) -> IResult<&[u8], Version> {
    alt((value(Version::Http11, tag("HTTP/1.1")), value(Version::Http10, tag("HTTP/1.0")))).parse(input)
}

/// What may stand in a request target: visible ASCII, but no fragment, and not what stands in no URI at all (RFC 3986
/// appendix A) and is understood differently by those behind us.
pub(super) fn is_target_char(b: u8) -> bool {
    b.is_ascii_graphic() && !matches!(b, b'#' | b'"' | b'<' | b'>')
}

/// `method SP request-target SP HTTP-version`, RFC 9112 section 3: the method, the target, the version.
pub(super) fn request_line(line: &[u8]) -> Option<(&[u8], &[u8], Version)> {
    let method = terminated(run1(is_tchar), tag(" "));
    let target = terminated(run1(|b| b.is_ascii_graphic()), tag(" "));
    all_consuming((method, target, version)).parse(line).ok().map(|(_, parts)| parts)
}

/// `HTTP-version SP status-code SP [ reason-phrase ]`, RFC 9112 section 4: the version, the status' three
/// digits, the reason.
///
/// Deviation: the space behind the code may be missing when there is no reason, as some servers send it.
pub(super) fn status_line(line: &[u8]) -> Option<(Version, &[u8], &[u8])> {
    let status = verify(run(|b| b.is_ascii_digit()), |digits: &[u8]| digits.len() == 3);
    let reason = alt((preceded(tag(" "), run(is_field_byte)), tag("")));
    let version = terminated(version, tag(" "));
    all_consuming((version, status, reason)).parse(line).ok().map(|(_, parts)| parts)
}

/// Whether the version at the end of a request line, or at the start of a status line, is well formed but not
/// ours.
pub(super) fn is_other_version(version: &[u8]) -> bool {
    let Some([major, b'.', minor]) = version.strip_prefix(b"HTTP/") else { return false };
    major.is_ascii_digit() && minor.is_ascii_digit() && (*major != b'1' || !matches!(minor, b'0' | b'1'))
}

/// `field-name ":" OWS field-value OWS`, RFC 9112 section 5: the name, the value without the space around it.
/// What the value holds is not looked at.
pub(super) fn field_line(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let name: IResult<&[u8], &[u8]> = terminated(run1(is_tchar), tag(":")).parse(line);
    name.ok().map(|(value, name)| (name, trim_ows(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_leave_out_what_is_empty() {
        let found: std::vec::Vec<_> = elements(b" a ,,\tb\t, ,c d,").collect();
        assert_eq!(found, [&b"a"[..], b"b", b"c d"]);
        assert_eq!(elements(b" , ,").count(), 0);
    }

    #[test]
    fn hosts_by_their_characters() {
        for host in ["", "example.org", "example.org:8080", "[::1]:80", "10.0.2.2", "a%20b", "x_y"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in ["a/b", "user@host", "a b", "a?b", "a#b", "a\\b", "a\"b", "a<b", "h\u{f6}st"] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }
}
