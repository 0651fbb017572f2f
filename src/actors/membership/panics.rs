//! Counts panics of memberlist's own tasks: the runtime swallows them, so nobody else would know
//! that its state is no longer to be trusted.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static COUNTED: AtomicU64 = AtomicU64::new(0);

/// Panics in memberlist so far, in this process.
pub fn count() -> u64 {
    COUNTED.load(Ordering::Relaxed)
}

/// Begins to count, once in a process; every panic still goes to the hook that was there before.
pub fn watch() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.location().is_some_and(|location| is_memberlist(location.file())) {
                COUNTED.fetch_add(1, Ordering::Relaxed);
            }
            before(info);
        }));
    });
}

/// Not this room, whose own panics the supervisor sees.
fn is_memberlist(file: &str) -> bool {
    file.contains("/memberlist-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_librarys_own_files_count() {
        assert!(is_memberlist("/root/.cargo/registry/src/x/memberlist-core-0.8.5/src/state.rs"));
        assert!(!is_memberlist("src/actors/membership/gossip.rs"));
    }
}
