//! What goes over the wire: payloads, masked frames, and a walk over the frames that come back.

use super::Result;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// The last byte but two of every text, and found nowhere else in it: it tells events apart without a parser.
pub(super) const MARK: u8 = b'~';

/// RFC 7692, 7.2.1: not sent, and put back before inflating.
const FLUSHED: [u8; 4] = [0, 0, 0xff, 0xff];

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    Binary,
    /// JSON.
    Text,
    /// Text without quotes.
    Plain,
    /// JSON, compressed by permessage-deflate.
    Deflate,
}

/// A message, and its frame as a client sends it.
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) payload: Vec<u8>,
    pub(super) frame: Vec<u8>,
}

impl Message {
    pub(super) fn new(kind: Kind, size: usize) -> Result<Self> {
        let payload = match kind {
            Kind::Binary => noise(size),
            Kind::Plain => plain(size)?,
            Kind::Text | Kind::Deflate => readings(size)?,
        };
        let (first, sent) = match kind {
            Kind::Binary => (0x82, payload.clone()),
            Kind::Text | Kind::Plain => (0x81, payload.clone()),
            Kind::Deflate => (0xc1, deflate(&payload)?),
        };
        Ok(Self { kind, frame: masked(first, &sent), payload })
    }

    /// Whether this is the echo's payload.
    pub(super) fn is_echo(&self, compressed: bool, payload: &[u8]) -> Result<bool> {
        if compressed {
            return Ok(inflate(payload, self.payload.len() + 1)? == self.payload);
        }
        Ok(payload == self.payload)
    }
}

/// Bytes without a pattern, the same in every run.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Text in which nothing needs an escape in JSON, whatever an event is wrapped in; filled up to `size` bytes.
fn plain(size: usize) -> Result<Vec<u8>> {
    let text = String::from_utf8(readings(size)?)?;
    Ok(text.replace('"', "'").into_bytes())
}

/// JSON as devices send it: an array of readings, filled up to `size` bytes by a string.
fn readings(size: usize) -> Result<Vec<u8>> {
    let end = format!("{}\"]", char::from(MARK));
    let mut text = String::from("[");
    for (sensor, random) in noise(size).chunks(4).enumerate() {
        let &[a, b, c, d] = random else { break };
        let reading = format!(
            r#"{{"sensor":"hall/{}/{sensor}","at":{},"celsius":{}.{:02},"ok":{}}},"#,
            a % 8,
            1_790_000_000 + sensor * 15 + usize::from(b % 15),
            15 + c % 12,
            d % 100,
            d % 16 != 0
        );
        if text.len() + reading.len() + 1 + end.len() > size {
            break;
        }
        text.push_str(&reading);
    }
    text.push('"');
    let filler = size.checked_sub(text.len() + end.len()).ok_or("a text has 5 bytes at least")?;
    text.extend(std::iter::repeat_n('x', filler));
    text.push_str(&end);
    Ok(text.into_bytes())
}

/// RFC 6455, 5.2: a final frame of a client.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x9c, 0x17, 0xe3, 0x58];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// RFC 7692, 7.2.1: of a message by itself, so that it may be sent with and without context takeover.
fn deflate(payload: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(payload.len() + 64);
    Compress::new(Compression::default(), false).compress_vec(payload, &mut out, FlushCompress::Sync)?;
    if !out.ends_with(&FLUSHED) {
        return Err("deflate: no end of a flush".into());
    }
    out.truncate(out.len() - FLUSHED.len());
    Ok(out)
}

fn inflate(payload: &[u8], most: usize) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(most);
    let bytes = [payload, &FLUSHED].concat();
    let status = Decompress::new(false).decompress_vec(&bytes, &mut out, FlushDecompress::Sync)?;
    if status == Status::BufError {
        return Err("the echo does not inflate".into());
    }
    Ok(out)
}

/// A frame of a server.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub(super) opcode: u8,
    pub(super) fin: bool,
    pub(super) compressed: bool,
    pub(super) payload: usize,
}

/// Where in the stream of frames a connection is.
#[derive(Default)]
pub(super) struct Walk {
    head: [u8; 10],
    have: usize,
    /// Bytes of payload that are still to come.
    pub(super) skip: usize,
    /// Whether a message ends with them.
    ends: bool,
    /// Payload of the messages that have ended.
    pub(super) payload: u64,
}

impl Walk {
    /// The payload's next `n` bytes have come; messages that ended with them.
    pub(super) fn skipped(&mut self, n: usize) -> usize {
        self.skip -= n;
        usize::from(self.skip == 0 && self.ends)
    }

    /// Goes over what has come, with the pieces of payload going to `each`; messages that ended in it.
    pub(super) fn over(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<usize> {
        let mut messages = 0;
        loop {
            if self.skip > 0 {
                let (payload, rest) = bytes.split_at(self.skip.min(bytes.len()));
                each(payload);
                messages += self.skipped(payload.len());
                bytes = rest;
            }
            let Some((&byte, rest)) = bytes.split_first() else { return Ok(messages) };
            self.head[self.have] = byte;
            self.have += 1;
            bytes = rest;
            if let Some(frame) = header(&self.head[..self.have])? {
                self.have = 0;
                self.skip = frame.payload;
                self.ends = frame.fin && frame.opcode < 8;
                if frame.opcode < 8 {
                    self.payload += frame.payload as u64;
                }
                if frame.opcode == 8 {
                    return Err("the server closed".into());
                }
                messages += usize::from(self.skip == 0 && self.ends);
            }
        }
    }
}

/// A server's header; none if it is not whole.
pub(super) fn header(bytes: &[u8]) -> Result<Option<Frame>> {
    let Some((&[first, second], rest)) = bytes.split_first_chunk::<2>() else { return Ok(None) };
    if second & 0x80 != 0 || first & 0x30 != 0 {
        return Err(format!("not a server's frame: {first:02x} {second:02x}").into());
    }
    let payload = match second {
        126 => rest.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length))),
        127 => rest.first_chunk().map(|length| u64::from_be_bytes(*length) as usize),
        short => Some(usize::from(short)),
    };
    Ok(payload.map(|payload| Frame {
        opcode: first & 0x0f,
        fin: first & 0x80 != 0,
        compressed: first & 0x40 != 0,
        payload,
    }))
}
