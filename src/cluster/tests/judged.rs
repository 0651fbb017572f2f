//! Commands of clients are judged by the policy of their very place in the log, whatever the node knew
//! that was asked.

use super::*;
use crate::access::{Action, Policy};
use crate::model::Offset;

/// A log from which a catalogue is made.
struct Log {
    replay: Replay,
    records: Vec<bytes::Bytes>,
}

impl Log {
    fn new() -> Self {
        let mut log = Self { replay: Replay::from(Offset(0)), records: Vec::new() };
        let found = Command::Found { cluster_id: "c1".into(), node: node_self(1, None) };
        log.fold(found, None).unwrap();
        log
    }

    fn fold(&mut self, command: Command, by: Option<OnBehalf>) -> Result<Outcome, Rejection> {
        let protocol = self.replay.catalogue().unwrap().protocol.max(PROTOCOL);
        let record = CatalogueRecord::command(command, Vec::new(), by, protocol);
        let bytes = record.encode();
        assert_eq!(CatalogueRecord::decode(&bytes), Ok(record));
        self.records.push(bytes.clone());
        match self.replay.fold(self.replay.next(), &bytes).unwrap() {
            Folded::Applied(outcome) => outcome,
            Folded::Passed => panic!("a command is applied"),
        }
    }

    fn policy(&mut self, text: &str) {
        let policy: Policy = text.parse().unwrap();
        self.fold(Command::Access(AccessChange::Load(policy)), None).unwrap();
    }

    fn switch(&mut self, on: bool) {
        self.fold(Command::Access(AccessChange::Switch { on }), None).unwrap();
    }
}

fn by(subject: &str) -> Option<OnBehalf> {
    Some(OnBehalf { subject: Some(subject.into()), always: false })
}

fn kind(outcome: Result<Outcome, Rejection>) -> Option<RejectionKind> {
    outcome.err().map(|no| no.kind)
}

#[test]
fn a_right_counts_until_the_record_that_takes_it() {
    let mut log = Log::new();
    log.policy("p, root, *, *\np, alice, a-*, create");
    log.switch(true);
    log.fold(create("a-1", 1, 1), by("alice")).unwrap();
    let no = log.fold(create("b-1", 1, 1), by("alice")).unwrap_err();
    assert_eq!(
        (no.kind, &*no.message),
        (RejectionKind::Denied, "alice not permitted to create to b-1")
    );
    log.policy("p, root, *, *");
    // The node that was asked has not heard of it.
    assert_eq!(kind(log.fold(create("a-2", 1, 1), by("alice"))), Some(RejectionKind::Denied));
    let topics = &log.replay.catalogue().unwrap().topics;
    assert_eq!(topics.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["a-1", "log"]);
    // Whoever reads the same records decides the same.
    let mut other = Replay::from(Offset(0));
    for record in &log.records {
        other.fold(other.next(), record).unwrap();
    }
    assert_eq!(other.catalogue(), log.replay.catalogue());
}

#[test]
fn it_counts_from_the_record_that_turns_access_control_on() {
    let mut log = Log::new();
    let nobody = || Some(OnBehalf { subject: None, always: false });
    log.policy("p, root, *, *");
    log.fold(create("early", 1, 1), nobody()).unwrap();
    log.fold(create("also", 1, 1), by("alice")).unwrap();
    // A node whose own settings have it on asks for more than the cluster does.
    let strict = Some(OnBehalf { always: true, ..by("alice").unwrap() });
    assert_eq!(kind(log.fold(create("x", 1, 1), strict)), Some(RejectionKind::Denied));
    log.switch(true);
    for who in [nobody(), by("alice"), by("root\n"), by("*"), by("role:ops"), by("")] {
        assert_eq!(kind(log.fold(create("x", 1, 1), who)), Some(RejectionKind::Denied));
    }
    log.fold(create("late", 1, 1), by("root")).unwrap();
    // On nobody's behalf: the node itself, or whom its own settings let pass.
    log.fold(create("own", 1, 1), None).unwrap();
    log.switch(false);
    log.fold(create("again", 1, 1), by("alice")).unwrap();
}

#[test]
fn each_command_of_a_client_needs_its_right_and_what_nodes_do_needs_none() {
    let name = topic("log");
    let (partitions, replication_factor, settings) = (None, None, TopicSettings::default());
    let alter =
        Command::AlterTopic { name: name.clone(), partitions, replication_factor, settings };
    let (node, replica) = (NodeId(1), ReplicaId::FIRST);
    let clients = [
        (create("log", 1, 1), Action::Create, "log"),
        (alter, Action::Alter, "log"),
        (Command::DeleteTopic { name }, Action::Delete, "log"),
        (Command::Leave { node }, Action::Admin, "*"),
        (Command::Remove { node }, Action::Admin, "*"),
        (Command::AddReplica { group: 1, node }, Action::Admin, "*"),
        (Command::DropReplica { group: 1, replica }, Action::Admin, "*"),
        (Command::PreferLeader { group: 1, replica }, Action::Admin, "*"),
        (Command::Access(AccessChange::Switch { on: true }), Action::Admin, "*"),
    ];
    for (command, action, object) in clients {
        assert_eq!(command.needs(), Some((action, object)), "{command:?}");
        // All the other rights are of no use.
        let others = Action::ALL.into_iter().filter(|other| *other != action);
        let mut log = Log::new();
        let rules: String = others.map(|other| format!("p, mallory, *, {other}\n")).collect();
        log.policy(&format!("p, root, *, *\n{rules}"));
        log.switch(true);
        let refused = log.fold(command.clone(), by("mallory"));
        assert_eq!(kind(refused), Some(RejectionKind::Denied), "{command:?}");
        // The control: with it, it is the catalogue that says what it makes of it.
        log.policy(&format!("p, root, *, *\np, mallory, *, {action}"));
        assert_ne!(kind(log.fold(command, by("mallory"))), Some(RejectionKind::Denied));
    }
    let mut log = Log::new();
    log.policy("p, root, *, *");
    log.switch(true);
    log.fold(Command::Register(node_self(2, None)), by("n2")).unwrap();
    log.fold(Command::GroupsAre { groups: Vec::new() }, None).unwrap();
}

#[test]
fn records_of_before_are_read_and_a_cluster_that_does_not_know_better_is_told_nothing_new() {
    let old = br#"{"v":1,"command":{"DeleteTopic":{"name":"x"}}}"#;
    let command = Command::DeleteTopic { name: topic("x") };
    let read = CatalogueRecord::decode(old).unwrap();
    assert_eq!(read, CatalogueRecord::command(command.clone(), Vec::new(), None, 2));
    let for_older = CatalogueRecord::command(command.clone(), Vec::new(), by("alice"), 2);
    assert_eq!(&*for_older.encode(), old);
    let for_own = CatalogueRecord::command(command, Vec::new(), by("alice"), PROTOCOL).encode();
    assert!(String::from_utf8_lossy(&for_own).contains(r#""by":{"subject":"alice""#));
    // Nobody asks for a snapshot.
    let forged = br#"{"v":1,"by":{"subject":"x"},"snapshot":{},"at":1}"#;
    assert!(CatalogueRecord::decode(forged).is_err());
}
