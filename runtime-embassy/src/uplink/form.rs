//! The two forms of a message (`PROTOCOL.md` section 4).

use longwire_core::session::{ClientMessage, DecodeError, ServerMessage, Sink, WriteError, cbor};
use longwire_core::ws::{Event, Kind};

/// How messages are written on a WebSocket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Form {
    /// CBOR (RFC 8949): small, and what readings are kept in.
    #[default]
    Cbor,
    /// JSON (RFC 8259), for those that want to read along. Readings are translated when they are sent.
    #[cfg(feature = "json")]
    Json,
}

impl Form {
    pub(super) const fn subprotocol(self) -> &'static str {
        match self {
            Self::Cbor => "longwire.v1.cbor",
            #[cfg(feature = "json")]
            Self::Json => "longwire.v1.json",
        }
    }

    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::Cbor => Kind::Binary,
            #[cfg(feature = "json")]
            Self::Json => Kind::Text,
        }
    }

    /// Encodes a message. The sink is dynamic, so that there is one encoder for counting and for writing.
    pub(super) fn encode(self, message: &ClientMessage<'_>, sink: &mut dyn Sink) -> Result<(), WriteError> {
        match self {
            Self::Cbor => cbor::encode_client(message, sink),
            #[cfg(feature = "json")]
            Self::Json => longwire_core::session::json::encode_client(message, sink),
        }
    }

    /// Decodes a message; `None` when the frame is of the wrong kind.
    pub(super) fn decode<'b>(self, event: &Event<'b>) -> Option<Result<ServerMessage<'b>, DecodeError>> {
        match (self, event) {
            (Self::Cbor, Event::Binary(message)) => Some(cbor::decode_server(message)),
            #[cfg(feature = "json")]
            (Self::Json, Event::Text(message)) => {
                Some(longwire_core::session::json::decode_server(message.as_bytes()))
            }
            _ => None,
        }
    }
}
