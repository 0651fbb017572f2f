//! Idempotent producers, as KIP-98 has them: what each of them sent last, so that a batch that is sent
//! again is told from a new one, and one that is out of order is refused.
//!
//! Pure but for [`save`], [`save_ahead`] and [`load`]. The table is a function of the committed log:
//! all replicas that apply the same entries hold the same, evictions included. So only what is
//! committed may be applied to a table that is saved or sent; a leader judges new batches by a
//! copy, to which it also applies what is under way.

mod codec;
mod file;
mod table;

pub use codec::{ProducersError, read_snapshot_state, snapshot_state};
pub(super) use file::{AHEAD, take_turn};
pub use file::{load, save, save_ahead};
pub use table::{BATCHES_KEPT, PRODUCERS_MAX, ProducerTable, Verdict};

#[cfg(test)]
mod tests;
