//! What every board of longwire's example firmware does once it has a network: it reports to a gateway how it fares,
//! once a second, and does as it is told.
//!
//! | topic | | |
//! |---|---|---|
//! | `device/ID/uptime` | up | milliseconds since the start |
//! | `device/ID/stack` | up | bytes of the stack that were never used (`free`), and that were (`peak`) |
//! | `device/ID/network` | up | frames and bytes in each direction |
//! | `device/ID/wakeups` | up | how often the processor was woken, where that is counted |
//! | `device/ID/outbox` | up | what became of the readings so far |
//! | `device/ID/do/interval` | down | milliseconds between two reports |
//! | `device/ID/do/blink` | down | how often to blink |
//!
//! A board is a driver for its network and a `main`; everything else is here.
#![no_std]

mod command;
mod keep;
mod report;
#[cfg(feature = "tls")]
mod secure;
mod settings;
pub mod stack;
mod tokens;
pub mod traffic;

use core::cell::{Cell, RefCell};
use core::convert::Infallible;
use core::fmt::{self, Write as _};
use core::ops::Range;

use embassy_futures::select::{Either4, select4};
use embassy_net::Stack;
use embassy_sync::blocking_mutex::raw::{CriticalSectionRawMutex, NoopRawMutex};
use embassy_sync::signal::Signal;
use embassy_time::{Instant, Timer};
use embedded_storage_async::nor_flash::NorFlash;
use heapless::String;
pub use keep::NoFlash;
use longwire_embassy::core::log::Since;
use longwire_embassy::core::rand_core::CryptoRng;
use longwire_embassy::core::session::ladder::{Rung, Rungs};
use longwire_embassy::{
    Commands, Connect, Gateway, Inflater, Lost, Outbox, Overflow, Policy, Present, Remote, Status, Storage,
    Tcp, Tokens, Uplink, UplinkConfig,
};
pub use settings::{MAX_NAME, Settings};
use static_cell::ConstStaticCell;
use traffic::Traffic;

/// Readings that wait for the network: half a minute of them. Of what only counts as it is now the newest waits alone; of
/// the others the newest push out the oldest.
static OUTBOX: Outbox<CriticalSectionRawMutex, 2048> = Outbox::new(Policy::DropOldest);

const POLICIES: &[(&str, Policy)] = &[
    ("device/*/stack", Policy::Conflate),
    ("device/*/network", Policy::Conflate),
    ("device/*/wakeups", Policy::Conflate),
    ("device/*/outbox", Policy::Conflate),
    ("device/*/latest", Policy::Conflate),
    ("device/*/first", Policy::DropNewest),
];

/// What the device is told. Of two orders for the same the later one counts.
static COMMANDS: Commands<CriticalSectionRawMutex, 4, 96> = Commands::new(Overflow::Conflate);

/// What a gateway may send compressed.
static INFLATER: ConstStaticCell<Inflater<1024>> = ConstStaticCell::new(Inflater::new());

/// Sockets of the network that the application has: two connections, and one for names.
pub const SOCKETS: usize = 3;

/// Longest token.
const MAX_TOKEN: usize = 128;

/// What a board has beside its network. `L` switches a light; `F` is a flash that keeps readings over a reset, or [`NoFlash`].
pub struct Board<L, F> {
    /// What it can say of itself.
    pub gauges: Gauges,
    /// On, or off.
    pub light: L,
    /// The flash, and the range of it that is for readings.
    pub flash: Option<(F, Range<u32>)>,
    /// The certificate of the CA that has issued the gateway's, in DER.
    #[cfg(feature = "tls")]
    pub ca: &'static [u8],
}

/// What a board can say of itself.
pub struct Gauges {
    /// The stack, painted at the start.
    pub stack: stack::Stack,
    /// What went over the network.
    pub traffic: &'static Traffic,
    /// How often the processor was woken, where that is counted.
    pub wakeups: Option<fn() -> u32>,
}

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As many readings as the settings asked for were reported, and all of them are settled.
    Done,
    /// The gateway will not have this device, and the settings say nothing of trying again.
    Refused(Lost),
}

/// Reports to the gateway until it is done, which a device never is.
///
/// What was not acknowledged is kept in the board's flash. `log` is told what goes on. With the feature `tls` the
/// gateway has to speak that.
pub async fn run<F: NorFlash>(
    net: Stack<'_>,
    settings: &Settings<'_>,
    mut rng: impl CryptoRng,
    board: Board<impl FnMut(bool), F>,
    log: impl FnMut(fmt::Arguments<'_>),
) -> Outcome {
    OUTBOX.set_policies(POLICIES, Policy::DropOldest);
    // What the flash holds is in the outbox before anybody reports to it, or sends.
    let mut kept: keep::Kept<'_, F, _, _> = match board.flash {
        Some((flash, range)) => {
            Some(Storage::open(flash, range, &OUTBOX, &mut rng, keep::config(settings)).await)
        }
        None => None,
    };
    let log = RefCell::new(log);
    let mut host: String<{ MAX_NAME + 6 }> = String::new();
    // There is room for the longest name, the colon, and five digits.
    let _ = write!(host, "{}:{}", settings.name, settings.port);
    let (mut socket_rx, mut socket_tx) = ([0; 1024], [0; 1024]);
    let (mut rx, mut tx) = ([0; 1024], [0; 512]);
    let gateway = Remote::Name(settings.host, settings.port);
    let line = Tcp::new(net, gateway, &mut socket_rx, &mut socket_tx);
    // For readings by POST, where a proxy lets no WebSocket through.
    let (mut post_socket_rx, mut post_socket_tx) = ([0; 512], [0; 512]);
    let (mut post_rx, mut post_tx) = ([0; 512], [0; 512]);
    let side = Tcp::new(net, gateway, &mut post_socket_rx, &mut post_socket_tx);
    #[cfg(feature = "tls")]
    let (rng, cas) = (RefCell::new(rng), [board.ca]);
    #[cfg(feature = "tls")]
    let ([line, side], rng) = (secure::over([line, side], settings, &cas, &rng, &log), secure::Shared(&rng));
    let config = config(settings);
    let orders = topic(settings.id, "do/*");
    let orders = [orders.as_str()];
    let uplink = Uplink::new(line, Gateway::new(&host), &config, rng, &mut rx, &mut tx)
        .with_commands(&COMMANDS, &orders, Since::Now)
        .with_posts(side, &mut post_rx, &mut post_tx);
    let uplink = match INFLATER.try_take() {
        Some(inflater) => uplink.with_decompressor(inflater),
        None => uplink,
    };
    let shared = Shared { interval: Cell::new(settings.interval), changed: Signal::new() };
    let work = report::run(settings, &shared, &OUTBOX, &board.gauges);
    let obey = command::obey(&COMMANDS, &shared, board.light);
    let mut token = [0; MAX_TOKEN];
    let keep = keep::keep(&mut kept, &log);
    let observe = |status| log.borrow_mut()(format_args!("{status} at {} ms", Instant::now().as_millis()));
    let why = match settings.tokens {
        "" => connect(uplink, settings.again, work, obey, keep, observe).await,
        tokens => {
            let uplink = uplink.with_tokens(tokens::List::new(tokens), &mut token, Present::Head);
            connect(uplink, settings.again, work, obey, keep, observe).await
        }
    };
    log.into_inner()(format_args!("{:?}", OUTBOX.counts()));
    why.map_or(Outcome::Done, Outcome::Refused)
}

/// Keeps the connection until `work` is done; or until the gateway refuses for good, unless that is tried `again` after so long.
/// Meanwhile readings are collected, and kept.
async fn connect<C: Connect, R: CryptoRng, T: Tokens>(
    mut uplink: Uplink<'_, C, R, T>,
    again: Option<core::time::Duration>,
    work: impl Future<Output = ()>,
    obey: impl Future<Output = Infallible>,
    keep: impl Future<Output = Infallible>,
    mut observe: impl FnMut(Status),
) -> Option<Lost> {
    let run = async {
        loop {
            let why = uplink.run(&OUTBOX, &mut observe).await;
            let Some(wait) = again else { break why };
            observe(Status::Waiting(wait));
            Timer::after_millis(wait.as_millis() as u64).await;
        }
    };
    match select4(run, work, obey, keep).await {
        Either4::First(why) => Some(why),
        Either4::Second(()) => None,
        Either4::Third(never) | Either4::Fourth(never) => match never {},
    }
}

/// What those who report and those who obey have in common.
pub(crate) struct Shared {
    /// Milliseconds between two reports.
    interval: Cell<u32>,
    /// Raised when it was changed.
    changed: Signal<NoopRawMutex, ()>,
}

/// `device/ID/WHAT`
fn topic(id: &str, what: &str) -> String<MAX_TOPIC> {
    let mut topic = String::new();
    // There is room for the longest name, and for all that is said about it here.
    let _ = write!(topic, "device/{id}/{what}");
    topic
}

/// Bytes of the longest topic: the device's name has up to 32.
const MAX_TOPIC: usize = 64;

/// The defaults, but for what the settings say otherwise.
fn config(settings: &Settings<'_>) -> UplinkConfig {
    let mut config = UplinkConfig::new();
    // A handshake takes a small processor seconds.
    #[cfg(feature = "tls")]
    {
        config.ladder.open = core::time::Duration::from_secs(60);
    }
    if !settings.ladder {
        config.ladder.rungs = Rungs::only(Rung::WebSocket);
    }
    if let Some(cap) = settings.cap {
        config.backoff.cap = cap;
    }
    if let (Some(interval), Some(heartbeat)) = (settings.heartbeat, &mut config.connection.ws.heartbeat) {
        heartbeat.interval = interval;
    }
    config
}
