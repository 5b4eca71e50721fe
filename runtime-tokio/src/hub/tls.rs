//! TLS over a socket of the shard's own. What is delivered is encrypted and written at once, without a task; nothing
//! here waits, and nothing here knows how the socket says that it is ready.
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
    /// A record went out in part, and there was no room to keep the rest: nothing can follow it.
    cut: bool,
    closed: bool,
}

impl Tls {
    pub(super) fn new(mut connection: Box<ServerConnection>, pins: Arc<Pins>) -> Self {
        connection.set_buffer_limit(Some(RECORD));
        Self { connection, pins, record: 0, held: None, cut: false, closed: false }
    }

    /// Whether all that was written has gone out.
    pub(super) fn is_flushed(&self) -> bool {
        !self.connection.wants_write()
    }

    /// Encrypts and writes; what counts as written is out of the caller's hands, although the socket may not have it
    /// yet: [`flush`](Self::flush) goes on.
    ///
    /// # Errors
    /// [`WouldBlock`](ErrorKind::WouldBlock) when nothing was taken; [`QuotaExceeded`](ErrorKind::QuotaExceeded) when
    /// there is no room to keep what the socket did not take. That is the end: whatever is called afterwards says the
    /// same, also when there is room again, for the caller cannot know what the peer has of its bytes.
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
        self.check_whole()?;
        while self.connection.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.held.is_none() => {
                    self.held = self.pins.hold(self.record + OVERHEAD);
                    self.cut = self.held.is_none();
                    return self.check_whole().and(Err(error));
                }
                Err(error) => return Err(error),
            }
        }
        self.held = None;
        self.record = 0;
        Ok(())
    }

    fn check_whole(&self) -> io::Result<()> {
        if self.cut { Err(ErrorKind::QuotaExceeded.into()) } else { Ok(()) }
    }

    /// Reads; `Ok(0)` is an end that the peer has announced (`close_notify`).
    ///
    /// # Errors
    /// [`QuotaExceeded`](ErrorKind::QuotaExceeded) as above;
    /// [`WouldBlock`](ErrorKind::WouldBlock) while there is nothing; [`Interrupted`](ErrorKind::Interrupted) when much
    /// came in without any plaintext, and others want their turn before there is another read;
    /// [`UnexpectedEof`](ErrorKind::UnexpectedEof): the end was not announced, so what came may be cut off;
    /// [`InvalidData`](ErrorKind::InvalidData): that was no TLS, or not the peer's. The peer is told, if that can be
    /// done at once.
    pub(super) fn read(&mut self, socket: &mut (impl Read + Write), space: &mut [u8]) -> io::Result<usize> {
        self.check_whole()?;
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
        self.check_whole()?;
        if !self.closed {
            self.closed = true;
            self.connection.send_close_notify();
        }
        self.flush(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{client_config, rustls};
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{ClientConnection, RootCertStore, ServerConfig};
    use std::collections::VecDeque;

    /// A socket with room for so many bytes, and so many of what came in at a read.
    #[derive(Default)]
    struct Wire {
        incoming: VecDeque<u8>,
        at_once: usize,
        outgoing: Vec<u8>,
        room: usize,
    }

    impl Read for Wire {
        fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
            let n = space.len().min(self.at_once).min(self.incoming.len());
            if n == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.incoming.drain(..n).zip(space).for_each(|(from, to)| *to = from);
            Ok(n)
        }
    }

    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.room);
            if n == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= n;
            self.outgoing.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Wire {
        /// What the client says comes in, and what was written goes to the client.
        fn exchange(&mut self, client: &mut ClientConnection) -> Vec<u8> {
            let mut plain = Vec::new();
            let outgoing = std::mem::take(&mut self.outgoing);
            let mut outgoing = &outgoing[..];
            while !outgoing.is_empty() {
                client.read_tls(&mut outgoing).unwrap();
                client.process_new_packets().unwrap();
                let mut piece = vec![0; 1 << 16];
                match client.reader().read(&mut piece) {
                    Ok(n) => plain.extend_from_slice(&piece[..n]),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            while client.wants_write() {
                let mut said = Vec::new();
                client.write_tls(&mut said).unwrap();
                self.incoming.extend(said);
            }
            plain
        }
    }

    fn pair(pins: &Arc<Pins>) -> (Tls, ClientConnection, Wire) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::new(client_config(roots)), name).unwrap();
        let server = Box::new(ServerConnection::new(Arc::new(config)).unwrap());
        let mut server = Tls::new(server, Arc::clone(pins));
        let mut wire = Wire { at_once: usize::MAX, room: usize::MAX, ..Wire::default() };
        while client.is_handshaking() || server.connection.is_handshaking() {
            wire.exchange(&mut client);
            let read = server.read(&mut wire, &mut [0; 64]);
            assert_eq!(read.unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        wire.exchange(&mut client);
        wire.room = 0;
        (server, client, wire)
    }

    #[test]
    fn what_a_socket_takes_in_pieces_arrives_whole_and_at_most_a_record_waits() {
        let bytes: Vec<u8> = (0..=250).cycle().take(50_000).collect();
        for room in [1, 7, 100, 5000, 16_384, 16_500, 60_000] {
            let pins = Pins::new(1 << 20);
            let (mut server, mut client, mut wire) = pair(&pins);
            let (mut written, mut got) = (0, Vec::new());
            while got.len() < bytes.len() {
                wire.room = room;
                match server.write(&mut wire, &bytes[written..]) {
                    Ok(n) => written += n,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                assert!(pins.used() <= RECORD + OVERHEAD);
                assert_eq!(server.is_flushed(), pins.used() == 0, "what waits counts");
                got.extend(wire.exchange(&mut client));
                // Of what was taken only a record may be on its way.
                assert!(written - got.len() <= RECORD);
                if written == bytes.len() {
                    wire.room = room;
                    let _ = server.flush(&mut wire);
                    got.extend(wire.exchange(&mut client));
                }
            }
            assert!(got == bytes && server.is_flushed() && pins.used() == 0, "{room}");
        }
    }

    #[test]
    fn without_room_to_keep_it_the_connection_ends_also_when_there_is_room_again() {
        let pins = Pins::new(10_000);
        let others: Vec<_> = std::iter::from_fn(|| pins.hold(1 + OVERHEAD)).collect();
        let (mut server, _client, mut wire) = pair(&pins);
        wire.room = 10;
        let end = server.write(&mut wire, b"hello").unwrap_err();
        assert_eq!(end.kind(), ErrorKind::QuotaExceeded);
        drop(others);
        wire.room = usize::MAX;
        for again in [
            server.write(&mut wire, b"hello").map(drop),
            server.flush(&mut wire),
            server.read(&mut wire, &mut [0; 9]).map(drop),
            server.close(&mut wire),
        ] {
            assert_eq!(again.unwrap_err().kind(), ErrorKind::QuotaExceeded);
        }
        assert_eq!(wire.outgoing.len(), 10, "nothing comes behind a record that is cut");
    }

    #[test]
    fn input_that_comes_byte_by_byte_gives_way_in_between_and_is_read_whole() {
        let (mut server, mut client, mut wire) = pair(&Pins::new(0));
        client.writer().write_all(&[7; 20_000]).unwrap();
        wire.exchange(&mut client);
        wire.at_once = 1;
        let (mut got, mut ways, mut space) = (Vec::new(), 0, [0; 999]);
        loop {
            let left = wire.incoming.len();
            match server.read(&mut wire, &mut space) {
                Ok(n) => got.extend_from_slice(&space[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => ways += 1,
                Err(error) => break assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            assert!(left - wire.incoming.len() <= READS);
        }
        assert!(got == [7; 20_000] && ways > 1000);
    }

    #[test]
    fn an_end_is_announced_once_and_told_from_one_that_is_not() {
        let (mut server, mut client, mut wire) = pair(&Pins::new(1 << 20));
        assert_eq!(server.close(&mut wire).unwrap_err().kind(), ErrorKind::WouldBlock);
        wire.room = 1000;
        server.close(&mut wire).unwrap();
        server.close(&mut wire).unwrap();
        let alert = wire.outgoing.len();
        wire.exchange(&mut client);
        assert!(alert < 30 && matches!(client.reader().read(&mut [0]), Ok(0)));
        client.send_close_notify();
        wire.exchange(&mut client);
        assert_eq!(server.read(&mut wire, &mut [0]).unwrap(), 0);
        let (mut server, ..) = pair(&Pins::new(0));
        let cut = server.read(&mut io::Cursor::new(Vec::new()), &mut [0]);
        assert_eq!(cut.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_not_the_peers_is_answered_with_an_alert() {
        let (mut server, mut client, mut wire) = pair(&Pins::new(1 << 20));
        wire.room = 1000;
        client.writer().write_all(b"hello").unwrap();
        wire.exchange(&mut client);
        if let Some(last) = wire.incoming.back_mut() {
            *last ^= 1;
        }
        assert_eq!(server.read(&mut wire, &mut [0; 9]).unwrap_err().kind(), ErrorKind::InvalidData);
        assert!(!wire.outgoing.is_empty());
    }

    /// Each asks for an answer, and none may pile up while the peer does not read.
    #[test]
    fn key_updates_are_answered_and_bounded() {
        let (mut server, mut client, mut wire) = pair(&Pins::new(1 << 20));
        wire.at_once = usize::MAX;
        let mut end = None;
        for _ in 0..100 {
            client.refresh_traffic_keys().unwrap();
            wire.exchange(&mut client);
            match server.read(&mut wire, &mut [0]).unwrap_err().kind() {
                ErrorKind::WouldBlock => {}
                kind => {
                    end = Some(kind);
                    break;
                }
            }
        }
        assert_eq!(end, Some(ErrorKind::InvalidData), "too many of them are an attack");
    }
}
