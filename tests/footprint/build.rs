//! The programs are linked and never run: any entry point will do, and no memory map is needed.

fn main() {
    println!("cargo::rustc-link-arg-bins=-e");
    println!("cargo::rustc-link-arg-bins=main");
    println!("cargo::rerun-if-changed=build.rs");
}
