//! The messages of `longwire.v1` (`PROTOCOL.md`): what a client and a server say to each other, in JSON and CBOR;
//! and what a client does with them: [when to come back](backoff), [over which transport](ladder), the two
//! [together](connector), a [reader](subscriber) that stays, [publishing once](publisher), and [how long a grant
//! lasts](lease).
//!
//! Messages are borrowed from the bytes that they were decoded from, and nothing is copied: a [`Text`] with
//! escapes, [`Bytes`] in base64, a list of [`Topics`] are walked where they lie. Decoding checks everything that
//! section 4 says about the form, in one pass, so that walking cannot fail. Encoding writes into any [`Sink`].
//!
//! ```
//! # #[cfg(feature = "json")] {
//! use longwire_core::session::{ClientMessage, Data, json};
//!
//! let wire = br#"{"type":"pub","n":1,"topic":"fleet/7/cpu","data":0.25}"#;
//! let message = json::decode_client(wire).unwrap();
//! let ClientMessage::Pub { n, topic, key: None, data: Data::Json(data) } = message else { unreachable!() };
//! assert_eq!((n, topic.as_plain(), data), (Some(1), Some("fleet/7/cpu"), &b"0.25"[..]));
//!
//! let mut out = heapless::Vec::<u8, 64>::new();
//! json::encode_client(&message, &mut out).unwrap();
//! assert_eq!(out, wire);
//! # }
//! ```

pub mod backoff;
mod bytes;
#[cfg(feature = "cbor")]
pub mod cbor;
mod code;
pub mod connector;
#[cfg(all(feature = "transcode", any(target_os = "none", test)))]
mod decimal;
#[cfg(any(feature = "json", feature = "cbor"))]
mod envelope;
mod error;
mod field;
#[cfg(feature = "json")]
pub mod json;
pub mod ladder;
pub mod lease;
mod message;
pub mod publisher;
mod sink;
pub mod subscriber;
mod text;
mod topics;
#[cfg(feature = "transcode")]
pub mod transcode;

pub use bytes::Bytes;
pub use code::{Code, UnknownCode};
pub use error::{DecodeError, Malformed, Reason, WriteError};
pub use field::{Field, Kind};
pub use message::{
    ClientMessage, Data, Event, Gap, GapReason, Level, Limits, Position, Pressure, Refusal, ServerMessage,
};
pub use sink::{Full, Length, Sink, SliceSink};
pub use text::Text;
pub use topics::{Topics, TopicsIter};

/// How deep arrays, maps and tags may be nested in `data`, and in any other field: 32 levels, not counting the map of
/// the message itself. A number is no level, `[1]` is one, `[[1]]` are two.
pub const MAX_DEPTH: usize = 32;
