//! The log against a model: a list of everything that was ever appended, and the rules as they are written in
//! [`LogConfig`], applied to it one by one without any thought of cost.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, and that is what it is for"
)]

use longwire::hub::{AppendError, Data, Filter, Gap, Log, LogConfig, Page, PageSize, Told, TopicsFull};
use longwire_core::log::{Key, Pattern, Topic};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

const TOPICS: [&str; 8] = ["a", "b/x", "b/y", "c", "c/d/e", "c/d/f", "c/d", "b"];
const KEYS: [Option<&str>; 3] = [None, Some("k"), Some("l")];
const FILTERS: [&[&str]; 9] = [
    &["**"],
    &["a"],
    &["b/*"],
    &["b/x", "c/d/e"],
    &["c/**"],
    &["*"],
    &["*/d/*", "c/d/e"],
    &["a", "*/x", "b/**"],
    &["nobody"],
];

/// An event, and where it is held.
#[derive(Clone, Debug)]
struct Entry {
    topic: usize,
    key: usize,
    cost: usize,
    /// In the tail it costs a little more.
    tail_cost: usize,
    born: Instant,
    tail: bool,
    history: bool,
    latest: bool,
}

impl Entry {
    fn is_held(&self) -> bool {
        self.tail || self.history
    }
}

/// A topic in the table.
#[derive(Clone, Copy, Debug)]
struct Known {
    topic: usize,
    /// Its place, which decides between topics of the same size.
    place: usize,
    last: u64,
}

#[derive(Debug)]
struct Model {
    config: LogConfig,
    /// All events: the one at index `i` has position `i + 1`.
    events: Vec<Entry>,
    known: Vec<Known>,
    /// Places of the table that are free, the next one last.
    free: Vec<usize>,
    /// The last position at which a topic was forgotten.
    forgotten: u64,
    /// The last position that left the state with nothing in its place.
    dropped: u64,
}

impl Model {
    fn new(config: LogConfig) -> Self {
        Self { config, events: Vec::new(), known: Vec::new(), free: Vec::new(), forgotten: 0, dropped: 0 }
    }

    fn head(&self) -> u64 {
        self.events.len() as u64
    }

    fn sum(&self, which: impl Fn(&Entry) -> bool) -> usize {
        self.events.iter().filter(|e| which(e)).map(|e| e.cost).sum()
    }

    fn tail_bytes(&self) -> usize {
        self.events.iter().filter(|e| e.tail).map(|e| e.tail_cost).sum()
    }

    fn number(&self, which: impl Fn(&Entry) -> bool) -> usize {
        self.events.iter().filter(|e| which(e)).count()
    }

    fn tail_start(&self) -> u64 {
        self.events.iter().position(|e| e.tail).map_or(u64::MAX, |at| at as u64 + 1)
    }

    fn append(
        &mut self,
        topic: usize,
        key: usize,
        (cost, tail_cost): (usize, usize),
    ) -> Result<u64, AppendError> {
        self.expire();
        let forget = self.config.topics_full == TopicsFull::Forget;
        let is_known = self.known.iter().any(|k| k.topic == topic);
        let same = |e: &Entry| e.latest && (e.topic, e.key) == (topic, key);
        let (topics, keys, bytes) = if forget {
            (0, 0, 0)
        } else {
            let others = |e: &Entry| e.latest && !same(e);
            (self.known.len(), self.number(others), self.sum(others))
        };
        if !is_known && topics >= self.config.max_topics {
            return Err(AppendError::Topics);
        }
        if keys >= self.config.max_keys {
            return Err(AppendError::Keys);
        }
        if bytes + cost > self.config.latest_bytes {
            return Err(AppendError::LatestBytes);
        }
        if !is_known {
            while self.known.len() >= self.config.max_topics {
                let coldest = self.known.iter().min_by_key(|k| k.last).unwrap().topic;
                self.forget(coldest);
            }
            let place = self.free.pop().unwrap_or(self.known.len());
            self.known.push(Known { topic, place, last: 0 });
        }
        let born = Instant::now();
        self.events.iter_mut().filter(|e| same(e)).for_each(|e| e.latest = false);
        self.events.push(Entry {
            topic,
            key,
            cost,
            tail_cost,
            born,
            tail: true,
            history: true,
            latest: true,
        });
        let head = self.head();
        self.known.iter_mut().filter(|k| k.topic == topic).for_each(|k| k.last = head);
        while self.number(|e| e.latest) > self.config.max_keys
            || self.sum(|e| e.latest) > self.config.latest_bytes
        {
            self.drop_latest();
        }
        self.trim_tail();
        self.trim_history(topic);
        Ok(head)
    }

    fn trim_tail(&mut self) {
        let now = Instant::now();
        while self.number(|e| e.tail) > 1 {
            let first = self.events.iter().position(|e| e.tail).unwrap();
            let old = now - self.events[first].born > self.config.tail_age;
            let many = self.number(|e| e.tail) > self.config.tail_events;
            if !old && !many && self.tail_bytes() <= self.config.tail_bytes {
                return;
            }
            self.events[first].tail = false;
            self.bury();
        }
    }

    fn trim_history(&mut self, topic: usize) {
        while self.number(|e| e.history && e.topic == topic) > self.config.history_events {
            self.evict(topic);
        }
        while self.sum(|e| e.history) > self.config.history_bytes {
            let size = |topic: usize| self.sum(|e| e.history && e.topic == topic);
            let share = self.config.history_bytes / self.known.len();
            let largest = self.known.iter().max_by_key(|k| (size(k.topic), k.place)).unwrap().topic;
            self.evict(if size(topic) > share { topic } else { largest });
        }
    }

    fn evict(&mut self, topic: usize) {
        self.events.iter_mut().find(|e| e.history && e.topic == topic).unwrap().history = false;
        self.bury();
    }

    fn drop_latest(&mut self) {
        let at = self.events.iter().position(|e| e.latest).unwrap();
        self.events[at].latest = false;
        self.dropped = self.dropped.max(at as u64 + 1);
        self.bury();
    }

    fn expire(&mut self) {
        let now = Instant::now();
        loop {
            let before = format!("{:?}", self.events);
            let first = |which: fn(&Entry) -> bool| self.events.iter().find(|e| which(e)).cloned();
            let (history, latest) = (first(|e| e.history), first(|e| e.latest));
            if self.number(|e| e.tail) > 1
                && let Some(oldest) = self.events.iter_mut().find(|e| e.tail)
                && now - oldest.born > self.config.tail_age
            {
                oldest.tail = false;
                self.bury();
            }
            if let Some(oldest) = history.filter(|e| now - e.born > self.config.history_age) {
                self.evict(oldest.topic);
            }
            if latest.is_some_and(|e| now - e.born > self.config.latest_age) {
                self.drop_latest();
            }
            if before == format!("{:?}", self.events) {
                return;
            }
        }
    }

    /// Topics of which nothing is held leave the table.
    fn bury(&mut self) {
        let start = self.tail_start();
        let dead = |k: &&Known| {
            k.last < start && !self.events.iter().any(|e| e.topic == k.topic && (e.history || e.latest))
        };
        if let Some(topic) = self.known.iter().find(dead).map(|k| k.topic) {
            self.forget(topic);
        }
    }

    fn forget(&mut self, topic: usize) {
        for (seq, event) in (1..).zip(&mut self.events).filter(|(_, e)| e.topic == topic) {
            event.history = false;
            if std::mem::take(&mut event.latest) {
                self.dropped = self.dropped.max(seq);
            }
        }
        let at = self.known.iter().position(|k| k.topic == topic).unwrap();
        let Known { place, last, .. } = self.known.swap_remove(at);
        self.free.push(place);
        self.forgotten = self.forgotten.max(last);
    }

    /// The events after a position and up to another that match and that `which` holds for.
    fn between(&self, filter: &Filter, after: u64, until: u64, which: impl Fn(&Entry) -> bool) -> Vec<u64> {
        let all = (1..)
            .zip(&self.events)
            .filter(|(seq, e)| *seq > after && *seq <= until && filter.matches(TOPICS[e.topic]) && which(e));
        all.map(|(seq, _)| seq).collect()
    }
}

/// What is done to a log.
#[derive(Clone, Debug)]
enum Step {
    Append { topic: usize, key: usize, len: usize },
    Read { reader: usize, events: usize, bytes: usize, until: Option<u64> },
    Resume { reader: usize, filter: usize, from: u64 },
    State { filter: usize, events: usize, after: u64 },
    Advance { millis: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let topic = prop_oneof![3 => Just(0), 5 => 0..TOPICS.len()];
    let len = prop_oneof![4 => 0..200usize, 1 => 0..1500usize];
    prop_oneof![
        10 => (topic, 0..KEYS.len(), len).prop_map(|(topic, key, len)| Step::Append { topic, key, len }),
        6 => (0..3usize, 1..12usize, 1..3000usize, prop::option::weighted(0.2, 0..130u64))
            .prop_map(|(reader, events, bytes, until)| Step::Read { reader, events, bytes, until }),
        1 => (0..3usize, 0..FILTERS.len(), 0..130u64)
            .prop_map(|(reader, filter, from)| Step::Resume { reader, filter, from }),
        1 => (0..FILTERS.len(), 1..9usize, 0..130u64)
            .prop_map(|(filter, events, after)| Step::State { filter, events, after }),
        1 => (0..2000u64).prop_map(|millis| Step::Advance { millis }),
    ]
}

/// Bursts of one topic, and readers that take little of what is there.
fn slow_step() -> impl Strategy<Value = Step> {
    let topic = prop_oneof![1 => Just(0), 1 => 0..TOPICS.len()];
    prop_oneof![
        5 => topic.prop_map(|topic| Step::Append { topic, key: 0, len: 1 }),
        2 => (0..3usize, 1..4usize).prop_map(|(reader, events)| Step::Read { reader, events, bytes: 99, until: None }),
    ]
}

fn config() -> impl Strategy<Value = LogConfig> {
    let tail = (1..40usize, 1..20_000usize, 1..4000u64);
    let history = (0..30usize, 0..20_000usize, 1..6000u64);
    let state = (1..9usize, 1..20usize, 500..20_000usize, 1..20_000u64, any::<bool>());
    (tail, history, state).prop_map(|(tail, history, state)| LogConfig {
        tail_events: tail.0,
        tail_bytes: tail.1,
        tail_age: Duration::from_millis(tail.2),
        history_events: history.0,
        history_bytes: history.1,
        history_age: Duration::from_millis(history.2),
        max_topics: state.0,
        max_keys: state.1,
        latest_bytes: state.2,
        latest_age: Duration::from_millis(state.3),
        topics_full: if state.4 { TopicsFull::Forget } else { TopicsFull::Refuse },
    })
}

/// Somebody who reads, and its books.
struct Reader {
    filter: Filter,
    began: u64,
    position: u64,
    until: u64,
    told: Told,
    gaps: Vec<Gap>,
    delivered: Vec<u64>,
    /// What was lost by the time that a gap told it.
    known: BTreeSet<u64>,
    /// What the gaps said to be missing; `None` since one did not.
    missing: Option<u64>,
}

impl Reader {
    fn new(filter: usize, from: u64) -> Self {
        Self {
            filter: filter_of(filter),
            began: from,
            position: from,
            until: 0,
            told: Told::default(),
            gaps: Vec::new(),
            delivered: Vec::new(),
            known: BTreeSet::new(),
            missing: Some(0),
        }
    }
}

fn filter_of(filter: usize) -> Filter {
    FILTERS[filter].iter().map(|text| Pattern::parse(text).unwrap()).collect()
}

fn positions(page: &Page) -> Vec<u64> {
    page.records.iter().map(|record| record.event().seq).collect()
}

/// One page for a reader, held against the model.
fn read(
    log: &Log,
    model: &mut Model,
    reader: &mut Reader,
    size: PageSize,
    until: u64,
) -> Result<(), TestCaseError> {
    model.expire();
    // How far it may go never goes back.
    reader.until = reader.until.max(until);
    let Reader { filter, position: after, known, .. } = &*reader;
    let after = *after;
    let page = log.read(filter, after, reader.until, reader.told, size);
    let until = reader.until.min(model.head());
    // What is held and matches comes in order, without a hole, as far as the page goes.
    let held = model.between(filter, after, until, Entry::is_held);
    let got = positions(&page);
    prop_assert!(got.len() <= size.events);
    prop_assert_eq!(&got[..], &held[..got.len()]);
    let more = held.get(got.len()).copied();
    prop_assert!(more.is_none_or(|seq| seq > page.next), "{more:?} {}", page.next);
    prop_assert!(page.next >= got.last().copied().unwrap_or(after));
    prop_assert!(after >= until || page.next > after, "no way forward");
    prop_assert!(page.next <= until.max(after));
    // The gap ends at the last that is lost and was not told; with topics that were forgotten it may be longer, never shorter.
    let end = until.min(model.tail_start().saturating_sub(1));
    let lost = model.between(filter, after, end, |e| !e.is_held());
    let fresh: Vec<u64> = lost.iter().copied().filter(|seq| !known.contains(seq)).collect();
    let wanted = fresh.last().map(|last| (after, *last));
    let told_now = page.gap.map(|gap| (gap.from, gap.to));
    if model.forgotten <= after {
        prop_assert_eq!(told_now, wanted);
    } else if let Some((from, to)) = told_now {
        prop_assert_eq!(from, after);
        prop_assert!(to > after && to <= end.min(model.forgotten).max(wanted.map_or(0, |(_, to)| to)));
        prop_assert!(wanted.is_none_or(|(_, wanted)| wanted <= to));
    } else {
        prop_assert_eq!(wanted, None);
    }
    if let Some(gap) = page.gap {
        prop_assert!(gap.skipped.is_none_or(|n| n == fresh.len() as u64), "{gap:?} {fresh:?}");
        // A log that forgot nothing has to know.
        prop_assert!(gap.skipped.is_some() || model.forgotten > after);
        reader.missing = reader.missing.zip(gap.skipped).map(|(missing, more)| missing + more);
        reader.known.extend(lost);
        reader.gaps.push(gap);
    }
    reader.told = page.told;
    let appended = model.between(&reader.filter, after, page.next, |_| true).len() as u64;
    let counted = log.count(&reader.filter, after, page.next, Told::default());
    prop_assert!(counted.is_none_or(|n| n == appended), "{counted:?} {appended}");
    prop_assert!(counted.is_some() || model.forgotten > after);
    for seq in got {
        prop_assert!(reader.delivered.last().is_none_or(|last| *last < seq));
        reader.delivered.push(seq);
    }
    reader.position = page.next;
    prop_assert_eq!(page.behind, log.distance(page.next));
    distance(model, &page)
}

fn distance(model: &Model, page: &Page) -> Result<(), TestCaseError> {
    let held = (1..).zip(&model.events).find(|(seq, e)| *seq > page.next && e.is_held());
    let Some((seq, first)) = held else {
        prop_assert_eq!(page.behind.events, 0);
        return Ok(());
    };
    prop_assert_eq!(page.behind.events, model.head() - page.next);
    let bytes: usize = (1..).zip(&model.events).filter(|(s, _)| *s >= seq).map(|(_, e)| e.cost).sum();
    prop_assert_eq!(page.behind.bytes, bytes as u64);
    prop_assert_eq!(page.behind.age, first.born.elapsed());
    Ok(())
}

/// Nothing vanished: what was appended for a reader was delivered, was told to be missing, or lies ahead.
fn conserved(model: &Model, reader: &Reader) -> Result<(), TestCaseError> {
    let head = model.head();
    let appended = model.between(&reader.filter, reader.began, head, |_| true);
    let passed: Vec<u64> = appended.into_iter().filter(|seq| *seq <= reader.position).collect();
    if let Some(missing) = reader.missing {
        // What the gaps said is all that did not come, and nothing twice; some of it may lie ahead.
        let ahead = reader.known.range(reader.position + 1..).count();
        prop_assert_eq!(reader.delivered.len() as u64 + missing, (passed.len() + ahead) as u64);
    }
    for seq in passed {
        let told = reader.gaps.iter().any(|gap| gap.from < seq && seq <= gap.to);
        prop_assert!(told || reader.delivered.binary_search(&seq).is_ok(), "{seq} is nowhere");
    }
    Ok(())
}

/// The state after a position, as it is and as conflation uses it.
fn state(
    log: &Log,
    model: &mut Model,
    filter: usize,
    events: usize,
    after: u64,
) -> Result<(), TestCaseError> {
    model.expire();
    let (filter, head) = (filter_of(filter), model.head());
    let after = after.min(head);
    let (mut at, mut got, mut told) = (after, Vec::new(), 0);
    let size = PageSize { events, bytes: 1 << 20 };
    while at < head {
        let page = log.conflated(&filter, at, head, told, size);
        prop_assert_eq!(positions(&page), positions(&log.latest(&filter, at, head, size)));
        prop_assert!(page.next > at && page.records.len() <= events);
        told = page.gap.map_or(told, |gap| gap.to);
        got.extend(positions(&page));
        at = page.next;
    }
    prop_assert_eq!(got, model.between(&filter, after, head, |e| e.latest));
    prop_assert_eq!(told, if model.dropped > after { model.dropped } else { 0 });
    Ok(())
}

fn sizes(log: &Log, model: &Model) -> Result<(), TestCaseError> {
    let (stats, config) = (log.stats(), &model.config);
    prop_assert_eq!(stats.head, model.head());
    prop_assert_eq!(stats.topics, model.known.len());
    prop_assert_eq!(stats.keys, model.number(|e| e.latest));
    prop_assert_eq!((stats.tail_events, stats.tail_bytes), (model.number(|e| e.tail), model.tail_bytes()));
    prop_assert_eq!(stats.history_events, model.number(|e| e.history));
    prop_assert_eq!(
        (stats.history_bytes, stats.latest_bytes),
        (model.sum(|e| e.history), model.sum(|e| e.latest))
    );
    prop_assert!(stats.topics <= config.max_topics && stats.keys <= config.max_keys);
    prop_assert!(stats.tail_events == 1 || stats.tail_bytes <= config.tail_bytes);
    prop_assert!(stats.tail_events <= config.tail_events);
    prop_assert!(stats.history_bytes <= config.history_bytes && stats.latest_bytes <= config.latest_bytes);
    Ok(())
}

fn run(config: LogConfig, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (log, mut model) = (Log::new(config.clone(), 1), Model::new(config));
        let mut readers = [0, 4, 7].map(|filter| Reader::new(filter, 0));
        for step in steps {
            match step {
                Step::Append { topic, key, len } => {
                    let data = Data::opaque("", vec![0; len].into()).unwrap();
                    let name = Topic::parse(TOPICS[topic]).unwrap();
                    let key_text = KEYS[key].map(|key| Key::parse(key).unwrap());
                    let appended = log.append(name, key_text, data);
                    // What an event costs is the log's to say; the model asks another log.
                    let cost = cost(key, len);
                    prop_assert_eq!(appended, model.append(topic, key, cost));
                }
                Step::Read { reader, events, bytes, until } => {
                    let size = PageSize { events, bytes };
                    read(&log, &mut model, &mut readers[reader], size, until.unwrap_or(u64::MAX))?;
                }
                Step::Resume { reader, filter, from } => {
                    readers[reader] = Reader::new(filter, from.min(model.head()));
                }
                Step::State { filter, events, after } => state(&log, &mut model, filter, events, after)?,
                Step::Advance { millis } => {
                    tokio::time::advance(Duration::from_millis(millis)).await;
                    while log.sweep() {}
                    model.expire();
                }
            }
            sizes(&log, &model)?;
            readers.iter().try_for_each(|reader| conserved(&model, reader))?;
        }
        Ok(())
    })
}

/// What an event costs, and what it costs in the tail.
fn cost(key: usize, len: usize) -> (usize, usize) {
    let log = Log::new(LogConfig::default(), 1);
    let data = Data::opaque("", vec![0; len].into()).unwrap();
    log.append(Topic::parse("a").unwrap(), KEYS[key].map(|key| Key::parse(key).unwrap()), data).unwrap();
    (log.stats().history_bytes, log.stats().tail_bytes)
}

proptest! {
    /// Whatever is appended, read and resumed in whatever order, while time passes: the log does what the model does.
    #[test]
    fn the_log_does_what_the_model_does(config in config(), steps in prop::collection::vec(step(), 1..120)) {
        run(config, steps)?;
    }

    /// Of a log that forgets no topic everything is accounted for, one by one, also what slow readers lose while they
    /// are in a gap.
    #[test]
    fn all_that_does_not_come_is_counted(
        tail_events in 1..4usize,
        (history_events, history_bytes) in (1..12usize, 2_000..20_000usize),
        steps in prop::collection::vec(slow_step(), 1..150),
    ) {
        run(LogConfig { tail_events, history_events, history_bytes, ..LogConfig::default() }, steps)?;
    }
}
