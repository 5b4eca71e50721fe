//! Readers that cost next to nothing: they count bytes, and one of them, which looks at what it gets, says how many
//! bytes the events were. All get the same bytes, for all have the same subscription.
//!
//! Over TLS the handshake is real, and what comes after it is counted by the lengths of its records (RFC 8446 section
//! 5.2) without decrypting them: otherwise this program would be what is measured.

use super::gateway::{Gateway, Stream};
use longwire::net::rustls::ProtocolVersion;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Bytes that are read at once.
const READ: usize = 64 << 10;
/// What a record has beside its plaintext: the tag, and its type (RFC 8446 section 5.2).
const OVERHEAD: u64 = 17;
/// The last bytes of each event's data, which nothing else contains.
pub(super) const MARK: &[u8] = b"<~>";

/// What all readers together have got.
#[derive(Default)]
pub(super) struct Progress {
    /// Events that all of them have.
    got: AtomicU64,
    wanted: AtomicU64,
    reached: Notify,
    /// Connections may end now.
    pub(super) over: AtomicBool,
}

impl Progress {
    /// Everybody is to have so many: said before they are published.
    pub(super) fn want(&self, wanted: u64) {
        self.wanted.store(wanted, Ordering::SeqCst);
    }

    /// Waits until they have.
    pub(super) async fn until(&self, wanted: u64) {
        while self.got.load(Ordering::SeqCst) < wanted {
            self.reached.notified().await;
        }
    }
}

/// One connection that is subscribed to everything below `bench/fanout`.
pub(super) struct Reader {
    stream: Stream,
    count: Count,
    /// Plaintext so far.
    bytes: u64,
    /// How much of a mark was seen.
    matched: usize,
}

enum Count {
    Plain,
    /// What is known of a record's header, and how much of the record is to come.
    Records {
        header: Vec<u8>,
        left: u64,
    },
}

impl Reader {
    /// Connects, and reads until the subscription has begun. What follows counts.
    pub(super) fn open(gateway: &Gateway, sse: bool, narrow: bool) -> io::Result<Self> {
        let mut stream = gateway.connect(narrow)?;
        let how = match sse {
            true => "Accept: text/event-stream\r\n",
            false => {
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            }
        };
        let host = gateway.address;
        write!(stream, "GET /v1/stream?topic=bench/fanout HTTP/1.1\r\nHost: {host}\r\n{how}\r\n")?;
        stream.flush()?;
        let (mut text, mut room) = (Vec::new(), [0; 4096]);
        // The last byte of what comes before the first event.
        let end: &[u8] = if sse { b"\n\n" } else { b"}" };
        let begun = |text: &[u8]| text.windows(9).any(|nine| nine == b"caught_up") && text.ends_with(end);
        while !begun(&text) {
            match stream.read(&mut room)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => text.extend_from_slice(&room[..n]),
            }
        }
        if let Stream::Tls(tls) = &stream {
            assert_eq!(tls.conn.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        }
        stream.socket().set_nonblocking(true)?;
        Ok(Self { stream, count: Count::Plain, bytes: 0, matched: 0 })
    }

    /// From here on it counts bytes, and looks at none.
    fn count_only(&mut self) {
        if let Stream::Tls(_) = self.stream {
            self.count = Count::Records { header: Vec::with_capacity(5), left: 0 };
        }
    }

    /// Reads what there is.
    fn read(&mut self, room: &mut [u8]) -> io::Result<()> {
        loop {
            let n = match self.stream.socket().read(room) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            match &mut self.count {
                Count::Plain => self.bytes += n as u64,
                Count::Records { header, left } => self.bytes += records(&room[..n], header, left),
            }
            if n < room.len() {
                return Ok(());
            }
        }
    }

    /// Reads what there is, and says how many events end in it.
    fn look(&mut self, room: &mut [u8]) -> io::Result<u64> {
        let mut events = 0;
        loop {
            match self.stream.read(room) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.bytes += n as u64;
                    for byte in &room[..n] {
                        let next = if *byte == MARK[self.matched] { self.matched + 1 } else { 0 };
                        self.matched =
                            if next == 0 { usize::from(*byte == MARK[0]) } else { next % MARK.len() };
                        events += u64::from(next == MARK.len());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(events),
                Err(error) => return Err(error),
            }
        }
    }
}

/// The plaintext in some bytes of a stream of records.
fn records(mut bytes: &[u8], header: &mut Vec<u8>, left: &mut u64) -> u64 {
    let mut plaintext = 0;
    while !bytes.is_empty() {
        if *left > 0 {
            let n = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= n as u64;
            bytes = &bytes[n..];
            continue;
        }
        header.push(bytes[0]);
        bytes = &bytes[1..];
        if let [_, _, _, high, low] = header[..] {
            *left = u64::from(u16::from_be_bytes([high, low]));
            // Counted when the record begins: one burst is under way at a time, and the reader that looks comes last.
            plaintext += left.saturating_sub(OVERHEAD);
            header.clear();
        }
    }
    plaintext
}

/// Reads for all of them until the process ends, on a thread of its own.
pub(super) fn spawn(mut readers: Vec<Reader>, progress: Arc<Progress>) -> io::Result<()> {
    let mut poll = Poll::new()?;
    for (id, reader) in readers.iter_mut().enumerate() {
        if id > 0 {
            reader.count_only();
        }
        let descriptor = reader.stream.socket().as_raw_fd();
        poll.registry().register(&mut SourceFd(&descriptor), Token(id), Interest::READABLE)?;
    }
    std::thread::spawn(move || {
        let (mut events, mut room) = (Events::with_capacity(1024), vec![0; READ]);
        // Events that the one has which looks, and the bytes that everybody has then.
        let (mut seen, mut target) = (0, 0);
        loop {
            poll.poll(&mut events, Some(Duration::from_secs(1))).expect("it polls");
            for event in &events {
                let Token(id) = event.token();
                let reader = &mut readers[id];
                let read = match id {
                    0 => reader.look(&mut room).map(|events| {
                        seen += events;
                        target = reader.bytes;
                    }),
                    _ => reader.read(&mut room),
                };
                if let Err(error) = read {
                    assert!(progress.over.load(Ordering::SeqCst), "a reader's connection ended: {error}");
                    return;
                }
            }
            let wanted = progress.wanted.load(Ordering::SeqCst);
            if progress.got.load(Ordering::SeqCst) < wanted
                && seen >= wanted
                && readers.iter().all(|reader| reader.bytes >= target)
            {
                progress.got.store(seen, Ordering::SeqCst);
                progress.reached.notify_one();
            }
        }
    });
    Ok(())
}
