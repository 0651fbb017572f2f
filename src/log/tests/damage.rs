//! Rungs A1, A2 and A3: files that are cut, flipped, zeroed, swapped, mixed up.

use super::harness::*;
use crate::log::LogOptions;
use crate::log::disk::SimDisk;
use crate::log::frame::control::without_checksums;
use crate::log::segment::Part;
use crate::model::{ManualClock, Offset, Timestamp};

/// One segment of entries, each synced by itself, as a crash leaves it.
fn one_segment(entries: u64) -> (Files, Model, LogOptions) {
    let options = LogOptions { segment_bytes_max: 1 << 20, ..small() };
    let (disk, model) = write(&options, entries);
    (files_of(&disk), model, options)
}

/// Several segments, as a crash leaves them.
fn segments(entries: u64) -> (Files, Model, LogOptions) {
    let options = LogOptions { segment_bytes_max: 4096, ..small() };
    let (disk, model) = write(&options, entries);
    (files_of(&disk), model, options)
}

fn write(options: &LogOptions, entries: u64) -> (SimDisk, Model) {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, options).unwrap();
    let mut model = Model { term: 1, ..Model::default() };
    for number in 0..entries {
        let entry = match number % 5 {
            3 => model.propose_internal(),
            _ => model.propose(1 + number as usize % 3, 40),
        };
        log.append(&[entry]).unwrap();
        let _ = log.sync().unwrap();
    }
    (disk, model)
}

/// The same, closed in order: the checkpoint covers everything.
fn closed(files: &Files, options: &LogOptions) -> Files {
    let disk = disk_of(files);
    let (log, _) = open(&disk, options).unwrap();
    log.close().unwrap();
    files_of(&disk)
}

fn store(base: u64) -> String {
    Part::Store.name(Offset(base))
}

/// Where each frame of a store begins, by its lengths, and where the last ends.
fn frame_places(store: &[u8]) -> Vec<usize> {
    let mut places = vec![0];
    loop {
        let at = *places.last().unwrap();
        let length = store.get(at..at + 8).map(|b| u64::from_be_bytes(b.try_into().unwrap()));
        match length {
            Some(length) if length > 0 => places.push(at + 8 + length as usize),
            _ => return places,
        }
    }
}

#[test]
fn a1_a_store_cut_at_any_byte_of_its_last_entries_keeps_the_longest_whole_prefix() {
    let (files, model, options) = one_segment(12);
    let name = store(0);
    let places = frame_places(&files[&name]);
    let end = *places.last().unwrap();
    for cut in places[places.len() - 4]..=end {
        let mut files = files.clone();
        files.get_mut(&name).unwrap().truncate(cut);
        let whole = places.iter().filter(|place| **place <= cut).count() as u64 - 1;
        let lost = model.last() - whole;
        let wanted = if lost == 0 { Fate::Whole } else { Fate::Cut(lost) };
        assert_eq!(fate_of(&files, &model, &options), Ok(wanted), "cut at {cut}");
    }
}

/// Tears the store at each byte of its last entries: the file's length survived, what lies behind
/// the byte did not. An error names a tear that was not cut away whole.
fn tear_all(files: &Files, model: &Model, options: &LogOptions) -> Result<(), String> {
    let name = store(0);
    let places = frame_places(&files[&name]);
    for tear in places[places.len() - 4]..*places.last().unwrap() {
        let mut torn = files.clone();
        torn.get_mut(&name).unwrap()[tear..].fill(0);
        if torn[&name] == files[&name] {
            continue; // only zeros lay behind it
        }
        let fate = fate_of(&torn, model, options).map_err(|e| format!("torn at {tear}: {e}"))?;
        if !matches!(fate, Fate::Cut(_)) {
            return Err(format!("torn at {tear}: {fate:?}"));
        }
    }
    Ok(())
}

#[test]
fn a1_a_store_torn_at_any_byte_of_its_last_entries_shows_no_part_of_an_entry() {
    let (files, model, options) = one_segment(12);
    tear_all(&files, &model, &options).unwrap();
}

/// Negative control: with checksums ignored, the tears must be seen to show parts of entries.
#[test]
fn a1_a_recovery_that_takes_torn_entries_is_caught() {
    let (files, model, options) = one_segment(12);
    assert!(without_checksums(|| tear_all(&files, &model, &options)).is_err());
}

#[test]
fn a1_an_index_cut_at_any_byte_loses_nothing() {
    let (files, model, options) = segments(60);
    for name in files.keys().filter(|name| name.ends_with(".index")) {
        for cut in 0..files[name].len() {
            let mut files = files.clone();
            files.get_mut(name).unwrap().truncate(cut);
            assert_eq!(fate_of(&files, &model, &options), Ok(Fate::Whole), "{name} cut at {cut}");
        }
        let mut files = files.clone();
        files.remove(name);
        assert_eq!(fate_of(&files, &model, &options), Ok(Fate::Whole), "{name} gone");
    }
}

#[test]
fn a1_a_store_cut_below_its_checkpoint_is_refused() {
    let (files, model, options) = one_segment(12);
    let files = closed(&files, &options);
    let end = *frame_places(&files[&store(0)]).last().unwrap();
    for cut in 0..end {
        let mut files = files.clone();
        files.get_mut(&store(0)).unwrap().truncate(cut);
        assert_eq!(fate_of(&files, &model, &options), Ok(Fate::Refused), "cut at {cut}");
    }
}

/// Flips bits of a file and says how often each fate came; an error names a flip that went by.
fn flip_all(
    files: &Files,
    name: &str,
    bits: impl Iterator<Item = usize>,
    model: &Model,
    options: &LogOptions,
    allowed: impl Fn(usize, Fate) -> bool,
) -> Result<(), String> {
    let mut files = files.clone();
    for bit in bits {
        files.get_mut(name).unwrap()[bit / 8] ^= 1 << (bit % 8);
        let fate = fate_of(&files, model, options).map_err(|e| format!("{name} bit {bit}: {e}"))?;
        if !allowed(bit / 8, fate) {
            return Err(format!("{name} bit {bit}: {fate:?}"));
        }
        files.get_mut(name).unwrap()[bit / 8] ^= 1 << (bit % 8);
    }
    Ok(())
}

#[test]
fn a2_after_a_crash_each_flipped_bit_is_corruption_but_in_the_last_entry_which_is_cut() {
    let (files, model, options) = one_segment(14);
    let places = frame_places(&files[&store(0)]);
    let (last, end) = (places[places.len() - 2], places[places.len() - 1]);
    let bits = (last - 1000) * 8..end * 8;
    flip_all(&files, &store(0), bits, &model, &options, |byte, fate| {
        fate == if byte < last { Fate::Refused } else { Fate::Cut(1) }
    })
    .unwrap();
    let zeros = (end * 8..files[&store(0)].len() * 8).step_by(13);
    flip_all(&files, &store(0), zeros, &model, &options, |_, fate| fate == Fate::Whole).unwrap();
}

#[test]
fn a2_after_an_orderly_stop_no_flipped_bit_shows_wrong_bytes_or_cuts_anything() {
    let (files, model, options) = one_segment(14);
    let files = closed(&files, &options);
    let end = *frame_places(&files[&store(0)]).last().unwrap();
    flip_all(&files, &store(0), (0..end * 8).step_by(3), &model, &options, |_, fate| {
        matches!(fate, Fate::Refused | Fate::ReadRefused)
    })
    .unwrap();
}

#[test]
fn a2_flipped_bits_anywhere_in_a_log_of_many_segments_are_found() {
    let (files, model, options) = segments(60);
    let mut dice = Dice::new(77);
    for name in files.keys().filter(|name| name.ends_with(".store")) {
        let end = *frame_places(&files[name]).last().unwrap();
        let bits: Vec<_> = (0..600).map(|_| dice.below(end as u64 * 8) as usize).collect();
        flip_all(&files, name, bits.into_iter(), &model, &options, |_, fate| {
            matches!(fate, Fate::Refused | Fate::ReadRefused | Fate::Cut(1))
        })
        .unwrap();
    }
}

#[test]
fn a2_a_flipped_bit_in_an_index_or_a_time_index_changes_nothing_that_is_read() {
    let (files, model, options) = segments(36);
    for files in [files.clone(), closed(&files, &options)] {
        for name in files.keys().filter(|n| n.ends_with(".index") || n.ends_with(".time")) {
            let bits = (0..files[name].len() * 8).step_by(5);
            flip_all(&files, name, bits, &model, &options, |_, fate| fate == Fate::Whole).unwrap();
        }
    }
}

#[test]
fn a2_each_flipped_bit_of_the_checkpoint_is_refused() {
    let (files, model, options) = one_segment(6);
    let files = closed(&files, &options);
    let bits = 0..files["checkpoint"].len() * 8;
    let refused = |_, fate| fate == Fate::Refused;
    flip_all(&files, "checkpoint", bits, &model, &options, refused).unwrap();
}

/// Negative control: with checksums ignored, the sweep must find wrong bytes.
#[test]
fn a2_a_recovery_that_ignores_checksums_is_caught() {
    let (files, model, options) = one_segment(14);
    let places = frame_places(&files[&store(0)]);
    let bits = (places[8] * 8..places[11] * 8).step_by(5);
    let outcome = without_checksums(|| {
        flip_all(&files, &store(0), bits, &model, &options, |_, fate| fate == Fate::Refused)
    });
    assert!(outcome.is_err());
}

/// Two blocks put out of order, or one: all combinations, each as whole files.
fn mixed_blocks(files: &Files, name: &str, blocks: usize) -> Vec<(usize, String, Files)> {
    let block = |number: usize| number * 512..(number + 1) * 512;
    let mut all = Vec::new();
    let mut push = |last: usize, what: String, change: &dyn Fn(&mut Vec<u8>)| {
        let mut mixed = files.clone();
        change(mixed.get_mut(name).unwrap());
        all.push((last, what, mixed));
    };
    for first in 0..blocks {
        push(first, format!("block {first} zeroed"), &|bytes| bytes[block(first)].fill(0));
        for second in (0..blocks).filter(|second| *second != first) {
            push(second, format!("block {first} also at {second}"), &|bytes| {
                bytes.copy_within(block(first), second * 512);
            });
            push(first.max(second), format!("blocks {first} and {second} swapped"), &|bytes| {
                let (one, other) = (bytes[block(first)].to_vec(), bytes[block(second)].to_vec());
                bytes[block(first)].copy_from_slice(&other);
                bytes[block(second)].copy_from_slice(&one);
            });
        }
    }
    all
}

#[test]
fn a3_zeroed_swapped_and_doubled_blocks_are_never_taken_for_data() {
    let (files, model, options) = one_segment(40);
    let name = store(0);
    let places = frame_places(&files[&name]);
    let blocks = places.last().unwrap() / 512;
    let last_frame = places[places.len() - 2];
    for (last_block, what, mixed) in mixed_blocks(&files, &name, blocks) {
        let fate = fate_of(&mixed, &model, &options);
        // A whole frame behind the damage says that all before it had been durable. Where none
        // is left, only a checkpoint could know.
        let told = last_frame >= (last_block + 1) * 512;
        let right = match fate {
            Ok(Fate::Refused) => true,
            Ok(Fate::Cut(_)) => !told,
            _ => false,
        };
        assert!(right, "{what}: {fate:?}");
    }
    let files = closed(&files, &options);
    for (_, what, mixed) in mixed_blocks(&files, &name, blocks) {
        let fate = fate_of(&mixed, &model, &options);
        assert!(matches!(fate, Ok(Fate::Refused | Fate::ReadRefused)), "{what}: {fate:?}");
    }
}

/// Negative control: with checksums ignored, mixed blocks must be seen to show wrong bytes.
#[test]
fn a3_a_recovery_that_takes_mixed_blocks_is_caught() {
    let (files, model, options) = one_segment(40);
    let blocks = frame_places(&files[&store(0)]).last().unwrap() / 512;
    let caught = without_checksums(|| {
        mixed_blocks(&files, &store(0), blocks)
            .iter()
            .any(|(_, _, mixed)| fate_of(mixed, &model, &options).is_err())
    });
    assert!(caught);
}

#[test]
fn a3_stale_and_doubled_frames_behind_the_end_are_cut_not_read() {
    let (files, model, options) = one_segment(12);
    let name = store(0);
    let places = frame_places(&files[&name]);
    let end = *places.last().unwrap();
    for pair in places.windows(2) {
        let mut stale = files.clone();
        let bytes = stale.get_mut(&name).unwrap();
        bytes.truncate(end);
        bytes.extend_from_within(pair[0]..pair[1]);
        assert_eq!(fate_of(&stale, &model, &options), Ok(Fate::Whole), "{pair:?} again");
    }
}

#[test]
fn a3_zeros_behind_the_end_are_the_end() {
    let (files, model, options) = one_segment(12);
    for extra in [1, 100, 4096, 1 << 20] {
        let mut longer = files.clone();
        let bytes = longer.get_mut(&store(0)).unwrap();
        bytes.resize(bytes.len() + extra, 0);
        assert_eq!(fate_of(&longer, &model, &options), Ok(Fate::Whole), "{extra} zeros");
    }
}

#[test]
fn a3_a_segment_that_is_missing_empty_or_another_is_refused() {
    let (files, model, options) = segments(60);
    let stores: Vec<String> =
        files.keys().filter(|name| name.ends_with(".store")).cloned().collect();
    assert!(stores.len() >= 3);
    let sealed = &stores[..stores.len() - 1];
    for name in sealed {
        let mut empty = files.clone();
        empty.get_mut(name).unwrap().clear();
        assert_eq!(fate_of(&empty, &model, &options), Ok(Fate::Refused), "{name} empty");
        for other in stores.iter().filter(|other| *other != name) {
            let mut mixed = files.clone();
            let bytes = mixed[other].clone();
            mixed.insert(name.clone(), bytes);
            let fate = fate_of(&mixed, &model, &options);
            assert_eq!(fate, Ok(Fate::Refused), "{other} as {name}");
        }
    }
    for name in &sealed[1..] {
        let mut missing = files.clone();
        missing.remove(name);
        assert_eq!(fate_of(&missing, &model, &options), Ok(Fate::Refused), "{name} missing");
    }
    let closed = closed(&files, &options);
    for name in &stores {
        let mut missing = closed.clone();
        missing.remove(name);
        assert_eq!(fate_of(&missing, &model, &options), Ok(Fate::Refused), "{name} missing");
    }
}

/// A record may hold a whole log; a torn write of it must not make recovery see its frames.
#[test]
fn a3_a_log_stored_as_a_record_is_not_taken_for_frames_of_this_log() {
    let (inner, _, _) = one_segment(40);
    let inner = inner[&store(0)].clone();
    // This log was created at another time than the inner one.
    let clock = std::sync::Arc::new(ManualClock::at(Timestamp(NOW.0 + 1)));
    let options = LogOptions { segment_bytes_max: 1 << 20, frame_bytes_max: 1 << 20, ..small() };
    let disk = SimDisk::new();
    let (mut log, _) = open_at(&disk, &options, clock).unwrap();
    let mut model = Model { term: 1, ..Model::default() };
    log.append(&[model.propose(1, 10)]).unwrap();
    let _ = log.sync().unwrap();
    log.append(&[data(2, 1, &[inner])]).unwrap();
    let mut files = files_of(&disk);
    let bytes = files.get_mut(&store(0)).unwrap();
    let at = frame_places(bytes)[1] + 100;
    bytes[at] ^= 1;
    model.propose(1, 10);
    assert_eq!(fate_of(&files, &model, &options), Ok(Fate::Cut(1)));
}
