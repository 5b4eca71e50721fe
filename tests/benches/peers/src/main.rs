//! Small servers on other people's libraries (`peers serve`), and the load that they and longwire are measured with
//! (`peers load`). `tests/benches/peers/run` starts both, and makes tables of what the load prints.

mod load;
mod serve;

use clap::Parser;
use rustix::process::{Resource, getrlimit, setrlimit};

#[derive(Parser)]
#[command(about)]
enum Command {
    /// Serves WebSocket at /echo, /sub and /pub, and events at /sse, in one thread, as far as the library can.
    Serve(serve::Options),
    /// Loads a server and prints one line of JSON.
    #[command(subcommand)]
    Load(load::Mode),
}

fn main() {
    allow_many_files();
    let end = match Command::parse() {
        Command::Serve(options) => serve::run(options),
        Command::Load(mode) => load::run(&mode),
    };
    if let Err(error) = end {
        eprintln!("peers: {error}");
        std::process::exit(1);
    }
}

/// A connection is a file: as many as the system lets this process open.
fn allow_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it is refused, the connections beyond it are, with an error of their own.
    let _ = setrlimit(Resource::Nofile, limit);
}
