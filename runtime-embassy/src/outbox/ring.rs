//! Readings in a piece of memory, one behind the other.

use super::Policy;

/// Bytes in front of each reading.
pub(super) const HEADER: usize = 8;

/// What `Header::key` says when there is none: a key has at most 128 bytes.
const NO_KEY: u8 = u8::MAX;

/// The most numbers that one header can skip: 30 bits of it say how many. They count only behind a reading that stays,
/// because it was sent and is not answered, or may not be dropped; of a thousand readings a second that is twelve days.
pub(super) const MAX_SKIPPED: u32 = (1 << 30) - 1;

/// What stands in front of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) policy: Policy,
    pub(super) topic: u8,
    pub(super) key: Option<u8>,
    pub(super) data: u16,
    /// Numbers between the reading before this one and this one, whose readings were dropped.
    pub(super) skipped: u32,
}

impl Header {
    pub(super) const fn to_bytes(self) -> [u8; HEADER] {
        let policy: u32 = match self.policy {
            Policy::DropOldest => 0,
            Policy::DropNewest => 1,
            Policy::Conflate => 2,
        };
        let key = match self.key {
            Some(key) => key,
            None => NO_KEY,
        };
        let [d, e] = self.data.to_be_bytes();
        let [r, s, t, u] = (policy << 30 | self.skipped & MAX_SKIPPED).to_be_bytes();
        [r, s, t, u, self.topic, key, d, e]
    }

    fn first(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&[r, s, t, u, topic, key, d, e], rest) = bytes.split_first_chunk::<HEADER>()?;
        let first = u32::from_be_bytes([r, s, t, u]);
        let policy = match first >> 30 {
            0 => Policy::DropOldest,
            1 => Policy::DropNewest,
            _ => Policy::Conflate,
        };
        let key = if key == NO_KEY { None } else { Some(key) };
        let (data, skipped) = (u16::from_be_bytes([d, e]), first & MAX_SKIPPED);
        Some((Self { policy, topic, key, data, skipped }, rest))
    }
}

/// A reading where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// Offset of its header, from the oldest reading.
    pub(super) at: usize,
    /// Bytes of all of it.
    pub(super) len: usize,
    pub(super) n: u64,
    pub(super) policy: Policy,
    pub(super) topic: &'a [u8],
    pub(super) key: Option<&'a [u8]>,
    pub(super) data: &'a [u8],
}

/// From one reading to the next.
#[derive(Clone)]
pub(super) struct Records<'a> {
    rest: &'a [u8],
    at: usize,
    n: u64,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let (header, rest) = Header::first(self.rest)?;
        let (topic, rest) = rest.split_at_checked(header.topic.into())?;
        let (key, rest) = rest.split_at_checked(header.key.unwrap_or(0).into())?;
        let (data, rest) = rest.split_at_checked(header.data.into())?;
        let len = HEADER + topic.len() + key.len() + data.len();
        let n = self.n.saturating_add(u64::from(header.skipped)).saturating_add(1);
        let key = header.key.map(|_| key);
        let record = Record { at: self.at, len, n, policy: header.policy, topic, key, data };
        *self = Self { rest, at: self.at.saturating_add(len), n };
        Some(record)
    }
}

/// Readings in the order of their numbers. The oldest leaves without anything being moved; one in the middle makes
/// those behind it move up.
pub(super) struct Ring<const BYTES: usize> {
    bytes: [u8; BYTES],
    start: usize,
    end: usize,
    /// The number before the first one here: it, and all before it, have left.
    front: u64,
    /// The number of the newest reading here; `front` when there is none.
    last: u64,
}

impl<const BYTES: usize> Ring<BYTES> {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; BYTES], start: 0, end: 0, front: 0, last: 0 }
    }

    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) const fn room(&self) -> usize {
        BYTES.saturating_sub(self.end.saturating_sub(self.start))
    }

    pub(super) fn records(&self) -> Records<'_> {
        let rest = self.bytes.get(self.start..self.end).unwrap_or_default();
        Records { rest, at: 0, n: self.front }
    }

    /// As if nothing had ever been here.
    #[cfg(feature = "storage")]
    pub(super) const fn clear(&mut self) {
        (self.start, self.end, self.front, self.last) = (0, 0, 0, 0);
    }

    /// Gives each reading the policy that its topic has now.
    pub(super) fn set_policies(&mut self, policy_of: impl Fn(&[u8]) -> Policy) {
        let mut rest = self.bytes.get_mut(self.start..self.end).unwrap_or_default();
        while let Some(Record { len, topic, .. }) = (Records { rest, at: 0, n: 0 }).next() {
            let policy = policy_of(topic);
            let Some((record, behind)) = rest.split_at_mut_checked(len) else { return };
            if let Some(header) = record.first_chunk_mut::<HEADER>()
                && let Some((before, _)) = Header::first(header)
            {
                *header = Header { policy, ..before }.to_bytes();
            }
            rest = behind;
        }
    }

    /// Appends a reading with the number `n`, which is above all others, and returns the room for its data. `None` when
    /// there is too little, or when too many numbers were skipped.
    pub(super) fn append(
        &mut self,
        n: u64,
        policy: Policy,
        topic: &[u8],
        key: Option<&[u8]>,
        data: u16,
    ) -> Option<&mut [u8]> {
        let before = n.checked_sub(1).filter(|before| *before >= self.last)?;
        if self.is_empty() {
            (self.front, self.last) = (before, before);
        }
        let skipped = u32::try_from(before.checked_sub(self.last)?).ok().filter(|n| *n <= MAX_SKIPPED)?;
        let key_len = match key {
            Some(key) => Some(u8::try_from(key.len()).ok()?),
            None => None,
        };
        let header = Header { policy, topic: u8::try_from(topic.len()).ok()?, key: key_len, data, skipped };
        let key = key.unwrap_or_default();
        let len = HEADER.checked_add(topic.len())?.checked_add(key.len())?.checked_add(data.into())?;
        if len > self.room() {
            return None;
        }
        if len > BYTES.saturating_sub(self.end) {
            self.slide(self.start, self.end, 0);
            (self.start, self.end) = (0, self.end.saturating_sub(self.start));
        }
        let mut space = self.bytes.get_mut(self.end..)?.get_mut(..len)?;
        for part in [&header.to_bytes(), topic, key] {
            let (to, rest) = space.split_at_mut_checked(part.len())?;
            to.copy_from_slice(part);
            space = rest;
        }
        self.end = self.end.saturating_add(len);
        self.last = n;
        // What was here before is not to be seen.
        space.fill(0);
        Some(space)
    }

    /// Takes the oldest reading out when its number is not above `n`; says whether there was one.
    pub(super) fn pop_up_to(&mut self, n: u64) -> bool {
        let Some(Record { len, n, .. }) = self.records().next().filter(|record| record.n <= n) else {
            return false;
        };
        self.remove_first(n, len);
        true
    }

    /// Takes the oldest reading out, of which number and length are known: the numbers begin behind it.
    const fn remove_first(&mut self, n: u64, len: usize) {
        self.start = self.start.saturating_add(len);
        self.front = n;
        if self.start >= self.end {
            (self.start, self.end, self.last) = (0, 0, n);
        }
    }

    /// Takes the reading with this number out, wherever it lies: the next one skips its number. False when there is none,
    /// or when that skips too many already.
    pub(super) fn remove(&mut self, n: u64) -> bool {
        let mut records = self.records();
        let mut before = self.front;
        let Some(record) = records
            .by_ref()
            .inspect(|record| {
                if record.n < n {
                    before = record.n;
                }
            })
            .find(|record| record.n >= n)
            .filter(|record| record.n == n)
        else {
            return false;
        };
        let next = records.next().map(|next| next.n);
        if record.at == 0 {
            self.remove_first(n, record.len);
            return true;
        }
        let (from, len) = (self.start.saturating_add(record.at), record.len);
        let behind = from.saturating_add(len);
        match next {
            Some(next) => {
                let skipped = next.saturating_sub(before).saturating_sub(1);
                let Some(skipped) = u32::try_from(skipped).ok().filter(|skipped| *skipped <= MAX_SKIPPED)
                else {
                    return false;
                };
                let Some(header) =
                    self.bytes.get_mut(behind..).and_then(|rest| rest.first_chunk_mut::<HEADER>())
                else {
                    return false;
                };
                let Some((behind, _)) = Header::first(header) else { return false };
                *header = Header { skipped, ..behind }.to_bytes();
            }
            None => self.last = before,
        }
        self.slide(behind, self.end, from);
        self.end = self.end.saturating_sub(len);
        true
    }

    /// Moves the bytes of a range to the left.
    fn slide(&mut self, from: usize, end: usize, to: usize) {
        let Some(moved) = self.bytes.get_mut(to..end) else { return };
        let by = from.saturating_sub(to);
        if by <= moved.len() {
            moved.copy_within(by.., 0);
        }
    }
}
