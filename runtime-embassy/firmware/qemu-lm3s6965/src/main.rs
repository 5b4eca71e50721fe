//! longwire on a Stellaris LM3S6965 (Cortex-M3, 256 KiB of flash, 64 KiB of RAM), as QEMU emulates it (machine
//! `lm3s6965evb`).
//!
//! ```text
//! cargo run --release -- port=8080
//! ```
//! See `longwire_firmware::Settings` for the arguments.
#![no_std]
#![no_main]

mod clock;
mod ethernet;

use cortex_m_rt::{entry, exception};
use embassy_executor::Spawner;
use ethernet::Ethernet;
use longwire_emulated::{Runner, cortex, fail, sleep};
use longwire_firmware::stack;

#[embassy_executor::task]
async fn network(mut runner: Runner<Ethernet>) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn application(spawner: Spawner, stack: stack::Stack) -> ! {
    longwire_emulated::run(stack, spawner, Ethernet::start, network).await
}

#[entry]
fn main() -> ! {
    // SAFETY: there is one stack and no heap, and this runs once.
    let stack = unsafe { stack::Stack::paint() };
    let Some(peripherals) = cortex_m::Peripherals::take() else { fail(format_args!("main runs twice")) };
    clock::start(peripherals.SYST);
    cortex::unmask(clock::IRQ);
    sleep::run(|spawner| application(spawner, stack))
}

#[exception]
unsafe fn DefaultHandler(number: i16) {
    match u16::try_from(number) {
        Ok(clock::IRQ) => clock::on_interrupt(),
        Ok(ethernet::IRQ) => ethernet::on_interrupt(),
        _ => fail(format_args!("unexpected interrupt {number}")),
    }
}
