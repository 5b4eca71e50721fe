//! What the Cortex-M boards have in common.

use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::NVIC;
use cortex_m_rt::{ExceptionFrame, exception};

use crate::host;

/// A peripheral's interrupt.
#[derive(Clone, Copy)]
struct Interrupt(u16);

// SAFETY: the numbers are those of the board.
unsafe impl InterruptNumber for Interrupt {
    fn number(self) -> u16 {
        self.0
    }
}

/// Lets a peripheral interrupt, by the number that the board's manual gives it.
pub fn unmask(interrupt: u16) {
    // SAFETY: no code relies on these interrupts being masked.
    unsafe { NVIC::unmask(Interrupt(interrupt)) };
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    host::print(format_args!("hard fault at {:#x}", frame.pc()));
    host::exit(101)
}
