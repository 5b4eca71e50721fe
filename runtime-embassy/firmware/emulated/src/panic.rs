//! The last words.

use core::panic::PanicInfo;

use crate::host;

/// Says where it was, and ends the emulator with status 101. The message would bring the whole of `core::fmt` with it, and
/// the place is enough to find it.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(place) => host::print(format_args!("panic at {}:{}", place.file(), place.line())),
        None => host::print(format_args!("panic")),
    }
    host::exit(101)
}
