//! A reader of `core/PROTOCOL.md`, which keeps one cursor over all four transports.

use std::fmt;
use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::PATIENCE;
use crate::http::{self, Events, Response};
use crate::ws::{Message, Socket};

/// The four transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// WebSocket in the JSON form.
    WebSocket,
    /// Server-Sent Events.
    Sse,
    /// Polls that wait.
    LongPoll,
    /// Polls.
    Poll,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::WebSocket, Self::Sse, Self::LongPoll, Self::Poll];
}

/// What a reader hands to the application.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// An event with its position.
    Event {
        /// Its TOPIC.
        topic: String,
        /// Its CURSOR.
        at: String,
        /// Its value; of opaque bytes, their base64.
        data: Value,
    },
    /// Some may be missing here.
    Gap {
        /// CURSOR, not missing.
        from: String,
        /// CURSOR, inclusive.
        to: String,
        /// Why.
        reason: String,
    },
}

/// A subscription to one pattern, and how far it has come.
pub struct Reader {
    address: SocketAddr,
    pattern: String,
    /// Where the next connection begins.
    pub cursor: String,
    /// By when there has to be something for the application: heartbeats alone are no life.
    deadline: Instant,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {}", self.pattern, self.cursor)
    }
}

type Take<'a> = dyn FnMut(Item) -> ControlFlow<()> + 'a;

impl Reader {
    /// Begins at this cursor, which is not `latest`.
    pub fn new(address: SocketAddr, pattern: &str, cursor: &str) -> Self {
        Self {
            address,
            pattern: pattern.to_owned(),
            cursor: cursor.to_owned(),
            deadline: Instant::now() + PATIENCE,
        }
    }

    /// Reads over one connection until `take` breaks, and drops the connection there. Panics if the server ends it.
    pub fn read(&mut self, transport: Transport, mut take: impl FnMut(Item) -> ControlFlow<()>) {
        self.deadline = Instant::now() + PATIENCE;
        match transport {
            Transport::WebSocket => self.read_websocket(&mut take),
            Transport::Sse => self.read_sse(&mut take),
            Transport::LongPoll => self.read_polls(25, &mut take),
            Transport::Poll => self.read_polls(0, &mut take),
        }
    }

    fn target(&self) -> String {
        format!("/v1/stream?topic={}&since={}", self.pattern, self.cursor)
    }

    fn read_websocket(&mut self, take: &mut Take<'_>) {
        let protocol = [("Sec-WebSocket-Protocol", "longwire.v1.json")];
        let mut socket = Socket::open(self.address, &self.target(), &protocol).expect("101");
        loop {
            let Message::Text(text) = socket.receive() else { panic!("the WebSocket ended") };
            let envelope = serde_json::from_str(&text).expect("JSON");
            if self.apply(&envelope, take).is_break() {
                return;
            }
        }
    }

    fn read_sse(&mut self, take: &mut Take<'_>) {
        for event in Events::open(self.address, &self.target(), &[]).expect("200") {
            let envelope: Value = serde_json::from_str(&event.data).expect("JSON");
            let name = envelope["type"].as_str().filter(|t| *t != "event").unwrap_or_default();
            assert_eq!(event.name, name, "section 7: the name of {envelope}");
            assert_eq!(event.id.as_deref(), envelope["at"].as_str(), "section 7: the id of {envelope}");
            if self.apply(&envelope, take).is_break() {
                return;
            }
        }
        panic!("the SSE stream ended");
    }

    fn read_polls(&mut self, wait: u32, take: &mut Take<'_>) {
        let mut stream = BufReader::new(http::connect(self.address));
        loop {
            let target = if wait > 0 { format!("{}&wait={wait}", self.target()) } else { self.target() };
            let head = http::head(self.address, "GET", &target, &[], 0);
            stream.get_mut().write_all(head.as_bytes()).expect("it reads");
            let mut response = http::read_head(&mut stream).expect("a response");
            response.body = http::read_body(&mut stream, &response).expect("a whole body");
            if self.apply_poll(&response, take).is_break() {
                return;
            }
            if response.header("connection").is_some_and(|c| c.eq_ignore_ascii_case("close")) {
                stream = BufReader::new(http::connect(self.address));
            }
            if wait == 0 && response.status == 204 {
                // The interval of plain polling.
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    fn apply_poll(&mut self, response: &Response, take: &mut Take<'_>) -> ControlFlow<()> {
        if response.status == 204 {
            assert!(Instant::now() < self.deadline, "no event for {PATIENCE:?}: {self:?}");
            self.cursor = response.header("longwire-next").expect("section 8.1").to_owned();
            return ControlFlow::Continue(());
        }
        assert_eq!(response.status, 200, "{response:?}");
        let answer = response.json();
        if let Some(gap) = answer.get("gap") {
            take(gap_of(gap))?;
        }
        for event in answer["events"].as_array().expect("events") {
            assert_eq!(event["type"], "event", "section 8.1");
            self.apply(event, take)?;
        }
        self.cursor = text(&answer, "next");
        ControlFlow::Continue(())
    }

    /// The table of section 2. The event is handed over first, then the cursor moves.
    fn apply(&mut self, envelope: &Value, take: &mut Take<'_>) -> ControlFlow<()> {
        let flow = match envelope["type"].as_str() {
            Some("event") => {
                let at =
                    envelope.get("at").or(envelope.get("past")).and_then(Value::as_str).expect("at or past");
                let data = envelope.get("data").or(envelope.get("bytes")).expect("data or bytes").clone();
                take(Item::Event { topic: text(envelope, "topic"), at: at.to_owned(), data })
            }
            Some("gap") => take(gap_of(envelope)),
            Some("bye" | "error") => panic!("{envelope}"),
            _ => {
                assert!(Instant::now() < self.deadline, "no event for {PATIENCE:?}: {self:?}");
                return self.moved(envelope, ControlFlow::Continue(()));
            }
        };
        self.deadline = Instant::now() + PATIENCE;
        self.moved(envelope, flow)
    }

    fn moved(&mut self, envelope: &Value, flow: ControlFlow<()>) -> ControlFlow<()> {
        if let Some(at) = envelope["at"].as_str() {
            self.cursor = at.to_owned();
        }
        flow
    }
}

fn gap_of(gap: &Value) -> Item {
    Item::Gap { from: text(gap, "from"), to: text(gap, "to"), reason: text(gap, "reason") }
}

fn text(envelope: &Value, field: &str) -> String {
    envelope[field].as_str().unwrap_or_else(|| panic!("no {field} in {envelope}")).to_owned()
}
