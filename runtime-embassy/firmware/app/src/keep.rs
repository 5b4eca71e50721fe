//! Readings that outlive a reset.

use core::cell::RefCell;
use core::convert::Infallible;
use core::fmt;
use core::future::pending;
use core::ops::Range;

use embassy_sync::blocking_mutex::raw::RawMutex;
use embassy_time::Duration;
use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use longwire_embassy::{OpenError, Storage, StorageConfig, StorageCounts};

use crate::Settings;

/// Bytes that are written at a time, with as many readings as fit.
const ITEM: usize = 512;

/// What keeps the readings of an outbox, or why nothing does; `None` on a board without a flash for that.
pub(crate) type Kept<'o, F, M, const BYTES: usize> =
    Option<Result<Storage<'o, F, M, BYTES, ITEM>, OpenError<<F as ErrorType>::Error>>>;

/// As the settings say.
pub(crate) fn config(settings: &Settings<'_>) -> StorageConfig {
    let mut config = StorageConfig::new();
    if let Some(keep) = settings.keep {
        config.delay = Duration::from_millis(keep.as_millis() as u64);
    }
    config
}

/// Writes down what has to be, for ever.
pub(crate) async fn keep<F: NorFlash, M: RawMutex, const BYTES: usize>(
    kept: &mut Kept<'_, F, M, BYTES>,
    log: &RefCell<impl FnMut(fmt::Arguments<'_>)>,
) -> Infallible {
    let say = |counts: StorageCounts| log.borrow_mut()(format_args!("flash: {counts:?}"));
    match kept {
        Some(Ok(storage)) => {
            say(storage.counts());
            storage.run(say).await;
        }
        // No reason not to report.
        Some(Err(why)) => log.borrow_mut()(format_args!("nothing outlives a reset: {why}")),
        None => {}
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
