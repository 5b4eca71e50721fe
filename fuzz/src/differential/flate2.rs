//! permessage-deflate (RFC 7692), against flate2: what our decompressors make of a payload through a connection, and
//! what is read of the payloads that our compressor makes.

use super::Known;
use crate::common::{AnyClient, End, Endpoint, Heard, Lent, Wire, frames, limits};
use crate::cuts::pieces;
use codec::Codec;
use flate2::{Decompress, FlushDecompress, Status};
use longwire_core::ws::deflate::{Agreed, Inflate, TAIL, Window};
use longwire_core::ws::{Kind, MIN_RX, MIN_TX, ProtocolError, Server};
use longwire_embassy::Inflater;

/// The codec of the runtime for tokio, which is its own affair.
#[path = "../../../runtime-tokio/src/websocket/deflate/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "of the runtime's")]
mod codec;

pub(super) const KNOWN: &[&Known] =
    &[&COMPRESSED_ABOVE_LIMIT, &ONE_OF_SEVERAL_FAULTS, &ENDS_INSIDE_A_BLOCK, &CUT_OFF, &BEYOND_THE_WINDOW];

const COMPRESSED_ABOVE_LIMIT: Known = Known {
    input: "a payload far longer than a message of the limit is when it does not compress",
    longwire: "fails with 1009",
    peer: "inflates it, be it to nothing",
    standard: "RFC 7692 has no bound; without one, empty blocks cost work and count for nothing",
};

const ONE_OF_SEVERAL_FAULTS: Known = Known {
    input: "a payload that inflates to more than the limit, and is malformed behind that",
    longwire: "names one of the faults",
    peer: "names the other",
    standard: "RFC 7692 has no order; both fail the connection",
};

const ENDS_INSIDE_A_BLOCK: Known = Known {
    input: "with context takeover, messages behind one that ended inside a block",
    longwire: "begins a block with each message",
    peer: "goes on in the block",
    standard: "RFC 7692 7.2.1: a sender ends each message with an empty block; of others it says nothing",
};

const CUT_OFF: Known = Known {
    input: "a payload that ends inside the header of a block which can only be malformed",
    longwire: "fails with 1007 (on devices)",
    peer: "would say so at the end of the header",
    standard: "RFC 1951 3.2.7; nothing says how early",
};

const BEYOND_THE_WINDOW: Known = Known {
    input: "a distance that is a few bytes beyond a small window",
    longwire: "fails with 1007 (on devices)",
    peer: "still has the bytes",
    standard: "RFC 7692 7.1.2: a sender keeps to the window that was agreed on",
};

/// `flags | limit / 64 | longest piece | seed`, a byte each, and messages: `length` in two bytes, and so many bytes.
///
/// | flags | |
/// |---|---|
/// | 1 | a client |
/// | 2 | context takeover |
/// | 4 | the decompressor of devices, as a client |
/// | 8 | a window of 512 bytes, where that matters: at the device and for what is compressed |
/// | 16 | the messages are compressed by longwire, at the level of the seed; otherwise they are payloads to be inflated |
pub(super) fn compare(data: &[u8]) -> Vec<&'static Known> {
    let Some((&[flags, limit, longest, seed], rest)) = data.split_first_chunk() else { return Vec::new() };
    let bits = if flags & 8 == 0 { 15 } else { 9 };
    let setup = Setup {
        window: Window { bits, takeover: flags & 2 != 0 },
        limit: 64 * usize::from(limit),
        longest,
        seed,
    };
    let messages = messages(rest);
    if flags & 16 != 0 {
        match flags & 1 {
            0 => compressed::<Server>(&setup, &messages),
            _ => compressed::<AnyClient>(&setup, &messages),
        }
        return Vec::new();
    }
    match (flags & 4, flags & 8, setup.window.takeover) {
        (0, ..) => {
            // It accepts what any window can hold.
            let setup = Setup { window: Window { bits: 15, ..setup.window }, ..setup };
            let codec = Box::new(Codec::new(Some(setup.agreed())));
            match flags & 1 {
                0 => inflated::<Server>(&setup, codec, &messages),
                _ => inflated::<AnyClient>(&setup, codec, &messages),
            }
        }
        (_, 0, false) => inflated::<AnyClient>(&setup, Box::new(Inflater::<0x8000>::new()), &messages),
        (_, 0, true) => {
            inflated::<AnyClient>(&setup, Box::new(Inflater::<0x8000>::with_takeover()), &messages)
        }
        (_, _, false) => inflated::<AnyClient>(&setup, Box::new(Inflater::<512>::new()), &messages),
        (_, _, true) => inflated::<AnyClient>(&setup, Box::new(Inflater::<512>::with_takeover()), &messages),
    }
}

#[derive(Clone, Copy)]
struct Setup {
    window: Window,
    limit: usize,
    longest: u8,
    seed: u8,
}

impl Setup {
    fn agreed(&self) -> Agreed {
        Agreed { server: self.window, client: self.window }
    }
}

/// At most sixteen.
fn messages(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let Some((len, behind)) = rest.split_first_chunk()
        && messages.len() < 16
    {
        let (message, behind) = behind.split_at(usize::from(u16::from_be_bytes(*len)).min(behind.len()));
        messages.push(message);
        rest = behind;
    }
    messages
}

/// Payloads, inflated by both.
fn inflated<R: End>(setup: &Setup, codec: Box<dyn Inflate>, payloads: &[&[u8]]) -> Vec<&'static Known> {
    let config = limits(setup.limit as u64, u32::MAX);
    let mut endpoint =
        Endpoint::<R>::with(config, MIN_RX, MIN_TX).deflate(setup.agreed()).lent(Lent::Other(codec));
    let (mut met, mut peer) = (Vec::new(), Peer::new(setup.window));
    for (n, payload) in payloads.iter().enumerate() {
        let fragments = pieces(payload, setup.longest, setup.seed);
        let ours = receive(&mut endpoint, setup, &fragments);
        let theirs = peer.inflate(payload, setup.limit);
        if ours == theirs {
            if ours.is_err() {
                break;
            }
            continue;
        }
        let faults = (peer.inflate_again(usize::MAX).is_err(), peer.inflate_again(setup.limit));
        let known = match ours {
            Err(Fault::TooBig) if is_far_longer(&fragments, setup.limit) => &COMPRESSED_ABOVE_LIMIT,
            Err(_) if faults == (true, Err(Fault::TooBig)) => &ONE_OF_SEVERAL_FAULTS,
            Err(Fault::Corrupt) if theirs.is_ok() && peer.is_doomed() => &CUT_OFF,
            Err(Fault::Corrupt)
                if setup.window.bits < 15
                    && with_the_largest_window::<R>(setup, &payloads[..=n]) == theirs =>
            {
                &BEYOND_THE_WINDOW
            }
            _ if !peer.began_between_blocks() => &ENDS_INSIDE_A_BLOCK,
            _ => panic!("longwire {ours:x?}, peer {theirs:x?} of {payload:x?}"),
        };
        met.push(known);
        break;
    }
    met
}

/// The last of these payloads, inflated by the decompressor of devices with room for any distance.
fn with_the_largest_window<R: End>(setup: &Setup, payloads: &[&[u8]]) -> Message {
    let codec = match setup.window.takeover {
        true => Inflater::<0x8000>::with_takeover(),
        false => Inflater::<0x8000>::new(),
    };
    let config = limits(setup.limit as u64, u32::MAX);
    let mut endpoint = Endpoint::<R>::with(config, MIN_RX, MIN_TX)
        .deflate(setup.agreed())
        .lent(Lent::Other(Box::new(codec)));
    let mut last = Ok(Vec::new());
    for payload in payloads {
        last = receive(&mut endpoint, setup, &pieces(payload, setup.longest, setup.seed));
    }
    last
}

/// A message, or what is wrong with it.
type Message = Result<Vec<u8>, Fault>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Corrupt,
    TooBig,
}

fn receive<R: End>(endpoint: &mut Endpoint<R>, setup: &Setup, fragments: &[&[u8]]) -> Message {
    let mut wire = Wire::to::<R>();
    for (n, fragment) in fragments.iter().enumerate() {
        let (first, last) = (n == 0, n + 1 == fragments.len());
        wire = wire.frame(if first { 0x42 } else { 0 } | if last { 0x80 } else { 0 }, fragment);
    }
    if fragments.is_empty() {
        wire = wire.frame(0xc2, b"");
    }
    endpoint.heard.clear();
    for piece in pieces(wire.bytes(), setup.longest.rotate_left(3), setup.seed) {
        endpoint.receive(piece);
    }
    match &endpoint.heard[..] {
        [Heard::Binary(data)] => Ok(data.clone()),
        [Heard::Failed(ProtocolError::Corrupt)] => Err(Fault::Corrupt),
        [Heard::Failed(ProtocolError::MessageTooBig)] => Err(Fault::TooBig),
        heard => panic!("of one binary message: {heard:?}"),
    }
}

/// What the documentation of `Config::max_message` says: an eighth more, and some bytes for each fragment.
fn is_far_longer(fragments: &[&[u8]], limit: usize) -> bool {
    let mut len = 0;
    fragments.iter().enumerate().any(|(n, fragment)| {
        len += fragment.len();
        len > limit + limit / 8 + 64 + 8 * n
    })
}

/// flate2, for the messages of a connection.
struct Peer {
    window: Window,
    stream: Stream,
    /// What was compressed since the window was empty, with the tails.
    compressed: Vec<u8>,
    /// Where in it each message begins.
    begins: Vec<usize>,
    /// What came of it, up to the last message.
    before: usize,
    after: usize,
}

impl Peer {
    fn new(window: Window) -> Self {
        let stream = Stream::new(window.bits);
        Self { window, stream, compressed: Vec::new(), begins: Vec::new(), before: 0, after: 0 }
    }

    /// The next message.
    fn inflate(&mut self, payload: &[u8], limit: usize) -> Message {
        if !self.window.takeover {
            *self = Self::new(self.window);
        }
        self.before = self.after;
        self.begins.push(self.compressed.len());
        // RFC 7692 7.2.2; of nothing at all, nothing comes.
        if payload.is_empty() {
            return Ok(Vec::new());
        }
        let payload = [payload, &TAIL].concat();
        self.compressed.extend_from_slice(&payload);
        // One byte at a time, so that it keeps to its window.
        let message = self.stream.inflate(&payload, limit, 1)?;
        self.after += message.len();
        Ok(message)
    }

    /// The last message once more, perhaps with another limit.
    fn inflate_again(&self, limit: usize) -> Message {
        let limit = self.before.saturating_add(limit);
        let all = Stream::new(self.window.bits).inflate(&self.compressed, limit, 1)?;
        Ok(all[self.before..].into())
    }

    /// Whether the last message ended inside a block that nothing could complete.
    fn is_doomed(&self) -> bool {
        if self.is_between_blocks(self.compressed.len()) {
            return false;
        }
        let payload = self.compressed.strip_suffix(&TAIL).unwrap_or_default();
        [0, 0x55, 0xaa, 0xff].iter().all(|byte| {
            let more = [payload, &[*byte; 400]].concat();
            Stream::new(self.window.bits).inflate(&more, usize::MAX, 1) == Err(Fault::Corrupt)
        })
    }

    /// Whether all messages began between two blocks.
    fn began_between_blocks(&self) -> bool {
        self.begins.iter().all(|at| self.is_between_blocks(*at))
    }

    /// Whether so much of what was compressed ends there: one more block can follow, which is empty and the last.
    fn is_between_blocks(&self, at: usize) -> bool {
        let mut stream = Stream::new(self.window.bits);
        stream.inflate(&self.compressed[..at], usize::MAX, 4096).is_ok()
            && stream.inflate(&[1, 0, 0, 0xff, 0xff], usize::MAX, 4096) == Ok(Vec::new())
            && stream.ended
    }
}

/// Blocks, and behind one that says that it is the last, others.
struct Stream {
    bits: u8,
    inner: Decompress,
    ended: bool,
}

impl Stream {
    fn new(bits: u8) -> Self {
        Self { bits, inner: Decompress::new_with_window_bits(false, bits), ended: false }
    }

    /// Inflates all of `input`, so many bytes at a time.
    fn inflate(&mut self, input: &[u8], limit: usize, piece: usize) -> Message {
        let (mut out, mut read, mut space) = (Vec::new(), 0, vec![0; piece]);
        while !(self.ended && read == input.len()) {
            if self.ended {
                // RFC 7692 7.2.3.4: what follows a last block begins anew.
                *self = Self::new(self.bits);
            }
            let before = (self.inner.total_in(), self.inner.total_out());
            let status = self.inner.decompress(&input[read..], &mut space, FlushDecompress::None);
            read += usize::try_from(self.inner.total_in() - before.0).unwrap();
            let written = usize::try_from(self.inner.total_out() - before.1).unwrap();
            out.extend_from_slice(&space[..written]);
            if out.len() > limit {
                return Err(Fault::TooBig);
            }
            // Also what comes before a fault was written.
            self.ended = status.map_err(|_| Fault::Corrupt)? == Status::StreamEnd;
            if !self.ended && written < piece && read == input.len() {
                break;
            }
        }
        Ok(out)
    }
}

/// Messages that longwire compresses.
///
/// # Panics
/// When flate2, with a window of what was agreed on, does not find them again.
fn compressed<R: End>(setup: &Setup, messages: &[&[u8]]) {
    let level = 1 + setup.seed % 9;
    let room = MIN_TX + 160 + 4 * messages.iter().map(|message| message.len()).sum::<usize>();
    let mut endpoint = Endpoint::<R>::with(limits(0, 0), MIN_RX, room).deflate(setup.agreed());
    let (mut codec, mut peer) = (Codec::new(Some(setup.agreed())), Peer::new(setup.window));
    for message in messages {
        // More than once, so that there is something to compress.
        let message = message.repeat(1 + usize::from(setup.longest % 4));
        endpoint.sent.clear();
        endpoint
            .lend(|connection, io| {
                connection.send_deflated(&mut io.tx, Kind::Binary, &message, &mut codec.deflater(level))
            })
            .unwrap();
        endpoint.write(usize::MAX);
        let (sent, rest) = frames(&endpoint.sent);
        assert!(sent.len() == 1 && rest.is_empty());
        let payload = &sent[0].payload;
        if sent[0].b0 == 0x82 {
            assert_eq!(payload, &message);
            continue;
        }
        assert_eq!(sent[0].b0, 0xc2);
        assert!(payload.len() < message.len());
        assert_eq!(peer.inflate(payload, usize::MAX), Ok(message));
        assert!(peer.is_between_blocks(peer.compressed.len()));
    }
}
