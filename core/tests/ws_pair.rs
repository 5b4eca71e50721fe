//! A client and a server talk over slow pipes that cut anywhere: whatever the delays, the buffers and the order
//! of things, each hears what the other sent, once and in order.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong has to stop"
)]

mod common;

use common::{End, Endpoint, Heard, Pair};
use longwire_core::ws::{
    CloseCause, CloseCode, Config, Delivery, Heartbeat, Kind, MIN_RX, MIN_TX, SendError,
};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::time::Duration;

/// Something that an application does.
#[derive(Clone, Debug)]
enum Act {
    Send(Kind, usize),
    Stream(Kind, usize),
    Ping(u8),
    Pong(u8),
}

fn act() -> impl Strategy<Value = Act> {
    let kind = || prop_oneof![Just(Kind::Text), Just(Kind::Binary)];
    prop_oneof![
        4 => (kind(), 0..200usize).prop_map(|(kind, len)| Act::Send(kind, len)),
        2 => (kind(), 0..3000usize).prop_map(|(kind, len)| Act::Stream(kind, len)),
        1 => (0..=125u8).prop_map(Act::Ping),
        1 => (1..=125u8).prop_map(Act::Pong),
    ]
}

/// A text or any bytes, in which a byte at the wrong place shows.
fn payload(kind: Kind, len: usize) -> Vec<u8> {
    match kind {
        Kind::Text => "aé€𝄞".chars().cycle().take(len).collect::<String>().into_bytes(),
        Kind::Binary => (0..len).map(|i| (i * 7 % 251) as u8).collect(),
    }
}

/// The first byte of a Pong that nobody asked for; no answer begins with it.
const UNASKED: u8 = 0xff;

fn asked(len: u8) -> Vec<u8> {
    payload(Kind::Binary, usize::from(len))
}

fn unasked(len: u8) -> Vec<u8> {
    vec![UNASKED; usize::from(len)]
}

/// What is left to do, and what the other end has to hear of it.
struct Script {
    acts: VecDeque<Act>,
    /// What is left of the message that is being streamed.
    streaming: Option<(Kind, Vec<u8>, usize)>,
    expected: Vec<Heard>,
    close: bool,
}

impl Script {
    fn new(acts: Vec<Act>, close: bool) -> Self {
        Self { acts: acts.into(), streaming: None, expected: Vec::new(), close }
    }

    fn said(&mut self, kind: Kind, payload: Vec<u8>) {
        self.expected.push(match kind {
            Kind::Text => Heard::Text(String::from_utf8(payload).unwrap()),
            Kind::Binary => Heard::Binary(payload),
        });
    }

    /// Does what there is room for. Whether that was anything.
    fn go_on<R: End>(&mut self, endpoint: &mut Endpoint<R>) -> bool {
        if !endpoint.connection.is_open() {
            return false;
        }
        if let Some((kind, payload, sent)) = self.streaming.take() {
            return self.stream(endpoint, kind, payload, sent);
        }
        let Some(act) = self.acts.front().cloned() else {
            let now = endpoint.now;
            return self.close
                && endpoint.lend(|connection, io| {
                    connection.close(now, &mut io.tx, CloseCode::NORMAL, "done").is_ok()
                });
        };
        // One Ping at a time: a second one before the answer to the first may stall the peer (see `MIN_TX`).
        if matches!(act, Act::Ping(_)) && heard(endpoint).1.len() < pings(&self.expected).len() {
            return false;
        }
        let done = self.act(endpoint, &act);
        if done {
            self.acts.pop_front();
        }
        done
    }

    fn act<R: End>(&mut self, endpoint: &mut Endpoint<R>, act: &Act) -> bool {
        let done = endpoint.lend(|connection, io| match act {
            Act::Send(kind, len) => connection.send_message(&mut io.tx, *kind, &payload(*kind, *len)),
            Act::Stream(kind, _) => connection.start(*kind),
            Act::Ping(len) => connection.send_ping(&mut io.tx, &asked(*len)),
            Act::Pong(len) => connection.send_pong(&mut io.tx, &unasked(*len)),
        });
        match (act, done) {
            (_, Err(error)) => assert_eq!(error, SendError::Full),
            (Act::Send(kind, len), _) => self.said(*kind, payload(*kind, *len)),
            (Act::Stream(kind, len), _) => self.streaming = Some((*kind, payload(*kind, *len), 0)),
            (Act::Ping(len), _) => self.expected.push(Heard::Ping(asked(*len))),
            (Act::Pong(len), _) => self.expected.push(Heard::Pong(unasked(*len))),
        }
        done.is_ok()
    }

    fn stream<R: End>(
        &mut self,
        endpoint: &mut Endpoint<R>,
        kind: Kind,
        payload: Vec<u8>,
        sent: usize,
    ) -> bool {
        let rest = &payload[sent..];
        let n = endpoint.lend(|connection, io| connection.write(&mut io.tx, rest)).unwrap();
        let done = n == rest.len() && endpoint.lend(|connection, io| connection.finish(&mut io.tx)).is_ok();
        if done {
            self.said(kind, payload);
        } else {
            self.streaming = Some((kind, payload, sent + n));
        }
        done || n > 0
    }
}

/// What was heard, and apart from that the answers to Pings.
fn heard<R>(endpoint: &Endpoint<R>) -> (Vec<Heard>, Vec<Vec<u8>>) {
    let mut answers = Vec::new();
    let mut events = endpoint.heard.clone();
    events.retain(|event| match event {
        Heard::Pong(payload) if payload.first() != Some(&UNASKED) => {
            answers.push(payload.clone());
            false
        }
        _ => true,
    });
    (events, answers)
}

fn pings(expected: &[Heard]) -> Vec<Vec<u8>> {
    let ping = |heard: &Heard| if let Heard::Ping(payload) = heard { Some(payload.clone()) } else { None };
    expected.iter().filter_map(ping).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_are_conserved(
        up in proptest::collection::vec(act(), 0..25),
        down in proptest::collection::vec(act(), 0..25),
        (seed, rx, tx, pipe) in (any::<u64>(), 0..600usize, 0..400usize, 64..2000usize),
        chunks in any::<bool>(),
        (client_closes, server_closes) in prop_oneof![Just((true, false)), Just((false, true)), Just((true, true))],
    ) {
        let delivery = if chunks { Delivery::Chunks } else { Delivery::Whole };
        let config = Config { delivery, heartbeat: None, close_timeout: Duration::from_secs(3600), ..Config::new() };
        // Room for the longest `Act::Send`, which is 800 bytes.
        let mut pair = Pair::new(&config, MIN_RX + rx, MIN_TX + 820 + tx, seed);
        (pair.up.capacity, pair.down.capacity) = (pipe, pipe);
        // Whoever closes first cuts off what the other still wanted to say; so each says all before it closes.
        let (mut client, mut server) = (Script::new(up, false), Script::new(down, false));
        for _ in 0..100_000 {
            let acted = client.go_on(&mut pair.client) | server.go_on(&mut pair.server);
            let moved = pair.step();
            if !acted && !moved {
                if client.close || server.close {
                    break;
                }
                (client.close, server.close) = (client_closes, server_closes);
            }
        }
        prop_assert_eq!(pair.client.closed, Some(CloseCause::Clean));
        prop_assert_eq!(pair.server.closed, Some(CloseCause::Clean));

        let goodbye = Heard::Close(Some(CloseCode::NORMAL), if client_closes { "done" } else { "" }.into());
        client.expected.push(goodbye);
        prop_assert_eq!(heard(&pair.server), (client.expected.clone(), pings(&server.expected)));

        let goodbye = Heard::Close(Some(CloseCode::NORMAL), if server_closes { "done" } else { "" }.into());
        server.expected.push(goodbye);
        prop_assert_eq!(heard(&pair.client), (server.expected, pings(&client.expected)));
    }
}

#[test]
fn two_that_write_and_ping_at_once_do_not_wait_for_each_other() {
    for seed in 0..50 {
        let mut pair = Pair::new(&Config { heartbeat: None, ..Config::new() }, 4096, 300, seed);
        (pair.up.capacity, pair.down.capacity) = (30, 30);
        let acts: Vec<_> =
            std::iter::once(Act::Ping(125)).chain(vec![Act::Send(Kind::Binary, 5); 100]).collect();
        let script = || Script::new(acts.clone(), false);
        let (mut client, mut server) = (script(), script());
        while client.go_on(&mut pair.client) | server.go_on(&mut pair.server) | pair.step() {}
        assert_eq!(heard(&pair.client), (server.expected, vec![asked(125)]));
        assert_eq!(heard(&pair.server), (client.expected, vec![asked(125)]));
        assert_eq!((pair.client.heard.len(), pair.server.heard.len()), (102, 102));
    }
}

#[test]
fn simultaneous_close_is_clean_at_both_ends() {
    for seed in 0..50 {
        let mut pair = Pair::new(&Config::new(), 256, 256, seed);
        let now = pair.client.now;
        pair.client
            .lend(|connection, io| connection.close(now, &mut io.tx, CloseCode::NORMAL, "client"))
            .unwrap();
        pair.server
            .lend(|connection, io| connection.close(now, &mut io.tx, CloseCode::GOING_AWAY, "server"))
            .unwrap();
        while pair.step() {}
        assert_eq!(pair.client.heard, [Heard::Close(Some(CloseCode::GOING_AWAY), "server".into())]);
        assert_eq!(pair.server.heard, [Heard::Close(Some(CloseCode::NORMAL), "client".into())]);
        assert_eq!(
            (pair.client.closed, pair.server.closed),
            (Some(CloseCause::Clean), Some(CloseCause::Clean))
        );
        assert_eq!((pair.client.frames().len(), pair.server.frames().len()), (1, 1));
    }
}

#[test]
fn a_peer_that_never_reads_is_gone_after_the_heartbeat_and_costs_one_buffer() {
    let heartbeat = Heartbeat { interval: Duration::from_secs(30), timeout: Duration::from_secs(10) };
    let mut pair = Pair::new(&Config { heartbeat: Some(heartbeat), ..Config::new() }, 512, 512, 3);
    pair.down.capacity = 0;
    let mut pings = 0;
    let mut ping = |client: &mut Endpoint<_>| {
        let sent = client.lend(|connection, io| connection.send_ping(&mut io.tx, &asked(125)).is_ok());
        pings += usize::from(sent);
        sent
    };
    while ping(&mut pair.client) | pair.step() {}
    assert_eq!(pair.server.closed, Some(CloseCause::Timeout));
    assert!(pair.now < 42_000, "{}", pair.now);
    assert_eq!(pair.server.capacity(), 512);
    // What both buffers, the pipe and the answers hold; then the client was stalled.
    assert!(pings <= (512 + 1000 + 512 + 512) / 127, "{pings}");
}
