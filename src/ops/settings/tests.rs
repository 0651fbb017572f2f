//! What settings promise: layers per key, faults with their place and the nearest name, units.

use super::fields::FIELDS;
use super::value::Value;
use super::*;
use proptest::prelude::*;

fn file(text: &str) -> Sources {
    Sources { file: Some(("node.toml".into(), text.into())), ..Sources::default() }
}

fn faults(sources: &Sources) -> String {
    sources.layer().expect_err("these settings are wrong").to_string()
}

#[test]
fn without_any_source_the_defaults_hold() {
    let loaded = Sources::default().layer().unwrap();
    assert_eq!(loaded.settings, Settings::default());
    assert_eq!(loaded.origin("log.durability"), Origin::Default);
}

#[test]
fn flag_wins_over_variable_over_file_over_default_for_each_key() {
    let mut sources = file(
        "data_dir = \"/from/file\"\n[log]\ndurability = \"os\"\nsync_interval = \"2s\"\n\
         [rpc]\nconnections_max = 7\n",
    );
    sources.environment = vec![
        ("DURAMEN_LOG_DURABILITY".into(), "interval".into()),
        ("DURAMEN_DATA_DIR".into(), "/from/env".into()),
        ("HOME".into(), "/root".into()),
    ];
    sources.flags = vec![Flag { name: "--data-dir", key: "data_dir", value: "/from/flag".into() }];
    let loaded = sources.layer().unwrap();
    assert_eq!(loaded.settings.data_dir, PathBuf::from("/from/flag"));
    assert_eq!(loaded.origin("data_dir"), Origin::Flag { name: "--data-dir" });
    assert_eq!(loaded.settings.log.durability, Durability::Interval);
    assert_eq!(loaded.origin("log.durability").to_string(), "DURAMEN_LOG_DURABILITY");
    assert_eq!(loaded.settings.log.sync_interval, Duration::from_secs(2));
    assert_eq!(loaded.origin("log.sync_interval").to_string(), "node.toml:4");
    assert_eq!(loaded.settings.rpc.connections_max, 7);
    assert_eq!(loaded.origin("http.addr"), Origin::Default);
    assert!(loaded.warnings.is_empty());
}

#[test]
fn an_unknown_key_in_the_file_is_an_error_with_its_line_and_the_nearest_key() {
    let text = faults(&file("[log]\n\ndurabilty = \"os\"\n"));
    assert_eq!(
        text,
        "node.toml:3: unknown key \"log.durabilty\"; did you mean \"log.durability\"?"
    );
    let text = faults(&file("[lgo]\na = 1\nb = 2\n"));
    assert!(text.starts_with("node.toml:1: unknown key \"lgo\""), "{text}");
    assert!(!text.contains('\n'), "an unknown section is told once: {text}");
}

#[test]
fn an_unknown_variable_is_a_warning_with_the_nearest_name() {
    let environment = vec![("DURAMEN_RPC_ADR".into(), "x".into())];
    let loaded = Sources { environment, ..Sources::default() }.layer().unwrap();
    assert_eq!(
        loaded.warnings,
        ["unknown environment variable DURAMEN_RPC_ADR is ignored; did you mean DURAMEN_RPC_ADDR?"]
    );
}

#[test]
fn every_fault_is_told_at_once() {
    let mut sources = file("[log]\ndurability = \"never\"\nnonsense = 1\n");
    sources.environment = vec![("DURAMEN_SHUTDOWN_GRACE".into(), "10".into())];
    let text = faults(&sources);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains("node.toml:2: log.durability is \"never\": expected fsync"), "{text}");
    assert!(text.contains("node.toml:3: unknown key \"log.nonsense\""), "{text}");
    assert!(text.contains("DURAMEN_SHUTDOWN_GRACE: shutdown.grace is \"10\": expected"), "{text}");
}

#[test]
fn a_size_without_a_unit_is_an_error_that_shows_one() {
    let text = faults(&file("[log]\nbatch_bytes_max = 1048576\n"));
    assert!(text.contains("the number 1048576"), "{text}");
    assert!(text.contains("16MiB"), "{text}");
}

#[test]
fn text_that_is_not_toml_is_an_error_with_its_line() {
    let text = faults(&file("data_dir = \"x\"\n[log\n"));
    assert!(text.starts_with("node.toml:2: "), "{text}");
}

#[test]
fn values_outside_their_limits_and_values_that_do_not_fit_together_are_refused_together() {
    let text = faults(&file(
        "[log]\nrecord_bytes_max = \"32MiB\"\ngather_fraction = 1.5\n[rpc]\nstreams_max = 0\n",
    ));
    assert!(text.contains("log.gather_fraction is 1.5: allowed is 0.0 to 1.0"), "{text}");
    assert!(text.contains("rpc.streams_max is 0: allowed is 1 to 65536"), "{text}");
    assert!(text.contains("log.batch_bytes_max is 16MiB: must be at least"), "{text}");
}

#[test]
fn an_address_that_others_reach_needs_consent() {
    let text = faults(&file("[rpc]\naddr = \"0.0.0.0:8400\"\n"));
    assert!(text.contains("node.toml:2: rpc.addr is 0.0.0.0:8400"), "{text}");
    assert!(text.contains("--insecure-listen"), "{text}");
    let allowed = file("insecure_listen = true\n[rpc]\naddr = \"0.0.0.0:8400\"\n");
    assert!(allowed.layer().unwrap().settings.insecure_listen);
    assert!(file("[rpc]\naddr = \"[::1]:0\"\n").layer().is_ok());
    assert!(file("[rpc]\naddr = \"localhost:0\"\n[http]\naddr = \"localhost:0\"").layer().is_ok());
}

#[test]
fn a_collector_is_named_by_an_address_that_can_be_reached_without_tls() {
    let of = |url: &str| file(&format!("[telemetry]\notlp_endpoint = \"{url}\"\n"));
    let settings = of("http://127.0.0.1:4317").layer().unwrap().settings;
    let endpoint = settings.telemetry.otlp_endpoint.unwrap();
    assert_eq!(endpoint.as_str(), "http://127.0.0.1:4317");
    assert_eq!(of("none").layer().unwrap().settings.telemetry.otlp_endpoint, None);
    for url in [
        "https://collector:4317",
        "127.0.0.1:4317",
        "http://",
        "",
        "grpc://x",
        "http://me:pass@host:4317",
    ] {
        assert!(faults(&of(url)).contains("http://127.0.0.1:4317"), "{url}");
    }
    let text = faults(&of("http://me:pass@host:4317"));
    assert!(text.contains("http://(not shown)@host:4317") && !text.contains("pass@"), "{text}");
    let text = faults(&file("[telemetry]\ntraces_ratio = 1.5\n"));
    assert!(text.contains("telemetry.traces_ratio is 1.5: allowed is 0.0 to 1.0"), "{text}");
}

#[test]
fn two_front_ends_on_one_port_are_refused() {
    let text = faults(&file("[rpc]\naddr = \"127.0.0.1:8080\"\n"));
    assert!(text.contains("http.addr is 127.0.0.1:8080: rpc.addr is the same"), "{text}");
}

#[test]
fn addresses_to_join_are_a_list_of_hosts_from_any_layer() {
    let joins = |loaded: Loaded| -> Vec<String> {
        loaded.settings.gossip.join.iter().map(HostPort::to_string).collect()
    };
    let wanted = ["10.0.0.7:8401", "node-2.example.net:8401"];
    let list = file("[gossip]\njoin = [\"10.0.0.7:8401\", \"node-2.example.net:8401\"]\n");
    assert_eq!(joins(list.layer().unwrap()), wanted);
    let value = "10.0.0.7:8401, node-2.example.net:8401";
    let environment = vec![("DURAMEN_GOSSIP_JOIN".into(), value.into())];
    assert_eq!(joins(Sources { environment, ..Sources::default() }.layer().unwrap()), wanted);
    let flags = vec![Flag { name: "--join", key: "gossip.join", value: value.into() }];
    assert_eq!(joins(Sources { flags, ..Sources::default() }.layer().unwrap()), wanted);
    for wrong in ["[\"nowhere\"]", "[\"1.2.3:1\"]", "[\"a:0\"]", "[\"a b:1\"]", "[1]", "7"] {
        let text = faults(&file(&format!("[gossip]\njoin = {wrong}\n")));
        assert!(text.contains("expected a list of at most 64 hosts"), "{wrong}: {text}");
    }
}

#[test]
fn labels_are_pairs_of_short_words() {
    let of = |labels: &str| file(&format!("[node]\nlabels = {labels}\n"));
    let labels = of("[\"rack=a\", \"zone=eu-1\"]").layer().unwrap().settings.node.labels;
    assert_eq!(labels.0["rack"], "a");
    assert_eq!(labels.show(), "rack=a,zone=eu-1");
    for wrong in ["[\"rack\"]", "[\"rack=\"]", "[\"a=1\", \"a=2\"]", "[\"a=b c\"]"] {
        assert!(faults(&of(wrong)).contains("expected at most 8 labels"), "{wrong}");
    }
}

#[test]
fn a_key_is_read_as_base64_or_hexadecimal_and_shown_nowhere() {
    let of = |key: &str| file(&format!("[gossip]\nkey = \"{key}\"\n"));
    let (hex, base64) = ("07".repeat(32), "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=");
    for key in [hex.as_str(), base64] {
        let settings = of(key).layer().unwrap().settings;
        assert_eq!(settings.gossip.key.as_ref().map(GossipKey::bytes), Some([7; 32]));
        assert!(!format!("{settings:?}").contains("BwcH"), "not even by Debug");
        let field = fields::find("gossip.key").unwrap();
        assert_eq!(field.show_redacted(&settings), "(not shown)");
    }
    let text = faults(&of("my-secret"));
    assert!(
        text.contains("gossip.key is not one: expected") && !text.contains("my-secret"),
        "{text}"
    );
}

#[test]
fn gossip_that_others_reach_needs_a_key_or_consent() {
    let addr = "[gossip]\naddr = \"0.0.0.0:8401\"\n";
    let text = faults(&file(addr));
    assert!(text.contains("node.toml:2: gossip.addr is 0.0.0.0:8401"), "{text}");
    assert!(text.contains("--insecure-listen") && text.contains("openssl rand"), "{text}");
    assert!(file(&format!("{addr}key = \"{}\"\n", "07".repeat(32))).layer().is_ok());
    assert!(file(&format!("insecure_listen = true\n{addr}")).layer().is_ok());
}

#[test]
fn what_makes_no_cluster_is_refused() {
    let text = faults(&file("[cluster]\nelection_ticks = 4\nheartbeat_ticks = 4\n"));
    assert!(text.contains("must be more than cluster.heartbeat_ticks (4)"), "{text}");
    let text = faults(&file("[gossip]\nmulticast = \"10.0.0.1:8402\"\n"));
    assert!(text.contains("must be a multicast group"), "{text}");
    let text = faults(&file("[gossip]\nadvertise = \"0.0.0.0:8401\"\n"));
    assert!(text.contains("must be an address that other nodes can reach"), "{text}");
    let text = faults(&file("[gossip]\naddr = \"127.0.0.1:8400\"\n"));
    assert!(text.contains("rpc.addr is the same"), "{text}");
    let text = faults(&file("[replicator]\nqueue_bytes_max = \"16MiB\"\n"));
    assert!(text.contains("to hold log.batch_bytes_max"), "{text}");
}

fn yaml(text: &str) -> Sources {
    Sources { file: Some(("node.yaml".into(), text.into())), ..Sources::default() }
}

/// Each ended the process: a document is let go of level by level.
#[test]
fn yaml_that_is_nested_without_end_is_refused() {
    for text in ["- ".repeat(20_000), "? ".repeat(20_000), format!("a:\n{}b: 1", " ".repeat(101))] {
        let text = faults(&yaml(&text));
        assert!(text.contains("nested deeper than any setting"), "{text}");
    }
    let text = faults(&yaml(&format!("a: {}", "[".repeat(20_000))));
    assert!(text.contains("node.yaml:1: "), "{text}");
}

#[test]
fn a_file_may_be_yaml_with_the_same_keys_and_the_same_faults() {
    let text = "# a comment\ndata_dir: /data\nlog:\n  durability: os\n  gather_fraction: 0.5\n\
                rpc:\n  connections_max: 7\ngossip:\n  join: [\"10.0.0.7:8401\"]\n  key:\n";
    let loaded = yaml(text).layer().unwrap();
    assert_eq!(loaded.settings.data_dir, PathBuf::from("/data"));
    assert_eq!(loaded.settings.log.durability, Durability::Os);
    assert_eq!(loaded.settings.log.gather_fraction, 0.5);
    assert_eq!(loaded.settings.rpc.connections_max, 7);
    assert_eq!(loaded.settings.gossip.join.len(), 1);
    assert_eq!(loaded.origin("log.durability").to_string(), "node.yaml:4");
    assert_eq!(yaml("").layer().unwrap().settings, Settings::default());
    assert_eq!(yaml("# nothing\n").layer().unwrap().settings, Settings::default());
    let text = faults(&yaml("log:\n  durabilty: os\n  batch_bytes_max: 7\n"));
    assert!(text.contains("node.yaml:2: unknown key \"log.durabilty\"; did you mean"), "{text}");
    assert!(text.contains("node.yaml:3: log.batch_bytes_max is the number 7"), "{text}");
    for wrong in ["a: [", "- a\n- b\n", "just text", "a: 1\n---\nb: 2\n"] {
        assert!(faults(&yaml(wrong)).starts_with("node.yaml:"), "{wrong:?}");
    }
}

/// What the book's chart writes for its second pod, but for the addresses.
const OF_THE_BOOK: &str = "data-dir: /var/run/proglog/data\nrpc-port: 8500\n\
    bind-addr: \"127.0.0.1:8501\"\nnode-name: proglog-1\nbootstrap: false\n\
    start-join-addrs:\n  - proglog-0.proglog.default.svc.cluster.local:8401\n\
    server-tls-cert-file: \"\"\nacl-model-file:\n";

#[test]
fn the_books_configuration_starts_a_node() {
    let loaded = yaml(OF_THE_BOOK).layer().unwrap();
    let Settings { data_dir, node, rpc, gossip, .. } = &loaded.settings;
    assert_eq!(data_dir, &PathBuf::from("/var/run/proglog/data"));
    assert_eq!(node.name.as_deref(), Some("proglog-1"));
    assert_eq!(rpc.addr.to_string(), "127.0.0.1:8500");
    assert_eq!(gossip.addr.to_string(), "127.0.0.1:8501");
    assert_eq!(gossip.join[0].as_str(), "proglog-0.proglog.default.svc.cluster.local:8401");
    assert_eq!(loaded.origin("rpc.addr").to_string(), "node.yaml:2");
    assert!(loaded.warnings.is_empty());
    let both = yaml(&OF_THE_BOOK.replace("bootstrap: false", "bootstrap: true"));
    let warnings = both.layer().unwrap().warnings;
    assert!(warnings[0].starts_with("node.yaml:5: bootstrap is true"), "{warnings:?}");
}

#[test]
fn the_books_certificates_are_those_of_the_node_and_of_its_way_to_others() {
    let all: String = ["cert", "key", "ca"]
        .iter()
        .flat_map(|what| {
            ["server", "peer"].map(|side| format!("{side}-tls-{what}-file: /c/{side}-{what}.pem\n"))
        })
        .collect();
    let tls = yaml(&all).layer().unwrap().settings.tls;
    assert!(tls.is_on());
    assert_eq!(tls.cert_file, Some(PathBuf::from("/c/server-cert.pem")));
    assert_eq!(tls.peer_key_file, Some(PathBuf::from("/c/peer-key.pem")));
    assert!(!yaml("server-tls-cert-file: \"\"\n").layer().unwrap().settings.tls.is_on());
    let half = faults(&yaml("server-tls-cert-file: /c/server.pem\n"));
    assert!(half.contains("tls.ca_file") && half.contains("tls.key_file"), "{half}");
    let alone = faults(&yaml("peer-tls-ca-file: /c/ca.pem\n"));
    assert!(alone.contains("would protect nothing"), "{alone}");
}

#[test]
fn with_certificates_a_node_may_be_reached_from_elsewhere() {
    assert!(faults(&file("[rpc]\naddr = \"0.0.0.0:8400\"\n")).contains("duramen tls init"));
    file("[rpc]\naddr = \"0.0.0.0:8400\"\n[tls]\ndir = \"/c\"\n").layer().unwrap();
}

#[test]
fn the_books_access_files_are_read_under_both_of_its_spellings() {
    for spelling in ["acl-model-file", "acl-mode-file"] {
        let text = format!("{spelling}: /etc/model.conf\nacl-policy-file: /etc/policy.csv\n");
        let access = yaml(&text).layer().unwrap().settings.access;
        assert_eq!(access.model_file, Some(PathBuf::from("/etc/model.conf")), "{spelling}");
        assert_eq!(access.policy_file, Some(PathBuf::from("/etc/policy.csv")));
    }
    let none = yaml("acl-model-file: \"\"\nacl-policy-file: \"\"\n").layer().unwrap();
    assert_eq!(none.settings.access, AccessSettings::default());
    // One alone would protect nothing, and look as if it did.
    for half in ["acl-model-file: /etc/model.conf\n", "acl-policy-file: /etc/policy.csv\n"] {
        assert!(faults(&yaml(half)).contains("goes together with"), "{half}");
    }
}

#[test]
fn an_administrator_that_nobody_can_be_is_refused() {
    for nobody in ["*", "role:ops", "a#b"] {
        let text = faults(&file(&format!("[access]\nadmins = [\"root\", \"{nobody}\"]\n")));
        assert!(text.contains("access.admins") && text.contains("is no name"), "{text}");
    }
    let loaded = file("[access]\nadmins = [\"root\", \"rööt\"]\n").layer().unwrap();
    assert_eq!(loaded.settings.access.admins, ["root", "rööt"]);
}

#[test]
fn the_files_of_three_nodes_on_one_machine_fit_together() {
    let texts = [
        include_str!("../../../config/cluster-3/n1.toml"),
        include_str!("../../../config/cluster-3/n2.toml"),
        include_str!("../../../config/cluster-3/n3.toml"),
    ];
    let nodes = texts.map(|text| file(text).layer().unwrap().settings);
    let mut ports: Vec<u16> = nodes
        .iter()
        .flat_map(|node| [node.rpc.addr, node.http.addr, node.gossip.addr].map(|a| a.port()))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 9);
    assert!(nodes[0].gossip.join.is_empty(), "the first one founds the cluster");
    for node in &nodes[1..] {
        assert_eq!(node.gossip.join, [HostPort::from(nodes[0].gossip.addr)]);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let missing = std::path::Path::new("/nowhere/at/all.toml");
    let error = Sources::gather(Vec::new(), Some(missing)).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/at/all.toml: "), "{error}");
}

#[test]
fn changes_are_told_by_key() {
    let loaded = Sources::default().layer().unwrap();
    let mut newer = Settings::default();
    newer.logger.spec = "debug".parse().unwrap();
    newer.rpc.streams_max = 3;
    assert_eq!(loaded.changed_keys(&newer), ["rpc.streams_max", "logger.spec"]);
}

#[test]
fn every_field_has_its_own_key_and_variable_and_shows_what_it_reads() {
    let mut keys: Vec<_> = FIELDS.iter().map(|field| field.key).collect();
    let mut variables: Vec<_> = FIELDS.iter().map(|field| field.variable()).collect();
    keys.sort_unstable();
    keys.dedup();
    variables.sort_unstable();
    variables.dedup();
    assert_eq!((keys.len(), variables.len()), (FIELDS.len(), FIELDS.len()));
    for field in &FIELDS {
        let mut settings = Settings::default();
        let shown = (field.show)(&settings);
        assert!((field.set)(&mut settings, &shown), "{} does not read {shown}", field.key);
        assert_eq!((field.show)(&settings), shown, "{}", field.key);
        assert!((field.within_limits)(&settings), "{}", field.key);
        assert!(field.sentence.ends_with('.'), "{}", field.key);
    }
}

#[test]
fn the_sample_file_names_every_field_and_holds_the_defaults() {
    let stored = include_str!("../../../config/node.toml");
    assert_eq!(stored, sample_file(), "write it anew: duramen config sample > config/node.toml");
    let loaded = file(stored).layer().unwrap();
    assert_eq!(loaded.settings, Settings::default());
    for field in &FIELDS {
        assert_ne!(loaded.origin(field.key), Origin::Default, "{} is missing", field.key);
    }
}

#[test]
fn sizes_read_as_people_write_them() {
    for (text, bytes) in [
        ("512B", 512),
        ("64KiB", 65_536),
        ("16 MiB", 16 << 20),
        ("1.5GiB", 3 << 29),
        ("10MB", 10_000_000),
        ("1kb", 1_000),
        ("0B", 0),
    ] {
        assert_eq!(ByteSize::read(text), Some(ByteSize(bytes)), "{text}");
    }
    for text in ["", "16", "MiB", "-1MiB", "1.MiB", ".5MiB", "1.0001B", "99999999TiB", "1 potato"] {
        assert_eq!(ByteSize::read(text), None, "{text}");
    }
}

#[test]
fn durations_read_as_people_write_them() {
    let ms = Duration::from_millis;
    for (text, wanted) in
        [("500ms", ms(500)), ("1.5s", ms(1500)), ("1h30m", ms(5_400_000)), ("7d", ms(604_800_000))]
    {
        assert_eq!(parse_duration(text), Some(wanted), "{text}");
    }
    for text in ["", "10", "s", "-1s", "1y", "1M", "10 s", "99999999999d", "1..5s"] {
        assert_eq!(parse_duration(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn a_size_shown_reads_back_the_same(bytes in any::<u64>(), unit in 0_u32..40) {
        let size = ByteSize((bytes >> 24) << (unit % 25));
        prop_assert_eq!(ByteSize::read(&size.show()), Some(size));
    }

    #[test]
    fn a_duration_shown_reads_back_the_same(number in any::<u32>(), power in 0_u32..10) {
        let duration = Duration::from_nanos(u64::from(number) * 10_u64.pow(power));
        prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "[0-9.a-zA-Z: ]{0,24}") {
        let _ = (ByteSize::read(&text), parse_duration(&text));
        for field in &FIELDS {
            let _ = (field.set)(&mut Settings::default(), &text);
        }
    }
}
