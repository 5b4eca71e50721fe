//! The hub's WebSocket session against `PROTOCOL.md` sections 5, 6 and 9, over real sockets, and under storms.

mod answers;
mod churn;
mod client;
mod data;
mod grants;
mod storm;
mod transport;
