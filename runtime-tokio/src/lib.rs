//! (being written)

pub mod net;
pub mod websocket;
