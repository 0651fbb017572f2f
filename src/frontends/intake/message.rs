//! Messages of gRPC as they come in: where they end, and what has come of one that is not whole.

use bytes::{Bytes, BytesMut};

/// What stands before each message of gRPC: whether it is compressed, and its length.
pub(super) const PREFIX_BYTES: usize = 5;

/// Finds where messages end.
#[derive(Debug, Default)]
pub(super) struct Framing {
    prefix: [u8; PREFIX_BYTES],
    /// Of the prefix, then of what it announces.
    pub come: usize,
    /// The length of the longest message so far.
    pub longest: usize,
}

impl Framing {
    /// Passes bytes; where among them the last message ends that became whole.
    pub fn pass(&mut self, mut bytes: &[u8]) -> Option<usize> {
        let (all, mut whole) = (bytes.len(), None);
        while !bytes.is_empty() {
            let is_prefix = self.come < PREFIX_BYTES;
            let end = if is_prefix { PREFIX_BYTES } else { self.end() };
            let (part, rest) = bytes.split_at(bytes.len().min(end - self.come));
            if is_prefix {
                self.prefix[self.come..self.come + part.len()].copy_from_slice(part);
            }
            (self.come, bytes) = (self.come + part.len(), rest);
            if self.come >= PREFIX_BYTES {
                self.longest = self.longest.max(self.end() - PREFIX_BYTES);
                if self.come == self.end() {
                    (self.come, whole) = (0, Some(all - bytes.len()));
                }
            }
        }
        whole
    }

    /// What is still to come of what has begun: of the prefix, or of the message.
    pub fn missing(&self) -> usize {
        if self.come < PREFIX_BYTES { PREFIX_BYTES - self.come } else { self.end() - self.come }
    }

    /// Where the message ends that has begun.
    fn end(&self) -> usize {
        let [_, length @ ..] = self.prefix;
        PREFIX_BYTES + u32::from_be_bytes(length) as usize
    }
}

/// What has come of a message that is not whole, in room for not much more than that.
#[derive(Debug, Default)]
pub(super) struct Part {
    blocks: Vec<BytesMut>,
    pub bytes: usize,
}

impl Part {
    /// The smallest block (unit: bytes) …
    const BLOCK_BYTES_MIN: usize = 1 << 10;
    /// … and a further one has room for what comes now, or for this part of what came before: a quarter.
    /// Memory that nothing was written to yet is taken all the same: others had it before.
    const GROWTH_DIVISOR: usize = 4;
    /// What has come to so much is long (unit: bytes) …
    const LONG_BYTES: usize = 1 << 20;
    /// … and what comes further has blocks of this size (unit: bytes). Allocators take those from the
    /// system one by one, and give them back at once: they are in memory as far as they are filled.
    const LONG_BLOCK_BYTES: usize = 4 << 20;

    /// Copies: a part of the connection's buffer would keep all of it.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.blocks.last().map_or(0, |block| block.capacity() - block.len());
            if room == 0 {
                let capacity = match self.bytes {
                    Self::LONG_BYTES.. => Self::LONG_BLOCK_BYTES,
                    before => {
                        bytes.len().max(before / Self::GROWTH_DIVISOR).max(Self::BLOCK_BYTES_MIN)
                    }
                };
                self.blocks.push(BytesMut::with_capacity(capacity));
                continue;
            }
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.blocks.last_mut().expect("it has room").extend_from_slice(now);
            (self.bytes, bytes) = (self.bytes + now.len(), rest);
        }
    }

    pub fn take(&mut self) -> impl Iterator<Item = Bytes> {
        std::mem::take(self).blocks.into_iter().map(BytesMut::freeze)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(bytes: usize) -> Vec<u8> {
        let mut framed = vec![0];
        framed.extend((bytes as u32).to_be_bytes());
        framed.extend((0..bytes).map(|at| at as u8));
        framed
    }

    proptest! {
        #[test]
        fn messages_end_where_they_end_however_they_are_cut(
            sizes in proptest::collection::vec(0usize..40, 0..12),
            rest in 0usize..30,
            cuts in proptest::collection::vec(1usize..20, 1..12),
        ) {
            let mut all: Vec<u8> = sizes.iter().flat_map(|bytes| message(*bytes)).collect();
            let whole = all.len();
            all.extend(&message(40)[..rest]);
            let (mut framing, mut at, mut last) = (Framing::default(), 0, 0);
            for cut in cuts.iter().cycle() {
                if at == all.len() {
                    break;
                }
                let end = all.len().min(at + cut);
                if let Some(ended) = framing.pass(&all[at..end]) {
                    last = at + ended;
                }
                at = end;
            }
            prop_assert_eq!((framing.come, last), (all.len() - whole, whole));
        }

        #[test]
        fn a_part_is_what_has_come_in_not_much_more_memory(
            sizes in proptest::collection::vec(1usize..60_000, 1..40),
        ) {
            let (mut part, mut all) = (Part::default(), Vec::new());
            for bytes in sizes {
                let come = message(bytes);
                part.push(&come);
                all.extend(come);
                let held: usize = part.blocks.iter().map(BytesMut::capacity).sum();
                let more = match all.len() {
                    ..=Part::LONG_BYTES => (all.len() / Part::GROWTH_DIVISOR).max(Part::BLOCK_BYTES_MIN),
                    _ => Part::LONG_BLOCK_BYTES,
                };
                prop_assert!(held <= all.len() + more);
                prop_assert_eq!(part.bytes, all.len());
            }
            let taken: Vec<u8> = part.take().flatten().collect();
            prop_assert!(taken == all && part.bytes == 0);
        }
    }
}
