//! A gateway to talk to, and the plainest of clients.

use longwire::gateway::{Gateway, GatewayConfig};
use longwire::hub::{Authorize, Data, Hub, HubConfig, Open};
use longwire_core::log::{Key, Topic};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// After this a test has hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Gives up a test that hangs.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("the test hangs")
}

/// A time to wait, as an `EventSource` is told it (drawn from one to two windows), and what follows.
pub(crate) fn assert_retry(text: &str, rest: &str) {
    let (retry, after) = text.strip_prefix("retry: ").and_then(|text| text.split_once('\n')).expect(text);
    assert!((5000..=10_000).contains(&retry.parse::<u64>().unwrap()), "{text}");
    assert!(after.starts_with(&rest[1..]), "{text}");
}

/// A gateway that serves.
pub(crate) struct Served {
    pub(crate) gateway: Gateway,
    pub(crate) address: SocketAddr,
}

impl Served {
    pub(crate) async fn open() -> Self {
        Self::with(GatewayConfig::default(), HubConfig::default(), Open).await
    }

    pub(crate) async fn with(gateway: GatewayConfig, hub: HubConfig, authorize: impl Authorize) -> Self {
        let hub = Hub::start(HubConfig { shards: 2, ..hub }, Arc::new(authorize)).unwrap();
        let gateway = Gateway::new(hub, gateway);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn({
            let gateway = gateway.clone();
            async move { gateway.serve(listener).await }
        });
        Self { gateway, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), unread: Vec::new() }
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, request: &[u8]) -> Answer {
        let mut client = self.connect().await;
        client.send(request).await;
        client.answer().await
    }

    /// `GET`, with further header lines (each with its line end).
    pub(crate) async fn get(&self, target: &str, headers: &str) -> Answer {
        self.ask(self.request("GET", target, headers, b"").as_slice()).await
    }

    /// `POST`, with the content type.
    pub(crate) async fn post(&self, target: &str, content_type: &str, body: &[u8]) -> Answer {
        let headers = format!("Content-Type: {content_type}\r\n");
        self.ask(&self.request("POST", target, &headers, body)).await
    }

    pub(crate) fn request(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        let length = match body {
            b"" => String::new(),
            body => format!("Content-Length: {}\r\n", body.len()),
        };
        let host = self.address;
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{headers}{length}\r\n");
        [head.as_bytes(), body].concat()
    }

    /// An opening handshake, with further header lines.
    pub(crate) fn handshake(&self, target: &str, headers: &str) -> Vec<u8> {
        self.request("GET", target, &format!("{UPGRADE}{headers}"), b"")
    }

    /// Publishes a JSON value, and returns its position.
    pub(crate) async fn publish(&self, topic: &str, key: Option<&str>, json: &str) -> String {
        let data = Data::json(json.as_bytes()).unwrap();
        let key = key.map(|key| Key::parse(key).unwrap());
        let at = self.gateway.hub().publish(Topic::parse(topic).unwrap(), key, data).await.unwrap();
        at.to_text().as_str().to_owned()
    }

    /// What the log has of a topic whose values are numbers, in order; with header lines, if it asks for a credential.
    pub(crate) async fn numbers(&self, topic: &str, headers: &str) -> Vec<u64> {
        let (mut numbers, mut since) = (Vec::new(), self.cursor(0));
        loop {
            let answer = self.get(&format!("/v1/stream?topic={topic}&since={since}"), headers).await;
            if answer.status == 204 {
                return numbers;
            }
            let json = answer.json();
            assert!(json.get("gap").is_none(), "{json}");
            numbers.extend(answer.events().iter().map(|(_, _, data)| data.as_u64().unwrap()));
            since = answer.next();
        }
    }

    /// The cursor of a position.
    pub(crate) fn cursor(&self, seq: u64) -> String {
        self.gateway.hub().log().cursor(seq).to_text().as_str().to_owned()
    }
}

pub(crate) const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A connection.
pub(crate) struct Client<S = TcpStream> {
    pub(crate) stream: S,
    pub(crate) unread: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Reads more; false at the end of the stream.
    pub(crate) async fn read(&mut self) -> bool {
        let mut piece = [0; 4096];
        let n = within(self.stream.read(&mut piece)).await.unwrap();
        self.unread.extend_from_slice(&piece[..n]);
        n > 0
    }

    /// Reads up to and with a mark.
    pub(crate) async fn until(&mut self, mark: &str) -> String {
        loop {
            if let Some(at) = self.unread.windows(mark.len()).position(|window| window == mark.as_bytes()) {
                let rest = self.unread.split_off(at + mark.len());
                return String::from_utf8_lossy(&std::mem::replace(&mut self.unread, rest)).into_owned();
            }
            assert!(
                self.read().await,
                "{mark:?} did not come, but {:?}",
                String::from_utf8_lossy(&self.unread)
            );
        }
    }

    /// Reads to the end of the stream.
    pub(crate) async fn rest(&mut self) -> String {
        while self.read().await {}
        String::from_utf8(std::mem::take(&mut self.unread)).unwrap()
    }

    /// Reads to the end of the stream, or until it is reset.
    pub(crate) async fn read_all(&mut self) -> Vec<u8> {
        // What was read before a reset counts.
        let _ = within(self.stream.read_to_end(&mut self.unread)).await;
        std::mem::take(&mut self.unread)
    }

    /// Reads the head of a response.
    pub(crate) async fn head(&mut self) -> Answer {
        let head = self.until("\r\n\r\n").await;
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let fields = lines.take_while(|line| !line.is_empty()).map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        });
        Answer { status, fields: fields.collect(), body: String::new() }
    }

    /// Reads a response with a body of known length, or one that ends with the connection.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        if matches!(answer.status, 101 | 204 | 304) {
            return answer;
        }
        let Some(length) = answer.field("content-length") else {
            assert_eq!(answer.field("transfer-encoding"), None, "{answer:?}");
            answer.body = self.rest().await;
            return answer;
        };
        let length: usize = length.parse().unwrap();
        while self.unread.len() < length {
            assert!(self.read().await, "the body is cut off: {answer:?}");
        }
        let rest = self.unread.split_off(length);
        answer.body = String::from_utf8(std::mem::replace(&mut self.unread, rest)).unwrap();
        answer
    }
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header field, of which there is at most one.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} twice in {self:?}");
        value
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of a refusal, whose form is checked.
    pub(crate) fn code(&self) -> String {
        let json = self.json();
        assert_eq!(self.field("content-type"), Some("application/json"), "{self:?}");
        assert_eq!(self.field("cache-control"), Some("no-store"), "{self:?}");
        assert!(json["message"].is_string() && json["permanent"].is_boolean(), "{self:?}");
        assert_eq!(json["retry_after"].is_null(), self.field("retry-after").is_none(), "{self:?}");
        json["code"].as_str().unwrap_or_default().to_owned()
    }

    /// What a poll answered: topics, positions and data.
    pub(crate) fn events(&self) -> Vec<(String, String, Value)> {
        assert_eq!(self.status, 200, "{self:?}");
        let json = self.json();
        let events = json["events"].as_array().unwrap().iter().map(|event| {
            assert_eq!(event["type"], "event");
            let position = event["at"].as_str().or(event["past"].as_str()).unwrap();
            (event["topic"].as_str().unwrap().to_owned(), position.to_owned(), event["data"].clone())
        });
        events.collect()
    }

    pub(crate) fn next(&self) -> String {
        self.json()["next"].as_str().unwrap().to_owned()
    }
}
