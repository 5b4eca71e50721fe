//! `data` from one form to the other (`PROTOCOL.md` section 4.1), in one pass.

use super::{
    Full, Malformed, Reason, Sink, WriteError,
    bytes::base64,
    cbor::{self, Token, byte, major},
    json,
};

#[cfg(target_os = "none")]
use super::decimal::parse;
use crate::digits::decimal;

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
        match token {
            Token::Tag => continue,
            Token::End => {
                sink.put(if objects & 1 == 1 { b"}" } else { b"]" })?;
                objects >>= 1;
                separator = b",";
                continue;
            }
            _ => sink.put(separator)?,
        }
        if scanner.is_key() {
            write_key(token, scanner.at(), sink)?;
            separator = b":";
            continue;
        }
        separator = b",";
        match token {
            Token::BeginArray => {
                sink.put(b"[")?;
                objects <<= 1;
                separator = b"";
            }
            Token::BeginMap => {
                sink.put(b"{")?;
                objects = objects << 1 | 1;
                separator = b"";
            }
            scalar => write_scalar(scalar, sink)?,
        }
    }
    Ok(())
}

fn write_scalar<S: Sink + ?Sized>(scalar: Token<'_>, sink: &mut S) -> Result<(), Full> {
    match scalar {
        Token::Uint(value) => json::write_uint(value, sink),
        Token::Nint(value) => write_nint(value, sink),
        Token::Text(text) => json::write_string(text, sink),
        Token::Bytes(bytes) => {
            sink.put(b"\"")?;
            base64::encode(bytes.iter(), base64::URL, false, sink)?;
            sink.put(b"\"")
        }
        Token::Boolean(value) => sink.put(json::boolean(value)),
        Token::Half(bits) => write_float(half(bits), sink),
        Token::Single(bits) => write_float(f32::from_bits(u32::try_from(bits).unwrap_or(0)).into(), sink),
        Token::Double(bits) => write_float(f64::from_bits(bits), sink),
        // The others are `null`, and neither beginnings nor ends come here.
        _ => sink.put(b"null"),
    }
}

fn write_float<S: Sink + ?Sized>(value: f64, sink: &mut S) -> Result<(), Full> {
    match value.is_finite() {
        true => sink.put(zmij::Buffer::new().format_finite(value).as_bytes()),
        false => sink.put(b"null"),
    }
}

/// Half precision (RFC 8949 appendix D), by moving its bits to where a double has them.
fn half(bits: u64) -> f64 {
    let (sign, exponent, mantissa) = (bits >> 15 & 1, bits >> 10 & 0x1f, bits & 0x3ff);
    let magnitude = match exponent {
        // 2^-24 for each; at most 1023 of them, so exact.
        0 => (f64::from(u16::try_from(mantissa).unwrap_or(0)) / 16_777_216.0).to_bits(),
        31 => 0x7ff << 52 | mantissa << 42,
        _ => (exponent + 1023 - 15) << 52 | mantissa << 42,
    };
    f64::from_bits(sign << 63 | magnitude)
}

fn write_key<S: Sink + ?Sized>(key: Token<'_>, at: usize, sink: &mut S) -> Result<(), WriteError> {
    match key {
        Token::Text(text) => return Ok(json::write_string(text, sink)?),
        Token::Uint(value) => {
            sink.put(b"\"")?;
            json::write_uint(value, sink)?;
        }
        Token::Nint(value) => {
            sink.put(b"\"")?;
            write_nint(value, sink)?;
        }
        _ => return Err(Malformed::new(Reason::MapKey, at).into()),
    }
    Ok(sink.put(b"\"")?)
}

/// The number -1 - n, which may be as low as -2^64.
fn write_nint<S: Sink + ?Sized>(n: u64, sink: &mut S) -> Result<(), Full> {
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
        match token {
            json::Token::BeginObject => sink.put(byte::BEGIN_MAP)?,
            json::Token::BeginArray => sink.put(byte::BEGIN_ARRAY)?,
            json::Token::EndObject | json::Token::EndArray => sink.put(byte::BREAK)?,
            json::Token::Name(text) | json::Token::String(text) => cbor::write_text(text, sink)?,
            json::Token::Number(text, integer) => match integer.then(|| integer_head(text)).flatten() {
                Some((major, argument)) => cbor::write_head(major, argument, sink)?,
                None => write_double(nearest_double(text), sink)?,
            },
            json::Token::Boolean(value) => sink.put(cbor::boolean(value))?,
            json::Token::Null => sink.put(byte::NULL)?,
        }
    }
    Ok(())
}

/// The number as an integer, if it is within 64 bits.
fn integer_head(text: &str) -> Option<(u8, u64)> {
    match text.strip_prefix('-') {
        None => Some((major::UINT, decimal(text.as_bytes())?)),
        Some("0") => Some((major::UINT, 0)),
        Some(TWO_TO_64) => Some((major::NINT, u64::MAX)),
        Some(magnitude) => Some((major::NINT, decimal(magnitude.as_bytes())?.checked_sub(1)?)),
    }
}

/// The bits of the double nearest to a number, of which the scanner has checked the grammar.
fn nearest_double(number: &str) -> u64 {
    // Which parser is a matter of what there is little of, time or flash: both are exact.
    #[cfg(target_os = "none")]
    return parse(number);
    #[cfg(not(target_os = "none"))]
    number.parse().map_or(0, f64::to_bits)
}

fn write_double<S: Sink + ?Sized>(bits: u64, sink: &mut S) -> Result<(), Full> {
    let [a, b, c, d, e, f, g, h] = bits.to_be_bytes();
    sink.put(&[0xfb, a, b, c, d, e, f, g, h])
}
