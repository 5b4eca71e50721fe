//! The emulated devices at a real gateway, over links that are cut, networks that lose frames, gateways that die, and power
//! that fails: what a device promised to keep arrives, once and in order.

#[path = "device/tls.rs"]
mod tls;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use longwire_tests::PATIENCE;
use longwire_tests::device::{Board, Conversation, Device, Flash, Kept, numbered};
use longwire_tests::dns::{self, Resolver};
use longwire_tests::gateway::{Gateway, Guarded, in_seconds};
use longwire_tests::proxy::{Kind, Proxy, Way};
use longwire_tests::relay::Relay;
use longwire_tests::rng::Rng;
use serde_json::Value;

/// How long a device may take for all that is asked of it.
const LONG: Duration = Duration::from_secs(240);

const READINGS: u64 = 1000;

/// Bytes of stack that the firmware used by the end of all that, when this was written down; as with code (`tests/sizes`), a
/// fiftieth more fails. What lives as long as a task is not on the stack.
fn written_stack(board: Board) -> u64 {
    match board {
        Board::Mps2 | Board::Lm3s6965 => 6_600,
        Board::Mps2Tls => 20_600,
        Board::Riscv32 => 7_500,
    }
}

/// What the test itself shows, where a gateway wants to see something.
const TOKEN: (&str, &str) = ("Authorization", "Bearer the-test");

/// A gateway that has its clients back soon, and keeps all that a device reports.
fn lasting_gateway() -> Gateway {
    Gateway::start_with(&["--reconnect-window=500ms", "--history-events=5000"])
}

/// The device talks WebSocket, whatever happens to that: what went over the relay is read afterwards.
fn start(board: Board, relay: &Relay, settings: &str) -> Device {
    let port = relay.address.port();
    let mut all = vec![format!("port={port}"), format!("id={}", board.name()), "rungs=websocket".to_owned()];
    all.extend(settings.split_whitespace().map(str::to_owned));
    Device::start(board, &all)
}

/// Everything on this topic that the gateway holds, from the first event on.
fn stored(gateway: &Gateway, start: &str, topic: &str) -> Vec<Value> {
    let (mut since, mut all) = (start.to_owned(), Vec::new());
    loop {
        let target = format!("/v1/stream?topic={topic}&since={since}");
        let response = gateway.request("GET", &target, &[TOKEN], b"");
        if response.status == 204 {
            return all;
        }
        let answer = response.json();
        assert!(answer.get("gap").is_none(), "{answer}");
        all.extend(answer["events"].as_array().expect("events").iter().map(|event| event["data"].clone()));
        since = answer["next"].as_str().expect("a cursor").to_owned();
    }
}

/// The gateway's position before anything was published.
fn beginning(gateway: &Gateway) -> String {
    let response = gateway.request("GET", "/v1/stream?topic=device/**&since=now", &[TOKEN], b"");
    response.header("longwire-next").expect("section 8.1").to_owned()
}

fn conversations(relay: &Relay) -> Vec<Conversation> {
    relay.taps().iter().filter_map(Conversation::of).collect()
}

/// The largest of the numbered readings that was acknowledged, as the relay saw it.
fn acknowledged(relay: &Relay) -> u64 {
    conversations(relay).iter().map(Conversation::acknowledged).max().unwrap_or(0)
}

/// Waits until so many are acknowledged.
fn wait_until_acknowledged(device: &Device, relay: &Relay, enough: u64) {
    let deadline = Instant::now() + PATIENCE;
    while acknowledged(relay) < enough {
        assert!(Instant::now() < deadline, "{enough} acknowledgements:\n{}", device.program.said());
        // The interval of a look.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Cuts the link so often, at random moments, in two ways by turns: all connections are reset and refused; or every frame is
/// lost and nobody is told, which a connection survives. Says how often it was the first, each time on a connection of its own.
fn cut_at_random(
    device: &Device,
    relay: &Relay,
    rng: &mut Rng,
    cuts: u64,
    readings: std::ops::Range<u64>,
) -> usize {
    let span = (readings.end - readings.start) / cuts;
    let (mut resets, mut before) = (0, 0);
    for cut in 0..cuts {
        let at = readings.start + cut * span + rng.below(span * 3 / 4);
        // Something has come through since the last cut, so there is a connection.
        wait_until_acknowledged(device, relay, at.max(before + 1));
        let time = Duration::from_millis(50 + rng.below(1200));
        if cut % 2 == 0 {
            relay.cut();
            // How long the fault lasts.
            std::thread::sleep(time);
            before = acknowledged(relay);
            relay.mend();
            resets += 1;
        } else {
            device.set_link(false);
            std::thread::sleep(time);
            before = acknowledged(relay);
            device.set_link(true);
        }
    }
    resets
}

#[test]
fn a_thousand_readings_arrive_once_and_in_order_over_a_bad_link_that_is_cut_ten_times() {
    let gateway = lasting_gateway();
    let start_at = beginning(&gateway);
    let mut rng = Rng::from_env();
    let seeds = Board::ALL.map(|board| (board, rng.below(1 << 40)));
    std::thread::scope(|scope| {
        for (board, seed) in seeds {
            let (gateway, start_at) = (&gateway, &start_at);
            scope.spawn(move || {
                let relay = Relay::start(gateway.address);
                let settings =
                    format!("readings={READINGS} interval=10 waiting=40 loss=5 cap=1000 heartbeat=3000");
                let device = start(board, &relay, &settings);
                let resets = cut_at_random(&device, &relay, &mut Rng::new(seed), 10, 20..READINGS - 50);
                let ended = device.finish_within(LONG);
                assert!(ended.status.success(), "{board:?}: {ended:#?}");

                let numbers = stored(gateway, start_at, &format!("device/{}/number", board.name()));
                let expected: Vec<Value> = (1..=READINGS).map(Value::from).collect();
                assert_eq!(numbers, expected, "{board:?}");
                let conversations = conversations(&relay);
                let repeated = conversations.iter().map(|c| c.publications.len()).sum::<usize>();
                let numbered = numbered(&conversations);
                let lost = |line: &String| line.strip_suffix(" frames were lost")?.parse().ok();
                let lost: u64 = ended.stdout.iter().chain(&ended.stderr).find_map(lost).expect("the last line");
                println!(
                    "{board:?}: {resets} resets, {lost} frames lost, {} connections, {repeated} publications of {} readings",
                    conversations.len(),
                    numbered.len()
                );
                assert!(conversations.len() > resets && resets == 5, "{board:?}: not all cuts were seen");
                assert!(lost > 50, "{board:?}: the network is too good");
                check_stack(board, gateway, start_at);
            });
        }
    });
}

/// What the device said last about its stack.
fn check_stack(board: Board, gateway: &Gateway, start_at: &str) {
    let stack = stored(gateway, start_at, &format!("device/{}/stack", board.name()));
    let peak = stack.last().expect("the last reading")["peak"].as_u64().expect("bytes");
    println!("{board:?}: {peak} bytes of stack at most");
    let written = written_stack(board);
    assert!(peak * 50 <= written * 51, "{board:?}: {peak} bytes of stack, {written} are written down");
}

#[test]
fn what_no_gateway_acknowledged_survives_two_that_are_killed() {
    let mut rng = Rng::from_env();
    let seeds = Board::ALL.map(|board| (board, rng.below(1 << 40)));
    std::thread::scope(|scope| {
        for (board, seed) in seeds {
            scope.spawn(move || survive_gateways(board, &mut Rng::new(seed)));
        }
    });
}

fn survive_gateways(board: Board, rng: &mut Rng) {
    let mut gateway = Some(lasting_gateway());
    let address = |gateway: &Option<Gateway>| gateway.as_ref().expect("it runs").address;
    let mut generations = vec![address(&gateway)];
    let relay = Relay::start(address(&gateway));
    let settings = format!("readings={READINGS} interval=10 waiting=40 loss=5 cap=1000 heartbeat=3000");
    let device = start(board, &relay, &settings);
    let mut start_at = String::new();
    for generation in 0..2 {
        let begin = 20 + generation * 320;
        cut_at_random(&device, &relay, rng, 3, begin..begin + 250);
        wait_until_acknowledged(&device, &relay, begin + 250 + rng.below(60));
        // Killed: it says nothing to anybody, and its log is gone.
        drop(gateway.take());
        std::thread::sleep(Duration::from_millis(rng.below(1500)));
        gateway = Some(lasting_gateway());
        start_at = beginning(gateway.as_ref().expect("it runs"));
        generations.push(address(&gateway));
        relay.set_target(address(&gateway));
    }
    cut_at_random(&device, &relay, rng, 4, 680..READINGS - 50);
    let ended = device.finish_within(LONG);
    assert!(ended.status.success(), "{board:?}: {ended:#?}");

    let taps = relay.taps();
    let numbered = numbered(&conversations(&relay));
    let readings: BTreeMap<u64, u64> = numbered
        .iter()
        .filter(|(_, publication)| publication.topic.ends_with("/number"))
        .map(|(n, publication)| (publication.data.as_u64().expect("a number"), *n))
        .collect();
    let all: Vec<u64> = (1..=READINGS).collect();
    assert_eq!(readings.keys().copied().collect::<Vec<_>>(), all, "{board:?}: each reading was sent");
    // What the gateways that died had acknowledged was theirs to keep.
    let earlier = &generations[..2];
    let of_earlier = taps.iter().filter(|tap| earlier.contains(&tap.to)).filter_map(Conversation::of);
    let kept_by_them = of_earlier.map(|conversation| conversation.acknowledged()).max().expect("they talked");
    assert!(kept_by_them > 300, "{board:?}: {kept_by_them}");
    let last = gateway.as_ref().expect("it runs");
    let stored = stored(last, &start_at, &format!("device/{}/number", board.name()));
    let stored: Vec<u64> = stored.iter().map(|number| number.as_u64().expect("a number")).collect();
    assert!(stored.is_sorted_by(|a, b| a < b), "{board:?}: once, and in order: {stored:?}");
    let lost: Vec<_> =
        readings.iter().filter(|(reading, n)| **n > kept_by_them && !stored.contains(reading)).collect();
    assert!(lost.is_empty(), "{board:?}: neither acknowledged nor there: {lost:?}");
}

/// Lives of a device with a flash, each of which ends in a power cut.
const LIVES: u64 = 8;
/// More numbers than a life has time for.
const LIFE: u64 = 1000;
/// It reports no more while so many wait.
const WAITING: u64 = 40;

#[test]
fn what_a_flash_keeps_survives_power_cuts() {
    let mut rng = Rng::from_env();
    let seeds = Board::ALL.map(|board| (board, rng.below(1 << 40)));
    let gateway = lasting_gateway();
    let start_at = beginning(&gateway);
    let torn: u64 = std::thread::scope(|scope| {
        let boards = seeds.map(|(board, seed)| {
            let (gateway, start_at) = (&gateway, &start_at);
            scope.spawn(move || survive_power_cuts(board, gateway, start_at, &mut Rng::new(seed)))
        });
        boards.map(|board| board.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).iter().sum()
    });
    assert!(torn > 0, "no power cut fell into a write");
}

/// In half of its lives the gateway is away at first; the last one lasts until everything is settled. What is promised
/// (`longwire_embassy::Storage`): whatever was reported before a write that came to its end is at the gateway in the end,
/// once and in order, and whenever it is sent it has the same incarnation and number. Says how many power cuts fell into a write.
fn survive_power_cuts(board: Board, gateway: &Gateway, start_at: &str, rng: &mut Rng) -> u64 {
    let flash = Flash::new(board.name());
    let relay = Relay::start(gateway.address);
    let begin = |first: u64, last: u64| {
        let keep = format!("waiting={WAITING} keep=50 {}", flash.setting());
        let network = "loss=5 cap=300 heartbeat=1000";
        start(board, &relay, &format!("interval=10 from={first} readings={last} {keep} {network}"))
    };
    let (mut promised, mut restored, mut torn) = (Vec::new(), 0, 0);
    for life in 0..LIVES {
        let first = life * LIFE + 1;
        if life % 2 == 0 {
            relay.cut();
        }
        let device = begin(first, first + LIFE - 1);
        if life % 2 == 0 {
            // Unless as many as may wait were there at boot.
            let written = |now: &Kept| now.kept > now.restored || now.restored >= WAITING;
            let written = |line: &str| Kept::of(line).filter(written);
            device.wait_for("write to the flash", written);
        }
        // How long it has power, some of that with a gateway. Every fourth life ends soon, as early as at boot.
        std::thread::sleep(Duration::from_millis(rng.below(if life % 4 == 3 { 200 } else { 1000 })));
        relay.mend();
        std::thread::sleep(Duration::from_millis(rng.below(400)));
        // In the middle of a write, as far as that can be seen from here.
        let begun = flash.content();
        let deadline = Instant::now() + Duration::from_millis(500);
        while flash.content() == begun && Instant::now() < deadline {
            // The interval of a look.
            std::thread::sleep(Duration::from_millis(1));
        }
        let ended = device.cut_power();
        torn += u64::from(flash.content() != begun);
        let lines = [ended.stdout, ended.stderr].concat();
        // One that never got so far has kept nothing new.
        let kept = lines.iter().rev().find_map(|line| Kept::of(line)).unwrap_or_default();
        restored += kept.restored;
        promised.extend(first..first + kept.kept.saturating_sub(kept.restored));
    }
    let first = LIVES * LIFE + 1;
    let device = begin(first, first + 99);
    promised.extend(first..first + 100);
    let ended = device.finish_within(LONG);
    assert!(ended.status.success(), "{board:?}: {ended:#?}");

    let conversations = conversations(&relay);
    let numbered = numbered(&conversations);
    let repeated = conversations.iter().map(|c| c.publications.len()).sum::<usize>() - numbered.len();
    let numbers = stored(gateway, start_at, &format!("device/{}/number", board.name()));
    let numbers: Vec<u64> = numbers.iter().map(|number| number.as_u64().expect("a number")).collect();
    println!(
        "{board:?}: {} readings promised, {} arrived; {restored} came back from the flash, {repeated} were sent again; \
         {torn} of {LIVES} power cuts during a write",
        promised.len(),
        numbers.len()
    );
    assert!(numbers.is_sorted_by(|a, b| a < b), "{board:?}: once, and in order: {numbers:?}");
    let lost: Vec<_> = promised.iter().filter(|number| numbers.binary_search(number).is_err()).collect();
    assert!(lost.is_empty(), "{board:?}: kept and not there: {lost:?}");
    assert!(restored > 20, "{board:?}: the flash was not needed: {restored}");
    torn
}

#[test]
fn what_a_flash_keeps_has_the_policy_of_its_topic() {
    let board = Board::Mps2;
    let gateway = lasting_gateway();
    let start_at = beginning(&gateway);
    let relay = Relay::start(gateway.address);
    let flash = Flash::new("policies");
    let begin = |settings: &str| {
        start(board, &relay, &format!("interval=10 cap=300 keep=50 {} {settings}", flash.setting()))
    };
    relay.cut();
    // On three topics in turn; what is on the second is never dropped.
    let device = begin("topics=3 readings=1000 waiting=30");
    let kept =
        device.wait_for("20 readings in the flash", |line| Kept::of(line).filter(|now| now.kept >= 20));
    device.cut_power();
    // Then so many on the first, which has another policy, that there is no room.
    let device = begin("from=2001 readings=2300");
    device.wait_for("more readings than there is room for", |line| {
        Kept::of(line).filter(|now| now.kept > now.restored + 200)
    });
    relay.mend();
    let ended = device.finish_within(LONG);
    assert!(ended.status.success(), "{ended:#?}");

    let numbers = |what| -> Vec<u64> {
        let numbers = stored(&gateway, &start_at, &format!("device/{}/{what}", board.name()));
        numbers.iter().map(|number| number.as_u64().expect("a number")).collect()
    };
    let (dropped, never) = (numbers("number"), numbers("first"));
    assert!(dropped.len() < 200 && dropped.first() > Some(&2001), "there was room for all: {dropped:?}");
    // 2, 5, 8, ...
    let promised: Vec<u64> = (2..=kept.kept).step_by(3).collect();
    assert!(never.starts_with(&promised), "{never:?} of {promised:?}");
}

#[test]
fn an_outbox_that_overflows_counts_what_it_drops_as_the_gateway_misses_it() {
    let board = Board::Mps2;
    let gateway = lasting_gateway();
    let start_at = beginning(&gateway);
    let relay = Relay::start(gateway.address);
    let device = start(board, &relay, "readings=600 topics=3 interval=10 cap=1000");
    wait_until_acknowledged(&device, &relay, 50);
    relay.cut();
    // Longer than the outbox lasts: 10 ms a reading.
    std::thread::sleep(Duration::from_secs(4));
    relay.mend();
    let ended = device.finish_within(LONG);
    assert!(ended.status.success(), "{ended:#?}");

    let stored = |what| stored(&gateway, &start_at, &format!("device/{}/{what}", board.name()));
    let numbers = |what| {
        let numbers =
            stored(what).iter().map(|number| number.as_u64().expect("a number")).collect::<Vec<_>>();
        assert!(numbers.is_sorted_by(|a, b| a < b), "once, and in order: {what} {numbers:?}");
        numbers
    };
    let counts = stored("outbox").pop().expect("the last but one reading");
    let count = |name: &str| counts[name].as_u64().unwrap_or_else(|| panic!("{name} in {counts}"));
    let [oldest, newest, latest] = ["number", "first", "latest"].map(numbers);
    let missing = |numbers: &[u64]| 200 - numbers.len() as u64;
    assert_eq!((count("reported"), count("refused"), count("waiting")), (600, 0, 0), "{counts}");
    let all = [&oldest, &newest, &latest].map(|numbers| numbers.len() as u64);
    assert_eq!(count("acknowledged"), all.iter().sum::<u64>(), "{counts}");
    assert_eq!(count("dropped_newest"), missing(&newest), "{counts}");
    assert_eq!(count("dropped_oldest") + count("conflated"), missing(&oldest) + missing(&latest), "{counts}");
    // By its policy: of one topic the newest of that time are there, of another the oldest, of the third the last.
    let (cut, mended) = (150, 400);
    let within = |numbers: &[u64]| numbers.iter().filter(|n| (cut..mended).contains(*n)).count();
    assert!(within(&newest) < 40 && missing(&newest) > 20, "{newest:?}");
    assert!(within(&latest) <= 3 && count("conflated") > 50, "{latest:?} {counts}");
    for numbers in [&oldest, &latest] {
        assert!(numbers.last() >= Some(&598), "{numbers:?}");
    }
}

#[test]
fn a_device_comes_back_within_the_window_that_bye_gave_it() {
    const WINDOW: Duration = Duration::from_secs(8);
    let gateway = Gateway::start_with(&["--reconnect-window=8s"]);
    let relay = Relay::start(gateway.address);
    let device = start(Board::Riscv32, &relay, "interval=100");
    wait_until_acknowledged(&device, &relay, 10);
    let other = lasting_gateway();
    relay.set_target(other.address);
    gateway.program.terminate();
    let wait = device.wait_for("next attempt", |line| {
        let (wait, _) = line.strip_prefix("next attempt in ")?.split_once(" ms")?;
        Some(Duration::from_millis(wait.parse().expect("a number")))
    });
    let said_bye = Instant::now();
    assert!(device.said().iter().any(|line| line.contains("bye: draining")), "{}", device.program.said());
    let conversation = conversations(&relay).pop().expect("it talked");
    let bye = conversation.answers_of(24).next().expect("bye");
    let window = Duration::from_millis(bye["19"].as_u64().expect("a window"));
    let earliest = Duration::from_millis(bye["18"].as_u64().unwrap_or(0));
    assert_eq!(window, WINDOW);
    assert!((earliest..=earliest + window).contains(&wait), "{wait:?} after {bye}");
    let deadline = said_bye + wait + PATIENCE;
    while relay.taps().len() < 2 {
        assert!(Instant::now() < deadline, "it does not come back:\n{}", device.program.said());
        std::thread::sleep(Duration::from_millis(5));
    }
    // The line was read a moment after the wait began.
    let came = relay.taps()[1].began - said_bye;
    assert!(came + Duration::from_millis(500) >= wait, "it came back after {came:?} of {wait:?}");
    wait_until_acknowledged(&device, &relay, 20);
}

/// A gateway whose tokens `first`, `second` and `third` are a device's: the first ends in 20 seconds, the second has ended, the
/// third does not.
fn guarded_gateway(name: &str) -> Guarded {
    let token = |secret: &str, subject: &str, expires: &str| {
        format!(
            "[[token]]\nsecret = \"{secret}\"\nsubject = \"{subject}\"\nsubscribe = [\"device/**\"]\n\
             publish = [\"device/**\"]\nexpires = {expires}\n"
        )
    };
    let tokens = [
        token("first", "device", &in_seconds(20)),
        token("second", "device", "2020-01-01T00:00:00Z"),
        token("third", "device", "2100-01-01T00:00:00Z"),
        token("the-test", "test", "2100-01-01T00:00:00Z"),
    ];
    let options = ["--reconnect-window=500ms", "--history-events=5000"];
    Guarded::start_with(name, &tokens.concat(), &options)
}

/// Reports for longer than the first of these tokens lasts; how many connections that took, and what was said.
fn report_with_tokens(board: Board, name: &str, tokens: &str) -> (usize, Vec<String>) {
    // The token's time begins when everything is built, and the device waits for its gateway.
    let relay = Relay::start(lasting_gateway().address);
    relay.cut();
    let settings = format!("readings=300 interval=100 waiting=20 cap=1000 tokens={tokens}");
    let device = start(board, &relay, &settings);
    device.wait_for("next attempt", |line| line.starts_with("next attempt in ").then_some(()));
    let guarded = guarded_gateway(name);
    let gateway = &guarded.gateway;
    let start_at = beginning(gateway);
    relay.set_target(gateway.address);
    relay.mend();
    let ended = device.finish_within(LONG);
    assert!(ended.status.success(), "{ended:#?}");
    let numbers = stored(gateway, &start_at, &format!("device/{}/number", board.name()));
    assert_eq!(numbers, (1..=300).map(Value::from).collect::<Vec<_>>(), "{ended:#?}");
    (relay.taps().len(), [ended.stdout, ended.stderr].concat())
}

#[test]
fn a_renewed_token_keeps_the_connection() {
    let (connections, said) = report_with_tokens(Board::Lm3s6965, "renewed", "first,third");
    assert!(said.iter().any(|line| line.contains("credential renewed")), "{said:#?}");
    assert_eq!(connections, 1, "{said:#?}");
}

#[test]
fn an_expired_token_ends_in_a_new_connection_with_another() {
    let (connections, said) = report_with_tokens(Board::Mps2, "expired", "first,second,third");
    assert!(said.iter().any(|line| line.contains("unauthorized")), "{said:#?}");
    assert_eq!(connections, 2, "{said:#?}");
}

/// Nobody is there to start a device again that gave up because its gateway had the wrong tokens for a minute.
#[test]
fn a_refusal_for_good_is_tried_again_and_nothing_is_lost_by_then() {
    let other =
        "[[token]]\nsecret = \"another\"\nsubject = \"another\"\nsubscribe = [\"**\"]\npublish = [\"**\"]\n";
    let wrong = Guarded::start("wrong", other);
    let (open, guarded) = (lasting_gateway(), guarded_gateway("right"));
    for (board, gateway, tokens) in
        [(Board::Lm3s6965, &open, ""), (Board::Mps2, &guarded.gateway, "tokens=third")]
    {
        let start_at = beginning(gateway);
        let relay = Relay::start(wrong.gateway.address);
        let settings = format!("readings=30 interval=50 waiting=20 cap=500 again=1000 {tokens}");
        let device = start(board, &relay, &settings);
        let deadline = Instant::now() + PATIENCE;
        let pauses =
            || device.said().iter().filter(|line| line.starts_with("next attempt in 1000 ms")).count();
        while pauses() < 2 {
            assert!(Instant::now() < deadline, "it does not try again:\n{}", device.program.said());
            std::thread::sleep(Duration::from_millis(5));
        }
        relay.set_target(gateway.address);
        let ended = device.finish_within(LONG);
        assert!(ended.status.success(), "{ended:#?}");
        let numbers = stored(gateway, &start_at, &format!("device/{}/number", board.name()));
        assert_eq!(numbers, (1..=30).map(Value::from).collect::<Vec<_>>(), "{ended:#?}");
    }
}

#[test]
fn a_name_is_looked_up_for_each_connection_and_a_dead_address_is_left_for_another() {
    find_the_address_that_works(|_| {});
}

/// With two addresses and a query for each connection, the same one comes first, second, first again.
#[test]
fn a_name_whose_resolver_turns_its_addresses_is_no_reason_to_try_a_dead_one_for_ever() {
    find_the_address_that_works(Resolver::turn);
}

fn find_the_address_that_works(prepare: impl FnOnce(&Resolver)) {
    let gateway = lasting_gateway();
    let (first, second) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
    let relay = Relay::listening((first, 0).into(), gateway.address);
    let port = relay.address.port();
    let other = Relay::listening((second, port).into(), gateway.address);
    let resolver = Resolver::start();
    prepare(&resolver);
    let settings = format!("host={} dns={} interval=50 cap=500", dns::NAME, resolver.port);
    let device = start(Board::Lm3s6965, &relay, &settings);
    // Nobody knows the name at first.
    device.wait_for("failure", |line| line.starts_with("no link").then_some(()));
    assert_eq!(relay.taps().len() + other.taps().len(), 0);
    resolver.set(&[first, second]);
    // Whichever address works is found, and goes on working until it is cut.
    let (mut here, mut there) = (&relay, &other);
    other.cut();
    for _ in 0..3 {
        let before = acknowledged(here);
        wait_until_acknowledged(&device, here, before + 5);
        let asked = resolver.asked();
        there.mend();
        here.cut();
        let before = acknowledged(there);
        wait_until_acknowledged(&device, there, before + 5);
        assert!(resolver.asked() > asked, "it did not ask again");
        (here, there) = (there, here);
    }
    let taps = [relay.taps().len(), other.taps().len()];
    println!("{} queries, {taps:?} connections, {:?}", resolver.asked(), device.said());
    assert!(resolver.asked() > taps.iter().sum(), "once for each connection, and before");
}

#[test]
fn a_device_does_as_it_is_told() {
    let gateway = lasting_gateway();
    let relay = Relay::start(gateway.address);
    let board = Board::Mps2;
    let device = start(board, &relay, "interval=60000");
    device.wait_for("connection", |line| line.contains("open over").then_some(()));
    // The subscription stands once something of it was answered: `caught_up`.
    let subscribed = || conversations(&relay).iter().any(|c| c.answers_of(18).next().is_some());
    let deadline = Instant::now() + PATIENCE;
    while !subscribed() {
        assert!(Instant::now() < deadline, "no subscription:\n{}", device.program.said());
        std::thread::sleep(Duration::from_millis(5));
    }
    gateway.publish(&format!("device/{}/do/blink", board.name()), &3.into());
    device.wait_for("light", |line| (line == "light off").then_some(()));
    let on = || device.said().iter().filter(|line| *line == "light on").count();
    while on() < 3 {
        assert!(Instant::now() < deadline, "it does not blink:\n{}", device.program.said());
        std::thread::sleep(Duration::from_millis(5));
    }
    let before = acknowledged(&relay);
    gateway.publish(&format!("device/{}/do/interval", board.name()), &50.into());
    wait_until_acknowledged(&device, &relay, before + 20);
}

#[test]
fn where_upgrade_is_refused_a_device_reports_by_post_and_listens_to_sse_or_long_polls() {
    let gateway = lasting_gateway();
    let start_at = beginning(&gateway);
    let proxy = Proxy::start(Kind::Nginx, gateway.address);
    std::thread::scope(|scope| {
        for (way, rung) in [(Way::Refuse, "open over SSE"), (Way::Buffer, "open over long poll")] {
            let (proxy, gateway, start_at) = (&proxy, &gateway, &start_at);
            scope.spawn(move || report_behind(proxy, way, rung, gateway, start_at));
        }
    });
}

fn report_behind(proxy: &Proxy, way: Way, rung: &str, gateway: &Gateway, start_at: &str) {
    let name = format!("behind-{way:?}");
    let url = proxy.url(way);
    let (_, port) = url.rsplit_once(':').expect("a port");
    let settings = [format!("port={port}"), format!("id={name}"), "interval=200".to_owned()];
    let device = Device::start(Board::Lm3s6965, &settings);
    device.wait_for(rung, |line| line.contains(rung).then_some(()));
    let uptimes = || {
        let stored = stored(gateway, start_at, &format!("device/{name}/uptime"));
        stored.iter().map(|uptime| uptime.as_u64().expect("milliseconds")).collect::<Vec<_>>()
    };
    let deadline = Instant::now() + PATIENCE;
    while uptimes().len() < 10 {
        assert!(Instant::now() < deadline, "no readings:\n{}", device.program.said());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(uptimes().is_sorted_by(|a, b| a < b), "once, and in order: {:?}", uptimes());
    gateway.publish(&format!("device/{name}/do/blink"), &1.into());
    device.wait_for("light", |line| (line == "light on").then_some(()));
    println!("{name}: {:?}", device.said());
}

/// With the defaults at both ends. A minute has two of the longest of their intervals, and so an hour has sixty of what it takes.
#[test]
fn an_idle_device_wakes_for_its_deadlines_only() {
    const MINUTE: u64 = 60_000;
    let board = Board::Mps2;
    let gateway = Gateway::start();
    let start_at = beginning(&gateway);
    let relay = Relay::start(gateway.address);
    let ended = start(board, &relay, &format!("idle={MINUTE}")).finish_within(LONG);
    assert!(ended.status.success(), "{ended:#?}");
    assert_eq!(relay.taps().len(), 1, "{ended:#?}");
    let spent =
        stored(&gateway, &start_at, &format!("device/{}/idle", board.name())).pop().expect("a reading");
    let an_hour = |name: &str| spent[name].as_u64().unwrap_or_else(|| panic!("{name} in {spent}")) * 60;
    println!(
        "idle for an hour: woken {} times; {} frames of {} bytes in, {} of {} out",
        an_hour("wakeups"),
        an_hour("frames_in"),
        an_hour("bytes_in"),
        an_hour("frames_out"),
        an_hour("bytes_out")
    );
    // About what the firmware's README.md says. At least there are two Pings and two Pongs a minute in each direction, and a
    // `tick` with every second one; where the minute begins among them is chance, and so is which acknowledgement travels alone.
    for (name, least, most) in [
        ("wakeups", 900, 1_400),
        ("frames_in", 480, 720),
        ("frames_out", 240, 540),
        ("bytes_in", 34_000, 50_000),
        ("bytes_out", 14_000, 32_000),
    ] {
        let spent = an_hour(name);
        assert!((least..=most).contains(&spent), "{name}: {spent}");
    }
}
