//! What comes in (RFC 6455 sections 5.4 to 5.6 and 6.2).

use super::super::event::{Finding, Place};
use super::super::{
    CloseCause, CloseReason, Config, Delivery, Found, FrameHeader, Kind, OpCode, ProtocolError, Role, Step,
    unmask, utf8,
};
use super::{CLOSE_ROOM, Connection, Deadline, HandedOut, Inflating, MIN_RX, MIN_TX, Phase, Receiving};
use crate::buf::{Io, RxBuf, TxBuf};
use crate::time::Instant;
use core::ops::Deref;

/// How much of a payload is unmasked before it is checked: half of what the first cache of a host's processor holds.
const PIECE: usize = 16 * 1024;

impl<R: Role, C: Deref<Target = Config>> Connection<R, C> {
    /// Parses until there is something to say. Each round consumes at least a header or all of the input, so the
    /// work of one call is bounded by what the buffer holds.
    pub(super) fn advance(&mut self, now: Instant, io: &mut Io<'_>) -> Result<Step, ProtocolError> {
        // It changes with a control frame, which is a step.
        match self.phase {
            Phase::Over(cause) => {
                discard(&mut io.rx);
                return Ok(Step::Closed(cause));
            }
            Phase::Draining => {
                discard(&mut io.rx);
                return Ok(Step::NeedInput);
            }
            Phase::Open | Phase::CloseSent => {}
        }
        if let Some(step) = self.whole_frame(&mut io.rx) {
            return step;
        }
        loop {
            if self.receiving == Receiving::Header
                && let Some(step) = self.header(now, io)?
            {
                return Ok(step);
            }
            if let Receiving::Payload { fin } = self.receiving
                && let Some(step) = self.payload(fin, io)?
            {
                return Ok(step);
            }
        }
    }

    /// What is usual for a server, in one go: a message in one frame that is all there and neither large nor compressed.
    /// `None`: something else, which is looked at step by step. (A client has less to gain, and a device no room for it.)
    #[inline]
    fn whole_frame(&mut self, rx: &mut RxBuf<'_>) -> Option<Result<Step, ProtocolError>> {
        let usual = !R::IS_CLIENT
            && self.receiving == Receiving::Header
            && self.message.is_none()
            && self.config.delivery == Delivery::Whole
            && self.config.reply_room == 0
            && self.config.max_fragments > 0;
        let ([first, second], rest) = rx.unread().split_first_chunk::<2>().filter(|_| usual)?;
        let kind = match first {
            0x81 => Kind::Text,
            0x82 => Kind::Binary,
            _ => return None,
        };
        // Masked, as RFC 6455 5.1 demands; a length that is not minimal is an error.
        let (len, rest, header) = match second {
            0x80..0xfe => (usize::from(second & 0x7f), rest, 6),
            0xfe => {
                let (len, rest) = rest.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes(*len)), rest, 8)
            }
            _ => return None,
        };
        if (header == 8 && len < 126) || len > PIECE || len as u64 > self.config.max_message {
            return None;
        }
        let (mask, rest) = rest.split_first_chunk::<4>()?;
        let mask = *mask;
        if rest.len() < len {
            return None;
        }
        let payload = rx.keep_behind(header, len);
        unmask(payload, mask);
        if kind == Kind::Text && utf8::check(payload) != Ok(0) {
            return Some(Err(ProtocolError::NotUtf8));
        }
        Some(Ok(self.found(Finding::Message(kind))))
    }

    #[inline]
    fn header(&mut self, now: Instant, io: &mut Io<'_>) -> Result<Option<Step>, ProtocolError> {
        let Some((header, size)) = FrameHeader::parse(io.rx.unread())? else {
            return Ok(Some(self.need_input(io)));
        };
        // RFC 6455 5.1: "a client MUST mask all frames", "A server MUST NOT mask any frames".
        match (R::IS_CLIENT, header.mask.is_some()) {
            (true, true) => return Err(ProtocolError::Masked),
            (false, false) => return Err(ProtocolError::Unmasked),
            _ => {}
        }
        // RFC 6455 5.2: "MUST be 0 unless an extension is negotiated that defines meanings for non-zero values".
        // RFC 7692 6.1: RSV1 stands on the first frame of a compressed message, and on no other.
        let may_be_compressed =
            self.deflate().is_some() && matches!(header.opcode, OpCode::Text | OpCode::Binary);
        if header.rsv1 && !may_be_compressed {
            return Err(ProtocolError::ReservedBits);
        }
        if header.opcode.is_control() {
            return self.control(now, header, size, io).map(Some);
        }
        self.begin_frame(&header)?;
        io.rx.skip(size);
        Ok(None)
    }

    /// RFC 6455 section 5.4, and the limits: both before a byte of payload is stored.
    fn begin_frame(&mut self, header: &FrameHeader) -> Result<(), ProtocolError> {
        let kind = match (header.opcode, self.message) {
            (OpCode::Text, None) => Kind::Text,
            (OpCode::Binary, None) => Kind::Binary,
            (OpCode::Continuation, Some(kind)) => kind,
            (OpCode::Continuation, None) => return Err(ProtocolError::UnexpectedContinuation),
            _ => return Err(ProtocolError::ExpectedContinuation),
        };
        if self.message.is_none() {
            self.message_len = 0;
            self.compressed_len = 0;
            self.fragments = 0;
            self.tail = 0;
            self.inflating = match (header.rsv1, self.config.delivery) {
                (false, _) => Inflating::No,
                (true, Delivery::Whole) => Inflating::Gathering,
                (true, Delivery::Chunks) => Inflating::START,
            };
        }
        let (len, most) = match self.inflating() {
            Inflating::No => (self.message_len, self.max_message()),
            _ => (self.compressed_len, self.max_compressed(self.fragments)),
        };
        if len.saturating_add(header.len) > most {
            return Err(ProtocolError::MessageTooBig);
        }
        if self.fragments >= self.config.max_fragments {
            return Err(ProtocolError::TooManyFragments);
        }
        self.fragments += 1;
        self.message = Some(kind);
        self.remaining = header.len;
        self.mask = header.mask.unwrap_or_default();
        self.receiving = Receiving::Payload { fin: header.fin };
        Ok(())
    }

    #[inline]
    fn payload(&mut self, fin: bool, io: &mut Io<'_>) -> Result<Option<Step>, ProtocolError> {
        if self.inflating() == Inflating::No {
            self.take_payload(&mut io.rx)?;
        } else if let Some(step) = self.inflate_payload(fin, io)? {
            return Ok(Some(step));
        }
        if self.remaining > 0 {
            return Ok(Some(self.need_input(io)));
        }
        if !fin {
            self.receiving = Receiving::Header;
            return Ok(None);
        }
        // RFC 6455 8.1: a text must not end inside a character.
        if self.tail != 0 {
            return Err(ProtocolError::NotUtf8);
        }
        let kind = self.message.unwrap_or(Kind::Binary);
        let finding = match self.config.delivery {
            Delivery::Whole => Finding::Message(kind),
            Delivery::Chunks => Finding::Chunk { kind, first: !self.begun, last: true, tail: 0 },
        };
        Ok(Some(self.hand_out(finding, &io.tx)))
    }

    /// Keeps, unmasks and checks what arrived of the current frame: each byte once, and piece by piece, so that what is
    /// unmasked lies in the processor's cache when it is checked.
    fn take_payload(&mut self, rx: &mut RxBuf<'_>) -> Result<(), ProtocolError> {
        while self.remaining > 0 {
            let piece = rx.keep(usize::try_from(self.remaining).unwrap_or(usize::MAX).min(PIECE));
            if piece.is_empty() {
                break;
            }
            if !R::IS_CLIENT {
                self.mask = unmask(piece, self.mask);
            }
            let n = piece.len();
            self.remaining -= n as u64;
            self.message_len += n as u64;
            self.check_text(rx, n)?;
        }
        Ok(())
    }

    /// Unmasks what arrived of the current frame behind `from` bytes of it that are unmasked already, and says
    /// how much that was.
    pub(super) fn unmask_payload(&mut self, rx: &mut RxBuf<'_>, from: usize) -> usize {
        let bytes = rx.unread_mut().get_mut(from..).unwrap_or_default();
        let n = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(bytes.len());
        if !R::IS_CLIENT
            && let Some(bytes) = bytes.get_mut(..n)
        {
            self.mask = unmask(bytes, self.mask);
        }
        self.remaining -= n as u64;
        n
    }

    /// Checks the last `n` bytes of what is kept, if they are text.
    pub(super) fn check_text(&mut self, rx: &RxBuf<'_>, n: usize) -> Result<(), ProtocolError> {
        if self.message == Some(Kind::Text) {
            let kept = rx.kept();
            let fresh = kept.len().saturating_sub(n + usize::from(self.tail));
            self.tail = utf8::check(kept.get(fresh..).unwrap_or_default())?;
        }
        Ok(())
    }

    /// RFC 6455 section 5.5. A control frame stays among the unread bytes until it is whole and its answer has
    /// room, so it never touches the message around it.
    fn control(
        &mut self,
        now: Instant,
        header: FrameHeader,
        size: usize,
        io: &mut Io<'_>,
    ) -> Result<Step, ProtocolError> {
        // At most 125 and 6: checked by the parser.
        let place = Place { header: narrow(size), len: narrow(header.len) };
        if io.rx.unread_len() < place.size() {
            return Ok(self.need_input(io));
        }
        let answer = match header.opcode {
            OpCode::Ping => FrameHeader::size(header.len, R::IS_CLIENT) + usize::from(place.len) + CLOSE_ROOM,
            _ => CLOSE_ROOM,
        };
        if io.tx.room() < answer {
            return if io.tx.pending().is_empty() {
                Err(ProtocolError::SendBufferTooSmall)
            } else {
                Ok(Step::NeedFlush)
            };
        }
        let body = usize::from(place.header)..place.size();
        if let (Some(mask), Some(payload)) = (header.mask, io.rx.unread_mut().get_mut(body.clone())) {
            unmask(payload, mask);
        }
        let payload = io.rx.unread().get(body).unwrap_or_default();
        let finding = match header.opcode {
            OpCode::Ping => {
                // RFC 6455 5.5.3: "identical 'Application data'".
                self.put_frame(&mut io.tx, OpCode::Pong, &[payload]);
                Finding::Ping(place)
            }
            OpCode::Pong => {
                self.echo = self.echo.answer(now, payload);
                Finding::Pong(place)
            }
            _ => {
                let CloseReason { code, .. } = CloseReason::parse(payload)?;
                if self.phase == Phase::Open {
                    // RFC 6455 5.5.1: "the endpoint typically echos the status code it received".
                    self.put_close(&mut io.tx, code, "");
                }
                // RFC 6455 7.1.1: the server ends the stream first, so that it is the server that holds TIME_WAIT
                // no longer than it wants.
                self.phase = if R::IS_CLIENT { Phase::Draining } else { Phase::Over(CloseCause::Clean) };
                self.deadline = Deadline::after(now, self.config.close_timeout);
                Finding::Close(place)
            }
        };
        Ok(self.found(finding))
    }

    /// There is nothing more to parse. Under `Delivery::Chunks` what is there of a message goes out first.
    pub(super) fn need_input(&mut self, io: &mut Io<'_>) -> Step {
        self.hand_out_piece(io).unwrap_or_else(|| {
            if io.rx.is_full() { Step::NeedSpace(self.space(&io.rx)) } else { Step::NeedInput }
        })
    }

    /// Under `Delivery::Chunks`: what is there of a message, unless that is nothing.
    fn hand_out_piece(&mut self, io: &mut Io<'_>) -> Option<Step> {
        let whole = io.rx.kept_len().saturating_sub(usize::from(self.tail));
        let (Delivery::Chunks, Some(kind), 1..) = (self.config.delivery, self.message, whole) else {
            return None;
        };
        let finding = Finding::Chunk { kind, first: !self.begun, last: false, tail: self.tail };
        Some(self.hand_out(finding, &io.tx))
    }

    /// What is inflated has filled the room between what is kept and what is unread.
    pub(super) fn need_room(&mut self, io: &mut Io<'_>) -> Step {
        self.hand_out_piece(io).unwrap_or_else(|| Step::NeedSpace(self.space(&io.rx)))
    }

    /// What the message may still need, but no more than twice of what is held: an announced length reserves
    /// nothing, and as the buffer at least doubles until then, growing it costs linear work.
    fn space(&self, rx: &RxBuf<'_>) -> usize {
        let rest = match (self.receiving, self.message, self.inflating()) {
            (_, None, _) => 0,
            (Receiving::Payload { fin: true }, _, Inflating::No | Inflating::Gathering) => self.remaining,
            (_, _, Inflating::Gathering) => {
                self.max_compressed(self.fragments).saturating_sub(self.compressed_len)
            }
            _ => self.max_message().saturating_sub(self.message_len),
        };
        let rest = usize::try_from(rest).unwrap_or(usize::MAX);
        // What is compressed stays beside what comes of it.
        let compressed = match self.inflating() {
            Inflating::No | Inflating::Gathering => 0,
            Inflating::Yes { .. } | Inflating::Done => rx.unread_len(),
        };
        let most = rx.kept_len().saturating_add(compressed).saturating_add(rest);
        most.min(rx.held().saturating_mul(2)).saturating_add(MIN_RX)
    }

    /// A whole message has to fit into a buffer, of which no more than `u32::MAX` bytes are used; a compressed one
    /// beside what it comes of.
    pub(super) fn max_message(&self) -> u64 {
        let buffer = u64::from(u32::MAX) - MIN_RX as u64;
        match (self.config.delivery, self.deflate()) {
            (Delivery::Chunks, _) => self.config.max_message,
            (Delivery::Whole, None) => self.config.max_message.min(buffer),
            (Delivery::Whole, Some(_)) => self.config.max_message.min(buffer / 3),
        }
    }

    /// A message is handed out only when an answer to it has room beside the reserve for control frames. If it
    /// has none it waits for nothing: two endpoints that both write first and read later wait for each other.
    fn hand_out(&mut self, finding: Finding, tx: &TxBuf<'_>) -> Step {
        if self.must_flush(tx) { Step::NeedFlush } else { self.found(finding) }
    }

    /// Whether the answer to a message would have no room.
    pub(super) fn must_flush(&self, tx: &TxBuf<'_>) -> bool {
        let most = tx.capacity().saturating_sub(MIN_TX);
        match self.config.reply_room {
            0 => false,
            room => tx.room() < MIN_TX + room.min(most) && !tx.pending().is_empty(),
        }
    }

    fn found(&mut self, finding: Finding) -> Step {
        self.handed_out = match finding {
            Finding::Message(_) => HandedOut::Message,
            Finding::Chunk { last, .. } => HandedOut::Chunk { last },
            // At most 131: a control frame is short.
            Finding::Ping(place) | Finding::Pong(place) | Finding::Close(place) => {
                HandedOut::Control(narrow(place.size()))
            }
        };
        Step::Event(Found(finding))
    }
}

impl Place {
    pub(super) fn size(self) -> usize {
        usize::from(self.header) + usize::from(self.len)
    }
}

/// RFC 6455 section 1.4: "after receiving a control frame indicating the connection should be closed, a peer
/// discards any further data received." What is left of a message goes with it.
fn discard(rx: &mut RxBuf<'_>) {
    rx.release(usize::MAX);
    rx.skip(usize::MAX);
}

fn narrow<T: TryInto<u8>>(n: T) -> u8 {
    n.try_into().unwrap_or(u8::MAX)
}
