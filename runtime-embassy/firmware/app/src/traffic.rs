//! What goes over a board's network, counted.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::task::Context;

use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};

/// Frames and bytes in each direction since the start, modulo 2^32. Bytes are those of whole frames, without preamble and
/// check sequence.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Frames received.
    pub frames_in: Counter,
    /// Frames sent.
    pub frames_out: Counter,
    /// Bytes received.
    pub bytes_in: Counter,
    /// Bytes sent.
    pub bytes_out: Counter,
}

/// A counter with one writer, the network's task.
#[derive(Debug, Default)]
pub struct Counter(AtomicU32);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// What was counted so far.
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// Two steps, for the smallest processors cannot add in one; there is no other writer.
    fn add(&self, more: usize) {
        self.0.store(self.get().wrapping_add(more as u32), Relaxed);
    }
}

impl Traffic {
    /// Nothing yet.
    pub const fn new() -> Self {
        let [frames_in, frames_out, bytes_in, bytes_out] = [const { Counter::new() }; 4];
        Self { frames_in, frames_out, bytes_in, bytes_out }
    }
}

/// A driver whose traffic is counted.
pub struct Counted<D> {
    driver: D,
    traffic: &'static Traffic,
}

impl<D> Counted<D> {
    /// `driver`, counted in `traffic`.
    pub fn new(driver: D, traffic: &'static Traffic) -> Self {
        Self { driver, traffic }
    }
}

/// A token of the driver's, and where it is counted.
pub struct Token<T>(T, &'static Traffic);

impl<T: RxToken> RxToken for Token<T> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, f: F) -> R {
        let Self(token, traffic) = self;
        token.consume(|frame| {
            traffic.frames_in.add(1);
            traffic.bytes_in.add(frame.len());
            f(frame)
        })
    }
}

impl<T: TxToken> TxToken for Token<T> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Self(token, traffic) = self;
        traffic.frames_out.add(1);
        traffic.bytes_out.add(len);
        token.consume(len, f)
    }
}

impl<D: Driver> Driver for Counted<D> {
    type RxToken<'a>
        = Token<D::RxToken<'a>>
    where
        Self: 'a;
    type TxToken<'a>
        = Token<D::TxToken<'a>>
    where
        Self: 'a;

    fn receive(&mut self, cx: &mut Context<'_>) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let (frame, answer) = self.driver.receive(cx)?;
        Some((Token(frame, self.traffic), Token(answer, self.traffic)))
    }

    fn transmit(&mut self, cx: &mut Context<'_>) -> Option<Self::TxToken<'_>> {
        Some(Token(self.driver.transmit(cx)?, self.traffic))
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
