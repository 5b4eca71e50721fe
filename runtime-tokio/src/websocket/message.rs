//! Messages that own their bytes, and messages that lie in a buffer.

use bytes::Bytes;
use bytestring::ByteString;
use longwire_core::ws::{self, Kind, Text};

/// A whole message that owns its bytes. Cloning it shares them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A text.
    Text(ByteString),
    /// Bytes.
    Binary(Bytes),
}

impl Message {
    /// A text message.
    pub fn text(text: impl Into<ByteString>) -> Self {
        Self::Text(text.into())
    }

    /// A binary message.
    pub fn binary(data: impl Into<Bytes>) -> Self {
        Self::Binary(data.into())
    }

    /// The payload: of a text, its UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(data) => data,
        }
    }

    /// The text, unless it is a binary message.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// Copies a data message out of the receive buffer; `None` for control frames and chunks.
    pub fn from_event(event: &ws::Event<'_>) -> Option<Self> {
        match event {
            ws::Event::Text(text) => Some(Self::text(text.as_str())),
            ws::Event::Binary(data) => Some(Self::Binary(Bytes::copy_from_slice(data))),
            _ => None,
        }
    }

    pub(super) fn into_parts(self) -> (Kind, Bytes) {
        match self {
            Self::Text(text) => (Kind::Text, text.into_bytes()),
            Self::Binary(data) => (Kind::Binary, data),
        }
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<Bytes> for Message {
    fn from(data: Bytes) -> Self {
        Self::Binary(data)
    }
}

impl From<Vec<u8>> for Message {
    fn from(data: Vec<u8>) -> Self {
        Self::binary(data)
    }
}

/// A whole message that lies in somebody's buffer: what [`serve`](super::serve) hands out, and what it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageRef<'b> {
    /// A text.
    Text(Text<'b>),
    /// Bytes.
    Binary(&'b [u8]),
}

impl<'b> MessageRef<'b> {
    /// The payload: of a text, its UTF-8. It costs nothing.
    pub fn as_bytes(&self) -> &'b [u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(data) => data,
        }
    }

    /// The text, unless it is a binary message. Linear in its length ([`Text::as_str`]).
    pub fn as_str(&self) -> Option<&'b str> {
        match self {
            Self::Text(text) => Some(text.as_str()),
            Self::Binary(_) => None,
        }
    }

    /// A message that owns its bytes.
    pub fn to_message(&self) -> Message {
        match self {
            Self::Text(text) => Message::text(text.as_str()),
            Self::Binary(data) => Message::Binary(Bytes::copy_from_slice(data)),
        }
    }

    #[inline]
    pub(super) fn parts(self) -> (Kind, &'b [u8]) {
        match self {
            Self::Text(text) => (Kind::Text, text.as_bytes()),
            Self::Binary(data) => (Kind::Binary, data),
        }
    }
}

impl<'b> From<Text<'b>> for MessageRef<'b> {
    fn from(text: Text<'b>) -> Self {
        Self::Text(text)
    }
}

impl<'b> From<&'b str> for MessageRef<'b> {
    fn from(text: &'b str) -> Self {
        Self::Text(text.into())
    }
}

impl<'b> From<&'b [u8]> for MessageRef<'b> {
    fn from(data: &'b [u8]) -> Self {
        Self::Binary(data)
    }
}

impl<'b> From<&'b Message> for MessageRef<'b> {
    fn from(message: &'b Message) -> Self {
        match message {
            Message::Text(text) => (&**text).into(),
            Message::Binary(data) => Self::Binary(data),
        }
    }
}
