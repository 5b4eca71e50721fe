//! Moves the bytes of one connection: reads, writes, and wakes for its deadlines.
//!
//! Everything here is a `poll_*` that may be called again after any `Pending`, by the same future or by another:
//! what has happened so far is in the driver and in the receive buffer, never in a future. That is why dropping a
//! future loses nothing.

mod send;

pub(super) use self::send::{BY_REFERENCE, CLOSE_ROOM};
use self::send::{Outgoing, next_out};
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
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};

/// The bit of an opcode that says that it is a control frame's (RFC 6455 section 5.2).
const CONTROL: u8 = 0x08;

/// Control frames that a turn looks at before it lets other tasks run.
const CONTROL_BUDGET: usize = 64;

/// Bytes that are gathered of what is sent while messages are there to be worked off.
const GATHERED: usize = 32 << 10;

/// How long what is sent is held back, and then until there is another call.
const HELD: Duration = Duration::from_millis(1);

/// Reads of a peer that was given up before a turn lets other tasks run.
const READ_BUDGET: usize = 64;

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

#[derive(Debug)]
enum State {
    /// From the opening handshake until the core says that it is over.
    Running,
    /// Nothing more will come: what waits is written, and the stream shut down, until the deadline.
    Ending {
        cause: CloseCause,
        error: Option<Box<Error>>,
        deadline: Instant,
        shut: bool,
    },
    Over(CloseCause),
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

    /// How the connection ended, once it has.
    pub(super) fn close_cause(&self) -> Option<CloseCause> {
        match self.state {
            State::Running => None,
            State::Ending { cause, .. } | State::Over(cause) => Some(cause),
        }
    }

    /// The connection is over in the core's eyes.
    pub(super) fn end(&mut self, cause: CloseCause, error: Option<Error>) {
        let now = self.clock.now();
        let patience = match cause {
            CloseCause::Clean | CloseCause::Failed(_) => self.config.protocol.close_timeout,
            // There is nobody to wait for.
            CloseCause::Timeout | CloseCause::EndOfStream => Duration::ZERO,
        };
        let error = match cause {
            CloseCause::Clean => error,
            _ => error.or_else(|| self.write_error.take().map(Error::Io)).or(Some(Error::Closed(cause))),
        };
        self.lost |= self.outgoing.is_some();
        (self.outgoing, self.close_next) = (None, None);
        let error = error.map(Box::new);
        self.state = State::Ending { cause, error, deadline: now.after(patience), shut: false };
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

    /// Writes what waits. An error is kept for later: what the peer said before it went away can still be read.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.write_error.is_some() {
            self.drop_output();
            return Poll::Ready(());
        }
        match self.try_write(cx) {
            Poll::Ready(Ok(())) => {
                self.stalled = None;
                self.tx.clear();
                Poll::Ready(())
            }
            Poll::Ready(Err(error)) => {
                self.write_error = Some(error);
                self.stalled = Some(self.clock.now());
                self.drop_output();
                Poll::Ready(())
            }
            Poll::Pending => {
                self.stalled.get_or_insert(self.clock.now());
                self.tx.park();
                Poll::Pending
            }
        }
    }

    fn drop_output(&mut self) {
        self.lost |= !self.tx.is_idle() || self.outgoing.is_some();
        self.tx.clear();
        (self.outgoing, self.close_next) = (None, None);
        self.unflushed = false;
    }

    fn try_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.pump();
            let out = next_out(&self.tx, self.outgoing.as_deref()).map(IoSlice::new);
            let written = match &out {
                [one, two, three] if two.is_empty() && three.is_empty() => {
                    if one.is_empty() {
                        break;
                    }
                    Pin::new(&mut self.stream).poll_write(cx, one)
                }
                many => Pin::new(&mut self.stream).poll_write_vectored(cx, many),
            };
            let n = ready!(written)?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.went_out(n);
            self.unflushed = true;
            self.stalled = None;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the next message can be taken.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.check_open()?;
        if self.outgoing.is_none() {
            return Poll::Ready(Ok(()));
        }
        match self.poll_flush(cx) {
            // Written as far as it goes, but the slot is free.
            Poll::Pending if self.outgoing.is_none() => Poll::Ready(Ok(())),
            flushed => flushed,
        }
    }

    /// Whether what was taken may wait for more: its user has another message to come back for, and is quick about it.
    pub(super) fn may_wait(&mut self) -> bool {
        self.answered = true;
        let fits = self.more && self.outgoing.is_none() && self.tx.lend().pending().len() < GATHERED;
        fits && !self.was_held()
    }

    /// Whether it is long enough since something was read, or since this was so for the last time.
    fn was_held(&mut self) -> bool {
        let now = self.clock.now();
        let long = now.since(self.now) > HELD;
        if long {
            self.now = now;
        }
        long
    }

    /// Ready when everything that was taken is written, or cannot be any more.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            if self.poll_write(cx).is_ready() {
                return Poll::Ready(match self.write_error.take() {
                    None if self.lost => Err(self.close_cause().map_or(Error::Closing, Error::Closed)),
                    None => Ok(()),
                    Some(error) => {
                        self.write_error = Some(error.kind().into());
                        Err(Error::Io(error))
                    }
                });
            }
            let Some(deadline) = self.stall_deadline() else { return Poll::Pending };
            if self.clock.now() >= deadline {
                self.end(CloseCause::Timeout, Some(Error::Timeout(Timeout::Write)));
                return Poll::Ready(Err(Error::Timeout(Timeout::Write)));
            }
            ready!(self.poll_timer(cx, deadline));
        }
    }

    /// The end of the stream, in order and bounded by a deadline: what waits is written, the stream is shut down, and
    /// after an error of the peer's its bytes are read and dropped until it has read our Close (RFC 6455 section 7.1.1;
    /// a socket that is closed with unread input resets the connection, and the Close is lost).
    pub(super) fn poll_end(
        &mut self,
        cx: &mut Context<'_>,
        rx: &mut Rx,
    ) -> Poll<Option<Result<Found, Error>>> {
        let State::Ending { cause, deadline, .. } = self.state else { return Poll::Ready(None) };
        if self.clock.now() < deadline {
            if self.poll_goodbye(cx).is_pending() && self.poll_timer(cx, deadline).is_pending() {
                return Poll::Pending;
            }
        } else {
            // One try, without waiting.
            let _ = self.poll_goodbye(cx);
        }
        let over = std::mem::replace(&mut self.state, State::Over(cause));
        self.drop_output();
        rx.lend().skip(usize::MAX);
        rx.lend().release(usize::MAX);
        rx.release();
        self.timer = Timer::Own(None);
        self.codec = Codec::default();
        match over {
            State::Ending { error: Some(error), .. } => Poll::Ready(Some(Err(*error))),
            _ => Poll::Ready(None),
        }
    }

    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_write(cx));
        let State::Ending { cause, shut, .. } = &mut self.state else { return Poll::Ready(()) };
        if !*shut {
            let result = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
            *shut = true;
            if result.is_err() {
                return Poll::Ready(());
            }
        }
        if !matches!(cause, CloseCause::Failed(_)) || self.write_error.is_some() {
            return Poll::Ready(());
        }
        let mut bytes = [0; 1024];
        for _ in 0..READ_BUDGET {
            let mut space = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space)) {
                Ok(()) if !space.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
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

    /// The closing handshake, and the end of the stream. Messages that still come are dropped.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, rx: &mut Rx) -> Poll<Result<(), Error>> {
        for _ in 0..CONTROL_BUDGET {
            match ready!(self.poll_found(cx, rx)) {
                None => {
                    return Poll::Ready(match self.close_cause() {
                        Some(CloseCause::Clean) | None => Ok(()),
                        Some(cause) => Err(Error::Closed(cause)),
                    });
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
