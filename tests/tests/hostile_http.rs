//! Bad requests get the status that `core/PROTOCOL.md` states (sections 8 and 9), on every transport, and whoever else
//! is connected notices nothing.

use longwire_tests::gateway::Gateway;
use longwire_tests::http::{self, Events};
use longwire_tests::refusal::{Bystander, assert_refused, exchange};
use longwire_tests::ws::{self, KEY, Message, Socket, opcode};
use serde_json::{Value, json};

#[test]
fn bad_request_heads_are_refused() {
    let gateway = Gateway::start();
    let mut bystander = Bystander::of(&gateway);
    let many_headers = "a:\r\n".repeat(1_200);
    let long_header = format!("X: {}\r\n", "a".repeat(9_000));
    let long_target = format!("GET /healthz?{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(9_000));
    let host = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n";
    #[rustfmt::skip]
    let cases = [
        ("line feeds alone", "GET /healthz HTTP/1.1\nHost: a\n\n".to_owned(), "bad_request"),
        ("one bare line feed", format!("{host}X: a\nY: b\r\n\r\n"), "bad_request"),
        ("a folded line", format!("{host}X: a\r\n b\r\n\r\n"), "bad_request"),
        ("a space before the colon", format!("{host}X : a\r\n\r\n"), "bad_request"),
        ("a header without a name", format!("{host}: a\r\n\r\n"), "bad_request"),
        ("a header without a colon", format!("{host}X\r\n\r\n"), "bad_request"),
        ("NUL in a value", format!("{host}X: a\0b\r\n\r\n"), "bad_request"),
        ("a carriage return in a value", format!("{host}X: a\rb\r\n\r\n"), "bad_request"),
        ("no Host", "GET /healthz HTTP/1.1\r\n\r\n".to_owned(), "bad_request"),
        ("two Hosts", format!("{host}Host: b\r\n\r\n"), "bad_request"),
        ("lengths in conflict", format!("{host}Content-Length: 1\r\nContent-Length: 2\r\n\r\na"), "bad_request"),
        ("a list of lengths", format!("{host}Content-Length: 1, 2\r\n\r\na"), "bad_request"),
        ("a signed length", format!("{host}Content-Length: +1\r\n\r\na"), "bad_request"),
        ("a length above 64 bits", format!("{host}Content-Length: 18446744073709551616\r\n\r\n"), "bad_request"),
        ("length and coding", format!("{host}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "bad_request"),
        ("a coding after chunked", format!("{host}Transfer-Encoding: chunked, gzip\r\n\r\n"), "bad_request"),
        ("no version", "GET /healthz\r\n\r\n".to_owned(), "bad_request"),
        ("another version", "GET /healthz HTTP/3.7\r\nHost: localhost\r\n\r\n".to_owned(), "bad_request"),
        ("two spaces", "GET  /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), "bad_request"),
        ("no method", " /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), "bad_request"),
        ("a control character in the target", "GET /health\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), "bad_request"),
        ("TLS", "\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03\r\n\r\n".to_owned(), "bad_request"),
        ("many headers", format!("{host}{many_headers}\r\n"), "head_too_large"),
        ("a long header", format!("{host}{long_header}\r\n"), "head_too_large"),
        ("a long target", long_target, "uri_too_long"),
    ];
    for (what, request, code) in cases {
        assert_refused(what, &exchange(gateway.address, request.as_bytes()), code);
        bystander.is_served(what);
    }
}

#[test]
fn a_head_that_does_not_come_in_time_is_refused() {
    let gateway = Gateway::start_with(&["--handshake-timeout", "1s"]);
    for (what, start) in [
        ("nothing", ""),
        ("half a line", "GET /hea"),
        ("half a head", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n"),
    ] {
        let mut bystander = Bystander::of(&gateway);
        assert_refused(what, &exchange(gateway.address, start.as_bytes()), "request_timeout");
        bystander.is_served(what);
    }
}

#[test]
fn bad_upgrades_are_refused() {
    let gateway = Gateway::start();
    let mut bystander = Bystander::of(&gateway);
    let connection = ("Connection", "Upgrade");
    let upgrade = ("Upgrade", "websocket");
    let version = ("Sec-WebSocket-Version", "13");
    let key = ("Sec-WebSocket-Key", KEY);
    #[rustfmt::skip]
    let cases = [
        ("no key", "GET", vec![connection, upgrade, version], "bad_request"),
        ("two keys", "GET", vec![connection, upgrade, version, key, key], "bad_request"),
        ("a key of 15 bytes", "GET", vec![connection, upgrade, version, ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAA")], "bad_request"),
        ("a key of 17 bytes", "GET", vec![connection, upgrade, version, ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAAA=")], "bad_request"),
        ("a key that is no base64", "GET", vec![connection, upgrade, version, ("Sec-WebSocket-Key", "!!!!!!!!!!!!!!!!!!!!!!==")], "bad_request"),
        ("an empty key", "GET", vec![connection, upgrade, version, ("Sec-WebSocket-Key", "")], "bad_request"),
        ("version 12", "GET", vec![connection, upgrade, ("Sec-WebSocket-Version", "12"), key], "upgrade_required"),
        ("version 130", "GET", vec![connection, upgrade, ("Sec-WebSocket-Version", "130"), key], "upgrade_required"),
        ("no Connection", "GET", vec![upgrade, version, key], "bad_request"),
        ("unknown subprotocols", "GET", vec![connection, upgrade, version, key, ("Sec-WebSocket-Protocol", "mqtt, longwire.v9.json")], "bad_request"),
        ("a subprotocol that is no token", "GET", vec![connection, upgrade, version, key, ("Sec-WebSocket-Protocol", "longwire.v1.json, a b")], "bad_request"),
        ("POST", "POST", vec![connection, upgrade, version, key], "method_not_allowed"),
        ("another site's page", "GET", vec![connection, upgrade, version, key, ("Origin", "https://example.net")], "forbidden"),
        ("another port's page", "GET", vec![connection, upgrade, version, key, ("Origin", "http://127.0.0.1:1")], "forbidden"),
        ("a page from nowhere", "GET", vec![connection, upgrade, version, key, ("Origin", "null")], "forbidden"),
    ];
    for (what, method, headers, code) in cases {
        let response = exchange(
            gateway.address,
            http::head(gateway.address, method, "/v1/stream", &headers, 0).as_bytes(),
        );
        assert_refused(what, &response, code);
        if code == "upgrade_required" {
            assert_eq!(response.header("sec-websocket-version"), Some("13"), "{what}");
        }
        bystander.is_served(what);
    }
    let old =
        http::head(gateway.address, "GET", "/v1/stream", &ws::UPGRADE, 0).replace("HTTP/1.1", "HTTP/1.0");
    assert_refused("HTTP/1.0", &exchange(gateway.address, old.as_bytes()), "bad_request");
}

#[test]
fn bad_topics_and_cursors_are_refused_on_every_transport() {
    let gateway = Gateway::start();
    let mut bystander = Bystander::of(&gateway);
    let head = gateway.publish("a", &Value::Null);
    let (epoch, _) = head.split_once('-').expect("a cursor");
    let long = "a".repeat(256);
    let deep = ["a"; 17].join("/");
    let many = (0..65).map(|number| format!("topic={number}")).collect::<Vec<_>>().join("&");
    let mut cases = vec![(many, "too_many_topics")];
    for topic in [
        "", "/", "/a", "a/", "a//b", "a*", "*a", "a/**/b", "**/a", "***", ".", "a/..", "../a", "%01", "a%00",
        "a%7F", "%FF", "%C2%80", &long, &deep,
    ] {
        cases.push((format!("topic={topic}"), "bad_topic"));
    }
    let short = &epoch[1..];
    let upper = format!("{}-1", "A".repeat(16));
    for seq in ["", "x", "01", "-1", "%2B1", "1%20", "18446744073709551616", "1-1"] {
        cases.push((format!("topic=a&since={epoch}-{seq}"), "bad_cursor"));
    }
    for since in [
        "",
        "x",
        "Now",
        "1",
        "-",
        "-1",
        epoch,
        &upper,
        &format!("{short}-1"),
        &format!("0{epoch}-1"),
        &format!("{short}g-1"),
    ] {
        cases.push((format!("topic=a&since={since}"), "bad_cursor"));
    }
    cases.push(("topic=a&since=now&since=now".to_owned(), "bad_request"));

    for (query, code) in &cases {
        let target = format!("/v1/stream?{query}");
        let short = &query[..query.len().min(60)];
        assert_refused(&format!("poll of {short}"), &gateway.get(&target), code);
        let refused = Socket::open(gateway.address, &target, &[])
            .err()
            .unwrap_or_else(|| panic!("an upgrade: {short}"));
        assert_refused(&format!("upgrade at {short}"), &refused, code);
        let refused =
            Events::open(gateway.address, &target, &[]).err().unwrap_or_else(|| panic!("SSE: {short}"));
        assert_refused(&format!("SSE of {short}"), &refused, code);
        bystander.is_served(short);
    }
    let bad_id = [("Last-Event-ID", "x")];
    let refused = Events::open(gateway.address, "/v1/stream?topic=a", &bad_id).err().expect("no SSE");
    assert_refused("SSE with a bad Last-Event-ID", &refused, "bad_cursor");
    // Polls alone have these.
    for query in [
        "",
        "since=now",
        "topic=a&limit=0",
        "topic=a&limit=x",
        "topic=a&limit=-1",
        "topic=a&limit=%2B1",
        "topic=a&wait=x",
        "topic=a&since=now&wait=-1",
        "topic=a&since=now&wait=1.5",
        "topic=a&wait=1&wait=1",
        "topic=a&limit=",
    ] {
        assert_refused(query, &gateway.get(&format!("/v1/stream?{query}")), "bad_request");
    }
    assert_refused(
        "SSE of nothing",
        &Events::open(gateway.address, "/v1/stream", &[]).err().expect("no SSE"),
        "bad_request",
    );
    bystander.is_served("all");
}

#[test]
fn what_is_just_within_the_rules_is_taken() {
    let gateway = Gateway::start();
    let longest = format!("{}/{}", "a".repeat(127), "b".repeat(127));
    let deepest = ["a"; 16].join("/");
    for topic in [longest.as_str(), &deepest, "%C3%A4/%F0%9F%8C%8D", "a%20b", "$sys"] {
        gateway.publish(topic, &Value::Null);
        assert_eq!(
            gateway.get(&format!("/v1/stream?topic={topic}")).json()["events"].as_array().map(Vec::len),
            Some(1),
            "{topic}"
        );
    }
    let patterns = (0..64).map(|number| format!("topic={number}&")).collect::<String>();
    for query in [
        patterns.as_str(),
        "topic=**&limit=1000",
        "topic=**&limit=5000",
        "topic=a&since=now&wait=0",
        "topic=a&unknown=1&unknown=2",
    ] {
        let status = gateway.get(&format!("/v1/stream?{query}")).status;
        assert!(status == 200 || status == 204, "{query}: {status}");
    }
    let key = "k".repeat(128);
    let json = [("Content-Type", "application/vnd.a+json; charset=utf-8")];
    let deep = format!("{}{}", "[".repeat(32), "]".repeat(32));
    assert_eq!(
        gateway.request("POST", &format!("/v1/topics/a?key={key}"), &json, deep.as_bytes()).status,
        200
    );
    let body = vec![b'x'; 1 << 20];
    assert_eq!(gateway.request("POST", "/v1/topics/a", &[], &body).status, 200, "as large as --max-message");
}

#[test]
fn bad_publications_are_refused() {
    let gateway = Gateway::start();
    let mut bystander = Bystander::of(&gateway);
    let json = "application/json";
    let cbor = "application/cbor";
    let long = "a".repeat(256);
    let deep = ["a"; 17].join("/");
    for topic in [
        "*",
        "a/*",
        "a/**",
        "a//b",
        "/a",
        "a/",
        ".",
        "a/..",
        "a/%2e%2e/b",
        "a%2Fb",
        "a%01",
        "%FF",
        &long,
        &deep,
    ] {
        let response =
            gateway.request("POST", &format!("/v1/topics/{topic}"), &[("Content-Type", json)], b"1");
        assert_refused(topic, &response, "bad_topic");
        bystander.is_served(topic);
    }
    for key in ["%00", "%7F", "%FF", &"k".repeat(129)] {
        assert_refused(
            key,
            &gateway.request("POST", &format!("/v1/topics/a?key={key}"), &[], b"1"),
            "bad_topic",
        );
        bystander.is_served(key);
    }
    let nested = format!("{}{}", "[".repeat(33), "]".repeat(33));
    let nested_cbor = [vec![0x81; 33], vec![0]].concat();
    #[rustfmt::skip]
    let cases: Vec<(&str, &str, &[u8])> = vec![
        ("nothing", json, b""),
        ("an open object", json, b"{"),
        ("half a word", json, b"nul"),
        ("a comma at the end", json, b"[1,]"),
        ("two values", json, b"1 2"),
        ("a leading zero", json, b"01"),
        ("single quotes", json, b"'a'"),
        ("NaN", json, b"NaN"),
        ("a control character in a text", json, b"\"a\nb\""),
        ("a text that is not UTF-8", json, b"\"\xff\""),
        ("a bad escape", json, b"\"\\x\""),
        ("half a surrogate pair", json, b"\"\\ud800\""),
        ("33 levels", json, nested.as_bytes()),
        ("no CBOR", cbor, b""),
        ("a cut CBOR array", cbor, &[0x82, 0x01]),
        ("a reserved length", cbor, &[0x1c]),
        ("a break alone", cbor, &[0xff]),
        ("an array that announces 2^64-1", cbor, &[0x9b, 255, 255, 255, 255, 255, 255, 255, 255]),
        ("a text that announces 2^63", cbor, &[0x7b, 128, 0, 0, 0, 0, 0, 0, 0]),
        ("a CBOR text that is not UTF-8", cbor, &[0x61, 0xff]),
        ("two CBOR items", cbor, &[0x01, 0x02]),
        ("a map key that is a float", cbor, &[0xa1, 0xf9, 0x3e, 0x00, 0x01]),
        ("33 levels of CBOR", cbor, &nested_cbor),
    ];
    for (what, content_type, body) in cases {
        let response = gateway.request("POST", "/v1/topics/a", &[("Content-Type", content_type)], body);
        assert_refused(what, &response, "bad_data");
        bystander.is_served(what);
    }
    let large = vec![b'x'; (1 << 20) + 1];
    assert_refused("a large body", &gateway.request("POST", "/v1/topics/a", &[], &large), "message_too_big");
    let announced =
        "POST /v1/topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9223372036854775807\r\n\r\n";
    assert_refused("a large length", &exchange(gateway.address, announced.as_bytes()), "message_too_big");
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 16, "x".repeat(1 << 16));
    let chunked = format!(
        "POST /v1/topics/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        chunk.repeat(17)
    );
    assert_refused("large in chunks", &exchange(gateway.address, chunked.as_bytes()), "message_too_big");
    bystander.is_served("all");
    let state = gateway.get("/v1/stream?topic=a").json();
    assert_eq!(state["events"], json!([]), "none of it was published");
}

#[test]
fn paths_and_methods_that_are_not_there_are_refused() {
    let gateway = Gateway::start();
    for path in [
        "/v1",
        "/v1/",
        "/v1/streams",
        "/v2/stream",
        "/v1/topics",
        "/favicon.png",
        "/../etc/passwd",
        "/%2e%2e/etc/passwd",
    ] {
        assert_refused(path, &gateway.get(path), "not_found");
    }
    #[rustfmt::skip]
    let cases = [
        ("PUT", "/v1/stream", "GET"), ("POST", "/v1/stream", "GET"), ("DELETE", "/v1/stream", "GET"),
        ("GET", "/v1/topics/a", "POST"), ("PUT", "/v1/topics/a", "POST"),
        ("POST", "/healthz", "GET"), ("DELETE", "/", "GET"), ("POST", "/metrics", "GET"),
    ];
    for (method, path, allowed) in cases {
        let what = format!("{method} {path}");
        let response = gateway.request(method, path, &[], b"");
        assert_refused(&what, &response, "method_not_allowed");
        assert!(
            response.header("allow").is_some_and(|allow| allow.contains(allowed)),
            "{what}: {response:?}"
        );
    }
}

#[test]
fn too_many_connections_are_refused_until_one_goes() {
    let gateway = Gateway::start_with(&["--max-connections", "2"]);
    let open = || Socket::open(gateway.address, "/v1/stream?topic=a", &[]);
    let (mut first, second) = (open().expect("101"), open().expect("101"));
    let refused = open().err().expect("the third");
    assert_refused("the third", &refused, "too_many_connections");
    assert!(refused.header("retry-after").is_some_and(|after| after.parse::<u32>().is_ok()), "{refused:?}");
    // An EventSource would stop for ever at 503 (section 7).
    let mut events = Events::open(gateway.address, "/v1/stream?topic=a", &[]).expect("200");
    let bye = events.find(|event| event.name == "bye").expect("a bye");
    assert_eq!(serde_json::from_str::<Value>(&bye.data).expect("JSON")["code"], "too_many_connections");
    assert!(events.next().is_none(), "and then the end");

    drop(second);
    let deadline = std::time::Instant::now() + longwire_tests::PATIENCE;
    while open().is_err() {
        assert!(std::time::Instant::now() < deadline, "there is room again");
    }
    first.send(opcode::PING, b"still");
    assert!(
        std::iter::from_fn(|| Some(first.receive()))
            .any(|message| message == Message::Pong(b"still".to_vec()))
    );
}

#[test]
fn a_full_table_of_topics_refuses_new_ones_and_keeps_the_old() {
    let gateway = Gateway::start_with(&["--max-topic-table", "2"]);
    gateway.publish("a", &json!(1));
    gateway.publish("b", &json!(2));
    assert_refused("a third topic", &gateway.request("POST", "/v1/topics/c", &[], b"x"), "topics_full");
    let mut socket = Socket::open(gateway.address, "/v1/stream", &[]).expect("101");
    socket.send_json(&json!({"type": "pub", "n": 1, "topic": "c", "data": 1}));
    let nack = socket.envelope_of(&["nack", "ack", "error"]);
    assert_eq!(
        (&nack["type"], &nack["code"], &nack["permanent"]),
        (&json!("nack"), &json!("topics_full"), &json!(false))
    );
    gateway.publish("a", &json!(3));
}

#[test]
fn a_state_of_more_events_than_the_limit_is_refused() {
    let gateway = Gateway::start();
    for topic in ["a", "b", "c"] {
        gateway.publish(topic, &Value::Null);
    }
    assert_eq!(gateway.get("/v1/stream?topic=*&limit=3").status, 200);
    assert_refused("limit=2", &gateway.get("/v1/stream?topic=*&limit=2"), "state_too_large");
}
