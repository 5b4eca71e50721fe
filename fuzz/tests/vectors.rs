//! The seeds that are made of `tests/vectors`, each `corpus/TARGET/vector-KIND-NAME`, are what the vectors say.
//!
//! ```text
//! VECTORS=write cargo test -p longwire-fuzz --test vectors     # after a change of the vectors, or of an input's layout
//! ```
#![allow(clippy::unwrap_used, reason = "a test that is wrong has to stop")]

use longwire_vectors::{Case, cases};
use std::{collections::BTreeMap, fs, path::Path};

/// Longer wires are many times the same; a fuzzer makes these by itself.
const LONGEST: usize = 600;

/// By target and name.
type Seeds = BTreeMap<(String, String), Vec<u8>>;

/// The inputs that a case is, by target: see the documentation of the targets for the bytes before the wire.
fn inputs(case: &Case) -> Vec<(&'static str, Vec<u8>)> {
    // Small buffers, which cut a wire into pieces of at most five bytes.
    const CUTS: [u8; 2] = [5, 1];
    let number = |word| case.vector.line(word).and_then(|line| line.rest.parse::<u64>().ok());
    let is = |word, rest| case.vector.line(word).is_some_and(|line| line.rest == rest);
    let with = |setup: &[u8]| setup.iter().copied().chain(case.wire().unwrap()).collect();
    let [longest, seed] = CUTS;
    match case.kind() {
        "ws" => {
            let limit = number("max_message").unwrap_or(u64::MAX);
            let no_limits = u8::from(limit != u64::MAX && limit > u64::from(u32::MAX)) * 8;
            let limit = u8::try_from(limit.div_ceil(64)).unwrap_or(u8::MAX);
            let flags = u8::from(is("role", "client")) | (u8::from(is("delivery", "chunks")) * 2) | no_limits;
            match case.vector.line("extension") {
                None => vec![("ws_connection", with(&[flags, 0, 0, longest, seed, limit]))],
                Some(extension) => {
                    let takeover = u8::from(!extension.rest.contains("takeover")) * 16;
                    vec![("deflate", with(&[0, flags | takeover, 0, 0, longest, seed, limit]))]
                }
            }
        }
        "request" => vec![("http_head", with(&[0, 0, longest, seed])), ("upgrade", with(&[0]))],
        "response" => vec![("http_head", with(&[1, 0, longest, seed])), ("upgrade", with(&[1]))],
        _ => {
            let limit = u8::try_from(number("max_event").unwrap_or(255)).unwrap_or(u8::MAX);
            vec![("sse", with(&[limit, 0, longest, seed]))]
        }
    }
}

fn expected() -> Seeds {
    let short = cases().filter(|case| case.wire().is_ok_and(|wire| wire.count() <= LONGEST));
    let mut seeds = Seeds::new();
    for case in short {
        let name = format!("vector-{}-{}", case.kind(), case.name());
        for (target, input) in inputs(&case) {
            // The first wire of each vector; from there to the others it is a few bits.
            seeds.entry((target.to_owned(), name.clone())).or_insert(input);
        }
    }
    seeds
}

fn found(corpus: &Path) -> Seeds {
    let mut seeds = Seeds::new();
    for folder in fs::read_dir(corpus).unwrap() {
        let folder = folder.unwrap();
        for file in fs::read_dir(folder.path()).unwrap() {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            if name.starts_with("vector-") {
                let target = folder.file_name().into_string().unwrap();
                seeds.insert((target, name), fs::read(file.path()).unwrap());
            }
        }
    }
    seeds
}

#[test]
fn the_seeds_are_the_vectors() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let expected = expected();
    if std::env::var_os("VECTORS").is_some_and(|how| how == "write") {
        let path = |(target, name): &(String, String)| corpus.join(target).join(name);
        found(&corpus).keys().for_each(|seed| fs::remove_file(path(seed)).unwrap());
        expected.iter().for_each(|(seed, input)| fs::write(path(seed), input).unwrap());
    }
    let found = found(&corpus);
    let stale = |seed: &&(String, String)| found.get(*seed) != expected.get(*seed);
    let differ: Vec<_> = expected.keys().chain(found.keys()).filter(stale).collect();
    assert!(differ.is_empty(), "VECTORS=write brings these up to date: {differ:?}");
    for target in ["ws_connection", "deflate", "http_head", "upgrade", "sse"] {
        assert!(expected.keys().any(|(name, _)| name == target), "no vector is a seed of {target}");
    }
}
