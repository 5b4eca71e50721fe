//! What a shard writes to: its own TCP sockets at once, with or without TLS, anything else by way of the connection's
//! task.

use super::HubConfig;
use super::outlet::Pins;
use super::pulse::TcpState;
use super::tls::Tls;
use crate::net::NetStream;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_rustls::rustls::ServerConnection;

/// Any stream that is not a TCP socket of our own: HTTP/2, an upgraded connection of another server.
pub trait AsyncStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> AsyncStream for T {}

/// A connection, as it is handed over to a shard.
pub enum Socket {
    /// A TCP socket, in non-blocking mode: the *direct* sink. The shard writes what is new without waking a task.
    Tcp(std::net::TcpStream),
    /// The same with TLS over it, whose handshake is done. (A stream of `tokio-rustls` is turned into one by
    /// `Socket::try_from`.) What waits to go out is one record at most; it counts for
    /// [`max_pinned_bytes`](HubConfig::max_pinned_bytes).
    Tls(std::net::TcpStream, Box<ServerConnection>),
    /// The *woken* sink: one wake-up of its task for each burst.
    Stream(Box<dyn AsyncStream>),
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "Tcp",
            Self::Tls(..) => "Tls",
            Self::Stream(_) => "Stream",
        })
    }
}

/// Takes a stream apart, with whatever it has read and not handed out.
///
/// # Errors
/// The socket cannot be taken out of its runtime.
impl TryFrom<tokio_rustls::server::TlsStream<TcpStream>> for Socket {
    type Error = io::Error;

    fn try_from(stream: tokio_rustls::server::TlsStream<TcpStream>) -> io::Result<Self> {
        let (tcp, connection) = stream.into_inner();
        Ok(Self::Tls(tcp.into_std()?, Box::new(connection)))
    }
}

/// As above; TLS of a client's end stays a stream.
impl TryFrom<NetStream> for Socket {
    type Error = io::Error;

    fn try_from(stream: NetStream) -> io::Result<Self> {
        match stream {
            NetStream::Plain(tcp) => Ok(Self::Tcp(tcp.into_std()?)),
            NetStream::Tls(tls) => match *tls {
                TlsStream::Server(tls) => Self::try_from(tls),
                client @ TlsStream::Client(_) => Ok(Self::Stream(Box::new(client))),
            },
        }
    }
}

/// A socket at home in its shard.
pub(super) enum Stream {
    Direct(TcpStream),
    /// Apart, for it is large and others have none.
    Tls(Box<(TcpStream, Tls)>),
    Woken(Box<dyn AsyncStream>),
}

impl Stream {
    /// Takes the socket over, and bounds what the kernel holds for a slow peer, and how long it holds on to what the peer
    /// does not acknowledge, also when this end has closed the socket.
    pub(super) fn new(socket: Socket, config: &HubConfig, pins: &Arc<Pins>) -> io::Result<Self> {
        Ok(match socket {
            Socket::Tcp(tcp) => Self::Direct(own(tcp, config)?),
            Socket::Tls(tcp, tls) => {
                Self::Tls(Box::new((own(tcp, config)?, Tls::new(tls, Arc::clone(pins)))))
            }
            Socket::Stream(stream) => Self::Woken(stream),
        })
    }

    /// The socket underneath, where it is the shard's own.
    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Direct(tcp) => Some(tcp),
            Self::Tls(tls) => Some(&tls.0),
            Self::Woken(_) => None,
        }
    }

    /// The kernel forgets what it still has to send: a peer that does not read would leave it there for minutes.
    pub(super) fn abandon(&self) {
        if let Some(tcp) = self.tcp() {
            // If it cannot be had, the kernel gives up later.
            let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
    }

    /// What the system knows of the peer, if it can be asked.
    pub(super) fn tcp_state(&self) -> Option<TcpState> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(tcp) = self.tcp() {
            return super::tcp_info::tcp_state(std::os::fd::AsFd::as_fd(tcp));
        }
        None
    }

    /// Whether the shard may write without a task.
    pub(super) fn is_direct(&self) -> bool {
        !matches!(self, Self::Woken(_))
    }

    /// Whether the stream holds nothing back of what was written, as far as that is known.
    pub(super) fn is_flushed(&self) -> bool {
        match self {
            Self::Tls(tls) => tls.1.is_flushed(),
            Self::Direct(_) | Self::Woken(_) => true,
        }
    }

    /// Writes at once, if it can be done without a task.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Direct(tcp) => tcp.try_write(bytes),
            Self::Tls(tls) => {
                let (tcp, tls) = &mut **tls;
                tls.write(&mut Now(tcp), bytes)
            }
            Self::Woken(_) => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Writes, or sees to it that the task is woken when there is room.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Direct(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => {
                let (tcp, tls) = &mut **tls;
                or_pending(tls.write(&mut Later { tcp, cx }, bytes))
            }
            Self::Woken(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    /// What was written goes out. Only streams that buffer need it.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Direct(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => {
                let (tcp, tls) = &mut **tls;
                or_pending(tls.flush(&mut Later { tcp, cx }))
            }
            Self::Woken(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Reads; `Ok(0)` is the end of the stream, and [`Interrupted`](ErrorKind::Interrupted) means that there may be more,
    /// after others had their turn.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(space);
        let read = match self {
            Self::Direct(tcp) => Pin::new(tcp).poll_read(cx, &mut buf),
            Self::Tls(tls) => {
                let (tcp, tls) = &mut **tls;
                return or_pending(tls.read(&mut Later { tcp, cx }, space));
            }
            Self::Woken(stream) => Pin::new(stream).poll_read(cx, &mut buf),
        };
        read.map_ok(|()| buf.filled().len())
    }

    /// Ends our direction.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Direct(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => {
                let (tcp, tls) = &mut **tls;
                ready!(or_pending(tls.close(&mut Later { tcp, cx })))?;
                Pin::new(tcp).poll_shutdown(cx)
            }
            Self::Woken(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Makes a socket the shard's own.
fn own(tcp: std::net::TcpStream, config: &HubConfig) -> io::Result<TcpStream> {
    tcp.set_nonblocking(true)?;
    let tcp = TcpStream::from_std(tcp)?;
    tcp.set_nodelay(true)?;
    let socket = socket2::SockRef::from(&tcp);
    // Not every platform has it, and nothing but memory depends on it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        socket.set_tcp_notsent_lowat(config.unsent)?;
        // It counts milliseconds, in an int.
        let patience = config.patience().min(Duration::from_millis(i32::MAX as u64));
        socket.set_tcp_user_timeout(Some(patience))?;
    }
    if config.send_buffer > 0 {
        socket.set_send_buffer_size(config.send_buffer)?;
    }
    Ok(tcp)
}

/// A socket that takes what it can at once.
struct Now<'a>(&'a TcpStream);

/// A socket that sees to it that the task is woken when it is ready.
struct Later<'a, 'c> {
    tcp: &'a mut TcpStream,
    cx: &'a mut Context<'c>,
}

fn or_pending<T>(done: io::Result<T>) -> Poll<io::Result<T>> {
    match done {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        done => Poll::Ready(done),
    }
}

fn or_would_block<T>(done: Poll<io::Result<T>>) -> io::Result<T> {
    match done {
        Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        Poll::Ready(done) => done,
    }
}

impl io::Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Write for Later<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.tcp).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.tcp).poll_write_vectored(self.cx, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Read for Later<'_, '_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(space);
        or_would_block(Pin::new(&mut *self.tcp).poll_read(self.cx, &mut buf))?;
        Ok(buf.filled().len())
    }
}
