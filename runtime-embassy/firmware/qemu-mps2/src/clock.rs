//! The board's time: a free-running counter says it, and a one-shot timer interrupts.

use embassy_time_driver::time_driver_impl;
use longwire_emulated::clock::{Clock, Timer};

/// Number of the timer's interrupt.
pub const IRQ: u16 = 8;

/// Cycles of the 25 MHz clock in a millisecond.
const CYCLES: u32 = 25_000;

/// The longest that the one-shot timer can count, in milliseconds. It is always armed, so the counter is also read
/// often enough to notice that its 32 bits wrapped (after 49 days).
const LONGEST: u64 = (u32::MAX / CYCLES) as u64;

/// Free-running counter and its divider (AN385, FPGA system control and I/O).
const COUNTER: *mut u32 = 0x4002_8018 as *mut u32;
const PRESCALE: *mut u32 = 0x4002_801c as *mut u32;

/// CMSDK APB timer 0: counts down from VALUE to zero, then on from RELOAD, where zero means stop.
const CONTROL: *mut u32 = 0x4000_0000 as *mut u32;
const VALUE: *mut u32 = 0x4000_0004 as *mut u32;
const RELOAD: *mut u32 = 0x4000_0008 as *mut u32;
const INTERRUPT_CLEAR: *mut u32 = 0x4000_000c as *mut u32;
const ENABLE_WITH_INTERRUPT: u32 = 1 | 1 << 3;

struct Mps2 {
    /// The last time read, extended to 64 bits.
    now: u64,
}

time_driver_impl!(static CLOCK: Clock<Mps2> = Clock::new(Mps2 { now: 0 }));

impl Timer for Mps2 {
    fn now(&mut self) -> u64 {
        // SAFETY: a register of the board that reading does not change.
        let counter = unsafe { COUNTER.read_volatile() };
        // Only what went by since the last reading is added, modulo 2^32 (the cast takes the lower half).
        self.now += u64::from(counter.wrapping_sub(self.now as u32));
        self.now
    }

    fn set(&mut self, now: u64, at: u64) {
        let wait = at.saturating_sub(now).clamp(1, LONGEST) as u32;
        // SAFETY: registers of the timer, which nobody else uses.
        unsafe {
            CONTROL.write_volatile(0);
            INTERRUPT_CLEAR.write_volatile(1);
            RELOAD.write_volatile(0);
            VALUE.write_volatile(wait * CYCLES);
            CONTROL.write_volatile(ENABLE_WITH_INTERRUPT);
        }
    }
}

/// Starts the clock at zero. Call it once, before anything waits.
pub fn start() {
    // SAFETY: registers of the counter, before anybody reads it.
    unsafe {
        PRESCALE.write_volatile(CYCLES - 1);
        COUNTER.write_volatile(0);
    }
    on_interrupt();
}

/// To be called by the timer's interrupt.
pub fn on_interrupt() {
    CLOCK.on_interrupt();
}
