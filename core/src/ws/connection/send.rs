//! What goes out (RFC 6455 section 6.1).

use super::super::close::fit;
use super::super::{
    CloseCode, Config, EncodedHeader, FrameHeader, Kind, OpCode, Role, SendError, Server, unmask,
};
use super::{Connection, MIN_TX};
use crate::buf::{TxBuf, copy_parts};
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
        self.send_frame(tx, opcode(kind), true, data)
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
        self.put_frame_with(tx, opcode(kind), true, len, |payload| {
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
        self.sending = Some(opcode(kind));
        Ok(())
    }

    /// Sends as much of a begun message as `tx` has room for, as one frame, and says how many bytes that was;
    /// zero when there is no room. The pieces of a text must be UTF-8 together, which is not checked.
    ///
    /// # Errors
    /// [`SendError::Closing`], [`SendError::NoMessage`].
    pub fn write(&mut self, tx: &mut TxBuf<'_>, data: &[u8]) -> Result<usize, SendError> {
        let opcode = self.begun()?;
        let room = tx.room().saturating_sub(MIN_TX);
        // A header for all of the room is never shorter than the one that is needed.
        let room = room.saturating_sub(FrameHeader::size(room as u64, R::IS_CLIENT));
        let (piece, _) = data.split_at_checked(room).unwrap_or((data, &[]));
        if !piece.is_empty() {
            self.send_frame(tx, opcode, false, piece)?;
            self.sending = Some(OpCode::Continuation);
        }
        Ok(piece.len())
    }

    /// Ends a begun message.
    ///
    /// # Errors
    /// [`SendError::Full`]: flush and try again. [`SendError::Closing`], [`SendError::NoMessage`].
    pub fn finish(&mut self, tx: &mut TxBuf<'_>) -> Result<(), SendError> {
        let opcode = self.begun()?;
        self.send_frame(tx, opcode, true, &[])?;
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

    fn begun(&self) -> Result<OpCode, SendError> {
        if self.is_open() { self.sending.ok_or(SendError::NoMessage) } else { Err(SendError::Closing) }
    }

    fn send_control(&mut self, tx: &mut TxBuf<'_>, opcode: OpCode, payload: &[u8]) -> Result<(), SendError> {
        if !self.is_open() {
            return Err(SendError::Closing);
        }
        if payload.len() > 125 {
            return Err(SendError::ControlTooLong);
        }
        self.send_frame(tx, opcode, true, payload)
    }

    /// A frame of the application: it leaves the reserve for control frames alone.
    fn send_frame(
        &mut self,
        tx: &mut TxBuf<'_>,
        opcode: OpCode,
        fin: bool,
        data: &[u8],
    ) -> Result<(), SendError> {
        self.check_room(tx, data.len())?;
        self.put_frame(tx, opcode, fin, &[data]);
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
        if !self.put_frame(tx, OpCode::Close, true, &[code, fit(reason).as_bytes()]) {
            self.put_frame(tx, OpCode::Close, true, &[code]);
        }
    }

    /// Writes a whole frame, or nothing: false when there is no room.
    pub(super) fn put_frame(
        &mut self,
        tx: &mut TxBuf<'_>,
        opcode: OpCode,
        fin: bool,
        parts: &[&[u8]],
    ) -> bool {
        let len = parts.iter().fold(0usize, |sum, part| sum.saturating_add(part.len()));
        self.put_frame_with(tx, opcode, fin, len, |payload| copy_parts(payload, parts))
    }

    /// Writes a whole frame, whose payload `fill` writes, or nothing: false when there is no room.
    fn put_frame_with(
        &mut self,
        tx: &mut TxBuf<'_>,
        opcode: OpCode,
        fin: bool,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> bool {
        let size = FrameHeader::size(len as u64, R::IS_CLIENT).saturating_add(len);
        let Some(space) = tx.append(size) else { return false };
        // RFC 6455 5.3: a fresh key for each frame, derived from a strong source of entropy.
        let mask = self.role.next_mask();
        let header = FrameHeader { fin, rsv1: false, opcode, mask, len: len as u64 }.encode();
        let header = header.as_ref();
        let Some((head, payload)) = space.split_at_mut_checked(header.len()) else { return false };
        copy_parts(head, &[header]);
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
        Ok(FrameHeader { fin: true, rsv1: false, opcode: opcode(kind), mask: None, len }.encode())
    }
}

fn opcode(kind: Kind) -> OpCode {
    match kind {
        Kind::Text => OpCode::Text,
        Kind::Binary => OpCode::Binary,
    }
}
