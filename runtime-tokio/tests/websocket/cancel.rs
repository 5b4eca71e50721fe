//! Every method is cancel-safe: futures are dropped after any number of polls, over a stream that hands out and
//! takes a few bytes at a time and is often not ready.

use longwire::websocket::{CloseCause, CloseCode, Config, Event, Message, Role, WebSocket};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

/// A stream that is Pending now and then, and moves at most a few bytes at once.
struct Choppy {
    stream: DuplexStream,
    rng: StdRng,
}

impl Choppy {
    fn new(stream: DuplexStream, seed: u64) -> Self {
        Self { stream, rng: StdRng::seed_from_u64(seed) }
    }

    fn busy(&mut self, cx: &Context<'_>) -> bool {
        let busy = self.rng.random_bool(0.4);
        if busy {
            cx.waker().wake_by_ref();
        }
        busy
    }
}

impl AsyncRead for Choppy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.busy(cx) {
            return Poll::Pending;
        }
        let n = self.rng.random_range(1..40).min(buf.remaining());
        let mut bytes = [0; 40];
        let mut few = ReadBuf::new(&mut bytes[..n]);
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut few))?;
        buf.put_slice(few.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Choppy {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.busy(cx) {
            return Poll::Pending;
        }
        let n = self.rng.random_range(1..40).min(buf.len());
        Pin::new(&mut self.stream).poll_write(cx, &buf[..n])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.busy(cx) { Poll::Pending } else { Pin::new(&mut self.stream).poll_flush(cx) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.busy(cx) { Poll::Pending } else { Pin::new(&mut self.stream).poll_shutdown(cx) }
    }
}

/// Polls a future at most `n` times, then drops it. `None`: it was not ready.
async fn at_most<T>(n: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = n;
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if left <= 1 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

fn pair(seed: u64, config: Config) -> (WebSocket<Choppy>, WebSocket<Choppy>) {
    let (a, b) = duplex(64);
    let config = Arc::new(config);
    let client = WebSocket::from_parts(Choppy::new(a, seed), Role::Client, &[], config.clone());
    (client, WebSocket::from_parts(Choppy::new(b, seed + 1000), Role::Server, &[], config))
}

fn message(n: usize) -> Message {
    let body = format!("{n}:{}", "€".repeat(n * 31 % 200));
    if n.is_multiple_of(2) { Message::text(body) } else { Message::binary(body.into_bytes()) }
}

const COUNT: usize = 60;

fn small_buffers() -> Config {
    let mut config = Config::default();
    config.max_send_buffer = 200; // so that some messages go out in fragments
    config
}

#[tokio::test]
async fn dropped_recv_loses_and_repeats_nothing() {
    for seed in 0..20 {
        let (mut client, mut server) = pair(seed, small_buffers());
        let sending = tokio::spawn(async move {
            for n in 0..COUNT {
                client.feed(message(n)).await.unwrap();
                // Not more than their answers have room for: nobody reads them before the end.
                if n % 5 == 0 {
                    client.ping(b"ping").await.unwrap();
                }
            }
            client.close(CloseCode::NORMAL, "").await.unwrap();
        });
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut messages, mut pings, mut closes) = (0, 0, 0);
        loop {
            match at_most(rng.random_range(1..4), server.recv()).await {
                None => tokio::task::yield_now().await,
                Some(None) => break,
                Some(Some(event)) => match event.unwrap() {
                    Event::Ping(b"ping") => pings += 1,
                    Event::Close(_) => closes += 1,
                    event => {
                        assert_eq!(Message::from_event(&event).unwrap(), message(messages));
                        messages += 1;
                    }
                },
            }
        }
        assert_eq!((messages, pings, closes), (COUNT, COUNT / 5, 1));
        assert_eq!(server.close_cause(), Some(CloseCause::Clean));
        sending.await.unwrap();
    }
}

#[tokio::test]
async fn dropped_feed_has_taken_nothing_and_dropped_flush_goes_on() {
    for seed in 0..20 {
        let (mut client, mut server) = pair(seed, small_buffers());
        let sending = tokio::spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut next = 0;
            while next < COUNT {
                match at_most(rng.random_range(1..3), client.feed(message(next))).await {
                    Some(taken) => {
                        taken.unwrap();
                        next += 1;
                    }
                    None => tokio::task::yield_now().await,
                }
                if rng.random_bool(0.3) {
                    at_most(rng.random_range(1..3), client.flush()).await.transpose().unwrap();
                }
            }
            // The closing handshake too, in as many pieces as it likes.
            loop {
                match at_most(rng.random_range(1..3), client.close(CloseCode::NORMAL, "end")).await {
                    Some(closed) => return closed,
                    None => tokio::task::yield_now().await,
                }
            }
        });
        for n in 0..COUNT {
            assert_eq!(server.recv_message().await.unwrap().unwrap(), message(n));
        }
        let Some(Ok(Event::Close(close))) = server.recv().await else { panic!() };
        assert_eq!(close.reason, "end");
        assert!(server.recv().await.is_none());
        sending.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn dropped_send_sends_all_of_its_message_or_nothing() {
    for seed in 0..20 {
        let (mut client, mut server) = pair(seed, small_buffers());
        let sending = tokio::spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed);
            for n in 0..COUNT {
                let polls = rng.random_range(1..3);
                let sent = match rng.random_range(0..3) {
                    0 => at_most(polls, client.send(message(n))).await,
                    1 => match message(n) {
                        Message::Text(text) => at_most(polls, client.send_text(&text)).await,
                        Message::Binary(data) => at_most(polls, client.send_binary(&data)).await,
                    },
                    _ => at_most(polls, client.ping(b"p")).await,
                };
                sent.transpose().unwrap();
            }
            client.close(CloseCode::NORMAL, "").await.unwrap();
        });
        let mut last = None;
        while let Some(got) = server.recv_message().await {
            let got = got.unwrap();
            let n = (0..COUNT).find(|n| message(*n) == got).expect("a message that nobody sent whole");
            assert!(last < Some(n), "{n} after {last:?}");
            last = Some(n);
        }
        assert!(last.is_some());
        sending.await.unwrap();
    }
}

#[tokio::test]
async fn dropped_futures_of_the_halves_lose_nothing_either() {
    for seed in 0..10 {
        let (client, server) = pair(seed, small_buffers());
        let (mut sender, receiver) = client.split();
        let (mut echo_sender, mut echo) = server.split();
        let echoing = tokio::spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed);
            loop {
                match at_most(rng.random_range(1..4), echo.recv_message()).await {
                    None => tokio::task::yield_now().await,
                    Some(None) => return,
                    Some(Some(message)) => {
                        let message = message.unwrap();
                        // A ready feed has taken it; one that is dropped has not.
                        while at_most(2, echo_sender.feed(message.clone()))
                            .await
                            .transpose()
                            .unwrap()
                            .is_none()
                        {
                            tokio::task::yield_now().await;
                        }
                        while at_most(2, echo_sender.flush()).await.transpose().unwrap().is_none() {
                            tokio::task::yield_now().await;
                        }
                    }
                }
            }
        });
        let receiving = tokio::spawn(async move {
            let (mut receiver, mut rng) = (receiver, StdRng::seed_from_u64(seed + 1));
            let mut next = 0;
            loop {
                match at_most(rng.random_range(1..4), receiver.recv()).await {
                    None => tokio::task::yield_now().await,
                    Some(None) => return next,
                    Some(Some(event)) => {
                        if let Some(got) = Message::from_event(&event.unwrap()) {
                            assert_eq!(got, message(next));
                            next += 1;
                        }
                    }
                }
            }
        });
        for n in 0..COUNT {
            sender.send(message(n)).await.unwrap();
        }
        while sender.ping(b"").await.is_ok() && !receiving.is_finished() {
            // Everything was echoed once the close is answered.
            sender.close(CloseCode::NORMAL, "").await.ok();
        }
        echoing.await.unwrap();
        let echoed = receiving.await.unwrap();
        assert_eq!(echoed, COUNT, "seed {seed}");
    }
}
