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
