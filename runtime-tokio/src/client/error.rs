//! What can go wrong.

use crate::net::UrlError;
use crate::websocket;
use longwire_core::log::NameError;
use longwire_core::session;
use longwire_core::session::backoff::Failure;
use longwire_core::session::ladder::Ending;
use longwire_core::ws::{CloseCause, CloseCode};
use std::time::Duration;
use std::{fmt, io};

/// Why an operation of the client failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The URL is not one that can be connected to.
    Url(UrlError),
    /// The gateway's URL has a query.
    Query,
    /// The credential holds something other than visible ASCII.
    Token,
    /// The source of credentials failed, for this reason.
    TokenSource(String),
    /// The header of this name cannot be sent: its name or value has a character that no header has.
    Header(String),
    /// A topic, pattern or key (the text) breaks a rule of `PROTOCOL.md` section 3.
    Name(String, NameError),
    /// A subscription without a pattern.
    NoPattern,
    /// The data to be published is not one JSON value.
    Data(String),
    /// The gateway cannot be reached, or TLS was refused.
    Io(io::Error),
    /// The WebSocket failed.
    WebSocket(websocket::Error),
    /// HTTP failed.
    Http(hyper::Error),
    /// The gateway refused.
    Refused(Refusal),
    /// The gateway closed the WebSocket with this code and reason.
    Closed(u16, String),
    /// An event stream was asked for, and this came instead.
    NoEventStream(String),
    /// The stream of events ended.
    Ended,
    /// Nothing was heard, for this long.
    Silence(Duration),
    /// The gateway said something that is no `longwire.v1`.
    Protocol(String),
    /// A message or answer is above [`Endpoint::max_message`](super::Endpoint::max_message), or above what the gateway
    /// takes.
    TooBig(usize),
}

/// What a gateway says when it refuses (`PROTOCOL.md` section 9).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The HTTP status, when it came as a response.
    pub status: Option<u16>,
    /// The code, such as `forbidden`; empty when the answer is not a gateway's.
    pub code: String,
    /// The reason in words.
    pub message: String,
    /// The same again will fail again.
    pub permanent: bool,
    /// Do not come back earlier.
    pub retry_after: Option<Duration>,
    /// Come back at a random moment within this time after that.
    pub window: Option<Duration>,
    /// The number of the publication that is refused.
    pub n: Option<u64>,
}

impl Refusal {
    pub(super) fn new(status: Option<u16>, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
            permanent: status
                .is_some_and(|status| matches!(status, 300..500) && status != 408 && status != 429),
            retry_after: None,
            window: None,
            n: None,
        }
    }

    fn ending(&self) -> Ending {
        match self.status {
            Some(status) if self.code.is_empty() => Ending::from_status(status, self.retry_after),
            _ => {
                let refusal = session::Refusal {
                    code: self.code.as_str().into(),
                    permanent: self.permanent,
                    message: "".into(),
                    retry_after: self.retry_after,
                };
                Ending::from_refusal(&refusal, self.window)
            }
        }
    }
}

impl Error {
    /// Whether the same again would fail again.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Url(_)
            | Self::Query
            | Self::Token
            | Self::Header(_)
            | Self::Name(..)
            | Self::NoPattern
            | Self::Data(_)
            | Self::TooBig(_) => true,
            Self::Refused(refusal) => refusal.permanent,
            // PROTOCOL.md section 6: the codes that say "no". 3000 asks for another credential than this one.
            Self::Closed(code, _) => matches!(code, 1002 | 1003 | 1007..=1009 | 3000),
            _ => false,
        }
    }

    /// How a connection ended of which this came, when TCP and TLS stood.
    pub(super) fn ending(&self) -> Ending {
        use websocket::{Error as W, HandshakeError as H};
        match self {
            Self::Refused(refusal) => refusal.ending(),
            Self::Closed(code, _) => match CloseCode::new(*code) {
                Some(code) => Ending::from_close(code),
                // No code at all.
                None => Ending::Cut,
            },
            Self::Io(_) | Self::Ended => Ending::Cut,
            Self::WebSocket(error) => match error {
                W::Io(_) | W::Handshake(H::EndOfStream) | W::Closed(CloseCause::EndOfStream) => Ending::Cut,
                W::Closed(CloseCause::Timeout) | W::Timeout(_) => Ending::Silent,
                _ => Ending::Garbled,
            },
            Self::Http(error) if error.is_parse() => Ending::Garbled,
            Self::Http(_) => Ending::Cut,
            Self::NoEventStream(_) => Ending::Foreign { status: 200, retry_after: None },
            Self::Silence(_) => Ending::Silent,
            Self::Protocol(_) => Ending::Garbled,
            Self::TokenSource(_) => Ending::Unreachable,
            _ => Ending::Said(Failure::Permanent),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(error) => error.fmt(f),
            Self::Query => f.write_str("the gateway's URL has a query (?...): give the base only"),
            Self::TokenSource(why) => write!(f, "no credential to be had: {}", why.escape_debug()),
            Self::Token => f.write_str("the token is empty, or holds something other than visible ASCII"),
            Self::Header(name) => write!(f, "the header `{}` cannot be sent", name.escape_debug()),
            Self::Name(text, error) => write!(f, "`{}`: {error}", text.escape_debug()),
            Self::NoPattern => f.write_str("no pattern to subscribe to"),
            Self::Data(why) => write!(f, "the data is not one JSON value: {why}"),
            Self::Io(error) => error.fmt(f),
            Self::WebSocket(error) => error.fmt(f),
            Self::Http(error) => write!(f, "HTTP failed: {error}"),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Closed(code, reason) if reason.is_empty() => {
                write!(f, "the gateway closed the connection with code {code}")
            }
            Self::Closed(code, reason) => {
                write!(f, "the gateway closed the connection with code {code}: {}", reason.escape_debug())
            }
            Self::NoEventStream(kind) => {
                write!(f, "an event stream was asked for, but {} came", kind.escape_debug())
            }
            Self::Ended => f.write_str("the stream of events ended"),
            Self::Silence(time) => write!(f, "nothing was heard for {:.1} s", time.as_secs_f32()),
            Self::Protocol(what) => write!(f, "this is no longwire gateway: {what}"),
            Self::TooBig(limit) => write!(f, "a message or answer above {limit} bytes"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused")?;
        if let Some(n) = self.n {
            write!(f, " publication {n}")?;
        }
        match (self.status, self.code.as_str()) {
            (Some(status), "") => write!(f, " with status {status}")?,
            (Some(status), code) => write!(f, " with status {status}, {}", code.escape_debug())?,
            (None, code) => write!(f, " with {}", code.escape_debug())?,
        }
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message.escape_debug()) }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::WebSocket(error) => Some(error),
            Self::Http(error) => Some(error),
            _ => None,
        }
    }
}

impl From<UrlError> for Error {
    fn from(error: UrlError) -> Self {
        Self::Url(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<hyper::Error> for Error {
    fn from(error: hyper::Error) -> Self {
        Self::Http(error)
    }
}

impl From<websocket::Error> for Error {
    fn from(error: websocket::Error) -> Self {
        match error {
            websocket::Error::Io(error) => Self::Io(error),
            websocket::Error::Handshake(websocket::HandshakeError::Refused(refused)) => Self::Refused(
                super::http::refusal(refused.status, refused.retry_after, refused.body.as_bytes()),
            ),
            error => Self::WebSocket(error),
        }
    }
}
