//! What is fuzzed, as plain functions: each takes any bytes, and panics when a property does not hold.
//!
//! The property is the same for all readers of bytes: **however the input is cut, and whatever the buffers, the
//! outcome is that of the whole.** And none panics, waits for nothing, or asks for more memory than its limits allow. The
//! [differentials](DIFFERENTIALS) give the same bytes to another implementation, and demand the same outcome.
//!
//! `cargo fuzz run TARGET` finds new inputs, `cargo test -p longwire-fuzz` replays those in `corpus/` on any
//! toolchain, and `cargo run -p longwire-fuzz --bin TARGET -- FILE...` replays one that was found. See `README.md`.
#![allow(
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a property that does not hold has to stop the run"
)]

/// The endpoint, its transcript, and the dice are those of the core's own tests.
#[path = "../../core/tests/common/mod.rs"]
mod common;

mod choices;
mod cuts;
mod deflate;
mod differential;
mod http_body;
mod http_head;
mod runtime_cancel;
mod session;
mod sse;
mod tls;
/// The server that lies is that of the device's own tests.
#[path = "../../runtime-embassy/tests/common/tls_server.rs"]
mod tls_server;
mod upgrade;
mod ws_connection;
mod ws_pair;

pub use deflate::deflate;
pub use differential::{
    DIFFERENTIALS, Differential, Known, differential_eventsource_stream, differential_fastwebsockets,
    differential_flate2, differential_httparse, differential_tungstenite,
};
pub use http_body::http_body;
pub use http_head::http_head;
pub use runtime_cancel::runtime_cancel;
pub use session::{session_cbor, session_json};
pub use sse::sse;
pub use tls::tls;
pub use upgrade::upgrade;
pub use ws_connection::ws_connection;
pub use ws_pair::ws_pair;

/// A property of any bytes: it panics where it does not hold.
pub type Target = fn(&[u8]);

/// Every target, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("differential_eventsource_stream", differential_eventsource_stream),
    ("differential_fastwebsockets", differential_fastwebsockets),
    ("differential_flate2", differential_flate2),
    ("differential_httparse", differential_httparse),
    ("differential_tungstenite", differential_tungstenite),
    ("deflate", deflate),
    ("http_body", http_body),
    ("http_head", http_head),
    ("runtime_cancel", runtime_cancel),
    ("session_cbor", session_cbor),
    ("session_json", session_json),
    ("sse", sse),
    ("tls", tls),
    ("upgrade", upgrade),
    ("ws_connection", ws_connection),
    ("ws_pair", ws_pair),
];

/// Runs a target over the files that the command line names.
pub fn replay(target: Target) {
    for path in std::env::args_os().skip(1) {
        eprintln!("{}", path.display());
        target(&std::fs::read(&path).unwrap());
    }
}
