//! `duramen describe`: the state of a log on a running node, as a table or as JSON.

use super::{ClusterAddress, Failure, block_on, stdout};
use crate::ops::settings::ByteSize;
use crate::wire::convert::durability_from_wire;
use crate::wire::pb::duramen::v1::{DescribeResponse, Partition, ReplicaProgress};
use clap::Args;
use serde_json::json;
use std::fmt::Write;

/// Arguments of `duramen describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// The log.
    #[arg(default_value = "log")]
    topic: String,
    /// As a JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: ClusterAddress,
}

/// Asks the node and prints what it says.
pub fn run(args: &DescribeArgs) -> Result<(), Failure> {
    let described =
        block_on(async { Ok(args.cluster.connect(None).await?.describe(&args.topic).await?) })?;
    let text = if args.json { as_json(&described) } else { as_table(&described) };
    stdout::write_text(&text)
}

fn durability(partition: &Partition) -> &'static str {
    durability_from_wire(partition.durability).map_or("unknown", |durability| durability.name())
}

/// The leader's node; nothing where nobody is known.
fn leader(partition: &Partition) -> Option<u32> {
    partition.leader.as_ref().map(|leader| leader.node).filter(|node| *node != 0)
}

/// Records that a mirror's copy lacks of its source.
fn lag(partition: &Partition) -> Option<u64> {
    partition.source_end.map(|end| end.saturating_sub(partition.high_watermark))
}

fn replica(replica: &ReplicaProgress) -> serde_json::Value {
    json!({
        "node": replica.node,
        "incarnation": replica.incarnation,
        "role": replica.role,
        "matched": replica.matched,
        "lag": replica.lag,
        "active": replica.active,
    })
}

fn as_json(described: &DescribeResponse) -> String {
    let partition = |partition: &Partition| {
        json!({
            "id": partition.id,
            "state": partition.state,
            "reason": partition.reason,
            "start_offset": partition.start_offset,
            "high_watermark": partition.high_watermark,
            "size_bytes": partition.size_bytes,
            "segments": partition.segments,
            "term": partition.term,
            "durability": durability(partition),
            "flushes": partition.flushes,
            "refused": partition.refused,
            "restarts": partition.restarts,
            "role": partition.role,
            "leader": leader(partition),
            "source_end": partition.source_end,
            "lag": lag(partition),
            "replicas": partition.replicas.iter().map(replica).collect::<Vec<_>>(),
        })
    };
    let partitions: Vec<_> = described.partitions.iter().map(partition).collect();
    let object = json!({
        "topic": described.topic,
        "node_id": described.node_id,
        "version": described.version,
        "partitions": partitions,
    });
    format!("{object}\n")
}

fn as_table(described: &DescribeResponse) -> String {
    let mut rows = vec![
        [
            "PARTITION",
            "STATE",
            "LEADER",
            "START",
            "END",
            "SIZE",
            "SEGMENTS",
            "TERM",
            "DURABILITY",
            "FLUSHES",
            "REFUSED",
            "RESTARTS",
        ]
        .map(String::from),
    ];
    for partition in &described.partitions {
        rows.push([
            partition.id.to_string(),
            partition.state.clone(),
            leader(partition).map_or_else(|| "-".into(), |node| node.to_string()),
            partition.start_offset.to_string(),
            partition.high_watermark.to_string(),
            ByteSize(partition.size_bytes).approximate(),
            partition.segments.to_string(),
            partition.term.to_string(),
            durability(partition).to_owned(),
            partition.flushes.to_string(),
            partition.refused.to_string(),
            partition.restarts.to_string(),
        ]);
    }
    let mut text = format!(
        "topic {} on node {} (duramen {})\n\n",
        described.topic, described.node_id, described.version
    );
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
            write!(line, "{cell:<width$}  ").expect("a string takes any text");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for partition in &described.partitions {
        if let Some(lag) = lag(partition) {
            let end = partition.source_end.unwrap_or_default();
            writeln!(
                text,
                "\npartition {}: a copy; lacks {lag} records of its source, which ends \
                at {end}",
                partition.id
            )
            .expect("a string takes any text");
        }
    }
    for partition in described.partitions.iter().filter(|partition| !partition.reason.is_empty()) {
        writeln!(text, "\npartition {}: {}", partition.id, partition.reason)
            .expect("a string takes any text");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described() -> DescribeResponse {
        let partition = Partition {
            state: "quarantined".into(),
            reason: "fsync failed".into(),
            high_watermark: 1_234_567,
            size_bytes: 3 << 20,
            durability: 3,
            ..Default::default()
        };
        DescribeResponse { topic: "log".into(), partitions: vec![partition], ..Default::default() }
    }

    #[test]
    fn the_table_is_aligned_and_says_why_a_partition_does_not_serve() {
        let text = as_table(&described());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[2].find("END"), lines[3].find("1234567"), "{text}");
        assert!(lines[3].contains("3.0 MiB"), "{text}");
        assert!(text.ends_with("\npartition 0: fsync failed\n"), "{text}");
    }

    #[test]
    fn a_copy_says_how_far_it_is_behind_its_source() {
        let mut described = described();
        described.partitions[0].source_end = Some(1_234_600);
        let text = as_table(&described);
        let told = "partition 0: a copy; lacks 33 records of its source, which ends at 1234600\n";
        assert!(text.contains(told), "{text}");
        let object: serde_json::Value = serde_json::from_str(&as_json(&described)).unwrap();
        assert_eq!(object["partitions"][0]["lag"], 33);
    }

    #[test]
    fn the_json_has_the_durability_by_name() {
        let object: serde_json::Value = serde_json::from_str(&as_json(&described())).unwrap();
        assert_eq!(object["partitions"][0]["durability"], "fsync");
        assert_eq!(object["partitions"][0]["high_watermark"], 1_234_567);
    }
}
