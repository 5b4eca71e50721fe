//! Publishing once (`PROTOCOL.md` section 5.2): how a publisher is named, what the server remembers of it, and what the
//! publisher remembers of what it sent.
//!
//! Three rules make "once" of "at least once":
//!
//! 1. The publisher numbers its publications, and sends again, under the same number, whatever was neither acknowledged
//!    nor refused for good. [`InFlight`] says which those are.
//! 2. The server [looks](Taken::look) whether it has taken a number before it stores, and [takes](Taken::take) it after it
//!    has stored, with nothing of that publisher in between.
//! 3. Numbers that a publisher has under way at a time lie within [`WINDOW`], so the server always knows.

use crate::digits::push_hex;
use crate::log::{Cursor, CursorError, CursorText};
use core::{fmt, str::FromStr};

/// How many of a publisher's last numbers the server remembers, the largest included.
pub const WINDOW: u64 = 1024;

/// Bits of one word of a set of numbers.
const BITS: u64 = u64::BITS as u64;
/// Words for [`WINDOW`] numbers.
const WORDS: usize = 16;

const _: () = assert!(WORDS as u64 * BITS == WINDOW);

/// Which run of a client publishes: a number that it draws at random when it starts, and keeps for as long as it keeps
/// its numbers. With the subject of its credential it names a publisher.
///
/// Its text is 16 lowercase hexadecimal digits; every incarnation has one text only.
///
/// ```
/// use longwire_core::session::publisher::Incarnation;
///
/// let incarnation: Incarnation = "00000000000000ff".parse()?;
/// assert_eq!(incarnation, Incarnation(255));
/// assert_eq!(incarnation.to_string(), "00000000000000ff");
/// assert!("ff".parse::<Incarnation>().is_err());
/// # Ok::<(), longwire_core::session::publisher::NoIncarnation>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// The same as text, in place.
    pub fn to_text(self) -> heapless::String<16> {
        let mut text = heapless::String::new();
        push_hex(&mut text, self.0);
        text
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Incarnation {
    type Err = NoIncarnation;

    fn from_str(text: &str) -> Result<Self, NoIncarnation> {
        let digits: &[u8; 16] = text.as_bytes().try_into().map_err(|_| NoIncarnation)?;
        let number = digits.iter().try_fold(0u64, |number, digit| match digit {
            b'0'..=b'9' => Some(number << 4 | u64::from(digit - b'0')),
            b'a'..=b'f' => Some(number << 4 | u64::from(digit - b'a' + 10)),
            _ => None,
        });
        number.map(Self).ok_or(NoIncarnation)
    }
}

/// A text is no [`Incarnation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NoIncarnation;

impl fmt::Display for NoIncarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an incarnation has 16 lowercase hexadecimal digits")
    }
}

impl core::error::Error for NoIncarnation {}

/// One publication of one incarnation: as text `INCARNATION-N`, the form of an `Idempotency-Key` (`PROTOCOL.md` section
/// 8.2) by which a publication moves from one transport to another.
///
/// ```
/// use longwire_core::session::publisher::{Incarnation, PublicationId};
///
/// let id = PublicationId { incarnation: Incarnation(255), n: 7 };
/// assert_eq!(id.to_string(), "00000000000000ff-7");
/// assert_eq!("00000000000000ff-7".parse(), Ok(id));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct PublicationId {
    /// Who publishes.
    pub incarnation: Incarnation,
    /// Which of its publications.
    pub n: u64,
}

impl PublicationId {
    /// The same as text, in place.
    pub fn to_text(self) -> CursorText {
        Cursor { epoch: self.incarnation.0, seq: self.n }.to_text()
    }
}

impl fmt::Display for PublicationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.incarnation, self.n)
    }
}

impl FromStr for PublicationId {
    type Err = CursorError;

    /// The form is that of a cursor, and so are the errors.
    fn from_str(text: &str) -> Result<Self, CursorError> {
        let Cursor { epoch, seq } = Cursor::parse(text)?;
        Ok(Self { incarnation: Incarnation(epoch), n: seq })
    }
}

/// What a server knows about a number before it stores the publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Number {
    /// It was not taken: store, then [`Taken::take`].
    New,
    /// It was taken: acknowledge, and store nothing.
    Repeated,
    /// It lies before the window, and whether it was taken is not known any more: refuse with `out_of_window`. So does
    /// 0, for numbers begin at 1.
    OutOfWindow,
}

/// The server's memory of one publisher: the largest number that was taken, and which of the [`WINDOW`] numbers up to it.
///
/// In two phases, so that a publication that was refused, or could not be stored, does not count as taken:
///
/// ```
/// use longwire_core::session::publisher::{Number, Taken};
///
/// let mut taken = Taken::new();
/// assert_eq!(taken.look(1), Number::New);
/// // ... it is stored ...
/// taken.take(1);
/// assert_eq!(taken.look(1), Number::Repeated);
/// assert_eq!(taken.look(3), Number::New); // 2 was given up, or is still on its way
/// assert_eq!(taken.largest(), Some(1));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    largest: u64,
    numbers: Numbers<WORDS>,
}

const _: () = assert!(size_of::<Taken>() == 136);

impl Taken {
    /// Nothing was taken yet.
    pub const fn new() -> Self {
        Self { largest: 0, numbers: Numbers::new() }
    }

    /// What `hello` tells as `publisher_n`; `None` when nothing was taken yet.
    pub const fn largest(&self) -> Option<u64> {
        if self.largest == 0 { None } else { Some(self.largest) }
    }

    /// Whether a number is new.
    pub fn look(&self, n: u64) -> Number {
        match self.largest.checked_sub(n) {
            _ if n == 0 => Number::OutOfWindow,
            None => Number::New,
            Some(back) if back >= WINDOW => Number::OutOfWindow,
            Some(_) if self.numbers.contains(n) => Number::Repeated,
            Some(_) => Number::New,
        }
    }

    /// The publication was stored. Numbers that are not [new](Number::New) change nothing.
    ///
    /// A jump moves the window: what lies before it is forgotten, for this publisher alone.
    pub fn take(&mut self, n: u64) {
        if self.look(n) != Number::New {
            return;
        }
        if n > self.largest {
            let jump = n - self.largest;
            if jump >= WINDOW {
                self.numbers = Numbers::new();
            } else {
                // The numbers skipped were not taken; their places are those of numbers that leave the window.
                (1..jump).for_each(|ahead| self.numbers.remove(self.largest.saturating_add(ahead)));
            }
            self.largest = n;
        }
        self.numbers.insert(n);
    }
}

/// The publisher's side: which of its numbers are under way on a connection, which are settled, and which is to be
/// sent next. What they stand for, in whatever queue, is the caller's.
///
/// Publications have consecutive numbers, from 1, over all connections; `WORDS * 64` of them, [`WINDOW`] at most, may
/// be under way at a time. Take one from the front of the queue when [`settled`](Self::settled) has gone beyond it.
///
/// - [`next`](Self::next) says what to send, and [`sent`](Self::sent) that it was.
/// - [`acknowledge`](Self::acknowledge) and [`refuse`](Self::refuse) work off what the server says.
/// - [`reconnected`](Self::reconnected) when a connection has begun: what was not settled is sent again, in order. The
///   `publisher_n` of `hello` settles nothing: below it there may be numbers that were refused, with a `nack` that was lost.
///
/// A refusal that is not permanent makes the number wait until all others that were sent are settled; then it is sent again,
/// before anything new. (An acknowledgement speaks of all numbers up to its own, and would otherwise seem to speak of the
/// repetition as well.) How long to wait before that is the caller's: ask for `next` later.
///
/// ```
/// use longwire_core::session::publisher::InFlight;
///
/// let mut flight = InFlight::<1>::new();
/// let newest = 3; // three publications are in the queue, and the server allows two at a time
/// while let Some(n) = flight.next(newest, 2) {
///     flight.sent(n);
/// }
/// flight.acknowledge(1, |n| assert_eq!(n, 1));
/// assert_eq!((flight.settled(), flight.len()), (1, 1));
/// // The connection is cut. On the next one, 2 is sent again.
/// flight.reconnected();
/// assert_eq!(flight.next(newest, 2), Some(2));
/// ```
#[derive(Clone, Debug)]
pub struct InFlight<const WORDS: usize> {
    /// Every number up to here is settled.
    settled: u64,
    /// Settled, with others before them that are not.
    early: Numbers<WORDS>,
    /// The last number that was sent in this round. A round sends in order.
    sent: u64,
    /// Every number of this round up to here is answered.
    answered: u64,
    /// Sent in this round and not answered. What is given up is settled, and stays here until the server has answered.
    under_way: Numbers<WORDS>,
    /// How many those are.
    len: u64,
    /// Refused for now.
    again: Numbers<WORDS>,
    /// How many those are.
    waiting: u64,
}

impl<const WORDS: usize> InFlight<WORDS> {
    const CAPACITY: u64 = {
        let capacity = WORDS as u64 * BITS;
        assert!(0 < capacity && capacity <= WINDOW);
        capacity
    };

    /// Nothing was sent yet: the first publication is number 1.
    pub const fn new() -> Self {
        Self::after(0)
    }

    /// The publications up to `n` are settled: for whoever kept its incarnation and its numbers elsewhere.
    pub const fn after(n: u64) -> Self {
        // Here, so that a capacity that cannot be is found where it is made.
        let _ = Self::CAPACITY;
        Self {
            settled: n,
            early: Numbers::new(),
            sent: n,
            answered: n,
            under_way: Numbers::new(),
            len: 0,
            again: Numbers::new(),
            waiting: 0,
        }
    }

    /// Every number up to this one is settled: acknowledged, refused for good, or given up.
    pub const fn settled(&self) -> u64 {
        self.settled
    }

    /// Whether a number is settled, be it before others that are not.
    pub fn is_settled(&self, n: u64) -> bool {
        n <= self.settled || (n - self.settled <= Self::CAPACITY && self.early.contains(n))
    }

    /// How many were sent on this connection and not answered.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether the server owes no answer.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether something was refused for now, and waits to be sent again.
    pub const fn is_held(&self) -> bool {
        self.waiting > 0
    }

    /// The number to send next, when `newest` is the last one in the queue. `None` when all were sent, when
    /// `max_inflight` (as `hello` has it) are not answered, when the capacity is used up, or when something that was refused
    /// for now waits for the others.
    pub fn next(&mut self, newest: u64, max_inflight: u64) -> Option<u64> {
        if self.len == 0 {
            if self.waiting > 0 {
                self.begin_round();
            }
            self.answered = self.answered.max(self.settled);
        }
        if self.waiting > 0 || self.len >= max_inflight {
            return None;
        }
        let end = self.settled.min(self.answered).saturating_add(Self::CAPACITY).min(newest);
        let mut last = self.sent.max(self.settled);
        while last < end {
            let n = last.saturating_add(1);
            if !self.is_settled(n) {
                return Some(n);
            }
            last = n;
        }
        None
    }

    /// The number that [`next`](Self::next) said was sent.
    pub fn sent(&mut self, n: u64) {
        if n > self.sent {
            self.sent = n;
            self.under_way.insert(n);
            self.len = self.len.saturating_add(1);
        }
    }

    /// The server has settled every number up to `n`: `taken` is told those of them that were not settled. What was never
    /// sent it cannot settle.
    pub fn acknowledge(&mut self, n: u64, mut taken: impl FnMut(u64)) {
        // A round is acknowledged in its order, so nothing is looked at twice.
        while self.answered < n.min(self.sent) {
            let n = self.answered.saturating_add(1);
            self.answered = n;
            if self.answer(n) && !self.is_settled(n) {
                self.settle(n);
                taken(n);
            }
        }
    }

    /// The server has refused a number, for good or for now. False when it did not owe an answer to it: then nothing
    /// changes.
    pub fn refuse(&mut self, n: u64, permanent: bool) -> bool {
        if n <= self.answered || n > self.sent || !self.answer(n) {
            return false;
        }
        if !self.is_settled(n) {
            if permanent {
                self.settle(n);
            } else {
                self.again.insert(n);
                self.waiting = self.waiting.saturating_add(1);
            }
        }
        while self.answered < self.sent && !self.under_way.contains(self.answered.saturating_add(1)) {
            self.answered = self.answered.saturating_add(1);
        }
        true
    }

    /// The publisher gives a number up, whether it was sent or not; false when it is settled already, or further ahead than
    /// the capacity. It is settled then: servers allow holes. If it was sent, it may have been taken all the same.
    pub fn give_up(&mut self, n: u64) -> bool {
        if self.is_settled(n) || n - self.settled > Self::CAPACITY {
            return false;
        }
        if self.again.contains(n) {
            self.again.remove(n);
            self.waiting = self.waiting.saturating_sub(1);
        }
        self.settle(n);
        true
    }

    /// A connection has begun: whatever is not settled was not sent on it.
    pub const fn reconnected(&mut self) {
        self.begin_round();
        self.under_way = Numbers::new();
        self.len = 0;
    }

    const fn begin_round(&mut self) {
        self.sent = self.settled;
        self.answered = self.settled;
        self.again = Numbers::new();
        self.waiting = 0;
    }

    /// The server has answered to a number between `answered` and `sent`; false when it did so before, or it was not sent in
    /// this round.
    fn answer(&mut self, n: u64) -> bool {
        if !self.under_way.contains(n) {
            return false;
        }
        self.under_way.remove(n);
        self.len = self.len.saturating_sub(1);
        true
    }

    fn settle(&mut self, n: u64) {
        self.early.insert(n);
        while let Some(first) = self.settled.checked_add(1)
            && self.early.contains(first)
        {
            self.early.remove(first);
            self.settled = first;
        }
    }
}

impl<const WORDS: usize> Default for InFlight<WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

/// A set of numbers that lie within `WORDS * 64` of each other.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Numbers<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Numbers<WORDS> {
    const fn new() -> Self {
        Self([0; WORDS])
    }

    fn contains(&self, n: u64) -> bool {
        self.0.get(Self::word(n)).is_some_and(|word| word & Self::bit(n) != 0)
    }

    fn insert(&mut self, n: u64) {
        if let Some(word) = self.0.get_mut(Self::word(n)) {
            *word |= Self::bit(n);
        }
    }

    fn remove(&mut self, n: u64) {
        if let Some(word) = self.0.get_mut(Self::word(n)) {
            *word &= !Self::bit(n);
        }
    }

    fn word(n: u64) -> usize {
        // A remainder of WORDS, which is a usize.
        usize::try_from(n / BITS % WORDS as u64).unwrap_or(0)
    }

    const fn bit(n: u64) -> u64 {
        1 << (n % BITS)
    }
}

impl<const WORDS: usize> Default for Numbers<WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::string::ToString;
    use std::vec::Vec;

    #[test]
    fn an_incarnation_has_one_text() {
        for (number, text) in [
            (0, "0000000000000000"),
            (0x9f86_d081_884c_7d65, "9f86d081884c7d65"),
            (u64::MAX, "ffffffffffffffff"),
        ] {
            assert_eq!(text.parse(), Ok(Incarnation(number)));
            assert_eq!(
                (Incarnation(number).to_string(), &*Incarnation(number).to_text()),
                (text.into(), text)
            );
        }
        for text in [
            "",
            "0",
            "000000000000000",
            "00000000000000000",
            "000000000000000G",
            "000000000000000A",
            "+000000000000000",
            " 000000000000000",
            "00000000000000é",
            "000000000000000\0",
        ] {
            assert_eq!(text.parse::<Incarnation>(), Err(NoIncarnation), "{text:?}");
        }
        let id = PublicationId { incarnation: Incarnation(1), n: u64::MAX };
        assert_eq!(id.to_string(), "0000000000000001-18446744073709551615");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("0000000000000001-01".parse::<PublicationId>().is_err());
    }

    #[test]
    fn the_window_has_1024_numbers_and_its_edges_are_where_they_should_be() {
        let mut taken = Taken::new();
        assert_eq!((taken.largest(), taken.look(0), taken.look(1)), (None, Number::OutOfWindow, Number::New));
        taken.take(0);
        assert_eq!(taken.largest(), None);
        taken.take(1);
        taken.take(1024);
        assert_eq!(taken.look(1), Number::Repeated);
        assert_eq!(
            (taken.look(2), taken.look(1023), taken.look(1025)),
            (Number::New, Number::New, Number::New)
        );
        taken.take(1025);
        assert_eq!((taken.look(1), taken.look(2)), (Number::OutOfWindow, Number::New));
        // Where 1 was is 1025 now, and where 2 will be is nothing.
        assert_eq!((taken.look(1025), taken.look(1026)), (Number::Repeated, Number::New));
        taken.take(1026 + 5);
        assert_eq!(
            (taken.look(1026), taken.look(1025), taken.look(1024)),
            (Number::New, Number::Repeated, Number::Repeated)
        );
        assert_eq!(taken.largest(), Some(1031));
    }

    #[test]
    fn the_largest_numbers_are_numbers() {
        let mut taken = Taken::new();
        taken.take(u64::MAX);
        assert_eq!((taken.largest(), taken.look(u64::MAX)), (Some(u64::MAX), Number::Repeated));
        assert_eq!(taken.look(u64::MAX - 1023), Number::New);
        assert_eq!(taken.look(u64::MAX - 1024), Number::OutOfWindow);
        taken.take(u64::MAX - 1023);
        assert_eq!(taken.look(u64::MAX - 1023), Number::Repeated);
        let mut flight = InFlight::<1>::after(u64::MAX - 1);
        assert_eq!(flight.next(u64::MAX, 9), Some(u64::MAX));
        flight.sent(u64::MAX);
        flight.acknowledge(u64::MAX, |n| assert_eq!(n, u64::MAX));
        assert_eq!((flight.settled(), flight.next(u64::MAX, 9), flight.len()), (u64::MAX, None, 0));
    }

    proptest! {
        #[test]
        fn what_was_taken_is_known_within_the_window_as_a_set_would_know_it(
            steps in prop::collection::vec(
                prop_oneof![4 => -20..20i64, 2 => -1100..1100i64, 1 => -5000..5000i64], 1..300)
        ) {
            let (mut taken, mut model, mut at) = (Taken::new(), BTreeSet::new(), 5000i64);
            for step in steps {
                at = (at + step).max(0);
                let n = at.unsigned_abs();
                let largest = model.last().copied().unwrap_or(0);
                let expected = if n == 0 || n + WINDOW <= largest {
                    Number::OutOfWindow
                } else if model.contains(&n) {
                    Number::Repeated
                } else {
                    Number::New
                };
                prop_assert_eq!(taken.look(n), expected, "{} after {}", n, largest);
                taken.take(n);
                if expected == Number::New {
                    model.insert(n);
                }
                prop_assert_eq!(taken.largest(), model.last().copied());
            }
        }
    }

    /// Sends whatever may be sent.
    fn send_all<const WORDS: usize>(flight: &mut InFlight<WORDS>, newest: u64, max: u64) -> Vec<u64> {
        core::iter::from_fn(|| {
            let n = flight.next(newest, max)?;
            flight.sent(n);
            Some(n)
        })
        .collect()
    }

    fn taken_by<const WORDS: usize>(flight: &mut InFlight<WORDS>, n: u64) -> Vec<u64> {
        let mut taken = Vec::new();
        flight.acknowledge(n, |n| taken.push(n));
        taken
    }

    #[test]
    fn what_was_refused_for_now_waits_for_the_others_and_goes_first() {
        let mut flight = InFlight::<1>::new();
        assert_eq!(send_all(&mut flight, 9, 4), [1, 2, 3, 4]);
        assert!(flight.refuse(2, false) && !flight.refuse(2, false));
        assert_eq!(flight.next(9, 4), None);
        assert_eq!(taken_by(&mut flight, 3), [1, 3]);
        assert_eq!((flight.settled(), flight.len(), flight.is_held()), (1, 1, true));
        assert_eq!(flight.next(9, 4), None);
        assert_eq!(taken_by(&mut flight, 4), [4]);
        // Now nothing that is under way could speak of 2. What is settled is not sent again.
        assert_eq!(send_all(&mut flight, 9, 4), [2, 5, 6, 7]);
        assert!(!flight.is_held());
        assert_eq!(taken_by(&mut flight, 7), [2, 5, 6, 7]);
        assert_eq!((flight.settled(), flight.len()), (7, 0));
    }

    #[test]
    fn what_was_refused_for_good_is_settled_and_stays_so_over_connections() {
        let mut flight = InFlight::<1>::new();
        assert_eq!(send_all(&mut flight, 3, 9), [1, 2, 3]);
        assert!(flight.refuse(2, true));
        flight.reconnected();
        assert_eq!((flight.len(), flight.is_settled(2), flight.is_settled(3)), (0, true, false));
        assert_eq!(send_all(&mut flight, 4, 9), [1, 3, 4]);
        assert_eq!(taken_by(&mut flight, 4), [1, 3, 4]);
        assert_eq!(flight.settled(), 4);
    }

    #[test]
    fn what_is_given_up_is_not_sent_and_makes_room() {
        let mut flight = InFlight::<1>::new();
        assert_eq!(send_all(&mut flight, 70, 99).len(), 64);
        assert_eq!(flight.next(70, 99), None);
        assert!(!flight.give_up(65) && flight.give_up(1) && flight.give_up(65) && !flight.give_up(1));
        assert_eq!((flight.settled(), flight.next(70, 99)), (1, None));
        // The server still owes an answer to 1, which it may have taken: until then its place is not free.
        assert_eq!(flight.len(), 64);
        assert!(flight.refuse(2, false) && flight.give_up(2));
        assert_eq!((flight.settled(), flight.is_held(), flight.len()), (2, false, 63));
        assert_eq!(taken_by(&mut flight, 3), [3]);
        // 65 was given up before it was sent.
        assert_eq!(send_all(&mut flight, 70, 99), [66, 67]);
        assert_eq!(taken_by(&mut flight, 67).len(), 63);
    }

    #[test]
    fn an_answer_to_what_was_given_up_speaks_of_nothing_else() {
        let mut flight = InFlight::<1>::new();
        assert_eq!(send_all(&mut flight, 2, 9), [1, 2]);
        assert!(flight.refuse(1, false) && flight.give_up(2));
        assert_eq!(flight.next(2, 9), None);
        assert_eq!(taken_by(&mut flight, 2), []);
        assert_eq!(send_all(&mut flight, 3, 9), [1, 3]);
        assert!(flight.give_up(3) && flight.refuse(3, true));
        assert_eq!(taken_by(&mut flight, 1), [1]);
    }

    #[test]
    fn what_a_server_makes_up_changes_nothing() {
        let mut flight = InFlight::<1>::new();
        assert_eq!(taken_by(&mut flight, u64::MAX), []);
        assert!(!flight.refuse(1, true) && !flight.refuse(u64::MAX, false) && !flight.refuse(0, true));
        assert_eq!(send_all(&mut flight, 2, 9), [1, 2]);
        assert_eq!(taken_by(&mut flight, u64::MAX), [1, 2]);
        assert_eq!(taken_by(&mut flight, 1), []);
        assert_eq!((flight.settled(), flight.len(), flight.next(2, 9)), (2, 0, None));
        assert_eq!(flight.next(3, 0), None);
    }

    /// One step of a publisher, a server and the connection between them.
    #[derive(Clone, Copy, Debug)]
    enum Turn {
        Queue,
        Send,
        /// The server works off so many of what has arrived, and answers at the end.
        Serve(usize),
        Hear,
        GiveUp,
        /// What is under way in either direction is lost, at these places.
        Cut {
            up: usize,
            down: usize,
        },
    }

    #[derive(Clone, Copy, Debug)]
    enum Answer {
        Ack(u64),
        Nack(u64, bool),
    }

    fn turns() -> impl Strategy<Value = Vec<Turn>> {
        let turn = prop_oneof![
            3 => Just(Turn::Queue),
            6 => Just(Turn::Send),
            4 => (0..6usize).prop_map(Turn::Serve),
            6 => Just(Turn::Hear),
            1 => Just(Turn::GiveUp),
            1 => (0..6usize, 0..6usize).prop_map(|(up, down)| Turn::Cut { up, down }),
        ];
        prop::collection::vec(turn, 1..400)
    }

    /// What a server does with what arrives, by section 5.2, and what it has stored.
    #[derive(Default)]
    struct Server {
        taken: Taken,
        stored: Vec<u64>,
    }

    impl Server {
        /// `fate` says what the quota and the rest of the rules say: 0 refuses for now, 1 for good.
        fn serve(&mut self, arrived: impl Iterator<Item = u64>, mut fate: impl FnMut() -> u8) -> Vec<Answer> {
            let (mut answers, mut settled) = (Vec::new(), None);
            for n in arrived {
                let refused = match (self.taken.look(n), fate()) {
                    (Number::OutOfWindow, _) | (Number::New, 1) => Some(true),
                    (Number::New, 0) => Some(false),
                    (Number::Repeated, _) => None,
                    (Number::New, _) => {
                        self.stored.push(n);
                        self.taken.take(n);
                        None
                    }
                };
                match refused {
                    None => settled = Some(n),
                    Some(permanent) => {
                        answers.extend(settled.take().map(Answer::Ack));
                        answers.push(Answer::Nack(n, permanent));
                    }
                }
            }
            answers.extend(settled.map(Answer::Ack));
            answers
        }
    }

    proptest! {
        /// Whatever is lost, in either direction: what was stored was stored once, what the publisher takes for acknowledged
        /// was stored, and at last everything is settled.
        #[test]
        fn each_number_is_stored_at_most_once_and_exactly_once_if_acknowledged(
            turns in turns(),
            fates in prop::collection::vec(0..12u8, 32),
            max_inflight in 1..80u64,
        ) {
            let (mut flight, mut newest) = (InFlight::<1>::new(), 0);
            let (mut up, mut down) = (Vec::new(), Vec::new());
            let mut server = Server::default();
            let mut acknowledged = BTreeSet::new();
            let mut fates = fates.into_iter().cycle();
            // At the end the connection holds, and the server refuses nothing for now.
            let end = (0..400).flat_map(|_| [Turn::Send, Turn::Serve(99), Turn::Hear]);
            let (count, all) = (turns.len(), turns.into_iter().chain(end));
            for (at, turn) in all.enumerate() {
                match turn {
                    Turn::Queue => newest += 1,
                    Turn::Send => {
                        if let Some(n) = flight.next(newest, max_inflight) {
                            flight.sent(n);
                            up.push(n);
                        }
                    }
                    Turn::Serve(some) => {
                        let arrived = up.drain(..some.min(up.len()));
                        let fate = || fates.next().unwrap().max(if at < count { 0 } else { 1 });
                        down.extend(server.serve(arrived, fate));
                    }
                    Turn::Hear if down.is_empty() => {}
                    Turn::Hear => match down.remove(0) {
                        Answer::Ack(n) => flight.acknowledge(n, |n| assert!(acknowledged.insert(n))),
                        Answer::Nack(n, permanent) => assert!(flight.refuse(n, permanent)),
                    },
                    Turn::GiveUp => {
                        let first = flight.settled() + 1;
                        prop_assert!(first > newest || flight.give_up(first));
                    }
                    Turn::Cut { up: upper, down: lower } => {
                        // The server still works off what has reached it; its answers reach nobody.
                        up.truncate(upper);
                        server.serve(up.drain(..), || fates.next().unwrap());
                        down.truncate(lower);
                        for answer in down.drain(..) {
                            match answer {
                                Answer::Ack(n) => flight.acknowledge(n, |n| assert!(acknowledged.insert(n))),
                                Answer::Nack(n, permanent) => assert!(flight.refuse(n, permanent)),
                            }
                        }
                        flight.reconnected();
                    }
                }
                prop_assert_eq!(flight.len(), up.len() as u64 + owed(&down, &flight));
            }
            let stored: BTreeSet<u64> = server.stored.iter().copied().collect();
            prop_assert_eq!(stored.len(), server.stored.len(), "something was stored twice");
            prop_assert!(acknowledged.is_subset(&stored), "something acknowledged was not stored");
            prop_assert_eq!((flight.settled(), flight.len()), (newest, 0));
        }
    }

    /// How many of what the server worked off the publisher has not heard of.
    fn owed(down: &[Answer], flight: &InFlight<1>) -> u64 {
        let mut heard = flight.clone();
        let before = heard.len();
        for answer in down {
            match answer {
                Answer::Ack(n) => heard.acknowledge(*n, |_| {}),
                Answer::Nack(n, permanent) => {
                    heard.refuse(*n, *permanent);
                }
            }
        }
        before - heard.len()
    }
}
