//! The program `longwire` at a shell: help with examples, one line for an error, and what `sub` and `pub` print.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use longwire_tests::gateway::Gateway;
use longwire_tests::process::{Ended, Program};
use longwire_tests::{longwire, workspace};
use serde_json::{Value, json};

fn run(arguments: &[&str]) -> Ended {
    Program::run(longwire().args(arguments))
}

/// One line on standard error that has all these words, nothing else, and an exit code that says so.
fn assert_fails(arguments: &[&str], words: &[&str]) {
    let ended = run(arguments);
    assert!(matches!(ended.status.code(), Some(1 | 2)), "{arguments:?}: {ended:#?}");
    assert_eq!(ended.stdout, Vec::<String>::new(), "{arguments:?}");
    let [line] = &ended.stderr[..] else { panic!("{arguments:?}: one line, not {:#?}", ended.stderr) };
    assert!(!line.contains("panicked"), "{arguments:?}: {line}");
    assert!(!line.contains('\x1b'), "{arguments:?}: colours only on a terminal: {line}");
    for word in words {
        assert!(line.contains(word), "{arguments:?}: no {word:?} in {line:?}");
    }
}

#[test]
fn help_has_examples() {
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    for command in ["demo", "serve", "sub", "pub", "connect"] {
        assert!(
            help.stdout.iter().any(|line| line.trim_start().starts_with(command)),
            "{command}: {help:#?}"
        );
        let help = run(&[command, "--help"]);
        assert_eq!(help.status.code(), Some(0), "{help:#?}");
        let example = format!("longwire {command} ");
        assert!(
            help.stdout.iter().any(|line| line.trim_start().starts_with(&example)),
            "no example: {help:#?}"
        );
    }
    let version = run(&["--version"]);
    assert_eq!(version.stdout, [format!("longwire {}", env!("CARGO_PKG_VERSION"))]);
}

#[test]
fn the_limits_in_the_readme_are_those_of_serve() {
    let readme = std::fs::read_to_string(workspace().join("README.md")).expect("the README");
    let rows: Vec<_> = readme.lines().filter_map(|line| line.strip_prefix("| `--")).collect();
    let help = run(&["serve", "--help"]).stdout.join("\n");
    let (_, limits) = help.split_once("Limits:").expect("a section of limits");
    let options = limits.lines().filter_map(|line| line.trim_start().strip_prefix("--"));
    let options: Vec<_> = options.filter_map(|line| line.split(' ').next()).collect();
    let named: Vec<_> = rows.iter().filter_map(|row| row.split('`').next()).collect();
    assert_eq!(named, options);
    for row in rows {
        let mut cells = row.split(" | ");
        let (option, default) =
            (cells.next().expect("an option").trim_end_matches('`'), cells.next().expect("a default"));
        let (_, text) = limits.split_once(&format!("--{option} ")).expect("the option");
        let shown = text.split_once("[default: ").and_then(|(_, rest)| rest.split(']').next());
        assert_eq!(shown, Some(default), "--{option}");
    }
}

#[test]
fn an_error_is_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    assert_fails(&["serve", "--listen", &taken], &[&taken]);
    assert_fails(&["demo", "--listen", &taken], &[&taken]);
    assert_fails(&["serve", "--listen", "nowhere"], &["nowhere"]);
    assert_fails(&["serve", "--listen", "127.0.0.1:0", "--max-topics", "many"], &["--max-topics", "many"]);
    assert_fails(
        &["serve", "--listen", "127.0.0.1:0", "--token-file", "/does/not/exist"],
        &["/does/not/exist"],
    );
    for url in ["", "127.0.0.1:80", "http://", "http://127.0.0.1:99999"] {
        assert_fails(&["sub", "a", "--url", url], &[url, "URL"]);
        assert_fails(&["pub", "a", "1", "--url", url], &[url, "URL"]);
    }
    assert_fails(&["sub", "a", "--url", "ftp://127.0.0.1"], &["ftp"]);
    assert_fails(&["pub", "a", "1", "--url", &format!("http://{}", unused_address())], &["refused"]);
    assert_fails(&["connect", &format!("ws://{}", unused_address())], &["refused"]);
    assert_fails(&["sub", "a", "--url", "http://127.0.0.1:1", "--transport", "pigeon"], &["pigeon"]);
    assert_fails(&["sub", "a", "--url", "http://127.0.0.1:1", "--since", "yesterday"], &["yesterday"]);
    assert_fails(&["dance"], &["dance"]);
}

/// Somewhere on loopback where nobody listens.
fn unused_address() -> String {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").to_string()
}

#[test]
fn another_address_than_loopback_needs_tokens_or_a_word() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        assert_fails(&["serve", "--listen", address], &["--token-file", "--insecure"]);
        assert_fails(&["demo", "--listen", address], &["--token-file", "--insecure"]);
    }
}

#[test]
fn what_no_gateway_would_take_is_refused_here() {
    assert_fails(&["pub", "a//b", "1"], &["a//b", "level"]);
    assert_fails(&["pub", "a/*", "1"], &["a/*"]);
    assert_fails(&["pub", "a", "nul"], &["JSON"]);
    assert_fails(&["sub", "a*"], &["a*", "level"]);
}

#[test]
fn sub_prints_events_as_json_lines_over_every_transport() {
    let gateway = Gateway::start();
    let start = gateway.publish("before", &Value::Null);
    let expected: Vec<Value> =
        [("a/b", json!({"x": [1, 2.5, "ä\n"]})), ("a/c", json!(u64::MAX)), ("a/b", json!(null))]
            .into_iter()
            .map(|(topic, data)| json!({"topic": topic, "at": gateway.publish(topic, &data), "data": data}))
            .collect();
    for transport in ["ws", "sse", "longpoll", "poll", "auto"] {
        let ended = run(&[
            "sub",
            "a/**",
            "--url",
            &gateway.url(),
            "--transport",
            transport,
            "--since",
            &start,
            "--count",
            "3",
            "--json",
        ]);
        assert_eq!(ended.status.code(), Some(0), "{transport}: {ended:#?}");
        let lines: Vec<Value> =
            ended.stdout.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines, expected, "{transport}");
    }
    let latest = run(&["sub", "a/*", "--url", &gateway.url(), "--since", "latest", "--count", "2", "--json"]);
    assert_eq!(latest.stdout.len(), 2, "one for each topic: {latest:#?}");
}

#[test]
fn sub_waits_for_what_is_published_later() {
    let gateway = Gateway::start();
    let start = gateway.publish("before", &Value::Null);
    for transport in ["ws", "sse", "longpoll", "poll", "auto"] {
        let url = gateway.url();
        let topic = format!("later/{transport}");
        let arguments = ["sub", &topic, "--url", &url, "--transport", transport, "--since", &start, "--json"];
        let subscriber = Program::start(longwire().args(arguments));
        for number in 0..3 {
            gateway.publish(&topic, &json!(number));
            let lines = subscriber.wait_for_lines(number + 1);
            let line: Value = serde_json::from_str(&lines[number]).expect("JSON");
            assert_eq!(line["data"], json!(number), "{transport}");
        }
    }
}

#[test]
fn pub_sends_its_argument_or_each_line_of_its_input() {
    let gateway = Gateway::start();
    let one = run(&["pub", "one", r#"{"x":1}"#, "--url", &gateway.url()]);
    assert_eq!(one.status.code(), Some(0), "{one:#?}");
    let start = gateway.get("/v1/stream?topic=one").json();
    assert_eq!(start["events"][0]["data"], json!({"x": 1}));

    let mut publisher = Program::start_with_stdin(
        longwire().args(["pub", "lines", "-", "--url", &gateway.url()]),
        Stdio::piped(),
    );
    let mut input = publisher.stdin();
    for line in ["1", "[2]", "{\"three\":3}"] {
        writeln!(input, "{line}").expect("it reads");
    }
    drop(input);
    let ended = publisher.finish();
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    let next = start["next"].as_str().expect("next");
    let answer = gateway.get(&format!("/v1/stream?topic=lines&since={next}")).json();
    let data: Vec<_> =
        answer["events"].as_array().expect("events").iter().map(|event| event["data"].clone()).collect();
    assert_eq!(data, [json!(1), json!([2]), json!({"three": 3})]);
}

#[test]
fn serve_ends_on_ctrl_c_with_exit_code_0() {
    let gateway = Gateway::start();
    gateway.program.interrupt();
    let Gateway { program, .. } = gateway;
    assert_eq!(program.finish().status.code(), Some(0));
}

#[test]
fn a_closed_pipe_ends_sub_without_a_word() {
    let gateway = Gateway::start();
    gateway.publish("a", &json!(1));
    let shell = format!(
        "{} sub a --url {} --since latest --count 1 --json | true",
        longwire().get_program().display(),
        gateway.url()
    );
    let ended = Program::run(Command::new("sh").args(["-c", &shell]));
    assert_eq!(ended.stderr, Vec::<String>::new());
}
