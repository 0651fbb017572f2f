//! All metrics at a moment, each with its place in the catalogue: what the exposition, the OTLP
//! exporter and debug files are made of.

use super::catalogue::{CATALOGUE, Family, Kind};
use super::primitives::{Counter, Distribution, Histogram};
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};
use prometheus::{TEXT_FORMAT, TextEncoder};

/// The content type of [`Snapshot::text`].
pub const TEXT_CONTENT_TYPE: &str = TEXT_FORMAT;

/// The value of one series.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of a counter or a gauge.
    Number(f64),
    /// Of a histogram.
    Distribution(Distribution),
}

/// One series of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Which metric.
    pub family: &'static Family,
    /// One value for each of its labels.
    pub labels: Vec<String>,
    /// Its value.
    pub value: Value,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    samples: Vec<Sample>,
}

impl Snapshot {
    /// Adds a number.
    pub fn number(&mut self, family: &'static Family, labels: &[&str], value: f64) {
        assert_ne!(family.kind, Kind::Histogram, "{} is no number", family.name);
        self.add(family, labels, Value::Number(value));
    }

    /// Adds a counter.
    pub fn counter(&mut self, family: &'static Family, labels: &[&str], counter: &Counter) {
        self.number(family, labels, counter.get() as f64);
    }

    /// Adds a histogram.
    pub fn histogram(&mut self, family: &'static Family, labels: &[&str], histogram: &Histogram) {
        self.distribution(family, labels, histogram.read());
    }

    /// Adds what a histogram held, or several together.
    pub fn distribution(&mut self, family: &'static Family, labels: &[&str], held: Distribution) {
        assert_eq!(family.kind, Kind::Histogram, "{} is a number", family.name);
        self.add(family, labels, Value::Distribution(held));
    }

    fn add(&mut self, family: &'static Family, labels: &[&str], value: Value) {
        assert_eq!(labels.len(), family.labels.len(), "labels of {}", family.name);
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        self.samples.push(Sample { family, labels, value });
    }

    /// Every metric that has series, with them, in the catalogue's order.
    pub fn families(&self) -> impl Iterator<Item = (&'static Family, Vec<&Sample>)> {
        CATALOGUE.iter().filter_map(|family| {
            let of_it = |sample: &&Sample| std::ptr::eq(sample.family, *family);
            let samples: Vec<&Sample> = self.samples.iter().filter(of_it).collect();
            (!samples.is_empty()).then_some((*family, samples))
        })
    }

    /// The metrics as Prometheus reads them (text format 0.0.4).
    pub fn text(&self) -> String {
        let families: Vec<MetricFamily> =
            self.families().map(|(family, samples)| to_prometheus(family, &samples)).collect();
        let encoded = TextEncoder::new().encode_to_string(&families);
        encoded.expect("a string takes any text, and every family has a name and a series")
    }
}

fn to_prometheus(family: &Family, samples: &[&Sample]) -> MetricFamily {
    let mut made = MetricFamily::default();
    made.set_name(family.name.into());
    made.set_help(family.help.into());
    made.set_field_type(match family.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    made.set_metric(samples.iter().map(|sample| series(family, sample)).collect());
    made
}

fn series(family: &Family, sample: &Sample) -> proto::Metric {
    let labels = family.labels.iter().zip(&sample.labels).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).into());
        pair.set_value(value.clone());
        pair
    });
    let mut series = proto::Metric::from_label(labels.collect());
    match &sample.value {
        Value::Number(number) if family.kind == Kind::Counter => {
            let mut counter = proto::Counter::default();
            counter.set_value(*number);
            series.set_counter(counter);
        }
        Value::Number(number) => {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(*number);
            series.set_gauge(gauge);
        }
        Value::Distribution(distribution) => series.set_histogram(cumulated(distribution)),
    }
    series
}

fn cumulated(distribution: &Distribution) -> proto::Histogram {
    let mut made = proto::Histogram::default();
    let mut count = 0;
    let buckets = distribution.bounds.iter().zip(&distribution.counts).map(|(bound, of_bucket)| {
        count += of_bucket;
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(count);
        bucket
    });
    made.set_bucket(buckets.collect());
    made.set_sample_count(distribution.count());
    made.set_sample_sum(distribution.sum);
    made
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::{FLUSH_RECORDS, MAILBOX};
    use super::*;

    #[test]
    fn the_exposition_has_help_type_labels_and_cumulated_buckets() {
        let histogram = Histogram::of_counts();
        for value in [1, 2, 2, u64::from(u32::MAX)] {
            histogram.observe(value);
        }
        let mut snapshot = Snapshot::default();
        snapshot.histogram(&FLUSH_RECORDS, &["log", "0"], &histogram);
        snapshot.number(&MAILBOX, &["a \"kind\""], 3.0);
        let text = snapshot.text();
        for line in [
            "# TYPE duramen_mailbox_messages gauge",
            "duramen_mailbox_messages{actor=\"a \\\"kind\\\"\"} 3",
            "duramen_flush_records_bucket{topic=\"log\",partition=\"0\",le=\"2\"} 3",
            "duramen_flush_records_bucket{topic=\"log\",partition=\"0\",le=\"+Inf\"} 4",
            "duramen_flush_records_count{topic=\"log\",partition=\"0\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
