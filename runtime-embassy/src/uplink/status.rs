//! What an uplink is doing, and why it has no connection.

use core::fmt;
use core::time::Duration;

use longwire_core::session::backoff::Failure;
use longwire_core::session::ladder::{Ending, Rung};
use longwire_core::session::{Code, Refusal};
use longwire_core::ws::{CloseCause, CloseCode};

use crate::error::{Error, HandshakeError};

/// What an uplink is doing, told when it changes: for a light, or a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Status {
    /// It makes an attempt over this transport.
    Connecting(Rung),
    /// The gateway said its first word over it: readings are sent.
    Open(Rung),
    /// The gateway took another credential for this connection.
    Renewed,
    /// The attempt failed, or the connection ended.
    Lost(Lost),
    /// The next attempt is made after this time.
    Waiting(Duration),
}

impl Status {
    /// Tells the application, and the device's log when there is one.
    pub(super) fn tell(self, observe: &mut dyn FnMut(Self)) {
        #[cfg(feature = "log")]
        match self {
            Self::Lost(lost) => log::warn!("longwire: {lost}"),
            status => log::info!("longwire: {status}"),
        }
        #[cfg(feature = "defmt")]
        match self {
            Self::Lost(lost) => defmt::warn!("longwire: {}", lost),
            status => defmt::info!("longwire: {}", status),
        }
        observe(self);
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting(rung) => write!(f, "connecting over {}", name(*rung)),
            Self::Open(rung) => write!(f, "open over {}", name(*rung)),
            Self::Renewed => f.write_str("credential renewed"),
            Self::Lost(lost) => lost.fmt(f),
            Self::Waiting(wait) => write!(f, "next attempt in {} ms", wait.as_millis()),
        }
    }
}

const fn name(rung: Rung) -> &'static str {
    match rung {
        Rung::WebSocket => "WebSocket",
        Rung::Sse => "SSE",
        Rung::LongPoll => "long poll",
        Rung::Poll => "POST",
    }
}

/// Why an uplink has no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Lost {
    /// There was no token to be had, or none in time.
    NoToken,
    /// No link could be opened, or not in time.
    NoLink,
    /// The opening handshake failed.
    Handshake(HandshakeError<()>),
    /// The server does not speak longwire in the form that was asked for.
    NoSubprotocol,
    /// The gateway's first word did not come in time.
    NoHello,
    /// A text frame where CBOR was agreed on, or the other way round.
    WrongFrame,
    /// A message that is no envelope.
    BadMessage,
    /// The gateway said `bye`, with this code if it is known here.
    Bye(Option<Code>, Ending),
    /// The gateway refused what the device subscribes to.
    Subscription(Option<Code>, Ending),
    /// The gateway closed, with this code if it gave one.
    Closed(Option<CloseCode>),
    /// Nothing was heard for longer than twice the gateway's heartbeat.
    Silent,
    /// It was ended to try a better transport; if that does not work either, this one is opened again.
    LookUp,
    /// It was ended to go on as another incarnation, at once: a storage cannot write down which numbers of this one are used.
    /// Once between two resets, as a rule.
    Incarnation,
    /// The connection broke.
    Broken(Error<()>),
    /// A token or a subscription that does not fit the send buffer.
    TooLong,
}

impl Lost {
    /// A `bye`.
    pub(super) fn bye(refusal: &Refusal<'_>, window: Option<Duration>) -> Self {
        Self::Bye(refusal.code(), Ending::from_refusal(refusal, window))
    }

    /// Whether somebody is there who answers, though not as it was hoped. What a proxy says when the gateway behind it is away does not count.
    pub(super) const fn is_answer(&self) -> bool {
        match self.ending() {
            Ending::Foreign { status, .. } => status < 500,
            Ending::Mangled | Ending::Unauthorized | Ending::Said(_) => true,
            Ending::Unreachable | Ending::Cut | Ending::Silent | Ending::Garbled => false,
        }
    }

    /// What it says about the transport, and about coming back (`PROTOCOL.md` section 11).
    pub const fn ending(&self) -> Ending {
        match *self {
            Self::NoToken | Self::NoLink => Ending::Unreachable,
            // What is wrong with the request is wrong with the next one.
            Self::TooLong | Self::Handshake(HandshakeError::Request(_)) => Ending::Said(Failure::Permanent),
            Self::Handshake(error) => handshake(error),
            Self::Bye(_, ending) | Self::Subscription(_, ending) => ending,
            Self::Closed(Some(code)) => Ending::from_close(code),
            Self::Closed(None) | Self::LookUp | Self::Incarnation => Ending::Cut,
            Self::NoHello | Self::Silent => Ending::Silent,
            Self::NoSubprotocol | Self::WrongFrame | Self::BadMessage => Ending::Garbled,
            Self::Broken(error) => match error {
                Error::Closed(CloseCause::Timeout) | Error::WriteTimeout => Ending::Silent,
                Error::Protocol(_) => Ending::Garbled,
                Error::MessageTooBig => Ending::Said(Failure::Lost),
                _ => Ending::Cut,
            },
        }
    }
}

const fn handshake(error: HandshakeError<()>) -> Ending {
    match error {
        HandshakeError::Refused { said: Some(ending), .. } => ending,
        HandshakeError::Refused { status, retry_after, .. } => {
            let retry_after = match retry_after {
                Some(seconds) => Some(Duration::from_secs(seconds as u64)),
                None => None,
            };
            Ending::from_status(status, retry_after)
        }
        HandshakeError::Timeout => Ending::Silent,
        HandshakeError::Link(()) | HandshakeError::Ended => Ending::Cut,
        _ => Ending::Garbled,
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken => f.write_str("no token"),
            Self::NoLink => f.write_str("no link"),
            Self::Handshake(error) => error.fmt(f),
            Self::NoSubprotocol => f.write_str("the server does not speak longwire.v1 in this form"),
            Self::NoHello => f.write_str("no hello in time"),
            Self::WrongFrame => f.write_str("a frame of the wrong kind"),
            Self::BadMessage => f.write_str("a message that is no envelope"),
            Self::Bye(Some(code), _) => write!(f, "the gateway said bye: {code}"),
            Self::Bye(None, _) => f.write_str("the gateway said bye"),
            Self::Subscription(Some(code), _) => write!(f, "the gateway refused the subscription: {code}"),
            Self::Subscription(None, _) => f.write_str("the gateway refused the subscription"),
            Self::Closed(Some(code)) => write!(f, "the gateway closed with {code}"),
            Self::Closed(None) => f.write_str("the gateway closed"),
            Self::LookUp => f.write_str("to try a better transport"),
            Self::Incarnation => f.write_str("to go on as another incarnation"),
            Self::Silent => f.write_str("nothing was heard for too long"),
            Self::Broken(error) => error.fmt(f),
            Self::TooLong => f.write_str("a token or a subscription that does not fit the send buffer"),
        }
    }
}

impl core::error::Error for Lost {}
