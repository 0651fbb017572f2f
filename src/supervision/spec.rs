//! What a supervisor is told about a child, and about itself. Values only; all const-constructible,
//! so that an actor's policy can stand beside the actor.

use std::borrow::Cow;
use std::time::Duration;

/// Which exits bring a child back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Every exit.
    Permanent,
    /// Every exit but [`super::ExitReason::Normal`].
    Transient,
    /// None.
    Temporary,
}

/// Who else is stopped and started again when one child crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Nobody: the children are independent.
    OneForOne,
    /// The children added after it: they depend on it.
    RestForOne,
    /// All its siblings.
    OneForAll,
}

/// How a supervisor starts and stops children that do not depend on one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// One after another: forward to start, in reverse to stop.
    InTurn,
    /// All at once. For many like children; only with [`Strategy::OneForOne`].
    Together,
}

/// How many crashes are put up with: more than `restarts_max` within `window` is too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts granted within the window.
    pub restarts_max: u32,
    /// The window. A child that lives this long has its backoff reset.
    pub window: Duration,
}

/// How long a crashed child stays down: `min`, doubled at each further crash, up to `max`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// The wait after the first crash.
    pub min: Duration,
    /// The longest wait.
    pub max: Duration,
    /// The share of each wait that chance may take off, 0 to 1.
    pub jitter: f64,
}

impl Backoff {
    /// 20 ms, doubled up to 5 s, a fifth of it left to chance.
    pub const DEFAULT: Self =
        Self { min: Duration::from_millis(20), max: Duration::from_secs(5), jitter: 0.2 };
}

/// How much may be under way at one actor before callers are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Requests admitted and not yet answered.
    pub messages_max: usize,
    /// Their bytes. One request is admitted to an idle actor whatever its size.
    pub bytes_max: usize,
}

/// What a supervisor is told about one actor.
#[derive(Debug, Clone, PartialEq)]
pub struct ChildSpec {
    /// The last part of its path.
    pub name: Cow<'static, str>,
    /// Which exits bring it back.
    pub restart: Restart,
    /// How long it stays down after a crash.
    pub backoff: Backoff,
    /// How long it may take to stop before it is aborted, and again before its thread is abandoned.
    pub shutdown_grace: Duration,
    /// How long it may make no progress although there is something to do.
    pub hang_after: Duration,
    /// How much may be under way before callers are refused.
    pub admission: Admission,
    /// Messages its mailbox holds before `tell` is refused; completions do not count as refusable.
    pub mailbox_len_max: usize,
}

impl ChildSpec {
    /// A permanent child with the house's defaults.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name: Cow::Borrowed(name),
            restart: Restart::Permanent,
            backoff: Backoff::DEFAULT,
            shutdown_grace: Duration::from_secs(5),
            hang_after: Duration::from_secs(10),
            admission: Admission { messages_max: 4096, bytes_max: 64 << 20 },
            mailbox_len_max: 8192,
        }
    }

    /// The same under another name, for children that are made at run time.
    #[must_use]
    pub fn named(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }
}

/// What is done once the restarts granted are spent, or a child says that a restart would not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhausted {
    /// This supervisor fails, and its parent decides. At the root, the process ends.
    Escalate,
    /// The fault domain leaves service with a reason, until it is released: the one child under
    /// [`Strategy::OneForOne`] (whose crashes are then counted child by child), else all of them.
    Quarantine,
}

/// What a supervisor is told about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct SupervisorSpec {
    /// The last part of its path.
    pub name: Cow<'static, str>,
    /// Who else restarts when a child crashes.
    pub strategy: Strategy,
    /// How many crashes are put up with.
    pub intensity: Intensity,
    /// What happens then.
    pub exhausted: Exhausted,
    /// How children start and stop.
    pub order: Order,
    /// How long this supervisor stays down after it escalated and its parent restarts it.
    pub backoff: Backoff,
}

impl SupervisorSpec {
    /// A supervisor with the house's defaults: 3 restarts a minute, in turn.
    pub const fn new(name: &'static str, strategy: Strategy, exhausted: Exhausted) -> Self {
        Self {
            name: Cow::Borrowed(name),
            strategy,
            intensity: Intensity { restarts_max: 3, window: Duration::from_secs(60) },
            exhausted,
            order: Order::InTurn,
            backoff: Backoff::DEFAULT,
        }
    }

    /// Whether its children depend on one another, and so leave service together.
    pub fn is_one_domain(&self) -> bool {
        self.strategy != Strategy::OneForOne
    }

    /// The same under another name, for supervisors that are made at run time.
    #[must_use]
    pub fn named(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }
}
