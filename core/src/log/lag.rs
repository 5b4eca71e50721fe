//! How far a reader may be behind the head of its log, and what happens to it there (`PROTOCOL.md` section 5.1).

use super::Policy;
use core::time::Duration;

/// How far a reader is, or may be, behind the head of its log.
///
/// ```
/// use core::time::Duration;
/// use longwire_core::log::Distance;
///
/// let bound = Distance { events: 1000, bytes: 1 << 20, age: Duration::from_secs(60) };
/// let behind = Distance { events: 3, bytes: 2 << 20, age: Duration::from_secs(1) };
/// assert!(behind.is_beyond(bound)); // by its bytes
/// assert!(!bound.is_beyond(bound));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Distance {
    /// Events of the log, whether they match what the reader wants or not.
    pub events: u64,
    /// What those cost, in the bytes that the log's own bounds are counted in.
    pub bytes: u64,
    /// How long ago the oldest of them was appended.
    pub age: Duration,
}

impl Distance {
    /// A bound that nothing is beyond.
    pub const UNBOUNDED: Self = Self { events: u64::MAX, bytes: u64::MAX, age: Duration::MAX };

    /// Whether it is more than the bound, in one of the three at least.
    pub fn is_beyond(self, bound: Self) -> bool {
        self.events > bound.events || self.bytes > bound.bytes || self.age > bound.age
    }

    /// Whether it is the bound or more, in one of the three at least.
    fn reaches(self, bound: Self) -> bool {
        self.events >= bound.events || self.bytes >= bound.bytes || self.age >= bound.age
    }

    /// The lesser of two, each of the three by itself.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            events: self.events.min(other.events),
            bytes: self.bytes.min(other.bytes),
            age: self.age.min(other.age),
        }
    }

    /// A half of it, of each of the three, rounded up.
    #[must_use]
    pub fn half(self) -> Self {
        let age = self.age.saturating_add(Duration::from_nanos(1)).checked_div(2).unwrap_or(self.age);
        Self { events: self.events.div_ceil(2), bytes: self.bytes.div_ceil(2), age }
    }

    /// How many events behind it would be at the bound, if those to come are like those in between: what `pressure`
    /// says as its `limit`. Never less than the bound leaves, and never more than its events.
    fn events_at(self, bound: Self) -> u64 {
        let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let by_bytes = scaled(self.events, bound.bytes, self.bytes);
        let by_age = scaled(self.events, millis(bound.age), millis(self.age));
        bound.events.min(by_bytes).min(by_age).max(1)
    }
}

/// `events * bound / have`, as well as 64 bits can say it: a microcontroller divides no more.
fn scaled(events: u64, bound: u64, have: u64) -> u64 {
    match (events.checked_mul(bound), events.checked_div(have)) {
        (_, None) => u64::MAX,
        (Some(product), Some(_)) => product.checked_div(have).unwrap_or(u64::MAX),
        (None, Some(each)) => each.saturating_mul(bound),
    }
}

/// The bounds that all readers of a log are under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Bounds {
    /// Beyond it a reader's policy acts.
    pub max: Distance,
    /// What the log is sure to hold. A reader further behind may lose events before it is beyond `max`, so it is told
    /// its pressure by the lesser of the two.
    pub sure: Distance,
}

impl Bounds {
    /// Of a log that holds everything up to the bound.
    pub const fn new(max: Distance) -> Self {
        Self { max, sure: max }
    }

    /// Whether a reader that is so far behind is told so: from half of the bound on.
    pub fn presses(&self, behind: Distance) -> bool {
        behind.events > 0 && behind.reaches(self.first().half())
    }

    /// What `pressure` says to a reader that is so far behind and has skipped so many events.
    pub fn pressure(&self, behind: Distance, skipped: u64) -> Pressure {
        Pressure { lag: behind.events, limit: behind.events_at(self.first()), skipped }
    }

    /// Where a reader begins to lose, if it can be said.
    fn first(&self) -> Distance {
        self.max.min(self.sure)
    }
}

/// Why events that matched were not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Skip {
    /// The log no longer held them when the reader came.
    Evicted,
    /// The reader was too far behind, and jumped on.
    Slow,
    /// The reader was too far behind, and got a newer event of the same topic and key instead.
    Conflated,
}

/// What a reader of a log does before it reads on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Next {
    /// It goes on.
    GoOn,
    /// It is told `pressure`, then goes on: see [`Lag::told`].
    Pressure,
    /// It jumps to the first position that is no further behind than this, is told the `gap` (`slow`) and `pressure`.
    Jump(Distance),
    /// It is told the `gap` up to the head (`conflated`) and `pressure`, and gets the latest event of each topic and key in
    /// it.
    Conflate,
    /// It is told `bye` (`too_slow`), and its connection ends.
    Disconnect,
}

/// What a reader that is behind has to remember: nothing, until it was told something.
///
/// To be asked for what is [next](Self::next) before each page that is read for it. What comes of that is
/// [told](Self::told) and [counted](Self::skip) when its first byte leaves, before what follows is read: then nothing is
/// counted twice, and nothing that was skipped is sent.
///
/// The account of a reader is whole at any time: what was appended for it is what was delivered, what was
/// [skipped](Self::skipped), and what still lies before it, of which some is [open](Self::open). A reader in a gap that
/// is conflated is as far behind as the end of that gap: what comes before is bounded by the topics and keys.
///
/// ```
/// use core::time::Duration;
/// use longwire_core::log::{Bounds, Distance, Lag, Skip, Next, Policy};
///
/// let bounds = Bounds::new(Distance { events: 100, bytes: 1 << 20, age: Duration::from_secs(60) });
/// let behind = |events| Distance { events, ..Distance::default() };
/// let mut lag = Lag::default();
/// assert_eq!(lag.next(Policy::DropOldest, &bounds, behind(49), false), Next::GoOn);
/// assert_eq!(lag.next(Policy::DropOldest, &bounds, behind(50), false), Next::Pressure);
/// lag.told();
/// assert_eq!(lag.next(Policy::DropOldest, &bounds, behind(100), false), Next::GoOn);
///
/// let Next::Jump(within) = lag.next(Policy::DropOldest, &bounds, behind(101), false) else { unreachable!() };
/// assert_eq!(within.events, 50);
/// lag.skip(Skip::Slow, 51); // 51 of 101 events were jumped over, and all of them had matched
/// lag.told();
/// assert_eq!(lag.skipped().total(), 51);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Lag {
    /// It was told pressure, and did not come near since.
    pressed: bool,
    open: u64,
    skipped: Skipped,
}

const _: () = assert!(size_of::<Lag>() <= 40);

impl Lag {
    /// What the reader does next. `behind` is how far it is behind the head, and `lost` says whether the log has
    /// lost something already that it wants.
    ///
    /// A jump goes half of the bound, so that the next one is not due at once. (`DropNewest`, which readers cannot
    /// have, counts as `DropOldest`.)
    pub fn next(&mut self, policy: Policy, bounds: &Bounds, behind: Distance, lost: bool) -> Next {
        let beyond = behind.is_beyond(bounds.max);
        match policy {
            Policy::Conflate if beyond || lost => return Next::Conflate,
            Policy::Disconnect if beyond || lost => return Next::Disconnect,
            Policy::DropOldest | Policy::DropNewest if beyond => return Next::Jump(bounds.max.half()),
            // What the log has lost is gone, but what it holds can still be read.
            Policy::DropOldest | Policy::DropNewest | Policy::Conflate | Policy::Disconnect => {}
        }
        self.pressed &= behind.reaches(bounds.first().half().half());
        if !self.pressed && bounds.presses(behind) { Next::Pressure } else { Next::GoOn }
    }

    /// The pressure was told. It is told again after a loss, or once the reader was nearer than a quarter of the bound.
    pub fn told(&mut self) {
        self.pressed = true;
    }

    /// So many events that matched are not delivered.
    pub fn skip(&mut self, loss: Skip, events: u64) {
        let sum = self.skipped.of_mut(loss);
        *sum = sum.saturating_add(events);
    }

    /// A gap is conflated in which so many events matched. Which of them come is not known yet: each may be overtaken by a
    /// later one of its topic and key.
    pub fn conflate(&mut self, events: u64) {
        self.open = self.open.saturating_add(events);
    }

    /// One of them comes.
    pub fn came(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// The reader is past that gap: what did not come was skipped. Returns how many.
    pub fn settle(&mut self) -> u64 {
        let skipped = core::mem::take(&mut self.open);
        self.skip(Skip::Conflated, skipped);
        skipped
    }

    /// It has caught up.
    pub fn near(&mut self) {
        self.pressed = false;
    }

    /// Events in a gap that is conflated, that did not come yet and may never.
    pub const fn open(&self) -> u64 {
        self.open
    }

    /// What this reader did not get.
    pub fn skipped(&self) -> Skipped {
        self.skipped
    }
}

/// How far behind a reader is, told in line with its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Pressure {
    /// Events of the log, matching or not, between what this reader gets next and the head.
    pub lag: u64,
    /// The lag from which on it may lose events.
    pub limit: u64,
    /// Matching events that this connection has skipped so far, as far as they were counted.
    pub skipped: u64,
}

/// Events that matched and were not delivered, by the reason. They are as many as could be counted: what a log has
/// forgotten cannot always be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Skipped {
    /// [`Skip::Slow`]
    pub slow: u64,
    /// [`Skip::Conflated`]
    pub conflated: u64,
    /// [`Skip::Evicted`]
    pub evicted: u64,
}

impl Skipped {
    /// All of them.
    pub const fn total(self) -> u64 {
        self.slow.saturating_add(self.conflated).saturating_add(self.evicted)
    }

    fn of_mut(&mut self, loss: Skip) -> &mut u64 {
        match loss {
            Skip::Slow => &mut self.slow,
            Skip::Conflated => &mut self.conflated,
            Skip::Evicted => &mut self.evicted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Next::{Conflate, Disconnect, GoOn, Jump};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    const SECOND: Duration = Duration::from_secs(1);
    const MAX: Distance = Distance { events: 100, bytes: 1000, age: SECOND };

    fn events(events: u64) -> Distance {
        Distance { events, ..Distance::default() }
    }

    #[test]
    fn each_of_the_three_is_a_bound() {
        for (events, bytes, age, beyond) in [
            (100, 1000, SECOND, false),
            (101, 0, Duration::ZERO, true),
            (0, 1001, Duration::ZERO, true),
            (0, 0, SECOND + Duration::from_nanos(1), true),
            (0, 0, Duration::ZERO, false),
        ] {
            let behind = Distance { events, bytes, age };
            assert_eq!(behind.is_beyond(MAX), beyond, "{behind:?}");
            assert!(!behind.is_beyond(Distance::UNBOUNDED));
        }
        assert!(
            Distance::UNBOUNDED.is_beyond(MAX)
                && !Distance::UNBOUNDED.half().half().is_beyond(Distance::UNBOUNDED)
        );
    }

    #[test]
    fn at_the_bound_the_policy_acts() {
        for (policy, lost, beyond) in [
            (Policy::DropOldest, GoOn, Jump(MAX.half())),
            (Policy::DropNewest, GoOn, Jump(MAX.half())),
            (Policy::Conflate, Conflate, Conflate),
            (Policy::Disconnect, Disconnect, Disconnect),
        ] {
            let next = |behind, lost| {
                Lag { pressed: true, ..Lag::default() }.next(policy, &Bounds::new(MAX), behind, lost)
            };
            assert_eq!(next(events(100), false), GoOn, "{policy}");
            assert_eq!(next(events(101), false), beyond, "{policy}");
            assert_eq!(next(events(101), true), beyond, "{policy}");
            // What the log has lost before the bound, it has lost.
            assert_eq!(next(events(100), true), lost, "{policy}");
        }
    }

    #[test]
    fn pressure_is_told_at_half_of_the_bound_and_again_once_it_was_nearer_than_a_quarter() {
        let (mut lag, bounds) = (Lag::default(), Bounds::new(MAX));
        for (behind, pressure) in [
            (49, false),
            (50, true),
            (99, false),
            (25, false),
            (60, false),
            (24, false),
            (49, false),
            (50, true),
        ] {
            let next = lag.next(Policy::DropOldest, &bounds, events(behind), false);
            assert_eq!(next == Next::Pressure, pressure, "{behind}");
            // Until it was told, it is due.
            assert_eq!(lag.next(Policy::DropOldest, &bounds, events(behind), false), next);
            if pressure {
                lag.told();
            }
        }
        // Earlier, where the log may have lost some before the bound.
        let short = Bounds { sure: Distance { events: 10, ..MAX }, max: MAX };
        assert_eq!(Lag::default().next(Policy::DropOldest, &short, events(4), false), GoOn);
        assert_eq!(Lag::default().next(Policy::DropOldest, &short, events(5), false), Next::Pressure);
        // Nothing lies before it.
        assert_eq!(
            Lag::default().next(Policy::Conflate, &Bounds::new(Distance::default()), events(0), false),
            GoOn
        );
    }

    #[test]
    fn the_limit_is_what_the_first_of_the_three_comes_to() {
        for (behind, limit) in [
            (Distance { events: 50, bytes: 100, age: SECOND / 10 }, 100),
            (Distance { events: 50, bytes: 1000, age: SECOND / 10 }, 50),
            (Distance { events: 50, bytes: 2000, age: SECOND / 10 }, 25),
            (Distance { events: 50, bytes: 0, age: SECOND }, 50),
            (Distance { events: 1, bytes: 1 << 40, age: SECOND }, 1),
            (events(0), 100),
        ] {
            assert_eq!(
                Bounds::new(MAX).pressure(behind, 0),
                Pressure { lag: behind.events, limit, skipped: 0 }
            );
        }
        let far = Distance { events: u64::MAX, bytes: 7, age: Duration::MAX };
        assert_eq!(Bounds::new(Distance::UNBOUNDED).pressure(far, 0).limit, u64::MAX);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Append {
            key: usize,
            matches: bool,
            cost: u64,
        },
        Wait(u64),
        /// The socket takes so many pieces: events, gaps, pressures.
        Read(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (0..4usize, prop::bool::weighted(0.7), 0..40u64)
                .prop_map(|(key, matches, cost)| Op::Append { key, matches, cost }),
            1 => (0..400u64).prop_map(Op::Wait),
            2 => (0..8usize).prop_map(Op::Read),
        ]
    }

    struct Appended {
        key: usize,
        matches: bool,
        cost: u64,
        born: u64,
    }

    /// A log that holds everything, and one reader of it, in the most obvious way.
    #[derive(Default)]
    struct Model {
        log: Vec<Appended>,
        now: u64,
        position: usize,
        /// The end of the gap within which only the latest come.
        conflated: usize,
        lag: Lag,
        delivered: Vec<usize>,
        gaps: Vec<(usize, usize)>,
        pressures: Vec<Distance>,
    }

    impl Model {
        fn behind(&self, position: usize) -> Distance {
            let before = self.log.get(position..).unwrap_or_default();
            Distance {
                events: before.len() as u64,
                bytes: before.iter().map(|e| e.cost).sum(),
                age: before.first().map_or(Duration::ZERO, |e| Duration::from_millis(self.now - e.born)),
            }
        }

        fn matching(&self, from: usize, to: usize) -> u64 {
            self.log.get(from..to).unwrap_or_default().iter().filter(|e| e.matches).count() as u64
        }

        /// Everything up to here came, or is to come as far as it is the latest.
        fn reach(&self) -> usize {
            self.position.max(self.conflated)
        }

        /// The first event after the position that is to be sent.
        fn following(&self) -> Option<usize> {
            let latest: BTreeMap<usize, usize> =
                self.log.iter().enumerate().filter(|(_, e)| e.matches).map(|(at, e)| (e.key, at)).collect();
            (self.position..self.log.len()).find(|at| {
                self.log
                    .get(*at)
                    .is_some_and(|e| e.matches && (*at >= self.conflated || latest.get(&e.key) == Some(at)))
            })
        }

        /// One piece.
        fn read(&mut self, policy: Policy, bounds: &Bounds) -> Next {
            let behind = self.behind(self.reach());
            let next = self.lag.next(policy, bounds, behind, false);
            let head = self.log.len();
            match next {
                Next::Pressure => self.tell(behind),
                Jump(within) => {
                    let to =
                        (self.position..=head).find(|at| !self.behind(*at).is_beyond(within)).unwrap_or(head);
                    self.lag.skip(Skip::Slow, self.matching(self.position, to));
                    self.gaps.push((self.position, to));
                    self.position = to;
                    self.tell(self.behind(to));
                }
                Conflate => {
                    // What lies in a gap that was told is counted already.
                    let from = self.reach();
                    self.lag.conflate(self.matching(from, head));
                    self.gaps.push((from, head));
                    self.conflated = head;
                    self.tell(behind);
                }
                Disconnect => return next,
                GoOn => {}
            }
            match self.following() {
                None => self.position = head,
                Some(at) => {
                    if at < self.conflated {
                        self.lag.came();
                    }
                    self.delivered.push(at);
                    self.position = at + 1;
                }
            }
            if self.position > self.conflated {
                self.lag.settle();
            }
            next
        }

        fn tell(&mut self, behind: Distance) {
            self.lag.told();
            self.pressures.push(behind);
        }
    }

    proptest! {
        /// Appended for a reader = delivered + skipped + what lies before it, at any time and for every policy; what is
        /// skipped lies in a gap; what comes is in order.
        #[test]
        fn the_account_is_whole(
            ops in prop::collection::vec(op(), 0..300),
            policy in prop::sample::select(Policy::OF_READERS.to_vec()),
            (max_events, max_bytes, max_age) in (1..30u64, 1..400u64, 1..1000u64),
        ) {
            let bounds = Bounds::new(Distance { events: max_events, bytes: max_bytes, age: Duration::from_millis(max_age) });
            let mut model = Model::default();
            for op in ops {
                match op {
                    Op::Append { key, matches, cost } => {
                        let born = model.now;
                        model.log.push(Appended { key, matches, cost, born });
                    }
                    Op::Wait(time) => model.now += time,
                    Op::Read(pieces) => for _ in 0..pieces {
                        let behind = model.behind(model.reach());
                        let told = model.pressures.len();
                        let next = model.read(policy, &bounds);
                        prop_assert_eq!(next == Disconnect, policy == Policy::Disconnect && behind.is_beyond(bounds.max));
                        if next == Disconnect {
                            return Ok(());
                        }
                        // Told where it is due, and nowhere else.
                        let acted = matches!(next, Jump(_) | Conflate);
                        prop_assert_eq!(acted, behind.is_beyond(bounds.max));
                        prop_assert!(acted || model.pressures.len() == told || behind.reaches(bounds.max.half()));
                        prop_assert!(!model.behind(model.reach()).is_beyond(bounds.max));
                    }
                }
                let head = model.log.len();
                let before = model.matching(model.reach(), head) + model.lag.open();
                let skipped = model.lag.skipped();
                prop_assert_eq!(model.matching(0, head), model.delivered.len() as u64 + skipped.total() + before);
                prop_assert!(model.position <= model.conflated || model.lag.open() == 0);
                prop_assert!(model.delivered.is_sorted_by(|a, b| a < b));
                prop_assert!(model.gaps.iter().all(|(from, to)| from < to) && model.gaps.is_sorted_by(|a, b| a.1 <= b.0));
                for at in 0..model.position {
                    let told = model.gaps.iter().any(|(from, to)| (*from..*to).contains(&at));
                    let matches = model.log.get(at).is_some_and(|e| e.matches);
                    prop_assert!(!matches || told || model.delivered.contains(&at), "{at} is missing in silence");
                }
            }
            // At the end each key's latest has come, unless the reader was to lose it.
            if policy == Policy::Conflate {
                while model.position < model.log.len() {
                    model.read(policy, &bounds);
                }
                for key in 0..4 {
                    let latest = model.log.iter().rposition(|e| e.matches && e.key == key);
                    prop_assert!(latest.is_none_or(|at| model.delivered.contains(&at)));
                }
            }
        }
    }
}
