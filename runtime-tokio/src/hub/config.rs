//! What a hub allows, and how it is laid out.

use super::log::LogConfig;
use super::session;
use longwire_core::log::{Distance, Policy, QuotaConfig, Rate};
use longwire_core::session::publisher::WINDOW;
use longwire_core::session::{Limits, lease};
use longwire_core::ws;
use std::collections::BTreeMap;
use std::time::Duration;

/// How far a reader may be behind by default: see [`HubConfig::max_lag_events`].
const MAX_LAG: Distance = Distance { events: 262_144, bytes: 80 << 20, age: Duration::from_secs(3600) };

/// What a hub allows and how it is laid out. Everything is finite by default.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// The bounds of the default log.
    pub log: LogConfig,
    /// The logs beside it, by their names ([`LogName`](longwire_core::log::LogName)), and their bounds. Default: none.
    /// Together with the default log's their bytes are what the hub may hold ([`LogConfig::max_bytes`]).
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
    /// What clients may publish to one topic of a log. Default: 50,000 publications and 64 MiB in a second, two
    /// seconds' worth of it at once. As above.
    pub topic_quota: QuotaConfig,
    /// Publishers whose numbers a log remembers (`PROTOCOL.md` section 5.2), in a few hundred bytes each. Default
    /// 10,000. Beyond it the one that was silent for longest is forgotten: what it sends again may be stored twice.
    pub max_publishers: usize,
    /// Values of `Idempotency-Key` that a log remembers. Default 10,000. Beyond it the oldest is forgotten, as above.
    pub max_idempotency_keys: usize,
    /// How long it remembers one. Default one hour.
    pub idempotency_age: Duration,
    /// A reader is sent a `tick` when nothing else was sent for this long, and a client that is silent for as long
    /// is asked whether it lives. Default 15 s; at least a millisecond, at most a year.
    pub heartbeat: Duration,
    /// How long a client may take to answer before it is given up. Default 10 s; as above. SSE has no answers: there an
    /// acknowledgement of its system's counts as one, where this one's can tell (Linux,
    /// [`Socket::Tcp`](super::Socket::Tcp)).
    pub heartbeat_timeout: Duration,
    /// How long a message of a client may take from its first byte to its last. Default one minute. Beyond it the
    /// client is told `bye` `request_timeout` and closed with 1013: what came of the message is held for nothing.
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
    /// counts once for each shard, and a record of TLS for each connection. Default 64 MiB. One event may take an
    /// eighth of what is left of it. A connection that would need more is closed without a word: nothing can be said in
    /// the middle of a frame.
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
    /// The least that a plain `EventSource` is told to wait before it reconnects. Default 2 s. Each is told another
    /// time, drawn evenly from one to two windows (`reconnect_window`).
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
    pub(super) fn limits(&self) -> Limits {
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
    pub(super) fn patience(&self) -> Duration {
        self.heartbeat + self.heartbeat_timeout
    }

    /// When one client comes back that does exactly as it is told: those that are told in the same instant come
    /// spread over the window, and not before those that know the window themselves.
    pub(crate) fn come_back(&self, least: Duration) -> Duration {
        let window = self.reconnect_window;
        least.max(window).saturating_add(window.mul_f64(rand::random()))
    }

    pub(super) fn websocket(&self) -> ws::Config {
        ws::Config {
            max_message: self.max_message,
            heartbeat: Some(ws::Heartbeat { interval: self.heartbeat, timeout: self.heartbeat_timeout }),
            reply_room: session::REPLY_ROOM,
            ..ws::Config::new()
        }
    }
}
