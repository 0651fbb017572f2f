//! What can be wrong with settings, each with the place it came from, all of them at once.

use super::Origin;
use crate::model::Disposition;
use std::fmt;
use std::path::PathBuf;

/// One thing wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The file cannot be read.
    #[error("{}: the configuration file cannot be read: {source}", file.display())]
    Unreadable {
        /// The file asked for.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is neither TOML nor, where its name says so, YAML.
    #[error("{}:{line}: {message}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// The file holds a key that nothing reads.
    #[error("{}:{line}: unknown key \"{key}\"{}", file.display(), did_you_mean(nearest))]
    UnknownKey {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The dotted key.
        key: String,
        /// The known key most like it.
        nearest: Option<&'static str>,
    },
    /// A value is not of the kind its key takes.
    #[error("{origin}: {key} is {found}: expected {expected}")]
    WrongKind {
        /// Where the value came from.
        origin: Origin,
        /// The dotted key.
        key: &'static str,
        /// What was given.
        found: String,
        /// What the key takes.
        expected: &'static str,
    },
    /// A value is of the right kind, but not allowed.
    #[error("{origin}: {key} is {value}: {rule}")]
    Forbidden {
        /// Where the value came from.
        origin: Origin,
        /// The dotted key.
        key: &'static str,
        /// The value.
        value: String,
        /// What would be allowed.
        rule: String,
    },
}

impl Fault {
    /// Who must act: always whoever wrote the settings.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Unreadable { .. }
            | Self::Syntax { .. }
            | Self::UnknownKey { .. }
            | Self::WrongKind { .. }
            | Self::Forbidden { .. } => Disposition::TellCaller,
        }
    }
}

/// All that is wrong with the settings.
#[derive(Debug)]
pub struct SettingsError {
    /// At least one fault, in the order found.
    pub faults: Vec<Fault>,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, fault) in self.faults.iter().enumerate() {
            let separator = if position == 0 { "" } else { "\n" };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingsError {}

/// The hint behind an unknown name; empty where nothing is like it.
fn did_you_mean(nearest: &Option<&'static str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean \"{name}\"?"))
}
