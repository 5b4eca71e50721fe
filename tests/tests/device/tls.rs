//! The emulated device over TLS: a gateway that it can trust, and some that it cannot.

use std::time::{Duration, Instant, UNIX_EPOCH};

use longwire_tests::PATIENCE;
use longwire_tests::device::{Board, Device};
use longwire_tests::gateway::Gateway;
use longwire_tests::relay::Relay;
use longwire_tests::rng::Rng;
use longwire_tests::tls::{self, Authority, Temporary};
use serde_json::Value;

use super::{LONG, beginning, check_stack, start, stored};

/// The gateway's certificate is for `localhost`.
fn secure_gateway(authority: &Authority) -> Gateway {
    Gateway::secure(authority, &["--reconnect-window=500ms", "--history-events=5000"])
}

/// What a device that speaks TLS is told: whom to trust, and how late it is.
fn secured(settings: &str, ca: &Temporary) -> String {
    let now = UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    format!("{settings} ca={} time={now}", ca.path())
}

/// Waits until the gateway has so many of these.
fn wait_until_stored(device: &Device, count: usize, stored: impl Fn() -> usize) {
    let deadline = Instant::now() + PATIENCE;
    while stored() < count {
        assert!(Instant::now() < deadline, "{count} readings:\n{}", device.program.said());
        // The interval of a look.
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn readings_arrive_over_tls_once_and_in_order_over_a_bad_link_that_is_cut() {
    const READINGS: u64 = 300;
    let board = Board::Mps2Tls;
    let authority = Authority::root("the root");
    let (gateway, ca) = (secure_gateway(&authority), authority.file());
    let start_at = beginning(&gateway);
    let relay = Relay::start(gateway.address);
    let mut rng = Rng::from_env();
    let settings = format!("readings={READINGS} interval=10 waiting=40 loss=5 cap=1000 heartbeat=3000");
    let device = start(board, &relay, &secured(&settings, &ca));
    let numbers = || stored(&gateway, &start_at, &format!("device/{}/number", board.name()));
    for cut in 0..4 {
        wait_until_stored(&device, 20 + 60 * cut + rng.below(40) as usize, || numbers().len());
        if cut % 2 == 0 {
            relay.cut();
        } else {
            device.set_link(false);
        }
        // How long the fault lasts.
        std::thread::sleep(Duration::from_millis(50 + rng.below(1200)));
        relay.mend();
        device.set_link(true);
    }
    let ended = device.finish_within(LONG);
    assert!(ended.status.success(), "{ended:#?}");
    assert_eq!(numbers(), (1..=READINGS).map(Value::from).collect::<Vec<_>>(), "{ended:#?}");
    let taps = relay.taps();
    assert!(taps.len() >= 3, "two were cut");
    // Nobody in between reads along.
    assert!(!taps.iter().any(|tap| tap.up.windows(7).any(|seven| seven == b"device/")));
    check_stack(board, &gateway, &start_at);
}

#[test]
fn a_device_refuses_a_gateway_with_a_wrong_certificate_and_says_why() {
    let board = Board::Mps2Tls;
    let (authority, other) = (Authority::root("the root"), Authority::root("another root"));
    let ca = authority.file();
    let (good, strange) = (secure_gateway(&authority), secure_gateway(&other));
    let mut old = tls::params("localhost");
    old.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let expired = Gateway::secure_with(&authority.issue(&old, &[]), None, &[]);
    let named = Gateway::secure_with(&authority.issue(&tls::params("other.test"), &[]), None, &[]);
    let start_at = beginning(&good);
    let relay = Relay::start(strange.address);
    let device = start(board, &relay, &secured("interval=50 cap=200", &ca));
    let refused = |gateway: &Gateway, why: &str| {
        relay.set_target(gateway.address);
        let line = format!("the gateway's certificate is refused: {why}");
        device.wait_for(why, |said| (said == line).then_some(()));
    };
    refused(&strange, "no CA of this device has issued it");
    refused(&expired, "it has expired");
    refused(&named, "it is for another name");
    for tap in relay.taps() {
        // One record: ClientHello.
        let [22, 3, _, high, low, 1, ..] = tap.up[..] else { panic!("{:?}", tap.up) };
        assert_eq!(tap.up.len(), 5 + usize::from(u16::from_be_bytes([high, low])));
    }
    relay.set_target(good.address);
    let uptimes = || stored(&good, &start_at, &format!("device/{}/uptime", board.name())).len();
    wait_until_stored(&device, 3, uptimes);
}
