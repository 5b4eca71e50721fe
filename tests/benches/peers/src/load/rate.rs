//! An open loop: messages are due at fixed times, whatever the server does, and their delay counts from then
//! (otherwise a server that stalls would be asked less often just while it is slow).

use super::clients::Clients;
use super::connect::echoing;
use super::system::Usage;
use super::wire::{Kind, Message};
use super::{Result, Target, percentile};
use clap::Args;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 20)]
    size: usize,
    /// Messages in a second, over all connections in turn.
    #[arg(long, default_value_t = 30_000.0)]
    rate: f64,
}

struct Loop<'a> {
    options: &'a Options,
    clients: Clients,
    /// For each connection, when the messages on their way were due.
    due: Vec<VecDeque<Instant>>,
    begin: Instant,
    sent: u64,
    delays: Vec<Duration>,
}

pub(super) fn run(options: &Options) -> Result<Value> {
    let message = Message::new(Kind::Binary, options.size)?;
    let streams = echoing(&options.target, "/echo", &message)?;
    let clients = Clients::new(streams, &message, 1)?;
    let due = vec![VecDeque::new(); clients.len()];
    let mut load =
        Loop { options, clients, due, begin: Instant::now(), sent: 0, delays: Vec::with_capacity(1 << 20) };
    let measured = load.begin + options.target.warm();
    load.run_until(measured)?;
    load.delays.clear();
    let (before, writes) = (Usage::now(&options.target.pids)?, load.clients.writes);
    let sent = load.sent;
    load.run_until(measured + options.target.seconds())?;
    let after = Usage::now(&options.target.pids)?;
    let came = load.delays.len() as u64;
    let mut result = before.until(&after, came, load.clients.writes - writes)?;
    // Those that are late count, too.
    let (sent, patience) = (load.sent - sent, Instant::now() + Duration::from_secs(2));
    while load.due.iter().any(|due| !due.is_empty()) {
        if Instant::now() > patience {
            return Err(format!("{came} of {sent} messages came back in time").into());
        }
        load.receive()?;
    }
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
        result[name] = json!(percentile(&mut load.delays, share));
    }
    Ok(result)
}

impl Loop<'_> {
    fn run_until(&mut self, end: Instant) -> Result<()> {
        let gap = 1.0 / self.options.rate;
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            // A few at a time, so that what comes back does not wait for a long row of sends.
            for _ in 0..8 {
                let due = self.begin + Duration::from_secs_f64(self.sent as f64 * gap);
                if due > now {
                    break;
                }
                let client = (self.sent % self.due.len() as u64) as usize;
                self.due[client].push_back(due);
                self.clients.send(client, 1)?;
                self.sent += 1;
            }
            self.receive()?;
        }
    }

    /// Never sleeps: the next message may be due at once.
    fn receive(&mut self) -> Result<()> {
        for ready in self.clients.wait(0)? {
            if ready.writable {
                self.clients.flush(ready.client)?;
            }
            if ready.readable {
                let came = self.clients.receive(ready.client)?;
                let now = Instant::now();
                let due = &mut self.due[ready.client];
                self.delays
                    .extend(due.drain(..came.min(due.len())).map(|due| now.saturating_duration_since(due)));
            }
        }
        Ok(())
    }
}
