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
