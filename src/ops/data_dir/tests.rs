//! What the data directory promises: one node at a time, an identity that stays, refusals that
//! change nothing.
#![allow(clippy::disallowed_methods, reason = "tests look at the directory from outside")]

use super::*;
use crate::model::{GroupId, NodeId, ReplicaId, TopicName};
use std::collections::BTreeMap;
use tempfile::TempDir;

fn temporary() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Every file of the directory with its bytes.
fn contents(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    fs::read_dir(path).unwrap().map(|entry| read(entry.unwrap())).collect()
}

fn addresses() -> (SocketAddr, SocketAddr) {
    ("127.0.0.1:40001".parse().unwrap(), "127.0.0.1:40002".parse().unwrap())
}

#[test]
fn a_missing_directory_is_made_with_what_is_missing_above_it() {
    let base = temporary();
    let path = base.path().join("a/b/c");
    let data_dir = DataDir::open(&path).unwrap();
    assert_eq!(fs::read_to_string(path.join("VERSION")).unwrap(), "2\n");
    assert!(uuid::Uuid::parse_str(data_dir.node_id()).is_ok());
}

#[test]
fn a_directory_that_is_made_is_its_owners_and_one_that_is_there_stays_as_it_is() {
    use std::os::unix::fs::PermissionsExt;
    let base = temporary();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let made = base.path().join("above/data");
    drop(DataDir::open(&made).unwrap());
    assert_eq!(mode(&made), 0o700);
    fs::set_permissions(&made, fs::Permissions::from_mode(0o750)).unwrap();
    drop(DataDir::open(&made).unwrap());
    assert_eq!(mode(&made), 0o750);
}

#[test]
fn the_node_id_stays() {
    let base = temporary();
    let first = DataDir::open(base.path()).unwrap().node_id().to_owned();
    assert_eq!(DataDir::open(base.path()).unwrap().node_id(), first);
}

#[test]
fn a_second_node_is_refused_and_told_who_is_there() {
    let base = temporary();
    let first = DataDir::open(base.path()).unwrap();
    let before = contents(base.path());
    let refused = DataDir::open(base.path()).unwrap_err();
    let DataDirError::Locked { pid, host: other_host, .. } = &refused else { panic!("{refused}") };
    assert_eq!((pid, other_host), (&std::process::id().to_string(), &host()));
    assert!(matches!(inspect(base.path()), Err(DataDirError::Locked { .. })));
    assert_eq!(contents(base.path()), before);
    drop(first);
    assert!(inspect(base.path()).is_ok());
    assert!(DataDir::open(base.path()).is_ok());
}

#[test]
fn a_link_in_the_directory_is_refused_and_what_it_points_to_stays() {
    let (base, elsewhere) = (temporary(), temporary());
    fs::write(elsewhere.path().join("precious"), "kept").unwrap();
    let path = base.path().join("data");
    drop(DataDir::open(&path).unwrap());
    for name in ["partitions", "audit"] {
        std::os::unix::fs::symlink(elsewhere.path(), path.join(name)).unwrap();
        let refused = DataDir::open(&path).unwrap_err();
        assert!(
            matches!(&refused, DataDirError::Link { path } if path.ends_with(name)),
            "{refused}"
        );
        assert!(matches!(inspect(&path), Err(DataDirError::Link { .. })));
        fs::remove_file(path.join(name)).unwrap();
    }
    assert_eq!(fs::read_to_string(elsewhere.path().join("precious")).unwrap(), "kept");
    // The directory itself may be reached by one.
    let link = base.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(DataDir::open(&link).is_ok());
}

#[test]
fn a_newer_format_is_refused_untouched() {
    let base = temporary();
    fs::write(base.path().join("VERSION"), "3\n").unwrap();
    fs::write(base.path().join("something-new"), "x").unwrap();
    let before = contents(base.path());
    let refused = DataDir::open(base.path()).unwrap_err();
    assert!(matches!(refused, DataDirError::TooNew { version: 3, readable: 2, .. }), "{refused}");
    assert!(refused.advice().contains("format version 3"), "{}", refused.advice());
    assert_eq!(contents(base.path()), before);
}

#[test]
fn a_directory_of_someone_else_is_refused_untouched() {
    let base = temporary();
    fs::write(base.path().join("thesis.tex"), "years of work").unwrap();
    let before = contents(base.path());
    let refused = DataDir::open(base.path()).unwrap_err();
    assert!(refused.to_string().contains("thesis.tex"), "{refused}");
    assert!(inspect(base.path()).is_err());
    assert_eq!(contents(base.path()), before);
}

#[test]
fn a_directory_left_half_made_is_completed() {
    for left in [&["LOCK"][..], &["LOCK", "NODE.new"], &["LOCK", "VERSION.new"]] {
        let base = temporary();
        for name in left {
            fs::write(base.path().join(name), "").unwrap();
        }
        assert!(DataDir::open(base.path()).is_ok(), "{left:?}");
    }
}

#[test]
fn a_damaged_identity_or_version_is_an_error_and_never_replaced() {
    for (name, text) in [("NODE", "not an id"), ("VERSION", "one"), ("VERSION", "0"), ("NODE", "")]
    {
        let base = temporary();
        drop(DataDir::open(base.path()).unwrap());
        fs::write(base.path().join(name), text).unwrap();
        let refused = DataDir::open(base.path()).unwrap_err();
        assert!(matches!(refused, DataDirError::Damaged { .. }), "{name} {text}: {refused}");
        assert_eq!(fs::read_to_string(base.path().join(name)).unwrap(), text);
    }
}

#[test]
fn a_file_in_its_place_is_told_as_such() {
    let base = temporary();
    let path = base.path().join("file");
    fs::write(&path, "").unwrap();
    for path in [path.clone(), path.join("below")] {
        let refused = DataDir::open(&path).unwrap_err();
        assert!(matches!(refused, DataDirError::NotADirectory { .. }), "{refused}");
    }
}

#[test]
fn ports_are_told_whole_and_a_killed_nodes_ports_are_forgotten() {
    let base = temporary();
    let data_dir = DataDir::open(base.path()).unwrap();
    let (rpc, http) = addresses();
    data_dir.write_ports(rpc, http).unwrap();
    let told = fs::read(base.path().join("ports.json")).unwrap();
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    assert_eq!(
        (&told["rpc"], &told["http"]),
        (&"127.0.0.1:40001".into(), &"127.0.0.1:40002".into())
    );
    assert_eq!(told["node_id"], data_dir.node_id());
    drop(data_dir);
    let reopened = DataDir::open(base.path()).unwrap();
    assert!(!base.path().join("ports.json").exists(), "the ports were a dead node's");
    reopened.write_ports(rpc, http).unwrap();
    reopened.remove_ports();
    assert!(!base.path().join("ports.json").exists());
}

#[test]
fn system_errors_are_sorted_by_who_can_mend_them() {
    let at = |errno| DataDirError::at("x".into(), io::Error::from(errno));
    assert!(matches!(at(rustix::io::Errno::ROFS), DataDirError::NotWritable { .. }));
    assert!(matches!(at(rustix::io::Errno::NOSPC), DataDirError::NotWritable { .. }));
    assert!(matches!(at(rustix::io::Errno::ACCESS), DataDirError::Permission { .. }));
    assert!(matches!(at(rustix::io::Errno::IO), DataDirError::Io { .. }));
}

#[test]
fn looking_at_a_directory_that_is_not_there_makes_none() {
    let base = temporary();
    let path = base.path().join("later");
    assert!(inspect(&path).is_ok());
    assert!(!path.exists());
}

#[test]
fn a_disk_too_full_to_say_who_holds_the_lock_does_not_refuse_the_start() {
    let base = temporary();
    drop(DataDir::open(base.path()).unwrap());
    fs::remove_file(base.path().join(LOCK)).unwrap();
    std::os::unix::fs::symlink("/dev/full", base.path().join(LOCK)).unwrap();
    // Past the check of the directory, which takes no link for a lock.
    let opened = loop {
        match take_lock(base.path()) {
            // The device is the whole machine's: another run of this test may hold it.
            Err(DataDirError::Locked { .. }) => std::thread::yield_now(),
            opened => break opened,
        }
    };
    assert!(opened.is_ok(), "{opened:?}");
}

fn member(cluster_id: &str, node: u32) -> Cluster {
    Cluster { cluster_id: cluster_id.into(), node: NodeId(node) }
}

#[test]
fn the_cluster_is_written_once_and_never_another() {
    let base = temporary();
    let data_dir = DataDir::open(base.path()).unwrap();
    assert_eq!(data_dir.cluster(), None);
    data_dir.set_cluster(&member("c1", 2)).unwrap();
    data_dir.set_cluster(&member("c1", 2)).unwrap();
    for other in [member("c2", 2), member("c1", 3)] {
        let refused = data_dir.set_cluster(&other).unwrap_err();
        assert!(matches!(refused, DataDirError::OtherCluster { .. }), "{refused}");
        assert!(refused.to_string().contains("belongs to node n2 of cluster c1"), "{refused}");
        assert!(refused.advice().contains("join a member of cluster c1"), "{}", refused.advice());
    }
    drop(data_dir);
    assert_eq!(DataDir::open(base.path()).unwrap().cluster(), Some(&member("c1", 2)));
}

#[test]
fn a_directory_of_format_1_keeps_it_until_it_joins_a_cluster() {
    let base = temporary();
    drop(DataDir::open(base.path()).unwrap());
    let version = || fs::read_to_string(base.path().join("VERSION")).unwrap();
    fs::write(base.path().join("VERSION"), "1\n").unwrap();
    let data_dir = DataDir::open(base.path()).unwrap();
    assert_eq!(version(), "1\n", "a program of then can still open it");
    data_dir.set_cluster(&member("c1", 1)).unwrap();
    assert_eq!(version(), "2\n", "now it would go on alone with what is shared");
}

#[test]
fn a_damaged_cluster_file_is_an_error_and_never_replaced() {
    for text in ["", "{}", r#"{"cluster_id":"c1","node":0}"#, r#"{"cluster_id":"","node":1}"#] {
        let base = temporary();
        drop(DataDir::open(base.path()).unwrap());
        fs::write(base.path().join("CLUSTER"), text).unwrap();
        for refused in [DataDir::open(base.path()).map(drop), inspect(base.path()).map(drop)] {
            let refused = refused.unwrap_err();
            assert!(matches!(refused, DataDirError::Damaged { .. }), "{text}: {refused}");
        }
        assert_eq!(fs::read_to_string(base.path().join("CLUSTER")).unwrap(), text);
    }
}

#[test]
fn the_record_of_replicas_is_read_back_and_its_loss_in_a_cluster_is_told() {
    let base = temporary();
    let data_dir = DataDir::open(base.path()).unwrap();
    assert_eq!(data_dir.replicas().unwrap(), Replicas::default());
    data_dir.set_cluster(&member("c1", 2)).unwrap();
    assert_eq!(data_dir.replicas().unwrap(), Replicas::default(), "written with the cluster");
    let replicas = Replicas {
        seen_incarnation: 9,
        replicas: vec![ReplicaRecord {
            group: GroupId::LOG,
            topic: TopicName::new("log").unwrap(),
            partition: 0,
            replica: ReplicaId::new(NodeId(2), 7),
            founders: Vec::new(),
            settings: [("retention_age".to_owned(), "7d".to_owned())].into(),
        }],
    };
    data_dir.set_replicas(&replicas).unwrap();
    assert_eq!(data_dir.replicas().unwrap(), replicas);
    fs::remove_file(base.path().join("replicas.json")).unwrap();
    let refused = data_dir.replicas().unwrap_err();
    assert!(matches!(refused, DataDirError::Wiped { .. }), "{refused}");
    assert!(refused.advice().contains("duramen node replace n2"), "{}", refused.advice());
    drop(data_dir);
    assert!(matches!(inspect(base.path()), Err(DataDirError::Wiped { .. })));
}

#[test]
fn a_look_tells_whose_a_directory_is_and_a_mirrors_is_no_nodes() {
    let base = temporary();
    let data_dir = DataDir::open(base.path()).unwrap();
    data_dir.set_cluster(&member("c1", 2)).unwrap();
    drop(data_dir);
    assert_eq!(inspect(base.path()).unwrap(), Some(member("c1", 2)));
    let base = temporary();
    let data_dir = DataDir::open(base.path()).unwrap();
    let topic = TopicName::new("log").unwrap();
    data_dir.set_mirror(&MirrorOf { cluster_id: "c1".into(), topic, topic_id: 1 }).unwrap();
    drop(data_dir);
    assert!(matches!(inspect(base.path()), Err(DataDirError::OfAMirror { .. })));
}

#[test]
fn replicas_that_are_given_while_the_node_becomes_a_member_are_all_recorded() {
    for round in 0..20 {
        let base = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(base.path()).unwrap();
        let member = Cluster { cluster_id: "c1".into(), node: NodeId(2) };
        let given = |seen_incarnation| Replicas { seen_incarnation, ..Replicas::default() };
        std::thread::scope(|scope| {
            scope.spawn(|| data_dir.set_cluster(&member).unwrap());
            for incarnation in 1..=10 {
                data_dir.set_replicas(&given(incarnation)).unwrap();
            }
        });
        assert_eq!(data_dir.replicas().unwrap(), given(10), "round {round}");
    }
}
