//! A link with its two lent buffers.

use embassy_futures::select::{Either, select};
use embassy_time::{Duration, Timer, with_deadline};
use longwire_core::buf::{Io, RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::http::head::{HeadError, HeadReader, Limits, ResponseHead, Step};
use longwire_core::time::Instant;

use crate::error::{Error, HandshakeError};
use crate::link::Link;
use crate::websocket::Decompressor;

/// A link, what came from it and was not used yet, and what has to go out.
pub(crate) struct Buffered<'b, L> {
    pub(crate) link: L,
    write_timeout: Duration,
    rx: &'b mut [u8],
    rx_at: RxCursor,
    tx: &'b mut [u8],
    tx_at: TxCursor,
    /// What turns compressed messages back, if the peer may send some.
    pub(crate) decompressor: Option<Decompressor<'b>>,
    /// A write began, and did not end.
    writing: bool,
    /// Something was written since the link was last flushed.
    written: bool,
}

/// What ended a wait for input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// There is more in the buffer, or it is full already.
    Bytes,
    /// Nothing more will come.
    End,
    /// The deadline.
    Deadline,
}

impl<'b, L: Link> Buffered<'b, L> {
    pub(crate) fn new(link: L, write_timeout: Duration, rx: &'b mut [u8], tx: &'b mut [u8]) -> Self {
        Self {
            link,
            write_timeout,
            rx,
            rx_at: RxCursor::new(),
            tx,
            tx_at: TxCursor::new(),
            decompressor: None,
            writing: false,
            written: false,
        }
    }

    pub(crate) fn rx(&mut self) -> RxBuf<'_> {
        RxBuf::new(self.rx, &mut self.rx_at)
    }

    pub(crate) fn tx(&mut self) -> TxBuf<'_> {
        TxBuf::new(self.tx, &mut self.tx_at)
    }

    /// Forgets what is queued, and was not begun to be written.
    #[cfg(feature = "sse")]
    pub(crate) fn clear_tx(&mut self) {
        self.tx_at = TxCursor::new();
    }

    /// What was received, and the memory of the send buffer, in which nothing is queued now.
    #[cfg(feature = "sse")]
    pub(crate) fn split(&mut self) -> (RxBuf<'_>, &mut [u8]) {
        (RxBuf::new(self.rx, &mut self.rx_at), self.tx)
    }

    pub(crate) fn io(&mut self) -> Io<'_> {
        let io = Io::new(RxBuf::new(self.rx, &mut self.rx_at), TxBuf::new(self.tx, &mut self.tx_at));
        match &mut self.decompressor {
            Some(decompressor) => io.with_inflate(decompressor.codec),
            None => io,
        }
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.tx_at.is_idle() && !self.written
    }

    /// Reads once. Cancel-safe, for the link's `read` is, and what it has read is committed at once.
    pub(crate) async fn read(&mut self, deadline: Option<Instant>) -> Result<Input, Error<L::Error>> {
        let mut rx = RxBuf::new(self.rx, &mut self.rx_at);
        let spare = rx.spare_mut();
        if spare.is_empty() {
            // A read into nothing would look like the end of the stream.
            return Ok(Input::Bytes);
        }
        match select(self.link.read(spare), until(deadline)).await {
            Either::First(Ok(0)) => Ok(Input::End),
            Either::First(Ok(n)) => {
                rx.commit(n);
                Ok(Input::Bytes)
            }
            Either::First(Err(error)) => Err(Error::Link(error)),
            Either::Second(()) => Ok(Input::Deadline),
        }
    }

    /// Reads the head of an answer; it stays in the receive buffer until it is released.
    pub(crate) async fn head(&mut self) -> Result<ResponseHead, HandshakeError<L::Error>> {
        let mut reader = HeadReader::default();
        loop {
            match poll_head(&mut reader, self.rx()).map_err(HandshakeError::Head)? {
                Step::Head(head) => return Ok(head),
                Step::NeedSpace(_) => return Err(HandshakeError::Head(HeadError::TooLong)),
                Step::NeedInput => match self.read(None).await? {
                    Input::End => return Err(HandshakeError::Ended),
                    Input::Bytes | Input::Deadline => {}
                },
            }
        }
    }

    /// Writes everything that is queued.
    pub(crate) async fn flush(&mut self) -> Result<(), Error<L::Error>> {
        if self.writing && !L::CANCEL_SAFE_WRITE {
            return Err(Error::Torn);
        }
        let mut tx = TxBuf::new(self.tx, &mut self.tx_at);
        while !tx.pending().is_empty() {
            self.writing = true;
            match with_deadline(after(self.write_timeout), self.link.write(tx.pending())).await {
                // A link that takes nothing breaks its promise; trying for ever would keep the processor busy.
                Ok(Ok(0)) | Err(_) => return Err(Error::WriteTimeout),
                Ok(Ok(n)) => tx.consume(n),
                Ok(Err(error)) => return Err(Error::Link(error)),
            }
            self.writing = false;
            self.written = true;
        }
        if self.written {
            // A link that gathers what it is given, as TLS does, waits for its stream here.
            let flushed = with_deadline(after(self.write_timeout), self.link.flush()).await;
            flushed.map_err(|_| Error::WriteTimeout)?.map_err(Error::Link)?;
            self.written = false;
        }
        Ok(())
    }
}

/// What does not wait is kept out of what does: within a future, whose variables lie behind one pointer, it takes more code.
#[cfg_attr(target_os = "none", inline(never))]
fn poll_head(reader: &mut HeadReader, mut rx: RxBuf<'_>) -> Result<Step<ResponseHead>, HeadError> {
    reader.poll_response(&mut rx, &Limits::DEFAULT)
}

/// The clock, as the core sees it.
pub(crate) fn now() -> Instant {
    Instant::from_millis(embassy_time::Instant::now().as_millis())
}

/// When a timeout is over that begins now; the end of time, if it lies beyond that. (`embassy_time::with_timeout` panics then.)
pub(crate) fn after(timeout: Duration) -> embassy_time::Instant {
    embassy_time::Instant::now().saturating_add(timeout)
}

/// Waits until a moment has come; without one, for ever.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => Timer::at(embassy_time::Instant::from_millis(deadline.as_millis())).await,
        None => core::future::pending().await,
    }
}
