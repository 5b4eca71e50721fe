//! Tokens that the settings say, one after the other.

use longwire_embassy::{Tokens, Why};

/// Tokens with commas in between. The next one is used when the gateway asks for another. When it refuses the last one it is the first
/// one's turn again: a gateway that did not know any of them may have been told since.
pub(crate) struct List<'a> {
    all: &'a str,
    rest: &'a str,
}

impl<'a> List<'a> {
    pub(crate) fn new(tokens: &'a str) -> Self {
        Self { all: tokens, rest: tokens }
    }
}

impl Tokens for List<'_> {
    async fn token(&mut self, why: Why, space: &mut [u8]) -> Option<usize> {
        self.rest = match (why, self.rest.split_once(',')) {
            (Why::Connect, _) => self.rest,
            (_, Some((_, rest))) => rest,
            (Why::Refused, None) => self.all,
            // The connection has one, which it keeps while it is good.
            (_, None) => return None,
        };
        let token = self.rest.split(',').next()?.as_bytes();
        space.get_mut(..token.len())?.copy_from_slice(token);
        Some(token.len())
    }
}
