//! HTTP/1.1 as far as real-time connections need it: heads, bodies, and the upgrade to WebSocket.
//!
//! | module | what | source |
//! |---|---|---|
//! | [`head`] | heads, found while they arrive and parsed once | RFC 9112 |
//! | [`view`] | what a head says | RFC 9110, 9112 |
//! | [`body`] | bodies, piece by piece | RFC 9112 sections 6 and 7 |
//! | [`query`] | percent-encoding in paths and queries | RFC 3986, WHATWG URL |
//! | [`mod@write`] | heads to be sent, without injection | RFC 9112 |
//! | [`upgrade`] | the opening handshake of WebSocket, both roles | RFC 6455 section 4 |
//! | [`extension`] | `Sec-WebSocket-Extensions` | RFC 6455 section 9.1 |

pub mod body;
pub mod extension;
mod grammar;
pub mod head;
pub mod query;
pub mod upgrade;
pub mod view;
pub mod write;
