//! Why a connection cannot go on, or did not begin.

use core::fmt;

use longwire_core::http::head::HeadError;
use longwire_core::http::upgrade::ResponseError;
use longwire_core::http::write::WriteError;
use longwire_core::session::ladder::Ending;
use longwire_core::ws::deflate::BadAnswer;
use longwire_core::ws::{CloseCause, ProtocolError, SendError};

/// Why a connection cannot go on. `E` is the link's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error<E> {
    /// The link failed.
    Link(E),
    /// The link took no byte, or did not end its flush, for [`Config::write_timeout`](crate::Config::write_timeout).
    WriteTimeout,
    /// A write was dropped half-way, and the link cannot say how far it got
    /// ([`Link::CANCEL_SAFE_WRITE`](crate::Link::CANCEL_SAFE_WRITE)).
    Torn,
    /// The peer broke a rule of the protocol; it was told so.
    Protocol(ProtocolError),
    /// A message that does not fit the receive buffer; the peer was told so (1009).
    MessageTooBig,
    /// The connection is over.
    Closed(CloseCause),
    /// A message was not taken.
    Send(SendError),
}

impl<E> Error<E> {
    /// The same, without what the link said.
    pub(crate) fn without_link(self) -> Error<()> {
        match self {
            Self::Link(_) => Error::Link(()),
            Self::WriteTimeout => Error::WriteTimeout,
            Self::Torn => Error::Torn,
            Self::Protocol(error) => Error::Protocol(error),
            Self::MessageTooBig => Error::MessageTooBig,
            Self::Closed(cause) => Error::Closed(cause),
            Self::Send(error) => Error::Send(error),
        }
    }
}

impl<E: fmt::Debug> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(error) => write!(f, "the link failed: {error:?}"),
            Self::WriteTimeout => f.write_str("the link takes no more bytes"),
            Self::Torn => f.write_str("a write was dropped half-way"),
            Self::Protocol(error) => write!(f, "the peer broke the protocol: {error}"),
            Self::MessageTooBig => f.write_str("a message above the receive buffer"),
            Self::Closed(cause) => write!(f, "the connection is over: {cause:?}"),
            Self::Send(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for Error<E> {}

impl<E> From<ProtocolError> for Error<E> {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

/// Why an opening handshake failed. `E` is the link's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum HandshakeError<E> {
    /// The link failed.
    Link(E),
    /// It took longer than [`Config::handshake_timeout`](crate::Config::handshake_timeout).
    Timeout,
    /// The server ended the stream before its answer was whole.
    Ended,
    /// What was offered cannot be written as a request, or does not fit the send buffer
    /// ([`WriteError::Full`]).
    Request(WriteError),
    /// The server's answer is malformed, or larger than the receive buffer ([`HeadError::TooLong`]).
    Head(HeadError),
    /// The server refuses.
    Refused {
        /// With this status.
        status: u16,
        /// And does not want to be asked again for so many seconds.
        retry_after: Option<u32>,
        /// What a gateway's own refusal, in the body, says about it (with the feature `sse`, which reads those).
        said: Option<Ending>,
    },
    /// The server's answer opens no WebSocket.
    Response(ResponseError),
    /// The server would compress in another way than was offered.
    Deflate(BadAnswer),
}

impl<E> HandshakeError<E> {
    /// The same, without what the link said.
    pub(crate) fn without_link(self) -> HandshakeError<()> {
        match self {
            Self::Link(_) => HandshakeError::Link(()),
            Self::Timeout => HandshakeError::Timeout,
            Self::Ended => HandshakeError::Ended,
            Self::Request(error) => HandshakeError::Request(error),
            Self::Head(error) => HandshakeError::Head(error),
            Self::Refused { status, retry_after, said } => {
                HandshakeError::Refused { status, retry_after, said }
            }
            Self::Response(error) => HandshakeError::Response(error),
            Self::Deflate(error) => HandshakeError::Deflate(error),
        }
    }
}

impl<E: fmt::Debug> fmt::Display for HandshakeError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(error) => write!(f, "the link failed: {error:?}"),
            Self::Timeout => f.write_str("no answer to the opening handshake in time"),
            Self::Ended => f.write_str("the server ended the stream before it answered"),
            Self::Request(error) => write!(f, "cannot write the request: {error}"),
            Self::Head(error) => write!(f, "cannot read the answer: {error}"),
            Self::Refused { status, .. } => write!(f, "the server refuses with status {status}"),
            Self::Response(error) => error.fmt(f),
            Self::Deflate(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for HandshakeError<E> {}

impl<E> From<Error<E>> for HandshakeError<E> {
    fn from(error: Error<E>) -> Self {
        match error {
            Error::Link(error) => Self::Link(error),
            // The only other thing that can go wrong before there are frames.
            _ => Self::Timeout,
        }
    }
}
