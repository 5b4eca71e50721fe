//! The control: it does panic, so it must not link. If it does, the others prove nothing.
#![no_std]
#![no_main]

#[unsafe(no_mangle)]
extern "C" fn main() {
    let mut storage = [0; 8];
    let bytes = longwire_no_panic::any_bytes(&mut storage);
    core::hint::black_box(bytes[longwire_no_panic::any::<usize>()]);
}
