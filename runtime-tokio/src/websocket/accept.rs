//! The opening handshake of a server (RFC 6455 section 4.2).

use super::buffers::{Rx, Tx};
use super::{Config, Error, HandshakeError, Role, Timeout, WebSocket};
use longwire_core::http::head::{HeadReader, RequestHead, Step};
use longwire_core::http::upgrade::{self, Upgrade};
use longwire_core::http::write::{self, WriteError};
use longwire_core::ws::deflate::Agreed;
use std::future::poll_fn;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// What a server answers to a handshake that it takes.
#[derive(Clone, Debug, Default)]
pub struct Acceptance {
    /// One of the subprotocols that the client offered.
    pub subprotocol: Option<String>,
    /// Further header fields: names and values.
    pub headers: Vec<(String, String)>,
}

/// What a server answers to a handshake that it does not take.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// The status, 400 to 599: 401, 403, 404, 503, ...
    pub status: u16,
    /// The body, as plain text unless a header says otherwise.
    pub body: String,
    /// Further header fields: names and values.
    pub headers: Vec<(String, String)>,
}

impl Rejection {
    /// A refusal with this status and body.
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, body: body.into(), headers: Vec::new() }
    }
}

/// Accepts the WebSocket that a client opens on `stream`, whoever it is and whatever path it asks for, without a
/// subprotocol. A request that is no opening handshake is refused with the status that says so (400, 405, 426, 431).
///
/// **Check who connects**: browsers let any page open a WebSocket to any server, and only `Origin` tells
/// ([`accept_with`]).
///
/// ```no_run
/// use longwire::websocket::{Config, accept};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// loop {
///     let (stream, _) = listener.accept().await?;
///     tokio::spawn(async move {
///         let mut socket = accept(stream, Config::default()).await?;
///         while let Some(message) = socket.recv_message().await {
///             socket.send(message?).await?;
///         }
///         Ok::<(), longwire::websocket::Error>(())
///     });
/// }
/// # }
/// ```
///
/// A dropped future drops the stream, which ends the connection.
///
/// # Errors
/// [`Error::Handshake`], [`Error::Io`], and [`Error::Timeout`] after [`Config::handshake_timeout`].
pub async fn accept<S>(stream: S, config: impl Into<Arc<Config>>) -> Result<WebSocket<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    accept_with(stream, config, |_| Ok(Acceptance::default())).await
}

/// As [`accept`], but asks `decide`, which sees the request: its path, headers, `Origin` and subprotocols.
///
/// # Errors
/// As [`accept`]; [`HandshakeError::Rejected`] when `decide` said no, once the refusal is sent.
pub async fn accept_with<S, F>(
    stream: S,
    config: impl Into<Arc<Config>>,
    decide: F,
) -> Result<WebSocket<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: FnOnce(&Upgrade<'_>) -> Result<Acceptance, Rejection>,
{
    let config = config.into();
    let limit = config.handshake_timeout;
    match tokio::time::timeout(limit, handshake(stream, config, decide)).await {
        Ok(result) => result,
        Err(_) => Err(Error::Timeout(Timeout::Handshake)),
    }
}

async fn handshake<S, F>(mut stream: S, config: Arc<Config>, decide: F) -> Result<WebSocket<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: FnOnce(&Upgrade<'_>) -> Result<Acceptance, Rejection>,
{
    let (mut rx, mut tx) = (Rx::default(), Tx::default());
    let answer = match read_head(&mut stream, &mut rx, &config).await? {
        Ok(head) => {
            let answer = answer(&head, &mut rx, &mut tx, &config, decide);
            head.release(&mut rx.lend());
            answer?
        }
        Err(error) => {
            write_all(&mut tx, |tx| write::refusal(tx, error.status(), &[], error.as_str()))?;
            Err(HandshakeError::Head(error))
        }
    };
    let written = async {
        stream.write_all(tx.lend().pending()).await?;
        stream.flush().await
    };
    match answer {
        Ok(Opened { subprotocol, deflate }) => {
            written.await?;
            let mut socket = WebSocket::from_parts(stream, Role::Server, &[], config);
            rx.park();
            socket.rx = rx;
            socket.subprotocol = subprotocol.map(String::into_boxed_str);
            Ok(match deflate {
                Some(agreed) => socket.with_deflate(agreed),
                None => socket,
            })
        }
        Err(error) => {
            // The refusal is what the caller wants to know, whether or not the client still hears it.
            if written.await.is_ok() {
                let _ = stream.shutdown().await;
            }
            Err(error.into())
        }
    }
}

/// The head of the request, or why it is malformed.
async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
    rx: &mut Rx,
    config: &Config,
) -> Result<Result<RequestHead, longwire_core::http::head::HeadError>, Error> {
    let mut reader = HeadReader::default();
    loop {
        match reader.poll_request(&mut rx.lend(), &config.head_limits) {
            Ok(Step::Head(head)) => return Ok(Ok(head)),
            Ok(Step::NeedSpace(len)) => rx.grow(len),
            Ok(Step::NeedInput) => {
                if poll_fn(|cx| rx.poll_read(cx, stream, config.max_read)).await? == 0 {
                    return Err(HandshakeError::EndOfStream.into());
                }
            }
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// What was agreed on.
struct Opened {
    subprotocol: Option<String>,
    deflate: Option<Agreed>,
}

/// Writes the answer: `Ok(Ok(_))` opens the connection, `Ok(Err(_))` refuses it.
fn answer<F>(
    head: &RequestHead,
    rx: &mut Rx,
    tx: &mut Tx,
    config: &Config,
    decide: F,
) -> Result<Result<Opened, HandshakeError>, Error>
where
    F: FnOnce(&Upgrade<'_>) -> Result<Acceptance, Rejection>,
{
    let request = head.view(rx.lend());
    let upgrade = match upgrade::accept(&request) {
        Ok(upgrade) => upgrade,
        Err(error) => {
            write_all(tx, |tx| error.write(tx))?;
            return Ok(Err(HandshakeError::Request(error)));
        }
    };
    match decide(&upgrade) {
        Ok(Acceptance { subprotocol, headers }) => {
            let fields = fields(&headers);
            let deflate = config.deflate.and_then(|deflate| deflate.windows.accept(upgrade.extensions()));
            let extensions = deflate.as_ref().map(|(_, answer)| answer.as_str());
            write_all(tx, |tx| upgrade.write_response(tx, subprotocol.as_deref(), extensions, &fields))?;
            Ok(Ok(Opened { subprotocol, deflate: deflate.map(|(agreed, _)| agreed) }))
        }
        Err(Rejection { status, body, headers }) => {
            let fields = fields(&headers);
            write_all(tx, |tx| write::refusal(tx, status, &fields, &body))?;
            Ok(Err(HandshakeError::Rejected(status)))
        }
    }
}

/// Header fields as the core takes them.
pub(super) fn fields(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// Writes into a buffer that grows until it fits. What is written comes from this end, so there is no other bound.
pub(super) fn write_all(
    tx: &mut Tx,
    mut write: impl FnMut(&mut longwire_core::buf::TxBuf<'_>) -> Result<(), WriteError>,
) -> Result<(), Error> {
    let mut room = 1024usize;
    loop {
        tx.reserve(room, usize::MAX);
        match write(&mut tx.lend()) {
            Err(WriteError::Full) => room = room.saturating_mul(2),
            written => return Ok(written?),
        }
    }
}
