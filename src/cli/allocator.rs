//! How much freed memory the C library keeps for itself.

pub use here::{give_back, keep_little};

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod here {
    use crate::ops::telemetry::process::resident_bytes;
    use std::convert::Infallible;
    use std::time::Duration;

    /// From this size on an allocation has pages of its own, which go back to the system when it is
    /// freed, and no more than this is kept free at the heap's end (unit: bytes). Batches of common sizes
    /// are below.
    const KEPT_BYTES_MAX: libc::c_int = 4 << 20;
    /// glibc gives threads heaps of their own, eight for each processor, and what is free in one is no use to
    /// the others: one for so many processors is enough for what is allocated here …
    const PROCESSORS_PER_ARENA: usize = 2;
    /// … and so many for any machine.
    const ARENAS_MAX: usize = 64;
    /// How often is looked whether the process has grown.
    const LOOK_INTERVAL: Duration = Duration::from_millis(100);
    /// So much more than at the start is nothing yet (unit: bytes): steady load stays below.
    const GROWN_BYTES_MIN: u64 = 8 << 20;

    /// Has glibc keep little; to be called before there is a second thread. By itself it takes the largest
    /// allocation that was freed, up to 32 MiB, as the size of those to come, and keeps twice as much: one
    /// flood of large messages then costs a node memory for as long as it lives (mallopt(3),
    /// `M_MMAP_THRESHOLD`).
    pub fn keep_little() {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let arenas = processors.div_ceil(PROCESSORS_PER_ARENA).min(ARENAS_MAX) as libc::c_int;
        for (parameter, value) in [
            (libc::M_MMAP_THRESHOLD, KEPT_BYTES_MAX),
            (libc::M_TRIM_THRESHOLD, KEPT_BYTES_MAX),
            (libc::M_ARENA_MAX, arenas),
        ] {
            // SAFETY: it takes two numbers and sets one of the allocator's own, under the allocator's own
            // lock; no memory that is in use is touched. A value that is refused changes nothing.
            #[allow(unsafe_code, reason = "see above; std has no word for it")]
            unsafe {
                libc::mallopt(parameter, value);
            }
        }
    }

    /// Gives back what lies free between what is in use, again and again while the process is larger than
    /// it was when this was called: glibc itself gives back only from the heap's end, so each flood of
    /// small requests would leave it a little larger. Takes a tenth of a millisecond, some milliseconds
    /// after a flood. Does not resolve.
    pub async fn give_back() -> Infallible {
        let Some(least) = resident_bytes() else { return std::future::pending().await };
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            if resident_bytes().is_some_and(|bytes| bytes > least + GROWN_BYTES_MIN) {
                // SAFETY: it takes a number, and gives free pages back under the allocator's own lock; no
                // memory that is in use is touched.
                #[allow(unsafe_code, reason = "see above; std has no word for it")]
                unsafe {
                    libc::malloc_trim(0);
                }
            }
        }
    }
}

/// Other C libraries are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod here {
    use std::convert::Infallible;

    /// Nothing is to be set.
    pub fn keep_little() {}

    /// Does not resolve.
    pub async fn give_back() -> Infallible {
        std::future::pending().await
    }
}
