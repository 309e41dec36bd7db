//! What goes to the terminal. Tables have no frames, so that they can be read by `awk` as well as by people.

use std::io::Write;

use clap::ValueEnum;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;
use serde_json::{Map, Value};

use super::session::env;

/// How results are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For programs that prefer it, and for people with nested values.
    Yaml,
}

/// Where results go.
#[derive(Debug)]
pub(crate) struct Out {
    format: Format,
}

impl Out {
    /// The flag, else the environment, else a table.
    pub(crate) fn new(flag: Option<Format>) -> anyhow::Result<Self> {
        let format = match (flag, env(&["COFFER_FORMAT", "VAULT_FORMAT", "BAO_FORMAT"])) {
            (Some(format), _) => format,
            (None, None) => Format::Table,
            (None, Some((name, text))) => Format::from_str(&text, true).map_err(|_| {
                anyhow::anyhow!("{name} is {text:?}: expected \"table\", \"json\" or \"yaml\"")
            })?,
        };
        Ok(Self { format })
    }

    /// Whether programs read this: then a value is shown whole, by [`Out::json`].
    pub(crate) fn is_json(&self) -> bool {
        self.format != Format::Table
    }

    /// A value for programs, as JSON or YAML.
    pub(crate) fn json<T: Serialize + ?Sized>(&self, value: &T) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.format == Format::Yaml {
            return Ok(out.write_all(serde_yaml::to_string(value)?.as_bytes())?);
        }
        serde_json::to_writer_pretty(&mut out, value).map_err(std::io::Error::from)?;
        Ok(writeln!(out)?)
    }

    /// One line of text.
    pub(crate) fn line(&self, text: &str) -> anyhow::Result<()> {
        Ok(writeln!(std::io::stdout().lock(), "{text}")?)
    }

    /// Text exactly as it is, such as a field's value; with a line end if it goes to a terminal.
    pub(crate) fn raw(&self, text: &str) -> anyhow::Result<()> {
        use std::io::IsTerminal;
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        if out.is_terminal() && !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    }

    /// A success that has nothing to show: a sentence for people, an empty object for programs.
    pub(crate) fn success(&self, text: &str) -> anyhow::Result<()> {
        if self.is_json() { self.line("{}") } else { self.line(&format!("Success! {text}")) }
    }

    /// A table with a header.
    pub(crate) fn table(&self, header: &[&str], rows: &[Vec<String>]) -> anyhow::Result<()> {
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.add_row(header.iter().map(|title| (*title).to_owned()));
        table.add_row(header.iter().map(|title| "-".repeat(title.chars().count())));
        for row in rows {
            table.add_row(row.iter().map(|cell| printable(cell)));
        }
        // The style pads each line to the table's width and starts it with a blank.
        let lines: Vec<String> =
            table.lines().map(|line| line.trim_end().trim_start_matches(' ').to_owned()).collect();
        self.line(&lines.join("\n"))
    }

    /// Key and value, two columns.
    pub(crate) fn pairs(&self, rows: &[(String, String)]) -> anyhow::Result<()> {
        let rows: Vec<Vec<String>> = rows.iter().map(|(k, v)| vec![k.clone(), v.clone()]).collect();
        self.table(&["Key", "Value"], &rows)
    }

    /// A list of names.
    pub(crate) fn names(&self, title: &str, names: &[String]) -> anyhow::Result<()> {
        if self.is_json() {
            return self.json(names);
        }
        let rows: Vec<Vec<String>> = names.iter().map(|name| vec![name.clone()]).collect();
        self.table(&[title], &rows)
    }
}

/// A line on standard error. That it cannot be written changes nothing.
pub(crate) fn complain(text: &str) {
    let _unwritable = writeln!(std::io::stderr().lock(), "{text}");
}

/// The rows of a map, nested values as JSON.
pub(crate) fn rows(map: &Map<String, Value>) -> Vec<(String, String)> {
    map.iter().map(|(key, value)| (key.clone(), cell(value))).collect()
}

/// A value as one cell.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "n/a".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            format!("[{}]", texts.join(" "))
        }
        other => other.to_string(),
    }
}

/// Seconds as people write them.
pub(crate) fn duration(seconds: u64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes, rest) {
        (0, 0, s) => format!("{s}s"),
        (0, m, 0) => format!("{m}m"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, 0, 0) => format!("{h}h"),
        (h, m, 0) => format!("{h}h{m}m"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

/// Text that cannot steer a terminal: names and values may come from others.
pub(crate) fn printable(text: &str) -> String {
    if !text.chars().any(|c| c.is_control() && c != '\n') {
        return text.to_owned();
    }
    text.chars()
        .flat_map(|c| if c.is_control() && c != '\n' { c.escape_default().collect() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (61, "1m1s"), (3600, "1h"), (3661, "1h1m1s")]
        {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn escapes_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(printable("a\nb"), "a\nb");
    }

    #[test]
    fn cells() {
        assert_eq!(cell(&serde_json::json!(["a", "b"])), "[a b]");
        assert_eq!(cell(&serde_json::json!({"a": 1})), r#"{"a":1}"#);
        assert_eq!(cell(&Value::Null), "n/a");
    }
}
