//! `TCP_INFO`, for which there is no safe call in the libraries that are at hand.

use super::pulse::TcpState;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Asks the system about a TCP socket (tcp(7)); `None` when it does not say.
pub(super) fn tcp_state(socket: BorrowedFd<'_>) -> Option<TcpState> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: the socket is open as long as it is borrowed, and `info` has room for the `len` bytes that may be
    // written.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return None;
    }
    // SAFETY: it is made of integers only, and all of it was zero before an older kernel wrote a part of it.
    let info = unsafe { info.assume_init() };
    Some(TcpState {
        silent: Duration::from_millis(info.tcpi_last_ack_recv.into()),
        owes: info.tcpi_unacked > 0 || info.tcpi_probes > 0,
        rtt: Duration::from_micros(info.tcpi_rtt.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd as _;

    /// `tests/memcheck` runs this under valgrind.
    #[test]
    fn the_system_says_how_a_connection_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"?").unwrap();
        server.read_exact(&mut [0]).unwrap();
        let state = tcp_state(client.as_fd()).unwrap();
        assert!(state.rtt > Duration::ZERO && state.rtt < Duration::from_secs(60), "{:?}", state.rtt);
        assert!(state.silent < Duration::from_secs(60), "{:?}", state.silent);
        assert!(tcp_state(UdpSocket::bind("127.0.0.1:0").unwrap().as_fd()).is_none());
    }
}
