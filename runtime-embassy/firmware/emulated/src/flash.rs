//! A NOR flash whose content is a file of the host's: to kill the emulator is a power cut.

use core::fmt;
use core::ops::Range;

use embassy_time::Timer;
use embedded_storage_async::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};

use crate::fail;
use crate::host::File;

/// What is programmed at a time, and no second time before its page is erased: as a flash with error correction wants it.
const WORD: usize = 4;
/// What is erased at a time.
const PAGE: usize = 4096;
const PAGES: usize = 6;

/// How long a word or a page takes at least, in milliseconds: so long that the power fails in the middle now and then.
const BUSY_MS: u64 = 1;

/// The flash.
pub struct Flash(File);

impl Flash {
    /// The flash that this file is; a new one is erased. And where the readings are: everywhere.
    pub fn open(path: &str) -> (Self, Range<u32>) {
        let Some(mut file) = File::open(path) else { fail(format_args!("no file {path}")) };
        for page in (file.size() / PAGE)..PAGES {
            if !file.write(page * PAGE, &[0xff; PAGE]) {
                fail(format_args!("{path} cannot be written"));
            }
        }
        (Self(file), 0..(PAGES * PAGE) as u32)
    }
}

/// The host's file is out of reach, or a range is outside of it.
#[derive(Debug)]
pub struct FlashError;

impl NorFlashError for FlashError {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl fmt::Display for FlashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the flash's file is out of reach")
    }
}

impl ErrorType for Flash {
    type Error = FlashError;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        self.0.read(offset as usize, bytes).then_some(()).ok_or(FlashError)
    }

    fn capacity(&self) -> usize {
        PAGES * PAGE
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    /// By halves, so that one may be left.
    async fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        const HALF: usize = PAGE / 2;
        for half in (from as usize..to as usize).step_by(HALF) {
            Timer::after_millis(BUSY_MS).await;
            self.0.write(half, &[0xff; HALF]).then_some(()).ok_or(FlashError)?;
        }
        Ok(())
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        let (words, rest) = bytes.as_chunks::<WORD>();
        if !rest.is_empty() || !(offset as usize).is_multiple_of(WORD) {
            fail(format_args!("half a word of the flash is programmed"));
        }
        for (at, word) in (offset as usize..).step_by(WORD).zip(words) {
            let mut before = [0; WORD];
            self.0.read(at, &mut before).then_some(()).ok_or(FlashError)?;
            if before != [0xff; WORD] {
                fail(format_args!("a word of the flash is programmed twice, at {at}"));
            }
            Timer::after_millis(BUSY_MS).await;
            self.0.write(at, word).then_some(()).ok_or(FlashError)?;
        }
        Ok(())
    }
}
