//! Runs every vector on a 32-bit machine: `cargo run --release --target thumbv7m-none-eabi`. A length that is cut to a
//! machine's word shows here.
//!
//! It prints what goes wrong, and then `N passed, M failed`; the exit status says whether M is 0.
#![no_std]
#![no_main]

use longwire_embassy::Inflater;
use longwire_vectors::{SETUPS, Space, cases};
use semihosting::{println, process};
use static_cell::ConstStaticCell;

/// More than the largest message of the vectors.
const RX: usize = 1 << 18;
const TX: usize = 4096;
/// The largest of permessage-deflate.
const WINDOW: usize = 1 << 15;

static RX_BUFFER: ConstStaticCell<[u8; RX]> = ConstStaticCell::new([0; RX]);
static TX_BUFFER: ConstStaticCell<[u8; TX]> = ConstStaticCell::new([0; TX]);
static INFLATER: ConstStaticCell<Inflater<WINDOW>> = ConstStaticCell::new(Inflater::new());

#[cfg_attr(target_arch = "arm", cortex_m_rt::entry)]
#[cfg_attr(target_arch = "riscv32", riscv_rt::entry)]
fn main() -> ! {
    let mut space = Space { rx: RX_BUFFER.take(), tx: TX_BUFFER.take(), inflate: INFLATER.take() };
    let (mut passed, mut failed) = (0u32, 0u32);
    for case in cases() {
        match SETUPS.iter().try_for_each(|setup| case.run(setup, &mut space)) {
            Ok(()) => passed += 1,
            Err(wrong) => {
                failed += 1;
                println!("{} {}, wire {}: {}", case.kind(), case.name(), case.number, wrong);
            }
        }
    }
    println!("{} passed, {} failed", passed, failed);
    process::exit(i32::from(passed == 0 || failed > 0))
}

#[cfg(target_arch = "arm")]
#[cortex_m_rt::exception]
unsafe fn HardFault(frame: &cortex_m_rt::ExceptionFrame) -> ! {
    println!("hard fault: {:?}", frame);
    process::exit(1)
}

/// What the processor cannot go on after: named in riscv-rt's documentation.
#[cfg(target_arch = "riscv32")]
#[unsafe(export_name = "ExceptionHandler")]
fn exception(_: &riscv_rt::TrapFrame) -> ! {
    println!("exception at {:#x}", riscv::register::mepc::read());
    process::exit(1)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("{}", info);
    process::exit(1)
}
