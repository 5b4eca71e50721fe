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
pub mod http;
pub mod log;
pub mod session;
pub mod sse;
pub mod ws;

use core::fmt::{self, Debug, Display, Write as _};
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

/// One of the values that are listed, and nobody knows which.
pub fn one_of<T: Copy, const N: usize>(values: [T; N]) -> Option<T> {
    values.get(any::<usize>()).copied()
}

/// Makes a value unknown in place: whatever state it can be in, it may be in.
pub fn forget<T>(value: &mut T) -> &mut T {
    black_box(value)
}

/// Writes a value as it is shown to people.
pub fn display(value: impl Display) {
    let _ = black_box(write!(Nowhere, "{}", black_box(value)));
}

/// Writes a value in both ways. Not for those that hold text: the escapes of a `str`'s `Debug` are the standard
/// library's, and may panic as far as the optimiser can see.
pub fn show(value: impl Display + Debug) {
    let value = black_box(value);
    let _ = black_box(write!(Nowhere, "{value} {value:?}"));
}

/// Takes any text, or fails.
struct Nowhere;

impl fmt::Write for Nowhere {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        black_box(text);
        black_box(Ok(()))
    }
}

/// Numbers of which nothing is known.
pub struct Unknown;

impl longwire_core::rand_core::TryRng for Unknown {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(any())
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(any())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        black_box(bytes);
        Ok(())
    }
}

impl longwire_core::rand_core::TryCryptoRng for Unknown {}
