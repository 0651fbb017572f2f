//! `duramen topic`: makes, lists, describes, alters and deletes topics, and says who leads.

use super::{About, Class, Failure, align, confirm, dash, node_name, stdout};
use crate::wire::pb::duramen::v1::{
    AlterTopicRequest, CreateTopicRequest, DeleteTopicRequest, DescribeTopicRequest,
    ListTopicsRequest, ListTopicsResponse, PartitionPlacement, TopicDescription, TopicSettings,
    TransferLeaderRequest,
};
use clap::{Args, Subcommand};
use std::fmt::Write;
use std::time::Duration;

/// How long a new topic is waited for until it is led: an election or two.
const LEADERS_MAX: Duration = Duration::from_secs(20);

/// Arguments of `duramen topic`.
#[derive(Debug, Args)]
pub struct TopicArgs {
    #[command(subcommand)]
    action: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Make a topic.
    Create(Create),
    /// List all topics.
    List(List),
    /// Show where a topic's partitions and replicas are.
    Describe(One),
    /// Add partitions, or change replicas or settings.
    Alter(Alter),
    /// Delete a topic with all its records.
    Delete(Delete),
    /// Hand the leadership of a partition to another of its replicas.
    Transfer(Transfer),
}

#[derive(Debug, Args)]
struct Create {
    /// 1 to 249 of the characters A-Z a-z 0-9 . _ -
    name: String,
    /// How many partitions.
    #[arg(short, long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// How many replicas of each; met as nodes come.
    #[arg(short, long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..))]
    replication_factor: u32,
    /// A setting of section [log] for this topic only; may be given again.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// Do not wait until each partition has a leader.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    about: About,
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    about: About,
}

#[derive(Debug, Args)]
struct One {
    /// The topic.
    name: String,
    #[command(flatten)]
    about: About,
}

#[derive(Debug, Args)]
#[group(skip)]
struct Alter {
    /// The topic.
    name: String,
    /// How many partitions it is to have; partitions can only be added.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    partitions: Option<u32>,
    /// How many replicas of each.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    replication_factor: Option<u32>,
    /// A setting of section [log] for this topic only; KEY= follows the node's again.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    #[command(flatten)]
    about: About,
}

#[derive(Debug, Args)]
struct Delete {
    /// The topic.
    name: String,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    about: About,
}

#[derive(Debug, Args)]
struct Transfer {
    /// The partition, as in orders/0.
    #[arg(value_name = "TOPIC/PARTITION", value_parser = place)]
    place: (String, u32),
    /// The node that is to lead: its number or its name; any that has everything unless given.
    #[arg(long, value_name = "NODE", default_value = "", hide_default_value = true)]
    to: String,
    #[command(flatten)]
    about: About,
}

fn place(text: &str) -> Result<(String, u32), String> {
    let parts = text.rsplit_once('/').filter(|(topic, _)| !topic.is_empty());
    let place = parts.and_then(|(topic, number)| Some((topic.to_owned(), number.parse().ok()?)));
    place.ok_or_else(|| "a partition is TOPIC/NUMBER, as in orders/0".into())
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("a setting is KEY=VALUE, as in retention_age=7d".into()),
    }
}

/// Carries out one of them.
pub fn run(args: TopicArgs) -> Result<(), Failure> {
    match args.action {
        Act::Create(Create { name, partitions, replication_factor, settings, no_wait, about }) => {
            let settings = Some(TopicSettings { values: settings.into_iter().collect() });
            let request = CreateTopicRequest { name, partitions, replication_factor, settings };
            let patience = if no_wait { Duration::ZERO } else { LEADERS_MAX };
            let made = about.ask(async |admin| admin.create_led_topic(request, patience).await)?;
            about.shape.print(&made, as_text)?;
            if no_wait { Ok(()) } else { led(&made) }
        }
        Act::List(List { about }) => {
            let listed = about.ask(async |admin| admin.list_topics(ListTopicsRequest {}).await)?;
            about.shape.print(&listed, as_table)
        }
        Act::Describe(One { name, about }) => {
            let request = DescribeTopicRequest { name };
            let topic = about.ask(async |admin| admin.describe_topic(request).await)?;
            about.shape.print(&topic, as_text)
        }
        Act::Alter(Alter { name, partitions, replication_factor, settings, about }) => {
            let request = AlterTopicRequest {
                name,
                partitions: partitions.unwrap_or(0),
                replication_factor: replication_factor.unwrap_or(0),
                settings: Some(TopicSettings { values: settings.into_iter().collect() }),
            };
            let topic = about.ask(async |admin| admin.alter_topic(request).await)?;
            about.shape.print(&topic, as_text)
        }
        Act::Delete(Delete { name, yes, about }) => {
            let what = format!("topic {name} is deleted with all its records, on every node");
            confirm(&what, &name, yes)?;
            let request = DeleteTopicRequest { name: name.clone() };
            about.ask(async |admin| admin.delete_topic(request).await)?;
            if about.shape.is_json() {
                return stdout::write_text(&format!("{}\n", serde_json::json!({"deleted": name})));
            }
            stdout::write_text(&format!("topic {name} is deleted\n"))
        }
        Act::Transfer(Transfer { place: (topic, partition), to, about }) => {
            let request = TransferLeaderRequest { topic: topic.clone(), partition, to };
            let done = about.ask(async |admin| admin.transfer_leader(request).await)?;
            let leader = done.leader;
            if about.shape.is_json() {
                let told =
                    serde_json::json!({"topic": topic, "partition": partition, "leader": leader});
                return stdout::write_text(&format!("{told}\n"));
            }
            stdout::write_text(&format!("{} is to lead {topic}/{partition}\n", node_name(leader)))
        }
    }
}

/// Whether records find somebody to take them.
pub(super) fn led(made: &TopicDescription) -> Result<(), Failure> {
    let leaderless = made.partitions.iter().filter(|partition| partition.leader == 0);
    let count = leaderless.count();
    if count == 0 {
        return Ok(());
    }
    let (name, all) = (&made.name, made.partitions.len());
    let text = format!("topic {name} is made, but {count} of its {all} partitions have no leader");
    Err(Failure::new(Class::Temporary, text).advice(format!(
        "`duramen topic describe {name}` shows who leads by now, `duramen cluster health` what is \
         not well"
    )))
}

pub(super) fn as_table(listed: &ListTopicsResponse) -> String {
    let heads = ["TOPIC", "ID", "PARTITIONS", "REPLICAS", "WITHOUT LEADER"];
    let mut rows = vec![heads.map(String::from).to_vec()];
    for topic in &listed.topics {
        let leaderless = topic.partitions.iter().filter(|partition| partition.leader == 0).count();
        rows.push(vec![
            topic.name.clone(),
            topic.id.to_string(),
            topic.partitions.len().to_string(),
            topic.replication_factor.to_string(),
            if leaderless == 0 { dash() } else { leaderless.to_string() },
        ]);
    }
    align(&rows)
}

pub(super) fn as_text(topic: &TopicDescription) -> String {
    let partitions = topic.partitions.len();
    let mut text = format!(
        "topic {} (id {}): {partitions} partition{}, {} replicas wanted of each\n",
        topic.name,
        topic.id,
        if partitions == 1 { "" } else { "s" },
        topic.replication_factor
    );
    let settings = topic.settings.iter().flat_map(|settings| &settings.values);
    let mut settings: Vec<_> = settings.collect();
    settings.sort();
    for (key, value) in settings {
        writeln!(text, "  {key} = {value}").expect("a string takes any text");
    }
    let mut rows = vec![["PARTITION", "LEADER", "TERM", "REPLICAS"].map(String::from).to_vec()];
    rows.extend(topic.partitions.iter().map(row));
    format!("{text}\n{}", align(&rows))
}

/// Replicas that are no plain members say what they are.
fn row(partition: &PartitionPlacement) -> Vec<String> {
    let replicas: Vec<String> = partition
        .replicas
        .iter()
        .map(|replica| match replica.state.as_str() {
            "member" | "" => node_name(replica.node),
            state => format!("{} ({state})", node_name(replica.node)),
        })
        .collect();
    vec![
        partition.partition.to_string(),
        node_name(partition.leader),
        partition.term.to_string(),
        replicas.join(" "),
    ]
}
