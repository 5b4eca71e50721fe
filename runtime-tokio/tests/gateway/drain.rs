//! The end of a gateway.

use crate::support::{Client, Served, assert_retry, within};
use axum::body::Body;
use longwire::websocket::{Config, Message, Role, WebSocket};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tower_service::Service;

#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_told_to_come_back() {
    let served = Served::open().await;
    let mut streams = Vec::new();
    for behind in [false, true] {
        let mut client = served.connect().await;
        if behind {
            client.send(&served.request("GET", "/healthz", "", b"")).await;
            assert_eq!(client.answer().await.status, 200);
        }
        client.send(&served.request("GET", "/v1/stream?topic=a", "Accept: text/event-stream\r\n", b"")).await;
        client.until("caught_up").await;
        streams.push(client);
    }
    let mut sockets = Vec::new();
    for behind in [false, true] {
        let mut client = served.connect().await;
        if behind {
            client.send(&served.request("GET", "/healthz", "", b"")).await;
            assert_eq!(client.answer().await.status, 200);
        }
        client.send(&served.handshake("/v1/stream?topic=a", "")).await;
        assert_eq!(client.head().await.status, 101);
        let Client { stream, unread } = client;
        let mut socket = WebSocket::from_parts(stream, Role::Client, &unread, Config::default());
        assert_eq!(next(&mut socket).await.unwrap()["type"], "hello");
        sockets.push(socket);
    }
    let mut idle = served.connect().await;
    idle.send(&served.request("GET", "/healthz", "", b"")).await;
    assert_eq!(idle.answer().await.status, 200);
    let mut poll = served.connect().await;
    poll.send(&served.request("GET", "/v1/stream?topic=a&since=now&wait=60", "", b"")).await;
    let waiting = &served.gateway.hub().counters().waiting;
    within(async {
        while waiting.load(std::sync::atomic::Ordering::Relaxed) != 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let drain = tokio::spawn({
        let gateway = served.gateway.clone();
        async move { gateway.drain().await }
    });
    for stream in &mut streams {
        let last = stream.rest().await;
        assert!(last.contains("event: bye\ndata: {\"type\":\"bye\",\"code\":\"draining\""), "{last}");
        assert!(last.contains("\"window\":5000"), "{last}");
    }
    for socket in &mut sockets {
        let mut last = json!(null);
        while let Some(message) = next(socket).await {
            last = message;
        }
        assert_eq!(
            (&last["type"], &last["code"], &last["window"]),
            (&json!("bye"), &json!("draining"), &json!(5000))
        );
        let cause = format!("{:?}", socket.close_cause());
        assert!(cause.contains("Clean"), "{cause}");
    }
    let answer = poll.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "draining"));
    let after: u64 = answer.field("retry-after").unwrap().parse().unwrap();
    assert!((5..=10).contains(&after), "{answer:?}");
    assert!(idle.rest().await.is_empty());
    within(drain).await.unwrap();
    // Nobody listens any more.
    within(async { while TcpStream::connect(served.address).await.is_ok() {} }).await;
}

async fn next(socket: &mut WebSocket<TcpStream>) -> Option<Value> {
    match within(socket.recv_message()).await?.ok()? {
        Message::Text(text) => Some(serde_json::from_str(&text).unwrap()),
        Message::Binary(_) => panic!("a binary message"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_drains_it_is_alive_but_not_ready() {
    let served = Served::open().await;
    let ask = async |path: &str, header: (&str, &str)| {
        let request = http::Request::get(path).header("host", "a").header(header.0, header.1);
        let response = served.gateway.router().call(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        (parts.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    };
    let none = ("x", "y");
    assert_eq!(ask("/readyz", none).await.0, 200);
    within(served.gateway.drain()).await;
    let (status, body) = ask("/readyz", none).await;
    assert_eq!(status, 503);
    assert!(body.starts_with("{\"code\":\"draining\""), "{body}");
    assert_eq!(ask("/healthz", none).await.0, 200);
    assert_eq!(ask("/v1/stream?topic=a", none).await.0, 503);
    let (status, body) = ask("/v1/stream?topic=a", ("accept", "text/event-stream")).await;
    assert_eq!(status, 200);
    assert_retry(&body, "\nevent: bye\n");
}
