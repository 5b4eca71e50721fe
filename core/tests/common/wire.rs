//! Frames, written and read without the code that is tested.

use longwire_core::ws::Role;

/// Bytes on their way to an endpoint, masked if that endpoint is a server.
///
/// The first byte of a frame is given as it stands on the wire: `0x81` is a whole text, `0x01` its first
/// fragment, `0x00` a fragment in the middle, `0x80` the last one, `0x89` a Ping.
#[derive(Clone, Debug)]
pub struct Wire {
    masked: bool,
    bytes: Vec<u8>,
}

impl Wire {
    /// An empty wire towards an endpoint of role `R`.
    pub fn to<R: Role>() -> Self {
        Self { masked: !R::IS_CLIENT, bytes: Vec::new() }
    }

    /// A frame with the shortest header.
    pub fn frame(self, b0: u8, payload: &[u8]) -> Self {
        let start = self.bytes.len() as u8;
        let mut wire = self.header(b0, payload.len() as u64, start);
        let key = wire.key(start);
        wire.bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        wire
    }

    /// The header of a frame of `len` bytes alone; `seed` says which mask.
    pub fn header(mut self, b0: u8, len: u64, seed: u8) -> Self {
        let masked = if self.masked { 0x80 } else { 0 };
        match len {
            0..126 => self.bytes.extend([b0, masked | len as u8]),
            126..0x1_0000 => {
                self.bytes.extend([b0, masked | 126]);
                self.bytes.extend((len as u16).to_be_bytes());
            }
            _ => {
                self.bytes.extend([b0, masked | 127]);
                self.bytes.extend(len.to_be_bytes());
            }
        }
        if self.masked {
            self.bytes.extend(self.key(seed));
        }
        self
    }

    /// Bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    pub fn text(self, text: &str) -> Self {
        self.frame(0x81, text.as_bytes())
    }

    pub fn binary(self, data: &[u8]) -> Self {
        self.frame(0x82, data)
    }

    pub fn ping(self, payload: &[u8]) -> Self {
        self.frame(0x89, payload)
    }

    pub fn pong(self, payload: &[u8]) -> Self {
        self.frame(0x8a, payload)
    }

    pub fn close(self, code: u16, reason: &[u8]) -> Self {
        self.frame(0x88, &[&code.to_be_bytes(), reason].concat())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A mask without equal neighbours, so that a wrong phase shows; all zero when frames are not masked.
    fn key(&self, seed: u8) -> [u8; 4] {
        if self.masked { [0x37, 0xfa, 0x21, 0x3d].map(|b: u8| b.wrapping_add(seed)) } else { [0; 4] }
    }
}

/// A frame that an endpoint sent, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub b0: u8,
    pub mask: Option<[u8; 4]>,
    pub payload: Vec<u8>,
}

/// The whole frames in `bytes`, and what is left behind them.
pub fn frames(mut bytes: &[u8]) -> (Vec<Sent>, &[u8]) {
    let mut frames = Vec::new();
    while let Some((frame, rest)) = frame(bytes) {
        frames.push(frame);
        bytes = rest;
    }
    (frames, bytes)
}

fn frame(bytes: &[u8]) -> Option<(Sent, &[u8])> {
    let (&[b0, b1], rest) = bytes.split_first_chunk()?;
    let (len, rest) = match b1 & 0x7f {
        126 => rest.split_first_chunk().map(|(len, rest)| (u64::from(u16::from_be_bytes(*len)), rest))?,
        127 => rest.split_first_chunk().map(|(len, rest)| (u64::from_be_bytes(*len), rest))?,
        len => (u64::from(len), rest),
    };
    let (mask, rest) = match b1 & 0x80 {
        0 => (None, rest),
        _ => rest.split_first_chunk().map(|(mask, rest)| (Some(*mask), rest))?,
    };
    let (payload, rest) = rest.split_at_checked(usize::try_from(len).unwrap())?;
    let key = mask.unwrap_or_default();
    let payload = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    Some((Sent { b0, mask, payload }, rest))
}
