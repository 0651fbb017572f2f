//! What marks a directory as one replica's own. A replica whose mark is gone has lost its vote with
//! it, and must never vote again under its id.

use crate::log::disk::Disk;
use crate::model::{GroupId, ReplicaId};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

const MARK: &str = "replica";
const MARK_NEW: &str = "replica.new";
const MARK_BYTES_MAX: u64 = 4096;

/// Whose a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// By [`GroupId::raw`].
    group: u64,
    replica: ReplicaId,
}

impl Mark {
    pub fn new(group: GroupId, replica: ReplicaId) -> Self {
        Self { group: group.raw(), replica }
    }

    /// The mark of a directory; `None` where there is none that can be read. Blocks.
    pub fn read(disk: &dyn Disk, directory: &Path) -> io::Result<Option<Self>> {
        let path = directory.join(MARK);
        if !disk.exists(&path)? {
            return Ok(None);
        }
        let file = disk.open(&path)?;
        let mut bytes = vec![0; file.len()?.min(MARK_BYTES_MAX) as usize];
        file.read_at(&mut bytes, 0)?;
        Ok(serde_json::from_slice(&bytes).ok())
    }

    /// Marks a directory, made where it is missing: whole, and durable when this returns. Blocks.
    pub fn write(self, disk: &dyn Disk, directory: &Path) -> io::Result<()> {
        disk.create_dir_all(directory)?;
        let new = directory.join(MARK_NEW);
        if disk.exists(&new)? {
            disk.remove(&new)?;
        }
        let file = disk.create_new(&new)?;
        let bytes = serde_json::to_vec(&self).expect("two numbers");
        file.write_at(&[&bytes], 0)?;
        file.sync_data()?;
        disk.rename(&new, &directory.join(MARK))?;
        disk.sync_dir(directory)
    }
}

/// Checks that the way from the data directory to a replica's is one of directories: a symbolic link
/// would have a node read, write or wipe what lies elsewhere. Blocks.
pub(super) fn refuse_links(data_dir: &Path, directory: &Path) -> io::Result<()> {
    let inside = directory.ancestors().take_while(|path| path.starts_with(data_dir));
    for path in inside.filter(|path| *path != data_dir) {
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() => {
                return Err(io::Error::other(format!(
                    "{} is a symbolic link, and a node opens nothing outside of its data directory: \
                     move what it points to here, or mount it",
                    path.display()
                )));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The names in a directory; none where it is missing.
pub(super) fn names(disk: &dyn Disk, directory: &Path) -> io::Result<Vec<String>> {
    match disk.list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed,
    }
}

/// Removes all files of a replica, its mark first: half removed, it is one that lost its files.
/// Blocks.
pub(super) fn wipe(disk: &dyn Disk, directory: &Path) -> io::Result<()> {
    let mut names = names(disk, directory)?;
    if names.is_empty() {
        return Ok(());
    }
    names.sort_by_key(|name| name != MARK);
    if names[0] == MARK {
        disk.remove(&directory.join(names.remove(0)))?;
        disk.sync_dir(directory)?;
    }
    for name in names {
        disk.remove(&directory.join(name))?;
    }
    disk.sync_dir(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::disk::SimDisk;
    use crate::model::NodeId;

    #[test]
    fn a_mark_is_read_back_until_the_directory_is_wiped() {
        let (disk, directory) = (SimDisk::new(), Path::new("/d/partitions/orders/0"));
        assert_eq!(Mark::read(&disk, directory).unwrap(), None);
        let mark = Mark::new(GroupId::LOG, ReplicaId::new(NodeId(3), 9));
        for _ in 0..2 {
            mark.write(&disk, directory).unwrap();
            assert_eq!(Mark::read(&disk, directory).unwrap(), Some(mark));
        }
        disk.create_new(&directory.join("a.store")).unwrap();
        wipe(&disk, directory).unwrap();
        assert_eq!(Mark::read(&disk, directory).unwrap(), None);
        assert_eq!(names(&disk, directory).unwrap(), Vec::<String>::new());
        wipe(&disk, directory).unwrap();
    }
}
