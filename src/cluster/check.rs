//! What may stand in a command: names, addresses, settings, counts. The catalogue lives on every
//! node for ever, so nothing gets into it that is not bounded and of a known shape.

use super::catalogue::TopicSettings;
use super::command::{NodeSelf, Rejection, RejectionKind};
use crate::model::Durability;

/// Partitions in all topics together.
pub const PARTITIONS_MAX: u32 = 10_000;
/// Replicas of one partition.
pub const REPLICATION_MAX: u32 = 7;
/// Replicas of one partition while some come and others go.
pub const REPLICAS_MAX: usize = 16;
/// Nodes that a cluster ever had, those that were removed included.
pub const NODES_MAX: usize = 10_000;
const LABELS_MAX: usize = 16;
const TEXT_BYTES_MAX: usize = 255;

/// What a setting of a topic may be.
#[derive(Clone, Copy)]
enum Kind {
    Size,
    Age,
    Durability,
}

/// The settings that a topic may have of its own.
const SETTINGS: [(&str, Kind); 4] = [
    ("retention_bytes", Kind::Size),
    ("retention_age", Kind::Age),
    ("segment_bytes_max", Kind::Size),
    ("durability", Kind::Durability),
];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];
/// In nanoseconds.
const AGE_UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

impl Rejection {
    pub(super) fn new(kind: RejectionKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(RejectionKind::Invalid, message)
    }
}

/// A text that is shown and stored: short, and without anything that a terminal acts on.
fn is_text(text: &str) -> bool {
    text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control)
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let is_path = matches!(name, "." | "..");
    (1..=TEXT_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed) && !is_path
}

/// What a node tells of itself.
pub fn node(node: &NodeSelf) -> Result<(), Rejection> {
    if !is_name(&node.name) {
        return Err(Rejection::invalid(
            "the node's name is not valid: 1 to 255 of the characters A-Z a-z 0-9 . _ - (and \
             neither . nor ..); give another one with --node-name",
        ));
    }
    if !is_name(&node.uuid) {
        return Err(Rejection::invalid("the identity of the node's directory is not valid"));
    }
    let addresses = [("RPC", &node.rpc_addr), ("gossip", &node.gossip_addr)];
    for (what, addr) in addresses {
        if !is_text(addr) || what == "RPC" && addr.is_empty() {
            return Err(Rejection::invalid(format!("the node's {what} address is not valid")));
        }
    }
    let label_fits = |(key, value): (&String, &String)| is_name(key) && is_text(value);
    if node.labels.len() > LABELS_MAX || !node.labels.iter().all(label_fits) {
        return Err(Rejection::invalid(format!(
            "the node's labels are not valid: at most {LABELS_MAX}, keys of A-Z a-z 0-9 . _ -, \
             values of at most {TEXT_BYTES_MAX} bytes"
        )));
    }
    if !is_text(&node.version) || node.protocol_min > node.protocol_max {
        return Err(Rejection::invalid("the node's version and protocols are not valid"));
    }
    Ok(())
}

/// Whether a node speaks what the cluster speaks.
pub fn protocol(node: &NodeSelf, cluster: u32) -> Result<(), Rejection> {
    let NodeSelf { name, protocol_min: min, protocol_max: max, version, .. } = node;
    if (*min..=*max).contains(&cluster) {
        return Ok(());
    }
    let advice = if *max < cluster { "upgrade it" } else { "upgrade the cluster's nodes first" };
    Err(Rejection::new(
        RejectionKind::Foreign,
        format!(
            "the node {name} (version {version}) speaks protocols {min} to {max}, the cluster \
             {cluster}: {advice}"
        ),
    ))
}

/// How many replicas.
pub fn replication(factor: u32) -> Result<(), Rejection> {
    if (1..=REPLICATION_MAX).contains(&factor) {
        return Ok(());
    }
    Err(Rejection::invalid(format!(
        "a replication factor of {factor} is not possible: give 1 to {REPLICATION_MAX}"
    )))
}

/// Settings of a topic; `may_remove`: an empty value is one that goes.
pub fn settings(settings: &TopicSettings, may_remove: bool) -> Result<(), Rejection> {
    for (key, value) in &settings.0 {
        let Some((key, kind)) = SETTINGS.iter().find(|(known, _)| known == key) else {
            let known = SETTINGS.map(|(key, _)| key).join(", ");
            let shown: String = key.chars().filter(|c| !c.is_control()).take(40).collect();
            return Err(Rejection::invalid(format!(
                "a topic has no setting {shown:?}; there are {known}"
            )));
        };
        if value.is_empty() && may_remove {
            continue;
        }
        let (is_sound, expected) = match kind {
            Kind::Size => (is_quantity(value, &SIZE_UNITS), "a size, as 64MiB"),
            Kind::Age => (is_quantity(value, &AGE_UNITS), "a time, as 7d or 12h"),
            Kind::Durability => {
                let levels = [Durability::Fsync, Durability::Interval, Durability::Os];
                (levels.iter().any(|level| level.name() == value), "fsync, interval or os")
            }
        };
        if !is_sound {
            return Err(Rejection::invalid(format!(
                "the value of {key} is not valid: give {expected}"
            )));
        }
    }
    Ok(())
}

/// Digits with or without a point, then a unit: as nodes read sizes and times in their own files. What
/// is no whole number of the smallest unit, or too large, no node could read.
fn is_quantity(text: &str, units: &[(&str, u64)]) -> bool {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let Some((number, unit)) = unit_at.map(|at| text.split_at(at)) else { return false };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let each = units.iter().find(|(name, _)| *name == unit).map(|(_, each)| u128::from(*each));
    let (Ok(whole), Ok(parts), Some(each), 1..=9) =
        (whole.parse::<u32>(), fraction.parse::<u32>(), each, fraction.len())
    else {
        return false;
    };
    let denominator = 10_u128.pow(fraction.len() as u32);
    let total = (u128::from(whole) * denominator + u128::from(parts)) * each;
    total.is_multiple_of(denominator) && total / denominator <= u128::from(u64::MAX)
}
