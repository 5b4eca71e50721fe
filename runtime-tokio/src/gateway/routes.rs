//! The routes, as axum serves them.

use super::access::{check_origin, cors, preflight};
use super::auth::requests;
use super::front::Permit;
use super::head::Head;
use super::refused::{Refused, put_all};
use super::stream::Kind;
use super::{Gateway, pages, publish};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::{HeaderValue, Method, StatusCode, header};
use longwire_core::log::LogName;
use longwire_core::session::Code;
use std::sync::Arc;

/// All routes, and what answers to other paths.
pub(super) fn router(gateway: Gateway) -> Router {
    let routes = api_routes().merge(pages::routes()).fallback(not_found);
    routes.layer(from_fn_with_state(gateway.clone(), guard)).with_state(gateway)
}

/// The routes under `/v1`.
pub(super) fn api(gateway: Gateway) -> Router {
    api_routes().route_layer(from_fn_with_state(gateway.clone(), guard)).with_state(gateway)
}

fn api_routes() -> Router<Gateway> {
    // The same for each log; which of them it is, the handlers see in the path.
    let of = |log: &str| {
        Router::new()
            .route(&format!("{log}/stream"), any(stream))
            .route(&format!("{log}/topics/{{*topic}}"), any(publish::publish))
            .route(&format!("{log}/ticket"), any(requests::ticket))
            .route(&format!("{log}/session/{{session}}/auth"), any(requests::renew))
    };
    of("/v1").merge(of("/v1/logs/{log}"))
}

async fn not_found() -> Refused {
    Refused::new(Code::NotFound, "there is no such path")
}

/// What a path answers to a method that it does not have; `OPTIONS` asks just for that.
pub(super) fn other_method(method: &Method, allow: &'static str) -> Response {
    if method == Method::OPTIONS {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
        return response;
    }
    let refused = Refused::new(Code::MethodNotAllowed, format!("the methods here are {allow}"));
    refused.with("Allow", allow).into_response()
}

/// Around every route: where the request comes from, and what is counted.
async fn guard(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let route = route(request.uri().path());
    let authority = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
    };
    let origins = request.headers().get_all(header::ORIGIN).iter().map(HeaderValue::as_bytes);
    let scheme = request.extensions().get::<Arc<Permit>>().map_or("http", |permit| permit.scheme);
    let mut response = match check_origin(gateway.config(), scheme, origins, authority) {
        Err(refused) => refused.into_response(),
        Ok(origin) => {
            let origin = origin.map(str::to_owned);
            let preflighted = origin.is_some() && request.method() == Method::OPTIONS;
            let mut response = next.run(request).await;
            put_all(response.headers_mut(), cors(gateway.config(), origin.as_deref()));
            if preflighted {
                put_all(response.headers_mut(), preflight());
            }
            response
        }
    };
    // Every answer depends on where the question came from.
    response.headers_mut().entry(header::VARY).or_insert(HeaderValue::from_static("Origin"));
    gateway.metrics().answered(route, response.status().as_u16());
    response
}

/// The name of a route in metrics; a path that is none has no name of its own.
fn route(path: &str) -> &'static str {
    match (path, LogName::of_path(path)) {
        (_, Some((_, "/stream"))) => "stream",
        (_, Some((_, resource))) if resource.starts_with("/topics/") => "topics",
        (_, Some((_, "/ticket"))) => "ticket",
        (_, Some((_, resource))) if resource.starts_with("/session/") => "session",
        ("/healthz", _) => "healthz",
        ("/readyz", _) => "readyz",
        ("/metrics", _) => "metrics",
        _ if pages::is_page(path) => "page",
        _ => "other",
    }
}

/// `/v1/stream`, of whatever log and transport.
async fn stream(State(gateway): State<Gateway>, request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return other_method(request.method(), "GET, HEAD, OPTIONS");
    }
    let (mut parts, _) = request.into_parts();
    let mut head = match Head::of(&parts, &gateway.config().head_limits()) {
        Ok(head) => head,
        Err(error) => return Refused::from(error).into_response(),
    };
    let request = head.view();
    match Kind::of(&request) {
        Kind::Poll => gateway.poll(&request).await.unwrap_or_else(IntoResponse::into_response),
        kind => gateway.respond_with_stream(&request, kind, &mut parts).await,
    }
}
