//! A reader outside of the shards: a long poll, or a stream that another server writes.

use super::log::TURN;
use super::mailbox::Mail;
use super::{Filter, Page, PageSize, Shared, Told, count};
use futures_util::task::AtomicWaker;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;

/// A position in the log that waits for what matches: the *woken* sink. It is woken once for a burst, and reads the
/// burst from the log.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    filter: Filter,
    position: u64,
    told: Told,
    watch: Option<Arc<Watch>>,
}

/// What a shard knows of a reader elsewhere.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) id: u64,
    shard: usize,
    hit: AtomicBool,
    waker: AtomicWaker,
}

impl Watch {
    /// Something matched. Only the first time since the reader looked wakes it.
    pub(super) fn hit(&self) {
        if !self.hit.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }
}

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, filter: Filter, position: u64) -> Self {
        count(&shared.counters.waiting, 1);
        Self { shared, filter, position, told: Told::default(), watch: None }
    }

    /// Everything up to here was returned.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What there is after the position, without waiting for more; an empty page when there is nothing. Where hardly
    /// anything matches, other tasks get their turns in between. Cancel-safe, as [`next`](Self::next).
    pub async fn read(&mut self, size: PageSize) -> Page {
        let mut steps = 0;
        loop {
            let page = self.shared.log.read(&self.filter, self.position, u64::MAX, self.told, size);
            self.position = page.next;
            self.told = page.told;
            if page.gap.is_some() || !page.records.is_empty() || page.next >= self.shared.log.head() {
                return page;
            }
            steps += page.steps;
            if steps >= TURN {
                steps = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Waits for the next page that has something in it; once the hub closes, it is empty. Cancel-safe: dropped while
    /// it waits, nothing is lost.
    pub async fn next(&mut self, size: PageSize) -> Page {
        loop {
            let page = self.read(size).await;
            if page.gap.is_some() || !page.records.is_empty() || self.shared.is_closing() {
                return page;
            }
            let position = self.position;
            let watch =
                Arc::clone(self.watch.get_or_insert_with(|| watch(&self.shared, &self.filter, position)));
            poll_fn(|cx| {
                watch.waker.register(cx.waker());
                match watch.hit.swap(false, Ordering::AcqRel) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
        }
    }
}

/// Leaves word with a shard. Whatever comes after `position` counts as a hit, so nothing falls between the last look
/// at the log and this.
fn watch(shared: &Shared, filter: &Filter, position: u64) -> Arc<Watch> {
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let shard = usize::try_from(id).unwrap_or(0) % shared.shards.len();
    let watch = Arc::new(Watch { id, shard, hit: AtomicBool::new(false), waker: AtomicWaker::new() });
    let mail = Mail::Watch { watch: Arc::clone(&watch), filter: filter.clone(), position };
    if let Some(shard) = shared.shards.get(shard) {
        shard.post(mail);
    }
    watch
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.counters.waiting.fetch_sub(1, Ordering::Relaxed);
        if let Some(watch) = &self.watch
            && let Some(shard) = self.shared.shards.get(watch.shard)
        {
            shard.post(Mail::Unwatch(watch.id));
        }
    }
}
