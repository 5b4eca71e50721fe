//! Section 8.2: publishing by POST.

use crate::support::Served;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_can_be_read_at_once() {
    let served = Served::open().await;
    let mut client = served.connect().await;
    for n in 1..=100u64 {
        let body = n.to_string();
        client
            .send(&served.request(
                "POST",
                "/v1/topics/a/b",
                "Content-Type: application/json\r\n",
                body.as_bytes(),
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.json()), (200, json!({"at": served.cursor(n)})));
        assert_eq!(answer.field("content-type"), Some("application/json"));
        client.send(&served.request("GET", "/v1/stream?topic=a/b", "", b"")).await;
        assert_eq!(client.answer().await.events(), [("a/b".into(), served.cursor(n), json!(n))]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_content_type_says_what_a_body_is() {
    let served = Served::open().await;
    let rows: [(&str, &[u8], serde_json::Value); 9] = [
        ("application/json", b" { \"a\" : [ 1 , 2.50 ] }\r\n", json!({"data": {"a": [1, 2.5]}})),
        ("Application/JSON; charset=utf-8", b"null", json!({"data": null})),
        ("application/geo+json", b"true", json!({"data": true})),
        ("application/cbor", b"\xa1\x07\xf9\x3c\x00", json!({"data": {"7": 1.0}})),
        ("text/plain", b"hello", json!({"bytes": "aGVsbG8=", "content_type": "text/plain"})),
        ("text/plain; charset=utf-8", b"", json!({"bytes": "", "content_type": "text/plain; charset=utf-8"})),
        ("image/png", b"\0\xff", json!({"bytes": "AP8=", "content_type": "image/png"})),
        ("application/cbor-seq", b"\x01", json!({"bytes": "AQ==", "content_type": "application/cbor-seq"})),
        ("", b"x", json!({"bytes": "eA==", "content_type": "application/octet-stream"})),
    ];
    for (content_type, body, want) in rows {
        let answer = match content_type {
            "" => served.ask(&served.request("POST", "/v1/topics/t", "", body)).await,
            other => served.post("/v1/topics/t", other, body).await,
        };
        assert_eq!(answer.status, 200, "{answer:?}");
        let mut event = served.get("/v1/stream?topic=t", "").await.json()["events"][0].take();
        let event = event.as_object_mut().unwrap();
        for field in ["type", "topic", "past"] {
            assert!(event.remove(field).is_some());
        }
        // Where it is the default the type may be left out.
        if want["content_type"] == "application/octet-stream" {
            event.entry("content_type").or_insert(json!("application/octet-stream"));
        }
        assert_eq!(json!(event), want, "{content_type}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topic_and_key_are_percent_encoded() {
    let served = Served::open().await;
    let answer = served.post("/v1/topics/a%20b/%C3%BC+?key=k%20%2F+1&x=y", "application/json", b"1").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    served.post("/v1/topics/a%20b/%C3%BC+?key=", "application/json", b"2").await;
    served.post("/v1/topics/a%20b/%C3%BC+", "application/json", b"3").await;
    let state = served.get("/v1/stream?topic=a+b/%C3%BC%2B", "").await;
    let events = state.json()["events"].clone();
    assert_eq!(events.as_array().unwrap().len(), 3);
    assert_eq!((&events[0]["topic"], &events[0]["key"]), (&json!("a b/ü+"), &json!("k / 1")));
    assert_eq!((&events[1]["key"], events[2].get("key")), (&json!(""), None));
}
