//! `duramen produce`: lines in, records acknowledged out.

mod encode;
mod ledger;
mod lines;
mod send;

use super::progress::Progress;
use super::traced::Traced;
use super::{Class, ClusterAddress, Failure, block_on, stdout};
use crate::log::batch::Compression;
use crate::model::{Clock, SystemClock};
use crate::ops::settings::{ByteSize, parse_duration};
use crate::wire::client::{ClusterClient, ProducerOptions};
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use encode::EncodeOptions;
use ledger::{Ledger, Totals};
use send::Sending;
use serde_json::json;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

/// Arguments of `duramen produce`.
#[derive(Debug, Args)]
#[command(
    after_help = "A line is a record: the bytes before a newline, whatever they are. A last \
    line without a newline counts. Lines are appended in order; when the node is lost, the error \
    says how many are acknowledged, and with which line to go on."
)]
pub struct ProduceArgs {
    /// The log.
    #[arg(default_value = "log")]
    topic: String,
    /// The file to read; `-` is standard input.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    file: String,
    /// What stands before this in a line is the record's key; a line without it has no key.
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    key_separator: Option<String>,
    /// Most records in a batch. A pause in the input sends what there is.
    #[arg(long, value_name = "RECORDS", default_value = "4000")]
    batch: NonZeroUsize,
    /// A batch is sent when it has reached this size.
    #[arg(long, value_name = "SIZE", default_value = "512KiB")]
    batch_bytes: ByteSize,
    /// Most batches of a partition sent and not yet acknowledged; 5, where batches are numbered.
    #[arg(long, value_name = "BATCHES", default_value = "16")]
    outstanding: NonZeroU32,
    /// How batches are compressed: none, gzip, snappy, lz4 or zstd.
    #[arg(long, value_name = "KIND", default_value = "none")]
    compression: Compression,
    /// Print a summary as a JSON object on standard output.
    #[arg(long)]
    json: bool,
    /// Which partition lines go to: its number; `key`, for what the key decides, as Kafka's clients
    /// do, those without one in turn; `any`, for each in turn. Order is that of the lines within a
    /// partition.
    #[arg(long, value_name = "N|key|any", default_value = "0", value_parser = partition,
        requires_if("key", "key_separator"))]
    partition: Partition,
    /// How long a batch is tried, over as many leaders as it takes.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    deadline: Duration,
    /// Do not number batches, nor send again what was not answered. Without this a batch is stored
    /// once, however often it has to be sent.
    #[arg(long)]
    no_idempotence: bool,
    /// `false`: send to the first address only, which refuses what it does not lead.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    forward: bool,
    #[command(flatten)]
    cluster: ClusterAddress,
}

/// Where lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Partition {
    Number(u32),
    /// Where the keys say.
    Key,
    /// Each in turn.
    Any,
}

impl Partition {
    fn number(self) -> Option<u32> {
        match self {
            Self::Number(number) => Some(number),
            Self::Key | Self::Any => None,
        }
    }
}

fn partition(text: &str) -> Result<Partition, String> {
    match text {
        "key" => Ok(Partition::Key),
        "any" => Ok(Partition::Any),
        text => text
            .parse()
            .map(Partition::Number)
            .map_err(|_| "a partition is a number, or `key`, or `any`".into()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|time| !time.is_zero())
        .ok_or_else(|| "a time has a unit, as in 500ms, 30s or 5m".into())
}

/// Appends everything there is to read.
pub fn run(args: ProduceArgs) -> Result<(), Failure> {
    let (input, length) = open(&args.file)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let began = clock.monotonic();
    let mut sending = Sending {
        partition: args.partition.number(),
        ledger: Ledger::default(),
        progress: Progress::begin(length),
    };
    let mut options = EncodeOptions {
        records_max: args.batch.get(),
        bytes_max: args.batch_bytes.len(),
        key_separator: args.key_separator.clone().map(String::into_bytes),
        partitions: None,
        compression: args.compression,
    };
    let outcome = block_on(async {
        // Connected before anything is read: a pipe is not emptied for a node that is not there.
        let traced = Traced::begin(&clock);
        let sent = async {
            let traceparent = traced.as_ref().map(Traced::traceparent);
            let cluster = args.cluster.connect(traceparent).await?;
            if args.partition == Partition::Key {
                options.partitions = Some(partitions_of(&cluster, &args.topic).await?);
            }
            let mut producer = cluster.producer(
                &args.topic,
                ProducerOptions {
                    idempotent: !args.no_idempotence,
                    outstanding_max: args.outstanding.get() as usize,
                    deadline: args.deadline,
                    follow_leader: args.forward,
                    stop_at_failure: true,
                    ..ProducerOptions::default()
                },
            );
            let mut batches = encode::start(input, options)
                .map_err(|error| Failure::io("cannot start a thread", &error))?;
            sending.run(&mut producer, &mut batches).await
        };
        let outcome = sent.await;
        if let Some(traced) = traced {
            let records = sending.ledger.totals().records;
            let attributes = vec![("duramen.records", records.into())];
            traced.end("duramen produce", attributes, outcome.as_ref().err()).await;
        }
        outcome
    });
    sending.progress.end();
    let totals = sending.ledger.totals();
    let elapsed = clock.monotonic().saturating_sub(began);
    if args.json {
        stdout::write(as_json(&args.topic, totals, elapsed, outcome.is_ok()).as_bytes())?;
    }
    match outcome {
        Ok(()) => {
            eprintln!("{}", as_sentence(totals, elapsed));
            Ok(())
        }
        Err(failure) => {
            Err(with_place(failure, totals, sending.ledger.unanswered_records(), &args))
        }
    }
}

/// Over how many partitions keys part the lines: as many as there are now, to the last line.
async fn partitions_of(cluster: &ClusterClient, topic: &str) -> Result<NonZeroU32, Failure> {
    let known = cluster.partitions(topic).await.and_then(NonZeroU32::new);
    known.ok_or_else(|| {
        Failure::new(Class::Temporary, format!("nobody tells how many partitions {topic} has"))
            .advice(format!(
                "`duramen topic list` tells whether there is such a topic, `duramen topic create \
                 {topic}` makes it"
            ))
    })
}

#[allow(clippy::disallowed_methods, reason = "the edge where the user's file is read")]
fn open(file: &str) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
    if file == "-" {
        if io::stdin().is_terminal() {
            eprintln!("a line is a record; end with Ctrl-D");
        }
        return Ok((Box::new(io::stdin()), None));
    }
    let failed = |error: io::Error| Failure::io(format!("cannot read {file}"), &error);
    let opened = File::open(file).map_err(failed)?;
    let metadata = opened.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Failure::new(Class::BadInput, format!("{file} is a directory")));
    }
    Ok((Box::new(opened), metadata.is_file().then_some(metadata.len())))
}

fn per_second(amount: u64, elapsed: Duration) -> f64 {
    amount as f64 / elapsed.as_secs_f64().max(1e-6)
}

fn as_sentence(totals: Totals, elapsed: Duration) -> String {
    let (Some(first), Some(last), Some(durability)) =
        (totals.first, totals.last, totals.durability)
    else {
        return "acknowledged 0 records: there was nothing to read".into();
    };
    let records = if totals.records == 1 { "record" } else { "records" };
    let place = if totals.is_spread {
        "over several partitions".into()
    } else {
        format!("at offsets {first}..={last}")
    };
    format!(
        "acknowledged {} {records} ({}) {place}, durability {durability}, \
         {:.0} records/s, {}/s",
        totals.records,
        ByteSize(totals.input_bytes).approximate(),
        per_second(totals.records, elapsed),
        ByteSize(per_second(totals.input_bytes, elapsed) as u64).approximate(),
    )
}

fn as_json(topic: &str, totals: Totals, elapsed: Duration, complete: bool) -> String {
    let object = json!({
        "topic": topic,
        "complete": complete,
        "records": totals.records,
        "bytes": totals.input_bytes,
        "first_offset": totals.first.filter(|_| !totals.is_spread).map(|offset| offset.0),
        "last_offset": totals.last.filter(|_| !totals.is_spread).map(|offset| offset.0),
        "durability": totals.durability.map(|durability| durability.name()),
        "elapsed_seconds": elapsed.as_secs_f64(),
        "records_per_second": per_second(totals.records, elapsed),
    });
    format!("{object}\n")
}

/// Adds to a failure where it happened and how to go on from there.
fn with_place(failure: Failure, totals: Totals, unknown: u64, args: &ProduceArgs) -> Failure {
    if totals.records == 0 && unknown == 0 {
        return failure;
    }
    let mut place = format!("acknowledged {} records", totals.records);
    if let (Some(first), Some(last), false) = (totals.first, totals.last, totals.is_spread) {
        place += &format!(" at offsets {first}..={last}");
    }
    let mut advice = Vec::new();
    if unknown > 0 {
        place += &format!("; {unknown} more were sent and may or may not be stored");
        let which = match args.partition.number() {
            None => " --partition N -o -5000 (of each partition)".into(),
            Some(partition) => {
                let from = totals.last.map_or("start".into(), |last| last.next().to_string());
                let partition = match partition {
                    0 => String::new(),
                    partition => format!(" --partition {partition}"),
                };
                format!("{partition} -o {from}")
            }
        };
        advice.push(format!("see which of them are stored: duramen consume {}{which}", args.topic));
    }
    let line = totals.records + 1;
    let source = if args.file == "-" { "the input" } else { &args.file };
    let stored = match (unknown, args.partition) {
        (0, _) => "",
        (_, Partition::Number(_)) => " and as many more as are stored",
        (_, Partition::Key | Partition::Any) => ", without those that are stored",
    };
    advice.push(format!("then go on with line {line} of {source}{stored}"));
    advice.extend(failure.advice);
    let cause = failure.cause.map_or(place.clone(), |cause| format!("{cause}\n{place}"));
    Failure { cause: Some(cause), advice: Some(advice.join("\n")), ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use crate::model::{Durability, Offset};
    use clap::Parser;

    fn totals() -> Totals {
        Totals {
            records: 1000,
            input_bytes: 2 << 20,
            first: Some(Offset(5)),
            last: Some(Offset(1004)),
            partition: Some(0),
            is_spread: false,
            durability: Some(Durability::Fsync),
        }
    }

    fn args() -> ProduceArgs {
        let cli = Cli::try_parse_from(["duramen", "produce", "log", "-f", "words"]).unwrap();
        let Some(Command::Produce(args)) = cli.command else { panic!("produce was asked for") };
        args
    }

    #[test]
    fn the_last_line_tells_what_is_safe_and_how_safe() {
        assert_eq!(
            as_sentence(totals(), Duration::from_secs(2)),
            "acknowledged 1000 records (2.0 MiB) at offsets 5..=1004, durability fsync, \
             500 records/s, 1.0 MiB/s"
        );
    }

    #[test]
    fn a_failure_tells_how_many_are_acknowledged_and_where_to_go_on() {
        let failure = Failure::new(Class::Unavailable, "the connection was lost").cause("reset");
        let failure = with_place(failure, totals(), 40, &args());
        let text = failure.to_string();
        assert!(text.contains("acknowledged 1000 records at offsets 5..=1004"), "{text}");
        assert!(text.contains("40 more were sent and may or may not be stored"), "{text}");
        assert!(text.contains("duramen consume log -o 1005"), "{text}");
        assert!(text.contains("line 1001 of words and as many more as are stored"), "{text}");
        assert_eq!(failure.class, Class::Unavailable);
    }

    #[test]
    fn a_partition_is_a_number_or_a_way_to_choose() {
        assert_eq!(partition("7"), Ok(Partition::Number(7)));
        assert_eq!((partition("key"), partition("any")), (Ok(Partition::Key), Ok(Partition::Any)));
        assert!(partition("-1").is_err() && partition("").is_err());
        let keyless = ["duramen", "produce", "log", "--partition", "key"];
        let refused = Cli::try_parse_from(keyless).unwrap_err().to_string();
        assert!(refused.contains("--key-separator <TEXT>"), "{refused}");
        let keyed = keyless.into_iter().chain(["--key-separator", ":"]);
        assert!(Cli::try_parse_from(keyed).is_ok());
    }

    #[test]
    fn the_summary_for_programs_says_whether_it_is_complete() {
        let text = as_json("log", totals(), Duration::from_secs(2), false);
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&object["complete"], &object["last_offset"]), (&false.into(), &1004.into()));
    }
}
