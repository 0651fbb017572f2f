//! How long a message on a gossip connection is, by its first bytes: what memberlist's own reader would
//! make room for before it has seen more than this, up to 4 GiB. Pure.
//!
//! A message is a label, and within it one that is encrypted, or one in the clear. Compressed and
//! compound ones are for packets, and none of ours sends them on a connection.

use memberlist::proto::EncryptionAlgorithm;

const LABELED: u8 = 12;
const ENCRYPTED: u8 = 15;
/// Tags of messages in the clear: from a ping to an answer that tells of an error.
const PLAIN: std::ops::RangeInclusive<u8> = 2..=11;
/// Tag, algorithm and length.
const ENCRYPTED_HEADER: usize = 6;

/// Why a message is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// It does not begin as ours do.
    Foreign,
    /// It is longer than is taken.
    TooLong,
}

/// The length of the message that begins so, label included; `None` where more must be seen.
///
/// # Errors
/// It is none of ours, or too long.
pub fn len(bytes: &[u8], len_max: usize) -> Result<Option<usize>, FrameError> {
    let Some(&tag) = bytes.first() else { return Ok(None) };
    if tag != LABELED {
        return Err(FrameError::Foreign);
    }
    let Some(&label) = bytes.get(1) else { return Ok(None) };
    let start = 2 + usize::from(label);
    let Some(rest) = bytes.get(start..).filter(|rest| !rest.is_empty()) else { return Ok(None) };
    let inner = match rest[0] {
        ENCRYPTED => encrypted_len(rest)?,
        tag if PLAIN.contains(&tag) => plain_len(rest)?,
        _ => return Err(FrameError::Foreign),
    };
    let whole = inner.map(|inner| start + inner);
    if whole.is_some_and(|whole| whole > len_max) {
        return Err(FrameError::TooLong);
    }
    Ok(whole)
}

fn encrypted_len(rest: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(&[_, algorithm, a, b, c, d]) = rest.first_chunk::<ENCRYPTED_HEADER>() else {
        return Ok(None);
    };
    let algorithm = EncryptionAlgorithm::from(algorithm);
    if algorithm.is_unknown() {
        return Err(FrameError::Foreign);
    }
    let payload = u32::from_be_bytes([a, b, c, d]) as usize;
    let around = algorithm.nonce_size() + algorithm.encrypted_suffix_len(payload);
    Ok(Some(ENCRYPTED_HEADER + around + payload))
}

fn plain_len(rest: &[u8]) -> Result<Option<usize>, FrameError> {
    let mut payload = 0_u64;
    for (at, byte) in rest[1..].iter().take(5).enumerate() {
        payload |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let payload = usize::try_from(payload).map_err(|_| FrameError::TooLong)?;
            return Ok(Some(2 + at + payload));
        }
    }
    if rest.len() > 5 { Err(FrameError::Foreign) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 1 << 20;

    fn labeled(rest: &[u8]) -> Vec<u8> {
        [&[LABELED, 7], b"duramen".as_slice(), rest].concat()
    }

    #[test]
    fn a_message_is_as_long_as_its_first_bytes_say() {
        assert_eq!(len(&labeled(&[2, 0]), MAX), Ok(Some(11)), "an empty ping");
        assert_eq!(len(&labeled(&[8, 0x80, 0x02]), MAX), Ok(Some(9 + 3 + 256)));
        // Without padding there are 12 bytes in front and 16 behind.
        assert_eq!(len(&labeled(&[ENCRYPTED, 1, 0, 0, 1, 0]), MAX), Ok(Some(9 + 6 + 28 + 256)));
    }

    #[test]
    fn four_gigabytes_are_refused_before_there_is_room_for_them() {
        assert_eq!(
            len(&labeled(&[ENCRYPTED, 1, 255, 255, 255, 255]), MAX),
            Err(FrameError::TooLong)
        );
        assert_eq!(len(&labeled(&[8, 255, 255, 255, 255, 15]), MAX), Err(FrameError::TooLong));
        assert_eq!(len(&labeled(&[8, 255, 255, 255, 255, 255, 1]), MAX), Err(FrameError::Foreign));
    }

    #[test]
    fn what_none_of_ours_sends_is_foreign_by_its_first_bytes() {
        for rest in [[1, 0], [13, 1], [14, 0], [12, 0], [0, 0], [99, 0], [ENCRYPTED, 77]] {
            let long = [rest.as_slice(), &[0; 16]].concat();
            assert_eq!(len(&labeled(&long), MAX), Err(FrameError::Foreign), "{rest:?}");
        }
        assert_eq!(len(b"GET / HTTP/1.1", MAX), Err(FrameError::Foreign));
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_what_the_first_ones_said(
            rest in prop::collection::vec(any::<u8>(), 0..40),
            cut in 0..40_usize,
        ) {
            let whole = labeled(&rest);
            let part = len(&whole[..cut.min(whole.len())], MAX);
            if part != Ok(None) {
                prop_assert_eq!(part, len(&whole, MAX));
            }
        }
    }
}
