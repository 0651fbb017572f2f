//! `duramen top`: the places of a node that do the work, the busiest first, again and again.

use super::ps::{handling, headline, remarks, slowest};
use super::table::align;
use super::{Failure, NodeAddress, Shape, asked, block_on, connect, json_line, stdout};
use crate::model::escape;
use crate::ops::settings::parse_duration;
use crate::wire::pb::duramen::v1::{Place, TreeResponse};
use clap::Args;
use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Arguments of `duramen top`.
#[derive(Debug, Args)]
#[command(after_help = "As JSON: one object a look, as `duramen ps --json` prints it.")]
pub struct TopArgs {
    /// Only places that this covers, as in partitions/**/log; a tail of a path is enough.
    #[arg(value_name = "PATH-GLOB")]
    pattern: Option<String>,
    /// Time between two looks.
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// End after so many looks.
    #[arg(short = 'n', long, value_name = "LOOKS")]
    count: Option<u64>,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    node: NodeAddress,
}

/// More often than this would only measure itself.
const INTERVAL_MIN: Duration = Duration::from_millis(50);

fn interval(text: &str) -> Result<Duration, String> {
    let read = parse_duration(text).ok_or("expected a time with its unit, such as 500ms or 2s")?;
    if read < INTERVAL_MIN {
        return Err(format!("at least {}ms", INTERVAL_MIN.as_millis()));
    }
    Ok(read)
}

/// Looks until it is told to stop: that is how it is ended, and no failure.
pub fn run(args: &TopArgs) -> Result<(), Failure> {
    block_on(async {
        tokio::select! {
            looked = look(args) => looked,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })
}

async fn look(args: &TopArgs) -> Result<(), Failure> {
    let mut observer = connect(&args.node).await?;
    let pattern = args.pattern.as_deref().unwrap_or_default();
    let is_json = args.shape.is_json();
    let redraws = !is_json && std::io::stdout().is_terminal();
    let mut output = stdout::buffered()?;
    let mut ticks = tokio::time::interval(args.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before: Option<TreeResponse> = None;
    let mut looks = 0;
    while args.count.is_none_or(|count| looks < count) {
        ticks.tick().await;
        let tree = asked(&args.node, observer.tree(pattern)).await?;
        let table = || escape::lines(&as_table(&tree, before.as_ref())).into_owned();
        let text = match (is_json, redraws) {
            (true, _) => json_line(&tree),
            (false, true) => redrawn(&table(), looks == 0),
            (false, false) => table() + "\n",
        };
        let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
        if !stdout::settle(written)? {
            return Ok(());
        }
        before = Some(tree);
        looks += 1;
    }
    Ok(())
}

/// Writes over what was there: line by line, so that nothing flickers.
fn redrawn(text: &str, is_first: bool) -> String {
    let clear = if is_first { "\x1b[2J" } else { "" };
    format!("{clear}\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

/// The busiest first. Rates are those between two looks, and at the first one the node's own.
fn as_table(tree: &TreeResponse, before: Option<&TreeResponse>) -> String {
    let known: HashMap<&str, &Place> = before
        .map(|before| before.places.iter().map(|place| (&*place.path, place)).collect())
        .unwrap_or_default();
    let passed_ms = before.map_or(0, |before| tree.time_ms.saturating_sub(before.time_ms));
    let rate = |now: u64, then: u64| -> Option<u64> {
        let passed_ms = u64::try_from(passed_ms).ok().filter(|ms| *ms > 0)?;
        Some(now.saturating_sub(then).saturating_mul(1000) / passed_ms)
    };
    let mut busy: Vec<(u64, u64, &Place)> = Vec::new();
    for place in tree.places.iter().filter(|place| place.kind != "supervisor") {
        let then = known.get(&*place.path);
        let handled = then.and_then(|then| rate(place.handled, then.handled));
        let refused = then.and_then(|then| rate(place.refused, then.refused));
        busy.push((handled.unwrap_or(place.per_second), refused.unwrap_or(0), place));
    }
    busy.sort_by_key(|(handled, _, _)| std::cmp::Reverse(*handled));
    let heads =
        ["PLACE", "STATE", "MSG/S", "MAILBOX", "IN-FLIGHT", "REFUSED/S", "SLOWEST", "HANDLING"];
    let mut rows = vec![heads.map(String::from).to_vec()];
    for (handled, refused, place) in busy {
        rows.push(vec![
            place.path.clone(),
            place.state.clone(),
            handled.to_string(),
            place.mailbox.to_string(),
            place.in_flight.to_string(),
            refused.to_string(),
            slowest(place),
            handling(place),
        ]);
    }
    let mut text = headline(tree);
    text.push_str(&align(&rows));
    remarks(&mut text, &tree.places);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(time_ms: i64, handled: [u64; 2]) -> TreeResponse {
        let actor = |path: &str, handled| Place {
            path: path.into(),
            kind: "actor".into(),
            handled,
            per_second: 7,
            ..Default::default()
        };
        let root = Place { kind: "supervisor".into(), path: "node".into(), ..Default::default() };
        let places = vec![root, actor("node/a", handled[0]), actor("node/b", handled[1])];
        TreeResponse { time_ms, places, ..Default::default() }
    }

    fn rows(text: &str) -> Vec<Vec<&str>> {
        text.lines()
            .filter(|line| line.starts_with("node/"))
            .map(|line| line.split_whitespace().collect())
            .collect()
    }

    #[test]
    fn rates_are_those_between_two_looks_and_the_busiest_comes_first() {
        let (first, second) = (tree(1000, [10, 10]), tree(3000, [20, 210]));
        let text = as_table(&second, Some(&first));
        let rows = rows(&text);
        assert_eq!((rows[0][0], rows[0][1]), ("node/b", "100"), "{text}");
        assert_eq!((rows[1][0], rows[1][1]), ("node/a", "5"), "{text}");
        assert_eq!(rows.len(), 2, "supervisors handle nothing");
    }

    #[test]
    fn the_first_look_has_the_nodes_own_rates_and_a_restarted_node_none_below_zero() {
        assert!(as_table(&tree(1, [1, 1]), None).contains(" 7 "));
        let text = as_table(&tree(2000, [0, 0]), Some(&tree(1000, [50, 50])));
        assert_eq!(rows(&text)[0][1], "0", "{text}");
    }

    #[test]
    fn an_interval_that_would_measure_itself_is_refused() {
        assert_eq!(interval("2s"), Ok(Duration::from_secs(2)));
        assert!(interval("1ms").is_err() && interval("2").is_err());
    }
}
