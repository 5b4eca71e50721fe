//! When to connect and over what, when a connection counts as dead, and when to come back (`PROTOCOL.md` section 11).

use core::time::Duration;

use super::backoff::{Backoff, BackoffConfig, Failure, Verdict};
use super::ladder::{CHOICE, Ending, Ladder, LadderConfig, Memory, Next, Rung};
use crate::rand_core::Rng;
use crate::time::Instant;

/// Until a server says how often it makes itself heard.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How much longer than its wait a poll's answer may take.
const POLL_GRACE: Duration = Duration::from_secs(10);

/// How a [`Connector`] works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectorConfig {
    /// Which transport.
    pub ladder: LadderConfig,
    /// When to come back.
    pub backoff: BackoffConfig,
    /// There is somebody to ask for another credential, when the present one is refused. Default: no, and then a refusal of it is the end.
    pub renewable: bool,
}

impl ConnectorConfig {
    /// The defaults, as a constant.
    pub const fn new() -> Self {
        Self { ladder: LadderConfig::new(), backoff: BackoffConfig::new(), renewable: false }
    }
}

/// What happened to the one connection, or attempt, that there is. While a [look up](Action::LookUp) is under way it is what happened to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Event {
    /// TCP and TLS stand, and the request is on its way.
    Reached,
    /// The server's first word: `hello`, or the first answer to a poll. Also the `hello` that answers `auth`.
    Opened {
        /// How often the server makes itself heard; `None` for polls.
        heartbeat: Option<Duration>,
        /// Over which time to come back when it goes away without a word.
        window: Option<Duration>,
    },
    /// Bytes came, whatever they were.
    Heard,
    /// It ended, or could not be opened.
    Ended(Ending),
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Action {
    /// Go on.
    Continue,
    /// End what is open, if anything is, and open one connection over this rung.
    Open(Rung),
    /// Leave the present connection as it is, unread, and open another one over this better rung.
    LookUp(Rung),
    /// The better one works: end the one that was left, and use this one.
    Change,
    /// The better one does not: end it, and go on with the one that was left.
    Back,
    /// Send a Ping.
    Ping,
    /// End what is open, if anything is. The next attempt comes after this time ([`Connector::poll_timeout`]).
    Wait(Duration),
    /// End what is open, if anything is: the same would happen again.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing has been asked for.
    Idle,
    /// Until the deadline.
    Waiting,
    /// Since the moment of `begun`: the name, TCP, TLS.
    Connecting,
    /// The first word is awaited.
    Opening,
    Open,
    Stopped,
}

/// Keeps one connection to a server: whichever transport works, one attempt at a time, and never in a hurry.
///
/// The caller does what an [`Action`] says and reports what comes of it by [`handle`](Self::handle); when the time of
/// [`poll_timeout`](Self::poll_timeout) has come it calls [`handle_timeout`](Self::handle_timeout). It begins with [`start`](Self::start).
///
/// | in this state | `Reached` | `Opened` | `Ended` | deadline |
/// |---|---|---|---|---|
/// | waiting | | | | `Open` |
/// | connecting (10 s) | to opening | to open | next rung, `Wait` or `Stop` | as unreachable |
/// | opening (the rung's [`first_word`](LadderConfig::first_word)) | | to open | next rung, `Wait` or `Stop` | as silent |
/// | open | | | next rung, `Wait` or `Stop` | `Ping`, `LookUp`, or as silent |
/// | open, looking up | | `Change` | `Back` | `Back` |
///
/// ```
/// use longwire_core::session::connector::{Action, Connector, ConnectorConfig, Event};
/// use longwire_core::session::ladder::{Ending, Rung};
/// use longwire_core::time::Instant;
/// # use longwire_core::rand_core::Rng;
/// # fn run(rng: &mut impl Rng) {
/// let now = Instant::from_millis(0);
/// let mut connector = Connector::new(ConnectorConfig::new(), None);
/// assert_eq!(connector.start(now), Action::Open(Rung::WebSocket));
/// connector.handle(Event::Reached, now, rng);
/// // A proxy's page instead of an upgrade: the next rung is tried at once.
/// let page = Event::Ended(Ending::from_status(403, None));
/// assert_eq!(connector.handle(page, now, rng), Action::Open(Rung::Sse));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Connector {
    ladder: Ladder,
    backoff: Backoff,
    stable: Duration,
    phase: Phase,
    /// When the attempt, or the look up, began.
    begun: Instant,
    /// Of what is waited for: an attempt's end, or the next one's beginning.
    deadline: Instant,
    opened: Instant,
    heard: Instant,
    pinged: Instant,
    heartbeat: Duration,
    /// What is tried beside the open connection.
    looking: Option<Rung>,
    may_look_up: bool,
    renewable: bool,
    /// The credential was refused, and nothing has worked since.
    refused: bool,
}

impl Connector {
    /// Before the first attempt. `memory` is what an earlier one has [learned](Self::memory).
    pub fn new(config: ConnectorConfig, memory: Option<Memory>) -> Self {
        let zero = Instant::from_millis(0);
        Self {
            ladder: Ladder::new(config.ladder, memory),
            backoff: Backoff::new(config.backoff),
            stable: config.backoff.stable,
            phase: Phase::Idle,
            begun: zero,
            deadline: zero,
            opened: zero,
            heard: zero,
            pinged: zero,
            heartbeat: HEARTBEAT,
            looking: None,
            may_look_up: true,
            renewable: config.renewable,
            refused: false,
        }
    }

    /// The first attempt. Later calls change nothing.
    pub fn start(&mut self, now: Instant) -> Action {
        if self.phase == Phase::Idle { self.attempt(now) } else { Action::Continue }
    }

    /// Something happened.
    pub fn handle(&mut self, event: Event, now: Instant, rng: &mut impl Rng) -> Action {
        match (event, self.phase) {
            (Event::Reached, _) => self.reached(now),
            (Event::Opened { heartbeat, window }, Phase::Connecting | Phase::Opening | Phase::Open) => {
                self.heartbeat = heartbeat.unwrap_or(HEARTBEAT);
                if let Some(window) = window {
                    self.backoff.spread(window);
                }
                self.opened(now, rng)
            }
            (Event::Heard, _) => {
                self.heard = now;
                Action::Continue
            }
            (Event::Ended(ending), Phase::Connecting | Phase::Opening) => self.unopened(ending, now, rng),
            (Event::Ended(_), Phase::Open) if self.looks_up() => self.back(now),
            (Event::Ended(ending), Phase::Open) => self.ended(ending, now, rng),
            (_, Phase::Idle | Phase::Waiting | Phase::Stopped) => Action::Continue,
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; `None` before the start and after the stop.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle | Phase::Stopped => None,
            Phase::Waiting | Phase::Connecting | Phase::Opening => Some(self.deadline),
            Phase::Open if self.looks_up() => Some(self.deadline),
            Phase::Open => {
                let due = [self.ping_at(), self.look_up_at()].into_iter().flatten();
                Some(due.fold(self.silent_at(), Instant::min))
            }
        }
    }

    /// The time has come. Called too early it does nothing.
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut impl Rng) -> Action {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return Action::Continue;
        }
        match self.phase {
            Phase::Idle | Phase::Stopped => Action::Continue,
            Phase::Waiting => self.attempt(now),
            // Whoever cannot even be connected to is not there, whatever the transport.
            Phase::Connecting => self.unopened(Ending::Unreachable, now, rng),
            Phase::Opening => self.unopened(Ending::Silent, now, rng),
            Phase::Open if self.looks_up() => self.back(now),
            Phase::Open if now >= self.silent_at() => self.ended(Ending::Silent, now, rng),
            Phase::Open if self.look_up_at().is_some_and(|at| now >= at) => self.look_up(now, rng),
            Phase::Open => {
                self.pinged = now;
                Action::Ping
            }
        }
    }

    /// Uses these rungs from now on: at once, but for a wait that is under way.
    pub fn switch(&mut self, config: LadderConfig, now: Instant) -> Action {
        self.ladder = Ladder::new(config, None);
        self.looking = None;
        match self.phase {
            Phase::Connecting | Phase::Opening | Phase::Open => self.attempt(now),
            Phase::Idle | Phase::Waiting | Phase::Stopped => Action::Continue,
        }
    }

    /// Leaves the open connection for another one over the same rung, at once: the caller has a reason, and will not have it
    /// again soon.
    pub fn reopen(&mut self, now: Instant) -> Action {
        self.looking = None;
        if self.phase == Phase::Open { self.attempt(now) } else { Action::Continue }
    }

    /// Whether something better may be looked for: not while a change would cost something. Default: yes.
    pub const fn allow_look_up(&mut self, may: bool) {
        self.may_look_up = may;
    }

    /// The rung that is used, or tried.
    pub const fn rung(&self) -> Rung {
        match self.looking {
            Some(rung) if CHOICE => rung,
            _ => self.ladder.rung(),
        }
    }

    /// What was learned so far; to be kept, and given to the next one.
    pub fn memory(&self) -> Option<Memory> {
        self.ladder.memory()
    }

    /// How long a long poll should wait at the server, in whole seconds.
    pub fn wait(&self) -> Duration {
        self.ladder.wait()
    }

    /// How long nothing may be heard over an open connection: twice the heartbeat, and at least 1 s; of a poll as long as its
    /// answer may take.
    pub fn silence(&self) -> Duration {
        match self.ladder.rung() {
            Rung::WebSocket | Rung::Sse => self.heartbeat.saturating_mul(2).max(Duration::from_secs(1)),
            Rung::LongPoll | Rung::Poll => self.ladder.wait().saturating_add(POLL_GRACE),
        }
    }

    /// How long what is waited for now may take: the [`silence`](Self::silence) of an open connection, or an attempt.
    pub fn patience(&self) -> Duration {
        match self.phase {
            Phase::Open if !self.looks_up() => self.silence(),
            _ => self.deadline.since(self.begun),
        }
    }

    /// The credential was refused: the next attempt wants another one.
    pub const fn wants_credential(&self) -> bool {
        self.refused
    }

    fn attempt(&mut self, now: Instant) -> Action {
        (self.phase, self.begun, self.deadline) = (Phase::Connecting, now, now.after(self.ladder.open()));
        Action::Open(self.ladder.rung())
    }

    fn reached(&mut self, now: Instant) -> Action {
        if self.phase == Phase::Connecting || self.looks_up() {
            let first_word = self.ladder.first_word(self.rung(), now.since(self.begun));
            self.deadline = self.deadline.min(now.after(first_word));
        }
        if self.phase == Phase::Connecting {
            self.phase = Phase::Opening;
        }
        Action::Continue
    }

    fn opened(&mut self, now: Instant, rng: &mut impl Rng) -> Action {
        self.heard = now;
        if self.phase == Phase::Open && !self.looks_up() {
            return Action::Continue;
        }
        let rung = self.rung();
        self.ladder.opened(rung, now, rng);
        self.backoff.connected(now);
        (self.phase, self.opened, self.pinged, self.refused) = (Phase::Open, now, now, false);
        if CHOICE && self.looking.take().is_some() { Action::Change } else { Action::Continue }
    }

    fn unopened(&mut self, ending: Ending, now: Instant, rng: &mut impl Rng) -> Action {
        match self.ladder.unopened(ending) {
            Next::Now => self.attempt(now),
            Next::Later => self.later(ending, now, rng),
        }
    }

    fn ended(&mut self, ending: Ending, now: Instant, rng: &mut impl Rng) -> Action {
        let (quiet, stable) = (now.since(self.heard), now.since(self.opened) >= self.stable);
        match self.ladder.ended(ending, quiet, stable, self.heartbeat) {
            Next::Now => self.attempt(now),
            Next::Later => self.later(ending, now, rng),
        }
    }

    fn later(&mut self, ending: Ending, now: Instant, rng: &mut impl Rng) -> Action {
        let failure = match ending {
            // Once: a fresh one that is refused as well is the end.
            Ending::Unauthorized if self.renewable && !self.refused => {
                self.refused = true;
                Failure::Lost
            }
            // Something in between says no where it worked before: it may change its mind.
            Ending::Foreign { .. } | Ending::Mangled if self.ladder.is_proven() => match ending.failure() {
                Failure::Permanent => Failure::Lost,
                failure => failure,
            },
            _ => ending.failure(),
        };
        match self.backoff.failed(now, failure, rng) {
            Verdict::Retry(wait) => {
                (self.phase, self.deadline) = (Phase::Waiting, now.after(wait));
                Action::Wait(wait)
            }
            Verdict::Stop => {
                self.phase = Phase::Stopped;
                Action::Stop
            }
        }
    }

    fn look_up(&mut self, now: Instant, rng: &mut impl Rng) -> Action {
        match self.ladder.look_up(now, rng) {
            Some(rung) => {
                (self.begun, self.deadline) = (now, now.after(self.ladder.open()));
                self.looking = Some(rung);
                Action::LookUp(rung)
            }
            None => Action::Continue,
        }
    }

    fn back(&mut self, now: Instant) -> Action {
        // Nobody has listened to the other one meanwhile.
        (self.looking, self.heard, self.pinged) = (None, now, now);
        Action::Back
    }

    const fn looks_up(&self) -> bool {
        CHOICE && self.looking.is_some()
    }

    fn silent_at(&self) -> Instant {
        self.heard.after(self.silence())
    }

    fn ping_at(&self) -> Option<Instant> {
        let after = self.ladder.ping_after().filter(|_| self.ladder.rung() == Rung::WebSocket)?;
        Some(self.heard.max(self.pinged).after(after))
    }

    fn look_up_at(&self) -> Option<Instant> {
        self.ladder.look_up_at().filter(|_| self.may_look_up)
    }
}
