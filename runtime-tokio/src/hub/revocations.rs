//! Who was cut off, and when.

use super::Grant;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Names that are remembered.
const MAX: usize = 1 << 16;
/// How long a name is remembered for certain: longer than a grant can be on its way from the decision to where it is
/// looked at, and longer than a poll waits.
const MEMORY: Duration = Duration::from_secs(300);

/// Revocations of late: they cover every grant that was asked for before. One that is asked for later is a new
/// decision, which whoever [authorises](super::Authorize) makes with its eyes open.
#[derive(Debug)]
pub(super) struct Revocations {
    table: Mutex<Table>,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Table {
    names: HashMap<Box<str>, Instant>,
    /// What was revoked before that is not known any more: older grants are taken for revoked.
    forgotten: Option<Instant>,
}

impl Default for Revocations {
    fn default() -> Self {
        let table = Table { names: HashMap::new(), forgotten: None };
        Self { table: Mutex::new(table), changed: watch::Sender::new(0) }
    }
}

impl Revocations {
    /// From now on these are covered.
    pub(super) fn add(&self, names: &HashSet<Box<str>>) {
        let mut table = self.table();
        let now = Instant::now();
        if table.names.len() + names.len() > MAX {
            table.names.retain(|_, at| now.duration_since(*at) < MEMORY);
        }
        for name in names {
            if table.names.len() >= MAX {
                // Rather too many cut off than one too few.
                table.names.clear();
                table.forgotten = Some(now);
            }
            table.names.insert(name.clone(), now);
        }
        drop(table);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Whether a grant was asked for before its subject, or its credential, was revoked.
    pub(super) fn covers(&self, grant: &Grant) -> bool {
        let table = self.table();
        let at = |name: &str| table.names.get(name).is_some_and(|at| grant.issued <= *at);
        at(&grant.subject)
            || grant.id.as_deref().is_some_and(at)
            || table.forgotten.is_some_and(|at| grant.issued <= at)
    }

    /// Ready once a grant is covered.
    pub(super) async fn covered(&self, grant: &Grant) {
        let mut changed = self.changed.subscribe();
        while !self.covers(grant) {
            // The sender lives as long as `self`.
            let _ = changed.changed().await;
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn grant(subject: &str, id: Option<&str>) -> Grant {
        Grant { subject: subject.into(), id: id.map(Into::into), ..Grant::open() }
    }

    fn names(names: &[&str]) -> HashSet<Box<str>> {
        names.iter().map(|name| (*name).into()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_asked_for_before_is_covered_by_subject_or_by_id_and_nothing_else() {
        let revocations = Revocations::default();
        let (ada, key, other) =
            (grant("ada", None), grant("bob", Some("key-1")), grant("bob", Some("key-2")));
        assert!(!revocations.covers(&ada));
        revocations.add(&names(&["ada", "key-1"]));
        assert!(revocations.covers(&ada) && revocations.covers(&key) && !revocations.covers(&other));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!revocations.covers(&grant("ada", None)), "a new decision");
        assert!(revocations.covers(&ada), "the old one stays revoked");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_woken() {
        let revocations = Revocations::default();
        let ada = grant("ada", None);
        let mut covered = Box::pin(revocations.covered(&ada));
        assert!((&mut covered).now_or_never().is_none());
        revocations.add(&names(&["bob"]));
        assert!((&mut covered).now_or_never().is_none());
        revocations.add(&names(&["ada"]));
        covered.await;
        revocations.covered(&ada).now_or_never().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_remembered_is_taken_for_revoked() {
        let revocations = Revocations::default();
        let early = grant("nobody", None);
        let many: HashSet<Box<str>> = (0..MAX).map(|n| n.to_string().into()).collect();
        revocations.add(&many);
        assert!(!revocations.covers(&early));
        revocations.add(&names(&["one more"]));
        assert!(revocations.covers(&early));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!revocations.covers(&grant("nobody", None)));
        // What is old enough is forgotten without harm.
        let revocations = Revocations::default();
        revocations.add(&many);
        tokio::time::advance(MEMORY).await;
        let late = grant("nobody", None);
        revocations.add(&names(&["one more"]));
        assert!(!revocations.covers(&late) && revocations.table().names.len() == 1);
    }
}
