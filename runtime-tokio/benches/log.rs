//! What the log costs: `cargo bench -p longwire --bench log`. See `README.md` beside this file.
//!
//! It prints tables and asserts nothing about time.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a program that measures; what fails shall stop it"
)]

use longwire::hub::{Data, Filter, Log, LogConfig, PageSize, Told};
use longwire_core::log::{Pattern, Topic};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes that are allocated, as the allocator was asked for them.
static HELD: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: it only counts; everything else is the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The time that this thread has had a processor: what else runs on the machine does not count.
#[derive(Clone, Copy)]
struct Instant(Duration);

impl Instant {
    fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Self(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }

    fn elapsed(self) -> Duration {
        Self::now().0 - self.0
    }
}

/// Bytes of memory that are in use.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// What a connection reads at once.
const PAGE: PageSize = PageSize { events: 64, bytes: 64 << 10 };
const EVENTS: u64 = 1_000_000;
const TOPICS: u64 = 10_000;
const RESUMES: usize = 10_000;
const BODY: usize = 100;

fn main() {
    // `cargo test --benches` runs it too; it says that it can, and no more.
    if !std::env::args().any(|arg| arg == "--bench") {
        println!("run by: cargo bench -p longwire --bench log");
        return;
    }
    let mut rng = StdRng::seed_from_u64(4);
    // First, while nothing that was freed counts as resident.
    let log = million(&mut rng);
    events();
    resumes(&log, &mut rng);
    pages(&log);
    states(&log);
    sizes();
}

/// Everything is held: 10,000 topics `fleet/{0..999}/{0..9}`, 100 events each, and a tail of 16,384.
fn roomy() -> LogConfig {
    LogConfig {
        history_events: 1 << 20,
        history_bytes: usize::MAX >> 1,
        latest_bytes: usize::MAX >> 1,
        tail_bytes: usize::MAX >> 1,
        history_age: Duration::MAX,
        ..LogConfig::default()
    }
}

fn name(topic: u64) -> String {
    format!("fleet/{}/{}", topic / 10, topic % 10)
}

fn publish(log: &Log, name: &str) {
    let data = Data::Json(vec![b'1'; BODY].into());
    log.append(Topic::parse(name).unwrap(), None, data).unwrap();
}

fn filter(patterns: &[&str]) -> Filter {
    patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect()
}

/// What an event takes, in each of the places that hold it.
fn events() {
    println!("## Memory of an event with a body of {BODY} bytes\n");
    println!("| held in | bytes allocated | bytes charged |\n|---|---|---|");
    let small = LogConfig { history_events: 0, tail_events: 1, ..roomy() };
    let count = 200_000;
    let per = |config: LogConfig, what: &str| {
        let before = HELD.load(Ordering::Relaxed);
        let log = Log::new(config, 1);
        let names: Vec<_> = (0..100).map(name).collect();
        for n in 0..count {
            publish(&log, &names[n % names.len()]);
        }
        let held = HELD.load(Ordering::Relaxed) - before;
        let stats = log.stats();
        let charged = stats.tail_bytes + stats.history_bytes + stats.latest_bytes;
        println!("| {what} | {} | {} |", held / count, charged / count);
        black_box(log);
    };
    per(LogConfig { history_events: 1 << 20, ..small.clone() }, "history");
    per(LogConfig { tail_events: 1 << 20, ..small.clone() }, "tail");
    per(LogConfig { tail_events: 1 << 20, history_events: 1 << 20, ..small.clone() }, "tail and history");
    let before = HELD.load(Ordering::Relaxed);
    let log = Log::new(LogConfig { max_topics: count, max_keys: count, ..small }, 1);
    (0..count as u64).for_each(|topic| publish(&log, &name(topic)));
    let held = (HELD.load(Ordering::Relaxed) - before) / count;
    println!("| latest, with a topic of its own | {held} | {} |\n", log.stats().latest_bytes / count);
}

fn million(rng: &mut StdRng) -> Log {
    println!("## Append\n\n| log | ns an event |\n|---|---|");
    let names: Vec<_> = (0..TOPICS).map(name).collect();
    let before = resident();
    let log = Log::new(roomy(), 1);
    let begin = Instant::now();
    for _ in 0..EVENTS {
        publish(&log, &names[rng.random_range(0..names.len())]);
    }
    println!(
        "| grows to {EVENTS} events of {TOPICS} topics | {} |",
        begin.elapsed().as_nanos() / u128::from(EVENTS)
    );
    let held = (resident() - before) as u64 / EVENTS;
    let full = Log::new(LogConfig { history_age: Duration::from_secs(3600), ..LogConfig::default() }, 1);
    let turn = |log: &Log, rng: &mut StdRng, events: u64| {
        let begin = Instant::now();
        for _ in 0..events {
            publish(log, &names[rng.random_range(0..names.len())]);
        }
        begin.elapsed().as_nanos() / u128::from(events)
    };
    turn(&full, rng, 400_000);
    println!("| default bounds, full: each event pushes others out | {} |", turn(&full, rng, 400_000));
    let stats = log.stats();
    let charged = (stats.history_bytes + stats.latest_bytes + stats.tail_bytes) as u64 / EVENTS;
    println!("\nThe log of a million holds {} events.", stats.history_events);
    println!("Per event {held} bytes of memory are resident, and {charged} are charged.\n");
    log
}

/// The patterns of one subscription, by a random number.
type Patterns<'a> = &'a dyn Fn(u64) -> Vec<String>;

/// Each resume reads ten events from a random place, to where the tenth that matches is.
fn resumes(log: &Log, rng: &mut StdRng) {
    println!("## {RESUMES} resumes of 10 events each, from a log of {EVENTS}\n");
    println!("| pattern | topics that match | cursor | events | all, ms | one, us | slowest, us |");
    println!("|---|---|---|---|---|---|---|");
    let tail = EVENTS - 16_384;
    let kinds: [(&str, u64, Patterns<'_>); 5] = [
        ("`fleet/7/3`", 1, &|n| vec![name(n % TOPICS)]),
        ("ten topics by name", 10, &|n| (0..10).map(|i| name((n + i * 977) % TOPICS)).collect()),
        ("`fleet/7/*`", 10, &|n| vec![format!("fleet/{}/*", n % 1000)]),
        ("`fleet/*/3`", 1000, &|n| vec![format!("fleet/*/{}", n % 10)]),
        ("`**`", TOPICS, &|_| vec!["**".to_owned()]),
    ];
    for (what, matching, patterns) in kinds {
        for (place, low, high) in [("older than the tail", 0, tail), ("in the tail", tail, EVENTS)] {
            // So far back that ten follow; near the head there may be fewer.
            let work: Vec<(Filter, u64)> = (0..RESUMES)
                .map(|_| {
                    let patterns = patterns(rng.random());
                    let patterns: Vec<_> = patterns.iter().map(String::as_str).collect();
                    (filter(&patterns), rng.random_range(low..high))
                })
                .collect();
            let (mut events, mut slowest) = (0, Duration::ZERO);
            let begin = Instant::now();
            for (filter, after) in &work {
                let one = Instant::now();
                events += resume(log, filter, *after, 10);
                slowest = slowest.max(one.elapsed());
            }
            let all = begin.elapsed();
            println!(
                "| {what} | {matching} | {place} | {events} | {} | {:.1} | {} |",
                all.as_millis(),
                all.as_secs_f64() * 1e6 / RESUMES as f64,
                slowest.as_micros()
            );
        }
    }
    println!();
}

/// Reads up to `wanted` events; how many there were.
fn resume(log: &Log, filter: &Filter, mut after: u64, wanted: usize) -> usize {
    let mut got = 0;
    while got < wanted && after < EVENTS {
        let page =
            log.read(filter, after, u64::MAX, Told::default(), PageSize { events: wanted - got, ..PAGE });
        got += page.records.len();
        after = page.next;
        black_box(page);
    }
    got
}

/// A reader that was away for all of it.
fn pages(log: &Log) {
    println!("## Reading everything from the beginning, in pages of {} events\n", PAGE.events);
    println!("| pattern | topics | events | pages | us a page | slowest, us | ns an event |");
    println!("|---|---|---|---|---|---|---|");
    for pattern in ["fleet/7/3", "fleet/7/*", "fleet/*/3", "fleet/**", "**"] {
        let filter = filter(&[pattern]);
        let (mut after, mut pages, mut events, mut slowest) = (0, 0u32, 0, Duration::ZERO);
        let begin = Instant::now();
        while after < EVENTS {
            let one = Instant::now();
            let page = log.read(&filter, after, u64::MAX, Told::default(), PAGE);
            slowest = slowest.max(one.elapsed());
            pages += 1;
            events += page.records.len();
            after = page.next;
        }
        let all = begin.elapsed();
        let topics = (0..TOPICS).filter(|topic| filter.matches(&name(*topic))).count();
        println!(
            "| `{pattern}` | {topics} | {events} | {pages} | {:.1} | {} | {} |",
            all.as_secs_f64() * 1e6 / f64::from(pages),
            slowest.as_micros(),
            all.as_nanos() / events.max(1) as u128
        );
    }
    println!();
}

fn states(log: &Log) {
    println!("## The state (`since=latest`) of {TOPICS} topics\n\n| pattern | events | us |\n|---|---|---|");
    for pattern in ["fleet/7/3", "fleet/7/*", "fleet/*/3", "**"] {
        let filter = filter(&[pattern]);
        let (mut after, mut events) = (0, 0);
        let begin = Instant::now();
        while after < EVENTS {
            let page = log.latest(&filter, after, EVENTS, PAGE);
            events += page.records.len();
            after = page.next;
        }
        println!("| `{pattern}` | {events} | {:.1} |", begin.elapsed().as_secs_f64() * 1e6);
    }
    println!();
}

/// The same resume from logs of different sizes: what it costs does not depend on what the log holds.
fn sizes() {
    println!("## A resume of 10 events of one topic of ten thousand, by what the log holds\n");
    println!("| events held | us |\n|---|---|");
    for held in [10_000u64, 100_000, 1_000_000] {
        let log = Log::new(roomy(), 1);
        let names: Vec<_> = (0..TOPICS - 1).map(name).collect();
        for n in 0..held {
            publish(&log, if n % (held / 10) == 0 { "quiet" } else { &names[n as usize % names.len()] });
        }
        let (exact, wide) = (filter(&["quiet"]), filter(&["quiet/**"]));
        let begin = Instant::now();
        for _ in 0..1000 {
            for filter in [&exact, &wide] {
                let page = log.read(filter, 0, u64::MAX, Told::default(), PAGE);
                assert_eq!((page.records.len(), page.next), (10, held));
            }
        }
        println!("| {held} | {:.1} |", begin.elapsed().as_secs_f64() * 1e6 / 2000.0);
    }
}
