//! Tells a story, and looks at how it ends.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use longwire_core::session::backoff::Failure;
use longwire_core::session::ladder::Ending;
use longwire_embassy::{Error, Lost, Policy, Status};
use smoltcp::wire::{IpAddress, Ipv4Packet, TcpPacket};

use crate::clock;
use crate::device::{self, Dial, Readings};
use crate::dice::Dice;
use crate::flash::Flash;
use crate::gateway::Gateway;
use crate::network::{Network, Side};
use crate::plan::{Act, Plan};
use crate::stack::Stack;

const ADDRESS: IpAddress = IpAddress::v4(10, 0, 0, 2);
/// Once the network is good, everything has to be with the gateway within this time (microseconds): TCP may wait for a
/// minute, the heartbeat for 40 seconds, the next attempt for 30.
const PATIENCE: u64 = 600_000_000;
/// Turns that an end may have at one moment.
const MAX_TURNS: u32 = 10_000;
/// How often the device's tasks may be woken at one moment: more is a storm.
const MAX_POLLS: u32 = 200;
/// Microseconds in one of the clock's steps: that of the uplink counts milliseconds.
const STEP: u64 = 1000;

/// What a story counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Readings that the device took.
    pub reported: u64,
    /// Connections that the gateway has seen.
    pub connections: u64,
    /// Publications that came again, and were not stored again.
    pub repeats: u64,
    /// Publications that were refused for now.
    pub refused: u64,
    /// Readings that made room for newer ones, or were refused by a full outbox.
    pub dropped: u64,
    /// How often devices lost their memory.
    pub resets: u64,
    /// Packets on the network.
    pub packets: u64,
    /// Virtual time, in seconds.
    pub seconds: u64,
}

impl std::ops::AddAssign for Told {
    fn add_assign(&mut self, other: Self) {
        self.reported += other.reported;
        self.connections += other.connections;
        self.repeats += other.repeats;
        self.refused += other.refused;
        self.dropped += other.dropped;
        self.resets += other.resets;
        self.packets += other.packets;
        self.seconds += other.seconds;
    }
}

/// Tells the story of a seed; `Err` says what went wrong. With `trace` it says what happens.
pub fn tell(seed: u64, trace: bool) -> Result<Told, String> {
    let mut dice = Dice::new(seed);
    // Some devices have little room.
    if dice.happens(500) { World::<128>::tell(dice, trace) } else { World::<2048>::tell(dice, trace) }
}

struct World<const BYTES: usize> {
    network: Network,
    gateway: Gateway,
    device: Device<BYTES>,
    dice: Dice,
    flash: Option<Flash>,
    policy: Policy,
    /// What devices dropped before they lost their memory.
    dropped: u64,
    /// Readings that full outboxes did not take.
    refused: u64,
    resets: u64,
    packets: u64,
    next_value: u32,
    healed: Option<u64>,
    trace: bool,
}

/// A device from its start to its end.
struct Device<const BYTES: usize> {
    stack: Rc<RefCell<Stack>>,
    outbox: Rc<Readings<BYTES>>,
    tasks: Pin<Box<dyn Future<Output = Lost>>>,
    /// When a timer of its tasks ends.
    alarm: u64,
    /// They were woken.
    woken: Arc<Woken>,
    /// It must not connect earlier: the gateway said so, or it said so itself.
    not_before: u64,
    /// What the uplink said.
    observed: Rc<RefCell<Vec<Status>>>,
    /// Readings that were restored, or reported since, taken or not; and those that were not.
    reported: u32,
    refused: u32,
}

/// Whether somebody woke the device's tasks since they were polled.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<const BYTES: usize> Device<BYTES> {
    fn boot(policy: Policy, flash: Option<Flash>, dice: &mut Dice) -> Self {
        let stack = Rc::new(RefCell::new(Stack::new(ADDRESS, dice.next(), clock::now())));
        let outbox = Rc::new(Readings::<BYTES>::new(policy));
        let observed = Rc::<RefCell<Vec<Status>>>::default();
        // Ports that were not used before.
        let dial = Dial::new(&stack, dice.between(49_152, 65_000) as u16);
        let sees = observed.clone();
        let see = move |status| sees.borrow_mut().push(status);
        let tasks = device::run(outbox.clone(), flash, dial, dice.split(), see);
        let mut device = Self {
            stack,
            outbox,
            tasks: Box::pin(tasks),
            alarm: 0,
            woken: Arc::default(),
            not_before: 0,
            observed,
            reported: 0,
            refused: 0,
        };
        // The storage is there before anything is reported.
        assert!(device.poll().is_pending());
        device.reported = device.outbox.counts().reported;
        device
    }

    /// Its processor sleeps but for this.
    fn is_due(&self, now: u64) -> bool {
        self.alarm <= now || self.woken.0.load(Ordering::Relaxed)
    }

    fn poll(&mut self) -> Poll<Lost> {
        self.woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(self.woken.clone());
        let mut cx = Context::from_waker(&waker);
        let (polled, alarm) = clock::alarm(|| self.tasks.as_mut().poll(&mut cx));
        self.alarm = alarm;
        polled
    }
}

/// Whether a packet asks for a connection.
fn begins(packet: &[u8]) -> bool {
    let ip = Ipv4Packet::new_checked(packet);
    ip.is_ok_and(|ip| TcpPacket::new_checked(ip.payload()).is_ok_and(|tcp| tcp.syn()))
}

impl<const BYTES: usize> World<BYTES> {
    fn tell(mut dice: Dice, trace: bool) -> Result<Told, String> {
        clock::set(0);
        let plan = Plan::new(&mut dice);
        if trace {
            println!("{plan:#?}");
        }
        let mut world = Self::new(&plan, &mut dice, trace);
        let mut acts = plan.acts.into_iter().peekable();
        loop {
            let now = clock::now();
            while let Some((_, act)) = acts.next_if(|(at, _)| *at <= now) {
                world.act(act, now);
            }
            world.turn(now)?;
            world.check()?;
            if let Some(healed) = world.healed {
                if world.device.outbox.counts().waiting == 0 {
                    return world.end(now);
                }
                if now > healed + PATIENCE {
                    return Err(format!(
                        "{} readings are still waiting",
                        world.device.outbox.counts().waiting
                    ));
                }
            }
            let next = acts.peek().map_or(u64::MAX, |(at, _)| *at).min(world.next(now));
            // Whoever asks for a moment that has passed is looked after now.
            clock::set(next.max(now + 1).min(now + PATIENCE));
        }
    }

    fn new(plan: &Plan, dice: &mut Dice, trace: bool) -> Self {
        let flash = plan.storage.then(Flash::new);
        Self {
            network: Network::new(plan.faults, dice.split()),
            gateway: Gateway::new(plan.rules, dice.split()),
            device: Device::boot(plan.policy, flash.clone(), dice),
            dice: dice.split(),
            flash,
            policy: plan.policy,
            dropped: 0,
            refused: 0,
            resets: 0,
            packets: 0,
            next_value: 0,
            healed: None,
            trace,
        }
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:12.6} {}", clock::now() as f64 / 1e6, what());
        }
    }

    fn act(&mut self, act: Act, now: u64) {
        self.say(|| format!("{act:?}"));
        match act {
            Act::Report(readings) => {
                for _ in 0..readings {
                    let taken = self.device.outbox.reporter().try_report("a/b", None, &self.next_value);
                    self.device.reported += 1;
                    self.device.refused += u32::from(taken.is_err());
                    self.next_value += u32::from(taken.is_ok());
                }
            }
            Act::Cut { to_device, to_gateway } => {
                self.network.cut(Side::Device, to_device);
                self.network.cut(Side::Gateway, to_gateway);
            }
            Act::Restore => {
                self.network.cut(Side::Device, false);
                self.network.cut(Side::Gateway, false);
            }
            Act::Bye { retry_after, window } => self.gateway.bye(now, retry_after, window),
            Act::Kill => self.gateway.kill(),
            Act::LosePower => self.gateway.lose_power(now),
            Act::Start => self.gateway.start(),
            Act::Reset => {
                let counts = self.device.outbox.counts();
                self.dropped += u64::from(counts.dropped_oldest + counts.conflated);
                self.refused += u64::from(self.device.refused);
                self.resets += 1;
                self.device = Device::boot(self.policy, self.flash.clone(), &mut self.dice);
            }
            Act::Heal => {
                self.network.heal();
                self.healed = Some(now);
            }
        }
    }

    /// Hands over what has arrived, and lets both ends go on until they have nothing more to do.
    fn turn(&mut self, now: u64) -> Result<(), String> {
        let (mut device, mut gateway) = (self.device.is_due(now), self.gateway.next(now) <= now);
        device |= self.device.stack.borrow_mut().next(now) <= now;
        while let Some((side, packet)) = self.network.receive(now) {
            match side {
                Side::Device => self.device.stack.borrow_mut().port.came.push_back(packet),
                Side::Gateway => self.gateway.stack.port.came.push_back(packet),
            }
            (device, gateway) = (device || side == Side::Device, gateway || side == Side::Gateway);
        }
        if device {
            self.turn_device(now)?;
        }
        if gateway || self.gateway.stack.touched {
            self.turn_gateway(now)?;
        }
        Ok(())
    }

    fn turn_device(&mut self, now: u64) -> Result<(), String> {
        let mut polls = 0;
        for _ in 0..MAX_TURNS {
            let changed = self.device.stack.borrow_mut().poll(now);
            let due = self.device.is_due(now);
            if due {
                polls += 1;
                if polls > MAX_POLLS {
                    return Err("the device wakes itself without end".into());
                }
                if let Poll::Ready(lost) = self.device.poll() {
                    return Err(format!("the uplink has ended: {lost}"));
                }
                self.hear(now)?;
            }
            if !due && !changed && !self.device.stack.borrow().touched {
                let goes = std::mem::take(&mut self.device.stack.borrow_mut().port.goes);
                if now + STEP < self.device.not_before && goes.iter().any(|packet| begins(packet)) {
                    return Err("the device connects earlier than it may".into());
                }
                self.send(now, Side::Gateway, goes);
                return Ok(());
            }
        }
        Err("the device finds no end".into())
    }

    fn turn_gateway(&mut self, now: u64) -> Result<(), String> {
        for _ in 0..MAX_TURNS {
            let changed = self.gateway.stack.poll(now);
            self.gateway.turn(now);
            if let Some(violation) = self.gateway.log.violation.take() {
                return Err(format!("the gateway heard what it must not: {violation}"));
            }
            if !changed && !self.gateway.stack.touched {
                let goes = std::mem::take(&mut self.gateway.stack.port.goes);
                self.send(now, Side::Device, goes);
                return Ok(());
            }
        }
        Err("the gateway finds no end".into())
    }

    fn send(&mut self, now: u64, to: Side, packets: Vec<Vec<u8>>) {
        for packet in packets {
            self.packets += 1;
            self.network.send(now, to, packet);
        }
    }

    /// Looks at what the uplink says of itself.
    fn hear(&mut self, now: u64) -> Result<(), String> {
        let heard = self.device.observed.take();
        for status in heard {
            self.say(|| format!("uplink: {status:?}"));
            if let Status::Waiting(wait)
            | Status::Lost(Lost::Bye(_, Ending::Said(Failure::Told { retry_after: wait, .. }))) = status
            {
                let end = now + u64::try_from(wait.as_micros()).expect("a story does not last for ever");
                self.device.not_before = self.device.not_before.max(end);
            }
            // Whatever the network does, the gateway always speaks the protocol.
            if let Status::Lost(
                lost @ (Lost::BadMessage
                | Lost::WrongFrame
                | Lost::NoSubprotocol
                | Lost::Broken(Error::Protocol(_))),
            ) = status
            {
                return Err(format!("the uplink heard what nobody said: {lost}"));
            }
        }
        Ok(())
    }

    fn next(&mut self, now: u64) -> u64 {
        let device = self.device.stack.borrow_mut().next(now).min(self.device.alarm);
        device.min(self.gateway.next(now)).min(self.network.next())
    }

    /// What holds at every moment.
    fn check(&self) -> Result<(), String> {
        let counts = self.device.outbox.counts();
        let sum = counts.acknowledged + counts.lost() + counts.waiting;
        let Device { reported, refused, .. } = self.device;
        if counts.reported != sum || sum != reported || counts.dropped_newest != refused {
            return Err(format!("{reported} readings were reported and {refused} refused, but {counts:?}"));
        }
        Ok(())
    }

    /// What holds when everything has come to rest.
    fn end(self, now: u64) -> Result<Told, String> {
        let log = &self.gateway.log;
        let mut by_value = BTreeMap::new();
        let (mut last, mut earlier) = (BTreeMap::new(), BTreeMap::new());
        let mut seen = BTreeMap::new();
        for stored in &log.stored {
            // A reading has one identity for ever, and an identity one reading.
            let identity = (stored.incarnation, stored.n);
            if *by_value.entry(stored.value).or_insert(identity) != identity {
                return Err(format!("reading {} came under two numbers: {:?}", stored.value, log.stored));
            }
            if *seen.entry((identity.0.0, identity.1)).or_insert(stored.value) != stored.value {
                return Err(format!("two readings came as {identity:?}"));
            }
            // In each log a reading is stored once, and readings are stored in their order. One that is refused for now
            // comes later; and so may one that an earlier log has acknowledged, when gateway and device lose their memory.
            let again = self.resets > 0 && earlier.get(&stored.value).is_some_and(|log| *log < stored.log);
            earlier.entry(stored.value).or_insert(stored.log);
            if again {
                continue;
            }
            let before = last.insert(stored.log, stored.value);
            if log.refused == 0 && before.is_some_and(|before| before >= stored.value) {
                return Err(format!("{stored:?} came after {before:?}"));
            }
        }
        let once = |log: u32| {
            let mut values: Vec<u32> =
                self.gateway.log.stored.iter().filter(|s| s.log == log).map(|s| s.value).collect();
            values.sort_unstable();
            values.windows(2).all(|pair| pair[0] < pair[1])
        };
        if !last.keys().all(|log| once(*log)) {
            return Err("a reading was stored twice in one log".into());
        }
        let counts = self.device.outbox.counts();
        let missing = (0..self.next_value).filter(|value| !by_value.contains_key(value)).count();
        if counts.refused + counts.too_large > 0 {
            return Err(format!("readings were given up: {counts:?}"));
        }
        let dropped = self.dropped + u64::from(counts.dropped_oldest + counts.conflated);
        // What was sent is not dropped, so this is to the reading; but a reset may come before a drop is written down, and
        // takes what was counted along.
        let all = if self.resets == 0 {
            missing as u64 == dropped && by_value.len() == counts.acknowledged as usize
        } else {
            missing as u64 <= dropped
        };
        if !all {
            return Err(format!(
                "{missing} readings are missing of {}, {dropped} dropped: {counts:?}",
                self.next_value
            ));
        }
        Ok(Told {
            reported: counts.reported.into(),
            connections: self.gateway.connections,
            repeats: log.repeats,
            refused: log.refused,
            dropped: dropped + self.refused + u64::from(self.device.refused),
            resets: self.resets,
            packets: self.packets,
            seconds: now / 1_000_000,
        })
    }
}
