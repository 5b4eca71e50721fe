//! An uplink where no WebSocket can be had, against scripted answers in HTTP, under virtual time.
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

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Waker};

use common::{Numbers, Wire, clock, poll_times};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_time::{Duration, MockDriver, Timer};
use gateway::{Network, Seen};
use longwire_core::log::Since;
use longwire_core::session::backoff::Failure;
use longwire_core::session::ladder::{Ending, Rung};
use longwire_core::session::{Code, GapReason};
use longwire_embassy::{
    Arrival, Commands, Counts, Error, Gateway, HandshakeError, Lost, NoTokens, Outbox, Overflow, Policy,
    Present, Status, Tokens, Uplink, UplinkConfig, Why,
};
use tokens::Numbered;

static CONFIG: UplinkConfig = UplinkConfig::new();

type Readings = Outbox<NoopRawMutex, 4096>;
type Inbox = Commands<NoopRawMutex, 8, 64>;

/// A request, whole.
struct Request {
    line: String,
    head: String,
    body: Vec<u8>,
}

impl Request {
    fn is_upgrade(&self) -> bool {
        self.header("Upgrade").is_some()
    }

    fn is_stream(&self) -> bool {
        self.header("Accept") == Some("text/event-stream")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// Of a publication: what its key says after the incarnation.
    fn n(&self) -> u64 {
        let key = self.header("Idempotency-Key").unwrap().trim_matches('"');
        key.rsplit('-').next().unwrap().parse().unwrap()
    }

    fn value(&self) -> u32 {
        minicbor::decode(&self.body).unwrap()
    }
}

fn take_request(wire: &mut Wire) -> Option<Request> {
    let end = wire.from_client.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(wire.from_client[..end].to_vec()).unwrap();
    let mut request = Request { line: head.lines().next().unwrap().into(), head, body: Vec::new() };
    let len = request.header("Content-Length").map_or(0, |len| len.parse().unwrap());
    request.body = wire.from_client.get(end..end + len)?.to_vec();
    wire.from_client.drain(..end + len);
    Some(request)
}

/// Answers what came over all links. An empty answer ends the link.
fn serve(network: &Network, answer: &mut dyn FnMut(&Request) -> String) {
    for wire in network.wires.borrow().iter() {
        let mut wire = wire.borrow_mut();
        while let Some(request) = take_request(&mut wire) {
            let answer = answer(&request);
            wire.ended |= answer.is_empty();
            wire.to_client.extend(answer.as_bytes());
        }
    }
}

fn response(status: &str, kind: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn page() -> String {
    response("403 Forbidden", "text/html", "<html>no</html>")
}

fn json(status: &str, body: &str) -> String {
    response(status, "application/json", body)
}

fn published() -> String {
    json("200 OK", r#"{"at":"0000000000000007-9"}"#)
}

fn hello(lease: &str) -> String {
    format!(
        "event: hello\ndata: {{\"type\":\"hello\",\"session\":\"s-1\",\"heartbeat\":15000,\"lease\":{lease},\
         \"limits\":{{\"max_message\":200,\"max_topics\":9,\"max_inflight\":9}}}}\n\n"
    )
}

/// The head of an event stream and its first event, in chunks as a proxy cuts them.
fn stream(events: &str) -> String {
    chunked(&(hello("null") + events))
}

/// The head of an event stream, and these events.
fn chunked(events: &str) -> String {
    let mut out = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
        .to_owned();
    for piece in format!("retry: 2000\n\n{events}").as_bytes().chunks(23) {
        out += &chunk(str::from_utf8(piece).unwrap());
    }
    out
}

fn chunk(piece: &str) -> String {
    format!("{:x}\r\n{piece}\r\n", piece.len())
}

fn event(seq: u64) -> String {
    format!("id: 0000000000000007-{seq}\ndata: {}\n\n", envelope(seq, 0))
}

/// An event with so much that is of no interest.
fn envelope(seq: u64, more: usize) -> String {
    let later = "x".repeat(more);
    format!(
        r#"{{"type":"event","topic":"do/it","at":"0000000000000007-{seq}","later":"{later}","data":{seq}}}"#
    )
}

/// What a log with these events, in the order of their numbers from 1 on, answers to a poll.
fn polled(request: &Request, sizes: &[usize]) -> String {
    let from = since(request);
    let limit = request.line.split("&limit=").nth(1).unwrap().split(['&', ' ']).next().unwrap();
    let events = (1..).zip(sizes).filter(|(seq, _)| *seq > from).take(limit.parse().unwrap());
    let events: Vec<_> = events.map(|(seq, more)| envelope(seq, *more)).collect();
    let next = from + events.len() as u64;
    if request.line.contains("since=now") || events.is_empty() {
        let next = if request.line.contains("since=now") { sizes.len() as u64 } else { next };
        return format!("HTTP/1.1 204 No Content\r\nLongwire-Next: 0000000000000007-{next}\r\n\r\n");
    }
    json("200 OK", &format!(r#"{{"events":[{}],"next":"0000000000000007-{next}"}}"#, events.join(",")))
}

/// Where a stream is asked to begin.
fn since(request: &Request) -> u64 {
    let since = request.line.split("since=").nth(1).unwrap().split(['&', ' ']).next().unwrap();
    since.strip_prefix("0000000000000007-").map_or(0, |seq| seq.parse().unwrap())
}

struct Device {
    network: Network,
    readings: Readings,
    commands: Inbox,
    seen: Seen,
    /// Bytes of the buffers of the first line.
    sizes: (usize, usize),
}

impl Device {
    fn new(readings: std::ops::Range<u32>) -> Self {
        let outbox = Readings::new(Policy::DropOldest);
        readings.for_each(|value| outbox.reporter().try_report("device/7/n", Some("k"), &value).unwrap());
        let commands = Inbox::new(Overflow::DropOldest);
        Self {
            network: Network::default(),
            readings: outbox,
            commands,
            seen: Rc::new(RefCell::default()),
            sizes: (512, 512),
        }
    }

    fn taken(&self) -> Vec<u64> {
        let next = || match self.commands.try_next()? {
            Arrival::Command(command) => Some(command.decode().unwrap()),
            Arrival::Gap(gap) => panic!("{gap:?}"),
        };
        std::iter::from_fn(next).collect()
    }

    /// The same with gaps, which are about what was too large.
    fn taken_with_gaps(&self) -> Vec<String> {
        let next = || match self.commands.try_next()? {
            Arrival::Command(command) => Some(command.decode::<u64>().unwrap().to_string()),
            Arrival::Gap(gap) => {
                assert_eq!(gap.reason, GapReason::TooLarge);
                Some(format!("{}..={}", gap.from.seq + 1, gap.to.seq))
            }
        };
        std::iter::from_fn(next).collect()
    }

    /// Lets it go on, answered, for this time. Gives what it returned.
    fn run(
        &self,
        listens: bool,
        clock: &MockDriver,
        seconds: u64,
        answer: &mut dyn FnMut(&Request) -> String,
    ) -> Option<Lost> {
        self.run_with(listens, NoTokens, clock, seconds, &mut |_| serve(&self.network, answer))
    }

    /// The same with these tokens. `turn` is told the quarter of a second, and plays the network.
    fn run_with<T: Tokens>(
        &self,
        listens: bool,
        tokens: T,
        clock: &MockDriver,
        seconds: u64,
        turn: &mut dyn FnMut(u64),
    ) -> Option<Lost> {
        let (mut rx, mut tx) = (vec![0; self.sizes.0], vec![0; self.sizes.1]);
        let (mut post_rx, mut post_tx, mut space) = ([0; 512], [0; 512], [0; 600]);
        let gateway = Gateway { authorization: Some("Bearer secret"), ..Gateway::new("gateway:80") };
        let uplink = Uplink::new(self.network.clone(), gateway, &CONFIG, Numbers(1), &mut rx, &mut tx)
            .with_tokens(tokens, &mut space, Present::Head);
        let mut uplink = match listens {
            true => uplink.with_posts(self.network.clone(), &mut post_rx, &mut post_tx).with_commands(
                &self.commands,
                &["do/*"],
                Since::Now,
            ),
            false => uplink,
        };
        let mut run = pin!(uplink.run(&self.readings, |status| self.seen.borrow_mut().push(status)));
        for quarter in 0..seconds * 4 {
            let running = run.as_mut() as Pin<&mut dyn Future<Output = Lost>>;
            if let Some(end) = poll_times(running, 400) {
                return Some(end);
            }
            turn(quarter);
            clock.advance(Duration::from_millis(250));
        }
        None
    }

    fn rungs(&self) -> Vec<Rung> {
        let open = |status: &Status| if let Status::Open(rung) = status { Some(*rung) } else { None };
        self.seen.borrow().iter().filter_map(open).collect()
    }
}

#[test]
fn where_upgrade_is_refused_commands_come_over_sse_and_readings_go_by_post() {
    let (_guard, clock) = clock();
    let device = Device::new(0..5);
    let mut posted = Vec::new();
    let mut keys = Vec::new();
    let end = device.run(true, clock, 20, &mut |request| {
        assert_eq!(request.header("Authorization"), Some("Bearer secret"));
        if request.is_upgrade() {
            page()
        } else if request.is_stream() {
            assert_eq!(request.line, "GET /v1/stream?topic=do/%2A&since=now HTTP/1.1");
            stream(&(1..=3).map(event).collect::<String>())
        } else {
            assert_eq!(request.line, "POST /v1/topics/device/7/n?key=k HTTP/1.1");
            assert_eq!(request.header("Content-Type"), Some("application/cbor"));
            keys.push(request.header("Idempotency-Key").unwrap().split('-').next().unwrap().to_owned());
            posted.push((request.n(), request.value()));
            published()
        }
    });
    assert_eq!((end, device.rungs()), (None, vec![Rung::Sse]));
    assert_eq!(device.taken(), [1, 2, 3]);
    assert_eq!(posted, [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)]);
    keys.dedup();
    assert!(keys.len() == 1 && keys[0].len() == 16, "one incarnation: {keys:?}");
    assert_eq!(device.readings.counts().acknowledged, 5);
    // At once, without a wait in between; and one link for all posts.
    assert!(!device.seen.borrow().iter().any(|status| matches!(status, Status::Waiting(_))));
    assert_eq!(device.network.wires.borrow().len(), 3);
}

/// What there is of addresses to choose from is the connectors' business.
#[test]
fn both_connectors_are_told_where_somebody_answered_when_the_stream_ends() {
    let (_guard, clock) = clock();
    let device = Device::new(0..1);
    let end = device.run_with(true, NoTokens, clock, 3, &mut |quarter| {
        let mut answer = |request: &Request| match request {
            request if request.is_upgrade() => page(),
            request if request.is_stream() => stream(""),
            _ => published(),
        };
        serve(&device.network, &mut answer);
        // The refused upgrade, the stream, and the posts, whose link stands while the stream ends.
        if quarter == 8 {
            assert_eq!(*device.network.answered.borrow(), [0]);
            device.network.wires.borrow()[1].borrow_mut().ended = true;
        }
    });
    assert_eq!((end, device.readings.counts().acknowledged), (None, 1));
    assert_eq!(*device.network.answered.borrow(), [0, 2, 1]);
}

#[test]
fn events_of_any_cut_fit_a_buffer_for_one() {
    let (_guard, clock) = clock();
    for (rx, tx) in [(300, 1024), (300, 300), (1024, 300)] {
        let network = Network { pace: Some(4096), ..Network::default() };
        let device = Device { sizes: (rx, tx), network, ..Device::new(0..0) };
        let whole = |events: &str| {
            let hello = stream(events);
            let (head, _) = hello.split_once("Transfer-Encoding").unwrap();
            // As the gateway sends it: until the end of the connection, and here all at once.
            let mut body = String::new();
            for line in hello.split_once("\r\n\r\n").unwrap().1.split("\r\n").skip(1).step_by(2) {
                body += line;
            }
            format!("{head}\r\n{body}")
        };
        let mut taken = Vec::new();
        device.run(true, clock, 2, &mut |request| {
            if request.is_upgrade() { page() } else { whole(&(1..=8).map(event).collect::<String>()) }
        });
        taken.extend(device.taken());
        assert_eq!(taken, (1..=8).collect::<Vec<_>>(), "{rx} {tx} {:?}", device.seen);
    }
}

#[test]
fn where_streams_are_refused_too_it_polls() {
    let (_guard, clock) = clock();
    let device = Device::new(0..2);
    let mut asked = Vec::new();
    device.run(true, clock, 20, &mut |request| {
        if request.line.starts_with("POST") {
            published()
        } else if request.is_upgrade() || request.is_stream() {
            page()
        } else {
            asked.push(request.line.clone());
            let next = since(request) + 1;
            match asked.len() {
                1 => "HTTP/1.1 204 No Content\r\nLongwire-Next: 0000000000000007-4\r\n\r\n".to_owned(),
                2 => json(
                    "200 OK",
                    &format!("{{\"events\":[{}],\"next\":\"0000000000000007-{next}\"}}", envelope(next, 0)),
                ),
                _ => String::new(),
            }
        }
    });
    assert_eq!(device.rungs()[0], Rung::LongPoll);
    assert_eq!(device.taken(), [5]);
    assert_eq!(
        asked[..3],
        [
            "GET /v1/stream?topic=do/%2A&since=now&limit=1 HTTP/1.1",
            "GET /v1/stream?topic=do/%2A&since=0000000000000007-4&limit=1&wait=25 HTTP/1.1",
            "GET /v1/stream?topic=do/%2A&since=0000000000000007-5&limit=2&wait=25 HTTP/1.1",
        ]
    );
    assert_eq!(device.readings.counts().acknowledged, 2);
}

#[test]
fn polls_ask_for_as_many_events_as_fit_and_what_does_not_fit_comes_one_by_one() {
    let (_guard, clock) = clock();
    // Small ones, then some that are as large as can be, then small ones again.
    let sizes: Vec<_> = (0..60).map(|n| if (40..45).contains(&n) { 350 } else { 0 }).collect();
    for rx in [512, 2048] {
        let device = Device { sizes: (rx, 512), ..Device::new(0..0) };
        let (mut asked, mut taken) = (Vec::new(), Vec::new());
        device.run(true, clock, 30, &mut |request| {
            if request.is_upgrade() || request.is_stream() {
                return page();
            }
            taken.extend(device.taken());
            asked.push(request.line.clone());
            // The first answer says where the log is.
            if request.line.contains("since=now") { polled(request, &[]) } else { polled(request, &sizes) }
        });
        assert_eq!(taken, (1..=60).collect::<Vec<_>>(), "{rx}: {asked:?}");
        // One by one they would be 60, and more.
        let most = if rx == 512 { 50 } else { 25 };
        let until = asked.iter().position(|line| line.contains("-60&")).unwrap();
        assert!(until < most, "{rx}: {until} {asked:?}");
        assert!(!device.seen.borrow().contains(&Status::Lost(Lost::Broken(Error::MessageTooBig))));
    }
}

#[test]
fn a_command_above_the_receive_buffer_is_passed_over_and_a_gap_says_so() {
    let (_guard, clock) = clock();
    let sizes = [0, 0, 600, 0];
    for (streams, expected) in [(true, ["1", "2", "3..=4", "5"]), (false, ["1", "2", "3..=4", "5"])] {
        let device = Device::new(0..0);
        let (mut asked, mut taken) = (0, Vec::new());
        device.run(true, clock, 60, &mut |request| {
            taken.extend(device.taken_with_gaps());
            if request.is_upgrade() || (request.is_stream() && !streams) {
                return page();
            }
            asked += 1;
            match (streams, asked) {
                (true, 1) => stream(
                    &(1..)
                        .zip(sizes)
                        .map(|(seq, more)| format!("data: {}\n\n", envelope(seq, more)))
                        .collect::<String>(),
                ),
                (true, 2) => {
                    assert!(request.line.contains("since=now"), "{}", request.line);
                    let caught_up =
                        "event: caught_up\ndata: {\"type\":\"caught_up\",\"at\":\"0000000000000007-4\"}\n\n";
                    stream(&format!("{caught_up}{}", event(5)))
                }
                (true, _) => stream(""),
                (false, 1) => polled(request, &[]),
                (false, _) if taken.is_empty() || request.line.contains("since=now") => {
                    polled(request, &sizes)
                }
                (false, _) => polled(request, &[0, 0, 600, 0, 0]),
            }
        });
        taken.extend(device.taken_with_gaps());
        assert_eq!(taken, expected, "{streams} {:?}", device.seen);
    }
}

#[test]
fn after_a_reset_the_state_is_asked_for_whole_and_passed_over_when_it_cannot_be_had() {
    let (_guard, clock) = clock();
    let refusal = r#"{"code":"state_too_large","message":"more than 1 events","permanent":true}"#;
    let past =
        |n: u64| format!(r#"{{"type":"event","topic":"do/{n}","past":"0000000000000008-{n}","data":{n}}}"#);
    let gap = r#"{"from":"0000000000000007-9","to":"0000000000000008-3","reason":"reset"}"#;
    // What the state without a limit is answered with, and what comes of it.
    for (state, closes, expected) in [
        (Ok(2), false, vec!["Reset ..=3", "1", "2", "4"]),
        // Where each refusal ends its connection nobody knows on the next one what to ask for.
        (Ok(2), true, vec!["TooLarge ..=3", "4"]),
        (Ok(9), false, vec!["TooLarge ..=3", "4"]),
        (Err(()), false, vec!["TooLarge ..=3", "4"]),
        (Err(()), true, vec!["TooLarge ..=3", "4"]),
    ] {
        let device = Device::new(0..0);
        let (mut asked, mut taken) = (Vec::new(), Vec::new());
        let mut take = || {
            while let Some(arrival) = device.commands.try_next() {
                taken.push(match arrival {
                    Arrival::Command(command) => command.decode::<u64>().unwrap().to_string(),
                    Arrival::Gap(gap) => format!("{:?} ..={}", gap.reason, gap.to.seq),
                });
            }
        };
        let end = device.run(true, clock, 60, &mut |request| {
            take();
            if request.is_upgrade() || request.is_stream() {
                return page();
            }
            asked.push(request.line.clone());
            let limited = request.line.contains("&limit=");
            match (asked.len(), limited) {
                (1, _) => "HTTP/1.1 204 No Content\r\nLongwire-Next: 0000000000000007-9\r\n\r\n".to_owned(),
                _ if request.line.contains("since=0000000000000007-9") && (limited || state.is_err()) => {
                    let refused = json("413 Content Too Large", refusal);
                    let close = if closes { "\r\nConnection: close\r\n" } else { "\r\n" };
                    refused.replacen("\r\n", close, 1)
                }
                (_, false) => {
                    let events: Vec<_> = (1..=state.unwrap()).map(past).collect();
                    let events = events.join(",");
                    json(
                        "200 OK",
                        &format!(r#"{{"gap":{gap},"events":[{events}],"next":"0000000000000008-3"}}"#),
                    )
                }
                _ if request.line.contains("since=now") => {
                    "HTTP/1.1 204 No Content\r\nLongwire-Next: 0000000000000008-3\r\n\r\n".to_owned()
                }
                _ if request.line.contains("since=0000000000000008-3") => {
                    let event = envelope(4, 0).replace("7-4", "8-4");
                    json("200 OK", &format!(r#"{{"events":[{event}],"next":"0000000000000008-4"}}"#))
                }
                _ => String::new(),
            }
        });
        take();
        assert_eq!((end, taken), (None, expected.into_iter().map(Into::into).collect()), "{asked:?}");
    }
}

#[test]
fn a_grant_is_renewed_by_a_post_beside_the_stream() {
    let (_guard, clock) = clock();
    let device = Device::new(0..1);
    let (tokens, asked) = Numbered::new(4, 3);
    let (mut log, mut stream) = (Vec::new(), None);
    let network = device.network.clone();
    let end = device.run_with(true, tokens, clock, 100, &mut |quarter| {
        if quarter % 20 == 10 {
            device.readings.reporter().try_report("device/7/n", None, &7u32).unwrap();
        }
        let mut renewed = false;
        for (index, wire) in network.wires.borrow().iter().enumerate() {
            let Some(request) = take_request(&mut wire.borrow_mut()) else { continue };
            let token = request.header("Authorization").unwrap();
            log.push(format!("{} {token}", request.line.split('?').next().unwrap().replace(" HTTP/1.1", "")));
            let answer = if request.is_upgrade() {
                page()
            } else if request.is_stream() {
                stream = Some(index);
                chunked(&hello("30000"))
            } else if request.line.starts_with("POST /v1/session/s-1/auth ") {
                assert_eq!((request.header("Content-Length"), request.body.len()), (Some("0"), 0));
                renewed = true;
                "HTTP/1.1 204 No Content\r\n\r\n".to_owned()
            } else {
                published()
            };
            wire.borrow_mut().to_client.extend(answer.as_bytes());
        }
        if renewed {
            let wires = network.wires.borrow();
            wires[stream.unwrap()].borrow_mut().to_client.extend(chunk(&hello("40000")).as_bytes());
        } else if quarter % 40 == 0
            && let Some(stream) = stream
        {
            // A sign of life.
            network.wires.borrow()[stream].borrow_mut().to_client.extend(chunk(":\n").as_bytes());
        }
    });
    assert_eq!((end, device.rungs()), (None, vec![Rung::Sse]));
    // By its own clock, two thirds into each grant.
    assert_eq!(asked.take(), [Why::Connect, Why::Connect, Why::Renew, Why::Renew, Why::Renew]);
    log.dedup();
    assert_eq!(
        log,
        [
            "GET /v1/stream Bearer token-1",
            "GET /v1/stream Bearer token-2",
            "POST /v1/topics/device/7/n Bearer token-2",
            "POST /v1/session/s-1/auth Bearer token-3",
            "POST /v1/topics/device/7/n Bearer token-3",
            "POST /v1/session/s-1/auth Bearer token-4",
            "POST /v1/topics/device/7/n Bearer token-4",
        ],
    );
    // The fifth was not to be had: until the grant ends, what is left of it is for what comes down.
    assert!(device.readings.counts().waiting > 0);
    let renewed = device.seen.borrow().iter().filter(|status| **status == Status::Renewed).count();
    assert_eq!(renewed, 2, "{:?}", device.seen);
}

#[test]
fn a_second_renewal_that_is_asked_for_while_the_first_is_under_way_is_made_too() {
    let (_guard, clock) = clock();
    let device = Device::new(0..0);
    let (tokens, asked) = Numbered::new(9, 3);
    let renew = chunk("event: renew\ndata: {\"type\":\"renew\",\"within\":20000}\n\n");
    // The stream's and the POST's wires, and which tokens were shown.
    let (mut stream, mut post, mut shown) = (None, None, Vec::new());
    let network = device.network.clone();
    let end = device.run_with(true, tokens, clock, 12, &mut |quarter| {
        let wires = network.wires.borrow();
        for (index, wire) in wires.iter().enumerate() {
            let Some(request) = take_request(&mut wire.borrow_mut()) else { continue };
            let answer = if request.is_upgrade() {
                page()
            } else if request.is_stream() {
                stream = Some(index);
                chunked(&hello("null"))
            } else {
                post = Some(index);
                shown.push(request.header("Authorization").unwrap().to_owned());
                String::new()
            };
            wire.borrow_mut().to_client.extend(answer.as_bytes());
        }
        let say = |to: Option<usize>, what: &str| {
            wires[to.unwrap()].borrow_mut().to_client.extend(what.as_bytes());
        };
        match quarter {
            4 | 12 => say(stream, &renew),
            20 | 28 => say(post, "HTTP/1.1 204 No Content\r\n\r\n"),
            _ => {}
        }
    });
    assert_eq!((end, shown), (None, vec!["Bearer token-3".to_owned(), "Bearer token-4".to_owned()]));
    assert_eq!(asked.take(), [Why::Connect, Why::Connect, Why::Renew, Why::Renew]);
}

#[test]
fn a_token_that_leaves_no_room_for_a_post_ends_the_uplink_and_costs_no_reading() {
    /// As many bytes to connect with, and to renew with.
    struct Long(usize, usize);

    impl Tokens for Long {
        async fn token(&mut self, why: Why, space: &mut [u8]) -> Option<usize> {
            let len = if why == Why::Renew { self.1 } else { self.0 };
            space[..len].fill(b't');
            Some(len)
        }
    }

    let (_guard, clock) = clock();
    // With as many bytes of credential, of six readings, one of which is large: how many are published and too large.
    for (tokens, published_first, end, too_large) in [
        (Long(9, 9), 6, None, 0),
        (Long(320, 320), 5, None, 1),
        (Long(420, 420), 0, Some(Lost::TooLong), 0),
        (Long(9, 440), 6, Some(Lost::TooLong), 0),
    ] {
        let (what, long) = (format!("{} {}", tokens.0, tokens.1), [7; 90]);
        let device = Device { sizes: (1024, 1024), ..Device::new(0..3) };
        let report = |range: std::ops::Range<u32>| {
            for value in range {
                device.readings.reporter().try_report("device/7/n", Some("k"), &value).unwrap();
            }
        };
        device.readings.reporter().try_report("device/7/n", None, &long).unwrap();
        report(4..6);
        let mut answer = |request: &Request| {
            if request.is_upgrade() {
                page()
            } else if request.is_stream() {
                chunked(&hello("30000"))
            } else if request.line.contains("/auth ") {
                "HTTP/1.1 204 No Content\r\n\r\n".to_owned()
            } else {
                published()
            }
        };
        let ended = device.run_with(true, tokens, clock, 25, &mut |quarter| {
            serve(&device.network, &mut answer);
            if quarter == 78 {
                let counts = device.readings.counts();
                assert_eq!((counts.acknowledged, counts.too_large), (published_first, too_large), "{what}");
            } else if quarter > 78 {
                // Whenever the grant is renewed something is waiting.
                report(0..1);
            }
        });
        let counts = device.readings.counts();
        assert_eq!((ended, counts.too_large), (end, too_large), "{what} {:?}", device.seen);
        assert!(end.is_none() || counts.waiting > 0, "{what}: {counts:?}");
    }
}

#[test]
fn a_token_that_takes_its_time_takes_none_of_the_answers() {
    /// Gives another one after 9.9 s.
    struct Slow;

    impl Tokens for Slow {
        async fn token(&mut self, why: Why, space: &mut [u8]) -> Option<usize> {
            if why == Why::Renew {
                Timer::after_millis(9_900).await;
            }
            space[..5].copy_from_slice(b"token");
            Some(5)
        }
    }

    let (_guard, clock) = clock();
    // With a connection for posts that is open, and without one.
    for readings in [1, 0] {
        let device = Device::new(0..readings);
        let renew = chunk("event: renew\ndata: {\"type\":\"renew\",\"within\":20000}\n\n");
        let (mut answer_at, mut shown) = (None, 0);
        let end = device.run_with(true, Slow, clock, 20, &mut |quarter| {
            let wires = device.network.wires.borrow();
            for wire in wires.iter() {
                let mut wire = wire.borrow_mut();
                let Some(request) = take_request(&mut wire) else { continue };
                let answer = if request.is_upgrade() {
                    page()
                } else if request.is_stream() {
                    chunked(&hello("null"))
                } else if request.line.contains("/auth ") {
                    (answer_at, shown) = (Some(quarter + 4), shown + 1);
                    assert_eq!(shown, 1, "{readings}");
                    String::new()
                } else {
                    published()
                };
                wire.to_client.extend(answer.as_bytes());
            }
            if quarter == 8 {
                assert_eq!(wires.len(), if readings == 0 { 2 } else { 3 });
                wires[1].borrow_mut().to_client.extend(renew.as_bytes());
            }
            if answer_at == Some(quarter) {
                // A second later.
                wires[2].borrow_mut().to_client.extend(b"HTTP/1.1 204 No Content\r\n\r\n");
            }
        });
        assert_eq!((end, shown, device.network.wires.borrow().len()), (None, 1, 3), "{readings}");
    }
}

#[test]
fn rfc_9112_section_9_3_1_a_link_that_the_gateway_closed_costs_a_post_no_time() {
    let (_guard, clock) = clock();
    let device = Device::new(0..9);
    let (mut posted, mut cut) = (Vec::new(), 0);
    device.run(false, clock, 10, &mut |request| {
        if request.is_upgrade() {
            return page();
        }
        posted.push(request.n());
        // Each third request meets a gateway that has just closed.
        if posted.len() % 3 == 0 {
            cut += 1;
            return String::new();
        }
        published()
    });
    assert_eq!(posted, [1, 2, 3, 3, 4, 5, 5, 6, 7, 7, 8, 9, 9], "{:?}", device.seen);
    assert_eq!((cut, device.readings.counts().acknowledged), (4, 9));
    assert!(!device.seen.borrow().iter().any(|status| matches!(status, Status::Waiting(_))));
    // Where none was ever answered it is another matter.
    let device = Device::new(0..1);
    device.run(false, clock, 2, &mut |request| if request.is_upgrade() { page() } else { String::new() });
    assert!(device.seen.borrow().iter().any(|status| matches!(status, Status::Waiting(_))));
}

#[test]
fn the_only_reading_is_posted_again_beside_a_stream_after_a_cut() {
    let (_guard, clock) = clock();
    let (device, mut posts) = (Device::new(0..1), 0);
    device.run(true, clock, 10, &mut |request| {
        if request.is_upgrade() {
            return page();
        } else if request.is_stream() {
            return stream("");
        }
        posts += 1;
        if posts < 3 { String::new() } else { published() }
    });
    assert_eq!((posts, device.readings.counts().acknowledged), (3, 1), "{:?}", device.seen);
}

#[test]
fn an_answer_has_all_of_its_time_however_long_nothing_was_asked_before() {
    let (_guard, clock) = clock();
    let device = Device::new(0..1);
    let mut posts = 0;
    let mut answer = |request: &Request| {
        posts += usize::from(!request.is_upgrade());
        if request.is_upgrade() { page() } else { published() }
    };
    device.run_with(false, NoTokens, clock, 80, &mut |quarter| {
        // An answer may take 35 s.
        if quarter == 136 {
            device.readings.reporter().try_report("device/7/n", None, &7u32).unwrap();
        }
        // And the network is away for a while.
        if !(136..168).contains(&quarter) {
            serve(&device.network, &mut answer);
        }
    });
    assert_eq!((posts, device.readings.counts().acknowledged), (2, 2));
    assert!(
        !device.seen.borrow().iter().any(|status| matches!(status, Status::Waiting(_))),
        "{:?}",
        device.seen
    );
}

#[test]
fn what_a_post_is_answered_with_settles_its_reading() {
    let (_guard, clock) = clock();
    let device = Device::new(0..6);
    let start = embassy_time::Instant::now();
    let mut posted = Vec::new();
    device.run(false, clock, 60, &mut |request| {
        if request.is_upgrade() {
            return page();
        }
        posted.push((request.n(), start.elapsed().as_secs()));
        let times = posted.iter().filter(|(n, _)| *n == request.n()).count();
        match (request.n(), times) {
            (2, 1) => json(
                "429 Too Many Requests",
                r#"{"code":"over_quota","message":"","permanent":false,"retry_after":5000}"#,
            ),
            (3, _) => json("400 Bad Request", r#"{"code":"bad_topic","message":"","permanent":true}"#),
            (4, _) => json("507 Full", r#"{"code":"topics_full","message":"","permanent":false}"#),
            (5, 1) => response("502 Bad Gateway", "text/html", "<html>away</html>"),
            (5, 2) => String::new(),
            // Where the body does not say when, the head does.
            (6, 1) => {
                json("503 Service Unavailable", r#"{"code":"unavailable","message":"","permanent":false}"#)
                    .replacen("\r\n", "\r\nRetry-After: 7\r\n", 1)
            }
            (6, _) => json("200 OK", r#"{"at":"0000000000000007-9","pressure":3000}"#),
            _ => published(),
        }
    });
    let numbers: Vec<_> = posted.iter().map(|(n, _)| *n).collect();
    assert_eq!(numbers, [1, 2, 2, 3, 4, 5, 5, 5, 6, 6], "{posted:?}");
    assert!((5..8).contains(&(posted[2].1 - posted[1].1)), "{posted:?}");
    assert!(posted[9].1 - posted[8].1 >= 7, "{posted:?}");
    let counts = Counts { reported: 6, acknowledged: 4, refused: 2, ..Counts::default() };
    assert_eq!(device.readings.counts(), counts);
    assert_eq!(device.rungs()[0], Rung::Poll);
}

#[test]
fn a_reading_is_published_when_its_position_is_told_or_that_it_is_a_repetition() {
    let (_guard, clock) = clock();
    let device = Device::new(0..2);
    let (mut answered, mut acknowledged) = (0, Vec::new());
    device.run(false, clock, 60, &mut |request| {
        if request.is_upgrade() {
            return page();
        }
        acknowledged.push(device.readings.counts().acknowledged);
        answered += 1;
        match answered {
            // Of who stands between, and wants a password.
            1 => json("200 OK", "{}"),
            2 => json("200 OK", r#"{"status":"ok"}"#),
            3 => json("200 OK", "{}").replacen("\r\n", "\r\nLongwire-Repeated: false\r\n", 1),
            4 => json("200 OK", "{}").replacen("\r\n", "\r\nLongwire-Repeated: true\r\n", 1),
            _ => published(),
        }
    });
    assert_eq!(acknowledged, [0, 0, 0, 0, 1], "{:?}", device.seen);
    assert_eq!(device.readings.counts().acknowledged, 2);
}

#[test]
fn while_the_gateway_asked_to_wait_nothing_is_posted_and_no_link_is_opened_over_and_over() {
    let (_guard, clock) = clock();
    let over_quota = json(
        "429 Too Many Requests",
        r#"{"code":"over_quota","message":"","permanent":false,"retry_after":60000}"#,
    );
    // Beside a stream, and without one; a front that closes, and one that says what nobody asked for.
    for (listens, closes) in [(true, true), (true, false), (false, true), (false, false)] {
        let device = Device::new(0..2);
        let start = embassy_time::Instant::now();
        let mut posted = Vec::new();
        device.run_with(listens, NoTokens, clock, 120, &mut |quarter| {
            let waits = posted.len() == 1 && start.elapsed().as_secs() < 60;
            for (index, wire) in device.network.wires.borrow().iter().enumerate() {
                let mut wire = wire.borrow_mut();
                if listens && index == 1 {
                    let sign_of_life = chunk(":\n");
                    wire.to_client.extend(sign_of_life.as_bytes().iter().filter(|_| quarter % 40 == 39));
                } else if waits && closes {
                    wire.ended = true;
                } else if waits && wire.from_client.is_empty() && wire.to_client.is_empty() {
                    wire.to_client.push_back(b'?');
                }
            }
            serve(&device.network, &mut |request| {
                if request.is_upgrade() {
                    return page();
                } else if request.is_stream() {
                    return stream("");
                }
                posted.push(start.elapsed().as_secs());
                if posted.len() == 1 { over_quota.clone() } else { published() }
            });
        });
        let held = matches!(posted[..], [0, next, last] if next >= 60 && last >= 60);
        assert!(held, "{listens} {closes}: {posted:?} {:?}", device.seen);
        let links = device.network.wires.borrow().len();
        assert!(links < 30, "{listens} {closes}: {links} {:?}", device.seen);
        assert_eq!(device.readings.counts().acknowledged, 2);
    }
}

#[test]
fn a_gateway_that_says_no_is_no_reason_for_another_transport() {
    let (_guard, clock) = clock();
    let device = Device::new(0..1);
    let mut upgrades = 0;
    let refusal = r#"{"code":"too_many_connections","message":"","permanent":false,"retry_after":7000}"#;
    device.run(true, clock, 6, &mut |request| {
        assert!(request.is_upgrade());
        upgrades += 1;
        json("503 Service Unavailable", refusal)
    });
    assert_eq!(upgrades, 1);
    let told =
        Failure::Told { retry_after: core::time::Duration::from_secs(7), window: core::time::Duration::ZERO };
    let refused = HandshakeError::Refused { status: 503, retry_after: None, said: Some(Ending::Said(told)) };
    assert_eq!(device.seen.borrow()[1], Status::Lost(Lost::Handshake(refused)));
    // For good.
    let device = Device::new(0..1);
    let refusal = r#"{"code":"forbidden","message":"","permanent":true}"#;
    let end = device.run(true, clock, 6, &mut |_| json("403 Forbidden", refusal));
    assert!(matches!(end, Some(Lost::Handshake(HandshakeError::Refused { status: 403, .. }))), "{end:?}");
    // As `bye` on a stream, which has no other place for it.
    let device = Device::new(0..1);
    let bye = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nretry: 9000\n\nevent: bye\n\
               data: {\"type\":\"bye\",\"code\":\"unauthorized\",\"permanent\":true,\"message\":\"\"}\n\n";
    let end =
        device.run(true, clock, 6, &mut |request| if request.is_upgrade() { page() } else { bye.to_owned() });
    assert_eq!(end, Some(Lost::Bye(Some(Code::Unauthorized), Ending::Unauthorized)));
}

#[test]
fn a_better_transport_is_tried_again_and_the_one_that_works_goes_on_from_the_cursor() {
    let (_guard, clock) = clock();
    let device = Device::new(0..1);
    let (mut upgrades, mut streams) = (0, Vec::new());
    device.run(true, clock, 700, &mut |request| {
        if request.is_upgrade() {
            upgrades += 1;
            page()
        } else if request.is_stream() {
            let from = since(request);
            streams.push(from);
            // It ends before long; nothing else is heard.
            stream(&event(from + 1))
        } else {
            published()
        }
    });
    // Within 5 minutes of the first, and 10 of the second.
    assert!((2..=4).contains(&upgrades), "{upgrades}");
    assert!(device.seen.borrow().contains(&Status::Lost(Lost::LookUp)), "{:?}", device.seen);
    let expected: Vec<_> = (0..streams.len() as u64).collect();
    assert_eq!(streams, expected, "each goes on behind the one before it");
}

#[test]
fn a_future_dropped_at_any_poll_loses_and_repeats_nothing() {
    let (_guard, clock) = clock();
    for k in 1.. {
        let device = Device::new(0..6);
        let (mut rx, mut tx, mut post_rx, mut post_tx) = ([0; 512], [0; 512], [0; 512], [0; 512]);
        let mut uplink = Uplink::new(
            device.network.clone(),
            Gateway::new("gateway:80"),
            &CONFIG,
            Numbers(k),
            &mut rx,
            &mut tx,
        )
        .with_posts(device.network.clone(), &mut post_rx, &mut post_tx)
        .with_commands(&device.commands, &["do/*"], Since::Latest);
        let mut stored = BTreeMap::new();
        let mut commands = Vec::new();
        let mut answer = |request: &Request| {
            if request.is_upgrade() {
                page()
            } else if request.is_stream() {
                stream(&(since(request) + 1..=4).map(event).collect::<String>())
            } else {
                let value = *stored.entry(request.n()).or_insert(request.value());
                assert_eq!(value, request.value(), "the same number, the same reading");
                published()
            }
        };
        let mut rounds = 0;
        let whole = loop {
            rounds += 1;
            let mut run = pin!(uplink.run(&device.readings, |_| {}));
            let mut cx = Context::from_waker(Waker::noop());
            let mut whole = false;
            for _ in 0..if rounds < 3 { k } else { 4_000 } {
                assert!(run.as_mut().poll(&mut cx).is_pending());
                serve(&device.network, &mut answer);
                commands.extend(device.taken());
                clock.advance(Duration::from_millis(1));
                whole = device.readings.counts().waiting == 0 && commands.len() >= 4;
                if whole {
                    break;
                }
            }
            if whole || rounds == 4 {
                break whole;
            }
        };
        assert!(whole, "k = {k}: {:?} {commands:?}", device.readings.counts());
        let expected: BTreeMap<u64, u32> = (0..6).map(|value| (u64::from(value) + 1, value)).collect();
        assert_eq!((stored, commands), (expected, vec![1, 2, 3, 4]), "k = {k}");
        assert_eq!(device.readings.counts().acknowledged, 6);
        if rounds == 1 {
            // It takes no more polls than that.
            assert!(k > 100, "{k}");
            break;
        }
    }
}
