//! The clock of a story: it stands still until the story moves it. Each thread has its own, so stories run beside each
//! other.

use std::cell::Cell;
use std::task::Waker;

use embassy_time_driver::{Driver, TICK_HZ, time_driver_impl};

const _: () = assert!(TICK_HZ == 1_000_000, "a tick is a microsecond");

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
    static ALARM: Cell<u64> = const { Cell::new(u64::MAX) };
}

struct Virtual;

impl Driver for Virtual {
    fn now(&self) -> u64 {
        NOW.get()
    }

    /// Nobody is woken by it: whoever polls asks for [`alarm`] afterwards, and polls again then.
    fn schedule_wake(&self, at: u64, _waker: &Waker) {
        ALARM.set(ALARM.get().min(at));
    }
}

time_driver_impl!(static DRIVER: Virtual = Virtual);

/// Microseconds since the story began.
pub(crate) fn now() -> u64 {
    NOW.get()
}

/// Moves the clock. It only stands at 0 again when a new story begins.
pub(crate) fn set(now: u64) {
    NOW.set(now);
}

/// Runs `poll`, and says for when it set the earliest of its timers. Timers are set anew each time their future is
/// polled, so what is left from an earlier time does not count.
pub(crate) fn alarm<T>(poll: impl FnOnce() -> T) -> (T, u64) {
    ALARM.set(u64::MAX);
    let output = poll();
    (output, ALARM.get())
}
