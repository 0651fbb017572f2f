//! Chunks to lines on standard output: checksums verified, records before the position left out,
//! no more than were asked for. Runs on a thread of its own, beside the one that receives.

use super::format::Format;
use crate::cli::progress::Progress;
use crate::cli::stdout::settle;
use crate::cli::{Class, Failure};
use crate::log::batch::{BatchLimits, batches, records, verify_crc};
use crate::model::{Offset, Record, Timestamp};
use crate::wire::client::Chunk;
use std::io::Write;
use tokio::sync::mpsc;

/// Formatted records are handed on in pieces of about this size.
const PIECE_BYTES: usize = 64 << 10;

/// Which records of the first batch come before what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// None.
    Nothing,
    /// Those below this offset.
    Below(Offset),
    /// Those up to the first one that is at or after this time.
    Until(Timestamp),
}

/// Prints records.
pub struct Printer<W> {
    /// Where to.
    pub output: W,
    /// What a record looks like.
    pub format: Format,
    /// Whether the output is a terminal.
    pub for_terminal: bool,
    /// Which records to leave out.
    pub skip: Skip,
    /// How many more are wanted; `None`: all.
    pub wanted: Option<u64>,
    /// For people.
    pub progress: Progress,
}

/// Whether more chunks are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appetite {
    /// Yes.
    More,
    /// No: enough was printed, or nobody reads any more.
    Enough,
}

impl<W: Write> Printer<W> {
    /// Prints chunks until there are no more, or no more are wanted. What is printed is flushed
    /// whenever no further chunk is there yet. Blocks.
    pub fn run(mut self, mut chunks: mpsc::Receiver<Chunk>) -> Result<(), Failure> {
        let outcome = self.run_through(&mut chunks);
        self.progress.end();
        outcome
    }

    fn run_through(&mut self, chunks: &mut mpsc::Receiver<Chunk>) -> Result<(), Failure> {
        loop {
            let chunk = match chunks.try_recv() {
                Ok(chunk) => chunk,
                Err(_) => {
                    if !settle(self.output.flush())? {
                        return Ok(());
                    }
                    match chunks.blocking_recv() {
                        Some(chunk) => chunk,
                        None => return Ok(()),
                    }
                }
            };
            if self.print(chunk)? == Appetite::Enough {
                return settle(self.output.flush()).map(|_| ());
            }
        }
    }

    /// Prints one chunk.
    ///
    /// # Errors
    /// A batch that does not match its checksum or its place: nothing of it is printed.
    pub fn print(&mut self, chunk: Chunk) -> Result<Appetite, Failure> {
        let mut next = chunk.base;
        let mut text = Vec::with_capacity(PIECE_BYTES * 2);
        let bytes = chunk.batches.len() as u64;
        let mut printed = 0;
        for batch in batches(&chunk.batches) {
            let checked =
                batch.and_then(|(_, batch)| verify_crc(&batch).map(|header| (header, batch)));
            let (header, batch) = checked.map_err(|error| damaged(next, error.to_string()))?;
            if header.base_offset != next {
                let what = format!("its base offset is {}", header.base_offset);
                return Err(damaged(next, what));
            }
            // The node checked sizes when it stored them, by limits that are its own.
            for record in records(batch, limits()) {
                let (offset, record) = record.map_err(|error| damaged(next, error.to_string()))?;
                if self.is_skipped(offset, &record) {
                    continue;
                }
                if self.wanted == Some(0) {
                    break;
                }
                self.wanted = self.wanted.map(|wanted| wanted - 1);
                self.format.write(&mut text, offset, &record, self.for_terminal);
                printed += 1;
                if text.len() >= PIECE_BYTES {
                    if !settle(self.output.write_all(&text))? {
                        return Ok(Appetite::Enough);
                    }
                    text.clear();
                }
            }
            next = next.plus(u64::from(header.record_count));
        }
        if next != chunk.next {
            return Err(damaged(next, format!("the node said it would end at {}", chunk.next)));
        }
        self.progress.advance(printed, bytes);
        let is_read = settle(self.output.write_all(&text))?;
        Ok(if is_read && self.wanted != Some(0) { Appetite::More } else { Appetite::Enough })
    }

    fn is_skipped(&mut self, offset: Offset, record: &Record) -> bool {
        let is_before = match self.skip {
            Skip::Nothing => return false,
            Skip::Below(first) => offset < first,
            Skip::Until(time) => record.timestamp < time,
        };
        if !is_before {
            // Only what leads up to the position is left out, not what is like it further on.
            self.skip = Skip::Nothing;
        }
        is_before
    }
}

fn limits() -> BatchLimits {
    BatchLimits {
        batch_bytes_max: 1 << 30,
        record_bytes_max: 1 << 30,
        decompressed_bytes_max: 4 << 30,
    }
}

fn damaged(offset: Offset, what: String) -> Failure {
    Failure::new(Class::Io, format!("the batch at offset {offset} arrived damaged"))
        .cause(what)
        .advice(
            "`duramen segment verify` on the node's data directory tells whether it is stored so",
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::batch::BatchBuilder;
    use bytes::{Bytes, BytesMut};

    /// A batch of records "base", "base + 1", … whose timestamps are ten times their offsets.
    fn batch(base: u64, count: u64) -> Bytes {
        let mut builder = BatchBuilder::new();
        for offset in base..base + count {
            let time = Timestamp(offset as i64 * 10);
            builder.push(&Record::of_value(offset.to_string().into_bytes(), time)).unwrap();
        }
        builder.finish().unwrap().stamped(Offset(base), 1).into_bytes()
    }

    fn chunk(base: u64, next: u64, batches: &[Bytes]) -> Chunk {
        let mut all = BytesMut::new();
        batches.iter().for_each(|batch| all.extend_from_slice(batch));
        let batches = all.freeze();
        Chunk { base: Offset(base), next: Offset(next), high_watermark: Offset(next), batches }
    }

    fn printer<W: Write>(output: W, skip: Skip, wanted: Option<u64>) -> Printer<W> {
        let progress = Progress::begin(None);
        Printer { output, format: Format::Text, for_terminal: false, skip, wanted, progress }
    }

    fn printed(skip: Skip, wanted: Option<u64>, chunks: Vec<Chunk>) -> (String, Appetite) {
        let mut output = Vec::new();
        let mut printer = printer(&mut output, skip, wanted);
        let mut appetite = Appetite::More;
        for chunk in chunks {
            appetite = printer.print(chunk).unwrap();
            if appetite == Appetite::Enough {
                break;
            }
        }
        (String::from_utf8(output).unwrap().replace('\n', " "), appetite)
    }

    #[test]
    fn records_before_the_offset_are_left_out_and_no_more_than_wanted_are_printed() {
        let chunks = || vec![chunk(0, 5, &[batch(0, 3), batch(3, 2)]), chunk(5, 9, &[batch(5, 4)])];
        let all = ("0 1 2 3 4 5 6 7 8 ".to_owned(), Appetite::More);
        assert_eq!(printed(Skip::Nothing, None, chunks()), all);
        assert_eq!(printed(Skip::Below(Offset(4)), None, chunks()).0, "4 5 6 7 8 ");
        let some = ("1 2 3 ".to_owned(), Appetite::Enough);
        assert_eq!(printed(Skip::Below(Offset(1)), Some(3), chunks()), some);
    }

    #[test]
    fn from_a_time_on_only_what_leads_up_to_it_is_left_out() {
        let mut late_then_early = BatchBuilder::new();
        for (value, time) in [("early", 10), ("late", 90), ("early again", 20)] {
            late_then_early.push(&Record::of_value(value, Timestamp(time))).unwrap();
        }
        let bytes = late_then_early.finish().unwrap().stamped(Offset(0), 1).into_bytes();
        let text = printed(Skip::Until(Timestamp(50)), None, vec![chunk(0, 3, &[bytes])]).0;
        assert_eq!(text, "late early again ");
    }

    #[test]
    fn every_damaged_byte_behind_the_stamp_is_noticed_and_nothing_of_the_batch_printed() {
        let whole = batch(7, 2);
        for at in 16..whole.len() {
            let mut bytes = BytesMut::from(&whole[..]);
            bytes[at] ^= 0x10;
            let mut output = Vec::new();
            let mut printer = printer(&mut output, Skip::Nothing, None);
            let outcome = printer.print(chunk(7, 9, &[bytes.freeze()]));
            assert_eq!(outcome.map_err(|failure| failure.class), Err(Class::Io), "byte {at}");
            drop(printer);
            assert!(output.is_empty(), "byte {at}");
        }
    }

    #[test]
    fn a_batch_in_the_wrong_place_is_noticed() {
        for wrong in [chunk(6, 9, &[batch(7, 2)]), chunk(7, 10, &[batch(7, 2)])] {
            assert!(printer(Vec::new(), Skip::Nothing, None).print(wrong).is_err());
        }
    }

    /// A reader that has gone away.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_goes_away_ends_it_without_a_failure() {
        let mut printer = printer(Closed, Skip::Nothing, None);
        assert_eq!(printer.print(chunk(0, 1, &[batch(0, 1)])), Ok(Appetite::Enough));
    }
}
