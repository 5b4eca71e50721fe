//! What a connection needs of the stream below it.

use core::fmt::Debug;

/// A byte stream to the peer: a TCP socket, a TLS session, a serial line.
///
/// What matters about a binding is what happens to a future that is dropped before it is ready, because that is how
/// asynchronous code waits for the first of several things:
///
/// | | `read` dropped | `write` dropped |
/// |---|---|---|
/// | demanded | nothing was taken | anything; the connection is over unless [`CANCEL_SAFE_WRITE`](Self::CANCEL_SAFE_WRITE) |
/// | `embassy_net::tcp::TcpSocket` | nothing was taken | nothing was taken |
/// | [`Stream`] | what the caller vouches for | the connection is over |
///
/// Nothing in this crate drops a `write` that began, except to give the connection up; an application that drops
/// [`recv`](crate::WebSocket::recv) may do so.
#[expect(
    async_fn_in_trait,
    reason = "embassy's executors poll a task where it lives: no future has to be Send"
)]
pub trait Link {
    /// What can go wrong below.
    type Error: Debug;

    /// Whether a `write` that is dropped before it is ready has taken no byte. Then the connection survives that;
    /// otherwise nobody knows how much of a frame went out, and it ends with `Error::Torn`.
    const CANCEL_SAFE_WRITE: bool = false;

    /// Waits until there is something to read, and reads at least one byte into `bytes`, which is not empty. `Ok(0)`
    /// says that the peer sends nothing more.
    ///
    /// **Cancellation.** A future that is dropped before it is ready must have taken no byte from the stream. A
    /// stream that cannot promise this (one that reads by DMA into the caller's buffer) needs a task of its own
    /// that reads into a pipe, and the pipe is the link.
    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error>;

    /// Waits until there is room, and writes at least one byte of `bytes`, which are not empty.
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error>;

    /// Sees to it that what was written leaves without a further write. The default does nothing, for a stream that
    /// does so by itself. It need not wait for the peer, and must be safe to call again after it was dropped. After
    /// [`Config::write_timeout`](crate::Config::write_timeout) it is dropped, and the connection given up.
    async fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

impl<L: Link> Link for &mut L {
    type Error = L::Error;
    const CANCEL_SAFE_WRITE: bool = L::CANCEL_SAFE_WRITE;

    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
        (**self).read(bytes).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        (**self).write(bytes).await
    }

    async fn flush(&mut self) -> Result<(), Self::Error> {
        (**self).flush().await
    }
}

/// Any stream of `embedded-io-async`.
///
/// Those traits leave open what a dropped `read` has done, so whoever wraps a stream in this type vouches that its
/// `read` takes nothing when it is dropped before it is ready (its documentation should say so: "side-effect-free on
/// cancel"). About `write` nothing is assumed.
#[derive(Debug)]
pub struct Stream<T>(pub T);

impl<T: embedded_io_async::Read + embedded_io_async::Write> Link for Stream<T> {
    type Error = T::Error;

    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
        self.0.read(bytes).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        self.0.write(bytes).await
    }

    async fn flush(&mut self) -> Result<(), Self::Error> {
        self.0.flush().await
    }
}

/// Opens links, one at a time: what an [`Uplink`](crate::Uplink) reconnects with.
#[expect(async_fn_in_trait, reason = "as for Link")]
pub trait Connect {
    /// An open link. It is closed when it is dropped.
    type Link<'a>: Link
    where
        Self: 'a;
    /// Why there is none.
    type Error: Debug;

    /// Opens a link to the gateway. It may wait for ever (the caller has a deadline), and be dropped at any time.
    async fn connect(&mut self) -> Result<Self::Link<'_>, Self::Error>;

    /// Somebody answered at the other end of the link that was opened last, so there is no reason to look for another way. Said by
    /// an [`Uplink`](crate::Uplink) after the link was dropped, and before the next one is asked for; not after an attempt that led
    /// nowhere, nor when the uplink's own future was dropped. A connector that knows several ways takes another one then, as
    /// `Tcp` does with the addresses of a name. One that stands on another connector passes it on. Does nothing by default.
    fn answered(&mut self) {}
}

/// A connector that says why there was no link, which an [`Uplink`](crate::Uplink) does not: its own
/// [`Status`](crate::Status) is that of any connector. Worth having for TLS, where the reason may be that somebody else is at the
/// other end.
///
/// ```
/// # use longwire_embassy::{Connect, OnError};
/// fn told(connect: impl Connect) -> impl Connect {
///     OnError::new(connect, |error| println!("no link: {error:?}"))
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OnError<C, F> {
    connect: C,
    tell: F,
}

impl<C: Connect, F: FnMut(&C::Error)> OnError<C, F> {
    /// `connect`, of whose errors each is told to `tell`.
    pub const fn new(connect: C, tell: F) -> Self {
        Self { connect, tell }
    }
}

impl<C: Connect, F: FnMut(&C::Error)> Connect for OnError<C, F> {
    type Link<'a>
        = C::Link<'a>
    where
        Self: 'a;
    type Error = C::Error;

    async fn connect(&mut self) -> Result<Self::Link<'_>, Self::Error> {
        self.connect.connect().await.inspect_err(|error| (self.tell)(error))
    }

    fn answered(&mut self) {
        self.connect.answered();
    }
}
