//! How long round trips took, counted in buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A histogram of round-trip times, in buckets up to each of [`Self::BOUNDS`] and one for what is above them. Its size
/// is fixed; recording takes no lock.
#[derive(Debug, Default)]
pub struct RoundTrips {
    buckets: [AtomicU64; Self::BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl RoundTrips {
    /// The upper bounds of the buckets, in milliseconds; each belongs to its bucket.
    pub const BOUNDS: [u64; 13] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000];

    /// Counts one.
    pub(crate) fn record(&self, rtt: Duration) {
        let bucket = Self::BOUNDS.iter().position(|bound| rtt <= Duration::from_millis(*bound));
        if let Some(bucket) = self.buckets.get(bucket.unwrap_or(Self::BOUNDS.len())) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.micros.fetch_add(u64::try_from(rtt.as_micros()).unwrap_or(0), Ordering::Relaxed);
    }

    /// How many there are in each bucket; the last one holds what is above all bounds.
    pub fn buckets(&self) -> [u64; Self::BOUNDS.len() + 1] {
        std::array::from_fn(|n| self.buckets.get(n).map_or(0, |bucket| bucket.load(Ordering::Relaxed)))
    }

    /// The sum of all of them.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let rtt = RoundTrips::default();
        for micros in [0, 1000, 1001, 10_000_000, 10_000_001, 60_000_000] {
            rtt.record(Duration::from_micros(micros));
        }
        assert_eq!(rtt.buckets(), [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(rtt.sum(), Duration::from_micros(80_002_002));
    }
}
