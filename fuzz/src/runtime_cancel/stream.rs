//! A stream in memory that does what a script says: when it is not ready, and how few bytes it moves at once.

use crate::choices::Choices;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The choices that everybody draws from, in the order in which they come by.
pub(super) type Script<'d> = RefCell<Choices<'d>>;

/// One direction.
#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    capacity: usize,
    /// How many more bytes go through before the cable is cut.
    lasts: Option<usize>,
    /// Nothing more comes.
    ended: bool,
    /// Nobody reads any more, or the cable was cut.
    broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// One end.
pub(super) struct Stream<'d> {
    script: &'d Script<'d>,
    inward: Rc<RefCell<Pipe>>,
    outward: Rc<RefCell<Pipe>>,
}

/// Two ends. If the script says so, it is cut somewhere.
pub(super) fn pair<'d>(script: &'d Script<'d>, may_be_cut: bool) -> (Stream<'d>, Stream<'d>) {
    let pipe = || {
        let mut choices = script.borrow_mut();
        let capacity = 1 + choices.upto(1000);
        let lasts = may_be_cut.then(|| choices.upto(3000));
        Rc::new(RefCell::new(Pipe { capacity, lasts, ..Pipe::default() }))
    };
    let (up, down) = (pipe(), pipe());
    let client = Stream { script, inward: down.clone(), outward: up.clone() };
    (client, Stream { script, inward: up, outward: down })
}

impl Pipe {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    fn cut(&mut self) {
        (self.ended, self.broken) = (true, true);
        self.wake();
    }
}

impl Stream<'_> {
    /// How many bytes may move; `None`: it is not ready just now, and says so to whoever asked.
    fn most(&self, cx: &Context<'_>) -> Option<usize> {
        let mut choices = self.script.borrow_mut();
        if choices.is_empty() {
            return Some(usize::MAX);
        }
        let choice = choices.byte();
        if choice & 3 == 3 {
            cx.waker().wake_by_ref();
            return None;
        }
        Some(1 + usize::from(choice >> 2))
    }
}

impl AsyncRead for Stream<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(most) = self.most(cx) else { return Poll::Pending };
        let mut pipe = self.inward.borrow_mut();
        if pipe.bytes.is_empty() && !pipe.ended {
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        assert!(buf.remaining() > 0, "a read of no bytes looks like the end");
        let n = most.min(buf.remaining()).min(pipe.bytes.len());
        pipe.bytes.drain(..n).for_each(|b| buf.put_slice(&[b]));
        pipe.wake();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Some(most) = self.most(cx) else { return Poll::Pending };
        let mut pipe = self.outward.borrow_mut();
        assert!(!pipe.ended || pipe.broken, "a write behind the end");
        if pipe.lasts == Some(0) {
            pipe.cut();
            self.inward.borrow_mut().cut();
        }
        if pipe.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = pipe.capacity.saturating_sub(pipe.bytes.len());
        if room == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = most.min(buf.len()).min(room).min(pipe.lasts.unwrap_or(usize::MAX));
        pipe.bytes.extend(&buf[..n]);
        pipe.lasts = pipe.lasts.map(|lasts| lasts - n);
        pipe.wake();
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.most(cx).map_or(Poll::Pending, |_| Poll::Ready(Ok(())))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.most(cx).is_none() {
            return Poll::Pending;
        }
        let mut pipe = self.outward.borrow_mut();
        pipe.ended = true;
        pipe.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        let mut outward = self.outward.borrow_mut();
        outward.ended = true;
        outward.wake();
        let mut inward = self.inward.borrow_mut();
        inward.broken = true;
        inward.wake();
    }
}
