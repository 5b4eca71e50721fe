//! Where readings wait: a small log in static memory, with one reader, the gateway.

use core::cell::RefCell;
use core::fmt;

use embassy_sync::blocking_mutex::Mutex;
use embassy_sync::blocking_mutex::raw::RawMutex;
use embassy_sync::signal::Signal;
use longwire_core::buf::{TxBuf, TxCursor};
use longwire_core::log::Topic;
use longwire_core::session::publisher::{InFlight, Incarnation};
use minicbor::{Encode, Encoder};

/// Bytes in front of each reading: the length of its topic, and of its data.
const HEADER: usize = 3;

/// Most readings that are sent and not yet acknowledged, whatever the gateway would allow.
pub(crate) const MAX_IN_FLIGHT: u64 = 32;

/// What happens to a reading for which there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum WhenFull {
    /// The oldest readings make room for it, also those that were sent and are not acknowledged yet.
    #[default]
    DropOldest,
    /// It is refused with [`ReportError::Full`].
    DropNewest,
}

/// Why a reading was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ReportError {
    /// The outbox is full, and keeps what it has ([`WhenFull::DropNewest`]).
    Full,
    /// Larger than the whole outbox, or than 65,535 bytes of data.
    TooLarge,
    /// Not a topic (`PROTOCOL.md` section 3).
    BadTopic,
    /// The value refused to be encoded.
    BadValue,
}

impl fmt::Display for ReportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the outbox is full",
            Self::TooLarge => "the reading is larger than the outbox",
            Self::BadTopic => "not a topic",
            Self::BadValue => "the value cannot be encoded",
        })
    }
}

impl core::error::Error for ReportError {}

/// What became of the readings so far: `reported = acknowledged + refused + dropped + waiting`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Counts {
    /// Taken by [`Outbox::try_report`].
    pub reported: u32,
    /// Acknowledged by the gateway.
    pub acknowledged: u32,
    /// Refused by the gateway (`nack`), or too large to be sent.
    pub refused: u32,
    /// Dropped to make room for newer ones ([`WhenFull::DropOldest`]).
    pub dropped: u32,
    /// In the outbox: not sent, or neither acknowledged nor refused.
    pub waiting: u32,
}

/// Readings on their way to the gateway, in `BYTES` bytes of memory. A reading takes its topic, its data, and three
/// bytes.
///
/// Any task reports to it, and never waits for the network; an [`Uplink`](crate::Uplink) sends. A reading stays until
/// the gateway has acknowledged it or refused it for good, and is sent again after a connection was cut, under the same
/// number: so it is stored once, as long as the gateway keeps its log (`PROTOCOL.md` section 5.2). The numbers, and the
/// incarnation that they belong to, are the outbox's: they last as long as its memory.
///
/// ```
/// use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
/// use longwire_embassy::{Outbox, ReportError, WhenFull};
///
/// static OUTBOX: Outbox<CriticalSectionRawMutex, 32> = Outbox::new(WhenFull::DropNewest);
///
/// OUTBOX.try_report("room/7/celsius", &21)?; // 14 bytes of topic, 2 of data, 3
/// assert_eq!(OUTBOX.try_report("room/7/percent", &55), Err(ReportError::Full));
/// assert_eq!(OUTBOX.counts().waiting, 1);
/// # Ok::<(), ReportError>(())
/// ```
pub struct Outbox<M: RawMutex, const BYTES: usize> {
    log: Mutex<M, RefCell<Log<BYTES>>>,
    /// Raised by whoever reports, taken by the one uplink.
    reported: Signal<M, ()>,
}

struct Log<const BYTES: usize> {
    bytes: [u8; BYTES],
    at: TxCursor,
    when_full: WhenFull,
    /// Drawn before anything is sent.
    incarnation: Option<Incarnation>,
    /// The numbers of the readings, in the order of the memory.
    flight: InFlight<1>,
    /// The readings up to this number have left the memory.
    front: u64,
    /// Readings in memory. Those that are settled before their turn wait there for it.
    held: u32,
    counts: Counts,
}

impl<M: RawMutex, const BYTES: usize> Outbox<M, BYTES> {
    /// An empty outbox.
    pub const fn new(when_full: WhenFull) -> Self {
        let counts = Counts { reported: 0, acknowledged: 0, refused: 0, dropped: 0, waiting: 0 };
        Self {
            log: Mutex::new(RefCell::new(Log {
                bytes: [0; BYTES],
                at: TxCursor::new(),
                when_full,
                incarnation: None,
                flight: InFlight::new(),
                front: 0,
                held: 0,
                counts,
            })),
            reported: Signal::new(),
        }
    }

    /// Takes a reading, or says why not; it never waits. `value` becomes the event's data as one CBOR item
    /// (RFC 8949); it is encoded twice, once to learn its length.
    ///
    /// Now and then what waits is moved to the front of the memory: at most `BYTES` bytes, within the critical
    /// section of `M`.
    pub fn try_report<T: Encode<()> + ?Sized>(&self, topic: &str, value: &T) -> Result<(), ReportError> {
        if Topic::parse(topic).is_err() {
            return Err(ReportError::BadTopic);
        }
        self.log.lock(|log| log.borrow_mut().push(topic, value))?;
        self.reported.signal(());
        Ok(())
    }

    /// What became of the readings so far.
    pub fn counts(&self) -> Counts {
        self.log.lock(|log| log.borrow().counts)
    }
}

/// What an uplink needs of an outbox, whatever its size.
pub(crate) trait Source {
    /// Who numbers the readings: drawn once.
    fn incarnation(&self, draw: impl FnOnce() -> u64) -> Incarnation;
    /// A connection has begun: what was sent on the last one and not settled is sent again.
    fn rewind(&self);
    /// Hands the next reading to `send` as (n, topic, data), and goes on behind it when `send` took it. `None` when
    /// there is nothing to send, when as many as `max_in_flight` are not answered, or when something that was refused
    /// for now waits for those.
    fn send_next<T>(
        &self,
        max_in_flight: u64,
        send: impl FnOnce(u64, &str, &[u8]) -> Result<(), T>,
    ) -> Option<Result<(), T>>;
    /// The next reading can never be sent: it counts as refused.
    fn refuse_next(&self);
    /// The gateway has taken every publication up to `n`, except those that it refused.
    fn acknowledge(&self, n: u64);
    /// The gateway has refused publication `n`, for good or for now.
    fn refuse(&self, n: u64, permanent: bool);
    /// Waits until something was reported. Cancel-safe.
    async fn reported(&self);
}

impl<M: RawMutex, const BYTES: usize> Source for Outbox<M, BYTES> {
    fn incarnation(&self, draw: impl FnOnce() -> u64) -> Incarnation {
        self.log.lock(|log| *log.borrow_mut().incarnation.get_or_insert_with(|| Incarnation(draw())))
    }

    fn rewind(&self) {
        self.log.lock(|log| log.borrow_mut().flight.reconnected());
    }

    fn send_next<T>(
        &self,
        max_in_flight: u64,
        send: impl FnOnce(u64, &str, &[u8]) -> Result<(), T>,
    ) -> Option<Result<(), T>> {
        self.log.lock(|log| {
            let log = &mut *log.borrow_mut();
            let n = log.next(max_in_flight)?;
            let before = n.saturating_sub(log.flight.settled()).saturating_sub(1);
            let tx = log.tx();
            // At most as many as may be in flight.
            let mut from = 0usize;
            for _ in 0..before {
                from = from.saturating_add(Reading::len(tx.pending().get(from..)?)?);
            }
            let reading = Reading::first(tx.pending().get(from..)?)?;
            let sent = send(n, reading.topic, reading.data);
            if sent.is_ok() {
                log.flight.sent(n);
            }
            Some(sent)
        })
    }

    fn refuse_next(&self) {
        self.log.lock(|log| {
            let log = &mut *log.borrow_mut();
            if let Some(n) = log.next(u64::MAX)
                && log.flight.give_up(n)
            {
                log.counts.refused = log.counts.refused.wrapping_add(1);
                log.settled(1);
            }
        });
    }

    fn acknowledge(&self, n: u64) {
        self.log.lock(|log| {
            let log = &mut *log.borrow_mut();
            let mut taken = 0u32;
            log.flight.acknowledge(n, |_| taken = taken.saturating_add(1));
            log.counts.acknowledged = log.counts.acknowledged.wrapping_add(taken);
            log.settled(taken);
        });
    }

    fn refuse(&self, n: u64, permanent: bool) {
        self.log.lock(|log| {
            let log = &mut *log.borrow_mut();
            // What was dropped meanwhile has been counted.
            let counts = permanent && !log.flight.is_settled(n);
            if log.flight.refuse(n, permanent) && counts {
                log.counts.refused = log.counts.refused.wrapping_add(1);
                log.settled(1);
            }
        });
    }

    async fn reported(&self) {
        self.reported.wait().await;
    }
}

impl<const BYTES: usize> Log<BYTES> {
    fn tx(&mut self) -> TxBuf<'_> {
        TxBuf::new(&mut self.bytes, &mut self.at)
    }

    fn push<T: Encode<()> + ?Sized>(&mut self, topic: &str, value: &T) -> Result<(), ReportError> {
        let mut counter = Counter(0);
        Encoder::new(&mut counter).encode(value).map_err(|_| ReportError::BadValue)?;
        let topic_len = u8::try_from(topic.len()).map_err(|_| ReportError::BadTopic)?;
        let data_len = u16::try_from(counter.0).map_err(|_| ReportError::TooLarge)?;
        let len = HEADER + topic.len() + usize::from(data_len);
        if len > BYTES {
            return Err(ReportError::TooLarge);
        }
        while self.tx().room() < len {
            if self.when_full == WhenFull::DropNewest || !self.drop_oldest() {
                return Err(ReportError::Full);
            }
        }
        let [high, low] = data_len.to_be_bytes();
        let mut tx = self.tx();
        if !tx.put(&[&[topic_len, high, low], topic.as_bytes()]) {
            return Err(ReportError::Full);
        }
        let mut space = tx.append(usize::from(data_len)).unwrap_or_default();
        // The same value gives the same bytes as when they were counted; if it does not, the zeros that are left
        // are data as well, and the reading behind it is where it should be.
        space.fill(0);
        let encoded = Encoder::new(&mut space).encode(value).is_ok();
        debug_assert!(encoded, "a value that encodes differently each time");
        self.held = self.held.saturating_add(1);
        self.counts.reported = self.counts.reported.wrapping_add(1);
        self.counts.waiting = self.counts.waiting.saturating_add(1);
        Ok(())
    }

    /// The number to send next.
    fn next(&mut self, max_in_flight: u64) -> Option<u64> {
        let newest = self.flight.settled().saturating_add(self.held.into());
        self.flight.next(newest, max_in_flight.min(MAX_IN_FLIGHT))
    }

    /// Drops the reading at the front; false when there is none. Its number is given up.
    fn drop_oldest(&mut self) -> bool {
        if self.held == 0 || !self.flight.give_up(self.flight.settled().saturating_add(1)) {
            return false;
        }
        self.counts.dropped = self.counts.dropped.wrapping_add(1);
        self.settled(1);
        true
    }

    /// So many are done with. What is settled at the front leaves the memory.
    fn settled(&mut self, readings: u32) {
        self.counts.waiting = self.counts.waiting.saturating_sub(readings);
        let gone = self.flight.settled().saturating_sub(self.front);
        for _ in 0..gone {
            let mut tx = self.tx();
            let len = Reading::len(tx.pending()).unwrap_or(0);
            tx.consume(len);
            self.held = self.held.saturating_sub(1);
        }
        self.front = self.flight.settled();
    }
}

/// A reading as it lies in memory: header, topic, data.
struct Reading<'a> {
    topic: &'a str,
    data: &'a [u8],
}

impl<'a> Reading<'a> {
    fn first(bytes: &'a [u8]) -> Option<Self> {
        let (&[topic, high, low], rest) = bytes.split_first_chunk::<HEADER>()?;
        let (topic, rest) = rest.split_at_checked(usize::from(topic))?;
        let data = rest.get(..usize::from(u16::from_be_bytes([high, low])))?;
        Some(Self { topic: core::str::from_utf8(topic).ok()?, data })
    }

    /// How many bytes the first reading takes.
    fn len(bytes: &[u8]) -> Option<usize> {
        let (&[topic, high, low], _) = bytes.split_first_chunk::<HEADER>()?;
        Some(HEADER + usize::from(topic) + usize::from(u16::from_be_bytes([high, low])))
    }
}

/// Counts what is written to it.
struct Counter(usize);

impl minicbor::encode::Write for Counter {
    type Error = core::convert::Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embassy_sync::blocking_mutex::raw::NoopRawMutex;
    use proptest::prelude::*;
    use std::string::String;
    use std::vec::Vec;

    type Small = Outbox<NoopRawMutex, 64>;

    /// Sends the next reading: its number, topic and value.
    fn send(outbox: &impl Source, max_in_flight: u64) -> Option<(u64, String, u32)> {
        let mut sent = None;
        let sending = outbox.send_next(max_in_flight, |n, topic, data| {
            sent = Some((n, topic.into(), minicbor::decode::<u32>(data).unwrap()));
            Ok::<(), ()>(())
        });
        assert_eq!(sending.is_some(), sent.is_some());
        sent
    }

    #[test]
    fn readings_leave_in_order_and_stay_until_acknowledged() {
        let outbox = Small::new(WhenFull::DropNewest);
        for value in 1..=3u32 {
            outbox.try_report("a/b", &value).unwrap();
        }
        assert_eq!(send(&outbox, 9), Some((1, "a/b".into(), 1)));
        assert_eq!(send(&outbox, 9), Some((2, "a/b".into(), 2)));
        outbox.acknowledge(1);
        assert_eq!(outbox.counts(), Counts { reported: 3, acknowledged: 1, waiting: 2, ..Counts::default() });
        // The connection was cut: what was not acknowledged is sent again, under the same numbers.
        outbox.rewind();
        assert_eq!(send(&outbox, 9), Some((2, "a/b".into(), 2)));
        assert_eq!(send(&outbox, 9), Some((3, "a/b".into(), 3)));
        assert_eq!(send(&outbox, 9), None);
        // More than was ever sent is no more than was sent.
        outbox.acknowledge(u64::MAX);
        assert_eq!(outbox.counts(), Counts { reported: 3, acknowledged: 3, ..Counts::default() });
    }

    #[test]
    fn at_most_so_many_are_in_flight() {
        let outbox = Outbox::<NoopRawMutex, 1024>::new(WhenFull::DropNewest);
        for value in 0..50u32 {
            outbox.try_report("a", &value).unwrap();
        }
        for _ in 0..3 {
            assert!(send(&outbox, 3).is_some());
        }
        assert_eq!(send(&outbox, 3), None);
        outbox.acknowledge(2);
        assert_eq!(send(&outbox, 3).map(|(n, ..)| n), Some(4));
        while send(&outbox, u64::MAX).is_some() {}
        assert_eq!(outbox.log.lock(|log| log.borrow().flight.len()), MAX_IN_FLIGHT);
    }

    #[test]
    fn a_refused_reading_is_not_sent_again_whatever_is_acknowledged_around_it() {
        let outbox = Small::new(WhenFull::DropNewest);
        for value in 1..=4u32 {
            outbox.try_report("a", &value).unwrap();
            send(&outbox, 9);
        }
        outbox.refuse(2, true);
        outbox.refuse(2, true);
        outbox.refuse(4, true);
        for nonsense in [0, 5, 33, 34, u64::MAX] {
            outbox.refuse(nonsense, true);
        }
        assert_eq!(outbox.counts(), Counts { reported: 4, refused: 2, waiting: 2, ..Counts::default() });
        outbox.rewind();
        assert_eq!(send(&outbox, 9).map(|(n, ..)| n), Some(1));
        assert_eq!(send(&outbox, 9).map(|(n, ..)| n), Some(3));
        assert_eq!(send(&outbox, 9), None);
        outbox.acknowledge(1);
        outbox.acknowledge(3);
        let counts = Counts { reported: 4, acknowledged: 2, refused: 2, ..Counts::default() };
        assert_eq!(outbox.counts(), counts);
        assert_eq!(outbox.log.lock(|log| log.borrow().held), 0);
    }

    #[test]
    fn what_is_refused_for_now_is_sent_again_before_anything_new() {
        let outbox = Small::new(WhenFull::DropOldest);
        for value in 1..=4u32 {
            outbox.try_report("a", &value).unwrap();
        }
        (1..=3).for_each(|n| assert_eq!(send(&outbox, 9).map(|(n, ..)| n), Some(n)));
        outbox.refuse(1, false);
        assert_eq!(send(&outbox, 9), None);
        outbox.acknowledge(3);
        assert_eq!(outbox.counts(), Counts { reported: 4, acknowledged: 2, waiting: 2, ..Counts::default() });
        assert_eq!(send(&outbox, 9), Some((1, "a".into(), 1)));
        assert_eq!(send(&outbox, 9), Some((4, "a".into(), 4)));
        outbox.acknowledge(4);
        assert_eq!(outbox.counts(), Counts { reported: 4, acknowledged: 4, ..Counts::default() });
        assert_eq!(outbox.log.lock(|log| log.borrow().held), 0);
    }

    #[test]
    fn an_outbox_has_one_incarnation() {
        let outbox = Small::new(WhenFull::DropNewest);
        assert_eq!(outbox.incarnation(|| 7), Incarnation(7));
        assert_eq!(outbox.incarnation(|| 8), Incarnation(7));
    }

    #[test]
    fn what_can_never_be_sent_is_refused_in_its_turn() {
        let outbox = Small::new(WhenFull::DropNewest);
        outbox.try_report("a", &1u32).unwrap();
        outbox.try_report("b", &2u32).unwrap();
        outbox.try_report("c", &3u32).unwrap();
        send(&outbox, 9);
        outbox.refuse_next();
        assert_eq!(send(&outbox, 9), Some((3, "c".into(), 3)));
        outbox.acknowledge(1);
        assert_eq!(
            outbox.counts(),
            Counts { reported: 3, acknowledged: 1, refused: 1, waiting: 1, dropped: 0 }
        );
    }

    #[test]
    fn limits() {
        let outbox = Small::new(WhenFull::DropNewest);
        assert_eq!(outbox.try_report("a//b", &1), Err(ReportError::BadTopic));
        assert_eq!(outbox.try_report("a/*", &1), Err(ReportError::BadTopic));
        // 64 bytes: a header of 3, a topic of 1, a text of 58 behind its own header of 2.
        let text = "x".repeat(59);
        assert_eq!(outbox.try_report("a", &text[..59]), Err(ReportError::TooLarge));
        assert_eq!(outbox.try_report("a", &text[..58]), Ok(()));
        assert_eq!(outbox.try_report("a", &1), Err(ReportError::Full));
        let oldest = Small::new(WhenFull::DropOldest);
        assert_eq!(oldest.try_report("a", &text[..58]), Ok(()));
        assert_eq!(oldest.try_report("b", &1u32), Ok(()));
        assert_eq!(oldest.counts(), Counts { reported: 2, dropped: 1, waiting: 1, ..Counts::default() });
        // The number of the other is given up with it.
        assert_eq!(send(&oldest, 9), Some((2, "b".into(), 1)));
    }

    #[derive(Clone, Debug)]
    enum Op {
        Report(u32),
        Send,
        Acknowledge(u64),
        Refuse(u64, bool),
        Rewind,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => any::<u32>().prop_map(|bits| Op::Report(bits >> (bits % 32))),
            4 => Just(Op::Send),
            2 => (0..40u64).prop_map(Op::Acknowledge),
            1 => (0..40u64, any::<bool>()).prop_map(|(n, permanent)| Op::Refuse(n, permanent)),
            1 => Just(Op::Rewind),
        ]
    }

    /// The same with a list: every reading that was ever taken, and what became of it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fate {
        Waiting,
        InFlight,
        /// Refused for now.
        Again,
        Acknowledged,
        Refused,
        Dropped,
        /// Dropped, and the gateway owes an answer.
        DroppedInFlight,
    }

    impl Fate {
        fn is_settled(self) -> bool {
            matches!(self, Self::Acknowledged | Self::Refused | Self::Dropped | Self::DroppedInFlight)
        }

        fn is_owed(self) -> bool {
            matches!(self, Self::InFlight | Self::DroppedInFlight)
        }
    }

    fn counts(readings: &[(u32, Fate)]) -> Counts {
        let count = |is: &dyn Fn(Fate) -> bool| {
            u32::try_from(readings.iter().filter(|(_, fate)| is(*fate)).count()).unwrap()
        };
        Counts {
            reported: count(&|_| true),
            acknowledged: count(&|fate| fate == Fate::Acknowledged),
            refused: count(&|fate| fate == Fate::Refused),
            dropped: count(&|fate| matches!(fate, Fate::Dropped | Fate::DroppedInFlight)),
            waiting: count(&|fate| !fate.is_settled()),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_model(ops in prop::collection::vec(op(), 0..120), drop_oldest: bool) {
            let policy = if drop_oldest { WhenFull::DropOldest } else { WhenFull::DropNewest };
            let outbox = Small::new(policy);
            let mut readings: Vec<(u32, Fate)> = Vec::new();
            for op in ops {
                match op {
                    Op::Report(value) => {
                        let before = outbox.counts();
                        let taken = outbox.try_report("t", &value).is_ok();
                        let dropped = outbox.counts().dropped - before.dropped;
                        prop_assert!(taken || policy == WhenFull::DropNewest);
                        prop_assert!(dropped == 0 || policy == WhenFull::DropOldest);
                        for _ in 0..dropped {
                            let (_, oldest) = readings.iter_mut().find(|(_, fate)| !fate.is_settled()).unwrap();
                            *oldest = if oldest.is_owed() { Fate::DroppedInFlight } else { Fate::Dropped };
                        }
                        if taken {
                            readings.push((value, Fate::Waiting));
                        }
                    }
                    Op::Send => {
                        let owed = readings.iter().any(|(_, fate)| fate.is_owed());
                        let held = readings.iter().any(|(_, fate)| *fate == Fate::Again);
                        if held && !owed {
                            readings.iter_mut().filter(|(_, f)| *f == Fate::Again).for_each(|(_, f)| *f = Fate::Waiting);
                        }
                        let next = readings.iter().position(|(_, fate)| *fate == Fate::Waiting);
                        // What 64 bytes hold is always within what may be in flight, unless answers are owed to much that
                        // was dropped.
                        let owed = readings.iter().filter(|(_, fate)| fate.is_owed()).count();
                        let first = readings.iter().position(|(_, fate)| fate.is_owed()).unwrap_or(usize::MAX);
                        let next = next.filter(|n| !(held && owed > 0) && owed < 32 && *n < first.saturating_add(64));
                        let got = send(&outbox, u64::MAX);
                        let expected = next.map(|at| (at as u64 + 1, "t".into(), readings[at].0));
                        prop_assert_eq!(got, expected);
                        if let Some(at) = next {
                            readings[at].1 = Fate::InFlight;
                        }
                    }
                    Op::Acknowledge(n) => {
                        outbox.acknowledge(n);
                        let to = usize::try_from(n).unwrap().min(readings.len());
                        for (_, fate) in &mut readings[..to] {
                            *fate = match *fate {
                                Fate::InFlight => Fate::Acknowledged,
                                Fate::DroppedInFlight => Fate::Dropped,
                                other => other,
                            };
                        }
                    }
                    Op::Refuse(n, permanent) => {
                        outbox.refuse(n, permanent);
                        let at = usize::try_from(n).unwrap().checked_sub(1);
                        if let Some((_, fate)) = at.and_then(|at| readings.get_mut(at)) {
                            *fate = match *fate {
                                Fate::InFlight if permanent => Fate::Refused,
                                Fate::InFlight => Fate::Again,
                                Fate::DroppedInFlight => Fate::Dropped,
                                other => other,
                            };
                        }
                    }
                    Op::Rewind => {
                        outbox.rewind();
                        for (_, fate) in &mut readings {
                            *fate = match *fate {
                                Fate::InFlight | Fate::Again => Fate::Waiting,
                                Fate::DroppedInFlight => Fate::Dropped,
                                other => other,
                            };
                        }
                    }
                }
                prop_assert_eq!(outbox.counts(), counts(&readings));
            }
        }
    }
}
