//! A gateway made of the same core, at the other end of streams in memory.
#![allow(dead_code, reason = "each test file uses its part of this")]

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use embassy_time::{Duration, MockDriver};
use longwire_core::buf::{Io, RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::http::head::{HeadReader, Limits as HeadLimits, Step as HeadStep};
use longwire_core::http::upgrade;
use longwire_core::log::Since;
use longwire_core::session::ladder::{LadderConfig, Rung, Rungs};
use longwire_core::session::publisher::Incarnation;
use longwire_core::session::{ClientMessage, Data, Level, Limits, ServerMessage, cbor};
use longwire_core::time::Instant;
use longwire_core::ws::deflate;
use longwire_core::ws::{self, CloseCode, Connection, Event, Server, Step};
use longwire_embassy::{Connect, Link, Lost, Status, UplinkConfig};

use crate::common::{Memory, Pace, Wire};
use crate::zlib::Zlib;

static SERVER: ws::Config = ws::Config::new();

/// WebSocket, and nothing below it.
pub(crate) static CONFIG: UplinkConfig = UplinkConfig {
    ladder: LadderConfig { rungs: Rungs::only(Rung::WebSocket), ..LadderConfig::new() },
    ..UplinkConfig::new()
};

/// The links that were opened, newest last; each attempt opens one.
#[derive(Clone, Default)]
pub(crate) struct Network {
    pub(crate) wires: Rc<RefCell<Vec<Rc<RefCell<Wire>>>>>,
    pub(crate) down: bool,
    /// Where somebody answered, as the connectors were told: places in `wires`.
    pub(crate) answered: Rc<RefCell<Vec<usize>>>,
    /// The place of the link that this one opened last.
    pub(crate) opened: Option<usize>,
    /// Bytes that move at once; 7 if nothing is said.
    pub(crate) pace: Option<usize>,
}

impl Network {
    pub(crate) fn newest(&self) -> Rc<RefCell<Wire>> {
        self.wires.borrow().last().unwrap().clone()
    }
}

/// A link that cannot tell how much of a dropped write was taken: the uplink must never drop one.
pub(crate) struct Unsafe(Memory);

impl Link for Unsafe {
    type Error = Infallible;

    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        self.0.read(bytes).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.0.write(bytes).await
    }
}

impl Connect for Network {
    type Link<'a> = Unsafe;
    type Error = ();

    async fn connect(&mut self) -> Result<Unsafe, ()> {
        if self.down {
            return Err(());
        }
        let link = Memory::new(Pace::Bytes(self.pace.unwrap_or(7)));
        let mut wires = self.wires.borrow_mut();
        self.opened = Some(wires.len());
        wires.push(link.wire.clone());
        Ok(Unsafe(link))
    }

    fn answered(&mut self) {
        self.answered.borrow_mut().push(self.opened.unwrap());
    }
}

/// The gateway's end of one link.
pub(crate) struct Peer {
    pub(crate) wire: Rc<RefCell<Wire>>,
    pub(crate) connection: Option<Connection<Server>>,
    rx: (Vec<u8>, RxCursor),
    /// What was published: number, topic, value.
    pub(crate) published: Vec<(u64, String, u32)>,
    pub(crate) closed: Option<CloseCode>,
    pub(crate) publisher: Option<Incarnation>,
    /// What the head had as `Authorization`.
    pub(crate) authorization: Option<String>,
    /// What the URL asked for.
    pub(crate) query: String,
    /// What was said by `auth`.
    pub(crate) tokens: Vec<String>,
    /// What was subscribed to.
    pub(crate) subscribed: Vec<(Option<Since>, Vec<String>)>,
    /// Compresses whatever it says, if that was offered.
    zlib: Zlib,
}

impl Peer {
    pub(crate) fn new(wire: Rc<RefCell<Wire>>) -> Self {
        Self {
            wire,
            connection: None,
            rx: (vec![0; 4096], RxCursor::default()),
            published: Vec::new(),
            closed: None,
            publisher: None,
            authorization: None,
            query: String::new(),
            tokens: Vec::new(),
            subscribed: Vec::new(),
            zlib: Zlib::default(),
        }
    }

    /// Works off what the device sent.
    pub(crate) fn serve(&mut self) {
        let (mut bytes, mut at) = (vec![0; 4096], TxCursor::default());
        let mut io = Io::new(RxBuf::new(&mut self.rx.0, &mut self.rx.1), TxBuf::new(&mut bytes, &mut at));
        let came = core::mem::take(&mut self.wire.borrow_mut().from_client);
        assert_eq!(io.rx.fill(&came), came.len());
        if self.connection.is_none() {
            match HeadReader::default().poll_request(&mut io.rx, &HeadLimits::DEFAULT).unwrap() {
                HeadStep::Head(head) => {
                    let request = head.view(io.rx.reborrow());
                    assert_eq!((request.path(), request.authority()), ("/v1/stream", "gateway:80"));
                    self.query = request.query().unwrap().to_owned();
                    let publisher = self.query.split('&').find_map(|pair| pair.strip_prefix("publisher="));
                    self.publisher = Some(publisher.unwrap().parse().unwrap());
                    let authorization = request.header("authorization");
                    self.authorization =
                        authorization.map(|value| String::from_utf8(value.to_vec()).unwrap());
                    let upgrade = upgrade::accept(&request).unwrap();
                    let chosen = upgrade.subprotocols().next();
                    assert_eq!(chosen, Some("longwire.v1.cbor"));
                    let takes_over = deflate::Window { bits: 15, takeover: true };
                    let own = deflate::Config { send: takes_over, ..deflate::Config::new() };
                    let (agreed, extensions) = own.accept(upgrade.extensions()).unzip();
                    upgrade.write_response(&mut io.tx, chosen, extensions.as_deref(), &[]).unwrap();
                    head.release(&mut io.rx);
                    let connection = Connection::new(Server, &SERVER, Instant::default());
                    self.connection = Some(match agreed {
                        Some(agreed) => connection.with_deflate(agreed),
                        None => connection,
                    });
                }
                _ => return,
            }
        }
        let connection = self.connection.as_mut().unwrap();
        while let Step::Event(found) = connection.poll(Instant::default(), &mut io).unwrap() {
            match found.event(io.rx.reborrow()) {
                Event::Binary(message) => match cbor::decode_client(message).unwrap() {
                    ClientMessage::Pub { n, topic, key: None, data: Data::Cbor(data) } => {
                        let value = minicbor::decode(data).unwrap();
                        self.published.push((n.unwrap(), topic.as_plain().unwrap().into(), value));
                    }
                    ClientMessage::Auth { token } => self.tokens.push(token.as_plain().unwrap().into()),
                    ClientMessage::Sub { id: Some(1), since, topics, .. } => {
                        let topics = topics.iter().map(|topic| topic.as_plain().unwrap().into()).collect();
                        self.subscribed.push((since, topics));
                    }
                    message => panic!("{message:?}"),
                },
                Event::Close(reason) => self.closed = reason.code,
                Event::Ping(_) | Event::Pong(_) => {}
                event => panic!("{event:?}"),
            }
        }
        self.wire.borrow_mut().to_client.extend(io.tx.pending());
    }

    pub(crate) fn say(&mut self, message: &ServerMessage<'_>) {
        let mut encoded = heapless::Vec::<u8, 256>::new();
        cbor::encode_server(message, &mut encoded).unwrap();
        let mut zlib = core::mem::take(&mut self.zlib);
        self.frame(|connection, tx| match connection.send_window() {
            Some(window) => {
                connection.start_deflated(ws::Kind::Binary).unwrap();
                connection.write(tx, &zlib.deflate(window, &encoded)).unwrap();
                connection.finish(tx).unwrap();
            }
            None => connection.send_binary(tx, &encoded).unwrap(),
        });
        self.zlib = zlib;
    }

    pub(crate) fn frame(&mut self, write: impl FnOnce(&mut Connection<Server>, &mut TxBuf<'_>)) {
        let (mut bytes, mut at) = (vec![0; 4096], TxCursor::default());
        let mut tx = TxBuf::new(&mut bytes, &mut at);
        write(self.connection.as_mut().unwrap(), &mut tx);
        self.wire.borrow_mut().to_client.extend(tx.pending());
    }

    pub(crate) fn hello(&mut self, max_inflight: u64) {
        self.hello_with(max_inflight, None, None);
    }

    pub(crate) fn hello_with(
        &mut self,
        max_inflight: u64,
        window: Option<core::time::Duration>,
        lease: Option<core::time::Duration>,
    ) {
        self.say(&ServerMessage::Hello {
            session: "s".into(),
            heartbeat: core::time::Duration::from_secs(15),
            lease,
            limits: Limits { max_message: 200, max_topics: 1, max_inflight },
            publisher_n: None,
            window,
        });
    }

    pub(crate) fn ack(&mut self, n: u64) {
        self.say(&ServerMessage::Ack { n, level: Level::Ring, pressure: None });
    }
}

/// What an uplink said.
pub(crate) type Seen = Rc<RefCell<Vec<Status>>>;

/// A turn of the uplink, one of the gateway, one of the uplink again.
pub(crate) fn exchange(turn: &mut dyn FnMut() -> Option<Lost>, peer: &mut Peer) {
    assert_eq!(turn(), None);
    peer.serve();
    assert_eq!(turn(), None);
    peer.serve();
}

/// The gateway's end of the link that the uplink has just opened. The request is answered.
pub(crate) fn accepted(network: &Network, turn: &mut dyn FnMut() -> Option<Lost>) -> Peer {
    assert_eq!(turn(), None);
    let mut peer = Peer::new(network.newest());
    exchange(turn, &mut peer);
    peer
}

/// The same, and it has said `hello` as well.
pub(crate) fn opened(network: &Network, turn: &mut dyn FnMut() -> Option<Lost>, max_inflight: u64) -> Peer {
    let mut peer = accepted(network, turn);
    peer.hello(max_inflight);
    exchange(turn, &mut peer);
    peer
}

pub(crate) fn last_wait(seen: &Seen) -> Duration {
    match seen.borrow().last() {
        Some(Status::Waiting(wait)) => Duration::from_millis(wait.as_millis().try_into().unwrap()),
        other => panic!("{other:?}"),
    }
}

/// Lets time go by until the uplink has said more than `so_far` things.
pub(crate) fn wait_for_status(
    clock: &MockDriver,
    seen: &Seen,
    so_far: usize,
    turn: &mut dyn FnMut() -> Option<Lost>,
) -> u64 {
    for seconds in 0..100 {
        assert_eq!(turn(), None);
        if seen.borrow().len() > so_far {
            return seconds;
        }
        clock.advance(Duration::from_secs(1));
    }
    panic!("nothing: {seen:?}")
}
