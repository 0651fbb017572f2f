//! Zigzag variable-length integers, as protobuf's `sint32` and `sint64` and Kafka's records.

use bytes::{BufMut, BytesMut};

/// Most bytes that a 64-bit value takes.
const VARLONG_BYTES_MAX: usize = 10;

/// Reads a 32-bit value at `*position` and moves on. `None` when the bytes end or the value does
/// not fit: a longer form is an error, never wrapped.
#[inline]
pub(super) fn read_i32(bytes: &[u8], position: &mut usize) -> Option<i32> {
    // Nearly all values are below 64 and take one byte.
    let first = *bytes.get(*position)?;
    if first < 0x80 {
        *position += 1;
        return Some(unzigzag(u64::from(first)) as i32);
    }
    i32::try_from(read_i64(bytes, position)?).ok()
}

/// As [`read_i32`], for 64 bits.
#[inline]
pub(super) fn read_i64(bytes: &[u8], position: &mut usize) -> Option<i64> {
    let mut value = 0u64;
    for index in 0..VARLONG_BYTES_MAX {
        let byte = *bytes.get(*position + index)?;
        // The tenth byte has room for the 64th bit only.
        if index == VARLONG_BYTES_MAX - 1 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *position += index + 1;
            return Some(unzigzag(value));
        }
    }
    None
}

/// Appends a value; [`len`] tells how many bytes that takes.
#[inline]
pub(super) fn write(target: &mut BytesMut, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        target.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    target.put_u8(rest as u8);
}

/// Bytes that [`write`] appends.
#[inline]
pub(super) const fn len(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(value: i64) -> BytesMut {
        let mut bytes = BytesMut::new();
        write(&mut bytes, value);
        bytes
    }

    proptest! {
        #[test]
        fn a_value_reads_back_and_takes_the_bytes_foretold(value: i64, shift in 0u32..64) {
            let value = value >> shift;
            let bytes = written(value);
            prop_assert_eq!(bytes.len(), len(value));
            let mut position = 0;
            prop_assert_eq!(read_i64(&bytes, &mut position), Some(value));
            prop_assert_eq!(position, bytes.len());
            position = 0;
            prop_assert_eq!(read_i32(&bytes, &mut position), i32::try_from(value).ok());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, at in 0usize..20) {
            let mut position = at;
            let _ = read_i64(&bytes, &mut position);
            prop_assert!(position <= bytes.len().max(at));
        }
    }

    #[test]
    fn known_values_have_protobufs_bytes() {
        for (value, bytes) in [
            (0, &[0u8][..]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[0x7e]),
            (-65, &[0x81, 1]),
            (300, &[0xd8, 4]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            assert_eq!(&written(value)[..], bytes);
        }
    }

    #[test]
    fn values_that_are_too_long_or_cut_off_are_refused() {
        let mut position = 0;
        assert_eq!(read_i64(&[0xff; 11], &mut position), None);
        assert_eq!(read_i64(&[0x80, 0x80], &mut position), None);
        let mut eleven = [0x80u8; 11];
        eleven[10] = 0;
        assert_eq!(read_i64(&eleven, &mut position), None);
        assert_eq!(
            read_i64(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], &mut 0),
            None
        );
        assert_eq!(read_i32(&written(i64::from(i32::MAX) + 1), &mut 0), None);
        assert_eq!(position, 0);
    }
}
