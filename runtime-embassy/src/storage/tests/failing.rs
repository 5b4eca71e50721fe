//! The flash takes no writes, is full, or cannot be read now and then.

use super::*;

/// A gateway that never forgets, and reads no number twice: what comes under one that was taken is swallowed.
struct Cloud {
    dice: Dice,
    taken: BTreeMap<u64, Taken>,
    /// What was sent as which (incarnation, n).
    sent: BTreeMap<(u64, u64), u64>,
    arrived: Vec<u64>,
    /// The next value to be reported.
    next: u64,
}

impl Cloud {
    fn new() -> Self {
        let (taken, sent, arrived) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self { dice: Dice(99), taken, sent, arrived, next: 0 }
    }

    fn report(&mut self, outbox: &Readings, readings: u64) {
        for _ in 0..readings {
            outbox.reporter().try_report("a", None, &self.next).unwrap();
            self.next += 1;
        }
    }

    /// What an uplink does, until there is nothing more to be sent; says as whom it began.
    fn talk(&mut self, outbox: &Readings) -> u64 {
        let mut first = None;
        loop {
            outbox.rewind();
            let incarnation = outbox.incarnation(|| self.dice.next()).0;
            first.get_or_insert(incarnation);
            loop {
                let mut sent = None;
                let send = |n, reading: crate::outbox::Reading<'_>| {
                    sent = Some((n, minicbor::decode(reading.data).unwrap()));
                    Ok::<(), ()>(())
                };
                outbox.send_next(32, send);
                let Some((n, value)) = sent else { break };
                let before = *self.sent.entry((incarnation, n)).or_insert(value);
                assert_eq!(before, value, "({incarnation:x}, {n}) was another reading");
                let taken = self.taken.entry(incarnation).or_default();
                if taken.look(n) == Number::New {
                    taken.take(n);
                    self.arrived.push(value);
                }
                outbox.acknowledge(n);
            }
            if !outbox.is_spent() {
                return first.unwrap();
            }
        }
    }

    /// The same, with a storage that writes what is wanted.
    fn settle(&mut self, outbox: &Readings, storage: &mut Kept) {
        for _ in 0..5 {
            self.talk(outbox);
            if outbox.is_wanted() {
                wait(storage.keep());
            }
        }
        assert_eq!(outbox.counts().waiting, 0);
    }

    /// Everything that was reported is there, once.
    fn is_complete(&self) {
        let mut arrived = self.arrived.clone();
        arrived.sort_unstable();
        assert_eq!(arrived, (0..self.next).collect::<Vec<_>>());
    }
}

impl Flash {
    fn protect(&self, protected: bool) {
        self.0.borrow_mut().protected = protected;
    }
}

/// A flash with so many readings, which nobody has yet.
fn flash_with(cloud: &mut Cloud, readings: u64) -> Flash {
    let (flash, outbox) = (Flash::new(), outbox());
    let mut storage = open(&flash, outbox, 1).unwrap();
    cloud.report(outbox, readings);
    wait(storage.keep());
    assert_eq!(storage.counts().errors, 0);
    flash
}

#[test]
fn what_is_reported_while_the_flash_takes_nothing_arrives_once_whatever_the_resets() {
    for (kept, silent) in [(0, false), (5, false), (0, true), (5, true)] {
        let mut cloud = Cloud::new();
        let flash = flash_with(&mut cloud, kept);
        flash.protect(!silent);
        flash.0.borrow_mut().silent = silent;
        let mut began = Vec::new();
        for life in 0..3 {
            let outbox = outbox();
            let mut storage = open(&flash, outbox, 10 + life).unwrap();
            assert_eq!((storage.counts().errors, u64::from(storage.counts().restored)), (1, kept));
            cloud.report(outbox, 10);
            wait(storage.keep());
            began.push(cloud.talk(outbox));
            for _ in 0..100 {
                cloud.report(outbox, 1);
                wait(storage.keep());
                cloud.talk(outbox);
            }
            assert_eq!(outbox.counts().waiting, 0);
        }
        cloud.is_complete();
        // What was restored has its numbers; without that, each life is a publisher of its own from the beginning.
        assert_eq!(began[0] == began[1] && began[1] == began[2], kept > 0);
        assert_eq!(cloud.taken.len() as u64, 3 + kept.min(1));
        // A flash that works again goes on where it was, and has lost nothing.
        flash.protect(false);
        flash.0.borrow_mut().silent = false;
        let outbox = outbox();
        let mut storage = open(&flash, outbox, 20).unwrap();
        assert_eq!((storage.counts().errors, u64::from(storage.counts().restored)), (0, kept));
        cloud.report(outbox, 10);
        cloud.settle(outbox, &mut storage);
        cloud.is_complete();
    }
}

#[test]
fn numbers_are_used_once_however_long_the_flash_fails_in_the_middle_of_a_life() {
    for heals_at in [None, Some(2 * JUMP), Some(JUMP / 2)] {
        let mut cloud = Cloud::new();
        let flash = flash_with(&mut cloud, 3);
        let first = outbox();
        let mut storage = open(&flash, first, 2).unwrap();
        cloud.report(first, 3);
        cloud.settle(first, &mut storage);
        flash.protect(true);
        for reading in 0..3 * JUMP {
            if heals_at == Some(reading) {
                flash.protect(false);
                wait(storage.keep());
                assert!(!storage.anew);
            }
            cloud.report(first, 1);
            if reading % 512 == 0 || first.is_wanted() {
                wait(storage.keep());
            }
            cloud.talk(first);
            assert_eq!(first.counts().waiting, 0, "{reading}");
        }
        // As another incarnation, unless the flash took something in time.
        assert_eq!(cloud.taken.len(), if heals_at == Some(JUMP / 2) { 1 } else { 2 });
        // What waits at the reset is written, if it can be.
        cloud.report(first, 2);
        wait(storage.keep());
        cloud.next -= if heals_at.is_none() { 2 } else { 0 };
        flash.protect(false);
        for life in 0..2 {
            let later = outbox();
            let mut storage = open(&flash, later, 3 + life).unwrap();
            assert_eq!(storage.counts().errors, 0);
            cloud.report(later, 10);
            cloud.settle(later, &mut storage);
        }
        cloud.is_complete();
    }
}

/// A flash in which everything is of interest, because the power failed each time when it was to be written anew.
fn full_flash(cloud: &mut Cloud) -> Flash {
    let flash = flash_with(cloud, 24);
    for seed in 0..200 {
        let before = flash.0.borrow().bytes.clone();
        // Enough for the first item, and not for the second.
        flash.power(80, false);
        let storage = open(&flash, outbox(), seed);
        flash.power(usize::MAX, false);
        if storage.is_ok_and(|storage| storage.counts().writes == 0) && flash.0.borrow().bytes == before {
            return flash;
        }
    }
    panic!("there is always room");
}

#[test]
fn a_full_flash_is_written_when_what_it_holds_is_settled_and_what_is_new_waits_for_that() {
    let mut cloud = Cloud::new();
    let flash = full_flash(&mut cloud);
    let mut began = Vec::new();
    for life in 0..3 {
        let outbox = outbox();
        let mut storage = open(&flash, outbox, 500 + life).unwrap();
        assert_eq!((storage.counts().restored, storage.counts().errors), (24, 1));
        if life < 2 {
            // It is lost with the reset, as whatever is not written; so its numbers may not be seen by anybody.
            outbox.reporter().try_report("a", None, &(1000 + life)).unwrap();
            began.push(cloud.talk(outbox));
            assert_eq!(outbox.counts().waiting, 1);
            continue;
        }
        cloud.report(outbox, 2);
        began.push(cloud.talk(outbox));
        assert_eq!(outbox.counts().waiting, 2);
        wait(storage.keep());
        assert_eq!((storage.counts().errors, storage.anew), (1, false));
        cloud.talk(outbox);
        assert_eq!(outbox.counts().waiting, 0);
    }
    let outbox = outbox();
    let mut storage = open(&flash, outbox, 600).unwrap();
    assert_eq!((storage.counts().restored, storage.counts().errors), (2, 0));
    cloud.report(outbox, 1);
    began.push(cloud.talk(outbox));
    cloud.settle(outbox, &mut storage);
    cloud.is_complete();
    assert!(began.iter().all(|incarnation| *incarnation == began[0]));
}

#[test]
fn a_write_that_failed_is_not_tried_again_before_the_delay_whoever_wants_it() {
    let mut cloud = Cloud::new();
    let (flash, outbox) = (full_flash(&mut cloud), outbox());
    let mut storage = open(&flash, outbox, 1).unwrap();
    cloud.report(outbox, 2);
    let mut observed = 0;
    {
        let mut run = pin!(storage.run(|_| observed += 1));
        for _ in 0..100 {
            cloud.talk(outbox);
            assert!(outbox.is_wanted());
            assert!(run.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
    }
    assert_eq!(observed, 0, "no time has gone by");
}

#[test]
fn a_read_that_fails_at_boot_loses_nothing_and_uses_no_number_twice() {
    let (mut failed, mut opened) = (0, 0);
    for reads in 0.. {
        let mut cloud = Cloud::new();
        let flash = flash_with(&mut cloud, 7);
        flash.0.borrow_mut().reads = Some(reads);
        let first = outbox();
        let mut opening = open(&flash, first, 2);
        match &opening {
            Ok(storage) => {
                if flash.0.borrow().reads.is_some() {
                    break;
                }
                assert_eq!((storage.counts().restored, storage.counts().damaged), (7, 0), "{reads}");
                opened += 1;
            }
            Err(error) => {
                assert_eq!(*error, OpenError::Flash(PowerFailed));
                assert_eq!((first.counts(), first.is_used()), (crate::Counts::default(), false));
                failed += 1;
            }
        }
        // Goes on, with a storage or without one.
        cloud.report(first, 5);
        match &mut opening {
            Ok(storage) => cloud.settle(first, storage),
            Err(_) => drop(cloud.talk(first)),
        }
        assert_eq!(first.counts().waiting, 0);
        // One that works.
        let second = outbox();
        let mut storage = open(&flash, second, 3).unwrap();
        cloud.report(second, 5);
        cloud.settle(second, &mut storage);
        cloud.is_complete();
    }
    assert!(failed > 10 && opened > 10, "{failed} {opened}");
    // And what could not be opened may be, a moment later.
    let mut cloud = Cloud::new();
    let flash = flash_with(&mut cloud, 7);
    flash.0.borrow_mut().reads = Some(20);
    let outbox = outbox();
    assert!(open(&flash, outbox, 2).is_err());
    assert_eq!(open(&flash, outbox, 2).unwrap().counts().restored, 7);
    cloud.talk(outbox);
    cloud.is_complete();
}
