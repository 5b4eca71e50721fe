//! What a handler answers with.

use super::Answering;
use crate::websocket::buffers::Tx;
use crate::websocket::deflate::Codec;
use crate::websocket::driver::{BY_REFERENCE, CLOSE_ROOM};
use crate::websocket::endpoint::Endpoint;
use crate::websocket::{CloseCode, Config, Error, Message, MessageRef};
use longwire_core::buf::TxBuf;
use longwire_core::time::Instant;
use longwire_core::ws::{Kind, SendError};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

/// What a [`Handler`](super::Handler) sends with, for the time of a call.
///
/// What it is given waits in a buffer of the thread's and goes out when the turn ends, all in one write; a payload of
/// 16 KiB and more goes out at once, with what waits before it, from where it lies.
///
/// When the socket takes no more, the rest is copied, up to [`Config::max_send_buffer`] and the message that goes
/// beyond it. The next message is not handed out until all of that is written.
pub struct Output<'t> {
    pub(super) endpoint: &'t mut Endpoint,
    pub(super) codec: &'t mut Codec,
    pub(super) config: &'t Config,
    pub(super) tx: TxBuf<'t>,
    pub(super) outlet: &'t mut dyn Outlet,
    pub(super) answering: &'t mut Option<Answering>,
    pub(super) now: Instant,
    /// Something other than the buffer of the turn was asked for.
    pub(super) slow: bool,
}

impl std::fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("waits", &self.tx.pending().len()).finish_non_exhaustive()
    }
}

impl Output<'_> {
    /// Sends a message.
    ///
    /// # Errors
    /// [`Error::Closing`]: one of the ends has begun to close. [`Error::Full`]: the peer does not take what it is sent,
    /// and more waits for it already than [`Config::max_send_buffer`] allows. The message is not sent then.
    #[inline]
    pub fn send<'m>(&mut self, message: impl Into<MessageRef<'m>>) -> Result<(), Error> {
        let (kind, data) = message.into().parts();
        if data.len() < BY_REFERENCE && self.endpoint.deflate().is_none() {
            match self.endpoint.send(&mut self.tx, kind, data) {
                Err(SendError::Full) => {}
                sent => return sent.map_err(|_| Error::Closing),
            }
        }
        self.send_slowly(kind, data)
    }

    /// What is compressed, large, or has no room in the thread's buffer.
    #[inline(never)]
    fn send_slowly(&mut self, kind: Kind, data: &[u8]) -> Result<(), Error> {
        self.slow = true;
        let deflated = self.endpoint.deflate().is_some()
            && self.config.deflate.is_some_and(|deflate| data.len() >= deflate.threshold);
        if !self.outlet.is_blocked() {
            if let Endpoint::Server(connection) = &mut *self.endpoint
                && data.len() >= BY_REFERENCE
                && !deflated
            {
                let header = connection.begin_shared(kind, data.len() as u64).map_err(|_| Error::Closing)?;
                self.outlet.write(&mut self.tx, header.as_ref(), data);
                return Ok(());
            }
            match self.put(kind, data, deflated) {
                Err(SendError::Full) => {}
                sent => return sent.map_err(|_| Error::Closing),
            }
        }
        // What waits goes first, wherever it goes to.
        self.outlet.write(&mut self.tx, &[], &[]);
        if !self.outlet.is_blocked() {
            match self.put(kind, data, deflated) {
                Err(SendError::Full) => {}
                sent => return sent.map_err(|_| Error::Closing),
            }
        }
        let room = data.len().saturating_add(CLOSE_ROOM);
        let Some(tx) = self.outlet.overflow(room, self.config.max_send_buffer) else {
            return Err(Error::Full);
        };
        let sent = match self.config.deflate {
            Some(deflate) if deflated => {
                let codec = &mut self.codec.deflater(deflate.level);
                self.endpoint.send_deflated(&mut tx.lend(), kind, data, codec)
            }
            _ => self.endpoint.send(&mut tx.lend(), kind, data),
        };
        sent.map_err(|_| Error::Closing)
    }

    fn put(&mut self, kind: Kind, data: &[u8], deflated: bool) -> Result<(), SendError> {
        match self.config.deflate {
            Some(deflate) if deflated => {
                let codec = &mut self.codec.deflater(deflate.level);
                self.endpoint.send_deflated(&mut self.tx, kind, data, codec)
            }
            _ => self.endpoint.send(&mut self.tx, kind, data),
        }
    }

    /// Sends a Ping with at most 125 bytes, beside those of the heartbeat.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`Error::PingTooLong`].
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.slow = true;
        let mut sent = self.endpoint.send_ping(&mut self.tx, payload);
        if sent == Err(SendError::Full) {
            self.outlet.write(&mut self.tx, &[], &[]);
            sent = self.endpoint.send_ping(&mut self.tx, payload);
        }
        match sent {
            Err(SendError::ControlTooLong) => Err(Error::PingTooLong),
            sent => sent.map_err(|_| Error::Closing),
        }
    }

    /// Begins the closing handshake, behind what was sent. Messages that still come are handed out.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        // Refused only when one of the ends has begun to close; there is always room for a Close.
        let _ = self.endpoint.close(self.now, &mut self.tx, code, reason);
    }

    /// Answers later: no further message of this connection is handed out until the future is done; what it returns is
    /// sent then. Pings are answered and deadlines kept meanwhile. A second future in one call takes the place of the
    /// first, which is dropped.
    ///
    /// It costs an allocation. It is dropped with the connection; a limit for its time is its own affair
    /// ([`tokio::time::timeout`]).
    pub fn defer<F>(&mut self, answer: F)
    where
        F: Future<Output = Option<Message>> + Send + 'static,
    {
        self.slow = true;
        *self.answering = Some(Box::pin(answer));
    }

    /// Whether a message can be sent: neither end has begun to close.
    pub fn is_open(&self) -> bool {
        self.endpoint.is_open()
    }
}

/// Where a turn's output goes.
pub(super) trait Outlet {
    /// Whether the socket takes no more: what is sent then waits in memory of the connection's own.
    fn is_blocked(&self) -> bool;

    /// Writes what is pending, and these behind it. What the socket does not take overflows.
    fn write(&mut self, tx: &mut TxBuf<'_>, header: &[u8], payload: &[u8]);

    /// Room for so many bytes behind what waits, unless more than `max` wait.
    fn overflow(&mut self, room: usize, max: usize) -> Option<&mut Tx>;
}

/// The parts of a driver that writing takes.
pub(super) struct Socket<'a, 'c, S> {
    pub(super) stream: &'a mut S,
    pub(super) cx: &'a mut Context<'c>,
    pub(super) overflow: &'a mut Tx,
    pub(super) wrote: &'a mut bool,
    pub(super) error: &'a mut Option<io::Error>,
}

impl<S: AsyncWrite + Unpin> Socket<'_, '_, S> {
    /// Writes some of it; 0 when the socket takes nothing.
    fn write_some(&mut self, parts: &[IoSlice<'_>]) -> usize {
        let stream = Pin::new(&mut *self.stream);
        let written = match parts {
            [one] => stream.poll_write(self.cx, one),
            many if stream.is_write_vectored() => stream.poll_write_vectored(self.cx, many),
            many => match many.iter().find(|part| !part.is_empty()) {
                Some(part) => stream.poll_write(self.cx, part),
                None => return 0,
            },
        };
        match written {
            Poll::Ready(Ok(n)) => {
                *self.wrote = true;
                if n == 0 {
                    *self.error = Some(io::ErrorKind::WriteZero.into());
                }
                n
            }
            Poll::Ready(Err(error)) => {
                *self.error = Some(error);
                0
            }
            Poll::Pending => 0,
        }
    }
}

impl<S: AsyncWrite + Unpin> Outlet for Socket<'_, '_, S> {
    fn is_blocked(&self) -> bool {
        !self.overflow.is_idle() || self.error.is_some()
    }

    fn write(&mut self, tx: &mut TxBuf<'_>, mut header: &[u8], mut payload: &[u8]) {
        while self.error.is_none() && self.overflow.is_idle() {
            let pending = tx.pending();
            let n = match (pending, header, payload) {
                ([], [], []) => return,
                (pending, [], []) => self.write_some(&[IoSlice::new(pending)]),
                ([], [], payload) => self.write_some(&[IoSlice::new(payload)]),
                (pending, header, payload) => {
                    self.write_some(&[IoSlice::new(pending), IoSlice::new(header), IoSlice::new(payload)])
                }
            };
            if n == 0 {
                break;
            }
            let of_pending = n.min(pending.len());
            tx.consume(of_pending);
            let n = n - of_pending;
            let of_header = n.min(header.len());
            header = header.get(of_header..).unwrap_or_default();
            payload = payload.get(n - of_header..).unwrap_or_default();
        }
        // After an error nothing of it will ever be written.
        if self.error.is_none() {
            for part in [tx.pending(), header, payload] {
                self.overflow.extend(part);
            }
        }
        tx.consume(usize::MAX);
    }

    fn overflow(&mut self, room: usize, max: usize) -> Option<&mut Tx> {
        let waits = self.overflow.lend().pending().len();
        if waits > 0 && waits.saturating_add(room) > max.saturating_add(CLOSE_ROOM) {
            return None;
        }
        self.overflow.reserve(room, usize::MAX);
        Some(self.overflow)
    }
}
