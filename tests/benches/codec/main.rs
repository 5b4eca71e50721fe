//! What one message costs in memory, beside other libraries: nanoseconds, and the ratio to this one.
//!
//! `cargo bench --manifest-path tests/benches/codec/Cargo.toml`; `README.md` holds what it printed.
//!
//! Libraries take turns within a cell, and of many rounds the quickest counts: on a machine that others use, too, that
//! is the round in which they disturbed least. That is why it brings its own loop instead of a harness, which would
//! measure one library after the other.

mod alone;
mod memory;
mod peers;

use memory::{Case, Kind};
use peers::PEERS;
use std::time::Duration;

const HELP: &str = "\
What one message costs in memory, beside other libraries.

  --rounds N   how often each cell is measured; the quickest counts (default 30)
";

fn main() {
    let rounds = rounds();
    // Some peers ask for the runtime's clock when they are made; nothing is ever spawned.
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _entered = runtime.enter();

    let cases = [
        Case::new("20 B", Kind::Binary, 20),
        Case::new("1 KiB", Kind::Binary, 1024),
        Case::new("16 KiB", Kind::Binary, 16 * 1024),
        Case::new("1 MiB", Kind::Binary, 1 << 20),
        Case::new("1 MiB mixed text", Kind::Text, 1 << 20),
    ];
    println!("| library | version | driven over |\n|---|---|---|");
    for peer in &PEERS {
        println!("| {} | {} | {} |", peer.name, peers::version(peer.name), peer.over);
    }
    let names = PEERS.map(|peer| peer.name);
    for (what, functions) in [
        ("received by a server", PEERS.map(|peer| peer.receive)),
        ("sent by a server", PEERS.map(|peer| peer.send)),
    ] {
        let times = cases.each_ref().map(|case| {
            quickest(rounds, &functions, |function| function(case)).map(|time| per(time, case.count))
        });
        print_table(what, &cases.each_ref().map(|case| case.name), &names, &times);
    }
    alone::mask(rounds);
    alone::utf8(rounds);
}

fn rounds() -> usize {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let rounds = match arguments.next().as_deref() {
        None => Some(30),
        Some("--rounds") => arguments.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0),
        Some(_) => None,
    };
    rounds.filter(|_| arguments.next().is_none()).unwrap_or_else(|| {
        eprint!("{HELP}");
        std::process::exit(2)
    })
}

/// The quickest of some rounds, in each of which all take their turn.
fn quickest<F, const N: usize>(
    rounds: usize,
    functions: &[F; N],
    run: impl Fn(&F) -> Duration,
) -> [Duration; N] {
    let mut best = [Duration::MAX; N];
    for _ in 0..rounds {
        for (best, function) in best.iter_mut().zip(functions) {
            *best = run(function).min(*best);
        }
    }
    best
}

/// Nanoseconds of one.
fn per(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e9 / count as f64
}

/// Nanoseconds, and in brackets how many times what the first line takes. `times` has a column for each size.
fn print_table<const N: usize>(what: &str, sizes: &[&str], names: &[&str; N], times: &[[f64; N]]) {
    println!("\n| {what}: ns (times the first line) | {} |", sizes.join(" | "));
    println!("|---|{}", "--:|".repeat(sizes.len()));
    for (row, name) in names.iter().enumerate() {
        print!("| {name} |");
        for column in times {
            print!(" {} ({:.2}) |", significant(column[row]), column[row] / column[0]);
        }
        println!();
    }
    print!("| quickest of the others |");
    for column in times {
        let best = column[1..].iter().copied().fold(f64::INFINITY, f64::min);
        print!(" **{:.2}** |", best / column[0]);
    }
    println!();
}

fn significant(ns: f64) -> String {
    if ns < 100.0 { format!("{ns:.1}") } else { format!("{ns:.0}") }
}
