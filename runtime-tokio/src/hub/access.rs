//! What one connection may do at this moment: its grant, the time of that, and the next one on its way.

use super::session::End;
use super::shard::Shard;
use super::{Filter, Grant, Parked, count};
use longwire_core::log::Since;
use longwire_core::session::lease::{Lease, LeaseStep};
use longwire_core::session::{Code, Refusal, ServerMessage, Text};
use longwire_core::time::Instant;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Bytes that a connection may send before it has said who it is: a credential, and what it wants to read.
const PARKED_BYTES: usize = 64 << 10;

/// The access of one connection.
pub(super) struct Access {
    /// Its time is the lease's: shared with those that are granted the same.
    grant: Arc<Grant>,
    lease: Lease,
    /// A credential that is looked at.
    renewing: Option<Box<Renewing>>,
    /// What waits until the connection has said who it is; `None` once it has.
    waiting: Option<Box<Waiting>>,
    /// Somebody has taken the grant back.
    revoked: bool,
    /// The end was told, and counted.
    told: bool,
}

struct Renewing {
    decision: Pin<Box<dyn Future<Output = Result<Grant, &'static str>> + Send>>,
    waker: Waker,
}

/// A connection that has not said who it is: its place among those of its address, and what it wants to read.
struct Waiting {
    _place: Parked,
    subscriptions: Vec<Subscription>,
    /// Bytes that it may still send.
    bytes: usize,
}

/// A subscription that waits: patterns, where it begins, and the number to answer with.
pub(super) type Subscription = (Filter, Since, Option<u32>);

impl Access {
    pub(super) fn new(shard: &Shard, grant: Grant, parked: Option<Parked>) -> Self {
        let (end, renew_before) = match &parked {
            // Nobody asks for the renewal of what was never given.
            Some(parked) => (parked.until, Duration::ZERO),
            None => (grant.expires, shard.shared.config.renew_before),
        };
        let now = shard.clock.now();
        let lease =
            end.map_or(Lease::endless(), |end| Lease::until(now, shard.clock.moment(end), renew_before));
        let waiting = parked.map(|parked| {
            Box::new(Waiting { _place: parked, subscriptions: Vec::new(), bytes: PARKED_BYTES })
        });
        let revoked = shard.shared.revocations.covers(&grant);
        Self { grant: shard.share_grant(grant), lease, renewing: None, waiting, revoked, told: false }
    }

    pub(super) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Whether it has not said yet who it is.
    pub(super) fn is_parked(&self) -> bool {
        self.waiting.is_some()
    }

    /// Whether anything may leave that depends on the grant. Asked before every write; the clock is looked at only for
    /// a grant that ends.
    pub(super) fn holds(&self, shard: &Shard) -> bool {
        !self.revoked && (self.lease.end().is_none() || self.lease.holds(shard.clock.now()))
    }

    /// What is left of its time.
    pub(super) fn left(&self, shard: &Shard) -> Option<Duration> {
        self.lease.end().map(|end| end.since(shard.clock.now()))
    }

    /// When [`due`](Self::due) has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.lease.poll_timeout()
    }

    /// When it ends.
    pub(super) fn end(&self) -> Option<Instant> {
        self.lease.end()
    }

    /// A `renew`, once for each grant, when it is about to end.
    pub(super) fn due(&mut self, shard: &Shard) -> Option<ServerMessage<'static>> {
        match self.lease.poll(shard.clock.now()) {
            LeaseStep::Renew { within } => Some(ServerMessage::Renew { within }),
            LeaseStep::Holds | LeaseStep::Expired => None,
        }
    }

    /// Takes the grant back.
    pub(super) fn revoke(&mut self) {
        self.revoked = true;
    }

    /// Why it does not [hold](Self::holds) any more; counts it, once.
    pub(super) fn ended(&mut self, shard: &Shard) -> Refusal<'static> {
        let counters = &shard.shared.counters;
        let (counter, why) = match (self.revoked, self.is_parked()) {
            (true, _) => (&counters.revoked, "the grant was revoked"),
            (false, true) => (&counters.expired, "no auth came in time (auth_timeout)"),
            (false, false) => (&counters.expired, "the grant has ended"),
        };
        if !std::mem::replace(&mut self.told, true) {
            count(counter, 1);
        }
        Refusal::new(Code::Unauthorized, why)
    }

    /// Begins to look at a credential; false when its text is none.
    pub(super) fn present(&mut self, token: Text<'_>, id: u32, shard: &Shard) -> bool {
        let mut credential = String::new();
        if token.write_to(&mut credential).is_err() {
            return false;
        }
        let (authorize, asked) = (Arc::clone(&shard.shared.authorize), tokio::time::Instant::now());
        let decision = async move {
            let grant = authorize.authorize(Some(&credential)).await;
            grant.map(|grant| Grant { issued: asked, ..grant }).map_err(|denied| denied.0)
        };
        self.renewing = Some(Box::new(Renewing { decision: Box::pin(decision), waker: shard.waker(id) }));
        true
    }

    /// The outcome of what was [presented](Self::present): ready with `None` when nothing was. With a new grant,
    /// whether it replaces the old one, and what has waited for it.
    pub(super) fn poll_renewed(
        &mut self,
        shard: &Shard,
        reads: &Filter,
    ) -> Poll<Option<Result<Vec<Subscription>, &'static str>>> {
        let Some(renewing) = &mut self.renewing else { return Poll::Ready(None) };
        let mut cx = Context::from_waker(&renewing.waker);
        let Poll::Ready(renewed) = renewing.decision.as_mut().poll(&mut cx) else { return Poll::Pending };
        self.renewing = None;
        let taken = renewed.and_then(|grant| self.replace(shard, grant, reads));
        if taken.is_err() {
            count(&shard.shared.counters.denied, 1);
        }
        Poll::Ready(Some(taken))
    }

    /// Puts another grant in the place of this one, unless it does not cover what is read.
    pub(super) fn replace(
        &mut self,
        shard: &Shard,
        grant: Grant,
        reads: &Filter,
    ) -> Result<Vec<Subscription>, &'static str> {
        if shard.shared.revocations.covers(&grant) {
            return Err("the grant was revoked");
        }
        if !grant.logs.contains(&shard.shared.name) {
            return Err("the new grant is not for this log");
        }
        // Patterns are checked when they are subscribed to, so none may outlive what allowed it.
        let waiting = self.waiting.iter().flat_map(|waiting| &waiting.subscriptions);
        let filters = waiting.map(|(filter, ..)| filter).chain([reads]);
        if !filters.flat_map(Filter::parsed).all(|own| grant.may_subscribe(own)) {
            return Err("the new grant does not cover what is subscribed to");
        }
        let now = shard.clock.now();
        let end = grant.expires.map(|end| shard.clock.moment(end));
        if self.revoked || !self.lease.renewed(now, end, shard.shared.config.renew_before) {
            return Err("the grant has ended");
        }
        self.grant = shard.share_grant(grant);
        count(&shard.shared.counters.renewals, 1);
        Ok(self.waiting.take().map(|waiting| waiting.subscriptions).unwrap_or_default())
    }

    /// Keeps a subscription until somebody has said who it is for; false when there are as many patterns as may be.
    pub(super) fn park(&mut self, subscription: Subscription, max_topics: usize) -> bool {
        let Some(waiting) = &mut self.waiting else { return false };
        // Counted with those that are the same: what is kept is bounded, whatever comes.
        let kept: usize = waiting.subscriptions.iter().map(|(filter, ..)| filter.len()).sum();
        let room = kept + subscription.0.len() <= max_topics;
        if room {
            waiting.subscriptions.push(subscription);
        }
        room
    }

    /// So many bytes came in.
    pub(super) fn spend(&mut self, bytes: usize) {
        if let Some(waiting) = &mut self.waiting {
            waiting.bytes = waiting.bytes.saturating_sub(bytes);
        }
    }

    /// The end of a connection that sent more than it may before it said who it is.
    pub(super) fn overspent(&self) -> Option<End> {
        let waiting = self.waiting.as_ref()?;
        (waiting.bytes == 0).then(|| End::told(Code::Unauthorized, "too many bytes before auth"))
    }
}
