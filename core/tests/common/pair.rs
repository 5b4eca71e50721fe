//! A client and a server, joined by two slow pipes in virtual time.

use super::{End, Endpoint, Flush, Keys};
use longwire_core::time::Instant;
use longwire_core::ws::{Client, Config, Server};
use std::collections::VecDeque;

/// Throws that can be repeated: the same seed gives the same run (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// From 0 to `max`.
    pub fn upto(&mut self, max: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % (max as u64 + 1)) as usize
    }
}

/// One direction of a stream: bytes arrive in order, late, and cut anywhere.
#[derive(Debug)]
pub struct Pipe {
    /// Most bytes under way.
    pub capacity: usize,
    /// Most milliseconds that bytes take.
    pub delay: usize,
    /// Whatever is written is lost: a cable that was pulled.
    pub cut: bool,
    under_way: VecDeque<(u64, Vec<u8>)>,
    /// The writer is done, and the reader will know.
    ended: bool,
}

/// Two endpoints and what lies between them.
pub struct Pair {
    pub client: Endpoint<Client<Keys>>,
    pub server: Endpoint<Server>,
    pub up: Pipe,
    pub down: Pipe,
    pub now: u64,
    dice: Dice,
}

impl Pair {
    /// Both ends follow `config` and have buffers of `rx` and `tx` bytes.
    pub fn new(config: &Config, rx: usize, tx: usize, seed: u64) -> Self {
        let pipe =
            || Pipe { capacity: 1000, delay: 50, cut: false, under_way: VecDeque::new(), ended: false };
        let mut pair = Self {
            client: Endpoint::with(config.clone(), rx, tx),
            server: Endpoint::with(config.clone(), rx, tx),
            up: pipe(),
            down: pipe(),
            now: 1000,
            dice: Dice(seed),
        };
        (pair.client.flush, pair.server.flush) = (Flush::ByHand, Flush::ByHand);
        pair
    }

    /// Moves bytes once in each direction; when none can move, goes on to the next arrival or deadline. False
    /// when nothing will ever happen again.
    pub fn step(&mut self) -> bool {
        let moved = self.up.carry(&mut self.client, &mut self.server, self.now, &mut self.dice)
            | self.down.carry(&mut self.server, &mut self.client, self.now, &mut self.dice);
        moved || self.wait()
    }

    /// Lets time pass, up to the next moment at which something is due.
    fn wait(&mut self) -> bool {
        let deadlines = [self.client.connection.poll_timeout(), self.server.connection.poll_timeout()];
        let deadlines = deadlines.into_iter().flatten().map(Instant::as_millis);
        let arrivals = [&self.up, &self.down].into_iter().filter_map(Pipe::next).filter(|at| *at > self.now);
        let Some(next) = deadlines.chain(arrivals).min() else { return false };
        self.now = next.max(self.now);
        assert!(self.now < 1_000_000_000, "twelve days, and no end");
        // Called whether something is due or not: too early must do no harm.
        self.client.at(self.now);
        self.server.at(self.now);
        true
    }
}

impl Pipe {
    fn next(&self) -> Option<u64> {
        self.under_way.front().map(|(at, _)| *at)
    }

    /// Takes some bytes from `from`, and hands those that are due to `to`. Whether anything moved.
    fn carry<A: End, B: End>(
        &mut self,
        from: &mut Endpoint<A>,
        to: &mut Endpoint<B>,
        now: u64,
        dice: &mut Dice,
    ) -> bool {
        let taken = self.take(from, now, dice);
        // What waited for a flush goes on, though nothing new arrives.
        to.now = Instant::from_millis(now);
        to.turn();
        let mut given = false;
        while self.next().is_some_and(|at| at <= now) && self.give(to) {
            given = true;
        }
        taken || given
    }

    fn take<A: End>(&mut self, from: &mut Endpoint<A>, now: u64, dice: &mut Dice) -> bool {
        let free = self.capacity.saturating_sub(self.under_way.iter().map(|(_, bytes)| bytes.len()).sum());
        let most = free.min(from.pending());
        if most > 0 {
            let n = from.write(1 + dice.upto(most - 1));
            let bytes = from.sent[from.sent.len() - n..].to_vec();
            self.send(bytes, now, dice);
            return true;
        }
        let ends = from.closed.is_some() && from.pending() == 0 && !self.ended;
        if ends {
            self.ended = true;
            self.send(Vec::new(), now, dice);
        }
        ends
    }

    fn send(&mut self, bytes: Vec<u8>, now: u64, dice: &mut Dice) {
        if self.cut {
            return;
        }
        let last = self.under_way.back().map_or(0, |(at, _)| *at);
        self.under_way.push_back((last.max(now + dice.upto(self.delay) as u64), bytes));
    }

    /// False when the reader has to write first.
    fn give<B: End>(&mut self, to: &mut Endpoint<B>) -> bool {
        if to.closed.is_some() {
            self.under_way.clear();
            return false;
        }
        if !to.turn() {
            return false;
        }
        let Some((_, bytes)) = self.under_way.front_mut() else { return false };
        if bytes.is_empty() {
            to.eof();
            self.under_way.clear();
            return true;
        }
        let n = to.append(bytes);
        bytes.drain(..n);
        if bytes.is_empty() {
            self.under_way.pop_front();
        }
        to.turn();
        true
    }
}
