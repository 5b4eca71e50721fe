//! `WebSocket<S>` against itself and against bytes written by hand.

use super::wire::frame;
use super::{config, read, read_to_end};
use futures_util::{SinkExt, StreamExt};
use longwire::websocket::{
    CloseCause, CloseCode, Config, Delivery, Error, Event, Message, Role, Timeout, WebSocket,
};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

type Socket = WebSocket<DuplexStream>;

/// Both ends, over a pipe that holds `room` bytes.
fn pair(room: usize, config: Config) -> (Socket, Socket) {
    let (a, b) = duplex(room);
    let config = Arc::new(config);
    let client = WebSocket::from_parts(a, Role::Client, &[], config.clone());
    (client, WebSocket::from_parts(b, Role::Server, &[], config))
}

/// A server, and the bytes of its client.
fn server(config: Config) -> (Socket, DuplexStream) {
    let (a, b) = duplex(1 << 20);
    (WebSocket::from_parts(a, Role::Server, &[], config), b)
}

#[tokio::test]
async fn messages_pings_and_a_clean_close() {
    let (mut client, mut server) = pair(1 << 16, Config::default());
    client.send("héllo").await.unwrap();
    client.send_binary(&[0, 255]).await.unwrap();
    client.ping(b"are you there").await.unwrap();
    let Some(Ok(Event::Text(text))) = server.recv().await else { panic!() };
    assert_eq!(text, "héllo");
    let Some(Ok(Event::Binary([0, 255]))) = server.recv().await else { panic!() };
    let Some(Ok(Event::Ping(b"are you there"))) = server.recv().await else { panic!() };
    let Some(Ok(Event::Pong(b"are you there"))) = client.recv().await else { panic!() };
    assert!(client.is_open() && client.close_cause().is_none());

    let closing = tokio::spawn(async move {
        let result = client.close(CloseCode::new(4001).unwrap(), "enough").await;
        (client, result)
    });
    let Some(Ok(Event::Close(close))) = server.recv().await else { panic!() };
    assert_eq!((close.code, close.reason.as_str()), (CloseCode::new(4001), "enough"));
    assert!(matches!(server.send("too late").await, Err(Error::Closing)));
    assert!(server.recv().await.is_none());
    let (mut client, result) = closing.await.unwrap();
    result.unwrap();
    for socket in [&mut client, &mut server] {
        assert_eq!(socket.close_cause(), Some(CloseCause::Clean));
        assert!(socket.recv().await.is_none());
        assert!(matches!(socket.send("x").await, Err(Error::Closed(CloseCause::Clean))));
        socket.close(CloseCode::NORMAL, "").await.unwrap();
    }
}

/// Counts the writes that reach the stream.
struct Counted<S>(S, Arc<AtomicUsize>);

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn messages_that_were_fed_go_out_together() {
    let (a, mut b) = duplex(1 << 16);
    let writes = Arc::new(AtomicUsize::new(0));
    let mut socket = WebSocket::from_parts(Counted(a, writes.clone()), Role::Server, &[], Config::default());
    for n in 0..100 {
        socket.feed(format!("{n:02}")).await.unwrap();
    }
    assert_eq!(writes.load(Ordering::Relaxed), 0);
    socket.flush().await.unwrap();
    assert_eq!(writes.load(Ordering::Relaxed), 1);
    assert_eq!(&read(&mut b, 400).await[396..], b"\x81\x0299");
}

#[tokio::test]
async fn a_turn_that_only_reads_flushes_pongs_and_what_was_fed() {
    let (mut socket, mut peer) = server(Config::default());
    peer.write_all(&frame(0x89, b"a")).await.unwrap();
    assert!(matches!(socket.recv().await, Some(Ok(Event::Ping(b"a")))));
    // Answered although nobody came back yet.
    assert_eq!(read(&mut peer, 3).await, b"\x8a\x01a");
    socket.feed("x").await.unwrap();
    let waiting = tokio::spawn(async move { socket.recv_message().await });
    assert_eq!(read(&mut peer, 3).await, b"\x81\x01x");
    drop(peer);
    assert!(matches!(waiting.await.unwrap(), Some(Err(Error::Closed(CloseCause::EndOfStream)))));
}

#[tokio::test]
async fn frames_that_came_with_the_handshake_are_not_lost() {
    let (a, mut b) = duplex(1 << 16);
    let mut bytes = frame(0x81, b"one");
    bytes.extend(frame(0x82, b"two"));
    let (early, late) = bytes.split_at(11);
    b.write_all(late).await.unwrap();
    let mut socket = WebSocket::from_parts(a, Role::Server, early, Config::default());
    assert_eq!(socket.recv_message().await.unwrap().unwrap(), Message::text("one"));
    assert_eq!(socket.recv_message().await.unwrap().unwrap(), Message::binary(&b"two"[..]));
}

#[tokio::test]
async fn a_message_larger_than_the_send_buffer_goes_out_in_fragments_and_arrives_whole() {
    let limits = config(|c| {
        c.protocol.max_message = 3 << 20;
        c.max_send_buffer = 10_000;
    });
    let (mut client, mut server) = pair(1000, limits);
    let data: Vec<u8> = (0..3 << 20).map(|n: u32| (n * 7 / 3) as u8).collect();
    let sent = data.clone();
    let sending = tokio::spawn(async move {
        client.feed("before").await.unwrap();
        client.send_binary(&sent).await.unwrap();
        client.send("after").await.unwrap();
        client.close(CloseCode::NORMAL, "").await.unwrap();
    });
    assert_eq!(server.recv_message().await.unwrap().unwrap(), Message::text("before"));
    assert_eq!(server.recv_message().await.unwrap().unwrap().as_bytes(), data);
    assert_eq!(server.recv_message().await.unwrap().unwrap(), Message::text("after"));
    assert!(server.recv_message().await.is_none());
    sending.await.unwrap();
}

#[tokio::test]
async fn what_was_taken_goes_out_before_the_close() {
    let (mut client, mut server) = pair(100, config(|c| c.max_send_buffer = 1000));
    client.feed("a").await.unwrap();
    client.feed("b".repeat(5000)).await.unwrap();
    client.start_close(CloseCode::NORMAL, "");
    assert!(matches!(client.feed("late").await, Err(Error::Closing)));
    let closing = tokio::spawn(async move { client.close(CloseCode::NORMAL, "").await });
    assert_eq!(server.recv_message().await.unwrap().unwrap(), Message::text("a"));
    assert_eq!(server.recv_message().await.unwrap().unwrap(), Message::text("b".repeat(5000)));
    assert!(server.recv_message().await.is_none());
    closing.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_with_1009() {
    let (mut socket, mut peer) = server(config(|c| c.protocol.max_message = 10));
    peer.write_all(&frame(0x82, &[1; 10])).await.unwrap();
    assert!(matches!(socket.recv().await, Some(Ok(Event::Binary(_)))));
    peer.write_all(&frame(0x82, &[1; 11])).await.unwrap();
    let ending = tokio::spawn(async move { (socket.recv_message().await, socket) });
    let bytes = read_to_end(&mut peer).await;
    assert_eq!(bytes[..4], [0x88, bytes[1], 0x03, 0xf1]);
    drop(peer);
    let (result, mut socket) = ending.await.unwrap();
    assert!(matches!(result, Some(Err(Error::Protocol(e))) if e.code() == CloseCode::TOO_BIG));
    assert!(socket.recv().await.is_none());
    assert_eq!(socket.close_cause(), Some(CloseCause::Failed(CloseCode::TOO_BIG)));
}

#[tokio::test(start_paused = true)]
async fn after_a_protocol_error_the_close_is_the_last_thing_written_and_the_peer_cannot_hold_the_end_up() {
    let (mut socket, mut peer) = server(Config::default());
    peer.write_all(b"\x81\x01x").await.unwrap(); // not masked
    peer.write_all(&frame(0x81, b"never seen")).await.unwrap();
    let started = tokio::time::Instant::now();
    // The peer keeps its end open: the close timeout ends it.
    assert!(matches!(socket.recv().await, Some(Err(Error::Protocol(_)))));
    assert_eq!(started.elapsed(), Duration::from_secs(5));
    let bytes = read_to_end(&mut peer).await;
    assert_eq!(bytes[..4], [0x88, bytes[1], 0x03, 0xea]);
    assert_eq!(bytes.len(), 2 + usize::from(bytes[1]));
    assert!(socket.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_asked_and_given_up() {
    let (mut socket, mut peer) = server(Config::default());
    let started = tokio::time::Instant::now();
    let waiting = tokio::spawn(async move { (socket.recv_message().await, socket.close_cause()) });
    let ping = read(&mut peer, 6).await;
    assert_eq!(ping[..2], *b"\x89\x04");
    assert_eq!(started.elapsed(), Duration::from_secs(30));
    // One that answers is left alone for another interval.
    peer.write_all(&frame(0x8a, &ping[2..])).await.unwrap();
    assert_eq!(read(&mut peer, 6).await[..2], *b"\x89\x04");
    assert_eq!(started.elapsed(), Duration::from_secs(60));
    let (result, cause) = waiting.await.unwrap();
    assert_eq!(started.elapsed(), Duration::from_secs(70));
    assert!(matches!(result, Some(Err(Error::Closed(CloseCause::Timeout)))));
    assert_eq!(cause, Some(CloseCause::Timeout));
    assert_eq!(read_to_end(&mut peer).await[2..4], [0x03, 0xe9]);
}

#[tokio::test(start_paused = true)]
async fn a_close_without_an_answer_ends_at_its_deadline_even_while_messages_come() {
    let (mut socket, mut peer) = server(config(|c| c.protocol.heartbeat = None));
    let talking = tokio::spawn(async move {
        while peer.write_all(&frame(0x81, b"and another thing")).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let started = tokio::time::Instant::now();
    let result = socket.close(CloseCode::NORMAL, "").await;
    assert!(matches!(result, Err(Error::Closed(CloseCause::Timeout))));
    assert_eq!(started.elapsed(), Duration::from_secs(5));
    drop(socket);
    talking.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_is_given_up() {
    let (mut client, _server) = pair(1000, Config::default());
    let started = tokio::time::Instant::now();
    let result = client.send("x".repeat(5000)).await;
    assert!(matches!(result, Err(Error::Timeout(Timeout::Write))), "{result:?}");
    assert_eq!(started.elapsed(), Duration::from_secs(30));
    assert!(matches!(client.send("y").await, Err(Error::Closed(CloseCause::Timeout))));
    // Also when it is only read from.
    let (mut socket, mut peer) = server(Config::default());
    for _ in 0..20_000 {
        peer.write_all(&frame(0x89, &[b'p'; 125])).await.ok();
        match tokio::time::timeout(Duration::from_secs(60), socket.recv()).await.unwrap() {
            Some(Ok(_)) => {}
            Some(Err(Error::Timeout(Timeout::Write))) => return,
            other => panic!("{other:?}"),
        }
    }
    panic!("pongs were queued without a bound");
}

#[tokio::test]
async fn the_peers_close_is_heard_even_when_writing_fails_first() {
    let (mut socket, mut peer) = server(Config::default());
    peer.write_all(&frame(0x88, &[0x0f, 0xa0])).await.unwrap();
    drop(peer);
    assert!(matches!(socket.send("x").await, Err(Error::Io(_))));
    assert!(matches!(socket.send("y").await, Err(Error::Io(_))));
    let Some(Ok(Event::Close(close))) = socket.recv().await else { panic!() };
    assert_eq!(close.code, CloseCode::new(4000));
    assert!(socket.recv().await.is_none());
    assert_eq!(socket.close_cause(), Some(CloseCause::Clean));
}

#[tokio::test]
async fn chunks_pass_a_large_message_through_a_small_buffer() {
    let limits = config(|c| {
        c.protocol.delivery = Delivery::Chunks;
        c.protocol.max_message = u64::MAX;
        c.max_read = 512;
    });
    let (mut socket, mut peer) = server(limits);
    let data: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    peer.write_all(&frame(0x82, &data)).await.unwrap();
    let mut got = Vec::new();
    loop {
        let Some(Ok(Event::Chunk(chunk))) = socket.recv().await else { panic!() };
        assert!(chunk.payload.len() <= 512);
        got.extend_from_slice(chunk.payload);
        if chunk.last {
            break;
        }
    }
    assert_eq!(got, data);
    peer.write_all(&frame(0x82, &data)).await.unwrap();
    assert!(matches!(socket.recv_message().await, Some(Err(Error::Chunks))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn halves_send_and_receive_in_two_tasks() {
    let (client, mut server) = pair(700, config(|c| c.max_send_buffer = 2000));
    let echo = tokio::spawn(async move {
        while let Some(message) = server.recv_message().await {
            server.send(message.unwrap()).await.unwrap();
        }
        server.close_cause()
    });
    let (mut sender, mut receiver) = client.split();
    const COUNT: usize = 500;
    let text = |n: usize| format!("{n} {}", "x".repeat(n * 37 % 5000));
    let sending = tokio::spawn(async move {
        for n in 0..COUNT {
            if n % 3 == 0 {
                sender.feed(text(n)).await.unwrap()
            } else {
                sender.send(text(n)).await.unwrap()
            }
            if n % 10 == 0 {
                sender.ping(b"p").await.unwrap();
            }
        }
        sender
    });
    for n in 0..COUNT {
        assert_eq!(receiver.recv_message().await.unwrap().unwrap(), Message::text(text(n)));
    }
    let mut sender = sending.await.unwrap();
    let ending = tokio::spawn(async move { (receiver.recv_message().await.is_none(), receiver) });
    sender.close(CloseCode::NORMAL, "done").await.unwrap();
    let (ended, receiver) = ending.await.unwrap();
    assert!(ended);
    assert_eq!(echo.await.unwrap(), Some(CloseCause::Clean));
    let mut whole = receiver.reunite(sender).unwrap();
    assert!(whole.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_receiver_keeps_the_deadline_of_a_close_that_the_sender_began() {
    // A peer that does not answer, and one that does not even read.
    for room in [1 << 16, 8] {
        let (a, _peer) = duplex(room);
        let (mut sender, mut receiver) =
            WebSocket::from_parts(a, Role::Client, &[], Config::default()).split();
        let waiting = tokio::spawn(async move { receiver.recv_message().await });
        tokio::task::yield_now().await; // it waits now, with the deadline of the heartbeat, which is later
        let started = tokio::time::Instant::now();
        sender.feed("more than eight bytes").await.unwrap();
        let closing = tokio::spawn(async move { sender.close(CloseCode::NORMAL, "").await });
        assert!(matches!(waiting.await.unwrap(), Some(Err(Error::Closed(CloseCause::Timeout)))));
        assert_eq!(started.elapsed(), Duration::from_secs(5));
        assert_eq!(closing.await.unwrap().is_ok(), room > 8);
    }
}

#[tokio::test(start_paused = true)]
async fn a_half_that_waits_to_write_is_woken_although_the_other_one_tried_last_and_went_away() {
    let (a, mut peer) = duplex(8);
    let (mut sender, mut receiver) = WebSocket::from_parts(a, Role::Server, &[], Config::default()).split();
    let sending = tokio::spawn(async move { sender.send("more than eight bytes").await });
    tokio::task::yield_now().await;
    {
        // It tries to write what waits, and is dropped.
        let mut recv = std::pin::pin!(receiver.recv());
        assert!(recv.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
    }
    let started = tokio::time::Instant::now();
    assert_eq!(read(&mut peer, 23).await, b"\x81\x15more than eight bytes");
    sending.await.unwrap().unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO);
}

/// A peer that sends without end and without waiting.
struct Flood(usize);

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.0 += 1;
        assert!(self.0 < 5_000_000, "the deadline never came");
        let frame = frame(0x81, b"hi");
        let n = frame.len().min(buf.remaining());
        buf.put_slice(frame.get(..n).unwrap());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_peer_that_floods_cannot_hold_the_end_up() {
    let limits = |max| {
        config(|c| {
            c.protocol.close_timeout = Duration::from_millis(20);
            c.protocol.max_message = max;
        })
    };
    let mut socket = WebSocket::from_parts(Flood(0), Role::Server, &[], limits(100));
    let closed = socket.close(CloseCode::NORMAL, "").await;
    assert!(matches!(closed, Err(Error::Closed(CloseCause::Timeout))));
    // Nor after it was failed.
    let mut socket = WebSocket::from_parts(Flood(0), Role::Server, &[], limits(1));
    assert!(matches!(socket.recv_message().await, Some(Err(Error::Protocol(_)))));
}

#[tokio::test]
async fn it_is_a_stream_and_a_sink() {
    let (client, server) = pair(300, Config::default());
    let echo = tokio::spawn(async move {
        let (sink, stream) = StreamExt::split(server);
        stream.forward(sink).await
    });
    let (mut sink, stream) = client.split();
    let all: Vec<Message> = (0..100).map(|n| Message::text(format!("{n}"))).collect();
    let sent = all.clone();
    let sending = tokio::spawn(async move {
        for message in sent {
            SinkExt::feed(&mut sink, message).await.unwrap();
        }
        SinkExt::flush(&mut sink).await.unwrap();
        sink
    });
    let got: Vec<Message> = stream.take(100).map(Result::unwrap).collect().await;
    assert_eq!(got, all);
    drop(sending.await.unwrap());
    // The stream is gone: the echo ends without a closing handshake, and says so.
    assert!(matches!(echo.await.unwrap(), Err(Error::Closed(CloseCause::EndOfStream))));
}

#[tokio::test]
async fn a_sink_that_is_not_ready_takes_nothing() {
    let (mut client, _server) = pair(100, config(|c| c.max_send_buffer = 1000));
    client.start_send_unpin(Message::text("a".repeat(5000))).unwrap();
    let early = client.start_send_unpin(Message::text("b"));
    assert!(matches!(early, Err(Error::NotReady)));
    assert!(client.is_open());
}

#[tokio::test]
async fn answers_to_messages_that_came_together_go_out_together_and_the_last_one_at_once() {
    let (a, mut peer) = duplex(1 << 16);
    let writes = Arc::new(AtomicUsize::new(0));
    let mut socket = WebSocket::from_parts(Counted(a, writes.clone()), Role::Server, &[], Config::default());
    let mut wire: Vec<u8> = (0..16).flat_map(|n| frame(0x81, format!("{n:02}").as_bytes())).collect();
    // What is not there whole is nothing to come back for.
    let beginning = frame(0x81, b"the next");
    wire.extend(&beginning[..10]);
    peer.write_all(&wire).await.unwrap();
    for _ in 0..16 {
        let message = socket.recv_message().await.unwrap().unwrap();
        assert_eq!(writes.load(Ordering::Relaxed), 0);
        socket.send(message).await.unwrap();
    }
    assert_eq!(writes.load(Ordering::Relaxed), 1);
    assert_eq!(&read(&mut peer, 64).await[60..], b"\x81\x0215");
    // One that stops in between flushes.
    peer.write_all(&[&beginning[10..], &frame(0x81, b"x")].concat()).await.unwrap();
    assert_eq!(socket.recv_message().await.unwrap().unwrap(), Message::text("the next"));
    socket.send("1").await.unwrap();
    socket.send_binary(b"2").await.unwrap();
    assert_eq!(writes.load(Ordering::Relaxed), 1);
    socket.flush().await.unwrap();
    assert_eq!(writes.load(Ordering::Relaxed), 2);
    assert_eq!(read(&mut peer, 6).await, b"\x81\x011\x82\x012");
}

#[tokio::test]
async fn a_large_message_goes_out_between_what_was_sent_before_and_the_pong_behind_it() {
    let (mut socket, mut peer) = {
        let (a, b) = duplex(1000);
        (WebSocket::from_parts(a, Role::Server, &[], config(|c| c.deflate = None)), b)
    };
    let large: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    socket.feed("before").await.unwrap();
    socket.feed(large.clone()).await.unwrap();
    peer.write_all(&frame(0x89, b"?")).await.unwrap();
    let receiving = tokio::spawn(async move {
        assert!(matches!(socket.recv().await, Some(Ok(Event::Ping(b"?")))));
        socket.feed("after").await.unwrap();
        socket.close(CloseCode::NORMAL, "").await
    });
    assert_eq!(read(&mut peer, 8).await, b"\x81\x06before");
    assert_eq!(read(&mut peer, 10).await, [&b"\x82\x7f"[..], &100_000u64.to_be_bytes()].concat());
    assert!(read(&mut peer, 100_000).await == large);
    assert_eq!(read(&mut peer, 10).await, b"\x8a\x01?\x81\x05after");
    peer.write_all(&frame(0x88, &[0x03, 0xe8])).await.unwrap();
    assert_eq!(read_to_end(&mut peer).await, b"\x88\x02\x03\xe8");
    receiving.await.unwrap().unwrap();
}
