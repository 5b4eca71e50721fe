//! A closed loop: what came back is sent again.

use super::clients::{Clients, check_length};
use super::connect::echoing;
use super::system::Usage;
use super::wire::{Kind, Message};
use super::{Result, Target};
use clap::Args;
use serde_json::{Value, json};
use std::time::Instant;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    #[arg(long, value_enum, default_value = "binary")]
    kind: Kind,
    #[arg(long, default_value_t = 20)]
    size: usize,
    /// Messages in flight on each connection.
    #[arg(long, default_value_t = 1)]
    depth: usize,
}

pub(super) fn run(options: &Options) -> Result<Value> {
    let message = Message::new(options.kind, options.size)?;
    let streams = echoing(&options.target, "/echo", &message)?;
    let mut clients = Clients::new(streams, &message, options.depth)?;
    for client in 0..clients.len() {
        clients.send(client, options.depth)?;
    }
    let begin = Instant::now() + options.target.warm();
    while Instant::now() < begin {
        turn(&mut clients)?;
    }
    let (before, writes, payload) = (Usage::now(&options.target.pids)?, clients.writes, clients.payload());
    let end = Instant::now() + options.target.seconds();
    let mut messages = 0;
    while Instant::now() < end {
        messages += turn(&mut clients)?;
    }
    let after = Usage::now(&options.target.pids)?;
    let mut result = before.until(&after, messages, clients.writes - writes)?;
    let payload = clients.payload() - payload + clients.len() as u64 * options.size as u64;
    check_length(&message, payload, messages)?;
    result["sent_bytes"] = json!(message.frame.len());
    Ok(result)
}

fn turn(clients: &mut Clients) -> Result<u64> {
    let mut messages = 0;
    for ready in clients.wait(500)? {
        if ready.writable {
            clients.flush(ready.client)?;
        }
        if ready.readable {
            let came = clients.receive(ready.client)?;
            if came > 0 {
                clients.send(ready.client, came)?;
                messages += came as u64;
            }
        }
    }
    Ok(messages)
}
