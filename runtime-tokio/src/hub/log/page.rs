//! What a reader gets of a log.

use super::Record;
use longwire_core::log::Distance;

/// Events that matched and are gone: those with `from` < position <= `to`, as far as they matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last position before it.
    pub from: u64,
    /// The last position in it.
    pub to: u64,
    /// How many events are missing, if that is known: if the gap overlaps none that was told before, no topic lost more
    /// than the [`REMEMBERED`](super::REMEMBERED) newest that it lost, and none that may have matched was forgotten.
    pub skipped: Option<u64>,
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
    /// How far `next` is from the head.
    pub behind: Distance,
}

/// How much one page takes: it bounds the time that the log is locked and the memory that a reader pins.
#[derive(Clone, Copy, Debug)]
pub struct PageSize {
    /// Events.
    pub events: usize,
    /// Bytes of their bodies; the first event is taken whatever its size.
    pub bytes: usize,
}

/// Sizes of a log, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// The last position.
    pub head: u64,
    /// Topics in the table.
    pub topics: usize,
    /// Topics and keys.
    pub keys: usize,
    /// Events in the tail.
    pub tail_events: usize,
    /// Bytes in the tail.
    pub tail_bytes: usize,
    /// Events in the histories.
    pub history_events: usize,
    /// Bytes in the histories.
    pub history_bytes: usize,
    /// Bytes of the latest events.
    pub latest_bytes: usize,
    /// Bytes of encoded forms.
    pub form_bytes: usize,
    /// Events that left a history.
    pub evicted: u64,
    /// Topics that were forgotten.
    pub forgotten: u64,
    /// Latest events that left the state without a newer one in their place.
    pub latest_dropped: u64,
}
