//! Tells the linker where the memory lies.

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let arm = env::var_os("CARGO_CFG_TARGET_ARCH").is_some_and(|arch| arch == "arm");
    fs::write(out.join("memory.x"), if arm { include_str!("mps2.x") } else { include_str!("riscv32.x") })?;
    println!("cargo::rustc-link-search={}", out.display());
    if !arm {
        println!("cargo::rustc-link-arg-bins=-Tmemory.x");
    }
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    // No padding to a page: the vector table has to lie at address 0.
    println!("cargo::rustc-link-arg-bins=--nmagic");
    println!("cargo::rerun-if-changed=mps2.x");
    println!("cargo::rerun-if-changed=riscv32.x");
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}
