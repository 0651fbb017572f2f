//! How far an audit log was copied to the cluster's topic, kept beside its files.

use std::fs;
use std::io;
use std::path::Path;

/// The number of the last line that was copied.
const COPIED: &str = "copied";

/// How far an audit log was copied. Where there is no number it is 0, and all is copied: once too often
/// does no harm.
#[allow(clippy::disallowed_methods, reason = "the edge where it is kept what was copied")]
pub fn copied(directory: &Path) -> u64 {
    let text = fs::read_to_string(directory.join(COPIED)).ok();
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Keeps how far it was copied.
///
/// # Errors
/// It cannot be written.
#[allow(clippy::disallowed_methods, reason = "the edge where it is kept what was copied")]
pub fn set_copied(directory: &Path, number: u64) -> io::Result<()> {
    let place = directory.join(COPIED);
    let next = place.with_extension("new");
    fs::write(&next, format!("{number}\n"))?;
    fs::rename(next, place)
}
