//! Driver for the virtio network (Virtual I/O Device, version 1.2, section 5.1), by way of `virtio-drivers`.
//!
//! Interrupts are used for reception only. The device raises one with each frame that it hands over; it is a level, so
//! the handler acknowledges it and wakes the network task.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::Context;

use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState};
use embassy_sync::waitqueue::AtomicWaker;
use static_cell::ConstStaticCell;
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceType, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Longest frame: 14 bytes of header, 1500 of payload.
const MAX_FRAME: usize = 1514;
/// A frame with the header that the device puts in front of it.
const BUFFER: usize = 1536;
/// Buffers that the device may fill.
const BUFFERS: usize = 4;
/// Places in each of the two queues.
const QUEUE: usize = 4;

/// Places of devices on this machine, and the memory that each takes.
const SLOTS: usize = 8;
const FIRST_SLOT: usize = 0x1000_1000;
const SLOT: usize = 0x1000;

static RECEIVED: AtomicWaker = AtomicWaker::new();

/// The network device's place, once it was found.
static PLACE: AtomicUsize = AtomicUsize::new(0);

/// The device, and the buffers that it fills.
pub struct Network {
    device: VirtIONetRaw<Machine, MmioTransport<'static>, QUEUE>,
    buffers: &'static mut [[u8; BUFFER]; BUFFERS],
    /// By which number the device calls each of them; `None` while it does not have it.
    tokens: [Option<u16>; BUFFERS],
    tx: [u8; MAX_FRAME],
    rx: [u8; MAX_FRAME],
}

impl Network {
    /// Looks for the device and starts it; says also the number of its interrupt. `None` when there is none.
    pub fn start() -> Option<(Self, u32)> {
        static RX: ConstStaticCell<[[u8; BUFFER]; BUFFERS]> = ConstStaticCell::new([[0; BUFFER]; BUFFERS]);
        let (slot, transport) = (0..SLOTS).find_map(|slot| {
            let header = NonNull::new((FIRST_SLOT + slot * SLOT) as *mut VirtIOHeader)?;
            // SAFETY: on this machine each of these places has the registers of a device, or of none.
            let transport = unsafe { MmioTransport::new(header, SLOT) }.ok()?;
            (transport.device_type() == DeviceType::Network).then_some((slot, transport))
        })?;
        let buffers = RX.try_take()?;
        let mut device = VirtIONetRaw::new(transport).ok()?;
        device.enable_interrupts();
        PLACE.store(FIRST_SLOT + slot * SLOT, Ordering::Relaxed);
        let tokens = [None; BUFFERS];
        let mut network = Self { device, buffers, tokens, tx: [0; MAX_FRAME], rx: [0; MAX_FRAME] };
        network.lend();
        // Interrupt 0 means none.
        (!network.tokens.contains(&None)).then_some((network, slot as u32 + 1))
    }

    /// Gives the device every buffer that it does not have. One that it does not take is offered again with the next frame.
    fn lend(&mut self) {
        let free = self.tokens.iter_mut().zip(self.buffers.iter_mut()).filter(|(token, _)| token.is_none());
        for (token, buffer) in free {
            // SAFETY: it is static, and nobody touches it until the device gives it back.
            *token = unsafe { self.device.receive_begin(buffer) }.ok();
        }
    }

    /// Takes the next frame from the device and says how long it is. One that is no frame must not hide those behind it: no
    /// further interrupt comes for them.
    fn next_frame(&mut self) -> Option<usize> {
        loop {
            let token = self.device.poll_receive()?;
            let mut lent = self.tokens.iter_mut().zip(self.buffers.iter_mut());
            let (own, buffer) = lent.find(|(own, _)| **own == Some(token))?;
            // SAFETY: the buffer that was lent under this number.
            let received = unsafe { self.device.receive_complete(token, buffer) };
            // Whatever came of it, the device has given it back.
            *own = None;
            let taken = received.ok().and_then(|(header, len)| {
                let frame = buffer.get(header..)?.get(..len)?;
                self.rx.get_mut(..len)?.copy_from_slice(frame);
                Some(len)
            });
            self.lend();
            if taken.is_some() {
                return taken;
            }
        }
    }
}

/// To be called by the device's interrupt: acknowledges whatever it was raised for.
pub fn on_interrupt() {
    const STATUS: usize = 0x60;
    const ACKNOWLEDGE: usize = 0x64;
    let place = PLACE.load(Ordering::Relaxed);
    // SAFETY: registers of the device that was found there; the interrupt is enabled after that.
    unsafe {
        let status = ((place + STATUS) as *const u32).read_volatile();
        ((place + ACKNOWLEDGE) as *mut u32).write_volatile(status);
    }
    RECEIVED.wake();
}

/// Memory for the queues, which the device reads and writes: two pages for each.
#[repr(align(4096))]
struct Pages([u8; PAGES * PAGE_SIZE]);
const PAGES: usize = 4;

/// How the library gets memory: addresses are the same for the device, and nothing is ever given back.
struct Machine;

// SAFETY: the pages are static, aligned, and handed out once; the device sees the memory as the processor does.
unsafe impl Hal for Machine {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        static PAGES_OF_QUEUES: ConstStaticCell<Pages> = ConstStaticCell::new(Pages([0; PAGES * PAGE_SIZE]));
        static FREE: AtomicUsize = AtomicUsize::new(0);
        static FIRST: AtomicUsize = AtomicUsize::new(0);
        if let Some(all) = PAGES_OF_QUEUES.try_take() {
            FIRST.store(all.0.as_mut_ptr() as usize, Ordering::Relaxed);
        }
        let used = FREE.fetch_add(pages, Ordering::Relaxed);
        assert!(used + pages <= PAGES, "the library asks for two pages a queue");
        let address = FIRST.load(Ordering::Relaxed) + used * PAGE_SIZE;
        (address as PhysAddr, NonNull::new(address as *mut u8).unwrap_or(NonNull::dangling()))
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::new(address as usize as *mut u8).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as usize as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// A received frame.
pub struct RxToken<'a>(&'a mut [u8]);

/// Room for a frame to be sent.
pub struct TxToken<'a>(&'a mut [u8; MAX_FRAME], &'a mut VirtIONetRaw<Machine, MmioTransport<'static>, QUEUE>);

impl embassy_net_driver::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl embassy_net_driver::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Self(buffer, device) = self;
        // The stack asks for no more than `max_transmission_unit`.
        let frame = &mut buffer[..len];
        let result = f(frame);
        // It waits until the device has taken the frame. One that it does not take is lost, as any may be.
        let _ = device.send(frame);
        result
    }
}

impl Driver for Network {
    type RxToken<'a> = RxToken<'a>;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, cx: &mut Context<'_>) -> Option<(RxToken<'_>, TxToken<'_>)> {
        // Before the look, so that a frame that comes after it is not missed.
        RECEIVED.register(cx.waker());
        let len = self.next_frame()?;
        Some((RxToken(&mut self.rx[..len]), TxToken(&mut self.tx, &mut self.device)))
    }

    fn transmit(&mut self, _cx: &mut Context<'_>) -> Option<TxToken<'_>> {
        Some(TxToken(&mut self.tx, &mut self.device))
    }

    fn link_state(&mut self, _cx: &mut Context<'_>) -> LinkState {
        // The emulated cable is always plugged in.
        LinkState::Up
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = MAX_FRAME;
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(self.device.mac_address())
    }
}
