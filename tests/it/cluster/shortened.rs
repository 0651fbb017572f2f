// The controller's own log: it holds what the cluster knows of itself, and does not grow for ever.

use super::other_than;
use duramen::actors::control::ControlError;
use duramen::cluster::{Catalogue, Command, TopicSettings};
use duramen::model::{GroupId, TopicName};
use duramen::testing::{Cluster, block_on};
use futures_util::future::join_all;

/// Commands asked for at once.
const AT_ONCE: usize = 50;
/// Of them one in so many alters the topic, which its replicas have work with.
const ALTERS_EVERY: usize = 10;
/// A command that is refused is in the log all the same.
const BALLAST_BYTES: usize = 128 << 10;

/// Where a node's copy of the log begins: its oldest file is named by it.
fn start_of(cluster: &Cluster, number: usize) -> u64 {
    let files = std::fs::read_dir(cluster.node(number).data_dir().join("controller")).unwrap();
    let bases = files.filter_map(|file| {
        let name = file.unwrap().file_name().into_string().ok()?;
        name.strip_suffix(".store")?.parse().ok()
    });
    bases.min().unwrap()
}

fn create(name: &str, settings: &[(&str, String)]) -> Command {
    let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
    Command::CreateTopic {
        name: TopicName::new(name).unwrap(),
        partitions: 1,
        replication_factor: 3,
        settings: TopicSettings(settings.collect()),
    }
}

/// A topic whose setting is no age, and so long.
fn refused(length: usize) -> Command {
    create("refused", &[("retention_age", "x".repeat(length))])
}

/// Alters a topic now and again, and makes the log long.
fn change(cluster: &Cluster, round: usize) {
    let (_, node) = cluster.nodes().next().unwrap();
    let control = &node.cluster().control;
    let alter = |number: usize| Command::AlterTopic {
        name: TopicName::new("often").unwrap(),
        partitions: None,
        replication_factor: None,
        settings: TopicSettings(
            [("retention_bytes".to_owned(), format!("{}MiB", 1 + round * AT_ONCE + number))].into(),
        ),
    };
    block_on(async {
        let is_altering = |number: usize| number.is_multiple_of(ALTERS_EVERY);
        let command = |number| if is_altering(number) { alter(number) } else { refused(9) };
        // Not one after another: where another node leads each takes a tenth of a second.
        let asked = (0..AT_ONCE).map(|number| control.change(command(number)));
        for (number, changed) in join_all(asked).await.into_iter().enumerate() {
            match changed {
                Ok(_) => assert!(is_altering(number)),
                Err(ControlError::Rejected(_)) => assert!(!is_altering(number)),
                Err(error) => panic!("{error}"),
            }
        }
        for _ in 0..8 {
            let refused = control.change(refused(BALLAST_BYTES)).await.unwrap_err();
            assert!(matches!(refused, ControlError::Rejected(_)), "{refused}");
        }
    });
}

/// Changes until each node's log begins behind where any of them begins now.
fn until_shortened(cluster: &Cluster, round: &mut usize) {
    let starts = || cluster.nodes().map(|(number, _)| start_of(cluster, number));
    let latest = starts().max().unwrap();
    cluster.until("the controller's log is shortened on every node", |_| {
        *round += 1;
        change(cluster, *round);
        starts().all(|start| start > latest)
    });
}

fn until_agreed(cluster: &Cluster) -> Catalogue {
    cluster.until_some("all nodes know the same", |cluster| {
        let mut known = cluster.nodes().map(|(_, node)| node.cluster().control.catalogue());
        let first = known.next()?;
        known.all(|other| other == first).then(|| (*first).clone())
    })
}

#[test]
fn the_controllers_log_is_shortened_and_whoever_was_away_or_is_new_knows_all_the_same() {
    let mut cluster = Cluster::start(3);
    cluster.create_topic("often", 1, 3);
    let mut round = 0;
    until_shortened(&cluster, &mut round);

    let away = other_than(&cluster, cluster.leader_now(GroupId::CONTROLLER).unwrap());
    cluster.crash(away);
    block_on(cluster.nodes().next().unwrap().1.cluster().control.change(create("meanwhile", &[])))
        .unwrap();
    until_shortened(&cluster, &mut round);

    cluster.restart(away);
    cluster.until_healthy();
    let behind = start_of(&cluster, away);
    assert!(behind > 0, "nobody had the beginning to give");
    let new = cluster.add();
    cluster.until_healthy();
    assert!(start_of(&cluster, new) > 0, "nobody had the beginning to give");

    let known = until_agreed(&cluster);
    assert_eq!(known.nodes.len(), 4);
    let altered = &known.topics[&TopicName::new("often").unwrap()];
    assert!(altered.settings.0.contains_key("retention_bytes"), "{altered:?}");
    assert!(known.topics.contains_key(&TopicName::new("meanwhile").unwrap()));

    // All of them at once: nobody is left who remembers more than the logs hold.
    for number in 1..=4 {
        cluster.crash(number);
    }
    for number in 1..=4 {
        cluster.restart(number);
    }
    cluster.until_healthy();
    let again = until_agreed(&cluster);
    let named = |catalogue: &Catalogue| catalogue.topics.keys().cloned().collect::<Vec<_>>();
    assert_eq!((again.nodes.len(), named(&again)), (4, named(&known)));
}
