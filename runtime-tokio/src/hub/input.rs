//! What comes in over a WebSocket of a shard.

use super::count;
use super::encode;
use super::event::Form;
use super::session::{End, Session};
use super::shard::{READ_SIZE, Shard};
use super::socket::Stream;
use crate::websocket::deflate::Codec;
use longwire_core::buf::{Io, RxBuf, RxCursor, TxBuf};
use longwire_core::session::ServerMessage;
use longwire_core::time::Instant;
use longwire_core::ws::{self, CloseCause, CloseCode, Event, Step};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::task::Poll;

/// Bytes of messages that are worked off in one turn, and then the rest of the message that exceeds them: what was read
/// may inflate to a thousand times as much.
const ENOUGH: usize = READ_SIZE;

/// The WebSocket of a connection, between two turns.
pub(super) struct WebSocket {
    pub(super) connection: ws::Connection<ws::Server, Arc<ws::Config>>,
    /// If permessage-deflate was agreed on.
    pub(super) codec: Option<Box<Codec>>,
    /// Most of the time nothing.
    pub(super) held: Option<Box<Held>>,
}

/// What is held of the input between two turns.
#[derive(Default)]
pub(super) struct Held {
    pub(super) bytes: Vec<u8>,
    pub(super) at: RxCursor,
    /// Since when a message has not come to its end: since it began, or since the last one that did.
    pub(super) since: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// Nothing more for now: something wakes the connection when there is.
    Nothing,
    /// There may be more at once.
    Some,
    /// There may be more at once, but others want their turn.
    Enough,
}

pub(super) struct Outcome {
    pub(super) received: Received,
    pub(super) end: Option<CloseCause>,
    /// The buffer is too small.
    pub(super) space: Option<usize>,
    /// Nothing was read: what was read before has to wait.
    pub(super) deaf: bool,
}

impl From<Received> for Outcome {
    fn from(received: Received) -> Self {
        Self { received, end: None, space: None, deaf: false }
    }
}

/// Works off what is in `rx`, reads once, and works that off. Answers are written into `reply`; when they fill it,
/// they have to go out first.
pub(super) fn receive(
    rx: RxBuf<'_>,
    shard: &Shard,
    session: &mut Session,
    ws: &mut WebSocket,
    stream: &mut Stream,
    reply: TxBuf<'_>,
) -> io::Result<Outcome> {
    let mut io = Io::new(rx, reply);
    if let Some(codec) = &mut ws.codec {
        io = io.with_inflate(&mut **codec);
    }
    for read in [false, true] {
        if read {
            let n = match stream.poll_read(io.rx.spare_mut()) {
                Poll::Ready(Ok(n)) => n,
                Poll::Ready(Err(e)) if e.kind() == ErrorKind::Interrupted => {
                    return Ok(Received::Enough.into());
                }
                Poll::Ready(Err(e)) => return Err(e),
                Poll::Pending => return Ok(Received::Nothing.into()),
            };
            if n == 0 {
                return Ok(closed(ws.connection.handle_eof()));
            }
            count(&shard.shared.counters.received_bytes, n as u64);
            session.access.spend(n);
            io.rx.commit(n);
        }
        if let Some(outcome) = work_off(&mut io, shard, session, &mut ws.connection) {
            return Ok(outcome);
        }
    }
    Ok(Received::Some.into())
}

/// Handles every message that is whole; `None` when more input is needed.
fn work_off(
    io: &mut Io<'_>,
    shard: &Shard,
    session: &mut Session,
    connection: &mut ws::Connection<ws::Server, Arc<ws::Config>>,
) -> Option<Outcome> {
    let now = shard.clock.now();
    let mut worked = 0;
    loop {
        let mut reply = Reply { connection, tx: io.tx.reborrow(), form: session.form, now, ended: None };
        let waits = session.must_wait(shard, &mut reply);
        if let Some(cause) = reply.ended {
            return Some(closed(Step::Closed(cause)));
        }
        if waits {
            session.acknowledge(&mut reply);
            return Some(Outcome { deaf: true, ..Received::Nothing.into() });
        }
        let asked = connection.rtt().is_none();
        let step = match connection.poll(now, io) {
            Ok(step) => step,
            Err(error) => return Some(closed(Step::Closed(CloseCause::Failed(error.code())))),
        };
        if let (true, Some(rtt)) = (asked, connection.rtt()) {
            shard.shared.counters.websocket_rtt.record(rtt);
        }
        let mut reply = Reply { connection, tx: io.tx.reborrow(), form: session.form, now, ended: None };
        match step {
            Step::Event(found) => match (found.event(io.rx.reborrow()), session.form.is_cbor()) {
                (Event::Text(text), false) => {
                    worked += text.as_bytes().len();
                    session.handle(text.as_bytes(), shard, &mut reply);
                }
                (Event::Binary(bytes), true) => {
                    worked += bytes.len();
                    session.handle(bytes, shard, &mut reply);
                }
                (Event::Text(_) | Event::Binary(_), _) => {
                    reply.end(End { close: CloseCode::UNSUPPORTED, refusal: None });
                }
                (Event::Chunk(_) | Event::Ping(_) | Event::Pong(_) | Event::Close(_), _) => {}
            },
            Step::NeedInput => {
                session.acknowledge(&mut reply);
                return None;
            }
            Step::NeedFlush => {
                session.acknowledge(&mut reply);
                return Some(Received::Some.into());
            }
            Step::NeedSpace(space) => {
                session.acknowledge(&mut reply);
                return Some(Outcome { space: Some(space), ..Received::Some.into() });
            }
            over @ Step::Closed(_) => return Some(closed(over)),
        }
        if let Some(cause) = reply.ended {
            return Some(closed(Step::Closed(cause)));
        }
        if worked >= ENOUGH {
            session.acknowledge(&mut reply);
            return Some(Received::Enough.into());
        }
    }
}

fn closed(step: Step) -> Outcome {
    let end = if let Step::Closed(cause) = step { Some(cause) } else { None };
    Outcome { end, ..Received::Some.into() }
}

/// Where the answers to a message go.
pub(super) struct Reply<'a> {
    connection: &'a mut ws::Connection<ws::Server, Arc<ws::Config>>,
    tx: TxBuf<'a>,
    form: Form,
    now: Instant,
    ended: Option<CloseCause>,
}

impl Reply<'_> {
    /// Writes a message. There is room: a message is handed out only when its answers have it.
    pub(super) fn send(&mut self, message: &ServerMessage<'_>) {
        let payload = encode::payload(message, self.form);
        let sent = self.connection.send_message(&mut self.tx, encode::kind(self.form), &payload);
        if sent == Err(ws::SendError::Full) {
            self.end(End { close: CloseCode::INTERNAL, refusal: None });
        }
    }

    /// Closes the connection. Nothing more is taken from it.
    pub(super) fn end(&mut self, end: End) {
        self.ended = Some(match end.close {
            // The peer broke the protocol.
            CloseCode::POLICY | CloseCode::UNSUPPORTED => CloseCause::Failed(end.close),
            _ => CloseCause::Clean,
        });
        if let Some(refusal) = end.refusal {
            self.send(&ServerMessage::Bye { refusal, window: None });
        }
        // Closing already: then the peer knows.
        let _ = self.connection.close(self.now, &mut self.tx, end.close, "");
    }
}
