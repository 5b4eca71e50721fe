//! What can go wrong: by the peer's fault, and by ours.

use super::CloseCode;
use core::fmt;

/// The peer broke a rule. The connection has failed: the Close frame with [`code`](Self::code) is in the send
/// buffer, and no further event comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ProtocolError {
    /// RSV1, RSV2 or RSV3 is set, and no extension that was negotiated gives it a meaning (RFC 6455 section 5.2).
    ReservedBits,
    /// An opcode that RFC 6455 section 5.2 reserves.
    ReservedOpcode,
    /// A client's frame without a mask (section 5.1).
    Unmasked,
    /// A server's frame with a mask (section 5.1).
    Masked,
    /// A length in more bytes than it needs (section 5.2).
    LengthNotMinimal,
    /// A 64-bit length with its highest bit set (section 5.2).
    LengthTooLarge,
    /// A control frame with more than 125 bytes of payload (section 5.5).
    ControlTooLong,
    /// A fragmented control frame (section 5.5).
    ControlFragmented,
    /// A continuation without a message to continue (section 5.4).
    UnexpectedContinuation,
    /// A new message before the end of the last one (section 5.4).
    ExpectedContinuation,
    /// A Close with a payload of one byte (section 5.5.1).
    CloseTooShort,
    /// A Close with a code that must not be sent (section 7.4).
    BadCloseCode,
    /// Text, or the reason of a Close, that is not UTF-8 (section 8.1).
    NotUtf8,
    /// A message above [`Config::max_message`](super::Config::max_message).
    MessageTooBig,
    /// A message in more pieces than [`Config::max_fragments`](super::Config::max_fragments).
    TooManyFragments,
    /// A compressed message that is not DEFLATE (RFC 7692 section 7.2.2).
    Corrupt,
    /// Not the peer's fault: a compressed message came, permessage-deflate was agreed on, and no
    /// [`Inflate`](super::deflate::Inflate) is lent.
    NoInflate,
    /// Not the peer's fault: the lent send buffer is smaller than [`MIN_TX`](super::MIN_TX), so that a Ping can
    /// never be answered.
    SendBufferTooSmall,
}

impl ProtocolError {
    /// The code of the Close frame that was sent because of it.
    pub const fn code(self) -> CloseCode {
        match self {
            Self::NotUtf8 | Self::Corrupt => CloseCode::INVALID_PAYLOAD,
            Self::MessageTooBig => CloseCode::TOO_BIG,
            Self::TooManyFragments => CloseCode::POLICY,
            Self::SendBufferTooSmall | Self::NoInflate => CloseCode::INTERNAL,
            _ => CloseCode::PROTOCOL,
        }
    }

    /// What happened, in a few words: also the reason in the Close frame.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved bits are set",
            Self::ReservedOpcode => "reserved opcode",
            Self::Unmasked => "frame from a client without a mask",
            Self::Masked => "frame from a server with a mask",
            Self::LengthNotMinimal => "length in more bytes than it needs",
            Self::LengthTooLarge => "length above 2^63 - 1",
            Self::ControlTooLong => "control frame above 125 bytes",
            Self::ControlFragmented => "fragmented control frame",
            Self::UnexpectedContinuation => "continuation without a message",
            Self::ExpectedContinuation => "new message inside a message",
            Self::CloseTooShort => "close code cut short",
            Self::BadCloseCode => "close code that must not be sent",
            Self::NotUtf8 => "text is not UTF-8",
            Self::MessageTooBig => "message above max_message",
            Self::TooManyFragments => "message above max_fragments",
            Self::Corrupt => "compressed data is malformed",
            Self::NoInflate => "no decompressor",
            Self::SendBufferTooSmall => "send buffer too small",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for ProtocolError {}

/// A message was not taken; nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SendError {
    /// It does not fit into the send buffer beside what is pending. Flush and try again; a message that is
    /// larger than the buffer goes out in pieces ([`start`](super::Connection::start)).
    Full,
    /// The closing handshake has begun, or the connection is over.
    Closing,
    /// A message begun with [`start`](super::Connection::start) is not finished: other data would end up in it.
    InMessage,
    /// [`write`](super::Connection::write) or [`finish`](super::Connection::finish) without a message begun.
    NoMessage,
    /// The payload of a Ping or Pong is above 125 bytes.
    ControlTooLong,
    /// permessage-deflate was not agreed on ([`Connection::with_deflate`](super::Connection::with_deflate)).
    NotAgreed,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the send buffer is full",
            Self::Closing => "the connection is closing",
            Self::InMessage => "a message is begun and not finished",
            Self::NoMessage => "no message is begun",
            Self::ControlTooLong => "control payload above 125 bytes",
            Self::NotAgreed => "permessage-deflate was not agreed on",
        })
    }
}

impl core::error::Error for SendError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn rfc6455_7_4_1_each_error_has_its_code() {
        use ProtocolError as E;
        for (error, code) in [
            (E::ReservedBits, 1002),
            (E::Unmasked, 1002),
            (E::BadCloseCode, 1002),
            (E::NotUtf8, 1007),
            (E::Corrupt, 1007),
            (E::TooManyFragments, 1008),
            (E::MessageTooBig, 1009),
            (E::NoInflate, 1011),
            (E::SendBufferTooSmall, 1011),
        ] {
            assert_eq!(error.code().get(), code, "{error}");
        }
    }

    #[test]
    fn an_error_says_what_its_close_frame_says() {
        assert_eq!(ProtocolError::NotUtf8.to_string(), "text is not UTF-8");
        assert_eq!(ProtocolError::TooManyFragments.to_string(), ProtocolError::TooManyFragments.as_str());
    }

    #[test]
    fn a_refused_message_says_why() {
        assert_eq!(SendError::Full.to_string(), "the send buffer is full");
        assert_eq!(SendError::InMessage.to_string(), "a message is begun and not finished");
    }
}
