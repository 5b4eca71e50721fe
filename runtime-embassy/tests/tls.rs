//! TLS against rustls over a stream in memory, and with a shared secret against OpenSSL over TCP.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helper fails the test"
)]

mod common;

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use common::{Memory, Numbers, Once, Pace, Wire, clock, poll_times};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embedded_io_async::ErrorKind;
use longwire_embassy::{
    BadCertificate, Connect, Gateway, Link, Outbox, Policy, Tls, TlsBuffers, TlsConfig, TlsConnectError,
    TlsError, TlsLinkError, Trust, Uplink, UplinkConfig,
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};

/// 2026-06-01.
const NOW: u64 = 1_780_272_000;
const HELLO: &[u8] = b"hello, gateway";

/// Somebody who signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
    params
}

fn ca_params() -> CertificateParams {
    let mut params = params("ca.example");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn named_ca(name: &str) -> CertificateParams {
    named(ca_params(), name)
}

/// All others have one name.
fn named(mut params: CertificateParams, name: &str) -> CertificateParams {
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params
}

impl Authority {
    fn root() -> Self {
        let key = KeyPair::generate().unwrap();
        let der = ca_params().self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(ca_params(), key), der }
    }

    /// One that this one vouches for; whether it may be one is in `params`.
    fn signs(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let der = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), der }
    }

    /// A server with a certificate signed by this one, which shows `between` as well.
    fn server(&self, params: CertificateParams, between: &[&[u8]]) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        server(std::iter::once(leaf).chain(between.iter().map(|der| der.to_vec())).collect(), &key)
    }
}

/// A server with these certificates, its own first, and its key.
fn server(chain: Vec<Vec<u8>>, key: &KeyPair) -> Arc<ServerConfig> {
    server_of(&rustls::version::TLS13, chain, key)
}

fn server_of(
    version: &'static SupportedProtocolVersion,
    chain: Vec<Vec<u8>>,
    key: &KeyPair,
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            chain.into_iter().map(Into::into).collect(),
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        );
    Arc::new(config.unwrap())
}

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

#[track_caller]
fn accepted(config: TlsConfig<'_>, server: Arc<ServerConfig>) {
    assert_eq!(meet(config, server, None).unwrap().0, HELLO);
}

#[track_caller]
fn refused(config: TlsConfig<'_>, server: Arc<ServerConfig>, why: BadCertificate) {
    let met = meet(config, server, None);
    let said = match &met {
        Err(Failed::Connect(TlsConnectError::Certificate(why))) => Some(*why),
        _ => None,
    };
    assert_eq!(said, Some(why), "{met:?}");
}

#[test]
fn a_certificate_of_the_ca_is_accepted_with_and_without_intermediates() {
    let root = Authority::root();
    accepted(config(&[&root.der]), root.server(params("gateway.example"), &[]));
    let between = root.signs(ca_params());
    accepted(config(&[&root.der]), between.server(params("gateway.example"), &[&between.der]));
    // Any of several CAs; a name with a star; an address.
    let other = Authority::root();
    accepted(config(&[&other.der, &root.der]), root.server(params("gateway.example"), &[]));
    let cas = [&root.der[..]];
    let named = |server_name| TlsConfig { server_name, ..config(&cas) };
    accepted(named("gw.fleet.example"), root.server(params("*.fleet.example"), &[]));
    accepted(named("192.0.2.1"), root.server(params("192.0.2.1"), &[]));
}

/// A DNS name has 253 bytes at most (RFC 1035 section 3.1, without the lengths at its ends): they go into the ClientHello, which has
/// room in the smallest buffer.
#[test]
fn a_name_may_be_as_long_as_dns_has_them() {
    let root = Authority::root();
    let name = [63, 63, 63, 61].map(|len| "n".repeat(len)).join(".");
    let cas = [&root.der[..]];
    accepted(TlsConfig { server_name: &name, ..config(&cas) }, root.server(params(&name), &[]));
    for none in [format!("{name}n"), format!("{}.example", "n".repeat(64)), String::new()] {
        let config = TlsConfig { server_name: &none, ..config(&cas) };
        assert!(meet(config, root.server(params("gateway.example"), &[]), None).is_err(), "{none}");
    }
}

#[test]
fn a_certificate_of_another_ca_is_refused() {
    let (root, other) = (Authority::root(), Authority::root());
    // Both have the same name.
    refused(
        config(&[&root.der]),
        other.server(params("gateway.example"), &[]),
        BadCertificate::WrongSignature,
    );
    refused(
        config(&[&root.der]),
        other.server(params("gateway.example"), &[&other.der]),
        BadCertificate::WrongSignature,
    );
    let named = other.signs(named_ca("another"));
    refused(
        config(&[&root.der]),
        named.server(params("gateway.example"), &[]),
        BadCertificate::UnknownIssuer,
    );
    refused(config(&[]), root.server(params("gateway.example"), &[&root.der]), BadCertificate::UnknownIssuer);
}

#[test]
fn a_ca_that_is_none_and_one_too_many_are_mistakes_of_the_device() {
    let root = Authority::root();
    let fail = |cas: &[&[u8]]| match meet(config(cas), root.server(params("gateway.example"), &[]), None) {
        Err(Failed::Connect(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(fail(&[&root.der, b"no certificate"]), TlsConnectError::BadCa(1)));
    assert!(matches!(fail(&[&root.der[..]; 5]), TlsConnectError::TooManyCas));
    accepted(config(&[&root.der[..]; 4]), root.server(params("gateway.example"), &[]));
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let root = Authority::root();
    for name in [
        "other.example",
        "gateway.example.com",
        "example",
        "a.gateway.example",
        "*.gateway.example",
        "192.0.2.1",
    ] {
        refused(config(&[&root.der]), root.server(params(name), &[]), BadCertificate::OtherName);
    }
    // A common name is no subject alternative name.
    let mut named = CertificateParams::default();
    named.distinguished_name.push(rcgen::DnType::CommonName, "gateway.example");
    (named.not_before, named.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
    refused(config(&[&root.der]), root.server(named, &[]), BadCertificate::OtherName);
}

#[test]
fn a_certificate_out_of_its_time_is_refused_by_whoever_knows_the_time() {
    let root = Authority::root();
    for (from, to, why) in [
        ((2025, 1, 1), (2026, 5, 31), BadCertificate::Expired),
        ((2026, 6, 2), (2027, 1, 1), BadCertificate::NotYetValid),
    ] {
        let mut params = params("gateway.example");
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(to.0, to.1, to.2);
        let server = root.server(params, &[]);
        refused(config(&[&root.der]), server.clone(), why);
        let cas = [&root.der[..]];
        accepted(TlsConfig::new("gateway.example", Trust::Cas(&cas)), server);
    }
    // An intermediate's time counts as well.
    let mut old = ca_params();
    old.not_after = date_time_ymd(2026, 5, 31);
    let between = root.signs(old);
    refused(
        config(&[&root.der]),
        between.server(params("gateway.example"), &[&between.der]),
        BadCertificate::Expired,
    );
    let root_der = [&root.der[..]];
    let timeless = TlsConfig::new("gateway.example", Trust::Cas(&root_der));
    accepted(timeless, between.server(params("gateway.example"), &[&between.der]));
}

#[test]
fn whoever_has_some_certificate_of_the_ca_cannot_make_the_gateways() {
    let root = Authority::root();
    let somebody = root.signs(named(params("somebody.example"), "somebody"));
    refused(
        config(&[&root.der]),
        somebody.server(params("gateway.example"), &[&somebody.der]),
        BadCertificate::IssuerMayNot,
    );
    let mut client = params("gateway.example");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    refused(config(&[&root.der]), root.server(client, &[]), BadCertificate::NotForServers);
    let mut narrow = named_ca("narrow");
    narrow.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let narrow = root.signs(narrow);
    accepted(config(&[&root.der]), narrow.server(params("gateway.example"), &[&narrow.der]));
    let below = narrow.signs(named_ca("below"));
    refused(
        config(&[&root.der]),
        below.server(params("gateway.example"), &[&below.der, &narrow.der]),
        BadCertificate::IssuerMayNot,
    );
}

#[test]
fn a_certificate_of_a_ca_is_no_servers() {
    let root = Authority::root();
    let mut params = ca_params();
    params.subject_alt_names = vec![rcgen::SanType::DnsName("gateway.example".try_into().unwrap())];
    refused(config(&[&root.der]), root.server(params, &[]), BadCertificate::IsCa);
}

#[test]
fn other_keys_than_those_of_p256_are_refused() {
    let root = Authority::root();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let leaf = params("gateway.example").signed_by(&key, &root.issuer).unwrap();
    refused(config(&[&root.der]), server(vec![leaf.der().to_vec()], &key), BadCertificate::Algorithm);
}

#[test]
fn a_chain_has_a_gateway_six_intermediates_and_no_more() {
    let root = Authority::root();
    let mut chain = Vec::<Authority>::new();
    for n in 0..6 {
        let below = chain.last().unwrap_or(&root).signs(named_ca(&n.to_string()));
        chain.push(below);
    }
    let ders: Vec<&[u8]> = chain.iter().rev().map(|ca| &ca.der[..]).collect();
    let last = chain.last().unwrap();
    let wide = |config| meet_with::<8192>(config, last.server(params("gateway.example"), &ders), None);
    assert_eq!(wide(config(&[&root.der])).unwrap().0, HELLO);
    let long = [&ders[..], &[&root.der]].concat();
    let met = meet_with::<8192>(config(&[&root.der]), last.server(params("gateway.example"), &long), None);
    let why = matches!(met, Err(Failed::Connect(TlsConnectError::Certificate(BadCertificate::TooLong))));
    assert!(why, "{met:?}");
}

/// Intermediates with the name of the CA, each with a key of its own: any of them may have issued any other, in two thousand ways.
#[test]
fn a_chain_that_asks_for_many_signatures_is_given_up_soon() {
    let (root, other) = (Authority::root(), Authority::root());
    let many: Vec<Authority> = (0..6).map(|_| other.signs(ca_params())).collect();
    let ders: Vec<&[u8]> = many.iter().map(|ca| &ca.der[..]).collect();
    let server = many[0].server(params("gateway.example"), &ders);
    let cas = [&root.der[..]];
    let timeless = TlsConfig::new("gateway.example", Trust::Cas(&cas));
    for config in [config(&cas), timeless] {
        let met = meet_with::<8192>(config, server.clone(), None);
        let why = matches!(met, Err(Failed::Connect(TlsConnectError::Certificate(BadCertificate::TooLong))));
        assert!(why, "{met:?}");
    }
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

/// TCP, for a test that may block.
struct Blocking(TcpStream);

impl Link for Blocking {
    type Error = std::io::Error;

    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, std::io::Error> {
        self.0.read(bytes)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<usize, std::io::Error> {
        self.0.write(bytes)
    }
}

struct Dial(u16);

impl Connect for Dial {
    type Link<'a> = Blocking;
    type Error = Infallible;

    async fn connect(&mut self) -> Result<Blocking, Infallible> {
        for _ in 0..600 {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", self.0)) {
                stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
                return Ok(Blocking(stream));
            }
            // It has not begun to listen yet.
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("OpenSSL does not listen")
    }
}

/// Against `openssl s_server`, which says what it hears backwards.
fn meet_openssl(key: &[u8], server_key: &str) -> Result<Vec<u8>, TlsConnectError<Infallible>> {
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let mut server = Command::new("openssl")
        .args(["s_server", "-quiet", "-rev", "-nocert", "-tls1_3", "-accept", &format!("127.0.0.1:{port}")])
        .args(["-psk_identity", "device-7", "-psk", server_key])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let mut buffers = TlsBuffers::<2048, 512>::new();
    let config = TlsConfig::new("gateway.example", Trust::Psk { identity: b"device-7", key });
    let mut tls = Tls::new(Dial(port), config, Numbers(3), &mut buffers);
    let device = async {
        let mut link = tls.connect().await?;
        link.write(b"abc\n").await.unwrap();
        link.flush().await.unwrap();
        let (mut heard, mut some) = (Vec::new(), [0; 9]);
        while heard.len() < 4 {
            let n = link.read(&mut some).await.unwrap();
            heard.extend(&some[..n]);
        }
        Ok(heard)
    };
    let outcome = match pin!(device).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("nothing here waits"),
    };
    server.kill().unwrap();
    server.wait().unwrap();
    outcome
}

#[test]
fn a_shared_secret_opens_a_connection_and_another_does_not() {
    let key: Vec<u8> = (1..=16).collect();
    let hex = "0102030405060708090a0b0c0d0e0f10";
    assert_eq!(meet_openssl(&key, hex).unwrap(), b"cba\n");
    assert!(meet_openssl(&key, "1102030405060708090a0b0c0d0e0f10").is_err());
}

#[test]
fn who_shares_a_secret_takes_no_certificate_for_it() {
    let root = Authority::root();
    let trust = Trust::Psk { identity: b"device-7", key: &[7; 16] };
    let met =
        meet(TlsConfig::new("gateway.example", trust), root.server(params("gateway.example"), &[]), None);
    assert!(matches!(met, Err(Failed::Connect(_))), "{met:?}");
}
