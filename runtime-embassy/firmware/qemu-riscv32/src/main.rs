//! longwire on a 32-bit RISC-V machine (RV32IMAC) with a virtio network, as QEMU emulates it (machine `virt`).
//!
//! ```text
//! cargo run --release -- port=8080
//! ```
//! See `longwire_firmware::Settings` for the arguments.
#![no_std]
#![no_main]

mod clock;
mod virtio;

use embassy_executor::Spawner;
use longwire_emulated::{Runner, host, sleep};
use longwire_firmware::stack;
use riscv::interrupt::Interrupt;
use riscv_rt::{core_interrupt, entry};
use virtio::Network;

#[embassy_executor::task]
async fn network(mut runner: Runner<Network>) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn application(spawner: Spawner, stack: stack::Stack) -> ! {
    let start = || {
        let (network, irq) = Network::start()?;
        plic::enable(irq);
        Some(network)
    };
    longwire_emulated::run(stack, spawner, start, network).await
}

#[entry]
fn main() -> ! {
    // SAFETY: there is one stack and no heap, and this runs once.
    let stack = unsafe { stack::Stack::paint() };
    clock::on_interrupt();
    // SAFETY: no code relies on these interrupts being masked.
    unsafe {
        riscv::interrupt::enable_interrupt(Interrupt::MachineTimer);
        riscv::interrupt::enable_interrupt(Interrupt::MachineExternal);
        riscv::interrupt::enable();
    }
    sleep::run(|spawner| application(spawner, stack))
}

#[core_interrupt(Interrupt::MachineTimer)]
fn timer() {
    clock::on_interrupt();
}

#[core_interrupt(Interrupt::MachineExternal)]
fn external() {
    plic::handle(virtio::on_interrupt);
}

/// The platform-level interrupt controller: one source, at the first hart in machine mode.
mod plic {
    const PRIORITIES: *mut u32 = 0x0c00_0000 as *mut u32;
    const ENABLED: *mut u32 = 0x0c00_2000 as *mut u32;
    const THRESHOLD: *mut u32 = 0x0c20_0000 as *mut u32;
    const CLAIM: *mut u32 = 0x0c20_0004 as *mut u32;

    pub(super) fn enable(irq: u32) {
        // SAFETY: registers of the controller, within the first 32 sources.
        unsafe {
            PRIORITIES.add(irq as usize).write_volatile(1);
            ENABLED.write_volatile(1 << irq);
            THRESHOLD.write_volatile(0);
        }
    }

    pub(super) fn handle(handler: fn()) {
        // SAFETY: registers of the controller: the source is claimed, handled, and completed.
        unsafe {
            let source = CLAIM.read_volatile();
            if source != 0 {
                handler();
                CLAIM.write_volatile(source);
            }
        }
    }
}

/// What the processor cannot go on after: named in riscv-rt's documentation.
#[unsafe(export_name = "ExceptionHandler")]
fn exception(_: &riscv_rt::TrapFrame) -> ! {
    host::print(format_args!("exception at {:#x}", riscv::register::mepc::read()));
    host::exit(101)
}
