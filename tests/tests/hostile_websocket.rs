//! Bad messages and frames on an open WebSocket get the answer or the close code that `core/PROTOCOL.md` states
//! (sections 6 and 9), and whoever else is connected notices nothing.

use longwire_tests::gateway::Gateway;
use longwire_tests::refusal::Bystander;
use longwire_tests::ws::{self, Message, Socket, opcode};
use serde_json::json;

#[test]
fn bad_messages_are_answered_and_the_connection_goes_on() {
    let gateway = Gateway::start();
    let mut bystander = Bystander::of(&gateway);
    let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
    let long = "k".repeat(129);
    let longer = "k".repeat(256);
    let many: Vec<_> = (0..65).map(|number| number.to_string()).collect();
    let error = |code: &str| json!({"type": "error", "code": code, "permanent": true});
    let error_of = |code: &str, id: u32| json!({"type": "error", "code": code, "permanent": true, "id": id});
    let nack = |code: &str| json!({"type": "nack", "code": code, "permanent": true, "n": 1});
    #[rustfmt::skip]
    let cases = [
        ("hello".to_owned(), error("bad_message")),
        ("".to_owned(), error("bad_message")),
        ("[]".to_owned(), error("bad_message")),
        ("null".to_owned(), error("bad_message")),
        ("{}".to_owned(), error("bad_message")),
        (r#"{"type":5}"#.to_owned(), error("bad_message")),
        (r#"{"type":"sub""#.to_owned(), error("bad_message")),
        (r#"{"type":"sub","topics":["a"]} x"#.to_owned(), error("bad_message")),
        (r#"{"type":"sub","topics":"a"}"#.to_owned(), error("bad_message")),
        (r#"{"type":"sub","topics":[1]}"#.to_owned(), error("bad_message")),
        (r#"{"type":"sub","id":-1,"topics":["a"]}"#.to_owned(), error("bad_message")),
        (r#"{"type":"sub","id":4294967296,"topics":["a"]}"#.to_owned(), error("bad_message")),
        (r#"{"type":"sub","id":7}"#.to_owned(), error("bad_message")),
        (r#"{"type":"sub","id":7,"topics":[]}"#.to_owned(), error("bad_message")),
        (r#"{"type":"dance"}"#.to_owned(), error("unknown_type")),
        (r#"{"type":"sub","id":7,"topics":["a*"]}"#.to_owned(), error_of("bad_topic", 7)),
        (r#"{"type":"sub","id":7,"topics":["good","a//b"]}"#.to_owned(), error_of("bad_topic", 7)),
        (r#"{"type":"sub","id":7,"topics":["a\u0000"]}"#.to_owned(), error_of("bad_topic", 7)),
        (r#"{"type":"sub","id":7,"since":"x","topics":["a"]}"#.to_owned(), error_of("bad_cursor", 7)),
        (format!(r#"{{"type":"sub","id":7,"topics":{}}}"#, json!(many)), error_of("too_many_topics", 7)),
        (r#"{"type":"unsub","id":7,"topics":["a*"]}"#.to_owned(), error_of("bad_topic", 7)),
        (r#"{"type":"pub","n":1,"data":1}"#.to_owned(), error("bad_message")),
        (r#"{"type":"pub","n":1,"topic":"a"}"#.to_owned(), error("bad_message")),
        (r#"{"type":"pub","n":1,"topic":"a"#.to_owned(), error("bad_message")),
        (r#"{"type":"pub","n":1,"topic":"a/*","data":1}"#.to_owned(), nack("bad_topic")),
        (r#"{"type":"pub","n":1,"topic":"a//b","data":1}"#.to_owned(), nack("bad_topic")),
        (format!(r#"{{"type":"pub","n":1,"topic":"a","key":"{long}","data":1}}"#), nack("bad_topic")),
        (r#"{"type":"pub","n":1,"topic":"a","data":nul}"#.to_owned(), nack("bad_data")),
        (r#"{"type":"pub","n":1,"topic":"a","data":[1,]}"#.to_owned(), nack("bad_data")),
        (format!(r#"{{"type":"pub","n":1,"topic":"a","data":{deep}}}"#), nack("bad_data")),
        (r#"{"type":"pub","n":1,"topic":"a","bytes":"!!"}"#.to_owned(), nack("bad_data")),
        (
            r#"{"type":"pub","n":1,"topic":"a","content_type":"a\r\nb: c","bytes":""}"#.to_owned(),
            nack("bad_data"),
        ),
        (format!(r#"{{"type":"pub","n":1,"topic":"a","content_type":"{longer}","bytes":""}}"#), nack("bad_data")),
    ];
    for (message, expected) in cases {
        let mut socket = Socket::open(gateway.address, "/v1/stream", &[]).expect("101");
        socket.envelope_of(&["hello"]);
        socket.send(opcode::TEXT, message.as_bytes());
        let answer = socket.envelope_of(&["error", "nack", "ack", "caught_up", "bye"]);
        for (field, value) in expected.as_object().expect("a map") {
            assert_eq!(&answer[field], value, "{field} of {answer}, the answer to {message}");
        }
        assert!(answer["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
        // Nothing of it was taken, and the connection goes on.
        socket.send_json(&json!({"type": "sub", "id": 99, "since": "latest", "topics": ["after"]}));
        assert_eq!(socket.envelope_of(&["caught_up", "event", "error"])["id"], json!(99), "after {message}");
        bystander.is_served(&message);
    }
    assert_eq!(gateway.get("/v1/stream?topic=a/**").json()["events"], json!([]), "none of it was published");
}

#[test]
fn the_seventeenth_bad_message_closes_with_1008() {
    let gateway = Gateway::start();
    let mut bystander = Bystander::of(&gateway);
    let mut socket = Socket::open(gateway.address, "/v1/stream", &[]).expect("101");
    for count in 1..=16 {
        let (message, code) =
            if count % 2 == 0 { ("x", "bad_message") } else { (r#"{"type":"x"}"#, "unknown_type") };
        socket.send(opcode::TEXT, message.as_bytes());
        assert_eq!(socket.envelope_of(&["error", "bye"])["code"], code, "number {count}");
    }
    socket.send(opcode::TEXT, b"x");
    assert_eq!(socket.close_code(), Some(1008));

    let cbor = [("Sec-WebSocket-Protocol", "longwire.v1.cbor")];
    let mut socket = Socket::open(gateway.address, "/v1/stream", &cbor).expect("101");
    for _ in 1..=17 {
        socket.send(opcode::BINARY, &[0xff]);
    }
    assert_eq!(socket.close_code(), Some(1008), "the same in CBOR");
    bystander.is_served("two that were closed");
}

#[test]
fn broken_frames_close_with_the_code_of_the_rule() {
    let gateway = Gateway::start();
    let mut bystander = Bystander::of(&gateway);
    let unmasked = [ws::header(0x81, 0, 2), b"{}".to_vec()].concat();
    let with_length = |first: u8, length: u64| {
        let mut header = vec![first, 0x80 | 127];
        header.extend(length.to_be_bytes());
        header.extend([0; 4]);
        header
    };
    let close =
        |code: u16, reason: &str| ws::frame(0x88, &[&code.to_be_bytes()[..], reason.as_bytes()].concat());
    #[rustfmt::skip]
    let cases = [
        ("no mask", unmasked, 1002),
        ("RSV1, not negotiated", ws::frame(0xc1, b"{}"), 1002),
        ("RSV2", ws::frame(0xa1, b"{}"), 1002),
        ("RSV3 on a Ping", ws::frame(0x99, b""), 1002),
        ("opcode 3", ws::frame(0x83, b""), 1002),
        ("opcode 11", ws::frame(0x8b, b""), 1002),
        ("a Ping in fragments", ws::frame(0x09, b""), 1002),
        ("a Ping of 126 bytes", ws::frame(0x89, &[0; 126]), 1002),
        ("a continuation of nothing", ws::frame(0x80, b"a"), 1002),
        ("a text within a text", [ws::frame(0x01, b"a"), ws::frame(0x81, b"b")].concat(), 1002),
        ("16 bits for a short length", [&[0x81, 0xfe, 0, 2][..], &[0; 6]].concat(), 1002),
        ("64 bits for a short length", [with_length(0x81, 2), vec![0; 2]].concat(), 1002),
        ("length 2^63", with_length(0x81, 1 << 63), 1002),
        ("length 2^64-1", with_length(0x81, u64::MAX), 1002),
        ("length 2^63-1", with_length(0x81, (1 << 63) - 1), 1009),
        ("length 2^32+5", with_length(0x81, (1 << 32) + 5), 1009),
        ("length 2^31", with_length(0x81, 1 << 31), 1009),
        ("one byte too many", with_length(0x81, (1 << 20) + 1), 1009),
        ("fragments that are too many", [ws::frame(0x01, &vec![b' '; 1 << 20]), ws::frame(0x80, b" ")].concat(), 1009),
        ("a binary frame", ws::frame(0x82, b"{}"), 1003),
        ("a text that is not UTF-8", ws::frame(0x81, b"\xff"), 1007),
        ("a text that ends within a character", ws::frame(0x81, "ä".as_bytes().split_at(1).0), 1007),
        ("a surrogate", ws::frame(0x81, b"\xed\xa0\x80"), 1007),
        ("a Close of one byte", ws::frame(0x88, b"\x03"), 1002),
        ("a Close of 126 bytes", ws::frame(0x88, &[3; 126]), 1002),
        ("Close 999", close(999, ""), 1002),
        ("Close 1004", close(1004, ""), 1002),
        ("Close 1005", close(1005, ""), 1002),
        ("Close 1006", close(1006, ""), 1002),
        ("Close 1015", close(1015, ""), 1002),
        ("Close 5000", close(5000, ""), 1002),
        ("a reason that is not UTF-8", ws::frame(0x88, b"\x03\xe8\xff"), 1007),
        ("a normal Close", close(1000, "bye"), 1000),
        ("a Close of our own code", close(4321, ""), 4321),
    ];
    for (what, bytes, code) in cases {
        let mut socket = Socket::open(gateway.address, "/v1/stream?topic=bystander", &[]).expect("101");
        socket.envelope_of(&["caught_up"]);
        socket.send_raw(&bytes);
        assert_eq!(socket.close_code(), Some(code), "{what}");
        assert_eq!(socket.receive(), Message::End, "{what}: nothing comes after the Close");
        bystander.is_served(what);
    }
    let cbor = [("Sec-WebSocket-Protocol", "longwire.v1.cbor")];
    let mut socket = Socket::open(gateway.address, "/v1/stream", &cbor).expect("101");
    assert_eq!(socket.subprotocol.as_deref(), Some("longwire.v1.cbor"));
    socket.send(opcode::TEXT, b"{}");
    assert_eq!(socket.close_code(), Some(1003), "a text frame on a CBOR connection");
    bystander.is_served("all");
}
