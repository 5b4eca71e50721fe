//! The codecs of permessage-deflate (RFC 7692): flate2 on zlib-rs, and for what is sent by default a compressor of our
//! own ([`quick`]).
//!
//! Without context takeover a connection owns no codec: it borrows its thread's compressor for the call that
//! compresses a message, and takes a decompressor from its thread's pool while it inflates one: for a call, if messages
//! are handed out whole, and for as long as a message comes in, if in pieces.
//! With takeover it keeps what the rules demand while it is idle: of what it received the last 32 KiB at most,
//! of what it sent nothing.

mod quick;

use self::quick::Quick;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use longwire_core::ws::deflate::{self, Agreed, Corrupt, Inflate, Inflated, TAIL, Window};
use std::cell::RefCell;
use std::fmt;

/// What an endpoint wants of compression, and when it uses it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Deflate {
    /// What is offered and accepted. Default: windows of 32 KiB, none kept between messages (no context takeover), so
    /// that an idle connection holds nothing. Takeover of what is received costs a connection up to 64 KiB, 32 KiB once
    /// the peer is silent; of what is sent a compressor of about 300 KiB, which is given back when a heartbeat has to
    /// ask a silent peer and it was not used since the last time (without a heartbeat: at the end).
    pub windows: deflate::Config,

    /// Messages shorter than this many bytes are sent as they are: they gain little. Default 512.
    pub threshold: usize,

    /// How hard to compress, from 1 (fast) to 9 (small). Default 1.
    ///
    /// Without takeover 1 is a compressor made for messages, with 16 KiB for a thread. Of 1 KiB of JSON it makes 305
    /// bytes in 1.1 us; level 2 makes 243 in 10 us, level 6 234 in 11 us. A smaller window costs bytes in messages that
    /// are larger than it, and gains no time. More of this in `runtime-tokio/benches/README.md`; `cargo bench -p
    /// longwire --bench deflate` measures it.
    pub level: u8,
}

impl Default for Deflate {
    fn default() -> Self {
        Self { windows: deflate::Config::new(), threshold: 512, level: 1 }
    }
}

/// Idle decompressors that a thread keeps, of about 40 KiB each. More are in use only while as many messages are being
/// handed out in pieces.
const MAX_IDLE: usize = 4;

/// What a thread shares between its connections.
#[derive(Default)]
struct Shared {
    #[expect(
        clippy::vec_box,
        reason = "they move between here and a connection, which is small without one"
    )]
    decompressors: Vec<Box<Decompress>>,
    quick: Option<Box<Quick>>,
    /// One for each size of window and higher level that is in use, of about 300 KiB each at most.
    compressors: Vec<((u8, u8), Compress)>,
}

thread_local! {
    static SHARED: RefCell<Shared> = RefCell::default();
}

/// What a connection has of its own.
#[derive(Default)]
pub(crate) struct Codec {
    /// While a message is being inflated.
    inflating: Option<Box<Decompress>>,
    /// A block with BFINAL has ended.
    ended: bool,
    takeover: Option<Box<Takeover>>,
}

#[derive(Default)]
struct Takeover {
    /// The end of what was received.
    received: Vec<u8>,
    compressor: Option<Compress>,
    /// It has compressed something since the last [`Codec::rest`].
    used: bool,
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codec")
            .field("inflating", &self.inflating.is_some())
            .field("takeover", &self.takeover.is_some())
            .finish_non_exhaustive()
    }
}

impl Codec {
    /// The codec of a connection on which this was agreed.
    pub(crate) fn new(agreed: Option<Agreed>) -> Self {
        let takes_over = agreed.is_some_and(|agreed| agreed.server.takeover || agreed.client.takeover);
        Self { takeover: takes_over.then(Box::default), ..Self::default() }
    }

    /// Lends a compressor of this level.
    pub(crate) fn deflater(&mut self, level: u8) -> Deflater<'_> {
        Deflater { codec: self, level }
    }

    /// Called when the peer is silent: a compressor that was not used since the last time is given back. The next
    /// message then refers to nothing before it, which is always allowed. Of what was received only the window stays.
    pub(crate) fn rest(&mut self) {
        if let Some(takeover) = &mut self.takeover {
            takeover.trim(WINDOW, WINDOW);
            takeover.received.shrink_to_fit();
            if !std::mem::take(&mut takeover.used) {
                takeover.compressor = None;
            }
        }
    }

    /// The decompressor of the current message, as it has to be at its beginning.
    fn begin(&mut self) -> Box<Decompress> {
        let taken = SHARED.with_borrow_mut(|shared| shared.decompressors.pop());
        let mut stream = taken.unwrap_or_else(|| Box::new(Decompress::new(false)));
        stream.reset(false);
        if let Some(Takeover { received, .. }) = self.takeover.as_deref()
            && !received.is_empty()
        {
            let from = received.len().saturating_sub(WINDOW);
            // Of a raw stream at its beginning this cannot fail.
            let _ = stream.set_dictionary(received.get(from..).unwrap_or_default());
        }
        stream
    }
}

impl Inflate for Codec {
    fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<Inflated, Corrupt> {
        let mut stream = match self.inflating.take() {
            Some(stream) => stream,
            None => self.begin(),
        };
        let result = inflate(&mut stream, &mut self.ended, input, output);
        self.inflating = Some(stream);
        let (done, anew) = result?;
        if let Some(takeover) = &mut self.takeover {
            if anew.is_some() {
                takeover.received.clear();
            }
            let fresh = output.get(anew.unwrap_or(0)..done.written).unwrap_or_default();
            if fresh.len() >= WINDOW {
                takeover.received.clear();
            }
            let from = fresh.len().saturating_sub(WINDOW);
            takeover.received.extend_from_slice(fresh.get(from..).unwrap_or_default());
            takeover.trim(2 * WINDOW, WINDOW);
        }
        Ok(done)
    }

    fn end_message(&mut self, window: Window) {
        let ended = std::mem::take(&mut self.ended);
        if let Some(stream) = self.inflating.take() {
            SHARED.with_borrow_mut(|shared| {
                if shared.decompressors.len() < MAX_IDLE {
                    shared.decompressors.push(stream);
                }
            });
        }
        if let Some(takeover) = &mut self.takeover {
            let keep = if window.takeover && !ended { 1 << window.bits.min(15) } else { 0 };
            takeover.trim(2 * keep, keep);
        }
    }
}

/// The largest window of RFC 1951.
const WINDOW: usize = 1 << 15;

impl Takeover {
    /// Forgets what is further back than `keep` bytes, once that is more than `most`: so each byte is moved once.
    fn trim(&mut self, most: usize, keep: usize) {
        if self.received.len() > most {
            self.received.drain(..self.received.len() - keep);
        }
    }
}

/// Inflates as far as input and output go. If a block with BFINAL ended on the way, it also says how much had been
/// written then: nothing behind it refers to that.
fn inflate(
    stream: &mut Decompress,
    ended: &mut bool,
    input: &[u8],
    output: &mut [u8],
) -> Result<(Inflated, Option<usize>), Corrupt> {
    let (mut done, mut anew) = (Inflated::default(), None);
    loop {
        let (input, output) =
            (input.get(done.read..).unwrap_or_default(), output.get_mut(done.written..).unwrap_or_default());
        if output.is_empty() || (*ended && input.is_empty()) {
            return Ok((done, anew));
        }
        if std::mem::take(ended) {
            // RFC 7692 7.2.3.4: after a block with BFINAL there may be others, which begin anew.
            stream.reset(false);
            anew = Some(done.written);
        }
        let before = (stream.total_in(), stream.total_out());
        let status = stream.decompress(input, output, FlushDecompress::None).map_err(|_| Corrupt)?;
        let read = usize::try_from(stream.total_in() - before.0).map_err(|_| Corrupt)?;
        let written = usize::try_from(stream.total_out() - before.1).map_err(|_| Corrupt)?;
        done.read += read;
        done.written += written;
        match status {
            Status::StreamEnd => *ended = true,
            // Nothing more can be done: the output is full, or the input used up.
            Status::BufError => return Ok((done, anew)),
            Status::Ok if read == input.len() && written < output.len() => return Ok((done, anew)),
            Status::Ok if read + written == 0 => return Ok((done, anew)),
            Status::Ok => {}
        }
    }
}

/// A compressor of some level, lent for the connection whose [`Codec`] it borrows.
pub(crate) struct Deflater<'a> {
    codec: &'a mut Codec,
    level: u8,
}

impl Deflater<'_> {
    /// A whole message, compressed into memory of its own; `None` if it does not shrink.
    pub(crate) fn message(&mut self, window: Window, data: &[u8]) -> Option<Vec<u8>> {
        let mut space = vec![0; data.len()];
        let len = deflate::Deflate::deflate_message(self, window, data, &mut space)?;
        space.truncate(len);
        Some(space)
    }
}

impl deflate::Deflate for Deflater<'_> {
    fn deflate_message(&mut self, window: Window, input: &[u8], output: &mut [u8]) -> Option<usize> {
        let level = self.level;
        match &mut self.codec.takeover {
            // zlib has no window of 256 bytes.
            Some(takeover) if window.takeover && window.bits > 8 => {
                takeover.used = true;
                let mut stream = takeover.compressor.take().unwrap_or_else(|| compressor(window, level));
                let len = compress(&mut stream, input, output)?;
                // Kept only if the message goes out: what the peer does not see must not be referred to.
                takeover.compressor = Some(stream);
                Some(len)
            }
            _ if level <= 1 || window.bits <= 8 => SHARED.with_borrow_mut(|shared| {
                shared.quick.get_or_insert_default().message(1 << window.bits.clamp(8, 15), input, output)
            }),
            _ => SHARED.with_borrow_mut(|shared| {
                let kind = (window.bits, level);
                let at = shared.compressors.iter().position(|(other, _)| *other == kind);
                let mut stream = match at {
                    Some(at) => shared.compressors.swap_remove(at).1,
                    None => compressor(window, level),
                };
                let len = compress(&mut stream, input, output);
                stream.reset();
                // The windows are seven, but levels are the configuration's.
                shared.compressors.truncate(MAX_COMPRESSORS - 1);
                shared.compressors.push((kind, stream));
                len
            }),
        }
    }
}

/// A message that many connections get, compressed with the default settings; `None` if it is too short, or does not
/// shrink.
pub(crate) fn message(window: Window, data: &[u8]) -> Option<Vec<u8>> {
    let Deflate { threshold, level, .. } = Deflate::default();
    if data.len() < threshold {
        return None;
    }
    Codec::default().deflater(level).message(window, data)
}

/// Compressors that a thread keeps: more kinds than that push each other out.
const MAX_COMPRESSORS: usize = 8;

fn compressor(window: Window, level: u8) -> Compress {
    let level = Compression::new(u32::from(level.clamp(1, 9)));
    Compress::new_with_window_bits(level, false, window.bits.clamp(9, 15))
}

/// Compresses all of `input`, without the tail; `None` if that does not fit. Then the rest of it is compressed all the
/// same: a compressor that stopped in the middle could not be used again, for no reset brings all of it back.
fn compress(stream: &mut Compress, input: &[u8], output: &mut [u8]) -> Option<usize> {
    let before = (stream.total_in(), stream.total_out());
    stream.compress(input, output, FlushCompress::Sync).ok()?;
    let read = usize::try_from(stream.total_in() - before.0).ok()?;
    let written = usize::try_from(stream.total_out() - before.1).ok()?;
    // With the output full there may be more to come.
    if read < input.len() || written >= output.len() {
        drain(stream, input.get(read..).unwrap_or_default());
        return None;
    }
    output.get(..written)?.strip_suffix(&TAIL).map(<[u8]>::len)
}

fn drain(stream: &mut Compress, mut rest: &[u8]) {
    let mut ignored = [0; 1024];
    loop {
        let before = (stream.total_in(), stream.total_out());
        if stream.compress(rest, &mut ignored, FlushCompress::Sync).is_err() {
            return;
        }
        let read = usize::try_from(stream.total_in() - before.0).unwrap_or(usize::MAX);
        rest = rest.get(read..).unwrap_or_default();
        if stream.total_out() - before.1 < ignored.len() as u64 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longwire_core::ws::deflate::Deflate as _;

    const PLAIN: Window = Window { bits: 15, takeover: false };
    const TAKEOVER: Window = Window { bits: 15, takeover: true };

    fn codec(window: Window) -> Codec {
        Codec::new(Some(Agreed { server: window, client: window }))
    }

    /// A message through both, in pieces of the output's size.
    fn pass(codec: &mut Codec, window: Window, data: &[u8], piece: usize) -> (usize, Vec<u8>) {
        let mut small = vec![0; data.len()];
        let n = codec.deflater(3).deflate_message(window, data, &mut small).expect("shorter");
        let mut out = Vec::new();
        let mut input = [&small[..n], &TAIL].concat();
        loop {
            let mut space = vec![0; piece];
            let done = codec.inflate(&input, &mut space).expect("inflates");
            out.extend_from_slice(&space[..done.written]);
            input.drain(..done.read);
            if done.written < piece {
                break;
            }
        }
        assert!(input.is_empty());
        codec.end_message(window);
        (n, out)
    }

    #[test]
    fn what_is_compressed_is_inflated_with_and_without_takeover() {
        let data: Vec<u8> = (0..100_000u32).flat_map(|n| (n % 1000).to_le_bytes()).collect();
        for window in
            [PLAIN, TAKEOVER, Window { bits: 9, takeover: true }, Window { bits: 9, takeover: false }]
        {
            let mut codec = codec(window);
            let mut sizes = Vec::new();
            for piece in [1 << 20, 1000, 7] {
                let message = &data[..20_000];
                let (n, out) = pass(&mut codec, window, message, piece);
                assert!(out == message);
                sizes.push(n);
            }
            assert_eq!(sizes[1] < sizes[0], window == TAKEOVER, "{sizes:?}");
        }
    }

    #[test]
    fn an_idle_connection_holds_nothing_without_takeover_and_a_window_with_it() {
        let data = vec![b'a'; 200_000];
        let mut plain = codec(PLAIN);
        pass(&mut plain, PLAIN, &data, 1 << 18);
        assert!(plain.inflating.is_none() && plain.takeover.is_none());
        let mut kept = codec(TAKEOVER);
        pass(&mut kept, TAKEOVER, &data, 1 << 18);
        let takeover = kept.takeover.as_mut().unwrap();
        assert!(takeover.received.len() <= 2 * WINDOW && takeover.received.capacity() <= 4 * WINDOW);
        assert!(takeover.compressor.is_some());
        kept.rest();
        assert_eq!(kept.takeover.as_ref().unwrap().received.capacity(), WINDOW);
        assert!(kept.takeover.as_ref().unwrap().compressor.is_some(), "it was used since the last time");
        kept.rest();
        assert!(kept.takeover.as_ref().unwrap().compressor.is_none());
        // And goes on where it was.
        let (_, out) = pass(&mut kept, TAKEOVER, b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 100);
        assert_eq!(out, [b'a'; 37]);
    }

    #[test]
    fn what_does_not_shrink_is_forgotten() {
        let noise: Vec<u8> = rand::RngExt::random_iter::<u8>(&mut rand::rng()).take(2000).collect();
        let mut codec = codec(TAKEOVER);
        let mut space = vec![0; noise.len()];
        assert_eq!(codec.deflater(3).deflate_message(TAKEOVER, &noise, &mut space), None);
        assert!(codec.takeover.as_ref().unwrap().compressor.is_none());
        // The peer never saw the noise, so what repeats it must not refer to it.
        let twice = [&noise[..], &noise].concat();
        let (_, out) = pass(&mut codec, TAKEOVER, &twice, 8000);
        assert!(out == twice);
    }

    #[test]
    fn rfc7692_7_2_3_4_nothing_behind_a_last_block_refers_to_what_is_before_it() {
        let mut codec = codec(TAKEOVER);
        let mut message = |payload: &[u8]| {
            let mut space = [0; 100];
            let done = codec.inflate(&[payload, &TAIL].concat(), &mut space)?;
            codec.end_message(TAKEOVER);
            Ok(space[..done.written].to_vec())
        };
        // "Hello", and once more, as five bytes back; as the RFC has it in section 7.2.3.2.
        let (hello, again) = (b"\xf2\x48\xcd\xc9\xc9\x07\x00", b"\xf2\x00\x11\x00\x00");
        assert_eq!(message(hello), Ok(b"Hello".to_vec()));
        assert_eq!(message(again), Ok(b"Hello".to_vec()));
        // In a block with BFINAL, which is followed by the empty block that the tail completes.
        assert_eq!(message(b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), Ok(b"Hello".to_vec()));
        assert_eq!(message(again), Err(Corrupt));
    }

    #[test]
    fn a_compressor_that_ran_out_of_room_is_as_good_as_new() {
        let mut seed = 88_172_645_463_325_252u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for level in [1, 2, 6] {
            let mut codec = codec(PLAIN);
            for round in 0..150 {
                // Some are larger than what a compressor holds back.
                let most = if round % 10 == 0 { 140_000 } else { 9000 };
                let len = 1 + usize::try_from(random() % most).unwrap();
                let kinds = 1 + random().to_le_bytes()[0] % 255;
                let data: Vec<u8> = (0..len).map(|_| random().to_le_bytes()[0] % kinds).collect();
                let mut small = vec![0; len];
                let Some(n) = codec.deflater(level).deflate_message(PLAIN, &data, &mut small) else {
                    continue;
                };
                let mut out = vec![0; len + 1];
                let done = codec.inflate(&[&small[..n], &TAIL].concat(), &mut out).expect("inflates");
                codec.end_message(PLAIN);
                assert!(out[..done.written] == data);
            }
        }
    }

    #[test]
    fn a_window_of_256_bytes_is_kept_to_at_every_level() {
        for takeover in [false, true] {
            let window = Window { bits: 8, takeover };
            let mut codec = codec(window);
            let noise: Vec<u8> = rand::RngExt::random_iter::<u8>(&mut rand::rng()).take(256).collect();
            for level in [1, 6] {
                let mut deflate = |data: &[u8]| {
                    codec.deflater(level).deflate_message(window, data, &mut vec![0; data.len()])
                };
                assert!(deflate(&noise.repeat(2)).is_some_and(|len| len < 400));
                assert_eq!(deflate(&[&noise[..], b".", &noise].concat()), None);
                // Nor to the message before.
                assert_eq!(deflate(&noise), None);
            }
        }
    }
}
