//! A flash that keeps what it holds while the device has no power.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};

const PAGE: usize = 4096;
const PAGES: usize = 12;

/// All of it.
pub(crate) const RANGE: std::ops::Range<u32> = 0..(PAGE * PAGES) as u32;

/// NOR flash: writing clears bits, erasing sets those of a page.
#[derive(Clone)]
pub(crate) struct Flash(Rc<RefCell<Vec<u8>>>);

impl Flash {
    pub(crate) fn new() -> Self {
        Self(Rc::new(RefCell::new(vec![0xff; PAGE * PAGES])))
    }
}

impl ErrorType for Flash {
    type Error = Infallible;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.copy_from_slice(&self.0.borrow()[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        PAGE * PAGES
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = PAGE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), Infallible> {
        self.0.borrow_mut()[from as usize..to as usize].fill(0xff);
        Ok(())
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Infallible> {
        let mut flash = self.0.borrow_mut();
        for (byte, new) in flash[offset as usize..].iter_mut().zip(bytes) {
            *byte &= new;
        }
        Ok(())
    }
}
