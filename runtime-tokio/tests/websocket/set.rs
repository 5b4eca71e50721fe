//! `ServeSet`: the same in a set on a thread of its own.

use super::serve::{converse, converse_at_once, data, echo};
use super::wire::frame;
use super::{LONG, config};
use longwire::websocket::{
    CloseCode, Config, ConnectOptions, Event, Handler, Message, MessageRef, Output, ServeSet, accept, connect,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// A server whose connections are served by a set on a thread of its own, and its URL.
fn set_of<H: Handler + Send + 'static>(
    config: Config,
    handler: impl Fn() -> H + Send + 'static,
) -> (String, std::thread::JoinHandle<()>, oneshot::Sender<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            let (adopter, set) = ServeSet::new().unwrap();
            let config = Arc::new(config);
            let accepting = tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let socket = accept::<TcpStream>(stream, config.clone()).await.unwrap();
                    assert!(adopter.adopt(socket, handler()).await);
                }
            });
            tokio::spawn(async move {
                let _ = stopped.await;
                accepting.abort();
            });
            // It ends when there are neither connections nor anybody to bring others.
            set.run().await.unwrap();
        });
    });
    (url, thread, stop)
}

#[tokio::test]
async fn in_a_set() {
    let (url, thread, stop) = set_of(config(|c| c.deflate = None), || echo);
    converse_at_once(&url).await;
    stop.send(()).unwrap();
    thread.join().unwrap();
}

#[tokio::test]
async fn in_a_set_a_silent_peer_is_asked_and_given_up() {
    let limits = config(|c| {
        let heartbeat = c.protocol.heartbeat.as_mut().unwrap();
        heartbeat.interval = Duration::from_millis(20);
        heartbeat.timeout = Duration::from_millis(20);
    });
    let (url, _thread, _stop) = set_of(limits, || echo);
    let mut silent = shaken(&url).await;
    let mut bytes = Vec::new();
    timeout(LONG, silent.read_to_end(&mut bytes)).await.unwrap().unwrap();
    let frames = &bytes[bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4..];
    assert_eq!(
        (&frames[..2], &frames[6..7], &frames[8..10]),
        (&[0x89, 4][..], &[0x88][..], &[0x03, 0xe9][..])
    );
    // One that is asked and answers stays.
    let mut client = connect(&url, &ConnectOptions::default()).await.unwrap();
    for _ in 0..3 {
        assert!(matches!(timeout(LONG, client.recv()).await.unwrap(), Some(Ok(Event::Ping(_)))));
    }
}

#[tokio::test]
async fn in_a_set_a_silent_peer_is_given_up_while_another_one_never_stops() {
    let limits = config(|c| {
        // A turn takes 16 bytes, so there is always more.
        c.max_read = 1;
        let heartbeat = c.protocol.heartbeat.as_mut().unwrap();
        heartbeat.interval = Duration::from_millis(20);
        heartbeat.timeout = Duration::from_millis(20);
    });
    let (url, _thread, _stop) = set_of(limits, || |_: MessageRef<'_>, _: &mut Output<'_>| Ok(()));
    let mut flood = shaken(&url).await;
    let flooding =
        tokio::spawn(async move { while flood.write_all(&frame(0x82, &data(9999))).await.is_ok() {} });
    let mut silent = shaken(&url).await;
    timeout(LONG, silent.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    assert!(!flooding.is_finished());
    flooding.abort();
}

/// A client of which only the opening handshake is left to be done: its request is sent.
async fn shaken(url: &str) -> TcpStream {
    let mut stream = TcpStream::connect(url.trim_start_matches("ws://").trim_end_matches('/')).await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn in_a_set_a_message_that_is_more_than_the_system_takes_at_once_comes_back() {
    let large_ones = || {
        config(|c| {
            // Without a heartbeat there is a deadline only while the peer does not read.
            c.protocol.heartbeat = None;
            c.deflate = None;
            c.protocol.max_message = 16 << 20;
        })
    };
    let (url, _thread, _stop) = set_of(large_ones(), || echo);
    let options = ConnectOptions::default().config(Arc::new(large_ones()));
    let mut client = connect(&url, &options).await.unwrap();
    let large = data(12 << 20);
    for _ in 0..3 {
        client.send(large.clone()).await.unwrap();
        let answer = timeout(LONG, client.recv_message()).await.unwrap().unwrap().unwrap();
        assert!(answer.as_bytes() == large);
    }
    client.close(CloseCode::NORMAL, "").await.unwrap();
}

#[tokio::test]
async fn in_a_set_answers_that_are_put_off_and_a_handler_that_panics_are_nobody_elses_business() {
    let handler = || {
        |message: MessageRef<'_>, out: &mut Output<'_>| {
            match message.as_str() {
                Some("panic") => panic!("as it was told"),
                Some("later") => out.defer(async {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    Some(Message::text("now"))
                }),
                _ => return out.send(message),
            }
            Ok(())
        }
    };
    let (url, _thread, _stop) = set_of(Config::default(), handler);
    let mut one = connect(&url, &ConnectOptions::default()).await.unwrap();
    let mut other = connect(&url, &ConnectOptions::default()).await.unwrap();
    one.send("panic").await.unwrap();
    assert!(matches!(timeout(LONG, one.recv()).await.unwrap(), Some(Err(_))));
    for _ in 0..3 {
        other.feed("later").await.unwrap();
        other.send("then").await.unwrap();
        for expected in ["now", "then"] {
            let answer = timeout(LONG, other.recv_message()).await.unwrap().unwrap().unwrap();
            assert_eq!(answer.as_str(), Some(expected));
        }
    }
}

#[tokio::test]
async fn in_a_set_a_handler_that_panics_when_it_is_dropped_is_nobody_elses_business() {
    struct Fragile;
    impl Drop for Fragile {
        fn drop(&mut self) {
            panic!("as it was told");
        }
    }
    let fragile = std::sync::Mutex::new(Some(Fragile));
    let handler = move || {
        let fragile = fragile.lock().unwrap().take();
        move |message: MessageRef<'_>, out: &mut Output<'_>| {
            let _held = &fragile;
            out.send(message)
        }
    };
    let (url, _thread, _stop) = set_of(Config::default(), handler);
    let mut one = connect(&url, &ConnectOptions::default()).await.unwrap();
    one.send("first").await.unwrap();
    assert_eq!(one.recv_message().await.unwrap().unwrap().as_str(), Some("first"));
    let mut other = connect(&url, &ConnectOptions::default()).await.unwrap();
    one.close(CloseCode::NORMAL, "").await.unwrap();
    other.send("still there").await.unwrap();
    let answer = timeout(LONG, other.recv_message()).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.as_str(), Some("still there"));
}

#[tokio::test]
async fn in_a_set_a_connection_that_floods_leaves_the_others_their_turns() {
    let (url, _thread, _stop) = set_of(config(|c| c.deflate = None), || echo);
    let mut flood = connect(&url, &ConnectOptions::default()).await.unwrap();
    let flooding = tokio::spawn(async move {
        loop {
            for _ in 0..1000 {
                flood.feed("x").await.unwrap();
            }
            flood.flush().await.unwrap();
            for _ in 0..1000 {
                flood.recv_message().await.unwrap().unwrap();
            }
        }
    });
    for seed in 0..3 {
        converse(&url, seed).await;
    }
    assert!(!flooding.is_finished());
    flooding.abort();
}
