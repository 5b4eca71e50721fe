//! What the boards that QEMU emulates have in common. Such a board adds a driver for its network, a clock, and its
//! interrupts.
//!
//! | | |
//! |---|---|
//! | [`host`] | arguments, randomness, lines of text and the exit status, through semihosting |
//! | [`lossy`] | a network that loses frames, when it is told to |
//! | [`sleep`] | the executor's loop, which counts how often the processor wakes |
//! | [`panic`] | the last words |
#![no_std]

pub mod host;
pub mod lossy;
pub mod panic;
pub mod sleep;

use chacha20::ChaCha12Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use embassy_net::{Ipv4Address, Ipv4Cidr, Stack, StackResources, StaticConfigV4};
use embassy_net_driver::Driver;
use longwire_firmware::traffic::{Counted, Traffic};
use longwire_firmware::{Board, Outcome, Settings, stack};
use lossy::Lossy;
use static_cell::StaticCell;

/// Longest command line.
const MAX_LINE: usize = 384;

/// The emulator's network: this address is ours, and that of the gateway is the host's loopback.
const ADDRESS: Ipv4Cidr = Ipv4Cidr::new(Ipv4Address::new(10, 0, 2, 15), 24);
const GATEWAY: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);
const GATEWAY_NAME: &str = "localhost";

/// The network controller of a board, counted, and with as much loss as the settings ask for.
pub type Network<D> = Counted<Lossy<D>>;

/// Frames and bytes of the one network.
static TRAFFIC: Traffic = Traffic::new();

/// What a device starts with: its settings and its randomness.
pub struct Start {
    settings: Settings<'static>,
    rng: ChaCha12Rng,
}

impl Start {
    /// Asks the host. Ends the emulator when it says something that makes no sense.
    pub fn from_host() -> Self {
        static LINE: StaticCell<[u8; MAX_LINE]> = StaticCell::new();
        let line = LINE.init([0; MAX_LINE]);
        let settings = match Settings::parse(host::arguments(line), GATEWAY, GATEWAY_NAME) {
            Ok(settings) => settings,
            Err(wrong) => fail(format_args!("{wrong}")),
        };
        let mut seed = [0; 32];
        if !host::random(&mut seed) {
            fail(format_args!("the host gives no randomness"));
        }
        Self { settings, rng: ChaCha12Rng::from_seed(seed) }
    }

    /// The network over this controller; the runner is a task of the board's.
    pub fn network<D: Driver>(
        &mut self,
        chip: D,
    ) -> (Stack<'static>, embassy_net::Runner<'static, Network<D>>) {
        static RESOURCES: StaticCell<StackResources<{ longwire_firmware::SOCKETS }>> = StaticCell::new();
        let config = embassy_net::Config::ipv4_static(StaticConfigV4 {
            address: ADDRESS,
            gateway: Some(GATEWAY),
            dns_servers: Default::default(),
        });
        let chip = Counted::new(Lossy::new(chip, self.settings.loss, self.rng.next_u32()), &TRAFFIC);
        embassy_net::new(chip, config, RESOURCES.init(StackResources::new()), self.rng.next_u64())
    }

    /// Runs the application to its end, which is the emulator's.
    pub async fn run(self, net: Stack<'static>, stack: stack::Stack) -> ! {
        let board = Emulated { stack };
        let outcome = longwire_firmware::run(net, &self.settings, self.rng, board, host::print).await;
        host::print(format_args!("{} frames were lost", lossy::lost()));
        match outcome {
            Outcome::Done => host::exit(0),
            Outcome::Refused(why) => fail(format_args!("the gateway refuses for good: {why}")),
        }
    }
}

/// Says what is wrong, and ends the emulator.
pub fn fail(why: core::fmt::Arguments<'_>) -> ! {
    host::print(why);
    host::exit(1)
}

struct Emulated {
    stack: stack::Stack,
}

impl Board for Emulated {
    fn stack(&self) -> &stack::Stack {
        &self.stack
    }

    fn traffic(&self) -> &Traffic {
        &TRAFFIC
    }

    fn wakeups(&self) -> Option<u32> {
        Some(sleep::wakeups())
    }

    fn light(&self, on: bool) {
        host::print(format_args!("light {}", if on { "on" } else { "off" }));
    }
}
