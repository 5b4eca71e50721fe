//! What a gateway that is attacked has to do: refuse by the table, and go on serving.

use std::io::{BufReader, Write};
use std::net::SocketAddr;

use serde_json::json;

use crate::gateway::Gateway;
use crate::http::{self, Response};
use crate::ws::Socket;

/// Somebody with good manners, who has to be served whatever the others send.
pub struct Bystander<'a> {
    gateway: &'a Gateway,
    socket: Socket,
    count: u64,
}

impl<'a> Bystander<'a> {
    /// Connects and subscribes.
    pub fn of(gateway: &'a Gateway) -> Self {
        let mut socket = Socket::open(gateway.address, "/v1/stream?topic=bystander", &[]).expect("101");
        socket.envelope_of(&["caught_up"]);
        Self { gateway, socket, count: 0 }
    }

    /// Publishes one event and sees it arrive, on the connection that was open all the time.
    pub fn is_served(&mut self, after: &str) {
        self.count += 1;
        self.gateway.publish("bystander", &json!(self.count));
        let event = self.socket.envelope_of(&["event", "gap", "bye", "error"]);
        assert_eq!(event["data"], json!(self.count), "after {after}: {event}");
    }
}

/// Section 9: the status that belongs to a code, and whether the same again would fail again.
fn status_of(code: &str) -> (u16, bool) {
    match code {
        "bad_request" | "bad_topic" | "bad_cursor" | "bad_data" | "too_many_topics" => (400, true),
        "unauthorized" => (401, true),
        "forbidden" => (403, true),
        "not_found" => (404, true),
        "method_not_allowed" => (405, true),
        "request_timeout" => (408, false),
        "message_too_big" | "state_too_large" => (413, true),
        "uri_too_long" => (414, true),
        "upgrade_required" => (426, true),
        "head_too_large" => (431, true),
        "too_many_connections" => (503, false),
        "topics_full" => (507, false),
        other => panic!("{other} is not in the table"),
    }
}

/// The response is the refusal of this code, with its status and a message.
pub fn assert_refused(what: &str, response: &Response, code: &str) {
    let (status, permanent) = status_of(code);
    assert_eq!(response.status, status, "{what}: {response:?}");
    let refusal = response.json();
    assert_eq!(
        (&refusal["code"], &refusal["permanent"]),
        (&json!(code), &json!(permanent)),
        "{what}: {refusal}"
    );
    assert!(refusal["message"].as_str().is_some_and(|message| !message.is_empty()), "{what}: {refusal}");
}

/// Sends these bytes and reads the response to them.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> Response {
    let mut stream = http::connect(address);
    // A server may refuse before it has read all: its answer counts.
    let _ = stream.write_all(bytes);
    let mut stream = BufReader::new(stream);
    let mut response = http::read_head(&mut stream).expect("a response");
    response.body = http::read_body(stream, &response).expect("a whole body");
    response
}
