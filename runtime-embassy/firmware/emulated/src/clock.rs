//! Time for `embassy-time`, in milliseconds, without a periodic tick: such an interrupt would lose time whenever the
//! emulator's host is busy.

use core::cell::RefCell;
use core::task::Waker;

use critical_section::{CriticalSection, Mutex};
use embassy_time_driver::Driver;
use embassy_time_queue_utils::Queue;

/// What a board has to tell the time, and to interrupt when it has come. Its registers are used with interrupts masked.
pub trait Timer {
    /// Milliseconds since the start.
    fn now(&mut self) -> u64;

    /// Interrupts at this time, or at once when it is over, instead of whatever it was set to: or earlier, for then it is set
    /// again. `now` is what was read a moment ago.
    fn set(&mut self, now: u64, at: u64);
}

/// The clock of a board; `embassy_time_driver::time_driver_impl!` makes it that of the whole program.
pub struct Clock<T>(Mutex<RefCell<State<T>>>);

struct State<T> {
    timer: T,
    queue: Queue,
}

impl<T: Timer> State<T> {
    /// Wakes what is due, and sets the timer for what comes next.
    fn arm(&mut self) {
        let now = self.timer.now();
        let next = self.queue.next_expiration(now);
        self.timer.set(now, next);
    }
}

impl<T: Timer> Clock<T> {
    /// A clock that does not run yet.
    pub const fn new(timer: T) -> Self {
        Self(Mutex::new(RefCell::new(State { timer, queue: Queue::new() })))
    }

    /// Starts it, once the timer runs; or to be called by the timer's interrupt.
    pub fn on_interrupt(&self) {
        self.lock(State::arm);
    }

    /// Works on the timer.
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        self.lock(|state| work(&mut state.timer))
    }

    fn lock<R>(&self, work: impl FnOnce(&mut State<T>) -> R) -> R {
        critical_section::with(|cs: CriticalSection<'_>| work(&mut self.0.borrow_ref_mut(cs)))
    }
}

impl<T: Timer + Send + 'static> Driver for Clock<T> {
    fn now(&self) -> u64 {
        self.with(T::now)
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        self.lock(|state| {
            if state.queue.schedule_wake(at, waker) {
                state.arm();
            }
        });
    }
}
