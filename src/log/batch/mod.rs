//! Kafka record batches, version 2: the one form in which records travel and lie on disk.
//!
//! Pure: bytes in, bytes out. Raw bytes become part of the log only as [`ValidBatches`], which
//! come from [`validate`] (a client's batches, taken over as they are), from [`receive`] (those of a
//! leader) or from [`BatchBuilder`] (records, gathered here). What a header says is never trusted before it was compared with
//! what is there, and no length from outside leads to an allocation before it was checked.
//!
//! ```text
//!  0 base offset i64 | 8 batch length i32 | 12 leader epoch i32 | 16 magic i8 | 17 crc u32
//! 21 attributes i16 | 23 last offset delta i32 | 27 base timestamp i64 | 35 max timestamp i64
//! 43 producer id i64 | 51 producer epoch i16 | 53 base sequence i32 | 57 record count i32
//! 61 records, compressed as a whole when the attributes say so
//! ```
//!
//! The CRC-32C covers everything from byte 21, so that base offset and leader epoch can be
//! stamped without touching it.

mod builder;
mod compression;
mod cursor;
mod error;
mod header;
mod producer;
mod records;
mod valid;
mod varint;

pub use builder::BatchBuilder;
pub use compression::{Compression, UnknownCompressionName};
pub use error::BatchError;
pub use header::{BatchHeader, Batches, batches, stamp, verify_crc};
pub use producer::{BatchFacts, Producers, producers_of, sequence_after};
pub use records::{Records, records};
pub use valid::{ValidBatches, receive, validate};

/// Bytes before the first record.
pub const HEADER_BYTES: usize = 61;

/// Bytes of a batch that its own CRC does not cover: what the log stamps, and the CRC itself.
pub const PREFIX_BYTES: usize = 21;

/// Headers that a record may have: two bytes of a batch can be one, and many times as many in memory.
pub const HEADERS_MAX: usize = 65_536;
const TOO_MANY_HEADERS: &str = "it has more than 65536 headers";

/// How large batches may be. Checked before anything of that size is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// The largest batch, header included, as it travels and is stored. Default: 16 MiB.
    pub batch_bytes_max: usize,
    /// The largest record, framing, key and headers included. Default: 8 MiB.
    pub record_bytes_max: usize,
    /// What the batches of one [`validate`] call may decompress to, all together; for
    /// [`records`], which holds one batch at a time, each. Default: four times the batch.
    pub decompressed_bytes_max: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            batch_bytes_max: 16 * MIB,
            record_bytes_max: 8 * MIB,
            decompressed_bytes_max: 64 * MIB,
        }
    }
}

#[cfg(test)]
mod tests;
