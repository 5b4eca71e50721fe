//! Connections that come and go, and what is left of them; what delivery costs.

use crate::client::*;
use longwire::hub::Socket;
use longwire_core::log::Since;
use rand::RngExt;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

#[test]
fn nothing_is_left_of_a_thousand_connections() {
    let mut rng = seeded("churn");
    let hub = hub(|c| (c.shards, c.log) = (2, tail(64)));
    let permits = Arc::new(());
    let mut open = Vec::new();
    let patterns = ["a", "a/*", "**", "a/b/c", "*/b", "x/y/**"];
    for _ in 0..1000 {
        let (stream, server) = tcp();
        let mut adoption = adoption(Socket::Tcp(server), FORMS[rng.random_range(0..2)]);
        adoption.permit = Box::new(Arc::clone(&permits));
        let wanted: Vec<&str> = (0..rng.random_range(1..4)).map(|_| pick(&mut rng, &patterns)).collect();
        if rng.random_bool(0.5) {
            adoption.subscription = Some((filter(&wanted), Since::Now));
        }
        let form =
            if adoption.protocol == longwire::hub::Protocol::WebSocketJson { Form::Json } else { Form::Cbor };
        hub.adopt(adoption);
        let mut client = Client::over(stream, &hub, form);
        if rng.random_bool(0.5) {
            client.sub(1, Since::Latest, &wanted);
        }
        if rng.random_bool(0.3) {
            client.unsub(2, &wanted[..1]);
        }
        if rng.random_bool(0.5) {
            client.publish(1, "a/b");
        }
        match rng.random_range(0..5) {
            // Ends in order, in disorder, within a message, at once, later.
            0 => client.write(&frame(longwire_core::ws::OpCode::Close, b"\x03\xe8")),
            1 => client.write(b"garbage"),
            2 => client.write(b"\x81\xfe\x01"),
            3 => continue,
            _ => {}
        }
        open.push(client);
        if rng.random_bool(0.6) {
            let gone = open.swap_remove(rng.random_range(0..open.len()));
            drop(gone);
        }
        if rng.random_bool(0.2) {
            publish(&hub, "a/b/c", "1");
        }
    }
    drop(open);
    let counters = hub.counters();
    wait_until(|| Arc::strong_count(&permits) == 1);
    wait_until(|| counters.websockets.load(Relaxed) == 0);
    wait_until(|| counters.subscriptions.load(Relaxed) == 0);
    // A shard ends when none of its readers is left.
    let closing = Arc::clone(&hub);
    ends("the hub", move || closing.close(Duration::ZERO, Duration::ZERO));
}

#[test]
fn a_burst_is_one_write_a_reader_and_costs_nobody_else() {
    let hub = hub(|_| {});
    let mut readers: Vec<_> = (0..10).map(|_| Client::open(&hub, Form::Json)).collect();
    readers.iter_mut().for_each(|reader| reader.subscribed(&["a/*"]));
    let mut idle: Vec<_> = (0..200).map(|_| Client::open(&hub, Form::Json)).collect();
    idle.iter_mut().for_each(|reader| reader.subscribed(&["b", "a/x/*"]));
    let publisher = Client::open(&hub, Form::Json);
    let wire: Vec<u8> = (1..=50).flat_map(|n| publisher.publication(n, "a/b")).collect();
    // All of it is there when the connection begins, so it is one turn, and one window for the readers.
    let mut burst = Client::with(&hub, Form::Json, |a| a.early = wire);
    assert_eq!(burst.must(), Seen::Ack(50));
    for reader in &mut readers {
        assert_eq!(
            reader.take(50).iter().filter_map(live).map(|(seq, _)| seq).collect::<Vec<_>>(),
            Vec::from_iter(1..=50)
        );
    }
    // `hello` and `caught_up` for each reader, `hello` for the publisher that says nothing, and for the other one, its
    // acknowledgement, and the burst. (A client may see what was written before it is counted.)
    let writes = 210 * 2 + 1 + 2 + 10;
    wait_until(|| hub.counters().writes.load(Relaxed) >= writes);
    assert_eq!(hub.counters().writes.load(Relaxed), writes);
    wait_until(|| hub.counters().delivered.load(Relaxed) == 500);
    assert_eq!(hub.counters().blocked.load(Relaxed), 0);
    for client in &mut idle {
        client.stream.flush().unwrap();
        client.stream.set_nonblocking(true).unwrap();
        assert!(std::io::Read::read(&mut client.stream, &mut [0; 16]).is_err(), "something was sent to it");
    }
}
