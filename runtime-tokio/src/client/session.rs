//! One connection of a subscriber, over one transport: opened, then asked for what arrives.

use super::endpoint::encode;
use super::http::{Link, get};
use super::item::Arrival;
use super::silence::Silence;
use super::sse::EventStream;
use super::{Cursor, Endpoint, Error, Event, Gap, Refusal, Since, Transport};
use crate::net::NetStream;
use crate::websocket::{self, CloseCode, Config, ConnectOptions, WebSocket};
use hyper::StatusCode;
use longwire_core::session::{GapReason, ServerMessage, json};
use serde_json::value::RawValue;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// How long a long poll waits at the server, and how much longer its answer may take.
const LONG_POLL: Duration = Duration::from_secs(25);
const GRACE: Duration = Duration::from_secs(10);

/// Between two plain polls.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Until a gateway says how often it makes itself heard.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) enum Session {
    WebSocket(Box<Socket>),
    Sse(Box<Stream>),
    Poll(Box<Polls>),
}

/// Why a session ended, and when to come back, if the gateway said so.
#[derive(Debug)]
pub(super) struct End {
    pub(super) error: Error,
    pub(super) told: Option<(Duration, Duration)>,
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        let told = match &error {
            Error::Refused(refusal) => told(refusal),
            _ => None,
        };
        Self { error, told }
    }
}

fn told(refusal: &Refusal) -> Option<(Duration, Duration)> {
    match (refusal.retry_after, refusal.window) {
        (None, None) => None,
        (after, window) => Some((after.unwrap_or_default(), window.unwrap_or_default())),
    }
}

impl Session {
    /// Opens `transport`, and hears the gateway's first answer: only then it is known to work. The answer is kept.
    pub(super) async fn open(
        transport: Transport,
        endpoint: &Endpoint,
        topics: &[String],
        since: Since,
    ) -> Result<Self, End> {
        match transport {
            Transport::WebSocket | Transport::Auto => {
                Socket::open(endpoint, topics, since).await.map(|s| Self::WebSocket(Box::new(s)))
            }
            Transport::Sse => Stream::open(endpoint, topics, since).await.map(|s| Self::Sse(Box::new(s))),
            Transport::LongPoll | Transport::Poll => {
                let wait = (transport == Transport::LongPoll).then_some(LONG_POLL);
                let polls = Polls::open(endpoint, topics, since, wait).await;
                Ok(Self::Poll(Box::new(polls?)))
            }
        }
    }

    /// What arrives next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Arrival, End> {
        match self {
            Self::WebSocket(socket) => socket.next().await,
            Self::Sse(stream) => stream.next().await,
            Self::Poll(polls) => polls.next().await.map_err(End::from),
        }
    }

    /// How long the gateway's last answer to a Ping took. Only WebSocket has them.
    pub(super) fn rtt(&self) -> Option<Duration> {
        match self {
            Self::WebSocket(socket) => socket.echo.rtt,
            Self::Sse(_) | Self::Poll(_) => None,
        }
    }

    /// Takes leave, in bounded time.
    pub(super) async fn close(self) {
        if let Self::WebSocket(mut socket) = self {
            let close = socket.socket.close(CloseCode::NORMAL, "");
            let _ = tokio::time::timeout(Duration::from_secs(1), close).await;
        }
    }
}

/// The URL's path and query for a subscription.
fn stream_path(endpoint: &Endpoint, topics: &[String], since: Since, more: &str) -> String {
    let mut path = endpoint.path("/v1/stream?since=");
    path.push_str(&since.to_string());
    for topic in topics {
        path.push_str("&topic=");
        encode(&mut path, topic);
    }
    path.push_str(more);
    path
}

/// Twice the heartbeat is silence enough (section 6).
fn silence(heartbeat: Duration) -> Silence {
    Silence::new(heartbeat.saturating_mul(2).max(Duration::from_secs(1)))
}

/// Reads one envelope. A type that this version does not know is passed over.
fn decode(envelope: &[u8]) -> Result<Arrival, Error> {
    match json::decode_server(envelope) {
        Ok(message) => Ok(message.into()),
        Err(error) if error.code == longwire_core::session::Code::UnknownType => Ok(Arrival::Other),
        Err(error) => Err(Error::Protocol(error.to_string())),
    }
}

/// WebSocket (section 6).
pub(super) struct Socket {
    pub(super) socket: WebSocket<NetStream>,
    silence: Silence,
    pub(super) echo: Echo,
}

/// The round-trip time of Pings of ours.
#[derive(Debug, Default)]
pub(super) struct Echo {
    /// The last one, which its payload names.
    asked: Option<(u32, Instant)>,
    pings: u32,
    pub(super) rtt: Option<Duration>,
}

impl Echo {
    /// Sends a Ping with what is written next. The gateway is asked when it greets, and whenever it asks: so it costs no
    /// timer, and the gateway goes on asking a client that is silent otherwise.
    fn ask(&mut self, socket: &mut WebSocket<NetStream>) {
        self.pings = self.pings.wrapping_add(1);
        if socket.feed_ping(&self.pings.to_be_bytes()) {
            self.asked = Some((self.pings, Instant::now()));
        }
    }

    fn answer(&mut self, payload: &[u8]) {
        if let Some((_, since)) = self.asked.take_if(|(n, _)| n.to_be_bytes() == payload) {
            self.rtt = Some(since.elapsed());
        }
    }
}

impl Socket {
    async fn open(endpoint: &Endpoint, topics: &[String], since: Since) -> Result<Self, End> {
        let mut socket = Self::connect(endpoint, &stream_path(endpoint, topics, since, "")).await?;
        match socket.next().await? {
            Arrival::Hello { .. } => Ok(socket),
            Arrival::Bye(refusal) | Arrival::Error(refusal) => Err(Error::Refused(refusal).into()),
            _ => Err(Error::Protocol("the first message is no `hello`".to_owned()).into()),
        }
    }

    pub(super) async fn connect(endpoint: &Endpoint, path: &str) -> Result<Self, End> {
        let mut config = Config::default();
        config.protocol.max_message = endpoint.max_message as u64;
        config.handshake_timeout = endpoint.open_timeout;
        // The gateway keeps the heartbeat; this end listens for it.
        config.protocol.heartbeat = None;
        let mut options = ConnectOptions::default().subprotocol("longwire.v1.json").config(config);
        options.tls = endpoint.tls.clone();
        if let Some(authorization) = endpoint.authorization() {
            options = options.header("Authorization", authorization);
        }
        let socket =
            websocket::connect(&endpoint.websocket_url(path), &options).await.map_err(Error::from)?;
        Ok(Self { socket, silence: silence(HEARTBEAT), echo: Echo::default() })
    }

    /// What arrives next; control frames are signs of life. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Arrival, End> {
        loop {
            let arrival = match self.silence.bound(self.socket.recv()).await? {
                Some(Ok(websocket::Event::Text(text))) => decode(text.as_bytes())?,
                Some(Ok(websocket::Event::Close(close))) => {
                    let code = close.code.map_or(1005, CloseCode::get);
                    return Err(Error::Closed(code, close.reason.to_owned()).into());
                }
                Some(Ok(websocket::Event::Ping(_))) => {
                    self.echo.ask(&mut self.socket);
                    continue;
                }
                Some(Ok(websocket::Event::Pong(payload))) => {
                    self.echo.answer(payload);
                    Arrival::Other
                }
                Some(Ok(_)) => return Err(Error::Protocol("a message that is no text".to_owned()).into()),
                Some(Err(error)) => return Err(Error::from(error).into()),
                None => return Err(Error::Ended.into()),
            };
            if let Arrival::Hello { heartbeat, .. } = arrival {
                self.silence = silence(heartbeat);
                self.echo.ask(&mut self.socket);
            }
            return Ok(arrival);
        }
    }
}

/// SSE (section 7).
pub(super) struct Stream {
    events: EventStream,
}

impl Stream {
    async fn open(endpoint: &Endpoint, topics: &[String], since: Since) -> Result<Self, End> {
        let path = stream_path(endpoint, topics, since, "");
        let mut events = EventStream::open(endpoint, &path, &[]).await?;
        events.silence = Some(silence(HEARTBEAT));
        let mut stream = Self { events };
        match stream.next().await? {
            Arrival::Hello { .. } => Ok(stream),
            // A refusal that can change in time has status 200, so that an EventSource comes back.
            Arrival::Bye(refusal) => Err(Error::Refused(refusal).into()),
            _ => Err(Error::Protocol("the first event is no `hello`".to_owned()).into()),
        }
    }

    async fn next(&mut self) -> Result<Arrival, End> {
        let Some(event) = self.events.next().await? else {
            let told = self.events.retry().map(|retry| (retry, Duration::ZERO));
            return Err(End { error: Error::Ended, told });
        };
        let arrival = decode(event.data)?;
        if let Arrival::Hello { heartbeat, .. } = arrival {
            self.events.silence = Some(silence(heartbeat));
        }
        Ok(arrival)
    }
}

/// Polls and long polls (section 8).
pub(super) struct Polls {
    endpoint: Endpoint,
    topics: Vec<String>,
    since: Since,
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
    events: Vec<Event>,
    next: Cursor,
    more: bool,
}

impl Polls {
    async fn open(
        endpoint: &Endpoint,
        topics: &[String],
        since: Since,
        wait: Option<Duration>,
    ) -> Result<Self, Error> {
        let mut polls = Self {
            endpoint: endpoint.clone(),
            topics: topics.to_vec(),
            since,
            wait,
            due: Instant::now(),
            link: None,
            answered: VecDeque::new(),
            caught_up: false,
        };
        // The first poll does not wait, so that it tells whether polls work.
        polls.poll(None).await?;
        Ok(polls)
    }

    async fn next(&mut self) -> Result<Arrival, Error> {
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
        let answer = match self.link.take() {
            // A connection that was idle may be gone by now; asking again repeats nothing.
            Some(link) => match self.ask(link, wait).await {
                Ok(answer) => answer,
                Err(Error::Http(_)) => self.ask(Link::open(&self.endpoint).await?, wait).await?,
                Err(error) => return Err(error),
            },
            None => self.ask(Link::open(&self.endpoint).await?, wait).await?,
        };
        self.since = Since::Cursor(answer.next);
        self.answered.extend(answer.gap.map(Arrival::Gap));
        self.answered.extend(answer.events.into_iter().map(Arrival::Event));
        let complete = !answer.more;
        self.answered.push_back(match complete && !self.caught_up {
            true => Arrival::CaughtUp(answer.next),
            false => Arrival::Tick(answer.next),
        });
        self.caught_up |= complete;
        self.due = Instant::now();
        if complete && self.wait.is_none() {
            self.due += POLL_INTERVAL;
        }
        Ok(())
    }

    async fn ask(&mut self, mut link: Link, wait: Option<Duration>) -> Result<Answer, Error> {
        let more = wait.map(|wait| format!("&wait={}", wait.as_secs())).unwrap_or_default();
        let path = stream_path(&self.endpoint, &self.topics, self.since, &more);
        let limit = wait.unwrap_or_default().saturating_add(GRACE);
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
                    Ok(Answer { gap: None, events: Vec::new(), next, more: false })
                }
                _ => Err(link.refused(response).await),
            }
        };
        let answer = tokio::time::timeout(limit, asking).await.map_err(|_| Error::Silence(limit))??;
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
    let list: Vec<&RawValue> = serde_json::from_str(fields.get("events")?.get()).ok()?;
    let event = |raw: &RawValue| match json::decode_server(raw.get().as_bytes()) {
        Ok(ServerMessage::Event(event)) => Some(Event::from(event)),
        _ => None,
    };
    let events = list.into_iter().map(event).collect::<Option<Vec<_>>>()?;
    let next = Cursor::parse(&text(fields.get("next")?)?).ok()?;
    Some(Answer { gap, events, next, more: fields.get("more").is_some_and(|more| more.get() == "true") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_polls() {
        let body = br#"{"gap":{"from":"000000000000002a-1","to":"000000000000002a-5","reason":"evicted"},
            "events":[{"type":"event","topic":"a","at":"000000000000002a-6","data":{"x":[1, 2]}}],
            "next":"000000000000002a-6","more":true,"later":[]}"#;
        let answer = parse(body).unwrap();
        let cursor = |seq| Cursor { epoch: 0x2a, seq };
        assert_eq!(
            answer.gap,
            Some(Gap { from: cursor(1), to: cursor(5), reason: GapReason::Evicted, skipped: None })
        );
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

    #[test]
    fn the_url_of_a_subscription() {
        let endpoint = Endpoint::new("http://a/base").unwrap();
        let path =
            stream_path(&endpoint, &["fleet/**".to_owned(), "a&b".to_owned()], Since::Latest, "&wait=25");
        assert_eq!(path, "/base/v1/stream?since=latest&topic=fleet/**&topic=a%26b&wait=25");
    }
}
