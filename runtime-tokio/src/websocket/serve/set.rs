//! Many connections that one thread serves, without a task, a registration with tokio or a timer for any of them.

use super::turn::Turn;
use super::{Handler, Serve, give_way, serve_with};
use crate::clock::Clock;
use crate::readiness::{Readiness, Tcp};
use crate::timers::Timers;
use crate::websocket::WebSocket;
use crate::websocket::driver::Timer;
use futures_util::task::AtomicWaker;
use slab::Slab;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::mem;
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep_until};

/// Looks at which sockets are ready, before other tasks of the thread have their turn.
const ROUNDS: usize = 4;

/// So few connections are no matter of memory.
const FEW: usize = 64;

/// Connections that wait to be taken over.
const ARRIVALS: usize = 1024;

/// Serves connections over TCP on the thread that runs it, as [`serve_with`] serves one in a task.
///
/// A task costs a connection that says nothing several hundred bytes: its future, its place among tokio's sockets, its
/// timer. Here it costs its state, in one array, and nothing else. Use one set for each thread, with a
/// current-thread runtime, and hand each accepted connection to one of them, once its opening handshake is done.
///
/// ```no_run
/// use longwire::websocket::{Config, MessageRef, Output, ServeSet, accept};
/// use std::sync::Arc;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let (adopter, set) = ServeSet::new()?;
/// tokio::spawn(set.run());
/// let config = Arc::new(Config::default());
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// loop {
///     let (stream, _) = listener.accept().await?;
///     let (config, adopter) = (config.clone(), adopter.clone());
///     tokio::spawn(async move {
///         if let Ok(socket) = accept(stream, config).await {
///             let echo = |message: MessageRef<'_>, out: &mut Output<'_>| out.send(message);
///             let _ = adopter.adopt(socket, echo).await;
///         }
///     });
/// }
/// # }
/// ```
pub struct ServeSet<H> {
    members: Slab<Member<H>>,
    readiness: Readiness,
    timers: Timers,
    clock: Clock,
    /// For the first of the timers.
    sleep: Option<Pin<Box<Sleep>>>,
    arrivals: mpsc::Receiver<Arrival<H>>,
    /// Nobody is left to hand over connections.
    complete: bool,
    woken: Arc<Woken>,
    /// Whose turn it is.
    due: Vec<usize>,
    /// As many members as there have been since memory was last given back.
    peak: usize,
}

struct Member<H> {
    serve: Serve<Stream, H>,
    /// Of one that waits for something else than its socket.
    call: Option<Box<(Arc<Call>, Waker)>>,
    /// From the clock of its driver to that of the set, in milliseconds: either may be the older one.
    offset: i64,
}

/// A connection on its way to its set.
struct Arrival<H> {
    serve: Serve<TcpStream, H>,
}

/// Hands connections over to a [`ServeSet`], from any thread. Clones belong to the same set.
pub struct Adopter<H>(mpsc::Sender<Arrival<H>>);

impl<H> Clone for Adopter<H> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<H> std::fmt::Debug for Adopter<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Adopter")
    }
}

impl<H> std::fmt::Debug for ServeSet<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServeSet").field("connections", &self.members.len()).finish_non_exhaustive()
    }
}

impl<H: Handler> Adopter<H> {
    /// Hands a connection over, which is served from then on. It waits while 1,024 others are on their way. False: the
    /// set is gone, and with it the connection.
    ///
    /// Cancel-safe, but for the connection, which ends when this is dropped before it is ready.
    pub async fn adopt(&self, socket: WebSocket<TcpStream>, handler: H) -> bool {
        self.adopt_served(serve_with(socket, handler)).await
    }

    /// As [`adopt`](Self::adopt), of a connection that has a [`Pusher`](super::Pusher).
    pub async fn adopt_served(&self, serve: Serve<TcpStream, H>) -> bool {
        self.0.send(Arrival { serve }).await.is_ok()
    }
}

impl<H: Handler> ServeSet<H> {
    /// An empty set, and what hands connections over to it. It belongs to the runtime in which it is made, whose I/O
    /// and time have to be enabled.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn new() -> io::Result<(Adopter<H>, Self)> {
        let (adopter, arrivals) = mpsc::channel(ARRIVALS);
        let set = Self {
            members: Slab::new(),
            readiness: Readiness::new()?,
            timers: Timers::default(),
            clock: Clock::start(),
            sleep: None,
            arrivals,
            complete: false,
            woken: Arc::default(),
            due: Vec::new(),
            peak: 0,
        };
        Ok((Adopter(adopter), set))
    }

    /// Serves all connections, until they are over and nobody is left to hand over others. Dropped, it drops them,
    /// which ends them without a closing handshake. A handler that panics ends its connection, and no other.
    ///
    /// # Errors
    /// Those of the system, when it cannot be asked which sockets are ready.
    pub async fn run(mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.woken.task.register(cx.waker());
        // Also when there is always something else to do.
        let Self { timers, due, .. } = self;
        timers.expire(self.clock.now().as_millis(), |key| due.push(key as usize));
        self.take_over(cx);
        self.due.append(&mut self.woken.take());
        for _ in 0..ROUNDS {
            let Self { readiness, members, due, .. } = self;
            let looked = readiness.poll(cx, |key, ready| {
                if let Some(member) = members.get(key) {
                    member.serve.driver.stream.0.note(ready);
                    due.push(key);
                }
            })?;
            self.take_turns();
            if looked.is_pending() {
                if self.due.is_empty() && self.poll_timers(cx).is_pending() {
                    let over = self.complete && self.members.is_empty();
                    return if over { Poll::Ready(Ok(())) } else { Poll::Pending };
                }
                self.take_turns();
            }
        }
        give_way(cx);
        Poll::Pending
    }

    /// A connection is over.
    fn remove(&mut self, key: usize) {
        let removed = self.members.try_remove(key);
        if let Ok(key) = u32::try_from(key) {
            self.timers.disarm(key);
        }
        // Memory is given back when three of four have gone, as far as those that are left are not behind it, and with
        // the last; what that takes is little beside their going.
        let most_have_gone = self.peak >= FEW && self.members.len() <= self.peak / 4;
        if most_have_gone || self.members.is_empty() {
            self.peak = self.members.len();
            self.members.shrink_to_fit();
            self.timers.shrink_to(self.members.capacity());
        }
        // With it goes the handler, which is the application's, and may panic.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(removed)));
    }

    /// Takes over the connections that have arrived.
    fn take_over(&mut self, cx: &mut Context<'_>) {
        while !self.complete {
            match self.arrivals.poll_recv(cx) {
                Poll::Ready(Some(arrival)) => {
                    let entry = self.members.vacant_entry();
                    let key = entry.key();
                    // A socket that cannot be taken over is dropped, and with it the connection and its handler.
                    let member = || Member::new(arrival, &self.readiness, key, self.clock);
                    if let Ok(Ok(member)) = catch_unwind(AssertUnwindSafe(member)) {
                        entry.insert(member);
                        self.due.push(key);
                        self.peak = self.peak.max(self.members.len());
                    }
                }
                Poll::Ready(None) => self.complete = true,
                Poll::Pending => return,
            }
        }
    }

    /// Those that are due have a turn; afterwards those are due that want another one at once.
    fn take_turns(&mut self) {
        let mut due = mem::take(&mut self.due);
        for key in due.drain(..) {
            let Some(member) = self.members.get_mut(key) else { continue };
            // As in a task of its own: a handler that panics ends its connection, and no other.
            let turn = catch_unwind(AssertUnwindSafe(|| member.take_turn(key, &self.woken)));
            match turn {
                Ok(Turn::Over(_)) | Err(_) => {
                    self.remove(key);
                    continue;
                }
                Ok(Turn::More) => self.due.push(key),
                Ok(Turn::Waiting) => {}
            }
            let (Timer::Elsewhere(alarm), Ok(key)) = (&mut member.serve.driver.timer, u32::try_from(key))
            else {
                continue;
            };
            match alarm.take() {
                Some(at) => self.timers.arm(key, at.as_millis().saturating_add_signed(member.offset)),
                None => self.timers.disarm(key),
            }
        }
        if self.due.is_empty() {
            self.due = due;
        }
    }

    /// Ready when somebody's deadline has come.
    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { timers, due, .. } = self;
        loop {
            let Some(next) = timers.next() else { return Poll::Pending };
            let next = self.clock.at(longwire_core::time::Instant::from_millis(next));
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(next)));
            if sleep.deadline() != next {
                sleep.as_mut().reset(next);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            timers.expire(self.clock.now().as_millis(), |key| due.push(key as usize));
            if !due.is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

impl<H: Handler> Member<H> {
    fn new(arrival: Arrival<H>, readiness: &Readiness, key: usize, clock: Clock) -> io::Result<Self> {
        let mut failed = None;
        let serve = arrival.serve.map_stream(|stream| {
            let taken = stream.into_std().and_then(|stream| readiness.add(stream, key));
            taken.map(Stream).inspect_err(|error| failed = Some(error.kind())).ok()
        });
        let Some(mut serve) = serve else { return Err(failed.unwrap_or(ErrorKind::Other).into()) };
        serve.driver.timer = Timer::Elsewhere(None);
        let own = serve.driver.clock.now().as_millis();
        let offset = clock.now().as_millis().wrapping_sub(own).cast_signed();
        Ok(Self { serve, call: None, offset })
    }

    fn take_turn(&mut self, key: usize, woken: &Arc<Woken>) -> Turn {
        loop {
            let waker = match self.call.as_deref() {
                Some((call, waker)) => {
                    // A swap takes over from whoever woke it, and so sees what that one did before.
                    call.made.swap(false, Ordering::AcqRel);
                    waker
                }
                None => Waker::noop(),
            };
            let turn = self.serve.take_turn(&mut Context::from_waker(waker));
            let Serve { answering, pushed, driver, .. } = &self.serve;
            // The last of what a peer sends that was given up is read in pieces, of which each wakes for the next.
            let waits = answering.is_some() || pushed.is_some() || !driver.is_running();
            if !waits || self.call.is_some() || matches!(turn, Turn::Over(_)) {
                return turn;
            }
            // What it waits for has to know whom to wake.
            let call = Arc::new(Call { key, made: AtomicBool::new(false), woken: Arc::clone(woken) });
            self.call = Some(Box::new((Arc::clone(&call), call.into())));
        }
    }
}

/// Who was woken by something else than a socket, and the task of the set.
#[derive(Default)]
struct Woken {
    keys: Mutex<Vec<usize>>,
    task: AtomicWaker,
}

/// The waker of one member.
struct Call {
    key: usize,
    /// Its key is in the list.
    made: AtomicBool,
    woken: Arc<Woken>,
}

impl Woken {
    fn take(&self) -> Vec<usize> {
        mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.made.swap(true, Ordering::AcqRel) {
            self.woken.keys.lock().unwrap_or_else(PoisonError::into_inner).push(self.key);
            self.woken.task.wake();
        }
    }
}

/// A socket of the set. It wakes nobody: the set says when it is ready.
#[derive(Debug)]
pub(super) struct Stream(Tcp);

fn poll<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // All of it is initialised already: nothing is cleared here.
        let n = std::task::ready!(poll(self.0.try_read(buf.initialize_unfilled())))?;
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        poll(self.0.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll(self.0.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::{Config, Error, MessageRef, Output, Role};
    use tokio::io::AsyncWriteExt as _;

    type Nothing = fn(MessageRef<'_>, &mut Output<'_>) -> Result<(), Error>;

    /// A connection to which much may be on its way, and its client.
    async fn connection() -> (Serve<TcpStream, Nothing>, TcpStream) {
        let listener = tokio::net::TcpSocket::new_v4().unwrap();
        listener.set_recv_buffer_size(1 << 20).unwrap();
        listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.listen(1).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let config = Config { max_read: 100, ..Config::default() };
        let socket = WebSocket::from_parts(server, Role::Server, &[], config);
        (serve_with(socket, (|_, _| Ok(())) as Nothing), client)
    }

    #[tokio::test(start_paused = true)]
    async fn the_set_may_be_the_older_one_or_the_connection() {
        let readiness = Readiness::new().unwrap();
        for (set_first, offset) in [(true, 100_000), (false, -100_000)] {
            let pass = || tokio::time::advance(std::time::Duration::from_secs(100));
            let before = Clock::start();
            if set_first {
                pass().await;
            }
            let (serve, _client) = connection().await;
            let clock = if set_first {
                before
            } else {
                pass().await;
                Clock::start()
            };
            assert_eq!(Member::new(Arrival { serve }, &readiness, 0, clock).unwrap().offset, offset);
        }
    }

    #[tokio::test]
    async fn memory_is_given_back_when_most_have_gone() {
        let (adopter, mut set) = ServeSet::new().unwrap();
        let mut clients = Vec::new();
        while clients.len() < 100 {
            let (serve, client) = connection().await;
            clients.push(client);
            assert!(adopter.adopt_served(serve).await);
            poll_fn(|cx| Poll::Ready(set.poll(cx).is_pending())).await;
        }
        assert!(set.members.capacity() >= 100);
        // Those that are left were there first.
        while clients.len() > 10 {
            clients.pop();
            while set.members.len() > clients.len() {
                poll_fn(|cx| Poll::Ready(set.poll(cx).is_pending())).await;
                tokio::task::yield_now().await;
            }
        }
        assert!(set.members.capacity() <= 25, "{}", set.members.capacity());
    }

    #[tokio::test]
    async fn one_that_is_over_is_woken_for_the_rest_of_what_its_peer_sent() {
        let (serve, mut client) = connection().await;
        let readiness = Readiness::new().unwrap();
        let mut member = Member::new(Arrival { serve }, &readiness, 7, Clock::start()).unwrap();
        // Not masked, which ends it; and more than is read in a turn.
        client.write_all(b"\x82\x01x").await.unwrap();
        let socket = member.serve.driver.stream.0.socket();
        let mut seen = vec![0; 100_000];
        while client.try_write(&[0; 1000]).is_ok() || socket.peek(&mut seen).unwrap() < 80_000 {}
        let woken = Arc::default();
        assert!(matches!(member.take_turn(7, &woken), Turn::Waiting));
        assert_eq!(woken.take(), [7]);
    }

    #[test]
    fn a_connection_that_says_nothing_is_small() {
        type Echo = fn(MessageRef<'_>, &mut Output<'_>) -> Result<(), Error>;
        let size = size_of::<Member<Echo>>();
        // Beside it there are 16 bytes for its deadline.
        assert!(size <= 416, "{size}");
    }
}
