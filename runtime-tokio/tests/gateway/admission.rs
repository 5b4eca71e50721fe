//! Section 9 and the limits on connections and on time.

use crate::support::{Client, Served, UPGRADE, assert_retry, within};
use longwire::gateway::GatewayConfig;
use longwire::hub::{HubConfig, Open};
use std::time::Duration;

async fn with(config: GatewayConfig) -> Served {
    Served::with(config, HubConfig::default(), Open).await
}

/// A connection that is in use.
async fn held(served: &Served) -> Client {
    let mut client = served.connect().await;
    client.send(&served.request("GET", "/healthz", "", b"")).await;
    assert_eq!(client.answer().await.status, 200);
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_too_many_is_told_when_to_come_back() {
    let served = with(GatewayConfig { max_connections: 2, ..GatewayConfig::default() }).await;
    let (first, second) = (held(&served).await, held(&served).await);
    let answer = served.get("/healthz", "").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "too_many_connections"));
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(answer.json()["permanent"], false);
    // Everybody at another time, within one to two windows; in the header in whole seconds, and not earlier.
    let mut waits = vec![answer.json()["retry_after"].as_u64().unwrap()];
    let seconds: u64 = answer.field("retry-after").unwrap().parse().unwrap();
    assert!((0..1000).contains(&(seconds * 1000 - waits[0])), "{answer:?}");
    for _ in 0..20 {
        waits.push(served.get("/healthz", "").await.json()["retry_after"].as_u64().unwrap());
    }
    assert!(waits.iter().all(|wait| (5000..=10_000).contains(wait)), "{waits:?}");
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 15, "{waits:?}");
    // An `EventSource` would stop for ever at that.
    let answer = served.get("/v1/stream?topic=a", "Accept: text/event-stream\r\n").await;
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("text/event-stream")));
    assert_retry(&answer.body, "\nevent: bye\n");
    assert!(answer.body.contains("\"code\":\"too_many_connections\",\"permanent\":false"), "{answer:?}");
    // Who says nothing is told as well.
    let mut silent = served.connect().await;
    assert_eq!(silent.answer().await.status, 503);

    // A place that is free is given away.
    drop(first);
    let again = async {
        loop {
            let answer = served.get("/metrics", "").await;
            if answer.status == 200 {
                return answer.body;
            }
        }
    };
    let metrics = within(again).await;
    assert!(
        metrics.contains("longwire_connections_refused_total{reason=\"too_many_connections\"}"),
        "{metrics}"
    );
    assert!(metrics.contains("\nlongwire_connections_max 2\n"), "{metrics}");
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_hold_their_place_until_they_end() {
    let served = with(GatewayConfig { max_connections: 1, ..GatewayConfig::default() }).await;
    for behind in [false, true] {
        for headers in ["Accept: text/event-stream\r\n", UPGRADE] {
            let stream = within(stream(&served, headers, behind)).await;
            assert_eq!(served.get("/healthz", "").await.status, 503);
            drop(stream);
        }
    }
}

/// A stream, once there is room for it.
async fn stream(served: &Served, headers: &str, behind: bool) -> Client {
    loop {
        let mut client = served.connect().await;
        if behind {
            client.send(&served.request("GET", "/healthz", "", b"")).await;
            if client.answer().await.status == 503 {
                continue;
            }
        }
        client.send(&served.request("GET", "/v1/stream?topic=a", headers, b"")).await;
        if client.head().await.status == 503 {
            continue;
        }
        client.until("\"type\":\"").await;
        if client.until("\"").await == "hello\"" {
            return client;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_closed_without_a_word() {
    let served = with(GatewayConfig { max_connections: 1, ..GatewayConfig::default() }).await;
    let mut client = held(&served).await;
    let mut flood = Vec::new();
    for _ in 0..200 {
        flood.push(served.connect().await);
    }
    let metrics = async {
        loop {
            client.send(&served.request("GET", "/metrics", "", b"")).await;
            let metrics = client.answer().await.body;
            if metrics.contains("longwire_connections_accepted_total 201\n") {
                return metrics;
            }
        }
    };
    let metrics = within(metrics).await;
    assert!(metrics.contains("longwire_connections_refused_total{reason=\"flood\"}"), "{metrics}");
    // And then it is over.
    drop(flood);
    within(async { while served.connect().await.read_all().await.is_empty() {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_33219_cve_2026_41399_ghsa_r635_g3xr_vw7x_an_address_has_few_places_before_its_request() {
    let served = with(GatewayConfig { max_handshakes: 3, ..GatewayConfig::default() }).await;
    // Those whose request was there do not count.
    let (_first, _second) = (held(&served).await, held(&served).await);
    let mut slow = Vec::new();
    for begun in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: a\r\n"] {
        let mut client = served.connect().await;
        client.send(begun.as_bytes()).await;
        slow.push(client);
    }
    let answer = served.get("/healthz", "").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "too_many_connections"));
    // Each that is done, or gone, makes room for another.
    slow[2].send(b"\r\n").await;
    slow[2].answer().await;
    assert_eq!(served.get("/healthz", "").await.status, 200);
    drop(slow);
    within(async { while served.get("/healthz", "").await.status != 200 {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let served =
        with(GatewayConfig { handshake_timeout: Duration::from_millis(200), ..GatewayConfig::default() })
            .await;
    for begun in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: a\r\n"] {
        let mut client = served.connect().await;
        client.send(begun.as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.code().as_str()), (408, "request_timeout"), "{begun:?}");
        assert!(client.rest().await.is_empty());
    }
    // The next one on the same connection: it is closed.
    for begun in ["", "GET / HT"] {
        let mut client = held(&served).await;
        client.send(begun.as_bytes()).await;
        client.rest().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let served =
        with(GatewayConfig { request_timeout: Duration::from_millis(200), ..GatewayConfig::default() }).await;
    let answer = served.ask(&served.request("POST", "/v1/topics/a", "Content-Length: 3\r\n", b"")).await;
    assert_eq!((answer.status, answer.code().as_str()), (408, "request_timeout"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_given_up() {
    let served =
        with(GatewayConfig { request_timeout: Duration::from_millis(200), ..GatewayConfig::default() }).await;
    served.publish("a", None, &format!("\"{}\"", "x".repeat(900_000))).await;
    let mut client = served.connect().await;
    // More than any socket holds, and nobody reads it.
    let request = served.request("GET", "/v1/stream?topic=a", "", b"");
    client.send(&request.repeat(64)).await;
    let gone = async {
        loop {
            let metrics = served.get("/metrics", "").await.body;
            // Only the one that asks.
            if metrics.contains("\nlongwire_connections 1\n") {
                return;
            }
        }
    };
    within(gone).await;
}
