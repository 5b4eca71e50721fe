//! What every board of longwire's example firmware does once it has a network: it reports to a gateway how it fares,
//! once a second.
//!
//! A board is a driver for its network and a `main`; everything else is here.
#![no_std]

mod report;
mod settings;
pub mod stack;
pub mod traffic;

use core::fmt::{self, Write as _};

use embassy_futures::select::{Either, select};
use embassy_net::Stack;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_time::Instant;
use heapless::String;
use longwire_embassy::core::rand_core::CryptoRng;
use longwire_embassy::{Gateway, Lost, Outbox, Policy, Status, Tcp, Uplink, UplinkConfig};
pub use settings::{MAX_NAME, Settings};
use traffic::Traffic;

/// Readings that wait for the network: half a minute of them. Later ones push out the oldest.
static OUTBOX: Outbox<CriticalSectionRawMutex, 2048> = Outbox::new(Policy::DropOldest);

/// What the application can ask of a board, beside its network.
pub trait Board {
    /// Bytes of the stack that were never used.
    fn free_stack(&self) -> u32;

    /// What went over the network.
    fn traffic(&self) -> &Traffic;

    /// How often the processor was woken, where that is counted.
    fn wakeups(&self) -> Option<u32> {
        None
    }

    /// Switches a light.
    fn light(&mut self, on: bool);
}

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As many readings as the settings asked for were reported, and all of them are settled.
    Done,
    /// The gateway will not have this device.
    Refused(Lost),
}

/// Reports to the gateway until it is done, which a device never is.
///
/// `log` is told what goes on.
pub async fn run(
    net: Stack<'_>,
    settings: &Settings<'_>,
    rng: impl CryptoRng,
    board: impl Board,
    mut log: impl FnMut(fmt::Arguments<'_>),
) -> Outcome {
    let mut host: String<{ MAX_NAME + 6 }> = String::new();
    // There is room for the longest name, the colon, and five digits.
    let _ = write!(host, "{}:{}", settings.name, settings.port);
    let (mut socket_rx, mut socket_tx) = ([0; 1024], [0; 1024]);
    let (mut rx, mut tx) = ([0; 1024], [0; 512]);
    let tcp = Tcp::new(net, (settings.host, settings.port), &mut socket_rx, &mut socket_tx);
    let config = config(settings);
    let mut uplink = Uplink::new(tcp, Gateway::new(&host), &config, rng, &mut rx, &mut tx);
    let connection = uplink.run(&OUTBOX, |status| match status {
        Status::Lost(why) => log(format_args!("lost: {why}")),
        Status::Open(_) => log(format_args!("connected after {} ms", Instant::now().as_millis())),
        Status::Waiting(wait) => log(format_args!("next attempt in {} ms", wait.as_millis())),
        _ => {}
    });
    match select(connection, report::run(settings, &OUTBOX, board)).await {
        Either::First(why) => Outcome::Refused(why),
        Either::Second(()) => {
            log(format_args!("{:?}", OUTBOX.counts()));
            Outcome::Done
        }
    }
}

/// The defaults, but for what the settings say otherwise.
fn config(settings: &Settings<'_>) -> UplinkConfig {
    let mut config = UplinkConfig::new();
    if let Some(cap) = settings.cap {
        config.backoff.cap = cap;
    }
    if let (Some(interval), Some(heartbeat)) = (settings.heartbeat, &mut config.connection.ws.heartbeat) {
        heartbeat.interval = interval;
    }
    config
}
