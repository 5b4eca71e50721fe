//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header; `PROTOCOL.md` section 8.2).

use super::refused::Refused;
use crate::hub::Once;
use longwire_core::http::view::Request;

/// Bytes of a key.
const MAX_KEY: usize = 128;

/// By what a repetition of a request is known; `None` when it does not say.
pub(super) fn key(request: &Request<'_>) -> Result<Option<String>, Refused> {
    let value = request.headers().get_only("idempotency-key");
    let value = value.map_err(|_| Refused::bad_request("more than one Idempotency-Key"))?;
    value.map(parse).transpose()
}

/// A publication of an incarnation when it has its form; otherwise a key like any other.
pub(super) fn once(key: &str) -> Once<'_> {
    key.parse().map_or(Once::Key(key), Once::Number)
}

/// A string as RFC 9651 section 3.3.3 has it, which is what the draft asks for; or the same without its quotes, as many
/// clients send it.
fn parse(value: &[u8]) -> Result<String, Refused> {
    let wrong =
        || Refused::bad_request("Idempotency-Key is a string of 1 to 128 bytes, quoted or without spaces");
    let text = str::from_utf8(value).map_err(|_| wrong())?;
    let key = match text.strip_prefix('"') {
        Some(quoted) => unquoted(quoted).ok_or_else(wrong)?,
        None if text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b',' | b';')) => {
            text.to_owned()
        }
        None => return Err(wrong()),
    };
    if key.is_empty() || key.len() > MAX_KEY { Err(wrong()) } else { Ok(key) }
}

/// What is between the quotes, the first of which is gone already.
fn unquoted(quoted: &str) -> Option<String> {
    let inner = quoted.strip_suffix('"')?;
    let (mut key, mut bytes) = (String::new(), inner.chars());
    while let Some(char) = bytes.next() {
        key.push(match char {
            '\\' => bytes.next().filter(|escaped| matches!(escaped, '"' | '\\'))?,
            '"' => return None,
            ' '..='~' => char,
            _ => return None,
        });
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use longwire_core::session::publisher::{Incarnation, PublicationId};

    #[test]
    fn a_key_is_a_string_with_or_without_quotes() {
        let long = "k".repeat(128);
        for (value, key) in [
            ("8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
            ("\"8e03978e-40d5-43e8-bc93-6894a57f9324\"", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
            ("\"a b, \\\"c\\\" \\\\ ;\"", "a b, \"c\" \\ ;"),
            ("\" \"", " "),
            ("0", "0"),
            (&long, &long),
            (&format!("\"{long}\""), &long),
        ] {
            assert_eq!(parse(value.as_bytes()).as_deref(), Ok(key), "{value}");
        }
        for value in [
            "",
            "\"\"",
            "\"",
            "\"a",
            "a\"",
            "\"a\"b\"",
            "\"a\\\"",
            "\"\\n\"",
            "\"a\";b=1",
            "a;b=1",
            "a b",
            "a, b",
            "a\\",
            "é",
            "\"é\"",
            "\"a\tb\"",
            "a\u{7f}",
            &"k".repeat(129),
            &format!("\"{}\"", "k".repeat(129)),
        ] {
            assert!(parse(value.as_bytes()).is_err(), "{value:?}");
        }
        assert!(parse(b"\xff").is_err());
    }

    #[test]
    fn a_key_may_be_a_number_of_an_incarnation() {
        let id = PublicationId { incarnation: Incarnation(0x9f86_d081_884c_7d65), n: 7 };
        assert_eq!(once("9f86d081884c7d65-7"), Once::Number(id));
        for key in ["9f86d081884c7d65", "9F86D081884C7D65-7", "9f86d081884c7d65-07", "9f86d081884c7d65-7x"] {
            assert_eq!(once(key), Once::Key(key));
        }
    }
}
