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
//! A peer that vanishes is gone after `heartbeat` and `heartbeat_timeout`. Over WebSocket a Ping asks for it. SSE has no
//! answers, and a connection whose publications or whose `auth` have to wait is not read: there TCP's acknowledgements
//! count, on Linux, for sockets that are the shard's own. Of a [`Socket::Stream`] nothing is known but whether it takes
//! what it is written: one that is dead is noticed once its buffers are full, or by who owns the socket beneath it.
//!
//! A reader has no queue. While it keeps up it is served from the tail, from bytes that are encoded once for all; when
//! its socket is full it owns a position, and goes on from there when the socket has room again. Resuming after a
//! reconnect is the same thing. What the log has dropped meanwhile is told as a gap.
//!
//! Logs share the threads, and nothing else: each has its epoch, its bounds, its subscriptions, and publishers that wait
//! for its own readers only. A thread gives each log in turn the same piece of its time for delivery.

mod access;
mod conn;
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

use crate::clock::Clock;
use longwire_core::log::{Cursor, Distance, Key, LogName, Policy, QuotaConfig, Rate, Since, Topic};
use longwire_core::session::publisher::{Incarnation, WINDOW};
use longwire_core::session::{GapReason, Limits, lease};
use longwire_core::ws;
use longwire_core::ws::deflate::Agreed;
use revocations::Revocations;
use shared::{Common, Shared};
use std::any::Any;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::time::Instant;

/// How far a reader may be behind by default: see [`HubConfig::max_lag_events`].
const MAX_LAG: Distance = Distance { events: 262_144, bytes: 80 << 20, age: Duration::from_secs(3600) };

/// What a hub allows and how it is laid out. Everything is finite by default.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// The bounds of the default log.
    pub log: LogConfig,
    /// The logs beside it, by their names ([`LogName`]), and their bounds. Default: none. Together with the default
    /// log's their bytes are what the hub may hold ([`LogConfig::max_bytes`]).
    pub logs: BTreeMap<String, LogConfig>,
    /// Threads that own connections. Default: one for each core, at most 4.
    pub shards: usize,
    /// Bytes of one message. Default 1 MiB. Beyond it a WebSocket is closed with 1009.
    pub max_message: u64,
    /// Patterns on one connection. Default 64. A further one is refused with `too_many_topics`.
    pub max_topics: usize,
    /// Publications of one connection that are not acknowledged. Default 1,024, which is the most there can be: a
    /// publisher's [window](WINDOW); at least one. A number for clients to go by. (Publications are acknowledged in the
    /// turn that reads them, and a connection whose turn cannot end is not read.)
    pub max_inflight: u64,
    /// What one connection may publish, `POST` included. Default: 20,000 publications and 32 MiB in a second, two
    /// seconds' worth of it at once. More is refused with `over_quota`.
    pub quota: QuotaConfig,
    /// What clients may publish to one topic of a log. Default: 50,000 publications and 64 MiB in a second, two seconds'
    /// worth of it at once. As above.
    pub topic_quota: QuotaConfig,
    /// Publishers whose numbers a log remembers (`PROTOCOL.md` section 5.2), in a few hundred bytes each. Default 10,000.
    /// Beyond it the one that was silent for longest is forgotten: what it sends again may be stored twice.
    pub max_publishers: usize,
    /// Values of `Idempotency-Key` that a log remembers. Default 10,000. Beyond it the oldest is forgotten, as above.
    pub max_idempotency_keys: usize,
    /// How long it remembers one. Default one hour.
    pub idempotency_age: Duration,
    /// A reader is sent a `tick` when nothing else was sent for this long, and a client that is silent for as long
    /// is asked whether it lives. Default 15 s; at least a millisecond, at most a year.
    pub heartbeat: Duration,
    /// How long a client may take to answer before it is given up. Default 10 s; as above. SSE has no answers: there an
    /// acknowledgement of its system's counts as one, where this one's can tell (Linux, [`Socket::Tcp`]).
    pub heartbeat_timeout: Duration,
    /// How long a message of a client may take from its first byte to its last. Default one minute. Beyond it the client
    /// is told `bye` `request_timeout` and closed with 1013: what came of the message is held for nothing.
    pub message_timeout: Duration,
    /// Bytes that the kernel may hold unsent for a subscriber (`TCP_NOTSENT_LOWAT`). Default 16 KiB. More is not
    /// written; the reader waits in the log instead, where it costs nothing.
    pub unsent: u32,
    /// Bytes of the kernel's send buffer for a subscriber (`SO_SNDBUF`; Linux takes twice as many, and no more than
    /// `net.core.wmem_max`). Default 256 KiB: what is on its way to a peer is no older than that. 0 leaves it to the
    /// system, which goes up to megabytes.
    pub send_buffer: usize,
    /// How many events of the log a reader may be behind, matching or not. Default 262,144. Then its policy acts.
    ///
    /// The defaults of this bound and the next two are about what the tail and the histories hold by default: in 80 MiB
    /// there are as many events of 320 bytes each, of which the structures around an event take most. A reader further
    /// behind would find little of what it wants.
    pub max_lag_events: u64,
    /// The same in bytes of those events, as the log counts them. Default 80 MiB.
    pub max_lag_bytes: usize,
    /// The same as the age of the oldest of them. Default one hour.
    pub max_lag_age: Duration,
    /// The policies that readers may choose from. The first is that of a reader that does not choose. Default
    /// `DropOldest`, `Conflate`, `Disconnect`. (`DropNewest` is none for readers, and counts for nothing here.)
    pub policies: Vec<Policy>,
    /// Bytes that half-sent events may take, over all connections of a log; one that several readers have half of
    /// counts once for each shard, and a record of TLS for each connection. Default 64 MiB. One event may take an eighth of what is left of it. A connection that
    /// would need more is closed without a word: nothing can be said in the middle of a frame.
    pub max_pinned_bytes: usize,
    /// Whether permessage-deflate is accepted (RFC 7692), without context takeover. Default: yes. Events of 512 bytes
    /// and more are then compressed, once for all readers.
    pub deflate: bool,
    /// How long before its end a grant's renewal is asked for (`renew`). Default 30 s; of a grant that is shorter
    /// than 90 s a third of its time. Zero: it is not asked for.
    pub renew_before: Duration,
    /// The time over which clients come back when they are all cut off together: `hello` says it in advance, for a
    /// gateway that dies says nothing, and `bye` when it stops in good order. Default 5 s: the 10,000 connections of
    /// a gateway come back at 2,000 a second.
    pub reconnect_window: Duration,
    /// The least that a plain `EventSource` is told to wait before it reconnects. Default 2 s. Each is told another time,
    /// drawn evenly from one to two windows (`reconnect_window`).
    pub retry: Duration,
}

impl Default for HubConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            log: LogConfig::default(),
            logs: BTreeMap::new(),
            shards: cores.min(4),
            max_message: 1 << 20,
            max_topics: 64,
            max_inflight: WINDOW,
            quota: QuotaConfig { messages: Rate::new(20_000, 40_000), bytes: Rate::new(32 << 20, 64 << 20) },
            topic_quota: QuotaConfig {
                messages: Rate::new(50_000, 100_000),
                bytes: Rate::new(64 << 20, 128 << 20),
            },
            max_publishers: 10_000,
            max_idempotency_keys: 10_000,
            idempotency_age: Duration::from_secs(3600),
            heartbeat: Duration::from_secs(15),
            heartbeat_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(60),
            unsent: 16 << 10,
            send_buffer: 256 << 10,
            max_lag_events: MAX_LAG.events,
            max_lag_bytes: 80 << 20,
            max_lag_age: MAX_LAG.age,
            policies: Policy::OF_READERS.into(),
            max_pinned_bytes: 64 << 20,
            deflate: true,
            reconnect_window: Duration::from_secs(5),
            renew_before: lease::RENEW_BEFORE,
            retry: Duration::from_secs(2),
        }
    }
}

impl HubConfig {
    /// What `hello` tells a client.
    fn limits(&self) -> Limits {
        Limits {
            max_message: self.max_message,
            max_topics: self.max_topics as u64,
            max_inflight: self.max_inflight,
        }
    }

    /// How far a reader may be behind.
    pub fn max_lag(&self) -> Distance {
        Distance { events: self.max_lag_events, bytes: self.max_lag_bytes as u64, age: self.max_lag_age }
    }

    /// Whether a reader may have that policy.
    pub fn allows(&self, policy: Policy) -> bool {
        policy != Policy::DropNewest && self.policies.contains(&policy)
    }

    /// The policy of a reader that does not choose.
    pub fn policy(&self) -> Policy {
        self.policies.iter().copied().find(|policy| self.allows(*policy)).unwrap_or_default()
    }

    /// How long nothing may be heard of a client.
    fn patience(&self) -> Duration {
        self.heartbeat + self.heartbeat_timeout
    }

    /// When one client comes back that does exactly as it is told: those that are told in the same instant come
    /// spread over the window, and not before those that know the window themselves.
    pub(crate) fn come_back(&self, least: Duration) -> Duration {
        let window = self.reconnect_window;
        least.max(window).saturating_add(window.mul_f64(rand::random()))
    }

    fn websocket(&self) -> ws::Config {
        ws::Config {
            max_message: self.max_message,
            heartbeat: Some(ws::Heartbeat { interval: self.heartbeat, timeout: self.heartbeat_timeout }),
            reply_room: session::REPLY_ROOM,
            ..ws::Config::new()
        }
    }
}

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
    /// It has not said who it is, and what it may do is known when it does: until then it can do nothing but `auth`, and
    /// what it wants to read waits. For WebSockets. [`grant`](Self::grant) is [`Grant::nothing`] then.
    pub parked: Option<Parked>,
    /// Dropped with the connection: permits of whoever counts connections.
    pub permit: Box<dyn Any + Send>,
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

    /// Ends everything that a subject, or a credential of that [name](Grant::id), was granted until now: its connections
    /// on all shards of all logs are told `bye` `unauthorized` and closed with 3000, within the time that a
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
    /// With threads it blocks: for about a second when there are peers that do not go. What is published afterwards is stored and
    /// not delivered; a [`Reader`] that waits gets an empty page.
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
