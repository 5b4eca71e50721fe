//! `longwire serve` and `longwire demo`, as programs.

use crate::support::{PATIENCE, within};
use std::process::{Output, Stdio};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

fn longwire(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longwire"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("RUST_LOG").kill_on_drop(true);
    command
}

/// Starts it, and returns its URL.
async fn start(arguments: &[&str]) -> (Child, String) {
    let mut child = longwire(arguments).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = within(lines.next_line()).await.unwrap().unwrap();
    let url = first.strip_prefix("listening on ").unwrap_or_else(|| panic!("{first:?}")).to_owned();
    // The pipe stays open, or the program could not say what else it has to say.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, url)
}

/// Sends it a signal, and returns its exit code.
async fn stop(child: &mut Child, signal: &str) -> Option<i32> {
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-s", signal, &id]).status().await.unwrap().success());
    within(child.wait()).await.unwrap().code()
}

/// Runs it to its end, which has to come by itself.
async fn run(arguments: &[&str]) -> Output {
    tokio::time::timeout(PATIENCE, longwire(arguments).output()).await.expect("it does not end").unwrap()
}

#[tokio::test]
async fn it_says_where_it_listens_and_ends_on_signals() {
    for signal in ["INT", "TERM"] {
        let (mut child, url) = start(&["serve", "--listen", "127.0.0.1:0"]).await;
        assert!(url.starts_with("http://127.0.0.1:") && !url.ends_with(":0"), "{url}");
        let answer = run(&["pub", "a/b", "{\"x\":1}", "--url", &url]).await;
        assert!(answer.status.success(), "{answer:?}");
        let answer = run(&["sub", "a/**", "--json", "--count", "1", "--url", &url]).await;
        let line = String::from_utf8(answer.stdout).unwrap();
        assert!(line.contains("\"data\":{\"x\":1}"), "{line}");
        assert_eq!(stop(&mut child, signal).await, Some(0));
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_said_in_one_line_with_exit_code_2() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let bad = std::env::temp_dir().join(format!("longwire-{}.toml", std::process::id()));
    std::fs::write(&bad, "[[token]]\nsecret = \"hidden\"\n").unwrap();
    let bad = bad.to_str().unwrap();
    for (arguments, says) in [
        (vec!["serve", "--listen", &taken], "--listen 127.0.0.1:0 takes any free port"),
        (vec!["demo", "--listen", &taken], "--listen 127.0.0.1:0 takes any free port"),
        (vec!["serve", "--listen", "nonsense"], "cannot listen on nonsense"),
        (vec!["serve", "--listen", "127.0.0.1:99999"], "cannot listen on 127.0.0.1:99999"),
        (vec!["serve", "--listen", "192.0.2.1:0", "--insecure"], "cannot listen on 192.0.2.1:0"),
        (vec!["serve", "--listen", "0.0.0.0:0"], "--token-file FILE"),
        (vec!["serve", "--listen", "[::]:0"], "--insecure"),
        (vec!["demo", "--listen", "0.0.0.0:0"], "--insecure"),
        (vec!["serve", "--listen", "127.0.0.1:0", "--token-file", "/nowhere"], "token file /nowhere"),
        (vec!["serve", "--listen", "127.0.0.1:0", "--token-file", bad], "subject"),
    ] {
        let output = run(&arguments).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {error}");
        assert!(output.stdout.is_empty());
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.starts_with("error: ") && error.contains(says), "{arguments:?} {error}");
        assert!(!error.contains("hidden"));
    }
    std::fs::remove_file(bad).unwrap();
}

#[tokio::test]
async fn it_listens_to_others_when_it_is_told_who_they_are() {
    let path = std::env::temp_dir().join(format!("longwire-tokens-{}.toml", std::process::id()));
    std::fs::write(
        &path,
        "[[token]]\nsecret = \"s3cret\"\nsubject = \"x\"\nsubscribe = [\"a\"]\npublish = [\"a\"]\n",
    )
    .unwrap();
    let (mut child, url) =
        start(&["serve", "--listen", "0.0.0.0:0", "--token-file", path.to_str().unwrap()]).await;
    let url = url.replace("0.0.0.0", "127.0.0.1");
    let answer = run(&["pub", "a", "1", "--url", &url]).await;
    assert!(!answer.status.success());
    assert!(String::from_utf8(answer.stderr).unwrap().contains("unauthorized"));
    assert!(run(&["pub", "a", "1", "--url", &url, "--token", "s3cret"]).await.status.success());
    assert_eq!(stop(&mut child, "TERM").await, Some(0));
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn the_demo_shows_this_machine_and_every_device() {
    let (mut child, url) = start(&["demo", "--listen", "127.0.0.1:0", "--devices", "3"]).await;
    let mut topics = std::collections::BTreeSet::new();
    let wanted = 3 + 4;
    // Two reports of each, of which the second is counted up.
    let mut reader =
        longwire(&["sub", "fleet/**", "--json", "--count", "60", "--url", &url]).spawn().unwrap();
    let mut lines = BufReader::new(reader.stdout.take().unwrap()).lines();
    let mut counted = std::collections::BTreeSet::new();
    while counted.len() < wanted {
        let line = within(lines.next_line()).await.unwrap().expect("60 events are enough");
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        let topic = event["topic"].as_str().unwrap().to_owned();
        if event["data"]["seq"].as_u64().unwrap() >= 2 {
            counted.insert(topic.clone());
        }
        topics.insert(topic);
    }
    let expected = [
        "fleet/sim-001/telemetry",
        "fleet/sim-002/telemetry",
        "fleet/sim-003/telemetry",
        "fleet/this-machine/cpu",
        "fleet/this-machine/disk",
        "fleet/this-machine/memory",
        "fleet/this-machine/network",
    ];
    assert_eq!(topics.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    assert_eq!(stop(&mut child, "INT").await, Some(0));
}
