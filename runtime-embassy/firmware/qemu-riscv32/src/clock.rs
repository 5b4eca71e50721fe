//! The machine's time: its timer (the CLINT of the RISC-V privileged architecture) counts 10 MHz and interrupts when it has
//! reached a number.

use embassy_time_driver::time_driver_impl;
use longwire_emulated::clock::{Clock, Timer};

/// Counts of the timer in a millisecond.
const COUNTS: u64 = 10_000;

/// The counter, and what it is compared with: two words each.
const TIME: *const u32 = 0x0200_bff8 as *const u32;
const COMPARE: *mut u32 = 0x0200_4000 as *mut u32;

struct Clint;

time_driver_impl!(static CLOCK: Clock<Clint> = Clock::new(Clint));

impl Timer for Clint {
    fn now(&mut self) -> u64 {
        loop {
            // SAFETY: registers that reading does not change.
            let [high, low, again] =
                unsafe { [TIME.add(1).read_volatile(), TIME.read_volatile(), TIME.add(1).read_volatile()] };
            if high == again {
                return (u64::from(high) << 32 | u64::from(low)) / COUNTS;
            }
        }
    }

    fn set(&mut self, _now: u64, at: u64) {
        let count = at.saturating_mul(COUNTS);
        // SAFETY: registers that nobody else uses. The upper word is largest meanwhile, so that no number in between is ever
        // reached.
        unsafe {
            COMPARE.add(1).write_volatile(u32::MAX);
            COMPARE.write_volatile(count as u32);
            COMPARE.add(1).write_volatile((count >> 32) as u32);
        }
    }
}

/// Starts the clock; or to be called by the timer's interrupt.
pub fn on_interrupt() {
    CLOCK.on_interrupt();
}
