//! What must hold of a node under attack, and the proof that a breach of it would be seen.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// By so much memory may grow under attack (unit: bytes). The state of a call takes three times as much
/// in a debug build.
const GROWTH_MAX: u64 = if cfg!(debug_assertions) { 192 << 20 } else { 64 << 20 };
/// Acknowledgements without which a run says nothing.
const ACKNOWLEDGED_MIN: usize = 20;

/// What the healthy client was told.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// By offset, what was acknowledged.
    pub acknowledged: BTreeMap<u64, Vec<u8>>,
    /// Records seen by reads.
    pub read: u64,
    /// New connections that were answered, and those that were turned away.
    pub knocks: (u64, u64),
    /// What was refused or lost, and how often.
    pub errors: BTreeMap<String, u64>,
}

/// What was seen of a run.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    pub is_alive: bool,
    pub crashes: Vec<String>,
    pub restarts: Vec<String>,
    /// The slowest answer to the healthy client, before the flood and in it.
    pub calm: Duration,
    pub longest: Duration,
    /// The longest that the node had no processor while somebody waited: counted in neither.
    pub starved: Duration,
    /// The longest that the machine itself held somebody up, node or not.
    pub machine: Duration,
    pub hang_max: Duration,
    pub memory_before: u64,
    pub memory_most: u64,
    pub sockets_before: usize,
    pub sockets_after: usize,
    pub ledger: Ledger,
    /// What can be read afterwards, by offset.
    pub found: BTreeMap<u64, Vec<u8>>,
    /// How often each attack was played.
    pub rounds: BTreeMap<&'static str, u64>,
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let Ledger { acknowledged, read, knocks: (answered, away), .. } = &self.ledger;
        write!(
            f,
            "healthy client: {} acknowledged, {read} read, slowest answer {:.0?} (calm {:.0?}, the \
             machine's own stalls {:.0?}; without a processor up to {:.0?} more), new connections {answered} answered, {away} turned away; \
             memory {:.1} MiB, at most {:.1} more; sockets {} before, {} after\n  rounds:",
            acknowledged.len(),
            self.longest,
            self.calm,
            self.machine,
            self.starved,
            mib(self.memory_before),
            mib(self.memory_most.saturating_sub(self.memory_before)),
            self.sockets_before,
            self.sockets_after
        )?;
        self.rounds.iter().try_for_each(|(name, count)| write!(f, " {name} {count},"))
    }
}

impl Observed {
    /// What did not hold.
    pub fn judge(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if !self.is_alive {
            wrong.push("the node's process ended".into());
        }
        wrong.extend(self.crashes.iter().map(|name| format!("a crash report: {name}")));
        wrong.extend(self.restarts.iter().map(|path| format!("restarted: {path}")));
        let patience = self.hang_max + self.calm + self.machine;
        if self.longest > patience {
            wrong.push(format!(
                "the healthy client waited {:.2?} for an answer, at most {patience:.2?}",
                self.longest
            ));
        }
        for (error, times) in &self.ledger.errors {
            wrong.push(format!("the healthy client was refused, {times} times: {error}"));
        }
        let growth = self.memory_most.saturating_sub(self.memory_before);
        if growth >= GROWTH_MAX {
            wrong.push(format!("memory grew by {} MiB", growth >> 20));
        }
        if self.sockets_after > self.sockets_before {
            let (before, after) = (self.sockets_before, self.sockets_after);
            wrong.push(format!("{after} sockets are open, {before} were before"));
        }
        for (offset, value) in &self.ledger.acknowledged {
            match self.found.get(offset) {
                Some(found) if found == value => {}
                Some(_) => wrong.push(format!("another record lies at offset {offset}")),
                None => wrong.push(format!("lost: the record at offset {offset}")),
            }
        }
        // A client that did nothing, or a flood that was none, proves nothing.
        if self.ledger.acknowledged.len() < ACKNOWLEDGED_MIN || self.ledger.read == 0 {
            wrong.push("no verdict: the healthy client did too little".into());
        }
        if self.rounds.values().sum::<u64>() == 0 {
            wrong.push("no verdict: nothing attacked".into());
        }
        wrong
    }
}

/// Shows that each breach is seen, and nothing where there is none.
pub fn prove() {
    let records: BTreeMap<u64, Vec<u8>> = (0..100).map(|at| (at, vec![at as u8])).collect();
    let good = Observed {
        is_alive: true,
        hang_max: Duration::from_secs(1),
        longest: Duration::from_millis(900),
        memory_before: 30 << 20,
        memory_most: 60 << 20,
        sockets_before: 20,
        sockets_after: 20,
        found: records.clone(),
        ledger: Ledger { acknowledged: records, read: 5, ..Ledger::default() },
        rounds: BTreeMap::from([("random bytes", 7)]),
        ..Observed::default()
    };
    assert_eq!(good.judge(), Vec::<String>::new(), "nothing is wrong");
    type Breach = (&'static str, fn(&mut Observed));
    let breaches: [Breach; 13] = [
        ("process ended", |it| it.is_alive = false),
        ("crash report", |it| it.crashes.push("a.json".into())),
        ("restarted", |it| it.restarts.push("node/frontends/grpc: 1".into())),
        ("waited", |it| it.longest = Duration::from_millis(1100)),
        ("was refused", |it| it.ledger.errors.extend([("gone".into(), 1)])),
        ("memory grew", |it| it.memory_most = (30 << 20) + GROWTH_MAX),
        ("sockets", |it| it.sockets_after = 21),
        ("lost", |it| drop(it.found.remove(&7))),
        ("another record", |it| drop(it.found.insert(7, Vec::new()))),
        ("too little", |it| it.ledger.read = 0),
        ("too little", |it| it.ledger.acknowledged.clear()),
        ("nothing attacked", |it| it.rounds.clear()),
        ("nothing attacked", |it| it.rounds = BTreeMap::from([("random bytes", 0)])),
    ];
    for (what, breach) in breaches {
        let mut bad = good.clone();
        breach(&mut bad);
        let wrong = bad.judge();
        let [only] = wrong.as_slice() else { panic!("{what}: {wrong:?}") };
        assert!(only.contains(what), "{what}: {only}");
    }
}
