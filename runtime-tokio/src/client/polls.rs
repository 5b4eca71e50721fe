//! Polls and long polls (`PROTOCOL.md` section 8).

use super::http::{Link, get};
use super::item::Arrival;
use super::session::Asked;
use super::{Cursor, Endpoint, Error, Event, Gap, GapReason, Pressure, Since};
use hyper::StatusCode;
use longwire_core::session::{ServerMessage, json};
use serde_json::value::RawValue;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Between two plain polls.
const INTERVAL: Duration = Duration::from_secs(2);

/// A connection that was idle may be gone when it is used again; one that breaks later than this was not idle.
const STALE: Duration = Duration::from_secs(1);

/// Polls and long polls (section 8).
pub(super) struct Polls {
    endpoint: Endpoint,
    asked: Asked,
    /// How long a poll waits at the server; `None`: not at all, and the waiting is done here.
    wait: Option<Duration>,
    /// Not asked again before the next poll is due.
    due: Instant,
    /// The connection, between two polls.
    link: Option<Link>,
    /// What was answered and not handed out yet.
    answered: VecDeque<Arrival>,
    /// The past has been told.
    caught_up: bool,
}

/// An answer to a poll.
struct Answer {
    gap: Option<Gap>,
    pressure: Option<Pressure>,
    events: Vec<Event>,
    next: Cursor,
    more: bool,
}

impl Polls {
    pub(super) async fn open(
        link: Link,
        endpoint: &Endpoint,
        asked: Asked,
        wait: Option<Duration>,
    ) -> Result<Self, Error> {
        let mut polls = Self {
            endpoint: endpoint.clone(),
            asked,
            wait,
            due: Instant::now(),
            link: Some(link),
            answered: VecDeque::new(),
            caught_up: false,
        };
        // The first poll does not wait, so that it tells whether polls work.
        polls.poll(None).await?;
        Ok(polls)
    }

    /// What arrives next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Arrival, Error> {
        loop {
            if let Some(arrival) = self.answered.pop_front() {
                return Ok(arrival);
            }
            tokio::time::sleep_until(self.due).await;
            self.poll(self.wait.filter(|_| self.caught_up)).await?;
        }
    }

    /// One poll. Cancel-safe: nothing changes before the answer is whole.
    async fn poll(&mut self, wait: Option<Duration>) -> Result<(), Error> {
        let begun = Instant::now();
        let answer = match self.link.take() {
            // Asking again repeats nothing.
            Some(link) => match self.ask(link, wait).await {
                Ok(answer) => answer,
                Err(Error::Http(_)) if begun.elapsed() < STALE => {
                    self.ask(Link::open(&self.endpoint).await?, wait).await?
                }
                Err(error) => return Err(error),
            },
            None => self.ask(Link::open(&self.endpoint).await?, wait).await?,
        };
        self.asked.since = Since::Cursor(answer.next);
        self.answered.extend(answer.gap.map(Arrival::Gap));
        self.answered.extend(answer.pressure.map(Arrival::Pressure));
        self.answered.extend(answer.events.into_iter().map(Arrival::Event));
        let complete = !answer.more;
        self.answered.push_back(match complete && !self.caught_up {
            true => Arrival::CaughtUp(answer.next),
            false => Arrival::Tick(answer.next),
        });
        self.caught_up |= complete;
        self.due = Instant::now();
        if complete && self.wait.is_none() {
            self.due += INTERVAL;
        }
        Ok(())
    }

    async fn ask(&mut self, mut link: Link, wait: Option<Duration>) -> Result<Answer, Error> {
        let more = wait.map(|wait| format!("&wait={}", wait.as_secs())).unwrap_or_default();
        let path = self.asked.path(&self.endpoint, &more);
        let asking = async {
            let response = link.send(&self.endpoint, get(&path, "application/json")?).await?;
            match response.status() {
                StatusCode::OK => {
                    let body = link.body(response.into_body(), self.endpoint.max_message).await?;
                    parse(&body)
                        .ok_or_else(|| Error::Protocol("the answer to a poll is malformed".to_owned()))
                }
                StatusCode::NO_CONTENT => {
                    let next = response.headers().get("longwire-next").and_then(|next| next.to_str().ok());
                    let next = next.and_then(|next| Cursor::parse(next).ok());
                    let next =
                        next.ok_or_else(|| Error::Protocol("204 without a good Longwire-Next".to_owned()))?;
                    Ok(Answer { gap: None, pressure: None, events: Vec::new(), next, more: false })
                }
                _ => Err(link.refused(response).await),
            }
        };
        let answer = asking.await?;
        self.link = Some(link);
        Ok(answer)
    }
}

/// `{"gap":..., "events":[...], "next":..., "more":...}`
fn parse(body: &[u8]) -> Option<Answer> {
    let fields: HashMap<&str, &RawValue> = serde_json::from_slice(body).ok()?;
    let text = |field: &RawValue| serde_json::from_str::<String>(field.get()).ok();
    let gap = match fields.get("gap") {
        None => None,
        Some(gap) => {
            let gap: HashMap<&str, &RawValue> = serde_json::from_str(gap.get()).ok()?;
            let cursor = |name| Cursor::parse(&text(gap.get(name)?)?).ok();
            let reason = match text(gap.get("reason")?)?.as_str() {
                "evicted" => GapReason::Evicted,
                "slow" => GapReason::Slow,
                "reset" => GapReason::Reset,
                "conflated" => GapReason::Conflated,
                _ => GapReason::Unknown,
            };
            let skipped = gap.get("skipped").map(|n| n.get().parse().ok());
            let skipped = if let Some(n) = skipped { Some(n?) } else { None };
            Some(Gap { from: cursor("from")?, to: cursor("to")?, reason, skipped })
        }
    };
    let pressure = match fields.get("pressure") {
        None => None,
        Some(pressure) => {
            let counts: HashMap<&str, &RawValue> = serde_json::from_str(pressure.get()).ok()?;
            let count = |name| counts.get(name)?.get().parse().ok();
            Some(Pressure { lag: count("lag")?, limit: count("limit")?, skipped: count("skipped")? })
        }
    };
    let list: Vec<&RawValue> = serde_json::from_str(fields.get("events")?.get()).ok()?;
    let event = |raw: &RawValue| match json::decode_server(raw.get().as_bytes()) {
        Ok(ServerMessage::Event(event)) => Some(Event::from(event)),
        _ => None,
    };
    let events = list.into_iter().map(event).collect::<Option<Vec<_>>>()?;
    let next = Cursor::parse(&text(fields.get("next")?)?).ok()?;
    Some(Answer {
        gap,
        pressure,
        events,
        next,
        more: fields.get("more").is_some_and(|more| more.get() == "true"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_polls() {
        let body = br#"{"gap":{"from":"000000000000002a-1","to":"000000000000002a-5","reason":"evicted"},
            "pressure":{"lag":7,"limit":9,"skipped":2},
            "events":[{"type":"event","topic":"a","at":"000000000000002a-6","data":{"x":[1, 2]}}],
            "next":"000000000000002a-6","more":true,"later":[]}"#;
        let answer = parse(body).unwrap();
        let cursor = |seq| Cursor { epoch: 0x2a, seq };
        assert_eq!(
            answer.gap,
            Some(Gap { from: cursor(1), to: cursor(5), reason: GapReason::Evicted, skipped: None })
        );
        let pressure = Pressure { lag: 7, limit: 9, skipped: 2 };
        assert_eq!(answer.pressure, Some(pressure));
        assert_eq!((answer.next, answer.more, answer.events.len()), (cursor(6), true, 1));
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"events":[]}"#,
            r#"{"events":[{}],"next":"000000000000002a-6"}"#,
            r#"{"events":[{"type":"tick","at":"000000000000002a-6"}],"next":"000000000000002a-6"}"#,
            r#"{"events":[],"next":"x"}"#,
            r#"{"gap":{},"events":[],"next":"000000000000002a-6"}"#,
        ] {
            assert!(parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
