//! The simplest client that there is: blocking, frames made by hand, every message as a value to compare.

use longwire::hub::{
    Adoption, Data, Filter, Grant, Hub, HubConfig, LogConfig, LogHandle, Open, Protocol, Socket,
};
use longwire_core::log::{Cursor, Key, Pattern, Since, Topic};
use longwire_core::session::{self, ClientMessage, GapReason, Position, ServerMessage, cbor, json};
use longwire_core::ws::{FrameHeader, OpCode, unmask};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};

/// Longer than anything takes on a busy machine: what takes longer does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a client saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Hello {
        lease: bool,
    },
    Event {
        at: At,
        topic: String,
        key: Option<String>,
        body: Body,
    },
    CaughtUp(u64, Option<u32>),
    Ack(u64),
    Nack(Option<u64>, String),
    Gap(u64, u64, GapReason),
    /// As `Gap`, with its count; to a client that shows all.
    Lost(u64, u64, GapReason, Option<u64>),
    /// Lag, limit, skipped; to a client that shows all.
    Pressure(u64, u64, u64),
    Tick(u64),
    Renew,
    Bye(String),
    Error(String, Option<u32>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// May be resumed from.
    Live(u64),
    Past(u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Json(String),
    Cbor(Vec<u8>),
    Bytes(String, Vec<u8>),
}

/// How the end of the connection looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A Close with this code, then the end of the stream.
    Closed(u16),
    /// No Close.
    Cut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Cbor,
    Sse,
}

/// Those of the WebSocket.
pub(crate) const FORMS: [Form; 2] = [Form::Json, Form::Cbor];

pub(crate) struct Client<S = TcpStream> {
    pub(crate) stream: S,
    pub(crate) form: Form,
    epoch: u64,
    buffer: Vec<u8>,
    /// Answers Pings.
    pub(crate) lives: bool,
    /// Shows the counts of gaps, and pressure.
    pub(crate) shows_all: bool,
    pub(crate) pings: usize,
    pub(crate) pongs: usize,
    end: Option<u16>,
}

pub(crate) fn hub(change: impl FnOnce(&mut HubConfig)) -> Arc<Hub> {
    let mut config = HubConfig { shards: 1, ..HubConfig::default() };
    change(&mut config);
    Hub::start(config, Arc::new(Open)).unwrap()
}

/// A log with a tail of that many events that forgets nothing else.
pub(crate) fn tail(events: usize) -> LogConfig {
    LogConfig { tail_events: events, history_events: 1 << 20, ..LogConfig::default() }
}

pub(crate) fn publish(hub: &Hub, topic: &str, data: &str) -> u64 {
    publish_key(hub, topic, None, data)
}

pub(crate) fn publish_key(hub: &Hub, topic: &str, key: Option<&str>, data: &str) -> u64 {
    let key = key.map(|key| Key::parse(key).unwrap());
    let published = hub.publish(Topic::parse(topic).unwrap(), key, Data::json(data.as_bytes()).unwrap());
    block_on(published).unwrap().seq
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("it never ends") })
}

/// Runs `work` on a thread of its own, and fails when it does not end.
pub(crate) fn ends<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (tx, rx) = std::sync::mpsc::channel();
    std::thread::spawn(move || tx.send(work()));
    match rx.recv_timeout(2 * PATIENCE) {
        Ok(done) => done,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("{what} does not end"),
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => panic!("{what} failed: see above"),
    }
}

pub(crate) fn wait_until(condition: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "it does not come");
        std::thread::yield_now();
    }
}

pub(crate) fn filter(patterns: &[&str]) -> Filter {
    patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect()
}

pub(crate) fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_nodelay(true).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    (client, listener.accept().unwrap().0)
}

/// A generator whose seed is printed, so that a failure can be had again: `SEED=... cargo test`.
pub(crate) fn seeded(name: &str) -> StdRng {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("{name}: SEED={seed}");
    StdRng::seed_from_u64(seed)
}

pub(crate) fn pick<'t>(rng: &mut StdRng, from: &[&'t str]) -> &'t str {
    from[rng.random_range(0..from.len())]
}

pub(crate) fn adoption(socket: Socket, form: Form) -> Adoption {
    Adoption::new(
        socket,
        match form {
            Form::Json => Protocol::WebSocketJson,
            Form::Cbor => Protocol::WebSocketCbor,
            Form::Sse => Protocol::Sse,
        },
        Grant::open(),
    )
}

impl Client {
    /// A connection that was greeted.
    pub(crate) fn open(hub: &Hub, form: Form) -> Self {
        Self::with(hub, form, |_| {})
    }

    pub(crate) fn with(hub: &Hub, form: Form, change: impl FnOnce(&mut Adoption)) -> Self {
        Self::on(hub.log_named("default").unwrap(), form, change)
    }

    /// The same, on a log.
    pub(crate) fn on(log: &LogHandle, form: Form, change: impl FnOnce(&mut Adoption)) -> Self {
        let (stream, server) = tcp();
        let mut adoption = adoption(Socket::Tcp(server), form);
        change(&mut adoption);
        log.adopt(adoption);
        let mut client = Self::of_epoch(stream, log.log().epoch(), form);
        assert!(matches!(client.next(), Some(Seen::Hello { .. })));
        client
    }

    /// The same connection for another thread, to write or to read only.
    pub(crate) fn other_half(&self) -> Self {
        let stream = self.stream.try_clone().unwrap();
        Self { stream, buffer: self.buffer.clone(), ..*self }
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn over(stream: S, hub: &Hub, form: Form) -> Self {
        Self::of_epoch(stream, hub.log().epoch(), form)
    }

    fn of_epoch(stream: S, epoch: u64, form: Form) -> Self {
        Self {
            stream,
            form,
            epoch,
            buffer: Vec::new(),
            lives: true,
            shows_all: false,
            pings: 0,
            pongs: 0,
            end: None,
        }
    }

    pub(crate) fn sub(&mut self, id: u32, since: Since, topics: &[&str]) {
        self.send(&ClientMessage::Sub {
            id: Some(id),
            since: Some(since),
            policy: None,
            topics: topics.into(),
        });
    }

    /// Subscribes from now on, and waits until it has begun.
    pub(crate) fn subscribed(&mut self, topics: &[&str]) {
        self.sub(0, Since::Now, topics);
        while !matches!(self.must(), Seen::CaughtUp(_, Some(0))) {}
    }

    pub(crate) fn unsub(&mut self, id: u32, topics: &[&str]) {
        self.send(&ClientMessage::Unsub { id: Some(id), topics: topics.into() });
    }

    pub(crate) fn auth(&mut self, token: &str) {
        self.send(&ClientMessage::Auth { token: token.into() });
    }

    /// Publishes the number `n`.
    pub(crate) fn publish(&mut self, n: u64, topic: &str) {
        let frame = self.publication(n, topic);
        self.write(&frame);
    }

    pub(crate) fn publication(&self, n: u64, topic: &str) -> Vec<u8> {
        let json = n.to_string();
        let cbor = [&[0x1b][..], &n.to_be_bytes()].concat();
        let data = match self.form {
            Form::Json | Form::Sse => session::Data::Json(json.as_bytes()),
            Form::Cbor => session::Data::Cbor(&cbor),
        };
        self.message(&ClientMessage::Pub { n: Some(n), topic: topic.into(), key: None, data })
    }

    pub(crate) fn send(&mut self, message: &ClientMessage<'_>) {
        let frame = self.message(message);
        self.write(&frame);
    }

    /// A message as it goes over the wire.
    pub(crate) fn message(&self, message: &ClientMessage<'_>) -> Vec<u8> {
        let mut payload = Vec::new();
        let mut sink = |piece: &[u8]| {
            payload.extend_from_slice(piece);
            Ok(())
        };
        match self.form {
            Form::Json | Form::Sse => json::encode_client(message, &mut sink).unwrap(),
            Form::Cbor => cbor::encode_client(message, &mut sink).unwrap(),
        }
        self.frame(&payload)
    }

    /// One frame of this connection's kind around any payload.
    pub(crate) fn frame(&self, payload: &[u8]) -> Vec<u8> {
        frame(if self.form == Form::Json { OpCode::Text } else { OpCode::Binary }, payload)
    }

    pub(crate) fn write(&mut self, wire: &[u8]) {
        self.stream.write_all(wire).unwrap();
    }

    /// The next message; `None` when the connection is over.
    pub(crate) fn next(&mut self) -> Option<Seen> {
        loop {
            match self.any()? {
                Seen::Pressure(..) if !self.shows_all => {}
                Seen::Lost(from, to, reason, _) if !self.shows_all => {
                    return Some(Seen::Gap(from, to, reason));
                }
                seen => return Some(seen),
            }
        }
    }

    fn any(&mut self) -> Option<Seen> {
        if self.form == Form::Sse {
            return self.next_block().map(|data| self.seen(&data));
        }
        while let Some((header, payload)) = self.next_frame() {
            match header.opcode {
                OpCode::Text | OpCode::Binary => {
                    assert_eq!(self.end, None, "a message behind a Close");
                    assert!(header.fin && (header.opcode == OpCode::Text) == (self.form == Form::Json));
                    return Some(self.seen(&payload));
                }
                OpCode::Ping => {
                    self.pings += 1;
                    if self.lives {
                        self.write(&frame(OpCode::Pong, &payload));
                    }
                }
                OpCode::Close => {
                    let code = payload.get(..2).unwrap_or_default();
                    self.end = Some(code.try_into().map_or(1005, u16::from_be_bytes));
                    // The connection may be gone already.
                    let _ = self.stream.write_all(&frame(OpCode::Close, code));
                }
                OpCode::Pong => self.pongs += 1,
                OpCode::Continuation => panic!("messages of a server are whole"),
            }
        }
        None
    }

    /// The next message, of which there is one.
    pub(crate) fn must(&mut self) -> Seen {
        match self.next() {
            Some(seen) => seen,
            None => panic!("the connection has ended: {:?}", self.end),
        }
    }

    pub(crate) fn take(&mut self, n: usize) -> Vec<Seen> {
        (0..n).map(|_| self.must()).collect()
    }

    /// Reads to the end of the connection.
    pub(crate) fn end(&mut self) -> (Vec<Seen>, End) {
        let seen = std::iter::from_fn(|| self.next()).collect();
        (seen, self.end.map_or(End::Cut, End::Closed))
    }

    /// The data of the next block of an event stream that has any.
    fn next_block(&mut self) -> Option<Vec<u8>> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let data = block.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"data: "));
                if let Some(data) = data {
                    return Some(data.to_vec());
                }
            }
            if !self.read_more() {
                return None;
            }
        }
    }

    fn next_frame(&mut self) -> Option<(FrameHeader, Vec<u8>)> {
        loop {
            if let Some((header, size)) = FrameHeader::parse(&self.buffer).unwrap() {
                let len = usize::try_from(header.len).unwrap();
                if self.buffer.len() >= size + len {
                    let payload = self.buffer[size..size + len].to_vec();
                    self.buffer.drain(..size + len);
                    return Some((header, payload));
                }
            }
            if !self.read_more() {
                assert!(self.buffer.is_empty(), "the stream ends within a frame");
                return None;
            }
        }
    }

    /// False at the end of the stream.
    fn read_more(&mut self) -> bool {
        let mut piece = vec![0; 16 << 10];
        let n = match self.stream.read(&mut piece) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(e) => panic!("nothing comes: {e}"),
        };
        self.buffer.extend_from_slice(&piece[..n]);
        n > 0
    }

    fn seen(&self, payload: &[u8]) -> Seen {
        let message = match self.form {
            Form::Json | Form::Sse => json::decode_server(payload),
            Form::Cbor => cbor::decode_server(payload),
        };
        let seq = |cursor: Cursor| {
            assert_eq!(cursor.epoch, self.epoch);
            cursor.seq
        };
        match message.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(payload))) {
            ServerMessage::Hello { lease, .. } => Seen::Hello { lease: lease.is_some() },
            ServerMessage::Event(event) => Seen::Event {
                at: match event.position {
                    Position::At(cursor) => At::Live(seq(cursor)),
                    Position::Past(cursor) => At::Past(seq(cursor)),
                },
                topic: text(event.topic),
                key: event.key.map(text),
                body: match event.data {
                    session::Data::Json(json) => Body::Json(String::from_utf8(json.to_vec()).unwrap()),
                    session::Data::Cbor(cbor) => Body::Cbor(cbor.to_vec()),
                    session::Data::Bytes { content_type, bytes } => {
                        Body::Bytes(content_type.map(text).unwrap_or_default(), bytes.iter().collect())
                    }
                },
            },
            ServerMessage::CaughtUp { at, id } => Seen::CaughtUp(seq(at), id),
            ServerMessage::Ack { n, .. } => Seen::Ack(n),
            ServerMessage::Nack { n, refusal } => Seen::Nack(n, text(refusal.code)),
            ServerMessage::Gap(gap) => Seen::Lost(gap.from.seq, seq(gap.to), gap.reason, gap.skipped),
            ServerMessage::Pressure(p) => Seen::Pressure(p.lag, p.limit, p.skipped),
            ServerMessage::Tick { at } => Seen::Tick(seq(at)),
            ServerMessage::Renew { within } => {
                assert!(!within.is_zero(), "too late to renew");
                Seen::Renew
            }
            ServerMessage::Bye { refusal, .. } => Seen::Bye(text(refusal.code)),
            ServerMessage::Error { refusal, id } => Seen::Error(text(refusal.code), id),
            other => panic!("{other:?}"),
        }
    }
}

/// The events that are live: their positions and topics.
pub(crate) fn live(seen: &Seen) -> Option<(u64, &str)> {
    match seen {
        Seen::Event { at: At::Live(seq), topic, .. } => Some((*seq, topic)),
        _ => None,
    }
}

pub(crate) fn event(seq: u64, topic: &str, json: &str) -> Seen {
    Seen::Event { at: At::Live(seq), topic: topic.into(), key: None, body: Body::Json(json.into()) }
}

pub(crate) fn past(seq: u64, topic: &str, json: &str) -> Seen {
    Seen::Event { at: At::Past(seq), topic: topic.into(), key: None, body: Body::Json(json.into()) }
}

pub(crate) fn error(code: &str, id: u32) -> Seen {
    Seen::Error(code.into(), Some(id))
}

fn text(text: session::Text<'_>) -> String {
    text.chars().collect()
}

pub(crate) fn frame(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let len = payload.len() as u64;
    let header = FrameHeader { fin: true, rsv1: false, opcode, mask: Some(mask), len }.encode();
    let mut wire = header.as_ref().to_vec();
    let start = wire.len();
    wire.extend_from_slice(payload);
    unmask(&mut wire[start..], mask);
    wire
}

/// A stream of tokio's, as a blocking one.
pub(crate) struct Blocking<S = DuplexStream> {
    stream: S,
    runtime: tokio::runtime::Runtime,
}

impl<S> Blocking<S> {
    pub(crate) fn new(stream: S) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Self { stream, runtime }
    }
}

impl<S: AsyncRead + Unpin> Read for Blocking<S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(into);
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, read).await.expect("nothing comes") })
    }
}

impl<S: AsyncWrite + Unpin> Write for Blocking<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let write = self.stream.write(bytes);
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, write).await.expect("nothing is taken") })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
