//! `TCP_INFO`, for which there is no safe call in the libraries that are at hand.

use super::pulse::TcpState;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Asks the system about a TCP socket (tcp(7)); `None` when it does not say.
pub(super) fn tcp_state(socket: BorrowedFd<'_>) -> Option<TcpState> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: the socket is open as long as it is borrowed, and `info` has room for the `len` bytes that may be written.
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
