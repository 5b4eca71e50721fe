//! What every board of longwire's example firmware does once it has a network: it reports to a gateway how long it has
//! been up and how much of its stack it never used, once a second.
//!
//! A board is a driver for its network and a `main`; everything else is here.
#![no_std]

mod settings;
pub mod stack;

use core::fmt::{self, Write as _};

use embassy_futures::select::{Either, select};
use embassy_net::Stack;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_time::{Duration, Instant, Ticker};
use heapless::String;
use longwire_embassy::core::rand_core::CryptoRng;
use longwire_embassy::{Gateway, Lost, Outbox, Policy, ReportError, Status, Tcp, Uplink, UplinkConfig};
use minicbor::encode::{Encode, Encoder, Error, Write};
pub use settings::{MAX_NAME, Settings};

/// Readings that wait for the network: half a minute of them. Later ones push out the oldest.
static OUTBOX: Outbox<CriticalSectionRawMutex, 2048> = Outbox::new(Policy::DropOldest);

static CONFIG: UplinkConfig = UplinkConfig::new();

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As many readings were acknowledged as the settings asked for.
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
    stack: stack::Stack,
    mut log: impl FnMut(fmt::Arguments<'_>),
) -> Outcome {
    let mut host: String<{ MAX_NAME + 6 }> = String::new();
    // There is room for the longest name, the colon, and five digits.
    let _ = write!(host, "{}:{}", settings.name, settings.port);
    let (mut socket_rx, mut socket_tx) = ([0; 1024], [0; 1024]);
    let (mut rx, mut tx) = ([0; 1024], [0; 512]);
    let tcp = Tcp::new(net, (settings.host, settings.port), &mut socket_rx, &mut socket_tx);
    let mut uplink = Uplink::new(tcp, Gateway::new(&host), &CONFIG, rng, &mut rx, &mut tx);
    let connection = uplink.run(&OUTBOX, |status| match status {
        Status::Lost(why) => log(format_args!("lost: {why}")),
        Status::Open(_) => log(format_args!("connected after {} ms", Instant::now().as_millis())),
        Status::Waiting(wait) => log(format_args!("next attempt in {} ms", wait.as_millis())),
        _ => {}
    });
    match select(connection, report(settings, stack)).await {
        Either::First(why) => Outcome::Refused(why),
        Either::Second(()) => {
            log(format_args!("{:?}", OUTBOX.counts()));
            Outcome::Done
        }
    }
}

/// Puts readings into the outbox, until enough of them were acknowledged.
async fn report(settings: &Settings<'_>, stack: stack::Stack) {
    let mut every = Ticker::every(Duration::from_millis(settings.interval.into()));
    loop {
        let uptime = Instant::now().as_millis();
        let free = stack.free();
        for reported in [
            reading(settings, "uptime", &uptime),
            // As a map, for there will be more to say about memory.
            reading(settings, "stack", &Memory { free }),
        ] {
            debug_assert_eq!(reported, Ok(()), "the id is a topic's level, and the outbox drops its oldest");
        }
        every.next().await;
        if settings.readings.is_some_and(|enough| OUTBOX.counts().acknowledged >= enough) {
            return;
        }
    }
}

/// Reports a value on `device/ID/WHAT`.
fn reading(settings: &Settings<'_>, what: &str, value: &impl Encode<()>) -> Result<(), ReportError> {
    let mut topic: String<64> = String::new();
    write!(topic, "device/{}/{what}", settings.id).map_err(|_| ReportError::BadTopic)?;
    OUTBOX.reporter().try_report(&topic, None, value)
}

/// `{"free": BYTES}`
struct Memory {
    free: u32,
}

impl<C> Encode<C> for Memory {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), Error<W::Error>> {
        e.map(1)?.str("free")?.u32(self.free)?.ok()
    }
}
