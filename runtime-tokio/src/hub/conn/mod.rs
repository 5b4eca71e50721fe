//! One connection of a shard: its turn.
//!
//! A turn is synchronous and holds none of the shard's buffers when it ends:
//! 0. a grant that has ended ends the connection, before anything is written;
//! 1. what has to be written is written;
//! 2. a reader that lags is served from the log, page by page;
//! 3. what came in is read and worked off, unless an answer to what came before has to go out first;
//! 4. what is due (heartbeat, tick, renewal of the grant) is done.

mod ending;
mod timing;

use self::ending::LINGER;
use super::access::Access;
use super::event::Form;
use super::input::{Held, Outcome, Received, WebSocket, receive};
use super::log::TURN;
use super::outlet::{Image, NoRoom, Rest, Words};
use super::pulse::Pulse;
use super::reads::TooSlow;
use super::session::Session;
use super::sessions::RenewError;
use super::shard::{Scratch, Shard, Tally};
use super::socket::Stream;
use super::{Adoption, Filter, Grant, Protocol, count, encode};
use crate::readiness::Ready;
use crate::websocket::deflate::Codec;
use bytes::{Bytes, BytesMut};
use longwire_core::buf::{RxBuf, TxBuf, TxCursor};
use longwire_core::log::Since;
use longwire_core::session::ServerMessage;
use longwire_core::time::Instant;
use longwire_core::ws::deflate::Agreed;
use longwire_core::ws::{self, CloseCause};
use std::any::Any;
use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

/// Pages that a lagging reader is served in one turn, unless they take [`TURN`] steps.
const PAGES: usize = 8;
/// Bytes held of the input that are moved into the thread's buffer for a read: the beginning of a message, as a burst
/// leaves it behind.
const MAX_MOVED: usize = 1024;
/// Reads in one turn.
const READS: usize = 4;

/// A connection.
pub(super) struct Conn {
    session: Session,
    stream: Stream,
    ws: Option<WebSocket>,
    /// Goes out before all else.
    rest: Rest,
    /// That is our first words, of which nothing depends on a grant.
    greeting: bool,
    /// Then this: control messages.
    words: Words,
    /// When something was last written.
    sent: Instant,
    /// When a message that moves the reader on was last written. Pings do not count: a browser does not see them.
    told: Instant,
    /// Input is left where it is: nothing follows from not hearing the peer.
    deaf: bool,
    pulse: Pulse,
    phase: Phase,
    /// Counted as not at the head.
    lagging: bool,
    _permit: Box<dyn Any + Send>,
}

// There are very many of them.
const _: () = assert!(size_of::<Conn>() <= 384);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// What is pending goes out, until then; then our direction ends.
    Ending(Instant),
    /// Ours has ended, the peer's has not; it is waited for until then.
    Lingering(Instant),
    /// What it would have to hold is too much: it is over, in the middle of a frame.
    Cut,
}

impl Conn {
    pub(super) fn new(id: u32, adoption: Adoption, shard: &Shard) -> io::Result<Self> {
        let Adoption {
            socket,
            head,
            early,
            protocol,
            deflate,
            subscription,
            policy,
            grant,
            publisher,
            parked,
            permit,
        } = adoption;
        let stream = Stream::new(socket, id, shard)?;
        let now = shard.clock.now();
        let pulse = Pulse::new(&stream, now);
        let deflated = deflate.is_some_and(|agreed| agreed.server.bits >= encode::SHARED_WINDOW.bits);
        let form = match protocol {
            Protocol::WebSocketJson if deflated => Form::WsJsonDeflated,
            Protocol::WebSocketJson => Form::WsJson,
            Protocol::WebSocketCbor if deflated => Form::WsCborDeflated,
            Protocol::WebSocketCbor => Form::WsCbor,
            Protocol::Sse => Form::Sse,
        };
        let ws = (form != Form::Sse).then(|| web_socket(deflate, &early, shard));
        let mut rest = Rest::default();
        rest.set(head.into());
        count(gauge(form, shard), 1);
        let mut conn = Self {
            session: Session::new(id, form, Access::new(shard, grant, parked), publisher, policy),
            stream,
            ws,
            rest,
            greeting: true,
            words: Words::default(),
            sent: now,
            told: now,
            deaf: false,
            pulse,
            phase: Phase::Open,
            lagging: false,
            _permit: permit,
        };
        conn.begin(shard, subscription);
        Ok(conn)
    }

    pub(super) fn form(&self) -> Form {
        self.session.form
    }

    /// The first messages: `hello`, and the subscription of the URL.
    fn begin(&mut self, shard: &Shard, subscription: Option<(Filter, Since)>) {
        let mut first = BytesMut::from(self.rest.as_slice());
        self.session.greet(shard, subscription, &mut first);
        self.rest.set(first.freeze());
    }

    /// What its session is called by: see [`sessions`](super::sessions).
    pub(super) fn secret(&self) -> u128 {
        self.session.secret
    }

    /// It ends in its next turn, if it is one of these; says whether it is.
    pub(super) fn revoke(&mut self, names: &HashSet<Box<str>>) -> bool {
        let grant = self.session.access.grant();
        let named =
            names.contains(&*grant.subject) || grant.id.as_deref().is_some_and(|id| names.contains(id));
        if named {
            self.session.access.revoke();
        }
        named
    }

    /// Another grant comes from outside.
    pub(super) fn renew(&mut self, shard: &Shard, grant: Grant) -> Result<(), RenewError> {
        let access = &self.session.access;
        if self.phase != Phase::Open || !access.holds(shard) {
            return Err(RenewError::Unknown);
        }
        if access.grant().subject != grant.subject {
            return Err(RenewError::Forbidden("this session is another subject's"));
        }
        self.session.renew(shard, grant).map_err(RenewError::Forbidden)?;
        let name = self.session.name(shard);
        let hello = self.session.hello(shard, &name);
        self.say(&hello);
        shard.wake(self.session.id);
        Ok(())
    }

    /// Its socket has become ready; says whether it needs a turn for that.
    pub(super) fn note(&self, ready: Ready) -> bool {
        self.stream.note(ready);
        ready.is(Ready::READABLE) || self.is_busy() || self.phase != Phase::Open
    }

    /// The reader was live and is so no more: it goes on from here in a turn.
    pub(super) fn lag(&mut self, position: u64) {
        self.session.reads.lag(position);
    }

    /// Writes what the shard has for a live reader; false when the reader is no longer live: then it goes on from
    /// `before`, or from the last piece that was begun, in its own turn.
    pub(super) fn deliver(
        &mut self,
        shard: &Shard,
        image: &mut Image<u64>,
        before: u64,
        tally: &mut Tally,
    ) -> bool {
        let id = self.session.id;
        let idle = self.phase == Phase::Open && self.has_sent() && self.may_send(shard);
        if !idle || !self.stream.is_direct() {
            self.lag(before);
            shard.wake(id);
            return false;
        }
        let written = match self.stream.try_write(image.bytes()) {
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => {
                // Its turn sees the same error, and ends the connection: some of it may be on its way.
                if error.kind() == ErrorKind::QuotaExceeded {
                    self.phase = Phase::Cut;
                }
                self.lag(before);
                shard.wake(id);
                return false;
            }
        };
        if written > 0 {
            tally.writes += 1;
            tally.bytes += written as u64;
            (self.sent, self.told) = (tally.now, tally.now);
        }
        if written == image.bytes().len() && self.stream.is_flushed() {
            tally.delivered += image.pieces();
            return true;
        }
        count(&shard.shared.counters.blocked, 1);
        let mut position = before;
        let mut begun = 0;
        let rest = image.written(written, &shard.shared.pins, |seq| {
            position = seq;
            begun += 1;
        });
        self.keep(rest);
        tally.delivered += begun;
        self.lag(position);
        shard.wake(id);
        false
    }

    /// What the socket did not take of a piece goes out first, from now on.
    fn keep(&mut self, rest: Result<Bytes, NoRoom>) {
        match rest {
            Ok(rest) => self.rest.set(rest),
            Err(NoRoom) => self.phase = Phase::Cut,
        }
    }

    /// The connection is over.
    pub(super) fn end(&mut self, shard: &Shard) {
        if self.phase == Phase::Cut {
            count(&shard.shared.counters.too_slow, 1);
        }
        if !self.has_sent() || self.phase == Phase::Cut {
            self.stream.abandon();
        }
        self.session.leave(shard);
        self.count_lagging(shard);
        gauge(self.form(), shard).fetch_sub(1, Ordering::Relaxed);
    }

    /// Keeps the gauge of readers that are not at the head.
    fn count_lagging(&mut self, shard: &Shard) {
        let gauge = &shard.shared.counters.lagging;
        match (mem::replace(&mut self.lagging, self.session.reads.lags()), self.lagging) {
            (false, true) => count(gauge, 1),
            (true, false) => drop(gauge.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }

    /// One turn.
    pub(super) fn turn(&mut self, shard: &Shard) -> Turn {
        let turn = self.take_turn(shard);
        self.count_lagging(shard);
        turn
    }

    fn take_turn(&mut self, shard: &Shard) -> Turn {
        loop {
            if let Some((retry_after, window)) = shard.closing() {
                self.say_goodbye(shard, retry_after, window);
            }
            if self.end_with_grant(shard) {
                return Turn::Over;
            }
            let mut turn = match self.work(shard) {
                Ok(turn) => turn,
                Err(error) => {
                    match error.kind() {
                        ErrorKind::QuotaExceeded => self.phase = Phase::Cut,
                        _ if is_silence(&error) => count(&shard.shared.counters.timeouts, 1),
                        _ => {}
                    }
                    return Turn::Over;
                }
            };
            if self.phase != Phase::Open {
                turn = turn.max(self.finish(shard));
            }
            if turn == Turn::Over {
                return Turn::Over;
            }
            if self.phase == Phase::Open && self.session.is_too_slow(shard) {
                self.cast_off(shard);
                continue;
            }
            let deadline = self.deadline(shard);
            if shard.clock.now() < deadline {
                if turn == Turn::Waiting {
                    shard.wake_at(self.session.id, deadline);
                }
                return turn;
            }
            // Also when there is always more to do: a grant ends in the middle of a flood.
            if self.due(shard) {
                return Turn::Over;
            }
        }
    }

    /// Steps 1 to 3 of a turn.
    fn work(&mut self, shard: &Shard) -> io::Result<Turn> {
        let flushed = self.flush(shard)?.is_ready();
        if self.phase != Phase::Open {
            return Ok(Turn::Waiting);
        }
        let mut turn = if flushed { self.catch_up(shard)? } else { Turn::Waiting };
        for read in 1..=READS {
            if self.phase != Phase::Open {
                break;
            }
            // While a large event goes out slowly its reader is heard all the same; but there is room for the answers
            // to one read only.
            self.deaf = !self.words.is_idle();
            if self.deaf {
                return Ok(Turn::Waiting);
            }
            match self.receive(shard)? {
                Received::Nothing => break,
                Received::Enough => {
                    turn = Turn::More;
                    break;
                }
                Received::Some if read == READS => turn = Turn::More,
                // What does not go out now shows above, or below.
                Received::Some => _ = self.flush(shard)?,
            }
        }
        // An answer may have been written, or a subscription begun.
        let flushed = self.flush(shard)?.is_ready();
        if flushed && turn == Turn::Waiting && self.session.reads.lags() && self.phase == Phase::Open {
            let waited = self.session.waits_for_pasts();
            turn = self.catch_up(shard)?;
            if waited && !self.session.waits_for_pasts() {
                // Input was left where it is, and nothing else wakes for it.
                turn = Turn::More;
            }
        }
        Ok(turn)
    }

    /// Writes what has to go out.
    fn flush(&mut self, shard: &Shard) -> io::Result<Poll<()>> {
        while !self.rest.is_empty() {
            let Poll::Ready(n) = self.stream.poll_write(self.rest.as_slice())? else {
                return Ok(Poll::Pending);
            };
            self.wrote(shard, not_zero(n)?);
            self.rest.consume(n);
        }
        self.greeting = false;
        while let Some(mut tx) = self.words.pending() {
            let Poll::Ready(n) = self.stream.poll_write(tx.pending())? else { return Ok(Poll::Pending) };
            tx.consume(not_zero(n)?);
            self.wrote(shard, n);
        }
        self.words.clear();
        Ok(self.stream.poll_flush()?)
    }

    fn wrote(&mut self, shard: &Shard, n: usize) {
        count(&shard.shared.counters.writes, 1);
        count(&shard.shared.counters.sent_bytes, n as u64);
        self.sent = shard.clock.now();
    }

    /// Serves a reader that is not at the head, until it is, or its socket is full, or others want a turn.
    fn catch_up(&mut self, shard: &Shard) -> io::Result<Turn> {
        let (mut image, mut steps) = (Image::default(), 0);
        for _ in 0..PAGES {
            if steps >= TURN {
                break;
            }
            if !self.session.reads.lags() || !self.may_send(shard) {
                return Ok(Turn::Waiting);
            }
            image.clear();
            match self.session.compose(shard, &mut image) {
                Ok(taken) => steps += taken,
                Err(TooSlow) => {
                    self.cast_off(shard);
                    return Ok(Turn::Waiting);
                }
            }
            let mut written = 0;
            while written < image.bytes().len() {
                let piece = image.bytes().get(written..).unwrap_or_default();
                match self.stream.poll_write(piece)? {
                    Poll::Ready(n) => {
                        written += not_zero(n)?;
                        self.wrote(shard, n);
                        self.told = self.sent;
                    }
                    Poll::Pending => break,
                }
            }
            let session = &mut self.session;
            let rest = image.written(written, &shard.shared.pins, |effect| session.begun(shard, effect));
            self.keep(rest);
            if written < image.bytes().len() {
                count(&shard.shared.counters.blocked, 1);
                return Ok(Turn::Waiting);
            }
            if self.stream.poll_flush()?.is_pending() {
                return Ok(Turn::Waiting);
            }
        }
        Ok(if self.session.reads.lags() { Turn::More } else { Turn::Waiting })
    }

    /// One read, and what follows from it.
    fn receive(&mut self, shard: &Shard) -> io::Result<Received> {
        let Some(ws) = &mut self.ws else { return self.discard(shard) };
        let handled = self.session.handled;
        let held = ws.held.take();
        let begun = held.as_ref().map(|held| held.since);
        let Held { bytes: mut own, mut at, .. } = held.map(|held| *held).unwrap_or_default();
        let Scratch { read, reply } = &mut *shard.scratch.borrow_mut();
        // When little or nothing is held the thread's buffer will do, which takes more at once.
        let mut rx = RxBuf::new(&mut own, &mut at);
        let shared = rx.held() <= MAX_MOVED;
        if shared {
            read.iter_mut().zip(rx.compact()).for_each(|(to, from)| *to = *from);
        }
        let mut rx = RxBuf::new(if shared { read } else { &mut own }, &mut at);
        let mut tx_at = TxCursor::default();
        let mut tx = TxBuf::new(reply, &mut tx_at);
        let (session, stream) = (&mut self.session, &mut self.stream);
        let outcome = receive(rx.reborrow(), shard, session, ws, stream, tx.reborrow())?;
        if rx.held() > 0 {
            if shared || outcome.space.is_some() {
                let mut grown = rx.compact().to_vec();
                grown.resize(outcome.space.unwrap_or(0).max(grown.len()), 0);
                own = grown;
            }
            let begun = begun.filter(|_| self.session.handled == handled);
            let since = begun.unwrap_or_else(|| shard.clock.now());
            ws.held = Some(Box::new(Held { bytes: own, at, since }));
        }
        self.settle(outcome, tx.pending(), shard)
    }

    /// Keeps the answers that were written, and ends the connection if that is what came of it.
    fn settle(&mut self, outcome: Outcome, answers: &[u8], shard: &Shard) -> io::Result<Received> {
        if !answers.is_empty() {
            let kept = self.words.tx().put(&[answers]);
            debug_assert!(kept, "answers are bounded by the buffer that they were written into");
        }
        self.deaf = outcome.deaf;
        match outcome.end {
            Some(CloseCause::EndOfStream) if self.words.is_idle() => {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            Some(cause) => {
                match cause {
                    CloseCause::Timeout => count(&shard.shared.counters.timeouts, 1),
                    CloseCause::Failed(_) => count(&shard.shared.counters.protocol_errors, 1),
                    CloseCause::Clean | CloseCause::EndOfStream => {}
                }
                self.phase = Phase::Ending(shard.clock.now().after(LINGER));
            }
            None => {}
        }
        Ok(outcome.received)
    }

    /// An SSE client has nothing more to say: what comes is thrown away, and its end is the connection's.
    fn discard(&mut self, shard: &Shard) -> io::Result<Received> {
        let read = &mut shard.scratch.borrow_mut().read;
        match self.stream.poll_read(read) {
            Poll::Ready(Ok(0)) => Err(ErrorKind::UnexpectedEof.into()),
            Poll::Ready(Ok(_)) => Ok(Received::Some),
            Poll::Ready(Err(error)) if error.kind() == ErrorKind::Interrupted => Ok(Received::Enough),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(Received::Nothing),
        }
    }

    /// Writes a control message behind what is pending.
    fn say(&mut self, message: &ServerMessage<'_>) {
        let mut tx = self.words.tx();
        match &mut self.ws {
            Some(ws) => {
                let payload = encode::payload(message, self.session.form);
                // No room: the peer does not read what it was sent already, and will be given up.
                let _ = ws.connection.send_message(&mut tx, encode::kind(self.session.form), &payload);
            }
            None => {
                let mut out = BytesMut::new();
                encode::write(message, Form::Sse, &mut out);
                let _ = tx.put(&[&out]);
            }
        }
    }

    /// Whether something has to be written that was not.
    fn is_busy(&self) -> bool {
        !self.has_sent() || self.session.reads.lags()
    }

    /// Whether nothing waits to go out of what was begun.
    fn has_sent(&self) -> bool {
        self.rest.is_empty() && self.words.is_idle() && self.stream.is_flushed()
    }

    fn may_send(&self, shard: &Shard) -> bool {
        self.ws.as_ref().is_none_or(|ws| ws.connection.is_open()) && self.session.access.holds(shard)
    }
}

/// A WebSocket that was opened, with what was read behind its handshake.
fn web_socket(deflate: Option<Agreed>, early: &[u8], shard: &Shard) -> WebSocket {
    let config = Arc::clone(&shard.shared.websocket);
    let connection = ws::Connection::new(ws::Server, config, shard.clock.now());
    let mut ws = WebSocket {
        connection: match deflate {
            Some(agreed) => connection.with_deflate(agreed),
            None => connection,
        },
        codec: deflate.map(|_| Box::new(Codec::new(deflate))),
        held: None,
    };
    if !early.is_empty() {
        let mut held = Held { bytes: vec![0; early.len()], since: shard.clock.now(), ..Held::default() };
        RxBuf::new(&mut held.bytes, &mut held.at).fill(early);
        ws.held = Some(Box::new(held));
    }
    ws
}

/// Counts the connections of a form.
fn gauge(form: Form, shard: &Shard) -> &AtomicU64 {
    let counters = &shard.shared.counters;
    if form == Form::Sse { &counters.sse } else { &counters.websockets }
}

/// What comes after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// The next when something wakes the connection: its socket, its deadline, or somebody.
    Waiting,
    /// The next at once, behind all others that wait for theirs.
    More,
    /// None: the connection is over.
    Over,
}

/// Whether the system has given the peer up.
pub(crate) fn is_silence(error: &io::Error) -> bool {
    use ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(error.kind(), TimedOut | HostUnreachable | NetworkUnreachable)
}

/// A stream that takes nothing has ended.
fn not_zero(n: usize) -> io::Result<usize> {
    if n == 0 { Err(ErrorKind::WriteZero.into()) } else { Ok(n) }
}
