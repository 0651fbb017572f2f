//! The debug files: `metrics-*.log` and `traces-*.log`, one JSON object a line.

use crate::observe::metrics::{Snapshot, Value};
use crate::observe::{Attribute, SpanRecord};
use serde_json::{Map, json};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// A file that has reached this size takes no more.
const FILE_BYTES_MAX: u64 = 64 << 20;

pub(super) struct Files {
    metrics: Limited,
    traces: Limited,
}

struct Limited {
    file: File,
    left: u64,
}

impl Files {
    /// Makes both files, with names that are new.
    pub fn create(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let create = |prefix| -> io::Result<Limited> {
            let made =
                tempfile::Builder::new().prefix(prefix).suffix(".log").tempfile_in(directory)?;
            let (file, _) = made.keep()?;
            Ok(Limited { file, left: FILE_BYTES_MAX })
        };
        Ok(Self { metrics: create("metrics-")?, traces: create("traces-")? })
    }

    pub fn spans(&mut self, spans: &[SpanRecord]) -> io::Result<()> {
        let lines: String = spans.iter().map(|span| line_of(span) + "\n").collect();
        self.traces.write(lines.as_bytes())
    }

    pub fn metrics(&mut self, snapshot: &Snapshot, wall_ms: u64) -> io::Result<()> {
        let mut metrics = Vec::new();
        for (family, samples) in snapshot.families() {
            for sample in samples {
                let labels: Map<String, serde_json::Value> = (family.labels.iter())
                    .zip(&sample.labels)
                    .map(|(name, value)| ((*name).to_owned(), value.clone().into()))
                    .collect();
                metrics.push(match &sample.value {
                    Value::Number(value) => {
                        json!({ "name": family.name, "labels": labels, "value": value })
                    }
                    Value::Distribution(found) => json!({
                        "name": family.name,
                        "labels": labels,
                        "count": found.count(),
                        "sum": found.sum,
                    }),
                });
            }
        }
        let line = json!({ "time_ms": wall_ms, "metrics": metrics });
        self.metrics.write(format!("{line}\n").as_bytes())
    }
}

impl Limited {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let len = lines.len() as u64;
        if len > self.left {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the debug file is full"));
        }
        self.file.write_all(lines)?;
        self.left -= len;
        Ok(())
    }
}

fn line_of(span: &SpanRecord) -> String {
    let attributes: Map<String, serde_json::Value> = (span.attributes.iter())
        .map(|(name, value)| {
            let value = match value {
                Attribute::Text(text) => text.as_ref().into(),
                Attribute::Number(number) => (*number).into(),
            };
            ((*name).to_owned(), value)
        })
        .collect();
    let parent = (span.parent_id != 0).then(|| format!("{:016x}", span.parent_id));
    json!({
        "name": span.name,
        "kind": span.kind.name(),
        "trace_id": format!("{:032x}", span.trace_id),
        "span_id": format!("{:016x}", span.span_id),
        "parent_id": parent,
        "start_ns": span.start_ns,
        "end_ns": span.end_ns,
        "attributes": attributes,
        "error": span.error,
    })
    .to_string()
}
