//! The binding for embassy-net.

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

/// TCP connections to one address.
///
/// The buffers are the socket's. What does not fit the send buffer makes a write wait; the receive buffer is the
/// window that the peer may fill. One segment's worth (1460 bytes) is a good size for either, 512 bytes work.
pub struct Tcp<'b> {
    stack: Stack<'b>,
    gateway: IpEndpoint,
    rx: &'b mut [u8],
    tx: &'b mut [u8],
}

impl<'b> Tcp<'b> {
    /// Connects to `gateway` by way of `stack`, with these buffers.
    pub fn new(stack: Stack<'b>, gateway: impl Into<IpEndpoint>, rx: &'b mut [u8], tx: &'b mut [u8]) -> Self {
        Self { stack, gateway: gateway.into(), rx, tx }
    }
}

impl Connect for Tcp<'_> {
    type Link<'a>
        = TcpSocket<'a>
    where
        Self: 'a;
    type Error = ConnectError;

    /// Waits until the network has an address, then connects. A peer that refuses and a network that is not there
    /// both look like [`ConnectError::ConnectionReset`].
    async fn connect(&mut self) -> Result<TcpSocket<'_>, ConnectError> {
        self.stack.wait_config_up().await;
        let mut socket = TcpSocket::new(self.stack, self.rx, self.tx);
        // Readings are small; together with the peer's delayed acknowledgements, Nagle's algorithm (RFC 9293 section
        // 3.7.4) would hold every second one back.
        socket.set_nagle_enabled(false);
        socket.connect(self.gateway).await?;
        Ok(socket)
    }
}
