//! The table of topics, and what each has.

use super::tree::{Found, Node, Tree, Visit};
use super::{Event, Filter, REMEMBERED};
use longwire_core::log::{MAX_DEPTH, Topic, TopicName};
use slab::Slab;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Topics {
    names: HashMap<Arc<str>, usize>,
    slots: Slab<TopicLog>,
    tree: Tree,
    /// Topics by their last position, if the coldest may have to go.
    by_last: Option<BTreeSet<(u64, usize)>>,
    /// Topics that were forgotten, and the last position that one of them had.
    pub(super) forgotten: u64,
    pub(super) forgotten_upto: u64,
}

#[derive(Debug)]
pub(super) struct TopicLog {
    pub(super) name: TopicName<Arc<str>>,
    node: usize,
    /// The position of its last event.
    pub(super) last: u64,
    pub(super) history: VecDeque<Arc<Event>>,
    pub(super) bytes: usize,
    /// The last position that left the history. It may still be in the tail.
    pub(super) evicted: u64,
    pub(super) losses: Losses,
    /// Where the latest event of each key is, and those events in their order.
    pub(super) keys: HashMap<Option<Box<str>>, u64>,
    pub(super) latest: BTreeMap<u64, Arc<Event>>,
}

/// What a topic no longer has anywhere.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// The newest positions, in order.
    remembered: VecDeque<u64>,
    /// The last position before those; what is lost up to here is not known one by one.
    dim: u64,
}

impl Losses {
    fn push(&mut self, seq: u64) {
        if self.remembered.len() == REMEMBERED {
            self.dim = self.remembered.pop_front().unwrap_or(self.dim);
        }
        self.remembered.push_back(seq);
    }

    /// How many of those remembered are not after a position.
    fn upto(&self, seq: u64) -> usize {
        self.remembered.partition_point(|lost| *lost <= seq)
    }

    /// The last loss that is not after `until`.
    fn last_upto(&self, until: u64) -> u64 {
        let newest = self.upto(until).checked_sub(1).and_then(|at| self.remembered.get(at)).copied();
        // Before what is remembered there may have been one anywhere.
        newest.unwrap_or(self.dim.min(until))
    }

    /// How many losses there are after `after` and not after `to`.
    fn between(&self, after: u64, to: u64) -> Option<u64> {
        (after >= self.dim).then(|| self.upto(to).saturating_sub(self.upto(after)) as u64)
    }
}

impl Topics {
    pub(super) fn new(may_forget: bool) -> Self {
        Self { by_last: may_forget.then(BTreeSet::new), ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    pub(super) fn get(&self, id: usize) -> Option<&TopicLog> {
        self.slots.get(id)
    }

    pub(super) fn get_mut(&mut self, id: usize) -> Option<&mut TopicLog> {
        self.slots.get_mut(id)
    }

    /// The topic of an event, unless it was forgotten since.
    pub(super) fn of(&mut self, event: &Event) -> Option<&mut TopicLog> {
        let same = |topic: &&mut TopicLog| Arc::ptr_eq(topic.name.holder(), event.topic.holder());
        self.slots.get_mut(event.topic_id).filter(same)
    }

    /// Adds a topic that is not there.
    pub(super) fn add(&mut self, name: Topic<'_>) -> usize {
        let entry = self.slots.vacant_entry();
        let id = entry.key();
        let (node, forgotten) = self.tree.insert(name, id);
        let name = TopicName::<Arc<str>>::from(name);
        self.names.insert(Arc::clone(name.holder()), id);
        entry.insert(TopicLog {
            name,
            node,
            last: 0,
            history: VecDeque::new(),
            bytes: 0,
            evicted: 0,
            losses: Losses { remembered: VecDeque::new(), dim: forgotten },
            keys: HashMap::new(),
            latest: BTreeMap::new(),
        });
        id
    }

    /// A topic has an event at `seq`, after all others.
    pub(super) fn appended(&mut self, id: usize, seq: u64) {
        let Some(topic) = self.slots.get_mut(id) else { return };
        if let Some(by_last) = &mut self.by_last {
            by_last.remove(&(topic.last, id));
            by_last.insert((seq, id));
        }
        topic.last = seq;
        self.tree.appended(topic.node, seq);
    }

    /// A topic lost its event at `seq`: neither history nor tail has it.
    pub(super) fn lost(&mut self, id: usize, seq: u64) {
        let Some(topic) = self.slots.get_mut(id) else { return };
        topic.losses.push(seq);
        self.tree.lost(topic.node, seq);
    }

    /// The topic that was not published to for longest.
    pub(super) fn coldest(&self) -> Option<usize> {
        self.by_last.as_ref()?.first().map(|(_, id)| *id)
    }

    /// Forgets a topic; what was held of it is the caller's to clear.
    pub(super) fn remove(&mut self, id: usize) -> Option<TopicLog> {
        let topic = self.slots.try_remove(id)?;
        self.names.remove(topic.name.holder());
        self.tree.remove(topic.node, topic.last);
        if let Some(by_last) = &mut self.by_last {
            by_last.remove(&(topic.last, id));
        }
        self.forgotten += 1;
        self.forgotten_upto = self.forgotten_upto.max(topic.last);
        Some(topic)
    }

    /// The topics that match and have something after a position; `None` when more than `limit` places would have to
    /// be looked at beside those that the patterns name.
    pub(super) fn active(&self, filter: &Filter, after: u64, limit: usize) -> Option<Vec<usize>> {
        let mut visit =
            Active { after, left: limit.saturating_add(MAX_DEPTH * filter.len()), found: Vec::new() };
        for pattern in filter.parsed() {
            if self.tree.walk(pattern, &mut visit).is_break() {
                return None;
            }
        }
        if filter.len() > 1 {
            visit.found.sort_unstable();
            visit.found.dedup();
        }
        Some(visit.found)
    }

    /// The last loss after `floor` and not after `until` of what matches.
    pub(super) fn last_loss(&self, filter: &Filter, floor: u64, until: u64) -> Option<u64> {
        let mut visit = LastLoss { topics: self, until, best: floor };
        for pattern in filter.parsed() {
            let _ = self.tree.walk(pattern, &mut visit);
        }
        (visit.best > floor).then_some(visit.best)
    }

    /// How many events that match were lost after `after` and not after `to`, if that is known, and if no more than
    /// `limit` places have to be looked at for it.
    pub(super) fn losses(&self, filter: &Filter, after: u64, to: u64, limit: usize) -> Option<u64> {
        let mut visit = Lossy { after, left: limit, found: Vec::new(), known: true };
        for pattern in filter.parsed() {
            if self.tree.walk(pattern, &mut visit).is_break() {
                return None;
            }
        }
        visit.found.sort_unstable();
        visit.found.dedup();
        let counts =
            visit.found.iter().filter_map(|id| self.get(*id)).map(|topic| topic.losses.between(after, to));
        if visit.known { counts.sum() } else { None }
    }
}

/// One place less to look at.
fn spend(left: &mut usize) -> ControlFlow<()> {
    match left.checked_sub(1) {
        Some(less) => {
            *left = less;
            ControlFlow::Continue(())
        }
        None => ControlFlow::Break(()),
    }
}

struct Active {
    after: u64,
    left: usize,
    found: Vec<usize>,
}

impl Visit for Active {
    fn enter(&mut self, node: &Node, _: bool) -> ControlFlow<(), bool> {
        spend(&mut self.left)?;
        ControlFlow::Continue(node.last > self.after)
    }

    fn found(&mut self, found: Found) {
        if let Found::Topic(id) = found {
            self.found.push(id);
        }
    }
}

struct LastLoss<'t> {
    topics: &'t Topics,
    until: u64,
    best: u64,
}

impl Visit for LastLoss<'_> {
    fn enter(&mut self, node: &Node, all: bool) -> ControlFlow<(), bool> {
        if self.best >= self.until {
            return ControlFlow::Break(());
        }
        let newer = node.lost > self.best;
        if newer && all && node.lost <= self.until {
            self.best = node.lost;
            return ControlFlow::Continue(false);
        }
        ControlFlow::Continue(newer)
    }

    fn found(&mut self, found: Found) {
        let lost = match found {
            Found::Topic(id) => self.topics.get(id).map_or(0, |topic| topic.losses.last_upto(self.until)),
            Found::Forgotten(seq) => seq.min(self.until),
        };
        self.best = self.best.max(lost);
    }
}

struct Lossy {
    after: u64,
    left: usize,
    found: Vec<usize>,
    known: bool,
}

impl Visit for Lossy {
    fn enter(&mut self, node: &Node, _: bool) -> ControlFlow<(), bool> {
        spend(&mut self.left)?;
        ControlFlow::Continue(node.lost > self.after)
    }

    fn found(&mut self, found: Found) {
        match found {
            Found::Topic(id) => self.found.push(id),
            Found::Forgotten(seq) => self.known &= seq <= self.after,
        }
    }
}

impl TopicLog {
    /// Whether nothing is held of it, given where the tail begins.
    pub(super) fn is_dead(&self, tail: u64) -> bool {
        self.history.is_empty() && self.latest.is_empty() && self.last < tail
    }
}
