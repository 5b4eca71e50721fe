//! WebSocket (RFC 6455): frames, masks, close codes, and the [`Connection`] of either role.
//!
//! The opening handshake is HTTP's affair and lives in [`crate::http`]; what follows it is a [`Connection`],
//! which a runtime drives like this:
//!
//! 1. read from the socket into [`RxBuf::spare_mut`](crate::buf::RxBuf::spare_mut);
//! 2. [`poll`](Connection::poll) until it says [`Step::NeedInput`], looking at the event of each [`Step::Event`];
//! 3. write [`TxBuf::pending`](crate::buf::TxBuf::pending) to the socket;
//! 4. sleep until there is input, or until [`poll_timeout`](Connection::poll_timeout), then
//!    [`handle_timeout`](Connection::handle_timeout).
//!
//! What is compressed (RFC 7692) is agreed on and sent by the means of [`deflate`].

mod close;
mod config;
mod connection;
pub mod deflate;
mod error;
mod event;
mod frame;
mod mask;
mod role;
mod utf8;

pub use close::{CloseCause, CloseCode, CloseReason};
pub use config::{Config, Delivery, Heartbeat};
pub use connection::{Connection, MIN_RX, MIN_TX};
pub use error::{ProtocolError, SendError};
pub use event::{Chunk, Event, Found, Kind, Step, Text};
pub use frame::{EncodedHeader, FrameHeader, OpCode};
pub use mask::unmask;
pub use role::{Client, Role, Server};
