//! How far a command has come, on standard error, and only where a person looks at it.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// A line that is redrawn; nothing where standard error is no terminal.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    records: u64,
}

impl Progress {
    /// Begins. `bytes_total`: the length of the input, where it is known.
    pub fn begin(bytes_total: Option<u64>) -> Self {
        // indicatif draws nothing on what is no terminal.
        let bar = ProgressBar::with_draw_target(bytes_total, ProgressDrawTarget::stderr_with_hz(5));
        let template = match bytes_total {
            Some(_) => {
                "{bar:30} {percent:>3}% {bytes} of {total_bytes}, {binary_bytes_per_sec}, {msg}, {eta} left"
            }
            None => "{spinner} {bytes}, {binary_bytes_per_sec}, {msg}",
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the template is sound"));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, records: 0 }
    }

    /// Shows nothing.
    pub fn none() -> Self {
        Self { bar: ProgressBar::hidden(), records: 0 }
    }

    /// So many more records and bytes are through.
    pub fn advance(&mut self, records: u64, bytes: u64) {
        self.records += records;
        self.bar.inc(bytes);
        if !self.bar.is_hidden() {
            self.bar.set_message(format!("{} records", self.records));
        }
    }

    /// Takes the line away, for what follows.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
