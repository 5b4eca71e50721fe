//! Sections 8.4 and 8.5: credentials and origins, on every transport.

use crate::support::{Answer, Served, UPGRADE, assert_retry};
use longwire::gateway::{GatewayConfig, TokenFile};
use longwire::hub::{Authorize, Authorizing, Denied, Grant, HubConfig, Open};
use std::time::Duration;

const TOKENS: &str = r#"
[[token]]
secret = "reader"
subject = "a reader"
subscribe = ["fleet/**"]

[[token]]
secret = "writer"
subject = "a writer"
publish = ["fleet/7/*"]

[[token]]
secret = "old"
subject = "expired"
subscribe = ["**"]
expires = 2001-01-01T00:00:00Z
"#;

const SSE: &str = "Accept: text/event-stream\r\n";

async fn guarded() -> Served {
    let tokens = TokenFile::parse(TOKENS).unwrap();
    Served::with(GatewayConfig::default(), HubConfig::default(), tokens).await
}

fn bearer(secret: &str) -> String {
    format!("Authorization: Bearer {secret}\r\n")
}

/// The answer's head, and a body only if it is a refusal: streams do not end.
async fn begin(served: &Served, target: &str, headers: &str) -> Answer {
    let mut client = served.connect().await;
    client.send(&served.request("GET", target, headers, b"")).await;
    let mut answer = client.head().await;
    if answer.status >= 400 {
        let len: usize = answer.field("content-length").unwrap().parse().unwrap();
        while client.unread.len() < len {
            assert!(client.read().await);
        }
        answer.body = String::from_utf8(client.unread).unwrap();
    }
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_grant_nothing_is_read() {
    let served = guarded().await;
    served.publish("fleet/1", None, "1").await;
    for (credential, status, code) in [
        (String::new(), 401, "unauthorized"),
        (bearer("wrong"), 401, "unauthorized"),
        (bearer("old"), 401, "unauthorized"),
        (bearer("writer"), 403, "forbidden"),
        ("Authorization: Basic cmVhZGVyOg==\r\n".into(), 401, "unauthorized"),
        ("Authorization: reader\r\n".into(), 401, "unauthorized"),
        (bearer("reader"), 200, ""),
        ("Authorization: bEaReR   reader\r\n".into(), 200, ""),
    ] {
        for (target, transport) in
            [("/v1/stream?topic=fleet/*", String::new()), ("/v1/stream?topic=fleet/*", UPGRADE.to_owned())]
        {
            let answer = begin(&served, target, &format!("{transport}{credential}")).await;
            let status = if status == 200 && !transport.is_empty() { 101 } else { status };
            assert_eq!(answer.status, status, "{credential} {transport}");
            if status >= 400 {
                assert_eq!(answer.code(), code);
            }
            let challenge = (status == 401).then_some("Bearer");
            assert_eq!(answer.field("www-authenticate"), challenge, "{credential}");
        }
    }
    let twice = format!("{}{}", bearer("reader"), bearer("reader"));
    assert_eq!(begin(&served, "/v1/stream?topic=fleet/*", &twice).await.status, 400);
    // The grant has to cover all of a pattern, and all of the patterns.
    for (target, status) in [
        ("/v1/stream?topic=fleet/1/**", 200),
        ("/v1/stream?topic=**", 403),
        ("/v1/stream?topic=*/1", 403),
        ("/v1/stream?topic=fleet/1&topic=other", 403),
    ] {
        assert_eq!(begin(&served, target, &bearer("reader")).await.status, status, "{target}");
    }
    // With a credential an answer is nobody else's.
    let answer = served.get("/v1/stream?topic=fleet/*", &bearer("reader")).await;
    assert_eq!(answer.field("cache-control"), Some("private, max-age=1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_presents_its_credential_among_the_subprotocols() {
    let served = guarded().await;
    // base64url of "reader" and "writer", without padding.
    for (offers, status, chosen) in [
        ("longwire.v1.json, longwire.token.cmVhZGVy", 101, Some("longwire.v1.json")),
        ("longwire.token.cmVhZGVy", 101, None),
        ("longwire.v1.json, longwire.token.d3JpdGVy", 403, None),
        ("longwire.v1.json, longwire.token.eA", 401, None),
        ("longwire.v1.json, longwire.token.", 401, None),
        ("longwire.v1.json, longwire.token.c", 400, None),
        ("longwire.token.cmVhZGVy, longwire.token.d3JpdGVy", 400, None),
    ] {
        let headers = format!("{UPGRADE}Sec-WebSocket-Protocol: {offers}\r\n");
        let answer = begin(&served, "/v1/stream?topic=fleet/*", &headers).await;
        assert_eq!((answer.status, answer.field("sec-websocket-protocol")), (status, chosen), "{offers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sse_is_refused_in_an_event_where_that_can_change() {
    let served = guarded().await;
    for behind in [false, true] {
        for (credential, code) in [(String::new(), "unauthorized"), (bearer("writer"), "forbidden")] {
            let mut client = served.connect().await;
            if behind {
                client.send(&served.request("GET", "/healthz", "", b"")).await;
                assert_eq!(client.answer().await.status, 200);
            }
            let headers = format!("{SSE}{credential}");
            client.send(&served.request("GET", "/v1/stream?topic=fleet/*", &headers, b"")).await;
            let answer = client.answer().await;
            assert_eq!((answer.status, answer.field("content-type")), (200, Some("text/event-stream")));
            let bye =
                format!("\nevent: bye\ndata: {{\"type\":\"bye\",\"code\":\"{code}\",\"permanent\":true,");
            assert_retry(&answer.body, &bye);
            assert!(answer.body.ends_with("}\n\n"), "{answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_needs_a_grant_of_its_own() {
    let served = guarded().await;
    for (target, credential, status) in [
        ("/v1/topics/fleet/7/cpu", String::new(), 401),
        ("/v1/topics/fleet/7/cpu", bearer("reader"), 403),
        ("/v1/topics/fleet/7/cpu", bearer("writer"), 200),
        ("/v1/topics/fleet/8/cpu", bearer("writer"), 403),
        ("/v1/topics/fleet/7", bearer("writer"), 403),
        // Who may not publish learns nothing about the data.
        ("/v1/topics/fleet/8/{", bearer("writer"), 403),
    ] {
        let answer = served.ask(&served.request("POST", target, &credential, b"{")).await;
        assert_eq!(answer.status, status, "{target} {credential}");
    }
    let metrics = served.get("/metrics", "").await;
    assert!(metrics.body.contains("\nlongwire_unauthorized_total 1\n"), "{}", metrics.body);
    assert!(metrics.body.contains("\nlongwire_requests_total{route=\"topics\",status=\"403\"} 4\n"));
    // What is for operators and for people needs none.
    for target in ["/", "/longwire.js", "/healthz", "/readyz", "/metrics"] {
        assert_eq!(served.get(target, "").await.status, 200);
    }
}

/// A grant that ends soon.
struct Soon;

impl Authorize for Soon {
    fn authorize<'a>(&'a self, credential: Option<&'a str>) -> Authorizing<'a> {
        let expires = tokio::time::Instant::now() + Duration::from_millis(200);
        let grant = credential.map(|_| Grant { expires: Some(expires), ..Grant::open() });
        Box::pin(std::future::ready(grant.ok_or(Denied("none"))))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_grant_ends_a_long_poll_and_an_event_stream_end() {
    let served = Served::with(GatewayConfig::default(), HubConfig::default(), Soon).await;
    let answer = served.get("/v1/stream?topic=a&since=now&wait=60", &bearer("x")).await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"));
    let answer = served.get("/v1/stream?topic=a", &format!("{SSE}{}", bearer("x"))).await;
    assert!(
        answer.body.contains("event: bye\ndata: {\"type\":\"bye\",\"code\":\"unauthorized\""),
        "{answer:?}"
    );
}

/// Decides when it is told to, which is never.
struct Never;

impl Authorize for Never {
    fn authorize<'a>(&'a self, _: Option<&'a str>) -> Authorizing<'a> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_does_not_come_is_not_waited_for_for_ever() {
    let config = GatewayConfig { request_timeout: Duration::from_millis(100), ..GatewayConfig::default() };
    let served = Served::with(config, HubConfig::default(), Never).await;
    for headers in ["", UPGRADE] {
        let answer = served.get("/v1/stream?topic=a", headers).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
        let after: u64 = answer.field("retry-after").unwrap().parse().unwrap();
        assert!((5..=10).contains(&after), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_origins_are_refused_and_allowed_ones_are_told_so() {
    let config = GatewayConfig {
        allow_origins: vec!["https://app.example".parse().unwrap()],
        ..GatewayConfig::default()
    };
    let served = Served::with(config, HubConfig::default(), Open).await;
    let own = format!("http://{}", served.address);
    let asked = [
        ("/v1/stream?topic=a", ""),
        ("/v1/stream?topic=a", SSE),
        ("/v1/stream?topic=a", UPGRADE),
        ("/longwire.js", ""),
        ("/nowhere", ""),
    ];
    for (target, headers) in asked {
        let with = |origin: &str| format!("{headers}Origin: {origin}\r\n");
        let ordinary = begin(&served, target, headers).await.status;
        for (origin, status, allowed) in [
            (&*own, ordinary, false),
            ("https://app.example", ordinary, true),
            ("http://app.example", 403, false),
            ("https://evil.example", 403, false),
            ("null", 403, false),
        ] {
            let answer = begin(&served, target, &with(origin)).await;
            assert_eq!(answer.status, status, "{target} {origin}");
            let named = allowed.then_some(origin);
            assert_eq!(answer.field("access-control-allow-origin"), named, "{target} {origin}");
            let exposed = allowed.then_some("ETag, Longwire-Next, Longwire-Repeated, Retry-After");
            assert_eq!(answer.field("access-control-expose-headers"), exposed);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_is_answered_for_allowed_origins() {
    let config = GatewayConfig {
        allow_origins: vec!["https://app.example".parse().unwrap()],
        ..GatewayConfig::default()
    };
    let served = Served::with(config, HubConfig::default(), Open).await;
    for (target, allow) in [("/v1/stream", "GET, HEAD, OPTIONS"), ("/v1/topics/a/b", "POST, OPTIONS")] {
        let preflight = |origin: &str| {
            let headers = format!("Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\n");
            served.request("OPTIONS", target, &headers, b"")
        };
        let answer = served.ask(&preflight("https://app.example")).await;
        assert_eq!((answer.status, answer.field("allow")), (204, Some(allow)));
        assert_eq!(answer.field("access-control-allow-origin"), Some("https://app.example"));
        assert_eq!(answer.field("access-control-allow-methods"), Some("GET, HEAD, POST"));
        assert_eq!(
            answer.field("access-control-allow-headers"),
            Some("Authorization, Content-Type, Idempotency-Key, Last-Event-ID, If-None-Match")
        );
        let answer = served.ask(&preflight("https://evil.example")).await;
        assert_eq!((answer.status, answer.field("access-control-allow-methods")), (403, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_made_to_point_here_is_refused() {
    let config = GatewayConfig { local_names_only: true, ..GatewayConfig::default() };
    let served = Served::with(config, HubConfig::default(), Open).await;
    served.publish("a", None, "1").await;
    for headers in ["", SSE, UPGRADE] {
        for (host, ok) in [("localhost:1", true), ("127.0.0.1", true), ("evil.example:1", false)] {
            let request = format!("GET /v1/stream?topic=a HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
            let mut client = served.connect().await;
            client.send(request.as_bytes()).await;
            let status = client.head().await.status;
            assert_eq!(status < 400, ok, "{host} {status}");
            assert!(ok || status == 403);
        }
    }
}
