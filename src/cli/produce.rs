//! `duramen produce`: lines in, records acknowledged out.

mod encode;
mod ledger;
mod lines;
mod send;

use super::progress::Progress;
use super::traced::Traced;
use super::{Class, Failure, NodeAddress, block_on, stdout};
use crate::log::batch::Compression;
use crate::model::{Clock, SystemClock};
use crate::ops::settings::ByteSize;
use crate::wire::client::{Client, ClientOptions, Target};
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
    /// Most batches sent and not yet acknowledged.
    #[arg(long, value_name = "BATCHES", default_value = "16")]
    outstanding: NonZeroU32,
    /// How batches are compressed: none, gzip, snappy, lz4 or zstd.
    #[arg(long, value_name = "KIND", default_value = "none")]
    compression: Compression,
    /// Print a summary as a JSON object on standard output.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeAddress,
}

/// Appends everything there is to read.
pub fn run(args: ProduceArgs) -> Result<(), Failure> {
    let (input, length) = open(&args.file)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let began = clock.monotonic();
    let mut sending = Sending {
        target: Target::topic(&args.topic),
        outstanding_max: args.outstanding.get() as usize,
        ledger: Ledger::default(),
        progress: Progress::begin(length),
    };
    let options = EncodeOptions {
        records_max: args.batch.get(),
        bytes_max: args.batch_bytes.len(),
        key_separator: args.key_separator.clone().map(String::into_bytes),
        compression: args.compression,
    };
    let outcome = block_on(async {
        // Connected before anything is read: a pipe is not emptied for a node that is not there.
        let traced = Traced::begin(&clock);
        let sent = async {
            let client = Client::connect(&args.node.rpc_addr, ClientOptions::default()).await?;
            let mut client = match &traced {
                Some(traced) => client.traced(&traced.traceparent()),
                None => client,
            };
            let mut batches = encode::start(input, options)
                .map_err(|error| Failure::io("cannot start a thread", &error))?;
            sending.run(&mut client, &mut batches).await
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
    format!(
        "acknowledged {} {records} ({}) at offsets {first}..={last}, durability {durability}, \
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
        "first_offset": totals.first.map(|offset| offset.0),
        "last_offset": totals.last.map(|offset| offset.0),
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
    if let (Some(first), Some(last)) = (totals.first, totals.last) {
        place += &format!(" at offsets {first}..={last}");
    }
    let mut advice = Vec::new();
    if unknown > 0 {
        place += &format!("; {unknown} more were sent and may or may not be stored");
        let from = totals.last.map_or("start".into(), |last| last.next().to_string());
        advice.push(format!(
            "see which of them are stored: duramen consume {} -o {from}",
            args.topic
        ));
    }
    let line = totals.records + 1;
    let source = if args.file == "-" { "the input" } else { &args.file };
    let stored = if unknown > 0 { " and as many more as are stored" } else { "" };
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
    fn the_summary_for_programs_says_whether_it_is_complete() {
        let text = as_json("log", totals(), Duration::from_secs(2), false);
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&object["complete"], &object["last_offset"]), (&false.into(), &1004.into()));
    }
}
