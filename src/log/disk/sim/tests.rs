//! Promises of the simulated disk that a real one does not make.

use super::*;
use std::io::ErrorKind;
use std::thread;

const PATH: &str = "/data/file";

/// A disk with the durable directory `/data`, and in it a durable file of the given content.
fn with_file(content: &[u8]) -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/data")).unwrap();
    let file = disk.create_new(Path::new(PATH)).unwrap();
    file.write_at(&[content], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/data")).unwrap();
    (disk, file)
}

fn content(disk: &SimDisk, path: &str) -> Vec<u8> {
    let file = disk.open(Path::new(path)).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn raw_os_error<T: fmt::Debug>(result: io::Result<T>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

const EIO: Option<i32> = Some(5);
const ENOSPC: Option<i32> = Some(28);
const EROFS: Option<i32> = Some(30);

#[test]
fn synced_content_survives_every_crash() {
    let (disk, _file) = with_file(&[7; 3000]);
    for mode in CrashMode::ALL {
        for seed in 0..20 {
            assert!(content(&disk.after_crash(seed, mode), PATH) == [7; 3000], "{mode:?}, {seed}");
        }
    }
}

#[test]
fn unsynced_content_survives_by_mode() {
    let (disk, file) = with_file(&[1; 2048]);
    file.write_at(&[&[2; 4096]], 0).unwrap();
    assert!(content(&disk.after_crash(0, CrashMode::Clean), PATH) == [2; 4096]);
    assert!(content(&disk.after_crash(0, CrashMode::Lost), PATH) == [1; 2048]);

    let mut images = std::collections::HashSet::new();
    for seed in 0..40 {
        let torn = content(&disk.after_crash(seed, CrashMode::Torn), PATH);
        assert!(torn == content(&disk.after_crash(seed, CrashMode::Torn), PATH), "same seed");
        assert!(torn.len() == 2048 || torn.len() == 4096);
        for sector in torn.chunks(SECTOR_BYTES as usize) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is never torn");
        }
        images.insert(torn);
    }
    assert!(images.len() > 20, "seeds differ: {}", images.len());
}

#[test]
fn names_are_durable_only_after_their_directory_was_synced() {
    let (disk, file) = with_file(b"old");
    let new = disk.create_new(Path::new("/data/new")).unwrap();
    new.write_at(&[b"new"], 0).unwrap();
    new.sync_data().unwrap();
    disk.rename(Path::new("/data/new"), Path::new(PATH)).unwrap();
    drop((file, new));
    assert_eq!(content(&disk, PATH), b"new");
    assert_eq!(content(&disk.after_crash(0, CrashMode::Lost), PATH), b"old");
    assert_eq!(content(&disk.after_crash(0, CrashMode::Clean), PATH), b"new");
    disk.sync_dir(Path::new("/data")).unwrap();
    for seed in 0..20 {
        let after = disk.after_crash(seed, CrashMode::Torn);
        assert_eq!(after.list(Path::new("/data")).unwrap(), ["file"]);
        assert_eq!(content(&after, PATH), b"new");
    }
}

#[test]
fn a_removed_name_comes_back_unless_the_removal_was_synced() {
    let (disk, file) = with_file(b"kept");
    drop(file);
    disk.remove(Path::new(PATH)).unwrap();
    assert_eq!(content(&disk.after_crash(0, CrashMode::Lost), PATH), b"kept");
    let torn = (0..20).map(|seed| disk.after_crash(seed, CrashMode::Torn));
    let survivors = torn.filter(|disk| disk.exists(Path::new(PATH)).unwrap()).count();
    assert!((1..20).contains(&survivors), "{survivors} of 20");
    disk.sync_dir(Path::new("/data")).unwrap();
    assert!(!disk.after_crash(0, CrashMode::Lost).exists(Path::new(PATH)).unwrap());
}

#[test]
fn a_cut_that_was_not_synced_may_be_undone() {
    let (disk, file) = with_file(&[1; 2000]);
    file.set_len(100).unwrap();
    assert!(content(&disk.after_crash(0, CrashMode::Lost), PATH) == [1; 2000]);
    file.set_len(2000).unwrap();
    file.sync_data().unwrap();
    let mut expected = [0; 2000];
    expected[..100].fill(1);
    assert!(content(&disk.after_crash(0, CrashMode::Lost), PATH) == expected);
}

#[test]
fn stores_through_a_map_are_lost_unless_synced() {
    let (disk, file) = with_file(&[0; 1024]);
    let map = file.map(1024).unwrap();
    map.store(10, b"mapped");
    assert_eq!(&content(&disk, PATH)[10..16], b"mapped");
    assert_eq!(content(&disk.after_crash(0, CrashMode::Lost), PATH), [0; 1024]);
    map.sync().unwrap();
    assert_eq!(&content(&disk.after_crash(0, CrashMode::Lost), PATH)[10..16], b"mapped");
}

#[test]
fn after_a_crash_old_handles_fail_and_the_new_disk_works() {
    let (old, file) = with_file(b"x");
    let map = file.map(1).unwrap();
    let new = old.crash(1, CrashMode::Lost);
    assert!(file.write_at(&[b"y"], 0).unwrap_err().to_string().contains("crashed"));
    assert!(file.len().is_err() && file.sync_data().is_err());
    assert!(file.read_at(&mut [0], 0).is_err());
    assert!(old.open(Path::new(PATH)).is_err() && old.list(Path::new("/data")).is_err());
    assert!(old.create_dir_all(Path::new("/data")).is_err() && map.sync().is_err());
    map.store(0, b"z"); // cannot fail, and must not reach the new disk
    assert_eq!(content(&new, PATH), b"x");
    new.open(Path::new(PATH)).unwrap().write_at(&[b"y"], 0).unwrap();
}

#[test]
fn the_world_stops_after_the_planned_operation() {
    let run = |disk: &SimDisk| -> io::Result<()> {
        disk.create_dir_all(Path::new("/data"))?;
        let file = disk.create_new(Path::new(PATH))?;
        file.write_at(&[b"one"], 0)?;
        file.sync_data()?;
        disk.sync_dir(Path::new("/data"))
    };
    let whole = SimDisk::new();
    whole.record_operations();
    run(&whole).unwrap();
    let operations = whole.operations();
    assert_eq!(whole.mutations(), operations.len() as u64);
    let calls: Vec<DiskCall> = operations.iter().map(|operation| operation.call).collect();
    use DiskCall::{Create, CreateDir, Sync, SyncDir, Write};
    assert_eq!(calls, [CreateDir, Create, Write, Sync, SyncDir]);
    assert_eq!((operations[2].file.as_path(), &operations[2].range), (Path::new(PATH), &(0..3)));

    for stop in 0..operations.len() as u64 {
        let disk = SimDisk::new();
        disk.stop_after(stop);
        assert!(run(&disk).unwrap_err().to_string().contains("crashed"), "after {stop}");
        assert_eq!(disk.mutations(), stop);
        assert!(disk.free_bytes(Path::new("/")).is_err(), "stopped for good");
        let after = disk.crash(0, CrashMode::Lost);
        assert!(!after.exists(Path::new(PATH)).unwrap(), "the name was never synced");
    }
}

#[test]
fn planned_calls_fail_and_no_others() {
    let (disk, file) = with_file(b"x");
    disk.fail(Fault::nth(DiskCall::Write, 2));
    disk.fail(Fault::every(DiskCall::Allocate).during(1..3).with(Errno::NoSpace));
    disk.fail(Fault::every(DiskCall::SetLen).with(Errno::ReadOnly).on("file"));
    file.write_at(&[b"a"], 0).unwrap();
    assert_eq!(raw_os_error(file.write_at(&[b"b"], 0)), EIO);
    file.write_at(&[b"c"], 0).unwrap();
    assert_eq!(raw_os_error(file.allocate(9)), ENOSPC);
    assert_eq!(file.allocate(9).unwrap_err().kind(), ErrorKind::StorageFull);
    file.allocate(9).unwrap();
    assert_eq!(raw_os_error(file.set_len(1)), EROFS);
    assert_eq!(file.set_len(1).unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    let other = disk.create_new(Path::new("/data/other")).unwrap();
    other.set_len(1).expect("the fault is on another file");
    assert_eq!((disk.calls(DiskCall::Write), disk.calls(DiskCall::SetLen)), (4, 3));
    assert_eq!(disk.calls_on(DiskCall::SetLen, "file"), 2);
    disk.heal();
    file.set_len(1).unwrap();
}

#[test]
fn every_kind_of_call_can_be_made_to_fail() {
    use DiskCall::*;
    for call in [
        CreateDir, Open, Create, Rename, Remove, SyncDir, Read, Write, Sync, SetLen, Allocate, Map,
        MapSync,
    ] {
        let (disk, file) = with_file(&[0; 64]);
        let map = file.map(64).unwrap();
        disk.fail(Fault::every(call));
        let path = Path::new(PATH);
        let results = [
            (CreateDir, disk.create_dir_all(Path::new("/new"))),
            (Open, disk.open(path).map(drop)),
            (Create, disk.create_new(Path::new("/data/new")).map(drop)),
            (Read, file.read_at(&mut [0; 8], 0)),
            (Write, file.write_at(&[b"x"], 0)),
            (Sync, file.sync_data()),
            (SetLen, file.set_len(100)),
            (Allocate, file.allocate(200)),
            (Map, file.map(64).map(drop)),
            (MapSync, map.sync()),
            (SyncDir, disk.sync_dir(Path::new("/data"))),
            (Rename, disk.rename(path, Path::new("/data/renamed"))),
            // The rename went through unless it is what fails.
            (Remove, disk.remove(if call == Rename { path } else { Path::new("/data/renamed") })),
        ];
        for (of, result) in results {
            assert_eq!(result.is_err(), of == call, "{of:?} while {call:?} fails: {result:?}");
        }
    }
}

#[test]
fn a_failed_write_is_half_done() {
    let (disk, file) = with_file(&[0; 4]);
    disk.fail(Fault::nth(DiskCall::Write, 1));
    file.write_at(&[b"ab", b"cd"], 0).unwrap_err();
    assert_eq!(content(&disk, PATH), b"ab\0\0");
}

#[test]
fn a_failed_sync_loses_the_data_and_the_next_one_lies() {
    let (disk, file) = with_file(&[1; 512]);
    file.write_at(&[&[2; 512]], 0).unwrap();
    disk.fail(Fault::nth(DiskCall::Sync, 1));
    assert_eq!(raw_os_error(file.sync_data()), EIO);
    assert!(content(&disk, PATH) == [2; 512], "the page cache still has it");
    file.sync_data().expect("as on ext4, the pages are marked clean");
    assert_eq!(disk.calls_on(DiskCall::Sync, "file"), 3);
    for mode in CrashMode::ALL {
        assert!(content(&disk.after_crash(0, mode), PATH) == [1; 512], "{mode:?}");
    }
    file.write_at(&[&[2; 512]], 0).unwrap();
    file.sync_data().unwrap();
    assert!(content(&disk.after_crash(0, CrashMode::Lost), PATH) == [2; 512], "written again");
}

#[test]
fn a_full_disk_refuses_until_there_is_room() {
    let (disk, file) = with_file(&[1; 4096]);
    disk.set_capacity(3 * 4096);
    assert_eq!(disk.used_bytes(), 4096);
    assert_eq!(raw_os_error(file.allocate(4 * 4096)), ENOSPC);
    file.allocate(2 * 4096).unwrap();
    assert_eq!(disk.free_bytes(Path::new("/data")).unwrap(), 4096);
    file.write_at(&[&[2; 4096]], 4096).expect("reserved blocks are there");
    file.write_at(&[b"x"], 3 * 4096).expect("the last page");
    assert_eq!(raw_os_error(file.write_at(&[b"x"], 2 * 4096)), ENOSPC);
    assert_eq!(raw_os_error(disk.create_new(Path::new("/data/new"))), ENOSPC);
    file.write_at(&[b"y"], 0).expect("what is there can be overwritten");
    disk.set_capacity(5 * 4096);
    file.write_at(&[b"x"], 2 * 4096).unwrap();
    let other = disk.create_new(Path::new("/data/new")).unwrap();
    other.write_at(&[b"z"], 0).unwrap();
    assert_eq!(disk.free_bytes(Path::new("/data")).unwrap(), 0);
    disk.remove(Path::new(PATH)).unwrap();
    assert_eq!(disk.used_bytes(), 4096);
}

#[test]
fn a_flipped_bit_is_read_and_survives() {
    let (disk, file) = with_file(b"abc");
    disk.flip_bit(PATH, 1, 0);
    assert_eq!(content(&disk, PATH), b"acc");
    assert_eq!(content(&disk.after_crash(0, CrashMode::Lost), PATH), b"acc");
    drop(file);
}

#[test]
fn bad_places_spoil_only_reads_that_touch_them() {
    let (disk, file) = with_file(b"0123456789");
    disk.damage_reads("file", 2..4, ReadDamage::FlipBit(0));
    disk.damage_reads("file", 8..9, ReadDamage::Fail(Errno::Io));
    let mut bytes = [0; 4];
    file.read_at(&mut bytes, 1).unwrap();
    assert_eq!(&bytes, b"1324");
    file.read_at(&mut bytes, 4).unwrap();
    assert_eq!(&bytes, b"4567");
    assert_eq!(raw_os_error(file.read_at(&mut bytes, 5)), EIO);
    assert_eq!(raw_os_error(file.read_cached_at(&mut bytes, 6)), EIO);
    let after = disk.crash(0, CrashMode::Clean);
    let file = after.open(Path::new(PATH)).unwrap();
    assert_eq!(raw_os_error(file.read_at(&mut bytes, 5)), EIO, "the medium stays bad");
    after.heal();
    file.read_at(&mut bytes, 5).unwrap();
}

#[test]
fn a_cold_cache_is_told_from_a_warm_one() {
    let (disk, file) = with_file(b"abc");
    disk.set_cold(true);
    assert!(!file.read_cached_at(&mut [0; 3], 0).unwrap());
    file.read_at(&mut [0; 3], 0).expect("a read that may wait does");
    disk.set_cold(false);
    assert!(file.read_cached_at(&mut [0; 3], 0).unwrap());
}

#[test]
fn a_held_sync_takes_effect_only_when_it_is_let_go() {
    let (disk, file) = with_file(b"old");
    file.write_at(&[b"new"], 0).unwrap();
    let hold = disk.hold_syncs();
    thread::scope(|scope| {
        let flush = scope.spawn(|| file.sync_data());
        hold.wait_until_held();
        assert_eq!(hold.arrived(), 1);
        assert_eq!(content(&disk, PATH), b"new", "reads go on meanwhile");
        assert_eq!(content(&disk.after_crash(0, CrashMode::Lost), PATH), b"old");
        hold.release_one();
        flush.join().unwrap().unwrap();
    });
    assert_eq!(content(&disk.after_crash(0, CrashMode::Lost), PATH), b"new");
    drop(hold);
    file.sync_data().expect("nothing holds any more");
}

#[test]
fn files_that_nothing_can_bring_back_are_forgotten() {
    let (disk, file) = with_file(&[1; 100]);
    let brief = disk.create_new(Path::new("/data/brief")).unwrap();
    disk.remove(Path::new(PATH)).unwrap();
    disk.remove(Path::new("/data/brief")).unwrap();
    disk.sync_dir(Path::new("/data")).unwrap();
    assert_eq!(disk.shared.world().node_count(), 2, "handles keep them");
    drop((file, brief));
    assert_eq!(disk.shared.world().node_count(), 0);
}
