//! What can go wrong.

use longwire_core::http::{head::HeadError, upgrade, write::WriteError};
use longwire_core::ws::{CloseCause, ProtocolError};
use std::time::Duration;
use std::{fmt, io};

/// Why an operation on a WebSocket failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The stream failed: the name was not found, nobody listens, TLS was refused, the connection was reset.
    Io(io::Error),
    /// The URL is not one that can be connected to.
    Url(crate::net::UrlError),
    /// The opening handshake failed.
    Handshake(HandshakeError),
    /// The peer broke a rule; the Close frame with [`ProtocolError::code`] was sent.
    Protocol(ProtocolError),
    /// The connection is over, and this is how it ended. From `recv`, it ended without a closing handshake.
    Closed(CloseCause),
    /// The closing handshake has begun: no message can be sent any more.
    Closing,
    /// Something took too long.
    Timeout(Timeout),
    /// The payload of a Ping is above 125 bytes (RFC 6455 section 5.5). The connection goes on.
    PingTooLong,
    /// [`start_send`](futures_sink::Sink::start_send) without a [`poll_ready`](futures_sink::Sink::poll_ready) that was
    /// ready. The message was not taken; the connection goes on.
    NotReady,
    /// The peer does not take what it is sent, and as much waits for it as
    /// [`Config::max_send_buffer`](super::Config::max_send_buffer) allows. The message was not taken; the connection
    /// goes on.
    Full,
    /// Whole messages were asked for, but the connection hands out chunks
    /// ([`Delivery::Chunks`](longwire_core::ws::Delivery::Chunks)). Use `recv`.
    Chunks,
}

/// What took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timeout {
    /// The opening handshake ([`Config::handshake_timeout`](super::Config::handshake_timeout)).
    Handshake,
    /// The peer took nothing of what was written
    /// ([`Config::write_timeout`](super::Config::write_timeout)).
    Write,
}

/// Why the opening handshake failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The server refused.
    Refused(Refused),
    /// The server's answer does not open a WebSocket.
    Response(upgrade::ResponseError),
    /// The client's request is no opening handshake; it was refused with the status that says so.
    Request(upgrade::HandshakeError),
    /// The application refused the request, with this status.
    Rejected(u16),
    /// The peer's head is malformed or too large.
    Head(HeadError),
    /// A header, subprotocol or target that was to be sent cannot stand in a head.
    Write(WriteError),
    /// The peer ended the stream before its head was whole.
    EndOfStream,
}

/// A server's refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// The status.
    pub status: u16,
    /// How long the server wants to be left alone (`Retry-After`).
    pub retry_after: Option<Duration>,
    /// Where a redirect leads; it was not followed.
    pub location: Option<String>,
    /// The beginning of the body, at most 4 KiB; what is not UTF-8 is replaced.
    pub body: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Url(error) => error.fmt(f),
            Self::Handshake(error) => error.fmt(f),
            Self::Protocol(error) => {
                write!(f, "the peer broke the WebSocket protocol: {error} (close code {})", error.code())
            }
            Self::Closed(CloseCause::Clean) => f.write_str("the connection is closed"),
            Self::Closed(CloseCause::Failed(code)) => {
                write!(f, "the connection was failed with close code {code}")
            }
            Self::Closed(CloseCause::Timeout) => f.write_str("the peer did not answer in time"),
            Self::Closed(CloseCause::EndOfStream) => {
                f.write_str("the stream ended without a closing handshake")
            }
            Self::Closing => f.write_str("the connection is closing"),
            Self::Timeout(Timeout::Handshake) => f.write_str("the opening handshake took too long"),
            Self::Timeout(Timeout::Write) => f.write_str("the peer stopped reading"),
            Self::PingTooLong => f.write_str("the payload of a ping is above 125 bytes"),
            Self::NotReady => f.write_str("a message was given before there was room for it"),
            Self::Full => f.write_str("the peer does not read, and more waits for it than is allowed"),
            Self::Chunks => {
                f.write_str("whole messages were asked for from a connection that hands out chunks")
            }
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refused) => refused.fmt(f),
            Self::Response(error) => write!(f, "the server's answer opens no WebSocket: {error}"),
            Self::Request(error) => error.fmt(f),
            Self::Rejected(status) => write!(f, "the request was refused with status {status}"),
            Self::Head(error) => write!(f, "malformed HTTP head: {error}"),
            Self::Write(error) => write!(f, "the handshake cannot be written: {error}"),
            Self::EndOfStream => f.write_str("the stream ended in the opening handshake"),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server refused the WebSocket with status {}", self.status)?;
        if let Some(location) = &self.location {
            write!(f, " (redirect to {location}, not followed)")?;
        }
        match self.body.lines().next() {
            Some(line) if !line.trim().is_empty() => write!(f, ": {}", line.trim()),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Handshake(error) => Some(error),
            Self::Protocol(error) => Some(error),
            _ => None,
        }
    }
}

impl std::error::Error for HandshakeError {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<HandshakeError> for Error {
    fn from(error: HandshakeError) -> Self {
        Self::Handshake(error)
    }
}

impl From<crate::net::UrlError> for Error {
    fn from(error: crate::net::UrlError) -> Self {
        Self::Url(error)
    }
}

impl From<HeadError> for Error {
    fn from(error: HeadError) -> Self {
        HandshakeError::Head(error).into()
    }
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        HandshakeError::Write(error).into()
    }
}
