//! The front door: a connection is admitted before any work is done for it, its first head is read by the core, and
//! then it goes where it belongs.

use super::Gateway;
use super::access::check_origin;
use super::handshakes::Handshake;
use super::head::Head;
use super::refused::Refused;
use super::stream::{Kind, refusal};
use super::wire::Wire;
use crate::hub::{Socket, is_silence};
use crate::net::{NetStream, watch_peer};
use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use longwire_core::log::LogName;
use longwire_core::log::Quota;
use longwire_core::session::Code;
use std::any::Any;
use std::error::Error as _;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

/// Connections beyond [`max_connections`](super::GatewayConfig::max_connections) that are told so, at a time. Those
/// beyond these are closed without a word: an answer would cost what the limit is there to save, and clients
/// come back after a lost connection as they do after a 503.
const REFUSALS: usize = 64;
/// How long such a connection may take to say what it wants. Over TLS it keeps its place for so long in any case: the
/// handshake is most of what a connection costs, so no more than [`REFUSALS`] of them in this time are spent on
/// refusals.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// How long the end of a refused connection is waited for, and how much is read until then: a socket that is closed
/// with input unread takes our last words with it (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 64 << 10;
/// What a connection is counted as whose TLS handshake fails, or takes too long, and one that begins with a request.
const TLS: &str = "tls";
const NO_TLS: &str = "no_tls";
/// About a century.
const FOREVER: Duration = Duration::from_secs(3_000_000_000);
/// How long the listener rests when the system has no room for another connection.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// What is known of one connection while it sends requests.
#[derive(Debug)]
pub(super) struct Permit {
    place: Place,
    /// Of its URLs.
    pub(super) scheme: &'static str,
    /// What it may publish by POST.
    pub(super) quota: Mutex<Quota>,
}

/// The right of one connection to be open. It goes with the connection, wherever that goes: all that is left of its
/// request once it is a stream.
#[derive(Debug)]
struct Place {
    peer: SocketAddr,
    _permit: OwnedSemaphorePermit,
}

impl Permit {
    pub(super) fn ip(&self) -> IpAddr {
        self.place.peer.ip()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        tracing::debug!(peer = %self.peer, "closed");
    }
}

/// Accepts connections until the gateway drains.
pub(super) async fn serve(gateway: &Gateway, listener: TcpListener, tls: Option<TlsAcceptor>) {
    let lane = Arc::new(Semaphore::new(REFUSALS));
    let routes = gateway.router();
    let mut drained = pin!(gateway.drained());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut drained => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Of one connection, or of the whole system: then trying at once again would spin.
                tracing::warn!(%error, "accept");
                tokio::time::sleep(EXHAUSTED).await;
                continue;
            }
        };
        gateway.metrics().accepted.inc();
        let (gateway, tls) = (gateway.clone(), tls.clone());
        let permit = Arc::clone(&gateway.inner.permits).try_acquire_owned();
        let place = gateway.inner.handshakes.begin(peer.ip());
        if let (Ok(permit), Some(place)) = (permit, place) {
            tracing::debug!(%peer, "open");
            let scheme = if tls.is_some() { "https" } else { "http" };
            let place_of = Place { peer, _permit: permit };
            let permit = Arc::new(Permit { place: place_of, scheme, quota: Mutex::default() });
            tokio::spawn(connection(gateway, routes.clone(), stream, tls, permit, place));
        } else if let Ok(place) = Arc::clone(&lane).try_acquire_owned() {
            gateway.metrics().turned_away(Code::TooManyConnections.as_str());
            tokio::spawn(async move {
                let (until, has_tls) = (Instant::now() + REFUSAL_TIME, tls.is_some());
                turn_away(&gateway, stream, tls, until).await;
                if has_tls {
                    sleep_until(until).await;
                }
                drop(place);
            });
        } else {
            gateway.metrics().turned_away("flood");
        }
    }
}

/// One connection, from its first byte.
async fn connection(
    gateway: Gateway,
    routes: Router,
    tcp: TcpStream,
    tls: Option<TlsAcceptor>,
    permit: Arc<Permit>,
    place: Handshake,
) {
    let limits = gateway.config().head_limits();
    let until = Instant::now().checked_add(gateway.config().handshake_timeout);
    // What the clock cannot say is never.
    let until = until.unwrap_or_else(|| Instant::now() + FOREVER);
    let secured = tokio::select! {
        secured = timeout_at(until, secured(tcp, tls)) => secured.unwrap_or(Err(Some(TLS))),
        () = gateway.drained() => return,
    };
    let mut stream = match secured {
        Ok(stream) => stream,
        Err(None) => return,
        Err(Some(reason)) => return gateway.metrics().turned_away(reason),
    };
    let head = tokio::select! {
        head = timeout_at(until, Head::read(&mut stream, &limits)) => head,
        () = gateway.drained() => return,
    };
    drop(place);
    let refused = match head {
        Ok(Ok(Some(Ok(head)))) => return go_on(gateway, routes, stream, head, permit).await,
        Ok(Ok(Some(Err(error)))) => Refused::from(error),
        Ok(Ok(None) | Err(_)) => return,
        Err(_) => Refused::new(Code::RequestTimeout, "the head did not arrive in time (handshake_timeout)"),
    };
    gateway.metrics().turned_away(refused.code.as_str());
    say(stream, &refused.response_bytes()).await;
}

/// The stream over which requests come: after the handshake, where there has to be one. An error is what the connection
/// is counted as that is over, unless it went away by itself.
async fn secured(tcp: TcpStream, tls: Option<TlsAcceptor>) -> Result<NetStream, Option<&'static str>> {
    let Some(acceptor) = tls else { return Ok(NetStream::Plain(tcp)) };
    // A record begins with its type (RFC 8446 section 5.1), which is no letter, and a request with its method.
    let mut first = [0];
    if tcp.peek(&mut first).await.map_err(|_| None)? > 0 && first[0].is_ascii_alphabetic() {
        let refused = Refused::bad_request("this port speaks TLS: https:// or wss://");
        say(NetStream::Plain(tcp), &refused.response_bytes()).await;
        return Err(Some(NO_TLS));
    }
    let accepted = acceptor.accept(tcp).await.inspect_err(|error| tracing::debug!(%error, "TLS"));
    accepted.map(|stream| NetStream::Tls(Box::new(stream.into()))).map_err(|_| Some(TLS))
}

/// The head is there: streams go to a shard, all else to the HTTP server.
async fn go_on(gateway: Gateway, routes: Router, stream: NetStream, mut head: Head, permit: Arc<Permit>) {
    let request = head.view();
    let kind = Kind::of(&request);
    let is_stream = LogName::of_path(request.path()).is_some_and(|(_, resource)| resource == "/stream");
    if kind == Kind::Poll || !is_stream {
        let limit = gateway.hub().config().max_message;
        if request.headers().content_length().is_some_and(|len| len > limit) {
            // As the route would say it; but a length that no machine can hold does not get through the server.
            let refused = Refused::too_big(limit);
            gateway.metrics().turned_away(refused.code.as_str());
            return say(stream, &refused.response_bytes()).await;
        }
        return http(&gateway, routes, stream, head, permit).await;
    }
    let origins = request.headers().get_all("origin");
    let (status, opened) = match check_origin(gateway.config(), permit.scheme, origins, request.authority()) {
        // A foreign origin stops an `EventSource` for good.
        Err(refused) => (refused.status(), Err(refused.response_bytes())),
        Ok(origin) => match gateway.open(&request, kind, origin, Some(permit.ip())).await {
            Ok(opening) => (if kind == Kind::Sse { 200 } else { 101 }, Ok(opening)),
            Err(refused) => {
                let (status, bytes) = refusal(&gateway, &refused, kind, origin);
                (status, Err(bytes))
            }
        },
    };
    gateway.metrics().answered("stream", status);
    match opened {
        Ok(opening) => {
            let place: Box<dyn Any + Send> = match Arc::try_unwrap(permit) {
                Ok(permit) => Box::new(permit.place),
                Err(permit) => Box::new(permit),
            };
            let (response, adopt) = (opening.head(), opening.adopt(place));
            // A socket that cannot be taken out of this runtime is closed.
            let Ok(socket) = Socket::try_from(stream) else { return };
            let early = if kind == Kind::WebSocket { head.early() } else { Vec::new() };
            adopt(socket, response, early);
        }
        Err(bytes) => say(stream, &bytes).await,
    }
}

/// Serves requests until the connection ends; of those under way the last is finished when the gateway drains.
async fn http(gateway: &Gateway, routes: Router, stream: NetStream, head: Head, permit: Arc<Permit>) {
    let config = gateway.config();
    // Without it the connection only is slower.
    let _ = stream.socket().set_nodelay(true);
    // A long poll says nothing for a minute: the system asks whether there is still somebody.
    let hub = gateway.hub().config();
    watch_peer(stream.socket(), hub.heartbeat, hub.heartbeat_timeout);
    let wire = Wire::new(stream, head.into_bytes(), config.request_timeout);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(&permit));
        routes.clone().call(request)
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        // Also how long a connection may be idle.
        .header_read_timeout(config.handshake_timeout)
        .max_headers(config.max_headers)
        // The smallest that hyper takes.
        .max_buf_size(config.max_head.max(8192));
    let mut served = pin!(server.serve_connection(TokioIo::new(wire), service).with_upgrades());
    let result = tokio::select! {
        result = &mut served => result,
        () = gateway.drained() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        if error.source().and_then(|source| source.downcast_ref()).is_some_and(is_silence) {
            gateway.metrics().vanished.inc();
        }
        tracing::debug!(%error, "http");
    }
}

/// A connection too many. A client of SSE has to be told in its own way, or it never comes back.
async fn turn_away(gateway: &Gateway, tcp: TcpStream, tls: Option<TlsAcceptor>, until: Instant) {
    let refused = Refused::new(
        Code::TooManyConnections,
        "as many connections as max_connections, or max_handshakes of one address, allow",
    );
    let refused = refused.retry_after(gateway.come_back());
    let limits = gateway.config().head_limits();
    // It is counted already.
    let Ok(Ok(mut stream)) = timeout_at(until, secured(tcp, tls)).await else { return };
    let kind = match timeout_at(until, Head::read(&mut stream, &limits)).await {
        Ok(Ok(Some(Ok(mut head)))) => Kind::of(&head.view()),
        Ok(Ok(None) | Err(_)) => return,
        Ok(Ok(Some(Err(_)))) | Err(_) => Kind::Poll,
    };
    let (_, bytes) = refusal(gateway, &refused, kind, None);
    say(stream, &bytes).await;
}

/// Writes last words, and sees to it that they arrive.
async fn say(mut stream: NetStream, bytes: &[u8]) {
    let said = async {
        stream.write_all(bytes).await?;
        stream.flush().await?;
        stream.shutdown().await?;
        let (mut ignored, mut read) = ([0; 1024], 0);
        while read < LINGER_BYTES {
            match stream.read(&mut ignored).await? {
                0 => break,
                n => read += n,
            }
        }
        std::io::Result::Ok(())
    };
    // Whoever does not listen misses them.
    let _ = timeout(LINGER, said).await;
}
