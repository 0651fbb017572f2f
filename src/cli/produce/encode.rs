//! Lines to record batches, on threads of their own: one reads, one cuts and encodes, so that
//! neither waits for the network nor the other way round.
//!
//! What goes out together holds a run of lines without a gap, also where its batches part them by key:
//! so the number of lines acknowledged says with which to go on.

use super::lines::LineSplitter;
use crate::cli::{Class, Failure};
use crate::log::batch::{BatchBuilder, BatchError, Compression};
use crate::model::{Clock, SystemClock, Timestamp};
use crate::wire::client::partition_of_key;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::num::NonZeroU32;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use tokio::sync::mpsc;

/// What is read at once.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that were read and not yet cut.
const PIECES_WAITING_MAX: usize = 4;
/// Batches that were encoded and not yet sent.
const BATCHES_WAITING_MAX: usize = 2;
/// What goes out together holds no more of the input, however many batches it is parted into.
const RUN_BYTES_MAX: u64 = 16 << 20;

/// How lines become batches.
#[derive(Debug, Clone)]
pub struct EncodeOptions {
    /// A batch is sent with so many records at the latest.
    pub records_max: usize,
    /// A batch is sent with so many bytes at the latest, or one larger record.
    pub bytes_max: usize,
    /// What stands before the first of these bytes is the key.
    pub key_separator: Option<Vec<u8>>,
    /// Over how many partitions records are parted by their keys; `None`: they stay together.
    pub partitions: Option<NonZeroU32>,
    /// How batches are compressed.
    pub compression: Compression,
}

/// A run of lines on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Its batches as they are stored, each with its partition where keys decide on that.
    pub batches: Vec<(Option<u32>, Bytes)>,
    /// How many records it holds.
    pub records: u64,
    /// How much of the input it holds, newlines included (unit: bytes).
    pub input_bytes: u64,
}

/// Reads and encodes `input` to its end. A failure is the last thing received.
pub fn start(
    input: Box<dyn Read + Send>,
    options: EncodeOptions,
) -> io::Result<mpsc::Receiver<Result<Encoded, Failure>>> {
    let (pieces, cut) = sync_channel(PIECES_WAITING_MAX);
    let (batches, encoded) = mpsc::channel(BATCHES_WAITING_MAX);
    thread::Builder::new().name("reader".into()).spawn(move || read(input, &pieces))?;
    thread::Builder::new().name("encoder".into()).spawn(move || {
        let mut encoder = Encoder::new(&options);
        if let Err(Stop::Failed(failure)) = encode(&mut encoder, &cut, &batches) {
            // Where nobody receives any more, the failure has been overtaken by another.
            let _ = batches.blocking_send(Err(failure));
        }
    })?;
    Ok(encoded)
}

fn read(mut input: Box<dyn Read + Send>, pieces: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let read = input.read(&mut piece);
        let sent = match read {
            Ok(0) => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(length) => {
                piece.truncate(length);
                pieces.send(Ok(piece))
            }
            Err(error) => {
                // Reported, and the end: nothing behind it would be in its place.
                let _ = pieces.send(Err(error));
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Why encoding ends before the input does.
enum Stop {
    Failed(Failure),
    /// Nobody wants the batches any more.
    Unwanted,
}

fn encode(
    encoder: &mut Encoder,
    pieces: &Receiver<io::Result<Vec<u8>>>,
    batches: &mpsc::Sender<Result<Encoded, Failure>>,
) -> Result<(), Stop> {
    let clock = SystemClock::new();
    let mut send = |encoded| batches.blocking_send(Ok(encoded)).map_err(|_| Stop::Unwanted);
    loop {
        let piece = match pieces.try_recv() {
            Ok(piece) => piece,
            Err(TryRecvError::Empty) => {
                // The input pauses: what there is goes out now, not when more has come.
                encoder.flush(&mut send)?;
                match pieces.recv() {
                    Ok(piece) => piece,
                    Err(_) => break,
                }
            }
            Err(TryRecvError::Disconnected) => break,
        };
        let piece = piece.map_err(|error| {
            Stop::Failed(Failure::io(
                format!("cannot read the input behind line {}", encoder.lines),
                &error,
            ))
        })?;
        encoder.take(&piece, clock.wall(), &mut send)?;
    }
    encoder.finish(clock.wall(), &mut send)
}

/// Cuts and encodes. Pure.
struct Encoder {
    splitter: LineSplitter,
    writer: Writer,
    /// Lines encoded so far.
    lines: u64,
}

struct Writer {
    /// One for each partition that lines go to; only the first where they stay together.
    builders: BTreeMap<u32, BatchBuilder>,
    options: EncodeOptions,
    records: u64,
    input_bytes: u64,
    /// Where records without a key go: to one partition for as long as a run lasts.
    turn: u32,
}

type Emit<'s> = &'s mut dyn FnMut(Encoded) -> Result<(), Stop>;

impl Encoder {
    fn new(options: &EncodeOptions) -> Self {
        let (builders, options) = (BTreeMap::new(), options.clone());
        let writer = Writer { builders, options, records: 0, input_bytes: 0, turn: 0 };
        Self { splitter: LineSplitter::default(), writer, lines: 0 }
    }

    fn take(&mut self, piece: &[u8], now: Timestamp, send: Emit<'_>) -> Result<(), Stop> {
        let Self { splitter, writer, lines } = self;
        splitter.split(piece, |line| {
            *lines += 1;
            writer.push(line, 1, now, *lines, send)
        })?;
        let unfinished = splitter.unfinished_bytes();
        if unfinished > UNFINISHED_BYTES_MAX {
            return Err(too_large(*lines + 1, unfinished, UNFINISHED_BYTES_MAX));
        }
        Ok(())
    }

    fn flush(&mut self, send: Emit<'_>) -> Result<(), Stop> {
        self.writer.flush(send)
    }

    fn finish(&mut self, now: Timestamp, send: Emit<'_>) -> Result<(), Stop> {
        let Self { splitter, writer, lines } = self;
        splitter.finish(|line| {
            *lines += 1;
            writer.push(line, 0, now, *lines, send)
        })?;
        writer.flush(send)
    }
}

/// A line beyond this has no chance with any node; it is not gathered further.
const UNFINISHED_BYTES_MAX: usize = 1 << 30;

fn too_large(line: u64, bytes: usize, bytes_max: usize) -> Stop {
    Stop::Failed(
        Failure::new(Class::BadInput, format!("line {line} is too large for a record"))
            .cause(format!("it has at least {bytes} bytes; {bytes_max} are allowed"))
            .advice("split the line"),
    )
}

impl Writer {
    fn push(
        &mut self,
        line: &[u8],
        newline_bytes: u64,
        now: Timestamp,
        number: u64,
        send: Emit<'_>,
    ) -> Result<(), Stop> {
        let (key, value) = split_key(line, self.options.key_separator.as_deref());
        let place = match (self.options.partitions, key) {
            (None, _) => 0,
            (Some(count), Some(key)) => partition_of_key(key, count.get()),
            (Some(count), None) => self.turn % count.get(),
        };
        let pushed = match self.push_to(place, key, value, now) {
            Err(BatchError::Full) => {
                self.flush(send)?;
                self.push_to(place, key, value, now)
            }
            pushed => pushed,
        };
        pushed.map_err(|error| match error {
            BatchError::RecordTooLarge { record_bytes, record_bytes_max } => {
                too_large(number, record_bytes, record_bytes_max)
            }
            error => Stop::Failed(
                Failure::new(Class::BadInput, format!("line {number} cannot be a record"))
                    .cause(error.to_string()),
            ),
        })?;
        self.input_bytes += line.len() as u64 + newline_bytes;
        self.records += 1;
        let builder = &self.builders[&place];
        let is_full = builder.len() >= self.options.records_max
            || builder.estimated_bytes() >= self.options.bytes_max
            || self.input_bytes >= RUN_BYTES_MAX;
        if is_full { self.flush(send) } else { Ok(()) }
    }

    fn push_to(
        &mut self,
        place: u32,
        key: Option<&[u8]>,
        value: &[u8],
        now: Timestamp,
    ) -> Result<(), BatchError> {
        let compression = self.options.compression;
        let new = || BatchBuilder::new().with_compression(compression);
        let builder = self.builders.entry(place).or_insert_with(new);
        builder.push_parts(key, Some(value), std::iter::empty(), now)
    }

    fn flush(&mut self, send: Emit<'_>) -> Result<(), Stop> {
        let records = std::mem::take(&mut self.records);
        if records == 0 {
            return Ok(());
        }
        let input_bytes = std::mem::take(&mut self.input_bytes);
        self.turn = self.turn.wrapping_add(1);
        let is_parted = self.options.partitions.is_some();
        let finished = self.builders.iter_mut().filter_map(|(place, builder)| {
            let batch = builder.finish()?.into_bytes();
            Some((is_parted.then_some(*place), batch))
        });
        send(Encoded { batches: finished.collect(), records, input_bytes })
    }
}

/// The key and the value of a line. Without a separator in it, it has no key.
fn split_key<'l>(line: &'l [u8], separator: Option<&[u8]>) -> (Option<&'l [u8]>, &'l [u8]) {
    let found = separator.and_then(|separator| {
        let at = line.windows(separator.len()).position(|window| window == separator)?;
        Some((&line[..at], &line[at + separator.len()..]))
    });
    found.map_or((None, line), |(key, value)| (Some(key), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::batch::{BatchLimits, records};
    use std::collections::VecDeque;

    fn options() -> EncodeOptions {
        EncodeOptions {
            records_max: 3,
            bytes_max: 1 << 20,
            key_separator: None,
            partitions: None,
            compression: Compression::None,
        }
    }

    fn all(input: Box<dyn Read + Send>, options: EncodeOptions) -> Vec<Encoded> {
        let mut encoded = start(input, options).unwrap();
        std::iter::from_fn(|| encoded.blocking_recv()).map(Result::unwrap).collect()
    }

    fn values(encoded: &[Encoded]) -> Vec<Vec<u8>> {
        let batches = encoded.iter().flat_map(|encoded| &encoded.batches);
        batches.flat_map(|(_, batch)| lines_in(batch)).map(|(_, value)| value).collect()
    }

    fn lines_in(batch: &Bytes) -> Vec<(Option<Vec<u8>>, Vec<u8>)> {
        let read = records(batch.clone(), BatchLimits::default()).map(|record| record.unwrap().1);
        read.map(|record| (record.key.map(|key| key.to_vec()), record.value.unwrap().to_vec()))
            .collect()
    }

    #[test]
    fn every_line_becomes_a_record_in_order_and_all_input_is_accounted_for() {
        let text: String =
            (0..100).map(|line| format!("line {line}\r\n")).collect::<String>() + "end";
        let encoded = all(Box::new(io::Cursor::new(text.clone())), options());
        assert!(encoded.iter().all(|encoded| (1..=3).contains(&encoded.records)));
        assert_eq!(values(&encoded).join(&b'\n'), text.as_bytes());
        let input_bytes: u64 = encoded.iter().map(|encoded| encoded.input_bytes).sum();
        assert_eq!(input_bytes, text.len() as u64);
    }

    #[test]
    fn a_batch_ends_at_its_size() {
        let options = EncodeOptions { records_max: 1000, bytes_max: 200, ..options() };
        let text = "x".repeat(99) + "\n";
        let encoded = all(Box::new(io::Cursor::new(text.repeat(20))), options);
        assert!(encoded.iter().all(|encoded| encoded.records <= 2), "{encoded:?}");
        assert_eq!(values(&encoded).len(), 20);
    }

    #[test]
    fn records_are_parted_by_key_in_order_and_those_without_one_take_turns() {
        let lines: Vec<String> = (0..600)
            .map(|number| match number % 7 {
                0 => format!("{number}"),
                key => format!("key {key}:{number}"),
            })
            .collect();
        let parted = EncodeOptions {
            records_max: 20,
            key_separator: Some(b":".to_vec()),
            partitions: NonZeroU32::new(4),
            ..options()
        };
        let encoded = all(Box::new(io::Cursor::new(lines.join("\n"))), parted);
        assert!(encoded.len() > 4, "several runs: {}", encoded.len());
        let (mut seen, mut by_key, mut keyless) = (0, BTreeMap::new(), Vec::new());
        for run in &encoded {
            let mut numbers = Vec::new();
            let mut without = Vec::new();
            for (place, batch) in &run.batches {
                let place = place.expect("keys decide");
                let lines = lines_in(batch);
                assert!(lines.len() <= 20);
                for (key, value) in lines {
                    let number: u64 = String::from_utf8(value).unwrap().parse().unwrap();
                    numbers.push(number);
                    match key {
                        None => without.push(place),
                        Some(key) => {
                            assert_eq!(place, partition_of_key(&key, 4));
                            let before = by_key.insert(key, number);
                            assert!(before.is_none_or(|before| before < number), "in order");
                        }
                    }
                }
            }
            without.dedup();
            assert!(without.len() <= 1, "they stay together within a run: {without:?}");
            keyless.extend(without);
            numbers.sort_unstable();
            let expected: Vec<u64> = (seen..seen + run.records).collect();
            assert_eq!(numbers, expected, "a run is without a gap");
            seen += run.records;
        }
        assert_eq!((seen, by_key.len()), (600, 6));
        keyless.sort_unstable();
        keyless.dedup();
        assert_eq!(keyless, [0, 1, 2, 3], "each partition has its turn");
    }

    /// Gives one piece and then waits until it is told to end.
    struct Pausing(VecDeque<Vec<u8>>, std::sync::mpsc::Receiver<()>);

    impl Read for Pausing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(piece) = self.0.pop_front() else {
                let _ = self.1.recv();
                return Ok(0);
            };
            buffer[..piece.len()].copy_from_slice(&piece);
            Ok(piece.len())
        }
    }

    #[test]
    fn when_the_input_pauses_what_has_come_is_not_held_back() {
        let (end, wait) = std::sync::mpsc::channel();
        let input = Pausing([b"one\ntwo\nthr".to_vec()].into(), wait);
        let mut encoded =
            start(Box::new(input), EncodeOptions { records_max: 9, ..options() }).unwrap();
        let first = encoded.blocking_recv().unwrap().unwrap();
        assert_eq!(first.records, 2, "sent although the input has not ended");
        drop(end);
        assert_eq!(values(&[encoded.blocking_recv().unwrap().unwrap()]), [b"thr"]);
        assert!(encoded.blocking_recv().is_none());
    }

    #[test]
    fn a_line_that_no_record_can_hold_is_named_after_those_before_it() {
        let text = format!("short\n{}\nnever sent\n", "x".repeat(9 << 20));
        let mut encoded = start(Box::new(io::Cursor::new(text)), options()).unwrap();
        let mut outcomes = Vec::new();
        while let Some(outcome) = encoded.blocking_recv() {
            outcomes.push(outcome);
        }
        let failure = outcomes.pop().unwrap().unwrap_err();
        assert_eq!(failure.class, Class::BadInput);
        assert!(failure.error.contains("line 2"), "{failure}");
    }

    #[test]
    fn the_key_stands_before_the_first_separator() {
        let key = |line: &'static str| split_key(line.as_bytes(), Some(b"::"));
        assert_eq!(key("a::b::c"), (Some(&b"a"[..]), &b"b::c"[..]));
        assert_eq!(key("::b"), (Some(&b""[..]), &b"b"[..]));
        assert_eq!(key("a:b"), (None, &b"a:b"[..]));
        assert_eq!(split_key(b"a:b", None), (None, &b"a:b"[..]));
    }
}
