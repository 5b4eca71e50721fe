//! What happens in a story: all of it follows from the seed.

use longwire_embassy::Policy;

use crate::dice::Dice;
use crate::gateway::Rules;
use crate::network::Faults;

const MS: u64 = 1000;
const SECOND: u64 = 1000 * MS;
/// Trouble begins within this time.
const TROUBLE: u64 = 30 * SECOND;

/// Something that happens at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// So many readings are reported.
    Report(u32),
    /// The network swallows what goes to the device, to the gateway, or both.
    Cut { to_device: bool, to_gateway: bool },
    /// It does so no more.
    Restore,
    /// The gateway says `bye`: nobody is to come back before `retry_after`, and all within `window` then (microseconds).
    Bye { retry_after: u64, window: u64 },
    /// Its process is killed.
    Kill,
    /// Its machine loses its power.
    LosePower,
    /// It runs again.
    Start,
    /// The device loses its memory, and keeps its flash.
    Reset,
    /// From here on the network is good.
    Heal,
}

/// A story before it is told.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) faults: Faults,
    pub(crate) rules: Rules,
    pub(crate) policy: Policy,
    /// Whether the device has a storage.
    pub(crate) storage: bool,
    /// By time.
    pub(crate) acts: Vec<(u64, Act)>,
}

impl Plan {
    pub(crate) fn new(dice: &mut Dice) -> Self {
        let mut acts = Vec::new();
        report(dice, &mut acts);
        for _ in 0..dice.between(0, 6) {
            cut(dice, &mut acts);
        }
        restarts(dice, &mut acts);
        let storage = dice.happens(400);
        for _ in 0..if storage { dice.between(0, 4) } else { 0 } {
            acts.push((dice.between(0, 2 * TROUBLE), Act::Reset));
        }
        let healed = acts.iter().map(|(at, _)| *at).max().unwrap_or(0) + dice.between(0, 10 * SECOND);
        acts.push((healed, Act::Heal));
        // Stable: what was planned first happens first.
        acts.sort_by_key(|(at, _)| *at);
        let bad = dice.happens(700);
        let up_to = |dice: &mut Dice, most| if bad { dice.between(0, most) } else { 0 };
        Self {
            faults: Faults {
                lost: up_to(dice, 200),
                doubled: up_to(dice, 100),
                corrupted: up_to(dice, 50),
                delay: dice.one_of(&[100, 5 * MS, 40 * MS, 300 * MS]),
                jitter: up_to(dice, 50 * MS),
            },
            rules: Rules {
                keeps: dice.happens(500),
                max_in_flight: dice.one_of(&[1, 2, 8, 64]),
                ack_within: dice.one_of(&[0, 50 * MS, SECOND]),
                refuses: dice.one_of(&[0, 0, 0, 100]),
            },
            policy: dice.one_of(&[Policy::DropOldest, Policy::DropNewest, Policy::Conflate]),
            storage,
            acts,
        }
    }
}

/// Readings come one by one, or many at once.
fn report(dice: &mut Dice, acts: &mut Vec<(u64, Act)>) {
    let mut left = dice.between(1, 60) as u32;
    let burst = dice.one_of(&[1, 1, 5, 30]);
    let mut at = dice.between(0, SECOND);
    while left > 0 {
        let now = left.min(dice.between(1, burst) as u32);
        acts.push((at, Act::Report(now)));
        left -= now;
        at += dice.between(MS, 2 * SECOND);
    }
}

fn cut(dice: &mut Dice, acts: &mut Vec<(u64, Act)>) {
    let at = dice.between(0, TROUBLE);
    let (to_device, to_gateway) = dice.one_of(&[(true, true), (true, true), (true, false), (false, true)]);
    acts.push((at, Act::Cut { to_device, to_gateway }));
    let lasts = dice.one_of(&[100 * MS, 20 * SECOND, 60 * SECOND]);
    acts.push((at + dice.between(MS, lasts), Act::Restore));
}

/// One after the other: a gateway that is away cannot be killed.
fn restarts(dice: &mut Dice, acts: &mut Vec<(u64, Act)>) {
    let mut at = 0;
    for _ in 0..dice.between(0, 3) {
        at += dice.between(0, TROUBLE);
        let window = dice.between(0, 20) * SECOND;
        let retry_after = dice.between(0, 5) * SECOND;
        let end = dice.one_of(&[Act::Bye { retry_after, window }, Act::Kill, Act::LosePower]);
        acts.push((at, end));
        if matches!(end, Act::Bye { .. }) {
            // It drains before it ends.
            at += dice.between(MS, 5 * SECOND);
            acts.push((at, Act::Kill));
        }
        at += dice.between(0, 30 * SECOND);
        acts.push((at, Act::Start));
    }
}
