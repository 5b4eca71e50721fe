//! An uplink against a gateway made of the same core, over streams in memory, under virtual time.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helper fails the test")]

mod common;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/zlib.rs"]
mod zlib;

use std::future::Future;
use std::pin::pin;

use common::{Numbers, clock, poll_times};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_time::Duration;
use gateway::{CONFIG, Network, Peer, Seen, accepted, exchange, last_wait, opened, wait_for_status};
use longwire_core::buf::{TxBuf, TxCursor};
use longwire_core::http::write::{self, WriteError};
use longwire_core::session::backoff::Failure;
use longwire_core::session::ladder::{Ending, Rung};
use longwire_core::session::{Code, Level, Refusal, ServerMessage};
use longwire_core::time::Instant;
use longwire_core::ws::{CloseCause, CloseCode};
use longwire_embassy::{
    Counts, Decompressor, Error, Gateway, HandshakeError, Inflater, Lost, Outbox, Policy, Status, Uplink,
    UplinkConfig,
};

type Readings = Outbox<NoopRawMutex, 4096>;

fn values(peer: &Peer) -> Vec<u32> {
    // Each reading has its number, which here is one more than its value, over all connections.
    assert!(peer.published.iter().all(|(n, _, value)| *n == u64::from(*value) + 1));
    peer.published.iter().map(|(.., value)| *value).collect()
}

/// Something that the gateway does.
type Act<'a> = &'a dyn Fn(&mut Peer);

/// Runs `test` beside an uplink. `turn` lets the uplink go on until it waits for something, and gives what it
/// returned.
fn with_uplink(
    network: Network,
    outbox: &Readings,
    config: &UplinkConfig,
    test: impl FnOnce(&Seen, &mut dyn FnMut() -> Option<Lost>),
) {
    with_uplink_that_inflates(network, outbox, config, None, test);
}

fn with_uplink_that_inflates(
    network: Network,
    outbox: &Readings,
    config: &UplinkConfig,
    decompressor: Option<Decompressor<'_>>,
    test: impl FnOnce(&Seen, &mut dyn FnMut() -> Option<Lost>),
) {
    let seen = Seen::default();
    let (mut rx, mut tx) = ([0; 512], [0; 512]);
    let gateway = Gateway { authorization: Some("Bearer secret"), ..Gateway::new("gateway:80") };
    let mut uplink = Uplink::new(network, gateway, config, Numbers(1), &mut rx, &mut tx);
    if let Some(decompressor) = decompressor {
        uplink = uplink.with_decompressor(decompressor);
    }
    let observed = seen.clone();
    let run = uplink.run(outbox, move |status| observed.borrow_mut().push(status));
    let mut run = pin!(run);
    test(&seen, &mut || poll_times(run.as_mut() as std::pin::Pin<&mut dyn Future<Output = Lost>>, 500));
}

fn outbox_with(readings: impl Iterator<Item = u32>) -> Readings {
    let outbox = Readings::new(Policy::DropOldest);
    readings.for_each(|value| outbox.reporter().try_report("device/7/uptime", None, &value).unwrap());
    outbox
}

#[test]
fn readings_are_published_after_hello_and_stay_until_acknowledged() {
    let _clock = clock();
    let (network, outbox) = (Network::default(), outbox_with(0..3));
    with_uplink(network.clone(), &outbox, &CONFIG, |seen, turn| {
        let mut peer = accepted(&network, turn);
        assert_eq!(peer.authorization.as_deref(), Some("Bearer secret"));
        assert_eq!(*seen.borrow(), [Status::Connecting(Rung::WebSocket)]);
        assert!(peer.published.is_empty(), "nothing is sent before hello");
        peer.hello(10);
        exchange(turn, &mut peer);
        assert_eq!(*seen.borrow(), [Status::Connecting(Rung::WebSocket), Status::Open(Rung::WebSocket)]);
        assert_eq!(values(&peer), [0, 1, 2]);
        assert_eq!(peer.published[0].1, "device/7/uptime");
        // A report wakes the uplink.
        outbox.reporter().try_report("device/7/uptime", None, &3).unwrap();
        exchange(turn, &mut peer);
        assert_eq!(values(&peer), [0, 1, 2, 3]);
        peer.ack(3);
        exchange(turn, &mut peer);
        assert_eq!(outbox.counts(), Counts { reported: 4, acknowledged: 3, waiting: 1, ..Counts::default() });
    });
}

#[test]
fn a_gateway_may_compress_if_an_inflater_is_lent_on_each_connection_anew() {
    let (_guard, clock) = clock();
    for mut inflater in [Inflater::<512>::new(), Inflater::with_takeover()] {
        let lent = Some(Decompressor::from(&mut inflater));
        let (network, outbox) = (Network::default(), outbox_with(0..4));
        with_uplink_that_inflates(network.clone(), &outbox, &CONFIG, lent, |seen, turn| {
            for n in 0..3 {
                let mut peer = accepted(&network, turn);
                assert!(peer.connection.as_ref().unwrap().deflate().is_some());
                peer.hello(10);
                exchange(turn, &mut peer);
                assert_eq!(values(&peer), (n..4).collect::<Vec<_>>());
                peer.ack(u64::from(n) + 1);
                exchange(turn, &mut peer);
                assert_eq!(outbox.counts().acknowledged, n + 1);
                // The link ends in the middle of a compressed message.
                network.newest().borrow_mut().to_client.extend(b"\xc2\x05\xf2\x48");
                network.newest().borrow_mut().ended = true;
                assert_eq!(turn(), None);
                clock.advance(last_wait(seen));
            }
        });
    }
}

#[test]
fn at_most_max_inflight_are_on_their_way() {
    let _clock = clock();
    let (network, outbox) = (Network::default(), outbox_with(0..9));
    with_uplink(network.clone(), &outbox, &CONFIG, |_, turn| {
        let mut peer = opened(&network, turn, 2);
        assert_eq!(values(&peer), [0, 1]);
        peer.ack(1);
        exchange(turn, &mut peer);
        assert_eq!(values(&peer), [0, 1, 2]);
    });
}

#[test]
fn what_was_not_acknowledged_is_sent_again_on_the_next_connection() {
    let (_guard, clock) = clock();
    let (network, outbox) = (Network::default(), outbox_with(0..4));
    with_uplink(network.clone(), &outbox, &CONFIG, |seen, turn| {
        let mut peer = opened(&network, turn, 10);
        peer.ack(2);
        peer.wire.borrow_mut().ended = true;
        assert_eq!(turn(), None);
        let lost = Status::Lost(Lost::Broken(Error::Closed(CloseCause::EndOfStream)));
        assert_eq!(seen.borrow()[2], lost);
        assert_eq!(network.wires.borrow().len(), 1, "one attempt in flight, after its wait");
        clock.advance(last_wait(seen));
        assert_eq!(turn(), None);
        let before = peer.publisher;
        let mut peer = Peer::new(network.newest());
        exchange(turn, &mut peer);
        assert_eq!(peer.publisher, before, "the gateway knows it again");
        peer.hello(10);
        exchange(turn, &mut peer);
        assert_eq!(values(&peer), [2, 3]);
        peer.ack(4);
        exchange(turn, &mut peer);
        assert_eq!(outbox.counts(), Counts { reported: 4, acknowledged: 4, ..Counts::default() });
    });
}

#[test]
fn a_refused_reading_is_counted_and_the_others_go_on() {
    let _clock = clock();
    let (network, outbox) = (Network::default(), outbox_with(0..2));
    // Above the gateway's max_message of 200 bytes: it would cost the connection.
    outbox.reporter().try_report("device/7/log", None, "x".repeat(200).as_str()).unwrap();
    outbox.reporter().try_report("device/7/uptime", None, &3).unwrap();
    with_uplink(network.clone(), &outbox, &CONFIG, |_, turn| {
        let mut peer = opened(&network, turn, 10);
        assert_eq!(
            peer.published.iter().map(|(n, _, value)| (*n, *value)).collect::<Vec<_>>(),
            [(1, 0), (2, 1), (4, 3)]
        );
        let refusal = Refusal::new(Code::TopicsFull, "full");
        peer.say(&ServerMessage::Nack { n: Some(1), refusal });
        peer.ack(4);
        exchange(turn, &mut peer);
        assert_eq!(
            outbox.counts(),
            Counts { reported: 4, acknowledged: 2, refused: 1, too_large: 1, ..Counts::default() }
        );
    });
}

#[test]
fn what_is_over_quota_waits_as_long_as_the_gateway_says_and_goes_first() {
    let (_guard, clock) = clock();
    let (network, outbox) = (Network::default(), outbox_with(0..2));
    with_uplink(network.clone(), &outbox, &CONFIG, |_, turn| {
        let mut peer = opened(&network, turn, 10);
        let refusal = Refusal::new(Code::OverQuota, "").retry_after(core::time::Duration::from_millis(500));
        peer.say(&ServerMessage::Nack { n: Some(1), refusal });
        peer.ack(2);
        exchange(turn, &mut peer);
        outbox.reporter().try_report("device/7/uptime", None, &2).unwrap();
        exchange(turn, &mut peer);
        clock.advance(Duration::from_millis(499));
        exchange(turn, &mut peer);
        assert_eq!(values(&peer), [0, 1]);
        clock.advance(Duration::from_millis(1));
        exchange(turn, &mut peer);
        assert_eq!(values(&peer), [0, 1, 0, 2]);
        // Pressure is a wait as well, and an endless one is not endless.
        let pressure = Some(core::time::Duration::MAX);
        peer.say(&ServerMessage::Ack { n: 3, level: Level::Ring, pressure });
        exchange(turn, &mut peer);
        outbox.reporter().try_report("device/7/uptime", None, &3).unwrap();
        exchange(turn, &mut peer);
        assert_eq!(outbox.counts(), Counts { reported: 4, acknowledged: 3, waiting: 1, ..Counts::default() });
        assert_eq!(values(&peer).len(), 4);
        for _ in 0..4 * 60 {
            // The connection lives meanwhile.
            clock.advance(Duration::from_secs(15));
            peer.ack(3);
            exchange(turn, &mut peer);
        }
        assert_eq!(values(&peer), [0, 1, 0, 2, 3]);
    });
}

#[test]
fn a_target_may_have_a_query_and_an_end() {
    let _clock = clock();
    for (target, expected) in
        [("/v1/stream?topic=a", None), (&*format!("/{}", "x".repeat(128)), Some(WriteError::Target))]
    {
        let (network, outbox) = (Network::default(), outbox_with(0..1));
        let (mut rx, mut tx) = ([0; 512], [0; 512]);
        let gateway = Gateway { target, ..Gateway::new("gateway:80") };
        let mut uplink = Uplink::new(network.clone(), gateway, &CONFIG, Numbers(1), &mut rx, &mut tx);
        let mut run = pin!(uplink.run(&outbox, |_| {}));
        let end = poll_times(run.as_mut() as std::pin::Pin<&mut dyn Future<Output = Lost>>, 500);
        assert_eq!(end, expected.map(|error| Lost::Handshake(HandshakeError::Request(error))));
        if expected.is_none() {
            let wire = network.newest();
            let sent = String::from_utf8(wire.borrow().from_client.clone()).unwrap();
            assert!(sent.starts_with("GET /v1/stream?topic=a&publisher="), "{sent}");
        }
    }
}

#[test]
fn the_gateways_window_is_kept() {
    let (_guard, clock) = clock();
    let (network, outbox) = (Network::default(), outbox_with(0..1));
    with_uplink(network.clone(), &outbox, &CONFIG, |seen, turn| {
        let mut peer = opened(&network, turn, 10);
        let after = core::time::Duration::from_secs(60);
        let refusal = Refusal::new(Code::Draining, "restarts").retry_after(after);
        peer.say(&ServerMessage::Bye { refusal, window: Some(after) });
        exchange(turn, &mut peer);
        assert_eq!(peer.closed, Some(CloseCode::NORMAL));
        peer.wire.borrow_mut().ended = true;
        assert_eq!(turn(), None);
        let failure = Failure::Told { retry_after: after, window: after };
        assert_eq!(seen.borrow()[2], Status::Lost(Lost::Bye(Some(Code::Draining), Ending::Said(failure))));
        assert!((60_000..=120_000).contains(&last_wait(seen).as_millis()), "{seen:?}");
        clock.advance(Duration::from_secs(60) - Duration::from_millis(1));
        assert_eq!(turn(), None);
        assert_eq!(network.wires.borrow().len(), 1);
        clock.advance(Duration::from_secs(61));
        assert_eq!(turn(), None);
        assert_eq!(network.wires.borrow().len(), 2);
    });
}

#[test]
fn a_gateway_that_dies_is_gone_back_to_within_the_window_that_hello_said() {
    let (_guard, clock) = clock();
    let (network, outbox) = (Network::default(), outbox_with(0..1));
    with_uplink(network.clone(), &outbox, &CONFIG, |seen, turn| {
        let mut peer = accepted(&network, turn);
        peer.hello_with(10, Some(core::time::Duration::from_secs(60)), None);
        exchange(turn, &mut peer);
        clock.advance(Duration::from_secs(10));
        peer.wire.borrow_mut().ended = true;
        assert_eq!(turn(), None);
        assert_eq!(seen.borrow()[2], Status::Lost(Lost::Broken(Error::Closed(CloseCause::EndOfStream))));
        // Ten seconds of the window are over.
        assert!((50_000..=50_500).contains(&last_wait(seen).as_millis()), "{seen:?}");
    });
}

#[test]
fn a_refusal_for_good_ends_it() {
    let _clock = clock();
    let bye = |peer: &mut Peer| {
        let refusal = Refusal::new(Code::Unauthorized, "expired");
        peer.say(&ServerMessage::Bye { refusal, window: None });
    };
    let close = |peer: &mut Peer| {
        peer.frame(|connection, tx| {
            let code = CloseCode::new(3000).unwrap();
            connection.close(Instant::default(), tx, code, "expired").unwrap();
        });
    };
    let ends: [(Act<'_>, Lost); 2] = [
        (&bye, Lost::Bye(Some(Code::Unauthorized), Ending::Unauthorized)),
        (&close, Lost::Closed(CloseCode::new(3000))),
    ];
    for (end, lost) in ends {
        let (network, outbox) = (Network::default(), outbox_with(0..1));
        with_uplink(network.clone(), &outbox, &CONFIG, |_, turn| {
            let mut peer = accepted(&network, turn);
            peer.hello(10);
            end(&mut peer);
            exchange(turn, &mut peer);
            peer.wire.borrow_mut().ended = true;
            assert_eq!(turn(), Some(lost));
            assert_eq!(outbox.counts().waiting, 1, "the reading is kept");
        });
    }
}

#[test]
fn refused_upgrades() {
    let _clock = clock();
    for (status, fields, last) in [
        (401, &[][..], None),
        (503, &[("Retry-After", "7")][..], Some(7_000..=7_500)),
        (502, &[][..], Some(0..=500)),
    ] {
        let (network, outbox) = (Network::default(), outbox_with(0..1));
        with_uplink(network.clone(), &outbox, &CONFIG, |seen, turn| {
            assert_eq!(turn(), None);
            let (mut bytes, mut at) = ([0; 512], TxCursor::default());
            let mut tx = TxBuf::new(&mut bytes, &mut at);
            write::refusal(&mut tx, status, fields, "no").unwrap();
            network.newest().borrow_mut().to_client.extend(tx.pending());
            let end = turn();
            let retry_after = (status == 503).then_some(7);
            let refused = Lost::Handshake(HandshakeError::Refused { status, retry_after, said: None });
            match last {
                None => assert_eq!(end, Some(refused)),
                Some(wait) => {
                    assert_eq!((end, seen.borrow()[1]), (None, Status::Lost(refused)));
                    assert!(wait.contains(&last_wait(seen).as_millis()), "{status}: {seen:?}");
                }
            }
            // A proxy whose gateway is away is no reason to come back to it.
            assert_eq!(network.answered.borrow().len(), usize::from(status < 500), "{status}");
        });
    }
}

#[test]
fn silence_is_noticed_at_every_stage() {
    let (_guard, clock) = clock();
    let (network, outbox) = (Network::default(), outbox_with(0..1));
    with_uplink(network.clone(), &outbox, &CONFIG, |seen, turn| {
        // No answer to the upgrade.
        assert_eq!(wait_for_status(clock, seen, 1, turn), 10);
        assert_eq!(seen.borrow()[1], Status::Lost(Lost::Handshake(HandshakeError::Timeout)));
        clock.advance(last_wait(seen));
        // An upgrade, and no hello.
        assert_eq!(turn(), None);
        let mut peer = Peer::new(network.newest());
        peer.serve();
        assert_eq!(wait_for_status(clock, seen, 4, turn), 10);
        assert_eq!(seen.borrow()[4], Status::Lost(Lost::NoHello));
        clock.advance(last_wait(seen));
        // A hello, and then nothing, not even Pongs.
        let mut peer = accepted(&network, turn);
        peer.hello(10);
        assert_eq!(turn(), None);
        assert_eq!(seen.borrow()[7], Status::Open(Rung::WebSocket));
        // Twice the heartbeat.
        assert_eq!(wait_for_status(clock, seen, 8, turn), 30);
        assert_eq!(seen.borrow()[8], Status::Lost(Lost::Silent));
        // There was a gateway at the end of the last link only, so a connector would do well to look for another way after the others.
        assert_eq!(*network.answered.borrow(), [2]);
    });
}

#[test]
fn without_a_network_attempts_become_rare() {
    let (_guard, clock) = clock();
    let outbox = outbox_with(0..1);
    let network = Network { down: true, ..Network::default() };
    with_uplink(network, &outbox, &CONFIG, |seen, turn| {
        let mut total = 0;
        for _ in 0..40 {
            assert_eq!(turn(), None);
            assert_eq!(seen.borrow().iter().rev().nth(1), Some(&Status::Lost(Lost::NoLink)));
            total += last_wait(seen).as_millis();
            clock.advance(last_wait(seen));
        }
        // Seven attempts until the waits are drawn from 30 s, half of which is their mean.
        assert!((300_000..=33 * 30_000 + 32_000).contains(&total), "{total}");
    });
}

#[test]
fn frames_that_have_no_place_here() {
    let _clock = clock();
    let text = |peer: &mut Peer| peer.frame(|connection, tx| connection.send_text(tx, "{}").unwrap());
    let noise = |peer: &mut Peer| peer.frame(|connection, tx| connection.send_binary(tx, b"\xff").unwrap());
    let cases: [(Act<'_>, Lost, u16); 2] =
        [(&text, Lost::WrongFrame, 1003), (&noise, Lost::BadMessage, 1008)];
    for (send, lost, code) in cases {
        let (network, outbox) = (Network::default(), outbox_with(0..1));
        with_uplink(network.clone(), &outbox, &CONFIG, |seen, turn| {
            let mut peer = accepted(&network, turn);
            peer.hello(10);
            send(&mut peer);
            exchange(turn, &mut peer);
            assert_eq!(peer.closed, CloseCode::new(code));
            peer.wire.borrow_mut().ended = true;
            assert_eq!(turn(), None);
            assert_eq!(seen.borrow()[2], Status::Lost(lost));
        });
    }
    // A type that a later version may have, and what only readers are told, are passed over.
    let (network, outbox) = (Network::default(), outbox_with(0..1));
    with_uplink(network.clone(), &outbox, &CONFIG, |_, turn| {
        let mut peer = accepted(&network, turn);
        peer.hello(10);
        peer.frame(|connection, tx| connection.send_binary(tx, b"\xa1\x00\x18\x63").unwrap());
        peer.say(&ServerMessage::Renew { within: core::time::Duration::from_secs(9) });
        exchange(turn, &mut peer);
        assert_eq!(values(&peer), [0]);
        peer.ack(1);
        exchange(turn, &mut peer);
        assert_eq!(outbox.counts().acknowledged, 1);
    });
}
