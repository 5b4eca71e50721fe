//! The same over TLS, to a gateway that has a certificate; and to some that should not have it.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{SystemTime, UNIX_EPOCH};

use longwire_core::session::ladder::{LadderConfig, Rung, Rungs};
use longwire_embassy::{
    BadCertificate, Connect, Link, Nal, OnError, Present, Status, Tls, TlsBuffers, TlsConfig,
    TlsConnectError, Tokens, Trust, UplinkConfig, Why,
};
use longwire_tests::gateway::Gateway;
use longwire_tests::relay::Relay;
use longwire_tests::tls::{Authority, Credentials, NAME, params};
use rcgen::{SanType, date_time_ymd};
use serde_json::Value;

use super::host::{Host, Numbers, clock};
use super::{
    CBOR, Device, List, PLAIN, Setup, Turn, guarded_with, numbers, stored, up_and_down, went_well,
    with_device_over,
};

/// Bytes of the longest record, with its header (RFC 8446 section 5.2).
const LONGEST: usize = 16_645;
/// Enough for a handshake, and for commands.
const SMALL: usize = 2048;
const TX: usize = 512;

fn now() -> Option<u64> {
    Some(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs())
}

fn config<'a>(cas: &'a [&'a [u8]]) -> TlsConfig<'a> {
    TlsConfig { clock: now, ..TlsConfig::new(NAME, Trust::Cas(cas)) }
}

/// Why there was no link, each time.
type Reasons = RefCell<Vec<String>>;

/// Runs `test` beside a device that talks TLS to this port, and trusts this authority.
fn with_secure_device<const RX: usize, T: Tokens>(
    device: &Device,
    authority: &Authority,
    port: u16,
    setup: Setup<T>,
    reasons: &Reasons,
    test: impl FnOnce(&mut Turn<'_>),
) {
    let cas = [authority.der()];
    let mut buffers = [TlsBuffers::<RX, TX>::new(), TlsBuffers::new()];
    let lines = buffers.each_mut().map(|buffers| {
        let tcp = Nal::new(&device.host, &device.host, NAME, port);
        let tls = Tls::new(tcp, config(&cas), Numbers::from_env(), buffers);
        OnError::new(tls, |error| reasons.borrow_mut().push(error.to_string()))
    });
    // Without tokens a gateway listens to names of this machine only.
    with_device_over(lines, device, &format!("localhost:{port}"), setup, test);
}

#[test]
fn readings_go_up_and_commands_come_down_over_tls_on_every_rung() {
    static SSE: UplinkConfig = only(Rung::Sse);
    static LONG_POLL: UplinkConfig = only(Rung::LongPoll);
    static POLL: UplinkConfig = only(Rung::Poll);
    let _clock = clock();
    let authority = Authority::root("the root");
    let gateway = Gateway::secure(&authority, &[]);
    for (rung, config, listens) in [
        (Rung::WebSocket, &CBOR, true),
        (Rung::Sse, &SSE, true),
        (Rung::LongPoll, &LONG_POLL, true),
        (Rung::Poll, &POLL, false),
    ] {
        let (device, reasons) = (Device::new(), Reasons::default());
        let start = gateway.publish("test/start", &Value::Null);
        let (port, setup) = (gateway.address.port(), Setup { config, listens, ..PLAIN });
        with_secure_device::<LONGEST, _>(&device, &authority, port, setup, &reasons, |turn| {
            up_and_down(&device, &gateway, listens, turn);
        });
        went_well(&device, &gateway, &start, &[rung]);
        assert!(reasons.take().is_empty());
    }
}

const fn only(rung: Rung) -> UplinkConfig {
    UplinkConfig {
        ladder: LadderConfig { rungs: Rungs::only(rung), ..LadderConfig::new() },
        ..UplinkConfig::new()
    }
}

#[test]
fn bytes_may_come_one_by_one_and_a_small_buffer_is_enough_for_commands() {
    let _clock = clock();
    let authority = Authority::root("the root");
    let between = authority.signs(Authority::params("between"));
    let gateway = Gateway::secure_with(&between.issue(&params(NAME), &[&between]), Some(&authority), &[]);
    for pace in [1, 7] {
        let (mut device, reasons) = (Device::new(), Reasons::default());
        device.host.pace = Some(pace);
        let start = gateway.publish("test/start", &Value::Null);
        with_secure_device::<SMALL, _>(
            &device,
            &authority,
            gateway.address.port(),
            PLAIN,
            &reasons,
            |turn| {
                up_and_down(&device, &gateway, true, turn);
            },
        );
        went_well(&device, &gateway, &start, &[Rung::WebSocket]);
    }
}

#[test]
fn a_killed_gateway_is_found_again_and_what_none_acknowledged_arrives() {
    let _clock = clock();
    let authority = Authority::root("the root");
    let options = ["--reconnect-window=100ms"];
    let mut gateway = Gateway::secure(&authority, &options);
    let (device, reasons) = (Device::new(), Reasons::default());
    let relay = Relay::start(gateway.address);
    device.report(0..5);
    with_secure_device::<SMALL, _>(&device, &authority, relay.address.port(), PLAIN, &reasons, |turn| {
        turn(&|| device.is_empty());
        for round in 1..3u32 {
            // It says nothing to anybody, and its log is gone.
            drop(std::mem::replace(&mut gateway, Gateway::secure(&authority, &options)));
            device.report(round * 10..round * 10 + 5);
            turn(&|| matches!(device.seen.borrow().last(), Some(Status::Waiting(_))));
            let start = gateway.publish("test/start", &Value::Null);
            relay.set_target(gateway.address);
            turn(&|| device.is_empty());
            assert_eq!(stored(&gateway, &start, "device/7/n"), numbers(round * 10..round * 10 + 5));
        }
    });
    assert_eq!(device.readings.counts().acknowledged, 15);
    // What goes over the relay is encrypted, the topics with it.
    for tap in relay.taps() {
        let clear = |bytes: &[u8]| bytes.windows(8).any(|eight| eight == b"device/7");
        assert!(!clear(&tap.up) && !clear(&tap.down));
    }
}

#[test]
fn a_grant_is_renewed_over_tls_and_the_connection_goes_on() {
    let _clock = clock();
    let authority = Authority::root("the root");
    let gateway =
        guarded_with(&[("first", 10), ("second", 3600)], |options| Gateway::secure(&authority, options));
    let (device, asked, reasons) = (Device::new(), RefCell::default(), Reasons::default());
    let names = ["first", "second"].map(str::to_owned);
    let tokens = List { tokens: names.iter(), asked: &asked, last: String::new() };
    let setup = Setup { config: &CBOR, listens: true, tokens, present: Present::Head };
    with_secure_device::<SMALL, _>(&device, &authority, gateway.address.port(), setup, &reasons, |turn| {
        device.report(0..5);
        turn(&|| device.is_empty() && device.seen.borrow().contains(&Status::Renewed));
        device.report(5..10);
        turn(&|| device.is_empty());
    });
    assert_eq!(asked.take(), [Why::Connect, Why::Renew]);
    assert_eq!((device.host.connected.get(), device.readings.counts().acknowledged), (1, 10));
}

/// What a gateway may have in place of the right certificate, and what the device says about it.
fn wrong_certificates(root: &Authority) -> Vec<(Credentials, BadCertificate)> {
    let timed = |from: i32, to: i32| {
        let mut params = params(NAME);
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        params
    };
    let good = || params(NAME);
    let other = Authority::root("another root");
    // They would not be told apart by their names.
    let namesake = Authority::root("the root");
    let somebody = root.signs(params("somebody.test"));
    let mut old = Authority::params("an old intermediate");
    old.not_after = date_time_ymd(2020, 1, 1);
    let old = root.signs(old);
    let mut ca = Authority::params("a CA");
    ca.subject_alt_names = vec![SanType::DnsName(NAME.try_into().expect("a name"))];
    let mut client = params(NAME);
    client.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let between = root.signs(Authority::params("between"));
    vec![
        (other.gateway(), BadCertificate::UnknownIssuer),
        (namesake.gateway(), BadCertificate::WrongSignature),
        (root.issue(&params("other.test"), &[]), BadCertificate::OtherName),
        (root.issue(&timed(2001, 2020), &[]), BadCertificate::Expired),
        (root.issue(&timed(2040, 2050), &[]), BadCertificate::NotYetValid),
        (old.issue(&good(), &[&old]), BadCertificate::Expired),
        (somebody.issue(&good(), &[&somebody]), BadCertificate::IssuerMayNot),
        (root.issue(&ca, &[]), BadCertificate::IsCa),
        (root.issue(&client, &[]), BadCertificate::NotForServers),
        // The intermediate is missing.
        (between.gateway(), BadCertificate::UnknownIssuer),
    ]
}

#[test]
fn a_gateway_with_a_wrong_certificate_is_told_nothing_and_the_device_says_why() {
    let _clock = clock();
    let root = Authority::root("the root");
    for (files, why) in wrong_certificates(&root) {
        let gateway = Gateway::secure_with(&files, None, &[]);
        let relay = Relay::start(gateway.address);
        let (device, reasons) = (Device::new(), Reasons::default());
        device.report(0..5);
        with_secure_device::<SMALL, _>(&device, &root, relay.address.port(), PLAIN, &reasons, |turn| {
            // Also the second time.
            turn(&|| reasons.borrow().len() >= 2);
        });
        let said = format!("the gateway's certificate is refused: {why}");
        assert_eq!(reasons.take()[..2], [said.clone(), said]);
        assert_eq!((device.rungs().len(), device.readings.counts().waiting), (0, 5));
        for tap in relay.taps() {
            // One record, and one message in it: ClientHello.
            let [22, 3, _, high, low, 1, ..] = tap.up[..] else { panic!("{:?}", tap.up) };
            assert_eq!(tap.up.len(), 5 + usize::from(u16::from_be_bytes([high, low])), "{why:?}");
        }
    }
}

#[test]
fn a_device_without_a_clock_takes_any_time_and_nothing_else() {
    let root = Authority::root("the root");
    for (files, why) in wrong_certificates(&root) {
        let gateway = Gateway::secure_with(&files, None, &[]);
        let cas = [root.der()];
        let met = shake_hands(TlsConfig::new(NAME, Trust::Cas(&cas)), gateway.address.port());
        match (why, met) {
            (BadCertificate::Expired | BadCertificate::NotYetValid, Ok(())) => {}
            (why, Err(TlsConnectError::Certificate(said))) if said == why => {}
            (why, met) => panic!("{why:?}: {met:?}"),
        }
    }
}

#[test]
fn a_handshake_that_is_cut_anywhere_is_an_error() {
    let root = Authority::root("the root");
    let gateway = Gateway::secure(&root, &[]);
    let cas = [root.der()];
    let port = gateway.address.port();
    let mut cut = 0;
    while let Err(error) = {
        let host = Host { until: Some(cut), ..Host::default() };
        over(&host, config(&cas), port)
    } {
        assert!(matches!(error, TlsConnectError::Tls(_)), "{cut}: {error:?}");
        cut += 1;
    }
    println!("the gateway's side of a handshake has {cut} bytes");
    assert!((600..2000).contains(&cut), "{cut}");
}

fn shake_hands(config: TlsConfig<'_>, port: u16) -> Result<(), TlsConnectError<String>> {
    over(&Host::default(), config, port)
}

/// Opens a connection, and says something.
fn over(host: &Host, config: TlsConfig<'_>, port: u16) -> Result<(), TlsConnectError<String>> {
    let mut buffers = TlsBuffers::<SMALL, TX>::new();
    let tcp = Text(Nal::new(host, host, NAME, port));
    let mut tls = Tls::new(tcp, config, Numbers::from_env(), &mut buffers);
    let mut device = pin!(async {
        let mut link = tls.connect().await?;
        link.write(b"GET /healthz HTTP/1.1\r\n").await.expect("it takes this");
        link.flush().await.expect("and this");
        Ok(())
    });
    let begun = std::time::Instant::now();
    loop {
        if let Poll::Ready(end) = device.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return end;
        }
        assert!(begun.elapsed() < longwire_tests::PATIENCE, "it waits");
        // Nobody wakes it: the interval of a look.
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
}

/// A connector whose errors are text.
struct Text<C>(C);

impl<C: Connect> Connect for Text<C> {
    type Link<'a>
        = C::Link<'a>
    where
        Self: 'a;
    type Error = String;

    async fn connect(&mut self) -> Result<Self::Link<'_>, String> {
        self.0.connect().await.map_err(|error| format!("{error:?}"))
    }

    fn answered(&mut self) {
        self.0.answered();
    }
}
