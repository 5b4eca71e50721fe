//! Tickets (`PROTOCOL.md` section 8.4): what opens one stream, once, soon.

use crate::hub::Grant;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Random bytes of a ticket: 192 bits.
const RANDOM: usize = 24;

/// A lifetime beyond it counts as this: a year.
const LONGEST: Duration = Duration::from_secs(86_400 * 365);

/// The tickets that were given out and not used. Kept and looked up by their SHA-256 only: how long a look-up takes says
/// nothing about them.
#[derive(Debug)]
pub(in crate::gateway) struct Tickets {
    max: usize,
    lifetime: Duration,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    tickets: HashMap<[u8; 32], Ticket>,
    /// In the order in which they were given out, and so none is in the table for longer than the longest lifetime.
    order: VecDeque<(Instant, [u8; 32])>,
}

#[derive(Debug)]
struct Ticket {
    grant: Grant,
    until: Instant,
}

impl Tickets {
    /// At most so many at a time, for at most so long.
    pub(in crate::gateway) fn new(max: usize, lifetime: Duration) -> Self {
        // More than the clock can say would be a panic.
        Self { max, lifetime: lifetime.min(LONGEST), table: Mutex::default() }
    }

    /// A ticket for that grant, and how long it can be used; `None` when there are as many as may be.
    pub(in crate::gateway) fn issue(
        &self,
        grant: Grant,
        lifetime: Option<Duration>,
    ) -> Option<(String, Duration)> {
        let now = Instant::now();
        let lifetime = lifetime.map_or(self.lifetime, |asked| asked.min(self.lifetime));
        // A ticket is of no use for longer than what it gives.
        let left = grant.expires.map(|end| end.saturating_duration_since(now));
        let lifetime = left.map_or(lifetime, |left| lifetime.min(left));
        let mut table = self.table();
        table.clean(now);
        if table.order.len() >= self.max {
            return None;
        }
        let secret: [u8; RANDOM] = rand::random();
        let text = URL_SAFE_NO_PAD.encode(secret);
        let digest = digest(&text);
        table.tickets.insert(digest, Ticket { grant, until: now + lifetime });
        table.order.push_back((now + self.lifetime, digest));
        Some((text, lifetime))
    }

    /// What a ticket gives. It does so once.
    pub(in crate::gateway) fn redeem(&self, text: &str) -> Option<Grant> {
        let ticket = self.table().tickets.remove(&digest(text))?;
        (Instant::now() < ticket.until).then_some(ticket.grant)
    }

    /// How many there are.
    pub(in crate::gateway) fn len(&self) -> usize {
        let mut table = self.table();
        table.clean(Instant::now());
        table.tickets.len()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Drops those that nobody has used in time. One that was used keeps its place in the order until then: that
    /// bounds how many can be had within a lifetime.
    fn clean(&mut self, now: Instant) {
        while let Some((_, digest)) = self.order.pop_front_if(|(until, _)| *until <= now) {
            self.tickets.remove(&digest);
        }
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(10);

    fn grant(subject: &str) -> Grant {
        Grant { subject: subject.into(), ..Grant::open() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_opens_once_and_only_in_its_time() {
        let tickets = Tickets::new(10, LIFETIME);
        let (text, lifetime) = tickets.issue(grant("ada"), None).unwrap();
        assert_eq!((text.len(), lifetime), (32, LIFETIME));
        assert_eq!(tickets.redeem(&text[1..]), None);
        assert_eq!(&*tickets.redeem(&text).unwrap().subject, "ada");
        assert_eq!(tickets.redeem(&text), None);

        let (late, _) = tickets.issue(grant("ada"), None).unwrap();
        let (short, lifetime) = tickets.issue(grant("ada"), Some(Duration::from_secs(1))).unwrap();
        assert_eq!(lifetime, Duration::from_secs(1));
        // Longer than the gateway allows it does not get.
        let (_, lifetime) = tickets.issue(grant("ada"), Some(Duration::MAX)).unwrap();
        assert_eq!(lifetime, LIFETIME);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(tickets.redeem(&short), None);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(tickets.redeem(&late), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_does_not_outlive_its_grant() {
        let tickets = Tickets::new(10, LIFETIME);
        let expires = Some(Instant::now() + Duration::from_secs(2));
        let (text, lifetime) = tickets.issue(Grant { expires, ..grant("ada") }, None).unwrap();
        assert_eq!(lifetime, Duration::from_secs(2));
        assert_eq!(tickets.redeem(&text).unwrap().expires, expires);
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_time_gives_its_places_back() {
        let tickets = Tickets::new(2, LIFETIME);
        let (first, _) = tickets.issue(grant("a"), None).unwrap();
        tokio::time::advance(Duration::from_secs(5)).await;
        tickets.issue(grant("b"), None).unwrap();
        assert_eq!(tickets.issue(grant("c"), None), None);
        // Used ones count until their time is over: so many within a lifetime, and no more.
        tickets.redeem(&first).unwrap();
        assert_eq!((tickets.issue(grant("c"), None), tickets.len()), (None, 1));
        tokio::time::advance(Duration::from_secs(5)).await;
        tickets.issue(grant("c"), None).unwrap();
        tokio::time::advance(LIFETIME).await;
        assert_eq!(tickets.len(), 0);
        assert!(tickets.table().order.is_empty());
    }

    #[test]
    fn a_lifetime_that_no_clock_can_say_is_a_year() {
        let (_, lifetime) = Tickets::new(1, Duration::MAX).issue(grant("a"), None).unwrap();
        assert_eq!(lifetime, LONGEST);
    }

    #[test]
    fn no_two_are_the_same() {
        let tickets = Tickets::new(1000, LIFETIME);
        let all: std::collections::HashSet<_> =
            (0..1000).map(|_| tickets.issue(grant("a"), None).unwrap().0).collect();
        assert_eq!(all.len(), 1000);
    }
}
