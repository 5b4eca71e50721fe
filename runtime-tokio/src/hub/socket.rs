//! What a shard writes to: its own TCP sockets at once, with or without TLS, anything else in the connection's turn.

use super::HubConfig;
use super::pulse::TcpState;
use super::shard::Shard;
use super::tls::Tls;
use crate::net::NetStream;
use crate::readiness::{Ready, Tcp};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
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
    /// A TCP socket: the *direct* sink. The shard writes what is new at once.
    Tcp(std::net::TcpStream),
    /// The same with TLS over it, whose handshake is done. (A stream of `tokio-rustls` is turned into one by
    /// `Socket::try_from`.) What waits to go out is one record at most; it counts for
    /// [`max_pinned_bytes`](HubConfig::max_pinned_bytes).
    Tls(std::net::TcpStream, Box<ServerConnection>),
    /// The *woken* sink: one turn for each burst.
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
    Direct(Tcp),
    /// Apart, for it is large and others have none.
    Tls(Box<(Tcp, Tls)>),
    /// With who wakes the connection for it.
    Woken(Box<(Box<dyn AsyncStream>, Waker)>),
}

impl Stream {
    /// Takes the socket over, and bounds what the kernel holds for a slow peer, and how long it holds on to what the
    /// peer does not acknowledge, also when this end has closed the socket.
    pub(super) fn new(socket: Socket, id: u32, shard: &Shard) -> io::Result<Self> {
        let own = |tcp| shard.add_socket(set_up(tcp, &shard.shared.config)?, id);
        Ok(match socket {
            Socket::Tcp(tcp) => Self::Direct(own(tcp)?),
            Socket::Tls(tcp, tls) => {
                Self::Tls(Box::new((own(tcp)?, Tls::new(tls, Arc::clone(&shard.shared.pins)))))
            }
            Socket::Stream(stream) => Self::Woken(Box::new((stream, shard.waker(id)))),
        })
    }

    /// The socket underneath, where it is the shard's own.
    fn tcp(&self) -> Option<&Tcp> {
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
            let _ = socket2::SockRef::from(tcp.socket()).set_linger(Some(Duration::ZERO));
        }
    }

    /// What the system knows of the peer, if it can be asked.
    pub(super) fn tcp_state(&self) -> Option<TcpState> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(tcp) = self.tcp() {
            return super::tcp_info::tcp_state(std::os::fd::AsFd::as_fd(tcp.socket()));
        }
        None
    }

    /// The socket has become ready.
    pub(super) fn note(&self, ready: Ready) {
        if let Some(tcp) = self.tcp() {
            tcp.note(ready);
        }
    }

    /// Whether its socket is the shard's own: it can be written to at once, and needs no waker.
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

    /// Writes at once, if it can be done without a waker.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Direct(tcp) => tcp.try_write(bytes),
            Self::Tls(tls) => {
                let (tcp, tls) = &mut **tls;
                tls.write(tcp, bytes)
            }
            Self::Woken(_) => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Writes, or sees to it that there is a turn when there is room.
    pub(super) fn poll_write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Direct(_) | Self::Tls(_) => or_pending(self.try_write(bytes)),
            Self::Woken(woken) => {
                let (stream, waker) = &mut **woken;
                Pin::new(stream).poll_write(&mut Context::from_waker(waker), bytes)
            }
        }
    }

    /// What was written goes out. Only streams that buffer need it.
    pub(super) fn poll_flush(&mut self) -> Poll<io::Result<()>> {
        match self {
            Self::Direct(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => {
                let (tcp, tls) = &mut **tls;
                or_pending(tls.flush(tcp))
            }
            Self::Woken(woken) => {
                let (stream, waker) = &mut **woken;
                Pin::new(stream).poll_flush(&mut Context::from_waker(waker))
            }
        }
    }

    /// Reads; `Ok(0)` is the end of the stream, and [`Interrupted`](ErrorKind::Interrupted) means that there may be
    /// more, after others had their turn.
    pub(super) fn poll_read(&mut self, space: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Direct(tcp) => or_pending(tcp.try_read(space)),
            Self::Tls(tls) => {
                let (tcp, tls) = &mut **tls;
                or_pending(tls.read(tcp, space))
            }
            Self::Woken(woken) => {
                let (stream, waker) = &mut **woken;
                let mut buf = ReadBuf::new(space);
                Pin::new(stream)
                    .poll_read(&mut Context::from_waker(waker), &mut buf)
                    .map_ok(|()| buf.filled().len())
            }
        }
    }

    /// Ends our direction.
    pub(super) fn poll_shutdown(&mut self) -> Poll<io::Result<()>> {
        match self {
            Self::Direct(tcp) => Poll::Ready(tcp.shutdown(Shutdown::Write)),
            Self::Tls(tls) => {
                let (tcp, tls) = &mut **tls;
                ready!(or_pending(tls.close(tcp)))?;
                Poll::Ready(tcp.shutdown(Shutdown::Write))
            }
            Self::Woken(woken) => {
                let (stream, waker) = &mut **woken;
                Pin::new(stream).poll_shutdown(&mut Context::from_waker(waker))
            }
        }
    }
}

/// Sets a socket's options.
fn set_up(tcp: std::net::TcpStream, config: &HubConfig) -> io::Result<std::net::TcpStream> {
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

/// A socket of the shard's is noted when it becomes ready, without a waker.
fn or_pending<T>(done: io::Result<T>) -> Poll<io::Result<T>> {
    match done {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        done => Poll::Ready(done),
    }
}
