//! A million connections in one process: what each costs in memory, how long all their heartbeats take, and an event that
//! all of them get.
//!
//! They are the hub's own connections, with its timers, leases and subscriptions, over streams in memory which swallow what is
//! written and answer Pings: what the kernel would take is not in the figures, and what a stream that is no socket takes
//! is. The clock is virtual, so that all heartbeats of an interval come at once.
//!
//! `cargo bench -p longwire --bench idle -- 1000000`
#![allow(clippy::expect_used, reason = "a program that measures says why it cannot, and ends")]

use longwire::hub::{Adoption, Data, Filter, Grant, Hub, HubConfig, Open, Protocol, Socket};
use longwire_core::log::{Pattern, Since, Topic};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::yield_now;
use tokio::time::Instant;

static PINGS: AtomicU64 = AtomicU64::new(0);

/// A peer that reads everything, and answers a Ping at once.
#[derive(Default)]
struct Peer {
    pong: Option<[u8; 4]>,
}

impl AsyncWrite for Peer {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // The hub's own (RFC 6455 section 5.5.2): four bytes of payload, and a `tick` behind it.
        if let [0x89, 0x04, a, b, c, d, ..] = bytes {
            PINGS.fetch_add(1, Ordering::Relaxed);
            self.pong = Some([*a, *b, *c, *d]);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // What has nothing to say wakes nobody either: it is never woken but by its timer.
        let Some(payload) = self.pong.take() else { return Poll::Pending };
        buf.put_slice(&[0x8a, 0x84, 0, 0, 0, 0]);
        buf.put_slice(&payload);
        Poll::Ready(Ok(()))
    }
}

fn main() {
    let number = std::env::args().skip(1).find_map(|argument| argument.parse::<u64>().ok());
    let connections = number.unwrap_or(1_000_000);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build_local(LocalOptions::default())
        .expect("a runtime");
    let config = HubConfig::default();
    let heartbeat = config.heartbeat;
    let (hub, shard) = Hub::local(config, Arc::new(Open)).expect("a hub");
    let served = runtime.spawn_local(shard.run());
    runtime.block_on(async {
        open(&hub, 100).await;
        let base = resident();
        let wall = std::time::Instant::now();
        open(&hub, connections).await;
        say("opened", wall, connections);
        println!("{:>10.0} B a connection", (resident() - base) as f64 / connections as f64);
        for round in 1..=2 {
            let (wall, before) = (std::time::Instant::now(), PINGS.load(Ordering::Relaxed));
            tokio::time::sleep(heartbeat + Duration::from_millis(1)).await;
            let pings = PINGS.load(Ordering::Relaxed) - before;
            assert!(pings >= connections, "{pings} Pings: who did not answer is gone");
            say(&format!("heartbeats, round {round}: {pings} Pings and Pongs"), wall, pings);
        }
        for _ in 0..2 {
            let wall = std::time::Instant::now();
            let topic = Topic::parse("bench/idle").expect("a topic");
            let data = Data::json(format!("\"{}\"", "x".repeat(98)).as_bytes()).expect("JSON");
            let wanted = hub.counters().delivered.load(Ordering::Relaxed) + connections;
            hub.publish(topic, None, data).await.expect("it is taken");
            while hub.counters().delivered.load(Ordering::Relaxed) < wanted {
                yield_now().await;
            }
            say("an event that all get", wall, connections);
        }
        println!("{:>10.0} B a connection", (resident() - base) as f64 / connections as f64);
        let wall = std::time::Instant::now();
        hub.close(Duration::ZERO, Duration::ZERO);
        served.await.expect("the shard ends");
        say("closed", wall, connections);
        println!("{:>10} kB before, {} kB after all have closed", base >> 10, resident() >> 10);
    });
}

/// Hands connections over, and waits until they are there.
async fn open(hub: &Hub, connections: u64) {
    let before = hub.counters().websockets.load(Ordering::Relaxed);
    let filter: Filter = Pattern::parse("bench/idle").into_iter().collect();
    for n in 1..=connections {
        hub.adopt(Adoption {
            subscription: Some((filter.clone(), Since::Now)),
            ..Adoption::new(
                Socket::Stream(Box::new(Peer::default())),
                Protocol::WebSocketJson,
                Grant { expires: Some(Instant::now() + Duration::from_secs(3600)), ..Grant::open() },
            )
        });
        while n % 64 == 0 && hub.counters().websockets.load(Ordering::Relaxed) < before + n {
            yield_now().await;
        }
    }
    while hub.counters().websockets.load(Ordering::Relaxed) < before + connections
        || hub.counters().lagging.load(Ordering::Relaxed) > 0
    {
        yield_now().await;
    }
}

fn say(what: &str, since: std::time::Instant, times: u64) {
    let took = since.elapsed();
    let each = took.as_secs_f64() * 1e9 / times.max(1) as f64;
    println!("{:>10.0} ns each, {:.2} s in all: {what}", each, took.as_secs_f64());
}

/// Bytes of memory that this process occupies.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says it");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") << 10
}
