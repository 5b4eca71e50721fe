//! The table of topics, and what each has.

use super::tree::{Found, Node, Stop, Tree, Visit};
use super::{Event, Filter, REMEMBERED, Told};
use longwire_core::log::{MAX_DEPTH, Topic, TopicName};
use slab::Slab;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::{ControlFlow, Range};
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
    pub(super) forgotten_upto: Loss,
    /// Topics by the position of their newest loss.
    by_loss: BTreeSet<(u64, usize)>,
    /// Losses so far: they are numbered in the order in which they happen, which is not that of their positions.
    pub(super) lost: u64,
    /// Places and positions that were looked at since it was last taken.
    steps: Cell<usize>,
}

/// Places in the tree, and comparisons of a topic that lost something with a pattern, for one look at what was lost.
const LOOK: usize = 16_384;

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
    /// The newest, in order.
    remembered: VecDeque<Loss>,
    /// The last before those; what is lost up to here is not known one by one.
    dim: Loss,
}

/// Something was lost at a position, as the so-manieth loss of the log; or several were, up to both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) seq: u64,
    pub(super) number: u64,
}

impl Loss {
    pub(super) fn max(self, other: Self) -> Self {
        Self { seq: self.seq.max(other.seq), number: self.number.max(other.number) }
    }

    /// What of it is not after a position.
    fn upto(self, until: u64) -> Self {
        Self { seq: self.seq.min(until), ..self }
    }
}

/// What a reader wants to know of losses: those after a position, up to another, that it was not told of.
#[derive(Clone, Copy)]
pub(super) struct Stretch {
    pub(super) after: u64,
    pub(super) until: u64,
    pub(super) told: Told,
}

impl Stretch {
    /// Whether there is nothing new in it, of all that was lost up to this.
    fn knows(&self, loss: Loss) -> bool {
        let loss = loss.upto(self.until);
        loss.seq <= self.after || (loss.seq <= self.told.to && loss.number <= self.told.as_of)
    }
}

impl Losses {
    fn push(&mut self, loss: Loss) {
        if self.remembered.len() == REMEMBERED {
            self.dim = self.remembered.pop_front().unwrap_or(self.dim);
        }
        self.remembered.push_back(loss);
    }

    fn newest(&self) -> Loss {
        self.remembered.back().copied().unwrap_or(self.dim)
    }

    /// Which of those remembered lie in a stretch, and are new.
    fn within(&self, stretch: &Stretch) -> Range<usize> {
        let known = self.remembered.partition_point(|loss| stretch.knows(*loss) && loss.seq <= stretch.until);
        known..self.remembered.partition_point(|loss| loss.seq <= stretch.until)
    }

    /// The last that lies in a stretch, and is new.
    fn last(&self, stretch: &Stretch) -> Option<u64> {
        let last = self.remembered.range(self.within(stretch)).next_back().map(|loss| loss.seq);
        // Before what is remembered there may have been one anywhere.
        last.or_else(|| (!stretch.knows(self.dim)).then(|| self.dim.seq.min(stretch.until)))
    }

    /// How many lie in a stretch, and are new.
    fn count(&self, stretch: &Stretch) -> Option<u64> {
        stretch.knows(self.dim).then(|| self.within(stretch).len() as u64)
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
        self.lost += 1;
        let loss = Loss { seq, number: self.lost };
        self.by_loss.remove(&(topic.losses.newest().seq, id));
        self.by_loss.insert((seq, id));
        topic.losses.push(loss);
        self.tree.lost(topic.node, loss);
    }

    /// The topic that was not published to for longest.
    pub(super) fn coldest(&self) -> Option<usize> {
        self.by_last.as_ref()?.first().map(|(_, id)| *id)
    }

    /// Forgets a topic; what was held of it is the caller's to clear.
    pub(super) fn remove(&mut self, id: usize) -> Option<TopicLog> {
        let topic = self.slots.try_remove(id)?;
        self.names.remove(topic.name.holder());
        let newest = topic.losses.newest();
        self.by_loss.remove(&(newest.seq, id));
        // Mostly everything of it was lost before, and who was told of that is told nothing new.
        if newest.seq < topic.last {
            self.lost += 1;
        }
        let number = if newest.seq < topic.last { self.lost } else { newest.number };
        let loss = Loss { seq: topic.last, number };
        self.tree.remove(topic.node, loss);
        if let Some(by_last) = &mut self.by_last {
            by_last.remove(&(topic.last, id));
        }
        self.forgotten += 1;
        self.forgotten_upto = self.forgotten_upto.max(loss);
        Some(topic)
    }

    /// The topics that match and have something after a position; `None` when more than `limit` places would have to
    /// be looked at beside those that the patterns name.
    pub(super) fn active(&self, filter: &Filter, after: u64, limit: usize) -> Option<Vec<usize>> {
        let mut visit =
            Active { after, left: limit.saturating_add(MAX_DEPTH * filter.len()), found: Vec::new() };
        let before = visit.left;
        let walked = self.walk(filter, &mut visit);
        self.took(before - visit.left);
        if walked.is_break() {
            return None;
        }
        if filter.len() > 1 {
            visit.found.sort_unstable();
            visit.found.dedup();
        }
        Some(visit.found)
    }

    /// The end of the last loss in a stretch that matches and is new; and whether that is sure. If it is not, there may
    /// be none: to find out would take too long.
    pub(super) fn last_loss(&self, filter: &Filter, stretch: &Stretch) -> Option<(u64, bool)> {
        let all = self.tree.newest_loss();
        if stretch.knows(all) {
            return None;
        }
        if let Some(last) = self.last_of_few(filter, stretch) {
            return Some((last, true)).filter(|_| last > stretch.after);
        }
        let mut visit = LastLoss { topics: self, stretch, left: LOOK, best: stretch.after };
        let walked = self.walk(filter, &mut visit);
        self.took(LOOK - visit.left);
        match walked {
            ControlFlow::Break(Stop::TooMuch) => Some((all.seq.min(stretch.until), false)),
            _ => Some((visit.best, true)).filter(|_| visit.best > stretch.after),
        }
    }

    /// The same along the topics that lost something, the newest first: `None` if these are too many, or if topics were
    /// forgotten that may have matched. `stretch.after` if there is none.
    fn last_of_few(&self, filter: &Filter, stretch: &Stretch) -> Option<u64> {
        if !stretch.knows(self.forgotten_upto) {
            return None;
        }
        let (mut best, each) = (stretch.after, filter.len().max(1));
        let mut left = LOOK / each;
        for (newest, id) in self.by_loss.iter().rev() {
            if *newest <= best || best >= stretch.until {
                break;
            }
            left = left.checked_sub(1)?;
            self.took(each);
            if let Some(topic) = self.get(*id)
                && let Some(last) = topic.losses.last(stretch).filter(|last| *last > best)
                && filter.matches_topic(topic.name.topic())
            {
                best = last;
            }
        }
        Some(best)
    }

    /// How many events that match were lost in a stretch and are new, if that is known, and if no more than so many
    /// places have to be looked at for it.
    pub(super) fn losses(&self, filter: &Filter, stretch: &Stretch) -> Option<u64> {
        let mut visit = Lossy { stretch, left: LOOK, found: Vec::new(), known: true };
        let walked = self.walk(filter, &mut visit);
        self.took(LOOK - visit.left);
        if walked.is_break() || !visit.known {
            return None;
        }
        visit.found.sort_unstable();
        visit.found.dedup();
        visit.found.iter().filter_map(|id| self.get(*id)).map(|topic| topic.losses.count(stretch)).sum()
    }

    fn walk(&self, filter: &Filter, visit: &mut impl Visit) -> ControlFlow<Stop> {
        filter.parsed().try_for_each(|pattern| self.tree.walk(pattern, visit))
    }

    /// So many places or positions were looked at.
    pub(super) fn took(&self, steps: usize) {
        self.steps.set(self.steps.get().saturating_add(steps));
    }

    /// How many were, since it was last asked.
    pub(super) fn take_steps(&self) -> usize {
        self.steps.take()
    }
}

/// One place less to look at.
fn spend(left: &mut usize) -> ControlFlow<Stop> {
    match left.checked_sub(1) {
        Some(less) => {
            *left = less;
            ControlFlow::Continue(())
        }
        None => ControlFlow::Break(Stop::TooMuch),
    }
}

struct Active {
    after: u64,
    left: usize,
    found: Vec<usize>,
}

impl Visit for Active {
    fn enter(&mut self, node: &Node, _: bool) -> ControlFlow<Stop, bool> {
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
    stretch: &'t Stretch,
    left: usize,
    best: u64,
}

impl Visit for LastLoss<'_> {
    fn enter(&mut self, node: &Node, all: bool) -> ControlFlow<Stop, bool> {
        let until = self.stretch.until;
        if self.best >= until {
            return ControlFlow::Break(Stop::Enough);
        }
        spend(&mut self.left)?;
        let newer = node.lost.seq > self.best && !self.stretch.knows(node.lost);
        if newer && all && node.lost.seq <= until && node.lost.seq > self.stretch.told.to {
            self.best = node.lost.seq;
            return ControlFlow::Continue(false);
        }
        ControlFlow::Continue(newer)
    }

    fn found(&mut self, found: Found) {
        let stretch = self.stretch;
        let lost = match found {
            Found::Topic(id) => self.topics.get(id).and_then(|topic| topic.losses.last(stretch)),
            Found::Forgotten(loss) => (!stretch.knows(loss)).then(|| loss.seq.min(stretch.until)),
        };
        self.best = self.best.max(lost.unwrap_or(0));
    }
}

struct Lossy<'s> {
    stretch: &'s Stretch,
    left: usize,
    found: Vec<usize>,
    known: bool,
}

impl Visit for Lossy<'_> {
    fn enter(&mut self, node: &Node, _: bool) -> ControlFlow<Stop, bool> {
        spend(&mut self.left)?;
        ControlFlow::Continue(!self.stretch.knows(node.lost))
    }

    fn found(&mut self, found: Found) {
        match found {
            Found::Topic(id) => self.found.push(id),
            Found::Forgotten(loss) => self.known &= self.stretch.knows(loss),
        }
    }
}

impl TopicLog {
    /// Whether nothing is held of it, given where the tail begins.
    pub(super) fn is_dead(&self, tail: u64) -> bool {
        self.history.is_empty() && self.latest.is_empty() && self.last < tail
    }
}
