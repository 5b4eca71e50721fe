//! Tells the linker of an emulated board where the memory lies.

use std::{env, io};

fn main() -> io::Result<()> {
    // cortex-m-rt and riscv-rt read the board's memory.x by these.
    let arguments = match env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("riscv32") => ["-Tmemory.x", "-Tlink.x"],
        // No padding to a page: the vector table has to lie at address 0.
        _ => ["-Tlink.x", "--nmagic"],
    };
    println!("cargo::rustc-link-search={}", env::current_dir()?.display());
    for argument in arguments {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rerun-if-changed=memory.x");
    println!("cargo::rerun-if-changed=../build.rs");
    Ok(())
}
