//! What any program has that waits: embassy's executor and its timers, with a task.
#![no_std]
#![no_main]

use embassy_time::Timer;
use longwire_footprint::{any, run};

#[embassy_executor::task]
async fn wait() {
    loop {
        Timer::after_millis(any()).await;
    }
}

#[unsafe(no_mangle)]
extern "C" fn main() {
    run(|spawner| {
        if let Ok(task) = wait() {
            spawner.spawn(task);
        }
    })
}
