//! TLS against rustls over a stream in memory, and with a shared secret against OpenSSL.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helper fails the test"
)]

mod authority;
mod certificates;
#[path = "../common/mod.rs"]
mod common;
mod shared_secret;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use authority::{Authority, params, server_of};
use common::{Memory, Numbers, Once, Pace, Wire, clock, poll_times};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embedded_io_async::ErrorKind;
use longwire_embassy::{
    Connect, Gateway, Link, OnError, Outbox, Policy, Tls, TlsBuffers, TlsConfig, TlsConnectError, TlsError,
    TlsLinkError, Trust, Uplink, UplinkConfig,
};
use rcgen::KeyPair;
use rustls::{ServerConfig, ServerConnection};

/// 2026-06-01.
const NOW: u64 = 1_780_272_000;
const HELLO: &[u8] = b"hello, gateway";

/// What becomes of a byte at a place; `None`: it is lost.
type Harm = Box<dyn Fn(usize, u8) -> Option<u8>>;

/// The server's end. What it reads, it says.
struct Echo {
    wire: Rc<RefCell<Wire>>,
    tls: ServerConnection,
    heard: Vec<u8>,
    /// What happens to a byte that it sends, by its position.
    harm: Harm,
    sent: usize,
}

impl Echo {
    fn new(link: &Memory, config: Arc<ServerConfig>) -> Self {
        let tls = ServerConnection::new(config).unwrap();
        let harm = Box::new(|_, byte| Some(byte));
        Self { wire: link.wire.clone(), tls, heard: Vec::new(), harm, sent: 0 }
    }

    fn turn(&mut self) {
        let came = std::mem::take(&mut self.wire.borrow_mut().from_client);
        let mut came = &came[..];
        while !came.is_empty() {
            self.tls.read_tls(&mut came).unwrap();
            if self.tls.process_new_packets().is_err() {
                // It says so, and hears no more.
                break;
            }
            let mut plain = Vec::new();
            let _ = self.tls.reader().read_to_end(&mut plain);
            self.tls.writer().write_all(&plain).unwrap();
            self.heard.extend(plain);
        }
        let mut out = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut out).unwrap();
        }
        for byte in out {
            let mut wire = self.wire.borrow_mut();
            match (self.harm)(self.sent, byte) {
                Some(byte) if !wire.ended => wire.to_client.push_back(byte),
                _ => wire.ended = true,
            }
            self.sent += 1;
        }
    }
}

/// A device that trusts a CA, and a server with a certificate of it, at the ends of a link that moves `pace` bytes at once.
fn together(pace: usize, test: impl FnOnce(Tls<'_, Once, Numbers, 2048, 512>, &mut Echo)) {
    let root = Authority::root();
    let link = Memory::new(Pace::Bytes(pace));
    let mut server = Echo::new(&link, root.server(params("gateway.example"), &[]));
    let mut buffers = TlsBuffers::new();
    let cas = [&root.der[..]];
    test(Tls::new(Once(Some(link)), config(&cas), Numbers(1), &mut buffers), &mut server);
}

/// How it went for the device.
#[derive(Debug)]
enum Failed {
    Connect(TlsConnectError<()>),
    Link(#[expect(dead_code, reason = "shown when a test fails")] TlsLinkError),
    End,
}

async fn greet<L: Link<Error = TlsLinkError>>(link: &mut L) -> Result<Vec<u8>, Failed> {
    let mut left = HELLO;
    while !left.is_empty() {
        let n = link.write(left).await.map_err(Failed::Link)?;
        left = &left[n..];
    }
    link.flush().await.map_err(Failed::Link)?;
    let (mut answer, mut some) = (Vec::new(), [0; 5]);
    while answer.len() < HELLO.len() {
        match link.read(&mut some).await.map_err(Failed::Link)? {
            0 => return Err(Failed::End),
            n => answer.extend(&some[..n]),
        }
    }
    Ok(answer)
}

/// Runs both ends until the device is done; `None` when they wait for each other.
fn try_run<F: Future>(device: F, server: &mut Echo) -> Option<F::Output> {
    let mut device = pin!(device);
    let mut quiet = 0;
    while quiet < 10 {
        if let Some(output) = poll_times(device.as_mut(), 20) {
            return Some(output);
        }
        server.turn();
        let wire = server.wire.borrow();
        quiet = if wire.to_client.is_empty() && wire.from_client.is_empty() { quiet + 1 } else { 0 };
    }
    None
}

fn run<F: Future>(device: F, server: &mut Echo) -> F::Output {
    try_run(device, server).expect("they wait for each other")
}

/// The device says hello, and hears what it said.
fn meet(
    config: TlsConfig<'_>,
    server: Arc<ServerConfig>,
    harm: Option<Harm>,
) -> Result<(Vec<u8>, usize), Failed> {
    meet_with::<2048>(config, server, harm)
}

fn meet_with<const RX: usize>(
    config: TlsConfig<'_>,
    server: Arc<ServerConfig>,
    harm: Option<Harm>,
) -> Result<(Vec<u8>, usize), Failed> {
    let link = Memory::new(Pace::Bytes(200));
    let mut server = Echo::new(&link, server);
    if let Some(harm) = harm {
        server.harm = harm;
    }
    let mut buffers = TlsBuffers::<RX, 512>::new();
    let mut tls = Tls::new(Once(Some(link)), config, Numbers(1), &mut buffers);
    let device = async {
        let mut link = tls.connect().await.map_err(Failed::Connect)?;
        greet(&mut link).await
    };
    let answer = try_run(device, &mut server).unwrap_or(Err(Failed::End))?;
    Ok((answer, server.sent))
}

fn config<'a>(cas: &'a [&'a [u8]]) -> TlsConfig<'a> {
    TlsConfig { clock: || Some(NOW), ..TlsConfig::new("gateway.example", Trust::Cas(cas)) }
}

#[test]
fn a_gateway_that_speaks_tls_1_2_at_most_says_so() {
    let root = Authority::root();
    let key = KeyPair::generate().unwrap();
    let leaf = params("gateway.example").signed_by(&key, &root.issuer).unwrap().der().to_vec();
    let server = server_of(&rustls::version::TLS12, vec![leaf], &key);
    let met = meet(config(&[&root.der]), server, None);
    let Err(Failed::Connect(error)) = met else { panic!("{met:?}") };
    assert_eq!(error.to_string(), "the TLS handshake failed: HandshakeAborted(Fatal, ProtocolVersion)");
}

/// RFC 8446 section 5.1 lets a server do that; embedded-tls does not put them together.
#[test]
fn a_message_of_the_handshake_in_several_records_is_an_error() {
    let root = Authority::root();
    let mut spread = ServerConfig::clone(&root.server(params("gateway.example"), &[]));
    spread.max_fragment_size = Some(256);
    let met = meet(config(&[&root.der]), Arc::new(spread.clone()), None);
    assert!(matches!(met, Err(Failed::Connect(TlsConnectError::Tls(_)))), "{met:?}");
    // Each of its messages in one.
    spread.max_fragment_size = Some(1024);
    assert_eq!(meet(config(&[&root.der]), Arc::new(spread), None).unwrap().0, HELLO);
}

#[test]
fn who_speaks_no_tls_is_refused_at_its_first_bytes() {
    let root = Authority::root();
    let cas = [&root.der[..]];
    for said in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"SSH-2.0-x\r\n", &[0; 5], &[24, 3, 3, 0, 1]] {
        let link = Memory::new(Pace::Bytes(200));
        link.wire.borrow_mut().to_client.extend(said);
        let mut buffers = TlsBuffers::<2048, 512>::new();
        let mut tls = Tls::new(Once(Some(link)), config(&cas), Numbers(1), &mut buffers);
        let met = poll_times(tls.connect(), 1000).expect("five bytes are enough");
        let refused = matches!(met, Err(TlsConnectError::Tls(TlsError::Io(ErrorKind::InvalidData))));
        assert!(refused, "{said:?}: {:?}", met.err());
    }
}

#[test]
fn a_handshake_that_was_changed_anywhere_fails() {
    let root = Authority::root();
    let server = root.server(params("gateway.example"), &[]);
    let (_, whole) = meet(config(&[&root.der]), server.clone(), None).unwrap();
    let mut failed = 0;
    for at in 0..whole {
        let bits = if at % 2 == 0 { 0x10 } else { 0xff };
        let flip = move |n, byte: u8| Some(if n == at { byte ^ bits } else { byte });
        match meet(config(&[&root.der]), server.clone(), Some(Box::new(flip))) {
            // The version of an unencrypted record and the record that means nothing any more (ChangeCipherSpec) are not
            // looked at; no other data comes of it.
            Ok((answer, _)) => assert_eq!(answer, HELLO, "byte {at}"),
            Err(_) => failed += 1,
        }
    }
    assert!(failed > whole * 9 / 10, "{failed} of {whole}");
}

#[test]
fn a_connection_that_ends_anywhere_is_an_error() {
    let root = Authority::root();
    let server = root.server(params("gateway.example"), &[]);
    let (_, whole) = meet(config(&[&root.der]), server.clone(), None).unwrap();
    for at in (0..whole).step_by(11) {
        let met = meet(
            config(&[&root.der]),
            server.clone(),
            Some(Box::new(move |n, byte| (n < at).then_some(byte))),
        );
        assert!(met.is_err(), "byte {at}");
    }
}

#[test]
fn an_unencrypted_alert_does_not_end_a_connection_as_if_the_gateway_had_said_so() {
    together(200, |mut tls, server| {
        let wire = server.wire.clone();
        let end = run(
            async {
                let mut link = tls.connect().await.unwrap();
                assert_eq!(greet(&mut link).await.unwrap(), HELLO);
                // close_notify, by anybody.
                wire.borrow_mut().to_client.extend([21, 3, 3, 0, 2, 1, 0]);
                link.read(&mut [0; 9]).await
            },
            server,
        );
        assert!(matches!(end, Err(TlsLinkError::Tls(_))), "{end:?}");
    });
}

#[test]
fn nothing_of_a_handshake_comes_unencrypted_behind_the_servers_hello() {
    let mut numbers = Numbers(7);
    for kind in [2, 4, 8, 11, 13, 15, 20, 24] {
        together(200, |mut tls, server| {
            let wire = server.wire.clone();
            let mut connect = pin!(tls.connect());
            assert!(poll_times(connect.as_mut(), 20).is_none());
            server.turn();
            let len = numbers.below(40);
            let mut wire = wire.borrow_mut();
            // ServerHello alone, and a message that anybody can write.
            let hello = 5 + usize::from(u16::from_be_bytes([wire.to_client[3], wire.to_client[4]]));
            wire.to_client.truncate(hello);
            wire.to_client.extend([
                22,
                3,
                3,
                0,
                u8::try_from(len + 4).unwrap(),
                kind,
                0,
                0,
                u8::try_from(len).unwrap(),
            ]);
            wire.to_client.extend((0..len).map(|_| u8::try_from(numbers.below(256)).unwrap()));
            wire.ended = true;
            drop(wire);
            let met = poll_times(connect.as_mut(), 1000).unwrap();
            let refused = matches!(met, Err(TlsConnectError::Tls(TlsError::Io(ErrorKind::InvalidData))));
            assert!(refused, "{kind}: {:?}", met.err());
        });
    }
}

#[test]
fn a_record_above_the_buffer_ends_the_connection() {
    together(200, |mut tls, server| {
        let end = {
            let mut link = run(tls.connect(), server).unwrap();
            server.tls.writer().write_all(&[7; 2048]).unwrap();
            server.turn();
            run(link.read(&mut [0; 9]), server)
        };
        assert!(matches!(end, Err(TlsLinkError::Tls(_))), "{end:?}");
    });
}

#[test]
fn a_gateway_that_changes_its_keys_ends_the_connection() {
    together(200, |mut tls, server| {
        let end = {
            let mut link = run(tls.connect(), server).unwrap();
            assert_eq!(run(greet(&mut link), server).unwrap(), HELLO);
            server.tls.refresh_traffic_keys().unwrap();
            server.tls.writer().write_all(HELLO).unwrap();
            server.turn();
            run(link.read(&mut [0; 9]), server)
        };
        assert!(matches!(end, Err(TlsLinkError::Tls(TlsError::Unimplemented))), "{end:?}");
    });
}

#[test]
fn reads_that_are_dropped_lose_nothing() {
    together(3, |mut tls, server| {
        let mut link = run(tls.connect(), server).unwrap();
        let sent: Vec<u8> = (0..=u8::MAX).collect();
        server.tls.writer().write_all(&sent).unwrap();
        server.turn();
        let (mut heard, mut some) = (Vec::<u8>::new(), [0; 16]);
        while heard.len() < sent.len() {
            // One look at a time, each with a future of its own.
            if let Some(read) = poll_times(link.read(&mut some), 1) {
                heard.extend(&some[..read.unwrap()]);
            }
        }
        assert_eq!(heard, sent);
    });
}

#[test]
fn a_write_that_was_dropped_ends_the_connection() {
    together(200, |mut tls, server| {
        let wire = server.wire.clone();
        let mut link = run(tls.connect(), server).unwrap();
        wire.borrow_mut().stuck = true;
        assert_eq!(run(link.write(HELLO), server).unwrap(), HELLO.len());
        assert!(poll_times(link.flush(), 3).is_none());
        wire.borrow_mut().stuck = false;
        assert!(matches!(run(link.flush(), server), Err(TlsLinkError::Torn)));
        assert!(matches!(run(link.write(HELLO), server), Err(TlsLinkError::Torn)));
    });
}

#[test]
fn an_uplink_runs_over_tls() {
    static CONFIG: UplinkConfig = UplinkConfig::new();
    let (_guard, _clock) = clock();
    together(200, |tls, server| {
        let outbox = Outbox::<NoopRawMutex, 64>::new(Policy::DropOldest);
        let (mut rx, mut tx) = ([0; 512], [0; 512]);
        let gateway = Gateway::new("gateway.example");
        let mut uplink = Uplink::new(tls, gateway, &CONFIG, Numbers(2), &mut rx, &mut tx);
        let mut run = pin!(uplink.run(&outbox, |_| {}));
        for _ in 0..1000 {
            assert!(poll_times(run.as_mut() as std::pin::Pin<&mut dyn Future<Output = _>>, 20).is_none());
            server.turn();
            if server.heard.ends_with(b"\r\n\r\n") {
                break;
            }
        }
        let request = String::from_utf8(std::mem::take(&mut server.heard)).unwrap();
        assert!(request.starts_with("GET /v1/stream?publisher="), "{request:?}");
    });
}

/// Counts how often it was told so.
struct Answered<'c>(&'c Cell<u32>);

impl Connect for Answered<'_> {
    type Link<'a>
        = Memory
    where
        Self: 'a;
    type Error = ();

    async fn connect(&mut self) -> Result<Memory, ()> {
        Err(())
    }

    fn answered(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn the_connector_below_is_told_where_somebody_answered() {
    let (times, mut buffers) = (Cell::new(0), TlsBuffers::<2048, 512>::new());
    let tls = Tls::new(Answered(&times), config(&[]), Numbers(1), &mut buffers);
    OnError::new(tls, |_: &_| {}).answered();
    assert_eq!(times.get(), 1);
}
