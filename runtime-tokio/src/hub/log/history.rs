//! The histories of all topics: what resume reads once the tail has moved on.

use super::Event;
use super::topics::{TopicLog, Topics};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct History {
    /// The events of all histories, by their position: a reader of many topics goes along here.
    all: BTreeMap<u64, Arc<Event>>,
    bytes: usize,
    /// Topics by the bytes of their history: who has the most is last.
    by_size: BTreeSet<(usize, usize)>,
    evicted: u64,
}

impl History {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Events that left.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The topic with the most bytes.
    pub(super) fn largest(&self) -> Option<usize> {
        self.by_size.last().map(|(_, id)| *id)
    }

    pub(super) fn oldest(&self) -> Option<Arc<Event>> {
        self.all.first_key_value().map(|(_, event)| Arc::clone(event))
    }

    /// All events after a position and before another.
    pub(super) fn between(&self, after: u64, before: u64) -> impl Iterator<Item = &Arc<Event>> {
        let range = after.saturating_add(1)..before;
        let some = (!range.is_empty()).then(|| self.all.range(range));
        some.into_iter().flatten().map(|(_, event)| event)
    }

    pub(super) fn push(&mut self, topics: &mut Topics, event: &Arc<Event>) {
        let id = event.topic_id;
        let Some(topic) = topics.get_mut(id) else { return };
        topic.history.push_back(Arc::clone(event));
        self.all.insert(event.seq, Arc::clone(event));
        self.bytes += event.cost();
        self.resize(topic, id, topic.bytes + event.cost());
    }

    /// Drops the oldest event of a topic.
    pub(super) fn evict(&mut self, topics: &mut Topics, id: usize) -> Option<Arc<Event>> {
        let topic = topics.get_mut(id)?;
        let event = topic.history.pop_front()?;
        self.all.remove(&event.seq);
        self.bytes -= event.cost();
        self.evicted += 1;
        topic.evicted = event.seq;
        self.resize(topic, id, topic.bytes - event.cost());
        Some(event)
    }

    /// Drops all of a topic that is forgotten.
    pub(super) fn clear(&mut self, topic: &TopicLog, id: usize) {
        for event in &topic.history {
            self.all.remove(&event.seq);
            self.evicted += 1;
        }
        self.bytes -= topic.bytes;
        self.by_size.remove(&(topic.bytes, id));
    }

    fn resize(&mut self, topic: &mut TopicLog, id: usize, bytes: usize) {
        self.by_size.remove(&(topic.bytes, id));
        topic.bytes = bytes;
        if bytes > 0 {
            self.by_size.insert((bytes, id));
        }
    }
}
