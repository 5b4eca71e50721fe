//! One WebSocket connection after the opening handshake.

mod echo;
mod inflate;
mod receive;
mod send;
#[cfg(test)]
mod tests;

use super::deflate::Agreed;
use super::{
    Client, CloseCause, CloseCode, Config, Heartbeat, Kind, OpCode, ProtocolError, Role, SendError, Server,
    Step,
};
use crate::buf::{Io, RxBuf, RxCursor, TxBuf, TxCursor};
use crate::time::Instant;
use core::ops::Deref;
use core::time::Duration;
use echo::Echo;

/// Smallest send buffer: the largest Pong of a client (131 bytes) and a Close with its code (8 bytes). As much
/// stays reserved for control frames in any send buffer, whatever the application queues.
pub const MIN_TX: usize = PONG_ROOM + CLOSE_ROOM;

/// Smallest receive buffer under [`Delivery::Chunks`](super::Delivery::Chunks): a control frame (131 bytes)
/// beside a character that is not complete yet. Under [`Delivery::Whole`](super::Delivery::Whole) it is this
/// much more than the largest message.
pub const MIN_RX: usize = PONG_ROOM + 3;

const PONG_ROOM: usize = 2 + 4 + 125;
const CLOSE_ROOM: usize = 2 + 4 + 2;

// What an idle connection costs is a promise to those who hold many.
const _: () = assert!(idle::<Server>() <= 128);
const _: () = assert!(idle::<Client<&'static ()>>() <= 128);

/// A connection of this role, its configuration (and a client's generator) by reference, and its cursors.
const fn idle<R>() -> usize {
    size_of::<Connection<R, &'static Config>>() + size_of::<RxCursor>() + size_of::<TxCursor>()
}

/// A WebSocket connection, of either [`Role`], after the opening handshake (RFC 6455 sections 5 to 7).
///
/// It owns no payload: bytes come and go through the buffers that each call is lent ([`Io`]). With its cursors
/// it takes at most 128 bytes; the configuration is shared (`C` is `&'static Config`, `Arc<Config>`, ...).
///
/// # The calling contract
/// * What arrives: append it to `rx`, then [`poll`](Self::poll) until [`Step::NeedInput`]. The end of the stream:
///   [`handle_eof`](Self::handle_eof).
/// * What leaves: after *every* call that is lent `tx`, write what is pending there.
/// * Time: when [`poll_timeout`](Self::poll_timeout) has come, [`handle_timeout`](Self::handle_timeout).
/// * Between two calls the bytes that the cursors hold must stay as they are.
///
/// No call waits, so none can be cancelled half-way; a runtime may drop its future between any two calls.
///
/// ```
/// use longwire_core::buf::{Io, RxBuf, RxCursor, TxBuf, TxCursor};
/// use longwire_core::time::Instant;
/// use longwire_core::ws::{Config, Connection, Event, Server, Step};
///
/// static CONFIG: Config = Config::new();
/// let now = Instant::from_millis(0);
/// let mut connection = Connection::new(Server, &CONFIG, now);
/// let (mut rx, mut rx_at) = ([0; 1024], RxCursor::default());
/// let (mut tx, mut tx_at) = ([0; 1024], TxCursor::default());
/// let mut io = Io::new(RxBuf::new(&mut rx, &mut rx_at), TxBuf::new(&mut tx, &mut tx_at));
///
/// io.rx.fill(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"); // RFC 6455 section 5.7: a masked "Hello"
/// let Step::Event(found) = connection.poll(now, &mut io)? else { panic!() };
/// match found.event(io.rx.reborrow()) {
///     Event::Text(text) => connection.send_text(&mut io.tx, text.as_str())?,
///     _ => panic!(),
/// }
/// assert_eq!(io.tx.pending(), b"\x81\x05Hello");
/// assert_eq!(connection.poll(now, &mut io)?, Step::NeedInput);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Connection<R, C = &'static Config> {
    role: R,
    config: C,
    /// When the last byte came.
    heard: Instant,
    /// What is being waited for: the answer to a Ping, the peer's Close, or the end of the stream.
    deadline: Deadline,
    /// The heartbeat's last Ping.
    echo: Echo,
    /// Payload of the current frame that did not arrive yet.
    remaining: u64,
    /// Payload of the current message that did.
    message_len: u64,
    /// Of a compressed message: payload that arrived, before it was inflated.
    compressed_len: u64,
    fragments: u32,
    /// How much of what is unread is compressed payload, unmasked already.
    unmasked: u32,
    /// How much was unread when the last poll returned: more than that is new.
    seen: u32,
    /// The masking key, turned so that its first byte is for the next byte of payload.
    mask: [u8; 4],
    /// Bytes at the end of what is kept that begin a character.
    tail: u8,
    receiving: Receiving,
    message: Option<Kind>,
    /// Under `Delivery::Chunks`: whether a piece of this message was handed out.
    begun: bool,
    /// permessage-deflate, if it was agreed on.
    deflate: Option<Agreed>,
    inflating: Inflating,
    /// A message of ours that goes out in pieces: the next frame's opcode, and its RSV1.
    sending: Option<(OpCode, bool)>,
    phase: Phase,
    handed_out: HandedOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiving {
    Header,
    Payload { fin: bool },
}

/// What the last poll found, which the next one drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HandedOut {
    Nothing,
    /// All that is kept.
    Message,
    /// All that is kept, but for the tail.
    Chunk {
        last: bool,
    },
    /// A control frame of so many bytes, which are unread.
    Control(u8),
}

/// How the current message is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inflating {
    /// As it is.
    No,
    /// Compressed, and handed out whole: it is inflated when all of it is there.
    Gathering,
    /// Compressed; so much of the tail that its sender left out was put back, and whether the last piece of it
    /// filled the room for it, so that there may be more to come of the same input.
    Yes { tail: u8, full: bool },
    /// It was compressed, and all of it is inflated.
    Done,
}

impl Inflating {
    const START: Self = Self::Yes { tail: 0, full: false };
}

/// A moment, or none, in the room of a moment: the last there is means none.
#[derive(Clone, Copy, Debug)]
struct Deadline(Instant);

impl Deadline {
    const NEVER: Self = Self(Instant::from_millis(u64::MAX));

    fn after(now: Instant, by: Duration) -> Self {
        Self(now.after(by).min(Instant::from_millis(u64::MAX - 1)))
    }

    fn get(self) -> Option<Instant> {
        Some(self.0).filter(|at| *at < Self::NEVER.0)
    }
}

/// RFC 6455 section 7.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Our Close is written, the peer's did not come yet.
    CloseSent,
    /// Both are; a client waits for the server to end the stream (section 7.1.1).
    Draining,
    Over(CloseCause),
}

impl<R: Role, C: Deref<Target = Config>> Connection<R, C> {
    /// A connection whose opening handshake is done. Bytes that came behind the handshake belong into `rx`.
    pub const fn new(role: R, config: C, now: Instant) -> Self {
        Self {
            role,
            config,
            heard: now,
            deadline: Deadline::NEVER,
            echo: Echo::NONE,
            remaining: 0,
            message_len: 0,
            compressed_len: 0,
            fragments: 0,
            unmasked: 0,
            seen: 0,
            mask: [0; 4],
            tail: 0,
            receiving: Receiving::Header,
            message: None,
            begun: false,
            deflate: None,
            inflating: Inflating::No,
            sending: None,
            phase: Phase::Open,
            handed_out: HandedOut::Nothing,
        }
    }

    /// The same connection with permessage-deflate, as the opening handshake agreed on it
    /// ([`deflate::Config`](super::deflate::Config)).
    ///
    /// Then each [`Io`] lends an [`Inflate`](super::deflate::Inflate): always the same one while a message is
    /// being handed out in pieces, and if the peer's window is taken over. Under
    /// [`Delivery::Whole`](super::Delivery::Whole) a message is inflated when all of it is there, in the receive
    /// buffer that it came into: one that cannot grow has to be twice as large as the largest message, and [`MIN_RX`]
    /// more. The first [`poll`](Self::poll) sets apart what that takes; whoever reads before it calls
    /// [`RxBuf::reserve_for_expansion`].
    #[cfg(feature = "deflate")]
    #[must_use]
    pub const fn with_deflate(mut self, agreed: Agreed) -> Self {
        self.deflate = Some(agreed);
        self
    }

    /// What was agreed on with `with_deflate` (feature `deflate`).
    pub const fn deflate(&self) -> Option<Agreed> {
        // Said so, or a device without it would have code for it.
        if cfg!(feature = "deflate") { self.deflate } else { None }
    }

    /// Works off what was received, up to the next event. The event that the last poll found is dropped.
    ///
    /// # Errors
    /// The peer broke a rule: the Close frame is in `tx`. Flush it and end the stream; a further poll says
    /// [`Step::Closed`].
    pub fn poll(&mut self, now: Instant, io: &mut Io<'_>) -> Result<Step, ProtocolError> {
        if io.rx.unread_len() > self.seen as usize {
            self.heard = now;
            if self.phase == Phase::Open {
                self.deadline = Deadline::NEVER;
            }
        }
        self.drop_event(&mut io.rx);
        io.rx.set_expands(self.deflate().is_some());
        let step = self.advance(now, io);
        self.seen = u32::try_from(io.rx.unread_len()).unwrap_or(u32::MAX);
        if let Err(error) = step {
            self.fail(error, &mut io.tx);
        }
        step
    }

    /// The stream ended: nothing more will come.
    pub fn handle_eof(&mut self) -> Step {
        let cause = match self.phase {
            Phase::Over(cause) => cause,
            Phase::Draining => CloseCause::Clean,
            // RFC 6455 7.1.5: without a Close the connection is closed with 1006 in the application's eyes.
            Phase::Open | Phase::CloseSent => CloseCause::EndOfStream,
        };
        self.phase = Phase::Over(cause);
        Step::Closed(cause)
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called; `None`: only input can change anything.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match (self.phase, self.deadline.get()) {
            (Phase::Over(_), _) => None,
            (_, Some(deadline)) => Some(deadline),
            (Phase::Open, None) => self.config.heartbeat.map(|h| self.heard.after(h.interval)),
            (Phase::CloseSent | Phase::Draining, None) => None,
        }
    }

    /// How long the answer to the heartbeat's last Ping took, by the clock that is handed in: from the call that wrote
    /// the Ping to the poll that found its Pong. `None` before the first answer, and from each Ping to its answer, so
    /// whoever collects it looks when a poll finds a Pong. Pongs that nobody asked for, and answers to the
    /// application's own Pings, say nothing here.
    ///
    /// A heartbeat asks a silent peer only: one that sends all the time is never measured.
    pub const fn rtt(&self) -> Option<Duration> {
        self.echo.took()
    }

    /// Does what is due: after [`Heartbeat::interval`] of silence it writes a Ping; after [`Heartbeat::timeout`] without
    /// a byte since then, or [`Config::close_timeout`] after a Close, it gives the connection up. Called too early it
    /// does nothing.
    ///
    /// It returns [`Step::Closed`] when the connection is over, and otherwise [`Step::NeedInput`], which says nothing
    /// about what was received: a [`poll`](Self::poll) that was due before is due still.
    ///
    /// Silence is judged by what [`poll`](Self::poll) was shown. A caller that left the stream unread for long reads what
    /// there is and polls, before it calls this.
    pub fn handle_timeout(&mut self, now: Instant, io: &mut Io<'_>) -> Step {
        if let Some(deadline) = self.deadline.get() {
            if now >= deadline {
                return self.give_up(io);
            }
        } else if let (Phase::Open, Some(Heartbeat { interval, timeout })) =
            (self.phase, self.config.heartbeat)
            && now >= self.heard.after(interval)
        {
            // When there is no room for the Ping, what is pending asks the same question: the peer has to read.
            if io.tx.room() >= MIN_TX {
                let (echo, payload) = Echo::ask(now);
                self.echo = echo;
                self.put_frame(&mut io.tx, OpCode::Ping, &[&payload]);
            }
            self.deadline = Deadline::after(now, timeout);
        }
        match self.phase {
            Phase::Over(cause) => Step::Closed(cause),
            _ => Step::NeedInput,
        }
    }

    /// Begins the closing handshake (RFC 6455 section 7.1.2). Messages that arrive before the peer's Close are
    /// still handed out; none can be sent. The connection is over when the peer has answered, or after
    /// [`Config::close_timeout`].
    ///
    /// `reason` is cut to 123 bytes, between characters, and left out when `tx` has no room for it.
    ///
    /// # Errors
    /// [`SendError::Closing`] when the closing handshake has begun already.
    pub fn close(
        &mut self,
        now: Instant,
        tx: &mut TxBuf<'_>,
        code: CloseCode,
        reason: &str,
    ) -> Result<(), SendError> {
        if !self.is_open() {
            return Err(SendError::Closing);
        }
        self.put_close(tx, Some(code), reason);
        self.phase = Phase::CloseSent;
        self.deadline = Deadline::after(now, self.config.close_timeout);
        Ok(())
    }

    /// Whether messages can be sent: neither end has begun to close.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The rules that this connection follows.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The peer did not answer in time.
    fn give_up(&mut self, io: &mut Io<'_>) -> Step {
        let cause = match self.phase {
            Phase::Open => {
                let reason = if R::IS_CLIENT { "" } else { "no answer to a ping" };
                self.put_close(&mut io.tx, Some(CloseCode::GOING_AWAY), reason);
                CloseCause::Timeout
            }
            Phase::CloseSent => CloseCause::Timeout,
            // The handshake is complete, only the stream did not end.
            Phase::Draining => CloseCause::Clean,
            Phase::Over(cause) => cause,
        };
        self.phase = Phase::Over(cause);
        Step::Closed(cause)
    }

    /// Fails the connection (RFC 6455 section 7.1.7).
    #[cold]
    fn fail(&mut self, error: ProtocolError, tx: &mut TxBuf<'_>) {
        if self.phase == Phase::Open {
            // A server says what its client did wrong. Of a client the code is enough, as of a browser; so a device need
            // not hold the texts.
            let reason = if R::IS_CLIENT { "" } else { error.as_str() };
            self.put_close(tx, Some(error.code()), reason);
        }
        self.phase = Phase::Over(CloseCause::Failed(error.code()));
    }

    /// Drops what the last poll handed out.
    fn drop_event(&mut self, rx: &mut RxBuf<'_>) {
        match core::mem::replace(&mut self.handed_out, HandedOut::Nothing) {
            HandedOut::Nothing => {}
            HandedOut::Message => {
                rx.release_all();
                self.end_message();
            }
            HandedOut::Chunk { last } => {
                rx.release(rx.kept_len().saturating_sub(usize::from(self.tail)));
                self.begun = true;
                if last {
                    self.end_message();
                }
            }
            HandedOut::Control(size) => rx.skip(usize::from(size)),
        }
    }

    /// How the current message is encoded: known without the feature.
    fn inflating(&self) -> Inflating {
        if cfg!(feature = "deflate") { self.inflating } else { Inflating::No }
    }

    fn end_message(&mut self) {
        self.message = None;
        self.receiving = Receiving::Header;
        self.inflating = Inflating::No;
        self.begun = false;
    }
}
