//! A server, as its clients meet it: a queue of the kernel, a queue of handshakes, and what becomes of those for whom
//! there is no room.

/// Times are in microseconds.
pub(crate) const SECOND: u64 = 1_000_000;

/// What a server can do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    /// Connections that the kernel holds until they are accepted. One more is dropped, and its client's kernel tries again
    /// after 1, 3 and 7 seconds.
    pub(crate) backlog: u64,
    /// Connections accepted in a second.
    pub(crate) accepts: u64,
    /// Handshakes that may be under way. One more is refused.
    pub(crate) handshakes: u64,
    /// Handshakes done in a second.
    pub(crate) rate: u64,
    /// Refused connections that are told so at a time. One more is closed without a word.
    pub(crate) told: u64,
    /// Connections at a time. One more is refused.
    pub(crate) connections: u64,
}

impl Default for Capacity {
    /// The gateway's defaults where it has them, but for the number of connections; and a machine that is a little faster than
    /// the clients may be.
    fn default() -> Self {
        Self {
            backlog: 1024,
            accepts: 60_000,
            handshakes: 1000,
            rate: 25_000,
            told: 64,
            connections: u64::MAX,
        }
    }
}

/// The state of a server that is up.
#[derive(Debug, Default)]
pub(crate) struct Server {
    accepting_until: u64,
    shaking_until: u64,
    /// When each refusal that is being told is over.
    telling: Vec<u64>,
    open: u64,
}

/// What becomes of a connection that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is open at this time.
    Open(u64),
    /// It is told that the server is full.
    Told,
    /// It is closed.
    Closed,
}

impl Server {
    /// A connection arrives; when it is accepted, or `None` when it is dropped.
    pub(crate) fn arrive(&mut self, now: u64, capacity: &Capacity) -> Option<u64> {
        let each = SECOND / capacity.accepts;
        let begin = self.accepting_until.max(now);
        if (begin - now) / each >= capacity.backlog {
            return None;
        }
        self.accepting_until = begin + each;
        Some(self.accepting_until)
    }

    /// It is accepted. `round_trip` is how long the client takes to hear and to answer.
    pub(crate) fn admit(&mut self, now: u64, round_trip: u64, capacity: &Capacity) -> Admission {
        let each = SECOND / capacity.rate;
        let begin = self.shaking_until.max(now);
        if (begin - now) / each < capacity.handshakes && self.open < capacity.connections {
            self.shaking_until = begin + each;
            self.open += 1;
            return Admission::Open(self.shaking_until);
        }
        self.telling.retain(|until| *until > now);
        if (self.telling.len() as u64) < capacity.told {
            self.telling.push(now + round_trip);
            return Admission::Told;
        }
        Admission::Closed
    }
}
