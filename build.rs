//! Compiles the protobuf files with `protox`, so that a build needs no `protoc`.

use std::error::Error;
use std::path::{Path, PathBuf};

const FILES: [&str; 5] = [
    "proto/log/v1/log.proto",
    "proto/duramen/v1/log.proto",
    "proto/duramen/v1/observe.proto",
    "proto/duramen/v1/admin.proto",
    "proto/duramen/v1/peer.proto",
];

/// Messages that are also shown as JSON, by their field names.
const SHOWN_AS_JSON: [&str; 19] = [
    "TreeResponse",
    "Place",
    "SlowestMessage",
    "MessageInHand",
    "Envelope",
    "Explanation",
    "CommandResponse",
    "AffectedPlace",
    "LogLevels",
    "ClusterStatus",
    "NodeStatus",
    "TopicDescription",
    "TopicSettings",
    "PartitionPlacement",
    "ReplicaPlacement",
    "ListTopicsResponse",
    "NodeActionResponse",
    "AccessState",
    "TestAccessResponse",
];

#[allow(clippy::disallowed_methods, reason = "a build script writes where Cargo tells it")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-env-changed=DURAMEN_COMMIT");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors = protox::compile(FILES, ["proto"])?;
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    // Nodes look through what they are sent by others before they decode it.
    let is_peer = |name: &str| name.ends_with("/peer.proto");
    let mut rest = descriptors;
    let mut peer = rest.clone();
    peer.file.retain(|file| is_peer(file.name()));
    rest.file.retain(|file| !is_peer(file.name()));
    let apart = out.join("peer");
    std::fs::create_dir_all(&apart)?;
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::wire::peer::PeerCodec")
        .out_dir(apart)
        .compile_fds(peer)?;
    let mut builder =
        tonic_prost_build::configure().bytes(".").codec_path("crate::wire::codec::LeanCodec");
    for message in SHOWN_AS_JSON {
        let path = format!(".duramen.v1.{message}");
        builder = builder.message_attribute(path, "#[derive(serde::Serialize)]");
    }
    builder.compile_fds(rest)?;
    // cargo sets them for what it runs, too: as DURAMEN_… the node would take them for settings.
    println!("cargo:rustc-env=BUILT_FROM_COMMIT={}", commit());
    println!("cargo:rustc-env=BUILT_FOR_TARGET={}", std::env::var("TARGET")?);
    println!("cargo:rustc-env=BUILT_BY_RUSTC={}", rustc_version());
    Ok(())
}

/// The commit being built: from the environment, else from git, else `unknown` (a source archive).
fn commit() -> String {
    // Written to with each commit; `.git/HEAD` only where another branch is taken.
    let moves = output("git", &["rev-parse", "--git-path", "logs/HEAD"]);
    for path in
        moves.into_iter().chain([".git/HEAD".into()]).filter(|path| Path::new(path).exists())
    {
        println!("cargo:rerun-if-changed={path}");
    }
    std::env::var("DURAMEN_COMMIT")
        .ok()
        .or_else(|| output("git", &["rev-parse", "--short=12", "HEAD"]))
        .unwrap_or_else(|| "unknown".into())
}

fn rustc_version() -> String {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    output(&rustc, &["--version"]).unwrap_or_else(|| "unknown".into())
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = std::process::Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
