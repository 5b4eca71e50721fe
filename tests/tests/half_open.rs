//! Peers that vanish: a cable is pulled, and nobody says so. Whoever is left notices within the heartbeat's interval and
//! its timeout, and lets go of what it held; who comes back has lost nothing.

use std::io::Write;
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use longwire_tests::gateway::Gateway;
use longwire_tests::http::{self, Events};
use longwire_tests::network::Network;
use longwire_tests::process::Program;
use longwire_tests::ws::Socket;
use longwire_tests::{PATIENCE, longwire};
use serde_json::{Value, json};

/// Two seconds in all. (The system's own probes, which polls depend on, count whole seconds.)
const HEARTBEAT: [&str; 4] = ["--heartbeat", "1s", "--heartbeat-timeout", "1s"];

/// By when everything of a peer that has vanished has to be gone. Far more than two seconds, for a machine that is busy,
/// and far less than whatever else would end it: the answer of a poll (60 s), the system's retransmissions (15 min).
const GONE: Duration = Duration::from_secs(30);

fn gateway(network: &Network, heartbeat: [&str; 4]) -> Gateway {
    Gateway::listening(network.address(), &[&["--insecure"], &heartbeat[..]].concat())
}

/// Waits until nothing is left but who asks. Publishes meanwhile: to a vanished peer, too, something is under way.
fn wait_until_gone(gateway: &Gateway) {
    let start = Instant::now();
    let gauges = ["websockets", "sse", "waiting", "subscriptions"];
    loop {
        gateway.publish("busy", &json!(0));
        let left: Vec<_> = gauges.iter().map(|name| (*name, gateway.metric(name))).collect();
        // The request for the metrics is a connection itself.
        if left.iter().all(|(_, n)| *n == 0.0) && gateway.metric("connections") <= 1.0 {
            return;
        }
        assert!(start.elapsed() < GONE, "after {GONE:?} there are still {left:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A poll that waits for a minute.
fn long_poll(gateway: &Gateway) -> TcpStream {
    let mut stream = http::connect(gateway.address);
    let target = "/v1/stream?topic=quiet&since=now&wait=60";
    stream.write_all(http::head(gateway.address, "GET", target, &[], 0).as_bytes()).expect("it reads");
    stream
}

#[test]
fn peers_that_vanish_are_gone_after_interval_and_timeout() {
    let network = Network::make();
    let gateway = gateway(&network, HEARTBEAT);
    let address = gateway.address;
    let peers = network.inside(|| {
        let websocket = |topic: &str| {
            let mut socket = Socket::open(address, &format!("/v1/stream?topic={topic}"), &[]).expect("101");
            socket.envelope_of(&["caught_up"]);
            socket
        };
        let events = |topic: &str| {
            let mut events = Events::open(address, &format!("/v1/stream?topic={topic}"), &[]).expect("200");
            while events.next().expect("it goes on").name != "caught_up" {}
            events
        };
        let mut publisher = Socket::open(address, "/v1/stream", &[]).expect("101");
        publisher.send_json(&json!({"type": "pub", "n": 1, "topic": "busy", "data": 1}));
        publisher.envelope_of(&["ack"]);
        // In the middle of a publication.
        publisher.send_raw(&[0x81, 0xfe, 0x40, 0x00, 1, 2, 3, 4, b'{']);
        let mut post = http::connect(address);
        let head = http::head(address, "POST", "/v1/topics/busy", &[], 1000);
        post.write_all(head.as_bytes()).expect("it reads");
        (
            [websocket("quiet"), websocket("busy"), publisher],
            [events("quiet"), events("busy")],
            [long_poll(&gateway), post],
        )
    });
    while (gateway.metric("waiting"), gateway.metric("connections")) != (1.0, 8.0) {
        std::thread::yield_now();
    }
    network.cut();
    wait_until_gone(&gateway);
    assert_eq!(gateway.metric("timeouts"), 5.0);
    // The publication was refused when its body broke off, which nobody heard.
    assert_eq!(gateway.metric("vanished"), 1.0);
    drop(peers);
}

#[test]
fn the_round_trip_time_of_those_that_live_is_a_metric() {
    let network = Network::make();
    let gateway = gateway(&network, HEARTBEAT);
    let mut socket = Socket::open(gateway.address, "/v1/stream?topic=quiet", &[]).expect("101");
    let mut events = Events::open(gateway.address, "/v1/stream?topic=quiet", &[]).expect("200");
    for transport in ["websocket", "sse"] {
        let deadline = Instant::now() + PATIENCE;
        let of = |part: &str| {
            gateway.metric(&format!("rtt_seconds_{part}{{log=\"default\",transport=\"{transport}\"}}"))
        };
        while of("count") < 2.0 {
            assert!(Instant::now() < deadline, "no round trip over {transport}");
            // Answers Pings.
            assert_eq!(socket.envelope_of(&["tick"])["type"], "tick");
            assert!(events.next().is_some());
        }
        assert!(of("sum") < 60.0);
    }
    assert_eq!(gateway.metric("timeouts"), 0.0);
}

#[test]
fn the_memory_of_a_thousand_vanished_peers_is_given_back() {
    const PEERS: usize = 1000;
    let network = Network::make();
    // Nobody answers its Pings: there has to be time to open all of them.
    let gateway = gateway(&network, ["--heartbeat", "10s", "--heartbeat-timeout", "1s"]);
    let address = gateway.address;
    let before = gateway.program.resident();
    // Everything that stays once it was needed, has been needed after the first time.
    let (mut resident, mut occupied) = (Vec::new(), 0);
    for _ in 0..3 {
        let peers: Vec<Socket> = network.inside(|| {
            let target = "/v1/stream?topic=busy";
            (0..PEERS).map(|_| Socket::open(address, target, &[]).expect("101")).collect()
        });
        assert!(gateway.metric("websockets") > 0.9 * PEERS as f64, "it takes too long to open them");
        occupied = gateway.program.resident();
        network.cut();
        wait_until_gone(&gateway);
        drop(peers);
        network.mend();
        resident.push(gateway.program.resident());
    }
    eprintln!("resident before: {before}, with a thousand: {occupied}, after each thousand: {resident:?}");
    let grown = resident[2].saturating_sub(resident[0]);
    // What two thousand take, if it were not given back.
    let taken = 2 * occupied.saturating_sub(before);
    assert!(grown < taken / 4, "two thousand more have left {grown} of {taken} bytes: {resident:?}");
}

/// A subscriber at the other end of the cable that is cut off, and comes back.
fn comes_back(transport: &str) {
    let network = Network::make();
    let gateway = gateway(&network, HEARTBEAT);
    let (url, mut n) = (gateway.url(), 0);
    let mut publish = || {
        n += 1;
        gateway.publish("busy", &json!(n));
        n
    };
    publish();
    let subscriber = network.inside(|| {
        let mut command = longwire();
        Program::start(command.args(["sub", "busy", "--url", &url, "--transport", transport, "--json"]))
    });
    subscriber.wait_for_lines(1);
    publish();
    subscriber.wait_for("the second event", |line| (value(line) == 2).then_some(()));
    network.cut();
    // Some on their way into nowhere, then the end of its patience, and more that it cannot know of.
    publish();
    subscriber.wait_for_error("sign that it noticed", |line| line.contains("trying again").then_some(()));
    publish();
    network.mend();
    let last = publish();
    let mut seen = Vec::new();
    subscriber.wait_for("all events", |line| {
        seen.push(value(line));
        (value(line) == last).then_some(())
    });
    assert_eq!(seen, (1..=last).collect::<Vec<_>>(), "over {transport}");
}

/// The value of an event that `longwire sub --json` wrote.
fn value(line: &str) -> i64 {
    let event: Value = serde_json::from_str(line).expect("JSON");
    event["data"].as_i64().unwrap_or_else(|| panic!("{line}"))
}

#[test]
fn a_websocket_subscriber_notices_and_comes_back() {
    comes_back("ws");
}

#[test]
fn an_sse_subscriber_notices_and_comes_back() {
    comes_back("sse");
}

#[test]
fn a_long_poll_notices_and_comes_back() {
    comes_back("longpoll");
}

#[test]
fn a_poll_notices_and_comes_back() {
    comes_back("poll");
}

#[test]
fn a_publisher_notices_and_comes_back() {
    let network = Network::make();
    let gateway = gateway(&network, HEARTBEAT);
    let url = gateway.url();
    let mut publisher = network.inside(|| {
        let mut command = longwire();
        Program::start_with_stdin(command.args(["pub", "busy", "-", "--url", &url]), Stdio::piped())
    });
    let mut stdin = publisher.stdin();
    stdin.write_all(b"1\n").expect("it reads");
    while gateway.metric("published") < 1.0 {
        std::thread::yield_now();
    }
    network.cut();
    publisher.wait_for_error("word of it", |line| line.contains("nothing was heard for").then_some(()));
    network.mend();
    stdin.write_all(b"2\n").expect("it reads");
    drop(stdin);
    let ended = publisher.finish();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(gateway.metric("published"), 2.0);
}
