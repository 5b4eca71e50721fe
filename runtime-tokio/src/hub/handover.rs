//! How publishers and shards, on threads of their own, tell each other that there is something to do.
//!
//! Both halves follow one rule: *say it, then look again*. Whoever is about to rest has said so before its last look,
//! so the other side either sees that it rests, or was early enough to be seen. `tests/handover.rs` walks through all
//! interleavings of this file (with loom), which is why it takes its atomics from [`super::sync`].

use super::sync::{AtomicBool, Notify, Ordering, fence};

/// A shard's bell: rung by many, heard by one.
#[derive(Debug, Default)]
pub(super) struct Flag {
    raised: AtomicBool,
    wake: Notify,
}

impl Flag {
    /// There is something new. It was put in place before. Cheap when the shard knows already.
    pub(super) fn raise(&self) {
        if !self.raised.swap(true, Ordering::SeqCst) {
            self.wake.notify_one();
        }
    }

    /// Waits for the flag and takes it down. What there is has to be looked at after this: whatever is put in place
    /// from here on raises the flag again.
    pub(super) async fn lower(&self) {
        self.wake.notified().await;
        // A swap, not a store: it takes over from whoever raised it last, and so sees what that one put in place.
        self.raised.swap(false, Ordering::SeqCst);
    }
}

/// What publishers wait at while a shard is too far behind.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Somebody waits.
    shut: AtomicBool,
    opened: Notify,
}

impl Gate {
    /// Whether one has to wait, because it `is_behind`. Then [`open`](Self::open) wakes whoever began to wait before it
    /// asked.
    pub(super) fn is_shut(&self, is_behind: impl Fn() -> bool) -> bool {
        if !is_behind() {
            return false;
        }
        // Said before the second look: a shard that catches up in between sees that somebody waits, or is seen.
        self.shut.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        is_behind()
    }

    /// Waits until nothing is behind. Cancel-safe.
    pub(super) async fn pass(&self, is_behind: impl Fn() -> bool) {
        loop {
            let opened = self.opened.notified();
            tokio::pin!(opened);
            opened.as_mut().enable();
            if !self.is_shut(&is_behind) {
                return;
            }
            opened.await;
        }
    }

    /// A shard has caught up by some. Lets everybody pass if nothing is behind any more, and says whether it did.
    pub(super) fn open(&self, is_behind: impl Fn() -> bool) -> bool {
        // Between where the shard is now, which was said before, and the question whether somebody waits for it.
        fence(Ordering::SeqCst);
        if !self.shut.load(Ordering::Relaxed) || self.is_shut(is_behind) {
            return false;
        }
        self.shut.store(false, Ordering::Relaxed);
        self.opened.notify_waiters();
        true
    }
}
