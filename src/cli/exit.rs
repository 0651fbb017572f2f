//! How the binary ends when it does not end well: what happened, why, what to try, and a code that
//! scripts can tell apart.

use super::bench::BenchError;
use crate::guards::tls::TlsError;
use crate::model::escape;
use crate::node::NodeError;
use crate::ops::data_dir::DataDirError;
use crate::ops::settings::{Fault, SettingsError};
use crate::ops::signals::StopSignal;
use crate::wire::client::{ClientError, TurnedAway};
use std::error::Error;
use std::fmt;
use std::io;
use tonic::Code;

/// Which of the exit codes. 0 is success; 2, wrong usage, is given by the reader of arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// 1: it failed while it ran.
    Runtime,
    /// 64: the input is wrong.
    BadInput,
    /// 69: the node cannot be reached.
    Unavailable,
    /// 73: the data directory is in use, or cannot be made.
    CannotCreate,
    /// 74: reading or writing failed.
    Io,
    /// 75: the same may succeed later.
    Temporary,
    /// 77: not allowed.
    Permission,
    /// 78: the configuration is wrong, or does not fit the data.
    Config,
    /// 130 or 143: a signal ended it before it was done.
    Signal(StopSignal),
}

impl Class {
    /// The exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Runtime => 1,
            Self::BadInput => 64,
            Self::Unavailable => 69,
            Self::CannotCreate => 73,
            Self::Io => 74,
            Self::Temporary => 75,
            Self::Permission => 77,
            Self::Config => 78,
            Self::Signal(signal) => signal.exit_code(),
        }
    }
}

/// Why a subcommand failed, in three parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which exit code.
    pub class: Class,
    /// What happened.
    pub error: String,
    /// Why, where that is known.
    pub cause: Option<String>,
    /// What the person can do, where there is something.
    pub advice: Option<String>,
}

impl Failure {
    /// A failure of which only the fact is known so far.
    pub fn new(class: Class, error: impl Into<String>) -> Self {
        Self { class, error: error.into(), cause: None, advice: None }
    }

    /// Adds why.
    #[must_use]
    pub fn cause(self, cause: impl Into<String>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    /// Adds what to try.
    #[must_use]
    pub fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    /// Reading or writing failed.
    pub fn io(what: impl Into<String>, error: &io::Error) -> Self {
        let class = match error.kind() {
            // Another file was meant: none is there, or it is not text.
            io::ErrorKind::NotFound | io::ErrorKind::IsADirectory | io::ErrorKind::InvalidData => {
                Class::BadInput
            }
            io::ErrorKind::PermissionDenied => Class::Permission,
            _ => Class::Io,
        };
        Self::new(class, what).cause(error.to_string())
    }
}

/// `error: …`, `cause: …`, `try: …`; continued lines are set in, and no text moves the cursor.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set_in = |text: &str| escape::lines(text).replace('\n', "\n       ");
        write!(f, "error: {}", set_in(&self.error))?;
        if let Some(cause) = &self.cause {
            write!(f, "\ncause: {}", set_in(cause))?;
        }
        if let Some(advice) = &self.advice {
            write!(f, "\ntry:   {}", set_in(advice))?;
        }
        Ok(())
    }
}

impl Error for Failure {}

/// The errors below an error, outermost first, without what its own text repeats.
fn causes(error: &dyn Error) -> Option<String> {
    let mut told: Vec<String> = Vec::new();
    let mut source = error.source();
    while let Some(below) = source {
        let text = below.to_string();
        if told.last().is_none_or(|last| !last.contains(&text)) {
            told.push(text);
        }
        source = below.source();
    }
    (!told.is_empty()).then(|| told.join(": "))
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        let unreadable = |fault: &Fault| matches!(fault, Fault::Unreadable { .. });
        let advice = if error.faults.iter().any(unreadable) {
            "name the configuration file with --config or DURAMEN_CONFIG; `duramen config sample` \
             writes one"
        } else {
            "`duramen config sample` shows every setting with its limits and default"
        };
        Self::new(Class::Config, "the configuration is not valid")
            .cause(error.to_string())
            .advice(advice)
    }
}

impl From<DataDirError> for Failure {
    fn from(error: DataDirError) -> Self {
        let class = match &error {
            DataDirError::Locked { .. }
            | DataDirError::NotADirectory { .. }
            | DataDirError::Link { .. }
            | DataDirError::Foreign { .. }
            | DataDirError::NotWritable { .. } => Class::CannotCreate,
            DataDirError::TooNew { .. }
            | DataDirError::OtherCluster { .. }
            | DataDirError::OfAMirror { .. }
            | DataDirError::OfANode { .. } => Class::Config,
            DataDirError::Permission { .. } => Class::Permission,
            DataDirError::Damaged { .. } | DataDirError::Wiped { .. } | DataDirError::Io { .. } => {
                Class::Io
            }
        };
        let advice = error.advice();
        Self { cause: causes(&error), ..Self::new(class, error.to_string()).advice(advice) }
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        let class = match &error {
            TlsError::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Class::Permission
            }
            TlsError::Read { .. } | TlsError::Content { .. } => Class::Config,
        };
        Self::new(class, format!("certificates cannot be used: {error}"))
            .advice("look at them with: duramen tls verify DIR; make some with: duramen tls init")
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::DataDir(error) => error.into(),
            NodeError::Listen { ref source, .. } => {
                let (class, advice) = match source.kind() {
                    io::ErrorKind::AddrInUse => (
                        Class::Unavailable,
                        "stop what listens there, or choose another port with --rpc-addr or \
                         --http-addr (port 0 takes a free one)",
                    ),
                    io::ErrorKind::AddrNotAvailable => (
                        Class::Config,
                        "choose an address of this machine with --rpc-addr or --http-addr",
                    ),
                    io::ErrorKind::PermissionDenied => {
                        (Class::Permission, "choose a port above 1023, or run with the permission")
                    }
                    _ => (Class::Io, "choose another address with --rpc-addr or --http-addr"),
                };
                let text = error.to_string();
                Self::new(class, text).cause(source.to_string()).advice(advice)
            }
            NodeError::Options(error) => Self {
                cause: causes(&error),
                ..Self::new(Class::Config, error.to_string())
                    .advice("change the settings of section [log]")
            },
            NodeError::Tls(error) => error.into(),
            NodeError::Telemetry(error) => Self {
                cause: causes(&error),
                ..Self::new(Class::Config, error.to_string())
                    .advice("change the settings of section [telemetry], or leave --debug out")
            },
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let failure = |class| Self { cause: causes(&error), ..Self::new(class, error.to_string()) };
        match &error {
            ClientError::Address { .. } => {
                failure(Class::BadInput).advice("give the node's address as --rpc-addr HOST:PORT")
            }
            _ if let Some(turned_away) = error.turned_away() => failure(Class::Unavailable)
                .cause(turned_away.to_string())
                .advice(match turned_away {
                    TurnedAway::NeedsTls => {
                        "--tls-dir DIR with the certificate of a client: `duramen tls client NAME` \
                         makes one"
                    }
                    TurnedAway::NoTls => {
                        "leave --tls-dir and DURAMEN_TLS_DIR out, or look whether it is the right \
                         address"
                    }
                    TurnedAway::Shown(_) if turned_away.is_the_nodes_word() => {
                        "`duramen tls verify DIR` tells whether this client's certificate is good; \
                         the node's log tells whom it does not let in"
                    }
                    TurnedAway::Shown(_) => {
                        "`duramen tls show DIR` where the node runs tells of its certificate: it is \
                         to be valid, for this address, and of a CA of this client (--tls-dir, --ca)"
                    }
                }),
            ClientError::Unavailable { .. } => failure(Class::Unavailable)
                .advice("start a node with `duramen`, or name another with --rpc-addr HOST:PORT"),
            ClientError::Lost { .. } => failure(Class::Unavailable)
                .advice("look whether the node still runs; its log tells whom it does not let in"),
            ClientError::Deadline { definite: true, .. } => failure(Class::Temporary)
                .advice("`duramen cluster health` tells what is not well; then the same again"),
            ClientError::Deadline { .. } => failure(Class::Unavailable)
                .advice("`duramen cluster health` tells what is not well"),
            ClientError::Protocol { .. } => {
                failure(Class::Runtime).advice("compare `duramen version` here and on the node")
            }
            ClientError::Refused(refusal) => {
                let class = match refusal.code {
                    Code::InvalidArgument | Code::NotFound | Code::OutOfRange => Class::BadInput,
                    Code::PermissionDenied | Code::Unauthenticated => Class::Permission,
                    Code::Unavailable | Code::ResourceExhausted => Class::Temporary,
                    Code::DataLoss => Class::Io,
                    _ => Class::Runtime,
                };
                let failure = Self::new(class, "the node refused").cause(format!(
                    "{} ({})",
                    refusal.message,
                    code_name(refusal.code)
                ));
                if let Some(leader) = &refusal.leader {
                    let address = &leader.address;
                    return failure.advice(format!("the same with --addr {address}, which leads"));
                }
                match refusal.code {
                    Code::Unauthenticated if is_of_a_token(&refusal.message) => failure.advice(
                        "`duramen token new` makes another, with a key that the nodes have and for \
                         their issuer and audience",
                    ),
                    Code::Unauthenticated => failure.advice(
                        "say who asks, with --token-file FILE; `duramen token new` makes a token",
                    ),
                    Code::PermissionDenied if is_for_want_of_a_rule(&refusal.message) => failure
                        .advice(
                            "`duramen acl explain` tells why not; `duramen acl add` gives the right",
                        ),
                    // What else is denied says itself what is missing.
                    Code::PermissionDenied => failure,
                    Code::NotFound if refusal.message.starts_with("there is no topic") => failure
                        .advice(
                            "`duramen topic list` tells which there are, `duramen topic create \
                             NAME` makes one",
                        ),
                    Code::NotFound => failure.advice(
                        "`duramen topic describe NAME` tells which partitions there are",
                    ),
                    Code::OutOfRange => {
                        failure.advice("`duramen describe` tells which offsets there are")
                    }
                    _ if class == Class::Temporary => {
                        failure.advice("the same again, a little later")
                    }
                    _ => failure.advice("`duramen describe` tells the state of the log"),
                }
            }
        }
    }
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        let class = match &error {
            BenchError::Io { .. } => Class::Io,
            BenchError::NotReady { .. } | BenchError::Connect { .. } => Class::Unavailable,
            BenchError::Refused { .. } | BenchError::Broken { .. } => Class::Runtime,
        };
        Self { cause: causes(&error), ..Self::new(class, error.to_string()) }
    }
}

/// Whether a rule would have permitted it: where something else is why not, the refusal tells that behind
/// what was asked.
fn is_for_want_of_a_rule(refusal: &str) -> bool {
    refusal.split_once(" not permitted to ").is_some_and(|(_, asked)| !asked.contains(": "))
}

/// Whether a token was shown, and is what was refused: whoever has shown one needs not be told to.
fn is_of_a_token(refusal: &str) -> bool {
    refusal.starts_with("the token")
}

/// A code as the gRPC documents write it.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for (position, c) in format!("{code:?}").chars().enumerate() {
        if c.is_uppercase() && position > 0 {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::client::Refusal;

    #[test]
    fn a_failure_is_three_lines() {
        let failure =
            Failure::new(Class::Io, "it \x1b[2Jbroke").cause("it\nwas old").advice("a new one");
        assert_eq!(
            failure.to_string(),
            "error: it \\u{1b}[2Jbroke\ncause: it\n       was old\ntry:   a new one"
        );
    }

    #[test]
    fn a_busy_data_directory_and_one_of_tomorrow_have_codes_of_their_own() {
        let path = std::path::PathBuf::from("d");
        let locked = DataDirError::Locked { path: path.clone(), pid: "7".into(), host: "h".into() };
        assert_eq!(Failure::from(locked).class.code(), 73);
        let failure = Failure::from(DataDirError::TooNew { path, version: 2, readable: 1 });
        assert_eq!(failure.class.code(), 78);
        assert!(failure.advice.is_some_and(|advice| advice.contains("format version 2")));
    }

    #[test]
    fn a_refusal_that_may_pass_is_told_from_one_that_will_not() {
        let refused = |code| {
            let message = "no".into();
            Failure::from(ClientError::Refused(Refusal {
                code,
                message,
                retry_after: None,
                definite: true,
                leader: None,
            }))
        };
        assert_eq!(refused(Code::ResourceExhausted).class.code(), 75);
        assert_eq!(refused(Code::OutOfRange).class.code(), 64);
        let cause = refused(Code::OutOfRange).cause;
        assert_eq!(cause.as_deref(), Some("no (OUT_OF_RANGE)"));
    }

    #[test]
    fn whom_a_rule_would_help_is_told_of_rules_and_nobody_else() {
        use crate::access::{Action, Denied};
        let advice = |reason: Option<&str>| {
            let denied = Denied::Forbidden {
                subject: "ada".into(),
                action: Action::Produce,
                object: "log".into(),
                reason: reason.map(Into::into),
            };
            let (code, message) = (Code::PermissionDenied, denied.to_string());
            let (retry_after, definite, leader) = (None, true, None);
            let refused = Refusal { code, message, retry_after, definite, leader };
            Failure::from(ClientError::Refused(refused)).advice
        };
        assert!(advice(None).unwrap().contains("duramen acl add"));
        assert_eq!(advice(Some("what was noted is written by nodes only")), None);
    }

    #[test]
    fn whoever_has_shown_a_token_is_not_told_to_show_one() {
        use crate::access::TokenError;
        let advice = |message: String| {
            let (code, retry_after, definite, leader) = (Code::Unauthenticated, None, true, None);
            let refused = Refusal { code, message, retry_after, definite, leader };
            Failure::from(ClientError::Refused(refused)).advice.unwrap()
        };
        for error in [TokenError::Unreadable, TokenError::UnknownKey, TokenError::Expired] {
            let advice = advice(error.to_string());
            assert!(advice.contains("token new` makes another"), "{error}: {advice}");
        }
        assert!(advice("no transport security being used".into()).contains("--token-file"));
    }

    #[test]
    fn whoever_does_not_trust_a_node_is_told_of_its_certificate_and_not_of_the_clients() {
        let advice = |why: &str| {
            let source = Box::new(TurnedAway::Shown(why.into()));
            Failure::from(ClientError::Unavailable { address: "n:1".into(), source })
                .advice
                .unwrap()
        };
        let stranger = advice("its certificate is of a CA that is not trusted here");
        assert!(stranger.contains("where the node runs"), "{stranger}");
        let revoked = advice("it refuses the connection: the certificate shown to it is revoked");
        assert!(revoked.contains("this client's certificate"), "{revoked}");
    }

    #[test]
    fn whoever_names_a_topic_that_is_not_there_hears_what_makes_one() {
        let of = |message: &str| {
            let (code, message) = (Code::NotFound, message.to_owned());
            let (retry_after, definite, leader) = (None, true, None);
            let refused = Refusal { code, message, retry_after, definite, leader };
            Failure::from(ClientError::Refused(refused)).advice.unwrap()
        };
        use crate::actors::topics::TopicError;
        let topic = TopicError::unknown_topic("orders", std::iter::once("log")).to_string();
        assert!(of(&topic).contains("duramen topic create"), "{topic}");
        let partition =
            TopicError::UnknownPartition { topic: "log".into(), partition: 7, partitions: 3 };
        assert!(of(&partition.to_string()).starts_with("`duramen topic describe"));
    }

    #[test]
    fn signals_end_as_shells_expect() {
        assert_eq!(Class::Signal(StopSignal::Interrupt).code(), 130);
        assert_eq!(Class::Signal(StopSignal::Terminate).code(), 143);
    }
}
