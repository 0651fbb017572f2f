//! What settings must fulfil beyond being readable: limits of single values, and values that must
//! fit together.

use super::fields::FIELDS;
use super::{ByteSize, Settings};
use crate::access::is_subject;
use std::net::SocketAddr;

/// What a batch carries besides one largest record.
const BATCH_OVERHEAD: ByteSize = ByteSize(4 << 10);
/// What a gRPC message carries besides one largest batch.
const MESSAGE_OVERHEAD: ByteSize = ByteSize(64 << 10);

/// Every rule that `settings` break: the key to change, and what would be allowed.
pub fn broken(settings: &Settings) -> Vec<(&'static str, String)> {
    let mut broken: Vec<(&'static str, String)> = FIELDS
        .iter()
        .filter(|field| !(field.within_limits)(settings))
        .map(|field| (field.key, format!("allowed is {}", (field.limits)().unwrap_or_default())))
        .collect();
    sizes_fit(settings, &mut broken);
    for (key, address) in [("rpc.addr", settings.rpc.addr), ("http.addr", settings.http.addr)] {
        if !address.ip().is_loopback() && !settings.insecure_listen && !settings.tls.is_on() {
            broken.push((key, reachable_from_outside(address)));
        }
    }
    if !settings.gossip.addr.ip().is_loopback()
        && settings.gossip.key.is_none()
        && !settings.insecure_listen
    {
        broken.push(("gossip.addr", gossip_from_outside(settings.gossip.addr)));
    }
    cluster_fits(settings, &mut broken);
    certificates_fit(settings, &mut broken);
    access_fits(settings, &mut broken);
    if settings.rpc.addr == settings.http.addr && settings.rpc.addr.port() != 0 {
        broken.push(("http.addr", "rpc.addr is the same; each needs a port of its own".into()));
    }
    broken
}

fn sizes_fit(settings: &Settings, broken: &mut Vec<(&'static str, String)>) {
    let Settings { log, rpc, http, admission, .. } = settings;
    let mut must_hold = |key, size: ByteSize, what: &str, held: ByteSize, overhead: ByteSize| {
        let needed = ByteSize(held.0.saturating_add(overhead.0));
        if size < needed {
            broken.push((key, format!("must be at least {needed} to hold {what} ({held})")));
        }
    };
    must_hold(
        "log.batch_bytes_max",
        log.batch_bytes_max,
        "log.record_bytes_max",
        log.record_bytes_max,
        BATCH_OVERHEAD,
    );
    let batch = ("log.batch_bytes_max", log.batch_bytes_max);
    must_hold("log.segment_bytes_max", log.segment_bytes_max, batch.0, batch.1, BATCH_OVERHEAD);
    must_hold("rpc.message_bytes_max", rpc.message_bytes_max, batch.0, batch.1, MESSAGE_OVERHEAD);
    must_hold("admission.bytes_max", admission.bytes_max, batch.0, batch.1, ByteSize(0));
    for (what, held) in [
        ("rpc.message_bytes_max", rpc.message_bytes_max),
        ("http.body_bytes_max", http.body_bytes_max),
    ] {
        let incoming = admission.incoming_bytes_max;
        must_hold("admission.incoming_bytes_max", incoming, what, held, MESSAGE_OVERHEAD);
    }
    let queue = settings.replicator.queue_bytes_max;
    must_hold("replicator.queue_bytes_max", queue, batch.0, batch.1, MESSAGE_OVERHEAD);
}

fn cluster_fits(settings: &Settings, broken: &mut Vec<(&'static str, String)>) {
    let Settings { gossip, cluster, rpc, http, .. } = settings;
    if cluster.election_ticks <= cluster.heartbeat_ticks {
        let needed =
            format!("must be more than cluster.heartbeat_ticks ({})", cluster.heartbeat_ticks);
        broken.push(("cluster.election_ticks", needed));
    }
    if gossip.multicast.is_some_and(|group| !group.ip().is_multicast() || group.port() == 0) {
        let group = "must be a multicast group with a port, such as 239.255.84.0:8402";
        broken.push(("gossip.multicast", group.into()));
    }
    if gossip.advertise.is_some_and(|told| told.ip().is_unspecified() || told.port() == 0) {
        broken.push(("gossip.advertise", "must be an address that other nodes can reach".into()));
    }
    let is_taken = |taken: SocketAddr| taken == gossip.addr && taken.port() != 0;
    for (key, taken) in [("rpc.addr", rpc.addr), ("http.addr", http.addr)] {
        if is_taken(taken) {
            broken
                .push(("gossip.addr", format!("{key} is the same; each needs a port of its own")));
        }
    }
}

fn certificates_fit(settings: &Settings, broken: &mut Vec<(&'static str, String)>) {
    let tls = &settings.tls;
    let own = [
        ("tls.ca_file", &tls.ca_file),
        ("tls.cert_file", &tls.cert_file),
        ("tls.key_file", &tls.key_file),
    ];
    if tls.is_on() && tls.dir.is_none() {
        for (key, _) in own.into_iter().filter(|(_, file)| file.is_none()) {
            let needed = "TLS needs tls.ca_file, tls.cert_file and tls.key_file, or tls.dir with \
                          all of them (duramen tls init)";
            broken.push((key, needed.into()));
        }
    }
    if tls.cert_file.is_some() != tls.key_file.is_some() && tls.dir.is_some() {
        broken.push(("tls.key_file", "a certificate goes with its key: give both".into()));
    }
    if tls.peer_cert_file.is_some() != tls.peer_key_file.is_some() {
        broken.push(("tls.peer_key_file", "a certificate goes with its key: give both".into()));
    }
    if !tls.is_on() {
        let other = [
            ("tls.crl_file", &tls.crl_file),
            ("tls.peer_ca_file", &tls.peer_ca_file),
            ("tls.peer_cert_file", &tls.peer_cert_file),
        ];
        for (key, _) in other.into_iter().filter(|(_, file)| file.is_some()) {
            broken.push((key, "it would protect nothing without tls.dir or tls.cert_file".into()));
        }
    }
}

fn access_fits(settings: &Settings, broken: &mut Vec<(&'static str, String)>) {
    let access = &settings.access;
    if access.model_file.is_some() != access.policy_file.is_some() {
        let (key, other) = match access.model_file {
            Some(_) => ("access.model_file", "access.policy_file"),
            None => ("access.policy_file", "access.model_file"),
        };
        broken.push((key, format!("goes together with {other}: set both, or neither")));
    }
    // Whoever wrote one believes that it lets somebody in.
    if let Some(nobody) = access.admins.iter().find(|subject| !is_subject(subject)) {
        let needed = format!(
            "{nobody:?} is no name that anybody proves: name each subject by itself, without * and \
             role:NAME"
        );
        broken.push(("access.admins", needed));
    }
}

fn gossip_from_outside(address: SocketAddr) -> String {
    format!(
        "other machines can reach {}, and without gossip.key anyone there can pose as a node; \
         set a key (openssl rand -base64 32), or allow it with --insecure-listen",
        address.ip()
    )
}

fn reachable_from_outside(address: SocketAddr) -> String {
    format!(
        "other machines can reach {}, and nothing on it is encrypted or asks who is there; \
         make certificates (duramen tls init, --tls-dir), use a loopback address such as \
         127.0.0.1:{}, or allow it with --insecure-listen",
        address.ip(),
        address.port()
    )
}
