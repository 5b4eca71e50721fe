//! longwire on Arm's MPS2 board (application note 385: Cortex-M3, LAN9118 Ethernet), as QEMU emulates it.
//!
//! ```text
//! cargo run --release -- port=8080
//! ```
//! See `longwire_firmware::Settings` for the arguments.
#![no_std]
#![no_main]

mod clock;
mod lan9118;

use cortex_m_rt::{entry, exception};
use embassy_executor::Spawner;
use lan9118::Lan9118;
use longwire_emulated::{Runner, cortex, fail, sleep};
use longwire_firmware::stack;

#[embassy_executor::task]
async fn network(mut runner: Runner<Lan9118>) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn application(spawner: Spawner, stack: stack::Stack) -> ! {
    longwire_emulated::run(stack, spawner, Lan9118::start, network).await
}

#[entry]
fn main() -> ! {
    // SAFETY: there is one stack and no heap, and this runs once.
    let stack = unsafe { stack::Stack::paint() };
    clock::start();
    cortex::unmask(clock::IRQ);
    sleep::run(|spawner| application(spawner, stack))
}

#[exception]
unsafe fn DefaultHandler(number: i16) {
    match u16::try_from(number) {
        Ok(clock::IRQ) => clock::on_interrupt(),
        Ok(lan9118::IRQ) => lan9118::on_interrupt(),
        _ => fail(format_args!("unexpected interrupt {number}")),
    }
}
