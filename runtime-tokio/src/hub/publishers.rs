//! Publications of clients: stored once, within quotas (`PROTOCOL.md` sections 5.2, 5.3 and 8.2).
//!
//! Three tables of a log decide about a publication, and one lock holds them from the first look to the append and what
//! is remembered of it. So of two connections that send the same publication at once, one finds that the other was
//! first. Appending has a lock of its own, for a time as short; who publishes without being a client does not come here.

use super::recent::Recent;
use super::shared::Shared;
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
    numbers: Recent<(Arc<str>, u64), Taken>,
    /// Where what came with a key is, and since when, by subject and key. Looking touches nothing, so the oldest is the
    /// one that came first.
    keys: Recent<(Arc<str>, Arc<str>), (u64, Instant)>,
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
            numbers: Recent::new(config.max_publishers),
            keys: Recent::new(config.max_idempotency_keys),
            topics: Recent::new(max_topics),
        }))
    }

    /// The largest number that was taken from a publisher; `None` when it is not known.
    pub(super) fn last(&self, subject: &Arc<str>, incarnation: Incarnation) -> Option<u64> {
        self.lock().numbers.peek(&(Arc::clone(subject), incarnation.0)).and_then(Taken::largest)
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn look(&mut self, publication: &Publication<'_>, now: Instant, max_age: Duration) -> Seen {
        while self.keys.oldest().is_some_and(|(_, born)| now.duration_since(*born) > max_age) {
            self.keys.forget_oldest();
        }
        match publication.once {
            None => Seen::New,
            Some(Once::Number(PublicationId { incarnation, n })) => {
                let publisher = (Arc::clone(publication.subject), incarnation.0);
                let number = match self.numbers.peek(&publisher) {
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
                let at = self.keys.peek(&(Arc::clone(publication.subject), key.into()));
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
                let publisher = (Arc::clone(subject), incarnation.0);
                let (taken, forgotten) = self.numbers.touch(&publisher, Taken::new);
                taken.take(n);
                count(&counters.publishers_forgotten, u64::from(forgotten));
                counters.publishers.store(self.numbers.len() as u64, Ordering::Relaxed);
            }
            Some(Once::Key(key)) => {
                self.keys.touch(&(Arc::clone(subject), key.into()), || (seq, now));
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
                // It costs the connection what it sends; the topic has had it.
                allowed.map_err(PublishError::OverQuota)?;
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
    /// Publishes for a client: once, when the publication says by what a repetition is known, and within the quotas of its
    /// connection and of the topic. `quota` is that of the connection; without one only the topic's counts.
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
