//! What is written at a time: a head, what was dropped, and readings.

use crate::outbox::{Gone, Reading};

/// The form of items. Those of another are not read.
const VERSION: u8 = 1;

/// Bytes of the head without the ranges.
pub(super) const HEAD: usize = 1 + 4 + 4 + 8 + 8 + 8 + 8 + 1;
/// Bytes of a range.
pub(super) const RANGE: usize = 16;
/// Bytes in front of each reading: how far its number is from the one before, the lengths of topic, key and data.
const READING: usize = 4 + 1 + 1 + 2;
/// What stands for the length of a key when there is none: a key has at most 128 bytes.
const NO_KEY: u8 = u8::MAX;

/// What every item says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Items are counted, so that one that is missing is noticed.
    pub(super) seq: u32,
    /// The first item that is still of interest.
    pub(super) from: u32,
    pub(super) incarnation: u64,
    /// Numbers up to this one may have been used.
    pub(super) newest: u64,
    /// Every reading up to this number was settled.
    pub(super) settled: u64,
    /// The number before the first reading here.
    pub(super) before: u64,
}

/// Writes an item into a buffer: the readings first, for the head says what is known at the end.
pub(super) struct Writer<'a> {
    bytes: &'a mut [u8],
    gone: Gone,
    at: usize,
    before: Option<u64>,
    last: u64,
}

impl<'a> Writer<'a> {
    pub(super) fn new(bytes: &'a mut [u8], gone: Gone) -> Self {
        let at = HEAD + gone.ranges.len() * RANGE;
        Self { bytes, gone, at, before: None, last: 0 }
    }

    /// Adds a reading; false when it does not fit any more.
    pub(super) fn add(&mut self, n: u64, reading: &Reading<'_>) -> bool {
        let before = n.saturating_sub(1);
        let skipped = n.saturating_sub(if self.before.is_some() { self.last } else { before });
        let key = reading.key.map(str::as_bytes);
        let (Ok(skipped), Ok(topic), Ok(data)) =
            (u32::try_from(skipped), u8::try_from(reading.topic.len()), u16::try_from(reading.data.len()))
        else {
            return false;
        };
        let key_len = key.map_or(NO_KEY, |key| u8::try_from(key.len()).unwrap_or(NO_KEY));
        let ([a, b, c, d], [e, f]) = (skipped.to_be_bytes(), data.to_be_bytes());
        let head: [u8; READING] = [a, b, c, d, topic, key_len, e, f];
        let parts = [&head, reading.topic.as_bytes(), key.unwrap_or_default(), reading.data];
        let len = parts.iter().map(|part| part.len()).sum();
        let Some(mut space) = self.bytes.get_mut(self.at..).and_then(|rest| rest.get_mut(..len)) else {
            return false;
        };
        for part in parts {
            let Some((to, rest)) = space.split_at_mut_checked(part.len()) else { return false };
            to.copy_from_slice(part);
            space = rest;
        }
        self.at = self.at.saturating_add(len);
        self.before.get_or_insert(before);
        self.last = n;
        true
    }

    /// The number of the last reading here.
    pub(super) fn last(&self) -> Option<u64> {
        self.before.map(|_| self.last)
    }

    /// Writes the head, and gives the whole item.
    pub(super) fn finish(self, head: Head) -> &'a [u8] {
        let before = self.before.unwrap_or(head.settled);
        let count = [u8::try_from(self.gone.ranges.len()).unwrap_or(0)];
        let (whole, _) = self.bytes.split_at_mut_checked(self.at).unwrap_or_default();
        let mut to = whole.iter_mut();
        let mut put = |bytes: &[u8]| to.by_ref().zip(bytes).for_each(|(to, from)| *to = *from);
        put(&[VERSION]);
        put(&head.seq.to_be_bytes());
        put(&head.from.to_be_bytes());
        for number in [head.incarnation, head.newest, head.settled, before] {
            put(&number.to_be_bytes());
        }
        put(&count);
        for (first, last) in &self.gone.ranges {
            put(&first.to_be_bytes());
            put(&last.to_be_bytes());
        }
        whole
    }
}

/// Reads an item: its head, what was dropped, and an iterator of readings. `None`: that is none of ours.
pub(super) fn read(bytes: &[u8]) -> Option<(Head, Gone, Readings<'_>)> {
    let (&[version], rest) = bytes.split_first_chunk()?;
    let (seq, rest) = rest.split_first_chunk()?;
    let (from, rest) = rest.split_first_chunk()?;
    let (incarnation, rest) = rest.split_first_chunk()?;
    let (newest, rest) = rest.split_first_chunk()?;
    let (settled, rest) = rest.split_first_chunk()?;
    let (before, rest) = rest.split_first_chunk()?;
    let (&[ranges], mut rest) = rest.split_first_chunk()?;
    let mut gone = Gone::default();
    for _ in 0..ranges {
        let (first, more) = rest.split_first_chunk()?;
        let (last, more) = more.split_first_chunk()?;
        gone.ranges.push((u64::from_be_bytes(*first), u64::from_be_bytes(*last))).ok()?;
        rest = more;
    }
    let head = Head {
        seq: u32::from_be_bytes(*seq),
        from: u32::from_be_bytes(*from),
        incarnation: u64::from_be_bytes(*incarnation),
        newest: u64::from_be_bytes(*newest),
        settled: u64::from_be_bytes(*settled),
        before: u64::from_be_bytes(*before),
    };
    (version == VERSION).then_some((head, gone, Readings { rest, n: None, before: head.before }))
}

/// The readings of an item.
pub(super) struct Readings<'a> {
    rest: &'a [u8],
    n: Option<u64>,
    before: u64,
}

impl<'a> Iterator for Readings<'a> {
    type Item = (u64, Reading<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[a, b, c, d, topic, key_len, e, f], rest) = self.rest.split_first_chunk::<READING>()?;
        let skipped = u64::from(u32::from_be_bytes([a, b, c, d]));
        let n = self.n.unwrap_or(self.before).checked_add(skipped)?;
        let (topic, rest) = rest.split_at_checked(topic.into())?;
        let key = (key_len != NO_KEY).then_some(key_len);
        let (key_bytes, rest) = rest.split_at_checked(key.unwrap_or(0).into())?;
        let (data, rest) = rest.split_at_checked(u16::from_be_bytes([e, f]).into())?;
        let key = match key {
            Some(_) => Some(core::str::from_utf8(key_bytes).ok()?),
            None => None,
        };
        (self.rest, self.n) = (rest, Some(n));
        Some((n, Reading { topic: core::str::from_utf8(topic).ok()?, key, data }))
    }
}
