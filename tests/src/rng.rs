//! Random choices that can be repeated.

/// SplitMix64: small, and good enough to choose with.
pub struct Rng(u64);

impl Rng {
    /// The seed of `$LONGWIRE_SEED`, or of the clock. It is printed, so that a failure can be repeated.
    pub fn from_env() -> Self {
        let seed = match std::env::var("LONGWIRE_SEED") {
            Ok(seed) => seed.parse().expect("LONGWIRE_SEED is a number"),
            Err(_) => std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_nanos() as u64,
        };
        println!("LONGWIRE_SEED={seed}");
        Self(seed)
    }

    /// One with this seed, for a part of a test that has a seed of its own from another.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which is not 0 and small against 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.any() % bound
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
