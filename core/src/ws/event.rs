//! What a connection reports.

use super::{CloseCause, CloseReason};
use crate::buf::RxBuf;
use core::fmt;

/// What the caller has to do next.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Something was received: look at it with [`Found::event`], then poll again.
    Event(Found),
    /// Everything received so far is worked off: flush, then read more.
    NeedInput,
    /// The receive buffer is full in the middle of a message. Lend one of at least this many bytes, with what is
    /// held copied over; or give up with [`close`](super::Connection::close). It asks as bytes arrive, for at
    /// most about twice what is held: a header that announces much reserves nothing.
    NeedSpace(usize),
    /// The send buffer has no room for an answer. Flush, then poll again *before* reading: there may be input
    /// that was not looked at yet.
    NeedFlush,
    /// The connection is over: flush, then end the stream.
    Closed(CloseCause),
}

/// An event that lies in the receive buffer. It is dropped by the next call of
/// [`poll`](super::Connection::poll); until then it can be looked at.
#[derive(Debug, PartialEq, Eq)]
pub struct Found(pub(super) Finding);

impl Found {
    /// The event, borrowed from the buffer that was lent to the poll which found it.
    ///
    /// It takes the buffer by value, so that an async `recv` may return what it borrows from its own storage;
    /// [`RxBuf::reborrow`] lends it for a shorter time.
    #[inline]
    pub fn event<'b>(&self, rx: RxBuf<'b>) -> Event<'b> {
        self.0.event(rx)
    }
}

/// Where an event lies: data at the start of what is kept, control frames at the start of what is unread.
///
/// What it is has a word of its own: all of it in one word would be written byte by byte and read as a whole, and the
/// processor would wait for that as long as a fifth of a small message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Finding {
    Message(Kind),
    Chunk { kind: Kind, first: bool, last: bool, tail: u8 },
    Ping(Place),
    Pong(Place),
    Close(Place),
}

/// A control frame: the length of its header and of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) header: u8,
    pub(super) len: u8,
}

impl Place {
    fn payload(self, unread: &[u8]) -> &[u8] {
        let (from, len) = (usize::from(self.header), usize::from(self.len));
        unread.get(from..from + len).unwrap_or_default()
    }
}

impl Finding {
    #[inline]
    fn event<'b>(self, rx: RxBuf<'b>) -> Event<'b> {
        let (kept, unread) = rx.into_parts();
        match self {
            Self::Message(Kind::Text) => Event::Text(Text(kept)),
            Self::Message(Kind::Binary) => Event::Binary(kept),
            Self::Chunk { kind, first, last, tail } => {
                let len = kept.len().saturating_sub(usize::from(tail));
                Event::Chunk(Chunk { kind, first, last, payload: kept.get(..len).unwrap_or_default() })
            }
            Self::Ping(place) => Event::Ping(place.payload(unread)),
            Self::Pong(place) => Event::Pong(place.payload(unread)),
            // It was checked when it was found.
            Self::Close(place) => {
                Event::Close(CloseReason::parse(place.payload(unread)).unwrap_or(CloseReason::NONE))
            }
        }
    }
}

/// Something received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'b> {
    /// A text message, under [`Delivery::Whole`](super::Delivery::Whole).
    Text(Text<'b>),
    /// A binary message, under [`Delivery::Whole`](super::Delivery::Whole).
    Binary(&'b [u8]),
    /// A piece of a message, under [`Delivery::Chunks`](super::Delivery::Chunks).
    Chunk(Chunk<'b>),
    /// A Ping. The Pong is already in the send buffer.
    Ping(&'b [u8]),
    /// A Pong, asked for or not.
    Pong(&'b [u8]),
    /// The peer closes. The answer is already in the send buffer, and nothing more comes.
    Close(CloseReason<'b>),
}

/// A text that is known to be UTF-8.
///
/// Bytes are what most servers pass on, and they are free. As a `str` they have to be checked once more, because
/// this crate has no `unsafe` to do without: [`as_str`](Self::as_str) costs what the check costs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<'b>(pub(super) &'b [u8]);

impl<'b> Text<'b> {
    /// The bytes, which are UTF-8.
    pub const fn as_bytes(&self) -> &'b [u8] {
        self.0
    }

    /// The text. Linear in its length.
    pub fn as_str(&self) -> &'b str {
        super::utf8::from_checked(self.0)
    }
}

impl<'b> From<&'b str> for Text<'b> {
    fn from(text: &'b str) -> Self {
        Self(text.as_bytes())
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

/// A piece of a message, cut where the bytes happened to arrive. Pieces are not frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'b> {
    /// What the message is.
    pub kind: Kind,
    /// Whether it begins the message.
    pub first: bool,
    /// Whether it ends the message.
    pub last: bool,
    /// The bytes. Of a text, whole characters. Empty only at the end of a message.
    pub payload: &'b [u8],
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{format, string::ToString};

    #[test]
    fn the_payload_of_a_control_frame_lies_behind_its_header_and_before_the_next_frame() {
        let place = Place { header: 6, len: 3 };
        assert_eq!(place.payload(b"headerabcnext"), b"abc");
        assert_eq!(place.payload(b"headerab"), b"", "not when it is cut");
    }

    #[test]
    fn a_text_is_shown_and_compared_as_the_text_that_it_is() {
        let text = Text("κόσμε\n".as_bytes());
        assert_eq!((text.to_string(), format!("{text:?}")), ("κόσμε\n".into(), "\"κόσμε\\n\"".into()));
        assert!(text == "κόσμε\n" && text != "κόσμε");
    }
}
