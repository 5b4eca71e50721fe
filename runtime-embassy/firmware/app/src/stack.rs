//! How much of the stack was never used, found by painting.
//!
//! At boot everything below the stack pointer is filled with a pattern. What still holds the pattern later was
//! never written to: the stack has never been that deep, interrupts included.

use core::ptr::NonNull;

const PAINT: u32 = 0x5354_4143;

/// Words right below the stack pointer that are left alone: the painting function's own frame, and that of an
/// interrupt which comes meanwhile, may lie there.
const MARGIN: usize = 64;

/// A painted stack.
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    bottom: NonNull<u32>,
    words: usize,
}

impl Stack {
    /// Paints from `bottom` (the lowest word that the stack may use) up to shortly below `pointer` (where the stack
    /// has got to now). Both are multiples of four.
    ///
    /// # Safety
    /// The memory in between belongs to nobody but the stack, which grows down from `pointer` towards `bottom`, and
    /// stays so for as long as the result is used.
    pub unsafe fn paint(bottom: NonNull<u32>, pointer: NonNull<u32>) -> Self {
        let words = (pointer.as_ptr() as usize).saturating_sub(bottom.as_ptr() as usize) / 4;
        let painted = Self { bottom, words: words.saturating_sub(MARGIN) };
        for at in 0..painted.words {
            // SAFETY: in the range that the caller vouches for. Volatile, for no Rust object lies there.
            unsafe { painted.bottom.add(at).write_volatile(PAINT) };
        }
        painted
    }

    /// Bytes that the stack has never reached, so far.
    pub fn free(&self) -> u32 {
        // SAFETY: as in `paint`; words are read one at a time, whatever interrupts write meanwhile.
        let untouched =
            (0..self.words).take_while(|&at| unsafe { self.bottom.add(at).read_volatile() } == PAINT);
        u32::try_from(untouched.count().saturating_mul(4)).unwrap_or(u32::MAX)
    }
}
