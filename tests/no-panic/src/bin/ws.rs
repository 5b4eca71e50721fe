#![no_std]
#![no_main]

#[unsafe(no_mangle)]
extern "C" fn main() {
    longwire_no_panic::ws::all();
}
