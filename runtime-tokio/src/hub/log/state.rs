//! What a log holds, what it takes in, and what leaves when.

use super::history::History;
use super::latest::Latest;
use super::read::Effort;
use super::tail::Tail;
use super::topics::Topics;
use super::{AppendError, Event, LogConfig, Record, TopicsFull};
use longwire_core::log::{Distance, Topic};
use std::sync::Arc;
use tokio::time::Instant;

/// Everything behind the lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) tail: Tail,
    pub(super) topics: Topics,
    pub(super) history: History,
    pub(super) latest: Latest,
    /// Bytes of all events that were ever appended.
    pub(super) total: u64,
    pub(super) effort: Effort,
}

impl State {
    pub(super) fn new(config: &LogConfig) -> Self {
        Self {
            tail: Tail::default(),
            topics: Topics::new(config.topics_full == TopicsFull::Forget),
            history: History::default(),
            latest: Latest::default(),
            total: 0,
            effort: Effort::NORMAL,
        }
    }

    /// Finds or makes room for an event of this topic and key, and the place of its topic. When it is refused nothing
    /// has changed.
    pub(super) fn admit(
        &mut self,
        config: &LogConfig,
        topic: Topic<'_>,
        key: &Option<Box<str>>,
        cost: usize,
    ) -> Result<usize, AppendError> {
        let known = self.topics.find(topic.as_str());
        let forget = config.topics_full == TopicsFull::Forget;
        // With `Forget` only what would not fit into an empty table is refused.
        let (topics, keys, bytes) = match (forget, known.and_then(|id| self.topics.get(id))) {
            (true, _) => (0, 0, 0),
            (false, Some(topic)) => {
                let before = topic.keys.get(key).and_then(|seq| topic.latest.get(seq));
                let freed = before.map_or(0, |event| event.cost());
                (0, self.latest.len() - usize::from(before.is_some()), self.latest.bytes() - freed)
            }
            (false, None) => (self.topics.len(), self.latest.len(), self.latest.bytes()),
        };
        if topics >= config.max_topics {
            return Err(AppendError::Topics);
        }
        if keys >= config.max_keys {
            return Err(AppendError::Keys);
        }
        if cost > config.latest_bytes.saturating_sub(bytes) {
            return Err(AppendError::LatestBytes);
        }
        Ok(match known {
            Some(id) => id,
            None => {
                while self.topics.len() >= config.max_topics
                    && let Some(coldest) = self.topics.coldest()
                {
                    self.forget(coldest);
                }
                self.topics.add(topic)
            }
        })
    }

    /// Takes an admitted event in.
    pub(super) fn put(&mut self, config: &LogConfig, record: Record, now: Instant) {
        let event = Arc::clone(&record.event);
        self.total = event.total;
        self.topics.appended(event.topic_id, event.seq);
        self.tail.push(config, record);
        self.put_latest(config, &event);
        while let Some(oldest) = self.tail.pop(config, now) {
            self.left_tail(&oldest.event);
        }
        self.put_history(config, &event);
    }

    fn put_latest(&mut self, config: &LogConfig, event: &Arc<Event>) {
        self.latest.supersede(&mut self.topics, event.topic_id, &event.key);
        // Only with `Forget` there is still something over a bound: the oldest of all makes room.
        while (self.latest.len() >= config.max_keys
            || event.cost() > config.latest_bytes - self.latest.bytes())
            && let Some(id) = self.latest.drop_oldest(&mut self.topics)
        {
            self.bury(id);
        }
        self.latest.put(&mut self.topics, event);
    }

    fn put_history(&mut self, config: &LogConfig, event: &Arc<Event>) {
        let id = event.topic_id;
        self.history.push(&mut self.topics, event);
        while self.topics.get(id).is_some_and(|topic| topic.history.len() > config.history_events) {
            self.evict(id);
        }
        while self.history.bytes() > config.history_bytes {
            // A topic that has more than its share pays for itself; otherwise the one with the most pays.
            let own = self.topics.get(id).map_or(0, |topic| topic.bytes);
            let share = config.history_bytes / self.topics.len().max(1);
            let victim = if own > share { Some(id) } else { self.history.largest() };
            if !victim.is_some_and(|id| self.evict(id)) {
                break;
            }
        }
    }

    /// Drops the oldest event of a topic's history; false when it has none.
    fn evict(&mut self, id: usize) -> bool {
        let Some(event) = self.history.evict(&mut self.topics, id) else { return false };
        if event.seq < self.tail.start() {
            self.topics.lost(id, event.seq);
        }
        self.bury(id);
        true
    }

    fn left_tail(&mut self, event: &Event) {
        let Some(topic) = self.topics.of(event) else { return };
        if event.seq <= topic.evicted {
            self.topics.lost(event.topic_id, event.seq);
        }
        self.bury(event.topic_id);
    }

    /// Drops what is too old, at most `limit` events of each kind; true when there is more.
    pub(super) fn expire(&mut self, config: &LogConfig, now: Instant, limit: usize) -> bool {
        for _ in 0..limit {
            let mut done = true;
            if let Some(oldest) = self.tail.pop(config, now) {
                self.left_tail(&oldest.event);
                done = false;
            }
            if let Some(oldest) = self.history.oldest()
                && now.duration_since(oldest.born) > config.history_age
            {
                done &= !self.evict(oldest.topic_id);
            }
            if let Some(oldest) = self.latest.oldest()
                && now.duration_since(oldest.born) > config.latest_age
                && let Some(id) = self.latest.drop_oldest(&mut self.topics)
            {
                self.bury(id);
                done = false;
            }
            if done {
                return false;
            }
        }
        true
    }

    /// How far a position is from the head: its bytes and its age are those of the first event after it that is held.
    pub(super) fn distance(&self, head: u64, position: u64) -> Distance {
        let start = self.tail.start();
        let old = if position.saturating_add(1) < start {
            self.history.between(position, start).next()
        } else {
            None
        };
        match old.map(|event| &**event).or_else(|| self.tail.first_after(position)) {
            Some(first) => Distance {
                events: head.saturating_sub(position),
                bytes: self.total - (first.total - first.cost() as u64),
                age: first.born.elapsed(),
            },
            None => Distance::default(),
        }
    }

    /// Forgets a topic of which nothing is held, so that there is room for another.
    fn bury(&mut self, id: usize) {
        if self.topics.get(id).is_some_and(|topic| topic.is_dead(self.tail.start())) {
            self.topics.remove(id);
        }
    }

    /// Forgets a topic with all that is held of it but for the tail, which is all topics' together.
    fn forget(&mut self, id: usize) {
        if let Some(topic) = self.topics.remove(id) {
            self.history.clear(&topic, id);
            self.latest.clear(&topic);
        }
    }
}
