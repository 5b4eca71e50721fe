//! The text form of the session protocol, from outside.
#![cfg(feature = "json")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that is wrong may stop")]

use longwire_core::{
    log::{Cursor, Policy, Since},
    session::{
        Bytes, ClientMessage, Code, Data, DecodeError, Event, Field, Gap, GapReason, Kind, Level, Limits,
        Position, Pressure, Reason, Refusal, ServerMessage, Text, Topics, WriteError, json,
    },
};
use std::time::Duration;

const AT: Cursor = Cursor { epoch: 0x9f86_d081_884c_7d65, seq: 1042 };

fn client(message: &ClientMessage<'_>) -> String {
    let mut out = Vec::new();
    let mut sink = |piece: &[u8]| {
        out.extend_from_slice(piece);
        Ok(())
    };
    json::encode_client(message, &mut sink).unwrap();
    String::from_utf8(out).unwrap()
}

fn server(message: &ServerMessage<'_>) -> String {
    let mut out = Vec::new();
    let mut sink = |piece: &[u8]| {
        out.extend_from_slice(piece);
        Ok(())
    };
    json::encode_server(message, &mut sink).unwrap();
    String::from_utf8(out).unwrap()
}

fn refused(wire: &str) -> DecodeError {
    json::decode_client(wire.as_bytes()).expect_err(wire)
}

#[test]
fn section_5_every_client_message_has_its_wire() {
    let topics = Topics::from(&["fleet/**", "a\"b"][..]);
    let data = Data::Json(br#"{"a":[1,2]}"#);
    for (message, wire) in [
        (
            ClientMessage::Sub { id: Some(7), since: Some(Since::Cursor(AT)), policy: None, topics },
            r#"{"type":"sub","id":7,"since":"9f86d081884c7d65-1042","topics":["fleet/**","a\"b"]}"#,
        ),
        (
            ClientMessage::Sub { id: None, since: None, policy: None, topics: Topics::from(&["x"][..]) },
            r#"{"type":"sub","topics":["x"]}"#,
        ),
        (
            ClientMessage::Sub { id: Some(u32::MAX), since: Some(Since::Latest), policy: None, topics },
            r#"{"type":"sub","id":4294967295,"since":"latest","topics":["fleet/**","a\"b"]}"#,
        ),
        (
            ClientMessage::Sub { id: None, since: None, policy: Some(Policy::Conflate), topics },
            r#"{"type":"sub","policy":"conflate","topics":["fleet/**","a\"b"]}"#,
        ),
        (
            ClientMessage::Unsub { id: Some(0), topics },
            r#"{"type":"unsub","id":0,"topics":["fleet/**","a\"b"]}"#,
        ),
        (
            ClientMessage::Pub { n: Some(u64::MAX), topic: "t".into(), key: Some("k\n".into()), data },
            r#"{"type":"pub","n":18446744073709551615,"topic":"t","key":"k\n","data":{"a":[1,2]}}"#,
        ),
        (
            ClientMessage::Pub {
                n: None,
                topic: "t".into(),
                key: None,
                data: Data::Bytes {
                    content_type: Some("image/png".into()),
                    bytes: Bytes::from(&[0xfb, 0xff][..]),
                },
            },
            r#"{"type":"pub","topic":"t","content_type":"image/png","bytes":"+/8="}"#,
        ),
        (ClientMessage::Auth { token: "é€🌡".into() }, r#"{"type":"auth","token":"é€🌡"}"#),
    ] {
        assert_eq!(client(&message), wire);
        assert_eq!(json::decode_client(wire.as_bytes()), Ok(message), "{wire}");
        assert_eq!(json::decode_server(wire.as_bytes()).unwrap_err().code, Code::UnknownType);
    }
}

#[test]
fn section_5_every_server_message_has_its_wire() {
    let refusal = Refusal::new(Code::TopicsFull, "full");
    let again = refusal.retry_after(Duration::from_millis(1500));
    let limits = Limits { max_message: 1 << 20, max_topics: 64, max_inflight: 256 };
    let event = Event {
        topic: "fleet/7/cpu".into(),
        position: Position::At(AT),
        key: None,
        data: Data::Json(b"0.25"),
    };
    let heartbeat = Duration::from_secs(20);
    for (message, wire) in [
        (
            ServerMessage::Hello {
                session: "s".into(),
                heartbeat,
                lease: None,
                limits,
                publisher_n: None,
                window: None,
            },
            r#"{"type":"hello","session":"s","heartbeat":20000,"lease":null,"limits":{"max_message":1048576,"max_topics":64,"max_inflight":256}}"#,
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
            r#"{"type":"hello","session":"s","heartbeat":20000,"lease":20000,"limits":{"max_message":1048576,"max_topics":64,"max_inflight":256}}"#,
        ),
        (
            ServerMessage::Hello {
                session: "s".into(),
                heartbeat,
                lease: None,
                limits,
                publisher_n: Some(9),
                window: Some(heartbeat),
            },
            r#"{"type":"hello","session":"s","heartbeat":20000,"lease":null,"limits":{"max_message":1048576,"max_topics":64,"max_inflight":256},"publisher_n":9,"window":20000}"#,
        ),
        (
            ServerMessage::Event(event),
            r#"{"type":"event","topic":"fleet/7/cpu","at":"9f86d081884c7d65-1042","data":0.25}"#,
        ),
        (
            ServerMessage::Event(Event {
                position: Position::Past(AT),
                key: Some("7".into()),
                data: Data::Bytes { content_type: None, bytes: Bytes::from(&b""[..]) },
                ..event
            }),
            r#"{"type":"event","topic":"fleet/7/cpu","past":"9f86d081884c7d65-1042","key":"7","bytes":""}"#,
        ),
        (
            ServerMessage::CaughtUp { at: AT, id: Some(3) },
            r#"{"type":"caught_up","at":"9f86d081884c7d65-1042","id":3}"#,
        ),
        (
            ServerMessage::Ack { n: 5, level: Level::Ring, pressure: Some(heartbeat) },
            r#"{"type":"ack","n":5,"level":"ring","pressure":20000}"#,
        ),
        (
            ServerMessage::Ack { n: 5, level: Level::Ring, pressure: None },
            r#"{"type":"ack","n":5,"level":"ring"}"#,
        ),
        (
            ServerMessage::Nack { n: Some(6), refusal: again },
            r#"{"type":"nack","n":6,"code":"topics_full","permanent":false,"message":"full","retry_after":1500}"#,
        ),
        (
            ServerMessage::Gap(Gap {
                from: AT,
                to: Cursor { seq: 2000, ..AT },
                reason: GapReason::Slow,
                skipped: None,
            }),
            r#"{"type":"gap","from":"9f86d081884c7d65-1042","to":"9f86d081884c7d65-2000","reason":"slow"}"#,
        ),
        (
            ServerMessage::Gap(Gap { from: AT, to: AT, reason: GapReason::Conflated, skipped: Some(0) }),
            r#"{"type":"gap","from":"9f86d081884c7d65-1042","to":"9f86d081884c7d65-1042","reason":"conflated","skipped":0}"#,
        ),
        (
            ServerMessage::Pressure(Pressure { lag: 5000, limit: 10_000, skipped: 7 }),
            r#"{"type":"pressure","lag":5000,"limit":10000,"skipped":7}"#,
        ),
        (ServerMessage::Tick { at: AT }, r#"{"type":"tick","at":"9f86d081884c7d65-1042"}"#),
        (ServerMessage::Renew { within: Duration::from_millis(1) }, r#"{"type":"renew","within":1}"#),
        (
            ServerMessage::Bye { refusal: again, window: Some(Duration::from_millis(u64::MAX)) },
            r#"{"type":"bye","code":"topics_full","permanent":false,"message":"full","retry_after":1500,"window":18446744073709551615}"#,
        ),
        (
            ServerMessage::Error { refusal, id: None },
            r#"{"type":"error","code":"topics_full","permanent":false,"message":"full"}"#,
        ),
    ] {
        assert_eq!(server(&message), wire);
        assert_eq!(json::decode_server(wire.as_bytes()), Ok(message), "{wire}");
        assert_eq!(refused(wire).code, Code::UnknownType);
    }
}

#[test]
fn the_examples_of_the_specification_are_messages() {
    let page = include_str!("../PROTOCOL.md");
    let mut seen = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("data: {\"type\"")) {
        let wire = format!("{{\"type\"{line}");
        if !wire.contains("...") {
            json::decode_server(wire.as_bytes()).expect(&wire);
            seen += 1;
        }
    }
    assert_eq!(seen, 2);
}

#[test]
fn words_of_a_later_version_are_passed_over() {
    let wire = br#" {"type" : "tick", "new":{"a":[{"b":null}]}, "at": "9f86d081884c7d65-1042" , "\u006eew":1,"new":2 }
"#;
    assert_eq!(json::decode_server(wire), Ok(ServerMessage::Tick { at: AT }));
    let wire =
        br#"{"type":"gap","from":"9f86d081884c7d65-1042","to":"9f86d081884c7d65-1042","reason":"mist"}"#;
    let gap = Gap { from: AT, to: AT, reason: GapReason::Unknown, skipped: None };
    assert_eq!(json::decode_server(wire), Ok(ServerMessage::Gap(gap)));
    let wire = br#"{"type":"bye","code":"tea_time","permanent":false,"message":""}"#;
    let Ok(ServerMessage::Bye { refusal, .. }) = json::decode_server(wire) else { panic!() };
    assert_eq!((refusal.code(), refusal.code), (None, Text::from("tea_time")));
}

#[test]
fn escapes_may_stand_in_every_text() {
    // As json.dumps of Python writes what is not ASCII, and as others write `/`.
    let wire = br#"{"typ\u0065":"\u0070ub","t\u006fpic":"fl\u00e4che\/7","key":"\ud83c\udf21","content_type":"a\/b","bytes":"\/\/8="}"#;
    let data = Data::Bytes { content_type: Some("a/b".into()), bytes: Bytes::from(&[0xff, 0xff][..]) };
    let message = ClientMessage::Pub { n: None, topic: "fläche/7".into(), key: Some("🌡".into()), data };
    assert_eq!(json::decode_client(wire), Ok(message));
    let wire = br#"{"type":"sub","since":"l\u0061test","topics":["\u0061\/**","b"]}"#;
    let message = ClientMessage::Sub {
        id: None,
        since: Some(Since::Latest),
        policy: None,
        topics: Topics::from(&["a/**", "b"][..]),
    };
    assert_eq!(json::decode_client(wire), Ok(message));
    // Forwarded as they came: still the same text.
    let decoded = json::decode_client(wire).unwrap();
    assert_eq!(json::decode_client(client(&decoded).as_bytes()), Ok(message));
    let wire = br#"{"type":"tick","at":"9f86d081884c7d65\u002d1042"}"#;
    assert_eq!(json::decode_server(wire), Ok(ServerMessage::Tick { at: AT }));
}

#[test]
fn section_9_what_is_wrong_has_its_code() {
    use Field as F;
    for (wire, code, reason) in [
        ("", Code::BadMessage, Reason::Truncated),
        ("[]", Code::BadMessage, Reason::NotAMap),
        ("1", Code::BadMessage, Reason::NotAMap),
        ("{}", Code::BadMessage, Reason::TypeFirst),
        (r#"{"id":1,"type":"sub","topics":[]}"#, Code::BadMessage, Reason::TypeFirst),
        (r#"{"new":1,"type":"sub","topics":[]}"#, Code::BadMessage, Reason::TypeFirst),
        (r#"{"type":1}"#, Code::BadMessage, Reason::Invalid(F::Type)),
        (r#"{"type":"subscribe"}"#, Code::UnknownType, Reason::UnknownType),
        (r#"{"type":"a type with a long name","n":}"#, Code::UnknownType, Reason::UnknownType),
        (r#"{"type":"event"}"#, Code::UnknownType, Reason::UnknownType),
        (r#"{"type":"sub"}"#, Code::BadMessage, Reason::Missing(F::Topics)),
        (r#"{"type":"unsub","id":1}"#, Code::BadMessage, Reason::Missing(F::Topics)),
        (r#"{"type":"auth"}"#, Code::BadMessage, Reason::Missing(F::Token)),
        (r#"{"type":"pub","topic":"a"}"#, Code::BadMessage, Reason::Missing(F::Data)),
        (r#"{"type":"pub","data":1}"#, Code::BadMessage, Reason::Missing(F::Topic)),
        (r#"{"type":"sub","topics":[],"topics":[]}"#, Code::BadMessage, Reason::Twice(F::Topics)),
        (r#"{"type":"sub","type":"sub","topics":[]}"#, Code::BadMessage, Reason::Twice(F::Type)),
        (r#"{"type":"pub","topic":"a","data":1,"d\u0061ta":1}"#, Code::BadMessage, Reason::Twice(F::Data)),
        (r#"{"type":"pub","topic":"a","data":1,"bytes":""}"#, Code::BadMessage, Reason::Exclusive(F::Bytes)),
        (r#"{"type":"sub","topics":[]}"#, Code::BadMessage, Reason::Invalid(F::Topics)),
        (r#"{"type":"unsub","topics":[ ]}"#, Code::BadMessage, Reason::Invalid(F::Topics)),
        (r#"{"type":"sub","topics":"a"}"#, Code::BadMessage, Reason::Invalid(F::Topics)),
        (r#"{"type":"sub","topics":["a",1]}"#, Code::BadMessage, Reason::Invalid(F::Topics)),
        (r#"{"type":"sub","topics":[["a"]]}"#, Code::BadMessage, Reason::Invalid(F::Topics)),
        (r#"{"type":"sub","topics":null}"#, Code::BadMessage, Reason::Invalid(F::Topics)),
        (r#"{"type":"sub","topics":[],"id":4294967296}"#, Code::BadMessage, Reason::Invalid(F::Id)),
        (r#"{"type":"sub","topics":[],"id":-1}"#, Code::BadMessage, Reason::Invalid(F::Id)),
        (r#"{"type":"sub","topics":[],"id":1.0}"#, Code::BadMessage, Reason::Invalid(F::Id)),
        (r#"{"type":"sub","topics":[],"id":"1"}"#, Code::BadMessage, Reason::Invalid(F::Id)),
        (r#"{"type":"pub","n":18446744073709551616}"#, Code::BadMessage, Reason::Invalid(F::N)),
        (r#"{"type":"pub","topic":{}}"#, Code::BadMessage, Reason::Invalid(F::Topic)),
        (r#"{"type":"pub","topic":"a","key":null}"#, Code::BadMessage, Reason::Invalid(F::Key)),
        (r#"{"type":"sub","topics":[],"since":"then"}"#, Code::BadCursor, Reason::Cursor(F::Since)),
        (r#"{"type":"sub","topics":[],"since":""}"#, Code::BadCursor, Reason::Cursor(F::Since)),
        (
            r#"{"type":"sub","since":"\u0030000000000000000000000000000000000000000000"}"#,
            Code::BadCursor,
            Reason::Cursor(F::Since),
        ),
        (r#"{"type":"sub","topics":[],"since":1}"#, Code::BadMessage, Reason::Invalid(F::Since)),
        (r#"{"type":"pub","topic":"a","data":}"#, Code::BadData, Reason::Grammar),
        (r#"{"type":"pub","topic":"a","data":[1,}"#, Code::BadData, Reason::Grammar),
        (r#"{"type":"pub","topic":"a","data":{"a":01}}"#, Code::BadData, Reason::Number),
        (r#"{"type":"pub","topic":"a","data":"\ud800"}"#, Code::BadData, Reason::Escape),
        (r#"{"type":"pub","topic":"a","data":[1"#, Code::BadData, Reason::Truncated),
        (r#"{"type":"pub","topic":"a","bytes":"Zg"}"#, Code::BadData, Reason::Invalid(F::Bytes)),
        (r#"{"type":"pub","topic":"a","bytes":[1]}"#, Code::BadData, Reason::Invalid(F::Bytes)),
        (r#"{"type":"pub","topic":"a","data":1"#, Code::BadMessage, Reason::Truncated),
        (r#"{"type":"pub","topic":"a","data":1 2}"#, Code::BadMessage, Reason::Grammar),
        (r#"{"type":"pub","topic":"a","data":1}}"#, Code::BadMessage, Reason::Trailing),
        (r#"{"type":"pub","topic":"a","data":1,}"#, Code::BadMessage, Reason::Grammar),
        (r#"{"type":"pub","topic":"a" "data":1}"#, Code::BadMessage, Reason::Grammar),
        (r#"{"type":"pub","new":[}"#, Code::BadMessage, Reason::Grammar),
        ("{\"type\":\"auth\",\"token\":\"a\nb\"}", Code::BadMessage, Reason::ControlCharacter),
        ("\u{feff}{\"type\":\"auth\",\"token\":\"\"}", Code::BadMessage, Reason::Grammar),
    ] {
        let error = refused(wire);
        assert_eq!((error.code, error.malformed.reason), (code, reason), "{wire}");
        assert!(error.malformed.at <= wire.len());
    }
    let error = json::decode_client(b"{\"type\":\"auth\",\"token\":\"\xff\"}").unwrap_err();
    assert_eq!((error.code, error.malformed.reason), (Code::BadMessage, Reason::Utf8));
}

#[test]
fn refusals_of_server_messages_name_the_field() {
    for (wire, reason) in [
        (r#"{"type":"tick"}"#, Reason::Missing(Field::At)),
        (r#"{"type":"tick","past":"9f86d081884c7d65-1042"}"#, Reason::Missing(Field::At)),
        (r#"{"type":"tick","at":"9f86d081884c7d65-01"}"#, Reason::Cursor(Field::At)),
        (
            r#"{"type":"event","topic":"a","at":"9f86d081884c7d65-1","past":"9f86d081884c7d65-1","data":1}"#,
            Reason::Exclusive(Field::Past),
        ),
        (r#"{"type":"hello","session":"","heartbeat":1,"limits":{}}"#, Reason::Invalid(Field::Limits)),
        (
            r#"{"type":"hello","session":"","heartbeat":1,"limits":{"max_message":1,"max_topics":1,"max_inflight":1}}"#,
            Reason::Missing(Field::Lease),
        ),
        (r#"{"type":"bye","code":"draining","message":""}"#, Reason::Missing(Field::Permanent)),
        (r#"{"type":"bye","permanent":1}"#, Reason::Invalid(Field::Permanent)),
    ] {
        let error = json::decode_server(wire.as_bytes()).expect_err(wire);
        assert_eq!((error.code, error.malformed.reason), (Code::BadMessage, reason), "{wire}");
    }
    let error = json::decode_server(br#"{"type":"tick"}"#).unwrap_err();
    assert_eq!(error.to_string(), "bad_message: the field `at` is missing (at byte 15)");
}

#[test]
fn a_refusal_answers_with_what_was_read_before() {
    let error = refused(r#"{"type":"pub","n":9,"topic":"a","data":[}"#);
    assert_eq!((error.kind, error.n), (Some(Kind::Pub), Some(9)));
    let refusal = Refusal::new(Code::BadData, "a character that cannot stand here");
    assert_eq!(error.answer(), ServerMessage::Nack { n: Some(9), refusal });
    let error = refused(r#"{"type":"sub","id":4,"since":"x"}"#);
    let refusal = Refusal::new(Code::BadCursor, "the field `since` is no cursor");
    assert_eq!(error.answer(), ServerMessage::Error { refusal, id: Some(4) });
    let error = refused(r#"{"type":"later","id":5}"#);
    let refusal = Refusal::new(Code::UnknownType, "an unknown `type`");
    assert_eq!(error.answer(), ServerMessage::Error { refusal, id: Some(5) });
}

#[test]
fn data_is_nested_at_most_32_levels_wherever_it_stands() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        let levels = open.matches(['[', '{']).count();
        let nested = |depth: usize| {
            let times = depth / levels;
            let odd = if depth % levels == 1 { ("[", "]") } else { ("", "") };
            format!("{}{}1{}{}", open.repeat(times), odd.0, odd.1, close.repeat(times))
        };
        for (depth, ok) in [(32, true), (33, false), (10_000, false)] {
            let data = nested(depth);
            let valid = json::validate(data.as_bytes()).map_err(|malformed| malformed.reason);
            assert_eq!(valid, if ok { Ok(()) } else { Err(Reason::TooDeep) }, "{depth}");
            for (wire, code) in [
                (format!(r#"{{"type":"pub","topic":"a","data":{data}}}"#), Code::BadData),
                (format!(r#"{{"type":"pub","topic":"a","new":{data},"data":1}}"#), Code::BadMessage),
            ] {
                let decoded = json::decode_client(wire.as_bytes());
                let decoded = decoded.map(drop).map_err(|error| (error.code, error.malformed.reason));
                assert_eq!(decoded, if ok { Ok(()) } else { Err((code, Reason::TooDeep)) });
            }
        }
    }
}

#[test]
fn rfc_8259_what_is_json() {
    for valid in [
        "0",
        "-0",
        "1",
        "-1",
        "10",
        "0.0",
        "-0.5e-0",
        "1E400",
        "1e+5",
        "123456789012345678901234567890",
        "\"\"",
        "\"\u{7f}\u{80}\u{2028}\"",
        r#""\"\\\/\b\f\n\r\t\u0000""#,
        "[]",
        "[ ]",
        "{}",
        "{ }",
        "[[],{}]",
        "true",
        "false",
        "null",
        "\t\r\n 1 \t\r\n",
        "[1 , 2]",
        "{\"a\" : 1 , \"a\" : 2}",
        "{\"\":0}",
        "\"\u{feff}\"",
        r#""\ud83c\udf21""#,
    ] {
        assert_eq!(json::validate(valid.as_bytes()), Ok(()), "{valid}");
    }
}

#[test]
fn rfc_8259_what_is_not_json() {
    for (invalid, reason) in [
        ("", Reason::Truncated),
        (" ", Reason::Truncated),
        ("-", Reason::Truncated),
        ("+1", Reason::Grammar),
        (".5", Reason::Grammar),
        ("1.", Reason::Truncated),
        ("1.e5", Reason::Number),
        ("1e", Reason::Truncated),
        ("1e+", Reason::Truncated),
        ("1e-x", Reason::Number),
        ("01", Reason::Number),
        ("-01", Reason::Number),
        ("-a", Reason::Number),
        ("0x10", Reason::Trailing),
        ("1_000", Reason::Trailing),
        ("1 2", Reason::Trailing),
        ("NaN", Reason::Grammar),
        ("nan", Reason::Grammar),
        ("-Infinity", Reason::Number),
        ("tru", Reason::Truncated),
        ("True", Reason::Grammar),
        ("truex", Reason::Trailing),
        ("nul", Reason::Truncated),
        ("\"", Reason::Truncated),
        ("\"a", Reason::Truncated),
        ("\"\\", Reason::Escape),
        ("\"\\\"", Reason::Truncated),
        ("'a'", Reason::Grammar),
        ("\"\\x41\"", Reason::Escape),
        ("\"\\u12\"", Reason::Escape),
        ("\"\\ud800\"", Reason::Escape),
        ("\"\\udc00\"", Reason::Escape),
        ("\"a\tb\"", Reason::ControlCharacter),
        ("\"a\0b\"", Reason::ControlCharacter),
        ("\"a\x1fb\"", Reason::ControlCharacter),
        ("[", Reason::Truncated),
        ("]", Reason::Grammar),
        ("[1", Reason::Truncated),
        ("[1,", Reason::Truncated),
        ("[1,]", Reason::Grammar),
        ("[,1]", Reason::Grammar),
        ("[1 2]", Reason::Grammar),
        ("[1}", Reason::Grammar),
        ("{", Reason::Truncated),
        ("{]", Reason::Grammar),
        ("{1:2}", Reason::Grammar),
        ("{\"a\"}", Reason::Grammar),
        ("{\"a\":}", Reason::Grammar),
        ("{\"a\":1,}", Reason::Grammar),
        ("{\"a\" 1}", Reason::Grammar),
        ("{\"a\"", Reason::Truncated),
        ("{\"a\":", Reason::Truncated),
        ("{,}", Reason::Grammar),
        ("{a:1}", Reason::Grammar),
        ("[1]//", Reason::Trailing),
        ("/**/1", Reason::Grammar),
        ("\u{a0}1", Reason::Grammar),
        ("\u{b}1", Reason::Grammar),
        ("\u{c}1", Reason::Grammar),
        ("\u{feff}1", Reason::Grammar),
        ("1\0", Reason::Trailing),
    ] {
        let found = json::validate(invalid.as_bytes()).map_err(|malformed| malformed.reason);
        assert_eq!(found, Err(reason), "{invalid:?}");
        assert!(json::compact(invalid.as_bytes(), &mut |_: &[u8]| panic!("{invalid:?}")).is_err());
    }
    for bytes in
        [&b"\"\xff\""[..], b"\"\xc0\x80\"", b"\"\xed\xa0\x80\"", b"\"\xf4\x90\x80\x80\"", b"\"\xe2\x82\""]
    {
        assert_eq!(json::validate(bytes).map_err(|malformed| malformed.reason), Err(Reason::Utf8));
    }
}

#[test]
fn compact_takes_out_whitespace_between_tokens_only() {
    for (json, compact) in [
        (" 1\n", "1"),
        ("[ ]", "[]"),
        ("{ \"a b\" : [ 1 , 2.50 ] ,\r\n\t\"\\\" \\\\\" : null }", r#"{"a b":[1,2.50],"\" \\":null}"#),
        (r#"" \\ ""#, r#"" \\ ""#),
        (r#"["\\", " ", "\\\" "]"#, r#"["\\"," ","\\\" "]"#),
        ("{\"\":\"é \"}", "{\"\":\"é \"}"),
    ] {
        let mut out = heapless::Vec::<u8, 128>::new();
        json::compact(json.as_bytes(), &mut out).unwrap();
        assert_eq!(std::str::from_utf8(&out), Ok(compact));
    }
    let mut small = heapless::Vec::<u8, 4>::new();
    assert_eq!(json::compact(b"[1, 2]", &mut small), Err(WriteError::Full));
}

#[test]
fn strings_are_escaped_where_rfc_8259_asks_for_it_and_nowhere_else() {
    for c in (0..0x300).chain(0x2020..0x2030).chain(0xfe00..0xff00).chain([0x1f321, 0x10ffff]) {
        let c = char::from_u32(c).unwrap();
        let text = format!("a{c}b");
        let mut out = heapless::Vec::<u8, 16>::new();
        json::write_string(&*text, &mut out).unwrap();
        let out = std::str::from_utf8(&out).unwrap();
        assert_eq!(serde_json::from_str::<String>(out).unwrap(), text);
        assert_eq!(out, serde_json::to_string(&text).unwrap());
    }
}

#[test]
fn section_9_the_body_of_a_refusal() {
    let refusal = Refusal::new(Code::Unavailable, "a \"b\"");
    let mut out = heapless::Vec::<u8, 128>::new();
    json::encode_refusal(&refusal, &mut out).unwrap();
    assert_eq!(out, br#"{"code":"unavailable","message":"a \"b\"","permanent":false}"#);
    out.clear();
    json::encode_refusal(&refusal.retry_after(Duration::from_secs(3)), &mut out).unwrap();
    assert_eq!(out, br#"{"code":"unavailable","message":"a \"b\"","permanent":false,"retry_after":3000}"#);
}

#[test]
fn a_sink_that_is_full_at_any_byte_ends_the_encoding() {
    let data = Data::Bytes { content_type: Some("a\"/b".into()), bytes: Bytes::from(&b"abcd"[..]) };
    let message = ClientMessage::Pub { n: Some(10), topic: "t".into(), key: Some("k".into()), data };
    let whole = client(&message);
    for room in 0..=whole.len() {
        let mut bytes = vec![0; room];
        let mut sink = longwire_core::session::SliceSink::new(&mut bytes);
        let written = json::encode_client(&message, &mut sink);
        assert_eq!(written.is_ok(), room == whole.len());
        assert!(whole.as_bytes().starts_with(sink.written()));
    }
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn validate_agrees_with_serde_json(json in r#"[\[\]{}",:0-9.eE+\-\\ua-f tnrls\n]{0,12}"#) {
            let ours = json::validate(json.as_bytes());
            // Its numbers have the range of a double, ours have none.
            let theirs = serde_json::from_str::<serde_json::Value>(&json);
            let out_of_range = theirs.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
            prop_assert_eq!(ours.is_ok(), theirs.is_ok() || out_of_range, "{}: {:?} {:?}", json, ours, theirs);
        }

        #[test]
        fn any_bytes_are_taken_or_refused_without_panic(bytes: Vec<u8>) {
            let _ = (json::decode_client(&bytes), json::decode_server(&bytes), json::validate(&bytes));
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
            prop_assert_eq!(json::decode_client(wire.as_bytes()), Ok(message));
            prop_assert!(serde_json::from_str::<serde_json::Value>(&wire).is_ok());
            // A message that is cut is never a message.
            for cut in 0..wire.len() {
                prop_assert!(json::decode_client(&wire.as_bytes()[..cut]).is_err());
            }
        }
    }
}
