//! What clients ask and how it ended, as label values: few, and known beforehand.

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC over HTTP/2.
    Grpc,
    /// HTTP/1.1 with JSON.
    Http,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Grpc, Self::Http];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

macro_rules! methods {
    ($($id:ident $protocol:ident $name:literal $span:literal;)+) => {
        /// What a client can ask.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each is the method of its name in the table")]
        pub enum Method {
            $($id),+
        }

        impl Method {
            /// All of them.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$id),+];

            /// What it is asked through.
            pub const fn protocol(self) -> Protocol {
                match self {
                    $(Self::$id => Protocol::$protocol),+
                }
            }

            /// The label's value.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$id => $name),+
                }
            }

            /// The name of its spans: service and method, or method and route.
            pub const fn span_name(self) -> &'static str {
                match self {
                    $(Self::$id => $span),+
                }
            }
        }
    };
}

methods! {
    Produce Grpc "produce" "duramen.v1.Log/Produce";
    ProduceOnce Grpc "produce_once" "duramen.v1.Log/ProduceOnce";
    Fetch Grpc "fetch" "duramen.v1.Log/Fetch";
    FetchOnce Grpc "fetch_once" "duramen.v1.Log/FetchOnce";
    Describe Grpc "describe" "duramen.v1.Log/Describe";
    Metadata Grpc "metadata" "duramen.v1.Log/Metadata";
    CreateTopic Grpc "create_topic" "duramen.v1.Admin/CreateTopic";
    AlterTopic Grpc "alter_topic" "duramen.v1.Admin/AlterTopic";
    DeleteTopic Grpc "delete_topic" "duramen.v1.Admin/DeleteTopic";
    DescribeTopic Grpc "describe_topic" "duramen.v1.Admin/DescribeTopic";
    ListTopics Grpc "list_topics" "duramen.v1.Admin/ListTopics";
    ClusterStatus Grpc "cluster_status" "duramen.v1.Admin/ClusterStatus";
    LeaveNode Grpc "leave_node" "duramen.v1.Admin/LeaveNode";
    ReplaceNode Grpc "replace_node" "duramen.v1.Admin/ReplaceNode";
    RemoveNode Grpc "remove_node" "duramen.v1.Admin/RemoveNode";
    TransferLeader Grpc "transfer_leader" "duramen.v1.Admin/TransferLeader";
    GetAccess Grpc "get_access" "duramen.v1.Admin/GetAccess";
    ChangeAccess Grpc "change_access" "duramen.v1.Admin/ChangeAccess";
    TestAccess Grpc "test_access" "duramen.v1.Admin/TestAccess";
    BookProduce Grpc "book_produce" "log.v1.Log/Produce";
    BookProduceStream Grpc "book_produce_stream" "log.v1.Log/ProduceStream";
    BookConsume Grpc "book_consume" "log.v1.Log/Consume";
    BookConsumeStream Grpc "book_consume_stream" "log.v1.Log/ConsumeStream";
    BookGetServers Grpc "book_get_servers" "log.v1.Log/GetServers";
    OtherCall Grpc "other" "other";
    Append Http "append" "POST /v1/topics/{topic}/records";
    Read Http "read" "GET /v1/topics/{topic}/records";
    Book Http "book" "/";
    Probe Http "probe" "probe";
    OtherPath Http "other" "other";
}

impl Method {
    /// The method that a gRPC path, `/service/method`, names.
    pub fn of_call(path: &str) -> Self {
        let named = |method: &Self| {
            method.protocol() == Protocol::Grpc
                && path.strip_prefix('/') == Some(method.span_name())
        };
        Self::ALL.into_iter().find(named).unwrap_or(Self::OtherCall)
    }

    /// Whether each request of its stream is counted, and not the call.
    pub const fn counts_requests(self) -> bool {
        matches!(self, Self::Produce | Self::BookProduceStream)
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As was asked.
    Ok,
    /// The request makes no sense, or asks for what is not there.
    Invalid,
    /// It was not taken now; nothing was done.
    Refused,
    /// Something broke, or it is not known whether it was done.
    Failed,
    /// It was not answered: the client went away, or its stream ended before. What it asked for may
    /// have been done.
    Cancelled,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Ok, Self::Invalid, Self::Refused, Self::Failed, Self::Cancelled];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_known_by_its_path() {
        assert_eq!(Method::of_call("/duramen.v1.Log/Produce"), Method::Produce);
        assert_eq!(Method::of_call("/log.v1.Log/Produce"), Method::BookProduce);
        for path in ["", "/", "/duramen.v1.Log/", "/duramen.v1.Log/Producer", "POST /v1", "/other"]
        {
            assert_eq!(Method::of_call(path), Method::OtherCall, "{path}");
        }
        // Whatever clients can call has a name here.
        for (service, text) in [
            ("duramen.v1.Log", include_str!("../../../proto/duramen/v1/log.proto")),
            ("duramen.v1.Admin", include_str!("../../../proto/duramen/v1/admin.proto")),
            ("log.v1.Log", include_str!("../../../proto/log/v1/log.proto")),
        ] {
            let calls = text.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
            let calls: Vec<&str> = calls.filter_map(|line| line.split('(').next()).collect();
            assert!(calls.len() > 4, "{service}: {calls:?}");
            for call in calls {
                let path = format!("/{service}/{call}");
                assert_ne!(Method::of_call(&path), Method::OtherCall, "{path}");
            }
        }
        for (number, method) in Method::ALL.into_iter().enumerate() {
            assert_eq!(method as usize, number);
        }
    }
}
