//! Lines to record batches, on threads of their own: one reads, one cuts and encodes, so that
//! neither waits for the network nor the other way round.

use super::lines::LineSplitter;
use crate::cli::{Class, Failure};
use crate::log::batch::{BatchBuilder, BatchError, Compression};
use crate::model::{Clock, SystemClock, Timestamp};
use bytes::Bytes;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use tokio::sync::mpsc;

/// What is read at once.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that were read and not yet cut.
const PIECES_WAITING_MAX: usize = 4;
/// Batches that were encoded and not yet sent.
const BATCHES_WAITING_MAX: usize = 2;

/// How lines become batches.
#[derive(Debug, Clone)]
pub struct EncodeOptions {
    /// A batch is sent with so many records at the latest.
    pub records_max: usize,
    /// A batch is sent with so many bytes at the latest, or one larger record.
    pub bytes_max: usize,
    /// What stands before the first of these bytes is the key.
    pub key_separator: Option<Vec<u8>>,
    /// How batches are compressed.
    pub compression: Compression,
}

/// A batch on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The batch as it is stored.
    pub batch: Bytes,
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
    builder: BatchBuilder,
    options: EncodeOptions,
    input_bytes: u64,
}

type Emit<'s> = &'s mut dyn FnMut(Encoded) -> Result<(), Stop>;

impl Encoder {
    fn new(options: &EncodeOptions) -> Self {
        let builder = BatchBuilder::new().with_compression(options.compression);
        let writer = Writer { builder, options: options.clone(), input_bytes: 0 };
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
        let push = |builder: &mut BatchBuilder| {
            builder.push_parts(key, Some(value), std::iter::empty(), now)
        };
        let pushed = match push(&mut self.builder) {
            Err(BatchError::Full) => {
                self.flush(send)?;
                push(&mut self.builder)
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
        let is_full = self.builder.len() >= self.options.records_max
            || self.builder.estimated_bytes() >= self.options.bytes_max;
        if is_full { self.flush(send) } else { Ok(()) }
    }

    fn flush(&mut self, send: Emit<'_>) -> Result<(), Stop> {
        let records = self.builder.len() as u64;
        let Some(batch) = self.builder.finish() else { return Ok(()) };
        let input_bytes = std::mem::take(&mut self.input_bytes);
        send(Encoded { batch: batch.into_bytes(), records, input_bytes })
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
            compression: Compression::None,
        }
    }

    fn all(input: Box<dyn Read + Send>, options: EncodeOptions) -> Vec<Encoded> {
        let mut encoded = start(input, options).unwrap();
        std::iter::from_fn(|| encoded.blocking_recv()).map(Result::unwrap).collect()
    }

    fn values(encoded: &[Encoded]) -> Vec<Vec<u8>> {
        let values = |encoded: &Encoded| {
            let read = records(encoded.batch.clone(), BatchLimits::default());
            read.map(|record| record.unwrap().1.value.unwrap().to_vec()).collect::<Vec<_>>()
        };
        encoded.iter().flat_map(values).collect()
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
