//! What longwire takes of a device: the sizes of its state (`STATE`), and, in `bin/`, programs that use one part of
//! it each and are linked to see how much code that is. `tests/sizes` builds them and prints the tables.
#![no_std]

#[cfg(feature = "network")]
pub mod network;
#[cfg(feature = "state")]
mod state;

use embassy_executor::{Spawner, raw};
#[cfg(feature = "state")]
pub use state::STATE;
use static_cell::StaticCell;

/// A generator that holds nothing: the user's own comes on top.
pub struct NoState;

impl longwire_core::rand_core::TryRng for NoState {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(any())
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(any())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        read(bytes);
        Ok(())
    }
}

impl longwire_core::rand_core::TryCryptoRng for NoState {}

/// A number from outside.
pub fn any<T: Copy + Default>() -> T {
    core::hint::black_box(T::default())
}

/// Bytes from outside; says how many.
pub fn read(bytes: &mut [u8]) -> usize {
    core::hint::black_box(bytes);
    any()
}

/// Bytes to the outside; says how many were taken.
pub fn write(bytes: &[u8]) -> usize {
    core::hint::black_box(bytes);
    any()
}

/// Runs what `spawn` spawns.
pub fn run(spawn: impl FnOnce(Spawner)) -> ! {
    static EXECUTOR: StaticCell<raw::Executor> = StaticCell::new();
    let executor: &'static raw::Executor = EXECUTOR.init(raw::Executor::new(core::ptr::null_mut()));
    spawn(executor.spawner());
    loop {
        // SAFETY: the one place that polls it, and never from inside itself.
        unsafe { executor.poll() };
    }
}

#[cfg(target_os = "none")]
mod board {
    use core::task::Waker;

    use super::any;

    #[unsafe(export_name = "__pender")]
    fn wake(_: *mut ()) {
        any::<u32>();
    }

    struct Clock;

    embassy_time_driver::time_driver_impl!(static CLOCK: Clock = Clock);

    impl embassy_time_driver::Driver for Clock {
        fn now(&self) -> u64 {
            any()
        }

        fn schedule_wake(&self, at: u64, waker: &Waker) {
            core::hint::black_box((at, waker));
        }
    }

    struct Section;

    critical_section::set_impl!(Section);

    // SAFETY: these programs are never run.
    unsafe impl critical_section::Impl for Section {
        unsafe fn acquire() -> critical_section::RawRestoreState {
            any()
        }

        unsafe fn release(state: critical_section::RawRestoreState) {
            core::hint::black_box(state);
        }
    }
}

/// A link that is nothing, and how it is opened.
#[cfg(feature = "uplink")]
pub struct Nowhere;

#[cfg(feature = "uplink")]
impl longwire_embassy::Connect for Nowhere {
    type Link<'a> = Nowhere;
    type Error = ();

    async fn connect(&mut self) -> Result<Nowhere, ()> {
        if any::<u8>() == 0 { Ok(Nowhere) } else { Err(()) }
    }
}

#[cfg(feature = "uplink")]
impl longwire_embassy::Link for Nowhere {
    type Error = ();

    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, ()> {
        Ok(read(bytes))
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<usize, ()> {
        Ok(write(bytes))
    }
}

/// A flash that is nothing.
#[cfg(feature = "storage")]
pub struct NoFlash;

#[cfg(feature = "storage")]
impl embedded_storage_async::nor_flash::ErrorType for NoFlash {
    type Error = embedded_storage_async::nor_flash::NorFlashErrorKind;
}

#[cfg(feature = "storage")]
impl embedded_storage_async::nor_flash::ReadNorFlash for NoFlash {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, _: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        read(bytes);
        Ok(())
    }

    fn capacity(&self) -> usize {
        any()
    }
}

#[cfg(feature = "storage")]
impl embedded_storage_async::nor_flash::NorFlash for NoFlash {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = 4096;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        core::hint::black_box((from, to));
        Ok(())
    }

    async fn write(&mut self, _: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        write(bytes);
        Ok(())
    }
}

/// The devices' handler: there is nobody to tell.
#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
