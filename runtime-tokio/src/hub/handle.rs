//! One log of a hub, for whoever publishes to it or reads from it.

use super::mailbox::Mail;
use super::{Adoption, AppendError, Counters, Data, Filter, Log, LogStats, Reader, Shared, count};
use longwire_core::log::{Cursor, Key, Topic};
use std::fmt;
use std::sync::Arc;

/// One log of a [`Hub`](super::Hub): the default log, or one of [`HubConfig::logs`](super::HubConfig::logs). Cheap to
/// clone: clones are the same log.
///
/// ```
/// use longwire::hub::{Data, Hub, HubConfig, LogConfig, Open};
/// use longwire_core::log::Topic;
/// use std::sync::Arc;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let logs = [("telemetry".to_owned(), LogConfig { tail_events: 4096, ..LogConfig::default() })].into();
/// let hub = Hub::start(HubConfig { logs, ..HubConfig::default() }, Arc::new(Open))?;
/// let telemetry = hub.log_named("telemetry").ok_or("no such log")?;
/// telemetry.publish(Topic::parse("fleet/7/cpu")?, None, Data::json(b"0.25")?).await?;
/// assert_eq!((telemetry.log().head(), hub.log().head()), (1, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct LogHandle {
    pub(super) shared: Arc<Shared>,
}

impl LogHandle {
    /// Its name, as it stands in URLs.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The log itself: its epoch, its head, its bounds.
    pub fn log(&self) -> &Log {
        &self.shared.log
    }

    /// Its sizes.
    pub fn stats(&self) -> LogStats {
        self.log().stats()
    }

    /// Bytes that half-sent events take now.
    pub fn pinned_bytes(&self) -> usize {
        self.shared.pins.used()
    }

    /// What happened so far on it and on its connections.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Publishes an event and returns its cursor. It is visible to every reader then; delivery goes on by itself.
    ///
    /// Waits while the shards are more than half of this log's tail behind, so that a fast publisher does not push
    /// events out of the tail which no reader could have seen. Dropped while it waits, nothing is published.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn publish(
        &self,
        topic: Topic<'_>,
        key: Option<Key<'_>>,
        data: Data,
    ) -> Result<Cursor, AppendError> {
        self.shared.admitted().await;
        let appended = self.shared.append(topic, key, data);
        appended.inspect_err(|_| count(&self.counters().refused, 1)).map(|seq| self.log().cursor(seq))
    }

    /// Hands a connection that is for this log over to a shard, which drives it until it ends. Whether the grant is for
    /// this log is looked at before.
    pub fn adopt(&self, adoption: Adoption) {
        self.shared.post_in_turn(Mail::Adopt(Box::new(adoption)));
    }

    /// A reader outside of the shards, from a position on: for long polls, and for streams of other servers.
    pub fn reader(&self, filter: Filter, after: u64) -> Reader {
        Reader::new(Arc::clone(&self.shared), filter, after)
    }
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogHandle").field(&self.shared.name).finish()
    }
}
