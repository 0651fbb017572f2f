//! The commit log library: a plain, synchronous, single-owner [`Log`] over a [`disk::Disk`] and a
//! clock; and [`LogView`], through which any number of threads read without a lock.
//!
//! Terms: a *record batch* is Kafka's layout, a *frame* is one Raft entry on disk, a *store* is a
//! file of frames, a *segment* is a store with its index and time index, the *log* is all
//! segments. `docs/formats/segment.md` draws the bytes.
//!
//! The writer, owned by one thread that may block:
//! ```text
//! Log::open(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, directory: &Path, options: LogOptions,
//!           progress: &mut dyn FnMut(u64, u64)) -> Result<(Log, Recovered), LogError>
//! log.view() -> Arc<LogView>
//! log.append(&[Entry]) -> Result<Appended, LogError>      nothing is durable yet
//! log.sync() -> Result<Synced, LogError>                  the only way to a Synced
//! log.written() -> Written                                the weaker levels
//! log.truncate_after(RaftIndex) -> Result<(), LogError>   log.truncate_before(Offset) -> Result<Removed, _>
//! log.retain(committed: Offset) -> Result<Removed, _>     log.checkpoint() -> Result<(), _>
//! log.reset(ResetTo) -> Result<(), _>                     begins anew behind a snapshot
//! log.zero_ahead(budget_bytes: u64) -> Result<bool, _>    true: more to do when idle again
//! log.close(self) -> Result<(), _>
//! log.{next_offset, first_index, last_index, durable_index, log_start, last_term, is_poisoned}()
//! ```
//! Idempotent producers: [`producers::ProducerTable`], kept by whoever applies entries.
//!
//! The readers:
//! ```text
//! view.read(from: Offset, until: Offset, max_bytes: usize, ReadMode) -> Result<ReadOutcome, LogError>
//! view.entry(RaftIndex) -> Result<StoredEntry, LogError>
//! view.entries(first: RaftIndex, count_max: u64, bytes_max: u64) -> Result<Vec<StoredEntry>, LogError>
//! view.fit(low: RaftIndex, high: RaftIndex, bytes_max: u64) -> u64   from memory
//! view.end_of(RaftIndex) -> Option<Offset>                           from memory
//! view.find_time(at: Timestamp, until: Offset) -> Result<Offset, LogError>
//! view.start() -> Offset   view.next_offset() -> Offset (written, maybe not durable)
//! view.size_bytes() -> u64   view.segments() -> usize
//! ```

pub mod batch;
pub mod disk;
pub mod frame;
pub mod inspect;
pub mod producers;
pub mod stable;

mod buffer;
mod checkpoint;
mod chunk;
mod commit_log;
pub(crate) mod control;
mod entries;
mod entry;
mod error;
mod idle;
mod index;
mod options;
mod recovery;
mod reset;
mod roll;
mod scan;
mod seek;
mod segment;
mod space;
mod spare;
mod survey;
mod time_index;
mod trim;
mod view;
mod zeros;

pub use commit_log::Log;
pub use entry::{
    Appended, Chunk, Entry, EntryPayload, Placed, ReadMode, ReadOutcome, Recovered, Removed,
    ResetTo, StoredEntry, Synced, Written,
};
pub use error::LogError;
pub use options::LogOptions;
pub use view::LogView;

#[cfg(test)]
mod tests;
