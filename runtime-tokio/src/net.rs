//! Connecting: URLs, TCP and TLS.

use http::Uri;
use std::fmt;
use std::io::{self, IoSlice};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_rustls::{TlsConnector, TlsStream};

pub use tokio_rustls::rustls;

/// Whom a URL names, and what there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) tls: bool,
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What `Host` says: the port is left out when it is the scheme's own.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) path: String,
}

/// Why a URL cannot be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlError {
    /// It is no absolute URL.
    Malformed(String),
    /// The scheme is not one of those that are spoken here; the second text lists these.
    Scheme(String, &'static str),
    /// It has a fragment, which cannot be sent to a server (RFC 6455 section 3).
    Fragment,
    /// It has a user name. Send a credential in a header instead.
    UserInfo,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(url) => {
                write!(f, "`{}` is no absolute URL such as ws://127.0.0.1:8080/path", url.escape_debug())
            }
            Self::Scheme(scheme, known) => {
                write!(f, "the scheme `{}` cannot be connected to, only {known}", scheme.escape_debug())
            }
            Self::Fragment => f.write_str("the URL has a fragment (#...), which cannot be sent"),
            Self::UserInfo => f.write_str("the URL has a user name: send the credential in a header instead"),
        }
    }
}

impl std::error::Error for UrlError {}

/// Schemes, and whether they mean TLS.
pub(crate) type Schemes = (&'static [(&'static str, bool)], &'static str);

pub(crate) const WEBSOCKET: Schemes = (&[("ws", false), ("wss", true)], "ws:// and wss://");
impl Target {
    pub(crate) fn parse(url: &str, (schemes, known): Schemes) -> Result<Self, UrlError> {
        if url.contains('#') {
            return Err(UrlError::Fragment);
        }
        let malformed = || UrlError::Malformed(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| malformed())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(malformed());
        };
        let Some((_, tls)) = schemes.iter().find(|(name, _)| name.eq_ignore_ascii_case(scheme)) else {
            return Err(UrlError::Scheme(scheme.to_owned(), known));
        };
        if authority.as_str().contains('@') {
            return Err(UrlError::UserInfo);
        }
        let own = if *tls { 443 } else { 80 };
        let port = match authority.port_u16() {
            Some(port) => port,
            // A port that is no number, or above 65535.
            None if authority.as_str().len() > authority.host().len() + 1 => return Err(malformed()),
            None => own,
        };
        let bracketed = authority.host();
        let host = bracketed.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(bracketed);
        if host.is_empty() || port == 0 {
            return Err(malformed());
        }
        let authority = if port == own { bracketed.to_owned() } else { format!("{bracketed}:{port}") };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { tls: *tls, host: host.to_owned(), port, authority, path })
    }

    /// Looks the name up and connects, to the first of its addresses that answers; then TLS.
    pub(crate) async fn connect(&self, tls: Option<&Arc<ClientConfig>>) -> io::Result<NetStream> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot connect to {}:{}: {error}", self.host, self.port))
        })?;
        // Batching is done here, by what is flushed together.
        stream.set_nodelay(true)?;
        if !self.tls {
            return Ok(NetStream::Plain(stream));
        }
        let name = ServerName::try_from(self.host.clone())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let connector = TlsConnector::from(tls.unwrap_or_else(|| web_roots()).clone());
        let stream = connector.connect(name, stream).await.map_err(|error| {
            io::Error::new(error.kind(), format!("TLS with {}:{} failed: {error}", self.host, self.port))
        })?;
        Ok(NetStream::Tls(Box::new(stream.into())))
    }
}

/// Has the system end a connection whose peer has vanished: one that is silent is asked after `interval`, and what was
/// asked or sent has to be acknowledged within `timeout`. In whole seconds, rounded up; where the system knows more than
/// the plain keepalive. Without it a peer that vanishes is noticed only by whoever has a clock of its own.
pub(crate) fn watch_peer(socket: &TcpStream, interval: Duration, timeout: Duration) {
    let seconds =
        |time: Duration| Duration::from_secs((time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1));
    // The most that Linux takes.
    let most = Duration::from_secs(32_767);
    let (interval, timeout) = (seconds(interval).min(most), seconds(timeout).min(most));
    // Twice, if the time allows: a probe may be lost.
    let probe = seconds(timeout / 2);
    let socket = socket2::SockRef::from(socket);
    let keepalive = socket2::TcpKeepalive::new().with_time(interval);
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple", windows))]
    let keepalive = {
        let probes = u32::try_from(timeout.as_secs().div_ceil(probe.as_secs())).unwrap_or(u32::MAX);
        keepalive.with_interval(probe).with_retries(probes)
    };
    // The connection is as good without them.
    let _ = (socket.set_tcp_keepalive(&keepalive), probe);
}

/// TLS for the public web: the certificate authorities that Mozilla trusts, and HTTP/1.1.
fn web_roots() -> &'static Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        Arc::new(client_config(roots))
    })
}

/// TLS that trusts `roots`, and HTTP/1.1: for a gateway with a certificate of its own.
pub fn client_config(roots: RootCertStore) -> ClientConfig {
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// TLS that trusts the certificate authorities in a file (PEM), and no others.
///
/// # Errors
/// Those of reading it; [`io::ErrorKind::InvalidData`] when there is no certificate in it, or one that is none.
pub fn client_config_of(file: impl AsRef<Path>) -> io::Result<ClientConfig> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let pem = std::fs::read(file)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
        roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(invalid("no certificate in it".to_owned()));
    }
    Ok(client_config(roots))
}

/// A connected stream, of either end: TCP, or TLS over it.
#[derive(Debug)]
#[non_exhaustive]
pub enum NetStream {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl NetStream {
    /// The socket underneath, for its addresses and options.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

/// Says the same to either.
macro_rules! either {
    ($self:expr, $s:ident => $say:expr) => {
        match $self.get_mut() {
            Self::Plain(stream) => {
                let $s = Pin::new(stream);
                $say
            }
            Self::Tls(stream) => {
                let $s = Pin::new(stream);
                $say
            }
        }
    };
}

impl AsyncRead for NetStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, s => s.poll_read(cx, buf))
    }
}

impl AsyncWrite for NetStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, s => s.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, s => s.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, s => s.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, s => s.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_can_be_connected_to() {
        let parse = |url| {
            let t =
                Target::parse(url, (&[("ws", false), ("wss", true), ("http", false), ("https", true)], ""))
                    .unwrap();
            (t.tls, t.host, t.port, t.authority, t.path)
        };
        let is = |tls, host: &str, port, authority: &str, path: &str| {
            (tls, host.to_owned(), port, authority.to_owned(), path.to_owned())
        };
        assert_eq!(parse("ws://example.org"), is(false, "example.org", 80, "example.org", "/"));
        assert_eq!(parse("WSS://a.b/c?d=e"), is(true, "a.b", 443, "a.b", "/c?d=e"));
        assert_eq!(parse("http://a:8080?x"), is(false, "a", 8080, "a:8080", "/?x"));
        assert_eq!(parse("https://[::1]:443/"), is(true, "::1", 443, "[::1]", "/"));
        assert_eq!(parse("ws://[::1]:81/"), is(false, "::1", 81, "[::1]:81", "/"));
    }

    #[test]
    fn urls_that_cannot() {
        let parse = |url| Target::parse(url, WEBSOCKET).unwrap_err();
        for url in [
            "",
            "a",
            "/a",
            "a:80",
            "ws://",
            "ws:///a",
            "ws://a b/",
            "ws://a:/x\r\ny",
            "ws://a:99999/",
            "ws://a:0/",
        ] {
            assert_eq!(parse(url), UrlError::Malformed(url.to_owned()), "{url}");
        }
        assert!(matches!(parse("http://a/"), UrlError::Scheme(s, "ws:// and wss://") if s == "http"));
        assert!(matches!(parse("ftp://a/"), UrlError::Scheme(..)));
        assert_eq!(parse("ws://a/#b"), UrlError::Fragment);
        assert_eq!(parse("ws://user:secret@a/"), UrlError::UserInfo);
    }
}
