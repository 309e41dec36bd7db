//! A plot of the main rows: one panel each, one bar for each server. Plain SVG, readable without colour.

use std::fmt::Write as _;

use crate::plan::{Results, Row};
use crate::service::Kind;

const PANEL_WIDTH: f64 = 430.0;
const PANEL_HEIGHT: f64 = 150.0;
const COLUMNS: usize = 2;
const BAR: f64 = 20.0;
const LABEL: f64 = 90.0;

type Value = fn(&Row) -> Option<f64>;

/// Panels: title, unit, row, value.
const PANELS: [(&str, &str, &str, Value); 10] = [
    ("Reads a second (more is better)", "/s", "reads", |r| r.rate),
    ("Writes a second (more is better)", "/s", "writes", |r| r.rate),
    ("AppRole logins a second (more is better)", "/s", "logins", |r| r.rate),
    ("Token creates a second (more is better)", "/s", "creates", |r| r.rate),
    ("Mix at 10,000/s, p99 (less is better)", " ms", "mix", |r| r.p99_us.map(|us| us / 1000.0)),
    ("Mix at 1,000/s, p99 (less is better)", " ms", "mix-tenth", |r| r.p99_us.map(|us| us / 1000.0)),
    ("Resident memory, few secrets (less is better)", " MiB", "memory", mebibytes),
    ("Resident memory, many secrets (less is better)", " MiB", "memory-many", mebibytes),
    ("p50 of reads, many secrets (less is better)", " us", "reads-many", |r| r.p50_us),
    ("Start to first read, many secrets (less is better)", " s", "start-many", |r| r.seconds),
];

fn mebibytes(row: &Row) -> Option<f64> {
    row.memory.map(|memory| memory.rss as f64 / f64::from(1 << 20))
}

/// The picture.
pub(crate) fn plot(results: &Results) -> String {
    let rows = PANELS.len().div_ceil(COLUMNS);
    let (width, height) = (PANEL_WIDTH * COLUMNS as f64, PANEL_HEIGHT * rows as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (number, (title, unit, name, value)) in PANELS.iter().enumerate() {
        let x = PANEL_WIDTH * (number % COLUMNS) as f64 + 12.0;
        let y = PANEL_HEIGHT * (number / COLUMNS) as f64 + 20.0;
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" font-weight=\"bold\">{title}</text>");
        let bars: Vec<(Kind, Option<f64>)> =
            Kind::ALL.map(|kind| (kind, results.find(kind.name(), name).and_then(value))).to_vec();
        let most = bars.iter().filter_map(|(_, value)| *value).fold(0.0, f64::max);
        let mut line = y + 10.0;
        for (kind, value) in bars {
            let Some(value) = value else { continue };
            let length = (PANEL_WIDTH - LABEL - 110.0) * if most > 0.0 { value / most } else { 0.0 };
            let (start, middle) = (x + LABEL, line + BAR * 0.7);
            let _ = writeln!(
                svg,
                "<text x=\"{x}\" y=\"{middle}\">{}</text>\
                 <rect x=\"{start}\" y=\"{line}\" width=\"{length:.1}\" height=\"{}\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{middle}\">{}{unit}</text>",
                kind.name(),
                BAR - 4.0,
                colour(kind),
                start + length + 6.0,
                number_text(value),
            );
            line += BAR;
        }
    }
    svg.push_str("</svg>\n");
    svg
}

const fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Ceiling => "#b8b8b8",
        Kind::OpenBao => "#d98324",
        Kind::Coffer => "#2a6f97",
        Kind::CofferDisk => "#7fb3d1",
    }
}

fn number_text(value: f64) -> String {
    if value >= 1000.0 {
        let whole = value.round() as u64;
        let (thousands, rest) = (whole / 1000, whole % 1000);
        format!("{thousands},{rest:03}")
    } else if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(number_text(70_123.4), "70,123");
        assert_eq!(number_text(0.5), "0.50");
    }
}
