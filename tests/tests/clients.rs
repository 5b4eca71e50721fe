//! Other people's clients, and the emulated device, at one gateway: all see the same events in the same order.

use std::ops::ControlFlow;
use std::process::Command;
use std::time::Instant;

use longwire_tests::device::{Board, Device};
use longwire_tests::gateway::Gateway;
use longwire_tests::http::Response;
use longwire_tests::process::Program;
use longwire_tests::reader::{Item, Reader, Transport};
use longwire_tests::ws::Socket;
use longwire_tests::{PATIENCE, http, node, python, workspace};
use serde_json::{Value, json};

/// What each client has to see of an event: topic, position, and data (or bytes in base64).
type Event = (String, String, Value);

const LAST: &str = "end/of/the/test";

#[test]
fn all_clients_see_the_same_events_in_the_same_order() {
    let gateway = Gateway::start();
    let url = gateway.url();
    let start = gateway.publish("before", &Value::Null);

    // Those that read until they are stopped.
    let mut clients = Vec::new();
    for (transport, form) in
        [("ws", "json"), ("ws", "cbor"), ("sse", "json"), ("longpoll", "json"), ("poll", "json")]
    {
        let mut command = python("longwire_client.py");
        command.args(["sub", &url, "**", "--since", &start, "--transport", transport, "--form", form]);
        clients.push((format!("Python, {transport} {form}"), Program::start(&mut command)));
    }
    for transport in ["ws", "sse"] {
        let mut command = node("node/sub.mjs");
        command.args(["sub", &url, "**", "--since", &start, "--transport", transport]);
        clients.push((format!("npm, {transport}"), Program::start(&mut command)));
    }
    clients.push(("curl, SSE".to_owned(), Program::start(&mut curl_sse(&url, &start))));

    std::thread::scope(|scope| {
        let long_polls = scope.spawn(|| curl_long_polls(&url, &start));
        publish_from_everywhere(&gateway);
        let so_far = read_until(&gateway, &start, "halfway");
        // The browser's own WebSocket and EventSource: the past, and then what comes while they are open.
        let count = so_far.len() + LIVE;
        let mut native = node("browser/native.mjs");
        native.args([&url, "**", &count.to_string(), "--since", &start]);
        let native = Program::start(&mut native);
        let mut ready = 0;
        native.wait_for("two open subscriptions", |line| {
            ready += usize::from(line.contains(r#""ready":true"#));
            (ready == 2).then_some(())
        });
        for number in 1..LIVE {
            gateway.publish("live", &json!({ "number": number }));
        }
        gateway.publish(LAST, &json!("last"));

        let expected = read_until(&gateway, &start, LAST);
        assert_eq!(expected.len(), count);
        for (name, client) in &clients {
            let mut seen = Vec::new();
            client.wait_for(&format!("last event at {name}"), |line| {
                seen.extend(event_of_line(line));
                seen.last().is_some_and(|event| event.0 == LAST).then_some(())
            });
            assert_same(name, &seen, &expected);
        }
        assert_same("curl, long polls", &long_polls.join().expect("curl"), &expected);
        let native = native.finish();
        assert!(native.status.success(), "{native:#?}");
        for transport in ["ws", "sse"] {
            let of_it =
                native.stdout.iter().filter(|line| line.contains(&format!(r#""transport":"{transport}""#)));
            let seen: Vec<_> = of_it.filter_map(|line| event_of_line(line)).collect();
            assert_same(&format!("Chromium, {transport}"), &seen, &expected);
        }
        check_state_poll(&gateway, &expected);
    });
}

/// Events published while the browser is connected, the last one included.
const LIVE: usize = 20;

#[test]
fn longwire_js_publishes_once_and_reads_on_over_a_switch_of_transports() {
    const COUNT: usize = 150;
    let gateway = Gateway::start_with(&[
        "--reconnect-window=500ms",
        "--log=other",
        "--log=small",
        "--max-lag-events=200",
    ]);
    let start = gateway.get("/v1/logs/other/stream?topic=**&since=now");
    let start = start.header("longwire-next").expect("section 8.1");
    let mut module = node("browser/module.mjs");
    let module = Program::run(module.args([&gateway.url(), &COUNT.to_string()]));
    assert!(module.status.success(), "{module:#?}");
    let seen: Value = serde_json::from_str(module.stdout.last().expect("a line")).expect("JSON");

    let numbers: Vec<Value> = (0..COUNT).map(Value::from).collect();
    let stored = gateway.get(&format!("/v1/logs/other/stream?topic=**&since={start}")).json();
    let stored: Vec<&Value> =
        stored["events"].as_array().expect("events").iter().map(|event| &event["data"]).collect();
    assert_eq!(stored, numbers.iter().collect::<Vec<_>>(), "each is stored once, in its order");
    assert_eq!(seen["numbers"], json!(numbers), "{seen}");
    // Cut once: WebSocket again; not let through any more: what is below.
    assert_eq!(seen["over"], json!(["ws", "ws", "sse"]), "{seen}");
    assert_eq!(seen["publishedOver"], json!(["ws", "ws", "post"]), "{seen}");
    assert_eq!((&seen["gaps"], &seen["refused"]), (&json!(0), &json!([])), "{seen}");
    assert_eq!((&seen["pressure"]["lag"], &seen["pressure"]["limit"]), (&json!(150), &json!(200)), "{seen}");
    assert_eq!(seen["ticket"].as_str().map(str::len), Some(32), "{seen}");
}

#[test]
fn the_dashboard_shows_the_log_that_its_address_names() {
    let gateway = Gateway::start_with(&["--log=other"]);
    gateway.publish("fleet/default/cpu", &json!(1));
    let posted = gateway.request(
        "POST",
        "/v1/logs/other/topics/fleet/7/cpu",
        &[("Content-Type", "application/json")],
        b"2",
    );
    assert_eq!(posted.status, 200, "{posted:?}");
    let picture = workspace().join("tests/out/dashboard-log.png");
    std::fs::create_dir_all(picture.parent().expect("a folder")).expect("a folder for the picture");
    let mut dashboard = node("browser/dashboard.mjs");
    let dashboard = Program::run(dashboard.arg(format!("{}/?log=other", gateway.url())).arg(&picture));
    assert!(dashboard.status.success(), "{dashboard:#?}");
    let stats: Value = serde_json::from_str(dashboard.stdout.last().expect("a line")).expect("JSON");
    assert_eq!(stats["names"], json!(["fleet/7"]), "{stats}");
}

/// By POST in every content type, over WebSockets in both forms, and by the emulated device; last by POST.
fn publish_from_everywhere(gateway: &Gateway) {
    const READINGS: u64 = 5;
    let device = start_device(gateway, READINGS);

    let target = "/v1/topics/types?key=k";
    for (content_type, body) in [
        ("application/json", &br#"{"a":[1,-2,0.25,"x \"y\" \u00e4",true,null]}"#[..]),
        ("application/cbor", &[0xa2, 0x61, 0x61, 0x18, 0x2a, 0x61, 0x62, 0xf9, 0x38, 0x00]), // {"a": 42, "b": 0.5}
        ("image/png", &[0x89, 0x50, 0x4e, 0x47, 0x00, 0xff]),
        ("text/plain; charset=utf-8", "grüß dich".as_bytes()),
    ] {
        let response = gateway.request("POST", target, &[("Content-Type", content_type)], body);
        assert_eq!(response.status, 200, "{content_type}: {response:?}");
    }
    for (transport, form) in [("ws", "json"), ("ws", "cbor"), ("http", "json"), ("http", "cbor")] {
        let data = r#"{"deep": [[{"n": -7}]], "text": "ü"}"#;
        let mut command = python("longwire_client.py");
        command.args(["pub", &gateway.url(), "python", data, "--transport", transport, "--form", form]);
        let ended = Program::run(&mut command);
        assert!(ended.status.success(), "{transport} {form}: {ended:#?}");
    }
    let mut socket = Socket::open(gateway.address, "/v1/stream", &[]).expect("101");
    for n in 1..=100 {
        socket.send_json(&json!({"type": "pub", "n": n, "topic": format!("socket/{}", n % 7), "data": n}));
    }
    while socket.envelope_of(&["ack", "nack", "error"])["n"] != json!(100) {}

    let device = device.finish_within(PATIENCE);
    assert!(device.status.success(), "the firmware: {device:#?}");
    let readings = gateway.get("/v1/stream?topic=**").json();
    let from_device =
        |event: &&Value| event["topic"].as_str().is_some_and(|t| t.split('/').nth(1) == Some("emulated"));
    assert!(
        readings["events"].as_array().expect("events").iter().any(|event| from_device(&event)),
        "{readings}"
    );
    gateway.publish("halfway", &Value::Null);
}

/// The firmware in the emulator, reporting to this gateway; it ends by itself after so many readings.
fn start_device(gateway: &Gateway, readings: u64) -> Device {
    let port = gateway.address.port();
    let settings = format!("port={port} id=emulated interval=200 readings={readings}");
    Device::start(Board::Mps2, &settings.split(' ').map(str::to_owned).collect::<Vec<_>>())
}

fn curl_sse(url: &str, since: &str) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--no-buffer", "--globoff", "-H", "Accept: text/event-stream"]);
    curl.arg(format!("{url}/v1/stream?topic=**&since={since}"));
    curl
}

/// One `curl` for each poll, until the last event.
fn curl_long_polls(url: &str, start: &str) -> Vec<Event> {
    let mut cursor = start.to_owned();
    let mut seen: Vec<Event> = Vec::new();
    let deadline = Instant::now() + 3 * PATIENCE;
    while seen.last().is_none_or(|event| event.0 != LAST) {
        assert!(Instant::now() < deadline, "the last event does not come");
        let response = curl(&[&format!("{url}/v1/stream?topic=**&wait=25&since={cursor}")]);
        if response.status == 204 {
            cursor = response.header("longwire-next").expect("section 8.1").to_owned();
            continue;
        }
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(response.header("cache-control"), Some("no-store, no-transform"), "{response:?}");
        let answer = response.json();
        seen.extend(answer["events"].as_array().expect("events").iter().filter_map(event_of));
        cursor = answer["next"].as_str().expect("next").to_owned();
    }
    seen
}

/// The state as a cache sees it: `ETag`, 304, and a `next` that is good.
fn check_state_poll(gateway: &Gateway, all: &[Event]) {
    let target = format!("{}/v1/stream?topic=**", gateway.url());
    let response = curl(&[&target]);
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("cache-control"), Some("public, max-age=1"), "{response:?}");
    let vary = response.header("vary").expect("Vary").to_ascii_lowercase();
    assert!(["accept", "authorization", "origin"].iter().all(|name| vary.contains(name)), "{vary}");
    let tag = response.header("etag").expect("an ETag").to_owned();
    let state = response.json();
    let mut seen: Vec<_> = state["events"].as_array().expect("events").iter().filter_map(event_of).collect();
    assert!(seen.contains(all.last().expect("some")), "{state}");
    let topics = seen.len();
    seen.retain(|event| event.0 == "before" || all.contains(event));
    assert_eq!(seen.len(), topics, "nothing that was not published");

    let condition = format!("If-None-Match: {tag}");
    let unchanged = curl(&["-H", &condition, &target]);
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0), "{unchanged:?}");
    let quiet = curl(&[&format!("{target}&since={}", state["next"].as_str().expect("next"))]);
    assert_eq!(quiet.status, 204, "nothing came after it: {quiet:?}");
    gateway.publish("after", &Value::Null);
    assert_eq!(curl(&["-H", &condition, &target]).status, 200, "another state has another ETag");
    let changed = curl(&[&format!("{target}&since={}", state["next"].as_str().expect("next"))]).json();
    assert_eq!(changed["events"][0]["topic"], "after", "{changed}");
}

/// One request by `curl`, with its whole response.
fn curl(arguments: &[&str]) -> Response {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--include", "--globoff", "--http1.1", "--max-time", "60"])
        .args(arguments)
        .output()
        .expect("curl starts");
    assert!(output.status.success(), "{output:?}");
    let mut stream = &output.stdout[..];
    let mut response = http::read_head(&mut stream).expect("a head");
    // curl has undone the framing already.
    response.body = stream.to_vec();
    response
}

/// What a reader in Rust gets up to the first event with this topic.
fn read_until(gateway: &Gateway, start: &str, last: &str) -> Vec<Event> {
    let mut events = Vec::new();
    Reader::new(gateway.address, "**", start).read(Transport::WebSocket, |item| {
        let Item::Event { topic, at, data } = item else { panic!("{item:?}") };
        let done = topic == last;
        events.push((topic, at, with_doubles(&data)));
        if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    events
}

/// The event in a line that a client printed, if it is one; curl's lines have `data: ` before it.
fn event_of_line(line: &str) -> Option<Event> {
    event_of(&serde_json::from_str(line.strip_prefix("data: ").unwrap_or(line)).ok()?)
}

/// An event from an envelope or a client's line.
fn event_of(event: &Value) -> Option<Event> {
    let topic = event["topic"].as_str()?;
    let at = event["at"].as_str().or(event["past"].as_str())?;
    let value = event.get("data").or(event.get("bytes"))?;
    Some((topic.to_owned(), at.to_owned(), with_doubles(value)))
}

/// The same value with doubles for numbers, as JavaScript has them.
fn with_doubles(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(with_doubles).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), with_doubles(value))).collect(),
        other => other.clone(),
    }
}

fn assert_same(who: &str, seen: &[Event], expected: &[Event]) {
    let different = seen.iter().zip(expected).find(|(a, b)| a != b);
    assert_eq!(different, None, "{who}");
    assert_eq!(seen.len(), expected.len(), "{who}");
}
