//! A network that is nothing, below a stack that is real.

use core::task::Context;

use embassy_net::{Ipv4Address, Ipv4Cidr, Runner, Stack, StackResources, StaticConfigV4};
use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState};
use static_cell::StaticCell;

use crate::{any, read, write};

/// Neither takes nor gives frames, as far as the compiler knows.
pub struct NoNetwork;

/// A frame that came, or that goes.
pub struct Token;

impl embassy_net_driver::RxToken for Token {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, f: F) -> R {
        let mut frame = [0; 64];
        read(&mut frame);
        f(&mut frame)
    }
}

impl embassy_net_driver::TxToken for Token {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, _: usize, f: F) -> R {
        let mut frame = [0; 64];
        let result = f(&mut frame);
        write(&frame);
        result
    }
}

impl Driver for NoNetwork {
    type RxToken<'a> = Token;
    type TxToken<'a> = Token;

    fn receive(&mut self, _: &mut Context<'_>) -> Option<(Token, Token)> {
        (any::<u8>() == 0).then_some((Token, Token))
    }

    fn transmit(&mut self, _: &mut Context<'_>) -> Option<Token> {
        (any::<u8>() == 0).then_some(Token)
    }

    fn link_state(&mut self, _: &mut Context<'_>) -> LinkState {
        LinkState::Up
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = 1514;
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet([2, 0, 0, 0, 0, 1])
    }
}

/// The stack, with room for one socket and one look-up.
pub fn stack() -> (Stack<'static>, Runner<'static, NoNetwork>) {
    static RESOURCES: StaticCell<StackResources<2>> = StaticCell::new();
    let config = embassy_net::Config::ipv4_static(StaticConfigV4 {
        address: Ipv4Cidr::new(Ipv4Address::new(192, 0, 2, 2), 24),
        gateway: None,
        dns_servers: Default::default(),
    });
    embassy_net::new(NoNetwork, config, RESOURCES.init(StackResources::new()), any())
}
