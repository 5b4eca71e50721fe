//! What a server compresses with: flate2 on zlib-rs.
#![allow(dead_code, reason = "each test file uses its part of this")]

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use longwire_core::ws::deflate::{Deflate, TAIL, Window};

/// Compresses for one connection. zlib has no windows of 256 bytes.
#[derive(Default)]
pub(crate) struct Zlib(Option<(Window, Compress)>);

impl Zlib {
    /// A whole message, without its tail.
    pub(crate) fn deflate(&mut self, window: Window, message: &[u8]) -> Vec<u8> {
        let fresh = || (window, Compress::new_with_window_bits(Compression::best(), false, window.bits));
        let (agreed, mut codec) = self.0.take().unwrap_or_else(fresh);
        assert_eq!(agreed, window);
        let before = codec.total_out();
        let mut bytes = vec![0; message.len() + message.len() / 8 + 64];
        assert_eq!(codec.compress(message, &mut bytes, FlushCompress::Sync).unwrap(), Status::Ok);
        bytes.truncate(usize::try_from(codec.total_out() - before).unwrap());
        assert!(bytes.ends_with(&TAIL));
        if window.takeover {
            self.0 = Some((window, codec));
        }
        bytes.truncate(bytes.len() - TAIL.len());
        bytes
    }
}

impl Deflate for Zlib {
    fn deflate_message(&mut self, window: Window, input: &[u8], output: &mut [u8]) -> Option<usize> {
        let message = self.deflate(window, input);
        let fits = output.get_mut(..message.len()).map(|output| output.copy_from_slice(&message));
        if fits.is_none() {
            self.0 = None;
        }
        fits.map(|()| message.len())
    }
}

/// What zlib makes of one raw stream after the other, the last of which may break off; `None` if they are malformed.
pub(crate) fn inflate(mut streams: &[u8], most: usize) -> Option<Vec<u8>> {
    let (mut codec, mut inflated) = (Decompress::new(false), Vec::with_capacity(most));
    loop {
        let before = codec.total_in();
        let status = codec.decompress_vec(streams, &mut inflated, FlushDecompress::Sync).ok()?;
        assert!(inflated.len() < most);
        streams = streams.get(usize::try_from(codec.total_in() - before).unwrap()..).unwrap();
        match status {
            Status::StreamEnd if streams.is_empty() => return Some(inflated),
            Status::StreamEnd => codec.reset(false),
            // Asked once more, it says what is wrong with what comes next.
            Status::Ok => {}
            Status::BufError => return Some(inflated),
        }
    }
}
