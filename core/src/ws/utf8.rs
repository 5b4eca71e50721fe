//! UTF-8 in pieces (RFC 6455 section 8.1): a message is checked while it arrives.

use super::ProtocolError;
use crate::work;

/// Checks `bytes`, which continue a text that is valid up to their first byte. Returns how many bytes at the end
/// (0 to 3) begin a character that is not complete yet; they have to be checked again together with what follows.
pub(super) fn check(bytes: &[u8]) -> Result<u8, ProtocolError> {
    work::count(bytes.len());
    // A character that is cut is set apart first, so that the rest is looked at only once: whether it is valid is all
    // that the fast check says, and not where it ceases to be.
    let (whole, tail) = bytes.split_at_checked(bytes.len() - cut(bytes)).unwrap_or((bytes, &[]));
    if is_valid(whole) && (tail.is_empty() || character(tail).is_some()) {
        Ok(u8::try_from(tail.len()).unwrap_or(u8::MAX))
    } else {
        Err(ProtocolError::NotUtf8)
    }
}

#[cfg(feature = "simd")]
fn is_valid(bytes: &[u8]) -> bool {
    // Short texts go through the same vectors as long ones, with zeros behind them: byte by byte, what is not ASCII is one
    // mispredicted branch after the other.
    let mut block = [0; 64];
    match block.get_mut(..bytes.len()) {
        Some(_) if bytes.is_ascii() => true,
        Some(space) => {
            space.copy_from_slice(bytes);
            simdutf8::basic::from_utf8(&block).is_ok()
        }
        None => simdutf8::basic::from_utf8(bytes).is_ok(),
    }
}

#[cfg(not(any(feature = "simd", target_os = "none")))]
fn is_valid(bytes: &[u8]) -> bool {
    core::str::from_utf8(bytes).is_ok()
}

#[cfg(target_os = "none")]
use is_valid_by_characters as is_valid;

/// For a device: character by character, in a quarter of the code that the standard library's check takes with its table.
#[cfg(any(test, target_os = "none"))]
fn is_valid_by_characters(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Some((_, rest)) = character(bytes).and_then(|len| bytes.split_at_checked(len)) else {
            return false;
        };
        bytes = rest;
    }
    true
}

/// How long the first character is, by the table of RFC 3629 section 4, if what is there of it is valid.
fn character(bytes: &[u8]) -> Option<usize> {
    let (first, rest) = bytes.split_first()?;
    let (len, least, most) = match first {
        ..0x80 => return Some(1),
        0xc2..0xe0 => (2, 0x80, 0xbf),
        0xe0 => (3, 0xa0, 0xbf),
        0xed => (3, 0x80, 0x9f),
        0xe1..0xf0 => (3, 0x80, 0xbf),
        0xf0 => (4, 0x90, 0xbf),
        0xf1..0xf4 => (4, 0x80, 0xbf),
        0xf4 => (4, 0x80, 0x8f),
        _ => return None,
    };
    // The bounds are the second byte's; those behind it have the usual ones.
    let mut bounds = (least, most);
    let valid = rest.iter().take(len - 1).all(|byte| {
        let (least, most) = core::mem::replace(&mut bounds, (0x80, 0xbf));
        (least..=most).contains(byte)
    });
    valid.then_some(len)
}

/// The text of bytes that were checked.
pub(super) fn from_checked(bytes: &[u8]) -> &str {
    #[cfg(feature = "simd")]
    return simdutf8::basic::from_utf8(bytes).unwrap_or_default();
    #[cfg(not(feature = "simd"))]
    core::str::from_utf8(bytes).unwrap_or_default()
}

/// How many bytes at the end (0 to 3) begin a character that, by its first byte, is longer.
fn cut(bytes: &[u8]) -> usize {
    for (len, byte) in (1..4).zip(bytes.iter().rev()) {
        let wanted = match byte {
            ..0x80 => return 0,
            0x80..0xc0 => continue,
            0xc0..0xe0 => 2,
            0xe0..0xf0 => 3,
            0xf0.. => 4,
        };
        return if len < wanted { len } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn every_split_of_awkward_texts_agrees_with_the_whole() {
        let texts: [&[u8]; 12] = [
            "κόσμε €𝄞 a".as_bytes(),
            b"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf",
            b"\xed\x9f\xbf\xee\x80\x80",
            b"\xed\xa0\x80",         // a surrogate
            b"\xf4\x90\x80\x80",     // above U+10FFFF
            b"\xc0\xaf",             // overlong
            b"\xe0\x80\xaf",         // overlong
            b"\xf0\x80\x80\xaf",     // overlong
            b"a\x80",                // a continuation alone
            b"\xf8\x88\x80\x80\x80", // five bytes
            b"\xe2\x82",             // cut
            b"\xf0\x9d\x84",         // cut
        ];
        for text in texts {
            let valid = core::str::from_utf8(text).is_ok();
            for a in 0..=text.len() {
                for b in a..=text.len() {
                    assert_eq!(
                        in_pieces(&[&text[..a], &text[a..b], &text[b..]]),
                        valid,
                        "{text:x?} at {a}, {b}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_check_of_a_device_agrees_with_that_of_the_standard_library() {
        // All that can stand for one character, and what comes close: every first and second byte, and the edges behind.
        let edges = [0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff];
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                for third in edges {
                    for fourth in edges {
                        for len in 1..=4 {
                            let bytes = &[first, second, third, fourth][..len];
                            let std = core::str::from_utf8(bytes);
                            assert_eq!(is_valid_by_characters(bytes), std.is_ok(), "{bytes:x?}");
                            let cut = std.is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none());
                            let says_cut = character(bytes).is_some_and(|whole| whole > len);
                            assert_eq!(says_cut, cut, "{bytes:x?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_character_that_is_cut_is_counted_and_one_that_cannot_be_is_refused() {
        for (bytes, want) in [
            (&b"a"[..], Ok(0)),
            (b"a\xc3", Ok(1)),
            (b"a\xe2\x82", Ok(2)),
            (b"a\xf0\x9d\x84", Ok(3)),
            (b"a\xff", Err(ProtocolError::NotUtf8)),
            (b"\xc3\x28a", Err(ProtocolError::NotUtf8)),
            (b"\xf4\x90", Err(ProtocolError::NotUtf8)),
        ] {
            assert_eq!(check(bytes), want, "{bytes:x?}");
        }
    }

    #[test]
    fn at_every_length_it_agrees_with_the_standard_library() {
        // Both sides of every width that a vector may have.
        let text = "aé世𝄞 plain ASCII behind it, ".repeat(6);
        for len in 0..=text.len() {
            for (at, byte) in
                [(0, None), (len / 2, Some(0x80)), (len.saturating_sub(1), Some(0xf5)), (len / 3, Some(b'x'))]
            {
                let mut bytes = text.as_bytes()[..len].to_vec();
                if let (Some(to), Some(byte)) = (bytes.get_mut(at), byte) {
                    *to = byte;
                }
                let want = match core::str::from_utf8(&bytes) {
                    Ok(_) => Ok(0),
                    Err(e) if e.error_len().is_none() => Ok(u8::try_from(len - e.valid_up_to()).unwrap()),
                    Err(_) => Err(ProtocolError::NotUtf8),
                };
                assert_eq!(check(&bytes), want, "{len} bytes, {byte:x?} at {at}");
            }
        }
    }

    /// As the connection does it: the tail is looked at again with the next piece.
    fn in_pieces(pieces: &[&[u8]]) -> bool {
        let (mut kept, mut tail) = (Vec::new(), 0u8);
        for piece in pieces {
            let from = kept.len() - usize::from(tail);
            kept.extend_from_slice(piece);
            match check(&kept[from..]) {
                Ok(t) => tail = t,
                Err(_) => return false,
            }
        }
        tail == 0
    }
}
