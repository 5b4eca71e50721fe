//! Runs every vector on a 32-bit machine: `cargo run --release`. A length that is cut to a machine's word shows here.
//!
//! It prints what goes wrong, and then `N passed, M failed`; the exit status says whether M is 0.
#![no_std]
#![no_main]

use cortex_m_rt::{ExceptionFrame, entry, exception};
use cortex_m_semihosting::{debug, hprintln};
use longwire_embassy::Inflater;
use longwire_vectors::{SETUPS, Space, cases};

/// More than the largest message of the vectors.
const RX: usize = 1 << 18;
const TX: usize = 4096;
/// The largest of permessage-deflate.
const WINDOW: usize = 1 << 15;

#[entry]
fn main() -> ! {
    let rx = cortex_m::singleton!(: [u8; RX] = [0; RX]);
    let tx = cortex_m::singleton!(: [u8; TX] = [0; TX]);
    let inflater = cortex_m::singleton!(: Inflater<WINDOW> = Inflater::new());
    let (Some(rx), Some(tx), Some(inflate)) = (rx, tx, inflater) else { exit(false) };
    let mut space = Space { rx, tx, inflate };
    let (mut passed, mut failed) = (0u32, 0u32);
    for case in cases() {
        match SETUPS.iter().try_for_each(|setup| case.run(setup, &mut space)) {
            Ok(()) => passed += 1,
            Err(wrong) => {
                failed += 1;
                hprintln!("{} {}, wire {}: {}", case.kind(), case.name(), case.number, wrong);
            }
        }
    }
    hprintln!("{} passed, {} failed", passed, failed);
    exit(passed > 0 && failed == 0)
}

/// Ends the emulator, with status 0 if all is well and 1 otherwise.
fn exit(well: bool) -> ! {
    debug::exit(if well { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    loop {
        cortex_m::asm::wfi();
    }
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    hprintln!("hard fault: {:?}", frame);
    exit(false)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    hprintln!("{}", info);
    exit(false)
}
