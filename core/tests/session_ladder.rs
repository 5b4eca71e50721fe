//! The ladder and the connector (`PROTOCOL.md` section 11), step by step.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that is wrong has to stop")]

use core::time::Duration;
use longwire_core::rand_core::{Infallible, TryRng};
use longwire_core::session::backoff::Failure;
use longwire_core::session::connector::{Action, Connector, ConnectorConfig, Event};
use longwire_core::session::ladder::{Ending, LadderConfig, Memory, Rung, Rungs};
use longwire_core::session::{Code, Refusal};
use longwire_core::time::Instant;
use longwire_core::ws::CloseCode;

/// Draws the longest wait every time.
struct Longest;

impl TryRng for Longest {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::MAX)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::MAX)
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        to.fill(0xff);
        Ok(())
    }
}

/// A connector, and its clock.
struct Client {
    machine: Connector,
    now: Instant,
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const HELLO: Event = Event::Opened { heartbeat: Some(Duration::from_secs(15)), window: None };
const FIRST_ANSWER: Event = Event::Opened { heartbeat: None, window: None };

fn page(status: u16) -> Ending {
    Ending::from_status(status, None)
}

impl Client {
    fn with(config: ConnectorConfig, memory: Option<Memory>) -> Self {
        let mut client = Self { machine: Connector::new(config, memory), now: Instant::from_millis(1000) };
        assert!(matches!(client.machine.start(client.now), Action::Open(_)));
        client
    }

    fn new() -> Self {
        Self::with(ConnectorConfig::new(), None)
    }

    fn does(&mut self, event: Event) -> Action {
        self.machine.handle(event, self.now, &mut Longest)
    }

    fn ends(&mut self, ending: Ending) -> Action {
        self.does(Event::Ended(ending))
    }

    fn later(&mut self, by: Duration) -> &mut Self {
        self.now = self.now.after(by);
        self
    }

    /// Time passes until the machine has something to do.
    fn due(&mut self) -> (Duration, Action) {
        let due = self.machine.poll_timeout().unwrap();
        let waited = due.since(self.now);
        assert_eq!(
            self.machine.handle_timeout(Instant::from_millis(due.as_millis() - 1), &mut Longest),
            Action::Continue
        );
        self.now = due;
        (waited, self.machine.handle_timeout(due, &mut Longest))
    }

    /// The rung that is being tried opens.
    fn opens(&mut self) {
        self.does(Event::Reached);
        let event = if self.machine.rung() <= Rung::Sse { HELLO } else { FIRST_ANSWER };
        assert_eq!(self.does(event), Action::Continue);
    }

    /// Waits as it is told to, and opens again.
    fn comes_back(&mut self, action: Action) {
        match action {
            Action::Wait(_) => assert!(matches!(self.due().1, Action::Open(_))),
            Action::Open(_) => {}
            other => panic!("{other:?}"),
        }
        self.opens();
    }
}

#[test]
fn a_proxy_that_refuses_costs_one_round_trip_a_rung_and_when_all_are_refused_it_ends() {
    let mut client = Client::new();
    for next in [Rung::Sse, Rung::LongPoll, Rung::Poll] {
        client.does(Event::Reached);
        assert_eq!(client.ends(page(403)), Action::Open(next));
    }
    client.does(Event::Reached);
    assert_eq!(client.ends(page(403)), Action::Stop);
    assert_eq!(client.machine.poll_timeout(), None);
}

#[test]
fn what_an_intermediary_does_to_a_request_blames_the_rung_and_what_the_server_says_does_not() {
    let said = |code| Ending::from_refusal(&Refusal::new(code, ""), None);
    for (ending, action) in [
        (page(200), Action::Open(Rung::Sse)),
        (page(302), Action::Open(Rung::Sse)),
        (page(404), Action::Open(Rung::Sse)),
        (page(426), Action::Open(Rung::Sse)),
        (page(501), Action::Wait(ms(500))),
        (page(502), Action::Wait(ms(500))),
        (page(429), Action::Wait(ms(500))),
        (Ending::from_status(503, Some(ms(7000))), Action::Wait(ms(7500))),
        (page(401), Action::Stop),
        (Ending::Garbled, Action::Open(Rung::Sse)),
        (Ending::Cut, Action::Open(Rung::Sse)),
        (said(Code::BadRequest), Action::Open(Rung::Sse)),
        (said(Code::UpgradeRequired), Action::Open(Rung::Sse)),
        (said(Code::Forbidden), Action::Stop),
        (said(Code::Unauthorized), Action::Stop),
        (said(Code::Draining), Action::Wait(ms(500))),
        (Ending::from_close(CloseCode::new(1013).unwrap()), Action::Wait(ms(500))),
        (Ending::from_close(CloseCode::new(1008).unwrap()), Action::Stop),
        (Ending::from_close(CloseCode::new(3000).unwrap()), Action::Stop),
        (Ending::Unreachable, Action::Wait(ms(500))),
    ] {
        let mut client = Client::new();
        client.does(Event::Reached);
        assert_eq!(client.ends(ending), action, "{ending:?}");
        // A proxy whose server is away says 5xx on every rung; one that does not like the rung says it on that.
        let next = matches!(ending, Ending::Foreign { .. }) || matches!(action, Action::Open(_));
        let rung = if next { Rung::Sse } else { Rung::WebSocket };
        assert_eq!(client.machine.rung(), rung, "{ending:?}");
    }
}

#[test]
fn a_rung_that_says_nothing_is_left_after_2500_ms_or_four_times_what_connecting_took() {
    for (connecting, first_word) in [(10, 2500), (1000, 4000), (3000, 7000)] {
        let mut client = Client::new();
        client.later(ms(connecting)).does(Event::Reached);
        assert_eq!(client.due(), (ms(first_word), Action::Open(Rung::Sse)), "{connecting}");
    }
    // Below the last there is nothing to hurry for, and it is given time.
    let only = LadderConfig { rungs: Rungs::only(Rung::Sse), ..LadderConfig::new() };
    let mut client = Client::with(ConnectorConfig { ladder: only, ..ConnectorConfig::new() }, None);
    client.does(Event::Reached);
    assert_eq!(client.due(), (ms(10_000), Action::Wait(ms(500))));
    // Whoever cannot be connected to is not there, whatever the rung.
    let mut client = Client::new();
    assert_eq!(client.due(), (ms(10_000), Action::Wait(ms(500))));
    assert_eq!(client.machine.rung(), Rung::WebSocket);
}

#[test]
fn what_worked_is_remembered_and_left_only_after_three_failures() {
    let memory = Memory { rung: Rung::Sse, idle_cut: None };
    let mut client = Client::with(ConnectorConfig::new(), Some(memory));
    assert_eq!(client.machine.rung(), Rung::Sse);
    for (rung, wait) in [(Rung::Sse, 500), (Rung::Sse, 1000), (Rung::LongPoll, 2000)] {
        client.does(Event::Reached);
        assert_eq!(client.ends(Ending::Cut), Action::Wait(ms(wait)));
        assert_eq!(client.machine.rung(), rung);
        client.due();
    }
    client.opens();
    assert_eq!(client.machine.memory(), Some(Memory { rung: Rung::LongPoll, idle_cut: None }));
    // A page where it worked before does not end it.
    let mut client = Client::with(ConnectorConfig::new(), Some(Memory { rung: Rung::Poll, idle_cut: None }));
    for next in [Rung::WebSocket, Rung::Sse, Rung::LongPoll] {
        assert_eq!(client.ends(page(403)), Action::Open(next));
    }
    assert_eq!(client.ends(page(403)), Action::Wait(ms(500)));
}

#[test]
fn memory_is_four_bytes() {
    for rung in Rung::ALL {
        for idle_cut in [None, Some(ms(1)), Some(ms(5000)), Some(ms((1 << 30) - 1))] {
            let memory = Memory { rung, idle_cut };
            assert_eq!(Memory::from_bits(memory.to_bits()), memory);
        }
    }
    let long = Memory { rung: Rung::Poll, idle_cut: Some(Duration::MAX) };
    assert_eq!(Memory::from_bits(long.to_bits()).rung, Rung::Poll);
}

#[test]
fn something_that_cuts_quiet_connections_is_found_out_the_second_time_and_answered_with_pings() {
    let mut client = Client::new();
    client.opens();
    client.later(ms(5002));
    let once = client.ends(Ending::Cut);
    assert_eq!(once, Action::Wait(ms(500)));
    client.comes_back(once);
    client.later(ms(5030));
    assert_eq!(client.ends(Ending::Cut), Action::Open(Rung::WebSocket));
    client.opens();
    assert_eq!(client.machine.memory(), Some(Memory { rung: Rung::WebSocket, idle_cut: Some(ms(5030)) }));
    for _ in 0..100 {
        assert_eq!(client.due(), (ms(2515), Action::Ping));
        client.later(ms(3)).does(Event::Heard);
    }
    // A peer that does not answer is dead as always.
    for _ in 0..11 {
        assert_eq!(client.due(), (ms(2515), Action::Ping));
    }
    assert_eq!(client.due(), (ms(30_000 - 11 * 2515), Action::Wait(ms(500))));
}

#[test]
fn an_event_stream_that_is_cut_more_often_than_its_heartbeat_gives_way_to_long_polls_that_wait_less() {
    let ladder = LadderConfig { rungs: Rungs::ALL, ..LadderConfig::new() };
    let mut client = Client::with(ConnectorConfig { ladder, ..ConnectorConfig::new() }, None);
    client.does(Event::Reached);
    assert_eq!(client.ends(page(403)), Action::Open(Rung::Sse));
    client.opens();
    client.later(ms(5000));
    let action = client.ends(Ending::Cut);
    client.comes_back(action);
    client.later(ms(5000));
    assert_eq!(client.ends(Ending::Cut), Action::Open(Rung::LongPoll));
    client.opens();
    assert_eq!(client.machine.wait(), ms(2000));
    // Long polls find it out the first time.
    let long_poll = LadderConfig { rungs: Rungs::only(Rung::LongPoll), ..LadderConfig::new() };
    let mut client = Client::with(ConnectorConfig { ladder: long_poll, ..ConnectorConfig::new() }, None);
    client.opens();
    assert_eq!(client.machine.wait(), ms(25_000));
    client.later(ms(5000));
    assert_eq!(client.ends(page(504)), Action::Open(Rung::LongPoll));
    assert_eq!(client.machine.wait(), ms(2000));
}

#[test]
fn connections_that_die_young_for_no_reason_strike_the_rung_out_but_not_those_that_the_server_ends() {
    let mut client = Client::new();
    client.opens();
    for rung in [Rung::WebSocket, Rung::WebSocket, Rung::Sse] {
        client.later(ms(900));
        let action = client.ends(Ending::Cut);
        assert!(matches!(action, Action::Wait(_)));
        assert_eq!(client.machine.rung(), rung);
        client.comes_back(action);
    }
    let mut client = Client::new();
    client.opens();
    for _ in 0..10 {
        client.later(ms(900));
        let action = client.ends(Ending::Said(Failure::Lost));
        assert_eq!(client.machine.rung(), Rung::WebSocket);
        client.comes_back(action);
    }
}

#[test]
fn a_better_rung_is_tried_beside_the_present_one_and_ever_more_rarely() {
    let mut client = Client::new();
    client.does(Event::Reached);
    client.ends(page(403));
    client.does(Event::Reached);
    keep_alive(&mut client);
    for minutes in [5, 10, 20, 40, 60, 60] {
        let (quiet, action) = client.due();
        assert_eq!(action, Action::LookUp(Rung::WebSocket));
        let most = Duration::from_secs(minutes * 60);
        assert!(quiet <= most && quiet > most.mul_f32(0.99), "{quiet:?}");
        client.does(Event::Reached);
        assert_eq!(client.ends(page(403)), Action::Back);
        assert_eq!(client.machine.rung(), Rung::Sse);
    }
    assert_eq!(client.due().1, Action::LookUp(Rung::WebSocket));
    client.does(Event::Reached);
    assert_eq!(client.does(HELLO), Action::Change);
    assert_eq!(client.machine.rung(), Rung::WebSocket);
    // Nothing is better.
    assert_eq!(client.due().1, Action::Wait(ms(500)));
}

/// The heartbeat is not the matter here.
fn keep_alive(client: &mut Client) {
    let heartbeat = Some(Duration::from_secs(1 << 30));
    assert_eq!(client.does(Event::Opened { heartbeat, window: None }), Action::Continue);
}

#[test]
fn a_refused_credential_is_renewed_once() {
    let config = ConnectorConfig { renewable: true, ..ConnectorConfig::new() };
    let mut client = Client::with(config, None);
    client.opens();
    assert!(!client.machine.wants_credential());
    let expired = client.ends(Ending::Unauthorized);
    assert_eq!(expired, Action::Wait(ms(500)));
    assert!(client.machine.wants_credential());
    client.comes_back(expired);
    assert!(!client.machine.wants_credential());
    let again = client.ends(Ending::Unauthorized);
    assert!(matches!(again, Action::Wait(_)));
    client.due();
    client.does(Event::Reached);
    assert_eq!(client.ends(Ending::Unauthorized), Action::Stop);
}

#[test]
fn a_switch_is_made_at_once_but_for_a_wait() {
    let only = |rung| LadderConfig { rungs: Rungs::only(rung), ..LadderConfig::new() };
    let mut client = Client::new();
    client.opens();
    assert_eq!(client.machine.switch(only(Rung::Poll), client.now), Action::Open(Rung::Poll));
    client.opens();
    assert!(matches!(client.ends(Ending::Unreachable), Action::Wait(_)));
    assert_eq!(client.machine.switch(only(Rung::Sse), client.now), Action::Continue);
    assert_eq!(client.due().1, Action::Open(Rung::Sse));
}
