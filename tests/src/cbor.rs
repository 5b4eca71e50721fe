//! CBOR (RFC 8949), as far as a device speaks it.

use serde_json::Value;

/// The item at the beginning of `bytes`, which go on behind it. Keys of maps become texts, byte strings arrays; `None` when
/// it is not whole, or of a kind that nobody here sends.
pub fn decode(bytes: &mut &[u8]) -> Option<Value> {
    let (&first, rest) = bytes.split_first()?;
    *bytes = rest;
    let argument = match first & 0x1f {
        small @ 0..24 => u64::from(small),
        24 => u64::from(take::<1>(bytes)?[0]),
        25 => u64::from(u16::from_be_bytes(take(bytes)?)),
        26 => u64::from(u32::from_be_bytes(take(bytes)?)),
        27 => u64::from_be_bytes(take(bytes)?),
        // Up to a "break", for arrays and maps.
        31 if matches!(first >> 5, 4 | 5) => u64::MAX,
        _ => return None,
    };
    Some(match first >> 5 {
        0 => argument.into(),
        1 => (-1 - i64::try_from(argument).ok()?).into(),
        2 => text(bytes, argument)?.to_vec().into(),
        3 => std::str::from_utf8(text(bytes, argument)?).ok()?.into(),
        4 => items(bytes, argument, decode)?.into(),
        5 => {
            let entries = items(bytes, argument, |bytes| match (decode(bytes)?, decode(bytes)?) {
                (Value::String(key), value) => Some((key, value)),
                (key, value) => Some((key.to_string(), value)),
            });
            Value::Object(entries?.into_iter().collect())
        }
        7 if argument == 20 || argument == 21 => (argument == 21).into(),
        7 if argument == 22 => Value::Null,
        _ => return None,
    })
}

/// So many items, or fewer if there is a "break" behind them.
fn items<'a, T>(
    bytes: &mut &'a [u8],
    most: u64,
    mut item: impl FnMut(&mut &'a [u8]) -> Option<T>,
) -> Option<Vec<T>> {
    let mut items = Vec::new();
    while (items.len() as u64) < most {
        match bytes.split_first()? {
            (0xff, rest) if most == u64::MAX => {
                *bytes = rest;
                break;
            }
            _ => items.push(item(bytes)?),
        }
    }
    Some(items)
}

fn text<'a>(bytes: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (text, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
    *bytes = rest;
    Some(text)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (chunk, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*chunk)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::decode;

    #[test]
    fn examples_of_rfc_8949_appendix_a() {
        for (bytes, value) in [
            (&[0x18, 0x64][..], json!(100)),
            (&[0x1a, 0x00, 0x0f, 0x42, 0x40], json!(1_000_000)),
            (&[0x38, 0x63], json!(-100)),
            (&[0x82, 0xf4, 0xf5], json!([false, true])),
            (&[0xf6], json!(null)),
            (&[0xa2, 0x61, 0x61, 0x01, 0x61, 0x62, 0x82, 0x02, 0x03], json!({"a": 1, "b": [2, 3]})),
            (&[0xa2, 0x01, 0x02, 0x03, 0x04], json!({"1": 2, "3": 4})),
            (&[0x44, 1, 2, 3, 4], json!([1, 2, 3, 4])),
            (&[0x9f, 0x01, 0x82, 0x02, 0x03, 0xff], json!([1, [2, 3]])),
            (&[0xbf, 0x61, 0x61, 0x01, 0xff], json!({"a": 1})),
        ] {
            let mut rest = bytes;
            assert_eq!(decode(&mut rest), Some(value));
            assert!(rest.is_empty());
            assert_eq!(decode(&mut &bytes[..bytes.len() - 1]), None, "{bytes:x?} is not whole");
        }
    }
}
