//! A WebSocket (RFC 6455) over any stream, for those who need no hub.
//!
//! ```no_run
//! use longwire::websocket::{ConnectOptions, Event, connect};
//!
//! # async fn run() -> Result<(), longwire::websocket::Error> {
//! let mut socket = connect("wss://example.org/chat", &ConnectOptions::default()).await?;
//! socket.send("hello").await?;
//! while let Some(event) = socket.recv().await {
//!     match event? {
//!         Event::Text(text) => println!("{text}"), // borrowed from the receive buffer: nothing was copied
//!         Event::Close(close) => println!("closed: {:?} {}", close.code, close.reason),
//!         _ => {}
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! # Cancellation
//! **Every method is cancel-safe.** What a future has read, taken or written is in the [`WebSocket`], not in the
//! future, so any of them may be dropped at any point, as `tokio::select!` and `tokio::time::timeout` do:
//! * a dropped [`recv`](WebSocket::recv) has lost nothing;
//! * a dropped [`feed`](WebSocket::feed) has not taken its message; one that is ready has;
//! * a dropped [`send`](WebSocket::send) has either not taken its message, or taken all of it: then it goes out
//!   with whatever is sent, received or flushed next. A message is never sent in part;
//! * a dropped [`flush`](WebSocket::flush) or [`close`](WebSocket::close) goes on with the next call.
//!
//! # Which API
//! | | what it is | what it costs beside the system calls | us, bytes |
//! |---|---|---|---|
//! | [`ServeSet`] | a handler, many TCP connections on one thread | nothing for each connection but its state | 0.27, 430 |
//! | [`serve`] | the same handler, one connection over any stream, in a task | a task for each connection; a wake-up and a timer for each turn | 0.28, 1,158 |
//! | [`recv`](WebSocket::recv), [`send`](WebSocket::send) | async, in your own task | as before, and a copy of what is received | 0.37, 1,472 |
//! | `Stream` and `Sink` | for combinators | as before, and an allocation for each message | 0.42 |
//!
//! The figures are a server's CPU for an echo of 20 bytes, with 16 under way on each of 100 connections, and its
//! resident memory for each of 10,000 idle ones (`tests/benches/peers/run`, 2026-11-20; a floor without any protocol
//! takes 0.24 us and 1,064 bytes in tokio tasks).
//!
//! [`serve`] and [`send`](WebSocket::send) write once what is sent while messages that have arrived are worked off,
//! without being asked to. `SinkExt::send`, and `send` of a [`Sender`], write each message: there the way to write many
//! at once is to feed them, and then to flush. The example `bench-server` serves the same by each of them;
//! `tests/benches/README.md` has the command and the figures, beside other libraries.
//!
//! # Memory
//! A connection that waits for input and has nothing to write holds no buffer. What is read and written in a turn lies
//! in buffers of 64 KiB that its thread keeps, at most four; what remains of it (the beginning of a message, output
//! that the socket does not take) moves into memory of the connection's own, of at most twice its size. A message that
//! does not fit into the thread's buffer grows as its bytes arrive, never because a header announces them, to at most
//! `max_message` and a little more; while it does, it is lent one of the process's larger buffers, if there is one: 4
//! MiB at most are kept, and 4 MiB lent. A send buffer grows to [`Config::max_send_buffer`]; payloads of 16 KiB and
//! more are written from where they lie. Nothing is queued beyond that: a peer that sends without reading is read no
//! further.
//!
//! # Compression
//! permessage-deflate (RFC 7692) is offered and accepted by default ([`Config::deflate`]), without context takeover,
//! and used for messages of 512 bytes and more. So a connection owns no codec: it borrows its thread's. `max_message`
//! limits what comes out, and one byte more than that is never inflated. A secret and what an attacker chooses do not
//! belong into one compressed message: its length tells about the secret (CRIME).
//!
//! # Runtimes
//! Any flavour of tokio's, with its time enabled. Nothing is spawned; the heartbeat and the deadlines are kept by
//! whoever awaits [`recv`](WebSocket::recv), so somebody has to, also when no message is expected.

mod accept;
pub(crate) mod buffers;
mod config;
mod connect;
pub(crate) mod deflate;
mod driver;
mod endpoint;
mod error;
mod message;
mod pool;
mod serve;
mod split;
mod stream;

pub use accept::{Acceptance, Rejection, accept, accept_with};
pub use bytestring::ByteString;
pub use config::Config;
pub use connect::{ConnectOptions, connect, connect_over};
pub use deflate::Deflate;
pub use endpoint::Role;
pub(crate) use endpoint::ThreadRng;
pub use error::{Error, HandshakeError, Refused, Timeout};
pub use longwire_core::ws::{
    Chunk, CloseCause, CloseCode, CloseReason, Delivery, Event, Heartbeat, Kind, Text,
};
pub use message::{Message, MessageRef};
#[cfg(unix)]
pub use serve::{Adopter, ServeSet};
pub use serve::{Handler, Output, PushError, Pusher, Serve, serve, serve_with};
pub use split::{Receiver, Sender};

use buffers::Rx;
use driver::Driver;
use longwire_core::ws::deflate::Agreed;
use std::future::poll_fn;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// A WebSocket connection, of either role, over the stream `S`.
///
/// See the [module](self) for an example, for what happens to a future that is dropped, and for memory.
///
/// It is also a `Stream` of [`Message`]s (control frames are dealt with and passed over) and a `Sink` for them.
#[derive(Debug)]
pub struct WebSocket<S> {
    driver: Driver<S>,
    rx: Rx,
    subprotocol: Option<Box<str>>,
}

impl<S> WebSocket<S> {
    /// A connection whose opening handshake was done elsewhere, by an HTTP server for instance. `leftover` are the
    /// bytes that were read behind the handshake's head: the first frames.
    pub fn from_parts(stream: S, role: Role, leftover: &[u8], config: impl Into<Arc<Config>>) -> Self {
        let mut rx = Rx::default();
        if !leftover.is_empty() {
            rx.extend(leftover);
            rx.park();
        }
        Self { driver: Driver::new(stream, role, config.into()), rx, subprotocol: None }
    }

    /// Says which subprotocol was agreed on elsewhere.
    #[must_use]
    pub fn with_subprotocol(mut self, subprotocol: Option<&str>) -> Self {
        self.subprotocol = subprotocol.map(Box::from);
        self
    }

    /// Says that permessage-deflate was agreed on elsewhere (RFC 7692), before the first frame.
    #[must_use]
    pub fn with_deflate(mut self, agreed: Agreed) -> Self {
        self.driver.set_deflate(agreed);
        self
    }

    /// What the opening handshake agreed on for permessage-deflate; `None`: messages go as they are.
    pub fn deflate(&self) -> Option<Agreed> {
        self.driver.deflate()
    }

    /// The subprotocol that the opening handshake agreed on.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// Which end this is.
    pub fn role(&self) -> Role {
        self.driver.role()
    }

    /// The stream underneath, for its addresses and options. Reading or writing it breaks the connection.
    pub fn get_ref(&self) -> &S {
        self.driver.get_ref()
    }

    /// The stream, and what was received behind the opening handshake: for whoever goes on with it by other means, as a
    /// [hub](crate::hub::Adoption) does, before anything was received or sent here.
    pub fn into_parts(mut self) -> (S, Vec<u8>) {
        let leftover = self.rx.lend().unread().to_vec();
        (self.driver.into_stream(), leftover)
    }

    /// How the connection ended; `None` as long as it has not.
    pub fn close_cause(&self) -> Option<CloseCause> {
        self.driver.close_cause()
    }

    /// Whether a message can be sent: neither end has begun to close.
    pub fn is_open(&self) -> bool {
        self.driver.check_open().is_ok()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// The next event, borrowed from the receive buffer; the next call drops it. `None` when the connection has
    /// ended with a closing handshake.
    ///
    /// Pings are answered before they are seen. After [`Event::Close`] call again: that ends the stream in order.
    /// While it waits it writes what waits to be written, sends the Pings of the heartbeat, and keeps the deadlines.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// How the connection ended, if not by a closing handshake; once, then `None`. [`Error::Protocol`] when the peer
    /// broke a rule, [`Error::Closed`] when its stream ended or it fell silent, [`Error::Io`], [`Error::Timeout`].
    pub async fn recv(&mut self) -> Option<Result<Event<'_>, Error>> {
        let (driver, rx) = (&mut self.driver, &mut self.rx);
        match poll_fn(|cx| driver.poll_found(cx, rx)).await? {
            Ok(found) => Some(Ok(found.event(self.rx.lend()))),
            Err(error) => Some(Err(error)),
        }
    }

    /// The next data message, copied out of the receive buffer; control frames are dealt with and passed over.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// As [`recv`](Self::recv); [`Error::Chunks`] under [`Delivery::Chunks`].
    pub async fn recv_message(&mut self) -> Option<Result<Message, Error>> {
        let (driver, rx) = (&mut self.driver, &mut self.rx);
        poll_fn(|cx| driver.poll_message(cx, rx)).await
    }

    /// Sends a message: [feeds](Self::feed) and [flushes](Self::flush) it, unless another message has come already
    /// behind the one that [`recv`](Self::recv) returned last. Then it is held back, to go out with the answers to
    /// those in one write: with the first `recv` that has to wait, with 32 KiB of them, with a flush, or with the first
    /// `send` or `recv` that is called two milliseconds after the messages were read, or after the last write for this
    /// reason.
    ///
    /// So a loop that receives and sends is as quick as one that batches by hand, and one that takes its time over each
    /// message sends each answer at once. In between, an answer waits for the work on one more message, and no longer.
    /// But who stops receiving in the middle, to wait for something else or to drop the connection,
    /// [flushes](Self::flush) before.
    ///
    /// Cancel-safe: the message is taken whole or not at all. To know which, feed and flush.
    ///
    /// # Errors
    /// As [`feed`](Self::feed) and [`flush`](Self::flush).
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<(), Error> {
        self.feed(message).await?;
        self.flush_unless_more().await
    }

    async fn flush_unless_more(&mut self) -> Result<(), Error> {
        if self.driver.may_wait() { Ok(()) } else { self.flush().await }
    }

    /// Sends a text without taking it over: it is copied into the send buffer.
    ///
    /// Cancel-safe, as [`send`](Self::send).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_text(&mut self, text: &str) -> Result<(), Error> {
        self.send_data(Kind::Text, text.as_bytes()).await
    }

    /// Sends bytes without taking them over: they are copied into the send buffer.
    ///
    /// Cancel-safe, as [`send`](Self::send).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_binary(&mut self, data: &[u8]) -> Result<(), Error> {
        self.send_data(Kind::Binary, data).await
    }

    async fn send_data(&mut self, kind: Kind, data: &[u8]) -> Result<(), Error> {
        poll_fn(|cx| self.driver.poll_ready(cx)).await?;
        self.driver.take(kind, data, || bytes::Bytes::copy_from_slice(data))?;
        self.flush_unless_more().await
    }

    /// Takes a message to be sent, without writing it yet: several go out together with the next
    /// [`flush`](Self::flush), [`send`](Self::send) or [`recv`](Self::recv). It waits only when the message before it
    /// did not fit into the send buffer.
    ///
    /// Cancel-safe: when dropped, the message was not taken; when ready, it was.
    ///
    /// # Errors
    /// [`Error::Closing`] and [`Error::Closed`]: nothing more can be sent. While it waits also those of
    /// [`flush`](Self::flush).
    pub async fn feed(&mut self, message: impl Into<Message>) -> Result<(), Error> {
        poll_fn(|cx| self.driver.poll_ready(cx)).await?;
        self.driver.take_message(message.into())
    }

    /// Writes everything that was taken.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Io`] when the stream cannot be written (what the peer said before that can still be received);
    /// [`Error::Timeout`] when it takes no byte for [`Config::write_timeout`].
    pub async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.driver.poll_flush(cx)).await
    }

    /// Sends a Ping with at most 125 bytes, beside those of the heartbeat. The answer is an [`Event::Pong`].
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`Error::PingTooLong`]; otherwise as [`send`](Self::send).
    pub async fn ping(&mut self, payload: &[u8]) -> Result<(), Error> {
        while !self.driver.take_ping(payload)? {
            self.flush().await?;
        }
        self.flush().await
    }

    /// How long the answer to the heartbeat's last Ping took; `None` before the first answer, and from each Ping to its
    /// answer. The heartbeat asks a silent peer only, and somebody has to receive for it to be kept.
    pub fn rtt(&self) -> Option<std::time::Duration> {
        self.driver.rtt()
    }

    /// Takes a Ping, which goes out with whatever is written next; false when there is no room for it.
    pub(crate) fn feed_ping(&mut self, payload: &[u8]) -> bool {
        self.driver.take_ping(payload).unwrap_or(false)
    }

    /// Closes the connection: sends what was taken and a Close, waits for the peer's, and ends the stream.
    /// Messages that still come are dropped; to see them, [`start_close`](Self::start_close) and go on receiving.
    ///
    /// `reason` is cut to 123 bytes. It takes at most twice `close_timeout` once the Close is written. When the peer
    /// was faster, its closing handshake is completed.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// How the connection ended, if not by a closing handshake.
    pub async fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        self.start_close(code, reason);
        let (driver, rx) = (&mut self.driver, &mut self.rx);
        poll_fn(|cx| driver.poll_close(cx, rx)).await
    }

    /// Begins the closing handshake, unless it has begun already. Go on with [`recv`](Self::recv) until `None`.
    pub fn start_close(&mut self, code: CloseCode, reason: &str) {
        self.driver.start_close(code, reason);
    }

    /// Splits the connection in two, for two tasks. Each half is cancel-safe as the whole; the deadlines and the
    /// heartbeat are kept by the [`Receiver`].
    pub fn split(self) -> (Sender<S>, Receiver<S>) {
        split::split(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Bytes that the connection holds: to receive and to send.
    fn held<S>(socket: &mut WebSocket<S>) -> (usize, usize) {
        (socket.rx.lend().capacity(), socket.driver.send_capacity())
    }

    /// One look at whether there is an event.
    fn nothing_comes(socket: &mut WebSocket<impl AsyncRead + AsyncWrite + Unpin>) {
        let mut recv = pin!(socket.recv());
        assert!(matches!(recv.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
    }

    #[tokio::test]
    async fn memory_follows_what_arrived_and_an_idle_connection_holds_none() {
        let (a, mut b) = tokio::io::duplex(4 << 20);
        let mut socket = WebSocket::from_parts(a, Role::Server, &[], Config::default());
        nothing_comes(&mut socket);
        assert_eq!(held(&mut socket), (0, 0));
        // A header that announces the whole limit, and ten bytes.
        let len: u64 = 1 << 20;
        b.write_all(&[0x82, 0xff]).await.unwrap();
        b.write_all(&len.to_be_bytes()).await.unwrap();
        b.write_all(&[0; 4 + 10]).await.unwrap();
        nothing_comes(&mut socket);
        assert!(held(&mut socket).0 <= 4096, "{:?}", held(&mut socket));
        // The rest: never more than twice what has come.
        let mut arrived = 10;
        while arrived < 1 << 20 {
            let n = 100_000.min((1 << 20) - arrived);
            b.write_all(&vec![0; n]).await.unwrap();
            arrived += n;
            if arrived < 1 << 20 {
                nothing_comes(&mut socket);
                assert!(held(&mut socket).0 <= 2 * arrived + 4096);
            }
        }
        assert!(matches!(socket.recv().await, Some(Ok(Event::Binary(data))) if data.len() == 1 << 20));
        assert!(held(&mut socket).0 <= (1 << 20) + longwire_core::ws::MIN_RX);
        socket.send_binary(&vec![0; 1 << 20]).await.unwrap();
        nothing_comes(&mut socket);
        assert_eq!(held(&mut socket), (0, 0));
    }

    /// What has come to the other end.
    fn came(stream: &mut tokio::io::DuplexStream) -> usize {
        let mut bytes = [0; 100];
        let read = pin!(stream.read(&mut bytes)).poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(n) = read { n.unwrap() } else { 0 }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_held_back_only_while_their_user_is_quick() {
        let (a, mut b) = tokio::io::duplex(1000);
        let mut socket = WebSocket::from_parts(a, Role::Server, &[], Config::default());
        b.write_all(&b"\x81\x81\0\0\0\0x".repeat(7)).await.unwrap();
        for (millis, sends, answers) in [
            (0, true, 0),
            (1, true, 0),
            // It is two since the first was read: all go out.
            (1, true, 3),
            (0, true, 0),
            // This one is not answered, but takes its time: what was held goes out before the next.
            (5, false, 0),
            (0, true, 1),
            // Behind the last there is nothing to wait for.
            (0, true, 2),
        ] {
            assert!(matches!(socket.recv().await, Some(Ok(Event::Text(_)))));
            tokio::time::advance(std::time::Duration::from_millis(millis)).await;
            if sends {
                socket.send("y").await.unwrap();
            }
            assert_eq!(came(&mut b), 3 * answers);
        }
    }

    #[test]
    fn a_connection_is_small() {
        // Without the stream: what each connection of a server costs while nothing happens, beside its timer.
        let size = size_of::<WebSocket<()>>();
        assert!(size <= 512, "{size}");
    }
}
