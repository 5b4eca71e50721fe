//! `data` from one form to the other (`PROTOCOL.md` section 4.1), in one pass.

use super::{
    Malformed, Reason, Sink, WriteError,
    bytes::base64,
    cbor::{self, byte, major},
    json,
};

/// Writes one CBOR data item as JSON, in one line.
///
/// Integers are exact over the whole 64-bit range. A float has the shortest text that gives the same double back,
/// and keeps a fraction or an exponent. NaN, infinities, `undefined` and other simple values become `null`; byte
/// strings become base64url without padding; tags are dropped; keys that are integers become their decimal text.
///
/// # Errors
/// What is not well-formed, keys that are neither text nor integer ([`Reason::MapKey`]), or [`WriteError::Full`].
///
/// ```
/// use longwire_core::session::transcode;
///
/// let mut json = heapless::Vec::<u8, 32>::new();
/// transcode::cbor_to_json(&[0xa1, 0x07, 0x82, 0xf9, 0x3c, 0x00, 0x20], &mut json).unwrap();
/// assert_eq!(json, br#"{"7":[1.0,-1]}"#);
/// ```
pub fn cbor_to_json<S: Sink + ?Sized>(cbor: &[u8], sink: &mut S) -> Result<(), WriteError> {
    let mut scanner = cbor::Scanner::new(cbor);
    // One bit for each open level: 1 is an object.
    let mut objects = 0u64;
    let mut separator: &[u8] = b"";
    while let Some(token) = scanner.next()? {
        use cbor::Token;
        if token == Token::Tag {
            continue;
        }
        if token == Token::End {
            sink.put(if objects & 1 == 1 { b"}" } else { b"]" })?;
            objects >>= 1;
            separator = b",";
            continue;
        }
        sink.put(separator)?;
        if scanner.is_key() {
            write_key(token, scanner.at(), sink)?;
            separator = b":";
            continue;
        }
        separator = b",";
        match token {
            Token::Uint(value) => json::write_uint(value, sink)?,
            Token::Nint(value) => write_nint(value, sink)?,
            Token::Bytes(bytes) => {
                sink.put(b"\"")?;
                base64::encode(bytes.iter(), base64::URL, false, sink)?;
                sink.put(b"\"")?;
            }
            Token::Text(text) => json::write_string(text, sink)?,
            Token::BeginArray | Token::BeginMap => {
                let object = token == Token::BeginMap;
                sink.put(if object { b"{" } else { b"[" })?;
                objects = objects << 1 | u64::from(object);
                separator = b"";
            }
            Token::Boolean(value) => sink.put(json::boolean(value))?,
            Token::Float(value) if value.is_finite() => {
                sink.put(zmij::Buffer::new().format_finite(value).as_bytes())?;
            }
            Token::Float(_) | Token::Null | Token::Undefined | Token::Simple => sink.put(b"null")?,
            Token::Tag | Token::End => {}
        }
    }
    Ok(())
}

fn write_key<S: Sink + ?Sized>(key: cbor::Token<'_>, at: usize, sink: &mut S) -> Result<(), WriteError> {
    match key {
        cbor::Token::Text(text) => return Ok(json::write_string(text, sink)?),
        cbor::Token::Uint(value) => {
            sink.put(b"\"")?;
            json::write_uint(value, sink)?;
        }
        cbor::Token::Nint(value) => {
            sink.put(b"\"")?;
            write_nint(value, sink)?;
        }
        _ => return Err(Malformed::new(Reason::MapKey, at).into()),
    }
    Ok(sink.put(b"\"")?)
}

/// The number -1 - n, which may be as low as -2^64.
fn write_nint<S: Sink + ?Sized>(n: u64, sink: &mut S) -> Result<(), super::Full> {
    sink.put(b"-")?;
    match n.checked_add(1) {
        Some(magnitude) => json::write_uint(magnitude, sink),
        None => sink.put(TWO_TO_64.as_bytes()),
    }
}

const TWO_TO_64: &str = "18446744073709551616";

/// Writes one JSON value as CBOR. Arrays and maps have indefinite length, so that nobody has to count first.
///
/// A number with neither fraction nor exponent between -2^64 and 2^64 - 1 becomes an integer, any other the
/// nearest double (beyond its range: infinity).
///
/// # Errors
/// What is not JSON, or [`WriteError::Full`].
///
/// ```
/// use longwire_core::session::transcode;
///
/// let mut cbor = heapless::Vec::<u8, 32>::new();
/// transcode::json_to_cbor(br#"{"a":[-1,1.0]}"#, &mut cbor).unwrap();
/// assert_eq!(cbor, b"\xbf\x61a\x9f\x20\xfb\x3f\xf0\0\0\0\0\0\0\xff\xff");
/// ```
pub fn json_to_cbor<S: Sink + ?Sized>(json: &[u8], sink: &mut S) -> Result<(), WriteError> {
    let mut scanner = json::Scanner::new(json);
    while let Some(token) = scanner.next()? {
        use json::Token;
        match token {
            Token::BeginObject => sink.put(byte::BEGIN_MAP)?,
            Token::BeginArray => sink.put(byte::BEGIN_ARRAY)?,
            Token::EndObject | Token::EndArray => sink.put(byte::BREAK)?,
            Token::Name(text) | Token::String(text) => cbor::write_text(text, sink)?,
            Token::Number(text, integer) => match integer.then(|| integer_head(text)).flatten() {
                Some((major, argument)) => cbor::write_head(major, argument, sink)?,
                // The scanner has checked the grammar, of which Rust's is a superset.
                None => write_double(text.parse().unwrap_or(f64::NAN), sink)?,
            },
            Token::Boolean(value) => sink.put(cbor::boolean(value))?,
            Token::Null => sink.put(byte::NULL)?,
        }
    }
    Ok(())
}

/// The number as an integer, if it is within 64 bits.
fn integer_head(text: &str) -> Option<(u8, u64)> {
    match text.strip_prefix('-') {
        None => Some((major::UINT, text.parse().ok()?)),
        Some("0") => Some((major::UINT, 0)),
        Some(TWO_TO_64) => Some((major::NINT, u64::MAX)),
        Some(magnitude) => Some((major::NINT, magnitude.parse::<u64>().ok()?.checked_sub(1)?)),
    }
}

fn write_double<S: Sink + ?Sized>(value: f64, sink: &mut S) -> Result<(), super::Full> {
    let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
    sink.put(&[0xfb, a, b, c, d, e, f, g, h])
}
