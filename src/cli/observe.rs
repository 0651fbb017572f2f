//! The commands that look inside a running node, and act on its parts: all over `duramen.v1.Observe`.
//!
//! On a terminal they print tables, elsewhere JSON whose field names are those of
//! `proto/duramen/v1/observe.proto`.

pub mod actor;
pub mod explain;
pub mod levels;
mod many;
mod merge;
pub mod ps;
mod sequence;
pub mod table;
pub mod tap;
pub mod top;

use super::shape::{Shape, json_line};
use super::{Class, Failure, NodeAddress, block_on, stdout};
use crate::wire::client::{Client, ClientError, Observer};
use clap::Args;
use std::time::Duration;
use tonic::Code;

/// How long a node may take to answer one question. It asks no actor anything: one that takes
/// longer hangs.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What a command on one thing takes beside it.
#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    node: NodeAddress,
}

async fn connect(node: &NodeAddress) -> Result<Observer, Failure> {
    Ok(Client::connect(&node.rpc_addr, node.secure.options()?).await?.observer())
}

/// Whether rights are what is missing, and not the place that was asked from.
fn is_by_policy(failure: &Failure) -> bool {
    failure.cause.as_ref().is_some_and(|cause| cause.contains(" not permitted to "))
}

/// Waits for one answer, and not for ever: what serves gRPC may be what hangs.
async fn asked<T>(
    node: &NodeAddress,
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, Failure> {
    within(ANSWER_MAX, node, answer).await
}

async fn within<T>(
    time: Duration,
    node: &NodeAddress,
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(time, answer).await {
        Ok(answered) => answered.map_err(failed),
        Err(_) => {
            let host = node.rpc_addr.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host);
            let seconds = time.as_secs();
            Err(Failure::new(Class::Temporary, format!("no answer within {seconds} s"))
                .cause(format!("the part of {} that serves gRPC hangs, or is busy", node.rpc_addr))
                .advice(format!(
                    "curl http://{host}:8080/observe/explain: the HTTP port (8080 unless \
                     http.addr says otherwise) answers from a thread of its own"
                )))
        }
    }
}

/// A failure of these commands: what to try is not what it is for those that move records.
fn failed(error: ClientError) -> Failure {
    let code = error.code();
    let failure = Failure::from(error);
    match code {
        Some(Code::NotFound) => failure.advice("`duramen ps` lists every place there is"),
        Some(Code::InvalidArgument) => failure.advice("`duramen ps` lists paths; see also --help"),
        Some(Code::FailedPrecondition) => {
            failure.advice("`duramen ps` shows the state that every place is in")
        }
        Some(Code::PermissionDenied) if !is_by_policy(&failure) => {
            failure.advice("the same on the machine of the node")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_that_does_not_answer_is_given_up_and_its_other_port_is_named() {
        let node = NodeAddress { rpc_addr: "192.0.2.1:8400".into(), secure: Default::default() };
        let failure =
            within::<()>(Duration::ZERO, &node, std::future::pending()).await.unwrap_err();
        assert_eq!(failure.class, Class::Temporary);
        let advice = failure.advice.unwrap();
        assert!(advice.starts_with("curl http://192.0.2.1:8080/observe/explain"), "{advice}");
    }
}
