//! The value of an event, checked once where it comes in.

use bytes::Bytes;
use longwire_core::session::{self, Full, Length, Malformed, WriteError, cbor, json, transcode};
use std::fmt;
use std::sync::Arc;

/// Bytes of the longest content type.
const MAX_CONTENT_TYPE: usize = 255;

/// The value of an event. Whoever appends has checked that it is well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// One JSON value, without insignificant whitespace.
    Json(Bytes),
    /// One CBOR item.
    Cbor(Bytes),
    /// Opaque bytes with their content type.
    Bytes {
        /// A media type.
        content_type: Arc<str>,
        /// The value.
        bytes: Bytes,
    },
}

impl Data {
    /// Bytes of the body.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(body) | Self::Cbor(body) | Self::Bytes { bytes: body, .. } => body.len(),
        }
    }

    /// Whether the body is empty, which only opaque bytes can be.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Data {
    /// One JSON value; whitespace around and within it is dropped, so that it is one line.
    ///
    /// # Errors
    /// It is not JSON, or nested too deeply.
    pub fn json(text: &[u8]) -> Result<Self, Malformed> {
        let mut out = Vec::with_capacity(text.len());
        let mut sink = |piece: &[u8]| -> Result<(), Full> {
            out.extend_from_slice(piece);
            Ok(())
        };
        match json::compact(text, &mut sink) {
            Err(WriteError::Malformed(malformed)) => Err(malformed),
            // The sink grows.
            Err(WriteError::Full) | Ok(()) => Ok(Self::Json(out.into())),
        }
    }

    /// One CBOR item that has a form in JSON (`PROTOCOL.md` section 4.1): whoever reads JSON has to be able to read it.
    ///
    /// # Errors
    /// It is not one well-formed item, is nested too deeply, or has map keys that are neither text nor integer.
    pub fn cbor(item: &[u8]) -> Result<Self, Malformed> {
        cbor::validate(item)?;
        match transcode::cbor_to_json(item, &mut Length::default()) {
            Err(WriteError::Malformed(malformed)) => Err(malformed),
            Err(WriteError::Full) | Ok(()) => Ok(Self::Cbor(Bytes::copy_from_slice(item))),
        }
    }

    /// Anything, with its content type.
    ///
    /// # Errors
    /// [`BadData::ContentType`].
    pub fn opaque(content_type: &str, bytes: Bytes) -> Result<Self, BadData> {
        // It may end up in a header of somebody's response.
        if content_type.len() > MAX_CONTENT_TYPE || content_type.contains(char::is_control) {
            return Err(BadData::ContentType);
        }
        Ok(Self::Bytes { content_type: content_type.into(), bytes })
    }
}

impl Data {
    /// The same, as the protocol's messages have it.
    pub(crate) fn borrowed(&self) -> session::Data<'_> {
        match self {
            Self::Json(json) => session::Data::Json(json),
            Self::Cbor(cbor) => session::Data::Cbor(cbor),
            Self::Bytes { content_type, bytes } => session::Data::Bytes {
                content_type: Some((&**content_type).into()),
                bytes: (&bytes[..]).into(),
            },
        }
    }
}

/// What a message carries, kept.
impl TryFrom<session::Data<'_>> for Data {
    type Error = BadData;

    fn try_from(data: session::Data<'_>) -> Result<Self, BadData> {
        match data {
            session::Data::Json(text) => Ok(Self::json(text)?),
            session::Data::Cbor(item) => Ok(Self::cbor(item)?),
            session::Data::Bytes { content_type, bytes } => {
                let mut kind = String::new();
                // Writing into a `String` cannot fail.
                let _ = content_type.map(|text| text.write_to(&mut kind));
                let kind = if kind.is_empty() { "application/octet-stream" } else { &kind };
                Self::opaque(kind, bytes.iter().collect())
            }
        }
    }
}

/// A value that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadData {
    /// It is not what it should be.
    Malformed(Malformed),
    /// Its content type has more than 255 bytes, or control characters.
    ContentType,
}

impl BadData {
    /// What is wrong, in words.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Malformed(malformed) => malformed.reason.as_str(),
            Self::ContentType => "a content type has up to 255 bytes without control characters",
        }
    }
}

impl From<Malformed> for BadData {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl fmt::Display for BadData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::ContentType => f.write_str(self.as_str()),
        }
    }
}

impl std::error::Error for BadData {}
