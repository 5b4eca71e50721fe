//! What `Sec-WebSocket-Accept` has to be (RFC 6455 section 4.2.2): SHA-1 and base64 of one length each.
//!
//! Libraries for bytes of any length are several times as large as this, for which a device has no room, and no faster.

/// What `Sec-WebSocket-Accept` has to be for this `Sec-WebSocket-Key` (RFC 6455 section 4.2.2, step 5.4).
///
/// ```
/// use longwire_core::http::upgrade::accept_key;
///
/// assert_eq!(&accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// ```
pub fn accept_key(key: &[u8; 24]) -> [u8; 28] {
    const GUID: &[u8; 36] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let mut message = [0; 60];
    for (to, from) in message.iter_mut().zip(key.iter().chain(GUID)) {
        *to = *from;
    }
    base64(&sha1(&message))
}

/// The base64 of 20 bytes (RFC 4648 section 4).
pub(super) fn base64(bytes: &[u8; 20]) -> [u8; 28] {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut padded = [0; 21];
    for (to, from) in padded.iter_mut().zip(bytes) {
        *to = *from;
    }
    let mut text = [0; 28];
    for (digits, &[a, b, c]) in text.as_chunks_mut::<4>().0.iter_mut().zip(padded.as_chunks().0) {
        let bits = u32::from_be_bytes([0, a, b, c]);
        for (digit, shift) in digits.iter_mut().zip([18, 12, 6, 0]) {
            #[expect(clippy::indexing_slicing, reason = "six bits, and 64 digits")]
            let six = DIGITS[(bits >> shift & 0x3f) as usize];
            *digit = six;
        }
    }
    let [.., last] = &mut text;
    *last = b'=';
    text
}

/// The SHA-1 of 60 bytes (FIPS 180-4 section 6.1.2): two blocks, for the length needs room behind them.
fn sha1(message: &[u8; 60]) -> [u8; 20] {
    let mut blocks = [[0; 16]; 2];
    for (word, bytes) in blocks.as_flattened_mut().iter_mut().zip(message.as_chunks().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    let [[.., one], [.., bits]] = &mut blocks;
    // Section 5.1.1: a one behind the message, and in the end its length in bits.
    *one = 1 << 31;
    *bits = 60 * 8;
    let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    for block in &blocks {
        compress(&mut state, block);
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    digest
}

fn compress(state: &mut [u32; 5], block: &[u32; 16]) {
    let mut schedule = [0u32; 80];
    for (to, from) in schedule.iter_mut().zip(block) {
        *to = *from;
    }
    for t in 16..80 {
        #[expect(clippy::indexing_slicing, reason = "from 0 to 79")]
        let mixed = schedule[t - 3] ^ schedule[t - 8] ^ schedule[t - 14] ^ schedule[t - 16];
        #[expect(clippy::indexing_slicing, reason = "as above")]
        let word = &mut schedule[t];
        *word = mixed.rotate_left(1);
    }
    let mut words = *state;
    if let [first, second, third, fourth] = schedule.as_chunks::<20>().0 {
        words = rounds(words, first, 0x5a82_7999, |b, c, d| d ^ (b & (c ^ d)));
        words = rounds(words, second, 0x6ed9_eba1, |b, c, d| b ^ c ^ d);
        words = rounds(words, third, 0x8f1b_bcdc, |b, c, d| (b & c) | (d & (b | c)));
        words = rounds(words, fourth, 0xca62_c1d6, |b, c, d| b ^ c ^ d);
    }
    for (sum, word) in state.iter_mut().zip(words) {
        *sum = sum.wrapping_add(word);
    }
}

/// Twenty rounds with one constant and one function (sections 4.1.1 and 4.2.1).
fn rounds(state: [u32; 5], schedule: &[u32; 20], k: u32, f: impl Fn(u32, u32, u32) -> u32) -> [u32; 5] {
    let [mut a, mut b, mut c, mut d, mut e] = state;
    for word in schedule {
        let mixed = f(b, c, d).wrapping_add(e).wrapping_add(k).wrapping_add(*word);
        (a, b, c, d, e) = (a.rotate_left(5).wrapping_add(mixed), a, b.rotate_left(30), c, d);
    }
    [a, b, c, d, e]
}

#[cfg(test)]
mod tests {
    use base64::prelude::*;
    use proptest::prelude::*;

    use super::{accept_key, base64, sha1};

    #[test]
    fn example_of_rfc_6455_section_1_3() {
        assert_eq!(&accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    proptest! {
        #[test]
        fn as_the_libraries_for_bytes_of_any_length(message: [[u8; 20]; 3]) {
            let bytes: [u8; 60] = message.as_flattened().try_into().unwrap();
            prop_assert_eq!(sha1(&bytes), sha1_smol::Sha1::from(bytes).digest().bytes());
            let text = base64(&message[0]);
            prop_assert_eq!(core::str::from_utf8(&text).unwrap(), BASE64_STANDARD.encode(message[0]));
        }
    }
}
