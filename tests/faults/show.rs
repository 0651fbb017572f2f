//! Show 1: a real file goes through the program's own client into six partitions of three replicas,
//! while leaders are killed; it must be there as it was, everywhere.

use crate::checker::{self, Copy};
use crate::cluster::{Cluster, Net};
use crate::load::Load;
use crate::stage::{Stage, TOPIC};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const EXE: &str = env!("CARGO_BIN_EXE_duramen");
const PARTITIONS: u32 = 6;
/// A leader is killed this often, and is away for a part of that.
const KILL_INTERVAL: Duration = Duration::from_secs(5);
const AWAY: Duration = Duration::from_millis(1_500);
/// What goes in meanwhile, all partitions together (unit: bytes): 100 MB over 24 kills.
const BYTES_PER_KILL: usize = 100_000_000 / 24;
const LINE_BYTES_MAX: usize = 4096;
/// How often a piece of it is handed to the client.
const PIECE_INTERVAL: Duration = Duration::from_millis(100);

/// The client, and who feeds it its part of the file.
struct Produce {
    child: Child,
    feeder: JoinHandle<()>,
}

impl Produce {
    /// `duramen produce`, fed with a part of the file such that it lasts for so long.
    fn start(addresses: &str, partition: u32, part: Vec<u8>, lasts: Duration) -> Self {
        let mut child = Command::new(EXE)
            .args(["produce", TOPIC, "--json", "--rpc-addr", addresses])
            .args(["--partition", &partition.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the client starts");
        let mut input = child.stdin.take().expect("it is piped");
        let feeder = std::thread::spawn(move || {
            let pieces = (lasts.as_millis() / PIECE_INTERVAL.as_millis()).max(1) as usize;
            let begun = Instant::now();
            for (number, piece) in part.chunks(part.len().div_ceil(pieces).max(1)).enumerate() {
                let due = begun + PIECE_INTERVAL * number as u32;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                // Whoever ended early says why.
                if input.write_all(piece).is_err() {
                    return;
                }
            }
        });
        Self { child, feeder }
    }

    /// How many records it says were acknowledged; or what it says went wrong.
    fn finish(self) -> Result<u64, String> {
        self.feeder.join().map_err(|_| "the feeder panicked")?;
        let output = self.child.wait_with_output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let said: serde_json::Value =
            serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        said["records"].as_u64().ok_or_else(|| format!("it does not say how many: {said}"))
    }
}

/// The first bytes of a real file: this program, with all that is strange in it. It has stretches of
/// megabytes without a line's end; those are cut.
fn real_file(bytes: usize) -> Vec<u8> {
    let mut file = Vec::new();
    while file.len() < bytes {
        let source = std::fs::File::open(EXE).expect("it was started from there");
        let left = (bytes - file.len()) as u64;
        source.take(left).read_to_end(&mut file).expect("it can be read");
    }
    let mut begin = 0;
    for (at, byte) in file.iter_mut().enumerate() {
        if at - begin == LINE_BYTES_MAX {
            *byte = b'\n';
        }
        if *byte == b'\n' {
            begin = at;
        }
    }
    file
}

/// Plays it; what is wrong, and the gaps (unit: ms).
pub fn play(directory: &Path, kills: u32, flags: &[&str]) -> Result<(), Vec<String>> {
    let mut cluster = Cluster::new(directory, 3, Net::Loopback, flags);
    let begun = Instant::now();
    cluster.start();
    let mut stage =
        Stage { cluster, load: None, canary: None, partitions: PARTITIONS, is_gate: false };
    stage.until("three nodes are one cluster", |stage| {
        stage.status().is_some_and(|status| stage.members(&status) == 3)
    });
    let formed = begun.elapsed();
    println!("  three processes, one --join: formed within {formed:.2?}");
    stage.admin(&["topic", "create", TOPIC, "--partitions", &PARTITIONS.to_string()]);
    stage.until_whole();

    let addresses = stage.cluster.addresses();
    stage.load = Some(Load::start(&addresses, TOPIC, PARTITIONS, PARTITIONS, false));
    stage.until_acknowledged("before the first kill");
    let file = real_file(BYTES_PER_KILL * kills as usize);
    let part_bytes = file.len().div_ceil(PARTITIONS as usize);
    let parts: Vec<Vec<u8>> = file.chunks(part_bytes).map(<[u8]>::to_vec).collect();
    let lasts = KILL_INTERVAL * kills;
    let begun = Instant::now();
    let producers: Vec<Produce> = (0..)
        .zip(&parts)
        .map(|(number, part)| Produce::start(&addresses.join(","), number, part.clone(), lasts))
        .collect();
    let mut gaps = Vec::new();
    for number in 0..kills {
        let leader = stage.leader_of(number % PARTITIONS);
        stage.load.as_ref().expect("under load").longest_gap();
        let killed = Instant::now();
        stage.cluster.kill(leader);
        stage.wait(AWAY);
        stage.cluster.start_node(leader);
        stage.until_acknowledged("after a leader was killed");
        // Until the next kill: leadership goes back meanwhile, and that counts as well.
        let due = begun + KILL_INTERVAL * (number + 1);
        stage.wait(due.saturating_duration_since(Instant::now()));
        let gap = stage.load.as_ref().expect("under load").longest_gap();
        crate::tell_gap(&format!("kill {number}"), gap, killed);
        gaps.push(gap.length.as_millis() as u64);
    }
    let mut wrong = Vec::new();
    let mut said = 0;
    for (partition, producer) in producers.into_iter().enumerate() {
        match producer.finish() {
            Ok(records) => said += records,
            Err(error) => wrong.push(format!("the client of partition {partition}: {error}")),
        }
    }
    let lasted = begun.elapsed();
    let (mut ledger, copies) = stage.end();
    ledger.is_shared = true;
    wrong.extend(checker::check(&ledger, &copies));
    wrong.extend(as_it_was(&parts, &copies));
    println!(
        "  {} bytes in {said} records through `duramen produce`, and {} of a library client, in \
         {lasted:.1?} with {kills} kills",
        file.len(),
        ledger.acked.len()
    );
    crate::tell_gaps(&mut BTreeMap::from([("leader of a partition killed", gaps)]));
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Whether each partition holds its part of the file, line by line, and nothing else.
fn as_it_was(parts: &[Vec<u8>], copies: &BTreeMap<u32, Vec<Copy>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (partition, part) in (0..).zip(parts) {
        let lines = part.strip_suffix(b"\n").unwrap_or(part).split(|byte| *byte == b'\n');
        let lines: Vec<&[u8]> = lines.collect();
        for copy in copies.get(&partition).into_iter().flatten() {
            let of_load = |value: &[u8]| checker::read(value).is_some();
            let stored = copy.values.iter().map(Vec::as_slice).filter(|value| !of_load(value));
            let stored: Vec<&[u8]> = stored.collect();
            if stored != lines {
                let at = stored.iter().zip(&lines).position(|(stored, line)| stored != line);
                wrong.push(format!(
                    "partition {partition} on {}: {} records of {} lines, the first difference at \
                     {at:?}",
                    copy.node,
                    stored.len(),
                    lines.len()
                ));
            }
        }
    }
    wrong
}

/// The comparison sees a line that is missing, doubled or changed.
pub fn prove() {
    let part = b"one\n\ntwo\nthree".to_vec();
    let judged = |lines: &[&str]| {
        let values = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
        let copy = Copy { values, ..Copy::default() };
        as_it_was(std::slice::from_ref(&part), &BTreeMap::from([(0, vec![copy])])).len()
    };
    assert_eq!(judged(&["one", "", "two", "three"]), 0);
    for sin in [
        &["one", "two", "three"][..],
        &["one", "", "", "two", "three"],
        &["one", "", "tvo", "three"],
    ] {
        assert_eq!(judged(sin), 1, "{sin:?}");
    }
}
