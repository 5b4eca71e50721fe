//! What a publisher's task does: one connection after another, and what the outbox holds goes over it.

use super::outbox::Outbox;
use super::{PublisherConfig, Shared, lock};
use crate::client::http::Link;
use crate::client::item::{Arrival, Hello};
use crate::client::publish::post;
use crate::client::socket::Socket;
use crate::client::turn::{Turn, turn};
use crate::client::{Endpoint, Error, Refusal, State, Transport};
use crate::clock::Clock;
use crate::websocket::{Message, ThreadRng};
use longwire_core::session::backoff::Failure;
use longwire_core::session::connector::{Action, Connector, ConnectorConfig, Event};
use longwire_core::session::ladder::{Ending, LadderConfig, Rung, Rungs};
use longwire_core::session::publisher::PublicationId;
use std::convert::Infallible;
use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// How long a connection may take to be closed.
const CLOSE: Duration = Duration::from_secs(1);

/// A connection that was idle may be gone when it is used again; one that breaks later than this was not idle.
const STALE: Duration = Duration::from_secs(1);

/// Until the end: of the handle, or of what can be hoped for.
pub(super) async fn run(
    endpoint: Endpoint,
    config: PublisherConfig,
    shared: Arc<Shared>,
    commands: watch::Receiver<()>,
    state: watch::Sender<State>,
) {
    let rungs = match config.transport {
        Transport::WebSocket => Rungs::only(Rung::WebSocket),
        Transport::Poll => Rungs::only(Rung::Poll),
        _ => Rungs::PUBLISH,
    };
    let connector = ConnectorConfig {
        ladder: LadderConfig { rungs, open: endpoint.open_timeout, ..LadderConfig::new() },
        backoff: config.backoff,
        renewable: endpoint.tokens.is_renewable(),
    };
    let mut work = Work {
        machine: Connector::new(connector, config.memory),
        endpoint,
        config,
        shared,
        commands,
        clock: Clock::start(),
        present: None,
        held: None,
        why: None,
        hold: None,
        state,
    };
    let mut action = work.machine.start(work.clock.now());
    while let Some(next) = work.act(action).await {
        action = next;
    }
    work.leave().await;
    lock(&work.shared.outbox).close();
    work.shared.settled.notify_waiters();
}

/// An open connection.
enum Line {
    WebSocket { socket: Box<Socket>, allowed: Allowed, renewing: Option<Renewing> },
    Post(Posting),
}

/// What the gateway allows, and this end wants.
#[derive(Clone, Copy)]
struct Allowed {
    max_inflight: u64,
    max_message: u64,
}

/// One POST after another.
struct Posting {
    /// The connection, between two of them.
    link: Option<Link>,
    /// The credential replaces one that was refused, and was not taken yet: opening a connection shows it to nobody.
    on_trial: bool,
}

type Renewing = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

struct Work {
    machine: Connector,
    endpoint: Endpoint,
    config: PublisherConfig,
    shared: Arc<Shared>,
    commands: watch::Receiver<()>,
    clock: Clock,
    present: Option<Line>,
    /// What was used before something better was tried.
    held: Option<Line>,
    /// The last failure, and over what.
    why: Option<(Transport, Error)>,
    /// Nothing is sent before: the gateway asked for it.
    hold: Option<Instant>,
    state: watch::Sender<State>,
}

/// What a WebSocket's turn brought.
enum Came {
    Arrival(Result<Arrival, Error>),
    Renewed(Result<(), Error>),
    /// There may be something to be sent.
    Work,
}

impl Work {
    /// Does what the machine says; what to do next, and `None` when it is over.
    async fn act(&mut self, action: Action) -> Option<Action> {
        match action {
            Action::Continue => return self.serve().await,
            Action::Open(rung) => {
                if let Some((from, why)) = self.leave().await.filter(|(from, _)| *from != rung.into()) {
                    self.tell(State::Fallback { from, why: why.to_string() });
                }
                return self.open(rung).await;
            }
            Action::LookUp(rung) => {
                self.held = self.present.take();
                return self.open(rung).await;
            }
            Action::Change => {
                self.held = None;
                self.connected();
            }
            Action::Back => {
                self.present = self.held.take();
                if let Some((tried, why)) = self.why.take() {
                    self.tell(State::Kept { tried, why: why.to_string() });
                }
            }
            Action::Ping => {
                if let Some(Line::WebSocket { socket, .. }) = &mut self.present {
                    socket.ping();
                }
            }
            Action::Wait(wait) => {
                let why = self.leave().await.map(|(_, why)| why.to_string()).unwrap_or_default();
                self.tell(State::Waiting { wait, why });
                return self.drive(pending::<Infallible>()).await.err().flatten();
            }
            Action::Stop => {
                if let Some((_, why)) = self.leave().await {
                    self.tell(State::Stopped { why: why.to_string() });
                    *lock(&self.shared.error) = Some(why);
                }
                return None;
            }
        }
        Some(Action::Continue)
    }

    fn tell(&self, state: State) {
        self.state.send_replace(state);
    }

    /// Ends what is open. Why, if it was not our wish.
    async fn leave(&mut self) -> Option<(Transport, Error)> {
        for line in [self.present.take(), self.held.take()].into_iter().flatten() {
            if let Line::WebSocket { socket, .. } = line {
                let _ = timeout(CLOSE, socket.close()).await;
            }
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
                Turn::Command => return Err(None),
                Turn::Due => {
                    let (rung, patience) = (self.machine.rung(), self.machine.patience());
                    if rung == Rung::Poll {
                        // Between two POSTs there is nothing to be heard.
                        self.report(Event::Heard);
                    }
                    let action = self.machine.handle_timeout(self.clock.now(), &mut ThreadRng);
                    if !matches!(action, Action::Continue | Action::Ping | Action::LookUp(_)) {
                        self.why = Some((rung.into(), Error::Silence(patience)));
                    }
                    if action != Action::Continue {
                        return Err(Some(action));
                    }
                }
            }
        }
    }

    fn report(&mut self, event: Event) -> Action {
        self.machine.handle(event, self.clock.now(), &mut ThreadRng)
    }

    /// It ended with this error, and so.
    fn failed(&mut self, error: Error, ending: Option<Ending>) -> Action {
        let ending = ending.unwrap_or_else(|| error.ending());
        self.why = Some((self.machine.rung().into(), error));
        self.report(Event::Ended(ending))
    }

    async fn open(&mut self, rung: Rung) -> Option<Action> {
        self.tell(State::Connecting(rung.into()));
        let another = self.machine.wants_credential();
        let endpoint = self.endpoint.clone();
        let stream = match self.drive(endpoint.reach(another)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Some(self.failed(error, Some(Ending::Unreachable))),
            Err(action) => return action,
        };
        self.report(Event::Reached);
        let (path, form, max_inflight) = (self.path(), self.config.form, self.config.max_inflight);
        let opening = async {
            if rung != Rung::WebSocket {
                let link = Some(Link::over(stream).await?);
                return Ok((Line::Post(Posting { link, on_trial: another }), None));
            }
            let (socket, hello) = Socket::open(stream, &endpoint, &path, form).await?;
            let max_inflight = max_inflight.min(hello.max_inflight).max(1);
            let allowed = Allowed { max_inflight, max_message: hello.max_message };
            let socket = Box::new(socket);
            Ok((Line::WebSocket { socket, allowed, renewing: None }, Some(hello)))
        };
        let (line, hello) = match self.drive(opening).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return Some(self.failed(error, None)),
            Err(action) => return action,
        };
        self.present = Some(line);
        lock(&self.shared.outbox).reconnected();
        let action = self.opened(hello.as_ref());
        if action == Action::Continue {
            self.connected();
        }
        Some(action)
    }

    fn path(&self) -> String {
        self.endpoint.path(&format!("/v1/stream?publisher={}", self.shared.incarnation))
    }

    fn opened(&mut self, hello: Option<&Hello>) -> Action {
        let heartbeat = hello.and_then(|hello| hello.heartbeat);
        let window = hello.and_then(|hello| hello.window);
        self.report(Event::Opened { heartbeat, window })
    }

    fn connected(&mut self) {
        {
            let mut about = lock(&self.shared.about);
            (about.rtt, about.memory) = (None, self.machine.memory());
        }
        self.why = None;
        self.tell(State::Connected(self.machine.rung().into()));
    }

    async fn serve(&mut self) -> Option<Action> {
        let mut line = self.present.take()?;
        let action = match &mut line {
            Line::WebSocket { socket, allowed, renewing } => {
                self.serve_socket(socket, *allowed, renewing).await
            }
            Line::Post(posting) => self.serve_post(posting).await,
        };
        self.present = Some(line);
        action
    }

    /// Waits until something may be sent, when the gateway asked for time.
    fn held_until(&mut self) -> Option<Instant> {
        self.hold = self.hold.filter(|until| *until > Instant::now());
        self.hold
    }

    async fn serve_socket(
        &mut self,
        socket: &mut Socket,
        allowed: Allowed,
        renewing: &mut Option<Renewing>,
    ) -> Option<Action> {
        loop {
            loop {
                let hold = self.held_until();
                let next = match hold {
                    Some(_) => None,
                    None => next_message(&mut lock(&self.shared.outbox), socket, allowed),
                };
                let Some((n, message)) = next else { break };
                match self.drive(socket.feed(message)).await {
                    Ok(Ok(())) => lock(&self.shared.outbox).sent(n),
                    Ok(Err(error)) => return Some(self.failed(error, None)),
                    Err(action) => return action,
                }
            }
            let (hold, shared) = (self.held_until(), self.shared.clone());
            let came = async {
                tokio::select! {
                    biased;
                    arrival = socket.next() => Came::Arrival(arrival),
                    renewed = asked(renewing) => Came::Renewed(renewed),
                    () = shared.work.notified() => Came::Work,
                    () = sleep_until(hold.unwrap_or_else(Instant::now)), if hold.is_some() => Came::Work,
                }
            };
            match self.drive(came).await {
                Ok(Came::Arrival(Ok(Arrival::Renew(within)))) => {
                    self.report(Event::Heard);
                    *renewing = self.renewal(within);
                }
                Ok(Came::Arrival(Ok(arrival))) => {
                    self.report(Event::Heard);
                    lock(&self.shared.about).rtt = socket.rtt();
                    if let Err(error) = self.arrived(arrival) {
                        return Some(self.failed(error, None));
                    }
                }
                Ok(Came::Arrival(Err(error))) => return Some(self.failed(error, None)),
                Ok(Came::Renewed(renewed)) => {
                    *renewing = None;
                    // Without another one the grant ends, and then it is asked for again.
                    if renewed.is_ok() {
                        let endpoint = self.endpoint.clone();
                        if let Err(action) = self.drive(socket.renew(&endpoint)).await {
                            return action;
                        }
                    }
                }
                Ok(Came::Work) => {}
                Err(action) => return action,
            }
        }
    }

    /// Asks for another credential, if there is somebody to be asked.
    fn renewal(&self, within: Duration) -> Option<Renewing> {
        let tokens = self.endpoint.tokens.clone();
        if !tokens.is_renewable() {
            return None;
        }
        Some(Box::pin(async move {
            timeout(within, tokens.prepare(true)).await.unwrap_or(Err(Error::Silence(within)))
        }))
    }

    fn arrived(&mut self, arrival: Arrival) -> Result<(), Error> {
        match arrival {
            Arrival::Ack(n, pressure) => {
                lock(&self.shared.outbox).acknowledge(n);
                self.hold_for(pressure);
                self.shared.settled.notify_waiters();
            }
            Arrival::Nack(refusal) => self.refused(refusal),
            Arrival::Hello(hello) => _ = self.opened(Some(&hello)),
            Arrival::Bye(refusal) | Arrival::Error(refusal) => return Err(Error::Refused(refusal)),
            _ => {}
        }
        Ok(())
    }

    fn refused(&mut self, refusal: Refusal) {
        if !refusal.permanent {
            self.hold_for(refusal.retry_after);
        }
        if let Some(n) = refusal.n {
            lock(&self.shared.outbox).refuse(n, refusal);
        }
        self.shared.settled.notify_waiters();
    }

    fn hold_for(&mut self, time: Option<Duration>) {
        // A gateway that asks for years must not put anybody out of action.
        let until = time.map(|time| Instant::now() + time.min(self.config.backoff.max_told));
        self.hold = self.hold.max(until);
    }

    /// Waits for something to post, or until this time is over.
    async fn rest(&mut self, hold: Option<Instant>) -> Result<(), Option<Action>> {
        let shared = self.shared.clone();
        self.drive(async {
            tokio::select! {
                () = shared.work.notified() => {}
                () = sleep_until(hold.unwrap_or_else(Instant::now)), if hold.is_some() => {}
            }
        })
        .await
    }

    /// One POST after another.
    async fn serve_post(&mut self, posting: &mut Posting) -> Option<Action> {
        let Posting { link, on_trial } = posting;
        // What was under way when this was left is not known: it is sent again, and stored once.
        lock(&self.shared.outbox).reconnected();
        // Nothing was posted over it yet.
        let mut reused = false;
        loop {
            let hold = self.held_until();
            let next = match hold {
                Some(_) => None,
                None => lock(&self.shared.outbox).next(1).map(|(n, entry)| (n, entry.parts())),
            };
            let Some((n, (topic, key, data))) = next else {
                match self.rest(hold).await {
                    Ok(()) => continue,
                    Err(action) => return action,
                }
            };
            lock(&self.shared.outbox).sent(n);
            let id = PublicationId { incarnation: self.shared.incarnation, n };
            let endpoint = self.endpoint.clone();
            let working = async {
                let mut present = match link.take() {
                    Some(link) => link,
                    None => Link::open(&endpoint).await?,
                };
                let begun = Instant::now();
                let posted = post(&mut present, &endpoint, &topic, key.as_deref(), &data, Some(id)).await;
                let posted = match posted {
                    // It was idle, and gone when it was used again.
                    Err(Error::Http(_)) if reused && begun.elapsed() < STALE => {
                        present = Link::open(&endpoint).await?;
                        post(&mut present, &endpoint, &topic, key.as_deref(), &data, Some(id)).await?
                    }
                    posted => posted?,
                };
                *link = Some(present);
                Ok(posted)
            };
            let posted = match self.drive(timeout(endpoint.open_timeout, working)).await {
                Ok(posted) => posted.unwrap_or(Err(Error::Silence(endpoint.open_timeout))),
                Err(action) => return action,
            };
            match posted {
                Ok(posted) => {
                    self.report(Event::Heard);
                    lock(&self.shared.outbox).acknowledge(n);
                    self.hold_for(posted.pressure);
                    (reused, *on_trial) = (true, false);
                    self.shared.settled.notify_waiters();
                }
                Err(Error::Refused(refusal)) if is_about_this_one(&refusal) => {
                    self.report(Event::Heard);
                    *on_trial = false;
                    self.refused(Refusal { n: Some(n), ..refusal });
                }
                // A fresh one that is refused as well is the end.
                Err(error) if *on_trial && error.ending() == Ending::Unauthorized => {
                    return Some(self.failed(error, Some(Ending::Said(Failure::Permanent))));
                }
                Err(error) => return Some(self.failed(error, None)),
            }
        }
    }
}

/// Whether a refused POST says something about the publication, and not about who publishes or over what.
fn is_about_this_one(refusal: &Refusal) -> bool {
    !matches!(
        refusal.code.as_str(),
        "" | "unauthorized"
            | "draining"
            | "unavailable"
            | "too_many_connections"
            | "internal"
            | "request_timeout"
    )
}

async fn asked(renewing: &mut Option<Renewing>) -> Result<(), Error> {
    match renewing {
        Some(asking) => asking.await,
        None => pending().await,
    }
}

/// The next publication, as it is written here. What cannot be written in this form, or is larger than the gateway takes, which
/// would cost the connection, is settled.
fn next_message(outbox: &mut Outbox, socket: &Socket, allowed: Allowed) -> Option<(u64, Message)> {
    loop {
        let (n, entry) = outbox.next(allowed.max_inflight)?;
        let (code, why) = match socket.encode(&entry.message(n)) {
            Ok(message) if message.as_bytes().len() as u64 <= allowed.max_message => {
                return Some((n, message));
            }
            Ok(_) => ("message_too_big", format!("above {} bytes (max_message)", allowed.max_message)),
            Err(error) => ("bad_data", error.to_string()),
        };
        outbox.reject(n, Refusal { permanent: true, n: Some(n), ..Refusal::new(None, code, why) });
    }
}
