//! Requests for a stream: WebSocket (`PROTOCOL.md` section 6) and SSE (section 7).

use super::access::{Credential, TOKEN, any_credential, check_filter, cors};
use super::front::Permit;
use super::refused::{Field, Refused, put_all, written};
use super::selection::{Selection, decode, once};
use super::wire::Wire;
use super::{Gateway, RETRY_AFTER};
use crate::hub::{Adoption, Filter, Grant, LogHandle, Parked, Protocol, Socket};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use longwire_core::http::upgrade::{self, HandshakeError, Upgrade, accept_key};
use longwire_core::http::view::Request;
use longwire_core::http::write;
use longwire_core::log::{Policy, Since};
use longwire_core::session::Code;
use longwire_core::session::publisher::Incarnation;
use longwire_core::ws::deflate::{self, Agreed, ExtensionText};
use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::io::ReaderStream;

/// Bytes of a stream that wait in the body of a response.
const BODY_BUFFER: usize = 16 << 10;

/// How a request wants to be answered (`PROTOCOL.md` section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    WebSocket,
    Sse,
    Poll,
}

impl Kind {
    pub(super) fn of(request: &Request<'_>) -> Self {
        let headers = request.headers();
        if request.method() != "GET" {
            Self::Poll
        } else if headers.has_token("upgrade", "websocket") {
            Self::WebSocket
        } else if headers.list("accept").any(is_event_stream) {
            Self::Sse
        } else {
            Self::Poll
        }
    }
}

fn is_event_stream(range: &[u8]) -> bool {
    let media = range.split(|b| *b == b';').next().unwrap_or_default();
    media.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

/// A stream that may begin: what a shard has to know, and what the response says.
#[derive(Debug)]
pub(super) struct Opening<'b> {
    log: LogHandle,
    protocol: Protocol,
    subscription: Option<(Filter, Since)>,
    policy: Policy,
    grant: Grant,
    publisher: Option<Incarnation>,
    parked: Option<Parked>,
    upgrade: Option<(Upgrade<'b>, Option<&'static str>)>,
    deflate: Option<(Agreed, ExtensionText)>,
    fields: Vec<Field>,
}

impl Gateway {
    /// Looks at a request for a stream.
    pub(super) async fn open<'b>(
        &self,
        request: &Request<'b>,
        kind: Kind,
        origin: Option<&str>,
        peer: Option<IpAddr>,
    ) -> Result<Opening<'b>, Refused> {
        self.check_open()?;
        let log = self.log_of(request.path())?;
        let upgrade = match kind {
            Kind::WebSocket => {
                let upgrade = upgrade::accept(request)?;
                let (protocol, chosen) = subprotocol(&upgrade)?;
                Some((upgrade, protocol, chosen))
            }
            Kind::Sse | Kind::Poll => None,
        };
        let credential = any_credential(request)?;
        let later = kind == Kind::WebSocket && is_later(request)? && credential == Credential::None;
        let (grant, parked) = match later {
            true => (Grant::nothing(), Some(self.park(peer)?)),
            false => (self.grant(&credential, &log).await?, None),
        };
        let max_topics = self.hub().config().max_topics;
        let mut selection = Selection::parse(request.query().unwrap_or_default(), max_topics)?;
        if kind == Kind::Sse {
            selection = selection.require_topic()?.resume(request)?;
        }
        if parked.is_none() {
            check_filter(&grant, &selection.filter)?;
        }
        let policy = selection.policy(self.hub().config())?;
        let subscription =
            (!selection.filter.is_empty()).then(|| (selection.filter, selection.since.unwrap_or(Since::Now)));
        let mut fields: Vec<Field> = cors(self.config(), origin).collect();
        if kind == Kind::Sse {
            fields.extend(sse_fields());
        }
        let deflate = match &upgrade {
            // Nobody makes the gateway inflate anything before it is known who it is.
            Some((upgrade, ..)) if self.hub().config().deflate && parked.is_none() => {
                deflate::Config::new().accept(upgrade.extensions())
            }
            _ => None,
        };
        Ok(Opening {
            log,
            deflate,
            protocol: upgrade.as_ref().map_or(Protocol::Sse, |(_, protocol, _)| *protocol),
            subscription,
            policy,
            grant,
            publisher: selection.publisher,
            parked,
            upgrade: upgrade.map(|(upgrade, _, chosen)| (upgrade, chosen)),
            fields,
        })
    }

    /// A place for a connection that says later who it is, among those of its address whose first request has not come.
    fn park(&self, peer: Option<IpAddr>) -> Result<Parked, Refused> {
        let place = peer.map(|ip| self.inner.handshakes.begin(ip).ok_or(()));
        let place = place.transpose().map_err(|()| {
            let why = "as many connections that have not said who they are as max_handshakes allows";
            Refused::new(Code::TooManyConnections, why).retry_after(RETRY_AFTER)
        })?;
        // What the clock cannot say is never.
        let until = Instant::now().checked_add(self.config().auth_timeout);
        Ok(Parked { until, place: Box::new(place) })
    }

    /// A stream for the routes: the request came through an HTTP server.
    pub(super) async fn respond_with_stream(
        &self,
        request: &Request<'_>,
        kind: Kind,
        parts: &mut Parts,
    ) -> Response {
        // The origin was checked, and is told, by whoever called the route.
        let permit = parts.extensions.remove::<Arc<Permit>>();
        let peer = permit.as_ref().map(|permit| permit.ip());
        match (self.open(request, kind, None, peer).await, kind) {
            (Ok(opening), Kind::WebSocket) => match parts.extensions.remove::<OnUpgrade>() {
                Some(upgrade) => self.respond_with_upgrade(opening, upgrade, permit),
                None => Refused::bad_request("this connection cannot be upgraded").into_response(),
            },
            (Ok(opening), _) => self.respond_with_body(opening, permit),
            (Err(refused), Kind::Sse) if refused.is_told_in_event() => {
                let mut response = Response::new(Body::from(refused.stream(self.retry())));
                put_all(response.headers_mut(), sse_fields());
                response
            }
            (Err(refused), _) => refused.into_response(),
        }
    }

    /// What an `EventSource` is told to wait.
    fn retry(&self) -> Duration {
        let config = self.hub().config();
        config.come_back(config.retry)
    }

    fn respond_with_upgrade(
        &self,
        opening: Opening<'_>,
        upgrade: OnUpgrade,
        permit: Option<Arc<Permit>>,
    ) -> Response {
        let mut response = opening.upgrade_response();
        put_all(response.headers_mut(), opening.fields.clone());
        let adopt = opening.adopt(Box::new(permit));
        tokio::spawn(async move {
            match upgrade.await {
                Ok(upgraded) => {
                    let (socket, early) = socket_of(upgraded);
                    adopt(socket, Vec::new(), early);
                }
                Err(error) => tracing::debug!(%error, "upgrade failed"),
            }
        });
        response
    }

    /// The shard writes into one end of a pipe, and the body is what comes out of the other; it ends with the body.
    fn respond_with_body(&self, opening: Opening<'_>, permit: Option<Arc<Permit>>) -> Response {
        let (ours, theirs) = tokio::io::duplex(BODY_BUFFER);
        let mut response = Response::new(Body::from_stream(ReaderStream::with_capacity(theirs, BODY_BUFFER)));
        put_all(response.headers_mut(), opening.fields.clone());
        let adopt = opening.adopt(Box::new(permit));
        adopt(Socket::Stream(Box::new(ours)), Vec::new(), Vec::new());
        response
    }
}

impl Opening<'_> {
    /// The head of the response, for a socket of our own. An SSE stream ends with its connection: without chunks,
    /// several events go out in one write.
    pub(super) fn head(&self) -> Vec<u8> {
        let fields = self.fields.iter().map(|(name, value)| (*name, &**value));
        match &self.upgrade {
            Some((upgrade, chosen)) => {
                let fields: Vec<_> = fields.collect();
                let extensions = self.deflate.as_ref().map(|(_, answer)| answer.as_str());
                written(|tx| upgrade.write_response(tx, *chosen, extensions, &fields))
            }
            None => stream_head(fields),
        }
    }

    /// Hands it over to a shard, once there are a socket, the head of the response, and what was read already. The permit
    /// is dropped with the connection.
    pub(super) fn adopt(
        self,
        permit: Box<dyn Any + Send>,
    ) -> impl FnOnce(Socket, Vec<u8>, Vec<u8>) + Send + use<> {
        let Self { log, protocol, deflate, subscription, policy, grant, publisher, parked, .. } = self;
        let deflate = deflate.map(|(agreed, _)| agreed);
        move |socket, head, early| {
            log.adopt(Adoption {
                socket,
                head,
                early,
                protocol,
                deflate,
                subscription,
                policy,
                grant,
                publisher,
                parked,
                permit,
            });
        }
    }

    fn upgrade_response(&self) -> Response {
        let mut response = Response::new(Body::empty());
        let Some((upgrade, chosen)) = &self.upgrade else { return response };
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(accept) = HeaderValue::from_bytes(&accept_key(upgrade.key())) {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        if let Some(chosen) = chosen {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen));
        }
        if let Some(Ok(answer)) = self.deflate.as_ref().map(|(_, answer)| HeaderValue::from_str(answer)) {
            headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, answer);
        }
        response
    }
}

/// A whole refusal, for a socket of our own, after which the connection ends.
pub(super) fn refusal(
    gateway: &Gateway,
    refused: &Refused,
    kind: Kind,
    origin: Option<&str>,
) -> (u16, Vec<u8>) {
    if kind != Kind::Sse || !refused.is_told_in_event() {
        let mut refused = refused.clone();
        refused.fields.extend(cors(gateway.config(), origin));
        return (refused.status(), refused.response_bytes());
    }
    let fields: Vec<Field> = cors(gateway.config(), origin).chain(sse_fields()).collect();
    let mut bytes = stream_head(fields.iter().map(|(name, value)| (*name, &**value)));
    bytes.extend(refused.stream(gateway.retry()));
    (200, bytes)
}

/// The head of an event stream that ends with its connection.
fn stream_head<'f>(fields: impl Iterator<Item = (&'f str, &'f str)>) -> Vec<u8> {
    let fields: Vec<_> = fields.chain([("Connection", "close")]).collect();
    written(|tx| write::response(tx, 200, &fields))
}

fn sse_fields() -> [Field; 4] {
    [
        ("Content-Type", "text/event-stream".into()),
        ("Cache-Control", "no-store, no-transform".into()),
        // Proxies of the nginx family hold responses back otherwise.
        ("X-Accel-Buffering", "no".into()),
        ("Vary", "Accept, Origin".into()),
    ]
}

/// Whether a WebSocket says later who it is.
fn is_later(request: &Request<'_>) -> Result<bool, Refused> {
    let Some(auth) = once(request.query().unwrap_or_default(), "auth")? else { return Ok(false) };
    match &*decode(auth, Code::BadRequest)? {
        "later" => Ok(true),
        _ => Err(Refused::bad_request("auth is later, or not there")),
    }
}

/// Which form the client wants, and what it is told: the first of its offers that is known, JSON without any.
fn subprotocol(upgrade: &Upgrade<'_>) -> Result<(Protocol, Option<&'static str>), Refused> {
    let mut offers = upgrade.subprotocols().filter(|name| !name.starts_with(TOKEN)).peekable();
    if offers.peek().is_none() {
        return Ok((Protocol::WebSocketJson, None));
    }
    let known = offers.find_map(|name| match name {
        "longwire.v1.json" => Some((Protocol::WebSocketJson, Some("longwire.v1.json"))),
        "longwire.v1.cbor" => Some((Protocol::WebSocketCbor, Some("longwire.v1.cbor"))),
        _ => None,
    });
    known.ok_or_else(|| {
        Refused::bad_request("none of the offered subprotocols is longwire.v1.json or longwire.v1.cbor")
    })
}

/// What is behind an upgraded connection: a socket of our own, or whatever the server had.
fn socket_of(upgraded: Upgraded) -> (Socket, Vec<u8>) {
    let upgraded = match upgraded.downcast::<TokioIo<Wire>>() {
        Ok(parts) => {
            let (stream, unread) = parts.io.into_inner().into_stream();
            let early = [parts.read_buf, unread].concat();
            // One that cannot be taken out of its runtime is closed: the shard will find that out.
            let closed = |_| Socket::Stream(Box::new(tokio::io::empty()));
            return (Socket::try_from(stream).unwrap_or_else(closed), early);
        }
        Err(upgraded) => upgraded,
    };
    (Socket::Stream(Box::new(TokioIo::new(upgraded))), Vec::new())
}

impl From<HandshakeError> for Refused {
    fn from(error: HandshakeError) -> Self {
        let code = match error {
            HandshakeError::Version => Code::UpgradeRequired,
            HandshakeError::Method => Code::MethodNotAllowed,
            _ => Code::BadRequest,
        };
        let refused = Self::new(code, error.as_str());
        error.fields().iter().fold(refused, |refused, (name, value)| refused.with(name, *value))
    }
}
