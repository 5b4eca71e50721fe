//! A connection to the gateway that comes back by itself.

use core::fmt::{self, Write as _};

use embassy_futures::select::select;
use embassy_sync::blocking_mutex::raw::RawMutex;
use embassy_time::{Duration, Instant, Timer, with_deadline, with_timeout};
use heapless::String;
use longwire_core::http::upgrade::Offer;
use longwire_core::http::write::{Field, WriteError};
use longwire_core::rand_core::CryptoRng;
use longwire_core::session::backoff::{Backoff, BackoffConfig, Failure, Verdict};
use longwire_core::session::publisher::Incarnation;
use longwire_core::session::{ClientMessage, Code, Data, Length, Limits, ServerMessage, SliceSink, cbor};
use longwire_core::ws::{CloseCode, Event, SendError};

use crate::buffered::now;
use crate::error::{Error, HandshakeError};
use crate::link::{Connect, Link};
use crate::outbox::{Outbox, Reading, Source};
use crate::websocket::{Config, Decompressor, WebSocket};

/// Bytes of the longest [`Gateway::target`].
pub const MAX_TARGET: usize = 128;
/// What a publisher adds to it: `?publisher=` and 16 digits.
const PUBLISHER: usize = 27;

/// The subprotocol of devices (`PROTOCOL.md` section 4).
const SUBPROTOCOL: &str = "longwire.v1.cbor";

/// How an uplink connects, and comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkConfig {
    /// Each connection. `handshake_timeout` also bounds the wait for `hello`.
    pub connection: Config,
    /// How long it may take to open a link. Default 10 s.
    pub connect_timeout: Duration,
    /// How long to wait between attempts. Default as `PROTOCOL.md` section 11 has it: full jitter, from half a second up
    /// to 30 seconds.
    pub backoff: BackoffConfig,
}

impl UplinkConfig {
    /// The defaults, as a constant.
    pub const fn new() -> Self {
        Self {
            connection: Config::new(),
            connect_timeout: Duration::from_secs(10),
            backoff: BackoffConfig::new(),
        }
    }
}

impl Default for UplinkConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// Whom an uplink talks to.
#[derive(Clone, Copy, Debug)]
pub struct Gateway<'a> {
    /// The host as it stands in the request, with its port unless that is 80: `10.0.2.2:8080`.
    pub host: &'a str,
    /// Path and query of the stream, at most [`MAX_TARGET`] bytes; a longer one is
    /// [`WriteError::Target`](longwire_core::http::write::WriteError::Target). Default `/v1/stream`.
    pub target: &'a str,
    /// The value of the `Authorization` header: `Bearer TOKEN`. Default none.
    pub authorization: Option<&'a str>,
}

impl<'a> Gateway<'a> {
    /// A gateway's stream, without a credential.
    pub const fn new(host: &'a str) -> Self {
        Self { host, target: "/v1/stream", authorization: None }
    }
}

/// What an uplink is doing, told when it changes: for a light, or a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Status {
    /// It makes an attempt.
    Connecting,
    /// The gateway said `hello`: readings are sent.
    Open,
    /// The attempt failed, or the connection ended.
    Lost(Lost),
    /// The next attempt is made after this time.
    Waiting(core::time::Duration),
}

/// Why an uplink has no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Lost {
    /// No link could be opened, or not in time.
    NoLink,
    /// The opening handshake failed.
    Handshake(HandshakeError<()>),
    /// The server does not speak longwire in CBOR.
    NoSubprotocol,
    /// There was no `hello` in time.
    NoHello,
    /// A text frame, which has no place on a connection that speaks CBOR.
    TextFrame,
    /// A message that is no envelope.
    BadMessage,
    /// The gateway said `bye`, with this code if it is known here.
    Bye(Option<Code>, Failure),
    /// The gateway closed, with this code if it gave one.
    Closed(Option<CloseCode>),
    /// The connection broke.
    Broken(Error<()>),
}

impl Lost {
    /// Whether and when to come back, by the tables of `PROTOCOL.md` sections 6 and 9.
    pub fn failure(&self) -> Failure {
        match *self {
            // What is wrong with the request is wrong with the next one.
            Self::Handshake(HandshakeError::Request(_)) => Failure::Permanent,
            Self::Handshake(HandshakeError::Refused { status, retry_after }) => {
                let retry_after = retry_after.map(|s| core::time::Duration::from_secs(s.into()));
                Failure::from_status(status, retry_after)
            }
            Self::Bye(_, failure) => failure,
            Self::Closed(Some(code)) => Failure::from_close(code),
            _ => Failure::Lost,
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLink => f.write_str("no link"),
            Self::Handshake(error) => error.fmt(f),
            Self::NoSubprotocol => write!(f, "the server does not speak {SUBPROTOCOL}"),
            Self::NoHello => f.write_str("no hello in time"),
            Self::TextFrame => f.write_str("a text frame instead of CBOR"),
            Self::BadMessage => f.write_str("a message that is no envelope"),
            Self::Bye(Some(code), _) => write!(f, "the gateway said bye: {code}"),
            Self::Bye(None, _) => f.write_str("the gateway said bye"),
            Self::Closed(Some(code)) => write!(f, "the gateway closed with {code}"),
            Self::Closed(None) => f.write_str("the gateway closed"),
            Self::Broken(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Lost {}

/// Sends what an [`Outbox`] holds to a gateway, over one connection after the other.
///
/// It owns nothing but its settings; the two buffers are lent to each connection in turn (about their sizes see
/// [`WebSocket::connect`]; 512 bytes each are enough for readings of up to 300 bytes). The generator gives the
/// handshake's key, the masks, the jitter, and the number by which the gateway knows the outbox again
/// (`publisher` in the URL).
pub struct Uplink<'b, C, R> {
    connect: C,
    gateway: Gateway<'b>,
    config: &'b UplinkConfig,
    rng: R,
    rx: &'b mut [u8],
    tx: &'b mut [u8],
    decompressor: Option<Decompressor<'b>>,
}

impl<'b, C: Connect, R: CryptoRng> Uplink<'b, C, R> {
    /// An uplink that does nothing until it is [run](Self::run).
    pub fn new(
        connect: C,
        gateway: Gateway<'b>,
        config: &'b UplinkConfig,
        rng: R,
        rx: &'b mut [u8],
        tx: &'b mut [u8],
    ) -> Self {
        Self { connect, gateway, config, rng, rx, tx, decompressor: None }
    }

    /// The same uplink, which offers the gateway to compress what it sends: see
    /// [`WebSocket::connect_compressed`]. The decompressor is lent to each connection in turn. For a window below 32768
    /// bytes longwire's gateway does not compress (see `Inflater`).
    #[cfg(feature = "inflate")]
    #[must_use]
    pub fn with_decompressor(self, decompressor: impl Into<Decompressor<'b>>) -> Self {
        Self { decompressor: Some(decompressor.into()), ..self }
    }

    /// Runs until the gateway refuses for good (a credential that it does not take, a rule that this device breaks),
    /// and says why: then the same would happen again. Everything else is tried again, with growing waits. `observe`
    /// is told what goes on.
    ///
    /// An outbox has one uplink at a time. The future may be dropped at any time: the connection is cut then, and the
    /// outbox keeps what was not acknowledged.
    pub async fn run<M: RawMutex, const BYTES: usize>(
        &mut self,
        outbox: &Outbox<M, BYTES>,
        mut observe: impl FnMut(Status),
    ) -> Lost {
        let mut backoff = Backoff::new(self.config.backoff);
        loop {
            observe(Status::Connecting);
            let lost = self.attempt(outbox, &mut backoff, &mut observe).await;
            observe(Status::Lost(lost));
            match backoff.failed(now(), lost.failure(), &mut self.rng) {
                Verdict::Retry(wait) => {
                    observe(Status::Waiting(wait));
                    Timer::at(Instant::from_millis(now().after(wait).as_millis())).await;
                }
                Verdict::Stop => return lost,
            }
        }
    }

    /// One connection, from its beginning to its end.
    async fn attempt(
        &mut self,
        outbox: &impl Source,
        backoff: &mut Backoff,
        observe: &mut impl FnMut(Status),
    ) -> Lost {
        let Ok(Ok(link)) = with_timeout(self.config.connect_timeout, self.connect.connect()).await else {
            return Lost::NoLink;
        };
        let Some(target) = target(self.gateway.target, outbox.incarnation(|| self.rng.next_u64())) else {
            return Lost::Handshake(HandshakeError::Request(WriteError::Target));
        };
        let field: Option<Field<'_>> = self.gateway.authorization.map(|value| ("Authorization", value));
        let offer = Offer {
            subprotocols: &[SUBPROTOCOL],
            fields: field.as_slice(),
            ..Offer::new(self.gateway.host, &target)
        };
        let (config, rng) = (&self.config.connection, &mut self.rng);
        let (rx, tx) = (&mut *self.rx, &mut *self.tx);
        let decompressor = self.decompressor.as_mut().map(Decompressor::reborrow);
        match WebSocket::open(link, &offer, config, rng, rx, tx, decompressor).await {
            Err(error) => Lost::Handshake(error.without_link()),
            Ok((_, None)) => Lost::NoSubprotocol,
            Ok((mut socket, Some(_))) => {
                let hello_by = Instant::now() + self.config.connection.handshake_timeout;
                let mut opened = |window: Option<core::time::Duration>| {
                    backoff.connected(now());
                    if let Some(window) = window {
                        backoff.spread(window);
                    }
                    observe(Status::Open);
                };
                let max_pause = self.config.backoff.max_told;
                match converse(&mut socket, hello_by, max_pause, outbox, &mut opened).await {
                    End::Close(code, lost) => {
                        // The last word: whether it is heard changes nothing.
                        let _ = socket.close(code, "").await;
                        lost
                    }
                    End::Broken(error) => Lost::Broken(error),
                }
            }
        }
    }
}

/// A target as a publisher asks for it; `None` when it is too long.
fn target(target: &str, incarnation: Incarnation) -> Option<String<{ MAX_TARGET + PUBLISHER }>> {
    let separator = if target.contains('?') { '&' } else { '?' };
    let mut whole = String::new();
    let fits = target.len() <= MAX_TARGET;
    (fits && write!(whole, "{target}{separator}publisher={incarnation}").is_ok()).then_some(whole)
}

/// How a conversation ended.
enum End {
    /// To be closed with this code, unless the peer was first.
    Close(CloseCode, Lost),
    Broken(Error<()>),
}

impl<E> From<Error<E>> for End {
    fn from(error: Error<E>) -> Self {
        Self::Broken(error.without_link())
    }
}

/// Receives, sends, waits; until the end.
async fn converse<L: Link, R: CryptoRng>(
    socket: &mut WebSocket<'_, L, R>,
    hello_by: Instant,
    max_pause: core::time::Duration,
    outbox: &impl Source,
    opened: &mut impl FnMut(Option<core::time::Duration>),
) -> End {
    outbox.rewind();
    let mut allowed = None;
    // Nothing is sent earlier: the gateway asked for it.
    let mut not_before = Instant::MIN;
    loop {
        // 1. Work off what was received.
        loop {
            match socket.try_recv() {
                Ok(Some(event)) => match hear(event, outbox) {
                    Ok(Heard::Nothing) => {}
                    Ok(Heard::Wait(wait)) => {
                        let wait = Duration::try_from(wait.min(max_pause)).unwrap_or(Duration::MAX);
                        not_before = not_before.max(Instant::now().saturating_add(wait));
                    }
                    Ok(Heard::Hello(limits)) => {
                        if allowed.replace(limits).is_none() {
                            opened(limits.window);
                        }
                    }
                    Err(end) => return end,
                },
                Ok(None) => break,
                Err(error) => {
                    // What is left to be said (why the connection fails) goes out if it can.
                    let _ = socket.flush().await;
                    return error.into();
                }
            }
        }
        // 2. Queue readings and write everything. Nothing here is dropped half-way.
        let paused = Instant::now() < not_before;
        let sent = match allowed {
            Some(limits) if !paused => send(socket, outbox, limits).await,
            _ => socket.flush().await,
        };
        if let Err(error) = sent {
            return error.into();
        }
        // 3. Wait for either side. Both waits lose nothing when they are dropped.
        let either = select(socket.fill(), outbox.reported());
        let waited = match allowed {
            Some(_) if paused => match with_deadline(not_before, either).await {
                Ok(waited) => waited,
                Err(_) => continue,
            },
            Some(_) => either.await,
            None => match with_deadline(hello_by, either).await {
                Ok(waited) => waited,
                Err(_) => return End::Close(CloseCode::POLICY, Lost::NoHello),
            },
        };
        if let embassy_futures::select::Either::First(Err(error)) = waited {
            return error.into();
        }
    }
}

/// What the gateway said.
enum Heard {
    Nothing,
    Hello(Allowed),
    /// Publish nothing for as long.
    Wait(core::time::Duration),
}

/// What the gateway allows.
#[derive(Clone, Copy)]
struct Allowed {
    max_in_flight: u64,
    max_message: u64,
    /// Over which time clients come back when the gateway goes away without a word.
    window: Option<core::time::Duration>,
}

/// Takes in what the gateway says.
fn hear(event: Event<'_>, outbox: &impl Source) -> Result<Heard, End> {
    let message = match event {
        Event::Binary(message) => message,
        Event::Ping(_) | Event::Pong(_) => return Ok(Heard::Nothing),
        Event::Close(reason) => return Err(End::Close(CloseCode::NORMAL, Lost::Closed(reason.code))),
        // `PROTOCOL.md` section 6: "A text frame on a CBOR connection [...] closes with 1003."
        Event::Text(_) | Event::Chunk(_) => return Err(End::Close(CloseCode::UNSUPPORTED, Lost::TextFrame)),
    };
    match cbor::decode_server(message) {
        Ok(ServerMessage::Hello { limits, window, .. }) => {
            let Limits { max_inflight: max_in_flight, max_message, .. } = limits;
            return Ok(Heard::Hello(Allowed { max_in_flight, max_message, window }));
        }
        Ok(ServerMessage::Ack { n, pressure, .. }) => {
            outbox.acknowledge(n);
            return Ok(pressure.map_or(Heard::Nothing, Heard::Wait));
        }
        Ok(ServerMessage::Nack { n: Some(n), refusal }) => {
            // Where the gateway does not say when it might be taken, the others do not wait for it.
            let again = refusal.retry_after.filter(|_| !refusal.permanent);
            outbox.refuse(n, again.is_none());
            return Ok(again.map_or(Heard::Nothing, Heard::Wait));
        }
        Ok(ServerMessage::Bye { refusal, window }) => {
            let failure = match (refusal.permanent, refusal.retry_after, window) {
                (true, ..) => Failure::Permanent,
                (false, None, None) => Failure::Lost,
                (false, retry_after, window) => Failure::Told {
                    retry_after: retry_after.unwrap_or_default(),
                    window: window.unwrap_or_default(),
                },
            };
            return Err(End::Close(CloseCode::NORMAL, Lost::Bye(refusal.code(), failure)));
        }
        // Of no interest to whoever only publishes; or of a type that a later version added.
        Ok(_) => {}
        Err(error) if error.code == Code::UnknownType => {}
        Err(_) => return Err(End::Close(CloseCode::POLICY, Lost::BadMessage)),
    }
    Ok(Heard::Nothing)
}

/// Sends readings until there are none left, or as many as allowed are not acknowledged.
async fn send<L: Link, R: CryptoRng>(
    socket: &mut WebSocket<'_, L, R>,
    outbox: &impl Source,
    allowed: Allowed,
) -> Result<(), Error<L::Error>> {
    loop {
        let publish = |n, reading: Reading<'_>| publish(socket, allowed.max_message, n, reading);
        match outbox.send_next(allowed.max_in_flight, publish) {
            Some(Ok(())) => {}
            // No room even in an empty buffer: this reading can never be sent.
            Some(Err(SendError::Full)) if socket.is_flushed() => outbox.give_up_next(),
            Some(Err(SendError::Full)) => socket.flush().await?,
            // It is closing: what comes next is for the receiver to say.
            Some(Err(_)) | None => return socket.flush().await,
        }
    }
}

/// Queues one reading as a `pub`.
fn publish<L: Link, R: CryptoRng>(
    socket: &mut WebSocket<'_, L, R>,
    max_message: u64,
    n: u64,
    Reading { topic, key, data }: Reading<'_>,
) -> Result<(), SendError> {
    let (key, data) = (key.map(Into::into), Data::Cbor(data));
    let message = ClientMessage::Pub { n: Some(n), topic: topic.into(), key, data };
    let mut length = Length::default();
    let counted = cbor::encode_client(&message, &mut length);
    let fits = counted.is_ok() && length.0 <= max_message;
    let Some(len) = usize::try_from(length.0).ok().filter(|_| fits) else { return Err(SendError::Full) };
    socket.try_send_with(len, |space| {
        // The same message again, into as much room as was counted.
        let _ = cbor::encode_client(&message, &mut SliceSink::new(space));
    })
}
