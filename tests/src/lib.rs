//! What the integration tests share: real processes, and small clients over plain sockets.
//!
//! Nothing of longwire is used here, so that a mistake in it cannot hide itself: [`http`], [`ws`] and [`reader`] are
//! written from the RFCs and from `core/PROTOCOL.md`. They block, and every wait ends after [`PATIENCE`] with a panic
//! that says what was waited for.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

pub mod cbor;
pub mod command_line;
pub mod device;
pub mod dns;
pub mod gateway;
pub mod http;
pub mod network;
pub mod process;
pub mod proxy;
pub mod reader;
pub mod refusal;
pub mod relay;
pub mod rng;
pub mod tls;
pub mod ws;

/// How long a test waits for something that should happen soon. Generous: a slow machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_path_buf()
}

/// The program `longwire`: `$LONGWIRE_BIN`, or else what cargo builds (or has built) in the release profile.
pub fn longwire() -> Command {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    Command::new(PROGRAM.get_or_init(|| match std::env::var_os("LONGWIRE_BIN") {
        Some(program) => program.into(),
        None => cargo_build(&workspace(), &["-p", "longwire"]),
    }))
}

/// The firmware that runs `tests/vectors` on this board, as an ELF file; cargo builds it if it has to.
pub fn vectors_firmware(board: device::Board) -> PathBuf {
    cargo_build(&workspace().join("tests/vectors/firmware"), &["--target", board.target()])
}

/// The interpreter that `tests/setup/python` made, with one of the scripts in `tests/clients/python`.
pub fn python(script: &str) -> Command {
    let interpreter = workspace().join("tests/.setup/venv/bin/python");
    assert!(interpreter.exists(), "{} is missing: run tests/run setup", interpreter.display());
    let mut command = Command::new(interpreter);
    command.arg(workspace().join("tests/clients/python").join(script));
    command
}

/// Node with one of the scripts in `tests/clients`. `tests/setup/node` installed their libraries, and a Node of its own
/// if the machine's was too old.
pub fn node(script: &str) -> Command {
    let script = workspace().join("tests/clients").join(script);
    let libraries = script.with_file_name("node_modules");
    assert!(libraries.exists(), "{} is missing: run tests/run setup", libraries.display());
    let own = workspace().join("tests/.setup/node/node_modules/.bin/node");
    let mut command = Command::new(if own.exists() { own } else { "node".into() });
    command.arg(script);
    command
}

/// Builds in the release profile and returns the one executable that came out.
fn cargo_build(folder: &Path, arguments: &[&str]) -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "--message-format=json-render-diagnostics"])
        .args(arguments)
        .current_dir(folder)
        // A firmware has a target and flags of its own, in its .cargo/config.toml.
        .env_remove("RUSTFLAGS")
        .output()
        .expect("cargo starts");
    assert!(
        output.status.success(),
        "cargo build in {}:\n{}",
        folder.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("the build has an executable")
}
