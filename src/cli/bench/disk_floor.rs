//! The floor of the disk: write so many bytes, sync, again; no server, no log, no thread.

use super::BenchError;
use crate::model::{Clock, SystemClock};
use hdrhistogram::Histogram;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// What the file holds where the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nothing: the file grows with every write.
    Append,
    /// Zeros that were written and synced before.
    Zeroed,
    /// Other data: the blocks have been written, and written again.
    Written,
}

impl Place {
    pub const ALL: [Self; 3] = [Self::Append, Self::Zeroed, Self::Written];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Zeroed => "zeroed",
            Self::Written => "written",
        }
    }
}

/// What the disk did.
#[derive(Debug, Clone, Copy)]
pub struct DiskFloor {
    pub flushes_per_second: f64,
    pub p50_us: f64,
}

/// The file begins anew behind so many bytes; the time for that is not counted.
const FILE_BYTES_MAX: u64 = 128 << 20;

/// Writes and syncs `bytes` again and again for `time`. Blocks.
pub fn measure(
    directory: &Path,
    place: Place,
    bytes: usize,
    time: Duration,
) -> Result<DiskFloor, BenchError> {
    let failed = || BenchError::io(format!("cannot write in {}", directory.display()));
    let block = vec![0xA5; bytes];
    // Small files for small writes: 4096 flushes fill them, and preparing them takes little.
    let file_bytes = (bytes as u64 * 4096).clamp(1 << 20, FILE_BYTES_MAX).max(bytes as u64);
    let clock = SystemClock::new();
    let mut latency: Histogram<u64> = Histogram::new(3).expect("3 digits are a valid precision");
    let mut file = prepare(directory, place, file_bytes).map_err(failed())?;
    let (mut position, mut spent) = (0, Duration::ZERO);
    while spent < time {
        if position + bytes as u64 > file_bytes {
            position = 0;
            if place != Place::Written {
                file = prepare(directory, place, file_bytes).map_err(failed())?;
            }
        }
        let began = clock.monotonic();
        file.write_all_at(&block, position).map_err(failed())?;
        file.sync_data().map_err(failed())?;
        let took = clock.monotonic() - began;
        position += bytes as u64;
        spent += took;
        latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
    let flushes_per_second = latency.len() as f64 / spent.as_secs_f64();
    Ok(DiskFloor { flushes_per_second, p50_us: latency.value_at_quantile(0.5) as f64 / 1e3 })
}

fn prepare(directory: &Path, place: Place, file_bytes: u64) -> std::io::Result<File> {
    let file = tempfile::tempfile_in(directory)?;
    let rounds: &[u8] = match place {
        Place::Append => &[],
        Place::Zeroed => &[0],
        Place::Written => &[0, 0x5A],
    };
    for fill in rounds {
        let block = vec![*fill; 1 << 20];
        let mut position = 0;
        while position < file_bytes {
            let part = (file_bytes - position).min(block.len() as u64);
            file.write_all_at(&block[..part as usize], position)?;
            position += part;
        }
        file.sync_all()?;
    }
    file.sync_all()?;
    Ok(file)
}
