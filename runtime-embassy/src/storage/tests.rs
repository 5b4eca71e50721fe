//! The power fails at every word that is written, and in every erase.

mod failing;

use super::*;
use crate::outbox::{Policy, ReportError, Source};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embedded_storage_async::nor_flash::{ErrorType, NorFlashError, NorFlashErrorKind, ReadNorFlash};
use longwire_core::session::publisher::{Number, Taken};
use std::boxed::Box;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::vec;
use std::vec::Vec;

const PAGE: usize = 1024;
const PAGES: usize = 12;
const WORD: usize = 4;

type Readings = Outbox<NoopRawMutex, 256>;
type Kept = Storage<'static, Flash, NoopRawMutex, 256, 256>;

/// A flash whose power fails.
#[derive(Clone)]
struct Flash(Rc<RefCell<Chip>>);

struct Chip {
    bytes: Vec<u8>,
    /// Words and erases until the power fails.
    left: usize,
    /// What was under way is done by half then, or not at all.
    half: bool,
    done: usize,
    erases: usize,
    /// It can be read only.
    protected: bool,
    /// And does not say so.
    silent: bool,
    /// So many reads succeed before one fails; `None` when all do.
    reads: Option<usize>,
}

/// The power failed, or the flash did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PowerFailed;

impl NorFlashError for PowerFailed {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl Flash {
    fn new() -> Self {
        Self(Rc::new(RefCell::new(Chip::new(vec![0xff; PAGE * PAGES]))))
    }

    fn power(&self, left: usize, half: bool) {
        let mut chip = self.0.borrow_mut();
        (chip.left, chip.half, chip.done) = (left, half, 0);
    }

    fn failed(&self) -> bool {
        self.0.borrow().left == 0
    }
}

impl Chip {
    fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            left: usize::MAX,
            half: false,
            done: 0,
            erases: 0,
            protected: false,
            silent: false,
            reads: None,
        }
    }

    /// Whether there is power for one thing more; `Err` when it fails in that, or has failed.
    fn spend(&mut self) -> Result<(), PowerFailed> {
        if self.left == 0 || self.protected {
            return Err(PowerFailed);
        }
        self.left -= 1;
        self.done += 1;
        Ok(())
    }
}

impl ErrorType for Flash {
    type Error = PowerFailed;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), PowerFailed> {
        let mut chip = self.0.borrow_mut();
        if chip.reads == Some(0) {
            chip.reads = None;
            return Err(PowerFailed);
        }
        chip.reads = chip.reads.map(|reads| reads - 1);
        bytes.copy_from_slice(&chip.bytes[offset as usize..][..bytes.len()]);
        if chip.left == 0 { Err(PowerFailed) } else { Ok(()) }
    }

    fn capacity(&self) -> usize {
        PAGE * PAGES
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), PowerFailed> {
        let mut chip = self.0.borrow_mut();
        if chip.silent {
            return Ok(());
        }
        for page in (from as usize..to as usize).step_by(PAGE) {
            chip.spend()?;
            chip.erases += 1;
            let failed = chip.left == 0;
            let len = if !failed {
                PAGE
            } else if chip.half {
                PAGE / 2
            } else {
                0
            };
            chip.bytes[page..][..len].fill(0xff);
            if failed {
                return Err(PowerFailed);
            }
        }
        Ok(())
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), PowerFailed> {
        assert!((offset as usize).is_multiple_of(WORD) && bytes.len().is_multiple_of(WORD));
        let mut chip = self.0.borrow_mut();
        if chip.silent {
            return Ok(());
        }
        for (at, word) in bytes.chunks(WORD).enumerate() {
            chip.spend()?;
            let failed = chip.left == 0;
            let to = &mut { chip.half };
            let half = *to;
            let at = offset as usize + at * WORD;
            for (byte, new) in chip.bytes[at..][..WORD].iter_mut().zip(word) {
                *byte &= if !failed {
                    *new
                } else if half {
                    *new | 0x5a
                } else {
                    0xff
                };
            }
            if failed {
                return Err(PowerFailed);
            }
        }
        Ok(())
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("nothing here waits"),
    }
}

/// SplitMix64.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

impl longwire_core::rand_core::TryCryptoRng for Dice {}

impl longwire_core::rand_core::TryRng for Dice {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.next() as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.fill_with(|| self.next() as u8);
        Ok(())
    }
}

fn outbox() -> &'static Readings {
    const POLICIES: &[(&str, Policy)] = &[("keep", Policy::DropNewest), ("last", Policy::Conflate)];
    let readings = Box::leak(Box::new(Readings::new(Policy::DropOldest)));
    readings.set_policies(POLICIES, Policy::DropOldest);
    readings
}

fn open(flash: &Flash, outbox: &'static Readings, seed: u64) -> Result<Kept, OpenError<PowerFailed>> {
    let range = 0..u32::try_from(PAGE * PAGES).unwrap();
    wait(Storage::open(flash.clone(), range, outbox, &mut Dice(seed), StorageConfig::new()))
}

/// A device over several lives, and a gateway that forgets nothing.
struct World {
    flash: Flash,
    dice: Dice,
    next_value: u64,
    /// Which reading has which number, in any life.
    values: BTreeMap<(u64, u64), u64>,
    /// Those that were written and neither answered nor dropped: they may not be lost.
    promised: BTreeMap<u64, u64>,
    taken: Taken,
    stored: Vec<(u64, u64)>,
    incarnation: Option<u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            flash: Flash::new(),
            dice: Dice(seed),
            next_value: 0,
            values: BTreeMap::new(),
            promised: BTreeMap::new(),
            taken: Taken::new(),
            stored: Vec::new(),
            incarnation: None,
        }
    }

    fn report(&mut self, outbox: &Readings, topic: &str) {
        let value = self.next_value;
        match outbox.reporter().try_report(topic, None, &value) {
            Ok(()) => {
                self.next_value += 1;
                let number = (outbox.incarnation(|| 0).0, outbox.newest());
                assert_eq!(self.values.insert(number, value), None, "a number was used twice: {number:?}");
            }
            Err(error) => assert_eq!(error, ReportError::Full),
        }
        self.promised.retain(|n, _| outbox.is_held(*n));
    }

    /// The gateway takes up to so many readings, and answers or not.
    fn send(&mut self, outbox: &Readings, most: u64, answers: bool) {
        outbox.rewind();
        let incarnation = outbox.incarnation(|| 0).0;
        assert_eq!(*self.incarnation.get_or_insert(incarnation), incarnation);
        let mut last = None;
        for _ in 0..most {
            let send = |n, reading: crate::outbox::Reading<'_>| {
                Ok::<_, ()>((n, minicbor::decode(reading.data).unwrap()))
            };
            let mut sent = None;
            outbox.send_next(32, |n, reading| send(n, reading).map(|reading| sent = Some(reading)));
            let Some((n, value)) = sent else { break };
            assert_eq!(self.values.get(&(incarnation, n)), Some(&value), "{n} is another reading");
            match self.taken.look(n) {
                Number::New => {
                    self.taken.take(n);
                    assert!(
                        self.stored.last().is_none_or(|(last, _)| *last < n),
                        "{n} behind {:?}",
                        self.stored
                    );
                    self.stored.push((n, value));
                }
                Number::Repeated => {}
                Number::OutOfWindow => panic!("{n} is not known any more"),
            }
            last = Some(n);
        }
        if let Some(n) = last.filter(|_| answers) {
            outbox.acknowledge(n);
        }
        self.promised.retain(|n, _| outbox.is_held(*n));
    }

    /// Everything that is held was written.
    fn kept(&mut self, outbox: &Readings) {
        let mut last = 0;
        while let Some((n, value)) =
            outbox.first_after(last, |n, reading| (n, minicbor::decode(reading.data).unwrap()))
        {
            self.promised.insert(n, value);
            last = n;
        }
    }

    /// The same world, to go another way.
    fn fork(&self) -> Self {
        let chip = self.flash.0.borrow();
        let chip = Chip { erases: chip.erases, ..Chip::new(chip.bytes.clone()) };
        Self {
            flash: Flash(Rc::new(RefCell::new(chip))),
            dice: self.dice.clone(),
            values: self.values.clone(),
            promised: self.promised.clone(),
            taken: self.taken.clone(),
            stored: self.stored.clone(),
            ..*self
        }
    }

    /// A life, until the power fails or so many things have happened.
    fn live(&mut self, things: usize) {
        let outbox = outbox();
        let seed = self.dice.next();
        let Ok(mut storage) = open(&self.flash, outbox, seed) else {
            assert!(self.flash.failed());
            return;
        };
        if self.flash.failed() {
            return;
        }
        // What was promised is there again; or it would be, with power.
        for (n, value) in &self.promised {
            let there = outbox.first_after(n - 1, |n, reading| (n, minicbor::decode(reading.data).unwrap()));
            assert_eq!(there, Some((*n, *value)));
        }
        for _ in 0..things {
            match self.dice.below(10) {
                0..=3 => self.report(outbox, "a"),
                4 => self.report(outbox, "keep"),
                5 => self.report(outbox, "last"),
                6 => self.send(outbox, 3, false),
                7 => {
                    let most = self.dice.below(20);
                    self.send(outbox, most, true);
                }
                _ => {
                    wait(storage.keep());
                    if !self.flash.failed() {
                        self.kept(outbox);
                    }
                }
            }
            if self.flash.failed() {
                return;
            }
        }
    }

    /// A last life, in which everything gets through.
    fn end(mut self) -> Self {
        self.flash.power(usize::MAX, false);
        let outbox = outbox();
        let mut storage = open(&self.flash, outbox, 1).unwrap();
        self.report(outbox, "a");
        for _ in 0..1000 {
            self.send(outbox, u64::MAX, true);
            wait(storage.keep());
            if outbox.counts().waiting == 0 {
                break;
            }
        }
        assert_eq!(outbox.counts().waiting, 0);
        assert!(self.promised.is_empty());
        self
    }
}

#[test]
fn the_power_may_fail_at_every_word() {
    let mut erases = 0;
    for seed in 0..2 {
        // A flash that has gone round, so that pages are erased.
        let mut before = World::new(seed);
        before.live(1500);
        let mut whole = before.fork();
        whole.live(60);
        let words = whole.flash.0.borrow().done;
        assert!(words > 100, "{words}");
        erases += whole.flash.0.borrow().erases - before.flash.0.borrow().erases;
        for half in [false, true] {
            for left in 1..=words {
                let mut world = before.fork();
                world.flash.power(left, half);
                world.live(60);
                assert!(world.flash.failed());
                world.flash.power(usize::MAX, false);
                world.live(10);
                world.end();
            }
        }
    }
    assert!(erases > 0);
}

#[test]
fn the_power_may_fail_in_every_life() {
    let mut erases = 0;
    for seed in 0..50 {
        let mut world = World::new(seed);
        for _ in 0..20 {
            let (left, half) = (1 + world.dice.below(1500) as usize, world.dice.below(2) == 0);
            world.flash.power(left, half);
            let things = world.dice.below(300) as usize;
            world.live(things);
        }
        erases += world.end().flash.0.borrow().erases;
    }
    assert!(erases > 50, "the flash goes round: {erases}");
}

#[test]
fn a_damaged_flash_loses_readings_and_nothing_else() {
    let mut damaged = 0;
    for seed in 0..300 {
        let mut world = World::new(seed);
        for _ in 0..5 {
            world.live(40);
            for _ in 0..3 {
                let (at, bit) = (world.dice.below((PAGE * PAGES) as u64) as usize, world.dice.below(8));
                world.flash.0.borrow_mut().bytes[at % (2 * PAGE)] ^= 1 << bit;
            }
            // Nothing is promised any more; no number is used twice, and none has another reading (`report` and `send`).
            world.promised.clear();
            world.incarnation = None;
            world.taken = Taken::new();
            world.stored.clear();
        }
        let storage = open(&world.flash, outbox(), 1).unwrap();
        damaged += storage.counts().damaged;
    }
    assert!(damaged > 0);
    // What was never a queue.
    let flash = Flash::new();
    flash.0.borrow_mut().bytes.fill_with({
        let mut dice = Dice(7);
        move || dice.next() as u8
    });
    let outbox = outbox();
    let mut storage = open(&flash, outbox, 1).unwrap();
    assert!(storage.counts().damaged > 0);
    outbox.reporter().try_report("a", None, &1).unwrap();
    wait(storage.keep());
    assert_eq!(open(&flash, self::outbox(), 1).unwrap().counts().restored, 1);
}

#[test]
fn what_is_answered_in_time_costs_no_write() {
    let (flash, outbox) = (Flash::new(), outbox());
    let mut storage = open(&flash, outbox, 1).unwrap();
    let mut world = World::new(1);
    for _ in 0..1000 {
        world.report(outbox, "a");
        world.send(outbox, 1, true);
        wait(storage.keep());
    }
    assert_eq!(storage.counts().writes, 1);
    // A cut of 12 readings, in three batches; then they are acknowledged one by one, and that is written once.
    for _ in 0..3 {
        (0..4).for_each(|_| world.report(outbox, "a"));
        wait(storage.keep());
    }
    assert_eq!(storage.counts().writes, 4);
    for _ in 0..12 {
        world.send(outbox, 1, true);
        wait(storage.keep());
    }
    assert_eq!(storage.counts().writes, 5);
}

#[test]
fn no_number_is_sent_with_two_readings_however_many_come_before_a_write() {
    /// Reports this many, and sends what may be sent; all of it is acknowledged at once.
    fn report_and_send(outbox: &Readings, readings: u64, sent: &mut BTreeMap<u64, u64>, next: &mut u64) {
        for _ in 0..readings {
            outbox.reporter().try_report("a", None, &*next).unwrap();
            *next += 1;
            let mut last = 0;
            let mut send = |n, reading: crate::outbox::Reading<'_>| {
                let value: u64 = minicbor::decode(reading.data).unwrap();
                assert_eq!(*sent.entry(n).or_insert(value), value, "{n} was another reading");
                last = n;
                Ok::<(), ()>(())
            };
            while outbox.send_next(32, &mut send).is_some() {}
            outbox.acknowledge(last);
        }
    }
    let (flash, mut sent, mut next) = (Flash::new(), BTreeMap::new(), 0);
    let first = outbox();
    let _storage = open(&flash, first, 1).unwrap();
    // All within one delay.
    report_and_send(first, JUMP + 100, &mut sent, &mut next);
    assert_eq!(sent.len() as u64, JUMP);
    assert!(first.is_wanted(), "what waits asks for a write");
    // A reset, before there was one; then a life in which whoever asks gets it.
    let second = outbox();
    let mut storage = open(&flash, second, 1).unwrap();
    for _ in 0..2 * JUMP {
        report_and_send(second, 1, &mut sent, &mut next);
        if second.is_wanted() {
            wait(storage.keep());
        }
    }
    report_and_send(second, 1, &mut sent, &mut next);
    assert!(sent.len() as u64 >= 3 * JUMP, "{}", sent.len());
    assert!(storage.counts().writes < 40, "{:?}", storage.counts());
}

#[test]
fn what_cannot_be_opened() {
    let flash = Flash::new();
    let try_open = |range, outbox| {
        wait(Kept::open(flash.clone(), range, outbox, &mut Dice(1), StorageConfig::new())).map(|_| ())
    };
    assert_eq!(try_open(0..4096, outbox()), Err(OpenError::TooSmall));
    assert_eq!(try_open(8..12 * 1024 + 8, outbox()), Err(OpenError::BadRange));
    let used = outbox();
    used.reporter().try_report("a", None, &1).unwrap();
    assert_eq!(try_open(0..12 * 1024, used), Err(OpenError::InUse));
    assert_eq!(try_open(0..12 * 1024, outbox()), Ok(()));
}

#[test]
fn a_flash_that_takes_nothing_stops_nobody() {
    let (flash, outbox) = (Flash::new(), outbox());
    let mut storage = open(&flash, outbox, 1).unwrap();
    let mut world = World::new(1);
    flash.power(1, false);
    for _ in 0..200 {
        world.report(outbox, "a");
        wait(storage.keep());
    }
    assert!(storage.counts().errors > 0 && outbox.counts().dropped_oldest > 0);
    for _ in 0..100 {
        world.send(outbox, u64::MAX, true);
        wait(storage.keep());
    }
    assert_eq!(outbox.counts().waiting, 0);
}
