//! A reader that costs next to nothing: it counts events, and looks at no byte of them that it need not.

use super::connected;
use std::io;
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Bytes that are read at once, on the stack of whoever reads.
const READ: usize = 64 << 10;

/// One connection that is subscribed to everything below `bench/fanout`.
pub(super) struct Reader {
    stream: TcpStream,
    counter: Counter,
}

enum Counter {
    /// Bytes of a frame's header that were read, and then bytes of its payload to come.
    Frames { header: Vec<u8>, payload: u64 },
    /// Events of a topic have no `event:` line and all others do: `id: ` begins a line in each, and in `tick`.
    Lines { matched: usize },
}

impl Reader {
    /// Connects, and reads up to the end of the response's head. What follows counts.
    pub(super) async fn open(address: SocketAddr, sse: bool) -> io::Result<Self> {
        Self::over(connected(address, false).await?, address, sse).await
    }

    /// The same for one that is not going to read.
    pub(super) async fn open_narrow(address: SocketAddr, sse: bool) -> io::Result<Self> {
        Self::over(connected(address, true).await?, address, sse).await
    }

    async fn over(mut stream: TcpStream, address: SocketAddr, sse: bool) -> io::Result<Self> {
        let how = match sse {
            true => "Accept: text/event-stream\r\n",
            false => {
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            }
        };
        let request = format!("GET /v1/stream?topic=bench/fanout HTTP/1.1\r\nHost: {address}\r\n{how}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut reader = Self {
            stream,
            counter: match sse {
                true => Counter::Lines { matched: 0 },
                false => Counter::Frames { header: Vec::new(), payload: 0 },
            },
        };
        let mut head = Vec::new();
        let rest = loop {
            let mut room = [0; 4096];
            reader.stream.readable().await?;
            match reader.stream.try_read(&mut room) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => head.extend_from_slice(&room[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                Err(e) => return Err(e),
            }
            if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                break head.split_off(end + 4);
            }
        };
        assert!(head.starts_with(b"HTTP/1.1 101") || head.starts_with(b"HTTP/1.1 200"), "{head:?}");
        reader.counter.count(&rest);
        Ok(reader)
    }

    /// Waits for input and says how many events ended in it.
    pub(super) async fn next(&mut self) -> io::Result<u64> {
        let mut room = [0; READ];
        loop {
            self.stream.readable().await?;
            match self.stream.try_read(&mut room) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => return Ok(self.counter.count(&room[..n])),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl Counter {
    fn count(&mut self, bytes: &[u8]) -> u64 {
        match self {
            Self::Frames { header, payload } => frames(bytes, header, payload),
            Self::Lines { matched } => lines(bytes, matched),
        }
    }
}

/// Frames larger than any `tick` or `hello`... are told apart by their first words instead: `{"type":"event"`.
const EVENT: &[u8] = br#"{"type":"event""#;

/// RFC 6455 section 5.2, from a server: no mask.
fn frames(mut bytes: &[u8], header: &mut Vec<u8>, payload: &mut u64) -> u64 {
    let mut events = 0;
    while !bytes.is_empty() {
        if *payload > 0 {
            let n = bytes.len().min(usize::try_from(*payload).unwrap_or(usize::MAX));
            *payload -= n as u64;
            bytes = &bytes[n..];
            continue;
        }
        header.push(bytes[0]);
        bytes = &bytes[1..];
        let Some((len, size)) = length(header) else { continue };
        // The first words of the payload belong to what is looked at.
        if header.len() - size < EVENT.len().min(usize::try_from(len).unwrap_or(usize::MAX)) {
            continue;
        }
        events += u64::from(&header[size..] == EVENT);
        *payload = len - (header.len() - size) as u64;
        header.clear();
    }
    events
}

/// Length of the payload, and of what stands before it, once that is there.
fn length(header: &[u8]) -> Option<(u64, usize)> {
    match (*header.get(1)? & 0x7f, header) {
        (126, [_, _, a, b, ..]) => Some((u64::from(u16::from_be_bytes([*a, *b])), 4)),
        (127, [_, _, a, b, c, d, e, f, g, h, ..]) => {
            Some((u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 10))
        }
        (126 | 127, _) => None,
        (short, _) => Some((short.into(), 2)),
    }
}

/// Counts `"type":"event"`, which no data of this program contains.
fn lines(bytes: &[u8], matched: &mut usize) -> u64 {
    const MARK: &[u8] = br#""type":"event""#;
    let mut events = 0;
    for byte in bytes {
        *matched = if *byte == MARK[*matched] { *matched + 1 } else { usize::from(*byte == MARK[0]) };
        if *matched == MARK.len() {
            events += 1;
            *matched = 0;
        }
    }
    events
}
