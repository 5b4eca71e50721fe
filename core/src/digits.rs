//! Numbers as text without `core::fmt`, whose machinery costs a small device more than all of this.

use heapless::String;

/// Appends 16 lowercase hexadecimal digits, as far as there is room.
pub fn push_hex<const N: usize>(text: &mut String<N>, value: u64) {
    for byte in value.to_be_bytes() {
        for nibble in [byte >> 4, byte & 0xf] {
            let digit = if nibble < 10 { b'0' + nibble } else { b'a' + (nibble - 10) };
            let _ = text.push(digit.into());
        }
    }
}

/// Appends decimal digits without leading zeros, as far as there is room.
pub fn push_decimal<const N: usize>(text: &mut String<N>, value: u64) {
    // u64::MAX has 20 of them.
    let (mut digits, mut rest) = ([b'0'; 20], value);
    let mut len = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        len += 1;
        if rest == 0 {
            break;
        }
    }
    for digit in digits.iter().skip(20 - len) {
        let _ = text.push(char::from(*digit));
    }
}

/// `1*DIGIT` and nothing else, below 2^64: no sign, no space, no list.
pub(crate) fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    bytes.iter().try_fold(0u64, |n, b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;

    #[test]
    fn decimal_takes_digits_only() {
        for (text, n) in [("0", 0), ("007", 7), ("18446744073709551615", u64::MAX)] {
            assert_eq!(decimal(text.as_bytes()), Some(n));
        }
        for text in
            ["", "+5", "-5", " 5", "5 ", "5, 5", "0x5", "5.0", "18446744073709551616", "99999999999999999999"]
        {
            assert_eq!(decimal(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn as_the_standard_library_writes_them(value: u64, shift in 0..64u32) {
            let value = value >> shift;
            let mut text = String::<40>::new();
            push_hex(&mut text, value);
            push_decimal(&mut text, value);
            prop_assert_eq!(text.as_str(), format!("{value:016x}{value}"));
        }
    }
}
