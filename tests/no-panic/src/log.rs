//! Cursors, topics, patterns, keys, names of logs, rates, and the books of a reader.

use core::hint::black_box;

use longwire_core::log::{
    Account, Bucket, Cursor, Key, LogName, Pattern, PatternName, Quota, QuotaConfig, Rate, Since, Skip,
    Topic, TopicName,
};
use longwire_core::time::Instant;

use crate::{any, any_str, display, forget, show};

/// Calls everything in `log`.
pub fn all() {
    let (mut a, mut b) = ([0; 300], [0; 300]);
    let (a, b) = (any_str(&mut a), any_str(&mut b));
    cursors(a);
    names(a, b);
    rates();
    owned(a);
    books();
}

fn owned(text: &str) {
    if let (Ok(topic), Ok(pattern)) = (TopicName::parse(text), PatternName::parse(text)) {
        black_box((pattern.pattern().matches(topic.topic()), topic.holder(), topic.cmp(&topic)));
        display(&topic);
        display(&pattern);
    }
}

fn books() {
    let mut account = Account::new(any());
    for why in [Skip::Evicted, Skip::Slow, Skip::Conflated] {
        black_box((account.gap(any()), account.deliver(any())));
        account.tell(any());
        account.pass(any(), why, any::<bool>().then(any));
        black_box((account.skipped(why), account.balances(any(), any())));
    }
    black_box((account.position(), account.told(), account.delivered(), account.uncounted()));
    black_box(account);
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
