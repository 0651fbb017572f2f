//! Chance that can be had again: from one number, printed when a test fails.

use std::hash::{BuildHasher, RandomState};

/// The environment variable that sets the seed, in decimal.
pub const SEED_VARIABLE: &str = "DURAMEN_SEED";

/// The seed of a test: [`SEED_VARIABLE`] where it is set, else a new one each time.
///
/// # Panics
/// When the variable holds no number.
pub fn seed() -> u64 {
    match std::env::var(SEED_VARIABLE) {
        Ok(text) => text.trim().parse().unwrap_or_else(|_| {
            panic!("{SEED_VARIABLE}=\"{text}\" is no number; try {SEED_VARIABLE}=7")
        }),
        Err(_) => RandomState::new().hash_one(0),
    }
}

/// Numbers that look random and are the same for the same seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// The next number below `bound`; 0 where the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64().checked_rem(bound).unwrap_or(0)
    }
}
