//! `serve`: a handler in synchronous turns, in a task.

use super::wire::{frame, header};
use super::{LONG, config, read, read_to_end, tls};
use futures_util::FutureExt as _;
use longwire::websocket::{
    CloseCause, CloseCode, Config, ConnectOptions, Delivery, Error, Event, Handler, Message, MessageRef,
    Output, PushError, Role, Timeout, WebSocket, accept, connect, connect_over, serve, serve_with,
};
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

type Served = JoinHandle<Result<CloseCause, Error>>;

pub(crate) fn echo(message: MessageRef<'_>, out: &mut Output<'_>) -> Result<(), Error> {
    out.send(message)
}

/// A server, and the bytes of its client, over a pipe that holds `room` bytes.
fn served<H: Handler + Send + 'static>(room: usize, config: Config, handler: H) -> (Served, DuplexStream) {
    let (a, b) = duplex(room);
    let socket = WebSocket::from_parts(a, Role::Server, &[], config);
    (tokio::spawn(serve_with(socket, handler)), b)
}

/// A server's frame.
fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&header(first, payload.len()), payload].concat()
}

pub(crate) fn data(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 / 3) as u8).collect()
}

#[tokio::test]
async fn whatever_the_split_the_answers_are_the_same() {
    let kib = data(1024);
    let mut wire = [
        frame(0x81, "héllo".as_bytes()),
        frame(0x82, b""),
        frame(0x01, b"fr"),
        frame(0x89, b"ping"),
        frame(0x00, b"ag"),
        frame(0x80, b"ment"),
        frame(0x82, &kib),
    ]
    .concat();
    wire.extend(frame(0x88, &[0x03, 0xe8]));
    let whole = [
        unmasked(0x81, "héllo".as_bytes()),
        unmasked(0x82, b""),
        unmasked(0x8a, b"ping"),
        unmasked(0x81, b"fragment"),
        unmasked(0x82, &kib),
        unmasked(0x88, &[0x03, 0xe8]),
    ]
    .concat();
    for at in 0..wire.len() {
        let (serving, mut peer) = served(1 << 16, Config::default(), echo);
        let (one, two) = wire.split_at(at);
        for part in [one, two] {
            peer.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(read_to_end(&mut peer).await, whole, "cut at {at}");
        assert!(matches!(serving.await.unwrap(), Ok(CloseCause::Clean)));
    }
    for piece in [1, 2, 7, 500] {
        let (_serving, mut peer) = served(1 << 16, config(|c| c.max_read = 13), echo);
        for part in wire.chunks(piece) {
            peer.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(read_to_end(&mut peer).await, whole, "in pieces of {piece}");
    }
}

#[tokio::test]
async fn a_message_of_any_size_comes_back_through_a_pipe_of_any_size() {
    for room in [100, 5000, 1 << 20, 8 << 20] {
        let (_serving, mut peer) = served(room, Config::default(), echo);
        for len in [16_383, 16_384, 65_535, 65_536, 300_000, 1 << 20] {
            let data = data(len);
            // Twice: the second time it is the process's memory that it lies in.
            for _ in 0..2 {
                let (mut from, mut to) = tokio::io::split(&mut peer);
                let wire = [frame(0x82, &data), frame(0x81, b"behind it")].concat();
                let mut answer = vec![0; data.len() + 14 + 11];
                let expected = [unmasked(0x82, &data), unmasked(0x81, b"behind it")].concat();
                answer.truncate(expected.len());
                let both = async { tokio::join!(to.write_all(&wire), from.read_exact(&mut answer)) };
                let (written, read) = timeout(LONG, both).await.unwrap();
                assert!(written.is_ok() && read.is_ok());
                assert!(answer == expected, "{len} bytes through {room}");
            }
        }
    }
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_not_read_and_gets_everything_in_the_end() {
    const COUNT: usize = 20_000;
    let handed_out = Arc::new(AtomicUsize::new(0));
    let count = handed_out.clone();
    let handler = move |message: MessageRef<'_>, out: &mut Output<'_>| {
        count.fetch_add(1, Ordering::Relaxed);
        out.send(message)
    };
    let (_serving, peer) = served(4096, config(|c| c.max_send_buffer = 10_000), handler);
    let (mut from, mut to) = tokio::io::split(peer);
    let sending = tokio::spawn(async move {
        for n in 0..COUNT {
            to.write_all(&frame(0x81, format!("{n:06}").as_bytes())).await.unwrap();
        }
        to
    });
    // Until both pipes are full, and what is held: nothing moves any more.
    let mut before = usize::MAX;
    while before != handed_out.load(Ordering::Relaxed) || before == 0 {
        before = handed_out.load(Ordering::Relaxed);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
    assert!(before < COUNT / 2, "{before} were handed out");
    for n in 0..COUNT {
        let mut answer = [0; 8];
        timeout(LONG, from.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer, *unmasked(0x81, format!("{n:06}").as_bytes()));
    }
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn who_sends_more_than_waits_may_is_told() {
    let (told, tells) = oneshot::channel();
    let mut told = Some(told);
    let handler = move |_: MessageRef<'_>, out: &mut Output<'_>| {
        for n in 0.. {
            match out.send(&*data(1000)) {
                Ok(()) => assert!(n < 300),
                Err(error) => {
                    told.take().unwrap().send((n, error)).unwrap();
                    break;
                }
            }
        }
        Ok(())
    };
    let (_serving, mut peer) = served(4096, config(|c| c.max_send_buffer = 10_000), handler);
    peer.write_all(&frame(0x81, b"go")).await.unwrap();
    let (taken, error) = tells.await.unwrap();
    assert!(matches!(error, Error::Full), "{error}");
    // What was taken arrives, and the connection goes on.
    for _ in 0..taken {
        assert_eq!(read(&mut peer, 1004).await, unmasked(0x82, &data(1000)));
    }
}

#[tokio::test]
async fn answers_that_are_put_off_keep_the_order() {
    let (go, gone) = oneshot::channel::<()>();
    let mut gone = Some(gone);
    let handler = move |message: MessageRef<'_>, out: &mut Output<'_>| {
        let text = message.as_str().unwrap().to_owned();
        match text.as_str() {
            "later" => {
                let gone = gone.take().unwrap();
                out.defer(async move {
                    gone.await.unwrap();
                    Some(Message::text(text))
                });
                Ok(())
            }
            "nothing" => {
                out.defer(async { None });
                Ok(())
            }
            _ => out.send(message),
        }
    };
    let (_serving, mut peer) = served(1 << 16, Config::default(), handler);
    let wire: Vec<u8> =
        ["a", "later", "nothing", "b"].iter().flat_map(|text| frame(0x81, text.as_bytes())).collect();
    peer.write_all(&wire).await.unwrap();
    assert_eq!(read(&mut peer, 3).await, unmasked(0x81, b"a"));
    go.send(()).unwrap();
    assert_eq!(read(&mut peer, 10).await, [unmasked(0x81, b"later"), unmasked(0x81, b"b")].concat());
}

/// Says when it is dropped.
struct Dropped(Option<oneshot::Sender<()>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.take().unwrap().send(()).unwrap();
    }
}

/// A handler that answers nothing, at once or by an answer that never comes; and what says that it was dropped.
fn never_answers(
    defers: bool,
) -> (impl FnMut(MessageRef<'_>, &mut Output<'_>) -> Result<(), Error> + Send + 'static, oneshot::Receiver<()>)
{
    let (dropped, drops) = oneshot::channel();
    let mut dropped = Some(Dropped(Some(dropped)));
    let handler = move |_: MessageRef<'_>, out: &mut Output<'_>| {
        let dropped = dropped.take();
        if defers {
            out.defer(async {
                let _dropped = dropped;
                pending().await
            });
        }
        Ok(())
    };
    (handler, drops)
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_asked_and_given_up_also_while_it_waits_for_an_answer() {
    for defers in [false, true] {
        let (handler, drops) = never_answers(defers);
        let started = Instant::now();
        let (serving, mut peer) = served(1 << 16, Config::default(), handler);
        peer.write_all(&frame(0x81, b"?")).await.unwrap();
        let ping = read(&mut peer, 6).await;
        assert_eq!((&ping[..2], started.elapsed()), (&b"\x89\x04"[..], Duration::from_secs(30)));
        // One that answers is left alone.
        peer.write_all(&frame(0x8a, &ping[2..])).await.unwrap();
        if defers {
            // It has said something that is not worked off yet: it lives.
            peer.write_all(&frame(0x81, b"still there")).await.unwrap();
            assert!(timeout(Duration::from_secs(20), read(&mut peer, 1)).await.is_err());
            drop(peer);
            serving.abort();
            drops.await.unwrap();
            continue;
        }
        assert_eq!(read(&mut peer, 6).await[..2], *b"\x89\x04");
        assert_eq!(started.elapsed(), Duration::from_secs(60));
        assert!(matches!(serving.await.unwrap(), Err(Error::Closed(CloseCause::Timeout))));
        assert_eq!(started.elapsed(), Duration::from_secs(70));
        assert_eq!(read_to_end(&mut peer).await[2..4], [0x03, 0xe9]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_vanishes_while_it_waits_for_an_answer_is_given_up_and_the_answer_dropped() {
    let (handler, drops) = never_answers(true);
    let started = Instant::now();
    let (serving, mut peer) = served(1 << 16, Config::default(), handler);
    peer.write_all(&frame(0x81, b"?")).await.unwrap();
    assert!(matches!(serving.await.unwrap(), Err(Error::Closed(CloseCause::Timeout))));
    assert_eq!(started.elapsed(), Duration::from_secs(40));
    drops.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_answer_takes_long_may_go_on_talking_meanwhile() {
    for (room, size) in [(1 << 20, 1000), (1 << 20, 20_000), (1 << 20, 10), (4096, 1000)] {
        let mut first = true;
        let handler = move |message: MessageRef<'_>, out: &mut Output<'_>| {
            if std::mem::take(&mut first) {
                out.defer(async {
                    tokio::time::sleep(Duration::from_secs(300)).await;
                    Some(Message::text("at last"))
                });
                return Ok(());
            }
            out.send(message)
        };
        let (_serving, peer) = served(room, Config::default(), handler);
        let (mut from, mut to) = tokio::io::split(peer);
        let messages = 200_000 / size;
        let sending = tokio::spawn(async move {
            for _ in 0..=messages {
                to.write_all(&frame(0x82, &data(size))).await.unwrap();
            }
            to
        });
        // Whatever it is asked meanwhile.
        let mut bytes = Vec::new();
        let expected = [unmasked(0x81, b"at last"), unmasked(0x82, &data(size)).repeat(messages)].concat();
        while bytes.len() < expected.len() || bytes.starts_with(b"\x89") {
            let mut piece = [0; 4096];
            let n = from.read(&mut piece).await.unwrap();
            assert_ne!(n, 0, "it was given up");
            bytes.extend_from_slice(&piece[..n]);
            while bytes.starts_with(b"\x89\x04") && bytes.len() >= 6 {
                bytes.drain(..6);
            }
        }
        assert!(bytes == expected, "{size} through {room}");
        drop(sending.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_is_given_up() {
    let (serving, mut peer) = served(1000, Config::default(), echo);
    let started = Instant::now();
    // Small ones, which are gathered, and one that goes out by itself.
    peer.write_all(&frame(0x82, &data(500))).await.unwrap();
    tokio::spawn(async move { while peer.write_all(&frame(0x82, &data(20_000))).await.is_ok() {} });
    assert!(matches!(serving.await.unwrap(), Err(Error::Timeout(Timeout::Write))));
    assert_eq!(started.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn after_a_protocol_error_the_close_is_the_last_thing_written() {
    let (serving, mut peer) = served(1 << 16, Config::default(), echo);
    peer.write_all(&frame(0x81, b"good")).await.unwrap();
    peer.write_all(b"\x81\x01x").await.unwrap(); // not masked
    peer.write_all(&frame(0x81, b"never seen")).await.unwrap();
    let bytes = read_to_end(&mut peer).await;
    let (answer, close) = bytes.split_at(6);
    assert_eq!((answer, &close[2..4]), (&*unmasked(0x81, b"good"), &[0x03, 0xea][..]));
    assert_eq!(close.len(), 2 + usize::from(close[1]));
    assert!(matches!(serving.await.unwrap(), Err(Error::Protocol(_))));
}

/// Notes what it is told.
#[derive(Default)]
struct Diary(Vec<String>, Option<oneshot::Sender<Vec<String>>>);

impl Handler for Diary {
    fn opened(&mut self, out: &mut Output<'_>) -> Result<(), Error> {
        self.0.push("opened".into());
        out.send("welcome")
    }

    fn message(&mut self, message: MessageRef<'_>, out: &mut Output<'_>) -> Result<(), Error> {
        self.0.push(format!("{message:?}"));
        match message.as_str() {
            Some("close") => out.close(CloseCode::NORMAL, "as you like"),
            Some("fail") => return Err(Error::Chunks),
            Some("ping") => out.ping(b"!")?,
            _ => {}
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, _: &mut Output<'_>) -> Result<(), Error> {
        self.0.push(format!("{event:?}"));
        Ok(())
    }

    fn closed(&mut self, result: &Result<CloseCause, Error>) {
        self.0.push(format!("{result:?}"));
        self.1.take().unwrap().send(std::mem::take(&mut self.0)).unwrap();
    }
}

async fn diary(wire: &[Vec<u8>], config: Config) -> (Vec<String>, Vec<u8>) {
    let (told, tells) = oneshot::channel();
    let (_serving, mut peer) = served(1 << 16, config, Diary(Vec::new(), Some(told)));
    peer.write_all(&wire.concat()).await.unwrap();
    peer.shutdown().await.unwrap();
    let written = read_to_end(&mut peer).await;
    (tells.await.unwrap(), written)
}

#[tokio::test]
async fn a_handler_is_told_everything_in_order() {
    let wire = [
        frame(0x81, b"ping"),
        frame(0x89, b"p"),
        frame(0x8a, b"!"),
        frame(0x82, b"\0"),
        frame(0x81, b"close"),
        frame(0x81, b"more"),
        frame(0x88, &[0x03, 0xe8]),
    ];
    let (told, written) = diary(&wire, Config::default()).await;
    let expected = [
        "opened",
        "Text(\"ping\")",
        "Ping([112])",
        "Pong([33])",
        "Binary([0])",
        "Text(\"close\")",
        "Text(\"more\")",
        "Close(CloseReason { code: Some(CloseCode(1000)), reason: \"\" })",
        "Ok(Clean)",
    ];
    assert_eq!(told, expected);
    let answers = [
        unmasked(0x81, b"welcome"),
        unmasked(0x89, b"!"),
        unmasked(0x8a, b"p"),
        unmasked(0x88, b"\x03\xe8as you like"),
    ];
    assert_eq!(written, answers.concat());
}

#[tokio::test]
async fn a_handler_that_fails_closes_with_1011_and_its_error_is_the_result() {
    let (told, written) = diary(&[frame(0x81, b"fail"), frame(0x81, b"never seen")], Config::default()).await;
    assert_eq!(told, ["opened", "Text(\"fail\")", "Err(Chunks)"]);
    assert_eq!(written, [unmasked(0x81, b"welcome"), unmasked(0x88, &[0x03, 0xf3])].concat());
}

#[tokio::test]
async fn a_closure_that_gets_pieces_says_so_and_a_handler_gets_them() {
    let chunks = || config(|c| c.protocol.delivery = Delivery::Chunks);
    let (serving, mut peer) = served(1 << 16, chunks(), echo);
    peer.write_all(&frame(0x81, b"whole")).await.unwrap();
    drop(peer);
    assert!(matches!(serving.await.unwrap(), Err(Error::Chunks)));
    let (told, _) = diary(&[frame(0x82, b"x"), frame(0x88, &[])], chunks()).await;
    assert!(told[1].starts_with("Chunk("), "{told:?}");
}

#[tokio::test]
async fn what_is_pushed_from_elsewhere_goes_out_and_the_queue_is_bounded() {
    let (a, mut peer) = duplex(100);
    let mut serving = serve(WebSocket::from_parts(a, Role::Server, &[], Config::default()), echo);
    let pusher = serving.pusher(2);
    let early = pusher.clone();
    early.try_push("1").unwrap();
    early.try_push("2").unwrap();
    assert_eq!(early.try_push("3"), Err(PushError::Full(Message::text("3"))));
    let serving = tokio::spawn(serving);
    assert_eq!(read(&mut peer, 6).await, [unmasked(0x81, b"1"), unmasked(0x81, b"2")].concat());
    pusher.push("x".repeat(90)).await.unwrap();
    assert_eq!(read(&mut peer, 92).await.len(), 92);
    // A peer that does not read: the queue fills up, and whoever pushes waits.
    let pushing = tokio::spawn(async move {
        for n in 0..5000 {
            pusher.push(format!("{n:08}")).await.unwrap();
        }
        pusher
    });
    while early.try_push("y") != Err(PushError::Full(Message::text("y"))) {
        tokio::task::yield_now().await;
    }
    assert!(!pushing.is_finished());
    let mut seen = 0;
    while seen < 5000 {
        let head = read(&mut peer, 2).await;
        let payload = read(&mut peer, usize::from(head[1])).await;
        if payload != b"y" {
            assert_eq!(payload, format!("{seen:08}").as_bytes());
            seen += 1;
        }
    }
    let pusher = pushing.await.unwrap();
    drop(peer);
    assert!(serving.await.unwrap().is_err());
    assert!(pusher.is_closed());
    assert_eq!(pusher.push("z").await, Err(PushError::Closed(Message::text("z"))));
}

#[tokio::test]
async fn what_was_pushed_reaches_a_peer_that_is_slow() {
    for (room, size) in [(1000, 1000), (10_000, 1500), (1000, 20_000)] {
        let (a, mut peer) = duplex(room);
        let few = config(|c| (c.max_send_buffer, c.deflate) = (3000, None));
        let mut serving = serve(WebSocket::from_parts(a, Role::Server, &[], few), echo);
        let pusher = serving.pusher(200);
        for _ in 0..200 {
            pusher.try_push(data(size)).unwrap();
        }
        let _serving = tokio::spawn(serving);
        let one = unmasked(0x82, &data(size));
        for n in 0..200 {
            assert!(read(&mut peer, one.len()).await == one, "message {n} of {size} bytes through {room}");
            // It is not there for a while.
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
        }
    }
}

#[tokio::test]
async fn who_pushes_without_end_leaves_the_connection_its_turns() {
    let (a, mut peer) = duplex(1 << 20);
    let mut serving = serve(WebSocket::from_parts(a, Role::Server, &[], Config::default()), echo);
    let pusher = serving.pusher(5000);
    for _ in 0..5000 {
        pusher.try_push("-").unwrap();
    }
    let mut serving = std::pin::pin!(serving);
    peer.write_all(&frame(0x81, b"?")).await.unwrap();
    // In one turn only a part of it.
    assert!(tokio::task::unconstrained(&mut serving).now_or_never().is_none());
    let waiting = 5000 - pusher_room(&pusher);
    assert!(waiting > 1000, "{waiting} wait");
}

/// How many messages the queue takes.
fn pusher_room(pusher: &longwire::websocket::Pusher) -> usize {
    (0..).take_while(|_| pusher.try_push("-").is_ok()).count()
}

#[tokio::test]
async fn an_answer_that_was_put_off_is_behind_what_was_pushed_however_much_that_is() {
    for (room, pushed) in [(1 << 20, 5000), (1000, 500)] {
        let (a, mut peer) = duplex(room);
        let (send, sent) = oneshot::channel::<longwire::websocket::Pusher>();
        let mut sent = Some(sent);
        let handler = move |_: MessageRef<'_>, out: &mut Output<'_>| {
            let sent = sent.take().unwrap();
            out.defer(async move {
                let pusher = sent.await.unwrap();
                for _ in 0..pushed {
                    pusher.try_push("-").unwrap();
                }
                Some(Message::text("."))
            });
            Ok(())
        };
        let mut serving = serve(WebSocket::from_parts(a, Role::Server, &[], Config::default()), handler);
        send.send(serving.pusher(pushed)).unwrap();
        let _serving = tokio::spawn(serving);
        peer.write_all(&frame(0x81, b"?")).await.unwrap();
        let expected = [unmasked(0x81, b"-").repeat(pushed), unmasked(0x81, b".")].concat();
        assert!(read(&mut peer, expected.len()).await == expected, "{pushed} through {room}");
    }
}

#[tokio::test]
async fn a_turn_is_bounded_by_what_comes_out_of_compressed_messages() {
    let (client, server) = duplex(1 << 20);
    let handed_out = Arc::new(AtomicUsize::new(0));
    let accepting = tokio::spawn(async move { accept(server, Config::default()).await.unwrap() });
    let mut client = connect_over(client, "ws://a/", &ConnectOptions::default()).await.unwrap();
    let socket = accepting.await.unwrap();
    assert!(socket.deflate().is_some());
    for _ in 0..50 {
        client.feed(vec![0; 1_000_000]).await.unwrap();
    }
    client.flush().await.unwrap();
    let count = handed_out.clone();
    let serving = serve(socket, move |message, _| {
        count.fetch_add(message.as_bytes().len(), Ordering::Relaxed);
        Ok(())
    });
    let mut serving = std::pin::pin!(serving);
    assert!(tokio::task::unconstrained(&mut serving).now_or_never().is_none());
    assert_eq!(handed_out.load(Ordering::Relaxed), 2_000_000);
}

#[tokio::test]
async fn a_turn_has_as_many_messages_as_the_configuration_says() {
    for (turn_messages, expected) in [(0, 1), (3, 3), (1024, 10)] {
        let (a, mut peer) = duplex(1 << 16);
        peer.write_all(&frame(0x81, b"x").repeat(10)).await.unwrap();
        let config = config(|c| c.turn_messages = turn_messages);
        let mut calls = 0;
        let socket = WebSocket::from_parts(a, Role::Server, &[], config);
        let mut serving = Box::pin(serve(socket, |_, _| {
            calls += 1;
            Ok(())
        }));
        assert!(tokio::task::unconstrained(&mut serving).now_or_never().is_none());
        drop(serving);
        assert_eq!(calls, expected);
    }
}

#[tokio::test]
async fn what_an_answer_that_was_put_off_pushes_goes_out_before_it() {
    let (a, mut peer) = duplex(1 << 16);
    let (send, sent) = oneshot::channel::<longwire::websocket::Pusher>();
    let mut sent = Some(sent);
    let handler = move |_: MessageRef<'_>, out: &mut Output<'_>| {
        let sent = sent.take().unwrap();
        out.defer(async {
            let pusher = sent.await.unwrap();
            for n in 0..10 {
                pusher.push(format!("{n}")).await.unwrap();
            }
            Some(Message::text("."))
        });
        Ok(())
    };
    let mut serving = serve(WebSocket::from_parts(a, Role::Server, &[], Config::default()), handler);
    send.send(serving.pusher(1)).unwrap();
    let _serving = tokio::spawn(serving);
    peer.write_all(&frame(0x81, b"?")).await.unwrap();
    let answers: Vec<u8> =
        "0123456789.".chars().flat_map(|c| unmasked(0x81, c.to_string().as_bytes())).collect();
    assert_eq!(read(&mut peer, answers.len()).await, answers);
}

#[tokio::test]
async fn compressed_messages_come_back_compressed() {
    let (a, b) = duplex(1 << 16);
    let serving = tokio::spawn(async move {
        let socket = accept(b, Config::default()).await.unwrap();
        assert!(socket.deflate().is_some());
        serve(socket, |message, out| out.send(message)).await
    });
    let mut client = connect_over(a, "ws://a/", &ConnectOptions::default()).await.unwrap();
    for len in [10, 600, 5000, 200_000, 1 << 20] {
        let text: String = "longwire ".chars().cycle().take(len).collect();
        let mut noise = data(len);
        noise.iter_mut().for_each(|byte| *byte = rand::random());
        client.feed(text.clone()).await.unwrap();
        client.feed(noise.clone()).await.unwrap();
        assert_eq!(client.recv_message().await.unwrap().unwrap().as_str(), Some(&*text));
        assert_eq!(client.recv_message().await.unwrap().unwrap(), Message::binary(noise));
    }
    client.close(CloseCode::NORMAL, "").await.unwrap();
    assert!(matches!(serving.await.unwrap(), Ok(CloseCause::Clean)));
}

#[tokio::test]
async fn over_tls_too() {
    let (acceptor, options) = tls();
    let listener = TcpListener::bind(("localhost", 0)).await.unwrap();
    let url = format!("wss://localhost:{}/", listener.local_addr().unwrap().port());
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let socket = accept(acceptor.accept(stream).await.unwrap(), Config::default()).await.unwrap();
        serve(socket, |message, out| out.send(message)).await
    });
    let mut client = connect(&url, &options).await.unwrap();
    for len in [1, 20_000, 300_000] {
        let big = "x".repeat(len);
        client.send_text(&big).await.unwrap();
        assert_eq!(client.recv_message().await.unwrap().unwrap().as_str(), Some(&*big));
    }
    client.close(CloseCode::NORMAL, "").await.unwrap();
    assert!(matches!(serving.await.unwrap(), Ok(CloseCause::Clean)));
}

/// Echoes messages of all kinds of sizes, several at once, and closes.
pub(crate) async fn converse(url: &str, seed: usize) {
    let mut client = connect(url, &ConnectOptions::default()).await.unwrap();
    for round in 0..20 {
        let messages: Vec<Vec<u8>> =
            (0..5).map(|n| data((seed * 31 + round * 977 + n * 4001) % 40_000)).collect();
        for message in &messages {
            client.feed(message.clone()).await.unwrap();
        }
        for message in &messages {
            let answer = timeout(LONG, client.recv_message()).await.unwrap().unwrap().unwrap();
            assert!(answer.as_bytes() == message);
        }
    }
    client.close(CloseCode::NORMAL, "").await.unwrap();
}

/// Twenty that do so at once.
pub(crate) async fn converse_at_once(url: &str) {
    let clients: Vec<_> = (0..20)
        .map(|seed| {
            let url = url.to_owned();
            tokio::spawn(async move { converse(&url, seed).await })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn in_tasks_of_a_runtime_with_several_threads() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let socket = accept(stream, config(|c| c.deflate = None)).await.unwrap();
                serve(socket, |message, out| out.send(message)).await
            });
        }
    });
    converse_at_once(&url).await;
}
