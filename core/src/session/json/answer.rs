//! The bodies of HTTP answers (`PROTOCOL.md` sections 8 and 9), as a client reads them.

use super::{Scanner, Token};
use crate::log::Cursor;
use crate::session::envelope::{self, Fields, Input as _, decode_untyped, short};
use crate::session::{DecodeError, Field, Gap, Kind, Malformed, Pressure, Reason, Refusal, ServerMessage};
use core::time::Duration;

/// Decodes the body of an HTTP response that refuses (section 9).
///
/// # Errors
/// What is wrong: then whoever answered is no gateway.
///
/// ```
/// use longwire_core::session::{Code, json};
///
/// let body = br#"{"code":"draining","message":"restarts","permanent":false,"retry_after":2000}"#;
/// let refusal = json::decode_refusal(body).unwrap();
/// assert_eq!(refusal.code(), Some(Code::Draining));
/// assert!(json::decode_refusal(b"<html>").is_err());
/// ```
pub fn decode_refusal(body: &[u8]) -> Result<Refusal<'_>, Malformed> {
    decode_untyped(&mut Scanner::new(body), Some(Kind::Nack)).map(|fields| fields.refusal())
}

/// What a poll is answered with (section 8.1).
#[derive(Clone, Debug)]
pub struct PollAnswer<'b> {
    /// What is missing before the first event.
    pub gap: Option<Gap>,
    /// How far behind `next` is, when that is worth telling (section 5.1).
    pub pressure: Option<Pressure>,
    /// The cursor for the next poll.
    pub next: Cursor,
    /// More can be had at once.
    pub more: bool,
    events: &'b [u8],
}

impl<'b> PollAnswer<'b> {
    /// The events, in order. A gateway sends nothing but [`ServerMessage::Event`] here; whether it did is for the
    /// caller to see.
    pub fn events(&self) -> impl Iterator<Item = Result<ServerMessage<'b>, DecodeError>> + use<'b> {
        let mut scanner = Scanner::answer(self.events);
        // `decode_poll` has seen that this is an array, and that all of it is JSON.
        let _ = scanner.next();
        // Its end is passed over as if it were a value.
        core::iter::from_fn(move || scanner.raw_value().ok().filter(|raw| *raw != b"]"))
            .map(super::decode_server)
    }
}

/// Decodes the answer to a poll. Its events are decoded one by one, later.
///
/// # Errors
/// What is wrong.
///
/// ```
/// use longwire_core::session::json;
///
/// let body = br#"{"events":[{"type":"event","topic":"a","at":"000000000000002a-6","data":1}],"next":"000000000000002a-6"}"#;
/// let answer = json::decode_poll(body).unwrap();
/// assert_eq!((answer.events().count(), answer.next.seq, answer.more), (1, 6, false));
/// ```
pub fn decode_poll(body: &[u8]) -> Result<PollAnswer<'_>, Malformed> {
    let (mut gap, mut pressure, mut next, mut more, mut events) = (None, None, None, false, None);
    let mut scanner = Scanner::answer(body);
    scanner.begin()?;
    while let Some(Token::Name(name)) = scanner.next()? {
        match short(name, &mut heapless::String::new()) {
            Some("gap") => gap = Some(scanner.inner(Kind::Gap)?.gap()),
            Some("pressure") => pressure = Some(scanner.inner(Kind::Pressure)?.pressure()),
            Some("next") => next = Some(envelope::cursor(&mut scanner, Field::At)?),
            Some("more") => more = scanner.boolean(Field::Permanent)?,
            Some("events") => events = Some(scanner.array()?),
            _ => scanner.skip()?,
        }
    }
    // Nothing may follow.
    scanner.next()?;
    match (next, events) {
        (Some(next), Some(events)) => Ok(PollAnswer { gap, pressure, next, more, events }),
        _ => scanner.fail(Reason::Missing(Field::At)),
    }
}

/// What a publication is answered with (section 8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Published {
    /// Where the event is. A repetition may be without: a gateway does not remember the positions of all publishers.
    pub at: Option<Cursor>,
    /// How long to wait before the next publication (section 5.3).
    pub pressure: Option<Duration>,
}

/// Decodes the answer to a publication.
///
/// # Errors
/// What is wrong.
///
/// ```
/// use core::time::Duration;
/// use longwire_core::session::json;
///
/// let published = json::decode_published(br#"{"at":"000000000000002a-6","pressure":250}"#).unwrap();
/// assert_eq!((published.at.unwrap().seq, published.pressure), (6, Some(Duration::from_millis(250))));
/// ```
pub fn decode_published(body: &[u8]) -> Result<Published, Malformed> {
    decode_untyped(&mut Scanner::new(body), None).map(|fields| fields.published())
}

impl<'b> Scanner<'b> {
    /// Values within an event may be nested as deep as in a message.
    fn answer(body: &'b [u8]) -> Self {
        let mut scanner = Self::message(body);
        scanner.max_depth += 2;
        scanner
    }

    /// Reads a map that has the fields of a message of this kind.
    fn inner(&mut self, kind: Kind) -> Result<Fields<'b>, Malformed> {
        decode_untyped(&mut Self::message(self.raw_value()?), Some(kind))
    }

    /// Passes over an array, and returns its text.
    fn array(&mut self) -> Result<&'b [u8], Malformed> {
        let raw = self.raw_value()?;
        if raw.starts_with(b"[") { Ok(raw) } else { self.fail(Reason::Grammar) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::GapReason;
    use std::vec::Vec;

    #[test]
    fn section_8_1_answers_to_polls() {
        let body = br#"{"gap":{"from":"000000000000002a-1","to":"000000000000002a-5","reason":"evicted"},
            "pressure":{"lag":7,"limit":9,"skipped":2},
            "events":[{"type":"event","topic":"a","at":"000000000000002a-6","data":{"x":[1, 2]}}, {"type":"tick","at":"000000000000002a-7"}],
            "next":"000000000000002a-6","more":true,"later":[]}"#;
        let answer = decode_poll(body).unwrap();
        let cursor = |seq| Cursor { epoch: 0x2a, seq };
        let gap = Gap { from: cursor(1), to: cursor(5), reason: GapReason::Evicted, skipped: None };
        assert_eq!((answer.gap, answer.next, answer.more), (Some(gap), cursor(6), true));
        assert_eq!(answer.pressure, Some(Pressure { lag: 7, limit: 9, skipped: 2 }));
        let events: Vec<_> = answer.events().map(|event| event.unwrap().kind()).collect();
        assert_eq!(events, [Kind::Event, Kind::Tick]);
        let deep = std::format!(
            r#"{{"events":[{{"type":"event","topic":"a","at":"000000000000002a-6","data":{}{}}}],"next":"000000000000002a-6"}}"#,
            "[".repeat(32),
            "]".repeat(32)
        );
        assert!(decode_poll(deep.as_bytes()).unwrap().events().all(|event| event.is_ok()));
        let none = br#"{"events":[],"next":"000000000000002a-6"}"#;
        assert_eq!(decode_poll(none).unwrap().events().count(), 0);
        let cut = br#"{"events":[{}, "x",]"#;
        assert!(decode_poll(cut).is_err());
        let strange = br#"{"events":[{}, "x", []],"next":"000000000000002a-6"}"#;
        assert!(decode_poll(strange).unwrap().events().map(|event| event.is_err()).eq([true; 3]));
        for bad in [
            "",
            "[]",
            "{}",
            "{",
            r#"{"events":[]}"#,
            r#"{"events":[],"next":"x"}"#,
            r#"{"gap":{},"events":[],"next":"000000000000002a-6"}"#,
            r#"{"gap":7,"events":[],"next":"000000000000002a-6"}"#,
            r#"{"pressure":{"lag":7,"limit":9},"events":[],"next":"000000000000002a-6"}"#,
            r#"{"pressure":250,"events":[],"next":"000000000000002a-6"}"#,
            r#"{"events":7,"next":"000000000000002a-6"}"#,
            r#"{"events":{},"next":"000000000000002a-6"}"#,
            r#"{"events":[],"next":"000000000000002a-6","more":1}"#,
            r#"{"events":[],"next":"000000000000002a-6"} 1"#,
        ] {
            assert!(decode_poll(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn section_9_refusals_are_read_as_they_are_written() {
        let refusal = Refusal::new(crate::session::Code::OverQuota, "too \"much\"")
            .retry_after(Duration::from_millis(7));
        let mut body = heapless::Vec::<u8, 128>::new();
        super::super::encode_refusal(&refusal, &mut body).unwrap();
        assert_eq!(decode_refusal(&body).unwrap(), refusal);
        let more = br#"{"type":{"a":"b"},"code":"x","message":"","permanent":true,"later":[{}]}"#;
        assert!(decode_refusal(more).unwrap().permanent);
        for bad in
            ["", "no", "{}", r#"{"code":7,"message":"","permanent":true}"#, r#"{"code":"x","message":""}"#]
        {
            assert!(decode_refusal(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn section_8_2_a_publication_is_answered() {
        let published = |body: &str| decode_published(body.as_bytes()).ok();
        let at = Some(Cursor { epoch: 0x2a, seq: 6 });
        let pressure = Some(Duration::from_millis(250));
        assert_eq!(
            published(r#"{"at":"000000000000002a-6","pressure":250}"#),
            Some(Published { at, pressure })
        );
        assert_eq!(
            published(r#"{"at":"000000000000002a-6","later":[{}]}"#),
            Some(Published { at, pressure: None })
        );
        assert_eq!(published(r#"{"pressure":250}"#), Some(Published { at: None, pressure }));
        assert_eq!(published("{}"), Some(Published { at: None, pressure: None }));
        for bad in ["", "<html>", r#"{"at":7}"#, r#"{"at":"x"}"#, r#"{"pressure":-1}"#, "{}{}"] {
            assert_eq!(published(bad), None, "{bad}");
        }
    }
}
