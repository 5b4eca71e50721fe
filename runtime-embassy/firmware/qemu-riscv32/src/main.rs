//! longwire on a 32-bit RISC-V machine (RV32IMAC) with a virtio network, as QEMU emulates it (machine `virt`).
//!
//! ```text
//! cargo run --release -- port=8080
//! ```
//! See `longwire_firmware::Settings` for the arguments.
#![no_std]
#![no_main]

mod clock;
mod network;

use embassy_executor::Spawner;
use longwire_emulated::{Start, fail, host, sleep};
use longwire_firmware::stack;
use network::Network;
use riscv::interrupt::Interrupt;
use riscv_rt::{core_interrupt, entry};

#[embassy_executor::task]
async fn network_task(mut runner: embassy_net::Runner<'static, longwire_emulated::Network<Network>>) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn application(spawner: Spawner, stack: stack::Stack) {
    let mut start = Start::from_host();
    let Some((device, irq)) = Network::start() else { fail(format_args!("no virtio network")) };
    plic::enable(irq);
    let (net, runner) = start.network(device);
    match network_task(runner) {
        Ok(task) => spawner.spawn(task),
        Err(_) => fail(format_args!("no room for a task")),
    }
    start.run(net, stack).await
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
    sleep::run(|spawner| match application(spawner, stack) {
        Ok(task) => spawner.spawn(task),
        Err(_) => fail(format_args!("no room for a task")),
    })
}

#[core_interrupt(Interrupt::MachineTimer)]
fn timer() {
    clock::on_interrupt();
}

#[core_interrupt(Interrupt::MachineExternal)]
fn external() {
    plic::handle(network::on_interrupt);
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

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    longwire_emulated::panic::end(info)
}
