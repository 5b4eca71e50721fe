use super::read::Effort;
use super::*;
use longwire_core::log::Pattern;
use proptest::prelude::*;
use std::time::Duration;

const SIZE: PageSize = PageSize { events: 3, bytes: 1 << 20 };

fn publish(log: &Log, topic: &str, key: Option<&str>, len: usize) -> Result<u64, AppendError> {
    let data = Data::opaque("", vec![0; len].into()).unwrap();
    log.append(Topic::parse(topic).unwrap(), key.map(|key| Key::parse(key).unwrap()), data)
}

fn filter(patterns: &[&str]) -> Filter {
    patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect()
}

/// Reads to the head, page by page, as a reader does.
fn read_all(log: &Log, filter: &Filter, after: u64) -> (Vec<u64>, Option<u64>) {
    let (mut got, mut position, mut told) = (Vec::new(), after, Told::default());
    loop {
        let page = log.read(filter, position, u64::MAX, told, SIZE);
        if let Some(gap) = page.gap {
            assert_eq!(gap.from, position);
            assert!(gap.to > told.to, "a gap is told once");
        }
        told = page.told;
        got.extend(page.records.iter().map(|record| record.event.seq));
        if page.next >= log.head() {
            return (got, (told.to > 0).then_some(told.to));
        }
        assert!(page.next > position || !page.records.is_empty() || page.gap.is_some(), "no progress");
        position = page.next;
    }
}

proptest! {
    /// Whatever was evicted: a reader gets what matches, in order and once, and is told a gap exactly when
    /// something that matches is missing, up to the last that is.
    #[test]
    fn what_is_not_delivered_is_told(
        events in prop::collection::vec((0..5usize, 0..400usize), 1..200),
        tail_events in 1..40usize,
        tail_bytes in 1..20_000usize,
        history_events in 0..30usize,
        history_bytes in 0..20_000usize,
        after in 0..200u64,
        pattern in prop::sample::select(vec!["**", "a", "b/*", "b/x", "c/**"]),
    ) {
        let topics = ["a", "b/x", "b/y", "c", "c/d/e"];
        let log = Log::new(
            LogConfig { tail_events, tail_bytes, history_events, history_bytes, ..LogConfig::default() }, 1);
        let filter = filter(&[pattern]);
        let mut wanted = Vec::new();
        for (seq, (topic, len)) in (1..).zip(&events) {
            prop_assert_eq!(publish(&log, topics[*topic], None, *len), Ok(seq));
            if seq > after && filter.matches(topics[*topic]) {
                wanted.push(seq);
            }
        }
        let (got, told) = read_all(&log, &filter, after.min(log.head()));
        prop_assert!(got.is_sorted_by(|a, b| a < b));
        prop_assert!(got.iter().all(|seq| wanted.contains(seq)));
        let missing = wanted.iter().filter(|seq| !got.contains(seq)).max().copied();
        prop_assert_eq!(told, missing);
        let stats = log.stats();
        let half: Vec<_> = log.lock().tail.since(log.half()).cloned().collect();
        prop_assert_eq!(half.len() as u64, log.head() - log.half());
        let bytes: usize = half.iter().map(Record::cost).sum();
        prop_assert!(half.len() == 1 || half.len() <= tail_events / 2 && bytes <= tail_bytes / 2);
        prop_assert!(stats.tail_events == 1 || stats.tail_bytes <= tail_bytes);
        prop_assert!(stats.tail_events <= tail_events);
        prop_assert!(stats.history_bytes <= history_bytes);
    }
}

proptest! {
    /// Along the topics, along the positions, or first one and then the other: a reader gets the same.
    #[test]
    fn every_way_to_find_a_page_leads_to_the_same(
        events in prop::collection::vec((0..40usize, 0..50usize), 1..300),
        tail_events in 1..100usize,
        history_events in 0..20usize,
        after in 0..300u64,
        pattern in prop::sample::select(vec!["**", "a/*", "*/3", "b/**", "*/1/*"]),
    ) {
        let log = Log::new(LogConfig { tail_events, history_events, ..LogConfig::default() }, 1);
        for (topic, len) in events {
            let first = ["a", "b", "c", "a/1"][topic % 4];
            publish(&log, &format!("{first}/{}", topic / 4), None, len).unwrap();
        }
        let filter = filter(&[pattern]);
        let after = after.min(log.head());
        let ways = [(0, 1, 0, 1), (0, 2, 99, 1), (99, 0, 0, 0), (3, 0, 9, 7), (0, 999, 0, 0)];
        let read = |(few, skim, many, scan)| {
            log.lock().effort = Effort::of(few, skim, many, scan);
            let mut state = (Vec::new(), after);
            while state.1 < log.head() {
                let page = log.latest(&filter, state.1, log.head(), SIZE);
                assert!(page.next > state.1);
                state.1 = page.next;
                state.0.extend(page.records.iter().map(|record| record.event.seq));
            }
            (read_all(&log, &filter, after), state.0)
        };
        let all = ways.map(read);
        prop_assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    }
}

#[test]
fn a_noisy_topic_evicts_its_own_past_only() {
    let log = Log::new(LogConfig { history_bytes: 20_000, tail_events: 1, ..LogConfig::default() }, 1);
    for _ in 0..10 {
        publish(&log, "quiet", None, 10).unwrap();
    }
    for _ in 0..1000 {
        publish(&log, "noisy", None, 100).unwrap();
    }
    let (got, told) = read_all(&log, &filter(&["quiet"]), 0);
    assert_eq!((got.len(), told), (10, None));
    let (got, told) = read_all(&log, &filter(&["noisy"]), 0);
    assert!(got.len() > 50 && told.is_some(), "{} {told:?}", got.len());
}

#[test]
fn a_gap_ends_where_the_reading_does() {
    let log = Log::new(LogConfig { tail_events: 1, history_events: 2, ..LogConfig::default() }, 1);
    for _ in 0..10 {
        publish(&log, "a", None, 1).unwrap();
    }
    let page = log.read(&filter(&["a"]), 2, 5, Told::default(), SIZE);
    assert_eq!((page.gap, page.next), (Some(Gap { from: 2, to: 5, skipped: Some(3) }), 5));
    let page = log.read(&filter(&["a"]), 5, u64::MAX, Told::default(), SIZE);
    assert_eq!((page.gap, page.next), (Some(Gap { from: 5, to: 8, skipped: Some(3) }), 10));
    assert_eq!(page.records.iter().map(|record| record.event.seq).collect::<Vec<_>>(), [9, 10]);
    assert_eq!(log.read(&filter(&["a"]), u64::MAX, u64::MAX, Told::default(), SIZE).next, u64::MAX);
}

#[test]
fn a_window_has_its_end_in_events_and_in_bytes() {
    let log = Log::new(LogConfig::default(), 1);
    for len in [10, 10, 10, 50, 10, 10] {
        publish(&log, "a", None, len).unwrap();
    }
    let window = |after, events, bytes| {
        let mut records = Vec::new();
        log.tail(after, PageSize { events, bytes }, &mut records).unwrap();
        records.iter().map(|record| record.event.seq).collect::<Vec<_>>()
    };
    assert_eq!(window(0, 2, 100), [1, 2]);
    assert_eq!(window(0, 9, 35), [1, 2, 3]);
    assert_eq!(window(3, 9, 35), [4]);
    assert_eq!(window(4, 9, 35), [5, 6]);
    assert!(window(6, 9, 35).is_empty());
}

#[test]
fn every_table_has_its_end() {
    let config = LogConfig { max_topics: 2, max_keys: 3, latest_bytes: 2_000, ..LogConfig::default() };
    let log = Log::new(config, 1);
    publish(&log, "a", None, 1).unwrap();
    publish(&log, "b", None, 1).unwrap();
    assert_eq!(publish(&log, "c", None, 1), Err(AppendError::Topics));
    publish(&log, "b", Some("k"), 1).unwrap();
    assert_eq!(publish(&log, "b", Some("l"), 1), Err(AppendError::Keys));
    assert_eq!(publish(&log, "b", Some("k"), 2_000), Err(AppendError::LatestBytes));
    // What was refused left no trace, and what replaces its like is taken.
    assert_eq!(publish(&log, "b", Some("k"), 1_000), Ok(4));
    assert_eq!(publish(&log, "b", Some("k"), 1_001), Ok(5));
    assert_eq!((log.stats().keys, log.stats().topics, log.head()), (3, 2, 5));
}

#[test]
fn the_state_comes_in_pages_and_skips_what_was_superseded() {
    let log = Log::new(LogConfig::default(), 1);
    for n in 0..10 {
        publish(&log, "a", Some(&n.to_string()), 1).unwrap();
    }
    publish(&log, "a", Some("3"), 1).unwrap();
    publish(&log, "b", None, 1).unwrap();
    let (mut got, mut after) = (Vec::new(), 0);
    while after < log.head() {
        let page = log.latest(&filter(&["a"]), after, log.head(), SIZE);
        got.extend(page.records.iter().map(|record| record.event.seq));
        after = page.next;
    }
    assert_eq!(got, [1, 2, 3, 5, 6, 7, 8, 9, 10, 11]);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_gone_but_the_latest_stays() {
    let log = Log::new(LogConfig { tail_events: 1, ..LogConfig::default() }, 1);
    publish(&log, "a", None, 1).unwrap();
    publish(&log, "a", None, 1).unwrap();
    tokio::time::advance(Duration::from_secs(3601)).await;
    publish(&log, "b", None, 1).unwrap();
    for _ in 0..2 {
        assert_eq!(read_all(&log, &filter(&["a"]), 0), (vec![], Some(2)));
        log.sweep();
    }
    assert_eq!(log.latest(&filter(&["a"]), 0, 3, SIZE).records.len(), 1);
    assert_eq!(log.stats().evicted, 2);
}

#[test]
fn a_loss_that_is_no_longer_remembered_is_told_without_a_number() {
    let log = Log::new(LogConfig { tail_events: 1, history_events: 2, ..LogConfig::default() }, 1);
    let (everything, filter) = (filter(&["**", "a"]), filter(&["a"]));
    for _ in 0..REMEMBERED as u64 + 10 {
        publish(&log, "a", None, 1).unwrap();
    }
    // 8 of them are lost beyond those remembered.
    let gap = |after, until| {
        log.read(&filter, after, until, Told::default(), SIZE).gap.map(|gap| (gap.to, gap.skipped))
    };
    let lost = REMEMBERED as u64 + 8;
    let count = |filter, after| log.count(filter, after, lost, Told::default());
    assert_eq!(gap(8, u64::MAX), Some((lost, Some(lost - 8))));
    assert_eq!(gap(7, u64::MAX), Some((lost, None)));
    assert_eq!((count(&filter, 8), count(&filter, 7)), (Some(lost - 8), None));
    // A stretch that ends before what is remembered: there may have been one anywhere, and there was.
    assert_eq!((gap(0, 5), gap(0, 20), gap(lost, u64::MAX)), (Some((5, None)), Some((20, None)), None));
    assert_eq!(count(&everything, 0), Some(lost));
}

#[test]
fn the_coldest_topic_makes_room_and_whoever_may_have_missed_it_is_told() {
    let config =
        LogConfig { max_topics: 2, tail_events: 1, topics_full: TopicsFull::Forget, ..LogConfig::default() };
    let log = Log::new(config, 1);
    for topic in ["x/a", "y/b", "x/a", "z/c"] {
        publish(&log, topic, None, 1).unwrap();
    }
    // y/b was the coldest: its event at 2 is gone.
    let told = |pattern| read_all(&log, &filter(&[pattern]), 0);
    assert_eq!(told("y/b"), (vec![], Some(2)));
    assert_eq!(told("y/*"), (vec![], Some(2)));
    assert_eq!(told("**"), (vec![1, 3, 4], Some(2)));
    assert_eq!(told("x/*"), (vec![1, 3], None));
    assert_eq!(log.latest(&filter(&["**"]), 0, 4, SIZE).records.len(), 2);
    let stats = log.stats();
    assert_eq!((stats.topics, stats.keys, stats.forgotten, stats.latest_dropped), (2, 2, 1, 1));
    // What is forgotten and comes again does not pretend to be whole.
    publish(&log, "y/b", None, 1).unwrap();
    assert_eq!(told("y/b"), (vec![5], Some(3)), "x/a was the coldest by then, and was forgotten at 3");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_died_is_forgotten() {
    let hour = Duration::from_secs(3600);
    let config = LogConfig { max_topics: 2, latest_age: 3 * hour, ..LogConfig::default() };
    let log = Log::new(config, 1);
    publish(&log, "dead", None, 1).unwrap();
    publish(&log, "alive", None, 1).unwrap();
    tokio::time::advance(2 * hour).await;
    publish(&log, "alive", None, 1).unwrap();
    assert_eq!(publish(&log, "new", None, 1), Err(AppendError::Topics), "its latest is still there");
    tokio::time::advance(2 * hour).await;
    // Without a sweep: an append looks, too.
    assert_eq!(publish(&log, "new", None, 1), Ok(4));
    assert_eq!(log.latest(&filter(&["dead"]), 0, 4, SIZE).records.len(), 0);
    assert_eq!((read_all(&log, &filter(&["dead"]), 0), log.stats().forgotten), ((vec![], Some(1)), 1));
}

#[test]
fn an_event_that_fits_nowhere_is_refused_even_if_everything_may_be_forgotten() {
    let config = LogConfig { latest_bytes: 2_000, topics_full: TopicsFull::Forget, ..LogConfig::default() };
    let log = Log::new(config, 1);
    publish(&log, "a", None, 100).unwrap();
    assert_eq!(publish(&log, "b", None, 2_000), Err(AppendError::LatestBytes));
    assert_eq!((log.stats().topics, log.stats().keys), (1, 1));
    publish(&log, "b", None, 1_700).unwrap();
    assert_eq!((log.stats().topics, log.stats().keys), (2, 1), "the state of a made room, its past is there");
    assert!(log.lock().topics.get(0).is_some_and(|a| a.keys.is_empty()), "its key is left behind");
    assert_eq!(read_all(&log, &filter(&["a"]), 0), (vec![1], None));
}

/// What a page may cost: see [`Page::steps`].
const MAX_STEPS: usize = 70_000;

/// Nothing of it ever matches, and every level has to be looked into.
fn nowhere() -> Filter {
    let texts: Vec<_> = (0..64).map(|n| format!("*/q{n}")).collect();
    filter(&texts.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn what_a_page_costs_does_not_grow_with_topics_patterns_and_losses() {
    let log = Log::new(LogConfig { tail_events: 1, history_events: 1, ..LogConfig::default() }, 1);
    for topic in 0..9_900 {
        publish(&log, &format!("t{topic}/x"), None, 1).unwrap();
    }
    for _ in 0..100 {
        publish(&log, "noisy/x", None, 1).unwrap();
    }
    let cost = |filter: &Filter, exact: bool| {
        let (mut at, mut told, mut gaps) = (1, Told::default(), 0);
        while at < log.head() {
            let page = log.read(filter, at, u64::MAX, told, SIZE);
            assert!(page.steps > 0 && page.steps <= MAX_STEPS, "{} steps", page.steps);
            gaps += usize::from(page.gap.is_some());
            (at, told) = (page.next.max(at + 400), page.told);
        }
        assert!(gaps <= usize::from(!exact), "{gaps} gaps of what lost nothing");
    };
    // One topic has lost something, and it is known that it matches nothing.
    cost(&nowhere(), true);
    cost(&filter(&["*/q"]), true);
    // All have: nobody is kept waiting to find out which.
    for topic in 0..9_900 {
        publish(&log, &format!("t{topic}/x"), None, 1).unwrap();
    }
    cost(&nowhere(), false);
    // One pattern can always be followed; what is found at once is never in doubt.
    cost(&filter(&["t7/q"]), true);
    let page = log.read(&filter(&["*/x"]), 1, u64::MAX, Told::default(), SIZE);
    assert_eq!((page.gap.map(|gap| (gap.from, gap.to)), page.steps <= MAX_STEPS), (Some((1, 9_999)), true));
}

#[test]
fn what_is_lost_in_a_gap_that_was_told_is_told_as_well() {
    let log = Log::new(LogConfig { tail_events: 1, history_events: 30, ..LogConfig::default() }, 1);
    let both = filter(&["slow", "fast"]);
    let publish_both = |slow, fast| {
        for _ in 0..slow {
            publish(&log, "slow", None, 1).unwrap();
        }
        for _ in 0..fast {
            publish(&log, "fast", None, 1).unwrap();
        }
    };
    publish_both(30, 90);
    let all = PageSize { events: 10, bytes: 1 << 20 };
    let first = log.read(&both, 0, u64::MAX, Told::default(), all);
    assert_eq!((first.gap, first.next), (Some(Gap { from: 0, to: 90, skipped: Some(60) }), 10));
    // The slow one now loses all that the reader has not come to.
    publish_both(30, 1);
    let second = log.read(&both, first.next, u64::MAX, first.told, all);
    // 20 of the slow one, and one of the fast one, which is the last.
    assert_eq!(second.gap, Some(Gap { from: 10, to: 91, skipped: Some(21) }));
    assert_eq!(
        log.count(&both, second.next, 151, second.told),
        Some(50),
        "what was told is not counted again"
    );
    let (mut position, mut told, mut sum) = (second.next, second.told, 60 + 21 + 20);
    for more in [1, 2, 0, 0, 0, 0] {
        publish_both(more, 0);
        let page = log.read(&both, position, u64::MAX, told, all);
        sum += page.gap.map_or(0, |gap| gap.skipped.unwrap()) + page.records.len() as u64;
        (position, told) = (page.next, page.told);
    }
    assert_eq!((sum, position), (log.head(), log.head()), "all of it came or was told, and nothing twice");
}
