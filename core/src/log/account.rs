//! The books of one reader: what was appended for it is what it was given, what it was told to be missing, and what
//! it has not come to yet.

/// Why events that matched were not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Skip {
    /// The log no longer held them when the reader came.
    Evicted,
    /// The reader was too far behind, and jumped on.
    Slow,
    /// The reader was too far behind, and got a newer event of the same topic and key instead.
    Conflated,
}

/// Where a reader is in a log, and what became of the events that were appended for it.
///
/// The rules: a position never goes back; nothing is delivered twice; a loss is told once, before the first event after
/// the place where the reader learns of it; and nothing vanishes from the books:
///
/// ```text
/// appended = delivered + skipped (evicted, slow, conflated) + lag
/// ```
///
/// where `appended` are the events that matched after the reader's first position, and `lag` are those of them after its
/// present one. The sum is exact while every stretch that it went over came with the number of what is missing in it;
/// [`uncounted`](Self::uncounted) says how many did not.
///
/// Calls: [`gap`](Self::gap) with what the log says is lost, [`tell`](Self::tell) when that was told,
/// [`deliver`](Self::deliver) for each event, [`pass`](Self::pass) at the end of a page or of a jump.
///
/// ```
/// use longwire_core::log::{Account, Skip};
///
/// // Ten events were appended for a reader; the first four are lost, and it was given the next two.
/// let mut account = Account::new(0);
/// assert_eq!(account.gap(4), Some((0, 4)));
/// account.tell(4);
/// assert_eq!(account.gap(4), None); // told already
/// assert!(account.deliver(5) && account.deliver(6) && !account.deliver(6));
/// account.pass(6, Skip::Evicted, Some(4));
/// assert!(account.balances(10, 4));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Account {
    position: u64,
    told: u64,
    delivered: u64,
    evicted: u64,
    slow: u64,
    conflated: u64,
    uncounted: u64,
}

impl Account {
    /// A reader that has everything up to `position`.
    pub const fn new(position: u64) -> Self {
        Self { position, told: 0, delivered: 0, evicted: 0, slow: 0, conflated: 0, uncounted: 0 }
    }

    /// Everything up to here that matched was delivered, or told to be missing.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The end of the last gap that was told; 0 before the first.
    pub const fn told(&self) -> u64 {
        self.told
    }

    /// The gap to tell when the last event that matched and is lost was at `lost`: (`from`, `to`) as in
    /// `PROTOCOL.md` section 5; `None` when the reader is past it, or knows.
    pub const fn gap(&self, lost: u64) -> Option<(u64, u64)> {
        if lost > self.position && lost > self.told { Some((self.position, lost)) } else { None }
    }

    /// A gap up to `to` was told.
    pub fn tell(&mut self, to: u64) {
        self.told = self.told.max(to);
    }

    /// An event was delivered; false, and nothing is counted, when the reader was past it.
    pub fn deliver(&mut self, seq: u64) -> bool {
        let new = seq > self.position;
        if new {
            self.position = seq;
            self.delivered = self.delivered.saturating_add(1);
        }
        new
    }

    /// There is nothing more for the reader up to here. Since the last time `missed` events that matched were neither
    /// delivered nor counted, if their number is known; 0 is a number.
    pub fn pass(&mut self, to: u64, why: Skip, missed: Option<u64>) {
        self.position = self.position.max(to);
        let sum = match (missed, why) {
            (None, _) => &mut self.uncounted,
            (_, Skip::Evicted) => &mut self.evicted,
            (_, Skip::Slow) => &mut self.slow,
            (_, Skip::Conflated) => &mut self.conflated,
        };
        *sum = sum.saturating_add(missed.unwrap_or(1));
    }

    /// Events delivered.
    pub const fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Events that were missed, as far as they were counted.
    pub const fn skipped(&self, why: Skip) -> u64 {
        match why {
            Skip::Evicted => self.evicted,
            Skip::Slow => self.slow,
            Skip::Conflated => self.conflated,
        }
    }

    /// Times that it went over a stretch without a count.
    pub const fn uncounted(&self) -> u64 {
        self.uncounted
    }

    /// Whether nothing has vanished: exactly, or with uncounted stretches whether no more came out than went in.
    pub fn balances(&self, appended: u64, lag: u64) -> bool {
        let skipped = u128::from(self.evicted) + u128::from(self.slow) + u128::from(self.conflated);
        let out = u128::from(self.delivered) + skipped + u128::from(lag);
        if self.uncounted == 0 { out == u128::from(appended) } else { out <= u128::from(appended) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_once_and_only_ahead() {
        let mut account = Account::new(10);
        assert_eq!((account.gap(9), account.gap(10), account.gap(11)), (None, None, Some((10, 11))));
        account.tell(20);
        assert_eq!((account.gap(20), account.gap(21), account.told()), (None, Some((10, 21)), 20));
        account.tell(5);
        assert_eq!(account.told(), 20, "it does not go back");
    }

    #[test]
    fn a_position_never_goes_back_and_nothing_is_delivered_twice() {
        let mut account = Account::new(3);
        assert!(!account.deliver(3));
        assert!(account.deliver(5));
        assert!(!account.deliver(4));
        account.pass(4, Skip::Slow, Some(0));
        assert_eq!((account.position(), account.delivered()), (5, 1));
    }

    #[test]
    fn every_reason_has_its_own_sum_and_all_are_in_the_balance() {
        let mut account = Account::new(0);
        account.pass(1, Skip::Evicted, Some(1));
        account.pass(2, Skip::Slow, Some(10));
        account.pass(3, Skip::Conflated, Some(100));
        assert!(account.deliver(4));
        let skipped = [Skip::Evicted, Skip::Slow, Skip::Conflated].map(|why| account.skipped(why));
        assert_eq!((skipped, account.position()), ([1, 10, 100], 4));
        assert!(account.balances(117, 5) && !account.balances(116, 5) && !account.balances(118, 5));
        account.pass(5, Skip::Slow, None);
        assert_eq!((account.uncounted(), account.skipped(Skip::Slow)), (1, 10));
        assert!(account.balances(118, 5) && !account.balances(116, 5));
        let full = Account { delivered: u64::MAX, evicted: u64::MAX, ..account };
        assert!(!full.balances(u64::MAX, u64::MAX), "no overflow");
    }
}
