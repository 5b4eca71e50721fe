//! A WebSocket client over a [`Link`].

use core::fmt;

use embassy_futures::select::{Either, select};
use embassy_time::{Duration, Timer, with_timeout};
use longwire_core::buf::{Io, RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::time::Instant;
use longwire_core::ws::{self, Client, CloseCause, CloseCode, Connection, Event, ProtocolError, SendError, Step};
use rand_core::Rng;

use crate::link::Link;

/// What a connection allows and expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The rules of the WebSocket itself. Default [`ws::Config::new`]: a Ping after 30 s of silence, 10 s to answer it.
    ///
    /// `max_message` need not fit the receive buffer: a message for which that is too small ends the connection with
    /// 1009 when it arrives.
    pub ws: ws::Config,
    /// How long the opening handshake may take, from the request to the last byte of the answer. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long the link may take no byte before the connection is given up. Default 20 s.
    pub write_timeout: Duration,
}

impl Config {
    /// The defaults, as a constant.
    pub const fn new() -> Self {
        Self {
            ws: ws::Config::new(),
            handshake_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(20),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error<E> {
    /// The link failed.
    Link(E),
    /// The link took no byte for [`Config::write_timeout`].
    WriteTimeout,
    /// A write was dropped half-way, and the link cannot say how far it got ([`Link::CANCEL_SAFE_WRITE`]).
    Torn,
    /// The peer broke a rule of the protocol; it was told so.
    Protocol(ProtocolError),
    /// A message that does not fit the receive buffer; the peer was told so (1009).
    MessageTooBig,
    /// The connection is over.
    Closed(CloseCause),
    /// A message was not taken.
    Send(SendError),
}

impl<E: fmt::Debug> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(error) => write!(f, "the link failed: {error:?}"),
            Self::WriteTimeout => f.write_str("the link takes no more bytes"),
            Self::Torn => f.write_str("a write was dropped half-way"),
            Self::Protocol(error) => write!(f, "the peer broke the protocol: {error}"),
            Self::MessageTooBig => f.write_str("a message above the receive buffer"),
            Self::Closed(cause) => write!(f, "the connection is over: {cause:?}"),
            Self::Send(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for Error<E> {}

impl<E> From<ProtocolError> for Error<E> {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

/// A WebSocket, seen from the client.
///
/// It owns no memory but its state: the receive and the send buffer are lent to it for its whole life. `R` gives the
/// masks of what is sent, which the peer must not be able to predict (RFC 6455 section 10.3).
///
/// # Time
/// Nothing happens unless somebody waits in [`recv`](Self::recv): Pings are answered there, and a silent peer is
/// noticed there. A device that only sends has to receive all the same.
///
/// # Cancellation
/// Every method may be dropped while it waits, and called again: no byte of the peer's is lost, whatever the link, and
/// nothing queued is lost or sent twice as long as the link's write is cancel-safe ([`Link::CANCEL_SAFE_WRITE`]).
/// Otherwise, and only if the future was dropped in the middle of a write, the next call says [`Error::Torn`]. To
/// wait for something else beside the connection without that risk, take it apart: [`try_recv`](Self::try_recv) and
/// [`flush`](Self::flush), and drop only [`fill`](Self::fill), which reads.
pub struct WebSocket<'b, L, R> {
    link: L,
    connection: Connection<Client<R>, &'b ws::Config>,
    write_timeout: Duration,
    rx: &'b mut [u8],
    rx_at: RxCursor,
    tx: &'b mut [u8],
    tx_at: TxCursor,
    /// A write began, and did not end.
    writing: bool,
    /// Something was written since the link was last flushed.
    written: bool,
}

impl<'b, L: Link, R: Rng> WebSocket<'b, L, R> {
    /// A connection whose opening handshake is done; the first byte that `link` gives belongs to a frame.
    ///
    /// `rx` has to hold the largest message and [`MIN_RX`](ws::MIN_RX) bytes more, `tx` the largest message that is
    /// sent, its header (up to 14 bytes) and [`MIN_TX`](ws::MIN_TX) bytes more.
    pub fn new(link: L, config: &'b Config, rng: R, rx: &'b mut [u8], tx: &'b mut [u8]) -> Self {
        Self {
            link,
            connection: Connection::new(Client(rng), &config.ws, now()),
            write_timeout: config.write_timeout,
            rx,
            rx_at: RxCursor::default(),
            tx,
            tx_at: TxCursor::default(),
            writing: false,
            written: false,
        }
    }

    /// Waits for the next event, answering Pings and keeping the heartbeat meanwhile.
    ///
    /// After [`Event::Close`] the peer's answer is on its way, and the next call ends with
    /// [`Error::Closed`]. Cancel-safe as the type says; an event is never lost, for nothing is waited for between
    /// finding and returning it.
    pub async fn recv(&mut self) -> Result<Event<'_>, Error<L::Error>> {
        let found = loop {
            match self.step() {
                Ok(Step::Event(found)) => break found,
                Ok(Step::NeedInput) => {
                    self.flush().await?;
                    self.fill().await?;
                }
                // There may be input that was not looked at: so no reading before the next step.
                Ok(Step::NeedFlush) => self.flush().await?,
                Ok(Step::NeedSpace(_)) => {
                    self.refuse_size();
                    self.flush().await?;
                    return Err(Error::MessageTooBig);
                }
                Ok(Step::Closed(cause)) => {
                    // The last word may still be on its way out; whether it arrives changes nothing.
                    let _ = self.flush().await;
                    return Err(Error::Closed(cause));
                }
                Err(error) => {
                    let _ = self.flush().await;
                    return Err(error.into());
                }
            }
        };
        Ok(found.event(RxBuf::new(self.rx, &mut self.rx_at)))
    }

    /// The next event among what was received already. `None`: [`flush`](Self::flush), then [`fill`](Self::fill).
    ///
    /// # Errors
    /// The connection is over; what is left to be said to the peer goes out with [`flush`](Self::flush).
    pub fn try_recv(&mut self) -> Result<Option<Event<'_>>, Error<L::Error>> {
        match self.step()? {
            Step::Event(found) => Ok(Some(found.event(RxBuf::new(self.rx, &mut self.rx_at)))),
            Step::NeedInput | Step::NeedFlush => Ok(None),
            Step::NeedSpace(_) => {
                self.refuse_size();
                Err(Error::MessageTooBig)
            }
            Step::Closed(cause) => Err(Error::Closed(cause)),
        }
    }

    /// Reads once, or does what is due in time (a Ping, or giving up), whichever comes first.
    ///
    /// Cancel-safe, whatever the link.
    pub async fn fill(&mut self) -> Result<(), Error<L::Error>> {
        let deadline = self.connection.poll_timeout();
        let mut rx = RxBuf::new(self.rx, &mut self.rx_at);
        let spare = rx.spare_mut();
        if spare.is_empty() {
            // `try_recv` has said that it waits for a flush: a read into nothing would look like the end.
            return Ok(());
        }
        match select(self.link.read(spare), until(deadline)).await {
            Either::First(Ok(0)) => {
                // Said again by the next step.
                let _: Step = self.connection.handle_eof();
            }
            Either::First(Ok(n)) => rx.commit(n),
            Either::First(Err(error)) => return Err(Error::Link(error)),
            Either::Second(()) => {
                let tx = TxBuf::new(self.tx, &mut self.tx_at);
                let _: Step = self.connection.handle_timeout(now(), &mut Io::new(rx, tx));
            }
        }
        Ok(())
    }

    /// Writes everything that is queued.
    ///
    /// Cancel-safe as the type says. When it fails, the connection is over.
    pub async fn flush(&mut self) -> Result<(), Error<L::Error>> {
        if self.writing && !L::CANCEL_SAFE_WRITE {
            return Err(Error::Torn);
        }
        let mut tx = TxBuf::new(self.tx, &mut self.tx_at);
        while !tx.pending().is_empty() {
            self.writing = true;
            match with_timeout(self.write_timeout, self.link.write(tx.pending())).await {
                // A link that takes nothing breaks its promise; trying for ever would keep the processor busy.
                Ok(Ok(0)) | Err(_) => return Err(Error::WriteTimeout),
                Ok(Ok(n)) => tx.consume(n),
                Ok(Err(error)) => return Err(Error::Link(error)),
            }
            self.writing = false;
            self.written = true;
        }
        if self.written {
            self.link.flush().await.map_err(Error::Link)?;
            self.written = false;
        }
        Ok(())
    }

    /// Queues a binary message, whole or not at all; [`flush`](Self::flush) or [`recv`](Self::recv) sends it.
    ///
    /// # Errors
    /// [`SendError::Full`] when there is no room beside what is queued: flush, then try again. If nothing is queued, the
    /// message is too large for the send buffer.
    pub fn try_send_binary(&mut self, data: &[u8]) -> Result<(), SendError> {
        self.connection.send_binary(&mut TxBuf::new(self.tx, &mut self.tx_at), data)
    }

    /// Queues a text message, as [`try_send_binary`](Self::try_send_binary).
    pub fn try_send_text(&mut self, text: &str) -> Result<(), SendError> {
        self.connection.send_text(&mut TxBuf::new(self.tx, &mut self.tx_at), text)
    }

    /// Sends a binary message: waits for room, and until the link has taken it.
    ///
    /// Dropped while it waits, the message is queued whole, or not at all; where that makes a difference, use
    /// [`try_send_binary`](Self::try_send_binary) and [`flush`](Self::flush).
    pub async fn send_binary(&mut self, data: &[u8]) -> Result<(), Error<L::Error>> {
        if self.try_send_binary(data) == Err(SendError::Full) {
            self.flush().await?;
            self.try_send_binary(data).map_err(Error::Send)?;
        }
        self.flush().await
    }

    /// Closes the connection (RFC 6455 section 7.1.2) and says how that ended: after the peer's Close, or after
    /// [`ws::Config::close_timeout`]. Messages that still arrive are dropped. `reason` is cut to 123 bytes.
    ///
    /// Cancel-safe as the type says: a further call goes on waiting.
    pub async fn close(&mut self, code: CloseCode, reason: &str) -> Result<CloseCause, Error<L::Error>> {
        let mut tx = TxBuf::new(self.tx, &mut self.tx_at);
        // Already closing is as good.
        let _: Result<(), SendError> = self.connection.close(now(), &mut tx, code, reason);
        loop {
            match self.recv().await {
                Ok(_) => {}
                Err(Error::Closed(cause)) => return Ok(cause),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether messages can be sent: neither end has begun to close.
    pub fn is_open(&self) -> bool {
        self.connection.is_open()
    }

    /// Whether something waits to be written.
    pub fn is_flushed(&self) -> bool {
        self.tx_at.is_idle() && !self.written
    }

    /// Gives the link back. What was queued and not flushed is lost.
    pub fn into_link(self) -> L {
        self.link
    }

    fn step(&mut self) -> Result<Step, ProtocolError> {
        let rx = RxBuf::new(self.rx, &mut self.rx_at);
        let tx = TxBuf::new(self.tx, &mut self.tx_at);
        self.connection.poll(now(), &mut Io::new(rx, tx))
    }

    /// The receive buffer cannot grow here.
    fn refuse_size(&mut self) {
        let mut tx = TxBuf::new(self.tx, &mut self.tx_at);
        let reason = "message above the receive buffer";
        // Already closing is as good.
        let _: Result<(), SendError> = self.connection.close(now(), &mut tx, CloseCode::TOO_BIG, reason);
    }
}

/// The clock, as the core sees it.
fn now() -> Instant {
    Instant::from_millis(embassy_time::Instant::now().as_millis())
}

/// Waits until a moment has come; without one, for ever.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => Timer::at(embassy_time::Instant::from_millis(deadline.as_millis())).await,
        None => core::future::pending().await,
    }
}
