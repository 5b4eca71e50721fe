//! What clients do to a server that goes away and comes back. The rules are those of `PROTOCOL.md` section 11.1, and the
//! machine under test is the core's; `tests/storm/README.md` shows what it looks like.

#[path = "../storm/real/mod.rs"]
mod real;
#[path = "../storm/simulation/mod.rs"]
mod simulation;

use longwire_tests::PATIENCE;
use longwire_tests::rng::Rng;
use real::relay::relay;
use real::{Figures, Relays, Setting, tell};
use simulation::client::Rule;
use simulation::server::Capacity;
use simulation::world::{End, Outcome, Story, run};
use simulation::{announced, stories};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// What comes above the announced rate by chance.
const SLACK: f64 = 1.1;

/// Runs a story in which nobody is lost.
fn told(story: Story) -> Outcome {
    let outcome = run(story);
    assert!(outcome.recovered(story.clients, 1000).is_some(), "not all came back: {story:?}");
    outcome
}

fn assert_spread(story: Story) -> Outcome {
    let outcome = told(story);
    let (peak, rate) = (outcome.peak(), announced(&story));
    assert!(peak as f64 <= rate * SLACK, "{peak} connects in a second, {rate} announced: {story:?}");
    outcome
}

#[test]
fn a_hundred_thousand_clients_come_back_at_the_rate_that_was_announced() {
    let seed = Rng::from_env().below(1 << 32);
    for story in stories(Rule::Longwire, seed) {
        let outcome = assert_spread(story);
        assert!(outcome.nobody > 0, "nobody tried while it was away: {story:?}");
        // Who finds nobody tries again no sooner than after a window, and within two.
        let most = story.away + 2 * story.window + Duration::from_secs(1);
        assert!(outcome.recovered(story.clients, 990) <= Some(most), "{story:?}");
        assert_eq!((outcome.told, outcome.closed, outcome.dropped), (0, 0, 0), "{story:?}");
    }
}

#[test]
fn however_long_it_is_away_and_whomever_it_refuses() {
    let mut rng = Rng::from_env();
    let plenty = Capacity { rate: 8_000, ..Capacity::default() };
    // Half of what the window announces, and half of the places.
    let slow = Capacity { rate: 3_000, handshakes: 300, ..Capacity::default() };
    for end in [End::Graceful, End::Killed] {
        for away in [0, 1, 4, 30] {
            for capacity in [plenty, slow] {
                let (window, away) = (Duration::from_secs(5), Duration::from_secs(away));
                let seed = rng.below(1 << 32);
                let story =
                    Story { clients: 30_000, rule: Rule::Longwire, end, away, window, capacity, seed };
                let outcome = assert_spread(story);
                assert_eq!(outcome.told + outcome.closed > 0, capacity.rate == slow.rate, "{story:?}");
            }
        }
    }
}

#[test]
fn without_the_window_they_do_not() {
    // So that the tests above are known to be able to fail.
    for rule in [Rule::JitterAlone, Rule::Exponential, Rule::Fixed] {
        for story in stories(rule, 1) {
            let story = Story { clients: 30_000, ..story };
            let outcome = told(story);
            assert!(outcome.peak() as f64 > announced(&story) * 4.0, "{} {story:?}", outcome.peak());
        }
    }
}

/// Connections of each real storm.
const CONNECTIONS: usize = 300;

fn storm(story: real::Story) -> Figures {
    let setting = Setting {
        connections: CONNECTIONS,
        rate: 20.0,
        window: Duration::from_secs(1),
        options: Vec::new(),
        patience: PATIENCE,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let figures = runtime.expect("a runtime").block_on(tell(story, &setting, &mut Relay::default()));
    println!("{figures}");
    assert_eq!((figures.lost, figures.repeated, figures.gaps), (0, 0, 0));
    figures
}

#[test]
fn a_gateway_that_is_killed_has_all_its_readers_back_and_tells_each_that_the_log_is_gone() {
    assert_eq!(storm(real::Story::Killed).resets, CONNECTIONS as u64);
}

#[test]
fn a_gateway_that_is_restarted_has_all_its_readers_back_and_tells_each_that_the_log_is_gone() {
    let figures = storm(real::Story::Stopped);
    assert_eq!(figures.resets, CONNECTIONS as u64);
    let byes = figures.waited.iter().filter(|(why, _)| why.contains("draining")).map(|(_, times)| times);
    assert_eq!(byes.sum::<usize>(), CONNECTIONS);
}

#[test]
fn readers_that_are_cut_off_together_lose_nothing_and_see_nothing_twice() {
    assert_eq!(storm(real::Story::Cut).resets, 0);
}

/// A relay in this process.
#[derive(Default)]
struct Relay(Option<mpsc::Sender<()>>);

impl Relays for Relay {
    fn start(&mut self, gateway: SocketAddr) -> Vec<SocketAddr> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free address");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("it is bound");
        let (cut, cuts) = mpsc::channel(1);
        tokio::spawn(relay(TcpListener::from_std(listener).expect("a socket"), gateway, cuts));
        self.0 = Some(cut);
        vec![address]
    }

    fn cut(&mut self) {
        self.0.as_ref().and_then(|cut| cut.try_send(()).ok()).expect("it relays");
    }
}
