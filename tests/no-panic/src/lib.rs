//! Shows that no panic can be reached in `longwire-core`.
//!
//! Each program in `bin/` calls a part of the core's public interface (`all` the whole of it) with arguments that the
//! optimiser knows nothing about. The panic handler calls a function that exists nowhere. So a program links only if
//! the optimiser has proved that no panic is left, and removed the handler with its call.
//!
//! `tests/no-panic/run` builds them and, when one does not link, says which lines of which source still panic.
//!
//! The proof is the optimiser's, for the pinned compiler at `opt-level = 3`. At other levels the same source does the
//! same, only the optimiser proves less.
#![no_std]

pub mod buf;

use core::hint::black_box;

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    // Looked at, so that the locations stay in the program.
    black_box(info.location());
    #[cfg(not(feature = "locate"))]
    {
        unsafe extern "C" {
            safe fn a_panic_can_be_reached() -> !;
        }
        a_panic_can_be_reached()
    }
    #[cfg(feature = "locate")]
    loop {}
}

/// Bytes of any content and any length up to `N`.
pub fn any_bytes<const N: usize>(storage: &mut [u8; N]) -> &mut [u8] {
    let len = any::<usize>();
    black_box(storage).get_mut(..len).unwrap_or_default()
}

/// Text of any content, as long as the storage at most.
pub fn any_str<const N: usize>(storage: &mut [u8; N]) -> &str {
    core::str::from_utf8(any_bytes(storage)).unwrap_or_default()
}

/// A number of which nothing is known.
pub fn any<T: Copy + Default>() -> T {
    black_box(T::default())
}
