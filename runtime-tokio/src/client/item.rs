//! What a subscriber hands out.

use super::{Cursor, Gap, Position, Pressure, Refusal, Transport};
use bytes::Bytes;
use longwire_core::session::{self, Text};
use std::time::Duration;

/// Something that a [`Subscriber`](super::Subscriber) has for its application.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item {
    /// An event of the log.
    Event(Event),
    /// The past that was asked for is complete; what follows is live. From here on the position is known.
    CaughtUp(Cursor),
    /// Events with `from` < position <= `to` that matched may be missing. With
    /// [`GapReason::Reset`](super::GapReason::Reset): forget what was known, the state follows.
    Gap(Gap),
    /// This reader is behind, and will lose events if it stays so; or has just lost some.
    Pressure(Pressure),
    /// The connection changed.
    State(State),
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// What it is about.
    pub topic: String,
    /// Where it stands in the log, and whether a reader may resume from there.
    pub position: Position,
    /// What distinguishes it within the topic.
    pub key: Option<String>,
    /// Its value.
    pub data: Data,
}

/// The value of an event or a publication. Cloning it shares its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// One JSON value, as text.
    Json(Bytes),
    /// One CBOR data item.
    Cbor(Bytes),
    /// Something opaque.
    Bytes {
        /// What it is; `application/octet-stream` if absent.
        content_type: Option<String>,
        /// The value.
        bytes: Bytes,
    },
}

/// How the connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// An attempt is being made.
    Connecting(Transport),
    /// The gateway answered.
    Connected(Transport),
    /// A better transport was tried beside the one that is used, and did not work: nothing changes.
    Kept {
        /// The one that was tried.
        tried: Transport,
        /// Why it did not work, in words.
        why: String,
    },
    /// The connection ended, or could not be opened; the next attempt comes after this time.
    Waiting {
        /// How long.
        wait: Duration,
        /// Why, in words.
        why: String,
    },
    /// It is over: the same would happen again. Only a [`Publisher`](super::Publisher) says this here; a subscriber ends with the
    /// error.
    Stopped {
        /// Why, in words.
        why: String,
    },
    /// A transport could not be opened; the next one is tried at once.
    Fallback {
        /// The one that could not.
        from: Transport,
        /// Why, in words.
        why: String,
    },
}

/// What arrives over a connection.
pub(super) enum Arrival {
    Event(Event),
    CaughtUp(Cursor),
    Gap(Gap),
    Pressure(Pressure),
    Tick(Cursor),
    Hello(Hello),
    /// The grant ends: another credential is wanted within this time.
    Renew(Duration),
    Bye(Refusal),
    /// Something was refused, and the connection goes on.
    Error(Refusal),
    /// `ack`: its number, and how long to wait with the next publication.
    Ack(u64, Option<Duration>),
    Nack(Refusal),
    /// A sign of life.
    Other,
}

/// What a gateway says first.
pub(super) struct Hello {
    pub(super) session: String,
    pub(super) heartbeat: Option<Duration>,
    pub(super) window: Option<Duration>,
    pub(super) max_inflight: u64,
    pub(super) max_message: u64,
}

impl From<session::ServerMessage<'_>> for Arrival {
    fn from(message: session::ServerMessage<'_>) -> Self {
        use session::ServerMessage as M;
        match message {
            M::Hello { session, heartbeat, limits, window, .. } => Self::Hello(Hello {
                session: owned(session),
                heartbeat: Some(heartbeat),
                window,
                max_inflight: limits.max_inflight,
                max_message: limits.max_message,
            }),
            M::Event(event) => Self::Event(event.into()),
            M::CaughtUp { at, .. } => Self::CaughtUp(at),
            M::Gap(gap) => Self::Gap(gap),
            M::Pressure(pressure) => Self::Pressure(pressure),
            M::Tick { at } => Self::Tick(at),
            M::Renew { within } => Self::Renew(within),
            M::Bye { refusal, window } => Self::Bye(Refusal { window, ..(&refusal).into() }),
            M::Error { refusal, .. } => Self::Error((&refusal).into()),
            M::Ack { n, pressure, .. } => Self::Ack(n, pressure),
            M::Nack { n, refusal } => Self::Nack(Refusal { n, ..(&refusal).into() }),
            _ => Self::Other,
        }
    }
}

impl From<session::Event<'_>> for Event {
    fn from(event: session::Event<'_>) -> Self {
        Self {
            topic: owned(event.topic),
            position: event.position,
            key: event.key.map(owned),
            data: event.data.into(),
        }
    }
}

impl From<session::Data<'_>> for Data {
    fn from(data: session::Data<'_>) -> Self {
        match data {
            session::Data::Json(json) => Self::Json(Bytes::copy_from_slice(json)),
            session::Data::Cbor(cbor) => Self::Cbor(Bytes::copy_from_slice(cbor)),
            session::Data::Bytes { content_type, bytes } => {
                Self::Bytes { content_type: content_type.map(owned), bytes: bytes.iter().collect() }
            }
        }
    }
}

impl From<&session::Refusal<'_>> for Refusal {
    fn from(refusal: &session::Refusal<'_>) -> Self {
        Self {
            status: None,
            code: owned(refusal.code),
            message: owned(refusal.message),
            permanent: refusal.permanent,
            retry_after: refusal.retry_after,
            window: None,
            n: None,
        }
    }
}

fn owned(text: Text<'_>) -> String {
    match text.as_plain() {
        Some(plain) => plain.to_owned(),
        None => text.chars().collect(),
    }
}
