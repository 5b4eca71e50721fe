//! A shard: the connections of one log that one thread owns. A thread has a shard for each log.
//!
//! # Delivery
//! 1. A publisher appends to the log and flags the shards.
//! 2. The shard takes a *window*: what the tail holds after its position. It notes, for each event, which readers
//!    match (the trie), so that a reader gets all that it wants of the window in one write.
//! 3. It serves the readers that were hit, [`BUDGET`] at a time; in between, its connections get their turns.
//! 4. When all are served, its position moves to the end of the window, and it takes the next.
//!
//! The shards of a thread take turns, a piece of delivery each: a log that is flooded does not stop another.
//!
//! A reader whose socket is full stops being *live*: its task goes on from where it stopped, at its own pace.

use super::conn::Conn;
use super::event::Form;
use super::mailbox::{Mail, ShardHandle};
use super::outlet::Image;
use super::reader::Watch;
use super::sessions::{RenewError, Renewal};
use super::trie::Trie;
use super::{Adoption, Filter, PageSize, Record, Shared, count};
use crate::clock::Clock;
use longwire_core::log::Pattern;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::future::poll_fn;
use std::mem;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::LocalSet;

/// Readers served before the other tasks of the thread get a turn.
const BUDGET: usize = 64;
/// What is taken from the tail at once: it bounds the memory of an image.
const WINDOW: PageSize = PageSize { events: 64, bytes: 256 << 10 };
/// Bytes that a connection's turn reads at most at once.
pub(super) const READ_SIZE: usize = 64 << 10;
/// Bytes of answers that a connection's turn can write without waiting.
pub(super) const REPLY_SIZE: usize = 16 << 10;

/// A shard, within its thread.
pub(super) struct Shard {
    pub(super) shared: Arc<Shared>,
    pub(super) id: usize,
    pub(super) clock: Clock,
    readers: RefCell<Slab<Reader>>,
    trie: RefCell<Trie<usize>>,
    watches: RefCell<HashMap<u64, (usize, Filter)>>,
    window: RefCell<Window>,
    pub(super) scratch: Rc<RefCell<Scratch>>,
    /// Connections that are not read until the shards have caught up.
    waiting: RefCell<BTreeSet<usize>>,
    /// The sessions that are renewed from outside.
    sessions: RefCell<HashMap<u128, usize>>,
    closing: Cell<Option<(Duration, Duration)>>,
    /// The tasks of the connections; they end with it.
    tasks: Weak<LocalSet>,
}

/// Buffers of a thread, that whoever has its turn uses and leaves empty.
pub(super) struct Scratch {
    pub(super) read: Box<[u8]>,
    pub(super) reply: Box<[u8]>,
}

impl Scratch {
    pub(super) fn new() -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            read: vec![0; READ_SIZE].into_boxed_slice(),
            reply: vec![0; REPLY_SIZE].into_boxed_slice(),
        }))
    }
}

/// A reader, as the delivery sees it: small, side by side, visited in order.
struct Reader {
    sink: Sink,
    /// At the head: what the shard delivers next, it gets.
    live: bool,
    /// It has everything up to here already, although the shard's position may be behind.
    floor: u64,
    /// What it gets of the window: the first and last of a chain of hits.
    chain: Option<(u32, u32)>,
    /// The last event that hit it: overlapping patterns hit once.
    seen: u64,
}

#[derive(Clone)]
enum Sink {
    Conn(Rc<RefCell<Conn>>),
    Watch(Arc<Watch>),
}

#[derive(Default)]
struct Window {
    records: Vec<Record>,
    hits: Vec<Hit>,
    /// Readers that were hit, in the order of their places.
    readers: Vec<usize>,
    /// How many of them were served.
    served: usize,
    /// The hits of one reader, and what is written for them; kept while the next reader has the same.
    picked: Vec<u32>,
    image: Image<u64>,
    form: Option<Form>,
}

/// One event of the window for one reader.
struct Hit {
    record: u32,
    next: Option<u32>,
}

/// However a connection's task ends, its reader goes with it.
struct Leave {
    id: usize,
    conn: Rc<RefCell<Conn>>,
    shard: Rc<Shard>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        if let Ok(mut conn) = self.conn.try_borrow_mut() {
            conn.end(&self.shard);
            self.shard.sessions.borrow_mut().remove(&conn.secret());
        }
        self.shard.remove(self.id);
    }
}

impl Shard {
    pub(super) fn new(
        id: usize,
        shared: Arc<Shared>,
        scratch: Rc<RefCell<Scratch>>,
        tasks: Weak<LocalSet>,
    ) -> Rc<Self> {
        Rc::new(Self {
            shared,
            id,
            clock: Clock::start(),
            readers: RefCell::default(),
            trie: RefCell::default(),
            watches: RefCell::default(),
            window: RefCell::default(),
            scratch,
            waiting: RefCell::default(),
            sessions: RefCell::default(),
            closing: Cell::new(None),
            tasks,
        })
    }

    pub(super) async fn run(self: Rc<Self>) {
        let Some(handle) = self.shared.shards.get(self.id) else { return };
        while self.closing.get().is_none() || !self.readers.borrow().is_empty() {
            handle.flag.lower().await;
            loop {
                self.read_mail(handle);
                self.resume_waiting();
                if self.closing.get().is_some() || !self.deliver(handle) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// Whether the shard is ending, and what its connections tell their peers then.
    pub(super) fn closing(&self) -> Option<(Duration, Duration)> {
        self.closing.get()
    }

    /// Wakes the connection's task when publishers may go on.
    pub(super) fn wait_for_relief(&self, id: usize) {
        self.waiting.borrow_mut().insert(id);
    }

    /// The reader is at the head, with everything up to `floor`.
    pub(super) fn go_live(&self, id: usize, floor: u64) {
        if let Some(reader) = self.readers.borrow_mut().get_mut(id) {
            reader.live = true;
            reader.floor = floor;
        }
    }

    /// The reader leaves the head, if it was there, and owns its position from now on. What it has not got yet of the
    /// window it reads from the log, so that it is not served again when it is back before the window ends.
    pub(super) fn leave_head(&self, id: usize) -> Option<u64> {
        let position = self.head_of(id)?;
        if let Some(reader) = self.readers.borrow_mut().get_mut(id) {
            reader.live = false;
            reader.chain = None;
        }
        Some(position)
    }

    /// The position of a reader that is at the head: what it has for certain.
    pub(super) fn head_of(&self, id: usize) -> Option<u64> {
        let position = self.shared.shards.get(self.id)?.position();
        let readers = self.readers.borrow();
        readers.get(id).filter(|reader| reader.live).map(|reader| reader.floor.max(position))
    }

    /// A reader wants what a pattern matches.
    pub(super) fn subscribe(&self, id: usize, pattern: Pattern<'_>) {
        if self.trie.borrow_mut().insert(pattern, id) {
            count(&self.shared.counters.subscriptions, 1);
        }
    }

    /// A reader no longer does.
    pub(super) fn unsubscribe(&self, id: usize, pattern: Pattern<'_>) {
        if self.trie.borrow_mut().remove(pattern, id) {
            self.shared.counters.subscriptions.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn resume_waiting(&self) {
        if self.waiting.borrow().is_empty() || self.shared.is_congested() {
            return;
        }
        let readers = self.readers.borrow();
        for id in mem::take(&mut *self.waiting.borrow_mut()) {
            // One that has gone meanwhile, and another in its place, are woken for nothing.
            if let Some(Reader { sink: Sink::Conn(conn), .. }) = readers.get(id) {
                conn.borrow().wake();
            }
        }
    }

    fn read_mail(self: &Rc<Self>, handle: &ShardHandle) {
        let letters = handle.letters();
        for letter in letters {
            match letter {
                late @ (Mail::Adopt(_) | Mail::Watch { .. }) if self.closing.get().is_some() => {
                    late.turn_away()
                }
                Mail::Adopt(adoption) => self.adopt(*adoption),
                Mail::Watch { watch, filter, position } => self.watch(watch, filter, position),
                Mail::Unwatch(id) => self.unwatch(id),
                Mail::Revoke(names) => self.revoke(&names),
                Mail::Renew(renewal) => self.renew(*renewal),
                Mail::Close { retry_after, window } => {
                    self.closing.set(Some((retry_after, window)));
                    handle.retire();
                    self.shared.relieved();
                    self.wake_all();
                }
            }
        }
    }

    fn adopt(self: &Rc<Self>, adoption: Adoption) {
        let Some(tasks) = self.tasks.upgrade() else { return };
        let mut readers = self.readers.borrow_mut();
        let entry = readers.vacant_entry();
        let id = entry.key();
        // A socket that cannot be taken over is dropped, and with it the connection.
        let Ok(conn) = Conn::new(id, adoption, self) else { return };
        if conn.form() == Form::Sse {
            self.sessions.borrow_mut().insert(conn.secret(), id);
        }
        let conn = Rc::new(RefCell::new(conn));
        entry.insert(Reader::new(Sink::Conn(Rc::clone(&conn))));
        drop(readers);
        conn.borrow_mut().begin(self);
        let leave = Leave { id, conn, shard: Rc::clone(self) };
        tasks.spawn_local(async move {
            let Leave { conn, shard, .. } = &leave;
            let sleep = tokio::time::sleep(Duration::ZERO);
            tokio::pin!(sleep);
            poll_fn(|cx| conn.borrow_mut().turn(cx, shard, sleep.as_mut())).await;
        });
    }

    fn revoke(&self, names: &HashSet<Box<str>>) {
        for (_, reader) in self.readers.borrow().iter() {
            if let Sink::Conn(conn) = &reader.sink {
                conn.borrow_mut().revoke(names);
            }
        }
    }

    fn renew(&self, renewal: Renewal) {
        let Renewal { secret, grant, answer } = renewal;
        let id = self.sessions.borrow().get(&secret).copied();
        let conn = id.and_then(|id| match &self.readers.borrow().get(id)?.sink {
            Sink::Conn(conn) => Some(Rc::clone(conn)),
            Sink::Watch(_) => None,
        });
        let renewed = conn.map_or(Err(RenewError::Unknown), |conn| conn.borrow_mut().renew(self, grant));
        // Whoever asked may have gone.
        let _ = answer.send(renewed);
    }

    fn remove(&self, id: usize) {
        let removed = self.readers.borrow_mut().try_remove(id);
        drop(removed);
        // A shard that is closing waits for the last to go.
        if let (Some(_), Some(handle)) = (self.closing.get(), self.shared.shards.get(self.id)) {
            handle.flag();
        }
    }

    fn watch(&self, watch: Arc<Watch>, filter: Filter, position: u64) {
        if self.shared.log.head() > position {
            watch.hit();
        }
        let id = self
            .readers
            .borrow_mut()
            .insert(Reader { live: true, ..Reader::new(Sink::Watch(Arc::clone(&watch))) });
        for pattern in filter.parsed() {
            self.subscribe(id, pattern);
        }
        self.watches.borrow_mut().insert(watch.id, (id, filter));
    }

    fn unwatch(&self, watch: u64) {
        let Some((id, filter)) = self.watches.borrow_mut().remove(&watch) else { return };
        for pattern in filter.parsed() {
            self.unsubscribe(id, pattern);
        }
        self.remove(id);
    }

    fn wake_all(&self) {
        let watches: Vec<u64> = self.watches.borrow().keys().copied().collect();
        for (_, reader) in self.readers.borrow().iter() {
            match &reader.sink {
                Sink::Conn(conn) => conn.borrow().wake(),
                Sink::Watch(watch) => watch.hit(),
            }
        }
        watches.into_iter().for_each(|id| self.unwatch(id));
    }

    /// Serves some readers; true while there is more to do.
    fn deliver(&self, handle: &ShardHandle) -> bool {
        let window = &mut *self.window.borrow_mut();
        if window.records.is_empty() && !self.open(window, handle) {
            return false;
        }
        // Without a window it fell behind, and looks again.
        let Some(end) = window.records.last().map(|record| record.event.seq) else { return true };
        let to = window.served.saturating_add(BUDGET).min(window.readers.len());
        for at in window.served..to {
            if let Some(id) = window.readers.get(at).copied() {
                self.serve(window, id, end);
            }
        }
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
                let Some(reader) = readers.get_mut(id) else { return };
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
        let mut conns = Vec::new();
        for (_, reader) in self.readers.borrow_mut().iter_mut().filter(|(_, reader)| reader.live) {
            match &reader.sink {
                Sink::Conn(conn) => {
                    reader.live = false;
                    conns.push((Rc::clone(conn), reader.floor.max(position)));
                }
                Sink::Watch(watch) => watch.hit(),
            }
        }
        for (conn, position) in conns {
            conn.borrow_mut().lag(position);
        }
        handle.reached(head);
        self.shared.relieved();
    }

    /// Gives one reader what it gets of the window.
    fn serve(&self, window: &mut Window, id: usize, end: u64) {
        let sink = match self.readers.borrow_mut().get_mut(id) {
            Some(Reader { sink, chain, floor, .. }) => {
                // It may have left while others were served.
                let Some((mut hit, _)) = chain.take() else { return };
                *floor = end;
                let before = mem::take(&mut window.picked);
                while let Some(Hit { record, next }) = window.hits.get(hit as usize) {
                    window.picked.push(*record);
                    let Some(next) = next else { break };
                    hit = *next;
                }
                if before != window.picked {
                    window.form = None;
                }
                sink.clone()
            }
            None => return,
        };
        match sink {
            Sink::Watch(watch) => watch.hit(),
            Sink::Conn(conn) => {
                let mut conn = conn.borrow_mut();
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
                if !conn.deliver(self, &mut window.image, first.map_or(end, |record| record.event.seq - 1))
                    && let Some(reader) = self.readers.borrow_mut().get_mut(id)
                {
                    reader.live = false;
                }
            }
        }
    }
}

impl Reader {
    fn new(sink: Sink) -> Self {
        Self { sink, live: false, floor: 0, chain: None, seen: 0 }
    }
}
