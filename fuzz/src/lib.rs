//! What every fuzz target is: one of duramen's by its name, driven by libFuzzer.

pub use libfuzzer_sys;

/// Gives what libFuzzer makes up to the target of this name.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        $crate::libfuzzer_sys::fuzz_target!(
            init: $crate::set_hook(),
            |bytes: &[u8]| {
                static TARGET: std::sync::OnceLock<fn(&[u8])> = std::sync::OnceLock::new();
                TARGET.get_or_init(|| $crate::run_of($name))(bytes)
            }
        );
    };
}

/// The body of a target.
///
/// # Panics
/// There is none of this name.
pub fn run_of(name: &str) -> fn(&[u8]) {
    duramen::testing::fuzz::target(name).expect("the table has every binary's target").run
}

/// libFuzzer's own hook ends the process at any panic, also one that duramen contains, as casbin's
/// are. One that nobody catches ends it without the hook as well.
pub fn set_hook() {
    std::panic::set_hook(Box::new(|panic| {
        if std::env::var_os("DURAMEN_FUZZ_QUIET").is_none() {
            eprintln!("{panic}");
        }
    }));
}
