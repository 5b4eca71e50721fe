//! A bad network between two ends.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use smoltcp::phy::{self, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

use crate::dice::Dice;

/// What happens to packets, each by so many of a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// One bit is another: a checksum notices that, so this is loss by another way.
    pub(crate) corrupted: u64,
    /// Microseconds that every packet takes.
    pub(crate) delay: u64,
    /// Up to as many more: whatever is sent within this time may change places.
    pub(crate) jitter: u64,
}

/// Which end: the device's, or the gateway's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Device,
    Gateway,
}

/// By the time of their arrival, then in the order in which they were sent.
type UnderWay = BinaryHeap<Reverse<(u64, u64, Side, Vec<u8>)>>;

/// Packets under way.
pub(crate) struct Network {
    dice: Dice,
    pub(crate) faults: Faults,
    /// Whether packets to the device, and to the gateway, are swallowed.
    cut: [bool; 2],
    packets: UnderWay,
    sent: u64,
}

impl Network {
    pub(crate) fn new(faults: Faults, dice: Dice) -> Self {
        Self { dice, faults, cut: [false; 2], packets: BinaryHeap::new(), sent: 0 }
    }

    /// Cuts or restores the way to one end. What is under way on it when it is cut is lost, too.
    pub(crate) fn cut(&mut self, to: Side, cut: bool) {
        self.cut[to as usize] = cut;
        if cut {
            self.packets.retain(|Reverse((_, _, side, _))| *side != to);
        }
    }

    /// No more faults.
    pub(crate) fn heal(&mut self) {
        self.cut = [false; 2];
        self.faults = Faults { delay: self.faults.delay, ..Faults::default() };
    }

    pub(crate) fn send(&mut self, now: u64, to: Side, mut packet: Vec<u8>) {
        if self.cut[to as usize] || self.dice.happens(self.faults.lost) {
            return;
        }
        if self.dice.happens(self.faults.doubled) {
            let twin = packet.clone();
            self.enqueue(now, to, twin);
        }
        if self.dice.happens(self.faults.corrupted) {
            let bit = self.dice.next() as usize % (packet.len() * 8);
            packet[bit / 8] ^= 1 << (bit % 8);
        }
        self.enqueue(now, to, packet);
    }

    fn enqueue(&mut self, now: u64, to: Side, packet: Vec<u8>) {
        self.sent += 1;
        // Never at once: time goes on when a packet travels.
        let takes = 1 + self.faults.delay + self.dice.between(0, self.faults.jitter);
        self.packets.push(Reverse((now + takes, self.sent, to, packet)));
    }

    /// When the next packet arrives.
    pub(crate) fn next(&self) -> u64 {
        self.packets.peek().map_or(u64::MAX, |Reverse((at, ..))| *at)
    }

    /// The next packet that has arrived by now.
    pub(crate) fn receive(&mut self, now: u64) -> Option<(Side, Vec<u8>)> {
        if self.next() > now {
            return None;
        }
        self.packets.pop().map(|Reverse((_, _, side, packet))| (side, packet))
    }
}

/// An end of the network, as a stack sees it.
#[derive(Default)]
pub(crate) struct Port {
    pub(crate) came: VecDeque<Vec<u8>>,
    pub(crate) goes: Vec<Vec<u8>>,
}

impl phy::Device for Port {
    type RxToken<'a> = Came;
    type TxToken<'a> = Goes<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Came, Goes<'_>)> {
        self.came.pop_front().map(|packet| (Came(packet), Goes(&mut self.goes)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Goes<'_>> {
        Some(Goes(&mut self.goes))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 576;
        capabilities.checksum = ChecksumCapabilities::default();
        capabilities
    }
}

pub(crate) struct Came(Vec<u8>);

impl phy::RxToken for Came {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

pub(crate) struct Goes<'a>(&'a mut Vec<Vec<u8>>);

impl phy::TxToken for Goes<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let output = f(&mut packet);
        self.0.push(packet);
        output
    }
}
