//! `duramen consume`: records of a log on standard output.

pub mod format;
mod position;
mod print;

use super::progress::Progress;
use super::{Class, ClusterAddress, Failure, block_on, stdout};
use crate::model::{Clock, Offset, SystemClock};
use crate::wire::client::{
    Chunk, ClientError, ClusterClient, Consistency, FetchOptions, Position, Target,
};
use crate::wire::pb::duramen::v1::Partition;
use clap::Args;
use format::Format;
use print::{Printer, Skip};
use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;
use tokio::sync::mpsc;

/// Chunks that have arrived and are not yet printed.
const CHUNKS_WAITING_MAX: usize = 4;
/// How long no node may answer before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// What one response should hold: large enough that its cost does not count.
const CHUNK_BYTES: u32 = 256 << 10;

/// Arguments of `duramen consume`.
#[derive(Debug, Args)]
#[command(after_help = "\
Formats:
  text   the value and a newline; on a terminal, bytes that could garble it as \\xNN
  raw    the value and a newline, byte for byte
  json   one object a line: offset, timestamp (ms since 1970), key, value, headers
         ({key, value}); bytes that are not UTF-8 are key_base64 or value_base64 instead
  a template, such as '%o %k: %v%n':
         %o offset  %k key  %v value  %t timestamp (ms)  %T timestamp (text)
         %h headers (name=value,...)  %s size of the value  %K size of the key  %n newline  %%
         \\n \\t \\r \\0 \\\\")]
pub struct ConsumeArgs {
    /// The log.
    #[arg(default_value = "log")]
    topic: String,
    /// Where to begin: start, end, an offset, -N for the last N records, or @TIME (@2h ago,
    /// @2026-11-21T08:00Z, @ and milliseconds since 1970).
    #[arg(
        short,
        long,
        value_name = "POSITION",
        default_value = "start",
        allow_hyphen_values = true
    )]
    offset: String,
    /// End after so many records.
    #[arg(short = 'n', long, value_name = "RECORDS")]
    count: Option<u64>,
    /// Wait for more at the log's end; else it ends at what was the end when it began.
    #[arg(short = 'F', long)]
    follow: bool,
    /// What a record looks like: text, raw, json or a template; see below.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Which partition.
    #[arg(long, value_name = "N", default_value_t = 0)]
    partition: u32,
    /// committed: what the node that is asked knows to be committed; one that does not lead may lag
    /// a moment behind. linearizable: all that was acknowledged before.
    #[arg(long, value_name = "LEVEL", default_value = "committed")]
    consistency: Level,
    #[command(flatten)]
    cluster: ClusterAddress,
}

/// What a reader may count on to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Level {
    Committed,
    Linearizable,
}

/// Prints what was asked for.
pub fn run(args: ConsumeArgs) -> Result<(), Failure> {
    let position = position::parse(&args.offset, SystemClock::new().wall())
        .map_err(|error| Failure::new(Class::BadInput, error.to_string()))?;
    if args.count == Some(0) {
        return Ok(());
    }
    block_on(consume(args, position))
}

async fn consume(args: ConsumeArgs, position: Position) -> Result<(), Failure> {
    let cluster = args.cluster.connect(None).await?;
    let target = Target { topic: args.topic.clone(), partition: args.partition };
    let position = exact(&cluster, &target, position).await?;
    let options = FetchOptions {
        position,
        chunk_bytes_max: CHUNK_BYTES,
        // The first batch may begin before the position; what of it is left out counts there.
        records_max: None,
        follow: args.follow,
        consistency: match args.consistency {
            Level::Committed => Consistency::Committed,
            Level::Linearizable => Consistency::Linearizable,
        },
    };
    let mut chunks = cluster.fetch(&target, options, PATIENCE).await?;
    let (to_print, printing) = mpsc::channel::<Chunk>(CHUNKS_WAITING_MAX);
    let printer = start_printer(&args, position, printing)?;
    let received: Result<(), ClientError> = loop {
        let next = tokio::select! {
            biased;
            () = to_print.closed() => break Ok(()),
            next = chunks.next() => next,
        };
        match next {
            Ok(Some(chunk)) => {
                if to_print.send(chunk).await.is_err() {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    drop(to_print);
    let printed = printer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    printed.and(received.map_err(Failure::from))
}

/// Turns "the last N" into an offset, so that records of the same batch before it can be told.
async fn exact(
    cluster: &ClusterClient,
    target: &Target,
    position: Position,
) -> Result<Position, Failure> {
    let Position::BeforeEnd(count) = position else { return Ok(position) };
    let described = cluster.describe(&target.topic).await?;
    let mut partitions = described.partitions.iter();
    let Some(partition) = partitions.find(|partition| partition.id == target.partition) else {
        return Ok(position);
    };
    check_readable(partition)?;
    let first = partition.high_watermark.saturating_sub(count).max(partition.start_offset);
    Ok(Position::Offset(Offset(first)))
}

/// While a log cannot be read, its end as described means nothing.
fn check_readable(partition: &Partition) -> Result<(), Failure> {
    let class = match partition.state.as_str() {
        "serving" => return Ok(()),
        "quarantined" if partition.segments > 0 => return Ok(()),
        "recovering" | "restarting" => Class::Temporary,
        _ => Class::Unavailable,
    };
    let error = format!("the log's end is not known: its partition is {}", partition.state);
    let failure = Failure::new(class, error)
        .advice("try again later; `duramen describe` tells the state of the log");
    let reason = partition.reason.clone();
    Err(if reason.is_empty() { failure } else { failure.cause(reason) })
}

fn start_printer(
    args: &ConsumeArgs,
    position: Position,
    chunks: mpsc::Receiver<Chunk>,
) -> Result<thread::JoinHandle<Result<(), Failure>>, Failure> {
    let for_terminal = io::stdout().is_terminal();
    let output = stdout::buffered()?;
    let (format, wanted) = (args.format.clone(), args.count);
    let skip = match position {
        Position::Offset(offset) => Skip::Below(offset),
        Position::Time(time) => Skip::Until(time),
        Position::Start | Position::End | Position::BeforeEnd(_) => Skip::Nothing,
    };
    let print = move || {
        // On a terminal the records themselves are the progress.
        let progress = if for_terminal { Progress::none() } else { Progress::begin(None) };
        Printer { output, format, for_terminal, skip, wanted, progress }.run(chunks)
    };
    let started = thread::Builder::new().name("printer".into()).spawn(print);
    started.map_err(|error| Failure::io("cannot start a thread", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(state: &str, segments: u32) -> Partition {
        let reason = "because".into();
        Partition { state: state.into(), segments, reason, ..Default::default() }
    }

    #[test]
    fn the_last_records_are_counted_only_from_an_end_that_is_known() {
        assert_eq!(check_readable(&partition("serving", 1)), Ok(()));
        assert_eq!(check_readable(&partition("quarantined", 1)), Ok(()));
        let cases = [
            (partition("recovering", 0), Class::Temporary),
            (partition("restarting", 1), Class::Temporary),
            (partition("quarantined", 0), Class::Unavailable),
            (partition("stopped", 1), Class::Unavailable),
        ];
        for (partition, class) in cases {
            let failure = check_readable(&partition).unwrap_err();
            assert_eq!((failure.class, failure.cause.as_deref()), (class, Some("because")));
            assert!(failure.error.contains(&partition.state), "{}", failure.error);
        }
    }
}
