//! A reader outside of the shards: a long poll, or a stream that another server writes.

use super::shard::Mail;
use super::{Filter, Page, PageSize, Shared, count};
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
    told: u64,
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
        Self { shared, filter, position, told: 0, watch: None }
    }

    /// Everything up to here was returned.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What there is after the position, without waiting; an empty page when there is nothing.
    pub fn read(&mut self, size: PageSize) -> Page {
        loop {
            if let Some(page) = self.look(size) {
                return page;
            }
        }
    }

    /// As [`read`](Self::read); where hardly anything matches, other tasks have their turns meanwhile. Cancel-safe.
    pub(crate) async fn search(&mut self, size: PageSize) -> Page {
        loop {
            if let Some(page) = self.look(size) {
                return page;
            }
            tokio::task::yield_now().await;
        }
    }

    /// One page further; `None` when nothing was found in it, and there is more to look at.
    fn look(&mut self, size: PageSize) -> Option<Page> {
        let page = self.shared.log.read(&self.filter, self.position, u64::MAX, self.told, size);
        self.position = page.next;
        if let Some(gap) = page.gap {
            self.told = gap.to;
        }
        let found = page.gap.is_some() || !page.records.is_empty();
        (found || page.next >= self.shared.log.head()).then_some(page)
    }

    /// Waits for the next page that has something in it; once the hub closes, it is empty. Cancel-safe: dropped while
    /// it waits, nothing is lost.
    pub async fn next(&mut self, size: PageSize) -> Page {
        loop {
            let page = self.search(size).await;
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
