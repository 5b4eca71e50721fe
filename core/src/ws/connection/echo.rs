//! The round-trip time of the heartbeat's Pings.

use crate::time::Instant;
use core::time::Duration;

/// What is known of the heartbeat's last Ping, in the 32 bits that a connection has to spare.
///
/// | highest bit | others |
/// |---|---|
/// | set | a Ping is out: when it was written, in milliseconds, and so its payload |
/// | not set | how many milliseconds its answer took, or all ones: nothing is known |
///
/// They count for 24 days, which no answer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Echo(u32);

const OUT: u32 = 1 << 31;

impl Echo {
    pub(super) const NONE: Self = Self(!OUT);

    /// A Ping that goes out now, and its payload.
    pub(super) fn ask(now: Instant) -> (Self, [u8; 4]) {
        let asked = Self(OUT | clock(now));
        (asked, asked.0.to_be_bytes())
    }

    /// After a Pong came. Only the one with the payload of the Ping that is out is its answer (RFC 6455 section 5.5.3: a
    /// peer may send Pongs that nobody asked for, and the application may ask, too).
    #[must_use]
    pub(super) fn answer(self, now: Instant, payload: &[u8]) -> Self {
        if self.0 & OUT == 0 || self.0.to_be_bytes() != payload {
            return self;
        }
        // The clock may have gone round since.
        Self((clock(now).wrapping_sub(self.0) & !OUT).min(Self::NONE.0 - 1))
    }

    pub(super) const fn took(self) -> Option<Duration> {
        if self.0 < Self::NONE.0 { Some(Duration::from_millis(self.0 as u64)) } else { None }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits of the clock are what is wanted")]
fn clock(now: Instant) -> u32 {
    now.as_millis() as u32 & !OUT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_may_go_round() {
        for start in [0, 1, u64::from(OUT) - 1, u64::from(OUT), u64::from(u32::MAX), u64::MAX - 50_000] {
            for took in [0, 1, 40_000] {
                let (echo, payload) = Echo::ask(Instant::from_millis(start));
                assert_eq!(echo.took(), None);
                let echo = echo.answer(Instant::from_millis(start + took), &payload);
                assert_eq!(echo.took(), Some(Duration::from_millis(took)), "{start}");
            }
        }
    }
}
