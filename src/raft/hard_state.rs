//! What a replica must never forget: its term, its vote, the members of its group. As bytes; the
//! file around them (magic, version, checksum, rename) is the caller's.

use super::bytes::{Reader, put_u32, put_u64};
use super::membership::{Membership, MembershipChange};
use crate::model::{Disposition, RaftIndex, ReplicaId, Term};
use bytes::Bytes;

/// The file that holds it, in the partition's directory.
pub const HARD_STATE_FILE: &str = "vote";
/// What that file begins with.
pub const HARD_STATE_MAGIC: [u8; 4] = *b"DVOT";
/// The version of the layout that [`HardState::encode`] writes.
pub const HARD_STATE_VERSION: u32 = 2;

/// Changes in a log above the one applied: one that is not known to be committed, and those that
/// are about to be applied.
const PENDING_MAX: usize = 1024;
const CHANGE_BYTES_MAX: usize = 1024;

/// The durable state of a replica besides its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HardState {
    /// The newest term seen.
    pub term: Term,
    /// Whom this replica gave its vote in that term.
    pub vote: Option<ReplicaId>,
    /// A lower bound of what is committed: written along with the rest, never for its own sake.
    pub commit: RaftIndex,
    /// The members of the group; none at a replica that waits for its first leader.
    pub membership: Membership,
    /// The change that led to them; later entries are not part of it.
    pub membership_index: RaftIndex,
    /// Changes in the log above that one, in order. All but the last are known to be committed: a
    /// leader proposes a change only when the one before is applied.
    pub pending: Vec<PendingChange>,
}

/// A change of the members that is in the log and not applied yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingChange {
    /// Its entry.
    pub index: RaftIndex,
    /// The entry's term: an entry of another term at this index is not this change.
    pub term: Term,
    /// The entry's bytes.
    pub change: Bytes,
}

/// Why stored bytes are not a hard state.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum HardStateError {
    /// The bytes end early, go on too long, or hold what was never written.
    #[error("a vote file of {len_bytes} bytes is not whole")]
    Torn {
        /// How long it is.
        len_bytes: usize,
    },
    /// A later program wrote it.
    #[error(
        "a vote file of layout {version}; this program knows 1 to {HARD_STATE_VERSION}: start the \
         newer program that wrote it"
    )]
    Version {
        /// Its layout.
        version: u32,
    },
}

impl HardStateError {
    /// A replica that cannot read its vote must not vote.
    pub fn disposition(&self) -> Disposition {
        Disposition::Quarantine
    }
}

impl HardState {
    /// The state of a replica that has seen nothing yet.
    pub fn bootstrap(membership: Membership) -> Self {
        Self {
            term: Term(0),
            vote: None,
            commit: RaftIndex(0),
            membership,
            membership_index: RaftIndex(0),
            pending: Vec::new(),
        }
    }

    /// Term, vote (0: nobody), commit, index of the membership, membership, pending changes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        let vote = self.vote.map_or(0, ReplicaId::raw);
        for value in [self.term.0, vote, self.commit.0, self.membership_index.0] {
            put_u64(&mut bytes, value);
        }
        self.membership.encode(&mut bytes);
        put_u32(&mut bytes, self.pending.len());
        for pending in &self.pending {
            put_u64(&mut bytes, pending.index.0);
            put_u64(&mut bytes, pending.term.0);
            put_u32(&mut bytes, pending.change.len());
            bytes.extend_from_slice(&pending.change);
        }
        bytes
    }

    /// Reads what [`HardState::encode`] wrote, or the program before it: layout 1 is of a lone voter
    /// that called itself 1, and becomes a group of `me`.
    ///
    /// # Errors
    /// [`HardStateError`] when the bytes are not exactly that.
    pub fn decode(version: u32, me: ReplicaId, bytes: &[u8]) -> Result<Self, HardStateError> {
        let mut reader = Reader(bytes);
        let read = match version {
            1 => Self::read_first_layout(&mut reader, me),
            HARD_STATE_VERSION => Self::read(&mut reader),
            _ => return Err(HardStateError::Version { version }),
        };
        let torn = HardStateError::Torn { len_bytes: bytes.len() };
        read.filter(|_| reader.0.is_empty()).ok_or(torn)
    }

    fn read_first_layout(reader: &mut Reader<'_>, me: ReplicaId) -> Option<Self> {
        let (term, vote, commit) = (Term(reader.u64()?), reader.u64()?, RaftIndex(reader.u64()?));
        let voters = reader.count(1)?;
        if voters != 1 || reader.u64()? != 1 || vote > 1 {
            return None;
        }
        let vote = (vote == 1).then_some(me);
        Some(Self { term, vote, commit, ..Self::bootstrap(Membership::lone(me)) })
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let term = Term(reader.u64()?);
        let vote = match reader.u64()? {
            0 => None,
            raw => Some(ReplicaId::from_raw(raw)?),
        };
        let commit = RaftIndex(reader.u64()?);
        let membership_index = RaftIndex(reader.u64()?);
        let membership = Membership::decode(reader)?;
        let mut pending: Vec<PendingChange> = Vec::new();
        for _ in 0..reader.count(PENDING_MAX)? {
            let (index, term) = (RaftIndex(reader.u64()?), Term(reader.u64()?));
            let len = reader.count(CHANGE_BYTES_MAX)?;
            let change = Bytes::copy_from_slice(reader.take(len)?);
            let before = pending.last().map_or(membership_index, |last| last.index);
            if index <= before || MembershipChange::decode(&change).is_none() {
                return None;
            }
            pending.push(PendingChange { index, term, change });
        }
        Some(Self { term, vote, commit, membership, membership_index, pending })
    }
}

#[cfg(test)]
mod tests {
    use super::super::membership::MemberStep;
    use super::*;
    use crate::model::NodeId;
    use proptest::prelude::*;

    fn replica(node: u32) -> ReplicaId {
        ReplicaId::new(NodeId(node), node + 10)
    }

    fn state() -> HardState {
        let change = MembershipChange::one(MemberStep::AddLearner(replica(4)));
        let pending = |index| PendingChange {
            index: RaftIndex(index),
            term: Term(5),
            change: change.encode(),
        };
        HardState {
            term: Term(6),
            vote: Some(replica(2)),
            commit: RaftIndex(9),
            membership: Membership {
                voters: (1..4).map(replica).collect(),
                ..Membership::default()
            },
            membership_index: RaftIndex(7),
            pending: vec![pending(8), pending(12)],
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(term: u64, node in 0..5u32, commit: u64, index in 0..8u64) {
            let vote = (node > 0).then(|| replica(node));
            let (term, commit) = (Term(term), RaftIndex(commit));
            let state = HardState { term, vote, commit, membership_index: RaftIndex(index), ..state() };
            let read = HardState::decode(HARD_STATE_VERSION, replica(1), &state.encode());
            prop_assert_eq!(read, Ok(state));
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..160), small: bool) {
            if small {
                bytes.iter_mut().for_each(|byte| *byte &= 3);
            }
            if let Ok(state) = HardState::decode(HARD_STATE_VERSION, replica(1), &bytes) {
                prop_assert_eq!(state.encode(), bytes.clone());
            }
            let _ = HardState::decode(1, replica(1), &bytes);
        }
    }

    #[test]
    fn every_cut_and_every_byte_more_is_an_error() {
        let mut bytes = state().encode();
        for cut in 0..bytes.len() {
            let read = HardState::decode(HARD_STATE_VERSION, replica(1), &bytes[..cut]);
            assert_eq!(read, Err(HardStateError::Torn { len_bytes: cut }), "cut at {cut}");
        }
        bytes.push(0);
        assert!(HardState::decode(HARD_STATE_VERSION, replica(1), &bytes).is_err());
    }

    #[test]
    fn the_file_of_a_lone_voter_of_the_first_layout_is_of_a_group_of_one() {
        let mut bytes = Vec::new();
        for value in [4u64, 1, 77] {
            put_u64(&mut bytes, value);
        }
        put_u32(&mut bytes, 1);
        put_u64(&mut bytes, 1);
        let me = replica(3);
        let read = HardState::decode(1, me, &bytes).expect("a file of layout 1");
        let lone = HardState::bootstrap(Membership::lone(me));
        let (term, vote, commit) = (Term(4), Some(me), RaftIndex(77));
        assert_eq!(read, HardState { term, vote, commit, ..lone });
        assert!(HardState::decode(1, me, &bytes[1..]).is_err());
        let later = HardState::decode(3, me, &bytes);
        assert_eq!(later, Err(HardStateError::Version { version: 3 }));
    }
}
