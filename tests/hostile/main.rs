//! A node under attack: rung D1 of the ladder. Hostile clients mutate over a corpus of valid
//! conversations and play scripted attacks, while a healthy client goes on with its work.
//!
//!     cargo test --test hostile                                    each listener for a moment
//!     cargo test --test hostile -- --gate                          each for a quarter of a minute
//!     cargo test --release --test hostile -- grpc --cpu-seconds 1800
//!     cargo test --test hostile -- http --seconds 20 --seed 7
//!
//! A failing run prints its seed and keeps the node's log and directory.

#![allow(clippy::disallowed_methods, reason = "drives processes in real time, on real files")]

#[path = "../it/strangers/forge.rs"]
mod forge;
mod gossip;
mod grpc;
mod healthy;
mod http1;
mod http2;
mod machine;
mod messages;
mod multicast;
mod mutate;
mod node;
mod peer;
mod tls;
mod verdict;
mod wire;

use duramen::testing::Chance;
use healthy::Healthy;
use machine::{Machine, cpu_of};
use node::{Node, Target};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use verdict::Observed;

/// What is attacked, and how.
struct Listener {
    name: &'static str,
    about: &'static str,
    /// Within TLS, with access control on: the hostile client has a certificate, and few rights.
    is_tls: bool,
    /// Further flags of the node.
    flags: &'static [&'static str],
    /// One round: whatever it plays it names. Ends soon after the deadline has passed.
    attack: fn(&Target, &mut Chance, &Deadline) -> &'static str,
}

const LISTENERS: &[Listener] = &[
    Listener {
        name: "grpc",
        about: "HTTP/2 and gRPC, without TLS",
        is_tls: false,
        flags: &[],
        attack: grpc::attack,
    },
    Listener {
        name: "grpc-tls",
        about: "HTTP/2 and gRPC of a client with a certificate",
        is_tls: true,
        flags: &[],
        attack: grpc::attack,
    },
    Listener {
        name: "http",
        about: "HTTP/1.1, without TLS",
        is_tls: false,
        flags: &[],
        attack: http1::attack,
    },
    Listener {
        name: "http-tls",
        about: "HTTP/1.1 of a client with a certificate",
        is_tls: true,
        flags: &[],
        attack: http1::attack,
    },
    Listener {
        name: "tls",
        about: "the TLS layer of both ports, by strangers",
        is_tls: true,
        flags: &[],
        attack: tls::attack,
    },
    Listener {
        name: "peer",
        about: "what nodes send each other, by somebody who poses as one",
        is_tls: false,
        flags: &[],
        attack: peer::attack,
    },
    Listener {
        name: "peer-tls",
        about: "the same with the certificate of a node",
        is_tls: true,
        flags: &[],
        attack: peer::attack,
    },
    Listener {
        name: "gossip-udp",
        about: "packets of gossip, by strangers and by somebody who has the key",
        is_tls: false,
        flags: &[],
        attack: gossip::packets,
    },
    Listener {
        name: "gossip-tcp",
        about: "connections of gossip, by the same",
        is_tls: false,
        flags: &[],
        attack: gossip::connections,
    },
    Listener {
        name: "gossip-udp-open",
        about: "packets of gossip where there is no key",
        is_tls: false,
        flags: &[node::NO_KEY],
        attack: gossip::open_packets,
    },
    Listener {
        name: "gossip-tcp-open",
        about: "connections of gossip where there is no key",
        is_tls: false,
        flags: &[node::NO_KEY],
        attack: gossip::open_connections,
    },
    Listener {
        name: "gossip-multicast",
        about: "what a node hears that looks for others in its network",
        is_tls: false,
        flags: &[node::DISCOVERS],
        attack: multicast::announcements,
    },
];

/// Clients that attack at once.
const HOSTILE: u64 = 4;
/// How long one round may go on where the end is not known.
const ROUND_MAX: Duration = Duration::from_secs(10);
/// How long the calm before the flood lasts: what a healthy client is used to, and memory at rest.
const CALM: Duration = Duration::from_secs(1);
/// How long the node may take to let go of what the flood has left: whoever is gone, and behind what no call
/// takes has said so, is given a minute.
const SETTLES: Duration = Duration::from_secs(90);
const SECONDS_SHORT: u64 = 3;
const SECONDS_GATE: u64 = 15;

/// One of a listener's attacks; the last `heavy` of them, which hold many connections or much memory,
/// once in a while. `DURAMEN_HOSTILE_ONLY` names one that is played alone.
fn one_of<A: Copy>(
    attacks: &[(&'static str, A)],
    heavy: usize,
    chance: &mut Chance,
) -> (&'static str, A) {
    if let Ok(only) = std::env::var("DURAMEN_HOSTILE_ONLY") {
        return *attacks.iter().find(|(name, _)| *name == only).expect("an attack of that name");
    }
    let (light, heavy) = attacks.split_at(attacks.len() - heavy);
    let from = if chance.below(24) == 0 { heavy } else { light };
    from[chance.below(from.len() as u64) as usize]
}

/// When an attack ends.
pub struct Deadline {
    at: Instant,
}

impl Deadline {
    fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

#[derive(Debug)]
struct Wishes {
    listeners: Vec<String>,
    seconds: u64,
    cpu_seconds: Option<u64>,
    seed: u64,
    hang_max: Duration,
}

fn wishes() -> Result<Wishes, String> {
    let hang_max = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 });
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64;
    let (listeners, seconds) = (Vec::new(), SECONDS_SHORT);
    let mut wishes = Wishes { listeners, seconds, cpu_seconds: None, seed, hang_max };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().ok_or(format!("{argument} needs a number"))?;
            value.parse::<u64>().map_err(|_| format!("{value:?} is no number"))
        };
        match argument.as_str() {
            "--seconds" => wishes.seconds = number()?,
            "--cpu-seconds" => wishes.cpu_seconds = Some(number()?),
            "--seed" => wishes.seed = number()?,
            "--hang-ms" => wishes.hang_max = Duration::from_millis(number()?),
            "--gate" => wishes.seconds = SECONDS_GATE,
            name if LISTENERS.iter().any(|known| known.name == name) => {
                wishes.listeners.push(name.into());
            }
            other => {
                let known: Vec<&str> = LISTENERS.iter().map(|known| known.name).collect();
                let what = format!("{other:?} is neither an option nor a listener: {known:?}");
                return Err(what);
            }
        }
    }
    Ok(wishes)
}

fn main() -> ExitCode {
    let wishes = match wishes() {
        Ok(wishes) => wishes,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    verdict::prove();
    let mut failed = Vec::new();
    for listener in LISTENERS {
        let is_named = wishes.listeners.iter().any(|name| name == listener.name);
        if !wishes.listeners.is_empty() && !is_named {
            continue;
        }
        // On a thread of its own, so that a panic is this listener's and its node is killed.
        let played = std::thread::scope(|scope| scope.spawn(|| play(listener, &wishes)).join());
        if !played.unwrap_or(false) {
            failed.push(listener.name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {} (seed {})", failed.join(", "), wishes.seed);
    ExitCode::FAILURE
}

/// An empty one, and the lock that keeps other runs out of it while this one lasts.
fn directory_of(listener: &str) -> Option<(PathBuf, File)> {
    // A program from elsewhere is a run of its own.
    let at = match std::env::var_os("DURAMEN_HOSTILE_EXE") {
        Some(_) => node::program().with_file_name("runs"),
        None => env!("CARGO_TARGET_TMPDIR").into(),
    };
    let directory = at.join(format!("hostile-{listener}"));
    std::fs::create_dir_all(&at).expect("a directory for runs");
    let lock = File::create(directory.with_extension("lock")).expect("a lock file");
    if lock.try_lock().is_err() {
        println!("{listener}: another run of it is under way in {}", directory.display());
        return None;
    }
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("a directory for the node");
    Some((directory, lock))
}

/// Attacks a listener; whether all that must hold holds.
fn play(listener: &Listener, wishes: &Wishes) -> bool {
    println!("{}: {} (seed {})", listener.name, listener.about, wishes.seed);
    let Some((directory, _lock)) = directory_of(listener.name) else { return false };
    let mut node = Node::start(&directory, listener.is_tls, listener.flags);
    if listener.flags.contains(&node::DISCOVERS) && node.target().multicast.is_none() {
        println!("  skipped: multicast cannot be used here, nothing that was said was heard");
        return true;
    }
    let machine = Machine::watch(&directory);
    let healthy = Healthy::start(&node);
    std::thread::sleep(CALM);
    healthy.until_acknowledged();
    let mut observed = Observed { hang_max: wishes.hang_max, ..Observed::default() };
    observed.calm = healthy.take_longest();
    (observed.sockets_before, observed.memory_before) = (node.sockets(), node.memory_from_now_on());
    let begun = Instant::now();
    let cpu_before = cpu_of(node.pid()) + cpu_of(std::process::id());
    let rounds = Mutex::new(BTreeMap::new());
    let cpu = || cpu_of(node.pid()) + cpu_of(std::process::id()) - cpu_before;
    std::thread::scope(|scope| {
        for number in 0..HOSTILE {
            let chance = Chance::new(wishes.seed ^ number.wrapping_mul(Chance::STEP));
            let (target, rounds, cpu) = (node.target(), &rounds, &cpu);
            scope.spawn(move || flood(listener, wishes, target, chance, rounds, (begun, cpu)));
        }
    });
    let (lasted, cpu) = (begun.elapsed(), cpu());
    (observed.longest, observed.starved) = (healthy.take_longest(), healthy.longest_starved());
    observed.machine = machine.longest_stall();
    let settling = Instant::now();
    loop {
        observed.sockets_after = node.sockets();
        let is_settled = observed.sockets_after <= observed.sockets_before;
        if is_settled || settling.elapsed() > SETTLES {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    healthy.until_acknowledged();
    observed.memory_most = node.memory_most();
    observed.is_alive = node.is_running();
    observed.crashes = node.crash_reports();
    observed.restarts = node.restarts();
    let ledger = healthy.finish();
    (observed.found, observed.ledger) = (healthy::read_all(&node), ledger);
    observed.rounds = rounds.into_inner().expect("nobody panics with it");
    println!("  {lasted:.1?}, {cpu:.1?} of CPU; {observed}");
    let wrong = observed.judge();
    for text in wrong.iter().take(20) {
        println!("  WRONG: {text}");
    }
    drop(node);
    if wrong.is_empty() {
        let _ = std::fs::remove_dir_all(&directory);
    } else {
        println!("  the node's log and directory: {}", directory.display());
    }
    wrong.is_empty()
}

/// One hostile client: plays round after round until time, or CPU, is up.
fn flood(
    listener: &Listener,
    wishes: &Wishes,
    target: &Target,
    mut chance: Chance,
    rounds: &Mutex<BTreeMap<&'static str, u64>>,
    (begun, cpu): (Instant, &dyn Fn() -> Duration),
) {
    let end = Deadline { at: begun + Duration::from_secs(wishes.seconds) };
    loop {
        let deadline = match wishes.cpu_seconds {
            Some(seconds) if cpu() >= Duration::from_secs(seconds) => return,
            Some(_) => &Deadline { at: Instant::now() + ROUND_MAX },
            None if end.is_over() => return,
            None => &end,
        };
        let played = (listener.attack)(target, &mut chance, deadline);
        *rounds.lock().expect("nobody panics with it").entry(played).or_default() += 1;
    }
}
