//! `data` between the two forms (`PROTOCOL.md` section 4.1).
#![cfg(feature = "transcode")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that is wrong may stop")]

use longwire_core::session::{
    ClientMessage, Data, Full, Reason, SliceSink, WriteError, cbor, json,
    transcode::{cbor_to_json, json_to_cbor},
};

fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits
        .bytes()
        .filter(|b| *b != b' ')
        .map(|b| u8::try_from((b as char).to_digit(16).unwrap()).unwrap())
        .collect();
    assert_eq!(digits.len() % 2, 0);
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn to_json(cbor: &[u8]) -> Result<String, WriteError> {
    let mut out = Vec::new();
    cbor_to_json(cbor, &mut |piece: &[u8]| {
        out.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(String::from_utf8(out).unwrap())
}

fn to_cbor(json: &[u8]) -> Result<Vec<u8>, WriteError> {
    let mut out = Vec::new();
    json_to_cbor(json, &mut |piece: &[u8]| {
        out.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(out)
}

/// The reason, whatever the place.
fn reason<T>(result: Result<T, WriteError>) -> Option<Reason> {
    match result {
        Err(WriteError::Malformed(malformed)) => Some(malformed.reason),
        _ => None,
    }
}

#[test]
fn rfc_8949_appendix_a() {
    let one_to_25: String = (1..=25).map(|n| format!(",{n}")).collect();
    let one_to_25 = format!("[{}]", &one_to_25[1..]);
    for (cbor, json) in [
        ("00", "0"),
        ("01", "1"),
        ("0a", "10"),
        ("17", "23"),
        ("1818", "24"),
        ("1819", "25"),
        ("1864", "100"),
        ("1903e8", "1000"),
        ("1a000f4240", "1000000"),
        ("1b000000e8d4a51000", "1000000000000"),
        ("1bffffffffffffffff", "18446744073709551615"),
        ("c249010000000000000000", r#""AQAAAAAAAAAA""#),
        ("3bffffffffffffffff", "-18446744073709551616"),
        ("c349010000000000000000", r#""AQAAAAAAAAAA""#),
        ("20", "-1"),
        ("29", "-10"),
        ("3863", "-100"),
        ("3903e7", "-1000"),
        ("f90000", "0.0"),
        ("f98000", "-0.0"),
        ("f93c00", "1.0"),
        ("fb3ff199999999999a", "1.1"),
        ("f93e00", "1.5"),
        ("f97bff", "65504.0"),
        ("fa47c35000", "100000.0"),
        ("fa7f7fffff", "3.4028234663852886e+38"),
        ("fb7e37e43c8800759c", "1e+300"),
        ("f90001", "5.960464477539063e-8"),
        ("f90400", "0.00006103515625"),
        ("f9c400", "-4.0"),
        ("fbc010666666666666", "-4.1"),
        ("f97c00", "null"),
        ("f97e00", "null"),
        ("f9fc00", "null"),
        ("fa7f800000", "null"),
        ("fa7fc00000", "null"),
        ("faff800000", "null"),
        ("fb7ff0000000000000", "null"),
        ("fb7ff8000000000000", "null"),
        ("fbfff0000000000000", "null"),
        ("f4", "false"),
        ("f5", "true"),
        ("f6", "null"),
        ("f7", "null"),
        ("f0", "null"),
        ("f8ff", "null"),
        ("c074323031332d30332d32315432303a30343a30305a", r#""2013-03-21T20:04:00Z""#),
        ("c11a514b67b0", "1363896240"),
        ("c1fb41d452d9ec200000", "1363896240.5"),
        ("d74401020304", r#""AQIDBA""#),
        ("d818456449455446", r#""ZElFVEY""#),
        ("d82076687474703a2f2f7777772e6578616d706c652e636f6d", r#""http://www.example.com""#),
        ("40", r#""""#),
        ("4401020304", r#""AQIDBA""#),
        ("60", r#""""#),
        ("6161", r#""a""#),
        ("6449455446", r#""IETF""#),
        ("62225c", r#""\"\\""#),
        ("62c3bc", "\"\u{fc}\""),
        ("63e6b0b4", "\"\u{6c34}\""),
        ("64f0908591", "\"\u{10151}\""),
        ("80", "[]"),
        ("83010203", "[1,2,3]"),
        ("8301820203820405", "[1,[2,3],[4,5]]"),
        ("98190102030405060708090a0b0c0d0e0f101112131415161718181819", &one_to_25),
        ("a0", "{}"),
        ("a201020304", r#"{"1":2,"3":4}"#),
        ("a26161016162820203", r#"{"a":1,"b":[2,3]}"#),
        ("826161a161626163", r#"["a",{"b":"c"}]"#),
        ("a56161614161626142616361436164614461656145", r#"{"a":"A","b":"B","c":"C","d":"D","e":"E"}"#),
        ("5f42010243030405ff", r#""AQIDBAU""#),
        ("7f657374726561646d696e67ff", r#""streaming""#),
        ("9fff", "[]"),
        ("9f018202039f0405ffff", "[1,[2,3],[4,5]]"),
        ("9f01820203820405ff", "[1,[2,3],[4,5]]"),
        ("83018202039f0405ff", "[1,[2,3],[4,5]]"),
        ("83019f0203ff820405", "[1,[2,3],[4,5]]"),
        ("9f0102030405060708090a0b0c0d0e0f101112131415161718181819ff", &one_to_25),
        ("bf61610161629f0203ffff", r#"{"a":1,"b":[2,3]}"#),
        ("826161bf61626163ff", r#"["a",{"b":"c"}]"#),
        ("bf6346756ef563416d7421ff", r#"{"Fun":true,"Amt":-2}"#),
    ] {
        let bytes = hex(cbor);
        assert_eq!(cbor::validate(&bytes), Ok(()), "{cbor}");
        let written = to_json(&bytes).unwrap();
        assert_eq!(written, json, "{cbor}");
        assert_eq!(json::validate(written.as_bytes()), Ok(()));
        for cut in 0..bytes.len() {
            assert!(cbor::validate(&bytes[..cut]).is_err(), "{cbor} cut at {cut}");
            assert!(to_json(&bytes[..cut]).is_err(), "{cbor} cut at {cut}");
        }
    }
    // RFC 7049 still had this as simple(24): in two bytes, values below 32 are no longer well-formed (section 3.3).
    assert_eq!(reason(to_json(&hex("f818"))), Some(Reason::Head));
}

#[test]
fn section_4_1_from_json() {
    for (json, cbor) in [
        ("0", "00"),
        ("-0", "00"),
        ("-1", "20"),
        ("24", "1818"),
        ("255", "18ff"),
        ("256", "190100"),
        ("65536", "1a00010000"),
        ("4294967295", "1affffffff"),
        ("4294967296", "1b0000000100000000"),
        ("9007199254740993", "1b0020000000000001"),
        ("18446744073709551615", "1bffffffffffffffff"),
        ("18446744073709551616", "fb43f0000000000000"),
        ("-18446744073709551616", "3bffffffffffffffff"),
        ("-18446744073709551615", "3bfffffffffffffffe"),
        ("-18446744073709551617", "fbc3f0000000000000"),
        ("-9223372036854775809", "3b8000000000000000"),
        ("1.0", "fb3ff0000000000000"),
        ("1e0", "fb3ff0000000000000"),
        ("-0.0", "fb8000000000000000"),
        ("0.1", "fb3fb999999999999a"),
        ("5e-324", "fb0000000000000001"),
        ("1e-400", "fb0000000000000000"),
        ("1e400", "fb7ff0000000000000"),
        ("-1E+400", "fbfff0000000000000"),
        ("2.2250738585072011e-308", "fb000fffffffffffff"),
        ("\"\"", "60"),
        (r#""\u00e9\n\/\ud83c\udf21""#, "68c3a90a2ff09f8ca1"),
        ("[ ]", "9fff"),
        ("{ }", "bfff"),
        (r#" {"a" : [true, false, null]} "#, "bf6161 9f f5f4f6 ff ff"),
    ] {
        assert_eq!(to_cbor(json.as_bytes()).as_deref(), Ok(&hex(cbor)[..]), "{json}");
        for cut in 0..json.trim_end().len() {
            let cut = &json[..cut];
            // A number that is cut may still be a number.
            assert_eq!(to_cbor(cut.as_bytes()).is_ok(), json::validate(cut.as_bytes()).is_ok(), "{cut}");
        }
    }
}

#[test]
fn section_4_1_keys() {
    for (cbor, json) in [
        ("a100 00", r#"{"0":0}"#),
        ("a120 00", r#"{"-1":0}"#),
        ("a11bffffffffffffffff 00", r#"{"18446744073709551615":0}"#),
        ("a13bffffffffffffffff 00", r#"{"-18446744073709551616":0}"#),
        ("a1617f 00", "{\"\u{7f}\":0}"),
        ("a17f61616162ff 00", r#"{"ab":0}"#),
        ("a1c1616100", r#"{"a":0}"#),
        ("a1c1c20100", r#"{"1":0}"#),
        ("bf00a10102 03bf0405ff ff", r#"{"0":{"1":2},"3":{"4":5}}"#),
        ("a162220aa0", r#"{"\"\n":{}}"#),
    ] {
        assert_eq!(to_json(&hex(cbor)).as_deref(), Ok(json));
    }
    for cbor in [
        "a14000",
        "a1f400",
        "a1f600",
        "a1f7 00",
        "a1f9000000",
        "a18000",
        "a1a000",
        "a1c1f600",
        "a1c18000",
        "a1f800",
    ] {
        let found = reason(to_json(&hex(cbor)));
        assert!(matches!(found, Some(Reason::MapKey | Reason::Head)), "{cbor} {found:?}");
    }
    // A value that looks the same is none of a key's business.
    assert_eq!(to_json(&hex("a10040")).as_deref(), Ok(r#"{"0":""}"#));
}

#[test]
fn nesting_is_limited_in_both_directions() {
    for (depth, found) in [(32, None), (33, Some(Reason::TooDeep)), (1_000_000, Some(Reason::TooDeep))] {
        let json = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(reason(to_cbor(json.as_bytes())), found);
        let cbor = [vec![0x81; depth - 1], vec![0x80]].concat();
        assert_eq!(reason(to_json(&cbor)), found);
        if found.is_none() {
            assert_eq!(to_json(&cbor).unwrap(), json);
            assert_eq!(to_json(&to_cbor(json.as_bytes()).unwrap()).unwrap(), json);
        }
    }
}

#[test]
fn a_float_is_the_shortest_text_of_its_double() {
    // As ECMAScript and Python print the same doubles, but for the fraction that an integral value keeps.
    for (value, json) in [
        (f64::MAX, "1.7976931348623157e+308"),
        (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
        (5e-324, "5e-324"),
        (0.1, "0.1"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e15, "1000000000000000.0"),
        (1e16, "1e+16"),
        (123_456_789.0, "123456789.0"),
        (-1e-7, "-1e-7"),
        (9_007_199_254_740_993.0, "9007199254740992.0"),
        (f64::from(0.1f32), "0.10000000149011612"),
    ] {
        let cbor = [&[0xfb][..], &value.to_be_bytes()].concat();
        assert_eq!(to_json(&cbor).unwrap(), json);
        assert_eq!(to_cbor(json.as_bytes()).unwrap(), cbor);
    }
    // All half floats, against the definition in RFC 8949 appendix D.
    for bits in 0..=u16::MAX {
        let (exponent, mantissa) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
        let magnitude = match exponent {
            0 => mantissa * 2f64.powi(-24),
            31 => f64::NAN, // or infinite: null in either case
            _ => (mantissa + 1024.0) * 2f64.powi(exponent - 25),
        };
        let value = if bits & 0x8000 == 0 { magnitude } else { -magnitude };
        let json = to_json(&[&[0xf9][..], &bits.to_be_bytes()].concat()).unwrap();
        match value.is_nan() {
            true => assert_eq!(json, "null"),
            false => assert_eq!(json.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{bits:04x}"),
        }
    }
}

#[test]
fn a_sink_that_is_full_at_any_byte_ends_it() {
    let cbor = hex("a3 6161 82f97e00fb3fb999999999999a 24 4401020304 00 3bffffffffffffffff");
    let json = to_json(&cbor).unwrap();
    assert_eq!(json, r#"{"a":[null,0.1],"-5":"AQIDBA","0":-18446744073709551616}"#);
    let back = to_cbor(json.as_bytes()).unwrap();
    for room in 0..json.len().max(back.len()) {
        let mut bytes = vec![0; room];
        let mut sink = SliceSink::new(&mut bytes);
        assert_eq!(cbor_to_json(&cbor, &mut sink).is_ok(), room >= json.len());
        assert!(json.as_bytes().starts_with(sink.written()));
        let mut sink = SliceSink::new(&mut bytes);
        assert_eq!(json_to_cbor(json.as_bytes(), &mut sink).is_ok(), room >= back.len());
        assert!(back.starts_with(sink.written()));
    }
    assert_eq!(cbor_to_json(&cbor, &mut |_: &[u8]| Err(Full)), Err(WriteError::Full));
}

#[test]
fn a_message_of_one_form_is_written_in_the_other() {
    let wire = br#"{"type":"pub","n":1,"topic":"t\u00e9","data":{"a":[1,-0.5]}}"#;
    let message = json::decode_client(wire).unwrap();
    let mut out = heapless::Vec::<u8, 128>::new();
    cbor::encode_client(&message, &mut out).unwrap();
    assert_eq!(&out[..], hex("bf 0003 0701 016374c3a9 04 bf61619f01fbbfe0000000000000ffff ff"));
    let binary = cbor::decode_client(&out).unwrap();
    let mut back = heapless::Vec::<u8, 128>::new();
    json::encode_client(&binary, &mut back).unwrap();
    assert_eq!(back, "{\"type\":\"pub\",\"n\":1,\"topic\":\"t\u{e9}\",\"data\":{\"a\":[1,-0.5]}}".as_bytes());
    // Bytes in base64 with escapes, and in chunks.
    let wire = br#"{"type":"pub","topic":"t","bytes":"\/\u002f8="}"#;
    out.clear();
    cbor::encode_client(&json::decode_client(wire).unwrap(), &mut out).unwrap();
    assert_eq!(&out[..], hex("bf 0003 016174 0542ffff ff"));
    let chunked = hex("bf 0003 016174 055f41ff41ffff ff");
    back.clear();
    json::encode_client(&cbor::decode_client(&chunked).unwrap(), &mut back).unwrap();
    assert_eq!(back, br#"{"type":"pub","topic":"t","bytes":"//8="}"#);
    // Data that its maker never checked stops the message, with the reason.
    let data = Data::Cbor(&[0xa1, 0x40, 0x00]);
    let message = ClientMessage::Pub { n: None, topic: "t".into(), key: None, data };
    assert_eq!(reason(json::encode_client(&message, &mut back)), Some(Reason::MapKey));
    let message = ClientMessage::Pub { n: None, topic: "t".into(), key: None, data: Data::Json(b"[1,]") };
    assert_eq!(reason(cbor::encode_client(&message, &mut back)), Some(Reason::Grammar));
}

mod properties {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<f32>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..8)
                    .prop_map(|map| Value::from(map.into_iter().collect::<serde_json::Map<_, _>>())),
            ]
        })
    }

    /// Everything outside of ASCII as escapes, as Python's `json.dumps` does, and slashes too.
    fn ascii(json: &str) -> String {
        let mut out = String::new();
        for unit in json.encode_utf16() {
            match char::from_u32(unit.into()).filter(char::is_ascii) {
                Some('/') => out.push_str("\\/"),
                Some(c) => out.push(c),
                None => out.push_str(&format!("\\u{unit:04x}")),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn json_to_cbor_and_back_is_the_same_value(value in any_json()) {
            let json = value.to_string();
            let cbor = to_cbor(json.as_bytes()).unwrap();
            prop_assert_eq!(cbor::validate(&cbor), Ok(()));
            let back = to_json(&cbor).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Value>(&back).unwrap(), &value);
            // From then on nothing changes any more, and escapes make no difference.
            prop_assert_eq!(to_cbor(back.as_bytes()).unwrap(), &cbor[..]);
            prop_assert_eq!(to_cbor(ascii(&json).as_bytes()).unwrap(), &cbor[..]);
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(to_cbor(pretty.as_bytes()).unwrap(), cbor);
            let mut compact = Vec::new();
            json::compact(pretty.as_bytes(), &mut |piece: &[u8]| { compact.extend_from_slice(piece); Ok(()) }).unwrap();
            prop_assert_eq!(String::from_utf8(compact).unwrap(), json);
        }

        #[test]
        fn what_cbor_becomes_is_json_that_stays(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            if let Ok(json) = to_json(&bytes) {
                prop_assert_eq!(cbor::validate(&bytes), Ok(()));
                prop_assert_eq!(json::validate(json.as_bytes()), Ok(()));
                prop_assert!(!json.contains(['\n', '\r']));
                let cbor = to_cbor(json.as_bytes()).unwrap();
                prop_assert_eq!(to_json(&cbor).unwrap(), json);
            }
        }

        #[test]
        fn integers_are_exact(value: i128, shift in 60u32..128) {
            let value = value >> shift;
            let json = value.to_string();
            let back = to_json(&to_cbor(json.as_bytes()).unwrap()).unwrap();
            if (-(1 << 64)..1 << 64).contains(&value) {
                prop_assert_eq!(back, json);
            } else {
                prop_assert_eq!(back.parse::<f64>().unwrap(), value as f64);
            }
        }

        #[test]
        fn any_bytes_are_taken_or_refused_without_panic(bytes: Vec<u8>) {
            let _ = (to_json(&bytes), to_cbor(&bytes));
        }
    }
}
