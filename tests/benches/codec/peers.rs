//! One pair of functions for each library: so many messages in, so many out, and what that took. The server's side of
//! each, after the opening handshake, without compression, limits above the largest message.
//!
//! Each is warmed up with one batch, so that buffers have their size. What is handed out is compared in length.

use crate::memory::{Case, Kind, Memory};
use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use std::hint::black_box;
use std::time::{Duration, Instant};

const MOST: usize = 64 << 20;

/// How a library is driven.
pub(crate) struct Peer {
    pub name: &'static str,
    /// Over which stream, or none.
    pub over: &'static str,
    pub receive: fn(&Case) -> Duration,
    pub send: fn(&Case) -> Duration,
}

#[rustfmt::skip]
pub(crate) const PEERS: [Peer; 7] = [
    Peer { name: "longwire-core", over: "lent buffers", receive: longwire::receive, send: longwire::send },
    Peer { name: "tungstenite", over: "`Read + Write`", receive: tungstenite::receive, send: tungstenite::send },
    Peer { name: "fastwebsockets", over: "`AsyncRead + AsyncWrite`", receive: fastwebsockets::receive, send: fastwebsockets::send },
    Peer { name: "tokio-websockets", over: "`AsyncRead + AsyncWrite`", receive: tokio_websockets::receive, send: tokio_websockets::send },
    Peer { name: "sockudo-ws", over: "`AsyncRead + AsyncWrite`", receive: sockudo::receive, send: sockudo::send },
    Peer { name: "yawc", over: "`AsyncRead + AsyncWrite`", receive: yawc::receive, send: yawc::send },
    Peer { name: "soketto", over: "`AsyncRead + AsyncWrite`", receive: soketto::receive, send: soketto::send },
];

/// The version that is measured, as the lock file has it.
pub(crate) fn version(name: &str) -> &'static str {
    let lock = include_str!("Cargo.lock");
    let package = lock.split(&format!("name = \"{name}\"\nversion = \"")).nth(1);
    package.and_then(|rest| rest.split('"').next()).expect("a package of the lock file")
}

/// Times a loop over the case's messages; a first one, over one batch, is not timed.
macro_rules! time {
    ($case:ident, $i:ident => $body:expr) => {{
        for $i in 0..$case.batch.max(2) {
            let _ = $i;
            $body;
        }
        let start = Instant::now();
        for $i in 0..$case.count {
            let _ = $i;
            $body;
        }
        start.elapsed()
    }};
}

/// Whether the message with this number is the last of its batch.
fn ends(case: &Case, i: usize) -> bool {
    i % case.batch == case.batch - 1
}

/// The memory stream is always ready, so nothing ever waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a stream in memory never waits")
}

fn text(case: &Case) -> Option<String> {
    (case.kind == Kind::Text).then(|| String::from_utf8(case.payload.clone()).expect("a text"))
}

mod longwire {
    use super::*;
    use longwire_core::buf::{Io, RxBuf, RxCursor, TxBuf, TxCursor};
    use longwire_core::time::Instant as At;
    use longwire_core::ws::{Config, Connection, Event, Kind as Of, Server, Step};
    use std::io::{IoSlice, Read, Write};

    static CONFIG: Config = Config { max_message: MOST as u64, ..Config::new() };
    const NOW: At = At::from_millis(0);
    /// The receive buffer, until a message wants a larger one, and most bytes of one read into it: what fits the first
    /// cache is still there when it is unmasked.
    const RX: usize = 20 * 1024;
    const READ: usize = 16 * 1024;

    struct Receiver {
        connection: Connection<Server>,
        stream: Memory,
        rx: Vec<u8>,
        rx_at: RxCursor,
        tx: Vec<u8>,
        tx_at: TxCursor,
    }

    impl Receiver {
        /// One turn of a runtime's loop: read, and work off what is there. Returns how many messages that was.
        fn turn(&mut self, expected: usize) -> usize {
            let mut messages = 0;
            let rx = RxBuf::new(&mut self.rx, &mut self.rx_at);
            let mut io = Io::new(rx, TxBuf::new(&mut self.tx, &mut self.tx_at));
            let spare = io.rx.spare_mut();
            let most = spare.len().min(READ);
            let n = self.stream.read(&mut spare[..most]).expect("memory");
            io.rx.commit(n);
            loop {
                match self.connection.poll(NOW, &mut io) {
                    Ok(Step::Event(found)) => {
                        let len = match black_box(found.event(io.rx.reborrow())) {
                            Event::Text(text) => text.as_bytes().len(),
                            Event::Binary(data) => data.len(),
                            other => panic!("{other:?}"),
                        };
                        assert_eq!(len, expected);
                        messages += 1;
                    }
                    Ok(Step::NeedInput) => return messages,
                    Ok(Step::NeedSpace(wanted)) => {
                        self.rx.resize(wanted, 0);
                        return messages;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    pub(super) fn receive(case: &Case) -> Duration {
        let mut receiver = Receiver {
            connection: Connection::new(Server, black_box(&CONFIG), NOW),
            stream: case.stream(),
            rx: vec![0; RX],
            rx_at: RxCursor::new(),
            tx: vec![0; 4096],
            tx_at: TxCursor::new(),
        };
        let mut until = |messages: usize| {
            let mut done = 0;
            while done < messages {
                done += receiver.turn(case.payload.len());
            }
            done
        };
        until(case.batch.max(2));
        let start = Instant::now();
        let done = until(case.count);
        // The last turn is a whole one: as if it had been just so many.
        start.elapsed().mul_f64(case.count as f64 / done as f64)
    }

    /// Small messages are copied into the send buffer; of large ones only the header is, and the payload goes out by
    /// reference in the same write.
    pub(super) fn send(case: &Case) -> Duration {
        let mut connection = Connection::new(Server, black_box(&CONFIG), NOW);
        let mut stream = case.stream();
        let mut bytes = vec![0; 64 * 1024];
        let mut at = TxCursor::new();
        let kind = if case.kind == Kind::Text { Of::Text } else { Of::Binary };
        if case.payload.len() > 4096 {
            return time!(case, i => {
                let payload = black_box(&case.payload);
                let header = connection.begin_shared(kind, payload.len() as u64).expect("an open connection");
                let parts = [IoSlice::new(header.as_ref()), IoSlice::new(payload)];
                let n = stream.write_vectored(&parts).expect("memory");
                assert!(n > payload.len());
            });
        }
        time!(case, i => {
            let mut tx = TxBuf::new(&mut bytes, &mut at);
            connection.send_message(&mut tx, kind, black_box(&case.payload)).expect("room");
            if ends(case, i) {
                let n = stream.write(tx.pending()).expect("memory");
                tx.consume(n);
            }
        })
    }
}

mod tungstenite {
    use super::*;
    use ::tungstenite::protocol::{Message, Role, WebSocket, WebSocketConfig};

    fn socket(case: &Case) -> WebSocket<Memory> {
        let config = WebSocketConfig::default().max_message_size(Some(MOST)).max_frame_size(Some(MOST));
        WebSocket::from_raw_socket(case.stream(), Role::Server, Some(config))
    }

    pub(super) fn receive(case: &Case) -> Duration {
        let mut socket = socket(case);
        time!(case, i => assert_eq!(black_box(socket.read().expect("a message")).len(), case.payload.len()))
    }

    pub(super) fn send(case: &Case) -> Duration {
        let mut socket = socket(case);
        let message =
            text(case).map_or_else(|| Message::binary(Bytes::from(case.payload.clone())), Message::text);
        time!(case, i => {
            socket.write(black_box(&message).clone()).expect("room");
            if ends(case, i) {
                socket.flush().expect("memory");
            }
        })
    }
}

mod fastwebsockets {
    use super::*;
    use ::fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, Role, WebSocket};

    fn socket(case: &Case) -> WebSocket<Memory> {
        let mut socket = WebSocket::after_handshake(case.stream(), Role::Server);
        socket.set_max_message_size(MOST);
        socket
    }

    pub(super) fn receive(case: &Case) -> Duration {
        let mut socket = FragmentCollector::new(socket(case));
        now(async {
            time!(case, i => {
                let frame = socket.read_frame().await.expect("a message");
                assert_eq!(black_box(frame).payload.len(), case.payload.len());
            })
        })
    }

    /// It writes each message at once.
    pub(super) fn send(case: &Case) -> Duration {
        let mut socket = socket(case);
        let opcode = if case.kind == Kind::Text { OpCode::Text } else { OpCode::Binary };
        now(async {
            time!(case, i => {
                let frame = Frame::new(true, opcode, None, Payload::Borrowed(black_box(&case.payload)));
                socket.write_frame(frame).await.expect("memory");
            })
        })
    }
}

mod tokio_websockets {
    use super::*;
    use ::tokio_websockets::{Config, Limits, Message, ServerBuilder, WebSocketStream};

    fn socket(case: &Case) -> WebSocketStream<Memory> {
        ServerBuilder::new()
            .config(Config::default().frame_size(usize::MAX))
            .limits(Limits::default().max_payload_len(Some(MOST)))
            .serve(case.stream())
    }

    pub(super) fn receive(case: &Case) -> Duration {
        let mut socket = socket(case);
        now(async {
            time!(case, i => {
                let message = socket.next().await.expect("a message").expect("a message");
                assert_eq!(black_box(message).as_payload().len(), case.payload.len());
            })
        })
    }

    pub(super) fn send(case: &Case) -> Duration {
        let mut socket = socket(case);
        let message =
            text(case).map_or_else(|| Message::binary(Bytes::from(case.payload.clone())), Message::text);
        now(async {
            time!(case, i => {
                socket.feed(black_box(&message).clone()).await.expect("room");
                if ends(case, i) {
                    socket.flush().await.expect("memory");
                }
            })
        })
    }
}

mod sockudo {
    use super::*;
    use sockudo_ws::protocol::Message;
    use sockudo_ws::{Config, WebSocketStream};

    fn socket(case: &Case) -> WebSocketStream<Memory> {
        let config = Config::builder().max_message_size(MOST).max_frame_size(MOST).max_backpressure(MOST);
        WebSocketStream::server(case.stream(), config.idle_timeout(0).auto_ping(false).build())
    }

    pub(super) fn receive(case: &Case) -> Duration {
        let mut socket = socket(case);
        now(async {
            time!(case, i => {
                let message = socket.next().await.expect("a message").expect("a message");
                let (Message::Text(bytes) | Message::Binary(bytes)) = black_box(message) else { panic!() };
                assert_eq!(bytes.len(), case.payload.len());
            })
        })
    }

    pub(super) fn send(case: &Case) -> Duration {
        let mut socket = socket(case);
        let bytes = Bytes::from(case.payload.clone());
        let message = if case.kind == Kind::Text { Message::Text(bytes) } else { Message::Binary(bytes) };
        now(async {
            time!(case, i => {
                socket.feed(black_box(&message).clone()).await.expect("room");
                if ends(case, i) {
                    socket.flush().await.expect("memory");
                }
            })
        })
    }
}

mod yawc {
    use super::*;
    use ::yawc::{Frame, Options, Role, WebSocket};

    fn socket(case: &Case) -> WebSocket<Memory> {
        let options = Options::default().without_compression().with_utf8().with_limits(MOST, MOST);
        WebSocket::from_stream(case.stream(), Role::Server, options).expect("a socket")
    }

    pub(super) fn receive(case: &Case) -> Duration {
        let mut socket = socket(case);
        now(async {
            time!(case, i => {
                let frame = socket.next_frame().await.expect("a message");
                assert_eq!(black_box(frame).payload().len(), case.payload.len());
            })
        })
    }

    pub(super) fn send(case: &Case) -> Duration {
        let mut socket = socket(case);
        let bytes = Bytes::from(case.payload.clone());
        now(async {
            time!(case, i => {
                let bytes = black_box(&bytes).clone();
                let frame = if case.kind == Kind::Text { Frame::text(bytes) } else { Frame::binary(bytes) };
                socket.feed(frame).await.expect("room");
                if ends(case, i) {
                    socket.flush().await.expect("memory");
                }
            })
        })
    }
}

mod soketto {
    use super::*;
    use ::soketto::connection::{Builder, Receiver, Sender};
    use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

    type Stream = Compat<Memory>;

    fn socket(case: &Case) -> (Sender<Stream>, Receiver<Stream>) {
        let mut builder = Builder::new(case.stream().compat(), ::soketto::Mode::Server);
        builder.set_max_message_size(MOST);
        builder.set_max_frame_size(MOST);
        builder.finish()
    }

    /// It leaves the check of a text to its user.
    pub(super) fn receive(case: &Case) -> Duration {
        let (_sender, mut receiver) = socket(case);
        let mut message = Vec::new();
        now(async {
            time!(case, i => {
                message.clear();
                receiver.receive_data(&mut message).await.expect("a message");
                if case.kind == Kind::Text {
                    assert!(std::str::from_utf8(black_box(&message)).is_ok());
                }
                assert_eq!(black_box(&message).len(), case.payload.len());
            })
        })
    }

    pub(super) fn send(case: &Case) -> Duration {
        let (mut sender, _receiver) = socket(case);
        let text = text(case);
        now(async {
            time!(case, i => {
                match black_box(&text) {
                    Some(text) => sender.send_text(text).await.expect("memory"),
                    None => sender.send_binary(black_box(&case.payload)).await.expect("memory"),
                }
                if ends(case, i) {
                    sender.flush().await.expect("memory");
                }
            })
        })
    }
}
