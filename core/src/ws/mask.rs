//! Masking (RFC 6455 section 5.3).

use crate::work;

/// XORs `bytes` with `mask`, in place, and returns the mask for the byte that follows: a payload may be unmasked
/// piece by piece.
///
/// ```
/// use longwire_core::ws::unmask;
/// let mut hello = *b"\x7f\x9f\x4d\x51\x58"; // RFC 6455 section 5.7
/// let (a, b) = hello.split_at_mut(3);
/// let mask = unmask(a, [0x37, 0xfa, 0x21, 0x3d]);
/// unmask(b, mask);
/// assert_eq!(&hello, b"Hello");
/// ```
#[inline]
pub fn unmask(bytes: &mut [u8], mask: [u8; 4]) -> [u8; 4] {
    work::count(bytes.len());
    if bytes.len() < LONG {
        words(bytes, mask)
    } else {
        wide(bytes, mask)
    }
    turn(mask, bytes.len())
}

/// The mask for what comes behind `n` bytes.
fn turn(mask: [u8; 4], n: usize) -> [u8; 4] {
    let [n, ..] = n.to_le_bytes();
    u32::from_le_bytes(mask).rotate_right(u32::from(n % 4) * 8).to_le_bytes()
}

/// From how many bytes on it pays to ask what vectors the processor has.
const LONG: usize = 128;

/// With the widest vectors that the processor has, and not only the target.
#[cfg(feature = "simd")]
#[inline(never)]
fn wide(bytes: &mut [u8], mask: [u8; 4]) {
    // Each of the widest vectors takes two lines of the cache, unless the first begins with a line.
    let ahead = if bytes.len() < LONGER { 0 } else { bytes.as_ptr().align_offset(LINE) };
    let Some((head, rest)) = bytes.split_at_mut_checked(ahead) else { return words(bytes, mask) };
    words(head, mask);
    let mask = turn(mask, ahead);
    fearless_simd::dispatch!(fearless_simd::Level::new(), _ => words(rest, mask));
}

/// From how many bytes on it pays to begin with a line of the cache.
#[cfg(feature = "simd")]
const LONGER: usize = 1024;

/// Bytes of a line of the cache, and of the widest vector.
#[cfg(feature = "simd")]
const LINE: usize = 64;

#[cfg(not(feature = "simd"))]
#[inline(never)]
fn wide(bytes: &mut [u8], mask: [u8; 4]) {
    words(bytes, mask);
}

/// Word by word: the compiler turns the loop into the widest vectors that it may use where this is inlined.
#[inline(always)]
fn words(bytes: &mut [u8], mask: [u8; 4]) {
    let half = u32::from_ne_bytes(mask);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ (u64::from(half) << 32 | u64::from(half))).to_ne_bytes();
    }
    let (halves, rest) = rest.as_chunks_mut::<4>();
    for word in halves {
        *word = (u32::from_ne_bytes(*word) ^ half).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn equals_the_rule_of_rfc6455_5_3_at_every_length_offset_and_split() {
        let mask = [0x12, 0x34, 0x56, 0xf8];
        // Both sides of LONG, and of the widest vectors beyond it.
        for len in (0..40).chain(LONG - 2..LONG + 10).chain([255, 256, 257, 1023, 1024, 1025, 1100]) {
            for start in 0..4 {
                let plain: Vec<u8> = (0..=250).cycle().step_by(31).take(len + start).collect();
                let want: Vec<u8> = plain[start..].iter().enumerate().map(|(i, b)| b ^ mask[i % 4]).collect();
                for cut in 0..=len {
                    let mut got = plain.clone();
                    let (a, b) = got[start..].split_at_mut(cut);
                    let next = unmask(a, mask);
                    unmask(b, next);
                    assert_eq!(got[start..], want);
                }
            }
        }
    }
}
