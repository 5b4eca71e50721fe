//! Which linker scripts there are: embassy-stm32 knows where the memory lies.

fn main() {
    println!("cargo::rustc-link-arg-bins=--nmagic");
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LONGWIRE");
    println!("cargo::rerun-if-env-changed=LONGWIRE_CA");
}
