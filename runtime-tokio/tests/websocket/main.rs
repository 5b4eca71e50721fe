//! `WebSocket<S>`, `serve` and `ServeSet`: against themselves, tungstenite, and bytes written by hand.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong may stop"
)]

mod cancel;
mod deflate;
mod handshake;
mod interop;
mod serve;
mod set;
mod socket;
#[path = "../wire/mod.rs"]
mod wire;

use longwire::websocket::Config;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, DuplexStream};
use tokio::time::timeout;

/// After this a test has hung.
const LONG: Duration = Duration::from_secs(60);

fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

async fn read(stream: &mut DuplexStream, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    timeout(LONG, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    bytes
}

async fn read_to_end(stream: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}
