//! The hub: one log, and everyone who reads it as a cursor into it.
//!
//! ```text
//!   publishers ──append──▶ Log (tail, histories, latest) ◀──read── readers that lag, resume, or poll
//!                           │ flags
//!                           ▼
//!                     Shards: one thread each, which owns its connections and writes
//!                     what is new to the sockets of all readers that are at the head
//! ```
//!
//! A reader has no queue. While it keeps up it is served from the tail, from bytes that are encoded once for all; when
//! its socket is full it owns a position, and goes on from there when the socket has room again. Resuming after a
//! reconnect is the same thing. What the log has dropped meanwhile is told as a gap.

mod conn;
mod data;
mod encode;
mod event;
mod filter;
mod grant;
mod input;
mod log;
mod outlet;
mod reader;
mod session;
mod shard;
mod socket;
mod trie;

pub use data::{BadData, Data};
pub use event::{Event, Position, Record};
pub use filter::Filter;
pub use grant::{Authorize, Authorizing, Denied, Grant, Logs, Open};
pub use log::{AppendError, Gap, Log, LogConfig, LogStats, Page, PageSize};
pub use reader::Reader;
pub use socket::{AsyncStream, Socket};

use longwire_core::log::{Cursor, Key, Since, Topic};
use longwire_core::session::Limits;
use longwire_core::ws;
use longwire_core::ws::deflate::Agreed;
use shard::ShardHandle;
use std::any::Any;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::Notify;

/// What a hub allows and how it is laid out. Everything is finite by default.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// The bounds of the log.
    pub log: LogConfig,
    /// Threads that own connections. Default: one for each core, at most 4.
    pub shards: usize,
    /// Bytes of one message. Default 1 MiB. Beyond it a WebSocket is closed with 1009.
    pub max_message: u64,
    /// Patterns on one connection. Default 64. A further one is refused with `too_many_topics`.
    pub max_topics: usize,
    /// Publications of one connection that are not acknowledged. Default 1,024; a number for clients to go by.
    /// (Publications are acknowledged in the turn that reads them, and a connection whose turn cannot end is not read.)
    pub max_inflight: u64,
    /// A reader is sent a `tick` when nothing else was sent for this long, and a client that is silent for as long
    /// is asked whether it lives. Default 15 s; at least a millisecond, at most a year.
    pub heartbeat: Duration,
    /// How long a client may take to answer before it is given up. Default 10 s; as above.
    pub heartbeat_timeout: Duration,
    /// Bytes that the kernel may hold unsent for a subscriber (`TCP_NOTSENT_LOWAT`). Default 16 KiB. More is not
    /// written; the reader waits in the log instead, where it costs nothing.
    pub unsent: u32,
    /// Whether permessage-deflate is accepted (RFC 7692), without context takeover. Default: yes. Events of 512 bytes
    /// and more are then compressed, once for all readers.
    pub deflate: bool,
    /// Time to tell an SSE client to wait before it reconnects. Default 2 s.
    pub retry: Duration,
}

impl Default for HubConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            log: LogConfig::default(),
            shards: cores.min(4),
            max_message: 1 << 20,
            max_topics: 64,
            max_inflight: 1024,
            heartbeat: Duration::from_secs(15),
            heartbeat_timeout: Duration::from_secs(10),
            unsent: 16 << 10,
            deflate: true,
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

    fn websocket(&self) -> ws::Config {
        ws::Config {
            max_message: self.max_message,
            heartbeat: Some(ws::Heartbeat { interval: self.heartbeat, timeout: self.heartbeat_timeout }),
            reply_room: session::REPLY_ROOM,
            ..ws::Config::new()
        }
    }
}

/// What happened, for metrics. Each only counts up, but for the gauges, which say so.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events appended to the log.
    pub published: AtomicU64,
    /// Publications refused.
    pub refused: AtomicU64,
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
    /// Times a reader fell behind because its socket was full.
    pub blocked: AtomicU64,
    /// Connections that did not answer in time.
    pub timeouts: AtomicU64,
    /// Connections that broke the protocol.
    pub protocol_errors: AtomicU64,
    /// Gauge: WebSocket connections.
    pub websockets: AtomicU64,
    /// Gauge: SSE connections.
    pub sse: AtomicU64,
    /// Gauge: readers that wait outside of the shards (long polls).
    pub waiting: AtomicU64,
    /// Gauge: patterns that the connections and the waiting readers of the shards are subscribed to.
    pub subscriptions: AtomicU64,
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
    /// What it may do.
    pub grant: Grant,
    /// Dropped with the connection: permits of whoever counts connections.
    pub permit: Box<dyn Any + Send>,
}

impl std::fmt::Debug for Adoption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adoption").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

/// The hub. Cheap to share: all of its parts are behind an [`Arc`].
#[derive(Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the shards, the publishers and the readers have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: HubConfig,
    pub(crate) log: Log,
    pub(crate) counters: Counters,
    pub(crate) shards: Vec<ShardHandle>,
    websocket: Arc<ws::Config>,
    authorize: Arc<dyn Authorize>,
    closing: AtomicBool,
    /// Somebody waits for the shards to catch up.
    congested: AtomicBool,
    caught_up: Notify,
    next: AtomicU64,
    numbered: AtomicU64,
}

impl std::fmt::Debug for dyn Authorize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("dyn Authorize")
    }
}

impl Hub {
    /// Starts a hub and its threads. They end when the hub is [closed](Self::close) or dropped.
    ///
    /// # Errors
    /// A thread or its runtime could not be started, or the system has no randomness for the log's epoch.
    pub fn start(mut config: HubConfig, authorize: Arc<dyn Authorize>) -> io::Result<Arc<Self>> {
        // Zero would be a loop, and more than the clock can say a panic.
        for time in [&mut config.heartbeat, &mut config.heartbeat_timeout] {
            *time = (*time).clamp(Duration::from_millis(1), Duration::from_secs(86_400 * 365));
        }
        let mut epoch = [0; 8];
        getrandom::fill(&mut epoch).map_err(io::Error::other)?;
        let shards = (0..config.shards.max(1)).map(|_| ShardHandle::default()).collect();
        let shared = Arc::new(Shared {
            log: Log::new(config.log.clone(), u64::from_ne_bytes(epoch)),
            counters: Counters::default(),
            shards,
            websocket: Arc::new(config.websocket()),
            authorize,
            closing: AtomicBool::new(false),
            congested: AtomicBool::new(false),
            caught_up: Notify::new(),
            next: AtomicU64::new(0),
            numbered: AtomicU64::new(0),
            config,
        });
        let hub = Self { threads: Mutex::default(), shared };
        for id in 0..hub.shared.shards.len() {
            // Should it fail, the hub is dropped, and with it the threads that run already.
            let thread = shard::spawn(id, Arc::clone(&hub.shared))?;
            hub.threads().push(thread);
        }
        Ok(Arc::new(hub))
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.shared.log
    }

    /// The configuration.
    pub fn config(&self) -> &HubConfig {
        &self.shared.config
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Who decides what a credential allows.
    pub fn authorize(&self) -> &Arc<dyn Authorize> {
        &self.shared.authorize
    }

    /// Publishes an event and returns its cursor. It is visible to every reader then; delivery goes on by itself.
    ///
    /// Waits while the shards are more than half the tail behind, so that a fast publisher does not push events out of
    /// the tail which no reader could have seen. Dropped while it waits, nothing is published.
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
        appended.inspect_err(|_| count(&self.shared.counters.refused, 1)).map(|seq| self.log().cursor(seq))
    }

    /// Hands a connection over to a shard, which drives it until it ends.
    pub fn adopt(&self, adoption: Adoption) {
        // In turn: connections of one kind cost about the same.
        let n = usize::try_from(self.shared.next.fetch_add(1, Ordering::Relaxed)).unwrap_or(0);
        if let Some(shard) = self.shared.shards.get(n % self.shared.shards.len()) {
            shard.post(shard::Mail::Adopt(Box::new(adoption)));
        }
    }

    /// A reader outside of the shards, from a position on: for long polls, and for streams of other servers.
    pub fn reader(&self, filter: Filter, after: u64) -> Reader {
        Reader::new(Arc::clone(&self.shared), filter, after)
    }

    /// Tells every connection to go, with a `bye` whose window spreads their return, and waits for the threads to end.
    ///
    /// It blocks: for about a second when there are peers that do not go. What is published afterwards is stored and
    /// not delivered; a [`Reader`] that waits gets an empty page.
    pub fn close(&self, retry_after: Duration, window: Duration) {
        self.shared.closing.store(true, Ordering::SeqCst);
        for shard in &self.shared.shards {
            shard.post(shard::Mail::Close { retry_after, window });
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

impl Shared {
    /// Appends and flags the shards.
    fn append(&self, topic: Topic<'_>, key: Option<Key<'_>>, data: Data) -> Result<u64, AppendError> {
        let seq = self.log.append(topic, key, data)?;
        count(&self.counters.published, 1);
        self.shards.iter().for_each(ShardHandle::flag);
        Ok(seq)
    }

    /// Whether publishers have to wait. Then [`relieved`](Self::relieved) wakes them.
    fn is_congested(&self) -> bool {
        if !self.is_behind() {
            return false;
        }
        // Said before the second look: a shard that catches up in between sees that somebody waits, or is seen.
        self.congested.store(true, Ordering::SeqCst);
        self.is_behind()
    }

    /// Whether a shard is more than half the tail behind.
    fn is_behind(&self) -> bool {
        let position = self.shards.iter().map(ShardHandle::position).min();
        position.is_some_and(|position| position < self.log.half())
    }

    async fn admitted(&self) {
        loop {
            let notified = self.caught_up.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if !self.is_congested() {
                return;
            }
            notified.await;
        }
    }

    /// A shard finished a round: whoever waited may look again.
    fn relieved(&self) {
        if self.congested.load(Ordering::SeqCst) && !self.is_congested() {
            self.congested.store(false, Ordering::SeqCst);
            self.caught_up.notify_waiters();
            // Connections that were not read meanwhile are woken by their own shards.
            self.shards.iter().for_each(ShardHandle::flag);
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// A number for a connection, counting up.
    fn number(&self) -> u64 {
        self.numbered.fetch_add(1, Ordering::Relaxed)
    }
}
