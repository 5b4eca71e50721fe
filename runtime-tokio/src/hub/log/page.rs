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
    /// How many events are missing that no gap before told, if that is known: if no topic lost more than the
    /// [`REMEMBERED`](super::REMEMBERED) newest that it lost, and none that may have matched was forgotten.
    pub skipped: Option<u64>,
}

/// What a reader was told to be missing: nothing, to begin with, and then what the page said that it was given last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The end of the last gap.
    pub(in crate::hub) to: u64,
    /// How many events the log had lost by then. What it loses later is told, also where a gap was told already.
    pub(in crate::hub) as_of: u64,
}

impl Told {
    /// A gap up to `to` was told as well, of nothing that the log had lost since.
    pub(in crate::hub) fn and(self, to: u64) -> Self {
        Self { to: self.to.max(to), ..self }
    }
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
    /// What the reader was told once it was given this, in pages of [`Log::read`](super::Log::read).
    pub told: Told,
    /// What it cost, in events, topics and branches that were looked at while the log was locked. Its bound is some
    /// tens of thousands, whatever the log holds.
    pub steps: usize,
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
