//! The commands that look after a cluster: topics, nodes, what state it is in; over
//! `duramen.v1.Admin`, which any node answers.
//!
//! On a terminal they print tables, elsewhere JSON whose field names are those of
//! `proto/duramen/v1/admin.proto`.

pub mod acl;
pub mod getservers;
pub mod node;
pub mod status;
#[cfg(test)]
mod tests;
pub mod topic;

use super::observe::table::{align, dash};
use super::shape::Shape;
use super::{Class, ClusterAddress, Failure, block_on, stdout};
use crate::wire::client::{Admin, ClientError};
use clap::Args;
use std::io::{IsTerminal, Write};
use std::time::Duration;
use tonic::Code;

/// How long a change may take: it is carried out by a majority of the controller's nodes.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What these commands take beside what they are about.
#[derive(Debug, Args)]
struct About {
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    cluster: ClusterAddress,
}

impl About {
    /// Asks any node one thing, and waits not for ever.
    fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&mut Admin) -> Result<T, ClientError>,
    ) -> Result<T, Failure> {
        block_on(self.asked(question))
    }

    async fn asked<T>(
        &self,
        question: impl AsyncFnOnce(&mut Admin) -> Result<T, ClientError>,
    ) -> Result<T, Failure> {
        let asked = async {
            let mut admin = self.cluster.connect(None).await?.admin().await?;
            let answered = question(&mut admin).await;
            answered.map_err(failed)
        };
        tokio::time::timeout(ANSWER_MAX, asked).await.unwrap_or_else(|_| {
            let error = format!("no answer within {} s", ANSWER_MAX.as_secs());
            Err(Failure::new(Class::Temporary, error)
                .cause("whether it was carried out is unknown")
                .advice("`duramen cluster health` tells what is not well"))
        })
    }
}

/// A failure of these commands: what to try is not what it is for those that move records.
fn failed(error: ClientError) -> Failure {
    let code = error.code();
    let failure = Failure::from(error);
    match code {
        Some(Code::NotFound) => {
            failure.advice("`duramen topic list` and `duramen node list` tell what there is")
        }
        Some(Code::AlreadyExists) => Failure { class: Class::BadInput, ..failure }
            .advice("`duramen topic describe NAME` shows it, `duramen topic alter` changes it"),
        Some(Code::InvalidArgument) => failure.advice("see also --help"),
        Some(Code::FailedPrecondition) => {
            failure.advice("`duramen cluster status` shows what stands in the way")
        }
        Some(Code::Unimplemented) => Failure { class: Class::Unavailable, ..failure }
            .advice("compare `duramen version` here and on the node"),
        Some(Code::Unavailable | Code::DeadlineExceeded | Code::Aborted) => {
            Failure { class: Class::Temporary, ..failure }
                .advice("the same again, a little later; `duramen cluster health` tells why")
        }
        _ => failure,
    }
}

/// Has somebody at a terminal type the name of what is to go. Scripts have named it already.
fn confirm(what: &str, name: &str, is_sure: bool) -> Result<(), Failure> {
    if is_sure || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    eprint!("{what}\ntype \"{name}\" to go on: ");
    let mut typed = String::new();
    let read = std::io::stderr().flush().and_then(|()| std::io::stdin().read_line(&mut typed));
    read.map_err(|error| Failure::io("cannot read the answer", &error))?;
    check_typed(&typed, name)
}

fn check_typed(typed: &str, name: &str) -> Result<(), Failure> {
    if typed.trim() == name {
        return Ok(());
    }
    Err(Failure::new(Class::BadInput, "nothing was done: the name was not typed")
        .advice("the same again, with --yes if you are sure"))
}

/// A node's number as people read it.
fn node_name(node: u32) -> String {
    if node == 0 { dash() } else { format!("n{node}") }
}
