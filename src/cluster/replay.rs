//! From the records of the controller's group to the catalogue: what each record does, and what a
//! reader does that begins in the middle.

use super::catalogue::Catalogue;
use super::command::{Outcome, Rejection};
use super::record::{CatalogueRecord, RecordError};
use crate::model::{Disposition, Offset};

/// Commands after which the catalogue is written out again.
const SNAPSHOT_COMMANDS: u64 = 1_000;
/// Bytes of commands after which it is.
const SNAPSHOT_BYTES: u64 = 1 << 20;

/// Folds records into a catalogue, in the order of their offsets.
#[derive(Debug, Clone)]
pub struct Replay {
    /// `None` until the first snapshot, where the log does not begin at its beginning.
    catalogue: Option<Catalogue>,
    next: Offset,
    /// The newest snapshot that lies in its place.
    written_at: Option<Offset>,
    commands: u64,
    bytes: u64,
}

/// What a record did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Folded {
    /// A command, and what the catalogue said.
    Applied(Result<Outcome, Rejection>),
    /// Nothing that changes the catalogue.
    Passed,
}

/// Why the catalogue cannot be followed any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A record cannot be read.
    #[error("the catalogue stops at offset {offset} of the controller's log: {source}")]
    Record {
        /// Which.
        offset: Offset,
        /// Why.
        source: RecordError,
    },
    /// Two nodes have made different catalogues of the same commands.
    #[error(
        "the catalogue of this node differs at offset {offset} from the one that the cluster \
         wrote down: report it, and restart this node with a program of the cluster's version"
    )]
    Diverged {
        /// Where that shows.
        offset: Offset,
    },
    /// Records are missing.
    #[error("the controller's log goes on at {found}, not at {expected}")]
    Gap {
        /// Where it should.
        expected: Offset,
        /// Where it does.
        found: Offset,
    },
}

impl ReplayError {
    /// Who must act: a person; a restart reads the same records.
    pub fn disposition(&self) -> Disposition {
        Disposition::Quarantine
    }
}

impl Replay {
    /// A reader of a log that begins at `start`.
    pub fn from(start: Offset) -> Self {
        let catalogue = (start == Offset(0)).then(Catalogue::default);
        Self { catalogue, next: start, written_at: None, commands: 0, bytes: 0 }
    }

    /// The catalogue before [`Replay::next`]; `None` until it is known.
    pub fn catalogue(&self) -> Option<&Catalogue> {
        self.catalogue.as_ref()
    }

    /// The offset of the next record.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// The snapshot taken last: a reader that begins there, or anywhere before, misses nothing.
    pub fn written_at(&self) -> Option<Offset> {
        self.written_at
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// [`ReplayError`]: the record was not taken, and none after it can be.
    pub fn fold(&mut self, offset: Offset, record: &[u8]) -> Result<Folded, ReplayError> {
        if offset != self.next {
            return Err(ReplayError::Gap { expected: self.next, found: offset });
        }
        let decoded = CatalogueRecord::decode(record)
            .map_err(|source| ReplayError::Record { offset, source })?;
        let folded = match (decoded, &mut self.catalogue) {
            (CatalogueRecord::Command { command, absent, by }, Some(catalogue)) => {
                (self.commands, self.bytes) = (self.commands + 1, self.bytes + record.len() as u64);
                let judged = by.map_or(Ok(()), |by| catalogue.access.judge(&by, &command));
                Folded::Applied(judged.and_then(|()| catalogue.apply_avoiding(&command, &absent)))
            }
            (CatalogueRecord::Command { .. }, None) => Folded::Passed,
            (CatalogueRecord::Snapshot { at, .. }, _) if at != offset => Folded::Passed,
            (CatalogueRecord::Snapshot { catalogue, .. }, Some(ours)) if catalogue != *ours => {
                return Err(ReplayError::Diverged { offset });
            }
            (CatalogueRecord::Snapshot { catalogue, .. }, _) => {
                (self.catalogue, self.written_at) = (Some(catalogue), Some(offset));
                (self.commands, self.bytes) = (0, 0);
                Folded::Passed
            }
        };
        self.next = offset.next();
        Ok(folded)
    }

    /// The record that writes the catalogue down, when it is time to.
    pub fn snapshot_due(&self) -> Option<CatalogueRecord> {
        let catalogue = self.catalogue.as_ref()?;
        let is_due = self.commands >= SNAPSHOT_COMMANDS || self.bytes >= SNAPSHOT_BYTES;
        is_due.then(|| CatalogueRecord::Snapshot { catalogue: catalogue.clone(), at: self.next })
    }
}
