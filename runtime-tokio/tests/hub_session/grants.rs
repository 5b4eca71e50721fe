//! What a grant allows, its end, and its replacement by `auth`.

use crate::client::*;
use longwire::hub::{Authorize, Authorizing, Denied, Grant, Hub, HubConfig, LogConfig, Socket};
use longwire_core::log::Since;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Looks at a credential when the test lets it: one permit for each. The credential says what it allows:
/// patterns to read, patterns to write, milliseconds.
struct Desk {
    decisions: Semaphore,
}

impl Authorize for Desk {
    fn authorize<'a>(&'a self, credential: Option<&'a str>) -> Authorizing<'a> {
        Box::pin(async move {
            self.decisions.acquire().await.unwrap().forget();
            let mut parts = credential.unwrap_or_default().split(' ');
            match (parts.next(), parts.next(), parts.next()) {
                (Some("panic"), ..) => panic!("this is part of the test"),
                (Some(read), Some(write), end) => Ok(grant(read, write, end.map(|ms| ms.parse().unwrap()))),
                _ => Err(Denied("unknown")),
            }
        })
    }
}

fn grant(read: &str, write: &str, millis: Option<u64>) -> Grant {
    Grant {
        subject: "test".into(),
        expires: millis.map(|ms| Instant::now() + Duration::from_millis(ms)),
        subscribe: filter(&read.split(',').collect::<Vec<_>>()),
        publish: filter(&write.split(',').collect::<Vec<_>>()),
        ..Grant::open()
    }
}

fn desk() -> (Arc<Desk>, Arc<Hub>) {
    let desk = Arc::new(Desk { decisions: Semaphore::new(0) });
    let config = HubConfig { shards: 1, ..HubConfig::default() };
    (Arc::clone(&desk), Hub::start(config, desk).unwrap())
}

fn refused(client: &mut Client) {
    let (seen, end) = client.end();
    assert_eq!(seen.last(), Some(&Seen::Bye("unauthorized".into())), "{seen:?}");
    assert_eq!(end, End::Closed(3000));
}

#[test]
fn patterns_are_checked_at_subscription_and_at_publication() {
    let hub = hub(|_| {});
    let mut client = Client::with(&hub, Form::Json, |a| a.grant = grant("a/**,x/*", "a/in", None));
    for (id, (patterns, allowed)) in (1..).zip([
        (&["a/b"][..], true),
        (&["a/*", "x/y", "a/**"], true),
        (&["**"], false),
        (&["a/b", "x/**"], false),
        (&["x"], false),
    ]) {
        client.sub(id, Since::Now, patterns);
        let want = if allowed { Seen::CaughtUp(0, Some(id)) } else { error("forbidden", id) };
        assert_eq!(client.must(), want, "{patterns:?}");
    }
    client.publish(1, "a/b");
    assert_eq!(client.must(), Seen::Nack(Some(1), "forbidden".into()));
    publish(&hub, "q", "1");
    client.publish(2, "a/in");
    let both = client.take(2);
    assert!(both.contains(&Seen::Ack(2)) && both.contains(&event(2, "a/in", "2")), "{both:?}");
    assert_eq!(hub.counters().refused.load(Relaxed), 1);
}

#[test]
fn auth_replaces_the_grant_for_what_stands_behind_it() {
    let (desk, hub) = desk();
    let mut client = Client::with(&hub, Form::Json, |a| a.grant = grant("a", "q", None));
    client.subscribed(&["a"]);
    let wire = [
        client.publication(1, "a"),
        client.frame(br#"{"type":"auth","token":"a,b a 600000"}"#),
        client.publication(2, "a"),
        client.frame(br#"{"type":"sub","id":3,"topics":["b"]}"#),
        client.publication(4, "q"),
    ];
    client.write(&wire.concat());
    assert_eq!(client.must(), Seen::Nack(Some(1), "forbidden".into()));
    // While the credential is looked at, nothing behind it is, but what the connection reads goes on.
    publish(&hub, "a", "1");
    assert_eq!(client.must(), event(1, "a", "1"));
    assert_eq!(hub.log().head(), 1);
    desk.decisions.add_permits(1);
    assert_eq!(client.must(), Seen::Hello { lease: true });
    let mut rest = client.take(4);
    rest.sort_by_key(|seen| (live(seen).is_some(), matches!(seen, Seen::CaughtUp(..))));
    let nack = Seen::Nack(Some(4), "forbidden".into());
    assert_eq!(rest[..2], [Seen::Ack(2), nack]);
    // Where the new subscription begins: in front of the event that was just published, or behind it.
    assert!(matches!(rest[2], Seen::CaughtUp(1 | 2, Some(3))), "{rest:?}");
    assert_eq!(rest[3], event(2, "a", "2"));
}

#[test]
fn a_credential_that_is_refused_ends_the_connection() {
    let (desk, hub) = desk();
    desk.decisions.add_permits(1);
    let mut client = Client::open(&hub, Form::Cbor);
    client.auth("nobody");
    refused(&mut client);
}

#[test]
fn a_subscription_does_not_outlive_the_grant_that_allowed_it() {
    let (desk, hub) = desk();
    desk.decisions.add_permits(3);
    let mut client = Client::with(&hub, Form::Json, |a| a.grant = grant("secret/**", "q", Some(600_000)));
    client.subscribed(&["secret/a"]);
    // As much or more of the same goes on.
    for token in ["secret/* q", "** q"] {
        client.auth(token);
        assert_eq!(client.must(), Seen::Hello { lease: false });
    }
    publish(&hub, "secret/a", "1");
    assert_eq!(client.must(), event(1, "secret/a", "1"));
    client.auth("public/** q");
    refused(&mut client);
}

#[test]
fn a_grant_that_ends_closes_with_3000() {
    let hub = hub(|_| {});
    for form in FORMS {
        let mut client = Client::with(&hub, form, |a| a.grant = grant("a", "a", Some(2_000)));
        client.subscribed(&["a"]);
        // It is asked for a new one in time, once.
        let (seen, end) = client.end();
        assert_eq!(seen, [Seen::Renew, Seen::Bye("unauthorized".into())]);
        assert_eq!(end, End::Closed(3000));
    }
}

#[test]
fn a_grant_ends_in_the_middle_of_a_flood() {
    // Nothing that would hold the publisher up, and with it let the connection rest.
    let hub = hub(|c| {
        c.log = LogConfig {
            tail_events: 1 << 30,
            tail_bytes: 1 << 40,
            history_events: 0,
            ..LogConfig::default()
        };
    });
    // A pipe in memory, which its writer always fills faster than the hub can empty it.
    let (stream, server) = tokio::io::duplex(4 << 20);
    let mut adoption = adoption(Socket::Stream(Box::new(server)), Form::Json);
    adoption.grant = grant("a", "a", Some(300));
    hub.adopt(adoption);
    let (read, mut write) = tokio::io::split(stream);
    let mut client = Client::over(Blocking::new(tokio::io::join(read, tokio::io::sink())), &hub, Form::Json);
    let wire: Vec<u8> = (1..=2000).flat_map(|n| client.publication(n, "a")).collect();
    let flood = std::thread::spawn(move || {
        block_on(async { while tokio::io::AsyncWriteExt::write_all(&mut write, &wire).await.is_ok() {} });
    });
    assert_eq!(client.must(), Seen::Hello { lease: true });
    // A watchdog only: without the end of the grant it would go on for ever.
    let start = std::time::Instant::now();
    let seen = loop {
        match client.must() {
            Seen::Renew => {}
            Seen::Ack(_) => assert!(start.elapsed() < PATIENCE, "the grant does not end"),
            other => break other,
        }
    };
    assert_eq!(seen, Seen::Bye("unauthorized".into()));
    assert_eq!(client.end(), (vec![], End::Closed(3000)));
    flood.join().unwrap();
}

#[test]
fn a_client_that_is_not_read_while_its_credential_is_looked_at_lives_on() {
    let desk = Arc::new(Desk { decisions: Semaphore::new(0) });
    let beat = Duration::from_millis(100);
    let config = HubConfig { shards: 1, heartbeat: beat, heartbeat_timeout: beat, ..HubConfig::default() };
    let hub = Hub::start(config, Arc::clone(&desk) as Arc<dyn Authorize>).unwrap();
    let mut client = Client::with(&hub, Form::Json, |a| a.grant = grant("a", "a", None));
    client.auth("b b");
    // It answers the Pings that it gets, and what it sent lies unread for longer than it may be silent.
    client.publish(1, "b");
    assert!(client.take(6).iter().all(|seen| matches!(seen, Seen::Tick(_))));
    desk.decisions.add_permits(1);
    let rest: Vec<_> = client.take(8).into_iter().filter(|seen| !matches!(seen, Seen::Tick(_))).collect();
    assert_eq!(rest, [Seen::Hello { lease: false }, Seen::Ack(1)]);
    // Read again, it has to answer again.
    client.lives = false;
    assert_eq!(client.end().1, End::Closed(1001));
}

#[test]
fn a_credential_check_that_panics_ends_its_connection_and_nothing_else() {
    let (desk, hub) = desk();
    desk.decisions.add_permits(1);
    let mut other = Client::open(&hub, Form::Json);
    other.subscribed(&["a"]);
    let mut client = Client::open(&hub, Form::Json);
    client.auth("panic");
    assert_eq!(client.end(), (vec![], End::Cut));
    assert_eq!(hub.counters().websockets.load(Relaxed), 1);
    publish(&hub, "a", "1");
    assert_eq!(other.must(), event(1, "a", "1"));
    ends("the hub", move || hub.close(Duration::ZERO, Duration::ZERO));
}
