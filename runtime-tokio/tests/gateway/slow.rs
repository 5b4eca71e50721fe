//! Section 5.1, as requests meet it: which policy a reader may have, and what one that is slow is told.

use crate::support::{Answer, Client, Served, within};
use longwire::gateway::GatewayConfig;
use longwire::hub::{HubConfig, LogConfig, Open};
use longwire_core::log::Policy;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

async fn served(change: impl FnOnce(&mut HubConfig)) -> Served {
    let log = LogConfig { tail_bytes: 64 << 20, history_bytes: 64 << 20, ..LogConfig::default() };
    let mut hub = HubConfig { max_lag_events: 40, log, ..HubConfig::default() };
    change(&mut hub);
    Served::with(GatewayConfig::default(), hub, Open).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_what_the_operator_allows_on_every_transport() {
    let served = served(|hub| hub.policies = vec![Policy::Conflate]).await;
    for (policy, status, code) in [
        ("policy=drop_oldest", 403, "forbidden"),
        ("policy=disconnect", 403, "forbidden"),
        ("policy=drop_newest", 400, "bad_request"),
        ("policy=fast", 400, "bad_request"),
        ("policy=conflate&policy=conflate", 400, "bad_request"),
    ] {
        let target = format!("/v1/stream?topic=a&{policy}");
        let poll = served.get(&target, "").await;
        assert_eq!((poll.status, &*poll.code()), (status, code), "{policy}");
        let upgrade = served.ask(&served.handshake(&target, "")).await;
        assert_eq!((upgrade.status, &*upgrade.code()), (status, code), "{policy}");
        let events = served.get(&target, "Accept: text/event-stream\r\n").await;
        // What may be allowed later does not stop an `EventSource` for ever.
        match status {
            403 => assert!(events.status == 200 && events.body.contains(r#"event: bye"#), "{events:?}"),
            _ => assert_eq!(events.status, status),
        }
    }
    assert_eq!(served.get("/v1/stream?topic=a&policy=conflate", "").await.status, 200);
    assert_eq!(served.ask(&served.handshake("/v1/stream?policy=conflate", "")).await.status, 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_that_is_behind_is_told_so() {
    let served = served(|_| {}).await;
    for n in 1..=50 {
        served.publish(if n % 2 == 0 { "a" } else { "b" }, None, &n.to_string()).await;
    }
    let poll = async |since: u64, limit: u64| -> Answer {
        let since = served.cursor(since);
        served.get(&format!("/v1/stream?topic=a&since={since}&limit={limit}"), "").await
    };
    let pressure = |answer: &Answer| answer.json().get("pressure").cloned();
    let far = poll(0, 2).await;
    assert_eq!(far.next(), served.cursor(4));
    // Beyond the limit as well: no policy acts on a poll.
    assert_eq!(pressure(&far), Some(json!({"lag": 46, "limit": 40, "skipped": 0})));
    assert_eq!(far.json().get("gap"), None);
    assert_eq!(pressure(&poll(10, 10).await), Some(json!({"lag": 20, "limit": 40, "skipped": 0})));
    assert_eq!(pressure(&poll(10, 11).await), None);
    assert_eq!(pressure(&poll(10, 1000).await), None);
}

/// Reads until that has come.
async fn all_until(client: &mut Client, mark: &str) -> String {
    let mut got = std::mem::take(&mut client.unread);
    let mut piece = vec![0; 64 << 10];
    loop {
        let fresh = got.len().saturating_sub(piece.len() + mark.len());
        if got[fresh..].windows(mark.len()).any(|window| window == mark.as_bytes()) {
            return String::from_utf8(got).unwrap();
        }
        let n = within(client.stream.read(&mut piece)).await.unwrap();
        assert_ne!(n, 0, "{mark} did not come");
        got.extend_from_slice(&piece[..n]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gap_and_pressure_are_named_events_in_line() {
    for (policy, reason) in [("drop_oldest", "slow"), ("conflate", "conflated")] {
        let served = served(|_| {}).await;
        let mut client = served.connect().await;
        let target = format!("/v1/stream?topic=a&policy={policy}");
        client.send(&served.request("GET", &target, "Accept: text/event-stream\r\n", b"")).await;
        client.until("event: caught_up\n").await;
        let body = "x".repeat(50_000);
        // Far more than the kernel holds of it.
        for _ in 0..500 {
            served.publish("a", None, &format!("\"{body}\"")).await;
        }
        served.publish("a", None, "\"the last\"").await;
        let got = all_until(&mut client, "the last").await;
        let blocks: Vec<&str> = got.split("\n\n").map(str::trim).collect();
        let data = |block: &str| -> Value {
            let data = block.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
            serde_json::from_str(data).unwrap()
        };
        let gaps: Vec<usize> =
            (0..blocks.len()).filter(|at| blocks[*at].starts_with("event: gap\n")).collect();
        assert!(!gaps.is_empty());
        for at in gaps {
            let (gap, pressure) = (data(blocks[at]), data(blocks[at + 1]));
            assert!(blocks[at + 1].starts_with("event: pressure\n"), "{pressure}");
            assert!(
                gap["type"] == "gap" && gap["reason"] == reason && gap["skipped"].as_u64() > Some(0),
                "{gap}"
            );
            assert!(pressure["limit"] == 40 && pressure["type"] == "pressure", "{pressure}");
            // Neither is a place to resume from.
            assert!(!blocks[at].contains("id: ") && !blocks[at + 1].contains("id: "));
        }
        let metrics = served.get("/metrics", "").await.body;
        let skipped = format!("longwire_skipped_{reason}_total{{log=\"default\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&*skipped));
        assert!(value.is_some_and(|value| value != "0"), "{metrics}");
        assert!(metrics.contains("\nlongwire_pinned_bytes{log=\"default\"} "), "{metrics}");
    }
}
