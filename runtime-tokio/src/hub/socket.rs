//! What a shard writes to: its own TCP sockets at once, anything else by way of the connection's task.

use super::HubConfig;
use super::pulse::TcpState;
use std::fmt;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Any stream that is not a TCP socket of our own: TLS, HTTP/2, an upgraded connection of another server.
pub trait AsyncStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> AsyncStream for T {}

/// A connection, as it is handed over to a shard.
pub enum Socket {
    /// A TCP socket, in non-blocking mode: the *direct* sink. The shard writes what is new without waking a task.
    Tcp(std::net::TcpStream),
    /// The *woken* sink: one wake-up of its task for each burst.
    Stream(Box<dyn AsyncStream>),
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "Tcp",
            Self::Stream(_) => "Stream",
        })
    }
}

/// A socket at home in its shard.
pub(super) enum Stream {
    Direct(TcpStream),
    Woken(Box<dyn AsyncStream>),
}

impl Stream {
    /// Takes the socket over, and bounds what the kernel holds for a slow peer, and how long it holds on to what the peer
    /// does not acknowledge, also when this end has closed the socket.
    pub(super) fn new(socket: Socket, config: &HubConfig) -> io::Result<Self> {
        match socket {
            Socket::Tcp(tcp) => {
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
                Ok(Self::Direct(tcp))
            }
            Socket::Stream(stream) => Ok(Self::Woken(stream)),
        }
    }

    /// The kernel forgets what it still has to send: a peer that does not read would leave it there for minutes.
    pub(super) fn abandon(&self) {
        if let Self::Direct(tcp) = self {
            // If it cannot be had, the kernel gives up later.
            let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
    }

    /// What the system knows of the peer, if it can be asked.
    pub(super) fn tcp_state(&self) -> Option<TcpState> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Self::Direct(tcp) = self {
            return super::tcp_info::tcp_state(std::os::fd::AsFd::as_fd(tcp));
        }
        None
    }

    /// Whether the shard may write without a task.
    pub(super) fn is_direct(&self) -> bool {
        matches!(self, Self::Direct(_))
    }

    /// Writes at once, if it can be done without a task.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Direct(tcp) => tcp.try_write(bytes),
            Self::Woken(_) => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Writes, or sees to it that the task is woken when there is room.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Direct(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Woken(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    /// What was written goes out. Only streams that buffer need it.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Direct(_) => Poll::Ready(Ok(())),
            Self::Woken(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Reads; `Ok(0)` is the end of the stream.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(space);
        let read = match self {
            Self::Direct(tcp) => Pin::new(tcp).poll_read(cx, &mut buf),
            Self::Woken(stream) => Pin::new(stream).poll_read(cx, &mut buf),
        };
        read.map_ok(|()| buf.filled().len())
    }

    /// Ends our direction.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Direct(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Woken(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
