//! `duramen ps`: every place of a node's tree at a moment.

use super::table::{align, dash, time, time_ms};
use super::{Failure, NodeAddress, Shape, asked, block_on, connect};
use crate::model::Timestamp;
use crate::model::escape::one_line;
use crate::ops::logger::rfc3339;
use crate::wire::pb::duramen::v1::{Place, TreeResponse};
use clap::Args;
use std::fmt::Write;

/// The last exit that is of no interest.
const ENDED_IN_ORDER: &str = "ended normally";

/// Arguments of `duramen ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Only places that this covers, as in partitions/**/log; a tail of a path is enough.
    #[arg(value_name = "PATH-GLOB")]
    pattern: Option<String>,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    node: NodeAddress,
}

/// Asks the node and prints what it says.
pub fn run(args: &PsArgs) -> Result<(), Failure> {
    let pattern = args.pattern.as_deref().unwrap_or_default();
    let tree = block_on(async {
        let mut observer = connect(&args.node).await?;
        asked(&args.node, observer.tree(pattern)).await
    })?;
    args.shape.print(&tree, as_table)
}

fn as_table(tree: &TreeResponse) -> String {
    let mut text = headline(tree);
    let heads = [
        "PLACE",
        "STATE",
        "LIFE",
        "RESTARTS",
        "UPTIME",
        "MAILBOX",
        "IN-FLIGHT",
        "REFUSED",
        "MSG/S",
        "SLOWEST",
        "HANDLING",
    ];
    let mut rows = vec![heads.map(String::from).to_vec()];
    let mut above: Vec<&str> = Vec::new();
    for place in &tree.places {
        while above.last().is_some_and(|path| !is_below(&place.path, path)) {
            above.pop();
        }
        let name = above.last().map_or(&*place.path, |path| &place.path[path.len() + 1..]);
        rows.push(row(place, format!("{:indent$}{name}", "", indent = 2 * above.len())));
        above.push(&place.path);
    }
    text.push_str(&align(&rows));
    remarks(&mut text, &tree.places);
    text
}

/// Who and when, and what was lost of what is watched.
pub fn headline(tree: &TreeResponse) -> String {
    let TreeResponse { node_id, version, time_ms, taps, tap_dropped, log_dropped, .. } = tree;
    let at = rfc3339(Timestamp(*time_ms));
    let mut text = format!("node {node_id} (duramen {version}) at {at}");
    if *taps > 0 || *tap_dropped > 0 {
        write!(text, ", {taps} taps, {tap_dropped} messages dropped").expect("text");
    }
    if *log_dropped > 0 {
        write!(text, ", {log_dropped} log lines dropped").expect("text");
    }
    text.push_str("\n\n");
    text
}

fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
}

fn row(place: &Place, name: String) -> Vec<String> {
    vec![
        name,
        place.state.clone(),
        place.generation.to_string(),
        place.restarts.to_string(),
        time_ms(place.uptime_ms),
        place.mailbox.to_string(),
        place.in_flight.to_string(),
        place.refused.to_string(),
        place.per_second.to_string(),
        slowest(place),
        handling(place),
    ]
}

/// The slowest message of late.
pub fn slowest(place: &Place) -> String {
    place.slowest.as_ref().map_or_else(dash, |slowest| {
        format!("{} {}", slowest.message, time(slowest.took_us.saturating_mul(1000)))
    })
}

/// The message in hand.
pub fn handling(place: &Place) -> String {
    place.handling.as_ref().map_or_else(dash, |handling| {
        format!("{} for {}", handling.message, time(handling.for_us.saturating_mul(1000)))
    })
}

/// What does not fit a table: why something is not in service, and how last lives ended.
pub fn remarks(text: &mut String, places: &[Place]) {
    // What shares a fault domain shares the reason: it is told once, of the place on top.
    let mut told: Vec<(&str, &str)> = Vec::new();
    for place in places.iter().filter(|place| !place.reason.is_empty()) {
        let of_one_above =
            |(path, reason): &(&str, &str)| is_below(&place.path, path) && place.reason == *reason;
        if told.iter().any(of_one_above) {
            continue;
        }
        told.push((&place.path, &place.reason));
        let since = place.since_ms.map(|ms| format!(" since {}", rfc3339(Timestamp(ms))));
        let (path, state, reason) = (&place.path, &place.state, one_line(&place.reason));
        let since = since.unwrap_or_default();
        write!(text, "\n{path}: {state}{since}: {reason}\n").expect("a string takes any text");
    }
    for place in places {
        let exit = place.last_exit.as_ref().filter(|exit| *exit != ENDED_IN_ORDER);
        if let Some(exit) = exit.filter(|_| place.restarts > 0) {
            write!(text, "\n{}: its last life {}\n", place.path, one_line(exit)).expect("text");
        }
        if let Some(ms) = place.again_in_ms {
            let (path, wait) = (&place.path, time(ms.saturating_mul(1_000_000)));
            write!(text, "\n{path}: starts again in {wait}\n").expect("a string takes any text");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pb::duramen::v1::SlowestMessage;

    fn place(path: &str) -> Place {
        Place { path: path.into(), state: "running".into(), ..Default::default() }
    }

    fn tree() -> TreeResponse {
        let mut partition = place("node/partitions/log/0");
        partition.state = "quarantined".into();
        partition.reason = "fsync failed".into();
        let slowest = SlowestMessage { message: "Write".into(), took_us: 1500 };
        let flush = Place { slowest: Some(slowest), ..place("node/partitions/log/0/log/flush") };
        let log = place("node/partitions/log/0/log");
        let log = Place { reason: partition.reason.clone(), ..log };
        let raft = Place {
            restarts: 1,
            last_exit: Some("panicked at a.rs:1: no\x1b[A\nnode: fine".into()),
            ..place("node/partitions/log/0/raft")
        };
        let places = vec![place("node"), place("node/partitions"), partition, log, flush, raft];
        TreeResponse { places, ..Default::default() }
    }

    #[test]
    fn places_are_indented_below_those_above_them() {
        let text = as_table(&tree());
        for line in ["\nnode  ", "\n  partitions", "\n    log/0", "\n      log", "\n        flush"]
        {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
        assert!(text.contains("\n      raft"), "{text}");
        assert!(text.contains("Write 1.50 ms"), "{text}");
        assert!(text.contains("\nnode/partitions/log/0: quarantined: fsync failed\n"), "{text}");
        assert_eq!(text.matches("fsync failed").count(), 1, "once for its whole domain: {text}");
        assert!(
            text.contains("/raft: its last life panicked at a.rs:1: no\\u{1b}[A\\nnode: fine\n"),
            "{text}"
        );
    }

    #[test]
    fn a_part_of_the_tree_begins_with_a_whole_path() {
        let mut tree = tree();
        tree.places.drain(..3);
        let text = as_table(&tree);
        assert!(text.contains("\nnode/partitions/log/0/log "), "{text}");
        assert!(text.contains("\n  flush "), "{text}");
    }
}
