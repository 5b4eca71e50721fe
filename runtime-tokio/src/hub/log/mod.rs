//! The log: what was published, bounded in every direction, and how it is read.
//!
//! | file | what |
//! |---|---|
//! | `config` | the bounds, and what is refused at them |
//! | `state` | what is taken in, and what leaves when |
//! | `tail` | the newest events, in order: live readers |
//! | `history` | the past of each topic: resume |
//! | `latest` | the newest of each topic and key: state, conflation |
//! | `topics`, `tree` | the table of topics: who matches, what was lost of it |
//! | `read` | how a page is found |
//! | `page` | what a reader gets |
//!
//! # Gaps
//! What left both the history of its topic and the tail is *lost*. A reader whose position is before a loss that
//! matches, and that it was not told of, is told a gap which ends at the last such loss; also where a gap was told
//! before, of which less was lost then. So each loss is told once, and the numbers in the gaps add up. It is never told
//! too little. It is told too much only
//! - of topics that the table forgot: a topic that comes anew may be one of them;
//! - when it reads a stretch that ends in the past, of which a topic has lost more than [`REMEMBERED`] events beyond
//!   that end since;
//! - when it would take too long to find out: thousands of topics have lost something that the reader does not know, or
//!   some were forgotten, and its patterns lead to thousands of branches. Then what was lost anywhere counts as
//!   something that may have matched;
//! - when it is conflated, and the latest event of any topic and key in the stretch left the state by its age or to
//!   make room: which topic's is not kept.
//!
//! # Cost
//! The log is locked for tens of thousands of steps at most ([`Page::steps`]), whatever it holds and whatever is asked.

mod config;
mod history;
mod latest;
mod page;
mod read;
mod state;
mod tail;
#[cfg(test)]
mod tests;
mod topics;
mod tree;

pub use config::{AppendError, LogConfig, TopicsFull};
pub use page::{Gap, LogStats, Page, PageSize, Told};

use super::event::{Budget, Forms};
use super::{Data, Event, Filter, Record};
use longwire_core::log::{Bounds, Cursor, Distance, Key, Topic};
use state::State;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;
use topics::Stretch;

/// Positions that a topic remembers of the events that it lost, so that a gap can say how many they are: 16 bytes each.
pub const REMEMBERED: usize = 128;
/// Steps in the log that a reader takes in one turn, about two milliseconds; then others have theirs. One page may take
/// it a little further.
pub(super) const TURN: usize = 16_384;
/// Events that are too old and leave at an append.
const EXPIRE_APPEND: usize = 16;
/// Events that are too old and leave while the log is locked for something else.
const EXPIRE: usize = 1024;

/// A log in memory: one order of positions over all topics.
///
/// Appending and reading lock it for a short time that does not depend on what it holds; neither waits for a reader.
#[derive(Debug)]
pub struct Log {
    config: LogConfig,
    epoch: u64,
    head: AtomicU64,
    /// What comes after it is the newer half of the tail, by events and by bytes.
    half: AtomicU64,
    state: Mutex<State>,
    forms: Arc<Budget>,
}

impl Log {
    /// An empty log. `epoch` must differ from that of any log that these readers may have seen: draw it at random.
    pub fn new(config: LogConfig, epoch: u64) -> Self {
        let forms = Arc::new(Budget::new(config.tail_bytes));
        let state = Mutex::new(State::new(&config));
        Self { config, epoch, head: AtomicU64::new(0), half: AtomicU64::new(0), state, forms }
    }

    /// The epoch of its cursors.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The last position; 0 when nothing was published.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// The position that divides the tail: who is further behind has no more than half of it left before it begins
    /// to lose events.
    pub(super) fn half(&self) -> u64 {
        self.half.load(Ordering::Acquire)
    }

    /// The cursor of a position.
    pub fn cursor(&self, seq: u64) -> Cursor {
        Cursor { epoch: self.epoch, seq }
    }

    /// Its bounds.
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Appends an event and returns its position, at which it is visible to every reader when this returns.
    ///
    /// # Errors
    /// The log has no room for a further topic, key, or latest event; see [`AppendError`].
    pub fn append(&self, topic: Topic<'_>, key: Option<Key<'_>>, data: Data) -> Result<u64, AppendError> {
        let key: Option<Box<str>> = key.map(|key| key.as_str().into());
        let cost = Event::cost_of(&data, key.as_deref());
        let forms = Some(Arc::new(Forms::new(Arc::clone(&self.forms))));
        let mut state = self.lock();
        let state = &mut *state;
        // Under the lock, so that events are as old as their order says.
        let now = Instant::now();
        state.expire(&self.config, now, EXPIRE_APPEND);
        let topic_id = state.admit(&self.config, topic, &key, cost)?;
        let topic = match state.topics.get(topic_id) {
            Some(topic) => topic.name.clone(),
            None => topic.into(),
        };
        let seq = self.head.load(Ordering::Relaxed) + 1;
        let total = state.total + cost as u64;
        let event = Arc::new(Event { seq, topic, key, data, topic_id, born: now, total });
        state.put(&self.config, Record { event, forms }, now);
        self.half.store(state.tail.half(), Ordering::Release);
        self.head.store(seq, Ordering::Release);
        Ok(seq)
    }

    /// What comes after `after` and not after `until`, as far as one page takes. `told` is what this reader was told of
    /// by the pages before, which must not have gone further than this `until`.
    ///
    /// Costs by the topics that match or by what is returned, whichever is less, and at most a bounded number of steps:
    /// a page may end early, and `next` says where.
    pub fn read(&self, filter: &Filter, after: u64, until: u64, told: Told, size: PageSize) -> Page {
        let mut state = self.lock();
        state.expire(&self.config, Instant::now(), EXPIRE);
        let until = until.min(self.head());
        let mut page = state.held(filter, after, until, size);
        // What the tail holds is not lost, whatever its topic has become.
        let until = until.min(state.tail.start().saturating_sub(1));
        let lost = state.topics.last_loss(filter, &Stretch { after, until, told });
        page.gap = lost.map(|(to, sure)| {
            let counted = sure.then(|| state.topics.losses(filter, &Stretch { after, until: to, told }));
            Gap { from: after, to, skipped: counted.flatten() }
        });
        page.told = page.gap.map_or(told, |gap| Told { as_of: state.topics.lost, ..told.and(gap.to) });
        page.behind = state.distance(self.head(), page.next);
        page.steps = state.topics.take_steps();
        page
    }

    /// The state: the latest event of each matching topic and key, with positions after `after` and not after
    /// `until`, as far as one page takes. Costs as [`read`](Self::read) does.
    pub fn latest(&self, filter: &Filter, after: u64, until: u64, size: PageSize) -> Page {
        let mut state = self.lock();
        state.expire(&self.config, Instant::now(), EXPIRE);
        let mut page = state.newest(filter, after, until, size);
        page.behind = state.distance(self.head(), page.next);
        page.steps = state.topics.take_steps();
        page
    }

    /// What a reader gets that is conflated from `after` to `until`: the latest event of each matching topic and key
    /// among those, as [`latest`](Self::latest). If some, of whatever topic, have left the state meanwhile, it is told
    /// a gap.
    pub fn conflated(&self, filter: &Filter, after: u64, until: u64, told: u64, size: PageSize) -> Page {
        let mut state = self.lock();
        state.expire(&self.config, Instant::now(), EXPIRE);
        let mut page = state.newest(filter, after, until, size);
        let (_, lost) = state.latest.dropped();
        let to = lost.min(until);
        page.gap = (to > after.max(told)).then_some(Gap { from: after, to, skipped: None });
        page.behind = state.distance(self.head(), page.next);
        page.steps = state.topics.take_steps();
        page
    }

    /// How many events that match were appended after `after` and not after `until`, but for those that a gap `told`,
    /// if that is known: a reader that jumps over them is told. It is not when more than [`REMEMBERED`] of a topic were
    /// lost, when topics were forgotten, or when it would take too long to count.
    pub fn count(&self, filter: &Filter, after: u64, until: u64, told: Told) -> Option<u64> {
        let until = until.min(self.head());
        if after >= until {
            return Some(0);
        }
        if filter.is_everything() && told.to <= after {
            // The positions of this log have no holes.
            return Some(until - after);
        }
        let state = self.lock();
        let stretch = Stretch { after, until: until.min(state.tail.start().saturating_sub(1)), told };
        let count = state.topics.losses(filter, &stretch).zip(state.count_held(filter, after, until));
        state.topics.take_steps();
        count.map(|(lost, held)| lost + held)
    }

    /// How far a position is from the head. Costs nothing that grows with either.
    pub fn distance(&self, position: u64) -> Distance {
        self.lock().distance(self.head(), position)
    }

    /// The first position that is no further from the head than `bound`.
    pub fn within(&self, bound: Distance) -> u64 {
        let state = self.lock();
        let head = self.head();
        let (mut beyond, mut within) = (head.saturating_sub(bound.events), head);
        // Whoever comes later is no further behind.
        while beyond < within {
            let middle = beyond + (within - beyond) / 2;
            if state.distance(head, middle).is_beyond(bound) {
                beyond = middle + 1;
            } else {
                within = middle;
            }
        }
        within
    }

    /// The bounds of readers that may be as far behind as `max`: what is sure to be held is the tail.
    pub fn bounds(&self, max: Distance) -> Bounds {
        let LogConfig { tail_events, tail_bytes, tail_age, .. } = self.config;
        Bounds { max, sure: Distance { events: tail_events as u64, bytes: tail_bytes as u64, age: tail_age } }
    }

    /// What the tail holds after `after`, all topics, as far as one window takes; `None` when the tail no longer
    /// reaches back that far.
    pub(super) fn tail(&self, after: u64, size: PageSize, into: &mut Vec<Record>) -> Option<()> {
        self.lock().tail.window(after, size, into)
    }

    /// Drops what is too old, a bounded number of events; true when there is more. Appending and reading do so, too. A
    /// hub does it once a second, so that a log that is quiet holds nothing for longer than it should.
    pub fn sweep(&self) -> bool {
        self.lock().expire(&self.config, Instant::now(), EXPIRE)
    }

    /// Its sizes.
    pub fn stats(&self) -> LogStats {
        let state = self.lock();
        LogStats {
            head: self.head(),
            topics: state.topics.len(),
            keys: state.latest.len(),
            tail_events: state.tail.len(),
            tail_bytes: state.tail.bytes(),
            history_events: state.history.len(),
            history_bytes: state.history.bytes(),
            latest_bytes: state.latest.bytes(),
            form_bytes: self.forms.used(),
            evicted: state.history.evicted(),
            forgotten: state.topics.forgotten,
            latest_dropped: state.latest.dropped().0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way; a poisoned lock would only turn one fault into many.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
