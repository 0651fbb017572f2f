use super::disk::written;
use super::log::{edit, index, recovery};
use crate::log::control::{Sin, committing};
use std::panic::catch_unwind;

/// Whether a target notices the sin, by one of these inputs; without the sin it has nothing to say.
fn is_noticed(sin: Sin, target: fn(&[u8]), inputs: &[Vec<u8>]) -> bool {
    inputs.iter().for_each(|input| target(input));
    // Caught within: the sin must end with the input.
    inputs.iter().any(|input| committing(sin, || catch_unwind(|| target(input)).is_err()))
}

/// One edit of a file with this ending, the last of them, at many places.
fn everywhere(operation: u8, ending: &str, given: &[u8]) -> Vec<Vec<u8>> {
    let files = &written().files;
    let place = files.keys().rposition(|name| name.ends_with(ending)).expect("there is one");
    let length = files.values().nth(place).expect("as before").len();
    let at = |position: usize| edit(operation, place as u8, position as u16, given);
    (0..length).step_by(61).map(at).collect()
}

#[test]
fn the_target_of_recovery_notices_a_log_that_shows_what_was_not_written() {
    let flips = everywhere(6, ".store", &[4]);
    assert!(is_noticed(Sin::IgnoreChecksums, recovery, &flips), "it shows what was not written");
}

#[test]
fn the_target_of_the_index_notices_who_trusts_one() {
    let files = &written().files;
    let first = files.keys().filter(|name| name.ends_with(".index")).count();
    assert!(first >= 3, "{first} segments");
    let cuts: Vec<_> = (0..8).map(|entry| edit(1, 0, entry * 12, &[])).collect();
    assert!(is_noticed(Sin::TrustShortIndex, index, &cuts), "it takes a part for the whole");
}
