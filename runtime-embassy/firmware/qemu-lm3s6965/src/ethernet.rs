//! The Ethernet controller of Stellaris LM3S microcontrollers. The processor moves whole frames through two FIFOs behind one
//! register, a word at a time.

use longwire_emulated::cortex;
use longwire_emulated::ethernet::{Controller, Frame, received};

/// Number of the controller's interrupt.
pub const IRQ: u16 = 42;

/// Destination, source and type.
const HEADER: usize = 14;
/// Length of the frame check sequence, which the controller adds, checks, and hands over with what it received.
const CHECK: usize = 4;
/// A length in front of each frame in the FIFOs. Of what is received it counts everything, itself too; of what is sent
/// the payload alone.
const LENGTH: usize = 2;

/// The memory-mapped registers, by their offset.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Register {
    /// Raw interrupt status; what is written is acknowledged.
    InterruptStatus = 0x00,
    InterruptMask = 0x04,
    RxControl = 0x08,
    TxControl = 0x0c,
    Data = 0x10,
    AddressLow = 0x14,
    AddressHigh = 0x18,
    /// Frames in the receive FIFO.
    Frames = 0x34,
    TxRequest = 0x38,
}
use Register::*;

const BASE: usize = 0x4004_8000;

/// "A frame was received", in the interrupt registers.
const RX: u32 = 1;

/// Run mode clock gating (RCGC2): bit 28 is the controller, bit 30 its transceiver.
const CLOCK_GATES: *mut u32 = 0x400f_e108 as *mut u32;

fn read(register: Register) -> u32 {
    // SAFETY: an aligned register of the controller.
    unsafe { ((BASE + register as usize) as *const u32).read_volatile() }
}

fn write(register: Register, value: u32) {
    // SAFETY: as above; the only driver of the controller is this one.
    unsafe { ((BASE + register as usize) as *mut u32).write_volatile(value) }
}

/// The controller.
pub struct Ethernet {
    address: [u8; 6],
}

impl Ethernet {
    /// Starts the controller. `None` when it has no address.
    pub fn start() -> Option<Self> {
        // SAFETY: the clock gates of this controller; interrupts are not used for anything yet.
        unsafe { CLOCK_GATES.write_volatile(CLOCK_GATES.read_volatile() | 1 << 28 | 1 << 30) };
        write(InterruptMask, 0);
        const RESET_FIFO: u32 = 1 << 4;
        write(RxControl, RESET_FIFO);
        write(InterruptStatus, u32::MAX);
        let [a, b, c, d] = read(AddressLow).to_le_bytes();
        let [e, f, ..] = read(AddressHigh).to_le_bytes();
        const FULL_DUPLEX: u32 = 1 << 4;
        const ADD_CHECK: u32 = 1 << 2;
        const PAD: u32 = 1 << 1;
        const ENABLE: u32 = 1;
        write(TxControl, FULL_DUPLEX | ADD_CHECK | PAD | ENABLE);
        write(RxControl, ENABLE);
        cortex::unmask(IRQ);
        let address = [a, b, c, d, e, f];
        (address != [0; 6]).then_some(Self { address })
    }
}

impl Controller for Ethernet {
    fn address(&self) -> [u8; 6] {
        self.address
    }

    fn receive(&mut self, frame: &mut Frame) -> Option<usize> {
        while frame_waits() {
            // The length lies in front of the frame's first two bytes, in the same word.
            let [low, high, first, second] = read(Data).to_le_bytes();
            let total = usize::from(u16::from_le_bytes([low, high]));
            let mut words = total.div_ceil(4).saturating_sub(1);
            let frame = total.checked_sub(LENGTH + CHECK).and_then(|len| frame.get_mut(..len));
            // A frame to be dropped is read out all the same.
            let (start, rest) = frame.unwrap_or_default().split_at_mut_checked(2).unwrap_or_default();
            start.copy_from_slice(&[first, second][..start.len()]);
            for piece in rest.chunks_mut(4) {
                let word = read(Data).to_le_bytes();
                piece.copy_from_slice(&word[..piece.len()]);
                words -= 1;
            }
            for _ in 0..words {
                read(Data);
            }
            let taken = start.len() + rest.len();
            if taken >= HEADER {
                return Some(taken);
            }
        }
        None
    }

    fn listen(&mut self) -> bool {
        // The flag is cleared before the last look, so a frame that comes in between is not missed.
        write(InterruptStatus, RX);
        write(InterruptMask, RX);
        frame_waits()
    }

    fn has_room(&mut self) -> bool {
        read(TxRequest) & 1 == 0
    }

    fn send(&mut self, frame: &[u8]) {
        let [low, high] = (frame.len().saturating_sub(HEADER) as u16).to_le_bytes();
        let (&[first, second], rest) = frame.split_first_chunk().unwrap_or((&[0; 2], &[]));
        write(Data, u32::from_le_bytes([low, high, first, second]));
        for piece in rest.chunks(4) {
            let mut word = [0; 4];
            word[..piece.len()].copy_from_slice(piece);
            write(Data, u32::from_le_bytes(word));
        }
        write(TxRequest, 1);
    }
}

fn frame_waits() -> bool {
    read(Frames) & 0x3f != 0
}

/// To be called by the controller's interrupt.
pub fn on_interrupt() {
    write(InterruptMask, 0);
    received();
}
