// Every kind of actor is crashed again and again under load. `DURAMEN_STORM=200` sets how often;
// with `--nocapture` the figures are printed.

use duramen::actors::handle::PartitionHandle;
use duramen::actors::partition::PartitionApi;
use duramen::model::{Record, Timestamp};
use duramen::observe::Mishap;
use duramen::supervision::{Event, EventKind, Fault};
use duramen::testing::{LoadPlan, TestNode, What, block_on, until};
use duramen::wire::client::{Client, ClientOptions};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const LOG: &str = "node/partitions/log/0/log";
const RAFT: &str = "node/partitions/log/0/raft";
const FLUSH: &str = "node/partitions/log/0/log/flush";
const GRPC: &str = "node/frontends/grpc";
const HTTP: &str = "node/frontends/http";
const HOUSEKEEPING: &str = "node/housekeeping";
const ACTORS: [&str; 5] = [LOG, RAFT, GRPC, HTTP, HOUSEKEEPING];
const VICTIMS: [&str; 6] = [LOG, RAFT, FLUSH, GRPC, HTTP, HOUSEKEEPING];

/// Room for what memory may differ by: the ledgers of the load, and what malloc keeps.
const MEMORY_SLACK_KIB: u64 = 16 << 10;
/// Memory is warm when all victims in turn make it grow by less than this.
const WARM_KIB: u64 = 2 << 10;
/// By then it is warm, or it leaks.
const WARM_UPS_MAX: u32 = 6;
/// Time between two questions of a probe.
const PACE: Duration = Duration::from_millis(1);

fn crashes() -> u32 {
    let text = std::env::var("DURAMEN_STORM").unwrap_or_else(|_| "10".into());
    text.parse().expect("DURAMEN_STORM is a number of crashes")
}

fn domain(victim: &str) -> &'static [&'static str] {
    match victim {
        LOG | RAFT | FLUSH => &[LOG, RAFT],
        GRPC => &[GRPC],
        HTTP => &[HTTP],
        _ => &[HOUSEKEEPING],
    }
}

/// What somebody sees who asks the same thing again and again.
struct Probe {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    took_us: Vec<u64>,
    errors: BTreeMap<String, u64>,
}

impl Seen {
    fn percentile_us(&self, share: f64) -> u64 {
        let mut sorted = self.took_us.clone();
        sorted.sort_unstable();
        let at = ((sorted.len() as f64) * share) as usize;
        sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
    }
}

impl Probe {
    fn start(mut ask: impl FnMut() -> Result<(), String> + Send + 'static) -> Self {
        let (stop, seen) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Seen>>::default());
        let (stopped, notes) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                let asked = Instant::now();
                let outcome = ask();
                let mut notes = notes.lock().unwrap();
                match outcome {
                    Ok(()) => notes.took_us.push(asked.elapsed().as_micros() as u64),
                    Err(error) => *notes.errors.entry(error).or_default() += 1,
                }
                drop(notes);
                std::thread::sleep(PACE);
            }
        });
        Self { stop, seen, thread: Some(thread) }
    }

    /// Asks `GET /livez` on one connection.
    fn of_http(addr: SocketAddr) -> Self {
        let mut connection = None;
        Self::start(move || {
            let answered = livez(&mut connection, addr);
            answered.map_err(|error| {
                connection = None;
                error.kind().to_string()
            })
        })
    }

    /// Asks `Describe` over gRPC.
    fn of_describe(addr: SocketAddr) -> Self {
        let mut client = None;
        Self::start(move || {
            block_on(async {
                if client.is_none() {
                    let connected =
                        Client::connect(&addr.to_string(), ClientOptions::default()).await;
                    client = Some(connected.map_err(|error| error.to_string())?);
                }
                let described = client.as_mut().unwrap().describe("log").await;
                described.map(drop).map_err(|error| error.to_string())
            })
        })
    }

    /// Appends without a network.
    fn of_partition(log: PartitionHandle) -> Self {
        Self::start(move || {
            let record = Record::of_value("probe", Timestamp(0));
            let pending = log.propose_records(vec![record]).map_err(|error| error.to_string())?;
            block_on(pending).map(drop).map_err(|error| error.to_string())
        })
    }

    fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn livez(connection: &mut Option<TcpStream>, addr: SocketAddr) -> std::io::Result<()> {
    let stream = match connection {
        Some(stream) => stream,
        none => {
            let stream = TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            none.insert(stream)
        }
    };
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: node\r\n\r\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok\n") {
        let mut some = [0; 512];
        match stream.read(&mut some)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&some[..count]),
        }
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// The three who look on, each at another part.
struct Onlookers {
    http: Probe,
    describe: Probe,
    partition: Probe,
}

impl Onlookers {
    fn of(node: &TestNode) -> Self {
        Self {
            http: Probe::of_http(node.http_addr()),
            describe: Probe::of_describe(node.rpc_addr()),
            partition: Probe::of_partition(node.log().clone()),
        }
    }

    fn take(&self) -> [(&'static str, Seen); 3] {
        [
            ("http livez", self.http.take()),
            ("grpc describe", self.describe.take()),
            ("append in process", self.partition.take()),
        ]
    }
}

/// Whether an onlooker's part is neither the victim nor one that restarts with it.
fn is_untouched(onlooker: &str, victim: &str) -> bool {
    let part = match onlooker {
        "http livez" => HTTP,
        "grpc describe" => GRPC,
        _ => RAFT,
    };
    !domain(victim).contains(&part)
}

fn crash(node: &TestNode, victim: &str) {
    let actor = if victim == FLUSH { LOG } else { victim };
    let before = node.generation(actor);
    if victim == FLUSH {
        node.recorder(FLUSH).plan(Some("Write"), Mishap::Panic("storm".into()), 1);
    } else {
        node.inject(victim, Fault::Panic("storm".into()));
    }
    for path in domain(victim) {
        node.await_life_after(path, before);
    }
    if actor == LOG || actor == RAFT {
        node.ready();
    }
}

#[derive(Debug, Clone, Copy)]
struct Process {
    threads: u64,
    files: u64,
    memory_kib: u64,
}

/// What the whole process holds: the storm has one of its own.
fn process() -> Process {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    Process {
        threads: field("Threads:"),
        files: std::fs::read_dir("/proc/self/fd").unwrap().count() as u64,
        memory_kib: field("RssAnon:"),
    }
}

/// Of so many crashes somebody feels one.
const FELT_FROM: u32 = 10;

/// One round: load, `count` crashes of the victim (none: calm), and what everybody saw.
fn round(node: &TestNode, victim: Option<&str>, count: u32) -> [(&'static str, Seen); 3] {
    let before: BTreeMap<&str, u64> =
        ACTORS.iter().map(|path| (*path, node.generation(path))).collect();
    let load = node.load(LoadPlan::default());
    load.await_acknowledged(64);
    let onlookers = Onlookers::of(node);
    load.await_acknowledged(64);
    drop(onlookers.take());
    let mark = node.mark();
    let begun = Instant::now();
    for _ in 0..count {
        match victim {
            Some(victim) => {
                crash(node, victim);
                load.await_acknowledged(32);
            }
            None => load.await_acknowledged(200),
        }
    }
    let took = begun.elapsed();
    let seen = onlookers.take();
    drop(onlookers);
    let ledger = load.finish();
    let name = victim.unwrap_or("calm");
    println!(
        "{name}: {count} rounds in {took:.1?}; {} acknowledged, {} refused, {} unknown; \
         producers saw {:?}, consumers {:?}",
        ledger.acknowledged(),
        ledger.refused(),
        ledger.unknown(),
        ledger.errors(),
        ledger.consumer_errors()
    );
    ledger.assert_kept();

    let Some(victim) = victim else { return seen };
    for path in ACTORS {
        let lives = node.generation(path) - before[path];
        let expected = if domain(victim).contains(&path) { u64::from(count) } else { 0 };
        let is_odd = |event: &&Event| match &event.kind {
            EventKind::Exited { reason } => !reason.to_string().contains("storm"),
            _ => false,
        };
        let odd = || node.events_after(mark).iter().filter(is_odd).cloned().collect::<Vec<_>>();
        assert_eq!(lives, expected, "{victim}: lives of {path}; other exits: {:?}", odd());
    }
    let strangers: Vec<_> = node
        .events_after(mark)
        .into_iter()
        .filter(|event| What::of(&event.kind) != What::Started)
        .filter(|event| !domain(victim).contains(&event.path.as_str()))
        .collect();
    assert!(strangers.is_empty(), "{victim}: {strangers:?}");
    for (onlooker, seen) in &seen {
        assert!(!seen.took_us.is_empty(), "{victim}: {onlooker} saw nothing at all");
        if is_untouched(onlooker, victim) {
            assert!(seen.errors.is_empty(), "{victim}: {onlooker} saw {:?}", seen.errors);
        }
    }
    let told = |errors: &BTreeMap<String, u64>| -> bool { !errors.is_empty() };
    // One or two crashes may fall into a moment in which nobody asks.
    let is_short = count < FELT_FROM;
    match victim {
        // Connections are not the partition's: no client loses its own.
        LOG | RAFT | FLUSH => {
            let all = ledger.errors();
            assert!(told(all) || is_short, "{victim}: no crash was felt, so nothing was tested");
            assert!(all.keys().all(|kind| kind.starts_with("refused")), "{victim}: {all:?}");
        }
        GRPC => assert!(told(ledger.errors()) || is_short, "{victim}: no crash was felt"),
        _ => {
            assert!(!told(ledger.errors()), "{victim}: {:?}", ledger.errors());
            assert!(!told(ledger.consumer_errors()), "{victim}: {:?}", ledger.consumer_errors());
        }
    }
    seen
}

/// Goal: any actor may die as often as it likes; nothing acknowledged is lost, nobody else
/// notices, and nothing piles up. Method: real panics under load of 64 producers and 8 consumers,
/// in a process of its own.
#[test]
fn a_panic_storm_loses_nothing_touches_nobody_else_and_leaves_nothing_behind() {
    let alone = ["panic_storm::alone", "--exact", "--ignored", "--nocapture"];
    let output = Command::new(std::env::current_exe().unwrap()).args(alone).output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "it was run");
}

/// Crashes all victims in turn until memory is as large as the storm needs it at any moment.
fn warm_up(node: &TestNode) {
    let mut before = process();
    for turn in 1..=WARM_UPS_MAX {
        for victim in VICTIMS {
            round(node, Some(victim), 2);
        }
        let now = process();
        println!("warm-up {turn}: {before:?}, then {now:?}");
        if now.memory_kib.saturating_sub(before.memory_kib) < WARM_KIB {
            return;
        }
        before = now;
    }
    panic!("memory still grows after {WARM_UPS_MAX} warm-ups");
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn alone() {
    let count = crashes();
    let node = TestNode::builder()
        .settings(|settings| {
            // Each life that served at all counts as a calm one: backoffs stay short.
            settings.supervision.window = Duration::from_millis(1);
            settings.supervision.restarts_max = 1000;
        })
        .start();
    node.ready();
    for path in ACTORS {
        node.await_life_after(path, 0);
    }
    // What is made once, on first use, is made before the baseline is taken.
    warm_up(&node);
    let calm = round(&node, None, 10 + count / 4);
    let baseline = process();
    for victim in VICTIMS {
        let seen = round(&node, Some(victim), count);
        for ((onlooker, storm), (_, calm)) in seen.iter().zip(&calm) {
            let (p99, calm_p99) = (storm.percentile_us(0.99), calm.percentile_us(0.99));
            println!(
                "  {onlooker}{}: p99 {p99} us, calm {calm_p99} us, ratio {:.2}; median {} us, \
                 calm {} us; {} answers, errors {:?}",
                if is_untouched(onlooker, victim) { "" } else { " (of the victim's domain)" },
                p99 as f64 / calm_p99.max(1) as f64,
                storm.percentile_us(0.5),
                calm.percentile_us(0.5),
                storm.took_us.len(),
                storm.errors,
            );
        }
    }
    until("threads and files are as before the storm", || {
        let now = process();
        now.threads <= baseline.threads && now.files <= baseline.files
    });
    let after = process();
    println!("process before the storm {baseline:?}, after it {after:?}");
    let growth = after.memory_kib.saturating_sub(baseline.memory_kib);
    assert!(growth < MEMORY_SLACK_KIB, "memory grew by {growth} KiB");
    node.stop().assert_nothing_left();
}
