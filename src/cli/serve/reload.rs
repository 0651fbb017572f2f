//! SIGHUP: the configuration is read again, what can change while the node runs is taken over, and
//! the rest is named.

use crate::ops::logger::LoggerHandle;
use crate::ops::settings::{Flag, Loaded, Settings, SettingsError, Sources};
use slog::{Logger, error, info, warn};
use std::path::PathBuf;

/// The keys that are taken over without a restart.
const TAKEN_OVER: [&str; 1] = ["logger.spec"];

/// Reads the configuration again as it was read at the start.
#[derive(Debug)]
pub struct Reloader {
    flags: Vec<Flag>,
    config: Option<PathBuf>,
    running: Loaded,
}

impl Reloader {
    /// What is running now, and where it was read from.
    pub fn new(flags: Vec<Flag>, config: Option<PathBuf>, running: Loaded) -> Self {
        Self { flags, config, running }
    }

    /// What is running now.
    pub fn settings(&self) -> &Settings {
        &self.running.settings
    }

    /// Reads and takes over; a configuration with a fault changes nothing. Blocks shortly.
    pub fn reload(&mut self, handle: &LoggerHandle, logger: &Logger) {
        let newer = match self.read() {
            Ok(newer) => newer,
            Err(error) => {
                error!(logger, "the configuration is not valid, nothing was taken over";
                    "error" => %error);
                return;
            }
        };
        for warning in &newer.warnings {
            warn!(logger, "{warning}");
        }
        let changed = self.running.changed_keys(&newer.settings);
        let (taken, waiting): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|key| TAKEN_OVER.contains(key));
        self.running.settings.logger.spec = newer.settings.logger.spec.clone();
        handle.set_spec(newer.settings.logger.spec);
        info!(logger, "the configuration was read again"; "taken_over" => taken.join(" "));
        if !waiting.is_empty() {
            warn!(logger, "some settings changed that need a restart"; "keys" => waiting.join(" "));
        }
    }

    fn read(&self) -> Result<Loaded, SettingsError> {
        Sources::gather(self.flags.clone(), self.config.as_deref())?.layer()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests write the configuration file")]
mod tests {
    use super::*;
    use crate::model::{ManualClock, Timestamp};
    use crate::ops::logger;
    use crate::ops::settings::LogFormat;
    use std::sync::Arc;

    #[test]
    fn the_log_levels_are_taken_over_and_a_faulty_file_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("node.toml");
        std::fs::write(&file, "").unwrap();
        let read = || Sources::gather(Vec::new(), Some(&file)).unwrap().layer();
        let mut reloader = Reloader::new(Vec::new(), Some(file.clone()), read().unwrap());
        let clock = Arc::new(ManualClock::at(Timestamp(0)));
        let spec = reloader.settings().logger.spec.clone();
        let (logger, handle) = logger::start_on(std::io::sink(), LogFormat::Text, spec, clock);

        std::fs::write(&file, "[logger]\nspec = \"debug\"\n[rpc]\nstreams_max = 3\n").unwrap();
        reloader.reload(&handle, &logger);
        assert_eq!(handle.spec().to_string(), "debug");
        assert_ne!(reloader.settings().rpc.streams_max, 3, "that one needs a restart");

        std::fs::write(&file, "[logger]\nspec = \"trace\"\nnonsense = 1\n").unwrap();
        reloader.reload(&handle, &logger);
        assert_eq!(handle.spec().to_string(), "debug");
    }
}
