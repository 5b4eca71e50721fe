//! Section 8.4: where a credential may stand, tickets, renewal, revocation, and WebSockets that say later who they are.

use crate::support::{Answer, Client, Served, UPGRADE, within};
use crate::wire::frame;
use http::Request;
use longwire::gateway::{Credentials, GatewayConfig, Revoked, TokenFile};
use longwire::hub::{Authorize, Authorizing, Denied, Grant, HubConfig, LogConfig, Open};
use longwire_core::ws::{FrameHeader, OpCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;
use tower_service::Service as _;

const TOKENS: &str = r#"
[[token]]
secret = "ada's"
subject = "ada"
subscribe = ["a/**"]
publish = ["a/**"]

[[token]]
secret = "ada-other"
subject = "ada"
subscribe = ["a/**", "b"]

[[token]]
secret = "ada-small"
subject = "ada"
subscribe = ["a/small"]

[[token]]
secret = "bob's"
subject = "bob"
subscribe = ["**"]
"#;

/// So that the test keeps hold of what it gives away.
struct Of(Arc<Credentials>);

impl Authorize for Of {
    fn authorize<'a>(&'a self, credential: Option<&'a str>) -> Authorizing<'a> {
        self.0.authorize(credential)
    }
}

async fn guarded(gateway: GatewayConfig) -> (Served, Arc<Credentials>) {
    let credentials = Arc::new(Credentials::default());
    let served = Served::with(gateway, HubConfig::default(), Of(Arc::clone(&credentials))).await;
    credentials.set_tokens(Some(TokenFile::parse(TOKENS).unwrap()), served.gateway.hub());
    (served, credentials)
}

fn bearer(secret: &str) -> String {
    format!("Authorization: Bearer {secret}\r\n")
}

const SSE: &str = "Accept: text/event-stream\r\n";

/// A WebSocket, with what it says as JSON.
struct Socket(Client);

impl Socket {
    async fn open(served: &Served, target: &str, headers: &str) -> Result<Self, Answer> {
        let mut client = served.connect().await;
        client.send(&served.handshake(target, headers)).await;
        let mut answer = client.head().await;
        if answer.status == 101 {
            return Ok(Self(client));
        }
        let len: usize = answer.field("content-length").unwrap().parse().unwrap();
        while client.unread.len() < len {
            assert!(client.read().await);
        }
        answer.body = String::from_utf8(client.unread).unwrap();
        Err(answer)
    }

    async fn send(&mut self, message: Value) {
        // Section 4: the type first, and the data last.
        let rank = |name: &str| match name {
            "type" => 0,
            "data" => 2,
            _ => 1,
        };
        let mut fields: Vec<_> = message.as_object().unwrap().iter().collect();
        fields.sort_by_key(|(name, _)| rank(name));
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        self.0.send(&frame(0x81, format!("{{{}}}", fields.join(",")).as_bytes())).await;
    }

    /// The next message, or the close code.
    async fn next(&mut self) -> Result<Value, u16> {
        loop {
            if let Some((header, size)) = FrameHeader::parse(&self.0.unread).unwrap() {
                let end = size + usize::try_from(header.len).unwrap();
                if self.0.unread.len() >= end {
                    let frame: Vec<u8> = self.0.unread.drain(..end).collect();
                    let payload = &frame[size..];
                    match header.opcode {
                        OpCode::Text => return Ok(serde_json::from_slice(payload).unwrap()),
                        OpCode::Close => return Err(u16::from_be_bytes([payload[0], payload[1]])),
                        _ => continue,
                    }
                }
            }
            assert!(self.0.read().await, "the stream ends without a Close");
        }
    }

    async fn of_type(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await.unwrap_or_else(|code| panic!("{code} instead of {kind}"));
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// It was told to go, for that reason.
    async fn unauthorized(&mut self) -> String {
        let bye = self.of_type("bye").await;
        assert_eq!(bye["code"], "unauthorized");
        assert_eq!(self.next().await, Err(3000));
        bye["message"].as_str().unwrap().to_owned()
    }
}

async fn events(served: &Served, target: &str, headers: &str) -> Client {
    let mut client = served.connect().await;
    client.send(&served.request("GET", target, &format!("{SSE}{headers}"), b"")).await;
    assert_eq!(client.head().await.status, 200);
    client
}

/// The data of the next event of that name.
async fn event(client: &mut Client, name: &str) -> Value {
    client.until(&format!("event: {name}\n")).await;
    client.until("data: ").await;
    serde_json::from_str(client.until("\n").await.trim_end()).unwrap()
}

async fn ticket(served: &Served, secret: &str, body: &str) -> Answer {
    served.ask(&served.request("POST", "/v1/ticket", &bearer(secret), body.as_bytes())).await
}

fn text(answer: &Answer) -> String {
    assert_eq!((answer.status, answer.field("cache-control")), (200, Some("no-store")), "{answer:?}");
    answer.json()["ticket"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_subject_is_cut_off_on_every_transport_and_stays_out() {
    let (served, credentials) = guarded(GatewayConfig::default()).await;
    let hub = Arc::clone(served.gateway.hub());
    let unused = text(&ticket(&served, "ada's", "").await);
    // Several of each, so that both shards have some.
    let (mut sockets, mut streams) = (Vec::new(), Vec::new());
    for secret in ["ada's", "ada-other", "bob's", "bob's"] {
        let mut socket = Socket::open(&served, "/v1/stream?topic=a/1", &bearer(secret)).await.unwrap();
        socket.of_type("caught_up").await;
        sockets.push(socket);
        let mut stream = events(&served, "/v1/stream?topic=a/1", &bearer(secret)).await;
        event(&mut stream, "caught_up").await;
        streams.push(stream);
    }
    let mut polls = Vec::new();
    for secret in ["ada's", "bob's"] {
        let mut client = served.connect().await;
        let target = "/v1/stream?topic=a/1&since=now&wait=60";
        client.send(&served.request("GET", target, &bearer(secret), b"")).await;
        polls.push(client);
    }
    within(async {
        while hub.counters().waiting.load(Relaxed) < 2 {
            tokio::task::yield_now().await
        }
    })
    .await;

    credentials.set_revoked(Revoked::parse("ada\n").unwrap(), &hub);
    for socket in &mut sockets[..2] {
        assert_eq!(socket.unauthorized().await, "the grant was revoked");
    }
    for stream in &mut streams[..2] {
        assert_eq!(event(stream, "bye").await["code"], "unauthorized");
        assert_eq!(stream.rest().await.trim(), "");
    }
    let answer = polls[0].answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"));
    // Nobody else notices.
    served.publish("a/1", None, "1").await;
    for socket in &mut sockets[2..] {
        assert_eq!(socket.of_type("event").await["data"], 1);
    }
    for stream in &mut streams[2..] {
        stream.until("\"data\":1").await;
    }
    assert_eq!(polls[1].answer().await.events().len(), 1);
    // And it does not come back: not with the token, not with a ticket of before.
    for secret in ["ada's", "ada-other"] {
        assert_eq!(served.get("/v1/stream?topic=a/1", &bearer(secret)).await.status, 401);
        assert_eq!(
            Socket::open(&served, "/v1/stream?topic=a/1", &bearer(secret)).await.err().unwrap().status,
            401
        );
        assert_eq!(ticket(&served, secret, "").await.status, 401);
    }
    assert_eq!(served.get(&format!("/v1/stream?topic=a/1&ticket={unused}"), "").await.status, 401);
    assert_eq!(hub.counters().revoked.load(Relaxed), 4);
    // Until it may again.
    credentials.set_revoked(Revoked::default(), &hub);
    assert_eq!(served.get("/v1/stream?topic=a/1", &bearer("ada's")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_gone_or_says_something_else_cuts_its_subject_off() {
    let (served, credentials) = guarded(GatewayConfig::default()).await;
    let hub = served.gateway.hub();
    let mut ada = Socket::open(&served, "/v1/stream?topic=a/1", &bearer("ada's")).await.unwrap();
    let mut bob = Socket::open(&served, "/v1/stream?topic=a/1", &bearer("bob's")).await.unwrap();
    ada.of_type("caught_up").await;
    bob.of_type("caught_up").await;
    // Another order and another comment are no change.
    let same = format!("# hello\n{TOKENS}\n");
    credentials.set_tokens(Some(TokenFile::parse(&same).unwrap()), hub);
    assert_eq!(hub.counters().revoked.load(Relaxed), 0);
    let less = TOKENS.replace("\"a/**\", \"b\"", "\"b\"");
    credentials.set_tokens(Some(TokenFile::parse(&less).unwrap()), hub);
    assert_eq!(ada.unauthorized().await, "the grant was revoked");
    served.publish("a/1", None, "1").await;
    assert_eq!(bob.of_type("event").await["data"], 1);
    // The same credential is looked at with the new file.
    assert!(Socket::open(&served, "/v1/stream?topic=a/1", &bearer("ada's")).await.is_ok());
    let answer = Socket::open(&served, "/v1/stream?topic=a/1", &bearer("ada-other")).await.err().unwrap();
    assert_eq!(answer.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_change_are_read_again_and_who_is_listed_is_cut_off() {
    let folder = std::env::temp_dir().join(format!("longwire-revoked-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (tokens, revoked) = (folder.join("tokens.toml"), folder.join("revoked.txt"));
    std::fs::write(&tokens, TOKENS).unwrap();
    std::fs::write(&revoked, "# nobody yet\n").unwrap();
    let files = longwire::gateway::CredentialFiles {
        tokens: Some(tokens.clone()),
        revoked: Some(revoked.clone()),
        ..Default::default()
    };
    let (credentials, watcher) = files.load().unwrap();
    let served = Served::with(GatewayConfig::default(), HubConfig::default(), Of(credentials)).await;
    let hub = served.gateway.hub();
    tokio::spawn(watcher.run(Arc::downgrade(hub)));
    let mut ada = Socket::open(&served, "/v1/stream?topic=a/1", &bearer("ada's")).await.unwrap();
    let mut bob = Socket::open(&served, "/v1/stream?topic=a/1", &bearer("bob's")).await.unwrap();
    ada.of_type("caught_up").await;
    bob.of_type("caught_up").await;
    // A file that cannot be used changes nothing, and is counted.
    std::fs::write(&tokens, "[[token]").unwrap();
    within(async {
        while hub.counters().bad_files.load(Relaxed) < 1 {
            tokio::task::yield_now().await
        }
    })
    .await;
    assert_eq!(served.get("/v1/stream?topic=a/1", &bearer("ada's")).await.status, 200);
    let start = Instant::now();
    std::fs::write(&revoked, "ada\n").unwrap();
    assert_eq!(ada.unauthorized().await, "the grant was revoked");
    println!("cut off after {:?}", start.elapsed());
    assert_eq!(served.get("/v1/stream?topic=a/1", &bearer("ada's")).await.status, 401);
    // A token that is taken out of its file.
    std::fs::write(&tokens, TOKENS.replace("bob's", "robert's")).unwrap();
    assert_eq!(bob.unauthorized().await, "the grant was revoked");
    assert_eq!(hub.counters().bad_files.load(Relaxed), 1);
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_opens_one_stream_of_any_transport() {
    let (served, _) = guarded(GatewayConfig::default()).await;
    served.publish("a/1", None, "1").await;
    let target = |ticket: &str| format!("/v1/stream?topic=a/1&ticket={ticket}");
    for transport in ["", SSE, UPGRADE] {
        let given = text(&ticket(&served, "ada's", "").await);
        let mut client = served.connect().await;
        client.send(&served.request("GET", &target(&given), transport, b"")).await;
        let first = client.head().await;
        assert_eq!(first.status, if transport == UPGRADE { 101 } else { 200 }, "{transport}");
        if transport.is_empty() {
            assert_eq!(first.field("cache-control"), Some("private, max-age=1"));
        }
        // An EventSource that repeats its URL is told, for good, and not in a way that it cannot see.
        let again = served.get(&target(&given), transport).await;
        if transport == SSE {
            assert_eq!(again.status, 200);
            assert!(again.body.contains("\"code\":\"unauthorized\",\"permanent\":true"), "{again:?}");
        } else {
            assert_eq!((again.status, again.code().as_str()), (401, "unauthorized"));
        }
    }
    // Where everybody may do everything, nobody looks at it.
    let open = Served::open().await;
    assert_eq!(open.get(&target("x"), "").await.status, 200);
    let metrics = served.get("/metrics", "").await.body;
    assert!(
        metrics.contains("\nlongwire_tickets_total 3\n") && metrics.contains("\nlongwire_tickets_unused 0\n")
    );
    let why = "the ticket is not known, was used, or is too old";
    assert!(metrics.contains(&format!("\nlongwire_unauthorized_total{{reason=\"{why}\"}} 3\n")), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_gives_what_was_asked_for_and_at_most_what_its_credential_does() {
    let (served, _) = guarded(GatewayConfig { max_tickets: 3, ..GatewayConfig::default() }).await;
    for (body, status, code) in [
        ("{", 400, "bad_request"),
        ("[]", 400, "bad_request"),
        (r#"{"topics":["a/1"]}"#, 400, "bad_request"),
        (r#"{"subscribe":["a//b"]}"#, 400, "bad_topic"),
        (r#"{"subscribe":["**"]}"#, 403, "forbidden"),
        (r#"{"publish":["b"]}"#, 403, "forbidden"),
        (r#"{"lifetime":-1}"#, 400, "bad_request"),
    ] {
        let answer = ticket(&served, "ada's", body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{body}");
    }
    let long = format!("{{\"subscribe\":[\"{}\"]}}", "a".repeat(20 << 10));
    assert_eq!(ticket(&served, "ada's", &long).await.status, 413);
    assert_eq!(ticket(&served, "nobody's", "").await.status, 401);
    let answer = ticket(&served, "ada's", r#"{"subscribe":["a/1"],"publish":[],"lifetime":5000}"#).await;
    assert_eq!(answer.json()["expires_in"], 5000);
    let small = text(&answer);
    assert_eq!(served.get(&format!("/v1/stream?topic=a/2&ticket={small}"), "").await.status, 403);
    let small = text(&ticket(&served, "ada's", r#"{"subscribe":["a/1"],"lifetime":99999999}"#).await);
    let mut socket =
        Socket::open(&served, &format!("/v1/stream?topic=a/1&ticket={small}"), "").await.unwrap();
    socket.send(json!({"type": "pub", "n": 1, "topic": "a/1", "data": 1})).await;
    assert_eq!(socket.of_type("event").await["data"], 1, "what the body does not narrow stays");
    // As many as there may be.
    assert_eq!(ticket(&served, "ada's", "").await.json()["expires_in"], 10_000);
    let answer = ticket(&served, "ada's", "").await;
    assert_eq!(
        (answer.status, answer.code().as_str(), answer.field("retry-after")),
        (503, "unavailable", Some("1"))
    );
    let answer = served.get("/v1/ticket", "").await;
    assert_eq!((answer.status, answer.field("allow")), (405, Some("POST, OPTIONS")));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_credential_in_one_place_and_none_in_the_url() {
    let (served, _) = guarded(GatewayConfig::default()).await;
    // base64url of "ada's" and "bob's".
    let (ada, bob) = ("longwire.v1.json, longwire.token.YWRhJ3M", "longwire.v1.json, longwire.token.Ym9iJ3M");
    let offer = |protocols: &str| format!("{UPGRADE}Sec-WebSocket-Protocol: {protocols}\r\n");
    let given = text(&ticket(&served, "ada's", "").await);
    for (target, headers, status) in [
        ("topic=a/1", format!("{}{}", offer(ada), bearer("ada's")), 101),
        ("topic=a/1", format!("{}{}", offer(bob), bearer("ada's")), 400),
        ("topic=a/1&ticket=x", bearer("ada's"), 400),
        ("topic=a/1&ticket=x", offer(ada), 400),
        (&*format!("topic=a/1&ticket={given}"), bearer("ada's"), 400),
        ("topic=a/1&ticket=x&ticket=y", String::new(), 400),
        ("topic=a/1&token=ada's", String::new(), 400),
        ("topic=a/1&access_token=ada's", String::new(), 400),
        ("topic=a/1&access_%74oken=ada's", bearer("ada's"), 400),
        ("topic=a/1&jwt=ada's", UPGRADE.to_owned(), 400),
    ] {
        let mut client = served.connect().await;
        client.send(&served.request("GET", &format!("/v1/stream?{target}"), &headers, b"")).await;
        let answer = if status == 101 { client.head().await } else { client.answer().await };
        assert_eq!(answer.status, status, "{target} {headers}");
        assert!(!answer.body.contains("ada's") && !answer.body.contains("YWRhJ3M"), "{answer:?}");
        if target.contains("oken=") || target.contains("jwt=") {
            assert!(answer.body.contains("POST /v1/ticket"), "{answer:?}");
        }
    }
    // What was refused did not use the ticket up.
    assert_eq!(served.get(&format!("/v1/stream?topic=a/1&ticket={given}"), "").await.status, 200);
    // A ticket is for streams.
    let given = text(&ticket(&served, "ada's", "").await);
    for target in ["/v1/topics/a/1", "/v1/ticket", "/v1/session/x/auth"] {
        let target = format!("{target}?ticket={given}");
        let answer = served.ask(&served.request("POST", &target, "", b"1")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{target}");
    }
}

/// Grants whose time is in the credential: milliseconds, subject, patterns.
struct Clock;

impl Authorize for Clock {
    fn authorize<'a>(&'a self, credential: Option<&'a str>) -> Authorizing<'a> {
        let mut parts = credential.unwrap_or_default().split(' ');
        let grant = match (parts.next(), parts.next(), parts.next()) {
            (Some(millis), Some(subject), Some(patterns)) => {
                let end = Instant::now() + Duration::from_millis(millis.parse().unwrap());
                let mut grant = Grant { subject: subject.into(), expires: Some(end), ..Grant::open() };
                grant.subscribe =
                    patterns.split(',').map(|p| longwire_core::log::Pattern::parse(p).unwrap()).collect();
                Ok(grant)
            }
            _ => Err(Denied("none")),
        };
        Box::pin(std::future::ready(grant))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_is_asked_to_renew_and_renewed_by_post() {
    let served = Served::with(GatewayConfig::default(), HubConfig::default(), Clock).await;
    let renew = async |session: &str, headers: &str, body: &str| {
        let target = format!("/v1/session/{session}/auth");
        served.ask(&served.request("POST", &target, headers, body.as_bytes())).await
    };
    let mut client = events(&served, "/v1/stream?topic=a/1", &bearer("3000 ada a/*")).await;
    let hello = event(&mut client, "hello").await;
    assert!(hello["lease"].as_u64().unwrap() <= 3000);
    let session = hello["session"].as_str().unwrap().to_owned();
    let within = event(&mut client, "renew").await["within"].as_u64().unwrap();
    assert!(within > 0 && within <= 1000, "{within}");
    let (shard, secret) = (session.split('-').nth(1).unwrap(), session.rsplit('-').next().unwrap());
    let other =
        format!("{}-{}-{secret}", session.split('-').next().unwrap(), 1 - shard.parse::<i32>().unwrap());
    let guessed = format!("{}-{shard}-{:032x}", session.split('-').next().unwrap(), 1);
    for (session, headers, body, status, code) in [
        (&*session, String::new(), "", 401, "unauthorized"),
        (&session, bearer("nonsense"), "", 401, "unauthorized"),
        (&session, String::new(), "{\"token\":7}", 400, "bad_request"),
        (&session, bearer("60000 ada **"), "{\"token\":\"60000 ada a/*\"}", 400, "bad_request"),
        (&session, bearer("60000 bob **"), "", 403, "forbidden"),
        (&session, bearer("60000 ada a/2"), "", 403, "forbidden"),
        (&other, bearer("60000 ada **"), "", 404, "not_found"),
        (&guessed, bearer("60000 ada **"), "", 404, "not_found"),
        ("x", bearer("60000 ada **"), "", 404, "not_found"),
        // Who is nobody does not learn which sessions there are.
        ("x", bearer("nonsense"), "", 401, "unauthorized"),
    ] {
        let answer = renew(session, &headers, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{session} {headers} {body}");
    }
    assert_eq!(renew(&session, &bearer("60000 ada a/1"), "").await.status, 204);
    assert!(event(&mut client, "hello").await["lease"].as_u64().unwrap() > 50_000);
    assert_eq!(renew(&session, "", "{\"token\":\"1500 ada a/1\"}").await.status, 204);
    assert!(event(&mut client, "hello").await["lease"].as_u64().unwrap() <= 1500);
    served.publish("a/1", None, "1").await;
    client.until("\"data\":1").await;
    // It is asked for once for each grant, and ends with the last of them.
    event(&mut client, "renew").await;
    assert_eq!(event(&mut client, "bye").await["code"], "unauthorized");
    assert_eq!(client.rest().await.trim(), "");
    assert_eq!(renew(&session, &bearer("60000 ada **"), "").await.status, 404);
    let counters = served.gateway.hub().counters();
    assert_eq!((counters.renewals.load(Relaxed), counters.expired.load(Relaxed)), (2, 1));
    // A WebSocket is renewed in band, and nowhere else.
    let mut socket = Socket::open(&served, "/v1/stream?topic=a/1", &bearer("60000 ada a/*")).await.unwrap();
    let session = socket.of_type("hello").await["session"].as_str().unwrap().to_owned();
    assert_eq!(renew(&session, &bearer("60000 ada **"), "").await.status, 404);
    socket.send(json!({"type": "auth", "token": "500 ada a/1"})).await;
    assert!(socket.of_type("hello").await["lease"].as_u64().unwrap() <= 500);
    socket.of_type("renew").await;
    assert_eq!(socket.unauthorized().await, "the grant has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_log_has_its_own_paths_to_renew_a_grant_and_for_tickets() {
    let logs = [("a".to_owned(), LogConfig::default())].into();
    let served =
        Served::with(GatewayConfig::default(), HubConfig { logs, ..HubConfig::default() }, Clock).await;
    let post =
        async |target: &str| served.ask(&served.request("POST", target, &bearer("60000 ada t"), b"")).await;
    let mut client = events(&served, "/v1/logs/a/stream?topic=t", &bearer("3000 ada t")).await;
    let session = event(&mut client, "hello").await["session"].as_str().unwrap().to_owned();
    for log in ["nope", "A"] {
        let answer = post(&format!("/v1/logs/{log}/session/{session}/auth")).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"));
        assert_eq!(post(&format!("/v1/logs/{log}/ticket")).await.status, 404);
    }
    assert_eq!(post(&format!("/v1/logs/a/session/{session}/auth")).await.status, 204);
    assert!(event(&mut client, "hello").await["lease"].as_u64().unwrap() > 50_000);
    let ticket = text(&post("/v1/logs/a/ticket").await);
    let mut client = events(&served, &format!("/v1/logs/a/stream?topic=t&ticket={ticket}"), "").await;
    event(&mut client, "hello").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_may_say_later_who_it_is() {
    let (served, _) = guarded(GatewayConfig::default()).await;
    served.publish("a/1", None, "1").await;
    let open = "/v1/stream?topic=a/1&since=latest&auth=later";
    let mut socket = Socket::open(&served, open, "").await.unwrap();
    let hello = socket.next().await.unwrap();
    assert!(hello["type"] == "hello" && hello["lease"].as_u64().unwrap() <= 10_000);
    socket.send(json!({"type": "pub", "n": 1, "topic": "a/1", "data": 2})).await;
    let nack = socket.next().await.unwrap();
    assert_eq!((&nack["type"], &nack["n"], &nack["code"]), (&json!("nack"), &json!(1), &json!("forbidden")));
    socket.send(json!({"type": "unsub", "id": 4, "topics": ["a/1"]})).await;
    assert_eq!(socket.next().await.unwrap()["code"], "forbidden");
    socket.send(json!({"type": "sub", "id": 5, "topics": ["a//"]})).await;
    assert_eq!(socket.next().await.unwrap()["code"], "bad_topic");
    socket.send(json!({"type": "sub", "id": 6, "topics": ["a/2"]})).await;
    // Nothing of it comes before it is known who reads.
    served.publish("a/2", None, "3").await;
    socket.send(json!({"type": "auth", "token": "ada's"})).await;
    let hello = socket.next().await.unwrap();
    assert_eq!((&hello["type"], &hello["lease"]), (&json!("hello"), &Value::Null));
    assert_eq!(socket.of_type("event").await["data"], 1);
    assert_eq!(socket.of_type("caught_up").await["id"], Value::Null);
    assert_eq!(socket.of_type("caught_up").await["id"], 6);
    served.publish("a/2", None, "4").await;
    assert_eq!(socket.of_type("event").await["data"], 4);
    socket.send(json!({"type": "pub", "n": 2, "topic": "a/2", "data": 5})).await;
    assert_eq!(socket.of_type("ack").await["n"], 2);

    for (what, token) in
        [("a credential that is none", "x"), ("one that does not cover what waits", "ada-small")]
    {
        let mut socket = Socket::open(&served, open, "").await.unwrap();
        socket.send(json!({"type": "auth", "token": token})).await;
        socket.unauthorized().await;
        println!("{what}: refused");
    }
    // Elsewhere it means nothing, and other values nothing at all.
    assert_eq!(served.get(open, "").await.status, 401);
    assert_eq!(Socket::open(&served, "/v1/stream?auth=never", "").await.err().unwrap().status, 400);
    // A credential that is there is looked at.
    assert_eq!(Socket::open(&served, open, &bearer("x")).await.err().unwrap().status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_may_hold_is_bounded() {
    let config =
        GatewayConfig { auth_timeout: Duration::from_secs(2), max_handshakes: 2, ..GatewayConfig::default() };
    let (served, _) = guarded(config).await;
    let open = "/v1/stream?auth=later";
    let mut first = Socket::open(&served, open, "").await.unwrap();
    first.of_type("hello").await;
    // Its place is one of its address's: one is left, and that is whose request is read.
    let refused = Socket::open(&served, open, "").await;
    let mut second = match refused {
        Ok(second) => second,
        Err(answer) => panic!("{answer:?}"),
    };
    second.of_type("hello").await;
    let answer = served.get("/healthz", "").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "too_many_connections"));
    // Who has said who it is gives the place back.
    second.send(json!({"type": "auth", "token": "ada's"})).await;
    second.of_type("hello").await;
    assert_eq!(served.get("/healthz", "").await.status, 200);
    // Patterns are bounded, the same ones too.
    for n in 0..64 {
        first.send(json!({"type": "sub", "id": n, "topics": ["a/1"]})).await;
    }
    first.send(json!({"type": "sub", "id": 99, "topics": ["a/1"]})).await;
    let error = first.next().await.unwrap();
    assert_eq!((&error["code"], &error["id"]), (&json!("too_many_topics"), &json!(99)));
    assert_eq!(first.unauthorized().await, "no auth came in time (auth_timeout)");
    // And so are bytes.
    let mut third = Socket::open(&served, open, "").await.unwrap();
    third.of_type("hello").await;
    let long = "x".repeat(70 << 10);
    third.send(json!({"type": "auth", "token": long})).await;
    assert_eq!(third.unauthorized().await, "too many bytes before auth");
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_that_waits_over_the_deadline_ends_with_401_and_without_an_event() {
    for late in [false, true] {
        for _ in 0..20 {
            let hub =
                longwire::hub::Hub::start(HubConfig { shards: 1, ..HubConfig::default() }, Arc::new(Clock));
            let hub = hub.unwrap();
            let gateway = longwire::gateway::Gateway::new(Arc::clone(&hub), GatewayConfig::default());
            let request = Request::get("http://h/v1/stream?topic=a&since=now&wait=60")
                .header("authorization", "Bearer 5000 ada **")
                .body(axum::body::Body::empty())
                .unwrap();
            let begin = Instant::now();
            let answer = tokio::spawn(gateway.router().call(request));
            // Until it waits. (Nothing is idle meanwhile, so the time stands still.)
            while hub.counters().subscriptions.load(Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
            if late {
                let data = longwire::hub::Data::json(b"1").unwrap();
                hub.publish(longwire_core::log::Topic::parse("a").unwrap(), None, data).await.unwrap();
                tokio::time::advance(Duration::from_secs(5)).await;
            }
            let answer = answer.await.unwrap().unwrap();
            let waited = begin.elapsed();
            assert_eq!((answer.status(), waited), (http::StatusCode::UNAUTHORIZED, Duration::from_secs(5)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_bring_the_browsers_credentials_where_that_is_configured() {
    let origin = "https://app.example";
    let field = "access-control-allow-credentials";
    for allow_credentials in [false, true] {
        let config = GatewayConfig {
            allow_origins: vec![origin.parse().unwrap()],
            allow_credentials,
            ..GatewayConfig::default()
        };
        let served = Served::with(config, HubConfig::default(), Open).await;
        let want = allow_credentials.then_some("true");
        let own = format!("http://{}", served.address);
        for (method, target, headers) in [
            ("OPTIONS", "/v1/stream", ""),
            ("GET", "/v1/stream?topic=a", ""),
            ("GET", "/v1/stream?topic=a", SSE),
            ("GET", "/v1/stream?topic=a*", SSE),
            ("GET", "/v1/stream?topic=a", UPGRADE),
            ("POST", "/v1/ticket", ""),
        ] {
            for (origin, want) in [(origin, want), (&*own, None)] {
                let mut client = served.connect().await;
                let headers = format!("{headers}Origin: {origin}\r\n");
                client.send(&served.request(method, target, &headers, b"")).await;
                let answer = client.head().await;
                assert_eq!(answer.field(field), want, "{method} {target} {headers}");
                // Fetch, section 3.2.5: with credentials, only a named origin counts.
                assert_ne!(answer.field("access-control-allow-origin"), Some("*"));
            }
        }
        let evil = served.get("/v1/stream?topic=a", "Origin: https://evil.example\r\n").await;
        assert_eq!((evil.status, evil.field(field)), (403, None));
    }
}
