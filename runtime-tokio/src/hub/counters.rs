//! What happened, for metrics.

use super::RoundTrips;
use longwire_core::session::GapReason;
use std::sync::atomic::{AtomicU64, Ordering};

/// What happened on one log and its connections, for metrics. Each only counts up, but for the gauges, which say so.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events appended to the log.
    pub published: AtomicU64,
    /// Publications refused.
    pub refused: AtomicU64,
    /// Publications acknowledged that had been stored before, and were not stored again.
    pub repeated: AtomicU64,
    /// Of those refused: their number lay before their publisher's window.
    pub out_of_window: AtomicU64,
    /// Of those refused: too many on one connection.
    pub over_rate: AtomicU64,
    /// Of those refused: too many bytes on one connection.
    pub over_byte_rate: AtomicU64,
    /// Of those refused: too many to one topic.
    pub over_topic_rate: AtomicU64,
    /// Of those refused: too many bytes to one topic.
    pub over_topic_byte_rate: AtomicU64,
    /// Publishers whose numbers were forgotten, for others that came.
    pub publishers_forgotten: AtomicU64,
    /// Events written to readers.
    pub delivered: AtomicU64,
    /// Bytes written to connections of the shards.
    pub sent_bytes: AtomicU64,
    /// Writes to connections of the shards.
    pub writes: AtomicU64,
    /// Bytes read from connections of the shards.
    pub received_bytes: AtomicU64,
    /// Gaps told.
    pub gaps: AtomicU64,
    /// Those of them that did not say how many events are missing.
    pub gaps_uncounted: AtomicU64,
    /// Events told to be missing because the log no longer held them when a reader came.
    pub skipped_evicted: AtomicU64,
    /// Events told to be missing because a reader was too slow.
    pub skipped_slow: AtomicU64,
    /// Events told to be missing of which a slow reader got a newer one instead.
    pub skipped_conflated: AtomicU64,
    /// Times a reader fell behind because its socket was full.
    pub blocked: AtomicU64,
    /// Times that a reader was told pressure.
    pub pressures: AtomicU64,
    /// Connections closed because they were too slow: by their policy, or for the bytes that they pinned.
    pub too_slow: AtomicU64,
    /// Gauge: connections that are not at the head of the log.
    pub lagging: AtomicU64,
    /// Connections that were given up because nothing was heard of the client, or it took nothing.
    pub timeouts: AtomicU64,
    /// From the Pings of the heartbeat to their Pongs.
    pub websocket_rtt: RoundTrips,
    /// As the system measures it (smoothed, on Linux, for sockets that are the shard's own), at each tick of an SSE
    /// connection, which has no Pongs.
    pub sse_rtt: RoundTrips,
    /// Connections that broke the protocol.
    pub protocol_errors: AtomicU64,
    /// Gauge: publishers whose numbers are remembered.
    pub publishers: AtomicU64,
    /// Gauge: values of `Idempotency-Key` that are remembered.
    pub idempotency_keys: AtomicU64,
    /// Grants that replaced another on an open connection.
    pub renewals: AtomicU64,
    /// Connections that ended because their grant did, or because they did not say who they are.
    pub expired: AtomicU64,
    /// Connections that ended because their grant was revoked.
    pub revoked: AtomicU64,
    /// Credentials that were presented on an open connection, and refused.
    pub denied: AtomicU64,
    /// Times that a file of credentials could not be used when it had changed. Counted on the default log.
    pub bad_files: AtomicU64,
    /// Gauge: WebSocket connections.
    pub websockets: AtomicU64,
    /// Gauge: SSE connections.
    pub sse: AtomicU64,
    /// Gauge: readers that wait outside of the shards (long polls).
    pub waiting: AtomicU64,
    /// Gauge: patterns that the connections and the waiting readers of the shards are subscribed to.
    pub subscriptions: AtomicU64,
}

impl Counters {
    /// A gap was told, of so many events if that is known.
    pub(crate) fn skipped(&self, reason: GapReason, events: Option<u64>) {
        count(&self.gaps, 1);
        match (events, reason) {
            (None, _) => count(&self.gaps_uncounted, 1),
            (Some(n), GapReason::Slow) => count(&self.skipped_slow, n),
            (Some(n), GapReason::Conflated) => count(&self.skipped_conflated, n),
            (Some(n), _) => count(&self.skipped_evicted, n),
        }
    }
}

/// A counter moves; nobody orders anything by it.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
