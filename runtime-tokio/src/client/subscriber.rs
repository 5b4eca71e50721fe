//! A subscriber that stays: it reconnects, falls back, and goes on from its cursor (`PROTOCOL.md` section 11).

use super::item::Arrival;
use super::session::{End, Session};
use super::{Cursor, Endpoint, Error, GapReason, Item, Position, Since, State};
use crate::websocket::ThreadRng;
use longwire_core::log::Pattern;
use longwire_core::session::backoff::{Backoff, BackoffConfig, Failure, Verdict};
use longwire_core::time;
use std::fmt;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::str::FromStr;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Items that wait for the application. While they do, nothing more is read.
const WAITING: usize = 16;

/// With [`Transport::Auto`]: when a better transport is tried again.
const BETTER: Duration = Duration::from_secs(300);

/// How events get here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transport {
    /// WebSocket; if it cannot be opened SSE, then long polls, then polls. What worked is remembered, and a better one is
    /// tried again when the connection ends, or after five minutes.
    #[default]
    Auto,
    /// WebSocket.
    WebSocket,
    /// Server-Sent Events.
    Sse,
    /// Polls that wait for an event.
    LongPoll,
    /// Polls, every two seconds.
    Poll,
}

impl Transport {
    const LADDER: [Self; 4] = [Self::WebSocket, Self::Sse, Self::LongPoll, Self::Poll];

    /// The name: `auto`, `ws`, `sse`, `longpoll`, `poll`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::WebSocket => "ws",
            Self::Sse => "sse",
            Self::LongPoll => "longpoll",
            Self::Poll => "poll",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Transport {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        std::iter::once(Self::Auto)
            .chain(Self::LADDER)
            .find(|transport| transport.as_str() == name)
            .ok_or_else(|| "one of ws, sse, longpoll, poll, auto".to_owned())
    }
}

/// What to read, from where on, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Subscription {
    /// Patterns of topics.
    pub topics: Vec<String>,
    /// Where to begin. Default: the state, then what is published from now on.
    pub since: Since,
    /// How.
    pub transport: Transport,
    /// When to try again.
    pub backoff: BackoffConfig,
}

impl Subscription {
    /// To the topics that match any of `topics`.
    pub fn new(topics: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            topics: topics.into_iter().map(Into::into).collect(),
            since: Since::Latest,
            transport: Transport::Auto,
            backoff: BackoffConfig::default(),
        }
    }

    /// Sets where to begin.
    #[must_use]
    pub fn since(self, since: Since) -> Self {
        Self { since, ..self }
    }

    /// Sets how.
    #[must_use]
    pub fn transport(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }
}

/// Reads a log's events for as long as it is asked to: over a connection that ends and comes back, over one transport
/// and then another, it holds one cursor. Nothing is lost or repeated, and every gap is told.
///
/// (Before the position is known, which is up to the first [`Item::CaughtUp`] of `since=latest`, the state is told
/// again when the connection ends.)
///
/// Nothing is spawned: it works while [`next`](Self::next) is awaited, and dropping it ends the connection.
pub struct Subscriber {
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    items: mpsc::Receiver<Result<Item, Error>>,
    control: watch::Sender<Control>,
    cursor: Option<Cursor>,
    rtt: watch::Receiver<Option<Duration>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    Run(Transport),
    Close,
}

impl Subscriber {
    /// A subscriber that connects when its first item is asked for.
    ///
    /// # Errors
    /// [`Error::Name`] and [`Error::NoPattern`].
    pub fn new(endpoint: Endpoint, subscription: Subscription) -> Result<Self, Error> {
        if subscription.topics.is_empty() {
            return Err(Error::NoPattern);
        }
        for topic in &subscription.topics {
            Pattern::parse(topic).map_err(|error| Error::Name(topic.clone(), error))?;
        }
        let (out, items) = mpsc::channel(WAITING);
        let (control, commands) = watch::channel(Control::Run(subscription.transport));
        let (told, rtt) = watch::channel(None);
        let work = Work {
            endpoint,
            topics: subscription.topics,
            since: subscription.since,
            out,
            commands,
            backoff: Backoff::new(subscription.backoff),
            started: Instant::now(),
            ladder: Ladder::new(subscription.transport),
            rtt: told,
        };
        Ok(Self { work: Some(Box::pin(work.run())), items, control, cursor: None, rtt })
    }

    /// The next item. `None` once it has ended: after [`close`](Self::close), or after the error that stopped it.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// What makes further attempts pointless: a permanent refusal, a close code that says "no" (section 6). Everything else
    /// is an [`Item::State`], and it tries again.
    pub async fn next(&mut self) -> Option<Result<Item, Error>> {
        let item = poll_fn(|cx| {
            if let Some(work) = &mut self.work
                && work.as_mut().poll(cx).is_ready()
            {
                self.work = None;
            }
            match self.items.poll_recv(cx) {
                // There was no room for more, perhaps, and there is now: not another item before the work had its turn.
                Poll::Pending if self.work.is_none() => Poll::Ready(None),
                item => item,
            }
        });
        let item = item.await;
        match &item {
            Some(Ok(Item::Event(event))) => {
                if let Position::At(at) = event.position {
                    self.cursor = Some(at);
                }
            }
            Some(Ok(Item::CaughtUp(at))) => self.cursor = Some(*at),
            _ => {}
        }
        item
    }

    /// The position up to which everything was handed out; `None` before it is known. With it, another subscriber can go
    /// on from here.
    pub fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    /// How long the gateway's last answer to a Ping took, on this connection: one is sent when it greets, and whenever it
    /// asks for a sign of life. `None` before that, and on transports other than WebSocket.
    pub fn rtt(&self) -> Option<Duration> {
        *self.rtt.borrow()
    }

    /// Changes the transport, and goes on from the cursor.
    pub fn switch(&self, transport: Transport) {
        // The work is gone only when it has ended, and then there is nothing to be changed.
        let _ = self.control.send(Control::Run(transport));
    }

    /// Ends the connection, in order and in bounded time. Items that still waited are dropped.
    pub async fn close(mut self) {
        let _ = self.control.send(Control::Close);
        self.items.close();
        if let Some(work) = self.work.take() {
            work.await;
        }
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

/// Which transport to try.
struct Ladder {
    transport: Transport,
    rung: usize,
    /// When a better one failed.
    left: Option<Instant>,
}

impl Ladder {
    fn new(transport: Transport) -> Self {
        Self { transport, rung: 0, left: None }
    }

    fn is_auto(&self) -> bool {
        self.transport == Transport::Auto
    }

    fn current(&self) -> Transport {
        match self.transport {
            Transport::Auto => Transport::LADDER.get(self.rung).copied().unwrap_or(Transport::Poll),
            fixed => fixed,
        }
    }

    /// After a rung could not be opened: whether there is another one below it.
    fn descend(&mut self, now: Instant) -> bool {
        self.left.get_or_insert(now);
        if self.is_auto() && self.rung + 1 < Transport::LADDER.len() {
            self.rung += 1;
            return true;
        }
        self.climb();
        false
    }

    fn climb(&mut self) {
        (self.rung, self.left) = (0, None);
    }

    /// When a better rung should be tried again; `None` on the best.
    fn retry_at(&self) -> Option<Instant> {
        self.left.filter(|_| self.is_auto() && self.rung > 0).map(|left| left + BETTER)
    }
}

/// What a subscriber does while it is awaited.
struct Work {
    endpoint: Endpoint,
    topics: Vec<String>,
    /// Where to go on.
    since: Since,
    out: mpsc::Sender<Result<Item, Error>>,
    commands: watch::Receiver<Control>,
    backoff: Backoff,
    started: Instant,
    ladder: Ladder,
    rtt: watch::Sender<Option<Duration>>,
}

/// How an attempt ended.
enum Outcome {
    /// The connection could not be opened.
    Unopened(End),
    /// It was open, and ended.
    Ended(End),
    /// Another transport is wanted, at once.
    Switched,
    /// It is over, for everybody.
    Closed,
}

impl Work {
    async fn run(mut self) {
        loop {
            let end = match self.attempt().await {
                Outcome::Closed => return,
                Outcome::Switched => continue,
                Outcome::Unopened(end) if self.falls_back(&end) => {
                    let from = self.ladder.current();
                    if self.ladder.descend(Instant::now()) {
                        let state = State::Fallback { from, why: end.error.to_string() };
                        self.emit(Item::State(state)).await;
                        continue;
                    }
                    end
                }
                Outcome::Unopened(end) | Outcome::Ended(end) => end,
            };
            if self.ladder.retry_at().is_some_and(|at| Instant::now() >= at) {
                self.ladder.climb();
            }
            let failure = match end.told {
                _ if end.error.is_permanent() => Failure::Permanent,
                Some((retry_after, window)) => Failure::Told { retry_after, window },
                None => Failure::Lost,
            };
            let now = self.now();
            match self.backoff.failed(now, failure, &mut ThreadRng) {
                Verdict::Stop => {
                    // Without a receiver nobody wants to know.
                    let _ = self.out.send(Err(end.error)).await;
                    return;
                }
                Verdict::Retry(wait) => {
                    self.emit(Item::State(State::Waiting { wait, why: end.error.to_string() })).await;
                    if !self.wait(wait).await {
                        return;
                    }
                }
            }
        }
    }

    /// With `auto`: whether another transport could do what this one did not. Not when the gateway cannot be reached
    /// at all, and not when it understood and said no.
    fn falls_back(&self, end: &End) -> bool {
        let understood = match &end.error {
            Error::Refused(refusal) => {
                !matches!(refusal.code.as_str(), "" | "bad_request" | "upgrade_required")
            }
            // Somebody in between who does not like the upgrade may just hang up.
            Error::Io(error) => !matches!(
                error.kind(),
                ErrorKind::ConnectionReset
                    | ErrorKind::ConnectionAborted
                    | ErrorKind::BrokenPipe
                    | ErrorKind::UnexpectedEof
            ),
            _ => false,
        };
        self.ladder.is_auto() && !understood
    }

    /// One connection, from its opening to its end.
    async fn attempt(&mut self) -> Outcome {
        let transport = self.ladder.current();
        self.rtt.send_replace(None);
        self.emit(Item::State(State::Connecting(transport))).await;
        let limit =
            if self.ladder.is_auto() { self.endpoint.open_timeout / 2 } else { self.endpoint.open_timeout };
        let opening = Session::open(transport, &self.endpoint, &self.topics, self.since);
        let session = tokio::select! {
            biased;
            _ = self.commands.changed() => return self.command(),
            opened = tokio::time::timeout(limit, opening) => match opened {
                Ok(Ok(session)) => session,
                Ok(Err(end)) => return Outcome::Unopened(end),
                Err(_) => return Outcome::Unopened(Error::Silence(limit).into()),
            },
        };
        let now = self.now();
        self.backoff.connected(now);
        self.emit(Item::State(State::Connected(transport))).await;
        self.read(session).await
    }

    async fn read(&mut self, mut session: Session) -> Outcome {
        let better = self.ladder.retry_at();
        loop {
            self.rtt.send_replace(session.rtt());
            let arrival = tokio::select! {
                biased;
                _ = self.commands.changed() => {
                    session.close().await;
                    return self.command();
                }
                () = tokio::time::sleep_until(better.unwrap_or_else(Instant::now)), if better.is_some() => {
                    session.close().await;
                    self.ladder.climb();
                    return Outcome::Switched;
                }
                arrival = session.next() => match arrival {
                    Ok(arrival) => arrival,
                    Err(end) => return Outcome::Ended(end),
                },
            };
            if let Err(end) = self.arrived(arrival).await {
                session.close().await;
                return Outcome::Ended(end);
            }
        }
    }

    /// Hands an arrival to the application, and moves the cursor by the table of section 2.
    async fn arrived(&mut self, arrival: Arrival) -> Result<(), End> {
        let at = match arrival {
            Arrival::Event(event) => {
                let at = match event.position {
                    Position::At(at) => Some(at),
                    Position::Past(_) => None,
                };
                self.emit(Item::Event(event)).await;
                at
            }
            Arrival::CaughtUp(at) => {
                self.emit(Item::CaughtUp(at)).await;
                Some(at)
            }
            Arrival::Gap(gap) => {
                self.emit(Item::Gap(gap)).await;
                if gap.reason == GapReason::Reset {
                    // What was known is void: a connection that ends before the state is whole begins with it again.
                    self.since = Since::Latest;
                }
                None
            }
            Arrival::Tick(at) => Some(at),
            Arrival::Bye(refusal) => return Err(Error::Refused(refusal).into()),
            // The only thing asked for is the subscription.
            Arrival::Error(refusal) => return Err(Error::Refused(refusal).into()),
            Arrival::Hello { .. } | Arrival::Ack(_) | Arrival::Nack(_) | Arrival::Other => None,
        };
        if let Some(at) = at {
            self.since = Since::Cursor(at);
        }
        Ok(())
    }

    /// What was commanded.
    fn command(&mut self) -> Outcome {
        match *self.commands.borrow_and_update() {
            Control::Close => Outcome::Closed,
            Control::Run(transport) => {
                self.ladder = Ladder::new(transport);
                Outcome::Switched
            }
        }
    }

    /// Waits; false when it is over meanwhile.
    async fn wait(&mut self, wait: Duration) -> bool {
        tokio::select! {
            biased;
            _ = self.commands.changed() => !matches!(self.command(), Outcome::Closed),
            () = tokio::time::sleep(wait) => true,
        }
    }

    async fn emit(&self, item: Item) {
        // Without a receiver the work is not awaited either, but for its end.
        let _ = self.out.send(Ok(item)).await;
    }

    fn now(&self) -> time::Instant {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        time::Instant::from_millis(millis)
    }
}
