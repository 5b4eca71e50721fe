//! The device: the uplink as it runs in a microcontroller, over a socket of its stack.

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::task::Poll;

use embassy_futures::select::{Either, select};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_time::Duration;
use embedded_io_async::{ErrorKind, ErrorType, Read, Write};
use longwire_embassy::{
    Connect, Gateway, Lost, Outbox, Status, Storage, StorageConfig, Stream, Uplink, UplinkConfig,
};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{RecvError, State};

use crate::dice::Dice;
use crate::flash::{self, Flash};
use crate::gateway;
use crate::stack::Stack;

/// The outbox of a story's device.
pub(crate) type Readings<const BYTES: usize> = Outbox<NoopRawMutex, BYTES>;

static CONFIG: UplinkConfig = UplinkConfig::new();

/// Connects by way of a stack, with its only socket.
pub(crate) struct Dial {
    stack: Rc<RefCell<Stack>>,
    handle: SocketHandle,
    port: u16,
}

impl Dial {
    pub(crate) fn new(stack: &Rc<RefCell<Stack>>, first_port: u16) -> Self {
        let handle = stack.borrow_mut().add(1024, 1024);
        Self { stack: stack.clone(), handle, port: first_port }
    }
}

impl Connect for Dial {
    type Link<'a> = Stream<Socket>;
    type Error = ErrorKind;

    async fn connect(&mut self) -> Result<Stream<Socket>, ErrorKind> {
        // A connection of the last minutes may still be known at the other end under its port.
        self.port = self.port.checked_add(1).unwrap_or(49_152);
        // Closed when it is dropped, also while it waits here.
        let socket = Socket { stack: self.stack.clone(), handle: self.handle };
        if !self.stack.borrow_mut().connect(self.handle, gateway::ENDPOINT, self.port) {
            return Err(ErrorKind::AddrInUse);
        }
        poll_fn(|cx| {
            let mut stack = self.stack.borrow_mut();
            let socket = stack.socket(self.handle);
            match socket.state() {
                State::SynSent | State::SynReceived => {
                    socket.register_send_waker(cx.waker());
                    Poll::Pending
                }
                State::Established | State::CloseWait => Poll::Ready(Ok(())),
                _ => Poll::Ready(Err(ErrorKind::ConnectionReset)),
            }
        })
        .await?;
        Ok(Stream(socket))
    }
}

/// A connected socket. Its futures move no byte before they are ready.
pub(crate) struct Socket {
    stack: Rc<RefCell<Stack>>,
    handle: SocketHandle,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut stack = self.stack.borrow_mut();
        stack.socket(self.handle).abort();
        stack.touched = true;
    }
}

impl ErrorType for Socket {
    type Error = ErrorKind;
}

impl Read for Socket {
    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, ErrorKind> {
        poll_fn(|cx| {
            let mut stack = self.stack.borrow_mut();
            match stack.socket(self.handle).recv_slice(bytes) {
                Ok(0) => {
                    stack.socket(self.handle).register_recv_waker(cx.waker());
                    Poll::Pending
                }
                Ok(n) => {
                    stack.touched = true;
                    Poll::Ready(Ok(n))
                }
                Err(RecvError::Finished) => Poll::Ready(Ok(0)),
                Err(RecvError::InvalidState) => Poll::Ready(Err(ErrorKind::ConnectionReset)),
            }
        })
        .await
    }
}

impl Write for Socket {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        poll_fn(|cx| {
            let mut stack = self.stack.borrow_mut();
            match stack.socket(self.handle).send_slice(bytes) {
                Ok(0) => {
                    stack.socket(self.handle).register_send_waker(cx.waker());
                    Poll::Pending
                }
                Ok(n) => {
                    stack.touched = true;
                    Poll::Ready(Ok(n))
                }
                Err(_) => Poll::Ready(Err(ErrorKind::ConnectionReset)),
            }
        })
        .await
    }

    async fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

/// What the firmware's tasks do, from its start: a storage first, if it has one; then that and the uplink.
pub(crate) async fn run<const BYTES: usize>(
    outbox: Rc<Readings<BYTES>>,
    flash: Option<Flash>,
    dial: Dial,
    mut dice: Dice,
    observe: impl FnMut(Status),
) -> Lost {
    let mut storage = match flash {
        // What was reported is written at once, so that a story knows what a reset may lose: nothing.
        Some(flash) => {
            let config = StorageConfig { delay: Duration::from_ticks(0) };
            let opened =
                Storage::<_, _, BYTES, 512>::open(flash, flash::RANGE, &outbox, &mut dice, config).await;
            Some(opened.expect("the flash is good"))
        }
        None => None,
    };
    let keep = async {
        match &mut storage {
            Some(storage) => storage.run(|_| {}).await,
            None => pending().await,
        }
    };
    let (mut rx, mut tx) = ([0; 512], [0; 512]);
    let gateway = Gateway::new("gateway");
    let mut uplink = Uplink::new(dial, gateway, &CONFIG, dice, &mut rx, &mut tx);
    match select(uplink.run(&outbox, observe), keep).await {
        Either::First(lost) => lost,
        Either::Second(()) => panic!("a storage runs for ever"),
    }
}
