//! One log, and what its shards, publishers and readers have in common. Nothing of it is another log's, so that a log
//! that is flooded makes its own publishers wait and loses its own past only.

use super::handover::Gate;
use super::mailbox::{Mail, ShardHandle};
use super::outlet::Pins;
use super::publishers::Publishers;
use super::revocations::Revocations;
use super::{AppendError, Authorize, Counters, Data, HubConfig, Log, LogConfig, count};
use crate::clock::Clock;
use longwire_core::log::{Key, Topic};
use longwire_core::ws;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What all logs of a hub have in common: how connections are treated, and who is let in.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) config: Arc<HubConfig>,
    pub(super) websocket: Arc<ws::Config>,
    pub(super) authorize: Arc<dyn Authorize>,
    /// What quotas are counted by: a connection may publish to several logs.
    pub(super) clock: Clock,
    pub(super) revocations: Arc<Revocations>,
    /// Counts connections of all logs, so that they go to the shards in turn.
    pub(super) next: Arc<AtomicU64>,
}

/// The state of one log.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) name: Arc<str>,
    pub(crate) config: Arc<HubConfig>,
    pub(crate) log: Log,
    pub(super) publishers: Publishers,
    pub(crate) counters: Counters,
    pub(crate) shards: Vec<ShardHandle>,
    pub(super) websocket: Arc<ws::Config>,
    pub(super) authorize: Arc<dyn Authorize>,
    pub(super) clock: Clock,
    pub(super) revocations: Arc<Revocations>,
    next: Arc<AtomicU64>,
    pub(super) pins: Arc<Pins>,
    closing: AtomicBool,
    /// Where publishers wait for the shards to catch up.
    gate: Gate,
}

impl std::fmt::Debug for dyn Authorize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("dyn Authorize")
    }
}

impl Shared {
    /// An empty log with an epoch of its own.
    pub(super) fn new(name: &str, bounds: LogConfig, common: Common) -> io::Result<Self> {
        let mut epoch = [0; 8];
        getrandom::fill(&mut epoch).map_err(io::Error::other)?;
        let Common { config, websocket, authorize, revocations, clock, next } = common;
        Ok(Self {
            name: name.into(),
            publishers: Publishers::new(&config, bounds.max_topics),
            log: Log::new(bounds, u64::from_ne_bytes(epoch)),
            pins: Pins::new(config.max_pinned_bytes),
            counters: Counters::default(),
            shards: (0..config.shards.max(1)).map(|_| ShardHandle::default()).collect(),
            config,
            websocket,
            authorize,
            clock,
            revocations,
            next,
            closing: AtomicBool::new(false),
            gate: Gate::default(),
        })
    }

    /// Appends and flags the shards.
    pub(super) fn append(
        &self,
        topic: Topic<'_>,
        key: Option<Key<'_>>,
        data: Data,
    ) -> Result<u64, AppendError> {
        let seq = self.log.append(topic, key, data)?;
        count(&self.counters.published, 1);
        self.shards.iter().for_each(ShardHandle::flag);
        Ok(seq)
    }

    /// Whether publishers have to wait. Then [`relieved`](Self::relieved) wakes them.
    pub(super) fn is_congested(&self) -> bool {
        self.gate.is_shut(|| self.is_behind())
    }

    /// Whether a shard is more than half the tail behind.
    pub(super) fn is_behind(&self) -> bool {
        let position = self.shards.iter().map(ShardHandle::position).min();
        position.is_some_and(|position| position < self.log.half())
    }

    /// Waits until publishers may go on. Cancel-safe.
    pub(super) async fn admitted(&self) {
        self.gate.pass(|| self.is_behind()).await;
    }

    /// A shard finished a round: whoever waited may look again.
    pub(super) fn relieved(&self) {
        if self.gate.open(|| self.is_behind()) {
            // Connections that were not read meanwhile are woken by their own shards.
            self.shards.iter().for_each(ShardHandle::flag);
        }
    }

    /// Gives a letter to the next shard in turn: connections of one kind cost about the same.
    pub(super) fn post_in_turn(&self, letter: Mail) {
        let n = usize::try_from(self.next.fetch_add(1, Ordering::Relaxed)).unwrap_or(0);
        if let Some(shard) = self.shards.get(n % self.shards.len()) {
            shard.post(letter);
        }
    }

    /// Begins the end: connections are told to go, readers look once more.
    pub(super) fn close(&self, retry_after: Duration, window: Duration) {
        self.closing.store(true, Ordering::SeqCst);
        for shard in &self.shards {
            shard.post(Mail::Close { retry_after, window });
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Open;
    use super::super::shard::{Leave, Scratch, Shard};
    use super::*;
    use futures_util::FutureExt as _;

    fn shared(name: &str, next: &Arc<AtomicU64>) -> Shared {
        let bounds = LogConfig { tail_events: 8, ..LogConfig::default() };
        let config = HubConfig { shards: 2, ..HubConfig::default() };
        let common = Common {
            websocket: Arc::new(config.websocket()),
            config: Arc::new(config),
            authorize: Arc::new(Open),
            clock: Clock::start(),
            revocations: Arc::default(),
            next: Arc::clone(next),
        };
        Shared::new(name, bounds, common).unwrap()
    }

    /// Nobody serves these shards: they are as far behind as can be.
    #[test]
    fn publishers_wait_for_the_shards_of_their_own_log() {
        let next = Arc::default();
        let (flooded, quiet) = (shared("flooded", &next), shared("quiet", &next));
        let publish = |shared: &Shared| {
            shared.append(Topic::parse("a").unwrap(), None, Data::json(b"1").unwrap()).unwrap()
        };
        assert_eq!((0..100).map(|_| publish(&flooded)).last(), Some(100));
        publish(&quiet);
        assert!(flooded.admitted().now_or_never().is_none());
        assert!(quiet.admitted().now_or_never().is_some());
        // What relieves one log is no relief for another, and wakes nobody there.
        quiet.relieved();
        assert!(flooded.admitted().now_or_never().is_none() && quiet.admitted().now_or_never().is_some());
        assert_ne!(flooded.log.epoch(), quiet.log.epoch());
    }

    /// One that could not begin, for example, because the system has no descriptor left.
    #[test]
    fn nobody_waits_for_a_shard_that_has_ended() {
        let shared = Arc::new(shared("a", &Arc::default()));
        for _ in 0..100 {
            shared.append(Topic::parse("a").unwrap(), None, Data::json(b"1").unwrap()).unwrap();
        }
        for id in 0..2 {
            assert!(shared.admitted().now_or_never().is_none());
            drop(Leave(Shard::new(id, Arc::clone(&shared), Scratch::new())));
        }
        assert!(shared.admitted().now_or_never().is_some());
    }
}
