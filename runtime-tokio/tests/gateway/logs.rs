//! Section 1: other logs, under `/v1/logs/{name}`, over every transport.

use crate::support::{Answer, Client, Served, UPGRADE};
use longwire::gateway::{GatewayConfig, TokenFile};
use longwire::hub::{HubConfig, LogConfig, Open};

const SSE: &str = "Accept: text/event-stream\r\n";

fn logs(names: &[&str]) -> HubConfig {
    let logs = names.iter().map(|name| ((*name).to_owned(), LogConfig::default())).collect();
    HubConfig { logs, ..HubConfig::default() }
}

async fn two() -> Served {
    Served::with(GatewayConfig::default(), logs(&["a", "b"]), Open).await
}

/// A request on a connection of its own, or behind another one: the core reads the first head, an HTTP server the others.
async fn begin(served: &Served, target: &str, headers: &str, behind: bool) -> Client {
    let mut client = served.connect().await;
    if behind {
        client.send(&served.request("GET", "/healthz", "", b"")).await;
        assert_eq!(client.answer().await.status, 200);
    }
    client.send(&served.request("GET", target, headers, b"")).await;
    client
}

async fn ask(served: &Served, target: &str, headers: &str, behind: bool) -> Answer {
    begin(served, target, headers, behind).await.answer().await
}

fn event(log: &str) -> String {
    format!("{{\"type\":\"event\",\"topic\":\"t\",\"at\":\"{log}\",\"data\":\"of ")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transport_reads_the_log_that_its_url_names() {
    let served = two().await;
    for behind in [false, true] {
        for (log, base) in [("default", "/v1"), ("a", "/v1/logs/a"), ("b", "/v1/logs/b")] {
            let stream = |query: &str| format!("{base}/stream?topic=t{query}");
            let mut sse = begin(&served, &stream(""), SSE, behind).await;
            let mut ws = begin(&served, &stream(""), UPGRADE, behind).await;
            sse.until("\"caught_up\"").await;
            ws.until("\"caught_up\"").await;
            let since = ask(&served, &stream("&since=now"), "", behind).await;
            let now = since.field("longwire-next").unwrap().to_owned();
            let mut long = begin(&served, &stream("&since=now&wait=60"), "", behind).await;
            let waiting = &served.gateway.hub().log_named(log).unwrap().counters().waiting;
            while waiting.load(std::sync::atomic::Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }

            // To all of them, the own log last: what came from another would be seen before it.
            for other in ["/v1", "/v1/logs/a", "/v1/logs/b"].into_iter().filter(|other| *other != base) {
                let at =
                    served.post(&format!("{other}/topics/t"), "application/json", b"\"of another\"").await;
                assert_eq!(at.status, 200, "{at:?}");
            }
            let body = format!("\"of {base}\"");
            let published =
                served.post(&format!("{base}/topics/t"), "application/json", body.as_bytes()).await;
            let at = published.json()["at"].as_str().unwrap().to_owned();
            let want = format!("{}{base}\"}}", event(&at));
            for stream in [&mut sse, &mut ws] {
                let seen = stream.until(&want).await;
                assert!(!seen.contains("of another"), "{seen}");
            }
            let own = [("t".to_owned(), at.clone(), format!("of {base}").into())];
            let long = long.answer().await;
            assert_eq!((long.events(), long.next()), (own.to_vec(), at.clone()));
            assert_eq!(ask(&served, &stream(&format!("&since={now}")), "", behind).await.events(), own);
            assert_eq!(ask(&served, &stream(""), "", behind).await.events(), own);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_log_has_a_name_too() {
    let served = two().await;
    let at = served.publish("t", None, "1").await;
    let answer = served.get("/v1/logs/default/stream?topic=t", "").await;
    assert_eq!(answer.events(), [("t".to_owned(), at, 1.into())]);
    assert_eq!(served.post("/v1/logs/default/topics/t", "application/json", b"2").await.status, 200);
    assert_eq!(served.gateway.hub().log().head(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_another_log_is_a_reset() {
    let served = two().await;
    let foreign = served.publish("t", None, "1").await;
    let at = served.post("/v1/logs/a/topics/t", "application/json", b"2").await.json()["at"].clone();
    let at = at.as_str().unwrap();
    let target = format!("/v1/logs/a/stream?topic=t&since={foreign}");
    let told = format!("\"gap\":{{\"from\":\"{foreign}\",\"to\":\"{at}\",\"reason\":\"reset\"");
    let answer = served.get(&target, "").await;
    assert!(answer.body.contains(&told), "{answer:?}");
    assert_eq!(answer.events(), [("t".to_owned(), at.to_owned(), 2.into())]);
    let told = format!("{{\"type\":\"gap\",\"from\":\"{foreign}\",\"to\":\"{at}\",\"reason\":\"reset\"");
    for headers in [SSE, UPGRADE] {
        let mut client = begin(&served, &target, headers, false).await;
        client.until(&told).await;
        client.until(&format!("\"past\":\"{at}\",\"data\":2}}")).await;
        client.until("\"caught_up\"").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_not_there_is_not_found_whatever_else_is_wrong() {
    let served = Served::with(GatewayConfig::default(), logs(&["a"]), tokens()).await;
    const NAMES: &str = "the name of a log is";
    for behind in [false, true] {
        for (base, says) in [
            ("/v1/logs/b", "there is no log b"),
            ("/v1/logs/aa", "there is no log aa"),
            ("/v1/logs/A", NAMES),
            ("/v1/logs/%61", NAMES),
            ("/v1/logs/a%2F", NAMES),
            ("/v1/logs/..", NAMES),
        ] {
            for headers in ["", SSE, UPGRADE, "Connection: Upgrade\r\nUpgrade: websocket\r\n"] {
                // Neither a topic nor a credential is looked at.
                let answer = ask(&served, &format!("{base}/stream?topic=a//b"), headers, behind).await;
                assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{base}: {answer:?}");
                let message = answer.json()["message"].clone();
                assert!(message.as_str().unwrap().contains(says), "{base}: {answer:?}");
            }
            let answer = served.post(&format!("{base}/topics/t"), "application/json", b"{").await;
            assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{base}: {answer:?}");
        }
        for path in [
            "/v1/logs",
            "/v1/logs/a",
            "/v1/logs/a/",
            "/v1/logs/a/x",
            "/v1/logs/a/v1/stream",
            "/v1/logs//stream",
        ] {
            for headers in ["", SSE, UPGRADE] {
                let answer = ask(&served, path, headers, behind).await;
                assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}: {answer:?}");
            }
        }
    }
}

fn tokens() -> TokenFile {
    let token = |secret: &str, logs: &str| {
        format!(
            "[[token]]\nsecret = '{secret}'\nsubject = 'x'\nsubscribe = ['**']\npublish = ['**']\n{logs}\n"
        )
    };
    let file = [token("plain", ""), token("only-a", "logs = ['a']"), token("all", "logs = ['*']")].concat();
    TokenFile::parse(&file).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_for_the_logs_that_it_names() {
    let served = Served::with(GatewayConfig::default(), logs(&["a", "b"]), tokens()).await;
    for (secret, allowed) in
        [("plain", [true, false, false]), ("only-a", [false, true, false]), ("all", [true, true, true])]
    {
        for (base, allowed) in ["/v1", "/v1/logs/a", "/v1/logs/b"].into_iter().zip(allowed) {
            let bearer = format!("Authorization: Bearer {secret}\r\n");
            let target = format!("{base}/stream?topic=t");
            for behind in [false, true] {
                let poll = ask(&served, &target, &bearer, behind).await;
                assert_eq!(poll.status, if allowed { 200 } else { 403 }, "{secret} {base}");
                let upgraded = ask(&served, &target, &format!("{UPGRADE}{bearer}"), behind).await;
                assert_eq!(upgraded.status, if allowed { 101 } else { 403 }, "{secret} {base}");
                let mut sse = begin(&served, &target, &format!("{SSE}{bearer}"), behind).await;
                sse.until(if allowed { "event: hello" } else { "\"code\":\"forbidden\"" }).await;
            }
            let post = served.request("POST", &format!("{base}/topics/t"), &bearer, b"x");
            let post = served.ask(&post).await;
            assert_eq!(post.status, if allowed { 200 } else { 403 }, "{secret} {base}");
            if !allowed {
                assert_eq!(post.json()["message"], "the grant is not for this log");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_logs_apart_and_know_no_other_names() {
    let served = two().await;
    for target in ["/v1/logs/a/topics/t", "/v1/logs/a/topics/u", "/v1/topics/t", "/v1/logs/nowhere/topics/t"]
    {
        served.post(target, "application/json", b"1").await;
    }
    let metrics = served.get("/metrics", "").await.body;
    for line in [
        "longwire_published_total{log=\"a\"} 2",
        "longwire_published_total{log=\"b\"} 0",
        "longwire_published_total{log=\"default\"} 1",
        "longwire_log_topics{log=\"a\"} 2",
        "longwire_log_head{log=\"default\"} 1",
        "longwire_log_evicted_total{log=\"b\"} 0",
        "longwire_sse{log=\"b\"} 0",
        "longwire_requests_total{route=\"topics\",status=\"200\"} 3",
        "longwire_requests_total{route=\"topics\",status=\"404\"} 1",
    ] {
        assert!(metrics.contains(&format!("\n{line}\n")), "{line} is not in {metrics}");
    }
    assert_eq!(metrics.matches("# TYPE longwire_published counter\n").count(), 1);
    assert!(!metrics.contains("nowhere"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_mounts_the_routes_has_all_logs() {
    let served = two().await;
    let mounted = crate::streams::mounted(&served).await;
    let mut sse = begin(&mounted, "/v1/logs/a/stream?topic=t", SSE, false).await;
    let mut ws = begin(&mounted, "/v1/logs/a/stream?topic=t", UPGRADE, false).await;
    sse.until("\"caught_up\"").await;
    ws.until("\"caught_up\"").await;
    let at = mounted.post("/v1/logs/a/topics/t", "application/json", b"\"of a\"").await.json()["at"].clone();
    let want = format!("{}a\"}}", event(at.as_str().unwrap()));
    sse.until(&want).await;
    ws.until(&want).await;
    let answer = mounted.get("/v1/logs/c/stream?topic=t", SSE).await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"));
}
