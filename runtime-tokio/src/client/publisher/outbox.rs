//! What waits to be published: a bounded queue, and which of it is under way.

use super::{Dropped, Outcome, PublisherConfig};
use crate::client::{Data, Policy, Refusal};
use longwire_core::session::ClientMessage;
use longwire_core::session::publisher::InFlight;
use std::collections::VecDeque;
use tokio::sync::oneshot;

/// What an entry costs beside its bytes.
const OVERHEAD: usize = 64;

/// A publication.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) topic: String,
    pub(super) key: Option<String>,
    pub(super) data: Data,
    /// Who wants to know what becomes of it.
    receipt: Option<oneshot::Sender<Outcome>>,
    /// It was sent on this connection.
    sent: bool,
}

impl Entry {
    pub(super) fn new(topic: &str, key: Option<&str>, data: Data, receipt: oneshot::Sender<Outcome>) -> Self {
        let (topic, key) = (topic.to_owned(), key.map(str::to_owned));
        Self { topic, key, data, receipt: Some(receipt), sent: false }
    }

    pub(super) fn size(&self) -> usize {
        let key = self.key.as_ref().map_or(0, String::len);
        OVERHEAD.saturating_add(self.topic.len()).saturating_add(key).saturating_add(self.data.size())
    }

    pub(super) fn parts(&self) -> (String, Option<String>, Data) {
        (self.topic.clone(), self.key.clone(), self.data.clone())
    }

    pub(super) fn message(&self, n: u64) -> ClientMessage<'_> {
        ClientMessage::Pub {
            n: Some(n),
            topic: self.topic.as_str().into(),
            key: self.key.as_deref().map(Into::into),
            data: self.data.borrowed(),
        }
    }
}

/// What became of publications, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublisherCounts {
    /// Taken by the gateway.
    pub taken: u64,
    /// Refused by the gateway, and not tried again.
    pub refused: u64,
    /// Given up because the outbox was full: the oldest.
    pub dropped_oldest: u64,
    /// Given up because the outbox was full: the newest, which [`try_publish`](super::Publisher::try_publish) did not take.
    pub dropped_newest: u64,
    /// Given up because the outbox was full, for a later one of the same topic and key.
    pub conflated: u64,
    /// Sent more than once, after a connection was lost or a refusal that passes.
    pub resent: u64,
}

/// The outbox is full, and the policy gives way to what is in it.
#[derive(Debug)]
pub(super) struct Full(pub(super) Box<Entry>);

pub(super) struct Outbox {
    max_events: usize,
    max_bytes: usize,
    policy: Policy,
    /// By their numbers, from `first` on; `None` is settled, behind others that are not.
    entries: VecDeque<Option<Entry>>,
    first: u64,
    flight: InFlight<16>,
    live: usize,
    bytes: usize,
    highest_sent: u64,
    pub(super) counts: PublisherCounts,
    /// Nothing more is taken.
    pub(super) closed: bool,
}

impl Outbox {
    pub(super) fn new(config: &PublisherConfig) -> Self {
        Self {
            max_events: config.outbox_events.max(1),
            max_bytes: config.outbox_bytes,
            policy: config.policy,
            entries: VecDeque::new(),
            first: 1,
            flight: InFlight::new(),
            live: 0,
            bytes: 0,
            highest_sent: 0,
            counts: PublisherCounts::default(),
            closed: false,
        }
    }

    /// Publications that wait or are under way, and their bytes.
    pub(super) const fn len(&self) -> (usize, usize) {
        (self.live, self.bytes)
    }

    /// What is larger never fits.
    pub(super) const fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Whether something of this size can be taken without giving anything up.
    fn has_room(&self, size: usize) -> bool {
        self.live < self.max_events
            && self.bytes.saturating_add(size) <= self.max_bytes
            && self.entries.len() < self.max_events.saturating_mul(2)
    }

    /// Takes a publication, whatever has to give way; its number.
    pub(super) fn push(&mut self, entry: Entry) -> Result<u64, Full> {
        let size = entry.size();
        if !self.has_room(size) && self.policy == Policy::Conflate {
            let same = |other: &Entry| !other.sent && other.topic == entry.topic && other.key == entry.key;
            if let Some(index) = self.find(same) {
                self.counts.conflated += 1;
                self.give_up(index, Dropped::Conflated);
            }
        }
        while !self.has_room(size) {
            if matches!(self.policy, Policy::DropNewest | Policy::Disconnect) {
                self.counts.dropped_newest += 1;
                return Err(Full(Box::new(entry)));
            }
            // What is under way may have been taken: giving it up gains nothing but room.
            let crowded = self.entries.len() >= self.max_events.saturating_mul(2);
            let oldest = self.find(|entry| !entry.sent).filter(|_| !crowded).or_else(|| self.find(|_| true));
            let Some(index) = oldest else { return Err(Full(Box::new(entry))) };
            self.counts.dropped_oldest += 1;
            self.give_up(index, Dropped::Oldest);
        }
        self.offer(entry)
    }

    /// Takes a publication if there is room for it; its number.
    pub(super) fn offer(&mut self, entry: Entry) -> Result<u64, Full> {
        let size = entry.size();
        if !self.has_room(size) {
            return Err(Full(Box::new(entry)));
        }
        self.live += 1;
        self.bytes = self.bytes.saturating_add(size);
        self.entries.push_back(Some(entry));
        Ok(self.newest())
    }

    fn newest(&self) -> u64 {
        self.first.saturating_add(self.entries.len() as u64).saturating_sub(1)
    }

    fn find(&self, wanted: impl Fn(&Entry) -> bool) -> Option<usize> {
        self.entries.iter().position(|entry| entry.as_ref().is_some_and(&wanted))
    }

    fn give_up(&mut self, index: usize, why: Dropped) {
        let n = self.first.saturating_add(index as u64);
        self.settle(n, Outcome::Dropped(why));
        // Beyond the window of numbers it is given up when its turn comes.
        self.flight.give_up(n);
        self.trim();
    }

    fn settle(&mut self, n: u64, outcome: Outcome) {
        let entry = self.slot(n).and_then(Option::take);
        let Some(entry) = entry else { return };
        self.live = self.live.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(entry.size());
        if let Some(receipt) = entry.receipt {
            // Most do not care.
            let _ = receipt.send(outcome);
        }
    }

    fn slot(&mut self, n: u64) -> Option<&mut Option<Entry>> {
        let index = usize::try_from(n.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(index)
    }

    fn trim(&mut self) {
        while self.first <= self.flight.settled() && self.entries.pop_front().is_some() {
            self.first += 1;
        }
    }

    /// What to send next, at most so many being under way.
    pub(super) fn next(&mut self, max_inflight: u64) -> Option<(u64, &Entry)> {
        loop {
            let n = self.flight.next(self.newest(), max_inflight)?;
            if self.slot(n).is_some_and(|slot| slot.is_some()) {
                let entry = self.slot(n)?.as_ref()?;
                return Some((n, entry));
            }
            if !self.flight.give_up(n) {
                return None;
            }
            self.trim();
        }
    }

    pub(super) fn sent(&mut self, n: u64) {
        self.flight.sent(n);
        self.counts.resent += u64::from(n <= self.highest_sent);
        self.highest_sent = self.highest_sent.max(n);
        if let Some(Some(entry)) = self.slot(n) {
            entry.sent = true;
        }
    }

    /// The gateway has settled everything up to `n`.
    pub(super) fn acknowledge(&mut self, n: u64) {
        let mut taken = Vec::new();
        self.flight.acknowledge(n, |n| taken.push(n));
        self.counts.taken += taken.len() as u64;
        for n in taken {
            self.settle(n, Outcome::Taken);
        }
        self.trim();
    }

    /// The gateway has refused `n`. Where it does not say when it might be taken, the others do not wait for it.
    pub(super) fn refuse(&mut self, n: u64, refusal: Refusal) {
        let settles = refusal.permanent || refusal.retry_after.is_none();
        if let Some(Some(entry)) = self.slot(n) {
            entry.sent = false;
        }
        if self.flight.refuse(n, settles) && settles {
            self.counts.refused += 1;
            self.settle(n, Outcome::Refused(refusal));
        }
        self.trim();
    }

    /// `n`, which was not sent, cannot be.
    pub(super) fn reject(&mut self, n: u64, refusal: Refusal) {
        self.counts.refused += 1;
        self.settle(n, Outcome::Refused(refusal));
        self.flight.give_up(n);
        self.trim();
    }

    /// A connection has begun.
    pub(super) fn reconnected(&mut self) {
        self.flight.reconnected();
        for entry in self.entries.iter_mut().flatten() {
            entry.sent = false;
        }
    }

    /// Takes nothing more, and gives up what it has.
    pub(super) fn close(&mut self) {
        self.closed = true;
        for n in self.first..=self.newest() {
            self.settle(n, Outcome::Dropped(Dropped::Closed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn outbox(policy: Policy, outbox_events: usize) -> Outbox {
        Outbox::new(&PublisherConfig { policy, outbox_events, ..PublisherConfig::default() })
    }

    fn entry(key: Option<&str>, n: usize) -> (Entry, oneshot::Receiver<Outcome>) {
        let (told, outcome) = oneshot::channel();
        (Entry::new("a", key, Data::json(n.to_string()).unwrap(), told), outcome)
    }

    fn send_all(outbox: &mut Outbox) -> Vec<(u64, String)> {
        let mut sent = Vec::new();
        while let Some((n, entry)) = outbox.next(100) {
            let Data::Json(json) = &entry.data else { panic!() };
            sent.push((n, String::from_utf8(json.to_vec()).unwrap()));
            outbox.sent(n);
        }
        sent
    }

    fn numbers(outbox: &mut Outbox) -> Vec<u64> {
        send_all(outbox).into_iter().map(|(n, _)| n).collect()
    }

    #[test]
    fn the_oldest_that_is_not_under_way_gives_way() {
        let mut outbox = outbox(Policy::DropOldest, 3);
        let mut outcomes: Vec<_> = Vec::new();
        for n in 1..=2 {
            let (entry, outcome) = entry(None, n);
            outbox.push(entry).unwrap();
            outcomes.push(outcome);
        }
        assert_eq!(numbers(&mut outbox), [1, 2]);
        for n in 3..=5 {
            let (entry, outcome) = entry(None, n);
            outbox.push(entry).unwrap();
            outcomes.push(outcome);
        }
        let fates: Vec<_> = outcomes.iter_mut().map(|outcome| outcome.try_recv().ok()).collect();
        let dropped = Some(Outcome::Dropped(Dropped::Oldest));
        assert_eq!(fates, [None, None, dropped.clone(), dropped, None]);
        assert_eq!((outbox.counts.dropped_oldest, outbox.len().0), (2, 3));
        assert_eq!(send_all(&mut outbox), [(5, "5".to_owned())]);
        outbox.acknowledge(5);
        assert_eq!((outbox.len(), outbox.counts.taken, outbox.entries.len()), ((0, 0), 3, 0));
    }

    #[test]
    fn the_newest_is_refused_or_the_same_key_replaced() {
        let mut full = outbox(Policy::DropNewest, 2);
        for n in 1..=2 {
            full.push(entry(None, n).0).unwrap();
        }
        assert!(full.push(entry(None, 3).0).is_err());
        assert_eq!((full.counts.dropped_newest, numbers(&mut full)), (1, vec![1, 2]));

        let mut latest = outbox(Policy::Conflate, 2);
        latest.push(entry(Some("x"), 1).0).unwrap();
        latest.push(entry(Some("y"), 2).0).unwrap();
        latest.push(entry(Some("y"), 3).0).unwrap();
        assert_eq!((latest.counts.conflated, latest.counts.dropped_oldest), (1, 0));
        // Nothing of the same key: the oldest.
        latest.push(entry(Some("z"), 4).0).unwrap();
        assert_eq!((latest.counts.conflated, latest.counts.dropped_oldest), (1, 1));
        assert_eq!(numbers(&mut latest), [3, 4]);
    }

    #[test]
    fn bytes_are_a_bound_too() {
        let size = entry(None, 1).0.size();
        let config = PublisherConfig { outbox_bytes: 3 * size, ..PublisherConfig::default() };
        let mut outbox = Outbox::new(&config);
        for n in 1..=9 {
            outbox.push(entry(None, n).0).unwrap();
        }
        assert_eq!(outbox.len(), (3, 3 * size));
        assert_eq!(outbox.max_bytes(), 3 * size);
    }

    #[test]
    fn a_refusal_that_says_when_is_tried_again_and_one_that_does_not_settles() {
        let refusal =
            |code, retry_after| Refusal { retry_after, permanent: false, ..Refusal::new(None, code, "") };
        let mut outbox = outbox(Policy::DropOldest, 9);
        let (first, mut outcome) = entry(None, 1);
        outbox.push(first).unwrap();
        for _ in 0..100 {
            assert_eq!(numbers(&mut outbox), [1]);
            outbox.refuse(1, refusal("over_quota", Some(Duration::from_millis(1))));
            assert_eq!(outcome.try_recv().ok(), None);
        }
        assert_eq!(numbers(&mut outbox), [1]);
        outbox.refuse(1, refusal("topics_full", None));
        assert_eq!(outcome.try_recv().ok(), Some(Outcome::Refused(refusal("topics_full", None))));
        assert_eq!((numbers(&mut outbox).len(), outbox.len(), outbox.counts.refused), (0, (0, 0), 1));
    }

    proptest! {
        #[test]
        fn it_is_bounded_and_everything_has_one_outcome(
            steps in proptest::collection::vec((0u8..8, 0usize..20), 1..400),
            policy in prop_oneof![Just(Policy::DropOldest), Just(Policy::DropNewest), Just(Policy::Conflate)],
        ) {
            let mut outbox = outbox(policy, 10);
            let (mut outcomes, mut refused) = (Vec::new(), 0);
            for (step, n) in steps {
                match step {
                    0..=3 => {
                        let (entry, outcome) = entry(Some(["x", "y", "z"][n % 3]), n);
                        match outbox.push(entry) {
                            Ok(_) => outcomes.push(outcome),
                            Err(_) => refused += 1,
                        }
                    }
                    4 => drop(numbers(&mut outbox)),
                    5 => outbox.acknowledge(outbox.first + n as u64 / 2),
                    6 => {
                        let n = outbox.first + n as u64 / 2;
                        let retry_after = (!n.is_multiple_of(2)).then_some(Duration::ZERO);
                        outbox.refuse(n, Refusal { retry_after, ..Refusal::new(None, "x", "") });
                    }
                    _ => outbox.reconnected(),
                }
                prop_assert!(outbox.len().0 <= 10 && outbox.entries.len() <= 20);
            }
            outbox.reconnected();
            while let Some(last) = numbers(&mut outbox).last() {
                outbox.acknowledge(*last);
            }
            let total = outcomes.len() as u64;
            let fates: Vec<_> = outcomes.into_iter().map(|mut outcome| outcome.try_recv().unwrap()).collect();
            let count = |wanted: fn(&Outcome) -> bool| fates.iter().filter(|fate| wanted(fate)).count() as u64;
            let counts = outbox.counts;
            prop_assert_eq!(count(|fate| matches!(fate, Outcome::Taken)), counts.taken);
            prop_assert_eq!(count(|fate| matches!(fate, Outcome::Refused(_))), counts.refused);
            prop_assert_eq!(counts.dropped_newest, refused);
            prop_assert_eq!(
                counts.taken + counts.refused + counts.dropped_oldest + counts.conflated, total
            );
            prop_assert_eq!((outbox.len(), outbox.entries.len()), ((0, 0), 0));
        }
    }
}
