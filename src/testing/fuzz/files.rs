//! Small files of a node: votes, the producers' checkpoint, the marks of its data directory, the
//! audit log's lines.

use crate::access::{AuditEntry, Chain, verify_line};
use crate::log::disk::{Disk, SimDisk};
use crate::log::producers::{self, ProducerTable};
use crate::log::{LogError, stable};
use crate::model::{NodeId, RaftIndex, ReplicaId, Term};
use crate::ops::data_dir::{Cluster, MirrorOf, Replicas};
use crate::raft::{HARD_STATE_MAGIC, HARD_STATE_VERSION, HardState, Membership};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

const KINDS: u8 = 8;
const ME: ReplicaId = ReplicaId::new(NodeId(1), 1);
const DIRECTORY: &str = "/log";

pub(super) fn run(bytes: &[u8]) {
    let Some((kind, bytes)) = super::choice(bytes, KINDS) else { return };
    match kind {
        0 => vote(bytes),
        1 => drop(HardState::decode(1, ME, bytes)),
        2 => vote_file(bytes),
        3 => checkpoint(bytes),
        4 => read_again::<Cluster>(bytes),
        5 => replicas(bytes),
        6 => read_again::<MirrorOf>(bytes),
        _ => audit(bytes),
    }
}

fn vote(bytes: &[u8]) {
    let Ok(state) = HardState::decode(HARD_STATE_VERSION, ME, bytes) else { return };
    assert_eq!(state.encode(), bytes, "there is one way to write a vote");
}

/// The wrapper of small files: whole, or an error that says so.
fn vote_file(bytes: &[u8]) {
    let disk = disk_with("vote", bytes);
    let path = Path::new(DIRECTORY).join("vote");
    match stable::read(&disk, &path, HARD_STATE_MAGIC, HARD_STATE_VERSION) {
        Ok((version, content)) => {
            let again = stable::encode(HARD_STATE_MAGIC, version, &content);
            assert_eq!(again, bytes, "there is one way to write it");
        }
        Err(LogError::FileDamaged { .. } | LogError::UnknownVersion { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

/// The table of producers that a start begins from; its checksum is made right.
fn checkpoint(bytes: &[u8]) {
    let file = stable::encode(*b"DPRD", 1, bytes);
    let disk = disk_with("producers", &file);
    let directory = Path::new(DIRECTORY);
    let (first, last) = (RaftIndex(1), RaftIndex(1000));
    match producers::load(&disk, directory, first, last) {
        Ok((upto, table)) => {
            assert!(upto <= last, "behind what the log holds");
            producers::save(&disk, directory, upto, &table).expect("nothing fails");
            let (upto_again, again) =
                producers::load(&disk, directory, first, last).expect("written by us");
            assert_eq!((upto_again, again.encode()), (upto, table.encode()), "read again");
        }
        Err(LogError::ProducersDamaged { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

fn disk_with(name: &str, bytes: &[u8]) -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(DIRECTORY)).expect("an empty disk");
    let file = disk.create_new(&Path::new(DIRECTORY).join(name)).expect("an empty disk");
    file.write_at(&[bytes], 0).expect("there is room");
    disk
}

/// JSON that the node writes itself.
fn read_again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&read).expect("texts and numbers");
    let again = serde_json::from_slice::<T>(&written).expect("written by us");
    assert_eq!(again, read, "written and read again");
}

fn replicas(bytes: &[u8]) {
    read_again::<Replicas>(bytes);
    let Ok(Replicas { replicas, .. }) = serde_json::from_slice(bytes) else { return };
    for record in replicas {
        for id in record.founders.iter().chain([&record.replica]) {
            assert!(ReplicaId::from_raw(id.raw()).is_some(), "{id} is nobody");
        }
    }
}

/// A line that is taken says what was written, in the one way in which it is written.
fn audit(bytes: &[u8]) {
    let Ok(line) = std::str::from_utf8(bytes) else { return };
    let Ok(entry) = verify_line(&mut None, line) else { return };
    let before = entry.number.checked_sub(1).expect("lines are counted from 1");
    let mut chain = Some(Chain { number: before, hash: entry.previous.clone() });
    assert_eq!(chain.clone().expect("just made").append(entry.clone()), line, "as it was written");
    assert_eq!(verify_line(&mut chain, line), Ok(entry), "it follows the line before it");
    assert!(verify_line(&mut chain, line).is_err(), "no line follows itself");
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let replica = |node| ReplicaId::new(NodeId(node), node + 10);
    let members = Membership::of((1..4).map(replica));
    let state = HardState {
        term: Term(6),
        vote: Some(replica(2)),
        commit: RaftIndex(9),
        membership_index: RaftIndex(7),
        ..HardState::bootstrap(members)
    };
    let vote = state.encode();
    let file = stable::encode(HARD_STATE_MAGIC, HARD_STATE_VERSION, &vote);
    let mut first_layout: Vec<u8> = [4u64, 1, 77].iter().flat_map(|n| n.to_be_bytes()).collect();
    first_layout.extend(1u32.to_be_bytes());
    first_layout.extend(1u64.to_be_bytes());
    let table = ProducerTable::new(100).encode();
    let checkpoint = [&17u64.to_be_bytes()[..], &table].concat();
    let texts: [(u8, &str); 5] = [
        (4, r#"{"cluster_id":"c1","node":2}"#),
        (5, r#"{"seen_incarnation":9,"replicas":[]}"#),
        (
            5,
            r#"{"seen_incarnation":9,"replicas":[{"group":8589934592,"topic":"orders","partition":0,"replica":4294967303,"founders":[4294967303],"settings":{"retention_age":"7d"}}]}"#,
        ),
        (6, r#"{"cluster_id":"c1","topic":"orders","topic_id":3}"#),
        (7, r#"{"entry":{},"hash":""}"#),
    ];
    let entry = AuditEntry {
        number: 0,
        at_ms: 1_700_000_000_000,
        kind: "denied".into(),
        subject: Some("mallory".into()),
        peer: "127.0.0.1:9".into(),
        call: "Produce".into(),
        what: "produce log".into(),
        outcome: "denied".into(),
        times: 1,
        previous: String::new(),
    };
    let mut chain = Chain::default();
    let lines = [chain.append(entry.clone()), chain.append(entry)];
    let mut seeds = vec![
        super::of_kind(0, &vote),
        super::of_kind(1, first_layout),
        super::of_kind(2, file),
        super::of_kind(3, checkpoint),
    ];
    seeds.extend(texts.map(|(kind, text)| super::of_kind(kind, text)));
    seeds.extend(lines.map(|line| super::of_kind(7, line)));
    seeds
}
