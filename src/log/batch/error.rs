//! What can be wrong with a record batch.

use super::Compression;
use crate::model::Disposition;

/// Why bytes are not a batch, or a record does not fit one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end inside a batch.
    #[error("batch is cut off: {have_bytes} bytes of {needed_bytes}")]
    Truncated {
        /// What the batch needs.
        needed_bytes: usize,
        /// What is there.
        have_bytes: usize,
    },
    /// Another message format: magic 0 and 1 are from before Kafka 0.11.
    #[error("batch has magic {magic}; only version 2 is supported")]
    UnsupportedMagic {
        /// The version byte found.
        magic: i8,
    },
    /// A header field holds what no batch can have.
    #[error("batch header is damaged: {field} is {value}")]
    BadHeader {
        /// The field, in words.
        field: &'static str,
        /// What it holds.
        value: i64,
    },
    /// The content is not what the sender summed.
    #[error("batch checksum mismatch: header says {stored:#010x}, content has {computed:#010x}")]
    ChecksumMismatch {
        /// From the header.
        stored: u32,
        /// From the content.
        computed: u32,
    },
    /// Nothing to append.
    #[error("batch holds no record")]
    Empty,
    /// Offsets would not be dense.
    #[error("batch says it holds {stated} records, but {found} are there")]
    CountMismatch {
        /// From the header.
        stated: u32,
        /// From the last offset delta, or from walking the records.
        found: u32,
    },
    /// Over [`super::BatchLimits::batch_bytes_max`].
    #[error(
        "batch of {batch_bytes} bytes exceeds the limit of {batch_bytes_max}; send smaller ones"
    )]
    BatchTooLarge {
        /// Its size, header included.
        batch_bytes: usize,
        /// The limit.
        batch_bytes_max: usize,
    },
    /// Over [`super::BatchLimits::record_bytes_max`].
    #[error("record of {record_bytes} bytes exceeds the limit of {record_bytes_max}")]
    RecordTooLarge {
        /// Its size, framing included.
        record_bytes: usize,
        /// The limit.
        record_bytes_max: usize,
    },
    /// Over [`super::BatchLimits::decompressed_bytes_max`].
    #[error("batch decompresses to more than {decompressed_bytes_max} bytes")]
    DecompressedTooLarge {
        /// The limit that was left for this batch.
        decompressed_bytes_max: usize,
    },
    /// A block of snappy, which can only be decompressed as a whole, would hold more than that.
    #[error(
        "batch has a block of snappy that decompresses to more than {block_bytes_max} bytes; send \
         smaller batches, or smaller blocks in xerial's framing"
    )]
    SnappyBlockTooLarge {
        /// The limit: what the longest record may have, and some more.
        block_bytes_max: usize,
    },
    /// A kind that version 2 does not define.
    #[error("batch has unknown compression {id}; known: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd")]
    UnknownCompression {
        /// Bits 0 to 2 of the attributes.
        id: u8,
    },
    /// A control, transactional or otherwise special batch, which clients may not append.
    #[error("batch has attributes {attributes:#06x}; only the compression bits may be set")]
    UnsupportedAttributes {
        /// All 16 bits.
        attributes: u16,
    },
    /// The compressed part is damaged.
    #[error("batch does not decompress as {compression}")]
    Undecompressable {
        /// The kind that its attributes name.
        compression: Compression,
    },
    /// A record's framing is wrong.
    #[error("record {record} of the batch is malformed: {problem}")]
    MalformedRecord {
        /// Counted from 0 in its batch.
        record: u32,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The builder has no room for this record beside the others: finish, then push it again.
    #[error("batch is full; finish it and push the record again")]
    Full,
}

impl BatchError {
    /// Who must act. A batch is a caller's input here; where one that was read back from disk is
    /// bad, the log reports damage under an error of its own.
    pub const fn disposition(&self) -> Disposition {
        match self {
            Self::Truncated { .. }
            | Self::UnsupportedMagic { .. }
            | Self::BadHeader { .. }
            | Self::ChecksumMismatch { .. }
            | Self::Empty
            | Self::CountMismatch { .. }
            | Self::BatchTooLarge { .. }
            | Self::RecordTooLarge { .. }
            | Self::DecompressedTooLarge { .. }
            | Self::SnappyBlockTooLarge { .. }
            | Self::UnknownCompression { .. }
            | Self::UnsupportedAttributes { .. }
            | Self::Undecompressable { .. }
            | Self::MalformedRecord { .. }
            | Self::Full => Disposition::TellCaller,
        }
    }
}
