//! A reader against a server and a network that misbehave, in virtual time.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong has to stop"
)]

use core::time::Duration;
use longwire_core::log::{Cursor, Since};
use longwire_core::rand_core::{Infallible, Rng as _, TryRng};
use longwire_core::session::backoff::Failure;
use longwire_core::session::connector::{Action, ConnectorConfig, Event};
use longwire_core::session::ladder::{Ending, Rung};
use longwire_core::session::subscriber::{Mark, Subscriber};
use longwire_core::session::{Gap, GapReason, Position};
use longwire_core::time::Instant;
use proptest::prelude::*;

const EPOCH: u64 = 7;

/// xorshift64*
#[derive(Clone)]
struct Dice(u64);

impl TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.try_next_u64()? >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        Ok(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        for byte in to {
            *byte = self.try_next_u32()? as u8;
        }
        Ok(())
    }
}

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.next_u64() % n
    }
}

/// What befalls an attempt.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Unreachable,
    /// Reached, and then this instead of a first word.
    Refused(Ending),
    /// Reached, and then nothing.
    Mute,
    /// It works, tells this many events again that were told before, and ends after so many events (and a tick).
    Works {
        again: u64,
        events: u64,
        ending: Ending,
    },
    /// It works until something cuts it, after this much silence.
    CutWhenQuiet(Duration),
    Lasts,
}

fn fate() -> impl Strategy<Value = Fate> {
    let ending = prop_oneof![
        Just(Ending::Cut),
        Just(Ending::Garbled),
        Just(Ending::Said(Failure::Lost)),
        (0u64..9000, 0u64..9000).prop_map(|(a, b)| Ending::Said(Failure::Told {
            retry_after: Duration::from_millis(a),
            window: Duration::from_millis(b)
        })),
        Just(Ending::from_status(503, None)),
    ];
    prop_oneof![
        Just(Fate::Unreachable),
        ending.clone().prop_map(Fate::Refused),
        prop_oneof![Just(200u16), Just(403), Just(404), Just(502), Just(504)]
            .prop_map(|status| Fate::Refused(Ending::from_status(status, None))),
        Just(Fate::Mute),
        (0u64..4, 0u64..30, ending).prop_map(|(again, events, ending)| Fate::Works { again, events, ending }),
        (1000u64..20_000).prop_map(|ms| Fate::CutWhenQuiet(Duration::from_millis(ms))),
    ]
}

/// An open connection, as the server has it.
struct Link {
    fate: Fate,
    /// Up to here it was told.
    told: u64,
    events: u64,
    traffic: Instant,
}

struct World {
    now: Instant,
    dice: Dice,
    machine: Subscriber,
    fates: Vec<Fate>,
    head: u64,
    link: Option<Link>,
    /// The present one, while a better one is looked for.
    held: Option<Link>,
    /// What the application was handed.
    seen: Vec<u64>,
    attempts: Vec<(Instant, Rung)>,
    /// Attempts since the last wait.
    hurried: u32,
    stopped: bool,
}

impl World {
    fn new(seed: u64, mut fates: Vec<Fate>) -> Self {
        fates.reverse();
        let start = Since::Cursor(Cursor { epoch: EPOCH, seq: 0 });
        let mut world = Self {
            now: Instant::from_millis(5),
            dice: Dice(seed | 1),
            machine: Subscriber::new(ConnectorConfig::new(), start, None),
            fates,
            head: 0,
            link: None,
            held: None,
            seen: Vec::new(),
            attempts: Vec::new(),
            hurried: 0,
            stopped: false,
        };
        let action = world.machine.start(world.now);
        world.act(action);
        world
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Continue => {}
            Action::Open(rung) => {
                (self.link, self.held) = (None, None);
                self.open(rung);
            }
            Action::LookUp(rung) => {
                assert!(self.held.is_none(), "one look at a time");
                self.held = self.link.take();
                // Minutes lie between two of them, which `session_ladder.rs` shows.
                self.hurried = 0;
                self.open(rung);
            }
            Action::Change => self.held = None,
            Action::Back => self.link = self.held.take(),
            Action::Ping => {
                if let Some(link) = &mut self.link {
                    link.traffic = self.now;
                    self.report(Event::Heard);
                }
            }
            Action::Wait(wait) => {
                (self.link, self.held, self.hurried) = (None, None, 0);
                assert!(wait <= Duration::from_secs(60), "{wait:?}");
            }
            Action::Stop => self.stopped = true,
        }
    }

    fn report(&mut self, event: Event) {
        let action = self.machine.handle(event, self.now, &mut self.dice);
        self.act(action);
    }

    fn open(&mut self, rung: Rung) {
        self.attempts.push((self.now, rung));
        self.hurried += 1;
        assert!(self.hurried <= 8, "in a hurry: {:?}", self.attempts);
        let fate = self.fates.pop().unwrap_or(Fate::Lasts);
        let Since::Cursor(cursor) = self.machine.since() else { panic!("the cursor was lost") };
        // The name, TCP and TLS take a while.
        self.now = self.now.after(Duration::from_millis(self.dice.below(50)));
        match fate {
            Fate::Unreachable => return self.report(Event::Ended(Ending::Unreachable)),
            Fate::Refused(ending) => {
                self.report(Event::Reached);
                return self.report(Event::Ended(ending));
            }
            Fate::Mute => {
                self.link = Some(Link { fate, told: 0, events: 0, traffic: self.now });
                return self.report(Event::Reached);
            }
            _ => {}
        }
        let again = if let Fate::Works { again, .. } = fate { again } else { 0 };
        let told = cursor.seq.saturating_sub(again);
        self.link = Some(Link { fate, told, events: 0, traffic: self.now });
        self.report(Event::Reached);
        let heartbeat = (rung <= Rung::Sse).then_some(Duration::from_secs(15));
        self.report(Event::Opened { heartbeat, window: Some(Duration::from_secs(2)) });
    }

    /// The server tells what there is, and does its worst.
    fn serve(&mut self) {
        let Some(link) = &mut self.link else { return };
        let quiet = self.now.since(link.traffic);
        match link.fate {
            Fate::Mute => return,
            Fate::CutWhenQuiet(limit) if quiet >= limit => {
                self.link = None;
                return self.report(Event::Ended(Ending::Cut));
            }
            _ => {}
        }
        let mut traffic = false;
        while let Some(link) = self.link.as_mut().filter(|link| link.told < self.head) {
            if let Fate::Works { events, ending, .. } = link.fate
                && link.events >= events
            {
                self.link = None;
                return self.report(Event::Ended(ending));
            }
            link.told += 1;
            link.events += 1;
            link.traffic = self.now;
            let seq = link.told;
            traffic = true;
            let mark = Mark::Event(Position::At(Cursor { epoch: EPOCH, seq }));
            if self.machine.is_new(mark) {
                self.seen.push(seq);
            }
            self.machine.passed(mark);
        }
        let polls = self.machine.connector().rung() > Rung::Sse;
        if traffic || quiet >= Duration::from_secs(if polls { 2 } else { 15 }) {
            // A tick may repeat what is known, and so may another connection's.
            self.machine.passed(Mark::At(Cursor {
                epoch: EPOCH,
                seq: self.link.as_ref().map_or(0, |link| link.told),
            }));
            if let Some(link) = &mut self.link {
                link.traffic = self.now;
            }
            self.report(Event::Heard);
        }
    }

    fn run(&mut self, until: Duration, publish: bool) {
        let end = self.now.after(until);
        while self.now < end && !self.stopped {
            self.now = self.now.after(Duration::from_millis(1 + self.dice.below(400)));
            if publish && self.dice.below(8) == 0 {
                self.head += 1 + self.dice.below(5);
            }
            if self.machine.poll_timeout().is_some_and(|due| self.now >= due) {
                let action = self.machine.handle_timeout(self.now, &mut self.dice);
                self.act(action);
            }
            self.serve();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_or_repeated_and_attempts_come_one_at_a_time_and_at_a_bounded_rate(
        seed: u64,
        fates in proptest::collection::vec(fate(), 0..40),
    ) {
        let mut world = World::new(seed, fates);
        world.run(Duration::from_secs(1800), true);
        // What is left of the faults is over within the longest waits; then everything has arrived.
        world.run(Duration::from_secs(3600), false);
        if world.stopped {
            // Only where nothing has ever worked, and everything in between said no.
            prop_assert!(world.seen.is_empty());
            return Ok(());
        }
        world.fates.clear();
        world.run(Duration::from_secs(600), false);
        let all: Vec<u64> = (1..=world.head).collect();
        prop_assert_eq!(&world.seen, &all);
        prop_assert_eq!(world.machine.cursor().unwrap().seq, world.head);
    }

    #[test]
    fn the_cursor_never_goes_back(marks in proptest::collection::vec((0u8..5, 0u64..100), 0..200)) {
        let mut machine = Subscriber::new(ConnectorConfig::new(), Since::Latest, None);
        let mut last = None;
        for (kind, seq) in marks {
            let at = Cursor { epoch: EPOCH, seq };
            let mark = match kind {
                0 => Mark::Event(Position::Past(at)),
                1 => Mark::At(at),
                2 => Mark::Gap(gap(seq, GapReason::Slow)),
                3 if seq < 5 => Mark::Gap(gap(seq, GapReason::Reset)),
                _ => Mark::Event(Position::At(at)),
            };
            let fresh = machine.is_new(mark);
            machine.passed(mark);
            match mark {
                Mark::Event(Position::Past(_)) => prop_assert!(fresh),
                Mark::Gap(Gap { reason: GapReason::Slow, .. }) => {}
                Mark::Gap(_) => {
                    prop_assert!(fresh);
                    last = None;
                }
                Mark::Event(_) | Mark::At(_) => {
                    prop_assert_eq!(fresh, last.is_none_or(|last| seq > last));
                    last = last.max(Some(seq));
                }
            }
            prop_assert_eq!(machine.cursor().map(|cursor| cursor.seq), last);
        }
    }
}

fn gap(to: u64, reason: GapReason) -> Gap {
    let at = |seq| Cursor { epoch: EPOCH, seq };
    Gap { from: at(0), to: at(to), reason, skipped: None }
}

#[test]
fn a_gap_that_another_connection_tells_again_is_told_once() {
    let mut machine = Subscriber::new(ConnectorConfig::new(), Since::Now, None);
    let slow = |to| Mark::Gap(gap(to, GapReason::Slow));
    assert!(machine.is_new(slow(5)));
    machine.passed(slow(5));
    assert!(!machine.is_new(slow(5)) && machine.is_new(slow(6)));
    machine.passed(Mark::At(Cursor { epoch: EPOCH, seq: 5 }));
    assert!(machine.is_new(slow(5)));
    let reset = Mark::Gap(gap(5, GapReason::Reset));
    machine.passed(reset);
    assert!(machine.is_new(reset));
}

#[test]
fn whatever_cuts_quiet_connections_a_working_rung_is_found_and_stays() {
    for limit in [3000, 5000, 9000, 14_000] {
        let fates = vec![Fate::CutWhenQuiet(Duration::from_millis(limit)); 1000];
        let mut world = World::new(limit, fates);
        world.run(Duration::from_secs(120), false);
        let settled = world.attempts.len();
        world.run(Duration::from_secs(120), false);
        assert_eq!(world.attempts.len(), settled, "{limit}: {:?}", world.attempts);
        assert_eq!(world.machine.connector().rung(), Rung::WebSocket);
    }
}

#[test]
fn an_outage_of_an_hour_costs_few_attempts() {
    let mut world = World::new(3, vec![Fate::Unreachable; 10_000]);
    world.run(Duration::from_secs(3600), false);
    assert!((100..400).contains(&world.attempts.len()), "{}", world.attempts.len());
    let mut world = World::new(4, vec![Fate::Refused(Ending::from_status(502, None)); 10_000]);
    world.run(Duration::from_secs(3600), false);
    assert!((100..400).contains(&world.attempts.len()), "{}", world.attempts.len());
}
