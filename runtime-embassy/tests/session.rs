//! What an uplink keeps over its connections: credentials that change, commands that come down, and everything when its
//! future is dropped. Against a gateway made of the same core, over streams in memory, under virtual time.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helper fails the test"
)]

mod common;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/tokens.rs"]
mod tokens;
#[path = "common/zlib.rs"]
mod zlib;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Waker};

use common::{Numbers, clock, poll_times};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_time::Duration;
use gateway::{CONFIG, Network, Peer, Seen, accepted, exchange, last_wait, opened, wait_for_status};
use longwire_core::log::{Cursor, Since};
use longwire_core::session::ladder::Rung;
use longwire_core::session::{Code, Data, Event, Gap, GapReason, Position, Refusal, ServerMessage};
use longwire_embassy::{
    Arrival, Commands, Error, Gateway, Lost, Outbox, Overflow, Policy, Present, Status, Uplink, Why,
};

use tokens::Numbered;

type Readings = Outbox<NoopRawMutex, 4096>;
type Inbox = Commands<NoopRawMutex, 8, 64>;

const PATTERNS: &[&str] = &["do/*", "all"];
const EPOCH: u64 = 7;

fn at(seq: u64) -> Cursor {
    Cursor { epoch: EPOCH, seq }
}

/// Runs `test` beside an uplink with these tokens. `turn` lets the uplink go on until it waits for something.
fn with_tokens(
    network: Network,
    outbox: &Readings,
    (tokens, present): (Numbered, Present),
    test: impl FnOnce(&Seen, &mut dyn FnMut() -> Option<Lost>),
) {
    let seen = Seen::default();
    let (mut rx, mut tx, mut space) = ([0; 512], [0; 512], [0; 32]);
    let mut uplink = Uplink::new(network, Gateway::new("gateway:80"), &CONFIG, Numbers(1), &mut rx, &mut tx)
        .with_tokens(tokens, &mut space, present);
    let observed = seen.clone();
    let mut run = pin!(uplink.run(outbox, move |status| observed.borrow_mut().push(status)));
    test(&seen, &mut || poll_times(run.as_mut() as Pin<&mut dyn Future<Output = Lost>>, 500));
}

fn outbox_with(readings: std::ops::Range<u32>) -> Readings {
    let outbox = Readings::new(Policy::DropOldest);
    readings.for_each(|value| outbox.reporter().try_report("device/7/n", None, &value).unwrap());
    outbox
}

fn seconds(seconds: u64) -> Option<core::time::Duration> {
    Some(core::time::Duration::from_secs(seconds))
}

#[test]
fn a_grant_is_renewed_by_its_own_clock_and_when_the_gateway_asks() {
    let (_guard, clock) = clock();
    let (network, outbox) = (Network::default(), outbox_with(0..1));
    // The token takes its time, and readings go on meanwhile.
    let (tokens, asked) = Numbered::new(9, 1700);
    with_tokens(network.clone(), &outbox, (tokens, Present::Head), |seen, turn| {
        (0..4).for_each(|_| assert_eq!(turn(), None));
        let mut peer = Peer::new(network.newest());
        exchange(turn, &mut peer);
        assert_eq!(peer.authorization.as_deref(), Some("Bearer token-1"));
        peer.hello_with(10, None, seconds(90));
        exchange(turn, &mut peer);
        // 30 s before its end.
        for _ in 0..4 {
            clock.advance(Duration::from_millis(14_999));
            peer.say(&ServerMessage::Tick { at: at(1) });
            exchange(turn, &mut peer);
        }
        assert_eq!(*asked.borrow(), [Why::Connect]);
        clock.advance(Duration::from_millis(4));
        assert_eq!(turn(), None);
        assert_eq!(*asked.borrow(), [Why::Connect, Why::Renew]);
        outbox.reporter().try_report("device/7/n", None, &1).unwrap();
        exchange(turn, &mut peer);
        assert_eq!((peer.published.len(), peer.tokens.len()), (2, 0));
        exchange(turn, &mut peer);
        assert_eq!(peer.tokens, ["token-2"]);
        peer.hello_with(10, None, None);
        exchange(turn, &mut peer);
        assert_eq!(seen.borrow().last(), Some(&Status::Renewed));
        // And when it is asked for.
        peer.say(&ServerMessage::Renew { within: core::time::Duration::from_secs(9) });
        (0..4).for_each(|_| exchange(turn, &mut peer));
        assert_eq!(peer.tokens, ["token-2", "token-3"]);
        assert_eq!(network.wires.borrow().len(), 1);
    });
}

#[test]
fn in_band_a_connection_is_open_when_its_credential_was_taken() {
    let _clock = clock();
    let (network, outbox) = (Network::default(), outbox_with(0..1));
    let (tokens, _) = Numbered::new(9, 1);
    with_tokens(network.clone(), &outbox, (tokens, Present::InBand), |seen, turn| {
        let mut peer = accepted(&network, turn);
        assert!(peer.query.ends_with("&auth=later"), "{}", peer.query);
        assert_eq!(peer.authorization, None);
        peer.hello_with(10, None, seconds(10));
        exchange(turn, &mut peer);
        assert_eq!(peer.tokens, ["token-1"]);
        assert_eq!(*seen.borrow(), [Status::Connecting(Rung::WebSocket)]);
        assert!(peer.published.is_empty(), "that would be forbidden");
        peer.hello(10);
        exchange(turn, &mut peer);
        assert_eq!(seen.borrow().last(), Some(&Status::Open(Rung::WebSocket)));
        assert_eq!(peer.published.len(), 1);
    });
}

#[test]
fn a_credential_that_is_refused_is_replaced_once() {
    let (_guard, clock) = clock();
    let bye = |peer: &mut Peer| {
        let refusal = Refusal::new(Code::Unauthorized, "expired");
        peer.say(&ServerMessage::Bye { refusal, window: None });
        peer.wire.borrow_mut().ended = true;
    };
    for present in [Present::Head, Present::InBand] {
        let (network, outbox) = (Network::default(), outbox_with(0..1));
        let (tokens, asked) = Numbered::new(9, 1);
        with_tokens(network.clone(), &outbox, (tokens, present), |seen, turn| {
            for refused in 0..2 {
                let mut peer = accepted(&network, turn);
                if present == Present::InBand {
                    peer.hello_with(10, None, seconds(10));
                    exchange(turn, &mut peer);
                }
                bye(&mut peer);
                match (refused, turn()) {
                    (0, None) => clock.advance(last_wait(seen)),
                    (1, Some(Lost::Bye(Some(Code::Unauthorized), _))) => {}
                    end => panic!("{end:?}"),
                }
            }
        });
        assert_eq!(*asked.borrow(), [Why::Connect, Why::Refused]);
        assert_eq!(outbox.counts().waiting, 1, "the reading is kept");
    }
}

#[test]
fn without_a_token_there_is_no_attempt_and_it_is_asked_for_again() {
    let (_guard, clock) = clock();
    for polls in [1, u32::MAX] {
        let (network, outbox) = (Network::default(), outbox_with(0..1));
        let (tokens, asked) = Numbered::new(0, polls);
        with_tokens(network.clone(), &outbox, (tokens, Present::Head), |seen, turn| {
            for n in 1..4 {
                wait_for_status(clock, seen, 3 * n - 1, turn);
                assert_eq!(seen.borrow()[3 * n - 2], Status::Lost(Lost::NoToken));
                clock.advance(last_wait(seen));
            }
        });
        assert!(network.wires.borrow().is_empty());
        assert!(asked.borrow().iter().all(|why| *why == Why::Connect));
    }
}

/// Runs `test` beside an uplink that subscribes.
fn with_commands(
    network: Network,
    (outbox, commands): (&Readings, &Inbox),
    since: Since,
    test: impl FnOnce(&Seen, &mut dyn FnMut() -> Option<Lost>),
) {
    let seen = Seen::default();
    let (mut rx, mut tx) = ([0; 512], [0; 512]);
    let mut uplink = Uplink::new(network, Gateway::new("gateway:80"), &CONFIG, Numbers(1), &mut rx, &mut tx)
        .with_commands(commands, PATTERNS, since);
    let observed = seen.clone();
    let mut run = pin!(uplink.run(outbox, move |status| observed.borrow_mut().push(status)));
    test(&seen, &mut || poll_times(run.as_mut() as Pin<&mut dyn Future<Output = Lost>>, 500));
}

fn event(peer: &mut Peer, position: Position, value: u8) {
    let data = &[value][..];
    peer.say(&ServerMessage::Event(Event {
        topic: "do/it".into(),
        position,
        key: None,
        data: Data::Cbor(data),
    }));
}

fn commands_of(inbox: &Inbox) -> Vec<u8> {
    let next = || match inbox.try_next()? {
        Arrival::Command(command) => Some(command.decode().unwrap()),
        Arrival::Gap(gap) => panic!("{gap:?}"),
    };
    std::iter::from_fn(next).collect()
}

#[test]
fn commands_go_on_behind_the_last_one_and_what_is_missing_is_told() {
    let (_guard, clock) = clock();
    let (network, outbox, inbox) = (Network::default(), outbox_with(0..0), Inbox::new(Overflow::DropOldest));
    with_commands(network.clone(), (&outbox, &inbox), Since::Latest, |seen, turn| {
        let mut peer = opened(&network, turn, 10);
        let patterns: Vec<String> = PATTERNS.iter().map(|pattern| (*pattern).into()).collect();
        assert_eq!(peer.subscribed, [(Some(Since::Latest), patterns)]);
        // The state first: it gives no position to go on from.
        event(&mut peer, Position::Past(at(3)), 1);
        exchange(turn, &mut peer);
        peer.wire.borrow_mut().ended = true;
        assert_eq!(turn(), None);
        clock.advance(last_wait(seen));
        let mut peer = opened(&network, turn, 10);
        assert_eq!(peer.subscribed[0].0, Some(Since::Latest));
        event(&mut peer, Position::Past(at(3)), 1);
        peer.say(&ServerMessage::CaughtUp { at: at(5), id: Some(1) });
        event(&mut peer, Position::At(at(6)), 2);
        exchange(turn, &mut peer);
        assert_eq!(commands_of(&inbox), [1, 1, 2]);
        peer.wire.borrow_mut().ended = true;
        assert_eq!(turn(), None);
        clock.advance(last_wait(seen));
        let mut peer = opened(&network, turn, 10);
        assert_eq!(peer.subscribed[0].0, Some(Since::Cursor(at(6))));
        // What was had before is not handed out again.
        event(&mut peer, Position::At(at(6)), 2);
        let gap = Gap { from: at(6), to: at(8), reason: GapReason::Evicted, skipped: Some(2) };
        peer.say(&ServerMessage::Gap(gap));
        event(&mut peer, Position::At(at(9)), 3);
        peer.say(&ServerMessage::Tick { at: at(20) });
        exchange(turn, &mut peer);
        assert_eq!(inbox.try_next(), Some(Arrival::Gap(gap)));
        assert_eq!(commands_of(&inbox), [3]);
        peer.wire.borrow_mut().ended = true;
        assert_eq!(turn(), None);
        clock.advance(last_wait(seen));
        assert_eq!(opened(&network, turn, 10).subscribed[0].0, Some(Since::Cursor(at(20))));
    });
}

#[test]
fn a_subscription_that_is_refused_ends_it() {
    let _clock = clock();
    let (network, outbox, inbox) = (Network::default(), outbox_with(0..0), Inbox::new(Overflow::DropOldest));
    with_commands(network.clone(), (&outbox, &inbox), Since::Now, |_, turn| {
        let mut peer = opened(&network, turn, 10);
        // One that is about something else does not.
        peer.say(&ServerMessage::Error { refusal: Refusal::new(Code::BadMessage, ""), id: None });
        exchange(turn, &mut peer);
        peer.say(&ServerMessage::Error { refusal: Refusal::new(Code::Forbidden, ""), id: Some(1) });
        exchange(turn, &mut peer);
        peer.wire.borrow_mut().ended = true;
        assert!(matches!(turn(), Some(Lost::Subscription(Some(Code::Forbidden), _))));
    });
}

#[test]
fn a_command_above_the_receive_buffer_is_passed_over_and_a_gap_says_so() {
    let (_guard, clock) = clock();
    let (network, outbox, inbox) = (Network::default(), outbox_with(0..0), Inbox::new(Overflow::DropOldest));
    with_commands(network.clone(), (&outbox, &inbox), Since::Now, |seen, turn| {
        let mut peer = opened(&network, turn, 10);
        event(&mut peer, Position::At(at(6)), 2);
        exchange(turn, &mut peer);
        peer.frame(|connection, tx| connection.send_binary(tx, &[0; 600]).unwrap());
        exchange(turn, &mut peer);
        assert_eq!(seen.borrow()[2], Status::Lost(Lost::Broken(Error::MessageTooBig)));
        clock.advance(last_wait(seen));
        let mut peer = opened(&network, turn, 10);
        assert_eq!(peer.subscribed[0].0, Some(Since::Now));
        assert_eq!(commands_of(&inbox), [2]);
        // How far it goes is known when the gateway names a position.
        peer.say(&ServerMessage::CaughtUp { at: at(9), id: Some(1) });
        event(&mut peer, Position::At(at(10)), 3);
        exchange(turn, &mut peer);
        let gap = Gap { from: at(6), to: at(9), reason: GapReason::TooLarge, skipped: None };
        assert_eq!(inbox.try_next(), Some(Arrival::Gap(gap)));
        assert_eq!(commands_of(&inbox), [3]);
        // Another one, and this time the log has another epoch: it may lack anything.
        peer.frame(|connection, tx| connection.send_binary(tx, &[0; 600]).unwrap());
        exchange(turn, &mut peer);
        clock.advance(last_wait(seen));
        let mut peer = opened(&network, turn, 10);
        let other = |seq| Cursor { epoch: 8, seq };
        event(&mut peer, Position::At(other(5)), 4);
        exchange(turn, &mut peer);
        let gap = Gap { from: other(0), to: other(4), ..gap };
        assert_eq!(inbox.try_next(), Some(Arrival::Gap(gap)));
        assert_eq!(commands_of(&inbox), [4]);
    });
}

/// A gateway that keeps what it was told, and tells what it has, over one link after the other.
#[derive(Default)]
struct Model {
    taken: BTreeMap<u64, u32>,
    commands: u64,
    peer: Option<Peer>,
}

impl Model {
    fn serve(&mut self, network: &Network) {
        let Some(wire) = network.wires.borrow().last().cloned() else { return };
        let same = self.peer.as_ref().is_some_and(|peer| Rc::ptr_eq(&peer.wire, &wire));
        if !same {
            self.peer = Some(Peer::new(wire));
        }
        let peer = self.peer.as_mut().unwrap();
        let upgraded = peer.connection.is_some();
        peer.serve();
        if peer.connection.is_some() && !upgraded {
            peer.hello(4);
        }
        for (n, _, value) in core::mem::take(&mut peer.published) {
            assert_eq!(self.taken.entry(n).or_insert(value), &value, "the same number, the same reading");
            peer.ack(n);
        }
        for (since, _) in core::mem::take(&mut peer.subscribed) {
            let from = match since {
                Some(Since::Cursor(at)) => at.seq,
                _ => 0,
            };
            (from + 1..=self.commands)
                .for_each(|seq| event(peer, Position::At(at(seq)), seq.try_into().unwrap()));
            if self.commands < 6 {
                self.commands += 1;
                event(peer, Position::At(at(self.commands)), self.commands.try_into().unwrap());
            }
        }
    }
}

/// A device works through its readings and commands with a future that is dropped after k polls, and again after as many, for every k
/// up to those that all of it takes. (The link may not be dropped in the middle of a write; what it cannot promise then is the
/// connection's end, and that is what a drop is.)
#[test]
fn a_future_dropped_at_any_poll_loses_and_repeats_nothing() {
    let (_guard, clock) = clock();
    let mut dropped_late = false;
    for k in 1.. {
        let (network, outbox, inbox) =
            (Network::default(), outbox_with(0..12), Inbox::new(Overflow::DropOldest));
        let (mut rx, mut tx) = ([0; 512], [0; 512]);
        let mut uplink =
            Uplink::new(network.clone(), Gateway::new("gateway:80"), &CONFIG, Numbers(k), &mut rx, &mut tx)
                .with_commands(&inbox, PATTERNS, Since::Latest);
        let mut model = Model { commands: 3, ..Model::default() };
        let mut commands = Vec::new();
        let mut whole = false;
        for round in 0..6 {
            let mut run = pin!(uplink.run(&outbox, |_| {}));
            let polls = if round < 2 { k } else { 2_000 };
            let mut cx = Context::from_waker(Waker::noop());
            for _ in 0..polls {
                assert!(run.as_mut().poll(&mut cx).is_pending());
                model.serve(&network);
                commands.extend(commands_of(&inbox));
                clock.advance(Duration::from_millis(1));
                whole = outbox.counts().waiting == 0 && commands.len() >= 4;
                if whole {
                    break;
                }
            }
            if whole {
                dropped_late |= round == 0;
                break;
            }
        }
        assert!(whole, "k = {k}: {:?} {commands:?}", outbox.counts());
        let expected: BTreeMap<u64, u32> = (0..12).map(|value| (u64::from(value) + 1, value)).collect();
        assert_eq!(model.taken, expected, "k = {k}");
        assert!(
            commands.iter().copied().eq(1..=u8::try_from(commands.len()).unwrap()),
            "k = {k}: {commands:?}"
        );
        assert_eq!(outbox.counts().acknowledged, 12);
        if dropped_late {
            // It takes no more polls than that.
            assert!(k > 50, "{k}");
            break;
        }
    }
}
