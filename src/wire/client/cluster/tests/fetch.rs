// Reads: every offset once, whoever dies meanwhile.

use super::super::stamp::tests::batch;
use super::*;
use crate::wire::client::{Consistency, FetchOptions, Position};

const OPTIONS: FetchOptions = FetchOptions {
    position: Position::Start,
    chunk_bytes_max: 0,
    records_max: None,
    follow: false,
    consistency: Consistency::Committed,
};
const PATIENCE: Duration = Duration::from_secs(60);

async fn filled(batches: u32) -> World {
    let world = World::start(3);
    world.lead(1);
    let cluster = world.client(&[1]).await;
    let mut producer = cluster.producer("log", ProducerOptions::default());
    for number in 0..batches {
        let bytes = batch(2, number.to_string().as_bytes()).freeze();
        producer.send(Place::Any, bytes).await.unwrap().await.unwrap();
    }
    world
}

async fn read_all(chunks: &mut ClusterChunks) -> Result<Vec<u64>, ClientError> {
    let mut bases = Vec::new();
    while let Some(chunk) = chunks.next().await? {
        bases.push(chunk.base.0);
    }
    Ok(bases)
}

fn all(batches: u64) -> Vec<u64> {
    (0..batches).map(|number| number * 2).collect()
}

#[tokio::test]
async fn reads_go_to_followers_in_turn() {
    let world = filled(3).await;
    let cluster = world.client(&[1]).await;
    for _ in 0..4 {
        let mut chunks = cluster.fetch(&log(), OPTIONS, PATIENCE).await.unwrap();
        assert_eq!(read_all(&mut chunks).await.unwrap(), all(3));
    }
    let mut readers: Vec<u32> = world.lock().reads.iter().map(|(node, _)| *node).collect();
    readers.sort_unstable();
    assert_eq!(readers, [2, 2, 3, 3], "never the leader, and each as often as the other");
}

#[tokio::test]
async fn a_read_that_is_cut_goes_on_elsewhere_at_the_next_offset() {
    let world = filled(10).await;
    let cluster = world.client(&[1]).await;
    world.lock().cut_reads_after = Some(4);
    let mut chunks = cluster.fetch(&log(), OPTIONS, PATIENCE).await.unwrap();
    assert_eq!(read_all(&mut chunks).await.unwrap(), all(10), "none twice, none left out");
    let reads = world.lock().reads.clone();
    assert_eq!((reads.len(), reads[1].1), (2, 8));
}

#[tokio::test]
async fn a_follower_that_lags_behind_what_was_read_is_passed_over() {
    let world = filled(10).await;
    let cluster = world.client(&[1]).await;
    {
        let mut state = world.lock();
        (state.cut_reads_after, state.lag) = (Some(4), 0);
    }
    let mut chunks = cluster.fetch(&log(), OPTIONS, PATIENCE).await.unwrap();
    for _ in 0..4 {
        chunks.next().await.unwrap();
    }
    world.lock().lag = 8;
    let mut rest = read_all(&mut chunks).await.unwrap();
    rest.splice(0..0, all(4));
    assert_eq!(rest, all(10), "the leader has the rest");
}

#[tokio::test]
async fn what_no_replica_has_is_refused_and_not_asked_for_ever() {
    let world = filled(1).await;
    let cluster = world.client(&[1]).await;
    let options = FetchOptions { position: Position::Offset(crate::model::Offset(99)), ..OPTIONS };
    let error = cluster.fetch(&log(), options, PATIENCE).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused(r) if r.code == tonic::Code::OutOfRange));
    let reads = world.lock().reads.clone();
    assert!(reads.iter().any(|(node, _)| *node == 1), "the leader's word is the last: {reads:?}");
}

#[tokio::test]
async fn when_nobody_is_there_a_read_ends_after_its_patience() {
    let world = filled(1).await;
    let cluster = world.client(&[1]).await;
    (1..=3).for_each(|node| world.stop(node));
    let patience = Duration::from_millis(200);
    let error = cluster.fetch(&log(), OPTIONS, patience).await.unwrap_err();
    assert!(!matches!(error, ClientError::Refused(_)), "{error}");
}
