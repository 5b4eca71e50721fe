//! A hub on the thread of its caller.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, and that is what it is for"
)]

use longwire::hub::{Adoption, Data, Grant, Hub, HubConfig, LocalShard, LogConfig, Open, Protocol, Socket};
use longwire_core::log::{Pattern, Since, Topic};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{TryRecvError, channel};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::LocalSet;

/// Events, and how many of them the tail holds.
const EVENTS: usize = 1000;
const TAIL: usize = 8;

fn hub() -> (Arc<Hub>, LocalShard) {
    let log = LogConfig { tail_events: TAIL, ..LogConfig::default() };
    Hub::local(HubConfig { log, shards: 7, ..HubConfig::default() }, Arc::new(Open)).unwrap()
}

async fn connect(hub: &Hub, permit: impl Send + 'static) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let server = listener.accept().await.unwrap().0;
    adopt(hub, Socket::Tcp(server.into_std().unwrap()), permit);
    client
}

fn adopt(hub: &Hub, socket: Socket, permit: impl Send + 'static) {
    hub.adopt(Adoption {
        subscription: Some((Pattern::parse("**").into_iter().collect(), Since::Now)),
        permit: Box::new(permit),
        ..Adoption::new(socket, Protocol::Sse, Grant::open())
    });
}

async fn read_until(client: &mut TcpStream, text: &mut Vec<u8>, mark: &str) {
    while !String::from_utf8_lossy(text).contains(mark) {
        assert_ne!(client.read_buf(text).await.unwrap(), 0, "ended before {mark:?}");
    }
}

/// Subscribes, publishes more than the tail holds, closes: all on this thread.
async fn serve(hub: &Hub) {
    let mut client = connect(hub, ()).await;
    let mut text = Vec::new();
    read_until(&mut client, &mut text, "caught_up").await;
    for n in 0..EVENTS {
        hub.publish(Topic::parse("a").unwrap(), None, Data::json(n.to_string().as_bytes()).unwrap())
            .await
            .unwrap();
    }
    // What is not delivered when a hub closes stays in its log.
    read_until(&mut client, &mut text, &format!("\"data\":{}}}", EVENTS - 1)).await;
    hub.close(Duration::ZERO, Duration::from_secs(7));
    client.read_to_end(&mut text).await.unwrap();
    let text = String::from_utf8(text).unwrap();
    // A publisher waits for the shard, so none of them was pushed out of the tail before it was delivered.
    assert_eq!(text.matches("\"type\":\"event\"").count(), EVENTS, "{}", &text[text.len() - 500..]);
    assert!(text.contains("\"code\":\"draining\""));
}

#[test]
fn one_thread_publishes_delivers_and_closes_in_a_local_runtime() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    let (hub, shard) = hub();
    let served = runtime.spawn_local(shard.run());
    runtime.block_on(async {
        serve(&hub).await;
        served.await.unwrap();
    });
}

#[test]
fn and_in_a_local_set() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (hub, shard) = hub();
    let local = LocalSet::new();
    local.spawn_local(shard.run());
    local.block_on(&runtime, serve(&hub));
    runtime.block_on(local);
}

#[test]
fn and_beside_another_future_of_the_same_task() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (hub, shard) = hub();
    runtime.block_on(async { tokio::join!(shard.run(), serve(&hub)) });
}

/// Nobody waits for one that is not there any more, and no connection outlives it.
#[test]
fn one_that_is_dropped_takes_its_connections_with_it() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    let (hub, shard) = hub();
    let served = runtime.spawn_local(shard.run());
    runtime.block_on(async {
        let (permit, gone) = channel::<()>();
        let mut client = connect(&hub, permit).await;
        let mut text = Vec::new();
        read_until(&mut client, &mut text, "caught_up").await;
        served.abort();
        client.read_to_end(&mut text).await.unwrap();
        assert_eq!(gone.try_recv(), Err(TryRecvError::Disconnected));
        for _ in 0..EVENTS {
            hub.publish(Topic::parse("a").unwrap(), None, Data::json(b"1").unwrap()).await.unwrap();
        }
        // Whoever comes later is turned away.
        let mut late = connect(&hub, ()).await;
        assert_eq!(late.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    });
}

#[test]
fn one_that_never_runs_holds_up_nobody() {
    let (hub, shard) = hub();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = connect(&hub, ()).await;
        drop(shard);
        assert_eq!(client.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        for _ in 0..EVENTS {
            hub.publish(Topic::parse("a").unwrap(), None, Data::json(b"1").unwrap()).await.unwrap();
        }
    });
}

/// A stream of an application's own that has a mistake in it.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        panic!("a stream panics, as this test wants it to");
    }
}

impl AsyncWrite for Broken {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The connections of a shard have their turns one after the other, in one task.
#[test]
fn who_panics_in_a_turn_or_when_its_permit_is_dropped_ends_only_its_own_connection() {
    struct Permit;
    impl Drop for Permit {
        fn drop(&mut self) {
            panic!("a permit panics, as this test wants it to");
        }
    }
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    let (hub, shard) = hub();
    let served = runtime.spawn_local(shard.run());
    runtime.block_on(async {
        adopt(&hub, Socket::Stream(Box::new(Broken)), ());
        drop(connect(&hub, Permit).await);
        while hub.counters().sse.load(Ordering::Relaxed) > 0
            || hub.counters().writes.load(Ordering::Relaxed) == 0
        {
            tokio::task::yield_now().await;
        }
        serve(&hub).await;
        served.await.unwrap();
    });
}
