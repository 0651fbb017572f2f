//! The records of the controller's group: what every node folds into its catalogue, for ever.

use crate::cluster::{
    Answer, Catalogue, CatalogueRecord, Command, Folded, NodeSelf, PROTOCOL, PROTOCOL_MIN, Replay,
    Sight, TopicSettings, plan,
};
use crate::model::{NodeId, Offset, ReplicaId, Term, TopicName};
use crate::ops::settings::{ByteSize, Value};
use std::collections::BTreeSet;
use std::time::Duration;

/// Records, one a line: each is read, and folded by two nodes.
pub(super) fn run(bytes: &[u8]) {
    let (mut one, mut other) = (Replay::from(Offset(0)), Replay::from(Offset(0)));
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Some(answer) = Answer::decode(line) {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer), "written and read again");
        }
        if let Ok(record) = CatalogueRecord::decode(line) {
            let again = CatalogueRecord::decode(&record.encode());
            assert_eq!(again, Ok(record), "written and read again");
        }
        let (next, before) = (one.next(), one.catalogue().cloned());
        let folded = one.fold(next, line);
        assert_eq!(folded, other.fold(next, line), "two nodes, one answer");
        assert_eq!(one.catalogue(), other.catalogue(), "two nodes, one catalogue");
        match folded {
            Ok(Folded::Applied(Err(_))) | Err(_) => {
                assert_eq!(one.catalogue(), before.as_ref(), "refused, and changed");
            }
            Ok(_) => sound(one.catalogue().expect("it begins at the beginning")),
        }
    }
}

/// What can be relied on of every catalogue that came about by commands.
fn sound(catalogue: &Catalogue) {
    assert_eq!(catalogue.fault(), None, "a catalogue that nobody could read again");
    let record = CatalogueRecord::Snapshot { catalogue: catalogue.clone(), at: Offset(7) };
    assert_eq!(CatalogueRecord::decode(&record.encode()), Ok(record), "written down and read");
    for topic in catalogue.topics.values() {
        for (key, value) in &topic.settings.0 {
            let is_read = match key.as_str() {
                "retention_bytes" | "segment_bytes_max" => ByteSize::read(value).is_some(),
                "retention_age" => Duration::read(value).is_some(),
                _ => true,
            };
            assert!(is_read, "{key} is {value:?}, which no node can read");
        }
    }
}

/// Steps of whoever plans, over a cluster that the bytes make: each is taken, and there is an end.
pub(super) fn placement(bytes: &[u8]) {
    let mut catalogue = founded();
    let mut sight = Sight { alive: BTreeSet::from([NodeId(1)]), ..Sight::default() };
    let mut joined = 1;
    for [operation, number] in bytes.as_chunks().0.iter().take(40) {
        let node = NodeId(1 + u32::from(*number) % joined);
        let name = TopicName::new(&format!("t{}", number % 8)).expect("letters and digits");
        let command = match operation % 9 {
            0 if joined < 9 => {
                joined += 1;
                sight.alive.insert(NodeId(joined));
                Command::Register(node_self(joined, *number))
            }
            1 => Command::CreateTopic {
                name,
                partitions: 1 + u32::from(number % 5),
                replication_factor: 1 + u32::from(number / 5 % 5),
                settings: TopicSettings::default(),
            },
            2 => Command::DeleteTopic { name },
            3 => Command::AlterTopic {
                name,
                partitions: Some(u32::from(number % 7)),
                replication_factor: Some(u32::from(number / 7 % 8)),
                settings: TopicSettings::default(),
            },
            4 => Command::Leave { node },
            5 => Command::Remove { node },
            6 => {
                if !sight.alive.remove(&node) {
                    sight.alive.insert(node);
                }
                continue;
            }
            7 => {
                let silent = [&mut sight.doubtful, &mut sight.given_up];
                for set in silent {
                    if !set.remove(&node) && number % 3 == 0 {
                        set.insert(node);
                    }
                }
                continue;
            }
            _ => {
                groups_follow(&mut catalogue);
                continue;
            }
        };
        // Refusals are as good as anything.
        let _ = catalogue.apply(&command);
        sound(&catalogue);
    }
    let planned = plan(&catalogue, &sight, 4096);
    assert!(planned.len() < 4096, "planning has no end: {:?}", planned.last());
    assert_eq!(planned, plan(&catalogue, &sight, 4096), "two looks at the same cluster");
    for step in planned {
        catalogue.apply(&step).expect("what is planned is taken");
        sound(&catalogue);
    }
}

/// Each group consists of what it is to consist of.
fn groups_follow(catalogue: &mut Catalogue) {
    let told: Vec<Command> = catalogue
        .partitions()
        .map(|(group, .., placement)| Command::GroupIs {
            group: group.raw(),
            term: Term(placement.term.0 + 1),
            voters: placement.wanted(),
            learners: Vec::new(),
        })
        .collect();
    for command in told {
        let _ = catalogue.apply(&command);
    }
}

fn node_self(number: u32, label: u8) -> NodeSelf {
    NodeSelf {
        uuid: format!("uuid-{number}"),
        name: format!("n{number}"),
        rpc_addr: format!("127.0.0.1:{}", 8000 + number),
        gossip_addr: String::new(),
        version: "1.0.0".into(),
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL,
        labels: [("rack".to_owned(), (label % 3).to_string())].into(),
    }
}

fn found() -> Command {
    Command::Found { cluster_id: "c1".into(), node: node_self(1, 0) }
}

fn founded() -> Catalogue {
    let mut catalogue = Catalogue::default();
    catalogue.apply(&found()).expect("the first command");
    catalogue
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let topic = |name: &str| TopicName::new(name).expect("a name");
    let settings =
        |key: &str, value: &str| TopicSettings([(key.to_owned(), value.to_owned())].into());
    let create = Command::CreateTopic {
        name: topic("orders"),
        partitions: 2,
        replication_factor: 2,
        settings: settings("retention_bytes", "64MiB"),
    };
    let group = (2 << 32) | 1;
    let replica = ReplicaId::new(NodeId(2), 3);
    let commands = [
        vec![found()],
        vec![found(), Command::Register(node_self(2, 1)), create.clone()],
        vec![
            found(),
            Command::Register(node_self(2, 1)),
            create,
            Command::AddReplica { group, node: NodeId(1) },
            Command::GroupIs { group, term: Term(3), voters: vec![replica], learners: vec![] },
            Command::PreferLeader { group, replica },
            Command::DropReplica { group, replica },
            Command::AlterTopic {
                name: topic("orders"),
                partitions: Some(5),
                replication_factor: None,
                settings: settings("retention_age", "12h"),
            },
            Command::Leave { node: NodeId(2) },
            Command::Remove { node: NodeId(2) },
            Command::RaiseProtocol { protocol: PROTOCOL },
            Command::DeleteTopic { name: topic("orders") },
        ],
    ];
    let line = |command: Command| {
        CatalogueRecord::Command { command, absent: vec![NodeId(2)], by: None }.encode().to_vec()
    };
    let mut seeds: Vec<Vec<u8>> = commands
        .into_iter()
        .map(|all| all.into_iter().map(line).collect::<Vec<_>>().join(&b'\n'))
        .collect();
    let snapshot = CatalogueRecord::Snapshot { catalogue: founded(), at: Offset(0) };
    seeds.push(snapshot.encode().to_vec());
    let then = [
        line(found()),
        CatalogueRecord::Snapshot { catalogue: founded(), at: Offset(1) }.encode().to_vec(),
    ];
    seeds.push(then.join(&b'\n'));
    let mut policy = b"p, root, *, *\np, alice, orders-*, produce\ng, alice, role:w".to_vec();
    if let Ok(policy) = String::from_utf8(std::mem::take(&mut policy)).expect("text").parse() {
        use crate::cluster::AccessChange;
        let load = Command::Access(AccessChange::Load(policy));
        let on = Command::Access(AccessChange::Switch { on: true });
        seeds.push([line(found()), line(load), line(on)].join(&b'\n'));
    }
    let answer =
        Answer { offset: Offset(9), outcome: Ok(crate::cluster::Outcome::Node(NodeId(3))) };
    seeds.push(answer.encode().to_vec());
    seeds.push(br#"{"v":2,"command":{}}"#.to_vec());
    seeds
}

pub(super) fn placement_seeds() -> Vec<Vec<u8>> {
    vec![
        vec![0, 1, 0, 2, 1, 14, 8, 0],
        vec![0, 1, 0, 2, 0, 0, 1, 14, 1, 3, 8, 0, 4, 1, 8, 0],
        vec![0, 1, 0, 2, 0, 0, 0, 1, 1, 14, 8, 0, 6, 2, 7, 3, 5, 1],
        vec![0, 0, 1, 9, 3, 20, 2, 1],
    ]
}
