//! Buffers for reads, used again and again: a read at full speed would else spend a good part of its
//! time on clearing memory that the disk is about to fill, and on giving it back.
//!
//! Each thread keeps a few of its own, so that nothing is shared and nothing locked.

use bytes::Bytes;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut, Range};

/// Buffers that a thread keeps while nobody uses them …
const KEPT_MAX: usize = 4;
/// … and the largest that it keeps (unit: bytes). A reader of larger pieces allocates.
const KEPT_BYTES_MAX: usize = 512 << 10;

thread_local! {
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes to read into. Holds whatever an earlier read left in it, until it is filled.
#[derive(Debug)]
pub(super) struct Buffer {
    memory: Vec<u8>,
    len: usize,
}

impl Buffer {
    /// A buffer of so many bytes, of any content.
    pub fn take(len: usize) -> Self {
        let fits = |memory: &Vec<u8>| memory.len() >= len;
        let kept = KEPT.with_borrow_mut(|kept| {
            let place = kept.iter().position(fits).or(kept.len().checked_sub(1))?;
            Some(kept.swap_remove(place))
        });
        let mut memory = kept.unwrap_or_default();
        if memory.len() < len {
            memory.resize(len, 0);
        }
        Self { memory, len }
    }

    /// Hands out a part of it without a copy; the memory comes back when the last user is done.
    pub fn share(self, part: Range<usize>) -> Bytes {
        Bytes::from_owner(self).slice(part)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        if memory.len() > KEPT_BYTES_MAX {
            return;
        }
        // A thread that ends has no place to keep it any more.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < KEPT_MAX {
                kept.push(memory);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Vec<usize> {
        KEPT.with_borrow(|kept| kept.iter().map(Vec::len).collect())
    }

    #[test]
    fn memory_comes_back_when_the_last_user_is_done_and_serves_again() {
        let mut buffer = Buffer::take(1000);
        buffer.copy_from_slice(&[7; 1000]);
        let place = buffer.as_ptr();
        let shared = buffer.share(10..20);
        assert_eq!((&shared[..], kept()), (&[7; 10][..], vec![]));
        drop(shared);
        assert_eq!(kept(), [1000]);
        let again = Buffer::take(600);
        assert_eq!((again.as_ptr(), again.len(), kept()), (place, 600, vec![]));
    }

    #[test]
    fn a_thread_keeps_few_buffers_and_no_large_one() {
        drop((0..20).map(|_| Buffer::take(4096)).collect::<Vec<_>>());
        assert_eq!(kept(), [4096; KEPT_MAX]);
        drop(Buffer::take(KEPT_BYTES_MAX + 1));
        assert!(kept().iter().all(|bytes| *bytes <= KEPT_BYTES_MAX), "{:?}", kept());
    }
}
