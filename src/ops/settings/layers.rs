//! The four layers that a setting may come from, and which of them won, key by key.
//!
//! Pure but for [`Sources::gather`], which reads the environment and the file.

use super::error::{Fault, SettingsError};
use super::fields::{self, FIELDS, Field};
use super::file::{self, Given, Said};
use super::value::TomlKind;
use super::{Settings, proglog, rules};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The variable that names the configuration file where no flag does.
pub const CONFIG_VARIABLE: &str = "DURAMEN_CONFIG";
/// Variables of the same prefix that are for client commands.
const CLIENT_VARIABLES: [&str; 2] = ["DURAMEN_TOKEN", "DURAMEN_TOKEN_FILE"];
/// Names this different are no longer suggested (Jaro-Winkler, 1 is equal).
const SIMILAR_ENOUGH: f64 = 0.8;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The configuration file.
    File {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// A flag on the command line.
    Flag {
        /// With its dashes.
        name: &'static str,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{}:{line}", file.display()),
            Self::Environment { variable } => f.write_str(variable),
            Self::Flag { name } => f.write_str(name),
        }
    }
}

/// A setting given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The flag with its dashes.
    pub name: &'static str,
    /// The key it sets.
    pub key: &'static str,
    /// The value as text.
    pub value: String,
}

/// What the layers hold, before it is understood.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Flags, strongest.
    pub flags: Vec<Flag>,
    /// Environment variables; those that do not begin with `DURAMEN_` are ignored.
    pub environment: Vec<(String, String)>,
    /// The configuration file's path and text.
    pub file: Option<(PathBuf, String)>,
}

/// Settings with everything known about where they came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings, valid.
    pub settings: Settings,
    /// What to tell the person who runs the node; not errors.
    pub warnings: Vec<String>,
    /// The configuration file that was read.
    pub file: Option<PathBuf>,
    origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    /// Where the value of `key` came from.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// The keys whose values differ between the two, those that only a restart takes over first.
    pub fn changed_keys(&self, newer: &Settings) -> Vec<&'static str> {
        let changed = |field: &&Field| (field.show)(&self.settings) != (field.show)(newer);
        FIELDS.iter().filter(changed).map(|field| field.key).collect()
    }
}

impl Sources {
    /// Reads the environment and the configuration file (`config`, or what `DURAMEN_CONFIG` names).
    /// Blocks.
    ///
    /// # Errors
    /// A file that was asked for and cannot be read.
    pub fn gather(flags: Vec<Flag>, config: Option<&Path>) -> Result<Self, SettingsError> {
        let environment: Vec<(String, String)> = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into(), value.to_string_lossy().into()))
            .collect();
        let named = environment.iter().find(|(name, _)| name == CONFIG_VARIABLE);
        let named =
            named.map(|(_, path)| Path::new(path)).filter(|path| !path.as_os_str().is_empty());
        let file = config.or(named).map(read_file).transpose()?;
        Ok(Self { flags, environment, file })
    }

    /// Lays the layers over the defaults and checks the outcome.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn layer(&self) -> Result<Loaded, SettingsError> {
        let mut layers = Layers::default();
        if let Some((file, text)) = &self.file {
            layers.take_file(file, text);
        }
        for (variable, value) in &self.environment {
            layers.take_variable(variable, value);
        }
        for flag in &self.flags {
            let field = fields::find(flag.key).expect("flags name fields that exist");
            layers.take(field, &flag.value, Origin::Flag { name: flag.name });
        }
        layers.finish(self.file.as_ref().map(|(path, _)| path.clone()))
    }
}

#[allow(clippy::disallowed_methods, reason = "the edge where the configuration file is read")]
fn read_file(path: &Path) -> Result<(PathBuf, String), SettingsError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((path.to_owned(), text)),
        Err(source) => {
            Err(SettingsError { faults: vec![Fault::Unreadable { file: path.to_owned(), source }] })
        }
    }
}

/// The known name most like `name`, where one is like it at all.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|candidate| (strsim::jaro_winkler(name, candidate), candidate));
    let best = scored.max_by(|left, right| left.0.total_cmp(&right.0))?;
    (best.0 >= SIMILAR_ENOUGH).then_some(best.1)
}

#[derive(Default)]
struct Layers {
    settings: Settings,
    origins: BTreeMap<&'static str, Origin>,
    warnings: Vec<String>,
    faults: Vec<Fault>,
}

impl Layers {
    fn take(&mut self, field: &'static Field, text: &str, origin: Origin) {
        if (field.set)(&mut self.settings, text) {
            self.origins.insert(field.key, origin);
        } else {
            let found = match fields::is_secret(field.key) {
                true => "not one".to_owned(),
                false => format!("\"{}\"", without_user(text)),
            };
            self.wrong_kind(field, found, origin);
        }
    }

    fn wrong_kind(&mut self, field: &'static Field, found: String, origin: Origin) {
        let expected = (field.kind)().1;
        self.faults.push(Fault::WrongKind { origin, key: field.key, found, expected });
    }

    fn take_variable(&mut self, variable: &str, value: &str) {
        let is_of_clients = CLIENT_VARIABLES.contains(&variable);
        if !variable.starts_with("DURAMEN_") || variable == CONFIG_VARIABLE || is_of_clients {
            return;
        }
        if let Some(field) = FIELDS.iter().find(|field| field.variable() == variable) {
            return self.take(field, value, Origin::Environment { variable: variable.into() });
        }
        let known: Vec<String> = FIELDS.iter().map(Field::variable).collect();
        let names = known.iter().map(String::as_str).chain([CONFIG_VARIABLE]);
        let hint = nearest(variable, names)
            .map_or_else(String::new, |name| format!("; did you mean {name}?"));
        self.warnings.push(format!("unknown environment variable {variable} is ignored{hint}"));
    }

    fn take_file(&mut self, file: &Path, text: &str) {
        let said = match file::read(file, text) {
            Ok(said) => said,
            Err(fault) => return self.faults.push(fault),
        };
        let said = proglog::translated(file, said, &mut self.faults, &mut self.warnings);
        for said in said {
            self.take_file_value(file, said);
        }
    }

    fn take_file_value(&mut self, file: &Path, Said { key, line, value }: Said) {
        let Some(field) = fields::find(&key) else {
            let nearest = nearest(&key, FIELDS.iter().map(|field| field.key));
            let file = file.to_owned();
            return self.faults.push(Fault::UnknownKey { file, line, key, nearest });
        };
        let origin = Origin::File { file: file.to_owned(), line };
        match ((field.kind)().0, value) {
            (TomlKind::Text | TomlKind::List, Given::Text(text))
            | (TomlKind::Integer | TomlKind::Number, Given::Integer(text))
            | (TomlKind::Number, Given::Float(text)) => self.take(field, &text, origin),
            // A comma within a part would make two of it.
            (TomlKind::List, Given::List(parts)) if !parts.iter().any(|p| p.contains(',')) => {
                self.take(field, &parts.join(","), origin);
            }
            (TomlKind::Boolean, Given::Boolean(truth)) => {
                self.take(field, if truth { "true" } else { "false" }, origin);
            }
            (_, Given::Integer(number)) => {
                self.wrong_kind(field, format!("the number {number}"), origin);
            }
            (_, other) => {
                let found = match other {
                    Given::Text(_) => "string",
                    Given::Integer(_) => "integer",
                    Given::Float(_) => "float",
                    Given::Boolean(_) => "boolean",
                    Given::List(_) => "array",
                    Given::Other(name) => name,
                };
                self.wrong_kind(field, format!("of type {found}"), origin);
            }
        }
    }

    fn finish(mut self, file: Option<PathBuf>) -> Result<Loaded, SettingsError> {
        // A value that could not be read is not the user's: rules about it would only confuse.
        if self.faults.is_empty() {
            for (key, rule) in rules::broken(&self.settings) {
                let field = fields::find(key).expect("rules name fields that exist");
                let origin = self.origins.get(key).cloned().unwrap_or(Origin::Default);
                let value = field.show_redacted(&self.settings);
                self.faults.push(Fault::Forbidden { origin, key, value, rule });
            }
        }
        if !self.faults.is_empty() {
            return Err(SettingsError { faults: self.faults });
        }
        let Self { settings, origins, warnings, .. } = self;
        Ok(Loaded { settings, warnings, file, origins })
    }
}

/// An address that is refused for its password is not refused by showing it.
fn without_user(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://(not shown)@{host}"),
        _ => text.to_owned(),
    }
}
