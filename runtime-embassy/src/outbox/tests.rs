use super::log::MAX_IN_FLIGHT;
use super::ring::MAX_SKIPPED;
use super::*;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use proptest::prelude::*;
use std::string::String;
use std::vec::Vec;

/// Room for six readings of the topic `a` with a small value.
type Small = Outbox<NoopRawMutex, 64>;

impl<const BYTES: usize> Outbox<NoopRawMutex, BYTES> {
    fn report(&self, topic: &str, value: u32) -> Result<(), ReportError> {
        self.reporter().try_report(topic, None, &value)
    }
}

/// Sends the next reading: its number, topic and value.
fn send(outbox: &impl Source, max_in_flight: u64) -> Option<(u64, String, u32)> {
    let mut sent = None;
    let sending = outbox.send_next(max_in_flight, |n, reading| {
        sent = Some((n, reading.topic.into(), minicbor::decode::<u32>(reading.data).unwrap()));
        Ok::<(), ()>(())
    });
    assert_eq!(sending.is_some(), sent.is_some());
    sent
}

fn add_up(counts: &Counts) -> bool {
    counts.reported == counts.acknowledged + counts.lost() + counts.waiting
}

#[test]
fn readings_leave_in_order_and_stay_until_acknowledged() {
    let outbox = Outbox::<NoopRawMutex, 128>::new(Policy::DropNewest);
    for value in 1..=3u32 {
        outbox.report("a/b", value).unwrap();
    }
    assert_eq!(send(&outbox, 9), Some((1, "a/b".into(), 1)));
    assert_eq!(send(&outbox, 9), Some((2, "a/b".into(), 2)));
    outbox.acknowledge(1);
    assert_eq!(outbox.counts(), Counts { reported: 3, acknowledged: 1, waiting: 2, ..Counts::default() });
    // The connection was cut: what was not acknowledged is sent again, under the same numbers.
    outbox.rewind();
    assert_eq!(send(&outbox, 9), Some((2, "a/b".into(), 2)));
    assert_eq!(send(&outbox, 9), Some((3, "a/b".into(), 3)));
    assert_eq!(send(&outbox, 9), None);
    // More than was ever sent is no more than was sent.
    outbox.acknowledge(u64::MAX);
    assert_eq!(outbox.counts(), Counts { reported: 3, acknowledged: 3, ..Counts::default() });
}

/// Reports while it is encoded.
struct Nested<'o>(&'o Small);

impl<C> Encode<C> for Nested<'_> {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let _ = self.0.report("b", 1);
        e.u32(self.0.counts().reported)?.ok()
    }
}

#[test]
fn a_value_that_reports_while_it_is_encoded_harms_nobody() {
    let outbox = Small::new(Policy::DropOldest);
    outbox.reporter().try_report("a", None, &Nested(&outbox)).unwrap();
    // Once, when it was counted; not while it was put.
    assert_eq!(outbox.counts(), Counts { reported: 2, waiting: 2, ..Counts::default() });
}

#[test]
fn a_key_goes_with_its_reading() {
    let outbox = Small::new(Policy::DropNewest);
    for key in [Some("k"), Some(""), None] {
        outbox.reporter().try_report("a", key, &1).unwrap();
        let seen = outbox.send_next(9, |_, reading| {
            assert_eq!(reading.key, key);
            Ok::<(), ()>(())
        });
        assert_eq!(seen, Some(Ok(())));
        outbox.acknowledge(u64::MAX);
    }
}

#[test]
fn at_most_so_many_and_half_of_the_memory_are_in_flight() {
    let outbox = Outbox::<NoopRawMutex, 1024>::new(Policy::DropNewest);
    for value in 0..80u32 {
        outbox.report("a", value).unwrap();
    }
    for _ in 0..3 {
        assert!(send(&outbox, 3).is_some());
    }
    assert_eq!(send(&outbox, 3), None);
    outbox.acknowledge(2);
    assert_eq!(send(&outbox, 3).map(|(n, ..)| n), Some(4));
    while send(&outbox, u64::MAX).is_some() {}
    assert_eq!(outbox.log.lock(|log| log.borrow().flight.len()), MAX_IN_FLIGHT);
    let outbox = Small::new(Policy::DropOldest);
    (1..=6).for_each(|value| outbox.report("a", value).unwrap());
    (1..=3).for_each(|n| assert_eq!(send(&outbox, 9).map(|(n, ..)| n), Some(n)));
    assert_eq!(send(&outbox, 9), None);
    // A reading above half of it goes alone.
    let outbox = Small::new(Policy::DropOldest);
    outbox.reporter().try_report("a", None, &*"x".repeat(50)).unwrap();
    assert_eq!(outbox.send_next(9, |n, _| Err(n)), Some(Err(1)));
}

#[test]
fn a_refused_reading_is_not_sent_again_whatever_is_acknowledged_around_it() {
    let outbox = Outbox::<NoopRawMutex, 128>::new(Policy::DropNewest);
    for value in 1..=4u32 {
        outbox.report("a", value).unwrap();
        send(&outbox, 9);
    }
    outbox.refuse(2, true);
    outbox.refuse(2, true);
    outbox.refuse(4, true);
    for nonsense in [0, 5, 33, 34, u64::MAX] {
        outbox.refuse(nonsense, true);
    }
    assert_eq!(outbox.counts(), Counts { reported: 4, refused: 2, waiting: 2, ..Counts::default() });
    outbox.rewind();
    assert_eq!(send(&outbox, 9).map(|(n, ..)| n), Some(1));
    assert_eq!(send(&outbox, 9).map(|(n, ..)| n), Some(3));
    assert_eq!(send(&outbox, 9), None);
    outbox.acknowledge(1);
    outbox.acknowledge(3);
    assert_eq!(outbox.counts(), Counts { reported: 4, acknowledged: 2, refused: 2, ..Counts::default() });
    assert_eq!(outbox.log.lock(|log| log.borrow().ring.room()), 128);
}

#[test]
fn what_is_refused_for_now_is_sent_again_before_anything_new() {
    let outbox = Outbox::<NoopRawMutex, 128>::new(Policy::DropOldest);
    for value in 1..=4u32 {
        outbox.report("a", value).unwrap();
    }
    (1..=3).for_each(|n| assert_eq!(send(&outbox, 9).map(|(n, ..)| n), Some(n)));
    outbox.refuse(1, false);
    assert_eq!(send(&outbox, 9), None);
    outbox.acknowledge(3);
    assert_eq!(outbox.counts(), Counts { reported: 4, acknowledged: 2, waiting: 2, ..Counts::default() });
    assert_eq!(send(&outbox, 9), Some((1, "a".into(), 1)));
    assert_eq!(send(&outbox, 9), Some((4, "a".into(), 4)));
    outbox.acknowledge(4);
    assert_eq!(outbox.counts(), Counts { reported: 4, acknowledged: 4, ..Counts::default() });
}

#[test]
fn an_outbox_has_one_incarnation() {
    let outbox = Small::new(Policy::DropNewest);
    assert_eq!(outbox.incarnation(|| 7), Incarnation(7));
    assert_eq!(outbox.incarnation(|| 8), Incarnation(7));
}

#[test]
fn what_can_never_be_sent_is_given_up_in_its_turn() {
    let outbox = Small::new(Policy::DropNewest);
    for (topic, value) in [("a", 1), ("b", 2), ("c", 3)] {
        outbox.report(topic, value).unwrap();
    }
    send(&outbox, 9);
    outbox.give_up_next();
    assert_eq!(send(&outbox, 9), Some((3, "c".into(), 3)));
    outbox.acknowledge(1);
    let counts = Counts { reported: 3, acknowledged: 1, too_large: 1, waiting: 1, ..Counts::default() };
    assert_eq!(outbox.counts(), counts);
}

#[test]
fn limits() {
    let outbox = Small::new(Policy::DropNewest);
    let long = "k".repeat(129);
    let report = |key, text: &str| outbox.reporter().try_report("a", key, text);
    assert_eq!(outbox.report("a//b", 1), Err(ReportError::BadTopic));
    assert_eq!(outbox.report("a/*", 1), Err(ReportError::BadTopic));
    assert_eq!(report(Some("\n"), "x"), Err(ReportError::BadKey));
    assert_eq!(report(Some(&long), "x"), Err(ReportError::BadKey));
    assert_eq!(outbox.counts(), Counts::default());
    // 64 bytes: a header of 8, a topic of 1, a text of 53 behind its own header of 2.
    let text = "x".repeat(54);
    assert_eq!(report(None, &text[..54]), Err(ReportError::TooLarge));
    assert_eq!(report(None, &text[..53]), Ok(()));
    assert_eq!(outbox.report("a", 1), Err(ReportError::Full));
    let counts = Counts { reported: 3, too_large: 1, dropped_newest: 1, waiting: 1, ..Counts::default() };
    assert_eq!(outbox.counts(), counts);
}

const MIXED: &[(&str, Policy)] =
    &[("keep/*", Policy::DropNewest), ("last/*", Policy::Conflate), ("a**", Policy::DropNewest)];

#[test]
fn each_topic_has_the_policy_of_the_first_pattern_that_matches() {
    let outbox = Small::new(Policy::DropOldest);
    outbox.set_policies(MIXED, Policy::DropOldest);
    for (topic, policy) in [
        ("keep/a", Policy::DropNewest),
        ("keep/a/b", Policy::DropOldest),
        ("last/a", Policy::Conflate),
        ("a", Policy::DropOldest),
    ] {
        assert_eq!(outbox.policy_of(topic), Ok(policy), "{topic}");
    }
}

#[test]
fn what_waits_gets_the_policies_that_are_set_later() {
    // Readings of ten bytes; the oldest is not at the beginning of the memory.
    let outbox = Outbox::<NoopRawMutex, 40>::new(Policy::DropOldest);
    for (topic, value) in [("x", 1), ("k", 2), ("a", 3), ("k", 4)] {
        outbox.report(topic, value).unwrap();
    }
    assert_eq!(send(&outbox, 9), Some((1, "x".into(), 1)));
    outbox.acknowledge(1);
    outbox.set_policies(&[("k", Policy::DropNewest)], Policy::DropOldest);
    // Those that may go, though they are not the oldest.
    for value in 5..8 {
        outbox.report("a", value).unwrap();
    }
    let mut sent = Vec::new();
    while let Some((n, _, value)) = send(&outbox, 9) {
        outbox.acknowledge(n);
        sent.push((n, value));
    }
    assert_eq!(sent, [(2, 2), (4, 4), (6, 6), (7, 7)]);
}

#[test]
fn the_oldest_that_may_go_makes_room() {
    // Six readings of ten bytes.
    let outbox = Outbox::<NoopRawMutex, 60>::new(Policy::DropOldest);
    outbox.set_policies(&[("k", Policy::DropNewest)], Policy::DropOldest);
    for (topic, value) in [("a", 1), ("k", 2), ("b", 3), ("k", 4), ("c", 5), ("d", 6)] {
        outbox.report(topic, value).unwrap();
    }
    assert_eq!(send(&outbox, 9), Some((1, "a".into(), 1)));
    // 1 is under way, and the others of `k` stay.
    outbox.report("e", 7).unwrap();
    outbox.report("f", 8).unwrap();
    assert_eq!(outbox.report("k", 9), Err(ReportError::Full));
    let counts =
        Counts { reported: 9, dropped_oldest: 2, dropped_newest: 1, waiting: 6, ..Counts::default() };
    assert_eq!(outbox.counts(), counts);
    let mut sent = Vec::new();
    while sent.len() < 5 {
        match send(&outbox, 9) {
            Some((n, _, value)) => sent.push((n, value)),
            None => outbox.acknowledge(u64::MAX),
        }
    }
    assert_eq!(sent, [(2, 2), (4, 4), (6, 6), (7, 7), (8, 8)]);
    // One that would not fit whatever went drops nothing.
    outbox.acknowledge(u64::MAX);
    assert_eq!(outbox.reporter().try_report("big", None, &*"x".repeat(30)), Ok(()));
    assert_eq!(outbox.reporter().try_report("k", None, &0), Ok(()));
    assert_eq!(outbox.reporter().try_report("big", None, &*"x".repeat(45)), Err(ReportError::Full));
    assert_eq!(outbox.counts().dropped_oldest, counts.dropped_oldest);
    assert!(add_up(&outbox.counts()));
}

#[test]
fn conflation_keeps_the_newest_of_each_topic_and_key_that_was_not_sent() {
    let outbox = Outbox::<NoopRawMutex, 256>::new(Policy::Conflate);
    let report = |topic, key, value: u32| outbox.reporter().try_report(topic, key, &value).unwrap();
    report("a", None, 1);
    assert_eq!(send(&outbox, 9), Some((1, "a".into(), 1)));
    for value in 2..100 {
        report("a", None, value);
        report("a", Some("k"), value);
        report("b", None, value);
    }
    let counts = Counts { reported: 1 + 98 * 3, conflated: 97 * 3, waiting: 4, ..Counts::default() };
    assert_eq!(outbox.counts(), counts);
    // Hundreds of numbers are skipped: nothing goes before what is under way was answered.
    assert_eq!(send(&outbox, 9), None);
    outbox.acknowledge(1);
    for n in 0..3 {
        assert_eq!(send(&outbox, 9).map(|(n, _, value)| (n, value)), Some((293 + n, 99)));
    }
    outbox.acknowledge(u64::MAX);
    assert_eq!(outbox.counts(), Counts { acknowledged: 4, waiting: 0, ..counts });
}

/// As if so many readings had been taken and dropped.
fn skip<const BYTES: usize>(outbox: &Outbox<NoopRawMutex, BYTES>, numbers: u64) {
    outbox.log.lock(|log| log.borrow_mut().newest += numbers);
}

#[test]
fn a_cut_may_last_as_long_as_it_likes() {
    const MANY: u64 = MAX_SKIPPED as u64 - 10;
    for policy in [Policy::Conflate, Policy::DropOldest] {
        // Room for three readings of 14 bytes.
        let outbox = Outbox::<NoopRawMutex, 42>::new(policy);
        for value in 1_000_000..1_000_100 {
            outbox.report("a", value).unwrap();
            skip(&outbox, MANY);
            outbox.report("b", value).unwrap();
        }
        let newest = 100 * (MANY + 2);
        assert_eq!(outbox.log.lock(|log| log.borrow().newest), newest);
        let before = outbox.counts();
        assert!(before.reported == 200 && add_up(&before), "{before:?}");
        let mut sent = Vec::new();
        while let Some((n, topic, _)) = send(&outbox, 9) {
            sent.push((n, topic));
            outbox.acknowledge(n);
        }
        let last_two = [(newest - MANY - 1, String::from("a")), (newest, "b".into())];
        assert_eq!(sent[sent.len() - 2..], last_two, "{policy:?}");
        assert_eq!(outbox.counts().waiting, 0);
    }
}

#[test]
fn behind_a_reading_that_stays_a_billion_others_may_go() {
    let outbox = Outbox::<NoopRawMutex, 64>::new(Policy::Conflate);
    outbox.report("a", 1).unwrap();
    assert_eq!(send(&outbox, 9), Some((1, "a".into(), 1)));
    outbox.report("a", 2).unwrap();
    skip(&outbox, u64::from(MAX_SKIPPED) - 1);
    outbox.report("a", 3).unwrap();
    assert_eq!(outbox.report("b", 4), Ok(()));
    // One too many; what is there stays.
    skip(&outbox, 1 << 30);
    assert_eq!(outbox.report("c", 5), Err(ReportError::Full));
    outbox.acknowledge(1);
    let n = u64::from(MAX_SKIPPED) + 2;
    assert_eq!(send(&outbox, 9), Some((n, "a".into(), 3)));
    assert_eq!(send(&outbox, 9), Some((n + 1, "b".into(), 4)));
    outbox.acknowledge(n + 1);
    outbox.report("c", 6).unwrap();
    assert_eq!(send(&outbox, 9).map(|(_, topic, value)| (topic, value)), Some(("c".into(), 6)));
}

#[test]
fn counts_are_told_once_for_each_loss() {
    let outbox = Outbox::<NoopRawMutex, 256>::new(Policy::DropOldest);
    outbox.set_policies(&[("k", Policy::DropNewest)], Policy::DropOldest);
    outbox.report_counts("device/counts");
    assert_eq!(outbox.counts(), Counts::default());
    while outbox.report("k", 1).is_ok() {}
    // No room for them, and nobody tried.
    let before = outbox.counts();
    outbox.report_counts("device/counts");
    assert_eq!(outbox.counts(), before);
    while outbox.counts().waiting > 0 {
        while send(&outbox, 99).is_some() {}
        outbox.acknowledge(u64::MAX);
    }
    outbox.report_counts("device/counts");
    let told = outbox.counts();
    assert_eq!(
        told,
        Counts { reported: told.reported, acknowledged: told.acknowledged, waiting: 1, ..before }
    );
    assert_eq!(told.reported, before.reported + 1);
    // Neither is that they replace each other.
    outbox.report_counts("device/counts");
    assert_eq!(outbox.counts(), told);
    assert_eq!(outbox.reporter().try_report("k", None, &*"x".repeat(200)), Err(ReportError::Full));
    outbox.report_counts("device/counts");
    let again = outbox.counts();
    assert_eq!((again.conflated, again.dropped_newest), (1, 2));
    outbox.report_counts("device/counts");
    assert_eq!(outbox.counts(), again);
    assert!(add_up(&again));
}

#[derive(Clone, Debug)]
enum Op {
    Report(&'static str, u32),
    Send,
    Acknowledge(u64),
    Refuse(u64, bool),
    Rewind,
}

fn op() -> impl Strategy<Value = Op> {
    let topic = prop_oneof![Just("keep/a"), Just("last/a"), Just("last/b"), Just("a")];
    prop_oneof![
        4 => (topic, any::<u32>()).prop_map(|(topic, bits)| Op::Report(topic, bits >> (bits % 32))),
        4 => Just(Op::Send),
        2 => (0..40u64).prop_map(Op::Acknowledge),
        1 => (0..40u64, any::<bool>()).prop_map(|(n, permanent)| Op::Refuse(n, permanent)),
        1 => Just(Op::Rewind),
    ]
}

/// The same with a list: every reading that was ever taken, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Waiting,
    InFlight,
    /// Refused for now.
    Again,
    Acknowledged,
    Refused,
    Dropped,
    Conflated,
}

#[derive(Clone, Debug)]
struct Taken {
    topic: &'static str,
    value: u32,
    fate: Fate,
    /// Ever, on any connection.
    sent: bool,
}

impl Taken {
    fn is_settled(&self) -> bool {
        !matches!(self.fate, Fate::Waiting | Fate::InFlight | Fate::Again)
    }

    fn is_droppable(&self) -> bool {
        !self.is_settled() && !self.sent && !self.topic.starts_with("keep")
    }

    fn len(&self) -> usize {
        8 + self.topic.len() + minicbor::len(self.value)
    }
}

#[derive(Default)]
struct Model {
    taken: Vec<Taken>,
    refused_at_the_door: u32,
}

impl Model {
    /// In memory: what is not settled, and what was sent behind the first of those.
    fn held(&self) -> impl Iterator<Item = &Taken> {
        let first = self.taken.iter().position(|taken| !taken.is_settled()).unwrap_or(self.taken.len());
        self.taken[first..].iter().filter(|taken| !matches!(taken.fate, Fate::Dropped | Fate::Conflated))
    }

    fn used(&self) -> usize {
        self.held().map(Taken::len).sum()
    }

    fn report(&mut self, topic: &'static str, value: u32, size: usize) -> bool {
        let new = Taken { topic, value, fate: Fate::Waiting, sent: false };
        let droppable: usize = self.taken.iter().filter(|taken| taken.is_droppable()).map(Taken::len).sum();
        let may = if topic.starts_with("keep") { 0 } else { droppable };
        if self.used() + new.len() > size + may {
            self.refused_at_the_door += 1;
            return false;
        }
        if topic.starts_with("last")
            && let Some(old) =
                self.taken.iter_mut().find(|taken| taken.is_droppable() && taken.topic == topic)
        {
            old.fate = Fate::Conflated;
        }
        while self.used() + new.len() > size {
            self.taken.iter_mut().find(|taken| taken.is_droppable()).unwrap().fate = Fate::Dropped;
        }
        self.taken.push(new);
        true
    }

    fn counts(&self) -> Counts {
        let count = |is: &dyn Fn(Fate) -> bool| {
            u32::try_from(self.taken.iter().filter(|taken| is(taken.fate)).count()).unwrap()
        };
        Counts {
            reported: count(&|_| true) + self.refused_at_the_door,
            acknowledged: count(&|fate| fate == Fate::Acknowledged),
            refused: count(&|fate| fate == Fate::Refused),
            too_large: 0,
            dropped_oldest: count(&|fate| fate == Fate::Dropped),
            dropped_newest: self.refused_at_the_door,
            conflated: count(&|fate| fate == Fate::Conflated),
            waiting: count(&|fate| matches!(fate, Fate::Waiting | Fate::InFlight | Fate::Again)),
        }
    }
}

proptest! {
    #[test]
    fn agrees_with_a_model(ops in prop::collection::vec(op(), 0..150)) {
        const SIZE: usize = 100;
        let outbox = Outbox::<NoopRawMutex, SIZE>::new(Policy::DropOldest);
        outbox.set_policies(MIXED, Policy::DropOldest);
        let mut model = Model::default();
        for op in ops {
            match op {
                Op::Report(topic, value) => {
                    let taken = outbox.report(topic, value).is_ok();
                    prop_assert_eq!(taken, model.report(topic, value, SIZE));
                }
                Op::Send => {
                    let owed = model.taken.iter().any(|taken| taken.fate == Fate::InFlight);
                    let again = model.taken.iter().any(|taken| taken.fate == Fate::Again);
                    if again && !owed {
                        let again = model.taken.iter_mut().filter(|taken| taken.fate == Fate::Again);
                        again.for_each(|taken| taken.fate = Fate::Waiting);
                    }
                    let next = model.taken.iter().position(|taken| taken.fate == Fate::Waiting);
                    let Some((n, topic, value)) = send(&outbox, u64::MAX) else {
                        // Half of the memory is under way, answers are owed that others wait for, or there is nothing.
                        prop_assert!(owed || next.is_none());
                        continue;
                    };
                    let at = next.unwrap();
                    prop_assert!(!(again && owed));
                    let sent = &mut model.taken[at];
                    prop_assert_eq!((n, &*topic, value), (at as u64 + 1, sent.topic, sent.value));
                    (sent.fate, sent.sent) = (Fate::InFlight, true);
                }
                Op::Acknowledge(n) => {
                    outbox.acknowledge(n);
                    let to = usize::try_from(n).unwrap().min(model.taken.len());
                    for taken in model.taken[..to].iter_mut().filter(|taken| taken.fate == Fate::InFlight) {
                        taken.fate = Fate::Acknowledged;
                    }
                }
                Op::Refuse(n, permanent) => {
                    outbox.refuse(n, permanent);
                    let at = usize::try_from(n).unwrap().checked_sub(1);
                    if let Some(taken) = at.and_then(|at| model.taken.get_mut(at))
                        && taken.fate == Fate::InFlight
                    {
                        taken.fate = if permanent { Fate::Refused } else { Fate::Again };
                    }
                }
                Op::Rewind => {
                    outbox.rewind();
                    for taken in &mut model.taken {
                        if matches!(taken.fate, Fate::InFlight | Fate::Again) {
                            taken.fate = Fate::Waiting;
                        }
                    }
                }
            }
            prop_assert_eq!(outbox.counts(), model.counts());
            prop_assert!(add_up(&outbox.counts()));
        }
    }
}
