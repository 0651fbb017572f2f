//! What the machine itself does to whoever waits: other programs take its processor and its disk.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Writes and syncs a small file, and sleeps, again and again: the longest two of these in a row are what no
/// node can be blamed for. What comes while something else is synced waits for both.
pub struct Machine {
    shared: Arc<(AtomicBool, AtomicU64)>,
    thread: Option<JoinHandle<()>>,
}

const PAUSE: Duration = Duration::from_millis(20);

impl Machine {
    pub fn watch(directory: &Path) -> Self {
        let mut file =
            File::create(directory.join("probe")).expect("a file to probe the disk with");
        let shared = Arc::new((AtomicBool::new(false), AtomicU64::new(0)));
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut before = Duration::ZERO;
            while !for_thread.0.load(Ordering::Acquire) {
                let begun = Instant::now();
                std::thread::sleep(PAUSE);
                file.seek(SeekFrom::Start(0)).expect("a file can be rewound");
                file.write_all(&[7; 4096]).expect("a file can be written");
                file.sync_data().expect("a file can be synced");
                let took = begun.elapsed().saturating_sub(PAUSE);
                for_thread.1.fetch_max((before + took).as_micros() as u64, Ordering::AcqRel);
                before = took;
            }
        });
        Self { shared, thread: Some(thread) }
    }

    pub fn longest_stall(&self) -> Duration {
        Duration::from_micros(self.shared.1.load(Ordering::Acquire))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.shared.0.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join().map_err(|_| PoisonError::new(()));
        }
    }
}

/// What a process has used of the processor so far; nothing where it is gone.
pub fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may hold anything; what follows its bracket does not.
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks = rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 1000 / rustix::param::clock_ticks_per_second())
}

/// How long the threads of a node that serve gRPC have waited for a processor so far.
pub fn starved(pid: u32) -> Duration {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let waited = threads.filter_map(|thread| {
        let thread = thread.ok()?.path();
        let name = std::fs::read_to_string(thread.join("comm")).ok()?;
        let stat = std::fs::read_to_string(thread.join("schedstat")).ok()?;
        // On the processor, waiting for it, and how often (unit: nanoseconds).
        let waited: u64 = stat.split(' ').nth(1)?.parse().ok()?;
        name.starts_with("duramen-shard").then_some(waited)
    });
    Duration::from_nanos(waited.sum())
}
