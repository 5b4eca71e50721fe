//! Polls and long polls (`PROTOCOL.md` section 8).

use super::http::{Link, get};
use super::item::Arrival;
use super::session::Asked;
use super::{Cursor, Endpoint, Error, Since};
use hyper::StatusCode;
use longwire_core::session::{ServerMessage, json};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// The least between two plain polls.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Longest: any clock can add it.
const MAX_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Between two signs of life while nobody is asked: less than the least silence after which a connection is given up.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

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
    arrivals: Vec<Arrival>,
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
            let soon = Instant::now() + SIGN_OF_LIFE;
            tokio::time::sleep_until(self.due.min(soon)).await;
            if self.due > soon {
                // It is not the gateway that is silent.
                return Ok(Arrival::Other);
            }
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
        self.answered.extend(answer.arrivals);
        let complete = !answer.more;
        self.answered.push_back(match complete && !self.caught_up {
            true => Arrival::CaughtUp(answer.next),
            false => Arrival::Tick(answer.next),
        });
        self.caught_up |= complete;
        self.due = Instant::now();
        if complete && self.wait.is_none() {
            self.due += self.asked.poll_interval.clamp(MIN_INTERVAL, MAX_INTERVAL);
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
                    Answer::decode(&body)
                        .ok_or_else(|| Error::Protocol("the answer to a poll is malformed".to_owned()))
                }
                StatusCode::NO_CONTENT => {
                    let next = response.headers().get("longwire-next").and_then(|next| next.to_str().ok());
                    let next = next.and_then(|next| Cursor::parse(next).ok());
                    let next =
                        next.ok_or_else(|| Error::Protocol("204 without a good Longwire-Next".to_owned()))?;
                    Ok(Answer { arrivals: Vec::new(), next, more: false })
                }
                _ => Err(link.refused(response).await),
            }
        };
        let answer = asking.await?;
        self.link = Some(link);
        Ok(answer)
    }
}

impl Answer {
    fn decode(body: &[u8]) -> Option<Self> {
        let answer = json::decode_poll(body).ok()?;
        let mut arrivals: Vec<_> = answer.gap.map(Arrival::Gap).into_iter().collect();
        arrivals.extend(answer.pressure.map(Arrival::Pressure));
        for event in answer.events() {
            match event {
                Ok(event @ ServerMessage::Event(_)) => arrivals.push(event.into()),
                _ => return None,
            }
        }
        Some(Self { arrivals, next: answer.next, more: answer.more })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_gap_its_pressure_its_events_in_this_order() {
        let body =
            br#"{"events":[{"type":"event","topic":"a","at":"000000000000002a-6","data":{"x":[1, 2]}}],
            "next":"000000000000002a-6","more":true,
            "pressure":{"lag":7,"limit":9,"skipped":2},
            "gap":{"from":"000000000000002a-1","to":"000000000000002a-5","reason":"evicted"}}"#;
        let answer = Answer::decode(body).unwrap();
        assert_eq!((answer.next, answer.more), (Cursor { epoch: 0x2a, seq: 6 }, true));
        let [Arrival::Gap(gap), Arrival::Pressure(pressure), Arrival::Event(event)] = &answer.arrivals[..]
        else {
            panic!("other arrivals, or in another order");
        };
        assert_eq!((gap.to.seq, pressure.lag, event.topic.as_str()), (5, 7, "a"));
        let empty = br#"{"events":[],"next":"000000000000002a-6"}"#;
        assert_eq!(Answer::decode(empty).unwrap().arrivals.len(), 0);
    }

    #[test]
    fn an_answer_with_anything_but_events_among_its_events_is_malformed() {
        for bad in ["{}", r#"{"type":"tick","at":"000000000000002a-6"}"#, r#"{"type":"later"}"#, "7"] {
            let body = format!(r#"{{"events":[{bad}],"next":"000000000000002a-6"}}"#);
            assert!(Answer::decode(body.as_bytes()).is_none(), "{bad}");
        }
        assert!(Answer::decode(b"<html>").is_none());
    }
}
