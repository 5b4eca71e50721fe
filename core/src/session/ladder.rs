//! Which transport to use (`PROTOCOL.md` section 11.2).

use core::time::Duration;

use super::backoff::Failure;
use super::{Code, Refusal};
use crate::rand_core::Rng;
use crate::time::{Instant, duration, millis};
use crate::ws::CloseCode;

/// A transport of `longwire.v1`, the best first. Without the feature `ladder` only the first is ever used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Rung {
    /// WebSocket (section 6).
    WebSocket,
    /// Server-Sent Events (section 7).
    Sse,
    /// Polls that wait at the server (section 8).
    LongPoll,
    /// Polls that do not; for a publisher, one POST for each publication.
    Poll,
}

impl Rung {
    /// All of them, from the top down.
    pub const ALL: [Self; 4] = [Self::WebSocket, Self::Sse, Self::LongPoll, Self::Poll];

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Some of the rungs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Rungs(u8);

impl Rungs {
    /// Everything that a reader can use.
    pub const ALL: Self = Self(0b1111);
    /// What a publisher can use: WebSocket, and POST, which is called [`Rung::Poll`] here.
    pub const PUBLISH: Self = Self(Rung::WebSocket.bit() | Rung::Poll.bit());

    /// This one alone: then there is no ladder.
    pub const fn only(rung: Rung) -> Self {
        Self(rung.bit())
    }

    /// Whether `rung` is one of them.
    pub const fn has(self, rung: Rung) -> bool {
        self.0 & rung.bit() != 0
    }

    /// These, and this one.
    #[must_use]
    pub const fn and(self, rung: Rung) -> Self {
        Self(self.0 | rung.bit())
    }

    fn iter(self) -> impl Iterator<Item = Rung> {
        Rung::ALL.into_iter().filter(move |rung| self.has(*rung))
    }

    fn first(self) -> Option<Rung> {
        self.iter().next()
    }
}

/// How a [connector](super::connector::Connector) goes down the ladder and up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LadderConfig {
    /// The rungs to use. Default: all. (Without the feature `ladder` it is WebSocket, whatever stands here.)
    pub rungs: Rungs,
    /// How long a rung that has never worked has from the moment when TCP and TLS stand until the server's first word (`hello`, the
    /// first answer), if there is another one below it: a proxy that buffers says nothing for as long as it likes. Where connecting was slow it is
    /// four times as long as that took. Default: 2.5 s.
    pub first_word: Duration,
    /// How long any attempt may take in all. Default: 10 s.
    pub open: Duration,
    /// How many connections in a row may be cut young, or attempts fail on a rung that has worked, before it is left. Default: 3.
    pub strikes: u8,
    /// When a better rung is tried again: at a random moment between half of this and all of it. It doubles each time
    /// that it was in vain. Default: 5 min.
    pub look_up: Duration,
    /// Where that doubling ends. Default: 1 h.
    pub look_up_cap: Duration,
    /// How long a long poll waits at the server. Whole seconds; the server's own limit is 60. Default: 25 s.
    pub wait: Duration,
}

impl LadderConfig {
    /// The defaults, as a constant.
    pub const fn new() -> Self {
        Self {
            rungs: Rungs::ALL,
            first_word: Duration::from_millis(2500),
            open: Duration::from_secs(10),
            strikes: 3,
            look_up: Duration::from_secs(300),
            look_up_cap: Duration::from_secs(3600),
            wait: Duration::from_secs(25),
        }
    }
}

impl Default for LadderConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// What a [connector](super::connector::Connector) has learned about the way to a server: worth keeping, for the next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Memory {
    /// The rung that worked.
    pub rung: Rung,
    /// Something in between cuts connections that were quiet for this long.
    pub idle_cut: Option<Duration>,
}

impl Memory {
    /// In four bytes, for a device's flash or a browser's storage.
    pub fn to_bits(self) -> u32 {
        let idle = self.idle_cut.map_or(0, |idle| short(idle).min(u32::MAX >> 2));
        idle << 2 | self.rung as u32
    }

    /// From four bytes. Each value means something; what is wrong is found out by trying.
    pub const fn from_bits(bits: u32) -> Self {
        let rung = match bits & 3 {
            0 => Rung::WebSocket,
            1 => Rung::Sse,
            2 => Rung::LongPoll,
            _ => Rung::Poll,
        };
        let idle_cut = if bits >> 2 == 0 { None } else { Some(Duration::from_millis((bits >> 2) as u64)) };
        Self { rung, idle_cut }
    }
}

/// How an attempt, or a connection, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Ending {
    /// There was no connection at all: the name, TCP or TLS failed.
    Unreachable,
    /// The connection stood, and ended without a word: a reset, the end of the stream.
    Cut,
    /// Nothing was heard, for longer than it may take.
    Silent,
    /// An answer in HTTP that is not a gateway's: a proxy's page.
    Foreign {
        /// Its status.
        status: u16,
        /// Its `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// Something that is neither HTTP, WebSocket nor `longwire.v1`.
    Garbled,
    /// The gateway found something wrong with the request itself (`bad_request`, `upgrade_required`), as it does when something in between has
    /// changed it.
    Mangled,
    /// The credential was refused, or ended (401, close 3000).
    Unauthorized,
    /// The gateway said why, and when to come back.
    Said(Failure),
}

impl Ending {
    /// A refusal of the gateway's: a response (section 9), `bye`, or the `error` that answers a subscription.
    pub fn from_refusal(refusal: &Refusal<'_>, window: Option<Duration>) -> Self {
        match refusal.code() {
            Some(Code::BadRequest | Code::UpgradeRequired) => Self::Mangled,
            Some(Code::Unauthorized) => Self::Unauthorized,
            _ if refusal.permanent => Self::Said(Failure::Permanent),
            _ => match (refusal.retry_after, window) {
                (None, None) => Self::Said(Failure::Lost),
                (after, window) => Self::Said(Failure::Told {
                    retry_after: after.unwrap_or_default(),
                    window: window.unwrap_or_default(),
                }),
            },
        }
    }

    /// A Close of the server's (the table of section 6). 1005 and 1006, which no Close carries, are a [`Cut`](Self::Cut).
    pub const fn from_close(code: CloseCode) -> Self {
        match code.get() {
            3000 => Self::Unauthorized,
            _ => Self::Said(Failure::from_close(code)),
        }
    }

    /// An HTTP response whose body is no refusal of a gateway's.
    pub const fn from_status(status: u16, retry_after: Option<Duration>) -> Self {
        match status {
            401 => Self::Unauthorized,
            _ => Self::Foreign { status, retry_after },
        }
    }

    /// Whose fault it is.
    const fn blame(self) -> Blame {
        match self {
            Self::Unreachable | Self::Unauthorized | Self::Said(_) => Blame::Server,
            // Also what a proxy says when the server behind it is away.
            Self::Foreign { status: 408 | 429 | 500.., .. } => Blame::Either,
            Self::Cut | Self::Silent => Blame::Unclear,
            Self::Foreign { .. } | Self::Garbled | Self::Mangled => Blame::Rung,
        }
    }

    /// What it says about coming back.
    pub const fn failure(self) -> Failure {
        match self {
            Self::Unreachable | Self::Cut | Self::Silent | Self::Garbled => Failure::Lost,
            Self::Foreign { status, retry_after } => Failure::from_status(status, retry_after),
            Self::Mangled | Self::Unauthorized => Failure::Permanent,
            Self::Said(failure) => failure,
        }
    }
}

enum Blame {
    /// Another rung would meet with the same.
    Server,
    /// Another rung may do better.
    Rung,
    /// The rung, if it has never worked.
    Unclear,
    /// The server, most likely; but it costs nothing to come back on another rung.
    Either,
}

/// Whether there are other rungs than WebSocket.
pub(super) const CHOICE: bool = cfg!(feature = "ladder");

/// What to do about a failure, as far as rungs are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Try at once.
    Now,
    /// Wait, and try then.
    Later,
}

/// The four transports, from WebSocket down to plain polls: what works, and when something better is tried again.
///
/// A rung is left when something in between refuses or breaks it, or says nothing; not when the server itself refuses, or is not there.
/// Whether a connection that is cut without a word was the rung's fault shows only when it happens again and again.
#[derive(Clone, Debug)]
pub(super) struct Ladder {
    config: LadderConfig,
    rung: Rung,
    /// Those that have worked.
    proven: Rungs,
    /// Those that failed since one worked.
    failed: Rungs,
    strikes: u8,
    /// How quiet it was before the last cut, in ms; 0: it was not, or there was none.
    suspect: u32,
    /// Something cuts connections that are quiet for this long, in ms; 0: nothing is known to.
    idle: u32,
    /// How many times in a row nothing better worked.
    looked: u8,
    /// The better rung that was tried last.
    tried: Option<Rung>,
    look_up: Option<Instant>,
}

impl Ladder {
    /// At its top, or where `memory` says that it worked.
    pub(super) fn new(config: LadderConfig, memory: Option<Memory>) -> Self {
        let top = config.rungs.first().unwrap_or(Rung::WebSocket);
        let known = memory.filter(|memory| config.rungs.has(memory.rung));
        Self {
            config,
            rung: known.map_or(top, |memory| memory.rung),
            proven: known.map_or(Rungs(0), |memory| Rungs::only(memory.rung)),
            failed: Rungs(0),
            strikes: 0,
            suspect: 0,
            idle: known.and_then(|memory| memory.idle_cut).map_or(0, short),
            looked: 0,
            tried: None,
            look_up: None,
        }
    }

    /// The rung to use.
    pub(super) const fn rung(&self) -> Rung {
        if CHOICE { self.rung } else { Rung::WebSocket }
    }

    /// What was learned; `None` before anything has worked.
    pub(super) fn memory(&self) -> Option<Memory> {
        self.proven.has(self.rung).then(|| Memory { rung: self.rung, idle_cut: self.idle_cut() })
    }

    fn idle_cut(&self) -> Option<Duration> {
        (self.idle > 0).then(|| duration(self.idle.into()))
    }

    /// How quiet a WebSocket may be before a Ping, so that nothing in between cuts it: half of what was learned, at least 1 s.
    /// `None`: the server's heartbeat is enough.
    pub(super) fn ping_after(&self) -> Option<Duration> {
        (self.idle > 0).then(|| duration((self.idle / 2).max(1000).into()))
    }

    /// How long a long poll should wait at the server, in whole seconds.
    pub(super) fn wait(&self) -> Duration {
        let most = self.config.wait.as_secs();
        let seconds = if self.idle > 0 { u64::from(self.idle / 2000).min(most) } else { most };
        Duration::from_secs(seconds.max(1))
    }

    /// How long the server's first word may take on `rung`, when TCP and TLS took `connecting`.
    pub(super) fn first_word(&self, rung: Rung, connecting: Duration) -> Duration {
        let last = || self.config.rungs.iter().last() == Some(rung);
        if !CHOICE || last() || self.proven.has(rung) {
            return self.config.open;
        }
        self.config.first_word.max(connecting.saturating_mul(4)).min(self.config.open)
    }

    pub(super) const fn open(&self) -> Duration {
        self.config.open
    }

    /// The server said its first word on this rung.
    pub(super) fn opened(&mut self, rung: Rung, now: Instant, rng: &mut impl Rng) {
        self.rung = rung;
        self.proven = self.proven.and(rung);
        self.failed = Rungs(0);
        if self.better().is_none() {
            (self.looked, self.tried, self.look_up) = (0, None, None);
        } else if self.look_up.is_none_or(|at| at <= now) {
            self.schedule(now, rng);
        }
    }

    /// An attempt failed.
    pub(super) fn unopened(&mut self, ending: Ending) -> Next {
        match ending.blame() {
            Blame::Server => Next::Later,
            Blame::Rung => self.descend(),
            Blame::Unclear if self.proven.has(self.rung) => self.strike(),
            Blame::Unclear => self.descend(),
            Blame::Either if self.proven.has(self.rung) => self.strike(),
            Blame::Either => {
                self.descend();
                Next::Later
            }
        }
    }

    /// A connection ended that had lived for so long, and for so long nothing had come or gone over it. `heartbeat` is the server's.
    pub(super) fn ended(
        &mut self,
        ending: Ending,
        quiet: Duration,
        stable: bool,
        heartbeat: Duration,
    ) -> Next {
        let quiet = short(quiet);
        if !matches!(ending, Ending::Cut | Ending::Garbled | Ending::Silent | Ending::Foreign { .. }) {
            (self.suspect, self.strikes) = (0, 0);
            return Next::Later;
        }
        if self.idle_cut_shown(ending, quiet) {
            self.idle = quiet;
            (self.suspect, self.strikes) = (0, 0);
            // The server's own heartbeat is too rare for what lies in between, and a stream cannot ask for more.
            if self.rung() == Rung::Sse && quiet <= short(heartbeat) {
                return self.descend();
            }
            return Next::Now;
        }
        self.suspect = quiet;
        if stable {
            self.strikes = 0;
            return Next::Later;
        }
        self.strike()
    }

    /// Twice in a row it was cut after the same silence (within an eighth); a long poll tells by itself how long it may be.
    fn idle_cut_shown(&self, ending: Ending, quiet: u32) -> bool {
        let known = self.idle > 0 && quiet >= self.idle / 4 * 3;
        if quiet < 1000
            || known && self.rung() == Rung::WebSocket
            || matches!(ending, Ending::Garbled | Ending::Silent)
        {
            return false;
        }
        match self.rung() {
            Rung::WebSocket | Rung::Sse => quiet.abs_diff(self.suspect) <= quiet / 8,
            Rung::LongPoll => self.wait() > Duration::from_secs(1) && quiet < short(self.wait()),
            Rung::Poll => false,
        }
    }

    fn strike(&mut self) -> Next {
        self.strikes = self.strikes.saturating_add(1);
        if self.strikes >= self.config.strikes {
            self.descend();
        }
        Next::Later
    }

    /// Leaves the rung for the next one that has not failed. When all have, it was not the rung: begins again with the best that ever
    /// worked.
    fn descend(&mut self) -> Next {
        (self.strikes, self.suspect) = (0, 0);
        if !CHOICE {
            return Next::Later;
        }
        self.failed = self.failed.and(self.rung);
        let left = |below: bool| {
            let left = |rung: &Rung| (!below || *rung > self.rung) && !self.failed.has(*rung);
            self.config.rungs.iter().find(left)
        };
        if let Some(rung) = left(true).or_else(|| left(false)) {
            self.rung = rung;
            return Next::Now;
        }
        self.failed = Rungs(0);
        let best = self.proven.first().or(self.config.rungs.first());
        self.rung = best.unwrap_or(self.rung);
        Next::Later
    }

    /// Whether something has ever worked.
    pub(super) const fn is_proven(&self) -> bool {
        self.proven.0 != 0
    }

    fn better(&self) -> Option<Rung> {
        if CHOICE { self.config.rungs.first().filter(|rung| *rung < self.rung) } else { None }
    }

    /// When something better should be tried.
    pub(super) const fn look_up_at(&self) -> Option<Instant> {
        if CHOICE { self.look_up } else { None }
    }

    /// The better rung to try now: each in its turn, from the top.
    pub(super) fn look_up(&mut self, now: Instant, rng: &mut impl Rng) -> Option<Rung> {
        if !CHOICE {
            return None;
        }
        let better = |after: Option<Rung>| {
            self.config.rungs.iter().find(|rung| *rung < self.rung && after.is_none_or(|after| *rung > after))
        };
        self.tried = better(self.tried).or_else(|| better(None));
        self.looked = self.looked.saturating_add(1);
        self.schedule(now, rng);
        self.tried
    }

    fn schedule(&mut self, now: Instant, rng: &mut impl Rng) {
        let doubled = short(self.config.look_up)
            .saturating_mul(1u32.checked_shl(self.looked.into()).unwrap_or(u32::MAX));
        let longest = doubled.min(short(self.config.look_up_cap));
        let wide = u64::from(longest / 2) * u64::from(rng.next_u32());
        let wait = u64::from(longest - longest / 2) + (wide >> 32);
        self.look_up = Some(now.after(duration(wait)));
    }
}

fn short(time: Duration) -> u32 {
    u32::try_from(millis(time)).unwrap_or(u32::MAX)
}
