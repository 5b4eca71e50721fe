//! Who may do what: origins and credentials (`core/PROTOCOL.md` sections 6, 8.4 and 8.5).

use longwire_tests::gateway::{Gateway, Guarded, in_seconds};
use longwire_tests::http::{Events, Response};
use longwire_tests::longwire;
use longwire_tests::process::Program;
use longwire_tests::refusal::assert_refused;
use longwire_tests::ws::{Message, Socket, opcode};
use serde_json::{Value, json};

#[test]
fn the_own_origin_is_welcome_and_a_foreign_one_is_not() {
    let gateway = Gateway::start();
    let own = gateway.url();
    for (origin, welcome) in
        [(own.as_str(), true), ("http://127.0.0.1:1", false), ("https://example.net", false), ("null", false)]
    {
        let headers = [("Origin", origin)];
        let responses = [
            ("poll", gateway.request("GET", "/v1/stream?topic=a", &headers, b"")),
            ("POST", gateway.request("POST", "/v1/topics/a", &headers, b"x")),
        ];
        let streams = [
            ("SSE", Events::open(gateway.address, "/v1/stream?topic=a", &headers).err()),
            ("WebSocket", Socket::open(gateway.address, "/v1/stream?topic=a", &headers).err()),
        ];
        let responses =
            responses.map(|(what, response)| (what, (response.status != 200).then_some(response)));
        for (what, refused) in responses.into_iter().chain(streams) {
            match refused {
                None => assert!(welcome, "{what} from {origin}"),
                Some(refused) => assert_refused(&format!("{what} from {origin}"), &refused, "forbidden"),
            }
        }
    }
}

#[test]
fn an_allowed_origin_may_read_the_answer_and_the_headers_it_needs() {
    let origin = "https://app.example";
    let gateway = Gateway::start_with(&["--allow-origin", origin]);
    let headers = [("Origin", origin)];
    let response = gateway.request("GET", "/v1/stream?topic=a", &headers, b"");
    assert_eq!(
        (response.status, response.header("access-control-allow-origin")),
        (200, Some(origin)),
        "{response:?}"
    );
    assert_lists(&response, "access-control-expose-headers", &["etag", "longwire-next", "retry-after"]);
    let refused = gateway.request("GET", "/v1/stream?topic=a*", &headers, b"");
    assert_eq!(
        refused.header("access-control-allow-origin"),
        Some(origin),
        "a page may read why: {refused:?}"
    );

    let ask = [
        ("Origin", origin),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type"),
    ];
    for target in ["/v1/topics/a", "/v1/stream?topic=a"] {
        let preflight = gateway.request("OPTIONS", target, &ask, b"");
        assert!(matches!(preflight.status, 200 | 204), "{preflight:?}");
        assert_eq!(preflight.header("access-control-allow-origin"), Some(origin), "{preflight:?}");
        assert_lists(&preflight, "access-control-allow-methods", &["get", "head", "post"]);
        let wanted = ["authorization", "content-type", "last-event-id", "if-none-match"];
        assert_lists(&preflight, "access-control-allow-headers", &wanted);
    }
    let foreign =
        gateway.request("OPTIONS", "/v1/topics/a", &[("Origin", "https://example.net"), ask[1], ask[2]], b"");
    assert_eq!(foreign.header("access-control-allow-origin"), None, "{foreign:?}");
    Socket::open(gateway.address, "/v1/stream?topic=a", &headers).expect("101");
}

fn assert_lists(response: &Response, header: &str, wanted: &[&str]) {
    let listed = response.header(header).unwrap_or_default().to_ascii_lowercase();
    let listed: Vec<_> = listed.split(',').map(str::trim).collect();
    assert!(wanted.iter().all(|name| listed.contains(name)), "{header} of {response:?}");
}

/// A page can give any name to this machine, but not to itself (DNS rebinding).
#[test]
fn an_open_gateway_on_loopback_goes_by_local_names_only() {
    let gateway = Gateway::start();
    let get =
        |host: &str| format!("GET /v1/stream?topic=a HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let status = |host: &str| longwire_tests::refusal::exchange(gateway.address, get(host).as_bytes()).status;
    let port = gateway.address.port();
    for host in [
        "localhost".to_owned(),
        format!("localhost:{port}"),
        format!("127.0.0.1:{port}"),
        format!("[::1]:{port}"),
    ] {
        assert_eq!(status(&host), 200, "{host}");
    }
    for host in
        ["rebound.example".to_owned(), format!("rebound.example:{port}"), format!("127.0.0.1.example:{port}")]
    {
        assert_eq!(status(&host), 403, "{host}");
    }
}

const TOKENS: &str = r#"
[[token]]
secret = "reader-secret"
subject = "reader"
subscribe = ["fleet/**"]

[[token]]
secret = "device-secret"
subject = "device"
subscribe = ["fleet/7/*"]
publish = ["fleet/7/*"]

[[token]]
secret = "old-secret"
subject = "old"
subscribe = ["**"]
publish = ["**"]
expires = 2020-01-01T00:00:00Z
"#;
const READER: (&str, &str) = ("Authorization", "Bearer reader-secret");
const DEVICE: (&str, &str) = ("Authorization", "Bearer device-secret");

#[test]
fn without_a_good_credential_nothing_is_allowed() {
    let guarded = Guarded::start("nothing", TOKENS);
    let gateway = &guarded.gateway;
    let wrong =
        ["Bearer wrong", "Bearer old-secret", "Bearer ", "Basic cmVhZGVyLXNlY3JldA==", "reader-secret"];
    let credentials = wrong.iter().map(|value| vec![("Authorization", *value)]).chain([vec![]]);
    for headers in credentials {
        let what = format!("{headers:?}");
        assert_refused(
            &what,
            &gateway.request("GET", "/v1/stream?topic=fleet/**", &headers, b""),
            "unauthorized",
        );
        assert_refused(
            &what,
            &gateway.request("POST", "/v1/topics/fleet/7/cpu", &headers, b"1"),
            "unauthorized",
        );
        for target in ["/v1/stream?topic=fleet/**", "/v1/stream"] {
            assert_refused(
                &what,
                &Socket::open(gateway.address, target, &headers).err().expect("no 101"),
                "unauthorized",
            );
        }
        // An EventSource would stop for ever at 401 (section 7).
        let bye = only_bye(gateway, "/v1/stream?topic=fleet/**", &headers);
        assert_eq!(
            (&bye["code"], &bye["permanent"]),
            (&json!("unauthorized"), &json!(true)),
            "{what}: {bye}"
        );
    }
}

/// The stream is `bye` and the end.
fn only_bye(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> Value {
    let events: Vec<_> = Events::open(gateway.address, target, headers).expect("200").collect();
    let [bye] = &events[..] else { panic!("{events:?}") };
    assert_eq!(bye.name, "bye");
    serde_json::from_str(&bye.data).expect("JSON")
}

#[test]
fn a_grant_covers_its_patterns_and_no_more() {
    let guarded = Guarded::start("patterns", TOKENS);
    let gateway = &guarded.gateway;
    for (credential, topic, allowed) in [
        (READER, "fleet/**", true),
        (READER, "fleet/7/cpu", true),
        (READER, "**", false),
        (READER, "*/7/cpu", false),
        (READER, "fleets", false),
        (DEVICE, "fleet/7/*", true),
        (DEVICE, "fleet/7/**", false),
        (DEVICE, "fleet/8/cpu", false),
    ] {
        let target = format!("/v1/stream?topic={topic}");
        let response = gateway.request("GET", &target, &[credential], b"");
        let socket = Socket::open(gateway.address, &target, &[credential]).err();
        if allowed {
            assert_eq!(response.status, 200, "{credential:?} {topic}: {response:?}");
            assert_eq!(response.header("cache-control"), Some("private, max-age=1"), "{response:?}");
            assert!(socket.is_none(), "{credential:?} {topic}");
            continue;
        }
        assert_refused(topic, &response, "forbidden");
        assert_refused(topic, &socket.expect("no 101"), "forbidden");
        assert_eq!(only_bye(gateway, &target, &[credential])["code"], "forbidden", "{topic}");
    }
    for (credential, topic, status) in
        [(READER, "fleet/7/cpu", 403), (DEVICE, "fleet/8/cpu", 403), (DEVICE, "fleet/7/cpu", 200)]
    {
        let response = gateway.request("POST", &format!("/v1/topics/{topic}"), &[credential], b"1");
        assert_eq!(response.status, status, "{credential:?} {topic}: {response:?}");
    }

    let mut socket = Socket::open(gateway.address, "/v1/stream", &[DEVICE]).expect("101");
    socket.send_json(&json!({"type": "sub", "id": 1, "topics": ["fleet/7/cpu", "fleet/8/cpu"]}));
    let error = socket.envelope_of(&["error", "caught_up"]);
    assert_eq!((&error["code"], &error["id"]), (&json!("forbidden"), &json!(1)), "{error}");
    socket.send_json(&json!({"type": "pub", "n": 1, "topic": "fleet/8/cpu", "data": 1}));
    let nack = socket.envelope_of(&["nack", "ack"]);
    assert_eq!((&nack["code"], &nack["n"]), (&json!("forbidden"), &json!(1)), "{nack}");
    socket.send_json(&json!({"type": "pub", "n": 2, "topic": "fleet/7/cpu", "data": 1}));
    assert_eq!(socket.envelope_of(&["nack", "ack"])["type"], "ack");
}

#[test]
fn a_browser_offers_its_credential_as_a_subprotocol_that_is_not_echoed() {
    let guarded = Guarded::start("subprotocol", TOKENS);
    let address = guarded.gateway.address;
    // `reader-secret` and `wrong` in unpadded base64url.
    let (good, wrong) = ("longwire.token.cmVhZGVyLXNlY3JldA", "longwire.token.d3Jvbmc");
    let open = |offer: &str| {
        Socket::open(address, "/v1/stream?topic=fleet/**", &[("Sec-WebSocket-Protocol", offer)])
    };
    for form in ["longwire.v1.json", "longwire.v1.cbor"] {
        for offer in [format!("{form}, {good}"), format!("{good}, {form}")] {
            assert_eq!(open(&offer).expect("101").subprotocol.as_deref(), Some(form), "{offer}");
        }
    }
    let mut alone = open(good).expect("101");
    assert_eq!(alone.subprotocol, None, "it is no offer of a form");
    assert_eq!(alone.envelope()["type"], "hello", "so the form is JSON");
    assert_refused(
        "wrong",
        &open(&format!("longwire.v1.json, {wrong}")).err().expect("no 101"),
        "unauthorized",
    );
}

#[test]
fn auth_replaces_the_grant_or_ends_the_connection() {
    let guarded = Guarded::start("auth", TOKENS);
    let mut socket = Socket::open(guarded.gateway.address, "/v1/stream", &[READER]).expect("101");
    socket.envelope_of(&["hello"]);
    let publication = |n: u64| json!({"type": "pub", "n": n, "topic": "fleet/7/cpu", "data": n});
    socket.send_json(&publication(1));
    assert_eq!(socket.envelope_of(&["nack", "ack"])["code"], "forbidden");
    socket.send_json(&json!({"type": "auth", "token": "device-secret"}));
    assert_eq!(socket.envelope_of(&["hello", "bye", "error"])["type"], "hello");
    socket.send_json(&publication(2));
    assert_eq!(socket.envelope_of(&["nack", "ack"])["type"], "ack", "the new grant holds");

    socket.send_json(&json!({"type": "auth", "token": "wrong"}));
    let bye = socket.envelope_of(&["bye", "hello", "error"]);
    assert_eq!((&bye["code"], &bye["permanent"]), (&json!("unauthorized"), &json!(true)), "{bye}");
    assert_eq!(socket.close_code(), Some(3000));
}

#[test]
fn a_grant_ends_in_time_on_every_transport() {
    // The time to open three connections.
    let expires = in_seconds(4);
    let tokens =
        format!("[[token]]\nsecret = \"s\"\nsubject = \"short\"\nsubscribe = [\"**\"]\nexpires = {expires}");
    let guarded = Guarded::start("ends", &tokens);
    let address = guarded.gateway.address;
    let short = [("Authorization", "Bearer s")];
    let mut socket = Socket::open(address, "/v1/stream?topic=a", &short).expect("101");
    let lease = socket.envelope_of(&["hello"])["lease"].clone();
    assert!(lease.as_u64().is_some_and(|ms| ms <= 4_000), "{lease}");
    let events = Events::open(address, "/v1/stream?topic=a", &short).expect("200");
    let waiting = guarded.gateway.request("GET", "/v1/stream?topic=a&since=now&wait=60", &short, b"");
    assert_refused("a long poll", &waiting, "unauthorized");
    assert_eq!(socket.close_code(), Some(3000));
    let last = events.last().expect("some");
    assert_eq!(last.name, "bye");
    assert_eq!(serde_json::from_str::<Value>(&last.data).expect("JSON")["code"], "unauthorized");
    assert_refused(
        "a poll",
        &guarded.gateway.request("GET", "/v1/stream?topic=a", &short, b""),
        "unauthorized",
    );
}

#[test]
fn an_open_gateway_ignores_credentials() {
    let gateway = Gateway::start();
    assert_eq!(
        gateway.request("GET", "/v1/stream?topic=a", &[("Authorization", "Bearer x")], b"").status,
        200
    );
    let mut socket = Socket::open(gateway.address, "/v1/stream", &[]).expect("101");
    socket.envelope_of(&["hello"]);
    socket.send_json(&json!({"type": "auth", "token": "x"}));
    assert_eq!(socket.envelope_of(&["hello", "bye", "error"])["type"], "hello");
    socket.send(opcode::PING, b"");
    assert_eq!(socket.receive(), Message::Pong(Vec::new()));
}

#[test]
fn the_program_says_in_one_line_that_its_token_is_refused() {
    let guarded = Guarded::start("program", TOKENS);
    let url = guarded.gateway.url();
    for arguments in [&["sub", "fleet/**", "--count", "1"][..], &["pub", "fleet/7/cpu", "1"]] {
        for transport in ["ws", "sse", "longpoll", "poll", "auto"] {
            let mut program = longwire();
            program.args(arguments).args(["--url", &url, "--token", "open-sesame"]);
            if arguments[0] == "sub" {
                program.args(["--transport", transport]);
            }
            let ended = Program::run(&mut program);
            assert_eq!((ended.status.code(), ended.stdout.len()), (Some(1), 0), "{transport}: {ended:#?}");
            let [line] = &ended.stderr[..] else { panic!("{transport}: {ended:#?}") };
            assert!(line.contains("unauthorized") || line.contains("token"), "{line}");
            assert!(!line.contains("sesame"), "a credential is not printed: {line}");
        }
    }
    let mut program = longwire();
    program.args(["pub", "fleet/7/cpu", "0.5", "--url", &url, "--token", "device-secret"]);
    assert_eq!(Program::run(&mut program).status.code(), Some(0));
    let mut program = longwire();
    program.args(["sub", "fleet/7/*", "--url", &url, "--token", "reader-secret", "--count", "1", "--json"]);
    let ended = Program::run(&mut program);
    assert_eq!((ended.status.code(), ended.stdout.len()), (Some(0), 1), "{ended:#?}");
}
