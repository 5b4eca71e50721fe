//! longwire on ST's board NUCLEO-H743ZI: see the README beside it.
#![no_std]
#![no_main]

use chacha20::ChaCha12Rng;
use chacha20::rand_core::{Rng as _, SeedableRng};
use embassy_executor::Spawner;
use embassy_net::StackResources;
use embassy_stm32::eth::{self, Ethernet, GenericPhy, PacketQueue, Sma};
use embassy_stm32::gpio::{Level, Output, Speed};
use embassy_stm32::peripherals::{ETH, ETH_SMA, IWDG1, RNG};
use embassy_stm32::wdg::IndependentWatchdog;
use embassy_stm32::{Config, bind_interrupts, rng, uid};
use embassy_time::{Duration, Timer};
use longwire_firmware::traffic::{Counted, Traffic};
use longwire_firmware::{Board, Gauges, NoFlash, Outcome, Settings, stack};
use rtt_target::{rprintln, rtt_init_print};
use static_cell::StaticCell;

bind_interrupts!(struct Interrupts {
    ETH => eth::InterruptHandler;
    RNG => rng::InterruptHandler<RNG>;
});

type Network = Counted<Ethernet<'static, ETH, GenericPhy<Sma<'static, ETH_SMA>>>>;

static TRAFFIC: Traffic = Traffic::new();

#[embassy_executor::task]
async fn network(mut runner: embassy_net::Runner<'static, Network>) -> ! {
    runner.run().await
}

/// How long the processor may be busy with one thing: with TLS somebody may have it look at sixteen signatures at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// Resets the chip when nothing has its turn any more: a fault, which ends in a loop, or a loop of our own.
#[embassy_executor::task]
async fn watchdog(mut watchdog: IndependentWatchdog<'static, IWDG1>) -> ! {
    watchdog.unleash();
    loop {
        Timer::after(PATIENCE / 4).await;
        watchdog.pet();
    }
}

#[embassy_executor::main]
async fn main(spawner: Spawner) -> ! {
    // SAFETY: there is one stack and no heap, and this runs once.
    let stack = unsafe { stack::Stack::paint() };
    rtt_init_print!();
    let p = embassy_stm32::init(clocks());
    match watchdog(IndependentWatchdog::new(p.IWDG1, PATIENCE.as_micros() as u32)) {
        Ok(task) => spawner.spawn(task),
        Err(_) => panic!("no room for a task"),
    }
    let mut seed = [0; 32];
    if rng::Rng::new(p.RNG, Interrupts).async_fill_bytes(&mut seed).await.is_err() {
        panic!("the generator of randomness fails");
    }
    let mut rng = ChaCha12Rng::from_seed(seed);
    static FRAMES: StaticCell<PacketQueue<4, 4>> = StaticCell::new();
    let ethernet = Ethernet::new(
        FRAMES.init(PacketQueue::new()),
        p.ETH,
        Interrupts,
        p.PA1,
        p.PA7,
        p.PC4,
        p.PC5,
        p.PG13,
        p.PB13,
        p.PG11,
        address(&uid::uid()),
        p.ETH_SMA,
        p.PA2,
        p.PC1,
    );
    // One more for DHCP.
    static RESOURCES: StaticCell<StackResources<{ longwire_firmware::SOCKETS + 1 }>> = StaticCell::new();
    let (net, runner) = embassy_net::new(
        Counted::new(ethernet, &TRAFFIC),
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
    let mut light = Output::new(p.PB0, Level::Low, Speed::Low);
    let board = Board {
        gauges: Gauges { stack, traffic: &TRAFFIC, wakeups: None },
        light: |on: bool| light.set_level(on.into()),
        flash: NoFlash::NONE,
        #[cfg(feature = "tls")]
        ca: include_bytes!(env!("LONGWIRE_CA")),
    };
    let log = |line: core::fmt::Arguments<'_>| rprintln!("{}", line);
    let outcome = longwire_firmware::run(net, &settings, rng, board, log).await;
    match outcome {
        Outcome::Refused(why) => rprintln!("the gateway refuses for good: {}", why),
        Outcome::Done => rprintln!("done"),
    }
    core::future::pending().await
}

/// 400 MHz from the internal oscillator; the generator of randomness wants 48 MHz of its own.
fn clocks() -> Config {
    use embassy_stm32::rcc::{
        AHBPrescaler, APBPrescaler, HSIPrescaler, Hsi48Config, Pll, PllDiv, PllMul, PllPreDiv, PllSource,
        Sysclk, VoltageScale,
    };
    let mut config = Config::default();
    let rcc = &mut config.rcc;
    rcc.hsi = Some(HSIPrescaler::DIV1);
    rcc.hsi48 = Some(Hsi48Config::default());
    rcc.pll1 = Some(Pll {
        source: PllSource::HSI,
        prediv: PllPreDiv::DIV4,
        mul: PllMul::MUL50,
        divp: Some(PllDiv::DIV2),
        divq: None,
        divr: None,
        fracn: None,
    });
    rcc.sys = Sysclk::PLL1_P;
    rcc.ahb_pre = AHBPrescaler::DIV2;
    rcc.apb1_pre = APBPrescaler::DIV2;
    rcc.apb2_pre = APBPrescaler::DIV2;
    rcc.apb3_pre = APBPrescaler::DIV2;
    rcc.apb4_pre = APBPrescaler::DIV2;
    rcc.voltage_scale = VoltageScale::Scale1;
    config
}

/// A locally administered address that each chip keeps: a fold of its unique number.
fn address(id: &[u8]) -> [u8; 6] {
    let mut address = [0; 6];
    for (at, byte) in id.iter().enumerate() {
        address[at % 6] ^= byte.rotate_left(at as u32 / 6);
    }
    address[0] = address[0] & 0xfc | 2;
    address
}

/// A device that panics begins anew.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    if let Some(place) = info.location() {
        rprintln!("panic at {}:{}", place.file(), place.line());
    }
    cortex_m::peripheral::SCB::sys_reset()
}
