//! The keys of the book's `proglog`, so that its configuration files start a node. Each stands for
//! one of ours.

use super::Origin;
use super::error::Fault;
use super::file::{Given, Said};
use std::path::Path;

/// Keys that stand for one of ours with the same value.
const SAME: [(&str, &str); 13] = [
    ("data-dir", "data_dir"),
    ("node-name", "node.name"),
    ("bind-addr", "gossip.addr"),
    ("start-join-addrs", "gossip.join"),
    ("server-tls-cert-file", "tls.cert_file"),
    ("server-tls-key-file", "tls.key_file"),
    ("server-tls-ca-file", "tls.ca_file"),
    ("peer-tls-cert-file", "tls.peer_cert_file"),
    ("peer-tls-key-file", "tls.peer_key_file"),
    ("peer-tls-ca-file", "tls.peer_ca_file"),
    ("acl-model-file", "access.model_file"),
    // The spelling that the book's program really reads.
    ("acl-mode-file", "access.model_file"),
    ("acl-policy-file", "access.policy_file"),
];

/// What a file says, with the book's keys replaced by ours.
pub fn translated(
    file: &Path,
    said: Vec<Said>,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<String>,
) -> Vec<Said> {
    let host = said.iter().find_map(|said| match &said.value {
        Given::Text(text) if said.key == "bind-addr" => Some(text.rsplit_once(':')?.0.to_owned()),
        _ => None,
    });
    let joins = said.iter().any(|said| {
        let is_list = matches!(&said.value, Given::List(list) if !list.is_empty());
        said.key == "start-join-addrs" && is_list
    });
    let mut ours = Vec::with_capacity(said.len());
    for mut said in said {
        let origin = || Origin::File { file: file.to_owned(), line: said.line };
        if let Some((_, key)) = SAME.iter().find(|(theirs, _)| *theirs == said.key) {
            // In the book's files an empty name is none.
            if key.ends_with("_file") && said.value == Given::Text(String::new()) {
                continue;
            }
            said.key = (*key).to_owned();
        } else if said.key == "rpc-port" {
            let host = host.as_deref().unwrap_or("127.0.0.1");
            said.key = "rpc.addr".into();
            if let Given::Integer(port) = &said.value {
                said.value = Given::Text(format!("{host}:{port}"));
            }
        } else if said.key == "bootstrap" {
            match said.value {
                Given::Boolean(true) if joins => warnings.push(format!(
                    "{}: bootstrap is true and there are addresses to join: the node joins them",
                    origin()
                )),
                // An empty directory without addresses to join founds a cluster in any case.
                Given::Boolean(_) => {}
                _ => faults.push(Fault::WrongKind {
                    origin: origin(),
                    key: "bootstrap",
                    found: "something else".into(),
                    expected: "true or false",
                }),
            }
            continue;
        }
        ours.push(said);
    }
    ours
}
