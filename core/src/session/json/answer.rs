//! The bodies of HTTP answers (`PROTOCOL.md` sections 8 and 9), as a client reads them.

use super::{Scanner, Token, uint};
use crate::log::{Cursor, MAX_CURSOR};
use crate::session::{DecodeError, Field, Gap, GapReason, Malformed, Reason, Refusal, ServerMessage, Text};
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
    let (mut code, mut message, mut permanent, mut retry_after) = (None, None, None, None);
    let mut scanner = Scanner::new(body);
    self::body(&mut scanner, |scanner, name| {
        match name {
            Some("code") => code = Some(scanner.text()?),
            Some("message") => message = Some(scanner.text()?),
            Some("permanent") => permanent = Some(scanner.boolean()?),
            Some("retry_after") => retry_after = Some(scanner.millis()?),
            _ => scanner.skip()?,
        }
        Ok(())
    })?;
    match (code, message, permanent) {
        (Some(code), Some(message), Some(permanent)) => Ok(Refusal { code, permanent, message, retry_after }),
        _ => scanner.fail(Reason::Missing(Field::Code)),
    }
}

/// What a poll is answered with (section 8.1).
#[derive(Clone, Debug)]
pub struct PollAnswer<'b> {
    /// What is missing before the first event.
    pub gap: Option<Gap>,
    /// The cursor for the next poll.
    pub next: Cursor,
    /// More can be had at once.
    pub more: bool,
    events: &'b [u8],
}

impl<'b> PollAnswer<'b> {
    /// The events, in order.
    pub fn events(&self) -> impl Iterator<Item = Result<ServerMessage<'b>, DecodeError>> + use<'b> {
        let mut scanner = Scanner::answer(self.events);
        let begun = matches!(scanner.next(), Ok(Some(Token::BeginArray)));
        let event = move || {
            let ended = matches!(scanner.clone().next(), Ok(Some(Token::EndArray)) | Err(_));
            if ended { None } else { scanner.raw_value().ok() }
        };
        core::iter::from_fn(event).take_while(move |_| begun).map(super::decode_server)
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
    let (mut gap, mut next, mut more, mut events) = (None, None, false, None);
    let mut scanner = Scanner::answer(body);
    self::body(&mut scanner, |scanner, name| {
        match name {
            Some("gap") => gap = Some(scanner.gap()?),
            Some("next") => next = Some(scanner.cursor()?),
            Some("more") => more = scanner.boolean()?,
            Some("events") => events = Some(scanner.raw_value()?),
            _ => scanner.skip()?,
        }
        Ok(())
    })?;
    match (next, events) {
        (Some(next), Some(events)) => Ok(PollAnswer { gap, next, more, events }),
        _ => scanner.fail(Reason::Missing(Field::At)),
    }
}

/// Decodes the answer to a publication (section 8.2): how long to wait before the next one, if it says so.
///
/// # Errors
/// What is wrong.
pub fn decode_published(body: &[u8]) -> Result<Option<Duration>, Malformed> {
    let mut pressure = None;
    self::body(&mut Scanner::new(body), |scanner, name| {
        match name {
            Some("pressure") => pressure = Some(scanner.millis()?),
            _ => scanner.skip()?,
        }
        Ok(())
    })?;
    Ok(pressure)
}

/// Reads a body, which is an object and nothing else.
fn body<'b>(
    scanner: &mut Scanner<'b>,
    member: impl FnMut(&mut Scanner<'b>, Option<&str>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    members(scanner, member)?;
    // Nothing may follow.
    scanner.next().map(drop)
}

/// Reads an object: `member` is told each name, if it is a short one, and reads the value.
fn members<'b>(
    scanner: &mut Scanner<'b>,
    mut member: impl FnMut(&mut Scanner<'b>, Option<&str>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    match scanner.next()? {
        Some(Token::BeginObject) => {}
        _ => return scanner.fail(Reason::NotAMap),
    }
    loop {
        match scanner.next()? {
            Some(Token::Name(name)) => {
                let mut scratch = heapless::String::<16>::new();
                member(scanner, name.to_str(&mut scratch).ok())?;
            }
            _ => return Ok(()),
        }
    }
}

impl<'b> Scanner<'b> {
    /// Values within an event may be nested as deep as in a message.
    fn answer(body: &'b [u8]) -> Self {
        let mut scanner = Self::message(body);
        scanner.max_depth += 2;
        scanner
    }

    fn text(&mut self) -> Result<Text<'b>, Malformed> {
        self.expect(Field::Code, |token| if let Token::String(text) = token { Some(text) } else { None })
    }

    fn boolean(&mut self) -> Result<bool, Malformed> {
        self.expect(Field::Permanent, |token| if let Token::Boolean(is) = token { Some(is) } else { None })
    }

    fn millis(&mut self) -> Result<Duration, Malformed> {
        self.expect(Field::RetryAfter, uint).map(Duration::from_millis)
    }

    fn skip(&mut self) -> Result<(), Malformed> {
        self.raw_value().map(drop)
    }

    fn cursor(&mut self) -> Result<Cursor, Malformed> {
        let text = self.text()?;
        let mut scratch = heapless::String::<MAX_CURSOR>::new();
        match text.to_str(&mut scratch).ok().and_then(|text| Cursor::parse(text).ok()) {
            Some(cursor) => Ok(cursor),
            None => self.fail(Reason::Invalid(Field::At)),
        }
    }

    fn gap(&mut self) -> Result<Gap, Malformed> {
        let (mut from, mut to, mut reason, mut skipped) = (None, None, None, None);
        members(self, |scanner, name| {
            match name {
                Some("from") => from = Some(scanner.cursor()?),
                Some("to") => to = Some(scanner.cursor()?),
                Some("reason") => reason = Some(GapReason::from_text(scanner.text()?)),
                Some("skipped") => skipped = Some(scanner.expect(Field::Skipped, uint)?),
                _ => scanner.skip()?,
            }
            Ok(())
        })?;
        match (from, to, reason) {
            (Some(from), Some(to), Some(reason)) => Ok(Gap { from, to, reason, skipped }),
            _ => self.fail(Reason::Missing(Field::From)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let events: Vec<_> = answer.events().map(|event| event.unwrap().kind()).collect();
        assert_eq!(events, [crate::session::Kind::Event, crate::session::Kind::Tick]);
        let deep = std::format!(
            r#"{{"events":[{{"type":"event","topic":"a","at":"000000000000002a-6","data":{}{}}}],"next":"000000000000002a-6"}}"#,
            "[".repeat(32),
            "]".repeat(32)
        );
        assert!(decode_poll(deep.as_bytes()).unwrap().events().all(|event| event.is_ok()));
        let none = br#"{"events":[],"next":"000000000000002a-6"}"#;
        assert_eq!(decode_poll(none).unwrap().events().count(), 0);
        let odd = br#"{"events":7,"next":"000000000000002a-6"}"#;
        assert_eq!(decode_poll(odd).unwrap().events().count(), 0);
        for bad in [
            "",
            "[]",
            "{}",
            "{",
            r#"{"events":[]}"#,
            r#"{"events":[],"next":"x"}"#,
            r#"{"gap":{},"events":[],"next":"000000000000002a-6"}"#,
            r#"{"gap":7,"events":[],"next":"000000000000002a-6"}"#,
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
        for bad in
            ["", "no", "{}", r#"{"code":7,"message":"","permanent":true}"#, r#"{"code":"x","message":""}"#]
        {
            assert!(decode_refusal(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn section_8_2_a_publication_is_answered() {
        let answer = br#"{"at":"000000000000002a-6","pressure":250}"#;
        assert_eq!(decode_published(answer).unwrap(), Some(Duration::from_millis(250)));
        assert_eq!(decode_published(b"{}").unwrap(), None);
        assert!(decode_published(b"<html>").is_err());
    }
}
