//! How much freed memory the C library keeps for itself.

/// From this size on an allocation has pages of its own, which go back to the system when it is freed,
/// and no more than this is kept free at the heap's end (unit: bytes). Batches of common sizes are below.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES_MAX: libc::c_int = 4 << 20;

/// Has glibc keep little. By itself it takes the largest allocation that was freed, up to 32 MiB, as the
/// size of those to come, and keeps twice as much: one flood of large messages then costs a node memory
/// for as long as it lives (mallopt(3), `M_MMAP_THRESHOLD`). Other C libraries are left as they are.
pub fn keep_little() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for parameter in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: it takes two numbers and sets one of the allocator's own, under the allocator's own
        // lock; no memory that is in use is touched. A value that is refused changes nothing.
        #[allow(unsafe_code, reason = "see above; std has no word for it")]
        unsafe {
            libc::mallopt(parameter, KEPT_BYTES_MAX);
        }
    }
}
