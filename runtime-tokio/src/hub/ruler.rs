//! How far a position is from the head of the log, also where the log holds nothing any more.

use longwire_core::log::Distance;
use std::collections::VecDeque;
use tokio::time::Instant;

/// Marks within the bound, by the number of events: it is met exactly.
const MARKS: u64 = 16_384;
/// Marks within the bound, by bytes: it is met to within this part of it, and one event.
const BYTE_MARKS: u64 = 1024;

/// Marks along a log, dense enough for the bound that it is made for and no denser: half a megabyte at most.
#[derive(Debug)]
pub(super) struct Ruler {
    marks: VecDeque<Mark>,
    max: Distance,
    head: u64,
    /// Bytes of all events ever.
    bytes: u64,
}

/// What was before the first event of a stretch.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// The last position before it.
    after: u64,
    bytes: u64,
    /// When it was appended.
    born: Instant,
}

impl Default for Ruler {
    fn default() -> Self {
        Self::new(super::MAX_LAG)
    }
}

impl Ruler {
    /// Measures up to `max`, and somewhat beyond.
    pub(super) fn new(max: Distance) -> Self {
        Self { marks: VecDeque::new(), max, head: 0, bytes: 0 }
    }

    /// An event was appended.
    pub(super) fn append(&mut self, seq: u64, cost: usize, born: Instant) {
        let mark = Mark { after: self.head, bytes: self.bytes, born };
        let (step, byte_step) = (self.max.events / MARKS, self.max.bytes / BYTE_MARKS);
        if self.marks.back().is_none_or(|last| seq - last.after > step || self.bytes - last.bytes > byte_step)
        {
            self.marks.push_back(mark);
        }
        self.head = seq;
        self.bytes = self.bytes.saturating_add(cost as u64);
        // One mark beyond the bound is enough to say that something is.
        while self.marks.get(1).is_some_and(|mark| {
            self.head - mark.after > self.max.events || self.bytes - mark.bytes > self.max.bytes
        }) {
            self.marks.pop_front();
        }
    }

    /// How far a position is from the head. The events are the positions in between (where there are holes, too many by
    /// them). Bytes and age are those of the stretch that it lies in: over-told by less
    /// than a stretch.
    pub(super) fn distance(&self, position: u64, now: Instant) -> Distance {
        if position >= self.head {
            return Distance::default();
        }
        let next = self.marks.partition_point(|mark| mark.after <= position);
        let mark = self.marks.get(next.saturating_sub(1));
        Distance {
            events: self.head - position,
            bytes: mark.map_or(0, |mark| self.bytes - mark.bytes),
            age: mark.map_or_else(Default::default, |mark| now.duration_since(mark.born)),
        }
    }

    /// The first position that is no further from the head than `bound`.
    pub(super) fn within(&self, bound: Distance, now: Instant) -> u64 {
        let near = self.marks.partition_point(|mark| {
            self.bytes - mark.bytes > bound.bytes || now.duration_since(mark.born) > bound.age
        });
        let near = self.marks.get(near).map_or(self.head, |mark| mark.after);
        near.max(self.head.saturating_sub(bound.events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #[test]
        fn distances_are_never_under_told_within_the_bound_and_hardly_over_told(
            costs in prop::collection::vec((1..2000usize, 0..50u64), 1..400),
            (events, bytes, age) in (1..100_000u64, 1..1_000_000u64, 1..20_000u64),
            position in 0..400u64,
        ) {
            let max = Distance { events, bytes, age: Duration::from_millis(age) };
            let start = Instant::now();
            let (mut ruler, mut now, mut log) = (Ruler::new(max), start, Vec::new());
            for (seq, (cost, wait)) in (1..).zip(&costs) {
                now += Duration::from_millis(*wait);
                ruler.append(seq, *cost, now);
                log.push((*cost as u64, now));
            }
            let head = log.len() as u64;
            let exact = |position: u64| {
                let after = log.get(usize::try_from(position).unwrap()..).unwrap_or_default();
                Distance {
                    events: after.len() as u64,
                    bytes: after.iter().map(|(cost, _)| cost).sum(),
                    age: after.first().map_or(Duration::ZERO, |(_, born)| now - *born),
                }
            };
            let (exact, told) = (exact, ruler.distance(position, now));
            let want = exact(position);
            prop_assert_eq!(told.events, want.events);
            let stretch = bytes / BYTE_MARKS + 2000 * (events / MARKS + 2);
            prop_assert!(told.bytes <= want.bytes + stretch);
            if want.is_beyond(max) {
                prop_assert!(told.is_beyond(max) || told.bytes >= want.bytes);
            } else {
                prop_assert!(told.bytes >= want.bytes && told.age >= want.age);
            }
            let half = max.half();
            let landing = ruler.within(half, now);
            prop_assert!(landing <= head && !exact(landing).is_beyond(half));
            prop_assert!(!ruler.distance(landing, now).is_beyond(half));
            // It jumps no further than it has to, but for a stretch.
            let first = (0..=head).find(|at| !exact(*at).is_beyond(half)).unwrap();
            prop_assert!(landing <= first + events / MARKS + bytes / BYTE_MARKS + 1, "{} {}", landing, first);
            prop_assert!(ruler.marks.len() as u64 <= MARKS + BYTE_MARKS + 2);
        }
    }

    #[test]
    fn an_empty_log_has_no_distances() {
        let ruler = Ruler::new(Distance::UNBOUNDED);
        assert_eq!(ruler.distance(0, Instant::now()), Distance::default());
        assert_eq!(ruler.within(Distance::default(), Instant::now()), 0);
    }
}
