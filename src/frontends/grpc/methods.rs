//! What each method of the gRPC port needs. A method without a line here is nobody's.

use crate::access::Action;
use crate::frontends::access::Needed;

use Action::{Admin, Alter, Consume, Create, Delete, Describe, Observe, Produce};
use Needed::{Known, Node, Nothing, Topic, Whole};

const TABLE: [(&str, Needed); 37] = [
    ("/log.v1.Log/Produce", Topic(Produce)),
    ("/log.v1.Log/Consume", Topic(Consume)),
    ("/log.v1.Log/ConsumeStream", Topic(Consume)),
    ("/log.v1.Log/ProduceStream", Topic(Produce)),
    // As in the book: whoever is known may find the servers.
    ("/log.v1.Log/GetServers", Known),
    ("/duramen.v1.Log/Produce", Topic(Produce)),
    ("/duramen.v1.Log/ProduceOnce", Topic(Produce)),
    ("/duramen.v1.Log/Fetch", Topic(Consume)),
    ("/duramen.v1.Log/FetchOnce", Topic(Consume)),
    ("/duramen.v1.Log/Describe", Topic(Describe)),
    // Its handler leaves out the topics that the caller has nothing to do with.
    ("/duramen.v1.Log/Metadata", Known),
    ("/duramen.v1.Admin/CreateTopic", Topic(Create)),
    ("/duramen.v1.Admin/AlterTopic", Topic(Alter)),
    ("/duramen.v1.Admin/DeleteTopic", Topic(Delete)),
    ("/duramen.v1.Admin/DescribeTopic", Topic(Describe)),
    ("/duramen.v1.Admin/ListTopics", Known),
    ("/duramen.v1.Admin/ClusterStatus", Whole(Describe)),
    ("/duramen.v1.Admin/LeaveNode", Whole(Admin)),
    ("/duramen.v1.Admin/ReplaceNode", Whole(Admin)),
    ("/duramen.v1.Admin/RemoveNode", Whole(Admin)),
    ("/duramen.v1.Admin/TransferLeader", Whole(Admin)),
    ("/duramen.v1.Admin/GetAccess", Whole(Admin)),
    ("/duramen.v1.Admin/ChangeAccess", Whole(Admin)),
    ("/duramen.v1.Admin/TestAccess", Whole(Admin)),
    ("/duramen.v1.Observe/Tree", Whole(Observe)),
    ("/duramen.v1.Observe/Tap", Whole(Observe)),
    ("/duramen.v1.Observe/Explain", Whole(Observe)),
    ("/duramen.v1.Observe/Command", Whole(Admin)),
    ("/duramen.v1.Observe/GetLogLevels", Whole(Observe)),
    ("/duramen.v1.Observe/SetLogLevels", Whole(Admin)),
    ("/duramen.v1.Peer/Exchange", Node),
    ("/duramen.v1.Peer/Join", Node),
    ("/duramen.v1.Peer/Change", Node),
    ("/grpc.health.v1.Health/Check", Nothing),
    ("/grpc.health.v1.Health/Watch", Nothing),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Known),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Known),
];

/// Calls whose clients send any number of messages.
const STREAMS: [&str; 5] = [
    "/log.v1.Log/ProduceStream",
    "/duramen.v1.Log/Produce",
    "/duramen.v1.Peer/Exchange",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Whether clients of the method at this path may send more than one message, and rest in between.
pub fn is_stream(path: &str) -> bool {
    STREAMS.contains(&path)
}

/// What the method at this path needs. What is not known needs to be known at least, to be told that
/// there is no such thing.
pub fn needed(path: &str) -> Needed {
    TABLE.iter().find(|(known, _)| *known == path).map_or(Known, |(_, needed)| *needed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pb::DESCRIPTORS;
    use prost::Message;
    use std::collections::BTreeSet;

    #[test]
    fn streams_are_those_that_the_protos_say() {
        let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        let mut streams = BTreeSet::new();
        for file in &set.file {
            for service in &file.service {
                for method in service.method.iter().filter(|method| method.client_streaming()) {
                    let (package, service) = (file.package(), service.name());
                    streams.insert(format!("/{package}.{service}/{}", method.name()));
                }
            }
        }
        let listed = STREAMS.iter().filter(|path| !path.contains("reflection"));
        assert_eq!(streams, listed.map(|path| (*path).to_owned()).collect());
    }

    #[test]
    fn every_method_of_the_port_has_a_line_and_no_line_is_of_none() {
        let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        let health = tonic_health::pb::FILE_DESCRIPTOR_SET;
        let health = prost_types::FileDescriptorSet::decode(health).unwrap();
        let methods: BTreeSet<String> = set
            .file
            .iter()
            .chain(&health.file)
            .flat_map(|file| {
                file.service.iter().flat_map(move |service| {
                    let (package, service_name) = (file.package(), service.name());
                    let of = move |method: &prost_types::MethodDescriptorProto| {
                        format!("/{package}.{service_name}/{}", method.name())
                    };
                    service.method.iter().map(of).collect::<Vec<_>>()
                })
            })
            .collect();
        assert!(methods.len() > 30);
        let listed: BTreeSet<String> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(listed.len(), TABLE.len(), "no path twice");
        let missing: Vec<_> = methods.difference(&listed).collect();
        assert!(missing.is_empty(), "without a line: {missing:?}");
        let extra: Vec<_> =
            listed.difference(&methods).filter(|path| !path.contains("reflection")).collect();
        assert!(extra.is_empty(), "of no method: {extra:?}");
        for path in methods.iter().filter(|path| !path.contains("Health")) {
            assert_ne!(needed(path), Nothing, "{path}");
        }
    }
}
