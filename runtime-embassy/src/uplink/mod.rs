//! A connection to the gateway that comes back by itself.

mod form;
mod hear;
#[cfg(feature = "sse")]
mod http;
mod pilot;
#[cfg(feature = "ladder")]
mod polls;
#[cfg(feature = "sse")]
mod posts;
#[cfg(feature = "sse")]
mod renewal;
mod session;
mod status;
#[cfg(feature = "sse")]
mod stream;
mod tokens;

#[cfg(feature = "sse")]
use core::cell::Cell;
use core::pin::{Pin, pin};

use embassy_sync::blocking_mutex::raw::RawMutex;
use embassy_time::{Duration, Instant, with_deadline};
use longwire_core::http::write::WriteError;
use longwire_core::log::Since;
use longwire_core::rand_core::CryptoRng;
use longwire_core::session::backoff::BackoffConfig;
use longwire_core::session::connector::{Action, ConnectorConfig, Event};
use longwire_core::session::ladder::{LadderConfig, Memory, Rung, Rungs};
use longwire_core::ws::CloseCode;

use crate::commands::{Commands, Inbox};
use crate::error::{Error, HandshakeError};
use crate::link::Connect;
use crate::outbox::{Outbox, Source};
use crate::websocket::{Config, Decompressor};
use pilot::Pilot;
use tokens::Purse;

#[cfg(feature = "sse")]
pub(crate) use http::said;

pub use form::Form;
pub use status::{Lost, Status};
pub use tokens::{NoTokens, Present, Tokens, Why};

/// Bytes of the longest [`Gateway::target`].
pub const MAX_TARGET: usize = 128;

/// How an uplink connects, and comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkConfig {
    /// Each connection.
    pub connection: Config,
    /// How messages are written on a WebSocket. Default CBOR.
    pub form: Form,
    /// Which transports may be used, and how long an attempt may take: from the name to the gateway's first word
    /// [`open`](LadderConfig::open), 10 s. Of the rungs those are used that the crate was built with (features `sse` and `ladder`)
    /// and that fit what the device does. Default as `PROTOCOL.md` section 11.2 has it.
    pub ladder: LadderConfig,
    /// How long to wait between attempts. Default as `PROTOCOL.md` section 11.1 has it: full jitter, from half a second up
    /// to 30 seconds, and what the gateway says.
    pub backoff: BackoffConfig,
    /// How long [`Tokens::token`] may take. Default 10 s.
    pub token_timeout: Duration,
}

impl UplinkConfig {
    /// The defaults, as a constant.
    pub const fn new() -> Self {
        Self {
            connection: Config::new(),
            form: Form::Cbor,
            ladder: LadderConfig::new(),
            backoff: BackoffConfig::new(),
            token_timeout: Duration::from_secs(10),
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
    /// The value of the `Authorization` header, when it is always the same: `Bearer TOKEN`. Default none.
    /// [`Uplink::with_tokens`] is for those that change.
    pub authorization: Option<&'a str>,
}

impl<'a> Gateway<'a> {
    /// A gateway's stream, without a credential.
    pub const fn new(host: &'a str) -> Self {
        Self { host, target: "/v1/stream", authorization: None }
    }
}

/// A way to open links, with the buffers of the one that is open.
struct Line<'b, C> {
    connect: C,
    rx: &'b mut [u8],
    tx: &'b mut [u8],
}

/// What is to come down.
#[derive(Clone, Copy)]
struct Subscription<'b> {
    inbox: &'b dyn Inbox,
    patterns: &'b [&'b str],
}

/// Where, and how often at most, the counts of the outbox are reported.
#[derive(Clone, Copy)]
struct ReportCounts<'b> {
    topic: &'b str,
    every: Duration,
    due: Instant,
}

/// Sends what an [`Outbox`] holds to a gateway, and brings [`Commands`] down, over one connection after the other.
///
/// It owns nothing but its settings and where it is in what comes down; the two buffers are lent to each connection in turn
/// (about their sizes see [`WebSocket::connect`](crate::WebSocket::connect); 512 bytes each are enough for readings of up to
/// 300 bytes). The generator gives the handshake's key, the masks, the jitter, and the number by which the gateway knows the
/// outbox again (`publisher` in the URL).
///
/// What it does about time, transports and credentials is decided by the core
/// ([`Connector`](longwire_core::session::connector::Connector)), and is that of `PROTOCOL.md` sections 8.4 and 11: one attempt at a
/// time, full jitter, the gateway's `window` and `retry_after`; a credential that was refused is replaced once, and then it is
/// the end.
///
/// ```
/// use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
/// use longwire_embassy::core::log::Since;
/// use longwire_embassy::core::rand_core::CryptoRng;
/// use longwire_embassy::{Commands, Connect, Gateway, Lost, Outbox, Overflow, Policy, Present, Tokens, Uplink, UplinkConfig};
///
/// static OUTBOX: Outbox<CriticalSectionRawMutex, 2048> = Outbox::new(Policy::DropOldest);
/// static COMMANDS: Commands<CriticalSectionRawMutex, 8, 64> = Commands::new(Overflow::Conflate);
/// static CONFIG: UplinkConfig = UplinkConfig::new();
///
/// async fn uplink(connect: impl Connect, tokens: impl Tokens, rng: impl CryptoRng) -> Lost {
///     let (mut rx, mut tx, mut token) = ([0; 512], [0; 1024], [0; 512]);
///     let gateway = Gateway::new("gateway.example:8080");
///     Uplink::new(connect, gateway, &CONFIG, rng, &mut rx, &mut tx)
///         .with_tokens(tokens, &mut token, Present::Head)
///         .with_commands(&COMMANDS, &["device/7/do/*"], Since::Now)
///         .with_counts("device/7/counts", embassy_time::Duration::from_secs(60))
///         .run(&OUTBOX, |_status| {})
///         .await
/// }
/// ```
pub struct Uplink<'b, C, R, T = NoTokens> {
    gateway: Gateway<'b>,
    config: &'b UplinkConfig,
    rng: R,
    line: Line<'b, C>,
    /// For posts beside a stream.
    #[cfg(feature = "sse")]
    side: Option<Line<'b, C>>,
    decompressor: Option<Decompressor<'b>>,
    purse: Purse<'b, T>,
    subscription: Option<Subscription<'b>>,
    counts: Option<ReportCounts<'b>>,
    pilot: Option<Pilot>,
    since: Since,
    memory: Option<Memory>,
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
        Self {
            gateway,
            config,
            rng,
            line: Line { connect, rx, tx },
            #[cfg(feature = "sse")]
            side: None,
            decompressor: None,
            purse: Purse::new(NoTokens, &mut [], Present::Head, config.token_timeout),
            subscription: None,
            counts: None,
            pilot: None,
            since: Since::Now,
            memory: None,
        }
    }

    /// The same uplink with credentials that change: it asks for one before each connection, and when the gateway says that
    /// a grant is about to end. Then it is renewed, and the connection goes on: in band on a WebSocket, by a POST beside an event
    /// stream. Each poll shows its token by itself, and when that is refused the next connection has another one.
    ///
    /// The next token takes the place of the last one from the moment that it is asked for. While it is waited for nothing is posted
    /// beside a stream; and if there is none to be had, nothing until the grant ends and the next stream is opened.
    ///
    /// `space` is for one token and seven bytes. What is too long for the send buffer, or for that of
    /// `with_posts`, ends the uplink ([`Lost::TooLong`], or a failed handshake); the outbox keeps its readings.
    #[must_use]
    pub fn with_tokens<T: Tokens>(
        self,
        tokens: T,
        space: &'b mut [u8],
        present: Present,
    ) -> Uplink<'b, C, R, T> {
        Uplink {
            gateway: self.gateway,
            config: self.config,
            rng: self.rng,
            line: self.line,
            #[cfg(feature = "sse")]
            side: self.side,
            decompressor: self.decompressor,
            purse: Purse::new(tokens, space, present, self.config.token_timeout),
            subscription: self.subscription,
            counts: self.counts,
            pilot: self.pilot,
            since: self.since,
            memory: self.memory,
        }
    }
}

impl<'b, C: Connect, R: CryptoRng, T: Tokens> Uplink<'b, C, R, T> {
    /// The same uplink, which offers the gateway to compress what it sends: see
    /// [`WebSocket::connect_compressed`](crate::WebSocket::connect_compressed). The decompressor is lent to each connection in turn.
    /// For a window below 32768 bytes longwire's gateway does not compress (see `Inflater`).
    #[cfg(feature = "inflate")]
    #[must_use]
    pub fn with_decompressor(self, decompressor: impl Into<Decompressor<'b>>) -> Self {
        Self { decompressor: Some(decompressor.into()), ..self }
    }

    /// The same uplink with a second line, for posts: then commands come down over SSE, or by long polls (feature `ladder`), where
    /// no WebSocket can be had, and readings go up by POST beside them. Without commands a POST for each reading needs no
    /// second line.
    ///
    /// `tx` has to hold a request with its reading, `rx` the answer (300 bytes). The send buffer of the first line then
    /// takes the head of an answer, and its receive buffer an event in JSON, or the answer to a poll.
    #[cfg(feature = "sse")]
    #[must_use]
    pub fn with_posts(self, connect: C, rx: &'b mut [u8], tx: &'b mut [u8]) -> Self {
        Self { side: Some(Line { connect, rx, tx }), ..self }
    }

    /// The same uplink, which brings down the events of these patterns (`PROTOCOL.md` section 3), at least one. They begin at
    /// `since`, and go on behind the last one had, over all connections of this uplink: the cursor is in its memory.
    ///
    /// A command larger than the receive buffer cannot be had: the connection that it comes over ends
    /// ([`Error::MessageTooBig`]), and commands go on with what is published after the next one is opened. What was published up to
    /// then may be missing, and that is told by an [`Arrival::Gap`](crate::Arrival::Gap) with
    /// [`TooLarge`](longwire_core::session::GapReason::TooLarge). So it goes, by polls, with a state that fits neither the receive
    /// buffer nor an answer of the gateway.
    #[must_use]
    pub fn with_commands<M: RawMutex, const N: usize, const BYTES: usize>(
        self,
        commands: &'b Commands<M, N, BYTES>,
        patterns: &'b [&'b str],
        since: Since,
    ) -> Self {
        Self { subscription: Some(Subscription { inbox: commands, patterns }), since, ..self }
    }

    /// The same uplink, which reports the [`Counts`](crate::Counts) of the outbox as a reading on this topic, with
    /// [`Policy::Conflate`](crate::Policy::Conflate): while a connection is open, when something was lost since that was done last,
    /// and at most every so often. The counts are counted like any reading, and what they themselves replace gives no
    /// cause to report again.
    #[must_use]
    pub fn with_counts(self, topic: &'b str, every: Duration) -> Self {
        Self { counts: Some(ReportCounts { topic, every, due: Instant::MIN }), ..self }
    }

    /// The same uplink, which begins with what another one has [learned](Self::memory) about the way to its gateway.
    #[must_use]
    pub fn with_memory(self, memory: Memory) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// What was learned about the way to the gateway so far: worth keeping, four bytes.
    pub fn memory(&self) -> Option<Memory> {
        self.pilot.as_ref().and_then(|pilot| pilot.reader.connector().memory()).or(self.memory)
    }

    /// Runs until the gateway refuses for good (a credential that it does not take, a rule that this device breaks),
    /// and says why: then the same would happen again. Everything else is tried again, with growing waits. `observe`
    /// is told what goes on.
    ///
    /// An outbox has one uplink at a time. The future may be dropped at any time: the connection is cut then, the
    /// outbox keeps what was not acknowledged, and the next run goes on behind the last command that was had.
    pub async fn run<M: RawMutex, const BYTES: usize>(
        &mut self,
        outbox: &Outbox<M, BYTES>,
        mut observe: impl FnMut(Status),
    ) -> Lost {
        let connector =
            ConnectorConfig { ladder: self.ladder(), backoff: self.config.backoff, renewable: T::SOME };
        let (since, memory) =
            (self.pilot.as_ref().map_or(self.since, |pilot| pilot.reader.since()), self.memory());
        let skipped = self.pilot.as_ref().and_then(|pilot| pilot.skipped);
        let Self { gateway, config, rng, line, decompressor, purse, subscription, counts, pilot, .. } = self;
        #[cfg(feature = "sse")]
        let side = &mut self.side;
        let pilot = pilot.insert(Pilot::new(connector, since, memory, rng));
        pilot.skipped = skipped;
        let observe = &mut observe;
        let mut desk = Desk {
            gateway,
            config,
            outbox,
            subscription: *subscription,
            counts,
            pilot,
            observe,
            #[cfg(feature = "sse")]
            not_before: &Cell::new(Instant::MIN),
        };
        let mut lost = Lost::NoLink;
        let mut action = desk.pilot.start();
        loop {
            let rung = match action {
                // There is room for one connection: the one that works is closed before another one is tried.
                Action::Open(rung) | Action::LookUp(rung) => rung,
                #[cfg(feature = "sse")]
                Action::Back => {
                    action = desk.pilot.reopen();
                    continue;
                }
                Action::Wait(wait) => {
                    desk.tell(Status::Waiting(wait));
                    action = desk.pilot.wait().await;
                    continue;
                }
                // The others have no meaning without a connection.
                _ => return lost,
            };
            desk.tell(Status::Connecting(rung));
            let end = match rung {
                #[cfg(feature = "sse")]
                Rung::Poll => apart(pin!(stream::over_posts(line, rng, purse, &mut desk))).await,
                #[cfg(feature = "sse")]
                Rung::Sse | Rung::LongPoll if let Some(side) = side => {
                    apart(pin!(stream::over_stream(rung, line, side, rng, purse, &mut desk))).await
                }
                _ => {
                    let decompressor = decompressor.as_mut().map(Decompressor::reborrow);
                    apart(pin!(session::over_websocket(line, decompressor, rng, purse, &mut desk))).await
                }
            };
            lost = end.lost;
            if desk.pilot.was_answered(Some(lost)) {
                line.connect.answered();
            }
            desk.tell(Status::Lost(lost));
            action = match (end.action, lost) {
                (Some(action), _) => action,
                #[cfg(feature = "storage")]
                (None, Lost::Incarnation) => desk.pilot.reopen(),
                (None, lost) => desk.pilot.handle(Event::Ended(lost.ending())),
            };
            if matches!(lost, Lost::Broken(Error::MessageTooBig)) {
                desk.pilot.skip();
            }
        }
    }

    /// The rungs that may be used, of those that can be.
    fn ladder(&self) -> LadderConfig {
        if cfg!(not(feature = "sse")) {
            return LadderConfig { rungs: Rungs::only(Rung::WebSocket), ..self.config.ladder };
        }
        let rungs =
            Rung::ALL.into_iter().filter(|rung| self.config.ladder.rungs.has(*rung) && self.can(*rung));
        let rungs = rungs.fold(None, |rungs: Option<Rungs>, rung| {
            Some(rungs.map_or(Rungs::only(rung), |rungs| rungs.and(rung)))
        });
        LadderConfig { rungs: rungs.unwrap_or(Rungs::only(Rung::WebSocket)), ..self.config.ladder }
    }

    /// Whether a rung is of use.
    fn can(&self, rung: Rung) -> bool {
        #[cfg(feature = "sse")]
        let (streams, posts) =
            (self.subscription.is_some() && self.side.is_some(), self.subscription.is_none());
        #[cfg(not(feature = "sse"))]
        let (streams, posts) = (false, false);
        match rung {
            Rung::WebSocket => true,
            Rung::Sse => streams,
            Rung::LongPoll => streams && cfg!(feature = "ladder"),
            Rung::Poll => posts,
        }
    }
}

/// The same future, behind a pointer: so that its frame lies on the stack only while it is polled itself.
fn apart<'f>(
    transport: Pin<&'f mut (dyn Future<Output = End> + 'f)>,
) -> Pin<&'f mut (dyn Future<Output = End> + 'f)> {
    transport
}

/// What the transports have in common while an uplink runs.
struct Desk<'d, 'b, O> {
    gateway: &'d Gateway<'b>,
    config: &'b UplinkConfig,
    outbox: &'d O,
    subscription: Option<Subscription<'b>>,
    counts: &'d mut Option<ReportCounts<'b>>,
    pilot: &'d mut Pilot,
    observe: &'d mut dyn FnMut(Status),
    /// No reading is posted earlier.
    #[cfg(feature = "sse")]
    not_before: &'d Cell<Instant>,
}

impl<O: Source> Desk<'_, '_, O> {
    /// Says what goes on, to the application and to its log.
    fn tell(&mut self, status: Status) {
        status.tell(self.observe);
    }

    /// Gets a token, if there are any, and a link, which stays in `place`.
    async fn reach<'p, 'l, C: Connect, T: Tokens>(
        &mut self,
        connect: &'l mut C,
        place: &'p mut Option<C::Link<'l>>,
        purse: &mut Purse<'_, T>,
    ) -> Result<&'p mut C::Link<'l>, End> {
        self.token(purse).await?;
        self.pilot.reach(connect, place).await
    }

    /// Gets a token, if there are any.
    async fn token<T: Tokens>(&mut self, purse: &mut Purse<'_, T>) -> Result<(), End> {
        if T::SOME {
            let refused = self.pilot.reader.connector().wants_credential();
            let why = if refused { Why::Refused } else { Why::Connect };
            match with_deadline(self.pilot.deadline(), purse.fill(why)).await {
                Ok(true) => {}
                Ok(false) => return Err(End::new(Lost::NoToken)),
                Err(_) => return Err(self.pilot.timed_out(Lost::NoToken)),
            }
        }
        Ok(())
    }

    fn report_counts(&mut self) {
        report_counts(self.counts, self.outbox);
    }
}

/// Puts the counts into the outbox, if it is time and something was lost.
fn report_counts(counts: &mut Option<ReportCounts<'_>>, outbox: &impl Source) {
    if let Some(counts) = counts
        && counts.due <= Instant::now()
        && outbox.report_counts(counts.topic)
    {
        counts.due = Instant::now().saturating_add(counts.every);
    }
}

/// How a connection, or an attempt, ended.
struct End {
    lost: Lost,
    /// To be closed with this code, unless the peer was first.
    code: Option<CloseCode>,
    /// What the machine said, when it was the first to know.
    action: Option<Action>,
}

impl End {
    const fn new(lost: Lost) -> Self {
        Self { lost, code: None, action: None }
    }

    /// What is due ends it: silence, or that something better is to be tried.
    const fn due(action: Action, open: bool) -> Self {
        let lost = match (action, open) {
            (Action::LookUp(_), _) => Lost::LookUp,
            (_, true) => Lost::Silent,
            (_, false) => Lost::NoHello,
        };
        Self { lost, code: None, action: Some(action) }
    }

    /// A request that cannot be written.
    const fn request(error: WriteError) -> Self {
        Self::new(Lost::Handshake(HandshakeError::Request(error)))
    }

    const fn closing(lost: Lost, code: CloseCode) -> Self {
        Self { lost, code: Some(code), action: None }
    }
}

impl<E> From<Error<E>> for End {
    fn from(error: Error<E>) -> Self {
        Self::new(Lost::Broken(error.without_link()))
    }
}
