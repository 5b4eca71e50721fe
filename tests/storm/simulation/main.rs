//! Simulates 100,000 clients whose server restarts, prints what happens, and draws it: see `tests/storm/README.md`.
//!
//!     cargo run --release -p longwire-tests --example storm-simulation [-- --seed N] [--svg FILE]

mod plot;
#[path = "mod.rs"]
mod simulation;

use plot::{Column, Curve, svg};
use simulation::client::Rule;
use simulation::{announced, stories, world};
use std::time::Duration;

/// What is drawn: this long, in steps of (milliseconds).
const SHOWN: u32 = 40_000;
const STEP: u32 = 200;

const RULES: [(Rule, &str); 4] = [
    (Rule::Longwire, "longwire"),
    (Rule::JitterAlone, "full jitter, no window"),
    (Rule::Exponential, "exponential, no jitter"),
    (Rule::Fixed, "fixed delay of 1 s"),
];

fn main() {
    let (mut seed, mut file) = (1, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--seed", Some(number)) => seed = number.parse().expect("--seed takes a number"),
            ("--svg", Some(name)) => file = Some(name),
            _ => panic!("options: --seed N, --svg FILE"),
        }
    }
    println!(
        "| | | connects in the worst second | against the window's rate | nobody there | refused | closed | dropped | median back | 99 % | last |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let titles = ["restart in good order, away for 2 s", "killed, away for 10 s"];
    let mut columns = titles.map(|title| Column { title, away: 0.0, curves: Vec::new() });
    for (rule, name) in RULES {
        for (story, column) in stories(rule, seed).into_iter().zip(&mut columns) {
            let Column { title, away, curves } = column;
            *away = story.away.as_secs_f64();
            let outcome = world::run(story);
            let back = |part| match outcome.recovered(story.clients, part) {
                Some(after) => format!("{:.1} s", after.as_secs_f64()),
                None => "never".to_owned(),
            };
            println!(
                "| {title} | {} | {} | {:.2} | {} | {} | {} | {} | {} | {} | {} |",
                name,
                outcome.peak(),
                outcome.peak() as f64 / announced(&story),
                outcome.nobody,
                outcome.told,
                outcome.closed,
                outcome.dropped,
                back(500),
                back(990),
                back(1000)
            );
            curves.push(Curve { name, peak: outcome.peak(), rates: rates(&outcome.attempts) });
        }
    }
    if let Some(file) = file {
        let rate = announced(&stories(Rule::Longwire, seed)[0]);
        let drawing = svg(&columns, Duration::from_millis(STEP.into()).as_secs_f64(), rate);
        std::fs::write(&file, drawing).expect("the file can be written");
    }
}

/// Attempts in the second before each step.
fn rates(attempts: &[u32]) -> Vec<usize> {
    let before = |at: u32| attempts.partition_point(|attempt| *attempt < at);
    (1..=SHOWN / STEP).map(|n| before(n * STEP) - before((n * STEP).saturating_sub(1000))).collect()
}
