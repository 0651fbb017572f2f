//! What a node tells of itself in gossip: at most 512 bytes, with a version in front, and checked
//! when it comes in, as anybody can gossip where no key is set.

use crate::actors::presence::Told;
use std::collections::BTreeMap;

/// What memberlist carries.
pub const META_BYTES_MAX: usize = 512;
const FORMAT: u8 = 1;
const TEXT_BYTES_MAX: usize = 255;

/// What a node tells of itself. Unknown fields are skipped: a newer node may tell more.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Meta {
    /// Its cluster; empty where it is a member of none.
    #[prost(string, tag = "1")]
    pub cluster_id: String,
    /// Its number; 0 where it is a member of none.
    #[prost(uint32, tag = "2")]
    pub node: u32,
    /// What people call it.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Where clients and nodes reach it.
    #[prost(string, tag = "4")]
    pub rpc_addr: String,
    /// The newest protocol that it speaks.
    #[prost(uint32, tag = "5")]
    pub protocol_max: u32,
    /// Grows at each start.
    #[prost(uint64, tag = "6")]
    pub generation: u64,
    /// Grows at each change within it.
    #[prost(uint64, tag = "7")]
    pub version: u64,
    /// It is about to leave: when it is gone then, it was not lost.
    #[prost(bool, tag = "8")]
    pub leaves: bool,
    /// As `rack`.
    #[prost(btree_map = "string, string", tag = "9")]
    pub labels: BTreeMap<String, String>,
}

/// Why what a node tells of itself is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// It is no meta data of ours, or of a later format.
    #[error("it is in no format that this program knows")]
    Format,
    /// It cannot be read.
    #[error("it cannot be read")]
    Unreadable,
    /// A text is empty, too long, or holds what a name or an address cannot.
    #[error("its {0} is not one")]
    Text(&'static str),
}

impl Meta {
    /// Whether it is of another cluster; who is of none yet is no stranger.
    pub fn is_foreign_to(&self, own: &str) -> bool {
        !own.is_empty() && !self.cluster_id.is_empty() && self.cluster_id != own
    }

    /// What is said of such a node.
    pub fn foreign(&self, own: &str) -> String {
        let Self { name, cluster_id, .. } = self;
        format!(
            "{name} is a node of another cluster ({cluster_id}), this one is of {own}: start it \
             with the --join addresses of its own cluster, or with an empty --data-dir to join \
             this one"
        )
    }

    /// As it travels. Labels are left out where there is no room for them.
    pub fn encode_bounded(&self) -> Vec<u8> {
        let encode = |meta: &Self| {
            let mut bytes = vec![FORMAT];
            bytes.extend(prost::Message::encode_to_vec(meta));
            bytes
        };
        let whole = encode(self);
        if whole.len() <= META_BYTES_MAX {
            return whole;
        }
        let cut = |text: &str| text.chars().take(63).collect();
        let bare = encode(&Self { labels: BTreeMap::new(), name: cut(&self.name), ..self.clone() });
        assert!(bare.len() <= META_BYTES_MAX, "identity, name and address are bounded by settings");
        bare
    }

    /// Reads what came in.
    ///
    /// # Errors
    /// Why it is ignored.
    pub fn decode_checked(bytes: &[u8]) -> Result<Self, MetaError> {
        let Some((&FORMAT, rest)) = bytes.split_first() else { return Err(MetaError::Format) };
        let meta: Self = prost::Message::decode(rest).map_err(|_| MetaError::Unreadable)?;
        // These texts reach terminals, lines and directories of other nodes.
        let is_sound =
            |text: &str| text.len() <= TEXT_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic());
        let texts = [
            ("cluster", meta.cluster_id.as_str(), true),
            ("name", &meta.name, false),
            ("address", &meta.rpc_addr, false),
        ];
        for (what, text, may_be_empty) in texts {
            if !is_sound(text) || text.is_empty() && !may_be_empty {
                return Err(MetaError::Text(what));
            }
        }
        if !meta.labels.iter().all(|(name, value)| is_sound(name) && is_sound(value)) {
            return Err(MetaError::Text("labels"));
        }
        let port = meta.rpc_addr.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(_))) {
            return Err(MetaError::Text("address"));
        }
        Ok(meta)
    }

    /// How new it is.
    pub fn told(&self) -> Told {
        Told { generation: self.generation, version: self.version }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meta() -> Meta {
        Meta {
            cluster_id: "c0ffee".into(),
            node: 3,
            name: "n3".into(),
            rpc_addr: "127.0.0.1:8400".into(),
            protocol_max: 1,
            generation: 1_770_000_000_000,
            version: 2,
            leaves: false,
            labels: BTreeMap::from([("rack".into(), "a".into())]),
        }
    }

    #[test]
    fn what_a_node_tells_is_read_back_and_labels_give_way_where_there_is_no_room() {
        assert_eq!(Meta::decode_checked(&meta().encode_bounded()), Ok(meta()));
        let labels = (0..8).map(|i| (format!("{i:032}"), "v".repeat(32))).collect();
        let crowded = Meta { labels, ..meta() };
        let bytes = crowded.encode_bounded();
        assert!(bytes.len() <= META_BYTES_MAX);
        let bare = Meta { labels: BTreeMap::new(), ..meta() };
        assert_eq!(Meta::decode_checked(&bytes), Ok(bare));
    }

    #[test]
    fn what_nobody_of_ours_would_tell_is_refused() {
        let of = |meta: Meta| Meta::decode_checked(&meta.encode_bounded());
        assert_eq!(Meta::decode_checked(&[]), Err(MetaError::Format));
        assert_eq!(Meta::decode_checked(b"\x02abc"), Err(MetaError::Format));
        assert_eq!(Meta::decode_checked(b"\x01\xff\xff"), Err(MetaError::Unreadable));
        let name = |name: &str| of(Meta { name: name.into(), ..meta() });
        assert_eq!(name("\u{1b}[2J"), Err(MetaError::Text("name")));
        assert_eq!(name(""), Err(MetaError::Text("name")));
        let rpc_addr = |text: &str| of(Meta { rpc_addr: text.into(), ..meta() });
        assert_eq!(rpc_addr("nowhere"), Err(MetaError::Text("address")));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Meta::decode_checked(&bytes);
        }
    }
}
