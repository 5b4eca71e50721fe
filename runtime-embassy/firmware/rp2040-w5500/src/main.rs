//! longwire on WIZnet's board W5500-EVB-Pico: see the README beside it.
#![no_std]
#![no_main]

use core::ops::Range;

use chacha20::ChaCha12Rng;
use chacha20::rand_core::{Rng as _, SeedableRng};
use embassy_executor::Spawner;
use embassy_net::StackResources;
use embassy_net_wiznet::chip::W5500;
use embassy_net_wiznet::{Device, Runner, State};
use embassy_rp::clocks::RoscRng;
use embassy_rp::flash::Flash;
use embassy_rp::gpio::{Input, Level, Output, Pull};
use embassy_rp::peripherals::{DMA_CH0, DMA_CH1, DMA_CH2, SPI0};
use embassy_rp::spi::{self, Spi};
use embassy_rp::watchdog::Watchdog;
use embassy_rp::{bind_interrupts, dma};
use embassy_time::{Delay, Duration, Timer, block_for};
use embedded_hal_bus::spi::ExclusiveDevice;
use longwire_firmware::traffic::{Counted, Traffic};
use longwire_firmware::{Board, Gauges, Outcome, Settings, stack};
use portable_atomic as _;
use rtt_target::{rprintln, rtt_init_print};
use static_cell::StaticCell;

bind_interrupts!(struct Interrupts {
    DMA_IRQ_0 => dma::InterruptHandler<DMA_CH0>, dma::InterruptHandler<DMA_CH1>, dma::InterruptHandler<DMA_CH2>;
});

type Bus = ExclusiveDevice<Spi<'static, SPI0, spi::Async>, Output<'static>, Delay>;

const FLASH: usize = 2 << 20;
/// The end of the flash, which memory.x leaves alone, keeps readings over a reset.
const READINGS: Range<u32> = (FLASH - (64 << 10)) as u32..FLASH as u32;

static TRAFFIC: Traffic = Traffic::new();

#[embassy_executor::task]
async fn chip(runner: Runner<'static, W5500, Bus, Input<'static>, Output<'static>>) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn network(mut runner: embassy_net::Runner<'static, Counted<Device<'static>>>) -> ! {
    runner.run().await
}

/// Resets the chip when nothing has its turn any more: a fault, which ends in a loop, or a loop of our own.
#[embassy_executor::task]
async fn watchdog(mut watchdog: Watchdog) -> ! {
    // As long as it can count, nearly.
    const PATIENCE: Duration = Duration::from_secs(8);
    watchdog.pause_on_debug(true);
    watchdog.start(PATIENCE);
    loop {
        Timer::after(PATIENCE / 4).await;
        watchdog.feed(PATIENCE);
    }
}

#[embassy_executor::main]
async fn main(spawner: Spawner) -> ! {
    // SAFETY: there is one stack and no heap, and this runs once.
    let stack = unsafe { stack::Stack::paint() };
    rtt_init_print!();
    let p = embassy_rp::init(Default::default());
    match watchdog(Watchdog::new(p.WATCHDOG)) {
        Ok(task) => spawner.spawn(task),
        Err(_) => panic!("no room for a task"),
    }
    let mut rng = ChaCha12Rng::from_seed(seed());
    let mut id = [0; 8];
    let mut flash = Flash::<_, _, FLASH>::new(p.FLASH, p.DMA_CH2, Interrupts);
    if flash.blocking_unique_id(&mut id).is_err() {
        panic!("the flash does not say its number");
    }
    let mut config = spi::Config::default();
    config.frequency = 50_000_000;
    let bus = Spi::new(p.SPI0, p.PIN_18, p.PIN_19, p.PIN_16, p.DMA_CH0, p.DMA_CH1, Interrupts, config);
    let Ok(bus) = ExclusiveDevice::new(bus, Output::new(p.PIN_17, Level::High), Delay);
    static STATE: StaticCell<State<4, 4>> = StaticCell::new();
    let interrupt = Input::new(p.PIN_21, Pull::Up);
    let reset = Output::new(p.PIN_20, Level::High);
    let started = embassy_net_wiznet::new(address(id), STATE.init(State::new()), bus, interrupt, reset).await;
    let Ok((device, runner)) = started else { panic!("no W5500") };
    match chip(runner) {
        Ok(task) => spawner.spawn(task),
        Err(_) => panic!("no room for a task"),
    }
    // One more for DHCP.
    static RESOURCES: StaticCell<StackResources<{ longwire_firmware::SOCKETS + 1 }>> = StaticCell::new();
    let (net, runner) = embassy_net::new(
        Counted::new(device, &TRAFFIC),
        embassy_net::Config::dhcpv4(Default::default()),
        RESOURCES.init(StackResources::new()),
        rng.next_u64(),
    );
    match network(runner) {
        Ok(task) => spawner.spawn(task),
        Err(_) => panic!("no room for a task"),
    }
    let words = option_env!("LONGWIRE").unwrap_or_default();
    let Ok(settings) = Settings::from_line(words) else { panic!("LONGWIRE at build time: no settings") };
    let mut light = Output::new(p.PIN_25, Level::Low);
    let board = Board {
        gauges: Gauges { stack, traffic: &TRAFFIC, wakeups: None },
        light: |on: bool| light.set_level(on.into()),
        flash: Some((flash, READINGS)),
    };
    let log = |line: core::fmt::Arguments<'_>| rprintln!("{}", line);
    let outcome = longwire_firmware::run(net, &settings, rng, board, log).await;
    match outcome {
        Outcome::Refused(why) => rprintln!("the gateway refuses for good: {}", why),
        Outcome::Done => rprintln!("done"),
    }
    core::future::pending().await
}

/// Numbers from the jitter of the ring oscillator, which is all the randomness that this chip has.
///
/// The ring turns once in some 150 ns, and drifts little from one turn to the next: bits that are read as fast as the processor can
/// are nearly the same ones (`RoscRng::fill_bytes` reads them so). Here the ring turns some 65 times between two samples, and each bit of the
/// seed is the sum of 512 of them, 64 for each of the eight bits of its byte. How much there is in that nobody has measured.
fn seed() -> [u8; 32] {
    const SAMPLES: usize = 8 * 64;
    const PAUSE: Duration = Duration::from_micros(10);
    let mut seed = [0_u8; 32];
    for byte in &mut seed {
        for _ in 0..SAMPLES {
            block_for(PAUSE);
            *byte = byte.rotate_left(1) ^ RoscRng::next_u8();
        }
    }
    seed
}

/// A locally administered address that each board keeps: the end of its flash's unique number.
fn address(id: [u8; 8]) -> [u8; 6] {
    let [_, _, a, b, c, d, e, f] = id;
    [a & 0xfc | 2, b, c, d, e, f]
}

/// A device that panics begins anew.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    if let Some(place) = info.location() {
        rprintln!("panic at {}:{}", place.file(), place.line());
    }
    cortex_m::peripheral::SCB::sys_reset()
}
