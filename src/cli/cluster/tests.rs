//! What the commands print, and that nothing goes without a name typed.

use super::*;
use crate::cli::Cli;
use crate::wire::client::Refusal;
use crate::wire::pb::duramen::v1::*;
use clap::Parser;

fn topic() -> TopicDescription {
    let replica =
        |node, state: &str| ReplicaPlacement { node, incarnation: 1, state: state.into() };
    let replicas = vec![replica(1, "member"), replica(2, "joining")];
    let partition = PartitionPlacement { partition: 0, leader: 1, term: 4, replicas };
    let leaderless = PartitionPlacement { partition: 1, ..Default::default() };
    TopicDescription {
        name: "orders".into(),
        id: 2,
        replication_factor: 3,
        settings: Some(TopicSettings { values: [("retention_age".into(), "7d".into())].into() }),
        partitions: vec![partition, leaderless],
    }
}

fn status() -> ClusterStatus {
    let node = NodeStatus {
        id: 1,
        name: "a\x1b".into(),
        state: "active".into(),
        presence: "alive".into(),
        controller_voter: true,
        ..Default::default()
    };
    ClusterStatus {
        cluster_id: "c".into(),
        node: 1,
        nodes: vec![node],
        topics: vec![topic()],
        troubles: vec!["partition orders/1 has no leader".into()],
        ..Default::default()
    }
}

#[test]
fn a_topic_is_told_with_its_settings_and_what_its_replicas_are() {
    let text = topic::as_text(&topic());
    assert!(text.contains("topic orders (id 2): 2 partitions, 3 replicas wanted"), "{text}");
    assert!(text.contains("retention_age = 7d"), "{text}");
    assert!(text.contains("n1 n2 (joining)"), "{text}");
    let table = topic::as_table(&ListTopicsResponse { topics: vec![topic()] });
    assert!(table.lines().nth(1).is_some_and(|line| line.ends_with('1')), "{table}");
}

#[test]
fn a_new_topic_that_nobody_leads_is_told_of() {
    let failure = topic::led(&topic()).unwrap_err();
    assert_eq!(failure.class, Class::Temporary);
    assert_eq!(failure.error, "topic orders is made, but 1 of its 2 partitions have no leader");
    assert!(failure.advice.unwrap().contains("duramen topic describe orders"));
    let mut led = topic();
    led.partitions[1].leader = 2;
    assert_eq!(topic::led(&led), Ok(()));
}

#[test]
fn a_cluster_is_told_with_what_is_not_well_and_moves_no_cursor() {
    let text = status::as_text(&status());
    assert!(text.contains("controller - in term 0"), "nobody is known to lead it: {text}");
    assert!(text.ends_with("not healthy\n  partition orders/1 has no leader\n"), "{text}");
    assert!(!text.contains('\x1b') && text.contains("orders"), "{text}");
    let well = ClusterStatus { healthy: true, ..ClusterStatus::default() };
    assert!(status::as_text(&well).ends_with("healthy\n"));
}

#[test]
fn servers_are_printed_as_the_book_prints_them() {
    use crate::wire::pb::log::v1::Server;
    let server = |id: &str, is_leader| Server { id: id.into(), rpc_addr: "h:1".into(), is_leader };
    let text = getservers::as_text(&[server("0", true), server("1", false)]);
    assert_eq!(
        text,
        "servers:\n\t- id:\"0\" rpc_addr:\"h:1\" is_leader:true\n\t- id:\"1\" rpc_addr:\"h:1\"\n"
    );
}

#[test]
fn what_goes_for_good_must_be_named() {
    assert_eq!(check_typed("orders\n", "orders"), Ok(()));
    for typed in ["", "\n", "order", "y\n"] {
        let failure = check_typed(typed, "orders").unwrap_err();
        assert_eq!(failure.class, Class::BadInput);
    }
    assert_eq!(confirm("", "orders", true), Ok(()));
}

#[test]
fn every_refusal_says_what_to_type_next() {
    for (code, class) in [
        (Code::NotFound, 64),
        (Code::AlreadyExists, 64),
        (Code::FailedPrecondition, 1),
        (Code::Unavailable, 75),
        (Code::Unimplemented, 69),
    ] {
        let (message, retry_after, leader) = ("no".into(), None, None);
        let refusal = Refusal { code, message, retry_after, definite: true, leader };
        let failure = failed(ClientError::Refused(refusal));
        assert_eq!(failure.class.code(), class, "{code:?}");
        assert!(failure.advice.is_some_and(|advice| advice.contains("duramen")), "{code:?}");
    }
}

#[test]
fn the_commands_are_read_as_they_are_documented() {
    for line in [
        "duramen topic create orders -p 6 -r 3 --set retention_age=7d --addr a:1,b:2",
        "duramen topic list --json",
        "duramen topic describe orders --table",
        "duramen topic alter orders --partitions 8 --set retention_age=",
        "duramen topic delete orders --yes",
        "duramen cluster status",
        "duramen cluster health --watch --exit-when-healthy",
        "duramen node list",
        "duramen node leave",
        "duramen node replace 2 --by 4 -y",
        "duramen node remove n2 --force",
        "duramen getservers --addr :8400",
        "duramen produce log --partition any --no-idempotence --forward false --deadline 5s",
        "duramen consume log --partition 3 --consistency linearizable --rpc-addr a:1",
    ] {
        let read = Cli::try_parse_from(line.split(' '));
        assert!(read.is_ok(), "{line}: {}", read.unwrap_err());
    }
    for line in [
        "duramen topic create orders -p 0",
        "duramen topic create orders --set retention_age",
        "duramen produce log --partition some",
        "duramen produce log --deadline 5",
    ] {
        assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
    }
}
