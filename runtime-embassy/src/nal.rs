//! The binding for whatever speaks `embedded-nal-async`.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use embedded_nal_async::{AddrType, Dns, TcpConnect};

use crate::link::{Connect, Stream};

/// TCP connections to one host by way of any network stack with the traits of `embedded-nal-async`.
///
/// The host is an address (`192.0.2.1`, `2001:db8::1`), or a name that is looked up before each connection. About the streams of
/// the stack see [`Stream`]: whoever chooses one vouches for its `read`.
///
/// ```
/// use longwire_embassy::{Connect, Nal};
/// # use embedded_nal_async::{Dns, TcpConnect};
///
/// /// By way of a stack that does both, a Wi-Fi module for instance.
/// fn connector(stack: &(impl TcpConnect + Dns)) -> impl Connect {
///     Nal::new(stack, stack, "gateway.example", 8080)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Nal<'a, T, D> {
    tcp: T,
    dns: D,
    host: &'a str,
    port: u16,
    family: AddrType,
}

/// Why [`Nal`] has no link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum NalError<T, D> {
    /// The name has no address, or nobody says which.
    Dns(D),
    /// No connection to the address.
    Tcp(T),
}

impl<T: fmt::Debug, D: fmt::Debug> fmt::Display for NalError<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(error) => write!(f, "no address: {error:?}"),
            Self::Tcp(error) => write!(f, "no connection: {error:?}"),
        }
    }
}

impl<T: fmt::Debug, D: fmt::Debug> core::error::Error for NalError<T, D> {}

impl<'a, T: TcpConnect, D: Dns> Nal<'a, T, D> {
    /// Connects to this host and port. Names are looked up for whatever address there is.
    pub const fn new(tcp: T, dns: D, host: &'a str, port: u16) -> Self {
        Self { tcp, dns, host, port, family: AddrType::Either }
    }

    /// The same for addresses of one family only.
    #[must_use]
    pub fn family(self, family: AddrType) -> Self {
        Self { family, ..self }
    }
}

impl<T: TcpConnect, D: Dns> Connect for Nal<'_, T, D> {
    type Link<'l>
        = Stream<T::Connection<'l>>
    where
        Self: 'l;
    type Error = NalError<T::Error, D::Error>;

    async fn connect(&mut self) -> Result<Self::Link<'_>, Self::Error> {
        let address = match self.host.parse::<IpAddr>() {
            Ok(address) => address,
            Err(_) => {
                self.dns.get_host_by_name(self.host, self.family.clone()).await.map_err(NalError::Dns)?
            }
        };
        let remote = SocketAddr::new(address, self.port);
        self.tcp.connect(remote).await.map(Stream).map_err(NalError::Tcp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::convert::Infallible;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};

    /// Refuses every connection, and says to what.
    struct Refuses;

    impl TcpConnect for Refuses {
        type Error = Refused;
        type Connection<'a> = Nothing;

        async fn connect(&self, remote: SocketAddr) -> Result<Nothing, Refused> {
            Err(Refused(remote))
        }
    }

    #[derive(Debug, PartialEq)]
    struct Refused(SocketAddr);

    impl fmt::Display for Refused {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("refused")
        }
    }

    impl core::error::Error for Refused {}

    impl embedded_io_async::Error for Refused {
        fn kind(&self) -> embedded_io_async::ErrorKind {
            embedded_io_async::ErrorKind::ConnectionRefused
        }
    }

    struct Nothing;

    impl embedded_io_async::ErrorType for Nothing {
        type Error = Refused;
    }

    impl embedded_io_async::Read for Nothing {
        async fn read(&mut self, _: &mut [u8]) -> Result<usize, Refused> {
            Ok(0)
        }
    }

    impl embedded_io_async::Write for Nothing {
        async fn write(&mut self, bytes: &[u8]) -> Result<usize, Refused> {
            Ok(bytes.len())
        }

        async fn flush(&mut self) -> Result<(), Refused> {
            Ok(())
        }
    }

    /// Knows one name.
    struct OneName;

    impl Dns for OneName {
        type Error = &'static str;

        async fn get_host_by_name(&self, host: &str, family: AddrType) -> Result<IpAddr, &'static str> {
            match (host, family) {
                ("gateway.example", AddrType::IPv6) => Ok(Ipv6Addr::LOCALHOST.into()),
                ("gateway.example", _) => Ok(Ipv4Addr::LOCALHOST.into()),
                _ => Err("unknown"),
            }
        }

        async fn get_host_by_address(&self, _: IpAddr, _: &mut [u8]) -> Result<usize, &'static str> {
            Err("unknown")
        }
    }

    fn connected_to(host: &str, family: AddrType) -> Result<Infallible, NalError<Refused, &'static str>> {
        let mut nal = Nal::new(Refuses, OneName, host, 8080).family(family);
        let mut connecting = pin!(nal.connect());
        match connecting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(error)) => Err(error),
            _ => panic!("nobody connects"),
        }
    }

    #[test]
    fn addresses_are_taken_as_they_are_and_names_are_looked_up() {
        for (host, family, address) in [
            ("192.0.2.7", AddrType::Either, "192.0.2.7:8080"),
            ("2001:db8::7", AddrType::IPv4, "[2001:db8::7]:8080"),
            ("gateway.example", AddrType::Either, "127.0.0.1:8080"),
            ("gateway.example", AddrType::IPv6, "[::1]:8080"),
        ] {
            let refused = Refused(address.parse().unwrap());
            assert_eq!(connected_to(host, family).unwrap_err(), NalError::Tcp(refused));
        }
        for host in ["other.example", "", "192.0.2", "192.0.2.7:80"] {
            assert_eq!(connected_to(host, AddrType::Either).unwrap_err(), NalError::Dns("unknown"), "{host}");
        }
    }
}
