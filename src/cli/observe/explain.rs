//! `duramen explain`: why something waits, since when, what will happen next and what to type.

use super::table::time_ms;
use super::{Common, Failure, asked, block_on, connect};
use crate::model::escape::one_line;
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

/// Asks the node and prints what it says.
pub fn run(args: ExplainArgs) -> Result<(), Failure> {
    let (subject, Common { shape, node }) = match args.subject {
        What::Node { common } => (Subject::Node(true), common),
        What::Partition { name, common } => (Subject::Partition(name), common),
        What::Actor { path, common } => (Subject::Actor(path), common),
    };
    let told = block_on(async {
        let mut observer = connect(&node).await?;
        asked(&node, observer.explain(subject)).await
    })?;
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
    let Explanation { subject, sentence, reason, .. } = told;
    lines.push(one_line(&format!("{subject}: {sentence} ({reason}{since})")).into_owned());
    for (label, text) in [("next", &told.next), ("try", &told.advice)] {
        if !text.is_empty() {
            lines.push(format!("{:<6}{}", format!("{label}:"), one_line(text)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_made_up_forges_no_line_and_moves_no_cursor() {
        let sentence = "the last: x\ntry:  rm -r /\x1b[1A".into();
        let text = as_text(&Explanation { sentence, ..Default::default() });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("x\\ntry:  rm -r /\\u{1b}[1A"), "{text}");
    }

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
