//! A network that loses frames.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::ethernet::{Controller, Frame};

/// How many frames got lost; the network alone writes it.
static LOST: AtomicU32 = AtomicU32::new(0);

/// How many frames got lost so far.
pub fn lost() -> u32 {
    LOST.load(Relaxed)
}

/// A controller that loses some of the frames, in both directions.
pub struct Lossy<C> {
    controller: C,
    percent: u32,
    /// Of a 32-bit xorshift generator (Marsaglia, "Xorshift RNGs", 2003).
    state: u32,
}

impl<C> Lossy<C> {
    /// `controller`, of whose frames so many in a hundred get lost.
    pub fn new(controller: C, percent: u8, seed: u32) -> Self {
        // Zero would give nothing but zeros.
        Self { controller, percent: percent.into(), state: seed | 1 }
    }

    /// Says whether a frame gets lost, and counts it.
    fn lose(&mut self) -> bool {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 17;
        self.state ^= self.state << 5;
        let lose = self.state % 100 < self.percent;
        LOST.store(lost().wrapping_add(lose.into()), Relaxed);
        lose
    }
}

impl<C: Controller> Controller for Lossy<C> {
    fn address(&self) -> [u8; 6] {
        self.controller.address()
    }

    fn receive(&mut self, frame: &mut Frame) -> Option<usize> {
        loop {
            let len = self.controller.receive(frame)?;
            if !self.lose() {
                return Some(len);
            }
        }
    }

    fn listen(&mut self) -> bool {
        self.controller.listen()
    }

    fn has_room(&mut self) -> bool {
        self.controller.has_room()
    }

    fn send(&mut self, frame: &[u8]) {
        if !self.lose() {
            self.controller.send(frame);
        }
    }
}
