//! What the catalogue takes, what it refuses and how it says so, and that it is the same on every
//! node wherever a node begins to read.

use super::*;
use crate::model::Offset;
use proptest::prelude::*;

#[track_caller]
fn rejected(catalogue: &mut Catalogue, command: &Command) -> (RejectionKind, String) {
    let before = catalogue.clone();
    let no = catalogue.apply(command).unwrap_err();
    assert_eq!(*catalogue, before, "a command that is refused changes nothing");
    (no.kind, no.message)
}

fn settings(pairs: &[(&str, &str)]) -> TopicSettings {
    TopicSettings(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
}

#[test]
fn a_cluster_begins_with_one_node_and_the_first_topic() {
    let catalogue = founded();
    assert_eq!(catalogue.nodes[&NodeId(1)].state, NodeState::Active);
    let first = catalogue.placement(GroupId::LOG).unwrap();
    let member = Replica { id: ReplicaId::FIRST, state: ReplicaState::Member };
    assert_eq!(first.replicas, [member]);
    assert_eq!(catalogue.topics[&topic("log")].replication_factor, 3);
}

#[test]
fn what_may_have_been_done_can_be_asked_again() {
    let mut catalogue = founded();
    let found = Command::Found { cluster_id: "c1".into(), node: node_self(1, None) };
    assert_eq!(catalogue.apply(&found), Ok(Outcome::Node(NodeId(1))));
    let register = Command::Register(node_self(2, None));
    assert_eq!(catalogue.apply(&register), Ok(Outcome::Node(NodeId(2))));
    let once = catalogue.clone();
    assert_eq!(catalogue.apply(&register), Ok(Outcome::Node(NodeId(2))));
    assert_eq!(catalogue, once);
    let other = Command::Found { cluster_id: "c2".into(), node: node_self(1, None) };
    assert_eq!(rejected(&mut catalogue, &other).0, RejectionKind::Foreign);
}

#[test]
fn a_wiped_directory_does_not_come_back_under_its_name() {
    let mut catalogue = founded();
    catalogue.apply(&Command::Register(node_self(2, None))).unwrap();
    let wiped = NodeSelf { uuid: "another".into(), ..node_self(2, None) };
    let (kind, message) = rejected(&mut catalogue, &Command::Register(wiped));
    assert_eq!(kind, RejectionKind::Foreign);
    for part in ["name-2 belongs to node n2", "uuid uuid-2", "duramen node replace name-2"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn who_speaks_another_protocol_or_was_removed_stays_out() {
    let mut catalogue = founded();
    let newer = NodeSelf { protocol_min: 7, protocol_max: 9, ..node_self(2, None) };
    let (kind, message) = rejected(&mut catalogue, &Command::Register(newer));
    assert_eq!(kind, RejectionKind::Foreign);
    assert!(message.contains("speaks protocols 7 to 9, the cluster 3"), "{message}");
    catalogue.apply(&Command::Register(node_self(2, None))).unwrap();
    catalogue.apply(&Command::Remove { node: NodeId(2) }).unwrap();
    let (kind, message) = rejected(&mut catalogue, &Command::Register(node_self(2, None)));
    assert_eq!(kind, RejectionKind::Foreign);
    assert!(message.contains("was removed"), "{message}");
    let next = NodeSelf { uuid: "fresh".into(), ..node_self(2, None) };
    let next = catalogue.apply(&Command::Register(next));
    assert_eq!(next, Ok(Outcome::Node(NodeId(3))), "numbers are not given out again");
}

#[test]
fn a_node_comes_back_under_another_address() {
    let mut catalogue = founded();
    let moved = NodeSelf { rpc_addr: "10.0.0.9:1".into(), ..node_self(1, Some("r1")) };
    assert_eq!(catalogue.apply(&Command::Register(moved)), Ok(Outcome::Node(NodeId(1))));
    assert_eq!(catalogue.nodes[&NodeId(1)].rpc_addr, "10.0.0.9:1");
    assert_eq!(catalogue.nodes[&NodeId(1)].labels["rack"], "r1");
}

#[test]
fn topics_are_bounded_and_their_settings_known() {
    let mut catalogue = founded();
    catalogue.apply(&create("orders", 3, 2)).unwrap();
    let (kind, message) = rejected(&mut catalogue, &create("orders", 3, 2));
    assert_eq!(kind, RejectionKind::Exists);
    assert!(message.contains("duramen topic describe orders"), "{message}");
    for (partitions, factor) in [(0, 1), (9_997, 1), (u32::MAX, 7), (1, 0), (1, 8)] {
        let (kind, _) = rejected(&mut catalogue, &create("big", partitions, factor));
        assert_eq!(kind, RejectionKind::Invalid, "{partitions} × {factor}");
    }
    catalogue.apply(&create("most", 9_996, 1)).unwrap();
    let wrong = [
        ("colour", "red"),
        ("retention_bytes", "many"),
        ("retention_age", "7"),
        ("durability", "maybe"),
        ("segment_bytes_max", ""),
        ("retention_bytes", "1.MiB"),
        // What no node could read.
        ("retention_bytes", "1.5B"),
        ("retention_age", "4294967295d"),
    ];
    for pair in wrong {
        let Command::CreateTopic { name, .. } = create("t", 1, 1) else { unreachable!() };
        let settings = settings(&[pair]);
        let command = Command::CreateTopic { name, partitions: 1, replication_factor: 1, settings };
        assert_eq!(rejected(&mut founded(), &command).0, RejectionKind::Invalid, "{pair:?}");
    }
}

#[test]
fn a_topic_changes_as_told_and_never_shrinks() {
    let mut catalogue = founded();
    catalogue.apply(&create("orders", 3, 2)).unwrap();
    let alter = |partitions, pairs: &[(&str, &str)]| Command::AlterTopic {
        name: topic("orders"),
        partitions,
        replication_factor: None,
        settings: settings(pairs),
    };
    catalogue.apply(&alter(Some(5), &[("retention_age", "7d"), ("durability", "os")])).unwrap();
    catalogue.apply(&alter(None, &[("durability", "")])).unwrap();
    let orders = &catalogue.topics[&topic("orders")];
    assert_eq!(orders.partitions.len(), 5);
    assert_eq!(orders.settings, settings(&[("retention_age", "7d")]));
    let (_, message) = rejected(&mut catalogue, &alter(Some(4), &[]));
    assert!(message.contains("never taken away"), "{message}");
    catalogue.apply(&Command::DeleteTopic { name: topic("orders") }).unwrap();
    catalogue.apply(&create("orders", 1, 1)).unwrap();
    assert_eq!(catalogue.topics[&topic("orders")].id.0, 3, "another topic of the same name");
    let first = Command::DeleteTopic { name: topic("log") };
    assert_eq!(rejected(&mut catalogue, &first).0, RejectionKind::Invalid);
}

#[test]
fn replicas_of_a_new_partition_begin_together_and_who_they_were_never_changes() {
    let mut catalogue = founded();
    for number in 2..=4 {
        catalogue.apply(&Command::Register(node_self(number, None))).unwrap();
    }
    catalogue.apply(&create("orders", 1, 3)).unwrap();
    let orders = |catalogue: &Catalogue| catalogue.topics[&topic("orders")].clone();
    let group = GroupId::partition_of(orders(&catalogue).id, 0);
    let first = orders(&catalogue).partitions[0].clone();
    assert!(first.replicas.iter().all(|replica| replica.state == ReplicaState::Member));
    assert_eq!((first.founders.len(), &first.founders), (3, &first.wanted()));
    // One of them goes before its node has heard of it, another one comes.
    let (gone, group) = (first.founders[2], group.raw());
    let free = (1..=4).map(NodeId).find(|node| first.on(*node).is_none()).unwrap();
    let added = catalogue.apply(&Command::AddReplica { group, node: free });
    let Ok(Outcome::Replica(added)) = added else { panic!("{added:?}") };
    catalogue.apply(&Command::DropReplica { group, replica: gone }).unwrap();
    let voters = vec![first.founders[0], first.founders[1], added];
    let news = GroupNews { group, term: Term(2), voters, learners: Vec::new() };
    catalogue.apply(&Command::GroupsAre { groups: vec![news] }).unwrap();
    let now = orders(&catalogue).partitions[0].clone();
    assert!(!now.wanted().contains(&gone));
    assert_eq!(now.founders, first.founders);
}

#[test]
fn before_protocol_2_one_replica_begins_and_the_others_join() {
    let old = NodeSelf { protocol_max: 1, ..node_self(1, None) };
    let mut catalogue = Catalogue::default();
    catalogue.apply(&Command::Found { cluster_id: "c1".into(), node: old }).unwrap();
    catalogue.apply(&Command::Register(node_self(2, None))).unwrap();
    catalogue.apply(&create("orders", 1, 2)).unwrap();
    let placement = &catalogue.topics[&topic("orders")].partitions[0];
    let states: Vec<_> = placement.replicas.iter().map(|replica| replica.state).collect();
    assert_eq!(states, [ReplicaState::Member, ReplicaState::Joining]);
    assert!(placement.founders.is_empty());
}

#[test]
fn old_news_of_a_group_is_ignored() {
    let mut catalogue = founded();
    catalogue.apply(&Command::Register(node_self(2, None))).unwrap();
    let (group, node) = (GroupId::LOG.raw(), NodeId(2));
    let Ok(Outcome::Replica(second)) = catalogue.apply(&Command::AddReplica { group, node }) else {
        panic!("a replica is given out");
    };
    let is = |term, voters: &[ReplicaId]| Command::GroupIs {
        group,
        term: Term(term),
        voters: voters.to_vec(),
        learners: Vec::new(),
    };
    catalogue.apply(&is(3, &[ReplicaId::FIRST])).unwrap();
    catalogue.apply(&is(2, &[ReplicaId::FIRST, second])).unwrap();
    let state =
        |catalogue: &Catalogue| catalogue.placement(GroupId::LOG).unwrap().replicas[1].state;
    assert_eq!(state(&catalogue), ReplicaState::Joining);
    catalogue.apply(&is(3, &[ReplicaId::FIRST, second])).unwrap();
    assert_eq!(state(&catalogue), ReplicaState::Member);
    catalogue.apply(&Command::DropReplica { group, replica: ReplicaId::FIRST }).unwrap();
    let last = Command::DropReplica { group, replica: second };
    assert_eq!(rejected(&mut catalogue, &last).0, RejectionKind::NotNow);
    catalogue.apply(&is(4, &[second])).unwrap();
    assert_eq!(catalogue.placement(GroupId::LOG).unwrap().wanted(), [second]);
}

#[test]
fn a_node_is_not_removed_with_the_last_copy_of_a_partition() {
    let mut catalogue = founded();
    catalogue.apply(&Command::Register(node_self(2, None))).unwrap();
    let (kind, message) = rejected(&mut catalogue, &Command::Remove { node: NodeId(1) });
    assert_eq!(kind, RejectionKind::NotNow);
    assert!(message.contains("partition log/0"), "{message}");
}

#[test]
fn what_a_newer_program_wrote_stops_the_reader_and_is_never_skipped() {
    let newer = CatalogueRecord::decode(br#"{"v":2,"command":{"Paint":"red"}}"#).unwrap_err();
    assert_eq!(newer, RecordError::Newer { theirs: 2 });
    assert!(
        newer.to_string().contains("reads form 1 of the catalogue, the cluster writes 2: upgrade")
    );
    let secret: [&[u8]; 4] = [
        br#"{"v":1,"command":{"Paint":"a secret"}}"#,
        br#"{"v":1}"#,
        b"a secret",
        br#"{"v":1,"command":{"Leave":{"node":1,"secret":1}},"snapshot":{}}"#,
    ];
    for bytes in secret {
        let unknown = CatalogueRecord::decode(bytes).unwrap_err();
        assert!(matches!(unknown, RecordError::Unknown { .. }), "{unknown:?}");
        assert!(!unknown.to_string().contains("secret"), "{unknown}");
        let mut replay = Replay::from(Offset(0));
        replay.fold(Offset(0), bytes).unwrap_err();
        assert_eq!(replay.next(), Offset(0));
    }
}

#[test]
fn a_snapshot_with_numbers_that_cannot_be_is_refused() {
    let mut catalogue = founded();
    let at = Offset(1);
    let sound = CatalogueRecord::Snapshot { catalogue: catalogue.clone(), at }.encode();
    CatalogueRecord::decode(&sound).unwrap();
    catalogue.topics.get_mut(&topic("log")).unwrap().id = crate::model::TopicId(0);
    let wrong = CatalogueRecord::Snapshot { catalogue, at }.encode();
    assert!(matches!(CatalogueRecord::decode(&wrong), Err(RecordError::Unknown { .. })));
}

fn command() -> impl Strategy<Value = Command> {
    let group = || {
        (1..4u32, 0..4u32).prop_map(|(topic, partition)| {
            GroupId::partition_of(crate::model::TopicId(topic), partition).raw()
        })
    };
    let replica = || (1..6u32, 1..12u32).prop_map(|(node, n)| ReplicaId::new(NodeId(node), n));
    let node = || (1..6u32).prop_map(NodeId);
    let replicas = || prop::collection::vec(replica(), 0..4);
    prop_oneof![
        (2..8u32, any::<bool>()).prop_map(|(number, in_rack)| {
            Command::Register(node_self(number, in_rack.then_some("r")))
        }),
        (0..3u32, 0..5u32, 0..5u32).prop_map(|(t, p, f)| create(&format!("t{t}"), p, f)),
        (0..3u32).prop_map(|t| Command::DeleteTopic { name: topic(&format!("t{t}")) }),
        (0..3u32, 1..6u32, 0..9u32).prop_map(|(t, partitions, factor)| Command::AlterTopic {
            name: topic(&format!("t{t}")),
            partitions: Some(partitions),
            replication_factor: Some(factor),
            settings: TopicSettings::default(),
        }),
        (group(), node()).prop_map(|(group, node)| Command::AddReplica { group, node }),
        (group(), replica()).prop_map(|(group, replica)| Command::DropReplica { group, replica }),
        (group(), replica()).prop_map(|(group, replica)| Command::PreferLeader { group, replica }),
        (group(), 0..4u64, replicas(), replicas()).prop_map(|(group, term, voters, learners)| {
            Command::GroupIs { group, term: Term(term), voters, learners }
        }),
        node().prop_map(|node| Command::Leave { node }),
        node().prop_map(|node| Command::Remove { node }),
    ]
}

/// Numbers of topics, nodes and replicas that were ever seen.
type Given = (u32, u32, u32);

fn given(catalogue: &Catalogue) -> Given {
    let last_node = catalogue.nodes.last_key_value().map_or(0, |(id, _)| id.0);
    (catalogue.last_topic, last_node, catalogue.last_incarnation)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_reader_ends_with_the_same_catalogue_wherever_it_begins(
        commands in prop::collection::vec(command(), 1..60),
        written_at in 0..60usize,
    ) {
        let node = node_self(1, None);
        let mut first = Replay::from(Offset(0));
        let mut records = Vec::new();
        let found = Command::Found { cluster_id: "c1".into(), node };
        for (place, command) in std::iter::once(found).chain(commands).enumerate() {
            if place == written_at {
                let catalogue = first.catalogue().unwrap().clone();
                let snapshot = CatalogueRecord::Snapshot { catalogue, at: first.next() }.encode();
                prop_assert_eq!(first.fold(first.next(), &snapshot), Ok(Folded::Passed));
                records.push(snapshot);
            }
            let before = (first.catalogue().unwrap().clone(), given(first.catalogue().unwrap()));
            let record = CatalogueRecord::Command { command, absent: vec![NodeId(2)], by: None };
            let bytes = record.encode();
            prop_assert_eq!(CatalogueRecord::decode(&bytes), Ok(record));
            let folded = first.fold(first.next(), &bytes).unwrap();
            let after = first.catalogue().unwrap();
            prop_assert_eq!(after.fault(), None);
            if matches!(folded, Folded::Applied(Err(_))) {
                prop_assert_eq!(after, &before.0);
            }
            let (topics, nodes, replicas) = given(after);
            prop_assert!(topics >= before.1.0 && nodes >= before.1.1 && replicas >= before.1.2);
            records.push(bytes);
        }
        for start in 0..records.len() {
            let mut other = Replay::from(Offset(start as u64));
            for (offset, record) in records.iter().enumerate().skip(start) {
                other.fold(Offset(offset as u64), record).unwrap();
            }
            let knows = start == 0 || start <= written_at && written_at < records.len() - 1;
            // What is told to be enough is: the log may begin at the snapshot itself.
            let told = other.written_at();
            prop_assert!(told.is_none_or(|told| told == Offset(written_at as u64)));
            prop_assert_eq!(told.is_some(), start <= written_at && written_at < records.len() - 1);
            if knows {
                prop_assert_eq!(other.catalogue(), first.catalogue(), "from {}", start);
            }
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = CatalogueRecord::decode(&bytes);
        let _ = Answer::decode(&bytes);
    }
}

#[test]
fn a_snapshot_that_came_late_is_passed_over_and_a_wrong_one_stops_the_reader() {
    let mut replay = Replay::from(Offset(0));
    let node = node_self(1, None);
    let found = Command::Found { cluster_id: "c1".into(), node };
    let found = CatalogueRecord::Command { command: found, absent: Vec::new(), by: None }.encode();
    replay.fold(Offset(0), &found).unwrap();
    let late = CatalogueRecord::Snapshot { catalogue: Catalogue::default(), at: Offset(0) };
    assert_eq!(replay.fold(Offset(1), &late.encode()), Ok(Folded::Passed));
    assert!(replay.catalogue().unwrap().is_founded());
    let wrong = CatalogueRecord::Snapshot { catalogue: Catalogue::default(), at: Offset(2) };
    let diverged = replay.fold(Offset(2), &wrong.encode());
    assert_eq!(diverged, Err(ReplayError::Diverged { offset: Offset(2) }));
    let gap = replay.fold(Offset(7), &found);
    assert!(matches!(gap, Err(ReplayError::Gap { .. })), "{gap:?}");
}

#[test]
fn nodes_are_found_by_what_people_call_them() {
    let mut catalogue = founded();
    catalogue.apply(&Command::Register(node_self(2, None))).unwrap();
    for asked in ["2", "n2", "name-2", "uuid-2"] {
        assert_eq!(catalogue.find_node(asked).map(|(id, _)| id), Some(NodeId(2)), "{asked}");
    }
    assert_eq!(catalogue.find_node("n3"), None);
}

#[test]
fn a_protocol_is_raised_once_every_member_speaks_it() {
    let mut catalogue = founded();
    let speaks = |number, protocol_max| {
        Command::Register(NodeSelf { protocol_max, ..node_self(number, None) })
    };
    let old = catalogue.protocol;
    assert_eq!(catalogue.protocol_to_raise(), None, "nobody speaks another");
    catalogue.apply(&speaks(1, old + 2)).unwrap();
    catalogue.apply(&speaks(2, old)).unwrap();
    assert_eq!(catalogue.protocol_to_raise(), None, "one member does not");
    catalogue.apply(&speaks(2, old + 1)).unwrap();
    assert_eq!(catalogue.protocol_to_raise(), Some(old + 1), "the newest that all speak");
    catalogue.apply(&Command::RaiseProtocol { protocol: old + 1 }).unwrap();
    assert_eq!((catalogue.protocol, catalogue.protocol_to_raise()), (old + 1, None));
}

#[test]
fn who_may_do_what_is_changed_as_a_whole_or_not_at_all() {
    use super::super::AccessChange::{Add, Load, Remove, Switch};
    let mut catalogue = founded();
    let mut change = |change| {
        let before = catalogue.access.clone();
        let applied = catalogue.apply(&Command::Access(change));
        match &applied {
            Ok(_) => assert!(catalogue.access.generation - before.generation <= 1),
            Err(_) => assert_eq!(catalogue.access, before, "nothing is changed"),
        }
        applied.map(|_| catalogue.access.clone()).map_err(|rejection| rejection.kind)
    };
    assert_eq!(change(Switch { on: true }), Err(RejectionKind::NotNow), "nobody could turn it off");
    let admin = || "p, role:ops, *, *\ng, olga, role:ops".parse().unwrap();
    assert_eq!(change(Add(admin())).unwrap().generation, 1);
    assert!(change(Switch { on: true }).unwrap().is_on);
    assert_eq!(change(Switch { on: true }).unwrap().generation, 2, "nothing new");
    assert_eq!(change(Remove("g, olga, role:ops".parse().unwrap())), Err(RejectionKind::NotNow));
    assert_eq!(change(Load("p, a, *, consume".parse().unwrap())), Err(RejectionKind::NotNow));
    assert_eq!(change(Remove("p, x, *, *".parse().unwrap())), Err(RejectionKind::NotFound));
    let mut odd: crate::access::Policy = admin();
    odd.rules.insert(crate::access::Rule {
        subject: "x, *, *\np, mallory".into(),
        object: "*".into(),
        action: crate::access::Actions::All,
        effect: crate::access::Effect::Allow,
    });
    assert_eq!(change(Add(odd.clone())), Err(RejectionKind::Invalid));
    assert_eq!(change(Load(odd)), Err(RejectionKind::Invalid));
    assert!(!change(Switch { on: false }).unwrap().is_on);
    let encoded =
        CatalogueRecord::Snapshot { catalogue: catalogue.clone(), at: Offset(7) }.encode();
    let Ok(CatalogueRecord::Snapshot { catalogue: read, .. }) = CatalogueRecord::decode(&encoded)
    else {
        panic!("a snapshot is read back");
    };
    assert_eq!(read.access, catalogue.access);
}
