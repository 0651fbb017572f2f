//! Reading and writing of the few things that this room keeps as bytes: big-endian, and whatever is
//! read is checked and bounded.

pub(super) fn put_u64(bytes: &mut Vec<u8>, value: u64) {
    bytes.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_u32(bytes: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("what is kept is bounded far below this");
    bytes.extend_from_slice(&count.to_be_bytes());
}

/// What is left to read. Each method answers `None` where that is too short.
pub(super) struct Reader<'b>(pub &'b [u8]);

impl<'b> Reader<'b> {
    pub fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|bytes| u64::from_be_bytes(bytes.try_into().expect("eight bytes")))
    }

    /// A count of at most `max`.
    pub fn count(&mut self, max: usize) -> Option<usize> {
        let count = self.take(4).map(|b| u32::from_be_bytes(b.try_into().expect("four bytes")))?;
        usize::try_from(count).ok().filter(|count| *count <= max)
    }
}
