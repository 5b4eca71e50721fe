//! A model of the gateway: the core's server side of a WebSocket, its memory of publishers, and a log that forgets
//! nothing that it was ever told.

use std::collections::HashMap;

use longwire_core::session::publisher::{Incarnation, Number, Taken};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use smoltcp::wire::IpAddress;

use crate::dice::Dice;
use crate::session::Session;
use crate::stack::Stack;

/// Where the gateway listens.
pub(crate) const ENDPOINT: (IpAddress, u16) = (IpAddress::v4(10, 0, 0, 1), 80);

/// Connections that it has at a time; half-open ones count.
const SLOTS: usize = 8;

/// How a gateway behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Whether its log is there again after a restart, with the numbers that were taken.
    pub(crate) keeps: bool,
    /// Publications that a connection may have unanswered.
    pub(crate) max_in_flight: u64,
    /// Microseconds after which an acknowledgement is sent at the latest.
    pub(crate) ack_within: u64,
    /// By how many of a thousand publications it refuses for now.
    pub(crate) refuses: u64,
}

/// A publication that was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// In which log: a restart may begin a new one.
    pub(crate) log: u32,
    pub(crate) incarnation: Incarnation,
    pub(crate) n: u64,
    pub(crate) value: u32,
}

/// What becomes of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Taken,
    /// Not now.
    Later,
    /// Its number lies before the window.
    OutOfWindow,
}

/// What is behind all connections.
pub(crate) struct Log {
    pub(crate) rules: Rules,
    pub(crate) dice: Dice,
    current: u32,
    taken: HashMap<u64, Taken>,
    pub(crate) stored: Vec<Stored>,
    /// Publications that were taken before, and came again.
    pub(crate) repeats: u64,
    pub(crate) refused: u64,
    /// What the device must never do.
    pub(crate) violation: Option<String>,
}

impl Log {
    pub(crate) fn publish(&mut self, incarnation: Incarnation, n: u64, value: u32) -> Answer {
        let taken = self.taken.entry(incarnation.0).or_default();
        match taken.look(n) {
            Number::OutOfWindow => return Answer::OutOfWindow,
            Number::Repeated => self.repeats += 1,
            Number::New if self.dice.happens(self.rules.refuses) => {
                self.refused += 1;
                return Answer::Later;
            }
            Number::New => {
                taken.take(n);
                self.stored.push(Stored { log: self.current, incarnation, n, value });
            }
        }
        Answer::Taken
    }

    pub(crate) fn largest(&self, incarnation: Incarnation) -> Option<u64> {
        self.taken.get(&incarnation.0).and_then(Taken::largest)
    }
}

struct Slot {
    handle: SocketHandle,
    session: Option<Session>,
}

/// The gateway, and the machine that it runs on.
pub(crate) struct Gateway {
    pub(crate) stack: Stack,
    pub(crate) log: Log,
    slots: Vec<Slot>,
    /// Whether the process runs.
    runs: bool,
    pub(crate) connections: u64,
}

impl Gateway {
    pub(crate) fn new(rules: Rules, mut dice: Dice) -> Self {
        let stack = Stack::new(ENDPOINT.0, dice.next(), 0);
        let log = Log {
            rules,
            dice,
            current: 0,
            taken: HashMap::new(),
            stored: Vec::new(),
            repeats: 0,
            refused: 0,
            violation: None,
        };
        let mut gateway = Self { stack, log, slots: Vec::new(), runs: true, connections: 0 };
        gateway.open();
        gateway
    }

    fn open(&mut self) {
        let slot = |stack: &mut Stack| Slot { handle: stack.add(2048, 2048), session: None };
        self.slots = (0..SLOTS).map(|_| slot(&mut self.stack)).collect();
    }

    /// The process says goodbye on every connection, and asks to come back after `retry_after`, within `window` microseconds.
    pub(crate) fn bye(&mut self, now: u64, retry_after: u64, window: u64) {
        for session in self.slots.iter_mut().filter_map(|slot| slot.session.as_mut()) {
            session.bye(now, retry_after, window);
        }
    }

    /// The process dies: the kernel resets its connections, and refuses new ones.
    pub(crate) fn kill(&mut self) {
        self.runs = false;
        for slot in &mut self.slots {
            slot.session = None;
            self.stack.socket(slot.handle).abort();
        }
    }

    /// The machine loses its power, and forgets everything that its network knew.
    pub(crate) fn lose_power(&mut self, now: u64) {
        self.runs = false;
        self.stack = Stack::new(ENDPOINT.0, self.log.dice.next(), now);
        self.open();
    }

    /// The process runs again.
    pub(crate) fn start(&mut self) {
        self.runs = true;
        if !self.log.rules.keeps {
            self.log.current += 1;
            self.log.taken.clear();
        }
    }

    /// Works off what came to the sockets. To be called until the stack has nothing new.
    pub(crate) fn turn(&mut self, now: u64) {
        if !self.runs {
            return;
        }
        for slot in &mut self.slots {
            let socket = self.stack.socket(slot.handle);
            match socket.state() {
                State::Closed => {
                    slot.session = None;
                    socket.listen(ENDPOINT.1).expect("a closed socket can listen");
                }
                State::Listen | State::SynReceived | State::TimeWait => slot.session = None,
                _ => {
                    let session = slot.session.get_or_insert_with(|| {
                        self.connections += 1;
                        Session::new(now)
                    });
                    self.stack.touched |= session.turn(self.stack.socket(slot.handle), &mut self.log, now);
                }
            }
        }
    }

    /// When it wants a turn.
    pub(crate) fn next(&mut self, now: u64) -> u64 {
        let sessions = self.slots.iter().filter_map(|slot| slot.session.as_ref());
        sessions.map(Session::next).min().unwrap_or(u64::MAX).min(self.stack.next(now))
    }
}
