//! What is known of the peers is what the corpora show, and what the README says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that is wrong has to stop")]

use longwire_fuzz::{DIFFERENTIALS, Differential, Known};
use std::{fmt::Write, fs, path::Path};

#[test]
fn the_corpus_shows_every_known_difference() {
    for Differential { name, compare, known } in DIFFERENTIALS {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let files = fs::read_dir(corpus).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap());
        let met: Vec<_> = files.flat_map(|file| compare(&file)).collect();
        for known in known {
            assert!(met.contains(known), "{name}: no input of the corpus shows this any more: {known:?}");
        }
        for met in met {
            assert!(known.contains(&met), "{name}: not in its table: {met:?}");
        }
    }
}

#[test]
fn the_readme_shows_every_known_difference() {
    let mut table = String::new();
    for Differential { name, known, .. } in DIFFERENTIALS {
        writeln!(table, "### `{name}`\n").unwrap();
        writeln!(table, "| input | longwire | peer | by the standard |\n|---|---|---|---|").unwrap();
        for Known { input, longwire, peer, standard } in known {
            writeln!(table, "| {input} | {longwire} | {peer} | {standard} |").unwrap();
        }
        table.push('\n');
    }
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    assert!(readme.contains(table.trim_end()), "README.md should have\n\n{table}");
}
