//! What a storage needs of an outbox, so that readings outlive a reset.

use embassy_sync::blocking_mutex::raw::RawMutex;
use longwire_core::session::publisher::{InFlight, Incarnation};

use super::{Gone, Outbox, Reading, ReportError, Source};

/// The seam between an [`Outbox`] and whatever keeps its readings over a reset.
///
/// A reading has its number from the moment when it is put, and never another one; so (incarnation, n) names it in a storage
/// before and after it was sent. A number that was dropped is not used again.
///
/// - At boot: [`restore`](Self::restore) what was stored, in the order of the numbers, then [`resume`](Self::resume).
/// - Later, after each [`changed`](Self::changed): store what is [behind](Self::first_after) the last one that was stored, and
///   what became of the others: [dropped](Self::take_gone), or settled.
pub(crate) trait Keep: Source {
    /// Puts a reading back under its number, which is above those that were put before. It counts as reported.
    ///
    /// # Errors
    /// [`ReportError::Full`], and what there was stays.
    fn restore(&self, n: u64, reading: Reading<'_>) -> Result<(), ReportError>;
    /// Takes everything out again that was restored: as if nobody had tried.
    fn unrestore(&self);
    /// Goes on as this incarnation. The numbers up to `newest` may have been used.
    fn resume(&self, incarnation: Incarnation, newest: u64);
    /// Hands the first reading behind number `n` that the gateway has not settled to `read`.
    fn first_after<T>(&self, n: u64, read: impl FnOnce(u64, Reading<'_>) -> T) -> Option<T>;
    /// Whether a reading is still to be kept: neither settled by the gateway nor dropped.
    #[cfg(test)]
    fn is_held(&self, n: u64) -> bool;
    /// Waits until a reading was put, settled or dropped, or the storage is [wanted](Self::is_wanted). Cancel-safe.
    async fn changed(&self);
    /// Whether readings were put, or an uplink has begun.
    fn is_used(&self) -> bool;
    /// The newest number that was given to a reading.
    fn newest(&self) -> u64;
    /// Takes readings out again that were restored: these were dropped later.
    fn forget(&self, gone: &Gone);
    /// What is held up to this number is stored, or about to be: if it is dropped now, the storage has to know.
    fn set_stored(&self, n: u64);
    /// What was stored and dropped since this was called last.
    fn take_gone(&self) -> Gone;
    /// The storage knows what it took by [`take_gone`](Self::take_gone), so what waits for that is sent, up to this number;
    /// unless there is more that it does not know.
    fn open_gate(&self, gate: u64);
    /// The storage cannot be written. It has no say in what is sent up to this number; what is above goes as the successor,
    /// once the rest is settled, or waits when there is none.
    fn give_up(&self, gate: u64, successor: Option<Incarnation>);
    /// Whether something cannot be sent before the storage knows what was dropped.
    fn is_wanted(&self) -> bool;
}

impl<M: RawMutex, const BYTES: usize> Keep for Outbox<M, BYTES> {
    fn restore(&self, n: u64, reading: Reading<'_>) -> Result<(), ReportError> {
        let policy = self.policy_of(reading.topic)?;
        self.log.lock(|log| {
            let log = &mut *log.borrow_mut();
            let before = n.checked_sub(1).filter(|before| *before >= log.newest).ok_or(ReportError::Full)?;
            if log.ring.is_empty() {
                log.flight = InFlight::after(before);
            }
            let Reading { topic, key, data } = reading;
            let len = u16::try_from(data.len()).map_err(|_| ReportError::TooLarge)?;
            let space = log.ring.append(n, policy, topic.as_bytes(), key.map(str::as_bytes), len);
            let space = space.ok_or(ReportError::Full)?;
            space.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
            log.newest = n;
            log.counts.reported = log.counts.reported.wrapping_add(1);
            log.counts.waiting = log.counts.waiting.saturating_add(1);
            Ok(())
        })?;
        self.reported.signal(());
        Ok(())
    }

    fn unrestore(&self) {
        self.log.lock(|log| {
            let log = &mut *log.borrow_mut();
            log.ring.clear();
            log.flight = InFlight::new();
            log.newest = 0;
            log.counts.reported = log.counts.reported.wrapping_sub(log.counts.waiting);
            log.counts.waiting = 0;
        });
    }

    fn resume(&self, incarnation: Incarnation, newest: u64) {
        self.log.lock(|log| {
            let log = &mut *log.borrow_mut();
            log.incarnation = Some(incarnation);
            log.newest = log.newest.max(newest);
            if log.ring.is_empty() {
                log.flight = InFlight::after(log.newest);
            }
        });
    }

    fn first_after<T>(&self, n: u64, read: impl FnOnce(u64, Reading<'_>) -> T) -> Option<T> {
        self.log.lock(|log| {
            let log = log.borrow();
            let record =
                log.ring.records().find(|record| record.n > n && !log.flight.is_settled(record.n))?;
            Some(read(record.n, record.reading()?))
        })
    }

    #[cfg(test)]
    fn is_held(&self, n: u64) -> bool {
        self.log.lock(|log| {
            let log = log.borrow();
            !log.flight.is_settled(n) && log.ring.records().any(|record| record.n == n)
        })
    }

    async fn changed(&self) {
        self.changed.wait().await;
    }

    fn is_used(&self) -> bool {
        self.log.lock(|log| {
            let log = log.borrow();
            log.incarnation.is_some() || log.newest > 0
        })
    }

    fn newest(&self) -> u64 {
        self.log.lock(|log| log.borrow().newest)
    }

    fn forget(&self, gone: &Gone) {
        self.log.lock(|log| {
            let log = &mut *log.borrow_mut();
            for (first, last) in &gone.ranges {
                while let Some(n) =
                    log.ring.records().map(|record| record.n).find(|n| (first..=last).contains(&n))
                    && log.ring.remove(n)
                {
                    log.counts.reported = log.counts.reported.wrapping_sub(1);
                    log.counts.waiting = log.counts.waiting.saturating_sub(1);
                }
            }
        });
    }

    fn set_stored(&self, n: u64) {
        self.log.lock(|log| log.borrow_mut().kept.to = n);
    }

    fn take_gone(&self) -> Gone {
        self.log.lock(|log| log.borrow_mut().kept.take_gone())
    }

    fn open_gate(&self, gate: u64) {
        if self.log.lock(|log| log.borrow_mut().kept.open(gate, None)) {
            self.reported.signal(());
        }
    }

    fn give_up(&self, gate: u64, successor: Option<Incarnation>) {
        self.log.lock(|log| {
            let kept = &mut log.borrow_mut().kept;
            kept.forget();
            kept.open(gate, successor);
        });
        self.reported.signal(());
    }

    fn is_wanted(&self) -> bool {
        self.log.lock(|log| log.borrow().kept.wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{Counts, Policy};
    use embassy_sync::blocking_mutex::raw::NoopRawMutex;
    use std::vec::Vec;

    type Small = Outbox<NoopRawMutex, 128>;

    /// Sends the next reading, and says its number.
    fn next_of(outbox: &Small) -> Option<u64> {
        let mut number = None;
        outbox
            .send_next(9, |n, _| {
                number = Some(n);
                Ok::<(), ()>(())
            })?
            .ok()?;
        number
    }

    /// What is held: numbers and data.
    fn held(outbox: &Small) -> Vec<(u64, u32)> {
        let mut held = Vec::new();
        let mut last = 0;
        while let Some((n, value)) =
            outbox.first_after(last, |n, reading| (n, minicbor::decode(reading.data).unwrap()))
        {
            assert!(outbox.is_held(n));
            held.push((n, value));
            last = n;
        }
        held
    }

    #[test]
    fn what_is_restored_is_sent_under_its_numbers_and_new_ones_come_behind() {
        let before = Small::new(Policy::Conflate);
        for (key, value) in [(None, 1), (Some("k"), 2), (None, 3), (Some("l"), 4)] {
            before.reporter().try_report("a", key, &value).unwrap();
        }
        assert_eq!(held(&before), [(2, 2), (3, 3), (4, 4)]);
        let after = Small::new(Policy::Conflate);
        let mut last = 0;
        while let Some(n) = before.first_after(last, |n, reading| {
            after.restore(n, reading).unwrap();
            n
        }) {
            last = n;
        }
        after.resume(Incarnation(7), 100);
        assert_eq!(after.incarnation(|| 8), Incarnation(7));
        after.reporter().try_report("a", Some("m"), &5).unwrap();
        assert_eq!(held(&after), [(2, 2), (3, 3), (4, 4), (101, 5)]);
        for expected in [2, 3, 4] {
            assert_eq!(next_of(&after), Some(expected));
        }
        after.acknowledge(3);
        assert_eq!(held(&after), [(4, 4), (101, 5)]);
        assert!(!after.is_held(3) && !after.is_held(5));
        after.refuse(4, true);
        assert_eq!(next_of(&after), Some(101));
        after.acknowledge(101);
        assert_eq!(held(&after), []);
        let counts = Counts { reported: 4, acknowledged: 3, refused: 1, ..Counts::default() };
        assert_eq!(after.counts(), counts);
    }

    #[test]
    fn an_incarnation_without_readings_goes_on_behind_its_numbers() {
        let outbox = Small::new(Policy::DropOldest);
        outbox.resume(Incarnation(7), 1_000_000);
        outbox.reporter().try_report("a", None, &1).unwrap();
        assert_eq!(held(&outbox), [(1_000_001, 1)]);
        assert_eq!(next_of(&outbox), Some(1_000_001));
        // Numbers do not go back.
        let reading = Reading { topic: "a", key: None, data: &[1] };
        assert_eq!(outbox.restore(5, reading), Err(ReportError::Full));
        assert_eq!(outbox.restore(0, reading), Err(ReportError::Full));
    }
}
