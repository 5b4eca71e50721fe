//! A device that reports: the session and its outbox, with what the features add. Without a network stack it talks to a link
//! that is nothing.
#![no_std]
#![no_main]

use embassy_executor::Spawner;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_time::Timer;
use longwire_embassy::core::log::Since;
use longwire_embassy::{Arrival, Commands, Gateway, Outbox, Overflow, Policy, Uplink, UplinkConfig};
use longwire_footprint::{NoState, any, run};

static OUTBOX: Outbox<CriticalSectionRawMutex, 1024> = Outbox::new(Policy::DropOldest);
static COMMANDS: Commands<CriticalSectionRawMutex, 4, 64> = Commands::new(Overflow::DropOldest);
#[cfg(not(feature = "json"))]
static CONFIG: UplinkConfig = UplinkConfig::new();
#[cfg(feature = "json")]
static CONFIG: UplinkConfig = UplinkConfig { form: longwire_embassy::Form::Json, ..UplinkConfig::new() };

#[cfg(feature = "inflate")]
static INFLATER: static_cell::ConstStaticCell<longwire_embassy::Inflater<4096>> =
    static_cell::ConstStaticCell::new(longwire_embassy::Inflater::new());

#[embassy_executor::task]
async fn obey() {
    loop {
        if let Arrival::Command(command) = COMMANDS.next().await {
            longwire_footprint::write(command.data());
        }
    }
}

#[embassy_executor::task]
async fn report() {
    loop {
        Timer::after_millis(any()).await;
        let _ = OUTBOX.reporter().try_report("device/7/uptime", None, &any::<u32>());
    }
}

/// With pages and words as flash has them.
#[cfg(feature = "storage")]
#[embassy_executor::task]
async fn keep() {
    use longwire_embassy::{Storage, StorageConfig};
    let (flash, config) = (longwire_footprint::NoFlash, StorageConfig::new());
    if let Ok(mut storage) =
        Storage::<_, _, 1024, 512>::open(flash, 0..0x8000, &OUTBOX, &mut NoState, config).await
    {
        storage.run(|_| {}).await;
    }
}

#[embassy_executor::task]
async fn connect(#[cfg(feature = "network")] stack: embassy_net::Stack<'static>) {
    let (mut rx, mut tx) = ([0; 512], [0; 512]);
    #[cfg(feature = "network")]
    let (mut socket_rx, mut socket_tx) = ([0; 512], [0; 512]);
    #[cfg(feature = "network")]
    let connector = longwire_embassy::Tcp::new(
        stack,
        longwire_embassy::Remote::Name("gateway.example", 8080),
        &mut socket_rx,
        &mut socket_tx,
    );
    #[cfg(not(feature = "network"))]
    let connector = longwire_footprint::Nowhere;
    #[cfg(feature = "tls")]
    let mut buffers = longwire_embassy::TlsBuffers::<2048, 512>::new();
    #[cfg(feature = "tls")]
    let connector = {
        use longwire_embassy::{Tls, TlsConfig, Trust};
        // Not known to be none, or nothing would be left of what looks at certificates.
        let cas: &[&[u8]] = core::hint::black_box(&[&[0x30]]);
        Tls::new(connector, TlsConfig::new("example.org", Trust::Cas(cas)), NoState, &mut buffers)
    };
    let uplink = Uplink::new(connector, Gateway::new("example.org"), &CONFIG, NoState, &mut rx, &mut tx)
        .with_commands(&COMMANDS, &["device/7/do/*"], Since::Now);
    #[cfg(all(feature = "sse", not(any(feature = "network", feature = "tls"))))]
    let (mut post_rx, mut post_tx) = ([0; 512], [0; 512]);
    #[cfg(all(feature = "sse", not(any(feature = "network", feature = "tls"))))]
    let uplink = uplink.with_posts(longwire_footprint::Nowhere, &mut post_rx, &mut post_tx);
    #[cfg(feature = "inflate")]
    let Some(inflater) = INFLATER.try_take() else { return };
    #[cfg(feature = "inflate")]
    let uplink = uplink.with_decompressor(inflater);
    let mut uplink = uplink;
    uplink.run(&OUTBOX, |_| {}).await;
}

#[cfg(feature = "network")]
#[embassy_executor::task]
async fn network(mut runner: embassy_net::Runner<'static, longwire_footprint::network::NoNetwork>) -> ! {
    runner.run().await
}

fn spawn(spawner: Spawner) {
    #[cfg(feature = "network")]
    let stack = {
        let (stack, runner) = longwire_footprint::network::stack();
        if let Ok(task) = network(runner) {
            spawner.spawn(task);
        }
        stack
    };
    if let Ok(task) = report() {
        spawner.spawn(task);
    }
    if let Ok(task) = obey() {
        spawner.spawn(task);
    }
    #[cfg(feature = "storage")]
    if let Ok(task) = keep() {
        spawner.spawn(task);
    }
    if let Ok(task) = connect(
        #[cfg(feature = "network")]
        stack,
    ) {
        spawner.spawn(task);
    }
}

#[unsafe(no_mangle)]
extern "C" fn main() {
    run(spawn)
}
