//! A shard: the connections of one log that one thread owns. A thread has a shard for each log.
//!
//! # Turns
//! A connection has no task. It has a *turn* when its socket is ready ([`Readiness`]), when its deadline has come
//! ([`Timers`]), or when somebody woke it: then its place stands once in a queue, and the shard works that off,
//! [`BUDGET`] turns at a time.
//!
//! In between, it delivers what is new to the readers that wait for it ([`delivery`]). The shards of a thread take
//! turns, a piece of delivery each: a log that is flooded does not stop another.

mod delivery;

pub(super) use self::delivery::Tally;
use self::delivery::Window;
use super::conn::{Conn, Turn};
use super::event::Form;
use super::interned::Interned;
use super::mailbox::{Bell, Mail, ShardHandle};
use super::reader::Watch;
use super::sessions::{RenewError, Renewal};
use super::trie::Trie;
use super::{Adoption, Filter, Grant, Shared, count};
use crate::clock::Clock;
use crate::readiness::{Readiness, Ready, Tcp};
use crate::timers::Timers;
use longwire_core::log::Pattern;
use longwire_core::time::Instant;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Sleep;

/// Readers served, and turns taken, before the other tasks of the thread get a turn.
const BUDGET: usize = 64;
/// So few readers are no matter of memory.
const FEW: usize = 256;
/// Bytes that a connection's turn reads at most at once.
pub(super) const READ_SIZE: usize = 64 << 10;
/// Bytes of answers that a connection's turn can write without waiting.
pub(super) const REPLY_SIZE: usize = 16 << 10;

/// A shard, within its thread.
pub(super) struct Shard {
    pub(super) shared: Arc<Shared>,
    pub(super) id: usize,
    pub(super) clock: Clock,
    /// The connections' sockets, once it runs.
    readiness: RefCell<Option<Readiness>>,
    /// The connections' deadlines, in milliseconds of the clock.
    timers: RefCell<Timers>,
    /// Connections that are to have a turn, each at most once.
    turns: RefCell<VecDeque<u32>>,
    readers: RefCell<Slab<Reader>>,
    trie: RefCell<Trie<u32>>,
    watches: RefCell<HashMap<u64, (u32, Filter)>>,
    window: RefCell<Window>,
    pub(super) scratch: Rc<RefCell<Scratch>>,
    /// Connections that are not read until the shards have caught up.
    waiting: RefCell<BTreeSet<u32>>,
    /// The sessions that are renewed from outside.
    sessions: RefCell<HashMap<u128, u32>>,
    closing: Cell<Option<(Duration, Duration)>>,
    /// As many readers as there have been since memory was last given back.
    peak: Cell<usize>,
    grants: RefCell<Interned<Grant>>,
    filters: RefCell<Interned<Filter>>,
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
    /// It stands in the queue for a turn.
    queued: Cell<bool>,
    /// It has everything up to here already, although the shard's position may be behind.
    floor: u64,
    /// What it gets of the window: the first and last of a chain of hits.
    chain: Option<(u32, u32)>,
    /// The last event that hit it: overlapping patterns hit once.
    seen: u64,
}

enum Sink {
    Conn(Box<Conn>),
    Watch(Arc<Watch>),
    /// The connection has its turn, or is written to; it comes back.
    Away,
}

/// However the shard ends, its connections are closed, and counted so, and nobody waits for it.
pub(super) struct Leave(pub(super) Rc<Shard>);

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(handle) = self.0.shared.shards.get(self.0.id) {
            handle.close();
        }
        self.0.shared.relieved();
        let ids =
            self.0.readers.borrow().iter().filter_map(|(id, _)| u32::try_from(id).ok()).collect::<Vec<_>>();
        ids.into_iter().for_each(|id| self.0.end(id));
    }
}

impl Shard {
    pub(super) fn new(id: usize, shared: Arc<Shared>, scratch: Rc<RefCell<Scratch>>) -> Rc<Self> {
        Rc::new(Self {
            shared,
            id,
            clock: Clock::start(),
            readiness: RefCell::default(),
            timers: RefCell::default(),
            turns: RefCell::default(),
            readers: RefCell::default(),
            trie: RefCell::default(),
            watches: RefCell::default(),
            window: RefCell::default(),
            scratch,
            waiting: RefCell::default(),
            sessions: RefCell::default(),
            closing: Cell::new(None),
            peak: Cell::new(0),
            grants: RefCell::default(),
            filters: RefCell::default(),
        })
    }

    pub(super) async fn run(self: Rc<Self>) {
        let Some(handle) = self.shared.shards.get(self.id) else { return };
        let _leave = Leave(Rc::clone(&self));
        match Readiness::new() {
            Ok(readiness) => *self.readiness.borrow_mut() = Some(readiness),
            Err(error) => return tracing::error!(%error, "a shard cannot wait for sockets"),
        }
        let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
        while self.closing.get().is_none() || !self.readers.borrow().is_empty() {
            let mut flag = pin!(handle.flag.lower());
            poll_fn(|cx| match (flag.as_mut().poll(cx), self.look(cx, sleep.as_mut())) {
                (Poll::Pending, false) => Poll::Pending,
                _ => Poll::Ready(()),
            })
            .await;
            loop {
                self.read_mail(handle);
                self.resume_waiting();
                self.take_turns();
                let delivers = self.closing.get().is_none() && self.deliver(handle);
                if !delivers && self.turns.borrow().is_empty() {
                    break;
                }
                tokio::task::yield_now().await;
                poll_fn(|cx| Poll::Ready(self.look(cx, sleep.as_mut()))).await;
            }
        }
    }

    /// Queues the connections that are ready or due, and sees to it that the task is woken for the next; true when some
    /// stand in the queue.
    fn look(&self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> bool {
        // Ready as often as there is something, or the waker is not kept. An error means that the runtime is ending.
        while let Some(readiness) = &mut *self.readiness.borrow_mut()
            && let Poll::Ready(Ok(())) = readiness.poll(cx, |id, ready| self.note(id, ready))
            && self.turns.borrow().is_empty()
        {}
        loop {
            let timers = &mut *self.timers.borrow_mut();
            timers.expire(self.clock.now().as_millis(), |id| self.wake(id));
            let Some(next) = timers.next() else { break };
            let next = self.clock.at(Instant::from_millis(next));
            if sleep.deadline() != next {
                sleep.as_mut().reset(next);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                break;
            }
        }
        !self.turns.borrow().is_empty()
    }

    /// A connection's socket has become ready.
    fn note(&self, id: usize, ready: Ready) {
        let readers = self.readers.borrow();
        if let Some(reader) = readers.get(id)
            && let Sink::Conn(conn) = &reader.sink
            && conn.note(ready)
        {
            self.queue(id, reader);
        }
    }

    /// A connection is to have a turn.
    pub(super) fn wake(&self, id: u32) {
        // One that has gone meanwhile is not missed, and another in its place has a turn for nothing.
        if let Some(reader) = self.readers.borrow().get(id as usize) {
            self.queue(id as usize, reader);
        }
    }

    fn queue(&self, id: usize, reader: &Reader) {
        if !reader.queued.replace(true)
            && let Ok(id) = u32::try_from(id)
        {
            self.turns.borrow_mut().push_back(id);
        }
    }

    /// A connection is to have a turn at that moment, if not before.
    pub(super) fn wake_at(&self, id: u32, deadline: Instant) {
        self.timers.borrow_mut().arm(id, deadline.as_millis());
    }

    /// Wakes a connection from wherever.
    pub(super) fn waker(&self, id: u32) -> Waker {
        Bell::waker(&self.shared, self.id, id)
    }

    /// What was granted, but for the time of it: once for all that are granted the same.
    pub(super) fn share_grant(&self, grant: Grant) -> Arc<Grant> {
        let issued = self.clock.at(Instant::default());
        self.grants.borrow_mut().share(Grant { issued, expires: None, ..grant })
    }

    /// What a connection reads: once for all that read the same.
    pub(super) fn share_filter(&self, filter: Filter) -> Arc<Filter> {
        self.filters.borrow_mut().share(filter)
    }

    /// The sockets of the shard; none before it runs.
    pub(super) fn add_socket(&self, socket: std::net::TcpStream, id: u32) -> io::Result<Tcp> {
        let readiness = self.readiness.borrow();
        readiness.as_ref().ok_or(ErrorKind::NotConnected)?.add(socket, id as usize)
    }

    /// Gives some connections their turns, those that were there first.
    fn take_turns(&self) {
        let waiting = self.turns.borrow().len();
        for _ in 0..waiting.min(BUDGET) {
            let Some(id) = self.turns.borrow_mut().pop_front() else { break };
            if let Some(reader) = self.readers.borrow().get(id as usize) {
                reader.queued.set(false);
            }
            let turn = self.with_conn(id, |conn| {
                // As it would end a task: who panics, a grant's decision or a foreign stream, takes no others along.
                catch_unwind(AssertUnwindSafe(|| conn.turn(self))).unwrap_or(Turn::Over)
            });
            match turn {
                Some(Turn::Over) => self.end(id),
                Some(Turn::More) => self.wake(id),
                Some(Turn::Waiting) | None => {}
            }
        }
    }

    /// Lends a connection out, while its place in the shard stays what it is.
    fn with_conn<T>(&self, id: u32, work: impl FnOnce(&mut Conn) -> T) -> Option<T> {
        let sink = |to| {
            let mut readers = self.readers.borrow_mut();
            readers.get_mut(id as usize).map(|reader| mem::replace(&mut reader.sink, to))
        };
        match sink(Sink::Away)? {
            Sink::Conn(mut conn) => {
                let result = work(&mut conn);
                sink(Sink::Conn(conn));
                Some(result)
            }
            other => {
                sink(other);
                None
            }
        }
    }

    /// Whether the shard is ending, and what its connections tell their peers then.
    pub(super) fn closing(&self) -> Option<(Duration, Duration)> {
        self.closing.get()
    }

    /// Wakes the connection when publishers may go on.
    pub(super) fn wait_for_relief(&self, id: u32) {
        self.waiting.borrow_mut().insert(id);
    }

    /// The reader is at the head, with everything up to `floor`.
    pub(super) fn go_live(&self, id: u32, floor: u64) {
        if let Some(reader) = self.readers.borrow_mut().get_mut(id as usize) {
            reader.live = true;
            reader.floor = floor;
        }
    }

    /// The reader leaves the head, if it was there, and owns its position from now on. What it has not got yet of the
    /// window it reads from the log, so that it is not served again when it is back before the window ends.
    pub(super) fn leave_head(&self, id: u32) -> Option<u64> {
        let position = self.head_of(id)?;
        if let Some(reader) = self.readers.borrow_mut().get_mut(id as usize) {
            reader.live = false;
            reader.chain = None;
        }
        Some(position)
    }

    /// The position of a reader that is at the head: what it has for certain.
    pub(super) fn head_of(&self, id: u32) -> Option<u64> {
        let position = self.shared.shards.get(self.id)?.position();
        let readers = self.readers.borrow();
        readers.get(id as usize).filter(|reader| reader.live).map(|reader| reader.floor.max(position))
    }

    /// A reader wants what a pattern matches.
    pub(super) fn subscribe(&self, id: u32, pattern: Pattern<'_>) {
        if self.trie.borrow_mut().insert(pattern, id) {
            count(&self.shared.counters.subscriptions, 1);
        }
    }

    /// A reader no longer does.
    pub(super) fn unsubscribe(&self, id: u32, pattern: Pattern<'_>) {
        if self.trie.borrow_mut().remove(pattern, id) {
            self.shared.counters.subscriptions.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn resume_waiting(&self) {
        if self.waiting.borrow().is_empty() || self.shared.is_congested() {
            return;
        }
        let waiting = mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(|id| self.wake(id));
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
                Mail::Ring(bell) => self.wake(bell.answer()),
                Mail::Close { retry_after, window } => {
                    self.closing.set(Some((retry_after, window)));
                    handle.retire();
                    self.shared.relieved();
                    self.wake_all();
                }
            }
        }
    }

    fn adopt(&self, adoption: Adoption) {
        let at = self.insert(Reader::new(Sink::Away));
        let take_over = || {
            let id = u32::try_from(at).ok().filter(|id| *id < Timers::KEYS).ok_or(ErrorKind::OutOfMemory)?;
            let conn = Conn::new(id, adoption, self)?;
            if conn.form() == Form::Sse {
                self.sessions.borrow_mut().insert(conn.secret(), id);
            }
            io::Result::Ok((id, Box::new(conn)))
        };
        // A socket that cannot be taken over is dropped, and with it the connection, and what an application counts
        // connections by, which may panic.
        let Ok(Ok((id, conn))) = catch_unwind(AssertUnwindSafe(take_over)) else { return self.remove(at) };
        if let Some(reader) = self.readers.borrow_mut().get_mut(at) {
            reader.sink = Sink::Conn(conn);
        }
        self.wake(id);
    }

    fn revoke(&self, names: &HashSet<Box<str>>) {
        for (id, reader) in self.readers.borrow_mut().iter_mut() {
            if let Sink::Conn(conn) = &mut reader.sink
                && conn.revoke(names)
            {
                self.queue(id, reader);
            }
        }
    }

    fn renew(&self, renewal: Renewal) {
        let Renewal { secret, grant, answer } = renewal;
        let id = self.sessions.borrow().get(&secret).copied();
        let renewed = id.and_then(|id| self.with_conn(id, |conn| conn.renew(self, grant)));
        // Whoever asked may have gone.
        let _ = answer.send(renewed.unwrap_or(Err(RenewError::Unknown)));
    }

    /// A connection is over: its reader goes with it, however it ended.
    fn end(&self, id: u32) {
        self.timers.borrow_mut().disarm(id);
        self.with_conn(id, |conn| {
            self.sessions.borrow_mut().remove(&conn.secret());
            conn.end(self);
        });
        // With it goes what an application counts connections by, which may panic, too.
        let _ = catch_unwind(AssertUnwindSafe(|| self.remove(id as usize)));
    }

    fn insert(&self, reader: Reader) -> usize {
        let mut readers = self.readers.borrow_mut();
        let at = readers.insert(reader);
        self.peak.set(self.peak.get().max(readers.len()));
        at
    }

    fn remove(&self, at: usize) {
        let removed = self.readers.borrow_mut().try_remove(at);
        self.shrink();
        // A shard that is closing waits for the last to go.
        if let (Some(_), Some(handle)) = (self.closing.get(), self.shared.shards.get(self.id)) {
            handle.flag();
        }
        drop(removed);
    }

    /// Gives memory back when three of four have gone; what that takes is little beside their going.
    fn shrink(&self) {
        let mut readers = self.readers.borrow_mut();
        if self.peak.get() < FEW || readers.len() > self.peak.get() / 4 {
            return;
        }
        self.peak.set(readers.len());
        readers.shrink_to_fit();
        self.timers.borrow_mut().shrink_to(readers.capacity());
        self.turns.borrow_mut().shrink_to_fit();
        self.sessions.borrow_mut().shrink_to_fit();
        self.grants.borrow_mut().forget();
        self.filters.borrow_mut().forget();
    }

    fn watch(&self, watch: Arc<Watch>, filter: Filter, position: u64) {
        if self.shared.log.head() > position {
            watch.hit();
        }
        let reader = Reader { live: true, ..Reader::new(Sink::Watch(Arc::clone(&watch))) };
        let at = self.insert(reader);
        let Ok(id) = u32::try_from(at) else { return self.remove(at) };
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
        self.remove(id as usize);
    }

    fn wake_all(&self) {
        let watches: Vec<u64> = self.watches.borrow().keys().copied().collect();
        for (id, reader) in self.readers.borrow().iter() {
            match &reader.sink {
                Sink::Watch(watch) => watch.hit(),
                Sink::Conn(_) | Sink::Away => self.queue(id, reader),
            }
        }
        watches.into_iter().for_each(|id| self.unwatch(id));
    }
}

impl Reader {
    fn new(sink: Sink) -> Self {
        Self { sink, live: false, queued: Cell::new(false), floor: 0, chain: None, seen: 0 }
    }
}
