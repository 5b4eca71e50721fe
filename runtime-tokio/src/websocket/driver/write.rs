//! What waits is written: at once, or gathered with what follows; and a socket that takes nothing is noticed.

use super::Driver;
use super::send::next_out;
use crate::websocket::{Error, Timeout};
use longwire_core::ws::CloseCause;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes that are gathered of what is sent while messages are there to be worked off.
const GATHERED: usize = 32 << 10;

/// How long what is sent is held back, and then until there is another call.
const HELD: Duration = Duration::from_millis(1);

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Writes what waits. An error is kept for later: what the peer said before it went away can still be read.
    pub(in crate::websocket) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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

    pub(super) fn drop_output(&mut self) {
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
    pub(in crate::websocket) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
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
    pub(in crate::websocket) fn may_wait(&mut self) -> bool {
        self.answered = true;
        let fits = self.more && self.outgoing.is_none() && self.tx.lend().pending().len() < GATHERED;
        fits && !self.was_held()
    }

    /// Whether it is long enough since something was read, or since this was so for the last time.
    pub(super) fn was_held(&mut self) -> bool {
        let now = self.clock.now();
        let long = now.since(self.now) > HELD;
        if long {
            self.now = now;
        }
        long
    }

    /// Ready when everything that was taken is written, or cannot be any more.
    pub(in crate::websocket) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
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
}
