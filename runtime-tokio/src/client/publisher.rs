//! Publishing: one event by POST, or many over one WebSocket.

use super::endpoint::encode;
use super::http::Link;
use super::item::Arrival;
use super::session::Socket;
use super::{Cursor, Data, Endpoint, Error};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, header};
use longwire_core::log::{Key, Topic};
use longwire_core::session::{self, ClientMessage, json};
use std::collections::BTreeSet;

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
    let mut path = endpoint.path("/v1/topics/");
    encode(&mut path, topic);
    if let Some(key) = key {
        path.push_str("?key=");
        encode(&mut path, key);
    }
    let (kind, body) = match data {
        Data::Json(json) => ("application/json", json),
        Data::Bytes { content_type, bytes } => {
            (content_type.as_deref().unwrap_or("application/octet-stream"), bytes)
        }
    };
    let request = Request::post(path).header(header::CONTENT_TYPE, kind).body(Full::new(body.clone()));
    let request = request.map_err(|error| Error::Protocol(error.to_string()))?;
    let posting = async {
        let mut link = Link::open(endpoint).await?;
        let response = link.send(endpoint, request).await?;
        if response.status() != 200 {
            return Err(link.refused(response).await);
        }
        let body = link.body(response.into_body(), 4096).await?;
        let answer: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
        let at = answer.as_ref().and_then(|answer| answer.get("at")?.as_str());
        at.and_then(|at| Cursor::parse(at).ok())
            .ok_or_else(|| Error::Protocol("the answer to a publication has no position".to_owned()))
    };
    let limit = endpoint.open_timeout;
    tokio::time::timeout(limit, posting).await.map_err(|_| Error::Silence(limit))?
}

/// Publishes over one WebSocket, many at a time. It does not reconnect: what was not acknowledged when the connection
/// ends may or may not have been taken.
pub struct Publisher {
    socket: Socket,
    ledger: Ledger,
    /// Most that may be unsettled.
    max_inflight: u64,
}

/// Which publications are settled.
#[derive(Debug, Default)]
struct Ledger {
    /// The number of the last one that was sent.
    sent: u64,
    /// All up to here are settled.
    settled: u64,
    /// Refused ones that come after that.
    refused: BTreeSet<u64>,
    /// How many were taken.
    taken: u64,
}

impl Ledger {
    fn inflight(&self) -> u64 {
        self.sent.saturating_sub(self.settled).saturating_sub(self.refused.len() as u64)
    }

    /// All up to `n` are settled: taken, but for those that were refused.
    fn acknowledge(&mut self, n: u64) {
        let n = n.min(self.sent);
        if n > self.settled {
            let later = self.refused.split_off(&(n + 1));
            self.taken += (n - self.settled).saturating_sub(self.refused.len() as u64);
            self.refused = later;
            self.settled = n;
        }
    }

    /// `n` was refused, which settles it alone. A number that was never sent does not count.
    fn refuse(&mut self, n: u64) {
        if (self.settled + 1..=self.sent).contains(&n) {
            self.refused.insert(n);
        }
    }
}

impl Publisher {
    /// Most publications that are sent ahead of their acknowledgements, if the gateway allows as many.
    pub const MAX_INFLIGHT: u64 = 64;

    /// Connects.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Io`], [`Error::WebSocket`]; [`Error::Silence`] after [`Endpoint::open_timeout`].
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, Error> {
        let limit = endpoint.open_timeout;
        let connecting = async {
            let mut socket = Socket::connect(endpoint, &endpoint.path("/v1/stream")).await?;
            let max_inflight = match socket.next().await? {
                Arrival::Hello { max_inflight, .. } => max_inflight,
                Arrival::Bye(refusal) => return Err(Error::Refused(refusal).into()),
                _ => return Err(Error::Protocol("the first message is no `hello`".to_owned()).into()),
            };
            Ok::<_, super::session::End>(Self {
                socket,
                ledger: Ledger::default(),
                max_inflight: max_inflight.clamp(1, Self::MAX_INFLIGHT),
            })
        };
        let connected = tokio::time::timeout(limit, connecting).await.map_err(|_| Error::Silence(limit))?;
        connected.map_err(|end| end.error)
    }

    /// Publishes an event, and returns its number on this connection. It goes out with others, when
    /// [`flush`](Self::flush) or [`settle`](Self::settle) is called or when too many are unacknowledged: then it waits.
    ///
    /// Cancel-safe: when dropped, the event was not taken; when ready, it was.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Data`]: nothing was taken. [`Error::Refused`] with the number of an earlier publication
    /// (`n`) that the gateway refused: this one was not taken and can be tried again. Any other ends the connection.
    pub async fn publish(&mut self, topic: &str, key: Option<&str>, data: &Data) -> Result<u64, Error> {
        check(topic, key, data)?;
        while self.inflight() >= self.max_inflight {
            self.settle().await?;
        }
        let n = self.ledger.sent + 1;
        let message = ClientMessage::Pub {
            n: Some(n),
            topic: topic.into(),
            key: key.map(Into::into),
            data: match data {
                Data::Json(json) => session::Data::Json(json),
                Data::Bytes { content_type, bytes } => session::Data::Bytes {
                    content_type: content_type.as_deref().map(Into::into),
                    bytes: bytes.as_ref().into(),
                },
            },
        };
        let mut text = Vec::new();
        let mut sink = |piece: &[u8]| {
            text.extend_from_slice(piece);
            Ok(())
        };
        json::encode_client(&message, &mut sink).map_err(|error| Error::Data(error.to_string()))?;
        let text = String::from_utf8(text).map_err(|error| Error::Data(error.to_string()))?;
        self.socket.socket.feed(text).await?;
        self.ledger.sent = n;
        Ok(n)
    }

    /// Publications that are not settled.
    pub fn inflight(&self) -> u64 {
        self.ledger.inflight()
    }

    /// Publications that were taken.
    pub fn taken(&self) -> u64 {
        self.ledger.taken
    }

    /// How long the gateway's last answer to a Ping took: one is sent when it greets, and whenever it asks for a sign of
    /// life. `None` before the first answer.
    pub fn rtt(&self) -> Option<std::time::Duration> {
        self.socket.echo.rtt
    }

    /// Sends what was published, and waits until all of it is settled.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn flush(&mut self) -> Result<(), Error> {
        while self.inflight() > 0 {
            self.settle().await?;
        }
        Ok(())
    }

    /// Sends what was published, and waits for the gateway's next word. Awaiting it while there is nothing to be
    /// published keeps the connection alive.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn settle(&mut self) -> Result<(), Error> {
        match self.socket.next().await.map_err(|end| end.error)? {
            Arrival::Ack(n) => self.ledger.acknowledge(n),
            Arrival::Nack(refusal) => {
                self.ledger.refuse(refusal.n.unwrap_or_default());
                return Err(Error::Refused(refusal));
            }
            Arrival::Bye(refusal) | Arrival::Error(refusal) => return Err(Error::Refused(refusal)),
            _ => {}
        }
        Ok(())
    }

    /// Waits until everything is settled, and closes the connection.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn close(mut self) -> Result<(), Error> {
        let flushed = self.flush().await;
        super::session::Session::WebSocket(Box::new(self.socket)).close().await;
        flushed
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

/// What can be known to be wrong before it is sent.
fn check(topic: &str, key: Option<&str>, data: &Data) -> Result<(), Error> {
    Topic::parse(topic).map_err(|error| Error::Name(topic.to_owned(), error))?;
    if let Some(key) = key {
        Key::parse(key).map_err(|error| Error::Name(key.to_owned(), error))?;
    }
    match data {
        Data::Json(json) => json::validate(json).map_err(|error| Error::Data(error.to_string())),
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_are_cumulative_and_refusals_settle_their_own() {
        let mut ledger = Ledger { sent: 6, ..Ledger::default() };
        ledger.refuse(2);
        ledger.refuse(5);
        assert_eq!((ledger.inflight(), ledger.taken), (4, 0));
        ledger.acknowledge(3);
        assert_eq!((ledger.inflight(), ledger.taken), (2, 2));
        // Late, repeated, and about what was never sent.
        ledger.acknowledge(1);
        ledger.refuse(3);
        ledger.refuse(5);
        ledger.refuse(7);
        assert_eq!((ledger.inflight(), ledger.taken), (2, 2));
        ledger.acknowledge(99);
        assert_eq!((ledger.inflight(), ledger.taken, ledger.settled), (0, 4, 6));
    }
}
