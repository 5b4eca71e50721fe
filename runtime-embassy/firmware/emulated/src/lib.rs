//! What the boards that QEMU emulates have in common. Such a board adds a controller of its network, a timer, and its
//! interrupts.
//!
//! | | |
//! |---|---|
//! | [`host`] | arguments, randomness, lines of text and the exit status, through semihosting |
//! | [`flash`] | a flash that is a file of the host's |
//! | [`ethernet`] | the network over a controller |
//! | [`lossy`] | a controller that loses frames, when it is told to |
//! | [`resolver`] | a controller over which names are asked for at another port |
//! | [`clock`] | time over a timer |
//! | [`sleep`] | the executor's loop, which counts how often the processor wakes |
//! | `cortex` | interrupts and faults of a Cortex-M |
//! | `panic` | the last words |
#![no_std]

pub mod clock;
#[cfg(target_arch = "arm")]
pub mod cortex;
pub mod ethernet;
pub mod flash;
pub mod host;
pub mod lossy;
mod panic;
pub mod resolver;
pub mod sleep;

use chacha20::ChaCha12Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use embassy_executor::{SpawnError, SpawnToken, Spawner};
use embassy_net::{Ipv4Address, Ipv4Cidr, StackResources, StaticConfigV4};
use ethernet::{Controller, Ethernet};
use flash::Flash;
use longwire_firmware::traffic::{Counted, Traffic};
use longwire_firmware::{Board, Gauges, Outcome, Settings, stack};
use lossy::Lossy;
use resolver::Redirected;
use static_cell::StaticCell;

/// Longest command line.
const MAX_LINE: usize = 384;

/// The emulator's network: this address is ours, and that of the router is the host's loopback.
const ADDRESS: Ipv4Cidr = Ipv4Cidr::new(Ipv4Address::new(10, 0, 2, 15), 24);
const ROUTER: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);
/// Where the gateway is unless the settings say otherwise, and its name.
const GATEWAY: &str = "10.0.2.2";
const GATEWAY_NAME: &str = "localhost";

/// Frames and bytes of the one network.
static TRAFFIC: Traffic = Traffic::new();

/// The network's work, for a task of its own: in one with the application each would wake the other, for ever.
pub type Runner<C> = embassy_net::Runner<'static, Counted<Ethernet<Lossy<Redirected<C>>>>>;

/// Runs the application over the controller that `start` gives, with `network` as the task of the network, to its end, which
/// is the emulator's: as the host says. To be called once.
pub async fn run<C: Controller, S>(
    stack: stack::Stack,
    spawner: Spawner,
    start: impl FnOnce() -> Option<C>,
    network: impl FnOnce(Runner<C>) -> Result<SpawnToken<S>, SpawnError>,
) -> ! {
    static RESOURCES: StaticCell<StackResources<{ longwire_firmware::SOCKETS }>> = StaticCell::new();
    let settings = settings();
    let mut rng = rng();
    let config = embassy_net::Config::ipv4_static(StaticConfigV4 {
        address: ADDRESS,
        gateway: Some(ROUTER),
        dns_servers: settings.dns.map(|_| ROUTER).into_iter().collect(),
    });
    let Some(controller) = start() else { fail(format_args!("the board has no network")) };
    let redirected = Redirected::new(controller, settings.dns);
    let lossy = Lossy::new(redirected, settings.loss, rng.next_u32());
    let chip = Counted::new(Ethernet::new(lossy), &TRAFFIC);
    let (net, runner) = embassy_net::new(chip, config, RESOURCES.init(StackResources::new()), rng.next_u64());
    sleep::spawn(spawner, network(runner));
    let board = Board {
        gauges: Gauges { stack, traffic: &TRAFFIC, wakeups: Some(sleep::wakeups) },
        light: |on| host::print(format_args!("light {}", if on { "on" } else { "off" })),
        #[cfg(feature = "tls")]
        ca: ca(&settings),
        flash: (!settings.flash.is_empty()).then(|| Flash::open(settings.flash)),
    };
    let outcome = longwire_firmware::run(net, &settings, rng, board, host::print).await;
    host::print(format_args!("{} frames were lost", lossy::lost()));
    match outcome {
        Outcome::Done => host::exit(0),
        Outcome::Refused(why) => fail(format_args!("the gateway refuses for good: {why}")),
    }
}

/// As the host says. Ends the emulator when that makes no sense.
fn settings() -> Settings<'static> {
    static LINE: StaticCell<[u8; MAX_LINE]> = StaticCell::new();
    let words = host::arguments(LINE.init([0; MAX_LINE]));
    match Settings::parse(words, GATEWAY, GATEWAY_NAME) {
        Ok(settings) => settings,
        Err(wrong) => fail(format_args!("{wrong}")),
    }
}

fn rng() -> ChaCha12Rng {
    let mut seed = [0; 32];
    if !host::random(&mut seed) {
        fail(format_args!("the host gives no randomness"));
    }
    ChaCha12Rng::from_seed(seed)
}

/// The certificate that the settings name.
#[cfg(feature = "tls")]
fn ca(settings: &Settings<'_>) -> &'static [u8] {
    static CA: StaticCell<[u8; 2048]> = StaticCell::new();
    match host::file(settings.ca, CA.init([0; 2048])) {
        Some(ca) => ca,
        None => fail(format_args!("no certificate of a CA: ca={}", settings.ca)),
    }
}

/// Says what is wrong, and ends the emulator.
pub fn fail(why: core::fmt::Arguments<'_>) -> ! {
    host::print(why);
    host::exit(1)
}
