//! The readings, their numbers, and what becomes of them.

use core::convert::Infallible;

use longwire_core::log::{Pattern, Topic};
use longwire_core::session::publisher::{InFlight, Incarnation};
use minicbor::{Encode, Encoder};

use super::ring::{HEADER, Record, Ring};
use super::{Counts, Policy, Reading, ReportError};

/// Most readings that are sent and not yet acknowledged, whatever the gateway would allow.
pub(super) const MAX_IN_FLIGHT: u64 = 32;

/// So many numbers of dropped readings are given up one by one; more of them when no answer is owed any more.
const FEW: u64 = 16;

/// Which policy a topic has.
#[derive(Clone, Copy)]
pub(super) struct Policies {
    /// `None`, and not an empty list, whose address is no zero: see [`Outbox::new`](super::Outbox::new).
    pub(super) rules: Option<&'static [(&'static str, Policy)]>,
    pub(super) otherwise: Policy,
}

impl Policies {
    /// The first pattern that matches says it.
    pub(super) fn of(&self, topic: Topic<'_>) -> Policy {
        let matches = |pattern: &str| Pattern::parse(pattern).is_ok_and(|pattern| pattern.matches(topic));
        let rule = self.rules.unwrap_or_default().iter().find(|(pattern, _)| matches(pattern));
        rule.map_or(self.otherwise, |(_, policy)| *policy)
    }
}

/// What an outbox holds.
pub(super) struct Log<const BYTES: usize> {
    pub(super) policies: Policies,
    pub(super) ring: Ring<BYTES>,
    /// Drawn before anything is sent.
    pub(super) incarnation: Option<Incarnation>,
    pub(super) flight: InFlight<1>,
    /// The newest number that was given to a reading.
    pub(super) newest: u64,
    /// The largest number that was sent on any connection: what became of the readings up to it only the gateway knows.
    pub(super) sent: u64,
    pub(super) counts: Counts,
    /// What was lost when the counts were reported last.
    told: u32,
    #[cfg(feature = "storage")]
    pub(super) kept: super::kept::Kept,
}

impl<const BYTES: usize> Log<BYTES> {
    pub(super) const fn new(policy: Policy) -> Self {
        Self {
            policies: Policies { rules: None, otherwise: policy },
            ring: Ring::new(),
            incarnation: None,
            flight: InFlight::new(),
            newest: 0,
            sent: 0,
            counts: Counts::ZERO,
            told: 0,
            #[cfg(feature = "storage")]
            kept: super::kept::Kept::new(),
        }
    }

    /// From now on topics have these policies, those of the readings that wait as well.
    pub(super) fn set_policies(&mut self, policies: Policies) {
        self.policies = policies;
        self.ring.set_policies(|topic| {
            let topic = core::str::from_utf8(topic).ok().and_then(|topic| Topic::parse(topic).ok());
            topic.map_or(policies.otherwise, |topic| policies.of(topic))
        });
    }

    /// Whether the numbers of this incarnation are used up, and everything that has one of them is settled.
    #[cfg(feature = "storage")]
    pub(super) fn is_spent(&self) -> bool {
        let next = self.ring.records().next().map_or(self.newest.saturating_add(1), |record| record.n);
        self.kept.successor.is_some_and(|(after, _)| next > after)
    }

    /// Goes on as the next incarnation when this one is spent.
    #[cfg(feature = "storage")]
    pub(super) fn succeed(&mut self) {
        if self.is_spent()
            && let Some(successor) = self.kept.succeed()
        {
            self.incarnation = Some(successor);
        }
    }

    /// A reading that was not sent was dropped.
    fn dropped(&mut self, n: u64) {
        #[cfg(feature = "storage")]
        self.kept.dropped(n);
        #[cfg(not(feature = "storage"))]
        let _ = n;
        self.done(1);
    }

    /// Whether a storage has nothing against sending this one.
    fn may_send(&mut self, n: u64) -> bool {
        #[cfg(feature = "storage")]
        return self.kept.lets(n);
        #[cfg(not(feature = "storage"))]
        return n > 0;
    }

    /// Takes a reading whose data has so many bytes.
    pub(super) fn push<T: Encode<()> + ?Sized>(
        &mut self,
        policy: Policy,
        topic: &str,
        key: Option<&str>,
        value: &T,
        len: usize,
    ) -> Result<(), ReportError> {
        let (topic, key) = (topic.as_bytes(), key.map(str::as_bytes));
        self.counts.reported = self.counts.reported.wrapping_add(1);
        let whole = HEADER + topic.len() + key.map_or(0, <[u8]>::len);
        let data = u16::try_from(len).ok().filter(|_| whole.saturating_add(len) <= BYTES);
        let Some(data) = data else {
            self.counts.too_large = self.counts.too_large.wrapping_add(1);
            return Err(ReportError::TooLarge);
        };
        let n = self.newest.saturating_add(1);
        let made = self.make_room(whole.saturating_add(len), policy, topic, key);
        let Some(mut space) = self.ring.append(n, policy, topic, key, data).filter(|_| made) else {
            self.counts.dropped_newest = self.counts.dropped_newest.wrapping_add(1);
            return Err(ReportError::Full);
        };
        // The same value gives the same bytes as when they were counted; if it does not, the zeros that are left are data
        // as well, and the reading behind it is where it should be.
        let encoded = Encoder::new(&mut space).encode(value).is_ok();
        debug_assert!(encoded, "a value that encodes differently each time");
        self.newest = n;
        self.counts.waiting = self.counts.waiting.saturating_add(1);
        Ok(())
    }

    /// Makes room for a reading by its policy; false, and nothing was dropped, when that would not be enough.
    fn make_room(&mut self, len: usize, policy: Policy, topic: &[u8], key: Option<&[u8]>) -> bool {
        let sent = self.sent;
        let unsent = move |record: &Record<'_>| record.n > sent;
        let same = self
            .ring
            .records()
            .filter(|record| policy == Policy::Conflate && unsent(record))
            .filter(|record| record.topic == topic && record.key == key)
            .last()
            .map(|record| (record.n, record.len));
        let may_go = move |record: &Record<'_>| unsent(record) && record.policy != Policy::DropNewest;
        let could_go: usize = match policy {
            Policy::DropNewest => 0,
            Policy::DropOldest | Policy::Conflate => {
                self.ring.records().filter(may_go).fold(0, |sum, record| sum.saturating_add(record.len))
            }
        };
        // What is replaced has the policy of its topic, so it is among those that could go.
        if len > self.ring.room().saturating_add(could_go) {
            return false;
        }
        if let Some((n, _)) = same
            && self.ring.remove(n)
        {
            self.counts.conflated = self.counts.conflated.wrapping_add(1);
            self.dropped(n);
        }
        while len > self.ring.room() {
            let oldest = self.ring.records().find(may_go).map(|record| record.n);
            let Some(oldest) = oldest.filter(|n| self.ring.remove(*n)) else { return false };
            self.counts.dropped_oldest = self.counts.dropped_oldest.wrapping_add(1);
            self.dropped(oldest);
        }
        true
    }

    /// Hands the next reading to `send`, as `Source::send_next` has it.
    pub(super) fn send_next<T>(
        &mut self,
        max_in_flight: u64,
        send: impl FnOnce(u64, Reading<'_>) -> Result<(), T>,
    ) -> Option<Result<(), T>> {
        let n = self.next(max_in_flight)?;
        let record = self.ring.records().find(|record| record.n == n)?;
        // What is under way is never dropped, so at most half of the memory is: the rest is for what is new.
        if record.at > 0 && record.at.saturating_add(record.len) > BYTES / 2 {
            return None;
        }
        let sent = send(n, record.reading()?);
        if sent.is_ok() {
            self.flight.sent(n);
            self.sent = self.sent.max(n);
        }
        Some(sent)
    }

    /// The number to send next. Those that were skipped are given up.
    pub(super) fn next(&mut self, max_in_flight: u64) -> Option<u64> {
        loop {
            let n = self.flight.next(self.ring.last(), max_in_flight.min(MAX_IN_FLIGHT))?;
            let held = self.ring.records().map(|record| record.n).find(|held| *held >= n)?;
            if held == n {
                return self.may_send(n).then_some(n);
            }
            if held - n <= FEW {
                (n..held).for_each(|skipped| {
                    self.flight.give_up(skipped);
                });
            } else if self.flight.is_empty() && !self.flight.is_held() {
                // Everything before them is settled.
                self.flight = InFlight::after(held - 1);
            } else {
                return None;
            }
        }
    }

    /// The next reading can never be sent.
    pub(super) fn give_up_next(&mut self) {
        if let Some(n) = self.next(u64::MAX)
            && self.flight.give_up(n)
        {
            self.counts.too_large = self.counts.too_large.wrapping_add(1);
            self.sent = self.sent.max(n);
            self.done(1);
        }
    }

    pub(super) fn acknowledge(&mut self, n: u64) {
        let mut taken = 0u32;
        self.flight.acknowledge(n, |_| taken = taken.saturating_add(1));
        self.counts.acknowledged = self.counts.acknowledged.wrapping_add(taken);
        self.done(taken);
    }

    pub(super) fn refuse(&mut self, n: u64, permanent: bool) {
        if self.flight.refuse(n, permanent) && permanent {
            self.counts.refused = self.counts.refused.wrapping_add(1);
            self.done(1);
        }
    }

    /// So many are done with. What is settled leaves the memory, in its turn.
    fn done(&mut self, readings: u32) {
        self.counts.waiting = self.counts.waiting.saturating_sub(readings);
        while self.ring.pop_up_to(self.flight.settled()) {}
    }

    /// Reports the counts themselves, if something was lost that was not told. That they may replace, or be replaced, is
    /// not told again. Says whether it did.
    pub(super) fn report_counts(&mut self, topic: &str) -> bool {
        if self.counts.lost() == self.told {
            return false;
        }
        let most = encoded_len(&Counts::MAX);
        // Room first: so that what it costs is counted in what is said.
        let whole = HEADER.saturating_add(topic.len()).saturating_add(most);
        if !self.make_room(whole, Policy::Conflate, topic.as_bytes(), None) {
            return false;
        }
        let before = self.counts;
        let (reported, waiting) = (before.reported.wrapping_add(1), before.waiting.saturating_add(1));
        let counts = Counts { reported, waiting, ..before };
        let pushed = self.push(Policy::Conflate, topic, None, &counts, encoded_len(&counts));
        match pushed {
            Ok(()) => self.told = self.counts.lost(),
            // As if nobody had tried.
            Err(_) => {
                let Counts { reported, too_large, dropped_newest, .. } = before;
                self.counts = Counts { reported, too_large, dropped_newest, ..self.counts };
            }
        }
        pushed.is_ok()
    }
}

impl<'a> Record<'a> {
    /// As it is sent.
    pub(super) fn reading(&self) -> Option<Reading<'a>> {
        let key = match self.key {
            Some(key) => Some(core::str::from_utf8(key).ok()?),
            None => None,
        };
        Some(Reading { topic: core::str::from_utf8(self.topic).ok()?, key, data: self.data })
    }
}

/// Bytes of the counts as they are sent.
fn encoded_len(counts: &Counts) -> usize {
    let mut len = Counter(0);
    // Neither a map of numbers nor a counter fails.
    let _ = Encoder::new(&mut len).encode(counts);
    len.0
}

/// Counts what is written to it.
pub(super) struct Counter(pub(super) usize);

impl minicbor::encode::Write for Counter {
    type Error = Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(())
    }
}
