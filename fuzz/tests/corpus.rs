//! Replays every corpus, on any toolchain.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that is wrong has to stop")]

use longwire_fuzz::TARGETS;
use std::{fs, path::Path};

fn folder(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn every_corpus_passes() {
    for (name, target) in TARGETS {
        let corpus = folder("corpus").join(name);
        let files = fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display()));
        let mut inputs = 0;
        for file in files {
            let path = file.unwrap().path();
            // Shown only if it fails.
            eprintln!("{}", path.display());
            target(&fs::read(path).unwrap());
            inputs += 1;
        }
        assert!(inputs >= 10, "the corpus of {name} has {inputs} inputs: it was lost, or never checked in");
    }
}

#[test]
fn every_target_is_replayed() {
    let mut files: Vec<_> = fs::read_dir(folder("fuzz_targets"))
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    files.sort();
    let mut names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    assert_eq!(files, names);
}

#[test]
fn a_target_takes_any_short_input() {
    for (_, target) in TARGETS {
        for len in 0..12 {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                target(&vec![byte; len]);
            }
        }
    }
}
