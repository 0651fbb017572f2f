//! Which lines of diagnostics are written: a default level, and levels of their own for actors and
//! messages that match a pattern. Pure.

use crate::model::Disposition;
use crate::observe::Pattern;
use slog::FilterLevel;
use std::fmt;
use std::str::FromStr;

/// Which lines are written, as in `info,partitions/*/log:trace,http:off`.
///
/// Patterns are those of [`Pattern`]: they match a path's end as well as the whole of it, and
/// everything below what they match. The message that is handled when a line is written is the
/// last step of its path: `*/Append:debug` holds for all that is written while an `Append` is
/// handled. A pattern with `*` or `/` in it and no level means `trace`. The last pattern that
/// matches wins.
///
/// What libraries write has paths below `library`. Beyond warnings it is written only where a
/// pattern begins with `library`: nobody who asks for more of a node wants all that is below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelSpec {
    default: FilterLevel,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    pattern: Pattern,
    level: FilterLevel,
}

impl Rule {
    fn library_level(&self) -> FilterLevel {
        if self.pattern.begins_with(LIBRARY) { self.level } else { self.level.min(LIBRARY_LEVEL) }
    }
}

/// The first step of the paths of libraries.
pub const LIBRARY: &str = "library";
/// What libraries write unless they are named.
const LIBRARY_LEVEL: FilterLevel = FilterLevel::Warning;

fn is_library(path: &str) -> bool {
    path.strip_prefix(LIBRARY).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Why a level specification was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LevelSpecError {
    /// A part is empty, as in `info,,x`.
    #[error("\"{spec}\" has an empty part; write for example info,partitions/*/log:trace")]
    EmptyPart {
        /// The whole specification.
        spec: String,
    },
    /// What follows the colon is no level.
    #[error(
        "\"{level}\" is not a level; levels are trace, debug, info, warning, error, critical, off"
    )]
    UnknownLevel {
        /// What was given.
        level: String,
    },
}

impl LevelSpecError {
    /// Who must act: whoever wrote it.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::EmptyPart { .. } | Self::UnknownLevel { .. } => Disposition::TellCaller,
        }
    }
}

impl Default for LevelSpec {
    fn default() -> Self {
        Self { default: FilterLevel::Info, rules: Vec::new() }
    }
}

impl LevelSpec {
    /// The most detailed level that any actor has: nothing beyond it is ever written.
    pub fn most_detailed(&self) -> FilterLevel {
        self.rules.iter().map(|rule| rule.level).fold(self.default, Ord::max)
    }

    /// Whether a line's level depends on which actor wrote it.
    pub fn has_patterns(&self) -> bool {
        !self.rules.is_empty()
    }

    /// The level of the actor, or of the message, at `path`; `""` for what no actor wrote.
    pub fn level_of(&self, path: &str) -> FilterLevel {
        self.level_of_message(path, "")
    }

    /// The level of what the actor at `path` writes while it handles a message of this name; `""`
    /// for what it writes outside of any.
    pub fn level_of_message(&self, path: &str, message: &str) -> FilterLevel {
        let covers = |rule: &&Rule| rule.pattern.covers_message(path, message);
        let matching = self.rules.iter().rev().find(covers);
        if !is_library(path) {
            return matching.map_or(self.default, |rule| rule.level);
        }
        match matching {
            Some(rule) => rule.library_level(),
            None => self.default.min(LIBRARY_LEVEL),
        }
    }

    /// The most detailed level that any library has.
    pub fn most_detailed_library(&self) -> FilterLevel {
        let least = self.default.min(LIBRARY_LEVEL);
        self.rules.iter().map(Rule::library_level).fold(least, Ord::max)
    }
}

impl fmt::Display for LevelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(level_name(self.default))?;
        self.rules
            .iter()
            .try_for_each(|rule| write!(f, ",{}:{}", rule.pattern, level_name(rule.level)))
    }
}

impl FromStr for LevelSpec {
    type Err = LevelSpecError;

    fn from_str(spec: &str) -> Result<Self, LevelSpecError> {
        let mut read = Self::default();
        for part in spec.split(',').map(str::trim) {
            if part.is_empty() {
                return Err(LevelSpecError::EmptyPart { spec: spec.into() });
            }
            if let Some(level) = parse_level(part) {
                read.default = level;
                continue;
            }
            let (pattern, level) = match part.rsplit_once(':') {
                Some((pattern, level)) => {
                    let unknown = || LevelSpecError::UnknownLevel { level: level.into() };
                    (pattern, parse_level(level).ok_or_else(unknown)?)
                }
                // A lone word is more likely a level misspelt than an actor's name.
                None if !part.contains(['/', '*']) => {
                    return Err(LevelSpecError::UnknownLevel { level: part.into() });
                }
                None => (part, FilterLevel::Trace),
            };
            let Some(pattern) = Pattern::new(pattern) else {
                return Err(LevelSpecError::EmptyPart { spec: spec.into() });
            };
            read.rules.push(Rule { pattern, level });
        }
        Ok(read)
    }
}

fn parse_level(text: &str) -> Option<FilterLevel> {
    Some(match text.to_ascii_lowercase().as_str() {
        "off" => FilterLevel::Off,
        "critical" => FilterLevel::Critical,
        "error" => FilterLevel::Error,
        "warning" | "warn" => FilterLevel::Warning,
        "info" => FilterLevel::Info,
        "debug" => FilterLevel::Debug,
        "trace" => FilterLevel::Trace,
        _ => return None,
    })
}

fn level_name(level: FilterLevel) -> &'static str {
    match level {
        FilterLevel::Off => "off",
        FilterLevel::Critical => "critical",
        FilterLevel::Error => "error",
        FilterLevel::Warning => "warning",
        FilterLevel::Info => "info",
        FilterLevel::Debug => "debug",
        FilterLevel::Trace => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(spec: &str, path: &str) -> &'static str {
        level_name(spec.parse::<LevelSpec>().unwrap().level_of(path))
    }

    #[test]
    fn a_lone_level_holds_for_everyone() {
        assert_eq!(level("debug", "node/http"), "debug");
        assert_eq!(level("warn", ""), "warning");
        assert!(!"debug".parse::<LevelSpec>().unwrap().has_patterns());
    }

    #[test]
    fn a_pattern_holds_for_a_path_its_tail_and_what_lies_below() {
        let spec = "info,partitions/*/log:trace";
        assert_eq!(level(spec, "partitions/0/log"), "trace");
        assert_eq!(level(spec, "node/partitions/0/log"), "trace");
        assert_eq!(level(spec, "node/partitions/0/log/flusher"), "trace");
        assert_eq!(level(spec, "node/partitions/0/raft"), "info");
        assert_eq!(level(spec, "node/partitions/orders/0/log"), "trace");
        assert_eq!(level("info,partitions/**/log:trace", "partitions/orders/0/log"), "trace");
        assert_eq!(level(spec, ""), "info");
    }

    #[test]
    fn the_last_pattern_that_matches_wins_and_may_be_quieter() {
        let spec = "debug,node/**:warning,raft*:off";
        assert_eq!(level(spec, "node/http"), "warning");
        assert_eq!(level(spec, "node/partitions/raft-2"), "off");
        assert_eq!(level(spec, "elsewhere"), "debug");
        assert_eq!(spec.parse::<LevelSpec>().unwrap().most_detailed(), FilterLevel::Debug);
    }

    #[test]
    fn a_message_is_the_last_step_of_the_path() {
        let spec = "info,partitions/*/log:trace,*/Append:debug";
        assert_eq!(level(spec, "node/partitions/log/0/log/Append"), "debug");
        assert_eq!(level(spec, "node/partitions/log/0/log/Attach"), "trace");
        assert_eq!(level(spec, "node/partitions/log/0/raft/Propose"), "info");
        let spec: LevelSpec = spec.parse().unwrap();
        assert_eq!(level_name(spec.level_of_message("node/x", "Append")), "debug");
        assert_eq!(level_name(spec.level_of_message("node/x", "")), "info");
    }

    #[test]
    fn libraries_say_no_more_than_warnings_unless_they_are_named() {
        for spec in ["trace", "info", "trace,**:trace", "warning,*/frames:debug"] {
            assert_eq!(level(spec, "library/h2/frames"), "warning", "{spec}");
            let spec: LevelSpec = spec.parse().unwrap();
            assert_eq!(spec.most_detailed_library(), FilterLevel::Warning);
        }
        assert_eq!(level("error", "library/h2"), "error");
        assert_eq!(level("info,library/h2:debug", "library/h2/proto"), "debug");
        assert_eq!(level("info,library/h2:debug", "library/hyper"), "warning");
        assert_eq!(level("info,library:trace,library/h2:off", "library/h2/proto"), "off");
        assert_eq!(level("debug", "libraryish"), "debug");
        let spec: LevelSpec = "info,library/h2:debug".parse().unwrap();
        assert_eq!(spec.most_detailed_library(), FilterLevel::Debug);
    }

    #[test]
    fn a_pattern_without_a_level_means_trace() {
        assert_eq!(level("partitions/*", "node/partitions/7/log"), "trace");
    }

    #[test]
    fn a_misspelt_level_is_an_error_not_an_actor() {
        let error = "inof".parse::<LevelSpec>().unwrap_err();
        assert_eq!(error, LevelSpecError::UnknownLevel { level: "inof".into() });
        assert!("info,a/b:loud".parse::<LevelSpec>().is_err());
        assert!("info,".parse::<LevelSpec>().is_err());
        assert!("".parse::<LevelSpec>().is_err());
        assert!("info,/:debug".parse::<LevelSpec>().is_err());
    }

    #[test]
    fn a_specification_is_shown_as_it_reads() {
        for spec in ["info", "off,a/*/c:trace", "debug,x*y:critical,**/z:warning"] {
            assert_eq!(spec.parse::<LevelSpec>().unwrap().to_string(), spec);
        }
    }
}
