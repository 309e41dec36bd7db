//! What was seen, as tables for people: one row for each thing measured, one column for each server.

use std::fmt::Write as _;

use crate::plan::{Results, Row};
use crate::report::goals;
use crate::service::Kind;
use crate::settings::Settings;

/// Others may take this much of a core before a number deserves a mark.
const OTHERS_MAX: f64 = 0.2;

type Cell = fn(&Row) -> Option<String>;

/// Tables: title, what a cell says. A row is left out where no server has it.
const TABLES: [(&str, Cell); 6] = [
    ("A second", |row| row.rate.filter(|_| row.p50_us.is_some()).map(whole)),
    ("p50 / p99 / p99.9 in milliseconds", |row| {
        let at = |us: Option<f64>| us.map(|us| us / 1000.0);
        let (p50, p99, p999) = (at(row.p50_us)?, at(row.p99_us)?, at(row.p999_us)?);
        Some(format!("{p50:.2} / {p99:.2} / {p999:.2}"))
    }),
    ("Server's processor time for each request, in microseconds", |row| {
        row.cpu_us.map(|us| format!("{us:.1}"))
    }),
    ("Memory in MiB: resident, of that not backed by a file", |row| {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        row.memory.map(|m| format!("{:.0}, {:.0}", mebibytes(m.rss), mebibytes(m.anonymous)))
    }),
    ("Seconds", |row| row.seconds.map(|seconds| format!("{seconds:.2}"))),
    ("Secrets there were", |row| row.secrets.map(|secrets| whole(secrets as f64))),
];

/// All tables, and the goals.
pub(crate) fn tables(results: &Results, settings: &Settings) -> String {
    let mut text = format!("# Coffer beside OpenBao, {} run\n\n", settings.mode);
    let machine = |name: &str| match &results.machine[name] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let _ = writeln!(
        text,
        "Written by `make bench`; [README](README.md) says what the rows mean. {} cores ({}), kernel {}, {} connections; \
         load before: {}; {:.0} s in all. `*`: others took more than {OTHERS_MAX} cores meanwhile.\n",
        machine("cores"),
        machine("processor"),
        machine("kernel"),
        machine("connections"),
        machine("load_before"),
        results.took.as_secs_f64()
    );
    text.push_str("| goal | wanted | reached | |\n|---|---|---|---|\n");
    for goal in goals(results) {
        let reached = goal.reached.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        let _ = writeln!(text, "| {} | {} | {reached} | {} |", goal.what, goal.wanted, goal.verdict());
    }
    for failure in &results.failures {
        let _ = writeln!(text, "\nFailed: {failure}");
    }
    for (title, cell) in TABLES {
        table(&mut text, results, title, cell);
    }
    text
}

fn table(text: &mut String, results: &Results, title: &str, cell: Cell) {
    let mut names: Vec<&str> = Vec::new();
    for row in results.rows.iter().filter(|row| cell(row).is_some()) {
        if !names.contains(&row.name.as_str()) {
            names.push(&row.name);
        }
    }
    let columns = Kind::ALL.map(Kind::name);
    let _ = write!(text, "\n## {title}\n\n| |");
    columns.iter().for_each(|column| {
        let _ = write!(text, " {column} |");
    });
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(columns.len()));
    for name in names {
        let _ = write!(text, "\n| `{name}` |");
        for column in columns {
            let row = results.find(column, name);
            let said = row.and_then(cell).unwrap_or_default();
            let disturbed =
                !said.is_empty() && row.and_then(|row| row.others).is_some_and(|o| o > OTHERS_MAX);
            let _ = write!(text, " {said}{} |", if disturbed { "\\*" } else { "" });
        }
    }
    text.push('\n');
}

fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(whole(999.4), "999");
        assert_eq!(whole(65_000.0), "65,000");
        assert_eq!(whole(1_000_000.0), "1,000,000");
    }

    #[test]
    fn a_table_has_a_column_for_each_server_and_marks_what_was_disturbed() {
        let row = |service, others| Row {
            service,
            name: "reads".into(),
            cpu_us: Some(12.34),
            others: Some(others),
            ..Row::default()
        };
        let results = Results {
            machine: serde_json::Value::Null,
            rows: vec![row("openbao", 0.0), row("coffer", 1.5)],
            took: std::time::Duration::ZERO,
            failures: Vec::new(),
        };
        let mut text = String::new();
        table(&mut text, &results, "Time", TABLES[2].1);
        assert!(text.ends_with("| `reads` |  | 12.3 | 12.3\\* |  |\n"), "{text}");
    }
}
