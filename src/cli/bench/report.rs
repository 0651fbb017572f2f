//! Figures as people and programs read them: medians with their spread, ratios taken pairwise.

use super::case::{Case, Load};
use super::compare::{Measured, Run, Spent};
use super::disk_floor::Place;
use super::guarded::Guard;
use super::load::Sample;
use serde_json::{Value, json};

/// All runs of one row.
#[derive(Debug)]
pub struct Row {
    pub case: Case,
    pub runs: Vec<Run>,
}

/// A figure over all runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` where no run has the figure.
    pub fn of(figures: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.filter(|figure| figure.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            1 => sorted[middle],
            _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
        };
        Some(Self { median, min, max })
    }

    fn json(self) -> Value {
        json!({"median": self.median, "min": self.min, "max": self.max})
    }
}

impl Row {
    /// A row without runs.
    pub fn new(case: Case) -> Self {
        Self { case, runs: Vec::new() }
    }

    fn figure(&self, of: impl Fn(&Run) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(of))
    }

    fn rate(&self) -> Option<Spread> {
        self.figure(|run| Some(run.node.rate()))
    }

    fn latency_us(&self, quantile: f64) -> Option<Spread> {
        self.figure(|run| latency_us(&run.node, quantile))
    }

    /// What the cluster did with the same load, and how that compares with the single node.
    fn cluster_figures(&self) -> Figures {
        let of = |figure: fn(&Run, &Measured) -> Option<f64>| {
            self.figure(|run| figure(run, run.cluster.as_ref()?))
        };
        let cost =
            |figure: fn(&Measured) -> Option<f64>| self.figure(|run| figure(run.cluster.as_ref()?));
        vec![
            ("cluster_records_per_second", of(|_, cluster| Some(cluster.sample.rate()))),
            ("cluster_p50_us", of(|_, cluster| latency_us(&cluster.sample, 0.5))),
            ("cluster_p99_us", of(|_, cluster| latency_us(&cluster.sample, 0.99))),
            ("cluster_p999_us", of(|_, cluster| latency_us(&cluster.sample, 0.999))),
            ("leader_cpu_seconds_per_million", cost(|c| c.spent[0].cpu_per_million)),
            ("follower_cpu_seconds_per_million", cost(|c| of_followers(c, |s| s.cpu_per_million))),
            ("leader_records_per_flush", cost(|c| c.spent[0].records_per_flush)),
            ("follower_records_per_flush", cost(|c| of_followers(c, |s| s.records_per_flush))),
            ("rate_ratio_to_single_node", of(|run, c| Some(c.sample.rate() / run.node.rate()))),
            (
                "p50_ratio_to_single_node",
                of(|run, c| Some(latency_us(&c.sample, 0.5)? / latency_us(&run.node, 0.5)?)),
            ),
        ]
    }

    /// What the node behind this guard did with the same load, and how that compares with the plain one.
    fn guarded_figures(&self, guard: Guard) -> Figures {
        let of = |figure: &dyn Fn(&Run, &Measured) -> Option<f64>| {
            self.figure(|run| figure(run, &run.guarded.iter().find(|(at, _)| *at == guard)?.1))
        };
        let ratio = |quantile: f64| {
            of(&|run, at| {
                Some(latency_us(&at.sample, quantile)? / latency_us(&run.node, quantile)?)
            })
        };
        vec![
            ("records_per_second", of(&|_, at| Some(at.sample.rate()))),
            ("p50_us", of(&|_, at| latency_us(&at.sample, 0.5))),
            ("p99_us", of(&|_, at| latency_us(&at.sample, 0.99))),
            ("server_cpu_seconds_per_million", of(&|_, at| at.spent[0].cpu_per_million)),
            ("visits", of(&|_, at| visits(&at.sample))),
            ("rate_ratio_to_plain", of(&|run, at| Some(at.sample.rate() / run.node.rate()))),
            ("p50_ratio_to_plain", ratio(0.5)),
            ("p99_ratio_to_plain", ratio(0.99)),
            (
                "cpu_ratio_to_plain",
                of(&|run, at| Some(at.spent[0].cpu_per_million? / run.spent.cpu_per_million?)),
            ),
        ]
    }

    /// Of the plain node's rate, median over the runs.
    fn of_plain(&self, guard: Guard) -> Option<Spread> {
        let found = self.guarded_figures(guard);
        found.into_iter().find(|(name, _)| *name == "rate_ratio_to_plain")?.1
    }

    fn guarded_json(&self) -> Option<Value> {
        self.runs.first().filter(|run| !run.guarded.is_empty())?;
        let guards = Guard::ALL.into_iter().map(|guard| {
            let figures = self.guarded_figures(guard).into_iter();
            let figures = figures.filter_map(|(name, spread)| Some((name.into(), spread?.json())));
            let mut figures: serde_json::Map<String, Value> = figures.collect();
            if let (Some(floor), Some(ratio)) = (self.case.floor(), self.of_plain(guard)) {
                figures.insert("floor".into(), json!(floor));
                figures.insert("is_reached".into(), json!(ratio.median >= floor));
            }
            (guard.name().to_owned(), Value::Object(figures))
        });
        Some(Value::Object(guards.collect()))
    }

    fn echo_ratio(&self) -> Option<Spread> {
        self.figure(|run| Some(run.node.rate() / run.echo.as_ref()?.rate()))
    }

    /// Our records a second, of those that the disk takes in flushes of the same size.
    fn disk_ratio(&self, place: Place) -> Option<Spread> {
        self.figure(|run| {
            let floor = run.disk.iter().find(|(at, _)| *at == place)?.1;
            Some(run.node.rate() / (floor.flushes_per_second * run.spent.records_per_flush?))
        })
    }

    /// For one outstanding record: what we add to one echo and one flush (of the zeroed disk).
    fn over_floors_us(&self) -> Option<Spread> {
        let Load::LockStep { connections: 1, .. } = self.case.load else { return None };
        self.figure(|run| {
            let median = |sample: &Sample| sample.latency.value_at_quantile(0.5) as f64 / 1e3;
            let flush = run.disk.iter().find(|(place, _)| *place == Place::Zeroed)?.1.p50_us;
            Some(median(&run.node) - median(run.echo.as_ref()?) - flush)
        })
    }

    fn figures(&self) -> Figures {
        let megabytes = self.case.record_bytes as f64 / 1e6;
        vec![
            ("records_per_second", self.rate()),
            ("megabytes_per_second", self.figure(|run| Some(run.node.rate() * megabytes))),
            ("p50_us", self.latency_us(0.5)),
            ("p99_us", self.latency_us(0.99)),
            ("p999_us", self.latency_us(0.999)),
            ("server_cpu_seconds_per_million", self.figure(|run| run.spent.cpu_per_million)),
            (
                "resident_mib",
                self.figure(|run| Some(run.spent.resident_bytes? as f64 / 1_048_576.0)),
            ),
            ("visits", self.figure(|run| visits(&run.node))),
            ("bytes_per_record", self.figure(|run| run.spent.bytes_per_record)),
            ("records_per_flush", self.figure(|run| run.spent.records_per_flush)),
            ("ratio_to_echo", self.echo_ratio()),
            ("ratio_to_disk_append", self.disk_ratio(Place::Append)),
            ("ratio_to_disk_zeroed", self.disk_ratio(Place::Zeroed)),
            ("ratio_to_disk_written", self.disk_ratio(Place::Written)),
            ("p50_over_echo_and_flush_us", self.over_floors_us()),
        ]
    }

    fn json(&self) -> Value {
        let figures = self.figures().into_iter().chain(self.cluster_figures());
        let figures = figures.filter_map(|(name, spread)| Some((name.to_owned(), spread?.json())));
        let mut row: serde_json::Map<String, Value> = figures.collect();
        row.insert("case".into(), json!(self.case.name));
        row.insert("record_bytes".into(), json!(self.case.record_bytes));
        row.insert("runs".into(), json!(self.runs.len()));
        row.insert("echo_records_per_second".into(), json!(self.echo_rate().map(Spread::json)));
        row.insert("disk".into(), self.disk_json());
        row.extend(self.guarded_json().map(|guarded| ("guarded".into(), guarded)));
        Value::Object(row)
    }

    fn echo_rate(&self) -> Option<Spread> {
        self.figure(|run| Some(run.echo.as_ref()?.rate()))
    }

    fn disk_json(&self) -> Value {
        let places = Place::ALL.into_iter().filter_map(|place| {
            let of = |run: &Run| run.disk.iter().find(|(at, _)| *at == place).map(|found| found.1);
            let rate = self.figure(|run| Some(of(run)?.flushes_per_second))?;
            let p50 = self.figure(|run| Some(of(run)?.p50_us))?;
            let value = json!({"flushes_per_second": rate.json(), "p50_us": p50.json()});
            Some((place.name().to_owned(), value))
        });
        Value::Object(places.collect())
    }
}

fn latency_us(sample: &Sample, quantile: f64) -> Option<f64> {
    let latency = &sample.latency;
    (!latency.is_empty()).then(|| latency.value_at_quantile(quantile) as f64 / 1e3)
}

/// Clients that came and went beside a load, where any did.
fn visits(sample: &Sample) -> Option<f64> {
    (sample.visits > 0).then_some(sample.visits as f64)
}

/// The mean over the nodes that do not lead.
fn of_followers(cluster: &Measured, figure: fn(&Spent) -> Option<f64>) -> Option<f64> {
    let followers: Option<Vec<f64>> = cluster.spent.iter().skip(1).map(figure).collect();
    followers.map(|all| all.iter().sum::<f64>() / all.len() as f64)
}

/// Prints all rows as one JSON array.
pub fn print_json(rows: &[Row]) {
    let rows: Vec<Value> = rows.iter().map(Row::json).collect();
    println!("{:#}", Value::Array(rows));
}

/// Prints all rows as a table, and a second one of the cluster; columns only where they were measured.
pub fn print_table(rows: &[Row]) {
    let headings = [
        "rec/s",
        "MB/s",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "cpu s/M",
        "RSS MiB",
        "visits",
        "B/rec",
        "rec/flush",
        "/echo",
        "/append",
        "/zeroed",
        "/written",
        "+floors us",
    ];
    print_columns(&headings, rows, Row::figures);
    if rows.iter().any(|row| row.runs.iter().any(|run| run.cluster.is_some())) {
        let headings = [
            "rec/s",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "leads s/M",
            "follow s/M",
            "leads r/f",
            "follow r/f",
            "rate/one",
            "p50/one",
        ];
        println!("\nthe cluster");
        print_columns(&headings, rows, Row::cluster_figures);
    }
    if rows.iter().any(|row| row.runs.iter().any(|run| !run.guarded.is_empty())) {
        print_guarded(rows);
    }
}

/// A table for each guard, and a line for each floor.
fn print_guarded(rows: &[Row]) {
    let headings = [
        "rec/s",
        "p50 us",
        "p99 us",
        "cpu s/M",
        "visits",
        "rate/plain",
        "p50/plain",
        "p99/plain",
        "cpu/plain",
    ];
    for guard in Guard::ALL {
        println!("\nbehind {}", guard.name());
        print_columns(&headings, rows, |row| row.guarded_figures(guard));
    }
    println!();
    for (row, guard) in rows.iter().flat_map(|row| Guard::ALL.map(|guard| (row, guard))) {
        if let (Some(floor), Some(Spread { median, min, max })) =
            (row.case.floor(), row.of_plain(guard))
        {
            let verdict = if median >= floor { "reached" } else { "MISSED" };
            let (case, guard) = (&row.case.name, guard.name());
            println!(
                "{case}, {guard}: {median:.2} [{min:.2} .. {max:.2}] of plain, floor {floor}: {verdict}"
            );
        }
    }
}

type Figures = Vec<(&'static str, Option<Spread>)>;

fn print_columns(headings: &[&str], rows: &[Row], figures: impl Fn(&Row) -> Figures) {
    let table: Vec<(&Row, Figures)> = rows.iter().map(|row| (row, figures(row))).collect();
    let shown: Vec<usize> = (0..headings.len())
        .filter(|column| table.iter().any(|(_, figures)| figures[*column].1.is_some()))
        .collect();
    let width = rows.iter().map(|row| row.case.name.len()).max().unwrap_or(0);
    let header: String = shown.iter().map(|at| format!(" {:>10}", headings[*at])).collect();
    println!("{:width$}{header}", "");
    for (row, figures) in table {
        let cells: String = shown.iter().map(|at| cell(figures[*at].1)).collect();
        println!("{:width$}{cells}", row.case.name);
        if row.runs.len() > 1
            && let Some(rate) = figures[0].1
        {
            println!("{:width$} [{} .. {}] rec/s", "", number(rate.min), number(rate.max));
        }
    }
}

fn cell(figure: Option<Spread>) -> String {
    format!(" {:>10}", figure.map_or_else(|| "-".into(), |spread| number(spread.median)))
}

/// Three significant digits below a thousand, whole numbers above.
fn number(figure: f64) -> String {
    match figure.abs() {
        large if large >= 100.0 => format!("{figure:.0}"),
        middle if middle >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_runs_lies_between_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0].into_iter()).unwrap();
        assert_eq!(spread, Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of([7.0].into_iter()).unwrap().median, 7.0);
        assert_eq!(Spread::of(std::iter::empty()), None);
        assert_eq!(Spread::of([f64::NAN].into_iter()), None);
    }

    #[test]
    fn numbers_keep_three_digits() {
        let shown = [66_912.4, 99.96, 12.345, 0.604].map(number);
        assert_eq!(shown, ["66912", "100.0", "12.3", "0.60"]);
    }
}
