//! A stream in memory, and an executor that drops futures.
#![allow(dead_code, reason = "each test file uses its part of this")]
#![allow(clippy::panic, reason = "a test's helper fails the test")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use embassy_time::MockDriver;
use longwire_core::buf::{RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::http::head::{HeadReader, Limits, Step};
use longwire_core::http::view::Request;
use longwire_embassy::{Connect, Link};

/// The tests share one clock.
pub(crate) fn clock() -> (MutexGuard<'static, ()>, &'static MockDriver) {
    static CLOCK: Mutex<()> = Mutex::new(());
    let guard = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    MockDriver::get().reset();
    (guard, MockDriver::get())
}

/// A generator of numbers that are always the same.
#[derive(Clone, Debug)]
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }
}

/// Not true; the tests need no secrets.
impl longwire_core::rand_core::TryCryptoRng for Numbers {}

impl longwire_core::rand_core::TryRng for Numbers {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::try_from(self.next() >> 32).unwrap())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill_with(|| self.next().to_le_bytes()[0]);
        Ok(())
    }
}

/// Both directions of a stream, held by the test and by the link.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// What the client will read.
    pub(crate) to_client: VecDeque<u8>,
    /// Nothing comes after that.
    pub(crate) ended: bool,
    /// What the client wrote.
    pub(crate) from_client: Vec<u8>,
    /// The link takes nothing.
    pub(crate) stuck: bool,
}

/// The client's end. Reads and writes keep their caller waiting now and then, and move only some bytes. Whether they
/// waited is remembered here and not in their futures: so futures that are all dropped get somewhere too.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) wire: Rc<RefCell<Wire>>,
    pub(crate) pace: Pace,
    waited: bool,
}

/// How a [`Memory`] moves bytes.
#[derive(Clone, Debug)]
pub(crate) enum Pace {
    /// At most so many bytes at once, each time after one turn of waiting.
    Bytes(usize),
    /// Up to so many bytes, after waiting or not, as the numbers fall.
    Random(Numbers, usize),
}

impl Memory {
    pub(crate) fn new(pace: Pace) -> Self {
        Self { wire: Rc::default(), pace, waited: false }
    }

    /// How many bytes may move now; `None`: wait.
    fn turn(&mut self, cx: &Context<'_>) -> Option<usize> {
        let (ready, most) = match &mut self.pace {
            Pace::Bytes(most) => (self.waited, *most),
            Pace::Random(numbers, most) => (numbers.below(2) == 0, 1 + numbers.below(*most)),
        };
        self.waited = !ready;
        if !ready {
            cx.waker().wake_by_ref();
        }
        ready.then_some(most)
    }
}

impl Link for Memory {
    type Error = Infallible;
    const CANCEL_SAFE_WRITE: bool = true;

    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        assert!(!bytes.is_empty(), "a read into nothing looks like the end of the stream");
        poll_fn(|cx| {
            let Some(most) = self.turn(cx) else { return Poll::Pending };
            let mut wire = self.wire.borrow_mut();
            let n = bytes.len().min(most).min(wire.to_client.len());
            if n == 0 && !wire.ended {
                return Poll::Pending;
            }
            for (to, from) in bytes.iter_mut().zip(wire.to_client.drain(..n)) {
                *to = from;
            }
            Poll::Ready(Ok(n))
        })
        .await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        poll_fn(|cx| {
            let Some(most) = self.turn(cx) else { return Poll::Pending };
            let mut wire = self.wire.borrow_mut();
            if wire.stuck {
                return Poll::Pending;
            }
            let n = bytes.len().min(most);
            wire.from_client.extend(bytes.iter().take(n));
            Poll::Ready(Ok(n))
        })
        .await
    }
}

/// Reads the request that `wire` holds, and nothing behind it; what is written is the answer.
pub(crate) fn answer<T>(wire: &[u8], write: impl FnOnce(&Request<'_>, &mut TxBuf<'_>) -> T) -> (T, Vec<u8>) {
    let (mut rx, mut rx_at) = (vec![0; 1024], RxCursor::default());
    let (mut tx, mut tx_at) = (vec![0; 1024], TxCursor::default());
    let (mut rx, mut tx) = (RxBuf::new(&mut rx, &mut rx_at), TxBuf::new(&mut tx, &mut tx_at));
    assert_eq!(rx.fill(wire), wire.len());
    let Step::Head(head) = HeadReader::default().poll_request(&mut rx, &Limits::DEFAULT).unwrap() else {
        panic!("no whole request: {}", String::from_utf8_lossy(wire))
    };
    let result = write(&head.view(rx.reborrow()), &mut tx);
    (result, tx.pending().to_vec())
}

/// Opens a link once.
pub(crate) struct Once(pub(crate) Option<Memory>);

impl Connect for Once {
    type Link<'a> = Memory;
    type Error = ();

    async fn connect(&mut self) -> Result<Memory, ()> {
        self.0.take().ok_or(())
    }
}

/// Polls a future so many times, and drops it if it is not ready by then.
pub(crate) fn poll_times<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    (0..times).find_map(|_| match future.as_mut().poll(&mut cx) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    })
}
