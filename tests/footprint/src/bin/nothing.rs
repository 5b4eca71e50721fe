//! What any program has that handles bytes: the compiler's routines that copy, clear, compare them, and divide.
#![no_std]
#![no_main]

use longwire_footprint::{any, read, write};

#[unsafe(no_mangle)]
extern "C" fn main() {
    let (mut bytes, mut others) = ([0; 512], [0; 512]);
    loop {
        let n = read(&mut bytes);
        let (to, from): (usize, usize) = (any(), any());
        if from <= bytes.len() && n <= bytes.len() - from && to <= bytes.len() - n {
            bytes.copy_within(from..from + n, to);
        }
        let equal = others.get(..n).zip(bytes.get(..n)).is_some_and(|(a, b)| a == b);
        if let (Some(a), Some(b)) = (others.get_mut(..n), bytes.get(..n)) {
            a.copy_from_slice(b);
        }
        if equal && let Some(others) = others.get_mut(n..) {
            others.fill(any());
        }
        let (dividend, divisor): (u64, u64) = (any(), any());
        let bytes = dividend.checked_div(divisor).unwrap_or_default().to_be_bytes();
        write(&bytes);
        write(&others);
    }
}
