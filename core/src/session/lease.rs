//! How long a grant lasts, and when the next one is asked for (`PROTOCOL.md` section 8.4).

use core::time::Duration;

use crate::time::{Instant, millis};

/// How long before its end a grant's renewal is asked for, if nothing else is said.
pub const RENEW_BEFORE: Duration = Duration::from_secs(30);

/// The time of a grant, on either side of a connection.
///
/// A server asks it before everything that it writes ([`holds`](Self::holds)), says `renew` when it tells so
/// ([`poll`](Self::poll)), and ends the connection at [`LeaseStep::Expired`]. A client takes it from `hello` and sends
/// `auth` at [`LeaseStep::Renew`]: by its own clock, or when the server [asked](Self::asked).
///
/// Nothing makes a grant hold again that has ended: not a late [`renewed`](Self::renewed), and not a clock that
/// goes back once the end was seen.
///
/// ```
/// use core::time::Duration;
/// use longwire_core::session::lease::{Lease, LeaseStep};
/// use longwire_core::time::Instant;
///
/// let at = Instant::from_millis;
/// let before = Duration::from_secs(30);
/// let mut lease = Lease::until(at(0), at(60_000), before);
/// assert_eq!(lease.poll_timeout(), Some(at(40_000))); // a third of the lease is less than 30 s
/// assert_eq!(lease.poll(at(40_000)), LeaseStep::Renew { within: Duration::from_secs(20) });
/// assert!(lease.renewed(at(45_000), Some(at(600_000)), before));
/// assert_eq!(lease.poll(at(569_999)), LeaseStep::Holds);
/// assert_eq!(lease.poll(at(600_000)), LeaseStep::Expired);
/// assert!(!lease.renewed(at(600_000), None, before) && !lease.holds(at(0)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Lease {
    /// When it ends; [`NEVER`]: with the connection.
    end: Instant,
    /// When a new one is asked for; [`NEVER`] once that is done.
    renew_at: Instant,
    over: bool,
}

// A connection has one.
const _: () = assert!(size_of::<Lease>() <= 24);

const NEVER: Instant = Instant::from_millis(u64::MAX);

/// What a [`Lease`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum LeaseStep {
    /// Nothing: it holds.
    Holds,
    /// It ends soon, and this is said once for each grant: a server sends `renew`, a client sends `auth`.
    Renew {
        /// The time that is left.
        within: Duration,
    },
    /// It has ended. No event may go out, and the connection ends.
    Expired,
}

impl Default for Lease {
    fn default() -> Self {
        Self::endless()
    }
}

impl Lease {
    /// A grant that lasts as long as the connection.
    pub const fn endless() -> Self {
        Self { end: NEVER, renew_at: NEVER, over: false }
    }

    /// A grant that holds until `end` and not in that millisecond any more. A new one is asked for `renew_before`
    /// earlier, or when a third of the time from `now` on is left, whichever comes later: a short lease is not
    /// renewed all the time. With a `renew_before` of zero none is asked for.
    pub const fn until(now: Instant, end: Instant, renew_before: Duration) -> Self {
        let left = millis(end.since(now));
        let (before, third) = (millis(renew_before), left / 3);
        let before = if before < third { before } else { third };
        let renew_at = if renew_before.is_zero() { NEVER } else { end.before(before) };
        Self { end, renew_at, over: false }
    }

    /// When it ends; `None`: with the connection.
    pub const fn end(&self) -> Option<Instant> {
        if self.end.as_millis() == NEVER.as_millis() { None } else { Some(self.end) }
    }

    /// Whether it holds, now.
    pub fn holds(&self, now: Instant) -> bool {
        !self.over && self.end().is_none_or(|end| now < end)
    }

    /// A new grant has come, which lasts until `end`; its renewal is asked for as in [`until`](Self::until). False
    /// when it comes too late: the connection ends all the same.
    #[must_use]
    pub fn renewed(&mut self, now: Instant, end: Option<Instant>, renew_before: Duration) -> bool {
        self.over = !self.holds(now);
        if !self.over {
            *self = match end {
                Some(end) => Self::until(now, end, renew_before),
                None => Self::endless(),
            };
        }
        !self.over
    }

    /// The server asked for a new credential within this time (`renew`): then that is when the grant ends, unless it
    /// does so earlier, and the next [`poll`](Self::poll) says so.
    pub fn asked(&mut self, now: Instant, within: Duration) {
        let end = now.after(within);
        self.end = self.end.min(end);
        self.renew_at = now;
    }

    /// What is to be done now.
    pub fn poll(&mut self, now: Instant) -> LeaseStep {
        if !self.holds(now) {
            self.over = true;
            return LeaseStep::Expired;
        }
        if self.renew_at == NEVER || self.renew_at > now {
            return LeaseStep::Holds;
        }
        self.renew_at = NEVER;
        LeaseStep::Renew { within: self.end.since(now) }
    }

    /// When to [`poll`](Self::poll) next; `None`: never.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = if self.renew_at == NEVER { self.end } else { self.renew_at };
        (!self.over && next != NEVER).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn renewal_is_asked_for_in_time_and_a_short_lease_keeps_two_thirds_to_itself() {
        for (lease, before, asked) in [
            (600_000, 30_000, 570_000),
            (90_000, 30_000, 60_000),
            (60_000, 30_000, 40_000),
            (3, 30_000, 2),
            (2, 30_000, 2),
            (1, 30_000, 1),
            (1000, 1, 999),
        ] {
            let lease = Lease::until(at(7), at(7 + lease), ms(before));
            assert_eq!(lease.poll_timeout(), Some(at(7 + asked)), "{lease:?}");
        }
        assert_eq!(Lease::until(at(7), at(9), Duration::ZERO).poll_timeout(), Some(at(9)));
        // One that has ended before it began.
        let mut late = Lease::until(at(7), at(6), ms(1));
        assert!(!late.holds(at(7)));
        assert_eq!(late.poll(at(7)), LeaseStep::Expired);
        assert_eq!(Lease::endless().poll_timeout(), None);
        assert!(Lease::endless().holds(at(u64::MAX)));
    }

    #[test]
    fn it_is_asked_for_once_and_a_grant_that_has_ended_stays_so() {
        let mut lease = Lease::until(at(0), at(30), ms(10));
        assert_eq!(lease.poll(at(19)), LeaseStep::Holds);
        assert_eq!(lease.poll(at(21)), LeaseStep::Renew { within: ms(9) });
        assert_eq!((lease.poll(at(22)), lease.poll_timeout()), (LeaseStep::Holds, Some(at(30))));
        assert_eq!((lease.poll(at(30)), lease.poll_timeout()), (LeaseStep::Expired, None));
        assert_eq!(lease.poll(at(29)), LeaseStep::Expired);
        assert!(!lease.renewed(at(29), Some(at(90)), ms(10)));
        assert_eq!(lease.poll(at(29)), LeaseStep::Expired);
    }

    #[test]
    fn a_late_renewal_is_refused_even_if_nobody_saw_the_end() {
        let mut lease = Lease::until(at(0), at(30), ms(10));
        assert!(!lease.renewed(at(30), None, ms(10)));
        assert!(!lease.holds(at(0)));
    }

    #[test]
    fn a_client_renews_when_it_is_asked_to_and_never_later_than_by_its_own_clock() {
        let mut lease = Lease::endless();
        lease.asked(at(100), ms(50));
        assert_eq!(lease.poll(at(100)), LeaseStep::Renew { within: ms(50) });
        assert_eq!(lease.poll(at(150)), LeaseStep::Expired);
        let mut lease = Lease::until(at(0), at(120), ms(10));
        lease.asked(at(100), ms(50));
        assert_eq!(lease.poll(at(100)), LeaseStep::Renew { within: ms(20) });
        // Asked for again, said again.
        lease.asked(at(101), ms(50));
        assert_eq!(lease.poll(at(101)), LeaseStep::Renew { within: ms(19) });
    }

    #[derive(Clone, Debug)]
    enum Act {
        /// The time goes on, and the machine is asked.
        Poll(u64),
        /// The time goes on, and nobody looks.
        Pass(u64),
        Renew(Option<u64>),
        /// An event would like to go out.
        Event,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            (0..50u64).prop_map(Act::Poll),
            (0..50u64).prop_map(Act::Pass),
            prop_oneof![Just(None), (0..100u64).prop_map(Some)].prop_map(Act::Renew),
            Just(Act::Event),
        ];
        proptest::collection::vec(act, 0..60)
    }

    proptest! {
        /// Compared with the plainest model: the list of grants, each with its time.
        #[test]
        fn no_event_leaves_after_the_deadline(first in 0..100u64, before in 0..40u64, acts in acts()) {
            let (mut now, mut end, mut over) = (0, Some(first), false);
            let mut lease = Lease::until(at(0), at(first), ms(before));
            let mut asked = false;
            for act in acts {
                let held = |now: u64, end: Option<u64>| end.is_none_or(|end| now < end);
                match act {
                    Act::Pass(by) => now += by,
                    Act::Poll(by) => {
                        now += by;
                        over |= !held(now, end);
                        match lease.poll(at(now)) {
                            LeaseStep::Expired => prop_assert!(over),
                            step => {
                                prop_assert!(!over);
                                if let LeaseStep::Renew { within } = step {
                                    let left = end.map(|end| ms(end - now));
                                    prop_assert_eq!((asked, Some(within)), (false, left));
                                    asked = true;
                                }
                                // Whoever comes back when it is told to misses neither.
                                let timeout = lease.poll_timeout().map(Instant::as_millis);
                                prop_assert!(timeout.is_none_or(|timeout| timeout > now));
                                prop_assert_eq!(timeout.is_none(), end.is_none());
                            }
                        }
                    }
                    Act::Renew(by) => {
                        over |= !held(now, end);
                        let until = by.map(|by| now + by);
                        prop_assert_eq!(lease.renewed(at(now), until.map(at), ms(before)), !over);
                        if !over {
                            (end, asked) = (until, false);
                        }
                    }
                    Act::Event => prop_assert_eq!(lease.holds(at(now)), !over && held(now, end)),
                }
            }
        }
    }
}
