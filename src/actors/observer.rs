//! The seam between front ends and the inside of a node: its tree, taps, explanations, and what an
//! operator may do. Front ends are written against [`ObserveApi`] and know neither tree nor
//! mailboxes. Nothing here asks an actor anything, so that it answers while a shard hangs.

mod place;
mod resolve;

pub use place::{InHand, PlaceKind, PlaceReport, TreeReport};

use super::explain::{Explanation, Subject};
use crate::model::{Clock, Disposition};
use crate::observe::{Hub, Pattern, Tap, TapFilter, TooManyTaps};
use crate::supervision::{ActorPath, State, TreeError, TreeHandle, TreeStatus};
use slog::{Logger, info};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A longer text is taken for no name of anything.
const NAME_BYTES_MAX: usize = 4096;
/// What partitions are below.
const PARTITIONS: &str = "partitions/";
/// The tree answers before every state shows what was decided: so often, and with this pause, it
/// is looked at before it is told how things stand.
const LOOKS_MAX: u32 = 100;
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Everything a front end may see of the inside of a node, and do to it. Callable from any thread.
pub trait ObserveApi: fmt::Debug + Send + Sync + 'static {
    /// The places that a pattern covers, or all; parents before their children.
    ///
    /// # Errors
    /// When the pattern covers nothing.
    fn tree(&self, pattern: Option<&Pattern>) -> Result<TreeReport, ObserveError>;

    /// Opens a tap.
    ///
    /// # Errors
    /// When its pattern covers nobody, or there are as many taps as there may be.
    fn tap(&self, filter: TapFilter) -> Result<OpenTap, ObserveError>;

    /// Tells why something waits.
    ///
    /// # Errors
    /// When there is no such thing.
    fn explain(&self, subject: Subject) -> Result<Explanation, ObserveError>;

    /// Acts on a place, given by its path or an unambiguous tail of it. `reason` is for the log,
    /// and for those who find the place quarantined.
    fn act(&self, action: Action, place: String, reason: String) -> Acting;

    /// Which lines of diagnostics are written.
    ///
    /// # Errors
    /// When the node does not decide that.
    fn log_levels(&self) -> Result<LogLevels, ObserveError>;

    /// Changes which lines of diagnostics are written.
    ///
    /// # Errors
    /// When the text is no specification, or the node does not decide that.
    fn set_log_levels(&self, spec: &str) -> Result<LogLevels, ObserveError>;
}

/// What an operator may do to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Stop it and start it again, with those that depend on it.
    Restart,
    /// Take its fault domain out of service.
    Quarantine,
    /// Bring its fault domain back into service.
    Release,
}

impl Action {
    /// The name on the command line and in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Quarantine => "quarantine",
            Self::Release => "release",
        }
    }
}

/// An action under way.
pub type Acting = Pin<Box<dyn Future<Output = Result<Acted, ObserveError>> + Send>>;

/// What an action did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acted {
    /// The place that was meant.
    pub path: String,
    /// It, and what goes the same way with it, each with its state at the moment.
    pub affected: Vec<(String, &'static str)>,
    /// What happens next.
    pub next: String,
}

/// A tap that was opened.
#[derive(Debug)]
pub struct OpenTap {
    /// Where the messages come out.
    pub tap: Tap,
    /// What is odd about the request.
    pub warnings: Vec<String>,
}

/// Which lines of diagnostics are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevels {
    /// Now.
    pub spec: String,
    /// Before it was changed; the same where nothing was.
    pub before: String,
    /// Lines dropped since the node started.
    pub dropped: u64,
}

/// Whoever decides which lines of diagnostics are written.
pub trait LogLevelControl: Send + Sync + 'static {
    /// The specification in force.
    fn spec(&self) -> String;
    /// Puts another one in force.
    ///
    /// # Errors
    /// Why the text is none.
    fn set_spec(&self, spec: &str) -> Result<(), String>;
    /// Lines dropped since the node started.
    fn dropped(&self) -> u64;
}

/// Whoever knows why something waits.
pub trait Explainer: Send + Sync + 'static {
    /// The explanation; `None` where there is no such thing. An actor is given by its whole path.
    fn explain(&self, subject: &Subject) -> Option<Explanation>;
}

/// Why something inside a node is not shown, or not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObserveError {
    /// No such place.
    #[error("there is no {path} in the tree{}", mean(nearest))]
    UnknownPlace {
        /// What was asked for.
        path: String,
        /// What may have been meant.
        nearest: Option<String>,
    },
    /// A tail of several paths.
    #[error("{path} is any of {}: give more of the path", candidates.join(", "))]
    AmbiguousPlace {
        /// What was asked for.
        path: String,
        /// What it may be.
        candidates: Vec<String>,
    },
    /// The request makes no sense.
    #[error("{message}")]
    Invalid {
        /// What is wrong with it.
        message: String,
    },
    /// The place is not one that this can be done to at present.
    #[error("{message}")]
    NotNow {
        /// What it is instead.
        message: String,
    },
    /// There are as many taps as there may be.
    #[error(transparent)]
    TooManyTaps(#[from] TooManyTaps),
    /// The node runs inside a program that has a logger of its own.
    #[error("this node's log levels are the affair of the program that it runs in")]
    ForeignLogger,
    /// The node has stopped.
    #[error("the node has stopped")]
    Ended,
}

fn mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|nearest| format!("; did you mean {nearest}?")).unwrap_or_default()
}

impl ObserveError {
    /// Who must act: whoever asked, always.
    pub fn disposition(&self) -> Disposition {
        Disposition::TellCaller
    }
}

/// [`ObserveApi`] of a whole node.
pub struct Observer {
    /// The tree.
    pub tree: TreeHandle,
    /// The recorders, and taps on them.
    pub hub: Arc<Hub>,
    /// The clock of the recorders.
    pub clock: Arc<dyn Clock>,
    /// `None` where the node does not decide what is logged.
    pub log_levels: Option<Arc<dyn LogLevelControl>>,
    /// Knows why something waits.
    pub explainer: Arc<dyn Explainer>,
    /// By which operators come in: out of service it could never be released.
    pub entrance: ActorPath,
    /// Where it is told what operators do.
    pub logger: Logger,
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

impl Observer {
    fn places(&self) -> Vec<PlaceReport> {
        let now = self.clock.monotonic();
        place::report(&self.tree.status(), &self.hub.recorders(), now)
    }

    fn paths(&self) -> Vec<String> {
        self.places().into_iter().map(|place| place.path).collect()
    }

    /// Explains the partition that is at this path.
    fn explain_partition(&self, path: &str) -> Result<Explanation, ObserveError> {
        let explained = |path: &str| {
            let (_, name) = path.split_once(PARTITIONS)?;
            self.explainer.explain(&Subject::Partition(name.into()))
        };
        explained(path).ok_or_else(|| {
            // A place within a partition: that one was meant, or the actor.
            let mut above = path.match_indices('/').map(|(at, _)| &path[..at]);
            let nearest = above.rfind(|above| explained(above).is_some());
            let nearest = nearest.map(str::to_owned);
            ObserveError::UnknownPlace { path: format!("partition {path}"), nearest }
        })
    }

    fn log_control(&self) -> Result<&dyn LogLevelControl, ObserveError> {
        self.log_levels.as_deref().ok_or(ObserveError::ForeignLogger)
    }
}

/// What is odd about the types of messages that a tap names.
fn doubts(filter: &TapFilter, hub: &Hub) -> Vec<String> {
    let recorders = hub.recorders();
    let covered = recorders.iter().filter(|recorder| filter.pattern.covers(recorder.path_text()));
    let mut known: Vec<&str> =
        covered.flat_map(|recorder| recorder.reading().kinds).map(|kind| kind.message).collect();
    known.sort_unstable();
    known.dedup();
    let unknown = filter.messages.iter().filter(|name| !known.contains(&name.as_str()));
    unknown
        .map(|name| {
            let nearest = resolve::nearest(name, known.iter().copied());
            let hint = nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            format!("no message {name} was handled there so far{hint}")
        })
        .collect()
}

impl ObserveApi for Observer {
    fn tree(&self, pattern: Option<&Pattern>) -> Result<TreeReport, ObserveError> {
        self.hub.tell_of_unlogged();
        let mut places = self.places();
        if let Some(pattern) = pattern {
            check_len(&pattern.to_string())?;
            let paths: Vec<String> = places.iter().map(|place| place.path.clone()).collect();
            resolve::check_pattern(pattern, &paths)?;
            places.retain(|place| pattern.covers(&place.path));
        }
        Ok(TreeReport {
            time: self.clock.wall(),
            places,
            taps: self.hub.taps(),
            tap_dropped: self.hub.dropped(),
            log_dropped: self.log_levels.as_ref().map_or(0, |control| control.dropped())
                + self.hub.unlogged(),
        })
    }

    fn tap(&self, filter: TapFilter) -> Result<OpenTap, ObserveError> {
        check_len(&filter.pattern.to_string())?;
        filter.messages.iter().try_for_each(|name| check_len(name))?;
        resolve::check_pattern(&filter.pattern, &self.paths())?;
        let warnings = doubts(&filter, &self.hub);
        Ok(OpenTap { tap: self.hub.tap(filter)?, warnings })
    }

    fn explain(&self, subject: Subject) -> Result<Explanation, ObserveError> {
        let subject = match subject {
            Subject::Node => Subject::Node,
            // A partition is a place too: what is meant by a wrong name is found in the same way.
            Subject::Partition(name) => {
                check_len(&name)?;
                let path = resolve::place(&self.paths(), &format!("{PARTITIONS}{name}"))?;
                return self.explain_partition(&path);
            }
            Subject::Actor(path) => {
                check_len(&path)?;
                Subject::Actor(resolve::place(&self.paths(), &path)?)
            }
        };
        let unknown = |path: String| ObserveError::UnknownPlace { path, nearest: None };
        self.explainer.explain(&subject).ok_or_else(|| match subject {
            Subject::Node => unknown("node".into()),
            Subject::Partition(path) | Subject::Actor(path) => unknown(path),
        })
    }

    fn act(&self, action: Action, place: String, reason: String) -> Acting {
        let (tree, logger) = (self.tree.clone(), self.logger.clone());
        let (places, entrance) = (self.places(), self.entrance.clone());
        Box::pin(async move {
            let paths: Vec<String> = places.iter().map(|place| place.path.clone()).collect();
            check_len(&place)?;
            let path = resolve::place(&paths, &place)?;
            let is_worker = |place: &&PlaceReport| place.kind == PlaceKind::Worker;
            if places.iter().filter(is_worker).any(|worker| worker.path == path) {
                let message = format!("{path} is a worker: act on the actor that it belongs to");
                return Err(ObserveError::NotNow { message });
            }
            let at = ActorPath::from(path.as_str());
            if action == Action::Quarantine && entrance.is_within(&at) {
                let message = format!(
                    "{path} holds the way by which it would have to be released: restart it"
                );
                return Err(ObserveError::NotNow { message });
            }
            info!(logger, "an operator acts"; "action" => action.name(), "place" => &path,
                "reason" => &reason);
            match action {
                Action::Restart => tree.restart(&at).await,
                Action::Quarantine => tree.quarantine(&at, reason).await,
                Action::Release => tree.release(&at).await,
            }
            .map_err(|error| refused(error, action))?;
            for _ in 0..LOOKS_MAX {
                let status = tree.status();
                let state = status.find(&at).map(|place| &place.state);
                let is_out = matches!(state, Some(State::Quarantined { .. }));
                if action == Action::Restart || is_out == (action == Action::Quarantine) {
                    break;
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            let affected = affected(&tree.status(), &at, &tree.fault_domain(&at));
            let next = what_next(action, &path, &affected);
            Ok(Acted { path, affected, next })
        })
    }

    fn log_levels(&self) -> Result<LogLevels, ObserveError> {
        let control = self.log_control()?;
        let spec = control.spec();
        Ok(LogLevels { before: spec.clone(), spec, dropped: control.dropped() })
    }

    fn set_log_levels(&self, spec: &str) -> Result<LogLevels, ObserveError> {
        let control = self.log_control()?;
        let before = control.spec();
        control.set_spec(spec).map_err(|message| ObserveError::Invalid { message })?;
        let spec = control.spec();
        info!(self.logger, "log levels changed"; "spec" => &spec, "before" => &before);
        Ok(LogLevels { spec, before, dropped: control.dropped() })
    }
}

/// Refuses what is too long to be a name, before it is held against anything.
fn check_len(text: &str) -> Result<(), ObserveError> {
    if text.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    let message = format!(
        "the name takes {} bytes, and no name takes more than {NAME_BYTES_MAX}: `duramen ps` shows \
         the names there are",
        text.len()
    );
    Err(ObserveError::Invalid { message })
}

fn refused(error: TreeError, action: Action) -> ObserveError {
    match error {
        TreeError::Unknown { path } => {
            ObserveError::UnknownPlace { path: path.to_string(), nearest: None }
        }
        TreeError::Ended => ObserveError::Ended,
        TreeError::Exists { .. } => ObserveError::NotNow { message: error.to_string() },
        TreeError::NotNow { path, state, .. } => {
            let mut message = format!("cannot {} {path}: it is {state}", action.name());
            if action == Action::Restart && state.starts_with("quarantined") {
                message.push_str(&format!("; `duramen actor release {path}` brings it back"));
            }
            ObserveError::NotNow { message }
        }
    }
}

/// The place, and those of its fault domain that are not running.
fn affected(
    root: &TreeStatus,
    path: &ActorPath,
    domain: &ActorPath,
) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    let mut places = vec![root];
    while let Some(at) = places.pop() {
        places.extend(at.children.iter().rev());
        let is_with_it =
            at.path != *domain && at.path.is_within(domain) && at.state != State::Running;
        if at.path == *path || is_with_it {
            found.push((at.path.to_string(), place::state_name(&at.state)));
        }
    }
    found
}

fn what_next(action: Action, path: &str, affected: &[(String, &'static str)]) -> String {
    let others = affected.iter().filter(|(place, _)| place != path).count();
    let with = match others {
        0 => String::new(),
        1 => " with one other place of its fault domain".into(),
        more => format!(" with {more} other places of its fault domain"),
    };
    match action {
        Action::Restart => format!(
            "it stops and starts again{with}; until then callers are refused and told when to try \
             again. `duramen ps` shows when it runs"
        ),
        Action::Quarantine => format!(
            "it stops{with} and takes nothing more; what was committed can still be read. It \
             comes back by `duramen actor release {path}`"
        ),
        Action::Release => format!(
            "it starts again{with}, from what is on disk, and takes requests once it runs; its \
             count of crashes begins anew. `duramen explain actor {path}` tells how far it is"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervision::Kind;

    fn status(path: &str, kind: Kind, state: State, children: Vec<TreeStatus>) -> TreeStatus {
        TreeStatus {
            path: path.into(),
            kind,
            state,
            generation: 1,
            restarts: 0,
            last_exit: None,
            uptime: None,
            in_flight: 0,
            refused: 0,
            children,
        }
    }

    #[test]
    fn an_action_tells_of_its_fault_domain_and_of_nobody_else() {
        let actor = |path, state| status(path, Kind::Actor, state, Vec::new());
        let pair =
            vec![actor("node/p/log", State::Stopping), actor("node/p/raft", State::Stopping)];
        let partition = status("node/p", Kind::Supervisor, State::Running, pair);
        let other = actor("node/other", State::Stopping);
        let root = status("node", Kind::Supervisor, State::Running, vec![partition, other]);
        let found = affected(&root, &"node/p/raft".into(), &"node/p".into());
        assert_eq!(
            found,
            [("node/p/log".to_owned(), "stopping"), ("node/p/raft".to_owned(), "stopping")]
        );
        assert!(what_next(Action::Restart, "node/p/raft", &found).contains("one other place"));
        let found = affected(&root, &"node/p".into(), &"node/p".into());
        assert_eq!(found.len(), 3, "{found:?}");
        let alone = affected(&root, &"node/other".into(), &"node/other".into());
        assert_eq!(alone, [("node/other".to_owned(), "stopping")], "of itself alone");
    }

    #[test]
    fn what_is_quarantined_is_told_to_be_released_and_not_restarted() {
        let (path, state) = ("node/p".into(), "quarantined since 7: fsync failed".into());
        let error = TreeError::NotNow { path, verb: "restart", state };
        let text = refused(error, Action::Restart).to_string();
        assert!(text.contains("fsync failed; `duramen actor release node/p`"), "{text}");
    }
}
