//! The opening handshake of a client (RFC 6455 section 4.1).

use super::accept::{fields, write_all};
use super::buffers::{Rx, Tx};
use super::{Config, Error, HandshakeError, Refused, Role, ThreadRng, Timeout, WebSocket};
use crate::net::{NetStream, Target, WEBSOCKET, rustls::ClientConfig};
use longwire_core::http::body::{BodyReader, BodyStep, Framing};
use longwire_core::http::head::{HeadReader, ResponseHead, Step};
use longwire_core::http::upgrade::{self, ClientUpgrade, Offer, ResponseError};
use longwire_core::http::view::Response;
use longwire_core::ws::deflate::Agreed;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// Bytes of a refusal's body that are read, and how long it may take.
const MAX_REFUSAL: usize = 4096;
const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// What a client asks for when it connects.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// Further header fields, names and values: `("Authorization", "Bearer ...")`.
    pub headers: Vec<(String, String)>,
    /// Subprotocols, in the order of preference.
    pub subprotocols: Vec<String>,
    /// The `Origin`, for servers that want one from programs as well.
    pub origin: Option<String>,
    /// TLS for `wss://`. `None` trusts the certificate authorities that Mozilla trusts.
    /// [`client_config`](crate::net::client_config) makes one that trusts others.
    pub tls: Option<Arc<ClientConfig>>,
    /// The rules and sizes of the connection, and how long connecting may take in all
    /// ([`Config::handshake_timeout`]).
    pub config: Arc<Config>,
}

impl ConnectOptions {
    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds a subprotocol, behind those that are preferred.
    #[must_use]
    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        self.subprotocols.push(name.into());
        self
    }

    /// Sets the rules and sizes.
    #[must_use]
    pub fn config(mut self, config: impl Into<Arc<Config>>) -> Self {
        self.config = config.into();
        self
    }

    /// Sets the TLS configuration.
    #[must_use]
    pub fn tls(mut self, config: impl Into<Arc<ClientConfig>>) -> Self {
        self.tls = Some(config.into());
        self
    }
}

/// Opens a WebSocket to a `ws://` or `wss://` URL. Redirects are not followed.
///
/// A dropped future gives up: no connection remains.
///
/// # Errors
/// [`Error::Url`], [`Error::Io`] (the name, TCP, TLS), [`Error::Handshake`] with what the server said instead, and
/// [`Error::Timeout`] after [`Config::handshake_timeout`] in all.
pub async fn connect(url: &str, options: &ConnectOptions) -> Result<WebSocket<NetStream>, Error> {
    let target = Target::parse(url, WEBSOCKET)?;
    within(options, async {
        let stream = target.connect(options.tls.as_ref()).await?;
        handshake(stream, &target, options).await
    })
    .await
}

/// Opens a WebSocket over a stream that is connected already (a proxy, a Unix socket, a pipe in a test). The URL says
/// the host and the path; TLS is the stream's affair.
///
/// # Errors
/// As [`connect`].
pub async fn connect_over<S>(stream: S, url: &str, options: &ConnectOptions) -> Result<WebSocket<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let target = Target::parse(url, WEBSOCKET)?;
    within(options, handshake(stream, &target, options)).await
}

async fn within<T>(
    options: &ConnectOptions,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(options.config.handshake_timeout, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::Timeout(Timeout::Handshake)),
    }
}

async fn handshake<S>(mut stream: S, target: &Target, options: &ConnectOptions) -> Result<WebSocket<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let subprotocols: Vec<&str> = options.subprotocols.iter().map(String::as_str).collect();
    let extensions = options.config.deflate.map(|deflate| deflate.windows.offer());
    let offer = Offer {
        extensions: extensions.as_deref(),
        origin: options.origin.as_deref(),
        subprotocols: &subprotocols,
        fields: &fields(&options.headers),
        ..Offer::new(&target.authority, &target.path)
    };
    let upgrade = ClientUpgrade::new(&mut ThreadRng);
    let (mut rx, mut tx) = (Rx::default(), Tx::default());
    write_all(&mut tx, |tx| upgrade.write_request(tx, &offer))?;
    stream.write_all(tx.lend().pending()).await?;
    stream.flush().await?;

    let head = read_head(&mut stream, &mut rx, &options.config).await?;
    let response = head.view(rx.lend());
    let (subprotocol, deflate) = match upgrade.check(&offer, &response) {
        Ok(agreed) => (agreed.subprotocol().map(Box::from), check_deflate(options, &agreed)?),
        Err(ResponseError::Status(_)) => {
            let (mut refused, framing) = (refused(&response), Framing::of_response(&response, "GET"));
            head.release(&mut rx.lend());
            // However far it came.
            let _ = tokio::time::timeout(REFUSAL_TIME, read_body(&mut stream, &mut rx, framing)).await;
            refused.body = printable(rx.lend().kept());
            return Err(HandshakeError::Refused(refused).into());
        }
        Err(error) => return Err(HandshakeError::Response(error).into()),
    };
    head.release(&mut rx.lend());
    let mut socket = WebSocket::from_parts(stream, Role::Client, &[], options.config.clone());
    rx.park();
    (socket.rx, socket.subprotocol) = (rx, subprotocol);
    Ok(match deflate {
        Some(agreed) => socket.with_deflate(agreed),
        None => socket,
    })
}

fn check_deflate(
    options: &ConnectOptions,
    answer: &upgrade::Agreed<'_>,
) -> Result<Option<Agreed>, HandshakeError> {
    let Some(deflate) = options.config.deflate else { return Ok(None) };
    deflate
        .windows
        .check(answer.extensions())
        .map_err(|_| HandshakeError::Response(ResponseError::Extensions))
}

async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
    rx: &mut Rx,
    config: &Config,
) -> Result<ResponseHead, Error> {
    let mut reader = HeadReader::default();
    loop {
        match reader.poll_response(&mut rx.lend(), &config.head_limits)? {
            Step::Head(head) => return Ok(head),
            Step::NeedSpace(len) => rx.grow(len),
            Step::NeedInput => {
                if poll_fn(|cx| rx.poll_read(cx, stream, config.max_read)).await? == 0 {
                    return Err(HandshakeError::EndOfStream.into());
                }
            }
        }
    }
}

fn refused(response: &Response<'_>) -> Refused {
    Refused {
        status: response.status(),
        retry_after: response.retry_after().map(Duration::from_secs),
        location: response.headers().get_str("location").map(str::to_owned),
        body: String::new(),
    }
}

/// Reads as much of a refusal's body as is worth showing. It is cut at whatever goes wrong: the refusal is the news.
async fn read_body<S: AsyncRead + Unpin>(stream: &mut S, rx: &mut Rx, framing: Framing) {
    let Ok(mut body) = BodyReader::new(framing, u64::MAX) else { return };
    while let Ok(step) = body.poll(&mut rx.lend()) {
        match step {
            BodyStep::Data => body.keep(&mut rx.lend()),
            BodyStep::NeedInput => {
                if !matches!(poll_fn(|cx| rx.poll_read(cx, stream, MAX_REFUSAL)).await, Ok(1..)) {
                    return;
                }
            }
            BodyStep::NeedSpace | BodyStep::End => return,
        }
        if rx.lend().kept().len() >= MAX_REFUSAL {
            return;
        }
    }
}

/// A terminal may be where a refusal ends up, so nothing in it may command one.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..MAX_REFUSAL).unwrap_or(bytes));
    let printable = |c: char| if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
    text.replace("\r\n", "\n").chars().map(printable).collect()
}
