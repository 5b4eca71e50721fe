//! Section 5.3: quotas, and how they are told.

use crate::support::{Client, Served};
use longwire::gateway::GatewayConfig;
use longwire::hub::{HubConfig, Open};
use longwire_core::log::{QuotaConfig, Rate};
use serde_json::Value;

/// Twenty bytes with the topic `a` or `b`.
const VALUE: &str = "\"aaaaaaaaaaaaaaaaa\"";

/// So many bytes at once, and then next to nothing for as long as a test lasts.
fn bytes(burst: u64) -> QuotaConfig {
    QuotaConfig { messages: None, bytes: Rate::new(1, burst) }
}

async fn serve(quota: QuotaConfig, topic_quota: QuotaConfig) -> Served {
    let hub = HubConfig { quota, topic_quota, ..HubConfig::default() };
    Served::with(GatewayConfig::default(), hub, Open).await
}

async fn stream(served: &Served) -> Client {
    let mut client = served.connect().await;
    client.send(&served.handshake("/v1/stream", "")).await;
    client.until("\"hello\"").await;
    client.until("\"window\":").await;
    client.until("}").await;
    client
}

/// Publishes, and returns the answer.
async fn publish(client: &mut Client, n: u64, topic: &str) -> Value {
    let message = format!(r#"{{"type":"pub","n":{n},"topic":"{topic}","data":{VALUE}}}"#);
    let len = u8::try_from(message.len()).unwrap();
    client.send(&[&[0x81, 0x80 | len, 0, 0, 0, 0], message.as_bytes()].concat()).await;
    let answer = client.until("}").await;
    serde_json::from_str(&answer[answer.find('{').unwrap()..]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_publishes_too_much_is_told_before_and_then_refused() {
    let served = serve(bytes(70), QuotaConfig::default()).await;
    let mut client = stream(&served).await;
    let first = publish(&mut client, 1, "a").await;
    assert_eq!((&first["type"], &first["n"], first.get("pressure")), (&"ack".into(), &1.into(), None));
    let second = publish(&mut client, 2, "a").await;
    // 40 of 70 are gone: five too many, at one in a second.
    assert!((1..=5000).contains(&second["pressure"].as_u64().unwrap()), "{second}");
    assert_eq!(publish(&mut client, 3, "a").await["type"], "ack");
    for _ in 0..3 {
        let refused = publish(&mut client, 4, "b").await;
        assert_eq!((&refused["type"], &refused["n"]), (&"nack".into(), &4.into()));
        assert_eq!((&refused["code"], &refused["permanent"]), (&"over_quota".into(), &false.into()));
        assert!((1..=10_000).contains(&refused["retry_after"].as_u64().unwrap()), "{refused}");
    }
    // It is the connection's, not its sender's.
    assert_eq!(publish(&mut stream(&served).await, 1, "b").await["type"], "ack");
    assert_eq!(served.gateway.hub().log().head(), 4);
    let metrics = served.get("/metrics", "").await.body;
    assert!(metrics.contains("longwire_over_byte_rate_total{log=\"default\"} 3\n"), "{metrics}");
    assert!(metrics.contains("longwire_over_rate_total{log=\"default\"} 0\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_has_a_quota_whoever_publishes_and_another_has_its_own() {
    let served = serve(QuotaConfig::default(), bytes(40)).await;
    for n in 1..=2 {
        assert_eq!(publish(&mut stream(&served).await, n, "a").await["type"], "ack");
    }
    let mut client = stream(&served).await;
    assert_eq!(publish(&mut client, 1, "a").await["code"], "over_quota");
    let answer = served.post("/v1/topics/a", "application/json", VALUE.as_bytes()).await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "over_quota"));
    assert_eq!(publish(&mut client, 2, "b").await["type"], "ack");
    let metrics = served.get("/metrics", "").await.body;
    assert!(metrics.contains("longwire_over_topic_byte_rate_total{log=\"default\"} 2\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_posts_has_the_same_quota() {
    let served = serve(bytes(50), QuotaConfig::default()).await;
    let mut client = served.connect().await;
    let request =
        served.request("POST", "/v1/topics/a", "Content-Type: application/json\r\n", VALUE.as_bytes());
    let mut pressures = Vec::new();
    for _ in 0..2 {
        client.send(&request).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        pressures.push(answer.json()["pressure"].is_u64());
    }
    assert_eq!(pressures, [false, true]);
    client.send(&request).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "over_quota"));
    let seconds: u64 = answer.field("retry-after").unwrap().parse().unwrap();
    let millis = answer.json()["retry_after"].as_u64().unwrap();
    assert!((1..=10_000).contains(&millis) && seconds == millis.div_ceil(1000), "{answer:?}");
    assert_eq!(served.post("/v1/topics/a", "application/json", VALUE.as_bytes()).await.status, 200);
}
