//! What a newcomer sees first: the demo starts, its fleet is on the page, and Ctrl-C leaves nothing behind.

use std::net::TcpStream;
use std::time::Duration;

use longwire_tests::gateway::Gateway;
use longwire_tests::http::Events;
use longwire_tests::process::Program;
use longwire_tests::ws::Socket;
use longwire_tests::{node, workspace};
use serde_json::Value;

/// The fleet that is asked for; this machine itself comes on top.
const DEVICES: &str = "8";
const TILES: &str = "9";

#[test]
fn every_device_is_on_the_page_within_five_seconds_and_no_change_of_transport_loses_one() {
    let demo = Gateway::demo(&["--devices", DEVICES]);
    let pictures = workspace().join("tests/out");
    std::fs::create_dir_all(&pictures).expect("a folder for the pictures");
    for scheme in [&[][..], &["--dark", "--switch"]] {
        let picture =
            pictures.join(if scheme.is_empty() { "dashboard-light.png" } else { "dashboard-dark.png" });
        let mut dashboard = node("browser/dashboard.mjs");
        dashboard.arg(demo.url()).arg(&picture).args(["--devices", TILES]).args(scheme);
        let dashboard = Program::run(&mut dashboard);
        assert!(dashboard.status.success(), "{dashboard:#?}");
        let stats: Value = serde_json::from_str(dashboard.stdout.last().expect("a line")).expect("JSON");
        let shown_after = stats["shown_after_ms"].as_u64().expect("all devices were shown");
        assert!(shown_after <= 5_000, "after {shown_after} ms: {stats}");
        assert_eq!((&stats["lost"], &stats["repeated"]), (&0.into(), &0.into()), "{stats}");
        assert_eq!(
            stats["switches"].as_array().map(Vec::len),
            Some(if scheme.is_empty() { 0 } else { 4 }),
            "{stats}"
        );
        assert!(picture.metadata().expect("the picture").len() > 10_000);
    }
}

#[test]
fn ctrl_c_ends_it_within_two_seconds_with_exit_code_0_and_leaves_nothing_behind() {
    let mut demo = Gateway::demo(&["--devices", DEVICES]);
    // Readers on a stream and on a socket do not hold it up.
    let mut events = Events::open(demo.address, "/v1/stream?topic=**&since=latest", &[]).expect("200");
    let mut socket = Socket::open(demo.address, "/v1/stream?topic=**&since=latest", &[]).expect("101");
    events.find(|event| event.name.is_empty()).expect("the fleet reports");
    socket.envelope_of(&["event"]);

    demo.program.interrupt();
    let status = demo.program.wait_within(Duration::from_secs(2));
    assert_eq!(status.code(), Some(0), "{}", demo.program.said());
    assert_eq!(demo.program.left(), Vec::<String>::new());
    assert!(TcpStream::connect(demo.address).is_err(), "the port is free");
    // Both were told, rather than cut off.
    assert!(events.any(|event| event.name == "bye"), "SSE gets a bye");
    assert_eq!(socket.close_code(), Some(1001), "a WebSocket gets its close code");
}
