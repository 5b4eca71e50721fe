//! longwire on a microcontroller: `no_std`, no allocation, any embassy executor.
//!
//! | | |
//! |---|---|
//! | [`WebSocket`] | a client over any [`Link`] |
//! | [`Uplink`] | a connection to a gateway that comes back by itself |
//! | [`Outbox`] | where readings wait for the network, in static memory |
//! | `Inflater` | decompresses what a server sends (permessage-deflate), with the feature `inflate` |
//! | `Tls` | connections over TLS 1.3, with the feature `tls` |
//! | [`Link`], [`Connect`] | what is needed of the stream below; bound to embassy-net by the feature `embassy-net` |
//!
//! All memory is lent or static, and all of it bounded. Nothing here is `Send`, and no future is boxed; a task polls it
//! where it lies.
//!
//! ```
//! use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
//! use longwire_embassy::core::rand_core::CryptoRng;
//! use longwire_embassy::{Connect, Gateway, Lost, Outbox, Policy, Uplink, UplinkConfig};
//!
//! static OUTBOX: Outbox<CriticalSectionRawMutex, 2048> = Outbox::new(Policy::DropOldest);
//! static CONFIG: UplinkConfig = UplinkConfig::new();
//!
//! /// One task keeps the connection: over `longwire_embassy::Tcp`, for instance.
//! async fn uplink(connect: impl Connect, rng: impl CryptoRng) -> Lost {
//!     let (mut rx, mut tx) = ([0; 512], [0; 512]);
//!     let gateway = Gateway::new("192.0.2.1:8080");
//!     Uplink::new(connect, gateway, &CONFIG, rng, &mut rx, &mut tx).run(&OUTBOX, |_status| {}).await
//! }
//!
//! /// Any other reports, and never waits for the network.
//! fn measured(celsius: i16) {
//!     let taken = OUTBOX.reporter().try_report("room/7/celsius", None, &celsius);
//!     assert!(taken.is_ok());
//! }
//! # measured(21);
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(test)]
extern crate std;

mod buffered;
mod commands;
mod error;
#[cfg(feature = "inflate")]
mod inflate;
mod link;
mod nal;
#[cfg(feature = "embassy-net")]
mod net;
mod outbox;
#[cfg(feature = "tls")]
mod tls;
mod uplink;
mod websocket;

pub use commands::{Arrival, Command, CommandCounts, Commands, Overflow};
pub use error::{Error, HandshakeError};
#[cfg(feature = "inflate")]
pub use inflate::Inflater;
pub use link::{Connect, Link, Stream};
pub use longwire_core as core;
pub use nal::{Nal, NalError};
#[cfg(feature = "embassy-net")]
pub use net::{Remote, Tcp, TcpError};
pub use outbox::{Counts, Outbox, Policy, ReportError, Reporter};
#[cfg(feature = "tls")]
pub use tls::{MAX_CAS, Tls, TlsBuffers, TlsConfig, TlsConnectError, TlsError, TlsLink, TlsLinkError, Trust};
pub use uplink::{
    Form, Gateway, Lost, MAX_TARGET, NoTokens, Present, Status, Tokens, Uplink, UplinkConfig, Why,
};
#[cfg(feature = "inflate")]
pub use websocket::Decompressor;
pub use websocket::{Config, WebSocket};
