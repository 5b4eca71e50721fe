//! The two forms of a message (`PROTOCOL.md` section 4).

use super::Error;
use super::item::Arrival;
use crate::websocket::Message;
use longwire_core::session::{ClientMessage, Code, cbor, json};

/// How messages are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Form {
    /// JSON (RFC 8259).
    #[default]
    Json,
    /// CBOR (RFC 8949): smaller, and exact for numbers.
    Cbor,
}

impl Form {
    pub(super) const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "longwire.v1.json",
            Self::Cbor => "longwire.v1.cbor",
        }
    }

    /// Reads one envelope. A type that this version does not know is passed over.
    pub(super) fn decode(self, envelope: &[u8]) -> Result<Arrival, Error> {
        let message = match self {
            Self::Json => json::decode_server(envelope),
            Self::Cbor => cbor::decode_server(envelope),
        };
        match message {
            Ok(message) => Ok(message.into()),
            Err(error) if error.code == Code::UnknownType => Ok(Arrival::Other),
            Err(error) => Err(Error::Protocol(error.to_string())),
        }
    }

    pub(super) fn encode(self, message: &ClientMessage<'_>) -> Result<Message, Error> {
        let mut out = Vec::new();
        let mut sink = |piece: &[u8]| {
            out.extend_from_slice(piece);
            Ok(())
        };
        let data = |error: &dyn std::fmt::Display| Error::Data(error.to_string());
        match self {
            Self::Json => {
                json::encode_client(message, &mut sink).map_err(|error| data(&error))?;
                Ok(String::from_utf8(out).map_err(|error| data(&error))?.into())
            }
            Self::Cbor => {
                cbor::encode_client(message, &mut sink).map_err(|error| data(&error))?;
                Ok(out.into())
            }
        }
    }
}
