//! Readings that outlive a reset: a copy of the outbox in flash.

mod item;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "a test's numbers are small, or any will do")]
mod tests;

use core::fmt;
use core::ops::Range;

use embassy_futures::select::select;
use embassy_sync::blocking_mutex::raw::RawMutex;
use embassy_time::{Duration, Timer};
use embedded_storage_async::nor_flash::NorFlash;
use longwire_core::rand_core::CryptoRng;
use longwire_core::session::publisher::Incarnation;
use sequential_storage::cache::{Cache, Uncached};
use sequential_storage::queue::{QueueConfig, QueueConfigError, QueueStorage};

use crate::buffered::after;
use crate::outbox::{Keep, MAX_GONE, Outbox};
use item::{HEAD, Head, RANGE, Writer};

/// So many numbers are left out after a reset: those that may have been used since the last one that is in the flash.
const JUMP: u64 = 1 << 13;
/// After so many numbers it is written down which were used, also if there is nothing else to write.
const USED: u64 = JUMP / 2;
/// So far above the settled readings that the flash knows of another is sent at most. A gateway knows the last 1024 numbers
/// of a publisher (`PROTOCOL.md` section 5.2), so it knows again whatever is repeated after a reset.
const AHEAD: u64 = 768;
/// What sequential-storage adds to an item at most, with the alignment of both.
const OVERHEAD: usize = 8 + 2 * 32;

/// How a storage behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageConfig {
    /// A reading that was not acknowledged within this time is written to the flash, together with all others of that
    /// kind. What is acknowledged earlier costs no write. A reset loses the readings of this time. Default 5 s.
    pub delay: Duration,
}

impl StorageConfig {
    /// The defaults, as a constant.
    pub const fn new() -> Self {
        Self { delay: Duration::from_secs(5) }
    }
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// What a storage has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct StorageCounts {
    /// Readings that were in the flash when it was opened, and are in the outbox again.
    pub restored: u32,
    /// Readings that were in the flash and have no place in the outbox: it has become smaller, or its topics others.
    pub homeless: u32,
    /// Items that were in the flash once and cannot be read any more.
    pub damaged: u32,
    /// Items written: each is one program operation, and each page is erased when they have gone round.
    pub writes: u32,
    /// Readings that are too large for an item. They are in the outbox only.
    pub too_large: u32,
    /// Writes that failed. Readings are sent all the same; what is in the outbox is written again with the next.
    pub errors: u32,
    /// What the outbox had counted as [`reported`](crate::Counts::reported) when the last write that succeeded began. Whatever
    /// was reported before that, and is neither settled nor dropped, nor too large, is in the flash.
    pub kept: u32,
}

/// Why a storage cannot be opened. A device runs without one as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum OpenError<E> {
    /// The outbox has readings, or an uplink: a storage comes before both.
    InUse,
    /// The range does not consist of whole pages, or its pages or words have no size that can be used.
    BadRange,
    /// The outbox, twice and in items, does not fit.
    TooSmall,
    /// The flash cannot be read. What it holds stays there, for the next boot; the outbox is as it was, so opening may be tried
    /// once more.
    Flash(E),
}

impl<E: fmt::Debug> fmt::Display for OpenError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse => f.write_str("the outbox is in use"),
            Self::BadRange => f.write_str("no range of pages"),
            Self::TooSmall => f.write_str("the range is too small for the outbox"),
            Self::Flash(error) => write!(f, "the flash cannot be read: {error:?}"),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for OpenError<E> {}

/// Keeps a copy of what waits in an outbox, in `ITEM` bytes of memory and a range of flash.
///
/// # What it promises
/// - A reading that was written, and neither acknowledged nor refused nor dropped by its policy before the reset, is in the
///   outbox after it, under the same (incarnation, n), before all newer ones.
/// - One that was acknowledged may be sent once more, under the same number, so that the gateway knows it again.
/// - No two readings are sent under one (incarnation, n).
/// - One that was dropped does not come back behind readings that are newer.
///
/// All that holds whenever the power fails, in the middle of a write as well. What is not written yet is lost with the
/// memory: see [`StorageConfig::delay`].
///
/// # When the flash fails
/// A write that failed is made again after the delay, when something has changed. Until one succeeds a device reports all the
/// same, and no two readings are sent under one (incarnation, n), over any number of resets:
/// - Numbers up to 8,192 beyond the last write are safe to use. Once those before are settled, what comes next is sent as another
///   incarnation, which is in memory only, up to the next reset: an uplink opens a connection of its own for that
///   ([`Lost::Incarnation`](crate::Lost::Incarnation)). At boot there are no such numbers, so if the first write fails, what was
///   restored is sent under its numbers, and what is new as another incarnation.
/// - What the flash holds is in the outbox after each reset, also if it was settled or dropped since the last write. What was
///   sent as the other incarnation and was written meanwhile may be stored twice.
/// - A flash that takes no writes and does not say so is noticed at boot. One that begins with that later, for so long that more than
///   8,192 numbers are used, and ends with it at the reset, is not noticed: then numbers may be used twice.
///
/// When the power has failed again and again while everything was written anew, there is no room left for that. Then nothing is
/// written until what is in the flash is settled, and what has a number beyond those 8,192 waits. What was dropped meanwhile may
/// come back.
///
/// # What it costs
/// An acknowledgement costs no write. While the gateway answers within the delay, nothing is written but one item after
/// 4,096 readings (after 8,192 what is new waits for that); while it does not, one item (a page's program operations for it) every delay, with as many readings as
/// fit, each with its topic, key, data and eight bytes; when the waiting ones have been settled, one; and one or two at
/// boot. Pages are used in turn, so all wear equally; no word is programmed twice, so any flash will do.
///
/// # Bounds
/// The range has to hold what the outbox can hold twice, and a page more: then it is never full, and what is dropped is for
/// the [policies](crate::Policy) of the outbox. An item that cannot be read is left out and counted.
///
/// ```
/// use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
/// use embedded_storage_async::nor_flash::NorFlash;
/// use longwire_embassy::core::rand_core::CryptoRng;
/// use longwire_embassy::{Outbox, Policy, Storage, StorageConfig};
///
/// static OUTBOX: Outbox<CriticalSectionRawMutex, 2048> = Outbox::new(Policy::DropOldest);
///
/// /// A task of its own. The uplink and whoever reports begin when it says so.
/// async fn keep(flash: impl NorFlash, rng: &mut impl CryptoRng, begin: impl FnOnce()) {
///     let opened = Storage::<_, _, 2048, 512>::open(flash, 0..0x8000, &OUTBOX, rng, StorageConfig::new()).await;
///     begin();
///     if let Ok(mut storage) = opened {
///         storage.run(|counts| assert_eq!(counts.errors, 0, "the flash takes no writes")).await;
///     }
/// }
/// ```
pub struct Storage<'o, F: NorFlash, M: RawMutex, const BYTES: usize, const ITEM: usize> {
    queue: Queue<F>,
    outbox: &'o Outbox<M, BYTES>,
    config: StorageConfig,
    item: [u8; ITEM],
    incarnation: u64,
    /// Who goes on when the flash takes no writes. It is never written.
    successor: u64,
    /// Of the next item.
    seq: u32,
    /// The first item that is of interest.
    from: u32,
    /// Bytes of the items since then.
    used: usize,
    /// Beyond so many everything is written anew.
    limit: usize,
    /// So many are never exceeded: the next item would take the place of the first.
    total: usize,
    /// The last reading that was written.
    last: u64,
    /// As the last item says. Numbers that are no more than `JUMP` above the newest may be sent.
    settled: u64,
    newest: u64,
    /// Nobody knows what is in the flash: the last write failed.
    anew: bool,
    /// The flash says that it wrote, and did not.
    deaf: bool,
    counts: StorageCounts,
}

type Queue<F> = QueueStorage<F, Cache<Uncached, Uncached, Uncached>>;
type FlashError<F> = sequential_storage::Error<<F as embedded_storage_async::nor_flash::ErrorType>::Error>;

impl<'o, F: NorFlash, M: RawMutex, const BYTES: usize, const ITEM: usize> Storage<'o, F, M, BYTES, ITEM> {
    /// Bytes of readings that fit an item in any case.
    const READINGS: usize = {
        assert!(ITEM.is_multiple_of(32), "the flash wants whole words");
        assert!(ITEM >= HEAD + MAX_GONE * RANGE + 64, "an item is too small for a reading");
        ITEM - HEAD - MAX_GONE * RANGE
    };

    /// Puts what the flash holds into the outbox. `rng` draws the incarnation of a device that is new, and of one whose flash
    /// takes no writes.
    ///
    /// It writes an item, and so wants to be called after a reset only. While its future runs nobody else uses the
    /// outbox. Dropped, it is a reset.
    ///
    /// # Errors
    /// [`OpenError`]; the outbox can be used without a storage then, unless it is in use.
    pub async fn open(
        flash: F,
        range: Range<u32>,
        outbox: &'o Outbox<M, BYTES>,
        rng: &mut impl CryptoRng,
        config: StorageConfig,
    ) -> Result<Self, OpenError<F::Error>> {
        if outbox.is_used() {
            return Err(OpenError::InUse);
        }
        let (limit, total) = Self::limits(&range).ok_or(OpenError::TooSmall)?;
        let queue_config = QueueConfig::try_new(range).map_err(|error| match error {
            QueueConfigError::RangeTooSmall => OpenError::TooSmall,
            _ => OpenError::BadRange,
        })?;
        let mut storage = Self {
            queue: QueueStorage::new(flash, queue_config, Cache::new_uncached()),
            outbox,
            config,
            item: [0; ITEM],
            incarnation: rng.next_u64(),
            successor: rng.next_u64(),
            seq: 0,
            from: 0,
            used: 0,
            limit,
            total,
            last: 0,
            settled: 0,
            newest: 0,
            anew: false,
            deaf: false,
            counts: StorageCounts::default(),
        };
        match storage.restore().await {
            Ok(()) => storage.resume(),
            Err(sequential_storage::Error::Storage { value, .. }) => {
                // Nobody will write down which numbers are used: so they are not those of the flash.
                outbox.unrestore();
                return Err(OpenError::Flash(value));
            }
            Err(_) => {
                storage.resume();
                storage.begin_anew().await;
            }
        }
        let known = storage.newest;
        storage.write().await;
        if !storage.anew && !storage.is_found().await {
            storage.begin_anew().await;
            storage.write().await;
            if !storage.anew && !storage.is_found().await {
                (storage.deaf, storage.newest) = (true, known);
                storage.write().await;
            }
        }
        Ok(storage)
    }

    /// Whether what was written last can be found again: what the flash held may have been no queue. If it cannot be read now,
    /// it may be later.
    async fn is_found(&mut self) -> bool {
        match self.look().await {
            Ok((newest, _)) => newest.is_some_and(|head| head.seq.wrapping_add(1) == self.seq),
            Err(error) => matches!(error, sequential_storage::Error::Storage { .. }),
        }
    }

    /// How many bytes of items there may be before everything is written anew, and at all.
    fn limits(range: &Range<u32>) -> Option<(usize, usize)> {
        let pages = usize::try_from(range.end.checked_sub(range.start)?).ok()?.checked_div(F::ERASE_SIZE)?;
        // The end of a page may be too short for an item.
        let words = 2 * F::WRITE_SIZE.max(F::READ_SIZE);
        let usable = F::ERASE_SIZE.checked_sub(words + ITEM + OVERHEAD)?;
        // Of two items in a row one is more than half full.
        let items = (2 * BYTES).div_ceil(Self::READINGS).checked_add(2)?;
        let anew = items.checked_mul(ITEM + OVERHEAD)?;
        let total = pages.checked_sub(1)?.checked_mul(usable)?;
        let limit = total.checked_sub(anew)?;
        (limit >= anew).then_some((limit, total))
    }

    /// What it has done so far.
    pub const fn counts(&self) -> StorageCounts {
        self.counts
    }

    /// Writes what has to be written, for ever, and tells `observe` after each write what it has done so far. Dropped in the
    /// middle of a write, it is as if the power had failed.
    pub async fn run(&mut self, mut observe: impl FnMut(StorageCounts)) {
        loop {
            self.outbox.changed().await;
            if !self.is_due() {
                continue;
            }
            let outbox = self.outbox;
            let wanted = async {
                while !outbox.is_wanted() {
                    outbox.changed().await;
                }
            };
            let delay = Timer::at(after(self.config.delay));
            // What failed fails again, so nobody asks for it at once.
            if self.anew {
                delay.await;
            } else {
                select(delay, wanted).await;
            }
            if self.is_due() {
                self.write().await;
                observe(self.counts);
            }
        }
    }

    /// Writes at once what has to be written: before a reset that was planned.
    pub async fn keep(&mut self) {
        if self.is_due() {
            self.write().await;
        }
    }

    /// Gives the flash back.
    pub fn into_flash(self) -> F {
        self.queue.destroy().0
    }

    /// Every reading up to this number is settled.
    fn settled(&self) -> u64 {
        let first = self.outbox.first_after(0, |n, _| n);
        first.map_or_else(|| self.outbox.newest(), |n| n.saturating_sub(1))
    }

    fn is_due(&self) -> bool {
        let settled = self.settled();
        let waits = self.last > self.settled;
        let news = self.outbox.first_after(self.last, |_, _| ()).is_some();
        let all_settled = waits && settled >= self.last;
        let used = self.outbox.newest() >= self.newest.saturating_add(USED);
        self.outbox.is_wanted() || self.anew || news || all_settled || used
    }

    /// Writes what is new; or everything, when the flash is due for that.
    async fn write(&mut self) {
        let broken = if self.deaf {
            Some(true)
        } else {
            let failed = self.try_write().await.err();
            failed.map(|error| !matches!(error, sequential_storage::Error::FullStorage))
        };
        // What is above has to be written down first: after a reset the numbers go on there.
        let used = self.newest.saturating_add(JUMP);
        match broken {
            None => {
                let waits = self.last > self.settled;
                let gate = if waits { used.min(self.settled.saturating_add(AHEAD)) } else { used };
                self.outbox.open_gate(gate);
            }
            Some(broken) => {
                self.counts.errors = self.counts.errors.wrapping_add(1);
                self.anew = true;
                // A device with a broken flash still reports. One that is full is written when its readings are settled.
                self.outbox.give_up(used, broken.then_some(Incarnation(self.successor)));
            }
        }
    }

    async fn try_write(&mut self) -> Result<(), FlashError<F>> {
        let reported = self.outbox.counts().reported;
        let end = self.outbox.newest();
        let mut gone = self.outbox.take_gone();
        self.anew |= gone.more || self.used >= self.limit;
        // Then nothing that is in the flash is of interest.
        let all_settled = self.settled() >= self.last;
        self.anew |= all_settled;
        let anew = self.anew;
        let first = self.seq;
        let mut last = if anew { 0 } else { self.last };
        let mut written = 0usize;
        loop {
            let settled = self.settled();
            let mut writer = Writer::new(&mut self.item, core::mem::take(&mut gone));
            while let Some((n, fits)) =
                self.outbox.first_after(last, |n, reading| (n, n <= end && writer.add(n, &reading)))
            {
                if !fits && (n > end || writer.last().is_some()) {
                    break;
                }
                if !fits {
                    self.counts.too_large = self.counts.too_large.wrapping_add(1);
                }
                last = n;
            }
            last =
                last.max(self.outbox.first_after(last, |n, _| n.saturating_sub(1)).unwrap_or(end).min(end));
            let done = last >= end;
            self.outbox.set_stored(last);
            let from = if anew && done { first } else { self.from };
            let (incarnation, newest) = (self.incarnation, self.outbox.newest());
            let head = Head { seq: self.seq, from, incarnation, newest, settled, before: 0 };
            let item = writer.finish(head);
            let len = item.len() + OVERHEAD;
            // The power has failed again and again while everything was written anew: what is there is not risked.
            if !all_settled && self.used.saturating_add(len) > self.total {
                return Err(sequential_storage::Error::FullStorage);
            }
            push(&mut self.queue, item).await?;
            written = written.saturating_add(len);
            self.used = self.used.saturating_add(len);
            self.counts.writes = self.counts.writes.wrapping_add(1);
            self.seq = self.seq.wrapping_add(1);
            (self.settled, self.newest) = (settled, newest);
            if done {
                (self.from, self.last, self.counts.kept) = (from, last, reported);
                if anew {
                    self.used = written;
                }
                self.anew = false;
                return Ok(());
            }
        }
    }

    /// Reads what is there, and puts it into the outbox.
    async fn restore(&mut self) -> Result<(), FlashError<F>> {
        let (newest, damaged) = self.look().await?;
        self.counts.damaged = damaged;
        let Some(newest) = newest else { return Ok(()) };
        (self.incarnation, self.from, self.seq) =
            (newest.incarnation, newest.from, newest.seq.wrapping_add(1));
        (self.settled, self.newest) = (newest.settled, newest.newest);
        let mut items = self.queue.iter().await?;
        while let Some(entry) = items.next(&mut self.item).await? {
            let Some((head, gone, readings)) = item::read(&entry) else { continue };
            if head.incarnation != self.incarnation
                || head.seq.wrapping_sub(self.from) > newest.seq.wrapping_sub(self.from)
            {
                continue;
            }
            self.used = self.used.saturating_add(entry.len() + OVERHEAD);
            self.outbox.forget(&gone);
            for (n, reading) in readings.filter(|(n, _)| *n > newest.settled) {
                // What was written anew, and not to its end, is there twice.
                if n > self.last {
                    self.last = n;
                    if self.outbox.restore(n, reading).is_err() {
                        self.counts.homeless = self.counts.homeless.wrapping_add(1);
                    }
                }
            }
        }
        Ok(())
    }

    /// Goes on behind all numbers that may have been used.
    fn resume(&mut self) {
        self.counts.restored = self.outbox.counts().waiting;
        self.newest = self.newest.max(self.last);
        let used = if self.seq > 0 { self.newest.saturating_add(JUMP) } else { 0 };
        self.outbox.resume(Incarnation(self.incarnation), used);
    }

    /// The head of the newest item, and how many there must have been that cannot be read.
    async fn look(&mut self) -> Result<(Option<Head>, u32), FlashError<F>> {
        let (mut newest, mut damaged) = (None::<Head>, 0u32);
        let mut items = self.queue.iter().await?;
        while let Some(entry) = items.next(&mut self.item).await? {
            let missing = match (item::read(&entry), newest) {
                (Some((head, ..)), Some(before)) => head.seq.wrapping_sub(before.seq).saturating_sub(1),
                (Some(_), None) => 0,
                (None, _) => 1,
            };
            newest = item::read(&entry).map(|(head, ..)| head).or(newest);
            damaged = damaged.saturating_add(missing);
        }
        Ok((newest, damaged))
    }

    /// The flash holds what nobody can read.
    async fn begin_anew(&mut self) {
        self.counts.damaged = self.counts.damaged.saturating_add(1);
        if self.queue.erase_all().await.is_err() {
            self.counts.errors = self.counts.errors.wrapping_add(1);
        }
        self.anew = true;
    }
}

/// Appends an item; the oldest page goes for it, in which there is nothing of interest. A flash that was changed so that it
/// is no queue any more is erased.
async fn push<F: NorFlash>(queue: &mut Queue<F>, item: &[u8]) -> Result<(), FlashError<F>> {
    match queue.push(item, true).await {
        Err(sequential_storage::Error::Corrupted { .. }) => {
            queue.erase_all().await?;
            queue.push(item, true).await
        }
        pushed => pushed,
    }
}
