//! One connection of the model gateway.

use std::time::Duration;

use longwire_core::buf::{Io, RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::http::head::{HeadReader, Limits as HeadLimits, Step as HeadStep};
use longwire_core::http::upgrade;
use longwire_core::session::publisher::Incarnation;
use longwire_core::session::{ClientMessage, Code, Data, Level, Limits, Refusal, ServerMessage, cbor};
use longwire_core::time::Instant;
use longwire_core::ws::{CloseCode, Config, Connection, Event, SendError, Server, Step};
use smoltcp::socket::tcp;

use crate::gateway::{Answer, Log};

static CONFIG: Config = Config::new();

/// Bytes of each buffer.
const BUFFER: usize = 2048;
/// Microseconds within which the request has to be there.
const PATIENCE: u64 = 10_000_000;
/// Microseconds after which a full send buffer is looked at again.
const FULL: u64 = 10_000;

pub(crate) struct Session {
    /// Once it is upgraded.
    connection: Option<Connection<Server>>,
    head: HeadReader,
    incarnation: Incarnation,
    rx: Box<[u8]>,
    rx_at: RxCursor,
    tx: Box<[u8]>,
    tx_at: TxCursor,
    /// The largest number that is to be acknowledged, and by when.
    ack: Option<(u64, u64)>,
    opened: u64,
    /// Nothing more is said.
    over: bool,
}

/// Why a connection ends without a word.
struct Over;

impl Session {
    pub(crate) fn new(now: u64) -> Self {
        Self {
            connection: None,
            head: HeadReader::default(),
            incarnation: Incarnation(0),
            rx: vec![0; BUFFER].into(),
            rx_at: RxCursor::default(),
            tx: vec![0; BUFFER].into(),
            tx_at: TxCursor::default(),
            ack: None,
            opened: now,
            over: false,
        }
    }

    /// Reads and writes as far as it gets; true when it has used the socket.
    pub(crate) fn turn(&mut self, socket: &mut tcp::Socket<'_>, log: &mut Log, now: u64) -> bool {
        let mut used = false;
        loop {
            used |= self.flush(socket);
            if self.over {
                // What still comes is of no interest, and must not keep the window shut.
                while socket.recv(|bytes| (bytes.len(), bytes.len())).is_ok_and(|n| n > 0) {
                    used = true;
                }
                if self.tx_at.is_idle() && socket.may_send() {
                    socket.close();
                    used = true;
                }
                return used;
            }
            let came = match socket.recv_slice(RxBuf::new(&mut self.rx, &mut self.rx_at).spare_mut()) {
                Ok(n) => n,
                Err(tcp::RecvError::Finished) => {
                    self.over = true;
                    continue;
                }
                Err(tcp::RecvError::InvalidState) => return used,
            };
            RxBuf::new(&mut self.rx, &mut self.rx_at).commit(came);
            used |= came > 0;
            if self.work(log, now).is_err() {
                self.over = true;
                continue;
            }
            self.acknowledge(now);
            let written = self.flush(socket);
            used |= written;
            if came == 0 && !written {
                return used;
            }
        }
    }

    /// When it wants a turn without a byte from outside.
    pub(crate) fn next(&self) -> u64 {
        let timeout = match &self.connection {
            Some(connection) => connection.poll_timeout().map(|at| at.as_millis() * 1000),
            None => Some(self.opened + PATIENCE),
        };
        let ack = self.ack.map(|(_, at)| at);
        if self.over { u64::MAX } else { timeout.into_iter().chain(ack).min().unwrap_or(u64::MAX) }
    }

    pub(crate) fn bye(&mut self, now: u64, retry_after: u64, window: u64) {
        let retry_after = Some(Duration::from_micros(retry_after));
        let refusal = Refusal { permanent: false, retry_after, ..Refusal::new(Code::Draining, "") };
        let window = Some(Duration::from_micros(window));
        let _ = self.say(&ServerMessage::Bye { refusal, window });
        if let Some(connection) = &mut self.connection {
            let mut tx = TxBuf::new(&mut self.tx, &mut self.tx_at);
            let _ = connection.close(instant(now), &mut tx, CloseCode::GOING_AWAY, "");
        }
    }

    /// True when something was written.
    fn flush(&mut self, socket: &mut tcp::Socket<'_>) -> bool {
        let mut tx = TxBuf::new(&mut self.tx, &mut self.tx_at);
        let mut written = false;
        while !tx.pending().is_empty()
            && let Ok(n) = socket.send_slice(tx.pending())
            && n > 0
        {
            tx.consume(n);
            written = true;
        }
        written
    }

    /// Works off what was received.
    fn work(&mut self, log: &mut Log, now: u64) -> Result<(), Over> {
        if self.connection.is_none() {
            if !self.upgrade(now)? {
                return if now >= self.opened + PATIENCE { Err(Over) } else { Ok(()) };
            }
            self.hello(log);
        }
        loop {
            let (rx, tx) =
                (RxBuf::new(&mut self.rx, &mut self.rx_at), TxBuf::new(&mut self.tx, &mut self.tx_at));
            let mut io = Io::new(rx, tx);
            let Some(connection) = &mut self.connection else { return Ok(()) };
            if connection.poll_timeout().is_some_and(|at| instant(now) >= at) {
                // What follows from it is said again by the next step.
                let _: Step = connection.handle_timeout(instant(now), &mut io);
            }
            let found = match connection.poll(instant(now), &mut io) {
                Ok(Step::Event(found)) => found,
                Ok(Step::NeedInput | Step::NeedFlush) => return Ok(()),
                Ok(Step::Closed(_)) => return Err(Over),
                Ok(Step::NeedSpace(_)) => return log.violated("a message above the buffer".into()),
                Err(error) => return log.violated(format!("protocol error: {error}")),
            };
            let message = match found.event(io.rx.reborrow()) {
                Event::Binary(message) => message,
                Event::Ping(_) | Event::Pong(_) | Event::Close(_) => continue,
                event => return log.violated(format!("{event:?}")),
            };
            match cbor::decode_client(message) {
                Ok(ClientMessage::Pub { n: Some(n), data: Data::Cbor(data), .. }) => {
                    let Ok(value) = minicbor::decode(data) else {
                        return log.violated(format!("data of {n}"));
                    };
                    self.answer(n, log.publish(self.incarnation, n, value), log, now);
                }
                Ok(ClientMessage::Sub { .. } | ClientMessage::Unsub { .. }) => {}
                other => return log.violated(format!("{other:?}")),
            }
        }
    }

    /// True when the connection is upgraded.
    fn upgrade(&mut self, now: u64) -> Result<bool, Over> {
        let (mut rx, mut tx) =
            (RxBuf::new(&mut self.rx, &mut self.rx_at), TxBuf::new(&mut self.tx, &mut self.tx_at));
        let head = match self.head.poll_request(&mut rx, &HeadLimits::DEFAULT) {
            Ok(HeadStep::Head(head)) => head,
            Ok(_) => return Ok(false),
            Err(_) => return Err(Over),
        };
        let request = head.view(rx.reborrow());
        let publisher = request.query().and_then(|query| query.strip_prefix("publisher="));
        self.incarnation = publisher.and_then(|publisher| publisher.parse().ok()).ok_or(Over)?;
        let upgrade = upgrade::accept(&request).map_err(|_| Over)?;
        let chosen = upgrade.subprotocols().next();
        upgrade.write_response(&mut tx, chosen, None, &[]).map_err(|_| Over)?;
        head.release(&mut rx);
        self.connection = Some(Connection::new(Server, &CONFIG, instant(now)));
        Ok(true)
    }

    fn hello(&mut self, log: &Log) {
        let _ = self.say(&ServerMessage::Hello {
            session: "s".into(),
            heartbeat: Duration::from_secs(30),
            lease: None,
            limits: Limits { max_message: 1024, max_topics: 8, max_inflight: log.rules.max_in_flight },
            publisher_n: log.largest(self.incarnation),
            window: None,
        });
    }

    fn answer(&mut self, n: u64, answer: Answer, log: &mut Log, now: u64) {
        let refusal = match answer {
            Answer::Taken => {
                let by =
                    self.ack.map_or_else(|| now + log.dice.between(0, log.rules.ack_within), |(_, by)| by);
                // A connection's numbers rise, but for those that were refused and come again.
                self.ack = Some((n.max(self.ack.map_or(0, |(n, _)| n)), by));
                return;
            }
            Answer::Later => {
                let retry_after = Some(Duration::from_millis(log.dice.between(0, 3000)));
                Refusal { retry_after, ..Refusal::new(Code::OverQuota, "") }
            }
            Answer::OutOfWindow => Refusal::new(Code::OutOfWindow, ""),
        };
        // What was taken before is said before: an acknowledgement speaks of all numbers up to its own but those that
        // were refused.
        if self.say(&ServerMessage::Nack { n: Some(n), refusal }).is_err() {
            // There is no room to refuse anything: the connection ends, and the device asks again on the next.
            self.over = true;
        }
    }

    /// Sends the acknowledgement that is due.
    fn acknowledge(&mut self, now: u64) {
        if let Some((n, by)) = self.ack
            && by <= now
        {
            self.ack = match self.say(&ServerMessage::Ack { n, level: Level::Ring, pressure: None }) {
                // What has to be written first wakes nobody.
                Err(SendError::Full) => Some((n, now + FULL)),
                _ => None,
            };
        }
    }

    fn say(&mut self, message: &ServerMessage<'_>) -> Result<(), SendError> {
        let mut encoded = Vec::with_capacity(128);
        let encode = cbor::encode_server(message, &mut |bytes: &[u8]| {
            encoded.extend_from_slice(bytes);
            Ok(())
        });
        assert!(encode.is_ok(), "{message:?}");
        let Some(connection) = &mut self.connection else { return Err(SendError::Closing) };
        connection.send_binary(&mut TxBuf::new(&mut self.tx, &mut self.tx_at), &encoded)
    }
}

impl Log {
    /// Notes what a device must never do, and ends the connection.
    fn violated(&mut self, what: String) -> Result<(), Over> {
        self.violation.get_or_insert(what);
        Err(Over)
    }
}

fn instant(micros: u64) -> Instant {
    Instant::from_millis(micros / 1000)
}
