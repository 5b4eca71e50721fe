//! How a page is found: along the topics that match, or along all positions, whichever costs less.
//!
//! A pattern that matches few topics is served from these, merged by position: that costs by the matches and by what is
//! returned, however much lies in between. A pattern that matches many is served along the one order of all events:
//! that costs by what is returned, if most of it matches. Which it is shows after a short look at both; then neither a
//! page of `**` costs as much as there are topics, nor a page of a rare topic as much as there are events. Where both
//! are expensive (thousands of topics that match, among far more events that do not), a page ends after some thousands
//! of steps.

use super::state::State;
use super::topics::Topics;
use super::{Event, Filter, Page, PageSize, Record};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// How much is looked at for one page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Topics that are few: they are merged without a look at anything else.
    few: usize,
    /// Positions that are looked at before anything else, when the topics are not few.
    skim: usize,
    /// Topics that can be merged for one page at all.
    many: usize,
    /// Positions that are looked at in the end: it bounds the time that the log is locked.
    scan: usize,
}

impl Effort {
    pub(super) const NORMAL: Self = Self { few: 128, skim: 1024, many: 4096, scan: MAX_SCAN };

    #[cfg(test)]
    pub(super) fn of(few: usize, skim: usize, many: usize, scan: usize) -> Self {
        Self { few, skim, many, scan }
    }
}

/// Positions that are looked at while the log is locked.
const MAX_SCAN: usize = 8192;
/// Positions that are looked at to count what a reader jumps over.
const MAX_COUNT: usize = 32_768;

/// Events in the order of their positions, of all topics together and of each.
trait Source {
    /// After `after`, and not after `until`.
    fn all(&self, after: u64, until: u64) -> impl Iterator<Item = &Arc<Event>>;
    /// Those of one topic after a position.
    fn of(&self, topic: usize, after: u64) -> impl Iterator<Item = &Arc<Event>>;
    /// Up to where [`of`](Self::of) has all that [`all`](Self::all) has of these topics; not after `until`.
    fn complete(&self, topics: &[usize], after: u64, until: u64) -> u64;
    fn record(&self, event: &Arc<Event>) -> Record;
}

/// What is held: the histories, and the tail behind them.
struct Held<'s>(&'s State);

impl Source for Held<'_> {
    fn all(&self, after: u64, until: u64) -> impl Iterator<Item = &Arc<Event>> {
        let start = self.0.tail.start();
        let old = self.0.history.between(after, start.min(until.saturating_add(1)));
        let new = self.0.tail.since(after).map(|record| &record.event);
        old.chain(new.take_while(move |event| event.seq <= until))
    }

    fn of(&self, topic: usize, after: u64) -> impl Iterator<Item = &Arc<Event>> {
        let history = self.0.topics.get(topic).map(|topic| &topic.history);
        let from = history.map_or(0, |history| match history.front() {
            // Old cursors begin before all that is held, and need no search.
            Some(first) if first.seq <= after => history.partition_point(|event| event.seq <= after),
            _ => 0,
        });
        history.into_iter().flat_map(move |history| history.range(from..))
    }

    fn complete(&self, topics: &[usize], after: u64, until: u64) -> u64 {
        let start = self.0.tail.start();
        let found = topics.iter().filter_map(|id| self.0.topics.get(*id));
        // What left a history while it is in the tail is found there only, also if its topic was forgotten.
        let mut gone = found.map(|topic| topic.evicted).chain([self.0.topics.forgotten_upto.seq]);
        if gone.any(|seq| seq > after && seq >= start) { until.min(start.saturating_sub(1)) } else { until }
    }

    fn record(&self, event: &Arc<Event>) -> Record {
        // Its encoded forms are shared while it is in the tail.
        let forms = self.0.tail.get(event.seq).and_then(|record| record.forms.clone());
        Record { event: Arc::clone(event), forms }
    }
}

/// The latest of each topic and key.
struct Newest<'s>(&'s State);

impl Source for Newest<'_> {
    fn all(&self, after: u64, until: u64) -> impl Iterator<Item = &Arc<Event>> {
        self.0.latest.between(after, until)
    }

    fn of(&self, topic: usize, after: u64) -> impl Iterator<Item = &Arc<Event>> {
        let latest = self.0.topics.get(topic).map(|topic| topic.latest.range(after.saturating_add(1)..));
        latest.into_iter().flatten().map(|(_, event)| event)
    }

    fn complete(&self, _: &[usize], _: u64, until: u64) -> u64 {
        until
    }

    fn record(&self, event: &Arc<Event>) -> Record {
        Record { event: Arc::clone(event), forms: None }
    }
}

impl State {
    /// What is held after `after` and not after `until`, as far as one page takes.
    pub(super) fn held(&self, filter: &Filter, after: u64, until: u64, size: PageSize) -> Page {
        read(&Held(self), self, filter, after, until, size)
    }

    /// The state, as far as one page takes.
    pub(super) fn newest(&self, filter: &Filter, after: u64, until: u64, size: PageSize) -> Page {
        read(&Newest(self), self, filter, after, until, size)
    }

    /// How many events that match are held after `after` and not after `until`; `None` when they are too many to count.
    pub(super) fn count_held(&self, filter: &Filter, after: u64, until: u64) -> Option<u64> {
        let held = Held(self);
        if let Some(topics) = self.topics.active(filter, after, self.effort.few)
            && held.complete(&topics, after, until) == until
        {
            let count = |id: &usize| {
                let history = self.topics.get(*id).map(|topic| &topic.history);
                let upto =
                    |seq| history.map_or(0, |history| history.partition_point(|event| event.seq <= seq));
                (upto(until) - upto(after)) as u64
            };
            return Some(topics.iter().map(count).sum());
        }
        let mut all = held.all(after, until);
        let some = all.by_ref().take(MAX_COUNT / filter.len().max(1));
        let count = some.filter(|event| filter.matches_topic(event.topic.topic())).count();
        all.next().is_none().then_some(count as u64)
    }
}

/// A page, while it is filled.
struct Taking {
    page: Page,
    size: PageSize,
    bytes: usize,
    full: bool,
}

impl Taking {
    /// Takes what matches, if it has room.
    fn take(&mut self, source: &impl Source, event: &Arc<Event>) -> bool {
        let records = &mut self.page.records;
        self.bytes += event.data.len();
        self.full =
            records.len() >= self.size.events || (self.bytes > self.size.bytes && !records.is_empty());
        if self.full {
            self.page.next = event.seq - 1;
        } else {
            self.page.next = event.seq;
            records.push(source.record(event));
        }
        !self.full
    }
}

fn read(
    source: &impl Source,
    state: &State,
    filter: &Filter,
    after: u64,
    until: u64,
    size: PageSize,
) -> Page {
    let page = Page { next: after.max(until), ..Page::default() };
    if after >= until {
        return page;
    }
    let mut taking = Taking { page, size, bytes: 0, full: false };
    taking.page.next = after;
    let (topics, effort) = (&state.topics, state.effort);
    if !merge(source, topics, filter, until, effort.few, &mut taking) {
        along(source, topics, filter, until, effort.skim, &mut taking);
        // It led nowhere, because hardly anything here matches.
        let stuck = !taking.full && taking.page.next < until;
        if stuck && !merge(source, topics, filter, until, effort.many, &mut taking) {
            along(source, topics, filter, until, effort.scan, &mut taking);
        }
    }
    taking.page
}

/// Merges the topics that match, if there are not more than `limit`; false when that is no way forward.
fn merge(
    source: &impl Source,
    topics: &Topics,
    filter: &Filter,
    until: u64,
    limit: usize,
    taking: &mut Taking,
) -> bool {
    let after = taking.page.next;
    let Some(found) = topics.active(filter, after, limit) else { return false };
    let end = source.complete(&found, after, until);
    if end <= after {
        return false;
    }
    let mut heads = BinaryHeap::with_capacity(found.len());
    let mut rests = Vec::with_capacity(found.len());
    topics.took(found.len());
    for id in found {
        let mut rest = source.of(id, after);
        if let Some(event) = rest.next().filter(|event| event.seq <= end) {
            heads.push(Reverse((event.seq, rests.len())));
            rests.push((event, rest));
        }
    }
    while let Some(mut head) = heads.peek_mut() {
        let Reverse((_, at)) = *head;
        let Some((event, rest)) = rests.get_mut(at) else { break };
        topics.took(1);
        if !taking.take(source, event) {
            return true;
        }
        match rest.next().filter(|event| event.seq <= end) {
            Some(next) => {
                *event = next;
                *head = Reverse((next.seq, at));
            }
            None => {
                std::collections::binary_heap::PeekMut::pop(head);
            }
        }
    }
    taking.page.next = end;
    true
}

/// Goes along all positions, so many steps at most.
fn along(
    source: &impl Source,
    topics: &Topics,
    filter: &Filter,
    until: u64,
    steps: usize,
    taking: &mut Taking,
) {
    // Each pattern that has to be compared counts.
    let each = filter.len().max(1);
    let steps = (steps / each).max(1);
    let after = taking.page.next;
    for (step, event) in source.all(after, until).enumerate() {
        if step == steps {
            return;
        }
        topics.took(each);
        if !filter.matches_topic(event.topic.topic()) {
            taking.page.next = event.seq;
        } else if !taking.take(source, event) {
            return;
        }
    }
    taking.page.next = until;
}
