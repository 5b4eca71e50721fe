//! The core by hand, over a blocking socket and with buffers as small as it allows: a receive buffer that begins with
//! [`MIN_RX`] bytes and grows only when it is asked for, a send buffer with a few bytes beside what is reserved for
//! control frames, and reads of a few bytes, so that everything is cut everywhere.

use crate::deflate::{self, Codec, Deflater};
use crate::{Error, MAX_MESSAGE, Peer};
use longwire_core::buf::{Io, RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::http::head::{HeadReader, Limits, Step as HeadStep};
use longwire_core::http::upgrade::{self, ClientUpgrade, Offer};
use longwire_core::time::Instant;
use longwire_core::ws::deflate::Agreed;
use longwire_core::ws::{
    Client, CloseCause, Config, Connection, Delivery, Event, Kind, MIN_RX, MIN_TX, Role, SendError, Server,
    Step,
};
use rand::rngs::ThreadRng;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Room in the send buffer beside the reserve for control frames: a header and a few bytes.
const TX: usize = MIN_TX + 64;
/// Most bytes of one read after the other, over and over; fewer than [`MIN_RX`].
const READS: [usize; 10] = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89];
/// After so many bytes a read takes what fits: the suite waits ten seconds for the echo of four megabytes.
const CUT: usize = 256 << 10;
/// How long the peer may take no byte, and how long it may go on sending after the end.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Small {
    config: Arc<Config>,
}

impl Small {
    pub(crate) fn new(delivery: Delivery) -> Self {
        Self { config: Arc::new(Config { max_message: MAX_MESSAGE, delivery, ..Config::new() }) }
    }
}

impl Peer for Small {
    fn serve(&self) -> Result<(), Error> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        println!("listening on {}", listener.local_addr()?);
        loop {
            let wire = Wire::new(listener.accept()?.0)?;
            let config = self.config.clone();
            std::thread::spawn(move || {
                if let Err(error) = accept(wire, config).and_then(|link| link.run(echo)) {
                    eprintln!("{error}");
                }
            });
        }
    }

    fn fetch(&self, address: &str, target: &str) -> Result<String, Error> {
        let mut text = Vec::new();
        connect(address, target, self.config.clone())?.run(|_, event| {
            match event {
                Event::Text(whole) => text.extend_from_slice(whole.as_bytes()),
                Event::Chunk(chunk) => text.extend_from_slice(chunk.payload),
                _ => {}
            }
            Ok(())
        })?;
        Ok(String::from_utf8(text)?)
    }

    fn echo(&self, address: &str, target: &str) -> Result<(), Error> {
        connect(address, target, self.config.clone())?.run(echo)
    }
}

/// Answers a message with itself: a whole one in as many fragments as the send buffer makes of it, one that comes in
/// pieces piece by piece, before its end is known.
fn echo<R: Role>(out: &mut Out<'_, R>, event: Event<'_>) -> Result<(), Error> {
    match event {
        Event::Text(text) => out.send(Kind::Text, text.as_bytes()),
        Event::Binary(data) => out.send(Kind::Binary, data),
        Event::Chunk(chunk) => {
            if chunk.first {
                out.start(chunk.kind)?;
            }
            out.write(chunk.payload, chunk.last)
        }
        Event::Ping(_) | Event::Pong(_) | Event::Close(_) => Ok(()),
    }
}

/// The opening handshake of a server.
fn accept(mut wire: Wire, config: Arc<Config>) -> Result<Link<Server>, Error> {
    let mut reader = HeadReader::default();
    let head = wire.read_head(|rx| reader.poll_request(rx, &Limits::DEFAULT))?;
    let mut io = wire.buffers.lend();
    let answer = match upgrade::accept(&head.view(io.rx.reborrow())) {
        Ok(upgrade) => {
            let (agreed, extensions) = deflate::WANTED.accept(upgrade.extensions()).unzip();
            upgrade.write_response(&mut io.tx, None, extensions.as_deref(), &[])?;
            Ok(agreed)
        }
        Err(error) => {
            error.write(&mut io.tx)?;
            Err(error)
        }
    };
    head.release(&mut io.rx);
    wire.flush()?;
    Ok(Link::open(wire, Server, config, answer?))
}

/// The opening handshake of a client.
fn connect(address: &str, target: &str, config: Arc<Config>) -> Result<Link<Client<ThreadRng>>, Error> {
    let mut wire = Wire::new(TcpStream::connect(address)?)?;
    let upgrade = ClientUpgrade::new(&mut rand::rng());
    let extensions = deflate::WANTED.offer();
    let offer = Offer { extensions: Some(&extensions), ..Offer::new(address, target) };
    upgrade.write_request(&mut wire.buffers.lend().tx, &offer)?;
    wire.flush()?;
    let mut reader = HeadReader::default();
    let head = wire.read_head(|rx| reader.poll_response(rx, &Limits::DEFAULT))?;
    let mut rx = wire.buffers.lend().rx;
    let answer = upgrade.check(&offer, &head.view(rx.reborrow()))?;
    let agreed = deflate::WANTED.check(answer.extensions())?;
    head.release(&mut rx);
    Ok(Link::open(wire, Client(rand::rng()), config, agreed))
}

/// What is lent to the core.
struct Buffers {
    rx: Vec<u8>,
    rx_at: RxCursor,
    tx: Vec<u8>,
    tx_at: TxCursor,
}

impl Buffers {
    fn new(rx: usize, tx: usize) -> Self {
        Self { rx: vec![0; rx], rx_at: RxCursor::new(), tx: vec![0; tx], tx_at: TxCursor::new() }
    }

    fn lend(&mut self) -> Io<'_> {
        Io::new(RxBuf::new(&mut self.rx, &mut self.rx_at), TxBuf::new(&mut self.tx, &mut self.tx_at))
    }
}

/// A socket with its buffers.
struct Wire {
    stream: TcpStream,
    buffers: Buffers,
    reads: std::iter::Cycle<std::array::IntoIter<usize, 10>>,
    received: usize,
}

impl Wire {
    /// With room for the head of an opening handshake to be written.
    fn new(stream: TcpStream) -> Result<Self, Error> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffers: Buffers::new(0, 1024), reads: READS.into_iter().cycle(), received: 0 })
    }

    fn flush(&mut self) -> std::io::Result<()> {
        flush(&mut self.stream, &mut self.buffers.lend().tx)
    }

    /// Reads a few bytes: 0 at the end of the stream.
    fn read(&mut self) -> std::io::Result<usize> {
        let mut rx = self.buffers.lend().rx;
        let spare = rx.spare_mut();
        let few = if self.received < CUT { self.reads.next().unwrap_or(1) } else { usize::MAX };
        let few = spare.len().min(few);
        let n = self.stream.read(&mut spare[..few])?;
        rx.commit(n);
        self.received += n;
        Ok(n)
    }

    fn read_head<H, E: Into<Error>>(
        &mut self,
        mut poll: impl FnMut(&mut RxBuf<'_>) -> Result<HeadStep<H>, E>,
    ) -> Result<H, Error> {
        loop {
            match poll(&mut self.buffers.lend().rx).map_err(Into::into)? {
                HeadStep::Head(head) => return Ok(head),
                HeadStep::NeedSpace(len) => self.buffers.rx.resize(len, 0),
                HeadStep::NeedInput => {
                    if self.read()? == 0 {
                        return Err("the stream ended in the opening handshake".into());
                    }
                }
            }
        }
    }
}

fn flush(stream: &mut TcpStream, tx: &mut TxBuf<'_>) -> std::io::Result<()> {
    stream.write_all(tx.pending())?;
    tx.consume(usize::MAX);
    Ok(())
}

/// A connection after its opening handshake.
struct Link<R> {
    connection: Connection<R, Arc<Config>>,
    codec: Option<Codec>,
    wire: Wire,
    started: std::time::Instant,
}

impl<R: Role> Link<R> {
    fn open(mut wire: Wire, role: R, config: Arc<Config>, agreed: Option<Agreed>) -> Self {
        // The buffers of the handshake were larger. What was read beyond its end is less than a read.
        let beyond = wire.buffers.lend().rx.unread().to_vec();
        wire.buffers = Buffers::new(MIN_RX, TX);
        wire.buffers.lend().rx.fill(&beyond);
        let connection = Connection::new(role, config, Instant::default());
        let connection = match agreed {
            Some(agreed) => connection.with_deflate(agreed),
            None => connection,
        };
        let codec = connection.send_window().map(Codec::new);
        Self { connection, codec, wire, started: std::time::Instant::now() }
    }

    fn now(&self) -> Instant {
        Instant::default().after(self.started.elapsed())
    }

    /// The calling contract of [`Connection`], to the connection's end.
    fn run(
        mut self,
        mut handle: impl FnMut(&mut Out<'_, R>, Event<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        loop {
            let now = self.now();
            let mut io = self.wire.buffers.lend();
            let mut deflater = None;
            if let Some(codec) = &mut self.codec {
                io = io.with_inflate(&mut codec.inflater);
                deflater = codec.deflater.as_mut();
            }
            let cause = match self.connection.poll(now, &mut io) {
                Ok(Step::Event(found)) => {
                    let event = found.event(io.rx);
                    let (connection, stream) = (&mut self.connection, &mut self.wire.stream);
                    handle(&mut Out { connection, deflater, stream, tx: io.tx }, event)?;
                    continue;
                }
                Ok(Step::NeedInput) => self.wait()?,
                Ok(Step::NeedSpace(len)) => {
                    assert_eq!(
                        self.connection.config().delivery,
                        Delivery::Whole,
                        "MIN_RX is enough for chunks"
                    );
                    self.wire.buffers.rx.resize(len, 0);
                    None
                }
                Ok(Step::NeedFlush) => self.wire.flush().map(|()| None)?,
                Ok(Step::Closed(cause)) => Some(cause),
                Err(error) => {
                    // The peer's mistake is the news, whether or not it still hears of it.
                    let _ = self.end();
                    return Err(error.into());
                }
            };
            if let Some(cause) = cause {
                // The peer may be gone already.
                let _ = self.end();
                return if cause == CloseCause::Clean { Ok(()) } else { Err(format!("{cause:?}").into()) };
            }
        }
    }

    /// Writes what is pending, and waits for input or for the connection's deadline. Says when it is over.
    fn wait(&mut self) -> Result<Option<CloseCause>, Error> {
        self.wire.flush()?;
        let wait = self.connection.poll_timeout().map(|at| at.since(self.now()));
        // Zero would be for ever.
        self.wire.stream.set_read_timeout(wait.map(|wait| wait.max(Duration::from_millis(1))))?;
        let step = match self.wire.read() {
            Ok(0) => self.connection.handle_eof(),
            Ok(_) => return Ok(None),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let now = self.now();
                self.connection.handle_timeout(now, &mut self.wire.buffers.lend())
            }
            // After both Close frames it does not matter how the stream ends: this suite resets it.
            Err(error) => match self.connection.handle_eof() {
                closed @ Step::Closed(CloseCause::Clean) => closed,
                _ => return Err(error.into()),
            },
        };
        Ok(if let Step::Closed(cause) = step { Some(cause) } else { None })
    }

    /// Writes the last words, ends the stream, and reads until the peer has ended its direction: a socket that is closed
    /// with unread input resets the connection, and the Close could be lost.
    fn end(mut self) -> std::io::Result<()> {
        self.wire.flush()?;
        self.wire.stream.shutdown(Shutdown::Write)?;
        self.wire.stream.set_read_timeout(Some(PATIENCE))?;
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < deadline && self.wire.stream.read(&mut [0; 1024])? > 0 {}
        Ok(())
    }
}

/// What an event is answered with.
struct Out<'a, R> {
    connection: &'a mut Connection<R, Arc<Config>>,
    deflater: Option<&'a mut Deflater>,
    stream: &'a mut TcpStream,
    tx: TxBuf<'a>,
}

impl<R: Role> Out<'_, R> {
    fn send(&mut self, kind: Kind, data: &[u8]) -> Result<(), Error> {
        self.start(kind)?;
        self.write(data, true)
    }

    fn start(&mut self, kind: Kind) -> Result<(), Error> {
        match self.deflater {
            Some(_) => self.connection.start_deflated(kind)?,
            None => self.connection.start(kind)?,
        }
        Ok(())
    }

    fn write(&mut self, data: &[u8], last: bool) -> Result<(), Error> {
        match &mut self.deflater {
            Some(deflater) => {
                let compressed = deflater.piece(data, last);
                self.put(&compressed)?;
            }
            None => self.put(data)?,
        }
        if last { self.finish() } else { Ok(()) }
    }

    /// As many fragments as it takes.
    fn put(&mut self, mut data: &[u8]) -> Result<(), Error> {
        while !data.is_empty() {
            let n = self.connection.write(&mut self.tx, data)?;
            data = &data[n..];
            if n == 0 {
                flush(self.stream, &mut self.tx)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Error> {
        loop {
            match self.connection.finish(&mut self.tx) {
                Err(SendError::Full) => flush(self.stream, &mut self.tx)?,
                done => return Ok(done?),
            }
        }
    }
}
