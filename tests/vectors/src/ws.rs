//! Runs frames through a connection, by its calling contract.

use crate::run::{is_named, same, wrong};
use crate::{Bytes, Case, Line, Setup, Space, Vector, Wrong};
use core::convert::Infallible;
use longwire_core::buf::{Io, RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::http::extension;
use longwire_core::rand_core::TryRng;
use longwire_core::time::Instant;
use longwire_core::ws::deflate::{self, Agreed, Inflate, Window};
use longwire_core::ws::{
    Chunk, Client, CloseCause, CloseReason, Config, Connection, Delivery, Event, Found, Heartbeat, Kind,
    MIN_RX, MIN_TX, ProtocolError, Role, Server, Step,
};

/// The key of all frames that a client of these vectors sends: that of RFC 6455 section 5.7.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const NOW: Instant = Instant::from_millis(0);

pub(crate) fn run(case: &Case, setup: &Setup, space: &mut Space<'_>) -> Result<(), Wrong> {
    let vector = case.vector;
    vector.knows(
        &["role", "extension", "delivery", "max_message", "max_fragments", "end"],
        &["text", "binary", "ping", "pong", "close", "send"],
    )?;
    let config = config(&vector, setup)?;
    match vector.line("role").map(|line| line.rest) {
        Some("server") => drive(Server, config, case, setup, space),
        Some("client") => drive(Client(OneKey), config, case, setup, space),
        _ => wrong!(vector.head, "role is neither server nor client"),
    }
}

fn config(vector: &Vector, setup: &Setup) -> Result<Config, Wrong> {
    let default = Config { heartbeat: None::<Heartbeat>, ..Config::new() };
    let fragments = vector.line("max_fragments").map(|line| line.parse()).transpose()?;
    Ok(Config {
        max_message: vector.number("max_message")?.unwrap_or(default.max_message),
        max_fragments: fragments.unwrap_or(default.max_fragments),
        delivery: match vector.line("delivery").map(|line| line.rest) {
            None => setup.delivery,
            Some("whole") => Delivery::Whole,
            Some("chunks") => Delivery::Chunks,
            Some(other) => return wrong!(vector.head, "no such delivery: {other}"),
        },
        ..default
    })
}

/// What the handshake agreed on, as a server's answer says it.
fn agreed(vector: &Vector) -> Result<Option<Agreed>, Wrong> {
    let Some(line) = vector.line("extension") else { return Ok(None) };
    let all = deflate::Config { send: WINDOW, receive: WINDOW };
    match all.check(extension::parse(line.rest.as_bytes()).flatten()) {
        Ok(Some(agreed)) => Ok(Some(agreed)),
        other => wrong!(line, "no such extension: {other:?}"),
    }
}

/// All that permessage-deflate can agree on is within this.
const WINDOW: Window = Window { bits: deflate::MAX_BITS, takeover: true };

fn drive<R: Role>(
    role: R,
    config: Config,
    case: &Case,
    setup: &Setup,
    space: &mut Space<'_>,
) -> Result<(), Wrong> {
    let least = if config.delivery == Delivery::Chunks { MIN_RX } else { 0 };
    let Some(tx) = space.tx.get_mut(..setup.tx.max(MIN_TX)) else {
        return wrong!(case.vector.head, "a send buffer of {} bytes", setup.tx);
    };
    let mut connection = Connection::new(role, &config, NOW);
    if let Some(agreed) = agreed(&case.vector)? {
        connection = connection.with_deflate(agreed);
    }
    // What an earlier case has left in it is forgotten.
    space.inflate.end_message(Window { takeover: false, ..WINDOW });
    let mut endpoint = Endpoint {
        connection,
        inflate: space.inflate,
        rx: space.rx,
        rx_len: setup.rx.max(least),
        rx_at: RxCursor::new(),
        tx,
        tx_at: TxCursor::new(),
        end: None,
        expected: Expected::of(case.vector),
    };
    // So that room is left for what is compressed, from the first byte on.
    endpoint.turn()?;
    let mut arrived = 0;
    for byte in case.wire()? {
        arrived += 1;
        endpoint.receive(byte)?;
        if setup.cut.is_at(arrived) {
            endpoint.turn()?;
        }
        if endpoint.end.is_some() {
            break;
        }
    }
    endpoint.turn()?;
    let end = match endpoint.end {
        Some(end) => end,
        None => match endpoint.connection.handle_eof() {
            Step::Closed(cause) => End::Closed(cause),
            _ => return wrong!(case.vector.head, "the end of the stream is not the end"),
        },
    };
    endpoint.expected.end(end)
}

/// A connection and what it is lent.
struct Endpoint<'a, R> {
    connection: Connection<R, &'a Config>,
    inflate: &'a mut dyn Inflate,
    rx: &'a mut [u8],
    /// So much of it is lent.
    rx_len: usize,
    rx_at: RxCursor,
    tx: &'a mut [u8],
    tx_at: TxCursor,
    end: Option<End>,
    expected: Expected,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Closed(CloseCause),
    Failed(ProtocolError),
}

impl<R: Role> Endpoint<'_, R> {
    /// Appends a byte to what was received. What is there is worked off only when there is no room.
    fn receive(&mut self, byte: u8) -> Result<(), Wrong> {
        while self.end.is_none() && self.lend_rx()?.fill(&[byte]) == 0 {
            self.turn()?;
        }
        Ok(())
    }

    /// Works off what was received.
    fn turn(&mut self) -> Result<(), Wrong> {
        let vector = self.expected.vector;
        while self.end.is_none() {
            let Some(rx) = self.rx.get_mut(..self.rx_len) else {
                return wrong!(vector.head, "asks for {} bytes", self.rx_len);
            };
            let rx = RxBuf::new(rx, &mut self.rx_at);
            let mut io = Io::new(rx, TxBuf::new(self.tx, &mut self.tx_at)).with_inflate(self.inflate);
            match self.connection.poll(NOW, &mut io) {
                Ok(Step::Event(found)) => self.expected.event(&found, io.rx.reborrow())?,
                Ok(Step::NeedSpace(wanted)) => {
                    // What is held at most doubles: a length that is only announced reserves nothing.
                    if wanted <= self.rx_len || wanted > 2 * self.rx_len + MIN_RX {
                        return wrong!(vector.head, "asks for {wanted} bytes where {} are held", self.rx_len);
                    }
                    self.rx_len = wanted;
                }
                Ok(Step::NeedFlush) if !io.tx.pending().is_empty() => self.expected.sent(&mut io.tx)?,
                Ok(Step::NeedFlush) => return wrong!(vector.head, "there is nothing to flush"),
                Ok(Step::NeedInput) if io.rx.spare_mut().is_empty() => {
                    return wrong!(vector.head, "there is no room for what it needs");
                }
                Ok(Step::NeedInput) => return self.expected.sent(&mut io.tx),
                Ok(Step::Closed(cause)) => {
                    self.end = Some(End::Closed(cause));
                    self.expected.sent(&mut io.tx)?;
                }
                Err(error) => {
                    self.end = Some(End::Failed(error));
                    self.expected.sent(&mut io.tx)?;
                }
            }
        }
        Ok(())
    }

    fn lend_rx(&mut self) -> Result<RxBuf<'_>, Wrong> {
        match self.rx.get_mut(..self.rx_len) {
            Some(rx) => Ok(RxBuf::new(rx, &mut self.rx_at)),
            None => wrong!(self.expected.vector.head, "asks for {} bytes", self.rx_len),
        }
    }
}

/// What has to come, and how much of it has come.
struct Expected {
    vector: Vector,
    /// Events that have come.
    events: usize,
    /// A message that comes in pieces, and what is still expected of it.
    message: Option<Pieces>,
    /// `send` lines that were begun; the last of them, and what is still expected of it.
    sends: usize,
    sending: Option<(Line, Bytes<'static>)>,
    /// What was sent behind all that: nothing, or the Close of a connection that failed.
    close: heapless::Vec<u8, MIN_TX>,
}

/// A message in pieces: it is compared as it comes, and judged only when it is whole, for one that stays unfinished is
/// no event.
struct Pieces {
    /// Which of the events it should be.
    event: usize,
    rest: Option<Bytes<'static>>,
    differs: bool,
}

impl Expected {
    fn of(vector: Vector) -> Self {
        Self { vector, events: 0, message: None, sends: 0, sending: None, close: heapless::Vec::new() }
    }

    fn events(&self) -> impl Iterator<Item = Line> + use<> {
        self.vector.lines().filter(|line| matches!(line.word, "text" | "binary" | "ping" | "pong" | "close"))
    }

    fn event(&mut self, found: &Found, rx: RxBuf<'_>) -> Result<(), Wrong> {
        let event = found.event(rx);
        if let Event::Chunk(chunk) = event {
            return self.piece(chunk);
        }
        let Some(line) = self.events().nth(self.events) else {
            return wrong!(self.vector.head, "an event too many: {event:?}");
        };
        self.events += 1;
        let as_expected = match event {
            Event::Text(text) => line.word == "text" && same(text.as_bytes(), line.bytes()?),
            Event::Binary(data) => line.word == "binary" && same(data, line.bytes()?),
            Event::Ping(payload) => line.word == "ping" && same(payload, line.bytes()?),
            Event::Pong(payload) => line.word == "pong" && same(payload, line.bytes()?),
            Event::Close(CloseReason { code, reason }) => {
                let (number, rest) = line.rest.split_once(' ').unwrap_or((line.rest, ""));
                let code = code.map_or(number == "none", |code| number.parse() == Ok(code.get()));
                let expected = Line { rest, ..line }.bytes()?;
                line.word == "close" && code && same(reason.as_bytes(), expected)
            }
            Event::Chunk(_) => false,
        };
        if as_expected { Ok(()) } else { wrong!(line, "another event: {event:?}") }
    }

    fn piece(&mut self, Chunk { kind, first, last, payload }: Chunk<'_>) -> Result<(), Wrong> {
        if first != self.message.is_none() {
            return wrong!(self.vector.head, "first is {first} in a piece of {kind:?}");
        }
        let word = if kind == Kind::Text { "text" } else { "binary" };
        let mut message = match self.message.take() {
            Some(message) => message,
            None => {
                // Control frames that come in between are expected before it.
                let is_message = |(_, line): &(usize, Line)| matches!(line.word, "text" | "binary");
                let found = self.events().enumerate().skip(self.events).find(is_message);
                let found = found.filter(|(_, line)| line.word == word);
                let rest = found.map(|(_, line)| line.bytes()).transpose()?;
                Pieces { event: found.map_or(usize::MAX, |(n, _)| n), rest, differs: false }
            }
        };
        for byte in payload {
            message.differs |= message.rest.as_mut().and_then(Iterator::next) != Some(*byte);
        }
        if !last {
            self.message = Some(message);
            return Ok(());
        }
        let whole = message.rest.is_some_and(|mut rest| rest.next().is_none());
        if message.event != self.events || message.differs || !whole {
            let line = self.events().nth(self.events).unwrap_or(self.vector.head);
            return wrong!(line, "another message, which ends in {payload:x?}");
        }
        self.events += 1;
        Ok(())
    }

    /// Takes what is pending.
    fn sent(&mut self, tx: &mut TxBuf<'_>) -> Result<(), Wrong> {
        for byte in tx.pending() {
            match self.next_sent()? {
                Some((_, expected)) if expected == *byte => {}
                Some((line, expected)) => {
                    return wrong!(line, "sent {byte:02x} where {expected:02x} is expected");
                }
                None if self.close.push(*byte).is_ok() => {}
                None => return wrong!(self.vector.head, "more is sent than expected"),
            }
        }
        tx.consume(usize::MAX);
        Ok(())
    }

    /// The next byte that has to be sent, and its line.
    fn next_sent(&mut self) -> Result<Option<(Line, u8)>, Wrong> {
        loop {
            if let Some((line, rest)) = &mut self.sending
                && let Some(byte) = rest.next()
            {
                return Ok(Some((*line, byte)));
            }
            let mut sends = self.vector.lines().filter(|line| line.word == "send");
            let Some(line) = sends.nth(self.sends) else { return Ok(None) };
            self.sends += 1;
            self.sending = Some((line, line.bytes()?));
        }
    }

    /// All has come; and what of the end?
    fn end(mut self, end: End) -> Result<(), Wrong> {
        let Some(line) = self.vector.line("end") else { return wrong!(self.vector.head, "no end") };
        if let Some(missing) = self.events().nth(self.events) {
            return wrong!(missing, "this event does not come; the end is {end:?}");
        }
        if let Some((missing, _)) = self.next_sent()? {
            return wrong!(missing, "this is not sent, or not all of it; the end is {end:?}");
        }
        let (how, what) = line.rest.split_once(' ').unwrap_or((line.rest, ""));
        let as_expected = match end {
            End::Closed(CloseCause::Clean) => (how, what) == ("clean", ""),
            End::Closed(CloseCause::EndOfStream) => (how, what) == ("cut", ""),
            End::Closed(_) => false,
            End::Failed(error) => {
                let (code, name) = what.split_once(' ').unwrap_or_default();
                how == "failed" && code.parse() == Ok(error.code().get()) && is_named(&error, name)
            }
        };
        if !as_expected {
            return wrong!(line, "another end: {end:?}");
        }
        match end {
            End::Failed(error) if is_close(&self.close, error.code().get()) => Ok(()),
            End::Closed(_) if self.close.is_empty() => Ok(()),
            _ => wrong!(line, "sent at the end: {:x?}", self.close),
        }
    }
}

/// Whether these bytes are one whole Close frame with this code, of either role, and a reason in UTF-8.
fn is_close(frame: &[u8], code: u16) -> bool {
    let mut plain = [0; MIN_TX];
    let (header, key) = match frame {
        [0x88, len, rest @ ..] if len & 0x80 == 0 => ((*len, rest), [0; 4]),
        [0x88, len, a, b, c, d, rest @ ..] if [*a, *b, *c, *d] == KEY => ((len & 0x7f, rest), KEY),
        _ => return false,
    };
    let (len, payload) = header;
    for ((to, from), key) in plain.iter_mut().zip(payload).zip(key.iter().cycle()) {
        *to = from ^ key;
    }
    let Some([high, low, reason @ ..]) = plain.get(..payload.len()) else { return false };
    payload.len() == usize::from(len)
        && u16::from_be_bytes([*high, *low]) == code
        && core::str::from_utf8(reason).is_ok()
}

/// A source of masks that is always the same, so that answers can be written down.
struct OneKey;

impl TryRng for OneKey {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_ne_bytes(KEY))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(0)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill(0);
        Ok(())
    }
}
