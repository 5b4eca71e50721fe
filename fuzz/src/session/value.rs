//! Values: judged as other readers judge them, and the same in both forms (`core/PROTOCOL.md` section 4.1).

use super::written;
use longwire_core::session::{MAX_DEPTH, Malformed, Reason, WriteError, cbor, json, transcode};
use serde_json::Value;

/// Any bytes, as a JSON value.
pub(super) fn json(bytes: &[u8]) {
    let judgement = json::validate(bytes);
    let compact = written(|sink| json::compact(bytes, sink));
    let cbor = written(|sink| transcode::json_to_cbor(bytes, sink));
    assert_eq!(refusal(&compact), judgement.err());
    assert_eq!(refusal(&cbor), judgement.err());

    let model = std::str::from_utf8(bytes).ok().map(serde_json::from_str::<Value>);
    let model = match model {
        Some(Ok(value)) => Some(value),
        // The one thing that it knows no number for: it stops there, so what follows is not judged.
        Some(Err(error)) if error.to_string().starts_with("number out of range") => return,
        _ => None,
    };
    let expected = model.filter(|value| depth(value) <= MAX_DEPTH);
    assert_eq!(judgement.is_ok(), expected.is_some(), "{judgement:?}: {}", String::from_utf8_lossy(bytes));
    let (Ok(compact), Ok(cbor), Some(expected)) = (compact, cbor, expected) else { return };
    assert_eq!(serde_json::from_slice::<Value>(&compact).unwrap(), expected);
    assert_eq!(written(|sink| json::compact(&compact, sink)).as_deref(), Ok(&compact[..]));
    assert!(!compact.iter().any(|b| matches!(b, b'\n' | b'\r')), "a line break in a line of SSE");

    // To CBOR and back: the same value, and from then on nothing changes.
    assert_eq!(cbor::validate(&cbor), Ok(()));
    let back = written(|sink| transcode::cbor_to_json(&cbor, sink)).unwrap();
    same(&serde_json::from_slice(&back).unwrap(), &expected);
    assert_eq!(written(|sink| transcode::json_to_cbor(&back, sink)).as_deref(), Ok(&cbor[..]));
}

/// Any bytes, as a CBOR data item.
pub(super) fn cbor(bytes: &[u8]) {
    let judgement = cbor::validate(bytes);
    let mut rest = bytes;
    let well_formed = item(&mut rest, 0, false) == Some(Item::Whole) && rest.is_empty();
    assert_eq!(judgement.is_ok(), well_formed, "{judgement:?}: {bytes:02x?}");
    let json = match written(|sink| transcode::cbor_to_json(bytes, sink)) {
        Ok(json) => json,
        Err(WriteError::Malformed(Malformed { reason: Reason::MapKey, .. })) => return,
        Err(error) => return assert_eq!(error, WriteError::Malformed(judgement.unwrap_err())),
    };
    assert!(well_formed);
    // What JSON has no form for was lost on the way; from then on nothing is.
    assert_eq!(written(|sink| json::compact(&json, sink)).as_deref(), Ok(&json[..]));
    let back = written(|sink| transcode::json_to_cbor(&json, sink)).unwrap();
    assert_eq!(written(|sink| transcode::cbor_to_json(&back, sink)).as_deref(), Ok(&json[..]));
    self::json(&json);
}

fn refusal<T>(result: &Result<T, WriteError>) -> Option<Malformed> {
    match result {
        Ok(_) => None,
        Err(WriteError::Malformed(malformed)) => Some(*malformed),
        Err(WriteError::Full) => panic!("a sink without a limit is full"),
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The same, where an integer and a float of the same value are one number: the text `-0` is an integer to us, and a
/// float to the model.
fn same(found: &Value, expected: &Value) {
    match (found, expected) {
        (Value::Number(one), Value::Number(other)) if one != other => {
            let integers = one.is_u64() || one.is_i64() || other.is_u64() || other.is_i64();
            assert!(!integers || one.as_f64() == Some(0.0), "{one} is not {other}");
            assert_eq!(one.as_f64(), other.as_f64());
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            one.iter().zip(other).for_each(|(one, other)| same(one, other));
        }
        (Value::Object(one), Value::Object(other)) if one.len() == other.len() => {
            for (name, value) in one {
                same(value, &other[name]);
            }
        }
        _ => assert_eq!(found, expected),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Whole,
    Break,
}

/// RFC 8949 appendix C, with texts of UTF-8 (section 3.1) and our limit of nesting: takes one item from the front.
fn item(bytes: &mut &[u8], depth: usize, may_break: bool) -> Option<Item> {
    let first = take(bytes, 1)?[0];
    let (major, info) = (first >> 5, first & 31);
    let argument = match info {
        0..24 => u64::from(info),
        24..28 => take(bytes, 1 << (info - 24))?.iter().fold(0, |argument, b| argument << 8 | u64::from(*b)),
        31 => return indefinite(bytes, major, depth, may_break),
        _ => return None,
    };
    match major {
        2 | 3 => drop(string(bytes, major, argument)?),
        4..7 => {
            if depth == MAX_DEPTH {
                return None;
            }
            let items = [u128::from(argument), 2 * u128::from(argument), 1][usize::from(major - 4)];
            for _ in 0..items {
                item(bytes, depth + 1, false)?;
            }
        }
        7 if info == 24 && argument < 32 => return None,
        _ => {}
    }
    Some(Item::Whole)
}

fn indefinite(bytes: &mut &[u8], major: u8, depth: usize, may_break: bool) -> Option<Item> {
    match major {
        2 | 3 => loop {
            let first = take(bytes, 1)?[0];
            if first == 0xff {
                return Some(Item::Whole);
            }
            let len = match first & 31 {
                info @ 0..24 => u64::from(info),
                info @ 24..28 => {
                    take(bytes, 1 << (info - 24))?.iter().fold(0, |len, b| len << 8 | u64::from(*b))
                }
                _ => return None,
            };
            if first >> 5 != major {
                return None;
            }
            string(bytes, major, len)?;
        },
        4 | 5 if depth < MAX_DEPTH => {
            while item(bytes, depth + 1, true)? != Item::Break {
                if major == 5 {
                    item(bytes, depth + 1, false)?;
                }
            }
            Some(Item::Whole)
        }
        7 if may_break => Some(Item::Break),
        _ => None,
    }
}

fn string(bytes: &mut &[u8], major: u8, len: u64) -> Option<()> {
    let string = take(bytes, usize::try_from(len).ok()?)?;
    (major == 2 || std::str::from_utf8(string).is_ok()).then_some(())
}

fn take<'b>(bytes: &mut &'b [u8], n: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(n)?;
    *bytes = rest;
    Some(taken)
}
