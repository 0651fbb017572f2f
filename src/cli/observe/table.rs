//! Columns and units for people.

use crate::model::escape::one_line;
use std::fmt::Write;

/// Aligns rows, whose cells move no cursor; the last cell of a row is not padded.
pub fn align(rows: &[Vec<String>]) -> String {
    let plain = |row: &Vec<String>| row.iter().map(|cell| one_line(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(plain).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:<width$}  ").expect("a string takes any text");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A time of so many nanoseconds, in the unit that suits it: `850 ns`, `12 µs`, `1.24 ms`, `3.1 s`,
/// `2m 10s`, `3h 05m`, `2d 04h`.
pub fn time(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{:.2} ms", ns as f64 / 1e6),
        1_000_000_000..60_000_000_000 => format!("{:.1} s", ns as f64 / 1e9),
        _ => match seconds {
            0..3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
            3_600..86_400 => format!("{}h {:02}m", seconds / 3_600, seconds % 3_600 / 60),
            _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
        },
    }
}

/// The same of so many milliseconds; a dash for none.
pub fn time_ms(ms: Option<u64>) -> String {
    ms.map_or_else(dash, |ms| time(ms.saturating_mul(1_000_000)))
}

/// What stands where there is nothing.
pub fn dash() -> String {
    "-".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_suits_them() {
        for (ns, shown) in [
            (0, "0 ns"),
            (12_345, "12 µs"),
            (1_240_000, "1.24 ms"),
            (3_100_000_000, "3.1 s"),
            (130_000_000_000, "2m 10s"),
            (11_100_000_000_000, "3h 05m"),
            (187_200_000_000_000, "2d 04h"),
        ] {
            assert_eq!(time(ns), shown);
        }
        assert_eq!((time_ms(None), time_ms(Some(5))), ("-".into(), "5.00 ms".into()));
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_clean() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        assert_eq!(align(&[row("µµµ", "b"), row("c", "")]), "µµµ  b\nc\n");
        assert_eq!(align(&[row("a\nb", "\x1bc"), row("d", "e")]), "a\\nb  \\u{1b}c\nd     e\n");
    }
}
