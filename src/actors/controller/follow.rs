//! Reads the committed records of group 0, in order, and publishes what they make of the catalogue.

use super::change::Control;
use crate::actors::handle::PartitionHandle;
use crate::actors::partition::{PartitionApi, ReadError};
use crate::cluster::{Folded, Replay, ReplayError};
use crate::model::{Offset, Record};
use std::time::Duration;

/// Records taken from the log at a time, before the catalogue is published again.
const RECORDS_MAX: usize = 1_000;
/// About how many bytes are.
const BYTES_MAX: usize = 1 << 20;
/// When to read again where reading failed and nothing better is known.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Commands between two proposals of a snapshot, where the first did not come to lie in its place.
const SNAPSHOT_AGAIN_AFTER: u64 = 100;

/// Follows for as long as records can be read; resolves only with why none can be any more.
pub(super) async fn follow(control: Control) -> ReplayError {
    let handle = control.group().await;
    let mut committed = handle.watch();
    wait_readable(&handle).await;
    let mut replay = Replay::from(handle.start_offset());
    let mut snapshot_asked = Offset(0);
    loop {
        let end = *committed.borrow_and_update();
        if replay.next() >= end {
            // Closed: the partition is gone, and with it soon this actor.
            if committed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            continue;
        }
        match handle.read_records(replay.next(), RECORDS_MAX, BYTES_MAX).await {
            Ok(records) if records.is_empty() => tokio::time::sleep(RETRY_AFTER).await,
            Ok(records) => {
                if let Err(error) = fold(&control, &mut replay, records) {
                    return error;
                }
                if let Some(written_at) = replay.written_at() {
                    handle.release_before(written_at);
                }
            }
            Err(ReadError::OutOfRange { start, .. }) if start > replay.next() => {
                replay = Replay::from(start);
            }
            Err(error) => {
                control.read_failed(&error);
                let after = match error {
                    ReadError::Unavailable { retry_after, .. } => retry_after,
                    _ => RETRY_AFTER,
                };
                tokio::time::sleep(after.max(Duration::from_millis(1))).await;
            }
        }
        let is_new = replay.next() >= snapshot_asked.plus(SNAPSHOT_AGAIN_AFTER);
        if replay.next() >= end
            && is_new
            && control.leads()
            && let Some(record) = replay.snapshot_due()
        {
            snapshot_asked = replay.next();
            control.write_down(record.encode());
        }
    }
}

fn fold(
    control: &Control,
    replay: &mut Replay,
    records: Vec<(Offset, Record)>,
) -> Result<(), ReplayError> {
    let mut outcomes = Vec::new();
    let mut stopped = Ok(());
    for (offset, record) in records {
        let value = record.value.unwrap_or_default();
        match replay.fold(offset, &value) {
            Ok(Folded::Applied(outcome)) => outcomes.push((offset, outcome)),
            Ok(Folded::Passed) => {}
            Err(error) => {
                stopped = Err(error);
                break;
            }
        }
    }
    control.publish(replay, outcomes);
    stopped
}

/// Until the log is recovered its bounds are not known.
async fn wait_readable(handle: &PartitionHandle) {
    while let Err(error) = handle.readable() {
        let after = match error {
            ReadError::Unavailable { retry_after, .. } => retry_after,
            _ => RETRY_AFTER,
        };
        tokio::time::sleep(after.max(Duration::from_millis(1))).await;
    }
}
