//! Moves the bytes of one connection: reads, writes, and wakes for its deadlines.
//!
//! Everything here is a `poll_*` that may be called again after any `Pending`, by the same future or by another:
//! what has happened so far is in the driver and in the receive buffer, never in a future. That is why dropping a
//! future loses nothing.

mod end;
mod send;
mod write;

use self::end::State;
use self::send::Outgoing;
pub(super) use self::send::{BY_REFERENCE, CLOSE_ROOM};
use super::buffers::{Rx, Tx};
use super::config::{Config, Rules};
use super::deflate::Codec;
use super::endpoint::{Endpoint, Role};
use super::{Error, Message, Timeout};
use crate::clock::Clock;
use longwire_core::buf::Io;
use longwire_core::time::Instant;
use longwire_core::ws::deflate::Agreed;
use longwire_core::ws::{CloseCause, CloseCode, Event, Found, FrameHeader, MIN_TX, ProtocolError, Step};
use std::fmt;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Sleep, sleep_until};

/// The bit of an opcode that says that it is a control frame's (RFC 6455 section 5.2).
const CONTROL: u8 = 0x08;

/// Control frames that a turn looks at before it lets other tasks run.
const CONTROL_BUDGET: usize = 64;

pub(super) struct Driver<S> {
    pub(super) stream: S,
    pub(super) endpoint: Endpoint,
    pub(super) config: Arc<Config>,
    pub(super) codec: Codec,
    pub(super) tx: Tx,
    /// A message that was taken, as far as it is not in `tx` yet.
    outgoing: Option<Box<Outgoing>>,
    /// The Close that follows it.
    close_next: Option<Box<(CloseCode, String)>>,
    /// Something that was taken will never be written.
    lost: bool,
    /// Behind the message that was handed out last there is another one already.
    more: bool,
    /// Something was sent since that.
    answered: bool,
    /// Bytes were written since the stream was last flushed (a TLS stream holds them back).
    pub(super) unflushed: bool,
    /// Since when the socket has taken nothing.
    stalled: Option<Instant>,
    /// Writing failed; the peer's last words may still be there to be read.
    pub(super) write_error: Option<io::Error>,
    state: State,
    pub(super) clock: Clock,
    /// When something was last read, or a deadline looked at: the clock is not asked for each message.
    pub(super) now: Instant,
    pub(super) timer: Timer,
}

/// What wakes for a deadline.
#[derive(Debug)]
pub(super) enum Timer {
    /// Its own, from the first deadline on.
    Own(Option<Pin<Box<Sleep>>>),
    /// Somebody who asks after each turn when the next one has to be, for many connections.
    Elsewhere(Option<Instant>),
}

/// Whether a whole frame stands at the front.
fn begins_with_frame(unread: &[u8]) -> bool {
    match FrameHeader::parse(unread) {
        Ok(Some((header, size))) => unread.len().saturating_sub(size) as u64 >= header.len,
        _ => false,
    }
}

impl<S> fmt::Debug for Driver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("role", &self.endpoint.role()).field("state", &self.state).finish()
    }
}

impl<S> Driver<S> {
    pub(super) fn new(stream: S, role: Role, config: Arc<Config>) -> Self {
        let clock = Clock::start();
        Self {
            stream,
            endpoint: Endpoint::new(role, Rules(config.clone()), clock.now()),
            config,
            codec: Codec::default(),
            tx: Tx::default(),
            outgoing: None,
            close_next: None,
            lost: false,
            more: false,
            answered: false,
            unflushed: false,
            stalled: None,
            write_error: None,
            state: State::Running,
            now: clock.now(),
            clock,
            timer: Timer::Own(None),
        }
    }

    /// The same connection over another stream; `None` when there is none.
    #[cfg(unix)]
    pub(super) fn map_stream<T>(self, map: impl FnOnce(S) -> Option<T>) -> Option<Driver<T>> {
        Some(Driver {
            stream: map(self.stream)?,
            endpoint: self.endpoint,
            config: self.config,
            codec: self.codec,
            tx: self.tx,
            outgoing: self.outgoing,
            close_next: self.close_next,
            lost: self.lost,
            more: self.more,
            answered: self.answered,
            unflushed: self.unflushed,
            stalled: self.stalled,
            write_error: self.write_error,
            state: self.state,
            clock: self.clock,
            now: self.now,
            timer: self.timer,
        })
    }

    pub(super) fn into_stream(self) -> S {
        self.stream
    }

    /// Before the first frame: permessage-deflate was agreed on.
    pub(super) fn set_deflate(&mut self, agreed: Agreed) {
        let rules = Rules(self.config.clone());
        self.endpoint = Endpoint::new(self.role(), rules, self.clock.now()).with_deflate(agreed);
        self.codec = Codec::new(Some(agreed));
    }

    pub(super) fn deflate(&self) -> Option<Agreed> {
        self.endpoint.deflate()
    }

    pub(super) fn role(&self) -> Role {
        self.endpoint.role()
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.endpoint.rtt()
    }

    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }

    #[cfg(test)]
    pub(super) fn send_capacity(&mut self) -> usize {
        self.tx.lend().capacity()
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, State::Running)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// The next event, which then lies in `rx`; `None` when the connection has ended with a closing handshake. The
    /// error that ended it is reported once, then `None`.
    pub(super) fn poll_found(
        &mut self,
        cx: &mut Context<'_>,
        rx: &mut Rx,
    ) -> Poll<Option<Result<Found, Error>>> {
        self.more = false;
        // Whoever sends looks at the clock then.
        let answered = std::mem::take(&mut self.answered);
        if !answered && !self.tx.is_idle() && self.was_held() {
            let _ = self.poll_write(cx);
        }
        loop {
            if !matches!(self.state, State::Running) {
                return self.poll_end(cx, rx);
            }
            // Once closing, deadlines count even while input keeps coming.
            if !self.endpoint.is_open() && self.handle_deadline(rx) {
                continue;
            }
            match self.step(rx) {
                Ok(Step::Event(found)) => {
                    // An answer does not wait for the application to come back; messages are batched until then.
                    match found.event(rx.lend()) {
                        Event::Ping(_) | Event::Close(_) => _ = self.poll_write(cx),
                        Event::Text(_) | Event::Binary(_) => {
                            self.more = begins_with_frame(rx.lend().unread())
                        }
                        Event::Pong(_) | Event::Chunk(_) => {}
                    }
                    // Its user may keep it waiting.
                    if self.tx.is_idle() {
                        self.tx.clear();
                    }
                    return Poll::Ready(Some(Ok(found)));
                }
                Ok(Step::NeedInput) => ready!(self.poll_input(cx, rx)),
                Ok(Step::NeedSpace(len)) => rx.grow(len),
                Ok(Step::NeedFlush) => {
                    if self.poll_write(cx).is_pending() {
                        ready!(self.poll_deadline(cx, rx));
                    }
                }
                Ok(Step::Closed(cause)) => self.end(cause, None),
                Err(error) => self.end(CloseCause::Failed(error.code()), Some(Error::Protocol(error))),
            }
        }
    }

    /// One poll of the core, with room for what it may answer.
    pub(super) fn step(&mut self, rx: &mut Rx) -> Result<Step, ProtocolError> {
        if !rx.is_idle() {
            self.reserve(MIN_TX.saturating_mul(2).saturating_add(self.config.protocol.reply_room));
        }
        if rx.lend().unread().first().is_some_and(|first| first & CONTROL != 0) {
            // What follows from a control frame has a deadline, or is a measurement.
            self.now = self.clock.now();
        }
        let mut io = Io::new(rx.lend(), self.tx.lend()).with_inflate(&mut self.codec);
        self.endpoint.poll(self.now, &mut io)
    }

    /// Everything that came is worked off: writes what waits, then reads, or sleeps until a deadline. Ready when the
    /// core should be asked again.
    fn poll_input(&mut self, cx: &mut Context<'_>, rx: &mut Rx) -> Poll<()> {
        // Pending or failed: reading goes on; both have their deadlines.
        let _ = self.poll_write(cx);
        let read = rx.poll_read(cx, &mut self.stream, self.config.max_read);
        if read.is_ready() {
            rx.settle();
        }
        match read {
            Poll::Ready(read) => {
                self.heard(read);
                Poll::Ready(())
            }
            Poll::Pending => self.poll_deadline(cx, rx),
        }
    }

    /// Something was read, or nothing more will be.
    pub(super) fn heard(&mut self, read: io::Result<usize>) {
        let error = match read {
            Ok(1..) => {
                self.now = self.clock.now();
                return;
            }
            Ok(0) => None,
            Err(error) => Some(Error::Io(error)),
        };
        // After both Close frames it does not matter how the stream ends (RFC 6455 section 7.1.1).
        if let Step::Closed(cause) = self.endpoint.handle_eof() {
            self.end(cause, error.filter(|_| cause != CloseCause::Clean));
        }
    }

    /// Ready when a deadline has come and was dealt with.
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>, rx: &mut Rx) -> Poll<()> {
        loop {
            if self.handle_deadline(rx) {
                return Poll::Ready(());
            }
            match self.deadline() {
                Some(deadline) => ready!(self.poll_timer(cx, deadline)),
                None => return Poll::Pending,
            }
        }
    }

    /// Does what is due; false when nothing is.
    pub(super) fn handle_deadline(&mut self, rx: &mut Rx) -> bool {
        let now = self.clock.now();
        self.now = now;
        if self.stall_deadline().is_some_and(|deadline| now >= deadline) {
            match self.write_error.take() {
                Some(error) => self.end(CloseCause::EndOfStream, Some(Error::Io(error))),
                None => self.end(CloseCause::Timeout, Some(Error::Timeout(Timeout::Write))),
            }
            return true;
        }
        if self.endpoint.poll_timeout().is_none_or(|deadline| now < deadline) {
            return false;
        }
        self.reserve(CLOSE_ROOM);
        self.codec.rest();
        let mut io = Io::new(rx.lend(), self.tx.lend());
        if let Step::Closed(cause) = self.endpoint.handle_timeout(now, &mut io) {
            self.end(cause, None);
        }
        true
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.endpoint.poll_timeout().into_iter().chain(self.stall_deadline()).min()
    }

    /// When a peer that takes nothing is given up. After a write error it is the time for its last words.
    pub(super) fn stall_deadline(&self) -> Option<Instant> {
        let patience = match self.write_error {
            Some(_) => Some(self.config.protocol.close_timeout),
            None => self.config.write_timeout,
        };
        Some(self.stalled?.after(patience?))
    }

    /// Ready when `deadline` has come.
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let at = self.clock.at(deadline);
        let sleep = match &mut self.timer {
            Timer::Own(sleep) => sleep.get_or_insert_with(|| Box::pin(sleep_until(at))),
            Timer::Elsewhere(alarm) => {
                // Whoever asks has looked at the clock.
                *alarm = Some(deadline);
                return Poll::Pending;
            }
        };
        loop {
            // One that would fire too early is left alone: most deadlines move on before they come.
            if sleep.deadline() > at {
                sleep.as_mut().reset(at);
            }
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }

    /// The next data message, owned; control frames are dealt with and passed over.
    pub(super) fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
        rx: &mut Rx,
    ) -> Poll<Option<Result<Message, Error>>> {
        for _ in 0..CONTROL_BUDGET {
            let Some(found) = ready!(self.poll_found(cx, rx)?) else { return Poll::Ready(None) };
            if let Event::Binary(_) = found.event(rx.lend())
                && let Some(data) = rx.take_kept()
            {
                return Poll::Ready(Some(Ok(Message::Binary(data))));
            }
            let event = found.event(rx.lend());
            if let Some(message) = Message::from_event(&event) {
                return Poll::Ready(Some(Ok(message)));
            }
            if matches!(event, Event::Chunk(_)) {
                return Poll::Ready(Some(Err(Error::Chunks)));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
