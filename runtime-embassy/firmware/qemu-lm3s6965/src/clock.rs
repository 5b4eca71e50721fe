//! The board's time: SysTick runs freely, and its interrupt counts how often its 24 bits wrapped (every 1.3 s); a one-shot
//! timer interrupts.

use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{SCB, SYST};
use cortex_m_rt::exception;
use embassy_time_driver::time_driver_impl;
use longwire_emulated::clock::{Clock, Timer};

/// Number of the one-shot timer's interrupt (GPTM 0, timer A).
pub const IRQ: u16 = 19;

/// Cycles of the 12.5 MHz clock in a millisecond.
const CYCLES: u32 = 12_500;

/// The longest that the one-shot timer can count, in milliseconds.
const LONGEST: u64 = (u32::MAX / CYCLES) as u64;

/// SysTick counts down from here to zero. A cycle later it is here again.
const RELOAD: u32 = (1 << 24) - 1;

/// General-purpose timer 0: configuration, mode of timer A, control, interrupt mask and clear, and where it begins.
const CONFIG: *mut u32 = 0x4003_0000 as *mut u32;
const MODE: *mut u32 = 0x4003_0004 as *mut u32;
const CONTROL: *mut u32 = 0x4003_000c as *mut u32;
const INTERRUPT_MASK: *mut u32 = 0x4003_0018 as *mut u32;
const INTERRUPT_CLEAR: *mut u32 = 0x4003_0024 as *mut u32;
const LOAD: *mut u32 = 0x4003_0028 as *mut u32;
const ONE_SHOT: u32 = 1;
const ENABLE: u32 = 1;
const TIME_OUT: u32 = 1;

/// Run mode clock gating (RCGC1): bit 16 is timer 0.
const CLOCK_GATES: *mut u32 = 0x400f_e104 as *mut u32;

struct Lm3s6965 {
    /// How often SysTick wrapped.
    wraps: u64,
}

time_driver_impl!(static CLOCK: Clock<Lm3s6965> = Clock::new(Lm3s6965 { wraps: 0 }));

impl Timer for Lm3s6965 {
    fn now(&mut self) -> u64 {
        let count = SYST::get_current();
        // A wrap that nobody counted yet, for interrupts are masked here: then the count is read again, behind it.
        let (wraps, count) = match SCB::is_pendst_pending() {
            true => (self.wraps + 1, SYST::get_current()),
            false => (self.wraps, count),
        };
        // The wrap is counted when it reaches zero, so that is where a round begins: RELOAD is one cycle behind it.
        let elapsed = count.wrapping_neg() & RELOAD;
        (wraps * u64::from(RELOAD + 1) + u64::from(elapsed)) / u64::from(CYCLES)
    }

    fn set(&mut self, now: u64, at: u64) {
        let wait = at.saturating_sub(now).clamp(1, LONGEST) as u32;
        // SAFETY: registers of the timer, which nobody else uses.
        unsafe {
            CONTROL.write_volatile(0);
            INTERRUPT_CLEAR.write_volatile(TIME_OUT);
            LOAD.write_volatile(wait * CYCLES);
            CONTROL.write_volatile(ENABLE);
        }
    }
}

/// Starts the clock at zero. Call it once, before anything waits.
pub fn start(mut systick: SYST) {
    systick.set_clock_source(SystClkSource::Core);
    systick.set_reload(RELOAD);
    systick.clear_current();
    systick.enable_counter();
    systick.enable_interrupt();
    // SAFETY: registers of the timer, before anybody waits for it.
    unsafe {
        CLOCK_GATES.write_volatile(CLOCK_GATES.read_volatile() | 1 << 16);
        CONTROL.write_volatile(0);
        // Both halves as one timer of 32 bits.
        CONFIG.write_volatile(0);
        MODE.write_volatile(ONE_SHOT);
        INTERRUPT_MASK.write_volatile(TIME_OUT);
    }
    on_interrupt();
}

/// To be called by the timer's interrupt.
pub fn on_interrupt() {
    CLOCK.on_interrupt();
}

#[exception]
fn SysTick() {
    CLOCK.with(|timer| timer.wraps += 1);
}
