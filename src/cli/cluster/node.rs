//! `duramen node`: lists a cluster's nodes, takes one out, replaces one that died.

use super::status::nodes_table;
use super::{About, Failure, confirm};
use crate::wire::pb::duramen::v1::{
    ClusterStatusRequest, LeaveNodeRequest, NodeActionResponse, RemoveNodeRequest,
    ReplaceNodeRequest,
};
use clap::{Args, Subcommand};

/// Arguments of `duramen node`.
#[derive(Debug, Args)]
pub struct NodeArgs {
    #[command(subcommand)]
    action: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// List all nodes.
    List(List),
    /// Move leaders and replicas off a node, then take it out.
    Leave(Leave),
    /// Give the replicas of a dead node to another one.
    Replace(Replace),
    /// Take a dead node out at once; its replicas are not copied first.
    Remove(Remove),
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    about: About,
}

#[derive(Debug, Args)]
struct Leave {
    /// The node's number, name or uuid; without it, the node that is asked.
    node: Option<String>,
    #[command(flatten)]
    about: About,
}

#[derive(Debug, Args)]
struct Replace {
    /// The dead node's number, name or uuid.
    dead: String,
    /// Who takes its replicas; without it, whoever has room.
    #[arg(long = "by", value_name = "NODE")]
    replacement: Option<String>,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    about: About,
}

#[derive(Debug, Args)]
struct Remove {
    /// The dead node's number, name or uuid.
    node: String,
    /// Also where a group is left without a majority of its replicas: what only they had is lost.
    #[arg(long)]
    force: bool,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    about: About,
}

/// Carries out one of them.
pub fn run(args: NodeArgs) -> Result<(), Failure> {
    let (about, done) = match args.action {
        Act::List(List { about }) => {
            let request = ClusterStatusRequest {};
            let status = about.ask(async |admin| admin.cluster_status(request).await)?;
            return about.shape.print(&status.nodes, |nodes| nodes_table(nodes));
        }
        Act::Leave(Leave { node, about }) => {
            let request = LeaveNodeRequest { node: node.unwrap_or_default() };
            let done = about.ask(async |admin| admin.leave_node(request).await)?;
            (about, done)
        }
        Act::Replace(Replace { dead, replacement, yes, about }) => {
            let what = format!("node {dead} is taken for dead: it can never come back as itself");
            confirm(&what, &dead, yes)?;
            let replacement = replacement.unwrap_or_default();
            let request = ReplaceNodeRequest { dead, replacement };
            let done = about.ask(async |admin| admin.replace_node(request).await)?;
            (about, done)
        }
        Act::Remove(Remove { node, force, yes, about }) => {
            let mut what = format!("node {node} is taken out: it can never come back as itself");
            if force {
                what += "\nwith --force, also what was acknowledged may be lost";
            }
            confirm(&what, &node, yes)?;
            let request = RemoveNodeRequest { node, force };
            let done = about.ask(async |admin| admin.remove_node(request).await)?;
            (about, done)
        }
    };
    for warning in &done.warnings {
        eprintln!("warning: {}", crate::model::escape::one_line(warning));
    }
    about.shape.print(&done, as_text)
}

fn as_text(done: &NodeActionResponse) -> String {
    format!("node n{}: {}\n", done.node, done.message)
}
