//! What all nodes copied of their audit logs to the cluster's topic: read, and checked to be whole and
//! of one piece for each node.

use super::CUT_OFF;
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

    /// Forgets the lines from this one on.
    fn begin_anew(&mut self, number: u64) {
        let kept = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.marks.truncate(kept);
        self.first = self.first.min(number);
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
        } else if known.mark(number) == Some(mark(&hash)) {
            return None;
        } else if number <= known.last() {
            // What follows is checked to follow this one.
            let last = known.last();
            known.begin_anew(number);
            self.fault(format!(
                "offset {offset}: line {number} of {node_shown} comes after line {last}, and is not \
                 what it was before: its file was cut off, put back as it once was or made anew"
            ));
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
    /// A line is not what was copied; no node copied any of them; more was copied.
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
        let end = own.last().map_or(0, |(number, _)| *number);
        match changed {
            Some((number, _)) => Err(Failure::new(
                Class::Io,
                format!("line {number} is not what {} copied", escape::one_line(node)),
            )
            .cause("the directory's file was made anew, or belongs to another node")),
            None if same == 0 => {
                Err(Failure::new(Class::Io, "no node copied any line of this directory"))
            }
            None if end < lines.last() => {
                let (node, last) = (escape::one_line(node), lines.last());
                let error = format!("the log ends with line {end}, and {node} copied line {last}");
                Err(Failure::new(Class::Io, error).cause(CUT_OFF))
            }
            None => Ok((escape::one_line(node).to_string(), same)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Chain;

    fn entry(what: &str) -> AuditEntry {
        AuditEntry {
            number: 0,
            at_ms: 1,
            kind: "denied".into(),
            subject: None,
            peer: "127.0.0.1".into(),
            call: "/x/Y".into(),
            what: what.into(),
            outcome: "denied".into(),
            times: 1,
            previous: String::new(),
        }
    }

    /// Lines behind the end of a chain.
    fn lines(chain: &mut Chain, count: u64, what: &str) -> Vec<String> {
        (0..count).map(|_| chain.append(entry(what))).collect()
    }

    /// Takes lines of node n1; gives back the numbers that were new.
    fn take(copies: &mut Copies, lines: &[String]) -> Vec<u64> {
        let new = lines.iter().filter_map(|line| copies.line(Offset(0), "n1", line));
        new.map(|entry| entry.number).collect()
    }

    /// What a node has of its own, as it is compared.
    fn own(lines: &[String]) -> Vec<(u64, u64)> {
        let mut chain = Some(Chain::default());
        let mut own = Vec::new();
        for line in lines {
            verify_line(&mut chain, line).unwrap();
            let Chain { number, hash } = chain.as_ref().unwrap();
            own.push((*number, mark(hash)));
        }
        own
    }

    #[test]
    fn a_log_that_ends_before_its_copies_shows_and_one_that_is_ahead_of_them_is_right() {
        let mut chain = Chain::default();
        let (copied, next) = (lines(&mut chain, 41, "a"), lines(&mut chain, 2, "a"));
        let mut copies = Copies::default();
        assert_eq!(take(&mut copies, &copied).len(), 41);
        assert_eq!(copies.compare(&own(&copied)).unwrap(), ("n1".into(), 41));
        assert_eq!(copies.compare(&own(&[copied.clone(), next].concat())).unwrap().1, 41);
        let refused = copies.compare(&own(&copied[..30])).unwrap_err();
        assert_eq!(refused.error, "the log ends with line 30, and n1 copied line 41");
        assert!(copies.compare(&[]).unwrap_err().error.contains("no node copied any line"));
    }

    #[test]
    fn a_log_that_went_on_from_before_what_was_copied_is_one_fault_and_its_lines_are_shown() {
        let mut before = Chain::default();
        let kept = lines(&mut before, 20, "a");
        let (gone, anew) = (lines(&mut before.clone(), 21, "a"), lines(&mut before, 30, "b"));
        let mut copies = Copies::default();
        take(&mut copies, &[&kept[..], &gone[..]].concat());
        assert_eq!(take(&mut copies, &anew), (21..=50).collect::<Vec<_>>());
        assert!(take(&mut copies, &anew[25..]).is_empty(), "copied twice after a crash");
        assert_eq!(copies.compare(&own(&[kept, anew].concat())).unwrap().1, 50);
        let cause = copies.report().unwrap_err().cause.unwrap();
        assert!(
            cause
                .starts_with("offset 0: line 21 of n1 comes after line 41, and is not what it was")
                && !cause.contains("; "),
            "{cause}"
        );
    }

    #[test]
    fn a_log_that_began_anew_where_its_first_copies_are_gone_is_one_fault() {
        let mut copies = Copies::default();
        take(&mut copies, &lines(&mut Chain::default(), 9, "a")[4..]);
        let anew = lines(&mut Chain::default(), 3, "b");
        assert_eq!(take(&mut copies, &anew), [1, 2, 3]);
        assert_eq!(copies.compare(&own(&anew)).unwrap().1, 3);
        let cause = copies.report().unwrap_err().cause.unwrap();
        assert!(
            cause.contains("line 1 of n1 comes after line 9") && !cause.contains("; "),
            "{cause}"
        );
    }
}
