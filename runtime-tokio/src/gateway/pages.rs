//! What people and operators look at: the dashboard, the browser client, health, metrics.

use super::refused::{Refused, put_all};
use super::routes::other_method;
use super::{Gateway, metrics};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use http::Method;
use longwire_core::session::Code;

/// A file of the dashboard, as it is in the program.
struct Page {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

const PAGES: &[Page] = &[
    Page {
        path: "/",
        content_type: "text/html; charset=utf-8",
        bytes: include_bytes!("../../assets/dashboard.html"),
    },
    Page {
        path: "/dashboard.css",
        content_type: "text/css; charset=utf-8",
        bytes: include_bytes!("../../assets/dashboard.css"),
    },
    Page {
        path: "/dashboard.js",
        content_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../../assets/dashboard.js"),
    },
    Page {
        path: "/longwire.js",
        content_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../../assets/longwire.js"),
    },
];

/// The page takes everything from here and talks to nobody else; its icon is within it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> Router<Gateway> {
    let pages = PAGES.iter().fold(Router::new(), |routes, page| routes.route(page.path, any(page_or_other)));
    pages.route("/healthz", any(health)).route("/readyz", any(ready)).route("/metrics", any(text_of_metrics))
}

pub(super) fn is_page(path: &str) -> bool {
    PAGES.iter().any(|page| page.path == path)
}

const ALLOW: &str = "GET, HEAD, OPTIONS";

/// The answer to a method that is not for reading.
fn no_reading(method: &Method) -> Option<Response> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    (!reads).then(|| other_method(method, ALLOW))
}

fn text(content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    put_all(
        response.headers_mut(),
        [("Content-Type", content_type.into()), ("X-Content-Type-Options", "nosniff".into())],
    );
    response
}

async fn page_or_other(request: Request) -> Response {
    let Some(page) = PAGES.iter().find(|page| page.path == request.uri().path()) else {
        return Refused::new(Code::NotFound, "there is no such page").into_response();
    };
    if let Some(other) = no_reading(request.method()) {
        return other;
    }
    let mut response = text(page.content_type, Bytes::from_static(page.bytes));
    let fields = [
        // A new program may have new pages.
        ("Cache-Control", "no-cache".into()),
        ("Content-Security-Policy", POLICY.into()),
        ("Referrer-Policy", "no-referrer".into()),
    ];
    put_all(response.headers_mut(), fields);
    response
}

async fn health(method: Method) -> Response {
    no_reading(&method).unwrap_or_else(|| word("serving"))
}

async fn ready(State(gateway): State<Gateway>, method: Method) -> Response {
    if let Some(other) = no_reading(&method) {
        return other;
    }
    gateway.check_open().map_or_else(IntoResponse::into_response, |()| word("ready"))
}

fn word(word: &'static str) -> Response {
    let mut response = text("text/plain; charset=utf-8", word);
    put_all(response.headers_mut(), [("Cache-Control", "no-store".into())]);
    response
}

async fn text_of_metrics(State(gateway): State<Gateway>, method: Method) -> Response {
    if let Some(other) = no_reading(&method) {
        return other;
    }
    match gateway.metrics().text() {
        Ok(body) => text(metrics::CONTENT_TYPE, body),
        Err(_) => Refused::new(Code::Internal, "the metrics cannot be written").into_response(),
    }
}
