//! The binding for embassy-net.

use core::fmt;

use embassy_net::dns::{self, DnsQueryType};
use embassy_net::tcp::{ConnectError, Error, TcpSocket};
use embassy_net::{IpEndpoint, Stack};

use crate::link::{Connect, Link};

/// A future of `read` or `write` looks at the socket's buffer each time it is polled, and has moved nothing until it
/// is ready: both are cancel-safe. There is nothing to flush, for the network's task sends what was written; the
/// socket's own `flush` waits until the peer has acknowledged it, which would stop the whole connection for a round
/// trip.
impl Link for TcpSocket<'_> {
    type Error = Error;
    const CANCEL_SAFE_WRITE: bool = true;

    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Error> {
        TcpSocket::read(self, bytes).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        TcpSocket::write(self, bytes).await
    }
}

/// Whom a [`Tcp`] connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Remote<'b> {
    /// An address.
    Address(IpEndpoint),
    /// A name and a port. The name is looked up before each connection, by the resolvers that the stack is configured with; the stack
    /// needs a socket for that ([`StackResources`](embassy_net::StackResources)). Of several addresses each attempt takes the
    /// next (smoltcp keeps as many as its `dns-max-result-count-N` says, one if nothing does). An address in its place is taken
    /// as it is.
    Name(&'b str, u16),
}

impl<T: Into<IpEndpoint>> From<T> for Remote<'_> {
    fn from(address: T) -> Self {
        Self::Address(address.into())
    }
}

/// Why [`Tcp`] has no link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum TcpError {
    /// The name could not be looked up.
    Dns(dns::Error),
    /// The name has no address.
    NoAddress,
    /// No connection to the address. A peer that refuses and a network that is not there both look like
    /// [`ConnectError::ConnectionReset`].
    Connect(ConnectError),
}

impl fmt::Display for TcpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(error) => write!(f, "the name could not be looked up: {error:?}"),
            Self::NoAddress => f.write_str("the name has no address"),
            Self::Connect(error) => write!(f, "no connection: {error:?}"),
        }
    }
}

impl core::error::Error for TcpError {}

/// TCP connections to one host.
///
/// The buffers are the socket's. What does not fit the send buffer makes a write wait; the receive buffer is the
/// window that the peer may fill. One segment's worth (1460 bytes) is a good size for either, 512 bytes work.
pub struct Tcp<'b> {
    stack: Stack<'b>,
    remote: Remote<'b>,
    rx: &'b mut [u8],
    tx: &'b mut [u8],
    /// Which of the addresses of a name is tried next.
    attempt: usize,
}

impl<'b> Tcp<'b> {
    /// Connects to `remote` by way of `stack`, with these buffers.
    pub fn new(stack: Stack<'b>, remote: impl Into<Remote<'b>>, rx: &'b mut [u8], tx: &'b mut [u8]) -> Self {
        Self { stack, remote: remote.into(), rx, tx, attempt: 0 }
    }
}

impl Connect for Tcp<'_> {
    type Link<'a>
        = TcpSocket<'a>
    where
        Self: 'a;
    type Error = TcpError;

    /// Waits until the network has an address, looks the name up, then connects.
    async fn connect(&mut self) -> Result<TcpSocket<'_>, TcpError> {
        self.stack.wait_config_up().await;
        let address = match self.remote {
            Remote::Address(address) => address,
            Remote::Name(name, port) => {
                let found = self.stack.dns_query(name, DnsQueryType::A).await.map_err(TcpError::Dns)?;
                let nth = self.attempt.checked_rem(found.len()).ok_or(TcpError::NoAddress)?;
                self.attempt = self.attempt.wrapping_add(1);
                IpEndpoint { addr: *found.get(nth).ok_or(TcpError::NoAddress)?, port }
            }
        };
        let mut socket = TcpSocket::new(self.stack, self.rx, self.tx);
        // Readings are small; together with the peer's delayed acknowledgements, Nagle's algorithm (RFC 9293 section
        // 3.7.4) would hold every second one back.
        socket.set_nagle_enabled(false);
        socket.connect(address).await.map_err(TcpError::Connect)?;
        Ok(socket)
    }
}
