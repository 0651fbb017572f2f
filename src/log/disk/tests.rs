//! The conformance suite: each promise of the traits, asked of the real disk and of the simulated
//! one. What holds here for the one holds for the other, so that tests on the simulated disk say
//! something about the real one.

use super::*;
use std::io::ErrorKind;
use std::thread;

/// Runs a promise against both disks, each with an empty directory.
fn on_both(promise: impl Fn(&dyn Disk, &Path)) {
    let temporary = tempfile::tempdir().unwrap();
    promise(&RealDisk, temporary.path());
    let sim = SimDisk::new();
    sim.create_dir_all(Path::new("/data")).unwrap();
    promise(&sim, Path::new("/data"));
}

fn content(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn directories_are_made_with_their_parents_and_more_than_once() {
    on_both(|disk, root| {
        let deep = root.join("a/b/c");
        assert!(!disk.exists(&deep).unwrap());
        disk.create_dir_all(&deep).unwrap();
        disk.create_dir_all(&deep).unwrap();
        assert!(disk.exists(&deep).unwrap());
        assert!(disk.exists(&root.join("a")).unwrap());
        disk.sync_dir(&deep).unwrap();
    });
}

#[test]
fn files_are_listed_sorted_and_without_directories() {
    on_both(|disk, root| {
        disk.create_dir_all(&root.join("folder")).unwrap();
        for name in ["b", "a", "c"] {
            disk.create_new(&root.join(name)).unwrap();
        }
        disk.create_new(&root.join("folder/inner")).unwrap();
        assert_eq!(disk.list(root).unwrap(), ["a", "b", "c"]);
        assert_eq!(disk.list(&root.join("absent")).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn names_that_are_missing_or_taken_are_told_apart() {
    on_both(|disk, root| {
        let path = root.join("file");
        assert_eq!(disk.open(&path).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(disk.remove(&path).unwrap_err().kind(), ErrorKind::NotFound);
        let absent = disk.rename(&path, &root.join("other"));
        assert_eq!(absent.unwrap_err().kind(), ErrorKind::NotFound);
        let orphan = disk.create_new(&root.join("absent/file"));
        assert_eq!(orphan.unwrap_err().kind(), ErrorKind::NotFound);
        disk.create_new(&path).unwrap();
        assert_eq!(disk.create_new(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
        let lost = disk.rename(&path, &root.join("absent/file"));
        assert_eq!(lost.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(disk.exists(&path).unwrap());
        assert_eq!(disk.sync_dir(&root.join("absent")).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn what_is_written_is_read_back_by_every_handle() {
    on_both(|disk, root| {
        let path = root.join("file");
        let file = disk.create_new(&path).unwrap();
        assert!(file.is_empty().unwrap());
        file.write_at(&[b"he", b"", b"llo"], 3).unwrap();
        let other = disk.open(&path).unwrap();
        assert_eq!(content(&*other), b"\0\0\0hello");
        file.write_at(&[b"J"], 3).unwrap();
        file.sync_data().unwrap();
        let mut cached = [0; 5];
        if other.read_cached_at(&mut cached, 3).unwrap() {
            assert_eq!(&cached, b"Jello");
        }
        file.write_at(&[], 100).unwrap();
        assert_eq!(file.len().unwrap(), 8, "writing nothing grows nothing");
    });
}

#[test]
fn many_parts_are_written_one_after_another() {
    on_both(|disk, root| {
        let file = disk.create_new(&root.join("file")).unwrap();
        let bytes: Vec<u8> = (0..9000u32).map(|n| (n / 3) as u8).collect();
        let parts: Vec<&[u8]> = bytes.chunks(3).collect();
        file.write_at(&parts, 0).unwrap();
        assert!(content(&*file) == bytes);
    });
}

#[test]
fn a_read_behind_the_end_is_an_unexpected_end() {
    on_both(|disk, root| {
        let file = disk.create_new(&root.join("file")).unwrap();
        file.write_at(&[b"four"], 0).unwrap();
        let mut buffer = [0; 3];
        assert_eq!(file.read_at(&mut buffer, 2).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        let cached = file.read_cached_at(&mut buffer, 4);
        assert_eq!(cached.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn a_file_that_is_cut_and_grown_reads_zeros() {
    on_both(|disk, root| {
        let file = disk.create_new(&root.join("file")).unwrap();
        file.write_at(&[&[7; 9000]], 0).unwrap();
        file.set_len(5).unwrap();
        file.set_len(9000).unwrap();
        let mut expected = vec![0; 9000];
        expected[..5].fill(7);
        assert!(content(&*file) == expected);
    });
}

#[test]
fn allocation_lengthens_by_zeros_and_never_shortens() {
    on_both(|disk, root| {
        let file = disk.create_new(&root.join("file")).unwrap();
        file.write_at(&[b"abc"], 0).unwrap();
        file.allocate(10_000).unwrap();
        assert_eq!(file.len().unwrap(), 10_000);
        assert_eq!(&content(&*file)[..4], b"abc\0");
        file.allocate(5).unwrap();
        file.allocate(0).unwrap();
        assert_eq!(file.len().unwrap(), 10_000);
    });
}

#[test]
fn a_rename_replaces_its_target_and_handles_follow_the_file() {
    on_both(|disk, root| {
        let (from, to) = (root.join("from"), root.join("to"));
        let file = disk.create_new(&from).unwrap();
        let replaced = disk.create_new(&to).unwrap();
        replaced.write_at(&[b"old"], 0).unwrap();
        file.write_at(&[b"new"], 0).unwrap();
        disk.rename(&from, &to).unwrap();
        disk.sync_dir(root).unwrap();
        assert_eq!(disk.list(root).unwrap(), ["to"]);
        assert_eq!(content(&*disk.open(&to).unwrap()), b"new");
        file.write_at(&[b"N"], 0).unwrap();
        assert_eq!(content(&*disk.open(&to).unwrap()), b"New");
        assert_eq!(content(&*replaced), b"old", "the replaced file lives as long as its handle");
    });
}

#[test]
fn a_removed_file_stays_usable_through_handles_and_maps() {
    on_both(|disk, root| {
        let path = root.join("file");
        let file = disk.create_new(&path).unwrap();
        file.allocate(4096).unwrap();
        let map = file.map(4096).unwrap();
        disk.remove(&path).unwrap();
        disk.sync_dir(root).unwrap();
        assert!(!disk.exists(&path).unwrap());
        map.store(0, b"still");
        drop(file);
        let mut bytes = [0; 5];
        map.load(0, &mut bytes);
        assert_eq!(&bytes, b"still");
        disk.create_new(&path).expect("the name is free");
    });
}

#[test]
fn a_map_and_the_file_show_the_same_bytes() {
    on_both(|disk, root| {
        let file = disk.create_new(&root.join("file")).unwrap();
        file.allocate(8192).unwrap();
        let map = file.map(8000).unwrap();
        assert_eq!((map.len(), map.is_empty()), (8000, false));
        map.store(4090, b"across pages");
        map.sync().unwrap();
        let mut bytes = [0; 12];
        file.read_at(&mut bytes, 4090).unwrap();
        assert_eq!(&bytes, b"across pages");
        file.write_at(&[b"A"], 4090).unwrap();
        map.load(4090, &mut bytes);
        assert_eq!(&bytes, b"Across pages");
    });
}

#[test]
fn one_thread_may_store_while_others_load() {
    on_both(|disk, root| {
        let file = disk.create_new(&root.join("file")).unwrap();
        file.allocate(4096).unwrap();
        let map = file.map(4096).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| (0..4096).for_each(|at| map.store(at, &[1])));
            scope.spawn(|| {
                let mut bytes = [9; 4096];
                map.load(0, &mut bytes);
                assert!(bytes.iter().all(|byte| *byte <= 1));
            });
        });
        assert!(content(&*file).iter().all(|byte| *byte == 1));
    });
}

#[test]
fn a_map_longer_than_the_file_is_refused() {
    on_both(|disk, root| {
        let file = disk.create_new(&root.join("file")).unwrap();
        file.allocate(4096).unwrap();
        assert_eq!(file.map(4097).unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_range_outside_a_map_panics() {
    on_both(|disk, root| {
        let file = disk.create_new(&root.join("file")).unwrap();
        file.allocate(4096).unwrap();
        let map = file.map(4096).unwrap();
        for at in [4090, usize::MAX] {
            let outside = std::panic::AssertUnwindSafe(|| map.store(at, b"0123456789"));
            assert!(std::panic::catch_unwind(outside).is_err(), "at {at}");
        }
    });
}

#[test]
fn free_space_is_told() {
    on_both(|disk, root| assert!(disk.free_bytes(root).unwrap() > 0));
}
