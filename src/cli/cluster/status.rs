//! `duramen cluster`: what state a cluster is in, once or as it changes.

use super::topic::as_table as topics_table;
use super::{About, Class, Failure, align, block_on, node_name, stdout};
use crate::cli::shape::json_line;
use crate::model::escape::one_line;
use crate::wire::pb::duramen::v1::{
    ClusterStatus, ClusterStatusRequest, ListTopicsResponse, NodeStatus,
};
use clap::{Args, Subcommand};
use serde_json::json;
use std::fmt::Write;
use std::time::Duration;

/// How often a cluster that is watched is asked.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Arguments of `duramen cluster`.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    #[command(subcommand)]
    action: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Show nodes, topics and what is not well, as one node sees it.
    Status(Status),
    /// Tell whether everything is well; exit code 75 where it is not.
    Health(Health),
}

#[derive(Debug, Args)]
struct Status {
    #[command(flatten)]
    about: About,
}

#[derive(Debug, Args)]
struct Health {
    /// Go on, and print what changes; Ctrl-C ends it.
    #[arg(long)]
    watch: bool,
    /// Go on until everything is well.
    #[arg(long)]
    exit_when_healthy: bool,
    #[command(flatten)]
    about: About,
}

/// Carries out one of them.
pub fn run(args: ClusterArgs) -> Result<(), Failure> {
    match args.action {
        Act::Status(Status { about }) => {
            let request = ClusterStatusRequest {};
            let status = about.ask(async |admin| admin.cluster_status(request).await)?;
            about.shape.print(&status, as_text)
        }
        Act::Health(health) => block_on(health.run()),
    }
}

/// What is told of a cluster's health.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    is_healthy: bool,
    troubles: Vec<String>,
}

impl Verdict {
    fn of(asked: Result<ClusterStatus, Failure>) -> Self {
        match asked {
            Ok(status) => Self { is_healthy: status.healthy, troubles: status.troubles },
            Err(failure) => {
                let cause = failure.cause.map(|cause| format!(": {cause}")).unwrap_or_default();
                Self { is_healthy: false, troubles: vec![format!("{}{cause}", failure.error)] }
            }
        }
    }

    fn print(&self, is_json: bool) -> Result<(), Failure> {
        if is_json {
            let object = json!({"healthy": self.is_healthy, "troubles": self.troubles});
            return stdout::write(json_line(&object).as_bytes());
        }
        stdout::write_text(&self.as_text())
    }

    fn as_text(&self) -> String {
        if self.is_healthy {
            return "healthy\n".into();
        }
        let troubles = self.troubles.iter().map(|trouble| format!("  {}\n", one_line(trouble)));
        format!("not healthy\n{}", troubles.collect::<String>())
    }
}

impl Health {
    async fn run(&self) -> Result<(), Failure> {
        let is_json = self.about.shape.is_json();
        let mut told = None;
        loop {
            let request = ClusterStatusRequest {};
            let asked = self.about.asked(async |admin| admin.cluster_status(request).await).await;
            if !self.watch && !self.exit_when_healthy {
                let verdict = Verdict::of(Ok(asked?));
                verdict.print(is_json)?;
                return if verdict.is_healthy { Ok(()) } else { Err(unwell()) };
            }
            let verdict = Verdict::of(asked);
            if told.as_ref() != Some(&verdict) {
                verdict.print(is_json)?;
            }
            if verdict.is_healthy && self.exit_when_healthy {
                return Ok(());
            }
            told = Some(verdict);
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    }
}

fn unwell() -> Failure {
    Failure::new(Class::Temporary, "the cluster is not healthy").advice(
        "`duramen cluster status` shows more; `duramen cluster health --exit-when-healthy` waits",
    )
}

pub(super) fn as_text(status: &ClusterStatus) -> String {
    let mut text = format!(
        "cluster {}, as node {} sees it; controller {} in term {}; protocol {}\n\n{}",
        status.cluster_id,
        node_name(status.node),
        node_name(status.controller_leader),
        status.controller_term,
        status.protocol,
        nodes_table(&status.nodes)
    );
    if !status.topics.is_empty() {
        let topics = ListTopicsResponse { topics: status.topics.clone() };
        write!(text, "\n{}", topics_table(&topics)).expect("a string takes any text");
    }
    let troubles = status.troubles.clone();
    let verdict = Verdict { is_healthy: status.healthy, troubles };
    write!(text, "\n{}", verdict.as_text()).expect("a string takes any text");
    text
}

pub(super) fn nodes_table(nodes: &[NodeStatus]) -> String {
    let heads = [
        "NODE",
        "NAME",
        "STATE",
        "PRESENCE",
        "RPC",
        "GOSSIP",
        "VERSION",
        "REPLICAS",
        "LEADERS",
        "CONTROLLER",
        "LABELS",
        "PROGRESS",
    ];
    let mut rows = vec![heads.map(String::from).to_vec()];
    for node in nodes {
        let mut labels: Vec<_> =
            node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        labels.sort();
        rows.push(vec![
            node_name(node.id),
            node.name.clone(),
            node.state.clone(),
            node.presence.clone(),
            node.rpc_addr.clone(),
            node.gossip_addr.clone(),
            node.version.clone(),
            node.replicas.to_string(),
            node.leaders.to_string(),
            if node.controller_voter { "voter" } else { "learner" }.into(),
            labels.join(" "),
            node.progress.clone(),
        ]);
    }
    align(&rows)
}
