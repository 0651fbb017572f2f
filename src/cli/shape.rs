//! Tables on a terminal, JSON elsewhere; two flags choose.

use super::{Failure, stdout};
use clap::Args;
use serde::Serialize;
use std::io::IsTerminal;

/// What the output looks like.
#[derive(Debug, Clone, Copy, Args)]
pub struct Shape {
    /// As JSON, also on a terminal.
    #[arg(long, conflicts_with = "table")]
    json: bool,
    /// As text for people, also where standard output is no terminal.
    #[arg(long)]
    table: bool,
}

impl Shape {
    /// Whether the output is for programs.
    pub fn is_json(self) -> bool {
        self.json || !self.table && !std::io::stdout().is_terminal()
    }

    /// Prints an answer in one of its two forms.
    pub fn print<T: Serialize>(
        self,
        answer: &T,
        as_text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if self.is_json() {
            stdout::write(json_line(answer).as_bytes())
        } else {
            stdout::write_text(&as_text(answer))
        }
    }
}

/// An answer as one line of JSON, that moves no cursor either: JSON lets some controls stand.
pub fn json_line<T: Serialize>(answer: &T) -> String {
    let written = serde_json::to_string(answer).expect("an answer has text keys and plain values");
    let mut line = String::with_capacity(written.len() + 1);
    for c in written.chars() {
        if c.is_control() {
            line.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_moves_no_cursor_and_is_read_back_the_same() {
        let text = "\x1b[2J\u{9b}2J\x7f\né";
        let line = json_line(&text);
        assert_eq!(line.chars().filter(|c| c.is_control()).count(), 1, "the newline: {line:?}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }
}
