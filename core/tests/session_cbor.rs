//! The binary form of the session protocol, from outside.
#![cfg(feature = "cbor")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that is wrong may stop"
)]

use longwire_core::{
    log::{Cursor, Since},
    session::{
        Bytes, ClientMessage, Code, Data, Event, Field, Gap, GapReason, Kind, Level, Limits, Position,
        Pressure, Reason, Refusal, ServerMessage, SliceSink, Text, Topics, cbor,
    },
};
use std::time::Duration;

const AT: Cursor = Cursor { epoch: 0x9f86_d081_884c_7d65, seq: 1042 };
/// [`AT`] as it stands in a message.
const AT_TEXT: &str = "75 '9f86d081884c7d65-1042'";

/// Bytes from hexadecimal digits and, in quotes, text as it is.
fn wire(notation: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, part) in notation.split('\'').enumerate() {
        if at % 2 == 1 {
            out.extend_from_slice(part.as_bytes());
            continue;
        }
        let digits: Vec<u8> = part
            .bytes()
            .filter(|b| *b != b' ')
            .map(|b| u8::try_from((b as char).to_digit(16).unwrap()).unwrap())
            .collect();
        assert_eq!(digits.len() % 2, 0, "{notation}");
        out.extend(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]));
    }
    out
}

fn client(message: &ClientMessage<'_>) -> Vec<u8> {
    let mut out = heapless::Vec::<u8, 65536>::new();
    cbor::encode_client(message, &mut out).unwrap();
    out.to_vec()
}

fn server(message: &ServerMessage<'_>) -> Vec<u8> {
    let mut out = heapless::Vec::<u8, 65536>::new();
    cbor::encode_server(message, &mut out).unwrap();
    out.to_vec()
}

/// The refusal of a client's message.
fn refused(notation: &str) -> (Code, Reason) {
    let bytes = wire(notation);
    let error = cbor::decode_client(&bytes).expect_err(notation);
    assert!(error.malformed.at <= bytes.len());
    (error.code, error.malformed.reason)
}

#[test]
fn section_5_every_client_message_has_its_wire() {
    let topics = Topics::from(&["a/**", "b"][..]);
    for (message, notation) in [
        (
            ClientMessage::Sub { id: Some(7), since: Some(Since::Cursor(AT)), policy: None, topics },
            &*format!("bf 0001 0a07 08{AT_TEXT} 0982 64'a/**' 61'b' ff"),
        ),
        (
            ClientMessage::Sub { id: None, since: Some(Since::Now), policy: None, topics },
            "bf 0001 0863'now' 0982 64'a/**' 61'b' ff",
        ),
        (
            ClientMessage::Unsub { id: Some(u32::MAX), topics: Topics::from(&["x"][..]) },
            "bf 0002 0a1affffffff 0981 61'x' ff",
        ),
        (
            ClientMessage::Pub {
                n: Some(24),
                topic: "t".into(),
                key: Some("k".into()),
                data: Data::Cbor(&[0xf9, 0x34, 0]),
            },
            "bf 0003 071818 0161't' 0361'k' 04f93400 ff",
        ),
        (
            ClientMessage::Pub {
                n: None,
                topic: "t".into(),
                key: None,
                data: Data::Bytes { content_type: Some("a/b".into()), bytes: Bytes::from(&[0xfb, 0xff][..]) },
            },
            "bf 0003 0161't' 0663'a/b' 0542fbff ff",
        ),
        (ClientMessage::Auth { token: "é".into() }, "bf 0004 181962'é' ff"),
    ] {
        assert_eq!(client(&message), wire(notation), "{notation}");
        assert_eq!(cbor::decode_client(&wire(notation)), Ok(message), "{notation}");
        assert_eq!(cbor::decode_server(&wire(notation)).unwrap_err().code, Code::UnknownType);
    }
}

#[test]
fn section_5_every_server_message_has_its_wire() {
    let refusal = Refusal::new(Code::Draining, "m");
    let again = refusal.retry_after(Duration::from_millis(1500));
    let refusal_text = "0f68'draining' 11f4 1061'm'";
    let limits = Limits { max_message: 1 << 20, max_topics: 64, max_inflight: 256 };
    let limits_text = "17a3 001a00100000 011840 02190100";
    let heartbeat = Duration::from_secs(20);
    let event = Event { topic: "t".into(), position: Position::At(AT), key: None, data: Data::Cbor(&[0x01]) };
    for (message, notation) in [
        (
            ServerMessage::Hello {
                session: "s".into(),
                heartbeat,
                lease: None,
                limits,
                publisher_n: None,
                window: None,
            },
            format!("bf 0010 1461's' 15194e20 16f6 {limits_text} ff"),
        ),
        (
            ServerMessage::Hello {
                session: "s".into(),
                heartbeat,
                lease: Some(heartbeat),
                limits,
                publisher_n: None,
                window: None,
            },
            format!("bf 0010 1461's' 15194e20 16194e20 {limits_text} ff"),
        ),
        (ServerMessage::Event(event), format!("bf 0011 0161't' 02{AT_TEXT} 0401 ff")),
        (
            ServerMessage::Event(Event {
                position: Position::Past(AT),
                key: Some("k".into()),
                data: Data::Bytes { content_type: None, bytes: Bytes::from(&[][..]) },
                ..event
            }),
            format!("bf 0011 0161't' 0b{AT_TEXT} 0361'k' 0540 ff"),
        ),
        (ServerMessage::CaughtUp { at: AT, id: Some(3) }, format!("bf 0012 02{AT_TEXT} 0a03 ff")),
        (
            ServerMessage::Ack { n: 5, level: Level::Ring, pressure: None },
            "bf 0013 0705 181864'ring' ff".into(),
        ),
        (
            ServerMessage::Nack { n: Some(6), refusal: again },
            format!("bf 0014 0706 {refusal_text} 121905dc ff"),
        ),
        (ServerMessage::Nack { n: None, refusal }, format!("bf 0014 {refusal_text} ff")),
        (
            ServerMessage::Gap(Gap { from: AT, to: AT, reason: GapReason::Reset, skipped: None }),
            format!("bf 0015 0c{AT_TEXT} 0d{AT_TEXT} 0e65'reset' ff"),
        ),
        (
            ServerMessage::Pressure(Pressure { lag: 5, limit: 10, skipped: 7 }),
            "bf 00181a 181e05 181f0a 181d07 ff".into(),
        ),
        (ServerMessage::Tick { at: AT }, format!("bf 0016 02{AT_TEXT} ff")),
        (ServerMessage::Renew { within: Duration::ZERO }, "bf 0017 181a00 ff".into()),
        (
            ServerMessage::Bye { refusal: again, window: Some(heartbeat) },
            format!("bf 001818 {refusal_text} 121905dc 13194e20 ff"),
        ),
        (ServerMessage::Error { refusal, id: Some(0) }, format!("bf 001819 {refusal_text} 0a00 ff")),
    ] {
        assert_eq!(server(&message), wire(&notation), "{notation}");
        assert_eq!(cbor::decode_server(&wire(&notation)), Ok(message), "{notation}");
        assert_eq!(refused(&notation).0, Code::UnknownType);
    }
}

#[test]
fn section_4_lengths_may_be_definite_or_not_and_heads_longer_than_needed() {
    let message = ClientMessage::Pub {
        n: Some(1),
        topic: "a/é".into(),
        key: Some("".into()),
        data: Data::Bytes { content_type: None, bytes: Bytes::from(&[1, 2, 3][..]) },
    };
    for notation in [
        "a5 0003 0701 0164'a/é' 0360 0543010203",
        "b805 0003 0701 0164'a/é' 0360 0543010203",
        "bb0000000000000005 1800 190003 1a00000007 1b0000000000000001 017804'a/é' 037b0000000000000000 055803010203",
        "bf 0003 0701 017f 62'a/' 60 62'é' ff 037fff 055f 4101 40 58020203 ff ff",
    ] {
        let bytes = wire(notation);
        let decoded = cbor::decode_client(&bytes);
        assert_eq!(decoded, Ok(message), "{notation}");
        // Whatever form it came in, it goes out in one piece.
        assert_eq!(client(&decoded.unwrap()), client(&message));
    }
    let bytes = wire("a2 0001 099f 7f61'a'62'/b'ff 61'c' ff");
    let Ok(ClientMessage::Sub { topics, .. }) = cbor::decode_client(&bytes) else { panic!() };
    assert!(topics.iter().eq(["a/b", "c"]));
    assert_eq!(topics.iter().next().unwrap().as_plain(), None);
}

#[test]
fn fields_of_a_later_version_are_passed_over() {
    // Keys: 99, a text, -1, an array, a tagged text, a tagged number, a tagged map, undefined.
    let notation = format!(
        "bf 0016 1863 a1819f01ff02 63'new' c1c100 20 f6 818101 00 c161'a' 5fff c101 00 d9d9f7bf01a0ff 80 f7 f97e00 \
         02{AT_TEXT} ff"
    );
    assert_eq!(cbor::decode_server(&wire(&notation)), Ok(ServerMessage::Tick { at: AT }));
    // A limit that this version does not know.
    let bytes = wire("a5 0010 1460 1500 16f6 17bf 0001 189963'new' 61'x' a0 0102 0203 ff");
    let limits = Limits { max_message: 1, max_topics: 2, max_inflight: 3 };
    let hello = ServerMessage::Hello {
        session: "".into(),
        heartbeat: Duration::ZERO,
        lease: None,
        limits,
        publisher_n: None,
        window: None,
    };
    assert_eq!(cbor::decode_server(&bytes), Ok(hello));
}

#[test]
fn section_9_what_is_wrong_has_its_code() {
    use Field as F;
    for (notation, code, reason) in [
        ("", Code::BadMessage, Reason::Truncated),
        ("80", Code::BadMessage, Reason::NotAMap),
        ("d9d9f7a0", Code::BadMessage, Reason::NotAMap),
        ("a0", Code::BadMessage, Reason::TypeFirst),
        ("bfff", Code::BadMessage, Reason::TypeFirst),
        ("a1 64'type' 01", Code::BadMessage, Reason::TypeFirst),
        ("a2 0980 0001", Code::BadMessage, Reason::TypeFirst),
        ("a1 0063'sub'", Code::BadMessage, Reason::Invalid(F::Type)),
        ("a1 0020", Code::BadMessage, Reason::Invalid(F::Type)),
        ("a1 0000", Code::UnknownType, Reason::UnknownType),
        ("a1 001b0000000100000001", Code::UnknownType, Reason::UnknownType),
        ("a1 0016", Code::UnknownType, Reason::UnknownType),
        ("a1 0001", Code::BadMessage, Reason::Missing(F::Topics)),
        ("a2 0003 0401", Code::BadMessage, Reason::Missing(F::Topic)),
        ("a2 0003 0161'a'", Code::BadMessage, Reason::Missing(F::Data)),
        ("a3 0001 0980 0980", Code::BadMessage, Reason::Twice(F::Topics)),
        ("a3 0001 0980 180980", Code::BadMessage, Reason::Twice(F::Topics)),
        ("a2 0001 0001", Code::BadMessage, Reason::Twice(F::Type)),
        ("a4 0003 0161'a' 0401 0540", Code::BadMessage, Reason::Exclusive(F::Bytes)),
        ("a2 0001 0980", Code::BadMessage, Reason::Invalid(F::Topics)),
        ("bf 0002 099fff ff", Code::BadMessage, Reason::Invalid(F::Topics)),
        ("a2 0001 0961'a'", Code::BadMessage, Reason::Invalid(F::Topics)),
        ("a2 0001 0981 41'a'", Code::BadMessage, Reason::Invalid(F::Topics)),
        ("a2 0001 0981 81 61'a'", Code::BadMessage, Reason::Invalid(F::Topics)),
        ("a2 0001 09a161'a'01", Code::BadMessage, Reason::Invalid(F::Topics)),
        ("a3 0001 0a1b0000000100000000 0980", Code::BadMessage, Reason::Invalid(F::Id)),
        ("a3 0001 0a20 0980", Code::BadMessage, Reason::Invalid(F::Id)),
        ("a3 0001 0af90000 0980", Code::BadMessage, Reason::Invalid(F::Id)),
        ("a3 0001 0ac101 0980", Code::BadMessage, Reason::Invalid(F::Id)),
        ("a2 0003 0141'a'", Code::BadMessage, Reason::Invalid(F::Topic)),
        ("a2 0003 03f6", Code::BadMessage, Reason::Invalid(F::Key)),
        ("a2 0001 0863'NOW'", Code::BadCursor, Reason::Cursor(F::Since)),
        ("a2 0001 08f6", Code::BadMessage, Reason::Invalid(F::Since)),
        ("bf 0003 04", Code::BadData, Reason::Truncated),
        ("a2 0003 041c", Code::BadData, Reason::Head),
        ("a2 0003 0481ff", Code::BadData, Reason::Break),
        ("a2 0003 0461ff", Code::BadData, Reason::Utf8),
        ("a2 0003 0560", Code::BadData, Reason::Invalid(F::Bytes)),
        ("a2 0003 057f60ff", Code::BadData, Reason::Invalid(F::Bytes)),
        ("a2 0003 055f60ff", Code::BadData, Reason::Chunk),
        ("a3 0003 0161'a' 0401 ff", Code::BadMessage, Reason::Trailing),
        ("a3 0003 0161'a' 0401 00", Code::BadMessage, Reason::Trailing),
        ("bf 0003 0161'a' 0401", Code::BadMessage, Reason::Truncated),
        ("bf 0003 0161'a' 04ff", Code::BadData, Reason::Break),
        ("a4 0003 0161'a' 0401", Code::BadMessage, Reason::Truncated),
        ("bb8000000000000001 0004", Code::BadMessage, Reason::Truncated),
        ("bbffffffffffffffff 0004", Code::BadMessage, Reason::Truncated),
        ("a2 0004 18197bffffffffffffffff", Code::BadMessage, Reason::Truncated),
    ] {
        assert_eq!(refused(notation), (code, reason), "{notation}");
    }
    let bytes = wire("a3 0003 0709 041c");
    let error = cbor::decode_client(&bytes).unwrap_err();
    assert_eq!((error.kind, error.n, error.malformed.at), (Some(Kind::Pub), Some(9), 6));
    let refusal = Refusal::new(Code::BadData, Reason::Head.as_str());
    assert_eq!(error.answer(), ServerMessage::Nack { n: Some(9), refusal });
}

#[test]
fn data_is_nested_at_most_32_levels_wherever_it_stands() {
    // Definite and indefinite arrays, maps by their value, maps by their key, tags.
    for (open, close) in
        [("81", ""), ("9f", "ff"), ("a100", ""), ("bf00", "ff"), ("a1", "00"), ("c1", ""), ("d9d9f7", "")]
    {
        for (depth, found) in [(32, Ok(())), (33, Err(Reason::TooDeep)), (100_000, Err(Reason::TooDeep))] {
            let data = format!("{}00{}", open.repeat(depth), close.repeat(depth));
            let valid = cbor::validate(&wire(&data)).map_err(|malformed| malformed.reason);
            assert_eq!(valid, found, "{open} {depth}");
            for (notation, code) in [
                (format!("a3 0003 0160 04{data}"), Code::BadData),
                (format!("a4 0003 0160 1863{data} 0400"), Code::BadMessage),
            ] {
                let decoded = cbor::decode_client(&wire(&notation)).map(drop);
                let decoded = decoded.map_err(|error| (error.code, error.malformed.reason));
                assert_eq!(decoded, found.map_err(|reason| (code, reason)));
            }
        }
    }
}

/// RFC 8949 appendix F.1: initial bytes and items that are not well-formed.
#[test]
fn rfc_8949_appendix_f_what_is_not_well_formed() {
    for (reason, items) in [
        (
            Reason::Truncated,
            // End of input in a head.
            "18 19 1a 1b 1901 1a0102 1b01020304050607 38 58 78 98 9a01ff00 b8 d8 f8 f900 fa0000 fb000000 \
             41 61 5affffffff00 5bffffffffffffffff010203 7affffffff00 7b7fffffffffffffff010203 \
             81 818181818181818181 8200 a1 a1ff a20102 a100 a2000000 c0 5f4100 7f6100 9f 9f0102 bf bf01020102 819f 9f8000 9f9f9f9f9fffffffff 9f819f819f9fffffff",
        ),
        (Reason::Head, "1c 1d 1e 3c 3d 3e 5c 5d 5e 7c 7d 7e 9c 9d 9e bc bd be dc dd de fc fd fe"),
        (Reason::Head, "f800 f801 f818 f81f"),
        (Reason::Head, "1f 3f df"),
        (
            Reason::Chunk,
            "5f00ff 5f21ff 5f6100ff 5f80ff 5fa0ff 5fc000ff 5fe0ff 7f4100ff 5f5f4100ffff 7f7f6100ffff",
        ),
        (
            Reason::Break,
            "ff 81ff 8200ff a1ff00 a100ff a2000000ff 9f81ff 9f829f819f9fffffffff bf00ff bf000000ff c1ff",
        ),
        (Reason::Trailing, "0000 80ff 6000 f6f6 9fffff c100ff"),
        (Reason::Utf8, "61ff 62c080 63eda080 64f4908080 61c3 7f61c361bcff"),
    ] {
        for item in items.split_ascii_whitespace() {
            let found = cbor::validate(&wire(item)).map_err(|malformed| malformed.reason);
            assert_eq!(found, Err(reason), "{item}");
        }
    }
    // A chunk that lacks its content, and simple values in two bytes from 32 on.
    assert!(cbor::validate(&wire("5f41")).is_err());
    for value in 32..=255u8 {
        assert_eq!(cbor::validate(&[0xf8, value]), Ok(()));
    }
}

#[test]
fn a_sink_that_is_full_at_any_byte_ends_the_encoding() {
    let data = Data::Bytes { content_type: Some("a/b".into()), bytes: Bytes::from(&[1; 30][..]) };
    let message = ClientMessage::Pub { n: Some(1 << 40), topic: "t".into(), key: Some("k".into()), data };
    let whole = client(&message);
    for room in 0..=whole.len() {
        let mut bytes = vec![0; room];
        let mut sink = SliceSink::new(&mut bytes);
        assert_eq!(cbor::encode_client(&message, &mut sink).is_ok(), room == whole.len());
        assert!(whole.starts_with(sink.written()));
    }
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused_without_panic(bytes: Vec<u8>) {
            let _ = (cbor::decode_client(&bytes), cbor::decode_server(&bytes));
            // What is well-formed is as long as a library says, and whatever is cut off makes it none.
            let valid = cbor::validate(&bytes).is_ok();
            let mut decoder = minicbor::Decoder::new(&bytes);
            let library = decoder.skip().is_ok() && decoder.position() == bytes.len();
            prop_assert!(library || !valid, "{:02x?}", bytes);
        }

        #[test]
        fn what_a_library_writes_is_well_formed(
            a: u64, b: i64, c: f64, d: f32, e: String, f: Vec<u8>, g: Vec<Option<bool>>, h: std::collections::BTreeMap<String, i8>,
        ) {
            let mut bytes = minicbor::to_vec((a, b, c, d, e, minicbor::bytes::ByteVec::from(f), g, h)).unwrap();
            prop_assert_eq!(cbor::validate(&bytes), Ok(()));
            bytes.pop();
            prop_assert!(cbor::validate(&bytes).is_err());
        }

        #[test]
        fn texts_survive(
            topic: String, key: Option<String>, n: Option<u64>, bytes: Vec<u8>, content_type: Option<String>,
        ) {
            let content_type = content_type.as_deref().map(Text::from);
            let data = Data::Bytes { content_type, bytes: Bytes::from(&*bytes) };
            let key = key.as_deref().map(Text::from);
            let message = ClientMessage::Pub { n, topic: (&*topic).into(), key, data };
            let wire = client(&message);
            prop_assert_eq!(cbor::decode_client(&wire), Ok(message));
            prop_assert_eq!(cbor::validate(&wire), Ok(()));
            // A message that is cut is never a message.
            for cut in 0..wire.len() {
                prop_assert!(cbor::decode_client(&wire[..cut]).is_err());
            }
        }
    }
}
