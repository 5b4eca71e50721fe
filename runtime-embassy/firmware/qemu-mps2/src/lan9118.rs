//! The SMSC LAN9118 Ethernet controller, as wired on Arm's MPS2 boards. The processor moves whole frames through two FIFOs,
//! a word at a time.

use longwire_emulated::cortex;
use longwire_emulated::ethernet::{Controller, Frame, MAX_FRAME, received};

/// Number of the controller's interrupt.
pub const IRQ: u16 = 13;

/// Length of the frame check sequence, which the controller adds, checks, and hands over with what it received.
const CHECK: usize = 4;
/// What surrounds a frame in the transmit FIFO: two command words, and padding to a word at either end.
const TX_OVERHEAD: u32 = 16;

/// The memory-mapped registers, by their offset.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Register {
    RxData = 0x00,
    TxData = 0x20,
    RxStatus = 0x40,
    TxStatus = 0x48,
    InterruptConfig = 0x54,
    InterruptStatus = 0x58,
    InterruptEnable = 0x5c,
    ByteTest = 0x64,
    FifoLevels = 0x68,
    RxConfig = 0x6c,
    TxConfig = 0x70,
    HardwareConfig = 0x74,
    RxFifo = 0x7c,
    TxFifo = 0x80,
    MacCommand = 0xa4,
    MacData = 0xa8,
}
use Register::*;

const BASE: usize = 0x4020_0000;

/// "The receive status FIFO holds more than its level", in the interrupt registers.
const RX_LEVEL: u32 = 1 << 3;

/// Registers of the MAC, behind a pair of the others.
const MAC_CONTROL: u32 = 1;
const MAC_ADDRESS_HIGH: u32 = 2;
const MAC_ADDRESS_LOW: u32 = 3;

fn read(register: Register) -> u32 {
    // SAFETY: an aligned register of the controller.
    unsafe { ((BASE + register as usize) as *const u32).read_volatile() }
}

fn write(register: Register, value: u32) {
    // SAFETY: as above; the only driver of the controller is this one.
    unsafe { ((BASE + register as usize) as *mut u32).write_volatile(value) }
}

const MAC_BUSY: u32 = 1 << 31;
const MAC_READ: u32 = 1 << 30;

fn read_mac(register: u32) -> u32 {
    write(MacCommand, MAC_BUSY | MAC_READ | register);
    while read(MacCommand) & MAC_BUSY != 0 {}
    read(MacData)
}

fn write_mac(register: u32, value: u32) {
    write(MacData, value);
    write(MacCommand, MAC_BUSY | register);
    while read(MacCommand) & MAC_BUSY != 0 {}
}

/// The controller.
pub struct Lan9118 {
    address: [u8; 6],
}

impl Lan9118 {
    /// Resets the controller and starts it; `None` when there is none at its address.
    pub fn start() -> Option<Self> {
        if read(ByteTest) != 0x8765_4321 {
            return None;
        }
        const SOFT_RESET: u32 = 1;
        write(HardwareConfig, SOFT_RESET);
        while read(HardwareConfig) & SOFT_RESET != 0 {}
        // "Must be one", and 5 of the 16 KiB of memory for what is to be sent.
        write(HardwareConfig, 1 << 20 | 5 << 16);
        write(InterruptEnable, 0);
        write(InterruptStatus, u32::MAX);
        // A received frame interrupts as soon as it is there (level 0).
        write(FifoLevels, 0);
        write(RxConfig, 0);
        // Enabled, active high, driven both ways: otherwise the line stays asserted.
        write(InterruptConfig, 1 << 8 | 1 << 4 | 1);
        let [a, b, c, d] = read_mac(MAC_ADDRESS_LOW).to_le_bytes();
        let [e, f, ..] = read_mac(MAC_ADDRESS_HIGH).to_le_bytes();
        const FULL_DUPLEX: u32 = 1 << 20;
        const TX_ENABLE: u32 = 1 << 3;
        const RX_ENABLE: u32 = 1 << 2;
        write_mac(MAC_CONTROL, FULL_DUPLEX | TX_ENABLE | RX_ENABLE);
        const TX_ON: u32 = 1 << 1;
        write(TxConfig, TX_ON);
        cortex::unmask(IRQ);
        Some(Self { address: [a, b, c, d, e, f] })
    }
}

impl Controller for Lan9118 {
    fn address(&self) -> [u8; 6] {
        self.address
    }

    fn receive(&mut self, frame: &mut Frame) -> Option<usize> {
        while frame_waits() {
            let status = read(RxStatus);
            const BAD: u32 = 1 << 15;
            let len = (status >> 16 & 0x3fff) as usize;
            let frame = match len.checked_sub(CHECK).and_then(|len| frame.get_mut(..len)) {
                Some(frame) if status & BAD == 0 => frame,
                // A frame to be dropped is read out all the same, which keeps both FIFOs in step.
                _ => &mut [],
            };
            let taken = frame.len();
            let mut words = len.div_ceil(4);
            for piece in frame.chunks_mut(4) {
                let word = read(RxData).to_le_bytes();
                piece.copy_from_slice(&word[..piece.len()]);
                words -= 1;
            }
            for _ in 0..words {
                read(RxData);
            }
            if taken > 0 {
                return Some(taken);
            }
        }
        None
    }

    fn listen(&mut self) -> bool {
        // The flag is cleared before the last look, so a frame that comes in between is not missed.
        write(InterruptStatus, RX_LEVEL);
        write(InterruptEnable, RX_LEVEL);
        frame_waits()
    }

    fn has_room(&mut self) -> bool {
        // A report of each frame sent waits to be read; when nobody does, sending stops.
        while read(TxFifo) >> 16 & 0xff != 0 {
            read(TxStatus);
        }
        (read(TxFifo) & 0xffff) >= MAX_FRAME as u32 + TX_OVERHEAD
    }

    fn send(&mut self, frame: &[u8]) {
        let len = frame.len() as u32;
        const FIRST_SEGMENT: u32 = 1 << 13;
        const LAST_SEGMENT: u32 = 1 << 12;
        write(TxData, FIRST_SEGMENT | LAST_SEGMENT | len);
        write(TxData, len);
        for piece in frame.chunks(4) {
            let mut word = [0; 4];
            word[..piece.len()].copy_from_slice(piece);
            write(TxData, u32::from_le_bytes(word));
        }
    }
}

/// Whether the receive status FIFO holds anything.
fn frame_waits() -> bool {
    read(RxFifo) >> 16 & 0xff != 0
}

/// To be called by the controller's interrupt.
pub fn on_interrupt() {
    write(InterruptEnable, 0);
    received();
}
