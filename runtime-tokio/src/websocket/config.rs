//! What an endpoint allows, expects and holds.

use super::Deflate;
use longwire_core::http::head::Limits;
use longwire_core::ws;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// The rules of a connection and the sizes of its buffers. Every bound is finite by default.
///
/// Connections share it: pass an `Arc<Config>` to open many with one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The rules of the protocol: `max_message` (default 1 MiB), the heartbeat (default: a Ping after 30 s of
    /// silence, 10 s to answer), the deadline of the closing handshake (default 5 s), and others.
    pub protocol: ws::Config,

    /// Most bytes that wait to be sent, in addition to one message that the connection has taken but not begun.
    /// Default 1 MiB + 64 KiB. The buffer grows to this only when it is needed, and is given back when it is
    /// empty. A message that does not fit goes out in fragments, or without being copied into it. Under
    /// [`serve`](super::serve()) it bounds what a handler can send to a peer that does not read.
    pub max_send_buffer: usize,

    /// Most bytes to read at once, beyond what a large message needs. Default and most: 64 KiB, the size of a thread's
    /// buffer.
    pub max_read: usize,

    /// Most messages for which [`serve`](super::serve()) calls a handler in a turn, and most that it takes from a
    /// [`Pusher`](super::Pusher), before other connections and tasks of the thread have their turn. Default 1,024; 0
    /// counts as 1. A turn also ends after 1 MiB of messages or 16 reads. Fewer make it fairer where a call takes long, and
    /// cost more turns.
    pub turn_messages: usize,

    /// How long the peer may leave the socket full, without taking a byte, until the connection is given up with
    /// [`Timeout::Write`](super::Timeout::Write). Default 30 s; `None` waits for ever.
    pub write_timeout: Option<Duration>,

    /// How long the opening handshake may take, for a client from the look-up of the name on. Default 10 s.
    pub handshake_timeout: Duration,

    /// permessage-deflate (RFC 7692): `None` neither offers nor accepts it. Default: as [`Deflate`] has it.
    pub deflate: Option<Deflate>,

    /// What the head of the peer's opening handshake may cost.
    pub head_limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            protocol: ws::Config::new(),
            max_send_buffer: (1 << 20) + (64 << 10),
            max_read: 64 << 10,
            turn_messages: 1024,
            write_timeout: Some(Duration::from_secs(30)),
            handshake_timeout: Duration::from_secs(10),
            deflate: Some(Deflate::default()),
            head_limits: Limits::DEFAULT,
        }
    }
}

/// The configuration as the core's connection shares it.
#[derive(Clone, Debug)]
pub(super) struct Rules(pub(super) Arc<Config>);

impl Deref for Rules {
    type Target = ws::Config;

    fn deref(&self) -> &ws::Config {
        &self.0.protocol
    }
}
