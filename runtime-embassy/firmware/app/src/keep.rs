//! Readings that outlive a reset.

use core::cell::RefCell;
use core::convert::Infallible;
use core::fmt;
use core::future::pending;
use core::ops::Range;

use embassy_sync::blocking_mutex::raw::RawMutex;
use embassy_time::Duration;
use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use longwire_embassy::core::rand_core::CryptoRng;
use longwire_embassy::{Outbox, Storage, StorageConfig};

use crate::Settings;

/// Bytes that are written at a time, with as many readings as fit.
const ITEM: usize = 512;

/// What keeps the readings of an outbox, if the board has something for that.
pub(crate) type Kept<'o, F, M, const BYTES: usize> = Option<Storage<'o, F, M, BYTES, ITEM>>;

/// Puts what the flash holds into the outbox: before anybody reports to it, or sends. A flash that is of no use is no reason
/// not to report.
pub(crate) async fn open<'o, F: NorFlash, M: RawMutex, const BYTES: usize>(
    flash: Option<(F, Range<u32>)>,
    outbox: &'o Outbox<M, BYTES>,
    settings: &Settings<'_>,
    rng: &mut impl CryptoRng,
    log: &mut impl FnMut(fmt::Arguments<'_>),
) -> Kept<'o, F, M, BYTES> {
    let (flash, range) = flash?;
    let mut config = StorageConfig::new();
    if let Some(keep) = settings.keep {
        config.delay = Duration::from_millis(keep.as_millis() as u64);
    }
    match Storage::open(flash, range, outbox, rng, config).await {
        Ok(storage) => {
            log(format_args!("flash: {:?}", storage.counts()));
            Some(storage)
        }
        Err(why) => {
            log(format_args!("nothing outlives a reset: {why}"));
            None
        }
    }
}

/// Writes down what has to be, for ever.
pub(crate) async fn keep<F: NorFlash, M: RawMutex, const BYTES: usize>(
    kept: &mut Kept<'_, F, M, BYTES>,
    log: &RefCell<impl FnMut(fmt::Arguments<'_>)>,
) -> Infallible {
    if let Some(storage) = kept {
        storage.run(|counts| log.borrow_mut()(format_args!("flash: {counts:?}"))).await;
    }
    pending().await
}

/// The flash of a board that has none for readings. There is no such value, so no code is needed for it.
#[derive(Clone, Copy, Debug)]
pub enum NoFlash {}

impl NoFlash {
    /// What such a board gives to [`run`](crate::run).
    pub const NONE: Option<(Self, Range<u32>)> = None;
}

impl ErrorType for NoFlash {
    type Error = Infallible;
}

impl ReadNorFlash for NoFlash {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, _: u32, _: &mut [u8]) -> Result<(), Infallible> {
        match *self {}
    }

    fn capacity(&self) -> usize {
        match *self {}
    }
}

impl NorFlash for NoFlash {
    const WRITE_SIZE: usize = 1;
    const ERASE_SIZE: usize = 4096;

    async fn erase(&mut self, _: u32, _: u32) -> Result<(), Infallible> {
        match *self {}
    }

    async fn write(&mut self, _: u32, _: &[u8]) -> Result<(), Infallible> {
        match *self {}
    }
}
