//! Which of a thread's many sockets are ready: an epoll of its own (kqueue on BSD and macOS), awaited as one descriptor by
//! tokio's driver.
//!
//! A socket that is registered with tokio itself costs an entry of its driver, a task and a waker: hundreds of bytes for
//! a connection that says nothing. Here it costs four bytes for the descriptor and one for what is known of it, and whoever owns the
//! set finds its own state by the token. [`mio`] is what tokio's driver is built on, so it is in the tree already;
//! `polling` would be a second one, and is made for one-shot interest, which is a system call for each wait.
//!
//! # Edges
//! The system says once that a socket has become ready, so that is remembered ([`Tcp::note`]) until a read or a write shows
//! that it is over. Nothing is lost in between: what arrives after that is another edge. Several owners may share a set, if
//! their tokens say whose they are.

use mio::event::Event;
use mio::{Events, Interest, Poll as Selector, Token};
use std::cell::Cell;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// Sockets that are told to be ready at once. If there are more, the rest comes with the next look.
const EVENTS: usize = 256;

/// A set of sockets. It belongs to a thread with a tokio runtime, whose driver has to be enabled for I/O.
pub(crate) struct Readiness {
    selector: AsyncFd<Selector>,
    events: Events,
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Readiness")
    }
}

impl Readiness {
    /// An empty set, within the context of a runtime.
    ///
    /// # Errors
    /// The system has no descriptor left, or the runtime has ended.
    pub(crate) fn new() -> io::Result<Self> {
        let (selector, readable) = (Selector::new()?, tokio::io::Interest::READABLE);
        // SAFETY: mio's selector owns its descriptor, which stays open and the same until it is dropped, and nobody but
        // the `AsyncFd` has it.
        let selector = unsafe { AsyncFd::register_with_interest(selector, readable)? };
        Ok(Self { selector, events: Events::with_capacity(EVENTS) })
    }

    /// Takes a socket over, in non-blocking mode. It counts as ready until it was tried.
    ///
    /// # Errors
    /// Those of the system: it is closed, for example.
    pub(crate) fn add(&self, socket: std::net::TcpStream, token: usize) -> io::Result<Tcp> {
        socket.set_nonblocking(true)?;
        let mut socket = mio::net::TcpStream::from_std(socket);
        let registry = self.selector.get_ref().registry();
        registry.register(&mut socket, Token(token), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Tcp { socket, ready: Cell::new(Ready::READABLE.and(Ready::WRITABLE)) })
    }

    /// Says which sockets have become ready, by their tokens, at most so many at a time. Ready when it has said some; call it
    /// again until it is pending, when it wakes the task for the next. A token that was given to another socket
    /// meanwhile may be said once too often.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut ready: impl FnMut(usize, Ready),
    ) -> Poll<io::Result<()>> {
        let mut guard = ready!(self.selector.poll_read_ready_mut(cx))?;
        match guard.get_inner_mut().poll(&mut self.events, Some(Duration::ZERO)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Poll::Ready(Ok(())),
            Err(error) => return Poll::Ready(Err(error)),
        }
        let mut said = 0;
        for event in &self.events {
            ready(event.token().0, Ready::of(event));
            said += 1;
        }
        if said < EVENTS {
            // All of them. What comes from now on is an edge of the set.
            guard.clear_ready();
        }
        Poll::Ready(Ok(()))
    }
}

/// What a socket is ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ready(u8);

impl Ready {
    pub(crate) const NOTHING: Self = Self(0);
    pub(crate) const READABLE: Self = Self(1);
    pub(crate) const WRITABLE: Self = Self(2);
    /// The peer has ended its direction, or there was an error: reading never waits again.
    const ENDED: Self = Self(4);

    fn of(event: &Event) -> Self {
        let over = event.is_error() || event.is_write_closed();
        let ended = over || event.is_read_closed();
        Self::NOTHING
            .and(if event.is_readable() || ended { Self::READABLE } else { Self::NOTHING })
            .and(if event.is_writable() || over { Self::WRITABLE } else { Self::NOTHING })
            .and(if ended { Self::ENDED } else { Self::NOTHING })
    }

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether it is ready for all of that.
    pub(crate) const fn is(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A TCP socket of a [`Readiness`], which it leaves when it is dropped.
#[derive(Debug)]
pub(crate) struct Tcp {
    socket: mio::net::TcpStream,
    ready: Cell<Ready>,
}

impl Tcp {
    /// The set has said so.
    pub(crate) fn note(&self, ready: Ready) {
        self.ready.set(self.ready.get().and(ready));
    }

    /// What it may be ready for, as far as is known.
    pub(crate) fn ready(&self) -> Ready {
        self.ready.get()
    }

    /// For its options.
    pub(crate) fn socket(&self) -> &mio::net::TcpStream {
        &self.socket
    }

    /// Reads; `Ok(0)` is the end of the stream. The system is not asked while it is known that there is nothing.
    ///
    /// # Errors
    /// [`WouldBlock`](ErrorKind::WouldBlock) while there is nothing, and those of the system.
    pub(crate) fn try_read(&self, space: &mut [u8]) -> io::Result<usize> {
        self.attempt(Ready::READABLE, space.len(), |mut socket| socket.read(space))
    }

    /// Writes as much as there is room for. The system is not asked while it is known that there is none.
    ///
    /// # Errors
    /// [`WouldBlock`](ErrorKind::WouldBlock) while there is no room, and those of the system.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(Ready::WRITABLE, bytes.len(), |mut socket| socket.write(bytes))
    }

    /// The same with several slices, in one system call.
    ///
    /// # Errors
    /// As [`try_write`](Self::try_write).
    pub(crate) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = slices.iter().map(|slice| slice.len()).sum();
        self.attempt(Ready::WRITABLE, len, |mut socket| socket.write_vectored(slices))
    }

    /// Ends a direction, or both.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.shutdown(how)
    }

    fn attempt(
        &self,
        wanted: Ready,
        len: usize,
        mut attempt: impl FnMut(&mio::net::TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if !self.ready().is(wanted) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let done = loop {
            match attempt(&self.socket) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                done => break done,
            }
        };
        let over = match &done {
            // All that there was (epoll(7), question 9), unless it was the last: that comes with no other edge.
            Ok(n) => 0 < *n && *n < len && !self.ready().is(Ready::ENDED),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        if over {
            self.ready.set(self.ready().without(wanted));
        }
        done
    }
}

impl Read for Tcp {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        self.try_read(space)
    }
}

impl Write for Tcp {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // One is written as one: a vectored write costs the system a tenth more.
        match slices {
            [bytes] => self.try_write(bytes),
            _ => self.try_write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::future::poll_fn;
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, theirs)
    }

    fn would_block<T: fmt::Debug>(result: io::Result<T>) -> bool {
        result.unwrap_err().kind() == ErrorKind::WouldBlock
    }

    /// Notes what is said, until a socket is ready for that.
    async fn until(set: &mut Readiness, sockets: &BTreeMap<usize, Tcp>, token: usize, wanted: Ready) {
        while !sockets[&token].ready().is(wanted) {
            poll_fn(|cx| set.poll(cx, |token, ready| sockets[&token].note(ready))).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_ready_is_said_once_and_remembered_until_it_is_over() {
        let mut set = Readiness::new().unwrap();
        let (mut sockets, mut peers) = (BTreeMap::new(), BTreeMap::new());
        // More than are said at once.
        for token in 0..EVENTS + 50 {
            let (ours, theirs) = pair();
            sockets.insert(token, set.add(ours, token).unwrap());
            peers.insert(token, theirs);
        }
        let mut buf = [0; 4];
        for socket in sockets.values() {
            assert!(socket.ready().is(Ready::READABLE), "not tried yet");
            assert!(would_block(socket.try_read(&mut buf)));
            assert!(!socket.ready().is(Ready::READABLE));
        }
        for peer in peers.values_mut() {
            peer.write_all(b"abcdefg").unwrap();
        }
        for (token, socket) in &sockets {
            until(&mut set, &sockets, *token, Ready::READABLE).await;
            // It is remembered over a read that filled its buffer, and not over a short one.
            assert_eq!((socket.try_read(&mut buf).unwrap(), &buf), (4, b"abcd"));
            assert!(socket.ready().is(Ready::READABLE));
            assert_eq!(socket.try_read(&mut buf).unwrap(), 3);
            assert!(!socket.ready().is(Ready::READABLE) && would_block(socket.try_read(&mut buf)));
        }
    }

    #[tokio::test]
    async fn the_end_of_the_stream_is_not_lost_behind_a_short_read() {
        let mut set = Readiness::new().unwrap();
        let (ours, mut theirs) = pair();
        let sockets = BTreeMap::from([(7, set.add(ours, 7).unwrap())]);
        theirs.write_all(b"last").unwrap();
        drop(theirs);
        // The end may be an edge of its own, or come with the data.
        let (mut buf, mut read) = ([0; 64], 0);
        loop {
            match sockets[&7].try_read(&mut buf) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(_) => until(&mut set, &sockets, 7, Ready::READABLE).await,
            }
            if read == 4 {
                // Both are known before the next read.
                until(&mut set, &sockets, 7, Ready::ENDED).await;
            }
        }
        assert_eq!(read, 4);
    }

    #[tokio::test]
    async fn a_socket_that_takes_no_more_is_said_to_be_ready_when_it_was_read() {
        let mut set = Readiness::new().unwrap();
        let (ours, mut theirs) = pair();
        let sockets = BTreeMap::from([(0, set.add(ours, 0).unwrap())]);
        let mut written = 0;
        loop {
            match sockets[&0].try_write(&[0; 65_536]) {
                Ok(n) => written += n,
                Err(error) => break assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        assert!(!sockets[&0].ready().is(Ready::WRITABLE));
        let reader = std::thread::spawn(move || {
            let mut read = vec![0; written];
            theirs.read_exact(&mut read).map(|()| theirs)
        });
        until(&mut set, &sockets, 0, Ready::WRITABLE).await;
        assert!(sockets[&0].try_write(b"more").is_ok());
        reader.join().unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_socket_that_is_dropped_is_heard_of_no_more() {
        let mut set = Readiness::new().unwrap();
        let (gone, mut left) = pair();
        let gone = set.add(gone, 1).unwrap();
        let (stays, mut peer) = pair();
        let sockets = BTreeMap::from([(2, set.add(stays, 2).unwrap())]);
        assert!(would_block(sockets[&2].try_read(&mut [0])));
        drop(gone);
        let _ = left.write_all(b"?");
        peer.write_all(b"!").unwrap();
        // A token 1 here would be no socket's.
        until(&mut set, &sockets, 2, Ready::READABLE).await;
    }
}
