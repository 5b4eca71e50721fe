//! What embedded-tls stands on: a link that gives whole records, and a generator.

use core::cell::Cell;

use embedded_io_async::{ErrorKind, ErrorType, Read, Write};
use longwire_core::rand_core::CryptoRng;
use rand_core_06::{Error, RngCore};

use super::suite::{OPEN, VERSION};
use crate::link::Link;

/// Bytes of a record's header: its type, a version, its length (RFC 8446 section 5.1).
pub(super) const HEADER: usize = 5;
/// The types of records (RFC 8446 section 5.1). This one means nothing any more.
const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const ALERT: u8 = 21;
/// ServerHello's.
pub(super) const HANDSHAKE: u8 = 22;
/// That of any encrypted record.
pub(super) const APPLICATION_DATA: u8 = 23;
/// An encrypted record has a tag, and inside at least its true type.
const LEAST: usize = 17;

/// A link that hands records out when they are whole, so that embedded-tls never waits in the middle of one: its `read`
/// forgets what it had when it is dropped there. And what must not come is refused before embedded-tls sees it.
pub(super) struct Below<'a, L> {
    link: L,
    record: &'a mut [u8],
    filled: usize,
    served: usize,
    /// ServerHello has come: there is nothing else of a handshake that is not encrypted (RFC 8446 section 2).
    greeted: bool,
    /// The handshake is done: everything is encrypted.
    open: &'a Cell<bool>,
}

impl<'a, L: Link> Below<'a, L> {
    pub(super) const fn new(link: L, record: &'a mut [u8], open: &'a Cell<bool>) -> Self {
        Self { link, record, filled: 0, served: 0, greeted: false, open }
    }

    /// Bytes of the record, as far as they are known.
    fn wanted(&self) -> Result<usize, ErrorKind> {
        let Some((&[kind, major, minor, high, low], _)) =
            self.record.get(..self.filled).and_then(|record| record.split_first_chunk::<HEADER>())
        else {
            return Ok(HEADER);
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        // Unencrypted, an alert would end the connection on anybody's word. A record too short panics embedded-tls.
        let encrypted = kind == APPLICATION_DATA;
        let late = (self.greeted && kind == HANDSHAKE) || (self.open.get() && !encrypted);
        // RFC 8446 section 5.2 has one version for these records, and would have it ignored; but it is part of what the tag
        // vouches for, and no peer has a reason to write another one.
        let odd = encrypted && (len < LEAST || [major, minor] != VERSION);
        if late || odd || !matches!(kind, CHANGE_CIPHER_SPEC | ALERT | HANDSHAKE | APPLICATION_DATA) {
            return Err(ErrorKind::InvalidData);
        }
        let whole = HEADER + len;
        if whole > self.record.len() { Err(ErrorKind::OutOfMemory) } else { Ok(whole) }
    }
}

impl<L> ErrorType for Below<'_, L> {
    type Error = ErrorKind;
}

impl<L: Link> Read for Below<'_, L> {
    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, ErrorKind> {
        if self.served > 0 && self.served == self.filled {
            self.greeted |= self.record.first() == Some(&HANDSHAKE);
            (self.filled, self.served) = (0, 0);
        }
        // Dropped here, what came is kept, for the next call.
        while self.served == 0 {
            let wanted = self.wanted()?;
            if self.filled >= wanted {
                break;
            }
            let space = self.record.get_mut(self.filled..wanted).unwrap_or_default();
            match self.link.read(space).await {
                Ok(0) => return Ok(0),
                Ok(n) => self.filled = self.filled.saturating_add(n).min(wanted),
                Err(_) => return Err(ErrorKind::Other),
            }
        }
        if self.served == 0
            && self.open.get()
            && let Some(version) = self.record.get_mut(1..3)
        {
            version.copy_from_slice(&OPEN);
        }
        let from = self.record.get(self.served..self.filled).unwrap_or_default();
        let n = from.len().min(bytes.len());
        bytes.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        self.served = self.served.saturating_add(n);
        Ok(n)
    }
}

impl<L: Link> Write for Below<'_, L> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.link.write(bytes).await.map_err(|_| ErrorKind::Other)
    }

    async fn flush(&mut self) -> Result<(), ErrorKind> {
        self.link.flush().await.map_err(|_| ErrorKind::Other)
    }
}

/// A generator as embedded-tls wants it.
pub(super) struct Numbers<'a, R>(pub(super) &'a mut R);

impl<R: CryptoRng> RngCore for Numbers<'_, R> {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.0.fill_bytes(bytes);
        Ok(())
    }
}

impl<R: CryptoRng> rand_core_06::CryptoRng for Numbers<'_, R> {}
