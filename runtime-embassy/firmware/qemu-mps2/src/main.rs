//! longwire on Arm's MPS2 board (application note 385: Cortex-M3, LAN9118 Ethernet), as QEMU emulates it.
//!
//! ```text
//! cargo run --release -- port=8080
//! ```
//! See `longwire_firmware::Settings` for the arguments.
#![no_std]
#![no_main]

mod clock;
mod host;
mod lan9118;

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use chacha20::ChaCha12Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::NVIC;
use cortex_m_rt::{ExceptionFrame, entry, exception};
use cortex_m_semihosting::hprintln;
use embassy_executor::{Spawner, raw};
use embassy_net::{Ipv4Address, Ipv4Cidr, StackResources, StaticConfigV4};
use lan9118::Lan9118;
use longwire_firmware::{Outcome, Settings, stack};
use static_cell::StaticCell;

/// Longest command line.
const MAX_LINE: usize = 256;

/// The emulator's network: this address is ours, and that of the gateway is the host's loopback.
const ADDRESS: Ipv4Cidr = Ipv4Cidr::new(Ipv4Address::new(10, 0, 2, 15), 24);
const GATEWAY: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);
const GATEWAY_NAME: &str = "localhost";

#[embassy_executor::task]
async fn network(mut runner: embassy_net::Runner<'static, Lan9118>) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn application(spawner: Spawner, stack: stack::Stack) {
    let mut line = [0; MAX_LINE];
    let settings = match Settings::parse(host::arguments(&mut line), GATEWAY, GATEWAY_NAME) {
        Ok(settings) => settings,
        Err(wrong) => fail(format_args!("{wrong}")),
    };
    let mut seed = [0; 32];
    if !host::random(&mut seed) {
        fail(format_args!("the host gives no randomness"));
    }
    let mut rng = ChaCha12Rng::from_seed(seed);
    let Some(chip) = Lan9118::start() else { fail(format_args!("no LAN9118 on this board")) };
    unmask(lan9118::IRQ);

    static RESOURCES: StaticCell<StackResources<1>> = StaticCell::new();
    let config = embassy_net::Config::ipv4_static(StaticConfigV4 {
        address: ADDRESS,
        gateway: Some(GATEWAY),
        dns_servers: Default::default(),
    });
    let (net, runner) = embassy_net::new(chip, config, RESOURCES.init(StackResources::new()), rng.next_u64());
    match network(runner) {
        Ok(task) => spawner.spawn(task),
        Err(full) => fail(format_args!("{full:?}")),
    }
    match longwire_firmware::run(net, &settings, rng, stack, |line| hprintln!("{}", line)).await {
        Outcome::Done => host::exit(0),
        Outcome::Refused(why) => fail(format_args!("the gateway refuses for good: {why}")),
    }
}

/// Says what is wrong, and ends the emulator.
fn fail(why: core::fmt::Arguments<'_>) -> ! {
    hprintln!("{}", why);
    host::exit(1)
}

/// Set when a task has to be polled.
static WOKEN: AtomicBool = AtomicBool::new(false);

#[unsafe(export_name = "__pender")]
fn wake(_: *mut ()) {
    WOKEN.store(true, Ordering::SeqCst);
}

unsafe extern "C" {
    /// Where static data ends, so the lowest word that the stack may grow down to (from cortex-m-rt's linker script).
    static mut __sheap: u32;
}

#[entry]
fn main() -> ! {
    let pointer = NonNull::new(cortex_m::register::msp::read() as *mut u32);
    let (Some(bottom), Some(pointer)) = (NonNull::new(&raw mut __sheap), pointer) else { host::exit(1) };
    // SAFETY: there is no heap, so all that lies between static data and the stack pointer is the stack's.
    let stack = unsafe { stack::Stack::paint(bottom, pointer) };
    clock::start();
    unmask(clock::IRQ);

    static EXECUTOR: StaticCell<raw::Executor> = StaticCell::new();
    let executor: &'static raw::Executor = EXECUTOR.init(raw::Executor::new(core::ptr::null_mut()));
    let spawner = executor.spawner();
    match application(spawner, stack) {
        Ok(task) => spawner.spawn(task),
        Err(full) => fail(format_args!("{full:?}")),
    }
    loop {
        // SAFETY: the one place that polls it, and never from inside itself.
        unsafe { executor.poll() };
        // Sleep by WFI: the emulator returns from the executor's usual WFE at once, and would keep a core busy.
        // An interrupt ends WFI even while it is masked, so none is slept through between the look and the sleep.
        cortex_m::interrupt::free(|_| {
            if !WOKEN.swap(false, Ordering::SeqCst) {
                cortex_m::asm::wfi();
            }
        });
    }
}

/// A peripheral's interrupt.
#[derive(Clone, Copy)]
struct Interrupt(u16);

// SAFETY: the numbers are those of the board.
unsafe impl InterruptNumber for Interrupt {
    fn number(self) -> u16 {
        self.0
    }
}

fn unmask(interrupt: u16) {
    // SAFETY: no code relies on these interrupts being masked.
    unsafe { NVIC::unmask(Interrupt(interrupt)) };
}

#[exception]
unsafe fn DefaultHandler(number: i16) {
    match u16::try_from(number) {
        Ok(clock::IRQ) => clock::on_interrupt(),
        Ok(lan9118::IRQ) => lan9118::on_interrupt(),
        _ => fail(format_args!("unexpected interrupt {number}")),
    }
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    hprintln!("hard fault: {:?}", frame);
    host::exit(101)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    hprintln!("{}", info);
    host::exit(101)
}
