// `duramen tls` and a node from the command line: nothing is written over, keys are their owner's, and
// certificates made by others work.

use crate::harness::binary::{Binary, EXE, run, signal_to};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn duramen(arguments: &[&str], input: &[u8]) -> String {
    let output = run(arguments, input);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    text(&output)
}

fn refused(arguments: &[&str], code: i32) -> String {
    let output = run(arguments, b"");
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output));
    text(&output)
}

#[test]
fn from_nothing_to_a_node_that_asks_everybody_who_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("tls");
    let at = dir.to_str().unwrap();
    duramen(&["tls", "init", "--dir", at, "--node-name", "n1"], b"");
    for (file, mode) in [("ca-key.pem", 0o600), ("node-key.pem", 0o600), ("client-key.pem", 0o600)]
    {
        let found = std::fs::metadata(dir.join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{file}");
    }
    let before = std::fs::read(dir.join("ca.pem")).unwrap();
    let again = refused(&["tls", "init", "--dir", at], 73);
    assert!(again.contains("never written over"), "{again}");
    assert_eq!(std::fs::read(dir.join("ca.pem")).unwrap(), before);
    assert!(duramen(&["tls", "verify", at], b"").contains("node n1"));
    let shown = duramen(&["tls", "show", at, "--json"], b"");
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let roles: Vec<&str> =
        shown.as_array().unwrap().iter().map(|one| one["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["CA", "client root", "node n1"]);

    let log = directory.path().join("log");
    let node = Binary::start_logging_to(
        &directory.path().join("data"),
        &["--tls-dir", at, "--node-name", "n1", "--log", "trace"],
        std::fs::File::create(&log).unwrap(),
    );
    let to = ["--rpc-addr", node.rpc.as_str()];
    duramen(&["produce", "log", to[0], to[1], "--tls-dir", at], b"hello\n");
    let read = duramen(&["consume", "log", to[0], to[1], "--tls-dir", at], b"");
    assert!(read.contains("hello"), "{read}");
    let without = refused(&["consume", "log", to[0], to[1]], 69);
    assert!(without.contains("security") || without.contains("TLS"), "{without}");
    duramen(&["ps", to[0], to[1], "--tls-dir", at], b"");
    duramen(&["cluster", "status", "--addr", &node.rpc, "--tls-dir", at], b"");

    duramen(&["tls", "client", "ada", "--dir", at], b"");
    let ada = dir.join("clients/ada");
    duramen(&["consume", "log", to[0], to[1], "--tls-dir", ada.to_str().unwrap()], b"");
    let certificate = ada.join("client.pem");
    duramen(&["tls", "revoke", certificate.to_str().unwrap(), "--dir", at], b"");
    let list = dir.join("crl.pem");
    let shown = duramen(&["tls", "show", list.to_str().unwrap(), "--json"], b"");
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let list = &shown[0];
    assert_eq!(
        (&list["role"], &list["revoked"]),
        (&"list of revoked certificates".into(), &1.into())
    );
    assert!(list["issuer"].as_str().unwrap().contains("CN="), "{list}");
    assert!(list["next_update"].is_string(), "{list}");
    let deadline = std::time::Instant::now() + super::PATIENCE;
    let consume = ["consume", "log", to[0], to[1], "--tls-dir", ada.to_str().unwrap()];
    while run(&consume, b"").status.success() {
        assert!(std::time::Instant::now() < deadline, "the list is not honoured");
    }
    duramen(&["consume", "log", to[0], to[1], "--tls-dir", at], b"");
    drop(node);
    let logged = std::fs::read_to_string(&log).unwrap();
    assert!(logged.contains("a client was not let in") && logged.contains("is revoked"));
    for key in ["ca-key.pem", "node-key.pem", "client-key.pem", "clients/ada/client-key.pem"] {
        let key = std::fs::read_to_string(dir.join(key)).unwrap();
        // The first line of base64 is the same for all keys of a kind.
        let secret = key.lines().nth(2).unwrap();
        assert!(!logged.contains(secret), "a key is in the log");
    }
}

#[test]
fn a_hangup_reads_the_files_again_also_where_none_has_changed() {
    let directory = tempfile::tempdir().unwrap();
    let (dir, log) = (directory.path().join("tls"), directory.path().join("log"));
    let at = dir.to_str().unwrap();
    duramen(&["tls", "init", "--dir", at, "--node-name", "n1"], b"");
    let node = Binary::start_logging_to(
        &directory.path().join("data"),
        &["--tls-dir", at, "--node-name", "n1"],
        std::fs::File::create(&log).unwrap(),
    );
    let told = |text: &str, times: usize| {
        let deadline = std::time::Instant::now() + super::PATIENCE;
        loop {
            let log = std::fs::read_to_string(&log).unwrap();
            match log.matches(text).count() {
                found if found == times => break,
                found => assert!(found < times, "told {found} times: {text}"),
            }
            assert!(std::time::Instant::now() < deadline, "not told {times} times: {text}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    told("certificates are in force", 1);
    signal_to(node.pid(), "HUP");
    told("certificates are in force", 2);

    // What cannot be read is told by each that asks for it, and changes nothing.
    super::replace(&dir.join("node.pem"), "half a fi");
    told("those before stay in force", 1);
    signal_to(node.pid(), "HUP");
    told("those before stay in force", 2);
    duramen(&["produce", "log", "--rpc-addr", &node.rpc, "--tls-dir", at], b"hello\n");
    told("certificates are in force", 2);
}

#[test]
fn a_name_that_could_be_a_path_makes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().to_str().unwrap();
    duramen(&["tls", "init", "--dir", at, "--node-name", "n1"], b"");
    for name in ["../x", "a/b", "", ".."] {
        refused(&["tls", "client", name, "--dir", at], 64);
    }
    assert!(!directory.path().join("clients").exists());
}

#[test]
fn files_that_do_not_fit_are_named_before_a_port_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("tls");
    let at = dir.to_str().unwrap();
    duramen(&["tls", "init", "--dir", at, "--node-name", "n1"], b"");
    std::fs::copy(dir.join("client-key.pem"), dir.join("node-key.pem")).unwrap();
    let verified = refused(&["tls", "verify", at], 78);
    assert!(verified.contains("node-key.pem") && verified.contains("not the key of"), "{verified}");
    let data = directory.path().join("data");
    let started = refused(
        &[
            "serve",
            "--data-dir",
            data.to_str().unwrap(),
            "--tls-dir",
            at,
            "--rpc-addr",
            "127.0.0.1:0",
            "--http-addr",
            "127.0.0.1:0",
            "--gossip-addr",
            "127.0.0.1:0",
        ],
        78,
    );
    assert!(started.contains("not the key of"), "{started}");
}

#[test]
fn certificates_that_nobody_would_take_are_told_of_by_a_check_and_by_a_start() {
    let directory = tempfile::tempdir().unwrap();
    let (dir, data) = (directory.path().join("tls"), directory.path().join("data"));
    let at = dir.to_str().unwrap();
    duramen(&["tls", "init", "--dir", at, "--node-name", "n1"], b"");
    let other = directory.path().join("other");
    duramen(&["tls", "init", "--dir", other.to_str().unwrap(), "--node-name", "n1"], b"");
    let check = [
        &["serve", "--dry-run", "--data-dir", data.to_str().unwrap(), "--node-name", "n1"][..],
        &["--tls-dir", at],
    ];
    let check = check.concat();
    duramen(&check, b"");
    let (peer, its_key) = (other.join("node.pem"), other.join("node-key.pem"));
    let [peer, its_key] = [&peer, &its_key].map(|file| file.to_str().unwrap());
    let of_a_peer = [&check[..], &["--peer-tls-cert-file", peer, "--peer-tls-key-file", its_key]];
    let told = refused(&of_a_peer.concat(), 78);
    assert!(told.contains("no other node would let it in") && told.contains(peer), "{told}");
    // The certificate of a client, one of another CA: both can be read, and are what nobody takes.
    for (from, who, expected) in
        [(&dir, "client", "names no host"), (&other, "node", "a CA that is not in the CA's file")]
    {
        for (file, of) in [("node.pem", ".pem"), ("node-key.pem", "-key.pem")] {
            std::fs::copy(from.join(format!("{who}{of}")), dir.join(file)).unwrap();
        }
        for told in [refused(&["tls", "verify", at], 78), refused(&check, 78)] {
            assert!(told.contains("node.pem") && told.contains(expected), "{told}");
        }
    }
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(dir.join("node-key.pem"), open).unwrap();
    let log = directory.path().join("log");
    let flags = ["--tls-dir", at, "--node-name", "n1"];
    drop(Binary::start_logging_to(&data, &flags, std::fs::File::create(&log).unwrap()));
    let logged = std::fs::read_to_string(&log).unwrap();
    assert!(
        logged.contains("nobody who believes in the same CAs will connect to this node"),
        "{logged}"
    );
    assert!(logged.contains("mode 644"), "{logged}");
    assert!(!logged.contains("other nodes will not let this one in"), "told once: {logged}");
}

#[test]
fn a_ca_takes_back_its_own_certificates_and_leaves_lists_of_others_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (one, other) = (path("one"), path("other"));
    let at = |dir: &Path| dir.to_str().unwrap().to_owned();
    for dir in [&one, &other] {
        duramen(&["tls", "init", "--dir", &at(dir), "--node-name", "n1"], b"");
    }
    duramen(&["tls", "node", "n2", "--dir", &at(&one)], b"");
    let foreign = at(&other.join("client.pem"));
    for given in [&foreign, &at(&one.join("ca.pem"))] {
        let told = refused(&["tls", "revoke", given, "--dir", &at(&one)], 64);
        assert!(told.contains("nothing was changed") && told.contains("try:"), "{told}");
    }
    assert!(!one.join("crl.pem").exists());
    duramen(&["tls", "revoke", &foreign, "--dir", &at(&other)], b"");
    let list = std::fs::read_to_string(other.join("crl.pem")).unwrap();
    // As an owner of two CAs puts them together.
    std::fs::write(one.join("nodes/n2/crl.pem"), &list).unwrap();
    // As it is brought to where the node runs.
    std::fs::write(one.join("nodes/n2.tar.gz"), "").unwrap();
    duramen(&["tls", "revoke", &at(&one.join("client.pem")), "--dir", &at(&one)], b"");
    for written in [one.join("crl.pem"), one.join("nodes/n2/crl.pem")] {
        let both = std::fs::read_to_string(&written).unwrap();
        assert!(both.ends_with(&list) && both.len() > list.len(), "{both}");
        let shown = duramen(&["tls", "show", &at(&written), "--json"], b"");
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown.as_array().unwrap().len(), 2);
        assert_ne!(shown[0]["issuer"], shown[1]["issuer"]);
    }
}

#[test]
fn flags_go_before_a_directory_of_the_environment_whose_list_is_of_its_own_ca() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let [one, other] = ["one", "other"].map(path);
    for dir in [&one, &other] {
        duramen(&["tls", "init", "--dir", dir, "--node-name", "n1"], b"");
    }
    duramen(&["tls", "revoke", &format!("{other}/client.pem"), "--dir", &other], b"");
    let flags = ["--tls-dir", &one, "--node-name", "n1"];
    let node = Binary::start_with(&directory.path().join("data"), &flags);
    let with = |named: &str, line: &str| {
        let mut command = Command::new(EXE);
        command.args(line.split_whitespace()).env("DURAMEN_TLS_DIR", named);
        command.current_dir(directory.path()).output().unwrap()
    };
    let line =
        format!("topic list --rpc-addr {} --ca {one}/ca.pem --cert {one}/client.pem", node.rpc);
    let listed = with(&other, &format!("{line} --key {one}/client-key.pem"));
    assert!(listed.status.success(), "{}", text(&listed));
    // A variable that says nothing is none.
    std::fs::rename(&one, path("duramen-tls")).unwrap();
    let shown = with("", "tls show");
    assert!(shown.status.success() && text(&shown).contains("client root"), "{}", text(&shown));
}

fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output();
    let output = output.expect("openssl is on this machine");
    assert!(output.status.success(), "openssl {arguments}: {}", text(&output));
}

/// RSA 2048, server auth or client auth only, names in the common name: as the book has them made.
fn as_the_book_does(dir: &Path) {
    let write = |file: &str, text: &str| std::fs::write(dir.join(file), text).unwrap();
    write("ca.ext", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n");
    write(
        "server.ext",
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\n\
         extendedKeyUsage=serverAuth\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n",
    );
    write(
        "client.ext",
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\n\
         extendedKeyUsage=clientAuth\n",
    );
    openssl(
        dir,
        "req -new -newkey rsa:2048 -nodes -keyout ca-key.pem -out ca.csr -subj /CN=My\u{a0}CA",
    );
    openssl(dir, "x509 -req -in ca.csr -signkey ca-key.pem -days 9 -extfile ca.ext -out ca.pem");
    for (name, common, extensions) in [
        ("server", "127.0.0.1", "server.ext"),
        ("root-client", "root", "client.ext"),
        ("nobody-client", "nobody", "client.ext"),
    ] {
        openssl(
            dir,
            &format!(
                "req -new -newkey rsa:2048 -nodes -keyout {name}-key.pem -out {name}.csr -subj /CN={common}"
            ),
        );
        openssl(
            dir,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 9 \
                 -extfile {extensions} -out {name}.pem"
            ),
        );
    }
}

#[test]
fn the_books_certificates_work_and_its_file_and_its_flags_name_them() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    as_the_book_does(dir);
    let file = |name: &str| dir.join(name).display().to_string();
    let config = dir.join("config.yaml");
    let named = [
        ("server-tls-cert-file", "server.pem"),
        ("server-tls-key-file", "server-key.pem"),
        ("server-tls-ca-file", "ca.pem"),
        ("peer-tls-cert-file", "root-client.pem"),
        ("peer-tls-key-file", "root-client-key.pem"),
        ("peer-tls-ca-file", "ca.pem"),
    ];
    let lines = named.map(|(name, of)| format!("{name}: {}\n", file(of)));
    std::fs::write(&config, lines.concat()).unwrap();
    let flags = named.map(|(name, of)| format!("--{name}={}", file(of)));
    let node = Binary::start_with(&dir.join("other"), &flags.each_ref().map(String::as_str));
    let (ca, cert, key) = (file("ca.pem"), file("root-client.pem"), file("root-client-key.pem"));
    let tls = ["--ca", &ca, "--cert", &cert, "--key", &key];
    let produce = [&["produce", "log", "--addr", &node.rpc][..], &tls].concat();
    duramen(&produce, b"hello\n");
    drop(node);
    let node = Binary::start_with(&dir.join("data"), &["--config", config.to_str().unwrap()]);
    let produce = [&["produce", "log", "--addr", &node.rpc][..], &tls].concat();
    duramen(&produce, b"hello\n");
    let servers = duramen(&[&["getservers", "--addr", &node.rpc][..], &tls].concat(), b"");
    assert!(servers.contains("servers:"), "{servers}");
    let shown = duramen(&["tls", "show", &cert, "--json"], b"");
    assert!(shown.contains("\"client root\"") && shown.contains("RSA 2048"), "{shown}");
    duramen(&["tls", "revoke", &file("nobody-client.pem"), "--dir", dir.to_str().unwrap()], b"");
    // A server's certificate is no client's.
    let (cert, key) = (file("server.pem"), file("server-key.pem"));
    let tls = ["--ca", &ca, "--cert", &cert, "--key", &key];
    refused(&[&["consume", "log", "--addr", &node.rpc][..], &tls].concat(), 69);
}

#[test]
fn openssl_finds_no_renegotiation_no_resumption_and_no_old_version() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("tls");
    let at = dir.to_str().unwrap();
    duramen(&["tls", "init", "--dir", at, "--node-name", "n1"], b"");
    let node =
        Binary::start_with(&directory.path().join("data"), &["--tls-dir", at, "--node-name", "n1"]);
    let client = |flags: &str, input: &[u8]| {
        use std::io::Write;
        use std::process::Stdio;
        let mut child = Command::new("openssl")
            .args(["s_client", "-connect", &node.http, "-CAfile", "ca.pem", "-cert", "client.pem"])
            .args(["-key", "client-key.pem"])
            .args(flags.split_whitespace())
            .current_dir(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input).unwrap();
        // With something to say it stays until the node ends the connection.
        let _held = (!input.is_empty()).then_some(stdin);
        text(&child.wait_with_output().unwrap())
    };
    let good = client("-quiet", b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(good.contains("HTTP/1.1 200") && good.contains("verify return:1"), "{good}");
    for flags in ["-tls1 -cipher DEFAULT@SECLEVEL=0", "-tls1_1 -cipher DEFAULT@SECLEVEL=0"] {
        let old = client(flags, b"");
        assert!(old.contains("alert handshake failure") && !old.contains("New, TLS"), "{old}");
    }
    let again = client("-tls1_2 -reconnect", b"");
    assert!(again.contains("New, TLSv1.2") && !again.contains("Reused, "), "{again}");
    let renegotiated = client("-tls1_2", b"R\n");
    assert!(renegotiated.contains("no renegotiation"), "{renegotiated}");
}

#[test]
fn a_node_within_tls_is_measured_by_who_shows_a_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("tls");
    let at = dir.to_str().unwrap();
    duramen(&["tls", "init", "--dir", at, "--node-name", "n1"], b"");
    let node =
        Binary::start_with(&directory.path().join("data"), &["--tls-dir", at, "--node-name", "n1"]);
    let bench = ["bench", "p1-sync", "--size", "100", "--seconds", "0.2", "--warmup", "0.05"];
    let bench = [&bench[..], &["--json", "--rpc-addr", &node.rpc]].concat();
    let told = duramen(&[&bench[..], &["--tls-dir", at]].concat(), b"");
    assert!(told.contains("\"records_per_second\""), "{told}");
    // What shows that it was the certificate.
    assert!(!run(&bench, b"").status.success());
}
