//! What settings must fulfil beyond being readable: limits of single values, and values that must
//! fit together.

use super::fields::FIELDS;
use super::{ByteSize, Settings};
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
        if !address.ip().is_loopback() && !settings.insecure_listen {
            broken.push((key, reachable_from_outside(address)));
        }
    }
    if settings.rpc.addr == settings.http.addr && settings.rpc.addr.port() != 0 {
        broken.push(("http.addr", "rpc.addr is the same; each needs a port of its own".into()));
    }
    broken
}

fn sizes_fit(settings: &Settings, broken: &mut Vec<(&'static str, String)>) {
    let Settings { log, rpc, admission, .. } = settings;
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
}

fn reachable_from_outside(address: SocketAddr) -> String {
    format!(
        "other machines can reach {}, and nothing on it is encrypted or asks who is there; \
         use a loopback address such as 127.0.0.1:{}, or allow it with --insecure-listen",
        address.ip(),
        address.port()
    )
}
