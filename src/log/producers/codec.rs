//! The table as bytes: for its file, and for a follower that begins behind a snapshot.
//!
//! Big-endian: limit u32 | applied u64 | producers u32 | per producer, by ascending id: id i64,
//! epoch i16, batches u8 (1 to 5) | per batch, oldest first: first sequence i32, last sequence i32,
//! base offset u64, latest timestamp i64.

use super::table::{BATCHES_KEPT, Kept, Producer, ProducerTable};
use crate::log::stable;
use crate::model::{Offset, Timestamp};
use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use std::collections::VecDeque;

const SNAPSHOT_MAGIC: [u8; 4] = *b"DPST";
const SNAPSHOT_VERSION: u32 = 1;
const HEAD_BYTES: usize = 16;
const PRODUCER_BYTES: usize = 11;
const KEPT_BYTES: usize = 24;
/// No table for more producers is taken over from bytes.
const LIMIT_MAX: u32 = 1 << 20;

/// Why bytes are not a table of producers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProducersError {
    /// They are not what was written.
    #[error("table of producers is damaged: {reason}")]
    Damaged {
        /// What is wrong with them.
        reason: &'static str,
    },
    /// A later program wrote them.
    #[error(
        "table of producers has format version {found}, this program reads up to {supported}; use a newer duramen"
    )]
    UnknownVersion {
        /// The version found.
        found: u32,
        /// The highest one known.
        supported: u32,
    },
}

fn damaged(reason: &'static str) -> ProducersError {
    ProducersError::Damaged { reason }
}

impl From<TryGetError> for ProducersError {
    fn from(_: TryGetError) -> Self {
        damaged("it ends early")
    }
}

impl ProducerTable {
    /// The table as bytes; equal tables give equal bytes.
    pub fn encode(&self) -> Bytes {
        let most = self.len() * (PRODUCER_BYTES + BATCHES_KEPT * KEPT_BYTES);
        let mut bytes = BytesMut::with_capacity(HEAD_BYTES + most);
        bytes.put_u32(self.producers_max);
        bytes.put_u64(self.applied.0);
        bytes.put_u32(self.len() as u32);
        for (id, producer) in &self.producers {
            bytes.put_i64(*id);
            bytes.put_i16(producer.epoch);
            bytes.put_u8(producer.kept.len() as u8);
            for kept in &producer.kept {
                bytes.put_i32(kept.first_sequence);
                bytes.put_i32(kept.last_sequence);
                bytes.put_u64(kept.base_offset.0);
                bytes.put_i64(kept.max_timestamp.0);
            }
        }
        bytes.freeze()
    }

    /// Reads back what [`ProducerTable::encode`] gave. Allocates no more than the bytes bear out.
    ///
    /// # Errors
    /// [`ProducersError::Damaged`] where they are no such thing.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, ProducersError> {
        let producers_max = bytes.try_get_u32()?;
        let applied = Offset(bytes.try_get_u64()?);
        let count = bytes.try_get_u32()?;
        if producers_max == 0 || producers_max > LIMIT_MAX || count > producers_max {
            return Err(damaged("its limit makes no sense"));
        }
        if applied.0 > i64::MAX as u64 {
            return Err(damaged("its end is no offset"));
        }
        let mut table = Self { applied, ..Self::new(producers_max) };
        let mut before = -1;
        for _ in 0..count {
            let id = bytes.try_get_i64()?;
            if id <= before {
                return Err(damaged("its producers are not in order"));
            }
            before = id;
            let (producer, last) = producer(&mut bytes, applied)?;
            table.producers.insert(id, producer);
            if table.by_position.insert(last, id).is_some() {
                return Err(damaged("two producers share a place in the log"));
            }
        }
        match bytes.is_empty() {
            true => Ok(table),
            false => Err(damaged("more follows than it has producers")),
        }
    }
}

/// One producer, and where its last batch is.
fn producer(bytes: &mut &[u8], applied: Offset) -> Result<(Producer, Offset), ProducersError> {
    let epoch = bytes.try_get_i16()?;
    let count = bytes.try_get_u8()?;
    if epoch < 0 || !(1..=BATCHES_KEPT).contains(&usize::from(count)) {
        return Err(damaged("a producer's epoch or number of batches makes no sense"));
    }
    let mut kept = VecDeque::with_capacity(BATCHES_KEPT);
    let mut next = Offset(0);
    for _ in 0..count {
        let batch = Kept {
            first_sequence: bytes.try_get_i32()?,
            last_sequence: bytes.try_get_i32()?,
            base_offset: Offset(bytes.try_get_u64()?),
            max_timestamp: Timestamp(bytes.try_get_i64()?),
        };
        if batch.first_sequence < 0 || batch.last_sequence < 0 {
            return Err(damaged("a batch's sequence is negative"));
        }
        if batch.base_offset < next || batch.base_offset >= applied {
            return Err(damaged("a batch's place in the log makes no sense"));
        }
        next = batch.base_offset.next();
        kept.push_back(batch);
    }
    Ok((Producer { epoch, kept }, Offset(next.0 - 1)))
}

/// What a follower that begins behind a snapshot has to know beside index and term: the offset of
/// the next record, and the producers as of there or later: going through the entries that follow
/// changes nothing that a table already has. Checksummed.
pub fn snapshot_state(offset: Offset, table: &ProducerTable) -> Bytes {
    let mut content = BytesMut::new();
    content.put_u64(offset.0);
    content.put_slice(&table.encode());
    stable::encode(SNAPSHOT_MAGIC, SNAPSHOT_VERSION, &content).into()
}

/// Reads back what [`snapshot_state`] gave, from a peer.
///
/// # Errors
/// [`ProducersError`]: the bytes are something else.
pub fn read_snapshot_state(bytes: Bytes) -> Result<(Offset, ProducerTable), ProducersError> {
    let (_, content) = stable::decode(SNAPSHOT_MAGIC, SNAPSHOT_VERSION, &bytes).map_err(
        |damage| match damage {
            stable::Damage::Reason(reason) => damaged(reason),
            stable::Damage::Version(found) => {
                ProducersError::UnknownVersion { found, supported: SNAPSHOT_VERSION }
            }
        },
    )?;
    let mut content = &content[..];
    let offset = Offset(content.try_get_u64()?);
    let table = ProducerTable::decode(content)?;
    if offset.0 > i64::MAX as u64 {
        return Err(damaged("its start is no offset"));
    }
    Ok((offset, table))
}
