//! Looking after a cluster, as an operator asks for it.

use super::bearer::Bearing;
use super::{Client, ClientError};
use crate::wire::pb::duramen::v1 as pb;
use crate::wire::pb::log::v1 as book;
use book::log_client::LogClient;
use pb::admin_client::AdminClient;
use std::time::Duration;
use tonic::{Response, Status};

/// How often it is looked whether a new topic is led.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Asks `duramen.v1.Admin`. Shares the connection of the client that it was made from; any node
/// takes these calls.
#[derive(Debug, Clone)]
pub struct Admin {
    address: String,
    grpc: AdminClient<Bearing>,
}

impl Client {
    /// The same connection, for looking after the cluster.
    pub fn admin(&self) -> Admin {
        let grpc = AdminClient::new(self.channel.clone())
            .max_decoding_message_size(self.message_bytes_max);
        Admin { address: self.address.clone(), grpc }
    }

    /// Asks for the servers of the cluster as the book's clients do.
    ///
    /// # Errors
    /// The node is gone.
    pub async fn servers(&self) -> Result<Vec<book::Server>, ClientError> {
        let mut grpc = LogClient::new(self.channel.clone());
        let answered = grpc.get_servers(book::GetServersRequest {}).await;
        let response = answered.map_err(|status| ClientError::of(status, &self.address))?;
        Ok(response.into_inner().servers)
    }
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident: $request:ident -> $response:ident;)*) => {
        impl Admin {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// It was refused, or the node is gone.
                pub async fn $name(
                    &mut self,
                    request: pb::$request,
                ) -> Result<pb::$response, ClientError> {
                    let answered = self.grpc.$name(request).await;
                    self.read(answered)
                }
            )*
        }
    };
}

calls! {
    /// Makes a topic.
    create_topic: CreateTopicRequest -> TopicDescription;
    /// Changes a topic.
    alter_topic: AlterTopicRequest -> TopicDescription;
    /// Deletes a topic with its records.
    delete_topic: DeleteTopicRequest -> DeleteTopicResponse;
    /// Where a topic's replicas are.
    describe_topic: DescribeTopicRequest -> TopicDescription;
    /// All topics.
    list_topics: ListTopicsRequest -> ListTopicsResponse;
    /// What the answering node knows of the whole cluster.
    cluster_status: ClusterStatusRequest -> ClusterStatus;
    /// Begins to take a node out of the cluster.
    leave_node: LeaveNodeRequest -> NodeActionResponse;
    /// Gives the replicas of a dead node to another.
    replace_node: ReplaceNodeRequest -> NodeActionResponse;
    /// Takes a dead node out at once.
    remove_node: RemoveNodeRequest -> NodeActionResponse;
    /// Hands a partition's leadership over.
    transfer_leader: TransferLeaderRequest -> TransferLeaderResponse;
    /// Who may do what.
    get_access: GetAccessRequest -> AccessState;
    /// Changes who may do what.
    change_access: ChangeAccessRequest -> AccessState;
    /// What the answering node would decide.
    test_access: TestAccessRequest -> TestAccessResponse;
}

impl Admin {
    /// Makes a topic, and waits until each of its partitions has a leader: for so long at most. What is
    /// answered shows who leads by then.
    ///
    /// # Errors
    /// As [`Admin::create_topic`]: the topic was not made, or nobody knows.
    pub async fn create_led_topic(
        &mut self,
        request: pb::CreateTopicRequest,
        leaders_within: Duration,
    ) -> Result<pb::TopicDescription, ClientError> {
        let name = request.name.clone();
        let mut made = self.create_topic(request).await?;
        let led = async {
            while made.partitions.iter().any(|partition| partition.leader == 0) {
                tokio::time::sleep(LOOK_INTERVAL).await;
                let asked = pb::DescribeTopicRequest { name: name.clone() };
                // It is made: that nobody tells more of it now is no failure of that.
                let Ok(topic) = self.describe_topic(asked).await else { return };
                made = topic;
            }
        };
        let _ = tokio::time::timeout(leaders_within, led).await;
        Ok(made)
    }

    /// Where the answering node is.
    pub fn address(&self) -> &str {
        &self.address
    }

    fn read<T>(&self, answered: Result<Response<T>, Status>) -> Result<T, ClientError> {
        answered.map(Response::into_inner).map_err(|status| ClientError::of(status, &self.address))
    }
}
