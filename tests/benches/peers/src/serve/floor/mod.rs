//! No library: the floor, which says what the machine allows. It knows as much of RFC 6455 as an honest client needs:
//! whole, masked text and binary frames. Each thread has one receive buffer, in which frames are unmasked, and one send
//! buffer; what is answered to one read goes out in one write; a connection holds only what has not come or gone whole.

mod epoll;

pub(super) use epoll::serve as epoll;

use super::{Options, upgrade};
use sockudo_ws::simd::apply_mask;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

const RECEIVE_BUFFER: usize = 256 << 10;

/// From this payload on a frame that is not whole gets memory of its own, into which the rest is received.
const LARGE: usize = 64 << 10;

/// What the connections of a thread share.
struct Buffers {
    rx: Vec<u8>,
    tx: Vec<u8>,
    /// The memory of the last large message, for the next one.
    spare: Vec<u8>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers::new());
}

impl Buffers {
    fn new() -> Self {
        Self { rx: vec![0; RECEIVE_BUFFER], tx: Vec::with_capacity(RECEIVE_BUFFER), spare: Vec::new() }
    }
}

/// What a connection holds between two turns.
#[derive(Default)]
struct Connection {
    /// The beginning of a frame.
    tail: Vec<u8>,
    large: Option<Box<Large>>,
    unsent: Vec<u8>,
    /// Bytes of `unsent` that were sent.
    sent: usize,
}

struct Large {
    header: Header,
    /// At least as long as the payload.
    payload: Vec<u8>,
    filled: usize,
}

#[derive(Clone, Copy)]
struct Header {
    first: u8,
    /// Bytes of the header itself.
    len: usize,
    payload: usize,
    mask: [u8; 4],
}

impl Header {
    /// RFC 6455, 5.2; none if it is not whole.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
        let (payload, rest, len) = match second & 0x7f {
            126 => {
                let (length, rest) = rest.split_first_chunk()?;
                (usize::from(u16::from_be_bytes(*length)), rest, 8)
            }
            127 => {
                let (length, rest) = rest.split_first_chunk()?;
                (usize::try_from(u64::from_be_bytes(*length)).ok()?, rest, 14)
            }
            short => (usize::from(short), rest, 6),
        };
        Some(Self { first, len, payload, mask: *rest.first_chunk()? })
    }

    fn unmask(&self, payload: &mut [u8], from: usize) {
        let mut mask = self.mask;
        mask.rotate_left(from % 4);
        if payload.len() >= 128 {
            return apply_mask(payload, mask);
        }
        let (words, rest) = payload.as_chunks_mut::<4>();
        for word in words {
            *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
        }
        rest.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
}

/// A server's header for a payload of this length.
fn write_header(tx: &mut Vec<u8>, first: u8, payload: usize) {
    match payload {
        0..=125 => tx.extend_from_slice(&[first, payload as u8]),
        126..=0xffff => {
            let [high, low] = (payload as u16).to_be_bytes();
            tx.extend_from_slice(&[first, 126, high, low]);
        }
        _ => {
            tx.extend_from_slice(&[first, 127]);
            tx.extend_from_slice(&(payload as u64).to_be_bytes());
        }
    }
}

/// Unmasks the whole frames at the beginning of `bytes` and hands out their payloads; returns their length.
fn frames(bytes: &mut [u8], mut each: impl FnMut(u8, &[u8])) -> io::Result<usize> {
    let mut used = 0;
    while let Some(header) = Header::read(&bytes[used..]) {
        let begin = used + header.len;
        let Some(payload) = bytes.get_mut(begin..begin + header.payload) else { break };
        header.unmask(payload, 0);
        check(header.first, payload)?;
        each(header.first, payload);
        used = begin + header.payload;
    }
    Ok(used)
}

/// Text is UTF-8; anything but a data frame is the end.
fn check(first: u8, payload: &[u8]) -> io::Result<()> {
    match first {
        0x81 if simdutf8::basic::from_utf8(payload).is_err() => Err(ErrorKind::InvalidData.into()),
        0x81 | 0x82 => Ok(()),
        _ => Err(ErrorKind::ConnectionAborted.into()),
    }
}

/// What came of a read.
enum Step {
    /// Nothing: whoever can write or read again goes on.
    Blocked,
    /// Whole frames went to `each`; there may be more to read if the buffer was full.
    Read { full: bool },
}

impl Connection {
    /// Reads once. The payloads of whole frames go to `each`, with the thread's send buffer.
    fn receive(
        &mut self,
        socket: &mut (impl Read + Write),
        buffers: &mut Buffers,
        mut each: impl FnMut(&mut Vec<u8>, u8, &[u8]),
    ) -> io::Result<Step> {
        if !self.flush(socket, buffers)? {
            return Ok(Step::Blocked);
        }
        if self.large.is_some() {
            return self.receive_large(socket, buffers);
        }
        let Buffers { rx, tx, spare } = buffers;
        let kept = self.tail.len();
        rx[..kept].copy_from_slice(&self.tail);
        let Some(read) = unless_blocked(socket.read(&mut rx[kept..]))? else { return Ok(Step::Blocked) };
        let end = kept + read;
        tx.clear();
        let used = frames(&mut rx[..end], |first, payload| each(tx, first, payload))?;
        let rest = &rx[used..end];
        match Header::read(rest) {
            Some(header) if header.payload >= LARGE => {
                self.tail = Vec::new();
                self.large = Some(Box::new(Large::begin(header, &rest[header.len..], std::mem::take(spare))));
            }
            // What an idle connection holds is nothing, not even capacity.
            _ => self.tail = rest.to_vec(),
        }
        Ok(Step::Read { full: end == rx.len() })
    }

    fn receive_large(&mut self, socket: &mut (impl Read + Write), buffers: &mut Buffers) -> io::Result<Step> {
        buffers.tx.clear();
        let Some(large) = &mut self.large else { return Ok(Step::Blocked) };
        let room = &mut large.payload[large.filled..large.header.payload];
        let Some(read) = unless_blocked(socket.read(room))? else { return Ok(Step::Blocked) };
        // While it is in the cache.
        large.header.unmask(&mut room[..read], large.filled);
        large.filled += read;
        if large.filled == large.header.payload {
            self.send_large(socket, buffers)?;
        }
        Ok(Step::Read { full: true })
    }

    /// Header and payload go out in one write, from where they lie.
    fn send_large(&mut self, socket: &mut impl Write, buffers: &mut Buffers) -> io::Result<()> {
        let Some(mut large) = self.large.take() else { return Ok(()) };
        let payload = &large.payload[..large.filled];
        check(large.header.first, payload)?;
        let mut header = Vec::with_capacity(10);
        write_header(&mut header, large.header.first, payload.len());
        let sent = socket.write_vectored(&[IoSlice::new(&header), IoSlice::new(payload)]);
        let sent = unless_blocked(sent)?.unwrap_or(0);
        match sent.checked_sub(header.len()) {
            Some(sent) => {
                large.payload.truncate(large.filled);
                (self.unsent, self.sent) = (large.payload, sent);
            }
            None => (self.unsent, self.sent) = ([&header[sent..], payload].concat(), 0),
        }
        self.flush(socket, buffers).map(drop)
    }

    /// Sends the thread's send buffer; what does not go is kept.
    fn send(&mut self, socket: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        if self.unsent.is_empty() {
            while sent < bytes.len() {
                match unless_blocked(socket.write(&bytes[sent..]))? {
                    Some(n) => sent += n,
                    None => break,
                }
            }
        }
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    /// Whether nothing is left to send.
    fn flush(&mut self, socket: &mut impl Write, buffers: &mut Buffers) -> io::Result<bool> {
        if self.unsent.is_empty() {
            return Ok(true);
        }
        while self.sent < self.unsent.len() {
            match unless_blocked(socket.write(&self.unsent[self.sent..]))? {
                Some(n) => self.sent += n,
                None => return Ok(false),
            }
        }
        self.sent = 0;
        let done = std::mem::take(&mut self.unsent);
        if done.len() >= LARGE {
            buffers.spare = done;
        }
        Ok(true)
    }
}

impl Large {
    fn begin(header: Header, beginning: &[u8], mut payload: Vec<u8>) -> Self {
        if payload.len() < header.payload {
            payload = vec![0; header.payload];
        }
        let filled = beginning.len();
        payload[..filled].copy_from_slice(beginning);
        header.unmask(&mut payload[..filled], 0);
        Self { header, payload, filled }
    }
}

/// None if it would block; an error at the end of the stream.
fn unless_blocked(moved: io::Result<usize>) -> io::Result<Option<usize>> {
    match moved {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(n) => Ok(Some(n)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

fn echo(tx: &mut Vec<u8>, first: u8, payload: &[u8]) {
    write_header(tx, first, payload.len());
    tx.extend_from_slice(payload);
}

/// A task a connection, and the handshake in one before it, so that its size does not stay.
pub(super) async fn tokio(mut stream: TcpStream, _: Options) {
    if upgrade(&mut stream, None).await.is_some() {
        tokio::spawn(run(stream));
    }
}

async fn run(stream: TcpStream) {
    let mut stream = pin!(stream);
    let mut connection = Connection::default();
    poll_fn(|context| {
        let mut socket = Polled { stream: stream.as_mut(), context };
        BUFFERS.with_borrow_mut(|buffers| turn(&mut connection, &mut socket, buffers))
    })
    .await;
}

/// Works off what is there. After a read that did not fill its buffer tokio knows that the next would block, and so
/// says without asking the kernel.
fn turn(connection: &mut Connection, socket: &mut Polled<'_, '_>, buffers: &mut Buffers) -> Poll<()> {
    loop {
        match connection.receive(socket, buffers, echo) {
            Ok(Step::Read { .. }) => {
                if connection.send(socket, &buffers.tx).is_err() {
                    return Poll::Ready(());
                }
            }
            Ok(Step::Blocked) => return Poll::Pending,
            Err(_) => return Poll::Ready(()),
        }
    }
}

/// A stream of tokio within a poll: it "would block" where it is pending, and will wake the task.
struct Polled<'a, 'c> {
    stream: Pin<&'a mut TcpStream>,
    context: &'a mut Context<'c>,
}

fn now<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(ErrorKind::WouldBlock.into()),
    }
}

impl Read for Polled<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut into = ReadBuf::new(into);
        now(self.stream.as_mut().poll_read(self.context, &mut into))?;
        Ok(into.filled().len())
    }
}

impl Write for Polled<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        now(self.stream.as_mut().poll_write(self.context, bytes))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        now(self.stream.as_mut().poll_write_vectored(self.context, parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
