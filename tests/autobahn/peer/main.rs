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

/// What the suite's client needs.
trait Server {
    /// Says where it listens, and serves until the process is killed.
    fn serve(&self) -> Result<(), Error>;
}

/// What the suite's server needs.
trait Client {
    /// The text that comes for this target, before the server closes the connection.
    fn fetch(&self, address: &str, target: &str) -> Result<String, Error>;

    /// Echoes messages until the connection ends.
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
    let (plain, small) = (plain::Peer::new(delivery), small::Peer::new(delivery));
    let (server, client): (&dyn Server, &dyn Client) = match *buffers {
        "plain" => (&plain, &plain),
        "small" => (&small, &small),
        _ => return usage(),
    };
    let result = match (*role, rest) {
        ("server", []) => server.serve(),
        ("client", [address, agent]) => all_cases(client, address, agent),
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
fn all_cases(client: &dyn Client, address: &str, agent: &str) -> Result<(), Error> {
    let count: u32 = client.fetch(address, "/getCaseCount")?.parse()?;
    for case in 1..=count {
        // That a connection fails is what many cases are about.
        if let Err(error) = client.echo(address, &format!("/runCase?case={case}&agent={agent}")) {
            eprintln!("case {case}: {error}");
        }
    }
    client.fetch(address, &format!("/updateReports?agent={agent}"))?;
    Ok(())
}
