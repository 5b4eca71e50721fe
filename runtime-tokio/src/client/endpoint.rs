//! Where a gateway is, and as whom to speak to it.

use super::Error;
use super::token::{TokenSource, Tokens};
use crate::net::{NetStream, Schemes, Target, rustls::ClientConfig, watch_peer};
use longwire_core::log::LogName;
use std::fmt::{self, Write as _};
use std::io;
use std::sync::Arc;
use std::time::Duration;

const SCHEMES: Schemes = (
    &[("http", false), ("https", true), ("ws", false), ("wss", true)],
    "http://, https://, ws:// and wss://",
);

/// A gateway's address, the credential to show it, and what to trust.
#[derive(Clone)]
pub struct Endpoint {
    pub(crate) target: Target,
    pub(super) tokens: Tokens,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) open_timeout: Duration,
    pub(crate) max_message: usize,
}

impl Endpoint {
    pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
    pub(super) const MAX_MESSAGE: usize = 4 << 20;

    /// The gateway at `url`, of which scheme, host, port and the beginning of the path count:
    /// `https://example.org/telemetry` means `https://example.org/telemetry/v1/stream`. A path that ends in
    /// `/v1/logs/NAME` names a log of the gateway, other than its default log. `ws` is the same as `http`, and `wss` as
    /// `https`; the transport is chosen elsewhere.
    ///
    /// # Errors
    /// [`Error::Url`].
    pub fn new(url: &str) -> Result<Self, Error> {
        let mut target = Target::parse(url, SCHEMES)?;
        if target.path.contains('?') {
            return Err(Error::Query);
        }
        target.path.truncate(target.path.trim_end_matches('/').len());
        Ok(Self::of(target))
    }

    pub(super) fn of(target: Target) -> Self {
        Self {
            target,
            tokens: Tokens::None,
            tls: None,
            open_timeout: Self::OPEN_TIMEOUT,
            max_message: Self::MAX_MESSAGE,
        }
    }

    /// The credential, sent as `Authorization: Bearer ...`.
    ///
    /// # Errors
    /// [`Error::Token`] when it holds anything but visible ASCII.
    pub fn token(mut self, token: impl Into<String>) -> Result<Self, Error> {
        self.tokens = Tokens::fixed(token.into())?;
        Ok(self)
    }

    /// Where credentials come from: `source` is asked before the first connection, when the gateway asks for renewal, and
    /// when it has refused the present one (once; a fresh one that is refused as well is the end). What comes is kept, and shared by
    /// the clones of this endpoint.
    ///
    /// ```
    /// # async fn fetch() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// let endpoint = longwire::client::Endpoint::new("https://telemetry.example.org")?
    ///     .with_token_source(|| async { fetch().await });
    /// # Ok::<(), longwire::client::Error>(())
    /// ```
    ///
    /// A source that fails is asked again, as a gateway that cannot be reached is; it has [`open_timeout`](Self::open_timeout) to answer.
    #[must_use]
    pub fn with_token_source<F, E>(mut self, source: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, E>> + Send + 'static,
        E: fmt::Display,
    {
        self.tokens = Tokens::Source(Arc::new(TokenSource::new(source)));
        self
    }

    /// TLS for `https` and `wss`; without it the certificate authorities that Mozilla trusts.
    #[must_use]
    pub fn tls(mut self, config: impl Into<Arc<ClientConfig>>) -> Self {
        self.tls = Some(config.into());
        self
    }

    /// How long connecting may take, up to the gateway's first answer. Default 10 s. With
    /// [`Transport::Auto`](super::Transport::Auto) a transport that has never worked has 2.5 s once TCP and TLS stand.
    #[must_use]
    pub fn open_timeout(mut self, limit: Duration) -> Self {
        self.open_timeout = limit;
        self
    }

    /// Most bytes of one message or one poll. Default 4 MiB.
    #[must_use]
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// `rest`, such as `/v1/stream`, below the gateway's path, and of the log that this names.
    pub(super) fn path(&self, rest: &str) -> String {
        let base = &self.target.path;
        let named = base.rsplit_once("/v1/logs/").is_some_and(|(_, name)| LogName::parse(name).is_ok());
        let rest = rest.strip_prefix("/v1").filter(|_| named).unwrap_or(rest);
        format!("{base}{rest}")
    }

    /// The URL of a WebSocket to `path`.
    pub(super) fn websocket_url(&self, path: &str) -> String {
        let scheme = if self.target.tls { "wss" } else { "ws" };
        format!("{scheme}://{}{path}", self.target.authority)
    }

    pub(super) fn authorization(&self) -> Option<String> {
        self.tokens.current().map(|token| format!("Bearer {token}"))
    }

    /// Has a credential ready, `another` one if need be, and connects.
    pub(super) async fn reach(&self, another: bool) -> Result<NetStream, Error> {
        self.tokens.prepare(another).await?;
        Ok(self.connect().await?)
    }

    /// The name, TCP, TLS. A peer that vanishes is noticed by the system.
    pub(super) async fn connect(&self) -> io::Result<NetStream> {
        /// A connection on which nothing comes, in the middle of a long poll for instance, is asked after so long whether there
        /// is still somebody; an answer may take so long.
        const HEARTBEAT: Duration = Duration::from_secs(15);
        const ANSWER: Duration = Duration::from_secs(10);
        let stream = self.target.connect(self.tls.as_ref()).await?;
        watch_peer(stream.socket(), HEARTBEAT, ANSWER);
        Ok(stream)
    }
}

/// Without the credential.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("url", &self.websocket_url(&self.target.path))
            .finish_non_exhaustive()
    }
}

/// Appends `text`, percent-encoded but for what may stand in a path and in a query alike.
pub(super) fn encode(to: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b'*' => {
                to.push(char::from(byte));
            }
            _ => {
                // A String takes everything.
                let _ = write!(to, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lie_below_that_of_the_gateway() {
        for (url, path) in [
            ("http://a", "/v1/stream"),
            ("http://a/", "/v1/stream"),
            ("wss://a/b/c/", "/b/c/v1/stream"),
            ("ws://a/b", "/b/v1/stream"),
            ("http://a/v1/logs/telemetry", "/v1/logs/telemetry/stream"),
            ("http://a/b/v1/logs/x.y/", "/b/v1/logs/x.y/stream"),
            // No log's name, so it is the path of a gateway.
            ("http://a/v1/logs", "/v1/logs/v1/stream"),
            ("http://a/v1/logs/A", "/v1/logs/A/v1/stream"),
            ("http://a/v1/logs/a/b", "/v1/logs/a/b/v1/stream"),
        ] {
            assert_eq!(Endpoint::new(url).unwrap().path("/v1/stream"), path);
        }
        assert!(matches!(Endpoint::new("http://a/?b=c"), Err(Error::Query)));
        assert!(matches!(Endpoint::new("ftp://a/"), Err(Error::Url(_))));
        assert!(matches!(Endpoint::new("http://a").unwrap().token("a b"), Err(Error::Token)));
        let shown = format!("{:?}", Endpoint::new("http://a").unwrap().token("secret").unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn what_has_a_meaning_in_urls_is_encoded() {
        let mut text = String::new();
        encode(&mut text, "fleet/**/a b&c=d?e#f%g+é");
        assert_eq!(text, "fleet/**/a%20b%26c%3Dd%3Fe%23f%25g%2B%C3%A9");
    }
}
