//! Time for `embassy-time`, in milliseconds, without a periodic tick.
//!
//! The board's free-running counter says what time it is; a one-shot timer wakes for the next deadline. A periodic
//! interrupt would lose time whenever the emulator's host is busy.

use core::cell::RefCell;
use core::task::Waker;

use critical_section::{CriticalSection, Mutex};
use embassy_time_driver::Driver;
use embassy_time_queue_utils::Queue;

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

struct Clock(Mutex<RefCell<State>>);

struct State {
    /// The last time read, extended to 64 bits.
    now: u64,
    queue: Queue,
}

embassy_time_driver::time_driver_impl!(static CLOCK: Clock = Clock(Mutex::new(RefCell::new(State {
    now: 0,
    queue: Queue::new(),
}))));

impl State {
    fn now(&mut self) -> u64 {
        // SAFETY: a register of the board that reading does not change.
        let counter = unsafe { COUNTER.read_volatile() };
        // Only what went by since the last reading is added, modulo 2^32 (the cast takes the lower half).
        self.now += u64::from(counter.wrapping_sub(self.now as u32));
        self.now
    }

    /// Wakes what is due, and sets the timer for what comes next.
    fn arm(&mut self) {
        let now = self.now();
        let next = self.queue.next_expiration(now);
        let wait = next.saturating_sub(now).clamp(1, LONGEST) as u32;
        // SAFETY: registers of the timer, which nobody else uses; we are in a critical section.
        unsafe {
            CONTROL.write_volatile(0);
            INTERRUPT_CLEAR.write_volatile(1);
            RELOAD.write_volatile(0);
            VALUE.write_volatile(wait * CYCLES);
            CONTROL.write_volatile(ENABLE_WITH_INTERRUPT);
        }
    }
}

impl Clock {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        critical_section::with(|cs: CriticalSection<'_>| f(&mut self.0.borrow_ref_mut(cs)))
    }
}

impl Driver for Clock {
    fn now(&self) -> u64 {
        self.with(State::now)
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        self.with(|state| {
            if state.queue.schedule_wake(at, waker) {
                state.arm();
            }
        });
    }
}

/// Starts the clock at zero. Call it once, before anything waits.
pub fn start() {
    // SAFETY: registers of the counter, before anybody reads it.
    unsafe {
        PRESCALE.write_volatile(CYCLES - 1);
        COUNTER.write_volatile(0);
    }
    CLOCK.with(State::arm);
}

/// To be called by the timer's interrupt.
pub fn on_interrupt() {
    CLOCK.with(State::arm);
}
