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
pub fn unmask(bytes: &mut [u8], mask: [u8; 4]) -> [u8; 4] {
    work::count(bytes.len());
    // Words first: the compiler turns the loop over an array of them into the widest vectors that the target has.
    let mut next = u32::from_le_bytes(mask);
    let (words, rest) = bytes.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_le_bytes(*word) ^ next).to_le_bytes();
    }
    for byte in rest {
        let [first, ..] = next.to_le_bytes();
        *byte ^= first;
        next = next.rotate_right(8);
    }
    next.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn equals_the_rule_of_rfc6455_5_3_at_every_length_offset_and_split() {
        let mask = [0x12, 0x34, 0x56, 0xf8];
        for len in 0..100usize {
            for start in 0..8 {
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
