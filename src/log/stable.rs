//! Small files that are written whole or not at all: the checkpoint, the vote of the consensus
//! room. The content is the caller's; this wraps it so that a reader can tell whole from torn.
//!
//! Layout: magic (4), version (u32), content length (u64), CRC-32C of everything else (u32),
//! zero (u32), content. Big-endian.

use super::disk::Disk;
use super::error::{LogError, is_full};
use std::io;
use std::path::{Path, PathBuf};

const HEADER_BYTES: usize = 24;

/// Wraps content in the stable file layout.
pub fn encode(magic: [u8; 4], version: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + content.len());
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&(content.len() as u64).to_be_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(content);
    let crc = checksum(&bytes);
    bytes[16..20].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// Takes the content out of a stable file's bytes.
///
/// # Errors
/// What is wrong with them, in words; or the version when it is newer than `version_max`.
pub(super) fn decode(
    magic: [u8; 4],
    version_max: u32,
    bytes: &[u8],
) -> Result<(u32, Vec<u8>), Damage> {
    if bytes.len() < HEADER_BYTES {
        return Err(Damage::Reason("it is too short"));
    }
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    if bytes[..4] != magic {
        return Err(Damage::Reason("it is a file of another kind"));
    }
    if word(16) != checksum(bytes) {
        return Err(Damage::Reason("its checksum does not match"));
    }
    let length = u64::from_be_bytes(bytes[8..16].try_into().expect("8 bytes"));
    if length != (bytes.len() - HEADER_BYTES) as u64 || word(20) != 0 {
        return Err(Damage::Reason("its length does not match"));
    }
    if word(4) > version_max || word(4) == 0 {
        return Err(Damage::Version(word(4)));
    }
    Ok((word(4), bytes[HEADER_BYTES..].to_vec()))
}

pub(super) enum Damage {
    Reason(&'static str),
    Version(u32),
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &bytes[20..])
}

/// Replaces the file at `path` by one that holds `content`: durable when this returns. After a
/// crash in between, the old content or the new one is found, never a mixture. Blocks.
///
/// # Errors
/// - [`LogError::DiskFull`]: the old content stands.
/// - [`LogError::SyncFailed`], [`LogError::WriteFailed`]: old or new content may be found later.
pub fn write(
    disk: &dyn Disk,
    path: &Path,
    magic: [u8; 4],
    version: u32,
    content: &[u8],
) -> Result<(), LogError> {
    let bytes = encode(magic, version, content);
    let temporary = temporary(path);
    let failed = |action| {
        let file = path.display().to_string();
        move |source: io::Error| LogError::WriteFailed { action, file, source }
    };
    let sync_failed = |source| LogError::SyncFailed { file: path.display().to_string(), source };
    if disk.exists(&temporary).map_err(failed("look-up"))? {
        disk.remove(&temporary).map_err(failed("removal"))?;
    }
    let fill = || {
        let file = disk.create_new(&temporary)?;
        file.write_at(&[&bytes], 0)?;
        Ok(file)
    };
    let file = match fill() {
        Ok(file) => file,
        Err(error) if is_full(&error) => {
            let _ = disk.remove(&temporary); // a leftover is removed by the next write
            let free_bytes = disk.free_bytes(path).unwrap_or(0);
            let needed_bytes = bytes.len() as u64;
            return Err(LogError::DiskFull { needed_bytes, free_bytes, reserve_bytes: 0 });
        }
        Err(error) => return Err(failed("write")(error)),
    };
    file.sync_data().map_err(sync_failed)?;
    disk.rename(&temporary, path).map_err(failed("rename"))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    disk.sync_dir(directory).map_err(sync_failed)
}

/// Reads the content of a stable file: its version and its bytes. Blocks.
///
/// # Errors
/// - [`LogError::FileMissing`]: no such file.
/// - [`LogError::FileDamaged`]: checksum or length do not match. Since files are replaced by a
///   rename, that is damage, not a crash.
/// - [`LogError::UnknownVersion`], [`LogError::ReadFailed`].
pub fn read(
    disk: &dyn Disk,
    path: &Path,
    magic: [u8; 4],
    version_max: u32,
) -> Result<(u32, Vec<u8>), LogError> {
    let file = path.display().to_string();
    let failed = |source| LogError::ReadFailed { file: file.clone(), position_bytes: 0, source };
    if !disk.exists(path).map_err(failed)? {
        return Err(LogError::FileMissing { file });
    }
    let handle = disk.open(path).map_err(failed)?;
    let length = handle.len().map_err(failed)?;
    if length > 64 << 20 {
        return Err(LogError::FileDamaged { file, reason: "it is too long".into() });
    }
    let mut bytes = vec![0; length as usize];
    handle.read_at(&mut bytes, 0).map_err(failed)?;
    decode(magic, version_max, &bytes).map_err(|damage| match damage {
        Damage::Reason(reason) => LogError::FileDamaged { file, reason: reason.into() },
        Damage::Version(found) => LogError::UnknownVersion { file, found, supported: version_max },
    })
}

/// The name that a stable file is written under before its rename.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}
