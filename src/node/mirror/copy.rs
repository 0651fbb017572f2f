//! Copying one partition: whole batches, in order, from where the local log ends. The local log gives
//! each the offsets that it has at the source, as both count without a gap; that it did is checked.

use super::{Mirror, Trouble};
use crate::actors::handle::PartitionHandle;
use crate::actors::partition::{Ack, PartitionApi, PartitionState, ProduceError};
use crate::guards::{RetryPolicy, chance_of_machine};
use crate::model::{Chance, Offset, with_causes};
use crate::wire::client::{
    ClientError, ClusterClient, Consistency, FetchOptions, Position, Target,
};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use slog::warn;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Bytes taken from the source and not stored yet, of a partition.
const IN_FLIGHT_BYTES_MAX: usize = 4 << 20;
/// The largest chunk asked for (unit: bytes).
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// How long nobody of the source may answer before it is told of.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the local partition is looked at while it is not ready.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Tries in a row, with pauses, in which the source ends before what was copied: a leader that is
/// new may not know yet how much is committed.
const BEHIND_MAX: u32 = 10;
/// Pauses between tries.
const PAUSES: RetryPolicy = RetryPolicy {
    retries_max: u32::MAX,
    initial: Duration::from_millis(100),
    factor: 2.0,
    pause_max: Duration::from_secs(10),
    jitter: 0.2,
};

/// Copies until a person must act, and says why.
pub(super) async fn run(mirror: Arc<Mirror>, client: ClusterClient, partition: u32) -> String {
    let topic = mirror.plan.topic.to_string();
    let target = Target { topic, partition };
    let mut copy =
        Copy { mirror, client, target, lives: 0, behind: 0, chance: chance_of_machine() };
    let (mut failures, mut reached) = (0, Offset(0));
    loop {
        let Err(trouble) = copy.follow().await;
        let now = copy.copied();
        if now > reached {
            (failures, reached) = (0, now);
        }
        match trouble {
            Trouble::Stop(reason) => {
                let Target { topic, partition } = &copy.target;
                return format!("{topic}/{partition}: {reason}");
            }
            Trouble::Passing(reason) => {
                let pause = PAUSES.pause(failures, copy.chance.fraction());
                warn!(copy.mirror.logger, "copying is interrupted"; "partition" => partition,
                    "reason" => reason, "again_in_ms" => pause.as_millis() as u64);
                tokio::time::sleep(pause).await;
                failures = failures.saturating_add(1);
            }
        }
    }
}

/// A chunk on its way to the disk: its first offset, its bytes and records, and what became of it.
type Storing = Pin<Box<dyn Future<Output = (Offset, usize, u64, Result<Ack, ProduceError>)>>>;

struct Copy {
    mirror: Arc<Mirror>,
    client: ClusterClient,
    target: Target,
    /// How often the local partition must have been restarted before its end is of account: an
    /// earlier life left batches whose fate it did not tell.
    lives: u32,
    /// Tries in a row in which the source ended before the copy.
    behind: u32,
    chance: Chance,
}

impl Copy {
    /// Where the source ends, as heard last: of what a look found out, or a chunk.
    fn source_end(&self) -> Option<Offset> {
        let copies = self.mirror.copies.partitions();
        copies.get(&self.target.partition).map(|known| known.end)
    }

    fn copied(&self) -> Offset {
        let copies = self.mirror.copies.partitions();
        copies.get(&self.target.partition).map_or(Offset(0), |known| known.copied)
    }

    /// Waits until all that the local log holds is committed, and nothing else is under way.
    async fn ready(&self) -> PartitionHandle {
        let Target { topic, partition } = &self.target;
        loop {
            if let Some(here) = self.mirror.registry.get(topic, *partition) {
                let status = here.describe();
                let is_up =
                    status.state == PartitionState::Serving && status.restarts >= self.lives;
                let view = here.published().view();
                let end = view.map(|view| view.next_offset());
                if is_up && here.readable().is_ok() && end == Some(here.high_watermark()) {
                    return here;
                }
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn follow(&mut self) -> Result<Infallible, Trouble> {
        let here = self.ready().await;
        let mut next = here.high_watermark();
        if let Some(end) = self.source_end() {
            here.published().source_ends(end);
        }
        let partition = self.target.partition;
        self.mirror.copies.note(partition, Some(next), None);
        let batch_bytes_max = self.mirror.soil.settings.log.batch_bytes_max.len();
        let options = FetchOptions {
            position: Position::Offset(next),
            chunk_bytes_max: CHUNK_BYTES_MAX.min(batch_bytes_max) as u32,
            records_max: None,
            follow: true,
            consistency: Consistency::Committed,
        };
        let mut chunks = match self.client.fetch(&self.target, options, PATIENCE).await {
            Ok(chunks) => chunks,
            Err(error) => return Err(self.refused(next, error).await),
        };
        let mut open: FuturesOrdered<Storing> = FuturesOrdered::new();
        let mut open_bytes = 0;
        let trouble = loop {
            tokio::select! {
                biased;
                Some((base, bytes, records, acked)) = open.next() => {
                    open_bytes -= bytes;
                    let stored = match acked {
                        Ok(ack) => ack,
                        Err(error) => break self.not_stored(&here, &error),
                    };
                    if stored.base_offset != base {
                        break Trouble::Stop(format!(
                            "records of offset {base} at the source got offset {} here: somebody \
                             else has written to this mirror; move its data directory away and \
                             start again", stored.base_offset
                        ));
                    }
                    self.behind = 0;
                    self.mirror.copies.note(partition, Some(base.plus(records)), None);
                }
                chunk = chunks.next(), if open_bytes < IN_FLIGHT_BYTES_MAX => {
                    let chunk = match chunk {
                        Ok(Some(chunk)) => chunk,
                        Ok(None) => break Trouble::Passing("the source ended the read".into()),
                        Err(error) => break self.refused(next, error).await,
                    };
                    if chunk.base != next {
                        break Trouble::Stop(format!(
                            "the source sends records from offset {} on where {next} was due: its \
                             batches are not those that were copied; move the mirror's data \
                             directory away and start again", chunk.base
                        ));
                    }
                    self.mirror.copies.note(partition, None, Some(chunk.high_watermark));
                    here.published().source_ends(chunk.high_watermark);
                    let (base, bytes) = (chunk.base, chunk.batches.len());
                    let pending = match here.copy_batches(chunk.batches) {
                        Ok(pending) => pending,
                        Err(error) => break self.not_stored(&here, &error),
                    };
                    let records = chunk.next.0 - base.0;
                    open_bytes += bytes;
                    next = chunk.next;
                    open.push_back(Box::pin(async move { (base, bytes, records, pending.await) }));
                }
            }
        };
        // What is under way is settled before the local log's end is looked at again.
        while let Some((.., acked)) = open.next().await {
            if let Err(error) = acked {
                self.not_stored(&here, &error);
            }
        }
        Err(trouble)
    }

    /// The local partition did not take a batch, or died with it.
    fn not_stored(&mut self, here: &PartitionHandle, error: &ProduceError) -> Trouble {
        match error {
            ProduceError::Invalid { message } | ProduceError::TooLarge { message } => {
                Trouble::Stop(format!(
                    "a batch of the source is not one that this node takes ({message}): give it \
                     the limits of the source (log.batch_bytes_max, log.record_bytes_max)"
                ))
            }
            error => {
                if !error.is_definite() {
                    // The life that knows is over, or about to be.
                    let is_up = here.state().0 == PartitionState::Serving;
                    self.lives = here.describe().restarts + u32::from(is_up);
                }
                Trouble::Passing(error.to_string())
            }
        }
    }

    /// What it means that the source did not send what comes at `next`.
    async fn refused(&mut self, next: Offset, error: ClientError) -> Trouble {
        if !error.is_out_of_range() {
            return Trouble::Passing(with_causes(&error));
        }
        let described = match self.client.describe(&self.target.topic).await {
            Ok(described) => described,
            Err(error) => return error.into(),
        };
        let mut partitions = described.partitions.into_iter();
        let Some(source) = partitions.find(|known| known.id == self.target.partition) else {
            return Trouble::Passing("the source does not tell of this partition".into());
        };
        let (start, end) = (source.start_offset, source.high_watermark);
        if start > next.0 {
            return Trouble::Stop(format!(
                "the source has dropped the records {next} to {} before they were copied \
                 (retention): a copy with a gap is none; move the mirror's data directory away \
                 and start again from offset {start}",
                start - 1
            ));
        }
        self.behind += 1;
        if end < next.0 && self.behind >= BEHIND_MAX {
            return Trouble::Stop(format!(
                "the source ends at offset {end}, before what was copied from it ({next}): it has \
                 lost records; what is here may be all that is left of them"
            ));
        }
        Trouble::Passing(with_causes(&error))
    }
}
