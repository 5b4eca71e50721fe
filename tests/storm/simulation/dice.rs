//! Randomness that can be repeated.

use longwire_core::rand_core::{Infallible, TryRng};
use longwire_tests::rng::Rng;

/// What all chance of a story comes from.
pub(crate) struct Dice(Rng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rng::new(seed))
    }

    /// A number from 0 to `max`, which is small against 2^64.
    pub(crate) fn up_to(&mut self, max: u64) -> u64 {
        self.0.below(max + 1)
    }
}

impl TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.0.any() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.any())
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        to.iter_mut().for_each(|byte| *byte = self.0.any() as u8);
        Ok(())
    }
}
