// Appends: stored once and in order, whoever leads; or told for what they are.

use super::super::stamp::tests::batch;
use super::world::Fault::{self, Invalid, Later, Lead, StoreAndEnd, StoreAndHang};
use super::*;
use crate::wire::client::Refusal;
use tonic::Code;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("batch {number}")).collect()
}

/// Sends so many batches of two records, and tells what became of each.
async fn send(
    world: &World,
    cluster: &ClusterClient,
    count: usize,
    options: ProducerOptions,
) -> Vec<Result<Delivered, ClientError>> {
    let mut producer = cluster.producer("log", options);
    let mut receipts = Vec::new();
    for name in names(count) {
        let bytes = batch(2, name.as_bytes()).freeze();
        receipts.push(producer.send(Place::Partition(0), bytes).await.unwrap());
    }
    let mut fates = Vec::new();
    for receipt in receipts {
        let patience = Duration::from_secs(120);
        fates.push(tokio::time::timeout(patience, receipt).await.expect("every batch has a fate"));
    }
    assert!(world.lock().faults.is_empty(), "the script was played to its end");
    fates
}

/// All are acknowledged at the offsets where they are, once and in order.
fn assert_stored_once(world: &World, fates: Vec<Result<Delivered, ClientError>>) {
    let offsets: Vec<u64> = fates.into_iter().map(|fate| fate.unwrap().ack.base_offset.0).collect();
    let state = world.lock();
    assert_eq!(state.bodies(), names(offsets.len()));
    assert_eq!(offsets, state.stored.iter().map(|(_, base)| *base).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_change_of_leaders_in_the_middle_is_followed_and_nothing_is_stored_twice() {
    let world = World::start(3);
    world.lead(1);
    let cluster = world.client(&[3]).await;
    world.faults(&[Fault::None, Fault::None, Lead(2), Fault::None, Fault::None, Lead(3)]);
    let fates = send(&world, &cluster, 30, ProducerOptions::default()).await;
    assert_stored_once(&world, fates);
    assert_eq!(world.lock().asked, [1, 2, 3], "each hint leads straight to the next leader");
}

#[tokio::test]
async fn what_a_broken_stream_left_unknown_is_sent_again_and_stored_once() {
    let world = World::start(2);
    world.lead(1);
    let cluster = world.client(&[1]).await;
    world.faults(&[Fault::None, StoreAndEnd, Later, StoreAndEnd]);
    let fates = send(&world, &cluster, 20, ProducerOptions::default()).await;
    assert_stored_once(&world, fates);
    assert!(world.lock().duplicates >= 2, "the server had to tell them apart");
}

#[tokio::test]
async fn a_dead_leader_and_a_time_without_one_hold_appends_up_and_lose_none() {
    let world = World::start(3);
    world.lead(1);
    let cluster = world.client(&[2]).await;
    let mut producer = cluster.producer("log", ProducerOptions::default());
    let first = producer.send(Place::Any, batch(2, b"batch 0").freeze()).await.unwrap();
    let mut fates = vec![first.await];
    world.stop(1);
    {
        let mut state = world.lock();
        (state.leader, state.election) = (0, Some((3, 2)));
    }
    for name in &names(5)[1..] {
        let receipt = producer.send(Place::Any, batch(2, name.as_bytes()).freeze()).await.unwrap();
        fates.push(receipt.await);
    }
    assert_stored_once(&world, fates);
}

#[tokio::test]
async fn a_leader_that_takes_and_does_not_answer_is_left_for_another() {
    let world = World::start(2);
    world.lead(1);
    let cluster = world.client(&[1]).await;
    world.faults(&[StoreAndHang]);
    let options =
        ProducerOptions { answer_max: Duration::from_millis(200), ..ProducerOptions::default() };
    let fates = send(&world, &cluster, 3, options).await;
    assert_stored_once(&world, fates);
    assert!(world.lock().duplicates >= 1);
}

#[tokio::test]
async fn unnumbered_batches_are_never_sent_again_where_they_may_be_stored() {
    let world = World::start(1);
    world.lead(1);
    let cluster = world.client(&[1]).await;
    world.faults(&[Later, StoreAndEnd]);
    let options =
        ProducerOptions { idempotent: false, outstanding_max: 1, ..ProducerOptions::default() };
    let fates = send(&world, &cluster, 3, options).await;
    assert!(!fates[0].as_ref().unwrap_err().is_definite());
    assert!(fates[1].is_ok() && fates[2].is_ok());
    assert_eq!(world.lock().bodies(), names(3), "it was stored, and not twice");
}

#[tokio::test]
async fn a_batch_that_is_refused_for_good_fails_alone() {
    let world = World::start(1);
    world.lead(1);
    let cluster = world.client(&[1]).await;
    world.faults(&[Fault::None, Invalid]);
    let mut fates = send(&world, &cluster, 8, ProducerOptions::default()).await;
    let ClientError::Refused(refusal) = fates.remove(1).unwrap_err() else { panic!("refused") };
    assert_eq!((refusal.code, refusal.definite), (Code::InvalidArgument, true));
    assert!(fates.iter().all(Result::is_ok), "{fates:?}");
    let mut left = names(8);
    left.remove(1);
    assert_eq!(world.lock().bodies(), left, "in order, each once");
}

#[tokio::test]
async fn where_order_is_to_have_no_gap_nothing_is_stored_behind_a_failure() {
    let world = World::start(1);
    world.lead(1);
    let cluster = world.client(&[1]).await;
    world.faults(&[Fault::None, Invalid]);
    let options = ProducerOptions { stop_at_failure: true, ..ProducerOptions::default() };
    let fates = send(&world, &cluster, 8, options).await;
    assert!(fates[0].is_ok());
    assert!(fates[1..].iter().all(|fate| fate.as_ref().is_err_and(ClientError::is_definite)));
    assert_eq!(world.lock().bodies(), names(1));
}

#[tokio::test]
async fn a_deadline_tells_whether_the_batch_may_be_stored() {
    let world = World::start(2);
    let cluster = world.client(&[1]).await;
    let options =
        || ProducerOptions { deadline: Duration::from_millis(300), ..ProducerOptions::default() };
    let fates = send(&world, &cluster, 1, options()).await;
    let Err(error @ ClientError::Deadline { definite: true, .. }) = &fates[0] else {
        panic!("{fates:?}")
    };
    assert!(crate::model::with_causes(error).contains("nobody leads"), "why it took so long");

    world.lead(1);
    world.faults(&[StoreAndHang]);
    let fates = send(&world, &cluster, 1, options()).await;
    assert!(matches!(fates[0], Err(ClientError::Deadline { definite: false, .. })), "{fates:?}");
    assert_eq!(world.lock().stored.len(), 1);
}

#[tokio::test]
async fn a_producer_that_the_server_has_forgotten_is_told_and_not_renumbered() {
    let world = World::start(1);
    world.lead(1);
    let cluster = world.client(&[1]).await;
    let mut producer = cluster.producer("log", ProducerOptions::default());
    producer.send(Place::Any, batch(2, b"0").freeze()).await.unwrap().await.unwrap();
    world.lock().forget_producers();
    let lost = producer.send(Place::Any, batch(2, b"1").freeze()).await.unwrap().await;
    let Err(ClientError::Refused(Refusal { message, .. })) = lost else { panic!("{lost:?}") };
    assert_eq!(message, "unknown producer");
    producer.send(Place::Any, batch(2, b"2").freeze()).await.unwrap().await.unwrap();
    assert_eq!(world.lock().bodies(), ["0", "2"]);
}

#[tokio::test]
async fn without_following_the_first_address_refuses_what_it_does_not_lead() {
    let world = World::start(2);
    world.lead(2);
    let cluster = world.client(&[1]).await;
    let options = ProducerOptions { follow_leader: false, ..ProducerOptions::default() };
    let fates = send(&world, &cluster, 1, options).await;
    let Err(ClientError::Refused(Refusal { leader: Some(leader), .. })) = &fates[0] else {
        panic!("{fates:?}")
    };
    assert_eq!(leader.address, world.address(2), "who does is told");
}

#[tokio::test]
async fn what_is_no_batch_is_refused_before_it_is_sent() {
    let world = World::start(1);
    let cluster = world.client(&[1]).await;
    let mut producer = cluster.producer("log", ProducerOptions::default());
    let error = producer.send(Place::Any, bytes::Bytes::from_static(b"text")).await.unwrap_err();
    assert!(error.is_definite() && world.lock().asked.is_empty(), "{error}");
}

#[tokio::test]
async fn whoever_wants_to_know_is_told_of_a_way_that_is_given_up_for_a_while() {
    use crate::guards::BreakerState::{self, Closed, Open};
    // Bound and closed again: nobody listens there.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let told = Arc::<Mutex<Vec<(String, BreakerState, BreakerState)>>>::default();
    let heard = Arc::clone(&told);
    let breaker =
        BreakerOptions { failures_max: 1, open_for: Duration::ZERO, successes_to_close: 1 };
    let tell = move |address: &str, from, to| {
        heard.lock().unwrap().push((address.to_owned(), from, to));
    };
    let options =
        ClusterOptions { breaker, told: Some(WayTold::by(tell)), ..ClusterOptions::default() };
    let addresses = [address.to_string()];
    ClusterClient::connect(&addresses, options, None).await.unwrap_err();
    let expected = (addresses[0].clone(), Closed, Open);
    assert_eq!(*told.lock().unwrap(), [expected]);
}
