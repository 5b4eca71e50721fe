//! The fast way to serve a WebSocket: a handler that is called in synchronous turns.

mod output;
#[cfg(unix)]
mod set;
mod turn;

pub use output::Output;
#[cfg(unix)]
pub use set::{Adopter, ServeSet};

use super::driver::Driver;
use super::{CloseCause, Error, Event, Message, MessageRef, Rx, WebSocket};
use longwire_core::ws::Found;
use std::fmt;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use turn::Turn;

/// What is done with what a connection receives. A closure that takes a message and an [`Output`] is one.
///
/// It is called in turns, on whatever thread polls [`Serve`], and holds that thread up: what takes long or has to wait
/// belongs into [`Output::defer`]. A handler that panics takes the task that serves its connection with it, and nothing
/// else.
///
/// An error that a call returns closes the connection with 1011, but for [`Error::Closing`], after which nothing has
/// to be done.
pub trait Handler {
    /// The connection is open: before anything that is received.
    ///
    /// # Errors
    /// As the handler likes; see [`Handler`].
    fn opened(&mut self, out: &mut Output<'_>) -> Result<(), Error> {
        let _ = out;
        Ok(())
    }

    /// A whole message, where it was received. It is gone when the call returns.
    ///
    /// # Errors
    /// As the handler likes; see [`Handler`].
    fn message(&mut self, message: MessageRef<'_>, out: &mut Output<'_>) -> Result<(), Error>;

    /// Anything else that is received: Pings, which are answered already, Pongs, the peer's Close, and under
    /// [`Delivery::Chunks`](super::Delivery::Chunks) the pieces of messages.
    ///
    /// # Errors
    /// As the handler likes; see [`Handler`]. What is provided says [`Error::Chunks`] to pieces, and nothing to the
    /// others.
    fn event(&mut self, event: Event<'_>, out: &mut Output<'_>) -> Result<(), Error> {
        let _ = out;
        if matches!(event, Event::Chunk(_)) { Err(Error::Chunks) } else { Ok(()) }
    }

    /// The connection is over, and this is what [`Serve`] returns. Not called when that is dropped before.
    fn closed(&mut self, result: &Result<CloseCause, Error>) {
        let _ = result;
    }
}

impl<F> Handler for F
where
    F: FnMut(MessageRef<'_>, &mut Output<'_>) -> Result<(), Error>,
{
    #[inline]
    fn message(&mut self, message: MessageRef<'_>, out: &mut Output<'_>) -> Result<(), Error> {
        self(message, out)
    }
}

/// An answer that was put off.
type Answering = Pin<Box<dyn Future<Output = Option<Message>> + Send>>;

/// Serves a connection whose opening handshake is done: reads, calls the handler for each message, and writes what it
/// sends, until the connection is over.
///
/// ```no_run
/// use longwire::websocket::{Config, accept, serve};
/// use std::sync::Arc;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Arc::new(Config::default());
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// loop {
///     let (stream, _) = listener.accept().await?;
///     let config = config.clone();
///     tokio::spawn(async move {
///         if let Ok(socket) = accept(stream, config).await {
///             // A task of its own: it is smaller than the one that shook hands.
///             tokio::spawn(serve(socket, |message, out| out.send(message)));
///         }
///     });
/// }
/// # }
/// ```
pub fn serve<S, F>(socket: WebSocket<S>, on_message: F) -> Serve<S, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: FnMut(MessageRef<'_>, &mut Output<'_>) -> Result<(), Error>,
{
    serve_with(socket, on_message)
}

/// As [`serve`], with a handler that is told more than the messages.
pub fn serve_with<S, H>(socket: WebSocket<S>, handler: H) -> Serve<S, H>
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    let WebSocket { driver, rx, .. } = socket;
    Serve { driver, rx, handler, found: None, answering: None, pushed: None, opened: false }
}

/// The future that [`serve`] returns: it is ready when the connection is over, with how that came about.
///
/// # Errors
/// As [`WebSocket::recv`]: how the connection ended, if not by a closing handshake.
#[must_use = "a connection is served while this is polled"]
pub struct Serve<S, H> {
    driver: Driver<S>,
    rx: Rx,
    handler: H,
    /// A message that was received, and is not handed out before the answer to another is there.
    found: Option<Found>,
    answering: Option<Answering>,
    pushed: Option<Box<Pushed>>,
    opened: bool,
}

impl<S, H> fmt::Debug for Serve<S, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").field("driver", &self.driver).finish_non_exhaustive()
    }
}

// Nothing of it is pinned: the stream has to be `Unpin`, and answers have boxes of their own.
impl<S, H> Unpin for Serve<S, H> {}

impl<S, H> Serve<S, H> {
    /// A way to send from elsewhere, with a queue for `capacity` messages (at least one), which are sent between turns.
    /// Another call takes the place of the one before, whose queue is closed.
    ///
    /// While the peer does not take what it is sent, the queue is left alone: whoever fills it has to wait, or is told
    /// that it is full.
    pub fn pusher(&mut self, capacity: usize) -> Pusher {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        self.pushed = Some(Box::new(Pushed { queue: receiver, held: None }));
        Pusher(sender)
    }
}

#[cfg(unix)]
impl<S, H> Serve<S, H> {
    /// The same connection over another stream; `None` when there is none.
    fn map_stream<T>(self, map: impl FnOnce(S) -> Option<T>) -> Option<Serve<T, H>> {
        let Self { driver, rx, handler, found, answering, pushed, opened } = self;
        Some(Serve { driver: driver.map_stream(map)?, rx, handler, found, answering, pushed, opened })
    }
}

impl<S, H> Future for Serve<S, H>
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    type Output = Result<CloseCause, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut().take_turn(cx) {
            Turn::Over(result) => return Poll::Ready(result),
            Turn::Waiting => {}
            Turn::More => give_way(cx),
        }
        Poll::Pending
    }
}

/// What was pushed and is not sent.
struct Pushed {
    queue: mpsc::Receiver<Message>,
    /// The first of them, when there was no room for it.
    held: Option<Message>,
}

impl Pushed {
    fn is_empty(&self) -> bool {
        self.held.is_none() && self.queue.is_empty()
    }

    /// The next message; `None` when there will be no other.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        match self.held.take() {
            Some(message) => Poll::Ready(Some(message)),
            None => self.queue.poll_recv(cx),
        }
    }
}

/// Sends to a connection that is being [served](serve), from anywhere. Clones share the queue.
#[derive(Clone, Debug)]
pub struct Pusher(mpsc::Sender<Message>);

/// Why a message was not taken; here it is again.
#[derive(Debug, PartialEq, Eq)]
pub enum PushError {
    /// As many wait as the queue holds.
    Full(Message),
    /// The connection is over.
    Closed(Message),
}

impl Pusher {
    /// Puts a message into the queue, when there is room in it. Cancel-safe: when dropped, the message was not taken.
    ///
    /// # Errors
    /// [`PushError::Closed`].
    pub async fn push(&self, message: impl Into<Message>) -> Result<(), PushError> {
        self.0.send(message.into()).await.map_err(|refused| PushError::Closed(refused.0))
    }

    /// Puts a message into the queue, if there is room in it.
    ///
    /// # Errors
    /// [`PushError`].
    pub fn try_push(&self, message: impl Into<Message>) -> Result<(), PushError> {
        self.0.try_send(message.into()).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(message) => PushError::Full(message),
            mpsc::error::TrySendError::Closed(message) => PushError::Closed(message),
        })
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the queue is full",
            Self::Closed(_) => "the connection is over",
        })
    }
}

impl std::error::Error for PushError {}

/// Lets others have a turn, and the system say which sockets are ready, before the task has its next.
fn give_way(cx: &mut Context<'_>) {
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}
