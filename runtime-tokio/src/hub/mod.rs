//! The hub: logs, and everyone who reads one of them as a cursor into it.
//!
//! Each log is by itself; this is one of them:
//!
//! ```text
//!   publishers ──append──▶ Log (tail, histories, latest) ◀──read── readers that lag, resume, or poll
//!                           │ flags
//!                           ▼
//!                     Shards: one thread each, which owns its connections and writes
//!                     what is new to the sockets of all readers that are at the head
//! ```
//!
//! A peer that vanishes is gone after `heartbeat` and `heartbeat_timeout`. Over WebSocket a Ping asks for it. SSE has
//! no answers, and a connection whose publications or whose `auth` have to wait is not read: there TCP's
//! acknowledgements count, on Linux, for sockets that are the shard's own. Of a [`Socket::Stream`] nothing is known but
//! whether it takes what it is written: one that is dead is noticed once its buffers are full, or by who owns the
//! socket beneath it.
//!
//! A reader has no queue. While it keeps up it is served from the tail, from bytes that are encoded once for all; when
//! its socket is full it owns a position, and goes on from there when the socket has room again. Resuming after a
//! reconnect is the same thing. What the log has dropped meanwhile is told as a gap.
//!
//! Logs share the threads, and nothing else: each has its epoch, its bounds, its subscriptions, and publishers that
//! wait for its own readers only. A thread gives each log in turn the same piece of its time for delivery.

mod access;
mod config;
mod conn;
mod counters;
mod data;
#[cfg(test)]
mod deadline;
mod encode;
mod event;
mod filter;
mod grant;
mod handle;
mod handover;
mod input;
mod interned;
mod local;
mod log;
mod mailbox;
mod outlet;
mod publishers;
mod pulse;
mod reader;
mod reads;
mod recent;
mod revocations;
mod rtt;
mod session;
mod sessions;
mod shard;
mod shared;
mod shares;
mod socket;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod tcp_info;
mod tls;
mod trie;

/// What `handover` is made of; its test puts a model of these in their place.
mod sync {
    pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};
    pub(super) use tokio::sync::Notify;
}

pub use config::HubConfig;
pub use counters::Counters;
pub use data::{BadData, Data};
pub use event::{Event, Position, Record};
pub use filter::Filter;
pub use grant::{Authorize, Authorizing, Denied, Grant, Logs, Open};
pub use handle::LogHandle;
pub use local::LocalShard;
pub use log::{AppendError, Gap, Log, LogConfig, LogStats, Page, PageSize, REMEMBERED, Told, TopicsFull};
pub use publishers::{Once, Publication, PublishError, Published};
pub use reader::Reader;
pub use rtt::RoundTrips;
pub use sessions::RenewError;
pub use socket::{AsyncStream, Socket};

pub(crate) use conn::is_silence;
pub(crate) use counters::count;

use crate::clock::Clock;
use longwire_core::log::{Cursor, Key, LogName, Policy, Since, Topic};
use longwire_core::session::publisher::{Incarnation, WINDOW};
use longwire_core::ws::deflate::Agreed;
use revocations::Revocations;
use shared::{Common, Shared};
use std::any::Any;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::time::Instant;

/// How a connection that is handed to a shard speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// WebSocket with `longwire.v1.json`.
    WebSocketJson,
    /// WebSocket with `longwire.v1.cbor`.
    WebSocketCbor,
    /// Server-Sent Events.
    Sse,
}

/// A connection whose request was read, authorised, and found to be a stream: what a shard takes over.
pub struct Adoption {
    /// The socket.
    pub socket: Socket,
    /// What is written first: the head of the response.
    pub head: Vec<u8>,
    /// What was read behind the request.
    pub early: Vec<u8>,
    /// What it speaks.
    pub protocol: Protocol,
    /// What its opening handshake agreed on for permessage-deflate. Events are compressed once for all readers, with
    /// a window of 15 bits: who granted less gets them as they are.
    pub deflate: Option<Agreed>,
    /// What it reads from the start, and where that begins. SSE has nothing else; a WebSocket may subscribe later.
    pub subscription: Option<(Filter, Since)>,
    /// What happens when it is too far behind, until it says otherwise: [`HubConfig::policy`], or one that it asked for
    /// and that [`HubConfig::allows`].
    pub policy: Policy,
    /// What it may do.
    pub grant: Grant,
    /// Which incarnation of a publisher it is, if it is one (`PROTOCOL.md` section 5.2).
    pub publisher: Option<Incarnation>,
    /// It has not said who it is, and what it may do is known when it does: until then it can do nothing but `auth`,
    /// and what it wants to read waits. For WebSockets. [`grant`](Self::grant) is [`Grant::nothing`] then.
    pub parked: Option<Parked>,
    /// Dropped with the connection: permits of whoever counts connections.
    pub permit: Box<dyn Any + Send>,
}

impl Adoption {
    /// One of a socket from which nothing was read behind the request, and to which nothing is to be written first. It
    /// does not compress, reads nothing from the start, has the default [policy](Policy), and is no publisher. What is
    /// different is said with struct update syntax:
    ///
    /// ```
    /// use longwire::hub::{Adoption, Grant, Protocol, Socket};
    ///
    /// fn answered(socket: Socket, grant: Grant) -> Adoption {
    ///     let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n".to_vec();
    ///     Adoption { head, ..Adoption::new(socket, Protocol::Sse, grant) }
    /// }
    /// ```
    pub fn new(socket: Socket, protocol: Protocol, grant: Grant) -> Self {
        Self {
            socket,
            head: Vec::new(),
            early: Vec::new(),
            protocol,
            deflate: None,
            subscription: None,
            policy: Policy::default(),
            grant,
            publisher: None,
            parked: None,
            permit: Box::new(()),
        }
    }
}

impl std::fmt::Debug for Adoption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adoption").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

/// A connection that has not said who it is.
pub struct Parked {
    /// It has to say so by then, or is closed with 3000. `None`: there is no end to it.
    pub until: Option<Instant>,
    /// Dropped when it has: permits of whoever counts those that have not.
    pub place: Box<dyn Any + Send>,
}

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parked").field("until", &self.until).finish_non_exhaustive()
    }
}

/// The hub. Cheap to share: all of its parts are behind an [`Arc`].
#[derive(Debug)]
pub struct Hub {
    config: Arc<HubConfig>,
    authorize: Arc<dyn Authorize>,
    revocations: Arc<Revocations>,
    default: LogHandle,
    /// All of them, by name.
    logs: BTreeMap<Arc<str>, LogHandle>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Hub {
    /// Starts a hub and its threads. They end when the hub is [closed](Self::close) or dropped.
    ///
    /// # Errors
    /// A thread or its runtime could not be started, or the system has no randomness for the epochs of the logs;
    /// [`InvalidInput`](io::ErrorKind::InvalidInput): one of [`HubConfig::logs`] has no name for a log, or that of the
    /// default log.
    pub fn start(config: HubConfig, authorize: Arc<dyn Authorize>) -> io::Result<Arc<Self>> {
        let hub = Arc::new(Self::new(config, authorize)?);
        for id in 0..hub.config.shards.max(1) {
            // Should it fail, the hub is dropped, and with it the threads that run already.
            let thread = local::spawn(hub.shard(id))?;
            hub.threads().push(thread);
        }
        Ok(hub)
    }

    /// A hub without threads: its connections are served by the [`LocalShard`], on the thread that runs it, beside
    /// whatever else runs there. [`HubConfig::shards`] counts for nothing.
    ///
    /// Publishing from that thread wakes no other, and does not wait for the delivery.
    ///
    /// ```
    /// use longwire::hub::{Data, Hub, HubConfig, Open};
    /// use longwire_core::log::Topic;
    /// use std::sync::Arc;
    /// use std::time::Duration;
    /// use tokio::runtime::{Builder, LocalOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    /// let (hub, shard) = Hub::local(HubConfig::default(), Arc::new(Open))?;
    /// let served = runtime.spawn_local(shard.run());
    /// runtime.block_on(async {
    ///     hub.publish(Topic::parse("fleet/7/cpu")?, None, Data::json(b"0.25")?).await?;
    ///     // It is up to the shard to end: nothing blocks.
    ///     hub.close(Duration::ZERO, Duration::ZERO);
    ///     served.await?;
    ///     Ok(())
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`start`](Self::start), but for the threads.
    pub fn local(config: HubConfig, authorize: Arc<dyn Authorize>) -> io::Result<(Arc<Self>, LocalShard)> {
        let hub = Arc::new(Self::new(HubConfig { shards: 1, ..config }, authorize)?);
        let shard = hub.shard(0);
        Ok((hub, shard))
    }

    /// A hub, and nobody yet who serves its connections.
    fn new(mut config: HubConfig, authorize: Arc<dyn Authorize>) -> io::Result<Self> {
        // Zero would be a loop, and more than the clock can say a panic.
        for time in [&mut config.heartbeat, &mut config.heartbeat_timeout, &mut config.message_timeout] {
            *time = (*time).clamp(Duration::from_millis(1), Duration::from_secs(86_400 * 365));
        }
        // What a client may have under way the window has to know.
        config.max_inflight = config.max_inflight.clamp(1, WINDOW);
        check_names(config.logs.keys())?;
        let common = Common {
            websocket: Arc::new(config.websocket()),
            config: Arc::new(config),
            authorize,
            clock: Clock::start(),
            revocations: Arc::default(),
            next: Arc::default(),
        };
        let config = Arc::clone(&common.config);
        let start = |name: &str, bounds: &LogConfig| -> io::Result<LogHandle> {
            Ok(LogHandle { shared: Arc::new(Shared::new(name, bounds.clone(), common.clone())?) })
        };
        let default = start(LogName::DEFAULT.as_str(), &config.log)?;
        let named = config.logs.iter().map(|(name, bounds)| start(name, bounds));
        let logs = named.chain([Ok(default.clone())]);
        let logs =
            logs.map(|log| log.map(|log| (Arc::clone(&log.shared.name), log))).collect::<Result<_, _>>()?;
        let Common { authorize, revocations, .. } = common;
        Ok(Self { config, authorize, revocations, default, logs, threads: Mutex::default() })
    }

    fn shard(&self, id: usize) -> LocalShard {
        LocalShard::new(id, self.logs().map(|log| Arc::clone(&log.shared)).collect())
    }

    /// The default log; see [`log_named`](Self::log_named) for the others.
    pub fn log(&self) -> &Log {
        self.default.log()
    }

    /// The log of that name; `None` when there is none. `default` is the default log's.
    pub fn log_named(&self, name: &str) -> Option<&LogHandle> {
        self.logs.get(name)
    }

    /// All logs, by name.
    pub fn logs(&self) -> impl Iterator<Item = &LogHandle> {
        self.logs.values()
    }

    /// The configuration.
    pub fn config(&self) -> &HubConfig {
        &self.config
    }

    /// What happened so far on the default log.
    pub fn counters(&self) -> &Counters {
        self.default.counters()
    }

    /// Who decides what a credential allows.
    pub fn authorize(&self) -> &Arc<dyn Authorize> {
        &self.authorize
    }

    /// Ends everything that a subject, or a credential of that [name](Grant::id), was granted until now: its
    /// connections on all shards of all logs are told `bye` `unauthorized` and closed with 3000, within the time that a
    /// shard takes for a round. What a blocked connection still had to be written is thrown away. A grant that is
    /// asked for from now on is a new decision of the [`Authorize`]r.
    pub fn revoke(&self, name: &str) {
        self.revoke_all([name]);
    }

    /// The same for several, in one go.
    pub fn revoke_all<N: Into<Box<str>>>(&self, names: impl IntoIterator<Item = N>) {
        let names: HashSet<Box<str>> = names.into_iter().map(Into::into).collect();
        if names.is_empty() {
            return;
        }
        // First, so that a connection is either covered when it is taken over, or there when the letter comes.
        self.revocations.add(&names);
        let names = Arc::new(names);
        for shard in self.logs().flat_map(|log| &log.shared.shards) {
            shard.post(mailbox::Mail::Revoke(Arc::clone(&names)));
        }
    }

    /// Whether a grant was revoked since it was [issued](Grant::issued).
    pub fn is_revoked(&self, grant: &Grant) -> bool {
        self.revocations.covers(grant)
    }

    /// Ready once a grant is revoked. Cancel-safe.
    pub async fn revoked(&self, grant: &Grant) {
        self.revocations.covered(grant).await;
    }

    /// Publishes to the default log: see [`LogHandle::publish`].
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn publish(
        &self,
        topic: Topic<'_>,
        key: Option<Key<'_>>,
        data: Data,
    ) -> Result<Cursor, AppendError> {
        self.default.publish(topic, key, data).await
    }

    /// Hands a connection over to a shard of the default log: see [`LogHandle::adopt`].
    pub fn adopt(&self, adoption: Adoption) {
        self.default.adopt(adoption);
    }

    /// A reader of the default log: see [`LogHandle::reader`].
    pub fn reader(&self, filter: Filter, after: u64) -> Reader {
        self.default.reader(filter, after)
    }

    /// Tells every connection of every log to go, with a `bye` whose window spreads their return, and waits for the
    /// hub's threads to end.
    ///
    /// With threads it blocks: for about a second when there are peers that do not go. What is published afterwards is
    /// stored and not delivered; a [`Reader`] that waits gets an empty page.
    pub fn close(&self, retry_after: Duration, window: Duration) {
        for log in self.logs() {
            log.shared.close(retry_after, window);
        }
        let threads = std::mem::take(&mut *self.threads());
        // One of them may be who drops the hub, with the permit of a connection: it cannot wait for itself.
        let own = std::thread::current().id();
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != own) {
            // A shard that panicked has said so on its way down.
            let _ = thread.join();
        }
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.close(Duration::ZERO, Duration::ZERO);
    }
}

/// Whether these may be the names of logs beside the default log.
fn check_names<'n>(mut names: impl Iterator<Item = &'n String>) -> io::Result<()> {
    let wrong = |name: &&String| !LogName::parse(name).is_ok_and(|name| name != LogName::DEFAULT);
    match names.find(wrong) {
        None => Ok(()),
        Some(name) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} cannot be the name of a log beside the default log", name.escape_debug()),
        )),
    }
}
