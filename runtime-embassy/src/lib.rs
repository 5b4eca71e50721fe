//! longwire on a microcontroller: `no_std`, no allocation, any embassy executor.
//!
//! | | |
//! |---|---|
//! | [`WebSocket`] | a client over any [`Link`] |
//! | [`Uplink`] | a connection to a gateway that comes back by itself |
//! | [`Outbox`] | where readings wait for the network, in static memory |
//! | [`Link`], [`Connect`] | what is needed of the stream below; bound to embassy-net by the feature `embassy-net` |
//!
//! All memory is lent or static, and all of it bounded.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(test)]
extern crate std;

mod buffered;
mod error;
mod link;
#[cfg(feature = "embassy-net")]
mod net;
mod outbox;
mod uplink;
mod websocket;

pub use error::{Error, HandshakeError};
pub use link::{Connect, Link, Stream};
pub use longwire_core as core;
#[cfg(feature = "embassy-net")]
pub use net::Tcp;
pub use outbox::{Counts, Outbox, ReportError, WhenFull};
pub use uplink::{Gateway, Lost, Status, Uplink, UplinkConfig};
pub use websocket::{Config, WebSocket};
