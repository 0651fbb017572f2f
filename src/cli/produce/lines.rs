//! Cuts a stream of bytes into lines, wherever its pieces begin and end. Pure.
//!
//! A line is what stands before a newline (`\n`), any bytes but that; a carriage return is data. What
//! stands behind the last newline is a line unless it is empty.

use std::io::BufRead;

/// Cuts lines; keeps what stands behind the last newline so far.
#[derive(Debug, Default)]
pub struct LineSplitter {
    rest: Vec<u8>,
}

impl LineSplitter {
    /// Calls `take` with every line that ends in this piece.
    ///
    /// # Errors
    /// The first error of `take`; the lines behind it are lost.
    pub fn split<E>(
        &mut self,
        piece: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut ahead = piece;
        while !ahead.is_empty() {
            let begins = ahead;
            // On a slice it cannot fail; it is the standard library's way to its fast search.
            let length = ahead.skip_until(b'\n').expect("a slice is always readable");
            let line = &begins[..length];
            let Some(line) = line.strip_suffix(b"\n") else {
                self.rest.extend_from_slice(line);
                break;
            };
            if self.rest.is_empty() {
                take(line)?;
            } else {
                self.rest.extend_from_slice(line);
                take(&self.rest)?;
                self.rest.clear();
            }
        }
        Ok(())
    }

    /// Calls `take` with what stands behind the last newline, unless it is empty.
    ///
    /// # Errors
    /// The error of `take`.
    pub fn finish<E>(&mut self, take: impl FnOnce(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() { Ok(()) } else { take(&rest) }
    }

    /// The length so far of a line whose end has not come (unit: bytes).
    pub fn unfinished_bytes(&self) -> usize {
        self.rest.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn lines<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<Vec<u8>> {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        let mut take = |line: &[u8]| {
            lines.push(line.to_vec());
            Ok::<(), Infallible>(())
        };
        for piece in pieces {
            splitter.split(piece, &mut take).unwrap();
        }
        splitter.finish(&mut take).unwrap();
        lines
    }

    #[test]
    fn a_last_line_without_a_newline_counts_and_a_carriage_return_is_data() {
        assert_eq!(lines([&b"a\r\n\nb"[..]]), [&b"a\r"[..], b"", b"b"]);
        assert_eq!(lines([&b"a\n"[..]]), [b"a"]);
        assert_eq!(lines([&b"\n"[..]]), [b""]);
        assert!(lines([&b""[..]]).is_empty());
    }

    proptest! {
        #[test]
        fn lines_joined_again_are_the_input_however_it_was_cut(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..300),
            piece_bytes in 1_usize..40,
        ) {
            let lines = lines(bytes.chunks(piece_bytes));
            let mut joined = lines.join(&b'\n');
            if bytes.ends_with(b"\n") {
                joined.push(b'\n');
            }
            prop_assert_eq!(joined, bytes);
            prop_assert!(lines.iter().all(|line| !line.contains(&b'\n')));
        }
    }
}
