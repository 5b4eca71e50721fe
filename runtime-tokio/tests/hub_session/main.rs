//! The hub's WebSocket session against `PROTOCOL.md` sections 5, 6 and 9, over real sockets, and under storms.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, and that is what it is for"
)]

mod answers;
mod churn;
mod client;
mod data;
mod grants;
mod logs;
mod slow;
mod storm;
mod transport;
