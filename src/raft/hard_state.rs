//! What a voter must never forget: its term, its vote, the members of its group. As bytes; the
//! file around them (magic, checksum, rename) is the caller's.

use crate::model::{Disposition, Term};

/// The file that holds it, in the partition's directory.
pub const HARD_STATE_FILE: &str = "vote";
/// What that file begins with.
pub const HARD_STATE_MAGIC: [u8; 4] = *b"DVOT";
/// The version of the layout that [`HardState::encode`] writes.
pub const HARD_STATE_VERSION: u32 = 1;

/// The durable state of a voter besides its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HardState {
    /// The newest term seen.
    pub term: Term,
    /// Whom this voter gave its vote in that term; 0 for nobody.
    pub vote: u64,
    /// A lower bound of what is committed: written along with a vote, never for its own sake.
    pub commit: u64,
    /// The raft ids of the group's voters.
    pub voters: Vec<u64>,
}

/// Why stored bytes are not a hard state.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HardStateError {
    /// The bytes end early or go on too long.
    #[error("a vote file of {len_bytes} bytes is not whole")]
    Torn {
        /// How long it is.
        len_bytes: usize,
    },
}

impl HardStateError {
    /// A voter that cannot read its vote must not vote.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Torn { .. } => Disposition::Quarantine,
        }
    }
}

impl HardState {
    /// The state of a voter that has seen nothing yet.
    pub fn bootstrap(voters: Vec<u64>) -> Self {
        Self { term: Term(0), vote: 0, commit: 0, voters }
    }

    /// Term, vote, commit, count of voters, voters: big-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(28 + self.voters.len() * 8);
        for value in [self.term.0, self.vote, self.commit] {
            bytes.extend_from_slice(&value.to_be_bytes());
        }
        let count = u32::try_from(self.voters.len()).expect("a group has few voters");
        bytes.extend_from_slice(&count.to_be_bytes());
        for voter in &self.voters {
            bytes.extend_from_slice(&voter.to_be_bytes());
        }
        bytes
    }

    /// Reads what [`HardState::encode`] wrote.
    ///
    /// # Errors
    /// [`HardStateError`] when the bytes are not exactly that.
    pub fn decode(bytes: &[u8]) -> Result<Self, HardStateError> {
        let torn = || HardStateError::Torn { len_bytes: bytes.len() };
        let word = |at: usize| -> Result<u64, HardStateError> {
            let slice = bytes.get(at..at + 8).ok_or_else(torn)?;
            Ok(u64::from_be_bytes(slice.try_into().expect("eight bytes")))
        };
        let (term, vote, commit) = (Term(word(0)?), word(8)?, word(16)?);
        let count = bytes.get(24..28).ok_or_else(torn)?;
        let count = u32::from_be_bytes(count.try_into().expect("four bytes")) as usize;
        if bytes.len() - 28 != count.saturating_mul(8) {
            return Err(torn());
        }
        let voters = (0..count).map(|i| word(28 + i * 8)).collect::<Result<_, _>>()?;
        Ok(Self { term, vote, commit, voters })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(term: u64, vote: u64, commit: u64, voters in proptest::collection::vec(any::<u64>(), 0..9)) {
            let state = HardState { term: Term(term), vote, commit, voters };
            prop_assert_eq!(HardState::decode(&state.encode()), Ok(state));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(state) = HardState::decode(&bytes) {
                prop_assert_eq!(state.encode(), bytes);
            }
        }
    }

    #[test]
    fn every_cut_is_an_error() {
        let bytes = HardState::bootstrap(vec![1, 2, 3]).encode();
        for cut in 0..bytes.len() {
            assert!(HardState::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
