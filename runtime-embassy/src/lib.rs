//! longwire on a microcontroller: `no_std`, no allocation, any embassy executor.
//!
//! | | |
//! |---|---|
//! | [`Outbox`], [`Reporter`] | where readings wait for the network, in static memory; any task reports |
//! | [`Commands`] | what the gateway sends down, in a bounded queue |
//! | [`Uplink`] | the one task that has the connection: it comes back by itself |
//! | [`Tokens`] | credentials that change |
//! | [`WebSocket`] | a client over any [`Link`], by itself |
//! | [`Link`], [`Connect`] | what is needed of the stream below: [`Nal`] for stacks with the traits of `embedded-nal-async`, [`Tcp`] for embassy-net |
//!
//! | feature | |
//! |---|---|
//! | `embassy-net` (default) | [`Tcp`]: the sockets of embassy-net, and its DNS |
//! | `inflate` | `Inflater`: compressed messages from the server (permessage-deflate) |
//! | `json` | `Form::Json`: JSON instead of CBOR on the WebSocket |
//! | `sse` | where `Upgrade` is refused: commands over SSE, readings by POST |
//! | `ladder` | and commands by long polls, where not even that passes |
//! | `storage` | `Storage`: readings outlive a reset |
//! | `tls` | `Tls`: TLS 1.3 |
//! | `defmt`, `log` | what an uplink says of itself goes to the device's log |
//!
//! What happens to a reading:
//!
//! | | counted as |
//! |---|---|
//! | the gateway has it | `acknowledged` |
//! | the gateway will not have it | `refused` |
//! | it is larger than what it has to go through | `too_large` |
//! | there was no room, and its topic is of [`Policy::DropOldest`] | `dropped_oldest` (an older one) |
//! | there was no room, and what is there may not be dropped | `dropped_newest` (itself) |
//! | a newer one of the same topic and key came, with [`Policy::Conflate`] | `conflated` |
//! | none of these yet | `waiting` |
//!
//! They add up to `reported`, always. What is sent again after a connection was cut has the same (incarnation, number), so the
//! gateway stores it once.
//!
//! All memory is lent or static, and all of it bounded; `tests/sizes.rs` pins what the parts take beside their buffers. Nothing here is `Send`, and no future is boxed; a task polls it
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
#[cfg(feature = "storage")]
mod storage;
#[cfg(feature = "tls")]
mod tls;
mod uplink;
mod websocket;

pub use commands::{Arrival, Command, CommandCounts, Commands, Overflow};
pub use error::{Error, HandshakeError};
#[cfg(feature = "inflate")]
pub use inflate::Inflater;
pub use link::{Connect, Link, OnError, Stream};
pub use longwire_core as core;
pub use nal::{Nal, NalError};
#[cfg(feature = "embassy-net")]
pub use net::{Remote, Tcp, TcpError};
pub use outbox::{Counts, Outbox, Policy, ReportError, Reporter};
#[cfg(feature = "storage")]
pub use storage::{OpenError, Storage, StorageConfig, StorageCounts};
#[cfg(feature = "tls")]
pub use tls::{
    BadCertificate, MAX_CAS, Tls, TlsBuffers, TlsConfig, TlsConnectError, TlsError, TlsLink, TlsLinkError,
    Trust,
};
pub use uplink::{
    Form, Gateway, Lost, MAX_TARGET, NoTokens, Present, Status, Tokens, Uplink, UplinkConfig, Why,
};
#[cfg(feature = "inflate")]
pub use websocket::Decompressor;
pub use websocket::{Config, WebSocket};
