//! Tokens that tell which one they are.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use longwire_embassy::{Tokens, Why};

/// Gives tokens that count up, each after as many polls as it is told.
pub(crate) struct Numbered {
    next: u32,
    asked: Rc<RefCell<Vec<Why>>>,
    /// None any more, from this one on.
    last: u32,
    polls: u32,
}

impl Numbered {
    pub(crate) fn new(last: u32, polls: u32) -> (Self, Rc<RefCell<Vec<Why>>>) {
        let asked = Rc::default();
        (Self { next: 0, asked: Rc::clone(&asked), last, polls }, asked)
    }
}

impl Tokens for Numbered {
    async fn token(&mut self, why: Why, space: &mut [u8]) -> Option<usize> {
        self.asked.borrow_mut().push(why);
        let mut polls = self.polls;
        poll_fn(|_| {
            polls = polls.saturating_sub(1);
            if polls == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        self.next += 1;
        let token = format!("token-{}", self.next);
        (self.next <= self.last).then(|| space[..token.len()].copy_from_slice(token.as_bytes()))?;
        Some(token.len())
    }
}
