//! The commands that look inside a running node, and act on its parts: all over `duramen.v1.Observe`.
//!
//! On a terminal they print tables, elsewhere JSON whose field names are those of
//! `proto/duramen/v1/observe.proto`.

pub mod actor;
pub mod explain;
pub mod levels;
pub mod ps;
mod sequence;
mod table;
pub mod tap;
pub mod top;

use super::{Class, Failure, NodeAddress, block_on, stdout};
use crate::wire::client::{Client, ClientError, ClientOptions, Observer};
use clap::Args;
use serde::Serialize;
use std::io::IsTerminal;
use tonic::Code;

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
    fn is_json(self) -> bool {
        self.json || !self.table && !std::io::stdout().is_terminal()
    }

    /// Prints an answer in one of its two forms.
    fn print<T: Serialize>(
        self,
        answer: &T,
        as_text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let text = if self.is_json() { json_line(answer) } else { as_text(answer) };
        stdout::write(text.as_bytes())
    }
}

/// An answer as one line of JSON.
fn json_line<T: Serialize>(answer: &T) -> String {
    let mut line = serde_json::to_string(answer).expect("an answer has text keys and plain values");
    line.push('\n');
    line
}

async fn connect(node: &NodeAddress) -> Result<Observer, Failure> {
    Ok(Client::connect(&node.rpc_addr, ClientOptions::default()).await?.observer())
}

/// A failure of these commands: what to try is not what it is for those that move records.
fn failed(error: ClientError) -> Failure {
    let code = match &error {
        ClientError::Refused(refusal) => Some(refusal.code),
        _ => None,
    };
    let failure = Failure::from(error);
    match code {
        Some(Code::NotFound) => failure.advice("`duramen ps` lists every place there is"),
        Some(Code::InvalidArgument) => failure.advice("`duramen ps` lists paths; see also --help"),
        Some(Code::FailedPrecondition) => {
            failure.advice("`duramen ps` shows the state that every place is in")
        }
        Some(Code::ResourceExhausted) => failure.advice("end another `duramen tap`"),
        Some(Code::Unimplemented) => Failure { class: Class::Unavailable, ..failure }
            .advice("compare `duramen version` here and on the node"),
        Some(Code::Unavailable | Code::DeadlineExceeded) => {
            failure.advice("the same again, a little later")
        }
        _ => failure,
    }
}
