//! What became of the readings.

use minicbor::encode::{Encode, Encoder, Error, Write};

/// What became of the readings so far. They add up:
/// `reported = acknowledged + refused + too_large + dropped_oldest + dropped_newest + conflated + waiting`.
///
/// Encoded ([`Uplink::with_counts`](crate::Uplink::with_counts)) it is a map with these names. A count that reaches 2^32
/// begins at zero again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Counts {
    /// Given to [`try_report`](crate::Reporter::try_report), with a good topic, key and value.
    pub reported: u32,
    /// Acknowledged by the gateway.
    pub acknowledged: u32,
    /// Refused by the gateway (`nack`).
    pub refused: u32,
    /// Larger than the outbox, than the send buffer, or than a message may be at the gateway.
    pub too_large: u32,
    /// Dropped to make room for newer ones ([`Policy::DropOldest`](crate::Policy::DropOldest)).
    pub dropped_oldest: u32,
    /// Not taken, for there was no room ([`ReportError::Full`](crate::ReportError::Full)).
    pub dropped_newest: u32,
    /// Replaced by a newer one of the same topic and key ([`Policy::Conflate`](crate::Policy::Conflate)).
    pub conflated: u32,
    /// In the outbox: not sent, or not answered.
    pub waiting: u32,
}

impl Counts {
    /// None.
    pub(super) const ZERO: Self = Self::all(0);

    /// As long as they can be.
    pub(super) const MAX: Self = Self::all(u32::MAX);

    const fn all(n: u32) -> Self {
        Self {
            reported: n,
            acknowledged: n,
            refused: n,
            too_large: n,
            dropped_oldest: n,
            dropped_newest: n,
            conflated: n,
            waiting: n,
        }
    }

    /// Readings that nobody will get, for whatever reason.
    pub const fn lost(&self) -> u32 {
        self.refused
            .wrapping_add(self.too_large)
            .wrapping_add(self.dropped_oldest)
            .wrapping_add(self.dropped_newest)
            .wrapping_add(self.conflated)
    }
}

impl<C> Encode<C> for Counts {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), Error<W::Error>> {
        let entries = [
            ("reported", self.reported),
            ("acknowledged", self.acknowledged),
            ("refused", self.refused),
            ("too_large", self.too_large),
            ("dropped_oldest", self.dropped_oldest),
            ("dropped_newest", self.dropped_newest),
            ("conflated", self.conflated),
            ("waiting", self.waiting),
        ];
        e.map(entries.len() as u64)?;
        for (name, count) in entries {
            e.str(name)?.u32(count)?;
        }
        Ok(())
    }
}
