//! What a connection reads, and what one that is behind is written: the pasts that it asked for, then the present,
//! under its policy (`PROTOCOL.md` section 5.1).

use super::event::Position;
use super::outlet::Image;
use super::session::Session;
use super::shard::Shard;
use super::{Filter, Page, PageSize, Told, count, encode};
use bytes::BytesMut;
use longwire_core::log::{Bounds, Cursor, Distance, Lag, Next, Pattern, Policy, Skip};
use longwire_core::session::{Gap, GapReason, ServerMessage};
use std::collections::VecDeque;
use std::sync::Arc;

/// What is read from the log at once for a reader that lags.
const PAGE: PageSize = PageSize { events: 64, bytes: 64 << 10 };

/// What a connection reads, and how far it is.
#[derive(Default)]
pub(super) struct Reads {
    /// `None`: nothing.
    filter: Option<Arc<Filter>>,
    /// While it is not live: everything up to here was written, or lies in a past.
    pub(super) position: u64,
    /// Those of a reader at the head have all gone out.
    #[expect(clippy::box_collection, reason = "nearly all connections have none, and there are very many")]
    pasts: Option<Box<VecDeque<Past>>>,
    pub(super) begun: bool,
    pub(super) live: bool,
    pub(super) policy: Policy,
    /// Of a reader that is behind, or has skipped something.
    slow: Option<Box<Slow>>,
}

/// What a slow reader has to remember.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Slow {
    lag: Lag,
    /// What was told to be missing.
    told: Told,
    /// The end of the last gap that was conflated: up to here only the latest of each topic and key come.
    conflated: u64,
}

/// The past of one subscription, on its way.
pub(super) struct Past {
    pub(super) filter: Filter,
    pub(super) state: bool,
    pub(super) after: u64,
    until: u64,
    told: Told,
    pub(super) reset: Option<Cursor>,
    /// Whether its events may be resumed from: those of the first subscription.
    position: Position,
    id: Option<u32>,
}

/// What changes once a piece has begun to leave.
#[derive(Clone, Copy, Debug)]
pub(super) enum Effect {
    Event(u64),
    /// A gap, and where the reader goes on.
    Lost(Lost),
    /// The reader knows that it is behind.
    Pressed,
    PastEvent(u64),
    PastLost {
        told: Told,
        skipped: Option<u64>,
    },
    Reset,
    CaughtUp,
}

/// A gap that is told to a reader in the present.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost {
    from: u64,
    to: u64,
    /// Where the reader goes on.
    position: u64,
    skip: Skip,
    skipped: Option<u64>,
    /// What the reader knows then.
    told: Told,
}

/// The reader is beyond its bound, and its policy is to be disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooSlow;

impl Reads {
    /// Nothing yet.
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, ..Self::default() }
    }

    pub(super) fn filter(&self) -> &Filter {
        const NOTHING: &Filter = &Filter::new();
        self.filter.as_deref().unwrap_or(NOTHING)
    }

    /// Subscribes, and gives back what shares its memory with that. The first is shared with other connections, too.
    pub(super) fn subscribe(&mut self, shard: &Shard, id: u32, other: Filter) -> Filter {
        let fresh = |pattern: Pattern<'_>| shard.subscribe(id, pattern);
        match &mut self.filter {
            Some(own) => Arc::make_mut(own).share(other, fresh),
            own => {
                let mut filter = Filter::new();
                let other = filter.share(other, fresh);
                *own = Some(shard.share_filter(filter));
                other
            }
        }
    }

    /// Takes a pattern away, from the pasts, too.
    pub(super) fn unsubscribe(&mut self, shard: &Shard, id: u32, pattern: Pattern<'_>) {
        if self.filter().contains(pattern)
            && let Some(own) = &mut self.filter
        {
            Arc::make_mut(own).remove(pattern);
            shard.unsubscribe(id, pattern);
        }
        self.pasts.iter_mut().flat_map(|pasts| pasts.iter_mut()).for_each(|past| {
            past.filter.remove(pattern);
        });
    }

    /// How many subscriptions there are whose past was not sent yet.
    pub(super) fn pasts(&self) -> usize {
        self.pasts.as_ref().map_or(0, |pasts| pasts.len())
    }

    pub(super) fn push_past(&mut self, past: Past) {
        self.pasts.get_or_insert_default().push_back(past);
    }

    fn past(&mut self) -> Option<&mut Past> {
        self.pasts.as_mut()?.front_mut()
    }

    fn pop_past(&mut self) {
        self.pasts.as_mut().map(|pasts| pasts.pop_front());
        self.pasts.take_if(|pasts| pasts.is_empty());
    }

    /// Whether something is to be read from the log for it. A connection without a subscription reads nothing.
    pub(super) fn lags(&self) -> bool {
        self.pasts() > 0 || (!self.live && !self.filter().is_empty())
    }

    /// It was live, and goes on from here.
    pub(super) fn lag(&mut self, position: u64) {
        self.live = false;
        self.position = position;
    }

    /// As far as it came, or as it will, be it only with the latest.
    fn reach(&self) -> u64 {
        self.slow.as_ref().map_or(0, |slow| slow.conflated).max(self.position)
    }

    /// Everything up to here was written or skipped.
    fn pass(&mut self, shard: &Shard, position: u64) {
        self.position = position;
        if self.slow.as_ref().is_some_and(|slow| position >= slow.conflated) {
            self.settle(shard);
        }
    }

    /// What did not come of a gap that was conflated was skipped.
    pub(super) fn settle(&mut self, shard: &Shard) {
        let mut skipped = 0;
        self.remember(|slow| {
            skipped = slow.lag.settle();
            slow.conflated = 0;
        });
        count(&shard.shared.counters.skipped_conflated, skipped);
    }

    /// It has caught up. What it remembers is what it has skipped, if anything.
    fn catch_up(&mut self) {
        self.live = true;
        self.remember(|slow| slow.lag.near());
        self.slow.take_if(|slow| **slow == Slow::default());
    }

    fn slow(&self) -> Slow {
        self.slow.as_deref().copied().unwrap_or_default()
    }

    fn remember(&mut self, change: impl FnOnce(&mut Slow)) {
        let mut slow = self.slow();
        change(&mut slow);
        match &mut self.slow {
            Some(own) => **own = slow,
            // Most readers never have anything to remember.
            own => *own = (slow != Slow::default()).then(|| Box::new(slow)),
        }
    }

    /// What its policy says at such a distance.
    fn next(&mut self, bounds: &Bounds, behind: Distance, lost: bool) -> Next {
        let (policy, mut next) = (self.policy, Next::GoOn);
        self.remember(|slow| next = slow.lag.next(policy, bounds, behind, lost));
        next
    }
}

impl Session {
    /// Adds the next page of what a lagging reader is to be written, and says how many steps in the log that took. When
    /// there is none it becomes live.
    pub(super) fn compose(&mut self, shard: &Shard, image: &mut Image<Effect>) -> Result<usize, TooSlow> {
        if self.reads.pasts() == 0 {
            self.compose_present(shard, image)
        } else {
            self.compose_past(shard, image)
        }
    }

    /// Whether it is to be disconnected when it is too far behind, and is behind.
    pub(super) fn watches_its_lag(&self) -> bool {
        self.reads.policy == Policy::Disconnect && self.reads.lags()
    }

    /// Whether a reader is to be disconnected, although nothing can be written to it now.
    pub(super) fn is_too_slow(&self, shard: &Shard) -> bool {
        let reads = &self.reads;
        self.watches_its_lag() && {
            let behind = shard.shared.log.distance(reads.reach());
            behind.is_beyond(shard.shared.config.max_lag())
        }
    }

    fn compose_present(&mut self, shard: &Shard, image: &mut Image<Effect>) -> Result<usize, TooSlow> {
        let log = &shard.shared.log;
        let bounds = log.bounds(shard.shared.config.max_lag());
        let position = self.reads.position;
        let mut page = self.reads.page(shard, position);
        let mut steps = page.steps;
        let reach = self.reads.reach();
        let behind = log.distance(reach);
        let lost = match self.reads.next(&bounds, behind, page.gap.is_some()) {
            Next::Disconnect => return Err(TooSlow),
            Next::Jump(within) => {
                let to = log.within(within).max(reach);
                let lost = self.reads.lost(shard, reach, to, Skip::Slow);
                page = self.reads.page(shard, to);
                steps += page.steps;
                Some(lost.and(&page))
            }
            Next::Conflate => {
                // What lies in a gap that was told is counted already, and what is left of it comes first.
                let lost = self.reads.lost(shard, reach, log.head(), Skip::Conflated);
                page = log.conflated(self.reads.filter(), position, lost.to, lost.to, PAGE);
                steps += page.steps;
                Some(Lost { position, ..lost })
            }
            Next::Pressure | Next::GoOn if page.gap.is_some() => {
                let (skip, told) = (Skip::Slow, self.reads.slow().told);
                Some(Lost { from: position, to: 0, position, skip, skipped: Some(0), told }.and(&page))
            }
            Next::Pressure => {
                self.press(&bounds, behind, 0, image);
                None
            }
            Next::GoOn => None,
        };
        if let Some(lost) = lost {
            let gap = Gap {
                from: log.cursor(lost.from),
                to: log.cursor(lost.to),
                reason: lost.reason(),
                skipped: lost.skipped,
            };
            self.push(image, Effect::Lost(lost), &ServerMessage::Gap(gap));
            let (position, skipped) = match lost.skip {
                Skip::Conflated => (lost.to, 0),
                Skip::Slow | Skip::Evicted => (lost.position, lost.skipped.unwrap_or(0)),
            };
            self.press(&bounds, log.distance(position), skipped, image);
        }
        for record in &page.records {
            let bytes = record.live(log.epoch(), self.form);
            image.push(Effect::Event(record.event.seq), |out| out.extend_from_slice(&bytes));
        }
        let reads = &mut self.reads;
        if image.is_empty() {
            reads.pass(shard, page.next);
            if page.next >= log.head() {
                reads.catch_up();
                shard.go_live(self.id, page.next);
            }
        }
        Ok(steps)
    }

    fn compose_past(&mut self, shard: &Shard, image: &mut Image<Effect>) -> Result<usize, TooSlow> {
        let (log, form, now_at) = (&shard.shared.log, self.form, self.reads.position);
        let bounds = log.bounds(shard.shared.config.max_lag());
        let behind = log.distance(now_at);
        if self.is_too_slow(shard) {
            return Err(TooSlow);
        }
        // The policy acts on the present only: a past is what was asked for.
        if bounds.presses(behind) && self.reads.next(&bounds, behind, false) == Next::Pressure {
            self.press(&bounds, behind, 0, image);
        }
        let Some(past) = self.reads.past() else { return Ok(0) };
        if let Some(from) = past.reset {
            let gap = Gap { from, to: log.cursor(past.until), reason: GapReason::Reset, skipped: None };
            image.push(Effect::Reset, |out| encode::write(&ServerMessage::Gap(gap), form, out));
        }
        let page = if past.state {
            log.latest(&past.filter, past.after, past.until, PAGE)
        } else {
            log.read(&past.filter, past.after, past.until, past.told, PAGE)
        };
        if let Some(gap) = page.gap {
            let effect = Effect::PastLost { told: page.told, skipped: gap.skipped };
            let gap = Gap {
                from: log.cursor(gap.from),
                to: log.cursor(gap.to),
                reason: GapReason::Evicted,
                skipped: gap.skipped,
            };
            image.push(effect, |out| encode::write(&ServerMessage::Gap(gap), form, out));
        }
        for record in &page.records {
            let bytes = match past.position {
                Position::At => record.live(log.epoch(), form),
                Position::Past => encode::event(&record.event, log.epoch(), form.plain(), Position::Past),
            };
            image.push(Effect::PastEvent(record.event.seq), |out| out.extend_from_slice(&bytes));
        }
        if page.next >= past.until {
            let message = ServerMessage::CaughtUp { at: log.cursor(now_at), id: past.id };
            image.push(Effect::CaughtUp, |out| encode::write(&message, form, out));
        } else if image.is_empty() {
            past.after = page.next;
        }
        Ok(page.steps)
    }

    /// Says how far behind the reader is; `skipped` is what is skipped with the gap before it.
    fn press(&self, bounds: &Bounds, behind: Distance, skipped: u64, image: &mut Image<Effect>) {
        let skipped = self.reads.slow().lag.skipped().total().saturating_add(skipped);
        self.push(image, Effect::Pressed, &ServerMessage::Pressure(bounds.pressure(behind, skipped)));
    }

    fn push(&self, image: &mut Image<Effect>, effect: Effect, message: &ServerMessage<'_>) {
        image.push(effect, |out: &mut BytesMut| encode::write(message, self.form, out));
    }

    /// A piece has begun to leave.
    pub(super) fn begun(&mut self, shard: &Shard, effect: Effect) {
        let counters = &shard.shared.counters;
        let reads = &mut self.reads;
        match effect {
            Effect::Event(seq) => {
                count(&counters.delivered, 1);
                if reads.slow.as_ref().is_some_and(|slow| seq <= slow.conflated) {
                    reads.remember(|slow| slow.lag.came());
                }
                reads.pass(shard, seq);
            }
            Effect::Lost(lost) => {
                reads.remember(|slow| slow.told = lost.told);
                let skipped = lost.skipped.unwrap_or(0);
                if lost.skip == Skip::Conflated {
                    // How many of them are skipped shows when the reader is past the gap.
                    counters.skipped(GapReason::Conflated, lost.skipped.map(|_| 0));
                    reads.remember(|slow| {
                        slow.lag.conflate(skipped);
                        slow.conflated = lost.to;
                    });
                } else {
                    counters.skipped(lost.reason(), lost.skipped);
                    reads.remember(|slow| slow.lag.skip(lost.skip, skipped));
                    reads.pass(shard, lost.position);
                }
            }
            Effect::Pressed => {
                reads.remember(|slow| slow.lag.told());
                count(&counters.pressures, 1);
            }
            Effect::PastEvent(seq) => {
                if let Some(past) = reads.past() {
                    past.after = seq;
                }
                count(&counters.delivered, 1);
            }
            Effect::PastLost { told, skipped } => {
                if let Some(past) = reads.past() {
                    past.told = told;
                }
                counters.skipped(GapReason::Evicted, skipped);
                reads.remember(|slow| slow.lag.skip(Skip::Evicted, skipped.unwrap_or(0)));
            }
            Effect::Reset => {
                if let Some(past) = reads.past() {
                    past.reset = None;
                }
                counters.skipped(GapReason::Reset, None);
            }
            Effect::CaughtUp => reads.pop_past(),
        }
    }
}

impl Reads {
    /// The page after a position: of a stretch that is conflated only the latest.
    fn page(&self, shard: &Shard, position: u64) -> Page {
        let (log, until) = (&shard.shared.log, self.slow().conflated);
        if position < until {
            // Its gap was told.
            log.conflated(self.filter(), position, until, until, PAGE)
        } else {
            log.read(self.filter(), position, u64::MAX, self.slow().told, PAGE)
        }
    }

    /// The gap between two positions, counted before anything of it is written.
    fn lost(&self, shard: &Shard, from: u64, to: u64, skip: Skip) -> Lost {
        let told = self.slow().told;
        let skipped = shard.shared.log.count(self.filter(), from, to, told);
        Lost { from, to, position: to, skip, skipped, told: told.and(to) }
    }
}

impl Lost {
    /// Together with what the log had lost behind it.
    fn and(self, page: &Page) -> Self {
        let Some(gap) = page.gap else { return self };
        let skipped = self.skipped.zip(gap.skipped).map(|(jumped, lost)| jumped + lost);
        Self { to: self.to.max(gap.to), skipped, told: page.told.and(self.to), ..self }
    }

    fn reason(&self) -> GapReason {
        match self.skip {
            Skip::Slow => GapReason::Slow,
            Skip::Conflated => GapReason::Conflated,
            Skip::Evicted => GapReason::Evicted,
        }
    }
}

impl Past {
    /// Nothing yet: it ends where the connection is, and begins there, too.
    pub(super) fn new(filter: Filter, end: u64, position: Position, id: Option<u32>) -> Self {
        Self {
            filter,
            state: false,
            after: end,
            until: end,
            told: Told::default(),
            reset: None,
            position,
            id,
        }
    }

    pub(super) fn read_state(&mut self) {
        self.state = true;
        self.after = 0;
        self.position = Position::Past;
    }
}
