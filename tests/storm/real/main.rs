//! A real storm on this machine: see `tests/storm/README.md`.
//!
//!     cargo run --release -p longwire-tests --example storm -- [--connections N] [--window SECONDS] [--rate PER_SECOND]
//!         [--story killed|stopped|cut] [-- OPTIONS OF longwire serve]

#[path = "mod.rs"]
mod real;

use longwire_tests::process::Program;
use real::relay::relay;
use real::{Relays, Setting, Story, tell};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;
use tokio::net::TcpListener;

const STORIES: [(&str, Story); 3] =
    [("killed", Story::Killed), ("stopped", Story::Stopped), ("cut", Story::Cut)];

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut arguments = std::env::args().skip(1);
    let mut setting = Setting {
        connections: 10_000,
        rate: 2.0,
        window: Duration::from_secs(5),
        options: Vec::new(),
        patience: Duration::from_secs(120),
    };
    let mut told = STORIES.to_vec();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            setting.options.extend(arguments.by_ref());
            break;
        }
        let value = arguments.next().unwrap_or_else(|| panic!("{argument} takes a value"));
        let number = || value.parse::<f64>().unwrap_or_else(|_| panic!("{argument} takes a number"));
        match argument.as_str() {
            "--relay" => return runtime.block_on(relay_to(value.clone(), arguments.next())),
            "--connections" => setting.connections = number() as usize,
            "--window" => setting.window = Duration::from_secs_f64(number()),
            "--rate" => setting.rate = number(),
            "--story" => told.retain(|(name, _)| *name == value),
            _ => panic!("no option {argument}"),
        }
    }
    // Room for the publisher, and for those who have not gone yet when others come.
    let places = (setting.connections + setting.connections / 5 + 100).to_string();
    setting.options.splice(0..0, ["--max-connections".to_owned(), places]);
    println!("{setting:?}");
    for (name, story) in told {
        let figures = runtime.block_on(tell(story, &setting, &mut Processes::default()));
        println!("\n{name}\n{figures}");
        assert_eq!((figures.lost, figures.repeated), (0, 0), "events lost, events repeated");
    }
}

/// Relays that are processes of their own: each has a limit on open files of its own.
#[derive(Default)]
struct Processes(Vec<(Program, SocketAddr, SocketAddr)>);

impl Processes {
    const COUNT: usize = 2;

    fn launch(listen: &str, target: SocketAddr) -> (Program, SocketAddr, SocketAddr) {
        let mut command = Command::new(std::env::current_exe().expect("this program is a file"));
        let program = Program::start(command.args(["--relay", listen, &target.to_string()]));
        let address = program.wait_for("address", |line| line.parse().ok());
        (program, address, target)
    }
}

impl Relays for Processes {
    fn start(&mut self, gateway: SocketAddr) -> Vec<SocketAddr> {
        self.0 = (0..Self::COUNT).map(|_| Self::launch("127.0.0.1:0", gateway)).collect();
        self.0.iter().map(|(_, address, _)| *address).collect()
    }

    fn cut(&mut self) {
        let gone = std::mem::take(&mut self.0);
        let places: Vec<_> = gone.iter().map(|(_, address, target)| (*address, *target)).collect();
        // All are killed before the first comes back.
        drop(gone);
        let back = places.iter().map(|(address, target)| Self::launch(&address.to_string(), *target));
        self.0 = back.collect();
    }
}

/// What such a process does.
async fn relay_to(listen: String, target: Option<String>) {
    let listener = TcpListener::bind(listen).await.expect("a free address");
    println!("{}", listener.local_addr().expect("it is bound"));
    let target = target.and_then(|target| target.parse().ok()).expect("--relay LISTEN TARGET");
    let (_never, cuts) = tokio::sync::mpsc::channel(1);
    relay(listener, target, cuts).await;
}
