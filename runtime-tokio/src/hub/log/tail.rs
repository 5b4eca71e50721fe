//! The newest events of a log, in order: live readers are served from here.

use super::{Event, LogConfig, PageSize, Record};
use std::collections::VecDeque;
use tokio::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Tail {
    records: VecDeque<Record>,
    bytes: usize,
    /// What comes after it is the newer half, by events and by bytes; and its bytes.
    half: u64,
    half_bytes: usize,
}

impl Tail {
    /// The position of its oldest event; above all positions while it is empty.
    pub(super) fn start(&self) -> u64 {
        self.records.front().map_or(u64::MAX, |first| first.event.seq)
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn half(&self) -> u64 {
        self.half
    }

    pub(super) fn push(&mut self, config: &LogConfig, record: Record) {
        let (seq, cost) = (record.event.seq, record.cost());
        self.bytes += cost;
        self.half_bytes += cost;
        self.records.push_back(record);
        while self.half + 1 < seq
            && (seq - self.half > config.tail_events as u64 / 2 || self.half_bytes > config.tail_bytes / 2)
            && let Some(oldest) = self.records.get(self.after(self.half))
        {
            self.half_bytes -= oldest.cost();
            self.half = oldest.event.seq;
        }
    }

    /// Takes out the next event that is over a bound.
    pub(super) fn pop(&mut self, config: &LogConfig, now: Instant) -> Option<Record> {
        let oldest = self.records.front()?;
        let over = self.records.len() > config.tail_events
            || self.bytes > config.tail_bytes
            || now.duration_since(oldest.event.born) > config.tail_age;
        // The newest stays whatever it is: live readers are served from here.
        if !over || self.records.len() == 1 {
            return None;
        }
        let oldest = self.records.pop_front()?;
        self.bytes -= oldest.cost();
        if oldest.event.seq > self.half {
            self.half_bytes -= oldest.cost();
            self.half = oldest.event.seq;
        }
        Some(oldest)
    }

    /// The event at a position.
    pub(super) fn get(&self, seq: u64) -> Option<&Record> {
        self.records.get(self.after(seq.checked_sub(1)?)).filter(|record| record.event.seq == seq)
    }

    /// The events after a position.
    pub(super) fn since(&self, after: u64) -> impl Iterator<Item = &Record> {
        self.records.range(self.after(after)..)
    }

    /// The first event after a position.
    pub(super) fn first_after(&self, after: u64) -> Option<&Event> {
        self.records.get(self.after(after)).map(|record| &*record.event)
    }

    /// What comes after a position, as far as one window takes; `None` when the tail no longer reaches back that far.
    pub(super) fn window(&self, after: u64, size: PageSize, into: &mut Vec<Record>) -> Option<()> {
        if self.records.is_empty() {
            return Some(());
        }
        if after.saturating_add(1) < self.start() {
            return None;
        }
        let mut bytes = 0;
        for record in self.since(after).take(size.events) {
            bytes += record.event.data.len();
            if bytes > size.bytes && !into.is_empty() {
                break;
            }
            into.push(record.clone());
        }
        Some(())
    }

    /// Where the events after a position begin.
    fn after(&self, seq: u64) -> usize {
        // Positions of one process have no holes, so this is arithmetic; where there are holes, it is searched for.
        let first = self.start();
        let guess = usize::try_from(seq.saturating_add(1).saturating_sub(first)).unwrap_or(usize::MAX);
        let guess = guess.min(self.records.len());
        let right = |at: usize| {
            let before = at.checked_sub(1).and_then(|at| self.records.get(at));
            before.is_none_or(|record| record.event.seq <= seq)
                && self.records.get(at).is_none_or(|record| record.event.seq > seq)
        };
        if right(guess) { guess } else { self.records.partition_point(|record| record.event.seq <= seq) }
    }
}
