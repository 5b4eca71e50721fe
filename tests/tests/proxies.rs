//! `longwire sub` and `longwire pub` through nginx and HAProxy, which refuse, buffer and cut: each finds what works, and what one
//! publishes the other sees once and in order.

use std::io::Write;
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use longwire_tests::gateway::Gateway;
use longwire_tests::longwire;
use longwire_tests::process::Program;
use longwire_tests::proxy::{Kind, Proxy, Way};
use serde_json::Value;

/// Longer than the 5 s after which the proxies cut.
const QUIET: Duration = Duration::from_millis(6_500);

/// A publisher and a subscriber behind a proxy.
struct Pair {
    way: Way,
    topic: String,
    sub: Program,
    publisher: Program,
    lines: ChildStdin,
}

impl Pair {
    fn start(proxy: &Proxy, gateway: &Gateway, way: Way) -> Self {
        let topic = format!("proxies/{way:?}");
        // Something is there from the beginning, so that it is known when the subscriber listens.
        gateway.publish(&topic, &Value::from(0));
        let url = proxy.url(way);
        let sub = Program::start(longwire().args(["sub", &topic, "--json", "--url", &url]));
        let mut command = longwire();
        command.args(["pub", &topic, "-", "--url", &url]);
        let mut publisher = Program::start_with_stdin(&mut command, Stdio::piped());
        let lines = publisher.stdin();
        Self { way, topic, sub, publisher, lines }
    }

    /// The rung that was reached, as people are told.
    fn rung(&self) -> String {
        let mut rung = "ws".to_owned();
        for line in self.sub.errors() {
            if let Some((_, rest)) = line.split_once("longwire: connected (") {
                rung = rest.trim_end_matches(')').to_owned();
            }
        }
        rung
    }
}

fn every_event_once_over_three_times_of_silence(kind: Kind) {
    let gateway = Gateway::start();
    let proxy = Proxy::start(kind, gateway.address);
    let mut pairs = Way::ALL.map(|way| Pair::start(&proxy, &gateway, way));
    let mut published = 1;
    for pair in &pairs {
        pair.sub.wait_for_lines(published);
    }
    for _ in 0..4 {
        for pair in &mut pairs {
            for n in published..published + 5 {
                writeln!(pair.lines, "{n}").expect("it reads");
            }
        }
        published += 5;
        for pair in &pairs {
            pair.sub.wait_for_lines(published);
        }
        // Not a wait for something to happen, but the matter itself.
        std::thread::sleep(QUIET);
    }
    for pair in pairs {
        let expected = match pair.way {
            Way::Pass | Way::Idle => "ws",
            Way::Refuse => "sse",
            Way::Buffer | Way::IdleRefuse => "longpoll",
        };
        assert_eq!(pair.rung(), expected, "{kind:?} {:?}\n{}", pair.way, pair.sub.said());
        // Idle cuts are found out, and then there are no more: at most two, and one of each of the rungs above.
        let troubles = pair.sub.errors().iter().filter(|line| line.contains("trying again")).count();
        assert!(troubles <= 3, "{kind:?} {:?}\n{}", pair.way, pair.sub.said());
        drop(pair.lines);
        let ended = pair.publisher.finish();
        assert!(ended.status.success(), "{kind:?} {:?} {ended:?}", pair.way);
        pair.sub.interrupt();
        let ended = pair.sub.finish();
        assert!(ended.status.success(), "{ended:?}");
        let seen: Vec<Option<u64>> = ended
            .stdout
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["data"].as_u64())
            .collect();
        let all: Vec<Option<u64>> = (0..published as u64).map(Some).collect();
        assert_eq!(seen, all, "{kind:?} {}", pair.topic);
    }
}

#[test]
fn nginx_in_between_costs_no_event_whatever_it_does() {
    every_event_once_over_three_times_of_silence(Kind::Nginx);
}

#[test]
fn haproxy_in_between_costs_no_event_whatever_it_does() {
    every_event_once_over_three_times_of_silence(Kind::Haproxy);
}

#[test]
fn a_proxy_that_is_killed_in_the_middle_of_it_costs_no_publication_and_repeats_none() {
    const EACH: usize = 200;
    let gateway = Gateway::start();
    let mut proxy = Proxy::start(Kind::Haproxy, gateway.address);
    let url = gateway.url();
    let sub =
        Program::start(longwire().args(["sub", "kill/*", "--json", "--since", "latest", "--url", &url]));
    // By WebSocket, and by POST.
    let ways = [Way::Pass, Way::Refuse];
    let mut publishers = ways.map(|way| {
        let mut command = longwire();
        command.args(["pub", &format!("kill/{way:?}"), "-", "--url", &proxy.url(way)]);
        let mut program = Program::start_with_stdin(&mut command, Stdio::piped());
        let lines = program.stdin();
        (program, lines)
    });
    let mut published = 0;
    for _ in 0..3 {
        for (_, lines) in &mut publishers {
            for n in published..published + EACH {
                writeln!(lines, "{n}").expect("it reads");
            }
        }
        // Some of this round are through, of both, and others are on their way.
        for way in ways {
            let begun = format!("\"topic\":\"kill/{way:?}\"");
            let number = format!("\"data\":{published}}}");
            sub.wait_for("first of a round", |line| {
                (line.contains(&begun) && line.ends_with(&number)).then_some(())
            });
        }
        published += EACH;
        proxy.kill();
        proxy.start_again();
        sub.wait_for_lines(2 * published);
    }
    for (program, lines) in publishers {
        drop(lines);
        let ended = program.finish();
        assert!(ended.status.success(), "{ended:?}");
    }
    sub.interrupt();
    let seen: Vec<Value> =
        sub.finish().stdout.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(seen.len(), 2 * published);
    for way in ways {
        let topic = format!("kill/{way:?}");
        let of_this =
            seen.iter().filter(|event| event["topic"] == topic.as_str()).map(|event| event["data"].as_u64());
        assert!(of_this.eq((0..published as u64).map(Some)), "{topic}: each once, in order");
    }
}
