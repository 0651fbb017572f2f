//! Values of settings that only a cluster needs: addresses by name, lists of them, labels, and the
//! key that keeps strangers out of gossip.

use super::value::{TomlKind, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

/// Addresses in one list.
const ADDRESSES_MAX: usize = 64;
/// Labels of one node: they travel with its gossip, which carries 512 bytes.
const LABELS_MAX: usize = 8;

/// A host, by address or by name, with a port; names are looked up when they are used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort(Box<str>);

impl HostPort {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether only this machine can be meant.
    pub fn is_loopback(&self) -> bool {
        let address = self.0.parse::<SocketAddr>();
        address.map_or(self.0.starts_with("localhost:"), |address| address.ip().is_loopback())
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string().into())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for HostPort {
    const EXPECTED: &'static str =
        "a host with a port, such as \"10.0.0.7:8401\" or \"node-2.example.net:8401\"";

    fn read(text: &str) -> Option<Self> {
        if text.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0) {
            return Some(Self(text.into()));
        }
        let (host, port) = text.rsplit_once(':')?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let is_name = (1..=253).contains(&host.len()) && host.bytes().all(allowed);
        // Digits and dots alone are an address that is none.
        let has_letter = host.bytes().any(|byte| byte.is_ascii_alphabetic());
        let has_port = port.parse::<u16>().is_ok_and(|port| port != 0);
        (is_name && has_letter && has_port).then(|| Self(text.into()))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl Value for Option<HostPort> {
    const EXPECTED: &'static str =
        "\"none\", or a host with a port, such as \"node-2.example.net:8400\"";

    fn read(text: &str) -> Option<Self> {
        if text == "none" { Some(None) } else { HostPort::read(text).map(Some) }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "none".into(), Value::show)
    }
}

impl Value for Option<SocketAddr> {
    const EXPECTED: &'static str = "\"none\", or an address with a port, such as \"10.0.0.7:8401\"";

    fn read(text: &str) -> Option<Self> {
        if text == "none" { Some(None) } else { SocketAddr::read(text).map(Some) }
    }

    fn show(&self) -> String {
        self.map_or_else(|| "none".into(), |address| address.to_string())
    }
}

impl Value for Vec<HostPort> {
    const TOML: TomlKind = TomlKind::List;
    const EXPECTED: &'static str = "a list of at most 64 hosts with ports, such as \
        [\"10.0.0.7:8401\", \"node-2.example.net:8401\"]";

    fn read(text: &str) -> Option<Self> {
        let hosts: Self = parts(text).map(HostPort::read).collect::<Option<_>>()?;
        (hosts.len() <= ADDRESSES_MAX).then_some(hosts)
    }

    fn show(&self) -> String {
        self.iter().map(HostPort::as_str).collect::<Vec<_>>().join(",")
    }
}

/// What is to be known of a node beside its name, as `rack=a`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels(pub BTreeMap<String, String>);

impl Value for Labels {
    const TOML: TomlKind = TomlKind::List;
    const EXPECTED: &'static str = "at most 8 labels, each of at most 32 letters, digits, '.', '_' \
        and '-' on both sides, such as [\"rack=a\", \"zone=eu-1\"]";

    fn read(text: &str) -> Option<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let is_sound = |part: &str| (1..=32).contains(&part.len()) && part.chars().all(allowed);
        let mut labels = BTreeMap::new();
        for part in parts(text) {
            let (name, value) = part.split_once('=')?;
            (is_sound(name) && is_sound(value)).then_some(())?;
            labels.insert(name.to_owned(), value.to_owned()).is_none().then_some(())?;
        }
        (labels.len() <= LABELS_MAX).then_some(Self(labels))
    }

    fn show(&self) -> String {
        let shown: Vec<String> = self.0.iter().map(|(k, v)| format!("{k}={v}")).collect();
        shown.join(",")
    }
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// The key that all nodes of a cluster share: gossip is encrypted with it, and what is not is
/// ignored.
#[derive(Clone, PartialEq, Eq)]
pub struct GossipKey([u8; 32]);

impl GossipKey {
    /// Its bytes.
    pub fn bytes(&self) -> [u8; 32] {
        self.0
    }
}

/// Never the key itself: settings get into lines and reports.
impl fmt::Debug for GossipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GossipKey(not shown)")
    }
}

impl Value for Option<GossipKey> {
    const EXPECTED: &'static str = "\"none\", or 32 bytes as 64 hexadecimal digits or as base64; \
        make one with: openssl rand -base64 32";

    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        if text == "none" {
            return Some(None);
        }
        let bytes = if text.len() == 64 { from_hex(text)? } else { BASE64.decode(text).ok()? };
        Some(Some(GossipKey(bytes.try_into().ok()?)))
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "none".into(), |key| BASE64.encode(key.0))
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
