//! The client's side of WebSocket (RFC 6455), with every rule in the hand of the test: it can send what no client may.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::Value;

use crate::PATIENCE;
use crate::http::{self, Response};

/// The key of RFC 6455 section 1.3, and the answer to it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// See [`KEY`].
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Opcodes (RFC 6455 section 5.2).
pub mod opcode {
    #![expect(missing_docs, reason = "the RFC's names")]
    pub const CONTINUATION: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
}

/// What came from the server.
#[derive(Debug, PartialEq)]
pub enum Message {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A Pong. (A Ping is answered and not shown.)
    Pong(Vec<u8>),
    /// A Close frame with its code; 1005 stands for a frame without one (section 7.1.5).
    Close(u16),
    /// The end of the stream.
    End,
}

/// An open connection.
pub struct Socket {
    stream: BufReader<TcpStream>,
    /// The subprotocol that the server chose.
    pub subprotocol: Option<String>,
}

/// The headers of an opening handshake (section 4.1).
pub const UPGRADE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", KEY),
];

impl Socket {
    /// Opens a connection.
    ///
    /// # Errors
    /// The response, if its status is not 101.
    pub fn open(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Result<Self, Response> {
        let mut stream = http::connect(address);
        let headers = [&UPGRADE, headers].concat();
        stream.write_all(http::head(address, "GET", target, &headers, 0).as_bytes()).expect("it reads");
        let mut stream = BufReader::new(stream);
        let mut head = http::read_head(&mut stream).expect("a response");
        if head.status != 101 {
            head.body = http::read_body(stream, &head).expect("a whole body");
            return Err(head);
        }
        assert_eq!(head.header("sec-websocket-accept"), Some(ACCEPT), "{head:?}");
        let offered = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-extensions"));
        let agreed = head.header("sec-websocket-extensions");
        assert!(offered || agreed.is_none(), "an extension that was not offered");
        let subprotocol = head.header("sec-websocket-protocol").map(str::to_owned);
        Ok(Self { stream, subprotocol })
    }

    /// The socket underneath, for somebody who ends it from outside.
    pub fn stream(&self) -> TcpStream {
        self.stream.get_ref().try_clone().expect("a handle")
    }

    /// Sends any bytes. That the server has closed already is not an error: what it said counts.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.get_mut().write_all(bytes);
    }

    /// Sends one whole, masked frame.
    pub fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.send_raw(&frame(0x80 | opcode, payload));
    }

    /// Sends an envelope in the JSON form, `type` first and `data` last, as `core/PROTOCOL.md` section 4 wants it.
    pub fn send_json(&mut self, envelope: &Value) {
        let mut fields: Vec<_> = envelope.as_object().expect("a map").iter().collect();
        fields.sort_by_key(|(name, _)| match name.as_str() {
            "type" => 0,
            "data" | "bytes" => 2,
            _ => 1,
        });
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        self.send(opcode::TEXT, format!("{{{}}}", fields.join(",")).as_bytes());
    }

    /// Waits for the next message, answering Pings.
    pub fn receive(&mut self) -> Message {
        let mut message = Vec::new();
        let mut kind = opcode::CONTINUATION;
        loop {
            let Some((first, payload)) = self.read_frame() else { return Message::End };
            match first & 0x0f {
                opcode::PING => self.send(opcode::PONG, &payload),
                opcode::PONG => return Message::Pong(payload),
                opcode::CLOSE => {
                    return Message::Close(
                        payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)),
                    );
                }
                data => {
                    assert_eq!(
                        data == opcode::CONTINUATION,
                        kind != opcode::CONTINUATION,
                        "frames out of order"
                    );
                    kind = if data == opcode::CONTINUATION { kind } else { data };
                    message.extend(payload);
                    if first & 0x80 == 0 {
                        continue;
                    }
                    return match kind {
                        opcode::TEXT => Message::Text(String::from_utf8(message).expect("UTF-8")),
                        opcode::BINARY => Message::Binary(message),
                        other => panic!("opcode {other} from the server"),
                    };
                }
            }
        }
    }

    /// Waits for the next envelope of a JSON connection; panics at anything else.
    pub fn envelope(&mut self) -> Value {
        match self.receive() {
            Message::Text(text) => {
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
            }
            other => panic!("{other:?} instead of an envelope"),
        }
    }

    /// Waits for the next envelope of one of these types, passing over the others.
    pub fn envelope_of(&mut self, types: &[&str]) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let envelope = self.envelope();
            assert!(Instant::now() < deadline, "none of {types:?} for {PATIENCE:?}");
            if types.iter().any(|t| envelope["type"] == **t) {
                return envelope;
            }
        }
    }

    /// Waits for the Close frame and for the end after it, passing over messages; the close code.
    pub fn close_code(&mut self) -> Option<u16> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "no close for {PATIENCE:?}");
            match self.receive() {
                Message::Close(code) => return Some(code),
                Message::End => return None,
                _ => {}
            }
        }
    }

    /// The first byte and the payload of a frame; `None` at the end of the stream.
    fn read_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second] = self.read()?;
        assert_eq!(first & 0x70, 0, "reserved bits that were not negotiated");
        assert_eq!(second & 0x80, 0, "a server must not mask (RFC 6455 section 5.1)");
        let length = match second {
            126 => u64::from(u16::from_be_bytes(self.read()?)),
            127 => u64::from_be_bytes(self.read()?),
            length => u64::from(length),
        };
        let mut payload = vec![0; usize::try_from(length).expect("a length of this machine")];
        self.stream.read_exact(&mut payload).ok()?;
        Some((first, payload))
    }

    fn read<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        match self.stream.read_exact(&mut bytes) {
            Ok(()) => Some(bytes),
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("silence for {PATIENCE:?}"),
            Err(_) => None,
        }
    }
}

/// A masked frame with this first byte (FIN, reserved bits, opcode) and the shortest length that fits.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = header(first, 0x80, payload.len() as u64);
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A frame's header with the shortest length that fits; `masked` is 0x80 or 0. The masking key is not part of it.
pub fn header(first: u8, masked: u8, length: u64) -> Vec<u8> {
    match (u16::try_from(length), length) {
        (_, 0..126) => vec![first, masked | length as u8],
        (Ok(short), _) => [&[first, masked | 126][..], &short.to_be_bytes()].concat(),
        (Err(_), long) => [&[first, masked | 127][..], &long.to_be_bytes()].concat(),
    }
}
