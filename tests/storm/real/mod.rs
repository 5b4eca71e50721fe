//! The storm, for real: a gateway, thousands of its clients, and the moment at which all of them lose their connections.

pub(crate) mod gateway;
pub(crate) mod readers;
pub(crate) mod relay;

use gateway::{Gateway, Numbers};
use readers::{Book, Readers};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What happens to all clients at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Story {
    /// SIGKILL, and started again: the log is gone.
    Killed,
    /// SIGTERM, at which it says `bye` and ends, and started again: the log is gone.
    Stopped,
    /// Their connections are cut on the way; the gateway and its log stay.
    Cut,
}

/// How it is told.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) connections: usize,
    /// Events a second.
    pub(crate) rate: f64,
    /// The gateway's reconnect window.
    pub(crate) window: Duration,
    /// Further options of `longwire serve`.
    pub(crate) options: Vec<String>,
    /// How long it may take until all are back.
    pub(crate) patience: Duration,
}

/// Connections that pass through this are cut together.
pub(crate) trait Relays {
    /// Starts to relay to a gateway; where.
    fn start(&mut self, gateway: SocketAddr) -> Vec<SocketAddr>;
    /// Cuts all of them, and takes new ones.
    fn cut(&mut self);
}

/// How it went. Times count from the moment of the cut.
#[derive(Debug)]
pub(crate) struct Figures {
    /// Attempts and connections that were made, in each second.
    pub(crate) attempts: Vec<usize>,
    pub(crate) connected: Vec<usize>,
    /// Until somebody listened again.
    pub(crate) listening: Duration,
    /// Until each reader had what it missed, in order.
    pub(crate) back: Vec<Duration>,
    /// The gateway's processor time until then.
    pub(crate) cpu: Duration,
    /// The memory of the gateway and of this process with all readers.
    pub(crate) resident: (u64, u64),
    /// Sums over all readers.
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) resets: u64,
    pub(crate) gaps: u64,
    /// Why readers waited, and how many.
    pub(crate) waited: BTreeMap<String, usize>,
}

/// Tells a story. It ends when every reader is back and has seen the last number.
pub(crate) async fn tell(story: Story, setting: &Setting, relays: &mut impl Relays) -> Figures {
    let mut options = setting.options.clone();
    options.extend(["--reconnect-window".to_owned(), format!("{}ms", setting.window.as_millis())]);
    let mut gateway = Gateway::start(None, options);
    let addresses = match story {
        Story::Cut => relays.start(gateway.address),
        Story::Killed | Story::Stopped => vec![gateway.address],
    };
    let urls: Vec<_> = addresses.iter().map(|address| format!("http://{address}")).collect();
    let numbers = Numbers::start(gateway.address, setting.rate);
    let readers = Readers::start(setting.connections, &urls, setting.window);
    readers.wait("begun", setting.patience, |book| !book.caught_up.is_empty()).await;
    // A connection that ends before it has lived for a window is another story.
    tokio::time::sleep(setting.window).await;
    let resident = (gateway.program.resident(), resident());

    let cpu = gateway.cpu();
    let cut = Instant::now();
    let before = match story {
        Story::Killed => {
            gateway = gateway.restart();
            Duration::ZERO
        }
        Story::Stopped => {
            gateway.program.terminate();
            gateway.program.wait_within(setting.patience);
            gateway = gateway.restart();
            Duration::ZERO
        }
        Story::Cut => {
            relays.cut();
            cpu
        }
    };
    let listening = cut.elapsed();
    let is_back = |book: &Book| book.caught_up.last().is_some_and(|at| *at > cut);
    readers.wait("back", setting.patience, is_back).await;
    let cpu = gateway.cpu() - before;
    let last = numbers.stop().await;
    readers.wait("at the last event", setting.patience, |book| book.last() == last).await;
    figures(&readers, cut, listening, cpu, resident)
}

fn figures(
    readers: &Readers,
    cut: Instant,
    listening: Duration,
    cpu: Duration,
    resident: (u64, u64),
) -> Figures {
    let mut figures = Figures {
        attempts: Vec::new(),
        connected: Vec::new(),
        listening,
        back: Vec::new(),
        cpu,
        resident,
        lost: 0,
        repeated: 0,
        resets: 0,
        gaps: 0,
        waited: BTreeMap::new(),
    };
    for book in readers.books() {
        for (times, seconds) in
            [(&book.attempts, &mut figures.attempts), (&book.connected, &mut figures.connected)]
        {
            for second in times.iter().filter_map(|at| at.checked_duration_since(cut)) {
                let second = second.as_secs() as usize;
                seconds.resize(seconds.len().max(second + 1), 0);
                seconds[second] += 1;
            }
        }
        // The first time is the one that counts: nobody is cut off twice.
        figures.back.extend(book.caught_up.iter().find_map(|at| at.checked_duration_since(cut)));
        figures.lost += book.lost;
        figures.repeated += book.repeated;
        figures.resets += book.resets;
        figures.gaps += book.gaps;
        for why in &book.waited {
            *figures.waited.entry(why.clone()).or_default() += 1;
        }
    }
    figures.back.sort_unstable();
    figures
}

impl Figures {
    /// When this part of all readers, in thousandths, was back.
    fn back(&self, thousandths: usize) -> Duration {
        self.back[(self.back.len() * thousandths).div_ceil(1000) - 1]
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        let [median, most, last] = [500, 990, 1000].map(|part| seconds(self.back(part)));
        let (gateway, readers) = self.resident;
        writeln!(f, "  attempts in each second   {:?}", self.attempts)?;
        writeln!(f, "  connected in each second  {:?}", self.connected)?;
        writeln!(f, "  who can be reached again  after {}", seconds(self.listening))?;
        writeln!(f, "  back with what was missed median {median}, 99 % {most}, last {last}")?;
        writeln!(f, "  gateway's processor time  {}", seconds(self.cpu))?;
        writeln!(
            f,
            "  memory                    gateway {} MiB, readers {} MiB",
            gateway >> 20,
            readers >> 20
        )?;
        writeln!(f, "  events                    {} lost, {} repeated", self.lost, self.repeated)?;
        writeln!(f, "  gaps told                 {} with reset, {} others", self.resets, self.gaps)?;
        writeln!(f, "  why readers waited        {:?}", self.waited)
    }
}

/// Bytes of memory that this process occupies.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = status.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096
}
