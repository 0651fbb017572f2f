//! How long from the start of a node on the data of a killed one to the first record read.

use super::BenchError;
use super::load::{self, Until};
use super::process::Target;
use crate::model::{Clock, SystemClock};
use crate::wire::pb::duramen::v1 as pb;
use pb::fetch_request::Position;
use serde_json::json;
use std::path::PathBuf;

const BATCH_RECORDS: u64 = 64;

/// Arguments of `duramen bench recovery`.
#[derive(Debug, clap::Args)]
pub struct RecoveryArgs {
    /// Records of 1 KiB that the killed node held
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Kills and starts to measure
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Where to put the temporary data directory
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub async fn run(args: RecoveryArgs) -> Result<(), BenchError> {
    let mut target = Target::start(&args.dir, "fsync").await?;
    let batches = args.records.div_ceil(BATCH_RECORDS);
    let until = Until::Batches(batches);
    let written = load::pipe(&target.reach, BATCH_RECORDS as usize, 1024, 8, until).await?;
    let mut times = Vec::new();
    for _ in 0..args.runs {
        let home = target.kill();
        let clock = SystemClock::new();
        let began = clock.monotonic();
        target = Target::start_on(home, "fsync").await?;
        let request = pb::FetchRequest {
            topic: "log".into(),
            position: Some(Position::Offset(written.records_in_all - 1)),
            max_records: 1,
            ..Default::default()
        };
        let read = target.connect().await?.fetch_once(request).await?.into_inner();
        times.push((clock.monotonic() - began).as_secs_f64() * 1e3);
        let value_bytes = read.records.first().and_then(|record| record.value.as_ref());
        if value_bytes.map(bytes::Bytes::len) != Some(1024) {
            let what = format!("the last of {} acknowledged records is gone", args.records);
            return Err(BenchError::Broken { what });
        }
    }
    let spread = super::report::Spread::of(times.into_iter()).expect("there is at least one run");
    let super::report::Spread { median, min, max } = spread;
    if args.json {
        let first_read_ms = json!({"median": median, "min": min, "max": max});
        let records = written.records_in_all;
        println!("{:#}", json!({"records": records, "first_read_ms": first_read_ms}));
    } else {
        println!("records written        {:8}", written.records_in_all);
        println!("first_read_ms          {median:8.2}   [{min:.2} .. {max:.2}]");
    }
    Ok(())
}
