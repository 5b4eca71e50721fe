//! A gateway made for tests: the log is a list, and it can be told to misbehave.
#![allow(dead_code, reason = "each test file uses a part of it")]

use longwire::client::{Cursor, Since};
use longwire::websocket::{Acceptance, CloseCode, Config, Event, accept_with};
use longwire_core::http::query;
use longwire_core::session::{ClientMessage, Data, json};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) const EPOCH: u64 = 0x9f86_d081_884c_7d65;

/// What it does wrong.
#[derive(Clone, Default)]
pub(crate) struct Faults {
    /// Answers requests of this kind (`ws`, `sse`, `poll`) with this.
    pub(crate) refuse: Vec<(&'static str, u16, &'static str)>,
    /// Ends a connection after so many events.
    pub(crate) end_after: Option<usize>,
    /// Says this instead of going on, after the hello of an SSE stream or WebSocket.
    pub(crate) bye: Option<&'static str>,
    /// Says how far the log is, by a tick, and ends.
    pub(crate) tick: Option<u64>,
    /// Says nothing after the hello, which promises a heartbeat of this many milliseconds.
    pub(crate) mute: Option<u64>,
    /// Promises a heartbeat of this many milliseconds (which it does not keep).
    pub(crate) heartbeat: Option<u64>,
    /// The `window` of the hello.
    pub(crate) window: Option<u64>,
    /// Closes a WebSocket with this code at once.
    pub(crate) close: Option<u16>,
    /// Positions up to here are forgotten.
    pub(crate) floor: u64,
    /// Ends a publisher's connection after it has taken so many, and before it acknowledges the last.
    pub(crate) cut_pubs: Option<usize>,
    /// Takes what is posted, and goes without an answer; the second time it has one.
    pub(crate) lose_answers: bool,
    /// Refuses each publication once with `over_quota`, for a millisecond.
    pub(crate) quota: bool,
    /// The only credential that is good.
    pub(crate) token: Option<&'static str>,
    /// Asks for another credential right after the hello, over WebSocket.
    pub(crate) renew: bool,
}

#[derive(Default)]
struct State {
    events: Mutex<Vec<(String, Option<String>, String)>>,
    requests: Mutex<Vec<String>>,
    faults: Mutex<Faults>,
    /// `INCARNATION-N` of what was taken, and of what was refused for now.
    taken: Mutex<HashSet<String>>,
    refused: Mutex<HashSet<String>>,
    /// What `auth` brought.
    tokens: Mutex<Vec<String>>,
    changed: watch::Sender<usize>,
}

#[derive(Clone)]
pub(crate) struct Gateway {
    pub(crate) url: String,
    state: Arc<State>,
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let gateway = Self { url, state: Arc::default() };
        let serving = gateway.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let gateway = serving.clone();
                tokio::spawn(async move { gateway.serve(stream).await });
            }
        });
        gateway
    }

    pub(crate) fn publish(&self, topic: &str, key: Option<&str>, data: &str) -> Cursor {
        let mut events = self.state.events.lock().unwrap();
        events.push((topic.to_owned(), key.map(str::to_owned), data.to_owned()));
        let len = events.len();
        drop(events);
        self.state.changed.send_replace(len);
        cursor(len)
    }

    pub(crate) fn head(&self) -> usize {
        self.state.events.lock().unwrap().len()
    }

    pub(crate) fn set(&self, faults: Faults) {
        *self.state.faults.lock().unwrap() = faults;
    }

    fn faults(&self) -> Faults {
        self.state.faults.lock().unwrap().clone()
    }

    /// The heads of the requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().clone()
    }

    /// The credentials that came by `auth`.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.state.tokens.lock().unwrap().clone()
    }

    /// The values that were published, in order.
    pub(crate) fn values(&self) -> Vec<String> {
        self.state.events.lock().unwrap().iter().map(|(_, _, data)| data.clone()).collect()
    }

    async fn serve(self, mut stream: TcpStream) {
        let Some(head) = peek_head(&stream).await else { return };
        let target = head.split(' ').nth(1).unwrap().to_owned();
        let lower = head.to_ascii_lowercase();
        let kind = match () {
            () if lower.contains("upgrade: websocket") => "ws",
            () if lower.contains("accept: text/event-stream") => "sse",
            () if head.starts_with("POST") => "post",
            () => "poll",
        };
        self.state.requests.lock().unwrap().push(format!("{kind} {head}"));
        if let Some((_, status, body)) = self.faults().refuse.iter().find(|(k, ..)| *k == kind) {
            let _ = stream.write_all(response(*status, "", body).as_bytes()).await;
            return;
        }
        if let Some(token) = self.faults().token
            && !lower.contains(&format!("authorization: bearer {token}\r\n"))
        {
            let body = r#"{"code":"unauthorized","message":"not this one","permanent":true}"#;
            let _ = stream.write_all(response(401, "", body).as_bytes()).await;
            return;
        }
        let since = target.split_once('?').and_then(|(_, query)| query::value(query, "since"));
        let since =
            since.map(|text| Since::parse(&text.chars().map(Result::unwrap).collect::<String>()).unwrap());
        match kind {
            "ws" => self.websocket(stream, since.filter(|_| target.contains("topic=")), &target).await,
            "sse" => self.sse(stream, since.unwrap()).await,
            "post" => self.post(stream, &head).await,
            _ => Box::pin(self.poll(stream, &head, &target, since.unwrap())).await,
        }
    }

    /// What is said first, and where the live part begins.
    fn begin(&self, since: Since) -> (Vec<String>, usize) {
        let events = self.state.events.lock().unwrap();
        let head = events.len();
        let floor = self.faults().floor as usize;
        let mut first = Vec::new();
        let from = match since {
            Since::Now => head,
            Since::Cursor(c) if c.epoch == EPOCH && c.seq as usize <= head => {
                if (c.seq as usize) < floor {
                    first.push(gap(c, cursor(floor), "evicted"));
                }
                (c.seq as usize).max(floor)
            }
            Since::Cursor(c) => {
                first.push(gap(c, cursor(head), "reset"));
                first.extend(state(&events));
                head
            }
            Since::Latest => {
                first.extend(state(&events));
                head
            }
        };
        (first, from)
    }

    fn hello(&self) -> String {
        let faults = self.faults();
        let heartbeat = faults.mute.or(faults.heartbeat).unwrap_or(15_000);
        let window = faults.window.map(|window| format!(r#","window":{window}"#)).unwrap_or_default();
        format!(
            r#"{{"type":"hello","session":"s","heartbeat":{heartbeat},"lease":null,"limits":{{"max_message":1048576,"max_topics":8,"max_inflight":4}}{window}}}"#
        )
    }

    /// What a stream says from `since` on, through a channel of one.
    async fn talk(&self, since: Since, say: tokio::sync::mpsc::Sender<String>) -> Option<()> {
        let mut changed = self.state.changed.subscribe();
        let faults = self.faults();
        say.send(self.hello()).await.ok()?;
        if let Some(bye) = faults.bye {
            return say.send(bye.to_owned()).await.ok();
        }
        if let Some(seq) = faults.tick {
            return say.send(format!(r#"{{"type":"tick","at":"{}"}}"#, cursor(seq as usize))).await.ok();
        }
        if faults.mute.is_some() {
            std::future::pending::<()>().await;
        }
        let (first, mut at) = self.begin(since);
        for envelope in first {
            say.send(envelope).await.ok()?;
        }
        let mut told = 0;
        let mut caught_up = false;
        loop {
            while at < self.head() {
                if faults.end_after == Some(told) {
                    return None;
                }
                let event = self.state.events.lock().unwrap().get(at).unwrap().clone();
                at += 1;
                say.send(envelope(&event, "at", at)).await.ok()?;
                told += 1;
            }
            if !caught_up {
                caught_up = true;
                say.send(format!(r#"{{"type":"caught_up","at":"{}"}}"#, cursor(at))).await.ok()?;
            }
            changed.changed().await.ok()?;
        }
    }

    async fn websocket(self, stream: TcpStream, since: Option<Since>, target: &str) {
        let accepted = accept_with(stream, Config::default(), |upgrade| {
            let subprotocol = upgrade.subprotocols().next().map(str::to_owned);
            Ok(Acceptance { subprotocol, headers: Vec::new() })
        });
        let mut socket = accepted.await.unwrap();
        if let Some(code) = self.faults().close {
            let _ = socket.close(CloseCode::new(code).unwrap(), "because").await;
            return;
        }
        if self.faults().renew {
            let _ = socket.feed(self.hello()).await;
            let _ = socket.send(r#"{"type":"renew","within":60000}"#.to_owned()).await;
            while let Some(Ok(event)) = socket.recv().await {
                if let Event::Text(text) = event {
                    self.state.tokens.lock().unwrap().push(text.to_string());
                    // The answer to it.
                    let _ = socket.send(self.hello()).await;
                }
            }
            return;
        }
        let publisher = target.split_once("publisher=").map(|(_, name)| name.to_owned()).unwrap_or_default();
        let Some(since) = since else { return self.take(socket, &publisher).await };
        let (say, mut heard) = tokio::sync::mpsc::channel(1);
        let talking = self.clone();
        let talking = tokio::spawn(async move { talking.talk(since, say).await });
        loop {
            tokio::select! {
                said = heard.recv() => match said {
                    Some(text) => if socket.send(text).await.is_err() { break },
                    None => break,
                },
                event = socket.recv() => if !matches!(event, Some(Ok(_))) { break },
            }
        }
        talking.abort();
    }

    /// Takes publications, each once: `refused` is a topic that is.
    async fn take<S>(self, mut socket: longwire::websocket::WebSocket<S>, publisher: &str)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        if socket.send(self.hello()).await.is_err() {
            return;
        }
        let (faults, mut count) = (self.faults(), 0);
        while let Some(Ok(event)) = socket.recv().await {
            let Event::Text(text) = event else { continue };
            let wire = text.as_bytes().to_vec();
            let ClientMessage::Pub { n: Some(n), topic, key, data: Data::Json(data) } =
                json::decode_client(&wire).unwrap()
            else {
                panic!("{text}")
            };
            let key = key.map(|key| key.chars().collect::<String>());
            let topic: String = topic.chars().collect();
            if topic == "refused" {
                let nack = format!(
                    r#"{{"type":"nack","n":{n},"code":"forbidden","permanent":true,"message":"not yours"}}"#
                );
                socket.send(nack).await.unwrap();
                continue;
            }
            let id = format!("{publisher}-{n}");
            if faults.quota && self.state.refused.lock().unwrap().insert(id.clone()) {
                let nack = format!(
                    r#"{{"type":"nack","n":{n},"code":"over_quota","permanent":false,"message":"slowly","retry_after":1}}"#
                );
                socket.send(nack).await.unwrap();
                continue;
            }
            if self.state.taken.lock().unwrap().insert(id) {
                self.publish(&topic, key.as_deref(), std::str::from_utf8(data).unwrap());
            }
            count += 1;
            if faults.cut_pubs == Some(count) {
                return;
            }
            if socket.send(format!(r#"{{"type":"ack","n":{n},"level":"ring"}}"#)).await.is_err() {
                return;
            }
        }
    }

    async fn sse(self, mut stream: TcpStream, since: Since) {
        let mut head = vec![0; 4096];
        let _ = stream.read(&mut head).await.unwrap();
        let start = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\nretry: 1\n\n";
        stream.write_all(start.as_bytes()).await.unwrap();
        let (say, mut heard) = tokio::sync::mpsc::channel(1);
        let talking = self.clone();
        let talking = tokio::spawn(async move { talking.talk(since, say).await });
        while let Some(text) = heard.recv().await {
            let kind = text.split('"').nth(3).unwrap();
            let name = if kind == "event" { String::new() } else { format!("event: {kind}\n") };
            let data = text.replace('\n', "\ndata: ");
            if stream.write_all(format!("{name}data: {data}\n\n").as_bytes()).await.is_err() {
                break;
            }
        }
        talking.abort();
    }

    async fn post(self, mut stream: TcpStream, head: &str) {
        let length = head.to_ascii_lowercase();
        let length = length.split("content-length: ").nth(1).unwrap().split('\r').next().unwrap();
        let mut bytes = vec![0; head.len() + length.parse::<usize>().unwrap()];
        stream.read_exact(&mut bytes).await.unwrap();
        let body = String::from_utf8(bytes.split_off(head.len())).unwrap();
        let id = header_of(head, "idempotency-key: ");
        let fresh = id.is_none_or(|id| self.state.taken.lock().unwrap().insert(id));
        let answer = if fresh {
            let at = self.publish("posted", None, &body);
            response(200, "", &format!(r#"{{"at":"{at}"}}"#))
        } else {
            response(200, "Longwire-Repeated: true\r\n", "{}")
        };
        // It was taken, and the answer is lost.
        if fresh && self.faults().lose_answers {
            return;
        }
        let _ = stream.write_all(answer.as_bytes()).await;
    }

    async fn poll(self, mut stream: TcpStream, head: &str, target: &str, since: Since) {
        let mut bytes = vec![0; head.len()];
        stream.read_exact(&mut bytes).await.unwrap();
        let mut changed = self.state.changed.subscribe();
        let (first, from) = self.begin(since);
        if target.contains("&wait=") && from == self.head() && first.is_empty() {
            let _ = tokio::time::timeout(std::time::Duration::from_secs(25), changed.changed()).await;
        }
        let events = self.state.events.lock().unwrap().clone();
        let limit = self.faults().end_after.unwrap_or(1000);
        let (gaps, mut list): (Vec<_>, Vec<_>) = first.into_iter().partition(|e| e.contains("\"gap\""));
        let mut next = from;
        for event in events.get(from..).unwrap().iter().take(limit) {
            next += 1;
            list.push(envelope(event, "at", next));
        }
        let answer = if list.is_empty() && gaps.is_empty() {
            format!("HTTP/1.1 204 No Content\r\nLongwire-Next: {}\r\n\r\n", cursor(next))
        } else {
            let gap = gaps.first().map(|gap| format!("\"gap\":{gap},")).unwrap_or_default();
            let more = if next < events.len() { ",\"more\":true" } else { "" };
            let body =
                format!("{{{gap}\"events\":[{}],\"next\":\"{}\"{more}}}", list.join(","), cursor(next));
            response(200, "", &body)
        };
        if stream.write_all(answer.as_bytes()).await.is_ok() {
            // The connection is kept for the next one.
            self.serve(stream).await;
        }
    }
}

/// The value of a header, whose name is given in lower case with its colon.
fn header_of(head: &str, name: &str) -> Option<String> {
    let lower = head.to_ascii_lowercase();
    Some(lower.split_once(name)?.1.split_once('\r')?.0.to_owned())
}

fn cursor(seq: usize) -> Cursor {
    Cursor { epoch: EPOCH, seq: seq as u64 }
}

fn envelope((topic, key, data): &(String, Option<String>, String), place: &str, seq: usize) -> String {
    let key = key.as_ref().map(|key| format!(r#""key":"{key}","#)).unwrap_or_default();
    format!(r#"{{"type":"event","topic":"{topic}","{place}":"{}",{key}"data":{data}}}"#, cursor(seq))
}

fn gap(from: Cursor, to: Cursor, reason: &str) -> String {
    format!(r#"{{"type":"gap","from":"{from}","to":"{to}","reason":"{reason}"}}"#)
}

/// The latest event of each topic and key.
fn state(events: &[(String, Option<String>, String)]) -> Vec<String> {
    let latest = |n: usize, e: &(String, Option<String>, String)| {
        !events.iter().skip(n + 1).any(|later| (&later.0, &later.1) == (&e.0, &e.1))
    };
    let state = events.iter().enumerate().filter(|(n, e)| latest(*n, e));
    state.map(|(n, e)| envelope(e, "past", n + 1)).collect()
}

fn response(status: u16, headers: &str, body: &str) -> String {
    let mut text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    let _ = write!(text, "{body}");
    text
}

async fn peek_head(stream: &TcpStream) -> Option<String> {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let n = stream.peek(&mut bytes).await.ok().filter(|n| *n > 0)?;
        let text = String::from_utf8_lossy(bytes.get(..n)?).into_owned();
        if let Some(end) = text.find("\r\n\r\n") {
            return Some(text.get(..end + 4)?.to_owned());
        }
        tokio::task::yield_now().await;
    }
}
