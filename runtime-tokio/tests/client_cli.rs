//! The program, as people and scripts use it: `sub`, `pub` and `connect`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong may stop"
)]
#![cfg(feature = "cli")]

mod client_mock;

use client_mock::{Faults, Gateway};
use longwire::websocket::{Config, accept};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::timeout;

fn longwire(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longwire"));
    command.args(args).env_remove("LONGWIRE_URL").env_remove("LONGWIRE_TOKEN").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end, with this standard input.
async fn run(args: &[&str], input: &str) -> (i32, String, String) {
    let mut child = longwire(args).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    ended(child).await
}

async fn ended(child: Child) -> (i32, String, String) {
    let Output { status, stdout, stderr } = child.wait_with_output().await.unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn sub_writes_one_json_object_a_line_and_ends_after_count() {
    for transport in ["ws", "sse", "longpoll", "poll", "auto"] {
        let gateway = Gateway::start().await;
        gateway.publish("a", None, "{\n  \"x\": 1.50\n}");
        gateway.publish("b", Some("k"), "\"é\"");
        let args = ["sub", "**", "--url", &gateway.url, "--transport", transport, "--json", "--count", "2"];
        let (code, out, err) = run(&args, "").await;
        let lines = "{\"topic\":\"a\",\"at\":\"9f86d081884c7d65-1\",\"data\":{\"x\":1.50}}\n\
            {\"topic\":\"b\",\"at\":\"9f86d081884c7d65-2\",\"key\":\"k\",\"data\":\"é\"}\n";
        assert_eq!((code, out.as_str(), err.as_str()), (0, lines, ""), "{transport}");
    }
}

#[tokio::test]
async fn sub_for_people_is_aligned_plain_and_cannot_command_a_terminal() {
    let gateway = Gateway::start().await;
    gateway.publish("fleet/7/cpu", None, "0.25");
    gateway.publish("a", Some("k"), "\"\u{9b}31m\"");
    let (code, out, _) = run(&["sub", "**", "--url", &gateway.url, "--count", "2"], "").await;
    assert_eq!((code, out.as_str()), (0, "fleet/7/cpu  0.25\na [k]        \"\u{fffd}31m\"\n"));
}

#[tokio::test]
async fn sub_tells_gaps_and_reconnections() {
    let gateway = Gateway::start().await;
    for n in 0..4 {
        gateway.publish("a", None, &n.to_string());
    }
    gateway.set(Faults { floor: 2, end_after: Some(1), ..Faults::default() });
    let since = "9f86d081884c7d65-0";
    let args =
        ["sub", "a", "--url", &gateway.url, "--since", since, "--json", "--count", "2", "--transport", "ws"];
    let (code, out, err) = run(&args, "").await;
    let lines = "{\"gap\":{\"from\":\"9f86d081884c7d65-0\",\"to\":\"9f86d081884c7d65-2\",\"reason\":\"evicted\"}}\n\
        {\"topic\":\"a\",\"at\":\"9f86d081884c7d65-3\",\"data\":2}\n{\"topic\":\"a\",\"at\":\"9f86d081884c7d65-4\",\"data\":3}\n";
    assert_eq!((code, out.as_str()), (0, lines));
    assert!(err.contains("trying again in") && err.ends_with("longwire: connected (ws)\n"), "{err}");
}

#[tokio::test]
async fn sub_ends_quietly_when_nobody_reads_any_more() {
    let gateway = Gateway::start().await;
    let mut child = longwire(&["sub", "**", "--url", &gateway.url, "--json"]).spawn().unwrap();
    gateway.publish("a", None, "1");
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    // A child that does not end would hold the tests up for ever.
    let patience = Duration::from_secs(60);
    timeout(patience, out.read_line(&mut line)).await.unwrap().unwrap();
    assert!(line.ends_with("\"data\":1}\n"), "{line}");
    drop(out);
    gateway.publish("a", None, "2");
    let (code, _, err) = timeout(patience, ended(child)).await.unwrap();
    assert_eq!((code, err.as_str()), (0, ""));
}

#[tokio::test]
async fn errors_are_one_line_that_says_what_to_do() {
    let gateway = Gateway::start().await;
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    for (args, code, says) in [
        (&["sub", "a/**/b", "--url", &gateway.url][..], 2, "`a/**/b`: "),
        (&["sub", "a", "--url", "ftp://x"], 2, "only http://, https://, ws:// and wss://"),
        (&["sub", "a", "--url", &nobody], 1, "Connection refused"),
        (&["pub", "a", "{x}", "--url", &gateway.url], 2, "to send a text use `--text`"),
        (&["pub", "a", "1", "--url", &nobody], 1, "is the gateway running?"),
        (&["pub", "a/*", "1", "--url", &gateway.url], 2, "`a/*`: "),
        (&["connect", "example.org"], 2, "it begins with ws://, wss://, http:// or https://"),
        (&["connect", &nobody.replace("http", "ws")], 1, "Connection refused"),
        (&["connect", &gateway.url, "--subprotocol", "x"], 2, "an http URL is read as an event stream"),
    ] {
        let (got, out, err) = run(args, "").await;
        assert_eq!((got, out.as_str()), (code, ""), "{args:?}: {err}");
        assert!(err.starts_with("error: ") && err.contains(says), "{args:?}: {err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
    // Those of the argument parser, too.
    for args in [
        &["sub"][..],
        &["sub", "a", "--since", "x"],
        &["sub", "a", "--transport", "x"],
        &["sub", "a", "--count", "0"],
        &["nonsense"],
    ] {
        let (code, _, err) = run(args, "").await;
        assert!(code == 2 && err.starts_with("error: ") && err.lines().count() == 1, "{args:?}: {err}");
    }
}

#[tokio::test]
async fn help_has_examples() {
    for args in [&["--help"][..], &["sub", "--help"], &["pub", "--help"], &["connect", "--help"]] {
        let (code, out, _) = run(args, "").await;
        assert!(code == 0 && out.contains("Examples:\n  longwire "), "{out}");
    }
}

#[tokio::test]
async fn pub_posts_one_value_and_says_nothing() {
    let gateway = Gateway::start().await;
    let (code, out, err) = run(&["pub", "a", "-1.5", "--url", &gateway.url], "").await;
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
    let args = ["pub", "a", "say \"hi\"", "--text", "--verbose", "--url", &gateway.url];
    let (code, out, err) = run(&args, "").await;
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", "longwire: published at 9f86d081884c7d65-2\n"));
    let (_, out, _) = run(
        &["sub", "**", "--url", &gateway.url, "--since", "9f86d081884c7d65-0", "--json", "--count", "2"],
        "",
    )
    .await;
    assert!(out.contains("\"data\":-1.5}\n") && out.contains("\"data\":\"say \\\"hi\\\"\"}\n"), "{out}");
}

#[tokio::test]
async fn pub_takes_the_token_from_the_environment_and_the_gateways_word() {
    let gateway = Gateway::start().await;
    let body = r#"{"code":"unauthorized","message":"no such token","permanent":true}"#;
    gateway.set(Faults { refuse: vec![("post", 401, body)], ..Faults::default() });
    let mut command = longwire(&["pub", "a", "1", "--url", &gateway.url]);
    let (code, _, err) = ended(command.env("LONGWIRE_TOKEN", "sesame").spawn().unwrap()).await;
    assert_eq!(code, 1);
    assert!(
        err.starts_with("error: refused with status 401, unauthorized: no such token (give a credential"),
        "{err}"
    );
    assert!(gateway.requests()[0].contains("Bearer sesame\r\n"));
}

#[tokio::test]
async fn pub_publishes_lines_as_they_come_and_stops_at_a_refusal() {
    let gateway = Gateway::start().await;
    let mut child = longwire(&["pub", "a", "-", "--url", &gateway.url, "--verbose"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Each line is published when it comes, not at the end.
    for n in 1..=3 {
        stdin.write_all(format!("{n}\n\n").as_bytes()).await.unwrap();
        while gateway.head() < n {
            tokio::task::yield_now().await;
        }
    }
    stdin.write_all(b"\"last\"").await.unwrap();
    drop(stdin);
    let (code, out, err) = ended(child).await;
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", "longwire: published 4\n"));

    let (code, _, err) = run(&["pub", "a", "-", "--url", &gateway.url], "1\n\nnonsense\n").await;
    assert_eq!(code, 2);
    assert!(err.starts_with("error: line 3: the data is not one JSON value"), "{err}");
    let (code, _, err) = run(&["pub", "refused", "-", "--text", "--url", &gateway.url], "one\ntwo\n").await;
    assert_eq!((code, err.as_str()), (1, "error: line 1: refused publication 1 with forbidden: not yours\n"));
}

/// Without the times.
fn shown(out: &str) -> Vec<String> {
    out.lines().map(|line| line.get(20..).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[tokio::test]
async fn connect_talks_to_a_websocket_over_a_pipe() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let echo = tokio::spawn(async move {
        let mut socket = accept(listener.accept().await.unwrap().0, Config::default()).await.unwrap();
        while let Some(message) = socket.recv_message().await {
            socket.send(message.unwrap()).await.unwrap();
        }
    });
    let (code, out, err) =
        run(&["connect", &url], "héllo\n/ping x\n/binary 00ff\n/close 4001 enough\n").await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let mut lines = shown(&out);
    assert_eq!(lines.remove(0), format!("* connected to {url}"));
    assert_eq!(lines.pop().unwrap(), "* closed by this end");
    // What is sent and what comes back may be interleaved in any way, each in its order.
    let (sent, got): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.starts_with('>'));
    assert_eq!(sent, ["> text 6 héllo", "> ping 1 x", "> binary 2 00ff", "> close 4001 6 enough"]);
    assert_eq!(got, ["< text 6 héllo", "< pong 1 x", "< binary 2 00ff", "< close 4001 0"]);
    echo.await.unwrap();
}

#[tokio::test]
async fn connect_tells_when_the_server_closes_or_just_goes() {
    for clean in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut socket = accept(listener.accept().await.unwrap().0, Config::default()).await.unwrap();
            if clean {
                socket.close(longwire::websocket::CloseCode::GOING_AWAY, "good night").await.unwrap();
            }
        });
        let (code, out, err) = run(&["connect", &url, "--no-input"], "").await;
        if clean {
            assert_eq!((code, err.as_str()), (0, ""));
            assert_eq!(shown(&out)[1..], ["< close 1001 10 good night", "* closed by the server"]);
        } else {
            assert_eq!((code, err.as_str()), (1, "error: the stream ended without a closing handshake\n"));
        }
    }
}

#[tokio::test]
async fn connect_shows_an_event_stream() {
    let gateway = Gateway::start().await;
    gateway.publish("a", None, "1");
    let bye = r#"{"type":"bye","code":"draining","permanent":false,"message":"later"}"#;
    gateway.set(Faults { bye: Some(bye), ..Faults::default() });
    let url = format!("{}/v1/stream?topic=a&since=now", gateway.url);
    let (code, out, err) = run(&["connect", &url, "--header", "X-One: 1"], "").await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let lines = shown(&out);
    assert!(lines[1].starts_with("< hello ") && lines[2].starts_with("< bye "), "{lines:?}");
    assert_eq!(lines[3], "* ended by the server");
    assert!(gateway.requests()[0].contains("x-one: 1\r\n"));
}

#[tokio::test]
async fn what_a_pipe_gets_has_no_colours() {
    let gateway = Gateway::start().await;
    gateway.publish("a", None, "1");
    let mut child = longwire(&["sub", "a", "--url", &gateway.url, "--count", "1"]).spawn().unwrap();
    let mut out = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut out).await.unwrap();
    assert_eq!(out, b"a  1\n");
}
