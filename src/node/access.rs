//! Keeps what is in force at the node's door what the cluster's catalogue and the node's files say: a
//! task on the control thread, supervised as what serves a port is.
//!
//! A node that cannot know denies. A mark in the data directory says that access control was on when
//! it was known last: a node that starts again waits for a current catalogue before it lets anybody
//! pass, and so does one that joins. Where it was off, nothing waits.

use super::FAREWELL;
use super::cluster::peer_proof;
use crate::access::{AuditSink, Gate, Judge, Law, Laws, Policy, TokenKeys, TokenTerms};
use crate::actors::control::ControlApi;
use crate::actors::frontend::{self, Draining, FrontendActor, Serve};
use crate::frontends::access::{Door, TokenShelf};
use crate::model::Clock;
use crate::ops::audit::AuditLog;
use crate::ops::data_dir::DataDir;
use crate::ops::settings::{AccessSettings, Settings};
use crate::supervision::{Place, Supervisor};
use slog::{Logger, error, info, warn};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

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
        if settings.access.enabled && !proof.is_set() && !settings.tls.is_on() {
            warn!(logger, "nodes cannot show each other that they are nodes: what other nodes of this \
                cluster may do, whoever reaches the port may do as well, and nothing is passed on for \
                clients"; "advice" => "make certificates (duramen tls init), or set gossip.key, the same on all nodes");
        }
        let audit = Some(Arc::new(audit.clone()) as Arc<dyn AuditSink>);
        let door = Door::new(gate.clone(), Arc::clone(&tokens), proof, Arc::clone(clock), audit);
        let settings = settings.access.clone();
        let access = Self { door, gate, tokens, settings, mark, starts_unknown, logger };
        access.read_tokens();
        let standing = if starts_unknown { Standing::Unknown } else { Standing::Off };
        access.gate.set(access.laws(standing, &Policy::default(), 0));
        access
    }

    /// Puts the keeper below `root`.
    pub fn below(self, root: &Supervisor, control: Arc<dyn ControlApi>) {
        let serve = Serve::new(move |mut draining: Draining| {
            let follow = self.clone().follow(Arc::clone(&control));
            Box::pin(async move {
                tokio::select! {
                    () = follow => Ok(()),
                    // An error says that the actor is gone, and with it this future.
                    _ = draining.wait_for(|wanted| *wanted) => Ok(()),
                }
            })
        });
        let spec = frontend::spec("access", FAREWELL);
        let place = Place::Control;
        let _ = root.child(spec, place, move |_, seat| FrontendActor::new(seat, serve.clone()));
    }

    async fn follow(self, control: Arc<dyn ControlApi>) {
        let mut catalogues = control.watch();
        let mut known = None;
        loop {
            let catalogue = catalogues.borrow_and_update().clone();
            let is_current = control.is_current() && catalogue.is_founded();
            let is_on = self.settings.enabled || catalogue.access.is_on;
            let generation = catalogue.access.generation;
            let standing = match (is_current, is_on) {
                (true, true) => Standing::On,
                (true, false) => Standing::Off,
                (false, is_on) if is_on || self.starts_unknown => Standing::Unknown,
                (false, _) => Standing::Off,
            };
            let looks = self.looks();
            // While it is off changes count for nothing, and are waited for all the same.
            if known != Some((standing, generation, looks)) {
                if known.is_some_and(|(_, _, before)| before != looks) {
                    self.read_tokens();
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
                () = again => {}
            }
        }
    }

    fn laws(&self, standing: Standing, policy: &Policy, generation: u64) -> Laws {
        let cluster = match standing {
            Standing::Off => Law::Off,
            Standing::Unknown => Law::Unknown("its catalogue is not up to date yet".into()),
            Standing::On => self.judged(Judge::of(policy).map_err(|error| error.to_string())),
        };
        let files = match (&self.settings.model_file, &self.settings.policy_file) {
            (Some(model), Some(policy)) => self.judged(read(model).and_then(|model| {
                Judge::of_files(&model, &read(policy)?).map_err(|error| error.to_string())
            })),
            (None, None) => Law::Off,
            _ => Law::Broken("a model and a policy go together".into()),
        };
        Laws { cluster, generation, files, admins: self.settings.admins.iter().cloned().collect() }
    }

    fn judged(&self, judge: Result<Judge, String>) -> Law {
        judge.map_or_else(
            |reason| {
                error!(self.logger, "the policy cannot be used: everything is denied";
                    "reason" => &reason);
                Law::Broken(reason)
            },
            Law::Judge,
        )
    }

    fn read_tokens(&self) {
        let Some(file) = &self.settings.token_keys_file else { return };
        let terms = TokenTerms {
            issuer: self.settings.token_issuer.clone(),
            audience: self.settings.token_audience.clone(),
            leeway: self.settings.token_leeway,
        };
        let keys = read(file)
            .and_then(|text| TokenKeys::read(&text, terms).map_err(|error| error.to_string()));
        let keys = keys.inspect_err(|reason| {
            error!(self.logger, "no token is taken"; "reason" => reason,
                "file" => %file.display());
        });
        self.tokens.store(keys.ok().map(Arc::new));
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

/// A file of the operator's. The content is not told.
#[allow(clippy::disallowed_methods, reason = "the edge where files of policies and keys are read")]
fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}
