//! What all nodes copied of their audit logs to the cluster's topic: read, and checked to be whole and
//! of one piece for each node.

use crate::access::{AUDIT_TOPIC, AuditEntry, verify_line};
use crate::cli::{Class, ClusterAddress, Failure};
use crate::log::batch::{BatchLimits, batches, records, verify_crc};
use crate::model::{Offset, Payload, escape};
use crate::wire::client::{Chunk, Consistency, FetchOptions, Position, Target};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// How long no node may answer before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// The node checked sizes when it stored them, by limits that are its own.
const LIMITS: BatchLimits = BatchLimits {
    batch_bytes_max: 1 << 30,
    record_bytes_max: 1 << 30,
    decompressed_bytes_max: 4 << 30,
};
/// Nodes that may have copied something: as many as a cluster may ever have had would be more than
/// are told here.
const NODES_MAX: usize = 10_000;
/// The same, of faults.
const FAULTS_MAX: usize = 20;

/// What was read, by the node that noted it.
#[derive(Debug, Default)]
pub(super) struct Copies {
    nodes: BTreeMap<String, Lines>,
    faults: Vec<String>,
    more_faults: u64,
}

/// Of one node.
#[derive(Debug, Default)]
struct Lines {
    first: u64,
    /// The beginning of each line's hash, from the first on without a gap.
    marks: Vec<u64>,
    last_hash: String,
}

impl Lines {
    fn last(&self) -> u64 {
        self.first + self.marks.len() as u64 - 1
    }

    fn mark(&self, number: u64) -> Option<u64> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.marks.get(at).copied()
    }
}

/// Enough of a hash to tell it from another's.
pub(super) fn mark(hash: &str) -> u64 {
    hash.bytes().take(10).fold(0, |mark, byte| mark << 6 ^ u64::from(byte))
}

impl Copies {
    /// Reads all that is there, and gives each line once to `each`, with the node that noted it.
    ///
    /// # Errors
    /// The topic cannot be read. A line that is not what it should be is told by [`Copies::report`].
    pub async fn read(
        &mut self,
        address: &ClusterAddress,
        mut each: impl FnMut(&str, AuditEntry),
    ) -> Result<(), Failure> {
        let cluster = address.connect(None).await?;
        let options = FetchOptions {
            position: Position::Start,
            chunk_bytes_max: 0,
            records_max: None,
            follow: false,
            consistency: Consistency::Linearizable,
        };
        let target = Target { topic: AUDIT_TOPIC.into(), partition: 0 };
        let mut chunks = cluster.fetch(&target, options, PATIENCE).await?;
        while let Some(chunk) = chunks.next().await? {
            self.take(&chunk, &mut each)?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        chunk: &Chunk,
        each: &mut impl FnMut(&str, AuditEntry),
    ) -> Result<(), Failure> {
        let damaged = |what: String| Failure::new(Class::Io, format!("{AUDIT_TOPIC}/0: {what}"));
        for batch in batches(&chunk.batches) {
            let (_, batch) = batch.map_err(|error| damaged(error.to_string()))?;
            verify_crc(&batch).map_err(|error| damaged(error.to_string()))?;
            for record in records(batch, LIMITS) {
                let (offset, record) = record.map_err(|error| damaged(error.to_string()))?;
                let text = |bytes: Option<Payload>| {
                    let bytes = bytes.map(|bytes| bytes.0).unwrap_or_default();
                    String::from_utf8_lossy(&bytes).into_owned()
                };
                let (node, line) = (text(record.key), text(record.value));
                if let Some(entry) = self.line(offset, &node, &line) {
                    each(&node, entry);
                }
            }
        }
        Ok(())
    }

    /// Takes one line; what is new and right is given back.
    fn line(&mut self, offset: Offset, node: &str, line: &str) -> Option<AuditEntry> {
        let node_shown = escape::one_line(node);
        let mut chain = None;
        let entry = match verify_line(&mut chain, line) {
            Ok(entry) => entry,
            Err(fault) => {
                self.fault(format!("offset {offset}, of {node_shown}: {fault}"));
                return None;
            }
        };
        let hash = chain.map(|chain| chain.hash).unwrap_or_default();
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(node) {
            self.fault(format!("offset {offset}: more than {NODES_MAX} nodes are named"));
            return None;
        }
        let known = self.nodes.entry(node.to_owned()).or_default();
        let number = entry.number;
        if known.marks.is_empty() {
            known.first = number;
        } else if number < known.first {
            let first = known.first;
            self.fault(format!(
                "offset {offset}: line {number} of {node_shown} comes after {first}"
            ));
            return None;
        } else if let Some(before) = known.mark(number) {
            if before != mark(&hash) {
                self.fault(format!(
                    "offset {offset}: line {number} of {node_shown} is not what it was before: its \
                     file was made anew"
                ));
            }
            return None;
        } else if number != known.last() + 1 {
            let (from, to) = (known.last() + 1, number - 1);
            *known = Lines { first: number, ..Lines::default() };
            self.fault(format!("lines {from} to {to} of {node_shown} were not copied"));
        } else if entry.previous != known.last_hash {
            self.fault(format!(
                "offset {offset}: line {number} of {node_shown} does not follow the one before"
            ));
        }
        let known = self.nodes.entry(node.to_owned()).or_default();
        known.marks.push(mark(&hash));
        known.last_hash = hash;
        Some(entry)
    }

    fn fault(&mut self, what: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(what);
        } else {
            self.more_faults += 1;
        }
    }

    /// What there is of each node.
    ///
    /// # Errors
    /// What is not as it was noted.
    pub fn report(&self) -> Result<String, Failure> {
        if !self.faults.is_empty() {
            let more = match self.more_faults {
                0 => String::new(),
                more => format!("; and {more} more"),
            };
            let faults = format!("{}{more}", self.faults.join("; "));
            return Err(Failure::new(Class::Io, "the copies are not what nodes noted")
                .cause(faults)
                .advice("compare with the nodes' own files: duramen audit verify --data-dir DIR"));
        }
        let mut text = String::new();
        for (node, lines) in &self.nodes {
            let (count, first, last) = (lines.marks.len(), lines.first, lines.last());
            let node = escape::one_line(node);
            // Writing to a text cannot fail.
            let _ = writeln!(
                text,
                "{node}: {count} lines, numbers {first} to {last}: each follows the one before"
            );
        }
        if text.is_empty() {
            text.push_str("nothing was copied yet\n");
        }
        Ok(text)
    }

    /// Compares a node's own lines (number, [`mark`]) with what was copied of them: gives back the node,
    /// and how many are the same.
    ///
    /// # Errors
    /// A line is not what was copied; no node copied any of them.
    pub fn compare(&self, own: &[(u64, u64)]) -> Result<(String, u64), Failure> {
        let of = |lines: &Lines| {
            own.iter().filter(|(number, mark)| lines.mark(*number) == Some(*mark)).count() as u64
        };
        let nodes = self.nodes.iter().map(|(node, lines)| (of(lines), node, lines));
        let Some((same, node, lines)) = nodes.max_by_key(|(same, ..)| *same) else {
            return Err(Failure::new(Class::Io, "nothing was copied yet"));
        };
        let changed = own
            .iter()
            .find(|(number, mark)| lines.mark(*number).is_some_and(|copied| copied != *mark));
        match changed {
            Some((number, _)) => Err(Failure::new(
                Class::Io,
                format!("line {number} is not what {} copied", escape::one_line(node)),
            )
            .cause("the directory's file was made anew, or belongs to another node")),
            None if same == 0 => {
                Err(Failure::new(Class::Io, "no node copied any line of this directory"))
            }
            None => Ok((escape::one_line(node).to_string(), same)),
        }
    }
}
