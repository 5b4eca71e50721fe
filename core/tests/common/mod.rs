//! What the tests of the WebSocket connection share.
//!
//! | word | what |
//! |---|---|
//! | [`Wire`] | bytes as the peer sends them, frame by frame |
//! | [`Endpoint`] | a connection with its two buffers, driven by the book, and what it heard and sent |
//! | [`transcript`] | what an endpoint makes of a wire that arrives in given pieces |
//! | [`every_split`] | a wire cut everywhere |
//! | [`Miniz`] | the codec that is lent for permessage-deflate |
//! | [`Pair`] | a client and a server joined by slow pipes, in virtual time |
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong has to stop"
)]

mod codec;
mod deflated;
mod endpoint;
mod pair;
mod split;
mod wire;

pub use codec::{Miniz, deflate, stored};
pub use deflated::{AGREED, KEPT, PLAIN, TAKEOVER, both_hear, hears, text};
pub use endpoint::{
    AnyClient, End, Endpoint, Flush, Heard, Keys, Lent, Transcript, limits, millis, transcript,
};
pub use pair::{Dice, Pair};
pub use split::every_split;
pub use wire::{Sent, Wire, frames};
