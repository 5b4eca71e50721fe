//! Level 1 without context takeover: a compressor that has nothing to clear between messages.
//!
//! zlib's finds repetitions with a table of 128 KiB, which has to be cleared for each message that stands alone; of a
//! message of 1 KiB that is three quarters of the time, and most of a core's first cache. Here the table is 16 KiB, its
//! entries count on from message to message, and those of earlier messages are too old to be meant.
//!
//! It writes one block of the codes that RFC 1951 fixes (section 3.2.6), as zlib's level 1 does.

use longwire_core::ws::deflate::TAIL;

/// Places where four bytes were seen, by their hash.
const PLACES: usize = 1 << PLACES_BITS;
const PLACES_BITS: u32 = 12;

/// The shortest repetition that is looked for, and the longest that can be written.
const MIN: u32 = 4;
const MAX: usize = 258;

/// What a thread compresses with. About 16 KiB.
pub(super) struct Quick {
    /// Positions, counted from the first message on. 0: none.
    seen: [u32; PLACES],
    /// Where the next message begins.
    begin: u32,
}

impl Default for Quick {
    fn default() -> Self {
        Self { seen: [0; PLACES], begin: 1 }
    }
}

impl Quick {
    /// Compresses a message, without the [`TAIL`], and says how long that is. It refers back no further than `window`
    /// bytes.
    ///
    /// `None`: it does not fit, or is 4 GiB long. The next message can be compressed all the same.
    pub(super) fn message(&mut self, window: u32, input: &[u8], output: &mut [u8]) -> Option<usize> {
        let len = u32::try_from(input.len()).ok()?;
        if self.begin.checked_add(len).is_none() {
            *self = Self::default();
        }
        let begin = self.begin;
        self.begin = begin.checked_add(len)?;

        // BFINAL is 0, BTYPE 01 (RFC 1951 section 3.2.3), bits from the lowest on.
        let mut out = Bits { output, at: 0, bits: 0b010, len: 3 };
        let (mut written, mut at) = (0u32, 0u32);
        while let Some(word) = word_at(input, at) {
            let before = std::mem::replace(self.place(word)?, begin + at);
            let distance = before.checked_sub(begin).map_or(u32::MAX, |before| at.saturating_sub(before));
            if distance.wrapping_sub(1) >= window || word_at(input, at - distance) != Some(word) {
                // Where nothing repeats, it is looked for in larger and larger steps.
                at = at.saturating_add(1 + ((at - written) >> 6));
                continue;
            }
            let len = MIN + common(input, at - distance + MIN, at + MIN, MAX - MIN as usize);
            out.literals(input.get(written as usize..at as usize)?)?;
            out.repeat(len, distance)?;
            at += len;
            written = at;
            // How this one ends is often how the next one begins.
            if let Some(word) = word_at(input, at - 2) {
                *self.place(word)? = begin + at - 2;
            }
        }
        out.literals(input.get(written as usize..)?)?;
        out.end()
    }

    /// Where it is written down that these four bytes were seen. There is such a place for every word.
    #[inline]
    fn place(&mut self, word: u32) -> Option<&mut u32> {
        // Knuth's multiplicative hash, whose upper bits are the good ones.
        let hash = word.wrapping_mul(0x9e37_79b1) >> (u32::BITS - PLACES_BITS);
        self.seen.get_mut(hash as usize)
    }
}

/// Four bytes of the input.
#[inline]
fn word_at(input: &[u8], at: u32) -> Option<u32> {
    input.get(at as usize..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// How many bytes are the same from these two places on, `most` at most.
#[inline]
fn common(input: &[u8], before: u32, at: u32, most: usize) -> u32 {
    let (before, at) = (input.get(before as usize..).unwrap_or_default(), input.get(at as usize..));
    let at = at.map(|at| at.get(..most).unwrap_or(at)).unwrap_or_default();
    let before = before.get(..at.len()).unwrap_or_default();
    let ((before, before_end), (at, at_end)) = (before.as_chunks(), at.as_chunks());
    let mut len = 0;
    for (before, at) in before.iter().zip(at) {
        let differ = u64::from_le_bytes(*before) ^ u64::from_le_bytes(*at);
        if differ != 0 {
            return len + differ.trailing_zeros() / 8;
        }
        len += 8;
    }
    for (before, at) in before_end.iter().zip(at_end) {
        if before != at {
            return len;
        }
        len += 1;
    }
    len
}

/// What is written, bit by bit from the lowest on (RFC 1951 section 3.1.1).
struct Bits<'o> {
    output: &'o mut [u8],
    at: usize,
    /// Not written yet; fewer than 32 of them between two calls.
    bits: u64,
    len: u32,
}

impl Bits<'_> {
    /// At most 32 bits. `None`: there is no room.
    #[inline]
    fn put(&mut self, bits: u32, len: u32) -> Option<()> {
        self.bits |= u64::from(bits) << self.len;
        self.len += len;
        if self.len >= u32::BITS {
            let [a, b, c, d, ..] = self.bits.to_le_bytes();
            *self.output.get_mut(self.at..)?.first_chunk_mut()? = [a, b, c, d];
            self.at += 4;
            self.bits >>= u32::BITS;
            self.len -= u32::BITS;
        }
        Some(())
    }

    #[inline]
    fn literals(&mut self, bytes: &[u8]) -> Option<()> {
        for byte in bytes {
            let Code { bits, len } = *LITERALS.get(usize::from(*byte))?;
            self.put(bits.into(), len.into())?;
        }
        Some(())
    }

    /// A length of 3 to 258 and a distance of 1 to 32,768 (RFC 1951 section 3.2.5): 31 bits at most.
    #[inline]
    fn repeat(&mut self, len: u32, distance: u32) -> Option<()> {
        let Code { bits, len } = *LENGTHS.get(len as usize - 3)?;
        let (bits, len) = (u32::from(bits), u32::from(len));
        // Codes in pairs: each pair for twice as many distances as the one before, with a bit more behind the code.
        let distance = distance - 1;
        let (code, extra) = match distance.checked_ilog2() {
            None | Some(0) => (distance, 0),
            Some(log) => (2 * log + (distance >> (log - 1) & 1), log - 1),
        };
        let rest = distance & ((1 << extra) - 1);
        self.put(bits | reversed(code, 5) << len | rest << (len + 5), len + 5 + extra)
    }

    /// The end of the block and the header of an empty stored one, whose length is the [`TAIL`].
    fn end(mut self) -> Option<usize> {
        const { assert!(TAIL.len() == 4) };
        // Seven zeros and three.
        self.put(0, 10)?;
        for byte in self.bits.to_le_bytes().into_iter().take(self.len.div_ceil(8) as usize) {
            *self.output.get_mut(self.at)? = byte;
            self.at += 1;
        }
        Some(self.at)
    }
}

/// Bits as they are written, the lowest first.
#[derive(Clone, Copy)]
struct Code {
    bits: u16,
    len: u8,
}

/// Huffman codes are written from their highest bit on.
const fn reversed(code: u32, len: u32) -> u32 {
    code.reverse_bits() >> (u32::BITS - len)
}

impl Code {
    /// A symbol of the fixed code (RFC 1951 section 3.2.6), and `extra` bits behind it.
    #[expect(clippy::cast_possible_truncation, reason = "nine bits at most, and five behind them")]
    const fn fixed(symbol: u32, rest: u32, extra: u32) -> Self {
        let (code, len) = match symbol {
            0..144 => (0b0011_0000 + symbol, 8),
            144..256 => (0b1_1001_0000 + symbol - 144, 9),
            256..280 => (symbol - 256, 7),
            _ => (0b1100_0000 + symbol - 280, 8),
        };
        Self { bits: (reversed(code, len) | rest << len) as u16, len: (len + extra) as u8 }
    }
}

#[expect(clippy::indexing_slicing, reason = "checked when it is compiled")]
#[expect(clippy::cast_possible_truncation, reason = "256 at most")]
static LITERALS: [Code; 256] = {
    let mut codes = [Code { bits: 0, len: 0 }; 256];
    let mut byte = 0;
    while byte < codes.len() {
        codes[byte] = Code::fixed(byte as u32, 0, 0);
        byte += 1;
    }
    codes
};

/// From the length 3 on (RFC 1951 section 3.2.5).
#[expect(clippy::indexing_slicing, reason = "checked when it is compiled")]
#[expect(clippy::cast_possible_truncation, reason = "256 at most")]
static LENGTHS: [Code; MAX - 2] = {
    let mut codes = [Code { bits: 0, len: 0 }; MAX - 2];
    let mut n = 0;
    while n < codes.len() as u32 {
        codes[n as usize] = match n {
            0..4 => Code::fixed(257 + n, 0, 0),
            255 => Code::fixed(285, 0, 0),
            _ => {
                // Four symbols to each number of extra bits.
                let extra = n.ilog2() - 2;
                Code::fixed(257 + 4 * extra + (n >> extra), n & ((1 << extra) - 1), extra)
            }
        };
        n += 1;
    }
    codes
};

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Decompress, FlushDecompress};

    /// Twice: behind a message, another one can begin.
    fn inflate(compressed: &[u8], len: usize) -> Vec<u8> {
        let mut out = vec![0; 2 * len + 1];
        let mut stream = Decompress::new(false);
        let input = [compressed, &TAIL].concat().repeat(2);
        stream.decompress(&input, &mut out, FlushDecompress::None).expect("inflates");
        assert_eq!(stream.total_out(), 2 * len as u64);
        assert!(out[..len] == out[len..2 * len]);
        out.truncate(len);
        out
    }

    /// Compresses it with room for more than it takes, and inflates it.
    fn pass(quick: &mut Quick, window: u32, data: &[u8]) -> usize {
        let mut space = vec![0; 2 * data.len() + 16];
        let len = quick.message(window, data, &mut space).expect("room");
        assert!(inflate(&space[..len], data.len()) == data);
        len
    }

    /// Bytes of which few are alike, if `kinds` are many.
    fn noise(len: usize, kinds: u64) -> Vec<u8> {
        let mut seed = 88_172_645_463_325_252u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed >> 20
        };
        (0..len).map(|_| u8::try_from(random() % kinds).unwrap()).collect()
    }

    #[test]
    fn rfc1951_3_2_5_every_length_and_every_distance() {
        let mut quick = Quick::default();
        for len in 4..600 {
            let data = [&noise(len, 256)[..], &noise(len, 256), b"."].concat();
            pass(&mut quick, 32768, &data);
            pass(&mut quick, 32768, &vec![b'a'; len]);
        }
        // Something that is seen twice, so far apart.
        let far = |distance: usize| {
            [&b"\xfe\xff\xfd\xfc\xfb\xfa"[..], &vec![b'a'; distance - 6]].concat().repeat(2)
        };
        for bits in 3..15 {
            for distance in
                [1 << bits, (1 << bits) + 1, (1 << bits) + 2, 3 << (bits - 1), (3 << (bits - 1)) + 1]
            {
                pass(&mut quick, 32768, &far(distance));
            }
        }
        assert!(pass(&mut quick, 32768, &far(32768)) < pass(&mut quick, 32767, &far(32768)));
    }

    #[test]
    fn every_byte_and_every_short_message() {
        let mut quick = Quick::default();
        let all: Vec<u8> = (0..=255).collect();
        for from in 0..=255 {
            for len in 0..16 {
                pass(&mut quick, 32768, &all[from..(from + len).min(256)]);
            }
        }
        pass(&mut quick, 32768, &all);
    }

    #[test]
    fn nothing_refers_further_back_than_the_window_or_to_an_earlier_message() {
        let once = noise(1000, 256);
        let twice = [&once[..], &once].concat();
        let mut quick = Quick::default();
        let long = pass(&mut quick, 999, &twice);
        assert!(long >= twice.len(), "{long}");
        // Each by itself: the second would otherwise be a few bytes.
        assert!(pass(&mut quick, 32768, &once) >= once.len());
        assert!(pass(&mut quick, 1000, &twice) < once.len() + 100);
        assert!(pass(&mut quick, 32768, &twice) < once.len() + 100);
    }

    #[test]
    fn positions_begin_anew_when_they_run_out() {
        let data = noise(1000, 4);
        let mut quick = Quick::default();
        let len = pass(&mut quick, 32768, &data);
        for left in [0, 1, 999, 1000, 1001] {
            quick.begin = u32::MAX - left;
            assert_eq!(pass(&mut quick, 32768, &data), len);
            assert_eq!(pass(&mut quick, 32768, &data), len);
        }
        assert!(quick.begin < 3000);
    }

    #[test]
    fn what_does_not_fit_leaves_nothing_behind() {
        let data = noise(3000, 16);
        let mut quick = Quick::default();
        let len = pass(&mut quick, 32768, &data);
        for room in 0..len {
            assert_eq!(quick.message(32768, &data, &mut vec![0; room]), None, "{room}");
        }
        assert_eq!(quick.message(32768, &data, &mut vec![0; len]), Some(len));
        assert_eq!(pass(&mut quick, 32768, &data), len);
    }
}
