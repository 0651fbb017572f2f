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

use super::shape::{Shape, json_line};
use super::{Class, Failure, NodeAddress, block_on, stdout};
use crate::wire::client::{Client, ClientError, ClientOptions, Observer};
use tonic::Code;

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
