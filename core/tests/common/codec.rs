//! The codec that the tests lend: miniz_oxide, in the simplest way that obeys the traits.

use longwire_core::ws::deflate::{Corrupt, Deflate, Inflate, Inflated, TAIL, Window};
use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, compress};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress_with_limit};

/// Inflates and deflates for one connection.
#[derive(Default)]
pub struct Miniz {
    inflate: Box<DecompressorOxide>,
    /// Everything that can be referred to.
    window: Vec<u8>,
    /// A block with BFINAL has ended.
    ended: bool,
    deflate: Option<Box<CompressorOxide>>,
    /// The windows of the messages that are complete.
    pub ends: Vec<Window>,
    /// How often it was asked to inflate.
    pub calls: usize,
    /// Bytes that went into the decompressor, and that came out of it.
    pub total: Inflated,
}

impl Miniz {
    /// What comes next refers to nothing that was sent before.
    pub fn forget(&mut self) {
        self.deflate = None;
    }
}

impl Inflate for Miniz {
    fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<Inflated, Corrupt> {
        const FLAGS: u32 = TINFL_FLAG_HAS_MORE_INPUT | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let mut done = Inflated::default();
        self.calls += 1;
        loop {
            if self.ended && done.read < input.len() {
                (self.ended, self.inflate) = (false, Box::default());
                self.window.clear();
            }
            let (at, room) = (self.window.len(), output.len() - done.written);
            if self.ended || room == 0 {
                break;
            }
            self.window.resize(at + room, 0);
            let (status, read, written) = decompress_with_limit(
                &mut self.inflate,
                &input[done.read..],
                &mut self.window,
                at,
                room,
                FLAGS,
            );
            self.window.truncate(at + written);
            output[done.written..][..written].copy_from_slice(&self.window[at..]);
            done.read += read;
            done.written += written;
            match status {
                TINFLStatus::Done => self.ended = true,
                TINFLStatus::NeedsMoreInput => break,
                TINFLStatus::HasMoreOutput => {}
                _ => return Err(Corrupt),
            }
        }
        self.total.read += done.read;
        self.total.written += done.written;
        Ok(done)
    }

    fn end_message(&mut self, window: Window) {
        self.ends.push(window);
        if !window.takeover {
            (self.inflate, self.ended) = (Box::default(), false);
            self.window.clear();
        }
    }
}

impl Deflate for Miniz {
    fn deflate_message(&mut self, window: Window, input: &[u8], output: &mut [u8]) -> Option<usize> {
        // This one has no smaller windows.
        if window.bits < 15 {
            return None;
        }
        let mut codec = self.deflate.take().unwrap_or_else(|| Box::new(raw()));
        let mut space = vec![0; input.len() + 1024];
        let (_, read, written) = compress(&mut codec, input, &mut space, TDEFLFlush::Sync);
        assert_eq!((read, &space[written - 4..written]), (input.len(), &TAIL[..]));
        let out = output.get_mut(..written - 4)?;
        out.copy_from_slice(&space[..written - 4]);
        if window.takeover {
            self.deflate = Some(codec);
        }
        Some(written - 4)
    }
}

fn raw() -> CompressorOxide {
    // 128 probes, and neither a header nor a checksum.
    CompressorOxide::new(128)
}

/// Data in stored blocks (RFC 1951 section 3.2.4), which no compressor makes smaller, and the 0x00 that ends them.
pub fn stored(data: &[u8]) -> Vec<u8> {
    let block = |block: &[u8]| {
        let len = (block.len() as u16).to_le_bytes();
        [&[0, len[0], len[1], !len[0], !len[1]], block].concat()
    };
    let mut blocks: Vec<u8> = data.chunks(0xffff).flat_map(block).collect();
    blocks.push(0);
    blocks
}

/// A whole message, compressed without a window of earlier ones.
pub fn deflate(data: &[u8]) -> Vec<u8> {
    let mut space = vec![0; data.len() + 1024];
    let (_, _, written) = compress(&mut raw(), data, &mut space, TDEFLFlush::Sync);
    space.truncate(written - 4);
    space
}
