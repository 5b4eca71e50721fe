//! The peer that the Autobahn test suite talks to: it echoes what it is sent, as a server or as a client.
//!
//! ```text
//! autobahn-peer server (plain|small) (whole|chunks)               says where it listens, and serves until it is killed
//! autobahn-peer client (plain|small) (whole|chunks) ADDRESS AGENT goes through the cases of the suite's server
//! ```
//!
//! [`plain`] is longwire's WebSocket for tokio as anybody would use it. [`small`] drives the core by hand, over a
//! blocking socket and with the smallest buffers that the core allows.

mod deflate;
mod plain;
mod small;

use longwire_core::ws::Delivery;
use std::process::ExitCode;

/// Whatever ends a connection, for a line of the log: that cases fail is the suite's to say.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// The longest message of the suite (cases 9.1.6 and 9.2.6).
const MAX_MESSAGE: u64 = 16 << 20;

/// A way to use longwire.
trait Peer {
    /// As a server: says where it listens, and echoes messages until the process is killed.
    fn serve(&self) -> Result<(), Error>;

    /// As a client: the text that comes for this target, before the server closes the connection.
    fn fetch(&self, address: &str, target: &str) -> Result<String, Error>;

    /// As a client: echoes messages until the connection ends.
    fn echo(&self, address: &str, target: &str) -> Result<(), Error>;
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [role, buffers, delivery, rest @ ..] = &arguments[..] else { return usage() };
    let delivery = match *delivery {
        "whole" => Delivery::Whole,
        "chunks" => Delivery::Chunks,
        _ => return usage(),
    };
    let peer: Box<dyn Peer> = match *buffers {
        "plain" => Box::new(plain::Plain::new(delivery)),
        "small" => Box::new(small::Small::new(delivery)),
        _ => return usage(),
    };
    let result = match (*role, rest) {
        ("server", []) => peer.serve(),
        ("client", [address, agent]) => all_cases(&*peer, address, agent),
        _ => return usage(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: autobahn-peer (server|client) (plain|small) (whole|chunks) [ADDRESS AGENT]");
    ExitCode::from(2)
}

/// The protocol of the suite's server: how many cases there are, each of them, and at the end its report.
fn all_cases(peer: &dyn Peer, address: &str, agent: &str) -> Result<(), Error> {
    let count: u32 = peer.fetch(address, "/getCaseCount")?.parse()?;
    for case in 1..=count {
        // That a connection fails is what many cases are about.
        if let Err(error) = peer.echo(address, &format!("/runCase?case={case}&agent={agent}")) {
            eprintln!("case {case}: {error}");
        }
    }
    peer.fetch(address, &format!("/updateReports?agent={agent}"))?;
    Ok(())
}
