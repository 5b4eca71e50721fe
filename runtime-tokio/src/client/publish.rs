//! One event, by POST; and what a publication is made of.

use super::endpoint::encode;
use super::http::Link;
use super::{Cursor, Data, Endpoint, Error};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, header};
use longwire_core::log::{Key, Topic};
use longwire_core::session::publisher::PublicationId;
use longwire_core::session::{self, cbor, json};

/// Publishes one event by POST, and returns its position: every reader of this gateway can see it by then.
///
/// A dropped future gives up; the event may or may not have been taken.
///
/// # Errors
/// [`Error::Name`], [`Error::Data`] before anything is sent; [`Error::Refused`]; [`Error::Silence`] after
/// [`Endpoint::open_timeout`].
pub async fn publish(
    endpoint: &Endpoint,
    topic: &str,
    key: Option<&str>,
    data: &Data,
) -> Result<Cursor, Error> {
    check(topic, key, data)?;
    let posting = async {
        endpoint.tokens.prepare(false).await?;
        let mut link = Link::open(endpoint).await?;
        post(&mut link, endpoint, topic, key, data, None).await
    };
    let limit = endpoint.open_timeout;
    let posted = tokio::time::timeout(limit, posting).await.map_err(|_| Error::Silence(limit))??;
    posted.at.ok_or_else(no_position)
}

fn no_position() -> Error {
    Error::Protocol("the answer to a publication has no position".to_owned())
}

/// One POST, over a connection that stands. The answer has a position, unless the gateway had the publication
/// already, by its number, and does not know it any more.
pub(super) async fn post(
    link: &mut Link,
    endpoint: &Endpoint,
    topic: &str,
    key: Option<&str>,
    data: &Data,
    id: Option<PublicationId>,
) -> Result<json::Published, Error> {
    let mut path = endpoint.path("/v1/topics/");
    encode(&mut path, topic);
    if let Some(key) = key {
        path.push_str("?key=");
        encode(&mut path, key);
    }
    let (kind, body) = match data {
        Data::Json(json) => ("application/json", json),
        Data::Cbor(cbor) => ("application/cbor", cbor),
        Data::Bytes { content_type, bytes } => {
            (content_type.as_deref().unwrap_or("application/octet-stream"), bytes)
        }
    };
    let mut request = Request::post(path).header(header::CONTENT_TYPE, kind);
    if let Some(id) = id {
        request = request.header("Idempotency-Key", id.to_string());
    }
    let request = request.body(Full::new(body.clone()));
    let request = request.map_err(|error| Error::Protocol(error.to_string()))?;
    let response = link.send(endpoint, request).await?;
    if response.status() != 200 {
        return Err(link.refused(response).await);
    }
    let repeated = response.headers().get("longwire-repeated").is_some_and(|value| value == "true");
    let body = link.body(response.into_body(), 4096).await?;
    let answer = json::decode_published(&body).map_err(|_| no_position())?;
    if answer.at.is_none() && !repeated { Err(no_position()) } else { Ok(answer) }
}

/// What can be known to be wrong before it is sent.
pub(super) fn check(topic: &str, key: Option<&str>, data: &Data) -> Result<(), Error> {
    Topic::parse(topic).map_err(|error| Error::Name(topic.to_owned(), error))?;
    if let Some(key) = key {
        Key::parse(key).map_err(|error| Error::Name(key.to_owned(), error))?;
    }
    match data {
        Data::Json(json) => json::validate(json).map_err(|error| Error::Data(error.to_string())),
        Data::Cbor(cbor) => cbor::validate(cbor).map_err(|error| Error::Data(error.to_string())),
        Data::Bytes { .. } => Ok(()),
    }
}

impl Data {
    /// A text, as a JSON string.
    pub fn text(text: &str) -> Self {
        let mut out = Vec::with_capacity(text.len() + 2);
        let mut sink = |piece: &[u8]| {
            out.extend_from_slice(piece);
            Ok(())
        };
        // The sink takes everything.
        let _ = json::write_string(text, &mut sink);
        Self::Json(Bytes::from(out))
    }

    /// One JSON value.
    ///
    /// # Errors
    /// [`Error::Data`] when it is none.
    pub fn json(json: impl Into<Bytes>) -> Result<Self, Error> {
        let json = json.into();
        json::validate(&json).map_err(|error| Error::Data(error.to_string()))?;
        Ok(Self::Json(json))
    }

    /// One CBOR data item.
    ///
    /// # Errors
    /// [`Error::Data`] when it is none.
    pub fn cbor(cbor: impl Into<Bytes>) -> Result<Self, Error> {
        let cbor = cbor.into();
        cbor::validate(&cbor).map_err(|error| Error::Data(error.to_string()))?;
        Ok(Self::Cbor(cbor))
    }

    /// Bytes that the value takes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Json(bytes) | Self::Cbor(bytes) => bytes.len(),
            Self::Bytes { content_type, bytes } => {
                bytes.len().saturating_add(content_type.as_ref().map_or(0, String::len))
            }
        }
    }

    pub(super) fn borrowed(&self) -> session::Data<'_> {
        match self {
            Self::Json(json) => session::Data::Json(json),
            Self::Cbor(cbor) => session::Data::Cbor(cbor),
            Self::Bytes { content_type, bytes } => session::Data::Bytes {
                content_type: content_type.as_deref().map(Into::into),
                bytes: bytes.as_ref().into(),
            },
        }
    }
}
