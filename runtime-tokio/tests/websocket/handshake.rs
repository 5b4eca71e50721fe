//! The opening handshake, plain and over TLS.

use super::{read_to_end, tls};
use longwire::websocket::{
    Acceptance, CloseCause, CloseCode, Config, ConnectOptions, Error, HandshakeError, Message, Rejection,
    Timeout, accept, accept_with, connect, connect_over,
};
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, duplex};

#[tokio::test]
async fn the_opening_handshake_of_both_roles() {
    let (a, b) = duplex(1 << 16);
    let accepting = tokio::spawn(accept_with(b, Config::default(), |upgrade| {
        let request = upgrade.request();
        assert_eq!((request.path(), request.query()), ("/v1/stream", Some("topic=a")));
        assert_eq!(request.header("x-one"), Some(&b"1"[..]));
        assert_eq!(request.header("origin"), Some(&b"https://example.org"[..]));
        assert_eq!(request.header("host"), Some(&b"example.org:81"[..]));
        let subprotocol = upgrade.subprotocols().find(|name| *name == "b").map(str::to_owned);
        Ok(Acceptance { subprotocol, headers: vec![("X-Two".to_owned(), "2".to_owned())] })
    }));
    let mut options = ConnectOptions::default().header("X-One", "1").subprotocol("a").subprotocol("b");
    options.origin = Some("https://example.org".to_owned());
    let mut client = connect_over(a, "ws://example.org:81/v1/stream?topic=a", &options).await.unwrap();
    let mut server = accepting.await.unwrap().unwrap();
    assert_eq!((client.subprotocol(), server.subprotocol()), (Some("b"), Some("b")));
    server.send("first").await.unwrap();
    assert_eq!(client.recv_message().await.unwrap().unwrap(), Message::text("first"));
}

/// What a client that sends these bytes gets, and what the server says.
async fn refused(request: &str) -> (String, Error) {
    let (a, mut b) = duplex(1 << 16);
    b.write_all(request.as_bytes()).await.unwrap();
    let error = accept(a, Config::default()).await.unwrap_err();
    (String::from_utf8(read_to_end(&mut b).await).unwrap(), error)
}

#[tokio::test]
async fn a_request_that_is_no_handshake_is_refused_with_the_status_that_says_so() {
    const GOOD: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    for (from, to, status) in [
        ("Version: 13", "Version: 8", 426),
        ("GET", "POST", 405),
        ("Upgrade: websocket", "Upgrade: h2c", 400),
        ("Host: a", "Host : a", 400),
        ("Host: a", &format!("Host: a{}", "\r\nx: y".repeat(100)), 431),
    ] {
        let (answer, error) = refused(&GOOD.replacen(from, to, 1)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(matches!(error, Error::Handshake(_)), "{error}");
    }
    let (_, error) = {
        let (a, mut b) = duplex(1 << 16);
        b.write_all(&GOOD.as_bytes()[..30]).await.unwrap();
        b.shutdown().await.unwrap();
        ((), accept(a, Config::default()).await.unwrap_err())
    };
    assert!(matches!(error, Error::Handshake(HandshakeError::EndOfStream)));
}

#[tokio::test]
async fn a_refusal_tells_the_client_status_wait_and_words() {
    let (a, b) = duplex(1 << 16);
    let accepting = tokio::spawn(accept_with(b, Config::default(), |_| {
        let mut rejection = Rejection::new(503, "full\u{1b}[2J");
        rejection.headers.push(("Retry-After".to_owned(), "7".to_owned()));
        Err(rejection)
    }));
    let error = connect_over(a, "ws://a/", &ConnectOptions::default()).await.unwrap_err();
    let Error::Handshake(HandshakeError::Refused(refused)) = &error else { panic!("{error}") };
    assert_eq!((refused.status, refused.retry_after), (503, Some(Duration::from_secs(7))));
    assert_eq!(refused.body, "full\u{fffd}[2J");
    assert_eq!(error.to_string(), "the server refused the WebSocket with status 503: full\u{fffd}[2J");
    assert!(matches!(accepting.await.unwrap(), Err(Error::Handshake(HandshakeError::Rejected(503)))));
}

#[tokio::test(start_paused = true)]
async fn cve_2022_1650_eventsource_redirects_are_not_followed_and_an_endless_refusal_is_cut() {
    let (a, mut b) = duplex(1 << 16);
    let serving = tokio::spawn(async move {
        b.write_all(b"HTTP/1.1 302 Found\r\nLocation: ws://evil/\r\n\r\nmoved").await.unwrap();
        std::future::pending::<()>().await;
        drop(b);
    });
    let error = connect_over(a, "ws://a/", &ConnectOptions::default()).await.unwrap_err();
    let Error::Handshake(HandshakeError::Refused(refused)) = error else { panic!("{error}") };
    assert_eq!(
        (refused.status, refused.location.as_deref(), &*refused.body),
        (302, Some("ws://evil/"), "moved")
    );
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn handshakes_have_a_deadline_on_both_sides() {
    let (a, b) = duplex(1 << 16);
    let started = tokio::time::Instant::now();
    assert!(matches!(accept(a, Config::default()).await, Err(Error::Timeout(Timeout::Handshake))));
    assert_eq!(started.elapsed(), Duration::from_secs(10));
    drop(b);
    let (a, _b) = duplex(1 << 16);
    let result = connect_over(a, "ws://a/", &ConnectOptions::default()).await;
    assert!(matches!(result, Err(Error::Timeout(Timeout::Handshake))));
}

#[tokio::test]
async fn urls_and_headers_that_cannot_be_sent_are_refused_before_anything_is() {
    let options = ConnectOptions::default();
    let error = connect("http://127.0.0.1:9/", &options).await.unwrap_err();
    assert_eq!(error.to_string(), "the scheme `http` cannot be connected to, only ws:// and wss://");
    let (a, mut b) = duplex(1 << 16);
    let error = connect_over(a, "ws://a/", &options.header("X", "a\r\nY: b")).await.unwrap_err();
    assert!(matches!(error, Error::Handshake(HandshakeError::Write(_))));
    assert_eq!(read_to_end(&mut b).await, b"");
}

#[tokio::test]
async fn wss_by_rustls_with_a_certificate_of_ones_own() {
    let (acceptor, options) = tls();
    let listener = tokio::net::TcpListener::bind(("localhost", 0)).await.unwrap();
    let url = format!("wss://localhost:{}/", listener.local_addr().unwrap().port());
    let serving = tokio::spawn(async move {
        // The first client does not trust the certificate.
        let (stream, _) = listener.accept().await.unwrap();
        assert!(acceptor.accept(stream).await.is_err());
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = accept(acceptor.accept(stream).await.unwrap(), Config::default()).await.unwrap();
        while let Some(message) = socket.recv_message().await {
            socket.send(message.unwrap()).await.unwrap();
        }
        socket.close_cause()
    });
    let error = connect(&url, &ConnectOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("TLS with localhost"), "{error}");
    let mut socket = connect(&url, &options).await.unwrap();
    let big = "x".repeat(300_000);
    socket.send_text(&big).await.unwrap();
    assert_eq!(socket.recv_message().await.unwrap().unwrap().as_str(), Some(&*big));
    socket.close(CloseCode::NORMAL, "").await.unwrap();
    assert_eq!(serving.await.unwrap(), Some(CloseCause::Clean));
}
