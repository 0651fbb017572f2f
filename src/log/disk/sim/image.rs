//! The content of a simulated file: sparse, and cheap to clone, for a test may look at the
//! survivors of thousands of crashes.

use super::SECTOR_BYTES;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Unit of sharing between clones, and of space accounting.
pub(super) const PAGE_BYTES: u64 = 4096;

type Page = [u8; PAGE_BYTES as usize];

/// Bytes `[0, len)`; pages that are not there are zeros.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Image {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn has_page(&self, page: u64) -> bool {
        self.pages.contains_key(&page)
    }

    /// Pages present from `first` on.
    pub(super) fn pages_from(&self, first: u64) -> u64 {
        self.pages.range(first..).count() as u64
    }

    /// The sectors of pages present from byte `start` on.
    pub(super) fn sectors_from(&self, start: u64) -> impl Iterator<Item = u64> {
        let first = start / SECTOR_BYTES;
        self.pages
            .range(start / PAGE_BYTES..)
            .flat_map(|(page, _)| {
                let sectors = PAGE_BYTES / SECTOR_BYTES;
                page * sectors..(page + 1) * sectors
            })
            .filter(move |sector| *sector >= first)
    }

    /// Copies from `at`; bytes behind the end are zeros.
    pub(super) fn read(&self, at: u64, target: &mut [u8]) {
        for_pages(at, target.len(), |page, in_page, range| {
            let count = range.len();
            match self.pages.get(&page) {
                Some(bytes) => target[range].copy_from_slice(&bytes[in_page..in_page + count]),
                None => target[range].fill(0),
            }
        });
    }

    /// Writes at `at` and grows as needed.
    pub(super) fn write(&mut self, at: u64, source: &[u8]) {
        for_pages(at, source.len(), |page, in_page, range| {
            let page = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE_BYTES as usize]));
            let count = range.len();
            Arc::make_mut(page)[in_page..in_page + count].copy_from_slice(&source[range]);
        });
        if !source.is_empty() {
            self.len = self.len.max(at + source.len() as u64);
        }
    }

    /// Cuts, or grows by zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let mut cut = self.pages.split_off(&(len / PAGE_BYTES));
            let in_page = (len % PAGE_BYTES) as usize;
            if in_page > 0
                && let Some(mut last) = cut.remove(&(len / PAGE_BYTES))
            {
                Arc::make_mut(&mut last)[in_page..].fill(0);
                self.pages.insert(len / PAGE_BYTES, last);
            }
        }
        self.len = len;
    }

    /// Takes one sector over from another image, as far as this one reaches.
    pub(super) fn copy_sector(&mut self, from: &Self, sector: u64) {
        let at = sector * SECTOR_BYTES;
        let count = SECTOR_BYTES.min(self.len.saturating_sub(at)) as usize;
        let page = at / PAGE_BYTES;
        if count == 0 || (!from.has_page(page) && !self.has_page(page)) {
            return;
        }
        let mut bytes = [0; SECTOR_BYTES as usize];
        from.read(at, &mut bytes);
        self.write(at, &bytes[..count]);
    }

    /// Inverts one bit.
    pub(super) fn flip(&mut self, at: u64, bit: u8) {
        let mut byte = [0];
        self.read(at, &mut byte);
        self.write(at, &[byte[0] ^ (1 << bit)]);
    }
}

/// Calls `each` with page number, position in the page, and range in the buffer.
fn for_pages(at: u64, count: usize, mut each: impl FnMut(u64, usize, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < count {
        let position = at + done as u64;
        let in_page = (position % PAGE_BYTES) as usize;
        let here = (PAGE_BYTES as usize - in_page).min(count - done);
        each(position / PAGE_BYTES, in_page, done..done + here);
        done += here;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..5000);
        prop_oneof![
            (0u64..10_000, bytes).prop_map(|(at, bytes)| Step::Write(at, bytes)),
            (0u64..12_000).prop_map(Step::SetLen),
        ]
    }

    proptest! {
        #[test]
        fn an_image_holds_what_a_plain_vector_would(steps in proptest::collection::vec(step(), 1..12)) {
            let mut image = Image::default();
            let mut plain: Vec<u8> = Vec::new();
            for step in steps {
                match step {
                    Step::Write(at, bytes) => {
                        image.write(at, &bytes);
                        let end = at as usize + bytes.len();
                        if !bytes.is_empty() && plain.len() < end {
                            plain.resize(end, 0);
                        }
                        if !bytes.is_empty() {
                            plain[at as usize..end].copy_from_slice(&bytes);
                        }
                    }
                    Step::SetLen(len) => {
                        image.set_len(len);
                        plain.resize(len as usize, 0);
                    }
                }
                let mut read = vec![1; plain.len()];
                image.read(0, &mut read);
                prop_assert_eq!(image.len(), plain.len() as u64);
                prop_assert!(read == plain);
            }
        }
    }
}
