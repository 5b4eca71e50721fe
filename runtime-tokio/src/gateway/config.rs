//! What the gateway allows. Everything is finite by default.

use super::origin::Origin;
use longwire_core::http::head;
use std::time::Duration;

/// The gateway's own bounds, and whom it trusts. Those of the log and of open connections are the
/// [hub's](crate::hub::HubConfig); [`limits`](super::limits) lists all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// Connections at a time, of whatever kind. Default 10,000. One more is refused with `too_many_connections`,
    /// or, when a flood of them leaves no time for words, closed.
    pub max_connections: u32,
    /// Connections of one address (of IPv6: of one /64) at a time whose first request has not come yet. Default 1,000.
    /// One more is refused with `too_many_connections`. Behind a proxy all of them come from one address.
    pub max_handshakes: u32,
    /// Bytes of a request's head. Default 8 KiB, of which the target may take half. Beyond it: 431, or 414.
    pub max_head: usize,
    /// Fields of a request's head. Default 64. Beyond it: 431. Behind a proxy count those that it adds.
    pub max_headers: usize,
    /// How long a request's head may take from the moment the connection is open, or since the last answer on it; the
    /// first with the TLS handshake before it.
    /// Default 10 s. Then 408, and the connection is closed.
    pub handshake_timeout: Duration,
    /// How long a request's body may take, and how long a client may take no byte of its answer. Default 30 s. Then
    /// 408, or the connection is closed.
    pub request_timeout: Duration,
    /// How long a WebSocket that was opened with `auth=later` may take to say who it is. Default 10 s. Then it is
    /// closed with
    /// 3000. Until then it counts as one of [`max_handshakes`](Self::max_handshakes).
    pub auth_timeout: Duration,
    /// How long a ticket can be used. Default 10 s.
    pub ticket_lifetime: Duration,
    /// Tickets that can be had within that time. Default 10,000. One more is refused with `unavailable`.
    pub max_tickets: u32,
    /// Origins other than the gateway's own whose pages may use it (`PROTOCOL.md` section 8.5). Default: none.
    ///
    /// The gateway's own origin begins with `http://`, or with `https://` where it speaks TLS itself: behind a proxy that
    /// speaks TLS for it, the public `https://` origin belongs in this list.
    pub allow_origins: Vec<Origin>,
    /// Whether pages of those origins may let the browser send its own credentials along (cookies, client certificates:
    /// `Access-Control-Allow-Credentials`). Default false. The gateway itself looks at none of these; a proxy in
    /// front of it may.
    pub allow_credentials: bool,
    /// Whether requests have to name this machine (`localhost`, a loopback address) or the host of an allowed
    /// origin. Default false. Meant for a gateway that is open to all who reach it, and reachable only from this
    /// machine: otherwise any page in a browser on it gets in under a name of its own that is made to point here
    /// (DNS rebinding), and to the browser that is the same origin.
    pub local_names_only: bool,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_handshakes: 1000,
            max_head: 8 << 10,
            max_headers: head::Limits::DEFAULT.max_headers,
            handshake_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            auth_timeout: Duration::from_secs(10),
            ticket_lifetime: Duration::from_secs(10),
            max_tickets: 10_000,
            allow_origins: Vec::new(),
            allow_credentials: false,
            local_names_only: false,
        }
    }
}

impl GatewayConfig {
    /// The same, as the core's reader of heads wants to know it.
    pub(super) fn head_limits(&self) -> head::Limits {
        head::Limits {
            max_head: self.max_head,
            max_headers: self.max_headers,
            max_value: self.max_head,
            max_target: self.max_head / 2,
            ..head::Limits::DEFAULT
        }
    }
}
