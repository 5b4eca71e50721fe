//! The log: what was published, bounded in every direction, and how it is read.

use super::event::{Budget, Forms};
use super::{Data, Event, Filter, Record};
use longwire_core::log::{Cursor, Key, Topic};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The bounds of a log. Each has a default, and what happens at it is said at the field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Events in the tail, which live readers are served from. Default 16,384. The oldest leaves; a reader that is
    /// further behind reads from the history.
    pub tail_events: usize,
    /// Bytes of the tail's events. Default 16 MiB. As above. Encoded forms may take as much again.
    pub tail_bytes: usize,
    /// Events in the history of one topic. Default 1,000. The topic's oldest leaves; who resumes from before it is
    /// told a gap.
    pub history_events: usize,
    /// Bytes of the history of all topics. Default 64 MiB. The topic that is published to loses its own past, unless
    /// it has less than its share: then the topic with the most loses.
    pub history_bytes: usize,
    /// How long an event stays in the history. Default one hour. The latest event of a topic and key stays.
    pub history_age: Duration,
    /// Topics. Default 10,000. A publication to one more is refused with `topics_full`.
    pub max_topics: usize,
    /// Latest events: topics and keys together. Default 100,000. One more is refused with `topics_full`.
    pub max_keys: usize,
    /// Bytes of the latest events. Default 64 MiB. A publication that would go beyond is refused with `topics_full`.
    pub latest_bytes: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            tail_events: 16_384,
            tail_bytes: 16 << 20,
            history_events: 1_000,
            history_bytes: 64 << 20,
            history_age: Duration::from_secs(3600),
            max_topics: 10_000,
            max_keys: 100_000,
            latest_bytes: 64 << 20,
        }
    }
}

impl LogConfig {
    /// Bytes that a log may hold at most: those of its tail and of their encoded forms, of its histories, and of the
    /// latest events. An event that is in several of these is held once and counts in each; tables come on top.
    pub fn max_bytes(&self) -> usize {
        let forms = self.tail_bytes;
        [self.tail_bytes, forms, self.history_bytes, self.latest_bytes]
            .into_iter()
            .fold(0, usize::saturating_add)
    }
}

/// A publication that the log has no room for. Nothing was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// [`LogConfig::max_topics`] is reached.
    Topics,
    /// [`LogConfig::max_keys`] is reached.
    Keys,
    /// [`LogConfig::latest_bytes`] is reached.
    LatestBytes,
}

impl AppendError {
    /// Which bound it is.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Topics => "the table of topics is full (max_topic_table)",
            Self::Keys => "the table of keys is full (max_keys)",
            Self::LatestBytes => "the latest events take all their bytes (latest_bytes)",
        }
    }
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for AppendError {}

/// Events that matched and are gone: those with `from` < position <= `to`, as far as they matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last position before it.
    pub from: u64,
    /// The last position in it.
    pub to: u64,
}

/// A piece of a log, as one reader sees it.
#[derive(Debug, Default)]
pub struct Page {
    /// Told before the events.
    pub gap: Option<Gap>,
    /// In the order of their positions.
    pub records: Vec<Record>,
    /// The reader has everything up to here that matches and is still held.
    pub next: u64,
}

/// How much one page takes: it bounds the time that the log is locked and the memory that a reader pins.
#[derive(Clone, Copy, Debug)]
pub struct PageSize {
    /// Events.
    pub events: usize,
    /// Bytes of their bodies; the first event is taken whatever its size.
    pub bytes: usize,
}

/// Patterns compared for one page, matching or not: it bounds the time that the log is locked.
const MAX_SCAN: usize = 8192;

/// A log in memory: one order of positions over all topics.
///
/// Appending and reading lock it for a short time; neither waits for a reader.
#[derive(Debug)]
pub struct Log {
    config: LogConfig,
    epoch: u64,
    head: AtomicU64,
    /// What comes after it is the newer half of the tail, by events and by bytes.
    half: AtomicU64,
    inner: Mutex<Inner>,
    forms: Arc<Budget>,
}

#[derive(Debug, Default)]
struct Inner {
    tail: VecDeque<Record>,
    tail_bytes: usize,
    /// As in [`Log`], and the bytes that come after it.
    half: u64,
    half_bytes: usize,
    names: HashMap<Arc<str>, usize>,
    topics: Vec<TopicLog>,
    history_bytes: usize,
    /// Topics by the bytes of their history: who has the most is last.
    by_size: BTreeSet<(usize, usize)>,
    /// The latest events of all topics and keys, by their position.
    latest: BTreeMap<u64, Arc<Event>>,
    latest_bytes: usize,
    evicted: u64,
}

#[derive(Debug)]
struct TopicLog {
    name: Arc<str>,
    history: VecDeque<Arc<Event>>,
    bytes: usize,
    /// The last position that left the history. It may still be in the tail.
    evicted: u64,
    /// The last position that left both.
    lost: u64,
    /// Where in `Inner::latest` the latest event of each key is.
    latest: HashMap<Option<Box<str>>, u64>,
}

/// Sizes of a log, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// The last position.
    pub head: u64,
    /// Topics that were published to.
    pub topics: usize,
    /// Topics and keys.
    pub keys: usize,
    /// Events in the tail.
    pub tail_events: usize,
    /// Bytes in the tail.
    pub tail_bytes: usize,
    /// Bytes in the histories.
    pub history_bytes: usize,
    /// Bytes of the latest events.
    pub latest_bytes: usize,
    /// Bytes of encoded forms.
    pub form_bytes: usize,
    /// Events that left a history.
    pub evicted: u64,
}

impl Log {
    /// An empty log. `epoch` must differ from that of any log that these readers may have seen: draw it at random.
    pub fn new(config: LogConfig, epoch: u64) -> Self {
        let forms = Arc::new(Budget::new(config.tail_bytes));
        Self {
            config,
            epoch,
            head: AtomicU64::new(0),
            half: AtomicU64::new(0),
            inner: Mutex::default(),
            forms,
        }
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
        let mut inner = self.lock();
        let inner = &mut *inner;
        let key: Option<Box<str>> = key.map(|key| key.as_str().into());
        let known = inner.names.get(topic.as_str()).copied();
        let name = match known.and_then(|id| inner.topics.get(id)) {
            Some(topic) => Arc::clone(&topic.name),
            None => topic.as_str().into(),
        };
        let seq = self.head.load(Ordering::Relaxed) + 1;
        let topic_id = known.unwrap_or(inner.topics.len());
        let event = Arc::new(Event { seq, topic: name, key, data, topic_id, born: Instant::now() });
        let before = inner.superseded(known, &event.key);
        inner.has_room(&self.config, known, before, &event)?;
        if known.is_none() {
            inner.add_topic(&event.topic);
        }
        inner.put_latest(before, &event);
        inner.put_history(&self.config, &event);
        inner.put_tail(
            &self.config,
            Record { event, forms: Some(Arc::new(Forms::new(Arc::clone(&self.forms)))) },
        );
        self.half.store(inner.half, Ordering::Release);
        self.head.store(seq, Ordering::Release);
        Ok(seq)
    }

    /// What comes after `after` and not after `until`, as far as one page takes. `told` is the end of the last gap
    /// that this reader was told of.
    ///
    /// Costs by what it returns, and by the topics that match when the tail no longer reaches back that far.
    pub fn read(&self, filter: &Filter, after: u64, until: u64, told: u64, size: PageSize) -> Page {
        let inner = self.lock();
        let until = until.min(self.head());
        match inner.tail.front().map(|first| first.event.seq) {
            Some(first) if after.saturating_add(1) >= first => inner.read_tail(filter, after, until, size),
            _ if after >= until => Page { next: after.max(until), ..Page::default() },
            Some(first) => {
                inner.read_history(filter, after, until.min(first - 1), told, size, self.config.history_age)
            }
            None => inner.read_history(filter, after, until, told, size, self.config.history_age),
        }
    }

    /// The state: the latest event of each matching topic and key, with positions after `after` and not after
    /// `until`, as far as one page takes.
    pub fn latest(&self, filter: &Filter, after: u64, until: u64, size: PageSize) -> Page {
        let mut page = Page { next: until, ..Page::default() };
        if after >= until {
            return page;
        }
        let inner = self.lock();
        let mut bytes = 0;
        for (scanned, event) in inner.latest.range(after + 1..=until).map(|(_, event)| event).enumerate() {
            if scanned == scan(filter) {
                return page;
            }
            if filter.matches(&event.topic) {
                bytes += event.data.len();
                if page.records.len() >= size.events || (bytes > size.bytes && !page.records.is_empty()) {
                    page.next = event.seq - 1;
                    return page;
                }
                page.records.push(Record { event: Arc::clone(event), forms: None });
            }
            page.next = event.seq;
        }
        page.next = until;
        page
    }

    /// What the tail holds after `after`, all topics, as far as one window takes; `None` when the tail no longer
    /// reaches back that far.
    pub(super) fn tail(&self, after: u64, size: PageSize, into: &mut Vec<Record>) -> Option<()> {
        let inner = self.lock();
        let Some(first) = inner.tail.front() else { return Some(()) };
        if after.saturating_add(1) < first.event.seq {
            return None;
        }
        let mut bytes = 0;
        for record in inner.tail.range(inner.after(after)..).take(size.events) {
            bytes += record.event.data.len();
            if bytes > size.bytes && !into.is_empty() {
                break;
            }
            into.push(record.clone());
        }
        Some(())
    }

    /// Drops from the histories what is older than [`LogConfig::history_age`]. To be called every now and then.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut inner = self.lock();
        let inner = &mut *inner;
        for id in 0..inner.topics.len() {
            while let Some(first) = inner.topics.get(id).and_then(|topic| topic.history.front())
                && now.duration_since(first.born) > self.config.history_age
            {
                inner.evict(id);
            }
        }
    }

    /// Its sizes.
    pub fn stats(&self) -> LogStats {
        let inner = self.lock();
        LogStats {
            head: self.head(),
            topics: inner.topics.len(),
            keys: inner.latest.len(),
            tail_events: inner.tail.len(),
            tail_bytes: inner.tail_bytes,
            history_bytes: inner.history_bytes,
            latest_bytes: inner.latest_bytes,
            form_bytes: self.forms.used(),
            evicted: inner.evicted,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half-way; a poisoned lock would only turn one fault into many.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The latest event that this one takes the place of.
    fn superseded(&self, topic: Option<usize>, key: &Option<Box<str>>) -> Option<u64> {
        self.topics.get(topic?)?.latest.get(key).copied()
    }

    fn has_room(
        &self,
        config: &LogConfig,
        topic: Option<usize>,
        before: Option<u64>,
        event: &Event,
    ) -> Result<(), AppendError> {
        if topic.is_none() && self.topics.len() >= config.max_topics {
            return Err(AppendError::Topics);
        }
        if before.is_none() && self.latest.len() >= config.max_keys {
            return Err(AppendError::Keys);
        }
        let freed = before.and_then(|seq| self.latest.get(&seq)).map_or(0, |event| event.cost());
        if self.latest_bytes - freed + event.cost() > config.latest_bytes {
            return Err(AppendError::LatestBytes);
        }
        Ok(())
    }

    fn add_topic(&mut self, name: &Arc<str>) {
        self.names.insert(Arc::clone(name), self.topics.len());
        self.topics.push(TopicLog {
            name: Arc::clone(name),
            history: VecDeque::new(),
            bytes: 0,
            evicted: 0,
            lost: 0,
            latest: HashMap::new(),
        });
    }

    fn put_latest(&mut self, before: Option<u64>, event: &Arc<Event>) {
        if let Some(old) = before.and_then(|seq| self.latest.remove(&seq)) {
            self.latest_bytes -= old.cost();
        }
        self.latest_bytes += event.cost();
        self.latest.insert(event.seq, Arc::clone(event));
        if let Some(topic) = self.topics.get_mut(event.topic_id) {
            topic.latest.insert(event.key.clone(), event.seq);
        }
    }

    fn put_history(&mut self, config: &LogConfig, event: &Arc<Event>) {
        let id = event.topic_id;
        let topics = self.topics.len().max(1);
        let Some(topic) = self.topics.get_mut(id) else { return };
        self.by_size.remove(&(topic.bytes, id));
        topic.history.push_back(Arc::clone(event));
        topic.bytes += event.cost();
        self.history_bytes += event.cost();
        self.by_size.insert((topic.bytes, id));
        while self.topics.get(id).is_some_and(|topic| topic.history.len() > config.history_events) {
            self.evict(id);
        }
        while self.history_bytes > config.history_bytes {
            // A topic that has more than its share pays for itself; otherwise the one with the most pays.
            let own = self.topics.get(id).map_or(0, |topic| topic.bytes);
            let largest = self.by_size.last().map_or(id, |(_, id)| *id);
            let victim = if own > config.history_bytes / topics { id } else { largest };
            if !self.evict(victim) {
                break;
            }
        }
    }

    /// Drops the oldest event of a topic's history; false when it has none.
    fn evict(&mut self, id: usize) -> bool {
        let Some(topic) = self.topics.get_mut(id) else { return false };
        let Some(event) = topic.history.pop_front() else { return false };
        self.by_size.remove(&(topic.bytes, id));
        topic.bytes -= event.cost();
        topic.evicted = event.seq;
        // The event that is being appended is not in the tail yet, but will be.
        if self.tail.front().is_some_and(|first| event.seq < first.event.seq) {
            topic.lost = event.seq;
        }
        if topic.bytes > 0 {
            self.by_size.insert((topic.bytes, id));
        }
        self.history_bytes -= event.cost();
        self.evicted += 1;
        true
    }

    fn put_tail(&mut self, config: &LogConfig, record: Record) {
        let seq = record.event.seq;
        self.tail_bytes += record.event.cost();
        self.half_bytes += record.event.cost();
        self.tail.push_back(record);
        while self.half + 1 < seq
            && (seq - self.half > config.tail_events as u64 / 2 || self.half_bytes > config.tail_bytes / 2)
            && let Some(oldest) = self.tail.get(self.after(self.half))
        {
            self.half_bytes -= oldest.event.cost();
            self.half = oldest.event.seq;
        }
        // The newest stays whatever its size: live readers are served from here.
        while self.tail.len() > 1
            && (self.tail.len() > config.tail_events || self.tail_bytes > config.tail_bytes)
            && let Some(oldest) = self.tail.pop_front()
        {
            self.tail_bytes -= oldest.event.cost();
            if let Some(topic) = self.topics.get_mut(oldest.event.topic_id)
                && oldest.event.seq <= topic.evicted
            {
                topic.lost = oldest.event.seq;
            }
        }
    }

    /// Where in the tail the events after a position begin.
    fn after(&self, seq: u64) -> usize {
        self.tail.partition_point(|record| record.event.seq <= seq)
    }

    fn read_tail(&self, filter: &Filter, after: u64, until: u64, size: PageSize) -> Page {
        let mut page = Page { next: until.max(after), ..Page::default() };
        let mut bytes = 0;
        for (scanned, record) in self.tail.range(self.after(after)..).enumerate() {
            let seq = record.event.seq;
            if seq > until {
                break;
            }
            let matches = filter.matches(&record.event.topic);
            bytes += if matches { record.event.data.len() } else { 0 };
            let full = page.records.len() >= size.events || (bytes > size.bytes && !page.records.is_empty());
            if scanned == scan(filter) || (matches && full) {
                page.next = seq - 1;
                break;
            }
            if matches {
                page.records.push(record.clone());
            }
        }
        page
    }

    /// What the tail no longer holds: the histories of the matching topics, merged by position.
    fn read_history(
        &self,
        filter: &Filter,
        after: u64,
        until: u64,
        told: u64,
        size: PageSize,
        max_age: Duration,
    ) -> Page {
        let now = Instant::now();
        let mut lost = 0;
        let mut heads = BTreeMap::new();
        for topic in self.matching(filter) {
            let mut from = topic.history.partition_point(|event| event.seq <= after);
            // What is too old counts as gone, whether it was swept yet or not.
            while let Some(event) = topic.history.get(from)
                && event.seq <= until
                && now.duration_since(event.born) > max_age
            {
                lost = lost.max(event.seq);
                from += 1;
            }
            // What was lost behind `until` is told by whoever reads on from there.
            lost = lost.max(topic.lost.min(until));
            if let Some(first) = topic.history.get(from).filter(|event| event.seq <= until) {
                heads.insert(first.seq, (topic, from));
            }
        }
        let mut page = Page { next: until, ..Page::default() };
        page.gap = (lost > after.max(told)).then_some(Gap { from: after, to: lost });
        let mut bytes = 0;
        while let Some((seq, (topic, at))) = heads.pop_first() {
            let Some(event) = topic.history.get(at) else { continue };
            bytes += event.data.len();
            if page.records.len() >= size.events || (bytes > size.bytes && !page.records.is_empty()) {
                page.next = seq - 1;
                break;
            }
            page.records.push(Record { event: Arc::clone(event), forms: None });
            if let Some(next) = topic.history.get(at + 1).filter(|event| event.seq <= until) {
                heads.insert(next.seq, (topic, at + 1));
            }
        }
        page
    }

    /// The topics that match: looked up when the filter names them, walked through when it has wildcards.
    fn matching<'i>(&'i self, filter: &'i Filter) -> Box<dyn Iterator<Item = &'i TopicLog> + 'i> {
        if filter.is_literal() {
            let ids = filter.patterns().filter_map(|name| self.names.get(name));
            Box::new(ids.filter_map(|id| self.topics.get(*id)))
        } else {
            Box::new(self.topics.iter().filter(|topic| filter.matches(&topic.name)))
        }
    }
}

/// Events looked at for one page.
fn scan(filter: &Filter) -> usize {
    (MAX_SCAN / filter.len().max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use longwire_core::log::Pattern;
    use proptest::prelude::*;

    const SIZE: PageSize = PageSize { events: 3, bytes: 1 << 20 };

    fn publish(log: &Log, topic: &str, key: Option<&str>, len: usize) -> Result<u64, AppendError> {
        let data = Data::opaque("", vec![0; len].into()).unwrap();
        log.append(Topic::parse(topic).unwrap(), key.map(|key| Key::parse(key).unwrap()), data)
    }

    fn filter(patterns: &[&str]) -> Filter {
        patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect()
    }

    /// Reads to the head, page by page, as a reader does.
    fn read_all(log: &Log, filter: &Filter, after: u64) -> (Vec<u64>, Option<u64>) {
        let (mut got, mut position, mut told) = (Vec::new(), after, 0);
        loop {
            let page = log.read(filter, position, u64::MAX, told, SIZE);
            if let Some(gap) = page.gap {
                assert_eq!(gap.from, position);
                assert!(gap.to > told, "a gap is told once");
                told = gap.to;
            }
            got.extend(page.records.iter().map(|record| record.event.seq));
            if page.next >= log.head() {
                return (got, (told > 0).then_some(told));
            }
            assert!(page.next > position || !page.records.is_empty() || page.gap.is_some(), "no progress");
            position = page.next;
        }
    }

    proptest! {
        /// Whatever was evicted: a reader gets what matches, in order and once, and is told a gap exactly when
        /// something that matches is missing, up to the last that is.
        #[test]
        fn what_is_not_delivered_is_told(
            events in prop::collection::vec((0..5usize, 0..400usize), 1..200),
            tail_events in 1..40usize,
            tail_bytes in 1..20_000usize,
            history_events in 0..30usize,
            history_bytes in 0..20_000usize,
            after in 0..200u64,
            pattern in prop::sample::select(vec!["**", "a", "b/*", "b/x", "c/**"]),
        ) {
            let topics = ["a", "b/x", "b/y", "c", "c/d/e"];
            let log = Log::new(
                LogConfig { tail_events, tail_bytes, history_events, history_bytes, ..LogConfig::default() }, 1);
            let filter = filter(&[pattern]);
            let mut wanted = Vec::new();
            for (seq, (topic, len)) in (1..).zip(&events) {
                prop_assert_eq!(publish(&log, topics[*topic], None, *len), Ok(seq));
                if seq > after && filter.matches(topics[*topic]) {
                    wanted.push(seq);
                }
            }
            let (got, told) = read_all(&log, &filter, after.min(log.head()));
            prop_assert!(got.is_sorted_by(|a, b| a < b));
            prop_assert!(got.iter().all(|seq| wanted.contains(seq)));
            let missing = wanted.iter().filter(|seq| !got.contains(seq)).max().copied();
            prop_assert_eq!(told, missing);
            let stats = log.stats();
            let half: Vec<_> = log.lock().tail.iter().filter(|r| r.event.seq > log.half()).cloned().collect();
            prop_assert_eq!(half.len() as u64, log.head() - log.half());
            let bytes: usize = half.iter().map(|record| record.event.cost()).sum();
            prop_assert!(half.len() == 1 || half.len() <= tail_events / 2 && bytes <= tail_bytes / 2);
            prop_assert!(stats.tail_events == 1 || stats.tail_bytes <= tail_bytes);
            prop_assert!(stats.tail_events <= tail_events);
            prop_assert!(stats.history_bytes <= history_bytes);
        }
    }

    #[test]
    fn a_noisy_topic_evicts_its_own_past_only() {
        let log = Log::new(LogConfig { history_bytes: 20_000, tail_events: 1, ..LogConfig::default() }, 1);
        for _ in 0..10 {
            publish(&log, "quiet", None, 10).unwrap();
        }
        for _ in 0..1000 {
            publish(&log, "noisy", None, 100).unwrap();
        }
        let (got, told) = read_all(&log, &filter(&["quiet"]), 0);
        assert_eq!((got.len(), told), (10, None));
        let (got, told) = read_all(&log, &filter(&["noisy"]), 0);
        assert!(got.len() > 50 && told.is_some(), "{} {told:?}", got.len());
    }

    #[test]
    fn a_gap_ends_where_the_reading_does() {
        let log = Log::new(LogConfig { tail_events: 1, history_events: 2, ..LogConfig::default() }, 1);
        for _ in 0..10 {
            publish(&log, "a", None, 1).unwrap();
        }
        let page = log.read(&filter(&["a"]), 2, 5, 0, SIZE);
        assert_eq!((page.gap, page.next), (Some(Gap { from: 2, to: 5 }), 5));
        let page = log.read(&filter(&["a"]), 5, u64::MAX, 0, SIZE);
        assert_eq!((page.gap, page.next), (Some(Gap { from: 5, to: 8 }), 9));
        assert_eq!(log.read(&filter(&["a"]), u64::MAX, u64::MAX, 0, SIZE).next, u64::MAX);
    }

    #[test]
    fn a_window_has_its_end_in_events_and_in_bytes() {
        let log = Log::new(LogConfig::default(), 1);
        for len in [10, 10, 10, 50, 10, 10] {
            publish(&log, "a", None, len).unwrap();
        }
        let window = |after, events, bytes| {
            let mut records = Vec::new();
            log.tail(after, PageSize { events, bytes }, &mut records).unwrap();
            records.iter().map(|record| record.event.seq).collect::<Vec<_>>()
        };
        assert_eq!(window(0, 2, 100), [1, 2]);
        assert_eq!(window(0, 9, 35), [1, 2, 3]);
        assert_eq!(window(3, 9, 35), [4]);
        assert_eq!(window(4, 9, 35), [5, 6]);
        assert!(window(6, 9, 35).is_empty());
    }

    #[test]
    fn every_table_has_its_end() {
        let config = LogConfig { max_topics: 2, max_keys: 3, latest_bytes: 2_000, ..LogConfig::default() };
        let log = Log::new(config, 1);
        publish(&log, "a", None, 1).unwrap();
        publish(&log, "b", None, 1).unwrap();
        assert_eq!(publish(&log, "c", None, 1), Err(AppendError::Topics));
        publish(&log, "b", Some("k"), 1).unwrap();
        assert_eq!(publish(&log, "b", Some("l"), 1), Err(AppendError::Keys));
        assert_eq!(publish(&log, "b", Some("k"), 2_000), Err(AppendError::LatestBytes));
        // What was refused left no trace, and what replaces its like is taken.
        assert_eq!(publish(&log, "b", Some("k"), 1_000), Ok(4));
        assert_eq!(publish(&log, "b", Some("k"), 1_001), Ok(5));
        assert_eq!((log.stats().keys, log.stats().topics, log.head()), (3, 2, 5));
    }

    #[test]
    fn the_state_comes_in_pages_and_skips_what_was_superseded() {
        let log = Log::new(LogConfig::default(), 1);
        for n in 0..10 {
            publish(&log, "a", Some(&n.to_string()), 1).unwrap();
        }
        publish(&log, "a", Some("3"), 1).unwrap();
        publish(&log, "b", None, 1).unwrap();
        let (mut got, mut after) = (Vec::new(), 0);
        while after < log.head() {
            let page = log.latest(&filter(&["a"]), after, log.head(), SIZE);
            got.extend(page.records.iter().map(|record| record.event.seq));
            after = page.next;
        }
        assert_eq!(got, [1, 2, 3, 5, 6, 7, 8, 9, 10, 11]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_old_is_gone_but_the_latest_stays() {
        let log = Log::new(LogConfig { tail_events: 1, ..LogConfig::default() }, 1);
        publish(&log, "a", None, 1).unwrap();
        publish(&log, "a", None, 1).unwrap();
        tokio::time::advance(Duration::from_secs(3601)).await;
        publish(&log, "b", None, 1).unwrap();
        for _ in 0..2 {
            assert_eq!(read_all(&log, &filter(&["a"]), 0), (vec![], Some(2)));
            log.sweep();
        }
        assert_eq!(log.latest(&filter(&["a"]), 0, 3, SIZE).records.len(), 1);
        assert_eq!(log.stats().evicted, 2);
    }
}
