//! The gateway over real sockets: `PROTOCOL.md` sections 6 to 10, as somebody on the other side sees it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, and that is what it is for"
)]

mod access;
mod admission;
mod authority;
mod credentials;
mod drain;
mod logs;
mod once;
mod polls;
mod program;
mod publisher;
mod publishing;
mod quotas;
mod refusals;
mod renewal;
mod secure;
mod slow;
mod streams;
mod subscriber;
mod support;
mod tls;
#[path = "../wire/mod.rs"]
mod wire;
