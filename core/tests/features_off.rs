//! What is not there without the features `deflate` and `ladder`: `cargo test -p longwire-core --no-default-features --test
//! features_off`, a part of `tests/run test`.
#![cfg(not(any(feature = "deflate", feature = "ladder")))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that is wrong has to stop")]

use core::time::Duration;
use longwire_core::buf::{Io, RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::http::head::{HeadReader, Limits, Step as HeadStep};
use longwire_core::http::upgrade::{ClientUpgrade, Offer, ResponseError};
use longwire_core::http::write::WriteError;
use longwire_core::rand_core::{Infallible, TryRng};
use longwire_core::session::connector::{Action, Connector, ConnectorConfig, Event};
use longwire_core::session::ladder::{Ending, Rung};
use longwire_core::time::Instant;
use longwire_core::ws::{Client, Config, Connection, ProtocolError, Server};

/// Draws nothing but zeros.
struct Zeros;

impl TryRng for Zeros {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(0)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(0)
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        to.fill(0);
        Ok(())
    }
}

const NONCE: [u8; 16] = *b"the sample nonce";

#[test]
fn no_extension_can_be_offered() {
    let (mut bytes, mut cursor) = ([0; 512], TxCursor::default());
    let mut tx = TxBuf::new(&mut bytes, &mut cursor);
    let offer = Offer { extensions: Some("permessage-deflate"), ..Offer::new("a", "/") };
    let upgrade = ClientUpgrade::with_nonce(NONCE);
    assert_eq!(upgrade.write_request(&mut tx, &offer), Err(WriteError::Extension));
    assert_eq!(tx.pending(), b"");
    assert_eq!(upgrade.write_request(&mut tx, &Offer::new("a", "/")), Ok(()));
}

#[test]
fn no_extension_can_be_agreed_on() {
    // RFC 6455 section 1.3: the accept value of that nonce.
    const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    let check = |more: &str| {
        let (mut bytes, mut cursor) = ([0; 512], RxCursor::default());
        let mut rx = RxBuf::new(&mut bytes, &mut cursor);
        rx.fill(format!("{ANSWER}{more}\r\n").as_bytes());
        let HeadStep::Head(head) = HeadReader::default().poll_response(&mut rx, &Limits::DEFAULT).unwrap()
        else {
            panic!("the head is whole")
        };
        let response = head.view(rx.reborrow());
        ClientUpgrade::with_nonce(NONCE).check(&Offer::new("a", "/"), &response).map(drop)
    };
    assert_eq!(check(""), Ok(()));
    for extensions in ["permessage-deflate", "x", "", ","] {
        let field = format!("Sec-WebSocket-Extensions: {extensions}\r\n");
        assert_eq!(check(&field), Err(ResponseError::Extensions), "{extensions}");
    }
}

#[test]
fn a_compressed_frame_breaks_the_protocol() {
    let config = Config::new();
    let now = Instant::from_millis(0);
    let (mut rx, mut rx_at) = ([0; 256], RxCursor::default());
    let (mut tx, mut tx_at) = ([0; 256], TxCursor::default());
    let mut io = Io::new(RxBuf::new(&mut rx, &mut rx_at), TxBuf::new(&mut tx, &mut tx_at));
    io.rx.fill(b"\xc1\x01a");
    let mut client = Connection::new(Client(Zeros), &config, now);
    assert_eq!(client.poll(now, &mut io), Err(ProtocolError::ReservedBits));
    // Masked with zeros, so it can be read: 1002, and of a client no text.
    assert_eq!(io.tx.pending(), b"\x88\x82\0\0\0\0\x03\xea");

    let (mut rx, mut rx_at) = ([0; 256], RxCursor::default());
    let (mut tx, mut tx_at) = ([0; 256], TxCursor::default());
    let mut io = Io::new(RxBuf::new(&mut rx, &mut rx_at), TxBuf::new(&mut tx, &mut tx_at));
    io.rx.fill(b"\xc1\x81\0\0\0\0a");
    let mut server = Connection::new(Server, &config, now);
    assert_eq!(server.poll(now, &mut io), Err(ProtocolError::ReservedBits));
    assert_eq!(server.deflate(), None);
}

#[test]
fn a_connector_stays_on_websocket_whatever_happens() {
    let mut machine = Connector::new(ConnectorConfig::new(), None);
    let mut now = Instant::from_millis(1);
    let page = Ending::from_status(502, None);
    assert_eq!(machine.start(now), Action::Open(Rung::WebSocket));
    for ending in [page, Ending::Cut, Ending::Silent, Ending::Garbled, Ending::Cut, Ending::Cut, page, page] {
        machine.handle(Event::Reached, now, &mut Zeros);
        let Action::Wait(_) = machine.handle(Event::Ended(ending), now, &mut Zeros) else {
            panic!("{ending:?} is nothing that another rung could mend")
        };
        now = machine.poll_timeout().unwrap();
        assert_eq!(machine.handle_timeout(now, &mut Zeros), Action::Open(Rung::WebSocket), "{ending:?}");
    }
    machine.handle(Event::Reached, now, &mut Zeros);
    machine.handle(Event::Opened { heartbeat: None, window: None }, now, &mut Zeros);
    // Two hours, in which the default ladder would have looked up.
    for _ in 0..720 {
        now = now.after(Duration::from_secs(10));
        machine.handle(Event::Heard, now, &mut Zeros);
        assert_eq!(machine.handle_timeout(now, &mut Zeros), Action::Continue);
        assert_eq!(machine.rung(), Rung::WebSocket);
    }
}
