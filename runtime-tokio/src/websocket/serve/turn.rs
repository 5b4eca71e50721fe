//! A turn of a connection that is served. It is synchronous, and holds none of the thread's buffers when it ends:
//! 0. what did not go out before is written; until it is, nothing more is read;
//! 1. what was pushed from elsewhere is sent;
//! 2. an answer that was put off is waited for;
//! 3. what came in is worked off, message by message, and more is read until there is nothing;
//! 4. what was sent meanwhile is written, at once;
//! 5. what is due (heartbeat, timeouts) is done.

use super::output::{Outlet, Output, Socket};
use super::{Handler, Serve};
use crate::websocket::driver::Driver;
use crate::websocket::{CloseCause, CloseCode, Config, Error, Event, MessageRef, pool};
use longwire_core::buf::{Io, TxBuf, TxCursor};
use longwire_core::ws::{ProtocolError, Step};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes of the messages that are handed out in a turn, or taken out of the queue, and then the rest of the message that
/// exceeds them: what was read may inflate to a thousand times as much.
const BYTES: usize = 1 << 20;

/// Reads in a turn: 1 MiB at most, but for what is still missing of a large message.
const READS: usize = 16;

/// Why messages are no longer handed out.
enum Stop {
    NeedInput,
    NeedSpace(usize),
    NeedFlush,
    /// The socket takes no more, an answer was put off, or something has a deadline: see what is next.
    Again,
    /// There is more to do, but others want their turn, too.
    Enough,
    Waiting,
    Closed(CloseCause),
    Failed(ProtocolError),
    Refused(Error),
}

/// What a turn came to.
pub(super) enum Turn {
    /// Something wakes for the next one.
    Waiting,
    /// There is more to do, but others want their turn, too.
    More,
    Over(Result<CloseCause, Error>),
}

/// What a turn may still do.
struct Budget {
    messages: usize,
    bytes: usize,
    reads: usize,
}

impl Budget {
    fn new(config: &Config) -> Self {
        Self { messages: config.turn_messages.max(1), bytes: BYTES, reads: READS }
    }

    /// A message of that length is handed out, or sent.
    fn charge(&mut self, len: usize) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(len);
    }

    fn is_spent(&self) -> bool {
        self.messages == 0 || self.bytes == 0
    }
}

/// A turn's output.
struct Out {
    bytes: Vec<u8>,
    at: TxCursor,
}

impl<S: AsyncRead + AsyncWrite + Unpin, H: Handler> Serve<S, H> {
    pub(super) fn take_turn(&mut self, cx: &mut Context<'_>) -> Turn {
        // Of its own: whoever pushes without end does not keep the peer from being heard.
        let mut pushes = Budget::new(&self.driver.config);
        match self.work(cx, &mut pushes) {
            // What the socket does not take it wakes for.
            Turn::Waiting if pushes.is_spent() && self.driver.is_flushed() => Turn::More,
            turn => turn,
        }
    }

    fn work(&mut self, cx: &mut Context<'_>, pushes: &mut Budget) -> Turn {
        let mut budget = Budget::new(&self.driver.config);
        if !self.opened {
            self.opened = true;
            self.call(cx, |handler, out| handler.opened(out));
        }
        loop {
            if !self.driver.is_running() {
                return match self.poll_over(cx) {
                    Poll::Ready(result) => Turn::Over(result),
                    Poll::Pending => Turn::Waiting,
                };
            }
            // Once closing, deadlines count even while input keeps coming.
            if !self.driver.endpoint.is_open() && self.driver.handle_deadline(&mut self.rx) {
                continue;
            }
            if !self.driver.is_flushed() && self.driver.poll_write(cx).is_pending() {
                if self.poll_unread(cx).is_pending() {
                    return Turn::Waiting;
                }
                continue;
            }
            if budget.is_spent() {
                self.rx.park();
                return Turn::More;
            }
            if self.take_pushed(cx, pushes) {
                continue;
            }
            if let Some(answering) = &mut self.answering {
                match answering.as_mut().poll(cx) {
                    // What was pushed before is older: the answer waits in its own place until that is sent.
                    Poll::Ready(answer) if self.pushed.as_ref().is_some_and(|pushed| !pushed.is_empty()) => {
                        self.answering = Some(Box::pin(std::future::ready(answer)));
                        if !self.take_pushed(cx, pushes) {
                            // Not in this turn: others want theirs.
                            self.rx.park();
                            return Turn::More;
                        }
                    }
                    Poll::Ready(answer) => {
                        self.answering = None;
                        if let Some(message) = answer {
                            self.call(cx, |_, out| out.send(&message));
                        }
                    }
                    Poll::Pending if self.poll_unread(cx).is_pending() => return Turn::Waiting,
                    Poll::Pending => {}
                }
                continue;
            }
            match self.receive(cx, &mut budget) {
                Stop::Waiting if self.driver.is_flushed() => {
                    if self.poll_deadline(cx, budget.reads < READS).is_pending() {
                        return Turn::Waiting;
                    }
                }
                Stop::Enough => {
                    self.rx.park();
                    return Turn::More;
                }
                stop => self.end(stop),
            }
        }
    }

    /// The end of the stream, in order.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Result<CloseCause, Error>> {
        self.answering = None;
        self.pushed = None;
        self.found = None;
        let result = match ready!(self.driver.poll_end(cx, &mut self.rx)) {
            Some(Err(error)) => Err(error),
            _ => Ok(self.driver.close_cause().unwrap_or(CloseCause::Clean)),
        };
        self.handler.closed(&result);
        Poll::Ready(result)
    }

    fn end(&mut self, stop: Stop) {
        match stop {
            Stop::Closed(cause) => self.driver.end(cause, None),
            Stop::Failed(error) => {
                self.driver.end(CloseCause::Failed(error.code()), Some(Error::Protocol(error)));
            }
            Stop::Refused(error) => self.fail(error),
            _ => {}
        }
    }

    /// The handler gave the connection up.
    fn fail(&mut self, error: Error) {
        self.driver.start_close(CloseCode::INTERNAL, "");
        self.driver.end(CloseCause::Failed(CloseCode::INTERNAL), Some(error));
    }

    /// Everything is done, up to the next deadline. Ready when that has come and was dealt with.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, fresh: bool) -> Poll<()> {
        if !fresh {
            self.driver.now = self.driver.clock.now();
        }
        loop {
            let Some(deadline) = self.driver.deadline() else { return Poll::Pending };
            if deadline > self.driver.now {
                ready!(self.driver.poll_timer(cx, deadline));
            }
            if self.driver.handle_deadline(&mut self.rx) {
                return Poll::Ready(());
            }
        }
    }

    /// Calls the handler for something that was not received.
    fn call(
        &mut self,
        cx: &mut Context<'_>,
        call: impl FnOnce(&mut H, &mut Output<'_>) -> Result<(), Error>,
    ) {
        let mut out = Out { bytes: pool::take(), at: TxCursor::default() };
        let Self { driver, handler, answering, .. } = self;
        let Driver { stream, endpoint, codec, config, tx: overflow, unflushed, write_error, now, .. } =
            driver;
        let outlet = &mut Socket { stream, cx, overflow, wrote: unflushed, error: write_error };
        let tx = TxBuf::new(&mut out.bytes, &mut out.at);
        let result = call(
            handler,
            &mut Output { endpoint, codec, config, tx, outlet, answering, now: *now, slow: false },
        );
        self.flush(cx, &mut out);
        pool::give(out.bytes);
        match result {
            Ok(()) | Err(Error::Closing) => {}
            Err(error) => self.fail(error),
        }
    }

    /// Sends what was pushed, as long as the socket takes it; false when there is nothing.
    fn take_pushed(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> bool {
        if budget.is_spent() {
            return false;
        }
        let Some(mut pushed) = self.pushed.take() else { return false };
        let mut next = pushed.poll_next(cx);
        if let Poll::Ready(None) = next {
            return false;
        }
        let came = next.is_ready();
        if came {
            let waker = cx.waker().clone();
            self.call(cx, |_, out| {
                while let Poll::Ready(Some(message)) = next {
                    budget.charge(message.as_bytes().len());
                    match out.send(&message) {
                        // It was the one too many: it is the next when all else is written.
                        Err(Error::Full) => {
                            pushed.held = Some(message);
                            break;
                        }
                        sent => sent?,
                    }
                    if out.outlet.is_blocked() || budget.is_spent() {
                        break;
                    }
                    next = pushed.poll_next(&mut Context::from_waker(&waker));
                }
                Ok(())
            });
        }
        self.pushed = Some(pushed);
        came
    }

    /// Steps 3 and 4.
    fn receive(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Stop {
        let mut out = Out { bytes: pool::take(), at: TxCursor::default() };
        let stop = loop {
            // Nothing is held, so there is nothing to look at before something was read.
            let idle = self.rx.is_idle() && self.found.is_none();
            match if idle { Stop::NeedInput } else { self.hand_out(cx, &mut out, budget) } {
                Stop::NeedInput if budget.reads == 0 => break Stop::Enough,
                Stop::NeedInput => {
                    let driver = &mut self.driver;
                    match self.rx.poll_read(cx, &mut driver.stream, driver.config.max_read) {
                        Poll::Ready(read) => driver.heard(read),
                        Poll::Pending => break Stop::Waiting,
                    }
                    budget.reads -= 1;
                    if !driver.is_running() || !driver.endpoint.is_open() {
                        break Stop::Again;
                    }
                }
                Stop::NeedSpace(len) => self.rx.grow(len),
                Stop::NeedFlush => {
                    self.flush(cx, &mut out);
                    if !self.driver.is_flushed() {
                        break Stop::Again;
                    }
                }
                stop => break stop,
            }
        };
        self.flush(cx, &mut out);
        pool::give(out.bytes);
        stop
    }

    /// Writes a turn's output; what the socket does not take is the connection's from then on.
    fn flush(&mut self, cx: &mut Context<'_>, out: &mut Out) {
        let driver = &mut self.driver;
        if !out.at.is_idle() {
            let Driver { stream, tx: overflow, unflushed, write_error: error, .. } = driver;
            let mut socket = Socket { stream, cx, overflow, wrote: unflushed, error };
            socket.write(&mut TxBuf::new(&mut out.bytes, &mut out.at), &[], &[]);
        }
        if !driver.is_flushed() {
            // Pending or failed: either has its deadline.
            let _ = driver.poll_write(cx);
        }
    }

    /// Hands out what was received.
    fn hand_out(&mut self, cx: &mut Context<'_>, out: &mut Out, budget: &mut Budget) -> Stop {
        let Self { driver, rx, handler, found, answering, .. } = self;
        let Driver { stream, endpoint, codec, config, tx: overflow, unflushed, write_error, now, .. } =
            driver;
        let outlet = &mut Socket { stream, cx, overflow, wrote: unflushed, error: write_error };
        let tx = TxBuf::new(&mut out.bytes, &mut out.at);
        let deflated = endpoint.deflate().is_some();
        let mut rx = rx.lend();
        let mut out = Output { endpoint, codec, config, tx, outlet, answering, now: *now, slow: false };
        loop {
            let next = match found.take() {
                Some(found) => found,
                None => {
                    let mut io = Io::new(rx.reborrow(), out.tx.reborrow());
                    if deflated {
                        io = io.with_inflate(out.codec);
                    }
                    match out.endpoint.poll(out.now, &mut io) {
                        Ok(Step::Event(found)) => found,
                        Ok(Step::NeedInput) => return Stop::NeedInput,
                        Ok(Step::NeedSpace(len)) => return Stop::NeedSpace(len),
                        Ok(Step::NeedFlush) => return Stop::NeedFlush,
                        Ok(Step::Closed(cause)) => return Stop::Closed(cause),
                        Err(error) => return Stop::Failed(error),
                    }
                }
            };
            let event = next.event(rx.reborrow());
            budget.charge(match &event {
                Event::Text(text) => text.as_bytes().len(),
                Event::Binary(data) => data.len(),
                Event::Chunk(chunk) => chunk.payload.len(),
                _ => 0,
            });
            let result = match event {
                Event::Text(text) => handler.message(MessageRef::Text(text), &mut out),
                Event::Binary(data) => handler.message(MessageRef::Binary(data), &mut out),
                event => handler.event(event, &mut out),
            };
            match result {
                Ok(()) | Err(Error::Closing) => {}
                Err(error) => return Stop::Refused(error),
            }
            if out.slow && (out.answering.is_some() || out.outlet.is_blocked()) {
                return Stop::Again;
            }
            if budget.is_spent() {
                return Stop::Enough;
            }
        }
    }

    /// Ready when a deadline has come while input is left where it is. Before the peer's silence is judged, it is heard
    /// what it said; once a message waits for its turn, there is nothing to judge.
    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.rx.park();
        loop {
            let judges = self.found.is_none() || !self.driver.endpoint.is_open();
            let deadline = if judges { self.driver.deadline() } else { self.driver.stall_deadline() };
            let Some(deadline) = deadline else { return Poll::Pending };
            if self.driver.clock.now() < deadline {
                ready!(self.driver.poll_timer(cx, deadline));
            }
            if !(self.found.is_none() && self.listen(cx)) && self.driver.handle_deadline(&mut self.rx) {
                return Poll::Ready(());
            }
            if !self.driver.is_running() {
                return Poll::Ready(());
            }
        }
    }

    /// Looks for the next event, in what is held or else in one read; it waits for its turn. False when nothing came.
    fn listen(&mut self, cx: &mut Context<'_>) -> bool {
        let driver = &mut self.driver;
        let mut came = false;
        while driver.is_running() {
            match driver.step(&mut self.rx) {
                Ok(Step::Event(found)) => {
                    self.found = Some(found);
                    came = true;
                    break;
                }
                Ok(Step::NeedSpace(len)) => self.rx.grow(len),
                Ok(Step::NeedInput) if !came => {
                    match self.rx.poll_read(cx, &mut driver.stream, driver.config.max_read) {
                        Poll::Ready(read) => driver.heard(read),
                        Poll::Pending => return false,
                    }
                    came = true;
                }
                Ok(Step::NeedInput | Step::NeedFlush) => break,
                Ok(Step::Closed(cause)) => driver.end(cause, None),
                Err(error) => {
                    driver.end(CloseCause::Failed(error.code()), Some(Error::Protocol(error)));
                }
            }
        }
        self.rx.park();
        came
    }
}
