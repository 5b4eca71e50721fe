//! `Sec-WebSocket-Extensions` (RFC 6455 section 9.1): a list of extensions, each with parameters.
//!
//! One pass over the bytes whatever they are; nothing is stored. How many extensions and parameters there can
//! be is bounded by [`Limits::max_value`](super::head::Limits::max_value).

use nom::branch::alt;
use nom::bytes::complete::tag;
use nom::combinator::opt;
use nom::multi::{many0_count, many1_count};
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};

use super::grammar::{Fault, ascii, is_ows, is_tchar, run, run1};

/// Takes the value of one `Sec-WebSocket-Extensions` header apart.
///
/// ```
/// use longwire_core::http::extension;
///
/// let mut offers = extension::parse(b"permessage-deflate; client_max_window_bits; server_max_window_bits=\"10\", x");
/// let deflate = offers.next().unwrap().unwrap();
/// assert_eq!(deflate.name(), "permessage-deflate");
/// let mut params = deflate.params();
/// assert!(matches!(params.next(), Some(("client_max_window_bits", None))));
/// assert!(matches!(params.next(), Some(("server_max_window_bits", Some(value))) if value.number() == Some(10)));
/// assert_eq!(offers.next().unwrap().unwrap().name(), "x");
/// assert!(offers.next().is_none());
/// ```
pub const fn parse(value: &[u8]) -> Extensions<'_> {
    Extensions { rest: value }
}

/// The extensions in a header's value, in the order of preference. After [`Malformed`] there are no more.
#[derive(Clone, Debug)]
pub struct Extensions<'b> {
    rest: &'b [u8],
}

impl<'b> Iterator for Extensions<'b> {
    type Item = Result<Extension<'b>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        // Empty elements are passed over, as in any list of HTTP (RFC 9110 section 5.6.1.2).
        let (rest, _) = run(|b| b == b',' || is_ows(b))(self.rest).ok()?;
        if rest.is_empty() {
            self.rest = rest;
            return None;
        }
        let (rest, found) = match extension(rest) {
            Ok((rest @ ([] | [b',', ..]), found)) => (rest, Ok(found)),
            _ => (&[][..], Err(Malformed)),
        };
        self.rest = rest;
        Some(found)
    }
}

/// A header's value that is not an extension list by the grammar of RFC 6455 section 9.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Malformed;

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("malformed Sec-WebSocket-Extensions")
    }
}

impl core::error::Error for Malformed {}

/// One extension, offered or agreed.
#[derive(Clone, Copy, Debug)]
pub struct Extension<'b> {
    name: &'b str,
    params: &'b [u8],
}

impl<'b> Extension<'b> {
    /// Its name, a token whose case matters.
    pub fn name(&self) -> &'b str {
        self.name
    }

    /// Its parameters in order, with their values. The same name may come twice: most extensions forbid that,
    /// and have to look for it.
    pub fn params(&self) -> impl Iterator<Item = (&'b str, Option<Value<'b>>)> + Clone + use<'b> {
        let mut rest = self.params;
        core::iter::from_fn(move || {
            let (after, found) = param(rest).ok()?;
            rest = after;
            Some(found)
        })
    }
}

/// The value of a parameter: a token, perhaps quoted. It is never empty.
#[derive(Clone, Copy, Debug)]
pub struct Value<'b> {
    raw: &'b str,
}

impl<'b> Value<'b> {
    /// The token's characters, without the quotes and the backslashes that escaped some of them.
    pub fn chars(self) -> impl Iterator<Item = char> + Clone + use<'b> {
        // A token has no backslash of its own.
        self.raw.chars().filter(|c| *c != '\\')
    }

    /// Whether the token is `text`.
    pub fn is(self, text: &str) -> bool {
        self.chars().eq(text.chars())
    }

    /// The token as a decimal number: digits without a leading zero (RFC 7692 section 7.1.2.1), below 2^64.
    pub fn number(self) -> Option<u64> {
        let mut digits = self.chars();
        let first = digits.next().filter(|first| *first != '0' || digits.clone().next().is_none())?;
        core::iter::once(first)
            .chain(digits)
            .try_fold(0u64, |n, digit| n.checked_mul(10)?.checked_add(u64::from(digit.to_digit(10)?)))
    }
}

/// `token *( ";" param )`, with space around each part, as the lists of RFC 2616 section 2.1 had it.
fn extension(input: &[u8]) -> IResult<&[u8], Extension<'_>> {
    let (after_name, name) = token(input)?;
    let (rest, _) = many0_count(param).parse(after_name)?;
    Ok((rest, Extension { name, params: before(after_name, rest) }))
}

/// A parameter: its name, and its value if it has one.
type Param<'b> = (&'b str, Option<Value<'b>>);

/// `";" token [ "=" ( token | quoted-string ) ]`
fn param(input: &[u8]) -> IResult<&[u8], Param<'_>> {
    let value = preceded(tag("="), alt((quoted, token))).map(|raw| Value { raw });
    preceded(tag(";"), (token, opt(value))).parse(input)
}

fn token(input: &[u8]) -> IResult<&[u8], &str> {
    delimited(run(is_ows), run1(is_tchar), run(is_ows)).map(ascii).parse(input)
}

/// A quoted string which, once unescaped, is a token (RFC 6455 section 9.1), without its quotes.
fn quoted(input: &[u8]) -> IResult<&[u8], &str> {
    let (inside, _) = (run(is_ows), tag("\"")).parse(input)?;
    let (end, _) = many1_count(preceded(opt(tag("\\")), tchar)).parse(inside)?;
    let (rest, _) = (tag("\""), run(is_ows)).parse(end)?;
    Ok((rest, ascii(before(inside, end))))
}

fn tchar(input: &[u8]) -> IResult<&[u8], u8> {
    match input.split_first() {
        Some((first, rest)) if is_tchar(*first) => Ok((rest, *first)),
        _ => Err(nom::Err::Error(Fault { input, code: nom::error::ErrorKind::OneOf })),
    }
}

/// What of `input` lies before its end `rest`.
fn before<'i>(input: &'i [u8], rest: &[u8]) -> &'i [u8] {
    input.get(..input.len().saturating_sub(rest.len())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    /// The list written out again in one form, or `None` when it is malformed.
    fn canonical(value: &str) -> Option<String> {
        let mut out = Vec::new();
        for extension in parse(value.as_bytes()) {
            let extension = extension.ok()?;
            let mut text = String::from(extension.name());
            for (name, value) in extension.params() {
                text += &format!(";{name}");
                if let Some(value) = value {
                    text += &format!("={}", value.chars().collect::<String>());
                }
            }
            out.push(text);
        }
        Some(out.join(","))
    }

    #[test]
    fn rfc_6455_section_9_1_lists() {
        for (value, want) in [
            // The examples of the section.
            ("foo", "foo"),
            ("bar; baz=2", "bar;baz=2"),
            ("foo, bar; baz=2", "foo,bar;baz=2"),
            ("deflate-stream", "deflate-stream"),
            (
                "mux; max-channels=4; flow-control, deflate-stream",
                "mux;max-channels=4;flow-control,deflate-stream",
            ),
            ("private-extension", "private-extension"),
            // Space, empty elements, quotes.
            ("", ""),
            (" ,\t, ", ""),
            (" a ; b = c ,, d ", "a;b=c,d"),
            ("a;b=\"c\"", "a;b=c"),
            ("a ; b = \"\\1\\5\" ; c", "a;b=15;c"),
            ("a;b;b", "a;b;b"),
        ] {
            assert_eq!(canonical(value).as_deref(), Some(want), "{value:?}");
        }
    }

    #[test]
    fn what_the_grammar_does_not_have() {
        for value in [
            "a b",
            ";",
            "a;",
            "a;;b",
            "=",
            "a=b",
            "a;=b",
            "a;b=",
            "a;b=,c",
            "a;b=\"",
            "a;b=\"\"",
            "a;b=\"c",
            "a;b=\"c d\"",
            "a;b=\"c\\\"",
            "a;b=\"c\"d",
            "a;b=\"c\\\\d\"",
            "a;b=c=d",
            "a;b=\"c,d\"",
            "a/b",
            "\"a\"",
            "a\u{e9}",
            "a;b c",
        ] {
            assert_eq!(canonical(value), None, "{value:?}");
        }
        // What comes before the fault was handed out, and nothing after it.
        let found: Vec<_> = parse(b"a, b c, d").map(|e| e.map(|e| e.name())).collect();
        assert_eq!(found, [Ok("a"), Err(Malformed)]);
    }

    #[test]
    fn numbers_have_one_form() {
        for (value, number) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("15", Some(15)),
            ("\"15\"", Some(15)),
            ("\"\\1\\5\"", Some(15)),
            ("\"\\05\"", None),
            ("\"\\0\"", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("00", None),
            ("08", None),
            ("+8", None),
            ("8x", None),
            ("1.", None),
        ] {
            let text = format!("a;b={value}");
            let extension = parse(text.as_bytes()).next().unwrap().unwrap();
            let (_, found) = extension.params().next().unwrap();
            assert_eq!(found.unwrap().number(), number, "{value}");
        }
    }

    #[test]
    fn cve_2021_32640_ws_spaces_and_commas_cost_linear_work() {
        // 64 KiB of what backtracking parsers choke on. There is no backtracking to time: each shape is
        // answered by one item at most, and the parsers never look behind.
        for unit in [" ", ",", "\t,", ", "] {
            assert_eq!(parse(unit.repeat(65536 / unit.len()).as_bytes()).count(), 0);
        }
        for unit in [" ;", "a ", ";a", "a;=", "\"", "\\", "a=\" "] {
            let value = unit.repeat(65536 / unit.len());
            let items = parse(value.as_bytes()).take(2).collect::<Vec<_>>();
            assert!(matches!(items[..], [Err(Malformed)]), "{unit:?}");
        }
        assert_eq!(parse("a,".repeat(32768).as_bytes()).count(), 32768);
        let many = format!("a{}", ";b=\"\\c\"".repeat(8192));
        assert_eq!(parse(many.as_bytes()).next().unwrap().unwrap().params().count(), 8192);
    }
}
