//! Compressed messages that come in (RFC 7692 section 6.2).

use super::super::deflate::{Inflated, TAIL};
use super::super::{Config, ProtocolError, Role, Step};
use super::{Connection, Inflating};
use crate::buf::Io;
use core::ops::Deref;

impl<R: Role, C: Deref<Target = Config>> Connection<R, C> {
    /// Inflates what arrived, behind what is kept. `Some`: the room for it is used up.
    ///
    /// A message that is handed out whole is inflated when all of it is there: until then a peer can make this end
    /// hold no more than it has sent, and no decompressor is held between two turns. Pieces are inflated as they
    /// arrive.
    ///
    /// The payload limit holds for what comes out, and one byte more than it is never inflated. What goes in is
    /// bounded, too ([`max_compressed`](Self::max_compressed)): blocks that yield nothing cost work all the same.
    pub(super) fn inflate_payload(
        &mut self,
        fin: bool,
        io: &mut Io<'_>,
    ) -> Result<Option<Step>, ProtocolError> {
        let n = self.unmask_payload(&mut io.rx, self.unmasked as usize);
        self.compressed_len = self.compressed_len.saturating_add(n as u64);
        if self.inflating == Inflating::Gathering {
            io.rx.keep(n);
            if !fin || self.remaining > 0 {
                return Ok(None);
            }
            // What cannot be handed out yet stays as small as it came.
            if self.must_flush(&io.tx) {
                return Ok(Some(Step::NeedFlush));
            }
            self.unmasked = u32::try_from(io.rx.unkeep()).unwrap_or(u32::MAX);
            self.inflating = Inflating::START;
        } else {
            self.unmasked = self.unmasked.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
        }
        loop {
            let Inflating::Yes { tail, full } = self.inflating else { return Ok(None) };
            let ends = fin && self.remaining == 0 && self.unmasked == 0;
            if ends && self.compressed_len == 0 {
                // Not even the 0x00 of RFC 7692 7.2.3.6. Compressors that had nothing to flush send that, and the
                // tail alone would leave the decompressor inside a block.
                self.end_inflating(io);
                return Ok(None);
            }
            if !ends && self.unmasked == 0 && !full {
                // There is nothing to go on with.
                return Ok(None);
            }
            let left = self.max_message().saturating_sub(self.message_len).saturating_add(1);
            let left = usize::try_from(left).unwrap_or(usize::MAX);
            let codec = io.inflate.as_deref_mut().ok_or(ProtocolError::NoInflate)?;

            let (unread, room) = io.rx.expand();
            let input = match ends {
                // RFC 7692 7.2.2: "Append 4 octets of 0x00 0x00 0xff 0xff to the tail end of the payload".
                true => TAIL.get(usize::from(tail)..).unwrap_or_default(),
                false => unread.get(..self.unmasked as usize).unwrap_or_default(),
            };
            let len = room.len().min(left);
            let room = room.get_mut(..len).unwrap_or_default();
            if room.is_empty() {
                return Ok(Some(self.need_room(io)));
            }
            let Inflated { read, written } =
                codec.inflate(input, room).map_err(|_| ProtocolError::Corrupt)?;
            let (all, full) = (read == input.len(), written == len);
            if read > input.len() || written > len || !(all || full) {
                // More than there was; or neither is there more to write, nor does it want what comes next.
                return Err(ProtocolError::Corrupt);
            }
            let tail = if ends { tail.saturating_add(u8::try_from(read).unwrap_or(u8::MAX)) } else { tail };
            self.inflating = Inflating::Yes { tail, full };
            self.take_inflated(if ends { 0 } else { read }, written, io)?;
            if ends && all && !full {
                self.end_inflating(io);
            }
        }
    }

    /// Keeps what was inflated of so much of the payload.
    fn take_inflated(&mut self, read: usize, written: usize, io: &mut Io<'_>) -> Result<(), ProtocolError> {
        self.unmasked = self.unmasked.saturating_sub(u32::try_from(read).unwrap_or(u32::MAX));
        io.rx.expanded(read, written);
        self.message_len = self.message_len.saturating_add(written as u64);
        if self.message_len > self.max_message() {
            return Err(ProtocolError::MessageTooBig);
        }
        self.check_text(&io.rx, written)
    }

    fn end_inflating(&mut self, io: &mut Io<'_>) {
        self.inflating = Inflating::Done;
        if let (Some(codec), Some(agreed)) = (&mut io.inflate, self.deflate) {
            codec.end_message(if R::IS_CLIENT { agreed.server } else { agreed.client });
        }
    }

    /// Most payload of a compressed message of so many fragments. What a compressor makes of incompressible data
    /// is more than that by an eighth at most (RFC 1951 section 3.2.6: nine bits for a byte); and it may flush at
    /// the end of each fragment (RFC 7692 section 7.2.1), which takes less than eight bytes.
    pub(super) fn max_compressed(&self, fragments: u32) -> u64 {
        let most = self.max_message();
        most.saturating_add(most / 8).saturating_add(64).saturating_add(u64::from(fragments) * 8)
    }
}
