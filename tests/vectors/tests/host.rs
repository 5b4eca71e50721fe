//! Every vector on the host: whole, cut at every byte, byte by byte, and with small buffers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that is wrong has to stop")]

use longwire_core::ws::{Delivery, MIN_RX};
use longwire_vectors::{Cut, FILE, SETUPS, Setup, Space, cases, vectors};
use std::collections::BTreeSet;

/// A wire of up to so many bytes is cut at each of them; a longer one, near its ends.
const SHORT: usize = 600;
const NEAR: usize = 16;

fn setups(kind: &str, len: usize) -> Vec<Setup> {
    let mut setups = SETUPS.to_vec();
    if len > 10 * SHORT {
        return setups;
    }
    let at_each = (1..len).filter(|at| len <= SHORT || *at < NEAR || len - *at < NEAR).map(Cut::At);
    for cut in [2, 3, 5, 1000].map(Cut::Every).into_iter().chain(at_each) {
        setups.push(Setup { cut, ..Setup::whole() });
        if kind == "ws" {
            setups.push(Setup { cut, delivery: Delivery::Chunks, rx: MIN_RX, ..Setup::whole() });
        }
    }
    setups
}

#[test]
fn every_vector_comes_to_the_same_however_it_arrives() {
    let (mut rx, mut tx) = (vec![0; 1 << 18], vec![0; 4096]);
    let mut wrong = Vec::new();
    for case in cases() {
        let len = case.wire().map_or(0, Iterator::count);
        let run = |setup: Setup| {
            case.run(&setup, &mut Space { rx: &mut rx, tx: &mut tx }).err().map(|wrong| (setup, wrong))
        };
        if let Some((setup, error)) = setups(case.kind(), len).into_iter().find_map(run) {
            wrong.push(format!(
                "{} {}, wire {}: {error}\n    {setup:?}",
                case.kind(),
                case.name(),
                case.number
            ));
        }
    }
    assert!(wrong.is_empty(), "{} cases failed:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn no_line_is_lost_and_no_name_is_there_twice() {
    let wires = FILE.lines().filter(|line| line.starts_with("  wire")).count();
    assert_eq!(cases().count(), wires);
    let heads = FILE
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_alphabetic()) && !line.starts_with("let "));
    let names: BTreeSet<_> = vectors().map(|vector| (vector.head.word, vector.head.rest)).collect();
    assert_eq!(names.len(), heads.count());
    let is_plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    assert!(names.iter().all(|(_, name)| is_plain(name)), "names are names of files, too: {names:?}");
}
