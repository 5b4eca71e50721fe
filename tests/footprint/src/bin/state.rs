//! The sizes of the state on a device, as words in a symbol that `tests/sizes` reads.
#![no_std]
#![no_main]

use longwire_footprint::STATE;

#[unsafe(no_mangle)]
static SIZES: [u32; STATE.len()] = {
    let mut sizes = [0; STATE.len()];
    let mut n = 0;
    while n < sizes.len() {
        sizes[n] = STATE[n].1 as u32;
        n += 1;
    }
    sizes
};

#[unsafe(no_mangle)]
extern "C" fn main() {
    core::hint::black_box(&SIZES);
}
