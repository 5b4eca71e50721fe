//! The binding for embassy-net.

use core::fmt;
use core::hash::{Hash, Hasher};

use embassy_net::dns::{self, DnsQueryType};
use embassy_net::tcp::{ConnectError, Error, TcpSocket};
use embassy_net::{HardwareAddress, IpAddress, IpEndpoint, Stack};

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
    /// needs a socket for that ([`StackResources`](embassy_net::StackResources)). An address in its place is taken as it is.
    ///
    /// Of several addresses (smoltcp keeps as many as its `dns-max-result-count-N` says, one if nothing does) one is used for as long as
    /// somebody [answers](Connect::answered) there, and after an attempt in vain the next one. Their order is the device's own,
    /// made from its hardware address, whatever order a resolver gives them: so a fleet spreads over the addresses, and all
    /// connectors of a device begin with the same one. After that each goes its own way: when one of the two of an
    /// [`Uplink`](crate::Uplink) with posts has had to leave an address, stream and posts may be at different gateways until
    /// one that it is at fails. Readings arrive all the same; a credential is not renewed beside the stream then, which ends with its
    /// grant, and is opened again.
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
    choice: Choice,
}

impl<'b> Tcp<'b> {
    /// Connects to `remote` by way of `stack`, with these buffers.
    pub fn new(stack: Stack<'b>, remote: impl Into<Remote<'b>>, rx: &'b mut [u8], tx: &'b mut [u8]) -> Self {
        Self { stack, remote: remote.into(), rx, tx, choice: Choice::default() }
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
                let addr = self.choice.next(&found, device(self.stack)).ok_or(TcpError::NoAddress)?;
                IpEndpoint { addr, port }
            }
        };
        let mut socket = TcpSocket::new(self.stack, self.rx, self.tx);
        // Readings are small; together with the peer's delayed acknowledgements, Nagle's algorithm (RFC 9293 section
        // 3.7.4) would hold every second one back.
        socket.set_nagle_enabled(false);
        socket.connect(address).await.map_err(TcpError::Connect)?;
        Ok(socket)
    }

    fn answered(&mut self) {
        self.choice.answered = true;
    }
}

/// Which of the addresses of a name is used.
#[derive(Default)]
struct Choice {
    /// The one that was chosen last.
    last: Option<IpAddress>,
    /// Somebody answered there, since.
    answered: bool,
}

impl Choice {
    /// The last one if somebody answered there, or else the one behind it in the order of this `device`. Resolvers give them in any
    /// order, and in another one each time (RFC 1794), so a place in the answer means nothing.
    fn next(&mut self, found: &[IpAddress], device: Mix) -> Option<IpAddress> {
        let answered = core::mem::take(&mut self.answered);
        let order = |address: &IpAddress| device.with(address);
        let kept = self.last.filter(|last| answered && found.contains(last));
        let behind = self.last.and_then(|last| {
            let behind = found.iter().filter(|address| order(address) > order(&last));
            behind.min_by_key(|address| order(address))
        });
        let first = || found.iter().min_by_key(|address| order(address));
        self.last = kept.or_else(|| behind.or_else(first).copied());
        self.last
    }
}

/// What is this device's and no other's.
fn device(stack: Stack<'_>) -> Mix {
    #[allow(
        unreachable_patterns,
        reason = "which there are is for the application's features of embassy-net to say"
    )]
    match stack.hardware_address() {
        HardwareAddress::Ethernet(address) => Mix(0).with(&address),
        _ => Mix(0).with(&stack.config_v4().map(|config| config.address.address())),
    }
}

/// A hash to put things in an order that looks like any other. Nobody gains from predicting it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Mix(u64);

impl Mix {
    fn with(mut self, value: &impl Hash) -> Self {
        value.hash(&mut self);
        self
    }
}

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 ^= u64::from(*byte);
            // Once is not enough: of neighbours some would come first more often.
            for _ in 0..2 {
                self.0 = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                self.0 ^= self.0 >> 32;
            }
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn addresses(n: u8) -> Vec<IpAddress> {
        (1..=n).map(|last| IpAddress::v4(192, 0, 2, last)).collect()
    }

    /// Resolvers that keep their order, turn it by one on each query, by two, and the other way round.
    #[test]
    fn every_address_has_its_turn_however_a_resolver_turns_them() {
        for n in 1..=4 {
            for turn in 0..usize::from(n) {
                for device in 0..20 {
                    let (mut choice, mut found) = (Choice::default(), addresses(n));
                    let mut tried = Vec::new();
                    for _ in 0..2 * n {
                        tried.extend(choice.next(&found, Mix(device)));
                        found.rotate_left(turn);
                    }
                    let (first, second) = tried.split_at(usize::from(n));
                    assert_eq!(first, second, "they have an order");
                    assert!(
                        found.iter().all(|address| first.contains(address)),
                        "{turn}: {first:?} of {found:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_address_is_kept_where_somebody_answered_while_the_name_has_it() {
        let (mut choice, mut found) = (Choice::default(), addresses(3));
        let first = choice.next(&found, Mix(7));
        for _ in 0..5 {
            choice.answered = true;
            found.rotate_left(1);
            assert_eq!(choice.next(&found, Mix(7)), first);
        }
        let second = choice.next(&found, Mix(7));
        assert_ne!(second, first);
        choice.answered = true;
        found.retain(|address| Some(*address) != second);
        let third = choice.next(&found, Mix(7));
        assert!(third.is_some() && third != first, "the next one, {third:?}");
        choice.answered = true;
        assert_eq!(choice.next(&[], Mix(7)), None);
        assert_eq!(choice.next(&addresses(1), Mix(7)), addresses(1).first().copied());
    }

    #[test]
    fn connectors_of_a_device_begin_alike_and_those_of_a_fleet_apart() {
        let (found, mut began) = (addresses(4), [0; 4]);
        let turned: Vec<IpAddress> = found.iter().rev().copied().collect();
        for last in 0..=u8::MAX {
            let device = Mix(0).with(&[0x02, 0, 0, 0, 1, last]);
            let first = Choice::default().next(&found, device).unwrap();
            assert_eq!(Choice::default().next(&turned, device), Some(first));
            let at = found.iter().position(|address| *address == first).unwrap();
            *began.get_mut(at).unwrap() += 1;
        }
        assert!(began.iter().all(|count| (45..=85).contains(count)), "{began:?} of 256");
    }
}
