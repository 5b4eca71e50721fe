//! A network of embassy's over any controller that moves whole frames.

use core::task::Context;

use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState};
use embassy_sync::waitqueue::AtomicWaker;
use static_cell::ConstStaticCell;

/// Longest frame without its check sequence: 14 bytes of header, 1500 of payload.
pub const MAX_FRAME: usize = 1514;

/// Room for a frame.
pub type Frame = [u8; MAX_FRAME];

/// An Ethernet controller. Interrupts are used for reception only: the handler silences it and calls [`received`], and the
/// network's task reads until there is nothing left, then listens again.
pub trait Controller {
    /// Its hardware address.
    fn address(&self) -> [u8; 6];

    /// Takes the next good frame and says how long it is; those that are not go by.
    fn receive(&mut self, frame: &mut Frame) -> Option<usize>;

    /// From now on a frame that comes interrupts. True when one has come already, for which there may be no interrupt.
    fn listen(&mut self) -> bool;

    /// Whether it would take the longest frame now. If not, it will soon: within a frame's time.
    fn has_room(&mut self) -> bool;

    /// Sends a frame, for which there was room.
    fn send(&mut self, frame: &[u8]);
}

static RECEIVED: AtomicWaker = AtomicWaker::new();

/// To be called by the controller's interrupt.
pub fn received() {
    RECEIVED.wake();
}

/// A controller, with room for one frame each way.
pub struct Ethernet<C> {
    controller: C,
    rx: &'static mut Frame,
    tx: &'static mut Frame,
}

impl<C: Controller> Ethernet<C> {
    /// The one network of a board.
    pub fn new(controller: C) -> Self {
        static FRAMES: ConstStaticCell<[Frame; 2]> = ConstStaticCell::new([[0; MAX_FRAME]; 2]);
        let [rx, tx] = FRAMES.take();
        Self { controller, rx, tx }
    }
}

/// A received frame.
pub struct RxToken<'a>(&'a mut [u8]);

/// Room for a frame to be sent.
pub struct TxToken<'a, C>(&'a mut Frame, &'a mut C);

impl embassy_net_driver::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl<C: Controller> embassy_net_driver::TxToken for TxToken<'_, C> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Self(frame, controller) = self;
        // The stack asks for no more than `max_transmission_unit`, and for no less than a header.
        let frame = &mut frame[..len];
        let result = f(frame);
        controller.send(frame);
        result
    }
}

impl<C: Controller> Driver for Ethernet<C> {
    type RxToken<'a>
        = RxToken<'a>
    where
        C: 'a;
    type TxToken<'a>
        = TxToken<'a, C>
    where
        C: 'a;

    fn receive(&mut self, cx: &mut Context<'_>) -> Option<(RxToken<'_>, TxToken<'_, C>)> {
        // A frame may be answered at once, so it is taken only when there is room for the answer.
        self.transmit(cx)?;
        RECEIVED.register(cx.waker());
        let Some(len) = self.controller.receive(self.rx) else {
            if self.controller.listen() {
                cx.waker().wake_by_ref();
            }
            return None;
        };
        Some((RxToken(&mut self.rx[..len]), TxToken(self.tx, &mut self.controller)))
    }

    fn transmit(&mut self, cx: &mut Context<'_>) -> Option<TxToken<'_, C>> {
        if !self.controller.has_room() {
            // A frame's time is 120 microseconds at 100 Mbit/s: not worth an interrupt.
            cx.waker().wake_by_ref();
            return None;
        }
        Some(TxToken(self.tx, &mut self.controller))
    }

    fn link_state(&mut self, _cx: &mut Context<'_>) -> LinkState {
        // The emulated cable is always plugged in.
        LinkState::Up
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = MAX_FRAME;
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(self.controller.address())
    }
}
