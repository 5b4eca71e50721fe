//! How much of the stack was never used, found by painting.
//!
//! At boot everything below the stack pointer is filled with a pattern. What still holds the pattern later was
//! never written to: the stack has never been that deep, interrupts included.

use core::ptr::NonNull;

const PAINT: u32 = 0x5354_4143;

/// Words right below the stack pointer that are left alone: the painting function's own frame, and that of an
/// interrupt which comes meanwhile, may lie there.
const MARGIN: usize = 64;

unsafe extern "C" {
    /// Where static data ends, so the lowest word that the stack may grow down to: from the linker scripts of cortex-m-rt
    /// and of riscv-rt.
    static mut __sheap: u32;
}

/// A painted stack.
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    bottom: NonNull<u32>,
    words: usize,
}

impl Stack {
    /// Paints what lies between static data and shortly below the stack pointer. Earlier is better: where the stack has
    /// been before, it looks unused.
    ///
    /// # Safety
    /// The program runs on the one stack that its linker script made, it has no heap, and paints once.
    pub unsafe fn paint() -> Self {
        let pointer: usize;
        // SAFETY: it reads a register.
        unsafe {
            #[cfg(target_arch = "arm")]
            core::arch::asm!("mov {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags));
            #[cfg(target_arch = "riscv32")]
            core::arch::asm!("mv {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags));
        }
        // The symbol's address is what counts; no linker script puts it at 0.
        let bottom = NonNull::new(&raw mut __sheap).unwrap_or(NonNull::dangling());
        let words = pointer.saturating_sub(bottom.as_ptr() as usize) / 4;
        let painted = Self { bottom, words: words.saturating_sub(MARGIN) };
        for at in 0..painted.words {
            // SAFETY: between static data and the stack; the caller vouches that it is nobody else's. Volatile, for no
            // Rust object lies there.
            unsafe { painted.bottom.add(at).write_volatile(PAINT) };
        }
        painted
    }

    /// Bytes that were painted: what a program may use below where it painted.
    pub fn size(&self) -> u32 {
        u32::try_from(self.words.saturating_mul(4)).unwrap_or(u32::MAX)
    }

    /// Bytes that the stack has never reached, so far.
    pub fn free(&self) -> u32 {
        // SAFETY: as in `paint`; words are read one at a time, whatever interrupts write meanwhile.
        let untouched =
            (0..self.words).take_while(|&at| unsafe { self.bottom.add(at).read_volatile() } == PAINT);
        u32::try_from(untouched.count().saturating_mul(4)).unwrap_or(u32::MAX)
    }
}
