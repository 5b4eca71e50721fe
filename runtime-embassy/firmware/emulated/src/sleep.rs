//! The executor's loop.
//!
//! embassy's own executors sleep by WFE on Arm, from which the emulator returns at once: they would keep a core of the
//! host busy. This one sleeps by WFI, and counts how often it was woken.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use embassy_executor::{SpawnError, SpawnToken, Spawner, raw};
use static_cell::StaticCell;

use crate::fail;

/// Set when a task has to be polled.
static WOKEN: AtomicBool = AtomicBool::new(false);

static WAKEUPS: AtomicU32 = AtomicU32::new(0);

/// How often an interrupt has ended the processor's sleep.
pub fn wakeups() -> u32 {
    WAKEUPS.load(Ordering::Relaxed)
}

#[unsafe(export_name = "__pender")]
fn wake(_: *mut ()) {
    WOKEN.store(true, Ordering::SeqCst);
}

/// Runs the task that `begin` gives, and those that it spawns, for ever. To be called once.
pub fn run<S>(begin: impl FnOnce(Spawner) -> Result<SpawnToken<S>, SpawnError>) -> ! {
    static EXECUTOR: StaticCell<raw::Executor> = StaticCell::new();
    let executor: &'static raw::Executor = EXECUTOR.init(raw::Executor::new(core::ptr::null_mut()));
    let spawner = executor.spawner();
    spawn(spawner, begin(spawner));
    loop {
        // SAFETY: the one place that polls it, and never from inside itself.
        unsafe { executor.poll() };
        // An interrupt ends WFI even while it is masked, so none is slept through between the look and the sleep.
        critical_section::with(|_| {
            if !WOKEN.swap(false, Ordering::SeqCst) {
                wait_for_interrupt();
                // The only writer, and there is one processor.
                WAKEUPS.store(wakeups().wrapping_add(1), Ordering::Relaxed);
            }
        });
    }
}

/// Begins a task, which there is once.
pub(crate) fn spawn<S>(spawner: Spawner, task: Result<SpawnToken<S>, SpawnError>) {
    match task {
        Ok(task) => spawner.spawn(task),
        Err(_) => fail(format_args!("no room for a task")),
    }
}

fn wait_for_interrupt() {
    // SAFETY: it sleeps, and touches nothing.
    unsafe { core::arch::asm!("wfi", options(nomem, nostack, preserves_flags)) };
}
