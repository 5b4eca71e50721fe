//! How long others on the shard wait.

use longwire::net::NetStream;
use longwire::websocket::{Event, WebSocket};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Echoes and heartbeats.
type Samples = (Vec<Duration>, Vec<Duration>);

/// Measures echo and heartbeat in turn, with a pause between two, until it is over.
pub(crate) fn spawn(
    session: impl Future<Output = WebSocket<NetStream>> + Send + 'static,
    pace: Duration,
    over: Arc<AtomicBool>,
) -> JoinHandle<Samples> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { probe(session.await, pace, &over).await })
    })
}

async fn probe(mut socket: WebSocket<NetStream>, pace: Duration, over: &AtomicBool) -> Samples {
    let (mut echo, mut heartbeat) = (Vec::new(), Vec::new());
    for n in 1u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let begun = Instant::now();
        let message = format!(r#"{{"type":"pub","n":{n},"topic":"bench/echo","data":0}}"#);
        socket.send_text(&message).await.expect("the prober's connection holds");
        heard(&mut socket, |event| matches!(event, Event::Text(text) if text.as_str().contains("\"ack\"")))
            .await;
        echo.push(begun.elapsed());
        tokio::time::sleep(pace).await;
        let begun = Instant::now();
        socket.ping(b"?").await.expect("the prober's connection holds");
        heard(&mut socket, |event| matches!(event, Event::Pong(b"?"))).await;
        heartbeat.push(begun.elapsed());
        tokio::time::sleep(pace).await;
    }
    (echo, heartbeat)
}

async fn heard(socket: &mut WebSocket<NetStream>, mut awaited: impl FnMut(&Event<'_>) -> bool) {
    while !awaited(&socket.recv().await.expect("it is open").expect("it holds")) {}
}

/// Times, in order.
pub(crate) struct Quantiles(Vec<Duration>);

impl Quantiles {
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    fn at(&self, share: f64) -> f64 {
        let at = self.0.get((self.0.len() as f64 * share) as usize).or(self.0.last());
        at.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    /// The middle, and all but a hundredth.
    pub(crate) fn short(&self) -> String {
        format!("{:.2}, {:.2} ms", self.at(0.5), self.at(0.99))
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99, max) = (self.at(0.5), self.at(0.99), self.at(1.0));
        write!(f, "p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms ({} samples)", self.0.len())
    }
}
