//! Keeps what is in force at the node's door what the cluster's catalogue and the node's files say: a
//! task on the control thread, supervised as what serves a port is.
//!
//! A node that cannot know denies. A mark in the data directory says that access control was on when
//! it was known last: a node that starts again waits for a current catalogue before it lets anybody
//! pass, and so does one that joins. Where it was off, nothing waits. One that is cut off from the
//! controller's leader denies as well, after a while: what it knows may be over.

use super::cluster::peer_proof;
use super::freshness::Freshness;
use super::task;
use crate::access::{AuditSink, Gate, Judge, Law, Laws, Policy, TokenKeys, TokenTerms};
use crate::actors::control::ControlApi;
use crate::cluster::Catalogue;
use crate::frontends::access::{Door, TokenShelf};
use crate::model::Clock;
use crate::ops::audit::AuditLog;
use crate::ops::data_dir::DataDir;
use crate::ops::settings::{AccessSettings, Settings};
use crate::supervision::Supervisor;
use slog::{Logger, error, info, warn};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// How often files are looked at, and whether the catalogue is current.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often the catalogue is, where nobody passes before.
const LOOK_EVERY_UNKNOWN: Duration = Duration::from_millis(10);
/// There while access control is on.
const MARK: &str = "ACCESS";

/// What the door is made of and kept by.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub door: Arc<Door>,
    pub gate: Gate,
    tokens: TokenShelf,
    settings: AccessSettings,
    mark: PathBuf,
    clock: Arc<dyn Clock>,
    /// Until the catalogue is current it is not known whether anything is permitted.
    starts_unknown: bool,
    logger: Logger,
}

/// How the cluster's policy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Off,
    On,
    Unknown,
    /// It is on, and may have changed since this node heard of it.
    Doubtful,
}

/// How files are, as far as it shows from outside.
type Looks = [Option<(u64, Option<SystemTime>)>; 3];

impl Access {
    /// As the node starts: nobody passes before it is known who may.
    pub fn new(
        settings: &Settings,
        data_dir: &DataDir,
        clock: &Arc<dyn Clock>,
        audit: &AuditLog,
        logger: Logger,
    ) -> Self {
        let mark = data_dir.path().join(MARK);
        let is_new = settings.gossip.joins() && data_dir.cluster().is_none();
        let starts_unknown = settings.access.enabled || is_new || mark.exists();
        let (gate, tokens) = (Gate::default(), TokenShelf::default());
        let proof = peer_proof(settings);
        warn_of_strangers(settings, &logger);
        let audit = Some(Arc::new(audit.clone()) as Arc<dyn AuditSink>);
        let door = Door::new(gate.clone(), Arc::clone(&tokens), proof, Arc::clone(clock), audit);
        let (settings, clock) = (settings.access.clone(), Arc::clone(clock));
        let access = Self { door, gate, tokens, settings, mark, clock, starts_unknown, logger };
        let _read_again_soon = access.read_tokens();
        let standing = if starts_unknown { Standing::Unknown } else { Standing::Off };
        access.gate.set(access.laws(standing, &Policy::default(), 0));
        access
    }

    /// Puts the keeper below `root`.
    pub fn below(self, root: &Supervisor, control: Arc<dyn ControlApi>) {
        task::below(root, "access", move || {
            let (tell, doubts) = watch::channel(false);
            let follow = self.clone().follow(Arc::clone(&control), doubts);
            let doubt = self.clone().doubt(Arc::clone(&control), tell);
            async {
                tokio::select! {
                    () = follow => {}
                    () = doubt => {}
                }
            }
        });
    }

    /// Whether requests are to be judged by this catalogue.
    fn is_on(&self, catalogue: &Catalogue) -> bool {
        self.settings.enabled || catalogue.access.is_on
    }

    /// Tells when the catalogue may be stale, where somebody is judged by it.
    async fn doubt(self, control: Arc<dyn ControlApi>, tell: watch::Sender<bool>) {
        let clock = Arc::clone(&self.clock);
        match self.settings.stale_after {
            Some(stale_after) => {
                let matters = |catalogue: &Catalogue| self.is_on(catalogue);
                Freshness { stale_after, matters, control, clock }.watch(tell).await;
            }
            None => std::future::pending().await,
        }
    }

    async fn follow(self, control: Arc<dyn ControlApi>, mut doubts: watch::Receiver<bool>) {
        let mut catalogues = control.watch();
        let mut known = None;
        loop {
            let catalogue = catalogues.borrow_and_update().clone();
            let is_current = control.is_current() && catalogue.is_founded();
            let is_on = self.is_on(&catalogue);
            let doubtful = *doubts.borrow_and_update();
            let generation = catalogue.access.generation;
            let standing = match (is_current, is_on) {
                (true, true) if doubtful => Standing::Doubtful,
                (true, true) => Standing::On,
                (true, false) => Standing::Off,
                (false, is_on) if is_on || self.starts_unknown => Standing::Unknown,
                (false, _) => Standing::Off,
            };
            let looks = self.looks();
            // While it is off changes count for nothing, and are waited for all the same.
            if known != Some((standing, generation, looks)) {
                // The first time too: they may have changed since they were read at the start.
                if known.is_none_or(|(_, _, before)| before != looks) {
                    // Here and not at the start as well: they are warned of once.
                    if let Some(keys) = self.read_tokens() {
                        warn_of_keys(&self.settings, &keys, &self.logger);
                    }
                }
                // Before anybody passes, or no more: whoever starts next must know.
                if is_current && let Err(error) = self.set_mark(is_on) {
                    warn!(self.logger, "it cannot be kept for the next start whether access control \
                        is on"; "file" => %self.mark.display(), "error" => %error);
                }
                self.gate.set(self.laws(standing, &catalogue.access.policy, generation));
                if known.is_some() || standing != Standing::Off {
                    info!(self.logger, "who may do what is taken over"; "cluster" => ?standing,
                        "files" => self.settings.policy_file.is_some());
                }
                known = Some((standing, generation, looks));
            }
            let must_look = self.names_files() || looks != Looks::default();
            let again = async {
                match standing {
                    Standing::Unknown => tokio::time::sleep(LOOK_EVERY_UNKNOWN).await,
                    _ if must_look => tokio::time::sleep(LOOK_EVERY).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = catalogues.changed() => if changed.is_err() { return },
                changed = doubts.changed() => if changed.is_err() { return },
                () = again => {}
            }
        }
    }

    fn laws(&self, standing: Standing, policy: &Policy, generation: u64) -> Laws {
        let cluster = match standing {
            Standing::Off => Law::Off,
            Standing::Unknown => Law::Unknown("its catalogue is not up to date yet".into()),
            Standing::Doubtful => Law::Unknown(
                "it has not heard for too long (access.stale_after) that its policy is the cluster's \
                 newest: it may be cut off, or nobody leads the controller"
                    .into(),
            ),
            Standing::On => self.judged(Judge::of(policy).map_err(|error| error.to_string())),
        };
        let files = judge_of_files(&self.settings).map_or(Law::Off, |judge| self.judged(judge));
        Laws { cluster, generation, files, admins: self.settings.admins.iter().cloned().collect() }
    }

    fn judged(&self, judge: Result<Judge, String>) -> Law {
        judge.map_or_else(
            |reason| {
                self.door.denials().unusable_files.one();
                error!(self.logger, "the policy cannot be used: everything is denied";
                    "reason" => &reason);
                Law::Broken(reason)
            },
            Law::Judge,
        )
    }

    /// Takes over the keys of the file, where the settings name one that can be used.
    fn read_tokens(&self) -> Option<Arc<TokenKeys>> {
        let keys = keys_of_tokens(&self.settings)?;
        let keys = keys.inspect_err(|reason| {
            self.door.denials().unusable_files.one();
            error!(self.logger, "no token is taken"; "reason" => reason);
        });
        let keys = keys.ok().map(Arc::new);
        self.tokens.store(keys.clone());
        keys
    }

    fn names_files(&self) -> bool {
        let AccessSettings { model_file, policy_file, token_keys_file, .. } = &self.settings;
        [model_file, policy_file, token_keys_file].into_iter().any(Option::is_some)
    }

    fn looks(&self) -> Looks {
        let AccessSettings { model_file, policy_file, token_keys_file, .. } = &self.settings;
        [model_file, policy_file, token_keys_file].map(|file| {
            let metadata = fs::metadata(file.as_ref()?).ok()?;
            Some((metadata.len(), metadata.modified().ok()))
        })
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "the edge where the mark in the directory is kept"
    )]
    fn set_mark(&self, is_on: bool) -> io::Result<()> {
        if is_on == self.mark.exists() {
            return Ok(());
        }
        if is_on {
            fs::File::create(&self.mark)?.sync_all()?;
        } else {
            fs::remove_file(&self.mark)?;
        }
        self.mark.parent().map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all())
    }
}

/// What a start warns of, and what for want of it is denied, with the reason: files that the settings
/// name and that cannot be used do not keep a node from starting. Blocks shortly.
pub(super) fn rehearse(settings: &Settings, logger: &Logger) -> Vec<String> {
    warn_of_strangers(settings, logger);
    let judge = judge_of_files(&settings.access).and_then(Result::err);
    let keys = keys_of_tokens(&settings.access);
    if let Some(Ok(keys)) = &keys {
        warn_of_keys(&settings.access, keys, logger);
    }
    let keys = keys.and_then(Result::err);
    let judge = judge.map(|reason| format!("everything is denied: {reason}"));
    judge.into_iter().chain(keys.map(|reason| format!("no token is taken: {reason}"))).collect()
}

fn warn_of_strangers(settings: &Settings, logger: &Logger) {
    if settings.access.enabled && !peer_proof(settings).is_set() && !settings.tls.is_on() {
        warn!(logger, "nodes cannot show each other that they are nodes: what other nodes of this \
            cluster may do, whoever reaches the port may do as well, and nothing is passed on for \
            clients"; "advice" => "make certificates (duramen tls init), or set gossip.key, the same on all nodes");
    }
}

/// Warns where more can make tokens than has to.
fn warn_of_keys(settings: &AccessSettings, keys: &TokenKeys, logger: &Logger) {
    let Some(file) = &settings.token_keys_file else { return };
    let shown = file.display().to_string();
    if keys.come_with_private_halves() {
        warn!(logger, "who reads this node's keys of tokens can make tokens: they are those of the \
            issuer, with the private halves"; "file" => &shown,
            "advice" => "give nodes what `duramen token keys --public FILE` prints");
    }
    let mode = fs::metadata(file).map_or(0, |found| found.permissions().mode() & 0o777);
    if mode & 0o077 != 0 && (keys.hold_a_secret() || keys.come_with_private_halves()) {
        warn!(logger, "others on this machine can read what makes tokens"; "file" => &shown,
            "mode" => format!("{mode:o}"), "advice" => format!("chmod 600 {shown}"));
    }
}

/// Who decides by this node's files; `None` where the settings name none.
fn judge_of_files(settings: &AccessSettings) -> Option<Result<Judge, String>> {
    let judge = |model: &Path, policy: &Path| {
        Judge::of_files(&read(model)?, &read(policy)?).map_err(|error| error.to_string())
    };
    match (&settings.model_file, &settings.policy_file) {
        (None, None) => None,
        (Some(model), Some(policy)) => Some(judge(model, policy)),
        _ => Some(Err("a model and a policy go together".into())),
    }
}

/// What tokens are checked with; `None` where the settings name nothing.
fn keys_of_tokens(settings: &AccessSettings) -> Option<Result<TokenKeys, String>> {
    let file = settings.token_keys_file.as_deref()?;
    let terms = TokenTerms {
        issuer: settings.token_issuer.clone(),
        audience: settings.token_audience.clone(),
        leeway: settings.token_leeway,
    };
    let keys = |text: String| {
        TokenKeys::read(&text, terms).map_err(|error| format!("{}: {error}", file.display()))
    };
    Some(read(file).and_then(keys))
}

/// A file of the operator's. The content is not told.
#[allow(clippy::disallowed_methods, reason = "the edge where files of policies and keys are read")]
fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}
