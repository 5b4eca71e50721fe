//! The load: one thread that lets the kernel tell it who can be read (epoll), and sends frames that were encoded and
//! masked beforehand. Each connection has had one whole echo compared before anything is measured; from then on frames
//! are told apart and counted, and their lengths compared.
//!
//! What a server costs is read from /proc at the beginning and at the end of the time that counts.

mod clients;
mod connect;
mod echo;
mod fanout;
mod idle;
mod rate;
mod system;
mod wire;

use clap::{Args, Subcommand};
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Subcommand)]
pub(crate) enum Mode {
    /// Each connection has so many messages in flight, and sends one for each that came back.
    Echo(echo::Options),
    /// Messages at a fixed rate; a delay counts from when a message was due, not from when it was sent.
    Rate(rate::Options),
    /// Connections that do nothing, so that the server's memory can be looked at.
    Idle(idle::Options),
    /// One publisher and many readers; a burst is published when all have the one before.
    Fanout(fanout::Options),
}

/// Where to, and for how long.
#[derive(Args)]
struct Target {
    #[arg(long)]
    addr: SocketAddr,
    /// A process of the server; may be repeated.
    #[arg(long = "pid")]
    pids: Vec<u32>,
    #[arg(long, default_value_t = 1)]
    connections: usize,
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Seconds before those that count.
    #[arg(long, default_value_t = 0.2)]
    warm: f64,
}

impl Target {
    fn warm(&self) -> Duration {
        Duration::from_secs_f64(self.warm)
    }

    fn seconds(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

pub(crate) fn run(mode: &Mode) -> std::io::Result<()> {
    let result = match mode {
        Mode::Echo(options) => echo::run(options),
        Mode::Rate(options) => rate::run(options),
        Mode::Idle(options) => idle::run(options),
        Mode::Fanout(options) => fanout::run(options),
    };
    println!("{}", result.map_err(|error| std::io::Error::other(error.to_string()))?);
    Ok(())
}

/// The value below which this share of them lies, in microseconds; sorts them.
fn percentile(values: &mut [Duration], share: f64) -> f64 {
    values.sort_unstable();
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * share).round() as usize).map_or(0.0, |value| value.as_secs_f64() * 1e6)
}
