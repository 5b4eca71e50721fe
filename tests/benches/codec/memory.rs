//! The messages, and the stream that they come from.

use std::cell::Cell;
use std::hint::black_box;
use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes of one read: what a busy socket has waiting.
const READ: usize = 128 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Binary,
    Text,
}

/// One size of message.
pub(crate) struct Case {
    pub name: &'static str,
    pub kind: Kind,
    pub payload: Vec<u8>,
    /// A batch of them as a client sends them: masked frames, one behind the other.
    wire: Vec<u8>,
    /// Where in a page of memory the next stream begins.
    place: Cell<usize>,
    /// How many are timed at once.
    pub count: usize,
    /// How many are queued before a flush.
    pub batch: usize,
}

impl Case {
    pub(crate) fn new(name: &'static str, kind: Kind, size: usize) -> Self {
        let payload = payload(kind, size);
        let frame = frame(kind, &payload);
        let wire = frame.repeat((256 * 1024 / frame.len()).max(2));
        Self {
            name,
            kind,
            payload,
            wire,
            place: Cell::new(0),
            count: (4_000_000 / (400 + size)).max(8),
            batch: (64 * 1024 / size).clamp(1, 16),
        }
    }

    /// A stream of the batch, over and over. Each lies elsewhere in its pages: a copy takes twice as long if source and
    /// destination lie alike in theirs, and no library should be lucky in that.
    pub(crate) fn stream(&self) -> Memory {
        let start = self.place.get();
        self.place.set((start + 272) % 4096);
        Memory { bytes: [vec![0; start], self.wire.clone()].concat(), start, at: start }
    }
}

/// Random bytes, or a text of which one character in three takes two or three bytes.
fn payload(kind: Kind, size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    if kind == Kind::Binary {
        return (0..size).map(|_| next()).collect();
    }
    let mut text = String::new();
    while text.len() < size {
        let char = match next() % 10 {
            0 => 'é',
            1 => 'я',
            2 => '世',
            n => char::from(b'a' + n),
        };
        text.push(if text.len() + char.len_utf8() <= size { char } else { '.' });
    }
    text.into_bytes()
}

/// RFC 6455 section 5.2, written down once more: the bench trusts nobody's encoder.
fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![if kind == Kind::Text { 0x81 } else { 0x82 }];
    match payload.len() {
        len @ ..126 => frame.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A stream that always has more of the batch, copies it out as a kernel would, and drops what is written.
pub(crate) struct Memory {
    bytes: Vec<u8>,
    start: usize,
    at: usize,
}

impl Memory {
    fn hand_out(&mut self, most: usize) -> &[u8] {
        let from = self.at;
        let n = (self.bytes.len() - from).min(most).min(READ);
        self.at = if from + n == self.bytes.len() { self.start } else { from + n };
        &self.bytes[from..from + n]
    }
}

impl Read for Memory {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let bytes = self.hand_out(to.len());
        to[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(black_box(bytes).len())
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(black_box(parts).iter().map(|part| part.len()).sum())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        to.put_slice(self.hand_out(to.remaining()));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
