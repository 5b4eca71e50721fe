//! One connection of a subscriber, over one transport: opened, then asked for what arrives.

use super::endpoint::encode;
use super::http::Link;
use super::item::{Arrival, Hello};
use super::polls::Polls;
use super::socket::Socket;
use super::sse::EventStream;
use super::{Endpoint, Error, Form, Policy, Since};
use crate::net::NetStream;
use http_body_util::Full;
use hyper::Request;
use longwire_core::session::ladder::Rung;
use std::time::Duration;

/// How long a connection may take to be closed.
const CLOSE: Duration = Duration::from_secs(1);

pub(super) enum Session {
    WebSocket(Box<Socket>),
    Sse(Box<Stream>),
    Poll(Box<Polls>),
}

/// What a subscriber asks for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) topics: Vec<String>,
    pub(super) since: Since,
    pub(super) policy: Option<Policy>,
    pub(super) form: Form,
    pub(super) poll_interval: Duration,
}

impl Asked {
    /// The URL's path and query.
    pub(super) fn path(&self, endpoint: &Endpoint, more: &str) -> String {
        let mut path = endpoint.path("/v1/stream?since=");
        path.push_str(&self.since.to_string());
        for topic in &self.topics {
            path.push_str("&topic=");
            encode(&mut path, topic);
        }
        if let Some(policy) = self.policy {
            path.push_str("&policy=");
            path.push_str(policy.as_str());
        }
        path.push_str(more);
        path
    }
}

impl Session {
    /// Opens a transport over a connection that stands, and hears the gateway's first word: only then it is known to work.
    pub(super) async fn open(
        rung: Rung,
        stream: NetStream,
        endpoint: &Endpoint,
        asked: Asked,
        wait: Duration,
    ) -> Result<(Self, Hello), Error> {
        match rung {
            Rung::WebSocket => {
                let path = asked.path(endpoint, "");
                let (socket, hello) = Socket::open(stream, endpoint, &path, asked.form).await?;
                Ok((Self::WebSocket(Box::new(socket)), hello))
            }
            Rung::Sse => {
                let (stream, hello) = Stream::open(Link::over(stream).await?, endpoint, &asked).await?;
                Ok((Self::Sse(Box::new(stream)), hello))
            }
            Rung::LongPoll | Rung::Poll => {
                let wait = (rung == Rung::LongPoll).then_some(wait);
                let polls = Polls::open(Link::over(stream).await?, endpoint, asked, wait).await?;
                let session = String::new();
                let hello = Hello { session, heartbeat: None, window: None, max_inflight: 0, max_message: 0 };
                Ok((Self::Poll(Box::new(polls)), hello))
            }
        }
    }

    /// What arrives next; a sign of life is [`Arrival::Other`]. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Arrival, Error> {
        match self {
            Self::WebSocket(socket) => socket.next().await,
            Self::Sse(stream) => stream.next().await,
            Self::Poll(polls) => polls.next().await,
        }
    }

    /// Sends a Ping; the other transports have none.
    pub(super) fn ping(&mut self) {
        if let Self::WebSocket(socket) = self {
            socket.ping();
        }
    }

    /// How long the gateway's last answer to a Ping took. Only WebSocket has them.
    pub(super) fn rtt(&self) -> Option<Duration> {
        match self {
            Self::WebSocket(socket) => socket.rtt(),
            Self::Sse(_) | Self::Poll(_) => None,
        }
    }

    /// Shows the endpoint's present credential in band (section 8.4), where that can be done.
    pub(super) async fn renew(&mut self, endpoint: &Endpoint) -> Result<(), Error> {
        match self {
            Self::WebSocket(socket) => socket.renew(endpoint).await,
            // It was shown beside the stream; a poll shows it the next time anyway.
            Self::Sse(_) | Self::Poll(_) => Ok(()),
        }
    }

    /// The path by which it is shown beside the stream, where that is how it is done.
    pub(super) fn renewal_path(&self, endpoint: &Endpoint) -> Option<String> {
        let Self::Sse(stream) = self else { return None };
        let mut path = endpoint.path("/v1/session/");
        encode(&mut path, &stream.session);
        path.push_str("/auth");
        Some(path)
    }

    /// Takes leave, in bounded time.
    pub(super) async fn close(self) {
        if let Self::WebSocket(socket) = self {
            let _ = tokio::time::timeout(CLOSE, socket.close()).await;
        }
    }
}

/// SSE (section 7).
pub(super) struct Stream {
    events: EventStream,
    session: String,
}

impl Stream {
    async fn open(link: Link, endpoint: &Endpoint, asked: &Asked) -> Result<(Self, Hello), Error> {
        let events = EventStream::open(link, endpoint, &asked.path(endpoint, ""), &[]).await?;
        let mut stream = Self { events, session: String::new() };
        match stream.next().await? {
            Arrival::Hello(hello) => {
                stream.session.clone_from(&hello.session);
                Ok((stream, hello))
            }
            // A refusal that can change in time has status 200, so that an EventSource comes back.
            Arrival::Bye(refusal) => Err(Error::Refused(refusal)),
            _ => Err(Error::Protocol("the first event is no `hello`".to_owned())),
        }
    }

    async fn next(&mut self) -> Result<Arrival, Error> {
        match self.events.next().await? {
            Some(event) => Form::Json.decode(event.data),
            None => Err(Error::Ended),
        }
    }
}

/// Shows the endpoint's present credential beside a stream (section 8.4).
pub(super) async fn renew_beside(endpoint: &Endpoint, path: String) -> Result<(), Error> {
    let request = Request::post(path).body(Full::default());
    let request = request.map_err(|error| Error::Protocol(error.to_string()))?;
    let mut link = Link::open(endpoint).await?;
    let response = link.send(endpoint, request).await?;
    if response.status().is_success() { Ok(()) } else { Err(link.refused(response).await) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_subscription() {
        let endpoint = Endpoint::new("http://a/base").unwrap();
        let topics = vec!["fleet/**".to_owned(), "a&b".to_owned()];
        let mut asked = Asked {
            topics,
            since: Since::Latest,
            policy: None,
            form: Form::Json,
            poll_interval: Duration::ZERO,
        };
        let path = asked.path(&endpoint, "&wait=25");
        assert_eq!(path, "/base/v1/stream?since=latest&topic=fleet/**&topic=a%26b&wait=25");
        (asked.since, asked.policy) = (Since::Now, Some(Policy::Conflate));
        let path = asked.path(&endpoint, "");
        assert_eq!(path, "/base/v1/stream?since=now&topic=fleet/**&topic=a%26b&policy=conflate");
    }
}
