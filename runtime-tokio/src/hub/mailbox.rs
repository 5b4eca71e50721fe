//! What other threads tell a shard, and what they know of it.

use super::handover::Flag;
use super::reader::Watch;
use super::sessions::Renewal;
use super::{Adoption, Filter, Shared};
use std::collections::{HashSet, VecDeque};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;

/// What other threads know of a shard.
#[derive(Debug, Default)]
pub(crate) struct ShardHandle {
    pub(super) flag: Flag,
    mail: Mutex<Mailbox>,
    /// Everything up to here was handed to all live readers.
    position: AtomicU64,
}

/// Bounded by what there is of readers, connections and requests, which have bounds of their own: each has at most
/// one letter that adds it, one that wakes it, and one that removes it.
#[derive(Debug, Default)]
struct Mailbox {
    letters: VecDeque<Mail>,
    /// The shard has ended, and takes nothing any more.
    closed: bool,
}

/// What a shard is told.
pub(super) enum Mail {
    Adopt(Box<Adoption>),
    Watch {
        watch: Arc<Watch>,
        filter: Filter,
        position: u64,
    },
    Unwatch(u64),
    /// These subjects and credentials are cut off. As many as whoever revokes has posted.
    Revoke(Arc<HashSet<Box<str>>>),
    /// Another grant for a session. As many as there are requests that say so.
    Renew(Box<Renewal>),
    /// A connection is to have a turn.
    Ring(Arc<Bell>),
    Close {
        retry_after: Duration,
        window: Duration,
    },
}

impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mail")
    }
}

impl Mail {
    /// The shard is ending: a connection is dropped, a reader looks for itself.
    pub(super) fn turn_away(self) {
        if let Self::Watch { watch, .. } = &self {
            watch.hit();
        }
        // With a connection goes what an application counts connections by, which may panic.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(self)));
    }
}

/// Wakes a connection from outside of its shard: when a stream that is not a socket of the shard's is ready, or a
/// credential was looked at. At most one letter of it is on its way.
pub(super) struct Bell {
    rung: AtomicBool,
    shared: Weak<Shared>,
    shard: usize,
    conn: u32,
}

impl Bell {
    pub(super) fn waker(shared: &Arc<Shared>, shard: usize, conn: u32) -> Waker {
        Arc::new(Self { rung: AtomicBool::new(false), shared: Arc::downgrade(shared), shard, conn }).into()
    }

    /// The letter has arrived: whose it is. What rings from now on is another.
    pub(super) fn answer(&self) -> u32 {
        // A swap takes over from whoever rang, and so sees what that one did before.
        self.rung.swap(false, Ordering::SeqCst);
        self.conn
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::SeqCst)
            && let Some(shared) = self.shared.upgrade()
            && let Some(shard) = shared.shards.get(self.shard)
        {
            shard.post(Mail::Ring(Arc::clone(self)));
        }
    }
}

impl ShardHandle {
    /// There is something new. Cheap when the shard knows already.
    pub(super) fn flag(&self) {
        self.flag.raise();
    }

    pub(super) fn post(&self, letter: Mail) {
        let mut mail = self.mailbox();
        if mail.closed {
            drop(mail);
            return letter.turn_away();
        }
        mail.letters.push_back(letter);
        drop(mail);
        self.flag();
    }

    fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody waits for this shard any more.
    pub(super) fn retire(&self) {
        self.position.store(u64::MAX, Ordering::SeqCst);
    }

    /// The shard has ended.
    pub(super) fn close(&self) {
        self.retire();
        let mut mail = self.mailbox();
        mail.closed = true;
        let letters = mem::take(&mut mail.letters);
        drop(mail);
        letters.into_iter().for_each(Mail::turn_away);
    }

    /// What came in since the last time.
    pub(super) fn letters(&self) -> VecDeque<Mail> {
        mem::take(&mut self.mailbox().letters)
    }

    /// Everything up to here was handed to all live readers.
    pub(super) fn reached(&self, position: u64) {
        self.position.store(position, Ordering::SeqCst);
    }

    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Grant, Protocol, Socket};
    use super::*;
    use std::sync::atomic::AtomicUsize;

    struct Fragile(Arc<AtomicUsize>);

    impl Drop for Fragile {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
            panic!("as it was told");
        }
    }

    #[test]
    fn permits_that_panic_when_they_are_turned_away_take_nobody_along() {
        let (dropped, handle) = (Arc::default(), ShardHandle::default());
        let adoption = || {
            Mail::Adopt(Box::new(Adoption {
                permit: Box::new(Fragile(Arc::clone(&dropped))),
                ..Adoption::new(Socket::Stream(Box::new(tokio::io::empty())), Protocol::Sse, Grant::open())
            }))
        };
        handle.post(adoption());
        handle.post(adoption());
        handle.close();
        handle.post(adoption());
        assert_eq!(dropped.load(Ordering::Relaxed), 3);
    }
}
