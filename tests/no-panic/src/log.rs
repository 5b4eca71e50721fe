//! Cursors, topics, patterns, keys, names of logs, rates, and the books of a reader and how far it is behind.

use core::hint::black_box;
use core::time::Duration;

use longwire_core::log::{
    Bounds, Bucket, Cursor, Distance, Key, Lag, LogName, Pattern, PatternName, Policy, Quota, QuotaConfig,
    Rate, Since, Skip, Topic, TopicName,
};
use longwire_core::time::Instant;

use crate::{any, any_str, display, forget, one_of, show};

/// Calls everything in `log`.
pub fn all() {
    let (mut a, mut b) = ([0; 300], [0; 300]);
    let (a, b) = (any_str(&mut a), any_str(&mut b));
    cursors(a);
    names(a, b);
    rates();
    readers();
}

fn cursors(text: &str) {
    match Cursor::parse(text) {
        Ok(cursor) => {
            black_box(cursor.position_in(any()));
            black_box(cursor.to_text().as_str());
            show(cursor);
        }
        Err(error) => show(error),
    }
    let cursor = Cursor { epoch: any(), seq: any() };
    show(cursor);
    match Since::parse(text) {
        Ok(since) => show(since),
        Err(error) => show(error),
    }
}

fn names(a: &str, b: &str) {
    match (Topic::parse(a), Pattern::parse(b), Pattern::parse(a)) {
        (Ok(topic), Ok(pattern), Ok(other)) => {
            black_box((topic.as_str(), topic.levels().rev().count(), pattern.as_str()));
            black_box((pattern.matches(topic), pattern.covers(other), pattern.levels().count()));
            black_box(Pattern::from(topic));
            display(topic);
            display(pattern);
        }
        (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) => show(error),
    }
    if let (Ok(topic), Ok(pattern)) = (TopicName::parse(a), PatternName::parse(b)) {
        black_box((pattern.pattern().matches(topic.topic()), topic.holder().len(), &*pattern));
    }
    if let Some((name, rest)) = LogName::of_path(a) {
        black_box((LogName::parse(name).is_ok(), rest));
    }
    match Key::parse(a) {
        Ok(key) => {
            black_box(key.as_str());
            display(key);
        }
        Err(error) => show(error),
    }
    match LogName::parse(a) {
        Ok(name) => {
            black_box(name.as_str());
            display(name);
        }
        Err(error) => show(error),
    }
    black_box(LogName::of_path(b));
}

fn rates() {
    let now = || Instant::from_millis(any());
    let (mut bucket, mut quota) = (Bucket::new(), Quota::new());
    while any() {
        let (bucket, quota) = (forget(&mut bucket), forget(&mut quota));
        let config = QuotaConfig { messages: Rate::new(any(), any()), bytes: Rate::new(any(), any()) };
        if let Some(rate) = config.bytes {
            black_box((rate.per_second(), rate.burst(), bucket.take(rate, now(), any()).is_ok()));
            black_box((bucket.level(rate, now()), bucket.pressure(rate, now()).is_some()));
        }
        black_box(quota.check(&config, now(), any()).is_ok());
        quota.spend(&config, now(), any());
        black_box(quota.pressure(&config, now()).is_some());
    }
}

fn readers() {
    let distance = || Distance { events: any(), bytes: any(), age: Duration::from_millis(any()) };
    let mut lag = Lag::default();
    while any() {
        let lag = forget(&mut lag);
        let (bounds, behind) = (Bounds { max: distance(), sure: distance() }, distance());
        black_box((behind.min(bounds.max).half(), Bounds::new(behind)));
        let policies = [Policy::DropOldest, Policy::Conflate, Policy::Disconnect, Policy::DropNewest];
        let Some(policy) = one_of(policies) else { continue };
        black_box(lag.next(policy, &bounds, behind, any()));
        black_box((bounds.presses(behind), bounds.pressure(behind, any()), behind.is_beyond(bounds.max)));
        let Some(skip) = one_of([Skip::Evicted, Skip::Slow, Skip::Conflated]) else { continue };
        lag.skip(skip, any());
        lag.conflate(any());
        lag.came();
        black_box((lag.open(), lag.settle(), lag.skipped().total()));
        lag.told();
        lag.near();
    }
}
