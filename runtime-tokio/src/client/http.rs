//! HTTP/1.1 through hyper, on a connection of our own.

use super::{Endpoint, Error, Refusal};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use longwire_core::session::json;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::time::Duration;

use crate::net::NetStream;

/// Bytes of a refusal's body that are read.
const MAX_REFUSAL: usize = 4096;

type Connection = http1::Connection<TokioIo<NetStream>, Full<Bytes>>;

/// One connection. It is driven by whoever awaits an answer: nothing is spawned, and dropping it ends it.
pub(crate) struct Link {
    sender: SendRequest<Full<Bytes>>,
    connection: Option<Pin<Box<Connection>>>,
}

impl Link {
    pub(crate) async fn open(endpoint: &Endpoint) -> Result<Self, Error> {
        Self::over(endpoint.connect().await?).await
    }

    /// Over a connection that stands.
    pub(crate) async fn over(stream: NetStream) -> Result<Self, Error> {
        let (sender, connection) =
            http1::Builder::new().max_buf_size(64 << 10).handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, connection: Some(Box::pin(connection)) })
    }

    /// Sends a request, and waits for the head of the answer.
    pub(crate) async fn send(
        &mut self,
        endpoint: &Endpoint,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Error> {
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| Error::Token);
        let headers = request.headers_mut();
        headers.insert(header::HOST, value(&endpoint.target.authority)?);
        if let Some(authorization) = endpoint.authorization() {
            headers.insert(header::AUTHORIZATION, value(&authorization)?);
        }
        let Self { sender, connection } = self;
        drive(connection, sender.ready()).await?;
        Ok(drive(connection, sender.send_request(request)).await?)
    }

    /// The next piece of a body; `None` at its end. Cancel-safe.
    pub(crate) async fn piece(&mut self, body: &mut Incoming) -> Result<Option<Bytes>, Error> {
        loop {
            match drive(&mut self.connection, body.frame()).await {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(piece) = frame?.into_data() {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }

    /// A whole body of at most `max` bytes.
    pub(crate) async fn body(&mut self, mut body: Incoming, max: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece(&mut body).await? {
            if bytes.len().saturating_add(piece.len()) > max {
                return Err(Error::TooBig(max));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// What an answer other than the expected one says.
    pub(crate) async fn refused(&mut self, response: Response<Incoming>) -> Error {
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok().map(Duration::from_secs));
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        // However far it comes, in a second: the status is the news.
        let _ = tokio::time::timeout(Duration::from_secs(1), async {
            while bytes.len() < MAX_REFUSAL && !body.is_end_stream() {
                match self.piece(&mut body).await {
                    Ok(Some(piece)) => bytes.extend_from_slice(&piece),
                    _ => return,
                }
            }
        })
        .await;
        bytes.truncate(MAX_REFUSAL);
        Error::Refused(refusal(status, retry_after, &bytes))
    }
}

/// Works on `work` and on the connection beneath it.
async fn drive<T>(connection: &mut Option<Pin<Box<Connection>>>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        // Its error, if any, comes out of the work as well.
        if connection.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
            *connection = None;
        }
        work.as_mut().poll(cx)
    })
    .await
}

/// A request without a body.
pub(crate) fn get(path: &str, accept: &'static str) -> Result<Request<Full<Bytes>>, Error> {
    let request = Request::get(path).header(header::ACCEPT, accept).body(Full::default());
    request.map_err(|error| Error::Protocol(error.to_string()))
}

/// A refusal as section 9 of the specification has it in HTTP, or whatever else a server said.
pub(super) fn refusal(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Refusal {
    let known = json::decode_refusal(body).ok();
    let known = known.map(|refusal| Refusal { status: Some(status), ..(&refusal).into() });
    let mut refusal = known.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(body);
        let line = text.lines().next().unwrap_or_default().trim();
        let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let html = line.starts_with('<') || line.is_empty();
        Refusal::new(Some(status), "", if html { reason.unwrap_or_default() } else { line })
    });
    refusal.retry_after = refusal.retry_after.or(retry_after);
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_a_gateway_and_of_others() {
        let body = br#"{"code":"draining","message":"soon back","permanent":false,"retry_after":1500}"#;
        let known = refusal(503, Some(Duration::from_secs(2)), body);
        assert_eq!((known.code.as_str(), known.permanent), ("draining", false));
        assert_eq!(known.retry_after, Some(Duration::from_millis(1500)));
        let other = refusal(502, Some(Duration::from_secs(2)), b"<html>");
        assert_eq!(
            (other.code.as_str(), other.message.as_str(), other.permanent),
            ("", "Bad Gateway", false)
        );
        assert_eq!(other.retry_after, Some(Duration::from_secs(2)));
        assert!(refusal(404, None, b"nothing here").permanent);
        assert!(!refusal(429, None, b"").permanent);
    }
}
