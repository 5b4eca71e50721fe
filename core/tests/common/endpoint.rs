//! One end of a connection, driven as its calling contract says.

use super::{Miniz, Sent, frames};
use longwire_core::buf::{Io, RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::rand_core::TryRng;
use longwire_core::time::Instant;
use longwire_core::ws::deflate::{Agreed, Inflate};
use longwire_core::ws::{
    Chunk, Client, CloseCause, CloseCode, Config, Connection, Delivery, Event, Kind, MIN_RX, ProtocolError,
    Role, SendError, Server, Step,
};
use std::convert::Infallible;
use std::mem;

/// A source of masks that counts: key `n` is `Keys::nth(n)`, so the keys on the wire tell how often it was asked.
#[derive(Clone, Debug, Default)]
pub struct Keys(u32);

impl Keys {
    pub fn nth(n: u32) -> [u8; 4] {
        n.wrapping_mul(0x9e37_79b9).to_ne_bytes()
    }
}

impl TryRng for Keys {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0 += 1;
        Ok(u32::from_ne_bytes(Self::nth(self.0)))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("a mask has 32 bits")
    }

    fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Infallible> {
        unreachable!("a mask has 32 bits")
    }
}

/// A client whose masks can be foretold.
pub type AnyClient = Client<Keys>;

/// A role that a test can make up.
pub trait End: Role {
    fn end() -> Self;
}

impl End for Server {
    fn end() -> Self {
        Self
    }
}

impl End for AnyClient {
    fn end() -> Self {
        Self(Keys::default())
    }
}

/// The defaults with other limits.
pub fn limits(max_message: u64, max_fragments: u32) -> Config {
    Config { max_message, max_fragments, ..Config::new() }
}

pub const fn millis(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// Something heard, with its payload copied out and the pieces of a message joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<CloseCode>, String),
    Failed(ProtocolError),
}

/// When what is pending is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// After each turn.
    Always,
    /// Only on [`Step::NeedFlush`].
    WhenAsked,
    /// Never by itself: the test writes.
    ByHand,
}

/// What is lent to inflate with, if permessage-deflate was agreed on.
pub enum Lent {
    /// The endpoint's own [`Miniz`].
    Codec,
    Nothing,
    Other(Box<dyn Inflate>),
}

/// A connection, its buffers, and what it heard and sent.
pub struct Endpoint<R> {
    pub connection: Connection<R, Box<Config>>,
    pub now: Instant,
    pub flush: Flush,
    rx: Vec<u8>,
    rx_at: RxCursor,
    tx: Vec<u8>,
    tx_at: TxCursor,
    /// Events, in order.
    pub heard: Vec<Heard>,
    /// Bytes, in order.
    pub sent: Vec<u8>,
    /// What [`Step::NeedSpace`] asked for.
    pub asked: Vec<usize>,
    /// How often the step was [`Step::NeedFlush`].
    pub flushes: usize,
    pub closed: Option<CloseCause>,
    pub codec: Miniz,
    pub lent: Lent,
    joined: Option<(Kind, Vec<u8>)>,
}

impl<R: End> Endpoint<R> {
    /// With room to spare.
    pub fn new(config: Config) -> Self {
        Self::with(config, 4096, 4096)
    }

    /// With buffers of these sizes.
    pub fn with(config: Config, rx: usize, tx: usize) -> Self {
        let now = Instant::from_millis(1000);
        Self {
            connection: Connection::new(R::end(), Box::new(config), now),
            now,
            flush: Flush::Always,
            rx: vec![0; rx],
            rx_at: RxCursor::default(),
            tx: vec![0; tx],
            tx_at: TxCursor::default(),
            heard: Vec::new(),
            sent: Vec::new(),
            asked: Vec::new(),
            flushes: 0,
            closed: None,
            codec: Miniz::default(),
            lent: Lent::Codec,
            joined: None,
        }
    }

    /// With permessage-deflate.
    pub fn deflate(mut self, agreed: Agreed) -> Self {
        self.connection = Connection::new(R::end(), Box::new(self.connection.config().clone()), self.now)
            .with_deflate(agreed);
        // As whoever read the handshake did.
        self.lend(|_, io| io.rx.reserve_for_expansion());
        self
    }

    /// With something else to inflate with.
    pub fn lent(mut self, lent: Lent) -> Self {
        self.lent = lent;
        self
    }

    /// Lends both buffers to a call.
    pub fn lend<T>(&mut self, call: impl FnOnce(&mut Connection<R, Box<Config>>, &mut Io<'_>) -> T) -> T {
        let rx = RxBuf::new(&mut self.rx, &mut self.rx_at);
        let tx = TxBuf::new(&mut self.tx, &mut self.tx_at);
        let mut io = Io::new(rx, tx);
        if self.connection.deflate().is_some() {
            io = match &mut self.lent {
                Lent::Codec => io.with_inflate(&mut self.codec),
                Lent::Other(codec) => io.with_inflate(&mut **codec),
                Lent::Nothing => io,
            };
        }
        call(&mut self.connection, &mut io)
    }

    /// Sends a message compressed.
    pub fn send_deflated(&mut self, kind: Kind, data: &[u8]) -> Result<(), SendError> {
        let mut tx = TxBuf::new(&mut self.tx, &mut self.tx_at);
        self.connection.send_deflated(&mut tx, kind, data, &mut self.codec)
    }

    /// Appends to what was received as much as fits, and does nothing with it yet.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        self.lend(|_, io| io.rx.fill(bytes))
    }

    /// Receives all of `bytes`: fill, then work it off, as often as the buffer demands.
    pub fn receive(&mut self, mut bytes: &[u8]) -> &mut Self {
        while self.closed.is_none() {
            let n = self.append(bytes);
            bytes = &bytes[n..];
            self.turn();
            if bytes.is_empty() {
                break;
            }
        }
        self
    }

    /// Polls until there is nothing left to do but to read. False: something has to be written first.
    pub fn turn(&mut self) -> bool {
        // A round hands out an event, makes room, or is the last. Of compressed bytes come many more pieces.
        let most = 16 + 2 * self.lend(|_, io| io.rx.held());
        let most = match self.connection.deflate() {
            Some(_) => most.saturating_add(self.connection.config().max_message as usize / 50),
            None => most,
        };
        for _ in 0..most {
            match self.poll() {
                Ok(Step::Event(_)) => {}
                Ok(Step::NeedSpace(wanted)) => self.grow(wanted),
                Ok(Step::NeedFlush) => {
                    self.flushes += 1;
                    assert!(self.pending() > 0, "there is nothing to flush");
                    if self.flush == Flush::ByHand {
                        return false;
                    }
                    self.write(usize::MAX);
                }
                Ok(Step::NeedInput | Step::Closed(_)) | Err(_) => {
                    self.end_turn();
                    return true;
                }
            }
        }
        panic!("a turn that does not end");
    }

    /// Polls once, and takes down what it says.
    pub fn poll(&mut self) -> Result<Step, ProtocolError> {
        let now = self.now;
        let mut heard = None;
        let mut joined = self.joined.take();
        let step = self.lend(|connection, io| {
            let step = connection.poll(now, io);
            match &step {
                Ok(Step::Event(found)) => heard = hear(found.event(io.rx.reborrow()), &mut joined),
                Ok(Step::NeedInput) => assert!(!io.rx.spare_mut().is_empty(), "a read of no bytes"),
                _ => {}
            }
            step
        });
        self.joined = joined;
        self.heard.extend(heard);
        match &step {
            Ok(Step::Closed(cause)) => self.close_with(*cause),
            Err(error) => {
                self.heard.push(Heard::Failed(*error));
                // No event after an error, whatever was received.
                let failed = CloseCause::Failed(error.code());
                assert_eq!(self.lend(|connection, io| connection.poll(now, io)), Ok(Step::Closed(failed)));
                self.close_with(failed);
            }
            _ => {}
        }
        step
    }

    /// Sets the clock, and does what is due.
    pub fn at(&mut self, millis: u64) -> &mut Self {
        let now = Instant::from_millis(millis);
        self.now = now;
        let step = self.lend(|connection, io| connection.handle_timeout(now, io));
        if let Step::Closed(cause) = step {
            self.close_with(cause);
        }
        let next = self.connection.poll_timeout();
        assert!(next.is_none_or(|next| next > now), "a deadline that stays: the caller would spin");
        self.end_turn();
        self
    }

    /// The stream ends.
    pub fn eof(&mut self) -> CloseCause {
        let Step::Closed(cause) = self.connection.handle_eof() else { panic!("the end is not the end") };
        self.close_with(cause);
        cause
    }

    /// Writes at most `n` of the pending bytes, and says how many those were.
    pub fn write(&mut self, n: usize) -> usize {
        let mut tx = TxBuf::new(&mut self.tx, &mut self.tx_at);
        let n = n.min(tx.pending().len());
        self.sent.extend_from_slice(&tx.pending()[..n]);
        tx.consume(n);
        n
    }

    /// Bytes that wait to be written.
    pub fn pending(&mut self) -> usize {
        self.lend(|_, io| io.tx.pending().len())
    }

    /// Bytes of the receive buffer.
    pub fn capacity(&self) -> usize {
        self.rx.len()
    }

    /// The frames that were written, and those that are pending.
    pub fn frames(&mut self) -> Vec<Sent> {
        let pending = self.lend(|_, io| io.tx.pending().to_vec());
        let all = [&self.sent[..], &pending].concat();
        let (frames, rest) = frames(&all);
        assert!(rest.is_empty(), "half a frame: {rest:x?}");
        frames
    }

    fn end_turn(&mut self) {
        if self.flush == Flush::Always {
            self.write(usize::MAX);
        }
        // An idle connection may be lent any other buffer next time.
        if self.rx_at.is_idle() {
            self.rx.fill(0xa5);
        }
        if self.tx_at.is_idle() {
            self.tx.fill(0x5a);
        }
    }

    fn grow(&mut self, wanted: usize) {
        assert!(wanted > self.rx.len(), "asked for {wanted} of {}", self.rx.len());
        assert!(wanted <= 2 * self.rx.len() + MIN_RX, "asked for {wanted} of {}", self.rx.len());
        let config = self.connection.config();
        let message = config.max_message;
        // What is compressed lies beside what comes of it. It may be an eighth longer, and a little more in fragments.
        let beside = match self.connection.deflate() {
            Some(_) => {
                message.saturating_add(message / 8).saturating_add(64 + 8 * u64::from(config.max_fragments))
            }
            None => 0,
        };
        let most = message.saturating_add(MIN_RX as u64).saturating_add(beside);
        assert!(wanted as u64 <= most, "asked for {wanted}");
        assert!(config.delivery == Delivery::Whole || self.rx.len() < MIN_RX, "pieces need no space");
        self.asked.push(wanted);
        let mut rx = vec![0xa5; wanted];
        let held = RxBuf::new(&mut self.rx, &mut self.rx_at).compact().len();
        rx[..held].copy_from_slice(&self.rx[..held]);
        self.rx = rx;
    }

    fn close_with(&mut self, cause: CloseCause) {
        assert_eq!(*self.closed.get_or_insert(cause), cause, "two ends of one connection");
        assert_eq!(self.connection.poll_timeout(), None, "a deadline after the end");
    }
}

/// Copies an event out. Of a message in pieces only the last says something; the rules of pieces are checked.
fn hear(event: Event<'_>, joined: &mut Option<(Kind, Vec<u8>)>) -> Option<Heard> {
    let Event::Chunk(Chunk { kind, first, last, payload }) = event else {
        return Some(match event {
            Event::Text(text) => Heard::Text(std::str::from_utf8(text.as_bytes()).unwrap().into()),
            Event::Binary(data) => Heard::Binary(data.into()),
            Event::Ping(payload) => Heard::Ping(payload.into()),
            Event::Pong(payload) => Heard::Pong(payload.into()),
            Event::Close(close) => Heard::Close(close.code, close.reason.as_str().into()),
            Event::Chunk(_) => unreachable!(),
        });
    };
    assert_eq!(first, joined.is_none(), "the first piece is the one that begins the message");
    assert!(last || !payload.is_empty(), "an empty piece that ends nothing");
    assert!(kind == Kind::Binary || std::str::from_utf8(payload).is_ok(), "half a character");
    let (begun, bytes) = joined.get_or_insert((kind, Vec::new()));
    assert_eq!(*begun, kind);
    bytes.extend_from_slice(payload);
    if !last {
        return None;
    }
    let whole = mem::take(bytes);
    *joined = None;
    Some(match kind {
        Kind::Text => Heard::Text(String::from_utf8(whole).unwrap()),
        Kind::Binary => Heard::Binary(whole),
    })
}

/// What an endpoint made of a wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    pub heard: Vec<Heard>,
    /// The frames it answered with. Of a Close the code alone: the reason is left out when it has no room.
    pub sent: Vec<Sent>,
    pub closed: CloseCause,
}

/// What an endpoint makes of a wire that arrives in these pieces and then ends.
pub fn transcript<R: End>(mut endpoint: Endpoint<R>, pieces: &[&[u8]]) -> Transcript {
    for piece in pieces {
        endpoint.receive(piece);
    }
    let closed = endpoint.closed.unwrap_or_else(|| endpoint.eof());
    let mut sent = endpoint.frames();
    for close in sent.iter_mut().filter(|frame| frame.b0 == 0x88) {
        close.payload.truncate(2);
    }
    Transcript { heard: endpoint.heard, sent, closed }
}
