//! Clusters of real processes under load and under faults: rungs C1 to C15 of the ladder.
//!
//!     cargo test --test faults                       a few episodes of the shortest rung
//!     cargo test --test faults -- --gate             the subset that gates each change
//!     cargo test --release --test faults -- --full   all rungs at their full counts
//!     cargo test --test faults -- C4 --episodes 30 --seed 7
//!
//! A failing run prints its seed and keeps the nodes' logs and directories.

#![allow(clippy::disallowed_methods, reason = "drives processes in real time, on real files")]
#![allow(clippy::unwrap_used, reason = "a rung that cannot go on has failed")]

mod canary;
mod checker;
mod cluster;
mod load;
#[allow(dead_code, reason = "what needs certificates is not called here")]
#[path = "../it/access/raw.rs"]
mod raw;
mod read;
mod rights;
mod rungs;
mod show;
mod stage;

use canary::Canary;
use checker::percentile;
use cluster::{Cluster, Net};
use duramen::testing::Chance;
use load::{Gap, Load};
use rights::Rights;
use rungs::{Needs, RUNGS, Rung};
use stage::{Stage, TOPIC};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

const PARTITIONS: u32 = 3;
const PRODUCERS: u32 = 6;
const SHOW: &str = "S1";
/// Kills of the show: two minutes of them, and some in the subset that gates each change.
const SHOW_FULL: u32 = 24;
const SHOW_GATE: u32 = 4;

#[derive(Debug, Default)]
struct Wishes {
    rungs: Vec<String>,
    episodes: Option<u32>,
    seed: Option<u64>,
    gate: bool,
    full: bool,
}

fn wishes() -> Result<Wishes, String> {
    let mut wishes = Wishes::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().ok_or(format!("{argument} needs a number"))?;
            value.parse::<u64>().map_err(|_| format!("{value:?} is no number"))
        };
        match argument.as_str() {
            "--episodes" => wishes.episodes = Some(number()? as u32),
            "--seed" => wishes.seed = Some(number()?),
            "--gate" => wishes.gate = true,
            "--full" => wishes.full = true,
            name if known().contains(&name) => wishes.rungs.push(name.into()),
            other => {
                let known = known();
                return Err(format!("{other:?} is neither an option nor a rung; rungs: {known:?}"));
            }
        }
    }
    Ok(wishes)
}

/// All rungs; the first is the show, which has a way of its own.
fn known() -> Vec<&'static str> {
    let rungs = RUNGS.iter().map(|rung| rung.name);
    std::iter::once(SHOW).chain(rungs).collect()
}

fn main() -> ExitCode {
    let wishes = match wishes() {
        Ok(wishes) => wishes,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    checker::prove();
    show::prove();
    let begun = Instant::now();
    let seed = wishes.seed.unwrap_or_else(|| {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        since.as_nanos() as u64
    });
    let is_short = !wishes.gate && !wishes.full && wishes.rungs.is_empty();
    let mut failed = Vec::new();
    let is_named = |name: &str| wishes.rungs.iter().any(|rung| rung == name);
    if is_named(SHOW) || wishes.rungs.is_empty() && !is_short {
        let kills = wishes.episodes.unwrap_or(if wishes.full { SHOW_FULL } else { SHOW_GATE });
        if !std::thread::spawn(move || show(kills)).join().unwrap_or(false) {
            failed.push(SHOW);
        }
    }
    for rung in &RUNGS {
        let is_wanted = match wishes.rungs.is_empty() {
            true => !is_short || rung.name == "C1",
            false => is_named(rung.name),
        };
        if !is_wanted {
            continue;
        }
        if let Some(missing) = rung.needs.missing() {
            println!("{}: skipped: {missing}", rung.name);
            continue;
        }
        let count = if wishes.full { rung.full } else { rung.gate };
        let count = wishes.episodes.unwrap_or(if is_short { 3 } else { count });
        // On a thread of its own, so that a panic is this rung's and its nodes are killed.
        let is_gate = !wishes.full;
        let played = std::thread::spawn(move || play(rung, count, seed, is_gate)).join();
        if !played.unwrap_or(false) {
            failed.push(rung.name);
        }
    }
    println!("all of it in {:.0?}", begun.elapsed());
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {} (seed {seed})", failed.join(", "));
    ExitCode::FAILURE
}

/// Whether episodes are told one by one.
fn is_verbose() -> bool {
    std::env::var_os("DURAMEN_FAULTS_VERBOSE").is_some()
}

/// An empty one, and the lock that keeps other runs of the rung out of it while this one lasts.
fn directory_of(rung: &str) -> Option<(PathBuf, File)> {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{rung}"));
    let lock = File::create(directory.with_extension("lock")).expect("a lock file");
    if lock.try_lock().is_err() {
        let path = directory.display();
        println!(
            "{rung}: another run of it is under way in {path}: wait for its end, or give this one a \
             directory of its own with CARGO_TARGET_DIR"
        );
        return None;
    }
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("a directory for the nodes");
    Some((directory, lock))
}

/// Says what is wrong; whether nothing is. What is right leaves nothing behind.
fn verdict(wrong: &[String], directory: &Path) -> bool {
    for text in wrong.iter().take(20) {
        println!("  WRONG: {text}");
    }
    if wrong.is_empty() {
        println!("  lost 0, doubled 0, out of order 0, stale reads 0, replicas alike");
        if std::env::var_os("DURAMEN_FAULTS_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(directory);
        }
    } else {
        println!("  {} violations; logs and directories: {}", wrong.len(), directory.display());
    }
    wrong.is_empty()
}

fn show(kills: u32) -> bool {
    println!("{SHOW}: a real file through `duramen produce` under kill -9 ({kills} kills)");
    let Some((directory, _lock)) = directory_of(SHOW) else { return false };
    let wrong = show::play(&directory, kills, &[]).err().unwrap_or_default();
    verdict(&wrong, &directory)
}

/// Plays a rung's episodes; whether all that must hold holds.
fn play(rung: &Rung, count: u32, seed: u64, is_gate: bool) -> bool {
    println!("{}: {} ({count} episodes, seed {seed})", rung.name, rung.about);
    let Some((directory, _lock)) = directory_of(rung.name) else { return false };
    let _small_disks = (rung.needs == Needs::Mounts).then(|| SmallDisks::mount(&directory));
    let retention = directory.join("retention.toml");
    let small = "[log]\nsegment_bytes_max = \"256KiB\"\nretention_bytes = \"1MiB\"\n\
        batch_bytes_max = \"128KiB\"\nrecord_bytes_max = \"64KiB\"\n";
    std::fs::write(&retention, small).expect("a configuration file");
    let retention = retention.display().to_string();
    let flags: Vec<&str> = rung
        .flags
        .iter()
        .map(|f| if *f == "{retention}" { retention.as_str() } else { f })
        .collect();
    let net = match rung.needs {
        Needs::Namespaces => Net::Namespaces,
        Needs::Nothing | Needs::Mounts => Net::Loopback,
    };
    rights::without_rights();
    let rights = rung.is_guarded.then(|| Rights::new(&directory));
    let more = rights.as_ref().map_or_else(Vec::new, Rights::flags);
    let flags: Vec<&str> = flags.into_iter().chain(more.iter().map(String::as_str)).collect();
    let mut cluster = Cluster::new(&directory, rung.nodes, net, &flags);
    let begun = Instant::now();
    cluster.start();
    let mut stage = Stage { cluster, load: None, canary: None, partitions: PARTITIONS, is_gate };
    stage.until_whole();
    if let Some(rights) = &rights {
        rights.enforce(&mut stage);
    }
    let (partitions, replicas) = (PARTITIONS.to_string(), rung.nodes.to_string());
    let numbers = ["--partitions", &partitions, "--replication-factor", &replicas];
    stage.admin(&[&["topic", "create", TOPIC][..], &numbers].concat());
    stage.until_whole();
    println!(
        "  formed, with a topic of {partitions} x {replicas} replicas, in {:?}",
        begun.elapsed()
    );
    stage.load = Some(Load::start(&stage.cluster.addresses(), TOPIC, PARTITIONS, PRODUCERS, true));
    stage.until_acknowledged("before the first fault");
    stage.canary = rights.map(|rights| Canary::start(rights, &stage.cluster));
    let mut chance = Chance::new(seed);
    let begun = Instant::now();
    let mut gaps: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for number in 0..count {
        stage.load.as_ref().expect("under load").longest_gap();
        let began = Instant::now();
        let what = (rung.episode)(&mut stage, &mut chance, number);
        let gap = stage.load.as_ref().expect("under load").longest_gap();
        gaps.entry(what).or_default().push(gap.length.as_millis() as u64);
        tell_gap(&format!("episode {number}: {what}"), gap, began);
        // Calm in between: else one long fault is all there is.
        stage.wait(Duration::from_millis(100 + chance.below(300)));
    }
    let lasted = begun.elapsed();
    let canary = stage.canary.take().map(|canary| canary.finish(&mut stage));
    let (ledger, mut wrong) = stage.judge();
    wrong.extend(canary.into_iter().flatten());
    let (acked, sent) = (ledger.acked.len(), ledger.sent.values().sum::<u64>());
    let reads = |event: &&checker::Event| matches!(event, checker::Event::ReadSaw { .. });
    let reads = ledger.history.iter().filter(reads).count();
    println!(
        "  {count} episodes in {lasted:.1?}: {acked} of {sent} records acknowledged, {reads} \
         linearizable reads"
    );
    tell_gaps(&mut gaps);
    for (error, times) in &ledger.errors {
        println!("  failed for good, {times} times: {error}");
    }
    // A load that was never there proves nothing.
    if (acked as u64) < u64::from(count) * 10 || reads == 0 {
        wrong.push("no verdict: too few acknowledgements, or reads".into());
    }
    drop(stage);
    verdict(&wrong, &directory)
}

/// Where it was in an episode, to whoever wants to know.
fn tell_gap(what: &str, gap: Gap, began: Instant) {
    if is_verbose() {
        let Gap { partition, from, length } = gap;
        let from = from.saturating_duration_since(began);
        println!("  {what}: longest gap {length:.2?}, partition {partition}, from {from:.2?} on");
    }
}

/// Of each kind of episode, how long the slowest partition acknowledged nothing.
fn tell_gaps(gaps: &mut BTreeMap<&str, Vec<u64>>) {
    for (what, gaps) in gaps {
        let [p50, p99, longest] = [0.5, 0.99, 1.0].map(|share| percentile(gaps, share));
        let count = gaps.len();
        println!(
            "  longest gap in acknowledgements, {what} ({count}): p50 {p50} ms, p99 {p99} ms, \
             longest {longest} ms"
        );
    }
}

/// A small file system of its own for each node.
struct SmallDisks(Vec<PathBuf>);

impl SmallDisks {
    fn mount(directory: &Path) -> Self {
        let mut mounted = Vec::new();
        for number in 1..=3 {
            let at = directory.join(format!("n{number}"));
            std::fs::create_dir_all(&at).expect("a directory to mount on");
            let status = Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=256m", "tmpfs"])
                .arg(&at)
                .status();
            assert!(status.is_ok_and(|status| status.success()), "cannot mount a small tmpfs");
            mounted.push(at);
        }
        Self(mounted)
    }
}

impl Drop for SmallDisks {
    fn drop(&mut self) {
        for at in &self.0 {
            let _ = Command::new("umount").arg("-l").arg(at).status();
        }
    }
}
