//! Delivery, to the readers that are at the head:
//! 1. A publisher appends to the log and flags the shards.
//! 2. The shard takes a *window*: what the tail holds after its position. It notes, for each event, which readers
//!    match (the trie), so that a reader gets all that it wants of the window in one write.
//! 3. It serves the readers that were hit, [`BUDGET`] at a time; in between, its connections get their turns.
//! 4. When all are served, its position moves to the end of the window, and it takes the next.
//!
//! A reader whose socket is full stops being *live*: it goes on in its own turns from where it stopped, at its own
//! pace.

use super::{BUDGET, Reader, Shard, Sink};
use crate::hub::event::Form;
use crate::hub::mailbox::ShardHandle;
use crate::hub::outlet::Image;
use crate::hub::{Counters, PageSize, Record, count};
use longwire_core::time::Instant;

/// What is taken from the tail at once: it bounds the memory of an image.
const WINDOW: PageSize = PageSize { events: 64, bytes: 256 << 10 };

#[derive(Default)]
pub(super) struct Window {
    records: Vec<Record>,
    hits: Vec<Hit>,
    /// Readers that were hit, in the order of their places.
    readers: Vec<u32>,
    /// How many of them were served.
    served: usize,
    /// The hits of one reader, and what is written for them; kept while the next reader has the same.
    picked: Vec<u32>,
    image: Image<u64>,
    form: Option<Form>,
}

impl Window {
    /// Notes the hits of a reader, from the first of its chain. If they are those of the reader before, so is what is
    /// written for it.
    fn pick(&mut self, mut hit: u32) {
        let (mut len, mut same) = (0, true);
        while let Some(Hit { record, next }) = self.hits.get(hit as usize) {
            if self.picked.get(len) != Some(record) {
                same = false;
                self.picked.truncate(len);
                self.picked.push(*record);
            }
            len += 1;
            let Some(next) = next else { break };
            hit = *next;
        }
        if !same || len < self.picked.len() {
            self.picked.truncate(len);
            self.form = None;
        }
    }
}

/// What came of a few deliveries, which share a look at the clock: each would cost as much as a hundredth of a send.
pub(in crate::hub) struct Tally {
    pub(in crate::hub) now: Instant,
    pub(in crate::hub) delivered: u64,
    pub(in crate::hub) writes: u64,
    pub(in crate::hub) bytes: u64,
}

impl Tally {
    fn new(now: Instant) -> Self {
        Self { now, delivered: 0, writes: 0, bytes: 0 }
    }

    fn count(&self, counters: &Counters) {
        count(&counters.delivered, self.delivered);
        count(&counters.writes, self.writes);
        count(&counters.sent_bytes, self.bytes);
    }
}

/// One event of the window for one reader.
struct Hit {
    record: u32,
    next: Option<u32>,
}

impl Shard {
    /// Serves some readers; true while there is more to do.
    pub(super) fn deliver(&self, handle: &ShardHandle) -> bool {
        let window = &mut *self.window.borrow_mut();
        if window.records.is_empty() && !self.open(window, handle) {
            return false;
        }
        // Without a window it fell behind, and looks again.
        let Some(end) = window.records.last().map(|record| record.event.seq) else { return true };
        let to = window.served.saturating_add(BUDGET).min(window.readers.len());
        let mut tally = Tally::new(self.clock.now());
        for at in window.served..to {
            if let Some(id) = window.readers.get(at).copied() {
                self.serve(window, id, end, &mut tally);
            }
        }
        tally.count(&self.shared.counters);
        window.served = to;
        if to == window.readers.len() {
            handle.reached(end);
            window.records.clear();
            window.hits.clear();
            window.readers.clear();
            window.picked.clear();
            // With it go its pins, as far as no reader needs them.
            window.image.clear();
            window.form = None;
            window.served = 0;
            self.shared.relieved();
        }
        true
    }

    /// Takes the next window from the tail, and finds out who gets what of it; false when there is nothing new.
    fn open(&self, window: &mut Window, handle: &ShardHandle) -> bool {
        let position = handle.position();
        if self.shared.log.tail(position, WINDOW, &mut window.records).is_none() {
            self.fall_behind(handle, position);
            return true;
        }
        let mut readers = self.readers.borrow_mut();
        let trie = self.trie.borrow();
        for (index, record) in (0u32..).zip(&window.records) {
            let seq = record.event.seq;
            trie.find(record.event.topic.topic(), &mut |id| {
                let Some(reader) = readers.get_mut(id as usize) else { return };
                if !reader.live || seq <= reader.floor || reader.seen == seq {
                    return;
                }
                reader.seen = seq;
                let hit = u32::try_from(window.hits.len()).unwrap_or(u32::MAX);
                window.hits.push(Hit { record: index, next: None });
                match &mut reader.chain {
                    Some((_, last)) => {
                        if let Some(before) = window.hits.get_mut(*last as usize) {
                            before.next = Some(hit);
                        }
                        *last = hit;
                    }
                    chain => {
                        *chain = Some((hit, hit));
                        window.readers.push(id);
                    }
                }
            });
        }
        // Visiting the readers in the order of their places is kind to the caches.
        window.readers.sort_unstable();
        !window.records.is_empty()
    }

    /// The tail has moved on past the shard's position: its readers go on from the histories, each on its own.
    fn fall_behind(&self, handle: &ShardHandle, position: u64) {
        // Taken first: what comes after it is a window's, so a watch that is hit here and looks at once misses nothing.
        let head = self.shared.log.head();
        for (id, reader) in self.readers.borrow_mut().iter_mut().filter(|(_, reader)| reader.live) {
            match &mut reader.sink {
                Sink::Conn(conn) => {
                    reader.live = false;
                    conn.lag(reader.floor.max(position));
                    self.queue(id, reader);
                }
                Sink::Watch(watch) => watch.hit(),
                Sink::Away => {}
            }
        }
        handle.reached(head);
        self.shared.relieved();
    }

    /// Gives one reader what it gets of the window.
    fn serve(&self, window: &mut Window, id: u32, end: u64, tally: &mut Tally) {
        match self.readers.borrow_mut().get_mut(id as usize) {
            Some(Reader { sink, chain, floor, .. }) => {
                // It may have left while others were served.
                let Some((hit, _)) = chain.take() else { return };
                *floor = end;
                if let Sink::Watch(watch) = sink {
                    return watch.hit();
                }
                window.pick(hit);
            }
            None => return,
        }
        let stays = self.with_conn(id, |conn| {
            if window.form != Some(conn.form()) {
                // Neither the same events nor the same form as for the reader before.
                window.form = Some(conn.form());
                window.image.clear();
                for record in window.picked.iter().filter_map(|at| window.records.get(*at as usize)) {
                    let bytes = record.live(self.shared.log.epoch(), conn.form());
                    window.image.push(record.event.seq, |out| out.extend_from_slice(&bytes));
                }
            }
            let first = window.picked.first().and_then(|at| window.records.get(*at as usize));
            conn.deliver(self, &mut window.image, first.map_or(end, |record| record.event.seq - 1), tally)
        });
        if stays == Some(false)
            && let Some(reader) = self.readers.borrow_mut().get_mut(id as usize)
        {
            reader.live = false;
        }
    }
}
