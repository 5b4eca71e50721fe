//! The core's time on the runtime's clock.

use longwire_core::time;
use std::time::Duration;
use tokio::time::Instant;

/// Counts milliseconds from its start, for everything that it is lent to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// A clock that begins now.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// This moment, as the core says it.
    pub(crate) fn now(self) -> time::Instant {
        self.moment(Instant::now())
    }

    /// A moment of the runtime's, as the core says it: in the millisecond in which it lies.
    pub(crate) fn moment(self, at: Instant) -> time::Instant {
        let millis = at.saturating_duration_since(self.0).as_millis();
        time::Instant::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// A moment of the core's, as the runtime says it. One beyond the end of time is far enough away.
    pub(crate) fn at(self, moment: time::Instant) -> Instant {
        let since = moment.since(time::Instant::default());
        self.0.checked_add(since).unwrap_or_else(|| self.0 + Duration::from_secs(1 << 30))
    }
}
