//! How a connection ends: in order, bounded by a deadline, and told once.

use super::{CONTROL_BUDGET, Driver, Timer};
use crate::websocket::Error;
use crate::websocket::buffers::Rx;
use crate::websocket::deflate::Codec;
use longwire_core::time::Instant;
use longwire_core::ws::{CloseCause, Found};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Reads of a peer that was given up before a turn lets other tasks run.
const READ_BUDGET: usize = 64;

#[derive(Debug)]
pub(super) enum State {
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

impl<S> Driver<S> {
    /// How the connection ended, once it has.
    pub(in crate::websocket) fn close_cause(&self) -> Option<CloseCause> {
        match self.state {
            State::Running => None,
            State::Ending { cause, .. } | State::Over(cause) => Some(cause),
        }
    }

    /// The connection is over in the core's eyes.
    pub(in crate::websocket) fn end(&mut self, cause: CloseCause, error: Option<Error>) {
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
    /// The end of the stream, in order and bounded by a deadline: what waits is written, the stream is shut down, and
    /// after an error of the peer's its bytes are read and dropped until it has read our Close (RFC 6455 section 7.1.1;
    /// a socket that is closed with unread input resets the connection, and the Close is lost).
    pub(in crate::websocket) fn poll_end(
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

    /// The closing handshake, and the end of the stream. Messages that still come are dropped.
    pub(in crate::websocket) fn poll_close(
        &mut self,
        cx: &mut Context<'_>,
        rx: &mut Rx,
    ) -> Poll<Result<(), Error>> {
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
