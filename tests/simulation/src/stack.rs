//! A TCP/IP stack at one end of the network.

use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use crate::network::Port;

/// smoltcp, with its sockets.
pub(crate) struct Stack {
    pub(crate) port: Port,
    interface: Interface,
    sockets: SocketSet<'static>,
    /// An application did something since the last [`poll`](Self::poll).
    pub(crate) touched: bool,
}

impl Stack {
    pub(crate) fn new(address: IpAddress, seed: u64, now: u64) -> Self {
        let mut port = Port::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut port, instant(now));
        interface.update_ip_addrs(|addresses| {
            let added = addresses.push(IpCidr::new(address, 24));
            assert!(added.is_ok());
        });
        Self { port, interface, sockets: SocketSet::new(Vec::new()), touched: false }
    }

    /// A socket with buffers of so many bytes.
    pub(crate) fn add(&mut self, rx: usize, tx: usize) -> SocketHandle {
        let buffer = |len| tcp::SocketBuffer::new(vec![0; len]);
        let mut socket = tcp::Socket::new(buffer(rx), buffer(tx));
        socket.set_nagle_enabled(false);
        // A kernel gives up sooner or later.
        socket.set_timeout(Some(Duration::from_secs(60)));
        self.sockets.add(socket)
    }

    pub(crate) fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// As `Socket::connect`; false when that cannot be done.
    pub(crate) fn connect(&mut self, handle: SocketHandle, to: (IpAddress, u16), from: u16) -> bool {
        self.touched = true;
        let socket = self.sockets.get_mut::<tcp::Socket<'static>>(handle);
        socket.connect(self.interface.context(), to, from).is_ok()
    }

    /// Works off what came, and sends. True when something has changed for the applications.
    pub(crate) fn poll(&mut self, now: u64) -> bool {
        self.touched = false;
        self.interface.poll(instant(now), &mut self.port, &mut self.sockets) == PollResult::SocketStateChanged
    }

    /// When it wants to be polled.
    pub(crate) fn next(&mut self, now: u64) -> u64 {
        let at = self.interface.poll_at(instant(now), &self.sockets);
        at.map_or(u64::MAX, |at| u64::try_from(at.total_micros()).unwrap_or(0))
    }
}

fn instant(micros: u64) -> Instant {
    Instant::from_micros(i64::try_from(micros).expect("a story does not last for ever"))
}
