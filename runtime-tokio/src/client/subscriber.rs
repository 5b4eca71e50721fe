//! A subscriber that stays: it reconnects, falls back, and goes on from its cursor (`PROTOCOL.md` section 11).
//!
//! When, and over what, says the core's machine; here is what moves the bytes.

use super::item::Arrival;
use super::session::{Asked, Session, renew_beside};
use super::turn::{Turn, turn};
use super::{Cursor, Endpoint, Error, Item, Memory, Position, State, Subscription, Transport};
use crate::clock::Clock;
use crate::websocket::ThreadRng;
use futures_core::Stream;
use longwire_core::session::GapReason;
use longwire_core::session::connector::{Action, ConnectorConfig, Event};
use longwire_core::session::ladder::{Ending, LadderConfig, Rung};
use longwire_core::session::subscriber::{self, Mark};
use std::convert::Infallible;
use std::fmt;
use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Reads a log's events for as long as it is asked to: over a connection that ends and comes back, over one transport
/// and then another, it holds one cursor. Nothing is lost or repeated, and every gap is told.
///
/// (Before the position is known, which is up to the first [`Item::CaughtUp`] of `since=latest`, the state is told
/// again when the connection ends.)
///
/// Nothing is spawned: it works while [`next`](Self::next) is awaited, or while it is polled as a [`Stream`], and dropping it ends the
/// connection. At most [`WAITING`](Self::WAITING) items wait in it; while they do, nothing more is read, and the gateway
/// has the rest, as its [policy](Subscription::policy) says.
///
/// ```no_run
/// use futures_util::TryStreamExt as _;
/// use longwire::client::{Endpoint, Item, Subscriber, Subscription};
///
/// # async fn run() -> Result<(), longwire::client::Error> {
/// let endpoint = Endpoint::new("https://telemetry.example.org")?;
/// let mut subscriber = Subscriber::new(endpoint, Subscription::new(["fleet/**"]))?;
/// while let Some(item) = subscriber.try_next().await? {
///     match item {
///         Item::Event(event) => println!("{}: {:?}", event.topic, event.data),
///         Item::Gap(gap) => eprintln!("missed {:?} events", gap.skipped),
///         Item::Pressure(pressure) => eprintln!("{} behind, of {}", pressure.lag, pressure.limit),
///         _ => {}
///     }
/// }
/// # Ok(()) }
/// ```
pub struct Subscriber {
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    items: mpsc::Receiver<Result<Item, Error>>,
    control: watch::Sender<Control>,
    cursor: Option<Cursor>,
    status: watch::Receiver<Status>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    Run(Transport),
    Close,
}

/// What can be asked for beside the items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Status {
    rtt: Option<Duration>,
    memory: Option<Memory>,
}

impl Subscriber {
    /// Items that wait for the application at most.
    pub const WAITING: usize = 16;

    /// A subscriber that connects when its first item is asked for.
    ///
    /// # Errors
    /// [`Error::Name`] and [`Error::NoPattern`].
    pub fn new(endpoint: Endpoint, subscription: Subscription) -> Result<Self, Error> {
        subscription.check()?;
        let (out, items) = mpsc::channel(Self::WAITING);
        let (control, commands) = watch::channel(Control::Run(subscription.transport));
        let (told, status) = watch::channel(Status { rtt: None, memory: subscription.memory });
        let config = ConnectorConfig {
            ladder: ladder(subscription.transport, &endpoint),
            backoff: subscription.backoff,
            renewable: endpoint.tokens.is_renewable(),
        };
        let work = Work {
            machine: subscriber::Subscriber::new(config, subscription.since, subscription.memory),
            asked: Asked {
                topics: subscription.topics,
                since: subscription.since,
                policy: subscription.policy,
                form: subscription.form,
                poll_interval: subscription.poll_interval,
            },
            endpoint,
            out,
            commands,
            clock: Clock::start(),
            present: None,
            held: None,
            why: None,
            status: told,
        };
        Ok(Self { work: Some(Box::pin(work.run())), items, control, cursor: None, status })
    }

    /// The next item. `None` once it has ended: after [`close`](Self::close), or after the error that stopped it.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// What makes further attempts pointless: a permanent refusal, a close code that says "no" (section 6). Everything else
    /// is an [`Item::State`], and it tries again.
    pub async fn next(&mut self) -> Option<Result<Item, Error>> {
        poll_fn(|cx| self.poll_item(cx)).await
    }

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Item, Error>>> {
        if let Some(work) = &mut self.work
            && work.as_mut().poll(cx).is_ready()
        {
            self.work = None;
        }
        let item = match self.items.poll_recv(cx) {
            // There was no room for more, perhaps, and there is now: not another item before the work had its turn.
            Poll::Pending if self.work.is_none() => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(item) => item,
        };
        match &item {
            Some(Ok(Item::Event(event))) => {
                if let Position::At(at) = event.position {
                    self.cursor = Some(at);
                }
            }
            Some(Ok(Item::CaughtUp(at))) => self.cursor = Some(*at),
            Some(Ok(Item::Gap(gap))) if gap.reason == GapReason::Reset => self.cursor = None,
            _ => {}
        }
        Poll::Ready(item)
    }

    /// The position up to which everything was handed out; `None` before it is known. With it, another subscriber can go
    /// on from here.
    pub fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    /// What was learned about the way to the gateway: another subscriber that is [given](Subscription::memory) it begins with
    /// what works. `None` before anything has worked. It fits into [four bytes](Memory::to_bits).
    pub fn memory(&self) -> Option<Memory> {
        self.status.borrow().memory
    }

    /// How long the gateway's last answer to a Ping took, on this connection: one is sent when it greets, and whenever it
    /// asks for a sign of life. `None` before that, and on transports other than WebSocket.
    pub fn rtt(&self) -> Option<Duration> {
        self.status.borrow().rtt
    }

    /// Changes the transport, and goes on from the cursor: at once, but for a wait that is under way.
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

impl Stream for Subscriber {
    type Item = Result<Item, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_item(cx)
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

fn ladder(transport: Transport, endpoint: &Endpoint) -> LadderConfig {
    LadderConfig { rungs: transport.rungs(), open: endpoint.open_timeout, ..LadderConfig::new() }
}

type Renewing = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// An open connection.
struct Present {
    session: Session,
    /// Another credential is being asked for.
    renewing: Option<Renewing>,
}

/// What a subscriber does while it is awaited.
struct Work {
    machine: subscriber::Subscriber,
    endpoint: Endpoint,
    asked: Asked,
    out: mpsc::Sender<Result<Item, Error>>,
    commands: watch::Receiver<Control>,
    clock: Clock,
    present: Option<Present>,
    /// What was used before something better was tried, unread meanwhile.
    held: Option<Present>,
    /// The last failure, and over what.
    why: Option<(Transport, Error)>,
    status: watch::Sender<Status>,
}

/// What came over a connection, or from the source of credentials.
enum Came {
    Arrival(Result<Arrival, Error>),
    Renewed(Result<(), Error>),
}

impl Present {
    /// Cancel-safe.
    async fn next(&mut self) -> Came {
        let Self { session, renewing } = self;
        let renewed = async {
            match renewing {
                Some(asking) => asking.await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            arrival = session.next() => Came::Arrival(arrival),
            renewed = renewed => {
                *renewing = None;
                Came::Renewed(renewed)
            }
        }
    }
}

impl Work {
    async fn run(mut self) {
        let mut action = self.machine.start(self.clock.now());
        while let Some(next) = self.act(action).await {
            action = next;
        }
        self.leave().await;
    }

    /// Does what the machine says; what to do next, and `None` when it is over.
    async fn act(&mut self, action: Action) -> Option<Action> {
        match action {
            Action::Continue => return self.read().await,
            Action::Open(rung) => {
                if let Some((from, why)) = self.leave().await.filter(|(from, _)| *from != rung.into()) {
                    self.emit(Item::State(State::Fallback { from, why: why.to_string() })).await;
                }
                return self.open(rung).await;
            }
            Action::LookUp(rung) => {
                self.held = self.present.take();
                return self.open(rung).await;
            }
            Action::Change => {
                if let Some(held) = self.held.take() {
                    held.session.close().await;
                }
                self.connected().await;
            }
            Action::Back => {
                self.present = self.held.take();
                if let Some((tried, why)) = self.why.take() {
                    self.emit(Item::State(State::Kept { tried, why: why.to_string() })).await;
                }
            }
            Action::Ping => {
                if let Some(present) = &mut self.present {
                    present.session.ping();
                }
            }
            Action::Wait(wait) => {
                let why = self.leave().await.map(|(_, why)| why.to_string()).unwrap_or_default();
                self.emit(Item::State(State::Waiting { wait, why })).await;
                return self.drive(pending::<Infallible>()).await.err().flatten();
            }
            Action::Stop => {
                if let Some((_, why)) = self.leave().await {
                    // Without a receiver nobody wants to know.
                    let _ = self.out.send(Err(why)).await;
                }
                return None;
            }
        }
        Some(Action::Continue)
    }

    /// Ends what is open. Why, if it was not our wish.
    async fn leave(&mut self) -> Option<(Transport, Error)> {
        for present in [self.present.take(), self.held.take()].into_iter().flatten() {
            present.session.close().await;
        }
        self.why.take()
    }

    /// Works on `work`, until it is done, the machine has something else to do, or it is over (`Err(None)`).
    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Option<Action>> {
        let mut work = pin!(work);
        loop {
            let due = self.machine.poll_timeout().map(|due| self.clock.at(due));
            match turn(&mut self.commands, due, work.as_mut()).await {
                Turn::Done(done) => return Ok(done),
                Turn::Due => {
                    let (rung, patience) =
                        (self.machine.connector().rung(), self.machine.connector().patience());
                    let action = self.machine.handle_timeout(self.clock.now(), &mut ThreadRng);
                    if !matches!(action, Action::Continue | Action::Ping | Action::LookUp(_)) {
                        self.why = Some((rung.into(), Error::Silence(patience)));
                    }
                    if action != Action::Continue {
                        return Err(Some(action));
                    }
                }
                Turn::Command => match *self.commands.borrow_and_update() {
                    Control::Close => return Err(None),
                    Control::Run(transport) => {
                        let ladder = ladder(transport, &self.endpoint);
                        let action = self.machine.switch(ladder, self.clock.now());
                        if action != Action::Continue {
                            return Err(Some(action));
                        }
                    }
                },
            }
        }
    }

    async fn open(&mut self, rung: Rung) -> Option<Action> {
        self.emit(Item::State(State::Connecting(rung.into()))).await;
        let another = self.machine.connector().wants_credential();
        let endpoint = self.endpoint.clone();
        let stream = match self.drive(endpoint.reach(another)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Some(self.failed(error, Some(Ending::Unreachable))),
            Err(action) => return action,
        };
        self.report(Event::Reached);
        let asked = Asked { since: self.machine.since(), ..self.asked.clone() };
        let wait = self.machine.connector().wait();
        let (session, hello) = match self.drive(Session::open(rung, stream, &endpoint, asked, wait)).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return Some(self.failed(error, None)),
            Err(action) => return action,
        };
        self.present = Some(Present { session, renewing: None });
        let action = self.report(Event::Opened { heartbeat: hello.heartbeat, window: hello.window });
        if action == Action::Continue {
            self.connected().await;
        }
        Some(action)
    }

    async fn connected(&mut self) {
        let connector = self.machine.connector();
        let (transport, memory) = (connector.rung().into(), connector.memory());
        self.status.send_replace(Status { rtt: None, memory });
        self.why = None;
        self.emit(Item::State(State::Connected(transport))).await;
    }

    fn report(&mut self, event: Event) -> Action {
        self.machine.handle(event, self.clock.now(), &mut ThreadRng)
    }

    /// It ended with this error, and so.
    fn failed(&mut self, error: Error, ending: Option<Ending>) -> Action {
        let ending = ending.unwrap_or_else(|| error.ending());
        self.why = Some((self.machine.connector().rung().into(), error));
        self.report(Event::Ended(ending))
    }

    async fn read(&mut self) -> Option<Action> {
        let mut present = self.present.take()?;
        let action = self.read_from(&mut present).await;
        self.present = Some(present);
        action
    }

    async fn read_from(&mut self, present: &mut Present) -> Option<Action> {
        loop {
            let came = match self.drive(present.next()).await {
                Ok(came) => came,
                Err(action) => return action,
            };
            match came {
                Came::Arrival(Ok(Arrival::Renew(within))) => {
                    self.report(Event::Heard);
                    present.renewing = self.renewal(&present.session, within);
                }
                Came::Arrival(Ok(arrival)) => {
                    self.report(Event::Heard);
                    if let Err(error) = self.arrived(arrival, present.session.rtt()).await {
                        return Some(self.failed(error, None));
                    }
                }
                Came::Arrival(Err(error)) => return Some(self.failed(error, None)),
                // What the gateway makes of it, it says itself.
                Came::Renewed(Ok(())) => {
                    match self.drive(present.session.renew(&self.endpoint.clone())).await {
                        Ok(_) => {}
                        Err(action) => return action,
                    }
                }
                // The grant will end, and then another one is asked for.
                Came::Renewed(Err(_)) => {}
            }
        }
    }

    /// Asks for another credential, if there is somebody to be asked; and shows it, if that is done beside the stream,
    /// which is read meanwhile.
    fn renewal(&self, session: &Session, within: Duration) -> Option<Renewing> {
        if !self.endpoint.tokens.is_renewable() {
            return None;
        }
        let (endpoint, path) = (self.endpoint.clone(), session.renewal_path(&self.endpoint));
        let renewing = async move {
            endpoint.tokens.prepare(true).await?;
            match path {
                Some(path) => renew_beside(&endpoint, path).await,
                None => Ok(()),
            }
        };
        Some(Box::pin(async move {
            let renewed = tokio::time::timeout(within, renewing).await;
            renewed.unwrap_or(Err(Error::Silence(within)))
        }))
    }

    /// Hands an arrival to the application, and then moves the cursor by the table of section 2.
    async fn arrived(&mut self, arrival: Arrival, rtt: Option<Duration>) -> Result<(), Error> {
        let (mark, item) = match arrival {
            Arrival::Event(event) => (Mark::Event(event.position), Some(Item::Event(event))),
            Arrival::CaughtUp(at) => {
                self.emit(Item::CaughtUp(at)).await;
                (Mark::At(at), None)
            }
            Arrival::Gap(gap) => (Mark::Gap(gap), Some(Item::Gap(gap))),
            Arrival::Tick(at) => (Mark::At(at), None),
            Arrival::Pressure(pressure) => {
                self.emit(Item::Pressure(pressure)).await;
                return Ok(());
            }
            Arrival::Bye(refusal) => return Err(Error::Refused(refusal)),
            // The only thing asked for is the subscription.
            Arrival::Error(refusal) => return Err(Error::Refused(refusal)),
            Arrival::Hello(hello) => {
                self.report(Event::Opened { heartbeat: hello.heartbeat, window: hello.window });
                return Ok(());
            }
            Arrival::Other => {
                self.status.send_if_modified(|status| std::mem::replace(&mut status.rtt, rtt) != rtt);
                return Ok(());
            }
            Arrival::Ack(..) | Arrival::Nack(_) | Arrival::Renew(_) => return Ok(()),
        };
        if let Some(item) = item.filter(|_| self.machine.is_new(mark)) {
            self.emit(item).await;
        }
        self.machine.passed(mark);
        Ok(())
    }

    async fn emit(&mut self, item: Item) {
        // Without a receiver the work is not awaited either, but for its end.
        let _ = self.out.send(Ok(item)).await;
    }
}
