//! The virtio network (Virtual I/O Device, version 1.2, section 5.1), by way of `virtio-drivers`. The device interrupts with
//! each frame that it hands over; that is a level, so the handler acknowledges it.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use longwire_emulated::ethernet::{Controller, Frame, received};
use static_cell::ConstStaticCell;
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceType, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

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

/// The network device's place, once it was found.
static PLACE: AtomicUsize = AtomicUsize::new(0);

/// The device, and the buffers that it fills.
pub struct Network {
    device: VirtIONetRaw<Machine, MmioTransport<'static>, QUEUE>,
    buffers: &'static mut [[u8; BUFFER]; BUFFERS],
    /// By which number the device calls each of them; `None` while it does not have it.
    tokens: [Option<u16>; BUFFERS],
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
        let mut network = Self { device, buffers, tokens: [None; BUFFERS] };
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
}

impl Controller for Network {
    fn address(&self) -> [u8; 6] {
        self.device.mac_address()
    }

    /// One that is no frame must not hide those behind it: no further interrupt comes for them.
    fn receive(&mut self, frame: &mut Frame) -> Option<usize> {
        loop {
            let token = self.device.poll_receive()?;
            let mut lent = self.tokens.iter_mut().zip(self.buffers.iter_mut());
            let (own, buffer) = lent.find(|(own, _)| **own == Some(token))?;
            // SAFETY: the buffer that was lent under this number.
            let received = unsafe { self.device.receive_complete(token, buffer) };
            // Whatever came of it, the device has given it back.
            *own = None;
            let taken = received.ok().and_then(|(header, len)| {
                let received = buffer.get(header..)?.get(..len)?;
                frame.get_mut(..len)?.copy_from_slice(received);
                Some(len)
            });
            self.lend();
            if taken.is_some() {
                return taken;
            }
        }
    }

    fn listen(&mut self) -> bool {
        // Its interrupt is never silenced.
        false
    }

    fn has_room(&mut self) -> bool {
        true
    }

    fn send(&mut self, frame: &[u8]) {
        // It waits until the device has taken the frame. One that it does not take is lost, as any may be.
        let _ = self.device.send(frame);
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
    received();
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
