//! A storage that runs beside its outbox, under virtual time.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helper fails the test")]

mod common;

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;

use common::{Numbers, clock, poll_times};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_time::Duration;
use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use longwire_embassy::{Outbox, Policy, Storage, StorageConfig};

const PAGE: usize = 4096;
const PAGES: usize = 6;

type Readings = Outbox<NoopRawMutex, 1024>;
type Kept<'o> = Storage<'o, Flash, NoopRawMutex, 1024, 512>;

/// A flash that counts how often it is written to.
#[derive(Clone)]
struct Flash(Rc<RefCell<(Vec<u8>, usize)>>);

impl ErrorType for Flash {
    type Error = Infallible;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.copy_from_slice(&self.0.borrow().0[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        PAGE * PAGES
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = 8;
    const ERASE_SIZE: usize = PAGE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), Infallible> {
        self.0.borrow_mut().0[from as usize..to as usize].fill(0xff);
        Ok(())
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Infallible> {
        let (flash, writes) = &mut *self.0.borrow_mut();
        *writes += 1;
        for (byte, new) in flash[offset as usize..].iter_mut().zip(bytes) {
            // As flash with error correction wants it.
            assert!(*byte == 0xff, "a byte is written twice");
            *byte = *new;
        }
        Ok(())
    }
}

fn open<'o>(flash: &Flash, outbox: &'o Readings) -> Kept<'o> {
    let range = 0..u32::try_from(PAGE * PAGES).unwrap();
    let mut numbers = Numbers(1);
    let opening = Kept::open(flash.clone(), range, outbox, &mut numbers, StorageConfig::new());
    poll_times(opening, 1).unwrap().unwrap()
}

#[test]
fn what_waits_for_the_delay_is_written_at_once_and_together() {
    let (_guard, clock) = clock();
    let flash = Flash(Rc::new(RefCell::new((vec![0xff; PAGE * PAGES], 0))));
    let outbox = Readings::new(Policy::DropOldest);
    let mut storage = open(&flash, &outbox);
    let opened = flash.0.borrow().1;
    let mut observed = Vec::new();
    {
        let mut run = pin!(storage.run(|counts| observed.push((counts.writes, counts.kept))));
        let mut turn =
            || assert!(poll_times(run.as_mut() as Pin<&mut dyn Future<Output = ()>>, 10).is_none());
        turn();
        for value in 0..10 {
            outbox.reporter().try_report("a", Some("k"), &value).unwrap();
            clock.advance(Duration::from_millis(100));
            turn();
        }
        clock.advance(Duration::from_millis(3999));
        turn();
        assert_eq!(flash.0.borrow().1, opened, "nothing is written before the delay is over");
        clock.advance(Duration::from_millis(101));
        turn();
        let written = flash.0.borrow().1;
        assert!(written > opened);
        // Nothing new, nothing to do.
        clock.advance(Duration::from_secs(3600));
        turn();
        assert_eq!(flash.0.borrow().1, written);
    }
    assert_eq!(observed, [(2, 10)], "as many writes, as many readings kept");
    let after = Readings::new(Policy::DropOldest);
    assert_eq!(open(&flash, &after).counts().restored, 10);
    assert_eq!(after.counts().waiting, 10);
}

#[test]
fn a_planned_reset_loses_nothing() {
    let (_guard, _clock) = clock();
    let flash = Flash(Rc::new(RefCell::new((vec![0xff; PAGE * PAGES], 0))));
    let mut waiting = 0;
    // Each life adds some, until the outbox drops the oldest: then as many as it holds.
    for life in 0..20 {
        let outbox = Readings::new(Policy::DropOldest);
        let mut storage = open(&flash, &outbox);
        assert_eq!(storage.counts().restored, waiting);
        (0..10).for_each(|value| outbox.reporter().try_report("a/b/c", None, &(life * 10 + value)).unwrap());
        assert!(poll_times(storage.keep(), 1).is_some());
        waiting = outbox.counts().waiting;
    }
    assert!(waiting > 50);
}
