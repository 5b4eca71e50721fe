//! Refusals (`PROTOCOL.md` section 9), as HTTP says them and as SSE does.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use longwire_core::buf::{TxBuf, TxCursor};
use longwire_core::http::head::HeadError;
use longwire_core::http::write;
use longwire_core::log::{CursorError, NameError};
use longwire_core::session::{self, Code, Full, Refusal, ServerMessage, json};
use longwire_core::sse::Fields;
use std::borrow::Cow;
use std::time::Duration;

/// A header field of a response.
pub(super) type Field = (&'static str, Cow<'static, str>);

/// A request that is refused: why, and what the response says beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: Code,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
    pub(super) fields: Vec<Field>,
}

impl Refused {
    pub(super) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), retry_after: None, fields: Vec::new() }
    }

    pub(super) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::BadRequest, message)
    }

    /// A body above `max_message` bytes.
    pub(super) fn too_big(max_message: u64) -> Self {
        Self::new(Code::MessageTooBig, format!("the body has more than {max_message} bytes (max_message)"))
    }

    /// The same, with a time before which nobody should come back.
    pub(super) fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        // In whole seconds, and not earlier.
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.with("Retry-After", seconds.to_string())
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    pub(super) fn status(&self) -> u16 {
        // What only happens on open WebSockets is never the answer to a request.
        self.code.http_status().unwrap_or(500)
    }

    fn refusal(&self) -> Refusal<'_> {
        Refusal { retry_after: self.retry_after, ..Refusal::new(self.code, &self.message) }
    }

    fn body(&self) -> Vec<u8> {
        grown(|sink| json::encode_refusal(&self.refusal(), sink))
    }

    /// Whether a client of SSE is told in an event: a refusal that can change in time. At any status other than 200 an
    /// `EventSource` stops for ever.
    pub(super) fn is_told_in_event(&self) -> bool {
        use Code::{Draining, Forbidden, TooManyConnections, Unauthorized, Unavailable};
        matches!(self.code, Unauthorized | Forbidden | TooManyConnections | Unavailable | Draining)
    }

    /// The whole stream that says so: `retry`, `bye`, and the end.
    pub(super) fn stream(&self, retry: Duration) -> Vec<u8> {
        let bye = ServerMessage::Bye { refusal: self.refusal(), window: None };
        let envelope = grown(|sink| json::encode_server(&bye, sink));
        let retry = Some(self.retry_after.unwrap_or(retry));
        let event = Fields { name: Some("bye"), retry, ..Fields::event(&envelope) };
        // Line breaks in names and ids are refused, and there are none.
        event.parts().into_iter().flatten().flatten().copied().collect()
    }

    /// The whole response, after which the connection ends.
    pub(super) fn response_bytes(&self) -> Vec<u8> {
        let fields = self.fields.iter().map(|(name, value)| (*name, &**value));
        let own = [("Content-Type", "application/json"), ("Cache-Control", "no-store")];
        let fields: Vec<_> = own.into_iter().chain(fields).collect();
        let body = self.body();
        let body = String::from_utf8_lossy(&body);
        written(|tx| write::refusal(tx, self.status(), &fields, &body))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = StatusCode::from_u16(self.status()).unwrap_or_default();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        put_all(headers, self.fields);
        response
    }
}

/// Adds fields to a response. What no header can carry is left out: nothing of it comes from a request unchecked.
pub(super) fn put_all(headers: &mut http::HeaderMap, fields: impl IntoIterator<Item = Field>) {
    for (name, value) in fields {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(&*value)) {
            headers.append(name, value);
        }
    }
}

/// What an encoder writes, in a buffer that grows.
pub(super) fn grown<E>(encode: impl FnOnce(&mut dyn session::Sink) -> Result<(), E>) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    let mut sink = |piece: &[u8]| -> Result<(), Full> {
        out.extend_from_slice(piece);
        Ok(())
    };
    // It never gets full, and there is nothing else in a refusal that could fail.
    let _ = encode(&mut sink);
    out
}

/// What a writer of heads writes, in a buffer that is as large as it has to be. Empty when the writer refuses what is
/// to be written; all of it comes from here, and is well formed.
pub(super) fn written(mut write: impl FnMut(&mut TxBuf<'_>) -> Result<(), write::WriteError>) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    loop {
        let mut at = TxCursor::default();
        let mut tx = TxBuf::new(&mut bytes, &mut at);
        let result = write(&mut tx);
        let len = tx.pending().len();
        match result {
            Err(write::WriteError::Full) if bytes.len() < 1 << 20 => bytes.resize(bytes.len() * 2, 0),
            other => {
                debug_assert_eq!(other, Ok(()));
                bytes.truncate(len);
                return bytes;
            }
        }
    }
}

impl From<NameError> for Refused {
    fn from(error: NameError) -> Self {
        Self::new(Code::BadTopic, error.as_str())
    }
}

impl From<CursorError> for Refused {
    fn from(error: CursorError) -> Self {
        Self::new(Code::BadCursor, error.to_string())
    }
}

impl From<HeadError> for Refused {
    fn from(error: HeadError) -> Self {
        use HeadError::{NameTooLong, TargetTooLong, TooLong, TooManyHeaders, ValueTooLong};
        let code = match error {
            TooLong | TooManyHeaders | NameTooLong | ValueTooLong => Code::HeadTooLarge,
            TargetTooLong => Code::UriTooLong,
            _ => Code::BadRequest,
        };
        Self::new(code, error.as_str())
    }
}

impl From<Refusal<'static>> for Refused {
    fn from(refusal: Refusal<'static>) -> Self {
        let refused = Self::new(refusal.code().unwrap_or(Code::Internal), refusal.message.to_string());
        refusal.retry_after.into_iter().fold(refused, Self::retry_after)
    }
}
