//! Says in a record batch who sent it, and as which of his: so that a batch that is sent again is
//! stored once. The only bytes of a batch that the client writes itself.

use bytes::BytesMut;

const HEADER_BYTES: usize = 61;
/// The CRC covers everything from here on.
const COVERED_FROM: usize = 21;
/// What the length field does not count.
const LENGTH_BASE_BYTES: usize = 12;

/// The bytes are not one whole record batch of version 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes are not one whole record batch of version 2")]
pub struct NotABatch {
    bytes: usize,
}

/// How many sequence numbers a batch takes: one a record.
///
/// # Errors
/// [`NotABatch`].
pub fn sequences(batch: &[u8]) -> Result<u32, NotABatch> {
    let not = NotABatch { bytes: batch.len() };
    let header = batch.first_chunk::<HEADER_BYTES>().ok_or(not)?;
    let number = |at: usize| i32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let is_whole = usize::try_from(number(8)).is_ok_and(|l| l + LENGTH_BASE_BYTES == batch.len());
    let last = u32::try_from(number(23)).ok().filter(|_| header[16] == 2 && is_whole);
    last.and_then(|last| last.checked_add(1)).ok_or(not)
}

/// Writes producer, epoch and first sequence number into a batch that [`sequences`] accepted, and
/// its checksum.
pub fn stamp_producer(batch: &mut BytesMut, id: i64, epoch: i16, sequence: i32) {
    batch[43..51].copy_from_slice(&id.to_be_bytes());
    batch[51..53].copy_from_slice(&epoch.to_be_bytes());
    batch[53..57].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c::crc32c(&batch[COVERED_FROM..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// The sequence number `count` records on: after the largest comes 0.
pub fn sequence_after(sequence: i32, count: u32) -> i32 {
    ((i64::from(sequence) + i64::from(count)) % (i64::from(i32::MAX) + 1)) as i32
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A batch of `records` that nobody can read, with a header that everybody can.
    pub fn batch(records: u32, body: &[u8]) -> BytesMut {
        let mut batch = BytesMut::zeroed(HEADER_BYTES);
        batch[16] = 2;
        batch[23..27].copy_from_slice(&(records - 1).to_be_bytes());
        batch[57..61].copy_from_slice(&records.to_be_bytes());
        batch.extend_from_slice(body);
        let length = (batch.len() - LENGTH_BASE_BYTES) as u32;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        stamp_producer(&mut batch, -1, -1, -1);
        batch
    }

    /// Producer and first sequence of a batch whose checksum holds.
    pub fn stamped(batch: &[u8]) -> (i64, i32) {
        let crc = u32::from_be_bytes(batch[17..21].try_into().unwrap());
        assert_eq!(crc, crc32c::crc32c(&batch[21..]), "the checksum covers the stamp");
        let id = i64::from_be_bytes(batch[43..51].try_into().unwrap());
        (id, i32::from_be_bytes(batch[53..57].try_into().unwrap()))
    }

    #[test]
    fn a_stamp_is_read_back_and_changes_nothing_else() {
        let plain = batch(3, b"records");
        let mut marked = plain.clone();
        stamp_producer(&mut marked, 77, 1, 12);
        assert_eq!(stamped(&marked), (77, 12));
        assert_eq!(sequences(&marked), Ok(3));
        stamp_producer(&mut marked, -1, -1, -1);
        assert_eq!(marked, plain);
    }

    #[test]
    fn what_is_not_one_whole_batch_is_refused() {
        let whole = batch(3, b"records");
        for length in 0..whole.len() {
            assert!(sequences(&whole[..length]).is_err());
        }
        assert!(sequences(&[&whole[..], &whole[..]].concat()).is_err());
        let mut old = whole;
        old[16] = 1;
        assert!(sequences(&old).is_err());
    }

    #[test]
    fn after_the_largest_sequence_comes_zero() {
        assert_eq!(sequence_after(5, 3), 8);
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 4), 2);
    }
}
