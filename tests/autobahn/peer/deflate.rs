//! permessage-deflate (RFC 7692) on miniz_oxide, for [`small`](crate::small): windows are taken over, and a message that
//! comes in pieces is compressed in pieces.

use longwire_core::ws::deflate::{Config, Corrupt, Inflate, Inflated, MAX_BITS, TAIL, Window};
use miniz_oxide::deflate::CompressionLevel;
use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, compress_to_output};
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

const WINDOW: Window = Window { bits: MAX_BITS, takeover: true };

/// What is offered and accepted: both windows as large as can be, and taken over.
pub(crate) const WANTED: Config = Config { send: WINDOW, receive: WINDOW };

/// Both directions of a connection.
pub(crate) struct Codec {
    pub(crate) inflater: Inflater,
    /// `None`: what this end sends goes out as it is, which is always allowed.
    pub(crate) deflater: Option<Deflater>,
}

impl Codec {
    /// For an end that sends with this window.
    pub(crate) fn new(send: Window) -> Self {
        Self { inflater: Inflater(InflateState::new_boxed(DataFormat::Raw)), deflater: Deflater::new(send) }
    }
}

pub(crate) struct Inflater(Box<InflateState>);

impl Inflate for Inflater {
    fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<Inflated, Corrupt> {
        let mut done = Inflated::default();
        while done.written < output.len() {
            let went = inflate(&mut self.0, &input[done.read..], &mut output[done.written..], MZFlush::None);
            done.read += went.bytes_consumed;
            done.written += went.bytes_written;
            match went.status {
                // RFC 7692 7.2.3.4: other blocks may follow one with BFINAL.
                Ok(MZStatus::StreamEnd) => self.0.reset(DataFormat::Raw),
                Ok(_) if went.bytes_consumed + went.bytes_written > 0 => {}
                Ok(_) | Err(MZError::Buf) => break,
                Err(_) => return Err(Corrupt),
            }
        }
        Ok(done)
    }

    fn end_message(&mut self, window: Window) {
        if !window.takeover {
            self.0.reset(DataFormat::Raw);
        }
    }
}

pub(crate) struct Deflater {
    stream: CompressorOxide,
    window: Window,
}

impl Deflater {
    /// This compressor has one size of window.
    fn new(window: Window) -> Option<Self> {
        let stream = CompressorOxide::with_format_and_level(DataFormat::Raw, CompressionLevel::BestSpeed);
        (window.bits == MAX_BITS).then_some(Self { stream, window })
    }

    /// What can be sent of a message so far; of its last piece, everything but the tail (RFC 7692 section 7.2.1).
    pub(crate) fn piece(&mut self, data: &[u8], last: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let flush = if last { TDEFLFlush::Sync } else { TDEFLFlush::None };
        compress_to_output(&mut self.stream, data, flush, |bytes| {
            out.extend_from_slice(bytes);
            true
        });
        if last {
            assert!(out.ends_with(&TAIL), "a flushed stream ends so");
            out.truncate(out.len() - TAIL.len());
            if !self.window.takeover {
                self.stream.reset();
            }
        }
        out
    }
}
