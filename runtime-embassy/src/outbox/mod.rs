//! Where readings wait: a small log in static memory, with one reader, the gateway.

mod counts;
#[cfg(feature = "storage")]
mod keep;
#[cfg(feature = "storage")]
mod kept;
mod log;
mod ring;
#[cfg(test)]
mod tests;

use core::cell::RefCell;
use core::fmt;

use embassy_sync::blocking_mutex::Mutex;
use embassy_sync::blocking_mutex::raw::RawMutex;
use embassy_sync::signal::Signal;
use longwire_core::log::{Key, Topic};
use longwire_core::session::publisher::Incarnation;
use minicbor::{Encode, Encoder};

pub use counts::Counts;
#[cfg(feature = "storage")]
pub(crate) use keep::Keep;
#[cfg(feature = "storage")]
pub(crate) use kept::{Gone, MAX_GONE};
use log::{Counter, Log, Policies};

/// What happens to the readings of a topic when there is not enough room.
///
/// What was sent and is not answered yet is never dropped, whatever its policy: only the gateway knows what became of it.
/// That is at most half of the outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Policy {
    /// The oldest readings that may be dropped make room for a new one. Those are the readings of topics with this policy or
    /// with `Conflate`.
    #[default]
    DropOldest,
    /// A new reading is refused with [`ReportError::Full`]. What was taken is never dropped, for no other topic either.
    DropNewest,
    /// A new reading replaces the one before it of the same topic and key, if that was not sent yet: also when there would be
    /// room for both. When there is not enough room then, as `DropOldest`.
    Conflate,
}

/// Why a reading was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ReportError {
    /// There is no room, and nothing may be dropped for it. (Nor is a reading taken when 2^30 others were taken and dropped
    /// since the newest that may not be: that ends with the gateway's next answer.)
    Full,
    /// Larger than the whole outbox, or than 65,535 bytes of data.
    TooLarge,
    /// Not a topic (`PROTOCOL.md` section 3).
    BadTopic,
    /// Not a key (`PROTOCOL.md` section 3).
    BadKey,
    /// The value refused to be encoded, or reports something itself while it is.
    BadValue,
}

impl fmt::Display for ReportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the outbox is full",
            Self::TooLarge => "the reading is larger than the outbox",
            Self::BadTopic => "not a topic",
            Self::BadKey => "not a key",
            Self::BadValue => "the value cannot be encoded",
        })
    }
}

impl core::error::Error for ReportError {}

/// Readings on their way to the gateway, in `BYTES` bytes of memory. A reading takes its topic, its key, its data, and
/// eight bytes.
///
/// Any task reports to it by a [`Reporter`], and never waits for the network; an [`Uplink`](crate::Uplink) sends. A reading
/// stays until the gateway has acknowledged it or refused it for good, and is sent again after a connection was cut, under
/// the same number: so it is stored once, as long as the gateway keeps its log (`PROTOCOL.md` section 5.2). The numbers,
/// and the incarnation that they belong to, are the outbox's: they last as long as its memory.
///
/// ```
/// use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
/// use longwire_embassy::{Outbox, Policy, ReportError};
///
/// static OUTBOX: Outbox<CriticalSectionRawMutex, 40> = Outbox::new(Policy::DropOldest);
///
/// OUTBOX.set_policies(&[("alarm/**", Policy::DropNewest), ("room/**", Policy::Conflate)], Policy::DropOldest);
/// let reporter = OUTBOX.reporter();
/// reporter.try_report("alarm/door", None, &true)?; // 10 bytes of topic, 1 of data, 8
/// reporter.try_report("room/7", None, &21)?; // 6, 2, 8
/// reporter.try_report("room/7", None, &22)?; // in place of the one before
/// assert_eq!(reporter.try_report("alarm/window", None, &true), Err(ReportError::Full));
/// let counts = OUTBOX.counts();
/// assert_eq!((counts.reported, counts.waiting, counts.conflated, counts.dropped_newest), (4, 2, 1, 1));
/// # Ok::<(), ReportError>(())
/// ```
pub struct Outbox<M: RawMutex, const BYTES: usize> {
    log: Mutex<M, RefCell<Log<BYTES>>>,
    /// Raised by whoever reports, taken by the one uplink.
    reported: Signal<M, ()>,
    /// Raised by whatever happens to a reading, taken by the one storage.
    #[cfg(feature = "storage")]
    changed: Signal<M, ()>,
}

impl<M: RawMutex, const BYTES: usize> Outbox<M, BYTES> {
    /// An empty outbox, with one policy for all topics until [others](Self::set_policies) are set.
    ///
    /// With [`Policy::DropOldest`] it is all zeros, so a `static` takes its bytes of RAM, and none of flash to begin from.
    pub const fn new(policy: Policy) -> Self {
        Self {
            log: Mutex::new(RefCell::new(Log::new(policy))),
            reported: Signal::new(),
            #[cfg(feature = "storage")]
            changed: Signal::new(),
        }
    }

    /// From now on the first pattern (`PROTOCOL.md` section 3) that matches a topic says its policy; `otherwise`, when none
    /// does. What is no pattern matches nothing. What waits already, reported or restored by a storage, gets its policy anew.
    ///
    /// (From a value that is being encoded for this outbox it changes nothing.)
    pub fn set_policies(&self, policies: &'static [(&'static str, Policy)], otherwise: Policy) {
        self.with(|log| log.set_policies(Policies { rules: Some(policies), otherwise }));
    }

    /// For whoever reports.
    pub const fn reporter(&self) -> Reporter<'_, M, BYTES> {
        Reporter(self)
    }

    /// What became of the readings so far. (While a value is being encoded nobody knows: then they are all 0.)
    pub fn counts(&self) -> Counts {
        self.with(|log| log.counts).unwrap_or_default()
    }

    fn policy_of(&self, topic: &str) -> Result<Policy, ReportError> {
        let topic = Topic::parse(topic).map_err(|_| ReportError::BadTopic)?;
        Ok(self.with(|log| log.policies).ok_or(ReportError::BadValue)?.of(topic))
    }

    /// Works on the log. `None` when somebody does already: a value that calls its own outbox while it is encoded.
    fn with<T>(&self, work: impl FnOnce(&mut Log<BYTES>) -> T) -> Option<T> {
        self.log.lock(|log| log.try_borrow_mut().ok().map(|mut log| work(&mut log)))
    }

    /// The same, and a storage is told.
    fn change<T>(&self, work: impl FnOnce(&mut Log<BYTES>) -> T) -> Option<T> {
        let result = self.with(work);
        #[cfg(feature = "storage")]
        self.changed.signal(());
        result
    }
}

/// Reports readings to an [`Outbox`], from any task.
///
/// With `CriticalSectionRawMutex` also from any priority, an interrupt included; with a mutex that knows one executor only,
/// from the tasks of that.
pub struct Reporter<'o, M: RawMutex, const BYTES: usize>(&'o Outbox<M, BYTES>);

impl<M: RawMutex, const BYTES: usize> Clone for Reporter<'_, M, BYTES> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: RawMutex, const BYTES: usize> Copy for Reporter<'_, M, BYTES> {}

impl<M: RawMutex, const BYTES: usize> Reporter<'_, M, BYTES> {
    /// Takes a reading, or says why not; it never waits. `value` becomes the event's data as one CBOR item (RFC 8949) of at
    /// most 65,535 bytes; it is encoded twice, once to learn its length, and the second time with the mutex held.
    ///
    /// **Critical section.** That of `M` lasts for the second encoding, and for making room. To make room the headers of all
    /// readings are looked at, and once more for each one that goes; where it lies behind one that stays, at most `BYTES`
    /// bytes are moved as well. As many go as it takes to fit: one as a rule, `BYTES / 9` at worst, when a large reading
    /// replaces the smallest ones. Under `Conflate` topics and keys are compared, and one more may go. So an interrupt
    /// waits some microseconds for each kilobyte of outbox, as a rule; keep readings of a size, or large ones out of an
    /// outbox of small ones, where that is too long.
    ///
    /// # Errors
    /// [`ReportError`]. What has a good topic, key and value is counted, taken or not.
    pub fn try_report<T: Encode<()> + ?Sized>(
        &self,
        topic: &str,
        key: Option<&str>,
        value: &T,
    ) -> Result<(), ReportError> {
        let policy = self.0.policy_of(topic)?;
        if key.is_some_and(|key| Key::parse(key).is_err()) {
            return Err(ReportError::BadKey);
        }
        let mut len = Counter(0);
        Encoder::new(&mut len).encode(value).map_err(|_| ReportError::BadValue)?;
        let taken = self.0.change(|log| log.push(policy, topic, key, value, len.0));
        taken.unwrap_or(Err(ReportError::BadValue))?;
        self.0.reported.signal(());
        Ok(())
    }

    /// What became of the readings so far.
    pub fn counts(&self) -> Counts {
        self.0.counts()
    }
}

/// A reading on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading<'a> {
    pub(crate) topic: &'a str,
    pub(crate) key: Option<&'a str>,
    /// One CBOR item.
    pub(crate) data: &'a [u8],
}

/// What an uplink needs of an outbox, whatever its size.
pub(crate) trait Source {
    /// Who numbers the readings: drawn once. For the beginning of a connection: another one takes over here if this one
    /// [is spent](Self::is_spent).
    fn incarnation(&self, draw: impl FnOnce() -> u64) -> Incarnation;
    /// Whether what comes next has to be sent as another incarnation, and nothing of this one is left.
    #[cfg(feature = "storage")]
    fn is_spent(&self) -> bool;
    /// A connection has begun: what was sent on the last one and not settled is sent again.
    fn rewind(&self);
    /// Hands the next reading to `send` with its number, and goes on behind it when `send` took it. `None` when there is
    /// nothing to send, when as many as `max_in_flight` are not answered, when those take half of the memory, or when
    /// something that was refused for now waits for them.
    fn send_next<T>(
        &self,
        max_in_flight: u64,
        send: impl FnOnce(u64, Reading<'_>) -> Result<(), T>,
    ) -> Option<Result<(), T>>;
    /// Whether `send_next` would hand something over, with nothing under way: as the incarnation that
    /// [`incarnation`](Self::incarnation) says.
    #[cfg(feature = "sse")]
    fn has_next(&self) -> bool;
    /// The next reading can never be sent: it counts as too large.
    fn give_up_next(&self);
    /// The gateway has taken every publication up to `n`, except those that it refused.
    fn acknowledge(&self, n: u64);
    /// The gateway has refused publication `n`, for good or for now.
    fn refuse(&self, n: u64, permanent: bool);
    /// Reports the counts on this topic, if something was lost since that was done last; says whether it did.
    fn report_counts(&self, topic: &str) -> bool;
    /// Waits until something was reported. Cancel-safe.
    async fn reported(&self);
}

impl<M: RawMutex, const BYTES: usize> Source for Outbox<M, BYTES> {
    fn incarnation(&self, draw: impl FnOnce() -> u64) -> Incarnation {
        let incarnation = self.with(|log| {
            #[cfg(feature = "storage")]
            log.succeed();
            *log.incarnation.get_or_insert_with(|| Incarnation(draw()))
        });
        incarnation.unwrap_or(Incarnation(0))
    }

    #[cfg(feature = "storage")]
    fn is_spent(&self) -> bool {
        self.with(|log| log.is_spent()).unwrap_or(false)
    }

    fn rewind(&self) {
        self.with(|log| log.flight.reconnected());
    }

    fn send_next<T>(
        &self,
        max_in_flight: u64,
        send: impl FnOnce(u64, Reading<'_>) -> Result<(), T>,
    ) -> Option<Result<(), T>> {
        let sent = self.with(|log| log.send_next(max_in_flight, send)).flatten();
        #[cfg(feature = "storage")]
        if self.is_wanted() {
            self.changed.signal(());
        }
        sent
    }

    #[cfg(feature = "sse")]
    fn has_next(&self) -> bool {
        let next = self.with(|log| {
            #[cfg(feature = "storage")]
            log.succeed();
            log.next(u64::MAX)
        });
        next.flatten().is_some()
    }

    fn give_up_next(&self) {
        self.change(|log| log.give_up_next());
    }

    fn acknowledge(&self, n: u64) {
        self.change(|log| log.acknowledge(n));
    }

    fn refuse(&self, n: u64, permanent: bool) {
        self.change(|log| log.refuse(n, permanent));
    }

    fn report_counts(&self, topic: &str) -> bool {
        self.change(|log| log.report_counts(topic)).unwrap_or(false)
    }

    async fn reported(&self) {
        self.reported.wait().await;
    }
}
