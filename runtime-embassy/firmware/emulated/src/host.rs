//! The emulator's host, through semihosting: <https://github.com/ARM-software/abi-aa/blob/main/semihosting/semihosting.rst>,
//! and for RISC-V <https://github.com/riscv-non-isa/riscv-semihosting>.

use core::arch::asm;
use core::ffi::CStr;
use core::fmt::{self, Write as _};

/// Numbers of the operations.
mod operation {
    pub(super) const OPEN: usize = 0x01;
    pub(super) const CLOSE: usize = 0x02;
    pub(super) const WRITE: usize = 0x05;
    pub(super) const READ: usize = 0x06;
    pub(super) const SEEK: usize = 0x0a;
    pub(super) const FLEN: usize = 0x0c;
    pub(super) const GET_CMDLINE: usize = 0x15;
    pub(super) const EXIT_EXTENDED: usize = 0x20;
}

/// "The application ended": the reason that gives the emulator the exit status which follows it.
const APPLICATION_EXIT: usize = 0x20026;

/// Modes of `fopen`: "rb", "r+b", "w", and "w+b".
const READ_BINARY: usize = 1;
const UPDATE_BINARY: usize = 3;
const WRITE: usize = 4;
const CREATE_BINARY: usize = 7;

/// Traps to the host with an operation and its block of arguments, and returns the answer.
///
/// # Safety
/// The block is as the operation wants it, and what it points to may be read, or written, as that says.
unsafe fn syscall<const N: usize>(operation: usize, block: &mut [usize; N]) -> usize {
    let answer;
    // SAFETY: the instructions do nothing but trap to the host, which answers in the register of the operation and may
    // read and write memory by way of the block: the asm block may touch memory, for it is not told otherwise.
    unsafe {
        #[cfg(target_arch = "arm")]
        asm!("bkpt #0xab", inlateout("r0") operation => answer, in("r1") block.as_mut_ptr());
        // Three instructions that are recognised together, uncompressed and within one page.
        #[cfg(target_arch = "riscv32")]
        asm!(
            ".balign 16",
            ".option push",
            ".option norvc",
            "slli zero, zero, 0x1f",
            "ebreak",
            "srai zero, zero, 7",
            ".option pop",
            inlateout("a0") operation => answer,
            in("a1") block.as_mut_ptr(),
        );
    }
    answer
}

fn open(path: &CStr, mode: usize) -> Option<usize> {
    let mut block = [path.as_ptr() as usize, mode, path.count_bytes()];
    // SAFETY: name, mode and length of the name, which is read.
    let handle = unsafe { syscall(operation::OPEN, &mut block) };
    (handle != usize::MAX).then_some(handle)
}

/// Ends the emulator with this exit status.
pub fn exit(status: usize) -> ! {
    loop {
        // SAFETY: the operation takes two words by value. It does not return.
        unsafe { syscall(operation::EXIT_EXTENDED, &mut [APPLICATION_EXIT, status]) };
    }
}

/// The command line after the program's name, as words. Empty when it does not fit `line`.
pub fn arguments(line: &mut [u8]) -> impl Iterator<Item = &str> {
    let mut block = [line.as_mut_ptr() as usize, line.len()];
    // SAFETY: a block of an address and a length, of memory that is lent to us; the host writes both.
    let failed = unsafe { syscall(operation::GET_CMDLINE, &mut block) } != 0;
    let [_, len] = block;
    let line = if failed { &[] } else { line.get(..len).unwrap_or_default() };
    let line = core::str::from_utf8(line).unwrap_or_default();
    line.trim_end_matches('\0').split_ascii_whitespace().skip(1)
}

/// Fills `bytes` from the host's generator; false when it has none.
#[must_use]
pub fn random(bytes: &mut [u8]) -> bool {
    read(c"/dev/urandom", bytes) == Some(bytes.len())
}

/// The host's file of this name; `None` if there is none, or if it does not leave a byte of `space` free.
#[cfg(feature = "tls")]
pub fn file<'s>(name: &str, space: &'s mut [u8]) -> Option<&'s [u8]> {
    let mut path = [0; 128];
    path.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    let len = read(CStr::from_bytes_until_nul(&path).ok()?, space)?;
    if len < space.len() { space.get(..len) } else { None }
}

/// Reads up to so many bytes, and says how many there were.
fn read(path: &CStr, bytes: &mut [u8]) -> Option<usize> {
    let file = open(path, READ_BINARY)?;
    // SAFETY: handle, address and length of bytes that the host writes; then the handle. `READ` answers with the number
    // of bytes that are missing.
    unsafe {
        let missing = syscall(operation::READ, &mut [file, bytes.as_mut_ptr() as usize, bytes.len()]);
        syscall(operation::CLOSE, &mut [file]);
        bytes.len().checked_sub(missing)
    }
}

/// A file of the host's, which is never closed. What was written to it is there whenever the emulator ends.
pub struct File(usize);

/// Longest path of a file.
const MAX_PATH: usize = 160;

impl File {
    /// Opens a file, or makes an empty one.
    pub fn open(path: &str) -> Option<Self> {
        let mut name = [0; MAX_PATH + 1];
        name.get_mut(..path.len())?.copy_from_slice(path.as_bytes());
        let name = CStr::from_bytes_until_nul(&name).ok()?;
        open(name, UPDATE_BINARY).or_else(|| open(name, CREATE_BINARY)).map(Self)
    }

    /// Its size in bytes; 0 when the host does not say.
    pub fn size(&self) -> usize {
        // SAFETY: the handle.
        let len = unsafe { syscall(operation::FLEN, &mut [self.0]) };
        if len == usize::MAX { 0 } else { len }
    }

    /// Fills `bytes` from this offset on; false when that fails.
    #[must_use]
    pub fn read(&mut self, offset: usize, bytes: &mut [u8]) -> bool {
        // SAFETY: handle, address and length of bytes that the host writes. The answer is the number of those that are missing.
        self.seek(offset)
            && unsafe { syscall(operation::READ, &mut [self.0, bytes.as_mut_ptr() as usize, bytes.len()]) }
                == 0
    }

    /// Writes `bytes` from this offset on; false when that fails.
    #[must_use]
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> bool {
        // SAFETY: handle, address and length of bytes that the host reads. The answer is the number of those that are missing.
        self.seek(offset)
            && unsafe { syscall(operation::WRITE, &mut [self.0, bytes.as_ptr() as usize, bytes.len()]) } == 0
    }

    fn seek(&mut self, offset: usize) -> bool {
        // SAFETY: handle and offset.
        unsafe { syscall(operation::SEEK, &mut [self.0, offset]) == 0 }
    }
}

/// Writes a line to the host's standard output.
pub fn print(line: fmt::Arguments<'_>) {
    if let Some(file) = open(c":tt", WRITE) {
        let mut output = Output { file, line: [0; MAX_PRINT], len: 0 };
        let _ = output.write_fmt(line);
        output.write_line();
        // SAFETY: the handle.
        unsafe { syscall(operation::CLOSE, &mut [file]) };
    }
}

/// The longest line, with its end; the rest is cut off.
const MAX_PRINT: usize = 160;

/// A line, which is written in one piece, so that none gets mixed with what the emulator itself has to say.
struct Output {
    file: usize,
    line: [u8; MAX_PRINT],
    len: usize,
}

impl Output {
    fn write_line(&mut self) {
        let end = self.len.min(MAX_PRINT - 1);
        self.line[end] = b'\n';
        // SAFETY: handle, address and length of bytes that the host reads.
        unsafe { syscall(operation::WRITE, &mut [self.file, self.line.as_ptr() as usize, end + 1]) };
    }
}

impl fmt::Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (to, from) in self.line[self.len..].iter_mut().zip(text.bytes()) {
            *to = from;
            self.len += 1;
        }
        Ok(())
    }
}
