//! Tokens that the settings say, one after the other.

use longwire_embassy::{Tokens, Why};

/// Tokens with commas in between. The next one is used when the gateway asks for another.
pub(crate) struct List<'a> {
    rest: &'a str,
}

impl<'a> List<'a> {
    pub(crate) fn new(tokens: &'a str) -> Self {
        Self { rest: tokens }
    }
}

impl Tokens for List<'_> {
    async fn token(&mut self, why: Why, space: &mut [u8]) -> Option<usize> {
        if why != Why::Connect {
            self.rest = self.rest.split_once(',')?.1;
        }
        let token = self.rest.split(',').next()?.as_bytes();
        space.get_mut(..token.len())?.copy_from_slice(token);
        Some(token.len())
    }
}
