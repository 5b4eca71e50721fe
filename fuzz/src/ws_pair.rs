//! A client and a server, joined by a stream in each direction, that do what a script says.

use crate::choices::Choices;
use crate::common::{AnyClient, End, Endpoint, Flush, Heard, Sent, frames};
use longwire_core::ws::{
    CloseCause, CloseCode, Config, Delivery, Heartbeat, Kind, MIN_RX, MIN_TX, SendError, Server,
};
use std::collections::VecDeque;
use std::time::Duration;

/// A script, as choices: the configuration and the buffers of both ends; then what each does, which bytes arrive, and how much
/// time passes; and how it ends: by a closing handshake, by streams that end at any byte, or by silence.
///
/// The truth is what stands on the wire, read by code of the tests: what an end sent is what its application said, in order;
/// what an end heard is what arrived whole; each Ping that it heard it answered once.
///
/// # Panics
/// When a message is lost, repeated, changed or out of order; when an end fails the other, spins, keeps a deadline in the
/// past, or never ends.
pub fn ws_pair(data: &[u8]) {
    let mut choices = Choices::new(data);
    let ending = choices.upto(2);
    let mut pair = Pair::new(&mut choices);
    while !choices.is_empty() {
        pair.act(&mut choices);
    }
    pair.check();
    match ending {
        0 => pair.close(data.len() % 3),
        1 => pair.cut(),
        _ => pair.fall_silent(),
    }
    pair.check();
}

/// An end, the stream that leaves it, and what its application said.
struct Peer<R> {
    end: Endpoint<R>,
    /// Bytes that were written and did not arrive yet.
    under_way: VecDeque<u8>,
    /// All bytes that reached the other end's buffer.
    arrived: Vec<u8>,
    said: Vec<Heard>,
    /// What is left of the message that goes out in pieces, and what it is as a whole.
    streaming: Option<(Kind, Vec<u8>, usize)>,
    /// Numbers the messages, so that no two in a row are alike.
    count: u8,
}

struct Pair {
    client: Peer<AnyClient>,
    server: Peer<Server>,
    now: u64,
}

/// The first byte of a Ping that an application sent. A heartbeat's begins with less.
const ASKED: u8 = 0xfe;
/// The first byte of a Pong that an application sent. No answer begins with it.
const UNASKED: u8 = 0xff;

impl<R: End> Peer<R> {
    fn new(config: &Config, choices: &mut Choices<'_>) -> Self {
        // Under `Whole` the receive buffer grows from any size.
        let least = if config.delivery == Delivery::Whole { 0 } else { MIN_RX };
        let (rx, tx) = (least + choices.upto(600), MIN_TX + choices.upto(600));
        let mut end = Endpoint::with(config.clone(), rx, tx);
        end.flush = Flush::ByHand;
        Self {
            end,
            under_way: VecDeque::new(),
            arrived: Vec::new(),
            said: Vec::new(),
            streaming: None,
            count: 0,
        }
    }

    /// A payload that is like no other.
    fn payload(&mut self, kind: Kind, len: usize) -> Vec<u8> {
        self.count = self.count.wrapping_add(1);
        let first = char::from(self.count);
        match kind {
            Kind::Text => {
                std::iter::once(first).chain("aé€𝄞".chars().cycle()).take(len).collect::<String>().into()
            }
            Kind::Binary => (self.count..=u8::MAX).cycle().take(len).collect(),
        }
    }

    fn says(&mut self, kind: Kind, payload: Vec<u8>) {
        self.said.push(match kind {
            Kind::Text => Heard::Text(String::from_utf8(payload).unwrap()),
            Kind::Binary => Heard::Binary(payload),
        });
    }

    /// One act that needs nobody else.
    fn act(&mut self, act: u8, choices: &mut Choices<'_>) {
        match act >> 1 & 15 {
            0..3 => self.send(kind(act), choices.upto(600), act & 0x40 != 0),
            3 => self.start(kind(act), choices.upto(3000)),
            4..6 => self.write(choices.upto(600)),
            6 => self.control(act & 0x40 != 0, 1 + choices.upto(130)),
            7 => self.close(if act & 0x40 != 0 { CloseCode::NORMAL } else { CloseCode::GOING_AWAY }),
            8 => drop(self.flush(choices.upto(2000))),
            _ => drop(self.flush(usize::MAX)),
        }
    }

    /// Sends a message in one frame, if it fits.
    fn send(&mut self, kind: Kind, len: usize, filled: bool) {
        let payload = self.payload(kind, len);
        let sent = self.end.lend(|connection, io| match filled {
            false => connection.send_message(&mut io.tx, kind, &payload),
            true => connection.send_with(&mut io.tx, kind, payload.len(), |to| to.copy_from_slice(&payload)),
        });
        match sent {
            Ok(()) => self.says(kind, payload),
            Err(error) => self.refused(error),
        }
    }

    fn refused(&self, error: SendError) {
        let open = self.end.connection.is_open();
        match error {
            SendError::Full => assert!(open),
            SendError::Closing => assert!(!open),
            SendError::InMessage => assert!(open && self.streaming.is_some()),
            SendError::NoMessage => assert!(open && self.streaming.is_none()),
            error => panic!("{error}"),
        }
    }

    /// Begins a message in pieces.
    fn start(&mut self, kind: Kind, len: usize) {
        match self.end.connection.start(kind) {
            Ok(()) => self.streaming = Some((kind, self.payload(kind, len), 0)),
            Err(error) => self.refused(error),
        }
    }

    /// Sends at most `most` bytes of the message begun, and ends it when there are none left.
    fn write(&mut self, most: usize) {
        let Some((kind, payload, sent)) = self.streaming.take() else {
            let written = self.end.lend(|connection, io| connection.write(&mut io.tx, b"x"));
            let finished = self.end.lend(|connection, io| connection.finish(&mut io.tx));
            assert_eq!(written.err(), finished.err());
            return self.refused(finished.unwrap_err());
        };
        let piece = &payload[sent..payload.len().min(sent.saturating_add(most))];
        let done = match self.end.lend(|connection, io| connection.write(&mut io.tx, piece)) {
            Ok(n) if sent + n == payload.len() => {
                self.end.lend(|connection, io| connection.finish(&mut io.tx)).map(|()| true).or_else(
                    |error| {
                        assert_eq!(error, SendError::Full);
                        self.streaming = Some((kind, payload.clone(), sent + n));
                        Ok(false)
                    },
                )
            }
            Ok(n) => {
                self.streaming = Some((kind, payload.clone(), sent + n));
                Ok(false)
            }
            Err(error) => Err(error),
        };
        match done {
            Ok(true) => self.says(kind, payload),
            Ok(false) => {}
            // The rest of it is nobody's business any more.
            Err(error) => assert_eq!((error, self.end.connection.is_open()), (SendError::Closing, false)),
        }
    }

    fn control(&mut self, ping: bool, len: usize) {
        let payload = vec![if ping { ASKED } else { UNASKED }; len];
        let sent = self.end.lend(|connection, io| match ping {
            true => connection.send_ping(&mut io.tx, &payload),
            false => connection.send_pong(&mut io.tx, &payload),
        });
        match sent {
            Ok(()) if ping => self.said.push(Heard::Ping(payload)),
            Ok(()) => self.said.push(Heard::Pong(payload)),
            Err(SendError::ControlTooLong) => assert!(len > 125),
            Err(error) => self.refused(error),
        }
    }

    fn close(&mut self, code: CloseCode) {
        let now = self.end.now;
        let room = self.end.lend(|_, io| io.tx.room());
        match self.end.lend(|connection, io| connection.close(now, &mut io.tx, code, "bye")) {
            Ok(()) => {
                let reason = if room < 2 + 4 * usize::from(R::IS_CLIENT) + 5 { "" } else { "bye" };
                self.said.push(Heard::Close(Some(code), reason.into()));
            }
            Err(error) => self.refused(error),
        }
    }

    /// Puts at most `most` pending bytes on their way.
    fn flush(&mut self, most: usize) -> bool {
        let n = self.end.write(most);
        let from = self.end.sent.len() - n;
        self.under_way.extend(&self.end.sent[from..]);
        n > 0
    }

    /// Lets at most `most` bytes arrive. Whether there were any.
    fn carry<P: End>(&mut self, to: &mut Peer<P>, most: usize) -> bool {
        let (mut left, mut moved) = (most.min(self.under_way.len()), false);
        // An end that has to write first reads nothing before that.
        while left > 0 && to.end.closed.is_none() && to.end.turn() && to.end.closed.is_none() {
            let bytes: Vec<u8> = self.under_way.iter().copied().take(left.min(1000)).collect();
            let n = to.end.append(&bytes);
            assert!(n > 0, "room for nothing after everything was worked off");
            self.arrived.extend(self.under_way.drain(..n));
            (left, moved) = (left - n, true);
            to.end.turn();
        }
        moved
    }

    /// The stream ends for the other side, which has worked off what came before.
    fn hang_up<P: End>(&self, to: &mut Peer<P>) {
        to.work();
        if to.end.closed.is_none() {
            to.end.eof();
        }
    }

    /// Works off what was received, whatever has to be written for that.
    fn work(&mut self) {
        while self.end.closed.is_none() && !self.end.turn() {
            assert!(self.flush(usize::MAX), "it waits to write, and there is nothing to write");
        }
    }
}

impl Peer<Server> {
    /// A message whose payload is not copied into the send buffer.
    fn share(&mut self, kind: Kind, len: usize) {
        let payload = self.payload(kind, len);
        match self.end.connection.begin_shared(kind, payload.len() as u64) {
            Ok(header) => {
                self.flush(usize::MAX);
                for part in [header.as_ref(), &payload] {
                    self.end.sent.extend_from_slice(part);
                    self.under_way.extend(part);
                }
                self.says(kind, payload);
            }
            Err(error) => self.refused(error),
        }
    }
}

impl Pair {
    fn new(choices: &mut Choices<'_>) -> Self {
        let mut config = || {
            let heartbeat = choices.option(|choices| Heartbeat {
                interval: Duration::from_millis(1 + choices.upto(2000) as u64),
                timeout: Duration::from_millis(1 + choices.upto(2000) as u64),
            });
            Config {
                delivery: if choices.flag() { Delivery::Chunks } else { Delivery::Whole },
                heartbeat,
                close_timeout: Duration::from_millis(1 + choices.upto(5000) as u64),
                reply_room: choices.upto(300),
                ..Config::new()
            }
        };
        let (client, server) = (config(), config());
        Self { client: Peer::new(&client, choices), server: Peer::new(&server, choices), now: 1000 }
    }

    /// One act of the script: `who | what | kind | detail` in bits 0, 1 to 4, 5 and 6.
    fn act(&mut self, choices: &mut Choices<'_>) {
        let act = choices.byte();
        let server = act & 1 == 1;
        match act >> 1 & 15 {
            10 if server => drop(self.server.carry(&mut self.client, choices.upto(2000))),
            10 => drop(self.client.carry(&mut self.server, choices.upto(2000))),
            11 if server => drop(self.server.carry(&mut self.client, usize::MAX)),
            11 => drop(self.client.carry(&mut self.server, usize::MAX)),
            12 => self.pass(choices.upto(3000) as u64),
            13 if server => {
                let len = choices.upto(600);
                self.server.share(kind(act), len);
            }
            _ if server => self.server.act(act, choices),
            _ => self.client.act(act, choices),
        }
    }

    /// Time passes.
    fn pass(&mut self, millis: u64) {
        self.now += millis;
        self.client.end.at(self.now);
        self.server.end.at(self.now);
    }

    /// Everything that is under way arrives, and everything is answered. Nothing more is said.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.client.work();
            self.server.work();
            let flushed = self.client.flush(usize::MAX) | self.server.flush(usize::MAX);
            let moved = self.client.carry(&mut self.server, usize::MAX)
                | self.server.carry(&mut self.client, usize::MAX);
            if !flushed && !moved {
                return;
            }
        }
        panic!("two ends that never have enough of each other");
    }

    /// All is said, and then one end closes, or both do.
    fn close(&mut self, who: usize) {
        self.settle();
        for _ in 0..10_000 {
            let open = (self.client.end.connection.is_open(), self.server.end.connection.is_open());
            let (up, down) = (self.client.streaming.is_some(), self.server.streaming.is_some());
            if !(open.0 && up || open.1 && down) {
                break;
            }
            self.client.write(usize::MAX);
            self.server.write(usize::MAX);
            self.settle();
        }
        let was_open = self.client.end.connection.is_open() && self.server.end.connection.is_open();
        if was_open && who != 1 {
            self.client.close(CloseCode::NORMAL);
        }
        if was_open && who != 0 {
            self.server.close(CloseCode::GOING_AWAY);
        }
        self.settle();
        // The server ends the stream first, unless it is the client that gave up.
        if self.client.end.closed.is_some() {
            self.client.hang_up(&mut self.server);
        }
        self.server.hang_up(&mut self.client);
        self.client.hang_up(&mut self.server);
        if was_open {
            assert_eq!(self.client.end.closed, Some(CloseCause::Clean));
            assert_eq!(self.server.end.closed, Some(CloseCause::Clean));
            // Whoever did not close first was heard to the end.
            let last = |heard: &[Heard]| matches!(heard.last(), Some(Heard::Close(..)));
            assert!(last(&self.client.end.heard) && last(&self.server.end.heard));
        }
    }

    /// Both streams end where they are, in the middle of anything.
    fn cut(&mut self) {
        self.client.hang_up(&mut self.server);
        self.server.hang_up(&mut self.client);
        assert!(self.client.end.closed.is_some() && self.server.end.closed.is_some());
    }

    /// Nothing arrives any more, and nobody is told.
    fn fall_silent(&mut self) {
        for _ in 0..8 {
            let deadlines =
                [self.client.end.connection.poll_timeout(), self.server.end.connection.poll_timeout()];
            let Some(next) = deadlines.into_iter().flatten().min() else { break };
            let next = next.as_millis();
            self.pass(next.saturating_sub(self.now));
        }
        silent(&self.client);
        silent(&self.server);
    }

    /// What holds at any moment, once everything that has arrived is worked off.
    fn check(&mut self) {
        sent_is_said(&mut self.client);
        sent_is_said(&mut self.server);
        heard_is_arrived(&self.client.arrived, &mut self.server.end);
        heard_is_arrived(&self.server.arrived, &mut self.client.end);
        assert_ne!(self.client.end.closed, Some(CloseCause::Failed(CloseCode::PROTOCOL)));
    }
}

fn kind(act: u8) -> Kind {
    if act & 0x80 == 0 { Kind::Text } else { Kind::Binary }
}

/// Whether an end that hears nothing any more has given up by now, if it promised to.
fn silent<R: End>(peer: &Peer<R>) {
    let waits_for_ever = peer.end.connection.is_open() && peer.end.connection.config().heartbeat.is_none();
    assert_eq!(peer.end.closed.is_none(), waits_for_ever, "a half-open connection");
}

/// The events that whole frames make, as far as they are whole; nothing comes behind a Close.
fn events(frames: Vec<Sent>) -> Vec<Heard> {
    let (mut events, mut message) = (Vec::new(), None);
    for frame in frames {
        let (fin, opcode) = (frame.b0 & 0x80 != 0, frame.b0 & 0x7f);
        match opcode {
            8 => {
                let (code, reason) = frame.payload.split_first_chunk().unwrap();
                let code = CloseCode::new(u16::from_be_bytes(*code)).unwrap();
                events.push(Heard::Close(Some(code), String::from_utf8(reason.into()).unwrap()));
                break;
            }
            9 => events.push(Heard::Ping(frame.payload)),
            10 => events.push(Heard::Pong(frame.payload)),
            0 => {
                let (_, bytes): &mut (u8, Vec<u8>) = message.as_mut().unwrap();
                bytes.extend(frame.payload);
            }
            1 | 2 => assert!(message.replace((opcode, frame.payload)).is_none(), "a message in a message"),
            _ => panic!("opcode {opcode}"),
        }
        if fin && opcode < 8 {
            events.extend(message.take().map(|(opcode, bytes)| match opcode {
                1 => Heard::Text(String::from_utf8(bytes).unwrap()),
                _ => Heard::Binary(bytes),
            }));
        }
    }
    events
}

/// What stands on the wire is what the application said, and beside that one answer to each Ping that was heard, the
/// heartbeat's Pings, and a Close that answers the other's or gives up.
fn sent_is_said<R: End>(peer: &mut Peer<R>) {
    let frames = peer.end.frames();
    assert!(frames.iter().all(|frame| frame.mask.is_some() == R::IS_CLIENT), "RFC 6455 section 5.1");
    assert!(frames.iter().filter(|frame| frame.b0 == 0x88).count() <= 1, "two Close frames");
    let closes_itself = peer.said.iter().any(|said| matches!(said, Heard::Close(..)));
    let is_answer = |frame: &Sent| frame.b0 == 0x8a && frame.payload.first() != Some(&UNASKED);
    let (answers, mut others): (Vec<Sent>, Vec<Sent>) = frames.into_iter().partition(is_answer);
    others.retain(|frame| match frame.b0 {
        0x88 => closes_itself,
        0x89 => frame.payload.first() == Some(&ASKED),
        _ => true,
    });
    assert_eq!(events(others), peer.said);
    let asked = peer.end.heard.iter().filter_map(|heard| match heard {
        Heard::Ping(payload) => Some(payload),
        _ => None,
    });
    assert!(answers.iter().map(|frame| &frame.payload).eq(asked), "RFC 6455 section 5.5.2");
}

/// What an end heard is what has arrived whole.
fn heard_is_arrived<R: End>(arrived: &[u8], end: &mut Endpoint<R>) {
    let (frames, _) = frames(arrived);
    let events = events(frames);
    // One that has to write first, or that gave up, may have left some of it alone.
    let all = end.closed != Some(CloseCause::Timeout) && (end.closed.is_some() || end.turn());
    assert!(
        if all { end.heard == events } else { events.starts_with(&end.heard) },
        "{:?}\n{events:?}",
        end.heard
    );
}
