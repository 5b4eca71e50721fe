//! A WebSocket client over a [`Link`].

use embassy_time::{Duration, with_deadline};
use longwire_core::buf::TxBuf;
use longwire_core::http::upgrade::{ClientUpgrade, Offer, ResponseError};
use longwire_core::http::view::Response;
use longwire_core::http::write::WriteError;
use longwire_core::rand_core::{CryptoRng, Rng};
use longwire_core::ws::deflate::{self, Agreed, Inflate, Window};
use longwire_core::ws::{
    self, Client, CloseCause, CloseCode, Connection, Event, Kind, ProtocolError, SendError, Step,
};

use crate::buffered::{Buffered, Input, after, now};
use crate::error::{Error, HandshakeError};
use crate::link::Link;

/// What a connection allows and expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The rules of the WebSocket itself. Default [`ws::Config::new`]: a Ping after 30 s of silence, 10 s to answer it.
    ///
    /// `max_message` need not fit the receive buffer: a message for which that is too small ends the connection with
    /// 1009 when it arrives.
    pub ws: ws::Config,
    /// How long the opening handshake may take, from the request to the last byte of the answer. Default 10 s. (Of an
    /// [`Uplink`](crate::Uplink) the whole attempt has a limit instead, `LadderConfig::open`.)
    pub handshake_timeout: Duration,
    /// How long the link may take no byte, or be busy with a flush, before the connection is given up. Default 20 s.
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

/// What decompresses the messages of a server, with the window that it has: an [`Inflater`](crate::Inflater), or an
/// [`Inflate`] of your own.
#[cfg_attr(not(feature = "inflate"), expect(unreachable_pub, reason = "then it is not exported"))]
pub struct Decompressor<'b> {
    /// It begins anew with each connection.
    pub codec: &'b mut (dyn Inflate + 'static),
    /// At most this is what a server may use. One that cannot keep to it does not compress.
    pub window: Window,
    /// Without the feature there can be none, so what handles one is neither in the code nor in the memory of a device.
    #[cfg(not(feature = "inflate"))]
    never: core::convert::Infallible,
}

impl Decompressor<'_> {
    /// The same one for a shorter time.
    pub(crate) fn reborrow(&mut self) -> Decompressor<'_> {
        Decompressor {
            codec: self.codec,
            window: self.window,
            #[cfg(not(feature = "inflate"))]
            never: self.never,
        }
    }

    /// What is offered, and what an answer is checked against. About the other direction there is nothing to say, for
    /// nothing is compressed there: whatever a server wants of it is fine.
    fn config(&self) -> deflate::Config {
        deflate::Config { receive: self.window, ..deflate::Config::new() }
    }
}

/// A WebSocket, seen from the client.
///
/// It owns no memory but its state: the receive and the send buffer are lent to it for its whole life. `R` gives the
/// masks of what is sent, which the peer must not be able to predict (RFC 6455 section 10.3).
///
/// ```
/// use longwire_embassy::core::{http::upgrade::Offer, rand_core::CryptoRng, ws::CloseCode, ws::Event};
/// use longwire_embassy::{Config, Link, WebSocket};
///
/// static CONFIG: Config = Config::new();
///
/// /// Says hello and waits for an answer; `None` when that fails.
/// async fn greet(link: impl Link, rng: impl CryptoRng) -> Option<usize> {
///     let (mut rx, mut tx) = ([0; 512], [0; 512]);
///     let offer = Offer::new("192.0.2.1", "/chat");
///     let (mut socket, _) = WebSocket::connect(link, &offer, &CONFIG, rng, &mut rx, &mut tx).await.ok()?;
///     socket.send_binary(b"hello").await.ok()?;
///     let answer = loop {
///         if let Event::Binary(answer) = socket.recv().await.ok()? {
///             break answer.len();
///         }
///     };
///     socket.close(CloseCode::NORMAL, "").await.ok()?;
///     Some(answer)
/// }
/// ```
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
    stream: Buffered<'b, L>,
    connection: Connection<Client<R>, &'b ws::Config>,
    /// The last step waits for a flush, and there may be input that was not looked at.
    unfinished: bool,
}

impl<'b, L: Link, R: CryptoRng> WebSocket<'b, L, R> {
    /// Asks the server at the other end of `link` for a WebSocket (RFC 6455 section 4.1), and says which of the
    /// subprotocols that were offered it chose.
    ///
    /// `rx` has to hold the server's answer (some 200 bytes, but a proxy may add to it), and later the largest message and
    /// [`MIN_RX`](ws::MIN_RX) bytes more. `tx` has to hold the request, and later the largest message that is sent, its
    /// header (up to 14 bytes) and [`MIN_TX`](ws::MIN_TX) bytes more.
    ///
    /// # Errors
    /// See [`HandshakeError`]. The link is dropped then, as it is when the future is dropped.
    pub async fn connect<'o>(
        link: L,
        offer: &Offer<'o>,
        config: &'b Config,
        rng: R,
        rx: &'b mut [u8],
        tx: &'b mut [u8],
    ) -> Result<(Self, Option<&'o str>), HandshakeError<L::Error>> {
        let open = Self::open(link, offer, config, rng, rx, tx, None);
        with_deadline(after(config.handshake_timeout), open).await.unwrap_or(Err(HandshakeError::Timeout))
    }

    /// As [`connect`](Self::connect), and offers the server to compress what it sends (permessage-deflate, RFC 7692):
    /// in place of `offer.extensions`, for this end can obey no others. What the device sends goes out as it is.
    ///
    /// In `rx` what is still compressed lies beside what came of it, so let it hold the largest message twice, or as much
    /// more than once as such a message takes on the wire. A message for which it is too small ends the connection with
    /// 1009. [`ws::Config::max_message`] bounds what a message expands to, and (with an eighth and 64 bytes more) the
    /// bytes that it comes in.
    ///
    /// # Errors
    /// [`HandshakeError::Deflate`] if the server compresses, and does not keep to the window that was offered. If it
    /// does not compress at all that is no error.
    #[cfg(feature = "inflate")]
    pub async fn connect_compressed<'o>(
        link: L,
        offer: &Offer<'o>,
        config: &'b Config,
        rng: R,
        rx: &'b mut [u8],
        tx: &'b mut [u8],
        decompressor: impl Into<Decompressor<'b>>,
    ) -> Result<(Self, Option<&'o str>), HandshakeError<L::Error>> {
        let open = Self::open(link, offer, config, rng, rx, tx, Some(decompressor.into()));
        with_deadline(after(config.handshake_timeout), open).await.unwrap_or(Err(HandshakeError::Timeout))
    }

    /// For a caller that has a deadline of its own.
    pub(crate) async fn open<'o>(
        link: L,
        offer: &Offer<'o>,
        config: &'b Config,
        mut rng: R,
        rx: &'b mut [u8],
        tx: &'b mut [u8],
        decompressor: Option<Decompressor<'b>>,
    ) -> Result<(Self, Option<&'o str>), HandshakeError<L::Error>> {
        let mut stream = Buffered::new(link, config.write_timeout, rx, tx);
        let upgrade = ClientUpgrade::new(&mut rng);
        let deflate = decompressor.as_ref().map(Decompressor::config);
        let (subprotocol, _agreed) = shake_hands(&mut stream, &upgrade, offer, deflate).await?;
        let connection = Connection::new(Client(rng), &config.ws, now());
        let socket = Self { stream, connection, unfinished: false };
        #[cfg(feature = "inflate")]
        let socket = match (_agreed, decompressor) {
            (Some(agreed), Some(decompressor)) => socket.deflated(agreed, decompressor),
            _ => socket,
        };
        Ok((socket, subprotocol))
    }
}

/// Sends the request and reads the answer; the frames that may have come behind it stay in the buffer.
async fn shake_hands<'o, L: Link>(
    stream: &mut Buffered<'_, L>,
    upgrade: &ClientUpgrade,
    offer: &Offer<'o>,
    deflate: Option<deflate::Config>,
) -> Result<(Option<&'o str>, Option<Agreed>), HandshakeError<L::Error>> {
    ask(upgrade, offer, deflate, stream.tx()).map_err(HandshakeError::Request)?;
    stream.flush().await?;
    if deflate.is_some() {
        // What comes right behind the answer needs room, too.
        stream.rx().reserve_for_expansion();
    }
    let head = stream.head().await?;
    let answer = judge(upgrade, offer, deflate, &head.view(stream.rx()))?;
    head.release(&mut stream.rx());
    match answer {
        Answer::Open(subprotocol, deflate) => Ok((subprotocol, deflate)),
        Answer::Refused {
            status,
            retry_after,
            #[cfg(feature = "sse")]
            framing,
        } => {
            #[cfg(feature = "sse")]
            let said = crate::uplink::said(stream, framing, retry_after).await;
            #[cfg(not(feature = "sse"))]
            let said = None;
            let retry_after = retry_after.map(|s| u32::try_from(s).unwrap_or(u32::MAX));
            Err(HandshakeError::Refused { status, retry_after, said })
        }
    }
}

/// Without the feature there is never one, which the compiler does not see.
fn possible(deflate: Option<deflate::Config>) -> Option<deflate::Config> {
    deflate.filter(|_| cfg!(feature = "inflate"))
}

/// What a server answered.
enum Answer<'o> {
    Open(Option<&'o str>, Option<Agreed>),
    Refused {
        status: u16,
        retry_after: Option<u64>,
        /// Of the body, which may say more.
        #[cfg(feature = "sse")]
        framing: longwire_core::http::body::Framing,
    },
}

/// Writes the request.
fn ask(
    upgrade: &ClientUpgrade,
    offer: &Offer<'_>,
    deflate: Option<deflate::Config>,
    mut tx: TxBuf<'_>,
) -> Result<(), WriteError> {
    let deflate = possible(deflate);
    let extensions = deflate.map(|deflate| deflate.offer());
    let whole = Offer { extensions: extensions.as_deref().or(offer.extensions), ..*offer };
    upgrade.write_request(&mut tx, &whole)
}

/// Reads the answer to what [`ask`] wrote.
fn judge<'o, E>(
    upgrade: &ClientUpgrade,
    offer: &Offer<'o>,
    deflate: Option<deflate::Config>,
    response: &Response<'_>,
) -> Result<Answer<'o>, HandshakeError<E>> {
    let deflate = possible(deflate);
    let extensions = deflate.map(|deflate| deflate.offer());
    let whole = Offer { extensions: extensions.as_deref().or(offer.extensions), ..*offer };
    let agreed = match upgrade.check(&whole, response) {
        Ok(agreed) => agreed,
        Err(ResponseError::Status(status)) => {
            return Ok(Answer::Refused {
                status,
                retry_after: response.retry_after(),
                #[cfg(feature = "sse")]
                framing: longwire_core::http::body::Framing::of_response(response, "GET"),
            });
        }
        Err(error) => return Err(HandshakeError::Response(error)),
    };
    let chosen = agreed.subprotocol();
    let subprotocol = offer.subprotocols.iter().copied().find(|offered| Some(*offered) == chosen);
    let agreed = match deflate {
        Some(deflate) => deflate.check(agreed.extensions()).map_err(HandshakeError::Deflate)?,
        None => None,
    };
    Ok(Answer::Open(subprotocol, agreed))
}

impl<'b, L: Link, R: Rng> WebSocket<'b, L, R> {
    /// A connection whose opening handshake is done; the first byte that `link` gives belongs to a frame. About the
    /// buffers see [`connect`](Self::connect).
    pub fn new(link: L, config: &'b Config, rng: R, rx: &'b mut [u8], tx: &'b mut [u8]) -> Self {
        Self {
            stream: Buffered::new(link, config.write_timeout, rx, tx),
            connection: Connection::new(Client(rng), &config.ws, now()),
            unfinished: false,
        }
    }

    /// The same connection with permessage-deflate, on which the opening handshake agreed. The decompressor belongs to
    /// this connection for its whole life.
    #[cfg(feature = "inflate")]
    #[must_use]
    pub fn with_deflate(self, agreed: Agreed, decompressor: impl Into<Decompressor<'b>>) -> Self {
        self.deflated(agreed, decompressor.into())
    }

    #[cfg(feature = "inflate")]
    fn deflated(mut self, agreed: Agreed, decompressor: Decompressor<'b>) -> Self {
        // An earlier connection may have broken in the middle of a message.
        decompressor.codec.end_message(Window { takeover: false, ..agreed.server });
        self.stream.decompressor = Some(decompressor);
        self.connection = self.connection.with_deflate(agreed);
        self
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
                Ok(Step::NeedInput | Step::NeedFlush) => {
                    self.flush().await?;
                    self.fill().await?;
                }
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
        Ok(found.event(self.stream.rx()))
    }

    /// The next event among what was received already. `None`: [`flush`](Self::flush), then [`fill`](Self::fill).
    ///
    /// # Errors
    /// The connection is over; what is left to be said to the peer goes out with [`flush`](Self::flush).
    pub fn try_recv(&mut self) -> Result<Option<Event<'_>>, Error<L::Error>> {
        match self.step()? {
            Step::Event(found) => Ok(Some(found.event(self.stream.rx()))),
            Step::NeedInput | Step::NeedFlush => Ok(None),
            Step::NeedSpace(_) => {
                self.refuse_size();
                Err(Error::MessageTooBig)
            }
            Step::Closed(cause) => Err(Error::Closed(cause)),
        }
    }

    /// Reads once, or does what is due in time (a Ping, or giving up), whichever comes first. It does not wait when
    /// [`try_recv`](Self::try_recv) stopped before the end of its input, for a flush.
    ///
    /// Cancel-safe, whatever the link.
    pub async fn fill(&mut self) -> Result<(), Error<L::Error>> {
        if core::mem::take(&mut self.unfinished) {
            return Ok(());
        }
        // What follows from the end and from the deadline is said again by the next step.
        let _: Step = match self.stream.read(self.connection.poll_timeout()).await? {
            Input::Bytes => return Ok(()),
            Input::End => self.connection.handle_eof(),
            Input::Deadline => self.connection.handle_timeout(now(), &mut self.stream.io()),
        };
        Ok(())
    }

    /// Writes everything that is queued.
    ///
    /// Cancel-safe as the type says. When it fails, the connection is over.
    pub async fn flush(&mut self) -> Result<(), Error<L::Error>> {
        self.stream.flush().await
    }

    /// Queues a binary message, whole or not at all; [`flush`](Self::flush) or [`recv`](Self::recv) sends it.
    ///
    /// # Errors
    /// [`SendError::Full`] when there is no room beside what is queued: flush, then try again. If nothing is queued, the
    /// message is too large for the send buffer.
    pub fn try_send_binary(&mut self, data: &[u8]) -> Result<(), SendError> {
        self.connection.send_binary(&mut self.stream.tx(), data)
    }

    /// Queues a text message, as [`try_send_binary`](Self::try_send_binary).
    pub fn try_send_text(&mut self, text: &str) -> Result<(), SendError> {
        self.connection.send_text(&mut self.stream.tx(), text)
    }

    /// Queues a Ping, as [`try_send_binary`](Self::try_send_binary). The peer's Pong is [`Event::Pong`].
    pub fn try_send_ping(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.connection.send_ping(&mut self.stream.tx(), payload)
    }

    /// Queues a binary message of `len` bytes, which `fill` writes in place (they are zeros before), as
    /// [`try_send_binary`](Self::try_send_binary).
    pub fn try_send_with(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), SendError> {
        self.try_send_as(Kind::Binary, len, fill)
    }

    /// The same of any kind. What is written into a text is UTF-8.
    pub(crate) fn try_send_as(
        &mut self,
        kind: Kind,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), SendError> {
        self.connection.send_with(&mut self.stream.tx(), kind, len, fill)
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
        // Already closing is as good.
        let _: Result<(), SendError> = self.connection.close(now(), &mut self.stream.tx(), code, reason);
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

    /// Whether nothing waits to be written.
    pub fn is_flushed(&self) -> bool {
        self.stream.is_flushed()
    }

    /// Gives the link back. What was queued and not flushed is lost.
    pub fn into_link(self) -> L {
        self.stream.link
    }

    fn step(&mut self) -> Result<Step, ProtocolError> {
        let step = self.connection.poll(now(), &mut self.stream.io());
        self.unfinished = step == Ok(Step::NeedFlush);
        step
    }

    /// The receive buffer cannot grow here.
    fn refuse_size(&mut self) {
        // Already closing is as good.
        let _: Result<(), SendError> = self.connection.close(
            now(),
            &mut self.stream.tx(),
            CloseCode::TOO_BIG,
            "message above the receive buffer",
        );
    }
}
