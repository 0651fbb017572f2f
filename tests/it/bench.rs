//! `duramen bench` as a person runs it, at its smallest: what it prints, never how fast that is.

use serde_json::Value;
use std::process::Command;

fn bench(arguments: &[&str]) -> Vec<Value> {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_duramen"))
        .args(["bench", "--json", "--size", "100", "--seconds", "0.3", "--warmup", "0.05"])
        .args(["--connections", "4", "--dir"])
        .arg(home.path())
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "it takes its files away");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn median(row: &Value, figure: &str) -> Option<f64> {
    row.get(figure)?.get("median")?.as_f64()
}

/// Goal: the same row on one node and on three is one line, with both figures and their ratio.
/// Method: real processes; every replica's flushes show that it stored the records.
#[test]
fn a_row_on_a_cluster_is_printed_beside_the_same_on_a_node_alone() {
    let rows = bench(&["p64-sync", "p1-pipe", "--cluster", "3"]);
    assert_eq!(rows.len(), 2);
    for row in &rows {
        let figure = |name| median(row, name).unwrap_or_else(|| panic!("{name} in {row}"));
        let ratio = figure("cluster_records_per_second") / figure("records_per_second");
        assert!((figure("rate_ratio_to_single_node") - ratio).abs() < 1e-9);
        let ratio = figure("cluster_p50_us") / figure("p50_us");
        assert!((figure("p50_ratio_to_single_node") - ratio).abs() < 1e-9);
        for name in ["leader_records_per_flush", "follower_records_per_flush"] {
            assert!(figure(name) > 0.0, "{name} in {row}");
        }
    }
}

#[test]
fn without_a_cluster_no_figure_of_one_is_printed() {
    let rows = bench(&["p64-sync"]);
    assert!(median(&rows[0], "records_per_second").is_some_and(|rate| rate > 0.0));
    assert_eq!(median(&rows[0], "cluster_records_per_second"), None);
    assert_eq!(median(&rows[0], "leader_cpu_seconds_per_million"), None);
}
