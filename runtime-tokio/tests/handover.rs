//! Publishers and shards never wait for each other in vain: every interleaving of their hand-over, walked through by
//! loom, which fails a thread that is left waiting for good.
//!
//! `hub/handover.rs` is compiled here once more, over a model of the atomics and of tokio's `Notify`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, and that is what it is for"
)]

#[path = "../src/hub/handover.rs"]
mod handover;

/// The model.
mod sync {
    use loom::sync::{Condvar, Mutex};
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    pub(super) use loom::sync::atomic::{AtomicBool, Ordering, fence};

    /// `tokio::sync::Notify`, as its documentation has it: a permit for one, a signal for all who began to wait.
    #[derive(Debug, Default)]
    pub(super) struct Notify {
        state: Mutex<State>,
        changed: Condvar,
    }

    #[derive(Debug, Default)]
    struct State {
        permit: bool,
        signals: u64,
    }

    pub(super) struct Notified<'n> {
        notify: &'n Notify,
        since: Option<u64>,
    }

    impl Notify {
        pub(super) fn notify_one(&self) {
            self.state.lock().unwrap().permit = true;
            self.changed.notify_all();
        }

        pub(super) fn notify_waiters(&self) {
            self.state.lock().unwrap().signals += 1;
            self.changed.notify_all();
        }

        pub(super) fn notified(&self) -> Notified<'_> {
            Notified { notify: self, since: None }
        }
    }

    impl Notified<'_> {
        /// From here on a signal is for this one, too.
        pub(super) fn enable(mut self: Pin<&mut Self>) {
            self.since = Some(self.notify.state.lock().unwrap().signals);
        }
    }

    impl Future for Notified<'_> {
        type Output = ();

        /// Blocks the thread, which loom sees.
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            let mut state = self.notify.state.lock().unwrap();
            let since = self.since.unwrap_or(state.signals);
            while !state.permit && state.signals == since {
                state = self.notify.changed.wait(state).unwrap();
            }
            state.permit = false;
            Poll::Ready(())
        }
    }
}

use futures_util::FutureExt;
use handover::{Flag, Gate};
use loom::sync::Mutex;
use loom::sync::atomic::AtomicU64;
use loom::thread;
use std::sync::Arc;
use sync::Ordering;

/// A log and its shards, as far as the hand-over goes.
struct Hub {
    /// Which publisher, at each position from 1.
    log: Mutex<Vec<u64>>,
    head: AtomicU64,
    shards: Vec<Shard>,
    gate: Gate,
    /// How far a shard may be behind before publishers wait.
    room: u64,
}

#[derive(Default)]
struct Shard {
    flag: Flag,
    position: AtomicU64,
}

impl Hub {
    fn new(shards: usize, room: u64) -> Arc<Self> {
        Arc::new(Self {
            log: Mutex::default(),
            head: AtomicU64::new(0),
            shards: (0..shards).map(|_| Shard::default()).collect(),
            gate: Gate::default(),
            room,
        })
    }

    fn is_behind(&self) -> bool {
        let position = self.shards.iter().map(|shard| shard.position.load(Ordering::SeqCst)).min().unwrap();
        position + self.room < self.head.load(Ordering::Acquire)
    }

    /// As `Log::append` and `Shared::append`.
    fn publish(&self, publisher: u64) {
        self.gate.pass(|| self.is_behind()).now_or_never().expect("the model blocks instead");
        let mut log = self.log.lock().unwrap();
        log.push(publisher);
        self.head.store(log.len() as u64, Ordering::Release);
        drop(log);
        self.shards.iter().for_each(|shard| shard.flag.raise());
    }

    /// As `Shard::run`, until `events` were delivered: what a reader of this shard gets.
    fn deliver(&self, shard: usize, events: usize) -> Vec<u64> {
        let shard = &self.shards[shard];
        let mut got = Vec::new();
        while got.len() < events {
            shard.flag.lower().now_or_never().expect("the model blocks instead");
            loop {
                let window = self.log.lock().unwrap()[got.len()..].to_vec();
                if window.is_empty() {
                    break;
                }
                got.extend(window);
                shard.position.store(got.len() as u64, Ordering::SeqCst);
                self.gate.open(|| self.is_behind());
            }
        }
        got
    }
}

/// Each of the shards' readers gets every event, in one and the same order, which keeps that of each publisher.
fn story(shards: usize, publishers: u64, each: u64, room: u64) {
    let mut model = loom::model::Builder::new();
    // Enough to find what goes wrong with few switches, and finite.
    model.preemption_bound = Some(2);
    model.check(move || {
        let hub = Hub::new(shards, room);
        let events = usize::try_from(publishers * each).unwrap();
        let delivering: Vec<_> = (0..shards)
            .map(|shard| {
                let hub = Arc::clone(&hub);
                thread::spawn(move || hub.deliver(shard, events))
            })
            .collect();
        let publishing: Vec<_> = (1..publishers)
            .map(|publisher| {
                let hub = Arc::clone(&hub);
                thread::spawn(move || (0..each).for_each(|_| hub.publish(publisher)))
            })
            .collect();
        (0..each).for_each(|_| hub.publish(0));
        publishing.into_iter().for_each(|thread| thread.join().unwrap());
        for shard in delivering {
            assert_eq!(shard.join().unwrap(), *hub.log.lock().unwrap());
        }
    });
}

#[test]
fn an_event_that_was_flagged_is_delivered_whenever_it_comes() {
    story(1, 1, 2, u64::MAX / 2);
}

#[test]
fn two_publishers_have_one_order_on_two_shards() {
    story(2, 2, 1, u64::MAX / 2);
}

#[test]
fn a_publisher_that_waits_is_let_pass() {
    story(1, 2, 2, 0);
}

#[test]
fn a_publisher_waits_for_the_slowest_shard() {
    story(2, 1, 2, 0);
}
