//! Who asks, from where, and whether that is allowed (`PROTOCOL.md` sections 8.4 and 8.5).

use super::origin::Origin;
use super::refused::{Field, Refused};
use super::selection::{all, decode, once};
use super::{Gateway, GatewayConfig};
use crate::hub::{Filter, Grant, LogHandle};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use longwire_core::http::view::Request;
use longwire_core::log::{LogName, Pattern};
use longwire_core::session::Code;
use std::fmt;
use tokio::time::{Instant, timeout};

/// The subprotocol in which a browser hides its credential.
pub(super) const TOKEN: &str = "longwire.token.";

/// What an allowed foreign origin gets told of a response.
const EXPOSED: &str = "ETag, Longwire-Next, Longwire-Repeated, Retry-After";

/// Checks where a request comes from. `Ok(Some(_))` is an allowed origin that is not the gateway's own.
///
/// `origins` are the values of `Origin`, `scheme` and `authority` are whom the request is for.
pub(super) fn check_origin<'o>(
    config: &GatewayConfig,
    scheme: &str,
    mut origins: impl Iterator<Item = &'o [u8]>,
    authority: &str,
) -> Result<Option<&'o str>, Refused> {
    let own = Origin::own(scheme, authority);
    let local = |own: &Origin| own.is_local() || config.allow_origins.iter().any(|o| o.same_host(own));
    // A request of HTTP/1.0 may name nobody; a browser never sends that.
    if config.local_names_only && !authority.is_empty() && !own.as_ref().is_some_and(local) {
        return Err(Refused::new(
            Code::Forbidden,
            "this gateway answers to local names only; others have to be among its allowed origins",
        ));
    }
    let Some(origin) = origins.next() else { return Ok(None) };
    if origins.next().is_some() {
        return Err(Refused::bad_request("more than one Origin"));
    }
    let text = str::from_utf8(origin).unwrap_or_default();
    match text.parse::<Origin>() {
        Ok(origin) if own.is_some_and(|own| own == origin) => Ok(None),
        Ok(origin) if config.allow_origins.contains(&origin) => Ok(Some(text)),
        _ => Err(Refused::new(Code::Forbidden, "this origin is not allowed")),
    }
}

/// What a response says to an origin, if it is an allowed foreign one.
pub(super) fn cors(config: &GatewayConfig, origin: Option<&str>) -> impl Iterator<Item = Field> + use<> {
    let fields = origin.map(|origin| {
        [
            ("Access-Control-Allow-Origin", origin.to_owned().into()),
            ("Access-Control-Expose-Headers", EXPOSED.into()),
        ]
    });
    // Fetch, section 3.2.5: with an origin that is named, never with `*`.
    let credentials = config.allow_credentials && fields.is_some();
    let credentials = credentials.then(|| ("Access-Control-Allow-Credentials", "true".into()));
    fields.into_iter().flatten().chain(credentials)
}

/// What a preflight is told in addition.
pub(super) fn preflight() -> [Field; 2] {
    [
        ("Access-Control-Allow-Methods", "GET, HEAD, POST".into()),
        (
            "Access-Control-Allow-Headers",
            "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, If-None-Match".into(),
        ),
    ]
}

/// What a request presents.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    None,
    Token(String),
    /// In the URL of a stream.
    Ticket(String),
}

/// Never what it is.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Token(_) => "Token",
            Self::Ticket(_) => "Ticket",
        })
    }
}

impl Credential {
    /// This one, or another: not two that differ.
    pub(super) fn or(self, other: Option<Self>) -> Result<Self, Refused> {
        match (self, other) {
            (Self::None, Some(only)) => Ok(only),
            (own, Some(other)) if own != other => {
                Err(Refused::bad_request("two different credentials in one request"))
            }
            (own, _) => Ok(own),
        }
    }
}

/// Parameters by which others take credentials. Here they would end in the logs of whoever is in between.
const TOKEN_PARAMETERS: [&str; 6] =
    ["access_token", "auth_token", "authorization", "id_token", "jwt", "token"];

/// The credential of a request: of its head, or among the subprotocols of a WebSocket.
pub(super) fn credential(request: &Request<'_>) -> Result<Credential, Refused> {
    match any_credential(request)? {
        Credential::Ticket(_) => Err(Refused::bad_request("a ticket opens a stream, and nothing else")),
        other => Ok(other),
    }
}

/// The credential of a request for a stream: the same, or a ticket.
pub(super) fn any_credential(request: &Request<'_>) -> Result<Credential, Refused> {
    let query = request.query().unwrap_or_default();
    if TOKEN_PARAMETERS.iter().any(|name| all(query, name).next().is_some()) {
        let why =
            "a credential does not belong in a URL, which is logged: ask for a ticket (POST /v1/ticket)";
        return Err(Refused::bad_request(why));
    }
    let ticket = once(query, "ticket")?.map(|ticket| decode(ticket, Code::BadRequest)).transpose()?;
    bearer(request)?.or(subprotocol(request)?)?.or(ticket.map(Credential::Ticket))
}

fn bearer(request: &Request<'_>) -> Result<Credential, Refused> {
    let value = request.headers().get_only("authorization");
    let value = value.map_err(|_| Refused::bad_request("more than one Authorization"))?;
    // RFC 9110 section 11.4: the scheme is compared without case. Another scheme is no credential for here.
    let bearer = value.and_then(|value| {
        let (scheme, token) = str::from_utf8(value).ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' ').to_owned())
    });
    Ok(bearer.map_or(Credential::None, Credential::Token))
}

fn subprotocol(request: &Request<'_>) -> Result<Option<Credential>, Refused> {
    let offers = request.headers().list("sec-websocket-protocol");
    let mut tokens = offers.filter_map(|name| name.strip_prefix(TOKEN.as_bytes()));
    let Some(token) = tokens.next() else { return Ok(None) };
    let token = URL_SAFE_NO_PAD.decode(token).ok().and_then(|token| String::from_utf8(token).ok());
    match (token, tokens.next()) {
        (Some(token), None) => Ok(Some(Credential::Token(token))),
        _ => Err(Refused::bad_request("malformed credential among the subprotocols")),
    }
}

impl Gateway {
    /// The log that a path is about: looked up before any other work.
    pub(super) fn log_of(&self, path: &str) -> Result<LogHandle, Refused> {
        let name = LogName::of_path(path).map(|(name, _)| name);
        let name = LogName::parse(name.unwrap_or_default())
            .map_err(|error| Refused::new(Code::NotFound, error.as_str()))?;
        let log = self.hub().log_named(name.as_str());
        log.cloned().ok_or_else(|| Refused::new(Code::NotFound, format!("there is no log {name}")))
    }

    /// What a credential allows on a log, now.
    pub(super) async fn grant(&self, credential: &Credential, log: &LogHandle) -> Result<Grant, Refused> {
        let grant = self.grant_of(credential).await?;
        if !grant.logs.contains(log.name()) {
            return Err(Refused::new(Code::Forbidden, "the grant is not for this log"));
        }
        Ok(grant)
    }

    /// What a credential allows, now. A ticket is used up by it.
    pub(super) async fn grant_of(&self, credential: &Credential) -> Result<Grant, Refused> {
        // What is revoked from here on covers it.
        let issued = Instant::now();
        let token = match credential {
            Credential::Ticket(_) if self.hub().authorize().is_open() => None,
            Credential::Ticket(ticket) => {
                let grant = self.tickets().redeem(ticket);
                const WHY: &str = "the ticket is not known, was used, or is too old";
                let grant = grant.ok_or_else(|| self.unauthorized(WHY))?;
                return self.check_still(&grant).map(|()| grant);
            }
            Credential::Token(token) => Some(&**token),
            Credential::None => None,
        };
        let decision = self.hub().authorize().authorize(token);
        let grant = match timeout(self.config().request_timeout, decision).await {
            Ok(Ok(grant)) => Grant { issued, ..grant },
            Ok(Err(denied)) => return Err(self.unauthorized(denied.0)),
            Err(_) => {
                let refused = Refused::new(Code::Unavailable, "credentials cannot be checked at the moment");
                return Err(refused.retry_after(self.come_back()));
            }
        };
        self.check_still(&grant).map(|()| grant)
    }

    /// A credential that does not do, or not any more.
    pub(super) fn unauthorized(&self, why: &'static str) -> Refused {
        self.metrics().unauthorized(why);
        // RFC 9110 section 15.5.2 asks for the challenge.
        Refused::new(Code::Unauthorized, why).with("WWW-Authenticate", "Bearer")
    }
}

/// Whether a grant allows all of a subscription.
pub(super) fn check_filter(grant: &Grant, filter: &Filter) -> Result<(), Refused> {
    let covers = |text| Pattern::parse(text).is_ok_and(|pattern| grant.may_subscribe(pattern));
    if filter.patterns().all(covers) {
        return Ok(());
    }
    Err(Refused::new(Code::Forbidden, "the grant does not cover this pattern"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(config: &GatewayConfig, authority: &str, origin: &str) -> Result<bool, Code> {
        let origins = [origin.as_bytes()];
        let origins = origins.iter().copied().filter(|origin| !origin.is_empty());
        check_origin(config, "http", origins, authority).map(|foreign| foreign.is_some()).map_err(|r| r.code)
    }

    #[test]
    fn cve_2026_44211_cline_jlsec_2026_614_http_jl_section_8_5_an_origin_is_the_gateways_own_or_listed() {
        let config = GatewayConfig {
            allow_origins: ["https://app.example", "http://dev.example:3000"]
                .map(|o| o.parse().unwrap())
                .into(),
            ..GatewayConfig::default()
        };
        const NO: Result<bool, Code> = Err(Code::Forbidden);
        for (authority, origin, want) in [
            // No browser, or a navigation.
            ("h:8080", "", Ok(false)),
            // Its own: scheme, host and port.
            ("h:8080", "http://h:8080", Ok(false)),
            ("H:8080", "http://h:8080", Ok(false)),
            ("h", "http://h", Ok(false)),
            ("h", "http://h:80", Ok(false)),
            ("h:80", "http://h", Ok(false)),
            ("[::1]:8080", "http://[::1]:8080", Ok(false)),
            ("h:8080", "https://h:8080", NO),
            ("h:8080", "http://h", NO),
            ("h:8080", "http://h:8081", NO),
            ("h:8080", "http://g:8080", NO),
            ("h:8080", "http://h:8080.evil.example", NO),
            ("h", "http://hh", NO),
            ("h:443", "https://h", NO),
            // Listed.
            ("h:8080", "https://app.example", Ok(true)),
            ("h:8080", "https://app.example:443", Ok(true)),
            ("h:8080", "http://app.example", NO),
            ("h:8080", "https://app.example:444", NO),
            ("h:8080", "https://app.example.evil.example", NO),
            ("h:8080", "http://dev.example:3000", Ok(true)),
            ("h:8080", "http://dev.example", NO),
            // Nobody's.
            ("h:8080", "null", NO),
            ("h:8080", "file://", NO),
            ("h:8080", "http://h:8080/", NO),
            ("h:8080", "http://h:8080, https://app.example", NO),
            ("", "http://h", NO),
        ] {
            assert_eq!(check(&config, authority, origin), want, "{authority} {origin}");
        }
        for (origin, want) in [("https://h", Ok(None)), ("https://h:443", Ok(None)), ("http://h", Err(()))] {
            let got = check_origin(&config, "https", [origin.as_bytes()].into_iter(), "h");
            assert_eq!(got.map_err(|_| ()), want, "{origin}, with TLS");
        }
        let twice = [&b"http://h"[..], b"http://h"];
        assert_eq!(check_origin(&config, "http", twice.into_iter(), "h").unwrap_err().code, Code::BadRequest);
    }

    #[test]
    fn a_gateway_for_this_machine_answers_to_local_names_and_to_those_listed() {
        let config = GatewayConfig {
            allow_origins: vec!["https://app.example".parse().unwrap()],
            local_names_only: true,
            ..GatewayConfig::default()
        };
        for (authority, origin, want) in [
            ("127.0.0.1:8080", "", Ok(false)),
            ("localhost:8080", "http://localhost:8080", Ok(false)),
            ("[::1]:8080", "", Ok(false)),
            ("", "", Ok(false)),
            // A name of the attacker's that points here: to the browser this is the same origin.
            ("evil.example:8080", "http://evil.example:8080", Err(Code::Forbidden)),
            ("evil.example:8080", "", Err(Code::Forbidden)),
            ("127.0.0.1.evil.example", "", Err(Code::Forbidden)),
            ("a b", "", Err(Code::Forbidden)),
            // A proxy in front of it.
            ("app.example", "https://app.example", Ok(true)),
            ("app.example:8080", "", Ok(false)),
        ] {
            assert_eq!(check(&config, authority, origin), want, "{authority} {origin}");
        }
    }
}
