// Nodes that have not heard of a change of the policy: what they pass on is judged again, and after a
// while they let nobody pass.

use super::cluster::{addresses, canary_gets_nothing_at, log, start_with};
use super::{FOLLOW, Issuer, batch, code, raw};
use duramen::access::Action;
use duramen::cluster::Catalogue;
use duramen::model::{FIRST_TOPIC, GroupId, TopicName};
use duramen::testing::{Cluster, block_on, until};
use duramen::wire::client::{Admin, ClientError};
use duramen::wire::pb::duramen::v1 as pb;
use duramen::wire::pb::duramen::v1::change_access_request::Change;
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;

fn create(admin: &mut Admin, name: &str) -> Result<pb::TopicDescription, ClientError> {
    block_on(admin.create_topic(pb::CreateTopicRequest {
        name: name.into(),
        partitions: 1,
        replication_factor: 1,
        settings: None,
    }))
}

/// A node that follows the controller, by number.
fn follower(cluster: &Cluster) -> usize {
    let leader = cluster
        .until_some("the controller is led", |cluster| cluster.leader_now(GroupId::CONTROLLER));
    cluster.nodes().find(|(number, _)| *number != leader).unwrap().0
}

fn catalogue(cluster: &Cluster, number: usize) -> Arc<Catalogue> {
    cluster.node(number).cluster().control.catalogue()
}

#[test]
fn what_a_stale_node_passes_on_is_judged_by_the_policy_of_its_place_in_the_log() {
    let issuer = Issuer::new();
    // It would go on with what it knew for ever.
    let cluster = start_with(&issuer, 3, |settings| settings.access.stale_after = None);
    let stale = follower(&cluster);
    let elsewhere = cluster.nodes().find(|(number, _)| *number != stale).unwrap().1.rpc_addr();
    issuer.enforce(elsewhere, "p, alice, a-*, create\np, bob, a-*, create");
    let mut alice = issuer.client(cluster.node(stale).rpc_addr(), "alice").admin();
    let mut bob = issuer.client(cluster.node(stale).rpc_addr(), "bob").admin();
    until("alice may, asking there", || create(&mut alice, "a-1").is_ok());

    cluster.isolate(stale);
    issuer.change(elsewhere, Change::Remove("p, alice, a-*, create".into()));
    let refused = create(&mut alice, "a-2");
    assert_eq!(code(&refused), Some(Code::PermissionDenied), "{refused:?}");
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("alice not permitted to create to a-2"), "{text}");
    // It was not the node itself that knew.
    let known = catalogue(&cluster, stale);
    assert!(known.access.policy.permits("alice", Action::Create, "a-2"), "{known:?}");
    // The control: what somebody may whose right is still there is done, by the same way.
    until("bob may", || match create(&mut bob, "a-3") {
        Ok(_) => true,
        Err(ClientError::Refused(refusal)) => refusal.code == Code::AlreadyExists,
        Err(_) => false,
    });
    cluster.heal();
    let has = |catalogue: &Catalogue, name: &str| {
        catalogue.topics.contains_key(&TopicName::new(name).unwrap())
    };
    cluster.until("all know of bob's", |cluster| {
        (1..=3).all(|number| has(&catalogue(cluster, number), "a-3"))
    });
    assert!(!has(&catalogue(&cluster, stale), "a-2"));
}

#[test]
fn a_node_that_is_cut_off_denies_once_its_policy_may_be_old_and_permits_when_it_knows_again() {
    let issuer = Issuer::new();
    let cluster = start_with(&issuer, 3, |settings| {
        settings.access.stale_after = Some(Duration::from_secs(2));
    });
    let stale = follower(&cluster);
    let elsewhere = cluster.nodes().find(|(number, _)| *number != stale).unwrap().1.rpc_addr();
    issuer.enforce(elsewhere, "p, alice, log, *\np, bob, log, *");
    let address = cluster.node(stale).rpc_addr();
    let mut alice = issuer.client(address, "alice");
    until("alice may", || block_on(alice.produce_once(&log(), batch("alice"))).is_ok());
    let mut reading = block_on(alice.fetch(&log(), FOLLOW)).unwrap();
    assert!(block_on(reading.next()).unwrap().is_some());
    let waiting = std::thread::spawn(move || {
        block_on(async {
            loop {
                // What was appended meanwhile may still come.
                match reading.next().await {
                    Ok(Some(_)) => {}
                    ended => break ended,
                }
            }
        })
    });

    cluster.isolate(stale);
    issuer.change(elsewhere, Change::Remove("p, alice, log, *".into()));
    let mut described = Ok(());
    until("what it knew counts no more", || {
        described = block_on(alice.describe(FIRST_TOPIC)).map(drop);
        code(&described) == Some(Code::Unavailable)
    });
    let text = described.unwrap_err().to_string();
    assert!(text.contains("access.stale_after"), "{text}");
    let ended = waiting.join().unwrap();
    assert_eq!(code(&ended), Some(Code::Unavailable), "{ended:?}");
    // Also for who may, as nobody there knows it; and its status says why.
    let bob = || block_on(issuer.client(address, "bob").describe(FIRST_TOPIC));
    assert_eq!(code(&bob()), Some(Code::Unavailable));
    // Whom its own settings let pass can look what is wrong.
    let status = block_on(issuer.admin(address).cluster_status(pb::ClusterStatusRequest {}));
    let troubles = status.unwrap().troubles;
    assert!(troubles.iter().any(|text| text.contains("may be cut off")), "{troubles:?}");

    cluster.heal();
    until("bob may again", || bob().is_ok());
    let refused = block_on(alice.describe(FIRST_TOPIC));
    assert_eq!(code(&refused), Some(Code::PermissionDenied), "{refused:?}");
}

#[test]
fn a_snapshot_of_the_catalogue_brings_the_policy_and_the_canary_gets_nothing_before_or_after() {
    let issuer = Arc::new(Issuer::new());
    let mut cluster = start_with(&issuer, 3, |_| {});
    let away = follower(&cluster);
    let there = |cluster: &Cluster| {
        cluster.nodes().find(|(number, _)| *number != away).unwrap().1.rpc_addr()
    };
    issuer.enforce(there(&cluster), "p, alice, log, *\np, mallory, log, *");
    for address in addresses(&cluster) {
        let mut mallory = issuer.client(address, "mallory");
        until("mallory may", || block_on(mallory.produce_once(&log(), batch("early"))).is_ok());
    }
    cluster.crash(away);
    issuer.change(there(&cluster), Change::Remove("p, mallory, log, *".into()));
    // Longer than the log of the controller grows: who comes back gets the catalogue whole.
    let latest = cluster.nodes().map(|(number, _)| begins(&cluster, number)).max().unwrap();
    cluster.until("the controller's log is shortened", |cluster| {
        grow(&issuer, there(cluster));
        cluster.nodes().all(|(number, _)| begins(cluster, number) > latest)
    });

    cluster.restart(away);
    let back = cluster.node(away).rpc_addr();
    canary_gets_nothing_at(&issuer, back, "mallory", || {
        // The control: nothing is refused because nothing works.
        let mut alice = issuer.client(back, "alice");
        until("alice may", || block_on(alice.produce_once(&log(), batch("alice"))).is_ok());
    });
    assert!(begins(&cluster, away) > latest, "it was brought up by a snapshot");

    // One that has nothing yet, and is asked from its first moment.
    let joining = cluster.builder().start();
    let address = joining.rpc_addr();
    canary_gets_nothing_at(&issuer, address, "mallory", || {
        cluster.admit(joining);
        let mut alice = issuer.client(address, "alice");
        until("alice may", || block_on(alice.produce_once(&log(), batch("alice"))).is_ok());
    });
    assert!(begins(&cluster, 4) > 0, "there was no beginning to give it");
    let stored = cluster.node(cluster.leader_of(FIRST_TOPIC, 0)).values().unwrap();
    assert_eq!(stored.iter().filter(|value| *value == b"canary").count(), 0);
}

/// Where a node's copy of the controller's log begins: its oldest file is named by it.
fn begins(cluster: &Cluster, number: usize) -> u64 {
    let files = std::fs::read_dir(cluster.node(number).data_dir().join("controller")).unwrap();
    let bases = files.filter_map(|file| {
        let name = file.unwrap().file_name().into_string().ok()?;
        name.strip_suffix(".store")?.parse().ok()
    });
    bases.min().unwrap()
}

/// Makes the controller's log longer, by more than a mebibyte.
fn grow(issuer: &Issuer, address: std::net::SocketAddr) {
    let admin = issuer.admin(address);
    let asked = raw::refused_topics().into_iter().map(|request| {
        let mut admin = admin.clone();
        async move { admin.create_topic(request).await }
    });
    let refused = block_on(futures_util::future::join_all(asked));
    assert!(refused.iter().all(Result::is_err), "a topic has no such settings");
}
