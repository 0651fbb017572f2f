//! One run of one row: the node first, then its floors under the same load in the same minute.

use super::BenchError;
use super::case::{Case, Load};
use super::connects;
use super::disk_floor::{self, DiskFloor, Place};
use super::guarded::{Guard, Guarded};
use super::load::{self, Sample, Until, Window};
use super::process::{LogGrpc, Reach, Target};
use crate::wire::pb::duramen::v1 as pb;
use pb::fetch_request::Position;
use std::path::PathBuf;

/// What all rows have in common.
#[derive(Debug)]
pub struct Plan {
    pub window: Window,
    pub catch_up_bytes: u64,
    pub floor_dir: PathBuf,
}

/// What one process spent on a run.
#[derive(Debug)]
pub struct Spent {
    /// Processor seconds per million records; `None` where the process is not ours.
    pub cpu_per_million: Option<f64>,
    pub resident_bytes: Option<u64>,
    /// Stored bytes per record, for loads that write.
    pub bytes_per_record: Option<f64>,
    pub records_per_flush: Option<f64>,
    bytes_per_flush: Option<f64>,
}

/// A load, and what it cost each node: the first is the one that was loaded.
#[derive(Debug)]
pub struct Measured {
    pub sample: Sample,
    pub spent: Vec<Spent>,
}

/// What one run of one row showed.
#[derive(Debug)]
pub struct Run {
    pub node: Sample,
    pub spent: Spent,
    pub cluster: Option<Measured>,
    /// The same load on a node behind each guard.
    pub guarded: Vec<(Guard, Measured)>,
    pub echo: Option<Sample>,
    pub disk: Vec<(Place, DiskFloor)>,
}

/// Runs a row against the node, and against the floors where there is an echo server.
pub async fn run(
    case: &Case,
    plan: &Plan,
    target: &Target,
    echo: Option<&Target>,
) -> Result<Run, BenchError> {
    let Measured { sample: node, mut spent } = measure(case, plan, &[target]).await?;
    let spent = spent.pop().expect("one node was loaded");
    let mut run =
        Run { node, spent, cluster: None, guarded: Vec::new(), echo: None, disk: Vec::new() };
    if let Some(echo) = echo {
        run.echo = echo_floor(case, plan, echo, &run.node).await?;
        if let Some(bytes_per_flush) = run.spent.bytes_per_flush {
            let time = plan.window.measured / 2;
            for place in Place::ALL {
                let bytes = (bytes_per_flush as usize).max(1);
                let floor = disk_floor::measure(&plan.floor_dir, place, bytes, time)?;
                run.disk.push((place, floor));
            }
        }
    }
    Ok(run)
}

/// The same, and against the guarded nodes. Who comes first changes with each turn: the disk is not
/// the same after a load as before it.
pub async fn run_guarded(
    case: &Case,
    plan: &Plan,
    (plain, echo): (&Target, Option<&Target>),
    guarded: &Guarded,
    turn: usize,
) -> Result<Run, BenchError> {
    let (mut run_plain, mut behind) = (None, Vec::new());
    let places = guarded.nodes.len() + 1;
    for step in 0..places {
        match (turn + step) % places {
            0 => run_plain = Some(run(case, plan, plain, echo).await?),
            place => {
                let (guard, node) = &guarded.nodes[place - 1];
                behind.push((*guard, measure(case, plan, &[node]).await?));
            }
        }
    }
    let run = run_plain.expect("one of the places is that of the plain node");
    Ok(Run { guarded: behind, ..run })
}

/// Loads the first of these nodes, and watches all of them.
pub async fn measure(case: &Case, plan: &Plan, nodes: &[&Target]) -> Result<Measured, BenchError> {
    let loaded = nodes[0];
    let stored = match case.load {
        Load::CatchUp { .. } => Some(fill(case, plan, loaded).await?),
        _ => None,
    };
    let producers = match case.load {
        Load::LockStep { connections, .. } => load::connected(&loaded.reach, connections).await?,
        _ => Vec::new(),
    };
    let mut before = Vec::new();
    for node in nodes {
        before.push((node.describe().await?, node.cpu_seconds()));
    }
    let sample = match &stored {
        Some(stored) => load::read(&loaded.reach, stored.request(case)).await?,
        None => produce(case, plan, &loaded.reach, producers).await?,
    };
    let mut spent = Vec::new();
    for (node, (described, cpu)) in nodes.iter().zip(before) {
        let cpu = node.cpu_seconds().zip(cpu).map(|(after, before)| after - before);
        spent.push(Spent::between(&described, &node.describe().await?, cpu, &sample, node));
    }
    if let Some(stored) = &stored {
        stored.check(&sample)?;
    }
    Ok(Measured { sample, spent })
}

impl Spent {
    fn between(
        before: &pb::Partition,
        after: &pb::Partition,
        cpu: Option<f64>,
        sample: &Sample,
        node: &Target,
    ) -> Self {
        let written = after.high_watermark.saturating_sub(before.high_watermark);
        let flushes = after.flushes.saturating_sub(before.flushes);
        let bytes = after.size_bytes.saturating_sub(before.size_bytes);
        let ratio = |a: u64, b: u64| (a > 0 && b > 0).then(|| a as f64 / b as f64);
        Self {
            cpu_per_million: cpu.map(|cpu| cpu * 1e6 / sample.records_in_all.max(1) as f64),
            resident_bytes: node.resident_bytes(),
            bytes_per_record: ratio(bytes, written),
            records_per_flush: ratio(written, flushes),
            bytes_per_flush: ratio(bytes, flushes),
        }
    }
}

/// `producers`: the connections of those in lock step.
async fn produce(
    case: &Case,
    plan: &Plan,
    reach: &Reach,
    producers: Vec<LogGrpc>,
) -> Result<Sample, BenchError> {
    let bytes = case.record_bytes;
    match case.load {
        Load::LockStep { unary, .. } => load::lock_step(producers, unary, bytes, plan.window).await,
        Load::Pipe { batch_records, outstanding } => {
            let until = Until::Time(plan.window);
            load::pipe(reach, batch_records, bytes, outstanding, until).await
        }
        Load::Tail => load::tail(reach, bytes, plan.window).await,
        Load::Visits { at_once } => connects::visits(reach, at_once, plan.window).await,
        Load::Beside => connects::beside(reach, bytes, plan.window).await,
        Load::CatchUp { .. } => unreachable!("a catch-up reads what was filled in"),
    }
}

async fn echo_floor(
    case: &Case,
    plan: &Plan,
    echo: &Target,
    node: &Sample,
) -> Result<Option<Sample>, BenchError> {
    match case.load {
        Load::Tail => Ok(None),
        Load::CatchUp { .. } => {
            // As many messages as the node sent, of the size that they had.
            let message_bytes = node.received_bytes / node.messages.max(1);
            let request = pb::FetchRequest {
                position: Some(Position::BeforeEnd(node.messages)),
                max_bytes: u32::try_from(message_bytes).unwrap_or(u32::MAX),
                ..Default::default()
            };
            let mut sample = load::read(&echo.reach, request).await?;
            // The echo server knows no records: count those that the same bytes held.
            sample.records = node.records;
            Ok(Some(sample))
        }
        Load::LockStep { connections, .. } => {
            let producers = load::connected(&echo.reach, connections).await?;
            Ok(Some(produce(case, plan, &echo.reach, producers).await?))
        }
        _ => Ok(Some(produce(case, plan, &echo.reach, Vec::new()).await?)),
    }
}

/// Where the records of a catch-up lie.
struct Stored {
    from: u64,
    records: u64,
}

impl Stored {
    fn request(&self, case: &Case) -> pb::FetchRequest {
        let Load::CatchUp { message_bytes } = case.load else {
            unreachable!("only a catch-up is filled for")
        };
        pb::FetchRequest {
            topic: "log".into(),
            position: Some(Position::Offset(self.from)),
            max_bytes: u32::try_from(message_bytes).unwrap_or(u32::MAX),
            max_records: self.records,
            format: pb::FetchFormat::Batches as i32,
            ..Default::default()
        }
    }

    fn check(&self, read: &Sample) -> Result<(), BenchError> {
        if read.records >= self.records {
            return Ok(());
        }
        let what = format!("{} records stored, {} read back", self.records, read.records);
        Err(BenchError::Broken { what })
    }
}

/// Writes what a catch-up reads, in batches of which a message of the row's size holds whole ones.
async fn fill(case: &Case, plan: &Plan, target: &Target) -> Result<Stored, BenchError> {
    const BATCH_BYTES: usize = 60 << 10;
    // A record of 100 B takes some 8 bytes of framing within its batch.
    let batch_records = (BATCH_BYTES / (case.record_bytes + 8)).max(1);
    let records = (plan.catch_up_bytes / case.record_bytes as u64).max(1);
    let batches = records.div_ceil(batch_records as u64);
    let from = target.describe().await?.high_watermark;
    let until = Until::Batches(batches);
    load::pipe(&target.reach, batch_records, case.record_bytes, 8, until).await?;
    Ok(Stored { from, records: batches * batch_records as u64 })
}
