// Gossip as others would make it: what memberlist's own encoder makes, of any content, encrypted or
// not, right or wrong.

#![allow(dead_code, reason = "each test takes what it needs")]

use bytes::Bytes;
use memberlist::proto::{
    Alive, ChecksumAlgorithm, Dead, EncryptionAlgorithm, IndirectPing, Label, Message, Meta, Node,
    NodeId, Ping, ProtoEncoder, PushNodeState, PushPull, SecretKey, State, Suspect,
};
use std::net::SocketAddr;

pub type Id = NodeId<255>;
pub type Said = Message<Id, SocketAddr>;

/// How something is made ready to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Forge {
    pub key: Option<[u8; 32]>,
    pub label: &'static str,
}

pub const OPEN: Forge = Forge { key: None, label: "duramen" };

impl Forge {
    /// For UDP.
    pub fn packet(&self, said: Vec<Said>) -> Bytes {
        self.encoded(said, true)
    }

    /// For TCP.
    pub fn message(&self, said: Said) -> Bytes {
        self.encoded(vec![said], false)
    }

    fn encoded(&self, said: Vec<Said>, has_checksum: bool) -> Bytes {
        let label = Label::try_from(self.label).expect("a short label");
        let mut encoder = ProtoEncoder::new(60_000).with_messages(said).with_label(label);
        if has_checksum {
            encoder.maybe_checksum(Some(ChecksumAlgorithm::default()));
        }
        if let Some(key) = self.key {
            encoder.set_encryption(EncryptionAlgorithm::default(), SecretKey::from(key));
        }
        let first = encoder.encode().next().expect("there is something to send");
        first.expect("it can be encoded").into_bytes()
    }

    /// Any bytes, as whoever has the key would send them: in the clear where there is none.
    pub fn sealed(&self, plain: &[u8]) -> Vec<u8> {
        let mut bytes = vec![12, self.label.len() as u8];
        bytes.extend_from_slice(self.label.as_bytes());
        let Some(key) = self.key else {
            bytes.extend_from_slice(plain);
            return bytes;
        };
        use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("32 bytes"));
        let nonce = [7; 12];
        let mut hidden = plain.to_vec();
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(self.label),
            &mut hidden,
        )
        .expect("it is short");
        bytes.extend_from_slice(&[15, 1]);
        bytes.extend_from_slice(&(plain.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&hidden);
        bytes
    }
}

pub fn id(name: &str) -> Id {
    Id::new(name).expect("a name")
}

pub fn node(name: &str, at: SocketAddr) -> Node<Id, SocketAddr> {
    Node::new(id(name), at)
}

pub fn ping(of: &str, by: SocketAddr, at: SocketAddr) -> Said {
    Ping::new(7, node("stranger", by), node(of, at)).into()
}

pub fn indirect_ping(of: &str, by: SocketAddr, at: SocketAddr) -> Said {
    IndirectPing::new(7, node("stranger", by), node(of, at)).into()
}

pub fn dead(name: &str, says: &str, incarnation: u32) -> Said {
    Dead::new(incarnation, id(name), id(says)).into()
}

pub fn suspect(name: &str, says: &str, incarnation: u32) -> Said {
    Suspect::new(incarnation, id(name), id(says)).into()
}

pub fn alive(name: &str, at: SocketAddr, incarnation: u32, meta: &[u8]) -> Said {
    let meta = Meta::try_from(meta.to_vec()).expect("it is short");
    Alive::new(incarnation, node(name, at)).with_meta(meta).into()
}

/// All that somebody claims to know, as it joins.
pub fn join(nodes: impl Iterator<Item = (String, SocketAddr)>, meta: &[u8]) -> Said {
    let meta = Meta::try_from(meta.to_vec()).expect("it is short");
    let states = nodes.map(|(name, at)| {
        PushNodeState::new(1, id(&name), at, State::Alive).with_meta(meta.clone())
    });
    PushPull::new(true, states.collect::<Vec<_>>().into_iter()).into()
}

/// What a node tells of itself, as protobuf: a name, an address, and a cluster where there is one.
pub fn meta(cluster_id: &str, name: &str) -> Vec<u8> {
    let mut bytes = vec![1];
    for (tag, text) in [(0x0a, cluster_id), (0x1a, name), (0x22, "127.0.0.1:1")] {
        if !text.is_empty() {
            bytes.extend_from_slice(&[tag, text.len() as u8]);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    // Its generation.
    bytes.extend_from_slice(&[0x30, 1]);
    bytes
}
