//! The gateway: the hub's front door over HTTP (`PROTOCOL.md` sections 6 to 10).
//!
//! ```text
//!   accept ─▶ admission ─▶ first head ─┬─ WebSocket, SSE ─────▶ a shard of the hub
//!             (a permit)   (the core)  └─ all else, bytes ────▶ hyper ─▶ axum: polls, publishing,
//!                                         put back                       metrics, the dashboard
//! ```
//!
//! A streaming connection never pays for an HTTP server, and everything ordinary is a kept library's business. The
//! same routes can be [mounted](Gateway::router) in a service of your own; then WebSockets are handed to a shard after
//! the upgrade, and SSE goes through the body of a response.
//!
//! ```no_run
//! use longwire::gateway::{Gateway, GatewayConfig};
//! use longwire::hub::{Hub, HubConfig, Open};
//! use std::sync::Arc;
//!
//! # async fn run() -> std::io::Result<()> {
//! let hub = Hub::start(HubConfig::default(), Arc::new(Open))?;
//! let gateway = Gateway::new(hub, GatewayConfig { local_names_only: true, ..Default::default() });
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! tokio::spawn({
//!     let gateway = gateway.clone();
//!     async move {
//!         let _ = tokio::signal::ctrl_c().await;
//!         gateway.drain().await;
//!     }
//! });
//! gateway.serve(listener).await;
//! # Ok(())
//! # }
//! ```

mod access;
mod auth;
mod config;
mod files;
mod front;
mod handshakes;
mod head;
mod idempotency;
pub mod limits;
mod metrics;
mod origin;
mod pages;
mod poll;
mod publish;
mod refused;
mod routes;
mod selection;
mod stream;
mod tls;
mod wire;

pub use auth::{CredentialFiles, Credentials, FileError, Jwt, JwtConfig, Revoked, TokenFile, Watcher};
pub use config::GatewayConfig;
pub use origin::{Origin, OriginError};
pub use tls::{CertificateFiles, CertificateWatcher};

use crate::hub::Hub;
use crate::net::rustls::ServerConfig;
use auth::tickets::Tickets;
use handshakes::Handshakes;
use longwire_core::session::Code;
use metrics::Metrics;
use refused::Refused;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

/// When to come back, at the earliest, to a gateway that cannot do what it was asked for at the moment.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long [`Gateway::drain`] waits for connections to end.
const GOODBYE: Duration = Duration::from_millis(1500);

/// A gateway. Cheap to clone: clones are the same gateway.
#[derive(Clone, Debug)]
pub struct Gateway {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    hub: Arc<Hub>,
    config: GatewayConfig,
    metrics: Metrics,
    /// One for each connection that may be open.
    permits: Arc<Semaphore>,
    handshakes: Arc<Handshakes>,
    tickets: Arc<Tickets>,
    draining: watch::Sender<bool>,
}

impl Gateway {
    /// A gateway to a hub.
    pub fn new(hub: Arc<Hub>, config: GatewayConfig) -> Self {
        let permits = Arc::new(Semaphore::new(config.max_connections as usize));
        let tickets = Arc::new(Tickets::new(config.max_tickets as usize, config.ticket_lifetime));
        let metrics = Metrics::new(
            Arc::clone(&hub),
            Arc::clone(&permits),
            config.max_connections,
            Arc::clone(&tickets),
        );
        let handshakes = Handshakes::new(config.max_handshakes);
        let draining = watch::Sender::new(false);
        Self { inner: Arc::new(Inner { hub, config, metrics, permits, handshakes, tickets, draining }) }
    }

    /// The hub behind it.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.inner.hub
    }

    /// Its configuration.
    pub fn config(&self) -> &GatewayConfig {
        &self.inner.config
    }

    /// The routes, for a service that has a listener of its own. Admission and the bounds on heads and on time are up to
    /// that service then; its WebSockets need upgrades of HTTP/1.1. To be mounted at the root.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use longwire::gateway::{Gateway, GatewayConfig};
    /// use longwire::hub::{Hub, HubConfig, Open};
    /// use std::sync::Arc;
    ///
    /// let hub = Hub::start(HubConfig::default(), Arc::new(Open))?;
    /// let gateway = Gateway::new(hub, GatewayConfig::default());
    /// let service: Router = Router::new().route("/hello", get(|| async { "hello" })).merge(gateway.api());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn router(&self) -> axum::Router {
        routes::router(self.clone())
    }

    /// Only the routes under `/v1`, for a service that has its own start page, metrics and answer to other paths.
    pub fn api(&self) -> axum::Router {
        routes::api(self.clone())
    }

    /// Serves connections of a listener until the gateway [drains](Self::drain). A dropped future stops listening;
    /// connections that were accepted go on.
    pub async fn serve(&self, listener: tokio::net::TcpListener) {
        front::serve(self, listener, None).await;
    }

    /// The same over TLS: with a certificate from [files](CertificateFiles), or a configuration of your own, whose ALPN
    /// may offer `http/1.1` only.
    ///
    /// The handshake counts as a part of the first request: it has its time
    /// ([`handshake_timeout`](GatewayConfig::handshake_timeout)) and its place among those of its address
    /// ([`max_handshakes`](GatewayConfig::max_handshakes)). Streams are written to by their shards as those without TLS
    /// are.
    pub async fn serve_tls(&self, listener: tokio::net::TcpListener, config: Arc<ServerConfig>) {
        front::serve(self, listener, Some(TlsAcceptor::from(config))).await;
    }

    /// Ends the gateway and its hub: `/readyz` says 503, no connection is accepted any more, requests under way are
    /// finished, long polls are answered, and streams are told to come back within
    /// [`HubConfig::reconnect_window`](crate::hub::HubConfig::reconnect_window) (`bye` with code `draining`). Returns
    /// when the connections are gone, at the latest after 1.5 seconds. A dropped future has begun all of that.
    pub async fn drain(&self) {
        self.inner.draining.send_replace(true);
        let (hub, window) = (Arc::clone(self.hub()), self.hub().config().reconnect_window);
        let closed = tokio::task::spawn_blocking(move || hub.close(Duration::ZERO, window));
        let gone = async {
            // All permits are back.
            let all = self.inner.permits.acquire_many(self.config().max_connections).await;
            (all.is_ok(), closed.await.is_ok())
        };
        // Whoever has not gone by then is left to the end of the process.
        let _ = tokio::time::timeout(GOODBYE, gone).await;
    }

    fn tickets(&self) -> &Tickets {
        &self.inner.tickets
    }

    fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    fn is_draining(&self) -> bool {
        *self.inner.draining.borrow()
    }

    /// When somebody who is refused should come back: everybody at another time, or all would be refused again.
    fn come_back(&self) -> Duration {
        self.hub().config().come_back(RETRY_AFTER)
    }

    /// Ready once the gateway drains.
    async fn drained(&self) {
        // The sender lives as long as `self`.
        let _ = self.inner.draining.subscribe().wait_for(|draining| *draining).await;
    }

    /// Refuses while the gateway drains.
    fn check_open(&self) -> Result<(), Refused> {
        if self.is_draining() {
            let refused = Refused::new(Code::Draining, "the gateway is about to stop");
            return Err(refused.retry_after(self.come_back()));
        }
        Ok(())
    }
}
