//! A network that loses frames.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::task::Context;

use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};

/// Longest frame of an Ethernet without its check sequence.
const MAX_FRAME: usize = 1514;

/// How many frames got lost; the network's task alone writes it.
static LOST: AtomicU32 = AtomicU32::new(0);

/// How many frames got lost so far.
pub fn lost() -> u32 {
    LOST.load(Relaxed)
}

/// Two steps, for the smallest processors cannot add in one; there is no other writer.
fn count() {
    LOST.store(lost().wrapping_add(1), Relaxed);
}

/// A driver that loses some of the frames, in both directions.
pub struct Lossy<D> {
    driver: D,
    dice: Dice,
    /// Where lost frames are written to.
    nowhere: [u8; MAX_FRAME],
}

/// Says which frames get lost: a 32-bit xorshift generator (Marsaglia, "Xorshift RNGs", 2003).
struct Dice {
    percent: u32,
    state: u32,
}

impl Dice {
    fn lose(&mut self) -> bool {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 17;
        self.state ^= self.state << 5;
        self.state % 100 < self.percent
    }
}

impl<D> Lossy<D> {
    /// `driver`, of whose frames so many in a hundred get lost.
    pub fn new(driver: D, percent: u8, seed: u32) -> Self {
        // Zero would give nothing but zeros.
        let dice = Dice { percent: percent.into(), state: seed | 1 };
        Self { driver, dice, nowhere: [0; MAX_FRAME] }
    }
}

/// Room for a frame that may get lost.
pub struct LossyTx<'a, T> {
    token: T,
    nowhere: Option<&'a mut [u8; MAX_FRAME]>,
}

impl<T: TxToken> TxToken for LossyTx<'_, T> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        match self.nowhere {
            // The stack asks for no more than `max_transmission_unit`.
            Some(nowhere) => {
                count();
                f(&mut nowhere[..len])
            }
            None => self.token.consume(len, f),
        }
    }
}

impl<D: Driver> Driver for Lossy<D> {
    type RxToken<'a>
        = D::RxToken<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = LossyTx<'a, D::TxToken<'a>>
    where
        Self: 'a;

    fn receive(&mut self, cx: &mut Context<'_>) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        while self.dice.lose() {
            let (lost, _) = self.driver.receive(cx)?;
            lost.consume(|_| ());
            count();
        }
        let (frame, token) = self.driver.receive(cx)?;
        let nowhere = self.dice.lose().then_some(&mut self.nowhere);
        Some((frame, LossyTx { token, nowhere }))
    }

    fn transmit(&mut self, cx: &mut Context<'_>) -> Option<Self::TxToken<'_>> {
        let token = self.driver.transmit(cx)?;
        let nowhere = self.dice.lose().then_some(&mut self.nowhere);
        Some(LossyTx { token, nowhere })
    }

    fn link_state(&mut self, cx: &mut Context<'_>) -> LinkState {
        self.driver.link_state(cx)
    }

    fn capabilities(&self) -> Capabilities {
        self.driver.capabilities()
    }

    fn hardware_address(&self) -> HardwareAddress {
        self.driver.hardware_address()
    }
}
