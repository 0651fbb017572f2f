//! Standard output at full speed: no lock per line, no flush per line; and quiet when its reader
//! goes away.

use super::{Class, Failure};
use crate::model::escape;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::fd::AsFd;

/// What is gathered before it is written.
const BUFFER_BYTES: usize = 256 << 10;

/// Standard output, buffered by size only.
pub fn buffered() -> Result<BufWriter<File>, Failure> {
    let owned = io::stdout().as_fd().try_clone_to_owned();
    let owned = owned.map_err(|error| Failure::io("cannot use standard output", &error))?;
    Ok(BufWriter::with_capacity(BUFFER_BYTES, File::from(owned)))
}

/// Writes bytes to standard output. A reader that went away is no failure: it had enough.
pub fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut output = buffered()?;
    settle(output.write_all(bytes).and_then(|()| output.flush())).map(|_| ())
}

/// Writes text for people, with escapes where it would move the cursor: what is told of a node can
/// hold what its clients made up.
pub fn write_text(text: &str) -> Result<(), Failure> {
    write(escape::lines(text).as_bytes())
}

/// Turns the outcome of a write into: go on (true), the reader has gone (false), or a failure.
pub fn settle(outcome: io::Result<()>) -> Result<bool, Failure> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            Err(Failure::new(Class::Io, "cannot write to standard output").cause(error.to_string()))
        }
    }
}
