//! The deadlines of many connections, one each, without a node on the heap for any of them.
//!
//! A hierarchical timing wheel (Varghese and Lauck, 1987): seven levels of 64 slots, a slot of the lowest being one
//! millisecond. What is due in a slot is a list through the entries themselves, which lie in one array by the keys of their
//! owners: 16 bytes a connection. Arming, moving and taking a deadline away touch at most two neighbours, however many
//! there are.
//!
//! Most deadlines move on long before they come, because something was written or heard. Such a move only notes the
//! later moment: the entry stays in the slot where it is and is filed anew when that comes. A heap or an ordered map would pay its
//! logarithm for each move, and a queue for each interval does not know the ends of grants, which are all different.

/// Slots of a level, as bits of a moment.
const BITS: u32 = 6;
const SLOTS: u32 = 1 << BITS;
/// So many that no moment of a process is beyond them: 2^42 ms are 139 years.
const LEVELS: u32 = 7;
/// What is further away than this is looked at then: 34 years.
const HORIZON: u64 = 1 << 40;
/// No entry.
const NONE: u32 = u32::MAX;
/// Marks, in [`Entry::before`], the first of a slot's list.
const SLOT: u32 = 1 << 31;

/// Deadlines in milliseconds since any start, by the key of their owner, each at most once. Its memory is bounded by the
/// largest key that was armed since the last [`shrink_to`](Self::shrink_to).
///
/// No deadline is handed out early; how late depends on when [`expire`](Self::expire) is called.
#[derive(Debug)]
pub(crate) struct Timers {
    /// Everything before this was handed out.
    now: u64,
    /// Which slots of a level have a list.
    occupied: [u64; LEVELS as usize],
    slots: [[u32; SLOTS as usize]; LEVELS as usize],
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    due: u64,
    /// The one before it in its list, or [`SLOT`] and the number of the slot; [`NONE`]: it is not armed.
    before: u32,
    after: u32,
}

impl Entry {
    const IDLE: Self = Self { due: 0, before: NONE, after: NONE };
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            now: 0,
            occupied: [0; LEVELS as usize],
            slots: [[NONE; SLOTS as usize]; LEVELS as usize],
            entries: Vec::new(),
        }
    }
}

impl Timers {
    /// Keys that can be armed are below this.
    pub(crate) const KEYS: u32 = SLOT;

    /// The key is due at that moment, and at no other that was said before. One that lies in the past is due at once, and
    /// a key beyond [`KEYS`](Self::KEYS) never.
    pub(crate) fn arm(&mut self, key: u32, due: u64) {
        let due = due.clamp(self.now, self.now.saturating_add(HORIZON));
        let at = key as usize;
        if key >= Self::KEYS {
            return;
        }
        if at >= self.entries.len() {
            self.entries.resize(at + 1, Entry::IDLE);
        }
        let Some(entry) = self.entries.get_mut(at) else { return };
        let stays = entry.before != NONE && entry.due <= due;
        entry.due = due;
        if !stays {
            self.unlink(key);
            self.link(key, due);
        }
    }

    /// The key is not due any more.
    pub(crate) fn disarm(&mut self, key: u32) {
        self.unlink(key);
    }

    /// When to call [`expire`](Self::expire) next: at the first deadline, or before it.
    pub(crate) fn next(&self) -> Option<u64> {
        self.first().map(|(level, slot)| self.begin(level, slot))
    }

    /// Hands out the keys that are due by now; they are armed no more.
    pub(crate) fn expire(&mut self, now: u64, mut due: impl FnMut(u32)) {
        while let Some((level, slot)) = self.first() {
            let begin = self.begin(level, slot);
            if begin > now {
                break;
            }
            self.now = begin;
            let mut next = self.set_first(level, slot, NONE);
            while let Some(entry) = self.entries.get_mut(next as usize) {
                let (key, at) = (next, entry.due);
                next = entry.after;
                *entry = Entry { due: at, ..Entry::IDLE };
                if at <= now {
                    due(key);
                } else {
                    self.link(key, at);
                }
            }
        }
        self.now = self.now.max(now);
    }

    /// Keys from this one on are used no more: their memory is given back.
    pub(crate) fn shrink_to(&mut self, keys: usize) {
        for key in (keys..self.entries.len()).filter_map(|key| u32::try_from(key).ok()) {
            self.unlink(key);
        }
        self.entries.truncate(keys);
        self.entries.shrink_to_fit();
    }

    /// The first slot that has a list. Those of a lower level are all before those of a higher one, because what is in the
    /// same slot of that as the present has been filed in a lower one.
    fn first(&self) -> Option<(u32, u32)> {
        let (level, slots) = (0..).zip(&self.occupied).find(|(_, slots)| **slots != 0)?;
        Some((level, slots.trailing_zeros()))
    }

    /// The first moment of a slot; none that has a list begins before the present.
    fn begin(&self, level: u32, slot: u32) -> u64 {
        let shift = BITS * level;
        ((((self.now >> shift) >> BITS) << BITS) | u64::from(slot)) << shift
    }

    /// The slot of a moment: what the highest of the digits says in which it differs from the present.
    fn place(&self, due: u64) -> (u32, u32) {
        let differs = (self.now ^ due) | 1;
        let level = (differs.ilog2() / BITS).min(LEVELS - 1);
        let slot = (due >> (BITS * level)) % u64::from(SLOTS);
        (level, u32::try_from(slot).unwrap_or(0))
    }

    fn link(&mut self, key: u32, due: u64) {
        let (level, slot) = self.place(due.max(self.now));
        let after = self.set_first(level, slot, key);
        if let Some(second) = self.entries.get_mut(after as usize) {
            second.before = key;
        }
        if let Some(entry) = self.entries.get_mut(key as usize) {
            *entry = Entry { before: SLOT | (level * SLOTS + slot), after, ..*entry };
        }
    }

    fn unlink(&mut self, key: u32) {
        let Some(entry) = self.entries.get_mut(key as usize) else { return };
        let Entry { due, before, after } = *entry;
        *entry = Entry { due, ..Entry::IDLE };
        if before == NONE {
            return;
        }
        if let Some(next) = self.entries.get_mut(after as usize) {
            next.before = before;
        }
        if before & SLOT != 0 {
            let number = before & !SLOT;
            self.set_first(number / SLOTS, number % SLOTS, after);
        } else if let Some(previous) = self.entries.get_mut(before as usize) {
            previous.after = after;
        }
    }

    /// The list of a slot begins with this one from now on; says with which it did.
    fn set_first(&mut self, level: u32, slot: u32, key: u32) -> u32 {
        if let Some(occupied) = self.occupied.get_mut(level as usize) {
            *occupied = (*occupied & !(1 << slot)) | (u64::from(key != NONE) << slot);
        }
        let slots = self.slots.get_mut(level as usize);
        let first = slots.and_then(|slots| slots.get_mut(slot as usize));
        first.map_or(NONE, |first| std::mem::replace(first, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Act {
        Arm(u32, u64),
        Disarm(u32),
        Pass(u64),
        Shrink(u32),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        // Every distance from one slot of the lowest level to several of the fifth.
        let span = || (0..31u32, any::<u64>()).prop_map(|(bits, any)| any & ((1 << bits) - 1));
        let act = prop_oneof![
            6 => (0..20u32, span()).prop_map(|(key, by)| Act::Arm(key, by)),
            1 => (0..20u32).prop_map(Act::Disarm),
            4 => span().prop_map(Act::Pass),
            1 => (10..20u32).prop_map(Act::Shrink),
        ];
        prop::collection::vec(act, 1..60)
    }

    proptest! {
        /// Against an ordered map, with the clock stopped at each moment that the wheel names.
        #[test]
        fn a_deadline_is_handed_out_once_neither_early_nor_late(start in 0..1u64 << 40, acts in acts()) {
            let (mut timers, mut model, mut now) = (Timers::default(), BTreeMap::new(), start);
            timers.expire(now, |_| {});
            for act in acts {
                match act {
                    Act::Arm(key, by) => {
                        timers.arm(key, now + by);
                        model.insert(key, now + by);
                    }
                    Act::Disarm(key) => {
                        timers.disarm(key);
                        model.remove(&key);
                    }
                    Act::Shrink(keys) => {
                        timers.shrink_to(keys as usize);
                        model.retain(|key, _| *key < keys);
                        prop_assert!(timers.entries.len() <= keys as usize);
                    }
                    Act::Pass(by) => {
                        let end = now + by;
                        // A list that leads in a circle would never end.
                        for _ in 0..20 * LEVELS + 1 {
                            now = timers.next().map_or(end, |next| next.clamp(now, end));
                            let mut out = Vec::new();
                            timers.expire(now, |key| out.push(key));
                            for key in out {
                                prop_assert_eq!(model.remove(&key), Some(now), "{} at {}", key, now);
                            }
                            prop_assert!(model.values().all(|due| *due > now), "{model:?} at {now}");
                            if now == end { break; }
                        }
                        prop_assert_eq!(now, end, "too many moments to look at");
                    }
                }
                prop_assert_eq!(timers.next().is_some(), !model.is_empty());
                let first = model.values().min().copied();
                prop_assert!(timers.next() <= first.or(timers.next()), "{:?} {first:?}", timers.next());
            }
        }
    }

    #[test]
    fn a_later_moment_is_only_noted_and_an_earlier_one_holds_at_once() {
        let mut timers = Timers::default();
        timers.arm(3, 100);
        timers.arm(3, 5000);
        assert_eq!(timers.next(), Some(64), "where it was filed");
        timers.expire(100, |key| panic!("{key} at 100"));
        timers.arm(3, 200);
        assert_eq!(timers.next(), Some(192));
        let mut out = Vec::new();
        timers.expire(200, |key| out.push(key));
        assert_eq!((out, timers.next()), (vec![3], None));
    }

    #[test]
    fn what_lies_in_the_past_is_due_at_once_and_what_is_beyond_the_horizon_is_asked_then() {
        let mut timers = Timers::default();
        timers.expire(1000, |_| {});
        timers.arm(0, 5);
        timers.arm(1, u64::MAX);
        timers.arm(Timers::KEYS, 5);
        let mut out = Vec::new();
        timers.expire(1000, |key| out.push(key));
        assert_eq!(out, [0]);
        timers.expire(1000 + HORIZON, |key| out.push(key));
        assert_eq!((out, timers.next()), (vec![0, 1], None));
    }
}
