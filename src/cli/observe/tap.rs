//! `duramen tap`: messages of a running node as they are handled, or one client's request as a
//! sequence diagram.

use super::sequence::Sequencer;
use super::table::time;
use super::{
    Class, Failure, NodeAddress, Shape, block_on, connect, failed, json_line, many, stdout,
};
use crate::cli::RPC_ADDR_DEFAULT;
use crate::cli::secure::ClientArgs;
use crate::model::Timestamp;
use crate::model::escape::one_line;
use crate::ops::logger::rfc3339;
use crate::ops::settings::parse_duration;
use crate::wire::client::Tapped;
use crate::wire::pb::duramen::v1::{Envelope, TapRequest};
use clap::Args;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Messages that may wait in the node for a diagram: enough for a request with all that is under
/// way beside it.
const SEQUENCE_QUEUE: u32 = 32_768;

/// Arguments of `duramen tap`.
#[derive(Debug, Args)]
#[command(after_help = "\
A message is told when its handler has returned; a request is told once more when it is answered.
What is not read in time is dropped and counted: a tap never slows the node.")]
pub struct TapArgs {
    /// Of which actors, as in 'partitions/**/log': a tail of a path is enough, and what lies below
    /// is covered; '**' is all.
    #[arg(value_name = "PATH-GLOB")]
    pub(super) pattern: String,
    /// Only messages of this type, as in Append; may be given more than once.
    #[arg(short, long = "message", value_name = "TYPE")]
    pub(super) messages: Vec<String>,
    /// Only those that took longer to be handled or answered, as in 5ms.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    slower_than: Option<Duration>,
    /// One of so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    sample: Option<u64>,
    /// End after so many.
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub(super) count: Option<u64>,
    /// Print a Mermaid sequence diagram of the first client's request that is answered (with
    /// --slower-than: after that time) and whose messages were all seen, and end. Of several
    /// nodes: of what replicas say to each other, as it arrives.
    #[arg(long, conflicts_with_all = ["messages", "sample", "json", "table"])]
    pub(super) sequence: bool,
    #[command(flatten)]
    pub(super) shape: Shape,
    /// Addresses of the nodes (gRPC). Of several the messages are merged into one order: by time,
    /// and none as received before it was sent.
    #[arg(
        long,
        visible_alias = "addr",
        value_name = "HOST:PORT[,HOST:PORT...]",
        env = "DURAMEN_RPC_ADDR",
        default_value = RPC_ADDR_DEFAULT,
        value_delimiter = ','
    )]
    pub(super) rpc_addr: Vec<String>,
    #[command(flatten)]
    pub(super) secure: ClientArgs,
    /// Not from nodes: from what they logged, as JSON and at level trace; merged in the same way.
    #[arg(
        long,
        value_name = "FILE[,FILE...]",
        value_delimiter = ',',
        conflicts_with_all = ["slower_than", "sample"]
    )]
    pub(super) from_log: Vec<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "expected a time with its unit, such as 500us or 5ms".into())
}

/// Taps until it has enough, or the reader of its output has.
pub fn run(args: &TapArgs) -> Result<(), Failure> {
    if args.count == Some(0) {
        return Ok(());
    }
    if !args.from_log.is_empty() {
        return many::from_logs(args);
    }
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let mut request = TapRequest {
        pattern: args.pattern.clone(),
        messages: args.messages.clone(),
        slower_than_us: args.slower_than.map_or(0, micros),
        sample: args.sample.unwrap_or(1),
        queue_len: 0,
    };
    if args.sequence {
        // A diagram needs the fast messages of a slow request too.
        (request.slower_than_us, request.queue_len) = (0, SEQUENCE_QUEUE);
    }
    let [address] = &args.rpc_addr[..] else { return many::tap(args, &request) };
    let node = NodeAddress { rpc_addr: address.clone(), secure: args.secure.clone() };
    block_on(async {
        let mut observer = connect(&node).await?;
        let tapped = observer.tap(request).await.map_err(failed)?;
        if args.sequence { sequence(args, tapped).await } else { follow(args, tapped).await }
    })
}

async fn follow(args: &TapArgs, mut tapped: Tapped) -> Result<(), Failure> {
    let mut output = stdout::buffered()?;
    let is_json = args.shape.is_json();
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut lost = Lost::default();
    let outcome = loop {
        let told = match tapped.next().await {
            Ok(Some(told)) => told,
            Ok(None) => break Ok(()),
            Err(error) => break Err(failed(error)),
        };
        for warning in told.warnings {
            eprintln!("warning: {}", one_line(&warning));
        }
        lost.note(told.dropped);
        for envelope in told.envelopes.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            let line = if is_json { json_line(envelope) } else { as_text(envelope, None) };
            if !print(&mut output, &line)? {
                return Ok(());
            }
        }
        if !stdout::settle(output.flush())? {
            return Ok(());
        }
        left = left.saturating_sub(told.envelopes.len() as u64);
        if left == 0 {
            break Ok(());
        }
    };
    lost.tell();
    outcome
}

async fn sequence(args: &TapArgs, mut tapped: Tapped) -> Result<(), Failure> {
    let slower_than = args.slower_than.unwrap_or_default();
    let mut sequencer = Sequencer::new(slower_than);
    while let Some(told) = tapped.next().await.map_err(failed)? {
        for envelope in told.envelopes {
            if let Some(diagram) = sequencer.take(envelope) {
                return stdout::write_text(&diagram);
            }
        }
    }
    Err(Failure::new(Class::Temporary, "the tap ended before a request was answered")
        .advice("the same again, with a client that appends"))
}

fn print(output: &mut BufWriter<File>, line: &str) -> Result<bool, Failure> {
    stdout::settle(output.write_all(line.as_bytes()))
}

/// How much was dropped, told when it first happens and at the end.
#[derive(Debug, Default)]
struct Lost(u64);

impl Lost {
    fn note(&mut self, dropped: u64) {
        if self.0 == 0 && dropped > 0 {
            eprintln!(
                "warning: messages are dropped, for they are not read in time; narrow the tap"
            );
        }
        self.0 = dropped;
    }

    fn tell(&self) {
        if self.0 > 0 {
            eprintln!("{} messages were dropped", self.0);
        }
    }
}

/// Time, receiver and message first, of several nodes the node as well; then whose it is; then how it went.
pub(super) fn as_text(envelope: &Envelope, node: Option<&str>) -> String {
    let Envelope { path, message, id, cause, request, sender, .. } = envelope;
    let at = rfc3339(Timestamp(envelope.time_ms));
    let node = node.map(|node| format!("{node}  ")).unwrap_or_default();
    let mut line = format!("{at}  {node}{path}  {message} {id}");
    let mut add = |text: String| {
        line.push_str("  ");
        line.push_str(&text);
    };
    if *cause > 0 {
        add(format!("cause {cause}"));
    }
    if *request > 0 {
        add(format!("request {request}"));
    }
    match (&envelope.answer, envelope.answered_after_ns) {
        (Some(answer), Some(after)) => add(format!("answered {answer} after {}", time(after))),
        _ => {
            if !sender.is_empty() && sender != path {
                add(format!("from {sender}"));
            }
            add(format!("waited {}", time(envelope.waited_ns)));
            add(format!("{} in {}", envelope.outcome, time(envelope.handled_ns)));
        }
    }
    if !envelope.shown.is_empty() && envelope.shown != *message {
        add(envelope.shown.clone());
    }
    line = one_line(&line).into_owned();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            path: "node/log".into(),
            message: "Append".into(),
            id: 12,
            cause: 11,
            sender: "node/raft".into(),
            waited_ns: 5000,
            handled_ns: 900,
            outcome: "done".into(),
            shown: "Append(number 3)".into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_line_tells_whose_message_it_is_and_how_it_went() {
        assert_eq!(
            as_text(&envelope(), None),
            "1970-01-01T00:00:00.000Z  node/log  Append 12  cause 11  from node/raft  \
             waited 5 µs  done in 900 ns  Append(number 3)\n"
        );
    }

    #[test]
    fn an_answer_tells_only_that() {
        let answer = Envelope {
            answer: Some("ok".into()),
            answered_after_ns: Some(1_200_000),
            request: 7,
            shown: String::new(),
            ..envelope()
        };
        let line = as_text(&answer, Some("n2"));
        assert!(line.starts_with("1970-01-01T00:00:00.000Z  n2  node/log  Append 12"), "{line}");
        assert!(line.ends_with("cause 11  request 7  answered ok after 1.20 ms\n"), "{line}");
    }
}
