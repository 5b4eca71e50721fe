//! The messages of `longwire.v1` (`PROTOCOL.md` section 5), borrowed from where they lie.

use super::{Bytes, Code, Kind, Text, Topics};
pub use crate::log::Pressure;
use crate::log::{Cursor, Policy, Since};
use core::time::Duration;

/// What a client sends, over WebSocket.
///
/// Topics, patterns and keys are not yet checked against section 3: [`Text::topic`], [`Text::pattern`] and
/// [`Text::key`] do that, and what they refuse is [`Code::BadTopic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientMessage<'b> {
    /// Adds patterns to what this connection reads.
    Sub {
        /// Repeated in the answer.
        id: Option<u32>,
        /// Where to begin; `now` if absent.
        since: Option<Since>,
        /// What happens when this reader is too far behind, from now on; as before if absent.
        policy: Option<Policy>,
        /// The patterns.
        topics: Topics<'b>,
    },
    /// Removes patterns, by their text.
    Unsub {
        /// Repeated in the answer.
        id: Option<u32>,
        /// The patterns.
        topics: Topics<'b>,
    },
    /// Publishes.
    Pub {
        /// Number of this publication, counted by its publisher from 1; without it there is no `ack`.
        n: Option<u64>,
        /// Where to.
        topic: Text<'b>,
        /// What distinguishes it within the topic.
        key: Option<Text<'b>>,
        /// The value.
        data: Data<'b>,
    },
    /// Replaces the grant of this connection.
    Auth {
        /// The new credential.
        token: Text<'b>,
    },
}

/// What a server sends, over WebSocket; some of it also over SSE and in polls.
///
/// A field's `Duration` counts in whole milliseconds: what is less is cut off when it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerMessage<'b> {
    /// First message of a connection; also the answer to `auth`.
    Hello {
        /// Names this connection in logs.
        session: Text<'b>,
        /// A `tick` or a Ping comes at least this often.
        heartbeat: Duration,
        /// How long the grant lasts; `None`: until the connection ends.
        lease: Option<Duration>,
        /// What the server allows.
        limits: Limits,
        /// The last publication of this publisher that was taken; `None` when none is known.
        publisher_n: Option<u64>,
        /// When this connection ends without a `bye`, come back at a random moment within this time.
        window: Option<Duration>,
    },
    /// An event of the log.
    Event(Event<'b>),
    /// The past asked for has been sent; what follows is live. Also the answer to `sub` and `unsub`.
    CaughtUp {
        /// A position to resume from.
        at: Cursor,
        /// Of the `sub` or `unsub` that this answers.
        id: Option<u32>,
    },
    /// All publications up to `n` of this connection are taken, except those refused by `nack`.
    Ack {
        /// Number of the last one.
        n: u64,
        /// How far they got.
        level: Level,
        /// Wait this long before the next publication, or it may be refused.
        pressure: Option<Duration>,
    },
    /// A publication is refused.
    Nack {
        /// Its number, if it had one.
        n: Option<u64>,
        /// Why.
        refusal: Refusal<'b>,
    },
    /// Events with `from` < position <= `to` that matched may be missing.
    Gap(Gap),
    /// This reader is behind, and will lose events if it stays so; or has just lost some.
    Pressure(Pressure),
    /// Nothing happened up to `at`.
    Tick {
        /// A position to resume from.
        at: Cursor,
    },
    /// The grant ends: send `auth` in time.
    Renew {
        /// How long that time is.
        within: Duration,
    },
    /// The server ends this connection.
    Bye {
        /// Why, and when to come back.
        refusal: Refusal<'b>,
        /// Come back at a random moment within this time after the refusal's `retry_after`.
        window: Option<Duration>,
    },
    /// A message was refused; the connection goes on.
    Error {
        /// Why.
        refusal: Refusal<'b>,
        /// Of the message that this answers.
        id: Option<u32>,
    },
}

/// An event, with its position in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'b> {
    /// What it is about.
    pub topic: Text<'b>,
    /// Where it stands in the log.
    pub position: Position,
    /// What distinguishes it within the topic.
    pub key: Option<Text<'b>>,
    /// Its value.
    pub data: Data<'b>,
}

/// Where an event stands in the log, and whether a reader may resume from there (section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Position {
    /// `at`: the reader's cursor becomes this.
    At(Cursor),
    /// `past`: part of a state, or of a topic that was added later; the reader's cursor stays.
    Past(Cursor),
}

/// The value of an event or a publication.
///
/// A value in one form is written into a message of the other by the table of section 4.1, when the crate is built
/// with the feature `transcode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data<'b> {
    /// One JSON value, as text. Decoding has checked it; an encoder copies it as it is, so whoever makes one from
    /// elsewhere has checked it, too (`json::validate`, `json::compact`).
    Json(&'b [u8]),
    /// One CBOR data item. Decoding has checked it; an encoder copies it as it is, so whoever makes one from
    /// elsewhere has checked it, too (`cbor::validate`).
    Cbor(&'b [u8]),
    /// Something opaque.
    Bytes {
        /// What it is; `application/octet-stream` if absent.
        content_type: Option<Text<'b>>,
        /// The value.
        bytes: Bytes<'b>,
    },
}

/// Something missing from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Gap {
    /// The start, itself not missing.
    pub from: Cursor,
    /// The end, inclusive.
    pub to: Cursor,
    /// Why.
    pub reason: GapReason,
    /// How many events that matched are missing, where that is known.
    pub skipped: Option<u64>,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $word:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$word_doc])* $word,)*
            /// A word that this version does not know. It is written as `unknown`.
            Unknown,
        }

        impl $name {
            /// The word as it is written in messages.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => $text,)*
                    Self::Unknown => "unknown",
                }
            }

            #[cfg(any(feature = "json", feature = "cbor"))]
            pub(super) fn from_text(text: Text<'_>) -> Self {
                $(if text == $text { return Self::$word; })*
                Self::Unknown
            }
        }
    };
}

words! {
    /// Why events are missing.
    GapReason {
        /// The log no longer holds them.
        Evicted = "evicted",
        /// The reader was too far behind.
        Slow = "slow",
        /// Another epoch, or ahead of the log: the reader's state is void, the state follows.
        Reset = "reset",
        /// The reader was too far behind, and gets only the latest event of each topic and key in between.
        Conflated = "conflated",
        /// The reader itself passed over what it has no room for. No server says so.
        TooLarge = "too_large",
    }
}

words! {
    /// How far a publication got.
    Level {
        /// It is in the memory of the gateway.
        Ring = "ring",
    }
}

/// That something is refused, why, and what to do about it: part of `nack`, `bye` and `error`, and the body of an
/// HTTP response (section 9).
///
/// ```
/// use longwire_core::session::{Code, Refusal};
///
/// let refusal = Refusal::new(Code::TopicsFull, "the table of topics is full");
/// assert_eq!((refusal.code(), refusal.permanent), (Some(Code::TopicsFull), false));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal<'b> {
    /// The code as text: a later version may send one that [`code`](Self::code) does not know.
    pub code: Text<'b>,
    /// The same again will fail again.
    pub permanent: bool,
    /// The refusal in words, for people.
    pub message: Text<'b>,
    /// Do not come back earlier. Not part of `error`: there it is not written.
    pub retry_after: Option<Duration>,
}

impl<'b> Refusal<'b> {
    /// A refusal that is as permanent as its code.
    pub fn new(code: Code, message: &'b str) -> Self {
        Self { code: code.into(), permanent: code.permanent(), message: message.into(), retry_after: None }
    }

    /// The same, with a time before which nobody should come back.
    #[must_use]
    pub const fn retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    /// The code, if this version knows it.
    pub fn code(&self) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| self.code == code.as_str())
    }
}

/// What `hello` says that the server allows (section 10). A client treats what it does not say as unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Limits {
    /// Bytes of one message or body.
    pub max_message: u64,
    /// Patterns on one connection.
    pub max_topics: u64,
    /// Unacknowledged publications; beyond it the server stops reading the connection.
    pub max_inflight: u64,
}

impl ClientMessage<'_> {
    /// Its `type`.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Sub { .. } => Kind::Sub,
            Self::Unsub { .. } => Kind::Unsub,
            Self::Pub { .. } => Kind::Pub,
            Self::Auth { .. } => Kind::Auth,
        }
    }
}

impl ServerMessage<'_> {
    /// Its `type`.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Hello { .. } => Kind::Hello,
            Self::Event(_) => Kind::Event,
            Self::CaughtUp { .. } => Kind::CaughtUp,
            Self::Ack { .. } => Kind::Ack,
            Self::Nack { .. } => Kind::Nack,
            Self::Gap(_) => Kind::Gap,
            Self::Pressure(_) => Kind::Pressure,
            Self::Tick { .. } => Kind::Tick,
            Self::Renew { .. } => Kind::Renew,
            Self::Bye { .. } => Kind::Bye,
            Self::Error { .. } => Kind::Error,
        }
    }
}
