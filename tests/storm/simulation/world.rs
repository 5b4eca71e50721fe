//! Many clients and one server that goes away and comes back, under virtual time.
//!
//! Events happen in the order of their times, and all chance comes from one seed: the same story ends the same way.

use super::client::{Cause, Client, Rule};
use super::dice::Dice;
use super::server::{Admission, Capacity, SECOND, Server};
use longwire_core::time::Instant;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// When the server goes away. Until then all clients were connected, for longer than any window.
const CUT: u64 = 1000 * SECOND;
/// A client's kernel gives up a connection that is not answered, or the client does.
const CONNECT_TIMEOUT: u64 = 10 * SECOND;
/// When a kernel repeats what was not answered.
const AGAIN: [u64; 3] = [SECOND, 3 * SECOND, 7 * SECOND];
/// The way from a client to the server and back, at most, and at least.
const ROUND_TRIP: (u64, u64) = (1_000, 40_000);
/// After that the story is over, whoever has no connection.
const PATIENCE: u64 = 300 * SECOND;

/// How the server goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With a `bye`, which says the window.
    Graceful,
    /// Without a word.
    Killed,
}

/// What happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Story {
    pub(crate) clients: u32,
    pub(crate) rule: Rule,
    pub(crate) end: End,
    /// How long nobody listens: connections are refused by the kernel.
    pub(crate) away: Duration,
    /// Over which clients are to come back.
    pub(crate) window: Duration,
    pub(crate) capacity: Capacity,
    pub(crate) seed: u64,
}

/// How it went. Times count in milliseconds from the moment at which the server went away.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// When connections were attempted, in order.
    pub(crate) attempts: Vec<u32>,
    /// When clients were connected again, in order.
    pub(crate) connected: Vec<u32>,
    /// Attempts when nobody listened.
    pub(crate) nobody: u64,
    /// Attempts that were told 503.
    pub(crate) told: u64,
    /// Attempts that were closed without a word.
    pub(crate) closed: u64,
    /// Connection requests that the kernel dropped.
    pub(crate) dropped: u64,
}

impl Outcome {
    /// The most attempts in any second.
    pub(crate) fn peak(&self) -> usize {
        let mut first = 0;
        let peak = self.attempts.iter().enumerate().map(|(last, at)| {
            while at - self.attempts[first] >= 1000 {
                first += 1;
            }
            last + 1 - first
        });
        peak.max().unwrap_or(0)
    }

    /// When this part of all clients (in thousandths) was connected again; `None` when it never was.
    pub(crate) fn recovered(&self, clients: u32, thousandths: u32) -> Option<Duration> {
        let nth = (u64::from(clients) * u64::from(thousandths)).div_ceil(1000) as usize;
        self.connected.get(nth.saturating_sub(1)).map(|at| Duration::from_millis((*at).into()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The client has no connection.
    Ended(Why),
    /// It tries.
    Attempt,
    /// What it sent is with the server, for the nth time.
    Arrived(usize),
    Accepted,
    Connected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    Bye,
    Silence,
    Full,
}

struct World {
    story: Story,
    dice: Dice,
    clients: Vec<(Client, u64)>,
    server: Server,
    /// By time, then in the order in which they were planned.
    events: BinaryHeap<Reverse<(u64, u64, u32, Event)>>,
    planned: u64,
    outcome: Outcome,
}

/// Tells the story.
pub(crate) fn run(story: Story) -> Outcome {
    let mut world = World {
        dice: Dice::new(story.seed),
        clients: Vec::new(),
        server: Server::default(),
        events: BinaryHeap::new(),
        planned: 0,
        outcome: Outcome::default(),
        story,
    };
    world.begin();
    while let Some(Reverse((at, _, client, event))) = world.events.pop() {
        if at > CUT + PATIENCE {
            break;
        }
        world.happen(at, client, event);
    }
    world.outcome
}

impl World {
    fn begin(&mut self) {
        for number in 0..self.story.clients {
            let (least, most) = ROUND_TRIP;
            let round_trip = least + self.dice.up_to(most - least);
            self.clients.push((Client::new(self.story.rule, number), round_trip));
            self.connect(number, 0);
            let why = if self.story.end == End::Graceful { Why::Bye } else { Why::Silence };
            self.plan(CUT + round_trip / 2, number, Event::Ended(why));
        }
    }

    fn plan(&mut self, at: u64, client: u32, event: Event) {
        self.planned += 1;
        self.events.push(Reverse((at, self.planned, client, event)));
    }

    /// One to two windows, as the server tells those that do as they are told; a server that has no window says 1 s.
    fn told(&mut self, least: Duration) -> Duration {
        if self.story.rule != Rule::Longwire {
            return Duration::from_secs(1);
        }
        let window = self.story.window;
        least.max(window) + Duration::from_millis(self.dice.up_to(window.as_millis() as u64))
    }

    fn connect(&mut self, client: u32, now: u64) {
        let retry = self.told(Duration::from_secs(2));
        let window = (self.story.rule == Rule::Longwire).then_some(self.story.window);
        self.clients[client as usize].0.connected(instant(now), window, retry);
    }

    fn is_away(&self, now: u64) -> bool {
        (CUT..CUT + self.story.away.as_micros() as u64).contains(&now)
    }

    fn happen(&mut self, now: u64, client: u32, event: Event) {
        let round_trip = self.clients[client as usize].1;
        let since = ((now - CUT) / 1000) as u32;
        match event {
            Event::Ended(why) => {
                let cause = match why {
                    Why::Bye if self.story.rule == Rule::Longwire => Cause::Bye(self.story.window),
                    Why::Bye | Why::Silence => Cause::Silence,
                    Why::Full => Cause::Full(self.told(Duration::from_secs(1))),
                };
                let wait = self.clients[client as usize].0.wait(instant(now), cause, &mut self.dice);
                self.plan(now + wait.as_micros() as u64, client, Event::Attempt);
            }
            Event::Attempt => {
                self.outcome.attempts.push(since);
                self.plan(now + round_trip / 2, client, Event::Arrived(0));
            }
            Event::Arrived(_) if self.is_away(now) => {
                self.outcome.nobody += 1;
                self.plan(now + round_trip / 2, client, Event::Ended(Why::Silence));
            }
            Event::Arrived(times) => {
                match (self.server.arrive(now, &self.story.capacity), AGAIN.get(times)) {
                    (Some(accepted), _) => self.plan(accepted, client, Event::Accepted),
                    (None, again) => {
                        self.outcome.dropped += 1;
                        let earlier = times.checked_sub(1).map_or(0, |last| AGAIN[last]);
                        match again {
                            Some(again) => {
                                self.plan(now + again - earlier, client, Event::Arrived(times + 1))
                            }
                            None => {
                                self.plan(
                                    now + CONNECT_TIMEOUT - earlier,
                                    client,
                                    Event::Ended(Why::Silence),
                                );
                            }
                        }
                    }
                }
            }
            Event::Accepted => match self.server.admit(now, round_trip, &self.story.capacity) {
                Admission::Open(at) => self.plan(at + round_trip / 2, client, Event::Connected),
                Admission::Told => {
                    self.outcome.told += 1;
                    self.plan(now + round_trip, client, Event::Ended(Why::Full));
                }
                Admission::Closed => {
                    self.outcome.closed += 1;
                    self.plan(now + round_trip / 2, client, Event::Ended(Why::Silence));
                }
            },
            Event::Connected => {
                self.outcome.connected.push(since);
                self.connect(client, now);
            }
        }
    }
}

fn instant(micros: u64) -> Instant {
    Instant::from_millis(micros / 1000)
}
