//! Frame headers (RFC 6455 section 5.2).

use super::ProtocolError;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum OpCode {
    /// 0: a further fragment of the message that was begun.
    Continuation = 0,
    /// 1: text, or its first fragment.
    Text = 1,
    /// 2: binary data, or its first fragment.
    Binary = 2,
    /// 8: the closing handshake.
    Close = 8,
    /// 9: asks for a Pong.
    Ping = 9,
    /// 10: answers a Ping, or nothing.
    Pong = 10,
}

impl OpCode {
    /// Whether it is a control frame (RFC 6455 section 5.5), which may stand between the fragments of a message.
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    const fn bits(self) -> u8 {
        self as u8
    }
}

/// The header of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Whether the message ends with this frame.
    pub fin: bool,
    /// The first reserved bit, which an extension may give a meaning.
    pub rsv1: bool,
    /// What the frame is.
    pub opcode: OpCode,
    /// The masking key; present in all frames of a client, and in none of a server.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload, at most 2^63 - 1.
    pub len: u64,
}

impl FrameHeader {
    /// Reads a header: `None` while `bytes` ends inside it, otherwise the header and its length (2 to 14 bytes).
    ///
    /// # Errors
    /// Whatever can be said of a header alone: RSV2 or RSV3, a reserved opcode, a length that is not minimal or
    /// above 2^63 - 1, a control frame that is fragmented or above 125 bytes. It is said as soon as it is seen.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, ProtocolError> {
        let Some(([b0, b1], rest)) = bytes.split_first_chunk::<2>() else { return Ok(None) };
        if b0 & 0x30 != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        let opcode = OpCode::from_bits(b0 & 0x0f).ok_or(ProtocolError::ReservedOpcode)?;
        let fin = b0 & 0x80 != 0;
        if opcode.is_control() {
            // RFC 6455 5.5: "All control frames MUST have a payload length of 125 bytes or less and MUST NOT be
            // fragmented."
            if !fin {
                return Err(ProtocolError::ControlFragmented);
            }
            if b1 & 0x7f > 125 {
                return Err(ProtocolError::ControlTooLong);
            }
        }
        // RFC 6455 5.2: "in all cases, the minimal number of bytes MUST be used to encode the length"
        let (len, rest, size) = match b1 & 0x7f {
            len @ ..126 => (u64::from(len), rest, 2),
            126 => {
                let Some((len, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
                match u16::from_be_bytes(*len) {
                    ..126 => return Err(ProtocolError::LengthNotMinimal),
                    len => (u64::from(len), rest, 4),
                }
            }
            _ => {
                let Some((len, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
                match u64::from_be_bytes(*len) {
                    ..=0xffff => return Err(ProtocolError::LengthNotMinimal),
                    len if len >> 63 != 0 => return Err(ProtocolError::LengthTooLarge),
                    len => (len, rest, 10),
                }
            }
        };
        let (mask, size) = if b1 & 0x80 == 0 {
            (None, size)
        } else {
            let Some((mask, _)) = rest.split_first_chunk::<4>() else { return Ok(None) };
            (Some(*mask), size + 4)
        };
        Ok(Some((Self { fin, rsv1: b0 & 0x40 != 0, opcode, mask, len }, size)))
    }

    /// The header as it goes over the wire. A length above 2^63 - 1 cannot be sent and counts as that.
    #[inline]
    pub fn encode(&self) -> EncodedHeader {
        let mut out = EncodedHeader { bytes: [0; 14], len: 0 };
        self.write(&mut out.bytes);
        out.len = self.encoded_size();
        out
    }

    /// Writes the header to the front of `space`, of which it takes [`size`](Self::size) bytes, as far as there is space.
    #[inline]
    pub(super) fn write(&self, space: &mut [u8]) {
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        let first = u8::from(self.fin) << 7 | u8::from(self.rsv1) << 6 | self.opcode.bits();
        // Arrays of a fixed length: for a few bytes a copy whose length is known when it runs costs more than they do.
        let rest = match (u8::try_from(self.len), u16::try_from(self.len)) {
            (Ok(len @ ..126), _) => put(space, [first, masked | len]),
            (_, Ok(len)) => {
                let rest = put(space, [first, masked | 126]);
                put(rest, len.to_be_bytes())
            }
            _ => {
                let rest = put(space, [first, masked | 127]);
                put(rest, self.len.min(u64::MAX >> 1).to_be_bytes())
            }
        };
        if let Some(mask) = self.mask {
            put(rest, mask);
        }
    }

    fn encoded_size(&self) -> u8 {
        u8::try_from(Self::size(self.len, self.mask.is_some())).unwrap_or(u8::MAX)
    }

    /// Bytes that the header of a payload of `len` bytes takes.
    #[inline]
    pub(super) const fn size(len: u64, masked: bool) -> usize {
        let size = match len {
            0..126 => 2,
            126..=0xffff => 4,
            _ => 10,
        };
        if masked { size + 4 } else { size }
    }
}

/// A header of 2 to 14 bytes, ready to be written in front of its payload.
#[derive(Clone, Copy, Debug)]
pub struct EncodedHeader {
    bytes: [u8; 14],
    len: u8,
}

impl AsRef<[u8]> for EncodedHeader {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// Writes `part` to the front of `space`, if there is space, and returns what is behind it.
fn put<const N: usize>(space: &mut [u8], part: [u8; N]) -> &mut [u8] {
    match space.split_first_chunk_mut::<N>() {
        Some((to, rest)) => {
            *to = part;
            rest
        }
        None => &mut [],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(fin: bool, opcode: OpCode, mask: Option<[u8; 4]>, len: u64) -> FrameHeader {
        FrameHeader { fin, rsv1: false, opcode, mask, len }
    }

    #[test]
    fn rfc6455_5_7_examples() {
        let table: [(&[u8], FrameHeader, usize); 6] = [
            (b"\x81\x05", header(true, OpCode::Text, None, 5), 2),
            (b"\x81\x85\x37\xfa\x21\x3d", header(true, OpCode::Text, Some([0x37, 0xfa, 0x21, 0x3d]), 5), 6),
            (b"\x01\x03", header(false, OpCode::Text, None, 3), 2),
            (b"\x80\x02", header(true, OpCode::Continuation, None, 2), 2),
            (b"\x82\x7e\x01\x00", header(true, OpCode::Binary, None, 256), 4),
            (b"\x82\x7f\0\0\0\0\0\x01\0\0", header(true, OpCode::Binary, None, 65536), 10),
        ];
        for (wire, want, size) in table {
            for cut in 0..wire.len() {
                assert_eq!(FrameHeader::parse(&wire[..cut]), Ok(None), "{wire:x?} cut at {cut}");
            }
            assert_eq!(FrameHeader::parse(wire), Ok(Some((want, size))));
            assert_eq!(want.encode().as_ref(), wire);
        }
    }

    #[test]
    fn what_a_header_must_not_say() {
        use ProtocolError as E;
        let table: [(&[u8], E); 14] = [
            (b"\x91\x00", E::ReservedBits),
            (b"\xa1\x00", E::ReservedBits),
            (b"\x83\x00", E::ReservedOpcode),
            (b"\x87\x00", E::ReservedOpcode),
            (b"\x8b\x00", E::ReservedOpcode),
            (b"\x8f\x00", E::ReservedOpcode),
            (b"\x09\x00", E::ControlFragmented),
            (b"\x08\x00", E::ControlFragmented),
            (b"\x89\x7e", E::ControlTooLong),
            (b"\x8a\xff", E::ControlTooLong),
            (b"\x82\x7e\x00\x7d", E::LengthNotMinimal),
            (b"\x82\x7f\0\0\0\0\0\0\xff\xff", E::LengthNotMinimal),
            (b"\x82\x7f\x80\0\0\0\0\0\0\0", E::LengthTooLarge),
            (b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", E::LengthTooLarge),
        ];
        for (wire, want) in table {
            assert_eq!(FrameHeader::parse(wire), Err(want), "{wire:x?}");
        }
    }

    #[test]
    fn rfc6455_5_5_a_control_frame_has_up_to_125_bytes() {
        for opcode in [OpCode::Close, OpCode::Ping, OpCode::Pong] {
            for len in [0, 124, 125] {
                let want = header(true, opcode, Some([1, 2, 3, 4]), len);
                assert_eq!(FrameHeader::parse(want.encode().as_ref()), Ok(Some((want, 6))));
            }
            let long = header(true, opcode, None, 126).encode();
            assert_eq!(FrameHeader::parse(long.as_ref()), Err(ProtocolError::ControlTooLong));
        }
    }

    #[test]
    fn lengths_at_the_edges_survive_the_round_trip() {
        for len in [0, 1, 125, 126, 127, 65535, 65536, 1 << 31, 1 << 32, (1 << 32) + 5, (1 << 63) - 1] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let want = header(true, OpCode::Binary, mask, len);
                let wire = want.encode();
                let size = wire.as_ref().len();
                assert_eq!(size, FrameHeader::size(len, mask.is_some()));
                assert_eq!(FrameHeader::parse(wire.as_ref()), Ok(Some((want, size))));
            }
        }
    }

    #[test]
    fn every_opcode_and_bit_survives_the_round_trip() {
        use OpCode::{Binary, Close, Continuation, Ping, Pong, Text};
        for opcode in [Continuation, Text, Binary, Close, Ping, Pong] {
            for bits in 0..4u8 {
                let (fin, rsv1) = (opcode.is_control() || bits & 1 != 0, bits & 2 != 0);
                let want = FrameHeader { fin, rsv1, opcode, mask: None, len: 0 };
                assert_eq!(FrameHeader::parse(want.encode().as_ref()), Ok(Some((want, 2))));
            }
        }
        let compressed = FrameHeader { rsv1: true, ..header(false, Text, None, 1) };
        assert_eq!(compressed.encode().as_ref(), b"\x41\x01");
    }

    #[test]
    fn rfc6455_5_2_a_length_above_63_bits_is_not_sent() {
        for len in [1 << 63, u64::MAX] {
            let wire = header(true, OpCode::Binary, None, len).encode();
            assert_eq!(wire.as_ref(), b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff");
        }
    }
}
