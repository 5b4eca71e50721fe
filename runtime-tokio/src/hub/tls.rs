//! TLS over a socket of the shard's own. What is delivered is encrypted and written at once, without a task; nothing here
//! waits, and nothing here knows how the socket says that it is ready.
//!
//! Of the output there is at most one record that the socket has not taken whole. It counts as half-sent
//! ([`Pins`]), each connection's for itself, for no two are encrypted alike.

use super::outlet::{Held, Pins};
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use tokio_rustls::rustls::ServerConnection;

/// The plaintext of a record (RFC 8446 section 5.1), and so what is encrypted before the socket is asked whether it
/// takes any.
const RECORD: usize = 16 << 10;
/// What a record has beside its plaintext, at most, and messages of the protocol's own: an alert, a key update.
const OVERHEAD: usize = 256;
/// Reads of a socket that may bring no plaintext before others get their turn: records may be empty.
const READS: usize = 16;

/// The server's end of a TLS connection, after its handshake.
pub(super) struct Tls {
    connection: Box<ServerConnection>,
    pins: Arc<Pins>,
    /// Plaintext of the last record.
    record: usize,
    /// A place for what the socket has not taken of it.
    held: Option<Held>,
    closed: bool,
}

impl Tls {
    pub(super) fn new(mut connection: Box<ServerConnection>, pins: Arc<Pins>) -> Self {
        connection.set_buffer_limit(Some(RECORD));
        Self { connection, pins, record: 0, held: None, closed: false }
    }

    /// Whether all that was written has gone out.
    pub(super) fn is_flushed(&self) -> bool {
        !self.connection.wants_write()
    }

    /// Encrypts and writes; what counts as written is out of the caller's hands, although the socket may not have it yet:
    /// [`flush`](Self::flush) goes on.
    ///
    /// # Errors
    /// [`WouldBlock`](ErrorKind::WouldBlock) when nothing was taken; [`QuotaExceeded`](ErrorKind::QuotaExceeded) when
    /// there is no room to keep what the socket did not take.
    pub(super) fn write(&mut self, socket: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
        self.flush(socket)?;
        let mut written = 0;
        for record in bytes.chunks(RECORD) {
            let n = self.connection.writer().write(record)?;
            self.record = n;
            written += n;
            match self.flush(socket) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                flushed => flushed?,
            }
            if n < record.len() {
                break;
            }
        }
        Ok(written)
    }

    /// Writes what is encrypted and has not gone out.
    ///
    /// # Errors
    /// As above; `WouldBlock` while some is left.
    pub(super) fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.held.is_none() => {
                    let place = self.pins.hold(self.record + OVERHEAD);
                    self.held = Some(place.ok_or(ErrorKind::QuotaExceeded)?);
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
        self.held = None;
        self.record = 0;
        Ok(())
    }

    /// Reads; `Ok(0)` is an end that the peer has announced (`close_notify`).
    ///
    /// # Errors
    /// [`WouldBlock`](ErrorKind::WouldBlock) while there is nothing; [`Interrupted`](ErrorKind::Interrupted) when much came
    /// in without any plaintext, and others want their turn before there is another read;
    /// [`UnexpectedEof`](ErrorKind::UnexpectedEof): the end was not announced, so what came may be cut off;
    /// [`InvalidData`](ErrorKind::InvalidData): that was no TLS, or not the peer's. The peer is told, if that can be done at
    /// once.
    pub(super) fn read(&mut self, socket: &mut (impl Read + Write), space: &mut [u8]) -> io::Result<usize> {
        for _ in 0..READS {
            match self.connection.reader().read(space) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            match self.connection.read_tls(socket) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read?,
            };
            let processed = self.connection.process_new_packets();
            // An answer of the protocol's own, or an alert. If it has to wait, it goes out before all else.
            match (self.flush(socket), processed) {
                (_, Err(error)) => return Err(io::Error::new(ErrorKind::InvalidData, error)),
                (Err(error), _) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        Err(ErrorKind::Interrupted.into())
    }

    /// Announces our end.
    ///
    /// # Errors
    /// Those of [`flush`](Self::flush).
    pub(super) fn close(&mut self, socket: &mut impl Write) -> io::Result<()> {
        if !self.closed {
            self.closed = true;
            self.connection.send_close_notify();
        }
        self.flush(socket)
    }
}
