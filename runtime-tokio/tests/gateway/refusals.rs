//! Section 9: every refusal that a request can get, with its status, its code and what belongs to it.

use crate::support::{Answer, Served, UPGRADE};
use longwire::gateway::GatewayConfig;
use longwire::hub::{HubConfig, LogConfig, Open};

/// A gateway with small limits.
async fn small() -> Served {
    let log = LogConfig { max_topics: 2, ..LogConfig::default() };
    let hub = HubConfig { max_message: 64, max_topics: 2, log, ..HubConfig::default() };
    let gateway = GatewayConfig { max_headers: 20, ..GatewayConfig::default() };
    let served = Served::with(gateway, hub, Open).await;
    served.publish("full/1", None, "1").await;
    served.publish("full/2", None, "2").await;
    served
}

/// Asks, and compares.
async fn expect(served: &Served, request: &[u8], status: u16, code: &str, field: Field) {
    let answer = served.ask(request).await;
    compare(&answer, request, status, code, field);
}

fn compare(answer: &Answer, request: &[u8], status: u16, code: &str, field: Field) {
    let request = String::from_utf8_lossy(request);
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{request}\n{answer:?}");
    if let Some((name, value)) = field {
        assert_eq!(answer.field(name), Some(value), "{request}\n{answer:?}");
    }
}

/// Header lines, status, code, and a field of the answer.
type Row = (&'static str, String, u16, &'static str, Field);
type Field = Option<(&'static str, &'static str)>;

const SSE: &str = "Accept: text/event-stream\r\n";

/// Requests for streams: asked at the front door, and again behind another request on the same connection.
fn streams() -> Vec<Row> {
    let ws = |headers: &str| format!("{UPGRADE}{headers}");
    let without = |line: &str| UPGRADE.replace(line, "");
    vec![
        ("/v1/stream", SSE.into(), 400, "bad_request", None),
        ("/v1/stream?topic=a//b", SSE.into(), 400, "bad_topic", None),
        ("/v1/stream?topic=a&topic=b&topic=c", SSE.into(), 400, "too_many_topics", None),
        ("/v1/stream?topic=a&since=x", SSE.into(), 400, "bad_cursor", None),
        ("/v1/stream?topic=a&since=now&since=now", SSE.into(), 400, "bad_request", None),
        ("/v1/stream?topic=a", format!("{SSE}Last-Event-ID: x\r\n"), 400, "bad_cursor", None),
        ("/v1/stream?topic=a", format!("{SSE}Origin: http://evil.example\r\n"), 403, "forbidden", None),
        ("/v1/stream?topic=a*", ws(""), 400, "bad_topic", None),
        ("/v1/stream?topic=a&topic=b&topic=c", ws(""), 400, "too_many_topics", None),
        ("/v1/stream?since=0", ws(""), 400, "bad_cursor", None),
        ("/v1/stream?limit=0", ws(""), 400, "bad_request", None),
        ("/v1/stream", ws("Origin: http://evil.example\r\n"), 403, "forbidden", None),
        ("/v1/stream", ws("Origin: null\r\n"), 403, "forbidden", None),
        ("/v1/stream", ws("Sec-WebSocket-Protocol: chat, longwire.v2.json\r\n"), 400, "bad_request", None),
        ("/v1/stream", ws("Sec-WebSocket-Protocol: a, a\r\n"), 400, "bad_request", None),
        ("/v1/stream", ws("Sec-WebSocket-Protocol: longwire.token.!\r\n"), 400, "bad_request", None),
        ("/v1/stream", ws("Sec-WebSocket-Extensions: ;\r\n"), 400, "bad_request", None),
        (
            "/v1/stream",
            UPGRADE.replace("Version: 13", "Version: 12"),
            426,
            "upgrade_required",
            Some(("sec-websocket-version", "13")),
        ),
        ("/v1/stream", without("Sec-WebSocket-Version: 13\r\n"), 400, "bad_request", None),
        ("/v1/stream", UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400, "bad_request", None),
        (
            "/v1/stream",
            UPGRADE.replace("Connection: Upgrade", "Connection: keep-alive"),
            400,
            "bad_request",
            None,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_refused_before_they_begin() {
    let served = small().await;
    for (target, headers, status, code, field) in streams() {
        let request = served.request("GET", target, &headers, b"");
        expect(&served, &request, status, code, field).await;
    }
    assert_eq!(served.get("/healthz", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_refused_in_the_same_way_behind_another_request() {
    let served = small().await;
    for (target, headers, status, code, field) in streams() {
        let mut client = served.connect().await;
        client.send(&served.request("GET", "/healthz", "", b"")).await;
        assert_eq!(client.answer().await.status, 200);
        let request = served.request("GET", target, &headers, b"");
        client.send(&request).await;
        compare(&client.answer().await, &request, status, code, field);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_and_other_paths_are_refused() {
    let served = small().await;
    let allow = |methods| Some(("allow", methods));
    let rows: Vec<(&str, &str, u16, &str, Field)> = vec![
        ("GET", "/nowhere", 404, "not_found", None),
        ("GET", "/v1/streams", 404, "not_found", None),
        ("GET", "/v1/topics/", 404, "not_found", None),
        ("POST", "/v1/stream?topic=a", 405, "method_not_allowed", allow("GET, HEAD, OPTIONS")),
        ("DELETE", "/v1/stream?topic=a", 405, "method_not_allowed", allow("GET, HEAD, OPTIONS")),
        ("GET", "/v1/topics/a", 405, "method_not_allowed", allow("POST, OPTIONS")),
        ("PUT", "/v1/topics/a", 405, "method_not_allowed", allow("POST, OPTIONS")),
        ("POST", "/", 405, "method_not_allowed", allow("GET, HEAD, OPTIONS")),
        ("POST", "/metrics", 405, "method_not_allowed", allow("GET, HEAD, OPTIONS")),
        ("DELETE", "/readyz", 405, "method_not_allowed", allow("GET, HEAD, OPTIONS")),
        ("GET", "/v1/stream", 400, "bad_request", None),
        ("GET", "/v1/stream?Topic=a", 400, "bad_request", None),
        ("GET", "/v1/stream?topic=%zz", 400, "bad_request", None),
        ("GET", "/v1/stream?topic=a/**/b", 400, "bad_topic", None),
        ("GET", "/v1/stream?topic=a&topic=b&topic=c", 400, "too_many_topics", None),
        ("GET", "/v1/stream?topic=a&since=9F86D081884C7D65-1", 400, "bad_cursor", None),
        ("GET", "/v1/stream?topic=a&wait=soon", 400, "bad_request", None),
        ("GET", "/v1/stream?topic=a&limit=0", 400, "bad_request", None),
        ("GET", "/v1/stream?topic=full/*&limit=1", 413, "state_too_large", None),
        ("GET", "/v1/stream?topic=full/*&limit=1&since=latest", 413, "state_too_large", None),
        ("GET", "/v1/stream?topic=full/*&limit=1&since=0000000000000000-1", 413, "state_too_large", None),
    ];
    for (method, target, status, code, field) in rows {
        expect(&served, &served.request(method, target, "", b""), status, code, field).await;
    }
    assert_eq!(served.get("/healthz", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn publications_are_refused() {
    let served = small().await;
    let (json, cbor) = ("application/json", "application/cbor");
    let (longest, too_long) = (format!("a/{}", "b".repeat(253)), format!("a/{}", "b".repeat(254)));
    let rows: Vec<(&str, &str, &[u8], u16, &str)> = vec![
        ("/v1/topics/a*", json, b"1", 400, "bad_topic"),
        ("/v1/topics/a//b", json, b"1", 400, "bad_topic"),
        ("/v1/topics/a%2Fb", json, b"1", 400, "bad_topic"),
        ("/v1/topics/a%00", json, b"1", 400, "bad_topic"),
        ("/v1/topics/a%2", json, b"1", 400, "bad_request"),
        ("/v1/topics/full/1?key=a%0a", json, b"1", 400, "bad_topic"),
        ("/v1/topics/full/1?key=a&key=b", json, b"1", 400, "bad_request"),
        ("/v1/topics/full/1", json, b"{", 400, "bad_data"),
        ("/v1/topics/full/1", json, b"1 2", 400, "bad_data"),
        ("/v1/topics/full/1", json, b"\"\xff\"", 400, "bad_data"),
        ("/v1/topics/full/1", json, b"", 400, "bad_data"),
        ("/v1/topics/full/1", "application/problem+json; charset=utf-8", b"nope", 400, "bad_data"),
        ("/v1/topics/full/1", cbor, b"\x82\x01", 400, "bad_data"),
        ("/v1/topics/full/1", cbor, b"\xa1\xf4\x01", 400, "bad_data"),
        ("/v1/topics/full/1", "a/b;\tc=d", b"1", 400, "bad_data"),
        ("/v1/topics/full/1", &too_long, b"1", 400, "bad_data"),
        ("/v1/topics/full/3", json, b"1", 507, "topics_full"),
    ];
    for (target, content_type, body, status, code) in rows {
        let headers = format!("Content-Type: {content_type}\r\n");
        expect(&served, &served.request("POST", target, &headers, body), status, code, None).await;
    }
    assert_eq!(served.post("/v1/topics/full/1", json, b"3").await.status, 200);
    assert_eq!(served.post("/v1/topics/full/1", &longest, b"3").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_heads_are_refused() {
    let served = small().await;
    let (host, long) = ("Host: a\r\n", "x".repeat(5000));
    let rows: Vec<(String, u16, &str)> = vec![
        ("GET / HTTP/1.1\nHost: a\n\n".into(), 400, "bad_request"),
        ("GET / HTTP/1.1\r\n\r\n".into(), 400, "bad_request"),
        (format!("GET / HTTP/1.1\r\n{host}{host}\r\n"), 400, "bad_request"),
        (format!("GET / HTTP/1.1\r\n{host}X : y\r\n\r\n"), 400, "bad_request"),
        (format!("GET / HTTP/1.1\r\n{host}X: y\r\n folded\r\n\r\n"), 400, "bad_request"),
        (format!("GET / HTTP/1.1\r\n{host}X: \0\r\n\r\n"), 400, "bad_request"),
        (format!("GET /{} HTTP/1.1\r\n{host}\r\n", "\u{e9}"), 400, "bad_request"),
        (format!("GET / HTTP/2.0\r\n{host}\r\n"), 400, "bad_request"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 400, "bad_request"),
        (
            format!("POST /v1/topics/a HTTP/1.1\r\n{host}Content-Length: 1\r\nContent-Length: 1\r\n\r\n1"),
            400,
            "bad_request",
        ),
        (format!("POST /v1/topics/a HTTP/1.1\r\n{host}Content-Length: +1\r\n\r\n1"), 400, "bad_request"),
        (
            format!(
                "POST /v1/topics/a HTTP/1.1\r\n{host}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            400,
            "bad_request",
        ),
        (format!("POST /v1/topics/a HTTP/1.1\r\n{host}Transfer-Encoding: gzip\r\n\r\n"), 400, "bad_request"),
        (format!("GET /{long} HTTP/1.1\r\n{host}\r\n"), 414, "uri_too_long"),
        (format!("GET / HTTP/1.1\r\n{host}X: {long}{long}\r\n\r\n"), 431, "head_too_large"),
        (format!("GET / HTTP/1.1\r\n{host}{}\r\n", "X: y\r\n".repeat(64)), 431, "head_too_large"),
        (format!("GET /v1/stream HTTP/1.0\r\n{UPGRADE}\r\n"), 400, "bad_request"),
        (format!("GET /v1/stream HTTP/1.1\r\n{host}{UPGRADE}Content-Length: 1\r\n\r\nx"), 400, "bad_request"),
    ];
    for (request, status, code) in rows {
        expect(&served, request.as_bytes(), status, code, None).await;
    }
    assert_eq!(served.get("/healthz", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_at_their_value_and_refuse_one_above_it() {
    let served = small().await;
    // max_message: 64.
    let json = |len: usize| format!("\"{}\"", "x".repeat(len - 2)).into_bytes();
    let chunked = |len: usize| {
        let head = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
        let mut request = served.request("POST", "/v1/topics/full/1", head, b"");
        for byte in json(len) {
            request.extend([b"1\r\n", &[byte][..], b"\r\n"].concat());
        }
        request.extend(b"0\r\n\r\n");
        request
    };
    assert_eq!(served.post("/v1/topics/full/1", "application/json", &json(64)).await.status, 200);
    let answer = served.post("/v1/topics/full/1", "application/json", &json(65)).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "message_too_big"));
    assert_eq!(served.ask(&chunked(64)).await.status, 200);
    expect(&served, &chunked(65), 413, "message_too_big", None).await;
    // A length that is only announced is refused without waiting for it.
    let announced =
        served.request("POST", "/v1/topics/full/1", "Content-Length: 9223372036854775807\r\n", b"");
    expect(&served, &announced, 413, "message_too_big", None).await;

    // max_head: 8192, and half of it for the target.
    let padded = |len: usize| {
        let empty = served.request("GET", "/healthz", "X: \r\n", b"").len();
        served.request("GET", "/healthz", &format!("X: {}\r\n", "x".repeat(len - empty)), b"")
    };
    assert_eq!(padded(8192).len(), 8192);
    assert_eq!(served.ask(&padded(8192)).await.status, 200);
    expect(&served, &padded(8193), 431, "head_too_large", None).await;
    // max_headers: 20, of which `Host` is one.
    let headers = |n: usize| served.request("GET", "/healthz", &"X: y\r\n".repeat(n - 1), b"");
    assert_eq!(served.ask(&headers(20)).await.status, 200);
    expect(&served, &headers(21), 431, "head_too_large", None).await;
    let mut client = served.connect().await;
    for (n, status) in [(20, 200), (20, 200), (21, 431)] {
        client.send(&headers(n)).await;
        assert_eq!(client.answer().await.status, status);
    }

    let target = |len: usize| format!("/healthz?{}", "x".repeat(len - 9));
    assert_eq!(served.get(&target(4096), "").await.status, 200);
    expect(&served, &served.request("GET", &target(4097), "", b""), 414, "uri_too_long", None).await;

    // max_topics: 2.
    assert_eq!(served.get("/v1/stream?topic=a&topic=b&topic=a", "").await.status, 200);
    let answer = served.get("/v1/stream?topic=a&topic=b&topic=c", "").await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "too_many_topics"));
}
