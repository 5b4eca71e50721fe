//! How events get here.

use longwire_core::session::ladder::{Rung, Rungs};
use std::fmt;
use std::str::FromStr;

/// How events get here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transport {
    /// WebSocket; if something in between does not let it through SSE, then long polls, then polls. What worked is remembered
    /// ([`Memory`](super::Memory)), and a better one is tried again after five minutes, beside the one that works.
    #[default]
    Auto,
    /// WebSocket.
    WebSocket,
    /// Server-Sent Events.
    Sse,
    /// Polls that wait for an event.
    LongPoll,
    /// Polls, every two seconds.
    Poll,
}

impl Transport {
    const ALL: [Self; 5] = [Self::Auto, Self::WebSocket, Self::Sse, Self::LongPoll, Self::Poll];

    /// The name: `auto`, `ws`, `sse`, `longpoll`, `poll`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::WebSocket => "ws",
            Self::Sse => "sse",
            Self::LongPoll => "longpoll",
            Self::Poll => "poll",
        }
    }

    pub(super) const fn rungs(self) -> Rungs {
        match self {
            Self::Auto => Rungs::ALL,
            Self::WebSocket => Rungs::only(Rung::WebSocket),
            Self::Sse => Rungs::only(Rung::Sse),
            Self::LongPoll => Rungs::only(Rung::LongPoll),
            Self::Poll => Rungs::only(Rung::Poll),
        }
    }
}

impl From<Rung> for Transport {
    fn from(rung: Rung) -> Self {
        match rung {
            Rung::WebSocket => Self::WebSocket,
            Rung::Sse => Self::Sse,
            Rung::LongPoll => Self::LongPoll,
            Rung::Poll => Self::Poll,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Transport {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|transport| transport.as_str() == name);
        known.ok_or_else(|| "one of ws, sse, longpoll, poll, auto".to_owned())
    }
}
