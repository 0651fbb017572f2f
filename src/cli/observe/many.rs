//! Messages of several nodes in one order: as they are handled, or from what the nodes logged.

use super::merge::{Merge, RECEIVED};
use super::tap::{TapArgs, as_text};
use super::{Class, Failure, block_on, failed, json_line, stdout};
use crate::model::escape::one_line;
use crate::observe::Pattern;
use crate::wire::client::{Client, ClientError, ClientOptions, Tapped};
use crate::wire::pb::duramen::v1::{ClusterStatusRequest, Envelope, TapRequest, TapResponse};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a message waits for those that other nodes handled before it.
const HOLD_BACK: Duration = Duration::from_millis(300);
/// Responses that may wait to be merged; beyond, taps wait, and then drop.
const WAITING_MAX: usize = 1024;
/// Lines of each log that are looked ahead: more than a node logs in the time that a line is late.
const AHEAD: usize = 16_384;

/// Writes what was merged, as it was asked for.
struct Page {
    output: BufWriter<File>,
    names: Vec<String>,
    is_json: bool,
    is_diagram: bool,
    left: u64,
}

impl Page {
    fn open(args: &TapArgs, names: Vec<String>) -> Result<Self, Failure> {
        let mut output = stdout::buffered()?;
        if args.sequence {
            stdout::settle(output.write_all(b"sequenceDiagram\n"))?;
        }
        Ok(Self {
            output,
            names,
            is_json: args.shape.is_json(),
            is_diagram: args.sequence,
            left: args.count.unwrap_or(u64::MAX),
        })
    }

    /// Writes a message; false once there is enough, or nobody reads on.
    fn write(&mut self, source: usize, told: &Envelope) -> Result<bool, Failure> {
        let name = &self.names[source];
        let line = match (self.is_diagram, self.is_json) {
            (true, _) => match arrow(told) {
                Some(line) => line,
                None => return Ok(true),
            },
            (false, true) => {
                let mut told = serde_json::to_value(told).unwrap_or_default();
                told["node"] = Value::from(name.as_str());
                json_line(&told)
            }
            (false, false) => as_text(told, Some(name)),
        };
        self.left = self.left.saturating_sub(1);
        Ok(stdout::settle(self.output.write_all(line.as_bytes()))? && self.left > 0)
    }

    fn flush(&mut self) -> Result<bool, Failure> {
        stdout::settle(self.output.flush())
    }
}

/// A message between replicas as a line of a Mermaid sequence diagram: `Vote(1/0 n2#4->n3#7 term 5,
/// last 8/4)` is an arrow from n2 to n3.
fn arrow(told: &Envelope) -> Option<String> {
    let (kind, rest) =
        told.shown.strip_suffix(')').filter(|_| told.message == RECEIVED)?.split_once('(')?;
    let (group, rest) = rest.split_once(' ')?;
    let (ends, rest) = rest.split_once(' ')?;
    let (from, to) = ends.split_once("->")?;
    let node = |replica: &str| replica.split_once('#').map(|(node, _)| node.to_owned());
    let line = format!("    {}->>{}: {kind} {group} {rest}", node(from)?, node(to)?);
    Some(format!("{}\n", one_line(&line)))
}

struct Source {
    name: String,
    tapped: Tapped,
}

async fn open(
    address: &str,
    options: ClientOptions,
    request: TapRequest,
) -> Result<Source, ClientError> {
    let client = Client::connect(address, options).await?;
    let status = client.admin().cluster_status(ClusterStatusRequest {}).await;
    let name = status.ok().and_then(|status| {
        let me = status.nodes.iter().find(|node| node.id == status.node);
        me.map(|me| me.name.clone())
    });
    let tapped = client.observer().tap(request).await?;
    Ok(Source { name: name.unwrap_or_else(|| address.to_owned()), tapped })
}

/// Taps several nodes until it has enough, none is left, or the reader of its output has enough.
pub fn tap(args: &TapArgs, request: &TapRequest) -> Result<(), Failure> {
    let options = args.secure.options()?;
    block_on(async {
        let (tell, mut told) = mpsc::channel::<(usize, Option<TapResponse>)>(WAITING_MAX);
        let mut names = Vec::new();
        for address in &args.rpc_addr {
            let Source { name, mut tapped } = match open(address, options.clone(), request.clone())
                .await
            {
                Ok(source) => source,
                Err(ClientError::Refused(refusal)) => {
                    return Err(failed(ClientError::Refused(refusal)));
                }
                Err(error) => {
                    eprintln!("warning: {address} is left out: {}", one_line(&error.to_string()));
                    continue;
                }
            };
            let (source, tell, told_name) = (names.len(), tell.clone(), name.clone());
            names.push(name);
            tokio::spawn(async move {
                loop {
                    let next = tapped.next().await;
                    if let Err(error) = &next {
                        let error = one_line(&error.to_string()).into_owned();
                        eprintln!("warning: no more of {told_name}: {error}");
                    }
                    let next = next.ok().flatten();
                    let is_last = next.is_none();
                    if tell.send((source, next)).await.is_err() || is_last {
                        return;
                    }
                }
            });
        }
        drop(tell);
        if names.is_empty() {
            return Err(Failure::new(Class::Unavailable, "none of the nodes can be tapped")
                .advice("`duramen cluster status` tells where the nodes are"));
        }
        let mut merge = Merge::new(names.len());
        let mut page = Page::open(args, names)?;
        let mut dropped = vec![0; page.names.len()];
        let mut newest = i64::MIN;
        loop {
            let next = tokio::time::timeout(HOLD_BACK, told.recv()).await;
            let is_over = matches!(next, Ok(None));
            let until = match next {
                Ok(Some((source, Some(response)))) => {
                    note_dropped(&page.names[source], &mut dropped[source], response.dropped);
                    for envelope in response.envelopes {
                        newest = newest.max(envelope.time_ms);
                        merge.push(source, envelope);
                    }
                    newest.saturating_sub(HOLD_BACK.as_millis() as i64)
                }
                // Its last words are merged like all others.
                Ok(Some((_, None))) => continue,
                Ok(None) | Err(_) => i64::MAX,
            };
            while let Some((source, envelope)) = merge.next(until) {
                if !page.write(source, &envelope)? {
                    page.flush()?;
                    return Ok(());
                }
            }
            if !page.flush()? || is_over {
                return Ok(());
            }
        }
    })
}

fn note_dropped(name: &str, known: &mut u64, dropped: u64) {
    if *known == 0 && dropped > 0 {
        eprintln!(
            "warning: messages of {name} are dropped, for they are not read in time; narrow the tap"
        );
    }
    *known = dropped;
}

/// Merges what nodes logged at level trace, in format json.
#[allow(clippy::disallowed_methods, reason = "what nodes logged is read where it lies")]
pub fn from_logs(args: &TapArgs) -> Result<(), Failure> {
    let pattern = Pattern::new(&args.pattern).ok_or_else(|| {
        Failure::new(Class::BadInput, "the pattern matches no path").advice("see --help")
    })?;
    let mut logs = Vec::new();
    for path in &args.from_log {
        let file = File::open(path)
            .map_err(|error| Failure::io(format!("cannot read {}", path.display()), &error))?;
        logs.push(Some(BufReader::new(file).lines()));
    }
    let names = args.from_log.iter().map(|path| stem(path)).collect();
    let (mut page, mut merge) = (Page::open(args, names)?, Merge::new(logs.len()));
    let wanted = |told: &Envelope| {
        pattern.covers(&told.path)
            && (args.messages.is_empty() || args.messages.contains(&told.message))
    };
    loop {
        for (source, log) in logs.iter_mut().enumerate() {
            while merge.waiting(source) < AHEAD {
                let Some(line) = log.as_mut().and_then(Iterator::next) else {
                    *log = None;
                    break;
                };
                let line = line.map_err(|error| {
                    let path = args.from_log[source].display();
                    Failure::io(format!("cannot read {path}"), &error)
                })?;
                // Other lines, and a last one that is cut off, are not messages.
                if let Some(told) = logged(&line).filter(&wanted) {
                    merge.push(source, told);
                }
            }
        }
        let Some((source, told)) = merge.next(i64::MAX) else { break };
        if !page.write(source, &told)? {
            break;
        }
    }
    page.flush().map(drop)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// A message from a line of a node's log.
fn logged(line: &str) -> Option<Envelope> {
    let line: Value = serde_json::from_str(line).ok()?;
    let text = |key: &str| line[key].as_str().map(str::to_owned);
    let number = |key: &str| line[key].as_u64();
    let time: jiff::Timestamp = line["ts"].as_str()?.parse().ok()?;
    Some(Envelope {
        path: text("actor")?,
        message: text("message")?,
        id: number("id")?,
        cause: number("cause")?,
        request: number("request").unwrap_or_default(),
        sender: text("from").unwrap_or_default(),
        time_ms: time.as_millisecond(),
        handled_ns: number("elapsed_us").unwrap_or_default().saturating_mul(1000),
        outcome: text("outcome").unwrap_or_default(),
        shown: text("shown")?,
        ..Envelope::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_replicas_say_is_an_arrow_between_their_nodes() {
        let told = |shown: &str| Envelope {
            message: RECEIVED.into(),
            shown: shown.into(),
            ..Envelope::default()
        };
        assert_eq!(
            arrow(&told("Vote(1/0 n2#4->n3#7 term 5, last 8/4)")).unwrap(),
            "    n2->>n3: Vote 1/0 term 5, last 8/4\n"
        );
        assert_eq!(arrow(&told("nonsense")), None);
    }

    #[test]
    fn only_messages_are_taken_from_a_log() {
        let line = r#"{"ts":"2026-01-02T03:04:05.006Z","level":"trace","msg":"message","actor":
            "node/partitions/log/0/raft","message":"Carried","id":7,"cause":0,"request":0,"from":"",
            "elapsed_us":3,"outcome":"done","shown":"Heartbeat(1/0 n1#1->n2#2 term 1, commit 1)"}"#;
        let told = logged(&line.replace('\n', "")).unwrap();
        assert_eq!((told.id, told.time_ms, told.handled_ns), (7, 1_767_323_045_006, 3000));
        assert_eq!(logged(r#"{"ts":"2026-01-02T03:04:05.006Z","msg":"listening"}"#), None);
        assert_eq!(logged(r#"{"ts":"2026-01-02T0"#), None);
    }
}
