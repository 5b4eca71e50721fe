//! Sections 6 and 7: WebSocket and SSE, at the front door and behind other requests.

use crate::support::{Client, Served, assert_retry, within};
use crate::wire::frame;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use longwire::gateway::GatewayConfig;
use longwire::hub::{HubConfig, Open};
use longwire::websocket::{Config, ConnectOptions, Message, Role, WebSocket, connect};
use longwire_core::session::{ClientMessage, ServerMessage, cbor};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

/// The next message in JSON.
async fn next<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocket<S>) -> Value {
    match within(socket.recv_message()).await.unwrap().unwrap() {
        Message::Text(text) => serde_json::from_str(&text).unwrap(),
        Message::Binary(_) => panic!("a binary message"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_reads_and_publishes() {
    let served = Served::open().await;
    let past = served.publish("a/1", None, "1").await;
    let url = format!("{}/v1/stream?topic=a/*&since=latest", served.url().replace("http", "ws"));
    let options = ConnectOptions::default().subprotocol("chat").subprotocol("longwire.v1.json");
    let mut socket = within(connect(&url, &options)).await.unwrap();
    assert_eq!(socket.subprotocol(), Some("longwire.v1.json"));
    let hello = next(&mut socket).await;
    assert_eq!((&hello["type"], &hello["limits"]["max_topics"]), (&json!("hello"), &json!(64)));
    let state = next(&mut socket).await;
    assert_eq!((&state["topic"], &state["past"], &state["data"]), (&json!("a/1"), &json!(past), &json!(1)));
    assert_eq!(next(&mut socket).await, json!({"type": "caught_up", "at": past}));
    socket.send_text(r#"{"type":"pub","n":1,"topic":"a/2","data":{"x":2}}"#).await.unwrap();
    let (mut event, mut ack) = (next(&mut socket).await, next(&mut socket).await);
    if event["type"] == "ack" {
        std::mem::swap(&mut event, &mut ack);
    }
    assert_eq!((&event["at"], &event["data"]), (&json!(served.cursor(2)), &json!({"x": 2})));
    assert_eq!(ack, json!({"type": "ack", "n": 1, "level": "ring"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn long_events_are_compressed_once_for_all_who_agreed_on_it() {
    let with = ConnectOptions::default();
    let without = ConnectOptions::default().config({
        let mut config = Config::default();
        config.deflate = None;
        config
    });
    // A window that the events are not made for: they come as they are.
    let small = ConnectOptions::default().config({
        let mut config = Config::default();
        if let Some(deflate) = &mut config.deflate {
            deflate.windows.receive.bits = 10;
        }
        config
    });
    let value = json!("again and ".repeat(1000));
    for (options, compressed) in [(&with, true), (&without, false), (&small, false)] {
        let served = Served::open().await;
        let url = format!("{}/v1/stream?topic=a", served.url().replace("http", "ws"));
        let mut reader = within(connect(&url, options)).await.unwrap();
        assert_eq!(next(&mut reader).await["type"], "hello");
        assert_eq!(next(&mut reader).await["type"], "caught_up");
        // The publication comes compressed, too.
        let mut writer = within(connect(&url.replace("?topic=a", ""), &with)).await.unwrap();
        let received = || served.gateway.hub().counters().received_bytes.load(Ordering::Relaxed);
        let sent = || served.gateway.hub().counters().sent_bytes.load(Ordering::Relaxed);
        let before = (received(), sent());
        writer.send(format!(r#"{{"type":"pub","n":1,"topic":"a","data":{value}}}"#)).await.unwrap();
        let event = next(&mut reader).await;
        assert_eq!(event["data"], value, "{event}");
        // Bytes are counted once they are written: what is read after another event was counted for sure.
        writer.send(r#"{"type":"pub","n":2,"topic":"a","data":2}"#).await.unwrap();
        assert_eq!(next(&mut reader).await["data"], 2);
        assert!(received() - before.0 < 500, "{}", received() - before.0);
        assert_eq!(sent() - before.1 < 1000, compressed, "{}", sent() - before.1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_is_agreed_on_only_if_it_is_wanted() {
    const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    for (deflate, offer, answer) in [
        (true, OFFER, Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover")),
        (true, "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=16\r\n", None),
        (true, "", None),
        (false, OFFER, None),
    ] {
        let hub = HubConfig { deflate, ..HubConfig::default() };
        let served = Served::with(GatewayConfig::default(), hub, Open).await;
        for behind in [false, true] {
            let mut client = served.connect().await;
            if behind {
                client.send(&served.request("GET", "/healthz", "", b"")).await;
                assert_eq!(client.answer().await.status, 200);
            }
            client.send(&served.handshake("/v1/stream", offer)).await;
            let head = client.head().await;
            assert_eq!((head.status, head.field("sec-websocket-extensions")), (101, answer), "{offer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_known_subprotocol_is_chosen() {
    let served = Served::open().await;
    for (offers, chosen) in [
        ("", None),
        ("Sec-WebSocket-Protocol: longwire.v1.cbor, longwire.v1.json\r\n", Some("longwire.v1.cbor")),
        ("Sec-WebSocket-Protocol: x, longwire.v1.json, longwire.v1.cbor\r\n", Some("longwire.v1.json")),
        (
            "Sec-WebSocket-Protocol: longwire.v1.json\r\nSec-WebSocket-Protocol: longwire.token.YQ\r\n",
            Some("longwire.v1.json"),
        ),
        // A credential is no offer, and is not echoed.
        ("Sec-WebSocket-Protocol: longwire.token.YQ\r\n", None),
    ] {
        for behind in [false, true] {
            let mut client = served.connect().await;
            if behind {
                client.send(&served.request("GET", "/healthz", "", b"")).await;
                assert_eq!(client.answer().await.status, 200);
            }
            client.send(&served.handshake("/v1/stream", offers)).await;
            let answer = client.head().await;
            assert_eq!((answer.status, answer.field("sec-websocket-protocol")), (101, chosen), "{offers}");
            assert_eq!(answer.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
            assert_eq!(answer.field("upgrade"), Some("websocket"));
            assert!(answer.field("connection").unwrap().eq_ignore_ascii_case("upgrade"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_come_with_the_handshake_are_not_lost() {
    let served = Served::open().await;
    let publication = frame(0x81, br#"{"type":"pub","n":7,"topic":"a","data":1}"#);
    for behind in [false, true] {
        let mut client = served.connect().await;
        let mut request = served.handshake("/v1/stream", "");
        if behind {
            // All in one piece: three requests, of which the last takes the connection over, and a frame.
            let first = served.request("GET", "/healthz", "", b"");
            request = [first.clone(), first, request].concat();
        }
        client.send(&[request, publication.clone()].concat()).await;
        if behind {
            assert_eq!((client.answer().await.status, client.answer().await.status), (200, 200));
        }
        assert_eq!(client.head().await.status, 101);
        let Client { stream, unread } = client;
        let mut socket = WebSocket::from_parts(stream, Role::Client, &unread, Config::default());
        assert_eq!(next(&mut socket).await["type"], "hello");
        assert_eq!(next(&mut socket).await, json!({"type": "ack", "n": 7, "level": "ring"}));
    }
    assert_eq!(served.gateway.hub().log().head(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn cbor_is_spoken_to_who_asks_for_it() {
    let served = Served::open().await;
    let url = format!("ws://{}/v1/stream?topic=a", served.address);
    let options = ConnectOptions::default().subprotocol("longwire.v1.cbor");
    let mut socket = within(connect(&url, &options)).await.unwrap();
    let mut sub = Vec::new();
    let message = ClientMessage::Pub {
        n: Some(1),
        topic: "b".into(),
        key: None,
        data: longwire_core::session::Data::Cbor(&[0x18, 0x2a]),
    };
    cbor::encode_client(&message, &mut |piece: &[u8]| {
        sub.extend_from_slice(piece);
        Ok(())
    })
    .unwrap();
    socket.send_binary(&sub).await.unwrap();
    loop {
        let Message::Binary(message) = within(socket.recv_message()).await.unwrap().unwrap() else {
            panic!("a text")
        };
        if let ServerMessage::Ack { n: 1, .. } = cbor::decode_server(&message).unwrap() {
            break;
        }
    }
    assert_eq!(
        served.get("/v1/stream?topic=b", "").await.events(),
        [("b".into(), served.cursor(1), json!(42))]
    );
}

/// Starts an event stream; behind another request it is chunked.
async fn events(served: &Served, target: &str, headers: &str, behind: bool) -> Client {
    let mut client = served.connect().await;
    if behind {
        client.send(&served.request("GET", "/healthz", "", b"")).await;
        assert_eq!(client.answer().await.status, 200);
    }
    let headers = format!("Accept: text/html, Text/Event-Stream;q=0.9\r\n{headers}");
    client.send(&served.request("GET", target, &headers, b"")).await;
    let answer = client.head().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("content-type"), Some("text/event-stream"));
    assert_eq!(answer.field("cache-control"), Some("no-store, no-transform"));
    assert_eq!(answer.field("x-accel-buffering"), Some("no"));
    assert_eq!(answer.field("vary"), Some("Accept, Origin"));
    assert_eq!(answer.field("transfer-encoding"), behind.then_some("chunked"));
    assert_eq!(answer.field("connection"), (!behind).then_some("close"));
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_has_the_form_of_section_7() {
    let served = Served::open().await;
    let past = served.publish("a", None, "0").await;
    for behind in [false, true] {
        let head = served.gateway.hub().log().head();
        let mut client = events(&served, "/v1/stream?topic=a&since=latest", "", behind).await;
        let first = client.until("event: hello\ndata: ").await;
        assert_retry(&first[first.find("retry: ").unwrap()..], "\n\nevent: hello\ndata: ");
        let hello: Value = serde_json::from_str(&client.until("\n").await).unwrap();
        assert_eq!((&hello["heartbeat"], &hello["window"]), (&json!(15000), &json!(5000)));
        let state = client.until("event: caught_up\n").await;
        assert!(!state.contains(&format!("id: {past}\ndata: {{\"type\":\"event\"")), "{state}");
        assert!(state.contains("\"past\":"), "{state}");
        let at = served.publish("a", None, "{\"x\":1}").await;
        assert_eq!(at, served.cursor(head + 1));
        let live = format!(
            "id: {at}\ndata: {{\"type\":\"event\",\"topic\":\"a\",\"at\":\"{at}\",\"data\":{{\"x\":1}}}}\n\n"
        );
        client.until(&live).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn last_event_id_overrides_since() {
    let served = Served::open().await;
    for n in 1..=3 {
        served.publish("a", None, &n.to_string()).await;
    }
    let id = format!("Last-Event-ID: {}\r\n", served.cursor(2));
    for behind in [false, true] {
        for since in ["", "&since=now", "&since=latest", &format!("&since={}", served.cursor(0))] {
            let mut client = events(&served, &format!("/v1/stream?topic=a{since}"), &id, behind).await;
            let stream = client.until("caught_up").await;
            assert_eq!(stream.matches("\"type\":\"event\"").count(), 1, "{stream}");
            assert!(stream.contains(&format!("id: {}\ndata:", served.cursor(3))), "{stream}");
        }
    }
    // Empty it counts as absent; and in a poll it counts for nothing.
    let mut client = events(&served, "/v1/stream?topic=a&since=latest", "Last-Event-ID: \r\n", false).await;
    assert!(client.until("caught_up").await.contains("\"past\""));
    assert_eq!(served.get("/v1/stream?topic=a&since=now", &id).await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_sse_that_goes_away_is_gone() {
    let served = Served::open().await;
    for behind in [false, true] {
        let client = events(&served, "/v1/stream?topic=a", "", behind).await;
        let sse = &served.gateway.hub().counters().sse;
        let count = || sse.load(Ordering::Relaxed);
        within(async {
            while count() != 1 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        drop(client);
        within(async {
            while count() != 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// The routes in a service of somebody else's: a server of its own, with sockets that the gateway does not know.
pub(crate) async fn mounted(served: &Served) -> Served {
    let routes = axum::Router::new().route("/own", axum::routing::get(|| async { "own" }));
    let routes = routes.merge(served.gateway.api());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(routes.clone());
            let io = TokioIo::new(tokio::io::BufStream::new(stream));
            tokio::spawn(http1::Builder::new().serve_connection(io, service).with_upgrades());
        }
    });
    Served { gateway: served.gateway.clone(), address }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routes_work_in_the_service_of_somebody_else() {
    let served = Served::open().await;
    let mounted = mounted(&served).await;
    assert_eq!(mounted.get("/own", "").await.body, "own");
    assert_eq!(mounted.get("/healthz", "").await.status, 404);
    assert_eq!(mounted.post("/v1/topics/a", "application/json", b"1").await.status, 200);
    assert_eq!(mounted.get("/v1/stream?topic=a", "").await.events().len(), 1);
    let mut client = mounted.connect().await;
    client.send(&mounted.request("GET", "/v1/stream?topic=a", "Accept: text/event-stream\r\n", b"")).await;
    client.until("caught_up").await;
    let url = format!("ws://{}/v1/stream?topic=a", mounted.address);
    let mut socket = within(connect(&url, &ConnectOptions::default())).await.unwrap();
    assert_eq!(next(&mut socket).await["type"], "hello");
    assert_eq!(next(&mut socket).await["type"], "caught_up");
    let at = served.publish("a", None, "2").await;
    client.until(&format!("id: {at}\ndata: ")).await;
    assert_eq!(next(&mut socket).await["at"], at);
    within(served.gateway.drain()).await;
    assert_eq!(next(&mut socket).await["code"], "draining");
    client.until("event: bye").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_transport_is_chosen_by_the_request() {
    let served = Served::open().await;
    served.publish("a", None, "1").await;
    // `Upgrade` goes before `Accept`.
    let mut client = served.connect().await;
    client.send(&served.handshake("/v1/stream?topic=a", "Accept: text/event-stream\r\n")).await;
    assert_eq!(client.head().await.status, 101);
    // Another upgrade is none for here, and a type that only looks like it is another type.
    for headers in
        ["Connection: Upgrade\r\nUpgrade: h2c\r\n", "Accept: text/event-streams\r\n", "Accept: */*\r\n"]
    {
        assert_eq!(served.get("/v1/stream?topic=a", headers).await.events().len(), 1);
    }
}
