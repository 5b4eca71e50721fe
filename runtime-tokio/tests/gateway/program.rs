//! `longwire serve` and `longwire demo`, as programs.

use crate::support::{Client, PATIENCE, within};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::process::{Output, Stdio};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
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
        (vec!["serve", "--listen", "127.0.0.1:0", "--log", "a/b"], "--log a/b: the name of a log is"),
        (vec!["serve", "--log", "a,tail-events=0"], "--log a: invalid value '0' for '--tail-events <N>'"),
        (vec!["serve", "--log", "a,x=1", "--print-config"], "--log a: x is no limit of a log"),
        (vec!["serve", "--shards", "18446744073709551615"], "a number of threads, at most 1024"),
        (vec!["serve", "--listen", "127.0.0.1:0", "--jwt-keys", "/nowhere"], "key set /nowhere"),
        (vec!["serve", "--listen", "127.0.0.1:0", "--jwt-keys", bad], "not a JWK Set: line 1"),
        (
            vec!["serve", "--listen", "127.0.0.1:0", "--revoked", bad],
            "--revoked needs --token-file or --jwt-keys",
        ),
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
async fn it_serves_the_logs_that_it_is_told_of() {
    let log = "telemetry,tail-events=1,history-events=2";
    let (mut child, url) = start(&["serve", "--listen", "127.0.0.1:0", "--log", log, "--log", "b"]).await;
    let telemetry = format!("{url}/v1/logs/telemetry");
    for data in ["1", "2", "3"] {
        assert!(run(&["pub", "t", data, "--url", &telemetry]).await.status.success());
    }
    assert!(run(&["pub", "t", "4", "--url", &url]).await.status.success());
    let events = |output: Output| -> Vec<serde_json::Value> {
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    for transport in ["ws", "sse", "longpoll", "poll"] {
        let sub = async |url: &str, since: &str, count: &str| {
            let from = ["--since", since, "--count", count, "--transport", transport, "--url", url];
            events(run(&[&["sub", "t", "--json"][..], &from].concat()).await)
        };
        let default = sub(&url, "latest", "1").await;
        assert_eq!(default[0]["data"], 4, "{transport}");
        // The cursor of one log is nothing to another; of its own past this one holds two events.
        let foreign = default[0]["past"].as_str().or(default[0]["at"].as_str()).unwrap();
        let reset = sub(&telemetry, foreign, "1").await;
        assert_eq!(reset[0]["gap"]["reason"], "reset", "{transport} {reset:?}");
        let own = reset[0]["gap"]["to"].as_str().unwrap();
        let first = own.replace("-3", "-0");
        let mut resumed = sub(&telemetry, &first, "2").await;
        // With a tail of one event everybody is under pressure.
        resumed.retain(|line| line.get("pressure").is_none());
        assert_eq!(resumed[0]["gap"]["to"], own.replace("-3", "-1"), "{transport} {resumed:?}");
        assert_eq!((&resumed[1]["data"], &resumed[2]["data"]), (&2.into(), &3.into()));
    }
    let nowhere = format!("{url}/v1/logs/nowhere");
    let refused = run(&["pub", "t", "1", "--url", &nowhere]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("there is no log nowhere"));
    assert_eq!(stop(&mut child, "TERM").await, Some(0));
}

#[tokio::test]
async fn the_configuration_is_printed_as_options_that_would_make_it() {
    let print = async |arguments: &[&str]| {
        let output = run(&[&["serve", "--print-config"], arguments].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let given = [
        "--shards",
        "9",
        "--burst",
        "1500ms",
        "--topics-full",
        "forget",
        "--tail-events",
        "7",
        "--history-age",
        "90s",
        "--log",
        "b,tail-bytes=1MiB",
        "--log",
        "a,max-keys=3",
    ];
    let printed = print(&given).await;
    for line in [
        "--max-connections 10000",
        "--shards 9",
        "--burst 1500ms",
        "--topics-full forget",
        "--tail-events 7",
        "--history-age 90s",
        "--reconnect-window 5s",
    ] {
        assert!(printed.contains(&format!("{line}\n")), "{line} is not in {printed}");
    }
    // Twice the tail, for what is encoded; the histories; the latest events.
    for (log, bytes) in [("default", "160MiB"), ("a", "160MiB"), ("b", "130MiB")] {
        assert!(printed.contains(&format!("# events of log {log}: at most {bytes}\n")), "{printed}");
    }
    assert!(printed.ends_with("# events of all logs: at most 450MiB\n"), "{printed}");
    let options = printed.lines().filter(|line| !line.starts_with('#'));
    let again: Vec<&str> = options.flat_map(|line| line.split(' ')).collect();
    assert_eq!(print(&again).await, printed);
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

/// A token that is good for long, signed with HS256.
fn jwt(secret: &[u8], jti: &str) -> String {
    let claims = format!(
        "{{\"sub\":\"ada\",\"exp\":4102444800,\"iss\":\"test\",\"jti\":\"{jti}\",\"longwire\":{{\"subscribe\":[\"a/**\"]}}}}"
    );
    let message =
        ["{\"alg\":\"HS256\",\"kid\":\"1\"}", &claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, message.as_bytes())))
}

#[tokio::test]
async fn json_web_tokens_are_taken_until_they_are_revoked_or_their_key_is_gone() {
    let folder = std::env::temp_dir().join(format!("longwire-jwt-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (keys, revoked) = (folder.join("keys.json"), folder.join("revoked"));
    let set = |secret: &[u8]| {
        let secret = URL_SAFE_NO_PAD.encode(secret);
        format!("{{\"keys\":[{{\"kty\":\"oct\",\"kid\":\"1\",\"k\":\"{secret}\"}}]}}")
    };
    let (old, new) = ([7; 32], [8; 32]);
    std::fs::write(&keys, set(&old)).unwrap();
    std::fs::write(&revoked, "").unwrap();
    let (keys_path, revoked_path) = (keys.to_str().unwrap(), revoked.to_str().unwrap());
    let (mut child, url) = start(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--jwt-keys",
        keys_path,
        "--jwt-issuer",
        "test",
        "--revoked",
        revoked_path,
    ])
    .await;
    let address = url.strip_prefix("http://").unwrap();
    let open = async |token: &str, accept: &str| {
        let mut client = Client { stream: TcpStream::connect(address).await.unwrap(), unread: Vec::new() };
        let request = format!(
            "GET /v1/stream?topic=a/1 HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        client.send(request.as_bytes()).await;
        (client.head().await.status, client)
    };
    let (first, second) = (jwt(&old, "first"), jwt(&old, "second"));
    assert_eq!(open(&jwt(&new, "first"), "*/*").await.0, 401);
    let (_, mut cut) = open(&first, "text/event-stream").await;
    let (_, mut kept) = open(&second, "text/event-stream").await;
    for client in [&mut cut, &mut kept] {
        client.until("event: caught_up").await;
    }
    std::fs::write(&revoked, "# a token that was lost\nfirst\n").unwrap();
    assert!(cut.rest().await.contains("event: bye"));
    assert_eq!((open(&first, "*/*").await.0, open(&second, "*/*").await.0), (401, 200));
    // Other keys: tokens of the old one are not taken any more; what was granted on them holds to its end.
    std::fs::write(&keys, set(&new)).unwrap();
    within(async { while open(&second, "*/*").await.0 != 401 {} }).await;
    assert_eq!(open(&jwt(&new, "third"), "*/*").await.0, 200);
    assert!(!String::from_utf8_lossy(&kept.unread).contains("bye"));
    assert_eq!(stop(&mut child, "TERM").await, Some(0));
    assert!(kept.rest().await.contains("\"code\":\"draining\""));
    std::fs::remove_dir_all(folder).unwrap();
}
