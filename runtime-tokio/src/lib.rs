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
#[allow(dead_code, reason = "the hub and the WebSocket server are about to move onto it")]
mod readiness;
#[allow(dead_code, reason = "the hub and the WebSocket server are about to move onto it")]
mod timers;
pub mod websocket;
