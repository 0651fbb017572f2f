//! `duramen explain`: why something waits, since when, what will happen next and what to type.

use super::table::time_ms;
use super::{Failure, NodeAddress, Shape, block_on, connect, failed};
use crate::wire::pb::duramen::v1::Explanation;
use crate::wire::pb::duramen::v1::explain_request::Subject;
use clap::{Args, Subcommand};

/// Arguments of `duramen explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    #[command(subcommand)]
    subject: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The node as a whole: the worst of its parts first.
    Node {
        #[command(flatten)]
        common: Common,
    },
    /// A partition.
    Partition {
        /// Its name, topic and number.
        #[arg(default_value = "log/0")]
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// A supervisor, an actor or a worker.
    Actor {
        /// Its path, or an unambiguous tail of it; `duramen ps` lists them.
        path: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    node: NodeAddress,
}

/// Asks the node and prints what it says.
pub fn run(args: ExplainArgs) -> Result<(), Failure> {
    let (subject, Common { shape, node }) = match args.subject {
        What::Node { common } => (Subject::Node(true), common),
        What::Partition { name, common } => (Subject::Partition(name), common),
        What::Actor { path, common } => (Subject::Actor(path), common),
    };
    let told = block_on(async { connect(&node).await?.explain(subject).await.map_err(failed) })?;
    shape.print(&told, as_text)
}

fn as_text(told: &Explanation) -> String {
    let mut lines = Vec::new();
    add(told, &mut lines);
    for also in &told.also {
        lines.push(String::new());
        add(also, &mut lines);
    }
    lines.push(String::new());
    lines.join("\n")
}

fn add(told: &Explanation, lines: &mut Vec<String>) {
    let since = told.since_ms.map(|ms| format!(", for {}", time_ms(Some(ms)))).unwrap_or_default();
    lines.push(format!("{}: {} ({}{since})", told.subject, told.sentence, told.reason));
    for (label, text) in [("next", &told.next), ("try", &told.advice)] {
        if !text.is_empty() {
            lines.push(format!("{:<6}{text}", format!("{label}:")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_is_a_sentence_then_what_comes_next_and_what_to_type() {
        let also = Explanation {
            subject: "node/b".into(),
            reason: "running".into(),
            sentence: "it runs".into(),
            ..Default::default()
        };
        let told = Explanation {
            subject: "node/a".into(),
            reason: "quarantined".into(),
            sentence: "it left service: fsync failed".into(),
            since_ms: Some(1500),
            next: "nothing".into(),
            advice: "duramen actor release node/a".into(),
            also: vec![also],
        };
        assert_eq!(
            as_text(&told),
            "node/a: it left service: fsync failed (quarantined, for 1.5 s)\nnext: nothing\n\
             try:  duramen actor release node/a\n\nnode/b: it runs (running)\n"
        );
    }
}
