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

use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::NVIC;
use cortex_m_rt::{ExceptionFrame, entry, exception};
use embassy_executor::Spawner;
use lan9118::Lan9118;
use longwire_emulated::{Network, Start, fail, host, sleep};
use longwire_firmware::stack;

#[embassy_executor::task]
async fn network(mut runner: embassy_net::Runner<'static, Network<Lan9118>>) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn application(spawner: Spawner, stack: stack::Stack) {
    let mut start = Start::from_host();
    let Some(chip) = Lan9118::start() else { fail(format_args!("no LAN9118 on this board")) };
    unmask(lan9118::IRQ);
    let (net, runner) = start.network(chip);
    match network(runner) {
        Ok(task) => spawner.spawn(task),
        Err(_) => fail(format_args!("no room for a task")),
    }
    start.run(net, stack).await
}

#[entry]
fn main() -> ! {
    // SAFETY: there is one stack and no heap, and this runs once.
    let stack = unsafe { stack::Stack::paint() };
    clock::start();
    unmask(clock::IRQ);
    sleep::run(|spawner| match application(spawner, stack) {
        Ok(task) => spawner.spawn(task),
        Err(_) => fail(format_args!("no room for a task")),
    })
}

/// A peripheral's interrupt.
#[derive(Clone, Copy)]
struct Interrupt(u16);

// SAFETY: the numbers are those of the board.
unsafe impl InterruptNumber for Interrupt {
    fn number(self) -> u16 {
        self.0
    }
}

fn unmask(interrupt: u16) {
    // SAFETY: no code relies on these interrupts being masked.
    unsafe { NVIC::unmask(Interrupt(interrupt)) };
}

#[exception]
unsafe fn DefaultHandler(number: i16) {
    match u16::try_from(number) {
        Ok(clock::IRQ) => clock::on_interrupt(),
        Ok(lan9118::IRQ) => lan9118::on_interrupt(),
        _ => fail(format_args!("unexpected interrupt {number}")),
    }
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    host::print(format_args!("hard fault at {:#x}", frame.pc()));
    host::exit(101)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    longwire_emulated::panic::end(info)
}
