//! An event stream over HTTP.

use super::http::{Link, get};
use super::{Endpoint, Error};
use crate::net::{Target, rustls::ClientConfig};
use crate::websocket::buffers::Rx;
use hyper::body::Incoming;
use hyper::header;
use longwire_core::sse::{Decoder, SseEvent, Step};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How an event stream is asked for, and what it may cost.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EventStreamOptions {
    /// Further header fields, names and values: `("Last-Event-ID", "7")`.
    pub headers: Vec<(String, String)>,
    /// TLS for `https://`. `None` trusts the certificate authorities that Mozilla trusts.
    pub tls: Option<Arc<ClientConfig>>,
    /// Most bytes of one event, as the [decoder](Decoder::new) counts them. Default 4 MiB. One that is larger ends the
    /// stream.
    pub max_event: usize,
    /// How long connecting may take, up to the head of the answer. Default 10 s.
    pub open_timeout: Duration,
}

impl Default for EventStreamOptions {
    fn default() -> Self {
        Self {
            headers: Vec::new(),
            tls: None,
            max_event: Endpoint::MAX_MESSAGE,
            open_timeout: Endpoint::OPEN_TIMEOUT,
        }
    }
}

impl EventStreamOptions {
    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the TLS configuration.
    #[must_use]
    pub fn tls(mut self, config: impl Into<Arc<ClientConfig>>) -> Self {
        self.tls = Some(config.into());
        self
    }

    /// Sets how large an event may be.
    #[must_use]
    pub fn max_event(self, max_event: usize) -> Self {
        Self { max_event, ..self }
    }

    /// Sets how long connecting may take.
    #[must_use]
    pub fn open_timeout(self, open_timeout: Duration) -> Self {
        Self { open_timeout, ..self }
    }
}

/// Server-Sent Events of any server (WHATWG HTML section 9.2): one connection, without reconnecting.
///
/// ```no_run
/// use longwire::client::{EventStream, EventStreamOptions};
///
/// # async fn run() -> Result<(), longwire::client::Error> {
/// let options = EventStreamOptions::default().header("Last-Event-ID", "7");
/// let mut events = EventStream::connect("https://example.org/events", &options).await?;
/// while let Some(event) = events.next().await? {
///     println!("{}", String::from_utf8_lossy(event.data));
/// }
/// # Ok(()) }
/// ```
pub struct EventStream {
    link: Link,
    body: Incoming,
    decoder: Decoder,
    rx: Rx,
}

impl EventStream {
    /// Asks for the stream at an `http://` or `https://` URL. Redirects are not followed.
    ///
    /// A dropped future gives up: no connection remains.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Header`], [`Error::Io`], [`Error::Http`], [`Error::Refused`] at any status but 200,
    /// [`Error::NoEventStream`], [`Error::Silence`] after [`open_timeout`](EventStreamOptions::open_timeout).
    pub async fn connect(url: &str, options: &EventStreamOptions) -> Result<Self, Error> {
        let schemes = (&[("http", false), ("https", true)][..], "http:// and https://");
        let mut endpoint = Endpoint::of(Target::parse(url, schemes)?);
        endpoint.tls.clone_from(&options.tls);
        endpoint.max_message = options.max_event;
        let (path, limit) = (endpoint.target.path.clone(), options.open_timeout);
        let opening =
            async { Self::open(Link::open(&endpoint).await?, &endpoint, &path, &options.headers).await };
        tokio::time::timeout(limit, opening).await.map_err(|_| Error::Silence(limit))?
    }

    /// Asks for the stream at `path`.
    pub(super) async fn open(
        mut link: Link,
        endpoint: &Endpoint,
        path: &str,
        headers: &[(String, String)],
    ) -> Result<Self, Error> {
        let mut request = get(path, "text/event-stream")?;
        for (name, value) in headers {
            let bad = || Error::Header(name.clone());
            let name = header::HeaderName::try_from(name.as_str()).map_err(|_| bad())?;
            let value = header::HeaderValue::try_from(value.as_str()).map_err(|_| bad())?;
            request.headers_mut().append(name, value);
        }
        let response = link.send(endpoint, request).await?;
        if response.status() != 200 {
            return Err(link.refused(response).await);
        }
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let essence = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("text/event-stream") {
            return Err(Error::NoEventStream(kind.unwrap_or("no content type").to_owned()));
        }
        let decoder = Decoder::new(endpoint.max_message);
        Ok(Self { link, body: response.into_body(), decoder, rx: Rx::default() })
    }

    /// The next event, borrowed from the receive buffer; `None` at the end of the stream.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Http`] when the connection fails, [`Error::Protocol`] when an event is too large.
    pub async fn next(&mut self) -> Result<Option<SseEvent<'_>>, Error> {
        loop {
            match self.decoder.poll(&mut self.rx.lend()) {
                Ok(Step::Event) => break,
                // What is held is bounded by the decoder's limit; room for the next piece is all that it needs.
                Ok(Step::NeedInput | Step::NeedSpace) => {
                    self.rx.release();
                    match self.link.piece(&mut self.body).await? {
                        Some(piece) => self.rx.extend(&piece),
                        None => return Ok(None),
                    }
                }
                Err(error) => return Err(Error::Protocol(error.to_string())),
            }
        }
        Ok(Some(self.decoder.event(self.rx.lend())))
    }

    /// How long the server wants its readers to wait before they come back (`retry`), if it said so.
    pub fn retry(&self) -> Option<Duration> {
        self.decoder.retry()
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("decoder", &self.decoder).finish_non_exhaustive()
    }
}
