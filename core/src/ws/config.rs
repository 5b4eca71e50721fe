//! What an endpoint allows and expects.

use core::time::Duration;

/// The rules that an endpoint sets for a connection. Shared by reference between all connections.
///
/// Every limit is finite by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Most payload bytes of one message, over all its fragments. Default 1 MiB. One byte more fails the
    /// connection with 1009, when the header announces it and before anything is stored.
    ///
    /// Under [`Delivery::Whole`] a receive buffer that grows to this (and [`MIN_RX`](super::MIN_RX) more) is
    /// what a peer can make an endpoint spend; a buffer ends at 4 GiB, and so do such messages whatever stands
    /// here.
    ///
    /// With permessage-deflate it holds for what comes out: one byte more is never inflated. What goes in may be an
    /// eighth more than that, and 64 bytes, and 8 for each fragment. Both lie in the buffer, so that grows to twice
    /// as much and an eighth, and whole messages on such a connection end at 1.3 GiB.
    pub max_message: u64,

    /// Most fragments of one message. Default 131,072. One more fails the connection with 1008. Fragments cost
    /// no memory here (they are closed up in place), but their headers cost work that the payload limit does not see.
    pub max_fragments: u32,

    /// Whether messages are handed out whole or as they arrive. Default [`Delivery::Whole`].
    pub delivery: Delivery,

    /// When to ask a silent peer whether it lives. Default: after 30 s, with 10 s to answer. `None` leaves
    /// half-open connections to the caller.
    pub heartbeat: Option<Heartbeat>,

    /// How long the closing handshake may take once this end has sent its Close. Default 5 s.
    pub close_timeout: Duration,

    /// Free bytes in the send buffer, beside those reserved for control frames, that a message waits for before
    /// it is handed out. Default 0: it waits for nothing. An application that answers each message with at most
    /// this many bytes (header included) never sees [`SendError::Full`](super::SendError::Full) for its answer;
    /// but two endpoints that wait so for each other, each with its answers unread, wait until a deadline.
    pub reply_room: usize,
}

impl Config {
    /// The defaults, as a constant.
    pub const fn new() -> Self {
        Self {
            max_message: 1 << 20,
            max_fragments: 1 << 17,
            delivery: Delivery::Whole,
            heartbeat: Some(Heartbeat {
                interval: Duration::from_secs(30),
                timeout: Duration::from_secs(10),
            }),
            close_timeout: Duration::from_secs(5),
            reply_room: 0,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

/// How messages are handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// As [`Event::Text`](super::Event::Text) and [`Event::Binary`](super::Event::Binary), when they are
    /// complete. The receive buffer has to hold the whole message.
    #[default]
    Whole,
    /// As [`Event::Chunk`](super::Event::Chunk), piece by piece as they arrive. A message of any size passes
    /// through a buffer of [`MIN_RX`](super::MIN_RX) bytes.
    Chunks,
}

/// When to ask a silent peer whether it lives. A half-open connection is noticed after `interval + timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// A Ping is sent after this long without a byte from the peer.
    pub interval: Duration,
    /// The connection is given up this long after the Ping, if still no byte came.
    pub timeout: Duration,
}
