//! Sans-IO protocols for connections that stay open.
//!
//! Nothing in this crate opens a socket, reads a clock, or allocates. Bytes come in through a buffer that the
//! caller lends ([`buf::RxBuf`]) and go out through another ([`buf::TxBuf`]); time comes in as an
//! [`time::Instant`]; randomness comes in through [`rand_core`]. What is left is the protocol, which can
//! therefore be tested at every split of its input, under virtual time, and fuzzed.
//!
//! | module | what | source |
//! |---|---|---|
//! | [`buf`] | the lent buffers | |
//! | [`time`] | milliseconds since any start | |
//! | [`http`] | heads, bodies, the WebSocket upgrade | RFC 9110, 9112, 6455 section 4 |
//! | [`ws`] | frames, masks, and the [`ws::Connection`] | RFC 6455 |
//! | [`sse`] | event streams, both directions | WHATWG HTML section 9.2 |
//! | [`log`] | cursors, topics, patterns | `PROTOCOL.md` |
//! | [`session`] | the messages of `longwire.v1`, backoff | `PROTOCOL.md` |
//!
//! | feature | what | default |
//! |---|---|---|
//! | `json`, `cbor` | the two forms of the session protocol's messages | yes |
//! | `deflate` | extensions of WebSocket: permessage-deflate, with a codec that is lent | yes |
//! | `ladder` | other transports than WebSocket in the [`session::connector`] | yes |
//! | `transcode` | values of one form in messages of the other | no |
//! | `simd` | faster masks and UTF-8 on hosts; with the standard library | no |
//! | `defmt` | `defmt::Format` for what a device logs | no |
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(test)]
extern crate std;

pub mod buf;
pub mod digits;
pub mod http;
pub mod log;
pub mod session;
pub mod sse;
pub mod time;
mod work;
pub mod ws;

pub use rand_core;
