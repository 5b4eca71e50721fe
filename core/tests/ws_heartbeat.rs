//! Whether a silent peer lives: pings, deadlines, and what counts as a sign of life. All in virtual time.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong has to stop"
)]

mod common;

use common::{AnyClient, End, Endpoint, Flush, Pair, Wire, millis};
use longwire_core::ws::{CloseCause, CloseCode, Config, Heartbeat, MIN_TX, Server};
use std::time::Duration;

/// A Ping after 30 s of silence, 10 s for a sign of life. The clock of an endpoint starts at 1 s.
fn config() -> Config {
    let heartbeat = Heartbeat { interval: Duration::from_secs(30), timeout: Duration::from_secs(10) };
    Config { heartbeat: Some(heartbeat), ..Config::new() }
}

fn due<R: End>(endpoint: &Endpoint<R>) -> Option<u64> {
    endpoint.connection.poll_timeout().map(|at| at.as_millis())
}

/// First bytes of what was sent.
fn sent<R: End>(endpoint: &mut Endpoint<R>) -> Vec<u8> {
    endpoint.frames().iter().map(|frame| frame.b0).collect()
}

fn silence<R: End>() {
    let mut endpoint = Endpoint::<R>::new(config());
    assert_eq!(due(&endpoint), Some(31_000));
    assert_eq!(sent(endpoint.at(30_999)), []);
    assert_eq!(sent(endpoint.at(31_000)), [0x89]);
    assert_eq!(due(&endpoint), Some(41_000));
    // Called too early, and often: one Ping.
    assert_eq!(sent(endpoint.at(31_000).at(35_000).at(40_999)), [0x89]);
    assert_eq!(endpoint.closed, None);
    assert_eq!(endpoint.at(41_000).closed, Some(CloseCause::Timeout));
    let frames = endpoint.frames();
    assert_eq!(frames.len(), 2);
    let reason: &[u8] = if R::IS_CLIENT { b"" } else { b"no answer to a ping" };
    assert_eq!(frames[1].payload, [&1001u16.to_be_bytes(), reason].concat());
    assert_eq!(due(&endpoint), None);
}

#[test]
fn a_silent_peer_is_gone_after_interval_and_timeout() {
    silence::<Server>();
    silence::<AnyClient>();
}

#[test]
fn any_byte_is_a_sign_of_life() {
    let pong = Wire::to::<Server>().pong(b"").bytes().to_vec();
    let whole = Wire::to::<Server>().text("hi").bytes().to_vec();
    let long = Wire::to::<Server>().header(0x82, 5000, 0).bytes().to_vec();
    for wire in [&pong[..], &whole, &long, &b"\x81"[..]] {
        let mut server = Endpoint::<Server>::new(config());
        server.at(31_000);
        server.now = millis(40_000);
        server.receive(wire);
        assert_eq!(due(&server), Some(70_000), "{wire:x?}");
        assert_eq!(sent(server.at(69_999)), [0x89]);
        assert_eq!(sent(server.at(70_000)), [0x89, 0x89]);
        assert_eq!(server.closed, None);
    }
}

#[test]
fn a_byte_at_a_time_is_life_in_the_middle_of_a_frame() {
    let mut server = Endpoint::<Server>::new(config());
    let wire = Wire::to::<Server>().frame(0x01, b"slow").ping(b"slow").frame(0x80, b"ly");
    for (n, byte) in wire.bytes().iter().enumerate() {
        let now = 1000 + 29_000 * (n as u64 + 1);
        server.at(now);
        server.receive(&[*byte]);
        assert_eq!(due(&server), Some(now + 30_000));
    }
    assert_eq!((server.closed, server.heard.len()), (None, 2));
    assert_eq!(sent(&mut server), [0x8a], "no Ping was due");
}

#[test]
fn looking_again_at_what_was_received_is_no_sign_of_life() {
    let mut server = Endpoint::<Server>::new(config());
    server.receive(&Wire::to::<Server>().text("cut").bytes()[..4]);
    for now in [10_000, 20_000, 30_000] {
        server.now = millis(now);
        server.turn();
    }
    assert_eq!(due(&server), Some(31_000));
    // Nor is it when events are worked off one by one, late.
    let mut server = Endpoint::<Server>::new(config());
    server.append(Wire::to::<Server>().ping(b"1").ping(b"2").text("3").bytes());
    for now in [1000, 10_000, 20_000, 30_000] {
        server.now = millis(now);
        let _ = server.poll();
    }
    assert_eq!((server.heard.len(), due(&server)), (3, Some(31_000)));
}

#[test]
fn a_stalled_flush_ends_by_the_heartbeat() {
    // The peer sends and never reads: the answers fill the send buffer, and nothing more is read.
    let mut server = Endpoint::<Server>::with(config(), 1024, MIN_TX);
    server.flush = Flush::ByHand;
    server.append(Wire::to::<Server>().ping(&[0; 125]).ping(&[0; 125]).bytes());
    assert!(!server.turn());
    let pending = server.pending();
    assert!(!server.at(31_000).turn());
    // No room for a Ping, and none is queued: what is pending asks the same.
    assert_eq!((server.pending(), due(&server)), (pending, Some(41_000)));
    assert_eq!(server.at(41_000).closed, Some(CloseCause::Timeout));
    // The Close still had its reserve.
    assert_eq!(server.frames().last().unwrap().payload, CloseCode::GOING_AWAY.get().to_be_bytes());
}

#[test]
fn without_a_heartbeat_nothing_is_due() {
    let mut server = Endpoint::<Server>::new(Config { heartbeat: None, ..Config::new() });
    assert_eq!(due(&server), None);
    assert_eq!(sent(server.at(u64::MAX)), []);
    assert_eq!(server.closed, None);
}

#[test]
fn the_farthest_deadlines_never_come() {
    let heartbeat = Heartbeat { interval: Duration::MAX, timeout: Duration::MAX };
    let mut server = Endpoint::<Server>::new(Config { heartbeat: Some(heartbeat), ..Config::new() });
    assert_eq!(sent(server.at(u64::MAX - 1)), []);
    assert_eq!(server.closed, None);
}

#[test]
fn two_quiet_endpoints_keep_each_other_alive() {
    let mut pair = Pair::new(&config(), 512, 512, 1);
    while pair.now < 3_600_000 {
        assert!(pair.step());
    }
    assert_eq!((pair.client.closed, pair.server.closed), (None, None));
    // One Ping and one Pong in thirty seconds or a little more, from whoever asked first.
    let pings =
        sent(&mut pair.client).iter().chain(&sent(&mut pair.server)).filter(|b0| **b0 == 0x89).count();
    assert!((100..=240).contains(&pings), "{pings}");
}

#[test]
fn a_pulled_cable_is_noticed_at_both_ends() {
    let mut pair = Pair::new(&config(), 512, 512, 2);
    while pair.now < 100_000 {
        assert!(pair.step());
    }
    (pair.up.cut, pair.down.cut) = (true, true);
    let cut = pair.now;
    while pair.step() {}
    assert_eq!(pair.client.closed, Some(CloseCause::Timeout));
    assert_eq!(pair.server.closed, Some(CloseCause::Timeout));
    // Interval, timeout, and what was under way.
    assert!(pair.now <= cut + 40_000 + 50, "{} after {cut}", pair.now);
}

#[test]
fn the_round_trip_is_that_of_the_ping_that_is_out() {
    fn of<R: End>() {
        let mut endpoint = Endpoint::<R>::new(config());
        let rtt = |endpoint: &Endpoint<R>| endpoint.connection.rtt().map(|rtt| rtt.as_millis());
        endpoint.at(31_000);
        let ping = endpoint.frames().pop().unwrap().payload;
        // Nobody asked for these: the second is the answer to a Ping of the application's, as it were.
        for other in [&b""[..], b"?", &[0; 4], &[&ping[..], b"?"].concat(), &ping[..3]] {
            endpoint.now = millis(31_010);
            endpoint.receive(Wire::to::<R>().pong(other).bytes());
            assert_eq!(rtt(&endpoint), None, "{other:x?}");
        }
        // Its answer, in two pieces and among other bytes; then the same again.
        let answer = Wire::to::<R>().frame(0x01, b"a").pong(&ping).bytes().to_vec();
        endpoint.receive(&answer[..answer.len() - 1]);
        assert_eq!(rtt(&endpoint), None);
        endpoint.now = millis(31_042);
        endpoint.receive(&answer[answer.len() - 1..]);
        assert_eq!(rtt(&endpoint), Some(42));
        endpoint.now = millis(31_050);
        endpoint.receive(Wire::to::<R>().pong(&ping).bytes());
        assert_eq!(rtt(&endpoint), Some(42));
        // The next one: an answer to the last comes too late.
        endpoint.at(61_050);
        assert_eq!(rtt(&endpoint), None);
        endpoint.now = millis(61_051);
        endpoint.receive(Wire::to::<R>().pong(&ping).bytes());
        assert_eq!(rtt(&endpoint), None);
        let second = endpoint.frames().pop().unwrap();
        assert_eq!((second.b0, second.payload == ping), (0x89, false));
        endpoint.receive(Wire::to::<R>().pong(&second.payload).bytes());
        assert_eq!(rtt(&endpoint), Some(1));
    }
    of::<Server>();
    of::<AnyClient>();
}

#[test]
fn an_answer_that_takes_longer_than_the_interval_is_measured_as_long_as_it_took() {
    // The peer is busy with a long message, so that it is not given up; its Pong comes behind that.
    let mut server = Endpoint::<Server>::new(config());
    server.at(31_000);
    let ping = server.frames().pop().unwrap().payload;
    server.now = millis(35_000);
    server.receive(&Wire::to::<Server>().frame(0x02, b"long").bytes()[..7]);
    server.now = millis(64_000);
    server.receive(&Wire::to::<Server>().frame(0x02, b"long").bytes()[7..]);
    server.receive(Wire::to::<Server>().pong(&ping).bytes());
    assert_eq!(server.connection.rtt(), Some(Duration::from_secs(33)));
}

#[test]
fn the_round_trip_of_a_pair_is_what_its_pipes_take() {
    let mut pair = Pair::new(&config(), 512, 512, 7);
    let mut seen = Vec::new();
    while pair.now < 3_600_000 {
        assert!(pair.step());
        seen.extend(pair.client.connection.rtt().into_iter().chain(pair.server.connection.rtt()));
    }
    seen.dedup();
    // At most 50 ms each way, and a little for what is cut on its way.
    assert!(seen.len() > 50, "{}", seen.len());
    assert!(seen.iter().all(|rtt| *rtt <= Duration::from_millis(1000)), "{seen:?}");
}

#[test]
fn a_deadline_beyond_the_end_of_time_is_one_all_the_same() {
    let heartbeat = Heartbeat { interval: Duration::from_secs(30), timeout: Duration::MAX };
    let config = Config { heartbeat: Some(heartbeat), close_timeout: Duration::MAX, ..Config::new() };
    let mut server = Endpoint::<Server>::new(config);
    assert_eq!(sent(server.at(31_000)), [0x89]);
    assert_eq!(due(&server), Some(u64::MAX - 1));
    // One Ping, however long it takes.
    assert_eq!(sent(server.at(62_000).at(93_000)), [0x89]);
    let now = server.now;
    server.lend(|connection, io| connection.close(now, &mut io.tx, CloseCode::NORMAL, "")).unwrap();
    assert_eq!(due(&server), Some(u64::MAX - 1));
    assert_eq!(server.at(u64::MAX - 2).closed, None);
}
