//! Real-time connections for Linux servers: one log, one cursor, one URL, four transports.
//!
//! | module | for whom |
//! |---|---|
//! | [`websocket`] | who wants a WebSocket over any tokio stream, and no hub |
//! | [`client`] | who reads or publishes at a gateway |
//! | [`hub`] | who embeds the log and its readers into a program |
//! | [`gateway`] | who serves the hub over HTTP, on its own or within an axum service |

pub mod client;
mod clock;
pub mod gateway;
pub mod hub;
pub mod net;
mod readiness;
mod timers;
pub mod websocket;
