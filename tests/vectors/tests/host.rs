//! Every vector on the host: whole, cut at every byte, byte by byte, and with small buffers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that is wrong has to stop")]

use longwire_core::ws::{Delivery, MIN_RX};
use longwire_embassy::Inflater;
use longwire_vectors::{Case, Cut, FILE, SETUPS, Setup, Space, cases, vectors};
use std::collections::BTreeSet;
use std::thread;

/// A wire of up to so many bytes is cut at each of them; a longer one, near its ends.
const SHORT: usize = 600;
const NEAR: usize = 16;

fn setups(case: &Case) -> Vec<Setup> {
    let len = case.wire().map_or(0, Iterator::count);
    let mut setups = SETUPS.to_vec();
    if len > 10 * SHORT {
        return setups;
    }
    let at_each = (1..len).filter(|at| len <= SHORT || *at < NEAR || len - *at < NEAR).map(Cut::At);
    for cut in [2, 3, 5, 1000].map(Cut::Every).into_iter().chain(at_each) {
        setups.push(Setup { cut, ..Setup::whole() });
        if case.kind() == "ws" {
            setups.push(Setup { cut, delivery: Delivery::Chunks, rx: MIN_RX, ..Setup::whole() });
        }
    }
    setups
}

/// What goes wrong in these cases, in words.
fn run(cases: impl Iterator<Item = Case>) -> Vec<String> {
    let (mut rx, mut tx) = (vec![0; 1 << 18], vec![0; 4096]);
    let mut inflate = Inflater::<32768>::new();
    let mut space = Space { rx: &mut rx, tx: &mut tx, inflate: &mut inflate };
    let mut wrong = Vec::new();
    for case in cases {
        let failed =
            setups(&case).into_iter().find_map(|setup| Some((setup, case.run(&setup, &mut space).err()?)));
        if let Some((setup, error)) = failed {
            wrong.push(format!(
                "{} {}, wire {}: {error}\n    {setup:?}",
                case.kind(),
                case.name(),
                case.number
            ));
        }
    }
    wrong
}

#[test]
fn every_vector_comes_to_the_same_however_it_arrives() {
    const THREADS: usize = 4;
    let wrong = thread::scope(|scope| {
        let share = |n| scope.spawn(move || run(cases().skip(n).step_by(THREADS)));
        let threads: Vec<_> = (0..THREADS).map(share).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(wrong.is_empty(), "{} cases failed:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn no_line_is_lost_and_no_name_is_there_twice() {
    // Counted without the reader.
    let wires = FILE.lines().filter(|line| line.starts_with("  wire")).count();
    assert_eq!(cases().count(), wires);
    let is_head =
        |line: &&str| line.starts_with(|c: char| c.is_ascii_alphabetic()) && !line.starts_with("let ");
    let names: BTreeSet<_> = vectors().map(|vector| (vector.head.word, vector.head.rest)).collect();
    assert_eq!(names.len(), FILE.lines().filter(is_head).count());
    let is_plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    assert!(names.iter().all(|(_, name)| is_plain(name)), "they are names of files, too: {names:?}");
}
