//! Section 8.1: state, poll, long poll.

use crate::support::{PATIENCE, Served, within};
use longwire::gateway::GatewayConfig;
use longwire::hub::{HubConfig, LogConfig, Open};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_cacheable() {
    let served = Served::open().await;
    served.publish("fleet/1", Some("a"), "1").await;
    let latest = served.publish("fleet/1", Some("a"), "2").await;
    let other = served.publish("fleet/2", None, "{\"x\":[]}").await;
    served.publish("elsewhere", None, "0").await;

    let state = served.get("/v1/stream?topic=fleet/**", "").await;
    assert_eq!(
        state.events(),
        [("fleet/1".into(), latest.clone(), json!(2)), ("fleet/2".into(), other, json!({"x": []}))]
    );
    assert_eq!(state.json()["events"][0]["past"], latest);
    assert_eq!(state.json()["events"][0]["key"], "a");
    assert_eq!((state.next(), state.json().get("more")), (served.cursor(4), None));
    assert_eq!(state.field("cache-control"), Some("public, max-age=1"));
    assert_eq!(state.field("vary"), Some("Accept, Authorization, Origin"));
    let etag = state.field("etag").unwrap().to_owned();

    // What happens elsewhere leaves it as it is.
    served.publish("elsewhere", None, "0").await;
    for known in [etag.clone(), format!("\"x\", {etag}"), etag.replace("W/", ""), "*".into()] {
        let answer = served.get("/v1/stream?topic=fleet/**", &format!("If-None-Match: {known}\r\n")).await;
        assert_eq!((answer.status, answer.field("etag")), (304, Some(&*etag)), "{known}");
        assert_eq!(answer.field("cache-control"), Some("public, max-age=1"));
        assert_eq!(answer.field("vary"), Some("Accept, Authorization, Origin"));
    }
    served.publish("fleet/2", None, "3").await;
    let answer = served.get("/v1/stream?topic=fleet/**", &format!("If-None-Match: {etag}\r\n")).await;
    assert_eq!(answer.events()[1].2, json!(3));
    assert_ne!(answer.field("etag"), Some(&*etag));

    // The cursor of the old answer is still good.
    let after = served.get(&format!("/v1/stream?topic=fleet/**&since={}", state.next()), "").await;
    assert_eq!(after.events(), [("fleet/2".into(), served.cursor(6), json!(3))]);
    // Whoever asks for it by name gets it uncached, and `wait` counts for nothing.
    let asked = served.get("/v1/stream?topic=fleet/**&since=latest&wait=60", "").await;
    assert_eq!((asked.events(), asked.field("cache-control")), (answer.events(), Some("no-store")));
    assert_eq!(asked.field("etag"), None);
    // A state of nothing.
    let empty = served.get("/v1/stream?topic=nothing", "").await;
    assert_eq!((empty.events(), empty.next()), (vec![], served.cursor(6)));
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_get_without_the_body_and_never_waits() {
    let served = Served::open().await;
    served.publish("a", None, "1").await;
    let get = served.get("/v1/stream?topic=a", "").await;
    let mut client = served.connect().await;
    client.send(&served.request("HEAD", "/v1/stream?topic=a", "", b"")).await;
    let head = client.head().await;
    assert_eq!((head.status, head.field("etag")), (200, get.field("etag")));
    assert_eq!(head.field("content-length"), get.field("content-length"));
    client.send(&served.request("HEAD", "/v1/stream?topic=a&since=now&wait=60", "", b"")).await;
    let head = client.head().await;
    assert_eq!((head.status, head.field("longwire-next")), (204, Some(&*served.cursor(1))));
    assert!(client.unread.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_gets_what_came_after_its_cursor() {
    let served = Served::open().await;
    let before = served.cursor(0);
    let nothing = served.get(&format!("/v1/stream?topic=a/*&since={before}"), "").await;
    assert_eq!((nothing.status, nothing.field("longwire-next")), (204, Some(&*before)));
    assert_eq!(nothing.field("cache-control"), Some("no-store, no-transform"));

    for n in 1..=5 {
        served.publish(&format!("a/{n}"), None, &n.to_string()).await;
        served.publish("b", None, "0").await;
    }
    let poll = async |since: &str, limit: usize| {
        served.get(&format!("/v1/stream?topic=a/*&since={since}&limit={limit}"), "").await
    };
    let all = poll(&before, 1000).await;
    let values: Vec<_> = all.events().into_iter().map(|(_, _, data)| data).collect();
    assert_eq!(
        (values, all.next()),
        (vec![json!(1), json!(2), json!(3), json!(4), json!(5)], served.cursor(10))
    );
    assert_eq!(all.json().get("more"), None);
    assert_eq!(all.json()["events"][0]["at"], served.cursor(1));
    assert_eq!(all.field("cache-control"), Some("no-store, no-transform"));

    // Cut at `limit`: `next` is the last event's, and `more` says that there is more.
    let two = poll(&before, 2).await;
    assert_eq!((two.events().len(), two.next(), &two.json()["more"]), (2, served.cursor(3), &json!(true)));
    let four = poll(&two.next(), 2).await;
    assert_eq!((four.events().len(), four.next(), &four.json()["more"]), (2, served.cursor(7), &json!(true)));
    let five = poll(&four.next(), 2).await;
    assert_eq!((five.events().len(), five.next(), five.json().get("more")), (1, served.cursor(10), None));
    // As many as the limit, and none beyond.
    let exact = poll(&before, 5).await;
    assert_eq!((exact.events().len(), exact.json().get("more")), (5, None));
    // Quiet, but the cursor moves on.
    let quiet = poll(&served.cursor(9), 10).await;
    assert_eq!((quiet.status, quiet.field("longwire-next")), (204, Some(&*served.cursor(10))));
    let now = served.get("/v1/stream?topic=a/*&since=now", "").await;
    assert_eq!((now.status, now.field("longwire-next")), (204, Some(&*served.cursor(10))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_cut_at_a_mebibyte() {
    let served = Served::open().await;
    let large = format!("\"{}\"", "x".repeat(400_000));
    for _ in 0..4 {
        served.publish("a", None, &large).await;
    }
    let huge = format!("\"{}\"", "x".repeat(1_500_000));
    served.publish("a", None, &huge).await;
    let mut since = served.cursor(0);
    let mut counts = Vec::new();
    loop {
        let answer = served.get(&format!("/v1/stream?topic=a&since={since}"), "").await;
        let count = answer.events().len();
        assert!(answer.body.len() < (1 << 20) + 100 || count == 1, "{}", answer.body.len());
        counts.push(count);
        since = answer.next();
        if answer.json().get("more").is_none() {
            break;
        }
        assert_eq!(answer.events()[count - 1].1, since);
    }
    assert_eq!((counts, since), (vec![2, 2, 1], served.cursor(5)));
    // A state cannot be cut.
    served.publish("b", None, &large).await;
    let answer = served.get("/v1/stream?topic=*", "").await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "state_too_large"));
    assert_eq!(served.get("/v1/stream?topic=a", "").await.events().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_is_answered_by_the_first_event() {
    let served = Served::open().await;
    let mut client = served.connect().await;
    client.send(&served.request("GET", "/v1/stream?topic=a/**&since=now&wait=60", "", b"")).await;
    waiting(&served, 1).await;
    served.publish("b", None, "0").await;
    let at = served.publish("a/b", None, "1").await;
    let answer = client.answer().await;
    assert_eq!((answer.events(), answer.next()), (vec![("a/b".into(), at.clone(), json!(1))], at.clone()));

    // What is there already is not waited for, and the connection is good for more.
    let since = served.cursor(0);
    client
        .send(&served.request("GET", &format!("/v1/stream?topic=a/**&since={since}&wait=60"), "", b""))
        .await;
    assert_eq!(client.answer().await.events(), answer.events());
    // Nothing comes.
    client.send(&served.request("GET", &format!("/v1/stream?topic=a/**&since={at}&wait=1"), "", b"")).await;
    let nothing = client.answer().await;
    assert_eq!((nothing.status, nothing.field("longwire-next")), (204, Some(&*at)));
    waiting(&served, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_whose_client_is_gone_leaves_nothing_behind() {
    let served = Served::open().await;
    let mut client = served.connect().await;
    client.send(&served.request("GET", "/v1/stream?topic=a&since=now&wait=60", "", b"")).await;
    waiting(&served, 1).await;
    drop(client);
    waiting(&served, 0).await;
}

/// Waits until so many long polls wait.
async fn waiting(served: &Served, count: u64) {
    let waiting = &served.gateway.hub().counters().waiting;
    let reached = async {
        while waiting.load(std::sync::atomic::Ordering::Relaxed) != count {
            tokio::task::yield_now().await;
        }
    };
    within(reached).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_cursor_is_answered_by_a_reset_and_the_state() {
    let served = Served::open().await;
    served.publish("a", None, "1").await;
    let latest = served.publish("a", None, "2").await;
    for since in ["0000000000000000-1".to_owned(), served.cursor(3), served.cursor(u64::MAX)] {
        let answer = served.get(&format!("/v1/stream?topic=a&since={since}&wait=60"), "").await;
        let json = answer.json();
        assert_eq!(json["gap"], json!({"from": since, "to": latest, "reason": "reset"}));
        assert_eq!(json["events"][0]["past"], latest);
        assert_eq!((answer.events().len(), answer.next()), (1, latest.clone()));
        assert_eq!(answer.field("cache-control"), Some("no-store, no-transform"));
    }
    // Also where there is nothing.
    let answer = served.get("/v1/stream?topic=b&since=0000000000000000-1", "").await;
    assert_eq!((answer.status, answer.events(), answer.next()), (200, vec![], latest));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_no_longer_holds_is_told() {
    let log = LogConfig { tail_events: 4, history_events: 3, ..LogConfig::default() };
    let served =
        Served::with(GatewayConfig::default(), HubConfig { log, ..HubConfig::default() }, Open).await;
    for n in 1..=10 {
        served.publish("a", None, &n.to_string()).await;
    }
    // Of events 1 to 10 the history holds 8 to 10, and the tail 7 to 10.
    let since = served.cursor(2);
    let answer = served.get(&format!("/v1/stream?topic=a&since={since}"), "").await;
    let json = answer.json();
    assert_eq!(
        json["gap"],
        json!({"from": since, "to": served.cursor(6), "reason": "evicted", "skipped": 4})
    );
    let values: Vec<_> = answer.events().into_iter().map(|(_, _, data)| data).collect();
    assert_eq!(values, [json!(7), json!(8), json!(9), json!(10)]);
    assert_eq!((answer.next(), json.get("more")), (served.cursor(10), None));
    // It is told as often as the same is asked, also when the answer is cut.
    let answer = served.get(&format!("/v1/stream?topic=a&since={since}&limit=1"), "").await;
    assert_eq!(answer.json()["gap"], json["gap"]);
    assert_eq!((answer.events().len(), answer.next()), (1, served.cursor(7)));
    // Nobody is told what he does not miss.
    let answer = served.get(&format!("/v1/stream?topic=b&since={since}"), "").await;
    assert_eq!(answer.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_at_once_get_the_same() {
    let served = Served::open().await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = served.connect().await;
        client.send(&served.request("GET", "/v1/stream?topic=**&since=now&wait=60", "", b"")).await;
        clients.push(client);
    }
    waiting(&served, 50).await;
    let at = served.publish("a", None, "1").await;
    for client in &mut clients {
        let answer = tokio::time::timeout(PATIENCE, client.answer()).await.unwrap();
        assert_eq!(answer.events(), [("a".into(), at.clone(), json!(1))]);
    }
}
