//! Access control under faults. Two who may not try all the time, at every node: one never could, one
//! could until a moment ago. Whoever may goes on meanwhile: the load, and the command line.

use crate::cluster::Cluster;
use crate::raw::{self, OPEN_TO_THE_KNOWN};
use crate::rights::{CANARY, MALLORY, Rights, token_of_root};
use crate::stage::{Stage, TOPIC};
use bytes::Bytes;
use duramen::log::batch::BatchBuilder;
use duramen::model::{Record, Timestamp};
use duramen::testing::{Chance, block_on};
use duramen::wire::client::{
    Bearer, Client, ClientError, ClientOptions, Consistency, FetchOptions, Position, Target,
};
use duramen::wire::pb::duramen::v1 as pb;
use prost::Message;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

/// Within this time a right that was taken is gone at each node that is up.
const SEEN_WITHIN: Duration = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 });
/// The longest that one call of a canary is waited for.
const CALL_MAX: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);
/// What is known of the one whose right comes and goes.
#[derive(Default)]
struct Mallory {
    revoked: Option<Instant>,
    /// By node: when it last served, and when it last said no.
    served: Vec<Option<Instant>>,
    denied: Vec<Option<Instant>>,
}

struct Shared {
    stop: AtomicBool,
    /// Rounds of the canary at each node, through all calls.
    rounds: Vec<AtomicU64>,
    tried: AtomicU64,
    denied: AtomicU64,
    wrong: Mutex<Vec<String>>,
    mallory: Mutex<Mallory>,
}

impl Shared {
    fn mallory(&self) -> MutexGuard<'_, Mallory> {
        self.mallory.lock().expect("nobody panics with it")
    }

    fn wrong(&self, text: String) {
        self.wrong.lock().expect("nobody panics with it").push(text);
    }
}

pub struct Canary {
    rights: Rights,
    nodes: Vec<Aim>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    latencies: Vec<Duration>,
}

#[derive(Clone)]
struct Aim {
    number: usize,
    rpc: String,
    http: String,
}

impl Canary {
    pub fn start(rights: Rights, cluster: &Cluster) -> Self {
        let nodes = cluster.nodes.iter().enumerate();
        let nodes = nodes.map(|(number, node)| Aim {
            number,
            rpc: node.rpc.clone(),
            http: node.http.clone(),
        });
        let nodes: Vec<Aim> = nodes.collect();
        let count = nodes.len();
        let none = vec![None; count];
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            rounds: (0..count).map(|_| AtomicU64::new(0)).collect(),
            tried: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            wrong: Mutex::default(),
            mallory: Mutex::new(Mallory { revoked: None, served: none.clone(), denied: none }),
        });
        let tokens = [CANARY, MALLORY].map(|subject| rights.token(subject));
        let (for_thread, aims) = (Arc::clone(&shared), nodes.clone());
        let thread = std::thread::spawn(move || {
            let [canary, mallory] = tokens;
            block_on(async {
                let mut all = Vec::new();
                for aim in aims {
                    let (shared, token) = (Arc::clone(&for_thread), canary.clone());
                    all.push(tokio::spawn(try_all(shared, aim.clone(), token)));
                    let (shared, token) = (Arc::clone(&for_thread), mallory.clone());
                    all.push(tokio::spawn(follow(shared, aim, token)));
                }
                for one in all {
                    one.await.expect("a canary ends by itself");
                }
            });
        });
        Self { rights, nodes, shared, thread, latencies: Vec::new() }
    }

    /// Ends it. The control comes last: the same calls succeed once they are permitted.
    pub fn finish(self, stage: &mut Stage) -> Vec<String> {
        self.shared.stop.store(true, Ordering::Release);
        self.thread.join().expect("it ends by itself");
        let mut wrong = std::mem::take(&mut *self.shared.wrong.lock().expect("it has ended"));
        let count = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let (tried, denied) = (count(&self.shared.tried), count(&self.shared.denied));
        let mut latencies: Vec<u64> =
            self.latencies.iter().map(|latency| latency.as_millis() as u64).collect();
        let [p50, longest] = [0.5, 1.0].map(|share| crate::percentile(&mut latencies, share));
        println!(
            "  who may not: {tried} calls, {denied} denied in so many words, {} succeeded; a right that \
             is taken is gone at all nodes after: p50 {p50} ms, longest {longest} ms",
            wrong.len()
        );
        if denied == 0 || latencies.is_empty() {
            wrong.push("no verdict: nobody was denied, or no right was taken".into());
        }
        stage.admin(&["acl", "add", CANARY, "*", "produce,consume,describe,observe"]);
        let (token, aims) = (self.rights.token(CANARY), self.nodes.clone());
        let mut missing: Vec<&str> = vec![
            "/duramen.v1.Log/FetchOnce",
            "/duramen.v1.Log/Describe",
            "/duramen.v1.Admin/ClusterStatus",
            "/duramen.v1.Observe/Tree",
            "GET /metrics",
        ];
        stage.until("the same calls succeed when they are permitted", |_| {
            let got = block_on(succeeded(&aims[0], &token, |path| missing.contains(&path)));
            missing.retain(|call| !got.iter().any(|got| got == call));
            missing.is_empty()
        });
        wrong
    }
}

/// A message that asks for something which could be had.
fn message(path: &str) -> Bytes {
    let topic = String::from(TOPIC);
    let encoded = match path {
        "/duramen.v1.Log/Produce" | "/duramen.v1.Log/ProduceOnce" => {
            let mut builder = BatchBuilder::new();
            let record = Record::of_value(b"canary".to_vec(), Timestamp(1));
            builder.push(&record).expect("a small record fits");
            let batch = builder.finish().expect("it holds a record").into_bytes();
            pb::ProduceRequest { topic, batch, ..Default::default() }.encode_to_vec()
        }
        "/duramen.v1.Admin/CreateTopic" => {
            let name = CANARY.into();
            pb::CreateTopicRequest { name, ..Default::default() }.encode_to_vec()
        }
        "/duramen.v1.Admin/ChangeAccess" => {
            let grab = pb::change_access_request::Change::Add(format!("p, {CANARY}, *, *"));
            pb::ChangeAccessRequest { change: Some(grab) }.encode_to_vec()
        }
        "/log.v1.Log/Produce" | "/log.v1.Log/ProduceStream" => {
            use duramen::wire::pb::log::v1 as book;
            let record = Some(book::Record { value: "canary".into(), ..Default::default() });
            book::ProduceRequest { record }.encode_to_vec()
        }
        path if path.starts_with("/duramen.v1.Log/") || path.ends_with("Topic") => {
            // The topic is the first field of them all.
            pb::FetchRequest { topic, ..Default::default() }.encode_to_vec()
        }
        _ => Vec::new(),
    };
    encoded.into()
}

/// Whether a call over gRPC got anything: an answer, or nothing but patience. `None`: nobody says.
async fn call(channel: &Channel, token: &str, path: &str) -> Option<Result<(), Code>> {
    let metadata = [("authorization", format!("Bearer {token}"))];
    let opened = raw::open(channel.clone(), path, &metadata, message(path));
    let mut answers = match tokio::time::timeout(CALL_MAX, opened).await.ok()? {
        Ok(answers) => answers,
        Err(status) => return Some(Err(status.code())),
    };
    match tokio::time::timeout(CALL_MAX, answers.message()).await {
        // A stream of requests goes on when one of them is refused.
        Ok(Ok(Some(answer))) if path == "/duramen.v1.Log/Produce" => {
            let error = pb::ProduceResponse::decode(answer).expect("an answer").error;
            Some(error.map_or(Ok(()), |error| Err(Code::from(error.code))))
        }
        Ok(Ok(_)) | Err(_) => Some(Ok(())),
        Ok(Err(status)) => Some(Err(status.code())),
    }
}

async fn channel(aim: &Aim) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", aim.rpc)).expect("an address");
    endpoint.connect_timeout(CALL_MAX).connect().await.ok()
}

const HTTP_CALLS: [(&str, &str); 6] = [
    ("POST /", r#"{"record":{"value":"Y2FuYXJ5"}}"#),
    ("GET /", r#"{"offset":0}"#),
    ("POST /v1/topics/storm/records", r#"{"records":[{"value":"Y2FuYXJ5"}]}"#),
    ("GET /v1/topics/storm/records", ""),
    ("GET /metrics", ""),
    ("GET /observe/tree", ""),
];

/// The status of a request over HTTP; `None`: there is none.
fn http(aim: &Aim, token: &str, request: &str, body: &str) -> Option<u16> {
    let address = aim.http.parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&address, CALL_MAX).ok()?;
    stream.set_read_timeout(Some(CALL_MAX)).ok()?;
    let text = format!(
        "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).ok()?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).ok()?;
    std::str::from_utf8(&head[9..]).ok()?.parse().ok()
}

/// The calls that succeeded, of those that are asked for.
async fn succeeded(aim: &Aim, token: &str, asked: impl Fn(&str) -> bool) -> Vec<String> {
    let mut got = Vec::new();
    let Some(channel) = channel(aim).await else { return got };
    for path in raw::methods().into_iter().filter(|path| asked(path)) {
        if matches!(call(&channel, token, &path).await, Some(Ok(()))) {
            got.push(path);
        }
    }
    for (request, body) in HTTP_CALLS.into_iter().filter(|(request, _)| asked(request)) {
        if http(aim, token, request, body) == Some(200) {
            got.push(request.into());
        }
    }
    got
}

/// Every call that there is, over and over.
async fn try_all(shared: Arc<Shared>, aim: Aim, token: String) {
    let paths = raw::methods();
    let paths: Vec<_> =
        paths.into_iter().filter(|path| !OPEN_TO_THE_KNOWN.contains(&&**path)).collect();
    let note = |what: &str, outcome: Option<bool>| {
        shared.tried.fetch_add(1, Ordering::AcqRel);
        match outcome {
            Some(true) => shared.wrong(format!("{CANARY} succeeded: {what} at {}", aim.rpc)),
            Some(false) => drop(shared.denied.fetch_add(1, Ordering::AcqRel)),
            None => {}
        }
    };
    while !shared.stop.load(Ordering::Acquire) {
        tokio::time::sleep(PAUSE).await;
        let Some(channel) = channel(&aim).await else { continue };
        let mut is_up = true;
        for path in &paths {
            let outcome = call(&channel, &token, path).await;
            is_up &= !matches!(outcome, None | Some(Err(Code::Unavailable)));
            note(
                path,
                match outcome {
                    Some(Ok(())) => Some(true),
                    Some(Err(Code::PermissionDenied | Code::Unauthenticated)) => Some(false),
                    _ => None,
                },
            );
            if !is_up {
                break;
            }
            // All the time, and not all the machine's.
            tokio::time::sleep(PAUSE / 4).await;
        }
        for (request, body) in HTTP_CALLS {
            let status = http(&aim, &token, request, body);
            note(request, status.filter(|s| [200, 401, 403].contains(s)).map(|s| s == 200));
        }
        if is_up {
            shared.rounds[aim.number].fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// Reads on as long as it is let; the load sees to it that there is something to read.
async fn follow(shared: Arc<Shared>, aim: Aim, token: String) {
    let token = Bearer::new(&token).expect("a token");
    let target = Target { topic: TOPIC.into(), partition: 0 };
    let options = FetchOptions {
        position: Position::BeforeEnd(1),
        chunk_bytes_max: 0,
        records_max: None,
        follow: true,
        consistency: Consistency::Committed,
    };
    let is_over = || shared.stop.load(Ordering::Acquire);
    while !is_over() {
        let ended = async {
            let client = ClientOptions { token: token.clone(), ..ClientOptions::default() };
            let mut client = Client::connect(&aim.rpc, client).await?;
            let mut chunks = client.fetch(&target, options).await?;
            loop {
                // One that stands still is looked at again, so that it can end.
                match tokio::time::timeout(CALL_MAX, chunks.next()).await {
                    Ok(chunk) => drop(chunk?),
                    Err(_) if is_over() => return Ok::<(), ClientError>(()),
                    Err(_) => continue,
                }
                let (now, mut mallory) = (Instant::now(), shared.mallory());
                mallory.served[aim.number] = Some(now);
                if let Some(revoked) = mallory.revoked
                    && now > revoked + SEEN_WITHIN
                {
                    let after = now - revoked;
                    shared.wrong(format!("{MALLORY} reads at {} {after:?} after", aim.rpc));
                }
                drop(mallory);
                if is_over() {
                    return Ok(());
                }
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(600), ended).await;
        if let Ok(Err(ClientError::Refused(refusal))) = ended
            && refusal.code == Code::PermissionDenied
        {
            shared.mallory().denied[aim.number] = Some(Instant::now());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Stage {
    fn canary(&mut self) -> &mut Canary {
        self.canary.as_mut().expect("a rung that is guarded")
    }

    fn up(&self) -> Vec<usize> {
        (0..self.cluster.nodes.len()).filter(|number| self.cluster.is_up(*number)).collect()
    }

    /// All nodes that are up serve who has a right now.
    fn grant(&mut self) {
        self.canary().shared.mallory().revoked = None;
        let since = Instant::now();
        self.admin(&["acl", "add", MALLORY, TOPIC, "consume"]);
        let up = self.up();
        self.until("who was given a right has it at every node", |stage| {
            let mallory = stage.canary().shared.mallory();
            up.iter().all(|node| mallory.served[*node].is_some_and(|at| at > since))
        });
    }

    /// All nodes that are up deny it to who has it no more, soon, also on streams that are open.
    fn revoke(&mut self) {
        self.admin(&["acl", "remove", MALLORY, TOPIC, "consume"]);
        let revoked = Instant::now();
        self.canary().shared.mallory().revoked = Some(revoked);
        self.until_denied(revoked);
        let latency = revoked.elapsed();
        self.canary().latencies.push(latency);
        if latency > SEEN_WITHIN {
            let text =
                format!("a right that was taken is gone at all nodes after {latency:?} only");
            self.canary().shared.wrong(text);
        }
    }

    fn until_denied(&mut self, since: Instant) {
        let up = self.up();
        self.until("who lost a right is denied at every node", |stage| {
            let mallory = stage.canary().shared.mallory();
            up.iter().all(|node| mallory.denied[*node].is_some_and(|at| at > since))
        });
    }

    /// The canary has tried everything at every node since.
    fn until_tried(&mut self) {
        let rounds = |canary: &Canary| -> Vec<u64> {
            canary.shared.rounds.iter().map(|count| count.load(Ordering::Acquire)).collect()
        };
        let before = rounds(self.canary());
        self.until("the canary has tried everything at every node", |stage| {
            // One round may have begun before.
            rounds(stage.canary()).iter().zip(&before).all(|(now, before)| *now >= before + 2)
        });
    }

    /// Where each file of a node's copy of the controller's log begins: they are named by it.
    fn catalogue_files(&self, number: usize) -> impl Iterator<Item = u64> {
        let files = std::fs::read_dir(self.cluster.data_dir(number).join("controller"));
        files.into_iter().flatten().filter_map(|file| {
            let name = file.ok()?.file_name().into_string().ok()?;
            name.strip_suffix(".store")?.parse::<u64>().ok()
        })
    }

    fn catalogue_begins(&self, number: usize) -> u64 {
        self.catalogue_files(number).min().unwrap_or(0)
    }

    /// Changes until the nodes that are up have let go of all that anybody has of the controller's log:
    /// who was away, or is new, gets the catalogue whole.
    fn shorten_catalogue(&mut self) {
        // A file that begins later was begun after the last node went.
        let nodes = 0..self.cluster.nodes.len();
        let latest = nodes.flat_map(|number| self.catalogue_files(number)).max().unwrap_or(0);
        let up = self.up();
        let requests = raw::refused_topics();
        self.until("the controller's log is shortened", |stage| {
            let token = token_of_root().and_then(|token| Bearer::new(&token)).unwrap_or_default();
            let address = stage.cluster.nodes[up[0]].rpc.clone();
            block_on(async {
                let options = ClientOptions { token, ..ClientOptions::default() };
                let Ok(client) = Client::connect(&address, options).await else { return };
                let admin = client.admin();
                let asked = requests.iter().map(|request| {
                    let (mut admin, request) = (admin.clone(), request.clone());
                    async move { admin.create_topic(request).await }
                });
                // A no is what is wanted; without a leader there is another try.
                drop(futures_util::future::join_all(asked).await);
            });
            up.iter().all(|number| stage.catalogue_begins(*number) > latest)
        });
    }
}

/// One episode: a right is given and taken while something happens to the nodes.
pub fn episode(stage: &mut Stage, chance: &mut Chance, number: u32) -> &'static str {
    let (leader, any) = (stage.leader(), chance.below(3) as usize);
    stage.grant();
    let what = match number % 5 {
        0 => {
            stage.cluster.kill(leader);
            stage.revoke();
            stage.cluster.start_node(leader);
            "a leader is away while a right is taken"
        }
        1 => {
            stage.revoke();
            (0..3).for_each(|node| stage.cluster.kill(node));
            (0..3).for_each(|node| stage.cluster.start_node(node));
            "all are killed behind it"
        }
        2 => {
            stage.cluster.kill(any);
            stage.revoke();
            stage.shorten_catalogue();
            let before = stage.catalogue_begins(any);
            stage.cluster.start_node(any);
            stage.until("the catalogue's snapshot is installed", |stage| {
                stage.catalogue_begins(any) > before
            });
            "the catalogue's snapshot"
        }
        3 => {
            for round in 0..3 {
                let canary = stage.canary.take().expect("a rung that is guarded");
                // The book's files permit the canary at last, and the cluster's policy still does not.
                canary.rights.write_book([&["adam"][..], &["eva"], &[CANARY]][round as usize]);
                // It takes the right as well.
                canary.rights.load(stage, number + round);
                stage.canary = Some(canary);
                if round == 0 {
                    let revoked = Instant::now();
                    stage.canary().shared.mallory().revoked = Some(revoked);
                    stage.until_denied(revoked);
                    stage.cluster.kill(leader);
                }
            }
            stage.cluster.start_node(leader);
            "policies are reloaded"
        }
        _ => {
            stage.revoke();
            let dead = stage.node_number(any);
            stage.cluster.kill(any);
            stage.admin(&["node", "remove", &dead, "--force", "--yes"]);
            stage.cluster.wipe(any);
            stage.cluster.start_node(any);
            stage.until_whole();
            "a node joins"
        }
    };
    stage.until_acknowledged("after the nodes came back");
    let since = Instant::now();
    stage.until_denied(since);
    stage.until_tried();
    what
}
