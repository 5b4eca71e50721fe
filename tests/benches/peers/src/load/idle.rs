//! Connections that only exist. After each line that comes on standard input it goes one step further, and says which:
//! all open; all have echoed a message; all closed.

use super::connect::{try_echo, websocket};
use super::wire::{Kind, Message};
use super::{Result, Target};
use clap::Args;
use serde_json::{Value, json};
use std::io::stdin;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    #[arg(long, value_enum, default_value = "binary")]
    kind: Kind,
    #[arg(long, default_value_t = 1024)]
    size: usize,
    #[arg(long, default_value = "/echo")]
    path: String,
    /// They send nothing, because nothing is echoed there.
    #[arg(long)]
    silent: bool,
}

pub(super) fn run(options: &Options) -> Result<Value> {
    let message = Message::new(options.kind, options.size)?;
    let deflate = options.kind == Kind::Deflate;
    let mut streams = Vec::with_capacity(options.target.connections);
    for n in 0..options.target.connections {
        let stream = websocket(options.target.addr, &options.path, deflate);
        streams.push(stream.map_err(|error| format!("connection {n}: {error}"))?);
    }
    step("open")?;
    if !options.silent {
        for stream in &mut streams {
            try_echo(stream, &message)?;
        }
        step("echoed")?;
    }
    let connections = streams.len();
    drop(streams);
    Ok(json!({ "closed": connections }))
}

fn step(name: &str) -> Result<()> {
    println!("{name}");
    stdin().read_line(&mut String::new())?;
    Ok(())
}
