//! This machine as a device: its sockets by the traits of `embedded-nal-async`, its clock as embassy's.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{Error, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use embassy_time::MockDriver;
use embedded_nal_async::{AddrType, Dns, TcpConnect};
use longwire_core::rand_core::{Infallible, TryCryptoRng, TryRng};
use longwire_tests::PATIENCE;

/// The name that the resolver knows.
pub(crate) const NAME: &str = "gateway.test";

/// The network stack. Counts what it does.
#[derive(Debug, Default)]
pub(crate) struct Host {
    pub(crate) looked_up: Cell<u32>,
    pub(crate) connected: Cell<u32>,
    /// Most bytes that go at once, in either direction.
    pub(crate) pace: Option<usize>,
    /// So many bytes come in over a connection; then it ends.
    pub(crate) until: Option<usize>,
}

/// A socket that does not block.
pub(crate) struct Socket {
    stream: TcpStream,
    pace: usize,
    until: usize,
}

impl TcpConnect for Host {
    type Error = Error;
    type Connection<'a> = Socket;

    async fn connect(&self, remote: SocketAddr) -> Result<Socket, Error> {
        // On loopback it is there at once or not at all.
        let stream = TcpStream::connect(remote)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        self.connected.set(self.connected.get() + 1);
        let all = usize::MAX;
        Ok(Socket { stream, pace: self.pace.unwrap_or(all), until: self.until.unwrap_or(all) })
    }
}

impl Dns for Host {
    type Error = ();

    async fn get_host_by_name(&self, host: &str, _: AddrType) -> Result<IpAddr, ()> {
        self.looked_up.set(self.looked_up.get() + 1);
        (host == NAME).then_some(Ipv4Addr::LOCALHOST.into()).ok_or(())
    }

    async fn get_host_by_address(&self, _: IpAddr, _: &mut [u8]) -> Result<usize, ()> {
        Err(())
    }
}

impl embedded_io_async::ErrorType for Socket {
    type Error = Error;
}

/// Whoever polls looks again soon: nobody is woken.
fn ready<T>(result: std::io::Result<T>) -> Poll<std::io::Result<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

impl embedded_io_async::Read for Socket {
    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Error> {
        let most = bytes.len().min(self.pace).min(self.until);
        let read = poll_fn(|_| ready(self.stream.read(&mut bytes[..most]))).await?;
        self.until -= read;
        Ok(read)
    }
}

impl embedded_io_async::Write for Socket {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let most = bytes.len().min(self.pace);
        poll_fn(|_| ready(self.stream.write(&bytes[..most]))).await
    }

    async fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// The process has one clock of embassy's, so its devices live one after the other.
pub(crate) fn clock() -> MutexGuard<'static, ()> {
    static CLOCK: Mutex<()> = Mutex::new(());
    CLOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets a device run until `done`, or until it ends; panics with `said` when neither happens in time. Embassy's clock, which the workspace's tests
/// move by hand, goes as this machine's.
pub(crate) fn run<T>(
    mut device: Pin<&mut (dyn Future<Output = T> + '_)>,
    said: impl Fn() -> String,
    mut done: impl FnMut() -> bool,
) -> Option<T> {
    let begun = Instant::now();
    let mut last = begun;
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if done() {
            return None;
        }
        assert!(begun.elapsed() < PATIENCE, "{}", said());
        // The interval of a look.
        std::thread::sleep(Duration::from_millis(1));
        let now = Instant::now();
        let micros = u64::try_from((now - last).as_micros()).expect("a moment");
        MockDriver::get().advance(embassy_time::Duration::from_micros(micros));
        last = now;
        if let Poll::Ready(end) = device.as_mut().poll(&mut cx) {
            return Some(end);
        }
    }
}

/// Good enough for masks that hide nothing.
pub(crate) struct Numbers(longwire_tests::rng::Rng);

impl Numbers {
    pub(crate) fn from_env() -> Self {
        Self(longwire_tests::rng::Rng::from_env())
    }
}

impl TryCryptoRng for Numbers {}

impl TryRng for Numbers {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::try_from(self.0.below(1 << 32)).expect("32 bits"))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.below(u64::MAX))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill_with(|| u8::try_from(self.0.below(256)).expect("8 bits"));
        Ok(())
    }
}
