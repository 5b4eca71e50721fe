//! Where readings wait: a small log in static memory, with one reader, the gateway.

use core::cell::RefCell;
use core::fmt;

use embassy_sync::blocking_mutex::Mutex;
use embassy_sync::blocking_mutex::raw::RawMutex;
use embassy_sync::signal::Signal;
use longwire_core::buf::{TxBuf, TxCursor};
use longwire_core::log::Topic;
use minicbor::{Encode, Encoder};

/// Bytes in front of each reading: the length of its topic, and of its data.
const HEADER: usize = 3;

/// Most readings that are sent and not yet acknowledged, whatever the gateway would allow.
pub(crate) const MAX_IN_FLIGHT: u32 = 32;

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
    /// In the outbox: not sent, or not acknowledged.
    pub waiting: u32,
}

/// Readings on their way to the gateway, in `BYTES` bytes of memory. A reading takes its topic, its data, and three
/// bytes.
///
/// Any task reports to it, and never waits for the network; an [`Uplink`](crate::Uplink) sends. A reading stays until
/// the gateway has acknowledged or refused it, and is sent again after a connection was cut: so it arrives at least
/// once. (In this version of the protocol a gateway cannot tell a repetition from a new publication: a reading that was
/// taken, but whose acknowledgement was lost with the connection, arrives twice.)
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
    /// The bytes at the front that were sent on this connection, and how many readings they are.
    sent_bytes: usize,
    sent: u32,
    /// How many publications of this connection are done with: acknowledged, refused or dropped.
    done: u32,
    /// Which of those after `done` are refused already, out of their turn: bit 0 stands for `done + 1`.
    refused: u32,
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
                sent_bytes: 0,
                sent: 0,
                done: 0,
                refused: 0,
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
    /// Begins again with publication 1: what was sent on the last connection is sent again.
    fn rewind(&self);
    /// Hands the next reading to `send` as (n, topic, data), and goes on behind it when `send` took it. `None` when
    /// there is nothing to send, or when as many as `max_in_flight` are not done with.
    fn send_next<T>(
        &self,
        max_in_flight: u32,
        send: impl FnOnce(u32, &str, &[u8]) -> Result<(), T>,
    ) -> Option<Result<(), T>>;
    /// The next reading can never be sent: it counts as refused.
    fn refuse_next(&self);
    /// The gateway has taken every publication up to `n`, except those that it refused.
    fn acknowledge(&self, n: u64);
    /// The gateway has refused publication `n`.
    fn refuse(&self, n: u64);
    /// Waits until something was reported. Cancel-safe.
    async fn reported(&self);
}

impl<M: RawMutex, const BYTES: usize> Source for Outbox<M, BYTES> {
    fn rewind(&self) {
        self.log.lock(|log| {
            let log = &mut *log.borrow_mut();
            (log.sent_bytes, log.sent, log.done, log.refused) = (0, 0, 0, 0);
        });
    }

    fn send_next<T>(
        &self,
        max_in_flight: u32,
        send: impl FnOnce(u32, &str, &[u8]) -> Result<(), T>,
    ) -> Option<Result<(), T>> {
        self.log.lock(|log| {
            let log = &mut *log.borrow_mut();
            if log.sent.saturating_sub(log.done) >= max_in_flight.min(MAX_IN_FLIGHT) {
                return None;
            }
            let n = log.sent.checked_add(1)?;
            let from = log.sent_bytes;
            let tx = log.tx();
            let reading = Reading::first(tx.pending().get(from..)?)?;
            if let Err(why) = send(n, reading.topic, reading.data) {
                return Some(Err(why));
            }
            let len = reading.len;
            log.sent = n;
            log.sent_bytes = log.sent_bytes.saturating_add(len);
            Some(Ok(()))
        })
    }

    fn refuse_next(&self) {
        if let Some(Ok(())) = self.send_next(u32::MAX, |_, _, _| Ok::<(), ()>(())) {
            let n = self.log.lock(|log| log.borrow().sent);
            self.refuse(n.into());
        }
    }

    fn acknowledge(&self, n: u64) {
        self.log.lock(|log| {
            let log = &mut *log.borrow_mut();
            while u64::from(log.done) < n && log.done < log.sent {
                if !log.advance() {
                    log.counts.acknowledged = log.counts.acknowledged.wrapping_add(1);
                }
            }
            log.advance_over_refused();
        });
    }

    fn refuse(&self, n: u64) {
        self.log.lock(|log| {
            let log = &mut *log.borrow_mut();
            // Of the publications in flight, counted from zero.
            let Some(ahead) = n.checked_sub(u64::from(log.done).saturating_add(1)) else { return };
            let in_flight = u64::from(log.sent.saturating_sub(log.done));
            let Some(bit) = u32::try_from(ahead).ok().and_then(|ahead| 1u32.checked_shl(ahead)) else {
                return;
            };
            if ahead < in_flight {
                log.refused |= bit;
                log.advance_over_refused();
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
        self.counts.reported = self.counts.reported.wrapping_add(1);
        self.counts.waiting = self.counts.waiting.wrapping_add(1);
        Ok(())
    }

    /// Drops the reading at the front; false when there is none.
    fn drop_oldest(&mut self) -> bool {
        if self.counts.waiting == 0 {
            return false;
        }
        if self.sent == self.done {
            self.remove_first();
        } else {
            // It was sent: its number is done with, and an acknowledgement that comes later finds it so.
            self.advance();
            self.advance_over_refused();
        }
        self.counts.dropped = self.counts.dropped.wrapping_add(1);
        true
    }

    /// The publication after `done` is done with: it leaves the outbox. Says whether that was refused.
    fn advance(&mut self) -> bool {
        let refused = self.refused & 1 == 1;
        self.counts.refused = self.counts.refused.wrapping_add(u32::from(refused));
        self.refused >>= 1;
        self.done = self.done.saturating_add(1);
        let len = self.remove_first();
        self.sent_bytes = self.sent_bytes.saturating_sub(len);
        refused
    }

    fn advance_over_refused(&mut self) {
        while self.refused & 1 == 1 {
            self.advance();
        }
    }

    /// Takes the reading at the front out of the memory, and says how long it was.
    fn remove_first(&mut self) -> usize {
        let mut tx = self.tx();
        let len = Reading::first(tx.pending()).map_or(0, |reading| reading.len);
        tx.consume(len);
        self.counts.waiting = self.counts.waiting.saturating_sub(1);
        len
    }
}

/// A reading as it lies in memory: header, topic, data.
struct Reading<'a> {
    topic: &'a str,
    data: &'a [u8],
    len: usize,
}

impl<'a> Reading<'a> {
    fn first(bytes: &'a [u8]) -> Option<Self> {
        let (&[topic, high, low], rest) = bytes.split_first_chunk::<HEADER>()?;
        let (topic, rest) = rest.split_at_checked(usize::from(topic))?;
        let data = rest.get(..usize::from(u16::from_be_bytes([high, low])))?;
        let len = HEADER + topic.len() + data.len();
        Some(Self { topic: core::str::from_utf8(topic).ok()?, data, len })
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
    use std::collections::VecDeque;
    use std::string::String;
    use std::vec::Vec;

    type Small = Outbox<NoopRawMutex, 64>;

    /// Sends the next reading: its number, topic and value.
    fn send(outbox: &impl Source, max_in_flight: u32) -> Option<(u32, String, u32)> {
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
        // The connection was cut: what was not acknowledged is sent again, under new numbers.
        outbox.rewind();
        assert_eq!(send(&outbox, 9), Some((1, "a/b".into(), 2)));
        assert_eq!(send(&outbox, 9), Some((2, "a/b".into(), 3)));
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
        while send(&outbox, u32::MAX).is_some() {}
        assert_eq!(outbox.log.lock(|log| log.borrow().sent - log.borrow().done), MAX_IN_FLIGHT);
    }

    #[test]
    fn a_refused_reading_is_not_sent_again_whatever_is_acknowledged_around_it() {
        let outbox = Small::new(WhenFull::DropNewest);
        for value in 1..=4u32 {
            outbox.try_report("a", &value).unwrap();
            send(&outbox, 9);
        }
        outbox.refuse(2);
        outbox.refuse(2);
        outbox.refuse(4);
        for nonsense in [0, 5, 33, 34, u64::MAX] {
            outbox.refuse(nonsense);
        }
        // They wait for their turn.
        assert_eq!(outbox.counts().waiting, 4);
        outbox.acknowledge(1);
        assert_eq!(outbox.counts().waiting, 2);
        outbox.acknowledge(3);
        let counts = Counts { reported: 4, acknowledged: 2, refused: 2, ..Counts::default() };
        assert_eq!(outbox.counts(), counts);
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
        assert_eq!(send(&oldest, 9), Some((1, "b".into(), 1)));
    }

    #[derive(Clone, Debug)]
    enum Op {
        Report(u32),
        Send,
        Acknowledge(u64),
        Refuse(u64),
        Rewind,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => any::<u32>().prop_map(|bits| Op::Report(bits >> (bits % 32))),
            4 => Just(Op::Send),
            2 => (0..40u64).prop_map(Op::Acknowledge),
            1 => (0..40u64).prop_map(Op::Refuse),
            1 => Just(Op::Rewind),
        ]
    }

    /// The same with lists: what waits, in order; and what became of each publication of this connection.
    #[derive(Default)]
    struct Model {
        waiting: VecDeque<u32>,
        in_flight: Vec<(u32, bool)>,
        done: usize,
        counts: Counts,
    }

    impl Model {
        fn settle(&mut self) {
            while self.in_flight.get(self.done).is_some_and(|(_, refused)| *refused) {
                self.done += 1;
                self.counts.refused += 1;
                self.waiting.pop_front();
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_model(ops in prop::collection::vec(op(), 0..120), drop_oldest: bool) {
            let policy = if drop_oldest { WhenFull::DropOldest } else { WhenFull::DropNewest };
            let outbox = Small::new(policy);
            let mut model = Model::default();
            for op in ops {
                match op {
                    Op::Report(value) => {
                        let before = outbox.counts();
                        let taken = outbox.try_report("t", &value).is_ok();
                        let dropped = outbox.counts().dropped - before.dropped;
                        prop_assert!(taken || policy == WhenFull::DropNewest);
                        prop_assert!(dropped == 0 || policy == WhenFull::DropOldest);
                        for _ in 0..dropped {
                            if model.in_flight.len() > model.done {
                                model.done += 1;
                            }
                            model.waiting.pop_front();
                            model.settle();
                        }
                        model.counts.dropped += dropped;
                        if taken {
                            model.waiting.push_back(value);
                            model.counts.reported += 1;
                        }
                    }
                    Op::Send => {
                        let next = model.in_flight.len() - model.done;
                        let expected = model.waiting.get(next).copied();
                        prop_assert_eq!(send(&outbox, u32::MAX).map(|(_, _, value)| value), expected);
                        model.in_flight.extend(expected.map(|value| (value, false)));
                    }
                    Op::Acknowledge(n) => {
                        outbox.acknowledge(n);
                        while (model.done as u64) < n && model.done < model.in_flight.len() {
                            let refused = u32::from(model.in_flight[model.done].1);
                            model.counts.refused += refused;
                            model.counts.acknowledged += 1 - refused;
                            model.done += 1;
                            model.waiting.pop_front();
                        }
                        model.settle();
                    }
                    Op::Refuse(n) => {
                        outbox.refuse(n);
                        let done = model.done;
                        let at = usize::try_from(n).unwrap().checked_sub(1).filter(|at| *at >= done);
                        if let Some((_, refused)) = at.and_then(|at| model.in_flight.get_mut(at)) {
                            *refused = true;
                        }
                        model.settle();
                    }
                    Op::Rewind => {
                        outbox.rewind();
                        // Those refused out of their turn are sent again, and refused again.
                        model.in_flight.clear();
                        model.done = 0;
                    }
                }
                model.counts.waiting = u32::try_from(model.waiting.len()).unwrap();
                let counts = outbox.counts();
                prop_assert_eq!(counts, model.counts);
                let known = counts.acknowledged + counts.refused + counts.dropped + counts.waiting;
                prop_assert_eq!(counts.reported, known);
            }
        }
    }
}
