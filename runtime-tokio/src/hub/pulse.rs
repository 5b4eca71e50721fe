//! Signs of life of a peer that is not heard: one that has nothing to say (SSE), or that is not read for a while
//! because its publications have to wait.
//!
//! A peer that lives acknowledges what it is sent, and every connection is sent something each heartbeat. So the system
//! knows, where it can be asked: Linux, for sockets that are the shard's own. Elsewhere only a peer that takes nothing
//! is noticed, when the socket is full.

use super::socket::Stream;
use longwire_core::time::Instant;
use std::time::Duration;

/// What the system knows of a TCP connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct TcpState {
    /// Since the peer last acknowledged anything.
    pub(super) silent: Duration,
    /// It owes an acknowledgement, or an answer to a probe of its window.
    pub(super) owes: bool,
    /// The smoothed round-trip time; zero before it was measured.
    pub(super) rtt: Duration,
}

/// No moment of a process is as late.
const UNKNOWN: Instant = Instant::from_millis(u64::MAX);

/// When a peer was last known to live.
#[derive(Debug)]
pub(super) struct Pulse {
    /// [`UNKNOWN`]: nobody knows.
    felt: Instant,
}

impl Pulse {
    pub(super) fn new(stream: &Stream, now: Instant) -> Self {
        Self { felt: stream.tcp_state().map_or(UNKNOWN, |_| now) }
    }

    /// When to look again.
    pub(super) fn deadline(&self, patience: Duration) -> Option<Instant> {
        (self.felt != UNKNOWN).then(|| self.felt.after(patience))
    }

    /// Looks, if it is time to: false when the peer has acknowledged nothing for as long as `patience`, and owes it.
    pub(super) fn lives(&mut self, stream: &Stream, now: Instant, patience: Duration) -> bool {
        if self.deadline(patience).is_none_or(|deadline| now < deadline) {
            return true;
        }
        let silent = match stream.tcp_state() {
            Some(state) if state.owes => state.silent,
            // Whatever it was sent has arrived; it is not known when.
            _ => Duration::ZERO,
        };
        let felt = now.since(Instant::default()).saturating_sub(silent);
        self.felt = Instant::default().after(felt);
        silent < patience
    }
}
