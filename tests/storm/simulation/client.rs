//! What clients do when they have no connection (any more).

use super::dice::Dice;
use longwire_core::session::backoff::{Backoff, BackoffConfig, Failure, Verdict};
use longwire_core::time::Instant;
use std::time::Duration;

/// A rule by which all clients come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// `PROTOCOL.md` section 11.1, by the machine that longwire's clients use; and every tenth client is a plain
    /// `EventSource`, which waits for the `retry` that it was told.
    Longwire,
    /// The same machine, but the server never says a window.
    JitterAlone,
    /// 0.5 s, 1 s, 2 s, ... 30 s.
    Exponential,
    /// One second.
    Fixed,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cause {
    /// It ended, or could not be opened, without a word.
    Silence,
    /// `bye` with this window.
    Bye(Duration),
    /// 503 with this `Retry-After`.
    Full(Duration),
}

/// One client.
pub(crate) enum Client {
    Longwire(Backoff),
    EventSource { retry: Duration },
    Exponential { failures: u32 },
    Fixed,
}

impl Client {
    /// The client of this number, before its first connection.
    pub(crate) fn new(rule: Rule, number: u32) -> Self {
        match rule {
            Rule::Longwire if number % 10 == 9 => Self::EventSource { retry: Duration::ZERO },
            Rule::Longwire | Rule::JitterAlone => Self::Longwire(Backoff::new(BackoffConfig::new())),
            Rule::Exponential => Self::Exponential { failures: 0 },
            Rule::Fixed => Self::Fixed,
        }
    }

    /// It has a connection: `window` was in `hello`, `retry` before it.
    pub(crate) fn connected(&mut self, now: Instant, window: Option<Duration>, told: Duration) {
        match self {
            Self::Longwire(backoff) => {
                backoff.connected(now);
                if let Some(window) = window {
                    backoff.spread(window);
                }
            }
            Self::EventSource { retry } => *retry = told,
            Self::Exponential { failures } => *failures = 0,
            Self::Fixed => {}
        }
    }

    /// How long it waits now.
    pub(crate) fn wait(&mut self, now: Instant, cause: Cause, dice: &mut Dice) -> Duration {
        match self {
            Self::Longwire(backoff) => {
                let failure = match cause {
                    Cause::Silence => Failure::Lost,
                    Cause::Bye(window) => Failure::Told { retry_after: Duration::ZERO, window },
                    Cause::Full(retry_after) => Failure::from_status(503, Some(retry_after)),
                };
                match backoff.failed(now, failure, dice) {
                    Verdict::Retry(wait) => wait,
                    Verdict::Stop => unreachable!("none of these is for good"),
                }
            }
            Self::EventSource { retry } => {
                if let Cause::Full(told) = cause {
                    *retry = told;
                }
                *retry
            }
            Self::Exponential { failures } => {
                *failures += 1;
                let own = Duration::from_millis(500 << (*failures - 1).min(6)).min(Duration::from_secs(30));
                if let Cause::Full(told) = cause { own.max(told) } else { own }
            }
            Self::Fixed => Duration::from_secs(1),
        }
    }
}
