//! What compression costs: `cargo bench -p longwire --bench deflate`. See `README.md` beside this file.
//!
//! It prints a table and asserts nothing about time.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a program that measures; what fails shall stop it"
)]

use codec::Codec;
use longwire_core::ws::deflate::{Agreed, Deflate, Inflate, TAIL, Window};
use std::fmt::Write;
use std::time::Duration;

/// The codecs are the crate's own affair.
#[path = "../src/websocket/deflate/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "of the crate's")]
mod codec;

/// What a size and a level are measured with: the best of so many runs of so many messages.
const RUNS: usize = 200;
const MESSAGES: u32 = 50;

fn main() {
    println!("| JSON, bytes | level | window | bytes sent | us to compress | us to inflate |");
    println!("|---|---|---|---|---|---|");
    for len in [100, 200, 512, 1024, 4096, 16_384, 65_536] {
        let data = json(len);
        for level in [1, 2, 3, 6] {
            row(&data, level, 15);
        }
        row(&data, 1, 10);
    }
}

fn row(data: &[u8], level: u8, bits: u8) {
    let window = Window { bits, takeover: false };
    let mut codec = Codec::new(Some(Agreed { server: window, client: window }));
    let mut space = vec![0; data.len()];
    let mut sent = None;
    let compress = best(|| sent = codec.deflater(level).deflate_message(window, data, &mut space));
    let Some(sent) = sent else {
        return println!("| {} | {level} | {bits} | as it is | {compress:.1} | |", data.len());
    };
    let message = [&space[..sent], &TAIL].concat();
    let mut out = vec![0; data.len() + 1];
    let inflate = best(|| {
        let done = codec.inflate(&message, &mut out).unwrap();
        codec.end_message(window);
        assert_eq!(done.written, data.len());
    });
    println!("| {} | {level} | {bits} | {sent} | {compress:.1} | {inflate:.1} |", data.len());
}

/// Microseconds that it takes, when nothing else is in the way.
fn best(mut work: impl FnMut()) -> f64 {
    let run = |_| {
        let start = cpu_time();
        (0..MESSAGES).for_each(|_| work());
        (cpu_time() - start) / MESSAGES
    };
    (0..RUNS).map(run).min().unwrap().as_secs_f64() * 1e6
}

/// The time that this thread has had a processor: what else runs on the machine does not count.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

/// A list of orders, cut off at so many bytes.
fn json(len: usize) -> Vec<u8> {
    let (mut seed, mut text, mut id) = (0x9e37_79b9_7f4a_7c15u64, "[".to_owned(), 1000);
    while text.len() < len {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (user, price, cents) = ((seed >> 33) % 997, (seed >> 20) % 5000, (seed >> 40) % 100);
        let side = if seed & 4096 == 0 { "sell" } else { "buy" };
        write!(
            text,
            r#"{{"id":{id},"user":"user{user}","price":{price}.{cents:02},"side":"{side}","active":true}},"#
        )
        .unwrap();
        id += 1;
    }
    text.truncate(len);
    text.into_bytes()
}
