//! What is answered to what: `PROTOCOL.md` sections 5, 6 and 9.

use crate::client::*;
use longwire_core::log::{Cursor, Since};
use longwire_core::session::{ClientMessage, GapReason};
use longwire_core::ws::OpCode;
use std::time::Duration;

/// Nothing is subscribed to, so when the answers have gone out nothing is to be read from the log.
#[test]
fn what_stands_behind_as_many_answers_as_may_wait_does_not_wait_for_the_heartbeat() {
    let hub = hub(|c| c.heartbeat = Duration::from_secs(3600));
    for count in 7..20 {
        let mut client = Client::open(&hub, Form::Json);
        let unsub = |id| client.message(&ClientMessage::Unsub { id: Some(id), topics: (&["a"][..]).into() });
        let mut wire: Vec<u8> = (0..count).flat_map(unsub).collect();
        wire.extend(frame(OpCode::Text, br#"{"type":"pub","n":1,"topic":"b","data":1}"#));
        client.write(&wire);
        let seen = client.take(count as usize + 1);
        assert!(seen.contains(&Seen::Ack(1)), "{seen:?}");
    }
}

#[test]
fn every_subscription_is_answered_and_an_unsubscription_ends_it() {
    for form in FORMS {
        let hub = hub(|_| {});
        publish(&hub, "a", "0");
        let mut client = Client::open(&hub, form);
        client.sub(7, Since::Now, &["a", "b"]);
        assert_eq!(client.must(), Seen::CaughtUp(1, Some(7)));
        publish(&hub, "a", "1");
        assert_eq!(live(&client.must()), Some((2, "a")));
        client.unsub(8, &["a"]);
        assert_eq!(client.must(), Seen::CaughtUp(2, Some(8)));
        publish(&hub, "a", "2");
        publish(&hub, "b", "3");
        assert_eq!(live(&client.must()), Some((4, "b")));
        // Without any pattern left the connection stays, and can begin anew.
        client.unsub(9, &["b"]);
        assert_eq!(client.must(), Seen::CaughtUp(4, Some(9)));
        publish(&hub, "b", "4");
        client.sub(10, Since::Now, &["b"]);
        assert_eq!(client.must(), Seen::CaughtUp(5, Some(10)));
        publish(&hub, "b", "5");
        assert_eq!(live(&client.must()), Some((6, "b")));
    }
}

#[test]
fn publications_are_acknowledged_up_to_the_last() {
    for form in FORMS {
        let hub = hub(|_| {});
        let mut client = Client::open(&hub, form);
        let wire: Vec<u8> = (1..=300).flat_map(|n| client.publication(n, "a")).collect();
        client.write(&wire);
        let (mut last, mut acks) = (0, 0);
        while last < 300 {
            let Seen::Ack(n) = client.must() else { panic!() };
            assert!(n > last, "{n} after {last}");
            (last, acks) = (n, acks + 1);
        }
        assert!(acks < 100, "{acks} acknowledgements of 300 publications in one write");
        assert_eq!(hub.log().head(), 300);
        // A number that does not count up is acknowledged as it is.
        client.publish(5, "a");
        assert_eq!(client.must(), Seen::Ack(5));
        // Nor is what came just before it forgotten.
        let wire = [client.publication(400, "a"), client.publication(7, "a")].concat();
        client.write(&wire);
        assert_eq!((client.must(), client.must()), (Seen::Ack(400), Seen::Ack(7)));
    }
}

#[test]
fn a_refusal_stands_behind_the_acknowledgement_of_what_came_before_it() {
    let hub = hub(|c| c.log.max_topics = 2);
    let mut client = Client::open(&hub, Form::Json);
    let messages = [
        r#"{"type":"pub","n":1,"topic":"a","data":1}"#,
        r#"{"type":"pub","n":2,"topic":"a/*","data":1}"#,
        r#"{"type":"pub","n":3,"topic":"b","data":1}"#,
        r#"{"type":"pub","n":4,"topic":"b","data":[1,}"#,
        r#"{"type":"pub","n":5,"topic":"c","data":1}"#,
        r#"{"type":"pub","topic":"c","data":1}"#,
        r#"{"type":"pub","n":6,"topic":"b","key":"\u0000","data":1}"#,
        r#"{"type":"pub","n":7,"topic":"b","bytes":"?"}"#,
        r#"{"type":"pub","n":8,"topic":"b"}"#,
        r#"{"type":"pub","n":9,"topic":"b","data":1}"#,
    ];
    let wire: Vec<u8> = messages.iter().flat_map(|text| client.frame(text.as_bytes())).collect();
    client.write(&wire);
    let nack = |n, code: &str| Seen::Nack(n, code.into());
    let mut settled = 0;
    let mut got = Vec::new();
    // Where the acknowledgements stand depends on how the bytes arrive; what they may not do is go back.
    while settled < 9 {
        match client.must() {
            Seen::Ack(n) => {
                assert!(n > settled, "ack {n} after {settled}");
                settled = n;
            }
            Seen::Nack(Some(n), code) => {
                assert!(n == settled + 1, "nack {n} after {settled}");
                settled = n;
                got.push(nack(Some(n), &code));
            }
            Seen::Error(code, None) => {
                assert_eq!((code.as_str(), settled), ("bad_message", 7));
                settled = 8; // it has no number of its own: the 8th is settled by the error
            }
            other => got.push(other),
        }
    }
    let want = [
        nack(Some(2), "bad_topic"),
        nack(Some(4), "bad_data"),
        nack(Some(5), "topics_full"),
        nack(None, "topics_full"),
        nack(Some(6), "bad_topic"),
        nack(Some(7), "bad_data"),
    ];
    assert_eq!(got, want);
    assert_eq!(hub.log().head(), 3);
    use std::sync::atomic::Ordering::Relaxed;
    assert_eq!(hub.counters().published.load(Relaxed), 3);
    assert_eq!(hub.counters().refused.load(Relaxed), 6, "every refused publication counts");
}

#[test]
fn cbor_that_cannot_be_published_is_refused_by_its_number() {
    let hub = hub(|_| {});
    let mut client = Client::open(&hub, Form::Cbor);
    // {0: 3, 7: n, 1: "a", 4: data}: a reserved head, a cut item, a map with an array as its key
    for (n, data) in (1..).zip([&b"\x1c"[..], b"\x82\x01", b"\xa1\x80\x01"]) {
        let payload = [b"\xa4\x00\x03\x07", &[n][..], b"\x01\x61a\x04", data].concat();
        let wire = client.frame(&payload);
        client.write(&wire);
        assert_eq!(client.must(), Seen::Nack(Some(n.into()), "bad_data".into()), "{data:?}");
    }
    client.publish(4, "a");
    assert_eq!(client.must(), Seen::Ack(4));
}

#[test]
fn what_is_wrong_is_said_and_the_connection_goes_on() {
    let hub = hub(|c| c.max_topics = 3);
    let mut client = Client::open(&hub, Form::Json);
    let table = [
        (r#"[]"#, "bad_message", None),
        (r#"{"id":1,"type":"sub","topics":["a"]}"#, "bad_message", None),
        (r#"{"type":"sub","id":2}"#, "bad_message", Some(2)),
        (r#"{"type":"sub","id":3,"topics":[]}"#, "bad_message", Some(3)),
        (r#"{"type":"sub","id":4,"topics":["a"],"since":"yesterday"}"#, "bad_cursor", None),
        (r#"{"type":"sub","id":5,"since":"yesterday","topics":["a"]}"#, "bad_cursor", Some(5)),
        (r#"{"type":"sub","id":6,"topics":["ok","a/**/b"]}"#, "bad_topic", Some(6)),
        (r#"{"type":"unsub","id":7,"topics":["ok","a//b"]}"#, "bad_topic", Some(7)),
        (r#"{"type":"sub","id":8,"topics":["a","b","c","d"]}"#, "too_many_topics", Some(8)),
        (r#"{"type":"dance","id":9}"#, "unknown_type", None),
        (r#"{"type":"hello","id":10}"#, "unknown_type", None),
        (r#"{"type":"pub","n":1}"#, "bad_message", None),
        (r#"not even JSON"#, "bad_message", None),
    ];
    for (message, code, id) in table {
        let wire = client.frame(message.as_bytes());
        client.write(&wire);
        let Seen::Error(got, got_id) = client.must() else { panic!("{message}") };
        assert_eq!(got, code, "{message}");
        assert!(got_id == id || id.is_none(), "{message}: {got_id:?}");
    }
    // Refused whole: nothing of those is subscribed to. Three are allowed, the same again is no further one.
    for id in 1..4 {
        client.sub(id, Since::Now, &["x", "y", "z", "z"]);
        assert_eq!(client.must(), Seen::CaughtUp(0, Some(id)));
    }
    client.sub(4, Since::Now, &["x", "w"]);
    assert_eq!(client.must(), error("too_many_topics", 4));
    for topic in ["ok", "a", "b", "w", "z"] {
        publish(&hub, topic, "1");
    }
    assert_eq!(client.must(), event(5, "z", "1"));
}

#[test]
fn the_seventeenth_message_that_is_none_ends_the_connection() {
    let hub = hub(|_| {});
    for kind in [r#"{"type":"dance"}"#, "[1]", r#"{"type":"sub","topics":[]}"#] {
        let mut client = Client::open(&hub, Form::Json);
        let wire = client.frame(kind.as_bytes()).repeat(16);
        client.write(&wire);
        assert!(client.take(16).iter().all(|seen| matches!(seen, Seen::Error(_, None))));
        // What is an envelope, but cannot be done, does not count.
        for id in 0..40 {
            client.sub(id, Since::Now, &["a//b"]);
            assert_eq!(client.must(), error("bad_topic", id));
        }
        let wire = client.frame(br#"{"type":"sub","since":"x","topics":["a"]}"#);
        client.write(&wire);
        assert!(matches!(client.must(), Seen::Error(code, None) if code == "bad_cursor"));
        client.publish(1, "a");
        assert_eq!(client.must(), Seen::Ack(1));
        let wire = client.frame(kind.as_bytes());
        client.write(&wire);
        let (seen, end) = client.end();
        assert!(matches!(seen[..], [Seen::Error(_, None)]), "{seen:?}");
        assert_eq!(end, End::Closed(1008), "{kind}");
    }
    let broken = hub.counters().protocol_errors.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(broken, 3);
}

#[test]
fn a_frame_of_the_wrong_kind_closes_with_1003() {
    let hub = hub(|_| {});
    for (form, opcode) in [(Form::Json, OpCode::Binary), (Form::Cbor, OpCode::Text)] {
        let mut client = Client::open(&hub, form);
        client.write(&frame(opcode, b"{}"));
        assert_eq!(client.end(), (vec![], End::Closed(1003)));
    }
}

#[test]
fn a_message_of_max_message_is_taken_and_one_more_byte_closes_with_1009() {
    let hub = hub(|c| c.max_message = 100_000);
    for form in FORMS {
        let mut client = Client::open(&hub, form);
        client.subscribed(&["a"]);
        let mut payload = match form {
            Form::Json | Form::Sse => br#"{"type":"pub","n":1,"topic":"a","data":""#.to_vec(),
            Form::Cbor => b"\xa4\x00\x03\x07\x01\x01\x61a\x04\x7a\x00\x01\x86\x92".to_vec(),
        };
        let (end, len): (&[u8], _) = if form == Form::Json { (b"\"}", 99_998) } else { (b"", 100_000) };
        payload.resize(len, b'x');
        payload.extend_from_slice(end);
        let wire = client.frame(&payload);
        client.write(&wire);
        let mut both = client.take(2);
        both.sort_by_key(|seen| live(seen).is_some());
        assert_eq!(both[0], Seen::Ack(1), "{form:?}");
        assert!(live(&both[1]).is_some());
        payload.insert(payload.len() / 2, b'x');
        let wire = client.frame(&payload);
        // The hub does not read what it will not take.
        let _ = std::io::Write::write_all(&mut client.stream, &wire);
        assert_eq!(client.end(), (vec![], End::Closed(1009)));
    }
}

#[test]
fn a_later_subscription_gets_its_past_and_the_first_goes_on() {
    for form in FORMS {
        let hub = hub(|_| {});
        for n in 1..=300 {
            publish(&hub, if n % 3 == 0 { "b" } else { "a" }, &n.to_string());
        }
        let mut client = Client::open(&hub, form);
        client.sub(1, Since::Cursor(hub.log().cursor(290)), &["a"]);
        client.sub(2, Since::Cursor(hub.log().cursor(30)), &["b"]);
        let publisher = {
            let hub = std::sync::Arc::clone(&hub);
            std::thread::spawn(move || {
                for n in 301..=900 {
                    publish(&hub, if n % 3 == 0 { "b" } else { "a" }, &n.to_string());
                }
            })
        };
        // 200 of a before the hub has seen `sub` 2; then the past of b, then both.
        let (mut at, mut past, mut answers) = (290, 30, Vec::new());
        while at < 900 {
            match client.must() {
                Seen::Event { at: At::Live(seq), topic, .. } => {
                    // Before the second subscription has begun only those of `a` are live.
                    let next = (at + 1..).find(|seq| topic == "b" || seq % 3 != 0).unwrap();
                    if answers.len() < 2 {
                        assert_eq!((seq, topic.as_str()), (next, "a"));
                    } else {
                        assert_eq!(seq, at + 1);
                    }
                    at = seq;
                }
                Seen::Event { at: At::Past(seq), topic, .. } => {
                    assert_eq!((answers.len(), seq, topic.as_str()), (1, past + 3, "b"));
                    past = seq;
                }
                Seen::CaughtUp(seq, id) => {
                    answers.push(id);
                    if answers.len() == 2 {
                        // Its past reaches to where the connection is, and the connection had all of `a` up to there.
                        assert_eq!(past, seq / 3 * 3);
                        assert!((at..=at + 1).contains(&seq), "caught up at {seq}, {at} was the last");
                        at = seq;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(answers, [Some(1), Some(2)]);
        publisher.join().unwrap();
    }
}

/// Far more subscriptions at once than may have their past before them: the input waits, and goes on by itself.
#[test]
fn a_burst_of_subscriptions_is_answered_to_its_end() {
    for form in FORMS {
        let hub = hub(|_| {});
        publish(&hub, "a", "1");
        let mut client = Client::open(&hub, form);
        // Every number of them, so that also the last turn that works off as many as there may be is among them.
        for n in 1..=40 {
            let sub = |id| {
                let topics = (&["a"][..]).into();
                let since = Some(Since::Cursor(hub.log().cursor(0)));
                client.message(&ClientMessage::Sub { id: Some(id), since, policy: None, topics })
            };
            let burst: Vec<u8> = (1..=n).flat_map(sub).collect();
            client.write(&burst);
            let mut answered = 0;
            while answered < n {
                match client.must() {
                    Seen::CaughtUp(1, Some(id)) => {
                        answered += 1;
                        assert_eq!(id, answered);
                    }
                    Seen::Event { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

#[test]
fn patterns_that_overlap_deliver_once() {
    let hub = hub(|_| {});
    let mut client = Client::open(&hub, Form::Json);
    client.subscribed(&["**", "a/*", "a/b"]);
    client.subscribed(&["a/**", "*/b"]);
    publish(&hub, "a/b", "1");
    publish(&hub, "c", "2");
    assert_eq!(client.take(2), [event(1, "a/b", "1"), event(2, "c", "2")]);
    // One that goes leaves the others.
    client.unsub(1, &["a/b", "**"]);
    assert_eq!(client.must(), Seen::CaughtUp(2, Some(1)));
    publish(&hub, "c", "3");
    publish(&hub, "a/b", "4");
    assert_eq!(client.must(), event(4, "a/b", "4"));
}

#[test]
fn the_state_comes_with_its_keys_and_a_foreign_cursor_is_reset_to_it() {
    let hub = hub(|_| {});
    publish_key(&hub, "a", Some("x"), "1");
    publish_key(&hub, "a", Some("y"), "2");
    publish_key(&hub, "a", Some("x"), "3");
    publish(&hub, "b", "4");
    let state = |seq, key: &str, json: &str| Seen::Event {
        at: At::Past(seq),
        topic: "a".into(),
        key: Some(key.into()),
        body: Body::Json(json.into()),
    };
    let mut client = Client::open(&hub, Form::Json);
    client.sub(1, Since::Latest, &["a"]);
    assert_eq!(client.take(3), [state(2, "y", "2"), state(3, "x", "3"), Seen::CaughtUp(4, Some(1))]);
    let foreign = Cursor { epoch: !hub.log().epoch(), seq: 77 };
    client.sub(2, Since::Cursor(foreign), &["b"]);
    client.sub(3, Since::Cursor(hub.log().cursor(5)), &["b"]);
    let reset = |from| Seen::Gap(from, 4, GapReason::Reset);
    assert_eq!(client.take(3), [reset(77), past(4, "b", "4"), Seen::CaughtUp(4, Some(2))]);
    assert_eq!(client.take(3), [reset(5), past(4, "b", "4"), Seen::CaughtUp(4, Some(3))]);
    publish(&hub, "b", "5");
    assert_eq!(client.must(), event(5, "b", "5"));
}

#[test]
fn what_was_lost_is_told_once_and_no_further_than_asked_for() {
    let hub = hub(|c| {
        c.log.tail_events = 4;
        c.log.history_events = 2;
    });
    for n in 1..=20 {
        publish(&hub, "a", &n.to_string());
    }
    let mut client = Client::open(&hub, Form::Json);
    client.subscribed(&["q"]);
    client.sub(1, Since::Cursor(hub.log().cursor(3)), &["a"]);
    assert_eq!(client.must(), Seen::Gap(3, 16, GapReason::Evicted));
    assert_eq!(client.take(2), [past(17, "a", "17"), past(18, "a", "18")]);
    assert_eq!(client.take(3), [past(19, "a", "19"), past(20, "a", "20"), Seen::CaughtUp(20, Some(1))]);
}

#[test]
fn more_subscriptions_than_are_served_at_once_are_all_answered() {
    let hub = hub(|_| {});
    for n in 1..=50 {
        publish(&hub, "a", &n.to_string());
    }
    let mut client = Client::open(&hub, Form::Json);
    // In one write, and nothing follows that could wake anybody.
    let since = hub.log().cursor(0);
    let wire: Vec<u8> = (0..1000)
        .flat_map(|id| {
            client.frame(format!(r#"{{"type":"sub","id":{id},"since":"{since}","topics":["a"]}}"#).as_bytes())
        })
        .collect();
    let mut writer = client.other_half();
    let writing = std::thread::spawn(move || writer.write(&wire));
    for id in 0..1000 {
        let seen = client.take(51);
        assert_eq!(seen[50], Seen::CaughtUp(50, Some(id)));
    }
    writing.join().unwrap();
}
