//! Stories of a device that loses its connection, and comes back: the real uplink over smoltcp, against a model of the
//! gateway over smoltcp, with a bad network in between. All under virtual time, and all chance from one seed: a story
//! that goes wrong goes wrong again.
//!
//! In every story the device takes readings while the network loses, doubles, changes, delays and reorders packets, is
//! cut in one direction or both, and while the gateway drains, is killed, or loses its power. Some devices have a storage,
//! and lose their power, too. Then the network heals, and when the outbox is empty it must be true that
//! - no reading that was taken and not dropped is missing at the gateway, and none was refused as out of its window;
//! - each has one (incarnation, n), whenever it came, and no other has the same;
//! - in each log (a gateway may lose its log in a restart) each is stored once, and all in their order;
//! - and at every moment the counters of the outbox add up.
//!
//! The device's tasks are polled only when they were woken or a timer of theirs ended, as in a microcontroller: who forgets to
//! wake them stands still, and who wakes them without end fails the story. Nor may the device connect earlier than `bye`, or it
//! itself, said.

mod clock;
mod device;
mod dice;
mod flash;
mod gateway;
mod network;
mod plan;
mod session;
mod stack;
mod story;

pub use story::{Told, tell};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_tells_the_same_story_again() {
        for seed in 0..100 {
            let told = tell(seed, false).expect("a good story");
            assert_eq!(tell(seed, false), Ok(told), "seed {seed}");
        }
    }

    #[test]
    fn stories_have_trouble() {
        let mut sum = Told::default();
        let stories = 500;
        (0..stories).for_each(|seed| sum += tell(seed, false).expect("a good story"));
        assert!(sum.connections > 3 * stories / 2, "{sum:?}");
        assert!(sum.repeats > 0 && sum.refused > 0 && sum.dropped > 0 && sum.resets > 0, "{sum:?}");
    }
}
