//! TLS 1.3 (RFC 8446), by embedded-tls, with certificates checked by rustls-webpki.

mod below;
mod certificate;
mod suite;
mod verify;

use core::cell::Cell;
use core::fmt;

use embedded_tls::{TlsConnection, TlsContext};
use longwire_core::rand_core::CryptoRng;

pub use certificate::BadCertificate;
pub use embedded_tls::TlsError;

use crate::link::{Connect, Link};
use below::{Below, Numbers};
use suite::Suite;
use verify::{Provider, Verifier};

/// Most certificates that a device may trust.
pub const MAX_CAS: usize = 4;

/// How a device knows that it talks to its gateway.
#[derive(Clone, Copy)]
pub enum Trust<'a> {
    /// By a certificate. These are its issuers (X.509 in DER), [`MAX_CAS`] at most.
    Cas(&'a [&'a [u8]]),
    /// By a secret that only both of them know (RFC 8446 section 2.2, `psk_dhe_ke`): no certificate is accepted then, and
    /// no signature has to be checked, which takes most of a handshake's time.
    Psk {
        /// Which secret it is.
        identity: &'a [u8],
        /// The secret: random, at least 16 bytes.
        key: &'a [u8],
    },
}

impl fmt::Debug for Trust<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret is nobody's business.
        f.write_str(match self {
            Self::Cas(_) => "Cas",
            Self::Psk { .. } => "Psk",
        })
    }
}

/// Whom to expect at the other end.
///
/// With [`Trust::Cas`] the gateway's certificate is checked as a browser does it (RFC 5280, by rustls-webpki): its chain,
/// of at most six intermediates, ends at one of the CAs; every issuer in it may be one; the name is among its subject
/// alternative names (RFC 6125); it is meant for servers; and the gateway has its key. Keys and signatures are ECDSA with
/// P-256 and SHA-256, all through the chain. Revocation is not checked. Nothing goes out before all that is shown.
#[derive(Clone, Copy, Debug)]
pub struct TlsConfig<'a> {
    /// The gateway's name, or its address if that is in the certificate. Any name that DNS has will do, up to 253 bytes; what is
    /// none is in no certificate ([`BadCertificate::OtherName`]).
    pub server_name: &'a str,
    /// How it proves that.
    pub trust: Trust<'a>,
    /// Seconds since 1970, for the certificates' time. `None` while the device does not know (many have no clock that goes
    /// on without power): then any time is good, and a certificate that has expired is taken. Default: not known.
    pub clock: fn() -> Option<u64>,
}

impl<'a> TlsConfig<'a> {
    /// A gateway with this name, without a clock.
    pub const fn new(server_name: &'a str, trust: Trust<'a>) -> Self {
        Self { server_name, trust, clock: || None }
    }
}

/// Memory for one connection: records of at most `RX` bytes come in (twice: as it came, and decrypted), and of `TX` go out.
///
/// A gateway may send records of 16,645 bytes; a larger one than `RX` ends the connection. longwire's gateway puts what
/// it has to say at a moment into one record, so `RX` has to hold that, and the handshake: 2048 are enough for a chain of
/// two certificates with P-256 keys. `TX` is what a reading takes on the wire and 128 bytes more, 512 at least.
///
/// A gateway that spreads one message of its handshake over several records, as some do when they are told to send small
/// ones, is not understood by embedded-tls: the handshake fails.
pub struct TlsBuffers<const RX: usize, const TX: usize> {
    came: [u8; RX],
    rx: [u8; RX],
    tx: [u8; TX],
    open: Cell<bool>,
}

impl<const RX: usize, const TX: usize> TlsBuffers<RX, TX> {
    /// Empty buffers.
    pub const fn new() -> Self {
        const { assert!(RX >= 512 && TX >= 512, "a handshake does not fit") };
        Self { came: [0; RX], rx: [0; RX], tx: [0; TX], open: Cell::new(false) }
    }
}

impl<const RX: usize, const TX: usize> Default for TlsBuffers<RX, TX> {
    fn default() -> Self {
        Self::new()
    }
}

/// Connections over TLS, over those that `C` opens.
///
/// A handshake takes an elliptic curve's work: a key exchange, and with [`Trust::Cas`] a signature for each certificate and
/// one more; seconds on a small processor, in which its executor does nothing else. Set
/// [`LadderConfig::open`](longwire_core::session::ladder::LadderConfig::open) to it: an attempt may take that long.
///
/// ```
/// use longwire_embassy::core::rand_core::CryptoRng;
/// use longwire_embassy::{Connect, Tls, TlsBuffers, TlsConfig, Trust};
///
/// /// A connector for an `Uplink`.
/// fn secure<'b, C: Connect, R: CryptoRng>(
///     tcp: C,
///     rng: R,
///     ca: &'b [&'b [u8]], // include_bytes!("ca.der")
///     buffers: &'b mut TlsBuffers<2048, 512>,
/// ) -> Tls<'b, C, R, 2048, 512> {
///     Tls::new(tcp, TlsConfig::new("gateway.example", Trust::Cas(ca)), rng, buffers)
/// }
/// ```
pub struct Tls<'b, C, R, const RX: usize, const TX: usize> {
    connect: C,
    config: TlsConfig<'b>,
    rng: R,
    buffers: &'b mut TlsBuffers<RX, TX>,
}

impl<'b, C: Connect, R: CryptoRng, const RX: usize, const TX: usize> Tls<'b, C, R, RX, TX> {
    /// Connects by way of `connect`. `rng` makes the keys: it must be good.
    pub const fn new(connect: C, config: TlsConfig<'b>, rng: R, buffers: &'b mut TlsBuffers<RX, TX>) -> Self {
        Self { connect, config, rng, buffers }
    }
}

impl<C: Connect, R: CryptoRng, const RX: usize, const TX: usize> Connect for Tls<'_, C, R, RX, TX> {
    type Link<'a>
        = TlsLink<'a, C::Link<'a>>
    where
        Self: 'a;
    type Error = TlsConnectError<C::Error>;

    async fn connect(&mut self) -> Result<Self::Link<'_>, Self::Error> {
        verify::check_cas(&self.config.trust)?;
        let link = self.connect.connect().await.map_err(TlsConnectError::Link)?;
        let TlsBuffers { came, rx, tx, open } = &mut *self.buffers;
        open.set(false);
        let open = &*open;
        let mut connection = TlsConnection::new(Below::new(link, came, open), rx, tx);
        let settings = embedded_tls::TlsConfig::new().with_server_name(self.config.server_name);
        let settings = match self.config.trust {
            Trust::Cas(_) => settings,
            Trust::Psk { identity, key } => settings.with_psk(key, &[identity]),
        };
        let mut provider = Provider { rng: Numbers(&mut self.rng), verifier: Verifier::new(&self.config) };
        let opened = connection.open(TlsContext::new(&settings, &mut provider)).await;
        if let Some(why) = provider.verifier.refused() {
            return Err(TlsConnectError::Certificate(why));
        }
        opened.map_err(TlsConnectError::Tls)?;
        // embedded-tls does not insist on a certificate, nor on its signature: whoever leaves them out is refused here.
        if !provider.verifier.is_content() {
            return Err(TlsConnectError::Unverified);
        }
        open.set(true);
        Ok(TlsLink { connection, torn: false })
    }

    fn answered(&mut self) {
        self.connect.answered();
    }
}

/// Why there is no connection. `E` is the error of the connector below.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum TlsConnectError<E> {
    /// There is none below.
    Link(E),
    /// The gateway's certificate is not to be trusted. Nothing was sent but the first message of a handshake.
    Certificate(BadCertificate),
    /// The handshake failed. [`TlsError::InvalidSignature`]: whoever showed the gateway's certificate does not have its key.
    /// [`TlsError::HandshakeAborted`]: the gateway said why; with `ProtocolVersion` it does not speak TLS 1.3.
    /// [`ErrorKind::InvalidData`](embedded_io_async::ErrorKind::InvalidData): this is no TLS.
    Tls(TlsError),
    /// The gateway showed no certificate, or did not show that it is its own.
    Unverified,
    /// A CA of [`Trust::Cas`] is no certificate of the kind that can be trusted: the one at this place. Nothing was sent.
    BadCa(usize),
    /// [`Trust::Cas`] has more than [`MAX_CAS`]. Nothing was sent.
    TooManyCas,
}

impl<E: fmt::Debug> fmt::Display for TlsConnectError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(error) => write!(f, "no link: {error:?}"),
            Self::Certificate(why) => write!(f, "the gateway's certificate is refused: {why}"),
            Self::Tls(error) => write!(f, "the TLS handshake failed: {error:?}"),
            Self::Unverified => f.write_str("the gateway did not show who it is"),
            Self::BadCa(nth) => write!(f, "CA {nth} is no certificate"),
            Self::TooManyCas => f.write_str("too many CAs"),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for TlsConnectError<E> {}

/// Why a connection over TLS cannot go on.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum TlsLinkError {
    /// The link below, or a record that is none, was changed, has what may not come, or is larger than the buffer.
    Tls(TlsError),
    /// A write was dropped half-way.
    Torn,
}

/// A connection over TLS. Dropping it closes the link below without `close_notify`; the WebSocket's closing handshake has
/// said all before.
///
/// `read` waits for whole records, and takes nothing when it is dropped. `write` fills a record, which `flush` sends.
///
/// embedded-tls does not know how to change keys: when the gateway does (`KeyUpdate`, RFC 8446 section 4.6.3; rustls does
/// that after some 2^24 records), `read` ends with [`TlsError::Unimplemented`], and an [`Uplink`](crate::Uplink) connects anew.
/// Tickets for a later connection are ignored; whatever else of a handshake comes behind its end is
/// [`TlsError::CryptoError`], as is a record that was changed. After an error there is nothing more to be had.
pub struct TlsLink<'a, L: Link> {
    connection: TlsConnection<'a, Below<'a, L>, Suite>,
    torn: bool,
}

impl<'a, L: Link + 'a> Link for TlsLink<'a, L> {
    type Error = TlsLinkError;

    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, TlsLinkError> {
        match self.connection.read(bytes).await {
            Err(TlsError::ConnectionClosed) => Ok(0),
            read => read.map_err(TlsLinkError::Tls),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<usize, TlsLinkError> {
        if core::mem::replace(&mut self.torn, true) {
            return Err(TlsLinkError::Torn);
        }
        let written = self.connection.write(bytes).await.map_err(TlsLinkError::Tls)?;
        self.torn = false;
        Ok(written)
    }

    async fn flush(&mut self) -> Result<(), TlsLinkError> {
        if core::mem::replace(&mut self.torn, true) {
            return Err(TlsLinkError::Torn);
        }
        self.connection.flush().await.map_err(TlsLinkError::Tls)?;
        self.torn = false;
        Ok(())
    }
}
