//! Reading one replica whole, from the node that holds it.

use crate::checker::Copy;
use crate::rights::client_options;
use duramen::log::batch::{self, BatchLimits};
use duramen::wire::client::{Client, Consistency, FetchOptions, Position, Target};
use std::time::Duration;

/// Reads all that a node has committed of a partition; `None` where it cannot be read now.
pub fn replica_of(address: &str, topic: &str, partition: u32) -> Option<Copy> {
    duramen::testing::block_on(async {
        let reading = read(address, topic, partition);
        tokio::time::timeout(Duration::from_secs(20), reading).await.ok().flatten()
    })
}

async fn read(address: &str, topic: &str, partition: u32) -> Option<Copy> {
    let mut client = Client::connect(address, client_options()).await.ok()?;
    let target = Target { topic: topic.into(), partition };
    let options = FetchOptions {
        position: Position::Start,
        chunk_bytes_max: 0,
        records_max: None,
        follow: false,
        consistency: Consistency::Committed,
    };
    let mut chunks = client.fetch(&target, options).await.ok()?;
    let mut copy = Copy::default();
    let mut next = None;
    while let Some(chunk) = chunks.next().await.ok()? {
        for item in batch::records(chunk.batches.clone(), BatchLimits::default()) {
            let (offset, record) = item.expect("stored batches can be read");
            if next.is_none() {
                copy.start = offset.0;
            }
            assert_eq!(*next.get_or_insert(offset.0), offset.0, "offsets are dense");
            next = Some(offset.0 + 1);
            copy.values.push(record.value.map(|value| value.to_vec()).unwrap_or_default());
        }
        // FNV-1a over what is stored, term stamps and checksums included.
        for byte in chunk.batches.iter() {
            copy.digest = (copy.digest ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    Some(copy)
}

/// What a node has committed of a partition: its first offset, and the one behind the last.
pub fn span_of(address: &str, topic: &str, partition: u32) -> Option<(u64, u64)> {
    duramen::testing::block_on(async {
        let asking = async {
            let mut client = Client::connect(address, client_options()).await.ok()?;
            let described = client.describe(topic).await.ok()?;
            let found = described.partitions.iter().find(|found| found.id == partition)?;
            Some((found.start_offset, found.high_watermark))
        };
        tokio::time::timeout(Duration::from_secs(5), asking).await.ok().flatten()
    })
}

/// Behind the last record that a read sees which is to see all that was acknowledged before; `None`:
/// the node refuses.
pub async fn linearizable_end(client: &mut Client, topic: &str, partition: u32) -> Option<u64> {
    let target = Target { topic: topic.into(), partition };
    let options = FetchOptions {
        position: Position::BeforeEnd(1),
        chunk_bytes_max: 0,
        records_max: None,
        follow: false,
        consistency: Consistency::Linearizable,
    };
    let mut chunks = client.fetch(&target, options).await.ok()?;
    let mut end = 0;
    while let Some(chunk) = chunks.next().await.ok()? {
        end = chunk.next.0;
    }
    Some(end)
}
