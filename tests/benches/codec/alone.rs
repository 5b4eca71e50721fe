//! The mask and the UTF-8 check by themselves, beside what the processor allows.

use super::{per, print_table, quickest};
use std::hint::black_box;
use std::time::{Duration, Instant};

const SIZES: [(&str, usize); 4] = [("20 B", 20), ("1 KiB", 1024), ("16 KiB", 16 * 1024), ("1 MiB", 1 << 20)];
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn count(size: usize) -> usize {
    (20_000_000 / (100 + size)).max(8)
}

/// The masks that libraries export, and a loop over words, as the compiler vectorises it: for what the target promises, and
/// with AVX2.
pub(crate) fn mask(rounds: usize) {
    type Mask = fn(&mut [u8], [u8; 4]);
    let masks: [(&str, Mask); 5] = [
        ("longwire-core, `unmask`", |bytes, mask| {
            longwire_core::ws::unmask(bytes, mask);
        }),
        ("fastwebsockets, `unmask`", fastwebsockets::unmask),
        ("sockudo-ws, `simd::apply_mask`", sockudo_ws::simd::apply_mask),
        ("words, baseline of the target", words),
        ("words, AVX2", wide),
    ];
    let times = SIZES.map(|(_, size)| {
        let functions = masks.map(|(_, mask)| mask);
        let time = quickest(rounds, &functions, |mask| {
            let mut bytes = vec![7; size];
            let start = Instant::now();
            for _ in 0..count(size) {
                mask(black_box(&mut bytes), black_box(MASK));
            }
            start.elapsed()
        });
        time.map(|time| per(time, count(size)))
    });
    print_table("mask alone", &SIZES.map(|(name, _)| name), &masks.map(|(name, _)| name), &times);
}

#[inline(always)]
fn body(bytes: &mut [u8], mask: [u8; 4]) {
    let (words, rest) = bytes.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

#[inline(never)]
fn words(bytes: &mut [u8], mask: [u8; 4]) {
    body(bytes, mask);
}

#[cfg(target_arch = "x86_64")]
fn wide(bytes: &mut [u8], mask: [u8; 4]) {
    #[target_feature(enable = "avx2")]
    #[inline(never)]
    fn avx2(bytes: &mut [u8], mask: [u8; 4]) {
        body(bytes, mask);
    }
    assert!(is_x86_feature_detected!("avx2"), "this line of the table wants AVX2");
    // SAFETY: the processor has it, as the line above says.
    unsafe { avx2(bytes, mask) }
}

#[cfg(not(target_arch = "x86_64"))]
fn wide(bytes: &mut [u8], mask: [u8; 4]) {
    words(bytes, mask);
}

/// The checks of libraries export nothing, so ours is measured as a client receives it, without a mask: header,
/// check, event. Below it the checks alone.
pub(crate) fn utf8(rounds: usize) {
    let names = ["longwire-core, client receives", "simdutf8, basic", "core::str"];
    type Check = fn(&[u8], usize) -> Duration;
    let functions: [Check; 3] = [
        client_receives,
        |text, count| time(count, || assert!(simdutf8::basic::from_utf8(black_box(text)).is_ok())),
        |text, count| time(count, || assert!(std::str::from_utf8(black_box(text)).is_ok())),
    ];
    for (what, pattern) in [("mixed text", "né я 世 text "), ("ASCII", "ASCII only, ")] {
        let times = SIZES.map(|(_, size)| {
            let text = cut(pattern, size);
            quickest(rounds, &functions, |check| check(&text, count(size))).map(|time| per(time, count(size)))
        });
        print_table(&format!("UTF-8 alone, {what}"), &SIZES.map(|(name, _)| name), &names, &times);
    }
}

/// Text of just so many bytes.
fn cut(pattern: &str, size: usize) -> Vec<u8> {
    let mut text = String::new();
    for char in pattern.chars().cycle() {
        if text.len() == size {
            break;
        }
        text.push(if text.len() + char.len_utf8() <= size { char } else { '.' });
    }
    text.into_bytes()
}

fn time(count: usize, mut run: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..count {
        run();
    }
    start.elapsed()
}

/// Frames are put where they are read from, uncounted: what is left is the work.
fn client_receives(text: &[u8], count: usize) -> Duration {
    use longwire_core::buf::{Io, RxBuf, RxCursor, TxBuf, TxCursor};
    use longwire_core::time::Instant as At;
    use longwire_core::ws::{Client, Config, Connection, FrameHeader, OpCode, Step};

    static CONFIG: Config = Config::new();
    let now = At::from_millis(0);
    let header =
        FrameHeader { fin: true, rsv1: false, opcode: OpCode::Text, mask: None, len: text.len() as u64 };
    let frame = [header.encode().as_ref(), text].concat();
    let batch = frame.repeat((64 * 1024 / frame.len()).max(1));
    let mut connection = Connection::new(Client(NoMask), black_box(&CONFIG), now);
    let (mut rx, mut rx_at) = (vec![0; batch.len()], RxCursor::new());
    let (mut tx, mut tx_at) = (vec![0; 4096], TxCursor::new());
    let (mut spent, mut done) = (Duration::ZERO, 0);
    while done < count {
        RxBuf::new(&mut rx, &mut rx_at).fill(&batch);
        let start = Instant::now();
        loop {
            let mut io = Io::new(RxBuf::new(&mut rx, &mut rx_at), TxBuf::new(&mut tx, &mut tx_at));
            match connection.poll(now, &mut io) {
                Ok(Step::Event(found)) => drop(black_box(found.event(io.rx))),
                Ok(Step::NeedInput | Step::NeedSpace(_)) => break,
                other => panic!("{other:?}"),
            }
            done += 1;
        }
        spent += start.elapsed();
    }
    // Batches are whole: as if it had been just so many.
    spent.mul_f64(count as f64 / done as f64)
}

/// Nothing is sent.
struct NoMask;

impl longwire_core::rand_core::TryRng for NoMask {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(0)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(0)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.fill(0);
        Ok(())
    }
}
