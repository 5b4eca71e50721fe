//! Time for `embassy-time`, in milliseconds, without a periodic tick: by the machine's timer (the CLINT of the RISC-V
//! privileged architecture), which counts 10 MHz and interrupts when it has reached a number.

use core::cell::RefCell;
use core::task::Waker;

use critical_section::{CriticalSection, Mutex};
use embassy_time_driver::Driver;
use embassy_time_queue_utils::Queue;

/// Counts of the timer in a millisecond.
const COUNTS: u64 = 10_000;

/// The counter, and what it is compared with: two words each.
const TIME: *const u32 = 0x0200_bff8 as *const u32;
const COMPARE: *mut u32 = 0x0200_4000 as *mut u32;

struct Clock(Mutex<RefCell<Queue>>);

embassy_time_driver::time_driver_impl!(static CLOCK: Clock = Clock(Mutex::new(RefCell::new(Queue::new()))));

impl Clock {
    fn with<T>(&self, f: impl FnOnce(&mut Queue) -> T) -> T {
        critical_section::with(|cs: CriticalSection<'_>| f(&mut self.0.borrow_ref_mut(cs)))
    }
}

/// Wakes what is due, and sets the timer for what comes next.
fn arm(queue: &mut Queue) {
    let next = queue.next_expiration(now());
    let [low, high] = words(next.saturating_mul(COUNTS));
    // SAFETY: registers that nobody else uses; we are in a critical section. The upper word is largest meanwhile, so that
    // no number in between is ever reached.
    unsafe {
        COMPARE.add(1).write_volatile(u32::MAX);
        COMPARE.write_volatile(low);
        COMPARE.add(1).write_volatile(high);
    }
}

fn words(number: u64) -> [u32; 2] {
    [number as u32, (number >> 32) as u32]
}

fn now() -> u64 {
    loop {
        // SAFETY: registers that reading does not change.
        let [high, low, again] =
            unsafe { [TIME.add(1).read_volatile(), TIME.read_volatile(), TIME.add(1).read_volatile()] };
        if high == again {
            return (u64::from(high) << 32 | u64::from(low)) / COUNTS;
        }
    }
}

impl Driver for Clock {
    fn now(&self) -> u64 {
        now()
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        self.with(|queue| {
            if queue.schedule_wake(at, waker) {
                arm(queue);
            }
        });
    }
}

/// Starts the clock; or to be called by the timer's interrupt.
pub fn on_interrupt() {
    CLOCK.with(arm);
}
