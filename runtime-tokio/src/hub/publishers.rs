//! Publications of clients: stored once, within quotas (`PROTOCOL.md` sections 5.2, 5.3 and 8.2).
//!
//! Three tables of a log decide about a publication, and one lock holds them from the first look to the append and what
//! is remembered of it. So of two connections that send the same publication at once, one finds that the other was
//! first. Appending has a lock of its own, for a time as short; who publishes without being a client does not come
//! here.

use super::recent::Recent;
use super::shared::Shared;
use super::shares::Shares;
use super::{AppendError, Counters, Data, HubConfig, LogHandle, count};
use longwire_core::log::{Bound, Cursor, Key, OverQuota, Quota, Topic};
use longwire_core::session::publisher::{Incarnation, Number, PublicationId, Taken};
use longwire_core::session::{Code, Refusal};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What a publisher is told to wait when the shards are behind: how long that takes is not known, and meanwhile its
/// connection is not read.
const CONGESTED: Duration = Duration::from_millis(100);

/// What a client publishes.
#[derive(Debug)]
pub struct Publication<'p> {
    /// Who: the subject of its grant. Whether that covers the topic was looked at before.
    pub subject: &'p Arc<str>,
    /// What it has in common with a repetition of it.
    pub once: Option<Once<'p>>,
    /// Where to.
    pub topic: Topic<'p>,
    /// What distinguishes it within the topic.
    pub key: Option<Key<'p>>,
    /// The value.
    pub data: Data,
}

impl Publication<'_> {
    /// What quotas count.
    fn bytes(&self) -> u64 {
        let key = self.key.map_or(0, |key| key.as_str().len());
        (self.data.len() + self.topic.as_str().len() + key) as u64
    }
}

/// By what a repetition is known, among the publications of one subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Once<'p> {
    /// The number that an incarnation of the publisher gave it.
    Number(PublicationId),
    /// The key that came with a POST.
    Key(&'p str),
}

/// A publication is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where. `None` when it was stored before, and where is not remembered.
    pub at: Option<Cursor>,
    /// It was stored before.
    pub repeated: bool,
    /// How long to wait before the next one, or it may be refused.
    pub pressure: Option<Duration>,
}

/// A publication is refused. Nothing was stored, and its number or key is as new as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// The log has no room for it.
    Append(AppendError),
    /// Its number lies so far back that nobody knows whether it was stored.
    OutOfWindow,
    /// The quota of the connection.
    OverQuota(OverQuota),
    /// The quota of the topic.
    OverTopicQuota(OverQuota),
}

impl PublishError {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Append(error) => error.as_str(),
            Self::OutOfWindow => {
                "the number lies before the window in which the gateway knows what it has taken"
            }
            Self::OverQuota(OverQuota { bound: Bound::Messages, .. }) => {
                "more publications than this connection may have (max_rate)"
            }
            Self::OverQuota(_) => "more bytes than this connection may publish (max_byte_rate)",
            Self::OverTopicQuota(OverQuota { bound: Bound::Messages, .. }) => {
                "more publications than this topic may have (max_topic_rate)"
            }
            Self::OverTopicQuota(_) => "more bytes than this topic may have (max_topic_byte_rate)",
        }
    }

    /// As the protocol says it.
    pub fn refusal(self) -> Refusal<'static> {
        match self {
            Self::Append(error) => error.refusal(),
            Self::OutOfWindow => Refusal::new(Code::OutOfWindow, self.as_str()),
            Self::OverQuota(over) | Self::OverTopicQuota(over) => {
                Refusal::new(Code::OverQuota, self.as_str()).retry_after(over.wait)
            }
        }
    }

    fn count(self, counters: &Counters) {
        count(&counters.refused, 1);
        let counter = match self {
            Self::Append(_) => return,
            Self::OutOfWindow => &counters.out_of_window,
            Self::OverQuota(OverQuota { bound: Bound::Messages, .. }) => &counters.over_rate,
            Self::OverQuota(_) => &counters.over_byte_rate,
            Self::OverTopicQuota(OverQuota { bound: Bound::Messages, .. }) => &counters.over_topic_rate,
            Self::OverTopicQuota(_) => &counters.over_topic_byte_rate,
        };
        count(counter, 1);
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for PublishError {}

/// What one log remembers of its publishers, whatever their connections.
#[derive(Debug)]
pub(super) struct Publishers(Mutex<Tables>);

#[derive(Debug)]
struct Tables {
    /// The numbers that were taken, by subject and incarnation. Who publishes is touched.
    numbers: Shares<u64, Taken>,
    /// Where what came with a key is, and since when, by subject and key. Looking touches nothing, so the oldest is the
    /// one that came first.
    keys: Shares<Arc<str>, (u64, Instant)>,
    /// The buckets of topics. One that is not here is full.
    topics: Recent<Arc<str>, Quota>,
}

/// What is known of a publication before it is stored.
enum Seen {
    New,
    Before(Option<u64>),
    OutOfWindow,
}

impl Publishers {
    pub(super) fn new(config: &HubConfig, max_topics: usize) -> Self {
        Self(Mutex::new(Tables {
            numbers: Shares::new(config.max_publishers),
            keys: Shares::new(config.max_idempotency_keys),
            topics: Recent::new(max_topics),
        }))
    }

    /// The largest number that was taken from a publisher; `None` when it is not known.
    pub(super) fn last(&self, subject: &Arc<str>, incarnation: Incarnation) -> Option<u64> {
        self.lock().numbers.peek(subject, &incarnation.0).and_then(Taken::largest)
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn look(&mut self, publication: &Publication<'_>, now: Instant, max_age: Duration) -> Seen {
        let subject = publication.subject;
        self.keys.forget_while(subject, |(_, born)| now.duration_since(*born) > max_age);
        match publication.once {
            None => Seen::New,
            Some(Once::Number(PublicationId { incarnation, n })) => {
                let number = match self.numbers.peek(subject, &incarnation.0) {
                    Some(taken) => taken.look(n),
                    None => Taken::new().look(n),
                };
                match number {
                    Number::New => Seen::New,
                    Number::Repeated => Seen::Before(None),
                    Number::OutOfWindow => Seen::OutOfWindow,
                }
            }
            Some(Once::Key(key)) => {
                let at = self.keys.peek(subject, key);
                at.map_or(Seen::New, |(seq, _)| Seen::Before(Some(*seq)))
            }
        }
    }

    /// It was stored.
    fn remember(
        &mut self,
        subject: &Arc<str>,
        once: Option<Once<'_>>,
        seq: u64,
        now: Instant,
        counters: &Counters,
    ) {
        match once {
            None => {}
            Some(Once::Number(PublicationId { incarnation, n })) => {
                let (taken, forgotten) = self.numbers.touch(subject, &incarnation.0, Taken::new);
                taken.into_iter().for_each(|taken| taken.take(n));
                count(&counters.publishers_forgotten, u64::from(forgotten));
                counters.publishers.store(self.numbers.len() as u64, Ordering::Relaxed);
            }
            Some(Once::Key(key)) => {
                self.keys.touch(subject, &key.into(), || (seq, now));
                counters.idempotency_keys.store(self.keys.len() as u64, Ordering::Relaxed);
            }
        }
    }
}

impl Shared {
    /// Stores what a client publishes, once, unless a quota forbids it; `quota` is that of its connection.
    pub(super) fn publish(
        &self,
        publication: Publication<'_>,
        quota: &mut Quota,
    ) -> Result<Published, PublishError> {
        let published = self.try_publish(publication, quota);
        published.inspect_err(|error| error.count(&self.counters))
    }

    fn try_publish(
        &self,
        publication: Publication<'_>,
        quota: &mut Quota,
    ) -> Result<Published, PublishError> {
        let (config, now) = (&*self.config, self.clock.now());
        let bytes = publication.bytes();
        let born = Instant::now();
        let mut tables = self.publishers.lock();
        let tables = &mut *tables;
        let seen = tables.look(&publication, born, config.idempotency_age);
        let allowed = quota.check(&config.quota, now, bytes);
        let Publication { subject, once, topic, key, data } = publication;
        let published = |at: Option<u64>, repeated, pressure: Option<Duration>| {
            let congested = self.is_behind().then_some(CONGESTED);
            Published { at: at.map(|seq| self.log.cursor(seq)), repeated, pressure: pressure.max(congested) }
        };
        match seen {
            Seen::OutOfWindow => Err(PublishError::OutOfWindow),
            Seen::Before(at) => {
                // Whoever sends again is told so, whatever its quota says: a `nack` would mean that it was not taken.
                // It costs the connection what it sends, and the next publication waits; the topic has had it.
                quota.spend(&config.quota, now, bytes);
                count(&self.counters.repeated, 1);
                Ok(published(at, true, quota.pressure(&config.quota, now)))
            }
            Seen::New => {
                let topic_quota = tables.topics.peek(topic.as_str()).copied().unwrap_or_default();
                let topic_allowed = topic_quota.check(&config.topic_quota, now, bytes);
                both(allowed, topic_allowed)?;
                let seq = self.append(topic, key, data).map_err(PublishError::Append)?;
                quota.spend(&config.quota, now, bytes);
                let (topic_quota, _) = tables.topics.touch(&topic.as_str().into(), Quota::new);
                topic_quota.spend(&config.topic_quota, now, bytes);
                let topic_pressure = topic_quota.pressure(&config.topic_quota, now);
                tables.remember(subject, once, seq, born, &self.counters);
                Ok(published(Some(seq), false, quota.pressure(&config.quota, now).max(topic_pressure)))
            }
        }
    }
}

/// Neither forbids it; or else the one that does so for longer, so that who waits as long is refused by neither.
fn both(connection: Result<(), OverQuota>, topic: Result<(), OverQuota>) -> Result<(), PublishError> {
    let connection = connection.err().map(|over| (over.wait, PublishError::OverQuota(over)));
    let topic = topic.err().map(|over| (over.wait, PublishError::OverTopicQuota(over)));
    let longest = connection.into_iter().chain(topic).max_by_key(|(wait, _)| *wait);
    longest.map_or(Ok(()), |(_, error)| Err(error))
}

impl LogHandle {
    /// Publishes for a client: once, when the publication says by what a repetition is known, and within the quotas
    /// of its connection and of the topic. `quota` is that of the connection; without one only the topic's counts.
    ///
    /// Waits as [`publish`](Self::publish) does. Dropped while it waits, nothing is published.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish_for(
        &self,
        publication: Publication<'_>,
        quota: Option<&Mutex<Quota>>,
    ) -> Result<Published, PublishError> {
        self.shared.admitted().await;
        match quota {
            Some(quota) => {
                let mut quota = quota.lock().unwrap_or_else(PoisonError::into_inner);
                self.shared.publish(publication, &mut quota)
            }
            None => self.shared.publish(publication, &mut Quota::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Open;
    use super::super::shared::Common;
    use super::*;
    use crate::clock::Clock;
    use longwire_core::log::{QuotaConfig, Rate};
    use longwire_core::session::publisher::WINDOW;
    use proptest::prelude::*;
    use std::collections::{BTreeSet, HashMap};
    use std::thread;

    fn shared(change: impl FnOnce(&mut HubConfig)) -> Shared {
        let off = QuotaConfig::default();
        let mut config = HubConfig { shards: 1, quota: off, topic_quota: off, ..HubConfig::default() };
        change(&mut config);
        let common = Common {
            websocket: Arc::new(config.websocket()),
            config: Arc::new(config.clone()),
            authorize: Arc::new(Open),
            clock: Clock::start(),
            revocations: Arc::default(),
            next: Arc::default(),
        };
        Shared::new("default", config.log, common).unwrap()
    }

    fn number(incarnation: u64, n: u64) -> Option<Once<'static>> {
        Some(Once::Number(PublicationId { incarnation: Incarnation(incarnation), n }))
    }

    fn publication<'p>(subject: &'p Arc<str>, once: Option<Once<'p>>, topic: &'p str) -> Publication<'p> {
        let data = Data::json(b"1").unwrap();
        Publication { subject, once, topic: Topic::parse(topic).unwrap(), key: None, data }
    }

    /// Publishes on a connection of its own: whether it was repeated, and where it is.
    fn publish(
        shared: &Shared,
        subject: &str,
        once: Option<Once<'_>>,
    ) -> Result<(bool, Option<u64>), PublishError> {
        let published = shared.publish(publication(&subject.into(), once, "a"), &mut Quota::new())?;
        Ok((published.repeated, published.at.map(|at| at.seq)))
    }

    #[test]
    fn a_publisher_is_a_subject_and_an_incarnation() {
        let shared = shared(|_| {});
        let last =
            |subject: &str, incarnation| shared.publishers.last(&subject.into(), Incarnation(incarnation));
        assert_eq!(publish(&shared, "ann", number(1, 7)), Ok((false, Some(1))));
        assert_eq!(publish(&shared, "ann", number(1, 7)), Ok((true, None)));
        assert_eq!(publish(&shared, "bob", number(1, 7)), Ok((false, Some(2))));
        assert_eq!(publish(&shared, "ann", number(2, 7)), Ok((false, Some(3))));
        // Who gives no number is not asked.
        assert_eq!(publish(&shared, "ann", None), Ok((false, Some(4))));
        assert_eq!(publish(&shared, "ann", None), Ok((false, Some(5))));
        assert_eq!((last("ann", 1), last("ann", 3), last("eve", 1)), (Some(7), None, None));
        assert_eq!(shared.log.head(), 5);
    }

    #[test]
    fn a_key_is_remembered_with_its_place_for_its_subject() {
        let shared = shared(|_| {});
        assert_eq!(publish(&shared, "ann", Some(Once::Key("k"))), Ok((false, Some(1))));
        assert_eq!(publish(&shared, "bob", Some(Once::Key("k"))), Ok((false, Some(2))));
        assert_eq!(publish(&shared, "ann", Some(Once::Key("l"))), Ok((false, Some(3))));
        assert_eq!(publish(&shared, "ann", Some(Once::Key("k"))), Ok((true, Some(1))));
        assert_eq!(shared.counters.repeated.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_forgotten_when_it_is_too_old_and_not_because_others_are() {
        let shared = shared(|c| c.idempotency_age = Duration::from_secs(60));
        assert_eq!(publish(&shared, "ann", Some(Once::Key("k"))), Ok((false, Some(1))));
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(publish(&shared, "ann", Some(Once::Key("l"))), Ok((false, Some(2))));
        // A repetition makes it no younger.
        assert_eq!(publish(&shared, "ann", Some(Once::Key("k"))), Ok((true, Some(1))));
        tokio::time::advance(Duration::from_secs(21)).await;
        assert_eq!(publish(&shared, "ann", Some(Once::Key("l"))), Ok((true, Some(2))));
        assert_eq!(publish(&shared, "ann", Some(Once::Key("k"))), Ok((false, Some(3))));
    }

    #[test]
    fn what_was_refused_was_not_taken() {
        let shared = shared(|c| c.log.max_topics = 1);
        let subject = "ann".into();
        let to = |topic, once| shared.publish(publication(&subject, once, topic), &mut Quota::new());
        assert!(to("a", number(1, 1)).is_ok());
        for once in [number(1, 2), Some(Once::Key("k"))] {
            for _ in 0..2 {
                assert_eq!(to("b", once), Err(PublishError::Append(AppendError::Topics)));
            }
            assert!(!to("a", once).unwrap().repeated);
            assert!(to("b", once).unwrap().repeated);
        }
        assert_eq!(shared.counters.refused.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn numbers_that_no_honest_publisher_has_hurt_nobody_else() {
        let shared = shared(|_| {});
        assert_eq!(publish(&shared, "ann", number(1, 5)), Ok((false, Some(1))));
        assert_eq!(publish(&shared, "eve", number(1, 0)), Err(PublishError::OutOfWindow));
        assert_eq!(publish(&shared, "eve", number(1, u64::MAX)), Ok((false, Some(2))));
        assert_eq!(publish(&shared, "eve", number(1, u64::MAX)), Ok((true, None)));
        assert_eq!(publish(&shared, "eve", number(1, u64::MAX - WINDOW)), Err(PublishError::OutOfWindow));
        assert_eq!(publish(&shared, "eve", number(1, 1)), Err(PublishError::OutOfWindow));
        assert_eq!(publish(&shared, "ann", number(1, 5)), Ok((true, None)));
        assert_eq!(publish(&shared, "ann", number(1, 6)), Ok((false, Some(3))));
        assert_eq!(shared.counters.out_of_window.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_flood_of_publishers_and_keys_is_held_and_forgets_the_silent_first() {
        let shared = shared(|c| (c.max_publishers, c.max_idempotency_keys) = (100, 50));
        publish(&shared, "ann", number(u64::MAX, 1)).unwrap();
        for n in 0..20_000 {
            publish(&shared, "eve", number(n, 1)).unwrap();
            publish(&shared, "eve", Some(Once::Key(&n.to_string()))).unwrap();
            if n % 50 == 0 {
                // Ann publishes now and then, and is not forgotten; looking alone would not help her.
                assert!(!publish(&shared, "ann", number(u64::MAX, n + 2)).unwrap().0);
                assert!(publish(&shared, "ann", number(u64::MAX, n + 2)).unwrap().0);
            }
        }
        let counters = &shared.counters;
        assert_eq!(counters.publishers.load(Ordering::Relaxed), 100);
        assert_eq!(counters.idempotency_keys.load(Ordering::Relaxed), 50);
        assert_eq!(counters.publishers_forgotten.load(Ordering::Relaxed), 20_001 - 100);
        let tables = shared.publishers.lock();
        assert_eq!((tables.numbers.len(), tables.keys.len(), tables.topics.len()), (100, 50, 1));
        drop(tables);
        // Whom nobody knows any more is as one who comes for the first time.
        assert!(!publish(&shared, "eve", number(0, 1)).unwrap().0);
        assert!(publish(&shared, "eve", number(19_999, 1)).unwrap().0);
    }

    #[test]
    fn of_those_who_send_the_same_at_once_one_is_first() {
        const NUMBERS: u64 = 3_000;
        // As many shards as nobody serves: the log does not wait for them here.
        let shared = shared(|c| c.log.history_events = 1 << 20);
        let stored = |publish: &(dyn Fn(u64) -> (bool, Option<u64>) + Sync)| -> Vec<u64> {
            let run = || (1..=NUMBERS).filter(|n| !publish(*n).0).count() as u64;
            thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            })
        };
        let head = shared.log.head();
        let numbers = stored(&|n| match publish(&shared, "ann", number(1, n)) {
            Ok(published) => published,
            // A thread that fell a window behind the others is told so.
            Err(error) => {
                assert_eq!(error, PublishError::OutOfWindow);
                (true, None)
            }
        });
        assert_eq!((numbers.iter().sum::<u64>(), shared.log.head() - head), (NUMBERS, NUMBERS));
        let head = shared.log.head();
        let keys = stored(&|n| publish(&shared, "ann", Some(Once::Key(&n.to_string()))).unwrap());
        assert_eq!((keys.iter().sum::<u64>(), shared.log.head() - head), (NUMBERS, NUMBERS));
    }

    proptest! {
        /// Any publishers, any numbers in any order, refusals in between: each number is stored at most once, and is
        /// acknowledged if and only if it was stored.
        #[test]
        fn each_number_is_stored_at_most_once_and_exactly_once_if_acknowledged(
            steps in prop::collection::vec(
                (0..2usize, 0..2u64, prop_oneof![0..8u64, 0..3000u64], 0..3usize), 1..200),
        ) {
            let shared = shared(|c| c.log.max_topics = 2);
            let subjects: [Arc<str>; 2] = ["ann".into(), "bob".into()];
            let mut model: HashMap<(usize, u64), BTreeSet<u64>> = HashMap::new();
            let mut topics = BTreeSet::new();
            let mut stored = 0;
            for (subject, incarnation, n, topic) in steps {
                let taken = model.entry((subject, incarnation)).or_default();
                let largest = taken.last().copied();
                let topic = ["a", "b", "c"][topic];
                let result =
                    shared.publish(publication(&subjects[subject], number(incarnation, n), topic), &mut Quota::new());
                let result = result.map(|published| (published.repeated, published.at.map(|at| at.seq)));
                let expected = if n == 0 || largest.is_some_and(|largest| n + WINDOW <= largest) {
                    Err(PublishError::OutOfWindow)
                } else if taken.contains(&n) {
                    Ok((true, None))
                } else if topics.len() == 2 && !topics.contains(topic) {
                    Err(PublishError::Append(AppendError::Topics))
                } else {
                    topics.insert(topic);
                    taken.insert(n);
                    stored += 1;
                    Ok((false, Some(stored)))
                };
                prop_assert_eq!(result, expected);
                let incarnation = Incarnation(incarnation);
                prop_assert_eq!(shared.publishers.last(&subjects[subject], incarnation), taken.last().copied());
            }
            prop_assert_eq!(shared.log.head(), stored);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_quota_refuses_for_exactly_as_long_as_it_says_and_takes_nothing_then() {
        let shared = shared(|c| {
            c.quota = QuotaConfig { messages: Rate::new(10, 4), bytes: None };
            c.topic_quota = QuotaConfig { messages: Rate::new(10, 6), bytes: Rate::new(10, 1000) };
        });
        let subject = "ann".into();
        let (mut first, mut second) = (Quota::new(), Quota::new());
        let publish = |quota: &mut Quota, n| shared.publish(publication(&subject, number(1, n), "a"), quota);
        let pressure = |quota: &mut Quota, n| publish(quota, n).map(|published| published.pressure);
        assert_eq!(pressure(&mut first, 1), Ok(None));
        assert_eq!(pressure(&mut first, 2), Ok(None));
        assert_eq!(pressure(&mut first, 3), Ok(Some(Duration::from_millis(100))));
        assert_eq!(pressure(&mut first, 4), Ok(Some(Duration::from_millis(200))));
        let over = |millis| OverQuota { bound: Bound::Messages, wait: Duration::from_millis(millis) };
        for _ in 0..3 {
            assert_eq!(publish(&mut first, 5), Err(PublishError::OverQuota(over(100))));
        }
        // The topic has two left, for whoever comes; then it is the topic that says no.
        assert!(publish(&mut second, 6).is_ok() && publish(&mut second, 7).is_ok());
        assert_eq!(publish(&mut second, 8), Err(PublishError::OverTopicQuota(over(100))));
        // What was taken is no more of the topic's business.
        assert!(publish(&mut second, 7).unwrap().repeated);
        tokio::time::advance(Duration::from_millis(99)).await;
        assert_eq!(publish(&mut first, 5), Err(PublishError::OverTopicQuota(over(1))));
        tokio::time::advance(Duration::from_millis(1)).await;
        // What was refused three times was stored once.
        assert!(!publish(&mut first, 5).unwrap().repeated);
        assert_eq!(shared.log.head(), 7);
        // A repetition is told so also then: who is refused may take it that nothing was stored.
        assert!(publish(&mut first, 9).is_err());
        assert_eq!(publish(&mut first, 5).unwrap().pressure, Some(Duration::from_millis(300)));
        let (over, over_topic) = (&shared.counters.over_rate, &shared.counters.over_topic_rate);
        assert_eq!((over.load(Ordering::Relaxed), over_topic.load(Ordering::Relaxed)), (3, 3));
    }

    #[test]
    fn a_publication_of_many_bytes_is_taken_and_owed() {
        let shared = shared(|c| c.quota.bytes = Rate::new(1000, 100));
        let subject = "ann".into();
        let mut quota = Quota::new();
        let big = Publication {
            data: Data::opaque("", vec![0; 5000].into()).unwrap(),
            ..publication(&subject, None, "a")
        };
        // Or it could never be published, whatever its sender waits.
        assert!(shared.publish(big, &mut quota).is_ok());
        let refused = shared.publish(publication(&subject, None, "a"), &mut quota).unwrap_err();
        let PublishError::OverQuota(over) = refused else { panic!("{refused:?}") };
        assert!(over.bound == Bound::Bytes && over.wait > Duration::from_secs(4), "{over:?}");
        assert_eq!(refused.refusal().retry_after, Some(over.wait));
    }

    #[test]
    fn shards_that_are_behind_are_told_as_pressure() {
        let shared = shared(|c| c.log.tail_events = 8);
        let subject = "ann".into();
        let pressure =
            || shared.publish(publication(&subject, None, "a"), &mut Quota::new()).unwrap().pressure;
        assert_eq!(pressure(), None);
        // Nobody serves these shards.
        let pressures: Vec<_> = (0..20).map(|_| pressure()).collect();
        assert_eq!(pressures.last(), Some(&Some(CONGESTED)));
    }
}
