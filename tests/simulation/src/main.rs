//! Tells stories on all processors, and says how many a second.
//!
//!     cargo run --release -- --stories 100000 [--first SEED]    # one after the other
//!     cargo run --release -- --seed SEED                        # one, with all that happens

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use longwire_simulation::{Told, tell};

/// As many failures are shown.
const SHOWN: usize = 10;

fn main() -> ExitCode {
    let (mut stories, mut first, mut seed) = (10_000, 0, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let number = arguments.next().and_then(|number| number.parse().ok());
        match (argument.as_str(), number) {
            ("--stories", Some(number)) => stories = number,
            ("--first", Some(number)) => first = number,
            ("--seed", Some(number)) => seed = Some(number),
            _ => {
                eprintln!("options: --stories N, --first SEED, --seed SEED");
                return ExitCode::from(2);
            }
        }
    }
    match seed {
        Some(seed) => one(seed),
        None => many(first, stories),
    }
}

fn one(seed: u64) -> ExitCode {
    match tell(seed, true) {
        Ok(told) => println!("{told:#?}"),
        Err(error) => {
            println!("seed {seed}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn many(first: u64, stories: u64) -> ExitCode {
    let begin = Instant::now();
    let (next, sum) = (AtomicU64::new(0), Mutex::new(Told::default()));
    let failed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // What a story says when it fails by a panic is said by the seed instead.
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut told = Told::default();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= stories {
                        break;
                    }
                    match catch_unwind(AssertUnwindSafe(|| tell(first + n, false))) {
                        Ok(Ok(story)) => told += story,
                        Ok(Err(error)) => failed.lock().expect("no panic here").push((first + n, error)),
                        Err(_) => failed.lock().expect("no panic here").push((first + n, "a panic".into())),
                    }
                }
                *sum.lock().expect("no panic here") += told;
            });
        }
    });
    let failed = failed.into_inner().expect("no panic here");
    let seconds = begin.elapsed().as_secs_f64();
    println!("{:?}", sum.into_inner().expect("no panic here"));
    println!(
        "{stories} stories on {threads} threads in {seconds:.1} s: {:.0} a second; {} failed",
        stories as f64 / seconds,
        failed.len()
    );
    for (seed, error) in failed.iter().take(SHOWN) {
        println!("seed {seed}: {error}\n    cargo run --release -- --seed {seed}");
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
