//! Rungs A1, A2 and A3: files that are cut, flipped, zeroed, swapped, mixed up.

use super::harness::*;
use crate::log::LogOptions;
use crate::log::control::{Sin, committing};
use crate::log::disk::SimDisk;
use crate::log::segment::Part;
use crate::model::{Chance, ManualClock, Offset, Timestamp};

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

/// What is found behind the last byte that came through.
#[derive(Clone, Copy)]
enum Behind {
    /// The file's end.
    Nothing,
    /// Zeros: the length had come through before the bytes.
    Zeros,
}

/// Tears the store at every byte of its last three entries; an error names a tear after which
/// not just the longest whole prefix was found.
fn tear_all(behind: Behind) -> Result<(), String> {
    let (files, model, options) = one_segment(12);
    let name = store(0);
    let places = frame_places(&files[&name]);
    let end = *places.last().unwrap();
    for cut in places[places.len() - 4]..=end {
        let mut torn = files.clone();
        let bytes = torn.get_mut(&name).unwrap();
        match behind {
            Behind::Nothing => bytes.truncate(cut),
            Behind::Zeros => bytes[cut..].fill(0),
        }
        let is_whole = |frame: &&[usize]| {
            bytes.get(frame[0]..frame[1]) == files[&name].get(frame[0]..frame[1])
        };
        let lost = model.last() - places.windows(2).take_while(is_whole).count() as u64;
        let wanted = if lost == 0 { Fate::Whole } else { Fate::Cut(lost) };
        let fate = fate_of(&torn, &model, &options);
        if fate != Ok(wanted) {
            return Err(format!("torn at {cut}: {fate:?}, not {wanted:?}"));
        }
    }
    Ok(())
}

#[test]
fn a1_a_store_torn_at_any_byte_of_its_last_entries_keeps_the_longest_whole_prefix() {
    tear_all(Behind::Nothing).unwrap();
    tear_all(Behind::Zeros).unwrap();
}

/// Negative controls: a recovery that keeps half an entry, and one that gives up a whole one.
#[test]
fn a1_a_recovery_that_keeps_more_or_less_than_the_whole_prefix_is_caught() {
    let kept = committing(Sin::IgnoreChecksums, || tear_all(Behind::Zeros));
    assert!(kept.is_err());
    for behind in [Behind::Nothing, Behind::Zeros] {
        let dropped = committing(Sin::DropWholeFrame, || tear_all(behind));
        assert!(dropped.is_err());
    }
}

/// Cuts each index at every byte; an error names a cut that took something away.
fn cut_indexes(files: &Files, model: &Model, options: &LogOptions) -> Result<(), String> {
    for name in files.keys().filter(|name| name.ends_with(".index")) {
        for cut in 0..files[name].len() {
            let mut files = files.clone();
            files.get_mut(name).unwrap().truncate(cut);
            let fate = fate_of(&files, model, options);
            if fate != Ok(Fate::Whole) {
                return Err(format!("{name} cut at {cut}: {fate:?}"));
            }
        }
    }
    Ok(())
}

#[test]
fn a1_an_index_cut_at_any_byte_or_gone_loses_nothing() {
    let (files, model, options) = segments(60);
    cut_indexes(&files, &model, &options).unwrap();
    for name in files.keys().filter(|name| name.ends_with(".index")) {
        let mut files = files.clone();
        files.remove(name);
        assert_eq!(fate_of(&files, &model, &options), Ok(Fate::Whole), "{name} gone");
    }
}

/// An entry is four bytes of offset and eight of place.
#[test]
fn an_index_whose_places_no_file_can_have_loses_nothing() {
    let (files, model, options) = segments(60);
    for name in files.keys().filter(|name| name.ends_with(".index")) {
        let end = files[name].len();
        for (entry, place) in [(0, u64::MAX), (end / 12 - 1, u64::MAX), (end / 12 - 1, 1 << 40)] {
            let mut files = files.clone();
            let bytes = &mut files.get_mut(name).unwrap()[entry * 12 + 4..entry * 12 + 12];
            bytes.copy_from_slice(&place.to_be_bytes());
            let fate = fate_of(&files, &model, &options);
            assert_eq!(fate, Ok(Fate::Whole), "{name}, entry {entry} at {place}");
        }
    }
}

/// Negative control: an index that ends early, believed, must be seen to hide entries.
#[test]
fn a1_a_recovery_that_trusts_a_cut_index_is_caught() {
    let (files, model, options) = segments(60);
    let outcome = committing(Sin::TrustShortIndex, || cut_indexes(&files, &model, &options));
    assert!(outcome.is_err());
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
fn a2_ten_thousand_flipped_bits_anywhere_in_a_log_of_several_segments_are_found() {
    const FLIPS: usize = 10_000;
    let (files, model, options) = segments(30);
    let mut dice = Chance::new(77);
    let ends = files.iter().filter(|(name, _)| name.ends_with(".store"));
    let ends: Vec<_> =
        ends.map(|(name, bytes)| (name, *frame_places(bytes).last().unwrap())).collect();
    assert!(ends.len() >= 2, "{ends:?}");
    let all: usize = ends.iter().map(|(_, end)| end).sum();
    for (name, end) in ends {
        let count = (FLIPS * end).div_ceil(all);
        let bits: Vec<_> = (0..count).map(|_| dice.below(end as u64 * 8) as usize).collect();
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
    let outcome = committing(Sin::IgnoreChecksums, || {
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

/// Tries all mixtures of a log as a crash leaves it; an error names one with the wrong fate.
fn mix_all(files: &Files, model: &Model, options: &LogOptions) -> Result<(), String> {
    let name = store(0);
    let places = frame_places(&files[&name]);
    let blocks = places.last().unwrap() / 512;
    let last_frame = places[places.len() - 2];
    for (last_block, what, mixed) in mixed_blocks(files, &name, blocks) {
        let fate = fate_of(&mixed, model, options);
        // A whole frame behind the damage says that all before it had been durable. Where none
        // is left, only a checkpoint could know.
        let told = last_frame >= (last_block + 1) * 512;
        let right = match fate {
            Ok(Fate::Refused) => true,
            Ok(Fate::Cut(_)) => !told,
            _ => false,
        };
        if !right {
            return Err(format!("{what}: {fate:?}"));
        }
    }
    Ok(())
}

#[test]
fn a3_zeroed_swapped_and_doubled_blocks_are_never_taken_for_data() {
    let (files, model, options) = one_segment(40);
    mix_all(&files, &model, &options).unwrap();
    let files = closed(&files, &options);
    let blocks = frame_places(&files[&store(0)]).last().unwrap() / 512;
    for (_, what, mixed) in mixed_blocks(&files, &store(0), blocks) {
        let fate = fate_of(&mixed, &model, &options);
        assert!(matches!(fate, Ok(Fate::Refused | Fate::ReadRefused)), "{what}: {fate:?}");
    }
}

/// Negative controls: a recovery that cuts at any damage, and one that takes it for data.
#[test]
fn a3_a_recovery_that_cuts_what_was_durable_or_ignores_checksums_is_caught() {
    let (files, model, options) = one_segment(40);
    for sin in [Sin::StopAtDamage, Sin::IgnoreChecksums] {
        let outcome = committing(sin, || mix_all(&files, &model, &options));
        assert!(outcome.is_err(), "{sin:?}");
    }
}

/// Each frame once more behind the end; an error names one that was taken for a new entry.
fn repeat_all(files: &Files, model: &Model, options: &LogOptions) -> Result<(), String> {
    let name = store(0);
    let places = frame_places(&files[&name]);
    for frame in places.windows(2) {
        let mut stale = files.clone();
        let bytes = stale.get_mut(&name).unwrap();
        bytes.truncate(*places.last().unwrap());
        bytes.extend_from_within(frame[0]..frame[1]);
        let fate = fate_of(&stale, model, options);
        if fate != Ok(Fate::Whole) {
            return Err(format!("{frame:?} again: {fate:?}"));
        }
    }
    Ok(())
}

#[test]
fn a3_stale_and_doubled_frames_behind_the_end_are_cut_not_read() {
    let (files, model, options) = one_segment(12);
    repeat_all(&files, &model, &options).unwrap();
}

/// Negative control: frames taken by their checksum alone must be seen to come back.
#[test]
fn a3_a_recovery_that_takes_stale_frames_is_caught() {
    let (files, model, options) = one_segment(12);
    let outcome = committing(Sin::TakeStaleFrames, || repeat_all(&files, &model, &options));
    assert!(outcome.is_err());
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
    // Negative control: taken for this log's, they would say that the torn entry was durable.
    let fate = committing(Sin::IgnoreIdentity, || fate_of(&files, &model, &options));
    assert_ne!(fate, Ok(Fate::Cut(1)));
}
