//! `POST /v1/topics/{topic}`, and the same of another log (`PROTOCOL.md` section 8.2).

use super::access::credential;
use super::front::Permit;
use super::head::Head;
use super::refused::Refused;
use super::routes::other_method;
use super::selection::{decode, once};
use super::{Gateway, RETRY_AFTER, idempotency};
use crate::hub::{BadData, Data, Publication, Published};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, Method, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use longwire_core::http::query::segments;
use longwire_core::http::view;
use longwire_core::log::{Key, LogName, Topic};
use longwire_core::session::Code;
use std::sync::Arc;
use tokio::time::timeout;

/// What is between the log and the topic in the path; what follows begins with a slash that is not the topic's.
const PREFIX: &str = "/topics";

/// Publishes the body of a request.
pub(super) async fn publish(State(gateway): State<Gateway>, request: Request) -> Response {
    if *request.method() != Method::POST {
        return other_method(request.method(), "POST, OPTIONS");
    }
    let (parts, body) = request.into_parts();
    let head = Head::of(&parts, &gateway.config().head_limits());
    let published = match head {
        Ok(mut head) => {
            let permit = parts.extensions.get::<Arc<Permit>>().map(|permit| &**permit);
            gateway.publish(&head.view(), body, permit).await
        }
        Err(error) => Err(error.into()),
    };
    published.unwrap_or_else(IntoResponse::into_response)
}

impl Gateway {
    /// `permit` is that of the connection, which has its quota. Inside another server there is none.
    async fn publish(
        &self,
        request: &view::Request<'_>,
        body: Body,
        permit: Option<&Permit>,
    ) -> Result<Response, Refused> {
        self.check_open()?;
        let log = self.log_of(request.path())?;
        let credential = credential(request)?;
        let grant = self.grant(credential.as_deref(), &log).await?;
        let topic = topic(request.path())?;
        let topic = Topic::parse(&topic)?;
        if !grant.may_publish(topic) {
            return Err(Refused::new(Code::Forbidden, "the grant does not allow to publish to this topic"));
        }
        let key = match once(request.query().unwrap_or_default(), "key")? {
            Some(key) => Some(decode(key, Code::BadTopic)?),
            None => None,
        };
        let key = key.as_deref().map(Key::parse).transpose()?;
        let once = idempotency::key(request)?;
        let body = self.body(body).await?;
        let data = data(request, body)?;
        let once = once.as_deref().map(idempotency::once);
        let publication = Publication { subject: &grant.subject, once, topic, key, data };
        let publishing = log.publish_for(publication, permit.map(|permit| &permit.quota));
        let published = match timeout(self.config().request_timeout, publishing).await {
            Ok(published) => published.map_err(|error| Refused::from(error.refusal()))?,
            Err(_) => {
                let refused = Refused::new(Code::Unavailable, "readers are too far behind");
                return Err(refused.retry_after(RETRY_AFTER));
            }
        };
        Ok(answer(published))
    }

    /// The whole body, within the limits.
    async fn body(&self, body: Body) -> Result<Bytes, Refused> {
        let limit = self.hub().config().max_message;
        let too_big = || Refused::too_big(limit);
        // What says so itself need not be read.
        if hyper::body::Body::size_hint(&body).lower() > limit {
            return Err(too_big());
        }
        let limited = Limited::new(body, usize::try_from(limit).unwrap_or(usize::MAX));
        match timeout(self.config().request_timeout, limited.collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_big()),
            Ok(Err(_)) => Err(Refused::bad_request("the body is malformed, or was cut off")),
            Err(_) => {
                Err(Refused::new(Code::RequestTimeout, "the body did not arrive in time (request_timeout)"))
            }
        }
    }
}

/// Where it is, as far as that is known, and whether it was there before.
fn answer(Published { at, repeated, pressure }: Published) -> Response {
    let at = at.map(|at| format!("\"at\":\"{at}\""));
    let pressure = pressure.map(|wait| format!("\"pressure\":{}", wait.as_millis()));
    let fields: Vec<_> = at.into_iter().chain(pressure).collect();
    let mut response = Response::new(Body::from(format!("{{{}}}", fields.join(","))));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if repeated {
        headers.insert("longwire-repeated", HeaderValue::from_static("true"));
    }
    response
}

/// The topic of a path. An escaped slash would make another topic of it than the path shows.
fn topic(path: &str) -> Result<String, Refused> {
    let resource = LogName::of_path(path).map(|(_, resource)| resource);
    let path = resource.and_then(|resource| resource.strip_prefix(PREFIX)).unwrap_or_default();
    let mut topic = String::new();
    for (n, segment) in segments(path).enumerate() {
        let level = decode(segment, Code::BadTopic)?;
        if level.contains('/') {
            return Err(Refused::new(Code::BadTopic, "the slashes of a topic are written as they are"));
        }
        if n > 0 {
            topic.push('/');
        }
        topic.push_str(&level);
    }
    Ok(topic)
}

/// What a body is, by its type.
fn data(request: &view::Request<'_>, body: Bytes) -> Result<Data, Refused> {
    const UNTYPED: &str = "application/octet-stream";
    let value = request.headers().get_only("content-type");
    let value = value.map_err(|_| Refused::bad_request("more than one Content-Type"))?;
    let text = match value.map(str::from_utf8) {
        None | Some(Ok("")) => UNTYPED,
        Some(Ok(text)) => text,
        Some(Err(_)) => return Err(Refused::bad_request("Content-Type is not text")),
    };
    let media = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let bad = |error: BadData| Refused::new(Code::BadData, error.to_string());
    match &*media {
        "application/cbor" => Data::cbor(&body).map_err(|e| bad(e.into())),
        _ if media == "application/json" || media.ends_with("+json") => {
            Data::json(&body).map_err(|e| bad(e.into()))
        }
        _ => Data::opaque(text, body).map_err(bad),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_its_path() {
        for (path, want) in [
            ("fleet/7/cpu", Ok("fleet/7/cpu")),
            ("/a", Ok("/a")), // for `Topic` to refuse, as
            ("a%20b/%c3%bc", Ok("a b/ü")),
            ("a+b", Ok("a+b")),
            ("a//b", Ok("a//b")),
            ("a%2Fb", Err(Code::BadTopic)),
            ("a%2fb", Err(Code::BadTopic)),
            ("%ff", Err(Code::BadTopic)),
            ("%f", Err(Code::BadRequest)),
        ] {
            for log in ["/v1", "/v1/logs/telemetry"] {
                let got = topic(&format!("{log}{PREFIX}/{path}")).map_err(|refused| refused.code);
                assert_eq!(got.as_deref(), want.as_ref().copied(), "{log} {path}");
            }
        }
    }
}
