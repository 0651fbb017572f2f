//! What the client of a cluster promises, held against scripted nodes over real connections: they
//! store a numbered batch once, and lead, refuse, cut and die as each test tells them to.

mod fetch;
mod produce;
mod world;

use super::*;
use crate::wire::pb::duramen::v1 as pb;
use world::World;

fn log() -> Target {
    Target::topic("log")
}

#[tokio::test]
async fn from_any_one_address_all_nodes_and_leaders_are_found() {
    let world = World::start(3);
    world.lead(2);
    for seed in 1..=3 {
        let cluster = world.client(&[seed]).await;
        assert_eq!(cluster.partitions("log").await, Some(1));
        assert_eq!(cluster.partitions("nothing").await, None);
        assert_eq!(cluster.routes().leader(&log()), Some(world.address(2)));
        assert_eq!(cluster.routes().addresses().len(), 3);
    }
    world.stop(1);
    let cluster = world.client(&[1, 3]).await;
    assert_eq!(cluster.routes().leader(&log()), Some(world.address(2)), "the second answered");
    let error = ClusterClient::connect(&[world.address(1)], ClusterOptions::default(), None).await;
    assert!(matches!(error, Err(ClientError::Unavailable { .. })));
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_is_soon_left_alone_and_tried_again_later() {
    let world = World::start(2);
    world.lead(1);
    let cluster = world.client(&[2]).await;
    world.stop(1);
    let mut errors = Vec::new();
    for _ in 0..7 {
        errors.push(crate::model::with_causes(&cluster.node(&world.address(1)).await.unwrap_err()));
    }
    assert!(!errors[4].contains("breaker") && errors[5].contains("breaker"), "{errors:?}");
    assert!(cluster.any().await.is_ok(), "the other one is not left alone");
    world.restart(1);
    let deadline = Duration::from_secs(60);
    let back = async {
        while cluster.node(&world.address(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(deadline, back).await.expect("it is tried again");
}

#[tokio::test]
async fn each_partition_is_described_by_the_node_that_leads_it() {
    let world = World::start(3);
    world.lead(2);
    let cluster = world.client(&[1]).await;
    let described = cluster.describe("log").await.unwrap();
    assert_eq!(described.partitions.len(), 1);
    assert_eq!(described.partitions[0].role, "leader", "as node 2 says it");
    assert_eq!(described.node_id, "1", "who was asked first");
}

#[tokio::test]
async fn topics_are_looked_after_over_any_node() {
    let world = World::start(2);
    let mut admin = world.client(&[2]).await.admin().await.unwrap();
    let request = pb::CreateTopicRequest { name: "orders".into(), ..Default::default() };
    assert_eq!(admin.create_topic(request).await.unwrap().name, "orders");
    let error = admin.delete_topic(pb::DeleteTopicRequest { name: "x".into() }).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Refused(refusal) if refusal.code == tonic::Code::NotFound)
    );
}

#[tokio::test]
async fn a_new_topic_is_waited_for_until_it_is_led_and_no_longer_than_told() {
    let world = World::start(1);
    world.lead(1);
    let mut admin = world.client(&[1]).await.admin().await.unwrap();
    let make = || pb::CreateTopicRequest { name: "orders".into(), ..Default::default() };
    world.lock().looks_until_led = 3;
    let made = admin.create_led_topic(make(), Duration::from_secs(60)).await.unwrap();
    assert_eq!((made.partitions[0].leader, world.lock().looks_until_led), (1, 0));
    world.lock().looks_until_led = u32::MAX;
    let made = admin.create_led_topic(make(), Duration::from_millis(50)).await.unwrap();
    assert_eq!((made.name.as_str(), made.partitions[0].leader), ("orders", 0), "made all the same");
}
