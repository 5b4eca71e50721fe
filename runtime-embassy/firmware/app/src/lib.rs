//! What every board of longwire's example firmware does once it has a network.
//!
//! A board is a driver for its network and a `main`; everything else is here.
#![no_std]

mod settings;
pub mod stack;

use core::fmt;

use embassy_net::{Stack, tcp::TcpSocket};
use embassy_time::{Duration, Instant};
pub use settings::Settings;

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As many readings were acknowledged as the settings asked for.
    Done,
}

/// Temporary: echoes lines.
pub async fn run<R>(
    net: Stack<'_>,
    settings: &Settings<'_>,
    _rng: R,
    stack: stack::Stack,
    mut log: impl FnMut(fmt::Arguments<'_>),
) -> Outcome {
    let (mut rx, mut tx) = ([0; 512], [0; 512]);
    net.wait_config_up().await;
    log(format_args!("up at {} ms, {} bytes of stack free", Instant::now().as_millis(), stack.free()));
    let mut socket = TcpSocket::new(net, &mut rx, &mut tx);
    socket.set_timeout(Some(Duration::from_secs(5)));
    if let Err(e) = socket.connect((settings.host, settings.port)).await {
        log(format_args!("connect: {e:?}"));
    }
    for n in 0..settings.readings.unwrap_or(20) {
        let t = Instant::now();
        let mut back = [0; 8];
        socket.write(&n.to_le_bytes()).await.ok();
        let len = socket.read(&mut back).await.unwrap_or(0);
        log(format_args!("{n}: {len} {:?} {} us", &back[..len], t.elapsed().as_micros()));
        embassy_time::Timer::after_millis(100).await;
    }
    log(format_args!("end at {} ms, {} bytes of stack free", Instant::now().as_millis(), stack.free()));
    Outcome::Done
}
