//! The decompressor of permessage-deflate (RFC 7692), in static memory.

use core::cell::Cell;

use longwire_core::ws::deflate::{Corrupt, Inflate, Inflated, Window};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress_with_limit};

use crate::websocket::Decompressor;

/// Inflates what a server sends, with a window of `WINDOW` bytes: a power of two from 256 to 32768. A server that
/// cannot keep to such a window does not compress: longwire's own gateway, which compresses an event once for all of its
/// readers, does so for a window of 32768 bytes, and sends events as they are to whoever has a smaller one.
///
/// It is lent to a [`WebSocket`](crate::WebSocket::connect_compressed) or an
/// [`Uplink`](crate::Uplink::with_decompressor), one at a time, and begins anew with each connection. What the device
/// itself sends is never compressed.
///
/// ```
/// use longwire_embassy::Inflater;
/// use static_cell::ConstStaticCell;
///
/// static INFLATER: ConstStaticCell<Inflater<1024>> = ConstStaticCell::new(Inflater::new());
///
/// let inflater: &'static mut Inflater<1024> = INFLATER.take();
/// # let _ = inflater;
/// ```
///
/// # What it takes
/// As `tests/sizes` prints it, but for the stack.
///
/// | | |
/// |---|---|
/// | RAM | the window and 10.3 KiB: 11 024 bytes for 512, 14 608 for 4096, 43 280 for 32768 (on 32 bits) |
/// | flash | some 9 KiB of code (thumbv7m, `opt-level = "s"`); a static one lies in `.bss` |
/// | stack | below half a KiB; but at `opt-level` 0 and 1 more than 10 KiB, once, when the first message comes |
///
/// The 10.3 KiB are the code tables of `miniz_oxide`, which takes them from nowhere else: nothing allocates.
///
/// # Hostile input
/// A distance that reaches before the beginning of the message (or of what is taken over) or beyond `WINDOW` is
/// [`Corrupt`], as everything is that RFC 1951 does not know. What comes out is bounded by the room that a connection
/// lends, and what goes in by [`ws::Config::max_message`](longwire_core::ws::Config::max_message), which is 1 MiB unless
/// you say less. Say less: an empty block is ten bits long, and has tables of a thousand entries built for it.
///
/// The core's proof that no panic can be reached ends here: `miniz_oxide` indexes its tables and the window with bounds
/// checks which the optimiser does not see through, so a program with an inflater links panics.
pub struct Inflater<const WINDOW: usize> {
    /// The library has no constant for it, so it is made when it is wanted first. The `Cell` is there for its layout:
    /// it keeps `None` from being one of the values inside that mean nothing. So a new inflater is all zeros, and as a
    /// static takes no flash.
    state: Option<Cell<DecompressorOxide>>,
    /// What was inflated last: a ring.
    window: [u8; WINDOW],
    /// Where in it the next byte goes.
    at: usize,
    /// All of it was written since the last reset.
    wrapped: bool,
    /// A block with BFINAL has ended.
    ended: bool,
    /// Whether a message may refer to those before it.
    takeover: bool,
}

impl<const WINDOW: usize> Inflater<WINDOW> {
    /// An inflater that keeps nothing from one message to the next: the server is told so
    /// (`server_no_context_takeover`), and has no window to keep, either.
    pub const fn new() -> Self {
        const { assert!(WINDOW.is_power_of_two() && 1 << 8 <= WINDOW && WINDOW <= 1 << 15) };
        Self { state: None, window: [0; WINDOW], at: 0, wrapped: false, ended: false, takeover: false }
    }

    /// An inflater that lets messages refer to those before them ("context takeover"). It makes short messages that
    /// are alike a good deal shorter, takes no more memory here, and at the server a window and a compressor's state for
    /// as long as the connection lives.
    pub const fn with_takeover() -> Self {
        Self { takeover: true, ..Self::new() }
    }

    /// What a server has to keep to.
    pub const fn window(&self) -> Window {
        #[expect(clippy::cast_possible_truncation, reason = "the logarithm of at most 2^15")]
        let bits = WINDOW.trailing_zeros() as u8;
        Window { bits, takeover: self.takeover }
    }

    /// Forgets everything, where it lies: the state is some 10 KiB, which no stack has to hold.
    fn reset(&mut self) {
        if let Some(state) = &mut self.state {
            state.get_mut().init();
        }
        (self.at, self.wrapped, self.ended) = (0, false, false);
    }

    /// Inflates as much as fits behind what is in the window, up to its end.
    fn inflate_piece(&mut self, input: &[u8], output: &mut [u8]) -> Result<(TINFLStatus, Inflated), Corrupt> {
        let state = make(&mut self.state);
        // Once the window is full, it holds WINDOW bytes to refer to. Before that the library must not go round it: it
        // would find there what an earlier message left, or zeros.
        let flags = match self.wrapped {
            true => TINFL_FLAG_HAS_MORE_INPUT,
            false => TINFL_FLAG_HAS_MORE_INPUT | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
        };
        let (status, read, written) =
            decompress_with_limit(state, input, &mut self.window, self.at, output.len(), flags);
        let fresh = self.window.get(self.at..self.at.saturating_add(written)).ok_or(Corrupt)?;
        output.get_mut(..written).ok_or(Corrupt)?.copy_from_slice(fresh);
        self.at += written;
        if self.at == WINDOW {
            (self.at, self.wrapped) = (0, true);
        }
        Ok((status, Inflated { read, written }))
    }
}

/// Not inlined: on its own it is small enough for the optimiser to see that nothing has to be moved.
#[inline(never)]
fn make(state: &mut Option<Cell<DecompressorOxide>>) -> &mut DecompressorOxide {
    state.get_or_insert_with(|| Cell::new(DecompressorOxide::default())).get_mut()
}

impl<const WINDOW: usize> Default for Inflater<WINDOW> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const WINDOW: usize> core::fmt::Debug for Inflater<WINDOW> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Inflater").field("window", &self.window()).finish_non_exhaustive()
    }
}

impl<const WINDOW: usize> Inflate for Inflater<WINDOW> {
    fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<Inflated, Corrupt> {
        let mut done = Inflated::default();
        loop {
            let input = input.get(done.read..).unwrap_or_default();
            let room = output.get_mut(done.written..).unwrap_or_default();
            if room.is_empty() || self.ended && input.is_empty() {
                return Ok(done);
            }
            if self.ended {
                // RFC 7692 7.2.3.4: blocks behind one with BFINAL. To the library they are another stream.
                self.reset();
            }
            let (status, piece) = self.inflate_piece(input, room)?;
            done.read += piece.read;
            done.written += piece.written;
            match status {
                TINFLStatus::Done => self.ended = true,
                TINFLStatus::NeedsMoreInput => return Ok(done),
                // The end of the room, or of the window.
                TINFLStatus::HasMoreOutput => {}
                _ => return Err(Corrupt),
            }
        }
    }

    fn end_message(&mut self, window: Window) {
        if !window.takeover {
            self.reset();
        }
    }
}

impl<'a: 'b, 'b, const WINDOW: usize> From<&'a mut Inflater<WINDOW>> for Decompressor<'b> {
    fn from(inflater: &'a mut Inflater<WINDOW>) -> Self {
        Self { window: inflater.window(), codec: inflater }
    }
}
