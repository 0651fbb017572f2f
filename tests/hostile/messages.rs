//! The corpus: a valid message to each method of the port, and record batches, whole and made to lie.
//! None of them does what a client may do and others would suffer from: topics and nodes that acts are
//! about do not exist.

use crate::mutate::{mutated, pick};
use crate::node::HOSTILE;
use bytes::Bytes;
use duramen::log::batch::{BatchBuilder, HEADER_BYTES};
use duramen::model::{Record, Timestamp};
use duramen::testing::Chance;
use duramen::wire::pb::duramen::v1 as pb;
use duramen::wire::pb::log::v1 as book;
use prost::Message;
use std::io::Write;
use std::sync::OnceLock;

/// A method's path, and a message to it.
pub type Said = (&'static str, Vec<u8>);

const NOBODY: &str = "nobody";
/// A topic of more partitions takes memory that anybody may take where nobody is asked.
const PARTITIONS_MUCH: u32 = 17;

pub fn corpus() -> &'static [Said] {
    static MADE: OnceLock<Vec<Said>> = OnceLock::new();
    MADE.get_or_init(|| [log_of_the_book(), log(), admin(), observe(), others()].concat())
}

fn log_of_the_book() -> Vec<Said> {
    let record = book::Record { value: b"hostile".as_slice().into(), ..Default::default() };
    let produce = book::ProduceRequest { record: Some(record) }.encode_to_vec();
    let consume = book::ConsumeRequest { offset: 0 }.encode_to_vec();
    vec![
        ("/log.v1.Log/Produce", produce.clone()),
        ("/log.v1.Log/ProduceStream", produce),
        ("/log.v1.Log/Consume", consume.clone()),
        ("/log.v1.Log/ConsumeStream", consume),
        ("/log.v1.Log/GetServers", Vec::new()),
    ]
}

pub fn produce(batch: Vec<u8>, records: Vec<pb::Record>) -> Vec<u8> {
    let (topic, batch) = (HOSTILE.into(), Bytes::from(batch));
    pb::ProduceRequest { topic, records, batch, correlation_id: 1, ..Default::default() }
        .encode_to_vec()
}

pub fn fetch(follow: bool) -> Vec<u8> {
    let position = Some(pb::fetch_request::Position::Start(true));
    let topic = HOSTILE.into();
    pb::FetchRequest { topic, position, follow, format: 1, ..Default::default() }.encode_to_vec()
}

fn log() -> Vec<Said> {
    let header = pb::Header { key: "a".into(), value: Some(Bytes::from_static(b"b")) };
    let record = pb::Record {
        key: Some(Bytes::from_static(b"key")),
        value: Some(Bytes::from_static(b"value")),
        headers: vec![header],
        timestamp_ms: 1,
        offset: 0,
    };
    let by_batch = produce(batch(), Vec::new());
    let topic = HOSTILE.to_owned();
    let describe = pb::DescribeRequest { topic: topic.clone() }.encode_to_vec();
    let metadata = pb::MetadataRequest { topics: vec![topic] }.encode_to_vec();
    vec![
        ("/duramen.v1.Log/Produce", by_batch.clone()),
        ("/duramen.v1.Log/Produce", produce(Vec::new(), vec![record.clone(), record.clone()])),
        ("/duramen.v1.Log/ProduceOnce", by_batch),
        ("/duramen.v1.Log/ProduceOnce", produce(Vec::new(), vec![record])),
        ("/duramen.v1.Log/Fetch", fetch(false)),
        ("/duramen.v1.Log/Fetch", fetch(true)),
        ("/duramen.v1.Log/FetchOnce", fetch(false)),
        ("/duramen.v1.Log/Describe", describe),
        ("/duramen.v1.Log/Metadata", metadata),
    ]
}

/// Whether a mutation is by chance what anybody may do where nobody is asked, and others would suffer from.
pub fn is_permitted_harm(path: &str, said: &[u8]) -> bool {
    match path {
        "/duramen.v1.Admin/CreateTopic" => pb::CreateTopicRequest::decode(said)
            .is_ok_and(|topic| (PARTITIONS_MUCH..=10_000).contains(&topic.partitions)),
        "/duramen.v1.Admin/DeleteTopic" => {
            pb::DeleteTopicRequest::decode(said).is_ok_and(|topic| topic.name == HOSTILE)
        }
        _ => false,
    }
}

fn admin() -> Vec<Said> {
    let name = || NOBODY.to_owned();
    let values = [("retention_bytes".to_owned(), "no size".to_owned())].into();
    let settings = Some(pb::TopicSettings { values });
    let (partitions, replication_factor) = (u32::MAX, 0);
    let create = pb::CreateTopicRequest {
        name: name(),
        partitions,
        replication_factor,
        settings: settings.clone(),
    };
    let alter = pb::AlterTopicRequest { name: name(), settings, ..Default::default() };
    let transfer = pb::TransferLeaderRequest { topic: HOSTILE.into(), partition: 0, to: name() };
    let add = pb::change_access_request::Change::Add("p, nobody, nothing, produce, allow".into());
    let test = pb::TestAccessRequest { subject: name(), action: "produce".into(), object: name() };
    let replace = pb::ReplaceNodeRequest { dead: name(), replacement: name() };
    vec![
        ("/duramen.v1.Admin/CreateTopic", create.encode_to_vec()),
        ("/duramen.v1.Admin/AlterTopic", alter.encode_to_vec()),
        ("/duramen.v1.Admin/DeleteTopic", pb::DeleteTopicRequest { name: name() }.encode_to_vec()),
        (
            "/duramen.v1.Admin/DescribeTopic",
            pb::DescribeTopicRequest { name: name() }.encode_to_vec(),
        ),
        ("/duramen.v1.Admin/ListTopics", Vec::new()),
        ("/duramen.v1.Admin/ClusterStatus", Vec::new()),
        ("/duramen.v1.Admin/LeaveNode", pb::LeaveNodeRequest { node: name() }.encode_to_vec()),
        ("/duramen.v1.Admin/ReplaceNode", replace.encode_to_vec()),
        (
            "/duramen.v1.Admin/RemoveNode",
            pb::RemoveNodeRequest { node: name(), force: true }.encode_to_vec(),
        ),
        ("/duramen.v1.Admin/TransferLeader", transfer.encode_to_vec()),
        ("/duramen.v1.Admin/GetAccess", Vec::new()),
        (
            "/duramen.v1.Admin/ChangeAccess",
            pb::ChangeAccessRequest { change: Some(add) }.encode_to_vec(),
        ),
        ("/duramen.v1.Admin/TestAccess", test.encode_to_vec()),
    ]
}

fn observe() -> Vec<Said> {
    let pattern = || "node/**".to_owned();
    let tap = pb::TapRequest { pattern: pattern(), sample: 1, queue_len: 16, ..Default::default() };
    let partition = pb::explain_request::Subject::Partition(format!("{HOSTILE}/0"));
    let explain = pb::ExplainRequest { subject: Some(partition) };
    let (path, reason) = ("nowhere/at/all".into(), NOBODY.into());
    let command = pb::CommandRequest { action: pb::Action::Restart.into(), path, reason };
    let levels = pb::SetLogLevelsRequest { spec: "nonsense=loud".into() };
    vec![
        ("/duramen.v1.Observe/Tree", pb::TreeRequest { pattern: pattern() }.encode_to_vec()),
        ("/duramen.v1.Observe/Tap", tap.encode_to_vec()),
        ("/duramen.v1.Observe/Explain", explain.encode_to_vec()),
        ("/duramen.v1.Observe/Command", command.encode_to_vec()),
        ("/duramen.v1.Observe/GetLogLevels", Vec::new()),
        ("/duramen.v1.Observe/SetLogLevels", levels.encode_to_vec()),
    ]
}

/// Of libraries: health, and reflection ("list the services", "the file with this symbol").
fn others() -> Vec<Said> {
    let symbol = b"duramen.v1.Log";
    let find = [&[0x22, symbol.len() as u8], symbol.as_slice()].concat();
    vec![
        ("/grpc.health.v1.Health/Check", Vec::new()),
        ("/grpc.health.v1.Health/Watch", Vec::new()),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", b"\x3a\x01*".to_vec()),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", find),
    ]
}

/// A valid record batch.
pub fn batch() -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    for number in 0..3 {
        let record = Record::of_value(format!("record {number}").into_bytes(), Timestamp(1));
        builder.push(&record).expect("small records fit");
    }
    builder.finish().expect("it holds records").into_bytes().to_vec()
}

/// One with changes; half of them with a checksum that is right all the same.
pub fn mutated_batch(chance: &mut Chance) -> Vec<u8> {
    let batch = match chance.below(3) {
        0 => pick(chance, bombs()).clone(),
        _ => batch(),
    };
    let mut batch = match chance.below(3) {
        // The header is where the lies are; what follows stays.
        0 => {
            let header = mutated(&batch[..HEADER_BYTES], chance);
            [header.as_slice(), &batch[HEADER_BYTES..]].concat()
        }
        _ => mutated(&batch, chance),
    };
    if chance.coin() {
        with_length(&mut batch);
    }
    if chance.coin() {
        with_checksum(&mut batch);
    }
    batch
}

fn with_length(batch: &mut [u8]) {
    let length = (batch.len() as u32).wrapping_sub(12);
    if let Some(field) = batch.get_mut(8..12) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

fn with_checksum(batch: &mut [u8]) {
    let checksum = batch.get(21..).map(crc32c::crc32c);
    if let (Some(checksum), Some(field)) = (checksum, batch.get_mut(17..21)) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Batches of some KiB that would be 80 MiB, more than may come of one: of each way to compress.
pub fn bombs() -> &'static [Vec<u8>] {
    static MADE: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    MADE.get_or_init(|| {
        let zeros = vec![0; 1 << 20];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        let mut zstd = zstd::Encoder::new(Vec::new(), 3).expect("zstd can compress");
        for _ in 0..80 {
            gzip.write_all(&zeros).expect("memory takes it");
            lz4.write_all(&zeros).expect("memory takes it");
            zstd.write_all(&zeros).expect("memory takes it");
        }
        let gzip = gzip.finish().expect("memory takes it");
        let lz4 = lz4.finish().expect("memory takes it");
        let zstd = zstd.finish().expect("memory takes it");
        let mut snappy = snap::raw::Encoder::new();
        let snappy = snappy.compress_vec(&vec![0; 16 << 20]).expect("memory takes it");
        let of = |(kind, packed): (u8, Vec<u8>)| {
            let mut bomb = [&batch()[..HEADER_BYTES], &packed].concat();
            bomb[22] = kind;
            with_length(&mut bomb);
            with_checksum(&mut bomb);
            bomb
        };
        // What the log would not take for its size only is no bomb.
        let all = [(1, gzip), (2, snappy), (3, lz4), (4, zstd)].into_iter().map(of);
        all.filter(|bomb| bomb.len() < 1 << 20).collect()
    })
}
