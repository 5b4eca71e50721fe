//! `POST /v1/ticket` and `POST /v1/session/{id}/auth` (`PROTOCOL.md` section 8.4).

use crate::gateway::access::{Credential, credential};
use crate::gateway::head::Head;
use crate::gateway::refused::Refused;
use crate::gateway::routes::other_method;
use crate::gateway::{Gateway, RETRY_AFTER};
use crate::hub::{Filter, Grant, RenewError};
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};
use longwire_core::log::Pattern;
use longwire_core::session::Code;
use serde::Deserialize;
use std::time::Duration;

/// Bytes of a body: a credential, or a few patterns.
const MAX_BODY: u64 = 16 << 10;

/// What a ticket is asked for, if not for all that the credential allows.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    subscribe: Option<Vec<String>>,
    publish: Option<Vec<String>>,
    /// Milliseconds.
    lifetime: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Presented {
    token: String,
}

/// What the path of a session says; that of a named log has that name in front.
#[derive(Deserialize)]
pub(in crate::gateway) struct Named {
    session: String,
}

/// Gives a ticket.
pub(in crate::gateway) async fn ticket(State(gateway): State<Gateway>, request: Request) -> Response {
    if *request.method() != Method::POST {
        return other_method(request.method(), "POST, OPTIONS");
    }
    gateway.give_ticket(request).await.unwrap_or_else(IntoResponse::into_response)
}

/// Puts another grant in the place of a session's.
pub(in crate::gateway) async fn renew(
    State(gateway): State<Gateway>,
    Path(Named { session }): Path<Named>,
    request: Request,
) -> Response {
    if *request.method() != Method::POST {
        return other_method(request.method(), "POST, OPTIONS");
    }
    gateway.renew(&session, request).await.unwrap_or_else(IntoResponse::into_response)
}

impl Gateway {
    async fn give_ticket(&self, request: Request) -> Result<Response, Refused> {
        self.check_open()?;
        self.log_of(request.uri().path())?;
        let (parts, body) = request.into_parts();
        let mut head = Head::of(&parts, &self.config().head_limits())?;
        let mut grant = self.grant_of(&credential(&head.view())?).await?;
        let body = self.body(body, MAX_BODY).await?;
        let wanted = if body.is_empty() { Wanted::default() } else { parse(&body)? };
        let max_topics = self.hub().config().max_topics;
        if let Some(patterns) = &wanted.subscribe {
            grant.subscribe = narrower(&grant.subscribe, patterns, max_topics)?;
        }
        if let Some(patterns) = &wanted.publish {
            grant.publish = narrower(&grant.publish, patterns, max_topics)?;
        }
        // The body may have taken its time.
        self.check_still(&grant)?;
        let given = self.tickets().issue(grant, wanted.lifetime.map(Duration::from_millis));
        let (ticket, lifetime) = given.ok_or_else(|| {
            let refused = Refused::new(Code::Unavailable, "as many tickets as max_tickets allows are out");
            refused.retry_after(RETRY_AFTER)
        })?;
        self.metrics().tickets.inc();
        let expires_in = lifetime.as_millis();
        Ok(json(format!("{{\"ticket\":\"{ticket}\",\"expires_in\":{expires_in}}}")))
    }

    async fn renew(&self, session: &str, request: Request) -> Result<Response, Refused> {
        self.check_open()?;
        self.log_of(request.uri().path())?;
        let (parts, body) = request.into_parts();
        let mut head = Head::of(&parts, &self.config().head_limits())?;
        let presented = credential(&head.view())?;
        let body = self.body(body, MAX_BODY).await?;
        let in_body = if body.is_empty() { None } else { Some(parse::<Presented>(&body)?.token) };
        let presented = presented.or(in_body.map(Credential::Token))?;
        let grant = self.grant_of(&presented).await?;
        self.hub().renew(session, grant).await.map_err(|error| match error {
            RenewError::Unknown => Refused::new(Code::NotFound, "there is no such session"),
            RenewError::Forbidden(why) => Refused::new(Code::Forbidden, why),
        })?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    /// Refuses what a grant allowed that has ended, or was revoked, meanwhile.
    pub(in crate::gateway) fn check_still(&self, grant: &Grant) -> Result<(), Refused> {
        if self.hub().is_revoked(grant) {
            return Err(self.unauthorized("the grant was revoked"));
        }
        if !grant.holds(tokio::time::Instant::now()) {
            return Err(self.unauthorized("the grant has ended"));
        }
        Ok(())
    }
}

/// Patterns that others cover.
fn narrower(own: &Filter, patterns: &[String], max: usize) -> Result<Filter, Refused> {
    if patterns.len() > max {
        return Err(Refused::new(Code::TooManyTopics, "more patterns than max_topics"));
    }
    let mut filter = Filter::default();
    for text in patterns {
        let pattern = Pattern::parse(text)?;
        if !own.covers(pattern) {
            return Err(Refused::new(Code::Forbidden, "the grant does not cover this pattern"));
        }
        filter.insert(pattern);
    }
    Ok(filter)
}

/// A body in JSON. What is wrong with it is not said by showing it: there may be a credential in it.
fn parse<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Refused::bad_request(format!("the body is not what is asked for: line {line}, column {column}"))
    })
}

fn json(body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
