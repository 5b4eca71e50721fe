//! What a storage does not know yet about the readings that it has.

use heapless::Vec;
use longwire_core::session::publisher::Incarnation;

/// Most ranges of dropped readings that are remembered; with more of them a storage begins anew.
pub(crate) const MAX_GONE: usize = 8;

/// Numbers of readings, from the first to the last.
pub(crate) type Range = (u64, u64);

/// Readings that were stored and dropped since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) ranges: Vec<Range, MAX_GONE>,
    /// There are more, and nobody remembers which.
    pub(crate) more: bool,
}

impl Gone {
    const fn new() -> Self {
        Self { ranges: Vec::new(), more: false }
    }

    fn is_empty(&self) -> bool {
        self.ranges.is_empty() && !self.more
    }
}

/// Between an outbox and its storage.
///
/// A stored reading that was dropped must not come back after a reset once a newer one was sent: it would be stored by the
/// gateway behind that, as if it were news. So nothing above it is sent until the storage knows.
pub(super) struct Kept {
    /// What was held up to this number is stored, or about to be.
    pub(super) to: u64,
    gone: Gone,
    /// Nothing above this number is sent.
    gate: u64,
    /// Something would be sent but for the gate.
    pub(super) wanted: bool,
    /// What is above this number has to be sent as this incarnation: the storage cannot write down that a number of the one
    /// that it knows was used.
    pub(super) successor: Option<(u64, Incarnation)>,
    /// That has happened. The storage knows nothing of this incarnation, so its numbers are used once whatever it says.
    succeeded: bool,
}

impl Kept {
    pub(super) const fn new() -> Self {
        Self { to: 0, gone: Gone::new(), gate: u64::MAX, wanted: false, successor: None, succeeded: false }
    }

    /// A reading was dropped. It was never sent, and none above it.
    pub(super) fn dropped(&mut self, n: u64) {
        if n > self.to {
            return;
        }
        self.gate = self.gate.min(n.saturating_sub(1));
        match self.gone.ranges.iter_mut().find(|(_, last)| last.saturating_add(1) == n) {
            Some((_, last)) => *last = n,
            None => self.gone.more |= self.gone.ranges.push((n, n)).is_err(),
        }
    }

    /// Whether a reading may be sent.
    pub(super) fn lets(&mut self, n: u64) -> bool {
        self.wanted |= n > self.gate;
        n <= self.gate
    }

    pub(super) fn take_gone(&mut self) -> Gone {
        core::mem::replace(&mut self.gone, Gone::new())
    }

    /// The storage knows what it took, and lets readings up to this number be sent; those above by a successor, if it names
    /// one. False when it does not know all.
    pub(super) fn open(&mut self, gate: u64, successor: Option<Incarnation>) -> bool {
        self.successor = successor.filter(|_| !self.succeeded).map(|successor| (gate, successor));
        if self.gone.is_empty() {
            (self.gate, self.wanted) = (if self.succeeded { u64::MAX } else { gate }, false);
        }
        self.gone.is_empty()
    }

    /// The storage knows nothing any more, and will write down everything that is held then.
    pub(super) fn forget(&mut self) {
        (self.to, self.gone) = (0, Gone::new());
    }

    /// From now on numbers are the successor's.
    pub(super) fn succeed(&mut self) -> Option<Incarnation> {
        let (_, successor) = self.successor.take()?;
        (self.gate, self.wanted, self.succeeded) = (u64::MAX, false, true);
        Some(successor)
    }
}
