//! What is sent: taken from the application, put into the send buffer, and cut into fragments where it does not fit.

use super::{Driver, State};
use crate::websocket::buffers::Tx;
use crate::websocket::{Error, Message};
use bytes::{Buf, Bytes};
use longwire_core::ws::{CloseCode, Kind, MIN_TX, SendError};

/// Pieces of a message that is larger than the send buffer.
const PIECE: usize = 64 << 10;

/// Room for a Close with the longest reason, and a header of any size.
pub(in crate::websocket) const CLOSE_ROOM: usize = MIN_TX + 14;

#[derive(Debug)]
pub(super) struct Outgoing {
    kind: Kind,
    data: Bytes,
    /// A fragment of it is in `tx`, so the rest goes out in fragments too.
    begun: bool,
    /// It goes out from where it lies.
    whole: Option<Whole>,
}

/// Where a frame stands that is not copied into the send buffer.
#[derive(Debug)]
struct Whole {
    /// Bytes of the send buffer that go out before it; the others go behind it.
    before: usize,
    /// What is left of its header.
    header: Bytes,
}

/// Payloads of so many bytes are not copied into the send buffer.
pub(in crate::websocket) const BY_REFERENCE: usize = 16 << 10;

/// What is to be written next, in order: of the send buffer, and of a frame that is not copied into it.
pub(super) fn next_out<'o>(tx: &'o Tx, outgoing: Option<&'o Outgoing>) -> [&'o [u8]; 3] {
    let pending = tx.pending();
    match outgoing {
        Some(Outgoing { data, whole: Some(Whole { before, header }), .. }) => {
            [pending.get(..*before).unwrap_or(pending), header, data]
        }
        _ => [pending, &[], &[]],
    }
}

impl<S> Driver<S> {
    /// Whether a message can be taken: neither end has begun to close.
    pub(in crate::websocket) fn check_open(&self) -> Result<(), Error> {
        match self.state {
            State::Running if self.endpoint.is_open() && self.close_next.is_none() => Ok(()),
            State::Running => Err(Error::Closing),
            State::Ending { cause, .. } | State::Over(cause) => Err(Error::Closed(cause)),
        }
    }

    /// Whether everything that was taken is on its way.
    pub(in crate::websocket) fn is_flushed(&self) -> bool {
        self.tx.is_idle() && self.outgoing.is_none() && !self.unflushed
    }

    /// Takes a message; there must be none before it that was taken and not begun. `own` is asked for the bytes
    /// only when they do not fit beside what waits.
    pub(in crate::websocket) fn take(
        &mut self,
        kind: Kind,
        data: &[u8],
        own: impl FnOnce() -> Bytes,
    ) -> Result<(), Error> {
        self.check_open()?;
        if self.outgoing.is_some() {
            return Err(Error::NotReady);
        }
        if data.len() >= BY_REFERENCE
            && let Some(header) = self.endpoint.begin_shared(kind, data.len())
        {
            let before = self.tx.lend().pending().len();
            let whole = Some(Whole {
                before,
                header: Bytes::copy_from_slice(header.map_err(|_| Error::Closing)?.as_ref()),
            });
            self.outgoing = Some(Box::new(Outgoing { kind, data: own(), begun: true, whole }));
            return Ok(());
        }
        self.reserve(data.len().saturating_add(CLOSE_ROOM));
        match self.send(kind, data) {
            Ok(()) => Ok(()),
            Err(SendError::Full) => {
                self.outgoing = Some(Box::new(Outgoing { kind, data: own(), begun: false, whole: None }));
                Ok(())
            }
            Err(_) => Err(Error::Closing),
        }
    }

    /// Puts a whole message into the send buffer, compressed if that was agreed on and it is long enough.
    fn send(&mut self, kind: Kind, data: &[u8]) -> Result<(), SendError> {
        let tx = &mut self.tx.lend();
        match self.config.deflate {
            Some(deflate) if data.len() >= deflate.threshold => {
                self.endpoint.send_deflated(tx, kind, data, &mut self.codec.deflater(deflate.level))
            }
            _ => self.endpoint.send(tx, kind, data),
        }
    }

    pub(in crate::websocket) fn take_message(&mut self, message: Message) -> Result<(), Error> {
        let (kind, data) = message.into_parts();
        self.take(kind, &data, || data.clone())
    }

    /// Takes a Ping; false when there is no room for it yet.
    pub(in crate::websocket) fn take_ping(&mut self, payload: &[u8]) -> Result<bool, Error> {
        self.check_open()?;
        self.reserve(payload.len().saturating_add(CLOSE_ROOM));
        match self.endpoint.send_ping(&mut self.tx.lend(), payload) {
            Ok(()) => Ok(true),
            Err(SendError::Full) => Ok(false),
            Err(SendError::ControlTooLong) => Err(Error::PingTooLong),
            Err(_) => Err(Error::Closing),
        }
    }

    /// Begins the closing handshake, unless it has begun already. The Close stands behind what was taken.
    pub(in crate::websocket) fn start_close(&mut self, code: CloseCode, reason: &str) {
        if self.check_open().is_err() {
            return;
        }
        self.close_next = Some(Box::new((code, reason.to_owned())));
        self.pump();
    }

    pub(super) fn reserve(&mut self, more: usize) {
        // Whatever the application may fill, the core's reserve for control frames comes on top.
        self.tx.reserve(more, self.config.max_send_buffer.saturating_add(CLOSE_ROOM));
    }

    /// Puts as much of the message that was taken into the send buffer as fits, and the Close behind it.
    pub(super) fn pump(&mut self) {
        self.pump_message();
        if self.outgoing.is_none()
            && let Some(close) = self.close_next.take()
        {
            let (code, reason) = *close;
            self.reserve(CLOSE_ROOM);
            // Refused only when the peer was faster; then its Close is answered already.
            let _ = self.endpoint.close(self.clock.now(), &mut self.tx.lend(), code, &reason);
        }
    }

    /// The socket took so many bytes of what was [next](next_out).
    pub(super) fn went_out(&mut self, n: usize) {
        let Some(Outgoing { data, whole: Some(whole), .. }) = self.outgoing.as_deref_mut() else {
            return self.tx.lend().consume(n);
        };
        let of_buffer = n.min(whole.before);
        whole.before -= of_buffer;
        self.tx.lend().consume(of_buffer);
        let n = n - of_buffer;
        let of_header = n.min(whole.header.len());
        whole.header.advance(of_header);
        data.advance((n - of_header).min(data.len()));
        if whole.header.is_empty() && data.is_empty() {
            self.outgoing = None;
        }
    }

    fn pump_message(&mut self) {
        if self.outgoing.as_ref().is_some_and(|out| out.whole.is_some()) {
            return;
        }
        let Some(mut out) = self.outgoing.take() else { return };
        match self.put(&mut out) {
            Ok(()) => {}
            Err(SendError::Full) => self.outgoing = Some(out),
            // The connection is closing and takes no more of it.
            Err(_) => self.lost = true,
        }
    }

    /// Puts as much of a message into the send buffer as fits; `Full` when that is not all.
    fn put(&mut self, out: &mut Outgoing) -> Result<(), SendError> {
        let max = self.config.max_send_buffer.saturating_add(CLOSE_ROOM);
        if !out.begun {
            self.tx.reserve(out.data.len().saturating_add(CLOSE_ROOM), max);
            match self.send(out.kind, &out.data) {
                // Larger than the whole buffer: in fragments.
                Err(SendError::Full) if self.tx.is_idle() => {}
                sent => return sent,
            }
            self.start(out)?;
        }
        self.tx.reserve(PIECE, max);
        let tx = &mut self.tx.lend();
        while !out.data.is_empty() {
            match self.endpoint.write(tx, &out.data)? {
                0 => return Err(SendError::Full),
                n => out.data.advance(n),
            }
        }
        self.endpoint.finish(tx)
    }

    /// Begins a message that goes out in fragments. Compressed, it is so before that, as a whole.
    fn start(&mut self, out: &mut Outgoing) -> Result<(), SendError> {
        let compressed = match (self.config.deflate, self.endpoint.send_window()) {
            (Some(deflate), Some(window)) if out.data.len() >= deflate.threshold => {
                self.codec.deflater(deflate.level).message(window, &out.data).map(Bytes::from)
            }
            _ => None,
        };
        match compressed {
            Some(compressed) => {
                self.endpoint.start_deflated(out.kind)?;
                out.data = compressed;
            }
            None => self.endpoint.start(out.kind)?,
        }
        out.begun = true;
        Ok(())
    }
}
