//! Time as the core sees it: milliseconds since any start, handed in by the caller.

use core::time::Duration;

/// A moment, in milliseconds since a start that the caller chose (boot, process start, zero in a test).
///
/// It only has to be monotonic. Arithmetic saturates, so a deadline that lies beyond the end of time is never
/// reached instead of being reached at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Instant(u64);

impl Instant {
    /// The moment `millis` milliseconds after the start.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the start.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This moment, `by` later.
    #[must_use]
    #[cfg_attr(target_os = "none", inline(never))]
    pub const fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// This moment, `millis` milliseconds earlier; the start, if that lies beyond it.
    pub(crate) const fn before(self, millis: u64) -> Self {
        Self(self.0.saturating_sub(millis))
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    #[cfg_attr(target_os = "none", inline(never))]
    pub const fn since(self, earlier: Self) -> Duration {
        duration(self.0.saturating_sub(earlier.0))
    }
}

/// Whole milliseconds of a duration, at most `u64::MAX`.
// On a device, where 64 bits are two registers, it is worth more as one function than in some forty places: 1.3 KB.
#[cfg_attr(target_os = "none", inline(never))]
pub(crate) const fn millis(d: Duration) -> u64 {
    // In u64 throughout: u128 arithmetic costs a microcontroller more than it is worth.
    d.as_secs().saturating_mul(1000).saturating_add(d.subsec_millis() as u64)
}

/// So many milliseconds; on a device one division by a thousand, and not one in each place.
#[cfg_attr(target_os = "none", inline(never))]
pub(crate) const fn duration(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let end = Instant::from_millis(u64::MAX);
        assert_eq!(end.after(Duration::from_secs(1)), end);
        assert_eq!(Instant::default().after(Duration::MAX), end);
        assert_eq!(Instant::from_millis(5).since(Instant::from_millis(9)), Duration::ZERO);
        assert_eq!(Instant::from_millis(9).since(Instant::from_millis(5)), Duration::from_millis(4));
        assert_eq!(Instant::default().after(Duration::from_micros(2999)).as_millis(), 2);
    }
}
