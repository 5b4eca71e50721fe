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
    /// Refused by the gateway (`nack`).
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
    /// Which of those after `done` are done with already, out of their turn: bit 0 stands for `done + 1`.
    done_ahead: u32,
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
                done_ahead: 0,
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
            (log.sent_bytes, log.sent, log.done, log.done_ahead) = (0, 0, 0, 0);
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
                let refused = log.done_ahead & 1 == 1;
                log.advance();
                if !refused {
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
            if ahead < in_flight && log.done_ahead & bit == 0 {
                log.done_ahead |= bit;
                log.counts.refused = log.counts.refused.wrapping_add(1);
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

    /// The publication after `done` is done with: it leaves the outbox.
    fn advance(&mut self) {
        self.done = self.done.saturating_add(1);
        self.done_ahead >>= 1;
        let len = self.remove_first();
        self.sent_bytes = self.sent_bytes.saturating_sub(len);
    }

    fn advance_over_refused(&mut self) {
        while self.done_ahead & 1 == 1 {
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
