//! The inflater by itself: against RFC 7692's examples, against a model of what a stream means, and against zlib.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helper fails the test")]

#[path = "common/zlib.rs"]
mod zlib;

use longwire_core::ws::deflate::{Corrupt, Inflate, TAIL, Window};
use longwire_embassy::Inflater;
use proptest::collection::vec;
use proptest::prelude::*;
use zlib::Zlib;

/// Inflates one message as a connection does: the input in pieces, the output into room that may be short.
fn receive(
    inflater: &mut dyn Inflate,
    message: &[u8],
    (piece, room): (usize, usize),
    window: Window,
) -> Result<Vec<u8>, Corrupt> {
    let mut inflated = Vec::new();
    for mut piece in message.chunks(piece).chain([&TAIL[..]]) {
        loop {
            let mut space = vec![0xa5; room];
            let done = inflater.inflate(piece, &mut space)?;
            let (fresh, untouched) = space.split_at(done.written);
            assert!(untouched.iter().all(|byte| *byte == 0xa5));
            inflated.extend(fresh);
            piece = &piece[done.read..];
            if !untouched.is_empty() {
                assert!(piece.is_empty(), "stopped with room and with input");
                break;
            }
        }
    }
    inflater.end_message(window);
    Ok(inflated)
}

const WHOLE: (usize, usize) = (usize::MAX, 1 << 17);
const FRESH: Window = Window { bits: 15, takeover: false };
const TAKEOVER: Window = Window { bits: 15, takeover: true };

/// An inflater on the heap, as a stack of a test has no room for many.
fn inflater(bits: u8) -> Box<dyn Inflate> {
    match bits {
        8 => Box::new(Inflater::<256>::new()),
        9 => Box::new(Inflater::<512>::new()),
        12 => Box::new(Inflater::<4096>::new()),
        _ => Box::new(Inflater::<32768>::new()),
    }
}

#[test]
fn the_window_that_is_offered_is_the_one_that_there_is() {
    assert_eq!(Inflater::<256>::new().window(), Window { bits: 8, takeover: false });
    assert_eq!(Inflater::<4096>::with_takeover().window(), Window { bits: 12, takeover: true });
    assert_eq!(Inflater::<32768>::default().window(), FRESH);
}

#[test]
fn rfc7692_7_2_3_examples_at_every_split() {
    let messages: [&[u8]; 5] = [
        b"\xf2\x48\xcd\xc9\xc9\x07\x00",
        b"\xf2\x00\x11\x00\x00",
        b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
        b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
    ];
    for (piece, room) in (1..14).flat_map(|piece| (1..7).map(move |room| (piece, room))) {
        let mut inflater = inflater(8);
        for message in messages {
            let hello = receive(&mut *inflater, message, (piece, room), TAKEOVER);
            assert_eq!(hello.as_deref(), Ok(&b"Hello"[..]), "{message:x?}");
        }
    }
}

/// What a compressor may say, in blocks with the fixed codes.
#[derive(Clone, Debug)]
enum Token {
    Literal(u8),
    Copy {
        len: usize,
        distance: usize,
    },
    /// A block that is not compressed.
    Stored(Vec<u8>),
    /// The end of a block with BFINAL, or without.
    EndBlock {
        last: bool,
    },
}

use Token::{Copy, EndBlock, Literal, Stored};

/// Writes DEFLATE (RFC 1951), bit by bit.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    bits: usize,
    /// A block with the fixed codes has begun.
    begun: bool,
}

impl Writer {
    fn put(&mut self, value: usize, bits: usize) {
        for n in 0..bits {
            if self.bits.is_multiple_of(8) {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().unwrap() |= u8::from(value >> n & 1 == 1) << (self.bits % 8);
            self.bits += 1;
        }
    }

    /// A Huffman code: its highest bit comes first.
    fn code(&mut self, code: usize, bits: usize) {
        (0..bits).rev().for_each(|n| self.put(code >> n & 1, 1));
    }

    /// RFC 1951 section 3.2.6.
    fn symbol(&mut self, symbol: usize) {
        match symbol {
            0..144 => self.code(0x30 + symbol, 8),
            144..256 => self.code(0x190 + symbol - 144, 9),
            256..280 => self.code(symbol - 256, 7),
            _ => self.code(0xc0 + symbol - 280, 8),
        }
    }

    fn begin(&mut self, last: bool) {
        if !self.begun {
            self.put(usize::from(last) | 1 << 1, 3);
            self.begun = true;
        }
    }

    fn end(&mut self) {
        if self.begun {
            self.symbol(256);
            self.begun = false;
        }
    }

    fn stored(&mut self, bytes: &[u8]) {
        self.put(0, 3);
        self.put(0, self.bits.next_multiple_of(8) - self.bits);
        self.put(bytes.len(), 16);
        self.put(!bytes.len(), 16);
        bytes.iter().for_each(|byte| self.put(usize::from(*byte), 8));
    }

    /// RFC 1951 section 3.2.5: the code with the largest base that is not above the value.
    fn based(value: usize, bases: impl Iterator<Item = (usize, usize)>) -> (usize, usize, usize) {
        let (n, (base, extra)) =
            bases.enumerate().take_while(|(_, (base, _))| *base <= value).last().unwrap();
        (n, value - base, extra)
    }

    fn token(&mut self, token: &Token) {
        match token {
            Literal(byte) => {
                self.begin(false);
                self.symbol(usize::from(*byte));
            }
            Copy { len, distance } => {
                self.begin(false);
                // Four codes to each number of extra bits, after eight without; 258 has a code of its own.
                let lengths = (0..8).map(|n| (n + 3, 0)).chain((8..28).map(|n| {
                    let extra = n / 4 - 1;
                    (3 + ((4 + n % 4) << extra), extra)
                }));
                let (n, rest, extra) = Self::based(*len, lengths.chain([(258, 0)]));
                self.symbol(257 + n);
                self.put(rest, extra);
                let distances = (0..4).map(|n| (n + 1, 0)).chain((4..30).map(|n| {
                    let extra = n / 2 - 1;
                    (1 + ((2 + n % 2) << extra), extra)
                }));
                let (n, rest, extra) = Self::based(*distance, distances);
                self.code(n, 5);
                self.put(rest, extra);
            }
            Stored(bytes) => {
                self.end();
                self.stored(bytes);
            }
            EndBlock { last } => {
                self.end();
                if *last {
                    // An empty one, behind which the next begins at a byte.
                    self.begin(true);
                    self.end();
                    self.put(0, self.bits.next_multiple_of(8) - self.bits);
                }
            }
        }
    }

    /// The message, without its tail: the header of an empty stored block.
    fn finish(mut self) -> Vec<u8> {
        self.end();
        self.put(0, 3);
        self.bytes
    }
}

fn message(tokens: &[Token]) -> Vec<u8> {
    let mut writer = Writer::default();
    tokens.iter().for_each(|token| writer.token(token));
    writer.finish()
}

/// What tokens mean; `seen` is what can be referred to. `None`: they refer to something else.
fn meaning(tokens: &[Token], seen: &mut Vec<u8>, window: usize) -> Option<Vec<u8>> {
    let mut said = Vec::new();
    for token in tokens {
        let from = seen.len();
        match token {
            Literal(byte) => seen.push(*byte),
            Stored(bytes) => seen.extend(bytes),
            Copy { distance, .. } if *distance > seen.len().min(window) => return None,
            Copy { len, distance } => (0..*len).for_each(|_| seen.push(seen[seen.len() - distance])),
            EndBlock { .. } => {}
        }
        said.extend(&seen[from..]);
        if let EndBlock { last: true } = token {
            seen.clear();
        }
    }
    Some(said)
}

fn token() -> impl Strategy<Value = Token> {
    prop_oneof![
        6 => any::<u8>().prop_map(Literal),
        6 => (3..=258_usize, 1..=32768_usize).prop_map(|(len, distance)| Copy { len, distance }),
        2 => (3..=258_usize, 1..=300_usize).prop_map(|(len, distance)| Copy { len, distance }),
        1 => (3..=258_usize, 1..=4_usize).prop_map(|(len, distance)| Copy { len, distance }),
        1 => vec(any::<u8>(), 0..600).prop_map(Stored),
        1 => any::<bool>().prop_map(|last| EndBlock { last }),
    ]
}

/// Brings distances into what there is to refer to: often to the very end of that.
fn keep_to(tokens: &mut [Token], seen: &mut Vec<u8>, window: usize) -> Vec<u8> {
    let mut said = Vec::new();
    for token in tokens {
        let most = seen.len().min(window);
        match token {
            Copy { .. } if most == 0 => *token = Literal(b'0'),
            Copy { distance, .. } => *distance = if *distance % 3 == 0 { most } else { 1 + *distance % most },
            _ => {}
        }
        said.extend(meaning(std::slice::from_ref(token), seen, window).unwrap());
    }
    said
}

fn bits() -> impl Strategy<Value = u8> {
    prop_oneof![Just(8), Just(9), Just(12), Just(15)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn whatever_a_compressor_says_within_its_window(
        messages in vec(vec(token(), 0..120), 1..4),
        bits in bits(),
        takeover: bool,
        split in (1..80_usize, 1..700_usize),
    ) {
        let mut inflater = inflater(bits);
        let mut seen = Vec::new();
        for mut tokens in messages {
            let expected = keep_to(&mut tokens, &mut seen, 1 << bits);
            let wire = message(&tokens);
            let inflated = receive(&mut *inflater, &wire, split, Window { bits, takeover });
            prop_assert_eq!(inflated, Ok(expected));
            if !takeover {
                seen.clear();
            }
        }
    }

    #[test]
    fn whatever_refers_to_what_is_not_there_is_corrupt(
        mut before in vec(token(), 0..60),
        // Enough for the library to take its fast way, or not.
        after in 0..40_usize,
        beyond in 1..400_usize,
        bits in bits(),
        split in (1..80_usize, 1..700_usize),
    ) {
        let (mut inflater, mut seen) = (inflater(bits), Vec::new());
        // Leaves something in every byte of the window.
        receive(&mut *inflater, &message(&[Stored(vec![b's'; 40000])]), WHOLE, FRESH).unwrap();
        keep_to(&mut before, &mut seen, 1 << bits);
        let there = seen.len().min(1 << bits);
        let distance = there + beyond;
        prop_assume!(distance <= 32768);
        let bad = [Copy { len: 3 + beyond % 256, distance }];
        prop_assert_eq!(meaning(&bad, &mut seen.clone(), 1 << bits), None);
        let tokens = [&before[..], &bad[..], &vec![Literal(b'x'); after]].concat();
        prop_assert_eq!(receive(&mut *inflater, &message(&tokens), split, FRESH), Err(Corrupt));
    }

    #[test]
    fn what_zlib_compressed(
        texts in vec((vec(any::<u8>(), 1..40), 0..3000_usize), 1..5),
        bits in prop_oneof![Just(9_u8), Just(12), Just(15)],
        takeover: bool,
        split in (1..80_usize, 1..700_usize),
    ) {
        let (mut inflater, mut zlib) = (inflater(bits), Zlib::default());
        let window = Window { bits, takeover };
        for (pattern, len) in texts {
            let text: Vec<u8> = pattern.iter().copied().cycle().take(len).chain(pattern.clone()).collect();
            let wire = zlib.deflate(window, &text);
            prop_assert_eq!(receive(&mut *inflater, &wire, split, window), Ok(text));
        }
    }

    #[test]
    fn what_was_broken_is_refused_as_by_zlib_and_then_forgotten(
        pattern in vec(any::<u8>(), 1..60),
        len in 0..2000_usize,
        at: prop::sample::Index,
        broken: u8,
        split in (1..80_usize, 1..700_usize),
    ) {
        let text: Vec<u8> = pattern.iter().copied().cycle().take(len).chain(pattern.clone()).collect();
        let mut wire = Zlib::default().deflate(FRESH, &text);
        *at.get_mut(&mut wire) = broken;
        // Empty blocks, for zlib waits for more where nothing that comes could mend it.
        wire.extend([&TAIL[..], &b"\0\0\0\xff\xff".repeat(100), b"\0"].concat());
        let mut inflater = inflater(15);
        let ours = receive(&mut *inflater, &wire, split, FRESH);
        let theirs = zlib::inflate(&[&wire[..], &TAIL].concat(), 1 << 20);
        prop_assert_eq!(ours.ok(), theirs);
        inflater.end_message(FRESH);
        prop_assert_eq!(receive(&mut *inflater, &message(&[Literal(b'k')]), split, FRESH), Ok(b"k".to_vec()));
    }
}

#[test]
fn the_window_is_used_to_its_last_byte_and_no_further() {
    for bits in [8, 9, 12, 15] {
        let window = 1 << bits;
        // Before it is full, when it is just full, and later.
        for written in [1, 257, window - 1, window, window + 1, 3 * window] {
            let data: Vec<u8> = (0..=250).cycle().take(written).collect();
            let text: Vec<Token> = data.chunks(60000).map(|chunk| Stored(chunk.to_vec())).collect();
            for (len, split) in [(3, WHOLE), (258, WHOLE), (258, (1, 1)), (100, (7, 50))] {
                let most = written.min(window);
                let refer_to = |distance| {
                    let tokens =
                        [&text[..], &[Copy { len, distance }], &[const { Literal(b'x') }; 40]].concat();
                    let inflated = receive(&mut *inflater(bits), &message(&tokens), split, FRESH);
                    assert_eq!(inflated.as_ref().ok(), meaning(&tokens, &mut Vec::new(), window).as_ref());
                    inflated
                };
                assert!(refer_to(most).is_ok(), "{bits} bits, {written} written");
                assert!(most == 32768 || refer_to(most + 1).is_err(), "{bits} bits, {written} written");
            }
        }
    }
}

#[test]
fn nothing_of_an_earlier_message_can_be_referred_to_without_takeover() {
    let secret = message(&[Stored(b"secret".to_vec())]);
    let prying = message(&[Copy { len: 6, distance: 6 }]);
    for split in [WHOLE, (1, 1)] {
        let mut inflater = Inflater::<256>::with_takeover();
        receive(&mut inflater, &secret, split, TAKEOVER).unwrap();
        assert_eq!(receive(&mut inflater, &prying, split, FRESH).as_deref(), Ok(&b"secret"[..]));
        assert_eq!(receive(&mut inflater, &prying, split, FRESH), Err(Corrupt));
        // Nor of what stands before BFINAL.
        inflater.end_message(FRESH);
        let tokens = [Stored(b"secret".to_vec()), EndBlock { last: true }, Copy { len: 6, distance: 6 }];
        assert_eq!(receive(&mut inflater, &message(&tokens), split, TAKEOVER), Err(Corrupt));
        inflater.end_message(FRESH);
        receive(&mut inflater, &message(&tokens[..2]), split, TAKEOVER).unwrap();
        assert_eq!(receive(&mut inflater, &prying, split, FRESH), Err(Corrupt));
    }
}

#[test]
fn blocks_that_are_malformed_are_corrupt() {
    let malformed: [&[u8]; 4] = [
        // Block type 3; a length that does not fit its complement; symbol 286; distance code 30.
        b"\x06",
        b"\x00\x05\x00\xfa\xfe",
        b"\x1b\x03",
        b"\x12\x00\xf3",
    ];
    for wire in malformed {
        assert_eq!(receive(&mut *inflater(8), wire, WHOLE, FRESH), Err(Corrupt), "{wire:x?}");
        assert_eq!(receive(&mut *inflater(8), wire, (1, 1), FRESH), Err(Corrupt), "{wire:x?}");
    }
}
