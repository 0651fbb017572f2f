//! The five ways to compress a batch's records, as Kafka's Java client reads and writes them.

use super::BatchError;
use bytes::Bytes;
use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

/// How the records of a batch are compressed: attribute bits 0 to 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy in xerial's framing; raw snappy is read too.
    Snappy,
    /// The LZ4 frame format with independent blocks.
    Lz4,
    /// RFC 8878.
    Zstd,
}

/// What xerial's snappy stream begins with: its magic, version 1, readable since version 1.
const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Only the magic decides how to read: writers differ in the version fields.
const XERIAL_MAGIC_BYTES: usize = 8;
/// What most batches decompress to at most; memory for it grows as it comes.
const SMALL_BYTES: u64 = 1 << 20;
/// xerial's block, before compression.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

impl Compression {
    /// All kinds, in the order of their ids.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The name used in configuration and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The value of the attribute bits.
    pub const fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    pub(super) fn from_id(id: u8) -> Result<Self, BatchError> {
        let known = Self::ALL.get(usize::from(id)).copied();
        known.ok_or(BatchError::UnknownCompression { id })
    }

    /// Compresses a batch's records.
    pub(super) fn compress(self, plain: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::None => Ok(plain.to_vec()),
            Self::Gzip => {
                let level = flate2::Compression::default();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(plain)?;
                encoder.finish()
            }
            Self::Snappy => compress_xerial(plain),
            Self::Lz4 => {
                // Kafka's own reader refuses linked blocks.
                let info = lz4_flex::frame::FrameInfo::new()
                    .block_mode(lz4_flex::frame::BlockMode::Independent)
                    .block_size(lz4_flex::frame::BlockSize::Max64KB);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(plain)?;
                encoder.finish().map_err(io::Error::from)
            }
            Self::Zstd => zstd::bulk::compress(plain, zstd::DEFAULT_COMPRESSION_LEVEL),
        }
    }

    /// Decompresses a batch's records into at most `bytes_max`; the input itself where nothing
    /// is compressed.
    ///
    /// # Errors
    /// [`BatchError::DecompressedTooLarge`], [`BatchError::Undecompressable`].
    pub(super) fn decompress(self, packed: &Bytes, bytes_max: usize) -> Result<Bytes, BatchError> {
        match self.open(packed, bytes_max, bytes_max)? {
            Plain::Whole(plain) => Ok(plain),
            Plain::Parts(decoder) => self.drain(decoder, bytes_max).map(Bytes::from),
        }
    }

    /// Begins to decompress a batch's records; at once what does not come in parts. `block_bytes_max`:
    /// of a block of snappy, which can only be decompressed as a whole.
    ///
    /// # Errors
    /// As [`Compression::decompress`], and [`BatchError::SnappyBlockTooLarge`].
    pub(super) fn open(
        self,
        packed: &Bytes,
        bytes_max: usize,
        block_bytes_max: usize,
    ) -> Result<Plain<'_>, BatchError> {
        let decoder: Box<dyn Read + '_> = match self {
            Self::None if packed.len() > bytes_max => return Err(too_large(bytes_max)),
            Self::None => return Ok(Plain::Whole(packed.clone())),
            Self::Snappy if packed.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_BYTES]) => {
                let rest = packed.get(XERIAL_HEADER.len()..).ok_or(self.undecompressable())?;
                Box::new(XerialBlocks { rest, block: io::Cursor::default(), block_bytes_max })
            }
            Self::Snappy if snappy_length(packed)? > bytes_max => return Err(too_large(bytes_max)),
            Self::Snappy => {
                let plain = decompress_snappy_block(packed, block_bytes_max)?;
                return Ok(Plain::Whole(plain.into()));
            }
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(&packed[..])),
            Self::Lz4 if !ends_as_lz4_frame(packed) => return Err(self.undecompressable()),
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(&packed[..])),
            // The decoder reserves the window that the frame names, 128 MiB at most, but touches
            // only as much of it as it fills: the limit on what is read holds for memory too.
            Self::Zstd => match zstd::stream::read::Decoder::with_buffer(&packed[..]) {
                Ok(decoder) => Box::new(decoder),
                Err(_) => return Err(self.undecompressable()),
            },
        };
        Ok(Plain::Parts(decoder))
    }

    /// Reads a decoder to its end, or to one byte past the limit.
    fn drain(self, decoder: impl Read, bytes_max: usize) -> Result<Vec<u8>, BatchError> {
        let mut plain = Vec::new();
        let mut decoder = decoder.take((bytes_max as u64).saturating_add(1));
        let mut read = decoder.by_ref().take(SMALL_BYTES).read_to_end(&mut plain);
        if read.is_ok() && plain.len() as u64 == SMALL_BYTES {
            // All at once: what is not filled is never touched, and growing by copies would hold two.
            // Where there is no such room it grows all the same.
            let _ = plain.try_reserve_exact((decoder.limit() as usize).min(bytes_max));
            read = decoder.read_to_end(&mut plain);
        }
        match read {
            Ok(_) if plain.len() > bytes_max => Err(too_large(bytes_max)),
            Ok(_) => Ok(plain),
            Err(error) => Err(self.damaged(error)),
        }
    }

    /// What a decoder says.
    pub(super) fn damaged(self, error: io::Error) -> BatchError {
        error.downcast().unwrap_or_else(|_| self.undecompressable())
    }

    const fn undecompressable(self) -> BatchError {
        BatchError::Undecompressable { compression: self }
    }
}

/// A batch's records while they are decompressed.
pub(super) enum Plain<'p> {
    /// All of them.
    Whole(Bytes),
    /// They come by reading, and whoever reads sees to the limit.
    Parts(Box<dyn Read + 'p>),
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression {name:?}; use none, gzip, snappy, lz4 or zstd")]
pub struct UnknownCompressionName {
    name: String,
}

impl FromStr for Compression {
    type Err = UnknownCompressionName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == name);
        known.ok_or_else(|| UnknownCompressionName { name: name.to_owned() })
    }
}

pub(super) const fn too_large(decompressed_bytes_max: usize) -> BatchError {
    BatchError::DecompressedTooLarge { decompressed_bytes_max }
}

/// Looks for the end mark, which the decoder does not miss, but Kafka's own reader does.
fn ends_as_lz4_frame(packed: &[u8]) -> bool {
    const END_MARK: [u8; 4] = [0; 4];
    let has_checksum = packed.get(4).is_some_and(|flags| flags & 0b100 != 0);
    let checksum_bytes = if has_checksum { 4 } else { 0 };
    let end = packed.len().saturating_sub(checksum_bytes);
    packed[..end].ends_with(&END_MARK)
}

fn compress_xerial(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = snap::raw::Encoder::new();
    let mut packed = XERIAL_HEADER.to_vec();
    for block in plain.chunks(XERIAL_BLOCK_BYTES) {
        let block = encoder.compress_vec(block).map_err(io::Error::other)?;
        let length = u32::try_from(block.len()).expect("a block is about 32 KiB");
        packed.extend_from_slice(&length.to_be_bytes());
        packed.extend_from_slice(&block);
    }
    Ok(packed)
}

fn snappy_length(block: &[u8]) -> Result<usize, BatchError> {
    snap::raw::decompress_len(block).map_err(|_| Compression::Snappy.undecompressable())
}

fn decompress_snappy_block(block: &[u8], block_bytes_max: usize) -> Result<Vec<u8>, BatchError> {
    if snappy_length(block)? > block_bytes_max {
        return Err(BatchError::SnappyBlockTooLarge { block_bytes_max });
    }
    let plain = snap::raw::Decoder::new().decompress_vec(block);
    plain.map_err(|_| Compression::Snappy.undecompressable())
}

/// The blocks of xerial's framing, decompressed one by one.
struct XerialBlocks<'p> {
    rest: &'p [u8],
    block: io::Cursor<Vec<u8>>,
    block_bytes_max: usize,
}

impl<'p> XerialBlocks<'p> {
    fn next(&mut self) -> Option<&'p [u8]> {
        let (length, behind) = self.rest.split_first_chunk::<4>()?;
        let (block, rest) = behind.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        self.rest = rest;
        Some(block)
    }
}

impl Read for XerialBlocks<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.block.read(out)?;
            if read > 0 || out.is_empty() || self.rest.is_empty() {
                return Ok(read);
            }
            let block = self.next().ok_or(io::ErrorKind::UnexpectedEof)?;
            let plain = decompress_snappy_block(block, self.block_bytes_max);
            self.block = io::Cursor::new(plain.map_err(io::Error::other)?);
        }
    }
}
