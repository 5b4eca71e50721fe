//! The state: the latest event of each topic and key.

use super::Event;
use super::topics::{TopicLog, Topics};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Latest {
    /// The latest events of all topics and keys, by their position.
    all: BTreeMap<u64, Arc<Event>>,
    bytes: usize,
    dropped: u64,
    /// The last position that left the state without a newer event in its place.
    lost: u64,
}

impl Latest {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Events that left without a newer one in their place; and the last such position.
    pub(super) fn dropped(&self) -> (u64, u64) {
        (self.dropped, self.lost)
    }

    pub(super) fn oldest(&self) -> Option<&Arc<Event>> {
        self.all.first_key_value().map(|(_, event)| event)
    }

    /// All after a position and not after another.
    pub(super) fn between(&self, after: u64, until: u64) -> impl Iterator<Item = &Arc<Event>> {
        let range = after.saturating_add(1)..=until;
        let some = (!range.is_empty()).then(|| self.all.range(range));
        some.into_iter().flatten().map(|(_, event)| event)
    }

    /// Takes out the latest event of a topic and key, for which there is a newer one.
    pub(super) fn supersede(&mut self, topics: &mut Topics, id: usize, key: &Option<Box<str>>) {
        let Some(topic) = topics.get_mut(id) else { return };
        let Some(event) = topic.keys.get(key).and_then(|seq| topic.latest.remove(seq)) else { return };
        self.all.remove(&event.seq);
        self.bytes -= event.cost();
    }

    pub(super) fn put(&mut self, topics: &mut Topics, event: &Arc<Event>) {
        let Some(topic) = topics.get_mut(event.topic_id) else { return };
        topic.keys.insert(event.key.clone(), event.seq);
        topic.latest.insert(event.seq, Arc::clone(event));
        self.all.insert(event.seq, Arc::clone(event));
        self.bytes += event.cost();
    }

    /// Takes the oldest of all out of the state; the place of its topic.
    pub(super) fn drop_oldest(&mut self, topics: &mut Topics) -> Option<usize> {
        let (seq, event) = self.all.pop_first()?;
        self.bytes -= event.cost();
        self.dropped += 1;
        self.lost = self.lost.max(seq);
        if let Some(topic) = topics.get_mut(event.topic_id) {
            topic.keys.remove(&event.key);
            topic.latest.remove(&seq);
        }
        Some(event.topic_id)
    }

    /// Drops all of a topic that is forgotten.
    pub(super) fn clear(&mut self, topic: &TopicLog) {
        for (seq, event) in &topic.latest {
            self.all.remove(seq);
            self.bytes -= event.cost();
            self.dropped += 1;
            self.lost = self.lost.max(*seq);
        }
    }
}
