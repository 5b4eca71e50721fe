//! The vectors of `tests/vectors` on two 32-bit machines, emulated boards. On the host they run in that crate's own tests.

use std::fs;

use longwire_tests::device::Board;
use longwire_tests::process::Program;
use longwire_tests::{vectors_firmware, workspace};

#[test]
fn every_vector_passes_on_32_bits() {
    // Counted without the reader of the vectors, so that one that it overlooks is missed here.
    let file = fs::read_to_string(workspace().join("tests/vectors/vectors.txt")).expect("the vectors");
    let cases = file.lines().filter(|line| line.starts_with("  wire")).count();
    assert!(cases > 600, "{cases} cases: most of the vectors are lost");

    for board in [Board::Mps2, Board::Riscv32] {
        let ended = Program::run(&mut board.emulator(vectors_firmware(board)));
        assert!(ended.status.success(), "{board:?}: {ended:#?}");
        let last = ended.stdout.last().or(ended.stderr.last());
        assert_eq!(last, Some(&format!("{cases} passed, 0 failed")), "{board:?}: {ended:#?}");
    }
}
