//! The host behind the emulator, reached by Arm semihosting: arguments in, an exit status out, and randomness,
//! which this board has no source of.

use cortex_m_semihosting::{nr, syscall};

/// "The application ended": the reason that gives the emulator the exit status which follows it.
const APPLICATION_EXIT: usize = 0x20026;
const SYS_EXIT_EXTENDED: usize = 0x20;

/// Ends the emulator with this exit status.
pub fn exit(status: usize) -> ! {
    // SAFETY: the operation takes a block of two words.
    unsafe { syscall(SYS_EXIT_EXTENDED, &[APPLICATION_EXIT, status]) };
    loop {
        cortex_m::asm::wfi();
    }
}

/// The command line after the program's name, as words. Empty when it does not fit `line`.
pub fn arguments(line: &mut [u8]) -> impl Iterator<Item = &str> {
    let mut block = [line.as_mut_ptr() as usize, line.len()];
    let asked = (&raw mut block).cast::<[usize; 2]>();
    // SAFETY: a block of an address and a length, of memory that is lent to us; the host writes both.
    let failed = unsafe { cortex_m_semihosting::syscall1(nr::GET_CMDLINE, asked as usize) } != 0;
    // SAFETY: `block` is alive; it is read anew, for the host changed it behind the compiler's back.
    let [_, len] = unsafe { asked.read_volatile() };
    let line = if failed { &[] } else { line.get(..len).unwrap_or_default() };
    let line = core::str::from_utf8(line).unwrap_or_default();
    line.trim_end_matches('\0').split_ascii_whitespace().skip(1)
}

/// Fills `bytes` from the host's generator; false when it has none.
#[must_use]
pub fn random(bytes: &mut [u8]) -> bool {
    const PATH: &core::ffi::CStr = c"/dev/urandom";
    const READ_BINARY: usize = 1;
    // SAFETY: the blocks are laid out as the operations want them, and what they point to outlives the calls.
    // `read` answers with the number of bytes that are missing.
    unsafe {
        let handle = syscall(nr::OPEN, &[PATH.as_ptr() as usize, READ_BINARY, PATH.count_bytes()]);
        if handle == usize::MAX {
            return false;
        }
        let missing = syscall(nr::READ, &[handle, bytes.as_mut_ptr() as usize, bytes.len()]);
        syscall(nr::CLOSE, &[handle]);
        missing == 0
    }
}
