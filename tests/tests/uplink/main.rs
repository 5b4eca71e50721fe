//! `longwire-embassy` on this machine at a real gateway: names, tokens, commands, and every rung of the ladder.

mod host;
mod tls;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use host::{Host, NAME, Numbers, clock, run};
use longwire_core::log::Since;
use longwire_core::session::GapReason;
use longwire_core::session::ladder::{LadderConfig, Rung, Rungs};
use longwire_embassy::{
    Arrival, Commands, Connect, Form, Gateway as Remote, Lost, Nal, NoTokens, Outbox, Overflow, Policy,
    Present, Status, Tokens, Uplink, UplinkConfig, Why,
};
use longwire_tests::device::Conversation;
use longwire_tests::gateway::Gateway;
use longwire_tests::proxy::{Kind, Proxy, Way};
use longwire_tests::relay::Relay;
use serde_json::{Value, json};

type Readings = Outbox<NoopRawMutex, 4096>;
type Inbox = Commands<NoopRawMutex, 8, 64>;

static CBOR: UplinkConfig = UplinkConfig::new();
static JSON: UplinkConfig = UplinkConfig { form: Form::Json, ..UplinkConfig::new() };
static SSE: UplinkConfig = only(Rung::Sse);
static LONG_POLL: UplinkConfig = only(Rung::LongPoll);

const fn only(rung: Rung) -> UplinkConfig {
    UplinkConfig {
        ladder: LadderConfig { rungs: Rungs::only(rung), ..LadderConfig::new() },
        ..UplinkConfig::new()
    }
}

const PATTERNS: &[&str] = &["device/7/do/*", "all/*"];

/// What a device has, but its network.
struct Device {
    host: Host,
    readings: Readings,
    commands: Inbox,
    seen: RefCell<Vec<Status>>,
}

impl Device {
    fn new() -> Self {
        Self {
            host: Host::default(),
            readings: Readings::new(Policy::DropOldest),
            commands: Inbox::new(Overflow::DropOldest),
            seen: RefCell::default(),
        }
    }

    fn report(&self, values: std::ops::Range<u32>) {
        for value in values {
            self.readings.reporter().try_report("device/7/n", None, &value).expect("room");
        }
    }

    fn rungs(&self) -> Vec<Rung> {
        let open = |status: &Status| if let Status::Open(rung) = status { Some(*rung) } else { None };
        self.seen.borrow().iter().filter_map(open).collect()
    }

    fn is_empty(&self) -> bool {
        self.readings.counts().waiting == 0
    }

    fn said(&self) -> String {
        format!("{:?}\n{:?}\n{:?}", self.seen.borrow(), self.readings.counts(), self.commands.counts())
    }

    fn next_command(&self) -> Option<(String, u32)> {
        match self.commands.try_next()? {
            Arrival::Command(command) => {
                Some((command.topic().to_owned(), command.decode().expect("a number")))
            }
            Arrival::Gap(gap) => panic!("{gap:?}"),
        }
    }
}

/// How a device is set up.
struct Setup<T> {
    config: &'static UplinkConfig,
    listens: bool,
    tokens: T,
    present: Present,
}

const PLAIN: Setup<NoTokens> =
    Setup { config: &CBOR, listens: true, tokens: NoTokens, present: Present::Head };

/// Lets a device go on until something has happened, and gives what it returned.
type Turn<'t> = dyn FnMut(&dyn Fn() -> bool) -> Option<Lost> + 't;

/// Runs `test` beside a device that talks to this port.
fn with_device<T: Tokens>(device: &Device, port: u16, setup: Setup<T>, test: impl FnOnce(&mut Turn<'_>)) {
    let connect = || Nal::new(&device.host, &device.host, NAME, port);
    let host = format!("localhost:{port}");
    with_device_over([connect(), connect()], device, &host, setup, test);
}

/// The same over any two connectors.
fn with_device_over<C: Connect, T: Tokens>(
    [line, side]: [C; 2],
    device: &Device,
    host: &str,
    setup: Setup<T>,
    test: impl FnOnce(&mut Turn<'_>),
) {
    let (mut rx, mut tx, mut post_rx, mut post_tx, mut space) =
        ([0; 1024], [0; 1024], [0; 512], [0; 512], [0; 64]);
    let uplink = Uplink::new(line, Remote::new(host), setup.config, Numbers::from_env(), &mut rx, &mut tx)
        .with_tokens(setup.tokens, &mut space, setup.present)
        .with_counts("device/7/counts", embassy_time::Duration::from_millis(1));
    let mut uplink = match setup.listens {
        true => uplink.with_posts(side, &mut post_rx, &mut post_tx).with_commands(
            &device.commands,
            PATTERNS,
            Since::Now,
        ),
        false => uplink,
    };
    let running = uplink.run(&device.readings, |status| device.seen.borrow_mut().push(status));
    let mut running = pin!(running);
    test(&mut |done| {
        let running = running.as_mut() as std::pin::Pin<&mut dyn Future<Output = Lost>>;
        run(running, || device.said(), done)
    });
}

/// Everything on this topic that the gateway holds.
fn stored(gateway: &Gateway, start: &str, topic: &str) -> Vec<Value> {
    let target = format!("/v1/stream?topic={topic}&since={start}");
    let response = gateway.get(&target);
    if response.status == 204 {
        return Vec::new();
    }
    let answer = response.json();
    assert!(answer.get("gap").is_none() && answer.get("more").is_none(), "{answer}");
    answer["events"].as_array().expect("events").iter().map(|event| event["data"].clone()).collect()
}

fn numbers(range: std::ops::Range<u32>) -> Vec<Value> {
    range.map(Value::from).collect()
}

/// Readings go up, and commands come down, once and in order.
fn exchange(device: &Device, gateway: &Gateway, port: u16, setup: Setup<NoTokens>, rungs: &[Rung]) {
    let (start, listens) = (gateway.publish("test/start", &Value::Null), setup.listens);
    with_device(device, port, setup, |turn| up_and_down(device, gateway, listens, turn));
    went_well(device, gateway, &start, rungs);
}

fn up_and_down(device: &Device, gateway: &Gateway, listens: bool, turn: &mut Turn<'_>) {
    device.report(0..20);
    assert_eq!(turn(&|| !device.rungs().is_empty() && device.is_empty()), None);
    device.report(20..40);
    if listens {
        // It is known to listen by its first command.
        for n in 0..100 {
            gateway.publish("all/begin", &n.into());
            let deadline = Cell::new(20);
            turn(&|| {
                deadline.set(deadline.get() - 1);
                deadline.get() == 0 || device.commands.counts().waiting > 0
            });
            if device.commands.counts().waiting > 0 {
                break;
            }
        }
        for n in 0..20 {
            gateway.publish("device/7/do/n", &n.into());
            // More than one of those may have been on its way.
            let command = loop {
                turn(&|| device.commands.counts().waiting > 0);
                let command = device.next_command();
                if !matches!(&command, Some((topic, _)) if topic == "all/begin") {
                    break command;
                }
            };
            assert_eq!(command, Some(("device/7/do/n".into(), n)));
        }
    }
    assert_eq!(turn(&|| device.is_empty()), None);
}

/// After [`up_and_down`].
fn went_well(device: &Device, gateway: &Gateway, start: &str, rungs: &[Rung]) {
    assert_eq!(stored(gateway, start, "device/7/n"), numbers(0..40));
    assert_eq!(device.rungs(), rungs, "{}", device.said());
    let counts = device.readings.counts();
    assert_eq!((counts.reported, counts.acknowledged), (40, 40));
}

#[test]
fn readings_go_up_and_commands_come_down() {
    let _clock = clock();
    for config in [&CBOR, &JSON] {
        let (device, gateway) = (Device::new(), Gateway::start());
        let setup = Setup { config, ..PLAIN };
        exchange(&device, &gateway, gateway.address.port(), setup, &[Rung::WebSocket]);
        assert_eq!((device.host.looked_up.get(), device.host.connected.get()), (1, 1));
    }
}

/// nginx in between.
#[test]
fn the_ladder_goes_down_to_what_a_proxy_lets_pass() {
    let _clock = clock();
    for (way, listens, rung) in [
        (Way::Pass, true, Rung::WebSocket),
        (Way::Refuse, true, Rung::Sse),
        (Way::Buffer, true, Rung::LongPoll),
        (Way::Refuse, false, Rung::Poll),
    ] {
        let (device, gateway) = (Device::new(), Gateway::start());
        let proxy = Proxy::start(Kind::Nginx, gateway.address);
        let url = proxy.url(way);
        let port = url.rsplit(':').next().expect("a port").parse().expect("a number");
        exchange(&device, &gateway, port, Setup { listens, ..PLAIN }, &[rung]);
    }
}

#[test]
fn a_gateway_that_lost_its_past_gets_again_what_it_had_not_acknowledged_and_says_that_commands_are_missing() {
    let _clock = clock();
    let options = ["--reconnect-window=100ms"];
    let (device, mut gateway) = (Device::new(), Gateway::start_with(&options));
    let relay = Relay::start(gateway.address);
    device.report(0..5);
    with_device(&device, relay.address.port(), PLAIN, |turn| {
        turn(&|| device.is_empty());
        gateway.publish("all/x", &1.into());
        turn(&|| device.commands.counts().waiting > 0);
        assert_eq!(device.next_command(), Some(("all/x".into(), 1)));
        for round in 1..3u32 {
            relay.cut();
            // Sent, perhaps, and never acknowledged.
            device.report(round * 10..round * 10 + 5);
            turn(&|| matches!(device.seen.borrow().last(), Some(Status::Waiting(_))));
            gateway = Gateway::start_with(&options);
            gateway.publish("all/y", &round.into());
            let start = gateway.publish("test/start", &Value::Null);
            relay.set_target(gateway.address);
            relay.mend();
            turn(&|| device.is_empty() && device.commands.counts().waiting > 0);
            assert_eq!(stored(&gateway, &start, "device/7/n"), numbers(round * 10..round * 10 + 5));
            let Some(Arrival::Gap(gap)) = device.commands.try_next() else { panic!("{}", device.said()) };
            assert_eq!(gap.reason, GapReason::Reset);
            // The state.
            assert_eq!(device.next_command(), Some(("all/y".into(), round)));
        }
    });
    let talks: Vec<_> = relay.taps().iter().filter_map(Conversation::of).collect();
    assert!(talks.len() >= 3, "{}", device.said());
    assert!(device.readings.counts().acknowledged == 15);
}

#[test]
fn what_overflows_during_a_long_cut_is_counted_on_both_sides_to_the_reading() {
    let _clock = clock();
    let (device, gateway) = (Device::new(), Gateway::start_with(&["--reconnect-window=100ms"]));
    let relay = Relay::start(gateway.address);
    let start = gateway.publish("test/start", &Value::Null);
    device.report(0..1000);
    let before = device.readings.counts();
    assert!(before.dropped_oldest > 500, "{before:?}");
    with_device(&device, relay.address.port(), PLAIN, |turn| {
        turn(&|| device.is_empty());
        relay.cut();
        device.report(1000..2000);
        relay.mend();
        turn(&|| device.is_empty());
    });
    let counts = device.readings.counts();
    let values = stored(&gateway, &start, "device/7/n");
    let told = stored(&gateway, &start, "device/7/counts");
    assert!(!told.is_empty());
    assert_eq!(values.len() + told.len(), usize::try_from(counts.acknowledged).expect("few"), "{counts:?}");
    assert_eq!(counts.reported - counts.conflated, 2000 + u32::try_from(told.len()).expect("few"));
    assert_eq!(counts.reported, counts.acknowledged + counts.lost());
    assert!(values.is_sorted_by_key(|value| value.as_u64()), "{values:?}");
    let last = told.last().expect("one");
    assert_eq!(last["dropped_oldest"], json!(counts.dropped_oldest), "{told:?}");
}

/// A list of tokens; each lasts for a while.
struct List<'a> {
    tokens: std::slice::Iter<'a, String>,
    asked: &'a RefCell<Vec<Why>>,
    last: String,
}

impl Tokens for List<'_> {
    async fn token(&mut self, why: Why, space: &mut [u8]) -> Option<usize> {
        self.asked.borrow_mut().push(why);
        if why != Why::Connect || self.last.is_empty() {
            self.last = self.tokens.next()?.clone();
        }
        space.get_mut(..self.last.len())?.copy_from_slice(self.last.as_bytes());
        Some(self.last.len())
    }
}

/// As in RFC 3339, so many seconds from now.
fn from_now(seconds: u64) -> String {
    let time = (SystemTime::now() + Duration::from_secs(seconds)).duration_since(SystemTime::UNIX_EPOCH);
    let seconds = time.expect("after 1970").as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years.
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// A gateway that takes these tokens, each until so many seconds from its start.
fn guarded(tokens: &[(&str, u64)]) -> Gateway {
    guarded_with(tokens, Gateway::start_with)
}

fn guarded_with(tokens: &[(&str, u64)], start: impl FnOnce(&[&str]) -> Gateway) -> Gateway {
    // If it has to be built, that is not to take of their time.
    drop(Gateway::start());
    let mut file = String::new();
    for (secret, lasts) in tokens {
        let expires = from_now(*lasts);
        file += &format!(
            "[[token]]\nsecret = \"{secret}\"\nsubject = \"device-7\"\nsubscribe = [\"device/7/do/*\", \"all/*\"]\n\
             publish = [\"device/7/*\", \"all/*\"]\nexpires = {expires}\n"
        );
    }
    static FILES: AtomicU32 = AtomicU32::new(0);
    let nth = FILES.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("longwire-uplink-{}-{nth}.toml", std::process::id()));
    std::fs::write(&path, file).expect("a file");
    let gateway = start(&["--token-file", path.to_str().expect("UTF-8")]);
    std::fs::remove_file(&path).expect("it was read");
    gateway
}

#[test]
fn a_grant_is_renewed_in_band_and_the_connection_goes_on() {
    let _clock = clock();
    for present in [Present::Head, Present::InBand] {
        let gateway = guarded(&[("first", 10), ("second", 20), ("third", 3600)]);
        let (device, asked) = (Device::new(), RefCell::default());
        let names = ["first", "second", "third"].map(str::to_owned);
        let tokens = List { tokens: names.iter(), asked: &asked, last: String::new() };
        with_device(
            &device,
            gateway.address.port(),
            Setup { config: &CBOR, listens: true, tokens, present },
            |turn| {
                device.report(0..5);
                turn(&|| device.is_empty() && asked.borrow().len() == 3);
                device.report(5..10);
                turn(&|| device.is_empty());
            },
        );
        assert_eq!(asked.take(), [Why::Connect, Why::Renew, Why::Renew], "{present:?}");
        assert_eq!(device.host.connected.get(), 1, "{}", device.said());
        assert_eq!(device.readings.counts().acknowledged, 10);
    }
}

#[test]
fn a_grant_is_renewed_beside_an_event_stream_and_the_stream_goes_on() {
    let _clock = clock();
    // None of a length with those of the other tests: no other file has this name.
    let gateway = guarded(&[("first", 10), ("second", 20), ("third", 3600), ("unused", 0)]);
    let (device, asked) = (Device::new(), RefCell::default());
    let names = ["first", "second", "third"].map(str::to_owned);
    let tokens = List { tokens: names.iter(), asked: &asked, last: String::new() };
    let setup = Setup { config: &SSE, listens: true, tokens, present: Present::Head };
    with_device(&device, gateway.address.port(), setup, |turn| {
        let renewed = |times| {
            let seen = device.seen.borrow();
            seen.iter().filter(|status| **status == Status::Renewed).count() == times
        };
        device.report(0..5);
        turn(&|| device.is_empty() && renewed(2));
        device.report(5..10);
        let head = [("Content-Type", "application/json"), ("Authorization", "Bearer third")];
        assert_eq!(gateway.request("POST", "/v1/topics/all/x", &head, b"1").status, 200);
        turn(&|| device.is_empty() && device.commands.counts().waiting > 0);
        assert_eq!(device.next_command(), Some(("all/x".into(), 1)));
    });
    assert_eq!(asked.take(), [Why::Connect, Why::Renew, Why::Renew]);
    // The stream was opened once, and nothing was lost or refused.
    let expected = [Status::Connecting(Rung::Sse), Status::Open(Rung::Sse), Status::Renewed, Status::Renewed];
    assert_eq!(*device.seen.borrow(), expected);
    assert_eq!(device.readings.counts().acknowledged, 10);
}

#[test]
fn what_is_larger_than_the_receive_buffer_is_a_gap_over_every_transport() {
    let _clock = clock();
    for (config, rung) in [(&CBOR, Rung::WebSocket), (&SSE, Rung::Sse), (&LONG_POLL, Rung::LongPoll)] {
        let (device, gateway) = (Device::new(), Gateway::start_with(&["--reconnect-window=100ms"]));
        let arrivals = RefCell::new(Vec::new());
        let arrived = |wanted: &dyn Fn(&Arrival<64>) -> bool| {
            arrivals.borrow_mut().extend(std::iter::from_fn(|| device.commands.try_next()));
            arrivals.borrow().iter().any(wanted)
        };
        let is = |topic: &'static str| move |arrival: &Arrival<64>| matches!(arrival, Arrival::Command(command) if command.topic() == topic);
        with_device(&device, gateway.address.port(), Setup { config, ..PLAIN }, |turn| {
            turn(&|| {
                gateway.publish("all/begin", &0.into());
                arrived(&is("all/begin"))
            });
            gateway.publish("all/large", &"x".repeat(3000).into());
            gateway.publish("all/behind", &1.into());
            turn(&|| arrived(&|arrival| matches!(arrival, Arrival::Gap(_))));
            gateway.publish("all/end", &2.into());
            turn(&|| arrived(&is("all/end")));
        });
        let gaps: Vec<_> =
            arrivals.take().into_iter().filter(|arrival| matches!(arrival, Arrival::Gap(_))).collect();
        let [Arrival::Gap(gap)] = &gaps[..] else { panic!("{rung:?} {gaps:?}") };
        assert_eq!(gap.reason, GapReason::TooLarge, "{rung:?}");
        assert!(gap.from.epoch == gap.to.epoch && gap.from.seq < gap.to.seq, "{gap:?}");
        assert_eq!(device.rungs(), [rung, rung], "{}", device.said());
    }
}

#[test]
fn polls_bring_several_commands_at_once_in_order() {
    let _clock = clock();
    let (device, gateway) = (Device::new(), Gateway::start());
    let taken = RefCell::new(Vec::new());
    with_device(&device, gateway.address.port(), Setup { config: &LONG_POLL, ..PLAIN }, |turn| {
        turn(&|| !device.rungs().is_empty());
        for n in 0..100u32 {
            // Some of them nearly fill the buffer by themselves.
            let value = if n % 20 == 19 { "x".repeat(700).into() } else { n.into() };
            gateway.publish("all/n", &value);
        }
        turn(&|| {
            let arrivals = std::iter::from_fn(|| device.commands.try_next());
            taken.borrow_mut().extend(arrivals);
            let counts = device.commands.counts();
            counts.received == 100
        });
    });
    // Each was had, in order. What the application was too slow for, and what is larger than a place in its queue, is counted.
    let counts = device.commands.counts();
    assert_eq!((counts.taken + counts.dropped_oldest, counts.too_large), (95, 5), "{counts:?}");
    let numbers: Vec<u32> = taken
        .take()
        .iter()
        .map(|arrival| match arrival {
            Arrival::Command(command) => command.decode().expect("a number"),
            Arrival::Gap(gap) => panic!("{gap:?}"),
        })
        .collect();
    assert!(numbers.is_sorted_by(|one, next| one < next) && numbers.last() == Some(&98), "{numbers:?}");
}

#[test]
fn polls_go_on_with_the_whole_state_of_a_gateway_that_lost_its_past() {
    let _clock = clock();
    let options = ["--reconnect-window=100ms"];
    let (device, gateway) = (Device::new(), Gateway::start_with(&options));
    let relay = Relay::start(gateway.address);
    with_device(&device, relay.address.port(), Setup { config: &LONG_POLL, ..PLAIN }, |turn| {
        turn(&|| !device.rungs().is_empty());
        gateway.publish("all/x", &1.into());
        turn(&|| device.commands.counts().waiting > 0);
        assert_eq!(device.next_command(), Some(("all/x".into(), 1)));
        relay.cut();
        turn(&|| matches!(device.seen.borrow().last(), Some(Status::Waiting(_))));
        let gateway = Gateway::start_with(&options);
        // More than one at once, as many as the device asks for.
        gateway.publish("all/y", &2.into());
        gateway.publish("all/z", &3.into());
        relay.set_target(gateway.address);
        relay.mend();
        assert_eq!(turn(&|| device.commands.counts().waiting == 2), None, "{}", device.said());
        let Some(Arrival::Gap(gap)) = device.commands.try_next() else { panic!("{}", device.said()) };
        assert_eq!(gap.reason, GapReason::Reset);
        assert_eq!(device.next_command(), Some(("all/y".into(), 2)));
        assert_eq!(device.next_command(), Some(("all/z".into(), 3)));
    });
}

#[test]
fn an_expired_token_is_replaced_by_another_connection_and_one_that_is_refused_again_is_the_end() {
    let _clock = clock();
    let gateway = guarded(&[("good", 3600), ("old", 0)]);
    let (device, asked) = (Device::new(), RefCell::default());
    let names = ["old", "good"].map(str::to_owned);
    let tokens = List { tokens: names.iter(), asked: &asked, last: String::new() };
    device.report(0..5);
    let setup = Setup { config: &CBOR, listens: true, tokens, present: Present::Head };
    with_device(&device, gateway.address.port(), setup, |turn| {
        assert_eq!(turn(&|| device.is_empty()), None);
    });
    assert_eq!(asked.take(), [Why::Connect, Why::Refused]);
    assert_eq!(device.readings.counts().acknowledged, 5);
    let names = ["old", "wrong", "good"].map(str::to_owned);
    for present in [Present::Head, Present::InBand] {
        let tokens = List { tokens: names.iter(), asked: &asked, last: String::new() };
        let device = Device::new();
        device.report(0..5);
        with_device(
            &device,
            gateway.address.port(),
            Setup { config: &CBOR, listens: true, tokens, present },
            |turn| {
                let lost = turn(&|| false).expect("it ends");
                assert_eq!(lost.ending(), longwire_core::session::ladder::Ending::Unauthorized, "{lost:?}");
            },
        );
        assert_eq!(asked.take(), [Why::Connect, Why::Refused]);
        assert_eq!(device.readings.counts().waiting, 5, "the readings are kept");
    }
}
