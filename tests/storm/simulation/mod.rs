//! The storm, simulated: what many clients do to a server that goes away and comes back.

pub(crate) mod client;
mod dice;
pub(crate) mod server;
pub(crate) mod world;

use client::Rule;
use server::Capacity;
use std::time::Duration;
use world::{End, Story};

/// The stories that are told: a restart in good order, away for two seconds; and a death, away for ten. 100,000 clients,
/// a window of 5 s.
pub(crate) fn stories(rule: Rule, seed: u64) -> [Story; 2] {
    let story = |end, away| Story {
        clients: 100_000,
        rule,
        end,
        away: Duration::from_secs(away),
        window: Duration::from_secs(5),
        capacity: Capacity::default(),
        seed,
    };
    [story(End::Graceful, 2), story(End::Killed, 10)]
}

/// Connects per second that the window announces.
pub(crate) fn announced(story: &Story) -> f64 {
    f64::from(story.clients) / story.window.as_secs_f64()
}
