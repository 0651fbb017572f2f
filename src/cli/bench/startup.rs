//! How long from an empty directory to the first durable acknowledgement, and what an idle,
//! empty node holds.

use super::BenchError;
use super::process::Target;
use super::report::Spread;
use crate::model::{Clock, SystemClock};
use crate::wire::pb::duramen::v1 as pb;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// Arguments of `duramen bench startup`.
#[derive(Debug, clap::Args)]
pub struct StartupArgs {
    /// Starts to measure
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Seconds of rest before memory is read
    #[arg(long, default_value_t = 2.0, value_parser = super::seconds)]
    idle: f64,
    /// Where to put the temporary data directories
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub async fn run(args: StartupArgs) -> Result<(), BenchError> {
    let (mut times, mut memory, mut disk) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.runs {
        let clock = SystemClock::new();
        let began = clock.monotonic();
        let target = Target::start(&args.dir, "fsync").await?;
        let mut client = target.connect().await?;
        let record = pb::Record { value: Some("first".into()), ..Default::default() };
        let records = vec![record];
        let request = pb::ProduceRequest { topic: "log".into(), records, ..Default::default() };
        let ack = client.produce_once(request).await?.into_inner();
        times.push((clock.monotonic() - began).as_secs_f64() * 1e3);
        if ack.durability() != pb::Durability::Fsync {
            let what = format!("asked for fsync, acknowledged as {:?}", ack.durability());
            return Err(BenchError::Broken { what });
        }
        drop(client);
        tokio::time::sleep(Duration::from_secs_f64(args.idle)).await;
        memory.extend(target.resident_bytes().map(|bytes| bytes as f64 / 1_048_576.0));
        disk.push(target.disk_bytes() as f64 / 1024.0);
    }
    let figures = [
        ("first_durable_ack_ms", Spread::of(times.into_iter())),
        ("idle_resident_mib", Spread::of(memory.into_iter())),
        ("empty_node_disk_kib", Spread::of(disk.into_iter())),
    ];
    if args.json {
        let figures = figures.map(|(name, spread)| {
            let spread = spread.map(|s| json!({"median": s.median, "min": s.min, "max": s.max}));
            (name.to_owned(), json!(spread))
        });
        println!("{:#}", serde_json::Value::Object(figures.into_iter().collect()));
    } else {
        for (name, spread) in figures {
            if let Some(Spread { median, min, max }) = spread {
                println!("{name:22} {median:8.2}   [{min:.2} .. {max:.2}]");
            }
        }
    }
    Ok(())
}
