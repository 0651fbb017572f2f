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

/// Goal: guards are measured beside the same load without them, and the floors are part of what is
/// printed. Method: real processes; `bench` itself looks whether its nodes refuse what no rule permits.
#[test]
fn a_row_on_guarded_nodes_is_printed_beside_the_same_on_a_plain_one() {
    let rows = bench(&["p64-sync", "p1-pipe", "--guarded"]);
    assert_eq!(rows.len(), 2);
    for (row, floor) in rows.iter().zip([0.9, 0.7]) {
        let plain = median(row, "records_per_second").unwrap();
        for guard in ["acl+token", "tls+acl", "tls+acl+token"] {
            let behind = &row["guarded"][guard];
            let figure = |name| median(behind, name).unwrap_or_else(|| panic!("{name} in {row}"));
            let ratio = figure("records_per_second") / plain;
            assert!((figure("rate_ratio_to_plain") - ratio).abs() < 1e-9, "{guard} in {row}");
            assert_eq!(behind["floor"], floor, "{guard} in {row}");
            assert_eq!(behind["is_reached"], ratio >= floor, "{guard} in {row}");
        }
    }
}

#[test]
fn what_connections_cost_is_counted_in_connections_and_in_what_another_client_waits() {
    let rows = bench(&["connect"]);
    let names: Vec<_> = rows.iter().map(|row| row["case"].as_str().unwrap()).collect();
    assert_eq!(names, ["connect, 8 at a time", "p1-sync beside 256 greetings each 200ms"]);
    assert!(rows.iter().all(|row| median(row, "p99_us").is_some_and(|p99| p99 > 0.0)));
    assert_eq!(median(&rows[0], "visits"), None, "there, each is a record");
    assert!(median(&rows[1], "visits").is_some_and(|visits| visits >= 256.0));
    assert!(rows.iter().all(|row| row.get("guarded").is_none()));
}

#[test]
fn nodes_of_others_are_not_guarded_by_the_benchmark() {
    let refused = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_duramen"))
            .args(["bench", "p1-sync", "--guarded"])
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for arguments in [&["--rpc-addr", "127.0.0.1:1"][..], &["--cluster", "3"]] {
        let (code, said) = refused(arguments);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("--guarded"), "{said}");
    }
}
