//! What goes out (RFC 6455 section 6.1).

use super::super::close::fit;
use super::super::deflate::{Deflate, Window};
use super::super::{
    CloseCode, Config, EncodedHeader, FrameHeader, Kind, OpCode, Role, SendError, Server, unmask,
};
use super::{Connection, MIN_TX};
use crate::buf::{TxBuf, copy_parts, slide};
use core::ops::Deref;

impl<R: Role, C: Deref<Target = Config>> Connection<R, C> {
    /// Sends a text message, in one frame.
    ///
    /// # Errors
    /// See [`SendError`]. Nothing is written then.
    pub fn send_text(&mut self, tx: &mut TxBuf<'_>, text: &str) -> Result<(), SendError> {
        self.send_message(tx, Kind::Text, text.as_bytes())
    }

    /// Sends a binary message, in one frame.
    ///
    /// # Errors
    /// See [`SendError`]. Nothing is written then.
    pub fn send_binary(&mut self, tx: &mut TxBuf<'_>, data: &[u8]) -> Result<(), SendError> {
        self.send_message(tx, Kind::Binary, data)
    }

    /// Sends a message whose bytes are at hand. A [`Kind::Text`] must be UTF-8, which is not checked: that is
    /// for whoever has the bytes as a `str`, or from a [`Text`](super::super::Text), to know.
    ///
    /// # Errors
    /// See [`SendError`]. Nothing is written then.
    pub fn send_message(&mut self, tx: &mut TxBuf<'_>, kind: Kind, data: &[u8]) -> Result<(), SendError> {
        self.may_begin()?;
        self.send_frame(tx, first(kind), data)
    }

    /// Sends a message compressed, if that makes it shorter and permessage-deflate was agreed on; otherwise as
    /// [`send_message`](Self::send_message), which also serves better for messages that are too short to gain.
    /// It wants the same room in `tx`, and compresses into that.
    ///
    /// # Errors
    /// See [`SendError`]. Nothing is written then, and nothing was compressed.
    pub fn send_deflated(
        &mut self,
        tx: &mut TxBuf<'_>,
        kind: Kind,
        data: &[u8],
        codec: &mut dyn Deflate,
    ) -> Result<(), SendError> {
        self.may_begin()?;
        self.check_room(tx, data.len())?;
        // Nothing can become shorter than nothing.
        let Some(window) = self.send_window().filter(|_| !data.is_empty()) else {
            return self.send_message(tx, kind, data);
        };
        // The header is written last, when the length is known. There is room for the longest that it can be.
        let header_room = FrameHeader::size(data.len() as u64, R::IS_CLIENT);
        // One byte less than the message: what does not shrink is not sent so.
        let Some(space) = tx.append(header_room.saturating_add(data.len()).saturating_sub(1)) else {
            return self.send_message(tx, kind, data);
        };
        let appended = space.len();
        let payload = space.get_mut(header_room..).unwrap_or_default();
        let Some(len) = codec.deflate_message(window, data, payload).filter(|len| *len <= payload.len())
        else {
            tx.retract(appended);
            return self.send_message(tx, kind, data);
        };
        let mask = self.role.next_mask();
        if let (Some(mask), Some(payload)) = (mask, payload.get_mut(..len)) {
            unmask(payload, mask);
        }
        let header = FrameHeader { rsv1: true, mask, len: len as u64, ..first(kind) }.encode();
        let size = header.as_ref().len();
        slide(space, header_room..header_room.saturating_add(len), size);
        copy_parts(space, &[header.as_ref()]);
        tx.retract(appended.saturating_sub(size.saturating_add(len)));
        Ok(())
    }

    /// How this end may compress what it sends, if it may.
    pub fn send_window(&self) -> Option<Window> {
        self.deflate().map(|agreed| if R::IS_CLIENT { agreed.client } else { agreed.server })
    }

    /// Sends a message of `len` bytes that `fill` writes where they go out from (as zeros, before), so that an
    /// encoder needs no buffer of its own. About text see [`send_message`](Self::send_message).
    ///
    /// ```
    /// use longwire_core::buf::{TxBuf, TxCursor};
    /// use longwire_core::ws::{Config, Connection, Kind, SendError, Server};
    ///
    /// static CONFIG: Config = Config::new();
    /// let mut connection = Connection::new(Server, &CONFIG, Default::default());
    /// let (mut bytes, mut cursor) = ([0; 160], TxCursor::default());
    /// let mut tx = TxBuf::new(&mut bytes, &mut cursor);
    /// connection.send_with(&mut tx, Kind::Binary, 4, |space| space[..3].copy_from_slice(b"abc"))?;
    /// assert_eq!(tx.pending(), b"\x82\x04abc\0");
    /// assert_eq!(connection.send_with(&mut tx, Kind::Binary, 99, |_| panic!()), Err(SendError::Full));
    /// # Ok::<(), SendError>(())
    /// ```
    ///
    /// # Errors
    /// See [`SendError`]. Nothing is written then, and `fill` is not called.
    pub fn send_with(
        &mut self,
        tx: &mut TxBuf<'_>,
        kind: Kind,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), SendError> {
        self.may_begin()?;
        self.check_room(tx, len)?;
        self.put_frame_with(tx, first(kind), len, |payload| {
            payload.fill(0);
            fill(payload);
        });
        Ok(())
    }

    /// Sends a Ping with at most 125 bytes, beside those of the heartbeat.
    ///
    /// # Errors
    /// See [`SendError`]. Nothing is written then.
    pub fn send_ping(&mut self, tx: &mut TxBuf<'_>, payload: &[u8]) -> Result<(), SendError> {
        self.send_control(tx, OpCode::Ping, payload)
    }

    /// Sends a Pong that nobody asked for (RFC 6455 section 5.5.3), with at most 125 bytes. Pings are answered
    /// without it.
    ///
    /// # Errors
    /// See [`SendError`]. Nothing is written then.
    pub fn send_pong(&mut self, tx: &mut TxBuf<'_>, payload: &[u8]) -> Result<(), SendError> {
        self.send_control(tx, OpCode::Pong, payload)
    }

    /// Begins a message whose length does not matter: [`write`](Self::write) its pieces, then
    /// [`finish`](Self::finish). Control frames go out in between, other messages have to wait.
    ///
    /// # Errors
    /// [`SendError::Closing`], [`SendError::InMessage`].
    pub fn start(&mut self, kind: Kind) -> Result<(), SendError> {
        self.may_begin()?;
        self.sending = Some((opcode(kind), false));
        Ok(())
    }

    /// Begins a message whose pieces are compressed already: they are what a
    /// [`Deflate`](super::super::deflate::Deflate) made of it, for this connection's
    /// [`send_window`](Self::send_window).
    ///
    /// # Errors
    /// [`SendError::Closing`], [`SendError::InMessage`], [`SendError::NotAgreed`].
    pub fn start_deflated(&mut self, kind: Kind) -> Result<(), SendError> {
        self.may_begin()?;
        self.send_window().ok_or(SendError::NotAgreed)?;
        self.sending = Some((opcode(kind), true));
        Ok(())
    }

    /// Sends as much of a begun message as `tx` has room for, as one frame, and says how many bytes that was;
    /// zero when there is no room. The pieces of a text must be UTF-8 together, which is not checked.
    ///
    /// # Errors
    /// [`SendError::Closing`], [`SendError::NoMessage`].
    pub fn write(&mut self, tx: &mut TxBuf<'_>, data: &[u8]) -> Result<usize, SendError> {
        let header = self.begun()?;
        let room = tx.room().saturating_sub(MIN_TX);
        // A header for all of the room is never shorter than the one that is needed.
        let room = room.saturating_sub(FrameHeader::size(room as u64, R::IS_CLIENT));
        let (piece, _) = data.split_at_checked(room).unwrap_or((data, &[]));
        if !piece.is_empty() {
            self.send_frame(tx, FrameHeader { fin: false, ..header }, piece)?;
            self.sending = Some((OpCode::Continuation, false));
        }
        Ok(piece.len())
    }

    /// Ends a begun message.
    ///
    /// # Errors
    /// [`SendError::Full`]: flush and try again. [`SendError::Closing`], [`SendError::NoMessage`].
    pub fn finish(&mut self, tx: &mut TxBuf<'_>) -> Result<(), SendError> {
        // RSV1 is left only if nothing was written. Then the message is empty, and no empty block: RFC 7692 7.2.3.6
        // has a byte for that.
        let header = FrameHeader { rsv1: false, ..self.begun()? };
        self.send_frame(tx, header, &[])?;
        self.sending = None;
        Ok(())
    }

    fn may_begin(&self) -> Result<(), SendError> {
        match self.sending {
            _ if !self.is_open() => Err(SendError::Closing),
            Some(_) => Err(SendError::InMessage),
            None => Ok(()),
        }
    }

    /// The header of the next frame of a begun message.
    fn begun(&self) -> Result<FrameHeader, SendError> {
        if !self.is_open() {
            return Err(SendError::Closing);
        }
        let (opcode, rsv1) = self.sending.ok_or(SendError::NoMessage)?;
        Ok(FrameHeader { rsv1, ..frame(opcode) })
    }

    fn send_control(&mut self, tx: &mut TxBuf<'_>, opcode: OpCode, payload: &[u8]) -> Result<(), SendError> {
        if !self.is_open() {
            return Err(SendError::Closing);
        }
        if payload.len() > 125 {
            return Err(SendError::ControlTooLong);
        }
        self.send_frame(tx, frame(opcode), payload)
    }

    /// A frame of the application: it leaves the reserve for control frames alone.
    fn send_frame(&mut self, tx: &mut TxBuf<'_>, header: FrameHeader, data: &[u8]) -> Result<(), SendError> {
        self.check_room(tx, data.len())?;
        self.put_frame_with(tx, header, data.len(), |payload| copy_parts(payload, &[data]));
        Ok(())
    }

    /// Refuses a frame of `len` bytes that does not fit beside what is reserved.
    fn check_room(&self, tx: &TxBuf<'_>, len: usize) -> Result<(), SendError> {
        let size = FrameHeader::size(len as u64, R::IS_CLIENT).saturating_add(len);
        if size > tx.room().saturating_sub(MIN_TX) { Err(SendError::Full) } else { Ok(()) }
    }

    /// Writes a Close: with its reason, or without when there is no room for that.
    pub(super) fn put_close(&mut self, tx: &mut TxBuf<'_>, code: Option<CloseCode>, reason: &str) {
        let code = code.map(|code| code.get().to_be_bytes());
        let code: &[u8] = code.as_ref().map_or(&[], |code| code);
        if !self.put_frame(tx, OpCode::Close, &[code, fit(reason).as_bytes()]) {
            self.put_frame(tx, OpCode::Close, &[code]);
        }
    }

    /// Writes a whole frame, or nothing: false when there is no room.
    pub(super) fn put_frame(&mut self, tx: &mut TxBuf<'_>, opcode: OpCode, parts: &[&[u8]]) -> bool {
        let len = parts.iter().fold(0usize, |sum, part| sum.saturating_add(part.len()));
        self.put_frame_with(tx, frame(opcode), len, |payload| copy_parts(payload, parts))
    }

    /// Writes a whole frame, whose payload `fill` writes, or nothing: false when there is no room. The header is
    /// completed with the mask and the length.
    fn put_frame_with(
        &mut self,
        tx: &mut TxBuf<'_>,
        header: FrameHeader,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> bool {
        let size = FrameHeader::size(len as u64, R::IS_CLIENT).saturating_add(len);
        let Some(space) = tx.append(size) else { return false };
        // RFC 6455 5.3: a fresh key for each frame, derived from a strong source of entropy.
        let mask = self.role.next_mask();
        let Some((head, payload)) = space.split_at_mut_checked(size - len) else { return false };
        FrameHeader { mask, len: len as u64, ..header }.write(head);
        fill(payload);
        if let Some(mask) = mask {
            unmask(payload, mask);
        }
        true
    }
}

impl<C: Deref<Target = Config>> Connection<Server, C> {
    /// Begins a message whose `len` bytes of payload are shared with other connections and are not copied into a
    /// send buffer: write what is pending, then the header returned here, then the payload, in one vectored
    /// write. It only exists for servers, whose frames are not masked.
    ///
    /// # Errors
    /// [`SendError::Closing`], [`SendError::InMessage`].
    pub fn begin_shared(&mut self, kind: Kind, len: u64) -> Result<EncodedHeader, SendError> {
        self.may_begin()?;
        Ok(FrameHeader { len, ..first(kind) }.encode())
    }

    /// As [`begin_shared`](Self::begin_shared), of a message that is compressed already, without referring to any
    /// other. If this connection's own compressor takes its window over, it has to forget that now.
    ///
    /// # Errors
    /// [`SendError::Closing`], [`SendError::InMessage`], [`SendError::NotAgreed`].
    pub fn begin_shared_deflated(&mut self, kind: Kind, len: u64) -> Result<EncodedHeader, SendError> {
        self.may_begin()?;
        self.send_window().ok_or(SendError::NotAgreed)?;
        Ok(FrameHeader { rsv1: true, len, ..first(kind) }.encode())
    }
}

/// The header of a message in one frame.
fn first(kind: Kind) -> FrameHeader {
    frame(opcode(kind))
}

fn frame(opcode: OpCode) -> FrameHeader {
    FrameHeader { fin: true, rsv1: false, opcode, mask: None, len: 0 }
}

fn opcode(kind: Kind) -> OpCode {
    match kind {
        Kind::Text => OpCode::Text,
        Kind::Binary => OpCode::Binary,
    }
}
