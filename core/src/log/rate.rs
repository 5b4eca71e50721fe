//! How much may be published, in how much time: token buckets under the caller's clock (`PROTOCOL.md` section 5.3).

use crate::time::{Instant, millis};
use core::num::NonZeroU64;
use core::time::Duration;

/// Buckets count in thousandths, so that a rate by the second is a whole number by the millisecond.
const MILLI: u64 = 1000;

/// How fast a [`Bucket`] refills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Rate {
    per_second: NonZeroU64,
    burst: NonZeroU64,
}

impl Rate {
    /// So many in a second, and so many at once after a silence. `None` when one of them is zero: then nothing could ever
    /// be taken. What is beyond 2^64 / 1000 counts as that.
    pub const fn new(per_second: u64, burst: u64) -> Option<Self> {
        const MAX: u64 = u64::MAX / MILLI;
        let per_second = if per_second > MAX { MAX } else { per_second };
        let burst = if burst > MAX { MAX } else { burst };
        match (NonZeroU64::new(per_second), NonZeroU64::new(burst)) {
            (Some(per_second), Some(burst)) => Some(Self { per_second, burst }),
            _ => None,
        }
    }

    /// How many in a second.
    pub const fn per_second(self) -> u64 {
        self.per_second.get()
    }

    /// How many at once.
    pub const fn burst(self) -> u64 {
        self.burst.get()
    }

    /// What a full bucket holds, in thousandths.
    const fn capacity(self) -> u64 {
        self.burst.get().saturating_mul(MILLI)
    }

    /// The milliseconds in which so many thousandths flow in. (A unit by the second is a thousandth by the millisecond.)
    const fn time_for(self, thousandths: u64) -> Duration {
        Duration::from_millis(thousandths.div_ceil(self.per_second.get()))
    }
}

/// A token bucket, full at first. Its [`Rate`] is shared by all that have the same, and handed in each time.
///
/// Nothing is rounded: over any time `t` no more than `burst + per_second * t` is taken, and not a thousandth less of it is
/// there. A cost above the burst is taken from a full bucket, which then owes the rest: nothing that may be published at all is
/// refused for ever, and the rate holds.
///
/// ```
/// use core::time::Duration;
/// use longwire_core::log::{Bucket, Rate};
/// use longwire_core::time::Instant;
///
/// let rate = Rate::new(10, 5).unwrap(); // 10 in a second, 5 at once
/// let mut bucket = Bucket::new();
/// let at = Instant::from_millis;
/// assert_eq!(bucket.take(rate, at(0), 4), Ok(()));
/// assert_eq!(bucket.pressure(rate, at(0)), Some(Duration::from_millis(150))); // then it is half full
/// assert_eq!(bucket.take(rate, at(0), 2), Err(Duration::from_millis(100)));
/// assert_eq!(bucket.take(rate, at(100), 2), Ok(()));
/// assert_eq!(bucket.level(rate, at(150)), 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Bucket {
    /// What is missing from a full bucket, in thousandths, at the time `at`. More than it holds is owed.
    missing: u64,
    at: Instant,
}

const _: () = assert!(size_of::<Bucket>() == 16);

impl Bucket {
    /// A full one.
    pub const fn new() -> Self {
        Self { missing: 0, at: Instant::from_millis(0) }
    }

    /// Takes `cost` out of it.
    ///
    /// # Errors
    /// There is not as much in it. Nothing was taken; after the time that is returned, and no earlier, there is, unless
    /// somebody else takes it.
    pub const fn take(&mut self, rate: Rate, now: Instant, cost: u64) -> Result<(), Duration> {
        let possible = self.check(rate, now, cost);
        if possible.is_ok() {
            self.spend(rate, now, cost);
        }
        possible
    }

    /// Whether `cost` could be taken: for whoever asks several buckets before it takes from one.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub const fn check(&self, rate: Rate, now: Instant, cost: u64) -> Result<(), Duration> {
        let burst = rate.burst.get();
        let asked = if cost < burst { cost } else { burst };
        let may_be_missing = (burst - asked).saturating_mul(MILLI);
        let missing = self.missing(rate, now);
        if missing <= may_be_missing { Ok(()) } else { Err(rate.time_for(missing - may_be_missing)) }
    }

    /// Takes `cost`, whether it is there or not: after a [`check`](Self::check), or of what cannot be refused.
    pub const fn spend(&mut self, rate: Rate, now: Instant, cost: u64) {
        self.missing = self.missing(rate, now).saturating_add(cost.saturating_mul(MILLI));
        // A clock that goes back gives nothing twice.
        if now.as_millis() > self.at.as_millis() {
            self.at = now;
        }
    }

    /// How much is in it, in whole units.
    pub const fn level(&self, rate: Rate, now: Instant) -> u64 {
        rate.capacity().saturating_sub(self.missing(rate, now)) / MILLI
    }

    /// When it is more than half empty: the time until it is half full. Whoever waits as long before it takes again, and
    /// takes no more than half a burst, is not refused.
    pub const fn pressure(&self, rate: Rate, now: Instant) -> Option<Duration> {
        let (missing, half) = (self.missing(rate, now), rate.capacity() / 2);
        if missing > half { Some(rate.time_for(missing - half)) } else { None }
    }

    const fn missing(&self, rate: Rate, now: Instant) -> u64 {
        let refilled = millis(now.since(self.at)).saturating_mul(rate.per_second.get());
        self.missing.saturating_sub(refilled)
    }
}

/// What is allowed of publications: their number, and their bytes. `None` is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct QuotaConfig {
    /// Publications.
    pub messages: Option<Rate>,
    /// Their bytes.
    pub bytes: Option<Rate>,
}

/// Which of a [`Quota`]'s buckets has not enough, and how long until both have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct OverQuota {
    /// The one that is waited for longest.
    pub bound: Bound,
    /// After this time both have enough, and not earlier: unless somebody else takes it.
    pub wait: Duration,
}

/// What a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Bound {
    /// Publications.
    Messages,
    /// Their bytes.
    Bytes,
}

/// The two buckets of a connection, or of a topic. A publication is taken from both or from none.
///
/// ```
/// use core::time::Duration;
/// use longwire_core::log::{Bound, OverQuota, Quota, QuotaConfig, Rate};
/// use longwire_core::time::Instant;
///
/// let config = QuotaConfig { messages: Rate::new(1000, 1000), bytes: Rate::new(100, 100) };
/// let mut quota = Quota::new();
/// let now = Instant::from_millis(0);
/// assert_eq!(quota.check(&config, now, 80), Ok(()));
/// quota.spend(&config, now, 80);
/// let over = OverQuota { bound: Bound::Bytes, wait: Duration::from_millis(100) };
/// assert_eq!(quota.check(&config, now, 30), Err(over));
/// assert_eq!(quota.pressure(&config, now), Some(Duration::from_millis(300)));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Quota {
    messages: Bucket,
    bytes: Bucket,
}

impl Quota {
    /// With both buckets full.
    pub const fn new() -> Self {
        Self { messages: Bucket::new(), bytes: Bucket::new() }
    }

    /// Whether a publication of so many bytes could be taken.
    ///
    /// # Errors
    /// It could not, yet. Nothing is taken by asking.
    pub fn check(&self, config: &QuotaConfig, now: Instant, bytes: u64) -> Result<(), OverQuota> {
        let messages = wait(config.messages, |rate| self.messages.check(rate, now, 1));
        let bytes = wait(config.bytes, |rate| self.bytes.check(rate, now, bytes));
        match (messages, bytes) {
            (None, None) => Ok(()),
            (Some(wait), other) if other.is_none_or(|other| other <= wait) => {
                Err(OverQuota { bound: Bound::Messages, wait })
            }
            (_, bytes) => Err(OverQuota { bound: Bound::Bytes, wait: bytes.unwrap_or_default() }),
        }
    }

    /// Takes a publication of so many bytes, whether it is there or not.
    pub fn spend(&mut self, config: &QuotaConfig, now: Instant, bytes: u64) {
        config.messages.into_iter().for_each(|rate| self.messages.spend(rate, now, 1));
        config.bytes.into_iter().for_each(|rate| self.bytes.spend(rate, now, bytes));
    }

    /// How long to wait until neither bucket is more than half empty; `None` when neither is.
    pub fn pressure(&self, config: &QuotaConfig, now: Instant) -> Option<Duration> {
        let messages = config.messages.and_then(|rate| self.messages.pressure(rate, now));
        messages.max(config.bytes.and_then(|rate| self.bytes.pressure(rate, now)))
    }
}

/// What a bucket that has a rate says.
fn wait(rate: Option<Rate>, check: impl FnOnce(Rate) -> Result<(), Duration>) -> Option<Duration> {
    rate.and_then(|rate| check(rate).err())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_rate_of_nothing_is_none_and_one_beyond_all_bounds_is_held() {
        assert_eq!((Rate::new(0, 1), Rate::new(1, 0)), (None, None));
        let rate = Rate::new(u64::MAX, u64::MAX).unwrap();
        let mut bucket = Bucket::new();
        assert_eq!((rate.per_second(), rate.burst()), (u64::MAX / 1000, u64::MAX / 1000));
        assert_eq!(bucket.take(rate, at(u64::MAX), u64::MAX), Ok(()));
        assert_eq!(bucket.level(rate, at(u64::MAX)), 0);
        assert!(bucket.take(rate, at(u64::MAX), 1).is_err());
    }

    #[test]
    fn what_costs_more_than_a_burst_is_taken_from_a_full_bucket_which_then_owes() {
        let rate = Rate::new(10, 5).unwrap();
        let mut bucket = Bucket::new();
        assert_eq!(bucket.take(rate, at(0), 1), Ok(()));
        assert_eq!(bucket.take(rate, at(0), 100), Err(ms(100)));
        assert_eq!(bucket.take(rate, at(99), 100), Err(ms(1)));
        assert_eq!(bucket.take(rate, at(100), 100), Ok(()));
        assert_eq!(bucket.level(rate, at(100)), 0);
        // 95 are owed, and one is wanted.
        assert_eq!(bucket.take(rate, at(100), 1), Err(ms(9600)));
        assert_eq!(bucket.take(rate, at(9700), 1), Ok(()));
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_twice() {
        let rate = Rate::new(1000, 10).unwrap();
        let mut bucket = Bucket::new();
        assert_eq!(bucket.take(rate, at(100), 10), Ok(()));
        assert_eq!(bucket.take(rate, at(50), 1), Err(ms(1)));
        bucket.spend(rate, at(50), 1);
        assert_eq!(bucket.take(rate, at(101), 1), Err(ms(1)));
        assert_eq!(bucket.take(rate, at(102), 1), Ok(()));
    }

    #[test]
    fn a_bucket_that_fails_takes_nothing_from_the_other() {
        let config = QuotaConfig { messages: Rate::new(1, 1), bytes: Rate::new(10, 10) };
        let mut quota = Quota::new();
        quota.spend(&config, at(0), 10);
        let before = quota;
        assert_eq!(
            quota.check(&config, at(0), 10),
            Err(OverQuota { bound: Bound::Messages, wait: ms(1000) })
        );
        assert_eq!(
            quota.check(&config, at(500), 1),
            Err(OverQuota { bound: Bound::Messages, wait: ms(500) })
        );
        assert_eq!(quota, before);
        let bytes = QuotaConfig { messages: None, ..config };
        assert_eq!(quota.check(&bytes, at(500), 10), Err(OverQuota { bound: Bound::Bytes, wait: ms(500) }));
        assert_eq!(quota.check(&QuotaConfig::default(), at(0), u64::MAX), Ok(()));
        assert_eq!(quota.pressure(&config, at(600)), None);
        assert_eq!(quota.pressure(&config, at(400)), Some(ms(100)));
        assert_eq!(quota.pressure(&QuotaConfig::default(), at(0)), None);
    }

    /// A bucket as an exact rational number: `level` is in units of 1/1000, may be negative, and nothing saturates.
    struct Model {
        level: i128,
        at: i128,
        rate: Rate,
    }

    impl Model {
        fn new(rate: Rate) -> Self {
            Self { level: i128::from(rate.burst()) * 1000, at: 0, rate }
        }

        fn level(&self, now: u64) -> i128 {
            let flowed = (i128::from(now) - self.at) * i128::from(self.rate.per_second());
            (self.level + flowed).min(i128::from(self.rate.burst()) * 1000)
        }

        fn has(&self, now: u64, cost: u64) -> bool {
            self.level(now) >= i128::from(cost.min(self.rate.burst())) * 1000
        }

        fn take(&mut self, now: u64, cost: u64) {
            self.level = self.level(now) - i128::from(cost) * 1000;
            self.at = i128::from(now);
        }
    }

    fn rates() -> impl Strategy<Value = Rate> {
        let number = prop_oneof![1..10u64, 1..5000u64, 1..1u64 << 40];
        (number.clone(), number).prop_map(|(rate, burst)| Rate::new(rate, burst).unwrap())
    }

    proptest! {
        #[test]
        fn a_bucket_does_what_the_exact_one_does_and_its_waits_are_exact(
            rate in rates(),
            steps in prop::collection::vec((prop_oneof![0..3u64, 0..2000u64, 0..1u64 << 30], 0..120u64), 1..100),
        ) {
            let (mut bucket, mut model, mut now) = (Bucket::new(), Model::new(rate), 0);
            let mut taken = Vec::new();
            for (pause, percent) in steps {
                now += pause;
                let cost = u64::try_from(u128::from(rate.burst()) * u128::from(percent) / 100).unwrap();
                prop_assert_eq!(bucket.level(rate, at(now)), u64::try_from(model.level(now).max(0) / 1000).unwrap());
                match bucket.pressure(rate, at(now)) {
                    None => prop_assert!(model.level(now) * 2 >= i128::from(rate.burst()) * 1000),
                    Some(wait) => {
                        let half = |now| model.level(now) * 2 >= i128::from(rate.burst()) * 1000;
                        let then = now + u64::try_from(wait.as_millis()).unwrap();
                        prop_assert!(half(then) && !half(then - 1));
                        prop_assert_eq!(bucket.check(rate, at(then), rate.burst() / 2), Ok(()));
                    }
                }
                match bucket.take(rate, at(now), cost) {
                    Ok(()) => {
                        prop_assert!(model.has(now, cost));
                        model.take(now, cost);
                        taken.push((now, cost));
                    }
                    Err(wait) => {
                        let then = now + u64::try_from(wait.as_millis()).unwrap();
                        prop_assert!(!model.has(then - 1, cost) && model.has(then, cost));
                        prop_assert!(bucket.check(rate, at(then - 1), cost).is_err());
                        prop_assert_eq!(bucket.check(rate, at(then), cost), Ok(()));
                    }
                }
            }
            // Over any stretch of time: what was taken is no more than a burst, what flowed in, and what one may owe.
            for (first, (from, _)) in taken.iter().enumerate() {
                let mut sum = 0;
                for (to, cost) in taken.iter().skip(first) {
                    let flowed = u128::from(to - from) * u128::from(rate.per_second());
                    let owed = cost.saturating_sub(rate.burst());
                    sum += u128::from(*cost);
                    prop_assert!((sum - u128::from(owed)) * 1000 <= flowed + u128::from(rate.burst()) * 1000);
                }
            }
        }
    }
}
