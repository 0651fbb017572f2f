//! Chance for jitter and for ids that nobody guesses twice.

use crate::model::Chance;

/// Seeded from the machine's own source of chance.
pub fn chance_of_machine() -> Chance {
    Chance::new(uuid::Uuid::new_v4().as_u64_pair().0)
}
