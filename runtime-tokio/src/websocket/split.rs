//! A connection for two tasks, one that sends and one that receives.

use super::driver::Driver;
use super::{CloseCause, CloseCode, Error, Event, Kind, Message, Rx, WebSocket};
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use tokio::io::{AsyncRead, AsyncWrite};

/// What both halves share. It is locked for one turn at a time, which never waits; what was received lies outside,
/// so that an event can be borrowed while the other half goes on sending.
struct Shared<S> {
    driver: Mutex<Driver<S>>,
    wakers: Arc<Wakers>,
    /// Wakes both. A stream remembers one waker for reading and one for writing, and either half may do both.
    both: Waker,
    subprotocol: Option<Box<str>>,
}

/// Whom to wake: the tasks that wait in either half.
#[derive(Default)]
struct Wakers {
    receiver: Mutex<Option<Waker>>,
    sender: Mutex<Option<Waker>>,
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        wake(&self.receiver);
        wake(&self.sender);
    }
}

fn wake(slot: &Mutex<Option<Waker>>) {
    // The lock is given back first: a waker may run anything.
    let waker = lock(slot).take();
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A panic elsewhere leaves the state as it is after a dropped future: whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S> Shared<S> {
    /// One turn of a half whose task waits in `own`. The other half is told when there is something new for it.
    fn turn<T>(
        &self,
        cx: &mut Context<'_>,
        own: &Mutex<Option<Waker>>,
        other: &Mutex<Option<Waker>>,
        turn: impl FnOnce(&mut Driver<S>, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let mut driver = lock(&self.driver);
        match &mut *lock(own) {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            slot => *slot = Some(cx.waker().clone()),
        }
        let before = (driver.is_flushed(), driver.close_cause().is_some());
        let result = turn(&mut driver, &mut Context::from_waker(&self.both));
        let after = (driver.is_flushed(), driver.close_cause().is_some());
        drop(driver);
        if before != after {
            wake(other);
        }
        result
    }
}

impl<S> fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("driver", &self.driver).finish_non_exhaustive()
    }
}

/// The half that receives, and that keeps the heartbeat and the deadlines: somebody has to await it.
#[derive(Debug)]
pub struct Receiver<S> {
    shared: Arc<Shared<S>>,
    rx: Rx,
}

/// The half that sends.
#[derive(Debug)]
pub struct Sender<S> {
    shared: Arc<Shared<S>>,
}

pub(super) fn split<S>(socket: WebSocket<S>) -> (Sender<S>, Receiver<S>) {
    let WebSocket { driver, rx, subprotocol } = socket;
    let wakers = Arc::new(Wakers::default());
    let both = Waker::from(wakers.clone());
    let shared = Arc::new(Shared { driver: Mutex::new(driver), wakers, both, subprotocol });
    (Sender { shared: shared.clone() }, Receiver { shared, rx })
}

impl<S> Receiver<S> {
    /// Puts the halves together again. `Err` gives them back: they are not of the same connection.
    pub fn reunite(self, sender: Sender<S>) -> Result<WebSocket<S>, (Self, Sender<S>)> {
        if !Arc::ptr_eq(&self.shared, &sender.shared) {
            return Err((self, sender));
        }
        drop(sender);
        match Arc::try_unwrap(self.shared) {
            Ok(shared) => Ok(WebSocket {
                driver: shared.driver.into_inner().unwrap_or_else(PoisonError::into_inner),
                rx: self.rx,
                subprotocol: shared.subprotocol,
            }),
            // There are two halves, and both are here.
            Err(shared) => Err((Self { shared: shared.clone(), rx: self.rx }, Sender { shared })),
        }
    }

    /// How the connection ended; `None` as long as it has not.
    pub fn close_cause(&self) -> Option<CloseCause> {
        lock(&self.shared.driver).close_cause()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Receiver<S> {
    /// The next event, as [`WebSocket::recv`]. Cancel-safe.
    ///
    /// # Errors
    /// As [`WebSocket::recv`].
    pub async fn recv(&mut self) -> Option<Result<Event<'_>, Error>> {
        let Self { shared, rx } = self;
        let found = poll_fn(|cx| {
            let wakers = &shared.wakers;
            shared.turn(cx, &wakers.receiver, &wakers.sender, |driver, cx| driver.poll_found(cx, rx))
        });
        match found.await? {
            Ok(found) => Some(Ok(found.event(self.rx.lend()))),
            Err(error) => Some(Err(error)),
        }
    }

    /// The next data message, as [`WebSocket::recv_message`]. Cancel-safe.
    ///
    /// # Errors
    /// As [`WebSocket::recv_message`].
    pub async fn recv_message(&mut self) -> Option<Result<Message, Error>> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    pub(super) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        let Self { shared, rx } = self;
        let wakers = &shared.wakers;
        shared.turn(cx, &wakers.receiver, &wakers.sender, |driver, cx| driver.poll_message(cx, rx))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sender<S> {
    /// Sends a message: [feeds](Self::feed) and [flushes](Self::flush) it, each by itself: what the other half receives
    /// holds nothing back here. Cancel-safe: it is taken whole or not at all.
    ///
    /// # Errors
    /// As [`WebSocket::send`].
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<(), Error> {
        self.feed(message).await?;
        self.flush().await
    }

    /// Sends a text without taking it over, as [`send`](Self::send) does. Cancel-safe.
    ///
    /// # Errors
    /// As [`WebSocket::send`].
    pub async fn send_text(&mut self, text: &str) -> Result<(), Error> {
        self.send_data(Kind::Text, text.as_bytes()).await
    }

    /// Sends bytes without taking them over, as [`send`](Self::send) does. Cancel-safe.
    ///
    /// # Errors
    /// As [`WebSocket::send`].
    pub async fn send_binary(&mut self, data: &[u8]) -> Result<(), Error> {
        self.send_data(Kind::Binary, data).await
    }

    async fn send_data(&mut self, kind: Kind, data: &[u8]) -> Result<(), Error> {
        poll_fn(|cx| self.turn(cx, |driver, cx| driver.poll_ready(cx))).await?;
        self.lock().take(kind, data, || bytes::Bytes::copy_from_slice(data))?;
        self.flush().await
    }

    /// Takes a message to be sent, as [`WebSocket::feed`]; it goes out with the next flush of either half.
    /// Cancel-safe: when dropped, the message was not taken; when ready, it was.
    ///
    /// # Errors
    /// As [`WebSocket::feed`].
    pub async fn feed(&mut self, message: impl Into<Message>) -> Result<(), Error> {
        poll_fn(|cx| self.turn(cx, |driver, cx| driver.poll_ready(cx))).await?;
        self.lock().take_message(message.into())
    }

    /// Writes everything that was taken, as [`WebSocket::flush`]. Cancel-safe.
    ///
    /// # Errors
    /// As [`WebSocket::flush`].
    pub async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.turn(cx, |driver, cx| driver.poll_flush(cx))).await
    }

    /// Sends a Ping, as [`WebSocket::ping`]. Cancel-safe.
    ///
    /// # Errors
    /// As [`WebSocket::ping`].
    pub async fn ping(&mut self, payload: &[u8]) -> Result<(), Error> {
        loop {
            let taken = self.lock().take_ping(payload)?;
            self.flush().await?;
            if taken {
                return Ok(());
            }
        }
    }

    /// Sends a Close behind what was taken. The [`Receiver`] sees the rest of the closing handshake through, and
    /// keeps its deadline. Cancel-safe.
    ///
    /// # Errors
    /// As [`WebSocket::flush`].
    pub async fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        self.start_close(code, reason);
        self.flush().await
    }

    pub(super) fn start_close(&self, code: CloseCode, reason: &str) {
        self.lock().start_close(code, reason);
        // It has a new deadline to keep.
        wake(&self.shared.wakers.receiver);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Driver<S>> {
        lock(&self.shared.driver)
    }

    pub(super) fn turn<T>(
        &self,
        cx: &mut Context<'_>,
        turn: impl FnOnce(&mut Driver<S>, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let wakers = &self.shared.wakers;
        self.shared.turn(cx, &wakers.sender, &wakers.receiver, turn)
    }
}
